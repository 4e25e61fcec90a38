//! nftables: one table of our own, kept as wanted over netlink.
//!
//! [`table`] says how the table stands, [`sets`] how elements look, [`cutter`] ends open flows with [`flows`] and [`resets`], [`watch`] notices and
//! repairs what others do, [`reached`] looks at open flows; here and in [`pins`] commands become batches. A batch takes effect whole or not at all, also for packets.
//!
//! Other tables are never touched. A packet that passes here may still be refused by a table of somebody else.

mod cutter;
mod flows;
mod pins;
mod reached;
mod resets;
mod sets;
mod table;
mod watch;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::netlink::{Batch, Netlink, NetlinkError, Refusal};
use super::state::{Entry, State};
use super::{Active, Backend, BackendKind, Command, Config, Counts, Error, Health, SESSIONS_MAX, View};
use cutter::Cutter;
pub use reached::Connections;
use sets::{Element, Kind, MSG_DELSETELEM, MSG_NEWSETELEM, Set};
use table::Layout;

/// Most destinations in one batch of pins: keeps it below 100 KiB and 2 ms.
const BATCH_DESTINATIONS: usize = 1024;
/// Most messages in one batch of other changes.
const BATCH_MESSAGES: usize = 512;
/// Most elements in one message; a netlink attribute has a 16-bit length and an element at most 76 octets.
const MESSAGE_ELEMENTS: usize = 400;
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
    /// Whose flows are to be looked at once the kernel follows again.
    owed: HashSet<IpAddr>,
    restored: u64,
}

/// One change that may be refused for itself.
#[derive(Debug, Clone)]
enum Change {
    Add(Set, Vec<Element>),
    Delete(Set, Element),
}

