//! What the documents say is there: commands and options, exit codes, words of events and alerts, metrics.
//!
//! Every name in them is held against the binary and the types it is made from, in both directions where the document says
//! that it has them all.

mod daemon;

#[path = "docs/commands.rs"]
mod commands;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::Daemon;
use serde::de::DeserializeOwned;
use staunch::cli::Exit;
use staunch::event::{AlertKind, NoticeKind, Source, Verdict};
use staunch::model::Reason;
use staunch_scoring::Signal;

/// A file of the repository.
fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table whose head has these cells, without the backticks around a cell.
fn table(text: &str, head: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = text.lines();
    lines.find(|line| line.starts_with('|') && cells(line) == head).unwrap_or_else(|| panic!("no table {head:?}"));
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The words in backticks of the first column behind `heading`.
fn words_behind(text: &str, heading: &str) -> BTreeSet<String> {
    let behind = text.split_once(heading).unwrap_or_else(|| panic!("nothing says {heading}")).1;
    let rows = behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`')).map(|(word, _)| word.to_owned()).collect()
}

/// Every word that a type is written as: what its reader expects in the place of one that is none.
fn all_of<T: DeserializeOwned>() -> BTreeSet<String> {
    let refused = serde_json::from_str::<T>("\"?\"").err().expect("`?` is none of them").to_string();
    let expected = refused.split_once("expected ").expect("the reader names what it expects").1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn events_and_alerts_have_the_words_that_are_documented() {
    let text = read("docs/EVENTS.md");
    for (heading, words) in [
        ("**`verdict` and `would`**:", all_of::<Verdict>()),
        ("**`source`**:", all_of::<Source>()),
        ("**`reason`**:", all_of::<Reason>()),
        ("| `notice` | meaning |", all_of::<NoticeKind>()),
    ] {
        assert!(words.len() > 3, "{heading} {words:?}");
        assert_eq!(words_behind(&text, heading), words, "{heading}");
    }
    let kinds = table(&text, &["field", "type", "what it says"]);
    assert!(kinds.iter().any(|row| row[0] == "`schema`"), "the tables of fields are read: {kinds:?}");
    let alerts = text.split_once("| `kind` | text |").expect("the kinds of alert").1.lines().next().unwrap_or_default();
    for kind in all_of::<AlertKind>() {
        assert!(alerts.contains(&format!("`{kind}`: ")), "{kind} is not in {alerts}");
    }
    let signals: BTreeMap<String, String> = table(&text, &["signal", "family", "unit of `value`"])
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].trim_matches('`').to_owned()))
        .collect();
    let family = |signal: Signal| serde_json::to_value(signal.family()).expect("a word").as_str().map(str::to_owned);
    let ours = Signal::ALL.map(|signal| (signal.as_str().to_owned(), family(signal).expect("a word")));
    assert_eq!(signals, ours.into_iter().collect());
}

/// Each code, so that a further one does not compile before it stands here.
fn exit_codes() -> Vec<u8> {
    use Exit::*;
    let all = [Ok, Failed, Usage, Invalid, Unreachable, Denied, Quarantined, Open, Inconclusive, Behind];
    for exit in all {
        match exit {
            Ok | Failed | Usage | Invalid | Unreachable | Denied | Quarantined | Open | Inconclusive | Behind => {}
        }
    }
    all.map(|exit| exit as u8).to_vec()
}

#[test]
fn the_readme_has_every_exit_code() {
    let text = read("README.md").replace('\n', " ");
    let said =
        text.split_once("Exit codes: ").expect("the exit codes").1.split_once(". ").expect("an end").0.to_owned();
    // "0 done, ... 10 refused and 11 quarantined ...": numbers that a word follows.
    let words: Vec<&str> = said.split_whitespace().collect();
    let codes: Vec<u8> = words.windows(2).filter_map(|pair| pair[0].parse().ok()).collect();
    assert_eq!(codes, exit_codes(), "{said}");
}

#[test]
fn every_command_in_the_documents_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = Vec::new();
    let mut dirs: Vec<PathBuf> =
        ["", "docs", "deploy", "blocklists", "scoring", "benches"].map(|dir| root.join(dir)).into();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            let kind = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
            match path.is_dir() {
                true if path.starts_with(root.join("deploy")) => dirs.push(path),
                false if ["md", "toml", "yaml", "yml", "service", "socket", "sh"].contains(&kind) => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    let help = commands::Help::new(daemon::BINARY);
    let (mut found, mut faults) = (0, Vec::new());
    // What has changed is told of in the words of its time.
    for file in files.iter().filter(|file| !file.ends_with("CHANGELOG.md")) {
        let text = std::fs::read_to_string(file).expect("text");
        for command in commands::of(&text) {
            match help.fault(&command) {
                Some(fault) => faults.push(format!("{}: `{command}`: {fault}", file.display())),
                None => found += 1,
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(found > 100, "only {found} commands were found in {} files", files.len());
}

#[test]
fn what_the_readme_shows_of_a_policys_capacity_is_what_is_printed() {
    let command = "staunch capacity --policy deploy/staunch.example.toml";
    let text = read("README.md");
    let shown =
        text.split_once(&format!("$ {command}\n")).and_then(|(_, rest)| rest.split_once("```")).expect("shown").0;
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let output =
        std::process::Command::new(daemon::BINARY).args(words).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let printed = String::from_utf8(output.expect("it runs").stdout).expect("text");
    for line in shown.lines().filter(|line| *line != "...") {
        let begun = line.trim_end_matches("...");
        assert!(printed.lines().any(|printed| printed.starts_with(begun)), "{line}\n{printed}");
    }
}

#[test]
fn a_command_that_is_none_is_found() {
    let help = commands::Help::new(daemon::BINARY);
    let found = commands::of(
        "Run `staunch\nlists find NAME FILE`, then staunch itself.\n\n    staunch session show agent-1 # x\n",
    );
    assert_eq!(found, ["lists find NAME FILE", "session show agent-1"]);
    for command in ["check FILE", "lockdown plan|apply --interfaces veth-a", "session announce ID [--search SUFFIX]"] {
        assert_eq!(help.fault(command), None, "{command}");
    }
    for command in
        ["cheque FILE", "session open agent-1", "check --quick FILE", "lockdown plan|undo", "observe --follows"]
    {
        assert!(help.fault(command).is_some(), "{command}");
    }
}

/// A family of metrics as it stands on the page, or in the document: type, help, and the values of each label, where they are a
/// closed set.
type Family = (String, String, BTreeMap<String, BTreeSet<String>>);

/// Families by the name of their values.
fn on_the_page(page: &str) -> BTreeMap<String, Family> {
    let (mut families, mut helps) = (BTreeMap::new(), BTreeMap::new());
    let mut current = String::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name.to_owned(), help.to_owned());
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            current = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            families.insert(current.clone(), (kind.to_owned(), helps[name].clone(), BTreeMap::new()));
        } else if let Some((labels, _)) = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) {
            let family: &mut Family = families.get_mut(&current).expect("a type goes first");
            for (key, value) in labels.split("\",").filter_map(|pair| pair.split_once("=\"")) {
                // The bounds of a histogram are its form, the names of zones the configuration's.
                if !["le", "zone"].contains(&key) {
                    family.2.entry(key.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    families
}

fn in_the_document(text: &str) -> BTreeMap<String, Family> {
    let rows = table(text, &["name", "type", "help", "labels"]).into_iter().map(|row| {
        let labels = row.get(3).map_or("", String::as_str).split(';').filter_map(|label| label.split_once(": "));
        let labels = labels.map(|(key, values)| {
            (key.trim().trim_matches('`').to_owned(), values.split(',').map(|value| value.trim().to_owned()).collect())
        });
        (row[0].trim_matches('`').to_owned(), (row[1].clone(), row[2].clone(), labels.collect()))
    });
    rows.collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |file: &str, text: &str| {
        std::fs::write(dir.path().join(file), text).expect(file);
        dir.path().join(file).display().to_string()
    };
    let zone = write("zone", "$ORIGIN words.rpz.example.\n@ 60 IN SOA ns hostmaster 1 60 60 60 60\n@ 60 IN NS ns\n");
    let bootstrap = write("rdap.json", &read("deploy/rdap-bootstrap.example.json"));
    let extra = format!(
        "[dnssec]\nvalidate = true\n[age]\nrdap = \"on\"\nbootstrap = {bootstrap:?}\n\
         [[rpz]]\nname = \"words.rpz.example\"\nfile = {zone:?}\n"
    );
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], daemon::port::free_port()));
    let daemon = Daemon::start_with_metrics(&free.to_string(), &extra);
    let page = daemon.page(free);
    let (there, said) = (on_the_page(&page), in_the_document(&read("docs/EVENTS.md")));
    assert!(there.len() > 100, "{}", there.len());
    let names = |families: &BTreeMap<String, Family>| families.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&there), names(&said));
    for (name, family) in &there {
        assert_eq!(family, &said[name], "{name}");
    }
}

impl Daemon {
    /// Its metrics page.
    fn page(&self, address: std::net::SocketAddr) -> String {
        use std::io::{Read, Write};
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let page = std::net::TcpStream::connect(address).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
                let mut page = String::new();
                stream.read_to_string(&mut page).map(|_| page)
            });
            match page {
                Ok(page) => return page,
                Err(error) if Instant::now() > until => panic!("no metrics page: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}
