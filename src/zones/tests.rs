use hickory_proto::op::{Query, ResponseCode};
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

fn query(qname: &str, rtype: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(qname).expect("name"), rtype));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.edns = Some(edns);
    }
    message.to_vec().expect("a query")
}

async fn ask(zones: &Zones, query: &[u8], transport: Transport) -> (Message, Vec<IpAddr>, usize) {
    let from = "10.77.1.2:5353".parse().expect("address");
    let (reply, pins) = zones.answer(query, from, transport).await;
    (Message::from_vec(&reply).expect("a reply"), pins, reply.len())
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().expect("address")).collect()
}

#[tokio::test]
async fn names_of_the_zone_are_answered_with_authority() {
    let zones = load(ZONE).expect("a zone");
    use RecordType as T;
    use ResponseCode::{NXDomain, NoError};
    // Name, type, response code, answers, addresses to pin.
    let rows: [(&str, T, ResponseCode, usize, &[&str]); 18] = [
        ("www.corp.test.", T::A, NoError, 1, &["203.0.113.80"]),
        ("WWW.Corp.TEST.", T::AAAA, NoError, 1, &["2001:db8::80"]),
        ("www.corp.test.", T::MX, NoError, 0, &[]),
        ("inside.corp.test.", T::A, NoError, 1, &["10.1.2.3"]),
        ("local.corp.test.", T::A, NoError, 1, &[]),
        ("alias.corp.test.", T::A, NoError, 2, &["203.0.113.80"]),
        ("corp.test.", T::SOA, NoError, 1, &[]),
        ("corp.test.", T::A, NoError, 0, &[]),
        ("svc.corp.test.", T::HTTPS, NoError, 1, &["203.0.113.83"]),
        // Empty non-terminal: exists, has nothing, and is closer than the wildcard above it.
        ("ent.corp.test.", T::A, NoError, 0, &[]),
        ("other.ent.corp.test.", T::TXT, NXDomain, 0, &[]),
        ("a.wild.corp.test.", T::A, NoError, 1, &["203.0.113.82"]),
        ("a.b.wild.corp.test.", T::A, NoError, 1, &["203.0.113.82"]),
        ("a.wild.corp.test.", T::TXT, NoError, 0, &[]),
        // The name exists: no wildcard answers for it.
        ("host.wild.corp.test.", T::A, NoError, 0, &[]),
        ("x.host.wild.corp.test.", T::A, NXDomain, 0, &[]),
        ("new.corp.test.", T::TXT, NoError, 1, &[]),
        ("x.www.corp.test.", T::TXT, NXDomain, 0, &[]),
    ];
    for (qname, rtype, rcode, answers, pins) in rows {
        let (reply, found, _) = ask(&zones, &query(qname, rtype, Some(4096)), Transport::Udp).await;
        let what = format!("{qname} {rtype}");
        assert_eq!(reply.metadata.id, 0x1234);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (rcode, answers), "{what}");
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available, "{what}");
        assert_eq!(found, ips(pins), "{what}");
        if answers == 0 {
            let soa = &reply.authorities[0];
            assert_eq!((soa.record_type(), soa.name.to_string().as_str()), (T::SOA, "corp.test."), "{what}");
        } else {
            assert_eq!(reply.answers[0].name.to_string().to_lowercase(), qname.to_lowercase());
        }
        assert_eq!(reply.edns.expect("EDNS").max_payload(), UDP_PAYLOAD);
        assert_eq!(reply.queries[0].name().to_string(), qname, "the question is echoed as spelled");
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
    let (reply, _, _) = ask(&zones, &query("example.com.", RecordType::A, None), Transport::Udp).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn large_answers_are_cut_over_udp_alone() {
    let mut text = ZONE.to_string();
    for i in 0..100 {
        text.push_str(&format!("many IN A 203.0.113.{i}\n"));
    }
    let zones = load(&text).expect("a zone");
    for payload in [None, Some(512), Some(1232), Some(4096)] {
        let (reply, pins, len) = ask(&zones, &query("many.corp.test.", RecordType::A, payload), Transport::Udp).await;
        assert!(reply.metadata.truncation, "{payload:?}");
        assert!(len <= 512 && reply.answers.is_empty() && pins.is_empty());
        assert_eq!(reply.edns.is_some(), payload.is_some());
    }
    let (reply, pins, _) = ask(&zones, &query("many.corp.test.", RecordType::A, None), Transport::Tcp).await;
    assert_eq!((reply.metadata.truncation, reply.answers.len(), pins.len()), (false, 100, 100));
}

#[tokio::test]
async fn transfers_updates_and_noise_are_refused() {
    let zones = load(ZONE).expect("a zone");
    for rtype in [RecordType::AXFR, RecordType::IXFR] {
        let (reply, pins, _) = ask(&zones, &query("corp.test.", rtype, None), Transport::Tcp).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{rtype}");
        assert!(reply.answers.is_empty() && pins.is_empty());
    }
    let mut update = query("corp.test.", RecordType::SOA, None);
    update[2] = 5 << 3;
    let (reply, _, _) = ask(&zones, &update, Transport::Tcp).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
    let (after, _, _) = ask(&zones, &query("www.corp.test.", RecordType::A, None), Transport::Udp).await;
    assert_eq!(after.answers.len(), 1, "nothing changed");

    let from = "10.77.1.2:5353".parse().expect("address");
    let good = query("www.corp.test.", RecordType::A, Some(1232));
    for len in 0..good.len() {
        let (reply, pins) = zones.answer(&good[..len], from, Transport::Udp).await;
        assert_eq!(reply.is_empty(), len < 12, "{len} octets");
        assert!(pins.is_empty());
    }
}

#[test]
fn bad_files_are_told_with_their_line() {
    let lines = ZONE.lines().count();
    let text = |extra: &str| load(&format!("{ZONE}{extra}\nlast IN A 192.0.2.1\n")).err();
    for extra in ["bad IN A 300.1.1.1", "bad IN NOSUCHTYPE x", "bad IN AAAA 10.0.0.1", "bad IN MX x"] {
        match text(extra) {
            Some(ZoneError::Text { line, what, .. }) => assert_eq!(line, Some(lines + 1), "{extra}: {what}"),
            other => panic!("{extra}: {other:?}"),
        }
    }
    for extra in ["www.example.org. IN A 192.0.2.1", "sub IN NS ns.example.org.", "alias IN A 192.0.2.1"] {
        assert!(matches!(text(extra), Some(ZoneError::Content { .. })), "{extra}: {:?}", text(extra));
    }
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
