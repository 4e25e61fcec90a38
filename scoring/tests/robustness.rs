//! The verdict does not depend on the shape of a leak.
//!
//! The same random octets are sent in other alphabets, other labels, other chunk sizes and at another pace. What is bounded
//! is the payload that has left before the first refusal and before the session is closed. No form of the grid gets
//! through, and none gets more than the stated octets.

#[path = "bound/names.rs"]
mod names;
#[path = "bound/sender.rs"]
mod sender;
mod session;

use names::{Likeness, alphabets, name, random, words};
use sender::{Query, Sender, Told};
use session::{BASE32, HTTPS, Random};
use staunch_scoring::Band;

/// How a payload is written.
#[derive(Clone, Copy)]
enum Form {
    Base(&'static str),
    /// Base32, each character a label.
    Letters,
    /// Words of a list of 2,048, 11 bits each, with hyphens.
    Words,
    /// The same, each word a label.
    WordLabels,
    /// Pronounceable: consonants (16) and vowels (4) in turn.
    Syllables,
    /// Text that random bits make under weights near the model's own, five letters a label.
    LikeBenign,
}

const FORMS: [Form; 10] = [
    Form::Base("base16"),
    Form::Base("base32"),
    Form::Base("base36"),
    Form::Base("base64 folded"),
    Form::Base("decimal"),
    Form::Letters,
    Form::Words,
    Form::WordLabels,
    Form::Syllables,
    Form::LikeBenign,
];

impl Form {
    fn what(self) -> &'static str {
        match self {
            Self::Base(what) => what,
            Self::Letters => "base32, a label each",
            Self::Words => "words",
            Self::WordLabels => "words, a label each",
            Self::Syllables => "syllables",
            Self::LikeBenign => "like benign text",
        }
    }

    /// One more piece of text, and the bits in it.
    fn piece(self, bits: &mut Random) -> (Vec<u8>, f64) {
        match self {
            Self::Base(what) => {
                let alphabet = &alphabets().iter().find(|(name, _)| *name == what).expect("a known alphabet").1;
                (random(bits, alphabet, 1), (alphabet.len() as f64).log2())
            }
            Self::Letters => (random(bits, BASE32, 1), 5.0),
            Self::Words | Self::WordLabels => (words()[bits.below(words().len())].clone(), 11.0),
            Self::Syllables => ([random(bits, b"bdfghjklmnprstvz", 1), random(bits, b"aiou", 1)].concat(), 6.0),
            Self::LikeBenign => Likeness::shipped().draw(bits, 5),
        }
    }

    /// `octets` of payload or a little more, as many as a name holds, in labels of at most 60 characters.
    fn write(self, bits: &mut Random, octets: usize) -> (Vec<Vec<u8>>, f64) {
        let apart = matches!(self, Self::Letters | Self::WordLabels | Self::LikeBenign);
        let mut labels: Vec<Vec<u8>> = Vec::new();
        let mut told = 0.0;
        while told < (8 * octets) as f64 {
            let (piece, more) = self.piece(bits);
            let written: usize = labels.iter().map(|label| label.len() + 1).sum();
            // Beside its domain and three fixed labels.
            if written + piece.len() + 1 > 220 {
                break;
            }
            match labels.last_mut() {
                Some(label) if !apart && label.len() + piece.len() < 60 => {
                    if matches!(self, Self::Words) {
                        label.push(b'-');
                    }
                    label.extend(piece);
                }
                _ => labels.push(piece),
            }
            told += more;
        }
        (labels, told)
    }
}

/// Octets and queries that had left when something happened.
#[derive(Debug, Clone, Copy)]
struct Out {
    octets: f64,
    queries: usize,
}

struct Cell {
    first: Out,
    closed: Out,
}

/// The worst of several payloads, the same ones for every cell.
fn cell(form: Form, octets: usize, gap: u64, place: usize) -> Cell {
    let cells = (1..=20u64).map(|seed| cell_of(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), form, octets, gap, place));
    let worse = |a: Out, b: Out| Out { octets: a.octets.max(b.octets), queries: a.queries.max(b.queries) };
    let none = Out { octets: 0.0, queries: 0 };
    cells.fold(Cell { first: none, closed: none }, |a, b| Cell {
        first: worse(a.first, b.first),
        closed: worse(a.closed, b.closed),
    })
}

/// Sends until the session is closed; `place` is the number of fixed labels left of the payload.
fn cell_of(seed: u64, form: Form, octets: usize, gap: u64, place: usize) -> Cell {
    let mut bits = Random(seed);
    let mut sender = Sender::default_limits();
    let (mut told, mut queries, mut first) = (0.0, 0, None);
    // Longer than this nobody would wait; every cell is closed long before.
    for _ in 0..4_000 {
        let (payload, chunk) = form.write(&mut bits, octets);
        let mut labels: Vec<&[u8]> = [b"www".as_slice(), b"cdn", b"v1"][..place].to_vec();
        labels.extend(payload.iter().map(Vec::as_slice));
        labels.extend(&[b"eu".as_slice(), b"api", b"v2"][..3 - place]);
        let query = Query { gap, ..Query::of(name(&labels, "leak.example")) };
        let band = sender.send(&query, Told::all(chunk)).band;
        if band >= Band::Sinkhole {
            first.get_or_insert(Out { octets: told / 8.0, queries });
        }
        if band == Band::Quarantine {
            let closed = Out { octets: told / 8.0, queries };
            return Cell { first: first.unwrap_or(closed), closed };
        }
        if band < Band::Hold {
            (told, queries) = (told + chunk, queries + 1);
        }
    }
    panic!("{} of {octets} octets every {gap} ms was never closed", form.what());
}

