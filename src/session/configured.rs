//! What the configuration says of sessions, to be compared with what the next one says.
//!
//! Pure. An entry that is as it was has no word at a reload, and none at a restart where its session was announced since: whoever
//! announces sessions while the service runs has said something newer, and what happens for whatever other reason must not take
//! it back.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::model::{Announcement, SessionId};

/// Sessions that one configuration names.
#[derive(Debug, Default)]
pub struct Configured(Mutex<HashMap<SessionId, Entry>>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    fingerprint: u64,
    in_force: bool,
}

impl Configured {
    /// Of these entries.
    pub fn new(entries: &[Announcement]) -> Self {
        let known = |entry: &Announcement| Entry { fingerprint: fingerprint(entry), in_force: true };
        Self(Mutex::new(entries.iter().map(|entry| (entry.id.clone(), known(entry))).collect()))
    }

    /// Whether there is an entry for a session.
    pub fn names(&self, id: &SessionId) -> bool {
        self.0.lock().contains_key(id)
    }

    /// Whether there is exactly this entry.
    pub fn has(&self, entry: &Announcement) -> bool {
        self.0.lock().get(&entry.id).is_some_and(|known| known.fingerprint == fingerprint(entry))
    }

    /// Whether there is exactly this entry, and all of it was put in force.
    pub fn holds(&self, entry: &Announcement) -> bool {
        self.has(entry) && self.0.lock().get(&entry.id).is_some_and(|known| known.in_force)
    }

    /// Sessions that `next` does not name any more.
    pub fn gone_from(&self, next: &Self) -> Vec<SessionId> {
        self.0.lock().keys().filter(|id| !next.names(id)).cloned().collect()
    }

    /// Notes that an entry is not in force, or not all of it, so that the next reload tries again.
    pub fn owes(&self, id: &SessionId) {
        self.note(id, false);
    }

    /// Notes that an entry is in force.
    pub fn gives(&self, id: &SessionId) {
        self.note(id, true);
    }

    fn note(&self, id: &SessionId, in_force: bool) {
        if let Some(known) = self.0.lock().get_mut(id) {
            known.in_force = in_force;
        }
    }

    /// What tells a session's entry from others, also in another process; `None` where there is none that is in force.
    pub fn fingerprint_of(&self, id: &SessionId) -> Option<u64> {
        self.0.lock().get(id).filter(|known| known.in_force).map(|known| known.fingerprint)
    }
}

/// The entry as a number: of its JSON, which is the same in every build. Without a key, since nobody else writes entries.
fn fingerprint(entry: &Announcement) -> u64 {
    // Names, numbers and addresses: all of it has a JSON.
    serde_json::to_vec(entry).map_or(0, |json| SipHasher13::new().hash(&json))
}

/// Of the addresses that a session has, those that its entry leaves it; `None` where none is left or nothing goes.
pub fn left_of(has: &[IpAddr], entry: &Announcement) -> Option<Vec<IpAddr>> {
    let stays = |address: &IpAddr| entry.addresses.iter().any(|wanted| wanted.to_canonical() == *address);
    let left: Vec<IpAddr> = has.iter().copied().filter(stays).collect();
    (!left.is_empty() && left.len() < has.len()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Phase, SessionType};

    fn entry(id: &str, addresses: &[&str]) -> Announcement {
        Announcement {
            id: SessionId::new(id).expect("id"),
            addresses: addresses.iter().map(|address| address.parse().expect("address")).collect(),
            kind: SessionType::Batch,
            phase: None,
            owner: None,
            search: Vec::new(),
        }
    }

    #[test]
    fn an_entry_has_a_word_where_it_is_new_or_another() {
        let (a, b) = (entry("a", &["10.0.0.1"]), entry("b", &["10.0.0.2"]));
        let old = Configured::new(&[a.clone(), b.clone()]);
        let other = Announcement { phase: Some(Phase::Run), ..a.clone() };
        assert!(old.holds(&a) && !old.holds(&other) && !old.holds(&entry("c", &["10.0.0.3"])));
        assert!(old.names(&b.id) && old.gone_from(&Configured::new(&[other])) == [b.id.clone()]);
        let marks = |known: &Configured| known.fingerprint_of(&b.id);
        assert!(marks(&old).is_some() && marks(&old) == marks(&Configured::new(std::slice::from_ref(&b))));
        old.owes(&b.id);
        assert!(old.has(&b) && !old.holds(&b) && marks(&old).is_none(), "it is tried again");
        old.gives(&b.id);
        assert!(old.holds(&b) && marks(&old).is_some());
    }

    #[test]
    fn a_session_keeps_what_its_entry_leaves_it() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let has = [ip("10.0.0.1"), ip("10.0.0.2")];
        assert_eq!(left_of(&has, &entry("a", &["::ffff:10.0.0.2", "10.0.0.3"])), Some(vec![ip("10.0.0.2")]));
        assert_eq!(left_of(&has, &entry("a", &["10.0.0.1", "10.0.0.2"])), None, "nothing goes");
        assert_eq!(left_of(&has, &entry("a", &["10.0.0.9"])), None, "a session has one at least");
    }
}
