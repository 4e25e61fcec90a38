//! Where policy zones stand among all else that decides: session, rules, grants, lists, score and ledger, the packet filter.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::dns::{Data, Message, Query, rcode, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::{Chance, WEB, World, client, wait_for};

const ZONE: &str = "feed.policy.test";
const HEAD: &str = "$TTL 300\n@ IN SOA . . 7 3600 600 86400 60\n@ IN NS .\n";
const RULES: &str = "\
bad.example CNAME .
nothing.example CNAME *.
silent.example CNAME rpz-drop.
tcp.example CNAME rpz-tcp-only.
local.example A 203.0.113.10
local.example TXT \"from the zone\"
inside.example A 10.20.0.1
alias.example CNAME garden.example.
closed.example CNAME denied.example.
*.wide.example CNAME *.garden-of-the-operator.example.
pass.example CNAME rpz-passthru.
*.pass.example CNAME rpz-passthru.
*.tunnel.example CNAME rpz-passthru.
written.example CNAME .
32.66.100.51.198.rpz-ip CNAME .
32.67.100.51.198.rpz-ip A 203.0.113.10
";

fn write(world: &World, text: &str) -> String {
    let file = world.path("feed.zone");
    std::fs::write(&file, format!("{HEAD}{text}")).expect("written");
    file.display().to_string()
}

fn with_zone(config: Config, file: &str, more: &str) -> Config {
    config.tables(&format!("[[rpz]]\nname = {ZONE:?}\nfile = {file:?}\n{more}"))
}

fn world() -> Option<World> {
    let world = World::create(1)?;
    for name in ["bad", "garden", "denied", "tcp", "written", "pass", "plain", "alias", "local"] {
        world.upstream.add_site(&format!("{name}.example"), WEB.into());
    }
    world.upstream.add("listed.example", 300, IpAddr::from([198, 51, 100, 66]).into());
    world.upstream.add("moved.example", 300, Data::Cname("listed.example".into()));
    world.upstream.add("short.example", 5, Data::Cname("listed.example".into()));
    world.upstream.add("led.example", 300, IpAddr::from([198, 51, 100, 67]).into());
    let hint = vec![(4, vec![198, 51, 100, 66])];
    world.upstream.add("hinted.example", 300, Data::Https(1, ".".into(), hint));
    world.upstream.add("chain.example", 300, Data::Cname("bad.example".into()));
    world.upstream.add("*.pass.example", 300, IpAddr::from(WEB).into());
    Some(world)
}

