use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use proptest::strategy::Strategy;

use super::*;

const ZONE: &str = "\
$TTL 300
@       IN SOA ns.corp.test. admin.corp.test. 1 3600 600 86400 60
@       IN NS  ns
ns      IN A   192.0.2.53
Www     IN A   203.0.113.80
www     IN AAAA 2001:db8::80
local   IN A   127.0.0.1
inside  IN A   10.1.2.3
alias   IN CNAME www
out     IN CNAME www.zone.example.
*.led   IN CNAME www
deep.ent IN A  203.0.113.81
*.wild  IN A   203.0.113.82
host.wild IN TXT \"here\"
*       IN TXT \"far up\"
svc     IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.83
";

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

fn origin() -> NameBuf {
    NameBuf::from_text("corp.test").expect("name")
}

fn load(text: &str) -> Result<Zones, ZoneError> {
    let file = file(text);
    Zones::load(&[(origin(), file.path().into())])
}

async fn ask(zones: &Zones, qname: &str, rtype: RecordType) -> Message {
    let qname = NameBuf::from_text(qname).expect("name");
    let reply = zones.answer(qname.as_ref(), Qtype(u16::from(rtype))).await;
    Message::from_vec(&reply).expect("a reply")
}

#[tokio::test]
async fn names_of_the_zone_are_answered_with_authority() {
    let zones = load(ZONE).expect("a zone");
    use RecordType as T;
    use ResponseCode::{NXDomain, NoError};
    // Name, type, response code, answers.
    let rows: [(&str, T, ResponseCode, usize); 27] = [
        ("www.corp.test", T::A, NoError, 1),
        ("WWW.Corp.TEST", T::AAAA, NoError, 1),
        ("www.corp.test", T::MX, NoError, 0),
        ("inside.corp.test", T::A, NoError, 1),
        ("local.corp.test", T::A, NoError, 1),
        ("corp.test", T::SOA, NoError, 1),
        ("corp.test", T::A, NoError, 0),
        ("svc.corp.test", T::HTTPS, NoError, 1),
        // Empty non-terminal: exists, has nothing, and is closer than the wildcard above it.
        ("ent.corp.test", T::A, NoError, 0),
        ("other.ent.corp.test", T::TXT, NXDomain, 0),
        ("a.wild.corp.test", T::A, NoError, 1),
        ("a.b.wild.corp.test", T::A, NoError, 1),
        ("a.wild.corp.test", T::TXT, NoError, 0),
        // The name exists: no wildcard answers for it.
        ("host.wild.corp.test", T::A, NoError, 0),
        ("x.host.wild.corp.test", T::A, NXDomain, 0),
        ("new.corp.test", T::TXT, NoError, 1),
        ("corp.test", T::DS, NoError, 0),
        ("www.corp.test", T::DS, NoError, 0),
        ("corp.test", T::DNSKEY, NoError, 0),
        ("www.corp.test", T::RRSIG, NoError, 0),
        ("www.corp.test", T::NSEC, NoError, 0),
        // What stands beside an alias is asked of the alias itself.
        ("alias.corp.test", T::RRSIG, NoError, 0),
        ("alias.corp.test", T::NSEC, NoError, 0),
        ("out.corp.test", T::RRSIG, NoError, 0),
        ("x.led.corp.test", T::NSEC, NoError, 0),
        ("www.corp.test", T::Unknown(999), NoError, 0),
        ("x.www.corp.test", T::TXT, NXDomain, 0),
    ];
    for (qname, rtype, rcode, answers) in rows {
        let reply = ask(&zones, qname, rtype).await;
        let what = format!("{qname} {rtype}");
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (rcode, answers), "{what}");
        assert!(reply.metadata.authoritative, "{what}");
        if answers == 0 {
            let soa = &reply.authorities[0];
            assert_eq!((soa.record_type(), soa.name.to_string().as_str()), (T::SOA, "corp.test."), "{what}");
        } else {
            assert_eq!(reply.answers[0].name.to_string().to_lowercase(), format!("{}.", qname.to_lowercase()));
        }
    }
}

