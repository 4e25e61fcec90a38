//! The host's side: what the wire sees.
//!
//! A packet socket on every interface of the doctor's own namespace sees a packet that comes in before any rule, and one that
//! goes out behind all of them. What the host itself would take, [`super::bait`] tells.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::sight::{self, Inner, Mark, Seen, Sight};
use crate::enforce::interface_number;

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

    /// Where packets with this nonce went out to.
    pub fn destinations(&self, nonce: &str) -> BTreeSet<SocketAddr> {
        std::thread::sleep(SETTLE);
        let kept = self.kept.lock();
        let named = |seen: &&Seen| seen.glimpse.nonce.is_some_and(|found| found == *nonce.as_bytes());
        kept.iter().filter(|seen| seen.outgoing).filter(named).map(|seen| seen.glimpse.to).collect()
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
            if !glimpse.is_of_use() {
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
