//! Names answered here and nowhere else: special-use names, private reverse zones, search-list expansions, and those of names
//! that were refused.
//!
//! Asked by [`crate::pipeline`] after configured zones and rules and before lists and scoring; what it answers is never
//! scored, because nothing leaves. It knows names alone: no session but the search list and the names handed in, no wire format;
//! [`crate::reply::local`] writes the message.
//!
//! An NXDOMAIN is only given where nothing exists below (RFC 8020), so that a stub that remembers it cannot lose a name
//! that does; the apex of a zone, a declared search suffix and a real top-level domain get NODATA, as does a name above one
//! that the configuration speaks of ([`Local::above_others`]). Below a search suffix only expansions are denied: names in which
//! a whole name stands in front of the suffix. Hosts of the suffix go on.

use std::net::{Ipv4Addr, Ipv6Addr};

use staunch_scoring::name::LabelOffsets;
use staunch_scoring::{NameBuf, NameRef, Split};

use crate::model::Qtype;
use crate::nat64::{self, MAX_PREFIXES, Nat64};

mod reverse;
pub mod token;

/// How long answers of the fixed tables may be kept, seconds. RFC 6303 section 3 gives its zones the same.
const STATIC_TTL: u32 = 10_800;

/// How long answers that depend on the session or on a guess about the name may be kept, seconds. Short, so that a
/// changed search list or a new zone works within a minute. Chosen without a source.
const VOLATILE_TTL: u32 = 30;

/// Rules of [`special`] that speak of a session's own search list.
const SEARCH_RULES: [&str; 2] = ["search suffix", "search-list expansion"];

/// The rule of [`retried`].
const RULE_RETRIED: &str = "search-list expansion of a refused name";

/// Top-level labels below which nothing is ever forwarded; what the suffix list has of `arpa` stands for the rest.
const SPECIAL: [&[u8]; 7] = [b"localhost", b"invalid", b"test", b"local", b"onion", b"alt", b"internal"];

/// The zones whose parent proves that they are not signed.
const RULE_HOME: &str = "RFC 8375 home.arpa";
const RULE_SERVICE: &str = "RFC 9665 service.arpa";
/// The rule by which clients are told of NAT64 prefixes.
const RULE_IPV4ONLY: &str = "RFC 8880 ipv4only.arpa";

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

/// An answer given locally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// NOERROR (0) or NXDOMAIN (3).
    pub rcode: u8,
    /// The answer section; empty with NOERROR means NODATA.
    pub records: Records,
    /// Labels of the zone whose SOA a negative answer carries, counted from the right end of the qname (0..=127).
    pub zone_labels: u8,
    /// Time to live of every record and of a negative answer, seconds.
    pub ttl: u32,
    /// Why it is answered here, for `explain` and events: what kind of name, and the document that says so.
    pub rule: &'static str,
}

impl Local {
    /// Whether the parent of a zone that is delegated without a signature has to prove that it is: a stub that validates takes
    /// everything in it for forged otherwise (RFC 8375, and RFC 9665 like it). The name carries nothing that a session could
    /// choose.
    pub fn is_for_the_parent(&self, qtype: Qtype) -> bool {
        qtype == Qtype::DS && self.rcode == NOERROR && [RULE_HOME, RULE_SERVICE].contains(&self.rule)
    }

    /// Whether the name goes on after all, because the operator has named servers for `forwarded`, a zone that holds it:
    /// that is a word about this name where the zone is no larger than the one that answers here (`internal`,
    /// `10.in-addr.arpa`). `arpa` or `com` as a whole says nothing of them.
    pub fn yields_to(&self, forwarded: Option<NameRef<'_>>) -> bool {
        // What was refused is refused whoever is asked for the suffix behind it.
        self.rule != RULE_RETRIED
            && forwarded.is_some_and(|zone| {
                SEARCH_RULES.contains(&self.rule) || zone.label_count() >= usize::from(self.zone_labels)
            })
    }