impl Nft {
    /// Checks the settings and opens the socket. Nothing is changed before [`Backend::setup`].
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for names the kernel would not take, [`Error::Io`] where there is no netfilter netlink.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let table = config.table.as_str();
        if !table.starts_with(|c: char| c.is_ascii_alphabetic()) || table.len() > 64 || !table.bytes().all(word) {
            return Err(Error::Config(format!("table `{}`: use 1 to 64 of A-Z a-z 0-9 _ -", table.escape_debug())));
        }
        for interface in &config.interfaces {
            let name = interface.strip_suffix('*').unwrap_or(interface);
            let good = |b: u8| b.is_ascii_graphic() && !b"/:*\"".contains(&b);
            if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.bytes().all(good) {
                return Err(Error::Config(format!("interface `{}` is not a device name", interface.escape_debug())));
            }
        }
        if config.guard_unknown && config.interfaces.is_empty() {
            return Err(Error::Config("guard_unknown needs at least one interface".into()));
        }
        if config.capacity == 0 {
            return Err(Error::Config("capacity must be at least 1".into()));
        }
        Ok(Self {
            netlink: open()?,
            cutter: Cutter::start(table.to_owned())?,
            layout: Layout {
                table: table.to_owned(),
                interfaces: if config.guard_unknown { config.interfaces.clone() } else { Vec::new() },
                size: config.capacity.saturating_add(table::SPARE),
                owned: true,
            },
            refresh: Refresh::Probe,
            state: State::new(config.capacity),
            start: Instant::now(),
            standing: watch::Standing::default(),
            lost: None,
            dirty: false,
            owed: HashSet::new(),
            restored: 0,
        })
    }

    /// Chooses how lifetimes are changed instead of trying it out.
    #[must_use]
    pub fn with_refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// Whether to forbid every other process to change the table, where the kernel can (Linux 6.9); on unless said
    /// otherwise. Without it, changes are noticed and undone within a second.
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
        }
    }

    fn push(&self, batch: &mut Batch, message: u16, set: Set, elements: &[Element]) {
        let flags = if message == MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
        batch.push(message, flags, |w| sets::write_elements(w, &self.layout.table, set.name(), elements));
    }

    /// Everything but pins, one at a time.
    fn single(&mut self, command: &Command) -> Result<(), Error> {
        let session = command.session().to_canonical();
        let set = |kind| Set::of(kind, session);
        let was = self.state.entry(session).map(|e| (e.guarded, e.monitored, e.quarantined)).unwrap_or_default();
        let (guarded, monitored, quarantined) = was;
        // After a failure the kernel may hold other than what is wanted. To add what is there, or to delete what is
        // not, does no harm.
        let unsure = self.dirty;
        let add = |kind| Change::Add(set(kind), vec![Element::session(session)]);
        let delete = |kind| Change::Delete(set(kind), Element::session(session));
        let mut changes = Vec::new();
        // It is wanted from here on, whatever the kernel says: what it does not take now, the next look brings to it.
        let mut leases = Vec::new();
        match command {
            Command::Pin { .. } => return Ok(()),
            Command::Unpin { destinations, .. } => leases = self.state.unpin(session, destinations)?,
            Command::Guard { .. } => {
                self.state.check_room(session)?;
                self.state.mark(session, Entry::guard);
                changes.extend((!guarded || unsure).then(|| add(Kind::Guarded)));
                changes.extend((monitored || unsure).then(|| delete(Kind::Monitored)));
            }
            Command::Unguard { .. } => {
                self.state.check_room(session)?;
                self.state.mark(session, Entry::monitor);
                changes.extend((!monitored || unsure).then(|| add(Kind::Monitored)));
                changes.extend((guarded || unsure).then(|| delete(Kind::Guarded)));
            }
            Command::Quarantine { .. } => {
                leases = self.state.take_leases(session);
                self.state.mark(session, |entry| entry.quarantined = true);
                changes.extend((!quarantined || unsure).then(|| add(Kind::Quarantined)));
            }
            Command::Release { .. } => {
                self.state.mark(session, |entry| entry.quarantined = false);
                changes.extend((quarantined || unsure).then(|| delete(Kind::Quarantined)));
            }
            Command::Remove { .. } => {
                leases = self.state.take_leases(session);
                self.state.mark(session, |entry| *entry = Entry::default());
                changes.extend((quarantined || unsure).then(|| delete(Kind::Quarantined)));
                changes.extend((monitored || unsure).then(|| delete(Kind::Monitored)));
                changes.extend((guarded || unsure).then(|| delete(Kind::Guarded)));
            }
        }
        let pins = leases.iter().map(|lease| Change::Delete(set(Kind::Pins), Element::pin(session, *lease)));
        // The door is shut before the pins behind it are cleared away, but pins go before the guard that needs them.
        if matches!(command, Command::Remove { .. }) {
            changes = pins.chain(changes).collect();
        } else {
            changes.extend(pins);
        }
        let ends_flows = match command {
            Command::Quarantine { .. } | Command::Remove { .. } => true,
            Command::Guard { .. } => !guarded || unsure,
            // What the quarantine may have left behind.
            Command::Release { .. } => self.cutter.counts().1 > 0,
            Command::Pin { .. } | Command::Unpin { .. } | Command::Unguard { .. } => false,
        };
        let loosens = matches!(command, Command::Release { .. } | Command::Unguard { .. });
        let result = if unsure && loosens && self.lost.is_none() {
            // Not before the pins are gone that an earlier order could not take away.
            self.resync().map(drop)
        } else {
            self.carry_out(changes)
        };
        match &result {
            Ok(()) if ends_flows => self.cutter.cut(vec![session]),
            // A guard or quarantine that stands counts in full only when its flows are gone, so they are owed. Beyond
            // the bound nothing could have been known of the session.
            Err(_) if ends_flows && self.owed.len() < SESSIONS_MAX => {
                self.owed.insert(session);
            }
            _ => {}
        }
        result
    }

    /// Brings changes to the kernel; puts the table back first where it is gone.
    fn carry_out(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        for attempt in 0..2 {
            if let Some(why) = &self.lost {
                self.dirty = true;
                return Err(Error::Unhealthy(why.clone()));
            }
            match self.commit_changes(changes.clone()) {
                Ok(()) => return Ok(()),
                Err(NetlinkError::Refused(refusal)) if refusal.errno == libc::ENOENT && attempt == 0 => {
                    self.restore()?;
                }
                Err(error) => {
                    self.dirty = true;
                    return Err(kernel(&error, "change the table"));
                }
            }
        }
        Err(Error::Unhealthy("the table vanished again while it was put back".into()))
    }

    /// Changes in batches, in order. To delete what is not there is no failure, though the kernel then refuses the
    /// whole batch: it is sent again without.
    fn commit_changes(&mut self, changes: Vec<Change>) -> Result<(), NetlinkError> {
        let mut changes = changes;
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(BATCH_MESSAGES));
            let mut chunk = std::mem::replace(&mut changes, rest);
            while !chunk.is_empty() {
                let mut batch = self.netlink.batch();
                for change in &chunk {
                    match change {
                        Change::Add(set, elements) => self.push(&mut batch, MSG_NEWSETELEM, *set, elements),
                        Change::Delete(set, element) => {
                            self.push(&mut batch, MSG_DELSETELEM, *set, std::slice::from_ref(element));
                        }
                    }
                }
                let refusals = self.commit(batch)?;
                if refusals.is_empty() {
                    break;
                }
                let mut keep = vec![true; chunk.len()];
                for (place, refusal) in refusals {
                    match (chunk.get(place), keep.get_mut(place)) {
                        (Some(Change::Delete(..)), Some(keep)) if refusal.errno == libc::ENOENT => *keep = false,
                        _ => return Err(NetlinkError::Refused(refusal)),
                    }
                }
                let mut keep = keep.into_iter();
                chunk.retain(|_| keep.next().unwrap_or(true));
            }
        }
        Ok(())
    }

    fn refused(&self, doing: &'static str, refusal: Refusal) -> Error {
        match refusal.errno {
            libc::ENFILE => Error::Full { limit: self.layout.size as usize },
            _ => kernel(&NetlinkError::Refused(refusal), doing),
        }
    }
}

