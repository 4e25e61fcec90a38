//! Servers that answer whoever gets through to them, and clients that say how long it took to hear anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::ns::Ns;

/// What a server says.
pub const GREETING: &[u8] = b"reached";

/// Longest wait for an answer or a refusal.
const PATIENCE: Duration = Duration::from_secs(4);

/// Serves TCP and UDP at this address.
pub fn start(ns: &Ns, address: SocketAddr) {
    let (socket, listener) = ns.run(async move {
        let socket = UdpSocket::bind(address).await.expect("the UDP port is free");
        (Arc::new(socket), TcpListener::bind(address).await.expect("the TCP port is free"))
    });
    ns.spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let Ok((_, from)) = socket.recv_from(&mut buffer).await else { continue };
            let _ = socket.send_to(GREETING, from).await;
        }
    });
    ns.spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            let _ = stream.write_all(GREETING).await;
        }
    });
}

/// Sends a datagram; the answer, or how it was refused, and when.
pub fn udp(ns: &Ns, to: SocketAddr) -> (io::Result<Vec<u8>>, Duration) {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let started = Instant::now();
    let end = ns.run(async move {
        let exchange = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(to).await?;
            socket.send(b"anybody there?").await?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer).await?;
            Ok(buffer[..length].to_vec())
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    });
    (end, started.elapsed())
}

/// Dials; whether it was taken, or how it was refused, and when.
pub fn tcp(ns: &Ns, to: SocketAddr) -> (io::Result<Vec<u8>>, Duration) {
    let started = Instant::now();
    let end = ns.run(async move {
        match timeout(PATIENCE, TcpStream::connect(to)).await {
            Ok(end) => end.map(|_| GREETING.to_vec()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    });
    (end, started.elapsed())
}
