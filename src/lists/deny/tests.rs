use proptest::prelude::*;
use staunch_scoring::NameBuf;

use super::*;
use crate::lists::hash::test_key;
use crate::lists::{Format, Input, ListError, Reopen, compile, compile_texts, survey};

const TODAY: Day = Day(20_500);

fn info(id: &str) -> ListInfo {
    ListInfo { id: id.into(), file: format!("{id}.txt").into(), source: None, category: None, reviewed: None }
}

fn table(lists: &[(&str, &str, Format)]) -> DenyTable {
    let texts: Vec<_> = lists.iter().map(|(id, text, format)| (info(id), text.as_bytes(), Some(*format))).collect();
    compile_texts(test_key(), TODAY, &texts).expect("compiles")
}

fn decide(table: &DenyTable, name: &str) -> Option<(String, u32)> {
    let name = NameBuf::from_text(name).expect("name");
    table.look_up(name.as_ref()).map(|m| (m.list.id.to_string(), m.line))
}

fn named_by(table: &DenyTable, name: &str) -> Vec<String> {
    let name = NameBuf::from_text(name).expect("name");
    let found = table.look_up(name.as_ref()).expect("denied");
    table.named_by(&found).map(|list| list.id.to_string()).collect()
}

#[test]
fn entries_deny_as_their_format_means_and_name_their_line() {
    let table = table(&[
        ("empty", "", Format::Domains),
        ("domains", "# head\nbad.example\n=one.example\n", Format::Domains),
        ("hosts", "0.0.0.0 host.example other.example\n0.0.0.0 bad.example\n", Format::Hosts),
        ("filters", "||*.below.example^\n|exact.example^\n", Format::Adblock),
    ]);
    for (name, expected) in [
        ("bad.example", Some(("domains", 2))),
        ("a.b.BAD.example", Some(("domains", 2))),
        ("notbad.example", None),
        ("one.example", Some(("domains", 3))),
        ("a.one.example", None),
        ("host.example", Some(("hosts", 1))),
        ("other.example", Some(("hosts", 1))),
        ("a.host.example", None),
        ("below.example", None),
        ("a.below.example", Some(("filters", 1))),
        ("exact.example", Some(("filters", 2))),
        ("a.exact.example", None),
        ("example", None),
        (".", None),
    ] {
        assert_eq!(decide(&table, name), expected.map(|(id, line)| (id.to_owned(), line)), "{name}");
    }
    assert_eq!(table.len(), 6, "bad.example stands in two lists");
}

#[test]
fn of_two_entries_for_a_name_the_wider_stays_and_equals_are_both_told() {
    let table = table(&[
        ("narrow", "=x.example\nshared.example\n", Format::Domains),
        ("wide", "x.example\nother.example\nshared.example\n", Format::Domains),
    ]);
    assert_eq!(decide(&table, "a.x.example"), Some(("wide".into(), 1)));
    assert_eq!(decide(&table, "x.example"), Some(("wide".into(), 1)));
    assert_eq!(named_by(&table, "x.example"), ["narrow", "wide"]);
    assert_eq!(named_by(&table, "a.x.example"), ["wide"]);
    assert_eq!(decide(&table, "shared.example"), Some(("narrow".into(), 2)));
    assert_eq!(named_by(&table, "a.shared.example"), ["narrow", "wide"]);
}

