//! Errors on their way between processes: their kind travels, since what is done about them hangs on it.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::enforce::Error;

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind.
    #[serde(flatten)]
    pub kind: Kind,
    /// In words, for a person.
    #[serde(default)]
    pub message: String,
}

/// Kinds of [`Fault`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Kind {
    /// [`Error::Full`].
    Full {
        /// Its capacity.
        limit: usize,
    },
    /// [`Error::SessionFull`].
    SessionFull {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// [`Error::Quarantined`].
    Quarantined {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// [`Error::Family`].
    Family {
        /// Source address of the sandbox.
        session: IpAddr,
        /// The address that does not fit.
        destination: IpAddr,
    },
    /// [`Error::TooMany`].
    TooMany {
        /// How many.
        count: usize,
    },
    /// Nothing can be carried out for now.
    Unhealthy,
    /// The order makes no sense.
    Invalid,
    /// The kernel refused this one.
    Kernel {
        /// The errno.
        errno: i32,
    },
    /// Anything else.
    Failed,
}

impl Fault {
    /// An order that makes no sense.
    pub(in crate::enforce) fn invalid(message: String) -> Self {
        Self { kind: Kind::Invalid, message }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::Full { limit } => Kind::Full { limit: *limit },
            Error::SessionFull { session } => Kind::SessionFull { session: *session },
            Error::Quarantined { session } => Kind::Quarantined { session: *session },
            Error::Family { session, destination } => Kind::Family { session: *session, destination: *destination },
            Error::TooMany(count) => Kind::TooMany { count: *count },
            Error::Unhealthy(_) => Kind::Unhealthy,
            Error::Config(_) => Kind::Invalid,
            Error::Kernel { source, .. } => Kind::Kernel { errno: source.raw_os_error().unwrap_or(0) },
            Error::QueueFull | Error::Superseded | Error::Stopped | Error::Deadline(_) | Error::Io { .. } => {
                Kind::Failed
            }
        };
        let message = match error {
            Error::Unhealthy(why) | Error::Config(why) => why.clone(),
            other => other.to_string(),
        };
        Self { kind, message }
    }
}

impl From<Fault> for Error {
    fn from(Fault { kind, message }: Fault) -> Self {
        match kind {
            Kind::Full { limit } => Self::Full { limit },
            Kind::SessionFull { session } => Self::SessionFull { session },
            Kind::Quarantined { session } => Self::Quarantined { session },
            Kind::Family { session, destination } => Self::Family { session, destination },
            Kind::TooMany { count } => Self::TooMany(count),
            Kind::Unhealthy => Self::Unhealthy(message),
            Kind::Invalid => Self::Config(message),
            Kind::Kernel { errno } => Self::Kernel {
                doing: "the packet filter's other side",
                source: io::Error::from_raw_os_error(errno),
                words: if message.is_empty() { message } else { format!(": {message}") },
            },
            Kind::Failed => Self::Io { doing: "the packet filter's other side", source: io::Error::other(message) },
        }
    }
}
