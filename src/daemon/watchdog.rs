//! The watchdog: tells the supervisor that we are well, for as long as every part that must move has moved.
//!
//! [`Pulse`] is pure: counts and a clock in, the part that stands still out. The thread around it asks the packet
//! filter's owner a small question each time, reads the counts of the UDP workers and of a task in the runtime, and keeps
//! silent when one of them stands still, so that the supervisor ends and starts the service. A thread of its own, because
//! neither a busy runtime nor a reload that reads long lists is a fault.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::enforce::Enforcer;

/// Shortest time between two looks, whatever the supervisor asks for.
const SHORTEST: Duration = Duration::from_millis(20);

/// What must move, and since when it has not.
#[derive(Debug)]
pub struct Pulse {
    patience: Duration,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    count: u64,
    moved: Duration,
}

impl Pulse {
    /// Watches these parts, all well at `now` (from any fixed instant); one that stands still for longer than `patience`
    /// is told.
    pub fn new(names: impl IntoIterator<Item = String>, patience: Duration, now: Duration) -> Self {
        let parts = names.into_iter().map(|name| Part { name, count: 0, moved: now }).collect();
        Self { patience, parts }
    }

    /// Takes the counts of all parts, in the order of their names, and gives the first that stands still. A count may
    /// start anywhere and wrap.
    pub fn look(&mut self, now: Duration, counts: &[u64]) -> Option<&str> {
        for (part, count) in self.parts.iter_mut().zip(counts) {
            if part.count != *count {
                part.count = *count;
                part.moved = now;
            }
        }
        let patience = self.patience;
        let still = self.parts.iter().find(|part| now.saturating_sub(part.moved) > patience);
        still.map(|part| part.name.as_str())
    }
}

/// The running watchdog; ends when it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Arc<AtomicBool>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Watchdog {
    /// Starts to tell the supervisor, which expects to hear of us once in `period`. To be called within the runtime.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start(period: Duration, workers: Vec<Arc<AtomicU64>>, enforcer: Enforcer) -> std::io::Result<Self> {
        let tick = (period / 4).max(SHORTEST);
        let runtime = Arc::new(AtomicU64::new(0));
        let beat = Arc::clone(&runtime);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, stopped) = (Arc::clone(&stop), Arc::clone(&stop));
        tokio::spawn(async move {
            while !ended.load(Relaxed) {
                beat.fetch_add(1, Relaxed);
                tokio::time::sleep(tick).await;
            }
        });
        let start = Instant::now();
        let fixed = ["the runtime".to_owned(), "the packet filter's owner".to_owned()];
        let names = fixed.into_iter().chain((0..workers.len()).map(|i| format!("UDP worker {i}")));
        let mut pulse = Pulse::new(names, period / 2, start.elapsed());
        let look = move || {
            let (mut answers, mut silent) = (0u64, false);
            while !stopped.load(Relaxed) {
                // Waits for a tick where the owner is stuck, and no time at all where it is well.
                let asked = Instant::now();
                if let Ok(ticket) = enforcer.view(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
                    && ticket.wait_blocking(tick).is_ok()
                {
                    answers += 1;
                }
                let status = enforcer.status();
                // A full queue takes no question, and is being worked off all the same.
                let owner = answers.wrapping_add(status.applied).wrapping_add(status.failed);
                let beats = workers.iter().map(|beat| beat.load(Relaxed));
                let counts: Vec<u64> = [runtime.load(Relaxed), owner].into_iter().chain(beats).collect();
                match pulse.look(start.elapsed(), &counts) {
                    None => {
                        // Fails only where no supervisor listens.
                        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                        silent = false;
                    }
                    Some(part) if !silent => {
                        tracing::error!(part, "stands still; the supervisor is no longer told that we are well");
                        silent = true;
                    }
                    Some(_) => {}
                }
                std::thread::sleep(tick.saturating_sub(asked.elapsed()));
            }
        };
        std::thread::Builder::new().name("watchdog".into()).spawn(look)?;
        Ok(Self { stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_stands_still_is_told_and_one_that_moves_again_is_well() {
        let at = Duration::from_secs;
        let mut pulse = Pulse::new(["a".into(), "b".into()], at(5), at(100));
        // (time, counts, what stands still, why)
        let rows: [(u64, [u64; 2], Option<&str>, &str); 8] = [
            (101, [0, 0], None, "nothing has moved yet, and patience lasts"),
            (105, [1, 0], None, "at patience, not past it"),
            (106, [1, 0], Some("b"), "b has stood still for six seconds"),
            (107, [1, 7], None, "b moved, by however much"),
            (110, [1, 6], None, "backwards is moving too: counts wrap"),
            (111, [1, 6], Some("a"), "a moved last at 105"),
            (120, [1, 6], Some("a"), "both stand still: the first is told"),
            (121, [u64::MAX, 0], None, "both moved"),
        ];
        for (now, counts, still, why) in rows {
            assert_eq!(pulse.look(at(now), &counts), still, "{now}: {why}");
        }
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_tells_nothing() {
        let mut pulse = Pulse::new(["a".into()], Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(pulse.look(Duration::from_secs(10), &[0]), None);
        assert_eq!(pulse.look(Duration::ZERO, &[0]), None);
    }
}
