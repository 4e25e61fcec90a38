//! Leases through the whole service: which ports, for how long, for how much, and what a change of phase, rules or grants ends.

mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::dns::{Data, rcode, rtype};
use world::staunch::{Config, Staunch};
use world::{Agent, WEB, World, wait_for, web};

/// What the packet filter must have ended, is over within this.
const CUT: Duration = Duration::from_secs(1);
/// A further server, which no rule names where a test does not say so.
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

fn resolve(agent: &Agent, name: &str) -> Vec<IpAddr> {
    agent.ask_edns(name, rtype::A).unwrap_or_else(|e| panic!("{name}: {e}")).addresses()
}

/// A download that does not end by itself; the moments at which octets of it arrived.
struct Download(Receiver<Instant>);

impl Download {
    fn start(agent: &Agent, to: Ipv4Addr) -> Self {
        let (tell, told) = channel();
        agent.ns.spawn(async move {
            let Ok(mut stream) = tokio::net::TcpStream::connect(SocketAddr::from((to, 80))).await else { return };
            let _ = stream.write_all(b"GET /endless HTTP/1.1\r\nHost: www.site.example\r\n\r\n").await;
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                if tell.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        let download = Self(told);
        assert!(wait_for(Duration::from_secs(20), || download.last()).is_some(), "a download of {to} runs");
        download
    }

    /// When octets last arrived, of those not yet told.
    fn last(&self) -> Option<Instant> {
        self.0.try_iter().last()
    }

    #[track_caller]
    fn assert_runs(&self) {
        self.last();
        assert!(wait_for(Duration::from_secs(10), || self.last()).is_some(), "the download stands still");
    }

    /// Octets must stop within a second of `since`, and do not come again.
    #[track_caller]
    fn assert_ends(&self, since: Instant, what: &str) {
        std::thread::sleep((since + CUT).saturating_duration_since(Instant::now()));
        let after = self.last().map_or(Duration::ZERO, |at| at.saturating_duration_since(since));
        println!("FIGURE: {what}: last octet {:.0} ms later", after.as_secs_f32() * 1000.0);
        std::thread::sleep(Duration::from_millis(500));
        assert!(self.last().is_none(), "{what}: octets arrive after a second");
    }
}

/// How a dial ends: `true` for a connection; a refusal must come at once.
#[track_caller]
fn dials(agent: &Agent, to: Ipv4Addr, port: u16) -> bool {
    let (end, took) = agent.dial(to.into(), port);
    assert!(end.is_ok() || took < CUT, "refused late, after {took:?}: {end:?}");
    end.is_ok()
}

/// A notice of this kind, where the service has told one.
fn notice(staunch: &Staunch, kind: &str) -> Option<Value> {
    wait_for(Duration::from_secs(20), || staunch.events().into_iter().find(|event| event["notice"] == *kind))
}

#[test]
fn a_rule_a_profile_and_a_grant_say_which_ports_are_opened() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    for port in [8080, 9090] {
        web::Web::start(&world.net, port);
    }
    let (ruled, granted) = (Ipv4Addr::new(203, 0, 113, 30), Ipv4Addr::new(203, 0, 113, 31));
    world.upstream.add_site("api.ruled.example", ruled.into());
    world.upstream.add_site("api.granted.example", granted.into());
    let config = Config::enforce()
        .rule("ruled", "allow", "\"=api.ruled.example\"", "ports = [\"tcp/9090\"]\n")
        .tables("[profile.interactive]\nports = [\"tcp/8080\"]\n");
    let staunch = Staunch::start(&world, &config);
    let opened = |to| [80, 8080, 9090].map(|port| dials(agent, to, port));

    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)]);
    assert_eq!(opened(WEB), [false, true, false], "the profile's port alone\n{}", staunch.tail());
    assert_eq!(resolve(agent, "api.ruled.example"), [IpAddr::from(ruled)]);
    assert_eq!(opened(ruled), [false, false, true], "the rule's port alone");
    let grant = ["allow", "=api.granted.example", "--for", "90s", "--reason", "a test", "--owner", "tests"];
    staunch.run_ok(&[&grant[..], &["--ports", "tcp/80,tcp/9090"]].concat());
    assert_eq!(resolve(agent, "api.granted.example"), [IpAddr::from(granted)]);
    assert_eq!(opened(granted), [true, false, true], "the grant's ports alone");

    let pins = staunch.json(&["session", "show", "agent-1"])["pins"].clone();
    let ports = |to: Ipv4Addr| {
        let pin = pins.as_array().expect("pins").iter().find(|pin| pin["address"] == to.to_string());
        pin.unwrap_or_else(|| panic!("no pin of {to}: {pins}"))["leases"][0]["ports"].clone()
    };
    assert_eq!(ports(WEB), serde_json::json!(["tcp/8080"]));
    assert_eq!(ports(granted), serde_json::json!(["tcp/80", "tcp/9090"]));
    let human = staunch.run_ok(&["session", "show", "agent-1"]);
    assert!(human.contains("tcp/9090") && human.contains("api.granted.example"), "{human}");
}

