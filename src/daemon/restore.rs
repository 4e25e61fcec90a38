//! What was recorded is put back in force at a start, and joined with what the configuration says.
//!
//! In this order, since an address is one session's: what is closed, what is configured, what was announced, what is known by
//! its ledger alone. So a restart opens nothing to a closed address that a reload would not, unless an entry names it of which
//! nobody has spoken since.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use anyhow::Context as _;

use crate::clock;
use crate::model::{Announcement, SessionId};
use crate::pipeline::Pipeline;
use crate::session::AddError;
use crate::store::{Quarantined, Recovered, Said};

/// Makes the configured sessions known and puts what was recovered back in force. Of a configured session its entry holds,
/// unless something was announced since that entry is in force. Called before anything is served.
pub(super) fn restore(pipeline: &Pipeline, configured: Vec<Announcement>, recovered: Recovered) -> anyhow::Result<()> {
    let now = clock::now();
    let closed: HashSet<SessionId> = recovered.quarantined.iter().map(|closed| closed.session.clone()).collect();
    let named: HashSet<SessionId> = configured.iter().map(|entry| entry.id.clone()).collect();
    let (besides, announced): (Vec<_>, Vec<_>) =
        recovered.sessions.into_iter().partition(|said| named.contains(&said.announcement.id));
    // Their entries are gone, so they have ended, as at a reload. What is closed stays so until somebody has looked.
    let (gone, announced): (Vec<_>, Vec<_>) =
        announced.into_iter().partition(|said| said.entry.is_some() && !closed.contains(&said.announcement.id));
    let mut gone: HashSet<SessionId> = gone.into_iter().map(|said| said.announcement.id).collect();
    let configured = what_holds(pipeline, configured, besides, &closed);
    let (shut, open): (Vec<_>, Vec<_>) = apart(announced.into_iter().map(|said| said.announcement))
        .into_iter()
        .partition(|announcement| closed.contains(&announcement.id));
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
    for (id, ledger) in recovered.ledgers.into_iter().filter(|(id, _)| !gone.contains(id)) {
        pipeline.restore_ledger(id, ledger);
    }
    pipeline.tell_unplaced(now);
    for (owner, ledger) in recovered.groups {
        pipeline.groups.restore(&owner, &ledger, now.wall.steady);
    }
    for grant in recovered.grants {
        // Given to a session that was in the table, and of which no record but this is left: its entry is gone.
        let of = grant.session.as_ref().filter(|id| id.unannounced_source().is_none() && !closed.contains(id));
        gone.extend(of.filter(|id| pipeline.sessions.by_id(id).is_none()).cloned());
        if let Err(error) = pipeline.grant(grant, now) {
            tracing::warn!(%error, "a recorded grant was not restored");
        }
    }
    pipeline.end_recorded(&gone, now);
    Ok(())
}

/// What configured sessions are, of their entries and of what was announced `besides`, those first that were announced last.
/// The journal is told where it says otherwise: an address that such a session has no more must not be taken for its own later.
fn what_holds(
    pipeline: &Pipeline,
    mut configured: Vec<Announcement>,
    besides: Vec<Said>,
    closed: &HashSet<SessionId>,
) -> Vec<Announcement> {
    let recorded: HashMap<SessionId, Announcement> =
        besides.iter().map(|said| (said.announcement.id.clone(), said.announcement.clone())).collect();
    // While the entry is as it was, what was said since is newer.
    let (newer, older): (Vec<_>, Vec<_>) = besides.into_iter().partition(|said| {
        said.entry.is_some() && said.entry == pipeline.live.load().configured.fingerprint_of(&said.announcement.id)
    });
    let announcement = |said: Said| said.announcement;
    let newer = apart(newer.into_iter().map(announcement));
    let mut newer: HashMap<SessionId, Announcement> = newer.into_iter().map(|said| (said.id.clone(), said)).collect();
    // What an entry says that nobody has spoken of since goes before what was announced of another session.
    let written: HashSet<IpAddr> =
        configured.iter().filter(|entry| !newer.contains_key(&entry.id)).flat_map(canonical).collect();
    newer.values_mut().for_each(|said| said.addresses.retain(|address| !written.contains(&address.to_canonical())));
    newer.retain(|_, said| !said.addresses.is_empty());
    for entry in &mut configured {
        if let Some(said) = newer.remove(&entry.id) {
            *entry = said;
        }
    }
    let mut taken: HashSet<IpAddr> = configured.iter().flat_map(canonical).collect();
    let mut older: HashMap<SessionId, Announcement> =
        older.into_iter().map(announcement).map(|said| (said.id.clone(), said)).collect();
    let mut records = Vec::new();
    for entry in &mut configured {
        if closed.contains(&entry.id) {
            // They were its own when it was closed, and must not be open as somebody else's.
            let more = older.remove(&entry.id).into_iter().flat_map(|said| said.addresses);
            entry.addresses.extend(more.filter(|address| taken.insert(address.to_canonical())));
        } else if recorded.get(&entry.id).is_some_and(|recorded| recorded != entry) {
            records.push(pipeline.said(entry.clone()));
        }
    }
    if !records.is_empty()
        && let Err(error) = pipeline.store.append(records)
    {
        tracing::warn!(%error, "what configured sessions are is not on disk");
    }
    configured
}

fn canonical(announcement: &Announcement) -> impl Iterator<Item = IpAddr> {
    announcement.addresses.iter().map(IpAddr::to_canonical)
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
            Err(AddError::AddressTaken { address, owner }) => {
                let why = if named.contains(&owner) {
                    "by what was announced last; announce either of them anew"
                } else {
                    "and that is closed; once it is released, end it and reload"
                };
                let text = format!(
                    "session {id} of the configuration is without {address}, which is session {owner}'s, {why}"
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
