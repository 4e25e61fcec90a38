//! Connections to one upstream, over TCP (RFC 7766) or TLS (RFC 7858): few, kept open, many questions on each.
//!
//! A question goes out on the connection with the fewest others on it, without waiting for their answers, which come in
//! any order. Another connection is opened where all are busy or stand still. Whoever cannot be connected to is left alone
//! for a moment that grows to [`LONGEST_PAUSE`], and every question in it fails at once with what went wrong: nothing here
//! ever tries another way.
//!
//! A server may close a connection while a question is on its way to it. Where the connection had been of use before and
//! nothing came since, the question is asked once more on a new one (RFC 7766 section 6.2.4).

mod line;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::line::{Dial, Line, Lost};
use super::query::{Ask, Dress};
use super::upstream::{Upstream, Way};
use super::{Counters, FailKind};

/// Connections to one upstream at once (RFC 7766 section 6.2.2 asks for few).
const LINES: usize = 4;
/// Connections beside these that the server wants closed, with questions on them still.
const RETIRED: usize = 12;
/// Questions on a connection before another one is opened. Chosen without a source: many servers take few tens of a
/// connection at a time.
const BUSY: usize = 32;
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
pub(super) struct Dialled(Mutex<Lately>);

#[derive(Default)]
struct Lately {
    failures: u32,
    last: Option<(Instant, FailKind)>,
}

impl Dialled {
    fn went_well(&self) {
        *self.0.lock() = Lately::default();
    }

    fn failed(&self, kind: FailKind, now: Instant) {
        let mut lately = self.0.lock();
        lately.failures = lately.failures.saturating_add(1);
        lately.last = Some((now, kind));
    }

    /// What went wrong, if it did the last time.
    fn why(&self) -> Option<FailKind> {
        self.0.lock().last.map(|(_, kind)| kind)
    }

    /// The same within the pause behind it.
    fn paused(&self, now: Instant) -> Option<FailKind> {
        let lately = self.0.lock();
        let pause = (FIRST_PAUSE * (1 << lately.failures.saturating_sub(1).min(3))).min(LONGEST_PAUSE);
        lately.last.filter(|(at, _)| now < *at + pause).map(|(_, kind)| kind)
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
        let mut fresh = false;
        loop {
            let seat = self.seat(ask, dress, patience, fresh)?;
            Counters::add(if tls { &self.counters.tls_queries } else { &self.counters.tcp_queries });
            match seat.wait().await {
                Ok((wire, rcode)) => return Ok(Heard { wire, rcode }),
                Err(Lost { again: true, .. }) if !fresh => {
                    Counters::add(&self.counters.reconnected);
                    fresh = true;
                }
                Err(Lost { kind, spoke, .. }) => return Err(Unheard { kind, spoke }),
            }
        }
    }

    /// Whether a connection is open.
    pub(super) fn is_connected(&self) -> bool {
        self.lines.lock().iter().any(Line::is_open)
    }

    /// Puts the question on a connection; on a `fresh` one, if it must be.
    fn seat(&self, ask: &Ask, dress: Dress<'_>, patience: Duration, fresh: bool) -> Result<line::Seat, FailKind> {
        let now = Instant::now();
        // Held while a query is written into a queue, never while anybody waits.
        let mut lines = self.lines.lock();
        lines.retain(|line| !line.is_over());
        let free = lines
            .iter()
            .filter(|line| !(fresh && line.is_used()))
            .filter_map(|line| Some((line.load(now, patience)?, line)));
        let best = free.min_by_key(|(load, _)| *load);
        let active = lines.iter().filter(|line| !line.is_retired()).count();
        if let Some((load, line)) = best
            && (load < BUSY || active >= LINES || self.dialled.paused(now).is_some())
            && let Some(seat) = line.ask(ask, dress)?
        {
            return Ok(seat);
        }
        if let Some(kind) = self.dialled.paused(now) {
            return Err(kind);
        }
        if lines.len() >= LINES + RETIRED {
            return Err(FailKind::Local);
        }
        if active >= LINES {
            // All of them stand still. The oldest one goes, with the questions on it.
            if let Some(oldest) = lines.iter().position(|line| !line.is_retired()) {
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
        Ok(seat)
    }
}

/// Whether `address` is where a pool leads, for what is logged.
impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to: SocketAddr = self.to.address;
        f.debug_struct("Pool").field("to", &to).field("lines", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
