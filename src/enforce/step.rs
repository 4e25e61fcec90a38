//! Whether the packet filter has carried out what it was ordered.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::{Enforcer, Error};

/// How long to leave a queue alone that is full.
const FULL: Duration = Duration::from_millis(5);

impl Enforcer {
    /// Waits until the packet filter has carried out all that was ordered so far, at most `patience`: what is asked of it waits
    /// behind its orders, and with an order for each of very many sessions it is full of them for a while.
    ///
    /// # Errors
    ///
    /// As for any order; [`Error::Deadline`] where it takes longer.
    pub async fn caught_up(&self, patience: Duration) -> Result<(), Error> {
        let end = Instant::now() + patience;
        loop {
            match self.view(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
                Err(Error::QueueFull) if Instant::now() < end => tokio::time::sleep(FULL).await,
                behind => return behind?.wait(end.saturating_duration_since(Instant::now())).await.map(drop),
            }
        }
    }

    /// Waits as [`Enforcer::caught_up`]; where that cannot be told within `patience`, what was ordered counts as owed
    /// ([`Enforcer::on_owed`]) until the packet filter is found in place and no order waits that closes anything. Whether it could.
    pub async fn caught_up_or_owed(&self, patience: Duration) -> bool {
        let outcome = self.caught_up(patience).await;
        // An orderly end carries out what waits.
        if outcome.as_ref().is_err_and(|error| !matches!(error, Error::Stopped)) {
            self.owing().note(true);
        }
        outcome.is_ok()
    }

    /// Whether what was ordered so far holds, as far as is known within `patience`.
    pub async fn is_in_step(&self, patience: Duration) -> bool {
        self.caught_up(patience).await.is_ok() && self.healthy()
    }
}
