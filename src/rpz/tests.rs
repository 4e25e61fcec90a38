//! Zones as text, and what they say of questions and answers.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use staunch_scoring::{NameBuf, NameRef};

use super::*;
use crate::lists::HashKey;
use crate::model::Qtype;

const HEAD: &str = "$TTL 60\n@ IN SOA ns.test. admin.test. 3 3600 600 86400 60\n@ NS ns.test.\n";

fn key() -> HashKey {
    HashKey::from_random(std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11)))
}

fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("name")
}

fn read(text: &str, lenient: bool) -> Result<Rules, Errors> {
    parse(text.as_bytes(), name("rpz.test").as_ref(), "z.zone", &key(), lenient)
}

fn zone(id: &str, policy: Override, rules: &str) -> Zone {
    let rules = read(&format!("{HEAD}{rules}"), false).unwrap_or_else(|errors| panic!("{errors}"));
    let settings = Settings { id: id.into(), policy, log: true, trusted: false, max_ttl: 60, ede: Ede::Blocked };
    Zone { settings, rules: Arc::new(rules), counters: Arc::default(), awaited: false }
}

/// Zone, trigger, action and line of what decides.
fn shown(hit: Option<Hit<'_>>) -> String {
    hit.map_or("-".into(), |hit| {
        let (zone, line) = (&hit.zone.settings.id, hit.reference().line);
        format!("{zone} {} {} {line}", hit.trigger.as_str(), hit.action.as_str())
    })
}

#[test]
fn mistakes_are_told_by_their_lines() {
    for (text, line, what, unsupported) in [
        ("a.example CNAME", 4, "the name is missing", false),
        ("\na.example CNAME . .", 5, "too much", false),
        ("a.example A 1.2.3", 4, "`1.2.3` is no good here", false),
        ("a.example AAAA ::1 2", 4, "too much", false),
        ("a.example WHAT x", 4, "neither TTL nor class nor type", false),
        ("a.example CH TXT x", 4, "neither TTL nor class nor type", false),
        ("a.example", 4, "without a type", false),
        ("a..example CNAME .", 4, "a..example", false),
        ("outside.example. CNAME .", 4, "outside the zone", true),
        ("x.rpz-nsdname CNAME .", 4, "sees no name servers", true),
        ("32.1.2.3.4.rpz-nsip CNAME .", 4, "sees no name servers", true),
        ("a.rpz-new CNAME .", 4, "no such trigger", true),
        ("a.example CNAME rpz-new.", 4, "no action", true),
        ("a.example DNAME b.example.", 4, "no meaning as a policy", true),
        ("a.example NS b.example.", 4, "no meaning as a policy", true),
        ("33.1.2.3.4.rpz-ip CNAME .", 4, "33 bits", true),
        ("24.1.2.3.4.rpz-client-ip CNAME .", 4, "4.3.2.0/24 is meant", true),
        ("rpz-ip CNAME .", 4, "no prefix", true),
        ("a.example CNAME .\na.example A 192.0.2.1", 5, "a CNAME beside other records", false),
        ("a.example A 192.0.2.1\na.example CNAME x.example.", 5, "a CNAME beside other records", false),
        ("a.example CNAME .\na.example CNAME *.", 5, "a CNAME beside other records", false),
        ("a.example CNAME x.example.\na.example CNAME y.example.", 5, "a CNAME beside other records", false),
        ("$INCLUDE other.zone", 4, "$INCLUDE is not followed", false),
        ("$GENERATE 1-9 a$ CNAME .", 4, "$GENERATE is not followed", false),
        ("$WHAT", 4, "no directive", false),
        ("$TTL much", 4, "no TTL", false),
        ("a.example TXT \"open", 4, "quotation mark", false),
        ("a.example TXT x )", 4, "never opened", false),
        ("a.example ( CNAME\n.", 4, "never closed", false),
        ("a.example CNAME x\\", 4, "backslash", false),
        ("a.example TYPE999 \\# 2 00", 4, "2 octets are announced", false),
        ("a.example TYPE999 \\# 1 0g", 4, "not hexadecimal", false),
        ("a.example TYPE65 \\# 0", 0, "", false),
        ("a.example TYPE999 x", 4, "as \\# length hex", false),
        ("a.example TYPE41 \\# 0", 4, "no type of data", false),
        ("a.example TYPE1 \\# 3 000000", 4, "malformed", false),
        ("@ SOA ns.test. admin.test. 4 1 1 1 1", 4, "a second SOA", false),
    ] {
        let outcome = read(&format!("{HEAD}{text}\n"), false);
        if line == 0 {
            outcome.unwrap_or_else(|errors| panic!("{text}: {errors}"));
            continue;
        }
        let errors = outcome.expect_err(text);
        let problem = errors.first.last().expect("a mistake");
        assert!(problem.line == line && problem.what.contains(what), "{text}: {problem}");
        assert_eq!(problem.unsupported, unsupported, "{text}");
        assert!(!problem.remedy.is_empty());
        assert_eq!(problem.remedy.contains("unsupported = \"ignore\""), unsupported, "{text}: {problem}");
        let lenient = read(&format!("{HEAD}{text}\n"), true);
        assert_eq!(lenient.map(|rules| rules.left_out()).ok(), unsupported.then_some(1), "{text}");
    }
    let missing = read("a.example CNAME .\n", false).expect_err("no SOA");
    assert!(missing.first[0].what.contains("no SOA") && missing.first[0].line == 0);
    let blank = read(&format!("  CNAME .\n{HEAD}"), false).expect_err("no owner");
    assert!(blank.first[0].what.contains("without an owner"));
    let many: String = (0..50).map(|i| format!("x{i}.rpz-nsip CNAME .\n")).collect();
    let errors = read(&format!("{HEAD}{many}"), false).expect_err("many");
    assert_eq!((errors.first.len(), errors.more, errors.first[19].line), (Errors::KEPT, 30, 23));
}

