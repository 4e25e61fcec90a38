//! A question to our own listening sockets: the node's token, over both transports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::enforce::{host_addresses, is_link_local};
use crate::local::token::Token;
use crate::probe;

/// For one exchange; a machine under load answers late, and a datagram may be lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Datagrams sent before an address counts as silent.
const TRIES: u32 = 2;

/// Asks each address over UDP and TCP; gives those that did not prove to be this node, in words, and how many were asked. One that
/// stands for all of a family of which this host has none is nobody's to ask.
pub async fn all(addresses: &[SocketAddr], token: &Token) -> (Vec<String>, usize) {
    let own = host_addresses().unwrap_or_else(|_| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    let listening = addresses;
    let addresses: Vec<(&SocketAddr, SocketAddr)> =
        listening.iter().filter_map(|address| Some((address, reachable(*address, &own)?))).collect();
    if addresses.is_empty() {
        let words = |address: &SocketAddr| format!("{address} (this host has no address of its family)");
        return (listening.iter().map(words).collect(), 2 * listening.len());
    }
    let mut asked = tokio::task::JoinSet::new();
    for (at, (_, to)) in addresses.iter().enumerate() {
        for tcp in [false, true] {
            // Without chance there is no nonce, and nobody is asked.
            let Ok(nonce) = probe::nonce() else { continue };
            let (wanted, to) = (token.text(nonce.as_bytes()), *to);
            asked.spawn(async move { ((at, tcp), one(to, tcp, &nonce, &wanted).await) });
        }
    }
    let mut good = std::collections::HashSet::new();
    while let Some(done) = asked.join_next().await {
        if let Ok((which, true)) = done {
            good.insert(which);
        }
    }
    let each = addresses.iter().enumerate().flat_map(|(at, (address, _))| [(at, false, address), (at, true, address)]);
    let silent = each.filter(|(at, tcp, _)| !good.contains(&(*at, *tcp)));
    let words = |(_, tcp, address)| format!("{address} over {}", if tcp { "TCP" } else { "UDP" });
    (silent.map(words).collect(), 2 * addresses.len())
}

/// Where an address can be reached from here: one that stands for all by the loopback address of its family, or by another
/// of the host's `own`.
fn reachable(address: SocketAddr, own: &[IpAddr]) -> Option<SocketAddr> {
    if !address.ip().is_unspecified() {
        return Some(address);
    }
    let mut family = own.iter().filter(|own| own.is_ipv4() == address.is_ipv4() && !is_link_local(**own));
    let loopback = family.clone().find(|own| own.is_loopback());
    loopback.or_else(|| family.next()).map(|own| SocketAddr::new(*own, address.port()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_is_asked_where_the_host_has_one() {
        let own = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("address")).collect::<Vec<IpAddr>>();
        let whole = ["10.77.1.1", "127.0.0.1", "::1", "fd77::1"];
        for (listen, own_addresses, asked) in [
            ("10.77.1.1:53", &whole[..], Some("10.77.1.1:53")),
            ("0.0.0.0:53", &whole, Some("127.0.0.1:53")),
            ("[::]:53", &whole, Some("[::1]:53")),
            ("[::]:53", &["127.0.0.1", "fe80::1", "fd77::1"], Some("[fd77::1]:53")),
            ("[::]:53", &["127.0.0.1", "10.77.1.1", "fe80::1"], None),
            ("0.0.0.0:53", &["::1"], None),
        ] {
            let asked = asked.map(|asked| asked.parse().expect("address"));
            assert_eq!(reachable(listen.parse().expect("address"), &own(own_addresses)), asked, "{listen}");
        }
    }
}
