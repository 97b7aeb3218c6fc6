//! The scanner against `serde_json` on arbitrary bytes: the same verdict, the same wanted values.
//!
//! The scanner is private to the library, so its files are compiled in here. Two freedoms are its own: bytes that are no
//! UTF-8, and halves of surrogate pairs, are let through; and what `serde_json` refuses only for the range of a number.

#![no_main]
#![allow(dead_code, reason = "not all of the files is used here")]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[path = "../../src/logs"]
mod logs {
    pub mod fault;
    pub mod scanner;
    pub mod slot;
    pub mod wanted;
}

use logs::fault::Oddities;
use logs::scanner::scan;
use logs::slot::{Kind, Slot};
use logs::wanted::Wanted;

const PATHS: [&[&str]; 7] =
    [&["a"], &["level"], &["duration_ms"], &["http", "status"], &["a", "b"], &["http"], &["a name longer than sixteen bytes"]];

fuzz_target!(|line: &[u8]| {
    let mut wanted = Wanted::new();
    for path in PATHS {
        wanted.want(path);
    }
    let mut slots = vec![Slot::default(); wanted.slots()];
    let found = scan(&wanted, line, &mut slots);
    let is_utf8 = std::str::from_utf8(line).is_ok();
    if let Ok(oddities) = found {
        let is_bad = oddities.positions().any(|position| Oddities::NAMES[position] == "bad_utf8");
        assert_eq!(is_bad, !is_utf8, "what is no UTF-8 is said");
    }
    if !is_utf8 {
        return;
    }
    let is_odd = |name: &str| found.is_ok_and(|oddities| oddities.positions().any(|position| Oddities::NAMES[position] == name));
    match serde_json::from_slice::<Value>(line) {
        Ok(value) if value.is_object() => {
            assert!(found.is_ok(), "serde_json takes it: {found:?}");
            for (path, slot) in PATHS.iter().zip(&slots) {
                let expected = path.iter().try_fold(&value, |value, key| value.get(key));
                let own = match slot.kind {
                    Kind::Missing => None,
                    Kind::Text | Kind::Escaped => slot.text(line).map(|text| Value::String(text.into_owned())),
                    _ => Some(serde_json::from_slice(slot.raw(line)).expect("a part of what serde_json takes")),
                };
                assert_eq!(own.as_ref(), expected, "{path:?}");
            }
        }
        Ok(_) => assert!(found.is_err(), "it is no object"),
        Err(_) => {
            assert!(found.is_err() || is_odd("lone_surrogate") || is_odd("number_range") || has_odd_part(line), "serde_json refuses it")
        }
    }
});

/// Whether `serde_json` refuses a line only for a number out of range or half of a surrogate pair: it does not when it
/// need not keep them.
fn has_odd_part(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}
