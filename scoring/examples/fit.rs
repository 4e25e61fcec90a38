//! Fits the character model to the benign corpora and rewrites `scoring/src/model/benign.bin`, bit for bit the same
//! for the same input.
//!
//! `cargo run --release -p staunch-scoring --example fit -- CORPORA` writes the table, fitted on every benign name.
//! With `--densities` it prints the parameters of the signals' benign densities. With `--evaluate` it writes nothing, fits on one half of the names by hash and prints bits a name on the other half.

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
    let split = Split::of(name.as_ref());
    name.as_ref().payload_part(split.tenant(name.as_ref()))
}

fn domain(name: &NameBuf) -> NameRef<'_> {
    Split::of(name.as_ref()).tenant(name.as_ref())
}

/// Counts every name's payload part, so that a part weighs by the domains it stands under.
fn count<'n>(names: impl Iterator<Item = &'n NameBuf>) -> Counts {
    let mut counts = Counts::new();
    names.for_each(|name| counts.add(payload(name)));
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

fn report(dir: &Path) -> Result<(), Box<dyn Error>> {
    let list = benign(dir, &["benign_list"])?;
    let sequences = benign(dir, &["benign_seq"])?;
    let model = half_model(&list, &sequences)?;
    for (what, names) in [("list", &list), ("sequences", &sequences)] {
        let mut bits: Vec<f64> =
            names.iter().filter(|name| !half(name)).map(|name| model.cost(payload(name)).as_f64()).collect();
        print_row(what, &mut bits);
    }
    let mut tools: BTreeMap<String, (Vec<f64>, usize)> = Default::default();
    for stem in ["tunnel", "lowslow", "benign_odd"] {
        let mut seen = BTreeSet::new();
        for row in corpus::rows(dir, stem)? {
            let Some(name) = corpus::scored_name(&row) else { continue };
            if seen.insert(name.clone()) {
                let part = payload(&name);
                let entry = tools.entry(row.tool).or_default();
                entry.0.push(model.cost(part).as_f64());
                entry.1 += part.len();
            }
        }
    }
    for (tool, (mut bits, octets)) in tools {
        let a_character = bits.iter().sum::<f64>() / octets as f64;
        print_row(&format!("{tool} ({a_character:.2} a character)"), &mut bits);
    }
    Ok(())
}

/// Which half of the names one belongs to.
fn half(name: &NameBuf) -> bool {
    let octets = name.as_ref().as_wire().iter();
    let hash =
        octets.fold(0xcbf2_9ce4_8422_2325u64, |hash, &octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 40) & 1 == 0
}

/// A model of one half of the names, to be looked at on the other.
fn half_model(list: &BTreeSet<NameBuf>, sequences: &BTreeSet<NameBuf>) -> Result<Model, Box<dyn Error>> {
    let training: BTreeSet<&NameBuf> = list.iter().chain(sequences).filter(|name| half(name)).collect();
    Ok(Model::from_bytes(&count(training.into_iter()).fit().to_bytes())?)
}

/// Moments of what the signals read, over distinct names and over pairs of session and tenant.
fn densities(dir: &Path) -> Result<(), Box<dyn Error>> {
    let list = benign(dir, &["benign_list"])?;
    let names = benign(dir, &["benign_seq"])?;
    let model = half_model(&list, &names)?;
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
            for worth in names.iter().filter(|name| !half(name)).map(|name| model.read(payload(name))) {
                bits += worth.richest.as_f64();
                symbols += worth.richest_symbols;
            }
            (least..=most).contains(&symbols).then(|| bits / f64::from(symbols))
        };
        let mut rates: Vec<f64> = pairs.values().filter_map(rate).collect();
        print_moments(&format!("entropy::BENIGN (bits a symbol, {least} symbols and more)"), &mut rates, |x| x);
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

fn print_row(what: &str, bits: &mut [f64]) {
    bits.sort_by(f64::total_cmp);
    let at = |q: f64| bits.get((bits.len() as f64 * q) as usize).copied().unwrap_or(0.0);
    let mean = bits.iter().sum::<f64>() / bits.len().max(1) as f64;
    say!(
        "{what:<44} {:>6} names, bits: mean {mean:>7.1} median {:>7.1} p90 {:>7.1} p99 {:>7.1}",
        bits.len(),
        at(0.5),
        at(0.9),
        at(0.99)
    );
}
