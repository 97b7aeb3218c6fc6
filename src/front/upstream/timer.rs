//! One timer for one deadline after another.
//!
//! To set a timer for each request costs more than to look at one that is set: deadlines move on with each request, so the
//! timer is set anew only when it has rung, or where a deadline is earlier than the one before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that outlives what it is set for.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

// === impl Timer ===

impl Timer {
    /// Ready from `due` on.
    pub fn poll_due(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_each_deadline_whichever_came_before() {
        let (mut timer, begin) = (Timer::default(), Instant::now());
        for millis in [100, 50, 300, 301, 20] {
            let due = Instant::now() + Duration::from_millis(millis);
            let early = poll_fn(|context| Poll::Ready(timer.poll_due(due, context).is_ready())).await;
            assert!(!early, "{millis}");
            // What was awaited came in time.
            if millis == 50 {
                continue;
            }
            poll_fn(|context| timer.poll_due(due, context)).await;
            assert_eq!(Instant::now(), due, "{millis}");
        }
        assert_eq!(begin.elapsed(), Duration::from_millis(100 + 300 + 301 + 20));
    }
}
