//! The configuration in force: every path absolute, every default taken, every text read.
//!
//! Stages that own a `Config` get it from here as it is; plain structs stand in for those that do not yet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use staunch_scoring::NameBuf;

use crate::event::RuleRef;
use crate::lists::pack::PackEntry;
use crate::lists::{Lists, Report, RuleForm, WrittenRange};
use crate::model::{Announcement, Mode};
use crate::nat64::Nat64;
use crate::pipeline::Repeats;
use crate::policy::{Profiles, UnknownSource};
use crate::range::IpRange;
use crate::roots::Roots;
use crate::transfer::ZoneConfig;
use crate::validate::{Anchors, Limits};
use crate::zones::Zones;
use crate::{enforce, feed, forward, learn, listen, partition, rdap, readiness};

/// Everything that was said or assumed.
#[derive(Debug)]
pub struct Loaded {
    /// The file, as given; `None` when serving without one.
    pub file: Option<PathBuf>,
    /// What stood in it.
    pub text: Option<Arc<str>>,
    pub(super) assumptions: Vec<String>,
    pub(super) digest: String,
    /// Listeners.
    pub listen: listen::Config,
    /// Where durable state lies.
    pub state_dir: PathBuf,
    /// The operators' socket.
    pub admin: Admin,
    /// Address of the metrics page, always loopback.
    pub metrics: Option<SocketAddr>,
    /// How far verdicts are applied.
    pub policy: Policy,
    /// Whom to ask.
    pub upstream: Upstream,
    /// What of an answer is shown.
    pub answer: Answer,
    /// Whether and how answers are checked against their signatures.
    pub dnssec: Dnssec,
    /// The packet filter.
    pub enforce: enforce::Config,
    /// What is wanted of the lockdown.
    pub lockdown: readiness::Lockdown,
    /// How long pins live.
    pub pins: Pins,
    /// How refusals look.
    pub sinkhole: Sinkhole,
    /// When a random sibling is asked in place of a suspicious name.
    pub decoy: crate::decoy::Config,
    /// Most sessions at once, announced and unannounced together.
    pub max_sessions: usize,
    /// Sessions that are known from the start.
    pub sessions: Vec<Announcement>,
    /// What each kind of session may do.
    pub profiles: Profiles,
    /// How thresholds are learned.
    pub learn: learn::Config,
    /// Rules and lists.
    pub lists: Lists,
    /// Addresses that need no name.
    pub ranges: Vec<WrittenRange>,
    /// What was read from each list.
    pub list_reports: Vec<ListReport>,
    /// What was read from each pack.
    pub pack_reports: Vec<PackReport>,
    /// Response policy zones in force, in their order.
    pub rpz: Vec<ZoneConfig>,
    /// Where NOTIFY messages are taken.
    pub notify_listen: Vec<SocketAddr>,
    /// Where lists are fetched from.
    pub feeds: feed::Config,
    /// Who is asked for the age of domains.
    pub age: Age,
    /// Local zones.
    pub zones: Zones,
    /// The event log.
    pub events: Events,
    /// Where alerts go.
    pub alerts: Vec<AlertSink>,
}

impl Loaded {
    /// What was assumed because nobody said it, in plain words, to be said at start.
    pub fn assumptions(&self) -> &[String] {
        &self.assumptions
    }

    /// Hex SHA-256 over what was written (defaults included) and over the lists and zones it names: equal digests,
    /// equal policy. Keys of signatures are not part of it.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// The operators' socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its path.
    pub socket: PathBuf,
    /// Group that may use it beside the owner.
    pub group: Option<String>,
}

/// What the rules around sandboxes are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockdownBasis {
    /// nftables table of the lockdown.
    pub table: String,
    /// The service's own.
    pub service_table: String,
    /// Behind which sandboxes live.
    pub interfaces: Vec<String>,
    /// Addresses served.
    pub listen: Vec<SocketAddr>,
    /// Addresses of the sessions that are written in the file.
    pub sources: Vec<IpAddr>,
}

/// How far verdicts are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Where no rule says otherwise.
    pub mode: Mode,
    /// Share of sessions that a canary enforces, percent.
    pub canary_percent: u8,
    /// What becomes of a source that nobody announced.
    pub unknown_source: UnknownSource,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// In order of preference. Empty only without a configuration file, where the system has none either.
    pub servers: Vec<Server>,
    /// Look up the names among all servers, once.
    pub bootstrap: Vec<SocketAddr>,
    /// Zones with servers of their own, each once.
    pub zones: Vec<ForwardZone>,
    /// For one try at one server.
    pub try_timeout: Duration,
    /// For the whole exchange.
    pub total_timeout: Duration,
    /// Largest UDP payload we advertise.
    pub udp_payload: u16,
}

impl Upstream {
    /// The settings of [`forward`] once every name has addresses.
    pub fn forward_config(
        &self,
        upstreams: Vec<forward::Upstream>,
        zones: Vec<forward::ZoneServers>,
    ) -> forward::Config {
        forward::Config {
            upstreams,
            zones,
            try_timeout: self.try_timeout,
            total_timeout: self.total_timeout,
            udp_payload: self.udp_payload,
        }
    }

    /// The servers' addresses, where no name needs a look-up.
    pub fn addresses(&self) -> Option<Vec<SocketAddr>> {
        self.servers
            .iter()
            .map(|server| match server.endpoint {
                Endpoint::Address(address) => Some(address),
                Endpoint::Name { .. } => None,
            })
            .collect()
    }
}

