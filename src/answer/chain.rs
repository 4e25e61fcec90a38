//! The question's chain: which names its aliases lead through, in whatever order the records stand.

use staunch_scoring::NameRef;

use super::guard::is_internal_name;
use super::message::{Message, Record, Spelled, read_name};
use super::rdata;
use super::vet::{CLASS_IN, CNAME, DNAME, SOA};
use super::{AnswerRules, Asked, MAX_HOPS};
use crate::model::Qtype;

/// One alias record on the chain.
pub(crate) struct Step {
    pub(crate) owner: Spelled,
    pub(crate) rtype: u16,
    pub(crate) ttl: u32,
    pub(crate) source: Source,
}

/// Where an alias record's data comes from.
pub(crate) enum Source {
    /// The response's answer section.
    Record(Record),
    /// Made from a DNAME (RFC 6672 section 3.1), also where it came with its CNAME: that one has the letter case of the
    /// question that was sent.
    Made {
        /// Where it leads.
        target: Box<Spelled>,
        /// It came as well.
        came: bool,
    },
}

/// The question's chain: aliases in order, and the name they end at.
pub(crate) struct Chain {
    /// Alias records, in order.
    pub(crate) steps: Vec<Step>,
    /// Names they lead to, in order, canonical.
    pub(crate) hops: Vec<Spelled>,
    /// The last of them, or the question's name.
    pub(crate) end: Spelled,
    /// It was cut where it led to a name of the inside.
    pub(crate) internal: bool,
    /// Where its last alias leads is a question of its own: into a zone of which others are asked, where it was cut, or to a
    /// name that was left open.
    pub(crate) beyond: bool,
    /// Beside an alias stood what was asked for, where nothing may stand (RFC 2181 section 10.1): who says both need not have looked
    /// where the alias leads.
    contradicted: bool,
    /// It ends at a DNAME that makes a name longer than names may be (YXDOMAIN; RFC 6672 section 2.2).
    pub(crate) too_long: bool,
}

/// Where one step leads.
enum Hop {
    /// Nowhere: the chain ends here.
    End,
    /// To another name, by these records.
    To(Vec<Step>, Box<Spelled>),
    /// To a name that is too long, by this DNAME.
    TooLong(Box<Step>),
    /// There is an alias, and where it leads cannot be read: that says nothing of whether it leads anywhere.
    Unreadable,
}

impl Chain {
    /// `None` for a chain that loops, has too many steps, or an alias of which nothing can be read.
    ///
    /// A question of type CNAME or ANY is answered by what stands at its name and follows no alias but one of a DNAME: nothing
    /// exists below one (RFC 6672 section 2.3), so the CNAME there is its work, and no proof without it.
    pub(crate) fn follow(message: &Message<'_>, asked: Asked<'_>, rules: &AnswerRules) -> Option<Self> {
        let end = Spelled::of(asked.qname);
        let mut chain = Self {
            steps: Vec::new(),
            hops: Vec::new(),
            end,
            internal: false,
            beyond: false,
            contradicted: false,
            too_long: false,
        };
        let for_aliases = asked.is_for_aliases();
        loop {
            if !for_aliases && chain.at_end(message).any(|r| r.rtype == asked.qtype.0) {
                if stands_beside_aliases(asked.qtype) || !chain.at_end(message).any(|r| r.rtype == CNAME) {
                    break;
                }
                chain.contradicted = true;
            }
            let (steps, target) = match chain.hop(message, for_aliases) {
                Hop::To(steps, target) => (steps, *target),
                Hop::End => break,
                Hop::Unreadable => return None,
                Hop::TooLong(step) => {
                    chain.steps.push(*step);
                    chain.too_long = true;
                    break;
                }
            };
            let name = target.as_name()?;
            if is_internal_name(name) && !rules.names_inside(asked.qname) {
                chain.internal = true;
                break;
            }
            let seen = name == asked.qname || chain.hops.iter().any(|hop| hop.as_wire() == target.as_wire());
            if seen || chain.hops.len() == MAX_HOPS {
                return None;
            }
            chain.beyond = rules.is_beyond(asked.qname, name);
            chain.steps.extend(steps);
            chain.hops.push(target);
            chain.end = target;
            // The alias that a DNAME makes is what was asked for; others may have looked further.
            if chain.beyond || for_aliases && !chain.at_end(message).any(|r| r.rtype == CNAME) {
                break;
            }
        }
        chain.beyond |= chain.is_left_open(message, asked, rules);
        Some(chain)
    }

