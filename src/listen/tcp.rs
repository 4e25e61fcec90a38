//! Connections (RFC 7766): our own accept loop and limits around hickory-server's stream.
//!
//! hickory-server's `register_listener` owns its accept loop, bounds neither the number of connections nor what one
//! may announce, and serves a connection's queries strictly one after another. Used from it, therefore, is the framed
//! stream with its outgoing queue, as its own TCP loop uses it, and a later DoT listener can; around it stand
//! [`table`] (how many, who gives way), [`guard`] (how long a message) and the time limits below, which differ for the
//! first message and thus cannot be its single one.
//!
//! Memory of a connection is bounded: the stream reads only while nothing waits to be written, so a stub that does not
//! read its replies is not read from either, and has at most [`table::PIPELINE`] replies waiting. Replies may overtake
//! each other (RFC 7766 section 6.2.1.1). A sender must complete a message within the time limit, however many pieces
//! it comes in.

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
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::guard::Guard;
pub(super) use self::table::Table;
use self::table::{Admission, PIPELINE, Seat};
use super::counters::{Counters, Tally};
use super::dispatch::{self, DRAIN, Job, ReplyTo};
use super::{Fast, Service};
use crate::clock;
use crate::model::Transport;

mod guard;
mod table;

/// How long a new connection may take to send its first whole message.
const FIRST_MESSAGE: Duration = Duration::from_secs(2);

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
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What all connections share.
pub(super) struct Shared<S: Service> {
    pub(super) service: Arc<S>,
    pub(super) queue: mpsc::Sender<Job<S::Deferred>>,
    pub(super) counters: Arc<Counters>,
    pub(super) table: Arc<Table>,
    pub(super) idle: Duration,
    pub(super) stop: watch::Receiver<bool>,
}

/// Accepts connections until told to stop, then waits for those that still owe replies.
pub(super) async fn accept<S: Service>(listener: tokio::net::TcpListener, shared: Arc<Shared<S>>) {
    let mut connections = JoinSet::new();
    let mut stop = shared.stop.clone();
    loop {
        tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if let Some(seat) = admit(&shared, peer) {
                        connections.spawn(serve(Arc::clone(&shared), socket, peer, seat));
                    }
                }
                Err(error) if transient(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
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
    match shared.table.admit(peer.ip(), clock::now().mono) {
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
async fn serve<S: Service>(shared: Arc<Shared<S>>, socket: TcpStream, peer: SocketAddr, seat: Seat) {
    let _ = socket.set_nodelay(true);
    let socket = AsyncIoTokioAsStd(Guard::new(socket));
    let (mut stream, mut replies) = Framed::from_stream_with_buffer_size(socket, peer, PIPELINE);
    let connection = Arc::clone(&seat.connection);
    let mut stop = shared.stop.clone();
    let mut patience = FIRST_MESSAGE.min(shared.idle);
    let grace = loop {
        let message = tokio::select! {
            biased;
            () = connection.evict.notified() => return,
            () = told(&mut stop) => break STOP_GRACE,
            message = timeout(patience, next(&mut stream)) => message,
        };
        match message {
            Ok(Some(Ok(message))) => {
                connection.touch(clock::now().mono);
                patience = shared.idle;
                let (packet, _) = message.into_parts();
                if !answer(&shared, &seat, &packet, peer, &mut replies).await {
                    return;
                }
            }
            // The stub has closed its half and may still wait for replies.
            Ok(None) => break DRAIN,
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "connection failed");
                Counters::bump(&shared.counters.tcp_expired);
                return;
            }
            // Silence while we owe a reply is not the stub's.
            Err(_) if !connection.is_idle() => {}
            Err(_) => {
                Counters::bump(&shared.counters.tcp_expired);
                return;
            }
        }
    };
    drop(replies);
    let _ = timeout(DRAIN, settle(&mut stream, &seat, grace)).await;
}

/// Judges one message and sees to its reply; false if the connection cannot go on.
async fn answer<S: Service>(
    shared: &Shared<S>,
    seat: &Seat,
    packet: &[u8],
    peer: SocketAddr,
    replies: &mut BufDnsStreamHandle,
) -> bool {
    // Taken before judging, so that nothing is judged that could not be deferred. While all turns are taken nothing is
    // read, and a turn comes back with each reply.
    let Ok(turn) = Arc::clone(&seat.connection.turns).acquire_owned().await else { return false };
    let mut tally = Tally::default();
    let reply = judge(shared, packet, peer, &mut tally, |deferred| Job {
        deferred,
        reply_to: ReplyTo::Tcp { stream: replies.clone(), to: peer, turn },
        packet: packet.into(),
    });
    let mut alive = true;
    if let Some(reply) = reply
        && dispatch::count_reply(&reply, &mut tally)
        && replies.send(SerialMessage::new(reply, peer)).is_err()
    {
        tally.replies -= 1;
        tally.send_failures += 1;
        alive = false;
    }
    tally.flush(&shared.counters);
    alive
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
            Fast::Deferred(deferred) => {
                dispatch::defer(&*shared.service, &shared.queue, job(deferred), out, tally).err().map(|_| out.clone())
            }
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
