//! The one internal event: what was asked, what was decided, why. Every format is a projection of it.
//!
//! Pure data; [`crate::telemetry`] queues and writes it, [`crate::alert`] turns some of it into alerts.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use staunch_scoring::{Band, Bits, LedgerView, Reading};

use crate::model::{CaseId, Mode, Phase, Qtype, Reason, SessionId, SessionType, Transport};
use crate::rpz::{Action, Trigger};

/// Version of [`Event`] and [`Alert`] as written: `schema` in every record.
pub const SCHEMA: u32 = 1;

/// What was done with a query, or would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Answered.
    Answer,
    /// Answered from what was at hand, however old; nothing left. Refused where nothing was.
    Hold,
    /// Refused with a forged negative answer or the block page's address.
    Sinkhole,
    /// Refused, and the session was closed by this query.
    Quarantine,
}

impl Verdict {
    /// As in records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Hold => "hold",
            Self::Sinkhole => "sinkhole",
            Self::Quarantine => "quarantine",
        }
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Special-use names and search-list expansions: never scored.
    Local,
    /// A configured authoritative zone.
    Zone,
    /// Our cache.
    Cache,
    /// A wildcard's answer to random siblings; the name itself did not leave.
    Decoy,
    /// An upstream.
    Upstream,
    /// Policy itself (a refusal).
    Policy,
    /// Nothing could be had: SERVFAIL.
    Failed,
}

/// Where a rule is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    /// The rule's or list's id.
    pub id: Arc<str>,
    /// File, as given.
    pub file: Arc<str>,
    /// Line, from 1; 0 where the rule is not from a file (a runtime grant).
    pub line: u32,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: u32,
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The session.
    pub session: SessionId,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: SessionType,
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Where the query came from.
    pub address: IpAddr,
    /// How.
    pub transport: Transport,
    /// The name, escaped as in a zone file.
    pub qname: String,
    /// The type.
    pub qtype: Qtype,
    /// Registrable domain (tenant level), escaped.
    pub tenant: String,
    /// Mode this session is under (canary already resolved).
    pub mode: Mode,
    /// What was done.
    pub verdict: Verdict,
    /// What would have been done in enforce mode.
    pub would: Verdict,
    /// Why, where `would` is not an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The case, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<CaseId>,
    /// The rule or list that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// What a response policy zone says of it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpz: Option<Rpz>,
    /// Where the answer came from.
    pub source: Source,
    /// What random siblings of the name were found to get, where they were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoy: Option<crate::decoy::Kind>,
    /// Response code sent, by number (RFC 6895 section 2.3).
    pub rcode: u16,
    /// The score, where one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Scored>,
    /// Addresses taken out of the answer: not public, and no rule names both the name and the range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<IpAddr>,
    /// Addresses pinned for this answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<IpAddr>,
    /// How many other names are known behind each of them, in the same order: what can be reached there besides. Not written
    /// where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<u32>,
    /// From datagram to reply, microseconds.
    pub duration_us: u32,
    /// How many questions this stands for: the same one of the same session, answered alike within a second; `time` is the
    /// last one's. Not written where it is one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

/// What a response policy zone says of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rpz {
    /// The zone.
    pub zone: Arc<str>,
    /// What matched.
    pub trigger: Trigger,
    /// What it does.
    pub action: Action,
    /// Whether that was done; if not, the zone is disabled, or the session is only watched.
    pub applied: bool,
}

/// The score as recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Sum, nats.
    pub total: f32,
    /// Families that agree.
    pub agreeing: u8,
    /// Recommendation.
    pub band: Band,
    /// Each signal; in events those that have a value.
    pub readings: Vec<Reading>,
    /// Worth of the payload part, bits.
    pub information_bits: Bits,
    /// Booked (0 where nothing left), bits.
    pub charged_bits: Bits,
    /// Accounts before.
    pub ledger_before: LedgerView,
    /// Accounts after.
    pub ledger_after: LedgerView,
}

/// What a SOC receives. Its id is stable over every delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Unique and stable; a receiver that has seen it may drop it.
    pub id: String,
    /// What happened.
    pub kind: AlertKind,
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The case, the same id as in the agent's refusal.
    pub case: CaseId,
    /// Who.
    pub session: SessionId,
    /// Its kind.
    #[serde(rename = "type")]
    pub session_type: SessionType,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it was enforced, or would have been.
    pub mode: Mode,
    /// Why; nothing where the service itself is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// One sentence for a person.
    pub summary: String,
    /// Strongest signals first.
    pub signals: Vec<Reading>,
    /// The registrable domain, escaped.
    pub tenant: String,
    /// Upper limit of what names of this session can have told the outside, bits.
    pub leaked_bits_at_most: Bits,
    /// Distinct names that left, this tenant.
    pub names_forwarded: u32,
    /// Up to ten names, escaped.
    pub samples: Vec<String>,
    /// Commands to press.
    pub actions: Vec<String>,
    /// File with the full record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Kinds of alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A session was quarantined.
    Quarantine,
    /// A session would have been quarantined, in monitor mode.
    WouldQuarantine,
    /// A session was released.
    Release,
    /// The service itself is weaker than configured (state rebuilt, enforcement lost).
    Degraded,
    /// As much as may go out to an address has gone out.
    VolumeSpent,
}

/// Something that is no decision about a query and that somebody should know of. Stands among the events, told apart by its
/// `notice` field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// [`SCHEMA`].
    pub schema: u32,
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    /// What is told.
    pub notice: NoticeKind,
    /// In one sentence.
    pub text: String,
    /// Whose session it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Who answers for the session, or for what is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The address it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Names that lead there, escaped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Octets that have gone out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
    /// Octets that may go out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
}

impl Notice {
    /// Of a kind, at a time, with nothing said but one sentence.
    pub fn new(notice: NoticeKind, time: String, text: String) -> Self {
        Self {
            schema: SCHEMA,
            time,
            notice,
            text,
            session: None,
            owner: None,
            address: None,
            names: Vec::new(),
            octets: None,
            limit: None,
            rule: None,
        }
    }
}

/// Kinds of notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// A good deal has gone out to an address that no rule names.
    VolumeMarked,
    /// As much as may go out to an address has gone out.
    VolumeSpent,
    /// A name whose ranges are written leads elsewhere.
    Drift,
    /// A written range has not been used for a long time.
    RangeUnused,
    /// A list cannot be fetched or put in force.
    ListFailing,
    /// It can again.
    ListRecovered,
    /// A fetched list has changed by so much that somebody has to let it in.
    ListHeld,
    /// Somebody has.
    ListAccepted,
}