    /// Whether nothing is said of the name that the aliases lead to, not even that there is nothing, by one who need not know:
    /// a zone's own upstream of what is outside the zone, or a server that looks for nothing itself (RA is not set; RFC 1034
    /// section 5.3.3, step 4c). One that does look, and says nothing, has found nothing: some leave the SOA out.
    fn is_left_open(&self, message: &Message<'_>, asked: Asked<'_>, rules: &AnswerRules) -> bool {
        let Some(end) = self.end.as_name() else { return false };
        let is_bare = !self.steps.is_empty() && !self.internal && !self.too_long && message.rcode == 0;
        let above = |r: &Record| NameRef::from_wire(message.owner(r)).is_ok_and(|zone| end.is_at_or_below(zone));
        let is_denied = || message.authorities().iter().any(|r| r.class == CLASS_IN && r.rtype == SOA && above(r));
        let need_not_know = rules.leads_out(asked.qname, end) || !message.recursion_available || self.contradicted;
        is_bare
            && need_not_know
            && !asked.is_for_aliases()
            && !self.at_end(message).any(|r| r.rtype == asked.qtype.0)
            && !is_denied()
    }

    /// Records of the answer section that belong to the name the chain ends at.
    pub(crate) fn at_end<'a>(&'a self, message: &'a Message<'_>) -> impl Iterator<Item = &'a Record> {
        let end = self.end.as_wire();
        message.answers().iter().filter(move |r| r.class == CLASS_IN && message.owner(r) == end)
    }

    /// The next alias, if there is one; `redirected`: only by a DNAME.
    fn hop(&self, message: &Message<'_>, redirected: bool) -> Hop {
        let cnames = || self.at_end(message).filter(|r| r.rtype == CNAME);
        let cname = cnames().find_map(|r| rdata::target(message, r).ok().map(|target| (*r, target)));
        let covering = self.dnames(message);
        // Of several the highest: nothing exists below it.
        let dname = covering
            .iter()
            .filter_map(|(r, owner)| rdata::target(message, r).ok().map(|target| (*r, *owner, target)))
            .min_by_key(|(_, owner, _)| owner.as_wire().len());
        let Some((record, owner, dname_target)) = dname else {
            let is_unreadable = !covering.is_empty() || !redirected && cnames().next().is_some();
            let Some((record, target)) = cname.filter(|_| !redirected) else {
                return if is_unreadable { Hop::Unreadable } else { Hop::End };
            };
            let step = Step { owner: self.end, rtype: CNAME, ttl: record.ttl, source: Source::Record(record) };
            return Hop::To(vec![step], Box::new(target.folded()));
        };
        // The owner's octets are the last of the end's.
        let prefix_len = self.end.as_wire().len().saturating_sub(owner.as_wire().len());
        let dname = Step { owner, rtype: DNAME, ttl: record.ttl, source: Source::Record(record) };
        let prefix = self.end.as_wire().get(..prefix_len).unwrap_or_default();
        let Some(made) = substitute(prefix, &dname_target) else { return Hop::TooLong(Box::new(dname)) };
        let theirs = cname.filter(|(_, target)| target.folded().as_wire() == made.folded().as_wire());
        let leads_to = Box::new(made.folded());
        let source = Source::Made { target: Box::new(made), came: theirs.is_some() };
        // It lives as long as what it is made from (RFC 6672 section 3.1), whatever it came with: unbound says 0 of one that it
        // has made itself.
        let cname = Step { owner: self.end, rtype: CNAME, ttl: record.ttl, source };
        Hop::To(vec![dname, cname], leads_to)
    }

    /// The DNAME records above the chain's end, and their owners.
    fn dnames(&self, message: &Message<'_>) -> Vec<(Record, Spelled)> {
        let Some(end) = self.end.as_name() else { return Vec::new() };
        let of_dname = message.answers().iter().filter(|r| r.class == CLASS_IN && r.rtype == DNAME);
        let covering = of_dname.filter_map(|r| {
            let owner = NameRef::from_wire(message.owner(r)).ok().filter(|owner| end.is_below(*owner))?;
            Some((*r, Spelled::of(owner)))
        });
        covering.collect()
    }
}

/// Whether records of this type may stand beside a CNAME (RFC 4035 section 2.5).
fn stands_beside_aliases(qtype: Qtype) -> bool {
    matches!(qtype, Qtype::RRSIG | Qtype::NSEC)
}

/// `prefix` (labels without a root) put in front of `target`.
fn substitute(prefix: &[u8], target: &Spelled) -> Option<Spelled> {
    let mut wire = Vec::with_capacity(255);
    wire.extend_from_slice(prefix);
    wire.extend_from_slice(target.as_wire());
    read_name(&wire, 0).ok().map(|(name, _)| name)
}