#[test]
fn another_phase_ends_what_it_does_not_allow_within_a_second_and_nothing_else() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    world.upstream.add_site("index.fetch.example", OTHER.into());
    let config = Config {
        sessions: format!(
            "[[session]]\nid = \"agent-1\"\naddresses = [\"{}\"]\ntype = \"batch\"\nphase = \"fetch\"\nowner = \"team-a\"\n",
            agent.address
        ),
        ..Config::enforce()
    }
    .rule("fetch", "allow", "\"=index.fetch.example\"", "profiles = [\"batch.fetch\"]\n")
    .rule("always", "allow", "\"=www.site.example\"", "")
    .tables("[profile.batch]\nunlisted = \"refuse\"\n");
    let staunch = Staunch::start(&world, &config);
    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    assert_eq!(resolve(agent, "index.fetch.example"), [IpAddr::from(OTHER)]);
    let (allowed, ended) = (Download::start(agent, WEB), Download::start(agent, OTHER));

    let address = agent.address.to_string();
    let announce = ["session", "announce", "agent-1", "--address", &address, "--type", "batch", "--owner", "team-a"];
    staunch.run_ok(&[&announce[..], &["--phase", "run"]].concat());
    ended.assert_ends(Instant::now(), "another phase");
    allowed.assert_runs();
    assert!(!dials(agent, OTHER, 80), "nor is it opened again");
    assert_eq!(resolve(agent, "index.fetch.example"), [] as [IpAddr; 0], "the new phase refuses the name");
    assert!(dials(agent, WEB, 80), "what both phases allow stays pinned");
    allowed.assert_runs();
}

#[test]
fn a_reload_ends_what_the_new_rules_do_not_allow_within_a_second_and_nothing_else() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    world.upstream.add_site("www.other.example", OTHER.into());
    let narrow = || {
        Config::enforce()
            .rule("site", "allow", "\"=www.site.example\"", "")
            .tables("[profile.interactive]\nunlisted = \"refuse\"\n")
    };
    let wide = narrow().rule("other", "allow", "\"=www.other.example\"", "");
    let staunch = Staunch::start(&world, &wide);
    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    assert_eq!(resolve(agent, "www.other.example"), [IpAddr::from(OTHER)]);
    let (allowed, ended) = (Download::start(agent, WEB), Download::start(agent, OTHER));

    staunch.reload(&world, &narrow());
    let applied =
        wait_for(Duration::from_secs(20), || resolve(agent, "www.other.example").is_empty().then(Instant::now));
    ended.assert_ends(applied.expect("the new rules come into force"), "a reload");
    allowed.assert_runs();
    assert!(!dials(agent, OTHER, 80) && dials(agent, WEB, 80));
}

#[test]
fn what_a_grant_has_opened_ends_with_it() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    world.upstream.add_site("www.other.example", OTHER.into());
    let config = Config::enforce()
        .rule("site", "allow", "\"=www.site.example\"", "")
        .tables("[profile.interactive]\nunlisted = \"refuse\"\n");
    let staunch = Staunch::start(&world, &config);
    assert_eq!(resolve(agent, "www.other.example"), [] as [IpAddr; 0], "the control: refused without the grant");
    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)]);
    let grant = ["allow", "=www.other.example", "--for", "3s", "--reason", "a test", "--owner", "tests"];
    staunch.run_ok(&grant);
    let ends = Instant::now() + Duration::from_secs(3);
    assert_eq!(resolve(agent, "www.other.example"), [IpAddr::from(OTHER)]);
    let (allowed, ended) = (Download::start(agent, WEB), Download::start(agent, OTHER));
    std::thread::sleep(ends.saturating_duration_since(Instant::now()));
    // Grants are looked at every second.
    ended.assert_ends(ends + CUT, "a grant that ended");
    allowed.assert_runs();
    assert!(!dials(agent, OTHER, 80));
}

