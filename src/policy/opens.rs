//! What an answer opens: which ports of its addresses, and how much may go out to them.

use staunch_scoring::NameRef;

use super::{Policy, Profile, Unlisted};
use crate::event::RuleRef;
use crate::lists::{Action, Allowance, Grants, Rule, RuleMatch};
use crate::model::{Mode, Reason, Wall};
use crate::ports::Ports;
use crate::session::Context;
use crate::wire::Edns;

/// What the addresses of a name are opened for.
#[derive(Debug, Clone, Copy)]
pub struct Opens<'a> {
    /// These ports.
    pub ports: &'a Ports,
    /// Octets that may go out to each address over the session's life; no end where a rule, a grant or a pack names it.
    pub volume: Option<u64>,
    /// The rule in force that names it.
    pub rule: Option<&'a Rule>,
    /// Whether a rule, a grant or a pack names it.
    pub listed: bool,
}

/// Nothing is opened for a name.
#[derive(Debug, Clone)]
pub struct Shut {
    /// Why.
    pub reason: Reason,
    /// The rule or the entry of a list that says so, where one does.
    pub rule: Option<RuleRef>,
}

impl Policy {
    /// Whether a session may ask a parent whether a zone of ours is signed: where signatures are wanted, and names that no rule
    /// speaks of are not refused as such.
    pub fn asks_parents(&self, context: &Context, edns: Option<Edns>) -> bool {
        let profile = self.profiles.of(context.kind(), context.phase());
        edns.is_some_and(|edns| edns.dnssec_ok) && profile.unlisted == Unlisted::Score
    }

    /// What the addresses of `qname` are opened for, as rules, grants, lists and the profile have it now; an error where one
    /// of them refuses the name. Neither score nor ledger is asked: what was answered stays open until its lease ends, unless
    /// somebody's word has changed. For a session that is monitored nothing refuses.
    pub fn opens<'a>(
        &'a self,
        context: &Context,
        grants: &'a Grants,
        qname: NameRef<'_>,
        wall: Wall,
    ) -> Result<Opens<'a>, Shut> {
        let profile = self.profiles.of(context.kind(), context.phase());
        let refuses = self.mode_of(context) == Mode::Enforce;
        let grant = grants.look_up(qname, &context.announcement.id, wall.steady);
        if grant.is_some() {
            return Ok(of(profile, grant, None, false));
        }
        let found = self.look_up(context, qname, wall);
        let rule = found.rules.in_force;
        let allowed = rule.filter(|hit| hit.rule.action == Action::Allow);
        if refuses && allowed.is_none() {
            let shut = |reason, rule| Err(Shut { reason, rule });
            if let Some(rule) = rule {
                return shut(Reason::DenyRule, Some(rule.reference()));
            }
            if let Some(entry) = found.deny {
                return shut(Reason::DenyList, Some(entry.reference()));
            }
            if profile.unlisted == Unlisted::Refuse {
                return shut(Reason::NotAllowed, None);
            }
        }
        Ok(of(profile, None, allowed, found.pack.is_some() && profile.has_packs()))
    }

    /// Whether a pack's entry knows `name`, for a session that has packs.
    pub fn is_packed(&self, context: &Context, name: NameRef<'_>, wall: Wall) -> bool {
        let profile = self.profiles.of(context.kind(), context.phase());
        profile.has_packs() && self.look_up(context, name, wall).pack.is_some()
    }

    /// Whether a grant names `name`, or a rule in force does: any for `any_rule`, else one that allows it.
    pub fn is_written(
        &self,
        context: &Context,
        grants: &Grants,
        name: NameRef<'_>,
        wall: Wall,
        any_rule: bool,
    ) -> bool {
        if grants.look_up(name, &context.announcement.id, wall.steady).is_some() {
            return true;
        }
        let rule = self.rules_of(context, name, wall).in_force;
        rule.is_some_and(|hit| any_rule || hit.rule.action == Action::Allow)
    }
}

/// What is opened for a name that a grant, an allow rule or a pack names, the first of them that does, or none.
pub(super) fn of<'a>(
    profile: &'a Profile,
    grant: Option<&'a Allowance>,
    rule: Option<RuleMatch<'a>>,
    packed: bool,
) -> Opens<'a> {
    let rule = rule.filter(|_| grant.is_none()).map(|hit| hit.rule);
    let ports = grant.and_then(|grant| grant.ports.as_ref()).or_else(|| rule?.ports.as_ref());
    let listed = grant.is_some() || rule.is_some() || packed;
    let volume = if listed { None } else { profile.volume.cut };
    Opens { ports: ports.unwrap_or(&profile.ports), volume, rule, listed }
}
