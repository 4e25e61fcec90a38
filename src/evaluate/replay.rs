//! One session asked again: its queries through the walk and the policy that judge live ones, at their recorded times.
//!
//! Each row becomes the octets of a query, which [`crate::wire`] parses, [`crate::pipeline`] walks up to the verdict and
//! [`crate::policy`] judges and commits. What stands in for the rest of the service is stated here: an answer is at
//! hand for [`Settings::floor`] after a name was forwarded under a type, and after that it is stale; names that are held
//! are asked again on the resolver's clock where the ledger has room for that; nobody answers, so what answers and
//! connections tell is unknown; nothing is known of the age of domains but what lists say. Pure: the same session, policy
//! and settings give the same run.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;
use staunch_scoring::{Assessment, Bits, NameRef, Outcome, Split, TICK_MS};

use super::corpus::{Asked, Label, Session};
use super::outcome::{Alarm, AttackRun, Forwarded, Left, PairRun, SessionRun, Stop};
use crate::event::Verdict;
use crate::lists::Grants;
use crate::model::{Announcement, CaseId, Now, Qtype, Reason, SessionId, SessionType, Wall};
use crate::pipeline::{Knowledge, Known, Live, Walked, walk};
use crate::policy::Decision;
use crate::session::{Context, Inner, Quarantine};
use crate::wire::{self, Parsed};

/// Keys the hashes of a replay, so that two runs agree bit for bit. Nobody attacks a recording.
const SEED: u64 = 0x5eed;

/// How sessions are asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What the sessions are announced as; [`SessionType::Unannounced`] announces none.
    pub kind: SessionType,
    /// How long the answer to a name and type is at hand.
    pub floor: Duration,
}

/// Asks a whole session again.
pub fn session(live: &Live, session: &Session, settings: Settings) -> SessionRun {
    let context = context(&session.id, settings.kind);
    let grants = live.grants.load();
    let mut replay = Replay {
        live,
        grants: &grants,
        context: &context,
        settings,
        inner: Inner::new(SEED),
        at_hand: HashMap::new(),
        refreshing: HashMap::new(),
        names: HashSet::new(),
        pairs: HashMap::new(),
        attacks: HashMap::new(),
        run: SessionRun::default(),
    };
    let mut packet = Vec::new();
    for row in &session.rows {
        // A monotonic clock that starts at a second, so that nothing happens at 0.
        let now = Now { mono: 1000 + row.at, wall: Wall::at(session.start + row.at) };
        replay.row(row, now, &mut packet);
    }
    let Replay { inner, mut run, .. } = replay;
    run.spent = inner.score.spent_session();
    run.spent_listed = inner.score.spent_listed().plus(inner.score.spent_below());
    run
}

/// Judges a name as the first query of a new session; `None` where it is answered locally or no query can carry it.
pub fn first_look(
    live: &Live,
    name: NameRef<'_>,
    qtype: Qtype,
    kind: SessionType,
    packet: &mut Vec<u8>,
) -> Option<(Verdict, Option<Reason>, Assessment)> {
    let context = context("first-look", kind);
    let grants = live.grants.load();
    question(packet, name, qtype);
    let Parsed::Query(query) = wire::parse(packet) else { return None };
    let knowledge = Knowledge::nothing(hash(name));
    let now = Now { mono: 1000, wall: Wall::at(0) };
    match walk(live, &grants, &live.rpz.load(), &context, &Inner::new(SEED), &query, now, &knowledge) {
        Walked::Zone | Walked::Local(_) => None,
        Walked::Judged { decision, .. } => Some((decision.applied, decision.reason, decision.assessment)),
    }
}

