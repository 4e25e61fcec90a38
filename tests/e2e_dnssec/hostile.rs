//! An upstream that puts into its answers what nobody asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::dns::{self, put_name, rtype};
use crate::world::{WEB, World};

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// Options a client must never see of an upstream: client subnet, name server id, cookie, keepalive, padding, chain,
/// error, report channel, zone version, one of nobody (the IANA registry).
pub const OPTIONS: [u16; 10] = [8, 3, 10, 11, 12, 13, 15, 18, 19, 65_001];
/// What each of them holds.
pub const SECRET: &[u8] = b"told by the server";

/// Serves `zone`: every name has one address, and every answer an OPT record full of options and a second one. Gives how
/// many questions came.
pub fn serve(world: &World, zone: &str) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = SocketAddr::from((SERVER, 53));
    let socket = world.net.run(async move { tokio::net::UdpSocket::bind(address).await.expect("a free port") });
    world.net.spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = answer(&buffer[..length]) {
                let _ = socket.send_to(&reply, from).await;
            }
        }
    });
    world.upstream.delegate(zone, address);
    asked
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (name, end) = dns::read_name(query, 12)?;
    let mut out = query.get(..end + 4)?.to_vec();
    // A response with RA and AD, one answer, two additional records.
    out[2..4].copy_from_slice(&[0x81, 0xa0]);
    out[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 2]);
    put_name(&mut out, &name);
    out.extend([0, rtype::A as u8, 0, 1, 0, 0, 1, 44, 0, 4]);
    out.extend(WEB.octets());
    for _ in 0..2 {
        out.extend([0, 0, rtype::OPT as u8, 4, 208, 0, 0, 0x80, 0]);
        out.extend(((4 + SECRET.len()) as u16 * OPTIONS.len() as u16).to_be_bytes());
        for code in OPTIONS {
            out.extend(code.to_be_bytes());
            out.extend((SECRET.len() as u16).to_be_bytes());
            out.extend(SECRET);
        }
    }
    Some(out)
}
