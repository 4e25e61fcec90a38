//! Upstreams that are silent, slow, lossy or wrong, one of two and both, through the daemon; and zones with upstreams of
//! their own. Each row of the fault table starts a daemon of its own, so that none knows the fault beforehand.

#[path = "faults_upstream/paced.rs"]
mod paced;
mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use world::capture::Capture;
use world::dns::{Data, Message, Query, rcode, rtype};
use world::staunch::{Config, Staunch};
use world::upstream::{Fault, Upstream};
use world::{Agent, Chance, OUTSIDE_INTERFACE, UPSTREAM, WEB, World, client, wait_for};

const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
const CORP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 55);
/// As in comparisons of resolvers under the same faults: fresh names, and how many at a time.
const NAMES: usize = 36;
const ABREAST: usize = 6;

/// What a question may pay for an upstream that fails, where another one is well.
const COST: Duration = Duration::from_millis(50);
/// When the second one is asked of whom the first one keeps waiting that is usually quick.
const HEDGE: Duration = Duration::from_millis(100);

/// What a question came to.
struct Asked {
    name: String,
    took: Duration,
    reply: Option<Message>,
}

impl Asked {
    fn is_answered(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.addresses() == [std::net::IpAddr::from(WEB)])
    }

    /// EDE code and text of a SERVFAIL.
    fn failure(&self) -> Option<(u16, String)> {
        let reply = self.reply.as_ref().filter(|reply| reply.rcode() == rcode::SERVFAIL)?;
        reply.errors().into_iter().next()
    }
}

/// Asks these names for an address, some at a time.
fn ask_all(agent: &Agent, names: impl IntoIterator<Item = String>, abreast: usize) -> Vec<Asked> {
    let (names, server) = (Vec::from_iter(names), SocketAddr::from((agent.gateway, 53)));
    agent.ns.run(async move {
        let seats = Arc::new(Semaphore::new(abreast));
        let mut tasks = JoinSet::new();
        for name in names {
            let seat = seats.clone().acquire_owned().await.expect("a seat");
            tasks.spawn(async move {
                let query = Query::new(&name, rtype::A).edns(1232).encode();
                let begun = Instant::now();
                let reply = client::udp(None, server, &query, Duration::from_secs(10)).await.ok();
                drop(seat);
                Asked { name, took: begun.elapsed(), reply }
            });
        }
        tasks.join_all().await
    })
}

fn fresh(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |i| format!("{prefix}{i}.fresh.example"))
}

/// The named share of times, in percent.
fn quantile(asked: &[Asked], percent: usize) -> Duration {
    let mut times: Vec<_> = asked.iter().map(|one| one.took).collect();
    times.sort();
    times[(times.len() * percent).div_ceil(100).clamp(1, times.len()) - 1]
}

/// What is counted where nobody answers: in time, and of one that is known to be down.
const TIMEOUTS: &str = "upstream_tries_failed_total{kind=\"timeout\"},upstream_all_down_total";
/// Where datagrams come that answer no question.
const MISMATCHES: &str = "upstream_mismatches_total";

