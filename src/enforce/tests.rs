//! The owner and its queue, with backends that do as a script says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::owner::CHECK_EVERY;
use super::state::State;
use super::*;
use std::net::Ipv4Addr;

const SECOND: Duration = Duration::from_secs(1);

fn session(n: u8) -> IpAddr {
    IpAddr::from([10, 77, 1, n])
}

/// One port, so that an address is a lease.
fn https() -> Ports {
    Ports::these([Port::tcp(443)]).expect("ports")
}

fn pin(n: u8, to: u32) -> Command {
    let destinations = vec![Ipv4Addr::from(0xc000_0200 + to).into()];
    Command::Pin { session: session(n), destinations, ports: https(), volume: None, lifetime: 60 * SECOND }
}

/// Does nothing before it is let go, and is well until then; tells when it is asked to.
struct Held(DryRun, Arc<Mutex<()>>, std::sync::mpsc::Sender<()>);

impl Backend for Held {
    fn kind(&self) -> BackendKind {
        BackendKind::DryRun
    }
    fn setup(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let _ = self.2.send(());
        drop(self.1.lock());
        self.0.apply(commands)
    }
    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        self.0.reconcile(active)
    }
    fn ranges(&mut self, _: &[Range]) -> Result<(), Error> {
        Ok(())
    }
    fn healthy(&mut self) -> Result<Health, Error> {
        if self.1.is_locked() {
            return Ok(Health::Intact);
        }
        Err(Error::Unhealthy("as the test wants it".into()))
    }
    fn teardown(&mut self, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn view(&self, session: IpAddr) -> View {
        self.0.view(session)
    }
    fn counts(&self) -> Counts {
        self.0.counts()
    }
}

#[test]
fn a_revoke_submitted_after_a_pin_closes_the_door_behind_it() {
    let enforcer = Enforcer::start_with(Box::new(DryRun::new(100)), 64).expect("starts");
    let tickets = [
        enforcer.submit(pin(1, 1)),
        enforcer.submit(Command::Quarantine { session: session(1) }),
        enforcer.submit(pin(1, 2)),
        enforcer.submit(Command::Release { session: session(1) }),
        enforcer.submit(pin(1, 3)),
    ];
    let results: Vec<_> = tickets.map(|t| t.expect("taken").wait_blocking(10 * SECOND)).into_iter().collect();
    assert!(matches!(results.as_slice(), [Ok(()), Ok(()), Err(Error::Quarantined { .. }), Ok(()), Ok(())]));
    let view = enforcer.view(session(1)).expect("taken").wait_blocking(10 * SECOND).expect("answered");
    assert_eq!(view.destinations(), [IpAddr::from([192, 0, 2, 3])]);
    enforcer.shutdown(true).expect("stops");
    assert!(matches!(enforcer.submit(pin(1, 4)), Err(Error::Stopped)));
    assert!(!enforcer.healthy(), "readiness does not outlive the owner");
}

#[test]
fn a_full_queue_refuses_at_once_and_a_late_acknowledgement_is_a_deadline() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let backend = DryRun::new(100);
    let log = backend.log();
    let (tell, asked) = std::sync::mpsc::channel();
    let enforcer = Enforcer::start_with(Box::new(Held(backend, Arc::clone(&gate), tell)), 4).expect("starts");
    let first = enforcer.submit(pin(1, 0)).expect("taken");
    assert!(matches!(first.wait_blocking(Duration::from_millis(20)), Err(Error::Deadline(_))));
    asked.recv_timeout(10 * SECOND).expect("the owner has taken it");
    // It holds the first; four more wait.
    let waiting: Vec<_> = (1..=4).map(|n| enforcer.submit(pin(1, n)).expect("room")).collect();
    let before = Instant::now();
    assert!(matches!(enforcer.submit(pin(1, 5)), Err(Error::QueueFull)));
    assert!(before.elapsed() < SECOND);
    drop(closed);
    for ticket in waiting {
        ticket.wait_blocking(10 * SECOND).expect("applied");
    }
    let status = enforcer.status();
    assert_eq!((status.submitted, status.applied, status.queue_full), (5, 5, 1));
    let expected: Vec<_> = (0..=4).map(|n| pin(1, n)).collect();
    assert_eq!(log.commands(), expected, "in order, the late one too");
    assert!(within(10 * SECOND, || !enforcer.healthy()).is_some());
    assert!(enforcer.status().last_error.is_some_and(|error| error.contains("as the test wants it")));
}

#[tokio::test]
async fn acknowledgements_can_be_awaited() {
    let enforcer = Enforcer::start_with(Box::new(DryRun::new(1)), 16).expect("starts");
    let first = enforcer.submit(pin(1, 1)).expect("taken");
    let second = enforcer.submit(pin(1, 2)).expect("taken");
    first.wait(10 * SECOND).await.expect("pinned");
    assert!(matches!(second.wait(10 * SECOND).await, Err(Error::Full { limit: 1 })));
    let off = Enforcer::start_with(Box::new(Off), 16).expect("starts");
    off.submit(pin(1, 1)).expect("taken").wait(10 * SECOND).await.expect("nothing to do");
}