/// A zone with servers of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardZone {
    /// The zone and all below it.
    pub zone: NameBuf,
    /// In order of preference; at least one.
    pub servers: Vec<Server>,
    /// Who answers for it.
    pub owner: String,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub endpoint: Endpoint,
    /// How it is asked.
    pub way: forward::Way,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            forward::Way::Udp { .. } => self.endpoint.fmt(f),
            forward::Way::Tcp => write!(f, "tcp://{}", self.endpoint),
            forward::Way::Tls(tls) => write!(f, "tls://{}#{}", self.endpoint, tls.name()),
        }
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// By address.
    Address(SocketAddr),
    /// By name, to be looked up at start.
    Name {
        /// The host.
        host: NameBuf,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// What of an answer is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Take `ech` out of SVCB and HTTPS records.
    pub strip_ech: bool,
    /// Take address hints out of SVCB and HTTPS records.
    pub strip_hints: bool,
    /// Answers kept.
    pub cache_entries: usize,
    /// Longest time to live shown.
    pub max_ttl: Duration,
    /// How often a question may leave, and what is answered where it may not.
    pub repeats: Repeats,
    /// Who is answered from what others have asked.
    pub sharing: partition::Rules,
    /// Prefixes by which a NAT64 leads to IPv4.
    pub nat64: Vec<Nat64>,
    /// Names that may resolve to private addresses.
    pub allow_ranges: Vec<AllowRange>,
    /// Zones whose 127/8 answers are shown and never pinned.
    pub show_loopback: Vec<LoopbackZone>,
}

/// Whether and how answers are checked against their signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct Dnssec {
    /// Whether they are.
    pub validate: bool,
    /// Whether clients that ask for it (CD) get what was not checked.
    pub allow_cd: bool,
    /// Whom to trust, and where not to look.
    pub anchors: Anchors,
    /// Whether the keys of zones with an anchor are followed as they are rolled.
    pub follow_rollover: bool,
    /// What one question may cost.
    pub limits: Limits,
}

/// Leave to show and pin addresses that are otherwise refused.
#[derive(Debug, Clone, PartialEq)]
pub struct AllowRange {
    /// For these names.
    pub form: RuleForm,
    /// These addresses.
    pub ranges: Vec<IpRange>,
    /// Who answers for it.
    pub owner: String,
    /// Where it is written; the id is `answer.allow_range`.
    pub reference: RuleRef,
}

/// Leave to show 127/8 answers below a zone.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopbackZone {
    /// The zone and all below it.
    pub zone: NameBuf,
    /// Who answers for it.
    pub owner: String,
    /// Where it is written; the id is `answer.show_loopback`.
    pub reference: RuleRef,
}

/// How long pins live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// Shortest; longer than `grace`.
    pub min: Duration,
    /// Longest.
    pub max: Duration,
    /// How much longer than the time to live shown.
    pub grace: Duration,
    /// Most addresses that one name may hold open for one session.
    pub per_name: usize,
}

/// How refusals look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sinkhole {
    /// What a refused name gets.
    pub action: SinkholeAction,
    /// How long a stub may remember a refusal.
    pub negative_ttl: Duration,
    /// Whom to ask, in the refusal's text.
    pub contact: Option<String>,
}

/// What a refused name gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkholeAction {
    /// NXDOMAIN, or NODATA where an allowed name lies below.
    Nxdomain,
    /// Addresses of a listener that explains; NODATA for a family without one. At least one is there.
    Address {
        /// For A.
        ipv4: Option<Ipv4Addr>,
        /// For AAAA.
        ipv6: Option<Ipv6Addr>,
    },
}

/// What was read from a list.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ListReport {
    /// The list.
    pub id: String,
    /// Its file or URL, as given.
    pub file: String,
    /// Whether its format was told by its first lines.
    pub detected: bool,
    /// Counts, and the first lines passed over.
    #[serde(flatten)]
    pub report: Report,
}

/// What was read from a pack.
#[derive(Debug, Clone, PartialEq)]
pub struct PackReport {
    /// The pack.
    pub id: String,
    /// Its file, as given.
    pub file: String,
    /// Its entries.
    pub entries: Vec<PackEntry>,
}

/// Where ages of domains come from, beside lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Age {
    /// Registries; `None` where they are not asked.
    pub rdap: Option<rdap::Config>,
    /// The first thing wrong with the day files, by file and line: a reload then keeps the registration
    /// days in force, of whatever list, and puts the rest in force.
    pub ring_damage: Option<String>,
}

/// The event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Events that wait to be written.
    pub queue: usize,
    /// Size at which a file is set aside, octets.
    pub rotate_bytes: u64,
    /// Files kept beside the one written.
    pub keep: u32,
}

impl Events {
    /// The file as its writer takes it.
    pub fn lines(&self) -> Option<crate::lines::Config> {
        let (rotate_bytes, keep) = (self.rotate_bytes, self.keep);
        self.file.clone().map(|file| crate::lines::Config { file, rotate_bytes, keep })
    }
}

/// A receiver of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSink {
    /// Unique.
    pub name: String,
    /// What it is.
    pub kind: AlertSinkKind,
}

/// Kinds of receivers of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertSinkKind {
    /// HTTP POST.
    Webhook {
        /// `http` or `https`.
        url: String,
        /// Key of the signature.
        secret: Option<Secret>,
        /// What its certificate must be issued by; without them what browsers trust.
        roots: Option<Roots>,
        /// For one delivery.
        timeout: Duration,
    },
    /// RFC 5424.
    Syslog {
        /// Where to.
        target: SyslogTarget,
    },
    /// JSON lines.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// A syslog receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTarget {
    /// One datagram a message (RFC 5426).
    Udp(SocketAddr),
    /// Octet counting (RFC 6587 section 3.4.1).
    Tcp(SocketAddr),
    /// A local datagram socket.
    Unix(PathBuf),
}

/// Octets that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) Vec<u8>);

impl Secret {
    /// The octets, for the signer.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether `address` is one that only this machine can reach.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