/// The metrics page's value of a series; none is zero.
fn metric(world: &World, series: &str) -> f64 {
    let page = page(world);
    let named = |line: &&str| {
        let name = line.rsplit_once(' ').map(|(name, _)| name.trim_end_matches("{}"));
        name.and_then(|name| name.strip_prefix("staunch_")) == Some(series)
    };
    page.lines().find(named).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

fn page(world: &World) -> String {
    world.gw.run(async {
        let mut stream = tokio::net::TcpStream::connect("127.0.0.1:9153").await.expect("the metrics page");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("read");
        page
    })
}

/// A world with two upstreams that know the same names.
fn world() -> Option<(World, Upstream)> {
    let world = World::create(1)?;
    let second = Upstream::start(&world.net, SocketAddr::from((SECOND, 53)));
    for upstream in [&world.upstream, &second] {
        upstream.add_site("*.fresh.example", WEB.into());
    }
    Some((world, second))
}

fn two(mut config: Config) -> Config {
    config.upstream = format!("servers = [\"{UPSTREAM}\", \"{SECOND}\"]");
    config
}

#[test]
fn one_faulty_upstream_is_not_felt_and_two_are_told() {
    let Some((world, second)) = world() else { return };
    let slow = Duration::from_millis(1500);
    // Least answered with both faulty; all are answered where the second one is well.
    let rows = [
        ("none", None, NAMES, ""),
        ("silent", Some(Fault::Silent), 0, TIMEOUTS),
        ("slow 1.5 s", Some(Fault::Slow(slow)), NAMES / 2, ""),
        ("loss 30 %", Some(Fault::Loss(30)), NAMES * 3 / 4, ""),
        ("duplicates", Some(Fault::Duplicates), NAMES, ""),
        ("reordered", Some(Fault::Reorders), NAMES, ""),
        ("SERVFAIL", Some(Fault::Rcode(rcode::SERVFAIL)), 0, "upstream_tries_failed_total{kind=\"servfail\"}"),
        ("REFUSED", Some(Fault::Rcode(rcode::REFUSED)), 0, "upstream_tries_failed_total{kind=\"refused\"}"),
        ("wrong id", Some(Fault::WrongId), 0, MISMATCHES),
        ("wrong question", Some(Fault::WrongQuestion), 0, MISMATCHES),
        ("garbage", Some(Fault::Garbage), 0, MISMATCHES),
        ("always truncated", Some(Fault::AlwaysTruncated), 0, "upstream_tries_failed_total{kind=\"mangled\"}"),
        ("flap 1 Hz", Some(Fault::Flaps(Duration::from_secs(1))), NAMES / 4, ""),
    ];
    for (row, (what, fault, least, counted)) in rows.into_iter().enumerate() {
        for both in [false, true] {
            world.upstream.fails(None);
            second.fails(None);
            let staunch = Staunch::start(&world, &two(Config::monitor()));
            // What this machine takes right now, while nothing is wrong.
            let well = ask_all(&world.agents[0], fresh(&format!("w{row}{}n", u8::from(both)), 2 * NAMES), ABREAST);
            let (half, most) = (quantile(&well, 50), quantile(&well, 95));
            world.upstream.fails(fault);
            second.fails(fault.filter(|_| both));
            world.upstream.forget();
            second.forget();
            // Of one that fails, the first questions find it out: what it costs shows in what comes behind them, too.
            let count = if both { NAMES } else { 10 * NAMES };
            let asked = ask_all(&world.agents[0], fresh(&format!("r{row}{}n", u8::from(both)), count), ABREAST);
            let answered = asked.iter().filter(|one| one.is_answered()).count();
            let (p50, p95, worst) = (quantile(&asked, 50), quantile(&asked, 95), quantile(&asked, 100));
            println!(
                "FIGURE: upstream fault {what}, {}: {answered} of {count} answered, p50 {} ms, p95 {} ms, worst {} ms",
                if both { "both of two" } else { "first of two" },
                p50.as_millis(),
                p95.as_millis(),
                worst.as_millis(),
            );
            let least = if both { least } else { count };
            assert!(answered >= least, "{what}, both {both}: {answered}\n{}", staunch.tail());
            // A whole exchange takes 2.4 s at most; the rest is what a busy machine may add.
            assert!(worst < Duration::from_millis(3500), "{what}, both {both}: {worst:?}");
            for one in asked.iter().filter(|one| !one.is_answered()) {
                let (code, text) = one.failure().unwrap_or_else(|| panic!("{what}: {}: {:?}", one.name, one.reply));
                // Whoever responds was reached, and gives no reason here.
                let told: &[u16] = if matches!(fault, Some(Fault::Rcode(_))) { &[0] } else { &[22, 23] };
                assert!(told.contains(&code), "{what}: {code} {text}");
                assert!([UPSTREAM, SECOND].iter().all(|ip| text.contains(&ip.to_string())), "{what}: {text}");
            }
            // By its kind; a silence that another one's answer has ended is no failure.
            let kinds: f64 = counted.split(',').map(|series| metric(&world, series)).sum();
            assert!(counted.is_empty() || kinds > 0.0 || (!both && counted == TIMEOUTS), "{what}: {counted} {kinds}");
            if !both {
                // In short: what is paid in the long run, `paced` says. A second one is asked after 100 ms, or twice the usual time.
                assert!(
                    p50 <= 2 * half + COST && p95 <= 2 * most + HEDGE + 2 * COST,
                    "{what}: {p50:?} {p95:?}, of none {half:?} {most:?}"
                );
                let sent: Vec<String> =
                    world.upstream.seen().into_iter().chain(second.seen()).filter(|q| !q.tcp).map(|q| q.name).collect();
                for one in &asked {
                    let count = sent.iter().filter(|name| name.eq_ignore_ascii_case(&one.name)).count();
                    assert!((1..=2).contains(&count), "{what}: {} left {count} times", one.name);
                }
            }
        }
    }
}

/// For `STAUNCH_FLAP_SECONDS`, ten where nothing is said.
#[test]
fn one_that_flaps_costs_no_failure_and_two_queries_at_most() {
    let seconds = std::env::var("STAUNCH_FLAP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let Some((world, second)) = world() else { return };
    let staunch = Staunch::start(&world, &two(Config::monitor()));
    // What this machine takes right now, while nothing is wrong.
    let well = ask_all(&world.agents[0], fresh("w", 2 * NAMES), 2);
    world.upstream.fails(Some(Fault::Flaps(Duration::from_secs(1))));
    let (begun, mut asked) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(seconds) {
        asked.extend(ask_all(&world.agents[0], fresh(&format!("f{}n", asked.len()), 8), 2));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(asked.iter().all(Asked::is_answered), "{}", staunch.tail());
    println!(
        "FIGURE: first of two upstreams flaps at 1 Hz for {seconds} s: {0} of {0} answered, p50 {1} ms, p95 {2} ms, worst {3} ms",
        asked.len(),
        quantile(&asked, 50).as_millis(),
        quantile(&asked, 95).as_millis(),
        quantile(&asked, 100).as_millis(),
    );
    let sent: Vec<String> = world.upstream.seen().into_iter().chain(second.seen()).map(|q| q.name).collect();
    for one in &asked {
        let count = sent.iter().filter(|name| name.eq_ignore_ascii_case(&one.name)).count();
        assert!((1..=2).contains(&count), "{} left {count} times", one.name);
    }
    let [half, most] = [50, 95].map(|percent| (quantile(&asked, percent), quantile(&well, percent)));
    assert!(most.0 < HEDGE + COST + 2 * most.1, "{most:?}");
    assert!(half.0 < COST + 2 * half.1, "{half:?}");
}

/// Default times, enforce mode: random waits and decoys included.
#[test]
fn with_both_upstreams_dead_failures_are_told_in_time_and_then_at_once() {
    let Some((world, second)) = world() else { return };
    let both = [&world.upstream, &second];
    let agent = &world.agents[0];
    let config = Config::enforce().rule("fresh", "allow", "\"fresh.example\"", "");
    let staunch = Staunch::start(&world, &two(config));
    let warm = ask_all(agent, fresh("warm", 20), ABREAST);
    assert!(warm.iter().all(Asked::is_answered), "{}", staunch.tail());

    both.iter().for_each(|upstream| upstream.silent(true));
    // Names that look a little like data: what is asked first are siblings of them.
    let suspicious = (0..4).map(|i| format!("{}.unheard{i}.example", Chance(7 + i).label(12 + 3 * i as usize)));
    let first = ask_all(agent, fresh("dead", 6).chain(suspicious), 16);
    println!(
        "FIGURE: both upstreams fall silent: the first {} questions fail within {} ms",
        first.len(),
        quantile(&first, 100).as_millis()
    );
    for one in &first {
        let (code, text) = one.failure().unwrap_or_else(|| panic!("{}: {:?}\n{}", one.name, one.reply, staunch.tail()));
        assert!([22, 23].contains(&code), "{}: {code} {text}", one.name);
        assert!([UPSTREAM, SECOND].iter().all(|ip| text.contains(&ip.to_string())), "{}: {text}", one.name);
        // Promised are 2.5 s; the rest is what a busy machine may add.
        assert!(one.took < Duration::from_millis(3000), "{} took {:?}", one.name, one.took);
    }
    assert!(quantile(&first, 50) < Duration::from_millis(2500), "{:?}", quantile(&first, 50));
    let decoys = wait_for(Duration::from_secs(5), || {
        let decoys = staunch.events().iter().filter(|event| event["decoy"] == "failed").count();
        (decoys > 0).then_some(decoys)
    });
    assert!(decoys.is_some(), "a name for which siblings were asked is among them: {:#?}", staunch.events().last());

    // The questions gave up at about the time at which the second one is found down; from here on both are.
    let mut shut = 0;
    let closed = wait_for(Duration::from_secs(5), || {
        shut += 1;
        let [one] = &ask_all(agent, fresh(&format!("shut{shut}n"), 1), 1)[..] else { return None };
        (one.took < Duration::from_millis(20)).then_some(())
    });
    assert!(closed.is_some(), "the breaker opens");
    // For longer than any turn of the prober.
    both.iter().for_each(|upstream| upstream.forget());
    let (begun, mut open) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_millis(2500) {
        open.extend(ask_all(agent, fresh(&format!("open{}n", open.len()), 2), 1));
        std::thread::sleep(Duration::from_millis(15));
    }
    println!(
        "FIGURE: while both are known to be down: {} questions fail, p50 {:.1} ms, p95 {:.1} ms, worst {:.1} ms",
        open.len(),
        quantile(&open, 50).as_secs_f64() * 1e3,
        quantile(&open, 95).as_secs_f64() * 1e3,
        quantile(&open, 100).as_secs_f64() * 1e3,
    );
    for one in &open {
        let (code, text) = one.failure().unwrap_or_else(|| panic!("{}: {:?}", one.name, one.reply));
        assert_eq!(code, 22, "{text}");
        assert!([UPSTREAM, SECOND].iter().all(|ip| text.contains(&ip.to_string())), "{text}");
    }
    // What nobody was asked costs nothing: an outage closes no session.
    let events = staunch.events();
    let told: Vec<_> = events.iter().filter(|e| e["qname"].as_str().is_some_and(|n| n.starts_with("open"))).collect();
    assert!(told.len() > 10, "{} events", told.len());
    for event in told {
        assert_eq!((event["source"].as_str(), event["verdict"].as_str()), (Some("failed"), Some("answer")), "{event}");
        assert_eq!(event["charged_bits"].as_f64().unwrap_or(0.0), 0.0, "{event}");
    }
    assert!(quantile(&open, 95) < Duration::from_millis(100), "nobody waits for a probe");
    // Promised of each; a busy machine leaves it to most.
    assert!(quantile(&open, 50) < Duration::from_millis(10), "{:?}", quantile(&open, 50));
    let probes = both.map(|upstream| upstream.seen());
    for seen in &probes {
        assert!(seen.iter().all(|query| query.name.is_empty()), "only `. NS` left: {seen:?}");
        // Each second at least, whoever asks or does not.
        assert!((2..=10).contains(&seen.len()), "{} looks in 2.5 s whether it is back", seen.len());
    }

    // Again and again: how often it has stumbled holds up nobody where no other one is there.
    let mut back = Vec::new();
    for round in 0..3 {
        if round > 0 {
            second.silent(true);
            let closed = wait_for(Duration::from_secs(8), || {
                shut += 1;
                let [one] = &ask_all(agent, fresh(&format!("shut{shut}n"), 1), 1)[..] else { return None };
                (!one.is_answered() && one.took < Duration::from_millis(50)).then_some(())
            });
            assert!(closed.is_some(), "the breaker opens again: {}", staunch.tail());
        }
        second.silent(false);
        let healed = Instant::now();
        let mut tries = 0;
        while !ask_all(agent, fresh(&format!("back{round}x{tries}n"), 1), 1)[0].is_answered() {
            tries += 1;
            assert!(healed.elapsed() < Duration::from_secs(3), "not back: {}", staunch.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
        back.push(healed.elapsed());
    }
    println!("FIGURE: an upstream is back: in use after {back:.0?}");
    back.sort();
    assert!(back[1] < Duration::from_secs(1), "{back:?}");
    // The other one is still dead: nothing is felt of that.
    let one_dead = ask_all(agent, fresh("one", NAMES), ABREAST);
    assert!(one_dead.iter().all(Asked::is_answered));
    let (half, usual) = (quantile(&one_dead, 50), quantile(&warm, 50));
    assert!(half < COST + 2 * usual, "{half:?}, {usual:?} while both were well");
    println!("FIGURE: first of two upstreams known to be down: p95 {} ms", quantile(&one_dead, 95).as_millis());
    let page = page(&world);
    let wanted =
        ["upstreams{standing=\"down\"} 1", "upstream_breakers_opened_total{} 4.0", "upstream_put_behind_total{} 0.0"];
    for wanted in wanted {
        assert!(page.contains(wanted), "{wanted} in\n{page}");
    }
}

/// Without signatures nothing tells a lie from the truth, so whoever is asked is believed; but nobody is asked before an answer
/// ends, and the second one only where the first is silent or late.
#[test]
fn a_second_upstream_that_denies_every_name_is_not_believed_against_an_answer_at_hand() {
    let Some((world, second)) = world() else { return };
    let agent = &world.agents[0];
    for upstream in [&world.upstream, &second] {
        upstream.add("www.long.example", 300, Data::A(WEB));
        upstream.add("www.short.example", 4, Data::A(WEB));
    }
    let staunch = Staunch::start(&world, &two(Config::monitor()).tables("[answer]\nfloor_seconds = 0\n"));
    let one = |name: &str| ask_all(agent, [name.to_owned()], 1).remove(0);
    let is_denied = |one: &Asked| one.reply.as_ref().is_some_and(|reply| reply.rcode() == rcode::NXDOMAIN);
    second.fails(Some(Fault::Rcode(rcode::NXDOMAIN)));

    // The first one is well: the lie is never heard.
    let asked = ask_all(agent, fresh("well", NAMES), ABREAST);
    assert!(asked.iter().all(Asked::is_answered), "{}", staunch.tail());
    assert!(one("www.long.example").is_answered() && one("www.short.example").is_answered());
    let begun = Instant::now();

    for (what, fault) in [("late", Fault::Slow(Duration::from_millis(700))), ("silent", Fault::Silent)] {
        world.upstream.fails(Some(fault));
        world.upstream.forget();
        second.forget();
        // Names at hand, before anybody has been asked anything else, and behind that.
        let held: Vec<_> = (0..10).map(|_| one("www.long.example")).collect();
        let unheard = ask_all(agent, fresh(what, 6), 2);
        let still = one("www.long.example");
        assert!(held.iter().chain([&still]).all(Asked::is_answered), "{what}: {}", staunch.tail());
        // What nobody has vouched for is as the second one says.
        let denied = unheard.iter().filter(|one| is_denied(one)).count();
        assert!(denied > 0, "{what}: the second one was asked");
        assert!(unheard.iter().all(|one| is_denied(one) || one.is_answered()), "{what}: nothing else is said");
        println!(
            "FIGURE: first upstream {what}, second denies all: names at hand 11 of 11 right, {denied} of 6 others denied"
        );
        let left = world.upstream.seen().into_iter().chain(second.seen()).any(|seen| seen.name == "www.long.example");
        assert!(!left, "{what}: nobody is asked before its time is over");
    }
    // An answer that has ended is none any more.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(begun.elapsed()));
    assert!(is_denied(&one("www.short.example")), "{}", staunch.tail());
    assert!(one("www.long.example").is_answered());

    // Back is the first one, and with it the truth.
    world.upstream.fails(None);
    let mut tries = 0;
    let back = wait_for(Duration::from_secs(10), || {
        tries += 1;
        one(&format!("back{tries}.fresh.example")).is_answered().then_some(())
    });
    assert!(back.is_some(), "{}", staunch.tail());
}

#[test]
fn a_zones_names_reach_its_upstream_and_no_other() {
    let Some((world, _second)) = world() else { return };
    let agent = &world.agents[0];
    let corp = Upstream::start(&world.net, SocketAddr::from((CORP, 53)));
    let (wiki, hidden) = (Ipv4Addr::new(10, 20, 3, 4), Ipv4Addr::new(10, 20, 3, 5));
    corp.add_site("wiki.corp.internal", wiki.into());
    corp.add_site("hidden.corp.internal", hidden.into());
    corp.add_site("*.lab.corp.internal", WEB.into());
    corp.add_site("4.3.20.10.in-addr.arpa", WEB.into());
    // Were they asked, the others would have an answer.
    world.upstream.add_site("*.corp.internal", WEB.into());
    let own = |zone: &str| {
        format!(
            "[[forward]]\nzone = \"{zone}\"\nservers = [\"{CORP}\"]\nowner = \"tests\"\nreason = \"a test needs it\"\n\
             review_by = \"2099-01-01\"\n"
        )
    };
    let config = two(Config::enforce())
        .tables(&own("corp.internal"))
        .tables(&own("20.10.in-addr.arpa"))
        .tables(
            "[[answer.allow_range]]\nname = \"wiki.corp.internal\"\nranges = [\"10.20.0.0/16\"]\nowner = \"tests\"\n\
             reason = \"a test needs it\"\nreview_by = \"2099-01-01\"\n",
        )
        .rule("names", "allow", "\"corp.internal\", \"fresh.example\", \"20.10.in-addr.arpa\"", "");
    let staunch = Staunch::start(&world, &config);
    let capture = Capture::start(&world.gw, OUTSIDE_INTERFACE);
    let ask = |name: &str| agent.ask_edns(name, rtype::A).expect("an answer");

    assert_eq!(ask("wiki.corp.internal").addresses(), [std::net::IpAddr::from(wiki)], "{}", staunch.tail());
    assert_eq!(ask("a.b.lab.corp.internal").addresses(), [std::net::IpAddr::from(WEB)]);
    assert_eq!(ask("4.3.20.10.in-addr.arpa").addresses(), [std::net::IpAddr::from(WEB)]);
    assert!(ask("hidden.corp.internal").addresses().is_empty(), "an inner address needs leave");
    assert_eq!(ask("absent.corp.internal").rcode(), rcode::NXDOMAIN, "its word, not the others'");
    assert_eq!(ask("other.internal").rcode(), rcode::NXDOMAIN, "all else below `internal` stays here");
    assert!(ask_all(agent, fresh("general", 20), ABREAST).iter().all(Asked::is_answered));

    // Dead: failures, and still nobody else is told.
    corp.silent(true);
    let failed = ask_all(agent, (0..6).map(|i| format!("dead{i}.lab.corp.internal")), ABREAST);
    for one in &failed {
        let (code, text) = one.failure().unwrap_or_else(|| panic!("{}: {:?}", one.name, one.reply));
        assert_eq!(code, 22, "{text}");
        assert!(text.contains(&CORP.to_string()) && !text.contains(&UPSTREAM.to_string()), "{text}");
    }
    std::thread::sleep(Duration::from_millis(500));
    let down = ask_all(agent, ["down.lab.corp.internal".to_owned()], 1);
    assert!(down[0].failure().is_some() && down[0].took < Duration::from_millis(1000), "{:?}", down[0].took);
    assert!(ask_all(agent, fresh("after", 20), ABREAST).iter().all(Asked::is_answered));

    let packets = capture.ip_packets();
    let to = |packet: &[u8], address: Ipv4Addr| packet.windows(4).any(|w| w == address.octets());
    let speaks = |packet: &[u8], name: &[u8]| packet.windows(name.len()).any(|w| w.eq_ignore_ascii_case(name));
    let inside = packets.iter().filter(|p| to(p, UPSTREAM) || to(p, SECOND));
    let inside = inside.filter(|p| speaks(p, b"\x08internal") || speaks(p, b"\x0220\x0210\x07in-addr"));
    assert_eq!(inside.count(), 0, "packets with a zone's name to or from the general upstreams");
    let outside = packets.iter().filter(|p| to(p, CORP) && speaks(p, b"\x05fresh\x07example"));
    assert_eq!(outside.count(), 0, "packets with another name to or from the zone's upstream");
    let seen = corp.seen_below("corp.internal").len();
    assert!(seen >= 4 + failed.len(), "{seen} questions reached the zone's upstream");
}
