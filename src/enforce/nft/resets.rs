//! Ends TCP flows from the side that is silent.
//!
//! A refused packet is answered with a reset, but a client that only reads sends no packet of its own and would hang
//! until its patience ends. So both ends are asked for one: a segment that pretends to come from the other end, with a
//! sequence number out of any window, must be answered with an acknowledgement (RFC 9293 section 3.10.7.4), which meets
//! the rules and is answered with the reset.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::checksum;

/// Mark of these segments; the table's `untracked` chain keeps connection tracking from taking one for a new flow.
pub(super) const MARK: u32 = 0x5354_4e48;

/// One end as the other end sees it, and the other end.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Raw sockets of both families, where they could be had.
#[derive(Debug)]
pub(super) struct Resets {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Resets {
    /// Opens sockets in the calling thread's network namespace. Needs `CAP_NET_RAW`; without it, silent ends learn of
    /// their flow's end from their next packet only.
    pub(super) fn open() -> Self {
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW.cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_mark(MARK)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let (v4, v6) = (open(Domain::IPV4), open(Domain::IPV6));
        if let Err(error) = &v4 {
            tracing::info!(%error, "no raw socket: silent ends of flows that are cut are not told");
        }
        Self { v4: v4.ok(), v6: v6.ok() }
    }

    /// Asks `to` for a sign of life, as if from `from`. Best effort.
    pub(super) fn ask(&self, (from, to): Ends) {
        let segment = segment(from, to);
        let (socket, packet) = match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // Version and length, total length, no fragments, TTL 64; the kernel fills in id and checksum.
                let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, libc::IPPROTO_TCP as u8, 0, 0];
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet.extend_from_slice(&segment);
                (&self.v4, packet)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0x60, 0, 0, 0, 0, 20, libc::IPPROTO_TCP as u8, 64];
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet.extend_from_slice(&segment);
                (&self.v6, packet)
            }
            _ => return,
        };
        if let Some(socket) = socket {
            // Raw sockets take no port.
            let _ = socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into());
        }
    }
}

/// A TCP header with FIN and ACK, sequence and acknowledgement number 0 (RFC 9293 section 3.1).
///
/// FIN, because Linux answers a segment that takes no sequence space at most twice a second, and may just have done so.
/// Should 0 lie within the window, the FIN waits there for octets that never come: it carries none itself.
fn segment(from: SocketAddr, to: SocketAddr) -> [u8; 20] {
    const FIN_ACK: u8 = 0x11;
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = FIN_ACK;
    let mut pseudo = Vec::with_capacity(56);
    for address in [from.ip(), to.ip()] {
        match address {
            IpAddr::V4(v4) => pseudo.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => pseudo.extend_from_slice(&v6.octets()),
        }
    }
    pseudo.extend_from_slice(&[0, libc::IPPROTO_TCP as u8, 0, segment.len() as u8]);
    pseudo.extend_from_slice(&segment);
    segment[16..18].copy_from_slice(&checksum::internet(&pseudo).to_be_bytes());
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_sums_to_zero_with_its_pseudo_header() {
        for (from, to) in [("192.0.2.1:80", "10.77.1.2:40001"), ("[2001:db8::1]:443", "[2001:db8:1::2]:50505")] {
            let (from, to): Ends = (from.parse().expect("address"), to.parse().expect("address"));
            let mut whole = Vec::new();
            for ip in [from.ip(), to.ip()] {
                match ip {
                    IpAddr::V4(v4) => whole.extend_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => whole.extend_from_slice(&v6.octets()),
                }
            }
            whole.extend_from_slice(&[0, 6, 0, 20]);
            whole.extend_from_slice(&segment(from, to));
            assert_eq!(checksum::internet(&whole), 0);
        }
    }
}
