//! What one question's validation has cost so far, and what it has found out that need not be found out twice.

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use staunch_scoring::NameRef;

use super::chain::Halt;
use super::set::Good;
use super::{Bogus, Limits, Unknown, Verdict};
use crate::answer::{self, HASH};
use crate::partition::Partition;

/// Checks of signatures in all, for each one that may fail.
const PER_FAILURE: u32 = 4;

/// A set: its owner, type, signer, and whether it stands in the authority section.
pub(super) type SetKey = (Box<[u8]>, u16, Box<[u8]>, bool);

/// A hash: salt, iterations, name, value.
type Hashed = (Box<[u8]>, u16, Box<[u8]>, [u8; HASH]);

/// The cost of one question. Handed through all its steps.
#[derive(Debug)]
pub struct Work {
    limits: Limits,
    partition: Partition,
    signatures: u32,
    failures: u32,
    lookups: u32,
    /// The number of the anchors that `sets` were checked by.
    anchors: u64,
    /// Hashes computed. At most [`Limits::hashes`].
    hashes: Vec<Hashed>,
    /// What was found of sets of the answer: as many as it has, at most.
    pub(super) sets: HashMap<SetKey, Result<Good, Bogus>, foldhash::quality::RandomState>,
}

impl Work {
    /// Nothing yet. What it learns of zones is learned for a partition, and it goes by what that one has learned.
    pub fn new(limits: Limits, partition: Partition) -> Self {
        Self {
            limits,
            partition,
            signatures: 0,
            failures: 0,
            lookups: 0,
            anchors: 0,
            hashes: Vec::new(),
            sets: HashMap::with_hasher(foldhash::quality::RandomState::default()),
        }
    }

    /// Whose question it is.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Goes by the anchors of this number from here on: what was found of sets by others counts no more.
    pub(super) fn by(&mut self, anchors: u64) {
        if self.anchors != anchors {
            self.anchors = anchors;
            self.sets.clear();
        }
    }

    /// Signatures checked.
    pub fn signatures(&self) -> u32 {
        self.signatures
    }

    /// Look-ups done.
    pub fn lookups(&self) -> u32 {
        self.lookups
    }

    /// NSEC3 hashes computed.
    pub fn hashes(&self) -> usize {
        self.hashes.len()
    }

    /// Books a look-up.
    ///
    /// # Errors
    /// The verdict, where it would be one too many.
    pub fn look_up(&mut self) -> Result<(), Verdict> {
        if self.lookups >= self.limits.lookups {
            return Err(Verdict::Indeterminate(Unknown::Lookups));
        }
        self.lookups += 1;
        Ok(())
    }

    /// Books a look-up that may turn out needless; whether it may be done. They get half of what is allowed at most, so that
    /// the other half is there for those without which there is no verdict.
    pub fn look_ahead(&mut self) -> bool {
        let may = self.lookups < self.limits.lookups / 2;
        self.lookups += u32::from(may);
        may
    }

    /// Checks one signature.
    pub(super) fn check(&mut self, check: impl FnOnce() -> bool) -> Result<bool, Halt> {
        if self.failures >= self.limits.failures || self.signatures >= self.limits.failures.saturating_mul(PER_FAILURE)
        {
            return Err(Halt::Unknown(Unknown::Work));
        }
        self.signatures += 1;
        let good = check();
        self.failures += u32::from(!good);
        Ok(good)
    }

    /// The NSEC3 hash of `name`.
    pub(super) fn hash(&mut self, salt: &[u8], iterations: u16, name: NameRef<'_>) -> Result<[u8; HASH], Halt> {
        let known = self
            .hashes
            .iter()
            .find(|(with, times, of, _)| **with == *salt && *times == iterations && **of == *name.as_wire());
        if let Some((.., hash)) = known {
            return Ok(*hash);
        }
        if self.hashes.len() >= self.limits.hashes as usize || iterations > self.limits.iterations {
            return Err(Halt::Unknown(Unknown::Work));
        }
        let hash = answer::hash(salt, iterations, name).ok_or(Halt::Unknown(Unknown::Work))?;
        self.hashes.push((salt.into(), iterations, name.as_wire().into(), hash));
        Ok(hash)
    }
}

/// What happened, over all questions.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers that are secure.
    pub secure: AtomicU64,
    /// Answers that are insecure.
    pub insecure: AtomicU64,
    /// Answers that are bogus.
    pub bogus: AtomicU64,
    /// Answers of which nothing could be said.
    pub indeterminate: AtomicU64,
    /// Signatures checked.
    pub signatures: AtomicU64,
    /// NSEC3 hashes computed.
    pub hashes: AtomicU64,
    /// Look-ups of DS and DNSKEY sets.
    pub lookups: AtomicU64,
}

impl Counters {
    /// Adds what one question came to.
    pub fn note(&self, verdict: Verdict, work: &Work) {
        let kind = match verdict {
            Verdict::Secure { .. } => &self.secure,
            Verdict::Insecure(_) => &self.insecure,
            Verdict::Bogus(_) => &self.bogus,
            Verdict::Indeterminate(_) => &self.indeterminate,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        self.signatures.fetch_add(u64::from(work.signatures), Ordering::Relaxed);
        self.hashes.fetch_add(work.hashes.len() as u64, Ordering::Relaxed);
        self.lookups.fetch_add(u64::from(work.lookups), Ordering::Relaxed);
    }
}
