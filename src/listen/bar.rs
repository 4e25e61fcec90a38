//! A bar before a socket's queue: sources that send more than a worker can even discard are dropped by the kernel, in the time of
//! whoever sends, so that others find room in the queue.
//!
//! [`super::fair`] names the sources once shedding has not helped. The kernel is given a program of a few instructions (classic
//! BPF, which needs no privilege), for [`FIRST`]; then all may come again, and where that is too much at once again, for twice as
//! long as before, [`LONGEST`] at most. So a flood gets a small part of the time, and whoever stops is heard soon.

use std::io;
use std::net::{IpAddr, UdpSocket};

use socket2::{SockFilter, SockRef};

/// How long sources are barred first, milliseconds: about as long as it takes to see that they have not stopped.
const FIRST: u64 = 200;
/// How long they are barred at most, milliseconds.
const LONGEST: u64 = 3_200;
/// Barred again within this time, milliseconds, they are barred for longer.
const AGAIN: u64 = 1_000;
/// Most sources at once: the program is walked through for each datagram.
pub(super) const SOURCES: usize = 16;

/// Offset of the network header for absolute loads (`SKF_NET_OFF`).
const NETWORK: u32 = libc::SKF_NET_OFF as u32;
const LOAD_OCTET: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const SHIFT_RIGHT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One instruction: code, how many to skip where it holds and where it does not, operand.
type Step = (u16, u8, u8, u32);

/// A worker's own.
#[derive(Debug, Default)]
pub(super) struct Bar {
    /// Monotonic milliseconds; 0: nobody is barred.
    until: u64,
    /// For how long the last ones were, and when that ended; milliseconds.
    time: u64,
    lifted: u64,
}

impl Bar {
    /// Whether somebody is barred.
    pub(super) fn is_down(&self) -> bool {
        self.until != 0
    }

    /// Bars these sources from now on; a socket that takes no such program is left as it is.
    ///
    /// # Errors
    /// Where the kernel does not take it.
    pub(super) fn lower(&mut self, socket: &UdpSocket, sources: &[IpAddr], now: u64) -> io::Result<()> {
        let filters: Vec<_> =
            program(sources).into_iter().map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k)).collect();
        SockRef::from(socket).attach_filter(&filters)?;
        self.time = if now < self.lifted + AGAIN { (self.time * 2).clamp(FIRST, LONGEST) } else { FIRST };
        self.until = now + self.time;
        Ok(())
    }

    /// Lets everybody in again once the time is over.
    pub(super) fn lift_in_time(&mut self, socket: &UdpSocket, now: u64) {
        if self.until != 0 && now >= self.until {
            (self.until, self.lifted) = (0, now);
            // Gone already where another worker has the same socket.
            let _ = SockRef::from(socket).detach_filter();
        }
    }
}

/// Drops what these sources send, an IPv6 source with all of its /64; keeps all else, what cannot be read included.
fn program(sources: &[IpAddr]) -> Vec<Step> {
    let v4: Vec<u32> = sources.iter().filter_map(|ip| as_v4(*ip)).take(SOURCES).collect();
    let v6: Vec<[u32; 2]> = sources.iter().filter_map(|ip| as_v6(*ip)).take(SOURCES).collect();
    // Both parts end by keeping; what drops stands at the end of its part.
    let mut steps = vec![(LOAD_OCTET, 0, 0, NETWORK), (SHIFT_RIGHT, 0, 0, 4)];
    // Over the IPv4 part: a load, one step a source, and two returns.
    steps.push((JUMP_IF_EQUAL, 0, v4.len() as u8 + 3, 4));
    steps.push((LOAD_WORD, 0, 0, NETWORK.wrapping_add(12)));
    steps.extend(v4.iter().enumerate().map(|(n, ip)| (JUMP_IF_EQUAL, (v4.len() - n) as u8, 0, *ip)));
    steps.extend([(RETURN, 0, 0, u32::MAX), (RETURN, 0, 0, 0)]);
    for [high, low] in v6 {
        steps.extend([
            (LOAD_WORD, 0, 0, NETWORK.wrapping_add(8)),
            (JUMP_IF_EQUAL, 0, 3, high),
            (LOAD_WORD, 0, 0, NETWORK.wrapping_add(12)),
            (JUMP_IF_EQUAL, 0, 1, low),
            (RETURN, 0, 0, 0),
        ]);
    }
    steps.push((RETURN, 0, 0, u32::MAX));
    steps
}

