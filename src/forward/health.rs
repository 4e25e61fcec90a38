//! How an upstream stands: up, under suspicion, or down, and when it is looked at again.
//!
//! Knows no socket and no clock. Silence makes a suspect; only a probe with a question of our own can find it down, and
//! any sign of life lifts both.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A down upstream is probed once in this time, while there are questions.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How an upstream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It answers.
    Up,
    /// It was silent and a probe is under way; asked after those that are up.
    Suspect,
    /// It was silent to a probe; not asked.
    Down,
}

/// One upstream's health.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    probing: bool,
    next_probe: Option<Instant>,
    rtt: Option<Duration>,
}

impl Default for State {
    fn default() -> Self {
        Self { standing: Standing::Up, probing: false, next_probe: None, rtt: None }
    }
}

impl Health {
    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        self.state.lock().standing
    }

    /// Smoothed round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.state.lock().rtt
    }

    /// It answered a question, in `rtt` where that was measured.
    pub(super) fn answered(&self, rtt: Option<Duration>) {
        let mut state = self.state.lock();
        state.standing = Standing::Up;
        if let Some(rtt) = rtt {
            // Gain 1/8 (RFC 6298 section 2.3).
            state.rtt = Some(state.rtt.map_or(rtt, |old| old * 7 / 8 + rtt / 8));
        }
    }

    /// It was silent to a session's question. `true` if the caller must probe it now.
    pub(super) fn silent(&self) -> bool {
        let mut state = self.state.lock();
        if state.standing == Standing::Up {
            state.standing = Standing::Suspect;
        }
        state.standing == Standing::Suspect && !std::mem::replace(&mut state.probing, true)
    }

    /// It is down and the time has come. `true` if the caller must probe it now; nobody else is told so meanwhile.
    pub(super) fn probe_due(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let due = state.standing == Standing::Down && !state.probing && state.next_probe.is_none_or(|at| now >= at);
        if due {
            state.probing = true;
            state.next_probe = Some(now + PROBE_EVERY);
        }
        due
    }

    /// A probe's outcome. `true` if it was found down just now.
    pub(super) fn probed(&self, alive: bool, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.probing = false;
        // A suspect that answered a question meanwhile is up, whatever became of the probe.
        let fell = !alive && state.standing == Standing::Suspect;
        if alive {
            state.standing = Standing::Up;
        } else if fell {
            state.standing = Standing::Down;
            state.next_probe = Some(now + PROBE_EVERY);
        }
        fell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_alone_never_closes_an_upstream() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.silent(), "the first silence asks for a probe");
        for _ in 0..100 {
            assert!(!health.silent(), "one probe at a time");
        }
        assert_eq!(health.standing(), Standing::Suspect);
        assert!(!health.probed(true, now));
        assert_eq!(health.standing(), Standing::Up);
        assert!(health.silent());
    }

    #[test]
    fn a_down_upstream_is_probed_once_a_second() {
        let (health, start) = (Health::default(), Instant::now());
        health.silent();
        assert!(health.probed(false, start));
        assert_eq!(health.standing(), Standing::Down);
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!health.probe_due(at(999)));
        assert!(health.probe_due(at(1000)));
        assert!(!health.probe_due(at(1001)), "a probe is under way");
        assert!(!health.probed(false, at(1900)), "it was down before");
        assert!(!health.probe_due(at(1999)));
        assert!(health.probe_due(at(2000)), "counted from the last probe's start");
        health.probed(true, at(2001));
        assert_eq!(health.standing(), Standing::Up);
        assert!(!health.probe_due(at(9000)));
    }

    #[test]
    fn an_answer_outweighs_a_lost_probe() {
        let (health, now) = (Health::default(), Instant::now());
        health.silent();
        health.answered(Some(Duration::from_millis(8)));
        assert!(!health.probed(false, now));
        assert_eq!(health.standing(), Standing::Up);
        health.answered(Some(Duration::from_millis(16)));
        assert_eq!(health.rtt(), Some(Duration::from_millis(9)));
    }
}
