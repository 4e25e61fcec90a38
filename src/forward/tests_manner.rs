//! Letter case and cookies, on real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::tests::{config, forwarder, last, permit};
use super::upstream_for_test::{Act, Fake, answer, bare};
use super::*;
use crate::model::Transport;

/// The name of a query as spelled, without its first label's length.
fn spelled(query: &[u8]) -> &[u8] {
    let end = query[12..].iter().position(|octet| *octet == 0).expect("a name");
    &query[13..12 + end]
}

/// The query's cookie, if it has one.
fn cookie(query: &[u8]) -> Option<Vec<u8>> {
    edns::Opt::of(query)?.option(edns::COOKIE).map(<[u8]>::to_vec)
}

/// `reply` with an OPT record that holds `data` as cookie.
fn with_cookie(mut reply: Vec<u8>, data: &[u8]) -> Vec<u8> {
    reply[11] = 1;
    reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, data.len() as u8 + 4, 0, 10, 0, data.len() as u8]);
    reply.extend(data);
    reply
}

/// Answers with cookies: ours and eight octets of its own.
fn baker(query: &[u8], _: Transport) -> Act {
    Act::Send(vec![match cookie(query) {
        Some(sent) => with_cookie(answer(query, 1), &[&sent[..8], b"server's"].concat()),
        None => answer(query, 1),
    }])
}

/// The question in lower case.
fn lowered(query: &[u8], transport: Transport) -> Act {
    let mut reply = answer(query, 3);
    if transport == Transport::Udp {
        let end = 12 + spelled(query).len();
        reply[13..=end].make_ascii_lowercase();
    }
    Act::Send(vec![reply])
}

async fn greet(forwarder: &Forwarder) {
    greet::greet(&forwarder.inner, &forwarder.inner.servers[0]).await;
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn letter_case_is_drawn_once_the_upstream_is_known_to_keep_it() {
    let up = Fake::start(|q, _| Act::Send(vec![answer(q, 1)])).await;
    let forwarder = forwarder(&[&up]);
    forwarder.resolve(&permit("WWW.example.com")).await.expect("an answer").kept();
    assert_eq!(spelled(&up.queries()[0].1), b"www\x07example\x03com", "nothing is known yet");
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].keeps_case, Some(true));
    let mut seen = std::collections::HashSet::new();
    for i in 0..40 {
        // Whatever a client spelled is gone by now: the permit's name is in lower case.
        let name = if i % 2 == 0 { "WWW.EXAMPLE.COM" } else { "www.example.com" };
        forwarder.resolve(&permit(name)).await.expect("an answer").kept();
        let queries = up.queries();
        let name = spelled(&queries[queries.len() - 1].1).to_vec();
        assert!(name.eq_ignore_ascii_case(b"www\x07example\x03com"));
        seen.insert(name);
    }
    // 13 letters: 40 draws of 8,192 hold a pair once in ten times, and hardly ever many.
    assert!(seen.len() >= 36, "{} spellings", seen.len());
    let upper: usize = seen.iter().flatten().filter(|octet| octet.is_ascii_uppercase()).count();
    let share = upper as f64 / (seen.len() * 13) as f64;
    assert!((0.4..0.6).contains(&share), "{share} of the letters");
}

#[tokio::test]
async fn what_was_drawn_for_a_question_is_in_no_record() {
    // An alias to `edge` beside the name asked for, as a pointer to the question's own suffix.
    let up = Fake::start(|q, _| {
        let mut reply = bare(q, 0x8180);
        reply[7] = 1;
        reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 1, 44, 0, 7]);
        reply.extend(b"\x04edge\xc0\x10");
        Act::Send(vec![reply])
    })
    .await;
    let forwarder = forwarder(&[&up]);
    greet(&forwarder).await;
    let found = forwarder.resolve(&permit("www.example.com")).await.expect("an answer");
    let asked = up.queries()[0].1.clone();
    assert!(spelled(&asked).iter().any(u8::is_ascii_uppercase), "one draw of 8,192 has none");
    assert_eq!(spelled(&found.wire), b"www\x07example\x03com");
    let (target, _) = crate::answer::read_name(&found.wire, found.wire.len() - 7).expect("a name");
    assert_eq!(target.as_wire(), b"\x04edge\x07example\x03com\0");
}

