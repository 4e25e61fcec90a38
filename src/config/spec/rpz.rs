//! `[[rpz]]` as written.

use serde::{Deserialize, Serialize};

use super::UpstreamServer;

/// `[[rpz]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rpz {
    /// The zone's name.
    pub name: String,
    /// Zone file, relative to the file that names it; instead of primaries.
    pub file: Option<String>,
    /// Servers that the zone is transferred from, by address, with or without port, over TLS after `tls://`, in order of
    /// preference.
    pub primaries: Vec<UpstreamServer>,
    /// Key of all messages with the primaries.
    pub tsig: Option<Tsig>,
    /// Whether it is in force.
    pub enabled: bool,
    /// What its rules do.
    pub policy: RpzPolicy,
    /// Where names are led with `policy = "cname"`; `*.x` puts the name asked for in the place of the asterisk.
    pub cname: Option<String>,
    /// Whether matches are written into events.
    pub log: bool,
    /// What becomes of names that it lets pass.
    pub passthru: RpzPassthru,
    /// Who answers for trusting it.
    pub owner: String,
    /// Why it is trusted.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Option<String>,
    /// Longest TTL of its own records.
    pub max_ttl_seconds: u32,
    /// Info code of its refusals.
    pub ede: RpzEde,
    /// Answer enforced sessions nothing until its first copy is there.
    pub required: bool,
    /// What becomes of it when its primaries have been silent for the time that its SOA says.
    pub on_expire: OnExpire,
    /// What becomes of triggers in it that can never match here.
    pub unsupported: Unsupported,
    /// Most octets of one transfer.
    pub max_transfer_octets: u64,
}

impl Default for Rpz {
    fn default() -> Self {
        Self {
            name: String::new(),
            file: None,
            primaries: Vec::new(),
            tsig: None,
            enabled: true,
            policy: RpzPolicy::Given,
            cname: None,
            log: true,
            passthru: RpzPassthru::Score,
            owner: String::new(),
            reason: String::new(),
            review_by: None,
            max_ttl_seconds: 60,
            ede: RpzEde::Blocked,
            required: false,
            on_expire: OnExpire::Keep,
            unsupported: Unsupported::Refuse,
            max_transfer_octets: 256 << 20,
        }
    }
}

/// Key of a transaction signature (RFC 8945).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tsig {
    /// The key's name, as the primary knows it.
    pub name: String,
    /// `hmac-sha256` or `hmac-sha512`.
    pub algorithm: String,
    /// File with the secret in Base64, relative to the file that names it.
    pub secret_file: String,
}

/// What a zone's rules do, whatever their records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RpzPolicy {
    /// What each record says.
    Given,
    /// Nothing; matches are recorded.
    Disabled,
    /// The name does not exist.
    Nxdomain,
    /// The name has no such record.
    Nodata,
    /// No later zone is asked.
    Passthru,
    /// No reply.
    Drop,
    /// An empty reply over UDP.
    TcpOnly,
    /// The name is led elsewhere.
    Cname,
}

/// What becomes of names that a zone lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RpzPassthru {
    /// They are judged like any other.
    Score,
    /// They skip the score, and never the ledger.
    Trust,
}

/// Info code of a zone's refusals (RFC 8914).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RpzEde {
    /// 15: the operator's security policy.
    Blocked,
    /// 17: a policy that the client's owner has asked for.
    Filtered,
}

/// What becomes of an expired zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExpire {
    /// It stays in force, and an alert says so.
    Keep,
    /// It is out of force until it is transferred again, and an alert says so.
    Disable,
}

/// What becomes of triggers that can never match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsupported {
    /// The zone does not load.
    Refuse,
    /// They are left out and counted.
    Ignore,
}
