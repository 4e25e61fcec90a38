//! Every target on every seed, and on a fixed number of mutations of each: without a fuzzer, the same in every run.

use std::path::{Path, PathBuf};

use staunch_harness::mutate::{Chance, mutate};
use staunch_harness::{TARGETS, seeds};

/// Most octets of all seeds together: they are to be read by people, and what a fuzzer gathers stays out.
const SIZE_MAX: u64 = 64 * 1024;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

/// Name and octets of each seed, by name.
fn read(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut all: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a seed"))
        })
        .collect();
    all.sort();
    all
}

/// Runs a target and says what it was given where it does not hold.
fn run(target: &str, run: fn(&[u8]), what: &str, octets: &[u8]) {
    let held = std::panic::catch_unwind(|| run(octets));
    if held.is_err() {
        let path = std::env::temp_dir().join(format!("staunch-{target}-{}", std::process::id()));
        std::fs::write(&path, octets).expect("written");
        panic!("{target}: {what} does not hold; its octets are in {}", path.display());
    }
}

fn go_through(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = read(name);
    assert!(seeds.len() >= 4, "{name}: {} seeds", seeds.len());
    let mut chance = Chance::new(seeds.len() as u64);
    for (seed, octets) in &seeds {
        run(name, target.run, seed, octets);
        for n in 0..target.mutations {
            let mut changed = octets.clone();
            mutate(&mut changed, &seeds[chance.below(seeds.len())].1, &mut chance);
            run(name, target.run, &format!("mutation {n} of {seed}"), &changed);
        }
    }
    println!("FIGURE: {name}: {} seeds, {} mutations", seeds.len(), seeds.len() * target.mutations as usize);
}

macro_rules! each {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                go_through(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_test_a_fuzz_target_and_seeds() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
            let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest of fuzz targets");
            let bins: Vec<&str> = manifest
                .split("[[bin]]")
                .skip(1)
                .filter_map(|bin| bin.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')))
                .collect();
            assert_eq!(bins, names);
            for name in names {
                let text = std::fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).expect("a fuzz target");
                assert!(text.contains(&format!("staunch_harness::{name}::run(octets)")), "{text}");
                assert!(folder(name).is_dir(), "{name}");
            }
        }
    };
}

each!(query answer tree lists config frames journal rdap rpz edns validate);

#[test]
fn seeds_that_are_made_are_as_made_and_all_are_small() {
    for (target, name, octets) in seeds::made() {
        let there = std::fs::read(folder(target).join(name));
        assert!(there.is_ok_and(|there| there == octets), "{target}/{name}: run the example `seeds`");
    }
    let size: usize = TARGETS.iter().flat_map(|target| read(target.name)).map(|(_, octets)| octets.len()).sum();
    assert!(size as u64 <= SIZE_MAX, "{size} octets");
}
