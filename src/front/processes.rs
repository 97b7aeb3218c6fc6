//! Agents that are processes which can be seen from here: on the same machine, or in a pod that shares its process namespace.
//!
//! An agent is told its run by its arguments (`--run-id ID`). That no process names a run says nothing where the agent runs
//! elsewhere.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;

/// The runs that a process which lives names in its arguments.
#[must_use]
pub fn that_name(runs: &BTreeSet<String>) -> BTreeSet<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let is_process = |name: &OsStr| name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    // One that has ended meanwhile, or has ended and was not waited for, has no arguments.
    let arguments =
        processes.flatten().filter(|entry| is_process(&entry.file_name())).filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    arguments.flat_map(|arguments| named(&arguments, runs)).collect()
}

/// The runs among a process's arguments, each of which ends with a zero byte: as one of its own, or behind `=`.
fn named(arguments: &[u8], runs: &BTreeSet<String>) -> Vec<String> {
    let words = arguments.split(|byte| matches!(byte, 0 | b'='));
    words.filter_map(|word| runs.get(std::str::from_utf8(word).ok()?).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_a_whole_argument() {
        let runs: BTreeSet<String> = ["69d0f3a1c2b4e5f60718293a".to_owned()].into();
        let found = |arguments: &[u8]| !named(arguments, &runs).is_empty();
        assert!(found(b"decisionbox-agent\0--run-id\x0069d0f3a1c2b4e5f60718293a\0"));
        assert!(found(b"decisionbox-agent\0--run-id=69d0f3a1c2b4e5f60718293a\0"));
        assert!(!found(b"decisionbox-agent\0--run-id\x0069d0f3a1c2b4e5f60718293a0\0"));
        assert!(!found(b"") && !found(b"\xff\0"));
        assert!(that_name(&runs).is_empty());
    }
}
