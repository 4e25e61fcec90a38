//! `staunch evaluate`: labelled logs replayed through the code that judges live queries, and figures of what came of it.
//!
//! [`corpus`] reads the logs, [`replay`] asks one session again through [`crate::pipeline`]'s walk and
//! [`crate::policy`], [`count`] makes [`figures`] of it, [`text`] and [`plot`] show. Here sessions are shared out over
//! threads and the policy is varied: without each signal, over thresholds, beside other policies. No scorer, ledger or
//! rule of its own: what it says of a policy is what the daemon does under it. How each figure is made is in
//! `docs/EVALUATION.md`.

pub mod corpus;
pub mod count;
pub mod figures;
pub mod outcome;
pub mod plot;
pub mod rates;
pub mod replay;
pub mod text;
pub mod true_bits;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use staunch_scoring::{Band, Family, Params, Signal};

use crate::event::Verdict;
use crate::model::{Mode, SessionType};
use crate::pipeline::Live;
use crate::policy::{Profiles, UnknownSource};
use corpus::{Corpus, Label};
use count::Runs;
use figures::{AttackFigures, FalseAlarm, Headline, LedgerUse, OddFigures, Rates, ToolFigures};
use outcome::{Counts, SessionRun};
use replay::Settings;
use true_bits::TrueBits;

/// Version of [`Report`] as written.
pub const SCHEMA: u32 = 1;

/// Thresholds of the sinkhole that are tried, nats; the one in force is added where it is not among them.
const THRESHOLDS: [f32; 13] = [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0];

/// The forwarding floor where none is given: how long an answer is at hand, whatever its time to live.
pub const DEFAULT_FLOOR: Duration = Duration::from_secs(60);

/// What is asked of an evaluation beside the logs and the policy.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The policy's file, for the report; `None` for the built-in one.
    pub config: Option<String>,
    /// Leave out the variants: no ablation, no sweep.
    pub quick: bool,
    /// What schemes truly carry.
    pub true_bits: TrueBits,
}

/// All figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What judged.
    pub policy: PolicyNote,
    /// What was judged.
    pub corpus: CorpusNote,
    /// Attacks by tool.
    pub tools: Vec<ToolFigures>,
    /// Attacks by session.
    pub attacks: Vec<AttackFigures>,
    /// Rates under the policy as given.
    pub rates: Rates,
    /// Refusals of what is to be let through, under the policy as given.
    pub false_alarms: Vec<FalseAlarm>,
    /// Look-alikes under the policy as given.
    pub odd: Vec<OddFigures>,
    /// The same under other policies, such as the one given without its packs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<Compared>,
    /// What benign sessions spend.
    pub ledger: LedgerUse,
    /// Names without a client, each as the first query of a new session.
    pub first_look: Vec<FirstLook>,
    /// The policy without each signal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ablation: Vec<Ablation>,
    /// The policy over thresholds of the sinkhole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<SweepPoint>,
}

/// What judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyNote {
    /// The file; `None` for the built-in policy.
    pub config: Option<String>,
    /// What sessions were announced as.
    #[serde(rename = "type")]
    pub kind: SessionType,
    /// Its profile.
    pub profile: String,
    /// How long an answer was at hand.
    pub floor_seconds: u64,
    /// The sinkhole's threshold, nats.
    pub sinkhole: f64,
}

/// What was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CorpusNote {
    /// Sessions.
    pub sessions: u64,
    /// Of them, with rows to be stopped.
    pub with_attack: u64,
    /// Queries to be let through.
    pub benign: Counts,
    /// Queries to be stopped.
    pub attack: Counts,
    /// Rows answered locally: special-use names, private reverse zones, own zones. Never scored.
    pub local: u64,
    /// Rows that no resolver takes (zone transfers): refused unjudged.
    pub rejected: u64,
    /// Names without a client.
    pub listed: u64,
}

/// The same logs under another policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Which.
    pub policy: String,
    /// The few numbers that tell the difference.
    pub figures: Headline,
    /// Rates.
    pub rates: Rates,
    /// Refusals of what is to be let through.
    pub false_alarms: Vec<FalseAlarm>,
    /// Look-alikes.
    pub odd: Vec<OddFigures>,
}

/// Names of one tool without a client, by what a new session would get.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstLook {
    /// The tool.
    pub tool: String,
    /// The label.
    pub label: Label,
    /// Names.
    pub names: u64,
    /// Answered locally.
    pub local: u64,
    /// By band of the score.
    pub bands: BTreeMap<&'static str, u64>,
    /// Refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

/// The policy without one signal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ablation {
    /// Which; `None` for the policy as it is.
    pub without: Option<Signal>,
    /// Its family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The figures.
    #[serde(flatten)]
    pub figures: Headline,
}

/// The policy at one threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepPoint {
    /// The sinkhole's threshold, nats.
    pub threshold: f64,
    /// Whether it is the one in force.
    pub in_force: bool,
    /// The figures.
    #[serde(flatten)]
    pub figures: Headline,
}

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No row.
    #[error("the logs have no rows")]
    Empty,
    /// The policy judges nobody.
    #[error(
        "the policy refuses every source that nobody announced, so nothing would be judged; \
         set unknown_source = \"profile\" in [policy], or leave out --type unannounced"
    )]
    NobodyJudged,
}

