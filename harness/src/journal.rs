//! The journal: whatever a crash or a bad disk leaves of it, every line that is whole is read back, nothing else is, and
//! writing goes on.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;

use staunch::model::{Announcement, CaseId, Reason, SessionId, SessionType};
use staunch::store::{self, Grant, IndexKind, Options, Record, Recovered, Store};

/// Octets of one piece of damage in what is taken.
const PIECE: usize = 5;

/// Takes an octet that says whether what follows is a journal's own text or damage to one that was sound.
pub fn run(octets: &[u8]) {
    let Some((how, rest)) = octets.split_first() else { return };
    if how & 1 == 1 {
        recovered(rest, &[]);
        return;
    }
    let sound = sound();
    let mut text = sound.text.clone();
    for piece in rest.chunks_exact(PIECE).take(6) {
        damage(&mut text, piece);
    }
    // Whole, as a line of its own or with something joined to its end; and before all damage.
    let common = text.iter().zip(&sound.text).take_while(|(a, b)| a == b).count();
    let pieces: HashSet<&[u8]> = text.split(|octet| *octet == b'\n').collect();
    let whole = |line: &&Line| {
        let octets = &sound.text[line.from..line.to];
        line.to <= common || pieces.contains(octets)
    };
    let kept: Vec<&Line> = sound.lines.iter().filter(whole).collect();
    recovered(&text, &kept);
}

/// A line of the sound journal.
struct Line {
    from: usize,
    /// Behind its last octet, the newline not counted.
    to: usize,
    /// What it is about; nothing where it is of the journal itself.
    fact: Option<Fact>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fact {
    Announced(String),
    Closed(String),
    Granted(String),
}

struct Sound {
    text: Vec<u8>,
    lines: Vec<Line>,
}

fn directory() -> tempfile::TempDir {
    // Nothing here has to survive a loss of power.
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

fn options() -> Options {
    Options { index: IndexKind::Memory, sinks: vec!["soc".into()], ..Options::default() }
}

fn session(n: u32) -> SessionId {
    SessionId::new(&format!("agent-{n}")).expect("an id")
}

fn closed(n: u32) -> Record {
    Record::Quarantine {
        session: session(n),
        case: CaseId::from_random(n.into()),
        reason: Reason::Score,
        by: "staunch".into(),
        // As somebody would write who wants to be taken for a line.
        note: "\"}\n{\"seq\":1,\"prev\":\"\",\"hash\":\"\u{1b}[31m".into(),
        since: None,
        addresses: Vec::new(),
    }
}

/// A journal as the store writes it. Every fact is about something of its own, so that each line counts for itself.
fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let dir = directory();
        let (store, _) = Store::open(dir.path(), options()).expect("a new store");
        for n in 0..4u32 {
            let announcement = Announcement::without_sandbox(session(100 + n), SessionType::Batch);
            let grant = Grant {
                id: format!("grant-{n}"),
                name: "*.example".into(),
                session: None,
                ports: Vec::new(),
                owner: "o".into(),
                reason: "r".into(),
                from: 0,
                until: u64::MAX,
                withdrawn: None,
            };
            let records = vec![Record::Announce { announcement, entry: None }, closed(n), Record::Grant { grant }];
            store.append(records).expect("taken").wait_blocking().expect("written");
        }
        store.close();
        let text = std::fs::read(dir.path().join("journal-000001.jsonl")).expect("a journal");
        let (mut lines, mut from) = (Vec::new(), 0);
        for line in text.split_inclusive(|octet| *octet == b'\n') {
            let value: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            let record = &value["record"];
            let of = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
            let fact = match record["kind"].as_str() {
                Some("announce") => Some(Fact::Announced(of(&record["announcement"]["id"]))),
                Some("quarantine") => Some(Fact::Closed(of(&record["session"]))),
                Some("grant") => Some(Fact::Granted(of(&record["grant"]["id"]))),
                _ => None,
            };
            lines.push(Line { from, to: from + line.len() - 1, fact });
            from += line.len();
        }
        assert_eq!(lines.iter().filter(|line| line.fact.is_some()).count(), 12);
        Sound { text, lines }
    })
}

/// Damage that takes the newline of a line and how the next one begins, and leaves the rest of that.
pub(crate) fn headless(line: usize) -> [u8; PIECE] {
    let at = sound().lines[line].to;
    let [.., high, low] = at.to_be_bytes();
    [2, high, low, 8, 0]
}

/// One piece of damage: what, where, how much.
fn damage(text: &mut Vec<u8>, piece: &[u8]) {
    let [what, high, low, length, value] = *piece else { return };
    if text.is_empty() {
        return;
    }
    let at = usize::from(u16::from_be_bytes([high, low])) % text.len();
    let end = (at + usize::from(length)).min(text.len());
    match what % 7 {
        0 => text.truncate(at),
        1 => text[at] ^= value.max(1),
        2 => drop(text.drain(at..end)),
        3 => text[at..end].fill(value),
        4 => drop(text.splice(at..at, std::iter::repeat_n(value, usize::from(length)))),
        // A block of another place, as a file system in trouble gives it.
        5 => {
            let from = usize::from(value) * 64 % text.len();
            let block: Vec<u8> = text[from..(from + usize::from(length)).min(text.len())].to_vec();
            text.splice(at..(at + block.len()).min(text.len()), block);
        }
        _ => {
            let again = text[at..end].to_vec();
            text.splice(at..at, again);
        }
    }
}

fn facts(recovered: &Recovered) -> HashSet<Fact> {
    let announced = recovered.sessions.iter().map(|one| Fact::Announced(one.announcement.id.to_string()));
    let closed = recovered.quarantined.iter().map(|one| Fact::Closed(one.session.to_string()));
    announced.chain(closed).chain(recovered.grants.iter().map(|one| Fact::Granted(one.id.clone()))).collect()
}

/// Opens a journal of this text, of which these lines are whole, writes to it and opens it again.
fn recovered(text: &[u8], kept: &[&Line]) {
    let dir = directory();
    std::fs::write(dir.path().join("journal-000001.jsonl"), text).expect("written");
    let report = store::verify(dir.path()).expect("readable");
    assert!(report.lines >= kept.len() as u64, "{} lines are whole, {} were found", kept.len(), report.lines);
    let (store, first) = Store::open(dir.path(), options()).expect("a store opens whatever its journal holds");
    let found = facts(&first);
    for line in kept {
        let Some(fact) = &line.fact else { continue };
        assert!(found.contains(fact), "{fact:?} is lost: {:?}", first.damage);
    }
    let all: HashSet<Fact> = sound().lines.iter().filter_map(|line| line.fact.clone()).collect();
    assert!(found.is_subset(&all), "made up: {:?}", found.difference(&all).collect::<Vec<_>>());
    let changed = text != sound().text;
    let ends_with_a_line = sound().text.starts_with(text) && (text.is_empty() || text.ends_with(b"\n"));
    if changed && !ends_with_a_line && !unterminated(text) {
        assert!(!first.damage.is_empty(), "damage that nobody is told of");
    }
    store.append(vec![closed(7000)]).expect("taken").wait_blocking().expect("written");
    store.close();
    let (store, second) = Store::open(dir.path(), options()).expect("it opens again");
    let mut expected = found;
    expected.insert(Fact::Closed("agent-7000".into()));
    assert_eq!(facts(&second), expected);
    assert!(second.damage.is_empty(), "{:?} again", second.damage);
    store.close();
}

/// The sound journal without the newline at the end of one of its lines, and nothing behind: no loss.
fn unterminated(text: &[u8]) -> bool {
    sound().lines.iter().any(|line| text == &sound().text[..line.to])
}
