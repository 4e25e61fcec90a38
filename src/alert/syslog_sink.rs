//! The syslog sink: datagrams, or a connection whose peer must have acknowledged a message before it counts.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Sink, SyslogTarget, syslog};
use crate::event::Alert;
use crate::outbound::{HostResolver, Reach, addresses};

/// For connecting, for sending, and for the peer's acknowledgement.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct SyslogSink {
    target: SyslogTarget,
    hostname: String,
    resolver: Option<Arc<dyn HostResolver>>,
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

impl SyslogSink {
    pub(super) fn new(target: SyslogTarget, hostname: String, resolver: Option<Arc<dyn HostResolver>>) -> Self {
        Self { target, hostname, resolver, socket: None }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.target {
            SyslogTarget::Unix { path } => unix(path).map(Socket::Unix),
            SyslogTarget::Udp { host, port } => self.first_of(host, *port, udp).map(Socket::Udp),
            SyslogTarget::Tcp { host, port } => self.first_of(host, *port, tcp).map(Socket::Tcp),
        }
    }

    /// The first address that works.
    fn first_of<T>(&self, host: &str, port: u16, connect: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses(host, port, self.resolver.as_deref(), Reach::Written)? {
            match connect(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Sink for SyslogSink {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let message = syslog::format(alert, &self.hostname);
        let socket = match self.socket.take() {
            // A connection that the peer has closed would swallow the message.
            Some(Socket::Tcp(stream)) if !is_open(&stream) => self.connect()?,
            Some(socket) => socket,
            None => self.connect()?,
        };
        send(&socket, message.as_bytes())?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn unix(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket)
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn send(socket: &Socket, message: &[u8]) -> io::Result<()> {
    match socket {
        Socket::Unix(socket) => socket.send(message).map(drop),
        Socket::Udp(socket) => {
            socket.send(message)?;
            // Where nobody listens the host says so; on the same machine at once, else with the next message.
            socket.take_error()?.map_or(Ok(()), Err)
        }
        Socket::Tcp(stream) => {
            let mut frame = format!("{} ", message.len()).into_bytes();
            frame.extend_from_slice(message);
            (&*stream).write_all(&frame)?;
            acknowledged(stream)
        }
    }
}

/// Waits until the peer's kernel has acknowledged everything and still holds the connection. Without this, messages
/// written into a dead connection would count as delivered until the buffer is full.
fn acknowledged(stream: &TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut pause = Duration::from_micros(50);
    while unacknowledged(stream)? > 0 {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not acknowledge"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    if is_open(stream) { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
}

/// Octets sent and not acknowledged by the peer.
fn unacknowledged(stream: &TcpStream) -> io::Result<libc::c_int> {
    let mut octets: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and TIOCOUTQ (which is SIOCOUTQ on a socket)
    // writes one int to the address given, which is `octets`.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(octets) }
}

/// False once the peer has closed or reset the connection. Whatever it sends is not read.
fn is_open(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let peeked = stream.peek(&mut [0]);
    let restored = stream.set_nonblocking(false).is_ok();
    restored
        && match peeked {
            Ok(octets) => octets > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
}