#[tokio::test]
async fn one_that_folds_case_is_asked_in_lower_case() {
    let up = Fake::start(lowered).await;
    let forwarder = forwarder(&[&up]);
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].keeps_case, Some(false));
    assert_eq!(last(&forwarder.resolve(&permit("www.example.com")).await), Some(3));
    assert_eq!(up.queries().len(), 1, "over UDP, at the first try");
    assert_eq!(spelled(&up.queries()[0].1), b"www\x07example\x03com");
}

#[tokio::test]
async fn where_it_is_not_wanted_case_is_not_even_tried() {
    let up = Fake::start(|q, _| Act::Send(vec![answer(q, 1)])).await;
    let upstreams = vec![Upstream { address: up.addr, way: Way::Udp { mix_case: false } }];
    let forwarder = Forwarder::new(Config { upstreams, ..config(&[]) });
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].keeps_case, None);
    forwarder.resolve(&permit("www.example.com")).await.expect("an answer");
    assert_eq!(spelled(&up.queries()[0].1), b"www\x07example\x03com");
}

#[tokio::test]
async fn a_datagram_in_another_case_turns_its_question_to_tcp_and_is_asked_about() {
    let up = Fake::start(|q, _| Act::Send(vec![answer(q, 1)])).await;
    let forwarder = forwarder(&[&up]);
    greet(&forwarder).await;
    up.becomes(lowered);
    // One letter at least is upper in all but one of 8,192 draws.
    let found = forwarder.resolve(&permit("www.example.com")).await.expect("an answer");
    assert!(found.tcp);
    assert_eq!(count(&forwarder.counters().doubted), 1);
    tokio::time::timeout(Duration::from_millis(50), forwarder.inner.doubts.notified()).await.expect("it is doubted");
    assert_eq!(forwarder.upstreams()[0].keeps_case, Some(true), "a question alone teaches nothing");
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].keeps_case, Some(false));
    assert!(!forwarder.resolve(&permit("www.example.net")).await.expect("an answer").tcp);
}

#[tokio::test]
async fn one_answer_in_another_case_is_not_enough() {
    // A forger who was lucky once, among trials that come back as they were.
    let turn = AtomicUsize::new(0);
    let up = Fake::start(move |q, transport| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => lowered(q, transport),
        _ => Act::Send(vec![answer(q, 1)]),
    })
    .await;
    let forwarder = forwarder(&[&up]);
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].keeps_case, Some(true));
}

#[tokio::test]
async fn cookies_are_sent_to_who_has_them_and_must_come_back() {
    let up = Fake::start(baker).await;
    let forwarder = forwarder(&[&up]);
    forwarder.resolve(&permit("a.example")).await.expect("an answer");
    assert_eq!(cookie(&up.queries()[0].1), None, "nothing is known yet");
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].has_cookies, Some(true));
    forwarder.resolve(&permit("b.example")).await.expect("an answer");
    let sent = cookie(&up.queries()[1].1).expect("a cookie");
    assert_eq!((sent.len(), &sent[8..]), (16, &b"server's"[..]));

    // Forged with another cookie: passed over, and the good one behind it is taken.
    up.becomes(|q, _| {
        let sent = cookie(q).expect("a cookie");
        let mut other = sent.clone();
        other[3] ^= 1;
        Act::Send(vec![with_cookie(answer(q, 66), &other), with_cookie(answer(q, 2), &sent)])
    });
    assert_eq!(last_but_opt(&forwarder.resolve(&permit("c.example")).await), Some(2));
    assert_eq!(count(&forwarder.counters().mismatches), 1);

    // Without any: over TCP, and the upstream is tried anew.
    up.becomes(|q, transport| match transport {
        Transport::Udp => Act::Send(vec![answer(q, 66)]),
        Transport::Tcp => Act::Send(vec![answer(q, 3)]),
    });
    assert_eq!(last(&forwarder.resolve(&permit("d.example")).await), Some(3));
    assert_eq!(count(&forwarder.counters().doubted), 1);
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].has_cookies, Some(false));
    up.becomes(baker);
    forwarder.resolve(&permit("e.example")).await.expect("an answer");
    let queries = up.queries();
    assert_eq!(cookie(&queries[queries.len() - 1].1), None);
}

