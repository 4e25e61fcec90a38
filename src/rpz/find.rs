//! Look-ups: a question by its client and name, an answer by the names and addresses on its chain. Nothing is allocated.

use std::net::IpAddr;

use staunch_scoring::NameRef;

use super::{Action, NONE, Override, Rules, Snapshot, Target, Trigger, Zone};
use crate::lists::Suffixes;

/// Most labels of a name, root not counted.
const MAX_LABELS: usize = 127;

/// A rule that matched.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'s> {
    /// The zone.
    pub zone: &'s std::sync::Arc<Zone>,
    /// Its place in the order.
    pub place: usize,
    /// Number of the rule within its zone.
    pub rule: u32,
    /// What matched.
    pub trigger: Trigger,
    /// What is to be done.
    pub action: Action,
}

/// What zones say of a question.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'s> {
    /// The rule that decides.
    pub hit: Option<Hit<'s>>,
    /// The first rule of a disabled zone that would have.
    pub logged: Option<Hit<'s>>,
}

/// What zones say of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerHit<'s> {
    /// The rule that decides.
    pub hit: Option<Hit<'s>>,
    /// The first rule of a disabled zone that would have.
    pub logged: Option<Hit<'s>>,
    /// How many aliases lead to the name that it is about.
    pub depth: usize,
}

/// The names and addresses of an answer.
pub trait Chain {
    /// Names behind the first, in the order of the aliases that lead to them.
    fn hops(&self) -> impl Iterator<Item = NameRef<'_>>;
    /// Addresses at its end.
    fn addresses(&self) -> impl Iterator<Item = IpAddr>;
}

/// Names that somebody's word exempts.
pub trait Exempt {
    /// Whether no zone is asked about this name. `depth` aliases lead to it.
    fn name(&self, name: NameRef<'_>, depth: usize) -> bool;
}

/// The fingerprints of a name and its ancestors, widest first.
struct Hashes {
    all: [u64; MAX_LABELS],
    count: usize,
}

impl Hashes {
    fn of(name: NameRef<'_>, zones: &Snapshot) -> Self {
        let mut hashes = Self { all: [0; MAX_LABELS], count: 0 };
        let Some(zone) = zones.zones().first() else { return hashes };
        for (slot, suffix) in hashes.all.iter_mut().zip(Suffixes::of(name, &zone.rules.key)) {
            *slot = suffix.hash;
            hashes.count += 1;
        }
        hashes
    }

    fn as_slice(&self) -> &[u64] {
        self.all.get(..self.count).unwrap_or_default()
    }
}

impl Rules {
    /// The rule of a name: its own, else that of the wildcard at its closest encloser (RFC 4592 section 3.3.1), if the name
    /// does not exist in the zone.
    fn by_name(&self, hashes: &[u64]) -> u32 {
        let mut node = match self.nodes.first() {
            Some(root) => *root,
            None => return NONE,
        };
        for hash in hashes {
            match self.names.find(*hash).and_then(|at| self.nodes.get(at as usize)) {
                Some(next) => node = *next,
                None => return node.wild,
            }
        }
        node.exact
    }
}

impl Zone {
    fn hit<'s>(this: &'s std::sync::Arc<Self>, place: usize, rule: u32, trigger: Trigger) -> Option<Hit<'s>> {
        let written = this.rules.rules.get(rule as usize)?;
        let action = this.settings.policy.action().unwrap_or_else(|| written.action());
        Some(Hit { zone: this, place, rule, trigger, action })
    }

    fn is_disabled(&self) -> bool {
        self.settings.policy == Override::Disabled
    }
}

impl Snapshot {
    /// What the zones say of a question, before anything leaves: in their order, of each the client's address first.
    pub fn question(&self, name: NameRef<'_>, client: IpAddr) -> Named<'_> {
        if self.is_empty() {
            return Named::default();
        }
        let hashes = Hashes::of(name, self);
        let mut found = Named::default();
        for (place, zone) in self.zones().iter().enumerate() {
            let hit = by_client(zone, place, client).or_else(|| by_name(zone, place, hashes.as_slice(), name));
            match hit {
                Some(hit) if zone.is_disabled() => found.logged = found.logged.or(Some(hit)),
                Some(hit) => {
                    found.hit = Some(hit);
                    break;
                }
                None => {}
            }
        }
        found
    }

    /// Whether any zone has something to say of answers.
    pub fn looks_at_answers(&self) -> bool {
        !self.is_empty()
    }

    /// What the zones say of an answer to `name`: name by name along the chain. Of the last name the zones are asked in their
    /// order, of each the name first and then the addresses; of the others no address is known.
    ///
    /// Where a zone lets a name or the client pass, nothing that follows is asked about, be it of a zone before that one: BIND
    /// and unbound both have it so.
    pub fn answer(
        &self,
        name: NameRef<'_>,
        client: IpAddr,
        tcp: bool,
        chain: &impl Chain,
        exempt: &impl Exempt,
    ) -> AnswerHit<'_> {
        let mut found = AnswerHit::default();
        if self.is_empty() {
            return found;
        }
        let last = chain.hops().count();
        // What the question itself meets is asked anew: the answer may have been long under way.
        for (depth, name) in std::iter::once(name).chain(chain.hops()).enumerate() {
            let named = !exempt.name(name, depth);
            let hashes = Hashes::of(name, self);
            for (place, zone) in self.zones().iter().enumerate() {
                let of_name = if named { by_name(zone, place, hashes.as_slice(), name) } else { None };
                let of_client = if named && depth == 0 { by_client(zone, place, client) } else { None };
                let of_address = || if depth == last { by_address(zone, place, chain) } else { None };
                let Some(hit) = of_client.or(of_name).or_else(of_address) else { continue };
                if zone.is_disabled() {
                    found.logged = found.logged.or(Some(hit));
                    continue;
                }
                if hit.action.lets_pass(tcp) {
                    return found;
                }
                return AnswerHit { hit: Some(hit), depth, ..found };
            }
        }
        found
    }
}

fn by_name<'s>(zone: &'s std::sync::Arc<Zone>, place: usize, hashes: &[u64], name: NameRef<'_>) -> Option<Hit<'s>> {
    let mut hit = Zone::hit(zone, place, zone.rules.by_name(hashes), Trigger::Qname)?;
    // An alias to the very name that is asked for is an old way to let it pass, and BIND keeps to it below a wildcard, too.
    if hit.action == Action::Local
        && zone.settings.policy.action().is_none()
        && matches!(hit.target(name), Target::Name(target, _) if target.as_ref() == name)
    {
        hit.action = Action::Passthru;
    }
    Some(hit)
}

fn by_client(zone: &std::sync::Arc<Zone>, place: usize, client: IpAddr) -> Option<Hit<'_>> {
    Zone::hit(zone, place, zone.rules.clients.find(client), Trigger::ClientIp)
}

/// Of several addresses the one with the longest prefix, then the smaller address.
fn by_address<'s>(zone: &'s std::sync::Arc<Zone>, place: usize, chain: &impl Chain) -> Option<Hit<'s>> {
    if zone.rules.addresses.is_empty() {
        return None;
    }
    let (_, rule) = chain.addresses().filter_map(|address| zone.rules.addresses.longest(address)).min()?;
    Zone::hit(zone, place, rule, Trigger::Ip)
}
