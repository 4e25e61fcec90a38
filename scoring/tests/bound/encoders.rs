//! Encoders: each turns random bits into queries, drawn anew for every session, and knows how many bits went in.

use staunch_scoring::NameBuf;

use super::names::{Likeness, alphabets, cheapest, name, random, words};
use super::sender::{Query, Sender, TYPES, Told};
use crate::session::{BASE32, Random};

/// The next query and what it tells.
pub type Encoder = Box<dyn FnMut(&mut Random, &Sender) -> (Query, Told)>;

/// Encoders of one kind.
pub struct Scheme {
    pub what: &'static str,
    /// Draws one for a session.
    pub draw: fn(&mut Random) -> Encoder,
}

/// The domain that receives, where it is one.
const LEAK: &str = "leak.example";
/// Fixed labels around which a payload may stand.
const AROUND: [&[u8]; 3] = [b"www", b"cdn", b"v1"];

fn log2(choices: usize) -> f64 {
    (choices as f64).log2()
}

pub const SCHEMES: &[Scheme] = &[
    Scheme { what: "one label, any alphabet, any place", draw: one_label },
    Scheme { what: "several labels, any alphabet", draw: several_labels },
    Scheme { what: "words from a list", draw: from_words },
    Scheme { what: "numbers in a form", draw: numbers },
    Scheme { what: "coded to the model", draw: coded },
    Scheme { what: "one of the cheapest names", draw: one_of_the_cheapest },
    Scheme { what: "many domains", draw: many_domains },
    Scheme { what: "which domain, nothing else", draw: which_domain },
    Scheme { what: "tenants of a platform", draw: tenants },
    Scheme { what: "both levels of a platform", draw: both_levels },
    Scheme { what: "order of a fixed set", draw: order },
    Scheme { what: "repetition", draw: repetition },
    Scheme { what: "new or old", draw: new_or_old },
    Scheme { what: "types and flags", draw: types_and_flags },
    Scheme { what: "letter case", draw: letter_case },
    Scheme { what: "everything at one tenant", draw: everything_at_one },
    Scheme { what: "everything over many owners", draw: everything },
    Scheme { what: "hosts of a few places", draw: hosts_of_places },
];

/// Encoders that also tell by when they ask.
pub const TIMED: &[Scheme] = &[
    Scheme { what: "when a new name is asked", draw: |random| timed(random, false) },
    Scheme { what: "when a known name is asked again", draw: |random| timed(random, true) },
    Scheme { what: "early or late around a rhythm", draw: around_a_rhythm },
    Scheme { what: "everything, and when", draw: everything_and_when },
];

fn one_label(draw: &mut Random) -> Encoder {
    let alphabet = &alphabets()[draw.below(alphabets().len())].1;
    let (len, place) = (1 + draw.below(30), draw.below(AROUND.len() + 2));
    Box::new(move |bits, _| {
        let payload = random(bits, alphabet, len);
        let mut labels: Vec<&[u8]> = if place > AROUND.len() { Vec::new() } else { AROUND.to_vec() };
        labels.insert(place.min(labels.len()), &payload);
        (Query::of(name(&labels, LEAK)), Told::all(len as f64 * log2(alphabet.len())))
    })
}

fn several_labels(draw: &mut Random) -> Encoder {
    let alphabet = &alphabets()[draw.below(alphabets().len())].1;
    let lengths: Vec<usize> = (0..2 + draw.below(4)).map(|_| 1 + draw.below(16)).collect();
    Box::new(move |bits, _| {
        let labels: Vec<Vec<u8>> = lengths.iter().map(|len| random(bits, alphabet, *len)).collect();
        let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
        let told = lengths.iter().sum::<usize>() as f64 * log2(alphabet.len());
        (Query::of(name(&labels, LEAK)), Told::all(told))
    })
}

