//! From what was learned to the thresholds in force: moved only as far as the sample carries, inside stated bounds.
//!
//! A threshold goes **down** (more is refused) where it is sure, at 95 %, that no more pairs pass the lower one than the
//! stated rate; it goes **up** (less is refused) where it is sure that more pass the shipped one than that; and it stays
//! where the sample shows neither. Each has to hold for the deployment's own sample and for that sample together with the
//! shipped distribution. Ledgers are not touched: whatever a threshold is, they bound what leaves.

use serde::{Deserialize, Serialize};
use staunch_scoring::Params;

use super::histogram::{Histogram, PER_NAT, bin_of_nats};
use super::limits::{surely_at_most, surely_more_than, upper_limit};
use super::shipped::{PRIOR_PAIRS, Prior};
use super::sketch::Sketch;
use super::{Config, SCOPES, Source, profile_name};
use crate::lists::Scope;
use crate::model::SessionType;

/// A sinkhole threshold goes up only where this share of the sessions counted has a pair above the shipped one, and at
/// least [`RAISING_SESSIONS`] have: an oddity of few sessions is for a rule to name.
///
/// Chosen without a source: an agent that wants the threshold up has to run in one session of fifty.
pub const RAISING_SHARE: u64 = 50;
/// See [`RAISING_SHARE`].
pub const RAISING_SESSIONS: u64 = 5;

/// Lowest watch threshold that is learned, nats; the sinkhole threshold is the highest. Being watched refuses nothing.
const WATCH_MIN: f32 = 1.0;

/// What a profile has without anything learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Base {
    /// Its thresholds.
    pub params: Params,
    /// Whether the configuration writes one of them: then nothing is learned over it.
    pub written: bool,
    /// Whether sessions of it are scored at all.
    pub scored: bool,
}

/// What a threshold was learned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Sessions.
    pub sessions: u64,
    /// Pairs of session and tenant.
    pub pairs: u64,
    /// From when, milliseconds since the Unix epoch.
    pub since: u64,
    /// Until when, milliseconds since the Unix epoch.
    pub until: u64,
}

impl Sample {
    fn of(sketch: &Sketch) -> Self {
        Self { sessions: sketch.sessions, pairs: sketch.pairs(), since: sketch.since, until: sketch.until }
    }

    fn is_enough(&self, config: &Config) -> bool {
        self.sessions >= config.min_sessions && self.pairs >= config.min_pairs
    }
}

/// Learned thresholds as the journal keeps them, so that a lost index does not take them away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InForce {
    /// Profile: `batch`, `batch.build`.
    pub profile: String,
    /// Nats.
    pub sinkhole: f32,
    /// Nats.
    pub watch: f32,
    /// What it was learned from.
    pub sample: Sample,
    /// [`super::scoring`] it was learned under.
    pub scoring: String,
    /// Version of the product that learned it.
    pub product: String,
}

/// Where thresholds in force come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The product.
    Shipped,
    /// The configuration file.
    Written,
    /// What was learned.
    Learned,
    /// What was learned and in force before; the sketch is gone, the journal has the result.
    Kept,
}

/// The thresholds of one profile, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settled {
    /// Profile: `batch`, `batch.build`.
    pub profile: String,
    /// Nats.
    pub sinkhole: f32,
    /// Nats.
    pub watch: f32,
    /// Where they come from.
    pub from: Origin,
    /// What they were learned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// In words.
    pub why: String,
    /// Whether it stands in, in a deployment that is enforced, for what cannot be learned now.
    #[serde(skip)]
    pub stands_in: bool,
}

impl Settled {
    /// As the journal keeps it, where it was learned.
    pub fn in_force(&self) -> Option<InForce> {
        let sample = self.sample.clone()?;
        matches!(self.from, Origin::Learned | Origin::Kept).then(|| InForce {
            profile: self.profile.clone(),
            sinkhole: self.sinkhole,
            watch: self.watch,
            sample,
            scoring: super::scoring().into(),
            product: env!("CARGO_PKG_VERSION").into(),
        })
    }
}

/// Whether verdicts are applied, to any session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforced {
    /// Monitor mode.
    No,
    /// From now on: what is learned has to carry it.
    FromNowOn,
    /// As before. Neither a few more queries nor another scoring may close the door for good, so what was in force
    /// stands, else what is shipped.
    AsBefore,
}

