//! The sketches of every kind of session, shared by all threads: sessions fold into it, thresholds are settled from it.
//!
//! Behind one lock that no query ever takes: a session is folded when it ends and once in a while before, never on the
//! query path. Where both locks are needed, the session's is taken first.

use parking_lot::Mutex;
use serde::Serialize;
use staunch_scoring::Params;

use super::histogram::{bin_of_bits, bin_of_nats};
use super::maxima::Maxima;
use super::settle::{Base, Enforced, InForce, Learned, Settled, Shortfall, settle};
use super::sketch::{Sketch, Stored};
use super::{Config, SCOPES, profile_name, scoring};
use crate::lists::Scope;

/// Pairs above the shipped sinkhole threshold that make a session no example, whether or not its profile closes a session
/// for them: what is learned must not depend on what was learned before.
const BARRED_AT: usize = 2;

/// Prefix of the key under which a sketch of another scoring is kept.
const ASIDE: &str = "aside/";

/// A sketch that was learned under another scoring: kept, not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// Profile.
    pub profile: String,
    /// Version of the product that learned it.
    pub product: String,
    /// The scoring it was learned under.
    pub scoring: String,
    /// Sessions counted.
    pub sessions: u64,
    /// Pairs counted.
    pub pairs: u64,
    /// When it was last changed, milliseconds since the Unix epoch.
    pub until: u64,
}

/// One change of the store: a key, and its value or nothing to remove it.
pub type Change = (String, Option<Vec<u8>>);

#[derive(Default)]
struct State {
    /// By [`Scope::index`].
    sketches: [Option<Box<Sketch>>; Scope::COUNT],
    changed: [bool; Scope::COUNT],
    aside: Vec<Aside>,
    kept: Vec<InForce>,
    /// Was in force under another scoring.
    outdated: Vec<InForce>,
    in_force: Vec<Settled>,
    /// Raised by a reset, so that sessions forget what they have handed on.
    epoch: u32,
}

impl State {
    fn learned(&self) -> Learned<'_> {
        Learned {
            sketches: std::array::from_fn(|at| self.sketches[at].as_deref()),
            kept: &self.kept,
            outdated: &self.outdated,
        }
    }
}

/// See the module. At most 180 KiB.
#[derive(Default)]
pub struct Book {
    state: Mutex<State>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").finish_non_exhaustive()
    }
}

impl Book {
    /// Takes over what a session has reached since it was last folded. `closed`: it is quarantined, or in monitor mode
    /// would be. Such a session is taken out whole, with what it had added before. `now` is Unix milliseconds.
    pub fn fold(&self, maxima: &mut Maxima, closed: bool, now: u64) {
        maxima.barred |= closed || maxima.over(bin_of_nats(Params::default().sinkhole)) >= BARRED_AT;
        if !maxima.fresh && maxima.barred == maxima.barred_told {
            return;
        }
        maxima.fresh = false;
        let mut state = self.state.lock();
        if maxima.epoch != state.epoch {
            maxima.epoch = state.epoch;
            // What was handed on before is gone, and what was reached then is not to come back.
            if maxima.is_folded() {
                maxima.forget();
                maxima.barred_told |= maxima.barred;
                return;
            }
        }
        if maxima.barred {
            if !maxima.barred_told {
                maxima.barred_told = true;
                retract(&mut state, maxima, now);
            }
            maxima.forget();
            return;
        }
        add(&mut state, maxima, now);
    }

    /// What has changed since the last call, for the store.
    pub fn take_changes(&self) -> Vec<Change> {
        let mut state = self.state.lock();
        let changed = std::mem::take(&mut state.changed);
        let changes =
            SCOPES.iter().map(|(kind, phase)| (Scope::of(*kind, *phase).index(), profile_name(*kind, *phase)));
        changes
            .filter(|(at, _)| changed[*at])
            .filter_map(|(at, name)| {
                let value = match &state.sketches[at] {
                    Some(sketch) => Some(serde_json::to_vec(&Stored::of(sketch, scoring())).ok()?),
                    None => None,
                };
                Some((name, value))
            })
            .collect()
    }

