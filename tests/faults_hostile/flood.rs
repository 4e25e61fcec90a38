//! A session that sends as fast as one thread can, and what the daemon holds meanwhile.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::world::Agent;
use crate::world::dns::{Query, rtype};
use crate::world::staunch::Staunch;

/// Sends datagrams from a sandbox until the time is up, as fast as one thread can; replies are read and counted by code.
pub fn flood(agent: &Agent, time: Duration, name: impl Fn(usize) -> String + Send) -> (usize, [usize; 16]) {
    let server = SocketAddr::from((agent.gateway, 53));
    agent.ns.blocking(move || {
        // Of several ports, so that no worker of the resolver is left in peace.
        let sockets = [(); 8].map(|()| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(server).expect("connected");
            socket.set_nonblocking(true).expect("option");
            socket
        });
        let (begun, mut sent, mut codes, mut buffer) = (Instant::now(), 0, [0; 16], [0; 2048]);
        while begun.elapsed() < time {
            for socket in sockets.iter().cycle().take(64) {
                let query = Query { id: sent as u16, ..Query::new(&name(sent), rtype::A).edns(1232) };
                sent += usize::from(socket.send(&query.encode()).is_ok());
            }
            for socket in &sockets {
                while let Ok(length) = socket.recv(&mut buffer) {
                    codes[usize::from(buffer[3] & 0xf)] += usize::from(length > 11);
                }
            }
        }
        (sent, codes)
    })
}

/// What the process holds: resident MiB and open descriptors.
pub fn holds(staunch: &Staunch) -> (f64, usize) {
    let pid = staunch.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    (kib / 1024.0, std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count())
}