#[test]
fn the_master_file_form_is_read_as_written() {
    let text = "\u{feff}$ORIGIN test.\n$TTL 1h\nrpz IN SOA ns admin ( 2026112901 ; serial\n 1h 10m 1w 60 )\n\trpz NS ns\n\
                $ORIGIN rpz.test.\nA.Example 30 IN CNAME . ; comment\n\t\n  ; a comment alone\nb.example IN 2m TXT \"a;b\" c\\032d\n\
                \tTXT \"second\"\n$ORIGIN sub\n@ CNAME *.\nc\\.d CNAME .\nh HTTPS 1 . alpn=h2\n\
                x.rpz.test. CAA 0 issue \"ca.example\"\n1.rpz.test. TYPE1 \\# 4 c0000201\r\n";
    let text = text.replace("\trpz NS ns\n", "");
    let rules = read(&text, false).unwrap_or_else(|errors| panic!("{errors}"));
    let soa = Soa { serial: 2_026_112_901, refresh: 3600, retry: 600, expire: 604_800, minimum: 60 };
    assert_eq!((rules.soa(), rules.len()), (soa, 7));
    let zones = Snapshot::new([Zone { rules: Arc::new(rules), ..zone("z", Override::Given, "") }]);
    let none: IpAddr = [192, 0, 2, 1].into();
    for (asked, expected) in [
        ("a.example", "z qname nxdomain 6"),
        ("b.example", "z qname local-data 9"),
        ("sub", "z qname nodata 12"),
        ("c\\.d.sub", "z qname nxdomain 13"),
        ("h.sub", "z qname local-data 14"),
        ("x", "z qname local-data 15"),
        ("1", "z qname local-data 16"),
        ("c.d.sub", "-"),
    ] {
        assert_eq!(shown(zones.question(name(asked).as_ref(), none).hit), expected, "{asked}");
    }
    let hit = zones.question(name("b.example").as_ref(), none).hit.expect("found");
    let (response, count) = hit.response(name("b.example").as_ref(), Qtype::TXT);
    assert_eq!(count, 2);
    assert!(response.windows(8).any(|w| w == b"\x03a;b\x03c d"), "{response:?}");
    // The zone's limit, below what the record says.
    assert!(response.windows(4).any(|w| w == 60u32.to_be_bytes()));
}

