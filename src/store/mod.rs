//! Durable state: an fsynced, hash-chained journal is the truth, sled is an index that can be rebuilt from it.

use serde::{Deserialize, Serialize};

use crate::event::Alert;
use crate::model::{Announcement, CaseId, Reason, SessionId};

/// A fact that must survive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A session was announced, or its context updated.
    Announce {
        /// What was said.
        announcement: Announcement,
    },
    /// A session ended; its ledger is forgotten.
    End {
        /// Which.
        session: SessionId,
    },
    /// A session was quarantined.
    Quarantine {
        /// Which.
        session: SessionId,
        /// Case the agent was told.
        case: CaseId,
        /// Why.
        reason: Reason,
        /// Who did it: `staunch` or an operator.
        by: String,
        /// Free words.
        note: String,
    },
    /// A session was released.
    Release {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
        /// Why.
        note: String,
    },
    /// A temporary allowance.
    Grant {
        /// The allowance.
        grant: Grant,
    },
    /// An alert to be delivered.
    Alert {
        /// The alert.
        alert: Box<Alert>,
    },
    /// A sink took an alert.
    Delivered {
        /// The alert's id.
        alert: String,
        /// The sink's name.
        sink: String,
    },
    /// A session's ledger crossed a step; on restart it is at least this.
    Ledger {
        /// Which.
        session: SessionId,
        /// Its state.
        state: staunch_scoring::StateSnapshot,
    },
    /// A policy took effect.
    Policy {
        /// Digest of the effective configuration, hex SHA-256.
        digest: String,
    },
}

/// An allowance that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Short id.
    pub id: String,
    /// The rule form: `=x`, `x` or `*.x`.
    pub name: String,
    /// For one session, or for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When given, milliseconds since the Unix epoch.
    pub from: u64,
    /// When it ends, milliseconds since the Unix epoch.
    pub until: u64,
}
