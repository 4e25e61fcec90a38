//! From the configuration to stages.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use staunch_scoring::{Params, Scorer};

use super::configured;
use super::fixed::fixed;
use super::reconcile::{RECONCILED, is_same, reconcile};
use super::restore::restore;
use super::sinks::{SinkHosts, alert_config};
use super::steady::Steady;
use super::{Start, StartError, absolute, rollover};
use crate::alert::Delivery;
use crate::answer::{AllowRange, AnswerRules};
use crate::cache::{self, Cache};
use crate::config::{self, Endpoint, Loaded, Server, SinkholeAction};
use crate::enforce::{BackendKind, Enforcer};
use crate::feed;
use crate::forward::helper::HostLookup;
use crate::forward::{self, Forwarder, Upstream, ZoneServers};
use crate::identity::NodeKey;
use crate::learn::{self, Base, Book, Enforced, NotLearned, Settled};
use crate::lists::{Grants, HashKey, Scope};
use crate::model::{Announcement, Mode, Now, Qtype, SessionId, SessionType};
use crate::outbound::HostResolver;
use crate::pin::PinPolicy;
use crate::pipeline::{Cause, Explanation, Learning, Live, Pipeline, Sinkhole};
use crate::policy::{Policy, UnknownSource, Unlisted};
use crate::rdap::Rdap;
use crate::session::{Configured, Context, Sessions};
use crate::store::{self, Store};
use crate::telemetry::{self, Telemetry};
use crate::transfer::{self, Keeper};
use crate::validate::Validator;

/// A joined pipeline and what its end has to wait for.
pub struct Built {
    /// The walk.
    pub pipeline: Arc<Pipeline>,
    /// The event writer.
    pub events: JoinHandle<()>,
    /// Who we are.
    pub node: NodeKey,
    /// Lists to fetch.
    pub feeds: feed::Config,
    /// Looks up hosts of our own interest.
    pub resolver: Arc<dyn HostResolver>,
    /// How the packet filter is, as it was told.
    pub filter: Arc<Filter>,
}

/// Tells of the packet filter's health.
#[derive(Debug, Default)]
pub struct Filter(Steady);

impl Filter {
    /// To be called at every change, and now and then while it is well.
    pub fn look(&self, pipeline: &Pipeline, is_healthy: bool, now: Now) {
        let what = match self.0.look(is_healthy, now.mono) {
            Some(true) => "the packet filter holds again what was ordered, and has for a minute",
            Some(false) => "the packet filter does not hold what was ordered; enforced sessions get no addresses",
            None => return,
        };
        pipeline.degraded(what, now);
    }
}

/// The configuration that `start` asks for.
pub fn load(start: &Start) -> Result<Loaded, StartError> {
    load_text(start, None)
}

