//! NOTIFY (RFC 1996): a primary says that a zone may have changed. All that it can make us do is ask the primaries sooner.
//!
//! A socket and a task of its own: nothing of it is on a query's path.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::keeper::Shared;
use super::message::{self, Header, TYPE_SOA};
use crate::clock;

const OPCODE: u8 = 4;
/// Longest message that is looked at, octets.
const LARGEST: usize = 4096;

/// Most messages looked at in a second: a primary sends one for each change, and whoever forges its address costs no more than
/// this many hashes.
const MOST_A_SECOND: u32 = 100;

/// Takes messages until the task is ended.
pub(super) async fn listen(socket: UdpSocket, shared: Arc<Shared>) {
    let mut octets = vec![0; LARGEST];
    let mut seen = (0, 0);
    loop {
        let Ok((length, from)) = socket.recv_from(&mut octets).await else {
            // An error of an earlier reply; the socket itself stays good.
            tokio::task::yield_now().await;
            continue;
        };
        let second = clock::now().mono / 1000;
        seen = if seen.0 == second { (second, seen.1 + 1) } else { (second, 1) };
        let reply = (seen.1 <= MOST_A_SECOND).then(|| take(octets.get(..length).unwrap_or_default(), from, &shared));
        let Some(reply) = reply.flatten() else {
            shared.count_refused_notify();
            continue;
        };
        if let Err(error) = socket.send_to(&reply, from).await {
            tracing::debug!(%error, "a NOTIFY was not acknowledged");
        }
    }
}

/// The reply to a message of a zone's primary, which has been told to that zone; nothing to anybody else's.
fn take(octets: &[u8], from: SocketAddr, shared: &Shared) -> Option<Vec<u8>> {
    let header = Header::read(octets)?;
    let (zone, qtype, end) = message::question(octets)?;
    if header.is_response || header.opcode != OPCODE || qtype != TYPE_SOA {
        return None;
    }
    let (key, told) = shared.primary_of(zone.as_ref(), from.ip().to_canonical())?;
    let time = clock::now().wall.shown / 1000;
    let mac = match &key {
        Some(key) => match key.check(octets, time) {
            Ok(mac) => Some(mac),
            Err(error) => {
                tracing::warn!(%error, zone = %zone.as_ref(), "a NOTIFY is not taken");
                return None;
            }
        },
        None => None,
    };
    told.notify_one();
    let mut reply = octets.get(..end)?.to_vec();
    // QR, opcode and AA; one question and nothing else.
    reply.get_mut(2..12)?.copy_from_slice(&[0x84 | OPCODE << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    if let (Some(key), Some(mac)) = (&key, &mac) {
        key.sign(&mut reply, Some(mac), time);
    }
    Some(reply)
}

/// Whether `address` is one of `servers`.
pub(super) fn is_primary(servers: &[SocketAddr], address: IpAddr) -> bool {
    servers.iter().any(|server| server.ip().to_canonical() == address)
}
