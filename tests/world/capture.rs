//! Every packet on an interface, by a packet socket: what the wire saw, whoever sent it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ns::Ns;

/// A running capture.
pub struct Capture {
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    /// How often the reader has found nothing to read.
    quiet: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to keep the packets on `interface` of `ns`, both directions.
    pub fn start(ns: &Ns, interface: &str) -> Self {
        let socket = ns.blocking(|| open(interface)).expect("a packet socket");
        let packets = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (quiet, stop) = (Arc::<AtomicU64>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, nothing, stopped) = (packets.clone(), quiet.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0u8; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: the buffer is as long as said and lives through the call.
                let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                match usize::try_from(n) {
                    Ok(n @ 1..) => {
                        kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(buffer[..n].to_vec());
                    }
                    _ => _ = nothing.fetch_add(1, Ordering::Release),
                }
            }
        });
        Self { packets, quiet, stop, thread: Some(thread) }
    }

    /// IP packets so far, without the neighbour and listener discovery of IPv6 (ARP is no IP packet).
    pub fn ip_packets(&self) -> Vec<Vec<u8>> {
        self.settle();
        let all = self.packets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.iter().filter(|frame| is_traffic(frame)).cloned().collect()
    }

    /// Every frame so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.settle();
        self.packets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Forgets the packets so far.
    pub fn forget(&self) {
        self.settle();
        self.packets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// Gives what was sent a moment to come, and the reader as long as it needs for what is in the socket's queue by then; of
    /// traffic that never pauses, three seconds.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(100));
        let before = self.quiet.load(Ordering::Acquire);
        // The second time it has begun to read behind that moment.
        super::wait_for(Duration::from_secs(3), || (self.quiet.load(Ordering::Acquire) >= before + 2).then_some(()));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn is_traffic(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => true,
        // Next header 0: listener reports; 58 with types 133 to 137: neighbour discovery.
        Some([0x86, 0xdd]) => match frame.get(20) {
            Some(0) => false,
            Some(58) => !matches!(frame.get(54), Some(133..=137)),
            _ => true,
        },
        _ => false,
    }
}

/// A packet socket on an interface of the calling thread's namespace.
pub fn open(interface: &str) -> io::Result<OwnedFd> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers; the result is checked.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into()) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let name = CString::new(interface)?;
    // SAFETY: the string is NUL-terminated.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: sockaddr_ll is plain numbers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index as i32;
    let wait = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
    make_room(&socket);
    // SAFETY: each pointer is to a live value of the size said beside it.
    let bound = unsafe {
        let fd = socket.as_raw_fd();
        let size = |n: usize| n as libc::socklen_t;
        let wait = &raw const wait;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, wait.cast(), size(size_of::<libc::timeval>()));
        libc::bind(fd, (&raw const address).cast(), size(size_of::<libc::sockaddr_ll>()))
    };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Gives a socket room for a burst, beyond what the system grants to all.
pub fn make_room(socket: &impl AsRawFd) {
    let room: libc::c_int = 8 << 20;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live number of the size said behind it.
    unsafe {
        let room = (&raw const room).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, room, size);
    }
}