/// The same with the file's text at hand, which need not stand in the file any more.
pub fn load_text(start: &Start, text: Option<&str>) -> Result<Loaded, StartError> {
    let mut environment = config::Environment { keep_tables: true, ..config::Environment::system() };
    if let Some(dir) = &start.state_dir {
        environment.state_dir = Some(std::path::absolute(dir).context("--state-dir")?);
    }
    let Some(file) = &start.config else { return Ok(config::defaults_in(&environment)) };
    let loaded = match text {
        Some(text) => config::load_text(file, text, &environment),
        None => config::load_in(file, &environment),
    };
    let (loaded, warnings) = loaded.map_err(StartError::Config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// Builds every stage, restores what was recorded, reconciles the packet filter. Serves nothing yet. `room`: questions that
/// may be in the slow path at once.
pub async fn pipeline(loaded: Loaded, room: usize) -> anyhow::Result<Built> {
    // Where operators' socket is in it, those of their group have to get there.
    let made = match &loaded.admin.group {
        Some(group) if loaded.admin.socket.parent() == Some(&*loaded.state_dir) => {
            crate::local_socket::make_room(&loaded.state_dir, group)
        }
        _ => crate::private_dir::make(&loaded.state_dir).map(drop),
    };
    made.with_context(|| format!("state directory {}", loaded.state_dir.display()))?;
    let node = NodeKey::open(&loaded.state_dir).context("the node's key")?;
    let upstreams = addresses(&loaded, &loaded.upstream.servers).await?;
    if upstreams.is_empty() {
        bail!("no upstream is known; name one in [upstream] servers");
    }
    let mut zones = Vec::new();
    for own in &loaded.upstream.zones {
        let found = addresses(&loaded, &own.servers).await.with_context(|| format!("[[forward]] {}", own.zone))?;
        zones.push(ZoneServers { zone: own.zone.clone(), upstreams: found });
    }
    let sinks = alert_config(&loaded);
    let options = store::Options {
        sinks: loaded.alerts.iter().map(|sink| sink.name.clone()).collect(),
        max_sessions: loaded.max_sessions * 2,
        ..store::Options::default()
    };
    let (store, recovered) =
        Store::open(&loaded.state_dir, options).with_context(|| format!("state in {}", loaded.state_dir.display()))?;
    // What somebody else is writing there is locked.
    feed::sweep(&loaded.state_dir);
    if !recovered.damage.is_empty() {
        let (directory, damage) = (loaded.state_dir.display(), &recovered.damage);
        tracing::error!(%directory, "the state was damaged, and what could be read of it is in force: {damage}");
    }
    let book = Book::default();
    let aside = book.restore(&recovered.learned, recovered.in_force.clone());
    if !aside.is_empty() {
        store.put_learned(aside).context("state")?;
    }
    // Before the packet filter is touched.
    let settled = settle(&book, &loaded, recovered.enforced)?;
    let enforcer = Enforcer::start(loaded.enforce.clone()).context("enforcement cannot be had")?;
    let (telemetry, events) =
        Telemetry::start(&telemetry::Config { file: loaded.events.lines(), queue: loaded.events.queue })
            .context("event file")?;
    let forwarder = Forwarder::with_exchanges(loaded.upstream.forward_config(upstreams, zones), room)
        .asking_for_proofs(loaded.dnssec.validate);
    let lookup = HostLookup::new(forwarder.clone()).context("helper look-ups")?;
    let resolver: Arc<dyn HostResolver> = Arc::new(SinkHosts { lookup, runtime: tokio::runtime::Handle::current() });
    let rdap = loaded.age.rdap.clone().map(|config| Rdap::start(config, store.registered(), Some(resolver.clone())));
    let rdap = rdap.transpose().context("look-ups of registrations")?;
    let delivery = Delivery::start(sinks, &store, Some(resolver.clone())).context("alert sinks")?;
    let cache = Cache::new(cache::Config::of_entries(loaded.answer.cache_entries));
    let sessions = Sessions::new(loaded.max_sessions);
    let configured = loaded.sessions.clone();
    let grants = Arc::new(ArcSwap::from_pointee(Grants::new(HashKey::from_random(random()?))));
    let (digest, enforced) = (loaded.digest().to_owned(), loaded.policy.mode != Mode::Monitor);
    let (rpz, notify_listen) = (loaded.rpz.clone(), loaded.notify_listen.clone());
    let transfers = Keeper::new(&loaded.state_dir);
    let feeds = loaded.feeds.clone();
    let live = live(loaded, grants, &settled)?;
    transfers.configure(&rpz, |zones| live.rpz.store(Arc::new(zones)));
    book.put_in_force(settled);
    let pipeline = Pipeline::new(live, sessions, cache, forwarder, enforcer, store, delivery, telemetry, book);
    let pipeline = pipeline.with_registries(rdap).with_node(&node).with_room(room, random()?);
    let pipeline = Arc::new(pipeline.with_transfers(transfers));
    let serious = recovered.damage.is_serious();
    let same_policy = is_same(&recovered, &pipeline.live.load(), crate::clock::now());
    pipeline.restore_used(recovered.ranges.clone());
    restore(&pipeline, configured, recovered)?;
    if serious {
        pipeline
            .degraded("durable state was damaged; what could be read is in force, see the log", crate::clock::now());
    }
    let owed = Arc::downgrade(&pipeline);
    pipeline.enforcer.on_owed(move |is_owed| {
        if let Some(pipeline) = owed.upgrade() {
            pipeline.owe(is_owed);
        }
    });
    reconcile(&pipeline, same_policy).await?;
    for address in notify_listen {
        let sockets = super::privilege::with_low_ports(|| {
            Ok((std::net::UdpSocket::bind(address)?, std::net::TcpListener::bind(address)?))
        });
        let taken = sockets.and_then(|(udp, tcp)| pipeline.transfers.listen(udp, tcp));
        taken.with_context(|| format!("[server] notify_listen {address}"))?;
    }
    pipeline.keep_zones();
    let watched = Arc::downgrade(&pipeline);
    let filter = Arc::<Filter>::default();
    let told = filter.clone();
    pipeline.enforcer.on_health(move |healthy| {
        // The last of the pipeline is gone only when the process ends.
        if let Some(pipeline) = watched.upgrade() {
            told.look(&pipeline, healthy, crate::clock::now());
            pipeline.gate.nudge();
        }
    });
    // The digest says which policy made the decisions that follow, so it is on disk before the first of them: behind a crash
    // that had lost it, every lease would be closed that was made since.
    let opens = matches!(pipeline.enforcer.status().backend, BackendKind::Nft | BackendKind::Hook);
    match pipeline.record_policy(digest, enforced).context("journal")?.await {
        // Sandboxes are not left without a resolver by a disk that is full: the journal names this policy already, or nothing
        // is opened by it. Readiness tells of the disk.
        Err(error @ store::Error::NotDurable { .. }) if same_policy || !opens => {
            tracing::error!(%error, "the journal cannot be written; what stood is in force");
        }
        Err(error @ store::Error::NotDurable { .. }) => {
            return Err(error).context("the policy is not the one that the journal names, and it cannot be written");
        }
        recorded => drop(recorded.context("journal")?),
    }
    Ok(Built { pipeline, events, node, feeds, resolver, filter })
}

/// Puts a new configuration in force: rules, lists, profiles, mode, zones, answers, sessions. Listeners, upstreams,
/// state and sinks stay as they were at start; where a day file is damaged, registration days stay as they are.
///
/// While leases of one policy are looked at by another, the journal names neither: a start behind a crash closes them all.
///
/// `behind`: what was in force as a whole last, where a reload since then has stopped half-way. All that it may have left is done.
pub async fn apply(pipeline: &Pipeline, mut loaded: Loaded, behind: Option<Arc<Live>>) -> anyhow::Result<String> {
    let half = behind.as_ref().map(|_| pipeline.live.load_full());
    let old = behind.unwrap_or_else(|| pipeline.live.load_full());
    let entries = loaded.sessions.clone();
    let fixed = fixed(&loaded);
    let changed: Vec<_> = fixed.iter().filter(|setting| !old.fixed.contains(setting)).map(|(name, _)| *name).collect();
    if !changed.is_empty() {
        bail!("{} changed, which takes effect at a restart only; nothing was put in force", changed.join(", "));
    }
    configured::check(pipeline, &old.configured, &entries)?;
    if let Some(damage) = &loaded.age.ring_damage {
        // Ages alone stay behind: a rule must not wait for a day file.
        tracing::warn!("{damage}; the registration days that were in force stay, all else of the configuration is new");
        loaded.lists.age = old.policy.lists.age.clone();
    }
    // What monitor mode has taught so far, whatever mode comes.
    pipeline.fold_sessions(crate::clock::now());
    let settled = settle(&pipeline.book, &loaded, old.policy.mode != Mode::Monitor)?;
    let digest = loaded.digest().to_owned();
    let registries = loaded.age.rdap.clone();
    let rpz = loaded.rpz.clone();
    let feeds = loaded.feeds.clone();
    let live = live(loaded, pipeline.live.load().grants.clone(), &settled)?;
    let is_new = half.is_some() || digest != old.digest;
    if is_new {
        note_policy(pipeline, String::new(), old.policy.mode != Mode::Monitor).await;
    }
    pipeline.book.put_in_force(settled);
    pipeline.transfers.configure(&rpz, |zones| {
        live.rpz.store(Arc::new(zones));
        pipeline.put_in_force(live);
    });
    pipeline.transfers.start();
    if let (Some(rdap), Some(config)) = (&pipeline.ages.rdap, registries) {
        rdap.configure(config);
    }
    if let Some(running) = pipeline.feeds.get() {
        running.configure(feeds);
    }
    let is_vetted_anew = half.is_some() || pipeline.live.load().vetting() != old.vetting();
    // Where nothing has changed, what may be shown while no upstream answers is worth keeping.
    if is_new || is_vetted_anew {
        pipeline.cache.clear();
        pipeline.held.clear();
        pipeline.prefetch.clear();
    }
    if is_vetted_anew {
        pipeline.decoys.clear();
    }
    let live = pipeline.live.load_full();
    if let Some(half) = half {
        // What it has brought may be there, whatever the one before said of it.
        configured::put_in_force(pipeline, &half.configured, &live.configured, entries.clone());
    }
    configured::put_in_force(pipeline, &old.configured, &live.configured, entries);
    let now = crate::clock::now();
    // Leases of before this process are there only while no other policy has been in force since.
    let cause = if is_new { Cause::Policy } else { Cause::Recent };
    // Ahead of the sessions, which are looked at again where a range is closed by it.
    drop(pipeline.open_ranges(&live, now));
    for session in pipeline.sessions.all() {
        {
            // What monitor mode would have closed is judged afresh where it is enforced from now on.
            let mut inner = session.inner.lock();
            let enforced = live.policy.mode_of(&session.context()) == Mode::Enforce;
            if enforced && inner.quarantine.as_ref().is_some_and(|q| !q.applied) {
                inner.quarantine = None;
                inner.watched = true;
            }
        }
        pipeline.guard(&session, cause, now);
    }
    let follows = !live.enforcing || pipeline.enforcer.is_in_step(RECONCILED).await;
    if follows {
        note_policy(pipeline, digest.clone(), live.policy.mode != Mode::Monitor).await;
    } else {
        tracing::warn!(
            "the packet filter does not follow the new policy yet; a start before a reload closes all leases"
        );
    }
    Ok(digest)
}

/// Has the journal name the policy that leases are made by, `digest`. A journal that fails keeps nobody from a tighter policy.
async fn note_policy(pipeline: &Pipeline, digest: String, enforced: bool) {
    let result = match pipeline.record_policy(digest, enforced) {
        Ok(commit) => commit.await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "which policy is in force is not on disk");
    }
}

/// An explanation by a configuration alone.
pub fn offline(loaded: Loaded, name: &str, qtype: Qtype, kind: SessionType) -> anyhow::Result<Explanation> {
    let live = judged_by(loaded)?;
    let id = SessionId::new("offline").map_err(|error| anyhow!(error))?;
    let announcement = Announcement::without_sandbox(id, kind);
    let context = Context::new(announcement, true);
    crate::pipeline::explain_fresh(&live, &context, name, qtype, crate::clock::now()).map_err(|error| anyhow!(error))
}

/// The thresholds to put in force. Where verdicts are applied from now on and too little was learned, a refusal that says
/// so; where they were applied before (`was_enforced`), a warning: a resolver that holds the door comes back.
fn settle(book: &Book, loaded: &Loaded, was_enforced: bool) -> anyhow::Result<Vec<Settled>> {
    let (config, bases) = (&loaded.learn, bases(loaded));
    let enforced = match (loaded.policy.mode, was_enforced) {
        (Mode::Monitor, _) => Enforced::No,
        (_, false) => Enforced::FromNowOn,
        (_, true) => Enforced::AsBefore,
    };
    let settled = book.settle(config, &bases, enforced).map_err(|short| NotLearned::new(config, &short))?;
    if enforced == Enforced::AsBefore {
        for found in settled.iter().filter(|found| found.stands_in) {
            tracing::warn!(profile = found.profile, sinkhole = found.sinkhole, why = found.why, "learned thresholds");
        }
    }
    Ok(settled)
}

/// What every profile has without anything learned.
fn bases(loaded: &Loaded) -> [Base; Scope::COUNT] {
    let refused = loaded.policy.unknown_source == UnknownSource::Refuse;
    let mut bases = [Base { params: Params::default(), written: false, scored: false }; Scope::COUNT];
    for (kind, phase) in learn::SCOPES {
        let (scope, profile) = (Scope::of(kind, phase), loaded.profiles.of(kind, phase));
        let unheard = kind == SessionType::Unannounced && refused;
        let scored = profile.unlisted == Unlisted::Score && !unheard;
        bases[scope.index()] = Base { params: profile.params, written: loaded.learn.written.contains(scope), scored };
    }
    bases
}

/// A configuration in force for judging alone, without runtime allowances and nothing learned.
pub fn judged_by(loaded: Loaded) -> anyhow::Result<Live> {
    let grants = Arc::new(ArcSwap::from_pointee(Grants::new(HashKey::from_random(random()?))));
    live(loaded, grants, &[])
}

fn live(loaded: Loaded, grants: Arc<ArcSwap<Grants>>, settled: &[Settled]) -> anyhow::Result<Live> {
    let learn = Learning { config: loaded.learn.clone(), bases: bases(&loaded) };
    let profiles = loaded.profiles.with_params(|kind, phase| {
        let profile = learn::profile_name(kind, phase);
        let (found, base) = (settled.iter().find(|s| s.profile == profile)?, loaded.profiles.of(kind, phase));
        Some(Params { watch: found.watch, sinkhole: found.sinkhole, ..base.params })
    });
    let digest = loaded.digest().to_owned();
    let configured = Configured::new(&loaded.sessions);
    let fixed = fixed(&loaded);
    let own = loaded.listen.addresses.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    let answers = AnswerRules {
        max_ttl: loaded.answer.max_ttl.as_secs() as u32,
        strip_ech: loaded.answer.strip_ech,
        strip_hints: loaded.answer.strip_hints,
        allow_ranges: loaded.answer.allow_ranges.iter().map(allow_range).collect(),
        show_loopback: loaded.answer.show_loopback.iter().map(|zone| zone.zone.clone()).collect(),
        nat64: loaded.answer.nat64.clone(),
        own: own.chain(host_addresses()).collect(),
        apart: loaded.upstream.zones.iter().map(|own| own.zone.clone()).collect(),
    };
    let pins = PinPolicy::new(loaded.pins.min, loaded.pins.max, loaded.pins.grace).context("[enforce] pin times")?;
    let addresses = match loaded.sinkhole.action {
        SinkholeAction::Nxdomain => Vec::new(),
        SinkholeAction::Address { ipv4, ipv6 } => {
            ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6)).collect()
        }
    };
    Ok(Live {
        version: Live::next_version(),
        vetting: Live::next_version().into(),
        zones: loaded.zones,
        rpz: ArcSwap::from_pointee(transfer::without_transfers(&loaded.rpz)),
        forwarded: forward::Zones::new(loaded.upstream.zones.iter().map(|own| own.zone.clone())),
        answers,
        dnssec: loaded.dnssec.clone(),
        validator: loaded.dnssec.validate.then(|| validator(&loaded.state_dir, &loaded.dnssec)),
        allow_cd: loaded.dnssec.allow_cd,
        pins,
        pins_per_name: loaded.pins.per_name,
        ranges: loaded.ranges,
        pin_deadline: loaded.enforce.deadline,
        sinkhole: Sinkhole {
            addresses,
            negative_ttl: loaded.sinkhole.negative_ttl.as_secs() as u32,
            contact: loaded.sinkhole.contact.clone(),
        },
        repeats: loaded.answer.repeats,
        sharing: loaded.answer.sharing,
        enforcing: loaded.enforce.backend != BackendKind::Off,
        lockdown: loaded.lockdown,
        grants,
        stranger: Arc::new(stranger(SessionId::unknown(), SessionType::Unannounced)),
        digest,
        text: loaded.text,
        list_reports: loaded.list_reports,
        configured,
        fixed,
        event_files_kept: loaded.events.keep,
        event_file: loaded.events.file.as_ref().map(|file| absolute(file)),
        learn,
        policy: Policy {
            lists: loaded.lists,
            profiles,
            mode: loaded.policy.mode,
            canary_percent: loaded.policy.canary_percent,
            unknown_source: loaded.policy.unknown_source,
            scorer: Scorer::new(),
            decoy: loaded.decoy,
        },
    })
}

