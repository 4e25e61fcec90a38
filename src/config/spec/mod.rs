//! The file as written: `version = 1`.
//!
//! Every field but `version` has a default; unknown fields are mistakes. Texts with a grammar of their own (addresses,
//! names, days) stay texts here and are read by [`super::resolve`], which can say which element is wrong. Nothing
//! outside [`super`] uses these types.

mod answer;
mod dnssec;
mod enforce;
mod rpz;
mod rules;
mod server;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::learn::Source;
use crate::model::{Mode, Phase, SessionType};
use crate::policy::{UnknownSource, Unlisted};

pub use answer::{AllowRange, Answer, ShowLoopback};
pub use dnssec::{Dnssec, NegativeTrustAnchor};
pub use enforce::Enforce;
pub use rpz::{OnExpire, Rpz, RpzEde, RpzPassthru, RpzPolicy, Tsig, Unsupported};
pub use rules::{List, ListAction, Pack, Range, Rule};
pub use server::UpstreamServer;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct V1 {
    /// Must be 1.
    pub version: Option<u32>,
    /// Where to serve and keep state.
    pub server: Server,
    /// How far verdicts are applied.
    pub policy: Policy,
    /// Whom to ask.
    pub upstream: Upstream,
    /// Zones with upstreams of their own.
    pub forward: Vec<Forward>,
    /// What of an answer is shown.
    pub answer: Answer,
    /// Whether answers are checked against their signatures.
    pub dnssec: Dnssec,
    /// The packet filter.
    pub enforce: Enforce,
    /// How refusals look.
    pub sinkhole: Sinkhole,
    /// When a random sibling is asked in place of a suspicious name.
    pub decoy: Decoy,
    /// Capacities.
    pub limits: Limits,
    /// Sessions that are known from the start.
    pub session: Vec<Session>,
    /// Profiles by session type, or by type and phase.
    pub profile: BTreeMap<String, Profile>,
    /// Learned thresholds.
    pub learn: Learn,
    /// Rules.
    pub rule: Vec<Rule>,
    /// Ranges of addresses that need no name.
    pub range: Vec<Range>,
    /// Lists; where there is no such table at all, the shipped ones.
    pub list: Option<Vec<List>>,
    /// Packs of known look-alikes; where there is no such table at all, the shipped ones.
    pub pack: Option<Vec<Pack>>,
    /// Response policy zones, the first goes first.
    pub rpz: Vec<Rpz>,
    /// Where ages of domains come from.
    pub age: Age,
    /// Local zones.
    pub zone: Vec<Zone>,
    /// The event log.
    pub events: Events,
    /// Where alerts go.
    pub alert: Vec<Alert>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Addresses with ports, UDP and TCP alike.
    pub listen: Vec<String>,
    /// UDP workers for each address, 0 for one a core.
    pub workers: u32,
    /// Default: `staunch` in the XDG state directory.
    pub state_dir: Option<String>,
    /// Default: `admin.sock` in the state directory.
    pub admin_socket: Option<String>,
    /// Group that may use the socket.
    pub admin_group: Option<String>,
    /// Loopback address of the metrics page, or `off`.
    pub metrics: String,
    /// Addresses with ports where primaries of policy zones say that there is something new, UDP and TCP alike.
    pub notify_listen: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:5300".into()],
            workers: 0,
            state_dir: None,
            admin_socket: None,
            admin_group: None,
            metrics: "127.0.0.1:9153".into(),
            notify_listen: Vec::new(),
        }
    }
}

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Monitor until somebody decides otherwise.
    pub mode: Mode,
    /// Share of sessions that a canary enforces, 1 to 99.
    pub canary_percent: Option<u8>,
    /// Default: refuse in enforce mode, profile otherwise.
    pub unknown_source: Option<UnknownSource>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { mode: Mode::Monitor, canary_percent: None, unknown_source: None }
    }
}

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// In order of preference. Default, in monitor mode only: those of the system's resolv.conf.
    pub servers: Vec<UpstreamServer>,
    /// Addresses that look up the names among `servers`, here and in `[[forward]]`, once, at start.
    pub bootstrap: Vec<String>,
    /// For one try at one server.
    pub try_timeout_ms: u64,
    /// For the whole exchange.
    pub total_timeout_ms: u64,
    /// Largest UDP payload we advertise.
    pub udp_payload: u16,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            bootstrap: Vec::new(),
            try_timeout_ms: 1000,
            total_timeout_ms: 2400,
            udp_payload: 1232,
        }
    }
}