fn from_words(draw: &mut Random) -> Encoder {
    let list = &words()[..[16, 64, 256, 2_048][draw.below(4)]];
    let (count, joined) = (1 + draw.below(4), draw.below(2) == 0);
    Box::new(move |bits, _| {
        let picked: Vec<&[u8]> = (0..count).map(|_| list[bits.below(list.len())].as_slice()).collect();
        let one = picked.join(&b'-');
        let labels = if joined { vec![one.as_slice()] } else { picked };
        (Query::of(name(&labels, LEAK)), Told::all(count as f64 * log2(list.len())))
    })
}

fn numbers(draw: &mut Random) -> Encoder {
    let most = [2, 10, 100, 1_000, 1_000_000][draw.below(5)];
    let padded = draw.below(2) == 0;
    Box::new(move |bits, _| {
        let number = bits.below(most);
        let label = if padded { format!("svc{number:06}") } else { format!("svc{number}") };
        (Query::of(name(&[label.as_bytes()], LEAK)), Told::all(log2(most)))
    })
}

fn coded(draw: &mut Random) -> Encoder {
    let lengths: Vec<usize> = (0..1 + draw.below(3)).map(|_| 2 + draw.below(10)).collect();
    Box::new(move |bits, _| {
        let drawn: Vec<_> = lengths.iter().map(|len| Likeness::shipped().draw(bits, *len)).collect();
        let labels: Vec<&[u8]> = drawn.iter().map(|(text, _)| text.as_slice()).collect();
        (Query::of(name(&labels, LEAK)), Told::all(drawn.iter().map(|(_, bits)| bits).sum()))
    })
}

fn one_of_the_cheapest(draw: &mut Random) -> Encoder {
    let pool = &cheapest()[..1 << (1 + draw.below(12))];
    Box::new(move |bits, _| {
        let label = &pool[bits.below(pool.len())];
        (Query::of(name(&[label], LEAK)), Told::all(log2(pool.len())))
    })
}

fn many_domains(draw: &mut Random) -> Encoder {
    let (domains, len) = (1usize << (1 + draw.below(12)), draw.below(9));
    Box::new(move |bits, _| {
        let domain = format!("d{}.example", bits.below(domains));
        let payload = random(bits, BASE32, len);
        let told = 5.0 * len as f64;
        let query = Query::of(name(&[&payload], &domain));
        (query, Told { tenant: told, icann: told, session: told + log2(domains) })
    })
}

fn which_domain(draw: &mut Random) -> Encoder {
    let domains = 1usize << (1 + draw.below(12));
    Box::new(move |bits, _| {
        let query = Query::of(name(&[b"www"], &format!("d{}.example", bits.below(domains))));
        (query, Told { tenant: 0.0, icann: 0.0, session: log2(domains) })
    })
}

fn tenants(draw: &mut Random) -> Encoder {
    let platform = ["github.io", "s3.amazonaws.com", "cloudfront.net", "blogspot.com"][draw.below(4)];
    let (tenant, below) = (1 + draw.below(12), draw.below(6));
    Box::new(move |bits, _| {
        let owner = random(bits, BASE32, tenant);
        let payload = random(bits, BASE32, below);
        let domain = format!("{}.{platform}", String::from_utf8_lossy(&owner));
        let (left, which) = (5.0 * below as f64, 5.0 * tenant as f64);
        (Query::of(name(&[&payload], &domain)), Told { tenant: left, icann: left + which, session: left + which })
    })
}

/// A platform whose own domain also has names that are no tenant's: its owner reads both, and sees which is asked again.
fn both_levels(draw: &mut Random) -> Encoder {
    let (len, fresh) = (1 + draw.below(12), 1 + draw.below(4));
    let mut sent: Vec<NameBuf> = Vec::new();
    Box::new(move |bits, _| {
        let of = if sent.len() < 2 { 1 } else { 4 };
        if bits.below(of) >= fresh {
            let told = log2(of) - log2(of - fresh) + log2(sent.len());
            let query = Query::of(sent[bits.below(sent.len())].clone());
            return (query, Told { tenant: 0.0, icann: told, session: told });
        }
        let mut payload = format!("{}-", sent.len()).into_bytes();
        payload.extend(random(bits, BASE32, len));
        let told = 5.0 * len as f64;
        let which = 1.0 + log2(of) - log2(fresh.min(of));
        let name = match bits.below(2) {
            0 => name(&[], &format!("{}.s3.amazonaws.com", String::from_utf8_lossy(&payload))),
            _ => name(&[&payload], "amazonaws.com"),
        };
        let left = if name.as_ref().label_count() == 3 { told } else { 0.0 };
        sent.push(name.clone());
        (Query::of(name), Told { tenant: left, icann: told + which, session: told + which })
    })
}

