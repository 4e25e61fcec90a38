//! Hostile responses: whatever arrives, nothing panics, and what is shown stays on the chain.

use hickory_proto::op::Message as Parsed;
use proptest::prelude::*;
use staunch_scoring::{NameBuf, NameRef, QName};

use super::tests::{Build, whole};
use super::*;

const NAMES: [&str; 11] = [
    "q.example",
    "a.example",
    "b.example",
    "c.a.example",
    "example",
    "evil.test.example",
    ".",
    "localhost",
    "q.example.net",
    "Q.Example",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
];
const NSEC: Qtype = Qtype(47);
const NSEC3: Qtype = Qtype(50);
const TYPES: [Qtype; 14] = [
    Qtype::A,
    Qtype::AAAA,
    Qtype::CNAME,
    Qtype::DNAME,
    Qtype::TXT,
    Qtype::SOA,
    Qtype::NS,
    Qtype::MX,
    Qtype::HTTPS,
    Qtype::RRSIG,
    Qtype::NULL,
    Qtype::OPT,
    NSEC,
    NSEC3,
];

fn data(rtype: Qtype, seed: u8, noise: &[u8]) -> Vec<u8> {
    let name = super::tests::wire(NAMES[usize::from(seed) % NAMES.len()]);
    match rtype {
        Qtype::A => vec![[203, 10, 127][usize::from(seed) % 3], 0, 113, seed],
        Qtype::AAAA => [&[[0x20, 0xfe, 0][usize::from(seed) % 3], 1, 0xd, 0xb8][..], &[0; 11], &[seed]].concat(),
        Qtype::CNAME | Qtype::DNAME | Qtype::NS => name,
        Qtype::MX => [&[0, seed][..], &name].concat(),
        Qtype::SOA => super::tests::soa(u32::from(seed)),
        Qtype::HTTPS => [&[0, seed & 1][..], &name, &[0, 4, 0, 4, 10, 0, 0, seed]].concat(),
        // Mostly a signature of `example` over something that denies.
        Qtype::RRSIG if seed & 3 > 0 => {
            let covered = [Qtype::SOA, Qtype::A, NSEC, NSEC3][usize::from(seed >> 2 & 3)].0.to_be_bytes();
            [&covered[..], &[13, seed >> 4 & 3], &[0; 14], &super::tests::wire("example"), &[seed, 1]].concat()
        }
        NSEC => [&name[..], &[0, 1, 0x40]].concat(),
        NSEC3 if seed & 3 > 0 => [&[1, 0, 0, 0, 0, 20][..], &[seed; 20], &[0, 1, 0x40]].concat(),
        Qtype::TXT => [&[noise.len() as u8][..], noise].concat(),
        _ => noise.to_vec(),
    }
}

