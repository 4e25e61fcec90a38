//! Lists through the whole daemon: fetched past every gate, compiled and mapped, reloaded ten times a second with broken
//! files among good ones.

#[path = "lists_scale/changed.rs"]
mod changed;
mod daemon;
#[path = "lists_scale/memory.rs"]
mod memory;
#[path = "lists_scale/publisher.rs"]
mod publisher;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use daemon::{BINARY, Daemon, ENFORCE, code};
use publisher::{Publisher, Reply};
use serde_json::Value;

/// Longest that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn names(range: std::ops::Range<u32>) -> Vec<u8> {
    range.map(|n| format!("bad{n}.example\n")).collect::<String>().into_bytes()
}

trait Lists {
    fn refuses(&self, name: &str) -> bool;
    fn feed(&self) -> Value;
    fn fetched(&self) -> (String, String);
}

impl Lists for Daemon {
    fn refuses(&self, name: &str) -> bool {
        let (code, _, reply) = self.ask(name, 1);
        match code {
            0 => false,
            3 => true,
            other => panic!("{name}: code {other}: {reply:?}"),
        }
    }

    fn feed(&self) -> Value {
        self.json(&["lists", "show"])["fetched"][0].clone()
    }

    /// Orders a fetch, and says how it ended and what was wrong.
    fn fetched(&self) -> (String, String) {
        assert_eq!(self.json(&["lists", "fetch", "feed"])["ordered"], 1);
        let mut feed = Value::Null;
        until("the fetch has ended", || {
            feed = self.feed();
            let soon = staunch::clock::now().wall.shown + 30_000;
            feed["next"].as_u64().is_some_and(|next| next > soon)
        });
        let text = |field: &str| feed[field].as_str().unwrap_or_default().to_owned();
        (text("outcome"), text("problem"))
    }
}

#[test]
fn whatever_a_publisher_sends_the_last_good_copy_stays() {
    let publisher = Publisher::start(Reply::List(names(0..10), "v1"));
    let daemon = Daemon::start_with_metrics("127.0.0.1:0", &publisher.config(""));
    until("the list is in force", || daemon.refuses("www.bad0.example"));
    assert!(!daemon.refuses("good.example"), "the control");

    // Asked again with its words, the server has nothing newer.
    assert_eq!(daemon.fetched().0, "unchanged");
    let head = publisher.heads().last().expect("a request").to_ascii_lowercase();
    assert!(head.starts_with("get /list.txt?key=secret ") && head.contains("if-none-match: \"v1\""), "{head}");
    assert!(
        head.contains("if-modified-since: sat, 21 nov 2026") && head.contains("accept-encoding: identity"),
        "{head}"
    );

    let trap = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let elsewhere = format!("http://{}/moved", trap.local_addr().expect("address"));
    trap.set_nonblocking(true).expect("set");
    let wide: Vec<u8> = "bad0.example\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin = b"b\xfcro.example\nh\xf6fe.example\nx.example\n".to_vec();
    for (reply, outcome, problem) in [
        (Reply::Status(500), "failed", "answered 500"),
        (Reply::Status(404), "failed", "answered 404"),
        (Reply::Status(304), "unchanged", ""),
        (Reply::List(b"\x7fELF\0\0\0".to_vec(), "b"), "refused", "NUL octet"),
        (Reply::List([&[0xff, 0xfe][..], &wide].concat(), "w"), "refused", "UTF-16"),
        (Reply::List(latin, "l"), "refused", "not UTF-8"),
        (Reply::List(b"<html>\n<p>sorry</p>\n</html>\n".to_vec(), "h"), "refused", "cannot be read"),
        (Reply::List(Vec::new(), "e"), "refused", "no entries"),
        (Reply::List(b"# nothing\n".to_vec(), "n"), "refused", "no entries"),
        (Reply::List(vec![b'x'; 200_000], "x"), "refused", "longer than 65536 octets"),
        (Reply::List(names(0..100_000), "t"), "failed", "larger than 1048576"),
        (Reply::Endless, "failed", "larger than 1048576"),
        (Reply::Cut(names(0..10)), "failed", "broke off"),
        (Reply::Zipped, "failed", "encoding"),
        (Reply::Redirect(elsewhere), "failed", "another server"),
        (Reply::Redirect("/again".into()), "failed", "more often"),
        (Reply::Silent, "failed", "not reached"),
    ] {
        publisher.says(reply.clone());
        let (ended, said) = daemon.fetched();
        let shown = format!("{reply:?}").chars().take(60).collect::<String>();
        assert!(ended == outcome && said.contains(problem), "{shown}: {ended}: {said}");
        assert!(daemon.refuses("bad9.example"), "{shown}");
    }
    assert!(trap.accept().is_err(), "nobody went elsewhere");
    let failing = daemon.event(|event| event["notice"] == "list-failing");
    assert!(failing["text"].as_str().is_some_and(|text| text.contains("feed")), "{failing}");
    assert_eq!(daemon.json(&["status"])["lists"]["failing"], 1);
    assert_eq!(daemon.json(&["lists", "show"])["fetched"][0]["url"], format!("http://{}/list.txt", publisher.address));

    // On the same server a redirect is followed.
    publisher.says(Reply::Redirect("/moved".into()));
    assert_eq!(daemon.fetched(), ("fetched".into(), String::new()));
    until("the new version is in force", || daemon.refuses("moved.example"));
    assert!(!daemon.refuses("bad9.example"), "and the old one is not");
    daemon.event(|event| event["notice"] == "list-recovered");
    assert_eq!(code(&daemon.run(&["lists", "fetch", "other"])), 1, "no such list");
}

