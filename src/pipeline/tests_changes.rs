//! What policy, grants and sessions become while a question or its answer is under way, and what a refusal says of whom.

use std::net::{IpAddr, Ipv4Addr};

use super::world_for_test::{Says, World, block_on, outcome, packet};
use crate::clock;
use crate::model::{Phase, Qtype};

const A: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A policy zone that says of a name what stands behind it.
fn policy_zone(rules: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("$TTL 60\n@ IN SOA ns.invalid. host.invalid. 1 60 60 60 60\n@ IN NS ns.invalid.\n{rules}");
    std::fs::write(file.path(), text).expect("written");
    let table = format!("[[rpz]]\nname = \"policy.test\"\nfile = \"{}\"\n", file.path().display());
    (file, table)
}

const SESSION: &str = "[[session]]\nid = \"a\"\naddresses = [\"127.0.0.1\"]\ntype = \"batch\"\n";

fn rule(id: &str, action: &str, name: &str, more: &str) -> String {
    format!(
        "[[rule]]\nid = \"{id}\"\naction = \"{action}\"\nnames = [\"{name}\"]\nowner = \"o\"\nreason = \"r\"\n\
         review_by = \"2099-01-01\"\n{more}\n"
    )
}

async fn world(tables: &str) -> World {
    World::new(&format!("{tables}{SESSION}"), |_| Says::Address { ttl: 300, last: 5 }).await
}

#[test]
fn a_question_that_is_denied_while_it_waits_does_not_leave() {
    block_on(async {
        let world = world("").await;
        let question = packet("payload.evil.example", Qtype::A);
        let waiting = world.begin(A, &question, clock::now()).expect("it is to be asked");
        world.reload(&format!("{}{}", world.text, rule("no", "deny", "evil.example", ""))).await;
        let reply = world.end(waiting).await;
        assert_eq!((outcome(&reply).0, world.heard()), (3, Vec::new()));
        // The same by a policy zone.
        world.reload(&world.text).await;
        let waiting = world.begin(A, &question, clock::now()).expect("it is to be asked");
        let (_file, zone) = policy_zone("*.evil.example CNAME .\n");
        world.reload(&format!("{}{zone}", world.text)).await;
        assert_eq!((outcome(&world.end(waiting).await).0, world.heard()), (3, Vec::new()));
        world.reload(&world.text).await;
        // What others were asked for meanwhile goes on.
        let question = packet("www.site.example", Qtype::A);
        let waiting = world.begin(A, &question, clock::now()).expect("it is to be asked");
        world.reload(&world.text).await;
        let reply = world.end(waiting).await;
        assert_eq!((outcome(&reply), world.heard()), ((0, 1), vec!["www.site.example.".to_owned()]));
    });
}

/// A second session, which one configuration names and the other does not.
const SECOND: &str = "[[session]]\nid = \"second\"\naddresses = [\"192.0.2.99\"]\ntype = \"batch\"\nowner = \"o\"\n";

#[test]
fn what_a_reload_left_half_done_the_next_one_does() {
    block_on(async {
        let world = world(SECOND).await;
        let question = packet("www.site.example", Qtype::A);
        world.ask(A, &question, clock::now()).await;
        let whole = world.pipeline.live.load_full();
        let second = || world.pipeline.sessions.by_address("192.0.2.99".parse().expect("an address"));
        let announcement = second().expect("configured").context().announcement.clone();
        let without = world.text.replace(SECOND, "");
        world.reload(&without).await;
        // As if it had stopped before the sessions.
        world.pipeline.announce_noted(announcement).expect("announced");
        world.ask(A, &question, clock::now()).await;
        let asked = world.asked();
        world.reload(&without).await;
        assert!(second().is_some(), "nothing has changed by what is in force");
        world.ask(A, &question, clock::now()).await;
        assert_eq!(world.asked(), asked, "and what was at hand still is");
        world.reload_behind(&without, whole).await;
        assert!(second().is_none(), "it was in the configuration that was in force as a whole");
        world.ask(A, &question, clock::now()).await;
        assert_eq!(world.asked(), asked + 1, "what was answered before is asked anew");
        // The same where the configuration of before is put back: what the half-done one brought goes.
        let without_it = world.pipeline.live.load_full();
        world.reload(&world.text).await;
        assert!(second().is_some());
        world.reload_behind(&without, without_it).await;
        assert!(second().is_none());
    });
}

#[test]
fn a_question_of_a_phase_that_is_over_does_not_leave() {
    block_on(async {
        let world = world("[profile.\"batch.run\"]\nunlisted = \"refuse\"\n").await;
        let question = packet("www.site.example", Qtype::A);
        let waiting = world.begin(A, &question, clock::now()).expect("it is to be asked");
        let session = world.pipeline.sessions.by_address(A).expect("configured");
        let mut announcement = session.context().announcement.clone();
        announcement.phase = Some(Phase::Run);
        world.pipeline.announce_noted(announcement).expect("announced");
        let reply = world.end(waiting).await;
        assert_eq!((outcome(&reply).0, world.asked()), (3, 0));
    });
}