    /// Takes over what the store held and what was in force. A sketch of another scoring is set aside; the changes that
    /// this makes in the store are returned. What cannot be read is reported and passed over.
    pub fn restore(&self, stored: &[(String, Vec<u8>)], in_force: Vec<InForce>) -> Vec<Change> {
        let mut state = self.state.lock();
        (state.kept, state.outdated) = in_force.into_iter().partition(|kept| kept.scoring == scoring());
        let mut changes = Vec::new();
        for (kind, phase) in SCOPES {
            let name = profile_name(kind, phase);
            let read = |key: &str| -> Option<Stored> {
                let (_, value) = stored.iter().find(|(stored, _)| stored == key)?;
                let read = serde_json::from_slice::<Stored>(value).ok().filter(|stored| stored.sketch().is_some());
                if read.is_none() {
                    tracing::warn!(profile = key, "what was learned cannot be read; it is left out");
                }
                read
            };
            let key = format!("{ASIDE}{name}");
            let (current, aside) = (read(&name), read(&key));
            let index = Scope::of(kind, phase).index();
            let ours = |stored: &Stored| stored.scoring == scoring();
            match (current, aside) {
                (Some(current), aside) if ours(&current) => {
                    state.sketches[index] = current.sketch().map(Box::new);
                    state.aside.extend(aside.map(|stored| set_aside(&name, &stored)));
                }
                (current, Some(aside)) if ours(&aside) => {
                    // Back to the scoring it was learned under.
                    state.sketches[index] = aside.sketch().map(Box::new);
                    state.changed[index] = true;
                    let value = current.as_ref().and_then(|stored| serde_json::to_vec(stored).ok());
                    state.aside.extend(current.map(|stored| set_aside(&name, &stored)));
                    changes.push((key, value));
                }
                (Some(current), _) => {
                    if let Ok(value) = serde_json::to_vec(&current) {
                        changes.push((key, Some(value)));
                        changes.push((name.clone(), None));
                    }
                    tracing::warn!(profile = name, pairs = current.pairs, "learned under another scoring; set aside");
                    state.aside.push(set_aside(&name, &current));
                }
                (None, aside) => state.aside.extend(aside.map(|stored| set_aside(&name, &stored))),
            }
        }
        changes
    }

    /// Forgets everything learned, what is set aside too. Thresholds in force stay until the next reload. Returns what
    /// was forgotten, and the changes for the store.
    pub fn reset(&self) -> (u64, Vec<Change>) {
        let mut state = self.state.lock();
        let pairs = state.sketches.iter().flatten().map(|sketch| sketch.pairs()).sum();
        *state = State {
            epoch: state.epoch.wrapping_add(1),
            in_force: std::mem::take(&mut state.in_force),
            ..State::default()
        };
        let names = SCOPES.iter().map(|(kind, phase)| profile_name(*kind, *phase));
        (pairs, names.flat_map(|name| [(format!("{ASIDE}{name}"), None), (name, None)]).collect())
    }

    /// Settles the thresholds of every profile from what is learned now. Changes nothing.
    ///
    /// # Errors
    /// As [`settle`].
    pub fn settle(
        &self,
        config: &Config,
        bases: &[Base; Scope::COUNT],
        enforced: Enforced,
    ) -> Result<Vec<Settled>, Vec<Shortfall>> {
        settle(config, bases, enforced, &self.state.lock().learned())
    }

    /// Notes what is in force from now on.
    pub fn put_in_force(&self, settled: Vec<Settled>) {
        let mut state = self.state.lock();
        state.kept = settled.iter().filter_map(Settled::in_force).collect();
        state.in_force = settled;
    }

    /// What is in force, in the order of [`SCOPES`]; empty before anything was settled.
    pub fn in_force(&self) -> Vec<Settled> {
        self.state.lock().in_force.clone()
    }

