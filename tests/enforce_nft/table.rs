//! The table itself: destroyed, taken by somebody else, owned.

use super::*;

#[test]
fn what_others_destroy_is_back_within_a_second() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    for session in [AGENT, OTHER] {
        apply(&enforcer, guard(session));
    }
    apply(&enforcer, Command::Quarantine { session: ip(OTHER) });
    apply(&enforcer, pin(AGENT, SERVER, 300 * SECOND));
    let element = format!("{AGENT} . {SERVER}");
    let intact = || {
        world.expires("pins4", &element).is_some_and(|left| left > 200 * SECOND)
            && world.holds("guarded4", AGENT)
            && world.holds("quarantined4", OTHER)
            && world.nft(&["list", "chain", "inet", "staunch", "outward"]).is_ok_and(|t| t.contains("@pins4"))
    };
    assert!(intact());
    let destructions: [&[&str]; 9] = [
        &["delete", "table", "inet", "staunch"],
        &["flush", "ruleset"],
        &["flush", "table", "inet", "staunch"],
        &["flush", "chain", "inet", "staunch", "forward"],
        &["flush", "set", "inet", "staunch", "guarded4"],
        &["flush", "set", "inet", "staunch", "quarantined4"],
        &["flush", "set", "inet", "staunch", "pins4"],
        &["add", "table", "inet", "staunch", "{", "flags", "dormant", ";", "}"],
        // Whoever is not held by rules of ours would be cut off.
        &["chain", "inet", "staunch", "forward", "{", "policy", "drop", ";", "}"],
    ];
    for destruction in destructions {
        let before = enforcer.status().counts.restored;
        world.nft(destruction).unwrap_or_else(|error| panic!("{error}"));
        // The nft tool's own starts are no time of ours, so whether all is there again is looked at behind it.
        let took = within(2 * SECOND, || enforcer.status().counts.restored > before);
        println!("{}: back in {took:?}", destruction.join(" "));
        assert!(took.is_some_and(|took| took < SECOND), "{destruction:?}: {:?}", enforcer.status());
        assert!(within(5 * SECOND, intact).is_some(), "{destruction:?}: {:?}", enforcer.status());
        world.refused(AGENT, SERVER_2);
        world.refused(OTHER, SERVER);
        world.connects(AGENT, SERVER);
        assert!(within(5 * SECOND, || enforcer.healthy()).is_some());
    }
    // A pin that nobody asked for goes, too.
    let stranger = format!("{{ {AGENT} . {SERVER_2} . tcp . 80 timeout 1h }}");
    world.nft(&["add", "element", "inet", "staunch", "pins4", &stranger]).expect("added");
    assert!(within(5 * SECOND, || !world.holds("pins4", SERVER_2)).is_some());
    // A pin that meets the missing table puts it back by itself and holds.
    world.nft(&["delete", "table", "inet", "staunch"]).expect("deleted");
    apply(&enforcer, pin(AGENT, SERVER_2, 60 * SECOND));
    assert!(intact());
    world.connects(AGENT, SERVER_2);
    // So does a quarantine.
    world.nft(&["delete", "table", "inet", "staunch"]).expect("deleted");
    apply(&enforcer, Command::Quarantine { session: ip(AGENT) });
    assert!(world.holds("quarantined4", AGENT));
    world.refused(AGENT, SERVER);
}

#[test]
fn a_flow_opened_while_the_table_was_gone_is_ended() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    apply(&enforcer, guard(AGENT));
    let mut leaked = None;
    for _ in 0..50 {
        world.nft(&["delete", "table", "inet", "staunch"]).expect("deleted");
        if let (Ok(stream), _) = world.dial(AGENT, SERVER) {
            leaked = Some(stream);
            break;
        }
        assert!(within(5 * SECOND, || world.holds("guarded4", AGENT)).is_some());
    }
    let stream = leaked.expect("a dial between deletion and restoration, in fifty tries");
    // With our rules gone the kernel may not have tracked it, so a client that only reads hears nothing, not even data.
    let end = read_to_end(stream).1;
    assert!(matches!(end, Some(ErrorKind::ConnectionReset | ErrorKind::WouldBlock)), "{end:?}");
    world.refused(AGENT, SERVER);
}