    /// The same in a network with these NAT64 prefixes, at most [`MAX_PREFIXES`] of which are told: without any, clients that
    /// look for one learn that there is none.
    #[must_use]
    pub fn behind(self, prefixes: &[Nat64], qname: NameRef<'_>, qtype: Qtype) -> Self {
        if prefixes.is_empty()
            || self.rule != RULE_IPV4ONLY
            || qtype != Qtype::AAAA
            || qname.as_wire() != nat64::IPV4ONLY
        {
            return self;
        }
        let mut told = [None; MAX_PREFIXES];
        for (slot, prefix) in told.iter_mut().zip(prefixes) {
            *slot = Some(*prefix);
        }
        Self { records: Records::Nat64(told), ..self }
    }

    /// The same for a name below which others can be answered that are not answered here (RFC 8020 section 2): it exists, and
    /// what makes it exist can change.
    #[must_use]
    pub fn above_others(self, exist: impl FnOnce() -> bool) -> Self {
        if self.rcode != NXDOMAIN || !exist() {
            return self;
        }
        Self { rcode: NOERROR, ttl: self.ttl.min(VOLATILE_TTL), ..self }
    }

    /// What is said beside the answer, where whoever asks may not know why: a name that somebody may have meant was denied
    /// for its form alone.
    pub fn note(&self) -> Option<&'static str> {
        match self.rule {
            rule if rule == SEARCH_RULES[1] => Some("a whole name below your declared search suffix; never forwarded"),
            RULE_RETRIED => Some("the name in front of the search suffix was refused; not forwarded with it either"),
            _ => None,
        }
    }

    /// The zone that answers, given the qname it was made for.
    pub fn zone<'n>(&self, qname: NameRef<'n>) -> NameRef<'n> {
        qname.strip_left(qname.label_count().saturating_sub(usize::from(self.zone_labels)))
    }
}

