//! Rules: who may ask for what, with somebody who answers for it and a day on which it is looked at again.

use std::collections::HashMap;

use staunch_scoring::Bits;

use super::Context;
use super::sessions::{PROFILE_REMEDY, profile_name};
use crate::config::document::Path;
use crate::config::spec;
use crate::lists::{Action, HashKey, Reach, Rule, RuleForm, RuleSet, ScopeSet};
use crate::model::Mode;

/// What a session may spend under one tenant that a rule covers, where the rule does not say: the same as over all
/// unlisted domains. Chosen without a source.
const DEFAULT_RULE_BUDGET: Bits = Bits::whole(8192);

/// Largest budget of a rule, bits.
const MAX_RULE_BITS: f64 = 8_388_607.0;

/// Who names what: the rule, its line, and whether it is in force for every session.
type Named = HashMap<(RuleForm, Action), (String, u32, bool)>;

impl Context<'_, '_> {
    pub(super) fn hash_key(&self) -> HashKey {
        self.key
    }

    pub(super) fn rules(&mut self) -> RuleSet {
        let mut ids: HashMap<String, u32> = HashMap::new();
        let mut names = Named::new();
        let mut rules = Vec::new();
        for (i, written) in self.spec.rule.iter().enumerate() {
            let path = Path::of("rule").at(i);
            self.word(&path.key("id"), &written.id, "id");
            let line = self.problems.line(&path.key("id"));
            if let Some(first) = ids.insert(written.id.clone(), line)
                && !written.id.is_empty()
            {
                let problem = format!("a second rule `{}`; the first is in line {first}", written.id.escape_debug());
                self.problems.error(&path.key("id"), problem, "give each rule its own id: records name it");
            }
            if let Some(rule) = self.rule(&path, written, &mut names) {
                rules.push(rule);
            }
        }
        RuleSet::compile(rules, self.hash_key())
    }

    fn rule(&mut self, path: &Path, written: &spec::Rule, seen: &mut Named) -> Option<Rule> {
        self.owned(path, &written.owner, &written.reason);
        let names = self.forms(path, written);
        let wide = names.iter().find(|(form, _)| form.reach != Reach::Exact);
        if let Some((form, _)) = wide
            && written.review_by.is_none()
            && written.expires.is_none()
        {
            self.problems.error(
                &path.key("review_by"),
                format!("`{form}` reaches below its name, and nobody is to look at it again"),
                format!("add review_by = \"YYYY-MM-DD\" (or expires), or write `={}`", form.name),
            );
        }
        self.review(&path.key("review_by"), written.review_by.as_deref());
        let expires = self.expiry(&path.key("expires"), written.expires.as_deref());
        let scopes = self.scopes(&path.key("profiles"), &written.profiles);
        let qtypes = self.qtypes(&path.key("qtypes"), &written.qtypes);
        let budget = self
            .within_if(path, "budget_bits", written.budget_bits, 1.0, MAX_RULE_BITS)
            .map_or(DEFAULT_RULE_BUDGET, Bits::ceil_from);
        let ports = self.ports(&path.key("ports"), &written.ports);
        let expected = self.ranges_of(&path.key("ranges"), &written.ranges);
        let action = match written.action {
            Some(action) => action,
            None => self.problems.fail(&path.key("action"), "action is missing", "use \"allow\" or \"deny\"")?,
        };
        for (field, given, useless) in [
            ("budget_bits", written.budget_bits.is_some(), action == Action::Deny || wide.is_none()),
            ("qtypes", !written.qtypes.is_empty(), action == Action::Deny),
            ("ports", !written.ports.is_empty(), action == Action::Deny),
            ("ranges", !written.ranges.is_empty(), action == Action::Deny),
        ] {
            if given && useless {
                let why = if action == Action::Deny { "on a rule that denies" } else { "where all names are exact" };
                self.problems.warn(&path.key(field), format!("has no effect {why}"), "remove it");
            }
        }
        let for_all = written.profiles.is_empty() && written.mode != Some(Mode::Monitor);
        for (form, line) in &names {
            let here = (written.id.clone(), *line, for_all);
            if let Some((id, line, _)) = seen.insert((form.clone(), action), here)
                && written.profiles.is_empty()
            {
                let problem = format!("`{form}` is named by rule `{id}` in line {line} already");
                self.problems.warn(&path.key("names"), problem, "the first rule decides: remove one of them");
            }
            let other = if action == Action::Deny { Action::Allow } else { Action::Deny };
            if let Some((id, line, true)) = seen.get(&(form.clone(), other)).filter(|_| for_all) {
                let [denying, allowing] = if action == Action::Deny { [&written.id, id] } else { [id, &written.id] };
                let problem = format!("`{form}` is what rule `{id}` in line {line} names too, which says otherwise");
                let remedy =
                    format!("`{denying}` decides, since it denies: remove the name from it or from `{allowing}`");
                self.problems.warn(&path.key("names"), problem, remedy);
            }
        }
        Some(Rule {
            id: written.id.as_str().into(),
            file: self.problems.file().into(),
            action,
            names,
            scopes,
            qtypes,
            budget,
            ports,
            expected,
            mode: written.mode,
            expires,
            owner: written.owner.clone(),
            reason: written.reason.clone(),
        })
    }

    fn forms(&mut self, path: &Path, written: &spec::Rule) -> Vec<(RuleForm, u32)> {
        let path = path.key("names");
        if written.names.is_empty() {
            self.problems.error(
                &path,
                "a rule without names",
                "name what it is for, for example [\"=index.example.org\"]",
            );
        }
        let mut forms = Vec::new();
        for (i, text) in written.names.iter().enumerate() {
            let form = match written.action {
                Some(Action::Deny) => RuleForm::parse_deny(text),
                Some(Action::Allow) | None => RuleForm::parse(text),
            };
            match form {
                Ok(form) => forms.push((form, self.problems.line(&path.at(i)))),
                Err(error) => self.problems.error(&path.at(i), error.to_string(), error.remedy()),
            }
        }
        forms
    }

    pub(super) fn scopes(&mut self, path: &Path, profiles: &[String]) -> ScopeSet {
        if profiles.is_empty() {
            return ScopeSet::ALL;
        }
        let mut scopes = ScopeSet::NONE;
        for (i, name) in profiles.iter().enumerate() {
            match profile_name(name) {
                Some((kind, phase)) => scopes = scopes.with(kind, phase),
                None => self.problems.error(
                    &path.at(i),
                    format!("no session has the profile `{}`", name.escape_debug()),
                    PROFILE_REMEDY,
                ),
            }
        }
        scopes
    }

    pub(super) fn expiry(&mut self, path: &Path, text: Option<&str>) -> u64 {
        let Some(day) = self.day(path, text) else { return Rule::NEVER };
        let today = self.today();
        if day <= today {
            self.problems.warn(
                path,
                format!("expired on {day}: it no longer matches"),
                "remove the rule, or set a later day",
            );
        } else if day.0 - today.0 <= super::NOTICE_DAYS {
            self.problems.warn(path, format!("expires on {day}"), "set a later day if it is still needed");
        }
        day.start()
    }
}