/// Last octet of the address in front of an OPT record with 16 octets of cookie.
fn last_but_opt(found: &Result<Landed, ForwardError>) -> Option<u8> {
    let wire = &found.as_ref().ok()?.wire;
    wire.len().checked_sub(32).and_then(|at| wire.get(at).copied())
}

#[tokio::test]
async fn a_bad_cookie_is_asked_again_with_the_new_one_and_then_over_tcp() {
    let fixed = Arc::new(AtomicBool::new(true));
    let wants = fixed.clone();
    let up = Fake::start(move |q, transport| {
        let Some(sent) = cookie(q) else { return Act::Send(vec![answer(q, 4)]) };
        // Its secret has changed: it takes the new one, or, where it is broken, none at all.
        let is_new = sent[8..] == *b"new cook";
        if q[12..].len() > 9 && q[12..21].eq_ignore_ascii_case(b"\x08resolver")
            || transport == Transport::Tcp
            || is_new && wants.load(Ordering::Relaxed)
        {
            return Act::Send(vec![with_cookie(answer(q, 1), &[&sent[..8], b"old cook"].concat())]);
        }
        let mut reply = with_cookie(bare(q, 0x8187), &[&sent[..8], b"new cook"].concat());
        let at = reply.len() - 16 - 4 - 6;
        reply[at] = 1;
        Act::Send(vec![reply])
    })
    .await;
    let forwarder = forwarder(&[&up]);
    greet(&forwarder).await;
    assert_eq!(forwarder.upstreams()[0].has_cookies, Some(true));
    let found = forwarder.resolve(&permit("a.example")).await.expect("an answer");
    assert!(!found.tcp);
    assert_eq!(up.queries().len(), 2);
    fixed.store(false, Ordering::Relaxed);
    let found = forwarder.resolve(&permit("b.example")).await.expect("an answer");
    assert!(found.tcp);
    assert_eq!(up.queries().len(), 5, "twice by datagram, once over TCP");
}

#[tokio::test]
async fn one_that_drops_what_has_a_cookie_is_never_sent_one() {
    // Silence, or a header alone that says FORMERR, with an OPT record or without.
    let deaf: fn(&[u8]) -> Act = |_| Act::Silence;
    let cross: fn(&[u8]) -> Act = |q| Act::Send(vec![vec![q[0], q[1], 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]]);
    let crossed: fn(&[u8]) -> Act = |q| {
        let header = [q[0], q[1], 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        Act::Send(vec![[&header[..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat()])
    };
    for refusal in [deaf, cross, crossed] {
        let up = Fake::start(move |q, _| match cookie(q) {
            Some(_) => refusal(q),
            None => Act::Send(vec![answer(q, 1)]),
        })
        .await;
        let forwarder = forwarder(&[&up]);
        greet(&forwarder).await;
        let status = &forwarder.upstreams()[0];
        assert_eq!((status.has_cookies, status.keeps_case), (Some(false), Some(true)));
        assert_eq!(last(&forwarder.resolve(&permit("a.example")).await), Some(1));
        assert_eq!(up.queries().len(), 1);
        assert_eq!(status.standing, Standing::Up, "trials say nothing of its health");
    }
}

#[tokio::test]
async fn one_that_is_silent_is_not_known_afterwards() {
    let up = Fake::start(|_, _| Act::Silence).await;
    let forwarder = forwarder(&[&up]);
    assert!(!greet::greet(&forwarder.inner, &forwarder.inner.servers[0]).await);
    let status = &forwarder.upstreams()[0];
    assert_eq!((status.has_cookies, status.keeps_case), (None, None));
    assert!(up.queries().is_empty() && (3..=6).contains(&up.trials()), "{}", up.trials());
}
