//! Arbitrary bytes through framing, decoder and rules: nothing panics, and what is counted does not depend on the pieces
//! in which the bytes come.

#![no_main]

use std::cell::RefCell;
use std::io::Read;

use bellwether::config::environment::Environment;
use bellwether::config::{Request, load};
use bellwether::logs::Replay;
use bellwether::series::families::SharedFamilies;
use libfuzzer_sys::fuzz_target;

/// What both ways of reading have counted so far.
struct Bench {
    replay: Replay,
    families: SharedFamilies,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(bench());
}

/// The rules of the profile, with a short limit for lines, so that the fuzzer finds it.
fn bench() -> Bench {
    let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
    let mut config = load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).expect("the profile is valid").logs;
    config.max_line = 256;
    let families = SharedFamilies::default();
    Bench { replay: Replay::new(&config, &families).expect("the rules agree"), families }
}

/// Gives bytes in pieces whose lengths are told by the first bytes.
struct Pieces<'a> {
    lengths: &'a [u8],
    turn: usize,
    bytes: &'a [u8],
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = self.lengths.get(self.turn % self.lengths.len().max(1)).map_or(1, |length| usize::from(*length) % 64 + 1);
        self.turn += 1;
        let length = wanted.min(self.bytes.len()).min(buffer.len());
        buffer[..length].copy_from_slice(&self.bytes[..length]);
        self.bytes = &self.bytes[length..];
        Ok(length)
    }
}

fuzz_target!(|data: &[u8]| {
    let (lengths, bytes) = data.split_at(data.len().min(4));
    BENCH.with_borrow_mut(|Bench { replay, families }| {
        replay.stream(bytes, "whole").expect("memory can be read");
        replay.stream(Pieces { lengths, turn: 0, bytes }, "pieces").expect("memory can be read");
        let families = families.lock();
        for (metric, labels) in [
            ("bellwether_log_lines_total", &["record", "continuation", "unstructured", "malformed", "too_long", "blank", "skipped"][..]),
            (
                "bellwether_log_malformed_total",
                &["truncated", "syntax", "bad_escape", "control_character", "not_a_number", "too_deep", "too_long", "partial_dropped"],
            ),
            (
                "bellwether_log_repaired_total",
                &["bad_utf8", "byte_order_mark", "zeros", "carriage_return", "duplicate_key", "lone_surrogate", "number_range"],
            ),
        ] {
            for label in labels {
                let [whole, pieces] = ["whole", "pieces"].map(|input| families.value(metric, &[input, label]));
                assert!(whole.is_some() && whole == pieces, "{metric} {label}: {whole:?} as a whole, {pieces:?} in pieces");
            }
        }
    });
});
