//! Fits the table to benign names.
//!
//! Between names, each under the domain of its owner, and [`super::table`]. Integers count, and only `+ - * /` mixes:
//! the same names, in any order, give the same octets on every machine.
//!
//! - *Contexts*: counts of a symbol behind its contexts, mixed from general to particular (Witten and Bell's method C:
//!   the more different symbols were seen behind a context, the more is left to the shorter one). Of the particular
//!   ones, those that save most are kept. A domain weighs at most `DOMAIN_NAMES` names, so that no owner's habit becomes
//!   the language; owners' own labels weigh little, but there are many, and they are how names are spelled.
//! - *Words*: labels, their digits at the end cut off, that stand under `WORD_DOMAINS` domains and more. Never what
//!   one owner alone calls its hosts.
//! - *Steps*: how often each way to code a label is the cheapest in each place.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{self, History, Key, ROOT};
use super::table::{
    Context, DIGITS_MOST, LABEL_END, PLACES, STEPS, SYMBOLS, TOTAL_BITS, Table, WORD_MOST, WORDS_MOST, Word,
    class_below, frequencies, frequency,
};
use super::words::cut;
use super::{Code, Kind, Model, SYMBOL_OF, place};
use crate::bits::Bits;
use crate::name::NameRef;

/// Names a domain counts for at most.
const DOMAIN_NAMES: u64 = 20;
/// Weight of one name of a domain that has no more than [`DOMAIN_NAMES`].
const UNIT: u64 = 1_000;
/// Weight of an owner's own label. Measured on names held back: from 0.03 to 0.1 names makes no difference.
const OWNER: u64 = UNIT / 20;
/// Weight, as a part of a name's, of spelling a label that is a word: it is seldom spelled.
const SPELLED_WORD: u64 = 20;
/// Domains a word stands under at least.
const WORD_DOMAINS: usize = 3;
/// Cells with frequencies of their own.
const CELLS: usize = 3_500;

/// Names counted, by domain.
#[derive(Default)]
pub struct Counts {
    names: BTreeMap<Box<[u8]>, BTreeSet<Box<[u8]>>>,
}

type Seen = BTreeMap<Key, [u64; SYMBOLS]>;

impl Counts {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one name: its payload part (wire labels, no root label) under its owner's domain. A name counts once.
    pub fn add(&mut self, payload: &[u8], domain: NameRef<'_>) {
        self.names.entry(domain.as_wire().into()).or_default().insert(payload.into());
    }

    /// The fitted table.
    pub fn fit(&self) -> Table {
        let (words, digits) = self.words();
        let contexts = self.contexts(&words.iter().map(|word| &*word.octets).collect());
        let trained_on = self.names.values().map(BTreeSet::len).sum::<usize>().try_into().unwrap_or(u32::MAX);
        let table = |steps| {
            Table::new(contexts.clone(), steps, digits, words.clone(), trained_on)
                .expect("quantise() and weights() make codes, maps hand them out in order")
        };
        let even = table([quantise(&[1.0 / STEPS as f64; STEPS]); PLACES]);
        table(self.steps(&Model::of(&even)))
    }

    /// Every payload part and what it weighs.
    fn weighed(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.names.values().flat_map(|parts| {
            let named = parts.iter().filter(|part| !part.is_empty()).count() as u64;
            let weight = UNIT * DOMAIN_NAMES / named.max(DOMAIN_NAMES);
            parts.iter().map(move |part| (&**part, if part.is_empty() { UNIT } else { weight }))
        })
    }

    fn contexts(&self, words: &BTreeSet<&[u8]>) -> Vec<Context> {
        let mut seen = Seen::new();
        let mut chains: BTreeMap<Key, [Key; 4]> = BTreeMap::new();
        let mut spell = |history: &mut History, label: &[u8], weight: u64| {
            for symbol in context::symbols(label) {
                let chain = history.chain();
                chains.insert(chain[3], chain);
                for key in chain.into_iter().chain([ROOT]).collect::<BTreeSet<_>>() {
                    seen.entry(key).or_insert([0; SYMBOLS])[symbol] += weight;
                }
                history.push(symbol);
            }
        };
        for (part, weight) in self.weighed() {
            let mut history = History::new();
            for label in labels(part) {
                let share = if words.contains(label) { SPELLED_WORD } else { 1 };
                spell(&mut history, label, weight / share);
            }
        }
        for domain in self.names.keys() {
            if let Some(label) = labels(domain).next() {
                spell(&mut History::new(), label, OWNER);
            }
        }
        keep(&blend(&seen, &chains), &seen, &chains)
    }

