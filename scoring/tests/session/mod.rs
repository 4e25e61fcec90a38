//! A session driven by names in text, as the pipeline would drive it in enforce mode.
#![allow(dead_code)]

use staunch_scoring::{
    Assessment, Band, Budgets, Facts, GroupFacts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split,
};

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const HTTPS: u16 = 65;

pub struct Session {
    pub scorer: Scorer,
    pub state: SessionState,
    pub budgets: Budgets,
    pub params: Params,
    pub types: u8,
    pub listing: Listing,
    pub registered_days: Option<f32>,
    pub first_seen_days: Option<f32>,
    pub group_seen_days: Option<f32>,
    pub group: Option<GroupFacts>,
    /// Milliseconds.
    pub now: u64,
    pub cached: bool,
    pub at_hand: bool,
}

impl Session {
    pub fn new() -> Self {
        Self {
            scorer: Scorer::new(),
            state: SessionState::new(0x0bad_5eed),
            budgets: Budgets::default(),
            params: Params::default(),
            types: 3,
            listing: Listing::Unlisted,
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            now: 0,
            cached: false,
            at_hand: true,
        }
    }

    /// Assesses without a trace.
    pub fn assess(&self, name: &str, qtype: u16) -> Assessment {
        self.with_facts(&NameBuf::from_text(name).expect(name), qtype, |scorer, facts| {
            scorer.assess(&self.state, facts)
        })
    }

    /// Assesses, and commits what enforce mode does with the band.
    pub fn ask(&mut self, name: &str, qtype: u16) -> Assessment {
        self.ask_name(&NameBuf::from_text(name).expect(name), qtype)
    }

    pub fn ask_name(&mut self, name: &NameBuf, qtype: u16) -> Assessment {
        let mut state = self.state.clone();
        let assessment = self.with_facts(name, qtype, |scorer, facts| {
            let assessment = scorer.assess(&state, facts);
            let outcome = match assessment.band {
                Band::Answer | Band::Watch if facts.cached => Outcome::Cached,
                Band::Answer | Band::Watch => Outcome::Forwarded,
                Band::Hold => Outcome::Held { refreshed: false, entered: false },
                Band::Sinkhole | Band::Quarantine => Outcome::Refused,
            };
            scorer.commit(&mut state, facts, &assessment, outcome);
            assessment
        });
        self.state = state;
        assessment
    }

    /// Assesses, and commits what monitor mode does: it is forwarded whatever the band.
    pub fn watch(&mut self, name: &str, qtype: u16) -> Assessment {
        let name = NameBuf::from_text(name).expect(name);
        let mut state = self.state.clone();
        let assessment = self.with_facts(&name, qtype, |scorer, facts| {
            let assessment = scorer.assess(&state, facts);
            scorer.commit(&mut state, facts, &assessment, Outcome::Forwarded);
            assessment
        });
        self.state = state;
        assessment
    }

    fn with_facts<R>(&self, name: &NameBuf, qtype: u16, then: impl FnOnce(&Scorer, &Facts<'_>) -> R) -> R {
        let facts = Facts {
            now: self.now,
            qname: name.as_ref(),
            split: Split::of(name.as_ref()),
            qtype,
            flags: 0,
            qtypes_allowed: self.types,
            listing: self.listing,
            registered_days: self.registered_days,
            first_seen_days: self.first_seen_days,
            group_seen_days: self.group_seen_days,
            group: self.group,
            cached: self.cached,
            at_hand: self.at_hand,
            budgets: &self.budgets,
            params: &self.params,
        };
        then(&self.scorer, &facts)
    }
}

/// A small generator (xorshift64*), so that tests need no more than a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    pub fn text(&mut self, alphabet: &[u8], len: usize) -> String {
        (0..len).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect()
    }
}

pub const HEX: &[u8] = b"0123456789abcdef";
pub const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
pub const BASE36: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