prop_compose! {
    fn response()(
        qtype in prop_oneof![Just(Qtype::A), Just(Qtype::AAAA), Just(Qtype::ANY), Just(Qtype::HTTPS), Just(Qtype::MX), Just(Qtype::TXT)],
        rcode in prop_oneof![6 => Just(0u16), 2 => Just(3), 1 => Just(2)],
        records in proptest::collection::vec(
            (0usize..3, 0..NAMES.len(), 0..TYPES.len(), any::<u8>(), 0u32..9999, proptest::collection::vec(any::<u8>(), 0..24)),
            0..24,
        ),
        bend in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) -> (Qtype, Vec<u8>) {
        let mut build = Build::new("q.example", qtype).flags(0x81a0 | rcode);
        for section in 0..3 {
            for (at, owner, rtype, seed, ttl, noise) in &records {
                if *at == section {
                    build = build.rr(section, NAMES[*owner], TYPES[*rtype], *ttl, &data(TYPES[*rtype], *seed, noise));
                }
            }
        }
        let mut octets = build.octets();
        if let Some((at, value)) = bend {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        (qtype, octets)
    }
}

/// The authority section of a reply to one who wants signatures: one SOA at most, above a name of the chain; nothing but
/// records that deny beside it, each of such a zone and signed by it; signatures over nothing else.
fn check_proof(message: &super::message::Message<'_>, chain: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let of = |rtype: Qtype| message.authorities().iter().filter(move |r| r.rtype == rtype.0);
    let above = |zone: &[u8]| chain.iter().any(|name| name.ends_with(zone));
    prop_assert!(of(Qtype::SOA).count() <= 1);
    prop_assert!(of(NSEC).count() + of(NSEC3).count() <= 16);
    for record in message.authorities() {
        let owner = message.owner(record);
        match Qtype(record.rtype) {
            Qtype::SOA => prop_assert!(above(owner), "a SOA of elsewhere"),
            Qtype::RRSIG => {
                let signature = super::rdata::Signature::read(message, record).expect("own signature");
                let zone = signature.signer.folded();
                prop_assert!(above(zone.as_wire()) && owner.ends_with(zone.as_wire()), "out of the zone");
                let covers = of(Qtype(signature.covered)).any(|r| message.owner(r) == owner);
                prop_assert!(covers, "a signature over nothing");
            }
            NSEC | NSEC3 => {
                let signed = of(Qtype::RRSIG).any(|r| {
                    let signature = super::rdata::Signature::read(message, r).expect("own signature");
                    message.owner(r) == owner && signature.covered == record.rtype
                });
                prop_assert!(signed, "not signed");
            }
            _ => prop_assert!(false, "type {} in authority", record.rtype),
        }
    }
    Ok(())
}

prop_compose! {
    /// A denial of `q.example` by its signed zone, with whatever else in the authority section.
    fn denial()(
        rcode in prop_oneof![Just(0u16), Just(3)],
        records in proptest::collection::vec((0usize..4, 0..OWNERS.len(), 0..OWNERS.len(), any::<u8>()), 1..14),
    ) -> Vec<u8> {
        let zone = super::tests::wire("example");
        let sign = |covered: Qtype, seed: u8| {
            let signer = if seed & 7 == 0 { super::tests::wire("q.example") } else { zone.clone() };
            [&covered.0.to_be_bytes()[..], &[13, 1], &[0; 14], &signer, &[seed, 1]].concat()
        };
        let mut build = Build::new("q.example", Qtype::A)
            .flags(0x81a0 | rcode)
            .rr(1, "example", Qtype::SOA, 60, &super::tests::soa(60))
            .rr(1, "example", Qtype::RRSIG, 60, &sign(Qtype::SOA, 1));
        for (kind, owner, next, seed) in records {
            let owner = OWNERS[owner];
            build = match kind {
                0 | 1 => {
                    let data = [&super::tests::wire(OWNERS[next])[..], &[0, 1, 0x40]].concat();
                    let build = build.rr(1, owner, NSEC, 90, &data);
                    if kind == 0 { build.rr(1, owner, Qtype::RRSIG, 90, &sign(NSEC, seed)) } else { build }
                }
                2 => {
                    let owner = format!("{}.{owner}", char::from(b'a' + seed % 4).to_string().repeat(32));
                    let data = [&[1, 0, 0, 0, 0, 20][..], &[seed; 20], &[0, 1, 0x40]].concat();
                    build.rr(1, &owner, NSEC3, 90, &data).rr(1, &owner, Qtype::RRSIG, 90, &sign(NSEC3, seed))
                }
                _ => build.rr(1, owner, Qtype::RRSIG, 90, &sign(if seed & 1 == 0 { NSEC } else { Qtype::A }, seed)),
            };
        }
        build.octets()
    }
}

const OWNERS: [&str; 11] = [
    "example",
    "a.example",
    "q.example",
    "b.q.example",
    "z.example",
    "*.example",
    "!.example",
    "p.example",
    "a.other",
    "*.q.example",
    "Q.z.Example",
];

/// Labels from the right, in lower case: a key in canonical order (RFC 4034 section 6.1).
fn key(wire: &[u8]) -> Vec<Vec<u8>> {
    let name = wire.to_ascii_lowercase();
    let mut labels: Vec<Vec<u8>> = NameRef::from_wire(&name).expect("name").labels().map(<[u8]>::to_vec).collect();
    labels.reverse();
    labels
}

fn q() -> NameBuf {
    NameBuf::from_text("q.example").expect("name")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..600), dnssec_ok: bool) {
        let q = q();
        let asked = Asked { qname: q.as_ref(), qtype: Qtype::A, dnssec_ok };
        let _ = vet(&octets, asked, &AnswerRules::default());
        let _ = form_of(&octets);
    }

    #[test]
    fn what_is_shown_is_on_the_chain_and_what_is_pinned_is_shown(
        (qtype, octets) in response(), dnssec_ok: bool, strip_hints: bool,
    ) {
        let q = q();
        let asked = Asked { qname: q.as_ref(), qtype, dnssec_ok };
        let rules = AnswerRules { strip_hints, ..AnswerRules::default() };
        let Ok(vetted) = vet(&octets, asked, &rules) else { return Ok(()) };
        let reply = whole(&vetted.answer, q.as_ref().as_wire(), qtype.0);
        let message = super::message::Message::read(&reply).expect("own reply is whole");
        prop_assert_eq!(message.answers().len(), usize::from(vetted.answer.answers));
        prop_assert_eq!(message.authorities().len(), usize::from(vetted.answer.authorities));
        prop_assert!(!vetted.answer.authentic_data || vetted.dropped == 0 && vetted.rebinding.is_empty());
        if !dnssec_ok {
            prop_assert!(message.authorities().iter().all(|r| r.rtype == Qtype::SOA.0));
            prop_assert!(vetted.answer.authorities <= 1);
            prop_assert!(qtype == Qtype::ANY || message.answers().iter().all(|r| r.rtype != Qtype::RRSIG.0));
        }
        prop_assert_eq!(vetted.answer.ttl_at.len(), message.answers().len() + message.authorities().len());

        // The chain, found again from the reply alone.
        let mut on_chain = vec![q.as_ref().as_wire().to_vec()];
        let mut shown = Vec::new();
        for record in message.answers() {
            let owner = message.owner(record);
            let at_or_above = record.rtype == Qtype::DNAME.0
                && on_chain.iter().any(|name| name.ends_with(owner));
            prop_assert!(at_or_above || on_chain.iter().any(|name| name == owner), "off the chain");
            prop_assert!(record.ttl >= vetted.answer.ttl && record.ttl <= rules.max_ttl);
            match Qtype(record.rtype) {
                Qtype::CNAME => {
                    let target = super::rdata::target(&message, record).expect("own CNAME").folded();
                    on_chain.push(target.as_wire().to_vec());
                }
                Qtype::A | Qtype::AAAA => shown.extend(super::rdata::address(record.rtype, message.rdata(record))),
                Qtype::HTTPS => {
                    shown.extend(super::rdata::Svcb::read(&message, record).expect("own HTTPS").hints());
                }
                Qtype::OPT => prop_assert!(false, "OPT shown"),
                _ => {}
            }
        }
        if dnssec_ok {
            check_proof(&message, &on_chain)?;
        }
        for addr in &shown {
            prop_assert!(is_public(*addr), "{} shown", addr);
        }
        for addr in &vetted.answer.pins {
            prop_assert!(shown.contains(addr), "{} pinned, not shown", addr);
        }
        // hickory-proto reads types we copy unread (those of signatures and keys), and parameters of HTTPS that are no
        // addresses (a list of protocols with a length past its end), and may find noise in them or miss octets; all else
        // must parse.
        let signs = |rtype| matches!(rtype, 24 | 25 | 43 | 46..=48 | 50 | 51 | 59 | 60);
        let unread = |rtype| signs(rtype) || matches!(Qtype(rtype), Qtype::OPT | Qtype::HTTPS);
        let noisy = message.answers().iter().any(|r| unread(r.rtype) || r.from == r.to)
            || message.authorities().iter().any(|r| unread(r.rtype));
        if !noisy {
            prop_assert!(Parsed::from_vec(&reply).is_ok(), "{:?}", Parsed::from_vec(&reply).err());
        }
    }

    #[test]
    fn a_proof_is_of_the_zone_and_about_the_name(octets in denial()) {
        let q = q();
        let asked = Asked { qname: q.as_ref(), qtype: Qtype::A, dnssec_ok: true };
        let vetted = vet(&octets, asked, &AnswerRules::default()).expect("well-formed");
        let reply = whole(&vetted.answer, q.as_ref().as_wire(), 1);
        let message = super::message::Message::read(&reply).expect("own reply is whole");
        check_proof(&message, &[super::tests::wire("q.example")])?;
        prop_assert!(message.authorities().iter().all(|r| r.ttl <= 60), "RFC 9077");
        prop_assert!(vetted.answer.pins.is_empty() && vetted.names.is_empty());
        let denials = message.authorities().iter().filter(|r| r.rtype == NSEC3.0).count();
        prop_assert!(denials <= 3);
        let sent = super::message::Message::read(&octets).expect("well-formed");
        let came = sent.authorities().iter().filter(|r| r.rtype != Qtype::RRSIG.0).count();
        let shown = message.authorities().iter().filter(|r| r.rtype != Qtype::RRSIG.0).count();
        // Behind the SOA stands what denies.
        prop_assert!(!vetted.answer.authentic_data || came == shown || shown > 1, "AD although all proof was left out");
        for record in message.authorities().iter().filter(|r| r.rtype == NSEC.0) {
            let (next, _) = super::message::read_name(&reply, record.from).expect("own NSEC");
            let (from, to) = (key(message.owner(record)), key(next.as_wire()));
            let about = ["q.example", "*.example"].iter().any(|name| {
                let name = key(&super::tests::wire(name));
                let between = from < name && name < to || to <= from && (from < name || name < to);
                from == name || between
            });
            prop_assert!(about, "{:?} {:?}", from, to);
            prop_assert!(from.starts_with(&[b"example".to_vec()]) && to.starts_with(&[b"example".to_vec()]));
        }
    }

    #[test]
    fn vetting_twice_changes_nothing((qtype, octets) in response()) {
        let q = q();
        let asked = Asked { qname: q.as_ref(), qtype, dnssec_ok: false };
        let rules = AnswerRules::default();
        let Ok(once) = vet(&octets, asked, &rules) else { return Ok(()) };
        if once.kind != Kind::Positive {
            return Ok(());
        }
        let mut reply = whole(&once.answer, q.as_ref().as_wire(), qtype.0);
        reply[2..4].copy_from_slice(&0x8180u16.to_be_bytes());
        let again = vet(&reply, asked, &rules).expect("own reply");
        prop_assert_eq!(again.answer.answers, once.answer.answers);
        prop_assert_eq!(again.answer.pins, once.answer.pins);
        prop_assert_eq!(again.dropped, 0);
    }

    #[test]
    fn ranges_are_total(text in ".{0,40}") {
        let _ = crate::range::IpRange::parse(&text);
    }

    #[test]
    fn internal_names_are_total(octets in proptest::collection::vec(any::<u8>(), 1..80)) {
        if let Ok((name, _)) = QName::read(&octets) {
            let _ = is_internal_name(name.as_ref());
        }
    }
}

