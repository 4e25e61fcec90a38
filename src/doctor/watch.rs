//! The host's side: what the wire sees, and what the host itself would take.
//!
//! A packet socket on every interface of the doctor's own namespace sees a packet that comes in before any rule, and one that
//! goes out behind all of them. Sockets of our own are the services that a sandbox might reach.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

use super::sight::{self, Inner, Mark, Seen, Sight};
use super::space::interface_number;
use crate::probe::MARK;

/// Most packets kept; past it what is seen no longer counts as everything.
const KEPT: usize = 100_000;
/// Room for packets that wait to be read, octets.
static ROOM: libc::c_int = 32 << 20;
/// Octets read of a packet: a probe's own are within them.
const SNAP: usize = 2048;
/// How long what is on its way may take to be read.
const SETTLE: Duration = Duration::from_millis(400);

/// A running watch.
pub struct Watch {
    socket: Arc<OwnedFd>,
    kept: Arc<Mutex<Vec<Seen>>>,
    lossy: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    inner: Inner,
}

impl Watch {
    /// Begins to watch every interface of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_RAW`.
    pub fn start() -> io::Result<Self> {
        let socket = Arc::new(packet_socket()?);
        let (kept, lossy, stop) =
            (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let reader = Reader { socket: socket.clone(), kept: kept.clone(), lossy: lossy.clone(), stop: stop.clone() };
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || reader.run())?;
        Ok(Self {
            socket,
            kept,
            lossy,
            stop,
            thread: Some(thread),
            inner: Inner { loopback: interface_number("lo").into_iter().collect(), home: BTreeSet::new() },
        })
    }

    /// By which interfaces the sandbox's packets come in.
    pub fn at_home(&mut self, home: &BTreeSet<u32>) {
        self.inner.home = home.clone();
    }

    /// What has been seen of probes.
    pub fn look(&self, marks: &[Mark]) -> Vec<Sight> {
        std::thread::sleep(SETTLE);
        let lossy = self.lossy.load(Relaxed) || lost(&self.socket);
        self.lossy.store(lossy, Relaxed);
        let kept = self.kept.lock();
        marks.iter().map(|mark| sight::of(mark, &kept, &self.inner, lossy)).collect()
    }

    /// Forgets what was seen, and what was lost.
    pub fn forget(&self) {
        self.kept.lock().clear();
        lost(&self.socket);
        self.lossy.store(false, Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Reader {
    socket: Arc<OwnedFd>,
    kept: Arc<Mutex<Vec<Seen>>>,
    lossy: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(self) {
        let mut buffer = vec![0u8; SNAP];
        while !self.stop.load(Relaxed) {
            // SAFETY: sockaddr_ll is plain numbers, for which zero is a value.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            let (room, at) = (buffer.len(), buffer.as_mut_ptr().cast());
            // SAFETY: buffer and address are as long as said and live through the call.
            let length =
                unsafe { libc::recvfrom(self.socket.as_raw_fd(), at, room, 0, (&raw mut from).cast(), &mut size) };
            let Ok(length @ 1..) = usize::try_from(length) else { continue };
            let Some(glimpse) = sight::read(&buffer[..length.min(SNAP)]) else { continue };
            if glimpse.nonce.is_none() && glimpse.syn.is_none() {
                continue;
            }
            let interface = u32::try_from(from.sll_ifindex).unwrap_or(0);
            let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
            let mut kept = self.kept.lock();
            match kept.len() < KEPT {
                true => kept.push(Seen { interface, outgoing, glimpse }),
                false => self.lossy.store(true, Relaxed),
            }
        }
    }
}

/// A socket that gets every IP packet of the namespace, from its IP header on.
fn packet_socket() -> io::Result<OwnedFd> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers; the result is checked.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, all.into()) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let wait = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
    // SAFETY: each pointer is to a live value of the size said beside it.
    unsafe {
        let fd = socket.as_raw_fd();
        let size = |n: usize| n as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const wait).cast(), size(size_of_val(&wait)));
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const ROOM).cast(),
            size(size_of_val(&ROOM)),
        );
    }
    Ok(socket)
}

