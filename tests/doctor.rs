//! The doctor in a real kernel: with service and lockdown every way is closed; each hole is found, and named.

#[path = "doctor/places.rs"]
mod places;
#[path = "doctor/scene.rs"]
mod scene;
mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use scene::*;
use serde_json::Value;
use world::dns::rtype;
use world::lockdown::{nft, ok, stand_in};
use world::staunch::{Config, Staunch, binary};
use world::upstream::Upstream;
use world::{World, echo, wait_for};

const NAME: &str = "www.site.example";
/// A name of the other sandbox alone, elsewhere.
const THEIRS: &str = "other.site.example";
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const BOUND: [&str; 6] =
    ["--interfaces", "ag1,ag2", "--bind", "ag1=10.77.1.2,fd77:1::2", "--bind", "ag2=10.77.2.2,fd77:2::2"];
/// A service of the host that no sandbox should reach.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1)), 8080);
/// Where the canaries answer: not where the world's own resolver is.
const CANARY: [&str; 2] = ["203.0.113.200", "2001:db8:1::200"];

#[test]
fn behind_service_and_lockdown_every_way_is_closed_and_the_receipt_says_so() {
    let Some(scene) = Scene::whole() else { return };
    scene.their_pin();
    echo::start(&scene.world.gw, SERVICE);
    let file = scene.world.path("receipt.jws");
    let receipt = file.to_str().expect("UTF-8");
    let (found, code) =
        scene.json(&["--name", NAME, "--port", "80", "--stale", "30s", "--strict", "--receipt", receipt]);
    for outcome in ["open", "inconclusive", "not-tried"] {
        assert_eq!(with(&found, outcome), [], "{outcome}");
    }
    assert_eq!((code, &found["schema"], &found["report"]["schema"]), (0, &1.into(), &1.into()));
    assert_eq!(found["report"]["interfaces"], serde_json::json!(["ag1"]));
    let closed = ids(&found, "closed");
    println!("FIGURE: {} probes, {} kinds closed", rows(&found).len(), closed.len());
    for probe in [
        "foreign-dns-udp4",
        "foreign-dns-tcp6",
        "dot-tcp4",
        "doq-udp6",
        "doh-tcp4",
        "mdns-udp4",
        "mdns-udp6",
        "llmnr-udp4",
        "raw-udp-raw4",
        "fragments-raw6",
        "icmp-payload-raw4",
        "spoofed-neighbour-raw4",
        "spoofed-neighbour-raw6",
        "spoofed-question-raw4",
        "embedded-resolver-udp4",
        "resolv-conf-udp4",
        "rewritten-resolv-conf-tcp4",
        "link-local-dns-udp6",
        "other-session-pin-tcp4",
        "other-port-tcp4",
        "neighbour-at-pin-raw4",
        "stale-pin-tcp4",
        "stale-pin-tcp6",
        "host-tcp4",
        "metadata-tcp4",
    ] {
        assert!(closed.iter().any(|id| id == probe), "{probe} is not among {closed:?}");
    }
    for (probe, _, why) in rows(&found) {
        assert!(!why.ends_with("; "), "{probe} has no control: {why}");
    }
    // What listens on the host is tried itself: a service is refused, and our own resolver says who it is.
    let host: Vec<_> = rows(&found).into_iter().filter(|(probe, ..)| probe == "host-tcp4").collect();
    let of = |at: &str| {
        host.iter().find(|(.., why)| why.starts_with(at)).map(|(_, outcome, why)| format!("{outcome} {why}"))
    };
    let (service, ours) = (of(&format!("{SERVICE}:")), of("10.77.1.1:53:"));
    assert!(service.as_ref().is_some_and(|said| said.contains("closed") && said.contains("refused")), "{host:?}");
    assert!(ours.as_ref().is_some_and(|said| said.contains("led to this node")), "{host:?}");
    // The receipt is checked by the public key alone, by file or by what status shows.
    let key = scene.staunch.json(&["status"])["node"]["public_key"].as_str().expect("a key").to_owned();
    let file_key = scene.staunch.state.join("node.pub");
    for key in [&*key, file_key.to_str().expect("UTF-8")] {
        let (said, code) = verify(&scene, receipt, key);
        assert_eq!((code, &said["valid"]), (0, &true.into()), "{said}");
        assert_eq!(said["receipt"]["report"], found["report"]);
        assert_eq!(said["receipt"]["policy"], scene.staunch.json(&["status"])["digest"]);
        assert_eq!((&said["receipt"]["mode"], &said["receipt"]["schema"]), (&"enforce".into(), &1.into()));
        assert!(said["receipt"]["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{said}");
    }
    let text = std::fs::read_to_string(&file).expect("the receipt");
    std::fs::write(&file, text.replacen('A', "B", 1)).expect("written");
    let (said, code) = verify(&scene, receipt, &key);
    assert!(code == 1 && said["error"].is_string(), "{said}");
}

fn verify(scene: &Scene, receipt: &str, key: &str) -> (Value, i32) {
    read(scene.staunch.run(&["doctor", "--verify", receipt, "--key", key, "--json"]))
}

#[test]
fn without_a_lockdown_every_probe_gets_out_and_is_found() {
    let mut config = Config::monitor();
    config.backend = "dry-run";
    let Some(scene) = Scene::create(config) else { return };
    scene.their_pin();
    echo::start(&scene.world.gw, SERVICE);
    // Whatever a host has for its habit, both families are listened to.
    scene.world.gw.sysctl("net/ipv6/bindv6only", "1");
    let (found, code) = scene.json(&["--name", NAME, "--port", "80", "--stale", "30s"]);
    assert_eq!(code, 12, "{found}");
    let service = with(&found, "open").into_iter().find(|(_, why)| why.starts_with(&format!("{SERVICE}:")));
    assert!(service.is_some_and(|(probe, why)| probe == "host-tcp4" && why.contains("took it")), "{found}");
    // The same code that finds these closed elsewhere.
    let mut missing = Vec::new();
    for way in [
        "foreign-dns-udp",
        "foreign-dns-tcp",
        "dot-udp",
        "dot-tcp",
        "doq-udp",
        "https-udp",
        "https-tcp",
        "http3-udp",
        "any-port-udp",
        "any-port-tcp",
        "mdns-unicast-udp",
        "mdns-unicast-tcp",
        "llmnr-unicast-udp",
        "llmnr-unicast-tcp",
        "netbios-udp",
        "netbios-tcp",
        "icmp-payload-raw",
        "raw-udp-raw",
        "raw-syn-raw",
        "fragments-raw",
        "options-raw",
        "gre-raw",
        "sctp-raw",
        "ip-in-ip-raw",
        "ip-protocol-raw",
        "spoofed-stranger-raw",
        "spoofed-neighbour-raw",
        "spoofed-neighbour-syn-raw",
        "spoofed-question-raw",
        "rewritten-resolv-conf-udp",
        "rewritten-resolv-conf-tcp",
        "doh-udp",
        "doh-tcp",
        "listed-dot-udp",
        "listed-dot-tcp",
        "metadata-tcp",
        "neighbour-udp",
        "neighbour-tcp",
        "mdns-udp",
        "llmnr-udp",
        "host-udp",
        "host-tcp",
        "other-port-tcp",
        "neighbour-at-pin-raw",
        "stale-pin-tcp",
    ] {
        let open = ids(&found, "open");
        missing.extend(["4", "6"].map(|family| format!("{way}{family}")).into_iter().filter(|id| !open.contains(id)));
    }
    for id in ["teredo-raw4", "link-local-host-udp6", "link-local-host-tcp6", "other-session-pin-tcp4"] {
        missing.extend((!ids(&found, "open").iter().any(|open| open == id)).then(|| id.to_owned()));
    }
    let known = |id: &String| missing.iter().any(|missing| missing.starts_with(id.as_str()));
    let why: Vec<_> = rows(&found).into_iter().filter(|(id, ..)| known(id)).collect();
    assert!(missing.is_empty(), "not found open: {missing:?}\n{why:#?}");
}

#[test]
fn one_hole_is_found_and_that_very_probe_is_named() {
    let Some(scene) = Scene::held_by("ip daddr 192.0.2.99") else { return };
    let gw = &scene.world.gw;
    let table = "inet staunch_lockdown";
    let (found, code) = scene.json(&[]);
    assert_eq!((with(&found, "open"), with(&found, "inconclusive"), code), (vec![], vec![], 0), "no hole, none found");
    // Holes of one round open different probes.
    nft(gw, &format!("insert rule {table} from_sandbox tcp dport 853 accept"));
    nft(gw, &format!("insert rule {table} from_sandbox icmp type echo-request accept"));
    nft(gw, &format!("insert rule {table} sandbox_to_host udp dport 5353 accept"));
    let (found, code) = scene.json(&[]);
    let open =
        ["dot-tcp4", "dot-tcp6", "listed-dot-tcp4", "listed-dot-tcp6", "icmp-payload-raw4", "mdns-udp4", "mdns-udp6"];
    only_open(&found, code, &open);
    apply(&scene.world);

    nft(gw, &format!("insert rule {table} from_sandbox ip6 nexthdr udp udp dport 853 accept"));
    nft(gw, &format!("insert rule {table} from_sandbox meta l4proto gre accept"));
    nft(gw, &format!("insert rule {table} sources_1 ip saddr 10.77.2.2 accept"));
    nft(gw, &format!("insert rule {table} sandbox_to_host ip6 daddr fe80::/10 udp dport 1024-65535 accept"));
    let (found, code) = scene.json(&[]);
    let open = [
        "dot-udp6",
        "doq-udp6",
        "listed-dot-udp6",
        "gre-raw4",
        "gre-raw6",
        "spoofed-neighbour-raw4",
        "spoofed-question-raw4",
        "link-local-host-udp6",
    ];
    only_open(&found, code, &open);
    apply(&scene.world);

    // A question to one address is led to a resolver that is not ours, one of the sandbox's own stands in another's place.
    let theirs = Upstream::start(gw, (scene.world.agents[0].gateway, 5399).into());
    let within = Upstream::start(&scene.world.agents[0].ns, (Ipv4Addr::new(127, 0, 0, 11), 53).into());
    nft(gw, &format!("insert rule {table} sandbox_to_host meta l4proto {{ tcp, udp }} th dport 5399 accept"));
    let to = CANARY[0];
    nft(
        gw,
        &format!("insert rule {table} lead ip daddr {to} meta l4proto {{ tcp, udp }} th dport 53 redirect to :5399"),
    );
    // And a pin of another session is open to all.
    stand_in(gw, &format!("ip daddr {ELSEWHERE} tcp dport 80"));
    scene.their_pin();
    let (found, code) = scene.json(&[]);
    let open = [
        "foreign-dns-udp4",
        "foreign-dns-tcp4",
        "embedded-resolver-udp4",
        "embedded-resolver-tcp4",
        "other-session-pin-tcp4",
        // As the service that it is.
        "host-tcp4",
    ];
    only_open(&found, code, &open);
    assert!(
        with(&found, "open").iter().any(|(_, why)| why.contains("not by this node")),
        "{:#?}",
        with(&found, "open")
    );
    drop((theirs, within));
}

#[test]
fn a_resolver_on_another_host_is_no_way_out_and_a_forged_question_to_it_is_one() {
    // What the service of this host would permit is no subject here.
    let Some(scene) = Scene::held_by("ip daddr 192.0.2.99") else { return };
    let world = &scene.world;
    let node = Elsewhere::start(world);
    let lead: Vec<&str> = ELSEWHERE_NODE.iter().flat_map(|at| ["--resolver", at]).collect();
    let apply = |world: &World| {
        let words: Vec<&str> = ["apply"].iter().chain(&BOUND).chain(&lead).copied().collect();
        ok(&world.gw, &words);
    };
    apply(world);
    // Asked as a sandbox asks that knows nothing of it, or by its own address.
    let other = ["--neighbour", "10.77.2.2", "--neighbour", "fd77:2::2"];
    let doctor = |words: &[&str]| {
        let words: Vec<&str> = other.iter().chain(words).copied().collect();
        scene.doctor_of(&node.state.join("admin.sock"), &words)
    };
    for words in [&[][..], &lead] {
        let (found, code) = doctor(words);
        assert_eq!((with(&found, "open"), with(&found, "inconclusive"), code), (vec![], vec![], 0), "{words:?}");
        let closed = with(&found, "closed");
        let led = |id: &str| closed.iter().any(|(probe, why)| probe == id && why.contains("led to this node"));
        for id in ["foreign-dns-udp4", "foreign-dns-tcp4", "foreign-dns-udp6", "foreign-dns-tcp6"] {
            assert!(led(id), "{words:?}: {id} is not among {closed:#?}");
        }
    }
    // In another's name it must not come there, though it is our own resolver.
    nft(&world.gw, "insert rule inet staunch_lockdown sources_1 ip saddr 10.77.2.2 accept");
    let (found, code) = doctor(&[]);
    only_open(&found, code, &["spoofed-question-raw4", "spoofed-neighbour-raw4"]);
    apply(world);
    // And past it nothing goes: a resolver beside it that is another's.
    let theirs = Upstream::start(&world.net, (Ipv4Addr::new(203, 0, 113, 55), 53).into());
    let around = "ip daddr 203.0.113.200 meta l4proto { tcp, udp } th dport 53 dnat ip to 203.0.113.55:53";
    nft(&world.gw, &format!("insert rule inet staunch_lockdown lead {around}"));
    let pass = "ip daddr 203.0.113.55 meta l4proto { tcp, udp } th dport 53 accept";
    nft(&world.gw, &format!("insert rule inet staunch_lockdown from_sandbox {pass}"));
    let (found, code) = doctor(&[]);
    only_open(&found, code, &["foreign-dns-tcp4", "foreign-dns-udp4"]);
    drop(theirs);
}

/// Where a node answers that is none of the gateway's.
const ELSEWHERE_NODE: [&str; 2] = ["203.0.113.54:53", "[2001:db8:1::54]:53"];

/// Another node, outside.
struct Elsewhere {
    child: Child,
    state: std::path::PathBuf,
}

impl Elsewhere {
    fn start(world: &World) -> Self {
        let state = world.path("elsewhere");
        std::fs::create_dir_all(&state).expect("the state directory");
        let config = world.path("elsewhere.toml");
        let text = format!(
            "version = 1\n[server]\nlisten = {ELSEWHERE_NODE:?}\nstate_dir = {state:?}\n[policy]\nmode = \"monitor\"\n\
             [upstream]\nservers = [\"203.0.113.53\"]\n[enforce]\nbackend = \"off\"\n"
        );
        std::fs::write(&config, text).expect("the configuration written");
        let mut serve = world.net.command(binary());
        serve.args(["serve", "--config"]).arg(&config).arg("--state-dir").arg(&state);
        let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let this = Self { child, state };
        let socket = this.state.join("admin.sock");
        let up = wait_for(Duration::from_secs(30), || {
            let status = std::process::Command::new(binary()).args(["status", "--socket"]).arg(&socket).output();
            status.is_ok_and(|output| output.status.success()).then_some(())
        });
        assert!(up.is_some(), "the other node answers");
        this
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_broken_probe_is_never_a_closed_way() {
    let Some(mut scene) = Scene::whole() else { return };
    let agent = &scene.world.agents[0].ns;
    // The sandbox's own filter takes what should be tried.
    nft(agent, "table inet own { chain out { type filter hook output priority 0; udp dport 853 drop; }; }");
    let (found, code) = scene.json(&[]);
    assert_eq!(with(&found, "open"), []);
    let unsure = ids(&found, "inconclusive");
    assert_eq!(unsure, ["doq-udp4", "doq-udp6", "dot-udp4", "dot-udp6", "listed-dot-udp4", "listed-dot-udp6"]);
    assert_eq!(code, 13);
    nft(agent, "delete table inet own");
    // This host cannot listen to the groups, or does not hear itself over IPv6: who takes such a probe nobody sees.
    let gw = &scene.world.gw;
    gw.sysctl("net/ipv4/igmp_max_memberships", "0");
    let (found, code) = scene.json(&[]);
    assert_eq!((ids(&found, "inconclusive"), code), (vec!["llmnr-udp4".into(), "mdns-udp4".into()], 13), "{found}");
    assert!(with(&found, "inconclusive").iter().all(|(_, why)| why.contains("cannot be listened to")), "{found}");
    gw.sysctl("net/ipv4/igmp_max_memberships", "20");
    nft(
        gw,
        "table inet own { chain c { type filter hook input priority 0; iifname lo meta nfproto ipv6 meta l4proto udp drop; }; }",
    );
    let (found, code) = scene.json(&[]);
    let unsure = ["host-tcp6", "host-udp6", "link-local-host-tcp6", "link-local-host-udp6", "llmnr-udp6", "mdns-udp6"];
    assert_eq!((ids(&found, "inconclusive"), code), (unsure.map(String::from).to_vec(), 13), "{found}");
    nft(gw, "delete table inet own");
    // An interface of the sandbox that leads past this host.
    agent.link("side0", &scene.world.net, "side0");
    agent.ip(&["addr add 10.99.0.2/24 dev side0"]);
    let (found, code) = scene.json(&[]);
    let unsure = with(&found, "inconclusive");
    assert!(
        code == 13 && unsure.len() == 1 && unsure[0].0 == "interface" && unsure[0].1.contains("side0"),
        "{unsure:?}"
    );
    agent.ip(&["link del side0"]);
    // The canary is gone: what it should answer proves nothing.
    let _ = scene.canary.kill();
    let _ = scene.canary.wait();
    let (found, code) = scene.json(&[]);
    let unsure = ids(&found, "inconclusive");
    assert!(
        code == 13 && unsure.contains(&"dot-tcp4".into()) && unsure.contains(&"any-port-udp6".into()),
        "{unsure:?}"
    );
    assert!(!unsure.iter().any(|id| id.starts_with("doh")), "no canary is asked for these: {unsure:?}");
    // The name is not answered with an address.
    let (found, _) = scene.json(&["--name", "nothing.site.example"]);
    let unsure = ids(&found, "inconclusive");
    assert!(["other-port", "stale-pin"].iter().all(|id| unsure.iter().any(|u| u == id)), "{unsure:?}");
    // The link is down, and everything is silent.
    agent.ip(&["link set eth0 down"]);
    let (found, code) = scene.json(&[]);
    assert_eq!(
        (code, with(&found, "open"), with(&found, "closed"), with(&found, "absent")),
        (13, vec![], vec![], vec![])
    );
    agent.ip(&["link set eth0 up", "route add default via 10.77.1.1"]);
    // Somebody else's resolver answers.
    scene.staunch.kill();
    let gateway = scene.world.agents[0].gateway;
    let other = Upstream::start(&scene.world.gw, (gateway, 53).into());
    let (found, code) = scene.json(&[]);
    assert_eq!((code, with(&found, "closed")), (12, vec![]), "{found}");
    assert!(ids(&found, "open").contains(&"foreign-dns-udp4".into()));
    drop(other);
}

#[test]
fn from_within_without_privilege_what_can_be_told_is_told() {
    let Some(scene) = Scene::whole() else { return };
    // Errors are heard of seldom by one client; a sandbox would have to wait.
    scene.world.gw.sysctl("net/ipv4/icmp_ratelimit", "0");
    scene.world.gw.sysctl("net/ipv6/icmp/ratelimit", "0");
    let inside = |words: &[&str]| {
        let mut command = scene.world.agents[0].ns.command("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
        ]);
        command.arg(binary()).args(["doctor", "--inside", "--json"]).args(words);
        read(command.output().expect("setpriv runs"))
    };
    let (found, code) = inside(&[]);
    assert_eq!((with(&found, "open"), with(&found, "inconclusive"), code), (vec![], vec![], 0));
    let closed = ids(&found, "closed");
    for probe in ["foreign-dns-udp4", "foreign-dns-tcp6", "dot-tcp4", "doq-udp6", "doh-tcp4", "embedded-resolver-udp4"]
    {
        assert!(closed.iter().any(|id| id == probe), "{probe} is not among {closed:?}");
    }
    assert!(ids(&found, "absent").iter().any(|id| id == "gre-raw4"), "no right to send such");
    assert!(ids(&found, "not-tried").iter().any(|id| id == "mdns-udp4"), "who hears a group only the host can tell");
    assert_eq!((&found["receipt"], &found["report"]["from"]), (&Value::Null, &"inside".into()));
    let (_, code) = inside(&["--strict"]);
    assert_eq!(code, 13, "something was not tried");
    // A silence is no closed way.
    nft(
        &scene.world.gw,
        "table inet mute { chain c { type filter hook prerouting priority -400; udp dport 137 drop; }; }",
    );
    let (found, code) = inside(&[]);
    let unsure = ids(&found, "inconclusive");
    assert_eq!(unsure, ["netbios-udp4", "netbios-udp6"]);
    assert_eq!((code, with(&found, "open")), (13, vec![]));
    nft(&scene.world.gw, "delete table inet mute");
    // Nor is what the sandbox itself refuses, whatever the host would say of it.
    let own = "table inet own { chain out { type filter hook output priority 0; udp dport 853 reject; tcp dport 853 reject with \
               tcp reset; }; }";
    nft(&scene.world.agents[0].ns, own);
    let (found, code) = inside(&[]);
    let refused = ["doq-udp", "dot-tcp", "dot-udp", "listed-dot-tcp", "listed-dot-udp"];
    let refused: Vec<String> = refused.iter().flat_map(|id| [format!("{id}4"), format!("{id}6")]).collect();
    assert_eq!((ids(&found, "inconclusive"), code, with(&found, "open")), (refused, 13, vec![]));
    // Of a datagram the kernel says at once that it was not sent.
    let said = |id: &str| if id.contains("tcp") { "own filter" } else { "not sent" };
    assert!(with(&found, "inconclusive").iter().all(|(id, why)| why.contains(said(id))), "{found}");
    nft(&scene.world.agents[0].ns, "delete table inet own");
    // What is open is seen from within too.
    echo::start(&scene.world.agents[0].ns, (Ipv4Addr::new(127, 0, 0, 53), 53).into());
    let (found, code) = inside(&[]);
    assert_eq!(code, 12, "{found}");
    assert!(ids(&found, "open").contains(&"embedded-resolver-udp4".into()), "{:#?}", with(&found, "open"));
}

#[test]
fn words_that_make_no_sense_are_told() {
    let Some(world) = World::create(1) else { return };
    let run = |words: &[&str]| {
        let output = world.gw.command(binary()).arg("doctor").args(words).output().expect("the binary runs");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&[]).0, 2, "nothing is said");
    assert_eq!(run(&["--inside", "--from-namespace", "x"]).0, 2);
    assert_eq!(run(&["--verify", "x"]).0, 2, "a receipt without a key");
    for (name, word) in [
        ("no-such-namespace", "no-such-namespace"),
        ("/proc/thread-self/ns/net", "ourselves"),
        ("/dev/null", "/dev/null"),
    ] {
        let (code, said) = run(&["--from-namespace", name]);
        assert!(code == 1 && said.contains(word), "{name}: {code} {said}");
    }
    let (code, said) = run(&["--verify", "/dev/null", "--key", "nonsense"]);
    assert!(code == 2 && said.contains("--key"), "{said}");
}
