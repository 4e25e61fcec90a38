//! Sandboxes and hosts that lack what others have.

use super::*;

/// Runs `ip` in the first sandbox.
fn ip(scene: &Scene, words: &[&str]) {
    assert!(scene.world.agents[0].ns.command("ip").args(words).status().expect("ip runs").success(), "{words:?}");
}

/// Nothing is open, and these are closed; what is inconclusive, with why.
#[track_caller]
fn closed(scene: &Scene, wanted: &[&str]) -> Vec<(String, String)> {
    let (found, code) = scene.json(&[]);
    let inconclusive = with(&found, "inconclusive");
    assert_eq!((with(&found, "open"), code), (vec![], if inconclusive.is_empty() { 0 } else { 13 }));
    let closed = ids(&found, "closed");
    for id in wanted {
        assert!(closed.iter().any(|closed| closed == id), "{id} is not among {closed:?}");
    }
    inconclusive
}

#[test]
fn a_sandbox_without_a_loopback_is_looked_at_all_the_same() {
    let Some(scene) = Scene::whole() else { return };
    ip(&scene, &["link", "set", "lo", "down"]);
    ip(&scene, &["address", "flush", "dev", "lo"]);
    let unsure = closed(&scene, &["embedded-resolver-udp4", "embedded-resolver-tcp4", "foreign-dns-udp4"]);
    assert_eq!(unsure, []);
}

#[test]
fn a_host_without_ipv6_takes_nothing_over_it() {
    let Some(scene) = Scene::whole() else { return };
    for interface in ["all", "default", "lo", "ag1", "ag2", "up0"] {
        scene.world.gw.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1");
    }
    // What such a host's sandboxes have is an address of the link.
    ip(&scene, &["-6", "route", "flush", "default"]);
    ip(&scene, &["-6", "address", "flush", "scope", "global"]);
    let unsure = closed(&scene, &["mdns-udp6", "llmnr-udp6", "mdns-udp4", "foreign-dns-udp4"]);
    // A canary is asked over IPv6 by this host too.
    let of_canary = |(_, why): &(String, String)| why.contains("the canary does not answer this host");
    assert!(unsure.iter().all(of_canary), "{unsure:?}");
}
