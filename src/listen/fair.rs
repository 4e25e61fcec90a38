//! Fairness between sources where a worker gets more datagrams than it can judge.
//!
//! While more waits than is taken in one call, what the kernel drops it drops blindly, and a flood takes everybody's
//! place in the socket's queue. The remedy is to empty the queue faster than it fills: sources that send more than a level
//! are shed, before anything of their datagrams is read. The level falls with every window of time in which the queue was
//! never empty and rises with every other, so it settles where the queue just empties: whoever sends less than that is not
//! touched, and those above it share what is left evenly (max-min fairness). Shed datagrams are counted, and not
//! answered. Where even the lowest level does not empty the queue, the flood is faster than a worker discards, and its
//! sources are named for [`super::bar`].
//!
//! Pure. Costs two comparisons a batch while there is no backlog. A table of fixed size is all the state: sources that fall
//! into one slot share it, the slots are chosen by a keyed hash, and one in so many is what a flood can hit beside itself.
//! An IPv6 host may use any address of its /64, so these count as one. A flood with forged sources shares no slot and is
//! none of this module's: rp_filter and the lockdown's source sets are what keeps those out.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::quality::RandomState;

use super::bar::SOURCES;
use super::mmsg::BATCH;
use crate::range::prefix_of;

/// Slots for sources.
const SLOTS: usize = 2048;
/// Length of a window, milliseconds: short against a stub's patience, long enough for a few hundred judgements.
const WINDOW: u64 = 10;
/// The level at which nobody is shed: more than a worker takes from a socket in a window.
const OPEN: u32 = 16_384;
/// The lowest level: so many in a window a source may always send to each worker, 800 a second.
const LEAST: u32 = 8;
/// Down to here the level falls by half, below by a quarter.
const STEEP: u32 = 256;
/// So many datagrams in a window make a source one that may be barred: 25,600 a second to one worker.
const HEAVY: u32 = 256;
/// So many windows at the lowest level without an empty queue show that discarding does not help.
const OVERRUN: u32 = 2;

/// Counts of one worker.
pub(super) struct Fair {
    hasher: RandomState,
    /// Of each slot: the window it was last counted in, and how many datagrams came in it.
    slots: Box<[(u32, u32)]>,
    /// Number of the window under way, and when it ends (milliseconds, monotonic).
    window: u32,
    ends: u64,
    /// Whether a batch of it emptied the queue.
    drained: bool,
    /// Whether the last batch did.
    emptied: bool,
    /// Most datagrams of one slot in a window.
    level: u32,
    /// Windows in a row at the lowest level in which the queue was never empty: discarding is not fast enough.
    overrun: u32,
    /// Sources of very many datagrams in the window under way, and in the one before it.
    heavy: Vec<IpAddr>,
    heaviest: Vec<IpAddr>,
}

