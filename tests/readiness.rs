//! Readiness in a real kernel: what a service does while the lockdown it needs does not stand.

mod world;

use std::time::{Duration, Instant};

use serde_json::Value;
use world::dns::{Message, Query, rcode, rtype};
use world::lockdown::{nft, ok};
use world::staunch::{Config, Staunch};
use world::{Agent, WEB, World, wait_for};

const NAME: &str = "www.site.example";
const BOUND: [&str; 4] = ["--interfaces", "ag1", "--bind", "ag1=10.77.1.2,fd77:1::2"];
/// A round is five seconds; a machine under load needs some more.
const ROUNDS: Duration = Duration::from_secs(25);

fn config(lockdown: &str) -> Config {
    let mut config = Config::enforce().allow_exact("site", [NAME]);
    config.enforce = lockdown.into();
    config
}

fn apply(world: &World, words: &[&str]) {
    let all: Vec<&str> = ["apply"].iter().chain(words).copied().collect();
    ok(&world.gw, &all);
}

fn readyz(world: &World) -> (u16, String) {
    let page = world.gw.blocking(|| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9153").ok()?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    });
    let page = page.unwrap_or_else(|| panic!("no page"));
    let code = page.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    (code, page.rsplit("\r\n").next().unwrap_or_default().trim().to_owned())
}

fn check(status: &Value, id: &str) -> (String, String) {
    let checks = status["readiness"]["checks"].as_array().cloned().unwrap_or_default();
    let found = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id} in {status}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("text"))
}

fn wait_ready(staunch: &Staunch, wanted: bool) -> Value {
    wait_for(ROUNDS, || {
        let status = staunch.json(&["status"]);
        (status["readiness"]["ready"] == wanted).then_some(status)
    })
    .unwrap_or_else(|| panic!("ready={wanted} did not come: {}\n{}", staunch.json(&["status"]), staunch.tail()))
}

/// Waits until a round has found that the lockdown fails for this.
#[track_caller]
fn says(staunch: &Staunch, why: &str) {
    let look = || check(&staunch.json(&["status"]), "lockdown");
    let told = wait_for(ROUNDS, || Some(look()).filter(|(_, text)| text.contains(why)));
    assert!(told.is_some_and(|(state, _)| state == "failed"), "{why}: {:?}", look());
}

/// SERVFAIL with EDE 14, no address, and nothing of it upstream.
#[track_caller]
fn withheld(world: &World, agent: &Agent) {
    let seen = world.upstream.seen().len();
    let reply = agent.ask_edns(NAME, rtype::A).expect("a reply, not silence");
    assert_eq!((reply.rcode(), reply.addresses()), (rcode::SERVFAIL, vec![]));
    assert!(reply.errors().iter().any(|(code, _)| *code == 14), "{:?}", reply.errors());
    assert_eq!(world.upstream.seen().len(), seen, "nothing leaves while nothing may be shown");
}

fn token(reply: &Message) -> Option<String> {
    reply.texts().into_iter().next()
}

#[test]
fn a_service_that_needs_its_lockdown_answers_no_address_without_it() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let staunch = Staunch::start_unready(&world, &config("lockdown = \"require\""));
    let status = wait_for(ROUNDS, || {
        let output = staunch.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        (status["readiness"]["checks"].as_array()?.len() == 5).then_some(status)
    });
    let status = status.expect("the service is up");
    assert_eq!(status["readiness"]["ready"], false, "{status}");
    let (state, text) = check(&status, "lockdown");
    assert!(state == "failed" && text.contains("is missing") && text.contains("staunch lockdown apply"), "{text}");
    for id in ["packet-filter", "ranges", "listeners", "records"] {
        assert_eq!(check(&status, id).0, "ok", "{status}");
    }
    assert!(
        !staunch.log().iter().any(|line| line.contains("ready") && !line.contains("not ready")),
        "{}",
        staunch.tail()
    );
    let (code, page) = readyz(&world);
    assert!(code == 503 && page.contains("lockdown"), "{code} {page}");
    withheld(&world, agent);
    assert!(agent.dial(WEB.into(), 80).0.is_err(), "and nothing is open");
    // What needs no address is answered all the same.
    assert_eq!(agent.ask_edns("localhost", rtype::A).expect("a reply").rcode(), rcode::NOERROR);

    // Other interfaces are not enough, nor is watching.
    apply(&world, &["--interfaces", "other0"]);
    says(&staunch, "does not cover ag1");
    apply(&world, &["--interfaces", "ag1", "--mode", "monitor"]);
    says(&staunch, "monitor mode");
    withheld(&world, agent);

    apply(&world, &BOUND);
    wait_ready(&staunch, true);
    assert!(staunch.log().iter().any(|line| line.contains("ready") && !line.contains("not ready")));
    assert_eq!(readyz(&world).0, 200);
    assert_eq!(agent.ask_edns(NAME, rtype::A).expect("an answer").addresses(), [WEB]);
    assert!(agent.dial(WEB.into(), 80).0.is_ok(), "the address is open");

    for (how, break_it) in [
        ("removed", "delete table inet staunch_lockdown"),
        ("a rule is added", "insert rule inet staunch_lockdown from_sandbox accept"),
    ] {
        let since = Instant::now();
        nft(&world.gw, break_it);
        let status = wait_ready(&staunch, false);
        println!("FIGURE: {how}: not ready after {:.1} s", since.elapsed().as_secs_f32());
        let (state, text) = check(&status, "lockdown");
        assert!(state == "failed" && (text.contains("missing") || text.contains("changed")), "{how}: {text}");
        assert_eq!(readyz(&world).0, 503, "{how}");
        withheld(&world, agent);
        let since = Instant::now();
        apply(&world, &BOUND);
        wait_ready(&staunch, true);
        println!("FIGURE: {how}: ready again after {:.1} s", since.elapsed().as_secs_f32());
        assert_eq!(agent.ask_edns(NAME, rtype::A).expect("an answer").addresses(), [WEB], "{how}");
    }
    let journal: String = std::fs::read_dir(&staunch.state)
        .expect("the state directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("journal-"))
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .collect();
    for word in ["is missing; run", "was changed since", "stands and covers every interface"] {
        assert!(journal.contains(word), "no alert says {word}");
    }
    assert!(staunch.log().iter().any(|line| line.contains("ready again")), "{}", staunch.tail());
}