/// `[[forward]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// The zone: it and all below it are asked of these servers and of nobody else.
    pub zone: String,
    /// In order of preference.
    pub servers: Vec<UpstreamServer>,
    /// Who answers for it.
    pub owner: String,
    /// Why it exists.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Option<String>,
}

/// `[sinkhole]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sinkhole {
    /// What a refused name gets.
    pub kind: SinkholeKind,
    /// Of the block page, with `kind = "address"`.
    pub ipv4: Option<String>,
    /// Of the block page, with `kind = "address"`.
    pub ipv6: Option<String>,
    /// How long a stub may remember a refusal.
    pub negative_ttl_seconds: u32,
    /// Whom to ask, in the refusal's text.
    pub contact: Option<String>,
}

impl Default for Sinkhole {
    fn default() -> Self {
        Self { kind: SinkholeKind::Nxdomain, ipv4: None, ipv6: None, negative_ttl_seconds: 5, contact: None }
    }
}

/// What a refused name gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkholeKind {
    /// NXDOMAIN, or NODATA where an allowed name lies below.
    Nxdomain,
    /// The address of a listener that explains.
    Address,
}

/// `[decoy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decoy {
    /// Whether siblings are asked, where verdicts are enforced.
    pub enabled: bool,
    /// Score from which a name that is not watched is suspicious, nats.
    pub score: f64,
    /// What such a name must be worth for siblings to be asked, bits.
    pub bits: f64,
    /// What the labels between tenant and sibling may be worth, bits.
    pub parent_bits: f64,
    /// Tries for one session within an hour.
    pub per_session_hour: u16,
}

impl Default for Decoy {
    fn default() -> Self {
        let decoy = crate::decoy::Config::default();
        Self {
            enabled: decoy.enabled,
            score: f64::from(decoy.score),
            bits: decoy.bits.as_f64(),
            parent_bits: decoy.parent_bits.as_f64(),
            per_session_hour: decoy.per_session_hour,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Queries that wait for the slow path.
    pub queue: usize,
    /// Queries in the slow path.
    pub in_flight: usize,
    /// TCP connections.
    pub tcp_connections: usize,
    /// TCP connections from one source.
    pub tcp_per_source: usize,
    /// Silence after which a connection is closed.
    pub tcp_idle_seconds: u64,
    /// Sessions, announced and unannounced together.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 4096,
            in_flight: 4096,
            tcp_connections: 2000,
            tcp_per_source: 20,
            tcp_idle_seconds: 10,
            sessions: 131_072,
        }
    }
}

/// `[[session]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Kind of work; must be written.
    #[serde(rename = "type")]
    pub kind: Option<SessionType>,
    /// Phase.
    pub phase: Option<Phase>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Search list of its resolv.conf.
    pub search: Vec<String>,
}

/// `[profile.<type>]` or `[profile."<type>.<phase>"]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// What becomes of names that no rule names.
    pub unlisted: Option<Unlisted>,
    /// Types answered.
    pub qtypes: Option<Vec<String>>,
    /// Limits of the ledger.
    pub budgets: Budgets,
    /// Thresholds of the score.
    pub params: Params,
    /// What a session may tell by names that packs know, over all of them; 0 to be without packs.
    pub pack_session_bits: Option<f64>,
    /// What is opened of the addresses of an answer: `tcp/443`, or `any` alone.
    pub ports: Option<Vec<String>>,
    /// How much may go out to addresses that no rule names.
    pub volume: Volume,
}

/// `[profile.<type>.volume]`, in octets of IP packets to one address over a session's life. What is not written comes from the
/// wider profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Volume {
    /// From here an event tells of it; 0 for never.
    pub warn_bytes: Option<u64>,
    /// From here nothing more goes out; 0 for no limit.
    pub cut_bytes: Option<u64>,
}

/// `[profile.<type>.budgets]`, in bits. What is not written comes from the wider profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budgets {
    /// Under one tenant, before the score alone may refuse.
    pub tenant_soft: Option<f64>,
    /// Under one tenant.
    pub tenant: Option<f64>,
    /// Under one ICANN-level domain.
    pub icann: Option<f64>,
    /// Over all unlisted domains.
    pub session: Option<f64>,
    /// By names new to the session's group, all its sessions together, within 24 hours.
    pub group: Option<f64>,
    /// By repeats under one tenant before they are held.
    pub echo: Option<f64>,
    /// How much of that comes back in an hour.
    pub echo_hour: Option<f64>,
}

