//! What must hold of every reader of octets from outside, one function for each: it takes any octets at all and panics where
//! something does not hold.
//!
//! Two callers: the libFuzzer targets in `fuzz/`, which look for octets, and `tests/seeds.rs`, which goes through the seeds
//! in `seeds/` and a fixed number of mutations of each whenever tests are run. Properties are about what is told to others,
//! not only that nothing panics, and are checked by means of their own: [`dns`] reads messages a second time.

pub mod answer;
pub mod config;
pub mod dns;
pub mod edns;
pub mod frames;
pub mod journal;
pub mod lists;
pub mod mutate;
pub mod query;
pub mod rdap;
pub mod rpz;
pub mod seeds;
pub mod tree;
pub mod validate;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `cargo fuzz` and the folder of its seeds know it.
    pub name: &'static str,
    /// Takes any octets.
    pub run: fn(&[u8]),
    /// Mutations of each seed that an ordinary test goes through: what takes about a second.
    pub mutations: u32,
}

/// All of them. A new one takes a line here, a file and three lines in `fuzz/`, and a folder of seeds.
pub const TARGETS: &[Target] = &[
    Target { name: "query", run: query::run, mutations: 2000 },
    Target { name: "answer", run: answer::run, mutations: 1000 },
    Target { name: "tree", run: tree::run, mutations: 1500 },
    Target { name: "lists", run: lists::run, mutations: 2000 },
    Target { name: "config", run: config::run, mutations: 20 },
    Target { name: "frames", run: frames::run, mutations: 1000 },
    Target { name: "journal", run: journal::run, mutations: 4 },
    Target { name: "rdap", run: rdap::run, mutations: 3000 },
    Target { name: "rpz", run: rpz::run, mutations: 1000 },
    Target { name: "edns", run: edns::run, mutations: 10_000 },
    Target { name: "validate", run: validate::run, mutations: 400 },
];
