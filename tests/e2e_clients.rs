//! What stock clients feel: a refused name fails at once with a lasting error, never by a time-out or a retry storm.

mod world;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use world::staunch::{Config, Staunch};
use world::{Agent, World};

/// No client may wait longer for a refusal.
const LIMIT: Duration = Duration::from_millis(500);

const LOOKUP_C: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
int main(int argc, char **argv) {
    struct addrinfo hints, *found;
    struct timespec a, b;
    (void)argc;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int end = getaddrinfo(argv[1], "80", &hints, &found);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("ms=%ld\n", (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
    return end != 0;
}
"#;

const LOOKUP_GO: &str = r#"
package main

import ("fmt"; "net"; "os"; "time")

func main() {
    start := time.Now()
    _, err := net.LookupHost(os.Args[1])
    fmt.Printf("ms=%d\n", time.Since(start).Milliseconds())
    if err != nil { os.Exit(1) }
}
"#;

const LOOKUP_PY: &str = "import socket,sys,time\nt=time.monotonic()\nok=0\ntry: socket.getaddrinfo(sys.argv[1],80)\n\
    except OSError: ok=1\nprint('ms=%d' % ((time.monotonic()-t)*1000))\nsys.exit(ok)";

const LOOKUP_JS: &str = "const t=process.hrtime.bigint();require('dns').lookup(process.argv[1],e=>{\
    console.log('ms='+(process.hrtime.bigint()-t)/1000000n);process.exit(e?1:0)})";

/// A client: what to run for a name; those that time themselves print `ms=N`, for their start is slow.
struct Client {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
}

#[test]
fn every_stock_client_fails_a_refused_name_at_once() {
    let Some(world) = World::create(1) else { return };
    let staunch = Staunch::start(
        &world,
        &Config::enforce().deny("no", "denied.example").allow_exact("yes", ["www.site.example"]),
    );
    let agent = &world.agents[0];
    // Refused names exist: a resolver that let them through would be seen to.
    world.upstream.add_site("*.denied.example", world::WEB.into());
    let clients = clients(&world);
    assert!(clients.len() >= 3, "glibc, curl and Python are on every machine that runs these tests");
    let mut faults = Vec::new();
    for (i, client) in clients.iter().enumerate() {
        let (works, took) = run(agent, client, "www.site.example");
        if !works {
            faults.push(format!("{}: the allowed name fails after {took:?}", client.name));
        }
        // The quickest of three, where a client's start or a processor that others have took its time.
        let (mut resolved, mut refused) = (false, Duration::MAX);
        for turn in 0..3 {
            let (found, took) = run(agent, client, &format!("host{i}x{turn}.denied.example"));
            (resolved, refused) = (resolved || found, refused.min(took));
            if refused < LIMIT {
                break;
            }
        }
        if resolved || refused >= LIMIT {
            faults.push(format!("{}: the refused name: resolved {resolved}, after {refused:?}", client.name));
        }
        println!(
            "FIGURE: {}: allowed name in {} ms, refused name fails in {} ms",
            client.name,
            took.as_millis(),
            refused.as_millis()
        );
    }
    assert!(faults.is_empty(), "{faults:#?}\n{}", staunch.tail());
}

/// A stub that is told that a name is not there asks for it below each suffix of its search list, which a sandbox often has from
/// its host and nobody declares. Nothing of that leaves, and the session is none the worse for it.
#[test]
fn what_is_refused_is_not_asked_for_below_a_search_suffix() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let resolv = format!("nameserver {}\nsearch corp.acme-works.com acme-works.com\n", agent.gateway);
    std::fs::write(world.path("ag1.resolv.conf"), resolv).expect("resolv.conf");
    let staunch = Staunch::start(&world, &Config::enforce().deny("no", "denied.example.com"));
    world.upstream.add_site("git.corp.acme-works.com", world::WEB.into());
    let clients = clients(&world);
    for round in 0..10 {
        for (i, client) in clients.iter().enumerate() {
            let (resolved, _) = run(agent, client, &format!("collector-{round}x{i}.metrics.denied.example.com"));
            assert!(!resolved, "{}", client.name);
        }
    }
    let below = world.upstream.seen_below("acme-works.com");
    assert!(below.is_empty(), "{below:?}");
    assert_ne!(staunch.session_state("agent-1"), "quarantined");
    // Whether a name is on a list of bad ones is asked by a name of the same form.
    let listed = "collector-9x0.metrics.denied.example.com.dbl.spamhaus.org";
    assert!(agent.ask(listed, world::dns::rtype::A).is_ok() && !world.upstream.seen_below("spamhaus.org").is_empty());
    // The suffix's own hosts are asked for as before, by their whole names and by their first label.
    for name in ["git.corp.acme-works.com", "git"] {
        let (resolved, _) = run(agent, &clients[0], name);
        assert!(resolved, "{name}\n{}", staunch.tail());
    }
    // Stubs did ask so, or this would have shown nothing.
    let asked = |suffix: &str| {
        let of = |event: &serde_json::Value| event["qname"].as_str().is_some_and(|name| name.ends_with(suffix));
        staunch.events().iter().filter(|event| of(event)).count()
    };
    for suffix in [".denied.example.com.corp.acme-works.com", ".denied.example.com.acme-works.com"] {
        let told = world::wait_for(Duration::from_secs(10), || (asked(suffix) >= 20).then_some(()));
        assert!(told.is_some(), "{} below {suffix}", asked(suffix));
    }
    let events = staunch.events();
    let first = events
        .iter()
        .find(|event| event["qname"].as_str().is_some_and(|name| name.ends_with(".example.com.acme-works.com")));
    assert_eq!(first.map(|event| (&event["source"], &event["would"])), Some((&"local".into(), &"answer".into())));
}

fn run(agent: &Agent, client: &Client, name: &str) -> (bool, Duration) {
    let mut command = agent.ns.command("timeout");
    command.arg("20").arg(&client.program);
    command.args(client.args.iter().map(|a| a.replace("NAME", name)));
    let start = Instant::now();
    let output = command.output().expect("the client runs");
    let own = start.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text.lines().find_map(|l| l.strip_prefix("ms=")?.parse().ok()).map(Duration::from_millis);
    (output.status.success(), said.unwrap_or(own))
}

fn clients(world: &World) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut add = |name, program: Option<PathBuf>, args: &[&str]| match program {
        Some(program) => {
            clients.push(Client { name, program, args: args.iter().map(|a| (*a).to_owned()).collect() });
        }
        None => world::skip::lacking(name),
    };
    add("glibc getent", find("getent"), &["ahosts", "NAME"]);
    add("busybox wget", find("busybox"), &["wget", "-q", "-O", "/dev/null", "http://NAME/"]);
    add("busybox nslookup", find("busybox"), &["nslookup", "NAME"]);
    add("curl", find("curl"), &["-sS", "-o", "/dev/null", "http://NAME/"]);
    add("Python", find("python3"), &["-c", LOOKUP_PY, "NAME"]);
    add("Node", find("node"), &["-e", LOOKUP_JS, "NAME"]);
    let musl = build(world, "musl-gcc", "lookup.c", LOOKUP_C, &["-static", "-O1", "-o", "lookup-musl", "lookup.c"]);
    add("static musl", musl.then(|| world.path("lookup-musl")), &["NAME"]);
    let go = build(world, "go", "lookup.go", LOOKUP_GO, &["build", "-o", "lookup-go", "lookup.go"]);
    add("Go", go.then(|| world.path("lookup-go")), &["NAME"]);
    clients
}

/// Builds a small program in the world's directory; false where the compiler is missing.
fn build(world: &World, compiler: &str, file: &str, source: &str, args: &[&str]) -> bool {
    if find(compiler).is_none() {
        return false;
    }
    std::fs::write(world.path(file), source).expect("the source written");
    let mut command = Command::new(compiler);
    command.args(args).current_dir(world.dir());
    // Go's own resolver, no module look-ups, no cache outside the world.
    command.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOCACHE", world.path("go-cache"));
    let output = command.output().expect("the compiler runs");
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p: &PathBuf| Path::is_file(p))
}
