//! The permit: proof that policy has judged a question.

use staunch_scoring::{NameRef, QName};

use crate::model::Qtype;
use crate::partition::Sharing;

/// Leave to ask an upstream exactly one question and to pin what it answers.
///
/// Only [`crate::policy`] can construct one, so an unjudged question cannot be forwarded even by mistake; it carries
/// the judged fields, and nothing else of the client's packet exists behind it (promise P2).
#[derive(Debug, Clone, Copy)]
pub struct Permit {
    qname: QName,
    qtype: Qtype,
    dnssec_ok: bool,
    checking_disabled: bool,
    sharing: Sharing,
}

impl Permit {
    /// For the parent module alone.
    #[allow(dead_code)]
    pub(super) fn new(qname: NameRef<'_>, qtype: Qtype, dnssec_ok: bool, checking_disabled: bool) -> Self {
        Self { qname: QName::copy_of(qname), qtype, dnssec_ok, checking_disabled, sharing: Sharing::default() }
    }

    /// For a random sibling of a judged name ([`crate::decoy::sibling`]): no flag of the client's query leaves with it.
    pub(super) fn decoy(sibling: NameRef<'_>, qtype: Qtype) -> Self {
        Self::new(sibling, qtype, false, false)
    }

    /// For tests of the stages behind policy.
    #[cfg(test)]
    pub(crate) fn for_test(qname: &str, qtype: Qtype) -> Self {
        Self::new(QName::from_text(qname).expect("test name").as_ref(), qtype, false, false)
    }

    /// The same leave, its answer shared so. None of it leaves.
    #[must_use]
    pub fn shared(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// With whom the answer is shared.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The canonical name to ask.
    pub fn qname(&self) -> NameRef<'_> {
        self.qname.as_ref()
    }

    /// The type to ask.
    pub fn qtype(&self) -> Qtype {
        self.qtype
    }

    /// Whether to ask for DNSSEC records (RFC 3225).
    pub fn dnssec_ok(&self) -> bool {
        self.dnssec_ok
    }

    /// Whether the client does its own checking (RFC 4035 section 3.2.2).
    pub fn checking_disabled(&self) -> bool {
        self.checking_disabled
    }
}
