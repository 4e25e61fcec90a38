//! Answers: what of an upstream's response may be shown, cached and pinned.
//!
//! Between [`crate::forward`], which hands over octets that match the question, and [`crate::cache`], [`crate::pin`] and
//! [`crate::reply`]. Pure: knows no socket, no clock, no session and no policy beyond [`AnswerRules`].
//!
//! Invariants (promise P6): every record shown stands on the question's own CNAME/DNAME chain or, for a client that wants
//! signatures, can prove what that chain says is not there; every address shown is public or named by a rule together with
//! its name, and every address pinned is also shown. AD is the upstream's word, or [`crate::validate`]'s, and is
//! withdrawn where anything of the answer was left out, edited, or made here, but for the alias that a DNAME makes, which has
//! no signature anywhere (RFC 6672 section 5.3.1). Record data is copied
//! octet by octet, with only compressed names expanded: letter case, NULL, TXT and types without a name here arrive as
//! they were sent. That is why the walk over the message is our own rather than a typed parse followed by a typed emit.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

mod again;
mod behind;
mod chain;
mod denial;
mod emit;
mod guard;
mod message;
mod rdata;
mod sibling;
mod vet;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;

use std::net::IpAddr;

use staunch_scoring::{NameBuf, NameRef};

use crate::lists::{Reach, RuleForm};
use crate::model::{Ede, Qtype};
use crate::nat64::Nat64;
use crate::policy::Permit;
use crate::range::IpRange;

pub use behind::{Alias, vet_behind};
pub(crate) use chain::Chain;
pub(crate) use denial::{HASH, Nsec, Nsec3, has_type, hash, wildcard_below};
pub use guard::{AllowRange, is_all_public, is_internal_name, is_public};
pub use message::{Form, form_of};
pub(crate) use message::{Message, Record, Spelled, read_name, skip_name};
pub(crate) use rdata::canonical;
pub use sibling::{says_the_same, vet_sibling};
pub(crate) use vet::CLASS_IN;
pub use vet::vet;

/// Most records of one response that are kept; a response with more on its chain is refused.
///
/// Far above any real answer; bounds the work and the reply of one question.
pub const MAX_RECORDS: usize = 512;
/// Most addresses of one answer that are shown and pinned; further ones are left out.
///
/// Bounds what one name can put into the packet filter.
pub const MAX_ADDRESSES: usize = 64;
/// Most CNAME or DNAME steps followed. Unbound stops at the same depth (`iter-scrub-cname`).
pub const MAX_HOPS: usize = 11;
/// TTL of a negative answer that came without a usable SOA, and of one we made, seconds.
pub const BARE_NEGATIVE_TTL: u32 = 5;
/// TTL of a failure passed on, seconds.
pub const FAILURE_TTL: u32 = 1;

/// A vetted answer, ready to be sent: everything behind the question section, in wire form.
///
/// Compression pointers in `body` point into the question at offset 12 or into the body itself, so it can be appended
/// to any header and question of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireAnswer {
    /// Response code (0..=15).
    pub rcode: u8,
    /// Authentic data (RFC 4035 section 3.2.3), as the upstream said, and only if nothing was taken out or edited, a
    /// negative answer has its SOA, and all that came as proof is shown.
    pub authentic_data: bool,
    /// What is said beside it (RFC 8914), if anything is: why it was not checked, though it is signed.
    pub ede: Option<Ede>,
    /// Records in the answer section.
    pub answers: u16,
    /// Records in the authority section: a SOA for negative answers, and where signatures were asked for its signatures
    /// and the NSEC or NSEC3 records that can prove what is not there, with theirs.
    pub authorities: u16,
    /// Answer and authority section.
    pub body: Box<[u8]>,
    /// Offsets in `body` of each record's TTL field.
    pub ttl_at: Box<[u16]>,
    /// Smallest TTL, seconds: how long this may be kept and shown.
    pub ttl: u32,
    /// Addresses a session may reach because of this answer.
    pub pins: Box<[IpAddr]>,
    /// What is behind its aliases is a question of its own: they lead into a zone that is asked of others
    /// ([`AnswerRules::apart`]), and end there, or out of one, or who answered looks for nothing, and nothing is said of where
    /// they lead.
    pub beyond: bool,
}

/// The question an answer has to fit.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'q> {
    /// Canonical name.
    pub qname: NameRef<'q>,
    /// Type.
    pub qtype: Qtype,
    /// Whether signatures were asked for (RFC 3225).
    pub dnssec_ok: bool,
}

