//! Connections (RFC 7766): our own accept loop and limits around hickory-server's stream.
//!
//! hickory-server's `register_listener` owns its accept loop, bounds neither the number of connections nor what one
//! may announce, and serves a connection's queries strictly one after another. Used from it, therefore, is the framed
//! stream with its outgoing queue, as its own TCP loop uses it, and a later DoT listener can; around it stand
//! [`table`] (how many, who gives way), [`guard`] (how long a message) and the time limits below, which differ for the
//! first message and thus cannot be its single one.
//!
//! Memory of a connection is bounded: the stream reads only while nothing waits to be written, so a stub that does not
//! read its replies is not read from either, and has at most [`table::PIPELINE`] replies and [`UNREAD`] octets waiting. Replies may overtake
//! each other (RFC 7766 section 6.2.1.1). A sender must complete a message within the time limit, however many pieces
//! it comes in. Who asks how long its connection may stay (RFC 7828) is told, and told to end it where places are scarce.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use hickory_proto::op::SerialMessage;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream as FramedStream;
use hickory_server::net::xfer::{BufDnsStreamHandle, DnsStreamHandle};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::guard::Guard;
pub(super) use self::table::Table;
use self::table::{Admission, Connection, PIPELINE, Seat};
use super::counters::{Counters, Tally};
use super::dispatch::{self, DRAIN, Job, ReplyTo, Slow};
use super::{Fast, Service};
use crate::clock;
use crate::model::Transport;
use crate::reply;
use crate::wire::{self, Parsed};

mod guard;
mod table;

/// How long a new connection may take to send its first octet.
const FIRST_OCTET: Duration = Duration::from_secs(2);

/// How long a message may take from its first octet to its last; no longer than silence may be.
const MESSAGE: Duration = Duration::from_secs(5);

/// Octets of replies that may wait for one connection, and for all together: who reads has next to nothing waiting, so
/// this is what stubs that do not read can hold. Past it their connections are closed.
const UNREAD: usize = 256 << 10;
const UNREAD_ALL: usize = 64 << 20;

/// Buffers of a connection in the kernel, octets, doubled there for its own use: what the kernel would let one grow to is
/// several megabytes. Queries are short; a pipeline of long replies moves with the round trip.
const SEND_BUFFER: usize = 64 << 10;
const RECEIVE_BUFFER: usize = 16 << 10;

/// Between two lines of the log that say that accepting fails.
const ACCEPT_TOLD: Duration = Duration::from_secs(10);

/// Pause after an accept that failed for want of descriptors or memory, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may take, when we end, to write the last replies.
const STOP_GRACE: Duration = Duration::from_millis(100);

/// Connections the kernel may hold for us.
const BACKLOG: i32 = 1024;

type Framed = FramedStream<AsyncIoTokioAsStd<Guard<TcpStream>>>;

/// Opens the listening socket on `address`. It is not shared, so a second instance fails here and not half-way.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    limit_buffers(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes over a listening socket that was handed to us.
pub(super) fn take_over(inherited: TcpListener) -> io::Result<TcpListener> {
    let socket = Socket::from(inherited);
    limit_buffers(&socket)?;
    Ok(socket.into())
}

/// Accepted connections inherit what is set here.
fn limit_buffers(socket: &Socket) -> io::Result<()> {
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)
}

/// Sockets that may be open at once where `connections` may be served: an eighth more.
pub(super) fn sockets(connections: usize) -> usize {
    (connections.max(1) + connections.div_ceil(8).max(1)).min(Semaphore::MAX_PERMITS)
}

/// What all connections share.
pub(super) struct Shared<S: Service> {
    pub(super) service: Arc<S>,
    pub(super) slow: Arc<Slow<S>>,
    pub(super) counters: Arc<Counters>,
    pub(super) table: Arc<Table>,
    /// One permit for each socket that may be open: the table's places, and some for those that have given way and not
    /// ended yet.
    pub(super) open: Arc<Semaphore>,
    pub(super) idle: Duration,
    pub(super) stop: watch::Receiver<bool>,
}

/// Accepts connections until told to stop, then waits for those that still owe replies.
pub(super) async fn accept<S: Service>(listener: tokio::net::TcpListener, shared: Arc<Shared<S>>) {
    let mut connections = JoinSet::new();
    let mut stop = shared.stop.clone();
    let mut said: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if let Some(seat) = admit(&shared, peer) {
                        // Who gave way ends soon, but not at once: until then nobody else is let in, so that descriptors
                        // are counted and not run out of.
                        let Ok(open) = Arc::clone(&shared.open).acquire_owned().await else { break };
                        connections.spawn(serve(Arc::clone(&shared), socket, peer, seat, open));
                    }
                }
                Err(error) if transient(&error) => {}
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() >= ACCEPT_TOLD) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, "accept failed; connections wait, datagrams are served");
                    }
                    Counters::bump(&shared.counters.socket_errors);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

