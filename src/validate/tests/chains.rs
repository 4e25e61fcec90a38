//! Down the tree: anchors, delegations, keys.

use super::*;
use crate::model::{Announcement, SessionId, SessionType};
use crate::partition::Partitions;
use crate::validate::{Bogus, Unchecked, Unknown};

fn www(net: &Net) -> Reply {
    Reply::answer(net.zones["zone.example"].signed(&[a("www.zone.example")]))
}

#[test]
fn a_chain_of_signatures_is_followed_and_remembered() {
    let mut net = Net::new();
    let reply = www(&net);
    let (verdict, work) = net.judge("www.zone.example", A, &reply);
    assert_eq!(verdict, Verdict::Secure { ttl: 300 });
    // All that the signer's name says is asked at once; that the zone between is signed shows then.
    let at_once = [(".", DNSKEY), ("example", DS), ("zone.example", DS), ("zone.example", DNSKEY)];
    let chain = [at_once.as_slice(), &[("example", DNSKEY)]].concat();
    assert_eq!(net.asked, chain.into_iter().map(|(name, rtype)| (name.to_owned(), rtype)).collect::<Vec<_>>());
    assert_eq!(net.waits, 2);
    assert_eq!((work.lookups(), work.signatures(), work.hashes()), (5, 6, 0));
    let (verdict, work) = net.judge("www.zone.example", A, &reply);
    assert_eq!((verdict, work.lookups(), work.signatures()), (Verdict::Secure { ttl: 300 }, 0, 1));
    // What was learned ends with its TTL.
    net.now.mono += 300_000;
    let (verdict, work) = net.judge("www.zone.example", A, &reply);
    assert_eq!((verdict, work.lookups()), (Verdict::Secure { ttl: 300 }, 5));
}

/// Who shares no answers with somebody does not learn from the time of its own in which zones that one has asked.
#[test]
fn what_is_remembered_is_remembered_for_a_partition() {
    let mut net = Net::new();
    let reply = www(&net);
    net.judge("www.zone.example", A, &reply);
    let id = SessionId::new("other").expect("an id");
    net.partition = Partitions::of(&Announcement::without_sandbox(id, SessionType::Batch)).alone();
    let (verdict, work) = net.judge("www.zone.example", A, &reply);
    assert_eq!((verdict, work.lookups()), (Verdict::Secure { ttl: 300 }, 4), "all but the root's keys");
    let (_, work) = net.judge("www.zone.example", A, &reply);
    assert_eq!(work.lookups(), 0);
}

#[test]
fn an_answer_lives_no_longer_than_its_signature() {
    let mut net = Net::new();
    for (how, ttl) in [
        (How { expiration: SECONDS + 77, ..How::default() }, 77),
        (How { ttl: 60, ..How::default() }, 60),
        (How { ttl: 6000, ..How::default() }, 300),
        (How { expiration: SECONDS, ..How::default() }, 0),
        // Within what clocks may differ: an hour, or a tenth of the time that it is made for, and at most a day.
        (How { expiration: SECONDS - 3500, inception: SECONDS - 9000, ..How::default() }, 100),
        (How { expiration: SECONDS - 7190, inception: SECONDS - 79_190, ..How::default() }, 10),
        (How { expiration: SECONDS - 86_390, inception: SECONDS - 8_640_000, ..How::default() }, 10),
        (How { inception: SECONDS + 3599, ..How::default() }, 300),
        (How { inception: SECONDS + 86_399, expiration: SECONDS + 9_000_000, ..How::default() }, 300),
    ] {
        let record = a("www.zone.example");
        let signature = net.zones["zone.example"].sign(std::slice::from_ref(&record), how);
        let verdict = net.verdict("www.zone.example", A, &Reply::answer(vec![record, signature]));
        assert_eq!(verdict, Verdict::Secure { ttl });
    }
}

