//! One question for a name that is at hand, over and over: as fast as it is answered, and as fast as it can be sent.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::world::Agent;
use crate::world::dns::{Query, rtype};

/// Answers within a time to one stub that always has a few questions under way, for a name that is at hand.
pub fn closed_loop(agent: &Agent, time: Duration) -> usize {
    let server = SocketAddr::from((agent.gateway, 53));
    agent.ns.blocking(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect(server).expect("connected");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("option");
        let packet = Query::new("www.site.example", rtype::A).edns(1232).encode();
        let (begun, mut answered, mut buffer) = (Instant::now(), 0, [0; 2048]);
        (0..48).for_each(|_| _ = socket.send(&packet));
        while begun.elapsed() < time {
            answered += usize::from(socket.recv(&mut buffer).is_ok());
            let _ = socket.send(&packet);
        }
        answered
    })
}

/// Sends that name's question over and over, as fast as one thread can: how many left, and how many were answered.
pub fn replayed(agent: &Agent, time: Duration) -> (usize, usize) {
    let server = SocketAddr::from((agent.gateway, 53));
    let packet = Query::new("www.site.example", rtype::A).edns(1232).encode();
    agent.ns.blocking(move || {
        let sockets = [(); 8].map(|()| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(server).expect("connected");
            socket.set_nonblocking(true).expect("option");
            socket
        });
        let (begun, mut sent, mut answered, mut buffer) = (Instant::now(), 0, 0, [0; 2048]);
        while begun.elapsed() < time {
            for socket in sockets.iter().cycle().take(256) {
                sent += usize::from(socket.send(&packet).is_ok());
            }
            for socket in &sockets {
                while socket.recv(&mut buffer).is_ok() {
                    answered += usize::from(buffer[3] & 0xf == 0);
                }
            }
        }
        (sent, answered)
    })
}
