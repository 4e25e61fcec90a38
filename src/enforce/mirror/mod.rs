//! A backend whose packet filter is in another process's hands: it wants for itself, and makes the other side want the same.
//!
//! [`Link`] says how the other side is reached: the enforcer over a socket, a hook command over pipes. What is wanted stays
//! here, so that either side may die at any moment. While the link is broken nothing is pinned; every other order is wanted
//! and owed. Before the first pin after that the other side is brought in step, in this order: the written ranges, the
//! orders that are owed (so that a quarantine that was lifted meanwhile has ended flows all the same), and everything that
//! is wanted, exactly. A pin whose answer was lost is not wanted, so it goes then.

mod link;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub(super) use link::Link;

use super::backends::check_ranges;
use super::mark::FIRST_GENERATION;
use super::queue::{Beyond, Order};
use super::state::{State, millis};
use super::wire::{self, DOCUMENT_USUAL, Fault, Held, Reply, Request, Told};
use super::{Active, Backend, BackendKind, Command, Counts, Error, Health, Images, Observed, Range, Tell, Used, View};

/// First pause after a failed try to bring the other side in step; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(40);
/// Longest pause: a service that is back is found within it.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// For an answer about many sessions at once.
const PATIENCE_LONG: Duration = Duration::from_secs(5);
/// Most flows and volumes kept of looks that nobody has taken yet; beyond it they are forgotten.
const UNTOLD_MAX: usize = 1 << 18;

/// The backend.
pub(super) struct Mirror<L> {
    /// Asked from `view` too, which changes nothing here.
    link: RefCell<L>,
    state: State,
    start: Instant,
    ranges: Vec<Range>,
    owed: Beyond,
    /// Why the other side is not in step.
    lost: Option<String>,
    retry: Instant,
    pause: Duration,
    asked: Instant,
    /// What was said when it was asked last.
    fault: Option<Fault>,
    counts: Option<Counts>,
    untold: Untold,
}

/// Looks on their way to who is told.
#[derive(Default)]
struct Untold {
    /// The look that is not whole yet.
    partial: Observed,
    /// Whole, and not taken yet.
    whole: Option<Observed>,
    out: Option<SyncSender<Observed>>,
}

