//! How old a query's domain is: what registries said, since when this deployment and this group know it, and the short
//! wait for a registry's first word.
//!
//! Beside the walk: the tables are [`crate::store`]'s, the look-ups [`crate::rdap`]'s, lists are policy's own. Judges
//! nothing.

use std::sync::Arc;

use serde::Serialize;
use staunch_scoring::NameRef;

use super::{Deferred, Pipeline, Walk};
use crate::answer::Kind;
use crate::clock;
use crate::event::Verdict;
use crate::listen::Fast;
use crate::lists::{AgeTable, Day, SuffixKind, public_suffix};
use crate::model::Now;
use crate::policy::Decision;
use crate::rdap::{Asked, Rdap, Wait};
use crate::session::Context;
use crate::store::{FirstSeen, GroupSeen, Registered, Registration, Store};
use crate::telemetry::{Record, rfc3339};
use crate::wire::{self, Parsed};

const DAY_MS: f64 = 86_400_000.0;

/// Where ages come from, beside lists.
pub struct Ages {
    /// Since when this deployment knows domains.
    pub first_seen: Arc<FirstSeen>,
    /// Since when each group does.
    pub group_seen: Arc<GroupSeen>,
    /// What registries said.
    pub registered: Arc<Registered>,
    /// Who asks them, where they are asked.
    pub rdap: Option<Rdap>,
}

/// What is known of one domain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// What its registry said, and when.
    pub(super) registration: Option<Registration>,
    /// Days; `None` while warming up.
    pub(super) first_seen_days: Option<f32>,
    /// Days; `None` without a group or while it warms up.
    pub(super) group_seen_days: Option<f32>,
}

impl Known {
    /// Where nothing is known.
    pub(crate) const NOTHING: Self = Self { registration: None, first_seen_days: None, group_seen_days: None };

    /// Days since the registration that a registry told; 0 if it lies ahead. `wall` is Unix milliseconds.
    pub(super) fn registered_days(&self, wall: u64) -> Option<f32> {
        let at = self.registration?.registered?;
        Some((wall.saturating_sub(at) as f64 / DAY_MS) as f32)
    }
}

impl Ages {
    /// The store's tables; nobody is asked.
    pub(super) fn new(store: &Store) -> Self {
        let (first_seen, group_seen) = (store.first_seen(), store.group_seen());
        Self { first_seen, group_seen, registered: store.registered(), rdap: None }
    }

    /// What is known of `domain` (registrable) for a session, `wall` being Unix milliseconds.
    pub(super) fn known(&self, context: &Context, domain: NameRef<'_>, wall: u64) -> Known {
        let days = |age: std::time::Duration| age.as_secs_f32() / 86_400.0;
        let group = context.announcement.owner.as_deref();
        Known {
            registration: self.registered.get(domain, wall),
            first_seen_days: self.first_seen.first_seen(domain, wall).map(days),
            group_seen_days: group.and_then(|group| self.group_seen.first_seen(group, domain, wall)).map(days),
        }
    }

    /// Whether a query that is about to be forwarded should wait for its domain's age first: an unlisted name that would
    /// be answered, nothing at hand, a domain no date is known of and a registry to ask.
    pub(super) fn worth_waiting(&self, decision: &Decision<'_>, now: Now) -> bool {
        let Some(rdap) = self.rdap.as_ref().filter(|rdap| !rdap.hold().is_zero()) else { return false };
        let facts = &decision.facts;
        decision.applied == Verdict::Answer
            && decision.would == Verdict::Answer
            && decision.rule.is_none()
            && !facts.cached
            && facts.registered_days.is_none()
            && wants(rdap, facts.split.icann(facts.qname), now)
    }

    /// Notes that the session was given an answer. Only what policy answers ages a domain: not what enforce mode would
    /// have refused, not a failure, and not a name that does not exist, or a domain could be aged before it is registered.
    pub(super) fn note_answer(&self, walk: &Walk, kind: Kind, qname: NameRef<'_>, now: Now) {
        if walk.record.would != Verdict::Answer || !matches!(kind, Kind::Positive | Kind::NoData) {
            return;
        }
        let domain = walk.record.split.icann(qname);
        self.first_seen.saw(domain, now.wall.steady);
        if let Some(group) = walk.record.context.announcement.owner.as_deref() {
            self.group_seen.saw(group, domain, now.wall.steady);
        }
    }

