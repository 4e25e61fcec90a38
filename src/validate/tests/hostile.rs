//! What a hostile zone or upstream may do, and what it costs.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::validate::{Bogus, Unknown};

/// A key of algorithm 15 with this tag, of no use.
fn key_with_tag(tag: u16, seed: u8) -> Vec<u8> {
    let mut data = [&[1, 0, 3, 15][..], &[seed; 32]].concat();
    for low in 0..=u16::MAX {
        data[34..].copy_from_slice(&low.to_be_bytes());
        if tag_of(&data) == tag {
            return data;
        }
    }
    panic!("every tag can be had");
}

/// CVE-2023-50387: as many keys of one tag as a zone may have, as many signatures by that tag as are looked at, none good.
#[test]
fn colliding_keys_cost_a_counted_number_of_signatures() {
    for (failures, zone_is_hostile) in [(16, true), (4, true), (16, false)] {
        let mut net = Net::with_limits(Limits { failures, ..Limits::default() });
        let zone = net.zones["zone.example"].clone();
        let tag = tag_of(&zone.dnskey);
        let mut keys: Vec<Rec> = (0..23).map(|seed| rec("zone.example", DNSKEY, key_with_tag(tag, seed))).collect();
        keys.push(zone.keys());
        let good = zone.sign(&keys, How::default());
        if zone_is_hostile {
            // Whose keys cannot be proved either.
            for salt in 0..16u8 {
                let mut bad = good.clone();
                *bad.3.last_mut().expect("a signature") ^= salt + 1;
                keys.push(bad);
            }
        } else {
            keys.push(good);
        }
        net.put("zone.example", DNSKEY, Reply::answer(keys));
        let record = a("www.zone.example");
        let signature = zone.sign(std::slice::from_ref(&record), How::default());
        let mut answers = vec![record];
        for salt in 0..16u8 {
            let mut bad = signature.clone();
            *bad.3.last_mut().expect("a signature") ^= salt + 1;
            answers.push(bad);
        }
        let begun = Instant::now();
        let (verdict, work) = net.judge("www.zone.example", A, &Reply::answer(answers));
        // Where keys have to be vouched for, those of the same tag that are not are never tried: one key, 16 signatures.
        let is_within = zone_is_hostile && failures == 16;
        let end = if is_within { Verdict::Bogus(Bogus::Signature) } else { Verdict::Indeterminate(Unknown::Work) };
        assert_eq!(verdict, end);
        // Above: the root's keys, two DS sets, the keys of `example`; in the gentler case those of the zone too.
        let honest = if zone_is_hostile { 4 } else { 5 };
        assert!(work.signatures() <= failures + honest, "{}", work.signatures());
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        println!("FIGURE: colliding keys: {} signatures in {:?}", work.signatures(), begun.elapsed());
    }
}

/// Good signatures have an end too.
#[test]
fn signatures_that_verify_are_counted() {
    let mut net = Net::with_limits(Limits { failures: 2, ..Limits::default() });
    let zone = net.zones["zone.example"].clone();
    let aliases: Vec<Vec<Rec>> = (0..9)
        .map(|i| zone.signed(&[rec(&format!("a{i}.zone.example"), CNAME, wire(&format!("a{}.zone.example", i + 1)))]))
        .collect();
    let reply = Reply::answer([aliases.concat(), zone.signed(&[a("a9.zone.example")])].concat());
    let (verdict, work) = net.judge("a0.zone.example", A, &reply);
    assert_eq!((verdict, work.signatures()), (Verdict::Indeterminate(Unknown::Work), 8));
    // What led there is known by now.
    let (verdict, work) = net.judge("a5.zone.example", A, &reply);
    assert_eq!((verdict, work.signatures(), work.lookups()), (Verdict::Secure { ttl: 300 }, 5, 0));
}

/// CVE-2023-50868: a deep name below a zone of many iterations.
#[test]
fn hashes_are_counted() {
    let mut net = Net::with_limits(Limits { hashes: 20, ..Limits::default() });
    let deep = format!("{}zone.example", "a.".repeat(60));
    let records = [nsec3("zone.example", [1; 20], [2; 20], 0, 150, &[A])];
    let authority = net.zones["zone.example"].each(&records);
    let (verdict, work) = net.judge(&deep, A, &Reply::no_name(authority));
    assert_eq!((verdict, work.hashes()), (Verdict::Indeterminate(Unknown::Work), 20));
    // A name of usual depth is within it.
    let apex = nsec3("zone.example", hash("zone.example", 150), [0; 20], 0, 150, &[SOA, NS]);
    let over = |name: &str| {
        let (mut from, mut to) = (hash(name, 150), hash(name, 150));
        (from[19], to[19]) = (from[19].saturating_sub(1), to[19].saturating_add(1));
        nsec3("zone.example", from, to, 0, 150, &[A])
    };
    let authority = net.zones["zone.example"].each(&[apex, over("x.zone.example"), over("*.zone.example")]);
    let (verdict, work) = net.judge("y.x.zone.example", A, &Reply::no_name(authority));
    assert!(is_secure(verdict) && work.hashes() <= 20, "{verdict:?} {}", work.hashes());
}

