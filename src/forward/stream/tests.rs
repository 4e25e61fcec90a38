//! Connections to real sockets: reuse, order, servers that close them, and TLS that fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustls::version::{TLS12, TLS13};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::line::{Dial, Line};
use crate::forward::certs_for_test::Root;
use crate::forward::query::{Ask, Dress};
use crate::forward::tests::{config, last, permit, timed};
use crate::forward::tls::Tls;
use crate::forward::upstream_for_test::{Act, Fake, answer, bare, good};
use crate::forward::{Config, FailKind, Failed, ForwardError, Forwarder, Standing, Upstream, Way};
use crate::model::{Ede, Transport};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn over_tcp(fake: &Fake) -> Forwarder {
    Forwarder::new(Config { upstreams: vec![Upstream { address: fake.addr, way: Way::Tcp }], ..config(&[]) })
}

fn over_tls(fake: &Fake, tls: Tls) -> Forwarder {
    Forwarder::new(Config { upstreams: vec![Upstream { address: fake.addr, way: Way::Tls(tls) }], ..config(&[]) })
}

fn datagrams(fake: &Fake) -> usize {
    fake.queries().iter().filter(|(transport, _)| *transport == Transport::Udp).count() + fake.trials()
}

/// A good answer that asks for the connection to be kept for `tenths` of a second (RFC 7828).
fn keep_for(query: &[u8], tenths: u16) -> Vec<u8> {
    let mut out = answer(query, 1);
    out[11] = 1;
    out.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 11, 0, 2]);
    out.extend(tenths.to_be_bytes());
    out
}

/// The option codes of a query's OPT record.
fn options(query: &[u8]) -> Vec<u16> {
    let mut rest = &query[query.windows(3).position(|w| w == [0, 0, 41]).expect("an OPT record") + 11..];
    let mut codes = Vec::new();
    while let [a, b, c, d, tail @ ..] = rest {
        codes.push(u16::from_be_bytes([*a, *b]));
        rest = &tail[usize::from(u16::from_be_bytes([*c, *d]))..];
    }
    codes
}

