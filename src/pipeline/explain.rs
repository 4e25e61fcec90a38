//! What the pipeline says of itself: explanations, sessions, status. Reads, never changes.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use staunch_scoring::{GroupFacts, NameRef, Outcome, QName, Split};

use super::age::Known;
use super::ledgers::not_taken;
use super::{AgeSources, Listed, Live, Pipeline, is_guarded, rewrite};
use crate::cache::Key;
use crate::decoy::Kind;
use crate::event::{self, RuleRef, Scored, Source, Verdict};
use crate::lists::Grants;
use crate::local::{self, Local};
use crate::model::{Announcement, Mode, Now, Qtype, Reason, SessionId};
use crate::pin::Details;
use crate::policy::{Ask, AskZones, Decision};
use crate::rpz;
use crate::session::{AddError, Context, Inner, Session};
use crate::sparing::Sparing;
use crate::store::{self, Commit};
use crate::telemetry::{rfc3339, scored};
use crate::wire::Query;

/// What would become of a query, by the code that judges live ones.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Version of this document.
    pub schema: u32,
    /// As which session.
    pub session: SessionId,
    /// Escaped.
    pub qname: String,
    /// Type.
    pub qtype: Qtype,
    /// Registrable domain at tenant level.
    pub tenant: String,
    /// Registrable domain by ICANN suffixes.
    pub icann: String,
    /// Profile in force.
    pub profile: String,
    /// Mode of the session.
    pub mode: Mode,
    /// What would be done now.
    pub verdict: Verdict,
    /// What enforce mode does.
    pub would: Verdict,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The rule or list that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// What a response policy zone says of the question. What zones say of answers is known only when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpz: Option<event::Rpz>,
    /// What lists say of it, where one decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Listed>,
    /// Where the answer would come from.
    pub source: Source,
    /// Of a name that is answered locally: what with, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<AnsweredLocally>,
    /// Where the domain's age comes from, unless the name is answered locally.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<AgeSources>,
    /// The name below which a random one would be asked first, to see whether the zone is a wildcard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoy_parent: Option<String>,
    /// Of a name that enforce mode refuses though nothing names it, and in which a whole name stands in front: what stands behind
    /// that, which may be a suffix of the sandbox's search list that nobody has announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_suffix: Option<String>,
    /// The score, unless the name is answered locally.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Scored>,
}

/// What a name is answered with that never leaves.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AnsweredLocally {
    /// NOERROR (0) or NXDOMAIN (3).
    pub rcode: u8,
    /// What kind of name it is, and the document that says so.
    pub rule: &'static str,
}

impl Explanation {
    /// As printed. By way of text, so that every number is written as it is in the event of the same query.
    pub fn to_json(&self) -> Result<Value, String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }
}

/// Judges `name` by a configuration alone, for a session that has asked nothing yet.
pub fn explain_fresh(
    live: &Live,
    context: &Context,
    name: &str,
    qtype: Qtype,
    now: Now,
) -> Result<Explanation, String> {
    let client = context.announcement.addresses.first().copied();
    let knowledge = Knowledge { client, ..Knowledge::nothing(1) };
    explain(live, context, &Inner::new(0), &parse(name)?, qtype, now, &knowledge)
}

/// What is known beside the configuration.
pub(crate) struct Knowledge<'k> {
    /// Whether the answer to a name is at hand.
    pub cached: &'k dyn Fn(NameRef<'_>) -> bool,
    /// Whether an answer is at hand that would do if the question were held.
    pub stale: &'k dyn Fn(NameRef<'_>) -> bool,
    /// What the session's group knows and has spent.
    pub group: Option<GroupFacts>,
    /// Whether the question would enter those that are asked again; `None` where it would not be.
    pub enters: Option<bool>,
    /// What random siblings below a name were found to get.
    pub standing: &'k dyn Fn(NameRef<'_>) -> Option<Kind>,
    /// How old a registrable domain is.
    pub ages: &'k dyn Fn(NameRef<'_>) -> Known,
    /// Keyed hash of the full name.
    pub name_hash: u64,
    /// Where the question would come from.
    pub client: Option<IpAddr>,
}

impl Knowledge<'_> {
    /// Of a name that nobody has asked for.
    pub fn nothing(name_hash: u64) -> Self {
        Self {
            cached: &|_| false,
            stale: &|_| false,
            ages: &|_| Known::NOTHING,
            standing: &|_| None,
            group: None,
            enters: None,
            client: None,
            name_hash,
        }
    }
}

