use proptest::prelude::*;
use staunch_scoring::name::NameError;

use super::*;
use crate::lists::detect;

const ALL: [Format; 6] =
    [Format::Domains, Format::Hosts, Format::Nrd, Format::Adblock, Format::Dnsmasq, Format::Unbound];

fn read(text: impl AsRef<[u8]>, format: Format) -> (Vec<String>, Result<Report, ListError>) {
    let mut seen = Vec::new();
    let report = parse(text.as_ref(), format, Day::parse("2026-11-01"), |e| {
        let day = e.day.map(|d| format!(" {d}")).unwrap_or_default();
        let reach = match e.reach {
            Reach::Exact => "=",
            Reach::AtOrBelow => "",
            Reach::Below => "*.",
        };
        let exception = if e.exception { "@" } else { "" };
        let important = if e.important { "!" } else { "" };
        seen.push(format!("{}:{exception}{reach}{}{important}{day}", e.line, e.name));
        Ok(())
    });
    (seen, report)
}

fn skips(report: Result<Report, ListError>) -> Vec<(u32, SkipKind)> {
    report.expect("readable").first_skipped.into_iter().map(|s| (s.line, s.kind)).collect()
}

#[test]
fn domains_of_every_spelling() {
    let text = "\u{feff}# head\r\n\r\nBad.Example\r\n*.wide.example # note\n.dot.example\n=one.example\nend.example.";
    let (seen, report) = read(text, Format::Domains);
    assert_eq!(seen, ["3:bad.example", "4:wide.example", "5:dot.example", "6:=one.example", "7:end.example"]);
    let report = report.expect("readable");
    assert_eq!((report.lines, report.entries, report.skipped), (7, 5, 0));
}

#[test]
fn every_line_passed_over_has_its_reason() {
    let good = "ok.example\n".repeat(40);
    let text = format!(
        "{good}||x.example^\na b\n10.0.0.1\n2001:db8::1\nxn--a\u{fc}.example\ncom\n*.co.uk\na..b\n{}\n.\n=com\n\u{fc} b\n",
        "x".repeat(MAX_LINE + 1)
    );
    let text = [text.as_bytes(), b"b\xfcro.example\n"].concat();
    let (seen, report) = read(&text, Format::Domains);
    assert_eq!(seen.len(), 41, "{seen:?}");
    let told = report.clone().expect("readable").first_skipped;
    assert_eq!((&*told[0].text, &*told[0].reason), ("||x.example^", "`|`, which host names do not have"));
    assert_eq!(told[8].text.len(), 82, "what is shown is bounded: {}", told[8].text);
    assert_eq!(
        skips(report),
        [
            (41, SkipKind::Octet),
            (42, SkipKind::SeveralWords),
            (43, SkipKind::Address),
            (44, SkipKind::Address),
            (45, SkipKind::NotIdn),
            (46, SkipKind::PublicSuffix),
            (47, SkipKind::PublicSuffix),
            (48, SkipKind::Name),
            (49, SkipKind::LineTooLong),
            (50, SkipKind::Name),
            (52, SkipKind::NotIdn),
            (53, SkipKind::NotText),
        ]
    );
}

#[test]
fn names_in_other_letters_become_what_a_browser_asks_for() {
    let (seen, report) = read("B\u{fc}ro.example\n*.\u{4f8b}\u{3048}.example\n=stra\u{df}e.example\n", Format::Domains);
    assert_eq!(seen, ["1:xn--bro-hoa.example", "2:xn--r8jz45g.example", "3:=xn--strae-oqa.example"]);
    assert_eq!(report.expect("readable").converted, 3);
}

#[test]
fn hosts_lines_carry_several_names_and_leave_the_own_ones_out() {
    let text = "127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\nfe80::1%lo0 localhost\n0.0.0.0 0.0.0.0\n\
                0.0.0.0 A.example b.example # two\n0.0.0.0\tc.example\n::\td.example\n0.0.0.0 e.example\n\
                0.0.0.0\n0.0.0.0 f.example bad|name g.example\n";
    let (seen, report) = read(text, Format::Hosts);
    assert_eq!(
        seen,
        [
            "5:=a.example",
            "5:=b.example",
            "6:=c.example",
            "7:=d.example",
            "8:=e.example",
            "10:=f.example",
            "10:=g.example"
        ]
    );
    assert_eq!(skips(report), [(9, SkipKind::NoName), (10, SkipKind::Octet)]);
}

