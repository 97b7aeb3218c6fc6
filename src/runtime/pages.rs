//! Gives pages of the program back that only its start needed: tables of the command line, of the schema, of parsers.
//!
//! Owns which mappings may be given back, and when. A page that is needed again comes back from the page cache, some
//! sixteen neighbours with it. Of 23 MiB after a start 17 stay (release build, profile of DecisionBox; in use, half of
//! the difference to the size of the program).

use std::fs;
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use tokio_util::sync::CancellationToken;

use crate::runtime::supervise::PartResult;

/// Everything has been read and made by then, and a moment later the first looks have been taken.
const AFTER_START: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// What runs now and then, such as retention, is over by then, too.
const EVERY: Duration = Duration::from_secs(3600);

/// A range of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range {
    begin: usize,
    length: usize,
}

/// Gives pages back after the start and each hour, until `stop`.
///
/// # Errors
/// None: where the system does not tell of its mappings, nothing is given back.
pub async fn run(stop: CancellationToken) -> PartResult {
    let mut waits = AFTER_START.into_iter();
    let mut next = || waits.next().unwrap_or(EVERY);
    let mut wait = next();
    while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        if let Ok(smaps) = fs::read_to_string("/proc/self/smaps") {
            unchanged(&smaps).into_iter().for_each(give_back);
        }
        wait = next();
    }
    Ok(())
}

/// The mappings of the program's file that nobody can write to and of which no page differs from the file: neither in
/// memory nor swapped out.
fn unchanged(smaps: &str) -> Vec<Range> {
    let mut found = Vec::new();
    let mut candidate = None;
    let mut is_clean = false;
    let mut program = None;
    for line in smaps.lines() {
        if let Some((range, permissions, path)) = header(line) {
            // The program itself comes first.
            program = program.or(path);
            candidate = range.filter(|_| path.is_some() && path == program && !permissions.contains('w'));
            is_clean = false;
        } else if line.starts_with("Anonymous:") {
            is_clean = is_none(line);
        } else if line.starts_with("Swap:") && is_none(line) && is_clean {
            found.extend(candidate.take());
        }
    }
    found
}

fn is_none(line: &str) -> bool {
    line.split_ascii_whitespace().skip(1).eq(["0", "kB"])
}

/// Range, permissions and file of a line that begins a mapping.
fn header(line: &str) -> Option<(Option<Range>, &str, Option<&str>)> {
    let mut words = line.split_ascii_whitespace();
    let (begin, end) = words.next()?.split_once('-')?;
    let (begin, end) = (usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let permissions = words.next()?;
    let range = Some(Range { begin, length: end.checked_sub(begin)? }).filter(|_| permissions.ends_with('p'));
    Some((range, permissions, words.nth(3).filter(|path| path.starts_with('/'))))
}

#[expect(unsafe_code, reason = "there is no safe way to give pages back")]
fn give_back(range: Range) {
    let address = std::ptr::with_exposed_provenance_mut(range.begin);
    // SAFETY: nobody can write to the mapping and it has no page of its own, in memory or swapped out, so that each page holds what the file
    // holds. The file cannot change while it is executed (ETXTBSY). Whoever reads a page later reads the same bytes.
    // A mapping of the program's own file is never taken away while it runs.
    let _ = unsafe { madvise(address, range.length, Advice::LinuxDontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_same_as_in_the_file_is_given_back() {
        let mapping = |range: &str, permissions: &str, path: &str, own: (u32, u32)| {
            let (anonymous, swapped) = own;
            let sizes = format!("Rss: 40 kB\nAnonymous: {anonymous} kB\nSwap: {swapped} kB\nSwapPss: 0 kB\n");
            format!("{range} {permissions} 0072e000 fe:00 99942 {path}\n{sizes}VmFlags: rd ex\n")
        };
        let smaps = [
            mapping("1000-3000", "r--p", "/bin/bellwether", (0, 0)),
            mapping("3000-9000", "r-xp", "/bin/bellwether", (0, 0)),
            // Relocations have been written here before it became read-only.
            mapping("9000-a000", "r--p", "/bin/bellwether", (4, 0)),
            mapping("f000-ffff", "r--p", "/bin/bellwether", (0, 4)),
            mapping("a000-b000", "rw-p", "/bin/bellwether", (0, 0)),
            mapping("b000-c000", "r-xs", "/bin/bellwether", (0, 0)),
            mapping("c000-d000", "r-xp", "/lib/libc.so.6", (0, 0)),
            mapping("d000-e000", "rw-p", "[heap]", (0, 0)),
        ];
        let expected = [Range { begin: 0x1000, length: 0x2000 }, Range { begin: 0x3000, length: 0x6000 }];
        assert_eq!(unchanged(&smaps.concat()), expected);
        assert_eq!(unchanged("nonsense\n\n-\n1-2\n"), []);
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        let ranges = unchanged(&fs::read_to_string("/proc/self/smaps").unwrap());
        assert!(ranges.len() >= 2, "{ranges:?}");
        ranges.iter().copied().for_each(give_back);
        assert_eq!(unchanged(&fs::read_to_string("/proc/self/smaps").unwrap()), ranges);
    }
}