#[test]
fn an_exception_opens_what_its_own_list_closes_and_nothing_else() {
    let table = table(&[
        (
            "one",
            "||wide.example^\n@@||good.wide.example^\n||strict.example^$important\n@@||a.strict.example^\n\
             @@||b.strict.example^$important\n@@||foreign.example^\n||shared.example^\n@@||shared.example^\n\
             ||suffix.example^$denyallow=fine.suffix.example|ok.suffix.example\n",
            Format::Adblock,
        ),
        ("two", "foreign.example\nshared.example\ndeep.good.wide.example\n", Format::Domains),
    ]);
    for (name, expected) in [
        ("wide.example", Some(("one", 1))),
        ("bad.wide.example", Some(("one", 1))),
        ("good.wide.example", None),
        ("a.good.wide.example", None),
        ("deep.good.wide.example", Some(("two", 3))),
        ("strict.example", Some(("one", 3))),
        ("a.strict.example", Some(("one", 3))),
        ("b.strict.example", None),
        ("foreign.example", Some(("two", 1))),
        ("shared.example", Some(("two", 0))),
        ("suffix.example", Some(("one", 9))),
        ("fine.suffix.example", None),
        ("a.ok.suffix.example", None),
    ] {
        assert_eq!(decide(&table, name), expected.map(|(id, line)| (id.to_owned(), line)), "{name}");
    }
}

#[test]
fn where_the_longest_name_decides_an_exception_opens_no_longer_one() {
    let unbound = "local-zone: \"t2.example\" transparent\nlocal-zone: \"ads.t2.example\" always_nxdomain\n\
                   local-zone: \"t3.example\" always_nxdomain\nlocal-zone: \"ok.t3.example\" transparent\n\
                   local-zone: \"bad.ok.t3.example\" always_nxdomain\nlocal-zone: \"t1.example\" transparent\n\
                   local-data: \"t1.example A 0.0.0.0\"\n";
    let dnsmasq = "server=/t2.example/#\naddress=/ads.t2.example/\naddress=/t3.example/\nserver=/ok.t3.example/#\n\
                   address=/bad.ok.t3.example/\nserver=/t1.example/#\naddress=/t1.example/\n";
    for (text, format, below_t1) in [(unbound, Format::Unbound, None), (dnsmasq, Format::Dnsmasq, Some(7))] {
        let table = table(&[("l", text, format)]);
        for (name, line) in [
            ("t2.example", None),
            ("www.t2.example", None),
            ("ads.t2.example", Some(2)),
            ("x.ads.t2.example", Some(2)),
            ("t3.example", Some(3)),
            ("a.t3.example", Some(3)),
            ("ok.t3.example", None),
            ("a.ok.t3.example", None),
            ("bad.ok.t3.example", Some(5)),
            ("t1.example", Some(7)),
            ("a.t1.example", below_t1),
        ] {
            assert_eq!(decide(&table, name), line.map(|line| ("l".to_owned(), line)), "{name}, {format:?}");
        }
    }
}

#[test]
fn what_a_line_takes_out_is_taken_out_of_that_line_alone() {
    let table = table(&[(
        "l",
        "||k1.example^$denyallow=a.k1.example|b.k1.example\n||a.k1.example^\n\
         ||k2.example^$denyallow=a.k2.example\n||k2.example^$denyallow=b.k2.example\n\
         ||wide.k3.example^$denyallow=a.wide.k3.example\n||k3.example^\n\
         ||k4.example^$denyallow=a.k4.example\n||b.k4.example^$denyallow=c.b.k4.example\n\
         ||k5.example^$denyallow=k5.example\n||k6.example^$important,denyallow=a.k6.example\n@@||b.k6.example^\n\
         ||k7.example^$denyallow=a.k7.example\n||k7.example^$denyallow=a.k7.example\n",
        Format::Adblock,
    )]);
    for (name, line) in [
        ("k1.example", Some(1)),
        ("x.k1.example", Some(1)),
        ("a.k1.example", Some(2)),
        ("x.a.k1.example", Some(2)),
        ("b.k1.example", None),
        ("x.b.k1.example", None),
        // Each line denies what the other takes out.
        ("a.k2.example", Some(3)),
        ("b.k2.example", Some(3)),
        ("a.wide.k3.example", Some(6)),
        ("a.k4.example", None),
        ("b.k4.example", Some(7)),
        ("c.b.k4.example", Some(7)),
        ("k5.example", None),
        ("k6.example", Some(10)),
        ("a.k6.example", None),
        ("b.k6.example", Some(10)),
        // The same line twice says it once.
        ("k7.example", Some(12)),
        ("a.k7.example", None),
    ] {
        assert_eq!(decide(&table, name), line.map(|line| ("l".to_owned(), line)), "{name}");
    }
}

