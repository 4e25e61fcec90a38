//! A sender that knows the ledger, and the readers of what it sends.
//!
//! A reader owns a tenant, an ICANN-level domain or every domain of the session. It sees the queries of its own part that
//! were forwarded, in order, and nothing else. What it was told is known exactly: the encoder says of each query how many
//! random bits went into it, as that reader can tell them apart.
#![allow(dead_code)]

use std::collections::{HashMap, HashSet};

use staunch_scoring::{
    Assessment, Band, Bits, Budgets, Charge, Facts, GroupFacts, Listing, NameBuf, Outcome, Params, Scorer,
    SessionState, Split,
};

use crate::session::A;

/// What a query is made of, its name apart.
#[derive(Clone)]
pub struct Query {
    pub name: NameBuf,
    pub qtype: u16,
    pub flags: u8,
    /// Milliseconds since the query before.
    pub gap: u64,
}

impl Query {
    /// An address look-up in the same moment as the one before.
    pub fn of(name: NameBuf) -> Self {
        Self { name, qtype: A, flags: 0, gap: 0 }
    }
}

/// Random bits that went into one query, as each reader of it can tell.
#[derive(Clone, Copy)]
pub struct Told {
    pub tenant: f64,
    pub icann: f64,
    pub session: f64,
}

impl Told {
    /// The same for every reader.
    pub fn all(bits: f64) -> Self {
        Self { tenant: bits, icann: bits, session: bits }
    }
}

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    Tenant(NameBuf),
    Icann(NameBuf),
    Session,
}

/// What one reader got and what its account says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader {
    pub told: f64,
    pub charged: Bits,
    pub queries: u32,
}

impl Reader {
    /// Bits by which the account exceeds what was told, the stated slack included. Never below zero.
    pub fn margin(&self) -> f64 {
        self.charged.as_f64() + f64::from(self.queries + 1).log2() - self.told
    }
}

/// Types that the profile of these tests allows.
pub const TYPES: [u16; 6] = [1, 28, 65, 16, 15, 33];

/// A session in enforce mode.
pub struct Sender {
    scorer: Scorer,
    pub state: SessionState,
    pub budgets: Budgets,
    pub params: Params,
    pub group: Option<GroupFacts>,
    pub listing: Listing,
    pub registered_days: Option<f32>,
    pub now: u64,
    pub readers: HashMap<Owner, Reader>,
    /// Distinct names that were forwarded, in order.
    pub sent: Vec<NameBuf>,
    /// Whether what is told lies in the time, so that it shows in the ticks of what is held too.
    pub by_tick: bool,
    /// Names, types and flags that are held and asked again on the resolver's clock.
    pub held: HashSet<(NameBuf, u16, u8)>,
}

impl Sender {
    /// With every limit and the score out of the way: what bounds the sender is the ledger's word alone.
    pub fn loose() -> Self {
        let most = Bits::MAX;
        let budgets = Budgets {
            tenant_soft: most,
            tenant: most,
            icann: most,
            session: most,
            group: most,
            echo: most,
            echo_hour: most,
        };
        Self { budgets, params: Params { sinkhole: f32::INFINITY, ..Params::default() }, ..Self::default_limits() }
    }

    /// With the limits of the default profile.
    pub fn default_limits() -> Self {
        Self {
            scorer: Scorer::new(),
            state: SessionState::new(0x0bad_5eed),
            budgets: Budgets::default(),
            params: Params::default(),
            group: None,
            listing: Listing::Unlisted,
            registered_days: None,
            now: 1_000_000,
            readers: HashMap::new(),
            sent: Vec::new(),
            by_tick: false,
            held: HashSet::new(),
        }
    }

    fn facts<'a>(&'a self, query: &'a Query) -> Facts<'a> {
        Facts {
            now: self.now + query.gap,
            qname: query.name.as_ref(),
            split: Split::of(query.name.as_ref()),
            qtype: query.qtype,
            flags: query.flags,
            qtypes_allowed: TYPES.len() as u8,
            listing: self.listing,
            registered_days: self.registered_days,
            first_seen_days: None,
            group_seen_days: None,
            group: self.group,
            cached: false,
            at_hand: true,
            budgets: &self.budgets,
            params: &self.params,
        }
    }

    /// What the ledger says of a query, without sending it.
    pub fn assess(&self, query: &Query) -> Assessment {
        self.scorer.assess(&self.state, &self.facts(query))
    }

