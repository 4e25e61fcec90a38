//! Datagrams: worker threads, each with a socket of its own on the same address.
//!
//! The kernel spreads stubs over the sockets by address and port (SO_REUSEPORT), so that workers share nothing but the
//! service. A worker takes up to 64 datagrams in one call, reads the clock once, judges them one by one and sends the
//! replies in one call, where very much comes with a short pause behind it ([`super::gather`]); what cannot be answered at
//! once goes to [`super::dispatch`]. It allocates only for what it defers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::bar::{Bar, Count};
use super::counters::{Counters, Tally};
use super::crowd::Crowd;
use super::dispatch::{self, Job, ReplyTo, Slow};
use super::fair::{Fair, home_of};
use super::gather::{self, Gather};
use super::mmsg::{self, BATCH, Inbox, Outbox, Reply};
use super::{Fast, Service};
use crate::clock;
use crate::model::{Now, Transport};
use crate::reply;
use crate::wire::{Options, Reject};

/// How often an idle worker looks whether it shall end.
const IDLE_TICK: Duration = Duration::from_millis(100);

/// Pause after an unexpected receive error, so that a broken socket does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Socket buffers asked for, octets: about 10 ms of small queries at line rate on top of the system's default. Chosen
/// without a source; raise it if the kernel's count of receive buffer errors moves.
const SOCKET_BUFFER: i32 = 4 << 20;

/// Opens one socket on `address`, to be shared with others there.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_read_timeout(Some(IDLE_TICK))?;
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    mmsg::keep_destination(&socket, address.ip())?;
    mmsg::raise_buffers(&socket, SOCKET_BUFFER);
    Ok(socket)
}

/// A socket for each of `workers`, of those that were handed to us: several workers may wait on one.
pub(super) fn share(inherited: Vec<UdpSocket>, workers: usize) -> io::Result<Vec<UdpSocket>> {
    for socket in &inherited {
        Bar::lift(socket);
        socket.set_read_timeout(Some(IDLE_TICK))?;
        mmsg::keep_destination(socket, socket.local_addr()?.ip())?;
        mmsg::raise_buffers(socket, SOCKET_BUFFER);
    }
    let more = workers.saturating_sub(inherited.len());
    let copies: Vec<_> = inherited.iter().cycle().take(more).map(UdpSocket::try_clone).collect::<Result<_, _>>()?;
    Ok(inherited.into_iter().chain(copies).collect())
}

/// One worker.
pub(super) struct Worker<S: Service> {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) service: Arc<S>,
    pub(super) slow: Arc<Slow<S>>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: Arc<AtomicBool>,
    /// Rises at every turn.
    pub(super) beat: Arc<AtomicU64>,
    /// Whether it may bar sources: one of those that wait on one socket.
    pub(super) bars: bool,
}

