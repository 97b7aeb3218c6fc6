//! Logs: turns the lines of files and streams into metrics, each line exactly once.
//!
//! Bytes are cut into lines (`lines`), each line is decoded by itself (`decoder`, with `framing`, `console`, `stack`
//! and `scanner`), and the rules of `series` run on it. Around these pure cores, `tail` follows a file through
//! rotations, `aside`, `content` and `rest` read on what a rotation has copied or compressed, `shard` all files of a
//! thread, `stream` reads what is no file, and `engine` wires threads, events and the state.
//!
//! The limits of "exactly once": bytes that vanish before they are read again after a crash (counted as lost where
//! that is known), and streams, which cannot be read twice.

mod aside;
mod console;
mod content;
mod decoder;
mod discover;
mod engine;
mod examples;
mod explain;
mod fatal;
mod fault;
mod file;
mod framing;
mod interlude;
mod keeper;
mod level;
mod lines;
mod metrics;
mod outcome;
mod record;
mod replay;
mod rest;
mod revision;
mod samples;
mod scanner;
mod seen;
mod shard;
mod sieve;
mod slot;
mod stack;
mod state;
mod stream;
mod suggest;
mod tail;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod wanted;
mod watch;

pub use engine::{Engine, LogsError};
pub use examples::{Difference, count, run_test};
pub use explain::{Explainer, Explanation};
pub use replay::{Replay, replay};
pub use revision::{Revised, Revision};
pub use samples::{Sample, Samples};
pub use stream::tee::Output;
pub use suggest::{Proposal, Survey};
