//! Puts what a reload says of sessions in force.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::bail;

use crate::model::{Announcement, SessionId};
use crate::pipeline::{Ending, Pipeline};
use crate::session::{AddError, Configured, left_of};

/// Refuses entries for an address that somebody else has and does not give back by the same reload, before anything is in
/// force.
pub(super) fn check(pipeline: &Pipeline, old: &Configured, entries: &[Announcement]) -> anyhow::Result<()> {
    let next = Configured::new(entries);
    let mut waiting: Vec<&Announcement> = entries.iter().filter(|entry| !old.has(entry)).collect();
    // As in `put_in_force`: what has changed hands so far, and whose it is by then.
    let mut given: HashMap<IpAddr, Option<SessionId>> = HashMap::new();
    let known =
        |id: &SessionId| pipeline.sessions.by_id(id).map(|known| known.context().announcement.addresses.clone());
    for addresses in old.gone_from(&next).iter().filter_map(known) {
        given.extend(addresses.into_iter().map(|address| (address, None)));
    }
    for entry in &waiting {
        let has = known(&entry.id).unwrap_or_default();
        let left = left_of(&has, entry).unwrap_or_else(|| has.clone());
        given.extend(has.into_iter().filter(|address| !left.contains(address)).map(|address| (address, None)));
    }
    loop {
        let before = waiting.len();
        waiting.retain(|entry| {
            if taken(pipeline, &given, entry).is_some() {
                return true;
            }
            given.extend(known(&entry.id).into_iter().flatten().map(|address| (address, None)));
            given.extend(entry.addresses.iter().map(|address| (address.to_canonical(), Some(entry.id.clone()))));
            false
        });
        if waiting.len() == before {
            break;
        }
        // Entries that pass addresses on to each other stand in one order or the other.
        waiting.reverse();
    }
    let Some((entry, (address, owner, why))) =
        waiting.first().and_then(|first| Some((first, taken(pipeline, &given, first)?)))
    else {
        return Ok(());
    };
    bail!("[[session]] `{}`: {address} is {owner}'s: {why}; nothing was put in force", entry.id);
}

/// Which address of an entry is another's, whose, and what to do about it.
fn taken(
    pipeline: &Pipeline,
    given: &HashMap<IpAddr, Option<SessionId>>,
    entry: &Announcement,
) -> Option<(IpAddr, SessionId, String)> {
    entry.addresses.iter().find_map(|address| {
        let address = address.to_canonical();
        if let Some(owner) = given.get(&address) {
            let owner = owner.clone().filter(|owner| *owner != entry.id)?;
            return Some((address, owner, "two entries want it".into()));
        }
        let owner = pipeline.sessions.by_address(address).filter(|owner| *owner.id() != entry.id)?;
        let is_closed = owner.inner.lock().quarantine.as_ref().is_some_and(|it| it.applied);
        let id = owner.id().clone();
        let why = match owner.context().announced {
            true => {
                format!("`staunch session end {id}` gives it back, or an entry of {id} without it, in a reload before")
            }
            false if is_closed => format!("it is closed; `staunch session release {id}` opens it"),
            // A source that nobody has announced becomes the session.
            false => return None,
        };
        Some((address, id, why))
    })
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
    let mut waiting: Vec<Announcement> = entries.into_iter().filter(|entry| !old.holds(entry)).collect();
    waiting.iter().for_each(|entry| new.owes(&entry.id));
    // What one gives away another may get.
    for entry in &waiting {
        let known = pipeline.sessions.by_id(&entry.id).map(|known| known.context().announcement.clone());
        if let Some(known) = known
            && let Some(addresses) = left_of(&known.addresses, entry)
        {
            drop(pipeline.announce_noted(Announcement { addresses, ..known }));
        }
    }
    loop {
        let before = waiting.len();
        let mut refused = Vec::new();
        waiting.retain(|entry| {
            new.gives(&entry.id);
            match pipeline.announce_noted(entry.clone()) {
                Err(error @ AddError::AddressTaken { .. }) => {
                    new.owes(&entry.id);
                    refused.push(error);
                    true
                }
                Err(error) => {
                    new.owes(&entry.id);
                    tell_owed(&entry.id, &error);
                    false
                }
                Ok(_) => false,
            }
        });
        if waiting.len() == before {
            waiting.iter().zip(&refused).for_each(|(entry, error)| tell_owed(&entry.id, error));
            return;
        }
        waiting.reverse();
    }
}

fn tell_owed(id: &SessionId, error: &AddError) {
    tracing::warn!(%error, session = %id, "a configured session was not announced; the next reload tries again");
}
