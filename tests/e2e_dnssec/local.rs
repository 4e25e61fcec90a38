//! The resolver validates by itself, behind an upstream that checks nothing: it comes to unbound's verdicts, what is bogus is
//! shown to nobody who wants it checked, and what a hostile zone or upstream can make it do is counted.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::Message as Reply;
use hickory_proto::rr::{RData, RecordType};

use super::tamper::{TAMPER, Tamper};
use super::*;

mod changes;

const BOGUS: u16 = 6;
const INDETERMINATE: u16 = 5;
const NO_ALGORITHM: u16 = 1;
const NO_DIGEST: u16 = 2;
const EXPIRED: u16 = 7;
const EARLY: u16 = 8;
pub const NO_KEY: u16 = 9;
const NO_SIGNATURE: u16 = 10;
const NO_PROOF: u16 = 12;
const ITERATIONS: u16 = 27;

fn validating(signed: &Signed, more: &str) -> Config {
    Config::enforce().tables(&format!("[dnssec]\nvalidate = true\ntrust_anchors = {:?}\n{more}", signed.anchor()))
}

/// A resolver that validates, asking the upstream that checks nothing, or the one that tampers.
fn start(upstream: Option<Ipv4Addr>, more: &str) -> Option<(Net, Config)> {
    let (world, signed) = Net::outside(Kind::Unchecked)?;
    let mut config = validating(&signed, more);
    if let Some(upstream) = upstream {
        config.upstream = format!("servers = [\"{upstream}\"]\nudp_payload = 4096\n");
    }
    let staunch = Staunch::start(&world, &config);
    Some((Net { staunch, signed, world }, config))
}

/// RFC 9276 section 3.2: who does not compute the hashes takes the zone for unsigned and says so.
#[test]
fn a_zone_of_too_many_iterations_is_not_checked() {
    let Some((net, config)) = start(None, "max_nsec3_iterations = 19\n") else { return };
    for (name, qtype, code) in
        [("missing.iterated.org", rtype::A, rcode::NXDOMAIN), ("www.iterated.org", rtype::MX, rcode::NOERROR)]
    {
        let here = net.through(&query(name, qtype, true, AD));
        assert_eq!((here.rcode(), here.flags & AD, codes(&here)), (code, 0, vec![ITERATIONS]), "{name}: {here:?}");
    }
    let here = net.through(&query("www.iterated.org", rtype::A, true, AD));
    assert_eq!((here.flags & AD, codes(&here)), (AD, vec![]), "what takes no hashes is checked: {here:?}");
    let mut config = config;
    config.tables = config.tables.replace("iterations = 19", "iterations = 20");
    net.staunch.reload(&net.world, &config);
    forget(&net);
    let here = net.through(&query("missing.iterated.org", rtype::A, true, AD));
    assert_eq!((here.rcode(), here.flags & AD, codes(&here)), (rcode::NXDOMAIN, AD, vec![]), "{here:?}");
}

/// The metrics page's value of a series.
pub fn metric(world: &World, series: &str) -> u64 {
    let page = world.gw.blocking(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9153").expect("the metrics page");
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the page");
        page
    });
    let named = |line: &&str| line.rsplit_once(' ').is_some_and(|(name, _)| name.trim_end_matches("{}") == series);
    let line = page.lines().find(named).unwrap_or_else(|| panic!("no {series} in {page}"));
    line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number") as u64
}

/// Has the resolver begin anew: no answer and no key is at hand when this returns.
pub fn forget(net: &Net) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = format!("forget-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // A reload that changes nothing keeps answers.
    let rule = format!(
        "\n[[rule]]\nid = \"{id}\"\naction = \"deny\"\nnames = [\"{id}.example\"]\nowner = \"test\"\n\
         reason = \"test\"\nreview_by = \"2099-01-01\"\n"
    );
    let mut file = std::fs::File::options().append(true).open(&net.staunch.config).expect("the configuration");
    file.write_all(rule.as_bytes()).expect("written");
    net.staunch.run_ok(&["reload"]);
}

pub fn codes(reply: &Message) -> Vec<u16> {
    reply.errors().into_iter().map(|(code, _)| code).collect()
}

