//! The promise that a call to `append` returns.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread;

use tokio::sync::oneshot;

use super::Error;

/// A promise that records are durable, or the reason why not. Resolves to the journal sequence of the call's last
/// record. May be dropped: the records are written all the same.
#[derive(Debug)]
#[must_use = "until this resolves, a crash may lose the records; drop it where that is acceptable"]
pub struct Commit(pub(super) oneshot::Receiver<Result<u64, Error>>);

impl Commit {
    /// Waits on this thread, whatever it is; in asynchronous code await instead.
    pub fn wait_blocking(self) -> Result<u64, Error> {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut context = Context::from_waker(&waker);
        // Unconstrained: on a thread of the runtime a task's used-up budget must not keep this from ever being ready.
        let mut commit = tokio::task::unconstrained(self);
        loop {
            match Pin::new(&mut commit).poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }
}

impl Future for Commit {
    type Output = Result<u64, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.unwrap_or(Err(Error::Closed)))
    }
}
