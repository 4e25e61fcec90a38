//! Lists and packs: what a file's line says holds for every spelling of its names, and each line that is passed over is told.

use staunch::lists::{
    AgeBuilder, Day, Entry, Format, GARBAGE_SHARE, HashKey, ListError, ListInfo, Reach, RuleForm, Suffixes,
    compile_texts, detect, pack, parse,
};
use staunch_scoring::{NameBuf, NameRef, QName};

/// Takes an octet that picks the kind of file, and the file.
pub fn run(octets: &[u8]) {
    let Some((kind, file)) = octets.split_first() else { return };
    match kind % 8 {
        0 => list(file, Format::Domains),
        1 => list(file, Format::Adblock),
        2 => list(file, Format::Hosts),
        3 => list(file, Format::Dnsmasq),
        4 => list(file, Format::Nrd),
        5 => list(file, Format::Unbound),
        6 => a_pack(file),
        _ => forms(file),
    }
}

fn key() -> HashKey {
    HashKey::from_random([0x5a; 24])
}

fn info() -> ListInfo {
    ListInfo { id: "seed".into(), file: "seed.txt".into(), source: None, category: None, reviewed: None }
}

/// What an entry says, kept.
struct Kept {
    line: u32,
    name: NameBuf,
    reach: Reach,
    exception: bool,
    important: bool,
    day: Option<Day>,
}

fn list(file: &[u8], format: Format) {
    let day = Day::parse("2026-11-01");
    let mut entries = Vec::new();
    let lines = 1 + file.iter().filter(|octet| **octet == b'\n').count() as u32;
    let report = parse(file, format, day, |entry| {
        let Entry { line, name, reach, exception, important, day, .. } = entry;
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
        assert_eq!(day.is_some(), format == Format::Nrd);
        assert!(!name.is_root(), "the root");
        entries.push(Kept { line, name: name.to_owned(), reach, exception, important, day });
        Ok(())
    });
    // Whatever a file is, it looks like something.
    detect(file);
    match &report {
        Ok(report) => {
            assert_eq!((report.lines, report.entries as usize), (lines, entries.len()));
            assert!(report.first_skipped.len() <= report.skipped as usize);
            assert!(report.first_skipped.iter().all(|skipped| (1..=lines).contains(&skipped.line)));
            assert!(entries.is_sorted_by_key(|entry| entry.line));
        }
        Err(ListError::Binary { line }) => assert!(file.contains(&0) && *line <= lines),
        Err(ListError::Garbage { bad, content, line, .. }) => {
            assert!(*bad > *content / GARBAGE_SHARE && *content <= lines && *line <= lines);
        }
        Err(ListError::Charset { .. }) => {
            assert!(file.starts_with(&[0xff]) || file.starts_with(&[0xfe]) || file[0] == 0)
        }
        Err(ListError::Endless { line }) => assert!(*line <= lines && file.len() > 64 * 1024),
        Err(other) => panic!("{other}: {} octets", file.len()),
    }
    let good = report.is_ok();
    if format == Format::Nrd { ages(file, day, &entries, good) } else { denies(file, format, &entries, good) }
}

fn denies(file: &[u8], format: Format, entries: &[Kept], good: bool) {
    let table = compile_texts(key(), Day(20_500), &[(info(), file, Some(format))]);
    assert_eq!(table.is_ok(), good);
    let Ok(table) = table else { return };
    let look_up = |name: &NameBuf| {
        let found = table.look_up(name.as_ref());
        assert_eq!(found.is_some(), denied(entries, name), "{name:?}");
        if let Some(found) = found {
            assert!(entries.iter().any(|entry| !entry.exception && entry.line == found.line), "{name:?}");
        }
    };
    for entry in entries.iter().take(100) {
        spellings(entry.name.as_ref()).iter().for_each(look_up);
        // One label in front, and one less.
        below(entry.name.as_ref()).iter().for_each(look_up);
        entry.name.as_ref().ancestors().skip(1).for_each(|above| look_up(&above.to_owned()));
    }
    for name in ["unlisted.example", "com", "."] {
        look_up(&NameBuf::from_text(name).expect("a name"));
    }
}