/// What a local answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Nothing: a negative answer with the zone's SOA.
    None,
    /// One A record for each address.
    A(&'static [Ipv4Addr]),
    /// One AAAA record.
    Aaaa(Ipv6Addr),
    /// The AAAA records of `ipv4only.arpa`: its addresses behind each of these prefixes, the first always there.
    Nat64([Option<Nat64>; MAX_PREFIXES]),
    /// One PTR record to this name, uncompressed wire form.
    Ptr(&'static [u8]),
    /// The zone's own SOA record.
    Soa,
}

/// Says whether `qname` is one that no upstream may be asked about, and what to answer.
///
/// `search` is the session's declared search list. `None` means that the name goes on to lists and scoring. The caller
/// looks into configured zones and exact rules first, so that `corp.internal` or `wiki.home.arpa` can be served.
///
/// The root and single-label names: real top-level domains get NODATA, any other single label NXDOMAIN; questions for
/// DS, DNSKEY, NS and SOA at the root or a real top-level domain are left to policy, because a validating stub needs
/// them and their names carry nothing a session could choose freely.
pub fn special(qname: NameRef<'_>, qtype: Qtype, search: &[NameBuf]) -> Option<Local> {
    let offsets = LabelOffsets::of(qname);
    let count = offsets.count();
    let mut from_right = offsets.rev_labels(qname);
    let Some(last) = from_right.next() else {
        return (!is_infrastructure(qtype)).then(|| nodata(0, VOLATILE_TTL, "root"));
    };
    let fixed = match last {
        b"localhost" => Some(loopback(qtype)),
        b"invalid" => Some(denied(1, "RFC 6761 invalid")),
        b"test" => Some(denied(1, "RFC 6761 test")),
        b"local" => Some(denied(1, "RFC 6762 multicast DNS")),
        b"onion" => Some(denied(1, "RFC 7686 onion")),
        b"alt" => Some(denied(1, "RFC 9476 alt")),
        b"internal" => Some(denied(1, "private-use internal")),
        b"arpa" => arpa(qname, qtype, &offsets),
        b"net" => at_or_below(qname, &[b"use-application-dns", b"net"], &offsets)
            .then(|| denied(2, "canary of application DNS")),
        b"com" => [b"mask".as_slice(), b"mask-h2"]
            .iter()
            .any(|relay| at_or_below(qname, &[relay, b"icloud", b"com"], &offsets))
            .then(|| denied(3, "canary of private relay")),
        _ => None,
    };
    if fixed.is_some() {
        return fixed;
    }
    if count == 1 {
        return match psl::Psl::find(&psl::List, std::iter::once(last)).typ {
            Some(_) if is_infrastructure(qtype) => None,
            Some(_) => Some(nodata(1, VOLATILE_TTL, "top-level domain")),
            None => Some(Local { ttl: VOLATILE_TTL, ..denied(1, "single label") }),
        };
    }
    let suffixes = || search.iter().map(NameBuf::as_ref).filter(|s| !s.is_root() && qname.is_at_or_below(*s));
    // The suffix itself gets NODATA: rules may allow names below it.
    if suffixes().any(|suffix| suffix == qname) {
        return Some(nodata(count as u8, VOLATILE_TTL, SEARCH_RULES[0])); // at most 127 labels
    }
    let suffix = suffixes().find(|suffix| is_expansion(qname, &offsets, suffix.label_count(), search))?;
    Some(Local { ttl: VOLATILE_TTL, ..denied(suffix.label_count() as u8, SEARCH_RULES[1]) })
}

/// Says whether `qname` is one of the names `refused` to this session with a suffix behind it, and what to answer: a stub that
/// is told that a name is not there asks for it below each suffix of its search list. Nobody has to have declared that list,
/// and what the session was refused is not to be told to whoever serves the suffix.
///
/// Not where the two could be one name of their own: `site.com` was refused, and `site.com.br` is another owner's.
pub fn retried<'r>(qname: NameRef<'_>, mut refused: impl Iterator<Item = NameRef<'r>>) -> Option<Local> {
    let is_behind = |front: NameRef<'_>| {
        let labels = front.as_wire().split_last().map_or(&[][..], |(_, labels)| labels);
        !labels.is_empty() && qname.wire_len() > front.wire_len() && qname.as_wire().starts_with(labels)
    };
    let front = refused.find(|front| is_behind(*front))?;
    let offsets = LabelOffsets::of(qname);
    let suffix = offsets.count().saturating_sub(front.label_count());
    let own = offsets.count().saturating_sub(usize::from(Split::of(qname).icann_at));
    // A suffix of one label is nobody's domain, unless it is a top-level domain.
    let stands_apart =
        suffix >= own || (suffix == 1 && psl::Psl::find(&psl::List, offsets.rev_labels(qname).take(1)).typ.is_none());
    (stands_apart && is_expansion(qname, &offsets, suffix, &[]))
        .then(|| Local { ttl: VOLATILE_TTL, ..denied(suffix as u8, RULE_RETRIED) }) // at most 127 labels
}

/// Of a name that may be another one with a suffix of a search list behind it, that suffix: a domain at least, in front of which
/// a whole name stands.
pub fn behind_a_whole_name(qname: NameRef<'_>) -> Option<NameRef<'_>> {
    let offsets = LabelOffsets::of(qname);
    let own = offsets.count().saturating_sub(usize::from(Split::of(qname).icann_at));
    let suffix = (own..offsets.count()).find(|suffix| is_expansion(qname, &offsets, *suffix, &[]))?;
    Some(qname.strip_left(offsets.count() - suffix))
}

/// Whether what stands left of the `suffix` rightmost labels is a whole name, to which a stub has added them: two labels
/// or more that end in a public suffix, in a special-use name, or in a search suffix of the session. One label, and what
/// ends in nothing of that kind, may be a host of the suffix.
fn is_expansion(qname: NameRef<'_>, offsets: &LabelOffsets, suffix: usize, search: &[NameBuf]) -> bool {
    let left = || offsets.rev_labels(qname).skip(suffix);
    let Some(last) = left().next().filter(|_| offsets.count() >= suffix + 2) else { return false };
    let ends_in = |zone: NameRef<'_>| {
        let zone_labels = LabelOffsets::of(zone);
        let count = zone_labels.count();
        count > 0 && zone_labels.rev_labels(zone).eq(left().take(count))
    };
    SPECIAL.contains(&last)
        || psl::Psl::find(&psl::List, left()).typ.is_some()
        || search.iter().any(|zone| ends_in(zone.as_ref()))
}