/// Errors of one connection, not of the listener (accept(2)).
fn transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn admit<S: Service>(shared: &Shared<S>, peer: SocketAddr) -> Option<Seat> {
    match shared.table.admit(shared.service.home(peer.ip()), clock::now().mono) {
        Admission::Seat(seat, made_room) => {
            Counters::bump(&shared.counters.tcp_accepted);
            if made_room {
                Counters::bump(&shared.counters.tcp_evicted);
            }
            Some(seat)
        }
        Admission::Full => {
            Counters::bump(&shared.counters.tcp_refused);
            None
        }
    }
}

/// Serves one connection to its end.
async fn serve<S: Service>(
    shared: Arc<Shared<S>>,
    socket: TcpStream,
    peer: SocketAddr,
    seat: Seat,
    _open: OwnedSemaphorePermit,
) {
    let _ = socket.set_nodelay(true);
    let connection = Arc::clone(&seat.connection);
    let socket = AsyncIoTokioAsStd(Guard::new(socket, Arc::clone(&connection.progress)));
    let (mut stream, replies) = Framed::from_stream_with_buffer_size(socket, peer, PIPELINE);
    let mut way = Way {
        stream: replies,
        to: peer,
        connection: Arc::clone(&connection),
        counters: Arc::clone(&shared.counters),
        keepalive: None,
    };
    let mut stop = shared.stop.clone();
    let mut patience = Patience::new(shared.idle);
    let grace = loop {
        let message = tokio::select! {
            biased;
            () = connection.evict.notified() => return,
            () = told(&mut stop) => break STOP_GRACE,
            message = timeout_at(patience.ends(&connection), next(&mut stream)) => message,
        };
        match message {
            Ok(Some(Ok(message))) => {
                connection.touch(clock::now().mono);
                patience.first_until = None;
                let (packet, _) = message.into_parts();
                if !answer(&shared, &seat, &packet, peer, &mut way).await {
                    return;
                }
            }
            // The stub has closed its half and may still wait for replies.
            Ok(None) => break DRAIN,
            // What follows cannot be told apart any more; who asked before still gets what was asked for.
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "connection failed");
                Counters::bump(&shared.counters.tcp_expired);
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::BrokenPipe) {
                    return;
                }
                break DRAIN;
            }
            Err(_) if patience.is_left(&connection) => {}
            Err(_) => {
                Counters::bump(&shared.counters.tcp_expired);
                return;
            }
        }
    };
    drop(way);
    tokio::select! {
        () = connection.evict.notified() => {}
        _ = timeout(DRAIN, settle(&mut stream, &seat, grace)) => {}
    }
}

/// How long a stub may still be silent or slow.
struct Patience {
    idle: Duration,
    /// When the first message must have begun; nothing behind that.
    first_until: Option<Instant>,
}

impl Patience {
    fn new(idle: Duration) -> Self {
        Self { idle, first_until: Some(Instant::now() + FIRST_OCTET.min(idle)) }
    }

    /// When the message under way must be whole, or else the next one begin: silence counts from when nothing is owed any more,
    /// which is what the stub goes by (RFC 7766 section 6.2.3, RFC 7828 section 3.2.2).
    fn ends(&self, connection: &Connection) -> Instant {
        let now = clock::now().mono;
        match (connection.progress.began(), self.first_until) {
            (Some(began), _) => {
                let past = Duration::from_millis(now.saturating_sub(began));
                Instant::now() + MESSAGE.min(self.idle).saturating_sub(past)
            }
            (None, Some(first)) => first,
            (None, None) if !connection.is_idle() => Instant::now() + self.idle,
            (None, None) => Instant::now() + self.idle.saturating_sub(connection.silent(now)),
        }
    }

    /// Whether the time that was over is not: a message has begun meanwhile, or silence is not the stub's, since we owe
    /// it a reply or did until a moment ago.
    fn is_left(&self, connection: &Connection) -> bool {
        self.ends(connection) > Instant::now()
    }
}

/// The way back over a connection.
#[derive(Clone)]
pub(super) struct Way {
    stream: BufDnsStreamHandle,
    to: SocketAddr,
    connection: Arc<Connection>,
    counters: Arc<Counters>,
    /// What the reply says of how long the connection may stay, tenths of a second (RFC 7828).
    keepalive: Option<u16>,
}

