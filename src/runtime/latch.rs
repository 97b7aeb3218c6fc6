//! Something that becomes true once and stays true, such as "the first round is done".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A shared flag that is set at most once and never taken back.
#[derive(Clone, Debug, Default)]
pub struct Latch(Arc<AtomicBool>);

// === impl Latch ===

impl Latch {
    /// Sets the flag; setting it again does nothing.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the flag has been set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
