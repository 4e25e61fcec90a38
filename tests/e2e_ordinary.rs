//! Ordinary work under the shipped profile: nothing of it may be refused, and every dial right after an answer connects.

mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use world::dns::{Data, Query, rcode, rtype};
use world::staunch::{Config, Staunch};
use world::{Agent, World, client};

/// Shapes of ordinary work: what it is, the names it asks, in order.
fn shapes() -> Vec<(&'static str, Vec<String>)> {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let page = [
        "www", "static", "img", "img1", "img2", "cdn", "cdn-eu", "assets", "fonts", "api", "login", "auth", "media",
        "video", "search", "suggest", "ads", "metrics", "events", "consent", "maps", "tiles-a", "tiles-b", "tiles-c",
        "chat", "shop",
    ];
    let third = [
        "tag.audience.example",
        "pixel.adhouse.example",
        "sync.adhouse.example",
        "cdn.jslib.example",
        "fonts.typeface.example",
        "player.videohost.example",
        "i.videohost.example",
        "widget.comments.example",
        "js.payments.example",
        "m.payments.example",
        "cdn.consent-tool.example",
        "browser.errors.example",
        "o42.ingest.errors.example",
        "connect.social.example",
    ];
    let page = page.iter().map(|h| format!("{h}.newspaper.example")).chain(own(&third)).collect();
    let buckets = [
        "acme-build-artifacts",
        "acme-prod-logs-2026",
        "datasets-public",
        "team-a.models",
        "my-company-backups-eu",
        "terraform-state-7f3a",
        "static-website-assets",
        "ml-training-data-v2",
    ];
    let buckets = buckets.iter().flat_map(|b| {
        // Public suffixes of the private section: each bucket is a tenant of its own.
        [format!("{b}.s3.eu-central-1.amazonaws.com"), format!("{b}.s3.dualstack.us-east-1.amazonaws.com")]
    });
    vec![
        ("python install", own(&["index.pyhost.example", "files.pyhost.example", "files.pyhost-mirror.example"])),
        ("node install", own(&["registry.nodehost.example", "tarballs.nodehost.example", "headers.nodehost.example"])),
        (
            "system packages",
            own(&[
                "deb.distro.example",
                "security.distro.example",
                "deb.debug.distro.example",
                "cdn-fastly.deb.distro.example",
            ]),
        ),
        (
            "git clone",
            own(&[
                "git.codehost.example",
                "codeload.codehost.example",
                "objects.codehost-content.example",
                "lfs.codehost.example",
                "avatars0.codehost-content.example",
            ]),
        ),
        ("a page with 40 hosts", page),
        ("buckets as host names", buckets.collect()),
    ]
}

