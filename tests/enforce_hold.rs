//! A packet filter that is told everything that is wanted at once, in a real kernel.

mod gateway;

use std::time::Duration;

use gateway::*;
use staunch::enforce::wire::{Held, HeldLease};
use staunch::enforce::{Backend, Class, Error, Nft};
use staunch::ports::{Opening, Port};

fn lease(to: &str, left: Duration) -> HeldLease {
    HeldLease { to: ip(to), open: Opening::One(Port::tcp(80)), left_ms: left.as_millis() as u64 }
}

fn guarded(session: &str, leases: Vec<HeldLease>) -> Held {
    Held {
        session: ip(session),
        guard: Some(Class(1)),
        monitored: false,
        quarantined: false,
        leases,
        volumes: Vec::new(),
    }
}

#[test]
fn exactly_what_is_told_is_held_and_what_stays_lives_on() {
    if skip() {
        return;
    }
    let world = World::new();
    let mut nft = world.inside("g", || {
        let mut nft = Nft::new(&config()).expect("a socket");
        nft.setup().expect("a table");
        nft
    });
    let commands =
        [guard(AGENT), guard(OTHER), pins(AGENT, &[SERVER, SERVER_2], 60 * SECOND), pin(OTHER, SERVER, 60 * SECOND)];
    assert!(nft.apply(&commands).iter().all(Result::is_ok));
    let (flow, ended) = (world.connects(AGENT, SERVER), world.connects(OTHER, SERVER));

    let (told, more) = nft.held(None);
    assert!(!more);
    assert_eq!((told[0].session, told[0].leases.len(), told[1].session), (ip(AGENT), 2, ip(OTHER)));
    assert_eq!(nft.held(Some(ip(AGENT))).0, told[1..]);
    let mut wanted = told.clone();
    wanted[0].leases.retain(|lease| lease.to == ip(SERVER));
    wanted[1].quarantined = true;
    wanted.push(guarded(AGENT_6, vec![lease(SERVER_6, 60 * SECOND)]));
    nft.hold(wanted).expect("held");
    world.refused(AGENT, SERVER_2);
    world.refused(OTHER, SERVER);
    world.connects(AGENT_6, SERVER_6);
    world.refused(AGENT_6, SERVER_6_2);
    world.connects(AGENT, SERVER);
    reads(flow.try_clone().expect("a second handle")).expect("a flow of a session that stays lives on");
    assert!(read_to_end(ended).1.is_some(), "a flow of a session that was closed ends");

    // A lifetime that is another.
    let wanted = vec![guarded(AGENT, vec![lease(SERVER, Duration::from_millis(1200)), lease(SERVER_2, 60 * SECOND)])];
    nft.hold(wanted).expect("held");
    world.connects(AGENT, SERVER_2);
    assert!(within(3 * SECOND, || world.dial(AGENT, SERVER).0.is_err()).is_some(), "the shorter end counts");
    world.connects(OTHER, SERVER);

    // What can never be held changes nothing.
    let before = nft.held(None).0;
    let wrong = vec![guarded(AGENT, vec![lease(SERVER_6, SECOND)])];
    assert!(matches!(nft.hold(wrong), Err(Error::Family { .. })));
    let twice: Vec<HeldLease> = (0..200_000).map(|_| lease(SERVER, SECOND)).collect();
    assert!(matches!(nft.hold(vec![guarded(AGENT, twice)]), Err(Error::SessionFull { .. })));
    assert_eq!(nft.held(None).0.len(), before.len());
    world.connects(AGENT, SERVER_2);
    assert!(nft.healthy().is_ok());

    nft.hold(Vec::new()).expect("held");
    assert_eq!(nft.counts().guarded + nft.counts().pins4 + nft.counts().pins6, 0);
    world.connects(AGENT, SERVER);
    nft.teardown(true).expect("removed");
}
