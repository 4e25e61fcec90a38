//! NOTIFY (RFC 1996): a primary says that a zone may have changed. All that it can make us do is ask the primaries sooner.
//!
//! Sockets and tasks of its own: nothing of it is on a query's path. A connection is kept for primaries alone, and for few at
//! once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Primary;
use super::keeper::Shared;
use super::message::{self, Header, TYPE_SOA};
use crate::clock;

const OPCODE: u8 = 4;
/// Longest message that is looked at, octets.
const LARGEST: usize = 4096;

/// Connections of primaries at once; beyond them one is closed as soon as it is there, and the primary asks again.
const CONNECTIONS: usize = 16;
/// Time for the next message of a connection, and for its reply.
const MESSAGE: Duration = Duration::from_secs(5);
/// Pause where a connection cannot be taken (no descriptor is free).
const PAUSE: Duration = Duration::from_millis(100);

/// Most messages of one primary that are looked at in a second, over both transports: it sends one for each change, and whoever
/// forges its address costs no more than this many hashes, and takes nothing from another primary.
const MOST_A_SECOND: u32 = 100;

/// Takes messages until the task is ended.
pub(super) async fn listen(socket: UdpSocket, shared: Arc<Shared>) {
    let mut octets = vec![0; LARGEST];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut octets).await else {
            // An error of an earlier reply; the socket itself stays good.
            tokio::task::yield_now().await;
            continue;
        };
        let Some(reply) = take(octets.get(..length).unwrap_or_default(), from, &shared) else {
            shared.count_refused_notify();
            continue;
        };
        if let Err(error) = socket.send_to(&reply, from).await {
            tracing::debug!(%error, "a NOTIFY was not acknowledged");
        }
    }
}

/// Takes connections until the task is ended.
pub(super) async fn listen_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let known = shared.has_primary(from.ip().to_canonical());
        let Some(place) = known.then(|| places.clone().try_acquire_owned().ok()).flatten() else {
            shared.count_refused_notify();
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            if let Err(error) = hear(stream, from, &shared).await {
                tracing::debug!(%error, %from, "a connection for NOTIFY ended");
            }
            drop(place);
        });
    }
}

/// Takes messages of one connection until it is closed, silent, or says something that is not taken.
async fn hear(mut stream: TcpStream, from: SocketAddr, shared: &Shared) -> std::io::Result<()> {
    let mut octets = Vec::new();
    loop {
        let message = async {
            let length = usize::from(stream.read_u16().await?);
            if length > LARGEST {
                return Err(std::io::Error::other("a message is too long"));
            }
            octets.resize(length, 0);
            stream.read_exact(&mut octets).await.map(drop)
        };
        match timeout(MESSAGE, message).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(read) => read?,
            Err(_) => return Ok(()),
        }
        let Some(reply) = take(&octets, from, shared) else {
            shared.count_refused_notify();
            return Ok(());
        };
        let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
        timeout(MESSAGE, stream.write_all(&[&length.to_be_bytes(), &reply[..]].concat())).await??;
    }
}