/// A packet filter that can be taken away and that can be slow.
#[derive(Clone)]
struct Script(Arc<Mutex<Scripted>>);

struct Scripted {
    wanted: State,
    /// What packets meet.
    standing: State,
    lost: bool,
    pause: Duration,
}

impl Script {
    fn new() -> Self {
        let (wanted, standing) = (State::new(1 << 16, 16), State::new(1 << 16, 16));
        Self(Arc::new(Mutex::new(Scripted { wanted, standing, lost: false, pause: Duration::ZERO })))
    }

    /// Whether it is guarded, quarantined, and how many pins it has, for packets.
    fn standing(&self, n: u8) -> (bool, bool, usize) {
        let script = self.0.lock();
        let entry = script.standing.entry(session(n)).cloned().unwrap_or_default();
        (entry.guarded, entry.quarantined, entry.leases.len())
    }
}

impl Backend for Script {
    fn kind(&self) -> BackendKind {
        BackendKind::DryRun
    }
    fn setup(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let pause = self.0.lock().pause;
        std::thread::sleep(pause);
        let script = &mut *self.0.lock();
        let lost = || Error::Unhealthy("taken away".into());
        let one = |command: &Command| {
            if script.lost && matches!(command, Command::Pin { .. }) {
                return Err(lost());
            }
            script.wanted.apply(command, 0)?;
            if script.lost { Err(lost()) } else { script.standing.apply(command, 0) }
        };
        commands.iter().map(one).collect()
    }
    fn reconcile(&mut self, _: &[Active]) -> Result<(), Error> {
        Ok(())
    }
    fn ranges(&mut self, _: &[Range]) -> Result<(), Error> {
        Ok(())
    }
    fn healthy(&mut self) -> Result<Health, Error> {
        let script = &mut *self.0.lock();
        if script.lost {
            return Err(Error::Unhealthy("taken away".into()));
        }
        script.standing = script.wanted.clone();
        Ok(Health::Intact)
    }
    fn teardown(&mut self, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn view(&self, session: IpAddr) -> View {
        View::of(session, self.0.lock().standing.entry(session), 0)
    }
    fn counts(&self) -> Counts {
        Counts::default()
    }
}

fn within(patience: Duration, holds: impl Fn() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if holds() {
            return Some(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

#[test]
fn a_quarantine_behind_a_full_queue_is_applied_in_its_turn() {
    const LIMIT: usize = 512;
    let script = Script::new();
    script.0.lock().pause = Duration::from_millis(20);
    let enforcer = Enforcer::start_with(Box::new(script.clone()), LIMIT).expect("starts");
    let mut before = Vec::new();
    let mut refused = 0;
    while refused == 0 {
        match enforcer.submit(pin(1, before.len() as u32)) {
            Ok(ticket) => before.push(ticket),
            Err(error) => {
                assert!(matches!(error, Error::QueueFull), "{error}");
                refused += 1;
            }
        }
    }
    assert!(before.len() >= LIMIT);
    let asked = Instant::now();
    // Given again and again, it costs no room.
    let quarantines: Vec<_> = (0..1000)
        .map(|_| enforcer.submit(Command::Quarantine { session: session(1) }).expect("never refused"))
        .collect();
    let guard = enforcer.submit(Command::Guard { session: session(2), class: Class(1) }).expect("never refused");
    // A thousand and one that waited for a batch each would take twenty seconds.
    assert!(asked.elapsed() < script.0.lock().pause * 100, "submitting does not wait for the backend");
    assert!(enforcer.status().waiting <= LIMIT + 1000);
    let later = loop {
        match enforcer.submit(pin(1, 99_999)) {
            Ok(ticket) => break ticket,
            Err(error) => assert!(matches!(error, Error::QueueFull), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let taken = before.len() as u64;
    for ticket in before {
        ticket.wait_blocking(10 * SECOND).expect("a pin from before the quarantine is applied before it");
    }
    let results: Vec<_> = quarantines.into_iter().map(|ticket| ticket.wait_blocking(10 * SECOND)).collect();
    let (last, others) = results.split_last().expect("a thousand");
    assert!(last.is_ok());
    assert!(others.iter().all(|result| matches!(result, Ok(()) | Err(Error::Superseded))));
    guard.wait_blocking(10 * SECOND).expect("applied");
    assert!(matches!(later.wait_blocking(10 * SECOND), Err(Error::Quarantined { .. })));
    assert_eq!((script.standing(1), script.standing(2)), ((false, true, 0), (true, false, 0)));
    let status = enforcer.status();
    assert_eq!(status.applied + status.superseded, taken + 1000 + 1);
    assert_eq!((status.waiting, status.failed), (0, 1));
    println!("{taken} pins before, {} quarantines put together", status.superseded);
}

#[test]
fn what_is_ordered_while_the_table_is_gone_holds_once_it_stands_again() {
    let script = Script::new();
    let enforcer = Enforcer::start_with(Box::new(script.clone()), 64).expect("starts");
    let (sender, changes) = std::sync::mpsc::channel();
    let (owing, owed) = std::sync::mpsc::channel();
    enforcer.on_owed(|_| panic!("and so does this one"));
    enforcer.on_owed(move |is_owed| owing.send(is_owed).expect("listened to"));
    enforcer.on_health(|_| panic!("a watcher that fails; enforcement goes on"));
    enforcer.on_health(move |healthy| sender.send(healthy).expect("listened to"));
    for n in 1..=4 {
        enforcer.submit(pin(n, 1)).expect("taken").wait_blocking(10 * SECOND).expect("applied");
    }
    enforcer
        .submit(Command::Quarantine { session: session(4) })
        .expect("taken")
        .wait_blocking(10 * SECOND)
        .expect("applied");

    script.0.lock().lost = true;
    let noticed = within(10 * SECOND, || !enforcer.healthy()).expect("noticed");
    assert!(noticed < 10 * CHECK_EVERY, "{noticed:?}");
    assert_eq!(changes.recv_timeout(10 * SECOND), Ok(false));
    let asked = Instant::now();
    assert!(matches!(enforcer.submit(pin(1, 2)), Err(Error::Unhealthy(_))));
    assert!(asked.elapsed() < SECOND);
    drop(enforcer.submit(Command::Guard { session: session(5), class: Class(1) }).expect("taken"));
    assert!(owed.try_recv().is_err(), "it closes nothing");
    drop(enforcer.submit(Command::Remove { session: session(5) }).expect("taken"));
    assert_eq!(owed.try_recv(), Ok(true), "told before anything rests on it");
    let orders = [
        Command::Quarantine { session: session(1) },
        Command::Guard { session: session(2), class: Class(1) },
        Command::Remove { session: session(3) },
        Command::Release { session: session(4) },
    ];
    let tickets = orders.map(|order| enforcer.submit(order).expect("taken"));
    for ticket in tickets {
        assert!(matches!(ticket.wait_blocking(10 * SECOND), Err(Error::Unhealthy(_))));
    }
    assert_eq!(script.standing(1), (false, false, 1), "not yet");

    script.0.lock().lost = false;
    assert_eq!(changes.recv_timeout(10 * SECOND), Ok(true));
    assert!(enforcer.healthy());
    assert_eq!(owed.recv_timeout(10 * SECOND), Ok(false));
    let all = [1, 2, 3, 4].map(|n| script.standing(n));
    assert_eq!(all, [(false, true, 0), (true, false, 1), (false, false, 0), (false, false, 0)]);
    enforcer.submit(pin(2, 2)).expect("taken").wait_blocking(10 * SECOND).expect("applied");
    assert!(matches!(
        enforcer.submit(pin(1, 2)).expect("taken").wait_blocking(10 * SECOND),
        Err(Error::Quarantined { .. })
    ));
    assert_eq!(enforcer.status().refused_unhealthy, 1);
    enforcer.shutdown(false).expect("stops");
    assert!(changes.try_recv().is_err(), "an orderly end is no alarm");
    assert!(owed.try_recv().is_err());
    println!("noticed after {noticed:?}");
}

#[test]
fn an_owner_that_panics_is_an_alarm_and_strands_nobody() {
    struct Broken;
    impl Backend for Broken {
        fn kind(&self) -> BackendKind {
            BackendKind::DryRun
        }
        fn setup(&mut self) -> Result<(), Error> {
            Ok(())
        }
        fn apply(&mut self, _: &[Command]) -> Vec<Result<(), Error>> {
            panic!("as the test wants it")
        }
        fn reconcile(&mut self, _: &[Active]) -> Result<(), Error> {
            Ok(())
        }
        fn ranges(&mut self, _: &[Range]) -> Result<(), Error> {
            Ok(())
        }
        fn healthy(&mut self) -> Result<Health, Error> {
            Ok(Health::Intact)
        }
        fn teardown(&mut self, _: bool) -> Result<(), Error> {
            Ok(())
        }
        fn view(&self, _: IpAddr) -> View {
            View::default()
        }
        fn counts(&self) -> Counts {
            Counts::default()
        }
    }
    let enforcer = Enforcer::start_with(Box::new(Broken), 4).expect("starts");
    let (sender, changes) = std::sync::mpsc::channel();
    enforcer.on_health(move |healthy| sender.send(healthy).expect("listened to"));
    let ticket = enforcer.submit(Command::Quarantine { session: session(1) }).expect("taken");
    assert!(matches!(ticket.wait_blocking(10 * SECOND), Err(Error::Stopped)));
    assert_eq!(changes.recv_timeout(10 * SECOND), Ok(false));
    assert!(within(10 * SECOND, || matches!(enforcer.submit(pin(1, 1)), Err(Error::Stopped))).is_some());
    assert!(matches!(enforcer.submit(Command::Guard { session: session(1), class: Class(1) }), Err(Error::Stopped)));
    assert!(!enforcer.healthy());
}
