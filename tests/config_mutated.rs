//! A configuration and the files it names, damaged in a thousand ways: each is loaded or refused in words that lead to the place,
//! and a running service that is refused one goes on as before. `STAUNCH_SEED` repeats a run.

mod daemon;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use daemon::{Daemon, chunk, code};
use staunch::config::{ConfigError, Environment, load_in};

/// Loaded here.
const CASES: u64 = 1000;
/// Put to the running service.
const RELOADS: u64 = 60;

/// A plain generator, so that a failure can be run again.
struct Chance(u64);

impl Chance {
    fn of(seed: u64, round: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round.wrapping_mul(0xd134_2543_de82_ef95) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    fn of_these<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn seed() -> u64 {
    let seed = std::env::var("STAUNCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_129);
    println!("seed {seed}");
    seed
}

/// What is found under a name.
#[derive(Clone)]
enum Found {
    Octets(Vec<u8>),
    Directory,
    Nothing,
}

type Files = BTreeMap<&'static str, Found>;

const POLICY: &str = r#"[policy]
mode = "enforce"

[enforce]
backend = "dry-run"
min_pin_seconds = 60
max_pin_seconds = 3600

[answer]
cache_entries = 4096
floor_seconds = 60
max_ttl_seconds = 3600
[decoy]
enabled = false

[sinkhole]
contact = "security@example.com"
negative_ttl_seconds = 5

[dnssec]
validate = false

[[session]]
id = "s1"
addresses = ["127.0.0.1"]
type = "interactive"
owner = "team-a"

[profile.batch]
unlisted = "refuse"
qtypes = ["A", "AAAA"]
ports = ["tcp/443"]

[profile.batch.budgets]
session = 4096

[[rule]]
id = "sites"
action = "allow"
names = ["=www.site.example", "*.cdn.example"]
budget_bits = 4096
owner = "web"
reason = "the job"
review_by = "2099-01-01"

[[rule]]
id = "no-dumps"
action = "deny"
names = ["dump.example"]
owner = "sec"
reason = "dumps"
review_by = "2099-01-01"

[[list]]
id = "tunnels"
path = "tunnels.txt"
format = "domains"
category = "tunnel"

[[list]]
id = "hosts"
path = "hosts.txt"
format = "hosts"

[[list]]
id = "new"
path = "new.txt"
format = "nrd"
action = "age"

[[pack]]
id = "own"
path = "pack.toml"

[[rpz]]
name = "policy.test"
file = "policy.zone"

[[zone]]
name = "corp.test"
file = "corp.zone"
"#;

const PACK: &str = r#"version = 1
[[entry]]
id = "own-telemetry"
class = "telemetry"
names = ["telemetry.example"]
budget_bits = 2048
qtypes = ["A"]
owner = "ops"
reason = "numbered hosts"
review_by = "2099-01-01"
"#;

/// A configuration that works, with a file of every kind that one can name without somebody to fetch it from.
fn good(head: &str) -> Files {
    let file = |text: &str| Found::Octets(text.as_bytes().to_vec());
    Files::from([
        ("staunch.toml", file(&format!("version = 1\n{head}\n{POLICY}"))),
        ("tunnels.txt", file("# tunnels\ntunnel.example\nworse.example\n=exact.example\nlast.example\n")),
        ("hosts.txt", file("0.0.0.0 one.example two.example\n0.0.0.0 three.example\n")),
        ("new.txt", file("new.example,2026-11-20\nolder.example,2026-11-11\nfirst.example,2026-11-12\n")),
        ("pack.toml", file(PACK)),
        (
            "policy.zone",
            file(
                "$TTL 300\n@ SOA ns.policy.test. hostmaster.policy.test. 1 60 60 60 60\n@ NS ns.policy.test.\n\
                 blocked.example CNAME .\n*.blocked.example CNAME .\nempty.example CNAME *.\n32.9.113.0.203.rpz-ip CNAME .\n",
            ),
        ),
        (
            "corp.zone",
            file(
                "$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A 192.0.2.1\nwww IN A 203.0.113.8\n",
            ),
        ),
    ])
}

fn put(dir: &Path, name: &str, what: &Found) {
    let path = dir.join(name);
    if path.is_dir() {
        std::fs::remove_dir(&path).expect("removed");
    }
    match what {
        Found::Octets(octets) => std::fs::write(&path, octets).expect("written"),
        Found::Nothing | Found::Directory => drop(std::fs::remove_file(&path)),
    }
    if matches!(what, Found::Directory) {
        std::fs::create_dir(&path).expect("a directory");
    }
}

fn write(dir: &Path, files: &Files) {
    files.iter().for_each(|(name, what)| put(dir, name, what));
}

/// Damage of one kind in one place. Gives its name.
fn damage(files: &mut Files, chance: &mut Chance) -> String {
    let names: Vec<&'static str> = files.keys().copied().collect();
    let name = if chance.below(2) == 0 { "staunch.toml" } else { chance.of_these(&names) };
    let Some(Found::Octets(octets)) = files.get(name).cloned() else { return format!("{name}: gone before") };
    let mut lines: Vec<Vec<u8>> = octets.split_inclusive(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
    let (one, other) = (chance.below(lines.len()), chance.below(lines.len()));
    let within = |line: &[u8], chance: &mut Chance| chance.below(line.len());
    let kind = chance.below(16);
    if lines.is_empty() && kind < 12 {
        return format!("{name}: empty");
    }
    let what = match kind {
        0 => {
            let at = within(&octets, chance);
            lines = vec![octets[..at].to_vec()];
            "cut"
        }
        1 => {
            lines.insert(other, lines[one].clone());
            "a line twice"
        }
        2 => {
            lines.swap(one, other);
            "lines swapped"
        }
        3 => {
            lines.remove(one);
            "a line less"
        }
        4 => {
            let end = (one + 1 + chance.below(8)).min(lines.len());
            lines.drain(one..end);
            "lines less"
        }
        5 => {
            let wrong = ["7", "\"word\"", "[]", "{}", "true", "[[1]]", "2026-02-30", "nan", "-0.0", "\"\"", "''''''"];
            value(&mut lines[one], chance.of_these(&wrong));
            "a wrong type"
        }
        6 => {
            let numbers =
                ["-1", "0", "1", "4294967296", "18446744073709551615", "99999999999999999999", "1e308", "inf"];
            value(&mut lines[one], chance.of_these(&numbers));
            "a number out of range"
        }
        7 => {
            let at = within(&lines[one], chance);
            let any = [chance.below(32) as u8, 0, chance.below(128) as u8, 0x1b];
            lines[one].splice(at..at, any);
            "binary octets"
        }
        8 => {
            let at = within(&lines[one], chance);
            let bad: &[u8] =
                chance.of_these(&[&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"caf\xe9", b"\xf4\x90\x80\x80"]);
            lines[one].splice(at..at, bad.iter().copied());
            "no UTF-8"
        }
        9 => {
            let at = within(&lines[one], chance);
            let token = chance.of_these(&[
                "[", "]", "\"", "=", "\n", "[[", "{", ",", "'''", "\\", ".", "..", "*", "@", "(", ";", "#",
            ]);
            lines[one].splice(at..at, token.bytes());
            "a stray token"
        }
        10 => {
            let from = within(&lines[one], chance);
            let to = from + chance.below(lines[one].len() - from);
            lines[one].drain(from..to);
            "part of a line less"
        }
        11 => {
            let long = "x".repeat(300 << 10);
            let at = within(&lines[one], chance);
            lines[one].splice(at..at, long.bytes());
            "an endless line"
        }
        12 => {
            let any = (0..1 + chance.below(4096)).map(|_| chance.below(256) as u8).collect();
            lines = vec![any];
            "octets of any kind"
        }
        13 => {
            files.insert(name, Found::Nothing);
            return format!("{name}: vanished");
        }
        14 => {
            files.insert(name, Found::Directory);
            return format!("{name}: a directory");
        }
        _ => {
            let ways: &[&[u8]] =
                &[b"", b"\n\n\n", b"\xef\xbb\xbf# a mark\n", b"\xff\xfeh\0i\0", b"<html><body>404</body></html>\n"];
            lines = vec![chance.of_these(ways).to_vec()];
            "something else"
        }
    };
    files.insert(name, Found::Octets(lines.concat()));
    format!("{name}: {what}")
}

/// Another value behind the `=` of a line, or in place of the last word.
fn value(line: &mut Vec<u8>, text: &str) {
    let at = line.iter().position(|octet| *octet == b'=').or_else(|| line.iter().rposition(|octet| *octet == b' '));
    line.truncate(at.map_or(0, |at| at + 1));
    line.extend_from_slice(format!(" {text}\n").as_bytes());
}

/// Files damaged in one to three places, and how.
fn damaged(good: &Files, chance: &mut Chance) -> (Files, Vec<String>) {
    let mut files = good.clone();
    let what = (0..1 + chance.below(3)).map(|_| damage(&mut files, chance)).collect();
    (files, what)
}

/// An error leads to its place: one of the files, a line of it, what is wrong, what to do.
fn leads_to_its_place(error: &ConfigError, dir: &Path, files: &Files, case: &str) {
    let told = format!("{case}: {error}");
    let place = PathBuf::from(&error.file);
    let name = place.strip_prefix(dir).unwrap_or(&place);
    let found = files.iter().find(|(file, _)| Path::new(file) == name);
    let lines = match found {
        Some((_, Found::Octets(octets))) => octets.iter().filter(|octet| **octet == b'\n').count() as u32 + 1,
        Some(_) => 0,
        // A file that damage has named, or a shipped one.
        None => u32::MAX,
    };
    assert!(error.line <= lines, "{told}: of {lines} lines");
    // Where no line is named the file as a whole is meant, and the words say so.
    let whole = ["cannot be read", "more mistakes", "zone `", "larger than", "not a regular file", "no SOA"];
    assert!(error.line > 0 || whole.iter().any(|word| error.problem.contains(word)), "{told}: which line?");
    assert!(!error.problem.trim().is_empty() && !error.remedy.trim().is_empty(), "{told}");
    assert!(!error.to_string().contains(char::is_control), "{told:?}: something of it would reach a terminal");
    assert!(error.to_string().len() < 4096, "{case}: {} octets are told", error.to_string().len());
}

fn environment(state: &Path) -> Environment {
    Environment {
        resolv_conf: None,
        state_home: state.into(),
        state_dir: Some(state.into()),
        wall: 1_795_262_400_000,
        entropy: [7; 24],
        keep_tables: false,
        checking: false,
    }
}

#[test]
fn a_thousand_damaged_configurations_load_or_say_where_and_why_not() {
    let (dir, seed) = (tempfile::tempdir().expect("a directory"), seed());
    let environment = environment(&dir.path().join("state"));
    let good =
        good("[server]\nlisten = [\"127.0.0.1:5300\"]\nmetrics = \"off\"\n[upstream]\nservers = [\"192.0.2.53\"]\n");
    let write = |files: &Files| write(dir.path(), files);
    let path = dir.path().join("staunch.toml");
    write(&good);
    load_in(&path, &environment).unwrap_or_else(|errors| panic!("the one that works: {errors:#?}"));
    let (mut loaded, mut refused, mut kinds) = (0, 0, BTreeSet::new());
    let mut told = BTreeMap::<String, u32>::new();
    for round in 0..CASES {
        let (files, what) = damaged(&good, &mut Chance::of(seed, round));
        write(&files);
        let case = format!("round {round}, {}", what.join(", "));
        let outcome = std::panic::catch_unwind(|| load_in(&path, &environment).map(drop));
        let outcome = outcome.unwrap_or_else(|_| panic!("{case}: a panic"));
        kinds.extend(what.iter().filter_map(|what| Some(what.split_once(": ")?.1.to_owned())));
        match outcome {
            Ok(()) => loaded += 1,
            Err(errors) => {
                refused += 1;
                assert!(!errors.is_empty(), "{case}: refused without a word");
                for error in &errors {
                    leads_to_its_place(error, dir.path(), &files, &case);
                    let file = Path::new(&error.file).file_name().map(|name| name.to_string_lossy().into_owned());
                    *told.entry(file.unwrap_or_default()).or_default() += 1;
                }
            }
        }
    }
    println!(
        "FIGURE: of {CASES} damaged configurations {refused} are refused and {loaded} load; mistakes told by file: {told:?}"
    );
    assert!(refused > CASES / 3 && loaded > CASES / 20, "{refused} refused, {loaded} loaded");
    assert!(kinds.len() >= 16, "every kind of damage was done: {kinds:?}");
    for file in ["staunch.toml", "pack.toml", "policy.zone", "corp.zone"] {
        assert!(told.contains_key(file), "mistakes in {file} are told by its own lines: {told:?}");
    }
    write(&good);
    assert!(load_in(&path, &environment).is_ok());
}

/// The running service and its page for machines.
struct Service {
    daemon: Daemon,
    page: u16,
}

impl Service {
    fn metric(&self, series: &str) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.page)).expect("the metrics page");
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the page");
        let named = |line: &&str| line.rsplit_once(' ').is_some_and(|(name, _)| name.trim_end_matches("{}") == series);
        let line = page.lines().find(named);
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {series} in {page}"))
    }

    /// A part of each kind of the policy that works is in force: rules, lists, policy zones, local zones.
    fn is_as_before(&self, case: &str) {
        for (name, rcode, answers) in [
            ("www.site.example", 0, 1),
            ("a.dump.example", 3, 0),
            ("x.tunnel.example", 3, 0),
            ("three.example", 3, 0),
            ("y.blocked.example", 3, 0),
            ("www.corp.test", 0, 1),
            ("absent.corp.test", 3, 0),
        ] {
            let (found, count, reply) = self.daemon.ask(name, 1);
            assert_eq!((found, count), (rcode, answers), "{case}: {name}: {reply:?}");
        }
    }

    fn digest(&self) -> String {
        self.daemon.json(&["status"])["digest"].as_str().expect("a digest").to_owned()
    }
}

#[test]
fn a_service_that_is_refused_a_reload_goes_on_as_before_and_says_so() {
    let (dir, seed) = (tempfile::tempdir().expect("a directory"), seed());
    let page = daemon::port::free_port();
    let good = good(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:{page}\"\n[upstream]\nservers = [\"{}\"]\n",
        daemon::upstream()
    ));
    write(dir.path(), &good);
    let config = dir.path().join("staunch.toml");
    let (child, address) = Daemon::spawn(dir.path(), Some(&config));
    let service = Service { daemon: Daemon { child, dir, address }, page };
    let write = |files: &Files| write(service.daemon.dir.path(), files);
    let environment = environment(&service.daemon.dir.path().join("state"));
    let digest = service.digest();
    service.is_as_before("at the start");
    let (mut done, mut invalid, mut restart) = (0u32, 0u32, 0u32);
    for round in 0..RELOADS {
        // Others than those that were loaded alone.
        let (files, what) = damaged(&good, &mut Chance::of(seed, CASES + round));
        write(&files);
        let case = format!("round {round}, {}", what.join(", "));
        let expected = load_in(&config, &environment).map(|(loaded, _)| loaded.digest().to_owned());
        let output = service.daemon.run(&["reload"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_done = code(&output) == 0;
        match expected {
            Ok(expected) if is_done => {
                done += 1;
                assert_eq!(service.digest(), expected, "{case}");
                write(&good);
                assert_eq!(code(&service.daemon.run(&["reload"])), 0, "{case}: back to the good one");
                done += 1;
            }
            // It loads, and changes what is taken at start alone.
            Ok(_) => {
                restart += 1;
                assert!(said.contains("restart"), "{case}: {said}");
            }
            Err(errors) => {
                invalid += 1;
                assert!(said.contains(&errors[0].problem), "{case}: {said}");
            }
        }
        if !is_done {
            assert_eq!(code(&output), 3, "{case}: {output:?}");
            assert!(!said.contains("see the log"), "{case}: a panic: {said}");
            assert_eq!(service.metric("staunch_reload_refused"), 1.0, "{case}");
        }
        assert_eq!(service.digest(), digest, "{case}");
        service.is_as_before(&case);
        let told = ["done", "refused"].map(|o| service.metric(&format!("staunch_reloads_total{{outcome=\"{o}\"}}")));
        assert_eq!(told, [f64::from(done), f64::from(invalid + restart)], "{case}");
    }
    println!(
        "FIGURE: of {RELOADS} damaged reloads {invalid} do not load and {restart} need a restart; all left what was in force"
    );
    assert!(u64::from(invalid) > RELOADS / 3 && done > 2, "{invalid} refused, {done} put in force");

    // The last word is a good one, and it is another: a rule more.
    let mut next = good.clone();
    let Some(Found::Octets(text)) = next.get("staunch.toml").cloned() else { unreachable!("it is there") };
    let deny = "[[rule]]\nid = \"late\"\naction = \"deny\"\nnames = [\"late.example\"]\nowner = \"o\"\nreason = \"r\"\n\
                review_by = \"2099-01-01\"\n";
    assert_eq!(service.daemon.ask("www.late.example", 1).0, 0);
    next.insert("staunch.toml", Found::Octets([text.as_slice(), b"\n", deny.as_bytes()].concat()));
    write(&next);
    let output = service.daemon.run(&["reload"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(service.metric("staunch_reload_refused"), 0.0);
    assert_eq!(service.daemon.ask("www.late.example", 1).0, 3);
    service.is_as_before("a rule more");
    // And it still closes a session that tells too much.
    for i in 0..20 {
        service.daemon.ask(&format!("{}.evil.example", chunk(i)), 1);
    }
    assert_eq!(service.daemon.json(&["session", "show", "s1"])["session"]["state"], "quarantined");
}