/// What the walk of a query comes to before anything is sent.
// Nearly every walk ends in a judgement, and a box for it would be the only allocation on its path.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Walked<'a> {
    /// A zone of our own answers.
    Zone,
    /// It is answered locally: never scored, never forwarded. With what, unless it is asked by ANY.
    Local(Option<Local>),
    /// Policy has judged.
    Judged {
        /// How.
        decision: Decision<'a>,
        /// Whether nothing would be forwarded, the answer being at hand.
        cached: bool,
        /// Whether it is that of random siblings.
        stood_in: bool,
        /// The name below which siblings would be asked first.
        decoy_parent: Option<NameRef<'a>>,
        /// Whether the session has no address from which the answer could be used.
        unreachable: bool,
    },
}

fn parse(name: &str) -> Result<QName, String> {
    QName::from_text(name).map_err(|error| format!("`{}`: {error}", name.escape_debug()))
}

/// The walk up to the verdict, in the order of the live one. Changes nothing.
#[allow(clippy::too_many_arguments)]
pub(crate) fn walk<'a>(
    live: &'a Live,
    grants: &'a Grants,
    zones: &'a rpz::Snapshot,
    context: &Context,
    inner: &Inner,
    query: &'a Query<'a>,
    now: Now,
    knowledge: &Knowledge<'_>,
) -> Walked<'a> {
    let (name, qtype) = (query.qname.as_ref(), query.qtype);
    if !inner.is_closed() {
        if live.zones.covers(name) {
            return Walked::Zone;
        }
        let special = live.special(grants, context, inner, query, now.wall);
        let any = qtype == Qtype::ANY
            && !knowledge.client.is_some_and(|client| {
                super::rewrite::answers_any(live, zones, context, grants, name, client, false, now)
            });
        if any || special.is_some() {
            return Walked::Local(special);
        }
    }
    let unreachable = is_guarded(live, context) && context.cannot_reach(qtype);
    let cached = unreachable || (knowledge.cached)(name);
    let split = Split::of(name);
    let known = (knowledge.ages)(split.icann(name));
    let mut ask = Ask {
        query,
        now,
        split,
        cached,
        at_hand: !cached && (knowledge.stale)(name),
        registered_days: known.registered_days(now.wall.steady),
        first_seen_days: known.first_seen_days,
        group_seen_days: known.group_seen_days,
        group: if cached { None } else { knowledge.group },
        grants,
        rpz: knowledge.client.filter(|_| !zones.is_empty()).map(|client| AskZones { zones, client, tcp: false }),
        name_hash: knowledge.name_hash,
    };
    let mut decision = live.policy.decide(context, inner, &ask);
    let suspect = live.policy.suspect(inner, &decision);
    let standing = suspect.and_then(|suspect| (knowledge.standing)(suspect.parent));
    let stood_in = standing == Some(Kind::Wildcard);
    let asks = suspect.filter(|suspect| standing.is_none() && suspect.asks);
    if stood_in {
        ask.cached = true;
        ask.group = None;
        decision = live.policy.decide(context, inner, &ask);
    }
    let decoy_parent = asks.map(|suspect| suspect.parent);
    Walked::Judged { decision, cached: cached || stood_in, stood_in, decoy_parent, unreachable }
}

