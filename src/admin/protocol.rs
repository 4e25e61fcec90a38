//! Requests and answers of the admin socket.

use serde::{Deserialize, Serialize};

use crate::doctor::{Report, report};
use crate::model::{Announcement, CaseId, Qtype, SessionId};

/// Longest request line in octets: a doctor's report, which is the longest, and what stands around it.
pub const MAX_REQUEST: usize = report::OCTETS + 16 * 1024;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// State of the service.
    Status,
    /// Make a session known, or update what is said of it.
    Announce {
        /// What is said.
        announcement: Announcement,
    },
    /// A session's run is over: its pins and its ledger are forgotten.
    End {
        /// Which.
        session: SessionId,
    },
    /// All sessions.
    List,
    /// One session in full.
    Show {
        /// Which.
        session: SessionId,
    },
    /// Close a session.
    Quarantine {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Open a session.
    Release {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Bits added to each of the session's limits.
        #[serde(default)]
        extend: u32,
    },
    /// Allow a name for a while.
    Allow {
        /// `=x`, `x` or `*.x`.
        name: String,
        /// For how long, seconds.
        seconds: u64,
        /// Why.
        reason: String,
        /// Who answers for it.
        owner: String,
        /// For one session, or for all.
        #[serde(default)]
        session: Option<SessionId>,
        /// What is opened of its addresses: `tcp/443`, or `any` alone; the profile's ports where there are none.
        #[serde(default)]
        ports: Vec<String>,
    },
    /// Allowances in force.
    Grants,
    /// Take an allowance back before its end.
    Withdraw {
        /// Its id.
        grant: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Events: the newest ones, and on request those to come.
    Observe {
        /// How many of the newest that match.
        last: usize,
        /// Whether to stay.
        follow: bool,
        /// Only this session's.
        #[serde(default)]
        session: Option<SessionId>,
        /// Only what was refused, or in monitor mode would have been.
        #[serde(default)]
        refused: bool,
    },
    /// What policy would say of a name. Sends nothing, changes nothing.
    Explain {
        /// Presentation form.
        name: String,
        /// Type.
        qtype: Qtype,
        /// As which session.
        session: SessionId,
    },
    /// What a case id stands for.
    Why {
        /// The case.
        case: CaseId,
    },
    /// What was learned in monitor mode.
    Learned,
    /// Forget what was learned.
    ForgetLearned {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// What this node answers for its token with this nonce.
    Prove {
        /// 16 to 32 of a-z and 0-9.
        nonce: String,
    },
    /// Sign what the doctor found.
    Receipt {
        /// What it found.
        report: Box<Report>,
    },
    /// Every list in force, and how fetching goes.
    Lists,
    /// Fetch a list now, or all.
    FetchList {
        /// Which; all that have a URL where none is named.
        #[serde(default)]
        list: Option<String>,
    },
    /// Let the version of a list in that a gate holds.
    AcceptList {
        /// Which.
        list: String,
        /// How the digest of the version begins that was looked at.
        sha256: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Read the configuration again; the old one stays if it does not load.
    Reload,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not understood.
    BadRequest,
    /// No such session or case.
    NotFound,
    /// It contradicts what is known.
    Conflict,
    /// The new configuration does not load.
    Invalid,
    /// It could not be done or made durable.
    Failed,
}

/// One line back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done; the answer.
    Ok(serde_json::Value),
    /// Not done.
    Error {
        /// Kind.
        code: ErrorCode,
        /// For a person.
        message: String,
    },
}

impl Response {
    /// An error.
    pub fn error(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error { code, message: message.into() }
    }
}
