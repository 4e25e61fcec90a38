//! Zones by transfer from Debian's BIND: signed, announced, by changes, and what becomes of them when something fails.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::servers::{named, tools_are_there};
use crate::world::dns::{rcode, rtype};
use crate::world::ns::Process;
use crate::world::staunch::{Config, Staunch};
use crate::world::{GATEWAY_OUTSIDE, WEB, World, wait_for};

/// The primary.
pub const PRIMARY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 71);
pub const ZONE: &str = "feed.policy.test";
pub const SECRET: &str = "c2l4dGVlbiBvciBtb3JlIG9jdGV0cyBvZiBzZWNyZXQ=";
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Primary {
    process: Option<Process>,
}

impl Primary {
    /// With the key `transfer`, and updates by it, so that changes are kept for IXFR.
    fn start(world: &World, secret: &str, rules: &str) -> Self {
        Self::write(world, rules);
        Self { process: Some(Self::run(world, secret)) }
    }

    /// Writes the zone, serial 1, without changes.
    pub fn write(world: &World, rules: &str) {
        let file = world.path("feed.zone");
        let text = format!(
            "$ORIGIN {ZONE}.\n$TTL 60\n@ IN SOA localhost. admin.test. 1 3600 5 86400 60\n@ IN NS localhost.\n{rules}"
        );
        let _ = std::fs::remove_file(world.path("feed.zone.jnl"));
        std::fs::write(&file, text).expect("written");
    }

    fn run(world: &World, secret: &str) -> Process {
        let more = format!(
            "key \"transfer\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file {:?}; allow-transfer {{ key transfer; }};\n\
             allow-update {{ key transfer; }}; notify explicit; notify-delay 0;\n\
             also-notify {{ {GATEWAY_OUTSIDE} port 5353 key transfer; }}; }};\n",
            world.path("feed.zone")
        );
        let options = format!("recursion no; notify-source {PRIMARY}; notify-rate 20; startup-notify-rate 20;");
        named(world, "primary", PRIMARY, &options, &more)
    }