const CHUNKS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 120];
const GAPS: [u64; 6] = [100, 1_000, 10_000, 60_000, 1_800_000, 7_200_000];

/// Payload octets out before the first refusal, in any cell but those of digits alone.
const BEFORE_ACTION: f64 = 80.0;
/// Digits alone are names of one form, numbered hosts to the model: they are cheap for what they tell, and poor in each
/// symbol, so the ledger stops them and the score late.
const BEFORE_ACTION_DIGITS: f64 = 208.0;

impl Form {
    fn before_action(self) -> f64 {
        if self.what() == "decimal" { BEFORE_ACTION_DIGITS } else { BEFORE_ACTION }
    }
}

#[test]
fn alphabet_and_chunk_size_change_little() {
    println!("octets out before the first refusal (queries out before the session is closed), the worst of 20\n");
    let head: Vec<String> = CHUNKS.iter().map(|octets| format!("{octets}")).collect();
    println!("| form, octets a name | {} |\n|---|{}", head.join(" | "), "---|".repeat(CHUNKS.len()));
    let mut worst = Vec::new();
    for form in FORMS {
        let mut row = Vec::new();
        for octets in CHUNKS {
            let Cell { first, closed } = cell(form, octets, 1_000, 0);
            row.push(format!("{:.0} ({})", first.octets, closed.queries));
            worst.push((first.octets, form, octets));
            assert!(closed.octets <= 256.0, "{} of {octets} octets: {closed:?}", form.what());
        }
        println!("| {} | {} |", form.what(), row.join(" | "));
    }
    for (out, form, octets) in worst {
        assert!(out <= form.before_action(), "{} of {octets} octets: {out:.0} octets out", form.what());
    }
}

#[test]
fn the_label_changes_little() {
    println!(
        "| form | {} |\n|---|---|---|---|---|",
        (0..4).map(|place| format!("behind {place} labels")).collect::<Vec<_>>().join(" | ")
    );
    for form in FORMS {
        let cells: Vec<Cell> = (0..4).map(|place| cell(form, 16, 1_000, place)).collect();
        let row: Vec<String> =
            cells.iter().map(|cell| format!("{:.0} ({})", cell.first.octets, cell.closed.queries)).collect();
        println!("| {} | {} |", form.what(), row.join(" | "));
        let queries = |of: fn(&Cell) -> Out| {
            let queries = cells.iter().map(|cell| of(cell).queries);
            (queries.clone().min().unwrap_or(0), queries.max().unwrap_or(0))
        };
        let (first, closed) = (queries(|cell| cell.first), queries(|cell| cell.closed));
        assert!(first.1 - first.0 <= 2 + first.0 / 3, "{}: {first:?}", form.what());
        assert!(closed.1 - closed.0 <= 2 + closed.0 / 3, "{}: {closed:?}", form.what());
    }
}

#[test]
fn pace_buys_nothing() {
    println!("| form, gap in ms | {} |\n|---|---|---|---|---|---|---|", GAPS.map(|gap| gap.to_string()).join(" | "));
    for form in FORMS {
        for octets in [2, 16] {
            let cells: Vec<Cell> = GAPS.iter().map(|gap| cell(form, octets, *gap, 0)).collect();
            let row: Vec<String> =
                cells.iter().map(|cell| format!("{:.0} ({})", cell.first.octets, cell.closed.queries)).collect();
            println!("| {}, {octets} octets | {} |", form.what(), row.join(" | "));
            let most = cells.iter().map(|cell| cell.first.octets).fold(0.0, f64::max);
            assert!(most <= form.before_action(), "{} of {octets} octets: {most}", form.what());
            assert!(cells.iter().all(|cell| cell.closed.octets <= 256.0), "{}", form.what());
            // The slowest gets no more than the fastest, but for a name or two.
            let (fast, slow) = (&cells[0], &cells[GAPS.len() - 1]);
            assert!(slow.closed.octets <= fast.closed.octets * 1.25 + 16.0, "{} of {octets} octets", form.what());
        }
    }
}

/// A type other than an address look-up does not hide it either.
#[test]
fn the_type_changes_little() {
    let run = |qtype: u16| {
        let mut bits = Random(0x7e9e);
        let mut sender = Sender::default_limits();
        let first = (0..200).find(|_| {
            let (labels, told) = Form::Base("base32").write(&mut bits, 16);
            let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
            let query = Query { qtype, gap: 1_000, ..Query::of(name(&labels, "leak.example")) };
            sender.send(&query, Told::all(told)).band >= Band::Sinkhole
        });
        first.expect("refused")
    };
    let plain = run(1);
    for qtype in [28, HTTPS, 16, 15, 33] {
        assert!(run(qtype) <= plain + 1, "type {qtype}: {} against {plain}", run(qtype));
    }
}