#[test]
fn verdicts_are_unbounds() {
    let Some((net, _)) = start(None, "") else { return };
    let control = net.signed.validator(&net.world.net, "control", RESOLVER);
    // Where a span opts out, what it covers is insecure (RFC 5155 section 9.2), and so is no part of the other tests' rows.
    let opted_out = [("plain.net", DS), ("missing.net", rtype::A), ("www.missing.net", rtype::AAAA)];
    let hashed = [("missing.iterated.org", rtype::A), ("www.iterated.org", rtype::MX)];
    // The root has no delegation above it, and says itself that there is none.
    let more = opted_out.into_iter().chain(hashed).chain([(".", DS)]);
    let rows = ROWS.iter().map(|(name, qtype, ..)| (*name, *qtype)).chain(more);
    let (mut secure, mut bogus) = (0, 0);
    for (name, qtype) in rows.clone() {
        let there = ask(&net.world.net, Ipv4Addr::LOCALHOST, VALIDATOR_PORT, &query(name, qtype, true, AD));
        for (flags, dnssec_ok) in [(AD, true), (0, true), (AD, false), (0, false)] {
            let here = net.through(&query(name, qtype, dnssec_ok, flags));
            let row =
                format!("{name} {qtype} flags {flags:04x} DO {dnssec_ok}: {here:?}\n{there:?}\n{}", control.log());
            assert_eq!(here.rcode(), there.rcode(), "{row}");
            let wants_ad = dnssec_ok || flags & AD != 0;
            assert_eq!(here.flags & AD, if wants_ad { there.flags & AD } else { 0 }, "{row}");
            let signed = |r: &Record| matches!(r.rtype, RRSIG | NSEC | NSEC3);
            if dnssec_ok {
                assert_eq!(shape(&here.answers), shape(&there.answers), "{row}");
                assert_eq!(shape(&here.authority), shape(&there.authority), "{row}");
            } else {
                assert!(!here.answers.iter().chain(&here.authority).any(signed), "{row}");
            }
            if here.rcode() == rcode::SERVFAIL {
                assert!(codes(&here).iter().any(|code| (5..=12).contains(code)), "{row}");
                assert!(here.answers.is_empty() && here.authority.is_empty(), "{row}");
            }
        }
        secure += usize::from(there.flags & AD != 0);
        bogus += usize::from(there.rcode() == rcode::SERVFAIL);
    }
    for (name, qtype, code, state) in ROWS {
        let there = ask(&net.world.net, Ipv4Addr::LOCALHOST, VALIDATOR_PORT, &query(name, qtype, true, AD));
        assert_eq!((there.rcode(), there.flags & AD != 0), (code, state == Secure), "the control: {name} {qtype}");
    }
    assert!(secure > 43 && bogus == 5, "{secure} {bogus}");
    let root = net.through(&query(".", DS, true, 0));
    assert_eq!((root.rcode(), root.flags & AD, root.answers.len()), (rcode::NOERROR, AD, 0), "{root:?}");
    for (name, code) in [
        ("tampered.nsec.org", BOGUS),
        ("www.expired.org", EXPIRED),
        ("www.early.org", EARLY),
        ("www.forged.org", NO_KEY),
        ("missing.forged.org", NO_KEY),
    ] {
        let here = net.through(&query(name, rtype::A, false, 0));
        assert_eq!((here.rcode(), codes(&here)), (rcode::SERVFAIL, vec![code]), "{name}: {here:?}");
    }
    // What cannot be checked is answered, and said to be unchecked and why: from the upstream and from memory.
    forget(&net);
    for (name, said) in [
        ("www.digest.org", vec![NO_DIGEST]),
        ("www.algorithm.org", vec![NO_ALGORITHM]),
        ("www.plain.org", vec![]),
        ("www.nsec.org", vec![]),
    ] {
        for _ in 0..2 {
            let here = net.through(&query(name, rtype::A, false, 0));
            assert_eq!(
                (here.rcode(), here.addresses().len(), codes(&here)),
                (rcode::NOERROR, 1, said.clone()),
                "{name}"
            );
        }
    }
    // Who validates behind us finds all of it.
    let agent = &net.world.agents[0];
    for (name, says) in [("chain.nsec.org", "; fully validated"), ("tampered.nsec.org", "resolution failed")] {
        let here = net.signed.delv(&agent.ns, agent.gateway, name, "A");
        assert!(here.contains(says), "{name}: {here}");
    }
    let refused: Vec<_> = net.staunch.events().into_iter().filter(|e| e["would"] != "answer").collect();
    assert!(refused.is_empty(), "{refused:?}");
    println!(
        "FIGURE: {} questions in 4 forms, verdicts as unbound's: {secure} secure, {bogus} bogus; {} look-ups, {} signatures, \
         {} hashes for all of them",
        rows.count(),
        metric(&net.world, "staunch_dnssec_lookups_total"),
        metric(&net.world, "staunch_dnssec_signatures_total"),
        metric(&net.world, "staunch_dnssec_nsec3_hashes_total"),
    );
}

