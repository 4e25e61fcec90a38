//! Puts what a reload says of sessions in force.

use anyhow::bail;

use crate::model::Announcement;
use crate::pipeline::{Ending, Pipeline};
use crate::session::{Configured, left_of};

/// Refuses entries for an address that somebody else has and does not give back by the same reload, before anything is in
/// force.
pub(super) fn check(pipeline: &Pipeline, old: &Configured, entries: &[Announcement]) -> anyhow::Result<()> {
    let next = Configured::new(entries);
    for entry in entries.iter().filter(|entry| !old.has(entry)) {
        for address in &entry.addresses {
            let Some(owner) = pipeline.sessions.by_address(*address).filter(|owner| *owner.id() != entry.id) else {
                continue;
            };
            let context = owner.context();
            let gives_back = match entries.iter().find(|other| other.id == *owner.id()) {
                Some(own) if !old.has(own) => left_of(&context.announcement.addresses, own)
                    .is_some_and(|left| !left.contains(&address.to_canonical())),
                Some(_) => false,
                None => old.names(owner.id()) && !next.names(owner.id()),
            };
            let is_closed = owner.inner.lock().quarantine.as_ref().is_some_and(|it| it.applied);
            if gives_back || (!context.announced && !is_closed) {
                continue;
            }
            let (id, owner) = (&entry.id, owner.id());
            let why = match context.announced {
                true => {
                    format!("`staunch session end {owner}` gives it back, or an entry that leaves {owner} another one")
                }
                false => format!("it is closed; `staunch session release {owner}` opens it"),
            };
            bail!("[[session]] `{id}`: {address} is {owner}'s: {why}; nothing was put in force");
        }
    }
    Ok(())
}

/// Ends the sessions that have left the configuration, and announces those whose entries are new or others than before.
/// Called when the rules are in force already.
pub(super) fn put_in_force(pipeline: &Pipeline, old: &Configured, new: &Configured, entries: Vec<Announcement>) {
    for id in old.gone_from(new) {
        // The new policy is in force by now, so nothing may say that the old one stayed.
        if let Some(Err(error)) = pipeline.end(&id, Ending::Configuration, crate::clock::now()) {
            tracing::warn!(%error, session = %id, "that a session has ended is not on disk");
        }
    }
    let changed: Vec<Announcement> = entries.into_iter().filter(|entry| !old.holds(entry)).collect();
    // What one gives away another may get.
    for entry in &changed {
        let known = pipeline.sessions.by_id(&entry.id).map(|known| known.context().announcement.clone());
        if let Some(known) = known
            && let Some(addresses) = left_of(&known.addresses, entry)
        {
            announce(pipeline, new, Announcement { addresses, ..known });
        }
    }
    for entry in changed {
        announce(pipeline, new, entry);
    }
}

fn announce(pipeline: &Pipeline, new: &Configured, entry: Announcement) {
    let id = entry.id.clone();
    if let Err(error) = pipeline.announce(entry) {
        new.owes(&id);
        tracing::warn!(%error, session = %id, "a configured session was not announced; the next reload tries again");
    }
}
