//! What a session is to the packet filter, and what a change of policy or context closes of what it has open.
//!
//! Every name that holds something open is judged anew; flows and leases that no name opens any more are ended by the packet
//! filter, the others live on in a new generation.

use std::net::IpAddr;

use staunch_scoring::NameRef;

use super::{Live, Pipeline, class_of, is_guarded};
use crate::enforce::{Class, Command, Kept};
use crate::lists::{Action, Allowance, Rule};
use crate::model::Now;
use crate::pin::Word;
use crate::ports::Ports;
use crate::session::{Context, Inner, Session};

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// Why the packet filter is told of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something about the session: announced, moved to another phase, released.
    Session,
    /// Rules, lists, profiles, modes or grants may have changed since leases of before this process were made.
    Policy,
    /// What may have changed has come after this process began: no such lease was made by it.
    Recent,
}

impl Pipeline {
    /// Tells the packet filter what the session is and what it may reach by now.
    pub(crate) fn guard(&self, session: &Session, cause: Cause, now: Now) {
        let mut inner = session.inner.lock();
        self.guard_locked(&session.context(), &mut inner, cause, now);
    }

    /// The same under the session's lock.
    pub(super) fn guard_locked(&self, context: &Context, inner: &mut Inner, cause: Cause, now: Now) {
        // Under the lock, so that what is ordered last is what policy says last.
        let live = &self.live.load();
        // What has ended has nothing to be told of any more: its addresses may be another session's by now.
        if !live.enforcing || inner.ended {
            return;
        }
        let (closed, guarded) = (inner.is_closed(), is_guarded(live, context));
        let class = class_of(context);
        let kept = if guarded && !closed { self.kept(live, context, inner, class, cause, now) } else { None };
        for address in &context.announcement.addresses {
            let session = *address;
            let command = match &kept {
                // An address that a closed session has gained is closed with it.
                _ if closed => Command::Quarantine { session },
                _ if !guarded => Command::Unguard { session },
                None => Command::Guard { session, class },
                Some(kept) => {
                    let like = |kept: &&Kept| kept.destination.is_ipv4() == session.is_ipv4();
                    Command::Renew { session, class, keep: kept.iter().filter(like).cloned().collect() }
                }
            };
            if let Err(error) = self.enforcer.submit(command) {
                tracing::error!(%error, "the packet filter was not told what a session is");
            }
        }
        inner.told = (guarded && !closed).then_some(self.told(class));
    }

    /// What stays open, where anything closes; nothing where nothing does.
    fn kept(
        &self,
        live: &Live,
        context: &Context,
        inner: &mut Inner,
        class: Class,
        cause: Cause,
        now: Now,
    ) -> Option<Vec<Kept>> {
        let grants = live.grants.load();
        let opens = |name: NameRef<'_>| {
            let opens = live.policy.opens(context, &grants, name, now.wall).ok()?;
            Some((opens.ports.clone(), opens.volume))
        };
        let shows = |name: NameRef<'_>, address: IpAddr| live.answers.pins(name, address);
        let profile = live.policy.profiles.of(context.kind(), context.phase());
        let zones = live.rpz.load();
        // What policy says of such a name refuses the question, not where the operator leads instead.
        let word = |word, name: NameRef<'_>, address: IpAddr| match word {
            Word::Zone => live.zones.covers(name).then(|| (profile.ports.clone(), None)),
            Word::Page => live.sinkhole.addresses.contains(&address).then(|| (Ports::web(), None)),
            // Of which zone, and by which rule, is not kept: the lease is as short as the zone's records live.
            Word::PolicyZone => {
                let may = !zones.is_empty() && live.answers.pins(name, address);
                may.then(|| (profile.ports.clone(), profile.volume.cut))
            }
        };
        let tightened = inner.pins.tighten(opens, shows, word);
        // In another class, or since a written range was closed, what it has open there has to be looked at again.
        let moved = inner.told.is_some_and(|told| told != self.told(class));
        // By which names leases of before this process were made is not known, so a policy that has changed since closes them.
        let unknown = cause == Cause::Policy && std::mem::take(&mut inner.unknown_leases);
        let keep = tightened.keep.into_iter().map(|(destination, ports, volume)| Kept { destination, ports, volume });
        (tightened.lost || moved || unknown).then(|| keep.collect())
    }

    /// Judges what every session has open anew; to be called when policy has changed. May take a while where there are very
    /// many sessions.
    pub(crate) fn tighten_all(&self, cause: Cause, now: Now) {
        for session in self.sessions.all() {
            self.guard(&session, cause, now);
        }
    }

    /// The grants that are in force are older than this process. To be called once, at its start.
    pub(crate) fn note_older_grants(&self) {
        let _ = self.older_grants.set(self.live.load().grants.load().iter().map(|grant| grant.id.clone()).collect());
    }

    /// Why the packet filter is told where these grants have ended.
    pub(super) fn cause_of(&self, ended: &[&Allowance]) -> Cause {
        let older = self.older_grants.get();
        let is_older = |grant: &&Allowance| older.is_some_and(|older| older.contains(&grant.id));
        if ended.iter().any(is_older) { Cause::Policy } else { Cause::Recent }
    }

    /// Closes what was open by grants, rules and ranges that have ended since this was last called. To be called every
    /// second.
    pub fn close_ended(&self, now: Now) {
        // To the end: who calls this finds what has ended closed, or ordered to be, whoever closes it.
        let mut checked = self.checked.lock();
        let live = self.live.load_full();
        let grants = live.grants.load_full();
        // Nothing else takes an ended grant out of the table: what it opened is closed by whoever finds it here.
        let ended: Vec<&Allowance> = grants.iter().filter(|grant| grant.until <= now.wall.steady).collect();
        let before = std::mem::replace(&mut *checked, now.wall);
        let closes = |rule: &Rule| rule.action == Action::Allow && !rule.is_over(before) && rule.is_over(now.wall);
        let rules = live.policy.lists.rules.iter().any(closes);
        // A range whose end was passed by a clock that is set right again is open again.
        let ranges = live.ranges.iter().any(|range| range.is_over(before) != range.is_over(now.wall));
        if before.steady / DAY != now.wall.steady / DAY {
            self.tell_unused(&live, now);
        }
        if ranges {
            self.open_ranges(&live, now);
        }
        if !ended.is_empty() {
            live.grants.rcu(|grants| {
                let mut next = (**grants).clone();
                next.drop_ended(&ended, now.wall.steady);
                next
            });
        }
        let everybody = rules || ranges || ended.iter().any(|grant| grant.session.is_none());
        if everybody {
            // A rule or range of a policy that came later finds none of those leases left.
            let cause = if rules || ranges { Cause::Policy } else { self.cause_of(&ended) };
            return self.tighten_all(cause, now);
        }
        for grant in ended {
            if let Some(session) = grant.session.as_ref().and_then(|id| self.sessions.by_id(id)) {
                self.guard(&session, self.cause_of(&[grant]), now);
            }
        }
    }
}