    /// Changes the zone by dynamic update.
    pub fn update(world: &World, lines: &str) {
        let mut command = world.net.command("nsupdate");
        command.args(["-y", &format!("hmac-sha256:transfer:{SECRET}")]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nsupdate runs");
        let text = format!("server {PRIMARY}\nzone {ZONE}\n{lines}\nsend\n");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "nsupdate: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn config(world: &World, secret: &str, more: &str) -> Config {
    let key = world.path("transfer.key");
    std::fs::write(&key, format!("{secret}\n")).expect("written");
    Config::enforce().tables(&format!(
        "[[rpz]]\nname = {ZONE:?}\nprimaries = [\"{PRIMARY}\"]\n{more}\
         tsig = {{ name = \"transfer\", algorithm = \"hmac-sha256\", secret_file = {key:?} }}\n"
    ))
}

/// Tells where NOTIFY is taken.
pub fn listening(mut config: Config) -> Config {
    // Behind `[server]` there is no place of its own; the table of the policy begins behind these lines.
    config.server = format!("notify_listen = [\"{GATEWAY_OUTSIDE}:5353\"]\n");
    config
}

pub fn zone(staunch: &Staunch) -> Value {
    staunch.json(&["status"])["rpz"][0].clone()
}

/// Waits until a zone stands as wanted.
pub fn until(staunch: &Staunch, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(PATIENCE, || Some(zone(staunch)).filter(|zone| wanted(zone)));
    found.unwrap_or_else(|| panic!("{what} never came: {}\n{}", zone(staunch), staunch.tail()))
}

pub fn code(world: &World, name: &str) -> u8 {
    (world.agents[0].ask_edns(name, rtype::A).expect("answered").flags & 0xf) as u8
}

#[test]
fn a_zone_is_transferred_signed_announced_and_changed_in_place() {
    let Some(world) = World::create(1).filter(|_| tools_are_there()) else { return };
    for name in ["bad.example", "worse.example", "good.example"] {
        world.upstream.add_site(name, WEB.into());
    }
    // More than one message, each signed over the one before.
    let many: String = (0..6000).map(|i| format!("listed-name-{i}.example IN CNAME .\n")).collect();
    let mut primary = Primary::start(&world, SECRET, &format!("{many}bad.example IN CNAME .\n"));
    let mut staunch = Staunch::start(&world, &listening(config(&world, SECRET, "")));
    let first = until(&staunch, "the first copy", |zone| zone["serial"] == 1);
    assert_eq!(first["rules"], 6001, "{first}");
    assert_eq!(code(&world, "listed-name-5999.example"), rcode::NXDOMAIN);
    assert_eq!(code(&world, "bad.example"), rcode::NXDOMAIN);
    assert_eq!(code(&world, "worse.example"), rcode::NOERROR);

    // By NOTIFY alone: the SOA says an hour. The answer in the cache is judged by the new copy.
    Primary::update(&world, "update add worse.example.feed.policy.test 60 CNAME .");
    let changed = until(&staunch, "the change", |zone| zone["serial"] == 2);
    assert_eq!((changed["rules"].as_u64(), changed["transfers"].as_u64()), (Some(6002), Some(2)));
    assert_eq!(code(&world, "worse.example"), rcode::NXDOMAIN);
    Primary::update(
        &world,
        "update delete bad.example.feed.policy.test CNAME\nupdate add *.many.example.feed.policy.test 60 CNAME *.",
    );
    until(&staunch, "the second change", |zone| zone["serial"] == 3);
    assert_eq!(code(&world, "bad.example"), rcode::NOERROR, "what is taken out of the zone is answered");
    let log = primary.process.as_ref().expect("runs").log();
    assert!(log.contains("IXFR ended") || log.contains("IXFR started"), "changes came as changes: {log}");
    assert_eq!(staunch.json(&["status"])["rpz"][0]["failures"], 0);

    // A primary that is gone takes nothing with it, and neither does a restart.
    let before = zone(&staunch);
    let copy = staunch.state.join(format!("rpz/{ZONE}.zone"));
    let is_written = || std::fs::read_to_string(&copy).is_ok_and(|text| text.contains("*.many.example"));
    assert!(wait_for(PATIENCE, || is_written().then_some(())).is_some(), "the copy was written");
    primary.process = None;
    staunch.kill();
    staunch.restart(&world);
    assert_eq!(code(&world, "worse.example"), rcode::NXDOMAIN, "from the copy on disk: {before}");
    let restarted = zone(&staunch);
    assert_eq!(restarted["serial"], 3, "{restarted}");
    until(&staunch, "the failure", |zone| zone["failures"].as_u64() > Some(0) && zone["error"].is_string());
    let page = world.gw.sh("curl -s http://127.0.0.1:9153/metrics");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("staunch_rpz_matches_total{zone=\"feed.policy.test\",action=\"nxdomain\"} 1"), "{page}");
}

#[test]
fn what_fails_keeps_the_last_good_copy() {
    let Some(world) = World::create(1).filter(|_| tools_are_there()) else { return };
    for name in ["bad.example", "worse.example"] {
        world.upstream.add_site(name, WEB.into());
    }
    // Another secret: nothing is believed, and with `required` nothing is answered, rather than answered unfiltered.
    let mut primary = Primary::start(&world, SECRET, "bad.example IN CNAME .\n");
    let other = "YW5vdGhlciBzZWNyZXQgb2Ygc2l4dGVlbiBvY3RldHM=";
    let staunch = Staunch::start(&world, &listening(config(&world, other, "required = true\n")));
    let refused = until(&staunch, "the refusal", |zone| zone["error"].is_string());
    assert!(refused["serial"].is_null(), "{refused}");
    let answer = world.agents[0].ask_edns("worse.example", rtype::A).expect("answered");
    assert_eq!((answer.flags & 0xf) as u8, rcode::SERVFAIL, "nothing is answered before the first copy");
    assert!(world.upstream.seen_below("worse.example").is_empty(), "nothing left");

    // With the right one all is well; the configuration is reloaded, nothing is restarted.
    staunch.reload(&world, &listening(config(&world, SECRET, "required = true\n")));
    until(&staunch, "the first copy", |zone| zone["serial"] == 1);
    assert_eq!((code(&world, "bad.example"), code(&world, "worse.example")), (rcode::NXDOMAIN, rcode::NOERROR));

    // A trigger that can never match here refuses the whole new copy, and the reason names it.
    Primary::update(&world, "update add ns.bad.example.rpz-nsdname.feed.policy.test 60 CNAME .");
    let refused =
        until(&staunch, "the refusal", |zone| zone["error"].as_str().is_some_and(|e| e.contains("rpz-nsdname")));
    assert_eq!(refused["serial"], 1, "{refused}");
    let said = refused["error"].as_str().unwrap_or_default();
    assert!(said.contains("unsupported = \"ignore\"") && !said.contains("line "), "there is no such file: {said}");
    assert_eq!(code(&world, "bad.example"), rcode::NXDOMAIN);
    // Where that is wanted it is left out instead, and counted.
    let lenient = "required = true\nunsupported = \"ignore\"\n";
    staunch.reload(&world, &listening(config(&world, SECRET, lenient)));
    let taken = until(&staunch, "the copy without it", |zone| zone["serial"] == 2);
    assert_eq!((taken["left_out"].as_u64(), taken["rules"].as_u64()), (Some(1), Some(1)), "{taken}");

    // A copy past its size is refused; a primary whose serial goes back is not followed.
    Primary::update(&world, "update delete ns.bad.example.rpz-nsdname.feed.policy.test CNAME");
    until(&staunch, "the copy before", |zone| zone["serial"] == 3);
    primary.process = None;
    let primary = Primary::start(&world, SECRET, "");
    staunch.reload(&world, &listening(config(&world, SECRET, &format!("{lenient}max_ttl_seconds = 30\n"))));
    let older = until(&staunch, "the older serial", |zone| {
        zone["error"].as_str().is_some_and(|error| error.contains("older than ours"))
    });
    assert_eq!(older["serial"], 3, "{older}");
    assert_eq!(code(&world, "bad.example"), rcode::NXDOMAIN, "what an older copy does not name");
    drop(primary);

    // A NOTIFY that is not signed, or not a primary's, makes nobody ask.
    let notify = |from: Ipv4Addr| {
        let mut packet = vec![0, 9, 0x24, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        crate::world::dns::put_name(&mut packet, ZONE);
        packet.extend([0, 6, 0, 1]);
        let to = std::net::SocketAddr::from((GATEWAY_OUTSIDE, 5353));
        world.net.run(async move {
            crate::world::client::udp(Some(from.into()), to, &packet, Duration::from_millis(400)).await
        })
    };
    assert!(notify(PRIMARY).is_err() && notify(crate::world::UPSTREAM).is_err(), "no reply to either");
    let page = world.gw.sh("curl -s http://127.0.0.1:9153/metrics");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("staunch_rpz_notify_refused_total 2"), "{page}");
}

#[test]
fn an_expired_zone_stays_in_force_with_an_alert_or_goes_where_that_is_written() {
    let Some(world) = World::create(1).filter(|_| tools_are_there()) else { return };
    for name in ["bad.example", "worse.example"] {
        world.upstream.add_site(name, WEB.into());
    }
    let primary = Primary::start(&world, SECRET, "bad.example IN CNAME .\n");
    let mut staunch = Staunch::start(&world, &config(&world, SECRET, ""));
    until(&staunch, "the first copy", |zone| zone["serial"] == 1);
    let copy = staunch.state.join(format!("rpz/{ZONE}.zone"));
    assert!(wait_for(PATIENCE, || copy.exists().then_some(())).is_some(), "the copy was written");
    drop(primary);
    for (more, bad) in [("", rcode::NXDOMAIN), ("on_expire = \"disable\"\n", rcode::NOERROR)] {
        staunch.kill();
        drop(staunch);
        // The primary was last heard two days ago, and the SOA gives the zone one.
        let old = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
        std::fs::File::options()
            .append(true)
            .open(&copy)
            .and_then(|file| file.set_modified(old))
            .expect("its time set");
        staunch = Staunch::start(&world, &config(&world, SECRET, more));
        until(&staunch, "the expiry", |zone| zone["expired"] == true);
        assert_eq!(code(&world, "bad.example"), bad, "{more}");
        let journal = || {
            let files = std::fs::read_dir(&staunch.state).expect("the state directory").flatten();
            let mut of = files.filter(|file| file.file_name().to_string_lossy().starts_with("journal-"));
            of.any(|file| {
                String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).contains("has expired")
            })
        };
        assert!(wait_for(PATIENCE, || journal().then_some(())).is_some(), "an alert says so");
    }
}
