//! Connections to one upstream, over TCP (RFC 7766) or TLS (RFC 7858): few, kept open, many questions on each.
//!
//! A question goes out on the connection with the fewest others on it, without waiting for their answers, which come in
//! any order. Another connection is opened where all are busy or stand still. Whoever cannot be connected to is left alone
//! for a moment that grows to [`LONGEST_PAUSE`], and every question in it fails at once with what went wrong: nothing here
//! ever tries another way.
//!
//! A server may close a connection with questions on it. Where anything was answered on it, they are asked again on a new
//! one (RFC 7766 section 6.2.4), as often as each connection brings something, [`ROUNDS`] times at most. A server may take
//! fewer connections than we would open, and end others before it has read from them (dnsdist does): what was put on one
//! goes to one that is of use, or once more to a new one where there is none. A server that answers
//! so many questions on each connection and no more is known by that, and a connection gets no more of them for a while.

mod line;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::line::{Again, Dial, Line, Lost};
use super::query::{Ask, Dress};
use super::upstream::{Upstream, Way};
use super::{Counters, FailKind};

/// Connections to one upstream at once (RFC 7766 section 6.2.2 asks for few).
const LINES: usize = 4;
/// Connections beside these that the server wants closed, with questions on them still: twice what one session has with the
/// upstreams at once where others ask, since each is asked twice at most. Names that are slow would else hold up everybody
/// at a server that answers one question on each. Whoever waits on one holds a socket of those that exchanges may have.
const RETIRED: usize = 64;
/// Questions on a connection before another one is opened. Chosen without a source: many servers take few tens of a
/// connection at a time.
const BUSY: usize = 32;
/// Connections that a question is put on at most, each of which was closed under it.
const ROUNDS: u32 = 16;
/// How long it is remembered how many questions a server answers on a connection. Chosen without a source: what it costs to
/// find out anew is one round trip of a few questions.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Pause after a first failure to connect; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause: below the time between two probes, so that each of them is a try.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Connections to one upstream.
pub(super) struct Pool {
    to: Upstream,
    lines: Mutex<Vec<Line>>,
    dialled: Arc<Dialled>,
    counters: Arc<Counters>,
}

/// How connecting went lately.
#[derive(Default)]
pub(super) struct Dialled {
    lately: Mutex<Lately>,
    /// Told when a connection is over, and another may be opened.
    room: Notify,
}

#[derive(Default)]
struct Lately {
    failures: u32,
    last: Option<(Instant, FailKind)>,
    /// What the last connection carried that the server closed with questions on it, and when; and whether the one before
    /// it carried as much.
    carried: Option<(u32, Instant, bool)>,
}

impl Dialled {
    fn went_well(&self) {
        let mut lately = self.lately.lock();
        (lately.failures, lately.last) = (0, None);
    }

    fn failed(&self, kind: FailKind, now: Instant) {
        let mut lately = self.lately.lock();
        lately.failures = lately.failures.saturating_add(1);
        lately.last = Some((now, kind));
    }

    /// What went wrong, if it did the last time.
    fn why(&self) -> Option<FailKind> {
        self.lately.lock().last.map(|(_, kind)| kind)
    }

    /// The same within the pause behind it.
    fn paused(&self, now: Instant) -> Option<FailKind> {
        let lately = self.lately.lock();
        let pause = (FIRST_PAUSE * (1 << lately.failures.saturating_sub(1).min(3))).min(LONGEST_PAUSE);
        lately.last.filter(|(at, _)| now < *at + pause).map(|(_, kind)| kind)
    }

    /// The server closed a connection behind `answered` answers, with questions on it that it had by then. One alone may
    /// be a restart; two that carried as much are a limit.
    fn left_behind(&self, answered: u32, now: Instant) {
        let mut lately = self.lately.lock();
        let is_same = lately.carried.is_some_and(|(before, at, _)| before == answered && now < at + REMEMBERED);
        lately.carried = Some((answered, now, is_same));
    }

    /// How many questions the server answers on a connection, where it has a limit.
    fn carried(&self, now: Instant) -> Option<u32> {
        let carried = self.lately.lock().carried;
        carried.filter(|(_, at, is_limit)| *is_limit && now < *at + REMEMBERED).map(|(answered, ..)| answered)
    }
}

/// Which connection a question is to be put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Whichever has the fewest questions on it.
    Any,
    /// One that was not used yet: others may be at their end too.
    Fresh,
    /// One that has been of use: the server may take no more of them.
    Used,
}

impl Wanted {
    fn is_met_by(self, line: &Line) -> bool {
        match self {
            Self::Any => true,
            Self::Fresh => !line.is_used(),
            Self::Used => line.is_used(),
        }
    }
}

/// A response, as far as a connection can tell that it is one.
pub(super) struct Heard {
    /// The message.
    pub(super) wire: Vec<u8>,
    /// Response code of its header.
    pub(super) rcode: u8,
}

/// A question that got none.
pub(super) struct Unheard {
    /// Why.
    pub(super) kind: FailKind,
    /// Whether the upstream sent something for it.
    pub(super) spoke: bool,
}

impl From<FailKind> for Unheard {
    fn from(kind: FailKind) -> Self {
        Self { kind, spoke: false }
    }
}

