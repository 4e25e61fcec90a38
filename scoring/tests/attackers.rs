//! Attackers that know the design, each with the bits it got.
//!
//! Every one may ask the ledger and the score beforehand what they would say, wait as long as it likes and choose names,
//! domains and pace by that. What stops them is the ledger; the score only makes it less. Time costs nothing here, and no
//! floor under repeats is at work, so the figures are the worst case.

#[path = "bound/names.rs"]
mod names;
#[path = "bound/sender.rs"]
mod sender;
mod session;

use names::{Likeness, cheapest, name, random};
use sender::{Query, Sender, Told};
use session::{BASE32, BASE36, HEX, Random};
use staunch_scoring::{Band, Bits, Budgets, GroupState, Listing};

const HOUR: u64 = 3_600_000;

/// Prints what an attacker got and holds it to its limits: the tenant's and the session's.
fn got(what: &str, sender: &Sender) {
    let budgets = Budgets::default();
    let (tenant, session) = (sender.told_a_tenant(), sender.told());
    println!(
        "| {what} | {} | {:.0} | {:.0} | {} |",
        session.queries,
        tenant.told,
        session.told,
        sender.state.spent_session()
    );
    sender.check(what);
    let slack = |queries: u32| f64::from(queries + 1).log2();
    assert!(tenant.told <= budgets.tenant.as_f64() + slack(tenant.queries), "{what}: {tenant:?}");
    assert!(session.told <= budgets.session.as_f64() + slack(session.queries), "{what}: {session:?}");
    assert!(sender.state.spent_session() <= budgets.session);
}

/// Sends what `next` gives until the session is closed, or for `patience` queries.
fn until_closed(sender: &mut Sender, patience: usize, mut next: impl FnMut(usize) -> (Query, Told)) {
    for i in 0..patience {
        let (query, told) = next(i);
        if sender.send(&query, told).band == Band::Quarantine {
            break;
        }
    }
}

/// Halves length and alphabet until a query would be answered, doubles its pause, and stays just under; leaves a domain
/// when nothing is answered there any more, before it is marked.
#[test]
fn one_who_probes() {
    let mut bits = Random(0x0907);
    let mut sender = Sender::default_limits();
    let (mut domain, mut gap) = (0, 100);
    'session: while domain < 2_000 {
        let owner = format!("d{domain}.example");
        for len in [60, 30, 15, 8, 4, 2, 1] {
            for alphabet in [BASE32, HEX, b"01"] {
                let query = Query { gap, ..Query::of(name(&[&random(&mut bits, alphabet, len)], &owner)) };
                if sender.assess(&query).band < Band::Hold {
                    let told = len as f64 * (alphabet.len() as f64).log2();
                    // Which domain is told to the reader of all, at each turn to the next; it goes round in order.
                    sender.send(&query, Told::all(told));
                    continue 'session;
                }
            }
        }
        domain += 1;
        gap = (gap * 2).min(24 * HOUR);
    }
    got("probes, stays under, 2,000 domains", &sender);
}

/// One group, many sessions, each below its own limits.
#[test]
fn one_who_spreads_over_sessions_of_a_group() {
    let (mut bits, mut group) = (Random(0x5e55), GroupState::new(11));
    let (mut told, mut names) = (0.0, 0u32);
    let mut spent_by_sessions = Bits::ZERO;
    for session in 0..64 {
        let mut sender = Sender::default_limits();
        // Without the score: only the ledgers stop it.
        sender.params.sinkhole = f32::INFINITY;
        for i in 0..400 {
            let domain = format!("d{}.example", (session * 7 + i) % 97);
            let query = Query::of(name(&[&random(&mut bits, BASE32, 8)], &domain));
            sender.group = Some(group.facts(query.name.as_ref(), 9 * HOUR));
            let assessment = sender.send(&query, Told::all(40.0));
            if assessment.band < Band::Hold {
                group.book(query.name.as_ref(), assessment.charge.group, 9 * HOUR);
                (told, names) = (told + 40.0, names + 1);
            } else if assessment.band == Band::Quarantine {
                break;
            }
        }
        spent_by_sessions = spent_by_sessions.plus(sender.state.spent_session());
    }
    let limit = Budgets::default().group;
    println!("| spreads over 64 sessions | {names} | - | {told:.0} | {spent_by_sessions} |");
    assert!(group.spent(9 * HOUR) <= limit);
    assert!(told <= limit.as_f64() + f64::from(names + 1).log2());
    assert!(told >= 0.5 * limit.as_f64(), "the group's limit is what stopped it: {told}");
}