#[test]
fn ordinary_work_meets_no_refusal() {
    let shapes = shapes();
    // One sandbox for each shape, and one that does all of them in one session.
    let Some(world) = World::create(shapes.len() as u8 + 1) else { return };
    for name in shapes.iter().flat_map(|(_, names)| names) {
        world.upstream.add_site(name, world::WEB.into());
        world.upstream.add_site(name, world::WEB6.into());
        world.upstream.add(name, 300, Data::Https(1, ".".into(), vec![(1, b"\x02h2".to_vec())]));
    }
    let staunch = Staunch::start(&world, &Config::enforce());
    let mut faults = Vec::new();
    let all = world.agents.last().expect("a sandbox");
    for ((what, names), agent) in shapes.iter().zip(&world.agents) {
        for agent in [agent, all] {
            let refused: Vec<_> = names.iter().filter_map(|name| triple(agent, name).err()).collect();
            println!("FIGURE: {what} from {}: {} names, {} refusals", agent.address, names.len(), refused.len());
            faults.extend(refused.into_iter().map(|fault| format!("{what}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let marked: Vec<_> = staunch.events().into_iter().filter(|e| e["would"] != "answer").collect();
    assert!(marked.is_empty(), "recorded as refusals: {marked:#?}");
}

/// A, AAAA and HTTPS for a name, as a browser asks; the answer must be whole.
fn triple(agent: &Agent, name: &str) -> Result<(), String> {
    for (qtype, least) in [(rtype::A, 1), (rtype::AAAA, 1), (rtype::HTTPS, 1)] {
        let reply = agent.ask_edns(name, qtype).map_err(|e| format!("{name} {qtype}: {e}"))?;
        if reply.rcode() != rcode::NOERROR || reply.answers.len() < least {
            return Err(format!("{name} {qtype}: rcode {}, {:?}", reply.rcode(), reply.errors()));
        }
    }
    Ok(())
}

#[test]
fn search_list_expansions_are_answered_here_and_not_counted() {
    let Some(world) = World::create(1) else { return };
    let search = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "eu-west-1.compute.internal"];
    let mut config = Config::enforce();
    let quoted: Vec<String> = search.iter().map(|s| format!("{s:?}")).collect();
    config.sessions = format!(
        "[[session]]\nid = \"pod\"\naddresses = [\"10.77.1.2\"]\ntype = \"batch\"\nsearch = [{}]\n",
        quoted.join(", ")
    );
    let staunch = Staunch::start(&world, &config);
    let agent = &world.agents[0];
    let mut expansions = 0;
    for i in 0..25 {
        let host = format!("svc{i}.site.example");
        world.upstream.add_site(&host, world::WEB.into());
        for suffix in search {
            for qtype in [rtype::A, rtype::AAAA] {
                let reply = agent.ask_edns(&format!("{host}.{suffix}"), qtype).expect("an answer");
                assert_eq!(reply.rcode(), rcode::NXDOMAIN, "{host}.{suffix}");
                assert_eq!(reply.case(), None, "an expansion is no refusal: {:?}", reply.errors());
                expansions += 1;
            }
        }
        let reply = agent.ask_edns(&host, rtype::A).expect("an answer");
        assert_eq!(reply.addresses(), [world::WEB], "{host}: {:?} {:#?}", reply.errors(), staunch.events().last());
    }
    let leaked: usize = search.iter().map(|s| world.upstream.seen_below(s).len()).sum();
    println!("FIGURE: {expansions} search-list expansions, {leaked} left, 25 names behind them answered");
    assert_eq!(leaked, 0);
    assert!(staunch.events().iter().all(|e| e["would"] == "answer"), "nothing recorded as a refusal");
}

#[test]
fn a_thousand_parallel_look_ups_each_connect_at_once() {
    const PAIRS: usize = 1000;
    let Some(world) = World::create(1) else { return };
    let names: Vec<String> = (0..PAIRS).map(|i| format!("h{i}.pool.example")).collect();
    for (i, name) in names.iter().enumerate() {
        let (third, last) = (i / 250 % 2, (i % 250 + 1) as u8);
        let address = if third == 0 { Ipv4Addr::new(198, 51, 100, last) } else { Ipv4Addr::new(203, 0, 113, last) };
        world.upstream.add_site(name, address.into());
    }
    let staunch = Staunch::start(&world, &Config::enforce().allow_exact("pool", &names));
    let agent = &world.agents[0];
    let never = agent.dial(Ipv4Addr::new(198, 51, 100, 251).into(), 80).0;
    assert!(never.is_err(), "the control dial without a look-up is refused");

    // The second wave is answered from the cache and pins all the same.
    for wave in ["cold", "warm"] {
        let server = SocketAddr::from((agent.gateway, 53));
        let names = names.clone();
        let start = Instant::now();
        let ends: Vec<Result<(Duration, Duration), String>> = agent.ns.run(async move {
            let go = Arc::new(tokio::sync::Barrier::new(names.len()));
            let pairs: Vec<_> = names.into_iter().map(|name| tokio::spawn(pair(server, name, go.clone()))).collect();
            let mut ends = Vec::new();
            for pair in pairs {
                ends.push(pair.await.unwrap_or_else(|e| Err(e.to_string())));
            }
            ends
        });
        let took = start.elapsed();
        let failed: Vec<&String> = ends.iter().filter_map(|e| e.as_ref().err()).collect();
        let mut asks: Vec<Duration> = ends.iter().flatten().map(|(ask, _)| *ask).collect();
        let mut dials: Vec<Duration> = ends.iter().flatten().map(|(_, dial)| *dial).collect();
        asks.sort();
        dials.sort();
        let p99 = |times: &[Duration]| times.get(times.len() * 99 / 100).map_or(0.0, |t| t.as_secs_f32() * 1000.0);
        println!(
            "FIGURE: {wave}: {} pairs in {:.2} s, {} failed; look-up p99 {:.1} ms, dial p99 {:.1} ms",
            ends.len(),
            took.as_secs_f32(),
            failed.len(),
            p99(&asks),
            p99(&dials)
        );
        assert!(failed.is_empty(), "{:?}\n{}", &failed[..failed.len().min(5)], staunch.tail());
    }
}

async fn pair(server: SocketAddr, name: String, go: Arc<tokio::sync::Barrier>) -> Result<(Duration, Duration), String> {
    go.wait().await;
    let start = Instant::now();
    let mut last = None;
    for attempt in 0u16..3 {
        let mut query = Query::new(&name, rtype::A).edns(1232);
        query.id ^= attempt << 3;
        match client::udp(None, server, &query.encode(), Duration::from_secs(5)).await {
            Ok(reply) => {
                last = Some(reply);
                break;
            }
            Err(e) if attempt == 2 => return Err(format!("{name}: look-up: {e}")),
            Err(_) => {}
        }
    }
    let asked = start.elapsed();
    let reply = last.ok_or("no reply")?;
    let address: IpAddr =
        *reply.addresses().first().ok_or_else(|| format!("{name}: rcode {}, {:?}", reply.rcode(), reply.errors()))?;
    let dial = tokio::net::TcpStream::connect(SocketAddr::new(address, 80));
    let limit = Duration::from_secs(10);
    match tokio::time::timeout(limit, dial).await {
        Ok(Ok(_)) => Ok((asked, start.elapsed() - asked)),
        Ok(Err(e)) => Err(format!("{name}: dial {address}: {e}")),
        Err(_) => Err(format!("{name}: dial {address}: no end")),
    }
}
