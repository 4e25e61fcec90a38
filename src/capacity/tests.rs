use std::path::{Path, PathBuf};

use super::*;
use crate::config::{self, Environment};

/// 2026-11-20.
const WALL: u64 = 1_795_132_800_000;

fn capacity(text: &str) -> Capacity {
    assuming(text, Assumptions::default())
}

fn assuming(text: &str, assumptions: Assumptions) -> Capacity {
    let environment = Environment {
        resolv_conf: Some("nameserver 192.0.2.53\n".into()),
        state_home: PathBuf::from("/var/lib"),
        state_dir: None,
        wall: WALL,
        entropy: [3; 24],
        keep_tables: false,
        checking: false,
    };
    let (loaded, _) = config::load_text(Path::new("p.toml"), &format!("version = 1\n{text}"), &environment)
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    of(&loaded.profiles, &loaded.lists, WALL, assumptions)
}

fn batch(text: &str) -> ProfileCapacity {
    capacity(text).profiles.into_iter().find(|profile| profile.session == "batch").expect("a profile of that name")
}

fn part(profile: &ProfileCapacity, what: &str) -> (f64, f64) {
    let part = profile.parts.iter().find(|part| part.what == what).expect(what);
    (part.once_bits, part.hourly_bits)
}

/// A small policy: two types, one wildcard, two exact names, no packs.
const SMALL: &str = "pack = []\n[profile.batch]\nqtypes = [\"A\", \"AAAA\"]\n[profile.batch.budgets]\nsession = 5000\n\
                     tenant_soft = 500\ntenant = 1000\nicann = 2000\n\
                     [[rule]]\nid = \"cdn\"\naction = \"allow\"\nnames = [\"*.cdn.example.net\"]\nbudget_bits = 3000\nowner = \"o\"\n\
                     reason = \"r\"\nreview_by = \"2027-06-01\"\n\
                     [[rule]]\nid = \"hosts\"\naction = \"allow\"\nnames = [\"=a.example.org\", \"=b.example.org\"]\nowner = \"o\"\n\
                     reason = \"r\"\n";

#[test]
fn a_small_policy_by_hand() {
    let small = batch(SMALL);
    assert_eq!(part(&small, "unlisted names"), (5000.0, 0.0));
    assert_eq!(part(&small, "names below rules"), (3000.0, 0.0));
    assert_eq!(part(&small, "names of packs"), (0.0, 0.0));
    // 2 names x 2 types x 4 flags = 16 questions of 4 bits, 60 times an hour.
    assert_eq!(part(&small, "exact names"), (0.0, 16.0 * 4.0 * 60.0));
    // Each of them once in 60 s, in one of 600 slots of 100 ms or in none: log2 601 bits, 60 times an hour.
    let each = 601.0_f64.log2() * 60.0;
    let timing = 16.0 * each;
    assert!((part(&small, "time of exact names").1 - timing).abs() < 1e-6);
    assert_eq!(small.once_bits, 8000.0);
    assert!((small.hourly_bits - (3840.0 + timing)).abs() < 1e-6);
    assert_eq!((small.unlisted_tenant_bits, small.unlisted_icann_bits), (1000.0, 2000.0));

    let [cdn, hosts] = &small.rules[..] else { panic!("two rules: {:?}", small.rules) };
    assert_eq!((cdn.id.as_str(), cdn.file.as_str(), cdn.line), ("cdn", "p.toml", 13));
    assert_eq!(cdn.forms, ["*.cdn.example.net"]);
    assert_eq!((cdn.once_bits, cdn.saves_once_bits, cdn.hourly_bits), (3000.0, 3000.0, 0.0));
    assert_eq!(hosts.once_bits, 0.0);
    assert!((hosts.hourly_bits - small.hourly_bits).abs() < 1e-6 && hosts.saves_hourly_bits == hosts.hourly_bits);
    // One type left: 8 questions of 3 bits, 60 times.
    let left = 8.0 * (3.0 * 60.0 + each);
    assert_eq!(small.types[0].qtype, Qtype::A);
    assert!((small.types[0].adds_hourly_bits - (small.hourly_bits - left)).abs() < 1e-6);
}