/// A second session of the group chooses among the names that the first has sent: free for the group, charged to each.
#[test]
fn one_who_chooses_among_the_groups_names() {
    let (mut bits, mut group) = (Random(0x6e55), GroupState::new(12));
    let host = |i: usize| Query::of(name(&[&cheapest()[i]], "leak.example"));
    for i in 0..256 {
        group.book(host(i).name.as_ref(), Bits::whole(10), 0);
    }
    let before = group.spent(0);
    let mut told = 0.0;
    for session in 0..20 {
        let mut sender = Sender::default_limits();
        until_closed_in_group(&mut sender, &group, 400, || (host(bits.below(256)), Told::all(8.0)));
        told += sender.told().told;
        if session == 0 {
            got("chooses among 256 names of its group, each session", &sender);
        }
    }
    println!("| the same, 20 sessions | - | - | {told:.0} | group: 0 |");
    assert_eq!(group.spent(0), before, "stated: a group does not pay for this, its sessions do, each for itself");
    let limit = Budgets::default().tenant.as_f64();
    assert!(told <= 20.0 * (limit + 9.0), "{told}");
}

fn until_closed_in_group(
    sender: &mut Sender,
    group: &GroupState,
    patience: usize,
    mut next: impl FnMut() -> (Query, Told),
) {
    for _ in 0..patience {
        let (query, told) = next();
        sender.group = Some(group.facts(query.name.as_ref(), 0));
        if sender.send(&query, told).band == Band::Quarantine {
            break;
        }
    }
}

#[test]
fn one_with_fifty_old_domains() {
    for len in [4, 12, 30] {
        let mut bits = Random(0x50 + len as u64);
        let mut sender = Sender::default_limits();
        sender.registered_days = Some(4_000.0);
        until_closed(&mut sender, 4_000, |i| {
            let owner = format!("old{}.example", i % 50);
            (
                Query { gap: 20_000, ..Query::of(name(&[&random(&mut bits, BASE32, len)], &owner)) },
                Told::all(5.0 * len as f64),
            )
        });
        got(&format!("fifty old domains, {len} characters"), &sender);
    }
}

/// Names in the form of services that look like a tunnel; no rule lists them.
#[test]
fn one_who_mimics_known_services() {
    let mut bits = Random(0x3131);
    let mut number = move |of: usize| bits.below(of);
    let mut octet = || number(256);
    let run = |what: &str, told: f64, form: &mut dyn FnMut() -> String| {
        let mut sender = Sender::default_limits();
        until_closed(&mut sender, 3_000, |_| (Query { gap: 5_000, ..Query::of(name(&[], &form())) }, Told::all(told)));
        got(what, &sender);
    };
    run("block-list form", 32.0, &mut || format!("{}.{}.{}.{}.zen.lists.example", octet(), octet(), octet(), octet()));
    run("reverse look-ups of a /16", 16.0, &mut || format!("{}.{}.7.10.in-addr.arpa", octet(), octet()));
    let mut bits = Random(0x3132);
    run("reverse look-ups of a /32 in IPv6", 96.0, &mut || {
        let nibbles: Vec<String> =
            random(&mut bits, HEX, 24).iter().map(|nibble| char::from(*nibble).to_string()).collect();
        format!("{}.8.b.d.0.1.0.0.2.ip6.arpa", nibbles.join("."))
    });
    let mut bits = Random(0x3138);
    run("a payload below a delegated reverse zone", 130.0, &mut || {
        format!("{}.8.b.d.0.1.0.0.2.ip6.arpa", bits.text(BASE32, 26))
    });
    let mut bits = Random(0x3133);
    run("shards of a content network", 13.0 * 36f64.log2(), &mut || {
        format!("d{}.shards.example", bits.text(BASE36, 13))
    });
    // Each tenant is told nothing but that it was asked for; which one, the platform's owner reads.
    let mut bits = Random(0x3134);
    let mut sender = Sender::default_limits();
    until_closed(&mut sender, 3_000, |_| {
        let which = 13.0 * 36f64.log2();
        let query = Query { gap: 5_000, ..Query::of(name(&[], &format!("d{}.cloudfront.net", bits.text(BASE36, 13)))) };
        (query, Told { tenant: 0.0, icann: which, session: which })
    });
    got("tenants of a content network", &sender);
    let mut bits = Random(0x3135);
    run("file hashes", 130.0, &mut || format!("{}.files.reputation.example", bits.text(BASE32, 26)));
    let mut bits = Random(0x3136);
    run("hashes in hexadecimal", 128.0, &mut || format!("{}.hash.reputation.example", bits.text(HEX, 32)));
}

