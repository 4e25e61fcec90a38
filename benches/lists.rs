//! What asking the lists costs a query: a million denied names, a few thousand rules, both in one walk; a million rules of a
//! policy zone.
//!
//! `cargo bench --bench lists`. Names are synthetic, 17 octets on average; misses have three labels, hits stand two
//! labels below an entry or are one. Build time and size are printed first.
//!
//! What lists cost at scale is printed as `FIGURE` lines, by processes of their own so that memory is that of one thing:
//! ten million names in four lists, compiled and mapped; the walk with and without them; the longest a query waits
//! while tables are swapped. `cargo bench --bench lists -- scale` prints these alone.

mod scale;
mod support;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group};
use staunch::lists::{
    Action, AgeBuilder, Day, DenyTable, Format, HashKey, ListInfo, Lists, Rule, RuleForm, RuleSet, Scope, ScopeSet,
    Trials, compile_texts,
};
use staunch::model::{Ede, SessionType, Wall};
use staunch::rpz;
use staunch_scoring::{Bits, NameBuf};

const NAMES: u64 = 1_000_000;
const ASKED: u64 = 4096;

fn key() -> HashKey {
    HashKey::from_random([0x5a; 24])
}

/// Spreads `n` over letters, so that neighbours in a list look nothing alike.
fn label(n: u64) -> String {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0;
    (0..6 + n % 7)
        .map(|_| {
            x = x.rotate_left(11).wrapping_mul(0xff51_afd7_ed55_8ccd);
            char::from(b'a' + (x >> 40) as u8 % 26)
        })
        .collect()
}

fn listed(n: u64) -> String {
    format!("{}{n}.{}", label(n), ["example", "test", "invalid"][n as usize % 3])
}

fn deny() -> DenyTable {
    let text: String = (0..NAMES).map(|n| listed(n) + "\n").collect();
    let info = ListInfo { id: "bench".into(), file: "bench.txt".into(), source: None, category: None, reviewed: None };
    let start = Instant::now();
    let table = compile_texts(key(), Day(20_500), &[(info, text.as_bytes(), Some(Format::Domains))]).expect("list");
    let octets = table.octets() as f64 / table.len() as f64;
    println!("{} names: compiled in {:?}, {octets:.1} octets a name", table.len(), start.elapsed());
    table
}

fn rules() -> RuleSet {
    let rule = |n: u64| Rule {
        id: format!("rule-{n}").into(),
        file: "bench.toml".into(),
        action: if n.is_multiple_of(5) { Action::Deny } else { Action::Allow },
        names: vec![
            (RuleForm::parse(&format!("=www.{}.example", label(n))).expect("form"), 1),
            (RuleForm::parse(&format!("*.cdn.{}.example", label(n))).expect("form"), 2),
        ],
        scopes: ScopeSet::ALL,
        qtypes: Vec::new(),
        budget: Bits::whole(8192),
        ports: None,
        expected: Vec::new(),
        mode: None,
        expires: Rule::NEVER,
        owner: "bench".into(),
        reason: "bench".into(),
    };
    RuleSet::compile((0..5000).map(rule).collect(), key())
}

fn names(text: impl Fn(u64) -> String) -> Vec<NameBuf> {
    // Strided over the whole list: what is asked for shares no cache lines, though the set as a whole may fit a cache.
    (0..ASKED).map(|i| NameBuf::from_text(&text(i * (NAMES / ASKED))).expect("name")).collect()
}

