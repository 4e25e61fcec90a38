//! What an upstream on the way can do to replies, and what is told of it.

use super::super::tamper::Change;
use super::*;

fn asks(reply: &Reply, qtype: RecordType) -> bool {
    reply.queries.first().is_some_and(|query| query.query_type() == qtype)
}

const DENIALS: [RecordType; 2] = [RecordType::NSEC, RecordType::NSEC3];

/// Name, type, what is done to replies, the code that is told.
pub const CHANGES: [(&str, &str, u16, Change, u16); 10] = [
    (
        "signatures taken out",
        "www.nsec.org",
        rtype::A,
        |reply| {
            reply.answers.retain(|r| !is_signature_of(r, &[RecordType::A]));
            true
        },
        NO_SIGNATURE,
    ),
    (
        "another address",
        "www.nsec3.net",
        rtype::A,
        |reply| {
            for record in &mut reply.answers {
                if record.record_type() == RecordType::A {
                    record.data = RData::A(Ipv4Addr::new(203, 0, 113, 9).into());
                }
            }
            true
        },
        BOGUS,
    ),
    (
        "an address more",
        "www.nsec3.net",
        rtype::A,
        |reply| {
            if asks(reply, RecordType::A) {
                let mut more = reply.answers[0].clone();
                more.data = RData::A(Ipv4Addr::new(203, 0, 113, 9).into());
                reply.answers.push(more);
            }
            true
        },
        BOGUS,
    ),
    (
        "a name that exists is denied",
        "www.nsec.org",
        rtype::A,
        |reply| {
            if asks(reply, RecordType::A) {
                reply.answers.clear();
                reply.metadata.response_code = hickory_proto::op::ResponseCode::NXDomain;
            }
            true
        },
        NO_PROOF,
    ),
    (
        "spans taken out",
        "missing.nsec.org",
        rtype::A,
        |reply| {
            reply.authorities.retain(|r| !DENIALS.contains(&r.record_type()) && !is_signature_of(r, &DENIALS));
            true
        },
        NO_PROOF,
    ),
    (
        "hashes taken out",
        "missing.nsec3.net",
        rtype::A,
        |reply| {
            reply.authorities.retain(|r| !DENIALS.contains(&r.record_type()) && !is_signature_of(r, &DENIALS));
            true
        },
        NO_PROOF,
    ),
    (
        "spans unsigned",
        "www.nsec.org",
        rtype::MX,
        |reply| {
            reply.authorities.retain(|r| !is_signature_of(r, &DENIALS));
            true
        },
        NO_PROOF,
    ),
    (
        "the wildcard's proof taken out",
        "one.wild.nsec3.net",
        rtype::A,
        |reply| {
            reply.authorities.clear();
            true
        },
        NO_PROOF,
    ),
    (
        "a delegation said to have no key",
        "www.nsec.org",
        rtype::A,
        |reply| {
            if asks(reply, RecordType::DS) {
                reply.answers.clear();
            }
            reply.answers.retain(|r| !is_signature_of(r, &[RecordType::A]));
            true
        },
        NO_PROOF,
    ),
    (
        "no reply about keys",
        "www.nsec3.net",
        rtype::A,
        |reply| !asks(reply, RecordType::DS) && !asks(reply, RecordType::DNSKEY),
        INDETERMINATE,
    ),
];

#[test]
fn an_upstream_that_tampers_is_found_out() {
    let Some((net, tamper)) = tampered() else { return };
    for (what, name, qtype, change, code) in CHANGES {
        let query = query(name, qtype, false, AD);
        tamper.set(Some(change));
        let begun = Instant::now();
        let reply = net.through(&query);
        assert_eq!((reply.rcode(), codes(&reply)), (rcode::SERVFAIL, vec![code]), "{what}: {reply:?}");
        assert!(reply.answers.is_empty(), "{what}: {reply:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{what}: {:?}", begun.elapsed());
        // unbound, asking the same upstream, is not taken in either, and without the change finds nothing wrong. Of keys that
        // nobody tells it says nothing for longer than a client waits.
        for change in [Some(change), None].into_iter().filter(|change| change.is_none() || code != INDETERMINATE) {
            tamper.set(change);
            let _control = net.signed.fresh_validator(&net.world.net, TAMPER);
            let there = ask(&net.world.net, Ipv4Addr::LOCALHOST, VALIDATOR_PORT, &query);
            let bogus = (there.rcode() == rcode::SERVFAIL, there.flags & AD != 0);
            assert_eq!(bogus, (change.is_some(), change.is_none()), "{what}, as unbound has it: {there:?}");
        }
        // The positive control, with nothing remembered.
        tamper.set(None);
        forget(&net);
        // An exchange about keys that is not answered may be joined until it ends.
        let told = world::wait_for(Duration::from_secs(10), || (net.through(&query).flags & AD != 0).then_some(()));
        assert!(told.is_some(), "{what}, and then the truth: {:?}", net.through(&query));
        forget(&net);
    }
    let opened = String::from_utf8_lossy(&net.world.gw.sh("nft list ruleset").stdout).into_owned();
    assert!(opened.contains("203.0.113.10") && !opened.contains("203.0.113.9 "), "{opened}");

    // A zone that is broken and known to be is answered, unchecked, while the exception stands (RFC 7646).
    let reply = net.through(&query("www.forged.org", rtype::A, false, AD));
    assert_eq!((reply.rcode(), codes(&reply)), (rcode::SERVFAIL, vec![NO_KEY]));
    let except = "[[dnssec.negative_trust_anchor]]\nzone = \"forged.org\"\nowner = \"tests\"\nreason = \"a test needs it\"\n\
                  review_by = \"2099-01-01\"\n";
    net.staunch.reload(&net.world, &behind_tamper(&net.signed, except));
    forget(&net);
    let reply = net.through(&query("www.forged.org", rtype::A, false, AD));
    assert_eq!((reply.addresses(), reply.flags & AD), (vec![Ipv4Addr::new(203, 0, 113, 14).into()], 0), "{reply:?}");
    let reply = net.through(&query("www.expired.org", rtype::A, false, AD));
    assert_eq!(codes(&reply), [EXPIRED], "no other zone is excepted");
}
