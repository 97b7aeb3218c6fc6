//! The two clocks: the wall, for what people read, and the monotonic one, for every interval.
//!
//! The only place that asks the operating system for the time of day. Pure cores get `now` as an argument.

use std::sync::OnceLock;
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

/// One look at both clocks, as numbers that can be kept and compared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    /// Milliseconds since the epoch; may jump. 0 where nobody has looked.
    pub wall: i64,
    /// Milliseconds since the process looked first; never jumps.
    pub uptime: i64,
}

// === impl Now ===

impl Now {
    /// Looks at both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), wall: Timestamp::now() }
    }
}

// === impl Moment ===

impl Moment {
    /// Looks at both clocks.
    #[must_use]
    pub fn read() -> Self {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        let uptime = FIRST.get_or_init(Instant::now).elapsed().as_millis();
        Self { wall: Timestamp::now().as_millisecond(), uptime: i64::try_from(uptime).unwrap_or(i64::MAX) }
    }
}
