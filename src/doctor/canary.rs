//! A host outside that answers probes: where one that works must arrive, and one that is answered has got out.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Ports that probes go to.
pub const PORTS: [u16; 7] = [53, 137, 443, 853, 5353, 5355, 9000];
/// Connections answered at once; more are closed.
const CONNECTIONS: u32 = 64;
/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of a datagram or connection that are answered with themselves. No answer is longer than what it answers, so that
/// nobody is flooded by it in another's name.
const ECHO: usize = 1500;

/// Serves these addresses on every port of [`PORTS`] that can be had, until the process ends. `tell` hears of each that cannot,
/// and once of how many are served.
///
/// # Errors
///
/// Where not a single port can be had.
pub fn serve(addresses: &[IpAddr], tell: impl Fn(&str)) -> io::Result<()> {
    let mut threads = Vec::new();
    let open = Arc::new(AtomicU32::new(0));
    for at in addresses.iter().flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port))) {
        match UdpSocket::bind(at) {
            Ok(socket) => threads.push(std::thread::spawn(move || datagrams(&socket))),
            Err(error) => tell(&format!("{at} over UDP: {error}")),
        }
        match TcpListener::bind(at) {
            Ok(listener) => {
                let open = open.clone();
                threads.push(std::thread::spawn(move || connections(&listener, &open)));
            }
            Err(error) => tell(&format!("{at} over TCP: {error}")),
        }
    }
    if threads.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "not a single port could be had"));
    }
    tell(&format!("answering probes on {} sockets", threads.len()));
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn datagrams(socket: &UdpSocket) {
    let mut buffer = [0; ECHO];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn connections(listener: &TcpListener, open: &Arc<AtomicU32>) {
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Relaxed) >= CONNECTIONS {
            open.fetch_sub(1, Relaxed);
            continue;
        }
        let open = open.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; ECHO];
            let echo = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read(&mut buffer));
            if let Ok(length) = echo {
                let _ = stream.write_all(&buffer[..length]);
            }
            open.fetch_sub(1, Relaxed);
        });
    }
}
