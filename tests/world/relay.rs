//! A plain forwarder in the resolver's place: the positive control. It judges nothing and hands every octet on, or all
//! but the case of names.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::{UPSTREAM, World, dns, upstream};

/// Serves every agent's resolver address until the world ends.
pub fn start(world: &World) {
    serve(world, false);
}

/// The same, but names are asked in lower case, as a resolver with one canonical form does.
pub fn start_lower_case(world: &World) {
    serve(world, true);
}

fn serve(world: &World, lower: bool) {
    for agent in &world.agents {
        let address = SocketAddr::from((agent.gateway, 53));
        let (socket, listener) = world.gw.run(async move {
            let socket = UdpSocket::bind(address).await.expect("the resolver's UDP port is free");
            (Arc::new(socket), TcpListener::bind(address).await.expect("the resolver's TCP port is free"))
        });
        world.gw.spawn(serve_udp(socket, lower));
        world.gw.spawn(serve_tcp(listener, lower));
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, lower: bool) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
        let (query, socket) = (buffer[..n].to_vec(), socket.clone());
        tokio::spawn(async move {
            if let Some(reply) = exchange(query, lower).await {
                let _ = socket.send_to(&reply, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, lower: bool) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; length.into()];
                if stream.read_exact(&mut query).await.is_err() {
                    return;
                }
                let Some(reply) = exchange(query, lower).await else { return };
                let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
                framed.extend(reply);
                if stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn exchange(mut query: Vec<u8>, lower: bool) -> Option<Vec<u8>> {
    let (_, end) = dns::read_name(&query, 12)?;
    let asked = query.get(12..end)?.to_vec();
    if lower {
        // Length octets are below `A`, so the whole name can be lowered at once.
        query[12..end].make_ascii_lowercase();
    }
    let mut reply = upstream::relay(&query, (UPSTREAM, 53).into()).await?;
    // The stub compares the question with its own.
    if reply.get(12..end).is_some_and(|name| name.eq_ignore_ascii_case(&asked)) {
        reply[12..end].copy_from_slice(&asked);
    }
    Some(reply)
}
