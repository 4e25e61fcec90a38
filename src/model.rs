//! Words that several stages share: time, types of records, sessions, modes, reasons.
//!
//! Knows no stage. Everything here is plain data.

mod ede;
mod session_id;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use ede::Ede;
pub use session_id::SessionId;

/// One reading of both clocks, taken once per batch of packets and handed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the process started, never going back (CLOCK_MONOTONIC). All lifetimes use this.
    pub mono: u64,
    /// What day it is: for records, and for what ends on a written day.
    pub wall: Wall,
}

/// A reading of the wall clock beside what it would read had nobody set it since the process started. Both are milliseconds
/// since the Unix epoch, and the same where nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wall {
    /// What the clock says, for records that people read.
    pub shown: u64,
    /// What it said at the start, and the monotonic clock since: for what lasts longer than a process but has to last the
    /// same time whatever is done to the clock. Never goes back.
    pub steady: u64,
}

impl Wall {
    /// A clock that nobody has set.
    pub const fn at(ms: u64) -> Self {
        Self { shown: ms, steady: ms }
    }

    /// The later of both: what opens something ends as soon as either clock has reached its end.
    pub fn latest(self) -> u64 {
        self.shown.max(self.steady)
    }

    /// The earlier of both: what closes something, or what is to be forgotten, stays until both have reached its end.
    pub fn earliest(self) -> u64 {
        self.shown.min(self.steady)
    }

    /// How far somebody has set the clock since the start, milliseconds; positive where it was set forward.
    pub fn set_by(self) -> i64 {
        self.shown.wrapping_sub(self.steady).cast_signed()
    }
}

/// A record type (RFC 1035 section 3.2.2; the IANA registry).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qtype(pub u16);

/// Types by their mnemonics in the IANA registry.
#[allow(missing_docs, reason = "a constant's name is the registry's mnemonic, which says all")]
impl Qtype {
    pub const A: Self = Self(1);
    pub const NS: Self = Self(2);
    pub const CNAME: Self = Self(5);
    pub const SOA: Self = Self(6);
    pub const NULL: Self = Self(10);
    pub const PTR: Self = Self(12);
    pub const HINFO: Self = Self(13);
    pub const MX: Self = Self(15);
    pub const TXT: Self = Self(16);
    pub const KEY: Self = Self(25);
    pub const AAAA: Self = Self(28);
    pub const SRV: Self = Self(33);
    pub const NAPTR: Self = Self(35);
    pub const DNAME: Self = Self(39);
    pub const OPT: Self = Self(41);
    pub const DS: Self = Self(43);
    pub const SSHFP: Self = Self(44);
    pub const RRSIG: Self = Self(46);
    pub const NSEC: Self = Self(47);
    pub const DNSKEY: Self = Self(48);
    pub const TLSA: Self = Self(52);
    pub const SVCB: Self = Self(64);
    pub const HTTPS: Self = Self(65);
    pub const AXFR: Self = Self(252);
    pub const ANY: Self = Self(255);
    pub const CAA: Self = Self(257);
}

impl Qtype {
    const NAMED: [(Self, &'static str); 25] = [
        (Self::A, "A"),
        (Self::NS, "NS"),
        (Self::CNAME, "CNAME"),
        (Self::SOA, "SOA"),
        (Self::NULL, "NULL"),
        (Self::PTR, "PTR"),
        (Self::HINFO, "HINFO"),
        (Self::MX, "MX"),
        (Self::TXT, "TXT"),
        (Self::KEY, "KEY"),
        (Self::AAAA, "AAAA"),
        (Self::SRV, "SRV"),
        (Self::NAPTR, "NAPTR"),
        (Self::DNAME, "DNAME"),
        (Self::DS, "DS"),
        (Self::SSHFP, "SSHFP"),
        (Self::RRSIG, "RRSIG"),
        (Self::NSEC, "NSEC"),
        (Self::DNSKEY, "DNSKEY"),
        (Self::TLSA, "TLSA"),
        (Self::SVCB, "SVCB"),
        (Self::HTTPS, "HTTPS"),
        (Self::AXFR, "AXFR"),
        (Self::ANY, "ANY"),
        (Self::CAA, "CAA"),
    ];

    /// The type of a mnemonic or of `TYPEn` (RFC 3597 section 5), in any case.
    pub fn from_text(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        if let Some((qtype, _)) = Self::NAMED.iter().find(|(_, name)| *name == upper) {
            return Some(*qtype);
        }
        upper.strip_prefix("TYPE")?.parse().ok().map(Self)
    }
}

impl fmt::Display for Qtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(qtype, _)| qtype == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for Qtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Qtype {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Qtype {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown record type `{text}`")))
    }
}

/// How a query reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A length-prefixed message on a connection (RFC 7766).
    Tcp,
}

/// What a session's work is like; with the phase it selects the policy's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionType {
    /// A person is waiting.
    Interactive,
    /// A job that runs to its end.
    Batch,
    /// A job that comes back.
    Scheduled,
    /// Nobody announced it.
    Unannounced,
}

impl SessionType {
    /// As in configuration and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
            Self::Scheduled => "scheduled",
            Self::Unannounced => "unannounced",
        }
    }
}

/// Where in its life a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Getting inputs.
    Fetch,
    /// Building, installing.
    Build,
    /// Running what was built.
    Run,
}

impl Phase {
    /// As in configuration and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Run => "run",
        }
    }
}

