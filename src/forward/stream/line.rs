//! One connection: a task that opens it, writes what is put on it, and hands each answer to whom it is for.
//!
//! Messages are told apart by their id, drawn at random among those not in use on the connection, and checked like a
//! datagram: question, class, QR, opcode. One for nobody is counted and dropped (RFC 7766 section 7); one for somebody that
//! answers another question is a failure of that question. Where several are for nobody, what comes is not what was asked for any
//! more, and the connection gets no other question.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Dialled;
use crate::forward::edns::{KEEPALIVE, Opt};
use crate::forward::exchange::kind_of;
use crate::forward::port::random_id;
use crate::forward::query::{Ask, Dress, Fit, Query};
use crate::forward::upstream::{Upstream, Way};
use crate::forward::{Counters, FailKind, tls};

/// Questions on one connection at most. All exchanges there may be at once, so that one connection can carry them.
const MOST: usize = 4096;
/// How long a connection stays open without a question, where the server names no time. Chosen without a source: longer
/// than the pauses of a busy sandbox, shorter than what servers allow by default (unbound 30 s, knot 10 s).
const IDLE: Duration = Duration::from_secs(9);
/// Longest time that a server can ask for (RFC 7828 allows 109 minutes).
const LONGEST_IDLE: Duration = Duration::from_secs(120);
/// Messages for nobody on a connection before it gets no other question. Chosen without a source: a server that answers one
/// question twice is none that has lost its place.
const STRAY: u32 = 4;
/// Octets written at once.
const BATCH: usize = 16 * 1024;
/// Time to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);

/// What it takes to open a connection.
pub(super) struct Dial {
    pub(super) to: Upstream,
    /// Time for it, handshakes included.
    pub(super) patience: Duration,
    pub(super) dialled: Arc<Dialled>,
    pub(super) counters: Arc<Counters>,
}

/// A connection, opening or open. Dropping it closes it.
pub(super) struct Line {
    queue: mpsc::UnboundedSender<Frame>,
    shared: Arc<Shared>,
}

/// A query's id, which question it is, and the query, framed.
type Frame = (u16, u64, Vec<u8>);

/// What becomes of a question, its id, and which it is.
type Put = (u16, u64, oneshot::Receiver<Result<(Vec<u8>, u8), Lost>>);

struct Shared {
    state: Mutex<State>,
    counters: Arc<Counters>,
    /// Told when nobody waits any more.
    quiet: Notify,
    /// Told when the connection is to be closed in an orderly way.
    done: Notify,
    /// How questions of our own look.
    dress: Dress<'static>,
}

struct State {
    waiting: HashMap<u16, Waiter, foldhash::quality::RandomState>,
    /// Ids of questions that were sent and given up, as many as may be open. What answers them is for nobody, but is an
    /// answer.
    given_up: HashSet<u16, foldhash::quality::RandomState>,
    is_open: bool,
    /// When an answer was last read.
    heard: Option<Instant>,
    /// Questions that were put on it, and those that were answered.
    put: u64,
    answered: u32,
    /// Messages that answered nothing.
    stray: u32,
    /// When the last question was answered or given up.
    quiet: Instant,
    /// A question of our own whether anybody is there, and since when it waits.
    probe: Option<(u16, Instant)>,
    idle: Duration,
    /// It takes no more questions: closed, or the server wants it closed.
    is_retired: bool,
    is_closed: bool,
}

struct Waiter {
    /// Which question it is of those that were put on the connection: an id is used again as soon as it is answered.
    number: u64,
    query: Query,
    since: Instant,
    /// Whether it was written, as far as is known to be left to the system.
    sent: bool,
    tell: oneshot::Sender<Result<(Vec<u8>, u8), Lost>>,
}

/// Whether a question that got no answer may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It may not.
    Never,
    /// Once: the server has ended a connection on which it had answered nothing.
    Once,
    /// Where another connection is open: this one could not be had.
    Elsewhere,
    /// The connection broke, and had been of use before.
    Always,
}

/// A question that got no answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub(super) kind: FailKind,
    pub(super) again: Again,
    /// An answer came, to something else.
    pub(super) spoke: bool,
}

/// A question on a connection.
pub(super) struct Seat {
    id: u16,
    number: u64,
    outcome: oneshot::Receiver<Result<(Vec<u8>, u8), Lost>>,
    /// Does not keep the connection: that is its line's.
    queue: mpsc::WeakUnboundedSender<Frame>,
    shared: Arc<Shared>,
}