#[test]
fn names_in_any_data_are_relative_to_the_origin() {
    let text = "h.example HTTPS 1 rel alpn=h2\nabs.example HTTPS 0 rel.test.\nhere.example SVCB 1 @\nown.example HTTPS 1 .\n\
                q.example HTTPS 1 . port=\"443\" alpn=\"h2,h3\"\ntxt.example TXT v=\"a b\"\n\
                n.example NAPTR 10 20 S SIP+D2U \"\" rel\nm.example MX 10 rel\n$ORIGIN below.rpz.test.\n@ SVCB 1 r\\.l port=853\n";
    let zones = Snapshot::new([zone("z", Override::Given, text)]);
    let none: IpAddr = [192, 0, 2, 1].into();
    for (asked, qtype, expected) in [
        ("h.example", Qtype::HTTPS, &b"\0\x01\x03rel\x03rpz\x04test\0\0\x01\0\x03\x02h2"[..]),
        ("abs.example", Qtype::HTTPS, b"\0\0\x03rel\x04test\0"),
        ("here.example", Qtype::SVCB, b"\0\x01\x03rpz\x04test\0"),
        ("own.example", Qtype::HTTPS, b"\0\x01\0"),
        // In any order, and quoted; elsewhere a quotation mark begins another word.
        ("q.example", Qtype::HTTPS, b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x01\xbb"),
        ("txt.example", Qtype::TXT, b"\x02v=\x03a b"),
        ("n.example", Qtype(35), b"\0\x0a\0\x14\x01S\x07SIP+D2U\0\x03rel\x03rpz\x04test\0"),
        ("m.example", Qtype::MX, b"\0\x0a\x03rel\x03rpz\x04test\0"),
        ("below", Qtype::SVCB, b"\0\x01\x03r.l\x05below\x03rpz\x04test\0\0\x03\0\x02\x03\x55"),
    ] {
        let hit = zones.question(name(asked).as_ref(), none).hit.expect(asked);
        let (response, count) = hit.response(name(asked).as_ref(), qtype);
        assert!(count == 1 && response.ends_with(expected), "{asked}: {}", response.escape_ascii());
        let length =
            response[response.len() - expected.len() - 2..].first_chunk().map(|pair| u16::from_be_bytes(*pair));
        assert_eq!(length, Some(expected.len() as u16), "{asked}");
    }
}

#[test]
fn parameters_that_cannot_be_read_are_told() {
    for (text, what) in [
        ("bad.example HTTPS 1 . alpn=h2 alpn=\"h3\"\n", "twice"),
        ("bad.example HTTPS 1 . key65300=\"a;b\"\n", "not read here"),
        ("bad.example HTTPS 1 . key65300=\"a b\"\n", "not read here"),
        ("bad.example HTTPS 1 . key65300=\"a\\\"b\"\n", "not read here"),
        ("bad.example HTTPS 1 . alpn=\"h2\nnext.example CNAME .\n", "never closed"),
    ] {
        let error = read(&format!("{HEAD}{text}"), false).map(|_| ()).expect_err(text).to_string();
        let line = format!("line {}: ", HEAD.lines().count() + 1);
        assert!(error.contains(what) && error.contains(&line), "{text}: {error}");
    }
}

#[test]
fn an_alias_below_a_wildcard_to_the_very_name_that_is_asked_for_lets_it_pass() {
    let rules = "*.wild.example CNAME self.wild.example.\n32.1.2.0.192.rpz-ip CNAME by-address.example.\n";
    let written = [zone("z", Override::Given, rules)];
    let forced = [zone("z", Override::Nxdomain, rules)];
    let (written, forced) = (Snapshot::new(written), Snapshot::new(forced));
    let client: IpAddr = [203, 0, 113, 1].into();
    for (asked, expected) in [("self.wild.example", "z qname passthru 4"), ("x.wild.example", "z qname local-data 4")] {
        assert_eq!(shown(written.question(name(asked).as_ref(), client).hit), expected, "{asked}");
        // What is done whatever a zone's records say is done here, too.
        assert_eq!(shown(forced.question(name(asked).as_ref(), client).hit), "z qname nxdomain 4", "{asked}");
    }
    // At an address it is an alias like any other, with BIND as well.
    let answer = Answer(Vec::new(), vec![[192, 0, 2, 1].into()]);
    let found = written.answer(name("by-address.example").as_ref(), client, false, &answer, &Nobody);
    assert_eq!(shown(found.hit), "z response-ip local-data 5");
    let found = written.answer(name("self.wild.example").as_ref(), client, false, &answer, &Nobody);
    assert_eq!(shown(found.hit), "-", "what passes by its name is not looked at by its addresses");
}

#[test]
fn a_wildcard_ends_where_a_longer_name_exists() {
    let zones = Snapshot::new([zone(
        "z",
        Override::Given,
        "*.example CNAME .\na.b.example CNAME *.\n*.c.example CNAME rpz-drop.\nself.example CNAME self.example.\n* CNAME rpz-tcp-only.\n",
    )]);
    let none: IpAddr = [192, 0, 2, 1].into();
    for (asked, expected) in [
        ("x.example", "nxdomain"),
        ("y.x.example", "nxdomain"),
        ("example", "-"),
        ("a.b.example", "nodata"),
        ("z.a.b.example", "-"),
        ("b.example", "-"),
        ("x.b.example", "-"),
        ("c.example", "-"),
        ("x.c.example", "drop"),
        ("y.x.c.example", "drop"),
        ("self.example", "passthru"),
        ("other.test", "tcp-only"),
        (".", "-"),
    ] {
        let found = zones.question(name(asked).as_ref(), none).hit.map_or("-", |hit| hit.action.as_str());
        assert_eq!(found, expected, "{asked}");
    }
}

struct Answer(Vec<NameBuf>, Vec<IpAddr>);

impl Chain for Answer {
    fn hops(&self) -> impl Iterator<Item = NameRef<'_>> {
        self.0.iter().map(NameBuf::as_ref)
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.1.iter().copied()
    }
}