    /// The words, and how many digits follow one.
    fn words(&self) -> (Vec<Word>, [u8; DIGITS_MOST]) {
        #[derive(Default)]
        struct Found<'n> {
            domains: BTreeSet<&'n [u8]>,
            weights: [u64; 3],
        }
        let mut found: BTreeMap<&[u8], Found> = BTreeMap::new();
        let mut numbers = [UNIT; DIGITS_MOST];
        for (domain, parts) in &self.names {
            // Once a domain and place, however many hosts the owner has numbered.
            let mut once = BTreeSet::new();
            for (at, label) in parts.iter().flat_map(|part| labels(part).enumerate()) {
                let (word, digits) = cut(label);
                if word.len() > WORD_MOST || word.iter().any(|&o| usize::from(SYMBOL_OF[usize::from(o)]) >= LABEL_END) {
                    continue;
                }
                let column = if digits > 0 { 2 } else { at.min(1) };
                if once.insert((word, column)) {
                    let found = found.entry(word).or_default();
                    found.domains.insert(domain);
                    found.weights[column] += UNIT;
                    if let Some(number) = digits.checked_sub(1) {
                        numbers[number] += UNIT;
                    }
                }
            }
        }
        let mut common: Vec<_> = found.into_iter().filter(|(_, word)| word.domains.len() >= WORD_DOMAINS).collect();
        common.sort_by_key(|(word, found)| (std::cmp::Reverse(found.domains.len()), *word));
        common.truncate(WORDS_MOST);
        common.sort_by_key(|(word, _)| *word);
        let columns: [Vec<u8>; 3] = std::array::from_fn(|column| {
            weights(&common.iter().map(|(_, found)| found.weights[column] + UNIT / 4).collect::<Vec<_>>())
        });
        let words = common
            .iter()
            .enumerate()
            .map(|(at, (word, _))| Word { octets: (*word).into(), classes: std::array::from_fn(|c| columns[c][at]) })
            .collect();
        let sum: u64 = numbers.iter().sum();
        (words, quantise(&numbers.map(|count| count as f64 / sum as f64)))
    }

    /// How often each way to go on is the cheapest, by place.
    fn steps(&self, model: &Model) -> [[u8; STEPS]; PLACES] {
        // What is fitted on these very names spells them too cheaply, so no other code may die out: the floor.
        let mut counts = [[UNIT; STEPS]; PLACES];
        for (part, weight) in self.weighed() {
            let mut at = place(0, Kind::Other);
            let behind = model.walk(part, |number, _, codes, kind| {
                let cheapest = Code::ALL.into_iter().min_by_key(|&code| codes[code as usize]);
                counts[at][cheapest.map_or(0, |code| code as usize)] += weight;
                at = place(number + 1, kind);
            });
            if !behind.is_empty() {
                continue;
            }
            counts[at][0] += weight;
        }
        counts.map(|counts| {
            let sum: u64 = counts.iter().sum();
            let floor = sum / 64;
            let floored = counts.map(|count| count.max(floor) as f64);
            let sum: f64 = floored.iter().sum();
            quantise(&floored.map(|count| count / sum))
        })
    }
}

/// Labels of a payload part or name, the root left out.
fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&len, tail) = rest.split_first()?;
        let (label, next) = tail.split_at_checked(usize::from(len)).filter(|_| len > 0)?;
        rest = next;
        Some(label)
    })
}

/// Probabilities behind each context, the unseen share taken from the shorter one.
fn blend(seen: &Seen, chains: &BTreeMap<Key, [Key; 4]>) -> BTreeMap<Key, [f64; SYMBOLS]> {
    let mut blended = BTreeMap::new();
    let none = [0; SYMBOLS];
    let mut mix = |key: Key, shorter: Option<Key>| {
        if blended.contains_key(&key) {
            return;
        }
        let counts = seen.get(&key).unwrap_or(&none);
        let mut mixed = shorter.and_then(|key| blended.get(&key)).copied().unwrap_or([1.0 / SYMBOLS as f64; SYMBOLS]);
        let counted = counts.map(|count| count as f64 / UNIT as f64);
        let total: f64 = counted.iter().sum();
        let kinds = counted.iter().map(|&count| count.min(1.0)).sum::<f64>().max(0.3);
        for (p, count) in mixed.iter_mut().zip(counted) {
            *p = (count + kinds * *p) / (total + kinds);
        }
        blended.insert(key, mixed);
    };
    mix(ROOT, None);
    for chain in chains.values() {
        for key in chain {
            mix(*key, context::shorter(*key, chain));
        }
    }
    blended
}

/// The general contexts, and the cells whose own frequencies save most over the shorter context's.
fn keep(blended: &BTreeMap<Key, [f64; SYMBOLS]>, seen: &Seen, chains: &BTreeMap<Key, [Key; 4]>) -> Vec<Context> {
    let all: BTreeMap<Key, [u8; SYMBOLS]> = blended.iter().map(|(key, p)| (*key, quantise(p))).collect();
    let prices = |key: Key| {
        let frequencies = all.get(&key).and_then(frequencies).expect("quantise() gives codes, blend() every key");
        frequencies.map(|f| i128::from(Bits::log2_ratio(1 << TOTAL_BITS, u64::from(f)).steps()))
    };
    let mut cells: Vec<(i128, Key)> = chains
        .iter()
        .map(|(&cell, chain)| {
            let (own, shorter) = (prices(cell), prices(chain[2]));
            let saved = |symbol: usize| i128::from(seen[&cell][symbol]) * (shorter[symbol] - own[symbol]);
            ((0..SYMBOLS).map(saved).sum(), cell)
        })
        .filter(|(saved, _)| *saved > 0)
        .collect();
    cells.sort_by_key(|&(saved, cell)| (-saved, cell));
    cells.truncate(CELLS);
    let kept: BTreeSet<Key> = cells.into_iter().map(|(_, cell)| cell).collect();
    all.into_iter()
        .filter(|(key, _)| !context::is_cell(*key) || kept.contains(key))
        .map(|(key, classes)| Context { key, classes })
        .collect()
}