#[test]
fn a_restart_keeps_what_the_same_rules_opened_and_other_rules_close_it() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let config = Config::enforce();
    let mut staunch = Staunch::start(&world, &config);
    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)]);
    let download = Download::start(agent, WEB);
    staunch.kill();
    download.assert_runs();
    assert!(dials(agent, WEB, 80), "a pin outlives the process that set it");
    assert!(!dials(agent, OTHER, 80), "and nothing else is open without the process");
    let took = staunch.restart(&world);
    println!("FIGURE: ready again {} ms after its start", took.as_millis());
    assert!(dials(agent, WEB, 80), "a restart has no gap\n{}", staunch.tail());
    download.assert_runs();

    staunch.kill();
    let narrow = Config::enforce().tables("[profile.interactive]\nunlisted = \"refuse\"\n");
    drop(staunch);
    let staunch = Staunch::start(&world, &narrow);
    download.assert_ends(Instant::now(), "a start with other rules");
    assert!(!dials(agent, WEB, 80), "{}", staunch.tail());
}

#[test]
fn what_has_come_since_a_restart_closes_nothing_that_was_open_before_it() {
    let Some(world) = World::create(2) else { return };
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    world.upstream.add_site("www.other.example", OTHER.into());
    let session = |agent: &Agent| {
        let n = agent.address.octets()[2];
        format!("[[session]]\nid = \"agent-{n}\"\naddresses = [\"{}\"]\ntype = \"batch\"\n", agent.address)
    };
    let config = Config { sessions: session(one) + &session(two), ..Config::enforce() }
        .rule("site", "allow", "\"=www.site.example\"", "")
        .tables("[profile.batch]\nunlisted = \"refuse\"\n");
    let grant = |staunch: &Staunch, name: &str, lasts: &str| {
        staunch.run_ok(&["allow", name, "--for", lasts, "--reason", "a test", "--owner", "tests"]);
    };
    let mut staunch = Staunch::start(&world, &config);
    grant(&staunch, "=www.older.example", "25s");
    assert_eq!(resolve(one, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    let download = Download::start(one, WEB);
    staunch.kill();
    staunch.restart(&world);
    staunch.run_ok(&["reload"]);
    download.assert_runs();
    assert!(dials(one, WEB, 80), "the same configuration once more\n{}", staunch.tail());
    grant(&staunch, "=www.other.example", "2s");
    assert_eq!(resolve(two, "www.other.example"), [IpAddr::from(OTHER)]);
    let granted = Download::start(two, OTHER);
    let ended = wait_for(Duration::from_secs(10), || (!dials(two, OTHER, 80)).then(Instant::now));
    granted.assert_ends(ended.expect("the grant ends"), "a grant of after the restart");
    download.assert_runs();
    assert!(dials(one, WEB, 80), "a grant of after the restart has ended\n{}", staunch.tail());
    // By which names leases of before were made nobody knows: it may have been by this one.
    let ended = wait_for(Duration::from_secs(40), || (!dials(one, WEB, 80)).then(Instant::now));
    download.assert_ends(ended.expect("the older grant ends"), "a grant of before the restart");
}

#[test]
fn a_bulk_upload_behind_one_clean_look_up_is_told_and_cut_and_a_rules_upload_is_not() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let (ruled, most) = (Ipv4Addr::new(203, 0, 113, 30), 4 << 20);
    world.upstream.add_site("files.ruled.example", ruled.into());
    world.upstream.add_site("drop.other.example", OTHER.into());
    let stolen = web::Drop::start(&world.net, 443, usize::MAX);
    let config = Config::enforce()
        .rule("ruled", "allow", "\"=files.ruled.example\"", "")
        .tables("[profile.interactive.volume]\nwarn_bytes = 65536\ncut_bytes = 1048576\n");
    let staunch = Staunch::start(&world, &config);
    let upload = |to: Ipv4Addr, most: usize| {
        let before = stolen.bytes().len();
        let sent = agent.ns.run(async move {
            let mut stream = tokio::net::TcpStream::connect(SocketAddr::from((to, 443))).await?;
            let block = [7; 16_384];
            for _ in 0..most.div_ceil(block.len()) {
                tokio::time::timeout(Duration::from_secs(3), stream.write_all(&block)).await??;
            }
            Ok::<_, std::io::Error>(())
        });
        // What is on its way arrives, or what is cut has had the time for it.
        let arrived = || stolen.bytes().len() - before;
        let all = most.div_ceil(16_384) * 16_384;
        wait_for(Duration::from_secs(if sent.is_ok() { 10 } else { 1 }), || (arrived() == all).then_some(()));
        (sent.is_ok(), arrived())
    };
    assert_eq!(resolve(agent, "files.ruled.example"), [IpAddr::from(ruled)], "{}", staunch.tail());
    assert_eq!(upload(ruled, most), (true, most), "the control: what a rule names has no limit");
    assert_eq!(resolve(agent, "drop.other.example"), [IpAddr::from(OTHER)]);
    assert_eq!(upload(OTHER, 98_304), (true, 98_304), "below the limit nothing is in the way");
    let marked = notice(&staunch, "volume-marked").expect("the mark is told");
    assert_eq!((marked["session"].as_str(), marked["address"].as_str()), (Some("agent-1"), Some("203.0.113.20")));
    let (whole, arrived) = upload(OTHER, most);
    println!("FIGURE: {arrived} octets of {most} arrived under a limit of 1048576");
    assert!(!whole && (1..=1_048_576 - 98_304).contains(&arrived), "{arrived} octets arrived");
    assert_eq!(resolve(agent, "drop.other.example"), [IpAddr::from(OTHER)]);
    assert_eq!(upload(OTHER, most).1, 0, "asking again buys no more");

    let spent = notice(&staunch, "volume-spent").expect("the limit is told");
    assert_eq!(
        (spent["limit"].as_u64(), &spent["names"]),
        (Some(1_048_576), &serde_json::json!(["drop.other.example"]))
    );
    let told: Vec<_> = staunch.events().into_iter().filter(|event| event.get("notice").is_some()).collect();
    assert_eq!(told.len(), 2, "each once, and none of what a rule names: {told:?}");
    let shown = staunch.json(&["session", "show", "agent-1"]);
    let pin = shown["pins"].as_array().expect("pins").iter().find(|pin| pin["address"] == "203.0.113.20");
    assert!(pin.is_some_and(|pin| pin["octets_out"].as_u64() >= Some(1_000_000)), "{shown}");
    let human = staunch.run_ok(&["observe", "--last", "1000"]);
    assert!(human.contains("volume-spent"), "people read of it too: {human}");
}

#[test]
fn a_bulk_upload_is_told_where_the_profile_has_no_limit() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let ruled = Ipv4Addr::new(203, 0, 113, 30);
    world.upstream.add_site("files.ruled.example", ruled.into());
    world.upstream.add_site("drop.other.example", OTHER.into());
    let stolen = web::Drop::start(&world.net, 443, usize::MAX);
    let config = Config::enforce().rule("ruled", "allow", "\"=files.ruled.example\"", "");
    let staunch = Staunch::start(&world, &config);
    for (n, (name, to)) in [("files.ruled.example", ruled), ("drop.other.example", OTHER)].into_iter().enumerate() {
        assert_eq!(resolve(agent, name), [IpAddr::from(to)], "{}", staunch.tail());
        let sent = agent.ns.run(async move {
            let mut stream = tokio::net::TcpStream::connect(SocketAddr::from((to, 443))).await?;
            for _ in 0..128 {
                tokio::time::timeout(Duration::from_secs(3), stream.write_all(&[7; 16_384])).await??;
            }
            Ok::<_, std::io::Error>(())
        });
        assert!(sent.is_ok(), "{sent:?}");
        let all = (n + 1) * (2 << 20);
        assert!(wait_for(Duration::from_secs(20), || (stolen.bytes().len() == all).then_some(())).is_some());
    }
    let marked = notice(&staunch, "volume-marked").expect("the mark of a profile without a cut_bytes is told");
    assert_eq!((marked["address"].as_str(), &marked["limit"]), (Some("203.0.113.20"), &Value::Null), "{marked}");
    let told = staunch.events().into_iter().filter(|event| event.get("notice").is_some()).count();
    assert_eq!(told, 1, "and none of what a rule names");
}

