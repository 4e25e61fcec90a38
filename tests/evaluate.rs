//! `staunch evaluate`: on logs that the tests make themselves, beside a daemon that is asked the same, and on the open
//! corpora, whose figures `tests/evaluate/golden.json` holds.
//!
//! After a change of scoring, `STAUNCH_BLESS=1 cargo test --test evaluate` writes the golden file anew; the difference is
//! for review. Where the corpora are absent (`STAUNCH_CORPORA`, else `../shared/corpora`) that test prints `SKIPPED:`.

mod daemon;
#[path = "world/skip.rs"]
mod skip;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::{BINARY, Daemon, ENFORCE, chunk, code};
use serde_json::{Value, json};

/// False alarms that the golden file names, under each policy; it counts all of them.
const NAMED_ALARMS: usize = 40;

fn evaluate(args: &[&str]) -> Output {
    Command::new(BINARY).arg("evaluate").args(args).output().expect("runs")
}

fn report(args: &[&str]) -> Value {
    let output = evaluate(&[args, &["--json"]].concat());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// A log under construction.
#[derive(Default)]
struct Log(String);

impl Log {
    fn row(
        &mut self,
        t: impl Into<Option<f64>>,
        session: Option<&str>,
        qname: &str,
        qtype: &str,
        label: &str,
        tool: &str,
    ) {
        let row = json!({
            "t": t.into(), "session": session, "qname": qname, "qtype": qtype, "label": label, "tool": tool,
            "source": "made by a test",
        });
        let _ = writeln!(self.0, "{row}");
    }

    fn write(&self, dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        std::fs::write(&path, &self.0).expect("log");
        path.display().to_string()
    }
}

/// Ordinary hosts that a session might ask for.
const HOSTS: [&str; 6] = [
    "www.site.example",
    "static.site.example",
    "mail.office.example",
    "docs.office.example",
    "api.weather.example",
    "news.paper.example",
];

fn desk(log: &mut Log, session: &str, start: f64) {
    for (at, host) in HOSTS.iter().cycle().take(30).enumerate() {
        let t = start + 7.0 * at as f64;
        log.row(t, Some(session), host, "A", "benign", "desk");
        log.row(t, Some(session), host, "AAAA", "benign", "desk");
    }
}

#[test]
fn figures_of_a_small_log_are_those_that_can_be_counted_by_hand() {
    let dir = tempfile::tempdir().expect("directory");
    let mut log = Log::default();
    desk(&mut log, "desk-1", 1_000_000.0);
    // What never leaves is not scored: a special-use name, a private reverse zone, a transfer.
    log.row(1_000_500.0, Some("desk-1"), "printer.local", "A", "benign", "desk");
    log.row(1_000_501.0, Some("desk-1"), "1.0.168.192.in-addr.arpa", "PTR", "benign", "desk");
    log.row(1_000_502.0, Some("desk-1"), "site.example", "AXFR", "benign", "desk");
    for n in 0..60 {
        let name = format!("{}.evil.example", chunk(n));
        log.row(2_000_000.0 + n as f64, Some("leak-1"), &name, "A", "tunnel", "chunks");
    }
    // A clock: one bit whenever it is asked, at most once a floor.
    for n in 0..240 {
        log.row(3_000_000.0 + 30.0 * f64::from(n), Some("clock-1"), "www.clock.example", "A", "lowslow", "clock");
    }
    log.row(None, None, "www.list.example", "-", "benign", "list");
    log.row(None, None, &format!("{}.list.example", chunk(99)), "-", "benign-odd", "odd-list");
    let path = log.write(dir.path(), "log.jsonl");
    let bits = dir.path().join("bits.toml");
    std::fs::write(&bits, "clock = 1\nchunks = 120\n").expect("true bits");
    let report = report(&[&path, "--true-bits", &bits.display().to_string(), "--quick"]);

    assert_eq!(report["schema"], 1);
    let corpus = &report["corpus"];
    assert_eq!((&corpus["sessions"], &corpus["with_attack"]), (&json!(3), &json!(2)));
    assert_eq!((&corpus["local"], &corpus["rejected"], &corpus["listed"]), (&json!(2), &json!(1), &json!(2)));
    let benign = &corpus["benign"];
    assert_eq!(benign["judged"], 60);
    assert_eq!(benign["refused"], 0, "{:#}", report["false_alarms"]);
    // A host comes back after 42 seconds, and is at hand then; after 84 it is not, and is asked or held.
    let number = |field: &str| benign[field].as_u64().expect("a count");
    assert_eq!(number("forwarded") + number("held") + number("cached"), 60);
    assert!(number("cached") >= 20 && number("forwarded") >= 12, "each host at first, by both types: {benign:#}");
    assert_eq!(report["rates"]["benign"][0]["pairs_refused"]["of"], 4, "one pair a domain");
    assert_eq!(report["false_alarms"], json!([]));

    let attack = |session: &str| {
        let all = report["attacks"].as_array().expect("attacks");
        all.iter().find(|attack| attack["session"] == session).expect("listed").clone()
    };
    let leak = attack("leak-1");
    let (first, closed) = (&leak["first_action"], &leak["quarantine"]);
    assert!(first.as_u64().is_some_and(|query| query <= 8), "{leak:#}");
    assert!(closed.as_u64() >= first.as_u64() && closed.as_u64().is_some_and(|query| query <= 40), "{leak:#}");
    let forwarded = leak["forwarded"].as_u64().expect("a count");
    assert_eq!(forwarded, first.as_u64().expect("an action") - 1, "a refused tenant stays refused");
    assert_eq!(leak["bytes_out"], forwarded * 15, "120 bits a query");
    assert!(leak["residual"].is_null(), "it was stopped");

    let clock = attack("clock-1");
    assert!(clock["quarantine"].is_null(), "repeats never close a session");
    let sent = clock["forwarded"].as_u64().expect("a count") + clock["ticks"].as_u64().unwrap_or(0);
    assert!((1..=120).contains(&sent), "every second one is at hand: {clock:#}");
    assert_eq!(clock["bytes_out"], sent.div_ceil(8), "a bit for each, however it left");
    let residual = &clock["residual"];
    assert!(residual["bits_per_hour"].as_f64().is_some_and(|bits| bits <= 61.0), "{residual:#}");
    assert!(residual["worst_hour_bits"].as_f64() >= residual["last_hour_bits"].as_f64(), "{residual:#}");

    let looks = report["first_look"].as_array().expect("looks");
    assert_eq!(looks.len(), 2);
    assert!(looks.iter().all(|look| look["names"] == 1));

    // A longer memory forwards less; the type of session is what was asked for.
    let longer = self::report(&[&path, "--quick", "--floor", "600", "--type", "unannounced"]);
    assert_eq!(longer["policy"]["type"], "unannounced");
    assert!(longer["corpus"]["benign"]["forwarded"].as_u64() < benign["forwarded"].as_u64());
}

#[test]
fn a_mixed_session_is_told_apart_by_its_rows() {
    let dir = tempfile::tempdir().expect("directory");
    let mut log = Log::default();
    desk(&mut log, "both", 1_000_000.0);
    for n in 0..60 {
        let name = format!("{}.evil.example", chunk(n));
        log.row(1_000_050.0 + n as f64, Some("both"), &name, "A", "tunnel", "chunks");
    }
    let path = log.write(dir.path(), "log.jsonl");
    let report = report(&[&path, "--quick"]);
    assert!(report["attacks"][0]["quarantine"].is_u64(), "{report:#}");
    assert_eq!(report["false_alarms"], json!([]), "what a closed session loses is no false alarm");
    let benign = &report["rates"]["benign"][0];
    assert_eq!(benign["pairs_refused"]["events"], 0);
    assert!(benign["pairs_collateral"].as_u64() > Some(0), "it loses names all the same: {benign:#}");
    assert_eq!(benign["sessions_quarantined"]["of"], 0, "a session with an attack is not among the benign ones");
}

#[test]
fn policies_are_compared_and_their_refusals_named() {
    let dir = tempfile::tempdir().expect("directory");
    let mut log = Log::default();
    desk(&mut log, "desk-1", 1_000_000.0);
    let path = log.write(dir.path(), "log.jsonl");
    let plain = dir.path().join("plain.toml");
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n";
    std::fs::write(&plain, text).expect("configuration");
    let strict = dir.path().join("strict.toml");
    let rule = "[[rule]]\nid = \"no-office\"\naction = \"deny\"\nnames = [\"office.example\"]\nowner = \"sec\"\n\
                reason = \"test\"\nreview_by = \"2099-01-01\"\n";
    std::fs::write(&strict, format!("{text}{rule}")).expect("configuration");
    let (plain, strict) = (plain.display().to_string(), strict.display().to_string());

    let report = report(&[&path, "--quick", "--config", &plain, "--also", &strict]);
    assert_eq!(report["false_alarms"], json!([]), "the mode of the file is monitor, its verdicts are applied");
    let other = report["compared"].as_array().and_then(|all| all.iter().find(|other| other["policy"] == *strict));
    let other = other.unwrap_or_else(|| panic!("compared with the other file: {report:#}"));
    let [alarm] = &other["false_alarms"].as_array().expect("alarms")[..] else { panic!("one pair: {other:#}") };
    assert_eq!((&alarm["tenant"], &alarm["reason"]), (&json!("office.example"), &json!("deny-rule")));
    assert_eq!(
        (&alarm["rule"], &alarm["query"], &alarm["session"]),
        (&json!("no-office"), &json!(5), &json!("desk-1"))
    );
    let rates = &other["rates"]["benign"][0];
    assert_eq!((&rates["pairs_refused"]["events"], &rates["pairs_judged"]["events"]), (&json!(1), &json!(0)));

    let words = evaluate(&[&path, "--quick", "--config", &plain, "--also", &strict]);
    let words = String::from_utf8(words.stdout).expect("UTF-8");
    assert!(words.contains("deny-rule no-office") && words.contains("pairs refused"), "{words}");
}

#[test]
fn variants_leave_the_policy_as_it_was_and_are_drawn() {
    let dir = tempfile::tempdir().expect("directory");
    let mut log = Log::default();
    desk(&mut log, "desk-1", 1_000_000.0);
    for n in 0..60 {
        log.row(2_000_000.0 + n as f64, Some("leak-1"), &format!("{}.evil.example", chunk(n)), "A", "tunnel", "chunks");
    }
    let path = log.write(dir.path(), "log.jsonl");
    let svg = dir.path().join("plot.svg");
    let whole = report(&[&path, "--plot", &svg.display().to_string()]);
    let quick = report(&[&path, "--quick"]);
    for field in ["tools", "attacks", "rates", "ledger"] {
        assert_eq!(whole[field], quick[field], "{field}");
    }
    let ablation = whole["ablation"].as_array().expect("variants");
    assert_eq!(ablation.len(), 1 + staunch_scoring::Signal::COUNT);
    let of = |signal: &str| {
        ablation.iter().find(|row| row["without"] == signal).expect("a row")["tunnel_worst_bytes"].as_u64()
    };
    assert!(of("subdomain-fan-out") >= ablation[0]["tunnel_worst_bytes"].as_u64(), "less evidence stops no earlier");
    let sweep = whole["sweep"].as_array().expect("points");
    assert_eq!(sweep.iter().filter(|point| point["in_force"] == true).count(), 1);
    let leaks: Vec<_> = sweep.iter().map(|point| point["tunnel_worst_bytes"].as_u64().expect("octets")).collect();
    assert!(leaks.is_sorted(), "a higher threshold never leaks less: {leaks:?}");
    let drawn = std::fs::read_to_string(svg).expect("a file");
    assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n") && drawn.contains("in force"));
}

#[test]
fn the_daemon_stops_the_same_queries() {
    let daemon = Daemon::start(ENFORCE);
    let mut log = Log::default();
    let mut stopped = Vec::new();
    for n in 0..40 {
        let name = format!("{}.evil.example", chunk(n));
        daemon.ask(&name, 1);
        let event = daemon.event(|event| event["qname"] == *name);
        let time: jiff::Timestamp = event["time"].as_str().expect("a time").parse().expect("RFC 3339");
        log.row(time.as_millisecond() as f64 / 1e3, Some("s1"), &name, "A", "tunnel", "chunks");
        if event["verdict"] != "answer" {
            stopped.push((n + 1, event["reason"].clone()));
        }
        if event["verdict"] == "quarantine" {
            break;
        }
    }
    // Rows for what is asked after that: the daemon may have closed the session a query later, see below.
    let later = jiff::Timestamp::now().as_second() as f64 + 1e6;
    for n in 40..42 {
        log.row(later, Some("s1"), &format!("{}.evil.example", chunk(n)), "A", "tunnel", "chunks");
    }
    let path = log.write(daemon.dir.path(), "log.jsonl");
    let config = daemon.dir.path().join("staunch.toml").display().to_string();
    let report = report(&[&path, "--quick", "--config", &config]);
    let attack = &report["attacks"][0];
    let (first, last) = (stopped.first().expect("stopped"), stopped.last().expect("stopped"));
    assert_eq!((&attack["first_action"], &attack["first_reason"]), (&json!(first.0), &first.1));
    assert_eq!(attack["quarantine_reason"], last.1);
    // Time is paid for by the second, and a second of the daemon's clock begins elsewhere than one of the log's.
    let apart = attack["quarantine"].as_u64().expect("closed").abs_diff(last.0);
    assert!(apart <= 1, "{attack:#} beside {stopped:?}");
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    let dir = tempfile::tempdir().expect("directory");
    let mut log = Log::default();
    log.row(1.0, Some("s"), "a.example", "A", "benign", "x");
    log.row(2.0, Some("s"), "a.example", "A", "harmless", "x");
    let path = log.write(dir.path(), "log.jsonl");
    let output = evaluate(&[&path]);
    assert_eq!(code(&output), 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("log.jsonl:2: ") && said.contains("harmless"), "{said}");

    let config = dir.path().join("bad.toml");
    std::fs::write(&config, "version = 7\n").expect("configuration");
    assert_eq!(code(&evaluate(&[&path, "--config", &config.display().to_string()])), 3);
    assert_eq!(code(&evaluate(&[])), 2);
    std::fs::write(&path, "").expect("log");
    let output = evaluate(&[&path, "--json"]);
    assert_eq!(code(&output), 1);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(said["error"].as_str().is_some_and(|error| error.contains("no rows")), "{said}");
}

#[test]
fn the_open_corpora_give_the_golden_figures() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpora = std::env::var_os("STAUNCH_CORPORA").map_or_else(|| manifest.join("../shared/corpora"), PathBuf::from);
    if !corpora.join("benign_seq.jsonl.gz").is_file() {
        return skip::skipped("no corpora; set STAUNCH_CORPORA");
    }
    let golden = manifest.join("tests/evaluate/golden.json");
    let bits = manifest.join("tests/evaluate/true-bits.toml");
    let mut report = report(&[&corpora.display().to_string(), "--true-bits", &bits.display().to_string()]);
    shorten(&mut report);
    for other in report["compared"].as_array_mut().into_iter().flatten() {
        shorten(other);
    }
    let got = serde_json::to_string_pretty(&report).expect("JSON") + "\n";
    if std::env::var_os("STAUNCH_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&golden, got).expect("golden file");
        return;
    }
    let want = std::fs::read_to_string(&golden).expect("tests/evaluate/golden.json");
    if got != want {
        let lines = want.lines().zip(got.lines()).enumerate().filter(|(_, (want, got))| want != got);
        let shown: Vec<_> =
            lines.take(30).map(|(at, (want, got))| format!("{}: {} -> {}", at + 1, want.trim(), got.trim())).collect();
        panic!("figures have moved; STAUNCH_BLESS=1 writes them anew, for review:\n{}", shown.join("\n"));
    }
}

/// Keeps the first false alarms and the number of all.
fn shorten(report: &mut Value) {
    if let Some(alarms) = report["false_alarms"].as_array_mut() {
        let all = alarms.len();
        alarms.truncate(NAMED_ALARMS);
        report["false_alarms_in_all"] = all.into();
    }
}