impl Seat {
    /// The answer and its response code.
    pub(super) async fn wait(mut self) -> Result<(Vec<u8>, u8), Lost> {
        let lost = Lost { kind: FailKind::Broken, again: Again::Never, spoke: false };
        (&mut self.outcome).await.unwrap_or(Err(lost))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        // Where it was answered, another question may have its id by now.
        let is_ours = state.waiting.get(&self.id).is_some_and(|waiter| waiter.number == self.number);
        if is_ours && let Some(waiter) = state.waiting.remove(&self.id) {
            state.quiet = Instant::now();
            if waiter.sent && state.given_up.len() < MOST {
                state.given_up.insert(self.id);
            }
            // A name may be slow, or nobody may be there any more.
            if waiter.sent
                && state.heard.is_none_or(|at| at < waiter.since)
                && let Some(queue) = self.queue.upgrade()
            {
                self.shared.probe(&mut state, &queue);
            }
            if state.is_idle() {
                self.shared.quiet.notify_one();
            }
        }
    }
}

impl Line {
    /// Opens a connection in a task of its own, with a first question on it; further ones can be put on it at once.
    pub(super) fn open(dial: Dial, ask: &Ask, dress: Dress<'_>) -> Result<(Self, Seat), FailKind> {
        let (queue, frames) = mpsc::unbounded_channel();
        let state = State {
            waiting: HashMap::default(),
            given_up: HashSet::default(),
            is_open: false,
            heard: None,
            put: 0,
            answered: 0,
            stray: 0,
            quiet: Instant::now(),
            probe: None,
            idle: IDLE,
            is_retired: false,
            is_closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            counters: dial.counters.clone(),
            quiet: Notify::new(),
            done: Notify::new(),
            dress: Dress {
                payload: dress.payload,
                case: dress.case,
                cookie: None,
                keepalive: dress.keepalive,
                pad: dress.pad,
            },
        });
        let line = Self { queue, shared: shared.clone() };
        // Ahead of the task, which may find out at once that nobody is there.
        let seat = line.ask(ask, dress, dial.dialled.carried(Instant::now()))?.ok_or(FailKind::Local)?;
        tokio::spawn(async move {
            let (mut reached, mut by_server) = (false, false);
            let end = match timeout(dial.patience, connect(&dial, &mut reached)).await {
                Ok(Ok(stream)) => {
                    dial.dialled.went_well();
                    shared.state.lock().is_open = true;
                    by_server = match stream {
                        Stream::Tcp(stream) => serve(stream, frames, &shared).await,
                        Stream::Tls(stream) => serve(*stream, frames, &shared).await,
                    };
                    FailKind::Broken
                }
                failed => {
                    let late = if reached { FailKind::TlsFailed } else { FailKind::Timeout };
                    let kind = failed.map_or(late, |outcome| outcome.err().unwrap_or(FailKind::Local));
                    dial.dialled.failed(kind, Instant::now());
                    tracing::debug!(upstream = %dial.to, kind = kind.as_str(), "no connection to an upstream");
                    kind
                }
            };
            shared.close(end, by_server, &dial.dialled);
        });
        Ok((line, seat))
    }

    /// Puts a question on it; `None` where it takes none any more. It is the last one where it carries `most` by then.
    pub(super) fn ask(&self, ask: &Ask, dress: Dress<'_>, most: Option<u32>) -> Result<Option<Seat>, FailKind> {
        let mut state = self.shared.state.lock();
        if state.is_retired || state.is_closed || state.waiting.len() >= MOST {
            return Ok(None);
        }
        let Some((id, number, outcome)) = state.put(ask, dress, &self.queue)? else {
            state.is_retired = true;
            return Ok(None);
        };
        state.is_retired |= most.is_some_and(|most| state.put >= u64::from(most));
        drop(state);
        Ok(Some(Seat { id, number, outcome, queue: self.queue.downgrade(), shared: self.shared.clone() }))
    }

    /// Questions on it; `None` where it takes no more, or has said nothing for `patience` to one that is open.
    pub(super) fn load(&self, now: Instant, patience: Duration) -> Option<usize> {
        let state = self.shared.state.lock();
        let stands_still = |since: Instant, patience: Duration| {
            now.saturating_duration_since(since) >= patience && state.heard.is_none_or(|at| at < since)
        };
        let takes = !state.is_retired && state.waiting.len() < MOST;
        let stuck = state.waiting.values().any(|waiter| stands_still(waiter.since, patience))
            // What it asks for needs nobody else.
            || state.probe.is_some_and(|(_, since)| stands_still(since, patience / 2));
        (takes && !stuck).then_some(state.waiting.len())
    }

    /// Leaves further questions one id.
    #[cfg(test)]
    pub(super) fn leave_one_id(&self) {
        self.shared.state.lock().given_up = (1..=u16::MAX).collect();
    }

    /// Whether it has been of use.
    pub(super) fn is_used(&self) -> bool {
        self.shared.state.lock().heard.is_some()
    }

    /// Whether it is open.
    pub(super) fn is_open(&self) -> bool {
        let state = self.shared.state.lock();
        state.is_open && !state.is_closed
    }

    /// Whether it takes no more questions.
    pub(super) fn is_retired(&self) -> bool {
        self.shared.state.lock().is_retired
    }

    /// Whether it is closed.
    pub(super) fn is_over(&self) -> bool {
        self.shared.state.lock().is_closed
    }
}