/// The dearest message there can be: as many records as fit, each owner a long chain of pointers.
#[test]
fn the_dearest_message_is_cheap() {
    let mut octets = Build::new("q.example", Qtype::A).octets();
    // A ladder of names, each one label in front of the one before, 60 steps high; then all stand on its top.
    let mut below = 12u16;
    let mut count = 0u16;
    while octets.len() < 65_000 && count < 2047 {
        let here = octets.len() as u16;
        octets.extend([1, b'a']);
        octets.extend((0xc000 | below).to_be_bytes());
        octets.extend([0, 16, 0, 1, 0, 0, 0, 1, 0, 3, 2]);
        octets.extend(count.to_be_bytes());
        count += 1;
        if count < 60 {
            below = here;
        }
    }
    octets[6..8].copy_from_slice(&count.to_be_bytes());
    let q = q();
    let asked = Asked { qname: q.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    let begun = std::time::Instant::now();
    let vetted = vet(&octets, asked, &AnswerRules::default()).expect("whole");
    assert!(begun.elapsed() < std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!((vetted.answer.answers, vetted.dropped), (0, count));
}

/// The dearest proof: as many denials as are looked at, all at one name, and behind them as many signatures as fit, each by
/// a signer at the end of a long chain of pointers, none by the zone.
#[test]
fn the_dearest_proof_is_cheap() {
    let mut build =
        Build::new("q.example", Qtype::A).flags(0x8183).rr(1, "example", Qtype::SOA, 60, &super::tests::soa(60));
    for _ in 0..16 {
        build = build.rr(1, "a.example", NSEC, 60, &[&super::tests::wire("z.example")[..], &[0, 1, 0x40]].concat());
    }
    let mut octets = build.octets();
    let mut count = 17u16;
    let mut below = 14u16; // `example` in the question
    while octets.len() < 65_000 && count < 2047 {
        octets.extend([1, b'a', 0xc0, 14, 0, 46, 0, 1, 0, 0, 0, 60, 0, 23]);
        octets.extend([0, 47, 13, 2]);
        octets.extend([0; 14]);
        let here = octets.len() as u16;
        octets.extend([1, b'a']);
        octets.extend((0xc000 | below).to_be_bytes());
        octets.push(1);
        count += 1;
        if count < 70 {
            below = here;
        }
    }
    octets[8..10].copy_from_slice(&count.to_be_bytes());
    let q = q();
    let asked = Asked { qname: q.as_ref(), qtype: Qtype::A, dnssec_ok: true };
    let begun = std::time::Instant::now();
    let vetted = vet(&octets, asked, &AnswerRules::default()).expect("whole");
    assert!(begun.elapsed() < std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!((vetted.answer.authorities, vetted.answer.authentic_data), (1, false));
}
