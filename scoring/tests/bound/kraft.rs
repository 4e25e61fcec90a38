//! The lemma behind the bound: at every state, what could be sent next is priced by a code.
//!
//! Two to minus the price, summed over any set of queries that one reader can tell apart, is at most one. From this the
//! bound follows for every encoder (`PROOF.md`), so a hole shows here whatever an encoder would have made of it. The sums
//! run over a few thousand likely names, every name sent, all types and flags, and all gaps up to some hours.

use std::collections::BTreeSet;

use staunch_scoring::{Bits, Charge, Listing, NameBuf, Split};

use super::encoders;
use super::names::{cheapest, name};
use super::sender::{Owner, Query, Sender, TYPES, Told};
use super::{adaptive, seeded};
use crate::session::Random;

/// Domains a reader is taken to hold at most.
const DOMAINS: f64 = 4_096.0;

fn price(owner: &Owner, charge: Charge) -> f64 {
    match owner {
        Owner::Tenant(_) => charge.name,
        Owner::Icann(_) => charge.icann,
        Owner::Session => charge.session,
    }
    .as_f64()
}

fn weight(sender: &Sender, owner: &Owner, query: &Query) -> f64 {
    (-price(owner, sender.assess(query).charge)).exp2()
}

/// Labels that stand for all that could be asked: the likeliest, and numbers.
fn pool(size: usize) -> Vec<Vec<u8>> {
    let numbered = (0..size / 10).flat_map(|i| ["h", "svc", "n"].map(|form| format!("{form}{i}").into_bytes()));
    let labels: BTreeSet<Vec<u8>> = cheapest()[..size].iter().cloned().chain(numbered).collect();
    labels.into_iter().collect()
}

/// Names under `domain`, a tenant or an ICANN-level domain: those sent, its apex, likely ones, hosts that end like those sent, and
/// where it is a platform, its tenants'.
fn below(sender: &Sender, domain: &NameBuf, labels: &[Vec<u8>]) -> Vec<NameBuf> {
    let text = domain.to_string();
    let mut names: BTreeSet<NameBuf> = labels.iter().map(|label| name(&[label], &text)).collect();
    names.insert(domain.clone());
    if text == "amazonaws.com" {
        names.extend(labels.iter().map(|label| name(&[label], "s3.amazonaws.com")));
    }
    names.extend(labels.iter().take(40).map(|label| name(&[b"www", label], &text)));
    let sent = || sender.sent.iter().filter(|name| name.as_ref().is_at_or_below(domain.as_ref()));
    let ends: BTreeSet<String> = sent().filter_map(|sent| sent.as_ref().parent()).map(|end| end.to_string()).collect();
    for end in ends.iter().filter(|end| end.ends_with(&format!(".{text}"))).take(4) {
        names.extend(labels.iter().take(40).map(|label| name(&[label], end)));
        names.extend(labels.iter().take(10).map(|label| name(&[b"www", label], end)));
    }
    names.extend(sent().cloned());
    names.into_iter().collect()
}

/// Sum over all types and flags, as a multiple of an address look-up's weight.
fn over_types(sender: &Sender, owner: &Owner, name: &NameBuf) -> f64 {
    let plain = weight(sender, owner, &Query::of(name.clone()));
    let all = TYPES.iter().flat_map(|qtype| (0..4).map(move |flags| (*qtype, flags)));
    all.map(|(qtype, flags)| weight(sender, owner, &Query { qtype, flags, ..Query::of(name.clone()) })).sum::<f64>()
        / plain
}

