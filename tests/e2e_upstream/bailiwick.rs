//! Records that were not asked for: each variant is looked for in the answer, in the cache (by asking for the name that it
//! forges, which must leave), and among what the session may connect to.

use std::net::IpAddr;

use crate::daemon::{Daemon, ENFORCE};
use crate::fake::{A, AAAA, Answer, CNAME, DNAME, Fake, HTTPS, NS, Query, Reply, SOA, TXT, ask, wire};

/// The address that is true, and the one that a forger wants to be reached.
const TRUE: [u8; 4] = [203, 0, 113, 5];
const FORGED: [u8; 4] = [198, 51, 100, 66];

/// One variant.
struct Variant {
    what: &'static str,
    /// The question's name, and its type.
    name: &'static str,
    qtype: u16,
    reply: fn(Reply) -> Reply,
    /// Whether the true address must be shown, for a question for addresses.
    is_answered: bool,
    /// What is forged: asked for afterwards, it must leave and be answered with the true address.
    victim: (&'static str, u16),
}

/// A chain of CNAMEs from `from` over `hops` names.
fn chain(mut reply: Reply, from: &str, hops: usize) -> Reply {
    let mut owner = from.to_owned();
    for hop in 0..hops {
        let next = format!("hop{hop}.{from}");
        reply = reply.answer(&owner, CNAME, &wire(&next));
        owner = next;
    }
    reply.answer(&owner, A, &FORGED)
}

const VARIANTS: [Variant; 16] =
    [
        Variant {
            what: "an unrelated address in the answer",
            name: "v1.site.example",
            qtype: A,
            reply: |r| r.answer("v1.site.example", A, &TRUE).answer("bank1.site.example", A, &FORGED),
            is_answered: true,
            victim: ("bank1.site.example", A),
        },
        Variant {
            what: "an unrelated address in the additional section",
            name: "v2.site.example",
            qtype: A,
            reply: |r| r.answer("v2.site.example", A, &TRUE).additional("bank2.site.example", A, &FORGED),
            is_answered: true,
            victim: ("bank2.site.example", A),
        },
        Variant {
            what: "name servers of the zone, with glue",
            name: "v3.site.example",
            qtype: A,
            reply: |r| {
                r.answer("v3.site.example", A, &TRUE)
                    .authority("site.example", NS, &wire("ns3.site.example"))
                    .additional("ns3.site.example", A, &FORGED)
            },
            is_answered: true,
            victim: ("ns3.site.example", A),
        },
        Variant {
            what: "an alias beside the chain, with its address",
            name: "v4.site.example",
            qtype: A,
            reply: |r| {
                r.answer("bank4.site.example", CNAME, &wire("evil4.site.example"))
                    .answer("evil4.site.example", A, &FORGED)
                    .answer("v4.site.example", A, &TRUE)
            },
            is_answered: true,
            victim: ("bank4.site.example", A),
        },
        Variant {
            what: "a DNAME that the question is not below",
            name: "v5.site.example",
            qtype: A,
            reply: |r| {
                r.answer("v5.site.example", A, &TRUE)
                    .answer("bank5.site.example", DNAME, &wire("evil.site.example"))
                    .answer("www.evil.site.example", A, &FORGED)
            },
            is_answered: true,
            victim: ("www.bank5.site.example", A),
        },
        Variant {
            what: "a sibling of a name on the chain",
            name: "v6.site.example",
            qtype: A,
            reply: |r| {
                r.answer("v6.site.example", CNAME, &wire("edge6.site.example"))
                    .answer("bank6.site.example", A, &FORGED)
                    .answer("edge6.site.example", A, &TRUE)
            },
            is_answered: true,
            victim: ("bank6.site.example", A),
        },
        Variant {
            what: "the question's name in another class",
            name: "v7.site.example",
            qtype: A,
            reply: |r| r.answer("v7.site.example", A, &TRUE).answer_in(3, "v7.site.example", A, &FORGED),
            is_answered: true,
            victim: ("bank7.site.example", A),
        },
        Variant {
            what: "another type at the question's name",
            name: "v8.site.example",
            qtype: A,
            reply: |r| r.answer("v8.site.example", A, &TRUE).answer("v8.site.example", TXT, b"\x06forged"),
            is_answered: true,
            victim: ("v8.site.example", TXT),
        },
        Variant {
            what: "an address of the parent",
            name: "v9.zone9.site.example",
            qtype: A,
            reply: |r| r.answer("zone9.site.example", A, &FORGED).answer("v9.zone9.site.example", A, &TRUE),
            is_answered: true,
            victim: ("zone9.site.example", A),
        },
        Variant {
            what: "a chain that ends in itself",
            name: "v10.site.example",
            qtype: A,
            reply: |r| {
                r.answer("v10.site.example", CNAME, &wire("bank10.site.example"))
                    .answer("bank10.site.example", CNAME, &wire("v10.site.example"))
                    .answer("loop10.site.example", A, &FORGED)
            },
            is_answered: false,
            victim: ("bank10.site.example", A),
        },
        Variant {
            what: "an alias of itself",
            name: "v11.site.example",
            qtype: A,
            reply: |r| {
                r.answer("v11.site.example", CNAME, &wire("v11.site.example")).answer("bank11.site.example", A, &FORGED)
            },
            is_answered: false,
            victim: ("bank11.site.example", A),
        },
        Variant {
            what: "a chain of fifty",
            name: "v12.site.example",
            qtype: A,
            reply: |r| chain(r, "v12.site.example", 50),
            is_answered: false,
            victim: ("hop49.v12.site.example", A),
        },
        Variant {
            what: "an owner in another letter case, beside one that is another name",
            name: "v13.site.example",
            qtype: A,
            reply: |r| r.answer("V13.SITE.Example", A, &TRUE).answer("BANK13.Site.EXAMPLE", A, &FORGED),
            is_answered: true,
            victim: ("bank13.site.example", A),
        },
        Variant {
            what: "address hints and an address of the target of an HTTPS record",
            name: "v14.site.example",
            qtype: HTTPS,
            reply: |r| {
                let hints = [&[0, 1][..], &wire("edge14.site.example"), &[0, 4, 0, 4], &FORGED].concat();
                r.answer("v14.site.example", HTTPS, &hints).additional("edge14.site.example", A, &FORGED)
            },
            is_answered: false,
            victim: ("edge14.site.example", A),
        },
        Variant {
            what: "an address beside the denial of the name",
            name: "v15.site.example",
            qtype: A,
            reply: |r| {
                let soa = [&wire("ns15.site.example")[..], &wire("hostmaster.site.example"), &[0; 20]].concat();
                r.rcode(3).answer("bank15.site.example", A, &FORGED).authority("site.example", SOA, &soa).additional(
                    "ns15.site.example",
                    A,
                    &FORGED,
                )
            },
            is_answered: false,
            victim: ("ns15.site.example", A),
        },
        Variant {
            what: "the address of a target whose alias is in the authority section",
            name: "v16.site.example",
            qtype: AAAA,
            reply: |r| {
                r.authority("v16.site.example", CNAME, &wire("bank16.site.example")).answer(
                    "bank16.site.example",
                    A,
                    &FORGED,
                )
            },
            is_answered: false,
            victim: ("bank16.site.example", A),
        },
    ];

fn script(query: &Query) -> Vec<Vec<u8>> {
    let reply = Reply::to(query);
    let variant = VARIANTS.iter().find(|v| v.name == query.name && v.qtype == query.qtype);
    let reply = match variant {
        Some(variant) => (variant.reply)(reply),
        None if query.qtype == A => reply.answer(&query.name, A, &TRUE),
        None => reply,
    };
    vec![reply.done()]
}

fn holds(answer: &Answer, address: [u8; 4]) -> bool {
    answer.records.iter().any(|(.., data)| data.windows(4).any(|four| four == address))
}

#[test]
fn what_was_not_asked_is_not_shown_not_kept_and_not_opened() {
    let upstream = Fake::start(script);
    let rule = "[[rule]]\nid = \"site\"\naction = \"allow\"\nnames = [\"site.example\"]\nowner = \"tests\"\nreason = \"a test\"\n\
                review_by = \"2099-01-01\"\n";
    let daemon = Daemon::start_at(upstream.address, "off", &format!("{ENFORCE}{rule}"));
    let pins = || {
        let shown = daemon.json(&["session", "show", "s1"]);
        let pins = shown["pins"].as_array().expect("pins").clone();
        pins.iter().map(|pin| pin["address"].as_str().expect("an address").to_owned()).collect::<Vec<_>>()
    };
    for Variant { what, name, qtype, is_answered, victim, .. } in VARIANTS {
        let answer = ask(daemon.address, "127.0.0.1", name, qtype);
        assert!(!holds(&answer, FORGED), "{what}: shown in {answer:?}");
        let expected: &[IpAddr] = if is_answered { &[IpAddr::from(TRUE)] } else { &[] };
        assert_eq!(answer.addresses(), expected, "{what}: {answer:?}");
        assert!(upstream.asked(name) <= 2, "{what}: asked {} times", upstream.asked(name));
        let again = ask(daemon.address, "127.0.0.1", name, qtype);
        assert!(!holds(&again, FORGED), "{what}: kept in {again:?}");

        let before = upstream.asked(victim.0);
        let forged = ask(daemon.address, "127.0.0.1", victim.0, victim.1);
        assert!(upstream.asked(victim.0) > before, "{what}: {} was answered from elsewhere", victim.0);
        assert!(!holds(&forged, FORGED), "{what}: {forged:?}");
        if victim.1 == A {
            assert_eq!(forged.addresses(), [IpAddr::from(TRUE)], "{what}: {forged:?}");
        }
        assert!(!pins().contains(&IpAddr::from(FORGED).to_string()), "{what}: {:?}", pins());
    }
    assert_eq!(pins(), [IpAddr::from(TRUE).to_string()], "what is true is open");
}