    /// Learned thresholds in force, as the journal keeps them.
    pub fn kept(&self) -> Vec<InForce> {
        self.state.lock().kept.clone()
    }

    /// Every sketch with its profile, and what is set aside.
    pub fn sketches(&self) -> (Vec<(String, Sketch)>, Vec<Aside>) {
        let state = self.state.lock();
        let sketches = SCOPES.iter().filter_map(|(kind, phase)| {
            let sketch = state.sketches[Scope::of(*kind, *phase).index()].as_deref()?.clone();
            Some((profile_name(*kind, *phase), sketch))
        });
        (sketches.collect(), state.aside.clone())
    }
}

fn set_aside(profile: &str, stored: &Stored) -> Aside {
    Aside {
        profile: profile.into(),
        product: stored.product.clone(),
        scoring: stored.scoring.clone(),
        sessions: stored.sessions,
        pairs: stored.pairs,
        until: stored.until,
    }
}

/// The sketch of a scope, made where there is none.
fn sketch(state: &mut State, scope: u8, now: u64) -> Option<&mut Sketch> {
    let at = usize::from(scope);
    *state.changed.get_mut(at)? = true;
    let sketch = state.sketches.get_mut(at)?.get_or_insert_with(|| Box::new(Sketch::new(now)));
    sketch.until = sketch.until.max(now);
    Some(sketch)
}

fn add(state: &mut State, maxima: &mut Maxima, now: u64) {
    let shipped = bin_of_nats(Params::default().sinkhole);
    for pair in &mut maxima.pairs {
        let told = bin_of_bits(pair.told);
        if pair.folded && (pair.any, pair.refusable, told) == (pair.folded_any, pair.folded_refusable, pair.folded_told)
        {
            continue;
        }
        let Some(sketch) = sketch(state, pair.scope, now) else { continue };
        if pair.folded {
            sketch.any.remove(pair.folded_any.into());
            sketch.refusable.remove(pair.folded_refusable.into());
            sketch.tenant_bits.remove(pair.folded_told);
        }
        sketch.any.add(pair.any.into());
        sketch.refusable.add(pair.refusable.into());
        sketch.tenant_bits.add(told);
        (pair.folded, pair.folded_any, pair.folded_refusable) = (true, pair.any, pair.refusable);
        pair.folded_told = told;
    }
    for part in &mut maxima.parts {
        let told = bin_of_bits(part.told);
        let is_over = maxima.pairs.iter().any(|pair| pair.scope == part.scope && u16::from(pair.refusable) >= shipped);
        let Some(sketch) = sketch(state, part.scope, now) else { continue };
        if part.folded {
            sketch.session_bits.remove(part.folded_told);
        } else {
            sketch.sessions += 1;
        }
        sketch.session_bits.add(told);
        sketch.over += u64::from(is_over && !part.folded_over);
        sketch.left_out += u64::from(part.left_out - part.folded_left_out);
        (part.folded, part.folded_told, part.folded_over) = (true, told, is_over);
        part.folded_left_out = part.left_out;
    }
}

fn retract(state: &mut State, maxima: &Maxima, now: u64) {
    for pair in maxima.pairs.iter().filter(|pair| pair.folded) {
        let Some(sketch) = sketch(state, pair.scope, now) else { continue };
        sketch.any.remove(pair.folded_any.into());
        sketch.refusable.remove(pair.folded_refusable.into());
        sketch.tenant_bits.remove(pair.folded_told);
    }
    for part in &maxima.parts {
        let Some(sketch) = sketch(state, part.scope, now) else { continue };
        sketch.barred += 1;
        if part.folded {
            sketch.sessions = sketch.sessions.saturating_sub(1);
            sketch.over = sketch.over.saturating_sub(part.folded_over.into());
            sketch.session_bits.remove(part.folded_told);
        }
    }
}
