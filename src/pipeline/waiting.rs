//! What waits in the slow path, with the room it takes there, and what every reply gets at its end.
//!
//! Between the listeners, which know a packet and where it came from, and the walk, which knows the question. Whoever has
//! used up its share ([`crate::session::Shares`]) hears SERVFAIL at once and nothing is booked, since nothing leaves: being
//! past a share is no signal, because how large it is depends on what others do and on how slow an upstream is.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use staunch_scoring::Split;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::{Deferred, Pipeline};
use crate::cookie::{self, Cookies, Judged};
use crate::event::{Source, Verdict};
use crate::listen::{Fast, Home};
use crate::model::{Now, Reason, Transport};
use crate::policy::ede_of;
use crate::range::prefix_of;
use crate::reply;
use crate::session::{Place, Session, Shares};
use crate::telemetry::Record;
use crate::wire::{self, Query, Reject};

/// A datagram to a source that nobody announced and that has not shown that it hears us is at most so many times as long
/// as the one it answers: forged sources gain little by it.
const AMPLIFY: usize = 10;

/// How long a question waits for a turn of its session at most: no longer behind names whose servers do not answer. Chosen
/// without a source, below what somebody notices.
const TURN_MAX: Duration = Duration::from_millis(100);

/// What somebody hears who wants a cookie alone where there are none (RFC 9619).
const FORMERR: u16 = 1;

/// What is told of a share that is used up. Not whose: that would tell what others do.
const PAST_SHARE: &str = "too many questions wait; try again";

/// A query that has to wait, and its place.
pub struct Waiting {
    pub(super) deferred: Deferred,
    place: Place,
    ending: Ending,
}

/// What a reply gets when it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    from: IpAddr,
    /// Longest reply that the client takes, octets.
    room: usize,
    /// Longest datagram to somebody who may not be there, octets; no limit over TCP and for those who proved that they are.
    unproven: usize,
    cookie: Option<[u8; cookie::COOKIE]>,
}

impl Pipeline {
    /// By what the connections of a client are counted: a session's by its first address, a stranger's by its host.
    pub(super) fn home_of(&self, from: IpAddr) -> Home {
        let from = from.to_canonical();
        let found = self.sessions.by_address(from).map(|session| session.context()).filter(|context| context.announced);
        match found.as_ref().and_then(|context| context.announcement.addresses.first()) {
            Some(first) => Home { address: *first, announced: true },
            None => Home { address: prefix_of(from, (32, 64)), announced: from.is_loopback() },
        }
    }

    /// Gives the slow path room for `room` questions, and cookies a secret.
    pub fn with_room(mut self, room: usize, secret: [u8; 16]) -> Self {
        self.shares = Shares::new(room);
        self.cookies = Some(Cookies::new(secret));
        self
    }

    /// What the reply to `query` gets.
    pub(super) fn ending(
        &self,
        query: &Query<'_>,
        packet: &[u8],
        from: SocketAddr,
        transport: Transport,
        now: Now,
    ) -> Ending {
        let from = from.ip().to_canonical();
        let sent = query.options.cookie;
        let judged = self.judge_cookie(sent, from, now);
        let proven = transport == Transport::Tcp || judged.is_some_and(|judged| judged.proven);
        Ending {
            from,
            room: reply::limit(query, transport) + if sent.is_empty() { 0 } else { 4 + cookie::COOKIE },
            unproven: if proven { usize::MAX } else { AMPLIFY * packet.len() },
            cookie: judged.map(|judged| judged.reply),
        }
    }

    /// What a cookie is worth; `None` where none was sent, or none are answered.
    fn judge_cookie(&self, sent: &[u8], from: IpAddr, now: Now) -> Option<Judged> {
        if sent.is_empty() {
            return None;
        }
        // The low 32 bits of the Unix second are what a cookie holds.
        self.cookies.as_ref().and_then(|cookies| cookies.judge(sent, from, (now.wall.steady / 1000) as u32))
    }

