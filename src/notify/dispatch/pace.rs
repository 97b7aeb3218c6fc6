//! How many messages within an hour, and no two within a second: what Slack and Discord take for long.

use std::collections::VecDeque;

const HOUR: i64 = 3_600_000;
const SPACING: i64 = 1000;

/// The last messages, by when they were sent.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    sent: VecDeque<i64>,
}

// === impl Pace ===

impl Pace {
    pub fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX).max(1), sent: VecDeque::new() }
    }

    pub fn count(&mut self, now: i64) {
        if self.sent.len() >= self.most {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }

    /// When the next may be sent.
    pub fn not_before(&self) -> i64 {
        let spaced = self.sent.back().map_or(i64::MIN, |last| last + SPACING);
        let hourly = self.sent.front().filter(|_| self.sent.len() >= self.most).map_or(i64::MIN, |first| first + HOUR);
        spaced.max(hourly)
    }
}