#[test]
fn what_grows_or_shrinks_too_much_waits_for_a_word() {
    let publisher = Publisher::start(Reply::List(names(0..100), "v1"));
    let mut daemon = Daemon::start(&publisher.config(""));
    until("the list is in force", || daemon.refuses("bad99.example"));

    publisher.says(Reply::List(names(0..201), "v2"));
    let (outcome, problem) = daemon.fetched();
    assert!(outcome == "held" && problem.contains("grown from 100 to 201"), "{outcome}: {problem}");
    assert!(!daemon.refuses("bad200.example") && daemon.refuses("bad0.example"));
    assert_eq!(daemon.fetched().0, "held", "and it is not sent again");
    assert!(publisher.heads().last().expect("a request").contains("\"v2\""));
    daemon.event(|event| event["notice"] == "list-held");

    let accept = |daemon: &Daemon, digest: &str| {
        daemon.run(&["lists", "accept", "feed", "--sha256", digest, "--reason", "they say so", "--by", "jane"])
    };
    let digest = daemon.feed()["held"]["sha256"].as_str().expect("a digest").to_owned();
    assert_eq!(code(&accept(&daemon, "0123456789")), 1, "not the version that waits");
    assert_eq!(code(&accept(&daemon, &digest[..4])), 2, "too little to know it by");
    assert_eq!(code(&accept(&daemon, &digest[..12])), 0);
    until("it is in force", || daemon.refuses("bad200.example"));
    let feed = daemon.feed();
    assert_eq!((&feed["held"], feed["good"]["accepted"][0].as_str()), (&Value::Null, Some("jane")));
    let accepted = daemon.event(|event| event["notice"] == "list-accepted");
    assert!(accepted["text"].as_str().is_some_and(|text| text.contains("jane: they say so")), "{accepted}");
    assert_eq!(code(&accept(&daemon, &digest[..12])), 1, "nothing waits any more");

    publisher.says(Reply::List(names(0..100), "v3"));
    let (outcome, problem) = daemon.fetched();
    assert!(outcome == "held" && problem.contains("shrunk from 201 to 100"), "{outcome}: {problem}");
    assert!(daemon.refuses("bad200.example"));
    publisher.says(Reply::List(names(0..210), "v4"));
    assert_eq!(daemon.fetched().0, "fetched", "the next good one goes before what waits");
    until("it is in force", || daemon.refuses("bad209.example"));
    assert_eq!(daemon.feed()["held"], Value::Null);

    // Without a server, and with the newest copy damaged, the one before it denies from the first query on.
    publisher.says(Reply::Status(503));
    let digest = daemon.feed()["good"]["sha256"].as_str().expect("a digest").to_owned();
    daemon.restart();
    assert!(daemon.refuses("bad209.example"));
    let copy = daemon.dir.path().join(format!("state/lists/feed-feed/{digest}.list"));
    std::fs::write(&copy, "bad0.example\n").expect("damaged");
    daemon.restart();
    assert!(daemon.refuses("bad200.example") && !daemon.refuses("bad209.example"));
    // And what the server is told we have is only what is whole.
    publisher.says(Reply::List(names(0..210), "v4"));
    assert_eq!(daemon.fetched().0, "fetched", "the same version, sent anew, takes the place of the one before it");
    assert!(!publisher.heads().last().expect("a request").contains("If-None-Match"));
    until("it is in force again", || daemon.refuses("bad209.example"));
    daemon.restart();
    assert!(daemon.refuses("bad209.example"));
}