/// Whether packets were lost since the last call.
fn lost(socket: &OwnedFd) -> bool {
    #[repr(C)]
    #[derive(Default)]
    struct Statistics {
        packets: u32,
        drops: u32,
    }
    let mut statistics = Statistics::default();
    let mut size = size_of::<Statistics>() as libc::socklen_t;
    let at = (&raw mut statistics).cast();
    // SAFETY: the place is as large as `tpacket_stats`, two numbers of 32 bits, and lives through the call.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, at, &mut size) };
    result != 0 || statistics.drops > 0
}

/// Sockets of the host that a sandbox might reach: a port of TCP and UDP, and the groups of the link.
pub struct Bait {
    /// The port, both transports.
    pub port: u16,
    /// Ports of groups whose sockets could not be had.
    pub deaf: Vec<String>,
    taken: Arc<Mutex<HashSet<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Bait {
    /// Listens in the calling thread's namespace; joins the groups on these interfaces.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub fn lay(interfaces: &[u32]) -> io::Result<Self> {
        let listener =
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        let address = listener.local_addr()?;
        let datagrams = UdpSocket::bind(address)?;
        let mut bait = Self {
            port: address.port(),
            deaf: Vec::new(),
            taken: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let mut sockets = vec![datagrams];
        for (group, port) in [(Ipv4Addr::new(224, 0, 0, 251), 5353), (Ipv4Addr::new(224, 0, 0, 252), 5355)] {
            bait.hear(group4(group, port, interfaces), format!("{group}"), &mut sockets);
        }
        for (group, port) in
            [(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5353), (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3), 5355)]
        {
            for interface in interfaces {
                bait.hear(group6(group, port, *interface), format!("{group}"), &mut sockets);
            }
        }
        for socket in sockets {
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let (taken, stop) = (bait.taken.clone(), bait.stop.clone());
            bait.threads.push(std::thread::spawn(move || {
                let mut buffer = [0; SNAP];
                while !stop.load(Relaxed) {
                    if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                        note(&taken, &buffer[..length]);
                    }
                }
            }));
        }
        listener.set_nonblocking(true)?;
        let (taken, stop) = (bait.taken.clone(), bait.stop.clone());
        bait.threads.push(std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                let mut buffer = [0; SNAP];
                let _ = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(300))));
                if let Ok(length) = stream.read(&mut buffer) {
                    note(&taken, &buffer[..length]);
                }
            }
        }));
        Ok(bait)
    }

    fn hear(&mut self, socket: io::Result<UdpSocket>, group: String, sockets: &mut Vec<UdpSocket>) {
        match socket {
            Ok(socket) => sockets.push(socket),
            Err(_) => self.deaf.push(group),
        }
    }

    /// Whether a probe with this nonce has come.
    pub fn took(&self, nonce: &str) -> bool {
        self.taken.lock().contains(nonce)
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn note(taken: &Mutex<HashSet<String>>, octets: &[u8]) {
    let at = octets.windows(MARK.len()).position(|window| window == MARK.as_bytes());
    let nonce =
        at.and_then(|at| octets.get(at..at + crate::probe::NONCE)).and_then(|nonce| std::str::from_utf8(nonce).ok());
    if let Some(nonce) = nonce {
        let mut taken = taken.lock();
        if taken.len() < KEPT {
            taken.insert(nonce.to_owned());
        }
    }
}

/// Bound to the group and not to its port alone, so that nothing is taken from a service of the host that has the port.
fn group4(group: Ipv4Addr, port: u16, interfaces: &[u32]) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((group, port)).into())?;
    for interface in interfaces {
        socket.join_multicast_v4_n(&group, &socket2::InterfaceIndexOrAddress::Index(*interface))?;
    }
    Ok(socket.into())
}

fn group6(group: Ipv6Addr, port: u16, interface: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(SocketAddrV6::new(group, port, 0, interface)).into())?;
    socket.join_multicast_v6(&group, interface)?;
    Ok(socket.into())
}