#[tokio::test]
async fn a_wildcard_answers_for_names_of_any_labels_and_for_any_type() {
    let zones = load(&format!("{ZONE}*.mail IN MX 10 www\n* IN A 203.0.113.85\n")).expect("a zone");
    for (qname, asked, found) in [
        // What stands farther up is not of these names.
        ("x.mail.corp.test", RecordType::ANY, RecordType::MX),
        ("x.wild.corp.test", RecordType::ANY, RecordType::A),
        ("x.led.corp.test", RecordType::ANY, RecordType::CNAME),
        // An asterisk of the question's own is a label like any other (RFC 4592 section 2.3).
        ("*.x.mail.corp.test", RecordType::MX, RecordType::MX),
        ("*.new.corp.test", RecordType::TXT, RecordType::TXT),
        ("*.x.led.corp.test", RecordType::CNAME, RecordType::CNAME),
        ("*.mail.corp.test", RecordType::ANY, RecordType::MX),
    ] {
        let reply = ask(&zones, qname, asked).await;
        let told: Vec<_> = reply.answers.iter().map(|r| (r.name.to_string(), r.record_type())).collect();
        assert_eq!(told, [(format!("{qname}."), found)], "{qname} {asked}");
    }
    for qname in ["*.x.mail.corp.test", "x.mail.corp.test"] {
        let reply = ask(&zones, qname, RecordType::A).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0), "{qname}");
    }
    let reply = ask(&zones, "*.other.ent.corp.test", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_wildcard_that_leads_to_addresses_answers_for_names_of_any_labels() {
    let zones = load(&format!("{ZONE}*.front IN ANAME www\n*.nowhere IN ANAME www.zone.example.\n")).expect("a zone");
    for qname in ["x.front.corp.test", "x.y.front.corp.test", "*.front.corp.test", "*.x.front.corp.test"] {
        for (asked, address) in [(RecordType::A, "203.0.113.80"), (RecordType::AAAA, "2001:db8::80")] {
            let reply = ask(&zones, qname, asked).await;
            let told = reply.answers.iter().map(|r| (r.name.to_string(), r.record_type(), r.data.to_string()));
            let wanted = (format!("{qname}."), asked, address.to_owned());
            assert_eq!(told.collect::<Vec<_>>(), [wanted], "{qname} {asked}");
        }
        let reply = ask(&zones, qname, RecordType::MX).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0), "{qname}");
    }
    for qname in ["x.nowhere.corp.test", "*.x.nowhere.corp.test"] {
        let reply = ask(&zones, qname, RecordType::A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{qname}");
        assert!(!reply.answers.iter().any(|record| record.record_type() == RecordType::A), "{qname}");
    }
}

#[tokio::test]
async fn aliases_are_told_one_by_one() {
    let zones = load(ZONE).expect("a zone");
    for (qname, target) in [
        ("alias.corp.test", Some("www.corp.test")),
        ("out.corp.test", Some("www.zone.example")),
        ("a.led.corp.test", Some("www.corp.test")),
        ("www.corp.test", None),
        ("gone.www.corp.test", None),
        ("www.zone.example", None),
    ] {
        let qname = NameBuf::from_text(qname).expect("name");
        let target = target.map(|target| (NameBuf::from_text(target).expect("name"), 300));
        assert_eq!(zones.alias(qname.as_ref()).await, target, "{qname}");
    }
}