#[test]
fn a_list_that_was_never_fetched_is_told_and_comes_later() {
    let publisher = Publisher::start(Reply::Status(503));
    let daemon = Daemon::start(&publisher.config(""));
    until("the first try has failed", || daemon.feed()["failures"].as_u64() > Some(0));
    assert_eq!(daemon.json(&["status"])["lists"]["missing"], 1);
    assert!(!daemon.refuses("bad0.example"));
    publisher.says(Reply::Status(304));
    let (ended, said) = daemon.fetched();
    assert!(ended == "failed" && said.contains("answered 304"), "nobody asked whether it has changed: {ended}: {said}");
    publisher.says(Reply::List(names(0..10), "v1"));
    assert_eq!(daemon.fetched().0, "fetched");
    until("it is in force", || daemon.refuses("bad0.example"));
    // What somebody is writing meanwhile is not put in force with it.
    let file = daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, format!("{text}\n[[rule]]\nid = \"half")).expect("written");
    publisher.says(Reply::List(names(0..12), "v2"));
    assert_eq!(daemon.fetched().0, "fetched");
    until("the next one is too", || daemon.refuses("bad11.example"));
    assert_eq!(code(&daemon.run(&["reload"])), 3, "the file itself does not load");
    assert!(daemon.refuses("bad11.example"));
}

