//! Encoders that ask the ledger for the price of everything they might send next, and take what is cheap.
//!
//! The receiver is taken to know all that the sender knows but the payload: the candidates follow from what was sent.

use staunch_scoring::NameBuf;

use super::encoders::{Encoder, Scheme};
use super::names::{Likeness, cheapest, name, unit};
use super::sender::{Query, Sender, TYPES, Told};
use crate::session::Random;

pub const SCHEMES: &[Scheme] = &[
    Scheme { what: "any of the cheapest queries, tenant", draw: |draw| uniform(draw, Reads::Tenant) },
    Scheme { what: "any of the cheapest queries, platform", draw: |draw| uniform(draw, Reads::Icann) },
    Scheme { what: "any of the cheapest queries, session", draw: |draw| uniform(draw, Reads::Session) },
    Scheme { what: "as often as it is cheap, tenant", draw: |draw| fitted(draw, Reads::Tenant) },
    Scheme { what: "as often as it is cheap, platform", draw: |draw| fitted(draw, Reads::Icann) },
    Scheme { what: "as often as it is cheap, session", draw: |draw| fitted(draw, Reads::Session) },
];

/// Whose account the encoder is tuned to; it sends under nothing else.
#[derive(Clone, Copy, PartialEq)]
pub enum Reads {
    Tenant,
    Icann,
    Session,
}

impl Reads {
    fn price(self, sender: &Sender, query: &Query) -> f64 {
        let charge = sender.assess(query).charge;
        match self {
            Self::Tenant => charge.name,
            Self::Icann => charge.icann,
            Self::Session => charge.session,
        }
        .as_f64()
    }

    /// Only the account it is tuned to counts: others see a part that is not theirs to tell apart.
    fn told(self, bits: f64) -> Told {
        let only = |at| if self == at { bits } else { 0.0 };
        Told { tenant: only(Self::Tenant), icann: only(Self::Icann), session: only(Self::Session) }
    }

    fn domain(self, at: usize) -> String {
        match self {
            Self::Tenant => "leak.example".into(),
            Self::Icann => ["one.github.io", "two.github.io", "three.github.io"][at % 3].into(),
            Self::Session => format!("d{}.example", at % 9),
        }
    }
}

/// Distinct queries that might be sent next: names sent, of several types and flags and under several gaps, and new ones.
fn candidates(shared: &mut Random, sender: &Sender, reads: Reads, count: usize) -> Vec<Query> {
    let mut names: Vec<NameBuf> = sender.sent.iter().rev().take(10).cloned().collect();
    let fresh = sender.sent.len();
    for i in 0..count {
        let domain = reads.domain(shared.below(9));
        names.push(match i % 4 {
            0 => name(&[&cheapest()[shared.below(cheapest().len())]], &domain),
            1 => name(&[&cheapest()[shared.below(64)]], &domain),
            2 => name(&[format!("svc{}", fresh + shared.below(10)).as_bytes()], &domain),
            _ => name(&[b"www", &Likeness::shipped().draw(shared, 6).0], &domain),
        });
    }
    if reads == Reads::Icann {
        names.extend((0..4).map(|_| name(&[], &format!("t{}.github.io", shared.below(1_000)))));
    }
    names.sort();
    names.dedup();
    names
        .into_iter()
        .flat_map(|name| {
            let (first, second) = (shared.below(TYPES.len()), shared.below(3));
            let queries = [(0, 0), (first, 0), (second, shared.below(4) as u8)];
            let mut queries: Vec<_> = queries.into();
            queries.sort_unstable();
            queries.dedup();
            queries.into_iter().map(move |(at, flags)| Query { qtype: TYPES[at], flags, ..Query::of(name.clone()) })
        })
        .collect()
}

/// Picks uniformly among the K cheapest: log2 K bits, whatever is picked.
fn uniform(draw: &mut Random, reads: Reads) -> Encoder {
    let (count, most) = (6 + draw.below(18), 1 + draw.below(6));
    let mut shared = Random(draw.next() | 1);
    Box::new(move |bits, sender| {
        let mut priced: Vec<(f64, Query)> = candidates(&mut shared, sender, reads, count)
            .into_iter()
            .map(|query| (reads.price(sender, &query), query))
            .collect();
        priced.sort_by(|a, b| a.0.total_cmp(&b.0));
        priced.truncate(1 << most);
        let told = (priced.len() as f64).log2();
        let at = bits.below(priced.len());
        (priced.swap_remove(at).1, reads.told(told))
    })
}

/// Picks each with a weight of two to minus its price: the encoder that loses nothing to the ledger's code. What it tells
/// is the price less the weight that its candidates leave unused, so it exceeds the charge at the first step at which
/// the prices are not those of a code.
fn fitted(draw: &mut Random, reads: Reads) -> Encoder {
    let count = 6 + draw.below(18);
    let mut shared = Random(draw.next() | 1);
    Box::new(move |bits, sender| {
        let mut priced: Vec<(f64, Query)> = candidates(&mut shared, sender, reads, count)
            .into_iter()
            .map(|query| ((-reads.price(sender, &query)).exp2(), query))
            .collect();
        let all: f64 = priced.iter().map(|(weight, _)| weight).sum();
        let point = unit(bits) * all;
        let mut sum = 0.0;
        let picked = priced.iter().position(|(weight, _)| {
            sum += weight;
            point < sum
        });
        let (weight, query) = priced.swap_remove(picked.unwrap_or(priced.len() - 1));
        (query, reads.told((all / weight).log2()))
    })
}
