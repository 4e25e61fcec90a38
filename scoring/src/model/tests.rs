//! The model as a code: sums of every distribution, prices against probabilities, and what random payload costs.

use super::*;
use crate::name::NameBuf;
use proptest::prelude::*;
use words::cut;

fn table() -> Table {
    Table::from_bytes(include_bytes!("benign.bin")).expect("shipped table")
}

fn cost(text: &str) -> f64 {
    let name = NameBuf::from_text(text).expect("test name");
    let wire = name.as_ref().as_wire();
    Model::shipped().cost(&wire[..wire.len() - 1]).as_f64()
}

/// Sum of 2 to the minus price.
fn kraft(prices: impl IntoIterator<Item = u32>) -> f64 {
    prices.into_iter().map(|steps| (-f64::from(steps) / f64::from(Bits::STEPS)).exp2()).sum()
}

#[test]
fn the_shipped_table_is_whole_and_small() {
    let octets = include_bytes!("benign.bin");
    assert!(octets.len() <= 256 * 1024);
    assert_eq!(table().to_bytes(), octets, "one form only");
}

#[test]
fn frequencies_sum_to_the_power_of_two_after_every_context() {
    let (table, model) = (table(), Model::shipped());
    for (number, context) in table.contexts().iter().enumerate() {
        let frequencies = table::frequencies(&context.classes).expect("a code");
        assert_eq!(frequencies.iter().sum::<u32>(), 1 << TOTAL_BITS, "context {:x}", context.key);
        assert!(frequencies.iter().all(|&f| f > 0), "every symbol can be coded after {:x}", context.key);
        // And the prices, rounded up, are a code, the 256 octets behind an escape included.
        let prices = &model.spelled[number * SYMBOLS..][..SYMBOLS];
        let octets = std::iter::repeat_n(prices[ESCAPE], 256);
        let all =
            prices[..ESCAPE].iter().chain(octets.collect::<Vec<_>>().iter()).map(|&p| u32::from(p)).collect::<Vec<_>>();
        assert!(kraft(all) <= 1.0 + 1e-12, "context {:x}", context.key);
    }
    assert!(model.contexts.iter().all(|&number| usize::from(number) < table.contexts().len()));
}

#[test]
fn runs_steps_digits_and_words_are_codes() {
    let (table, model) = (table(), Model::shipped());
    for (lane, weights) in RUN_WEIGHTS.iter().enumerate() {
        assert_eq!(weights.iter().sum::<u32>(), RUN_TOTAL);
        let price = |lanes: u64| (lanes >> (LANE * lane as u32)) as u32 & ((1 << LANE) - 1);
        // An octet without a symbol of its own is one of 256 behind the escape.
        let sum = kraft(model.runs.iter().map(|&lanes| price(lanes)));
        assert!(sum <= 1.0 + 1e-12, "run {lane}: {sum}");
    }
    assert_eq!(SINGLE_WEIGHTS.iter().sum::<u32>(), RUN_TOTAL);
    for (prices, at) in model.single.iter().zip([OTHER_BEFORE, SINGLE_BEFORE]) {
        let step = model.steps[at][Code::Spelled as usize];
        assert!(kraft(prices.iter().map(|price| price - step)) <= 1.0);
    }
    for (place, steps) in table.steps().iter().enumerate() {
        let frequencies = table::frequencies(steps).expect("a code");
        assert_eq!(frequencies.iter().sum::<u32>(), 1 << TOTAL_BITS);
        assert!(kraft(model.steps[place]) <= 1.0 + 1e-12, "place {place}");
    }
    assert_eq!(table::frequencies(table.digits()).expect("a code").iter().sum::<u32>(), 1 << TOTAL_BITS);
    let found = |word: &table::Word, digits: &str, first: bool| {
        let label: Vec<u8> = word.octets.iter().copied().chain(digits.bytes()).collect();
        let wire: Vec<u8> = [label.len() as u8].into_iter().chain(label.iter().copied()).collect();
        model.words.find(&wire, 1, label.len(), first)
    };
    let words = table.words();
    let named = || words.iter().filter(|word| !word.octets.is_empty());
    assert!(named().all(|word| found(word, "", true).word < NEVER), "every word is found");
    for first in [true, false] {
        assert!(kraft(named().map(|word| found(word, "", first).word)) <= 1.0);
    }
    // A word, how many digits, and which.
    let numbered = words.iter().flat_map(|word| {
        (1..=table::DIGITS_MOST).map(move |digits| {
            let all = 10f64.powi(digits as i32);
            let price = found(word, &"7".repeat(digits), true).numbered;
            assert!(price < NEVER, "{word:?} and {digits} digits");
            all * kraft([price])
        })
    });
    assert!(numbered.sum::<f64>() <= 1.0);
}