impl Way {
    /// As [`Self::send`], for a reply that was awaited.
    pub(super) fn send_owed(&mut self, octets: Vec<u8>) -> bool {
        self.connection.touch(clock::now().mono);
        self.send(octets)
    }

    /// Queues a reply; false if the connection is gone, or goes because its stub does not read.
    pub(super) fn send(&mut self, mut octets: Vec<u8>) -> bool {
        if let Some(tenths) = self.keepalive {
            reply::add_option(&mut octets, wire::KEEPALIVE, &tenths.to_be_bytes(), usize::from(u16::MAX));
        }
        if !self.connection.progress.queue(octets.len(), UNREAD, UNREAD_ALL) {
            Counters::bump(&self.counters.tcp_unread);
            self.connection.evict.notify_one();
            return false;
        }
        self.stream.send(SerialMessage::new(octets, self.to)).is_ok()
    }
}

/// Judges one message and sees to its reply; false if the connection cannot go on.
async fn answer<S: Service>(shared: &Shared<S>, seat: &Seat, packet: &[u8], peer: SocketAddr, way: &mut Way) -> bool {
    // Taken before judging, so that nothing is judged that could not be deferred. While all turns are taken nothing is
    // read, and a turn comes back with each reply.
    let Ok(turn) = Arc::clone(&seat.connection.turns).acquire_owned().await else { return false };
    way.keepalive = keepalive(shared, packet);
    let mut tally = Tally::default();
    let reply = judge(shared, packet, peer, &mut tally, |deferred| Job {
        deferred,
        reply_to: ReplyTo::Tcp { way: Box::new(way.clone()), turn },
        packet: packet.into(),
    });
    let mut alive = true;
    if let Some(reply) = reply
        && dispatch::count_reply(&reply, &mut tally)
        && !way.send(reply)
    {
        tally.replies -= 1;
        tally.send_failures += 1;
        alive = false;
    }
    tally.flush(&shared.counters);
    alive
}

/// What a query that asks for it is told of how long its connection may stay, tenths of a second: as long as silence may
/// be, or no longer than its replies take where places are scarce (RFC 7828 section 3.4).
fn keepalive<S: Service>(shared: &Shared<S>, packet: &[u8]) -> Option<u16> {
    // Without an additional record there is no option.
    let asks = packet.get(10..wire::HEADER).is_some_and(|additionals| additionals != [0, 0])
        && matches!(wire::parse(packet), Parsed::Query(query) if query.options.keepalive);
    let tenths = u16::try_from(shared.idle.as_millis() / 100).unwrap_or(u16::MAX);
    asks.then(|| if shared.table.is_crowded() { 0 } else { tenths })
}

/// Judges one message; the reply, unless it was deferred. Replies are written into a buffer of the thread, so that a
/// connection does not hold 64 KiB.
fn judge<S: Service>(
    shared: &Shared<S>,
    packet: &[u8],
    peer: SocketAddr,
    tally: &mut Tally,
    job: impl FnOnce(S::Deferred) -> Job<S::Deferred>,
) -> Option<Vec<u8>> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(usize::from(u16::MAX)));
    }
    SCRATCH.with_borrow_mut(|out| {
        match dispatch::judge(&*shared.service, packet, peer, Transport::Tcp, clock::now(), out, tally) {
            Fast::Reply => Some(out.clone()),
            Fast::Drop => Some(Vec::new()),
            Fast::Deferred(deferred) => shared.slow.defer(job(deferred), out, tally).err().map(|_| out.clone()),
        }
    })
}

/// Waits until the listener ends.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The next message; `None` at the end of the stream.
async fn next(stream: &mut Framed) -> Option<io::Result<SerialMessage>> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// Waits until every reply owed is queued and, for `grace` longer at most, written.
async fn settle(stream: &mut Framed, seat: &Seat, grace: Duration) {
    let mut turns = pin!(seat.connection.turns.acquire_many(PIPELINE as u32));
    // A turn comes back when its reply is queued, and polling the stream writes what is queued; messages that the stub
    // still sends are read and dropped. The end of the stream is only reported when nothing waits to be written.
    let ended = std::future::poll_fn(|cx| {
        let owed = turns.as_mut().poll(cx).is_pending();
        while let Poll::Ready(message) = Pin::new(&mut *stream).poll_next(cx) {
            if !matches!(message, Some(Ok(_))) {
                return if owed { Poll::Pending } else { Poll::Ready(true) };
            }
        }
        if owed { Poll::Pending } else { Poll::Ready(false) }
    })
    .await;
    if !ended {
        let _ = timeout(grace, next(stream)).await;
    }
}
