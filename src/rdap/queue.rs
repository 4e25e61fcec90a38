//! Look-ups that wait: bounded, each domain once, each server at its pace, each session within its share.
//!
//! Pure, given `now` (monotonic milliseconds); the threads that carry the look-ups out are [`super`]'s.

use std::collections::{HashMap, VecDeque};

use staunch_scoring::{NameBuf, NameRef};
use tokio::sync::watch;

use super::limit::{Limit, interval};

/// Most look-ups that wait. Further ones are dropped; the domain's next query asks again.
pub(super) const CAPACITY: usize = 1024;
/// From so many on, none is taken whose turn would come too late: its place is another server's.
const CROWDED: usize = CAPACITY / 2;
/// Sessions counted within an hour; past it a further one has no look-ups until the next.
const MAX_SESSIONS: usize = 131_072;
/// Tries at one domain, over all its servers.
const MAX_TRIES: u8 = 3;
/// How long a look-up may wait for a server's pause before it is given up.
const PATIENCE_MS: u64 = 300_000;
const HOUR_MS: u64 = 3_600_000;

/// One look-up.
#[derive(Debug)]
pub(super) struct Job {
    /// The registrable domain.
    pub(super) domain: NameBuf,
    /// What to ask, in order: authority and URL.
    pub(super) targets: Vec<(String, String)>,
    /// On whose behalf.
    session: u64,
    /// Which of them is next, if its server may be asked.
    at: usize,
    tries: u8,
    since: u64,
}

impl Job {
    /// What to ask now.
    pub(super) fn url(&self) -> &str {
        self.targets.get(self.at).map_or("", |(_, url)| url)
    }

    fn authority(&self) -> &str {
        self.targets.get(self.at).map_or("", |(authority, _)| authority)
    }
}

/// What waits for one domain, or is under way.
#[derive(Debug)]
struct Pending {
    /// Its end tells those who wait.
    done: watch::Sender<()>,
    since: u64,
    from: u64,
}

impl Pending {
    fn waits(&self) -> Offer {
        Offer::Waits { done: self.done.subscribe(), since: self.since, from: self.from }
    }
}

/// What became of an offer.
#[derive(Debug)]
pub(super) enum Offer {
    /// It waits, or is being carried out.
    Waits {
        /// Closes when it has ended.
        done: watch::Receiver<()>,
        /// When it was first wanted.
        since: u64,
        /// None of its servers could be asked before.
        from: u64,
    },
    /// All of its servers are left alone for longer than a look-up may wait.
    Paused,
    /// The session has used its share of this hour.
    OverShare,
    /// Too many wait.
    Full,
}

/// What a thread is to do.
#[derive(Debug)]
pub(super) enum Next {
    /// Carry this out.
    Look(Job),
    /// Nothing is ready before so many milliseconds.
    Wait(u64),
    /// Nothing waits.
    Idle,
}

/// What a thread found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The server answered.
    Answered,
    /// The server failed, or asks for a pause of so many milliseconds.
    Failed(Option<u64>),
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    /// Every domain that waits or is being looked up.
    pending: HashMap<NameBuf, Pending>,
    limits: HashMap<String, Limit>,
    hour: u64,
    shares: HashMap<u64, u32>,
}

impl Queue {
    /// Takes a look-up on behalf of `session`, of which each may cause `share` an hour. A domain that waits already is
    /// taken for granted and costs nothing.
    pub(super) fn offer(
        &mut self,
        domain: NameRef<'_>,
        targets: Vec<(String, String)>,
        (session, share): (u64, u32),
        per_minute: u32,
        now: u64,
    ) -> Offer {
        let domain = domain.to_owned();
        if let Some(pending) = self.pending.get(&domain) {
            return pending.waits();
        }
        let (from, _) = self.soonest(&targets, 0, per_minute, 0);
        if from.saturating_sub(now) >= PATIENCE_MS {
            // It would only stand in the way of other servers' look-ups until it is given up.
            return Offer::Paused;
        }
        if self.jobs.len() >= CAPACITY {
            return Offer::Full;
        }
        let hour = now / HOUR_MS;
        if self.hour != hour {
            self.hour = hour;
            self.shares.clear();
        }
        if !self.shares.contains_key(&session) && self.shares.len() >= MAX_SESSIONS {
            return Offer::OverShare;
        }
        let used = self.shares.get(&session).copied().unwrap_or(0);
        if used >= share {
            return Offer::OverShare;
        }
        if self.jobs.len() >= CROWDED && self.comes_too_late(&targets, used + 1, from.max(now), per_minute, now) {
            return Offer::Full;
        }
        self.shares.insert(session, used + 1);
        let pending = Pending { done: watch::Sender::new(()), since: now, from };
        let offer = pending.waits();
        self.pending.insert(domain.clone(), pending);
        self.jobs.push_back(Job { domain, targets, session, at: 0, tries: 0, since: now });
        offer
    }

