//! The half of the walk that asks random siblings in place of a suspicious name.
//!
//! The first walk of such a name books nothing. When it is known what its siblings get, the name is walked anew: with
//! their answer at hand, where the zone is a wildcard, so that nothing of the name leaves and nothing is charged for it;
//! else as any other name, charged in full. The second walk is the ordinary one, so it meets whatever has become of the
//! session meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use staunch_scoring::{Bits, NameRef, QName, Split};
use tokio::time::{Instant, timeout_at};

use super::{Live, Pipeline, Walk};
use crate::answer::{self, Asked, Kind as Answered, Vetted, WireAnswer};
use crate::cache::Entry;
use crate::clock;
use crate::decoy::{Counters, Finding, Kind, Proof, RANDOM, Table};
use crate::listen::Fast;
use crate::model::{Now, Qtype};
use crate::partition::Partition;
use crate::policy::{Ask, Decision, Decoys, Permit, Suspect};
use crate::session::Inner;
use crate::telemetry::Record;
use crate::wire::Query;

/// How long one sibling's answer is awaited.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How long a suspicious name waits in all, for its own siblings or for those that somebody else asks, before it goes its
/// own way: within the patience of common stubs (5 s) and the exchange that then follows.
const WAIT: Duration = Duration::from_millis(2000);
/// How long a parent is not tried again that is no wildcard, or whose answers differ, milliseconds. Chosen without a
/// source: zones rarely change in it, and a name that meets it is judged as if there were no decoys.
const SETTLED: u64 = 600_000;
/// The same after no usable answer.
const UNSETTLED: u64 = 30_000;

/// A question for which a sibling may stand in.
pub(super) struct Candidate {
    /// Labels of its name left of the siblings' parent.
    parent_at: usize,
}

/// What the first walk of a name came to.
pub(super) struct Again {
    /// What was found.
    pub kind: Option<Kind>,
    /// The siblings' answer, under the name asked for.
    pub entry: Option<Arc<Entry>>,
    /// Booked for the siblings, bits.
    pub charged: Bits,
}

/// The session's number of tries or its ledger is spent, or the session was closed, or the name is no candidate any more.
struct Denied;

/// What one sibling got.
enum Heard {
    /// Records.
    Answer(Proof, WireAnswer),
    /// The name exists, the type does not.
    Empty(Proof, WireAnswer),
    /// There is no such name, or nothing that could be shown.
    Absent,
    /// Nothing usable.
    Nothing,
}

/// What two siblings got.
enum Pair {
    /// The same records, good until then.
    Same(Proof, u64),
    /// The first got an empty answer; good until then.
    Empty(Proof, u64),
    Plain,
    Differs,
    Nothing,
}

impl Pair {
    fn finding(self, now: u64) -> Finding {
        let (kind, until, proof) = match self {
            Self::Same(proof, until) => (Kind::Wildcard, until, Some(proof)),
            // By itself an empty answer proves nothing: servers that deny compactly (RFC 9824) give it to every name.
            Self::Empty(..) | Self::Plain => (Kind::Plain, now + SETTLED, None),
            Self::Differs => (Kind::Differs, now + SETTLED, None),
            Self::Nothing => (Kind::Failed, now + UNSETTLED, None),
        };
        Finding { kind, until, proof }
    }
}

impl Pipeline {
    /// Whether siblings are to be asked before this question goes on its way; for a parent that is known to be no
    /// wildcard, only the record says so. Called under the session's lock, on the state that was judged.
    pub(super) fn decoy_candidate(
        &self,
        live: &Live,
        inner: &Inner,
        decision: &Decision<'_>,
        record: &mut Record,
    ) -> Option<Candidate> {
        let suspect = live.policy.suspect(inner, decision)?;
        // What other servers say of a sibling says nothing of the name.
        if !live.forwarded.are_together(record.qname.as_ref(), suspect.parent) {
            return None;
        }
        match self.decoys.standing(
            live.findings_of(&record.context),
            suspect.parent,
            Qtype(decision.facts.qtype),
            decision.facts.now,
        ) {
            Some(Kind::Wildcard) => {}
            None if suspect.asks => {}
            known => {
                record.decoy = known;
                return None;
            }
        }
        Some(Candidate { parent_at: decision.facts.qname.label_count() - suspect.parent.label_count() })
    }

