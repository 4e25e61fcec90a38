//! Records for tests.

use std::sync::LazyLock;

use staunch_scoring::{Assessment, Budgets, Facts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split};

use super::{Grant, Record};
use crate::event::{Alert, AlertKind, SCHEMA};
use crate::model::{Announcement, CaseId, Mode, Reason, SessionId, SessionType};

pub(crate) fn session(n: u32) -> SessionId {
    SessionId::new(&format!("agent-{n}")).unwrap()
}

pub(crate) fn announce(n: u32) -> Record {
    Record::Announce {
        announcement: Announcement {
            id: session(n),
            addresses: vec![std::net::Ipv4Addr::from(0x0a4d_0000 + n).into()],
            kind: SessionType::Batch,
            phase: None,
            owner: Some("team \"a\"".into()),
            search: Vec::new(),
        },
        entry: None,
    }
}

pub(crate) fn quarantine(n: u32) -> Record {
    Record::Quarantine {
        session: session(n),
        case: CaseId::from_random(u64::from(n)),
        reason: Reason::Score,
        by: "staunch".into(),
        note: "{\"seq\":1,\u{1b}[31m".into(),
        since: None,
        addresses: Vec::new(),
    }
}

pub(crate) fn release(n: u32) -> Record {
    Record::Release { session: session(n), by: "op".into(), note: String::new(), extend: 0 }
}

pub(crate) fn ledger(n: u32) -> Record {
    Record::Ledger { session: session(n), state: Default::default() }
}

/// A step of the ledger that is not whole: of a session with an account that has spent something, and then another one.
pub(crate) fn step(n: u32) -> Record {
    let mut asks = Asks::default();
    asks.ask(200);
    drop(asks.state.step());
    asks.ask(1);
    Record::Ledger { session: session(n), state: asks.state.step() }
}

/// Asks names of many domains, so that steps are worth it.
pub(crate) struct Asks {
    pub(crate) state: SessionState,
    scorer: Scorer,
    asked: u32,
}

impl Default for Asks {
    fn default() -> Self {
        Self::of(SessionState::new(7))
    }
}

impl Asks {
    pub(crate) fn of(state: SessionState) -> Self {
        Self { state, scorer: Scorer::new(), asked: 0 }
    }

    pub(crate) fn name(n: u32) -> NameBuf {
        NameBuf::from_text(&format!("host-{n}.site-{}.example", n % 37)).unwrap()
    }

    pub(crate) fn ask(&mut self, names: u32) {
        for _ in 0..names {
            let name = Self::name(self.asked);
            self.asked += 1;
            let assessment = self.assess(&name);
            self.scorer.commit(&mut self.state, &facts(&name), &assessment, Outcome::Forwarded);
        }
    }

    pub(crate) fn assess(&self, name: &NameBuf) -> Assessment {
        self.scorer.assess(&self.state, &facts(name))
    }
}

fn facts(name: &NameBuf) -> Facts<'_> {
    static LIMITS: LazyLock<(Budgets, Params)> = LazyLock::new(Default::default);
    Facts {
        now: 0,
        qname: name.as_ref(),
        split: Split::of(name.as_ref()),
        qtype: 1,
        flags: 0,
        qtypes_allowed: 3,
        listing: Listing::Unlisted,
        registered_days: None,
        first_seen_days: None,
        group_seen_days: None,
        group: None,
        cached: false,
        at_hand: false,
        budgets: &LIMITS.0,
        params: &LIMITS.1,
    }
}

pub(crate) fn grant(id: &str, until: u64) -> Record {
    Record::Grant {
        grant: Grant {
            id: id.into(),
            name: "*.example".into(),
            session: None,
            ports: Vec::new(),
            owner: "op".into(),
            reason: "r".into(),
            from: 0,
            until,
            withdrawn: None,
        },
    }
}

pub(crate) fn alert(n: u32) -> Alert {
    Alert {
        schema: SCHEMA,
        id: format!("alert-{n}"),
        kind: AlertKind::Quarantine,
        time: "2026-01-02T03:04:05.678Z".into(),
        case: CaseId::from_random(u64::from(n)),
        session: session(n % 7),
        session_type: SessionType::Batch,
        owner: None,
        addresses: Vec::new(),
        mode: Mode::Enforce,
        reason: Some(Reason::LedgerTenant),
        summary: format!("session closed, alert {n}"),
        signals: Vec::new(),
        tenant: "attacker.example".into(),
        leaked_bits_at_most: staunch_scoring::Bits::whole(n),
        names_forwarded: n,
        samples: vec!["a.attacker.example".into()],
        actions: Vec::new(),
        log: None,
    }
}

pub(crate) fn alert_record(n: u32) -> Record {
    Record::Alert { alert: Box::new(alert(n)) }
}