    /// The same for an answer at hand: the group uses the domain, whoever had it asked for. Costs next to nothing where
    /// the group knows the domain.
    pub(super) fn note_cached(&self, record: &Record, known: &Known, rcode: u8, now: Now) {
        let fresh = known.group_seen_days.is_none_or(|days| days == 0.0);
        if let Some(group) = record.context.announcement.owner.as_deref()
            && fresh
            && rcode == 0
            && record.would == Verdict::Answer
        {
            self.group_seen.saw(group, record.split.icann(record.qname.as_ref()), now.wall.steady);
        }
    }
}

/// Whether a registry is to be asked: never for a public suffix, which is nobody's registration.
fn wants(rdap: &Rdap, domain: NameRef<'_>, now: Now) -> bool {
    rdap.wants(domain, now) && public_suffix(domain) != Some(SuffixKind::Icann)
}

impl Pipeline {
    /// Has registries asked for ages, as `rdap` is set up to.
    #[must_use]
    pub fn with_registries(mut self, rdap: Option<Rdap>) -> Self {
        self.ages.rdap = rdap;
        self
    }

    /// Has the domain of a query that is about to be forwarded looked up, where that is wanted. Never waits.
    pub(super) fn ask_age(&self, walk: &Walk, now: Now) -> Option<Wait> {
        let rdap = self.ages.rdap.as_ref()?;
        let record = &walk.record;
        // Judged some time ago: of what was closed meanwhile no registry hears.
        if record.would != Verdict::Answer || record.rule.is_some() || walk.session.inner.lock().is_closed() {
            return None;
        }
        let domain = record.split.icann(record.qname.as_ref());
        if !wants(rdap, domain, now) || self.live.load().policy.lists.age.look_up(domain).is_some() {
            return None;
        }
        match rdap.ask(domain, self.hash(walk.session.id()), now) {
            Asked::Waits(wait) => Some(wait),
            Asked::No => None,
        }
    }

    /// Lets a query that waits for its domain's age wait, at most as long as is configured, and then judges it.
    pub(super) async fn with_age(&self, deferred: Deferred, out: &mut Vec<u8>) -> Fast<Deferred> {
        let now = clock::now();
        let walk = deferred.walk;
        let Parsed::Query(query) = wire::parse(&walk.packet) else { return Fast::Drop };
        if let (Some(wait), Some(rdap)) = (self.ask_age(&walk, now), &self.ages.rdap) {
            wait.ended(rdap.hold(), now.mono).await;
        }
        let mut walked = self.walk(
            &query,
            &walk.packet,
            walk.from,
            walk.transport,
            clock::now(),
            Some(walk.started),
            out,
            None,
            walk.led,
            self.ride_of(walk.led),
        );
        if let Fast::Deferred(deferred) = &mut walked {
            self.prolong(&mut deferred.walk);
        }
        walked
    }
}

/// Where a domain's age comes from, for explanations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgeSources {
    /// The registration that counts: the latest known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<RegisteredBy>,
    /// When its registry was last asked (RFC 3339), whether or not it gave a date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked_up: Option<String>,
    /// Days since this deployment first answered a name of it; absent while warming up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_days: Option<f32>,
    /// Days since the session's group did; absent without a group or while it warms up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_seen_days: Option<f32>,
}

/// Who says when a domain was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum RegisteredBy {
    /// A list of newly registered domains.
    List {
        /// The list.
        list: String,
        /// Its file, as the configuration names it.
        file: String,
        /// The day.
        day: Day,
    },
    /// The registry, over RDAP.
    Rdap {
        /// The day.
        day: Day,
    },
}

impl AgeSources {
    /// Of `domain` (registrable).
    pub(super) fn of(lists: &AgeTable, domain: NameRef<'_>, known: &Known) -> Self {
        let list = lists.look_up(domain);
        let told = known.registration.and_then(|registration| registration.registered);
        let registered = match (list, told) {
            (Some(list), told) if told.is_none_or(|told| told <= list.registered.start()) => Some(RegisteredBy::List {
                list: list.list.id.to_string(),
                file: list.list.file.to_string(),
                day: list.registered,
            }),
            (_, told) => told.map(|at| RegisteredBy::Rdap { day: Day::of_wall(at) }),
        };
        Self {
            registered,
            looked_up: known.registration.map(|registration| rfc3339(registration.checked)),
            first_seen_days: known.first_seen_days,
            group_seen_days: known.group_seen_days,
        }
    }
}