#[test]
fn notes_speak_in_the_match() {
    let table = table(&[(
        "noted",
        "plain.example\nnoted.example # tunnel; source: https://noted.example/docs; reviewed: 2026-11-20\n\
         half.example # source: somewhere\n",
        Format::Domains,
    )]);
    let note =
        |name: &str| table.look_up(NameBuf::from_text(name).expect("name").as_ref()).expect("denied").note.cloned();
    assert_eq!(
        note("a.noted.example"),
        Some(EntryNote {
            what: "tunnel".into(),
            source: "https://noted.example/docs".into(),
            reviewed: Day::parse("2026-11-20").expect("day"),
        })
    );
    assert_eq!((note("plain.example"), note("half.example")), (None, None));
}

#[test]
fn every_refused_list_is_told_and_no_table_is_made() {
    let texts: Vec<(ListInfo, &[u8], Option<Format>)> = vec![
        (info("good"), b"good.example\n", Some(Format::Domains)),
        (info("bad"), b"zz\nlost.example\n<html>\n<p>\n<p>\n", Some(Format::Domains)),
        (info("other"), b"0.0.0.0 x.example\n", Some(Format::Domains)),
    ];
    let errors = compile_texts(test_key(), TODAY, &texts).expect_err("two are no lists");
    assert!(matches!(&errors[..], [(1, ListError::Garbage { .. }), (2, ListError::Garbage { .. })]), "{errors:?}");
}

#[test]
fn where_not_all_fit_the_one_that_finds_no_room_is_told() {
    let mut input = |most| {
        let survey = crate::lists::Survey { most, ..survey(b"a.example\n".as_slice(), None).expect("text") };
        Input { info: info("l"), day: None, survey, octets: Box::new(b"a.example\n".as_slice()) }
    };
    let mut inputs = [20_000_000, 40_000_000, 1, 20_000_000, 10_000_000].map(&mut input);
    let errors = compile(&mut inputs, test_key(), None, TODAY).expect_err("too many");
    assert_eq!(errors, [(1, ListError::TooLarge), (4, ListError::TooLarge)]);
    // What is never read takes no room.
    let line = format!("address={}\n", "/".repeat(60_000));
    let found = survey(line.as_bytes(), Some(Format::Dnsmasq)).expect("text");
    assert_eq!((found.most, found.lines), (0, 2));
    let many = format!("address={}\n", "/".repeat(1000)).repeat(30_000);
    assert!(survey(many.as_bytes(), Some(Format::Dnsmasq)).expect("text").most < 20_002_000);
}

#[test]
fn names_keep_the_day_on_which_they_were_first_listed() {
    let first = table(&[("l", "old.example\n", Format::Domains)]);
    let text = b"new.example\nold.example\n".as_slice();
    let again = |key| {
        let survey = survey(text, None).expect("text");
        let input = Input { info: info("l"), day: None, survey, octets: Box::new(text) };
        compile(&mut [input], key, Some(&first), Day(20_600)).expect("compiles")
    };
    let since = |table: &DenyTable, name: &str| {
        table.look_up(NameBuf::from_text(name).expect("name").as_ref()).expect("denied").since
    };
    let table = again(test_key());
    assert_eq!((since(&table, "old.example"), since(&table, "new.example")), (TODAY, Day(20_600)));
    let foreign = again(HashKey::from_random([1; 24]));
    assert_eq!(since(&foreign, "old.example"), Day(20_600), "another key knows nothing of it");
}