struct Nobody;

impl Exempt for Nobody {
    fn name(&self, name: NameRef<'_>, _depth: usize) -> bool {
        name.to_string().starts_with("exempt.")
    }
}

#[test]
fn zones_go_in_their_order_and_within_one_client_before_name_before_address() {
    let zones = Snapshot::new([
        zone("off", Override::Disabled, "both.example CNAME .\n"),
        zone(
            "one",
            Override::Given,
            "pass.example CNAME rpz-passthru.\nboth.example CNAME *.\n32.9.2.0.192.rpz-client-ip CNAME rpz-drop.\n\
             32.8.2.0.192.rpz-client-ip CNAME rpz-passthru.\n24.0.100.51.198.rpz-ip CNAME *.\nhop.example CNAME rpz-tcp-only.\n",
        ),
        zone(
            "two",
            Override::Nxdomain,
            "pass.example A 192.0.2.1\nboth.example CNAME .\n32.1.100.51.198.rpz-ip CNAME rpz-passthru.\nlate.example CNAME *.\n",
        ),
    ]);
    let client = |last: u8| IpAddr::from([192, 0, 2, last]);
    for (asked, from, expected, logged) in [
        ("both.example", 1, "one qname nodata 5", "off qname nxdomain 4"),
        ("pass.example", 1, "one qname passthru 4", "-"),
        ("both.example", 9, "one client-ip drop 6", "off qname nxdomain 4"),
        ("both.example", 8, "one client-ip passthru 7", "off qname nxdomain 4"),
        ("late.example", 1, "two qname nxdomain 7", "-"),
        ("none.example", 1, "-", "-"),
    ] {
        let named = zones.question(name(asked).as_ref(), client(from));
        assert_eq!((shown(named.hit), shown(named.logged)), (expected.into(), logged.into()), "{asked} from {from}");
    }
    let far: IpAddr = [203, 0, 113, 1].into();
    let near: IpAddr = [198, 51, 100, 1].into();
    for (asked, hops, address, from, tcp, expected, depth) in [
        ("none.example", &[][..], near, 1, false, "one response-ip nodata 8", 0),
        ("none.example", &[], far, 1, false, "-", 0),
        // The name's own zone lets it pass before its addresses are looked at, and so no later zone is asked.
        ("pass.example", &[], near, 1, false, "-", 0),
        // What lets the first name pass lets all that it leads to pass.
        ("pass.example", &["late.example"][..], far, 1, false, "-", 0),
        ("pass.example", &["none.example"], near, 1, false, "-", 0),
        ("none.example", &["hop.example", "late.example"], far, 1, false, "one qname tcp-only 9", 1),
        ("none.example", &["hop.example", "late.example"], far, 1, true, "-", 0),
        ("none.example", &["late.example"], near, 8, false, "-", 0),
        ("none.example", &["exempt.late.example"], far, 1, false, "-", 0),
        ("late.example", &[], far, 1, false, "two qname nxdomain 7", 0),
    ] {
        let answer = Answer(hops.iter().map(|hop| name(hop)).collect(), vec![address]);
        let found = zones.answer(name(asked).as_ref(), client(from), tcp, &answer, &Nobody);
        assert_eq!((shown(found.hit), found.depth), (expected.into(), depth), "{asked} {hops:?} {address} {from}");
    }
}

