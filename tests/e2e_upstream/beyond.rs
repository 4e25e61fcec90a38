//! Aliases into a zone with upstreams of its own, of which only its upstreams' word counts, and out of one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, ENFORCE};
use crate::fake::{A, CNAME, Fake, Query, Reply, ask, wire};

const TRUE: [u8; 4] = [203, 0, 113, 5];
const FORGED: [u8; 4] = [198, 51, 100, 66];

/// Knows nothing of `corp.example` and says so of `a.site.example`'s target; makes one up for that of `b.site.example`.
fn outside(query: &Query) -> Vec<Vec<u8>> {
    let reply = Reply::to(query);
    let (wiki, inner) = (wire("wiki.corp.example"), wire("inner.corp.example"));
    vec![match query.name.as_str() {
        "a.site.example" => reply.rcode(3).answer("a.site.example", CNAME, &wiki).done(),
        "b.site.example" => reply.answer("b.site.example", CNAME, &wiki).answer("wiki.corp.example", A, &FORGED).done(),
        "c.site.example" => reply.answer("c.site.example", CNAME, &inner).done(),
        "d.site.example" => reply.answer("d.site.example", CNAME, &wire("loop0.corp.example")).done(),
        name => reply.answer(name, A, &FORGED).done(),
    }]
}

fn zone(name: &str, server: &Fake) -> String {
    format!(
        "[[forward]]\nzone = \"{name}\"\nservers = [\"{}\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2099-01-01\"\n",
        server.address
    )
}

#[test]
fn an_alias_into_a_zone_of_others_is_followed_by_a_question_to_them() {
    let general = Fake::start(outside);
    let corp = Fake::start(|query| {
        let reply = Reply::to(query);
        vec![match query.name.as_str() {
            "inner.corp.example" => reply.answer(&query.name, A, &[10, 1, 2, 3]).done(),
            // From zone to zone without an end.
            name if name.starts_with("loop") => {
                let n: u32 = name[4..].split('.').next().and_then(|n| n.parse().ok()).expect("a number");
                let to = if n.is_multiple_of(2) { "lab.corp.example" } else { "corp.example" };
                reply.answer(name, CNAME, &wire(&format!("loop{}.{to}", n + 1))).done()
            }
            name => reply.answer(name, A, &TRUE).done(),
        }]
    });
    let rule = |id: &str, names: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\naction = \"allow\"\nnames = [{names}]\nowner = \"tests\"\nreason = \"a test\"\n\
             review_by = \"2099-01-01\"\n"
        )
    };
    let inside = "[[answer.allow_range]]\nname = \"inner.corp.example\"\nranges = [\"10.0.0.0/8\"]\nowner = \"tests\"\n\
                  reason = \"a test\"\nreview_by = \"2099-01-01\"\n";
    let extra = [
        ENFORCE.to_owned(),
        zone("corp.example", &corp),
        zone("lab.corp.example", &corp),
        rule("site", "\"site.example\", \"corp.example\""),
        inside.to_owned(),
    ]
    .concat();
    let daemon = Daemon::start_at(general.address, "off", &extra);
    for name in ["a.site.example", "b.site.example"] {
        // From the upstreams, and then from memory.
        for turn in 0..3 {
            let answer = ask(daemon.address, "127.0.0.1", name, A);
            assert_eq!((answer.rcode, answer.addresses()), (0, vec![IpAddr::from(TRUE)]), "{name} {turn}: {answer:?}");
            let owners: Vec<&str> = answer.records.iter().map(|record| record.0.trim_end_matches('.')).collect();
            assert_eq!(owners, [name, "wiki.corp.example"], "{turn}");
        }
        assert_eq!(general.asked(name), 1, "{name}");
    }
    assert_eq!((general.asked("wiki.corp.example"), corp.asked("wiki.corp.example")), (0, 1));
    // Who may answer with addresses of the inside is the name itself, and nobody's alias for it.
    let own = ask(daemon.address, "127.0.0.1", "inner.corp.example", A);
    assert_eq!(own.addresses(), [IpAddr::from([10, 1, 2, 3])], "{own:?}");
    let borrowed = ask(daemon.address, "127.0.0.1", "c.site.example", A);
    assert!(borrowed.addresses().is_empty() && borrowed.rcode == 0, "{borrowed:?}");
    let endless = ask(daemon.address, "127.0.0.1", "d.site.example", A);
    assert_eq!(endless.rcode, 2, "{endless:?}");
    assert!(corp.seen().len() < 10, "{}", corp.seen().len());
}

