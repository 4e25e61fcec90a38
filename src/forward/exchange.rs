//! One try at one upstream: a datagram from a port of its own, or a place on a connection.
//!
//! Each datagram leaves from a port of its own ([`super::port`]): with the id that is about 31 bits a forger has to guess,
//! and where the upstream keeps letter case or has cookies ([`super::manner`]) as many more.
//!
//! Too many datagrams that do not fit turn the question to TCP, and for a minute all questions to that upstream; if TCP is
//! of no use there, each question begins over UDP again, so that a flood never costs more than the questions it meets. A
//! datagram that fits but for letter case or cookie turns its question to TCP too: whoever sent it knew id and port.
//!
//! An upstream of TCP or TLS alone is asked in that way or not at all.

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
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::edns::{self, Opt};
use super::error::Fault;
use super::manner::{Cookie, Reply};
use super::port::{Ports, random_id};
use super::query::{Ask, Case, Dress, Fit, Query};
use super::sockets::Sockets;
use super::stream::Heard;
use super::upstream::Way;
use super::{Counters, FailKind, Response, Server};
use crate::answer::{Form, form_of};

/// Datagrams that do not fit before the question goes over TCP, where guessing is hopeless.
const MAX_MISMATCHES: u32 = 20;
/// BADCOOKIE (RFC 7873 section 5.2.3): the lower four bits, and the upper eight.
const BADCOOKIE: (u8, u8) = (7, 1);

/// One try.
pub(super) struct Try<'c> {
    /// Whom to ask.
    pub(super) server: &'c Server,
    /// UDP payload to advertise.
    pub(super) payload: u16,
    /// Time for a connection, where a question turns to TCP.
    pub(super) time: Duration,
    /// When what goes over a connection is over. Who asks ends what goes by datagrams.
    pub(super) end: Instant,
    /// Where datagrams leave from.
    pub(super) ports: &'c Ports,
    /// Leave for a second port.
    pub(super) sockets: &'c Sockets,
    pub(super) counters: &'c Counters,
    /// Told when an upstream does not do what its trials have shown.
    pub(super) doubts: &'c Notify,
}

/// What a datagram exchange led to.
enum Datagram {
    /// A response and its code.
    Got(Vec<u8>, u8),
    /// To be asked over TCP.
    TurnToTcp,
    /// To be asked again, with the server's cookie.
    Again,
}

