//! Gives away what is not needed (capabilities(7), prctl(2)).
//!
//! Capabilities belong to threads: called before there is a second one.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

/// To open the raw sockets that tell silent ends of a flow that it is over; behind that it can go.
pub(super) const TO_OPEN: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
/// What remains.
pub(super) const TO_RUN: &[Capability] = &[Capability::CAP_NET_ADMIN];

/// Keeps of what the process has only these capabilities, for itself and whatever it would start, and can gain no others.
pub(super) fn keep_only(keep: &[Capability]) -> io::Result<()> {
    // SAFETY: takes numbers only and changes no memory.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for capability in caps::all() {
        // What is held now stays for now; it could not be taken out later, since that needs a capability too.
        if !TO_RUN.contains(&capability)
            && let Err(error) = caps::drop(None, CapSet::Bounding, capability)
        {
            // Needs a capability that a unit may not have given in the first place; nothing can be gained all the same.
            tracing::debug!(%error, "the bounding set stays as it was");
            break;
        }
    }
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    let have = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let wanted: CapsHashSet = keep.iter().copied().filter(|capability| have.contains(capability)).collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Effective, &wanted).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &wanted).map_err(failed)
}
