//! Full sets, many pins, and how long they take.

use super::*;

#[test]
fn a_full_set_is_an_error_and_room_comes_back() {
    if skip() {
        return;
    }
    let world = World::new();
    let full = |result: &Result<(), Error>| matches!(result, Err(Error::Full { .. }));
    // By our own reckoning.
    let enforcer = world.try_start(Config { capacity: 3, ..config() }, as_is).expect("starts");
    apply(&enforcer, pin(AGENT, SERVER, 2 * SECOND));
    apply(&enforcer, pin(AGENT, SERVER_2, 60 * SECOND));
    let two = pins(OTHER, &[SERVER, SERVER_2], 60 * SECOND);
    let result = enforcer.submit(two.clone()).expect("taken").wait_blocking(5 * SECOND);
    assert!(full(&result), "{result:?}");
    std::thread::sleep(Duration::from_millis(2100));
    apply(&enforcer, two);
    enforcer.shutdown(true).expect("removed");

    // By the kernel's, in which somebody put elements of their own; good commands of the same batch are not lost.
    for refresh in [Refresh::InPlace, Refresh::Replace] {
        let mut nft = world.inside("g", move || {
            let mut nft = Nft::new(&Config { capacity: 3, ..config() }).expect("backend");
            nft = nft.with_ownership(false).with_refresh(refresh);
            nft.setup().expect("table");
            nft
        });
        let table = world.nft(&["list", "set", "inet", "staunch", "pins4"]).expect("set");
        let size = table.split_once("size ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u32>().ok());
        let strangers =
            (1..size.expect("size")).map(|n| format!("{OTHER} . {} . tcp . 80 timeout 1h", Ipv4Addr::from(n)));
        let strangers = format!("{{ {} }}", strangers.collect::<Vec<_>>().join(", "));
        world.nft(&["add", "element", "inet", "staunch", "pins4", &strangers]).expect("added");
        let commands =
            [pin(AGENT, SERVER, 60 * SECOND), pin(AGENT, SERVER_2, 60 * SECOND), pin(AGENT_6, SERVER_6, 60 * SECOND)];
        let results = nft.apply(&commands);
        assert!(results[0].is_ok() && full(&results[1]) && results[2].is_ok(), "{results:?}");
        let results = nft.apply(&[pin(AGENT, SERVER, 90 * SECOND)]);
        assert!(results[0].is_ok(), "a refresh needs no room: {results:?}");
        assert!(world.expires("pins4", &format!("{AGENT} . {SERVER}")).is_some_and(|left| left > 70 * SECOND));
        assert!(nft.view(ip(AGENT)).pins.len() == 1, "what was refused is not believed to be there");
        nft.teardown(true).expect("removed");
    }
}

fn backend(world: &World) -> Nft {
    world.inside("g", || {
        let mut nft = Nft::new(&config()).expect("backend");
        nft.setup().expect("table");
        nft
    })
}

/// Names with limits and without lead to one address, and are answered at the same moment.
#[test]
fn of_limits_in_one_batch_the_widest_counts() {
    if skip() {
        return;
    }
    let world = World::new();
    let mut nft = backend(&world);
    let limited = |to: &str, limit: Option<u64>| lease(AGENT, to, Ports::web(), limit);
    let listed = |set| world.nft(&["list", "set", "inet", "staunch", set]).expect("set");
    let held = |to: &str, text: &str| listed("volumes4").contains(&format!("{AGENT} . {to} quota over {text}"));
    for to in [SERVER, SERVER_2] {
        for (limits, widest) in [([50, 100], 100), ([100, 300], 300), ([200, 100], 300)] {
            let results = nft.apply(&limits.map(|limit| limited(to, Some(limit))));
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            assert!(held(to, &format!("{widest} bytes")), "{limits:?}: {}", listed("volumes4"));
        }
    }
    // Without a limit at all it is no longer among those that have one, in either order.
    for (to, limits) in [(SERVER, [Some(400), None]), (SERVER_2, [None, Some(400)])] {
        let results = nft.apply(&limits.map(|limit| limited(to, limit)));
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(!listed("volumes4").contains(&format!("{AGENT} . {to}")), "{}", listed("volumes4"));
        assert!(listed("counts4").contains(&format!("{AGENT} . {to}")), "it goes on counting: {}", listed("counts4"));
    }
    nft.teardown(true).expect("removed");
}

#[test]
fn limits_that_give_way_take_their_elements_along() {
    if skip() {
        return;
    }
    let world = World::new();
    let mut nft = backend(&world);
    let many = |from: u32, limit: Option<u64>| -> Vec<Command> {
        let each = |n: u32| {
            let destinations = (0..128).map(|m| IpAddr::from(Ipv4Addr::from(0xc612_0000 + from + 128 * n + m)));
            let ports = Ports::these([Port::tcp(443)]).expect("ports");
            let (destinations, lifetime) = (destinations.collect(), 60 * SECOND);
            Command::Pin { session: ip(AGENT), destinations, ports, volume: limit, lifetime }
        };
        (0..16).map(each).collect()
    };
    let mut held = 0;
    for (from, limit) in [(0, None), (2048, Some(1 << 20)), (4096, None), (6144, None)] {
        let commands = many(from, limit);
        let results = nft.apply(&commands);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        for command in commands {
            let Command::Pin { session, destinations, .. } = command else { continue };
            let results = nft.apply(&[Command::Unpin { session, destinations }]);
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
        held = nft.view(ip(AGENT)).volumes.len();
        let listed = |set| {
            let set = world.nft(&["list", "set", "inet", "staunch", set]).expect("set");
            set.matches(&format!("{AGENT} . ")).count()
        };
        let (listed, counts) = (listed("volumes4"), listed("counts4"));
        let limited = nft.view(ip(AGENT)).volumes.iter().filter(|volume| volume.limit.is_some()).count();
        println!("{held} volumes, {limited} of them limited, {listed} in the kernel");
        assert_eq!((listed, counts), (limited, 0), "nothing has been sent");
    }
    assert_eq!(held, staunch::enforce::SESSION_VOLUMES_MAX);
    nft.teardown(true).expect("removed");
}

#[test]
fn a_thousand_pins_from_many_tasks_are_all_acknowledged() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    for n in 0..50 {
        apply(&enforcer, Command::Guard { session: IpAddr::from([10, 77, 2, n]), class: Class(1) });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("runtime");
    let took = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for n in 0..50 {
            let (enforcer, took) = (enforcer.clone(), Arc::clone(&took));
            tasks.push(tokio::spawn(async move {
                for m in 0..20 {
                    let destinations = vec![IpAddr::from([198, 18, n, m]), IpAddr::from([198, 19, n, m])];
                    let session = IpAddr::from([10, 77, 2, n]);
                    let start = Instant::now();
                    let ticket = enforcer.submit(pin_ports(session, destinations, Port::tcp(80), 60 * SECOND));
                    ticket.expect("taken").wait(5 * SECOND).await.expect("acknowledged");
                    took.lock().expect("lock").push(start.elapsed());
                }
            }));
        }
        for task in tasks {
            task.await.expect("task");
        }
    });
    let mut times = took.lock().expect("lock").clone();
    assert_eq!(times.len(), 1000);
    println!("1,000 pins of two addresses, 50 tasks: p50, p99, max {:?}", quantiles(&mut times));
    let text = world.nft(&["list", "set", "inet", "staunch", "pins4"]).expect("set");
    assert_eq!(text.matches(" expires ").count(), 2000);
    let status = enforcer.status();
    assert_eq!((status.failed, status.queue_full, status.applied), (0, 0, 1050));

    let mut alone = Vec::new();
    for n in 0..2000 {
        let start = Instant::now();
        apply(&enforcer, pin("10.77.2.0", &Ipv4Addr::from(0xcb00_0000 + n).to_string(), 60 * SECOND));
        alone.push(start.elapsed());
    }
    println!("one at a time, queue and thread switches included: p50, p99, max {:?}", quantiles(&mut alone));
}

