//! What is known of one address that a session may reach.

use std::sync::Arc;

use staunch_scoring::NameRef;

use super::Word;
use crate::ports::Ports;

/// How long an address without a lease is remembered behind the last sign of an open flow to it, milliseconds: several looks
/// at the flows of a busy host.
pub(super) const LIVE: u64 = 120_000;

#[derive(Debug, Default)]
pub(super) struct Pin {
    pub(super) leases: Vec<Lease>,
    /// Newest last.
    pub(super) names: Vec<Named>,
    /// The widest limit that was acknowledged; `Some(None)` for no end.
    pub(super) volume: Option<Option<u64>>,
    /// The widest that was ordered.
    pub(super) ordered: Option<Option<u64>>,
    /// Counts up with every answer.
    pub(super) answered: u64,
    /// When a flow to it was last seen, mono milliseconds.
    pub(super) live: u64,
    pub(super) used: u64,
    pub(super) warned: bool,
    pub(super) spent: bool,
}

/// A name that leads to an address.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: Arc<[u8]>,
    /// Whether what it opens was acknowledged.
    pub(super) is_held: bool,
    /// See [`super::Asked::by`].
    pub(super) by: Option<Word>,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) ports: Ports,
    /// Until when it is acknowledged, mono milliseconds; 0 where nothing is, or no longer for every address of the session.
    pub(super) end: u64,
    /// Until when it was once acknowledged for some address of the session, and may be open.
    pub(super) held: u64,
    /// Until when it was ordered.
    pub(super) ordered: u64,
}

impl Named {
    pub(super) fn shown(&self) -> Option<String> {
        NameRef::from_wire(&self.name).map(|name| name.to_string()).ok()
    }
}

impl Pin {
    pub(super) fn ends(&self) -> u64 {
        self.leases.iter().map(|lease| lease.ordered).max().unwrap_or(0)
    }

    pub(super) fn is_live(&self, now: u64) -> bool {
        self.live > 0 && now <= self.live + LIVE
    }

    /// Whether none of the names that lead here is `listed` or a zone of ours; where none is known any more, nobody can tell.
    pub(super) fn is_unlisted(&self, listed: impl Fn(NameRef<'_>) -> bool) -> bool {
        let is_listed = |named: &Named| match named.by {
            Some(Word::Zone | Word::Page) => true,
            // Whose feed has led there is nobody who names it here.
            Some(Word::PolicyZone) => false,
            None => NameRef::from_wire(&named.name).is_ok_and(&listed),
        };
        !self.names.is_empty() && !self.names.iter().any(is_listed)
    }

    /// Until when `ports` are open.
    pub(super) fn open_until(&self, ports: &Ports) -> Option<u64> {
        self.leases.iter().filter(|lease| lease.ports.covers(ports)).map(|lease| lease.end).max()
    }

    pub(super) fn is_as_wide(&self, volume: Option<u64>) -> bool {
        match (self.volume, volume) {
            (Some(None), _) => true,
            (Some(Some(held)), Some(wanted)) => held >= wanted,
            (Some(Some(_)), None) | (None, _) => false,
        }
    }

    pub(super) fn find(&self, name: NameRef<'_>) -> Option<&Named> {
        self.names.iter().find(|known| *known.name == *name.as_wire())
    }

    pub(super) fn find_mut(&mut self, name: NameRef<'_>) -> Option<&mut Named> {
        self.names.iter_mut().find(|known| *known.name == *name.as_wire())
    }

    pub(super) fn knows(&self, name: NameRef<'_>) -> bool {
        self.find(name).is_some()
    }

    /// Whether what it opens was acknowledged.
    pub(super) fn holds(&self, name: NameRef<'_>) -> bool {
        self.find(name).is_some_and(|known| known.is_held)
    }
}