impl Backend for Nft {
    fn kind(&self) -> BackendKind {
        BackendKind::Nft
    }

    fn setup(&mut self) -> Result<(), Error> {
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
            let mut destinations = 0;
            let run = rest.iter().take_while(|command| {
                let Command::Pin { destinations: more, .. } = command else { return false };
                destinations += more.len();
                destinations <= BATCH_DESTINATIONS
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
        let before: HashMap<IpAddr, (bool, bool)> =
            self.state.entries().map(|(session, entry)| (session, (entry.guarded, entry.quarantined))).collect();
        self.state.reconcile(active)?;
        // Gone, or quarantined, released or guarded meanwhile.
        let gone = before.keys().copied().filter(|session| self.state.entry(*session).is_none());
        let changed = self.state.entries().filter(|(session, entry)| {
            let (guarded, quarantined) = before.get(session).copied().unwrap_or_default();
            entry.quarantined != quarantined || (entry.guarded && !guarded)
        });
        let changed: Vec<IpAddr> = gone.chain(changed.map(|(session, _)| session)).collect();
        self.owed.extend(changed);
        self.dirty = true;
        self.resync().map(drop)
    }

    fn healthy(&mut self) -> Result<Health, Error> {
        self.look()
    }

    fn teardown(&mut self, remove_table: bool) -> Result<(), Error> {
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

    fn view(&self, session: IpAddr) -> View {
        View::of(self.state.entry(session), self.now())
    }

    fn counts(&self) -> Counts {
        let (flows_cut, flow_errors) = self.cutter.counts();
        Counts { restored: self.restored, flows_cut, flow_errors, ..Counts::of(&self.state) }
    }
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
            words: if refusal.words.is_empty() { String::new() } else { format!(": {}", refusal.words) },
        },
        NetlinkError::Io(error) => Error::Io { doing, source: io::Error::new(error.kind(), error.to_string()) },
        NetlinkError::Interrupted => {
            Error::Io { doing, source: io::Error::new(io::ErrorKind::Interrupted, "changed while it was read") }
        }
    }
}