/// What checks answers, with what earlier runs have learned of its trust anchors.
fn validator(state_dir: &Path, config: &config::Dnssec) -> Validator {
    let validator = Validator::new(config.anchors.clone(), config.limits);
    if config.follow_rollover { validator.following(rollover::load(state_dir)) } else { validator }
}

fn allow_range(range: &config::AllowRange) -> AllowRange {
    AllowRange { names: range.form.clone(), ranges: range.ranges.clone() }
}

fn stranger(id: SessionId, kind: SessionType) -> Context {
    let announcement = Announcement { id, addresses: Vec::new(), kind, phase: None, owner: None, search: Vec::new() };
    Context::new(announcement, false)
}

/// Upstreams by address; those by name are looked up once, by the bootstrap servers and nobody else.
async fn addresses(loaded: &Loaded, servers: &[Server]) -> anyhow::Result<Vec<Upstream>> {
    let mut all = Vec::new();
    for Server { endpoint, way } in servers {
        match endpoint {
            Endpoint::Address(address) => all.push(Upstream { address: *address, way: way.clone() }),
            Endpoint::Name { host, port } => {
                let bootstrap = loaded.upstream.bootstrap.iter().map(|address| Upstream::udp(*address)).collect();
                let config = loaded.upstream.forward_config(bootstrap, Vec::new());
                let lookup = HostLookup::new(Forwarder::new(config))?;
                let found = lookup.lookup(&host.to_string()).await.with_context(|| format!("upstream {host}"))?;
                let at = |address| Upstream { address: SocketAddr::new(address, *port), way: way.clone() };
                all.extend(found.into_iter().map(at));
            }
        }
    }
    Ok(all)
}

/// Our own addresses, which no answer may lead a sandbox to.
fn host_addresses() -> Vec<IpAddr> {
    crate::enforce::host_addresses().unwrap_or_else(|error| {
        tracing::warn!(%error, "own addresses are unknown; only listening addresses are guarded");
        Vec::new()
    })
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(octets)
}