#[test]
fn one_who_picks_among_ordinary_hosts_and_domains() {
    for of in [16, 256, 4_096] {
        let bits = (of as f64).log2();
        let mut draw = Random(of as u64);
        let mut sender = Sender::default_limits();
        until_closed(&mut sender, 3_000, |_| {
            (Query { gap: 60_000, ..Query::of(name(&[&cheapest()[draw.below(of)]], "hosts.example")) }, Told::all(bits))
        });
        got(&format!("one of {of} hosts"), &sender);

        let mut draw = Random(of as u64 + 1);
        let mut sender = Sender::default_limits();
        until_closed(&mut sender, 3_000, |_| {
            let query = Query { gap: 60_000, ..Query::of(name(&[b"www"], &format!("shop{}.example", draw.below(of)))) };
            (query, Told { tenant: 0.0, icann: 0.0, session: bits })
        });
        got(&format!("one of {of} domains"), &sender);
    }
    // Names on exact rules are the operator's own: the choice is recorded, and never below what it tells.
    let mut draw = Random(9);
    let mut sender = Sender::default_limits();
    sender.listing = Listing::Exact { of: 256 };
    for _ in 0..1_000 {
        let query = Query::of(name(&[format!("h{}", draw.below(256)).as_bytes()], "exact.example"));
        assert_eq!(sender.send(&query, Told::all(0.0)).band, Band::Answer);
    }
    assert!(sender.state.spent_listed() >= Bits::whole(8_000));
}

#[test]
fn one_who_writes_benign_text() {
    for len in [3, 6, 12, 24] {
        let mut bits = Random(0x7e47 + len as u64);
        let mut sender = Sender::default_limits();
        until_closed(&mut sender, 3_000, |_| {
            let (text, told) = Likeness::shipped().draw(&mut bits, len);
            (Query { gap: 30_000, ..Query::of(name(&[&text], "text.example")) }, Told::all(told))
        });
        got(&format!("benign text of {len} letters"), &sender);
    }
}

/// Labels too short to say anything by what they are made of, one or many in a name.
#[test]
fn one_who_writes_in_short_labels() {
    for (len, labels) in [(1, 1), (1, 20), (2, 1), (2, 3), (2, 20)] {
        let mut bits = Random(0x5047 + (len * 100 + labels) as u64);
        let mut sender = Sender::default_limits();
        until_closed(&mut sender, 3_000, |_| {
            let parts: Vec<_> = (0..labels).map(|_| random(&mut bits, BASE32, len)).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            (Query { gap: 5_000, ..Query::of(name(&parts, "short.example")) }, Told::all((5 * len * labels) as f64))
        });
        got(&format!("{labels} labels of {len} characters"), &sender);
    }
}

#[test]
fn one_who_takes_two_weeks() {
    for len in [1, 10, 40] {
        let mut bits = Random(0x510 + len as u64);
        let mut sender = Sender::default_limits();
        until_closed(&mut sender, 14 * 48, |_| {
            (
                Query { gap: HOUR / 2, ..Query::of(name(&[&random(&mut bits, BASE32, len)], "slow.example")) },
                Told::all(5.0 * len as f64),
            )
        });
        got(&format!("every half hour for two weeks, {len} characters"), &sender);
    }
}