fn lists(c: &mut Criterion) {
    let lists = Lists {
        rules: rules(),
        deny: deny(),
        age: AgeBuilder::new(key()).build().into(),
        packs: RuleSet::compile(Vec::new(), key()),
    };
    let scope = Scope::of(SessionType::Interactive, None);
    let wall = Wall::at(Day::parse("2026-11-21").expect("day").start());

    let mut group = c.benchmark_group("lists");
    group.throughput(Throughput::Elements(1));
    let mut over = |id: &str, asked: Vec<NameBuf>, hit: bool, ask: &dyn Fn(&NameBuf) -> bool| {
        assert!(asked.iter().all(|name| ask(name) == hit), "{id}");
        let mut at = 0;
        group.bench_function(id, |b| {
            b.iter(|| {
                at = (at + 1) % asked.len();
                black_box(ask(black_box(&asked[at])))
            });
        });
    };
    let denied = |name: &NameBuf| lists.deny.look_up(name.as_ref()).is_some();
    over("deny 1e6 hit, the name itself", names(listed), true, &denied);
    over("deny 1e6 hit, two labels below", names(|n| format!("a.b.{}", listed(n))), true, &denied);
    over("deny 1e6 miss, three labels", names(|n| format!("www.{}.com", label(n))), false, &denied);
    let long = |n: u64| format!("{}.{}.{}.{}.com", label(n), label(n + 1), label(n + 2), label(n + 3));
    over("deny 1e6 miss, five labels", names(long), false, &denied);

    let ruled = |name: &NameBuf| lists.rules.look_up(name.as_ref(), scope, wall, Trials::NONE).in_force.is_some();
    over("rules 5e3 hit, exact", names(|n| format!("www.{}.example", label(n % 5000))), true, &ruled);
    over("rules 5e3 hit, below", names(|n| format!("a.cdn.{}.example", label(n % 5000))), true, &ruled);
    over("rules 5e3 miss", names(|n| format!("www.{}.com", label(n))), false, &ruled);

    let either = |name: &NameBuf| {
        let found = lists.look_up(name.as_ref(), scope, wall, Trials::NONE);
        found.rules.in_force.is_some() || found.deny.is_some()
    };
    over("both in one walk, miss", names(|n| format!("www.{}.com", label(n))), false, &either);
}

/// A zone of the shape of public feeds: a domain and all below it.
fn rpz(c: &mut Criterion) {
    let mut text = String::from("$TTL 60\n@ IN SOA ns.test. admin.test. 1 3600 600 86400 60\n");
    for n in 0..NAMES / 2 {
        text += &format!("{0} CNAME .\n*.{0} CNAME .\n", listed(n));
    }
    let origin = NameBuf::from_text("rpz.test").expect("name");
    let start = Instant::now();
    let rules = rpz::parse(text.as_bytes(), origin.as_ref(), "bench.zone", &key(), false).expect("zone");
    println!(
        "{} rules of a policy zone: read and built in {:?}, {:.1} octets a rule",
        rules.len(),
        start.elapsed(),
        rules.octets() as f64 / rules.len() as f64
    );
    let settings = rpz::Settings {
        id: "rpz.test".into(),
        policy: rpz::Override::Given,
        log: true,
        trusted: false,
        max_ttl: 60,
        ede: Ede::Blocked,
    };
    let zone = rpz::Zone { settings, rules: rules.into(), counters: Arc::default(), awaited: false };
    let four = [zone.clone(), zone.clone(), zone.clone(), zone.clone()];
    let client: IpAddr = [192, 0, 2, 1].into();
    let mut group = c.benchmark_group("rpz");
    group.throughput(Throughput::Elements(1));
    let half = |n: u64| listed(n / 2);
    for (id, zones, asked, hit) in [
        ("1e6 hit, the name itself", rpz::Snapshot::new([zone.clone()]), names(half), true),
        ("1e6 hit, two labels below", rpz::Snapshot::new([zone.clone()]), names(|n| format!("a.b.{}", half(n))), true),
        ("1e6 miss, three labels", rpz::Snapshot::new([zone]), names(|n| format!("www.{}.com", label(n))), false),
        ("four zones of 1e6, miss", rpz::Snapshot::new(four), names(|n| format!("www.{}.com", label(n))), false),
    ] {
        let ask = |name: &NameBuf| zones.question(name.as_ref(), client).hit.is_some();
        assert!(asked.iter().all(|name| ask(name) == hit), "{id}");
        let mut at = 0;
        group.bench_function(id, |b| {
            b.iter(|| {
                at = (at + 1) % asked.len();
                black_box(ask(black_box(&asked[at])))
            });
        });
    }
}

criterion_group!(benches, lists, rpz);

fn main() {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("scale") => scale::main(args.get(1..).unwrap_or_default()),
        _ => {
            benches();
            scale::main(&[]);
        }
    }
}