#[test]
fn a_word_is_what_several_owners_use() {
    let table = table();
    let has = |text: &str| table.words().iter().any(|word| *word.octets == *text.as_bytes());
    for word in ["www", "mail", "static", "api", "cdn", "img", "ns", "blog", "_tcp"] {
        assert!(has(word), "{word}");
    }
    assert!(table.words().len() < 1_000);
}

#[test]
fn ordinary_labels_are_cheap_and_payload_is_not() {
    for (text, most) in [("www", 4.0), ("mail", 6.0), ("static", 12.0), ("ns1", 16.0), ("www.static", 20.0)] {
        assert!(cost(text) < most, "{text}: {}", cost(text));
    }
    assert!(cost("zq7xk2vw9pj4htn3") > 16.0 * 5.0, "{}", cost("zq7xk2vw9pj4htn3"));
    assert!(cost("9f86d081884c7d659a2feaa0c55ad015") > 32.0 * 4.0, "{}", cost("9f86d081884c7d659a2feaa0c55ad015"));
    assert!(cost("9f86d081884c7d659a2feaa0c55ad015") < 32.0 * 4.8, "{}", cost("9f86d081884c7d659a2feaa0c55ad015"));
    let raw = cost("\\200\\201\\202\\203");
    assert!(raw >= 4.0 * 9.0, "an octet outside the alphabet costs its 8 bits and the escape: {raw}");
    assert!(cost("a\\.b") > cost("a.b"), "a dot inside a label is not a label separator");
    assert!(cost("www\\000") > cost("www") + 8.0, "an octet of zero behind a word is not the word");
}

#[test]
fn what_machines_make_is_strange_even_where_it_is_cheap() {
    for (text, priced, strange) in [
        ("9f86d081884c7d659a2feaa0c55ad015", 4.8, 4.9),
        ("zq7xk2vw9pj4htn3zq7xk2vw9pj4htn3", 5.8, 6.5),
        ("documentation", 4.0, 0.0),
    ] {
        let name = NameBuf::from_text(text).expect("test name");
        let wire = name.as_ref().as_wire();
        let (read, strangeness) = Model::shipped().examine(&wire[..wire.len() - 1]);
        let a_symbol = strangeness.bits.as_f64() / f64::from(strangeness.symbols);
        assert_eq!(strangeness.symbols, read.richest_symbols);
        assert!(read.richest.as_f64() / f64::from(read.richest_symbols) < priced, "{text}: {read:?}");
        assert!(a_symbol > strange, "{text}: {strangeness:?}");
    }
}

/// On average nothing random costs less than it tells, in any alphabet, length or place.
#[test]
fn random_labels_cost_what_they_tell() {
    let mut state = 0x5eed_u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let words: Vec<String> = table()
        .words()
        .iter()
        .map(|word| String::from_utf8_lossy(&word.octets).into_owned())
        .filter(|word| !word.is_empty())
        .collect();
    for (alphabet, length) in [
        ("0123456789abcdef", 32),
        ("0123456789", 6),
        ("abcdefghijklmnopqrstuvwxyz234567", 3),
        ("abcdefghijklmnopqrstuvwxyz234567", 20),
        ("abcdefghijklmnopqrstuvwxyz0123456789-_", 40),
        ("ab", 8),
        ("eationrs", 5),
    ] {
        let told = length as f64 * (alphabet.len() as f64).log2();
        for frame in ["{}", "www.{}", "{}.api", "1.2.{}.4"] {
            let price = |_| {
                let text: String =
                    (0..length).map(|_| char::from(alphabet.as_bytes()[below(alphabet.len())])).collect();
                cost(&frame.replace("{}", &text))
            };
            let mean = (0..400).map(price).sum::<f64>() / 400.0;
            assert!(mean >= told, "{length} of {alphabet} in {frame}: {mean} for {told}");
        }
    }
    for count in [1, 2, 4] {
        let price = |_| cost(&(0..count).map(|_| words[below(words.len())].as_str()).collect::<Vec<_>>().join("."));
        let mean = (0..2_000).map(price).sum::<f64>() / 2_000.0;
        let told = count as f64 * (words.len() as f64).log2();
        assert!(mean >= told, "{count} words: {mean} for {told}");
    }
}