/// A server that knows its own zone alone answers an alias that leads out of it with the alias: where it leads is asked of those
/// who know it (RFC 1034 section 5.3.3).
#[test]
fn an_alias_out_of_a_zone_is_followed_by_a_question_to_others() {
    let general = Fake::start(|query| {
        let reply = Reply::to(query);
        vec![match query.name.as_str() {
            "www.site.example" | "cdn.site.example" => reply.answer(&query.name, A, &TRUE).done(),
            // An authoritative server in the place of a resolver.
            "bare.site.example" => {
                reply.without_recursion().answer(&query.name, CNAME, &wire("www.site.example")).done()
            }
            "round.site.example" => {
                reply.without_recursion().answer(&query.name, CNAME, &wire("round.site.example2")).done()
            }
            "round.site.example2" => {
                reply.without_recursion().answer(&query.name, CNAME, &wire("round.site.example")).done()
            }
            "inner.site.example" => reply.answer(&query.name, A, &[10, 1, 2, 3]).done(),
            name => reply.answer(name, A, &FORGED).done(),
        }]
    });
    let corp = Fake::start(|query| {
        let reply = Reply::to(query).without_recursion();
        let target = match query.name.as_str() {
            "inner.corp.example" => "inner.site.example",
            "shut.corp.example" => "shut.example",
            _ => "www.site.example",
        };
        vec![reply.answer(&query.name, CNAME, &wire(target)).done()]
    });
    let deny = "[[rule]]\nid = \"shut\"\naction = \"deny\"\nnames = [\"shut.example\"]\nowner = \"tests\"\n\
                reason = \"a test\"\nreview_by = \"2099-01-01\"\n";
    let daemon = Daemon::start_at(general.address, "off", &[ENFORCE, &zone("corp.example", &corp), deny].concat());
    for name in ["out.corp.example", "bare.site.example"] {
        for turn in 0..2 {
            let answer = ask(daemon.address, "127.0.0.1", name, A);
            assert_eq!((answer.rcode, answer.addresses()), (0, vec![IpAddr::from(TRUE)]), "{name} {turn}: {answer:?}");
            let owners: Vec<&str> = answer.records.iter().map(|record| record.0.trim_end_matches('.')).collect();
            assert_eq!(owners, [name, "www.site.example"], "{turn}");
        }
    }
    assert_eq!((general.asked("out.corp.example"), corp.asked("out.corp.example")), (0, 1));
    assert_eq!((general.asked("www.site.example"), corp.asked("www.site.example")), (1, 0));
    // Who asks for the alias gets it.
    let alias = ask(daemon.address, "127.0.0.1", "out.corp.example", CNAME);
    assert_eq!((alias.rcode, alias.records.len()), (0, 1), "{alias:?}");
    // Where it leads is judged as any name is.
    let shut = ask(daemon.address, "127.0.0.1", "shut.corp.example", A);
    assert!(shut.rcode == 3 && general.asked("shut.example") == 0, "{shut:?}");
    let inner = ask(daemon.address, "127.0.0.1", "inner.corp.example", A);
    assert!(inner.addresses().is_empty(), "{inner:?}");
    let endless = ask(daemon.address, "127.0.0.1", "round.site.example", A);
    assert_eq!(endless.rcode, 2, "{endless:?}");
    assert!(general.asked("round.site.example") + general.asked("round.site.example2") <= 4);
}

/// A client has asked once, and waits as long as for one question, however many its aliases lead to. What came too late for it is
/// there when it asks again: each name is asked for once, and none is said to have failed.
#[test]
fn what_aliases_lead_to_takes_no_longer_than_one_question() {
    let general = Fake::start(|query| {
        // Two of them are longer than a question's time, by more than a busy machine needs to tell.
        std::thread::sleep(Duration::from_millis(if query.name.contains("other") { 1800 } else { 1300 }));
        let n: u8 = query.name.strip_prefix('s').and_then(|rest| rest[..1].parse().ok()).expect("a number");
        let (_, zone) = query.name.split_once('.').expect("a name of a zone");
        let reply = Reply::to(query).without_recursion();
        vec![match n {
            3 => reply.answer(&query.name, A, &TRUE).done(),
            n => reply.answer(&query.name, CNAME, &wire(&format!("s{}.{zone}", n + 1))).done(),
        }]
    });
    let upstream = format!("servers = [\"{}\"]\ntry_timeout_ms = 2400\ntotal_timeout_ms = 2400", general.address);
    let daemon = Daemon::start_by(&upstream, "off", ENFORCE);
    let turns = (0..6).map(|_| {
        let begun = Instant::now();
        let answer = ask(daemon.address, "127.0.0.1", "s0.site.example", A);
        assert!(begun.elapsed() < Duration::from_millis(4000), "{:?}: {answer:?}", begun.elapsed());
        if answer.rcode == 2 {
            assert_eq!(answer.errors.iter().map(|e| e.0).collect::<Vec<_>>(), [22], "{answer:?}");
        }
        answer
    });
    let answers: Vec<_> = turns.take_while(|answer| answer.addresses().is_empty()).collect();
    assert!((1..4).contains(&answers.len()), "{answers:?}");
    let last = ask(daemon.address, "127.0.0.1", "s0.site.example", A);
    assert_eq!((last.rcode, last.addresses(), last.records.len()), (0, vec![IpAddr::from(TRUE)], 4), "{last:?}");
    for n in 0..4 {
        assert_eq!(general.asked(&format!("s{n}.site.example")), 1, "{n}");
    }
    // Who asks for the same name meanwhile has its own time.
    let address = daemon.address;
    let hurried = std::thread::spawn(move || ask(address, "127.0.0.1", "s2.other.example", A));
    // The other one's time is over half when the name that it was led to leaves.
    let until = Instant::now() + Duration::from_secs(10);
    while general.asked("s3.other.example") == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let other = ask(daemon.address, "127.0.0.1", "s3.other.example", A);
    assert_eq!((other.rcode, other.addresses()), (0, vec![IpAddr::from(TRUE)]), "{other:?}");
    assert_eq!((hurried.join().expect("asked").rcode, general.asked("s3.other.example")), (2, 1));
}
