//! Joins the parts: finds a sandbox's place, sends probes, looks, judges.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::bait::Bait;
use super::judge::{Aim, Control, Evidence, Heard, judge};
use super::report::{Outcome, Report, Row, SCHEMA};
use super::send::{self, Sent, Terms};
use super::sight::{Mark, Sight};
use super::space::{self, Space};
use super::watch::Watch;
use super::ways::{self, Place, Probe, Send};
use super::{packet::Data, pins};
use crate::admin::client;
use crate::admin::protocol::Request;
use crate::enforce::{interface_addresses, interface_number, is_link_local};
use crate::lockdown::resolvers;
use crate::probe;

/// Probes at once, from the host.
const WIDTH: usize = 8;
/// From within, an ICMP error may be one of many: a datagram is sent so often, that far apart.
const TRIES: (u32, Duration) = (3, Duration::from_millis(1100));
/// What the sandbox's own kernel refuses is heard of before the send returns; this is plenty.
const AT_ONCE: Duration = Duration::from_millis(100);
/// For the daemon's answer.
pub(super) const ADMIN: Duration = Duration::from_secs(15);

/// What the doctor was told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the resolver answers; without one, the sandbox's gateways and what its resolv.conf names are asked.
    pub resolvers: Vec<SocketAddr>,
    /// Hosts outside that answer probes.
    pub canaries: Vec<IpAddr>,
    /// Addresses of other sandboxes, beside those of announced sessions.
    pub neighbours: Vec<IpAddr>,
    /// A name that the sandbox may resolve, and a port that is opened with it.
    pub name: Option<(String, u16)>,
    /// How long the end of a pin may be waited for.
    pub stale: Duration,
    /// How long one probe waits for a word.
    pub patience: Duration,
    /// How many routers a connection's packets may pass, from within.
    pub hops: u32,
    /// The daemon's socket, where it may be asked.
    pub admin: Option<PathBuf>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace cannot be had.
    #[error("the sandbox's namespace: {0}; run as root, and name it as `ip netns` does, by path, or by a process id")]
    Space(#[source] io::Error),
    /// The wire cannot be watched.
    #[error("this host's interfaces cannot be watched: {0}; run as root, or with CAP_NET_RAW and CAP_SYS_ADMIN")]
    Watch(#[source] io::Error),
    /// No chance.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// Something else of the system.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What probes are sent and judged with.
pub(super) struct Runner {
    pub space: Option<Space>,
    pub watch: Option<Watch>,
    /// Sockets of this host; or why there are none.
    pub bait: Result<Bait, String>,
    /// Where the sandbox asks, and this node answers.
    pub resolvers: Vec<SocketAddr>,
    /// Where this node answers, behind any translation.
    pub proven: Vec<SocketAddr>,
    pub alive: Control,
    pub within: Control,
    pub patience: Duration,
    pub hops: Option<u32>,
}

/// One probe that was sent.
struct Out {
    nonce: String,
    sent: Sent,
    /// For a question: whether the proof to compare with was had.
    proven: bool,
}

/// A row, and what was heard.
pub(super) struct Done {
    pub row: Row,
    pub heard: Heard,
    pub left: bool,
}

/// Tries every way from a namespace of this host, watching from the doctor's own.
///
/// # Errors
///
/// [`Error`]: nothing was tried.
pub fn from_namespace(name: &str, settings: &Settings) -> Result<Report, Error> {
    let space = Space::open(name).map_err(Error::Space)?;
    // Entered once before all else, so that a missing privilege is told as such.
    space.run(|| ()).map_err(Error::Space)?;
    let watch = Watch::start().map_err(Error::Watch)?;
    let resolv_conf = space.resolv_conf.clone();
    let runner = Runner::new(Some(space), Some(watch), settings);
    runner.report("namespace", name, resolv_conf.as_deref(), settings)
}

/// Tries every way from where the doctor itself runs.
///
/// # Errors
///
/// [`Error`]: nothing was tried.
pub fn inside(settings: &Settings) -> Result<Report, Error> {
    let resolv_conf = space::resolv_conf("/etc/resolv.conf".as_ref());
    let runner = Runner::new(None, None, settings);
    runner.report("inside", "this sandbox", resolv_conf.as_deref(), settings)
}

impl Runner {
    fn new(space: Option<Space>, watch: Option<Watch>, settings: &Settings) -> Self {
        let hops = space.is_none().then_some(settings.hops);
        let none = || Control { good: false, text: String::new() };
        Self {
            space,
            watch,
            bait: Err("nobody listens on this host".into()),
            resolvers: Vec::new(),
            proven: Vec::new(),
            alive: none(),
            within: none(),
            patience: settings.patience,
            hops,
        }
    }

    /// Runs `work` where the sandbox is.
    pub(super) fn there<T: std::marker::Send>(&self, work: impl FnOnce() -> T + std::marker::Send) -> io::Result<T> {
        match &self.space {
            Some(space) => space.run(work),
            None => Ok(work()),
        }
    }

    fn report(
        mut self,
        from: &str,
        sandbox: &str,
        resolv_conf: Option<&str>,
        settings: &Settings,
    ) -> Result<Report, Error> {
        let mut place = Place {
            watched: self.watch.is_some(),
            canaries: settings.canaries.clone(),
            neighbours: settings.neighbours.clone(),
            ..Place::default()
        };
        let (gateways, addresses) = self.there(|| (space::gateways(), interface_addresses()))?;
        let addresses = addresses?;
        let is_own = |ip: &IpAddr| !ip.is_loopback() && !is_link_local(*ip);
        place.own = addresses.iter().map(|(_, ip)| *ip).filter(is_own).collect();
        let named = || resolv_conf.map(|text| space::nameservers(text, interface_number)).unwrap_or_default();
        place.nameservers = self.there(named)?;
        let outward = gateways.first().map(|gateway| gateway.interface.clone());
        place.interface = self.there(|| outward.as_deref().and_then(interface_number))?;
        place.gateways = gateways.iter().filter_map(|gateway| gateway.address).collect();
        place.listed = resolvers::read("shipped", resolvers::SHIPPED)
            .map(|ranges| ranges.iter().map(|range| range.first()).collect())
            .unwrap_or_default();

        let node = self.find_resolver(settings, &place)?;
        self.within = self.there(loopback)?;
        let arrived = self.arrivals(&mut place, &addresses)?;
        let known = self.sessions(settings, &place);
        place.neighbours.extend(known.neighbours.iter().filter(|ip| !place.own.contains(ip)));
        place.neighbours.sort();
        place.neighbours.dedup();

        // First what does not last.
        let mut rows = pins::others(&self, settings, &known)?;
        rows.extend(self.round(&ways::all(&place))?.into_iter().map(|done| done.row));
        rows.extend(arrived.rows);
        rows.extend(self.unknown_to_us(&place, resolv_conf.is_some()));
        rows.extend(pins::own(&self, &place, settings, &known)?);
        let mut report = Report {
            schema: SCHEMA,
            from: from.into(),
            sandbox: sandbox.chars().take(256).collect(),
            addresses: place.own.iter().take(64).map(ToString::to_string).collect(),
            interfaces: arrived.interfaces,
            resolver: self.resolvers.iter().map(ToString::to_string).collect(),
            node,
            rows,
        };
        report.fit();
        Ok(report)
    }

    /// Sends probes, looks, judges. It is looked at once, when all are sent: most have seconds to get out.
    pub(super) fn round(&self, probes: &[Probe]) -> Result<Vec<Done>, Error> {
        if let Some(watch) = &self.watch {
            watch.forget();
        }
        let width = if self.space.is_some() { WIDTH } else { 1 };
        let mut sent = Vec::with_capacity(probes.len());
        for some in probes.chunks(width) {
            sent.extend(self.together(some)?);
        }
        let mark = |(probe, out): (&Probe, &Out)| {
            let asks = matches!(probe.send, Send::Question { .. });
            // A question in another's name must not arrive there either.
            let resolvers = if asks { self.proven.clone() } else { Vec::new() };
            Mark { nonce: out.nonce.clone(), to: probe.to.ip(), dial: out.sent.dial, resolvers }
        };
        let marks: Vec<Mark> = probes.iter().zip(&sent).map(mark).collect();
        let sights = self.watch.as_ref().map(|watch| watch.look(&marks));
        let sight = |i: usize| sights.as_ref().and_then(|sights| sights.get(i));
        Ok(probes.iter().zip(&sent).enumerate().map(|(i, (probe, out))| self.judged(probe, out, sight(i))).collect())
    }

    /// Sends probes at once.
    fn together(&self, probes: &[Probe]) -> Result<Vec<Out>, Error> {
        let mut chances = Vec::new();
        for _ in probes {
            let mut number = [0; 4];
            getrandom::fill(&mut number).map_err(Error::Random)?;
            chances.push((probe::nonce().map_err(Error::Random)?, u32::from_ne_bytes(number)));
        }
        let sent: Vec<io::Result<Out>> = std::thread::scope(|scope| {
            let each = probes.iter().zip(chances);
            let each = each.map(|(probe, (nonce, number))| {
                scope.spawn(move || {
                    let (sent, proven) = self.there(|| self.one(probe, &nonce, number))?;
                    Ok(Out { nonce, sent, proven })
                })
            });
            let each: Vec<_> = each.collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, io::Result<Out>>| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a probe panicked")))
            };
            each.into_iter().map(join).collect()
        });
        Ok(sent.into_iter().collect::<io::Result<Vec<_>>>()?)
    }

    fn judged(&self, probe: &Probe, out: &Out, sight: Option<&Sight>) -> Done {
        let left: Vec<String> = sight.into_iter().flat_map(|sight| &sight.left).map(|n| space::called(*n)).collect();
        let control = self.control(probe, out.proven);
        let evidence = Evidence {
            aim: self.aim(probe),
            heard: &out.sent.heard,
            sight,
            left: &left,
            delivered: self.bait.as_ref().is_ok_and(|bait| bait.took(&out.nonce)),
            alive: &self.alive,
            control: &control,
        };
        let (outcome, why, control) = judge(&evidence);
        let row = Row { probe: probe.id.clone(), tries: probe.tries.into(), to: shown(probe), outcome, why, control };
        Done { row, heard: out.sent.heard.clone(), left: !left.is_empty() }
    }

    /// From within nothing comes back of a packet of its own making, as nothing need come back from a group.
    fn aim(&self, probe: &Probe) -> Aim {
        if self.watch.is_none() && matches!(probe.send, Send::Raw(..)) { Aim::Link } else { probe.aim }
    }

    /// One probe, where the sandbox is; and for a question whether the proof to compare with was had.
    fn one(&self, probe: &Probe, nonce: &str, number: u32) -> (Sent, bool) {
        let question = matches!(probe.send, Send::Question { .. });
        let ask = |to: &SocketAddr| send::token(*to, nonce, self.patience.max(Duration::from_secs(1)));
        let proof = if question { self.resolvers.iter().find_map(ask) } else { None };
        let terms = Terms { nonce, number, proof: proof.as_deref(), patience: self.patience, hops: None };
        let sent = match self.hops.filter(|_| matches!(probe.aim, Aim::Away | Aim::Resolver)) {
            Some(hops) => near(probe, &terms, hops),
            None => send::send(probe, &terms),
        };
        (sent, !question || proof.is_some())
    }

    /// The control beside what the wire sees.
    fn control(&self, probe: &Probe, proven: bool) -> Control {
        if !proven {
            return Control { good: false, text: "this node did not answer the same question itself".into() };
        }
        if probe.aim == Aim::Within || self.watch.is_none() {
            return self.within.clone();
        }
        // Whether this host took it is known only where this host would have heard it.
        let heard = match &self.bait {
            Err(why) if probe.aim == Aim::Link => Err(why.clone()),
            Ok(bait) if probe.aim == Aim::Link || bait.port == probe.to.port() => bait.hears(probe.to.ip()),
            _ => Ok(()),
        };
        if let Err(text) = heard {
            return Control { good: false, text };
        }
        if !probe.canary {
            return Control { good: true, text: String::new() };
        }
        self.canary(probe)
    }

    /// The same from this host, which the canary must answer.
    fn canary(&self, probe: &Probe) -> Control {
        if matches!(probe.send, Send::Ping | Send::Raw(..)) {
            return Control { good: true, text: String::new() };
        }
        let Ok(nonce) = probe::nonce() else { return Control { good: false, text: "no randomness".into() } };
        let terms = Terms { nonce: &nonce, number: 0, proof: None, patience: Duration::from_secs(1), hops: None };
        let good = matches!(send::send(probe, &terms).heard, Heard::Taken | Heard::Answered { .. });
        let text = if good { "the canary answers this host" } else { "the canary does not answer this host" };
        Control { good, text: text.into() }
    }
}

/// From within, a refusal counts where whoever gives it is near: one from far away, or from the end itself, shows that the
/// packet has left. What is neither refused nor answered near is sent once more, as far as it goes. Nearer than the first router
/// is the sandbox itself, whose own filter refuses at once, whatever the host would do.
fn near(probe: &Probe, terms: &Terms<'_>, hops: u32) -> Sent {
    let first = send::send(probe, &Terms { hops: Some(1), patience: terms.patience.min(AT_ONCE), ..*terms });
    match first.heard {
        Heard::Refused(why) => return Heard::RefusedHere(why).into(),
        Heard::Silent => {}
        _ => return first,
    }
    let datagram = matches!(probe.send, Send::Datagram(_) | Send::Question { tcp: false });
    for attempt in 0..if datagram { TRIES.0 } else { 1 } {
        if attempt > 0 {
            std::thread::sleep(TRIES.1);
        }
        let sent = send::send(probe, &Terms { hops: Some(hops), ..*terms });
        let from_end = datagram && send::is_from_the_end(&sent.heard);
        if sent.heard != Heard::Silent && !from_end {
            return sent;
        }
    }
    let far = send::send(probe, terms);
    match far.heard {
        Heard::Refused(_) => Heard::Silent.into(),
        _ => far,
    }
}

/// One session in full.
pub(super) fn show(settings: &Settings, id: &str) -> Option<Value> {
    let session = crate::model::SessionId::new(id).ok()?;
    client::ask(settings.admin.as_ref()?, &Request::Show { session }, ADMIN).ok()
}

/// A row for what was not tried.
pub(super) fn not_tried(probe: &str, tries: &str, why: &str) -> Row {
    Row {
        probe: probe.into(),
        tries: tries.into(),
        to: "-".into(),
        outcome: Outcome::NotTried,
        why: why.into(),
        control: String::new(),
    }
}

fn shown(probe: &Probe) -> String {
    let raw = matches!(probe.send, Send::Raw(..) | Send::Ping) && probe.to.port() == 0;
    match probe.send {
        Send::Raw(_, from) if !raw => format!("{} from {from}", probe.to),
        Send::Raw(_, from) => format!("{} from {from}", probe.to.ip()),
        _ if raw => probe.to.ip().to_string(),
        _ => probe.to.to_string(),
    }
}

/// The same code, to a socket of our own within the sandbox.
fn loopback() -> Control {
    match try_loopback() {
        Ok(true) => Control { good: true, text: "the same code reaches a socket on the sandbox's loopback".into() },
        Ok(false) => {
            let text = "the same code does not reach a socket on the sandbox's loopback";
            Control { good: false, text: text.into() }
        }
        // A sandbox need not have one, and all else can be tried.
        Err(error) => Control { good: false, text: format!("the sandbox's loopback cannot be used: {error}") },
    }
}

fn try_loopback() -> io::Result<bool> {
    let patience = Duration::from_secs(1);
    let home = (Ipv4Addr::LOCALHOST, 0);
    let (datagrams, listener) = (UdpSocket::bind(home)?, TcpListener::bind(home)?);
    datagrams.set_read_timeout(Some(patience))?;
    let (udp, tcp) = (datagrams.local_addr()?, listener.local_addr()?);
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        if let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..length], from);
        }
    });
    let terms = Terms { nonce: "loopback", number: 0, proof: None, patience, hops: None };
    let try_one = |to, send| {
        let probe = Probe { id: String::new(), tries: "", to, send, aim: Aim::Away, canary: false };
        send::send(&probe, &terms).heard == Heard::Taken
    };
    let good = [try_one(udp, Send::Datagram(Data::Plain)), try_one(tcp, Send::Dial(Data::Plain))];
    let _ = echo.join();
    drop(listener);
    Ok(good == [true, true])
}