/// A type whose sample is too small to enforce by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The type.
    pub kind: SessionType,
    /// What there is of it.
    pub sample: Sample,
}

/// What was learned, by scope, and what was in force when the process ended.
pub struct Learned<'l> {
    /// By [`Scope::index`].
    pub sketches: [Option<&'l Sketch>; Scope::COUNT],
    /// From the journal, of this scoring.
    pub kept: &'l [InForce],
    /// From the journal, of another one: of no use.
    pub outdated: &'l [InForce],
}

impl Learned<'_> {
    /// All phases of a type together.
    fn of_type(&self, kind: SessionType) -> Option<Sketch> {
        let mut sketches =
            SCOPES.iter().filter(|(k, _)| *k == kind).filter_map(|(k, p)| self.sketches[Scope::of(*k, *p).index()]);
        let mut merged = sketches.next()?.clone();
        sketches.for_each(|sketch| merged.merge(sketch));
        Some(merged)
    }
}

/// Settles every profile's thresholds, in the order of [`SCOPES`]. `bases` is by [`Scope::index`].
///
/// A phase whose own sample is too small takes that of its type. A type whose sample is too small keeps the shipped
/// thresholds while nothing is `enforced`, and those that were in force where it has been enforced before.
///
/// # Errors
/// Where verdicts are enforced from now on: every type that has been seen, yet too little of it.
pub fn settle(
    config: &Config,
    bases: &[Base; Scope::COUNT],
    enforced: Enforced,
    learned: &Learned<'_>,
) -> Result<Vec<Settled>, Vec<Shortfall>> {
    let (mut settled, mut short) = (Vec::with_capacity(Scope::COUNT), Vec::<Shortfall>::new());
    let mut of_type: Option<(SessionType, Option<Sketch>)> = None;
    for (kind, phase) in SCOPES {
        let index = Scope::of(kind, phase).index();
        let base = &bases[index];
        let profile = profile_name(kind, phase);
        let as_it_is = |from: Origin, why: String| Settled {
            profile: profile.clone(),
            sinkhole: base.params.sinkhole,
            watch: base.params.watch,
            from,
            sample: None,
            why,
            stands_in: false,
        };
        let without = if base.written { Origin::Written } else { Origin::Shipped };
        let reason = match () {
            () if config.thresholds == Source::Off => Some("learned thresholds are off"),
            () if base.written => Some("written in the configuration, which goes before what is learned"),
            () if !config.types.contains(&kind) => Some("not among learn.types"),
            () if !base.scored => Some("its sessions are not scored"),
            () => None,
        };
        if let Some(reason) = reason {
            settled.push(as_it_is(without, reason.into()));
            continue;
        }
        if of_type.as_ref().is_none_or(|(of, _)| *of != kind) {
            of_type = Some((kind, learned.of_type(kind)));
        }
        let whole = of_type.as_ref().and_then(|(_, sketch)| sketch.as_ref());
        let own = learned.sketches[index].filter(|sketch| Sample::of(sketch).is_enough(config));
        if let Some(sketch) = own.or(whole.filter(|sketch| Sample::of(sketch).is_enough(config))) {
            settled.push(moved(config, base, profile, sketch, own.is_none() && phase.is_some()));
            continue;
        }
        let again = enforced == Enforced::AsBefore;
        if let Some(kept) = learned.kept.iter().find(|k| k.profile == profile && (again || k.sample.is_enough(config)))
        {
            settled.push(Settled { stands_in: again, ..kept_as(config, base, kept) });
            continue;
        }
        if again && let Some(old) = learned.outdated.iter().find(|old| old.profile == profile) {
            let why = format!(
                "what was in force was learned by {} under another scoring, so the shipped ones stand in until enough is \
                 seen in monitor mode",
                old.product
            );
            settled.push(Settled { stands_in: true, ..as_it_is(Origin::Shipped, why) });
            continue;
        }
        match whole.filter(|sketch| sketch.pairs() > 0) {
            None => {
                let why = match whole.map_or(0, |sketch| sketch.barred) {
                    0 => "no traffic of this type was seen in monitor mode".into(),
                    left_out => format!(
                        "{left_out} sessions of this type were seen in monitor mode and none is an example: they would have been \
                         closed, or had two domains with too high a score"
                    ),
                };
                settled.push(as_it_is(Origin::Shipped, why));
            }
            Some(sketch) => {
                let sample = Sample::of(sketch);
                let why = format!(
                    "{} sessions and {} pairs of this type were seen; learned thresholds take {} and {}",
                    sample.sessions, sample.pairs, config.min_sessions, config.min_pairs
                );
                if enforced == Enforced::FromNowOn && short.iter().all(|s| s.kind != kind) {
                    short.push(Shortfall { kind, sample });
                }
                let why = if again { why + "; enforced before, so the shipped ones stand in" } else { why };
                settled.push(Settled { stands_in: again, ..as_it_is(Origin::Shipped, why) });
            }
        }
    }
    if short.is_empty() { Ok(settled) } else { Err(short) }
}