#[test]
fn reloads_at_ten_hertz_under_load_never_tear_and_never_lose_the_good_one() {
    const ROUNDS: u32 = 60;
    let dir = tempfile::tempdir().expect("directory");
    let list = dir.path().join("mine.txt");
    let filler: String = (0..5000).map(|n| format!("filler{n}.zone{}.example\n", n % 97)).collect();
    let version = |n: u32| format!("always.example\nversion{n}.example\n{filler}");
    write(&list, version(0));
    let daemon = Daemon::start(&format!("{ENFORCE}\n[[list]]\nid = \"mine\"\npath = \"{}\"\n", list.display()));
    let good_config = std::fs::read_to_string(daemon.dir.path().join("staunch.toml")).expect("read");
    let asked = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    let (mut swapped, mut refused, mut newest) = (0, 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A table that is torn or gone would answer one of these the other way.
                    assert!(daemon.refuses("www.always.example"), "what every version denies");
                    assert!(!daemon.refuses("www.site.example"), "what none denies");
                    asked.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        let reloads = || {
            for n in 1..=ROUNDS {
                let start = Instant::now();
                let is_broken = n % 3 == 0;
                match n % 6 {
                    3 => write(&list, broken(n / 3)),
                    0 => write(&daemon.dir.path().join("staunch.toml"), &good_config[..good_config.len() - 9]),
                    _ => write(&list, version(n)),
                }
                let output = daemon.run(&["reload"]);
                assert_eq!(code(&output), if is_broken { 3 } else { 0 }, "round {n}: {output:?}");
                if is_broken {
                    refused += 1;
                    write(&daemon.dir.path().join("staunch.toml"), &good_config);
                } else {
                    swapped += 1;
                    newest = n;
                }
                assert!(
                    daemon.refuses(&format!("version{newest}.example")),
                    "round {n}: the newest good one is in force"
                );
                assert!(!daemon.refuses(&format!("version{}.example", newest + 1)), "round {n}");
                std::thread::sleep(Duration::from_millis(100).saturating_sub(start.elapsed()));
            }
        };
        // Askers stop whatever becomes of the reloads.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reloads));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!((swapped, refused), (40, 20));
    assert!(asked.load(Ordering::Relaxed) > 100, "there was a load");
}

/// Tools that ask for a reload after each of many changes must not keep lists being read for minutes behind the last one.
#[test]
fn reloads_asked_for_while_one_is_carried_out_are_one_behind_it() {
    const NAMES: u32 = 200_000;
    let dir = tempfile::tempdir().expect("directory");
    let list = dir.path().join("many.txt");
    let version = |n: u32| {
        let names: String = (0..NAMES).map(|i| format!("host{i}.zone{}.v{n}.example\n", i % 977)).collect();
        write(&list, format!("version{n}.example\n{names}"));
    };
    version(0);
    let page = format!("127.0.0.1:{}", daemon::port::free_port());
    let lists = format!("{ENFORCE}\n[[list]]\nid = \"many\"\npath = \"{}\"\n", list.display());
    let daemon = Daemon::start_with_metrics(&page, &lists);
    version(1);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| daemon.run(&["reload"]));
        std::thread::sleep(Duration::from_millis(300));
        let others: Vec<_> = (0..12).map(|_| scope.spawn(|| daemon.run(&["reload"]))).collect();
        for asked in std::iter::once(first).chain(others) {
            let output = asked.join().expect("joined");
            assert_eq!(code(&output), 0, "{output:?}");
        }
    });
    assert!(daemon.refuses("version1.example"), "what the file said when they asked");
    let mut stream = TcpStream::connect(&page).expect("the metrics page");
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("asked");
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).expect("the page");
    let done = metrics.lines().find_map(|line| line.strip_prefix("staunch_reloads_total{outcome=\"done\"} "));
    let done: f64 = done.expect("a count").parse().expect("a number");
    // The first, and one for all that came meanwhile; another for who came late on a busy machine.
    assert!((2.0..=4.0).contains(&done), "{done} reloads for 13 who asked");
}

