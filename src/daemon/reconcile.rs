//! The packet filter is made to hold what a policy and its sessions need: at start, and where a reload waits for it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::clock;
use crate::enforce::{Active, Error};
use crate::model::Mode;
use crate::pipeline::{Cause, Pipeline, class_of, is_guarded};

/// For all that was ordered of the packet filter: loading a hundred thousand leases takes longer than one pin may.
const RECONCILED: Duration = Duration::from_secs(10);

/// How long the packet filter's full queue is left alone.
const FULL: Duration = Duration::from_millis(5);

/// Waits until the packet filter has carried out all that was ordered so far: what is asked of it waits behind its orders,
/// and with an order for each of very many sessions it is full of them for a while.
pub(super) async fn caught_up(pipeline: &Pipeline) -> Result<(), Error> {
    let end = Instant::now() + RECONCILED;
    loop {
        match pipeline.enforcer.view(IpAddr::from([0, 0, 0, 0])) {
            Err(Error::QueueFull) if Instant::now() < end => tokio::time::sleep(FULL).await,
            behind => return behind?.wait(end.saturating_duration_since(Instant::now())).await.map(drop),
        }
    }
}

/// Makes the packet filter hold exactly what the sessions need. `same_policy`: whether leases of before were made under the
/// policy that is in force now; if not, they are closed, since by which names they were made is not known.
pub(super) async fn reconcile(pipeline: &Pipeline, same_policy: bool) -> anyhow::Result<()> {
    let live = pipeline.live.load_full();
    if !live.enforcing {
        return Ok(());
    }
    let now = clock::now();
    if let Some(ticket) = pipeline.open_ranges(&live, now) {
        ticket.wait(RECONCILED).await.context("written ranges could not be opened")?;
    }
    pipeline.note_older_grants();
    let mut active = Vec::new();
    for session in pipeline.sessions.all() {
        let context = session.context();
        let guard = is_guarded(&live, &context).then(|| class_of(&context));
        let mut inner = session.inner.lock();
        let quarantined = inner.is_closed();
        inner.told = guard.filter(|_| !quarantined).map(|class| pipeline.told(class));
        inner.unknown_leases = true;
        active.extend(context.announcement.addresses.iter().map(|a| Active { session: *a, guard, quarantined }));
    }
    let ticket = pipeline.enforcer.reconcile(active)?;
    ticket.wait(RECONCILED).await.context("the packet filter could not be reconciled")?;
    if !same_policy {
        pipeline.tighten_all(Cause::Policy, now);
        // Where very much is closed the first pins would wait for longer than they may.
        caught_up(pipeline).await.context("leases of another policy could not be closed")?;
    }
    if live.policy.mode != Mode::Monitor && !pipeline.enforcer.healthy() {
        bail!("the packet filter is not healthy, and mode {:?} needs it", live.policy.mode);
    }
    Ok(())
}