#[test]
fn a_service_that_only_warns_is_ready_and_says_what_is_missing() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let staunch = Staunch::start(&world, &config("lockdown = \"warn\""));
    let status = staunch.json(&["status"]);
    assert_eq!(
        (&status["readiness"]["ready"], &status["readiness"]["whole"]),
        (&true.into(), &false.into()),
        "{status}"
    );
    assert_eq!(check(&status, "lockdown").0, "warned");
    assert!(staunch.log().iter().any(|line| line.contains("WARN") && line.contains("lockdown")), "{}", staunch.tail());
    assert_eq!(agent.ask_edns(NAME, rtype::A).expect("an answer").addresses(), [WEB]);
    let words = staunch.run_ok(&["status"]);
    assert!(words.contains("lockdown") && words.contains("warned") && words.contains("key"), "{words}");
    // A reload that needs it withholds at once, without a restart, and the other way round.
    staunch.reload(&world, &config("lockdown = \"require\""));
    wait_ready(&staunch, false);
    withheld(&world, agent);
    staunch.reload(&world, &config("lockdown = \"off\""));
    let status = wait_ready(&staunch, true);
    assert_eq!(check(&status, "lockdown").0, "not-checked");
    assert_eq!(agent.ask_edns(NAME, rtype::A).expect("an answer").addresses(), [WEB]);
}

#[test]
fn the_node_proves_itself_to_whoever_asks_and_to_nobody_it_tells_more() {
    let Some(world) = World::create(2) else { return };
    let mut staunch = Staunch::start(&world, &config(""));
    let nonce = "abcdefghijklmnopqrstuv23";
    let name = format!("{nonce}._staunch.resolver.arpa");
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let ask = |agent: &Agent| token(&agent.ask(&name, rtype::TXT).expect("a reply")).expect("a token");
    let said = ask(one);
    let kid = staunch.json(&["status"])["node"]["kid"].as_str().expect("a key").to_owned();
    assert!(said.starts_with("staunch=1 ") && said.contains(&kid), "{said}");
    assert_eq!(ask(two), said, "the same for every session");
    assert_eq!(token(&one.ask_tcp(Query::new(&name, rtype::TXT).encode()).expect("a reply")), Some(said.clone()));
    staunch.run_ok(&["session", "quarantine", "agent-1", "--reason", "a test"]);
    assert_eq!(ask(one), said, "in whatever state");
    let other = format!("z{}._staunch.resolver.arpa", &nonce[1..]);
    assert_ne!(token(&two.ask(&other, rtype::TXT).expect("a reply")), Some(said.clone()));
    for (name, qtype) in
        [(&*name, rtype::A), ("_staunch.resolver.arpa", rtype::TXT), ("a.b._staunch.resolver.arpa", rtype::TXT)]
    {
        let reply = two.ask(name, qtype).expect("a reply");
        assert!(reply.answers.is_empty(), "{name}: {reply:?}");
    }
    assert!(world.upstream.seen().is_empty(), "nothing of it leaves");
    assert!(!staunch.events().iter().any(|event| event.to_string().contains("_staunch")), "and it is no event");
    // The key outlives the process.
    staunch.kill();
    staunch.restart(&world);
    assert_eq!(ask(two), said);
}