/// The same over gaps of whole slots.
fn over_gaps(sender: &Sender, owner: &Owner, name: &NameBuf) -> f64 {
    let plain = weight(sender, owner, &Query::of(name.clone()));
    let later = Query { gap: 1 << 40, ..Query::of(name.clone()) };
    if weight(sender, owner, &later) == plain {
        // The first event of an account, or the first behind a restart: since when is not known, so it is not coded.
        return 1.0;
    }
    let gaps = (0..6_000).chain((6_000..100_000).step_by(10));
    let several = |gap: u64| if gap < 6_000 { 1.0 } else { 10.0 };
    gaps.map(|gap| several(gap) * weight(sender, owner, &Query { gap: gap * 1_000, ..Query::of(name.clone()) }))
        .sum::<f64>()
        / plain
}

/// Sum for one reader over everything.
fn sum(sender: &Sender, owner: &Owner, labels: &[Vec<u8>], timed: bool) -> f64 {
    let names: Vec<NameBuf> = match owner {
        Owner::Tenant(domain) => {
            let mut names = below(sender, domain, labels);
            names.retain(|name| Split::of(name.as_ref()).tenant(name.as_ref()) == domain.as_ref());
            names
        }
        Owner::Icann(domain) => below(sender, domain, labels),
        Owner::Session => {
            let domains: BTreeSet<NameBuf> = sender
                .sent
                .iter()
                .map(|name| Split::of(name.as_ref()).icann(name.as_ref()).to_owned())
                .take(40)
                .collect();
            domains.iter().flat_map(|domain| below(sender, domain, labels)).collect()
        }
    };
    // Two names of a tenant may have types of their own rhythm, so each name's are summed where it was sent, and one new
    // name's stand for those of all.
    let mut total = 0.0;
    for name in &names {
        let known = sender.sent.contains(name);
        let typed = if known { over_types(sender, owner, name) } else { 1.0 };
        total += typed * weight(sender, owner, &Query::of(name.clone()));
    }
    if *owner == Owner::Session {
        let fresh = name(&[], "never-asked.example");
        let known = sender.sent.iter().map(|name| Split::of(name.as_ref()).icann(name.as_ref()).to_owned());
        let known = known.collect::<BTreeSet<_>>().len();
        let under: f64 =
            below(sender, &fresh, labels).iter().map(|name| weight(sender, owner, &Query::of(name.clone()))).sum();
        total += (DOMAINS - known as f64).max(0.0) * under * over_types(sender, owner, &fresh);
    }
    let name = names.first().cloned().unwrap_or_else(|| name(&[], "never-asked.example"));
    total * if timed { over_gaps(sender, owner, &name) } else { 1.0 }
}

/// A session of some scheme, at a random point.
fn somewhere(run: u64, timed: bool) -> (&'static str, Sender) {
    let mut random = seeded(900, run);
    let all: Vec<_> =
        encoders::SCHEMES.iter().chain(adaptive::SCHEMES).chain(encoders::TIMED.iter().filter(|_| timed)).collect();
    let scheme = all[random.below(all.len())];
    let mut encoder = (scheme.draw)(&mut random);
    let mut sender = Sender::loose();
    for _ in 0..random.below(40) {
        let (query, told) = encoder(&mut random, &sender);
        sender.send(&query, told);
        if random.below(60) == 0 {
            sender.restart();
        }
    }
    (scheme.what, sender)
}

/// A platform's domain with names of its own beside its tenants', all asked again and again: for its owner the two are
/// one choice.
#[test]
fn both_levels_of_a_platform_are_one_choice() {
    let labels = pool(300);
    let mut most: f64 = 0.0;
    for run in 0..40 {
        let mut random = seeded(902, run);
        let names = ["www.amazonaws.com", "one.s3.amazonaws.com", "two.s3.amazonaws.com", "docs.amazonaws.com"];
        let mut sender = Sender::loose();
        for _ in 0..random.below(80) {
            sender.send(&Query::of(name(&[], names[random.below(names.len())])), Told::all(0.0));
        }
        for owner in [Owner::Icann(name(&[], "amazonaws.com")), Owner::Session] {
            let sum = sum(&sender, &owner, &labels, false);
            assert!(sum <= 1.0 + 1e-9, "run {run}, {owner:?}: what can come next weighs {sum}");
            most = most.max(sum);
        }
    }
    println!("both levels of a platform weigh at most {most:.3}");
}