#[tokio::test]
async fn covers_compares_labels() {
    let zones = load(ZONE).expect("a zone");
    for (text, covered) in
        [("corp.test", true), ("a.b.corp.test", true), ("xcorp.test", false), ("test", false), (".", false)]
    {
        let name = NameBuf::from_text(text).expect("name");
        assert_eq!(zones.covers(name.as_ref()), covered, "{text}");
    }
    assert!(!Zones::default().covers(origin().as_ref()));
    let reply = ask(&zones, "example.com", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn transfers_are_refused() {
    let zones = load(ZONE).expect("a zone");
    for rtype in [RecordType::AXFR, RecordType::IXFR] {
        let reply = ask(&zones, "corp.test", rtype).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{rtype}");
        assert!(reply.answers.is_empty());
    }
}

#[tokio::test]
async fn a_number_in_a_string_is_one_octet() {
    let zones = load(&format!("{ZONE}text IN TXT \"\\065 \\034\" \"v=1\\; p\"\n")).expect("a zone");
    let reply = ask(&zones, "text.corp.test", RecordType::TXT).await;
    let RData::TXT(text) = &reply.answers[0].data else { panic!("{reply:?}") };
    let texts: Vec<&[u8]> = text.txt_data.iter().map(|text| &**text).collect();
    assert_eq!(texts, [&b"A \""[..], b"v=1; p"]);
}

#[tokio::test]
async fn parameters_of_services_are_answered_in_the_order_of_their_numbers() {
    let text = "ooo IN HTTPS 1 . no-default-alpn alpn=h3\nquoted IN HTTPS 1 . port=443 alpn=\"h2,h3\"\n";
    let zones = load(&format!("{ZONE}{text}")).expect("a zone");
    for name in ["ooo.corp.test", "quoted.corp.test"] {
        let reply = ask(&zones, name, RecordType::HTTPS).await;
        let RData::HTTPS(https) = &reply.answers[0].data else { panic!("{reply:?}") };
        let keys: Vec<u16> = https.svc_params.iter().map(|(key, _)| (*key).into()).collect();
        assert!(keys.len() == 2 && keys.is_sorted(), "{name}: {keys:?}");
    }
}

#[tokio::test]
async fn an_at_in_data_is_the_origin() {
    let text = "apex IN CNAME @\n$ORIGIN sub\nmail IN MX 10 @\n";
    let zones = load(&format!("{ZONE}{text}")).expect("a zone");
    for (qname, rtype, data) in [
        ("apex.corp.test", RecordType::CNAME, "corp.test."),
        ("mail.sub.corp.test", RecordType::MX, "10 sub.corp.test."),
    ] {
        let reply = ask(&zones, qname, rtype).await;
        assert_eq!(reply.answers[0].data.to_string(), data, "{qname}");
    }
}

#[tokio::test]
async fn records_of_a_set_live_alike() {
    let text =
        "mail 600 IN MX 10 www\nmail IN MX 20 ns\nmail 900 IN MX 0 .\n*.m 600 IN MX 10 www\n*.m 60 IN MX 20 ns\n";
    let zones = load(&format!("{ZONE}{text}")).expect("a zone");
    for (qname, ttls) in [("mail.corp.test", &[300; 3][..]), ("x.m.corp.test", &[60; 2])] {
        let reply = ask(&zones, qname, RecordType::MX).await;
        assert_eq!(reply.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), ttls, "{qname}");
    }
}

#[test]
fn a_file_may_begin_with_the_mark_of_utf_8() {
    assert!(load(&format!("\u{feff}{ZONE}")).is_ok());
}

#[tokio::test]
async fn strings_between_parentheses_are_strings() {
    let text = "k1 IN TXT ( \"v=DKIM1; k=rsa;\" ; a comment (\n  \"p=abc def\" )\nbehind IN A 203.0.113.84\n";
    let zones = load(&format!("{ZONE}{text}")).expect("a zone");
    let reply = ask(&zones, "k1.corp.test", RecordType::TXT).await;
    let RData::TXT(text) = &reply.answers[0].data else { panic!("{reply:?}") };
    let texts: Vec<&[u8]> = text.txt_data.iter().map(|text| &**text).collect();
    assert_eq!(texts, [&b"v=DKIM1; k=rsa;"[..], b"p=abc def"]);
    assert_eq!(ask(&zones, "behind.corp.test", RecordType::A).await.answers.len(), 1);
}

#[test]
fn included_files_are_read_as_they_are_meant_or_not_at_all() {
    let dir = tempfile::tempdir().expect("directory");
    let zone = dir.path().join("corp.zone");
    for (text, good) in [
        ("inc IN A 192.0.2.1\n", true),
        ("inc IN TXT \"plain\"\nmail IN MX ( 10\n www )\n", true),
        ("inc IN TXT \"\\065\"\n", false),
        ("inc IN TXT ( \"a b\" )\n", false),
        ("inc IN CNAME @\n", false),
        ("$INCLUDE more.zone\n", false),
    ] {
        std::fs::write(&zone, format!("{ZONE}$INCLUDE more.zone\n")).expect("written");
        std::fs::write(dir.path().join("more.zone"), text).expect("written");
        let loaded = Zones::load(&[(origin(), zone.clone())]);
        assert_eq!(loaded.is_ok(), good, "{text}: {loaded:?}");
        if let Err(error) = loaded {
            assert_eq!(error.line(), ZONE.lines().count() as u32 + 1, "{error}");
        }
    }
}

#[tokio::test]
async fn an_origin_of_an_included_file_does_not_hold_behind_it() {
    let dir = tempfile::tempdir().expect("directory");
    let zone = dir.path().join("corp.zone");
    let more = "$ORIGIN sub.corp.test.\ninc IN A 192.0.2.1\n";
    for (more, behind, good) in [
        (more, "behind IN A 192.0.2.2\n", false),
        (more, "; all\n", true),
        (more, "\n$ORIGIN corp.test.\nbehind IN A 192.0.2.2\n", true),
        ("$INCLUDE last.zone\n", "behind IN A 192.0.2.2\n", false),
    ] {
        std::fs::write(dir.path().join("more.zone"), more).expect("written");
        std::fs::write(dir.path().join("last.zone"), "$ORIGIN sub.corp.test.\n").expect("written");
        std::fs::write(&zone, format!("{ZONE}$INCLUDE more.zone\n{behind}")).expect("written");
        let loaded = Zones::load(&[(origin(), zone.clone())]);
        assert_eq!(loaded.is_ok(), good, "{more}{behind}: {loaded:?}");
        match loaded {
            Ok(zones) if behind.contains("192") => {
                assert_eq!(ask(&zones, "behind.corp.test", RecordType::A).await.answers.len(), 1);
            }
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.line(), ZONE.lines().count() as u32 + 1, "{error}");
                assert!(error.to_string().contains("write $ORIGIN as the next line"), "{error}");
            }
        }
    }
}

