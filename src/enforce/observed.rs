//! What the packet filter and connection tracking show of sessions: evidence, told every few seconds.
//!
//! In one direction: a flow that came and went between two looks was never seen. Volumes are exact, since the kernel counts
//! them; what is told of them is a few seconds old.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// What has gone out to one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Used {
    /// Source address of the sandbox.
    #[serde(skip)]
    pub session: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Octets of IP packets, headers included, over the session's whole life.
    pub octets: u64,
    /// Octets that may go out; no end without one.
    pub limit: Option<u64>,
}

impl Used {
    /// Whether nothing more may go out.
    pub fn is_spent(&self) -> bool {
        self.limit.is_some_and(|limit| self.octets >= limit)
    }
}

/// One look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Session addresses and the destinations that they have flows to, as the sandbox dialled them.
    pub flows: HashSet<(IpAddr, IpAddr)>,
    /// Volumes that have changed since the last look.
    pub volumes: Vec<Used>,
    /// Written ranges to which a new flow was opened since the last look, by [`super::Range::id`].
    pub ranges: Vec<u32>,
}

/// Who is told of what the backend sees.
#[derive(Clone)]
pub struct Tell {
    observed: Arc<dyn Fn(Observed) + Send + Sync>,
    changed: Arc<dyn Fn() + Send + Sync>,
}

impl Tell {
    /// `observed` is told of every look; `changed` when somebody else has changed the packet filter, so that it can be looked
    /// after at once.
    pub fn new(
        observed: impl Fn(Observed) + Send + Sync + 'static,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { observed: Arc::new(observed), changed: Arc::new(changed) }
    }

    /// Tells of one look.
    pub fn observed(&self, observed: Observed) {
        (self.observed)(observed);
    }

    /// Has a thread of its own tell of looks, one after the other: who is told takes locks that answers wait for, and who looks may
    /// stand back. It ends when what is given back is dropped.
    pub(super) fn aside(self) -> io::Result<SyncSender<Observed>> {
        let (out, looks) = sync_channel::<Observed>(1);
        let run = move || {
            while let Ok(observed) = looks.recv() {
                self.observed(observed);
            }
        };
        std::thread::Builder::new().name("observed".into()).spawn(run).map(|_| out)
    }

    /// Tells that somebody else has changed something.
    pub fn changed(&self) {
        (self.changed)();
    }
}

impl std::fmt::Debug for Tell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tell")
    }
}
