//! What was recorded is put back in force at a start, and joined with what the configuration says.
//!
//! In this order, since an address is one session's: what is closed, what is configured, what was announced, what is known by
//! its ledger alone. So a restart opens nothing to a closed address that a reload would not.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;

use crate::clock;
use crate::model::{Announcement, SessionId};
use crate::pipeline::Pipeline;
use crate::session::AddError;
use crate::store::{Quarantined, Record, Recovered};

/// Makes the configured sessions known and puts what was recovered back in force; what the configuration says of a session
/// goes before what was recorded of it. Called before anything is served.
pub(super) fn restore(pipeline: &Pipeline, configured: Vec<Announcement>, recovered: Recovered) -> anyhow::Result<()> {
    let now = clock::now();
    let named: HashSet<SessionId> = configured.iter().map(|announcement| announcement.id.clone()).collect();
    let closed: HashSet<SessionId> = recovered.quarantined.iter().map(|closed| closed.session.clone()).collect();
    let is_wanted = |id: &SessionId| !named.contains(id) || closed.contains(id);
    let (announced, passed): (Vec<_>, Vec<_>) =
        recovered.sessions.into_iter().partition(|announcement| is_wanted(&announcement.id));
    say_what_is_configured(pipeline, &configured, &passed);
    let (shut, open): (Vec<_>, Vec<_>) =
        apart(announced.into_iter()).into_iter().partition(|announcement| closed.contains(&announcement.id));
    let (more, shut): (Vec<_>, Vec<_>) = shut.into_iter().partition(|announcement| named.contains(&announcement.id));
    let configured = with_what_was_closed(configured, more);
    let mut quarantined: HashMap<SessionId, Quarantined> =
        recovered.quarantined.into_iter().map(|closed| (closed.session.clone(), closed)).collect();
    for announcement in shut {
        if let Some(closed) = quarantined.remove(&announcement.id) {
            pipeline.restore_quarantine(closed, Some(announcement));
        }
    }
    let (late, unannounced): (Vec<_>, Vec<_>) =
        quarantined.into_values().partition(|closed| named.contains(&closed.session));
    for closed in unannounced {
        pipeline.restore_quarantine(closed, None);
    }
    for announcement in configured {
        place_configured(pipeline, announcement, &named)?;
    }
    for closed in late {
        pipeline.restore_quarantine(closed, None);
    }
    for announcement in open {
        restore_session(pipeline, announcement);
    }
    for (id, ledger) in recovered.ledgers {
        pipeline.restore_ledger(id, ledger);
    }
    pipeline.tell_unplaced(now);
    for (owner, ledger) in recovered.groups {
        pipeline.groups.restore(&owner, &ledger, now.wall.steady);
    }
    for grant in recovered.grants {
        if let Err(error) = pipeline.grant(grant, now) {
            tracing::warn!(%error, "a recorded grant was not restored");
        }
    }
    Ok(())
}

/// Has the journal say what sessions are by their entries, where it says otherwise: an address that such a session has no more
/// must not be taken for its own later.
fn say_what_is_configured(pipeline: &Pipeline, configured: &[Announcement], passed: &[Announcement]) {
    let passed: HashMap<&SessionId, &Announcement> = passed.iter().map(|recorded| (&recorded.id, recorded)).collect();
    let others = configured.iter().filter(|entry| passed.get(&entry.id).is_some_and(|recorded| *recorded != *entry));
    let records: Vec<_> = others.map(|entry| Record::Announce { announcement: entry.clone() }).collect();
    if !records.is_empty()
        && let Err(error) = pipeline.store.append(records)
    {
        tracing::warn!(%error, "what configured sessions are is not on disk");
    }
}

/// Configured sessions, each with the addresses that were announced for it besides and closed with it, where no entry names
/// them: they were its own when it was closed, and must not be open as somebody else's.
fn with_what_was_closed(mut configured: Vec<Announcement>, closed: Vec<Announcement>) -> Vec<Announcement> {
    if closed.is_empty() {
        return configured;
    }
    let written: HashSet<_> =
        configured.iter().flat_map(|entry| &entry.addresses).map(|address| address.to_canonical()).collect();
    let mut more: HashMap<SessionId, Announcement> =
        closed.into_iter().map(|announcement| (announcement.id.clone(), announcement)).collect();
    for entry in &mut configured {
        let more = more.remove(&entry.id).into_iter().flat_map(|closed| closed.addresses);
        entry.addresses.extend(more.filter(|address| !written.contains(&address.to_canonical())));
    }
    configured
}

/// Recorded sessions, those first that were announced last, each without the addresses that a later one claims: it could do so
/// only once they were free.
fn apart(announced: impl Iterator<Item = Announcement>) -> Vec<Announcement> {
    let mut claimed = HashSet::new();
    let apart = announced.map(|mut announcement| {
        let id = announcement.id.clone();
        announcement.addresses.retain(|address| {
            let is_first = claimed.insert(address.to_canonical());
            if !is_first {
                tracing::warn!(session = %id, %address, "an address of a recorded session was announced for another since");
            }
            is_first
        });
        announcement
    });
    apart.collect()
}

/// Makes a configured session known, but for addresses that are a closed session's: as at a reload, a quarantine ends by a
/// release or with its session, and by no other name for the same address.
fn place_configured(
    pipeline: &Pipeline,
    mut announcement: Announcement,
    named: &HashSet<SessionId>,
) -> anyhow::Result<()> {
    let id = announcement.id.clone();
    let seed = pipeline.hash(&id);
    loop {
        match pipeline.sessions.place(announcement.clone(), seed) {
            Ok(_) => return Ok(()),
            Err(AddError::AddressTaken { address, owner }) if !named.contains(&owner) => {
                let text = format!(
                    "session {id} of the configuration is without {address}, which is session {owner}'s, and that is closed; \
                     once it is released, end it and reload"
                );
                tracing::warn!("{text}");
                pipeline.degraded(&text, clock::now());
                // The next reload tries again.
                pipeline.live.load().configured.owes(&id);
                announcement.addresses.retain(|known| known.to_canonical() != address);
                if announcement.addresses.is_empty() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error).with_context(|| format!("session {id}")),
        }
    }
}

/// Makes a recorded session known again, with those of its addresses that belong to nobody else by now: what is left must not
/// be open because it was closed under a name that lost another address.
fn restore_session(pipeline: &Pipeline, mut announcement: Announcement) {
    let id = announcement.id.clone();
    let seed = pipeline.hash(&id);
    while let Err(error) = pipeline.sessions.announce(announcement.clone(), true, seed) {
        tracing::warn!(%error, session = %id, "a recorded session was not restored as it was");
        let AddError::AddressTaken { address, .. } = error else { return };
        announcement.addresses.retain(|known| known.to_canonical() != address);
    }
}