#[test]
fn nrd_lines_have_their_own_day_or_the_lists() {
    let text = "a.example\nb.example,2026-10-31\nc.example , 2026-10-30\nd.example\nd.example\nd.example,yesterday\n";
    let (seen, report) = read(text, Format::Nrd);
    assert_eq!(seen[..3], ["1:a.example 2026-11-01", "2:b.example 2026-10-31", "3:c.example 2026-10-30"]);
    assert_eq!(skips(report), [(6, SkipKind::BadDay)]);
    let mut count = 0;
    let dated = "a.example,2026-10-31\n".repeat(4) + "b.example\n";
    let report = parse(dated.as_bytes(), Format::Nrd, None, |_| {
        count += 1;
        Ok(())
    });
    assert_eq!((count, skips(report)), (4, vec![(5, SkipKind::NoDay)]));
}

/// Each line of a format, what it gives, or why it gives nothing.
type Row = (&'static str, Result<&'static [&'static str], SkipKind>);

fn holds(format: Format, rows: &[Row]) {
    for (line, expected) in rows {
        // Beside lines enough that one bad one is no garbage.
        let (filler, count) = match format {
            Format::Adblock => ("||filler.example^\n", 4),
            Format::Dnsmasq => ("local=/filler.example/\n", 4),
            Format::Unbound => ("local-zone: filler.example refuse\n", 4),
            _ => ("filler.example\n", 4),
        };
        let (seen, report) = read(filler.repeat(count) + line, format);
        let seen: Vec<_> = seen.iter().filter_map(|entry| entry.strip_prefix("5:")).collect();
        let skipped = skips(report);
        match expected {
            Ok(entries) => assert_eq!((&seen[..], &skipped[..]), (*entries, [].as_slice()), "{line}"),
            Err(kind) => assert_eq!((&seen[..], &skipped[..]), ([].as_slice(), [(5, *kind)].as_slice()), "{line}"),
        }
    }
}

#[test]
fn filter_lists_are_read_as_far_as_they_speak_of_hosts() {
    holds(
        Format::Adblock,
        &[
            ("[Adblock Plus 2.0]", Ok(&[])),
            ("! Title: a list", Ok(&[])),
            ("# a remark", Ok(&[])),
            ("## a heading", Ok(&[])),
            ("||a.example^", Ok(&["a.example"])),
            ("||A.example^|", Ok(&["a.example"])),
            ("||a.example", Ok(&["a.example"])),
            ("||*.a.example^", Ok(&["*.a.example"])),
            ("|a.example^", Ok(&["=a.example"])),
            ("|a.example^|", Ok(&["=a.example"])),
            ("a.example", Ok(&["=a.example"])),
            ("||a.example^ # why", Ok(&["a.example"])),
            ("||b\u{fc}ro.example^", Ok(&["xn--bro-hoa.example"])),
            ("@@||a.example^", Ok(&["@a.example"])),
            ("@@|a.example^|", Ok(&["@=a.example"])),
            ("||a.example^$important", Ok(&["a.example!"])),
            ("@@||a.example^$important", Ok(&["@a.example!"])),
            ("||a.example^$all", Ok(&["a.example"])),
            ("||a.example^$denyallow=b.a.example|c.a.example", Ok(&["a.example", "@b.a.example", "@c.a.example"])),
            ("||a.example^$dnsrewrite=NXDOMAIN;;", Ok(&["a.example"])),
            ("||a.example^$dnsrewrite=refused", Ok(&["a.example"])),
            ("||a.example^$dnsrewrite=192.0.2.1", Err(SkipKind::FilterOption)),
            ("@@||a.example^$dnsrewrite=NXDOMAIN", Err(SkipKind::FilterOption)),
            ("||a.example^$third-party", Err(SkipKind::FilterOption)),
            ("||a.example^$important,script", Err(SkipKind::FilterOption)),
            ("||a.example^$dnstype=AAAA", Err(SkipKind::FilterOption)),
            ("||a.example^$client=192.0.2.1", Err(SkipKind::FilterOption)),
            ("||a.example^$badfilter", Err(SkipKind::FilterOption)),
            ("||a.example^$denyallow=", Err(SkipKind::FilterOption)),
            ("||a.example^$denyallow=b.example|b.a.example", Ok(&["a.example", "@b.a.example"])),
            ("||a.example^$denyallow=b.a.example|example", Err(SkipKind::FilterOption)),
            ("/banner[0-9]+/", Err(SkipKind::Pattern)),
            ("##.banner", Err(SkipKind::Pattern)),
            ("a.example##.banner", Err(SkipKind::Pattern)),
            ("a.example#@#.banner", Err(SkipKind::Pattern)),
            ("||a.example/path^", Err(SkipKind::Pattern)),
            ("||a*.example^", Err(SkipKind::Pattern)),
            ("|a.example", Err(SkipKind::Pattern)),
            ("a.example^", Err(SkipKind::Pattern)),
            ("||a-name-to-go-on.", Err(SkipKind::Pattern)),
            ("a-name-to-go-on.", Err(SkipKind::Pattern)),
            ("||a.example.^", Ok(&["a.example"])),
            ("!#include other.txt", Err(SkipKind::Include)),
            ("!#if adguard", Err(SkipKind::Conditional)),
            ("!#else", Err(SkipKind::Conditional)),
            ("!#endif", Err(SkipKind::Conditional)),
            ("!#including nothing", Ok(&[])),
            ("<a.example", Err(SkipKind::Octet)),
            ("<!-- a.example -->", Err(SkipKind::Octet)),
            ("</a.example>", Err(SkipKind::Octet)),
            ("|https://a.example^", Err(SkipKind::Pattern)),
            ("||*^", Err(SkipKind::Everything)),
            ("||^", Err(SkipKind::Everything)),
            ("||com^", Err(SkipKind::PublicSuffix)),
            ("||192.0.2.1^", Err(SkipKind::Address)),
            ("||2001:db8::1^", Err(SkipKind::Address)),
            ("||[2001:db8::1]^", Err(SkipKind::Address)),
            ("||192.0.2.1:8080^", Err(SkipKind::Pattern)),
            ("||a.example:8080^$all", Err(SkipKind::Pattern)),
            ("||a.example:x^", Err(SkipKind::Octet)),
            ("{\"error\": 404}", Err(SkipKind::Octet)),
            ("0.0.0.0 a.example", Err(SkipKind::SeveralWords)),
        ],
    );
}

#[test]
fn what_holds_only_under_a_condition_is_not_taken_and_counted() {
    let text = "||a.example^\n!#if (adguard && !ext)\n||b.example^\n! a remark\n!#if cap\n||c.example^\n!#include x.txt\n!#endif\n\
                ||d.example^\n!#else\n@@||e.example^\n!#endif\n||f.example^\n!#endif\n||g.example^\n!#include y.txt\n";
    let (seen, report) = read(text, Format::Adblock);
    assert_eq!(seen, ["1:a.example", "13:f.example", "15:g.example"]);
    let report = report.expect("a list all the same");
    assert_eq!((report.reasons[&SkipKind::Conditional], report.reasons[&SkipKind::Include]), (11, 1), "{report:?}");
    let lines: Vec<_> = report.first_skipped.iter().map(|skipped| skipped.line).collect();
    assert_eq!(lines, [2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16]);
    // Elsewhere it is a remark, or no name.
    assert_eq!(read("# !#if x\na.example\n", Format::Domains).0, ["2:a.example"]);
}

#[test]
fn of_a_dnsmasq_configuration_refusals_are_read() {
    holds(
        Format::Dnsmasq,
        &[
            ("# a remark", Ok(&[])),
            ("address=/a.example/", Ok(&["a.example"])),
            ("address=/a.example/#", Ok(&["a.example"])),
            ("address=/a.example/0.0.0.0", Ok(&["a.example"])),
            ("address=/a.example/::", Ok(&["a.example"])),
            ("address=/a.example/127.0.0.1 # here", Ok(&["a.example"])),
            ("address = /a.example/ # here", Ok(&["a.example"])),
            ("address = /a.example/ \t#here", Ok(&["a.example"])),
            ("address = /a.example/#", Ok(&["a.example"])),
            ("server = /a.example/# # here", Ok(&["@a.example"])),
            ("address=/a.example/b.example/", Ok(&["a.example", "b.example"])),
            ("address=/.a.example/", Ok(&["a.example"])),
            ("address=/*.a.example/", Ok(&["*.a.example"])),
            ("server=/a.example/", Ok(&["a.example"])),
            ("local=/a.example/", Ok(&["a.example"])),
            ("server=/a.example/#", Ok(&["@a.example"])),
            ("server=/a.example/192.0.2.1", Err(SkipKind::Server)),
            ("server=192.0.2.1", Err(SkipKind::Server)),
            ("address=/a.example/192.0.2.1", Err(SkipKind::Rewrite)),
            ("address=/#/", Err(SkipKind::Everything)),
            ("address=//", Err(SkipKind::Everything)),
            ("address=/a*.example/", Err(SkipKind::Pattern)),
            ("address=/com/", Err(SkipKind::PublicSuffix)),
            ("address=/a b.example/", Err(SkipKind::SeveralWords)),
            ("domain-needed", Err(SkipKind::Directive)),
            ("cache-size=1000", Err(SkipKind::Directive)),
            ("address=a.example", Err(SkipKind::Directive)),
        ],
    );
}

#[test]
fn of_an_unbound_configuration_refusals_are_read() {
    holds(
        Format::Unbound,
        &[
            ("# a remark", Ok(&[])),
            ("server:", Ok(&[])),
            ("local-zone: \"a.example\" always_nxdomain", Ok(&["a.example"])),
            ("local-zone: \"a.example.\" refuse", Ok(&["a.example"])),
            ("local-zone: a.example static # why", Ok(&["a.example"])),
            ("local-zone: 'a.example' redirect", Ok(&["a.example"])),
            ("local-zone:\"a.example\" always_null", Ok(&["a.example"])),
            ("local-zone: \"a.example\" transparent", Ok(&["@a.example"])),
            ("local-zone: \"a.example\" nodefault", Err(SkipKind::ZoneType)),
            ("local-zone: \"a.example\"", Err(SkipKind::ZoneType)),
            ("local-zone: \".\" refuse", Err(SkipKind::Everything)),
            ("local-zone: \"com\" refuse", Err(SkipKind::PublicSuffix)),
            ("local-data: \"a.example A 0.0.0.0\"", Ok(&["=a.example"])),
            ("local-data: \"a.example. 60 IN AAAA ::\"", Ok(&["=a.example"])),
            ("local-data: \"a.example A 192.0.2.1\"", Err(SkipKind::Rewrite)),
            ("local-data: \"a.example CNAME b.example\"", Err(SkipKind::Rewrite)),
            ("verbosity: 1", Err(SkipKind::Directive)),
            ("include: other.conf", Err(SkipKind::Directive)),
            ("nonsense", Err(SkipKind::Directive)),
        ],
    );
}

#[test]
fn the_format_is_told_by_the_first_lines() {
    for (text, expected) in [
        ("", Format::Domains),
        ("# nothing but remarks\n", Format::Domains),
        ("a.example\n=b.example\n", Format::Domains),
        ("\u{feff}# Title\n0.0.0.0 a.example\n0.0.0.0 b.example\n", Format::Hosts),
        ("127.0.0.1 localhost\n::1 localhost\nfe80::1%lo0 localhost\n", Format::Hosts),
        ("[Adblock Plus]\n! Title\n||a.example^\n", Format::Adblock),
        ("! Title\na.example\n@@||b.example^\n||c.example^\n", Format::Adblock),
        ("# remark\naddress=/a.example/\nserver=/b.example/\n", Format::Dnsmasq),
        ("server:\nlocal-zone: \"a.example\" refuse\n", Format::Unbound),
    ] {
        assert_eq!(detect(text.as_bytes()), expected, "{text:?}");
    }
    // What stands further down does not count.
    let text = "a.example\n".repeat(150) + &"0.0.0.0 b.example\n".repeat(1000);
    assert_eq!(detect(text.as_bytes()), Format::Domains);
}

#[test]
fn what_is_no_list_is_refused_whole() {
    assert_eq!(read("a.example\n\0\0\n", Format::Domains).1, Err(ListError::Binary { line: 2 }));
    let page = "<html>\n<body>not found</body>\n</html>\na.example\n";
    let garbage = ListError::Garbage { bad: 3, content: 4, line: 1, reason: SkipReason::Octet(b'<') };
    assert_eq!(read(page, Format::Domains).1, Err(garbage));
    let garbage = ListError::Garbage { bad: 3, content: 4, line: 1, reason: SkipReason::Octet(b'<') };
    assert_eq!(read(page, Format::Adblock).1, Err(garbage), "tags are no patterns");
    let (_, other) = read("0.0.0.0 a.example\n0.0.0.0 b.example\n", Format::Domains);
    assert!(matches!(other, Err(ListError::Garbage { reason: SkipReason::SeveralWords, .. })));
    // One bad line in four is still a list.
    assert!(read("a.example\nb.example\nc.example\n<\n", Format::Domains).1.is_ok());
    let wide: Vec<u8> = "a.example\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&[0xff, 0xfe][..], &wide].concat();
    assert_eq!(read(marked, Format::Domains).1, Err(ListError::Charset { charset: "UTF-16" }));
    assert_eq!(read(wide, Format::Domains).1, Err(ListError::Binary { line: 1 }));
    let latin = b"b\xfcro.example\nh\xf6fe.example\nok.example\n";
    assert!(matches!(read(latin, Format::Domains).1, Err(ListError::Garbage { reason: SkipReason::NotText, .. })));
    let long = b"a.example\n".iter().copied().chain(std::iter::repeat_n(b'x', 64 << 20)).collect::<Vec<_>>();
    assert_eq!(read(long, Format::Domains).1, Err(ListError::Endless { line: 2 }));
    // Filters of hostile hosts name more addresses than names, which are no names; a list of names has none.
    let (hosts, names) =
        ("||192.0.2.1^\n||192.0.2.2:8080^\n||[2001:db8::1]^\n||a.example^\n", "192.0.2.1\n192.0.2.2\na.example\n");
    let (seen, report) = read(hosts, Format::Adblock);
    assert_eq!((seen, report.expect("a list").skipped), (vec!["4:a.example".to_owned()], 3));
    assert!(matches!(read(names, Format::Domains).1, Err(ListError::Garbage { reason: SkipReason::Address, .. })));
    // A page in a filter list's clothes: options and parts of pages are a filter list's own.
    assert!(read("||a.example^$script\n##.x\n/y/\n", Format::Adblock).1.is_ok());
}

#[test]
fn what_a_sink_does_not_take_is_passed_over_by_its_word() {
    let report = parse(b"a.example\nb.example\n".as_slice(), Format::Domains, None, |entry| {
        if entry.line == 2 { Err(SkipReason::TooManyExceptions) } else { Ok(()) }
    });
    let report = report.expect("readable");
    assert_eq!((report.entries, report.skipped, report.reasons[&SkipKind::TooManyExceptions]), (1, 1, 1));
}

#[test]
fn a_name_error_is_told_in_words() {
    assert_eq!(SkipReason::Name(NameError::EmptyLabel).to_string(), "empty label");
    for kind in SkipKind::ALL {
        assert_eq!(serde_json::to_string(&kind).expect("text"), format!("\"{}\"", kind.as_str()));
    }
}

proptest! {
    #[test]
    fn is_total_and_counts_every_line(octets in proptest::collection::vec(
        prop_oneof![
            proptest::sample::select(b"\n. #a1=,|^@$/:\"*".to_vec()),
            any::<u8>()
        ], 0..400))
    {
        for format in ALL {
            let mut entries = 0u32;
            let mut told = 0u32;
            let sink = |e: Entry<'_>| {
                entries += 1;
                assert!(!e.name.is_root());
                Ok(())
            };
            if let Ok(report) = parse_telling(&octets[..], format, None, sink, |_| told += 1) {
                prop_assert_eq!((report.entries, report.skipped), (entries, told));
                prop_assert_eq!(report.reasons.values().sum::<u32>(), told);
                prop_assert_eq!(report.first_skipped.len() as u32, told.min(SHOWN_SKIPS as u32));
            }
            if let Ok(survey) = crate::lists::survey(&octets[..], Some(format)) {
                let mut denied = 0;
                let counted = parse(&octets[..], format, None, |e| { denied += u64::from(!e.exception); Ok(()) });
                prop_assert!(counted.is_err() || denied <= survey.most, "{denied} of {}", survey.most);
            }
        }
    }
}