#[test]
fn orders_given_while_the_table_is_somebody_elses_hold_when_it_is_ours_again() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    for session in [AGENT, OTHER, AGENT_6] {
        apply(&enforcer, guard(session));
    }
    apply(&enforcer, pin(AGENT, SERVER, 300 * SECOND));
    apply(&enforcer, pin(OTHER, SERVER, 300 * SECOND));
    apply(&enforcer, Command::Quarantine { session: ip(AGENT_6) });
    let downloads = [AGENT, OTHER].map(|from| world.connects(from, SERVER));
    let (sender, changes) = std::sync::mpsc::channel();
    enforcer.on_health(move |healthy| {
        let _ = sender.send((healthy, Instant::now()));
    });

    // Its owner's socket keeps the table from us, and takes it along when it closes.
    let ns = world.ns("g");
    let mut thief = Process::new("ip")
        .args(["netns", "exec", &ns, "nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nft");
    let taken = Instant::now();
    let line = b"delete table inet staunch; add table inet staunch { flags owner; }\n";
    thief.stdin.as_mut().expect("piped").write_all(line).expect("written");
    let change = changes.recv_timeout(10 * SECOND);
    let Ok((false, noticed)) = change else {
        let _ = (thief.kill(), thief.wait());
        panic!("the table was taken away, and health says {change:?}: {:?}", world.nft(&["list", "ruleset"]));
    };
    println!("noticed {:?} after nft was told", noticed - taken);
    // The quickest of some: what else this machine does is none of it.
    let refusals = [(); 5].map(|()| {
        let before = Instant::now();
        let refused = enforcer.submit(pin(AGENT, SERVER_2, 60 * SECOND));
        assert!(matches!(refused, Err(Error::Unhealthy(_))), "{refused:?}");
        before.elapsed()
    });
    assert!(refusals.iter().min() < Some(&Duration::from_millis(5)), "{refusals:?}");
    for command in [
        Command::Quarantine { session: ip(AGENT) },
        Command::Remove { session: ip(OTHER) },
        guard(OTHER),
        Command::Release { session: ip(AGENT_6) },
    ] {
        let result = enforcer.submit(command).expect("taken").wait_blocking(5 * SECOND);
        assert!(result.is_err(), "nothing is acknowledged that does not hold");
    }

    let given_back = Instant::now();
    drop(thief.stdin.take());
    thief.wait().expect("nft ends");
    let (healthy, at) = changes.recv_timeout(10 * SECOND).expect("put back");
    println!("put back {:?} after the other let go", at - given_back);
    assert!(healthy && enforcer.healthy());
    assert!(at - given_back < SECOND);
    assert!(world.holds("quarantined4", AGENT) && world.holds("guarded4", OTHER));
    assert!(!world.holds("quarantined6", AGENT_6) && world.holds("guarded6", AGENT_6));
    for from in [AGENT, OTHER] {
        assert!(!world.holds("pins4", &format!("{from} . {SERVER}")));
        world.refused(from, SERVER);
    }
    world.refused(AGENT_6, SERVER_6);
    apply(&enforcer, pin(AGENT_6, SERVER_6, 60 * SECOND));
    world.connects(AGENT_6, SERVER_6);
    for download in downloads {
        let end = read_to_end(download).1;
        assert!(matches!(end, Some(ErrorKind::ConnectionReset | ErrorKind::WouldBlock)), "{end:?}");
    }
    apply(&enforcer, Command::Release { session: ip(AGENT) });
    world.refused(AGENT, SERVER);
}

#[test]
fn an_owned_table_cannot_be_destroyed_and_is_taken_over_by_the_next_run() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    apply(&enforcer, guard(AGENT));
    apply(&enforcer, pin(AGENT, SERVER, 60 * SECOND));
    if world.nft(&["delete", "table", "inet", "staunch"]).is_ok() {
        return crate::world::skip::skipped("this kernel has no owned tables that persist");
    }
    world.nft(&["flush", "ruleset"]).expect("leaves our table alone");
    assert!(world.nft(&["flush", "set", "inet", "staunch", "guarded4"]).is_err());
    world.refused(AGENT, SERVER_2);
    world.connects(AGENT, SERVER);
    let second = world.try_start(config(), as_is).expect_err("two owners cannot be").to_string();
    assert!(second.contains("another process owns the table"), "{second}");
    enforcer.shutdown(false).expect("stops");
    world.refused(AGENT, SERVER_2);
    world.connects(AGENT, SERVER);
    let enforcer = world.start(as_is);
    apply(&enforcer, pin(AGENT, SERVER_2, 60 * SECOND));
    world.connects(AGENT, SERVER_2);
    assert!(world.nft(&["delete", "table", "inet", "staunch"]).is_err(), "owned again");
}

#[test]
fn a_table_that_stands_from_before_becomes_owned_and_free_again_with_what_it_holds() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    apply(&enforcer, guard(AGENT));
    apply(&enforcer, pin(AGENT, SERVER, 300 * SECOND));
    let download = world.connects(AGENT, SERVER);
    enforcer.shutdown(false).expect("stops");
    let fresh = World::new();
    let owner = fresh.start(as_is);
    let can_be_owned = fresh.nft(&["delete", "table", "inet", "staunch"]).is_err();
    owner.shutdown(true).expect("stops");
    if !can_be_owned {
        return crate::world::skip::skipped("this kernel has no owned tables that persist");
    }

    for owned in [true, false] {
        let enforcer = world.start(move |nft| nft.with_ownership(owned));
        assert_eq!(world.nft(&["flush", "set", "inet", "staunch", "quarantined4"]).is_err(), owned, "owned: {owned}");
        assert!(world.expires("pins4", &format!("{AGENT} . {SERVER}")).is_some_and(|left| left > 200 * SECOND));
        world.connects(AGENT, SERVER);
        world.refused(AGENT, SERVER_2);
        enforcer.shutdown(false).expect("stops");
    }
    reads(download).expect("a flow that was open goes on");
}