    /// Whether so many look-ups of the same servers stand before that of a session with `used` in this hour that it would be
    /// given up unasked, its servers being free from `from` on.
    fn comes_too_late(&self, targets: &[(String, String)], used: u32, from: u64, per_minute: u32, now: u64) -> bool {
        fn server(targets: &[(String, String)]) -> Option<&str> {
            targets.first().map(|(authority, _)| authority.as_str())
        }
        let before = |job: &&Job| {
            server(&job.targets) == server(targets)
                && self.shares.get(&job.session).is_some_and(|theirs| *theirs <= used)
        };
        let before = self.jobs.iter().filter(before).count() as u64;
        let turn = from.saturating_add(before.saturating_mul(interval(per_minute)) / targets.len().max(1) as u64);
        turn.saturating_sub(now) >= PATIENCE_MS
    }

    /// From when on, `now` at the earliest, one of the servers may be asked, and which: the one in turn, `at`, or the first behind
    /// it that is not left alone.
    fn soonest(&self, targets: &[(String, String)], at: usize, per_minute: u32, now: u64) -> (u64, usize) {
        let from = |at: usize| {
            let limit = targets.get(at).and_then(|(authority, _)| self.limits.get(authority));
            limit.map_or(0, |limit| limit.ready_at(per_minute)).max(now)
        };
        let turns = (at..targets.len()).chain(0..at);
        turns.map(|at| (from(at), at)).min_by_key(|(from, _)| *from).unwrap_or((now, at))
    }

    /// A look-up one of whose servers may be asked at `now`: that of the session which has caused the fewest in this hour,
    /// among its own the oldest, so that one session's many do not stand before another's first.
    pub(super) fn next(&mut self, per_minute: u32, now: u64) -> Next {
        let mut soonest = u64::MAX;
        // Jobs used in this hour, the job, and its server.
        let mut ready: Option<(u32, usize, usize)> = None;
        for (place, job) in self.jobs.iter().enumerate() {
            let (from, at) = self.soonest(&job.targets, job.at, per_minute, now);
            if from > now {
                soonest = soonest.min(from);
                continue;
            }
            let used = self.shares.get(&job.session).copied().unwrap_or(0);
            if ready.is_none_or(|(least, ..)| used < least) {
                ready = Some((used, place, at));
            }
        }
        let job = ready.and_then(|(_, place, at)| self.jobs.remove(place).map(|job| Job { at, ..job }));
        let Some(job) = job else {
            return if soonest == u64::MAX { Next::Idle } else { Next::Wait(soonest - now) };
        };
        if !self.limits.contains_key(job.authority()) {
            self.limits.insert(job.authority().to_owned(), Limit::default());
        }
        if let Some(limit) = self.limits.get_mut(job.authority()) {
            limit.take(per_minute, now);
        }
        Next::Look(job)
    }

    /// Books what came of a look-up. True when it has ended and those who wait were told; false when it waits again.
    pub(super) fn done(&mut self, mut job: Job, report: Report, now: u64) -> bool {
        if let Some(limit) = self.limits.get_mut(job.authority()) {
            match report {
                Report::Answered => limit.answered(),
                Report::Failed(wait) => limit.failed(now, wait),
            }
        }
        job.tries += 1;
        let again = report != Report::Answered
            && job.tries < MAX_TRIES
            && now.saturating_sub(job.since) < PATIENCE_MS
            && self.jobs.len() < CAPACITY;
        if again {
            job.at = (job.at + 1) % job.targets.len().max(1);
            self.jobs.push_back(job);
            return false;
        }
        self.pending.remove(&job.domain);
        true
    }