    /// Asks siblings where nothing is known yet, then walks the question anew.
    pub(super) fn decoy<'p>(
        &'p self,
        walk: Box<Walk>,
        query: &'p Query<'_>,
        packet: &'p [u8],
        candidate: Candidate,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + 'p>> {
        Box::pin(async move {
            let search = Search {
                pipeline: self,
                vetting: self.live.load().vetting(),
                live: self.live.load_full(),
                walk: &walk,
                query,
                parent: query.qname.as_ref().strip_left(candidate.parent_at),
            };
            let mut charged = Bits::ZERO;
            let until = Instant::now() + WAIT;
            let given_up = || Some(Pair::Nothing.finding(clock::now().mono));
            let finding = timeout_at(until, search.find(until, &mut charged)).await.unwrap_or_else(|_| given_up());
            let entry = finding.as_ref().and_then(|finding| search.entry(finding.proof.as_ref()?));
            if entry.is_some() {
                Counters::add(&self.decoys.counters.answered);
            }
            let again = Again { kind: finding.map(|f| f.kind), entry, charged };
            let mut out = Vec::with_capacity(512);
            match self.walk(
                query,
                packet,
                walk.from,
                walk.transport,
                clock::now(),
                Some(walk.started),
                &mut out,
                Some(again),
                walk.led,
                self.ride_of(walk.led),
            ) {
                Fast::Reply => Some(out),
                Fast::Drop => None,
                Fast::Deferred(deferred) => self.complete(deferred).await,
            }
        })
    }
}

/// One question's search for what its siblings get.
struct Search<'s, 'q> {
    pipeline: &'s Pipeline,
    /// By which rules an answer was vetted that is found.
    vetting: u64,
    live: Arc<Live>,
    walk: &'s Walk,
    query: &'s Query<'q>,
    parent: NameRef<'s>,
}

impl Search<'_, '_> {
    /// With whom findings are shared.
    fn partition(&self) -> Partition {
        self.live.findings_of(&self.walk.record.context)
    }

    /// What is known of the parent or is found `until` then, nothing usable otherwise; whoever asks meanwhile waits for
    /// the same. `None` where nothing may be asked.
    async fn find(&self, until: Instant, charged: &mut Bits) -> Option<Finding> {
        let decoys = &self.pipeline.decoys;
        let cell = decoys.cell(self.partition(), self.parent, self.query.qtype, clock::now().mono)?;
        let found = cell.get_or_try_init(|| async move {
            let finding = match timeout_at(until, self.search(charged)).await {
                Ok(finding) => finding?,
                Err(_) => Pair::Nothing.finding(clock::now().mono),
            };
            decoys.counters.found(finding.kind);
            Ok::<_, Denied>(finding)
        });
        found.await.ok().cloned()
    }

    async fn search(&self, charged: &mut Bits) -> Result<Finding, Denied> {
        let qtype = self.query.qtype;
        Ok(match self.pair(qtype, charged).await? {
            Pair::Empty(proof, until) if qtype != Qtype::A => self.beside_addresses(proof, until, charged).await?,
            pair => pair.finding(clock::now().mono),
        })
    }

    /// Where every name below the parent has an address, an empty answer for another type is the wildcard's too.
    async fn beside_addresses(&self, proof: Proof, until: u64, charged: &mut Bits) -> Result<Finding, Denied> {
        let decoys = &self.pipeline.decoys;
        let cell = decoys.cell(self.partition(), self.parent, Qtype::A, clock::now().mono).ok_or(Denied)?;
        let addresses = cell
            .get_or_try_init(|| async move {
                let finding = self.pair(Qtype::A, charged).await?.finding(clock::now().mono);
                decoys.counters.found(finding.kind);
                Ok(finding)
            })
            .await?;
        Ok(match addresses.kind {
            Kind::Wildcard => Finding { kind: Kind::Wildcard, until: until.min(addresses.until), proof: Some(proof) },
            _ => Pair::Plain.finding(clock::now().mono),
        })
    }

    /// Asks one sibling and, if it was answered, a second one.
    async fn pair(&self, qtype: Qtype, charged: &mut Bits) -> Result<Pair, Denied> {
        let Some(decoys) = self.order(qtype) else {
            Counters::add(&self.pipeline.decoys.counters.denied);
            return Err(Denied);
        };
        *charged = charged.plus(decoys.charged());
        let [first, second] = decoys.permits;
        let good_until = |proof: &Proof, answer: &WireAnswer| proof.stored + u64::from(answer.ttl) * 1000;
        Ok(match self.hear(first).await {
            Heard::Nothing => Pair::Nothing,
            Heard::Absent => Pair::Plain,
            Heard::Empty(proof, answer) => {
                let until = good_until(&proof, &answer);
                Pair::Empty(proof, until)
            }
            // Judged some time ago: what was closed meanwhile sends nothing any more.
            Heard::Answer(..) if self.walk.session.inner.lock().is_closed() => return Err(Denied),
            Heard::Answer(proof, answer) => match self.hear(second).await {
                Heard::Nothing => Pair::Nothing,
                Heard::Answer(other, again) if answer::says_the_same(&answer, &again, self.asked(qtype)) => {
                    let until = good_until(&proof, &answer).min(good_until(&other, &again));
                    Pair::Same(proof, until)
                }
                _ => Pair::Differs,
            },
        })
    }

