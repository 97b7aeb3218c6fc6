//! The two clocks: the wall, for what people read, and the monotonic one, for every interval.
//!
//! The only place that asks the operating system for the time of day. Pure cores get `now` as an argument.

use std::time::Instant;

use jiff::Timestamp;

/// One look at both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never jumps: ages, deadlines and intervals are measured with it.
    pub monotonic: Instant,
    /// May jump: only printed.
    pub wall: Timestamp,
}

// === impl Now ===

impl Now {
    /// Looks at both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), wall: Timestamp::now() }
    }
}