fn order(draw: &mut Random) -> Encoder {
    let set: Vec<NameBuf> = {
        let from = draw.below(4_000);
        cheapest()[from..from + 3 + draw.below(38)].iter().map(|label| name(&[label], LEAK)).collect()
    };
    let mut left = set.clone();
    Box::new(move |bits, _| {
        // The whole set in some order, and again in another.
        if left.is_empty() {
            left = set.clone();
        }
        let told = log2(left.len());
        (Query::of(left.swap_remove(bits.below(left.len()))), Told::all(told))
    })
}

fn repetition(draw: &mut Random) -> Encoder {
    let set: Vec<NameBuf> = (0..1usize << draw.below(6)).map(numbered).collect();
    let mut sent = 0;
    Box::new(move |bits, _| {
        sent += 1;
        match set.get(sent - 1) {
            // First the whole set, in its order.
            Some(name) => (Query::of(name.clone()), Told::all(0.0)),
            None => (Query::of(set[bits.below(set.len())].clone()), Told::all(log2(set.len()))),
        }
    })
}

fn new_or_old(draw: &mut Random) -> Encoder {
    let fresh = 1 + draw.below(4);
    let mut sent: Vec<NameBuf> = Vec::new();
    Box::new(move |bits, _| {
        // One bit says which; an old one is any of those sent.
        if sent.is_empty() || bits.below(2) == 0 {
            let told = if sent.is_empty() { 0.0 } else { 1.0 };
            let mut label = format!("n{}-", sent.len()).into_bytes();
            label.extend(random(bits, BASE32, fresh));
            sent.push(name(&[&label], LEAK));
            return (Query::of(sent[sent.len() - 1].clone()), Told::all(told + 5.0 * fresh as f64));
        }
        (Query::of(sent[bits.below(sent.len())].clone()), Told::all(1.0 + log2(sent.len())))
    })
}

fn types_and_flags(draw: &mut Random) -> Encoder {
    let (types, flags, names) = (1 + draw.below(TYPES.len()), 1 + draw.below(4), 1 + draw.below(3));
    let mut asked = 0;
    Box::new(move |bits, _| {
        asked += 1;
        let query = Query {
            qtype: TYPES[bits.below(types)],
            flags: bits.below(flags) as u8,
            ..Query::of(numbered(asked % names))
        };
        (query, Told::all(log2(types) + log2(flags)))
    })
}

/// Letter case is written by the sender and read by nobody: names leave in lower case.
fn letter_case(draw: &mut Random) -> Encoder {
    let len = 1 + draw.below(20);
    Box::new(move |bits, _| {
        let mut payload = random(bits, BASE32, len);
        let folded = name(&[&payload], LEAK);
        for letter in payload.iter_mut().filter(|_| bits.below(2) == 0) {
            letter.make_ascii_uppercase();
        }
        let query = Query::of(name(&[&payload], LEAK));
        assert_eq!(query.name, folded);
        (query, Told::all(5.0 * len as f64))
    })
}

fn numbered(i: usize) -> NameBuf {
    name(&[format!("h{i}").as_bytes()], LEAK)
}

