//! How the files of an archive are called. Pure.
//!
//! Names of policies, runs and collections come from people and databases: they become names of folders that can
//! neither leave the archive nor hide in it.

use crate::retention::archive::form::Form;

/// Says whose run it is.
pub(super) const RUN: &str = "run.json";
/// Sums the run up.
pub(super) const MANIFEST: &str = "manifest.json";
const RECEIPT: &str = ".receipt.json.zst";

/// A name as the name of one folder: what is not plain becomes `%` and two hexadecimal digits, as in a URL.
#[must_use]
pub(super) fn folder(name: &str) -> String {
    use std::fmt::Write as _;
    let is_reserved = name == RUN || name == MANIFEST;
    let mut safe = String::with_capacity(name.len());
    for (position, byte) in name.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && position > 0 && !is_reserved);
        if is_plain {
            safe.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

/// The folder of a run.
#[must_use]
pub(super) fn run(policy: &str, run: &str) -> String {
    format!("{}/{}", folder(policy), folder(run))
}

/// A segment, below the folder of its run.
#[must_use]
pub(super) fn segment(unit: &str, number: u32, form: &Form) -> String {
    format!("{}/{number:06}{}", folder(unit), form.extension())
}

/// The receipt of a segment, below the folder of its run.
#[must_use]
pub(super) fn receipt(unit: &str, number: u32) -> String {
    receipt_in(&folder(unit), number)
}

/// The receipt of a segment in a unit's folder.
#[must_use]
pub(super) fn receipt_in(folder: &str, number: u32) -> String {
    format!("{folder}/{number:06}{RECEIPT}")
}

/// What a file in a unit's folder is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A segment.
    Segment,
    /// A receipt.
    Receipt,
}

/// The number of a segment or receipt, by the name of its file; `None` for any other file.
#[must_use]
pub(super) fn numbered(file: &str) -> Option<(u32, Kind)> {
    let (number, rest) = file.split_once('.')?;
    let is_number = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    let kind = match rest {
        "bson.zst" | "copy.zst" => Kind::Segment,
        "receipt.json.zst" => Kind::Receipt,
        _ => return None,
    };
    is_number.then(|| number.parse().ok()).flatten().map(|number| (number, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_folder() {
        assert_eq!(folder("discoveries"), "discoveries");
        assert_eq!(folder("fs.chunks"), "fs.chunks");
        assert_eq!(folder(".."), "%2E.");
        assert_eq!(folder("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd");
        assert_eq!(folder("run.json"), "run%2Ejson");
        assert_eq!(folder("a%2Fb"), "a%252Fb", "what looks escaped is escaped");
        assert_eq!(folder("é"), "%C3%A9");
    }

    #[test]
    fn files_are_known_by_their_names() {
        assert_eq!(numbered("000001.bson.zst"), Some((1, Kind::Segment)));
        assert_eq!(numbered("1000000.copy.zst"), Some((1_000_000, Kind::Segment)));
        assert_eq!(numbered("000002.receipt.json.zst"), Some((2, Kind::Receipt)));
        for other in [".000001.bson.zst.part", "00001.bson.zst", "000001.bson", "x.bson.zst", "+00001.bson.zst"] {
            assert_eq!(numbered(other), None, "{other}");
        }
    }
}
