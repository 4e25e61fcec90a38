use super::key::Parts;
use super::*;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("test address")
}

#[test]
fn keys_are_what_they_were_made_of() {
    for (session, to) in [("10.77.1.2", "192.0.2.9"), ("2001:db8::2", "2001:db8:1::9")] {
        let (session, to) = (ip(session), ip(to));
        let lease = |open| {
            let target = Target { address: to, open };
            let set = Set::of(lease_kind(target), session);
            let parts = Element::lease(session, target).key.parts(set).expect("a lease's key");
            assert_eq!(set.kind.opening(parts.port), Some(open), "as it was written");
            parts
        };
        let port = Port::udp(443);
        let pins = Set::of(Kind::Pins, session);
        let parts = lease(Opening::One(port));
        assert_eq!(parts, Parts { first: Some(session), second: Some(to), port: Some(port), mark: None });
        for open in [Opening::Web, Opening::Any] {
            assert_eq!(lease(open), Parts { first: Some(session), second: Some(to), ..Parts::default() });
        }
        let parts = Element::marked(session, 77).key.parts(Set::of(Kind::Current, session)).expect("a key");
        assert_eq!(parts, Parts { first: Some(session), mark: Some(77), ..Parts::default() });
        let range = Element::range((to, to), (Port::tcp(1), Port::tcp(9)));
        let parts = range.key.parts(Set::ranges(Class(3), to.is_ipv6())).expect("a key");
        assert_eq!(parts, Parts { first: Some(to), port: Some(Port::tcp(1)), ..Parts::default() });
        assert_eq!(Element::session(session).key.parts(pins), None, "another set's key");
    }
    assert_eq!(Set::family(Kind::Pins, false).key_length(), 16);
    assert_eq!(Set::family(Kind::Pins, true).key_length(), 40);
    assert_eq!(Set::ranges(Class(16), true).key_length(), 24);
    assert_eq!(Set::ranges(Class(16), true).name(), "ranges6_16");
    assert_eq!(Set::family(Kind::Classes, false).name(), "classes4");
}

#[test]
fn elements_are_read_as_they_were_written() {
    let (session, to) = (ip("10.77.1.2"), ip("192.0.2.9"));
    let capped = Volume { limit: Some(1 << 20), used: 77 };
    let elements = [
        Element::volume(session, to, capped),
        Element::volume(session, to, Volume { limit: None, used: 5 }),
        Element::volume(session, to, Volume { limit: Some(10), used: 50 }),
        Element::leads(session, 9),
        Element::pair(session, to).lasting(60_000),
    ];
    let mut writer = Writer::default();
    write_elements(&mut writer, "staunch", (Set::family(Kind::Volumes, false), "any"), &elements);
    let mut held = Vec::new();
    read_elements(writer.as_bytes(), |element| held.push(element));
    assert_eq!(held.iter().map(|h| h.key).collect::<Vec<_>>(), elements.map(|e| e.key));
    assert_eq!(held[0].volume, Some(capped));
    assert_eq!(held[1].volume, Some(Volume { limit: None, used: 5 }));
    assert_eq!(held[2].volume, Some(Volume { limit: Some(10), used: 10 }), "the kernel refuses more than all");
    assert_eq!((held[3].mark, held[3].volume, held[3].left), (Some(9), None, None));
    assert_eq!(held[4].left, Some(60_000));
    let mut writer = Writer::default();
    let class = Set::family(Kind::Classes, false);
    write_elements(&mut writer, "staunch", (class, class.name()), &[Element::leads(session, 12)]);
    read_elements(writer.as_bytes(), |element| assert_eq!(element.mark, Some(12), "by the name of its chain"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_elements(&bytes, |held| {
            for set in Set::fixed().chain([Set::ranges(Class(1), false)]) {
                let _ = held.key.parts(set);
            }
        });
    }
}
