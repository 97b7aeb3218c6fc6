//! Hostile bytes as the log state: nothing panics, nothing is taken over that is not whole, and what is taken over can be
//! exposed and kept again.

#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;

use bellwether::config::environment::Environment;
use bellwether::config::logs::Logs;
use bellwether::config::{Request, load};
use bellwether::logs::Engine;
use libfuzzer_sys::fuzz_target;

struct Bench {
    folder: tempfile::TempDir,
    config: Logs,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(bench());
}

fn bench() -> Bench {
    let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
    let config = load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).expect("the profile is valid").logs;
    // Memory, where there is some, is kinder to the disk.
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    Bench { folder: tempfile::tempdir_in(parent).expect("a folder can be made"), config }
}

/// A slot whose checksum is right, so that what is in it is looked at.
fn slot(generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    let mut bytes = b"BWSTATE\x01".to_vec();
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fuzz_target!(|data: &[u8]| {
    BENCH.with_borrow_mut(|Bench { folder, config }| {
        let (is_raw, payload) = data.split_first().map_or((false, data), |(first, rest)| (first % 4 == 0, rest));
        let bytes = if is_raw { payload.to_vec() } else { slot(1, payload) };
        std::fs::write(folder.path().join("logs.1.state"), bytes).expect("the folder can be written to");
        let engine = Engine::new(config, Some(folder.path())).expect("a state that is damaged is no error");
        let families = engine.families();
        let kept = families.lock().state();
        assert!(families.lock().restore(kept).is_empty(), "what was taken over fits");
    });
});