impl Try<'_> {
    /// Asks. `noise` is set at the first datagram that does not fit.
    pub(super) async fn run(&self, ask: &Ask, noise: &AtomicBool) -> Result<Response, Fault> {
        let begun = Instant::now();
        let mut payload = Some(self.payload);
        let mut again = false;
        loop {
            let (mut wire, rcode, streamed) = match self.server.upstream.way {
                Way::Tcp | Way::Tls(_) => {
                    let heard = self.streamed(ask, payload, self.end).await?;
                    (heard.wire, heard.rcode, true)
                }
                Way::Udp { .. } => match self.first(ask, payload, noise).await? {
                    Datagram::Again if !std::mem::replace(&mut again, true) => continue,
                    Datagram::Got(wire, rcode) => (wire, rcode, false),
                    Datagram::TurnToTcp | Datagram::Again => {
                        let heard = self.turned(ask, payload).await?;
                        (heard.wire, heard.rcode, true)
                    }
                },
            };
            ask.respell(&mut wire);
            // A server without EDNS says FORMERR (RFC 6891 section 7), or NOTIMP, as older ones do. Not remembered: a forged one must not cost more
            // than this one question.
            if matches!(rcode, 1 | 4) && payload.take().is_some() {
                Counters::add(&self.counters.without_edns);
                continue;
            }
            let form = form_of(&wire);
            // One that knows no version of EDNS at all may say BADVERS.
            if form == Form::Extended && payload.take().is_some() {
                Counters::add(&self.counters.without_edns);
                continue;
            }
            return match (rcode, form) {
                (0 | 3, Form::Whole) | (6, Form::Redirected) => {
                    let upstream = self.server.upstream.address;
                    Ok(Response { wire, upstream, rtt: begun.elapsed(), took: Duration::ZERO, tcp: streamed })
                }
                (0 | 3, Form::Mangled) => Err(FailKind::Mangled.into()),
                (0, Form::Referral) => Err(FailKind::Referral.into()),
                (1, _) => Err(FailKind::FormErr.into()),
                (2, _) => Err(Fault::told(FailKind::ServFail, &wire)),
                (5, _) => Err(Fault::told(FailKind::Refused, &wire)),
                _ => Err(FailKind::BadRcode.into()),
            };
        }
    }

    /// A datagram, unless forgers are at work.
    async fn first(&self, ask: &Ask, payload: Option<u16>, noise: &AtomicBool) -> Result<Datagram, FailKind> {
        if self.server.health.wants_tcp(Instant::now()) {
            Counters::add(&self.counters.flood_tcp);
            return Ok(Datagram::TurnToTcp);
        }
        let refused = Notify::new();
        let mut first = pin!(self.datagram(ask, payload, noise, Some(&refused)));
        tokio::select! {
            biased;
            done = &mut first => return done,
            () = refused.notified() => {}
        }
        // Whoever is near can say that nobody is there. So it is asked once more from another port, and the answer that was
        // on its way still counts; where nobody is, the second is refused as fast as the first.
        let Some(_socket) = self.sockets.take(true) else { return Err(FailKind::Unreachable) };
        let again = Box::pin(self.datagram(ask, payload, noise, None));
        tokio::select! {
            biased;
            done = first => done,
            done = again => done,
        }
    }

    /// Where `refused` is given, a refusal is told there, and an answer waited for all the same.
    async fn datagram(
        &self,
        ask: &Ask,
        payload: Option<u16>,
        noise: &AtomicBool,
        refused: Option<&Notify>,
    ) -> Result<Datagram, FailKind> {
        let manner = &self.server.manner;
        let case =
            if self.server.mixes_case() && manner.keeps_case() == Some(true) { Case::Mixed } else { Case::Lower };
        let upstream = self.server.upstream.address;
        let port = self.ports.open(upstream)?;
        let cookie = if payload.is_some() && manner.has_cookies() == Some(true) {
            manner.cookie(port.local().map_err(|_| FailKind::Local)?)
        } else {
            None
        };
        let dress = Dress { payload, case, cookie: cookie.as_ref().map(Cookie::octets), ..Dress::default() };
        let query = Query::write(ask, random_id()?, dress);
        let port = port.send(query.octets())?;
        Counters::add(&self.counters.udp_queries);
        let mut mismatches = 0;
        loop {
            let octets = match (port.receive().await, refused) {
                (Err(FailKind::Unreachable), Some(refused)) => {
                    refused.notify_one();
                    continue;
                }
                (heard, _) => heard?,
            };
            let mut fit = query.fit(&octets);
            let opt = cookie.and_then(|_| Opt::of(&octets));
            let reply = cookie.map(|cookie| (cookie, cookie.reply(opt.as_ref())));
            if matches!(reply, Some((_, Reply::Foreign))) {
                fit = Fit::Foreign;
            }
            if fit != Fit::Foreign {
                self.server.health.heard(Instant::now());
            }
            match (fit, reply) {
                // One that cannot parse the query may send its header back, which holds no cookie.
                (Fit::Ours { rcode: rcode @ (1 | 4), .. }, Some((_, Reply::None))) => {
                    return Ok(Datagram::Got(octets, rcode));
                }
                (Fit::Recased, _) | (Fit::Ours { .. }, Some((_, Reply::None))) => {
                    Counters::add(&self.counters.doubted);
                    self.doubts.notify_one();
                    return Ok(Datagram::TurnToTcp);
                }
                (Fit::Ours { truncated, rcode }, reply) => {
                    if mismatches == 0 {
                        self.ports.close(port, upstream);
                    }
                    if let Some((sent, Reply::Server(new))) = reply {
                        manner.keep(&sent, new);
                        if (rcode, opt.map_or(0, |opt| opt.rcode)) == BADCOOKIE {
                            return Ok(Datagram::Again);
                        }
                    }
                    if truncated {
                        Counters::add(&self.counters.truncated);
                        return Ok(Datagram::TurnToTcp);
                    }
                    return Ok(Datagram::Got(octets, rcode));
                }
                (Fit::Foreign, _) => {
                    Counters::add(&self.counters.mismatches);
                    mismatches += 1;
                    if mismatches == 1 {
                        noise.store(true, Relaxed);
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

    /// Asks over TCP what could not be asked by datagrams. Whoever cannot be connected to within a try's time has no TCP; on
    /// a connection the question has what is left, as it has over UDP.
    async fn turned(&self, ask: &Ask, payload: Option<u16>) -> Result<Heard, FailKind> {
        let mut streamed = pin!(self.streamed(ask, payload, self.end));
        let got = match timeout_at(Instant::now() + self.time, &mut streamed).await {
            Ok(got) => got,
            Err(_) if self.server.pool.is_connected() => streamed.await,
            Err(_) => Err(FailKind::Timeout),
        };
        // A name that is slow says nothing of TCP.
        if matches!(got, Err(kind) if kind != FailKind::Timeout || !self.server.pool.is_connected()) {
            self.server.health.without_tcp();
        }
        // Datagrams reach it: whoever asks for what is long must not make it a suspect for everybody.
        got.map_err(|kind| if kind == FailKind::Unreachable { FailKind::Broken } else { kind })
    }

    async fn streamed(&self, ask: &Ask, payload: Option<u16>, end: Instant) -> Result<Heard, FailKind> {
        let dress = Dress { payload, ..Dress::default() };
        let heard = match timeout_at(end, self.server.pool.ask(ask, dress, self.time)).await {
            Ok(outcome) => outcome,
            Err(_) => return Err(FailKind::Timeout),
        };
        if heard.as_ref().map_or_else(|unheard| unheard.spoke, |_| true) {
            self.server.health.heard(Instant::now());
        }
        heard.map_err(|unheard| unheard.kind)
    }

    /// Asks about nothing that matters, with both letter cases in it and, if wanted, a cookie. `None`: no fitting answer.
    pub(super) async fn trial(&self, with_cookie: bool) -> Option<Trial> {
        timeout_at(self.end, self.try_manner(with_cookie)).await.ok().flatten()
    }

    async fn try_manner(&self, with_cookie: bool) -> Option<Trial> {
        let port = self.ports.open(self.server.upstream.address).ok()?;
        let manner = &self.server.manner;
        let cookie = if with_cookie { Some(manner.trial_cookie(port.local().ok()?)?) } else { None };
        let case = if self.server.mixes_case() { Case::Both } else { Case::Lower };
        let dress = Dress {
            payload: Some(self.payload),
            case,
            cookie: cookie.as_ref().map(Cookie::octets),
            ..Dress::default()
        };
        let query = Query::write(&Ask::trial(), random_id().ok()?, dress);
        let port = port.send(query.octets()).ok()?;
        Counters::add(&self.counters.trials);
        loop {
            let octets = port.receive().await.ok()?;
            let fit = query.fit(&octets);
            let reply = cookie.map(|cookie| (cookie, cookie.reply(Opt::of(&octets).as_ref())));
            if fit == Fit::Foreign || matches!(reply, Some((_, Reply::Foreign))) {
                Counters::add(&self.counters.mismatches);
                continue;
            }
            self.server.health.heard(Instant::now());
            if edns::is_header_alone(&octets) {
                // It could not parse the query and says so without it: nothing is shown by that.
                return None;
            }
            let has_cookies = match reply {
                Some((sent, Reply::Server(new))) => {
                    manner.keep(&sent, new);
                    true
                }
                _ => false,
            };
            return Some(Trial { keeps_case: fit != Fit::Recased, has_cookies });
        }
    }
}

/// What a trial has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) keeps_case: bool,
    pub(super) has_cookies: bool,
}

/// Whether an error speaks of the upstream or of us.
pub(super) fn kind_of(error: &io::Error) -> FailKind {
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