#[test]
fn look_ups_are_counted_and_what_they_taught_stays() {
    let mut net = Net::with_limits(Limits { lookups: 8, ..Limits::default() });
    let deep = format!("{}zone.example", "a.".repeat(6));
    let proof = net.zones["zone.example"].each(&[nsec("zone.example", "zone.example", &[SOA, NS])]);
    for depth in 1..=6 {
        net.put(&format!("{}zone.example", "a.".repeat(depth)), DS, Reply::no_data(proof.clone()));
    }
    let reply = Reply::answer(vec![a(&deep)]);
    assert_eq!(net.verdict(&deep, A, &reply), Verdict::Indeterminate(Unknown::Lookups));
    assert_eq!(net.asked.len(), 8);
    // Names that are asked are the question's own ancestors, from the top.
    assert!(net.asked.iter().all(|(name, _)| name == "." || deep.ends_with(name.as_str())), "{:?}", net.asked);
    assert_eq!(net.verdict(&deep, A, &reply), Verdict::Bogus(Bogus::NoSignature), "the rest of the way");
    assert_eq!(net.asked.len(), 11);
}

/// A set that was found good in a look-up's reply says nothing of one by the same name in the answer.
#[test]
fn what_a_look_up_proved_is_not_the_answers_own() {
    let mut net = Net::new();
    // The same owner, type and zone: once with its signature, once changed.
    let honest = nsec("x.zone.example", "z.zone.example", &[A, MX]);
    let signed = net.zones["zone.example"].each(std::slice::from_ref(&honest));
    net.put("x.zone.example", DS, Reply::no_data(signed.clone()));
    net.put("www.x.zone.example", DS, Reply::no_data(signed.clone()));
    let forged = vec![nsec("x.zone.example", "z.zone.example", &[A]), signed[1].clone()];
    let verdict = net.verdict("x.zone.example", MX, &Reply::no_data(forged.clone()));
    assert_eq!(verdict, Verdict::Bogus(Bogus::Signature));
    // In the same question: the look-up comes first, then the answer is looked at again.
    let mut net = net.anew();
    let unsigned = a("x.zone.example");
    assert_eq!(net.verdict("x.zone.example", A, &Reply::answer(vec![unsigned])), Verdict::Bogus(Bogus::NoSignature));
    assert_eq!(net.verdict("x.zone.example", MX, &Reply::no_data(forged)), Verdict::Bogus(Bogus::Signature));
}

#[test]
fn a_zone_above_does_not_speak_for_the_zone_below() {
    let mut net = Net::new();
    // Its own word on the delegation, in the place of the child's denial.
    let parent = net.zones["example"].each(&[soa("example"), nsec("zone.example", "example", &[NS, DS])]);
    net.inside("zone.example", "x.zone.example", "zone.example");
    for reply in [Reply::no_name(parent.clone()), Reply::no_data(parent.clone())] {
        let verdict = net.verdict("x.zone.example", A, &reply);
        assert_eq!(verdict, Verdict::Bogus(Bogus::NoProof));
        let verdict = net.verdict("zone.example", A, &reply);
        assert_eq!(verdict, Verdict::Bogus(Bogus::NoProof));
    }
}

#[test]
fn many_denials_are_not_looked_at() {
    let mut net = Net::new();
    let many: Vec<Rec> =
        (10..40).map(|i| nsec(&format!("n{i}.zone.example"), &format!("n{i}a.zone.example"), &[A])).collect();
    let authority = net.zones["zone.example"].each(&many);
    let (verdict, work) = net.judge("x.zone.example", A, &Reply::no_name(authority));
    assert_eq!(verdict, Verdict::Indeterminate(Unknown::Work));
    assert_eq!(work.signatures(), 0, "not one of them");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing that was changed on the way is secure but what no signature covers: letter case, TTLs, header.
    #[test]
    fn no_changed_octet_makes_an_answer_say_something_else(at in 12usize..400, to: u8) {
        thread_local! {
            static NET: std::cell::RefCell<Net> = std::cell::RefCell::new(Net::new());
        }
        NET.with_borrow_mut(|net| {
            net.inside("zone.example", "www.zone.example", "zone.example");
            let reply = Reply::answer(net.zones["zone.example"].signed(&[a("www.zone.example")]));
            let honest = reply.encode("www.zone.example", A);
            let mut changed = honest.clone();
            let at = at % changed.len();
            changed[at] = to;
            let (verdict, _) = net.judge_wire("www.zone.example", A, &changed);
            if matches!(verdict, Verdict::Secure { .. }) {
                let address = honest.windows(4).position(|four| four == [192, 0, 2, 1]).expect("there");
                prop_assert_eq!(&changed[address..address + 4], &[192, 0, 2, 1][..]);
            }
            Ok(())
        })?;
    }

    #[test]
    fn any_octets_are_judged(octets in prop::collection::vec(any::<u8>(), 0..600), question: bool) {
        let mut net = Net::new();
        let mut wire = Reply::default().encode("www.zone.example", A);
        if question {
            wire[6..10].copy_from_slice(&[0, 3, 0, 3]);
            wire.extend(octets);
        } else {
            wire = octets;
        }
        let (verdict, _) = net.judge_wire("www.zone.example", A, &wire);
        let is_secure = is_secure(verdict);
        prop_assert!(!is_secure);
    }
}