impl<L: Link> Mirror<L> {
    /// With room for `capacity` leases of each family.
    pub(super) fn new(link: L, capacity: u32) -> Self {
        let now = Instant::now();
        Self {
            link: RefCell::new(link),
            state: State::new(capacity, FIRST_GENERATION),
            start: now,
            ranges: Vec::new(),
            owed: Beyond::default(),
            lost: Some("not reached yet".into()),
            retry: now,
            pause: PAUSE_MIN,
            asked: now,
            fault: None,
            counts: None,
            untold: Untold::default(),
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn unhealthy(&self) -> Error {
        Error::Unhealthy(self.lost.clone().unwrap_or_default())
    }

    fn lose(&mut self, error: &Error) -> Error {
        let why = match error {
            Error::Unhealthy(why) | Error::Config(why) => why.clone(),
            other => other.to_string(),
        };
        self.link.get_mut().close();
        self.lost = Some(why.clone());
        (self.retry, self.pause) = (Instant::now(), PAUSE_MIN);
        Error::Unhealthy(why)
    }

    /// Asks; any failure of the link itself means that the other side is out of step.
    fn ask(&mut self, request: &Request, patience: Duration) -> Result<Reply, Error> {
        if self.lost.is_some() {
            return Err(self.unhealthy());
        }
        let answer = self.link.get_mut().exchange(request, patience);
        answer.map_err(|error| self.lose(&error))
    }

    /// As [`Mirror::ask`], where the answer is that it was done or not.
    fn order(&mut self, request: &Request) -> Result<(), Error> {
        match self.ask(request, PATIENCE_LONG)? {
            Reply::Done { fault } => fault.map_or(Ok(()), |fault| Err(fault.into())),
            other => Err(self.lose(&unexpected(&other))),
        }
    }

    /// Hands orders over; one result each, or the link is lost and nothing is known of any.
    fn hand_over(&mut self, commands: Vec<Command>) -> Result<Vec<Result<(), Error>>, Error> {
        let mut results = Vec::with_capacity(commands.len());
        let mut commands = VecDeque::from(commands);
        while !commands.is_empty() {
            let mut length = 0;
            let fits = commands.iter().take(wire::ORDERS_MAX).take_while(|command| {
                length += wire::length(command);
                length <= DOCUMENT_USUAL
            });
            let count = fits.count().max(1);
            let chunk: Vec<Command> = commands.drain(..count).collect();
            let patience = self.link.get_mut().patience();
            match self.ask(&Request::Apply { commands: chunk }, patience)? {
                Reply::Results { results: told } if told.len() == count => {
                    results.extend(told.into_iter().map(|fault| fault.map_or(Ok(()), |fault| Err(fault.into()))));
                }
                other => return Err(self.lose(&unexpected(&other))),
            }
        }
        Ok(results)
    }

    /// A run of pins. What is not acknowledged is not wanted, so that a caller is never told less than is held.
    fn pins(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        if self.lost.is_some() {
            return commands.iter().map(|_| Err(self.unhealthy())).collect();
        }
        let now = self.now();
        // Whether they fit is tried first, all together.
        let mut journal = Vec::new();
        let mut results: Vec<Option<Error>> =
            commands.iter().map(|command| self.book(command, now, &mut journal).err()).collect();
        self.state.undo(journal);
        let fit = commands.iter().zip(&results).filter(|(_, error)| error.is_none());
        let fit: Vec<Command> = fit.map(|(command, _)| command.clone()).collect();
        let mut told = match self.hand_over(fit) {
            Ok(told) => told.into_iter(),
            Err(_) => Vec::new().into_iter(),
        };
        for (command, result) in commands.iter().zip(&mut results).filter(|(_, error)| error.is_none()) {
            *result = match told.next() {
                Some(Ok(())) => self.book(command, now, &mut Vec::new()).err(),
                Some(Err(error)) => Some(error),
                None => Some(self.unhealthy()),
            };
        }
        results.into_iter().map(|error| error.map_or(Ok(()), Err)).collect()
    }

    fn book(&mut self, command: &Command, now: u64, journal: &mut Vec<super::state::Undo>) -> Result<(), Error> {
        let Command::Pin { session, destinations, ports, volume, lifetime } = command else { return Ok(()) };
        self.state.pin(*session, destinations, (ports, *volume), millis(*lifetime), now, journal).map(drop)
    }

    /// A run of anything but pins: wanted from here on, whatever becomes of the link.
    fn others(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let now = self.now();
        let mut results: Vec<Option<Error>> =
            commands.iter().map(|command| self.state.apply(command, now).err()).collect();
        let wanted = commands.iter().zip(&results).filter(|(_, error)| error.is_none());
        let wanted: Vec<Command> = wanted.map(|(command, _)| command.clone()).collect();
        let told = if self.lost.is_some() { Err(self.unhealthy()) } else { self.hand_over(wanted.clone()) };
        let told = told.unwrap_or_else(|_| {
            wanted.into_iter().for_each(|command| self.owe(command));
            Vec::new()
        });
        let mut told = told.into_iter();
        for result in results.iter_mut().filter(|error| error.is_none()) {
            *result = told.next().unwrap_or_else(|| Err(self.unhealthy())).err();
        }
        results.into_iter().map(|error| error.map_or(Ok(()), Err)).collect()
    }

    /// Beyond the bounds of what is owed only the flows are not ended that the order was to end; what is wanted is told whole.
    fn owe(&mut self, command: Command) {
        let order = Order { command, at: Instant::now(), reply: oneshot::channel().0 };
        if let Err(error) = self.owed.put(order) {
            tracing::warn!(%error, "flows that an order was to end may live on until their next packet");
        }
    }

    /// Reaches the other side and brings it in step.
    fn resume(&mut self) -> Result<(), Error> {
        let opened = self.link.get_mut().open();
        opened?;
        self.lost = None;
        let ranges = self.ranges.clone();
        self.order(&Request::Ranges { ranges })?;
        while let Some(orders) = self.owed.next() {
            let commands: Vec<Command> = orders.into_iter().map(|order| order.command).collect();
            match self.hand_over(commands.clone()) {
                // What it could not carry out it wants all the same.
                Ok(_) => {}
                Err(error) => {
                    commands.into_iter().for_each(|command| self.owe(command));
                    return Err(error);
                }
            }
        }
        self.hold_all()
    }

    /// Has the other side want exactly what is wanted here.
    fn hold_all(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let (held, more) = self.state.held(after, DOCUMENT_USUAL, self.now());
            after = held.last().map(|held| held.session);
            self.order(&Request::Hold { held, more })?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Takes over what the other side holds from an earlier run.
    fn adopt(&mut self) -> Result<(), Error> {
        let mut all: Vec<Held> = Vec::new();
        loop {
            let after = all.last().map(|held| held.session);
            match self.ask(&Request::Snapshot { after }, PATIENCE_LONG)? {
                // It must get on, or it would never end.
                Reply::Held { held, more } if !more || held.first().map(|first| first.session) > after => {
                    all.extend(held);
                    if !more {
                        break;
                    }
                }
                other => return Err(self.lose(&unexpected(&other))),
            }
        }
        let now = self.now();
        self.state.hold(&all, now)
    }

    fn try_health(&mut self) -> Result<Health, Error> {
        if self.lost.is_some() {
            if Instant::now() < self.retry {
                return Err(self.unhealthy());
            }
            if let Err(error) = self.resume() {
                let pause = (self.pause * 2).min(PAUSE_MAX);
                let error = self.lose(&error);
                (self.retry, self.pause) = (Instant::now() + pause, pause);
                return Err(error);
            }
            self.pause = PAUSE_MIN;
            tracing::info!("the packet filter's other side is in step");
        } else {
            if let Some(error) = self.link.get_mut().gone() {
                return Err(self.lose(&error));
            }
            if self.asked.elapsed() < self.link.get_mut().ask_every() {
                return self.fault.clone().map_or(Ok(Health::Intact), |fault| Err(fault.into()));
            }
        }
        let patience = self.link.get_mut().patience();
        match self.ask(&Request::Health, patience)? {
            Reply::Health(health) => {
                self.asked = Instant::now();
                self.counts = health.counts.or(self.counts);
                if let Some(told) = health.told {
                    for used in &told.volumes {
                        self.state.note_used(used.session, used.to, used.octets);
                    }
                    self.untold.take(told);
                }
                self.fault.clone_from(&health.fault);
                match health.fault {
                    Some(fault) => Err(fault.into()),
                    None if health.restored => Ok(Health::Restored),
                    None => Ok(Health::Intact),
                }
            }
            other => Err(self.lose(&unexpected(&other))),
        }
    }
}

impl Untold {
    /// Takes a part of a look in.
    fn take(&mut self, told: Told) {
        let Self { partial, whole, .. } = self;
        if partial.flows.len() + partial.volumes.len() < UNTOLD_MAX {
            partial.flows.extend(told.flows);
            partial.volumes.extend(told.volumes.into_iter().map(Used::from));
            partial.ranges.extend(told.ranges);
        }
        if told.more {
            return;
        }
        let partial = std::mem::take(partial);
        match whole {
            // A look is of a moment, what has changed is not.
            Some(whole) if whole.volumes.len() < UNTOLD_MAX => {
                whole.flows = partial.flows;
                whole.volumes.extend(partial.volumes);
                whole.ranges.extend(partial.ranges);
            }
            whole => *whole = Some(partial),
        }
    }

    /// Hands a whole look on, if whoever is told is not still busy with the one before.
    fn hand_on(&mut self) {
        let (Some(whole), Some(out)) = (self.whole.take(), &self.out) else { return };
        if let Err(TrySendError::Full(back)) = out.try_send(whole) {
            self.whole = Some(back);
        }
    }
}

impl<L: Link> Backend for Mirror<L> {
    fn kind(&self) -> BackendKind {
        self.link.borrow().kind()
    }

    fn setup(&mut self) -> Result<(), Error> {
        let end = Instant::now() + self.link.get_mut().start_patience();
        let mut told = false;
        loop {
            let opened = self.link.get_mut().open();
            let result = opened.and_then(|()| {
                self.lost = None;
                if self.link.get_mut().remembers() { self.adopt() } else { Ok(()) }
            });
            match result {
                Ok(()) => return Ok(()),
                // The error itself says more than that it is lost.
                Err(error) => {
                    self.lose(&error);
                    if Instant::now() >= end {
                        return Err(error);
                    }
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(%error, "waiting for who has the packet filter");
                    }
                }
            }
            std::thread::sleep(PAUSE_MAX / 2);
        }
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(commands.len());
        let is_pin = |command: &Command| matches!(command, Command::Pin { .. });
        for run in commands.chunk_by(|a, b| is_pin(a) == is_pin(b)) {
            results.extend(if run.first().is_some_and(is_pin) { self.pins(run) } else { self.others(run) });
        }
        results
    }

    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        self.state.reconcile(active)?;
        self.hold_all()
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Error> {
        check_ranges(ranges)?;
        self.ranges = ranges.to_vec();
        self.order(&Request::Ranges { ranges: ranges.to_vec() })
    }

    fn observe(&mut self, tell: Tell) {
        match tell.aside() {
            Ok(out) => self.untold.out = Some(out),
            Err(error) => tracing::warn!(%error, "nothing is known of flows and volumes; the score does without"),
        }
    }

    fn healthy(&mut self) -> Result<Health, Error> {
        let now = self.now();
        self.state.sweep_sometimes(now);
        let result = self.try_health();
        self.untold.hand_on();
        result
    }

    fn images(&mut self, table: &str, apart: &str) -> Result<Images, Error> {
        match self.ask(&Request::Images { table: table.into(), apart: apart.into() }, PATIENCE_LONG)? {
            Reply::Images { images, fault: None } => Ok(images),
            Reply::Images { fault: Some(fault), .. } => Err(fault.into()),
            other => Err(self.lose(&unexpected(&other))),
        }
    }

    fn held(&self, after: Option<IpAddr>) -> (Vec<Held>, bool) {
        self.state.held(after, DOCUMENT_USUAL, self.now())
    }

    fn hold(&mut self, held: Vec<Held>) -> Result<(), Error> {
        let now = self.now();
        self.state.hold(&held, now)?;
        self.hold_all()
    }

    /// The other side goes on refusing: the table is not the resolver's to remove.
    fn teardown(&mut self, remove_table: bool) -> Result<(), Error> {
        self.link.get_mut().close();
        match remove_table {
            true => Err(Error::Config("the table is in another process's hands and stays".into())),
            false => Ok(()),
        }
    }

    fn view(&self, session: IpAddr) -> View {
        let session = session.to_canonical();
        let mut view = View::of(session, self.state.entry(session), self.now());
        view.generation = 0;
        let mut link = self.link.borrow_mut();
        // Generations are another process's where it keeps state; a hook has none.
        if view.guarded && self.lost.is_none() && link.remembers() {
            let patience = link.patience();
            // A link that fails here is found broken by the next look.
            if let Ok(Reply::View { generation }) = link.exchange(&Request::View { session }, patience) {
                view.generation = generation;
            }
        }
        view
    }

    fn restored(&self) -> u64 {
        self.counts.map_or(0, |counts| counts.restored)
    }

    fn counts(&self) -> Counts {
        self.counts.unwrap_or_else(|| Counts::of(&self.state))
    }
}

fn unexpected(reply: &Reply) -> Error {
    match reply {
        Reply::Refused { why } => Error::Unhealthy(why.clone()),
        _ => Error::Unhealthy("the other side's answer does not fit what it was asked".into()),
    }
}

#[cfg(test)]
mod tests;