#[test]
fn what_is_bogus_is_neither_pinned_nor_mixed_with_what_is_checked() {
    let Some((net, _)) = start(None, "") else { return };
    let opened = || String::from_utf8_lossy(&net.world.gw.sh("nft list ruleset").stdout).into_owned();
    let checked = |flags| net.through(&query("tampered.nsec.org", rtype::A, false, flags));
    assert_eq!(checked(0).rcode(), rcode::SERVFAIL);
    assert!(opened().contains("table inet staunch") && !opened().contains("203.0.113.67"), "pinned though bogus");
    // Who checks for himself is shown it, as it came.
    let unchecked = checked(CD);
    assert_eq!(unchecked.addresses(), [Ipv4Addr::new(203, 0, 113, 67)], "{unchecked:?}");
    assert_eq!(unchecked.flags & (CD | AD), CD, "{unchecked:?}");
    // And that is not what others get: not from memory, not once the failure is forgotten.
    assert_eq!(checked(0).rcode(), rcode::SERVFAIL);
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(checked(0).rcode(), rcode::SERVFAIL);
    assert!(checked(AD).addresses().is_empty());
    // The positive control: what is secure is pinned and shown.
    let secure = net.through(&query("www.nsec.org", rtype::A, false, AD));
    assert_eq!((secure.addresses(), secure.flags & AD), (vec![Ipv4Addr::new(203, 0, 113, 10).into()], AD));
    assert!(opened().contains("203.0.113.10"), "{}", opened());
    // Where the flag may not choose, it does not.
    net.staunch.reload(&net.world, &validating(&net.signed, "allow_cd = false\n"));
    forget(&net);
    let unchecked = checked(CD);
    assert_eq!((unchecked.rcode(), codes(&unchecked)), (rcode::SERVFAIL, vec![BOGUS]), "{unchecked:?}");
    let secure = net.through(&query("www.nsec.org", rtype::A, false, AD | CD));
    assert_eq!((secure.addresses().len(), secure.flags & (AD | CD)), (1, AD | CD), "{secure:?}");
    let failed: Vec<_> = net.staunch.events().into_iter().filter(|e| e["rcode"] == "SERVFAIL").collect();
    assert!(failed.iter().all(|e| e["pins"].as_array().is_none_or(Vec::is_empty)), "{failed:?}");
}

fn is_signature_of(record: &hickory_proto::rr::Record, of: &[RecordType]) -> bool {
    use hickory_proto::dnssec::rdata::DNSSECRData;
    matches!(&record.data, RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) if of.contains(&rrsig.input().type_covered))
}

fn behind_tamper(signed: &Signed, more: &str) -> Config {
    let upstream = format!("servers = [\"{TAMPER}\"]\nudp_payload = 4096\n");
    Config { upstream, ..validating(signed, more) }
}

/// A validating resolver behind an upstream that tampers when told to.
fn tampered() -> Option<(Net, Tamper)> {
    let (world, signed) = Net::outside(Kind::Unchecked)?;
    let tamper = Tamper::start(&world);
    // What is asked for anchors, by nobody's question, is no part of this.
    let staunch = Staunch::start(&world, &behind_tamper(&signed, "follow_rollover = false\n"));
    Some((Net { staunch, signed, world }, tamper))
}

/// AD of an upstream that claims it of everything is shown to nobody, whoever checks (RFC 4035 section 3.2.3).
#[test]
fn what_an_upstream_says_of_itself_is_not_shown() {
    let Some((net, tamper)) = tampered() else { return };
    tamper.set(Some(|reply| {
        reply.metadata.authentic_data = true;
        true
    }));
    for (name, state) in [("tampered.nsec.org", Bogus), ("www.plain.org", Insecure), ("www.nsec.org", Secure)] {
        // From the upstream, and then from memory.
        for turn in ["first", "second"] {
            for dnssec_ok in [false, true] {
                let row = format!("{name}, {turn}, DO {dnssec_ok}");
                let unchecked = net.through(&query(name, rtype::A, dnssec_ok, AD | CD));
                assert_eq!((unchecked.rcode(), unchecked.addresses().len()), (rcode::NOERROR, 1), "{row}");
                assert_eq!(unchecked.flags & (AD | CD), CD, "{row}: {unchecked:?}");
                let checked = net.through(&query(name, rtype::A, dnssec_ok, AD));
                assert_eq!(checked.flags & AD != 0, state == Secure, "{row}: {checked:?}");
                assert_eq!(checked.rcode() == rcode::SERVFAIL, state == Bogus, "{row}: {checked:?}");
            }
        }
    }
}