#[test]
fn a_list_that_changes_between_its_two_readings_is_refused() {
    struct Changing(Vec<&'static [u8]>);
    impl Reopen for Changing {
        fn reopen(&mut self) -> std::io::Result<Box<dyn std::io::Read + '_>> {
            Ok(Box::new(self.0.remove(0)))
        }
    }
    let survey = survey(b"a.example\n".as_slice(), None).expect("text");
    for (octets, fine) in [(b"a.example\n".as_slice(), true), (b"b.example\nc.example\nd.example\ne.example\n", false)]
    {
        let input = Input { info: info("l"), day: None, survey, octets: Box::new(Changing(vec![octets])) };
        let outcome = compile(&mut [input], test_key(), None, TODAY);
        assert_eq!(outcome.is_ok(), fine, "{outcome:?}");
    }
}

#[test]
fn stays_within_its_memory() {
    let text: String = (0..50_000).map(|i| format!("host{i}.zone{}.example\n", i % 977)).collect();
    let once = table(&[("many", &text, Format::Domains)]);
    let many = table(&[("many", &text, Format::Domains), ("again", &text, Format::Domains)]);
    for table in [once, many] {
        assert_eq!(table.len(), 50_000);
        assert!(table.octets() <= 40 * table.len(), "{} octets a name", table.octets() / table.len());
    }
}

proptest! {
    #[test]
    fn agrees_with_the_plain_reading(
        listed in proptest::collection::vec((0u8..3, 0usize..2, any::<bool>(), proptest::collection::vec(0u8..3, 1..4)), 0..20),
        asked in proptest::collection::vec(0u8..3, 1..5),
    ) {
        let text = |labels: &[u8]| labels.iter().map(|l| ["a", "b", "c-c"][*l as usize]).collect::<Vec<_>>().join(".");
        let mut files = [String::new(), String::new()];
        for (reach, list, exception, labels) in &listed {
            let exception = if *exception { "@@" } else { "" };
            let (before, after) = [("|", "^"), ("||", "^"), ("||*.", "^")][usize::from(*reach)];
            files[*list] += &format!("{exception}{before}{}{after}\n", text(labels));
        }
        let table = table(&[("0", &files[0], Format::Adblock), ("1", &files[1], Format::Adblock)]);
        let name: NameBuf = text(&asked).parse().expect("name");
        let covers = |reach: u8, labels: &[u8]| {
            let entry: NameBuf = text(labels).parse().expect("name");
            let below = name.as_ref().is_at_or_below(entry.as_ref());
            [name == entry, below, below && name != entry][usize::from(reach)]
        };
        let any = |list: usize, exception: bool| {
            listed.iter().any(|(reach, of, is, labels)| *of == list && *is == exception && covers(*reach, labels))
        };
        let plain = (0..2).any(|list| any(list, false) && !any(list, true));
        prop_assert_eq!(table.look_up(name.as_ref()).is_some(), plain, "{} in {:?}", name, files);
    }

    #[test]
    fn agrees_with_the_plain_reading_where_the_longest_name_decides(
        listed in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0u8..3, 1..4)), 0..20),
        asked in proptest::collection::vec(0u8..3, 1..5),
    ) {
        let text = |labels: &[u8]| labels.iter().map(|l| ["a", "b", "c-c"][*l as usize]).collect::<Vec<_>>().join(".");
        let mut file = String::new();
        for (exception, labels) in &listed {
            let kind = if *exception { "transparent" } else { "always_nxdomain" };
            file += &format!("local-zone: \"{}\" {kind}\n", text(labels));
        }
        let table = table(&[("l", &file, Format::Unbound)]);
        let covering = listed.iter().filter(|(_, labels)| asked.ends_with(labels));
        // On one name the denial decides.
        let plain = covering.max_by_key(|(exception, labels)| (labels.len(), !exception)).is_some_and(|(is, _)| !is);
        let name: NameBuf = text(&asked).parse().expect("name");
        prop_assert_eq!(table.look_up(name.as_ref()).is_some(), plain, "{} in {}", name, file);
    }
}