#[test]
fn an_alias_leads_to_its_target_or_to_a_name_that_is_too_long() {
    let zones = Snapshot::new([zone(
        "z",
        Override::Given,
        "a.example 30 CNAME garden.test.\n*.wide.example 600 CNAME *.garden.test.\nb.example A 192.0.2.1\n",
    )]);
    let target = |asked: &str| {
        let asked = name(asked);
        let hit = zones.question(asked.as_ref(), [192, 0, 2, 1].into()).hit.expect("found");
        match hit.target(asked.as_ref()) {
            Target::None => "none".to_owned(),
            Target::TooLong => "too long".into(),
            Target::Name(name, ttl) => format!("{} {ttl}", name.as_ref()),
        }
    };
    assert_eq!(target("a.example"), "garden.test 30");
    assert_eq!(target("x.wide.example"), "x.wide.example.garden.test 60");
    assert_eq!(target("b.example"), "none");
    // Who asks for the alias itself gets it, and nothing else.
    for (asked, count, end) in [
        ("a.example", 1, &b"\0\0\0\x1e\0\x0d\x06garden\x04test\0"[..]),
        ("x.wide.example", 1, b"\0\0\0\x3c\0\x1c\x01x\x04wide\x07example\x06garden\x04test\0"),
        ("b.example", 0, b""),
    ] {
        let asked = name(asked);
        let hit = zones.question(asked.as_ref(), [192, 0, 2, 1].into()).hit.expect("found");
        let (response, records) = hit.response(asked.as_ref(), Qtype::CNAME);
        assert!(records == count && response.ends_with(end), "{asked}: {}", response.escape_ascii());
    }
    let label = "l".repeat(63);
    // A target of 255 octets is the longest; one more is none.
    for (last, expected) in [(36, false), (37, true)] {
        let asked = format!("{label}.{label}.{label}.{}.wide.example", "x".repeat(last));
        assert_eq!(target(&asked) == "too long", expected, "{last}");
    }
    let led = Snapshot::new([zone("z", Override::Cname(name("*.g.test")), "a.example CNAME .\n")]);
    let hit = led.question(name("a.example").as_ref(), [192, 0, 2, 1].into()).hit.expect("found");
    assert!(
        matches!(hit.target(name("a.example").as_ref()), Target::Name(to, _) if to.as_ref().to_string() == "a.example.g.test")
    );
}