/// unbound, which asks for an alias' target with type A first, shows the denial of that beside the answer. It belongs to no
/// proof and is left out; what is shown is as authentic as it was.
#[test]
fn what_stands_beside_an_answer_takes_nothing_from_it() {
    let validating = start(None, "").map(|(net, _)| net);
    for (what, net) in [("here", validating), ("upstream", Net::start(Kind::Unbound, &Config::enforce()))] {
        let Some(net) = net else { return };
        for name in ["token.nsec.org", "token.nsec3.net"] {
            let query = query(name, rtype::TXT, true, AD);
            let there = net.directly(&query);
            let beside = there.authority.iter().filter(|r| matches!(r.rtype, NSEC | NSEC3)).count();
            assert!(beside > 0, "checked {what}: nothing beside it: {there:?}");
            let here = net.through(&query);
            assert_eq!((here.flags & AD, here.authority.len()), (AD, 0), "checked {what}: {here:?}");
            assert_eq!(shape(&here.answers), shape(&there.answers), "checked {what}");
        }
    }
}

/// One upstream that strips, forges or says nothing costs no answer where another one is well.
#[test]
fn what_one_upstream_makes_bogus_is_had_from_another() {
    let Some((world, signed)) = Net::outside(Kind::Unchecked) else { return };
    let tamper = Tamper::start(&world);
    let upstream = format!("servers = [\"{TAMPER}\", \"{RESOLVER}\"]\nudp_payload = 4096\n");
    let config = Config { upstream, ..validating(&signed, "follow_rollover = false\n") };
    let net = Net { staunch: Staunch::start(&world, &config), signed, world };
    for (what, name, qtype, change, _) in changes::CHANGES {
        tamper.set(Some(change));
        // A busy machine may need more time than a question has; a failure is forgotten after two seconds.
        let whole = |reply: &Message| reply.flags & AD != 0 && codes(reply).is_empty();
        let reply =
            world::wait_for(Duration::from_secs(10), || Some(net.through(&query(name, qtype, true, AD))).filter(whole));
        let Some(reply) = reply else {
            panic!("{what}: {:?}\n{}", net.through(&query(name, qtype, true, AD)), net.staunch.tail())
        };
        assert!(!reply.addresses().contains(&Ipv4Addr::new(203, 0, 113, 9).into()), "{what}: {reply:?}");
        assert!(tamper.asked().iter().any(|(asked, ..)| asked == name), "{what}: the one that tampers was asked first");
        forget(&net);
    }
    // What is bogus everywhere is asked of each once, and stays so.
    tamper.set(None);
    let reply = net.through(&query("tampered.nsec.org", rtype::A, false, AD));
    assert_eq!((reply.rcode(), codes(&reply)), (rcode::SERVFAIL, vec![BOGUS]), "{reply:?}");
}