/// Kinds of choice mixed at one tenant, by a letter in front, so that a reader can tell which.
fn everything_at_one(draw: &mut Random) -> Encoder {
    let (len, words_of, types) = (1 + draw.below(16), 1usize << (1 + draw.below(11)), 1 + draw.below(6));
    let mut sent: Vec<NameBuf> = Vec::new();
    Box::new(move |bits, _| {
        let kinds = if sent.is_empty() { 4 } else { 5 };
        let kind = bits.below(kinds);
        let (name, told) = match kind {
            0 => (name(&[&[b"a".as_slice(), &random(bits, BASE32, len)].concat()], LEAK), 5.0 * len as f64),
            1 => (name(&[b"b", &words()[bits.below(words_of)]], LEAK), log2(words_of)),
            2 => {
                let (text, told) = Likeness::shipped().draw(bits, len);
                (name(&[b"www", &text], LEAK), told)
            }
            3 => (name(&[&cheapest()[bits.below(words_of)], b"c"], LEAK), log2(words_of)),
            _ => (sent[bits.below(sent.len())].clone(), log2(sent.len())),
        };
        // A name drawn twice would be read as a repeat: the choice of kind is then not told.
        let again = kind < 4 && sent.contains(&name);
        if !sent.contains(&name) {
            sent.push(name.clone());
        }
        let qtype = TYPES[bits.below(types)];
        let told = if again { 0.0 } else { told + log2(kinds) + log2(types) };
        (Query { qtype, ..Query::of(name) }, Told::all(told))
    })
}

/// The same over tenants, platforms and domains, with flags and restarts of the encoder's own words.
fn everything(draw: &mut Random) -> Encoder {
    let (len, domains, types) = (1 + draw.below(12), 1usize << (1 + draw.below(8)), 1 + draw.below(6));
    let mut sent: Vec<NameBuf> = Vec::new();
    Box::new(move |bits, _| {
        let kinds = if sent.is_empty() { 3 } else { 4 };
        let (name, left, which, domain) = match bits.below(kinds) {
            0 => {
                let domain = format!("d{}.example", bits.below(domains));
                (name(&[&random(bits, BASE32, len)], &domain), 5.0 * len as f64, 0.0, log2(domains))
            }
            1 => {
                let tenant = random(bits, BASE32, len);
                let domain = format!("{}.github.io", String::from_utf8_lossy(&tenant));
                (name(&[b"www"], &domain), 0.0, 5.0 * len as f64, 0.0)
            }
            2 => {
                let (text, told) = Likeness::shipped().draw(bits, len);
                (name(&[&text], "x-leak.example"), told, 0.0, 0.0)
            }
            // Old ones: who reads a part cannot tell how many the others have, so only the whole session's reader counts.
            _ => (sent[bits.below(sent.len())].clone(), 0.0, 0.0, log2(sent.len())),
        };
        if !sent.contains(&name) {
            sent.push(name.clone());
        }
        let typed = log2(types);
        let query = Query { qtype: TYPES[bits.below(types)], ..Query::of(name) };
        // A draw of a name that was sent can be read as a repeat: all that is then counted is the type.
        let kind = if sent.len() > 1 && sent[..sent.len() - 1].contains(&query.name) { 0.0 } else { log2(kinds) };
        let told =
            Told { tenant: left + typed, icann: left + which + typed, session: left + which + domain + typed + kind };
        (query, told)
    })
}

/// A host's name and one of a few ends behind it, of two labels or three: which host, and of which place.
fn hosts_of_places(draw: &mut Random) -> Encoder {
    let label = |draw: &mut Random| {
        let len = 3 + draw.below(10);
        random(draw, BASE32, len)
    };
    let places: Vec<Vec<Vec<u8>>> =
        (0..1usize << draw.below(5)).map(|_| (0..2 + draw.below(2)).map(|_| label(draw)).collect()).collect();
    let (pool, len) = (&cheapest()[..1 << (1 + draw.below(10))], draw.below(7));
    Box::new(move |bits, _| {
        let place = &places[bits.below(places.len())];
        let host = if len == 0 { pool[bits.below(pool.len())].clone() } else { random(bits, BASE32, len) };
        let labels: Vec<&[u8]> = std::iter::once(&host).chain(place).map(Vec::as_slice).collect();
        let told = if len == 0 { log2(pool.len()) } else { 5.0 * len as f64 };
        (Query::of(name(&labels, LEAK)), Told::all(told + log2(places.len())))
    })
}