/// Types that a validating stub asks of the root and of top-level domains.
fn is_infrastructure(qtype: Qtype) -> bool {
    [Qtype::DS, Qtype::DNSKEY, Qtype::NS, Qtype::SOA].contains(&qtype)
}

/// RFC 6761 section 6.3: localhost and everything below is the loopback.
fn loopback(qtype: Qtype) -> Local {
    let records = match qtype {
        Qtype::A => Records::A(&[Ipv4Addr::LOCALHOST]),
        Qtype::AAAA => Records::Aaaa(Ipv6Addr::LOCALHOST),
        _ => Records::None,
    };
    Local { records, ..nodata(1, STATIC_TTL, "RFC 6761 localhost") }
}

/// The special zones below arpa.
fn arpa(qname: NameRef<'_>, qtype: Qtype, offsets: &LabelOffsets) -> Option<Local> {
    let rest = offsets.count() - 1;
    let second = offsets.rev_labels(qname).nth(1)?;
    match second {
        b"in-addr" => reverse::ipv4(qname, qtype, offsets),
        b"ip6" => reverse::ipv6(qname, qtype, offsets),
        b"home" => Some(zone(rest == 1, 2, qtype, RULE_HOME)),
        b"service" => Some(zone(rest == 1, 2, qtype, RULE_SERVICE)),
        b"6tisch" => Some(zone(rest == 1, 2, qtype, "RFC 9031 6tisch.arpa")),
        b"eap" => Some(zone(rest == 1, 2, qtype, "RFC 9965 eap.arpa")),
        // We designate no encrypted resolver: NODATA at the discovery name (RFC 9462 section 4).
        b"resolver" => {
            let discovery = rest == 2 && offsets.rev_labels(qname).nth(2) == Some(b"_dns".as_slice());
            Some(zone(rest == 1 || discovery, 2, qtype, "RFC 9462 resolver.arpa").without_soa_at(discovery))
        }
        // The well-known addresses; what there is of AAAA is for [`Local::behind`] to say (RFC 7050, RFC 8880 section 7).
        b"ipv4only" => {
            let local = zone(rest == 1, 2, qtype, RULE_IPV4ONLY);
            Some(match qtype {
                Qtype::A if rest == 1 => Local { records: Records::A(&nat64::WELL_KNOWN), ..local },
                _ => local,
            })
        }
        _ => None,
    }
}

impl Local {
    /// NODATA even for SOA: the name stands inside its zone, not at the apex.
    fn without_soa_at(self, inside: bool) -> Self {
        if inside { Self { records: Records::None, ..self } } else { self }
    }
}

/// A locally served empty zone (RFC 6303 section 3): SOA or NODATA at the apex, NXDOMAIN below.
fn zone(apex: bool, labels: u8, qtype: Qtype, rule: &'static str) -> Local {
    match (apex, qtype) {
        (true, Qtype::SOA) => Local { records: Records::Soa, ..nodata(labels, STATIC_TTL, rule) },
        (true, _) => nodata(labels, STATIC_TTL, rule),
        (false, _) => denied(labels, rule),
    }
}

/// NXDOMAIN from the zone of that many labels.
fn denied(zone_labels: u8, rule: &'static str) -> Local {
    Local { rcode: NXDOMAIN, records: Records::None, zone_labels, ttl: STATIC_TTL, rule }
}

/// NODATA from the zone of that many labels.
fn nodata(zone_labels: u8, ttl: u32, rule: &'static str) -> Local {
    Local { rcode: NOERROR, records: Records::None, zone_labels, ttl, rule }
}

/// Whether `qname` is the name of these labels or stands below it.
fn at_or_below(qname: NameRef<'_>, labels: &[&[u8]], offsets: &LabelOffsets) -> bool {
    let mut own = offsets.rev_labels(qname);
    labels.iter().rev().all(|label| own.next() == Some(*label))
}

#[cfg(test)]
mod tests;
