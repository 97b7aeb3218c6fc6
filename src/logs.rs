//! Logs: turns the lines of files and of the standard input into metrics, each line exactly once.
//!
//! Bytes are cut into lines (`lines`), each line is decoded by itself (`decoder`, with `framing`, `console`, `stack`
//! and `scanner`), and the rules of `series` run on it. Around these pure cores, `tail` follows a file through
//! rotations, `shard` all files of a thread, and `engine` wires threads, events and the state.

mod console;
mod decoder;
mod framing;
mod level;
mod lines;
mod record;
mod scanner;
mod stack;
mod time;
mod wanted;