/// Classes whose frequencies are a code near these probabilities: the nearest ones, or, where those leave the largest
/// too little, those below.
fn quantise<const N: usize>(probabilities: &[f64; N]) -> [u8; N] {
    let total = f64::from(1u32 << TOTAL_BITS);
    let below = probabilities.map(|p| class_below(p * total));
    let nearest: [u8; N] = std::array::from_fn(|at| {
        let (target, low) = (probabilities[at] * total, below[at]);
        let high = low.saturating_add(1);
        let nearer = f64::from(frequency(high)) - target < target - f64::from(frequency(low));
        if nearer { high } else { low }
    });
    let close = |frequencies: [u32; N]| {
        frequencies.iter().zip(probabilities).all(|(&f, p)| f64::from(f) >= 0.9 * (p * total).floor())
    };
    if frequencies(&nearest).is_some_and(close) { nearest } else { below }
}

/// Classes whose frequencies sum to at most 2^[`TOTAL_BITS`], in proportion to `counts`.
fn weights(counts: &[u64]) -> Vec<u8> {
    // Each weighs one at least, so one for each is set aside.
    let share = f64::from((1u32 << TOTAL_BITS) - counts.len() as u32);
    let sum = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(|&count| class_below(count as f64 / sum * share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NameBuf;
    use proptest::prelude::*;

    fn counts(names: &[(&[u8], &str)]) -> Counts {
        let mut counts = Counts::new();
        for (part, domain) in names {
            counts.add(part, NameBuf::from_text(domain).expect("name").as_ref());
        }
        counts
    }

    #[test]
    fn what_was_seen_is_cheaper_than_what_was_not() {
        let names: Vec<String> = (0..50).map(|i| format!("d{i}.example")).collect();
        let all: Vec<(&[u8], &str)> = names.iter().map(|domain| (&b"\x03www"[..], domain.as_str())).collect();
        let table = counts(&all).fit();
        let model = Model::of(&table);
        assert_eq!(table.trained_on(), 50);
        assert!(model.cost(b"\x03www").as_f64() < 2.0, "{}", model.cost(b"\x03www"));
        assert!(model.cost(b"\x03zzz").as_f64() > 10.0);
    }

    #[test]
    fn a_word_stands_under_several_domains() {
        let table = counts(&[
            (b"\x04host\x04data", "a.example"),
            (b"\x03db1", "a.example"),
            (b"\x03db2", "a.example"),
            (b"\x05db123", "b.example"),
            (b"\x02db", "c.example"),
            (b"\x04host", "b.example"),
        ])
        .fit();
        let words: Vec<&[u8]> = table.words().iter().map(|word| &*word.octets).collect();
        assert_eq!(words, [&b"db"[..]], "what two owners use is no word");
    }

    #[test]
    fn the_order_of_names_makes_no_difference() {
        let names: [(&[u8], &str); 4] =
            [(b"\x03www", "b.example"), (b"", "a.example"), (b"\x03ns1", "a.example"), (b"\x03www", "a.example")];
        let mut turned = names;
        turned.reverse();
        assert_eq!(counts(&names).fit().to_bytes(), counts(&turned).fit().to_bytes());
    }

    #[test]
    fn no_names_at_all_still_give_a_code() {
        let table = Counts::new().fit();
        let [root] = table.contexts() else { panic!("the root alone") };
        let root = frequencies(&root.classes).expect("a code");
        assert!(root.iter().all(|&f| f > 1_000), "{root:?}");
    }

    proptest! {
        #[test]
        fn any_probabilities_become_a_code(weights in proptest::collection::vec(0.0f64..1.0, SYMBOLS), sharp in 0u8..40) {
            let weights: Vec<f64> = weights.iter().map(|w| (0..sharp).fold(*w, |p, _| p * w)).collect();
            let sum: f64 = weights.iter().sum::<f64>().max(1e-9);
            let probabilities: [f64; SYMBOLS] = std::array::from_fn(|i| weights[i] / sum);
            let all = frequencies(&quantise(&probabilities));
            prop_assert!(all.is_some());
            prop_assert_eq!(all.map(|all| all.iter().sum::<u32>()), Some(1 << TOTAL_BITS));
        }

        #[test]
        fn any_counts_become_weights(counts in proptest::collection::vec(0u64..1 << 40, 1..WORDS_MOST)) {
            let sum: u32 = weights(&counts).into_iter().map(frequency).sum();
            prop_assert!(sum <= 1 << TOTAL_BITS);
        }
    }
}