/// -log2 of the probability of a payload part, from the table's frequencies and summed over all ways to code it.
fn information(table: &Table, labels: &[&[u8]]) -> f64 {
    let total = f64::from(1 << TOTAL_BITS);
    let share = |class: u8| f64::from(table::frequency(class)) / total;
    let word = |octets: &[u8]| table.words().iter().find(|word| *word.octets == *octets);
    let mut history = context::History::new();
    let (mut bits, mut at) = (0.0, place(0, Kind::Other));
    let step =
        |at: usize, code: usize| f64::from(table::frequencies(&table.steps()[at]).expect("a code")[code]) / total;
    for (number, label) in labels.iter().enumerate() {
        let (mut spelled, mut runs) = (1.0, [1.0; 3]);
        for symbol in context::symbols(label) {
            let octet = if symbol == ESCAPE { 1.0 / 256.0 } else { 1.0 };
            let found = |key| table.contexts().iter().find(|context| context.key == key);
            let context = history.chain().into_iter().rev().find_map(found).unwrap_or(&table.contexts()[0]);
            spelled *= octet * f64::from(table::frequencies(&context.classes).expect("a code")[symbol]) / total;
            for (run, weights) in runs.iter_mut().zip(RUN_WEIGHTS) {
                *run *= octet * f64::from(weights[symbol]) / f64::from(RUN_TOTAL);
            }
            history.push(symbol);
        }
        let (base, digits) = cut(label);
        let column = number.min(1);
        let looked_up = number < WINDOW;
        let bare = word(label).filter(|_| looked_up).map_or(0.0, |word| share(word.classes[column]));
        let numbered = word(base).filter(|_| looked_up && digits > 0).map_or(0.0, |word| {
            let length = f64::from(table::frequencies(table.digits()).expect("a code")[digits - 1]) / total;
            share(word.classes[2]) * length * 0.1f64.powi(digits as i32)
        });
        let spelled = match **label {
            _ if looked_up => spelled,
            [octet] => f64::from(SINGLE_WEIGHTS[usize::from(octet)]) / f64::from(RUN_TOTAL),
            _ => 0.0,
        };
        if !looked_up && label.len() == 1 {
            runs = [0.0; 3];
        }
        let ways = [bare, numbered, spelled, runs[0], runs[1], runs[2]];
        bits -= ways.iter().enumerate().map(|(way, p)| p * step(at, way + 1)).sum::<f64>().log2();
        let kind = match label.len() {
            1 => Kind::Single,
            len if len == digits && looked_up => Kind::Number,
            _ if bare > 0.0 => Kind::Word,
            _ => Kind::Other,
        };
        at = place(number + 1, kind);
    }
    bits - step(at, 0).log2()
}

proptest! {
    #[test]
    fn any_octets_are_priced(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (read, strangeness) = Model::shipped().examine(&octets);
        prop_assert!(read.total > Bits::ZERO);
        prop_assert!(read.richest <= read.total);
        let (mut rest, mut all_speak, mut short) = (&octets[..], true, 0);
        while let Some((&len, tail)) = rest.split_first() {
            let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
            short += fixed::is_short(label);
            all_speak &= fixed::speaks(label, short);
            rest = next;
        }
        // What is no evidence has a price all the same.
        prop_assert!(read.richest <= strangeness.bits || !all_speak);
    }

    /// The price of a payload part is never below the information in it, and not far above.
    #[test]
    fn a_price_is_never_below_the_information(
        text in prop_oneof![
            "[a-z0-9_.\\x80-\\xff-]{0,60}",
            "(www|mail|ns|cdn|api|static|[a-z0-9]{1,12})[0-9]{0,9}(\\.(www|mail|ns|[0-9a-f]{1,9})[0-9]{0,9}){0,9}",
        ],
    ) {
        let Ok(name) = NameBuf::from_text(&text) else { return Ok(()) };
        let labels: Vec<&[u8]> = name.as_ref().labels().collect();
        let information = information(&table(), &labels);
        let price = cost(&text);
        prop_assert!(price >= information - 1e-9, "{} < {}", price, information);
        // Each symbol is rounded up by less than 1/256 bit, and other ways to code a label are worth little.
        let most = information + 2.6 * (labels.len() as f64 + 1.0) + text.len() as f64 / 256.0;
        prop_assert!(price <= most, "{} > {}", price, most);
    }
}