/// What the walk would come to, in words.
fn explain(
    live: &Live,
    context: &Context,
    inner: &Inner,
    qname: &QName,
    qtype: Qtype,
    now: Now,
    knowledge: &Knowledge<'_>,
) -> Result<Explanation, String> {
    let query = Query {
        id: 0,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        qname: *qname,
        qtype,
        question: &[],
        edns: None,
        options: Default::default(),
    };
    let name = query.qname.as_ref();
    let split = Split::of(name);
    let mut explanation = Explanation {
        schema: 1,
        session: context.announcement.id.clone(),
        qname: name.to_string(),
        qtype,
        tenant: split.tenant(name).to_string(),
        icann: split.icann(name).to_string(),
        profile: live.policy.profiles.of(context.kind(), context.phase()).name.clone(),
        mode: live.policy.mode_of(context),
        verdict: Verdict::Answer,
        would: Verdict::Answer,
        reason: None,
        rule: None,
        rpz: None,
        list: None,
        source: Source::Local,
        local: None,
        age: None,
        decoy_parent: None,
        search_suffix: None,
        score: None,
    };
    let grants = live.grants.load();
    let zones = live.rpz.load();
    let (decision, cached, stood_in, decoy_parent, unreachable) =
        match walk(live, &grants, &zones, context, inner, &query, now, knowledge) {
            Walked::Zone => {
                explanation.source = Source::Zone;
                return Ok(explanation);
            }
            Walked::Local(answer) => {
                explanation.local = answer.map(|answer| AnsweredLocally { rcode: answer.rcode, rule: answer.rule });
                return Ok(explanation);
            }
            Walked::Judged { decision, cached, stood_in, decoy_parent, unreachable } => {
                (decision, cached, stood_in, decoy_parent, unreachable)
            }
        };
    explanation.decoy_parent = decoy_parent.map(|parent| parent.to_string());
    let known = (knowledge.ages)(split.icann(name));
    let refuses = decision.reason == Some(Reason::Rpz);
    let applied = !refuses || decision.applied != Verdict::Answer;
    let said = decision.rpz.map(|hit| (hit, applied)).or(decision.rpz_logged.map(|hit| (hit, false)));
    explanation.rpz = said.map(|(hit, applied)| rewrite::noted(&hit, applied));
    explanation.mode = decision.mode;
    explanation.verdict = decision.applied;
    explanation.would = decision.would;
    explanation.reason = decision.reason;
    explanation.source = match (decision.applied, cached) {
        (Verdict::Answer, _) if unreachable => Source::Local,
        (Verdict::Answer, _) if stood_in => Source::Decoy,
        (Verdict::Answer, true) => Source::Cache,
        (Verdict::Hold, _) if (knowledge.stale)(name) => Source::Cache,
        (Verdict::Answer, false) => Source::Upstream,
        _ => Source::Policy,
    };
    explanation.age = Some(AgeSources::of(&live.policy.lists.age, split.icann(name), &known));
    let outcome = match (decision.applied, knowledge.enters) {
        (Verdict::Answer, _) if !cached => Outcome::Forwarded,
        (Verdict::Hold, Some(entered)) => Outcome::Held { refreshed: true, entered },
        (Verdict::Answer | Verdict::Hold, _) => Outcome::Cached,
        _ => Outcome::Refused,
    };
    explanation.score = Some(scored(&decision.assessment, decision.booked(outcome)));
    let listed = |rule: &RuleRef| Listed::of(&live.policy.lists.deny, name, &rule.id);
    explanation.list = decision.rule.as_ref().and_then(listed);
    if decision.would != Verdict::Answer && decision.rule.is_none() && !inner.is_closed() {
        explanation.search_suffix = local::behind_a_whole_name(name).map(|suffix| suffix.to_string());
    }
    explanation.rule = decision.rule;
    Ok(explanation)
}