#[test]
fn a_million_rules_stay_within_their_memory() {
    // Of the shape of a public feed: a domain and all below it.
    let count = 100_000;
    let text: String = (0..count / 2)
        .map(|i| format!("host{i}.zone{}.example CNAME .\n*.host{i}.zone{}.example CNAME .\n", i % 977, i % 977))
        .collect();
    let zones = Snapshot::new([zone("z", Override::Given, &text)]);
    let rules = &zones.zones()[0].rules;
    assert_eq!(rules.len(), count);
    assert!(rules.octets() <= 24 * count, "{} octets a rule", rules.octets() as f64 / count as f64);
    println!("{:.1} octets a rule", rules.octets() as f64 / count as f64);
    let none: IpAddr = [192, 0, 2, 1].into();
    assert!(zones.question(name("a.b.host7.zone7.example").as_ref(), none).hit.is_some());
    assert!(zones.question(name("host7.zone8.example").as_ref(), none).hit.is_none());
}

proptest! {
    #[test]
    fn any_octets_are_read_to_their_end(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&octets, name("rpz.test").as_ref(), "z", &key(), false);
        let _ = parse(&octets, name("rpz.test").as_ref(), "z", &key(), true);
    }

    #[test]
    fn any_words_are_read_to_their_end(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "*.b", "@", "$ORIGIN", "$TTL", "IN", "60", "1h", "A", "AAAA", "CNAME", "TXT", "SOA", "MX", "SRV", "HTTPS",
            "SVCB", "CAA", "NAPTR", "TLSA", "SSHFP", "HINFO", "TYPE65", "\\#", "4", "c0000201", ".", "*.", "rpz-drop.",
            "192.0.2.1", "::1", "\"q\"", "(", ")", ";", "\n", "\n", "\n", "\\", "\\032", "alpn=h2", "mandatory=alpn", "key5=x",
            "32.1.2.0.192.rpz-ip", "48.zz.db8.2001.rpz-client-ip", "x.rpz-nsip",
        ]), 0..60)) {
        let text = format!("{HEAD}{}", words.join(" "));
        let _ = read(&text, false);
        let _ = read(&text.replace("\n ", "\n"), true);
    }

    #[test]
    fn names_are_found_as_a_plain_reading_finds_them(
        rules in proptest::collection::btree_map(proptest::collection::vec(0u8..3, 1..4), (any::<bool>(), any::<bool>()), 0..12),
        asked in proptest::collection::vec(0u8..3, 1..5),
    ) {
        let text = |labels: &[u8]| labels.iter().map(|l| ["a", "b", "c"][*l as usize]).collect::<Vec<_>>().join(".");
        let mut file = String::new();
        let mut exists: Vec<Vec<u8>> = vec![Vec::new()];
        for (labels, (exact, wild)) in &rules {
            if *exact {
                file += &format!("{} CNAME .\n", text(labels));
            }
            if *wild {
                file += &format!("*.{} CNAME *.\n", text(labels));
            }
            if *exact || *wild {
                exists.extend((0..labels.len()).map(|i| labels[i..].to_vec()));
            }
        }
        let zones = Snapshot::new([zone("z", Override::Given, &file)]);
        let plain = if exists.contains(&asked) {
            rules.get(&asked).filter(|(exact, _)| *exact).map(|_| Action::Nxdomain)
        } else {
            let encloser = (1..=asked.len()).map(|i| &asked[i..]).find(|above| exists.iter().any(|e| e == above));
            let encloser = encloser.expect("the root exists");
            rules.get(encloser).filter(|(_, wild)| *wild).map(|_| Action::Nodata)
        };
        let found = zones.question(name(&text(&asked)).as_ref(), [192, 0, 2, 1].into()).hit.map(|hit| hit.action);
        prop_assert_eq!(found, plain, "{} in {}", text(&asked), file);
    }
}
