//! Lists: what people and lists say of a name, before any score.
//!
//! Between [`crate::session`] (who asks) and scoring. Octets in, tables out; tables are built once, never change, and
//! are swapped whole. Knows no path, no clock and no verdict: which of a rule, a grant and a list wins over the score is
//! [`crate::policy`]'s matter, except for the order among rules, which [`RuleSet`] settles.
//!
//! Three sizes of table. What a person typed (rules, grants) is compared by exact strings. What machines publish by
//! the million (deny lists, registration days) is compared by keyed 64-bit fingerprints in flat arrays, which can grow
//! to tens of millions of names, can be built off-line and mapped ([`image`]). All walk a name once, from the right, without allocating.

mod age;
mod builtin;
mod compile;
mod day;
mod deny;
mod filter;
mod flat;
mod form;
mod formats;
mod grants;
mod hash;
mod image;
mod mark;
mod octets;
pub mod pack;
mod parse;
mod rules;
mod skip;
mod source;
mod text;
mod written;

pub use age::{AgeBuilder, AgeMatch, AgeTable};
pub use builtin::{BUILTIN, Builtin, PACKS, PREFIX as BUILTIN_PREFIX, builtin, builtin_pack};
pub use compile::{Input, MAX_EXCEPTIONS, MAX_NAMES, Reopen, Room, Survey, compile, compile_texts, inspect, survey};
pub use day::Day;
pub use deny::{DenyMatch, DenyTable};
pub(crate) use flat::Flat;
pub use form::{FormError, Reach, RuleForm, SuffixKind, host_name, public_suffix};
pub use formats::{DETECTED_LINES, Format, detect};
pub use grants::{Allowance, Given, Grants, MAX_GRANTS, TooManyGrants};
pub use hash::{HashKey, Suffix, Suffixes, fingerprint};
pub use image::ImageError;
pub use mark::Bearing;
pub use parse::{Entry, GARBAGE_SHARE, ListError, MAX_ENTRIES, MAX_LINE, Report, SHOWN_SKIPS, parse, parse_telling};
pub use rules::{Action, Rule, RuleMatch, RuleSet, Ruled, Scope, ScopeSet, Trials};
pub use skip::{SkipKind, SkipReason, Skipped};
pub use source::{EntryNote, ListInfo, MAX_NOTES};
pub use text::MAX_TEXT_LINE;
pub use written::WrittenRange;

use std::sync::Arc;

use staunch_scoring::NameRef;

use crate::model::Wall;

/// All tables of one policy, under one key.
#[derive(Debug)]
pub struct Lists {
    /// What people wrote.
    pub rules: RuleSet,
    /// What lists deny.
    pub deny: DenyTable,
    /// What lists know of ages; shared, so that it can outlive a reload whose day files are damaged.
    pub age: Arc<AgeTable>,
    /// Known look-alikes, by [`pack`]. Here a rule's types are those it is for, all if none is named.
    pub packs: RuleSet,
}

/// What rules and lists say of a name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'l> {
    /// The rule that decides, and what one on trial would.
    pub rules: Ruled<'l>,
    /// The list entry that denies it. A rule, being written by a person for this place, goes before it.
    pub deny: Option<DenyMatch<'l>>,
    /// The entry of a pack that knows it. Rules and deny lists go before it.
    pub pack: Option<RuleMatch<'l>>,
}

impl Lists {
    /// Asks the rules and the deny lists in one walk over the name, for a session of `scope` at `wall` for which the rules
    /// of `trials` are on trial.
    pub fn look_up(&self, name: NameRef<'_>, scope: Scope, wall: Wall, trials: Trials) -> Found<'_> {
        if self.rules.key() != self.deny.key() || self.rules.key() != self.packs.key() {
            // A table that was built elsewhere, under its own key.
            return Found {
                rules: self.rules.look_up(name, scope, wall, trials),
                deny: self.deny.look_up(name),
                pack: self.packs.look_up(name, scope, wall, Trials::NONE).in_force,
            };
        }
        let mut found = Found::default();
        for suffix in Suffixes::of(name, self.rules.key()) {
            if let Some(longer) = self.rules.at(&suffix, scope, wall, trials) {
                found.rules = found.rules.then(longer);
            }
            if found.deny.is_none() {
                found.deny = self.deny.at(&suffix);
            }
            found.pack = self.packs.at(&suffix, scope, wall, Trials::NONE).and_then(|of| of.in_force).or(found.pack);
        }
        found.deny = found.deny.and_then(|deny| self.deny.unless_excepted(deny, name));
        found
    }
}
