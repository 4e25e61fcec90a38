//! What the choice among exact names, types and flags tells.

use std::collections::BTreeMap;

use super::FLAGS;
use crate::lists::{Reach, Rule};
use crate::model::Qtype;

/// Distinct questions that exact names of `rules` can be forwarded as: each name with each type answered for it (those
/// of the profile but `without`, and the rule's own) and each combination of flags.
pub(super) fn keys(rules: &[&Rule], profile: &[Qtype], without: Option<Qtype>) -> u64 {
    let mut types: BTreeMap<_, Vec<Qtype>> = BTreeMap::new();
    for rule in rules {
        for (form, _) in rule.names.iter().filter(|(form, _)| form.reach == Reach::Exact) {
            let own = types.entry(&form.name).or_default();
            own.extend(rule.qtypes.iter().filter(|qtype| !profile.contains(qtype)).copied());
        }
    }
    let shared = profile.iter().filter(|qtype| Some(**qtype) != without).count() as u64;
    types
        .into_values()
        .map(|mut own| {
            own.sort_unstable();
            own.dedup();
            FLAGS * (shared + own.len() as u64)
        })
        .sum()
}

/// Bits that one question tells: which of `keys` it is; 0 for none or one.
pub fn bits_a_query(keys: u64) -> f64 {
    if keys > 1 { (keys as f64).log2() } else { 0.0 }
}

/// Bits that `keys` questions tell in an hour at `bits` each, each forwarded `times` an hour; infinite where nothing
/// limits that.
pub(super) fn bits_an_hour(keys: u64, bits: f64, times: f64) -> f64 {
    let at_once = keys as f64 * bits;
    if at_once > 0.0 { at_once * times } else { 0.0 }
}