impl State {
    /// Whether nobody waits for anything but a sign of life.
    fn is_idle(&self) -> bool {
        self.waiting.len() == usize::from(self.probe.is_some())
    }

    /// Queues a question under an id of its own; `None` where nothing is written any more.
    fn put(
        &mut self,
        ask: &Ask,
        dress: Dress<'_>,
        queue: &mpsc::UnboundedSender<Frame>,
    ) -> Result<Option<Put>, FailKind> {
        // At most an eighth of all ids is in use.
        let entry = loop {
            let id = random_id()?;
            if self.given_up.contains(&id) {
                continue;
            }
            match self.waiting.entry(id) {
                Entry::Vacant(entry) => break entry,
                Entry::Occupied(_) => {}
            }
        };
        let id = *entry.key();
        let query = Query::write(ask, id, dress);
        let mut frame = Vec::with_capacity(2 + query.octets().len());
        frame.extend_from_slice(&(query.octets().len() as u16).to_be_bytes());
        frame.extend_from_slice(query.octets());
        let (tell, outcome) = oneshot::channel();
        let number = self.put + 1;
        entry.insert(Waiter { number, query, since: Instant::now(), sent: false, tell });
        if queue.send((id, number, frame)).is_err() {
            self.waiting.remove(&id);
            return Ok(None);
        }
        self.put = number;
        Ok(Some((id, number, outcome)))
    }
}

impl Shared {
    /// Asks whether anybody is there, where that is not being asked.
    fn probe(&self, state: &mut State, queue: &mpsc::UnboundedSender<Frame>) {
        // One that others were answered behind was lost by itself.
        if let Some((id, _)) = state.probe.filter(|(_, since)| state.heard.is_some_and(|at| at >= *since)) {
            state.waiting.remove(&id);
            state.probe = None;
        }
        let asked = state.probe.is_some() || state.is_retired || state.is_closed;
        if !asked && let Ok(Some((id, ..))) = state.put(&Ask::PROBE, self.dress, queue) {
            state.probe = Some((id, Instant::now()));
        }
    }

    /// Hands a message to whom it is for.
    fn deliver(&self, message: Vec<u8>, now: Instant) {
        let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
        let mut state = self.state.lock();
        if state.probe.is_some_and(|(probe, _)| id == Some(probe)) {
            state.probe = None;
        }
        let waiter = id.and_then(|id| state.waiting.remove(&id));
        // Only an answer shows that the other side is there and in its place.
        if waiter.is_some() || id.is_some_and(|id| state.given_up.remove(&id)) {
            state.heard = Some(now);
            state.answered = state.answered.saturating_add(1);
        } else {
            state.stray = state.stray.saturating_add(1);
            state.is_retired |= state.stray >= STRAY;
        }
        let Some(waiter) = waiter else {
            if state.is_retired && state.is_idle() {
                self.quiet.notify_one();
            }
            drop(state);
            return Counters::add(&self.counters.mismatches);
        };
        if let Some(idle) = keepalive(&message) {
            state.idle = idle.min(LONGEST_IDLE);
            state.is_retired |= idle.is_zero();
        }
        state.quiet = now;
        if state.is_idle() {
            self.quiet.notify_one();
        }
        drop(state);
        let outcome = match waiter.query.fit(&message) {
            Fit::Ours { rcode, truncated: false } => Ok((message, rcode)),
            _ => Err(Lost { kind: FailKind::Mangled, again: Again::Never, spoke: true }),
        };
        let _ = waiter.tell.send(outcome);
    }

