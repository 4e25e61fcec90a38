//! Fits the character model to the benign corpora and rewrites `scoring/src/model/benign.bin`, bit for bit the same
//! for the same input.
//!
//! `cargo run --release -p staunch-scoring --example fit -- CORPORA` writes the table, fitted on every benign name.
//! With `--densities` it prints the parameters of the signals' benign densities. With `--evaluate` it writes nothing,
//! fits on one half of the names and prints bits a name on the other half, split by name and by domain, and what the
//! tunnels and synthetic schemes pay.

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use staunch_scoring::model::Model;
use staunch_scoring::model::fit::Counts;
use staunch_scoring::{NameBuf, NameRef, Split};

/// Prints a line; a reader that has gone away ends the program, not with a panic.
macro_rules! say {
    ($($text:tt)*) => {
        if writeln!(std::io::stdout(), $($text)*).is_err() {
            std::process::exit(0);
        }
    };
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut task: fn(&Path) -> Result<(), Box<dyn Error>> = write;
    let mut dir = None;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--evaluate" => task = report,
            "--densities" => task = densities,
            _ => dir = Some(PathBuf::from(arg)),
        }
    }
    task(&dir.or_else(corpus::directory).ok_or("usage: fit [--evaluate | --densities] CORPORA")?)
}

/// Distinct benign names that would be scored. A set in order, so that nothing depends on the order of rows.
fn benign(dir: &Path, stems: &[&str]) -> Result<BTreeSet<NameBuf>, Box<dyn Error>> {
    let mut names = BTreeSet::new();
    for stem in stems {
        names.extend(
            corpus::rows(dir, stem)?.iter().filter(|row| row.label == "benign").filter_map(corpus::scored_name),
        );
    }
    Ok(names)
}

fn payload(name: &NameBuf) -> &[u8] {
    name.as_ref().payload_part(domain(name))
}

fn domain(name: &NameBuf) -> NameRef<'_> {
    corpus::owner(name)
}

/// Counts every name's payload part, so that a part weighs by the domains it stands under.
fn count<'n>(names: impl Iterator<Item = &'n NameBuf>) -> Counts {
    let mut counts = Counts::new();
    names.for_each(|name| counts.add(payload(name), domain(name)));
    counts
}

fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    let table = count(benign(dir, &["benign_list", "benign_seq"])?.iter()).fit();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/benign.bin");
    let octets = table.to_bytes();
    std::fs::write(&path, &octets)?;
    say!("{}: {} octets, fitted on {} names", path.display(), octets.len(), table.trained_on());
    Ok(())
}

/// True bits a name of the synthetic schemes: what their random payload was made of.
const TRUE_BITS: [(&str, f64); 8] = [
    ("synth-short3", 15.0),
    ("synth-words4", 44.0),
    ("synth-positional", 80.0),
    ("synth-spread200", 120.0),
    ("synth-privsuffix", 128.0),
    ("synth-slow-b32-60s", 160.0),
    ("synth-slow-b32-300s", 160.0),
    ("synth-slow-b32-1800s", 160.0),
];

/// The tables of `scoring/README.md`, each figure from a model that was not fitted on what it prices.
fn report(dir: &Path) -> Result<(), Box<dyn Error>> {
    let list = benign(dir, &["benign_list"])?;
    let sequences = benign(dir, &["benign_seq"])?;
    say!(
        "| benign names held back | names | bits a name: mean | 50 % | 90 % | 99 % | mean of those with a payload part |"
    );
    say!("|---|---|---|---|---|---|---|");
    let splits: [(&str, Held); 2] =
        [("by name", |name| !half(name.as_ref())), ("by domain", |name| !half(domain(name)))];
    for (split, held) in splits {
        let model = model_without(&list, &sequences, held)?;
        for (what, names) in [("list", &list), ("sequences", &sequences)] {
            let cost = |name: &&NameBuf| model.cost(payload(name)).as_f64();
            let mut bits: Vec<f64> = names.iter().filter(|name| held(name)).map(|name| cost(&name)).collect();
            let named = names.iter().filter(|name| held(name) && !payload(name).is_empty());
            let named: Vec<f64> = named.map(|name| cost(&name)).collect();
            let row = quantiles(&mut bits);
            say!("| {what}, {split} | {} | {row} | {:.1} |", bits.len(), mean(&named));
        }
    }
    let model = model_without(&list, &sequences, splits[0].1)?;
    let mut tools: BTreeMap<String, (Vec<f64>, usize)> = Default::default();
    for stem in ["tunnel", "lowslow", "benign_odd"] {
        let mut seen = BTreeSet::new();
        for row in corpus::rows(dir, stem)? {
            let Some(name) = corpus::scored_name(&row) else { continue };
            if seen.insert(name.clone()) {
                // Who reads the tenants of a platform reads what stands below its ICANN-level domain.
                let part = match row.tool.as_str() {
                    "synth-privsuffix" => name.as_ref().payload_part(Split::of(name.as_ref()).icann(name.as_ref())),
                    _ => payload(&name),
                };
                let entry = tools.entry(row.tool).or_default();
                entry.0.push(model.cost(part).as_f64());
                entry.1 += characters(part);
            }
        }
    }
    say!("");
    say!(
        "| tool | names | bits a name: mean | 50 % | 90 % | 99 % | bits a character | true bits a name | bits a true bit |"
    );
    say!("|---|---|---|---|---|---|---|---|---|");
    for (tool, (mut bits, octets)) in tools {
        let row = quantiles(&mut bits);
        let a_character = bits.iter().sum::<f64>() / octets.max(1) as f64;
        let told = TRUE_BITS.iter().find(|(name, _)| *name == tool);
        let told = told.map_or("| |".to_string(), |(_, told)| format!("{told:.0} | {:.2} |", mean(&bits) / told));
        say!("| {tool} | {} | {row} | {a_character:.2} | {told}", bits.len());
    }
    Ok(())
}

