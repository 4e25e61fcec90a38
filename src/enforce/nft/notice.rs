//! Hears at once when somebody else changes the packet filter.
//!
//! The kernel tells every commit to whoever listens, with the socket that made it. A thread of its own waits for one that is
//! not ours and wakes the owner, which looks and repairs; the owner looks every few milliseconds anyway, so a message that
//! is lost costs time and nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::netlink::{Heard, Listener};
use crate::enforce::{Error, Tell};

/// How long a change goes unheard at most while the thread is told to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two times the owner is woken: somebody who rewrites in a loop must not keep it from everything else.
const PAUSE: Duration = Duration::from_millis(2);

/// Handle to the thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Notices {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Notices {
    /// Joins the kernel's group in the calling thread's network namespace. `own` is the port of the socket whose changes are
    /// not told.
    pub(super) fn start(own: Arc<AtomicU32>, tell: Tell) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Io { doing: "listen to changes of the packet filter", source };
        let listener = Listener::open(PATIENCE).map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        let run = move || {
            let mut listener = listener;
            let mut passed_over = 0;
            while !over.load(Relaxed) {
                // A wake-up for each pin of ours costs more than a filter; where there is none, they are told apart below.
                let port = own.load(Relaxed);
                if port != std::mem::replace(&mut passed_over, port) {
                    let _ = listener.pass_over(port);
                }
                match listener.hear() {
                    // Of what was lost nothing is known: as if somebody had changed something.
                    Ok(Heard::Change(port)) if port == own.load(Relaxed) => continue,
                    Ok(Heard::Change(_) | Heard::Lost) => tell.changed(),
                    Ok(Heard::Nothing) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "changes of the packet filter are not heard at once any more");
                        return;
                    }
                }
                std::thread::sleep(PAUSE);
            }
        };
        let thread = std::thread::Builder::new().name("notices".into()).spawn(run).map_err(failed)?;
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // Only if the thread itself holds the last owner of what it tells is it dropped there.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