/// A rule that covered a domain has expired: names that were sent under it are known, and one of them is a choice among
/// all of them.
#[test]
fn names_sent_under_a_rule_that_is_gone_are_a_choice_too() {
    let labels = pool(50);
    for domain in ["leak.example", "one.github.io"] {
        let under = |i: usize| Query::of(name(&[format!("n{i}").as_bytes()], domain));
        let mut sender = Sender::loose();
        for i in 0..2 {
            sender.send(&under(i), Told::all(0.0));
        }
        sender.listing = Listing::Below { budget: Bits::MAX };
        for i in 0..100 {
            sender.send(&under(i), Told::all(0.0));
        }
        sender.listing = Listing::Unlisted;
        let owned = name(&[], domain);
        let icann = Split::of(owned.as_ref()).icann(owned.as_ref()).to_owned();
        for owner in [Owner::Tenant(owned), Owner::Icann(icann), Owner::Session] {
            let sum = sum(&sender, &owner, &labels, false);
            assert!(sum <= 1.0 + 1e-9, "{owner:?}: what can come next weighs {sum}");
        }
    }
}

/// At the states of many sessions, for each reader of them.
fn priced_by_a_code(runs: std::ops::Range<u64>, timed: bool) {
    let labels = pool(300);
    let mut most = (0.0, String::new());
    for run in runs {
        let (what, sender) = somewhere(run, timed);
        let mut owners: Vec<Owner> = sender.readers.keys().cloned().collect();
        owners.push(Owner::Session);
        owners.truncate(6);
        for owner in owners {
            let sum = sum(&sender, &owner, &labels, timed);
            assert!(sum <= 1.0 + 1e-9, "{what}, run {run}, {owner:?}: what can come next weighs {sum}");
            if sum > most.0 {
                most = (sum, format!("{what}, {owner:?}, behind {} names", sender.sent.len()));
            }
        }
    }
    println!("the most that what can come next weighs: {:.3} ({})", most.0, most.1);
}

#[test]
fn what_can_come_next_is_priced_by_a_code() {
    priced_by_a_code(0..600, false);
}

#[test]
fn what_can_come_next_and_when_is_priced_by_a_code() {
    priced_by_a_code(0..120, true);
}

/// With every table full, so that names are new each time and domains share an account.
#[test]
fn full_tables_are_no_discount() {
    let mut sender = Sender::loose();
    for i in 0..3_000 {
        let query = Query::of(name(&[format!("n{i}").as_bytes()], &format!("d{}.example", i % 900)));
        sender.send(&query, Told::all(0.0));
    }
    assert!(sender.state.overflowed());
    let (full, sent) = (sender.state.clone(), sender.sent.clone());
    let labels = pool(300);
    let mut most: f64 = 0.0;
    for run in 0..12 {
        let mut random: Random = seeded(901, run);
        let mut sender = sender.at(&full, &sent[sent.len() - 200..]);
        for _ in 0..random.below(20) {
            let at = random.below(sender.sent.len());
            let name = if random.below(2) == 0 {
                sender.sent[at].clone()
            } else {
                name(&[&labels[random.below(labels.len())]], &format!("d{}.example", random.below(1_200)))
            };
            sender.send(&Query::of(name), Told::all(0.0));
        }
        let domain = |i: usize| name(&[], &format!("d{i}.example"));
        for owner in [Owner::Tenant(domain(3)), Owner::Tenant(domain(899)), Owner::Icann(domain(899)), Owner::Session] {
            let sum = sum(&sender, &owner, &labels, false);
            assert!(sum <= 1.0 + 1e-9, "run {run}, {owner:?}: what can come next weighs {sum}");
            most = most.max(sum);
        }
    }
    println!("with full tables what can come next weighs at most {most:.3}");
}