/// The reply to a message of a zone's primary, which has been told to that zone; nothing to anybody else's, and nothing where
/// this primary has had its messages of this second.
fn take(octets: &[u8], from: SocketAddr, shared: &Shared) -> Option<Vec<u8>> {
    let header = Header::read(octets)?;
    let (zone, qtype, end) = message::question(octets)?;
    if header.is_response || header.opcode != OPCODE || qtype != TYPE_SOA {
        return None;
    }
    let address = from.ip().to_canonical();
    let (key, bell) = shared.primary_of(zone.as_ref(), address)?;
    // What is nobody's costs no primary anything.
    if shared.heard_in(clock::now().mono / 1000, address) > MOST_A_SECOND {
        return None;
    }
    let time = clock::now().wall.shown / 1000;
    let mac = match &key {
        Some(key) => match key.check(octets, time) {
            Ok(mac) => Some(mac),
            Err(error) => {
                // Whoever forges a primary's address can send any number of them.
                if let Some(kept_back) = shared.untaken.turn(clock::now().mono) {
                    tracing::warn!(%error, zone = %zone.as_ref(), kept_back, "a NOTIFY is not taken");
                }
                return None;
            }
        },
        None => None,
    };
    bell.ring(address);
    let mut reply = octets.get(..end)?.to_vec();
    // QR, opcode and AA; one question and nothing else.
    reply.get_mut(2..12)?.copy_from_slice(&[0x84 | OPCODE << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    if let (Some(key), Some(mac)) = (&key, &mac) {
        key.sign(&mut reply, Some(mac), time);
    }
    Some(reply)
}

/// Whether `address` is one of `servers`.
pub(super) fn is_primary(servers: &[Primary], address: IpAddr) -> bool {
    servers.iter().any(|server| server.address.ip().to_canonical() == address)
}

/// Says to a zone's task that its primaries are to be asked.
#[derive(Default)]
pub(super) struct Bell {
    rung: Notify,
    /// Who said so last.
    by: Mutex<Option<IpAddr>>,
}

impl Bell {
    pub(super) fn ring(&self, by: IpAddr) {
        *self.by.lock() = Some(by);
        self.rung.notify_one();
    }

    /// Waits until it is rung.
    pub(super) async fn heard(&self) {
        self.rung.notified().await;
    }

    /// Who has rung since this was asked last.
    pub(super) fn take_by(&self) -> Option<IpAddr> {
        self.by.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::transfer::zone_for_test::{primaries, zone};
    use crate::transfer::{Algorithm, Keeper, Primaries, TsigKey};

    /// Counts what is logged.
    struct Logged(Arc<AtomicUsize>);

    impl tracing::Subscriber for Logged {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.is_event()
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn what_is_not_signed_as_it_must_be_is_told_once_a_minute() {
        let dir = tempfile::tempdir().expect("directory");
        let keeper = Keeper::new(dir.path());
        let key = |secret: &[u8]| {
            let name = staunch_scoring::NameBuf::from_text("key.example").expect("a name");
            TsigKey::new(name, Algorithm::HmacSha256, secret.to_vec())
        };
        let server = Primary { address: "192.0.2.1:53".parse().expect("an address"), tls: None };
        let signed = Primaries { tsig: Some(key(b"ours")), ..primaries(vec![server]) };
        keeper.configure(&[zone(signed)], |_| ());
        let bare = [&[0, 9, 0x24, 0, 0, 1, 0, 0, 0, 0, 0, 0], &b"\x03rpz\x04test\0\0\x06\0\x01"[..]].concat();
        let mut other = bare.clone();
        key(b"another's").sign(&mut other, None, clock::now().wall.shown / 1000);
        let mut good = bare.clone();
        key(b"ours").sign(&mut good, None, clock::now().wall.shown / 1000);
        let from = "192.0.2.1:5300".parse().expect("an address");
        let count = Arc::<AtomicUsize>::default();
        tracing::subscriber::with_default(Logged(count.clone()), || {
            for message in [&bare, &other].into_iter().cycle().take(40) {
                assert!(take(message, from, &keeper.shared).is_none());
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(take(&good, from, &keeper.shared).is_some());
    }

    #[test]
    fn what_is_no_primarys_takes_no_primarys_place() {
        let dir = tempfile::tempdir().expect("directory");
        let keeper = Keeper::new(dir.path());
        let server = |address: &str| Primary { address: address.parse().expect("an address"), tls: None };
        keeper.configure(&[zone(primaries(vec![server("192.0.2.1:53"), server("192.0.2.2:53")]))], |_| ());
        let message = [&[0, 9, 0x24, 0, 0, 1, 0, 0, 0, 0, 0, 0], &b"\x03rpz\x04test\0\0\x06\0\x01"[..]].concat();
        let from = |address: &str| SocketAddr::new(address.parse().expect("an address"), 5300);
        let taken = |octets: &[u8], address| take(octets, from(address), &keeper.shared).is_some();
        for _ in 0..1000 {
            assert!(!taken(&[0], "192.0.2.9") && !taken(&[0], "192.0.2.1") && !taken(&message, "192.0.2.9"));
        }
        assert!(taken(&message, "192.0.2.1"));
        // One that says too much hushes no other. Its second may end meanwhile, once or twice.
        let count = (0..1000).filter(|_| taken(&message, "192.0.2.1")).count();
        assert!((99..=300).contains(&count), "{count}");
        assert!(taken(&message, "192.0.2.2"));
    }
}
