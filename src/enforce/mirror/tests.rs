//! Both sides in one process, and a link that breaks when it is told to.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::enforce::remote::testing::Side;
use crate::enforce::wire::HeldLease;
use crate::enforce::{Class, DryRun, DryRunLog};
use crate::ports::{Opening, Port, Ports};

/// What happens to the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// It is never heard.
    Lost,
    /// It is carried out, and nobody hears of it.
    Unanswered,
}

struct Shared {
    side: Side,
    fate: Fate,
    /// Nobody is there.
    away: bool,
}

struct Wire(Arc<Mutex<Shared>>, bool);

impl Link for Wire {
    fn kind(&self) -> BackendKind {
        BackendKind::Nft
    }
    fn start_patience(&self) -> Duration {
        Duration::ZERO
    }
    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn ask_every(&self) -> Duration {
        Duration::ZERO
    }
    fn remembers(&self) -> bool {
        true
    }
    fn open(&mut self) -> Result<(), Error> {
        let mut shared = self.0.lock();
        self.1 = !shared.away;
        match shared.away {
            true => Err(Error::Unhealthy("nobody there".into())),
            false => {
                shared.side.connect();
                Ok(())
            }
        }
    }
    fn gone(&mut self) -> Option<Error> {
        None
    }
    fn exchange(&mut self, request: &Request, _: Duration) -> Result<Reply, Error> {
        let mut shared = self.0.lock();
        let fate = std::mem::replace(&mut shared.fate, Fate::Arrives);
        if !self.1 || shared.away || fate == Fate::Lost {
            self.1 = false;
            return Err(Error::Unhealthy("cut off".into()));
        }
        // As it would travel.
        let request = serde_json::from_slice(&serde_json::to_vec(request).expect("written")).expect("read");
        let reply = shared.side.answer(request);
        if fate == Fate::Unanswered {
            self.1 = false;
            return Err(Error::Unhealthy("cut off".into()));
        }
        Ok(serde_json::from_slice(&serde_json::to_vec(&reply).expect("written")).expect("read"))
    }
    fn close(&mut self) {
        self.1 = false;
    }
    fn broken(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Unhealthy(why.to_string())
    }
}

const CAPACITY: u32 = 200;

fn pair() -> (Mirror<Wire>, Arc<Mutex<Shared>>, DryRunLog) {
    let backend = DryRun::new(CAPACITY);
    let log = backend.log();
    let shared =
        Arc::new(Mutex::new(Shared { side: Side::new(Box::new(backend), CAPACITY), fate: Fate::Arrives, away: false }));
    let mut mirror = Mirror::new(Wire(shared.clone(), false), CAPACITY);
    mirror.setup().expect("reached");
    (mirror, shared, log)
}

fn session(n: u8) -> IpAddr {
    [10, 77, 1, n].into()
}

