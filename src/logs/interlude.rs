//! The moments between two looks at the disk, in which anybody may rotate a log. A test lets that happen at any one of
//! them; in the program there is nothing here.

/// Lets happen what a test has asked for.
#[cfg(not(test))]
pub const fn pass() {}

#[cfg(test)]
pub use for_tests::{at, pass};

#[cfg(test)]
mod for_tests {
    use std::cell::RefCell;

    type Happening = Box<dyn FnOnce()>;

    thread_local! {
        static NEXT: RefCell<Option<(usize, Happening)>> = const { RefCell::new(None) };
    }

    /// Lets something happen after `count` further moments of this thread, or, with the guard dropped before that, never.
    pub fn at(count: usize, happening: impl FnOnce() + 'static) -> Waiting {
        NEXT.set(Some((count, Box::new(happening))));
        Waiting(())
    }

    /// Something that is to happen.
    #[must_use]
    pub struct Waiting(());

    // === impl Waiting ===

    impl Waiting {
        /// Whether it has happened; if not, it never will.
        pub fn has_happened(self) -> bool {
            NEXT.take().is_none()
        }
    }

    pub fn pass() {
        let due = NEXT.with_borrow_mut(|next| match next {
            Some((0, _)) => next.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        });
        if let Some((_, happening)) = due {
            happening();
        }
    }
}
