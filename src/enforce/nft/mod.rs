//! nftables: one table of our own, kept as wanted over netlink.
//!
//! [`table`] and [`rules`] say how the table stands, [`sets`] how elements look, [`cutter`] ends open flows that are [`due`] with [`flows`] and
//! [`resets`], [`watch`] notices and repairs what others do and [`notice`] hears of it at once, [`observer`] looks at open
//! flows and volumes, [`sweep`] ends flows that somebody names, [`image`] reads whole tables; here and in [`pins`] commands
//! become batches. A batch takes effect whole or not at all, also for packets.
//!
//! Other tables are never touched. A packet that passes here may still be refused by a table of somebody else.

mod adopt;
mod cutter;
mod due;
mod flows;
mod held;
mod image;
mod intervals;
mod members;
mod notice;
mod observer;
mod orders;
mod pace;
mod pins;
mod reading;
mod resets;
mod rules;
mod sets;
mod sweep;
mod table;
mod watch;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::backends::check_ranges;
use super::names::{is_interface, is_table};
use super::netlink::{Batch, Netlink, NetlinkError, Refusal};
use super::state::State;
use super::wire::{DOCUMENT_USUAL, Held};
use super::{Active, Backend, BackendKind, Class, Command, Config, Counts, Error, Health, Range, Tell, View};
use cutter::Cutter;
pub use image::{Chain, Family, Image, Images, Ruleset};
use notice::Notices;
use observer::{Observer, Readings};
use orders::Change;
use sets::{Element, Kind, MSG_NEWSETELEM, Set};
pub use sweep::{Place, Tracked, end_flows};
use table::Layout;

/// Most elements in one batch of pins: keeps it below 200 KiB and some milliseconds.
const BATCH_ELEMENTS: usize = 2048;
/// Most messages in one batch of other changes.
const BATCH_MESSAGES: usize = 512;
/// Most elements in one batch of other changes: some 4 MiB, of which the socket's buffer takes eight.
const BATCH_CHANGES: usize = 32 << 10;
/// Most elements in one message; a netlink attribute has a 16-bit length and an element at most 132 octets.
const MESSAGE_ELEMENTS: usize = 400;
/// Longest time that flows of an older generation pass while they are taken over; behind it they are over.
const RENEWAL_MAX: Duration = Duration::from_millis(700);
const NLM_F_CREATE: u16 = 0x400;

/// How the lifetime of an element that exists is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Try at start what this kernel does.
    Probe,
    /// Add it again with a new expiration (newer kernels).
    InPlace,
    /// Delete and add it in one batch. Works on every kernel, costs some microseconds more.
    Replace,
}

/// The nftables backend. Needs `CAP_NET_ADMIN` in the network namespace of the thread that creates it.
#[derive(Debug)]
pub struct Nft {
    netlink: Netlink,
    cutter: Cutter,
    layout: Layout,
    refresh: Refresh,
    state: State,
    start: Instant,
    standing: watch::Standing,
    /// Why the table does not stand, until it is put back.
    lost: Option<String>,
    /// A change did not reach the kernel: compare all elements at the next look.
    dirty: bool,
    /// The table was made anew: open flows, which begin no count, had theirs in the one before.
    anew: bool,
    /// Whose flows are to be looked at once the kernel follows again.
    owed: HashSet<IpAddr>,
    /// Since when older generations are being taken over.
    renewals: HashMap<IpAddr, (Instant, u32)>,
    ranges: Vec<Range>,
    observer: Option<Observer>,
    notices: Option<Notices>,
    /// Port of the socket that changes the table.
    port: Arc<AtomicU32>,
    /// What the observer has read, and for whom it looks.
    readings: Readings,
    restored: u64,
}

