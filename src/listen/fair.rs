//! Fairness between sources where a worker gets more datagrams than it can judge.
//!
//! What the kernel drops it drops blindly, and a flood takes everybody's place in the socket's queue. The remedy, once that is
//! crowded ([`super::crowd`]), is to empty it faster than it fills: sources that send more than a level are shed, before
//! anything of their datagrams is read. The level falls with every window of time in which the queue was never empty and rises
//! with every other, so it settles where the queue just empties: whoever sends less than that is not touched, and those
//! above it share what is left evenly (max-min fairness). Shed datagrams are counted, and not answered. Since shedding costs a part of what answering does, sources of very many datagrams are named for
//! [`super::bar`], which has the kernel drop most of what would be shed.
//!
//! Pure. Costs two comparisons a batch while there is no crowd. A table of fixed size is all the state: sources that fall
//! into one slot share it, the slots are chosen by a keyed hash, and one in so many is what a flood can hit beside itself.
//! An IPv6 host may use any address of its /64, so these count as one, but for addresses that are known to be somebody's:
//! sandboxes of one network are neighbours in one /64 ([`home_of`]). A flood with forged sources shares no slot and is
//! none of this module's: rp_filter and the lockdown's source sets are what keeps those out.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::quality::RandomState;

use super::Home;
use super::bar::{Count, HEAVY, SOURCES};
use crate::range::prefix_of;

/// Slots for sources.
const SLOTS: usize = 2048;
/// Length of a window, milliseconds: short against a stub's patience, long enough for a few hundred judgements.
pub(super) const WINDOW: u64 = 10;
/// The level at which nobody is shed: more than a worker takes from a socket in a window.
const OPEN: u32 = 16_384;
/// The lowest level: so many in a window a source may always send to each worker, 800 a second.
const LEAST: u32 = 8;
/// Down to here the level falls by half, below by a quarter; by an eighth where the kernel drops most of a flood already.
const STEEP: u32 = 256;
/// The level is never raised beyond this many times what the busiest source sends while that is so.
const ROOMY: u32 = 2;
/// A level below twice this is raised whatever comes: nobody needs to be held there.
const SLOW: u32 = 64;

/// What begins with a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Whether a window is over: [`Fair::heaviest`] and [`Fair::count`] tell of it.
    pub(super) ends: bool,
    /// Whether each datagram has to be asked about ([`Fair::admits`]).
    pub(super) asks: bool,
}

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
    /// Most datagrams of one slot in a window, in the one under way and in the one before it.
    level: u32,
    was: u32,
    /// What came of the busiest slot in the window under way.
    most: u32,
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
            was: OPEN,
            most: 0,
            heavy: Vec::with_capacity(SOURCES),
            heaviest: Vec::with_capacity(SOURCES),
        }
    }

    /// Whether nobody is shed: then more than a batch that waits is no reason to begin, and a crowd is.
    pub(super) fn is_open(&self) -> bool {
        self.level == OPEN
    }

    /// A batch is at hand at `now` (milliseconds, monotonic), and behind it there are more, too many where nobody is shed yet
    /// (`more`); the kernel drops a part of what the busiest sources send or not (`barred`).
    pub(super) fn begin(&mut self, more: bool, now: u64, barred: bool) -> Turn {
        let ends = now >= self.ends;
        if ends {
            self.turn(now, barred);
        }
        self.emptied = !more;
        self.drained |= !more;
        Turn { ends, asks: more || barred || self.level < OPEN }
    }

    /// One window is over and the next begins.
    fn turn(&mut self, now: u64, barred: bool) {
        // Windows without a batch were quiet ones, unless the worker left a full queue: then it was kept from running.
        let quiet = if self.emptied { (now - self.ends) / WINDOW } else { 0 };
        let rises = quiet.min(100) + u64::from(self.drained);
        self.was = self.level;
        if rises == 0 {
            // What binds nobody is passed at once; the busiest source is held in the second such window.
            self.level = self.level.min(self.most.saturating_mul(2));
            let fall = match self.level > STEEP {
                _ if barred => 8,
                true => 2,
                false => 4,
            };
            self.level = (self.level - self.level / fall).max(LEAST);
        }
        let (step, highest) = if barred { (16, (ROOMY * self.most.max(SLOW)).min(OPEN)) } else { (8, OPEN) };
        for _ in 0..rises {
            let raised = self.level + self.level.div_ceil(step);
            self.level = raised.min(highest).max(self.level);
        }
        std::mem::swap(&mut self.heavy, &mut self.heaviest);
        self.heavy.clear();
        (self.ends, self.drained, self.most) = (now + WINDOW, false, 0);
        self.window = self.window.wrapping_add(1);
    }

    /// Whether the next datagram, from `source` (of [`home_of`]), is judged; what is not is to be dropped.
    pub(super) fn admits(&mut self, source: IpAddr) -> bool {
        let at = self.slot_of(source);
        let Some((window, count)) = self.slots.get_mut(at) else { return true };
        if *window != self.window {
            (*window, *count) = (self.window, 0);
        }
        *count = count.saturating_add(1);
        self.most = self.most.max(*count);
        if *count == HEAVY && self.heavy.len() < SOURCES {
            self.heavy.push(source);
        }
        *count <= self.level
    }

    /// Sources of very many datagrams in the window that is over.
    pub(super) fn heaviest(&self) -> &[IpAddr] {
        &self.heaviest
    }

    /// What was counted of a source in the window that is over; to be asked before anything is counted in the next.
    pub(super) fn count(&self, source: IpAddr) -> Count {
        match self.slots.get(self.slot_of(source)) {
            Some((window, came)) if window.wrapping_add(1) == self.window => {
                Count { came: *came, judged: (*came).min(self.was), level: self.was }
            }
            _ => Count::default(),
        }
    }

    fn slot_of(&self, source: IpAddr) -> usize {
        self.hasher.hash_one(source) as usize % SLOTS
    }
}

