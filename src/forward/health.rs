//! How an upstream stands: up, behind, under suspicion, or down, and what is remembered of it.
//!
//! Knows no socket and no clock. Silence to a session's question proves nothing: an agent can ask for names whose servers
//! never answer, and must not be able to shut an upstream for everybody. Only the silence to questions of our own makes a
//! suspect and then finds it down; [`super::prober`] asks them.
//!
//! An upstream comes back by good probes in a row: one after its first stumble within [`FLAP_MEMORY`], then two, four,
//! eight, sixteen; two at least where it was down. Meanwhile it is asked if nobody better is there. A good one is answered
//! before a question would be overdue: whoever answers everything late lives, and would hold up every question that met it first.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::latency::Histogram;

/// How long a stumble counts against an upstream that stumbles again. Chosen without a source.
const FLAP_MEMORY: Duration = Duration::from_secs(60);
/// Stumbles told apart: the fifth and every further one ask for sixteen good probes, eight seconds.
const MOST_STUMBLES: u32 = 5;
/// An upstream that failed so many of the last 32 questions, each of which another one answered well, is put behind.
const MOST_ERRORS: usize = 20;
/// Failures of one domain that count among them: whose servers answer one resolver and not the other must not put it behind
/// for everybody.
const OF_A_DOMAIN: usize = 4;
/// Failures that are remembered of one that was put behind.
const KEPT: usize = 16;
/// For how long. Then it is asked first again, and four further errors put it behind once more.
const BEHIND: Duration = Duration::from_secs(30);
/// How long an upstream is asked over TCP after a flood of datagrams that fitted no question.
const FLOOD_MEMORY: Duration = Duration::from_secs(60);

/// How an upstream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// It answers.
    Up,
    /// It fails most questions that others answer well; asked after those that are up.
    Behind,
    /// It was silent to a probe, or was down and has not answered enough of them since; asked after all others.
    Suspect,
    /// It was silent to every probe for a while; not asked.
    Down,
}

impl Standing {
    /// Every standing, best first.
    pub const ALL: [Self; 4] = [Self::Up, Self::Behind, Self::Suspect, Self::Down];

    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Behind => "behind",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// One upstream's health.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    /// Whether a prober is at work.
    watched: bool,
    /// Last sign of life.
    heard: Option<Instant>,
    /// Good probes in a row, and how many are asked for.
    good: u32,
    needed: u32,
    stumbles: u32,
    stumbled: Option<Instant>,
    rtt: Option<Duration>,
    times: Histogram,
    /// The last 32 questions, each where it failed and another one answered well: by its domain; 0 for all others.
    errors: [u64; 32],
    /// Where the next of them goes.
    next: usize,
    behind_until: Option<Instant>,
    tcp_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    #[default]
    Up,
    Suspect,
    Down,
}

impl State {
    fn stumble(&mut self, now: Instant) {
        if self.stumbled.is_none_or(|at| now.saturating_duration_since(at) > FLAP_MEMORY) {
            self.stumbles = 0;
        }
        self.stumbles = (self.stumbles + 1).min(MOST_STUMBLES);
        self.stumbled = Some(now);
        self.line = Line::Suspect;
        self.good = 0;
        self.needed = 1 << (self.stumbles - 1);
    }

    fn heard_since(&self, since: Instant) -> bool {
        self.heard.is_some_and(|heard| heard >= since)
    }
}

