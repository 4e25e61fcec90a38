//! Whether what stands is what was planned.
//!
//! Two digests say it. The comment of our tables carries the digest of the script that made them. The comment of the
//! chain [`SEAL`] carries the digest of what the kernel made of the script ([`Image::digest`]), put there when it was
//! applied: a rule, a set or a chain that somebody has changed since gives another one. A plan at hand adds its own
//! digest, and the number of rules of each chain.

use serde::Serialize;

use super::bridge::PORTS;
use super::inet::{LED, sandbox_comment};
use super::script::{Script, Told, is_ours};
use crate::enforce::{Family, Image, Images, interface_covers};

/// The chain that keeps the kernel's digest; no packet comes to it.
pub const SEAL: &str = "seal";

/// A table's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it was applied.
    Intact,
    /// Missing.
    Missing,
    /// Of that name, and not made by a lockdown.
    Foreign,
    /// Made, and not sealed: loaded by hand, or `apply` did not come to its end.
    Unsealed,
    /// Changed since it was applied.
    Altered,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableState {
    /// `inet` or `bridge`.
    pub family: &'static str,
    /// How it stands.
    pub state: State,
    /// Its rules, whatever they are.
    pub rules: usize,
}

/// How a lockdown stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Whether it stands as it was applied and, with a plan, as the plan would have it.
    pub stands: bool,
    /// `enforce` or `monitor`.
    pub mode: Option<String>,
    /// Digest of the script that made it.
    pub digest: Option<String>,
    /// Digest of the plan it was compared with.
    pub plan_digest: Option<String>,
    /// Its tables.
    pub tables: Vec<TableState>,
    /// Interfaces it covers; a `*` at the end stands for any rest.
    pub interfaces: Vec<String>,
    /// Ports of bridges it covers.
    pub ports: Vec<String>,
    /// What is not as it should be; empty where it stands.
    pub problems: Vec<String>,
}

impl Standing {
    /// Whether it covers the interface (or pattern) written so.
    pub fn covers(&self, interface: &str) -> bool {
        self.interfaces.iter().any(|there| interface_covers(there, interface))
    }
}

/// The comment of the seal of tables with these images.
pub fn seal(images: &Images, family: Family) -> Option<String> {
    let families: Vec<_> = images.keys().map(|family| family.as_str()).collect();
    images.get(&family).map(|image| format!("{} {}", families.join("+"), image.digest))
}

/// Judges what stands, by itself or against the script of a plan.
pub fn judge(table: &str, images: &Images, plan: Option<&Script>) -> Standing {
    let mut standing = Standing {
        stands: false,
        mode: None,
        digest: None,
        plan_digest: plan.map(|plan| plan.digest.clone()),
        tables: Vec::new(),
        interfaces: covered(images, Family::Inet, LED),
        ports: covered(images, Family::Bridge, PORTS),
        problems: Vec::new(),
    };
    // The first table says by its seal which there were.
    let sealed = images.get(&Family::Inet).and_then(sealed_with).map(|(families, _)| families.to_owned());
    for family in Family::ALL {
        let planned = plan.is_some_and(|plan| plan.tables.iter().any(|(f, _)| *f == family));
        let applied = sealed.as_deref().is_some_and(|families| families.split('+').any(|f| f == family.as_str()));
        let image = images.get(&family);
        if !planned && !applied && image.is_none() && (plan.is_some() || family != Family::Inet) {
            continue;
        }
        let state = image.map_or(State::Missing, |image| state(image, images));
        let name = format!("table {} {table}", family.as_str());
        standing.problems.extend(match state {
            State::Intact => None,
            State::Missing => Some(format!("{name} is missing")),
            State::Foreign => Some(format!("{name} was not made by a lockdown")),
            State::Unsealed => Some(format!("{name} is not sealed: it was loaded by hand, or its apply was cut short")),
            State::Altered => Some(format!("{name} was changed since it was applied")),
        });
        if let (Some(image), Some(plan)) = (image, plan) {
            standing.problems.extend(differences(&name, image, plan, family));
        }
        let rules = image.map_or(0, |image| image.chains.values().map(|chain| chain.rules.len()).sum());
        standing.tables.push(TableState { family: family.as_str(), state, rules });
    }
    if let Some(told) = images.get(&Family::Inet).and_then(|image| Told::read(image.comment.as_deref()?)) {
        standing.mode = Some(told.mode.to_owned());
        standing.digest = Some(told.digest.to_owned());
    }
    standing.stands = standing.problems.is_empty();
    standing
}

fn state(image: &Image, images: &Images) -> State {
    if !is_ours(image.comment.as_deref()) {
        return State::Foreign;
    }
    let Some((families, digest)) = sealed_with(image) else { return State::Unsealed };
    let whole = families.split('+').all(|family| images.keys().any(|there| there.as_str() == family));
    // A seal has no rules of its own: it is nowhere on a packet's way.
    let quiet = image.chains.get(SEAL).is_some_and(|seal| seal.rules.is_empty());
    if digest == image.digest && whole && quiet { State::Intact } else { State::Altered }
}

/// Families and digest of a table's seal.
fn sealed_with(image: &Image) -> Option<(&str, &str)> {
    image.chains.get(SEAL)?.comment.as_deref()?.split_once(' ')
}

fn differences(name: &str, image: &Image, plan: &Script, family: Family) -> Vec<String> {
    let Some((_, chains)) = plan.tables.iter().find(|(f, _)| *f == family) else {
        return vec![format!("{name} is not part of the plan")];
    };
    let mut all = Vec::new();
    match image.comment.as_deref().and_then(Told::read) {
        Some(told) if told.digest != plan.digest => all.push(format!("{name} was made by another plan")),
        _ => {}
    }
    for (chain, rules) in chains {
        match image.chains.get(chain).map(|chain| chain.rules.len()) {
            Some(there) if there == *rules => {}
            Some(there) => all.push(format!("{name}: chain {chain} has {there} rules, the plan {rules}")),
            None => all.push(format!("{name}: chain {chain} is missing")),
        }
    }
    for chain in image.chains.keys().filter(|chain| *chain != SEAL && chains.iter().all(|(c, _)| c != *chain)) {
        all.push(format!("{name}: chain {chain} is not part of the plan"));
    }
    all
}

/// What the rules of a chain say they are for.
fn covered(images: &Images, family: Family, chain: &str) -> Vec<String> {
    let rules = images.get(&family).and_then(|image| image.chains.get(chain)).map(|chain| &chain.rules);
    let mark = sandbox_comment("");
    rules.into_iter().flatten().flatten().filter_map(|comment| comment.strip_prefix(&mark)).map(str::to_owned).collect()
}
