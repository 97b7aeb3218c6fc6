//! Streams that are read once, from their begin to their end: the standard input, the output of a command, whoever
//! connects to a socket. They cannot be read twice: what was read since the last snapshot is lost with a crash.
//!
//! Here is what a stream remembers; `pump` reads all streams of a thread, `door` lets connections in, `tee` passes on
//! what a command writes.

pub mod door;
pub mod pump;
pub mod tee;

use std::time::Instant;

use crate::logs::decoder::Decoder;
use crate::logs::framing::Framing;
use crate::logs::lines::Lines;
use crate::logs::outcome::Tally;
use crate::series::families::Families;

/// What is remembered of a stream between two reads.
#[derive(Debug, Default)]
pub struct Stream {
    lines: Lines,
    framing: Framing,
    /// How many bytes stand before the line that is being read.
    offset: u64,
}

// === impl Stream ===

impl Stream {
    /// Counts the lines of the next bytes, and says where the first of them begins. None are the end: a last line that
    /// has no end counts.
    pub fn take(&mut self, bytes: &[u8], decoder: &mut Decoder, families: &mut Families) -> (Tally, u64) {
        let base = self.offset;
        if bytes.is_empty() {
            let mut tally = decoder.finish(&mut self.lines, &mut self.framing, families);
            tally.dropped(self.framing.give_up());
            return (tally, base);
        }
        let held = self.lines.rest().len();
        let tally = decoder.feed(bytes, &mut self.lines, &mut self.framing, families);
        self.offset += (held + bytes.len() - self.lines.rest().len()) as u64;
        (tally, base)
    }

    /// Gives up parts of lines whose last part does not come. How many lines.
    pub fn expire(&mut self, now: Instant) -> u32 {
        self.framing.expire(now)
    }

    /// How many bytes of unfinished lines of a runtime are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.framing.held()
    }
}
