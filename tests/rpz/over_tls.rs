//! Zones by transfer over TLS from Debian's BIND (RFC 9103), and NOTIFY over TCP.

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::servers::{named, tools_are_there};
use super::transfer::{PATIENCE, PRIMARY, Primary, SECRET, ZONE, code, listening, until, zone};
use crate::world::dns::rcode;
use crate::world::ns::Process;
use crate::world::staunch::{Config, Staunch};
use crate::world::{GATEWAY_OUTSIDE, WEB, World, wait_for};

const NAME: &str = "primary.policy.test";

/// Writes a root and a certificate of `NAME` that it issued.
fn certify(world: &World) {
    let root_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(world.path("root.pem"), params.self_signed(&root_key).expect("a root").pem()).expect("written");
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![NAME.to_owned()]).expect("parameters");
    let shown = params.signed_by(&key, &issuer).expect("a certificate").pem();
    std::fs::write(world.path("server.pem"), shown).expect("written");
    std::fs::write(world.path("server.key"), key.serialize_pem()).expect("written");
    // Another root, which has issued nothing.
    let stranger = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(world.path("other.pem"), params.self_signed(&stranger).expect("a root").pem()).expect("written");
}

/// A BIND that gives the zone away over TLS alone, and says over TCP alone that there is something new.
fn primary(world: &World) -> Process {
    let more = format!(
        "tls shown {{ cert-file {:?}; key-file {:?}; }};\n\
         key \"transfer\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         server {GATEWAY_OUTSIDE} {{ tcp-only yes; }};\n\
         zone \"{ZONE}\" {{ type primary; file {:?}; allow-transfer port 853 transport tls {{ any; }};\n\
         allow-update {{ key transfer; }}; notify explicit; notify-delay 0;\n\
         also-notify {{ {GATEWAY_OUTSIDE} port 5353; }}; }};\n",
        world.path("server.pem"),
        world.path("server.key"),
        world.path("feed.zone")
    );
    let options = format!(
        "recursion no; notify-source {PRIMARY}; notify-rate 20; startup-notify-rate 20;\n\
         listen-on port 853 tls shown {{ {PRIMARY}; }};"
    );
    named(world, "primary-tls", PRIMARY, &options, &more)
}

/// With a primary written so, and what is said beside it.
fn config(server: &str, beside: &str) -> Config {
    listening(
        Config::enforce()
            .tables(&format!("[[rpz]]\nname = {ZONE:?}\nprimaries = [{{ server = \"{server}\"{beside} }}]\n")),
    )
}

fn notify(serial: u8) -> Vec<u8> {
    let mut packet = vec![0, serial, 0x24, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    crate::world::dns::put_name(&mut packet, ZONE);
    packet.extend([0, 6, 0, 1]);
    packet
}

#[test]
fn a_zone_comes_over_tls_and_its_changes_are_told_over_tcp() {
    let Some(world) = World::create(1).filter(|_| tools_are_there()) else { return };
    for name in ["bad.example", "worse.example"] {
        world.upstream.add_site(name, WEB.into());
    }
    certify(&world);
    let many: String = (0..6000).map(|i| format!("listed-name-{i}.example IN CNAME .\n")).collect();
    Primary::write(&world, &format!("{many}bad.example IN CNAME .\n"));
    let primary = primary(&world);
    // Where no datagram comes through.
    let closed = world.gw.sh(
        "nft add table inet nodatagrams && nft add chain inet nodatagrams in '{ type filter hook input priority 0; }' && \
         nft add rule inet nodatagrams in udp dport 5353 drop",
    );
    assert!(closed.status.success(), "{closed:?}");
    let tls = format!("tls://{PRIMARY}#{NAME}");
    let roots = format!(", ca_file = {:?}", world.path("root.pem"));
    let staunch = Staunch::start(&world, &config(&tls, &roots));
    let first = until(&staunch, "the first copy", |zone| zone["serial"] == 1);
    assert_eq!(first["rules"], 6001, "{first}");
    assert_eq!((code(&world, "bad.example"), code(&world, "worse.example")), (rcode::NXDOMAIN, rcode::NOERROR));

    Primary::update(&world, "update add worse.example.feed.policy.test 60 CNAME .");
    let changed = until(&staunch, "the change", |zone| zone["serial"] == 2);
    assert_eq!((changed["transfers"].as_u64(), changed["failures"].as_u64()), (Some(2), Some(0)), "{changed}");
    assert_eq!(code(&world, "worse.example"), rcode::NXDOMAIN);
    let log = primary.log();
    assert!(log.contains("IXFR started"), "changes came as changes: {log}");

    // Somebody else's connection is closed without a word, and is counted.
    let to = SocketAddr::from((GATEWAY_OUTSIDE, 5353));
    let refused = world.net.run(async move { crate::world::client::tcp(to, &notify(9), Duration::from_secs(5)).await });
    assert!(refused.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::TimedOut), "{refused:?}");
    let page = world.gw.sh("curl -s http://127.0.0.1:9153/metrics");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("staunch_rpz_notify_refused_total 1"), "{page}");
}

#[test]
fn a_primary_that_cannot_prove_its_name_writes_no_policy() {
    let Some(world) = World::create(1).filter(|_| tools_are_there()) else { return };
    world.upstream.add_site("bad.example", WEB.into());
    certify(&world);
    Primary::write(&world, "bad.example IN CNAME .\n");
    let _primary = primary(&world);
    let file = |name: &str| format!(", ca_file = {:?}", world.path(name));
    let pin = format!("{}, pins = [\"{}=\"]", file("root.pem"), "A".repeat(43));
    let named_so = |name: &str| format!("tls://{PRIMARY}#{name}");
    let staunch = Staunch::start(&world, &config(&named_so(NAME), &file("other.pem")));
    for (what, server, beside, why) in [
        ("another root", named_so(NAME), file("other.pem"), "invalid peer certificate"),
        (
            "another name",
            named_so("other.policy.test"),
            file("root.pem"),
            "#other.policy.test: invalid peer certificate",
        ),
        ("another key", named_so(NAME), pin, "ApplicationVerificationFailure"),
        (
            "without TLS",
            format!("tcp://{PRIMARY}"),
            String::new(),
            "203.0.113.71:53: the primary answers with response code 5",
        ),
        ("no TLS there", format!("tls://{PRIMARY}:53#{NAME}"), file("root.pem"), "tls://203.0.113.71:53#"),
    ] {
        staunch.reload(&world, &config(&server, &beside));
        let failed = until(&staunch, what, |zone| zone["error"].as_str().is_some_and(|error| error.contains(why)));
        assert!(failed["serial"].is_null() && failed["transfers"] == 0, "{what}: {failed}");
        assert_eq!(code(&world, "bad.example"), rcode::NOERROR, "{what}");
    }
    staunch.reload(&world, &config(&named_so(NAME), &file("root.pem")));
    until(&staunch, "the control", |zone| zone["serial"] == 1);
    let refused = || Some(code(&world, "bad.example")).filter(|code| *code == rcode::NXDOMAIN);
    assert!(wait_for(PATIENCE, refused).is_some(), "{}", zone(&staunch));
}
