//! What a supervisor hands to us and hears of us (sd_notify(3), sd_listen_fds(3)); nothing of it without one.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::listen::{Inherited, InheritedError};

/// What the environment of this process held at its start.
#[derive(Debug, Default)]
pub struct Supervised {
    /// Sockets that are open already.
    pub inherited: Inherited,
    /// How often the supervisor wants to hear that we are well.
    pub watchdog: Option<Duration>,
}

impl Supervised {
    /// Reads the environment and takes what it read out of it.
    ///
    /// # Safety
    /// Changes the environment: no other thread may run yet, and nobody else may use the announced descriptors.
    ///
    /// # Errors
    /// If sockets are announced that cannot be taken.
    pub unsafe fn take() -> Result<Self, InheritedError> {
        // SAFETY: both are handed on to the caller.
        unsafe {
            let watchdog = sd_notify::watchdog_enabled_and_unset_env().filter(|period| !period.is_zero());
            Ok(Self { inherited: Inherited::from_environment()?, watchdog })
        }
    }
}

/// A reload begins. With the time, as a unit of type `notify-reload` needs it.
pub fn reloading() {
    let Ok(now) = NotifyState::monotonic_usec_now() else { return };
    let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
}

/// A reload has ended, one way or the other: the service serves as before. `missing` is why it is not ready, where it is not.
pub fn reloaded(result: &Result<String, String>, missing: Option<&str>) {
    let mut status = match result {
        Ok(digest) => format!("configuration {digest} in force"),
        // One line: a line break would begin another assignment.
        Err(error) => format!("the old configuration stays: {}", error.lines().next().unwrap_or_default()),
    };
    if let Some(missing) = missing {
        status += &format!("; not ready: {missing}");
    }
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}