/// What leaves for a question: itself, and DS and DNSKEY of what stands above it; the same flags whatever the client's.
#[test]
fn look_ups_are_of_the_questions_own_ancestors() {
    let Some((net, tamper)) = tampered() else { return };
    let of = |name: &str, flags, dnssec_ok| {
        net.through(&query(name, rtype::A, dnssec_ok, flags));
        let asked = tamper.asked();
        let with_proofs = |(_, _, flags, dnssec_ok): &tamper::Asked| flags & 0x0130 == 0x0130 && *dnssec_ok;
        assert!(asked.iter().all(with_proofs), "RD, AD, CD and DO: {asked:?}");
        asked.into_iter().map(|(name, qtype, ..)| (name, qtype)).collect::<Vec<_>>()
    };
    let own = |name: &str, qtype: u16| (name.to_owned(), qtype);
    // Some at the same time, so in no order; each once.
    let mut asked = of("www.nsec.org", 0, false);
    asked.sort();
    assert_eq!(
        asked,
        [
            own("", DNSKEY),
            own("nsec.org", DS),
            own("nsec.org", DNSKEY),
            own("org", DS),
            own("org", DNSKEY),
            own("www.nsec.org", rtype::A)
        ]
    );
    assert_eq!(of("missing.nsec.org", 0, true), [own("missing.nsec.org", rtype::A)], "keys are at hand");
    assert_eq!(of("www.nsec.org", CD, false), [own("www.nsec.org", rtype::A)], "nothing for who checks himself");
    assert_eq!(of("www.plain.org", 0, false), [own("www.plain.org", rtype::A), own("plain.org", DS)]);
    assert_eq!(of("host.plain.org", 0, false), [own("host.plain.org", rtype::A)]);
    let asked: BTreeSet<_> = of("chain.nsec3.net", 0, false).into_iter().collect();
    let net_keys = [own("net", DS), own("net", DNSKEY), own("nsec3.net", DS), own("nsec3.net", DNSKEY)];
    assert_eq!(asked, net_keys.into_iter().chain([own("chain.nsec3.net", rtype::A)]).collect());
    // Sixteen who ask for the same at once cause one exchange of each kind.
    forget(&net);
    let agent = &net.world.agents[0];
    let server = SocketAddr::from((agent.gateway, 53));
    let replies = agent.ns.run(async move {
        let mut all = tokio::task::JoinSet::new();
        for i in 0..16u16 {
            let mut query = query("www.nsec3.net", rtype::A, i % 2 == 0, AD);
            query.id = i;
            all.spawn(async move { client::udp(None, server, &query.encode(), Duration::from_secs(20)).await });
        }
        all.join_all().await
    });
    assert!(replies.into_iter().all(|reply| reply.is_ok_and(|reply| reply.flags & AD == AD)));
    let asked: Vec<_> = tamper.asked().into_iter().map(|(name, qtype, ..)| (name, qtype)).collect();
    let once: BTreeSet<_> = asked.iter().cloned().collect();
    println!("FIGURE: sixteen at once: {} exchanges, {} of them different", asked.len(), once.len());
    assert_eq!(once.len(), 6, "{asked:?}");
    assert!(asked.len() <= 12, "{asked:?}");
}

/// CVE-2023-50387 by a real zone: thirteen keys of one tag, and twelve signatures that none of them made.
#[test]
fn colliding_keys_are_tried_a_counted_number_of_times() {
    let Some((net, tamper)) = tampered() else { return };
    // The zone is honest as it is, and its own key is found among the others.
    let query = query("www.trap.org", rtype::A, false, AD);
    let reply = net.through(&query);
    assert_eq!((reply.rcode(), reply.flags & AD), (rcode::NOERROR, AD), "{reply:?}");
    let keys = net.through(&self::query("trap.org", DNSKEY, true, 0));
    assert_eq!(keys.answers.iter().filter(|r| r.rtype == DNSKEY).count(), 13, "{keys:?}");
    forget(&net);
    tamper.set(Some(|reply| {
        use hickory_proto::dnssec::rdata::{DNSSECRData, RRSIG};
        let rrsig = reply.answers.iter().find(|r| is_signature_of(r, &[RecordType::A])).cloned();
        let Some(record) = rrsig else { return true };
        let RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) = &record.data else { return true };
        let (input, signature) = (rrsig.input().clone(), rrsig.sig().to_vec());
        reply.answers.retain(|r| !is_signature_of(r, &[RecordType::A]));
        for salt in 1..=12u8 {
            let mut signature = signature.clone();
            signature[100] ^= salt;
            let mut bad = record.clone();
            bad.data = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input.clone(), signature)));
            reply.answers.push(bad);
        }
        true
    }));
    let before = metric(&net.world, "staunch_dnssec_signatures_total");
    let begun = Instant::now();
    let reply = net.through(&query);
    let (took, tried) = (begun.elapsed(), metric(&net.world, "staunch_dnssec_signatures_total") - before);
    assert_eq!((reply.rcode(), codes(&reply)), (rcode::SERVFAIL, vec![INDETERMINATE]), "{reply:?}");
    // Sixteen that fail, and those of the way there: the root's keys, two DS sets, two zones' keys.
    assert!((16..=21).contains(&tried), "{tried} signatures");
    println!("FIGURE: colliding keys: {tried} of 156 signatures tried, SERVFAIL within {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
