//! What was to be closed while the enforcer was away, and the resolver did not live to see it back.

use super::*;

/// Sessions are announced by the test alone, and some names are for a build.
fn unconfigured() -> Config {
    let mut config =
        config().rule("build", "allow", "\"*.build.example\"", "budget_bits = 8388607\nprofiles = [\"batch.build\"]\n");
    config.sessions = "# none\n".into();
    config.enforce = "min_pin_seconds = 120\nmax_pin_seconds = 600".into();
    config
}

/// An order of an operator, carried out or owed: the enforcer may be away.
fn order(staunch: &Staunch, words: &[&str]) {
    let output = staunch.run(words);
    assert!(matches!(output.status.code(), Some(0 | 14)), "{words:?}: {output:?}");
}

fn announce(staunch: &Staunch, id: &str, agent: &Agent, phase: &str) {
    let address = agent.address.to_string();
    order(staunch, &["session", "announce", id, "--address", &address, "--type", "batch", "--phase", phase]);
}

/// Both are killed, the enforcer first, and orders are given in between.
fn between(world: &World, enforcer: &mut Enforcer, staunch: &mut Staunch, orders: impl FnOnce(&Staunch)) {
    enforcer.kill();
    orders(staunch);
    staunch.kill();
    enforcer.restart(world);
    staunch.restart(world);
}

/// Whether what arrives has stopped within a second and a half.
fn has_ended(told: &std::sync::mpsc::Receiver<Instant>) -> bool {
    std::thread::sleep(Duration::from_millis(1500));
    told.try_iter().last().is_none_or(|last| last.elapsed() > Duration::from_millis(500))
}

/// Whether the journal's last word on it names a policy.
fn names_a_policy(staunch: &Staunch) -> bool {
    let journal = std::fs::read_dir(&staunch.state).expect("the state directory").flatten();
    let mut journal: Vec<_> = journal.map(|entry| entry.path()).filter(|path| is_journal(path)).collect();
    journal.sort();
    let text: String = journal.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let last = text.lines().rfind(|line| line.contains(r#""kind":"policy""#)).expect("a policy");
    !last.contains(r#""digest":"""#)
}

fn is_journal(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"))
}

#[test]
fn what_was_to_be_closed_while_the_enforcer_was_away_is_closed_by_a_restart() {
    let Some(world) = World::create(2) else { return };
    let (mut enforcer, mut staunch) = started(&world, unconfigured());
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let built = Ipv4Addr::new(203, 0, 113, 71);
    world.upstream.add("x.build.example", 300, Data::A(built));

    // An address that goes from one session to another.
    announce(&staunch, "first", one, "run");
    assert_eq!(answered(one, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    assert!(one.dial(WEB.into(), 80).0.is_ok());
    let told = download(one);
    between(&world, &mut enforcer, &mut staunch, |staunch| {
        order(staunch, &["session", "end", "first"]);
        announce(staunch, "second", one, "run");
    });
    assert_eq!(staunch.session_state("second"), "active");
    closed(one, WEB.into(), "what the session before had open");
    assert!(has_ended(&told), "its connection went on");

    // A session that is in another phase.
    announce(&staunch, "phased", two, "build");
    assert_eq!(answered(two, "x.build.example"), [IpAddr::from(built)], "{}", staunch.tail());
    assert!(two.dial(built.into(), 80).0.is_ok());
    between(&world, &mut enforcer, &mut staunch, |staunch| announce(staunch, "phased", two, "run"));
    order(&staunch, &["session", "end", "second"]);
    closed(two, built.into(), "what the phase before had open");

    // One that hangs is away too, which is found out by the very order.
    announce(&staunch, "third", one, "build");
    assert!(!answered(one, "x.build.example").is_empty(), "{}", staunch.tail());
    assert!(one.dial(built.into(), 80).0.is_ok());
    // SAFETY: a plain system call; the process is ours and not reaped.
    assert_eq!(unsafe { libc::kill(enforcer.pid() as i32, libc::SIGSTOP) }, 0);
    announce(&staunch, "third", one, "run");
    staunch.kill();
    enforcer.kill();
    enforcer.restart(&world);
    staunch.restart(&world);
    closed(one, built.into(), "what the phase before had open, behind one that hung");

    // Once the enforcer is in step nothing is owed, and a restart closes nothing.
    enforcer.kill();
    assert!(names_a_policy(&staunch));
    order(&staunch, &["session", "end", "third"]);
    assert!(!names_a_policy(&staunch), "on disk with the end");
    enforcer.restart(&world);
    assert_eq!(answered(two, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    assert!(two.dial(WEB.into(), 80).0.is_ok());
    let named = wait_for(Duration::from_secs(20), || names_a_policy(&staunch).then_some(()));
    assert!(named.is_some(), "it never names the policy again");
    staunch.kill();
    staunch.restart(&world);
    assert!(two.dial(WEB.into(), 80).0.is_ok(), "a lease that is alive is not cut\n{}", staunch.tail());
    closed(one, WEB.into(), "an address that is nobody's");
}
