//! Real sockets on loopback, upstreams that misbehave.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::task::JoinSet;

use super::upstream_for_test::{Act, Fake, answer, bare, good};
use super::*;
use crate::model::{Qtype, Transport};

pub(super) fn config(upstreams: &[&Fake]) -> Config {
    Config {
        upstreams: upstreams.iter().map(|u| Upstream::udp(u.addr)).collect(),
        zones: Vec::new(),
        try_timeout: Duration::from_millis(300),
        total_timeout: Duration::from_millis(800),
        udp_payload: 1232,
    }
}

pub(super) fn forwarder(upstreams: &[&Fake]) -> Forwarder {
    Forwarder::new(config(upstreams))
}

pub(super) fn permit(name: &str) -> Permit {
    Permit::for_test(name, Qtype::A)
}

pub(super) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (future.await, begun.elapsed())
}

/// Last octet of the address in a response made by `answer`.
pub(super) fn last(found: &Result<Landed, ForwardError>) -> Option<u8> {
    found.as_ref().ok().and_then(|r| r.wire.last().copied())
}

#[tokio::test]
async fn only_the_permitted_fields_leave() {
    let up = Fake::start(good(1)).await;
    let forwarder = forwarder(&[&up]);
    let found = forwarder.resolve(&permit("WWW.Example.Com")).await.expect("an answer");
    assert_eq!(found.upstream, up.addr);
    assert!(!found.tcp);
    let queries = up.queries();
    assert_eq!(queries.len(), 1);
    let (transport, query) = &queries[0];
    assert_eq!(*transport, Transport::Udp);
    let mut expected = vec![query[0], query[1], 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
    expected.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0");
    assert_eq!(*query, expected);
}

#[tokio::test]
async fn ids_and_ports_are_fresh_for_each_query() {
    use std::collections::HashSet;
    let up = Fake::start(good(1)).await;
    let forwarder = forwarder(&[&up]);
    for i in 0..200 {
        forwarder.resolve(&permit(&format!("n{i}.example"))).await.expect("an answer");
    }
    let ids: HashSet<[u8; 2]> = up.queries().iter().map(|(_, q)| [q[0], q[1]]).collect();
    assert!(ids.len() > 190, "{} different ids of 200", ids.len());
    let high: HashSet<u8> = ids.iter().map(|id| id[0]).collect();
    assert!(high.len() > 90, "high octets spread: {}", high.len());
}

#[tokio::test]
async fn what_does_not_fit_is_ignored() {
    let up = Fake::start(|query, _| {
        let good = answer(query, 7);
        let bent = |at: usize, value: u8| {
            let mut bent = answer(query, 66);
            bent[at] = value;
            bent
        };
        let mut other = answer(query, 66);
        other[13] ^= 1;
        Act::Send(vec![
            bent(0, query[0] ^ 1),
            bent(1, query[1] ^ 1),
            bent(2, 0x01),
            bent(2, 0xa9),
            bent(5, 0),
            other,
            vec![],
            b"garbage".to_vec(),
            (0..255).collect(),
            good,
        ])
    })
    .await;
    let forwarder = forwarder(&[&up]);
    let found = forwarder.resolve(&permit("www.example.com")).await;
    assert_eq!(last(&found), Some(7));
    // The empty datagram counts too.
    assert_eq!(forwarder.counters().mismatches.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn a_flood_of_wrong_ids_turns_to_tcp() {
    let up = Fake::start(|query, transport| match transport {
        Transport::Udp => {
            let mut forged = answer(query, 66);
            Act::Send(
                (1..=40u8)
                    .map(|i| {
                        forged[1] = query[1].wrapping_add(i);
                        forged.clone()
                    })
                    .collect(),
            )
        }
        Transport::Tcp => Act::Send(vec![answer(query, 7)]),
    })
    .await;
    let forwarder = forwarder(&[&up]);
    let found = forwarder.resolve(&permit("www.example.com")).await;
    assert_eq!(last(&found), Some(7));
    assert!(found.expect("an answer").tcp);
    let counters = forwarder.counters();
    assert_eq!(counters.mismatch_floods.load(Ordering::Relaxed), 1);
    assert_eq!(counters.mismatches.load(Ordering::Relaxed), 20);
}

#[tokio::test]
async fn truncation_turns_to_tcp() {
    let up = Fake::start(|query, transport| match transport {
        Transport::Udp => Act::Send(vec![bare(query, 0x8380)]),
        Transport::Tcp => Act::Send(vec![answer(query, 9)]),
    })
    .await;
    let forwarder = forwarder(&[&up]);
    let found = forwarder.resolve(&permit("www.example.com")).await;
    assert_eq!(last(&found), Some(9));
    let queries = up.queries();
    assert_eq!(queries.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [Transport::Udp, Transport::Tcp]);
    assert_eq!(queries[0].1[2..42], queries[1].1[2..42], "the same question by either way");
    assert_eq!(queries[0].1[42..], [0, 0]);
    assert_eq!(queries[1].1[42..], [0, 4, 0, 11, 0, 0], "how long may the connection stay (RFC 7828)?");
}

#[tokio::test]
async fn truncation_over_tcp_is_no_answer() {
    let up = Fake::start(|query, _| Act::Send(vec![bare(query, 0x8380)])).await;
    let forwarder = forwarder(&[&up]);
    let error = forwarder.resolve(&permit("www.example.com")).await.expect_err("nothing whole");
    assert_eq!(error, ForwardError::Failed(vec![Failed { upstream: up.addr, kind: FailKind::Mangled, said: None }]));
}

#[tokio::test]
async fn formerr_is_asked_again_without_edns_and_forgotten() {
    let up =
        Fake::start(|query, _| Act::Send(vec![if query[11] == 1 { bare(query, 0x8181) } else { answer(query, 3) }]))
            .await;
    let forwarder = forwarder(&[&up]);
    for i in 0..2 {
        let found = forwarder.resolve(&permit(&format!("n{i}.example"))).await;
        assert_eq!(last(&found), Some(3));
    }
    let with_edns: Vec<u8> = up.queries().iter().map(|(_, q)| q[11]).collect();
    assert_eq!(with_edns, [1, 0, 1, 0]);
    // A header alone says the same, one with an OPT record behind it too, and so does NOTIMP. Over TCP as well.
    let over_tcp = Upstream { address: up.addr, way: Way::Tcp };
    let over_tcp = Forwarder::new(Config { upstreams: vec![over_tcp], ..config(&[]) });
    const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    for (i, rcode, len) in [(0, 1, 12), (1, 4, 12), (2, 4, usize::MAX), (3, 1, 23), (4, 4, 23)] {
        up.becomes(move |query, _| {
            Act::Send(vec![if query[11] == 1 {
                let mut reply = bare(query, 0x8180 | rcode);
                if len <= 23 {
                    reply.truncate(12);
                    reply[4..].fill(0);
                }
                if len == 23 {
                    reply[11] = 1;
                    reply.extend(OPT);
                }
                reply
            } else {
                answer(query, 4)
            }])
        });
        for (way, forwarder) in [("datagrams", &forwarder), ("tcp", &over_tcp)] {
            let (found, took) = timed(forwarder.resolve(&permit(&format!("m{i}.example")))).await;
            assert_eq!(last(&found), Some(4), "{rcode} {len} {way}");
            assert!(took < Duration::from_millis(250), "{rcode} {len} {way}: took {took:?}");
        }
    }
}

/// Each way the first upstream can fail while the second is well: the client never notices.
#[tokio::test]
async fn the_next_upstream_answers_for_one_that_fails() {
    type Row = (&'static str, fn(&[u8], Transport) -> Act, Duration);
    let at_once = Duration::from_millis(150);
    let rows: [Row; 8] = [
        ("SERVFAIL", |q, _| Act::Send(vec![bare(q, 0x8182)]), at_once),
        ("REFUSED", |q, _| Act::Send(vec![bare(q, 0x8185)]), at_once),
        ("NOTIMP", |q, _| Act::Send(vec![bare(q, 0x8184)]), at_once),
        ("FORMERR for ever", |q, _| Act::Send(vec![bare(q, 0x8181)]), at_once),
        ("cut off in a record", |q, _| Act::Send(vec![answer(q, 66)[..q.len()].to_vec()]), at_once),
        ("garbage", |_, _| Act::Send(vec![b"\x01\x02garbage".to_vec()]), at_once),
        ("wrong id", |q, _| Act::Send(vec![[&[!q[0], q[1]], &answer(q, 66)[2..]].concat()]), at_once),
        ("silence", |_, _| Act::Silence, Duration::from_millis(500)),
    ];
    for (what, script, within) in rows {
        let (bad, well) = (Fake::start(script).await, Fake::start(good(5)).await);
        let forwarder = forwarder(&[&bad, &well]);
        let (found, took) = timed(forwarder.resolve(&permit("www.example.com"))).await;
        assert_eq!(last(&found), Some(5), "{what}: {found:?}");
        assert!(took < within, "{what} took {took:?}");
        assert_eq!(well.queries().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_late_answer_is_in_time() {
    let up = Fake::start(|q, _| Act::Late(Duration::from_millis(60), answer(q, 8))).await;
    let spare = Fake::start(good(9)).await;
    let found = forwarder(&[&up, &spare]).resolve(&permit("slow.example")).await;
    assert_eq!(last(&found), Some(8));
    assert!(spare.queries().is_empty(), "nobody else was told the name");
}

#[tokio::test]
async fn a_lost_datagram_is_asked_again() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let up = Fake::start(move |q, _| {
        if q[12] != 0 && first.swap(false, Ordering::Relaxed) { Act::Silence } else { Act::Send(vec![answer(q, 2)]) }
    })
    .await;
    let found = forwarder(&[&up]).resolve(&permit("www.example.com")).await;
    assert_eq!(last(&found), Some(2));
    assert_eq!(up.queries().len(), 2);
}

#[tokio::test]
async fn names_that_never_resolve_cannot_shut_an_upstream() {
    // An agent's own domain, whose servers keep the upstream waiting for ever.
    let up =
        Fake::start(|q, _| if q[12..].starts_with(b"\x04hole") { Act::Silence } else { Act::Send(vec![answer(q, 1)]) })
            .await;
    let forwarder = forwarder(&[&up]);
    for _ in 0..3 {
        assert!(forwarder.resolve(&permit("hole.example")).await.is_err());
        let (found, took) = timed(forwarder.resolve(&permit("fine.example"))).await;
        assert_eq!(last(&found), Some(1));
        assert!(took < Duration::from_millis(100));
    }
    assert_eq!(forwarder.counters().breakers_opened.load(Ordering::Relaxed), 0);
    assert_eq!(forwarder.upstreams()[0].standing, Standing::Up);
}

#[tokio::test]
async fn a_closed_port_is_noticed_at_once() {
    // Discard: below what the system gives away by itself, and nobody's.
    let gone = SocketAddr::from(([127, 0, 0, 1], 9));
    let forwarder = Forwarder::new(Config { upstreams: vec![Upstream::udp(gone)], ..config(&[]) });
    let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
    let error = found.expect_err("nobody is there");
    assert_eq!(error, ForwardError::Failed(vec![Failed { upstream: gone, kind: FailKind::Unreachable, said: None }]));
    assert!(took < Duration::from_millis(100), "took {took:?}");
}

#[tokio::test]
async fn a_hundred_equal_questions_are_one_query() {
    let up = Fake::start(|q, _| Act::Late(Duration::from_millis(50), answer(q, 1))).await;
    let forwarder = forwarder(&[&up]);
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let forwarder = forwarder.clone();
        tasks.spawn(async move { forwarder.resolve(&permit("same.example")).await });
    }
    tokio::task::yield_now().await;
    // Whoever gives up takes nothing from the others.
    let quitter = forwarder.clone();
    let _ = tokio::time::timeout(Duration::from_millis(5), quitter.resolve(&permit("same.example"))).await;
    let outcomes = tasks.join_all().await;
    assert!(outcomes.iter().all(|o| last(o) == Some(1)));
    assert_eq!(up.queries().len(), 1);
    assert_eq!(forwarder.counters().coalesced.load(Ordering::Relaxed), 100, "the first one started it");
    // Until who began it has kept the answer, it is there for whoever comes.
    assert_eq!(last(&forwarder.resolve(&permit("same.example")).await), Some(1));
    assert_eq!(up.queries().len(), 1);
    outcomes.into_iter().for_each(|outcome| outcome.expect("an answer").kept());
    assert_eq!(forwarder.in_flight(), 0);

    // Another type or name is another question.
    let (a, b, c) = tokio::join!(
        forwarder.resolve(&permit("same.example")),
        forwarder.resolve(&Permit::for_test("same.example", Qtype::AAAA)),
        forwarder.resolve(&permit("other.example")),
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(up.queries().len(), 4);
}

#[tokio::test]
async fn who_began_an_exchange_and_leaves_takes_nothing_from_the_others() {
    let up = Fake::start(|q, _| Act::Late(Duration::from_millis(50), answer(q, 1))).await;
    let forwarder = forwarder(&[&up]);
    let (leader, follower) = (forwarder.clone(), forwarder.clone());
    let leader = tokio::spawn(async move { leader.resolve(&permit("same.example")).await });
    tokio::task::yield_now().await;
    let follower = tokio::spawn(async move { follower.resolve(&permit("same.example")).await });
    tokio::time::sleep(Duration::from_millis(5)).await;
    leader.abort();
    assert_eq!(last(&follower.await.expect("a task")), Some(1));
    // For a moment it is there for whoever comes; then it is asked anew.
    assert_eq!(last(&forwarder.resolve(&permit("same.example")).await), Some(1));
    assert_eq!(up.queries().len(), 1);
    while forwarder.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(last(&forwarder.resolve(&permit("same.example")).await), Some(1));
    assert_eq!(up.queries().len(), 2);
    assert_eq!(forwarder.in_flight(), 0);
}

#[tokio::test]
async fn exchanges_are_capped_and_seats_come_back() {
    let up = Fake::start(|q, _| Act::Late(Duration::from_millis(60), answer(q, 1))).await;
    let forwarder = Forwarder::with_exchanges(config(&[&up]), 4);
    let mut tasks = JoinSet::new();
    for i in 0..10 {
        let forwarder = forwarder.clone();
        tasks.spawn(async move { timed(forwarder.resolve(&permit(&format!("n{i}.example")))).await });
    }
    let outcomes = tasks.join_all().await;
    let busy: Vec<_> = outcomes.iter().filter(|(o, _)| matches!(o, Err(ForwardError::Busy))).collect();
    assert_eq!(busy.len(), 6);
    assert!(busy.iter().all(|(_, took)| *took < Duration::from_millis(30)), "told at once");
    assert!(forwarder.resolve(&permit("later.example")).await.is_ok());
}

#[tokio::test]
async fn hosts_are_looked_up_with_the_given_servers_alone() {
    let up = Fake::start(|q, _| {
        let parsed = Message::from_vec(q).expect("a query");
        if parsed.queries[0].query_type().to_string() == "A" {
            Act::Send(vec![answer(q, 53)])
        } else {
            Act::Send(vec![bare(q, 0x8180)])
        }
    })
    .await;
    let lookup = helper::HostLookup::new(forwarder(&[&up])).expect("a resolver");
    let found = lookup.lookup("resolver.example.net").await.expect("an address");
    assert_eq!(found, ["203.0.113.53".parse::<std::net::IpAddr>().expect("address")]);
    for literal in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
        assert_eq!(lookup.lookup(literal).await.expect("itself").len(), 1);
    }
    assert!(up.queries().iter().all(|(_, q)| q[12..].starts_with(b"\x08resolver\x07example\x03net\0")));
    let none = helper::HostLookup::new(forwarder(&[])).expect("no resolver");
    assert!(matches!(none.lookup("localhost").await, Err(helper::LookupError::NoServers(_))));
    up.becomes(|q, _| Act::Send(vec![bare(q, 0x8183)]));
    assert!(matches!(lookup.lookup("gone.example.net").await, Err(helper::LookupError::Lookup { .. })));
}