impl Health {
    /// How it stands.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let state = self.state.lock();
        match state.line {
            Line::Up if state.behind_until.is_some_and(|until| now < until) => Standing::Behind,
            Line::Up => Standing::Up,
            Line::Suspect => Standing::Suspect,
            Line::Down => Standing::Down,
        }
    }

    /// Smoothed round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.state.lock().rtt
    }

    /// The time within which 95 of 100 of its responses come; `None` before there are enough of them.
    pub(super) fn p95(&self) -> Option<Duration> {
        self.state.lock().times.p95()
    }

    /// It sent something that fits a question, however late: whoever is a suspect has to show by probes that it is well.
    pub(super) fn heard(&self, now: Instant) {
        self.state.lock().heard = Some(now);
    }

    /// A whole response took `rtt`.
    pub(super) fn took(&self, rtt: Duration) {
        let mut state = self.state.lock();
        // Gain 1/8 (RFC 6298 section 2.3).
        state.rtt = Some(state.rtt.map_or(rtt, |old| old * 7 / 8 + rtt / 8));
        state.times.note(rtt);
    }

    /// A question of then is overdue. `true` if nothing came from it since and the caller must start a prober.
    pub(super) fn overdue(&self, asked: Instant) -> bool {
        let mut state = self.state.lock();
        !state.heard_since(asked) && !std::mem::replace(&mut state.watched, true)
    }

    /// The network said that it cannot be reached. `true` if the caller must start a prober.
    pub(super) fn unreachable(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.line == Line::Up {
            state.stumble(now);
        }
        !std::mem::replace(&mut state.watched, true)
    }

    /// A probe of `since` is not answered as soon as it should be: a suspect, unless there was another sign of life.
    pub(super) fn unheard(&self, since: Instant, now: Instant) {
        let mut state = self.state.lock();
        if state.line == Line::Up && !state.heard_since(since) {
            state.stumble(now);
        }
    }

    /// Not one probe since then was answered. `true` if it was found down just now.
    pub(super) fn silent(&self, since: Instant, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.line == Line::Down || state.heard_since(since) {
            return false;
        }
        if state.line == Line::Up {
            state.stumble(now);
        }
        state.line = Line::Down;
        state.good = 0;
        state.needed = state.needed.max(2);
        true
    }

    /// The newest probe is overdue: good probes are counted anew.
    pub(super) fn missed_probe(&self) {
        self.state.lock().good = 0;
    }

    /// A probe was answered, `in_time` or later than a question may take. `true` if it came back from being down just now.
    pub(super) fn probed(&self, in_time: bool, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.heard = Some(now);
        state.good = if in_time { state.good.saturating_add(1) } else { 0 };
        let was_down = state.line == Line::Down;
        if was_down {
            state.line = Line::Suspect;
        }
        if state.line == Line::Suspect && state.good >= state.needed {
            state.line = Line::Up;
        }
        was_down
    }

    /// Whether the prober may go home, which it then must.
    pub(super) fn is_settled(&self) -> bool {
        let mut state = self.state.lock();
        let up = state.line == Line::Up;
        if up {
            state.watched = false;
        }
        up
    }

    /// Another one answered a question well that this one was asked too, and failed or answered. `failed`: the domain that it
    /// failed, hashed. `true` if it is put behind just now.
    pub(super) fn compared(&self, failed: Option<u64>, now: Instant) -> bool {
        let mut state = self.state.lock();
        let domain = failed.map_or(0, |domain| domain | 1);
        let same = state.errors.iter().filter(|other| **other == domain).count();
        if domain != 0 && same >= OF_A_DOMAIN {
            return false;
        }
        let next = state.next % state.errors.len();
        if let Some(slot) = state.errors.get_mut(next) {
            *slot = domain;
        }
        state.next = next + 1;
        let errors = state.errors.iter().filter(|domain| **domain != 0).count();
        let demoted = domain != 0 && errors >= MOST_ERRORS && state.behind_until.is_none_or(|until| now >= until);
        if demoted {
            state.behind_until = Some(now + BEHIND);
            let mut kept = 0;
            for slot in state.errors.iter_mut().filter(|domain| **domain != 0) {
                kept += 1;
                if kept > KEPT {
                    *slot = 0;
                }
            }
        }
        demoted
    }

    /// Too many datagrams came from its address that fitted no question.
    pub(super) fn flooded(&self, now: Instant) {
        self.state.lock().tcp_until = Some(now + FLOOD_MEMORY);
    }

    /// Whether it is to be asked over TCP from the start.
    pub(super) fn wants_tcp(&self, now: Instant) -> bool {
        self.state.lock().tcp_until.is_some_and(|until| now < until)
    }

    /// TCP is of no use there: a flood must not cost more than the questions it meets.
    pub(super) fn without_tcp(&self) {
        self.state.lock().tcp_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Silent to every probe from `start` on, found down a second later.
    fn fall(health: &Health, start: Instant) {
        health.overdue(start);
        health.unheard(start, at(start, 100));
        assert!(health.silent(start, at(start, 1000)));
    }

    #[test]
    fn silence_to_questions_alone_closes_nothing() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.overdue(now), "the first overdue question asks for a prober");
        for _ in 0..100 {
            assert!(!health.overdue(now), "one prober at a time");
        }
        assert_eq!(health.standing(now), Standing::Up);
        health.probed(true, at(now, 5));
        assert!(health.is_settled());
        assert!(!health.overdue(now), "something came since");
        assert!(health.overdue(at(now, 6)));
    }

    #[test]
    fn a_probe_that_stays_unanswered_makes_a_suspect_and_its_answer_lifts_that() {
        let (health, now) = (Health::default(), Instant::now());
        health.overdue(now);
        health.unheard(now, at(now, 100));
        assert_eq!(health.standing(at(now, 100)), Standing::Suspect);
        assert!(!health.is_settled());
        assert!(!health.probed(true, at(now, 300)), "it was never down");
        assert_eq!(health.standing(at(now, 300)), Standing::Up);
        assert!(health.is_settled());
    }

    #[test]
    fn an_answer_outweighs_a_lost_probe() {
        let (health, now) = (Health::default(), Instant::now());
        health.overdue(now);
        health.heard(at(now, 50));
        health.unheard(now, at(now, 100));
        assert!(!health.silent(now, at(now, 1000)));
        assert_eq!(health.standing(now), Standing::Up);
        health.took(Duration::from_millis(8));
        health.took(Duration::from_millis(16));
        assert_eq!(health.rtt(), Some(Duration::from_millis(9)));
    }

    #[test]
    fn back_from_being_down_it_is_asked_last_until_two_probes_were_good() {
        let (health, now) = (Health::default(), Instant::now());
        fall(&health, now);
        assert_eq!(health.standing(at(now, 1000)), Standing::Down);
        assert!(!health.silent(now, at(now, 2000)), "it was down before");
        assert!(health.probed(true, at(now, 2000)));
        assert_eq!(health.standing(at(now, 2000)), Standing::Suspect);
        health.heard(at(now, 2001));
        assert_eq!(health.standing(at(now, 2001)), Standing::Suspect, "a question's answer is no probe");
        health.missed_probe();
        assert!(!health.probed(true, at(now, 2500)));
        assert_eq!(health.standing(at(now, 2500)), Standing::Suspect, "two in a row");
        health.probed(true, at(now, 3000));
        assert_eq!(health.standing(at(now, 3000)), Standing::Up);
        assert!(health.is_settled());
    }

    #[test]
    fn who_answers_every_probe_late_lives_and_stays_a_suspect() {
        let (health, now) = (Health::default(), Instant::now());
        health.overdue(now);
        health.unheard(now, at(now, 100));
        for turn in 1..10 {
            assert!(!health.probed(false, at(now, 500 * turn)));
            assert_eq!(health.standing(at(now, 500 * turn)), Standing::Suspect);
            assert!(!health.silent(at(now, 500 * turn - 400), at(now, 500 * turn)), "it was heard");
        }
        health.probed(true, at(now, 5000));
        assert_eq!(health.standing(at(now, 5000)), Standing::Up);
        // Late answers count as little for one that was down, and begin the row anew.
        fall(&health, at(now, 6000));
        assert!(health.probed(false, at(now, 7500)), "down no longer");
        health.probed(true, at(now, 8000));
        health.probed(false, at(now, 8500));
        health.probed(true, at(now, 9000));
        assert_eq!(health.standing(at(now, 9000)), Standing::Suspect);
        health.probed(true, at(now, 9500));
        assert_eq!(health.standing(at(now, 9500)), Standing::Up);
    }

    #[test]
    fn who_stumbles_again_and_again_must_show_more() {
        let health = Health::default();
        let mut now = Instant::now();
        let mut needed = Vec::new();
        for _ in 0..7 {
            fall(&health, now);
            let mut good = 0;
            while health.standing(now) != Standing::Up {
                health.probed(true, at(now, 1001));
                good += 1;
            }
            health.is_settled();
            needed.push(good);
            now = at(now, 3000);
        }
        assert_eq!(needed, [2, 2, 4, 8, 16, 16, 16]);
        // A minute of quiet, and all is forgotten.
        now = at(now, 61_000);
        fall(&health, now);
        health.probed(true, now);
        health.probed(true, now);
        assert_eq!(health.standing(now), Standing::Up);
    }

    #[test]
    fn who_fails_what_others_answer_goes_behind_for_a_while() {
        let (health, now) = (Health::default(), Instant::now());
        // Every third question: 10 or 11 of 32.
        let failed = |i: u64| Some(i << 1);
        for i in 0..300 {
            assert!(!health.compared(failed(i).filter(|_| i % 3 == 0), now));
        }
        let after = (1..).find(|i| health.compared(failed(*i), now)).expect("it goes behind");
        assert!((10..=20).contains(&after), "{after}");
        assert_eq!(health.standing(now), Standing::Behind);
        assert!(!health.compared(failed(500), now), "told once");
        let later = at(now, 30_000);
        assert_eq!(health.standing(later), Standing::Up, "tried again");
        let mut again = 1;
        while !health.compared(failed(600 + again), later) {
            again += 1;
        }
        assert!(again <= 4, "{again} further errors");
        for _ in 0..32 {
            health.compared(None, at(later, 40_000));
        }
        assert!(!health.compared(failed(700), at(later, 40_000)), "good answers wash it clean");
    }

    #[test]
    fn few_domains_put_nobody_behind() {
        let (health, now) = (Health::default(), Instant::now());
        for i in 0..1000u64 {
            assert!(!health.compared(Some((i % 4) << 1), now), "{i}");
        }
        let after = (0..100u64).find(|i| health.compared(Some((4 + i % 6) << 1), now)).expect("ten are enough");
        assert!(after <= 10, "{after}");
    }

    #[test]
    fn a_flood_is_remembered_for_a_minute_unless_tcp_is_of_no_use() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(!health.wants_tcp(now));
        health.flooded(now);
        assert!(health.wants_tcp(at(now, 59_999)));
        assert!(!health.wants_tcp(at(now, 60_000)));
        health.flooded(now);
        health.without_tcp();
        assert!(!health.wants_tcp(now));
    }
}