fn quantiles(times: &mut [Duration]) -> [Duration; 3] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100], times[times.len() - 1]]
}

#[test]
fn the_kernels_word_on_a_pin_takes_microseconds() {
    if skip() {
        return;
    }
    let world = World::new();
    for refresh in [Refresh::InPlace, Refresh::Replace] {
        let [first, again] = world.inside("g", move || {
            let mut nft = Nft::new(&config()).expect("backend").with_refresh(refresh);
            nft.setup().expect("table");
            let rounds = [60 * SECOND, 90 * SECOND].map(|lifetime| {
                let mut times = Vec::new();
                for n in 0..2000 {
                    let command = pin(AGENT, &Ipv4Addr::from(0xcb00_0000 + n).to_string(), lifetime);
                    let start = Instant::now();
                    let results = nft.apply(std::slice::from_ref(&command));
                    times.push(start.elapsed());
                    assert!(matches!(results.as_slice(), [Ok(())]), "{results:?}");
                }
                quantiles(&mut times)
            });
            nft.teardown(true).expect("removed");
            rounds
        });
        println!("{refresh:?}: add p50, p99, max {first:?}; refresh {again:?}");
        assert!(first[0] < Duration::from_millis(1) && again[0] < Duration::from_millis(1));
    }
}

#[test]
fn ten_thousand_pins_are_back_within_a_second() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    let sessions: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 77, 2, n])).collect();
    for session in &sessions {
        apply(&enforcer, Command::Guard { session: *session, class: Class(1) });
        let destinations = (0..100).map(|m| IpAddr::from([198, 18, 0, m])).collect();
        apply(&enforcer, pin_ports(*session, destinations, Port::tcp(80), 600 * SECOND));
    }
    assert!(within(5 * SECOND, || enforcer.status().counts.pins4 == 10_000).is_some());
    let before = enforcer.status().counts.restored;
    let start = Instant::now();
    world.nft(&["delete", "table", "inet", "staunch"]).expect("deleted");
    assert!(within(2 * SECOND, || enforcer.status().counts.restored > before).is_some());
    println!("10,000 pins back {:?} after the deletion", start.elapsed());
    assert!(start.elapsed() < SECOND);
    let text = world.nft(&["list", "set", "inet", "staunch", "pins4"]).expect("set");
    assert_eq!(text.matches(" expires ").count(), 10_000);
    let start = Instant::now();
    let active = sessions.iter().take(50).map(|s| Active { session: *s, guard: Some(Class(1)), quarantined: false });
    enforcer.reconcile(active.collect()).expect("taken").wait_blocking(5 * SECOND).expect("reconciled");
    println!("reconciled to 5,000 pins in {:?}", start.elapsed());
    let text = world.nft(&["list", "set", "inet", "staunch", "pins4"]).expect("set");
    assert_eq!(text.matches(" expires ").count(), 5_000);
}