    /// The connection is over: whoever waits is told why, and `dialled` what it carried where the server has ended it.
    fn close(&self, kind: FailKind, by_server: bool, dialled: &Dialled) {
        let mut state = self.state.lock();
        (state.is_closed, state.is_retired) = (true, true);
        let again = match kind {
            FailKind::Broken if state.answered > 0 => Again::Always,
            FailKind::Broken if by_server => Again::Once,
            FailKind::Broken => Again::Never,
            _ => Again::Elsewhere,
        };
        // Questions that were there when others were still answered were left, not missed.
        if again == Again::Always
            && by_server
            && state.waiting.values().any(|waiter| state.heard.is_some_and(|at| waiter.since <= at))
        {
            dialled.left_behind(state.answered, Instant::now());
        }
        for (_, waiter) in state.waiting.drain() {
            let _ = waiter.tell.send(Err(Lost { kind, again, spoke: false }));
        }
        drop(state);
        dialled.room.notify_one();
    }

    /// Ends when nobody has asked for a while; from then on nobody can.
    async fn idle(&self) {
        loop {
            let now = Instant::now();
            let wake = {
                let mut state = self.state.lock();
                let idle = if state.is_retired { Duration::ZERO } else { state.idle };
                if state.is_idle() && now >= state.quiet + idle {
                    state.is_retired = true;
                    return;
                }
                state.is_idle().then_some(state.quiet + idle)
            };
            match wake {
                Some(at) => drop(timeout_at(at, self.quiet.notified()).await),
                None => self.quiet.notified().await,
            }
        }
    }
}

/// How long the server keeps a connection open for us (RFC 7828), if it says so.
fn keepalive(message: &[u8]) -> Option<Duration> {
    let opt = Opt::of(message)?;
    let tenths = opt.option(KEEPALIVE)?.try_into().ok().map(u16::from_be_bytes)?;
    Some(Duration::from_millis(100) * u32::from(tenths))
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// `reached` says that somebody listens.
async fn connect(dial: &Dial, reached: &mut bool) -> Result<Stream, FailKind> {
    let stream = TcpStream::connect(dial.to.address).await.map_err(|error| kind_of(&error))?;
    *reached = true;
    // Queries are written whole; waiting for more gains nothing.
    let _ = stream.set_nodelay(true);
    Counters::add(&dial.counters.connections);
    let Way::Tls(settings) = &dial.to.way else { return Ok(Stream::Tcp(stream)) };
    let connector = TlsConnector::from(settings.client());
    let stream = connector.connect(settings.server_name(), stream).await.map_err(|error| tls::kind_of(&error))?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    Counters::add(if resumed { &dial.counters.tls_resumed } else { &dial.counters.tls_handshakes });
    Ok(Stream::Tls(Box::new(stream)))
}

/// Serves a connection until it is over; whether the server has ended it.
async fn serve<S: AsyncRead + AsyncWrite>(stream: S, frames: mpsc::UnboundedReceiver<Frame>, shared: &Shared) -> bool {
    let (reader, writer) = split(stream);
    let idle = async {
        shared.idle().await;
        shared.done.notify_one();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read(reader, shared) => true,
        failed = write(writer, frames, shared) => failed,
        () = idle => false,
    }
}

async fn read<S: AsyncRead>(mut stream: ReadHalf<S>, shared: &Shared) {
    while let Ok(len) = stream.read_u16().await {
        let mut message = vec![0; usize::from(len)];
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        shared.deliver(message, Instant::now());
    }
}

/// Writes until we end the connection; or whether it cannot go on, which is the server's doing.
async fn write<S: AsyncWrite>(
    mut stream: WriteHalf<S>,
    mut frames: mpsc::UnboundedReceiver<Frame>,
    shared: &Shared,
) -> bool {
    let mut batch = Vec::new();
    loop {
        let mut next = tokio::select! {
            frame = frames.recv() => frame,
            () = shared.done.notified() => None,
        };
        if next.is_none() {
            // TLS says so (close_notify), TCP sends FIN.
            let _ = timeout(FAREWELL, stream.shutdown()).await;
            return false;
        }
        batch.clear();
        while let Some((id, number, frame)) = next {
            // Else it was given up while the connection opened: nobody wants it asked any more, whoever has its id by now.
            if let Some(waiter) = shared.state.lock().waiting.get_mut(&id).filter(|waiter| waiter.number == number) {
                waiter.sent = true;
                batch.extend_from_slice(&frame);
            }
            next = if batch.len() < BATCH { frames.try_recv().ok() } else { None };
        }
        if stream.write_all(&batch).await.is_err() || stream.flush().await.is_err() {
            return true;
        }
    }
}
