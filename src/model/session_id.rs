//! Names of sessions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Name of a session, given by the runtime: 1 to 64 of `A-Z a-z 0-9 . _ : -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// What the ids begin with of sources nobody announced; their address follows.
const UNANNOUNCED: &str = "unannounced:";
/// Sources that are refused, all of them.
const UNKNOWN: &str = "unknown";

impl SessionId {
    /// Longest id in octets.
    pub const MAX: usize = 64;

    /// Checks the alphabet and length.
    pub fn new(text: &str) -> Result<Self, String> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(good) {
            return Err(format!("session id `{}`: use 1 to 64 of A-Z a-z 0-9 . _ : -", text.escape_debug()));
        }
        Ok(Self(text.into()))
    }

    /// The id of a source nobody announced.
    pub fn unannounced(addr: IpAddr) -> Self {
        Self(format!("{UNANNOUNCED}{addr}").into())
    }

    /// Whether it is of the form that sources have whom nobody announced.
    pub fn is_unannounced(&self) -> bool {
        self.0.starts_with(UNANNOUNCED)
    }

    /// The source nobody announced whose id it is.
    pub fn unannounced_source(&self) -> Option<IpAddr> {
        self.0.strip_prefix(UNANNOUNCED)?.parse().ok()
    }

    /// Stands in records for a source that has no session.
    pub fn unknown() -> Self {
        Self(UNKNOWN.into())
    }

    /// Whether records mean somebody else by it, whom nobody announced; no announcement may use it.
    pub fn is_reserved(&self) -> bool {
        &*self.0 == UNKNOWN || self.is_unannounced()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}