impl Asked<'_> {
    /// Whether aliases themselves are asked for, not what they lead to.
    pub(crate) fn is_for_aliases(self) -> bool {
        matches!(self.qtype, Qtype::CNAME | Qtype::ANY)
    }
}

impl<'q> From<&'q Permit> for Asked<'q> {
    fn from(permit: &'q Permit) -> Self {
        Self { qname: permit.qname(), qtype: permit.qtype(), dnssec_ok: permit.dnssec_ok() }
    }
}

/// Settings of this stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRules {
    /// No record is shown with a longer TTL, seconds.
    pub max_ttl: u32,
    /// Take the `ech` parameter out of SVCB and HTTPS records, so that the server name stays visible.
    pub strip_ech: bool,
    /// Take `ipv4hint` and `ipv6hint` out of SVCB and HTTPS records. If kept, the hints are guarded and pinned.
    pub strip_hints: bool,
    /// The only way an address that is not public is shown and pinned.
    pub allow_ranges: Vec<AllowRange>,
    /// Zones at and below which 127/8 is shown, never pinned: block lists that answer so.
    pub show_loopback: Vec<NameBuf>,
    /// Prefixes behind which a NAT64 reaches IPv4, beside the well-known one: addresses behind them are what they lead to.
    pub nat64: Vec<Nat64>,
    /// Our own addresses: listening addresses, gateway addresses of the sandboxes' interfaces.
    pub own: Vec<IpAddr>,
    /// Zones that have upstreams of their own: of their names nobody else's word is taken.
    pub apart: Vec<NameBuf>,
}

impl Default for AnswerRules {
    /// Everything stripped, nothing allowed, at most an hour.
    fn default() -> Self {
        Self {
            max_ttl: 3600,
            strip_ech: true,
            strip_hints: true,
            allow_ranges: Vec::new(),
            show_loopback: Vec::new(),
            nat64: Vec::new(),
            own: Vec::new(),
            apart: Vec::new(),
        }
    }
}

impl AnswerRules {
    /// Nothing is taken out of an answer to `qname`, whose word is taken for all of it, and nothing is shortened.
    pub fn everything(qname: NameRef<'_>) -> Self {
        let names = RuleForm { name: qname.to_owned(), reach: Reach::Exact };
        Self {
            max_ttl: u32::MAX,
            strip_ech: false,
            strip_hints: false,
            allow_ranges: vec![AllowRange { names, ranges: IpRange::EVERYTHING.to_vec() }],
            ..Self::default()
        }
    }
}

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Records of the asked type, or an alias alone.
    Positive,
    /// The name exists, the type does not (RFC 2308 section 2.2).
    NoData,
    /// The name does not exist (RFC 2308 section 2.1).
    NxDomain,
    /// The upstream failed; shown as SERVFAIL, never cached.
    Failure,
}

/// Outcome of [`vet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vetted {
    /// What may be sent.
    pub answer: WireAnswer,
    /// What it is.
    pub kind: Kind,
    /// Whether it may be cached for `answer.ttl` (a TTL of 0 may not).
    pub cacheable: bool,
    /// Addresses that were held back because they are not public: evidence of DNS rebinding.
    pub rebinding: Vec<IpAddr>,
    /// An alias, or all services that were found, led to a name that only means something inside (`localhost`, `x.internal`);
    /// nothing is shown.
    pub internal_alias: bool,
    /// Names behind the first: aliases followed, then SVCB and HTTPS targets; for lists that judge every hop.
    pub names: Vec<NameBuf>,
    /// Records of the answer section that were left out: off the chain, malformed, too many.
    pub dropped: u16,
    /// Nothing of it was left out, edited, or made here: what may be called authentic where it is.
    pub whole: bool,
    /// Octets of the vetted records' data: what this answer can have told the session. Of the authority section only what
    /// is beyond the size of an honest proof.
    pub data_octets: u32,
}

/// Why a response cannot be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VetError {
    /// The octets are not a whole DNS message.
    #[error("response is malformed")]
    Malformed,
    /// It answers another question.
    #[error("response is for another question")]
    WrongQuestion,
    /// It is cut short (TC).
    #[error("response is truncated")]
    Truncated,
    /// More records, or more octets, than [`MAX_RECORDS`] allows.
    #[error("response is too large")]
    TooLarge,
}
