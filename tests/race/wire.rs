//! What came out of the sandboxes, with the kernel's own time of each packet.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::journal::Micros;
use super::world::capture::open;
use super::world::ns::Ns;

/// One packet of a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// When it arrived.
    pub at: Micros,
    /// From.
    pub from: Ipv4Addr,
    /// To.
    pub to: Ipv4Addr,
    /// Destination port.
    pub port: u16,
    /// It asks for a connection.
    pub opens: bool,
    /// It does so once more, and had been answered: the answer came to grief on its way back, as it does while the table is
    /// gone, and the connection has been open ever since.
    pub again: bool,
    /// It carries nothing, and is a reset or of sequence 0: what the gateway sends in a sandbox's name to the far end of a
    /// connection that it cuts.
    pub cuts: bool,
}

/// A running capture of TCP packets from `10.78.0.0/16`.
pub struct Wire {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Starts on an interface of a namespace.
    pub fn start(ns: &Ns, interface: &str) -> Self {
        let socket = ns.blocking(|| open(interface)).expect("a packet socket");
        let packets = Arc::<Mutex<Vec<Packet>>>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped) = (packets.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            // The first question switches times on.
            time_of_last(&socket);
            let mut buffer = [0u8; 128];
            let mut answered = HashSet::new();
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: the buffer is as long as said and lives through the call.
                let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                let Ok(n @ 1..) = usize::try_from(n) else { continue };
                if let Some(packet) = read(&buffer[..n], &mut answered, || time_of_last(&socket)) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
                }
            }
        });
        Self { packets, stop, thread: Some(thread) }
    }

    /// Ends it and gives what it saw.
    pub fn end(mut self) -> Vec<Packet> {
        std::thread::sleep(std::time::Duration::from_millis(300));
        self.halt();
        std::mem::take(&mut *self.packets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Addresses and ports, from the sandbox to the world, and the sequence number behind the one that asked for the connection.
type Answered = HashSet<(Ipv4Addr, u16, Ipv4Addr, u16, u32)>;

/// A packet of a sandbox; an answer to one is only noted.
fn read(frame: &[u8], answered: &mut Answered, at: impl FnOnce() -> Micros) -> Option<Packet> {
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let ip = frame.get(14..)?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let of_sandbox = |address: Ipv4Addr| address.octets()[..2] == [10, 78];
    let (from, to) = (address(12)?, address(16)?);
    if frame.get(12..14)? != [0x08, 0x00] || *ip.get(9)? != 6 {
        return None;
    }
    let tcp = ip.get(usize::from(ip.first()? & 15) * 4..)?;
    let port = |at: usize| Some(u16::from_be_bytes(<[u8; 2]>::try_from(tcp.get(at..at + 2)?).ok()?));
    let number = |at: usize| Some(u32::from_be_bytes(<[u8; 4]>::try_from(tcp.get(at..at + 4)?).ok()?));
    let flags = tcp.get(13)? & (SYN | ACK | RST);
    if of_sandbox(to) && flags == SYN | ACK {
        answered.insert((to, port(2)?, from, port(0)?, number(8)?));
    }
    if !of_sandbox(from) {
        return None;
    }
    let opens = flags & (SYN | ACK) == SYN;
    let again = opens && answered.contains(&(from, port(0)?, to, port(2)?, number(4)?.wrapping_add(1)));
    let length = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let headers = usize::from(ip.first()? & 15) * 4 + usize::from(tcp.get(12)? >> 4) * 4;
    let cuts = length == headers && (flags & RST != 0 || tcp.get(4..12)? == [0; 8]);
    Some(Packet { at: at(), from, to, port: port(2)?, opens, again, cuts })
}

/// When the packet that was read last had arrived.
fn time_of_last(socket: &impl AsRawFd) -> Micros {
    const SIOCGSTAMPNS: libc::c_ulong = 0x8907;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which this request fills.
    unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}