impl Nft {
    /// Checks the settings and opens the socket. Nothing is changed before [`Backend::setup`].
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for names the kernel would not take, [`Error::Io`] where there is no netfilter netlink.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let table = config.table.as_str();
        if !is_table(table) {
            return Err(Error::Config(format!("table `{}`: use 1 to 64 of A-Z a-z 0-9 _", table.escape_debug())));
        }
        if let Some(interface) = config.interfaces.iter().find(|interface| !is_interface(interface)) {
            return Err(Error::Config(format!("interface `{}` is not a device name", interface.escape_debug())));
        }
        if config.guard_unknown && config.interfaces.is_empty() {
            return Err(Error::Config("guard_unknown needs at least one interface".into()));
        }
        if config.capacity == 0 {
            return Err(Error::Config("capacity must be at least 1".into()));
        }
        Ok(Self {
            netlink: open()?,
            cutter: Cutter::new(table.to_owned())?,
            layout: Layout {
                table: table.to_owned(),
                interfaces: if config.guard_unknown { config.interfaces.clone() } else { Vec::new() },
                size: config.capacity.saturating_add(table::SPARE),
                owned: config.own_table,
                classes: Vec::new(),
            },
            refresh: Refresh::Probe,
            state: State::new(config.capacity, first_generation()),
            start: Instant::now(),
            standing: watch::Standing::default(),
            lost: None,
            dirty: false,
            anew: false,
            owed: HashSet::new(),
            renewals: HashMap::new(),
            ranges: Vec::new(),
            observer: None,
            notices: None,
            port: Arc::default(),
            readings: Readings::default(),
            restored: 0,
        })
    }

    /// Chooses how lifetimes are changed instead of trying it out.
    #[must_use]
    pub fn with_refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// Says otherwise than the settings whether every other process is forbidden to change the table.
    #[must_use]
    pub fn with_ownership(mut self, owned: bool) -> Self {
        self.layout.owned = owned;
        self
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Sends a batch. A socket that failed is replaced, and the table counts as lost until it is looked at again.
    fn commit(&mut self, batch: Batch) -> Result<Vec<(usize, Refusal)>, NetlinkError> {
        let result = self.netlink.commit(batch);
        match &result {
            Ok(refusals) if refusals.is_empty() => self.standing.changed_by_us(),
            Ok(_) | Err(NetlinkError::Refused(_) | NetlinkError::Interrupted) => {}
            Err(NetlinkError::Io(error)) => self.lose_socket(error.to_string()),
        }
        result
    }

    fn lose_socket(&mut self, why: String) {
        tracing::warn!(why, "packet filter socket failed");
        self.lost = Some(why);
        if let Ok(netlink) = Netlink::open() {
            self.netlink = netlink;
            self.port.store(self.netlink.port(), Relaxed);
        }
    }

    fn push(&self, batch: &mut Batch, message: u16, set: Set, elements: &[Element]) {
        let flags = if message == MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
        batch.push(message, flags, |w| sets::write_elements(w, &self.layout.table, (set, set.name()), elements));
    }
}