/// `[profile.<type>.params]`, in nats. What is not written comes from the wider profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// From here watched.
    pub watch: Option<f64>,
    /// From here sinkholed.
    pub sinkhole: Option<f64>,
    /// Sinkholed tenants that make a quarantine.
    pub quarantine_tenants: Option<u8>,
}

/// `[learn]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learn {
    /// Whether thresholds follow what was learned.
    pub thresholds: Source,
    /// Types that may have learned thresholds; default: all.
    pub types: Option<Vec<SessionType>>,
    /// Sessions of a type that learned thresholds take.
    pub min_sessions: u64,
    /// Pairs of session and tenant that they take.
    pub min_pairs: u64,
    /// One refused pair in this many is accepted.
    pub pairs_per_alarm: u64,
    /// One watched pair in this many is accepted.
    pub pairs_per_watch: u64,
    /// Lowest sinkhole threshold, nats.
    pub sinkhole_min: f64,
    /// Highest sinkhole threshold, nats.
    pub sinkhole_max: f64,
}

impl Default for Learn {
    fn default() -> Self {
        let built_in = crate::learn::Config::default();
        Self {
            thresholds: built_in.thresholds,
            types: None,
            min_sessions: built_in.min_sessions,
            min_pairs: built_in.min_pairs,
            pairs_per_alarm: built_in.pairs_per_alarm,
            pairs_per_watch: built_in.pairs_per_watch,
            sinkhole_min: built_in.sinkhole_min.into(),
            sinkhole_max: built_in.sinkhole_max.into(),
        }
    }
}

/// `[age]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Age {
    /// Whether registries are asked.
    pub rdap: Switch,
    /// Bootstrap file (RFC 9224), relative to the file that names it.
    pub bootstrap: Option<String>,
    /// How long a query for a domain of unknown age may wait for its first look-up.
    pub hold_ms: u64,
    /// Look-ups a minute at one server.
    pub per_minute: u32,
    /// Look-ups within an hour on behalf of one session.
    pub per_session_hour: u32,
    /// For one look-up.
    pub timeout_ms: u64,
    /// Directory of day files of newly registered domains, relative to the file that names it.
    pub nrd_dir: Option<String>,
    /// Newest day files used.
    pub nrd_days: u16,
}

impl Default for Age {
    fn default() -> Self {
        Self {
            rdap: Switch::Off,
            bootstrap: None,
            hold_ms: 0,
            per_minute: 30,
            per_session_hour: 60,
            timeout_ms: 4000,
            nrd_dir: None,
            nrd_days: 32,
        }
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// It is not.
    Off,
    /// It is.
    On,
}

/// `[[zone]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Zone {
    /// The apex.
    pub name: String,
    /// Zone file (RFC 1035 section 5), relative to the file that names it.
    pub file: String,
}

/// `[events]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Relative to the state directory, or `off`.
    pub file: String,
    /// Events that wait to be written.
    pub queue: usize,
    /// Size at which a file is set aside.
    pub rotate_bytes: u64,
    /// Files kept beside the one written.
    pub keep: u32,
}

impl Default for Events {
    fn default() -> Self {
        Self { file: "events.jsonl".into(), queue: 8192, rotate_bytes: 268_435_456, keep: 4 }
    }
}

/// `[[alert]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alert {
    /// Unique.
    pub name: String,
    /// Must be written.
    pub kind: Option<AlertKind>,
    /// Of a webhook.
    pub url: Option<String>,
    /// Key of a webhook's signature, relative to the file that names it.
    pub secret_file: Option<String>,
    /// Certificates that a webhook's must be issued by, relative to the file that names it.
    pub ca_file: Option<String>,
    /// Of a webhook; default 5000.
    pub timeout_ms: Option<u64>,
    /// Of a syslog receiver: `udp://`, `tcp://`, `unix://`.
    pub address: Option<String>,
    /// Of a file, relative to the state directory.
    pub path: Option<String>,
}

/// Kinds of receivers of alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// HTTP POST.
    Webhook,
    /// RFC 5424.
    Syslog,
    /// JSON lines.
    File,
}
