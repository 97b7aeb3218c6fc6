//! What seldom happens, beside what often does: it is looked at when it has something to say, and not each time its task is
//! woken. A timer and two tokens that are asked with each read of a connection cost as much as a read of the clock each.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled at first, and then only when it has been woken itself.
#[derive(Debug)]
pub(super) struct Seldom<F> {
    future: F,
    bell: Arc<Bell>,
    /// The same, as the future knows it.
    waker: Waker,
    /// Who is woken; so that it is set anew only where the task has become another.
    task: Waker,
}

#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    task: Mutex<Waker>,
}

// === impl Seldom ===

impl<F: Future + Unpin> Seldom<F> {
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) });
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell, task: Waker::noop().clone() }
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.task.will_wake(context.waker()) {
            this.task.clone_from(context.waker());
            this.bell.task().clone_from(context.waker());
        }
        if !this.bell.has_rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // First this, then the poll: whatever rings from now on is looked at by the next one.
        this.bell.has_rung.store(false, Ordering::Release);
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

// === impl Bell ===

impl Bell {
    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task().wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::task::ready;

    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn it_is_looked_at_once_and_then_when_it_has_something_to_say() {
        let (says, mut hears) = oneshot::channel();
        let looks = AtomicUsize::new(0);
        let mut seldom = Seldom::new(poll_fn(|context| {
            looks.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut hears).poll(context)
        }));
        for _ in 0..10 {
            let is_ready = poll_fn(|context| Poll::Ready(Pin::new(&mut seldom).poll(context).is_ready())).await;
            assert!(!is_ready);
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        says.send(5).unwrap();
        assert_eq!((seldom.await, looks.into_inner()), (Ok(5), 2));
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_asked_last() {
        let (says, hears) = oneshot::channel::<()>();
        let mut seldom = Seldom::new(hears);
        assert!(Pin::new(&mut seldom).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut tasks = JoinSet::new();
        let mut polled = 0;
        tasks.spawn(async move {
            poll_fn(|context| {
                polled += 1;
                let heard = ready!(Pin::new(&mut seldom).poll(context));
                Poll::Ready((heard, polled))
            })
            .await
        });
        tokio::task::yield_now().await;
        says.send(()).unwrap();
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), (Ok(()), 2));
    }
}
