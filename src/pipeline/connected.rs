//! Which of the names a session resolved it then connected to: evidence from connection tracking for the score.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Pipeline, Walk};
use crate::enforce::{self, Connections};

/// Between two looks at the flows. Kernels keep a TCP flow for ten seconds after a reset, two minutes after a regular
/// end, and a UDP one for half a minute, so few are missed.
const EVERY: Duration = Duration::from_secs(10);

impl Pipeline {
    /// Has the flows of this host looked at, until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// Where connection tracking cannot be asked; nothing is said of connections then.
    pub fn watch_connections(self: &Arc<Self>) -> Result<Connections, enforce::Error> {
        let (known, told) = (Arc::downgrade(self), Arc::downgrade(self));
        let is_session =
            move |source| known.upgrade().is_some_and(|pipeline| pipeline.sessions.by_address(source).is_some());
        let connections = Connections::watch(EVERY, is_session, move |pairs| {
            if let Some(pipeline) = told.upgrade() {
                pipeline.connected(pairs);
            }
        })?;
        self.connections_told.store(true, Ordering::Relaxed);
        Ok(connections)
    }

    /// Notes the name of an answer that was released, so that a connection can be put down to it.
    pub(super) fn note_resolved(&self, walk: &Walk, addresses: &[IpAddr]) {
        if addresses.is_empty() || !self.connections_told.load(Ordering::Relaxed) {
            return;
        }
        let qname = walk.record.qname.as_ref();
        let name = self.hash(qname);
        walk.session.inner.lock().resolved.note(name, walk.record.split.tenant(qname), addresses);
    }

    /// Session addresses and where they have flows to.
    fn connected(&self, pairs: &HashSet<(IpAddr, IpAddr)>) {
        for (source, to) in pairs {
            let Some(session) = self.sessions.by_address(*source) else { continue };
            let mut inner = session.inner.lock();
            for tenant in inner.resolved.connected(*to) {
                inner.score.connected(tenant.as_ref());
            }
        }
    }
}