#[test]
fn written_ranges_open_without_a_name_for_their_sessions_and_drift_from_a_range_is_told_once() {
    let Some(world) = World::create(2) else { return };
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let session = |agent: &Agent, kind: &str| {
        let n = agent.address.octets()[2];
        format!("[[session]]\nid = \"agent-{n}\"\naddresses = [\"{}\"]\ntype = \"{kind}\"\n", agent.address)
    };
    let range = "[[range]]\nid = \"mirrors\"\nranges = [\"198.51.100.0/28\"]\nports = [\"tcp/80\"]\n\
                 profiles = [\"batch\"]\nowner = \"tests\"\nreason = \"known by address only\"\nreview_by = \"2099-01-01\"\n";
    let sessions = || session(one, "batch") + &session(two, "interactive");
    let base = || Config { sessions: sessions(), ..Config::enforce() };
    let rule = "ranges = [\"198.51.100.0/24\"]\n";
    let config = base().tables(range).rule("site", "allow", "\"=www.site.example\", \"=home.site.example\"", rule);
    let inside = Ipv4Addr::new(198, 51, 100, 5);
    world.upstream.add_site("home.site.example", Ipv4Addr::new(198, 51, 100, 99).into());
    let staunch = Staunch::start(&world, &config);
    assert!(dials(one, inside, 80), "a range needs no name\n{}", staunch.tail());
    assert!(!dials(two, inside, 80), "and is open for the sessions it is written for");
    assert!(!dials(one, Ipv4Addr::new(198, 51, 100, 16), 80), "up to its last address");
    let running = Download::start(one, inside);

    assert_eq!(resolve(one, "home.site.example").len(), 1);
    for _ in 0..3 {
        assert_eq!(resolve(one, "www.site.example"), [IpAddr::from(WEB)]);
        assert_eq!(resolve(two, "www.site.example"), [IpAddr::from(WEB)]);
    }
    let told = notice(&staunch, "drift").expect("the drift is told");
    assert_eq!((told["address"].as_str(), told["rule"]["id"].as_str()), (Some("203.0.113.10"), Some("site")));
    assert_eq!(staunch.events().iter().filter(|event| event["notice"] == "drift").count(), 1);

    staunch.reload(&world, &base());
    let closed = wait_for(Duration::from_secs(20), || (!dials(one, inside, 80)).then(Instant::now));
    running.assert_ends(closed.expect("a range that is gone is closed"), "a range that is gone");
}