#[test]
fn what_is_wrong_with_a_signature_is_told() {
    let mut net = Net::new();
    let record = a("www.zone.example");
    net.inside("zone.example", "www.zone.example", "zone.example");
    let signed = |net: &Net, how| net.zones["zone.example"].sign(std::slice::from_ref(&record), how);
    for (how, why) in [
        (How { expiration: SECONDS - 3601, inception: SECONDS - 9000, ..How::default() }, Bogus::Expired),
        (How { expiration: SECONDS - 7201, inception: SECONDS - 79_201, ..How::default() }, Bogus::Expired),
        (How { expiration: SECONDS - 86_401, inception: SECONDS - 8_640_000, ..How::default() }, Bogus::Expired),
        (How { inception: SECONDS + 3601, expiration: SECONDS + 9000, ..How::default() }, Bogus::NotYetValid),
        (How { inception: SECONDS + 86_401, expiration: SECONDS + 9_000_000, ..How::default() }, Bogus::NotYetValid),
        (How { inception: SECONDS + 9, expiration: SECONDS - 9, ..How::default() }, Bogus::Signature),
        (How { labels: Some(4), ..How::default() }, Bogus::Signature),
        (How { algorithm: 13, ..How::default() }, Bogus::NoKey),
        (How { algorithm: 5, ..How::default() }, Bogus::NoSignature),
    ] {
        let reply = Reply::answer(vec![record.clone(), signed(&net, how)]);
        assert_eq!(net.verdict("www.zone.example", A, &reply), Verdict::Bogus(why), "{why:?}");
    }
    let mut changed = www(&net);
    changed.answers[0].3[3] = 9;
    assert_eq!(net.verdict("www.zone.example", A, &changed), Verdict::Bogus(Bogus::Signature));
    let mut more = www(&net);
    more.answers.push(rec("www.zone.example", A, vec![192, 0, 2, 99]));
    assert_eq!(net.verdict("www.zone.example", A, &more), Verdict::Bogus(Bogus::Signature));
    let bare = Reply::answer(vec![record.clone()]);
    assert_eq!(net.verdict("www.zone.example", A, &bare), Verdict::Bogus(Bogus::NoSignature));
    // Signed by another zone, above, beside, and by a name that is no zone.
    let of = |net: &Net, zone: &str| Reply::answer(net.zones[zone].signed(std::slice::from_ref(&record)));
    let reply = of(&net, "test");
    assert_eq!(net.verdict("www.zone.example", A, &reply), Verdict::Bogus(Bogus::NoSignature));
    let www = Zone::new("www.zone.example");
    let reply = Reply::answer(www.signed(std::slice::from_ref(&record)));
    assert_eq!(net.verdict("www.zone.example", A, &reply), Verdict::Bogus(Bogus::NoKey));
    // One good signature among bad ones is enough (RFC 6840 section 5.4).
    let good = signed(&net, How::default());
    let bad = signed(&net, How { inception: SECONDS - 9000, expiration: SECONDS - 8000, ..How::default() });
    let answers = vec![record.clone(), bad, www.sign(std::slice::from_ref(&record), How::default()), good];
    assert!(is_secure(net.verdict("www.zone.example", A, &Reply::answer(answers))));
}