/// Ordinary look-ups between those that leak: they spend the session's account, and buy nothing.
#[test]
fn one_who_hides_among_ordinary_look_ups() {
    let hosts = ["www", "api", "cdn", "static", "img", "login", "docs", "mail", "m", "assets"];
    let mut alone = None;
    for cover in [0, 1, 10, 100] {
        let mut bits = Random(0xc0e6);
        let mut sender = Sender::default_limits();
        let mut asked = 0;
        let mut first = None;
        'session: for i in 0..60 {
            for _ in 0..cover {
                let query =
                    Query::of(name(&[hosts[asked % 10].as_bytes()], &format!("site{}.example", asked / 10 % 30)));
                sender.send(&query, Told::all(0.0));
                asked += 1;
            }
            let query = Query { gap: 1_000, ..Query::of(name(&[&random(&mut bits, BASE32, 24)], "leak.example")) };
            let got = sender.send(&query, Told::all(120.0));
            if got.band >= Band::Sinkhole {
                first.get_or_insert(i);
            }
            if got.band == Band::Quarantine {
                break 'session;
            }
        }
        got(&format!("{cover} ordinary look-ups to one"), &sender);
        let (told, first) = (sender.told_a_tenant().told, first.expect("refused"));
        let (least, at) = *alone.get_or_insert((told, first));
        assert!(
            told <= least + 1.0 && first <= at,
            "{cover} to one: {told} bits against {least}, refused at {first}, {at}"
        );
    }
}

/// A restart between any two queries: nothing is refunded but the time of the first query behind it, which is not known.
#[test]
fn one_who_makes_the_service_restart() {
    for len in [2, 6] {
        let run = |restarts: bool| {
            let mut bits = Random(0x4e57 + len as u64);
            let mut sender = Sender::default_limits();
            until_closed_with(&mut sender, 400, |sender, i| {
                if restarts {
                    sender.restart();
                }
                let owner = format!("d{}.example", i % 3);
                let query = Query { gap: 500, ..Query::of(name(&[&random(&mut bits, BASE32, len)], &owner)) };
                (query, Told::all(5.0 * len as f64))
            });
            sender
        };
        let (with, without) = (run(true), run(false));
        got(&format!("a restart at each query, {len} characters"), &with);
        let told = |sender: &Sender| (sender.told().queries, sender.told().told);
        assert!(told(&with).1 <= told(&without).1 * 1.1 + 64.0, "{:?} against {:?}", told(&with), told(&without));
    }
}

fn until_closed_with(sender: &mut Sender, patience: usize, mut next: impl FnMut(&mut Sender, usize) -> (Query, Told)) {
    for i in 0..patience {
        let (query, told) = next(sender, i);
        if sender.send(&query, told).band == Band::Quarantine {
            break;
        }
    }
}

/// A platform is not lost to its other tenants, nor to other sessions, because one of them leaked.
#[test]
fn a_refusal_is_for_one_session_and_one_tenant() {
    for platform in ["github.io", "s3.amazonaws.com", "cloudfront.net"] {
        let mut bits = Random(0x0711);
        let mut sender = Sender::default_limits();
        let leak = format!("leak.{platform}");
        let refused = (0..40).any(|_| {
            let query = Query::of(name(&[&random(&mut bits, BASE32, 30)], &leak));
            sender.send(&query, Told::all(150.0)).band >= Band::Sinkhole
        });
        assert!(refused);
        let asks = |sender: &Sender, text: &str| sender.assess(&Query::of(name(&[], text))).band;
        assert_eq!(asks(&sender, &format!("www.{leak}")), Band::Sinkhole, "the tenant stays refused here");
        for other in ["docs", "www", "my-project"] {
            assert!(asks(&sender, &format!("{other}.{platform}")) <= Band::Watch, "another tenant of {platform}");
        }
        assert!(asks(&sender, platform) <= Band::Watch, "the platform itself");
        let other = Sender::default_limits();
        assert!(asks(&other, &format!("www.{leak}")) <= Band::Watch, "another session");
        // Until it is closed by a limit of its own.
        while sender.send(&Query::of(name(&[&random(&mut bits, BASE32, 30)], &leak)), Told::all(150.0)).band
            < Band::Quarantine
        {}
        assert!(asks(&other, &format!("www.{leak}")) <= Band::Watch, "another session still");
        got(&format!("one tenant of {platform}"), &sender);
    }
}