#[test]
fn a_table_is_built_aside_and_mapped_and_the_service_answers_while_lists_are_read() {
    const NAMES: u32 = 150_000;
    let dir = tempfile::tempdir().expect("directory");
    let list = dir.path().join("many.txt");
    let text: String = (0..NAMES).map(|n| format!("0.0.0.0 host{n}.zone{}.example\n", n % 977)).collect();
    write(&list, &text);
    let second = dir.path().join("shared.txt");
    write(&second, "||host7.zone7.example^\n@@||fine.host7.zone7.example^\n||x.example^$script\n");
    let lists = format!(
        "\n[[list]]\nid = \"many\"\npath = \"{}\"\n\n[[list]]\nid = \"shared\"\npath = \"{}\"\n\
         category = \"malware\"\nsource = \"https://lists.example\"\n",
        list.display(),
        second.display()
    );
    let config = dir.path().join("staunch.toml");
    write(&config, format!("version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n{ENFORCE}{lists}"));
    let config = config.to_str().expect("text");

    let checked = output(&["check", config]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("150000 entries, hosts by its first lines"), "{said}");
    assert!(said.contains("adblock by its first lines, 1 exceptions, 1 lines passed over (filter-option 1)"), "{said}");
    let skipped = output(&["lists", "skipped", config]);
    let said = String::from_utf8_lossy(&skipped.stdout).into_owned();
    assert!(said.contains("shared.txt:3: an option that") && said.ends_with("||x.example^$script\n"), "{said}");
    let found = output(&["lists", "find", "host7.zone7.example", config, "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let lines: Vec<_> = found["lines"].as_array().expect("lines").iter().map(|l| (&l["list"], &l["line"])).collect();
    assert_eq!(format!("{lines:?}"), r#"[(String("many"), Number(8)), (String("shared"), Number(1))]"#);

    let daemon = Daemon::start(&format!("{ENFORCE}{lists}"));
    let state = daemon.dir.path().join("state");
    let tables = || {
        let entries = std::fs::read_dir(state.join("lists")).expect("lists").flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "table")).count()
    };
    assert_eq!(tables(), 1);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.child.id())).expect("maps");
    assert!(maps.lines().any(|line| line.contains("/lists/deny-") && line.contains(" r--")), "mapped read-only");
    assert!(daemon.refuses("host149999.zone518.example") && !daemon.refuses("a.host149999.zone518.example"));
    assert!(daemon.refuses("a.host7.zone7.example") && !daemon.refuses("fine.host7.zone7.example"));
    let explained = daemon.json(&["explain", "host7.zone7.example", "--session", "s1"]);
    assert_eq!(explained["rule"]["id"], "shared", "the one that reaches further: {explained}");
    assert_eq!(explained["list"]["lists"].to_string(), r#"["many","shared"]"#);
    assert_eq!(explained["list"]["category"], "malware");
    let today = explained["list"]["since"].as_str().expect("a day").to_owned();
    let status = daemon.json(&["status"]);
    assert_eq!((status["lists"]["names"].as_u64(), status["lists"]["skipped"].as_u64()), (Some(150_000), Some(1)));

    // A table for what comes next is built by another process; the reload finds it.
    write(&list, format!("{text}0.0.0.0 new.example\n"));
    let file = daemon.dir.path().join("staunch.toml");
    let built = output(&[
        "lists",
        "build",
        file.to_str().expect("text"),
        "--state-dir",
        state.to_str().expect("text"),
        "--json",
    ]);
    let built: Value = serde_json::from_slice(&built.stdout).expect("JSON");
    assert_eq!(built["names"], 150_001);
    assert!(built["octets"].as_f64() <= Some(40.0 * 150_001.0), "{}", built["octets"]);
    assert_eq!(tables(), 2);
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    assert!(daemon.refuses("new.example"));
    assert_eq!(tables(), 2, "nothing was compiled again");
    let since = daemon.json(&["explain", "host7.zone7.example", "--session", "s1"])["list"]["since"].clone();
    assert_eq!(since, today.as_str());

    // While the next one is compiled, everything else is answered.
    write(&list, text.replace(".example", ".invalid"));
    let mut reload = Command::new(BINARY);
    let mut reload = reload.arg("--socket").arg(daemon.socket()).arg("reload").spawn().expect("runs");
    let mut answered = 0;
    while reload.try_wait().expect("a child").is_none() {
        assert_eq!(daemon.json(&["status"])["schema"], 1);
        assert!(!daemon.refuses("www.site.example"));
        answered += 1;
    }
    assert!(reload.wait().expect("a child").success());
    assert!(answered >= 1);
    assert!(daemon.refuses("host7.zone7.invalid"));

    // A damaged table is made anew.
    let mut daemon = daemon;
    for entry in std::fs::read_dir(state.join("lists")).expect("lists").flatten() {
        if entry.path().extension().is_some_and(|e| e == "table") {
            let mut octets = std::fs::read(entry.path()).expect("read");
            let middle = octets.len() / 2;
            octets[middle] ^= 0xff;
            // As everything does here: beside, and renamed.
            let new = entry.path().with_extension("damaged");
            write(&new, octets);
            std::fs::rename(new, entry.path()).expect("renamed");
        }
    }
    daemon.restart();
    assert!(daemon.refuses("host7.zone7.invalid"));
}

/// Files that are no list.
fn broken(n: u32) -> Vec<u8> {
    match n % 5 {
        0 => b"always.example\n\0\0".to_vec(),
        1 => b"<html>\n<p>\n<p>\nalways.example\n".to_vec(),
        2 => vec![b'x'; 100_000],
        3 => "always.example\n".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ => (0u32..4000).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect(),
    }
}

fn output(args: &[&str]) -> std::process::Output {
    Command::new(BINARY).args(args).stdin(Stdio::null()).output().expect("runs")
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).expect("written");
}