#[test]
fn what_else_is_behind_an_address_is_told() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    for n in 0..5 {
        world.upstream.add_site(&format!("www.tenant{n}.example"), OTHER.into());
    }
    let staunch = Staunch::start(&world, &Config::enforce());
    for n in 0..5 {
        assert_eq!(resolve(agent, &format!("www.tenant{n}.example")), [IpAddr::from(OTHER)]);
    }
    let last = wait_for(Duration::from_secs(20), || {
        staunch.events().into_iter().find(|event| event["qname"] == "www.tenant4.example")
    });
    let last = last.expect("the event");
    assert_eq!((&last["pins"], &last["shared"]), (&serde_json::json!(["203.0.113.20"]), &serde_json::json!([4])));
    let shown = staunch.json(&["session", "show", "agent-1"]);
    let pin = &shown["pins"][0];
    assert_eq!(pin["other_names"].as_u64(), Some(0), "all five are this session's own: {pin}");
    let human = staunch.run_ok(&["session", "show", "agent-1"]);
    assert!(human.contains("www.tenant4.example"), "{human}");
}

#[test]
fn an_answer_that_cannot_be_pinned_is_servfail_with_a_reason_and_an_event() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    for n in 0..4u8 {
        world.upstream.add("many.site.example", 300, Data::A(Ipv4Addr::new(203, 0, 113, 100 + n)));
    }
    let mut config = Config::enforce();
    // Room for one address, not for four.
    config.enforce = "capacity = 2\n".into();
    let staunch = Staunch::start(&world, &config);
    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    let reply = agent.ask_edns("many.site.example", rtype::A).expect("a reply");
    assert_eq!((reply.rcode(), reply.answers.len()), (rcode::SERVFAIL, 0));
    assert_eq!(reply.errors().first().map(|(code, _)| *code), Some(14), "{:?}", reply.errors());
    let event = wait_for(Duration::from_secs(20), || {
        staunch.events().into_iter().find(|event| event["qname"] == "many.site.example")
    });
    let event = event.expect("the event");
    assert_eq!((event["reason"].as_str(), event["rcode"].as_u64()), (Some("not-pinned"), Some(2)), "{event}");
    for n in 0..4u8 {
        assert!(!dials(agent, Ipv4Addr::new(203, 0, 113, 100 + n), 80), "none of it is open");
    }
    assert!(dials(agent, WEB, 80), "what was pinned before stays");
    assert_eq!(resolve(agent, "www.site.example"), [IpAddr::from(WEB)]);
}