#[test]
fn a_delegation_without_a_key_is_insecure_only_where_that_is_proved() {
    let reply = Reply::answer(vec![a("www.plain.example")]);
    let mut net = Net::new();
    assert_eq!(net.verdict("www.plain.example", A, &reply), Verdict::Insecure(None));
    // Signatures that nobody vouches for change nothing.
    let own = Zone::new("plain.example");
    let signed = Reply::answer(own.signed(&[a("www.plain.example")]));
    assert_eq!(net.verdict("www.plain.example", A, &signed), Verdict::Insecure(None));
    let negative = Reply::no_name(vec![soa("plain.example")]);
    assert_eq!(net.verdict("none.plain.example", A, &negative), Verdict::Insecure(None));

    let zone = Zone::new("example");
    let forged = zone.each(&[soa("example"), nsec("plain.example", "zone.example", &[NS])]);
    let net = Net::new();
    let own = |records: &[Rec]| net.zones["example"].each(records);
    let cases = [
        ("nothing", vec![], Bogus::NoProof),
        ("the proof unsigned", vec![nsec("plain.example", "zone.example", &[NS])], Bogus::NoProof),
        ("the proof by another key of the name", forged, Bogus::NoKey),
        ("a key after all", own(&[nsec("plain.example", "zone.example", &[NS, DS])]), Bogus::NoProof),
        ("the child's own word", own(&[nsec("plain.example", "zone.example", &[NS, SOA])]), Bogus::NoProof),
        ("another name's", own(&[nsec("other.example", "p.example", &[NS])]), Bogus::NoProof),
        ("hashes of other names", own(&[nsec3_of("example", "other.example", &[NS])]), Bogus::NoProof),
    ];
    for (what, authority, why) in cases {
        let mut net = net.anew();
        net.put("plain.example", DS, Reply::no_data(authority));
        assert_eq!(net.verdict("www.plain.example", A, &reply), Verdict::Bogus(why), "{what}");
    }
    // A name that is proved to be no delegation, and whose records are not signed.
    let mut net = net.anew();
    let proof = net.zones["example"].each(&[soa("example"), nsec("a.example", "zone.example", &[])]);
    net.put("plain.example", DS, Reply::no_name(proof.clone()));
    net.put("www.plain.example", DS, Reply::no_name(proof));
    assert_eq!(net.verdict("www.plain.example", A, &reply), Verdict::Bogus(Bogus::NoSignature));
}

#[test]
fn unsigned_delegations_are_proved_by_hashes_too() {
    let reply = Reply::answer(vec![a("www.plain.example")]);
    let bogus = Verdict::Bogus(Bogus::NoProof);
    for (what, records, verdict) in [
        ("its own", vec![nsec3_of("example", "plain.example", &[NS])], Verdict::Insecure(None)),
        ("with a key", vec![nsec3_of("example", "plain.example", &[NS, DS])], bogus),
        ("the child's", vec![nsec3_of("example", "plain.example", &[NS, SOA])], bogus),
        (
            "opted out",
            vec![nsec3_of("example", "example", &[NS, SOA]), nsec3_over("example", "plain.example", 1)],
            Verdict::Insecure(None),
        ),
        ("opted out, without its encloser", vec![nsec3_over("example", "plain.example", 1)], bogus),
        (
            "with flags of nobody",
            vec![nsec3_of("example", "example", &[NS, SOA]), nsec3_over("example", "plain.example", 3)],
            bogus,
        ),
        (
            "too many iterations",
            vec![nsec3("example", [1; 20], [2; 20], 0, 151, &[NS])],
            Verdict::Insecure(Some(Unchecked::Iterations)),
        ),
        (
            "as many as may be",
            vec![nsec3("example", hash("plain.example", 150), [2; 20], 0, 150, &[NS])],
            Verdict::Insecure(None),
        ),
    ] {
        let mut net = Net::new();
        let authority = net.zones["example"].each(&records);
        net.put("plain.example", DS, Reply::no_data(authority));
        assert_eq!(net.verdict("www.plain.example", A, &reply), verdict, "{what}");
    }
    // Without opt-out the name is proved not to exist, so no zone begins there.
    let mut net = Net::new();
    let records = [nsec3_of("example", "example", &[NS, SOA]), nsec3_over("example", "plain.example", 0)];
    let authority = net.zones["example"].each(&records);
    net.put("plain.example", DS, Reply::no_data(authority.clone()));
    net.put("www.plain.example", DS, Reply::no_data(authority));
    assert_eq!(net.verdict("www.plain.example", A, &reply), Verdict::Bogus(Bogus::NoSignature));
    // A count that nobody signed turns nothing insecure.
    let mut net = Net::new();
    net.put("plain.example", DS, Reply::no_data(vec![nsec3("example", [1; 20], [2; 20], 0, 151, &[NS])]));
    assert_eq!(net.verdict("www.plain.example", A, &reply), bogus);
}

