//! How fast connections to the API are opened: a rush of short requests shares those that are given back meanwhile.
//!
//! A thousand short requests that come at once are answered within some 60 ms over a few connections (measured; with one for
//! many of them it took longer). One for each would take 27 MiB here, and more at the API.

use std::time::Duration;

use tokio::time::Instant;

/// So many are opened as soon as they are asked for.
pub const AT_ONCE: u32 = 32;
/// Then so long none is. Where a thousand requests come at once that each take the API longer than all this, the last of them
/// waits 310 ms.
pub const WINDOW: Duration = Duration::from_millis(10);

/// What was opened in this window.
#[derive(Debug, Default)]
pub struct Rush {
    began: Option<Instant>,
    opened: u32,
}

// === impl Rush ===

impl Rush {
    /// Whether one may be opened at this moment; then it counts as opened.
    pub fn may_open(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            *self = Self { began: Some(now), opened: 0 };
        }
        let may = self.opened < AT_ONCE;
        self.opened += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_opened_in_each_window() {
        let (begin, mut rush) = (Instant::now(), Rush::default());
        let mut opened = |millis| (0..1000).filter(|_| rush.may_open(begin + Duration::from_millis(millis))).count();
        assert_eq!([0, 9, 10, 15, 19, 20, 500].map(&mut opened), [32, 0, 32, 0, 0, 32, 32]);
    }
}