/// A choice among slots of a second or more before each query.
fn timed(draw: &mut Random, repeats: bool) -> Encoder {
    let (slots, unit) = (1usize << draw.below(12), 1_000 * (1 + draw.below(600)) as u64);
    let mut asked = 0;
    Box::new(move |bits, _| {
        asked += 1;
        let name = numbered(if repeats { 0 } else { asked });
        // Nothing is known of the time before an account's first query.
        let slot = if asked == 1 { 0 } else { bits.below(slots) };
        let told = if asked == 1 { 0.0 } else { log2(slots) };
        (Query { gap: slot as u64 * unit, ..Query::of(name) }, Told::all(told))
    })
}

/// A poll every so often, each a little early, on time or late.
fn around_a_rhythm(draw: &mut Random) -> Encoder {
    let (period, wide) = (60 + draw.below(3_600) as u64, 1 + draw.below(8));
    let mut asked = 0;
    Box::new(move |bits, _| {
        asked += 1;
        let off = if asked == 1 { 0 } else { bits.below(wide) };
        let told = if asked == 1 { 0.0 } else { log2(wide) };
        let gap = 1_000 * (period + off as u64 - wide as u64 / 2);
        (Query { gap, ..Query::of(numbered(0)) }, Told::all(told))
    })
}

/// The same names again and again where repeats are held: in which ticks they are asked again, and which of them, by what
/// type, are among those that are. The gaps are drawn from the code that ticks are priced by, so nothing is lost to it.
pub fn held(draw: &mut Random) -> Encoder {
    let names = 1 + draw.below(30);
    let mut asked = 0;
    let mut waits: Vec<(NameBuf, u16, u8)> = Vec::new();
    let kinds = TYPES.iter().flat_map(|qtype| (0..4).map(move |flags| (*qtype, flags)));
    let mut left: Vec<(NameBuf, u16, u8)> =
        (0..names).flat_map(|i| kinds.clone().map(move |(qtype, flags)| (numbered(i), qtype, flags))).collect();
    let all = left.len();
    let mut first: Option<(NameBuf, u16, u8)> = None;
    Box::new(move |bits, _| {
        asked += 1;
        if asked <= names {
            return (Query::of(numbered(asked - 1)), Told::all(0.0));
        }
        if let Some((name, qtype, flags)) = waits.pop() {
            return (Query { qtype, flags, ..Query::of(name) }, Told::all(0.0));
        }
        // A new tick: each of those left enters with one chance in `all`, which costs log2 of `all` and tells that.
        let mut power = 0;
        while power < 8 && bits.below(2) == 0 {
            power += 1;
        }
        let unary = if power < 8 { power + 1 } else { power };
        let ticks = (1usize << power) + bits.below(1 << power);
        let mut told = (unary + power) as f64;
        let mut stay = Vec::new();
        for name in left.drain(..) {
            let enters = first.is_none() || bits.below(all) == 0;
            if first.is_none() {
                first = Some(name.clone());
            } else {
                told += if enters { log2(all) } else { -(1.0 - 1.0 / all as f64).log2() };
            }
            if enters { waits.push(name) } else { stay.push(name) }
        }
        left = stay;
        // Where none enters, one that is there already brings the tick about.
        let (name, qtype, flags) = waits.pop().or_else(|| first.clone()).expect("one has entered");
        (Query { qtype, flags, gap: ticks as u64 * staunch_scoring::TICK_MS, ..Query::of(name) }, Told::all(told))
    })
}

fn everything_and_when(draw: &mut Random) -> Encoder {
    let mut encoder = everything_at_one(draw);
    let (slots, unit) = (1usize << draw.below(10), 1_000 * (1 + draw.below(60)) as u64);
    let mut asked = 0;
    Box::new(move |bits, sender| {
        asked += 1;
        let (query, told) = encoder(bits, sender);
        let slot = if asked == 1 { 0 } else { bits.below(slots) };
        let timed = if asked == 1 { 0.0 } else { log2(slots) };
        (Query { gap: slot as u64 * unit, ..query }, Told::all(told.session + timed))
    })
}