/// Thresholds that were in force before, inside the bounds of now.
fn kept_as(config: &Config, base: &Base, kept: &InForce) -> Settled {
    let sinkhole = if kept.sinkhole.is_finite() { kept.sinkhole } else { base.params.sinkhole };
    let watch = if kept.watch.is_finite() { kept.watch } else { base.params.watch };
    let sinkhole = sinkhole.clamp(config.sinkhole_min, config.sinkhole_max);
    Settled {
        profile: kept.profile.clone(),
        sinkhole,
        watch: watch.clamp(WATCH_MIN, sinkhole),
        from: Origin::Kept,
        sample: Some(kept.sample.clone()),
        why: "learned and in force before; there is no sample now that is large enough".into(),
        stands_in: false,
    }
}

/// Thresholds from a sample that is large enough.
fn moved(config: &Config, base: &Base, profile: String, sketch: &Sketch, wider: bool) -> Settled {
    let shipped = bin_of_nats(base.params.sinkhole);
    let enough_sessions =
        sketch.over >= RAISING_SESSIONS && sketch.over.saturating_mul(RAISING_SHARE) >= sketch.sessions;
    let bounds = (edge_above(config.sinkhole_min), bin_of_nats(config.sinkhole_max));
    let evidence =
        Evidence { own: &sketch.refusable, prior: Prior::refusable(), rate: 1.0 / config.pairs_per_alarm as f64 };
    let found = evidence.place(shipped, bounds, enough_sessions);
    let sinkhole = if found.bin == shipped { base.params.sinkhole } else { nats(found.bin) };

    let shipped = bin_of_nats(base.params.watch);
    let bounds = (edge_above(WATCH_MIN), bin_of_nats(sinkhole));
    let watched = Evidence { own: &sketch.any, prior: Prior::any(), rate: 1.0 / config.pairs_per_watch as f64 };
    let bin = watched.place(shipped, bounds, true).bin;
    let watch = if bin == shipped { base.params.watch } else { nats(bin) };

    let mut why = found.why;
    if wider {
        why += "; by the sample of all phases, since this one's is too small";
    }
    Settled {
        profile,
        sinkhole,
        watch: watch.min(sinkhole),
        from: Origin::Learned,
        sample: Some(Sample::of(sketch)),
        why,
        stands_in: false,
    }
}

fn nats(bin: u16) -> f32 {
    f32::from(bin) / f32::from(PER_NAT)
}

/// The first edge between two bins that is no less than `nats`.
fn edge_above(nats: f32) -> u16 {
    (nats * f32::from(PER_NAT)).ceil() as u16
}

/// A sample, the shipped distribution, and the rate that is wanted.
struct Evidence<'e> {
    own: &'e Histogram,
    prior: Prior,
    rate: f64,
}

struct Place {
    bin: u16,
    why: String,
}