    /// Gives up what has waited for a server's pause too long, and says for which domains.
    pub(super) fn give_up(&mut self, now: u64) -> Vec<NameBuf> {
        let mut given_up = Vec::new();
        self.jobs.retain(|job| {
            let stays = now.saturating_sub(job.since) < PATIENCE_MS;
            if !stays {
                given_up.push(job.domain.clone());
            }
            stays
        });
        for domain in &given_up {
            self.pending.remove(domain);
        }
        given_up
    }

    /// Forgets everything that waits; those who wait are told.
    pub(super) fn clear(&mut self) {
        self.jobs.clear();
        self.pending.clear();
    }

    /// Look-ups that wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(authority: &str) -> Vec<(String, String)> {
        vec![(authority.to_owned(), format!("{authority}/x"))]
    }

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    fn offer(queue: &mut Queue, domain: &str, authority: &str, session: u64, now: u64) -> &'static str {
        match queue.offer(name(domain).as_ref(), targets(authority), (session, 3), 60, now) {
            Offer::Waits { .. } => "waits",
            Offer::Paused => "paused",
            Offer::OverShare => "over",
            Offer::Full => "full",
        }
    }

    fn take(queue: &mut Queue, now: u64) -> Option<Job> {
        match queue.next(60, now) {
            Next::Look(job) => Some(job),
            _ => None,
        }
    }

    #[test]
    fn each_domain_waits_once_and_everybody_hears_of_its_end() {
        let mut queue = Queue::default();
        let mut offer = |session, now| match queue.offer(name("a.example").as_ref(), targets("s"), session, 60, now) {
            Offer::Waits { done, since: 5, from: 0 } => done,
            other => panic!("{other:?}"),
        };
        // Joining costs nothing of the share.
        let (first, second) = (offer((1, 3), 5), offer((2, 0), 9));
        let job = take(&mut queue, 10).expect("a job");
        assert!(matches!(queue.next(60, 10), Next::Idle), "only once");
        assert_eq!(self::offer(&mut queue, "a.example", "s", 1, 11), "waits");
        assert!(matches!(queue.next(60, 11), Next::Idle), "also while it is under way");
        assert!(first.has_changed().is_ok() && second.has_changed().is_ok());
        assert!(queue.done(job, Report::Answered, 20));
        assert!(first.has_changed().is_err() && second.has_changed().is_err(), "the sender is gone");
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_session_has_its_share_of_an_hour() {
        let mut queue = Queue::default();
        let asked: Vec<_> = (0..5).map(|n| offer(&mut queue, &format!("d{n}.example"), "s", 1, 0)).collect();
        assert_eq!(asked, ["waits", "waits", "waits", "over", "over"]);
        assert_eq!(offer(&mut queue, "d9.example", "s", 2, 0), "waits", "another session has its own");
        assert_eq!(offer(&mut queue, "d8.example", "s", 1, HOUR_MS - 1), "over");
        assert_eq!(offer(&mut queue, "d8.example", "s", 1, HOUR_MS), "waits");
    }

    #[test]
    fn a_sessions_first_look_up_does_not_wait_for_anothers_many() {
        let mut queue = Queue::default();
        for domain in ["a.example", "b.example", "c.example"] {
            offer(&mut queue, domain, "s", 1, 0);
        }
        offer(&mut queue, "d.example", "s", 2, 0);
        let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, 0)).map(|job| job.domain.to_string()).collect();
        assert_eq!(order, ["d.example", "a.example", "b.example", "c.example"]);
    }

    #[test]
    fn a_paused_server_holds_up_nobody_elses_look_ups() {
        let mut queue = Queue::default();
        offer(&mut queue, "a.example", "slow", 1, 0);
        let job = take(&mut queue, 0).expect("a job");
        assert!(!queue.done(job, Report::Failed(Some(60_000)), 100), "waits again");
        offer(&mut queue, "b.test", "quick", 1, 100);
        assert_eq!(take(&mut queue, 100).expect("a job").domain, name("b.test"));
        assert!(matches!(queue.next(60, 100), Next::Wait(60_000)));
        assert_eq!(take(&mut queue, 60_100).expect("a job").domain, name("a.example"));
    }

    #[test]
    fn a_server_that_is_left_alone_for_long_keeps_no_place_and_no_other_server_from_being_asked() {
        let mut queue = Queue::default();
        offer(&mut queue, "a.example", "one", 1, 0);
        let job = take(&mut queue, 0).expect("a job");
        queue.done(job, Report::Failed(Some(PATIENCE_MS + 10_000)), 0);
        assert_eq!(queue.give_up(PATIENCE_MS).len(), 1);
        let now = PATIENCE_MS;
        for n in 0..2 * CAPACITY {
            assert!(matches!(offer(&mut queue, &format!("d{n}.example"), "one", 2, 5_000), "paused"));
        }
        assert_eq!((offer(&mut queue, "b.test", "quick", 2, now), queue.len()), ("waits", 1));
        take(&mut queue, now).expect("a job");
        // It may be asked again before a look-up is given up.
        let offered = queue.offer(name("a.example").as_ref(), targets("one"), (1, 3), 60, now);
        assert!(matches!(offered, Offer::Waits { from, .. } if from == PATIENCE_MS + 10_000), "{offered:?}");
        assert!(matches!(queue.next(60, now), Next::Wait(10_000)));
        // Where another server has the same to say it is asked, and then each in its turn.
        let both = [targets("one"), targets("two")].concat();
        let offered = queue.offer(name("c.example").as_ref(), both, (1, 3), 60, now);
        assert!(matches!(offered, Offer::Waits { from: 0, .. }), "{offered:?}");
        let job = take(&mut queue, now).expect("a job");
        assert_eq!((&job.domain, job.url()), (&name("c.example"), "two/x"));
        assert!(!queue.done(job, Report::Failed(None), now));
        assert!(matches!(queue.next(60, now), Next::Wait(5_000)), "the pause of the second server is the shorter one");
    }

    #[test]
    fn look_ups_that_would_be_given_up_unasked_take_no_place_of_others() {
        let mut queue = Queue::default();
        let of = |queue: &mut Queue, n: usize, server: &str, session| match queue.offer(
            name(&format!("d{n}.example")).as_ref(),
            targets(server),
            (session, 3),
            60,
            0,
        ) {
            Offer::Waits { .. } => "waits",
            Offer::Full => "full",
            other => panic!("{other:?}"),
        };
        // A slow server's, each of a session of its own: 300 can be asked in time.
        let taken = (0..3 * CAPACITY).filter(|n| of(&mut queue, *n, "slow", *n as u64) == "waits").count();
        assert_eq!(taken, CROWDED, "while there is room for all they may try");
        assert_eq!(of(&mut queue, 9_000, "quick", 9_000), "waits", "and others find a place");
        // Those of sessions that have had more stand behind, and hold up nobody.
        let mut mixed = Queue::default();
        for n in 0..CROWDED {
            assert_eq!(of(&mut mixed, n, "slow", (n / 3) as u64), "waits");
        }
        assert_eq!(of(&mut mixed, 9_000, "slow", 9_000), "waits", "a session's first is asked before others' third");
    }

    #[test]
    fn tries_go_round_the_servers_and_end() {
        let mut queue = Queue::default();
        let both = [targets("one"), targets("two")].concat();
        let Offer::Waits { done: waits, .. } = queue.offer(name("a.example").as_ref(), both, (1, 3), 60, 0) else {
            panic!()
        };
        let mut asked = Vec::new();
        let mut now = 0;
        loop {
            match queue.next(60, now) {
                Next::Look(job) => {
                    asked.push(job.url().to_owned());
                    if queue.done(job, Report::Failed(None), now) {
                        break;
                    }
                }
                Next::Wait(pause) => now += pause,
                Next::Idle => panic!("lost"),
            }
        }
        assert_eq!(asked, ["one/x", "two/x", "one/x"]);
        assert!(waits.has_changed().is_err());
    }

    #[test]
    fn a_full_queue_says_so_and_what_waits_too_long_is_given_up() {
        let mut queue = Queue::default();
        for n in 0..CAPACITY as u64 {
            assert_eq!(offer(&mut queue, &format!("d{n}.example"), &format!("s{}", n % 10), n, 0), "waits");
        }
        assert_eq!(offer(&mut queue, "more.example", "s", 9_999, 0), "full");
        assert_eq!(offer(&mut queue, "d7.example", "s", 9_999, 0), "waits", "it is known already");
        assert!(queue.give_up(PATIENCE_MS - 1).is_empty());
        assert_eq!((queue.give_up(PATIENCE_MS).len(), queue.len()), (CAPACITY, 0));
    }
}