/// What is counted as one source: an IPv4 address, an IPv6 address that `home` knows to be somebody's, else its /64, which is
/// written as its first address.
pub(super) fn home_of(from: IpAddr, home: impl FnOnce(IpAddr) -> Home) -> IpAddr {
    let from = from.to_canonical();
    let network = prefix_of(from, (32, 64));
    if from == network || home(from).address == network { network } else { from }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::listen::bar::Bar;

    fn source(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    /// A socket whose queue holds `ROOM` and drops the rest, read by a worker that judges one datagram in the time in which
    /// it sheds three and in which `offered` of every source come.
    struct Rig {
        fair: Fair,
        bar: Bar,
        socket: UdpSocket,
        queue: std::collections::VecDeque<u32>,
        judged: Vec<u32>,
        sent: Vec<u32>,
        shed: u32,
        /// Judgements' worth of time so far.
        past: f64,
        chance: u64,
    }

    /// Judgements in a millisecond.
    const PACE: f64 = 150.0;
    const ROOM: usize = 5000;
    /// So many waiting are a crowd.
    const CROWD: usize = 1000;
    /// Most taken at once.
    const BATCH: usize = 64;
    /// What it costs to shed one, in judgements.
    const SHEDDING: f64 = 0.3;

    /// Who does something about a flood.
    #[derive(Clone, Copy, PartialEq)]
    enum Who {
        Nobody,
        Fair,
        Both,
    }

    impl Rig {
        fn new(sources: usize) -> Self {
            Self {
                fair: Fair::new(),
                bar: Bar::default(),
                socket: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
                queue: Default::default(),
                judged: vec![0; sources],
                sent: vec![0; sources],
                shed: 0,
                past: 0.0,
                chance: 1,
            }
        }

        /// `rates`: datagrams of each source in the time of one judgement; the worker runs `turn` of every ten milliseconds.
        fn run(&mut self, rates: &[f64], judgements: u32, who: Who, turn: f64) {
            let mut due = vec![0.0; rates.len()];
            let ends = self.past + f64::from(judgements);
            while self.past < ends {
                let (period, at) = (PACE * 10.0, self.past % (PACE * 10.0));
                let mut spent = 0.2;
                if at > period * turn {
                    spent = period - at;
                } else if !self.queue.is_empty() {
                    spent += self.batch(who);
                }
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
                    self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let chance = (self.chance >> 33) as f64 / (1u64 << 31) as f64;
                    if self.queue.len() < ROOM && chance < self.bar.part_of(source(from as u32)) {
                        self.queue.push_back(from as u32);
                    }
                }
            }
        }

        /// Takes one batch; the judgements that it costs.
        fn batch(&mut self, who: Who) -> f64 {
            let batch: Vec<u32> = self.queue.drain(..self.queue.len().min(BATCH)).collect();
            let now = 1000 + (self.past / PACE) as u64;
            let is_open = self.fair.is_open() && !self.bar.is_down();
            let more = batch.len() == BATCH && (!is_open || self.queue.len() > CROWD);
            let turn = self.fair.begin(more, now, self.bar.is_down());
            if turn.ends && who == Who::Both {
                let (fair, bar) = (&self.fair, &mut self.bar);
                bar.adjust(&self.socket, now, fair.heaviest(), |source| fair.count(source)).expect("taken");
            }
            let mut spent = 0.0;
            for from in batch {
                let judged = who == Who::Nobody || !turn.asks || self.fair.admits(source(from));
                spent += if judged { 1.0 } else { SHEDDING };
                self.judged[from as usize] += u32::from(judged);
                self.shed += u32::from(!judged);
            }
            spent
        }

        /// Run until it has settled, and then counted: two thirds of a second.
        fn settled(rates: &[f64], who: Who, turn: f64) -> Self {
            let mut rig = Self::new(rates.len());
            rig.run(rates, 50_000, who, turn);
            rig.judged.fill(0);
            rig.sent.fill(0);
            rig.shed = 0;
            rig.run(rates, 100_000, who, turn);
            rig
        }

        fn share(&self, source: usize) -> f64 {
            f64::from(self.judged[source]) / f64::from(self.sent[source])
        }
    }

    #[test]
    fn without_a_crowd_nobody_is_asked_about() {
        let mut fair = Fair::new();
        assert!((1..100).all(|turn| !fair.begin(false, turn * 7, false).asks));
        let mut rig = Rig::new(3);
        rig.run(&[0.5, 0.2, 0.1], 100_000, Who::Both, 1.0);
        assert!((0..3).all(|n| rig.share(n) > 0.99) && !rig.bar.is_down());
    }

    /// One client has some hundred questions under way at once: every batch is full, and nobody harmed.
    #[test]
    fn full_batches_alone_are_no_flood() {
        let mut rig = Rig::new(1);
        for _ in 0..20_000 {
            while rig.queue.len() < 300 {
                rig.queue.push_back(0);
            }
            rig.past += 0.2 + rig.batch(Who::Both);
        }
        assert!(rig.shed == 0 && rig.fair.is_open() && !rig.bar.is_down(), "{} shed", rig.shed);
    }

    #[test]
    fn a_flood_of_one_source_costs_the_others_little() {
        let rates = [2.0, 0.1, 0.02];
        let mut blind = Rig::new(3);
        blind.run(&rates, 100_000, Who::Nobody, 1.0);
        assert!(blind.share(1) < 0.6, "the kernel alone drops blindly: {}", blind.share(1));
        let rig = Rig::settled(&rates, Who::Fair, 1.0);
        assert!(rig.share(1) > 0.97 && rig.share(2) > 0.97, "{} {}", rig.share(1), rig.share(2));
    }

    /// Floods of 3 and of 40 times what can be judged, to a worker that has a processor, and to one that gets a fifth of one.
    #[test]
    fn of_a_flood_the_kernel_drops_what_would_be_shed() {
        for (flood, turn, part) in [(3.0, 1.0, 0.65), (40.0, 1.0, 0.65), (3.0, 0.2, 0.3), (40.0, 0.2, 0.3)] {
            let rates = [flood, 0.02];
            let alone = Rig::settled(&rates, Who::Fair, turn);
            let rig = Rig::settled(&rates, Who::Both, turn);
            let of_all = |rig: &Rig| f64::from(rig.judged.iter().sum::<u32>()) / (100_000.0 * turn);
            println!(
                "FIGURE: flood of {flood} to {turn} of a processor: {:.2} of the time spent on answers, {:.2} where all is \
                 read; the other source {:.3}, {:.3}",
                of_all(&rig),
                of_all(&alone),
                rig.share(1),
                alone.share(1)
            );
            assert!(rig.share(1) > 0.97, "{flood} {turn}: {}", rig.share(1));
            // What is left is spent on answers, and so goes to the flood.
            assert!(of_all(&rig) > part && of_all(&rig) > 2.0 * of_all(&alone), "{flood} {turn}: {}", of_all(&rig));
            assert!(f64::from(rig.shed) < 0.8 * f64::from(rig.judged[0]), "{flood} {turn}: {}", rig.shed);
        }
    }

    #[test]
    fn a_flood_in_bursts_finds_the_bar_where_it_was() {
        let mut rig = Rig::new(2);
        for _ in 0..10 {
            rig.run(&[40.0, 0.02], 15_000, Who::Both, 1.0);
            rig.run(&[0.0, 0.02], 15_000, Who::Both, 1.0);
        }
        assert!(rig.share(1) > 0.9, "{}", rig.share(1));
    }

    #[test]
    fn a_worker_that_was_kept_from_running_does_not_take_it_for_quiet() {
        let (mut kept, mut quiet) = (Fair::new(), Fair::new());
        for turn in 0..200 {
            let now = 1000 + turn * 5 * WINDOW;
            (0..BATCH).for_each(|_| _ = kept.begin(true, now, false).asks && kept.admits(source(1)));
            let count = if turn % 4 == 0 { BATCH } else { 1 };
            (0..count).for_each(|_| _ = quiet.begin(count == BATCH, now, false).asks && quiet.admits(source(1)));
        }
        assert!(kept.level == LEAST && quiet.level > 4 * BATCH as u32, "{} {}", kept.level, quiet.level);
    }

    #[test]
    fn who_sends_most_is_cut_first() {
        for who in [Who::Fair, Who::Both] {
            let rig = Rig::settled(&[1.5, 0.5, 0.05], who, 1.0);
            assert!(rig.share(2) > 0.95, "{}", rig.share(2));
            assert!(rig.share(0) < rig.share(1) && rig.share(1) < 1.0, "{} {}", rig.share(0), rig.share(1));
            assert!(f64::from(rig.judged[0]) > f64::from(rig.judged[1]) * 0.7, "{:?}", rig.judged);
        }
    }

    #[test]
    fn after_a_flood_everything_is_as_before() {
        let mut rig = Rig::new(2);
        rig.run(&[8.0, 0.05], 50_000, Who::Both, 1.0);
        assert!(rig.fair.level < OPEN && rig.bar.is_down());
        // A second.
        rig.run(&[0.4, 0.05], 150_000, Who::Both, 1.0);
        assert!(rig.fair.level == OPEN && !rig.bar.is_down());
        let mut fair = rig.fair;
        fair.level = LEAST;
        assert!(!fair.begin(false, fair.ends + 1000, false).asks, "a second of silence");
    }

    #[test]
    fn a_host_with_many_ipv6_addresses_is_one_source_and_a_known_neighbour_another() {
        let mut fair = Fair::new();
        fair.level = LEAST;
        fair.ends = 5000;
        assert!(fair.begin(true, 4999, false).asks);
        let host = |n: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | n << 8).into());
        let known = host(1000);
        let home =
            |from| Home { address: if from == known { known } else { prefix_of(from, (32, 64)) }, announced: true };
        let got = (0..600).filter(|n| fair.admits(home_of(host(*n), home))).count();
        assert_eq!(got, LEAST as usize);
        let got = (0..600).filter(|_| fair.admits(home_of(known, home))).count();
        assert_eq!(got, LEAST as usize, "what its neighbours send is not its own");
        let mapped = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(home_of(mapped, home), IpAddr::from([192, 0, 2, 1]));
    }
}