/// Replays `corpus` under `policy`, and for comparison under `others`, each with a name. Whatever a policy's mode, its
/// verdicts are applied; a rule that is on trial stays so. Policies are left with that mode, else as they were.
///
/// # Errors
/// Where the logs are empty or the policy judges nobody.
pub fn run(
    corpus: &Corpus,
    policy: &mut Live,
    others: &mut [(String, Live)],
    settings: Settings,
    options: &Options,
) -> Result<Report, Error> {
    if corpus.is_empty() {
        return Err(Error::Empty);
    }
    for policy in others.iter_mut().map(|(_, other)| other).chain([&mut *policy]) {
        if settings.kind == SessionType::Unannounced && policy.policy.unknown_source == UnknownSource::Refuse {
            return Err(Error::NobodyJudged);
        }
        policy.policy.mode = Mode::Enforce;
    }
    let all = |policy: &Live| replay_all(policy, corpus, settings);
    let runs = all(policy);
    let seen = Runs { corpus, runs: &runs, true_bits: &options.true_bits };
    let profile = policy.policy.profiles.of(settings.kind, None);
    let (params, limit) = (profile.params, profile.budgets.session);
    let note = PolicyNote {
        config: options.config.clone(),
        kind: settings.kind,
        profile: profile.name.clone(),
        floor_seconds: settings.floor.as_secs(),
        sinkhole: rates::rounded(f64::from(params.sinkhole)),
    };
    let compared = others.iter().map(|(name, policy)| {
        let runs = all(policy);
        let seen = Runs { corpus, runs: &runs, true_bits: &options.true_bits };
        Compared {
            policy: name.clone(),
            figures: seen.headline(),
            rates: seen.rates(),
            false_alarms: seen.false_alarms(),
            odd: seen.odd(),
        }
    });
    let compared = compared.collect();
    let first_look = first_looks(policy, corpus, settings.kind);
    let (mut ablation, mut sweep) = (Vec::new(), Vec::new());
    if !options.quick {
        let as_it_is = seen.headline();
        ablation.push(Ablation { without: None, family: None, figures: as_it_is.clone() });
        let mut variant = |change: &dyn Fn(&mut Params)| {
            let whole = policy.policy.profiles.clone();
            policy.policy.profiles = varied(&whole, change);
            let runs = all(policy);
            policy.policy.profiles = whole;
            Runs { corpus, runs: &runs, true_bits: &options.true_bits }.headline()
        };
        for signal in Signal::ALL {
            let figures = variant(&|params| params.without |= signal.bit());
            ablation.push(Ablation { without: Some(signal), family: Some(signal.family()), figures });
        }
        let mut thresholds = THRESHOLDS.to_vec();
        if !thresholds.contains(&params.sinkhole) {
            thresholds.push(params.sinkhole);
            thresholds.sort_by(f32::total_cmp);
        }
        for threshold in thresholds {
            let in_force = threshold == params.sinkhole;
            let figures = match in_force {
                true => as_it_is.clone(),
                false => variant(&|params| {
                    params.sinkhole = threshold;
                    params.watch = params.watch.min(threshold);
                }),
            };
            sweep.push(SweepPoint { threshold: rates::rounded(f64::from(threshold)), in_force, figures });
        }
    }
    Ok(Report {
        schema: SCHEMA,
        policy: note,
        corpus: corpus_note(seen),
        tools: seen.tools(),
        attacks: seen.attack_figures(),
        rates: seen.rates(),
        false_alarms: seen.false_alarms(),
        odd: seen.odd(),
        compared,
        ledger: seen.ledger(limit),
        first_look,
        ablation,
        sweep,
    })
}

/// Every session, shared out over the machine's cores.
fn replay_all(policy: &Live, corpus: &Corpus, settings: Settings) -> Vec<SessionRun> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(corpus.sessions.len().max(1));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(session) = corpus.sessions.get(at) else { return done };
            done.push((at, replay::session(policy, session, settings)));
        }
    };
    let mut runs: Vec<(usize, SessionRun)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    runs.sort_unstable_by_key(|(at, _)| *at);
    runs.into_iter().map(|(_, run)| run).collect()
}

/// The same profiles with other thresholds.
fn varied(profiles: &Profiles, change: &dyn Fn(&mut Params)) -> Profiles {
    profiles.with_params(|kind, phase| {
        let mut params = profiles.of(kind, phase).params;
        change(&mut params);
        Some(params)
    })
}

fn first_looks(policy: &Live, corpus: &Corpus, kind: SessionType) -> Vec<FirstLook> {
    let mut tools: BTreeMap<(Label, u16), FirstLook> = BTreeMap::new();
    let mut packet = Vec::new();
    for listed in &corpus.listed {
        let look = tools.entry((listed.label, listed.tool)).or_insert_with(|| FirstLook {
            tool: corpus.tools.get(usize::from(listed.tool)).map_or_else(String::new, |tool| tool.to_string()),
            label: listed.label,
            names: 0,
            local: 0,
            bands: BTreeMap::new(),
            refused: BTreeMap::new(),
        });
        look.names += 1;
        match replay::first_look(policy, listed.name.as_ref(), listed.qtype, kind, &mut packet) {
            None => look.local += 1,
            Some((verdict, reason, assessment)) => {
                *look.bands.entry(band_name(assessment.band)).or_default() += 1;
                if verdict != Verdict::Answer {
                    *look.refused.entry(reason.map_or("-", |reason| reason.as_str())).or_default() += 1;
                }
            }
        }
    }
    tools.into_values().collect()
}

fn band_name(band: Band) -> &'static str {
    match band {
        Band::Answer => "answer",
        Band::Watch => "watch",
        Band::Hold => "hold",
        Band::Sinkhole => "sinkhole",
        Band::Quarantine => "quarantine",
    }
}

fn corpus_note(seen: Runs<'_>) -> CorpusNote {
    let (benign, attack, local, rejected) = seen.counts();
    let corpus = seen.corpus;
    CorpusNote {
        sessions: corpus.sessions.len() as u64,
        with_attack: corpus.sessions.iter().filter(|session| session.has_attack()).count() as u64,
        benign,
        attack,
        local,
        rejected,
        listed: corpus.listed.len() as u64,
    }
}
