//! Threads that stand back behind those that answer.

/// How far: a tenth of their weight, so that the work ends under load too.
const NICE: libc::c_int = 10;

/// Has the calling thread run behind all others of ours, for good: what it does may take milliseconds, which nobody's answer is
/// to wait for. It must hold no lock for longer than a look at what is behind it.
pub fn stand_back() {
    // SAFETY: no pointers; 0 means the calling thread (setpriority(2) on Linux).
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        tracing::debug!("a thread does not stand back: {}", std::io::Error::last_os_error());
    }
}