fn ask(world: &World, name: &str) -> Message {
    world.agents[0].ask_edns(name, rtype::A).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn code(message: &Message) -> u8 {
    (message.flags & 0xf) as u8
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let of = message.answers.iter().filter(|r| r.rtype == rtype::A);
    of.map(|r| Ipv4Addr::from(<[u8; 4]>::try_from(&r.rdata[..]).expect("four octets"))).collect()
}

/// The newest event of a name, once it is written.
fn event(staunch: &Staunch, name: &str) -> Value {
    event_that(staunch, name, |_| true)
}

/// The newest event of a name that is as wanted, once it is written.
fn event_that(staunch: &Staunch, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let of_name = || staunch.events().into_iter().rev().filter(|event| event["qname"] == name);
    let found = wait_for(Duration::from_secs(10), || of_name().find(&wanted));
    found.unwrap_or_else(|| panic!("no such event of {name}: {:?}", of_name().next()))
}

#[test]
fn every_action_is_carried_out_recorded_and_explained() {
    let Some(world) = world() else { return };
    let file = write(&world, RULES);
    let config = Config::enforce().deny("closed", "denied.example").allow_exact("open", ["written.example"]);
    let staunch = Staunch::start(&world, &with_zone(config, &file, ""));
    let agent = &world.agents[0];

    let bad = ask(&world, "bad.example");
    assert_eq!((code(&bad), bad.answers.len(), bad.authority[0].rtype), (rcode::NXDOMAIN, 0, rtype::SOA));
    let (info, text) = bad.errors().into_iter().next().expect("a reason");
    let of_bad = event(&staunch, "bad.example");
    assert!(info == 15 && text.contains(ZONE) && text.contains(of_bad["case"].as_str().expect("a case")), "{text}");
    let rpz = serde_json::json!({ "zone": ZONE, "trigger": "qname", "action": "nxdomain", "applied": true });
    assert_eq!((&of_bad["rpz"], &of_bad["reason"], &of_bad["source"]), (&rpz, &"rpz".into(), &"policy".into()));
    assert_eq!((of_bad["rule"]["line"].as_u64(), of_bad["rule"]["file"].as_str()), (Some(4), Some(&*file)));
    let nothing = ask(&world, "nothing.example");
    assert_eq!((code(&nothing), nothing.answers.len(), nothing.authority[0].rtype), (0, 0, rtype::SOA));

    let query = Query::new("silent.example", rtype::A).encode();
    let server = std::net::SocketAddr::from((agent.gateway, 53));
    let silence = agent.ns.run(async move { client::udp(None, server, &query, Duration::from_millis(700)).await });
    assert_eq!(silence.err().map(|error| error.kind()), Some(std::io::ErrorKind::TimedOut));
    assert_eq!(event(&staunch, "silent.example")["rpz"]["action"], "drop");

    let short = ask(&world, "tcp.example");
    assert_eq!((short.flags & 0x0200, short.answers.len()), (0x0200, 0));
    assert!(world.upstream.seen_below("tcp.example").is_empty());
    let long = agent.ask_tcp(Query::new("tcp.example", rtype::A).edns(1232).encode()).expect("answered over TCP");
    assert_eq!(addresses(&long), [WEB]);

    // Records of the zone's own are pinned like any answer; what is not public is neither shown nor pinned.
    assert!(agent.dial(WEB.into(), 80).0.is_ok(), "tcp.example opened it");
    let local = ask(&world, "local.example");
    assert_eq!((addresses(&local), local.answers[0].ttl), (vec![WEB], 60), "its TTL is the zone's limit");
    assert!(local.errors().iter().any(|(info, _)| *info == 4), "said to be forged");
    assert_eq!(event(&staunch, "local.example")["pins"], serde_json::json!([WEB.to_string()]));
    let text = agent.ask_edns("local.example", rtype::TXT).expect("answered");
    assert_eq!(text.answers[0].rdata, b"\x0dfrom the zone");
    let inside = ask(&world, "inside.example");
    assert_eq!((code(&inside), inside.answers.len()), (0, 0));
    assert_eq!(event(&staunch, "inside.example")["withheld"], serde_json::json!(["10.20.0.1"]));

    // Led to a garden, which is asked for, judged and pinned by itself; the name that was asked for stays here.
    let alias = ask(&world, "alias.example");
    assert_eq!((addresses(&alias), alias.answers[0].target.as_deref()), (vec![WEB], Some("garden.example")));
    assert_eq!(event(&staunch, "garden.example")["pins"], serde_json::json!([WEB.to_string()]));
    assert_eq!(event(&staunch, "alias.example")["rpz"]["action"], "local-data");
    let closed = ask(&world, "closed.example");
    assert_eq!((code(&closed), addresses(&closed)), (rcode::NXDOMAIN, vec![]), "the garden's own refusal stands");
    assert_eq!(event(&staunch, "denied.example")["reason"], "deny-rule");
    let alias = agent.ask_edns("closed.example", rtype::CNAME).expect("answered");
    let told: Vec<_> = alias.answers.iter().map(|r| r.target.as_deref()).collect();
    assert_eq!((code(&alias), told, alias.authority.len()), (0, vec![Some("denied.example")], 0), "the alias itself");
    let (label, last) = ("x".repeat(60), "y".repeat(45));
    let long = ask(&world, &format!("{label}.{label}.{label}.{last}.wide.example"));
    assert_eq!((code(&long), long.answers.len()), (rcode::NXDOMAIN, 0), "too long is refused, never cut");

    // Answers: by address, at whatever end of a chain, and by the names on it.
    assert_eq!(code(&ask(&world, "listed.example")), rcode::NXDOMAIN);
    let listed = event(&staunch, "listed.example");
    assert_eq!((&listed["rpz"]["trigger"], &listed["pins"]), (&"response-ip".into(), &Value::Null));
    let moved = ask(&world, "moved.example");
    assert_eq!((code(&moved), moved.answers[0].target.as_deref()), (rcode::NXDOMAIN, Some("listed.example")));
    let short = ask(&world, "short.example");
    assert_eq!((code(&short), short.answers[0].target.as_deref()), (rcode::NXDOMAIN, Some("listed.example")));
    assert!(short.answers[0].ttl <= 5 && moved.answers[0].ttl == 60, "no longer than the alias's own, or the limit");
    assert_eq!(addresses(&ask(&world, "led.example")), [WEB]);
    let chain = ask(&world, "chain.example");
    assert_eq!((code(&chain), addresses(&chain)), (rcode::NXDOMAIN, vec![]));
    assert_eq!(event(&staunch, "chain.example")["rpz"]["trigger"], "qname");
    assert!(agent.dial([198, 51, 100, 66].into(), 80).0.is_err(), "nothing of it was opened");

    // A rule that somebody wrote for this place goes first.
    assert_eq!(addresses(&ask(&world, "written.example")), [WEB]);
    for name in ["bad.example", "nothing.example", "silent.example", "local.example", "inside.example", "alias.example"]
    {
        let seen: Vec<_> = world.upstream.seen_below(name).into_iter().filter(|q| q.name == name).collect();
        assert!(seen.is_empty(), "{name} left");
    }
    let explained = staunch.json(&["explain", "bad.example", "--session", "agent-1"]);
    assert_eq!((&explained["rpz"], &explained["rule"]["line"]), (&rpz, &4.into()), "{explained}");
    // A grant opens what a zone closes, for its time.
    staunch.run_ok(&[
        "allow",
        "bad.example",
        "--session",
        "agent-1",
        "--for",
        "10m",
        "--reason",
        "a test needs it",
        "--owner",
        "tests",
    ]);
    assert_eq!(addresses(&ask(&world, "bad.example")), [WEB]);
    assert_eq!(addresses(&ask(&world, "chain.example")), [WEB], "as an alias too");
}

#[test]
fn an_address_that_a_hint_would_open_is_an_address_of_the_answer() {
    let Some(world) = world() else { return };
    let file = write(&world, RULES);
    let ask = || world.agents[0].ask_edns("hinted.example", rtype::HTTPS).expect("answered");
    for (hints, expected) in [("true", (rcode::NOERROR, 1)), ("false", (rcode::NXDOMAIN, 0))] {
        let config = Config::enforce().tables(&format!("[answer]\nstrip_hints = {hints}\n"));
        let staunch = Staunch::start(&world, &with_zone(config, &file, ""));
        for _ in 0..2 {
            let answer = ask();
            assert_eq!((code(&answer), answer.answers.len()), expected, "strip_hints = {hints}");
        }
        if hints == "false" {
            // The events of both starts are in one file, and these may still be on their way to it.
            let refused = event_that(&staunch, "hinted.example", |event| event["verdict"] != "answer");
            assert_eq!(refused["rpz"]["trigger"], "response-ip", "{refused}");
        }
    }
}

#[test]
fn a_question_for_any_hears_what_every_other_hears_and_never_leaves() {
    let Some(world) = world() else { return };
    let (any, hinfo) = (255, 13);
    let file = write(&world, RULES);
    let config = Config::enforce().allow_exact("open", ["written.example"]);
    let staunch = Staunch::start(&world, &with_zone(config, &file, ""));
    let agent = &world.agents[0];
    let of = |name: &str| agent.ask_edns(name, any).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bad = of("bad.example");
    assert_eq!((code(&bad), bad.answers.len(), bad.authority[0].rtype), (rcode::NXDOMAIN, 0, rtype::SOA));
    assert!(bad.errors().iter().any(|(info, text)| *info == 15 && text.contains(ZONE)), "{:?}", bad.errors());
    assert_eq!(event(&staunch, "bad.example")["rpz"]["action"], "nxdomain");
    for name in ["nothing.example", "local.example"] {
        let answer = of(name);
        assert_eq!((code(&answer), answer.answers.len(), answer.authority[0].rtype), (0, 0, rtype::SOA), "{name}");
    }
    let query = Query::new("silent.example", any).encode();
    let server = std::net::SocketAddr::from((agent.gateway, 53));
    let silence = agent.ns.run(async move { client::udp(None, server, &query, Duration::from_millis(700)).await });
    assert_eq!(silence.err().map(|error| error.kind()), Some(std::io::ErrorKind::TimedOut));
    let short = of("tcp.example");
    assert_eq!((short.flags & 0x0200, short.answers.len()), (0x0200, 0));
    assert_eq!(code(&of("alias.example")), 0);
    // What no zone refuses, or somebody wrote for this place.
    for name in ["plain.example", "pass.example", "written.example"] {
        let answer = of(name);
        assert_eq!((code(&answer), answer.answers[0].rtype), (0, hinfo), "{name}");
    }
    drop(staunch);
    let _staunch = Staunch::start(&world, &with_zone(Config::monitor(), &file, ""));
    assert_eq!(of("bad.example").answers[0].rtype, hinfo, "in monitor mode no zone changes anything");
    let seen = world.upstream.seen_below("example");
    assert!(seen.iter().all(|query| query.qtype != any), "{seen:?}");
}

#[test]
fn what_passes_is_judged_and_a_quarantine_is_not_lifted() {
    let Some(world) = world() else { return };
    let file = write(&world, RULES);
    let staunch = Staunch::start(&world, &with_zone(Config::enforce(), &file, ""));
    let mut chance = Chance(0x7061_7373);
    assert_eq!(addresses(&ask(&world, "pass.example")), [WEB]);
    assert_eq!(event(&staunch, "pass.example")["rpz"]["action"], "passthru");
    for _ in 0..30 {
        ask(&world, &format!("{}.tunnel.example", chance.label(55)));
    }
    let is_refused = |event: &Value| {
        event["qname"].as_str().is_some_and(|name| name.ends_with("tunnel.example")) && event["verdict"] != "answer"
    };
    let refused = wait_for(Duration::from_secs(10), || staunch.events().into_iter().find(is_refused));
    let refused = refused.expect("a tunnel below a name that passes is still a tunnel");
    assert_eq!(
        (&refused["rpz"]["action"], &refused["rpz"]["applied"]),
        (&"passthru".into(), &true.into()),
        "{refused}"
    );
    assert!(world.upstream.seen_below("tunnel.example").len() < 20);
    staunch.run_ok(&["session", "quarantine", "agent-1", "--reason", "a test needs it", "--by", "tests"]);
    for name in ["pass.example", "local.example", "alias.example", "plain.example", "bad.example"] {
        let answer = ask(&world, name);
        assert!(code(&answer) == rcode::NXDOMAIN && addresses(&answer).is_empty(), "{name}");
        event_that(&staunch, name, |event| event["reason"] == "quarantined");
    }
}

#[test]
fn a_trusted_zone_goes_before_the_score_and_not_before_the_ledger() {
    let Some(world) = world() else { return };
    let file = write(&world, RULES);
    let trust = "passthru = \"trust\"\nowner = \"team-a\"\nreason = \"object storage\"\n";
    let budget = "[profile.interactive.budgets]\ntenant_soft = 1000\ntenant = 2000\n";
    let staunch = Staunch::start(&world, &with_zone(Config::enforce().tables(budget), &file, trust));
    let mut chance = Chance(0x7472_7573);
    let codes: Vec<u8> = (0..12).map(|_| code(&ask(&world, &format!("{}.pass.example", chance.label(55))))).collect();
    let answered = codes.iter().take_while(|code| **code == 0).count();
    // Each is worth some 270 bits.
    assert!((4..=9).contains(&answered), "{codes:?}");
    let refused = || staunch.events().into_iter().filter(|event| event["verdict"] != "answer").collect::<Vec<_>>();
    let refused = wait_for(Duration::from_secs(10), || Some(refused()).filter(|all| all.len() == 12 - answered));
    let reasons: Vec<Value> = refused.expect("written").iter().map(|event| event["reason"].clone()).collect();
    assert!(reasons.iter().all(|reason| reason == "ledger-tenant"), "{reasons:?}");
}

#[test]
fn monitor_mode_and_a_disabled_zone_record_and_change_nothing() {
    let Some(world) = world() else { return };
    let file = write(&world, RULES);
    let staunch = Staunch::start(&world, &with_zone(Config::monitor(), &file, ""));
    for (name, trigger) in [("bad.example", "qname"), ("alias.example", "qname"), ("chain.example", "qname")] {
        assert_eq!(addresses(&ask(&world, name)), [WEB], "{name}");
        let event = event(&staunch, name);
        assert_eq!((&event["would"], &event["verdict"]), (&"sinkhole".into(), &"answer".into()), "{name}");
        assert_eq!((&event["rpz"]["trigger"], &event["rpz"]["applied"]), (&trigger.into(), &false.into()), "{name}");
    }
    assert_eq!(addresses(&ask(&world, "listed.example")), [Ipv4Addr::new(198, 51, 100, 66)]);
    assert_eq!(event(&staunch, "listed.example")["rpz"]["trigger"], "response-ip");
    drop(staunch);

    let staunch = Staunch::start(&world, &with_zone(Config::enforce(), &file, "policy = \"disabled\"\n"));
    for name in ["bad.example", "chain.example"] {
        assert_eq!(addresses(&ask(&world, name)), [WEB], "{name}");
        event_that(&staunch, name, |event| event["would"] == "answer" && event["rpz"]["applied"] == false);
    }
}

#[test]
fn a_reload_is_whole_or_nothing_under_load() {
    let Some(world) = world() else { return };
    let file = write(&world, RULES);
    let config = || with_zone(Config::enforce(), &file, "");
    let staunch = Staunch::start(&world, &config());
    assert_eq!(code(&ask(&world, "bad.example")), rcode::NXDOMAIN);
    write(&world, "plain.example CNAME .\nns.bad.example.rpz-nsip CNAME .\n32.zz.nope.rpz-ip CNAME .\n");
    staunch.reload(&world, &config());
    let said = |text: &str| staunch.log().iter().any(|line| line.contains(text));
    let told = wait_for(Duration::from_secs(10), || said("the old configuration stays").then_some(()));
    assert!(told.is_some(), "{}", staunch.tail());
    assert!(said(&format!("{file}:5: ")) && said("rpz-nsip") && said(&format!("{file}:6: ")), "{}", staunch.tail());
    assert_eq!(
        (code(&ask(&world, "bad.example")), addresses(&ask(&world, "plain.example"))),
        (rcode::NXDOMAIN, vec![WEB])
    );

    // Ten times a second another zone: each answer is that of one of them, whole.
    let (a, b) = ("plain.example A 203.0.113.10\nplain.example A 203.0.113.11\n", "plain.example CNAME .\n");
    write(&world, a);
    staunch.reload(&world, &config());
    let (end, latest) = (Instant::now() + Duration::from_secs(3), Instant::now() + Duration::from_secs(30));
    let (mut turn, mut asked, mut seen) = (0, 0, [0, 0]);
    let mut next = Instant::now();
    // For three seconds, and on a busy machine for as long as it takes to see anything.
    while Instant::now() < end || (Instant::now() < latest && (turn < 10 || seen.contains(&0))) {
        if Instant::now() >= next {
            turn += 1;
            write(&world, if turn % 2 == 0 { a } else { b });
            staunch.reload(&world, &config());
            next = Instant::now() + Duration::from_millis(100);
        }
        let answer = ask(&world, "plain.example");
        asked += 1;
        match (code(&answer), addresses(&answer).len()) {
            (0, 2) => seen[0] += 1,
            (3, 0) => seen[1] += 1,
            // Asked before the first of them was in force.
            (0, 1) if seen == [0, 0] => {}
            other => panic!("neither zone's answer: {other:?} after {asked}"),
        }
    }
    assert!(turn >= 10 && seen[0] > 0 && seen[1] > 0, "{turn} reloads, {asked} answers: {seen:?}");
}