#[test]
fn bad_files_are_told_with_their_line() {
    let lines = ZONE.lines().count();
    let text = |extra: &str| load(&format!("{ZONE}{extra}\nlast IN A 192.0.2.1\n")).err();
    for extra in [
        "bad IN A 300.1.1.1",
        "bad IN NOSUCHTYPE x",
        "bad IN AAAA 10.0.0.1",
        "bad IN MX x",
        "bad IN TXT \"\\200\"",
        "bad IN HTTPS 1 . alpn=h2,h2 alpn=h3",
        "bad IN SVCB 1 . port=1 alpn=h2 port=1",
    ] {
        match text(extra) {
            Some(ZoneError::Text { line, what, .. }) => assert_eq!(line, Some(lines + 1), "{extra}: {what}"),
            other => panic!("{extra}: {other:?}"),
        }
    }
    for extra in ["www.example.org. IN A 192.0.2.1", "sub IN NS ns.example.org.", "alias IN A 192.0.2.1"] {
        assert!(matches!(text(extra), Some(ZoneError::Content { .. })), "{extra}: {:?}", text(extra));
    }
    let many = |count: usize| (0..count).map(|i| format!("many IN A 203.0.113.{i}\n")).collect::<String>();
    assert!(matches!(text(&many(65)), Some(ZoneError::Content { .. })), "more than an answer shows");
    assert!(text(&many(64)).is_none());
    assert!(matches!(load("www IN A 192.0.2.1\n"), Err(ZoneError::Content { .. } | ZoneError::Text { .. })));
    let missing = Zones::load(&[(origin(), "/nonexistent/zone".into())]);
    assert!(matches!(missing, Err(ZoneError::Read { .. })));
    let file = file(ZONE);
    let twice = Zones::load(&[(origin(), file.path().into()), (origin(), file.path().into())]);
    assert!(matches!(twice, Err(ZoneError::Content { .. })));
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_zone_or_an_error(
        words in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(vec![
                    "@", "$TTL", "$ORIGIN", "$INCLUDE", "IN", "A", "SOA", "(", ")", "\n", "\"", ";", "1", "*", "TXT",
                    "HTTPS", "1.2.3.4", ".", "a..b", "\\", "\\300", "TYPE65399", "\\# 4 00000000", "CNAME", "99999999999",
                ]).prop_map(str::to_string),
                ".{0,6}",
            ],
            0..40,
        )
    ) {
        let text = words.join(" ");
        let origin = name(origin().as_ref());
        if let Err(what) = parse(&text, Path::new("/nonexistent/zone"), &origin) {
            let _ = line_of(&what, &text, Path::new("/nonexistent/zone"), &origin);
        }
    }
}

#[test]
fn what_is_above_a_zone_is_known() {
    let zones = load(ZONE).expect("a zone");
    let below = |text: &str| zones.any_below(NameBuf::from_text(text).expect("name").as_ref());
    assert!(below("test") && zones.any_below(NameRef::ROOT));
    assert!(!below("corp.test") && !below("www.corp.test") && !below("example"));
}

#[test]
fn a_dname_is_no_zone_and_is_told_of() {
    let error = load(&format!("{ZONE}old IN DNAME new.example.\n")).expect_err("no zone");
    assert!(matches!(error, ZoneError::Text { .. }), "{error}");
    assert!(error.remedy().contains("without DNAME"), "{error}: {}", error.remedy());
}