#[tokio::test]
async fn a_hundred_questions_share_connections_and_answers_come_in_any_order() {
    let turn = AtomicUsize::new(0);
    let up = Fake::start(move |q, _| {
        // Later ones first, each with an address that tells the name.
        let wait = 200 - 2 * turn.fetch_add(1, Ordering::Relaxed).min(99) as u64;
        Act::Late(ms(wait), answer(q, q[14] - b'0' + 10 * (q[13] - b'0')))
    })
    .await;
    let forwarder = over_tcp(&up);
    let mut asked = JoinSet::new();
    for i in 0..100u8 {
        let forwarder = forwarder.clone();
        asked.spawn(async move { (i, last(&forwarder.resolve(&permit(&format!("{i:02}.example"))).await)) });
    }
    for (i, found) in asked.join_all().await {
        assert_eq!(found, Some(i));
    }
    assert!(up.connections() <= 4, "{}", up.connections());
    for i in 0..10 {
        forwarder.resolve(&permit(&format!("{i:02}.example"))).await.expect("an answer");
    }
    assert!(up.connections() <= 4, "they stay open");
    assert_eq!(datagrams(&up), 0, "an upstream of TCP alone never gets a datagram");
    let queries = up.queries();
    assert!(queries.iter().all(|(_, q)| options(q) == [11]), "keepalive alone");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_costs_no_answer() {
    let turn = AtomicUsize::new(0);
    let up = Fake::start(move |q, _| {
        if turn.fetch_add(1, Ordering::Relaxed) % 2 == 1 { Act::Close } else { Act::Send(vec![answer(q, 1)]) }
    })
    .await;
    let forwarder = over_tcp(&up);
    // Answered; closed, asked once more and answered; closed again.
    for i in 0..4 {
        let found = forwarder.resolve(&permit(&format!("n{i}.example"))).await;
        assert_eq!(last(&found), Some(1), "{i}: {found:?}");
    }
    let counters = forwarder.counters();
    assert_eq!(counters.reconnected.load(Ordering::Relaxed), 3);
    assert_eq!(up.connections(), 4);
    // One that closes at once was of no use before: one second try and no more.
    up.becomes(|_, _| Act::Close);
    let before = up.queries().len();
    let error = over_tcp(&up).resolve(&permit("m.example")).await.expect_err("nothing");
    assert_eq!(error, ForwardError::Failed(vec![Failed { upstream: up.addr, kind: FailKind::Broken, said: None }]));
    assert_eq!(up.queries().len(), before + 2);
    // As where the server has as many as it takes.
    let first = AtomicUsize::new(0);
    up.becomes(move |q, _| match first.fetch_add(1, Ordering::Relaxed) {
        0 => Act::Close,
        _ => Act::Send(vec![answer(q, 1)]),
    });
    assert_eq!(last(&over_tcp(&up).resolve(&permit("m.example")).await), Some(1));
}

/// Asks `count` questions at once; all are answered.
async fn ask_at_once(forwarder: &Forwarder, of: &str, count: usize) {
    let mut asked = JoinSet::new();
    for i in 0..count {
        let (forwarder, name) = (forwarder.clone(), format!("n{i}.{of}.example"));
        asked.spawn(async move { (name.clone(), forwarder.resolve(&permit(&name)).await) });
    }
    for (name, found) in asked.join_all().await {
        assert_eq!(last(&found), Some(1), "{name}: {found:?}");
    }
}

#[tokio::test]
async fn a_server_that_answers_a_few_questions_on_each_connection_answers_all() {
    for (each, count) in [(4, 16), (1, 40)] {
        let up = Fake::start(good(1)).await;
        up.answers_on_each(each);
        let forwarder = over_tcp(&up);
        ask_at_once(&forwarder, "first", count).await;
        let again = forwarder.counters().reconnected.load(Ordering::Relaxed);
        assert!(again > 0, "{each}");
        // By then it is known how many a connection may carry: none is put on one in vain.
        ask_at_once(&forwarder, "second", count).await;
        assert_eq!(forwarder.counters().reconnected.load(Ordering::Relaxed), again, "{each}");
    }
}

#[tokio::test]
async fn a_server_that_takes_fewer_connections_than_we_would_open_answers_all() {
    let root = Root::new();
    let late = |q: &[u8], _| Act::Late(ms(50), answer(q, 1));
    let plain = Fake::start(late).await;
    let secret = Fake::start_with(Some(root.issue("dns.example", false).config), late).await;
    let tls = Tls::new("dns.example", Vec::new(), Some(root.pem.as_bytes())).expect("settings");
    for (up, forwarder) in [(&plain, over_tcp(&plain)), (&secret, over_tls(&secret, tls))] {
        up.has_places(1);
        ask_at_once(&forwarder, "first", 1).await;
        for turn in 0..4 {
            ask_at_once(&forwarder, &format!("t{turn}"), 150).await;
        }
        assert_eq!(up.connections(), 1);
        assert!(forwarder.counters().reconnected.load(Ordering::Relaxed) > 0, "another one was tried");
        assert_eq!(forwarder.upstreams()[0].standing, Standing::Up);
    }
}

#[tokio::test]
async fn an_id_that_is_used_again_belongs_to_the_later_question() {
    let turn = AtomicUsize::new(0);
    let up = Fake::start(move |q, _| match turn.fetch_add(1, Ordering::Relaxed) {
        2 => Act::Late(ms(200), answer(q, 3)),
        n => Act::Send(vec![answer(q, 1 + n as u8)]),
    })
    .await;
    let dial = Dial {
        to: Upstream { address: up.addr, way: Way::Tcp },
        patience: ms(1000),
        dialled: std::sync::Arc::default(),
        counters: std::sync::Arc::default(),
    };
    let ask = |name: &str| Ask::from(&permit(name));
    let dress = Dress::default();
    let (line, first) = Line::open(dial, &ask("a.example"), dress).unwrap_or_else(|kind| panic!("{kind:?}"));
    assert!(first.wait().await.is_ok());
    line.leave_one_id();
    let put = |name: &str| line.ask(&ask(name), dress, None).ok().flatten().expect("it takes one");
    let second = put("b.example");
    // It is answered, and whoever has asked has not looked yet.
    tokio::time::sleep(ms(100)).await;
    let third = put("c.example");
    assert!(second.wait().await.is_ok());
    let (answer, _) = third.wait().await.unwrap_or_else(|lost| panic!("{lost:?}"));
    assert_eq!(answer.last(), Some(&3));
}

#[tokio::test]
async fn slow_names_hold_up_nobody_where_each_connection_takes_one_question() {
    let up =
        Fake::start(|q, _| if q[13..].starts_with(b"slow") { Act::Silence } else { Act::Send(vec![answer(q, 1)]) })
            .await;
    up.answers_on_each(1);
    let forwarder = over_tcp(&up);
    // By then it is known.
    ask_at_once(&forwarder, "first", 40).await;
    let mut slow = JoinSet::new();
    for i in 0..32 {
        let forwarder = forwarder.clone();
        slow.spawn(async move { forwarder.resolve(&permit(&format!("slow{i}.example"))).await });
    }
    tokio::time::sleep(ms(50)).await;
    for i in 0..5 {
        let (found, took) = timed(forwarder.resolve(&permit(&format!("n{i}.example")))).await;
        assert_eq!(last(&found), Some(1), "{i}: {found:?} after {took:?}");
        assert!(took < ms(100), "{i} took {took:?}");
    }
}

#[tokio::test]
async fn what_is_cut_off_is_asked_on_as_many_connections_as_it_takes() {
    let up = Fake::start(|q, transport| match transport {
        Transport::Udp => Act::Send(vec![bare(q, 0x8380)]),
        Transport::Tcp => Act::Send(vec![answer(q, 1)]),
    })
    .await;
    up.answers_on_each(1);
    ask_at_once(&Forwarder::new(config(&[&up])), "cut", 16).await;
}

#[tokio::test]
async fn a_question_that_the_server_always_closes_at_is_given_up() {
    let up = Fake::start(|q, _| if q[13] == b'p' { Act::Close } else { Act::Send(vec![answer(q, 1)]) }).await;
    let forwarder = over_tcp(&up);
    forwarder.resolve(&permit("n.example")).await.expect("an answer");
    forwarder.resolve(&permit("poison.example")).await.expect_err("nothing");
    assert_eq!(up.connections(), 3, "the second one brought nothing, and nor did the third");
}

#[tokio::test]
async fn a_connection_that_has_lost_its_place_gets_no_other_question() {
    // What comes is for nobody until there is another connection.
    let asked = AtomicUsize::new(0);
    let up = Fake::start(move |q, _| {
        let mut other = answer(q, 1);
        other[0] ^= 0x80;
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        Act::Send(if first { vec![other; 4] } else { vec![answer(q, 1)] })
    })
    .await;
    let (pool, dress) = pool(&up, Way::Tcp);
    let (first, second) = ((&permit("a.example")).into(), (&permit("b.example")).into());
    let lost = tokio::time::timeout(ms(200), pool.ask(&first, dress, ms(3000))).await;
    assert!(lost.is_err());
    assert!(pool.ask(&second, dress, ms(3000)).await.is_ok());
    assert_eq!(up.connections(), 2);
}

#[tokio::test]
async fn the_server_says_how_long_a_connection_stays() {
    for (tenths, connections) in [(0, 3), (2, 3), (600, 1)] {
        let up = Fake::start(move |q, _| Act::Send(vec![keep_for(q, tenths)])).await;
        let forwarder = over_tcp(&up);
        for i in 0..3 {
            forwarder.resolve(&permit(&format!("n{i}.example"))).await.expect("an answer");
            tokio::time::sleep(ms(300)).await;
        }
        assert_eq!(up.connections(), connections, "{tenths} tenths");
    }
}

#[tokio::test]
async fn a_connection_that_stands_still_holds_up_nobody_for_long() {
    let stuck = AtomicUsize::new(0);
    let up = Fake::start(move |q, _| {
        // Everything behind the first question of all is silence until a new connection is opened.
        match stuck.fetch_add(1, Ordering::Relaxed) {
            0 => Act::Send(vec![answer(q, 1)]),
            1 => Act::Silence,
            _ => Act::Send(vec![answer(q, 2)]),
        }
    })
    .await;
    let forwarder = over_tcp(&up);
    assert_eq!(last(&forwarder.resolve(&permit("a.example")).await), Some(1));
    let waiting = forwarder.clone();
    let hole = tokio::spawn(async move { waiting.resolve(&permit("hole.example")).await });
    tokio::time::sleep(ms(350)).await;
    let (found, took) = timed(forwarder.resolve(&permit("b.example"))).await;
    assert_eq!(last(&found), Some(2));
    assert!(took < ms(200), "{took:?}");
    let _ = hole.await.expect("a task");
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_heard_any_more_is_given_up_with_its_first_question() {
    let up = Fake::start(good(1)).await;
    let forwarder = over_tcp(&up);
    assert_eq!(last(&forwarder.resolve(&permit("a.example")).await), Some(1));
    // It goes dead without a word; another one is well.
    up.connections_go_dead();
    let (found, took) = timed(forwarder.resolve(&permit("held.example"))).await;
    assert_eq!(last(&found), Some(1));
    assert!(took >= ms(300), "{took:?}");
    for i in 0..5 {
        let (found, took) = timed(forwarder.resolve(&permit(&format!("n{i}.example")))).await;
        assert_eq!(last(&found), Some(1), "{i}");
        assert!(took < ms(100), "{i} took {took:?}");
    }
}

/// A pool over TCP or TLS, and how a question of its is dressed.
fn pool(fake: &Fake, way: Way) -> (super::Pool, crate::forward::query::Dress<'static>) {
    let upstream = Upstream { address: fake.addr, way };
    (super::Pool::new(upstream, std::sync::Arc::default()), crate::forward::query::Dress::default())
}

#[tokio::test]
async fn names_that_are_slow_cost_no_connection_each() {
    // A resolver with its root at hand, asked for names whose servers are silent.
    let up = Fake::start(|q, _| if q[12] == 0 { Act::Send(vec![answer(q, 1)]) } else { Act::Silence }).await;
    let (pool, dress) = pool(&up, Way::Tcp);
    for i in 0..6 {
        let ask = (&permit(&format!("n{i}.example"))).into();
        let given_up = tokio::time::timeout(ms(350), pool.ask(&ask, dress, ms(300))).await;
        assert!(given_up.is_err(), "{i}");
        tokio::time::sleep(ms(30)).await;
    }
    assert_eq!((up.connections(), up.probes()), (1, 6));
}

#[tokio::test]
async fn a_question_given_up_before_it_was_sent_says_nothing_of_its_connection() {
    let root = Root::new();
    let up = Fake::start_with(Some(root.issue("dns.example", false).config), good(1)).await;
    let tls = Tls::new("dns.example", Vec::new(), Some(root.pem.as_bytes())).expect("settings");
    let (pool, dress) = pool(&up, Way::Tls(tls));
    let ask = (&permit("a.example")).into();
    // Less than a handshake takes.
    let _ = tokio::time::timeout(Duration::from_micros(50), pool.ask(&ask, dress, ms(300))).await;
    tokio::time::sleep(ms(500)).await;
    assert!(pool.ask(&ask, dress, ms(300)).await.is_ok());
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn nobody_listens_and_that_is_found_out_a_few_times_a_second() {
    // Discard: below what the system gives away by itself, and nobody's.
    let gone = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let upstreams = vec![Upstream { address: gone, way: Way::Tcp }];
    let forwarder = Forwarder::new(Config { upstreams, ..config(&[]) });
    let begun = Instant::now();
    while begun.elapsed() < ms(200) {
        let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
        let kind = match found.expect_err("nobody is there") {
            ForwardError::Failed(tries) | ForwardError::AllDown(tries) => tries[0].kind,
            other => panic!("{other:?}"),
        };
        assert!(matches!(kind, FailKind::Unreachable | FailKind::Down), "{kind:?}");
        assert!(took < ms(100), "{took:?}");
        tokio::time::sleep(ms(2)).await;
    }
    assert_eq!(forwarder.counters().connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn over_tls_to_whom_the_root_has_named() {
    let root = Root::new();
    let shown = root.issue("dns.example", false);
    let up = Fake::start_with(Some(shown.config), good(5)).await;
    let tls = Tls::new("dns.example", vec![[0; 32], shown.pin], Some(root.pem.as_bytes())).expect("settings");
    let forwarder = over_tls(&up, tls);
    for i in 0..20 {
        let found = forwarder.resolve(&permit(&format!("n{i}.example"))).await;
        assert_eq!(last(&found), Some(5), "{found:?}");
    }
    assert_eq!((up.connections(), datagrams(&up)), (1, 0));
    for (_, query) in up.queries() {
        assert_eq!(query.len() % 128, 0, "padded (RFC 8467)");
        assert_eq!(options(&query), [11, 12]);
    }
    let counters = forwarder.counters();
    assert_eq!(counters.tls_queries.load(Ordering::Relaxed), 20);
    assert_eq!(counters.tls_handshakes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_tls_session_is_resumed() {
    let root = Root::new();
    // Closed behind each answer, as by a server that is short of connections.
    let up =
        Fake::start_with(Some(root.issue("dns.example", false).config), |q, _| Act::Send(vec![keep_for(q, 0)])).await;
    let forwarder = over_tls(&up, Tls::new("dns.example", Vec::new(), Some(root.pem.as_bytes())).expect("settings"));
    for i in 0..5 {
        assert!(forwarder.resolve(&permit(&format!("n{i}.example"))).await.is_ok());
        tokio::time::sleep(ms(50)).await;
    }
    let counters = forwarder.counters();
    let (full, resumed) =
        (counters.tls_handshakes.load(Ordering::Relaxed), counters.tls_resumed.load(Ordering::Relaxed));
    assert_eq!((full, resumed), (1, 4));
}

#[tokio::test]
async fn a_session_is_resumed_no_longer_than_the_certificate_that_it_was_begun_with_lasts() {
    for version in [&TLS12, &TLS13] {
        let root = Root::new();
        let end = SystemTime::now() + ms(3000);
        let shown = root.issue_until("dns.example", version, end);
        let up = Fake::start_with(Some(shown.config), |q, _| Act::Send(vec![keep_for(q, 0)])).await;
        let tls = Tls::new("dns.example", Vec::new(), Some(root.pem.as_bytes())).expect("settings");
        let forwarder = over_tls(&up, tls);
        for name in ["a.example", "b.example"] {
            assert!(forwarder.resolve(&permit(name)).await.is_ok());
            tokio::time::sleep(ms(50)).await;
        }
        let counters = forwarder.counters();
        assert_eq!(counters.tls_resumed.load(Ordering::Relaxed), 1, "{version:?}");
        // Its last second is good.
        tokio::time::sleep(end.duration_since(SystemTime::now()).expect("to come") + ms(1000)).await;
        let error = forwarder.resolve(&permit("c.example")).await.expect_err("its time is over");
        let kind = FailKind::TlsExpired;
        let expected = ForwardError::Failed(vec![Failed { upstream: up.addr, kind, said: None }]);
        assert_eq!(error, expected, "{version:?}");
    }
}

#[tokio::test]
async fn who_is_not_the_one_named_is_told_by_kind_and_never_asked() {
    let (root, other) = (Root::new(), Root::new());
    let good_one = root.issue("dns.example", false);
    let pinned = |pin| Tls::new("dns.example", vec![pin], Some(root.pem.as_bytes())).expect("settings");
    let named = |name: &str| Tls::new(name, Vec::new(), Some(root.pem.as_bytes())).expect("settings");
    let web = Tls::new("dns.example", Vec::new(), None).expect("settings");
    let rows = [
        (Some(root.issue("other.example", false)), named("dns.example"), FailKind::TlsName),
        (Some(other.issue("dns.example", false)), named("dns.example"), FailKind::TlsUntrusted),
        (Some(root.issue("dns.example", false)), web, FailKind::TlsUntrusted),
        (Some(root.issue("dns.example", true)), named("dns.example"), FailKind::TlsExpired),
        (Some(root.issue("dns.example", false)), pinned(good_one.pin), FailKind::TlsPin),
        (None, named("dns.example"), FailKind::TlsFailed),
    ];
    for (shown, tls, kind) in rows {
        // What speaks no TLS closes at what it hears.
        let up = Fake::start_with(shown.map(|shown| shown.config), |q, transport| match transport {
            Transport::Udp => Act::Send(vec![answer(q, 66)]),
            Transport::Tcp => Act::Close,
        })
        .await;
        let forwarder = over_tls(&up, tls);
        let (found, took) = timed(forwarder.resolve(&permit("secret.example"))).await;
        let error = found.expect_err("nobody to trust");
        assert_eq!(error, ForwardError::Failed(vec![Failed { upstream: up.addr, kind, said: None }]));
        assert!(took < ms(1000), "{kind:?} took {took:?}");
        assert!(!error.has_left(), "no question was sent");
        let (code, text) = error.ede();
        assert_eq!(code, Ede::NetworkError);
        assert!(text.contains(&format!("{} {}", up.addr, kind.as_str())), "{text}");
        assert_eq!(datagrams(&up), 0, "{kind:?}: no other way is tried");
        let spoken = up.queries().iter().any(|(_, q)| q.windows(6).any(|w| w == b"secret"));
        assert!(!spoken, "{kind:?}: the name was not told");
    }
}

#[tokio::test]
async fn a_tls_upstream_that_is_found_down_is_told_with_its_reason_and_comes_back() {
    let (root, other) = (Root::new(), Root::new());
    let up = Fake::start_with(Some(other.issue("dns.example", false).config), good(1)).await;
    let spare = Fake::start(good(2)).await;
    let tls = Tls::new("dns.example", Vec::new(), Some(root.pem.as_bytes())).expect("settings");
    let upstream = Upstream { address: up.addr, way: Way::Tls(tls.clone()) };
    let upstreams = vec![upstream.clone(), Upstream::udp(spare.addr)];
    let both = Forwarder::new(Config { upstreams, ..config(&[]) });
    // Another upstream of the same configuration answers meanwhile.
    assert_eq!(last(&both.resolve(&permit("n.example")).await), Some(2));
    let alone = Forwarder::new(Config { upstreams: vec![upstream], ..config(&[]) });
    let begun = Instant::now();
    let error = loop {
        let error = alone.resolve(&permit("n.example")).await.expect_err("nobody to trust");
        if matches!(error, ForwardError::AllDown(_)) {
            break error;
        }
        assert!(begun.elapsed() < ms(5000), "not down: {error:?}");
        tokio::time::sleep(ms(20)).await;
    };
    assert!(error.ede().1.contains("tls-untrusted"), "{error}");
    assert_eq!(error.ede().0, Ede::NetworkError);
}