    /// Answers what is no question of ours. A cookie is answered here too: a client that has sent one takes no reply without
    /// (RFC 7873 section 5.3).
    pub(super) fn reject(&self, reject: &Reject<'_>, from: SocketAddr, now: Now, out: &mut Vec<u8>) {
        let judged = self.judge_cookie(reject.options.cookie, from.ip().to_canonical(), now);
        match judged {
            None if reject.rcode == 0 => reply::reject(out, &Reject { rcode: FORMERR, ..*reject }),
            _ => reply::reject(out, reject),
        }
        if let Some(judged) = judged {
            reply::add_option(out, wire::COOKIE, &judged.reply, usize::from(wire::UDP_MIN));
        }
    }

    /// Gives a reply its end.
    pub(super) fn end_reply(&self, out: &mut Vec<u8>, ending: &Ending) {
        if out.len() > ending.unproven && !self.is_there(ending.from) {
            self.curtailed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            reply::curtail(out);
        }
        if let Some(cookie) = &ending.cookie {
            reply::add_option(out, wire::COOKIE, cookie, ending.room);
        }
    }

    /// Whether a source is somebody and not only written on a packet: announced, or this machine.
    fn is_there(&self, from: IpAddr) -> bool {
        from.is_loopback() || self.sessions.by_address(from).is_some_and(|session| session.context().announced)
    }

    /// Finds a deferred query its place; where its share is used up, it is answered.
    pub(super) fn seat(
        &self,
        deferred: Deferred,
        query: &Query<'_>,
        ending: Ending,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Fast<Waiting> {
        let walk = &deferred.walk;
        match self.shares.take(&walk.session, &walk.record.context, walk.from, now.mono) {
            Ok(place) => Fast::Deferred(Waiting { deferred, place, ending }),
            Err(_) => {
                let walk = *deferred.walk;
                self.refuse_share(&walk.session, walk.record, query, walk.started, now, out);
                self.end_reply(out, &ending);
                Fast::Reply
            }
        }
    }

    /// Answers a query whose session has used up its share. Of a flood of them one a second becomes an event; all are
    /// counted.
    pub(super) fn refuse_share(
        &self,
        session: &Session,
        mut record: Record,
        query: &Query<'_>,
        started: Instant,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Fast<Deferred> {
        record.source = Source::Failed;
        record.rcode = 2;
        reply::servfail(out, query, ede_of(Reason::Share), PAST_SHARE);
        if record.verdict == Verdict::Quarantine {
            // It has closed the session before it found no place, and there is no other event of that.
            return self.done(record, started);
        }
        record.reason = Some(Reason::Share);
        if !session.may_tell(now.mono) {
            return Fast::Reply;
        }
        record.split = Split::of(query.qname.as_ref());
        self.done(record, started)
    }

    /// A turn of the session at the upstreams; nothing where it goes on without one, be it that nobody else asks or that it has
    /// waited long enough.
    pub(super) async fn turn<'s>(&self, session: &'s Session, now: Now) -> Option<SemaphorePermit<'s>> {
        match session.turns.try_acquire() {
            Ok(turn) => Some(turn),
            // They are never closed.
            Err(_) if self.shares.has_turns(now.mono) => {
                Box::pin(timeout(TURN_MAX, session.turns.acquire())).await.ok()?.ok()
            }
            Err(_) => None,
        }
    }

    /// Finishes a query that waits, and gives its place back.
    pub(super) async fn finish_waiting(&self, waiting: Waiting) -> Option<Vec<u8>> {
        let Waiting { deferred, place, ending } = waiting;
        let mut out = self.complete(deferred).await?;
        drop(place);
        self.end_reply(&mut out, &ending);
        Some(out)
    }

    /// Answers a query for which the queue has no room though its share has.
    pub(super) fn refuse_waiting(&self, waiting: Waiting, now: Now, out: &mut Vec<u8>) {
        let walk = *waiting.deferred.walk;
        let wire::Parsed::Query(query) = wire::parse(&walk.packet) else { return };
        self.refuse_share(&walk.session, walk.record, &query, walk.started, now, out);
        self.end_reply(out, &waiting.ending);
    }
}