impl Fair {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            slots: vec![(0, 0); SLOTS].into(),
            window: 1,
            ends: 0,
            drained: true,
            emptied: true,
            level: OPEN,
            overrun: 0,
            heavy: Vec::with_capacity(SOURCES),
            heaviest: Vec::with_capacity(SOURCES),
        }
    }

    /// A batch of `count` datagrams is at hand at `now` (milliseconds, monotonic). Whether each of them has to be asked
    /// about ([`Self::admits`]).
    pub(super) fn begin(&mut self, count: usize, now: u64) -> bool {
        if now >= self.ends {
            // Windows without a batch were quiet ones, unless the worker left a full queue: then it was kept from running.
            let quiet = if self.emptied { (now - self.ends) / WINDOW } else { 0 };
            let rises = quiet.min(100) + u64::from(self.drained);
            self.overrun = if rises == 0 && self.level == LEAST { self.overrun + 1 } else { 0 };
            std::mem::swap(&mut self.heavy, &mut self.heaviest);
            self.heavy.clear();
            if rises == 0 {
                // High levels are passed quickly: they bind nobody but a flood.
                let fall = if self.level > STEEP { 2 } else { 4 };
                self.level = (self.level - self.level / fall).max(LEAST);
            }
            for _ in 0..rises {
                self.level = (self.level + self.level.div_ceil(8)).min(OPEN);
            }
            (self.ends, self.drained) = (now + WINDOW, false);
            self.window = self.window.wrapping_add(1);
        }
        let backlog = count >= BATCH;
        self.emptied = !backlog;
        self.drained |= !backlog;
        backlog || self.level < OPEN
    }

    /// Whether the next datagram, from `source`, is judged; what is not is to be dropped.
    pub(super) fn admits(&mut self, source: IpAddr) -> bool {
        let at = self.hasher.hash_one(prefix_of(source, (32, 64))) as usize % SLOTS;
        let Some((window, count)) = self.slots.get_mut(at) else { return true };
        if *window != self.window {
            (*window, *count) = (self.window, 0);
        }
        *count = count.saturating_add(1);
        if *count == HEAVY && self.heavy.len() < SOURCES {
            self.heavy.push(source);
        }
        *count <= self.level
    }

    /// Who has to be kept out of the queue itself, since more comes than a worker can discard; told once, and again only if
    /// it is still so some windows later.
    pub(super) fn overrun(&mut self) -> Option<&[IpAddr]> {
        if self.overrun < OVERRUN || self.heaviest.is_empty() {
            return None;
        }
        self.overrun = 0;
        Some(&self.heaviest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    /// A socket whose queue holds `ROOM` and drops the rest, read by a worker that judges one datagram in the time in which
    /// it sheds ten and in which `offered` of every source come.
    struct Rig {
        fair: Fair,
        queue: std::collections::VecDeque<u32>,
        judged: Vec<u32>,
        sent: Vec<u32>,
        /// Judgements' worth of time so far.
        past: f64,
    }

    /// Judgements in a millisecond.
    const PACE: f64 = 150.0;
    const ROOM: usize = 5000;

    impl Rig {
        fn new(sources: usize) -> Self {
            let (judged, sent) = (vec![0; sources], vec![0; sources]);
            Self { fair: Fair::new(), queue: Default::default(), judged, sent, past: 0.0 }
        }

        /// `rates`: datagrams of each source in the time of one judgement.
        fn run(&mut self, rates: &[f64], judgements: u32, fair: bool) {
            let mut due = vec![0.0; rates.len()];
            let mut time = f64::from(judgements);
            while time > 0.0 {
                let batch: Vec<u32> = self.queue.drain(..self.queue.len().min(BATCH)).collect();
                let asks = self.fair.begin(batch.len(), 1000 + (self.past / PACE) as u64);
                let mut spent = 0.2;
                for from in batch {
                    let judged = !fair || !asks || self.fair.admits(source(from));
                    spent += if judged { 1.0 } else { 0.1 };
                    self.judged[from as usize] += u32::from(judged);
                }
                time -= spent;
                self.past += spent;
                // What comes meanwhile comes mixed.
                for (due, rate) in due.iter_mut().zip(rates) {
                    *due += rate * spent;
                }
                while let Some(from) =
                    (0..due.len()).filter(|n| due[*n] >= 1.0).max_by(|a, b| due[*a].total_cmp(&due[*b]))
                {
                    due[from] -= 1.0;
                    self.sent[from] += 1;
                    if self.queue.len() < ROOM {
                        self.queue.push_back(from as u32);
                    }
                }
            }
        }

        /// Run until the level has settled, and then counted.
        fn settled(rates: &[f64]) -> Self {
            let mut rig = Self::new(rates.len());
            rig.run(rates, 50_000, true);
            rig.judged.fill(0);
            rig.sent.fill(0);
            rig.run(rates, 200_000, true);
            rig
        }

        fn share(&self, source: usize) -> f64 {
            f64::from(self.judged[source]) / f64::from(self.sent[source])
        }
    }

    #[test]
    fn without_backlog_nobody_is_asked_about() {
        let mut fair = Fair::new();
        assert!((1..BATCH).all(|count| !fair.begin(count, count as u64 * 7)));
        let mut rig = Rig::new(3);
        rig.run(&[0.5, 0.2, 0.1], 100_000, true);
        assert!((0..3).all(|n| rig.share(n) > 0.99));
    }

    #[test]
    fn a_flood_of_one_source_costs_the_others_little() {
        let rates = [5.0, 0.1, 0.02];
        let mut blind = Rig::new(3);
        blind.run(&rates, 200_000, false);
        assert!(blind.share(1) < 0.3, "the kernel alone drops blindly: {}", blind.share(1));
        let rig = Rig::settled(&rates);
        assert!(rig.share(1) > 0.97 && rig.share(2) > 0.97, "{} {}", rig.share(1), rig.share(2));
        // The rest of its time the worker still judges for the flood.
        let all: u32 = rig.judged.iter().sum();
        assert!(all > 80_000, "{all} of 200,000 judged");
    }

    #[test]
    fn a_flood_faster_than_it_is_discarded_is_named_and_no_other() {
        let mut fair = Fair::new();
        // Never an empty queue; one of 32 is somebody else's.
        let named = (0..20_000).find_map(|turn| {
            let asks = fair.begin(BATCH, 1000 + turn / 10);
            (0..BATCH).for_each(|n| _ = asks && fair.admits(source(if n == 0 { 7 } else { 1 })));
            fair.overrun().map(|sources| (turn, sources.to_vec()))
        });
        let (turn, sources) = named.expect("named in the end");
        assert_eq!(sources, [source(1)]);
        assert!(turn / 10 < 400, "within 0.4 s: {} ms", turn / 10);
        assert!(fair.overrun().is_none(), "told once");
        // What can be discarded is nobody's business here.
        let mut rig = Rig::new(2);
        rig.run(&[5.0, 0.1], 200_000, true);
        assert!(rig.fair.overrun().is_none());
    }

    #[test]
    fn a_worker_that_was_kept_from_running_does_not_take_it_for_quiet() {
        let (mut kept, mut quiet) = (Fair::new(), Fair::new());
        for turn in 0..200 {
            kept.begin(BATCH, 1000 + turn * 5 * WINDOW);
            quiet.begin(if turn % 4 == 0 { BATCH } else { 1 }, 1000 + turn * 5 * WINDOW);
        }
        assert!(kept.level == LEAST && quiet.level > OPEN / 2, "{} {}", kept.level, quiet.level);
    }

    #[test]
    fn who_sends_most_is_cut_first() {
        let rig = Rig::settled(&[2.0, 0.6, 0.1]);
        assert!(rig.share(2) > 0.95, "{}", rig.share(2));
        assert!(rig.share(0) < rig.share(1) && rig.share(1) < 1.0, "{} {}", rig.share(0), rig.share(1));
        assert!(rig.judged[0] as f64 > rig.judged[1] as f64 * 0.7, "{:?}", rig.judged);
    }

    #[test]
    fn after_a_flood_everything_is_as_before() {
        let mut rig = Rig::new(2);
        rig.run(&[8.0, 0.05], 50_000, true);
        assert!(rig.fair.level < OPEN);
        // Two thirds of a second.
        rig.run(&[0.4, 0.05], 100_000, true);
        assert_eq!(rig.fair.level, OPEN);
        let mut fair = rig.fair;
        fair.level = LEAST;
        assert!(!fair.begin(1, fair.ends + 1000), "a second of silence");
    }

    #[test]
    fn a_host_with_many_ipv6_addresses_is_one_source() {
        let mut fair = Fair::new();
        fair.level = LEAST;
        fair.ends = 5000;
        assert!(fair.begin(BATCH, 4999));
        let got = (0..600u128).filter(|n| fair.admits(IpAddr::V6((0x2001_0db8_u128 << 96 | n << 8).into()))).count();
        assert_eq!(got, LEAST as usize);
    }
}
