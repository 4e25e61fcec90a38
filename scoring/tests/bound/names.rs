//! Names for encoders: alphabets, word lists, names that the model likes.
#![allow(dead_code)]

use std::sync::OnceLock;

use staunch_scoring::model::Model;
use staunch_scoring::{NameBuf, QName};

use crate::session::Random;

/// Alphabets by name. Base64 is folded, since letter case does not leave; base85 and raw octets are chosen so that
/// folding does not touch them.
pub fn alphabets() -> &'static [(&'static str, Vec<u8>)] {
    static ALPHABETS: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    ALPHABETS.get_or_init(|| {
        vec![
            ("base16", b"0123456789abcdef".to_vec()),
            ("base32", b"abcdefghijklmnopqrstuvwxyz234567".to_vec()),
            ("base32hex", b"0123456789abcdefghijklmnopqrstuv".to_vec()),
            ("base36", b"abcdefghijklmnopqrstuvwxyz0123456789".to_vec()),
            ("base64 folded", b"abcdefghijklmnopqrstuvwxyz0123456789-_".to_vec()),
            ("base85", (0x21..=0x40).chain(0x5b..=0x8f).collect()),
            ("raw octets", (0..=0xff).filter(|octet: &u8| !octet.is_ascii_uppercase()).collect()),
            ("decimal", b"0123456789".to_vec()),
            ("ones and zeros", b"01".to_vec()),
        ]
    })
}

/// The name with these labels left of `domain`.
pub fn name(labels: &[&[u8]], domain: &str) -> NameBuf {
    let mut wire = Vec::with_capacity(64);
    for label in labels.iter().filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    let domain = QName::from_text(domain).expect("a domain of these tests");
    wire.extend_from_slice(domain.as_ref().as_wire());
    // What leaves is the canonical form, whatever the sender wrote.
    QName::read(&wire).expect("a short name").0.as_ref().to_owned()
}

/// Random octets of an alphabet.
pub fn random(random: &mut Random, alphabet: &[u8], len: usize) -> Vec<u8> {
    (0..len).map(|_| alphabet[random.below(alphabet.len())]).collect()
}

/// Bits under the model, of text with dots between labels.
pub fn cost(text: &[u8]) -> f64 {
    let mut wire = Vec::with_capacity(text.len() + 1);
    for label in text.split(|octet| *octet == b'.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    Model::shipped().cost(&wire).as_f64()
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_";

/// Draws text that looks benign: letter by letter with weights near the model's own, so that random bits come out as names
/// the model finds ordinary.
pub struct Likeness {
    /// Running sums of weights, by the two letters before (38 is none).
    sums: Vec<[f64; LETTERS.len()]>,
}

impl Likeness {
    pub fn shipped() -> &'static Self {
        static SHIPPED: OnceLock<Likeness> = OnceLock::new();
        SHIPPED.get_or_init(|| {
            let none = LETTERS.len();
            let mut sums = Vec::with_capacity((none + 1) * (none + 1));
            for before in 0..=none {
                for last in 0..=none {
                    let mut text: Vec<u8> = [before, last].iter().filter_map(|at| LETTERS.get(*at)).copied().collect();
                    let start = cost(&text);
                    let mut sum = 0.0;
                    sums.push(std::array::from_fn(|at| {
                        text.push(LETTERS[at]);
                        sum += (start - cost(&text)).exp2();
                        text.pop();
                        sum
                    }));
                }
            }
            Self { sums }
        })
    }

    /// Text of `len` letters, and the random bits that went into it: -log2 of its probability.
    pub fn draw(&self, random: &mut Random, len: usize) -> (Vec<u8>, f64) {
        let none = LETTERS.len();
        let (mut before, mut last, mut bits) = (none, none, 0.0);
        let mut text = Vec::with_capacity(len);
        for _ in 0..len {
            let sums = &self.sums[before * (none + 1) + last];
            let all = sums[none - 1];
            let point = unit(random) * all;
            let at = sums.iter().position(|sum| point < *sum).unwrap_or(none - 1);
            let weight = sums[at] - if at > 0 { sums[at - 1] } else { 0.0 };
            bits += (all / weight).log2();
            text.push(LETTERS[at]);
            (before, last) = (last, at);
        }
        (text, bits)
    }
}

/// From 0, below 1.
pub fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// Labels that stand in every trace, and that a dictionary of common labels would hold.
const COMMON: &str = "www mail api cdn static images img assets media login docs blog shop news forum support help status \
    search video store download downloads update updates upload files data cloud app apps mobile m en de fr us eu smtp \
    imap pop mx ns ns1 ns2 dns ftp vpn git wiki map maps ads analytics metrics stats events log logs track tracking \
    telemetry config gateway proxy cache edge origin beta dev test stage staging prod admin portal auth sso account \
    accounts secure pay payment checkout cart order customer my home web web1 www2 autodiscover autoconfig webmail \
    calendar drive photos play music chat meet push notify messaging graph connect identity profile settings";

/// The 4,096 cheapest single labels that a search among short ones and likely ones finds, cheapest first.
pub fn cheapest() -> &'static [Vec<u8>] {
    static CHEAPEST: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    CHEAPEST.get_or_init(|| {
        let mut pool: Vec<Vec<u8>> = LETTERS.iter().map(|letter| vec![*letter]).collect();
        let mut edge = pool.clone();
        for _ in 0..5 {
            // A beam: each of the cheapest so far, longer by every letter.
            let mut longer: Vec<Vec<u8>> = edge
                .iter()
                .flat_map(|text| LETTERS.iter().map(move |letter| text.iter().copied().chain([*letter]).collect()))
                .collect();
            longer.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
            longer.truncate(1_200);
            pool.extend(longer.iter().cloned());
            edge = longer;
        }
        let mut random = Random(0x5eed);
        pool.extend((0..8_000).map(|i| Likeness::shipped().draw(&mut random, 4 + i % 7).0));
        pool.extend(COMMON.split(' ').map(|label| label.as_bytes().to_vec()));
        pool.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then_with(|| a.cmp(b)));
        pool.dedup();
        pool.truncate(4_096);
        pool
    })
}

/// 2,048 words of four to nine letters, in no order of price.
pub fn words() -> &'static [Vec<u8>] {
    static WORDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let mut random = Random(0x30_4d5);
        let mut words = std::collections::BTreeSet::new();
        while words.len() < 2_048 {
            let length = 4 + random.below(6);
            let word = Likeness::shipped().draw(&mut random, length).0;
            if word.iter().all(u8::is_ascii_lowercase) {
                words.insert(word);
            }
        }
        let mut words: Vec<_> = words.into_iter().collect();
        for at in (1..words.len()).rev() {
            words.swap(at, random.below(at + 1));
        }
        words
    })
}