/// Octets inside the labels of a payload part.
fn characters(part: &[u8]) -> usize {
    let mut labels = 0;
    let mut rest = part;
    while let Some((&len, tail)) = rest.split_first() {
        rest = tail.get(usize::from(len)..).unwrap_or_default();
        labels += 1;
    }
    part.len() - labels
}

fn mean(bits: &[f64]) -> f64 {
    bits.iter().sum::<f64>() / bits.len().max(1) as f64
}

/// Mean and quantiles as cells of a table.
fn quantiles(bits: &mut [f64]) -> String {
    bits.sort_by(f64::total_cmp);
    let at = |q: f64| bits.get((bits.len() as f64 * q) as usize).copied().unwrap_or(0.0);
    format!("{:.1} | {:.1} | {:.1} | {:.1}", mean(bits), at(0.5), at(0.9), at(0.99))
}

/// Whether a name is held back.
type Held = fn(&NameBuf) -> bool;

/// Which half of all names one belongs to.
fn half(name: NameRef<'_>) -> bool {
    let octets = name.as_wire().iter();
    let hash =
        octets.fold(0xcbf2_9ce4_8422_2325u64, |hash, &octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 40) & 1 == 0
}

/// A model of the names that are not held back.
fn model_without(list: &BTreeSet<NameBuf>, sequences: &BTreeSet<NameBuf>, held: Held) -> Result<Model, Box<dyn Error>> {
    let counts = count(list.iter().chain(sequences).filter(|name| !held(name)));
    Ok(Model::from_bytes(&counts.fit().to_bytes())?)
}

/// Moments of what the signals read, over distinct names and over pairs of session and tenant.
fn densities(dir: &Path) -> Result<(), Box<dyn Error>> {
    let list = benign(dir, &["benign_list"])?;
    let names = benign(dir, &["benign_seq"])?;
    let model = model_without(&list, &names, |name| !half(name.as_ref()))?;
    let parts = || names.iter().map(payload).filter(|part| !part.is_empty());
    let mut lengths: Vec<f64> = parts().map(|part| (part.len() as f64 - 1.0).ln()).collect();
    let mut pairs: BTreeMap<(String, NameBuf), BTreeSet<NameBuf>> = BTreeMap::new();
    for row in corpus::rows(dir, "benign_seq")? {
        if let Some(name) = corpus::scored_name(&row) {
            let tenant = domain(&name).to_owned();
            pairs.entry((row.session.unwrap_or_default(), tenant)).or_default().insert(name);
        }
    }
    let told = |names: &BTreeSet<NameBuf>| names.iter().map(|name| model.cost(payload(name)).as_f64()).sum::<f64>();
    for (least, most) in [(6, 9), (10, 19), (20, 39), (40, 79), (80, u32::MAX)] {
        let rate = |names: &BTreeSet<NameBuf>| {
            let (mut bits, mut symbols) = (0.0, 0);
            for worth in names.iter().filter(|name| !half(name.as_ref())).map(|name| model.read(payload(name))) {
                bits += worth.richest.as_f64();
                symbols += worth.richest_symbols;
            }
            (least..=most).contains(&symbols).then(|| bits / f64::from(symbols))
        };
        let mut rates: Vec<f64> = pairs.values().filter_map(rate).collect();
        print_moments(&format!("entropy::BENIGN (bits a symbol, {least} symbols and more)"), &mut rates, |x| x);
        let strange = |names: &BTreeSet<NameBuf>| {
            let (mut bits, mut symbols) = (0.0, 0);
            for worth in names.iter().filter(|name| !half(name.as_ref())).map(|name| model.examine(payload(name)).1) {
                bits += worth.bits.as_f64();
                symbols += worth.symbols;
            }
            (least..=most).contains(&symbols).then(|| bits / f64::from(symbols))
        };
        let mut rates: Vec<f64> = pairs.values().filter_map(strange).collect();
        print_moments(&format!("strangeness (bits a symbol, {least} symbols and more)"), &mut rates, |x| x);
    }
    // Pairs that only ever ask the bare domain tell nothing and are left out: they would hide the tail.
    let mut told: Vec<f64> = pairs
        .values()
        .filter(|names| names.iter().any(|name| !payload(name).is_empty()))
        .map(|names| (1.0 + told(names)).ln())
        .collect();
    print_moments("length::BENIGN (ln octets)", &mut lengths, f64::exp);
    print_moments("fan_out::BENIGN (ln 1 + bits)", &mut told, f64::exp);
    Ok(())
}

fn print_moments(what: &str, values: &mut [f64], shown: impl Fn(f64) -> f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let at = |q: f64| values.get((count * q) as usize).copied().map_or(0.0, &shown);
    say!("{what}: n {count} mean {mean:.3} deviation {deviation:.3}");
    say!(
        "    quantiles 10 % {:.2}, 50 % {:.2}, 90 % {:.2}, 99 % {:.2}, 99.9 % {:.2}",
        at(0.1),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999)
    );
}