impl<S: Service> Worker<S> {
    /// Serves until told to stop, which it notices within a tenth of a second.
    pub(super) fn run(self) {
        let mut inbox = Inbox::new();
        let mut outbox = Outbox::new();
        let (mut crowd, mut fair, mut bar, mut gather) =
            (Crowd::default(), Fair::new(), Bar::default(), Gather::default());
        let nowhere = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let mut replies: Vec<Reply> = (0..BATCH)
            .map(|_| Reply { octets: Vec::with_capacity(usize::from(reply::UDP_MAX)), to: nowhere, local: None })
            .collect();
        let mut tally = Tally::default();
        while !self.stop.load(Relaxed) {
            // Nobody else writes it.
            self.beat.store(self.beat.load(Relaxed).wrapping_add(1), Relaxed);
            let count = match inbox.receive(&self.socket) {
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    if bar.is_down() {
                        // Nothing came at all.
                        self.adjust(&mut bar, clock::now(), &[], |_| Count::default(), &mut tally);
                    }
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "receive failed");
                    Counters::bump(&self.counters.socket_errors);
                    std::thread::sleep(ERROR_PAUSE);
                    continue;
                }
            };
            let now = clock::now();
            let mut ready = 0;
            let is_open = fair.is_open() && !bar.is_down();
            let more = count >= BATCH && (!is_open || crowd.is_there(&self.socket));
            let turn = fair.begin(more, now.mono, bar.is_down());
            if turn.ends && self.bars {
                self.adjust(&mut bar, now, fair.heaviest(), |source| fair.count(source), &mut tally);
            }
            let mut last = None;
            for i in 0..count {
                if turn.asks && inbox.source(i).is_some_and(|from| !fair.admits(self.source(from, &mut last))) {
                    tally.packets += 1;
                    tally.shed += 1;
                    continue;
                }
                // `ready` never passes `i`, and there are as many reply buffers as datagrams in a batch.
                if let Some(slot) = replies.get_mut(ready)
                    && self.answer(&inbox, i, now, slot, &mut tally)
                {
                    ready += 1;
                }
            }
            let sent = outbox.send(&self.socket, replies.get(..ready).unwrap_or_default());
            let failed = ready.saturating_sub(sent) as u64;
            tally.replies = tally.replies.saturating_sub(failed);
            tally.send_failures += failed;
            tally.flush(&self.counters);
            if gather.behind(count, inbox.is_drained(), now.mono) {
                std::thread::sleep(gather::PAUSE);
            }
        }
    }

    /// As what source a datagram counts. `last`: what was said of the one before it, since those of a flood come in runs.
    fn source(&self, from: IpAddr, last: &mut Option<(IpAddr, IpAddr)>) -> IpAddr {
        match *last {
            Some((same, source)) if same == from => source,
            _ => last.insert((from, home_of(from, |from| self.service.home(from)))).1,
        }
    }

    fn adjust(&self, bar: &mut Bar, now: Now, heavy: &[IpAddr], count: impl Fn(IpAddr) -> Count, tally: &mut Tally) {
        match bar.adjust(&self.socket, now.mono, heavy, count) {
            Ok(barred) => tally.barred += barred,
            Err(error) => tracing::warn!(%error, "floods cannot be barred in the kernel"),
        }
    }

    /// Answers datagram `i` into `slot`; false if nothing is to be sent now.
    fn answer(&self, inbox: &Inbox, i: usize, now: Now, slot: &mut Reply, tally: &mut Tally) -> bool {
        let Some(datagram) = inbox.datagram(i) else { return false };
        let Some(from) = datagram.from else {
            tally.packets += 1;
            tally.drops += 1;
            return false;
        };
        slot.to = from;
        slot.local = datagram.local;
        if datagram.cut {
            tally.packets += 1;
            too_long(&mut slot.octets, datagram.octets);
            return dispatch::count_reply(&slot.octets, tally);
        }
        match dispatch::judge(&*self.service, datagram.octets, from, Transport::Udp, now, &mut slot.octets, tally) {
            Fast::Reply => {}
            Fast::Drop => slot.octets.clear(),
            Fast::Deferred(deferred) => {
                let reply_to = ReplyTo::Udp { socket: Arc::clone(&self.socket), to: from, local: datagram.local };
                let job = Job { deferred, reply_to, packet: datagram.octets.into() };
                if self.slow.defer(job, &mut slot.octets, tally).is_ok() {
                    return false;
                }
            }
        }
        dispatch::count_reply(&slot.octets, tally)
    }
}

/// FORMERR for a query longer than we read: nothing but its header can be trusted. Nothing for a response.
fn too_long(out: &mut Vec<u8>, packet: &[u8]) {
    out.clear();
    if let [id_high, id_low, flags, ..] = packet
        && flags & 0x80 == 0
    {
        let rejected = Reject {
            id: u16::from_be_bytes([*id_high, *id_low]),
            opcode: flags >> 3 & 0xf,
            recursion_desired: flags & 1 != 0,
            checking_disabled: false,
            rcode: 1,
            edns: None,
            options: Options::default(),
            question: &[],
        };
        reply::reject(out, &rejected);
    }
}
