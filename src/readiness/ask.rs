//! A question to our own listening sockets: the node's token, over both transports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::local::token::Token;
use crate::probe;

/// For one exchange; a machine under load answers late, and a datagram may be lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Datagrams sent before an address counts as silent.
const TRIES: u32 = 2;

/// Asks each address over UDP and TCP; gives those that did not prove to be this node, in words, and how many were asked.
pub async fn all(addresses: &[SocketAddr], token: &Token) -> (Vec<String>, usize) {
    let mut asked = tokio::task::JoinSet::new();
    for (at, address) in addresses.iter().enumerate() {
        for tcp in [false, true] {
            // Without chance there is no nonce, and nobody is asked.
            let Ok(nonce) = probe::nonce() else { continue };
            let (wanted, to) = (token.text(nonce.as_bytes()), reachable(*address));
            asked.spawn(async move { ((at, tcp), one(to, tcp, &nonce, &wanted).await) });
        }
    }
    let mut good = std::collections::HashSet::new();
    while let Some(done) = asked.join_next().await {
        if let Ok((which, true)) = done {
            good.insert(which);
        }
    }
    let each = addresses.iter().enumerate().flat_map(|(at, address)| [(at, false, address), (at, true, address)]);
    let silent = each.filter(|(at, tcp, _)| !good.contains(&(*at, *tcp)));
    let words = |(_, tcp, address)| format!("{address} over {}", if tcp { "TCP" } else { "UDP" });
    (silent.map(words).collect(), 2 * addresses.len())
}

/// Where an address that stands for all can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return address,
    };
    SocketAddr::new(ip, address.port())
}

async fn one(to: SocketAddr, tcp: bool, nonce: &str, wanted: &str) -> bool {
    for _ in 0..if tcp { 1 } else { TRIES } {
        let query = probe::question(nonce);
        let exchange = async {
            match tcp {
                true => over_tcp(to, &query).await,
                false => over_udp(to, &query).await,
            }
        };
        let reply = tokio::time::timeout(PATIENCE, exchange).await;
        if let Ok(Ok(reply)) = reply
            && probe::text_of(&reply, &query).is_some_and(|text| text == wanted)
        {
            return true;
        }
    }
    false
}

async fn over_udp(to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 1232];
    let length = socket.recv(&mut buffer).await?;
    buffer.truncate(length);
    Ok(buffer)
}

async fn over_tcp(to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(&probe::framed(query)).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}
