//! The backends without a kernel, and what every backend tells of itself.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::mark::FIRST_GENERATION;
use super::state::{Entry, State, Target, Volume};
use super::wire::{DOCUMENT_USUAL, Held};
use super::{Active, Backend, BackendKind, Command, Error, RANGES_MAX, Range, Used};
use crate::ports::{Opening, Ports};

/// What [`Backend::healthy`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All stands.
    Intact,
    /// Somebody had changed or removed it; it stands again.
    Restored,
}

/// One lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Open {
    /// Destination.
    pub destination: IpAddr,
    /// What is open there.
    pub open: Opening,
    /// What is left of its lifetime.
    pub left: Duration,
}

/// What is wanted for one session address.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct View {
    /// Forwarded packets need a pin.
    pub guarded: bool,
    /// Nothing passes.
    pub quarantined: bool,
    /// The mark of its flows; 0 where it is not guarded.
    pub generation: u32,
    /// What is open, longest first.
    pub pins: Vec<Open>,
    /// What has gone out, most first; some seconds old.
    pub volumes: Vec<Used>,
}

impl View {
    pub(super) fn of(session: IpAddr, entry: Option<&Entry>, now: u64) -> Self {
        let Some(entry) = entry else { return Self::default() };
        let open = |(target, end): (&Target, &u64)| {
            let left = Duration::from_millis(end.checked_sub(now).filter(|left| *left > 0)?);
            Some(Open { destination: target.address, open: target.open, left })
        };
        let mut pins: Vec<_> = entry.leases.iter().filter_map(open).collect();
        pins.sort_unstable_by_key(|open| (std::cmp::Reverse(open.left), open.destination, open.open));
        let used = |(destination, volume): (&IpAddr, &Volume)| {
            let Volume { limit, used: octets } = *volume;
            Used { session, destination: *destination, octets, limit }
        };
        let mut volumes: Vec<_> = entry.volumes.iter().map(used).collect();
        volumes.sort_unstable_by_key(|used| (std::cmp::Reverse(used.octets), used.destination));
        let Entry { guarded, quarantined, generation, .. } = *entry;
        Self { guarded, quarantined, generation, pins, volumes }
    }

    /// Destinations of which something is open, each once.
    pub fn destinations(&self) -> Vec<IpAddr> {
        let mut destinations: Vec<IpAddr> = self.pins.iter().map(|open| open.destination).collect();
        destinations.sort_unstable();
        destinations.dedup();
        destinations
    }
}

/// Sizes and counters of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// IPv4 leases, one for each [`Opening`] of a destination (those that ended in the last seconds included).
    pub pins4: usize,
    /// IPv6 leases, as above.
    pub pins6: usize,
    /// Session addresses whose packets need a pin.
    pub guarded: usize,
    /// Session addresses for which nothing passes.
    pub quarantined: usize,
    /// Times the table was put back.
    pub restored: u64,
    /// Connection tracking entries deleted.
    pub flows_cut: u64,
    /// Times connection tracking could not be read or changed; the quarantine's rule holds all the same.
    pub flow_errors: u64,
    /// Lines that the lease journal lacks because its file was too slow.
    pub unrecorded: u64,
}

impl Counts {
    pub(super) fn of(state: &State) -> Self {
        let [pins4, pins6] = state.pins();
        let (guarded, quarantined) = state.closed();
        Self { pins4, pins6, guarded, quarantined, ..Self::default() }
    }
}

/// Keeps the table in memory and records what it would have done.
#[derive(Debug)]
pub struct DryRun {
    state: State,
    start: Instant,
    log: DryRunLog,
}

/// The last commands a [`DryRun`] took.
#[derive(Debug, Clone, Default)]
pub struct DryRunLog(Arc<Mutex<VecDeque<Command>>>);

impl DryRunLog {
    /// Commands kept; older ones are dropped.
    pub const KEPT: usize = 1024;

    /// What is kept, oldest first.
    pub fn commands(&self) -> Vec<Command> {
        self.0.lock().iter().cloned().collect()
    }
}

impl DryRun {
    /// With room for `capacity` pins of each family.
    pub fn new(capacity: u32) -> Self {
        Self { state: State::new(capacity, FIRST_GENERATION), start: Instant::now(), log: DryRunLog::default() }
    }

    /// A view of what it is told, that stays when the backend has gone to the owner thread.
    pub fn log(&self) -> DryRunLog {
        self.log.clone()
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

impl Backend for DryRun {
    fn kind(&self) -> BackendKind {
        BackendKind::DryRun
    }

    fn setup(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let now = self.now();
        let mut log = self.log.0.lock();
        commands
            .iter()
            .map(|command| {
                if log.len() >= DryRunLog::KEPT {
                    log.pop_front();
                }
                log.push_back(command.clone());
                self.state.apply(command, now)
            })
            .collect()
    }

    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        self.state.reconcile(active)
    }

    fn held(&self, after: Option<IpAddr>) -> (Vec<Held>, bool) {
        self.state.held(after, DOCUMENT_USUAL, self.now())
    }

    fn hold(&mut self, held: Vec<Held>) -> Result<(), Error> {
        let now = self.now();
        self.state.hold(&held, now)
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Error> {
        check_ranges(ranges)
    }

    fn healthy(&mut self) -> Result<Health, Error> {
        Ok(Health::Intact)
    }

    fn teardown(&mut self, _remove_table: bool) -> Result<(), Error> {
        Ok(())
    }

    fn view(&self, session: IpAddr) -> View {
        View::of(session, self.state.entry(session), self.now())
    }

    fn counts(&self) -> Counts {
        Counts::of(&self.state)
    }
}

/// Pins nothing and remembers nothing; every command succeeds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off;

impl Backend for Off {
    fn kind(&self) -> BackendKind {
        BackendKind::Off
    }

    fn setup(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        commands.iter().map(|_| Ok(())).collect()
    }

    fn reconcile(&mut self, _active: &[Active]) -> Result<(), Error> {
        Ok(())
    }

    fn ranges(&mut self, _ranges: &[Range]) -> Result<(), Error> {
        Ok(())
    }

    fn healthy(&mut self) -> Result<Health, Error> {
        Ok(Health::Intact)
    }

    fn teardown(&mut self, _remove_table: bool) -> Result<(), Error> {
        Ok(())
    }

    fn view(&self, _session: IpAddr) -> View {
        View::default()
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }
}

/// How many elements a written range counts for in the packet filter, where it stands for each of its classes and ports.
pub fn range_elements(classes: u32, ports: &Ports) -> usize {
    // All ports are two elements, one for each protocol; cutting ranges out of one another may make some more.
    classes.count_ones() as usize * ports.named().max(2)
}

/// Whether written ranges fit.
pub(super) fn check_ranges(ranges: &[Range]) -> Result<(), Error> {
    let elements = |v6: bool| {
        let ranges = ranges.iter().filter(move |range| range.first.is_ipv6() == v6);
        ranges.map(|range| range_elements(range.classes, &range.ports)).sum::<usize>()
    };
    if elements(false).max(elements(true)) > RANGES_MAX {
        return Err(Error::Full { limit: RANGES_MAX });
    }
    Ok(())
}