#[test]
fn keys_are_those_that_their_parent_vouches_for() {
    let reply = |net: &Net| Reply::answer(net.zones["zone.example"].signed(&[a("www.zone.example")]));
    let ds = |algorithm, digest| {
        move |net: &Net| {
            net.zones["example"].signed(&[rec("zone.example", DS, net.zones["zone.example"].ds(algorithm, digest))])
        }
    };
    type Make = Box<dyn Fn(&Net) -> Vec<Rec>>;
    let cases: Vec<(&str, Make, Verdict)> = vec![
        ("SHA-384", Box::new(ds(15, 4)), Verdict::Secure { ttl: 300 }),
        ("SHA-1 alone", Box::new(ds(15, 1)), Verdict::Secure { ttl: 300 }),
        ("a digest of nobody", Box::new(ds(15, 77)), Verdict::Insecure(Some(Unchecked::Digests))),
        ("an algorithm of nobody", Box::new(ds(200, 2)), Verdict::Insecure(Some(Unchecked::Algorithms))),
        ("neither known", Box::new(ds(200, 77)), Verdict::Insecure(Some(Unchecked::Digests))),
        ("RSA with SHA-1", Box::new(ds(5, 2)), Verdict::Insecure(Some(Unchecked::Algorithms))),
        ("another algorithm's", Box::new(ds(13, 2)), Verdict::Bogus(Bogus::NoKey)),
        (
            "of another key",
            Box::new(|net| {
                net.zones["example"].signed(&[rec("zone.example", DS, Zone::new("zone.example").ds(15, 2))])
            }),
            Verdict::Bogus(Bogus::NoKey),
        ),
        (
            "SHA-1 beside another",
            Box::new(|net| {
                let all = [net.zones["zone.example"].ds(15, 1), Zone::new("zone.example").ds(15, 2)];
                net.zones["example"].signed(&all.map(|data| rec("zone.example", DS, data)))
            }),
            Verdict::Bogus(Bogus::NoKey),
        ),
        (
            "one known among others",
            Box::new(|net| {
                let zone = &net.zones["zone.example"];
                let all = [zone.ds(200, 2), zone.ds(15, 1), zone.ds(15, 2)];
                net.zones["example"].signed(&all.map(|data| rec("zone.example", DS, data)))
            }),
            Verdict::Secure { ttl: 300 },
        ),
        (
            "unsigned",
            Box::new(|net| vec![rec("zone.example", DS, net.zones["zone.example"].ds(15, 2))]),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        (
            "signed by the zone itself",
            Box::new(|net| {
                let zone = &net.zones["zone.example"];
                zone.signed(&[rec("zone.example", DS, zone.ds(15, 2))])
            }),
            Verdict::Bogus(Bogus::NoSignature),
        ),
    ];
    for (what, ds, verdict) in cases {
        let mut net = Net::new();
        let records = ds(&net);
        net.put("zone.example", DS, Reply::answer(records));
        let reply = reply(&net);
        assert_eq!(net.verdict("www.zone.example", A, &reply), verdict, "{what}");
    }
    let cases: Vec<(&str, Make, Bogus)> = vec![
        ("none", Box::new(|_| vec![]), Bogus::NoKey),
        ("another", Box::new(|_| Zone::new("zone.example").signed(&[Zone::new("zone.example").keys()])), Bogus::NoKey),
        ("unsigned", Box::new(|net| vec![net.zones["zone.example"].keys()]), Bogus::NoSignature),
        (
            "one more than was signed",
            Box::new(|net| {
                let zone = &net.zones["zone.example"];
                [zone.signed(&[zone.keys()]), vec![Zone::new("zone.example").keys()]].concat()
            }),
            Bogus::Signature,
        ),
        (
            "signed by one that nobody vouches for",
            Box::new(|net| {
                let other = Zone::new("zone.example");
                let all = [net.zones["zone.example"].keys(), other.keys()];
                [all.to_vec(), vec![other.sign(&all, How::default())]].concat()
            }),
            Bogus::NoKey,
        ),
    ];
    for (what, keys, why) in cases {
        let mut net = Net::new();
        let records = keys(&net);
        net.put("zone.example", DNSKEY, Reply::answer(records));
        let reply = reply(&net);
        assert_eq!(net.verdict("www.zone.example", A, &reply), Verdict::Bogus(why), "{what}");
        // Remembered for seconds, not asked again and again.
        let (verdict, work) = net.judge("www.zone.example", A, &reply);
        assert_eq!((verdict, work.lookups()), (Verdict::Bogus(why), 0), "{what}");
        let zone = &net.zones["zone.example"];
        let good = zone.signed(&[zone.keys()]);
        net.put("zone.example", DNSKEY, Reply::answer(good));
        net.now.mono += 5_000;
        assert!(is_secure(net.verdict("www.zone.example", A, &reply)), "{what}: the zone is mended");
    }
}

#[test]
fn trust_is_where_the_configuration_says() {
    let net = Net::new();
    let (root, island) = (net.zones["."].anchor(), Zone::new("plain.example"));
    let anchors = |text: &str| Anchors::read(text).expect("anchors");
    let bad = Reply::answer(vec![a("www.zone.example")]);
    let of_island = Reply::answer(island.signed(&[a("www.plain.example")]));
    let judge = |anchors: Anchors, name: &str, reply: &Reply| {
        let mut net = net.anew();
        net.validator = Validator::new(anchors, Limits::default());
        net.put("plain.example", DNSKEY, Reply::answer(island.signed(&[island.keys()])));
        net.inside("zone.example", "www.zone.example", "zone.example");
        let verdict = net.verdict(name, A, reply);
        (verdict, net.asked.len())
    };
    let none = anchors(&root).without([name("zone.example")]);
    assert_eq!(judge(none, "www.zone.example", &bad), (Verdict::Insecure(None), 0), "nothing is asked for it");
    let apart = anchors(&root).apart([name("zone.example")]);
    assert_eq!(judge(apart, "www.zone.example", &bad), (Verdict::Insecure(None), 0), "nothing is asked for it");
    let (verdict, asked) = judge(anchors(&(root.clone() + &island.anchor())), "www.plain.example", &of_island);
    assert_eq!((verdict, asked), (Verdict::Secure { ttl: 300 }, 1), "an island with an anchor of its own");
    let both = anchors(&(root + &island.anchor())).apart([name("plain.example")]);
    assert_eq!(judge(both, "www.plain.example", &of_island), (Verdict::Secure { ttl: 300 }, 1));
    let wrong = anchors(&Zone::new(".").anchor());
    assert_eq!(judge(wrong, "www.zone.example", &bad), (Verdict::Bogus(Bogus::NoKey), 2));
}

#[test]
fn replies_that_are_none_leave_it_open() {
    let mut net = Net::new();
    net.replies.clear();
    let reply = www(&net);
    // An empty answer to a question for the root's keys.
    assert_eq!(net.verdict("www.zone.example", A, &reply), Verdict::Bogus(Bogus::NoKey));
    let (rules, mut work) = (AnswerRules::default(), Work::new(Limits::default(), Partition::ALL));
    let validator = Validator::new(net.validator.configured.clone(), Limits::default());
    let qname = name("www.zone.example");
    let asked = Asked { qname: qname.as_ref(), qtype: Qtype(A), dnssec_ok: true };
    let response = reply.encode("www.zone.example", A);
    let Step::Ask(lack) = validator.judge(&response, asked, &rules, NOW, &mut work) else { panic!("keys are needed") };
    let mut cut = Reply::default().encode(".", DNSKEY);
    cut[2] |= 2;
    let mut failed = Reply::default().encode(".", DNSKEY);
    failed[3] |= 2;
    for bad in [
        Vec::new(),
        vec![0; 12],
        cut,
        failed,
        Reply::default().encode("example", DNSKEY),
        Reply::default().encode(".", DS),
    ] {
        let learned = validator.learn(&lack, &bad, NOW, &mut work);
        assert_eq!(learned, Err(Verdict::Indeterminate(Unknown::Unanswered)), "{bad:?}");
    }
}

/// What ring checks nothing by counts as an algorithm that is not known, where every DS record speaks of such a key.
#[test]
fn a_zone_whose_keys_nothing_here_takes_is_insecure() {
    let net = Net::new();
    let with_exponent = |exponent: &[u8], octets: usize, fill: u8| {
        let mut zone = net.zones["test"].clone();
        zone.dnskey = [&[1, 1, 3, 8, exponent.len() as u8][..], exponent, &vec![fill; octets]].concat();
        zone
    };
    let rsa = |octets: usize, fill: u8| with_exponent(&[3], octets, fill);
    let large = with_exponent(&[2, 0, 0, 0, 1], 256, 7);
    let (short, other, long, fit) = (rsa(96, 7), rsa(96, 9), rsa(1024, 7), net.zones["test"].clone());
    let insecure = Verdict::Insecure(Some(Unchecked::Algorithms));
    let no_key = Verdict::Bogus(Bogus::NoKey);
    let (short_ds, fit_ds) = (short.ds(8, 2), fit.ds(15, 2));
    for (what, vouched, keys, verdict) in [
        ("too short", vec![short_ds.clone()], vec![&short], insecure),
        ("too long", vec![long.ds(8, 2)], vec![&long], insecure),
        ("of too large an exponent", vec![large.ds(8, 2)], vec![&large], insecure),
        ("both", vec![short_ds.clone(), long.ds(8, 4)], vec![&long, &short], insecure),
        ("a key that nobody vouches for beside it", vec![short_ds.clone()], vec![&short, &fit], insecure),
        ("another one", vec![short_ds.clone()], vec![&other], no_key),
        ("a good one left out", vec![short_ds.clone(), fit_ds.clone()], vec![&short], no_key),
        ("a good one beside it", vec![short_ds.clone(), fit_ds], vec![&short, &fit], Verdict::Secure { ttl: 300 }),
        ("1024 bits, unsigned", vec![rsa(128, 7).ds(8, 2)], vec![&rsa(128, 7)], Verdict::Bogus(Bogus::NoKey)),
    ] {
        let mut net = net.anew();
        let vouched: Vec<Rec> = vouched.into_iter().map(|ds| rec("test", DS, ds)).collect();
        net.put("test", DS, Reply::answer(net.zones["."].signed(&vouched)));
        let keys: Vec<Rec> = keys.into_iter().map(Zone::keys).collect();
        net.put("test", DNSKEY, Reply::answer(fit.signed(&keys)));
        let proof = fit.each(&[soa("test"), nsec("test", "test", &[SOA, NS])]);
        net.put("www.test", DS, Reply::no_data(proof));
        assert_eq!(net.verdict("www.test", A, &Reply::answer(fit.signed(&[a("www.test")]))), verdict, "{what}");
    }
    // Who configures such an anchor wants what is below it signed, and is told at once that it is not.
    let mut net = net.anew();
    let [tag_high, tag_low, algorithm, digest, hash @ ..] = &short_ds[..] else { panic!("a DS record") };
    let (tag, hash) = (u16::from_be_bytes([*tag_high, *tag_low]), crate::store::hex(hash));
    let anchor = format!("test. IN DS {tag} {algorithm} {digest} {hash}\n");
    net.validator = Validator::new(Anchors::read(&anchor).expect("an anchor"), Limits::default());
    net.put("test", DNSKEY, Reply::answer(fit.signed(&[short.keys()])));
    assert_eq!(net.verdict("www.test", A, &Reply::answer(fit.signed(&[a("www.test")]))), no_key);
}