    /// Judges the question once more and has two siblings permitted and charged, all under the session's lock.
    fn order(&self, qtype: Qtype) -> Option<Decoys> {
        let mut random = [[0; RANDOM]; 2];
        for octets in &mut random {
            getrandom::fill(octets).ok()?;
        }
        let (pipeline, policy, session) = (self.pipeline, &self.live.policy, &self.walk.session);
        let now = clock::now();
        let context = session.context();
        let grants = self.live.grants.load();
        let qname = self.query.qname.as_ref();
        let split = Split::of(qname);
        let known = pipeline.ages.known(&context, split.icann(qname), now.wall.steady);
        let mut inner = session.inner.lock();
        // Behind the session's lock, and until the charge is booked.
        let group = pipeline.group_of(&context, now.wall.steady);
        let mut ledger = group.as_ref().map(|group| group.ledger.lock());
        let ask = Ask {
            query: self.query,
            now,
            split,
            cached: false,
            at_hand: false,
            registered_days: known.registered_days(now.wall.steady),
            first_seen_days: known.first_seen_days,
            group_seen_days: known.group_seen_days,
            group: ledger.as_ref().map(|ledger| ledger.facts(qname, now.wall.steady)),
            grants: &grants,
            // The walk that led here has asked them.
            rpz: None,
            name_hash: 0,
        };
        let decision = policy.decide(&context, &inner, &ask);
        if policy.suspect(&inner, &decision) != Some(Suspect { parent: self.parent, asks: true })
            || !inner.decoys.take(policy.decoy.per_session_hour, now.mono)
        {
            return None;
        }
        let decoys = policy.permit_decoys(&context, &mut inner, &decision, qtype, now, &random)?;
        pipeline.ledger_step(session, &mut inner, decoys.charged());
        let booked = (decoys.booked_as.as_ref(), decoys.charge.group);
        let step = ledger.as_mut().and_then(|ledger| ledger.book(booked.0, booked.1, now.wall.steady));
        drop(ledger);
        drop(inner);
        if let (Some(group), Some(state)) = (&group, step) {
            pipeline.journal_group(group, state, now.wall.steady);
        }
        Some(decoys)
    }

    /// Asks one sibling. The answer is vetted as if it were to the name asked for.
    async fn hear(&self, permit: Permit) -> Heard {
        Counters::add(&self.pipeline.decoys.counters.asked);
        let response = match tokio::time::timeout(PATIENCE, self.pipeline.forwarder.resolve(&permit)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a sibling was not answered");
                return Heard::Nothing;
            }
            Err(_) => return Heard::Nothing,
        };
        let now: Now = clock::now();
        let asked = self.asked(permit.qtype());
        let Ok(mut vetted) = answer::vet_sibling(&response.wire, permit.qname(), asked, &self.live.answers) else {
            return Heard::Nothing;
        };
        let until = tokio::time::Instant::now() + PATIENCE;
        if self.pipeline.check(&self.live, &permit, &response, &mut vetted, until).await.is_err() {
            return Heard::Nothing;
        }
        // Answers that lead inside are evidence of their own and go the ordinary way.
        if leads_inside(&vetted) || response.wire.len() > Table::MAX_RESPONSE {
            return Heard::Absent;
        }
        let proof = || Proof {
            name: QName::copy_of(permit.qname()),
            response: response.wire.as_slice().into(),
            stored: now.mono,
        };
        match vetted.kind {
            Answered::Failure => Heard::Nothing,
            Answered::Positive => Heard::Answer(proof(), vetted.answer),
            // An alias that ends in nothing too: a tunnel's server answers so whatever it does not understand.
            Answered::NoData => Heard::Empty(proof(), vetted.answer),
            Answered::NxDomain => Heard::Absent,
        }
    }

    fn asked(&self, qtype: Qtype) -> Asked<'_> {
        Asked { qname: self.query.qname.as_ref(), qtype, dnssec_ok: false }
    }

    /// The siblings' answer under the name asked for. Never kept in the cache, which all sessions share: another one may
    /// have leave to ask for the name itself. The proof serves further questions.
    fn entry(&self, proof: &Proof) -> Option<Arc<Entry>> {
        let asked = self.asked(self.query.qtype);
        let live = self.pipeline.live.load();
        let vetted = answer::vet_sibling(&proof.response, proof.name.as_ref(), asked, &live.answers).ok()?;
        if vetted.kind == Answered::Failure || leads_inside(&vetted) {
            return None;
        }
        Some(Arc::new(Entry::passing(self.vetting, vetted.answer, vetted.names.into_boxed_slice(), proof.stored)))
    }
}

fn leads_inside(vetted: &Vetted) -> bool {
    !vetted.rebinding.is_empty() || vetted.internal_alias
}
