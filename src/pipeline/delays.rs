//! Random waits before a question leaves, so that the moment it is seen outside tells less of the moment it was asked.
//!
//! Knows no session and no name: a question is a hash. One question that is asked several times while it waits leaves
//! at the one moment that was drawn for it first; otherwise a sender could ask many times, and the earliest draw would
//! be next to no wait at all. The moment stands even if the client that asked first has gone away.

use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Most questions that wait at once. Further ones wait the longest: filling this up gains nobody a known moment, since
/// each question in it leaves, at its price.
const WAITING: usize = 4096;

/// Questions that wait, and when each leaves.
#[derive(Debug, Default)]
pub(super) struct Delays {
    leaving: Mutex<HashMap<u64, Instant, foldhash::quality::RandomState>>,
}

impl Delays {
    /// Waits a random time of at most `longest`.
    pub(super) async fn wait(&self, question: u64, longest: Duration) {
        let at = self.at(question, longest, Instant::now(), random());
        tokio::time::sleep_until(at).await;
    }

    /// When `question` leaves. `draw` is uniform; `None` where there is no randomness.
    fn at(&self, question: u64, longest: Duration, now: Instant, draw: Option<u64>) -> Instant {
        // Held for one look-up; what is over is cleared away when the table is full.
        let mut leaving = self.leaving.lock();
        if let Some(at) = leaving.get(&question).filter(|at| **at > now) {
            return *at;
        }
        if leaving.len() >= WAITING {
            leaving.retain(|_, at| *at > now);
        }
        let (Some(draw), true) = (draw, leaving.len() < WAITING) else { return now + longest };
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX - 1) + 1;
        let at = now + Duration::from_micros(draw % micros);
        leaving.insert(question, at);
        at
    }
}

/// From the system's generator: what an agent could compute, it could subtract.
fn random() -> Option<u64> {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).ok()?;
    Some(u64::from_ne_bytes(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(250);

    #[test]
    fn a_draw_is_spread_over_the_whole_time() {
        let (delays, now) = (Delays::default(), Instant::now());
        let waits: Vec<Duration> = (0..2_000).map(|q| delays.at(q, LONGEST, now, random()) - now).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        for quarter in 0..4 {
            let from = LONGEST * quarter / 4;
            let share = waits.iter().filter(|wait| (from..from + LONGEST / 4).contains(*wait)).count();
            assert!((400..600).contains(&share), "{share} of 2000 in quarter {quarter}");
        }
        assert_eq!(delays.at(9_999, Duration::ZERO, now, random()), now, "0 is off");
        assert_eq!(delays.at(9_998, LONGEST, now, None), now + LONGEST, "without randomness the longest");
    }

    #[test]
    fn asking_again_neither_shortens_nor_lengthens_it() {
        let (delays, now) = (Delays::default(), Instant::now());
        let at = delays.at(1, LONGEST, now, Some(200_000));
        assert_eq!(at - now, Duration::from_millis(200));
        for (after, draw) in [(0, 0), (50, 0), (199, 240_000)] {
            assert_eq!(delays.at(1, LONGEST, now + Duration::from_millis(after), Some(draw)), at);
        }
        let later = now + Duration::from_millis(201);
        assert_eq!(
            delays.at(1, LONGEST, later, Some(5_000)) - later,
            Duration::from_millis(5),
            "then it is drawn anew"
        );
    }

    #[test]
    fn a_full_table_waits_the_longest_and_what_is_over_makes_room() {
        let (delays, now) = (Delays::default(), Instant::now());
        for question in 0..WAITING as u64 {
            delays.at(question, LONGEST, now, Some(100_000));
        }
        assert_eq!(delays.at(u64::MAX, LONGEST, now, Some(1)) - now, LONGEST);
        assert_eq!(delays.leaving.lock().len(), WAITING);
        let later = now + LONGEST;
        assert_eq!(delays.at(u64::MAX, LONGEST, later, Some(1)) - later, Duration::from_micros(1));
        assert_eq!(delays.leaving.lock().len(), 1);
    }

    #[test]
    fn a_client_that_goes_away_changes_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let delays = Delays::default();
            let begun = Instant::now();
            let at = delays.at(7, LONGEST, begun, Some(30_000));
            let gone = tokio::time::timeout(Duration::from_millis(1), delays.wait(7, LONGEST)).await;
            assert!(gone.is_err(), "it went away while it waited");
            delays.wait(7, LONGEST).await;
            assert!(Instant::now() >= at && at - begun == Duration::from_millis(30));
        });
    }
}
