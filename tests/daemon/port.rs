//! Ports that a test names beforehand, because somebody else has to be told of them.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below all that the kernel draws by itself (32768 and up, where nobody has changed that): a port that is released between its
/// choice and its use stays free, since no connection and no socket of another test is given it meanwhile.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of the loopback addresses that nobody has and that this program has not given out before.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Programs that run beside each other begin at different places.
    let first = (std::process::id() % 240) as u16 * 50;
    (0..COUNT)
        .map(|_| FIRST + (first + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