impl Pool {
    /// No connection yet. `counters` are told of each one.
    pub(super) fn new(to: Upstream, counters: Arc<Counters>) -> Self {
        Self { to, lines: Mutex::default(), dialled: Arc::default(), counters }
    }

    /// Why there is no connection, where the last try failed.
    pub(super) fn why_not(&self) -> Option<FailKind> {
        self.dialled.why()
    }

    /// Connections open or opening.
    pub(super) fn len(&self) -> usize {
        self.lines.lock().iter().filter(|line| !line.is_over()).count()
    }

    /// Asks. `patience` is how long a connection may say nothing to an open question before others are asked elsewhere;
    /// opening one may take twice as long. Waits for ever: the caller has a limit.
    pub(super) async fn ask(&self, ask: &Ask, dress: Dress<'_>, patience: Duration) -> Result<Heard, Unheard> {
        let tls = matches!(self.to.way, Way::Tls(_));
        let dress = Dress { keepalive: true, pad: tls, ..dress };
        let (mut rounds, mut in_vain, mut wanted) = (0, false, Wanted::Any);
        loop {
            let seat = match self.seat(ask, dress, patience, wanted)? {
                Some(seat) => seat,
                None => self.seat_in_turn(ask, dress, patience, wanted).await?,
            };
            Counters::add(if tls { &self.counters.tls_queries } else { &self.counters.tcp_queries });
            let Lost { kind, spoke, again } = match seat.wait().await {
                Ok((wire, rcode)) => return Ok(Heard { wire, rcode }),
                Err(lost) => lost,
            };
            wanted = match again {
                Again::Always => Wanted::Fresh,
                Again::Once if !std::mem::replace(&mut in_vain, true) => Wanted::Used,
                Again::Elsewhere if self.is_connected() => Wanted::Used,
                Again::Never | Again::Once | Again::Elsewhere => return Err(Unheard { kind, spoke }),
            };
            rounds += 1;
            if rounds >= ROUNDS {
                return Err(Unheard { kind, spoke });
            }
            Counters::add(&self.counters.reconnected);
        }
    }

    /// Whether a connection is open.
    pub(super) fn is_connected(&self) -> bool {
        self.lines.lock().iter().any(Line::is_open)
    }

    /// As [`Self::seat`], when connections that are to be closed have made room.
    async fn seat_in_turn(
        &self,
        ask: &Ask,
        dress: Dress<'_>,
        patience: Duration,
        wanted: Wanted,
    ) -> Result<line::Seat, FailKind> {
        loop {
            self.dialled.room.notified().await;
            let seat = self.seat(ask, dress, patience, wanted);
            if !matches!(seat, Ok(None)) {
                // There may be room for whoever waits behind.
                self.dialled.room.notify_one();
            }
            if let Some(seat) = seat? {
                return Ok(seat);
            }
        }
    }

    /// Puts the question on a connection, on one as it is wanted if that can be. `None` where there are as many as there may
    /// be and none takes it.
    fn seat(
        &self,
        ask: &Ask,
        dress: Dress<'_>,
        patience: Duration,
        wanted: Wanted,
    ) -> Result<Option<line::Seat>, FailKind> {
        let now = Instant::now();
        let (most, paused) = (self.dialled.carried(now), self.dialled.paused(now));
        // Held while a query is written into a queue, never while anybody waits.
        let mut lines = self.lines.lock();
        lines.retain(|line| !line.is_over());
        let active = loop {
            let active = lines.iter().filter(|line| !line.is_retired()).count();
            let free = |wanted: Wanted| {
                let free = lines.iter().filter(|line| wanted.is_met_by(line));
                free.filter_map(|line| Some((line.load(now, patience)?, line))).min_by_key(|(load, _)| *load)
            };
            // Where another one may not be opened, one that serves is better than none.
            let is_full = active >= LINES || lines.len() >= LINES + RETIRED;
            let best = free(wanted).or_else(|| free(Wanted::Any).filter(|_| is_full || wanted == Wanted::Used));
            let takes = |load| load < BUSY || is_full || paused.is_some() || wanted == Wanted::Used;
            let Some((_, line)) = best.filter(|(load, _)| takes(*load)) else { break active };
            if let Some(seat) = line.ask(ask, dress, most)? {
                return Ok(Some(seat));
            }
            // It has come to its end since it was looked at, and takes no more from now on.
        };
        if let Some(kind) = paused {
            return Err(kind);
        }
        if lines.len() >= LINES + RETIRED {
            return Ok(None);
        }
        if active >= LINES {
            // All of them stand still. The oldest one goes, with the questions on it.
            let stands_still = |line: &Line| !line.is_retired() && line.load(now, patience).is_none();
            if let Some(oldest) = lines.iter().position(stands_still) {
                lines.remove(oldest);
            }
        }
        // Two or three round trips stand before the first question's own.
        let dial = Dial {
            to: self.to.clone(),
            patience: 2 * patience,
            dialled: self.dialled.clone(),
            counters: self.counters.clone(),
        };
        let (line, seat) = Line::open(dial, ask, dress)?;
        lines.push(line);
        Ok(Some(seat))
    }
}

/// Where it leads, for what is logged.
impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to: SocketAddr = self.to.address;
        f.debug_struct("Pool").field("to", &to).field("lines", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
