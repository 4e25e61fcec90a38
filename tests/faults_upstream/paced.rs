//! What one of two upstreams that fails costs a session which asks at a steady pace, beside what the same session pays in the
//! same run while both are well.

use crate::*;

/// Between two questions, which leave whether or not the last one was answered.
const EVERY: Duration = Duration::from_millis(10);

/// Asks fresh names at a steady pace; in the order in which they left.
fn paced(agent: &Agent, prefix: &str, count: usize) -> Vec<Asked> {
    let (names, server) = (Vec::from_iter(fresh(prefix, count)), SocketAddr::from((agent.gateway, 53)));
    agent.ns.run(async move {
        let mut turns = tokio::time::interval(EVERY);
        let mut tasks = Vec::new();
        for name in names {
            turns.tick().await;
            tasks.push(tokio::spawn(async move {
                let query = Query::new(&name, rtype::A).edns(1232).encode();
                let begun = Instant::now();
                let reply = client::udp(None, server, &query, Duration::from_secs(10)).await.ok();
                Asked { name, took: begun.elapsed(), reply }
            }));
        }
        let mut asked = Vec::new();
        for task in tasks {
            asked.push(task.await.expect("asked"));
        }
        asked
    })
}

#[test]
fn one_that_fails_for_long_costs_a_steady_session_nothing_once_it_is_known() {
    let Some((world, second)) = world() else { return };
    let agent = &world.agents[0];
    // How long it may take to be known: three probes of one that is silent, a few turns of one that flaps.
    let rows = [
        ("silent", Fault::Silent, 100),
        ("slow 1.5 s", Fault::Slow(Duration::from_millis(1500)), 100),
        ("SERVFAIL", Fault::Rcode(rcode::SERVFAIL), 0),
        ("flap 1 Hz", Fault::Flaps(Duration::from_secs(1)), 500),
    ];
    for (row, (what, fault, known)) in rows.into_iter().enumerate() {
        world.upstream.fails(None);
        let staunch = Staunch::start(&world, &two(Config::monitor()));
        let well = paced(agent, &format!("w{row}n"), 200);
        world.upstream.fails(Some(fault));
        let met = paced(agent, &format!("m{row}n"), known);
        world.upstream.forget();
        second.forget();
        // The middle one of three, so that a moment in which the machine did something else counts for nothing.
        let mut after: Vec<Vec<Asked>> = (0..3).map(|n| paced(agent, &format!("a{row}x{n}n"), 150)).collect();
        after.sort_by_key(|asked| quantile(asked, 95));
        let (before, behind) = (quantile(&well, 95), quantile(&after[1], 95));
        let hedged = metric(&world, "upstream_hedged_total");
        println!(
            "FIGURE: first of two upstreams {what}, a question every 10 ms: p95 {:.1} ms while both are well, {:.1} ms at first, \
             then {:.1}; {hedged} asked twice before the first had failed",
            before.as_secs_f64() * 1e3,
            if met.is_empty() { 0.0 } else { quantile(&met, 95).as_secs_f64() * 1e3 },
            behind.as_secs_f64() * 1e3,
        );
        let all = well.iter().chain(&met).chain(after.iter().flatten());
        assert!(all.clone().all(Asked::is_answered), "{what}: {}", staunch.tail());
        // Twice the usual is what a busy machine makes of it.
        assert!(
            behind <= 2 * before + COST,
            "{what}: p95 {behind:?}, {before:?} while both were well\n{}",
            staunch.tail()
        );
        let asked: Vec<_> = world.upstream.seen().into_iter().map(|seen| seen.name).collect();
        let sent = |name: &str| asked.iter().filter(|seen| seen.eq_ignore_ascii_case(name)).count();
        let firsts = after.iter().flatten().filter(|one| sent(&one.name) > 0).count();
        // Of one that fails at once nothing is felt, so it may be asked; of another few questions pay to find out that it is back.
        assert!(known == 0 || firsts * 20 <= 450, "{what}: {firsts} of 450 were put to it first");
    }
}
