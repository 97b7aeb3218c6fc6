//! What one part of the sidecar tells another one of a single happening. Data alone.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A line by which a program says that it cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub struct FatalLine {
    /// The input that it came from.
    pub input: String,
    /// The file, or the other end of a connection.
    pub source: String,
    /// Where the line begins, in bytes from the begin of the file or the stream.
    pub offset: u64,
    /// When it says that it was written.
    pub time: Option<Timestamp>,
    /// What it says.
    pub message: String,
    /// All that it has.
    pub fields: Map<String, Value>,
}
