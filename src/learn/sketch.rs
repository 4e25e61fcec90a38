//! What was learned of one kind of session: four histograms, how many sessions, since when.

use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, Scale, Sparse};

/// Version of [`Stored`].
const FORMAT: u32 = 1;

/// See the module. At most 11 KiB.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    /// When the first session was counted, milliseconds since the Unix epoch.
    pub since: u64,
    /// When the last change was made, milliseconds since the Unix epoch.
    pub until: u64,
    /// Sessions counted.
    pub sessions: u64,
    /// Of them, those with a pair that the shipped threshold would have refused.
    pub over: u64,
    /// Sessions that were taken out because they would have been closed.
    pub barred: u64,
    /// Pairs beyond [`super::TENANTS`] of a session.
    pub left_out: u64,
    /// Largest score of each pair.
    pub any: Histogram,
    /// Largest score of each pair that would have refused a name where it is past the threshold.
    pub refusable: Histogram,
    /// Bits of each pair's tenant account.
    pub tenant_bits: Histogram,
    /// Bits of each session's account over all unlisted domains.
    pub session_bits: Histogram,
}

impl Sketch {
    /// Nothing learned, from `now` (milliseconds since the Unix epoch) on.
    pub fn new(now: u64) -> Self {
        Self {
            since: now,
            until: now,
            sessions: 0,
            over: 0,
            barred: 0,
            left_out: 0,
            any: Histogram::new(Scale::Nats),
            refusable: Histogram::new(Scale::Nats),
            tenant_bits: Histogram::new(Scale::Bits),
            session_bits: Histogram::new(Scale::Bits),
        }
    }

    /// Pairs of session and tenant counted.
    pub fn pairs(&self) -> u64 {
        self.any.total()
    }

    /// Adds what another has learned; sessions that both have seen count twice.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        self.sessions += other.sessions;
        self.over += other.over;
        self.barred += other.barred;
        self.left_out += other.left_out;
        self.any.merge(&other.any);
        self.refusable.merge(&other.refusable);
        self.tenant_bits.merge(&other.tenant_bits);
        self.session_bits.merge(&other.session_bits);
    }
}

/// A sketch as the store keeps it, with what it was learned under.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    format: u32,
    /// Version of the product that wrote it.
    pub product: String,
    /// [`super::version::scoring`] it was learned under.
    pub scoring: String,
    /// As [`Sketch::since`].
    pub since: u64,
    /// As [`Sketch::until`].
    pub until: u64,
    /// As [`Sketch::sessions`].
    pub sessions: u64,
    /// Pairs, which the histograms say too: for whoever reads the file.
    pub pairs: u64,
    over: u64,
    barred: u64,
    left_out: u64,
    any: Sparse,
    refusable: Sparse,
    tenant_bits: Sparse,
    session_bits: Sparse,
}

impl Stored {
    /// As it is to be kept.
    pub fn of(sketch: &Sketch, scoring: &str) -> Self {
        let sparse = |histogram: &Histogram| Sparse(histogram.sparse());
        Self {
            format: FORMAT,
            product: env!("CARGO_PKG_VERSION").into(),
            scoring: scoring.into(),
            since: sketch.since,
            until: sketch.until,
            sessions: sketch.sessions,
            pairs: sketch.pairs(),
            over: sketch.over,
            barred: sketch.barred,
            left_out: sketch.left_out,
            any: sparse(&sketch.any),
            refusable: sparse(&sketch.refusable),
            tenant_bits: sparse(&sketch.tenant_bits),
            session_bits: sparse(&sketch.session_bits),
        }
    }

    /// Back again; `None` for what no sketch of this version gives.
    pub fn sketch(&self) -> Option<Sketch> {
        let dense = |scale, sparse: &Sparse| Histogram::from_sparse(scale, &sparse.0);
        let sketch = Sketch {
            since: self.since,
            until: self.until,
            sessions: self.sessions,
            over: self.over,
            barred: self.barred,
            left_out: self.left_out,
            any: dense(Scale::Nats, &self.any)?,
            refusable: dense(Scale::Nats, &self.refusable)?,
            tenant_bits: dense(Scale::Bits, &self.tenant_bits)?,
            session_bits: dense(Scale::Bits, &self.session_bits)?,
        };
        let pairs = sketch.pairs();
        let whole = [&sketch.refusable, &sketch.tenant_bits].iter().all(|histogram| histogram.total() == pairs);
        let counts = [sketch.sessions, sketch.over, sketch.barred, sketch.left_out];
        let plausible = counts.iter().all(|count| *count <= 1 << 48);
        (self.format == FORMAT && whole && plausible && sketch.session_bits.total() == sketch.sessions)
            .then_some(sketch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pairs: u16) -> Sketch {
        let mut sketch = Sketch::new(1_000);
        for n in 0..pairs {
            sketch.any.add(n % 90);
            sketch.refusable.add(n % 70);
            sketch.tenant_bits.add(n % 300);
        }
        sketch.sessions = 1;
        sketch.session_bits.add(200);
        sketch
    }

    #[test]
    fn what_is_stored_comes_back() {
        let sketch = filled(500);
        let text = serde_json::to_string(&Stored::of(&sketch, "abc")).expect("JSON");
        let back: Stored = serde_json::from_str(&text).expect("the same");
        assert_eq!((back.scoring.as_str(), back.sketch()), ("abc", Some(sketch)));
        let mut torn = Stored::of(&filled(500), "abc");
        torn.any = Sparse(vec![(3, 7)]);
        assert_eq!(torn.sketch(), None, "histograms that do not agree");
        let mut later = Stored::of(&filled(5), "abc");
        later.format += 1;
        assert_eq!(later.sketch(), None);
    }

    #[test]
    fn merging_adds_and_keeps_the_wider_time() {
        let (mut one, mut other) = (filled(100), filled(300));
        other.since = 500;
        other.until = 9_000;
        one.merge(&other);
        assert_eq!((one.pairs(), one.sessions, one.since, one.until), (400, 2, 500, 9_000));
    }
}
