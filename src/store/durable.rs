//! A promise of durability that several tasks may wait for.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::{Commit, Error};

/// Whether what a session's state announces is on disk. Whoever would announce it waits here first.
#[derive(Debug)]
pub struct Durable {
    done: AtomicBool,
    commit: Mutex<Option<Commit>>,
}

impl Durable {
    /// Done when `commit` is.
    pub fn new(commit: Commit) -> Self {
        Self { done: AtomicBool::new(false), commit: Mutex::new(Some(commit)) }
    }

    /// Whether nobody needs to wait.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Waits for the journal. A second waiter of a failed commit hears nothing of the failure: the first has reported
    /// it, and what is kept is written once the disk heals.
    pub async fn wait(&self) -> Result<(), Error> {
        let mut commit = self.commit.lock().await;
        let result = match commit.as_mut() {
            Some(pending) => pending.await.map(drop),
            None => Ok(()),
        };
        *commit = None;
        self.done.store(true, Ordering::Release);
        result
    }
}