/// By the plain reading: some entry covers the name, and no exception does that applies to such an entry. What is said of
/// one name in several lines counts together.
fn denied(entries: &[Kept], name: &NameBuf) -> bool {
    let covering = |exception: bool| {
        entries.iter().filter(move |entry| entry.exception == exception).filter(|entry| {
            let whole = entry.name == *name;
            match entry.reach {
                Reach::Exact => whole,
                Reach::AtOrBelow => name.as_ref().is_at_or_below(entry.name.as_ref()),
                Reach::Below => !whole && name.as_ref().is_at_or_below(entry.name.as_ref()),
            }
        })
    };
    let important = |of: &Kept| {
        entries.iter().any(|entry| entry.exception == of.exception && entry.name == of.name && entry.important)
    };
    covering(false).any(|entry| covering(true).all(|exception| important(entry) && !important(exception)))
}

fn ages(file: &[u8], day: Option<Day>, entries: &[Kept], good: bool) {
    let mut builder = AgeBuilder::new(key());
    assert_eq!(builder.add(info(), file, day).is_ok(), good);
    let table = builder.build();
    for entry in entries.iter().take(200) {
        for name in spellings(entry.name.as_ref()) {
            let latest = entries.iter().filter(|other| other.name == entry.name).filter_map(|other| other.day).max();
            assert_eq!(table.look_up(name.as_ref()).map(|found| found.registered), latest.filter(|_| good), "{name:?}");
        }
    }
}

/// The same name, each read from another text or from octets of another case.
fn spellings(name: NameRef<'_>) -> Vec<NameBuf> {
    let text = name.to_string();
    let upper = name.as_wire().to_ascii_uppercase();
    let from_wire = QName::read(&upper).expect("a name").0;
    let texts = [text.to_ascii_uppercase(), format!("{text}."), text];
    let mut all: Vec<NameBuf> = texts.iter().map(|text| NameBuf::from_text(text).expect("a name")).collect();
    all.push(from_wire.as_ref().to_owned());
    for one in &all {
        assert_eq!(one.as_ref(), name);
        let prints: Vec<u64> = Suffixes::of(one.as_ref(), &key()).map(|suffix| suffix.hash).collect();
        assert_eq!(prints, Suffixes::of(name, &key()).map(|suffix| suffix.hash).collect::<Vec<_>>());
    }
    all
}

fn below(name: NameRef<'_>) -> Option<NameBuf> {
    NameRef::from_wire(&[b"\x01x", name.as_wire()].concat()).ok().map(NameRef::to_owned)
}

fn a_pack(file: &[u8]) {
    let lines = 1 + file.iter().filter(|octet| **octet == b'\n').count() as u32;
    match pack::parse(file) {
        Ok(entries) => {
            assert!(entries.len() <= pack::MAX_PACK_ENTRIES);
            assert!(std::str::from_utf8(file).is_ok());
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!((1..=lines).contains(&error.line), "{error:?} of {lines} lines");
                assert!(!error.problem.is_empty() && !error.remedy.is_empty(), "{error:?}");
            }
        }
    }
}

/// Each line as the form of a rule, as people write it.
fn forms(file: &[u8]) {
    for line in String::from_utf8_lossy(file).lines().take(64) {
        for read in [RuleForm::parse, RuleForm::parse_deny] {
            match read(line) {
                Ok(form) => {
                    assert!(!form.name.as_ref().is_root() || form.reach == Reach::Exact, "everything");
                    assert_eq!(read(&line.to_ascii_uppercase()), Ok(form.clone()), "in capitals");
                    assert_eq!(read(&form.to_string()), Ok(form.clone()), "written and read again");
                }
                Err(error) => assert!(!error.to_string().is_empty() && !error.remedy().is_empty()),
            }
        }
    }
}