#[test]
fn what_is_taken_away_lowers_the_total_and_what_is_added_raises_it() {
    let small = batch(SMALL);
    let without = batch(&SMALL.replace("*.cdn.example.net", "=cdn.example.net"));
    assert_eq!(small.once_bits - without.once_bits, 3000.0, "a wildcard made exact");
    assert!(without.hourly_bits > small.hourly_bits, "and one name more to choose from");
    let more = batch(&SMALL.replace("\"AAAA\"", "\"AAAA\", \"TXT\""));
    assert!(more.hourly_bits > small.hourly_bits, "a type");
    assert_eq!(more.once_bits, small.once_bits);
    let own = batch(&SMALL.replace("\"=b.example.org\"]", "\"=b.example.org\"]\nqtypes = [\"TXT\"]"));
    assert!(own.hourly_bits > small.hourly_bits && own.hourly_bits == more.hourly_bits, "a type of the rule's own");
    let closed = batch(&SMALL.replace("qtypes", "unlisted = \"refuse\"\nqtypes"));
    assert_eq!(small.once_bits - closed.once_bits, 5000.0, "unlisted names refused");
    let packed = batch(SMALL.trim_start_matches("pack = []\n"));
    assert_eq!(packed.once_bits - small.once_bits, 73_728.0, "the shipped pack fills the limit for packs");
    let less = batch(&SMALL.replace("pack = []\n", "").replace("qtypes", "pack_session_bits = 100\nqtypes"));
    assert_eq!(less.once_bits - small.once_bits, 100.0);
}

#[test]
fn rules_that_share_an_owner_share_its_account() {
    let second = "[[rule]]\nid = \"more\"\naction = \"allow\"\nnames = [\"img.example.net\", \"*.other.example\"]\nbudget_bits = 4000\n\
                  owner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n";
    let both = batch(&format!("{SMALL}{second}"));
    assert_eq!(part(&both, "names below rules").0, 4000.0 + 4000.0, "the larger budget, and another owner");
    let by = |id: &str| both.rules.iter().find(|rule| rule.id == id).expect("rule").clone();
    assert_eq!((by("cdn").once_bits, by("cdn").saves_once_bits), (3000.0, 0.0));
    assert_eq!((by("more").once_bits, by("more").saves_once_bits), (8000.0, 5000.0));
}

#[test]
fn rules_for_others_and_rules_that_ended_permit_nothing() {
    let other = batch(&SMALL.replace("budget_bits = 3000", "budget_bits = 3000\nprofiles = [\"interactive\"]"));
    assert_eq!(part(&other, "names below rules").0, 0.0);
    let ended = batch(&SMALL.replace("review_by = \"2027-06-01\"", "expires = \"2026-11-01\""));
    assert_eq!(part(&ended, "names below rules").0, 0.0);
    let phase = capacity(&SMALL.replace("budget_bits = 3000", "budget_bits = 3000\nprofiles = [\"batch.build\"]"));
    let all: Vec<_> = phase
        .profiles
        .iter()
        .filter(|profile| profile.profile == "batch")
        .map(|profile| (profile.session.as_str(), part(profile, "names below rules").0))
        .collect();
    assert_eq!(all, [("batch", 0.0), ("batch.build", 3000.0)]);
}

#[test]
fn assumptions_are_inputs() {
    let slow = Assumptions { floor_seconds: 3600.0, jitter_ms: 1000.0 };
    assert_eq!((slow.forwards_an_hour(), slow.timing_bits()), (1.0, 3601.0_f64.log2()));
    assert!(Assumptions::default().timing_bits() > 4.0);
}

#[test]
fn without_a_floor_nothing_limits_an_hour() {
    let without = Assumptions { floor_seconds: 0.0, ..Assumptions::default() };
    let all = assuming(SMALL, without).profiles;
    let batch = all.iter().find(|profile| profile.session == "batch").expect("the profile");
    assert!(batch.hourly_bits == f64::INFINITY && batch.once_bits == 8000.0);
    assert_eq!(part(batch, "names below rules"), (3000.0, 0.0));
    assert_eq!(serde_json::to_value(batch).expect("JSON")["hourly_bits"], serde_json::Value::Null);
    // Without exact names there is nothing to repeat.
    let none = assuming("pack = []\n", without).profiles;
    assert!(none.iter().all(|profile| profile.hourly_bits == 0.0), "{none:?}");
}