impl Pipeline {
    /// Judges `name` as if `session` asked for it now. Sends nothing and changes nothing.
    pub fn explain(&self, session: &Session, name: &str, qtype: Qtype, now: Now) -> Result<Explanation, String> {
        let qname = parse(name)?;
        let live = self.live.load();
        let context = session.context();
        let sharing = live.sharing_of(&context);
        let partition = sharing.partition;
        let inner = session.inner.lock();
        let cached = |qname: NameRef<'_>| {
            let key = Key { qname, qtype, dnssec_ok: false, checking_disabled: false, partition };
            let is_there = || self.cache.get(key, now.mono).is_some() || self.cache.failure(key, now.mono).is_some();
            self.view_in(&inner, sharing.private, key, now).is_now() && is_there()
        };
        let stale = |qname: NameRef<'_>| {
            let key = Key { qname, qtype, dnssec_ok: false, checking_disabled: false, partition };
            let is_there = || self.cache.get_stale(key, now.mono, live.repeats.hold_stale.as_millis() as u64).is_some();
            self.view_in(&inner, sharing.private, key, now).is_ever() && is_there()
        };
        let ages = |domain: NameRef<'_>| self.ages.known(&context, domain, now.wall.steady);
        let name_hash = self.hash(qname.as_ref());
        let standing = |parent: NameRef<'_>| self.decoys.standing(live.findings_of(&context), parent, qtype, now.mono);
        let group = self.group_facts(&context, qname.as_ref(), now.wall.steady);
        let key = Key { qname: qname.as_ref(), qtype, dnssec_ok: false, checking_disabled: false, partition };
        let enters = self.would_enter(&live, session, key);
        let client = context.announcement.addresses.first().copied();
        let knowledge = Knowledge {
            cached: &cached,
            stale: &stale,
            ages: &ages,
            standing: &standing,
            group,
            enters,
            name_hash,
            client,
        };
        explain(&live, &context, &inner, &qname, qtype, now, &knowledge)
    }

    /// Makes a session known or updates it, and tells the packet filter. What was recorded of it before the start of
    /// this process comes back with it. It is journalled: in the same turn, so that of what is announced and ended at once the journal says last what
    /// holds. What is handed back is awaited before it is said to be done.
    pub fn announce_recorded(
        &self,
        announcement: Announcement,
    ) -> Result<(Arc<Session>, Result<Commit, store::Error>), AddError> {
        let _turn = self.membership.lock();
        let session = self.announce_in_turn(announcement.clone())?;
        Ok((session, self.store.append(vec![self.said(announcement)])))
    }

    /// The same, which nobody waits for.
    pub fn announce_noted(&self, announcement: Announcement) -> Result<Arc<Session>, AddError> {
        let _turn = self.membership.lock();
        let session = self.announce_in_turn(announcement.clone())?;
        if let Err(error) = self.store.note(self.said(announcement)) {
            static TOLD: Sparing = Sparing::new();
            not_taken(&TOLD, &error, "an announcement is not on disk");
        }
        Ok(session)
    }

    /// The record of an announcement that is in force.
    pub fn said(&self, announcement: Announcement) -> store::Record {
        let entry = self.live.load().configured.fingerprint_of(&announcement.id);
        store::Record::Announce { announcement, entry }
    }

    fn announce_in_turn(&self, announcement: Announcement) -> Result<Arc<Session>, AddError> {
        let seed = self.hash(&announcement.id);
        let (session, changed) = self.sessions.announce(announcement, true, seed)?;
        self.give_back(&session);
        self.joined(&session, &changed, crate::clock::now());
        Ok(session)
    }

    /// A session in one line.
    pub fn summary(&self, session: &Session) -> Value {
        let context = session.context();
        let live = self.live.load();
        let inner = session.inner.lock();
        let a = &context.announcement;
        json!({
            "id": a.id,
            "state": inner.state(),
            "case": inner.quarantine.as_ref().map(|q| q.case),
            // What a disk that hangs has not taken yet a crash would take back.
            "on_disk": inner.pending().is_none(),
            "type": a.kind,
            "phase": a.phase,
            "owner": a.owner,
            "addresses": a.addresses,
            "announced": context.announced,
            "mode": live.policy.mode_of(&context),
            "queries": inner.counts.queries,
            "forwarded": inner.counts.forwarded,
            "refused": inner.counts.refused,
            "ledger_bits": inner.charged,
        })
    }

    /// A session in full.
    pub fn show(&self, session: &Session, now: Now) -> Value {
        let summary = self.summary(session);
        let context = session.context();
        let live = self.live.load();
        let profile = live.policy.profiles.of(context.kind(), context.phase());
        let inner = session.inner.lock();
        let pins: Vec<_> =
            inner.pins.details(now.mono).into_iter().map(|details| self.show_pin(details, now)).collect();
        json!({
            "schema": 1,
            "session": summary,
            "profile": profile.name,
            "budgets": profile.budgets,
            "ledger": { "total_bits": inner.charged, "session_bits": inner.score.spent_session(), "extended_bits": inner.score.allowance() },
            "names_connected": inner.resolved.count(),
            "names_refreshed": self.held.names_of(session),
            "group": self.show_group(&context, now),
            "guarded": is_guarded(&live, &context),
            "search": context.announcement.search,
            "quarantine": inner.quarantine.as_ref().map(|q| json!({
                "case": q.case, "reason": q.reason, "by": q.by, "note": q.note,
                "since": rfc3339(q.since), "applied": q.applied,
            })),
            "samples": inner.samples,
            "pins": pins,
        })
    }

    fn show_pin(&self, details: Details, now: Now) -> Value {
        let left = |end: u64| end.saturating_sub(now.mono) / 1000;
        let leases: Vec<_> = details
            .leases
            .iter()
            .filter(|(_, end)| *end > now.mono)
            .map(|(ports, end)| json!({ "ports": ports, "seconds_left": left(*end) }))
            .collect();
        let names = details.names.len() as u32;
        json!({
            "address": details.address,
            "seconds_left": details.leases.iter().map(|(_, end)| left(*end)).max().unwrap_or(0),
            "leases": leases,
            "confirmed": details.confirmed,
            "names": details.names,
            // Known to this deployment, whoever asked.
            "other_names": self.exposure.names(details.address).saturating_sub(names),
            "open_flows": details.live,
            "octets_out": details.octets_out,
            "octets_limit": details.octets_limit,
        })
    }
}
