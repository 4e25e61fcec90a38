//! The enforcer killed again and again: what each kill costs, and that none of them opens or loses anything.

use super::*;

/// Denied so long after a kill, whatever is asked.
const DENIED: Duration = Duration::from_millis(100);
/// Pinned again so long after its start.
const BACK: Duration = Duration::from_secs(2);

/// `STAUNCH_KILLS` says how often.
#[test]
fn an_enforcer_that_is_killed_two_hundred_times_is_a_denial_each_time_and_loses_no_lease() {
    let kills = std::env::var("STAUNCH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let Some(world) = World::create(1) else { return };
    let mut config = config();
    config.enforce = "max_pin_seconds = 3600\n".into();
    world.upstream.add("kept.site.example", 3600, Data::A(WEB));
    let (mut enforcer, staunch) = started(&world, config);
    let agent = &world.agents[0];
    let mut fresh = Fresh(0);
    until_pinned(&world, agent, &mut fresh, &staunch);
    assert!(answered(agent, "kept.site.example") == [IpAddr::from(WEB)], "{}", staunch.tail());
    let told = download(agent);
    let (mut late, mut back) = (0, Vec::new());
    for round in 0..kills {
        enforcer.kill();
        let killed = Instant::now();
        // Questions that leave from then on; one that was on its way may have been acknowledged.
        std::thread::sleep(DENIED);
        let (name, address) = fresh.name(&world);
        for name in [&*name, "kept.site.example"] {
            let asked = killed.elapsed();
            let reply = agent.ask_edns(name, rtype::A).expect("a reply, not silence");
            let is_denied =
                reply.rcode() == rcode::SERVFAIL && reply.errors().iter().any(|(code, _)| *code == NOT_READY);
            assert!(is_denied || !reply.addresses().is_empty(), "round {round}: {reply:?}");
            // A machine that did something else for a while may have noticed late.
            assert!(is_denied || asked < 3 * DENIED, "round {round}: {name} answered {asked:?} after the kill");
            late += u32::from(!is_denied);
        }
        if round % 10 == 0 {
            assert!(agent.dial(WEB.into(), 80).0.is_ok(), "round {round}: the lease is the kernel's");
            closed(agent, NEVER.into(), "what no name leads to");
        }
        let ready = enforcer.restart(&world);
        back.push(ready + until_pinned(&world, agent, &mut fresh, &staunch));
        if asked(agent, &name) != [address] {
            assert_eq!(answered(agent, &name), [address], "round {round}: what was denied is answered now");
        }
    }
    back.sort();
    println!(
        "FIGURE: an enforcer killed {kills} times: {late} of {} questions answered {} ms behind a kill; pins again after {:.0} ms \
         in the median, {:.0} at most",
        2 * kills,
        DENIED.as_millis(),
        ms(back[back.len() / 2]),
        ms(back[back.len() - 1])
    );
    assert!(late <= kills / 50, "{late} questions answered {DENIED:?} after a kill");
    assert!(back[back.len() * 95 / 100] < BACK, "{back:?}");
    assert!(agent.dial(WEB.into(), 80).0.is_ok(), "the first lease lives on");
    assert!(runs_on(&told), "a connection that was open all the time was cut");
}