impl Evidence<'_> {
    /// Pairs at or above, of how many: own, and with the shipped distribution.
    fn counts(&self, bin: u16) -> [(f64, f64); 2] {
        let (k, n) = (self.own.at_or_above(bin) as f64, self.own.total() as f64);
        [(k, n), (k + self.prior.pairs(bin), n + PRIOR_PAIRS)]
    }

    fn surely_rare(&self, bin: u16) -> bool {
        self.counts(bin).iter().all(|(k, n)| surely_at_most(*k, *n, self.rate))
    }

    fn surely_common(&self, bin: u16) -> bool {
        self.counts(bin).iter().all(|(k, n)| surely_more_than(*k, *n, self.rate))
    }

    /// Where a threshold goes that is shipped in bin `shipped`; bounds include both ends.
    fn place(&self, shipped: u16, (lowest, highest): (u16, u16), may_rise: bool) -> Place {
        let (k, n) = (self.own.at_or_above(shipped), self.own.total());
        let seen = format!(
            "{k} of {n} pairs at or above the shipped {}, so at most 1 in {:.0} (95 %)",
            nats(shipped),
            1.0 / upper_limit(k as f64, n as f64)
        );
        let said = |bin: u16, what: &str| Place { bin, why: format!("{seen}: {what}") };
        if self.surely_rare(shipped) {
            let mut bin = shipped;
            while bin > lowest && self.surely_rare(bin - 1) {
                bin -= 1;
            }
            let what = if bin < shipped { "low enough for a lower one" } else { "low enough, and no lower one is" };
            return said(bin, what);
        }
        if !self.surely_common(shipped) {
            return said(shipped, "too few pairs to tell it from the wanted rate, so the shipped one stands");
        }
        if !may_rise {
            return said(shipped, "more than wanted, but of too few sessions; a rule has to name them");
        }
        let mut bin = shipped;
        while bin < highest && self.surely_common(bin) {
            bin += 1;
        }
        said(bin, "more than wanted, so it goes up")
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Scale;
    use super::*;

    /// Uniform in (0, 1], the same in every run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON
        }
    }

    const SHIPPED: u16 = 64;
    const RATE: f64 = 1e-3;

    /// Where 100 samples of pairs put the threshold whose scores are exponential with this mean.
    fn places(pairs: u32, mean: f64, seed: u64) -> Vec<u16> {
        let mut random = Random(seed);
        let sample = |random: &mut Random| {
            let mut own = Histogram::new(Scale::Nats);
            (0..pairs).for_each(|_| own.add(bin_of_nats((-random.next().ln() * mean) as f32)));
            Evidence { own: &own, prior: Prior::refusable(), rate: RATE }.place(SHIPPED, (48, 96), true).bin
        };
        (0..100).map(|_| sample(&mut random)).collect()
    }

    fn true_rate(bin: u16, mean: f64) -> f64 {
        (-f64::from(nats(bin)) / mean).exp()
    }

    #[test]
    fn a_lowered_threshold_keeps_the_rate_that_was_promised() {
        // Nineteen in twenty, and what chance adds to 100 trials: 5 are expected, more than 11 are seen in one
        // run of two hundred.
        let mut lowered = 0;
        for mean in [0.45, 0.5, 0.54] {
            let places = places(20_000, mean, 7);
            let broken = places.iter().filter(|bin| **bin < SHIPPED && true_rate(**bin, mean) > RATE).count();
            assert!(broken <= 11, "{broken} of 100 at {mean}");
            lowered += places.iter().filter(|bin| **bin < SHIPPED).count();
        }
        assert!(lowered > 100, "and it is lowered where it can be: {lowered}");
    }

    #[test]
    fn a_threshold_that_keeps_its_rate_is_not_raised() {
        for mean in [0.4, 0.5, 4.0 / RATE.recip().ln()] {
            let raised = places(20_000, mean, 11).iter().filter(|bin| **bin > SHIPPED).count();
            assert!(raised <= 11, "{raised} of 100 at {mean}");
        }
        let raised = places(20_000, 0.8, 13);
        assert!(raised.iter().all(|bin| *bin > SHIPPED), "seven times the rate is");
        // By what is not surely more, so by no more than it takes.
        let too_far = raised.iter().filter(|bin| true_rate(**bin - 1, 0.8) < RATE).count();
        assert!(too_far <= 11, "{too_far}");
    }

    #[test]
    fn a_small_sample_moves_nothing_and_a_smaller_one_less() {
        // Three in a thousand are needed for one in a thousand.
        for pairs in [0, 1, 100, 1_000, 2_900] {
            assert!(places(pairs, 0.2, 17).iter().all(|bin| *bin == SHIPPED), "{pairs}");
        }
    }
}