    /// Sends a query into which `told` random bits went; what is refused or held tells nobody anything.
    pub fn send(&mut self, query: &Query, told: Told) -> Assessment {
        let assessment = self.assess(query);
        let forwarded = assessment.band < Band::Hold;
        let asked = (query.name.clone(), query.qtype, query.flags);
        let entered = assessment.band == Band::Hold && assessment.refresh.is_some() && !self.held.contains(&asked);
        let mut state = std::mem::replace(&mut self.state, SessionState::new(0));
        let outcome = match assessment.band {
            Band::Hold => Outcome::Held { refreshed: true, entered },
            Band::Answer | Band::Watch => Outcome::Forwarded,
            Band::Sinkhole | Band::Quarantine => Outcome::Refused,
        };
        self.scorer.commit(&mut state, &self.facts(query), &assessment, outcome);
        self.state = state;
        self.now += query.gap;
        if forwarded {
            self.read(query, told, assessment.charge);
        } else if let Some(refresh) = assessment.refresh.filter(|_| assessment.band == Band::Hold) {
            // At the end of the tick the tenant's held names are asked again, this one among them.
            let bits = refresh.plus(if entered { assessment.enter } else { Bits::ZERO });
            let charge = Charge { name: bits, icann: bits, session: bits, repeat: true, ..Charge::default() };
            self.held.extend(entered.then_some(asked));
            // Which held name brought the tick about shows in nothing, unless it was not among them before.
            let shows = entered || (self.by_tick && refresh > Bits::ZERO);
            self.read(query, if shows { told } else { Told::all(0.0) }, charge);
        }
        assessment
    }

    fn read(&mut self, query: &Query, told: Told, charge: Charge) {
        let name = query.name.as_ref();
        let split = Split::of(name);
        let (tenant, icann) = (split.tenant(name).to_owned(), split.icann(name).to_owned());
        for (owner, told, charged) in [
            (Owner::Tenant(tenant), told.tenant, charge.name),
            (Owner::Icann(icann), told.icann, charge.icann),
            (Owner::Session, told.session, charge.session),
        ] {
            let reader = self.readers.entry(owner).or_default();
            reader.told += told;
            reader.charged = reader.charged.plus(charged);
            reader.queries += 1;
        }
        if !charge.repeat && !self.sent.contains(&query.name) {
            self.sent.push(query.name.clone());
        }
    }

    /// What the session's reader got.
    pub fn told(&self) -> Reader {
        self.readers.get(&Owner::Session).copied().unwrap_or_default()
    }

    /// What the tenant got that was told most.
    pub fn told_a_tenant(&self) -> Reader {
        let tenants = self.readers.iter().filter(|(owner, _)| matches!(owner, Owner::Tenant(_)));
        tenants.map(|(_, reader)| *reader).max_by(|a, b| a.told.total_cmp(&b.told)).unwrap_or_default()
    }

    /// The service restarts: the state comes back from what the store kept.
    pub fn restart(&mut self) {
        self.state = SessionState::restore(&self.state.snapshot());
    }

    /// The reader that was told most; of several, the one with the least charged.
    pub fn best(&self) -> Reader {
        let order = |a: &Reader, b: &Reader| a.told.total_cmp(&b.told).then(b.charged.cmp(&a.charged));
        self.readers.values().copied().max_by(order).unwrap_or_default()
    }

    /// The generator may go on from another state.
    pub fn at(&self, state: &SessionState, sent: &[NameBuf]) -> Self {
        let mut sender = Self::loose();
        (sender.state, sender.sent, sender.now) = (state.clone(), sent.to_vec(), self.now);
        sender
    }

    /// Fails on a reader that was told more than its account says.
    ///
    /// The session's reader, and whoever else reads at least half of it, have no luck to hope for beyond the stated slack.
    /// One that is sent a name now and then among many others is sent a cheap one now and then: k bits cheaper than it is
    /// likely with a chance of at most 2^-k, so that over all readers of all these sessions [`LUCK`] is never seen.
    pub fn check(&self, what: &str) {
        let session = self.readers.get(&Owner::Session).copied().unwrap_or_default();
        for (owner, reader) in &self.readers {
            let luck = if reader.queries * 2 >= session.queries { 0.0 } else { LUCK };
            assert!(
                reader.margin() + luck >= 0.0,
                "{what}: {owner:?} was told {:.2} bits by {} queries and the ledger says {}",
                reader.told,
                reader.queries,
                reader.charged,
            );
        }
        assert_eq!(
            self.state.spent_session(),
            session.charged,
            "{what}: the session account is the sum of its charges"
        );
    }
}

/// Bits: one in 16 million.
const LUCK: f64 = 24.0;
