//! What a verdict waits for: the look-up that it lacks, what vouches for that one's reply, and what can be looked up at the
//! same time because it will be needed next.

use std::sync::Arc;

use staunch_scoring::{NameBuf, NameRef};

use super::keys::{Ds, Key};
use super::set::{DNSKEY, DS};
use crate::model::Qtype;

/// Most look-ups that are named to be asked beside one. A zone four delegations down and another that an alias leads to take
/// ten.
pub(super) const MAX_AHEAD: usize = 12;

/// A look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    name: NameBuf,
    rtype: u16,
}

impl Need {
    /// Whether a zone begins at `name`, and what vouches for it.
    pub(super) fn delegation(name: NameRef<'_>) -> Self {
        Self { name: name.to_owned(), rtype: DS }
    }

    /// The keys of the zone `name`.
    pub fn keys(name: NameRef<'_>) -> Self {
        Self { name: name.to_owned(), rtype: DNSKEY }
    }

    /// The name to ask.
    pub fn name(&self) -> NameRef<'_> {
        self.name.as_ref()
    }

    /// The type to ask: DS or DNSKEY.
    pub fn qtype(&self) -> Qtype {
        Qtype(self.rtype)
    }
}

/// By what a reply is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    /// The zone above the name, and its keys.
    Parent(NameBuf, Arc<[Key]>),
    /// What vouches for the zone's keys.
    Vouched(Arc<[Ds]>),
}

/// What there is no verdict without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    need: Need,
    pub(super) by: By,
    /// The number of the anchors that lead to it.
    pub(super) anchors: u64,
    ahead: Vec<Need>,
}

impl Lack {
    /// The delegation that may stand at `name`, below a zone with `keys`.
    pub(super) fn delegation(name: NameRef<'_>, parent: NameRef<'_>, keys: Arc<[Key]>, anchors: u64) -> Self {
        Self { need: Need::delegation(name), by: By::Parent(parent.to_owned(), keys), anchors, ahead: Vec::new() }
    }

    /// The keys of the zone `name`, which `vouched` stands for.
    pub(super) fn keys(name: NameRef<'_>, vouched: Arc<[Ds]>, anchors: u64) -> Self {
        Self { need: Need::keys(name), by: By::Vouched(vouched), anchors, ahead: Vec::new() }
    }

    /// The look-up that is lacking.
    pub fn need(&self) -> &Need {
        &self.need
    }

    /// Look-ups that will be needed where this one's reply is what it should be, each once. Their replies are of use when
    /// they are what is lacking, and not before.
    pub fn ahead(&self) -> &[Need] {
        &self.ahead
    }

    /// With look-ups that can be done at the same time.
    pub(super) fn beside(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        for need in needs {
            if self.ahead.len() < MAX_AHEAD && need != self.need && !self.ahead.contains(&need) {
                self.ahead.push(need);
            }
        }
        self
    }

    /// All of it as look-ups.
    pub(super) fn into_needs(self) -> impl Iterator<Item = Need> {
        std::iter::once(self.need).chain(self.ahead)
    }
}
