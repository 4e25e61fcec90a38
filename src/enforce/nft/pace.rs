//! How often work may be done that takes a share of a thread's time.
//!
//! What counts is first of all the processor time of the work: on a machine that is busy with other things the wall clock goes on while
//! nothing of ours is done, and a comparison that was held up for 30 ms would keep the next one waiting for seconds, with what
//! somebody has destroyed or slipped in meanwhile left as it is.

use std::time::{Duration, Instant};

/// Of the time that work lasted, whatever it did in it, so many times as much passes before the next.
const WAITED: u32 = 3;
/// But no more than that: what somebody has destroyed meanwhile must not stay so because a machine stood still.
const LONGEST: Duration = Duration::from_secs(1);

/// A piece of work of this thread, from its beginning.
#[derive(Debug)]
pub(super) struct Work {
    spent: Duration,
    begun: Instant,
}

impl Work {
    pub(super) fn begin() -> Self {
        Self { spent: spent(), begun: Instant::now() }
    }

    /// The processor time it has taken so far, in the kernel too.
    pub(super) fn took(&self) -> Duration {
        spent().saturating_sub(self.spent)
    }

    /// How long to rest behind it, where it may take one part in `share` of a processor. Work that waited, for a processor or for a
    /// lock of the kernel's, leaves the thread most of its time for other work all the same.
    pub(super) fn rest(&self, share: u32) -> Duration {
        (self.took() * share).max((self.begun.elapsed() * WAITED).min(LONGEST))
    }
}

/// What this thread has had of a processor.
fn spent() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills. Linux has this clock for every thread.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A comparison that is to be made, but not before a time.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) wanted: bool,
    not_before: Option<Instant>,
}

impl Due {
    pub(super) fn now(&self) -> bool {
        self.wanted && self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// It was made, and may take one part in `share` of the time.
    pub(super) fn done(&mut self, work: &Work, share: u32) {
        self.wanted = false;
        self.not_before = Some(Instant::now() + work.rest(share));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_work_keeps_a_comparison_waiting() {
        let mut due = Due { wanted: true, not_before: None };
        let (work, begun) = (Work::begin(), Instant::now());
        // As long as somebody else has the processor.
        std::thread::sleep(Duration::from_millis(200));
        due.done(&work, 50);
        assert!(!due.now(), "nothing is suspected any more");
        due.wanted = true;
        while !due.now() {
            assert!(begun.elapsed() < Duration::from_secs(5), "it waits for what others did");
            std::thread::sleep(Duration::from_millis(1));
        }
        let work = Work::begin();
        while work.took() < Duration::from_millis(20) {}
        due.done(&work, 50);
        due.wanted = true;
        assert!(!due.now(), "the control: its share is used up for a second");
    }
}