impl Backend for Nft {
    fn kind(&self) -> BackendKind {
        BackendKind::Nft
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.cutter.start()?;
        self.adopt()?;
        self.install_first()?;
        if self.refresh == Refresh::Probe {
            self.refresh = self.probe()?;
        }
        let [pins4, pins6] = self.state.pins();
        tracing::info!(table = self.layout.table, pins4, pins6, refresh = ?self.refresh, owned = self.layout.owned,
            "packet filter table stands");
        Ok(())
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(commands.len());
        let mut rest = commands;
        while let Some(first) = rest.first() {
            let mut elements = 0;
            let run = rest.iter().take_while(|command| {
                let Command::Pin { destinations, ports, .. } = command else { return false };
                elements += destinations.len() * (ports.opening_count() + 1);
                elements <= BATCH_ELEMENTS
            });
            // A single command may be too long for a batch; it is refused for itself.
            let run = run.count().max(usize::from(matches!(first, Command::Pin { .. })));
            match rest.split_at_checked(run) {
                Some((pins, others)) if run > 0 => {
                    results.extend(self.pins(pins));
                    rest = others;
                }
                _ => {
                    results.push(self.single(first));
                    rest = rest.get(1..).unwrap_or(&[]);
                }
            }
        }
        results
    }

    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        self.settle_anew(|state| state.reconcile(active))?;
        self.dirty = true;
        self.resync().map(drop)
    }

    fn held(&self, after: Option<IpAddr>) -> (Vec<Held>, bool) {
        self.state.held(after, DOCUMENT_USUAL, self.now())
    }

    fn hold(&mut self, held: Vec<Held>) -> Result<(), Error> {
        let (old, now) = (self.state.clone(), self.now());
        self.settle_anew(|state| state.hold(&held, now))?;
        self.follow(&old)
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Error> {
        check_ranges(ranges)?;
        self.ranges = ranges.to_vec();
        self.readings.ranges(ranges);
        let before = self.layout.classes.clone();
        self.layout.classes = intervals::classes(ranges).collect();
        // A chain that sessions lead to cannot go; one without ranges opens nothing.
        let gone = before.iter().filter(|class| !self.layout.classes.contains(class));
        let kept: Vec<Class> = gone.copied().collect();
        self.layout.classes.extend(kept);
        if self.layout.classes.iter().any(|class| !before.contains(class)) {
            let installed = self.install(false);
            self.dirty |= installed.is_err();
            installed.map_err(|error| kernel(&error, "open written ranges"))?;
        }
        // Leases and volumes have nothing to do with it.
        self.dirty |= self.lost.is_some();
        if self.dirty { self.resync() } else { self.resync_small() }.map(drop)
    }

    fn observe(&mut self, tell: Tell) {
        self.port.store(self.netlink.port(), Relaxed);
        // A table that is ours alone nobody else changes, and while anybody listens the kernel writes each element of each
        // commit down for them: a quarter of what a lease costs.
        if !self.layout.owned {
            match Notices::start(self.port.clone(), tell.clone()) {
                Ok(notices) => self.notices = Some(notices),
                Err(error) => tracing::warn!(%error, "what others change is found a moment later"),
            }
        }
        match Observer::start(self.layout.table.clone(), self.readings.clone(), tell) {
            Ok(observer) => self.observer = Some(observer),
            Err(error) => tracing::warn!(%error, "nothing is known of flows and volumes; the score does without"),
        }
    }

    fn healthy(&mut self) -> Result<Health, Error> {
        let mut strays = Vec::new();
        for used in self.readings.take() {
            let known = self.state.note_used(used.session, used.destination, used.octets);
            // Begun by a packet on its way while its session or lease went.
            if !known && used.limit.is_none() {
                let set = Set::of(Kind::Counts, used.session);
                strays.push(Change::Delete(set, Element::pair(used.session, used.destination)));
            }
        }
        if self.lost.is_none()
            && !strays.is_empty()
            && let Err(error) = self.carry_out(strays)
        {
            tracing::debug!(%error, "counts that are nobody's stay until the next comparison");
        }
        let retired = self.retire();
        self.look().and_then(|health| retired.map(|()| health))
    }

    fn teardown(&mut self, remove_table: bool) -> Result<(), Error> {
        self.notices = None;
        self.observer = None;
        self.cutter.finish();
        if !remove_table {
            return Ok(());
        }
        let mut batch = self.netlink.batch();
        self.layout.remove(&mut batch);
        match self.commit(batch) {
            Ok(refusals) => match refusals.into_iter().next() {
                Some((_, refusal)) if refusal.errno != libc::ENOENT => Err(self.refused("remove the table", refusal)),
                _ => Ok(()),
            },
            Err(error) => Err(kernel(&error, "remove the table")),
        }
    }

    fn restored(&self) -> u64 {
        self.restored
    }

    fn images(&mut self, table: &str, apart: &str) -> Result<Images, Error> {
        Ruleset::open()?.tables(table, apart)
    }

    fn view(&self, session: IpAddr) -> View {
        View::of(session.to_canonical(), self.state.entry(session), self.now())
    }

    fn counts(&self) -> Counts {
        let (flows_cut, flow_errors) = self.cutter.counts();
        Counts { restored: self.restored, flows_cut, flow_errors, ..Counts::of(&self.state) }
    }
}

/// Above what flows carry that outlive a table of an earlier run: generations count up by far less than one a second.
fn first_generation() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // It wraps in 2106.
    seconds as u32
}

fn open() -> Result<Netlink, Error> {
    Netlink::open().map_err(|source| Error::Io { doing: "open a netfilter socket", source })
}

/// The stage's error for a netlink error.
fn kernel(error: &NetlinkError, doing: &'static str) -> Error {
    match error {
        NetlinkError::Refused(refusal) => Error::Kernel {
            doing,
            source: io::Error::from_raw_os_error(refusal.errno),
            words: match (refusal.words.as_str(), refusal.errno) {
                ("", libc::EPERM) => ": that takes CAP_NET_ADMIN in the network namespace".into(),
                ("", _) => String::new(),
                (words, _) => format!(": {words}"),
            },
        },
        NetlinkError::Io(error) => Error::Io { doing, source: io::Error::new(error.kind(), error.to_string()) },
        NetlinkError::Interrupted => {
            Error::Io { doing, source: io::Error::new(io::ErrorKind::Interrupted, "changed while it was read") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::netlink::Refusal;

    #[test]
    fn a_missing_privilege_is_named() {
        let said = |errno, words: &str| {
            kernel(&NetlinkError::Refused(Refusal { errno, words: words.into() }), "look for the table").to_string()
        };
        assert!(said(libc::EPERM, "").ends_with("that takes CAP_NET_ADMIN in the network namespace"));
        assert!(!said(libc::EBUSY, "").contains("CAP_NET_ADMIN"));
        assert!(said(libc::EINVAL, "no such chain").ends_with(": no such chain"));
    }
}
