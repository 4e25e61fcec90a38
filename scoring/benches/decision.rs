//! What one decision costs: a name split, assessed and its charge booked, in instructions and in nanoseconds.
//!
//! `cargo bench -p staunch-scoring --bench decision` counts instructions under valgrind, the same on every run however
//! busy the machine is, and fails where a case needs more than its limit; nanoseconds are shown beside, not judged.
//! Runs itself under callgrind twice with different numbers of rounds; the difference is what the rounds cost.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Instant;

use staunch_scoring::{Budgets, Facts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split};

const FEW: usize = 100;
const MANY: usize = 900;

/// A case and the most instructions one decision may take.
struct Case {
    what: &'static str,
    /// The name of a round; another one in each for a new name.
    name: fn(usize) -> String,
    limit: u64,
}

const ID: &str = "k3x9q0vz71bdw5mt2c8hj4yg6nfr0ps3la9e7uix5ozbqk1wv8dt2m6hc4gy";

const CASES: [Case; 8] = [
    Case { what: "known name", name: |_| "www.example.com".into(), limit: 4_750 },
    Case { what: "new name, 16 octets", name: |i| format!("h{i:03}.example.com"), limit: 6_100 },
    Case { what: "payload of 60 octets", name: |i| format!("{i:03}{}.tunnel.example", &ID[..56]), limit: 11_000 },
    Case { what: "the same under a platform", name: |i| format!("{i:03}{}.user.github.io", &ID[..56]), limit: 14_700 },
    Case {
        what: "255 octets",
        name: |i| format!("{i:03}{0}.{1}.{1}.{1}.{1}.example", &ID[..50], &ID[..46]),
        limit: 13_200,
    },
    Case {
        what: "128 octets, labels known and new",
        name: |i| format!("{i:03}{0}.{1}.{2}.known-label.tunnel.example", &ID[..45], &ID[4..40], &ID[..14]),
        limit: 13_800,
    },
    Case {
        what: "255 octets, all escaped",
        name: |i| format!("{i:03}{0}.{0}.{0}.{1}", "\\200".repeat(60), "\\200".repeat(58)),
        limit: 14_100,
    },
    Case {
        what: "127 labels",
        name: |i| {
            let digit = |n: usize| char::from(b'a' + (n % 26) as u8);
            format!("{}.{}.{}", digit(i / 26), digit(i), ["a"; 125].join("."))
        },
        limit: 12_900,
    },
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    if let (Some(case), Some(rounds)) = (args.next(), args.next()) {
        let case: usize = case.parse().expect("a case's number");
        run(&CASES[case], rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    let counts = Command::new("valgrind").arg("--version").output().is_ok();
    if !counts {
        println!("SKIPPED: valgrind is not installed, instructions are not counted");
    }
    println!("| decision | instructions | limit | nanoseconds |\n|---|---|---|---|");
    let mut within = true;
    for (number, case) in CASES.iter().enumerate() {
        let nanoseconds = (0..5).map(|_| run(case, MANY)).min().unwrap_or_default();
        let instructions = counts.then(|| {
            let (few, many) = (count(number, FEW), count(number, MANY));
            many.saturating_sub(few) / (MANY - FEW) as u64
        });
        let shown = instructions.map_or("-".into(), |n| n.to_string());
        println!("| {} | {shown} | {} | {nanoseconds} |", case.what, case.limit);
        within &= instructions.is_none_or(|n| n <= case.limit);
    }
    if within {
        ExitCode::SUCCESS
    } else {
        eprintln!("a decision takes more instructions than its limit");
        ExitCode::FAILURE
    }
}

/// Decides on as many names; nanoseconds for each.
fn run(case: &Case, rounds: usize) -> u128 {
    let scorer = Scorer::new();
    let mut state = SessionState::new(7);
    // A session that has been at work for a while.
    for i in 0..200 {
        let name = NameBuf::from_text(&format!("host{i}.site{}.example", i % 40)).expect("name");
        decide(&scorer, &mut state, &name, i);
    }
    let names: Vec<NameBuf> =
        (0..rounds).map(|i| NameBuf::from_text(&(case.name)(i)).expect("a name of at most 255 octets")).collect();
    let start = Instant::now();
    counted(&scorer, &mut state, &names);
    start.elapsed().as_nanos() / rounds.max(1) as u128
}

/// What callgrind counts.
#[inline(never)]
fn counted(scorer: &Scorer, state: &mut SessionState, names: &[NameBuf]) {
    for (i, name) in names.iter().enumerate() {
        decide(scorer, state, black_box(name), i);
    }
}

fn decide(scorer: &Scorer, state: &mut SessionState, name: &NameBuf, i: usize) {
    let budgets = Budgets::default();
    let params = Params::default();
    let facts = Facts {
        now: i as u64 * 700,
        qname: name.as_ref(),
        split: Split::of(name.as_ref()),
        qtype: 1,
        flags: 0,
        qtypes_allowed: 17,
        listing: Listing::Unlisted,
        registered_days: Some(300.0),
        first_seen_days: Some(100.0),
        group_seen_days: Some(10.0),
        group: None,
        cached: false,
        at_hand: false,
        budgets: &budgets,
        params: &params,
    };
    let assessment = scorer.assess(state, &facts);
    // Booked whatever the band, so that every round does the whole work.
    scorer.commit(state, &facts, black_box(&assessment), Outcome::Forwarded);
}

/// Instructions of a whole run.
fn count(case: usize, rounds: usize) -> u64 {
    let out = std::env::temp_dir().join(format!("staunch-decision-{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program"))
        .args([case.to_string(), rounds.to_string()])
        .output()
        .expect("valgrind runs");
    // The file is a side product; that it may stay behind harms nobody.
    let _ = std::fs::remove_file(&out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1));
    collected.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no count in {said}"))
}