/// What the runtime says of a session when it announces it. Signed contexts will carry the same fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// The session's name.
    pub id: SessionId,
    /// Source addresses its queries and connections come from.
    pub addresses: Vec<IpAddr>,
    /// Kind of work.
    #[serde(rename = "type")]
    pub kind: SessionType,
    /// Phase, if the runtime tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Search list of the sandbox's resolv.conf, in presentation form: expansions are answered locally.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<staunch_scoring::NameBuf>,
}

impl Announcement {
    /// What a runtime would say of a session that has no sandbox, for judging without a daemon: one address of each
    /// family, so that neither A nor AAAA is out of its reach.
    pub fn without_sandbox(id: SessionId, kind: SessionType) -> Self {
        let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        Self { id, addresses, kind, phase: None, owner: None, search: Vec::new() }
    }
}

/// How far verdicts are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Record what would have been done; answer.
    Monitor,
    /// Enforce for a stable share of sessions, monitor the rest.
    Canary,
    /// Apply every verdict.
    Enforce,
}

/// Why a query was not simply answered. Closed set: also the metric label and the EDE code's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A deny rule names it.
    DenyRule,
    /// A deny list names it.
    DenyList,
    /// A response policy zone says something else of it, of who asks, or of its answer.
    Rpz,
    /// The profile answers only what a rule allows.
    NotAllowed,
    /// The type is not one the profile answers.
    TypeNotAllowed,
    /// A host type was asked with octets outside letters, digits, hyphen and underscore.
    BadHostName,
    /// Signals of two families agree.
    Score,
    /// The ledger of this session under this tenant is spent.
    LedgerTenant,
    /// The ledger of this session under this ICANN-level domain is spent.
    LedgerIcann,
    /// The ledger of this session over all unlisted domains is spent.
    LedgerSession,
    /// The ledger of the session's group is spent for now.
    LedgerGroup,
    /// A name that was sent before was asked again too often, and no answer is at hand.
    Held,
    /// The session is quarantined.
    Quarantined,
    /// Nobody announced this source.
    UnknownSource,
    /// All that the answer held leads inside: addresses that are not public, or an alias to an internal name.
    NotPublic,
    /// The packet filter did not hold the answer's addresses in time; nothing was answered.
    NotPinned,
    /// The session has as many questions waiting as it may have now; nothing was asked and nothing charged.
    Share,
}

impl Reason {
    /// Every reason, for metrics that must exist from the start.
    pub const ALL: [Self; 17] = [
        Self::DenyRule,
        Self::DenyList,
        Self::Rpz,
        Self::NotAllowed,
        Self::TypeNotAllowed,
        Self::BadHostName,
        Self::Score,
        Self::LedgerTenant,
        Self::LedgerIcann,
        Self::LedgerSession,
        Self::LedgerGroup,
        Self::Held,
        Self::Quarantined,
        Self::UnknownSource,
        Self::NotPublic,
        Self::NotPinned,
        Self::Share,
    ];

    /// As in records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DenyRule => "deny-rule",
            Self::DenyList => "deny-list",
            Self::Rpz => "rpz",
            Self::NotAllowed => "not-allowed",
            Self::TypeNotAllowed => "type-not-allowed",
            Self::BadHostName => "bad-host-name",
            Self::Score => "score",
            Self::LedgerTenant => "ledger-tenant",
            Self::LedgerIcann => "ledger-icann",
            Self::LedgerSession => "ledger-session",
            Self::LedgerGroup => "ledger-group",
            Self::Held => "held",
            Self::Quarantined => "quarantined",
            Self::UnknownSource => "unknown-source",
            Self::NotPublic => "not-public",
            Self::NotPinned => "not-pinned",
            Self::Share => "share",
        }
    }
}

/// Names one refusal on every channel: EDE, TXT, event, alert, journal, `staunch why`. `c` and 12 of `0-9a-z` without
/// `i l o u`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaseId(u64);

impl CaseId {
    const ALPHABET: &'static [u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// From 60 random bits; the rest is dropped.
    pub fn from_random(bits: u64) -> Self {
        Self(bits & ((1 << 60) - 1))
    }

    /// Reads the text form.
    pub fn from_text(text: &str) -> Option<Self> {
        let body = text.strip_prefix('c')?.as_bytes();
        if body.len() != 12 {
            return None;
        }
        body.iter()
            .try_fold(0u64, |acc, b| {
                let digit = Self::ALPHABET.iter().position(|a| a == b)?;
                Some(acc << 5 | digit as u64)
            })
            .map(Self)
    }
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'c'; 13];
        for (i, slot) in text[1..].iter_mut().enumerate() {
            *slot = Self::ALPHABET[(self.0 >> (5 * (11 - i)) & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CaseId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CaseId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("not a case id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_ids_round_trip() {
        for bits in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = CaseId::from_random(bits);
            assert_eq!(CaseId::from_text(&id.to_string()), Some(id));
        }
        assert_eq!(CaseId::from_text("c00000000000o"), None, "o is not in the alphabet");
        assert_eq!(CaseId::from_text("c0"), None);
    }

    #[test]
    fn types_round_trip_by_mnemonic_and_number() {
        for n in 0..=300 {
            let qtype = Qtype(n);
            assert_eq!(Qtype::from_text(&qtype.to_string()), Some(qtype));
        }
        assert_eq!(Qtype::from_text("type65"), Some(Qtype::HTTPS));
        assert_eq!(Qtype::from_text("TYPE70000"), None);
    }

    #[test]
    fn session_ids_keep_to_their_alphabet() {
        assert!(SessionId::new("build-7.x:1_A").is_ok());
        for bad in ["", "a b", "a/b", "\u{1b}[31m", &"x".repeat(65)] {
            assert!(SessionId::new(bad).is_err(), "{bad:?}");
        }
    }
}