/// A session under way.
struct Replay<'c> {
    live: &'c Live,
    grants: &'c Grants,
    context: &'c Context,
    settings: Settings,
    inner: Inner,
    /// When a name was last forwarded under a type.
    at_hand: HashMap<(&'c [u8], Qtype), u64>,
    /// By tenant: names that were held.
    refreshing: HashMap<&'c [u8], Refreshing<'c>>,
    /// Names that have left.
    names: HashSet<&'c [u8]>,
    pairs: HashMap<(&'c [u8], Label), usize>,
    attacks: HashMap<(u16, Label), usize>,
    run: SessionRun,
}

/// Names of one tenant that are asked again on the resolver's clock.
#[derive(Default)]
struct Refreshing<'c> {
    /// Each under each type.
    names: Vec<(&'c [u8], Qtype)>,
    /// When that is, while it is still to come.
    due: Option<u64>,
}

impl<'c> Replay<'c> {
    fn row(&mut self, row: &'c Asked, now: Now, packet: &mut Vec<u8>) {
        let name = row.name.as_ref();
        question(packet, name, row.qtype);
        let Parsed::Query(query) = wire::parse(packet) else {
            self.run.rejected += 1;
            return;
        };
        // What the live path does first of all, without judging: a closed session gets one answer.
        if self.inner.is_closed() {
            self.closed(row);
            return;
        }
        let key = (name.as_wire(), row.qtype);
        let tenant = Split::of(name).tenant(name).as_wire();
        self.refresh(tenant, now.mono);
        let since = self.at_hand.get(&key).map(|at| Duration::from_millis(now.mono - at));
        let knowledge = Knowledge {
            cached: &|_| since.is_some_and(|since| since < self.settings.floor),
            stale: &|_| since.is_some(),
            ages: &|_| Known::NOTHING,
            standing: &|_| None,
            group: None,
            enters: None,
            // A recorded question knows no address, so policy zones are not asked.
            client: None,
            name_hash: hash(name),
        };
        let zones = self.live.rpz.load();
        let walked = walk(self.live, self.grants, &zones, self.context, &self.inner, &query, now, &knowledge);
        let (decision, cached) = match walked {
            Walked::Zone | Walked::Local(_) => {
                self.run.local += 1;
                return;
            }
            Walked::Judged { decision, cached, .. } => (decision, cached),
        };
        let stale = since.is_some() && !cached;
        let (outcome, leaves, charged) = match decision.applied {
            Verdict::Answer if cached => (Outcome::Cached, false, Bits::ZERO),
            Verdict::Answer => (Outcome::Forwarded, true, decision.booked(Outcome::Forwarded)),
            Verdict::Hold => self.hold(tenant, key, &decision.assessment, now.mono),
            Verdict::Sinkhole | Verdict::Quarantine => (Outcome::Refused, false, Bits::ZERO),
        };
        self.live.policy.commit(&mut self.inner, &decision, outcome);
        self.count(row.label, outcome, stale);
        self.pair(row, &decision);
        self.attack(row, &decision, outcome, leaves.then_some(charged), now.mono);
        if outcome == Outcome::Forwarded {
            self.at_hand.insert(key, now.mono);
            self.names.insert(name.as_wire());
        }
        if decision.applied == Verdict::Quarantine {
            self.close(row.label, decision.reason.unwrap_or(Reason::Score), now);
        }
    }

    /// A name that is held is among those that are asked again when the tick ends, where the ledger has room for that.
    /// Whether something leaves for it that would not have left otherwise, and at what charge.
    fn hold(
        &mut self,
        tenant: &'c [u8],
        key: (&'c [u8], Qtype),
        assessment: &Assessment,
        mono: u64,
    ) -> (Outcome, bool, Bits) {
        let Some(refresh) = assessment.refresh else {
            return (Outcome::Held { refreshed: false, entered: false }, false, Bits::ZERO);
        };
        let of_tenant = self.refreshing.entry(tenant).or_default();
        let entered = !of_tenant.names.contains(&key);
        if entered {
            of_tenant.names.push(key);
        }
        let leaves = entered || of_tenant.due.is_none();
        of_tenant.due.get_or_insert((mono / TICK_MS + 1) * TICK_MS);
        let charged = if entered { refresh.plus(assessment.enter) } else { refresh };
        (Outcome::Held { refreshed: true, entered }, leaves, charged)
    }

    /// Has the tenant's held names at hand whose tick has ended.
    fn refresh(&mut self, tenant: &[u8], mono: u64) {
        let Some(of_tenant) = self.refreshing.get_mut(tenant) else { return };
        if let Some(due) = of_tenant.due.take_if(|due| *due <= mono) {
            self.at_hand.extend(of_tenant.names.iter().map(|key| (*key, due)));
        }
    }

    /// What the pipeline does with a quarantine, as far as a judgement can see it.
    fn close(&mut self, label: Label, reason: Reason, now: Now) {
        self.run.quarantined = Some((self.run.judged(), label, reason));
        self.inner.quarantine = Some(Quarantine {
            case: CaseId::from_random(SEED),
            reason,
            by: "staunch".into(),
            note: String::new(),
            since: now.wall.shown,
            applied: true,
            recorded: false,
        });
    }

    fn count(&mut self, label: Label, outcome: Outcome, stale: bool) {
        let counts = if label.is_attack() { &mut self.run.attack } else { &mut self.run.benign };
        counts.judged += 1;
        *match outcome {
            Outcome::Forwarded => &mut counts.forwarded,
            Outcome::Cached => &mut counts.cached,
            Outcome::Held { .. } if stale => &mut counts.held,
            Outcome::Held { .. } => &mut counts.held_empty,
            Outcome::Refused => &mut counts.refused,
        } += 1;
    }

    fn closed(&mut self, row: &'c Asked) {
        let counts = if row.label.is_attack() { &mut self.run.attack } else { &mut self.run.benign };
        counts.judged += 1;
        counts.closed += 1;
        self.pair_of(row).closed += 1;
        if let Some(attack) = self.attack_of(row) {
            let stop = Stop { query: attack.queries, reason: Reason::Quarantined, left: attack.left };
            attack.first_action.get_or_insert(stop);
            attack.quarantine.get_or_insert(stop);
        }
    }

    /// The pair a row belongs to.
    fn pair_of(&mut self, row: &'c Asked) -> &mut PairRun {
        let name = row.name.as_ref();
        let tenant = Split::of(name).tenant(name);
        let at = *self.pairs.entry((tenant.as_wire(), row.label)).or_insert_with(|| {
            let pair =
                PairRun { tenant: tenant.to_owned(), label: row.label, tool: row.tool, refused: None, closed: 0 };
            self.run.pairs.push(pair);
            self.run.pairs.len() - 1
        });
        // The index of one that was pushed and never removed.
        &mut self.run.pairs[at]
    }

    fn pair(&mut self, row: &'c Asked, decision: &Decision<'_>) {
        let query = self.run.judged();
        let pair = self.pair_of(row);
        if !matches!(decision.applied, Verdict::Sinkhole | Verdict::Quarantine) || pair.refused.is_some() {
            return;
        }
        pair.refused = Some(Alarm {
            query,
            qtype: row.qtype,
            verdict: decision.applied,
            reason: decision.reason.unwrap_or(Reason::Score),
            rule: decision.rule.clone(),
            assessment: decision.assessment.clone(),
        });
    }

    /// The attack a row belongs to, with the row counted; `None` for one that is to be let through.
    fn attack_of(&mut self, row: &Asked) -> Option<&mut AttackRun> {
        if !row.label.is_attack() {
            return None;
        }
        let at = *self.attacks.entry((row.tool, row.label)).or_insert_with(|| {
            self.run.attacks.push(AttackRun {
                label: row.label,
                tool: row.tool,
                queries: 0,
                first_action: None,
                quarantine: None,
                left: Left::default(),
                charged: Bits::ZERO,
                forwarded: Vec::new(),
                span: (row.at, row.at),
            });
            self.run.attacks.len() - 1
        });
        // The index of one that was pushed and never removed.
        let attack = &mut self.run.attacks[at];
        attack.queries += 1;
        attack.span.1 = row.at;
        Some(attack)
    }

    /// Books a row of an attack; `left` is what was charged, where something has left for it.
    fn attack(&mut self, row: &Asked, decision: &Decision<'_>, outcome: Outcome, left: Option<Bits>, mono: u64) {
        let name = row.name.as_ref();
        let is_new = !self.names.contains(name.as_wire());
        let tick = outcome == (Outcome::Held { refreshed: true, entered: false });
        let Some(attack) = self.attack_of(row) else { return };
        if decision.applied != Verdict::Answer {
            let reason = decision.reason.unwrap_or(Reason::Score);
            let stop = Stop { query: attack.queries, reason, left: attack.left };
            attack.first_action.get_or_insert(stop);
            if decision.applied == Verdict::Quarantine {
                attack.quarantine.get_or_insert(stop);
            }
        }
        if let Some(charged) = left {
            let characters = if is_new { characters(name, decision.split) } else { 0 };
            let one = Forwarded { at: mono - 1000, characters, tick };
            attack.left.add(one);
            attack.charged = attack.charged.plus(charged);
            attack.forwarded.push(one);
        }
    }
}

/// Octets of the labels left of the tenant.
fn characters(name: NameRef<'_>, split: Split) -> u64 {
    let payload = name.label_count().saturating_sub(split.tenant(name).label_count());
    name.labels().take(payload).map(|label| label.len() as u64).sum()
}

fn hash(name: NameRef<'_>) -> u64 {
    FixedState::with_seed(SEED).hash_one(name.as_wire())
}

/// What a runtime would say of a session of this kind.
fn context(id: &str, kind: SessionType) -> Context {
    // A name that is no session id gets one made from it, so that it stays the same in every run.
    let id = SessionId::new(id).unwrap_or_else(|_| {
        let made = format!("replay-{:016x}", FixedState::with_seed(SEED).hash_one(id.as_bytes()));
        SessionId::new(&made).unwrap_or_else(|_| SessionId::unknown())
    });
    let announcement = Announcement::without_sandbox(id, kind);
    Context::new(announcement, kind != SessionType::Unannounced)
}

/// The octets of a query, as a stub without EDNS sends it.
fn question(packet: &mut Vec<u8>, name: NameRef<'_>, qtype: Qtype) {
    packet.clear();
    packet.extend_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(name.as_wire());
    packet.extend_from_slice(&qtype.0.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use staunch_scoring::NameBuf;

    #[test]
    fn payload_is_what_stands_left_of_the_tenant() {
        for (name, octets) in [("www.site.example", 3), ("site.example", 0), ("a.bc.site.co.uk", 3), ("uk", 0)] {
            let name = NameBuf::from_text(name).expect("name");
            assert_eq!(characters(name.as_ref(), Split::of(name.as_ref())), octets, "{name}");
        }
    }

    #[test]
    fn any_word_of_a_log_names_a_session() {
        assert_eq!(context("desk-7", SessionType::Batch).announcement.id.as_str(), "desk-7");
        let made = context("a client, with words", SessionType::Unannounced);
        assert!(made.announcement.id.as_str().starts_with("replay-") && !made.announced);
    }
}
