//! Stub's side: one exchange over UDP or TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::Message;

/// Sends a datagram, waits for one with its id, reads it.
pub async fn udp(from: Option<IpAddr>, server: SocketAddr, query: &[u8], limit: Duration) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 65_535];
    let read = async {
        loop {
            let n = socket.recv(&mut buffer).await?;
            if n >= 2 && buffer[..2] == query[..2] {
                return Message::decode(&buffer[..n]).ok_or_else(|| io::Error::other("malformed reply"));
            }
        }
    };
    timeout(limit, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends one framed message, reads one.
pub async fn tcp(server: SocketAddr, query: &[u8], limit: Duration) -> io::Result<Message> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let mut framed = (query.len() as u16).to_be_bytes().to_vec();
        framed.extend(query);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await?;
        Message::decode(&reply).ok_or_else(|| io::Error::other("malformed reply"))
    };
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