#[test]
fn what_is_open_by_a_zone_of_ours_is_not_closed_by_what_policy_says_of_its_names() {
    block_on(async {
        let zone = tempfile::NamedTempFile::new().expect("a file");
        let text = "$TTL 60\n@ IN SOA ns.corp.test. host.corp.test. 1 60 60 60 60\n@ IN NS ns\nwiki IN A 203.0.113.9\n";
        std::fs::write(zone.path(), text).expect("written");
        let own = format!("[[zone]]\nname = \"corp.test\"\nfile = \"{}\"\n", zone.path().display());
        let world = world(&format!("[profile.batch]\nunlisted = \"refuse\"\n{own}")).await;
        let wiki = packet("wiki.corp.test", Qtype::A);
        let ask = || world.ask(A, &wiki, clock::now());
        assert_eq!(outcome(&ask().await), (0, 1));
        let open = || world.pipeline.sessions.by_address(A).expect("configured").inner.lock().pins.len();
        assert_eq!(open(), 1);
        world.reload(&format!("{}{}", world.text, rule("no", "deny", "corp.test", ""))).await;
        assert_eq!((open(), outcome(&ask().await)), (1, (0, 1)), "its words are the operator's own");
        // Another word does not stand in for it.
        let (_file, other) = policy_zone("www.other.example A 203.0.113.7\n");
        world.reload(&format!("{}{other}", world.text.replace(&own, ""))).await;
        assert_eq!(open(), 0, "the zone is gone");
    });
}

#[test]
fn what_belongs_to_an_alias_of_ours_is_not_asked_of_where_it_leads() {
    block_on(async {
        let zone = tempfile::NamedTempFile::new().expect("a file");
        let text = "$TTL 60\n@ IN SOA ns.corp.test. host.corp.test. 1 60 60 60 60\n@ IN NS ns\n\
                    out IN CNAME www.site.example.\nin IN CNAME wiki\nwiki IN A 203.0.113.9\n";
        std::fs::write(zone.path(), text).expect("written");
        let own = format!("[[zone]]\nname = \"corp.test\"\nfile = \"{}\"\n", zone.path().display());
        let world = world(&own).await;
        for name in ["out.corp.test", "in.corp.test"] {
            for qtype in [Qtype::RRSIG, Qtype::NSEC] {
                let reply = world.ask(A, &packet(name, qtype), clock::now()).await;
                assert_eq!((outcome(&reply), world.asked()), ((0, 0), 0), "{name} {qtype}");
                assert_eq!(reply[9], 1, "{name} {qtype}: with the zone's SOA");
            }
        }
    });
}

/// Stubs keep an NXDOMAIN for all types of a name, some for all names below it (RFC 8020).
#[test]
fn what_is_refused_for_where_it_leads_is_denied_no_further_than_that() {
    const ALIAS: Says = Says::Record(Qtype::CNAME, b"\x03cdn\x05other\x07example\0");
    const SERVICE: Says = Says::Record(Qtype::HTTPS, b"\0\x01\x03cdn\x05other\x07example\0");
    let below = rule("yes", "allow", "=deep.www.site.example", "");
    for (says, qtype, more, code, why) in [
        (ALIAS, Qtype::A, "", 3, "whatever is asked there, the alias leads there"),
        (ALIAS, Qtype::A, below.as_str(), 0, "a name below is allowed"),
        (SERVICE, Qtype::HTTPS, "", 0, "its addresses may be asked for"),
    ] {
        block_on(async {
            let tables = format!("{}{more}{SESSION}", rule("no", "deny", "other.example", ""));
            let world = World::new(&tables, move |_| says).await;
            // From the upstream, and from the cache.
            for _ in 0..2 {
                let reply = world.ask(A, &packet("www.site.example", qtype), clock::now()).await;
                assert_eq!(outcome(&reply), (code, 0), "{why}");
                assert!(String::from_utf8_lossy(&reply).contains("deny-rule"), "{why}");
            }
            assert_eq!(world.asked(), 1);
        });
    }
}

#[test]
fn a_rule_about_one_name_is_no_reason_why_another_is_refused() {
    let tunnel = |n: u32| format!("66tpzwybpgeisntrzcxlw7mjo43hawbhkkq57yxdnmgwa2{n:02}f.t.attacker.example");
    for more in ["", "mode = \"monitor\""] {
        block_on(async {
            let world = world(&rule("no", "deny", "=no.attacker.example", more)).await;
            let first = world.ask(A, &packet("no.attacker.example", Qtype::A), clock::now()).await;
            assert_eq!(outcome(&first).0 == 3, more.is_empty());
            let mut scored = 0;
            for n in 0..12 {
                let reply = world.ask(A, &packet(&tunnel(n), Qtype::TXT), clock::now()).await;
                let text = String::from_utf8_lossy(&reply);
                assert!(!text.contains("deny-rule"), "{more:?}: {text:?}");
                scored += u32::from(text.contains("(score)"));
            }
            assert!(scored > 0, "{more:?}");
        });
    }
}

#[test]
fn a_name_that_a_policy_zone_leads_to_is_told_as_the_client_asked() {
    block_on(async {
        let (_file, zone) = policy_zone("www.site.example CNAME walled.garden.example.\n");
        let world = world(&zone).await;
        let reply = world.ask(A, &packet("www.site.example", Qtype::A), clock::now()).await;
        assert_eq!((outcome(&reply).0, world.heard()), (0, vec!["walled.garden.example.".to_owned()]));
        world.pipeline.telemetry.caught_up().await;
        let (told, _) = world.pipeline.telemetry.follow();
        let events = told.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let told: Vec<_> = events.map(|event| (event["qname"].clone(), event["transport"].clone())).collect();
        assert_eq!(told, [("walled.garden.example".into(), "udp".into()), ("www.site.example".into(), "udp".into())]);
    });
}