fn to(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn pin(n: u8, to_: u8) -> Command {
    let ports = Ports::these([Port::tcp(443)]).expect("ports");
    let lifetime = Duration::from_secs(600);
    Command::Pin { session: session(n), destinations: vec![to(to_)], ports, volume: Some(7), lifetime }
}

/// What is held, without the milliseconds.
fn held(mut all: Vec<Held>) -> Vec<Held> {
    for held in &mut all {
        held.leases.iter_mut().for_each(|lease| lease.left_ms = lease.left_ms.div_ceil(60_000));
        held.leases.sort_unstable_by_key(|lease| (lease.to, lease.open));
        held.volumes.sort_unstable_by_key(|volume| volume.to);
    }
    all
}

fn until_healthy(mirror: &mut Mirror<Wire>) {
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = mirror.healthy() {
        assert!(Instant::now() < end, "{error}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn in_step(mirror: &Mirror<Wire>, shared: &Mutex<Shared>) {
    assert_eq!(held(mirror.held(None).0), held(shared.lock().side.backend.held(None).0));
}

#[test]
fn while_the_other_side_is_away_nothing_is_pinned_and_every_other_order_is_made_good() {
    let (mut mirror, shared, log) = pair();
    let ok = |results: Vec<Result<(), Error>>| results.into_iter().for_each(|result| result.expect("carried out"));
    ok(mirror.apply(&[Command::Guard { session: session(1), class: Class(1) }, pin(1, 1), pin(1, 2)]));
    ok(mirror.apply(&[Command::Guard { session: session(2), class: Class(1) }, pin(2, 1)]));
    in_step(&mirror, &shared);
    shared.lock().away = true;
    assert!(matches!(mirror.healthy(), Err(Error::Unhealthy(_))));
    assert!(matches!(mirror.apply(&[pin(1, 3)])[..], [Err(Error::Unhealthy(_))]));
    let orders = [
        Command::Quarantine { session: session(1) },
        Command::Release { session: session(1) },
        Command::Quarantine { session: session(2) },
    ];
    assert!(mirror.apply(&orders).iter().all(Result::is_err));
    let before = log.commands().len();
    shared.lock().away = false;
    // Not before it is in step.
    assert!(matches!(mirror.apply(&[pin(1, 3)])[..], [Err(Error::Unhealthy(_))]));
    until_healthy(&mut mirror);
    in_step(&mirror, &shared);
    // A quarantine that was lifted is carried out all the same: it ends flows.
    assert_eq!(log.commands()[before..], orders);
    ok(mirror.apply(&[pin(1, 3)]));
    assert!(matches!(mirror.apply(&[pin(2, 3)])[..], [Err(Error::Quarantined { .. })]));
    in_step(&mirror, &shared);
}

#[test]
fn a_pin_whose_answer_was_lost_is_gone_when_both_are_in_step_again() {
    let (mut mirror, shared, _) = pair();
    mirror.apply(&[Command::Guard { session: session(1), class: Class(1) }]);
    shared.lock().fate = Fate::Unanswered;
    assert!(matches!(mirror.apply(&[pin(1, 1)])[..], [Err(Error::Unhealthy(_))]));
    let there = |shared: &Mutex<Shared>| shared.lock().side.backend.view(session(1)).destinations();
    assert_eq!((there(&shared), mirror.view(session(1)).destinations()), (vec![to(1)], vec![]));
    until_healthy(&mut mirror);
    assert_eq!((there(&shared), mirror.view(session(1)).destinations()), (vec![], vec![]));
    in_step(&mirror, &shared);
}

#[test]
fn a_new_resolver_takes_over_what_is_held_and_another_enforcer_is_told_all() {
    let (mut mirror, shared, _) = pair();
    mirror.apply(&[Command::Guard { session: session(1), class: Class(2) }, pin(1, 1)]);
    mirror.apply(&[Command::Quarantine { session: session(3) }, Command::Unguard { session: session(4) }]);
    let mut second = Mirror::new(Wire(shared.clone(), false), CAPACITY);
    second.setup().expect("reached");
    in_step(&second, &shared);
    assert_eq!(second.view(session(1)).destinations(), [to(1)]);
    // An enforcer that remembers nothing.
    shared.lock().side = Side::new(Box::new(DryRun::new(CAPACITY)), CAPACITY);
    until_healthy(&mut second);
    in_step(&second, &shared);
    let active = [Active { session: session(1), guard: Some(Class(2)), quarantined: false }];
    second.reconcile(&active).expect("reconciled");
    in_step(&second, &shared);
    assert_eq!((second.view(session(1)).destinations(), second.held(None).0.len()), (vec![to(1)], 1));
    assert_ne!(second.view(session(1)).generation, 0, "asked of the other side");
}

#[test]
fn what_does_not_fit_is_refused_here_already() {
    let (mut mirror, shared, log) = pair();
    mirror.apply(&[Command::Guard { session: session(1), class: Class(0) }]);
    let fill: Vec<Command> = (0..CAPACITY as u8).map(|n| pin(1, n)).collect();
    assert!(mirror.apply(&fill).iter().all(Result::is_ok));
    let sent = log.commands().len();
    let results = mirror.apply(&[pin(1, 3), pin(1, 250), pin(1, 4)]);
    assert!(matches!(results[..], [Ok(()), Err(Error::Full { .. }), Ok(())]), "{results:?}");
    assert_eq!(log.commands().len(), sent + 2);
    in_step(&mirror, &shared);
}

#[test]
fn looks_come_whole_and_to_whoever_asked_for_them() {
    let (mut mirror, shared, _) = pair();
    let (out, seen) = std::sync::mpsc::channel();
    mirror.observe(Tell::new(move |observed| drop(out.send(observed)), || {}));
    let flows = (0..20_000u32).map(|n| (session(1), IpAddr::from(n.to_be_bytes()))).collect();
    let look = Observed { flows, volumes: Vec::new(), ranges: vec![9] };
    shared.lock().side.see(look.clone());
    let end = Instant::now() + Duration::from_secs(10);
    let told = loop {
        mirror.healthy().expect("healthy");
        match seen.try_recv() {
            Ok(told) => break told,
            Err(_) => assert!(Instant::now() < end, "nothing was told"),
        }
    };
    assert_eq!(told, look);
}

#[test]
fn nonsense_from_a_resolver_changes_nothing() {
    let mut side = Side::new(Box::new(DryRun::new(CAPACITY)), CAPACITY);
    assert!(matches!(side.answer(Request::Health), Reply::Refused { .. }), "nobody has said who it is");
    side.connect();
    let bad = Held {
        session: session(1),
        guard: Some(Class(99)),
        monitored: false,
        quarantined: false,
        leases: vec![HeldLease { to: to(1), open: Opening::Any, left_ms: 1 }],
        volumes: Vec::new(),
    };
    let fault = |reply: &Reply| matches!(reply, Reply::Done { fault: Some(_) });
    assert!(fault(&side.answer(Request::Hold { held: vec![bad], more: false })));
    let none = |n: u32| Held {
        session: IpAddr::from(n.to_be_bytes()),
        guard: None,
        monitored: true,
        quarantined: false,
        leases: Vec::new(),
        volumes: Vec::new(),
    };
    let parts = super::super::SESSIONS_MAX as u32 / 65_536 + 1;
    let replies: Vec<Reply> = (0..parts)
        .map(|part| {
            let held = (part * 65_536..(part + 1) * 65_536).map(none).collect();
            side.answer(Request::Hold { held, more: true })
        })
        .collect();
    assert!(fault(replies.last().expect("one")), "parts that are never whole do not grow without end");
    let commands =
        vec![Command::Guard { session: session(1), class: Class(99) }, Command::Unguard { session: session(2) }];
    let reply = side.answer(Request::Apply { commands });
    assert!(matches!(&reply, Reply::Results { results } if matches!(results[..], [Some(_), None])), "{reply:?}");
    assert_eq!(side.backend.held(None).0.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever breaks in between: when it is healthy both want the same, and what was acknowledged is held.
    #[test]
    fn both_sides_end_in_step(steps in proptest::collection::vec((0u8..12, 1u8..4, 0u8..8, 0u8..6), 1..60)) {
        let (mut mirror, shared, _) = pair();
        for (what, who, whom, fate) in steps {
            let session = session(who);
            shared.lock().fate = match fate {
                0 => Fate::Lost,
                1 => Fate::Unanswered,
                _ => Fate::Arrives,
            };
            let lost = mirror.lost.is_some();
            match what {
                0..=3 => {
                    let result = mirror.apply(&[pin(who, whom)]).remove(0);
                    prop_assert!(!(lost && result.is_ok()), "pinned without an other side");
                    prop_assert!(result.is_err() || mirror.view(session).destinations().contains(&to(whom)));
                }
                4 => drop(mirror.apply(&[Command::Unpin { session, destinations: vec![to(whom)] }, pin(who, whom)])),
                5 => drop(mirror.apply(&[Command::Guard { session, class: Class(whom) }])),
                6 => drop(mirror.apply(&[Command::Quarantine { session }, pin(who, whom)])),
                7 => drop(mirror.apply(&[Command::Release { session }])),
                8 => drop(mirror.apply(&[Command::Remove { session }])),
                9 => drop(mirror.reconcile(&[Active { session, guard: Some(Class(1)), quarantined: whom == 0 }])),
                10 => {
                    mirror.retry = Instant::now();
                    drop(mirror.healthy());
                }
                _ => drop(mirror.apply(&[Command::Unguard { session }])),
            }
        }
        shared.lock().fate = Fate::Arrives;
        mirror.retry = Instant::now();
        until_healthy(&mut mirror);
        in_step(&mirror, &shared);
    }
}
