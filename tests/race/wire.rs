//! What came out of the sandboxes, with the kernel's own time of each packet.

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
    /// It opens a connection.
    pub opens: bool,
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
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: the buffer is as long as said and lives through the call.
                let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                let Ok(n @ 1..) = usize::try_from(n) else { continue };
                if let Some(packet) = read(&buffer[..n], || time_of_last(&socket)) {
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

fn read(frame: &[u8], at: impl FnOnce() -> Micros) -> Option<Packet> {
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let ip = frame.get(14..)?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let from = address(12)?;
    if frame.get(12..14)? != [0x08, 0x00] || *ip.get(9)? != 6 || from.octets()[..2] != [10, 78] {
        return None;
    }
    let tcp = ip.get(usize::from(ip.first()? & 15) * 4..)?;
    let port = u16::from_be_bytes([*tcp.get(2)?, *tcp.get(3)?]);
    let flags = tcp.get(13)?;
    let opens = flags & (SYN | ACK) == SYN;
    let length = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let headers = usize::from(ip.first()? & 15) * 4 + usize::from(tcp.get(12)? >> 4) * 4;
    let cuts = length == headers && (flags & RST != 0 || tcp.get(4..12)? == [0; 8]);
    Some(Packet { at: at(), from, to: address(16)?, port, opens, cuts })
}

/// When the packet that was read last had arrived.
fn time_of_last(socket: &impl AsRawFd) -> Micros {
    const SIOCGSTAMPNS: libc::c_ulong = 0x8907;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which this request fills.
    unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}