fn as_v4(source: IpAddr) -> Option<u32> {
    match source.to_canonical() {
        IpAddr::V4(ip) => Some(ip.to_bits()),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(source: IpAddr) -> Option<[u32; 2]> {
    match source.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some([(ip.to_bits() >> 96) as u32, (ip.to_bits() >> 64) as u32]),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;

    fn bound(ip: &str) -> UdpSocket {
        let ip: IpAddr = ip.parse().expect("an address");
        UdpSocket::bind((ip, 0)).expect("a socket")
    }

    /// What arrives of one datagram from each of these addresses, in their order.
    fn arrives(at: &UdpSocket, from: &[&str]) -> Vec<String> {
        at.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        let to = SocketAddr::new(at.local_addr().expect("bound").ip(), at.local_addr().expect("bound").port());
        for source in from {
            bound(source).send_to(source.as_bytes(), to).expect("sent");
        }
        let mut octets = [0; 64];
        let mut next =
            || at.recv(&mut octets).ok().map(|length| String::from_utf8_lossy(&octets[..length]).into_owned());
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn who_is_barred_is_dropped_by_the_kernel_and_nobody_else() {
        let socket = bound("127.0.0.1");
        let all = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
        assert_eq!(arrives(&socket, &all), all);
        let mut bar = Bar::default();
        let barred = ["127.0.0.3", "2001:db8::1", "::ffff:127.0.0.5"].map(|ip| ip.parse().expect("an address"));
        bar.lower(&socket, &barred, 10_000).expect("taken without any privilege");
        assert_eq!(arrives(&socket, &all), ["127.0.0.2", "127.0.0.4"]);
        bar.lift_in_time(&socket, 10_000 + FIRST - 1);
        assert!(bar.is_down());
        assert_eq!(arrives(&socket, &all), ["127.0.0.2", "127.0.0.4"]);
        bar.lift_in_time(&socket, 10_000 + FIRST);
        assert!(!bar.is_down());
        assert_eq!(arrives(&socket, &all), all);
        // As many as there may be, at either end of the table.
        let many: Vec<IpAddr> = (2..18).map(|n| Ipv4Addr::new(127, 0, 0, n).into()).collect();
        assert_eq!(many.len(), SOURCES);
        bar.lower(&socket, &many, 10_000 + 2 * FIRST).expect("taken");
        assert_eq!(arrives(&socket, &["127.0.0.2", "127.0.0.17", "127.0.0.18"]), ["127.0.0.18"]);
        // Soon again and again: longer each time, and from the start where it was long ago.
        let mut times = Vec::new();
        for _ in 0..6 {
            times.push(bar.time);
            let over = bar.until;
            bar.lift_in_time(&socket, over);
            bar.lower(&socket, &many, over + 10).expect("taken");
        }
        assert_eq!(times, [2 * FIRST, 4 * FIRST, 8 * FIRST, LONGEST, LONGEST, LONGEST]);
        let over = bar.until;
        bar.lift_in_time(&socket, over);
        bar.lower(&socket, &many, over + AGAIN).expect("taken");
        assert_eq!(bar.time, FIRST);
    }

    #[test]
    fn an_ipv6_source_is_barred_with_its_network() {
        let Ok(socket) = UdpSocket::bind("[::1]:0") else { return println!("SKIPPED: no IPv6 on this machine") };
        let mut bar = Bar::default();
        let lower = |bar: &mut Bar, ip: &str| bar.lower(&socket, &[ip.parse().expect("an address")], 1).expect("taken");
        lower(&mut bar, "2001:db8::1");
        assert_eq!(arrives(&socket, &["::1"]), ["::1"]);
        lower(&mut bar, "::2");
        assert!(arrives(&socket, &["::1"]).is_empty(), "the same /64");
        let v4_alone = program(&[Ipv4Addr::LOCALHOST.into()]);
        assert_eq!(v4_alone.last(), Some(&(RETURN, 0, 0, u32::MAX)), "without a source of IPv6 all of it is kept");
    }
}
