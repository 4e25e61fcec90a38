//! What a caller holds until the packet filter has spoken.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Error;

/// The promise of an acknowledgement. Dropping it does not take the command back.
#[derive(Debug)]
#[must_use = "only the acknowledgement says that the packet filter holds it"]
pub struct Ticket<T = ()> {
    pub(super) reply: oneshot::Receiver<Result<T, Error>>,
}

impl<T> Ticket<T> {
    /// Waits for the result, at most `deadline`. To be called within a tokio runtime that has time enabled.
    ///
    /// # Errors
    ///
    /// The command's error, or [`Error::Deadline`], or [`Error::Stopped`] where the owner ended before it.
    pub async fn wait(self, deadline: Duration) -> Result<T, Error> {
        match tokio::time::timeout(deadline, self.reply).await {
            Ok(reply) => reply.unwrap_or(Err(Error::Stopped)),
            Err(_) => Err(Error::Deadline(deadline)),
        }
    }

    /// As [`Ticket::wait`], for a thread outside of any runtime.
    pub fn wait_blocking(self, deadline: Duration) -> Result<T, Error> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut reply = pin!(self.reply);
        let end = Instant::now() + deadline;
        loop {
            if let Poll::Ready(reply) = reply.as_mut().poll(&mut context) {
                return reply.unwrap_or(Err(Error::Stopped));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Deadline(deadline));
            }
            std::thread::park_timeout(left);
        }
    }
}
