//! One try at one upstream: a datagram on a socket of its own, TCP where that is called for.
//!
//! The socket is fresh for every datagram sent, bound to port 0 (Linux picks among the ephemeral ports at random) and
//! connected, so that only the upstream's address and port get through; with the id that is about 31 bits a forger has
//! to guess. Ids come from the kernel's generator.
//!
//! Too many datagrams that do not fit turn the question to TCP, and for a minute all questions to that upstream; if TCP is
//! of no use there, each question begins over UDP again, so that a flood never costs more than the questions it meets.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::query::{Ask, Fit, Query};
use super::{Counters, FailKind, Response, Server};
use crate::answer::well_formed;

/// Datagrams that do not fit before the question goes over TCP, where guessing is hopeless.
const MAX_MISMATCHES: u32 = 20;
/// Largest datagram taken. Above anything we advertise, so that a longer one shows as mangled, not as cut.
const MAX_DATAGRAM: usize = 4096;

/// One try.
pub(super) struct Try<'c> {
    /// Whom to ask.
    pub(super) server: &'c Server,
    /// UDP payload to advertise.
    pub(super) payload: u16,
    /// Time of a turn to TCP.
    pub(super) time: Duration,
    /// When this try is over.
    pub(super) end: Instant,
    pub(super) counters: &'c Counters,
}

/// What a datagram exchange led to.
enum Datagram {
    /// A response and its code.
    Got(Vec<u8>, u8),
    /// To be asked over TCP.
    TurnToTcp,
}

impl Try<'_> {
    /// Asks. `noise` is told of the first datagram that does not fit.
    pub(super) async fn run(&self, ask: &Ask, noise: &Notify) -> Result<Response, FailKind> {
        let begun = Instant::now();
        let mut payload = Some(self.payload);
        loop {
            let got = if self.server.health.wants_tcp(Instant::now()) {
                Counters::add(&self.counters.flood_tcp);
                Datagram::TurnToTcp
            } else {
                match timeout_at(self.end, self.datagram(ask, payload, noise)).await {
                    Ok(got) => got?,
                    Err(_) => return Err(FailKind::Timeout),
                }
            };
            let (wire, rcode, tcp) = match got {
                Datagram::Got(wire, rcode) => (wire, rcode, false),
                Datagram::TurnToTcp => {
                    let end = (Instant::now() + self.time).min(self.end);
                    let mut connected = false;
                    let talk = self.stream(ask, payload, &mut connected);
                    let got = timeout_at(end, talk).await.unwrap_or(Err(FailKind::Timeout));
                    // A name that is slow says nothing of TCP.
                    if matches!(got, Err(kind) if kind != FailKind::Timeout || !connected) {
                        self.server.health.without_tcp();
                    }
                    let (wire, rcode) = got?;
                    (wire, rcode, true)
                }
            };
            // A server without EDNS says FORMERR (RFC 6891 section 7). Not remembered: a forged one must not cost more
            // than this one question.
            if rcode == 1 && payload.take().is_some() {
                Counters::add(&self.counters.without_edns);
                continue;
            }
            return match rcode {
                0 | 3 if well_formed(&wire) => {
                    Ok(Response { wire, upstream: self.server.addr, rtt: begun.elapsed(), tcp })
                }
                0 | 3 => Err(FailKind::Mangled),
                1 => Err(FailKind::FormErr),
                2 => Err(FailKind::ServFail),
                5 => Err(FailKind::Refused),
                _ => Err(FailKind::BadRcode),
            };
        }
    }

    async fn datagram(&self, ask: &Ask, payload: Option<u16>, noise: &Notify) -> Result<Datagram, FailKind> {
        let query = Query::write(ask, random_id()?, payload);
        let any: SocketAddr = match self.server.addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.map_err(|_| FailKind::Local)?;
        socket.connect(self.server.addr).await.map_err(|e| kind_of(&e))?;
        socket.send(query.octets()).await.map_err(|e| kind_of(&e))?;
        Counters::add(&self.counters.udp_queries);
        let mut octets = Vec::with_capacity(MAX_DATAGRAM);
        let mut mismatches = 0;
        loop {
            octets.clear();
            socket.recv_buf(&mut octets).await.map_err(|e| kind_of(&e))?;
            let fit = query.fit(&octets);
            if fit != Fit::Foreign {
                self.server.health.heard(Instant::now());
            }
            match fit {
                Fit::Ours { truncated: true, .. } => {
                    Counters::add(&self.counters.truncated);
                    return Ok(Datagram::TurnToTcp);
                }
                Fit::Ours { rcode, .. } => return Ok(Datagram::Got(octets, rcode)),
                Fit::Foreign => {
                    Counters::add(&self.counters.mismatches);
                    mismatches += 1;
                    if mismatches == 1 {
                        noise.notify_one();
                    }
                    if mismatches >= MAX_MISMATCHES {
                        Counters::add(&self.counters.mismatch_floods);
                        self.server.health.flooded(Instant::now());
                        return Ok(Datagram::TurnToTcp);
                    }
                }
            }
        }
    }

    /// One question on a connection of its own (RFC 7766 section 8).
    async fn stream(&self, ask: &Ask, payload: Option<u16>, connected: &mut bool) -> Result<(Vec<u8>, u8), FailKind> {
        let query = Query::write(ask, random_id()?, payload);
        let mut stream = TcpStream::connect(self.server.addr).await.map_err(|e| kind_of(&e))?;
        *connected = true;
        let mut framed = Vec::with_capacity(2 + query.octets().len());
        framed.extend_from_slice(&(query.octets().len() as u16).to_be_bytes());
        framed.extend_from_slice(query.octets());
        stream.write_all(&framed).await.map_err(|_| FailKind::Broken)?;
        Counters::add(&self.counters.tcp_queries);
        let len = stream.read_u16().await.map_err(|_| FailKind::Broken)?;
        let mut octets = vec![0; usize::from(len)];
        stream.read_exact(&mut octets).await.map_err(|_| FailKind::Broken)?;
        self.server.health.heard(Instant::now());
        match query.fit(&octets) {
            Fit::Ours { rcode, truncated: false } => Ok((octets, rcode)),
            _ => Err(FailKind::Mangled),
        }
    }
}

fn random_id() -> Result<u16, FailKind> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|_| FailKind::Local)?;
    Ok(u16::from_be_bytes(id))
}

/// Whether an error speaks of the upstream or of us.
fn kind_of(error: &io::Error) -> FailKind {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::PermissionDenied
        | ErrorKind::TimedOut => FailKind::Unreachable,
        _ => FailKind::Local,
    }
}
