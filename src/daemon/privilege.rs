//! The one privilege that serving may need: ports below 1024.
//!
//! A supervisor that hands the sockets over makes it needless, and so does a capability that is effective anyway. In a
//! container that runs as an ordinary user neither is there: there the image gives the binary the capability as permitted,
//! and it is made effective for the moment in which sockets are bound, by the thread that binds them.

use caps::{CapSet, Capability};

/// Runs `bind` with `CAP_NET_BIND_SERVICE` effective, if this thread may have it, and without it if not.
pub fn with_low_ports<T>(bind: impl FnOnce() -> T) -> T {
    let port = Capability::CAP_NET_BIND_SERVICE;
    let holds = |set| caps::has_cap(None, set, port).unwrap_or(false);
    let raised = holds(CapSet::Permitted)
        && !holds(CapSet::Effective)
        // What cannot be raised is missed by `bind`, which tells of it.
        && caps::raise(None, CapSet::Effective, port).is_ok();
    let bound = bind();
    if raised && let Err(error) = caps::drop(None, CapSet::Effective, port) {
        tracing::warn!(%error, "the capability for low ports stays effective");
    }
    bound
}
