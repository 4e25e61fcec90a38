//! Real tunnel tools against the real resolver: none may move a file, and none may get more than a few names out.
//!
//! `e2e_world` is the control: there the same tools move the same file through a plain forwarder.

mod world;

use std::time::Duration;

use world::World;
use world::dns::rtype;
use world::staunch::{Config, Staunch};
use world::tunnel::{self, Outcome, Tool};

/// Names that may have reached the attacker before the stop.
const MOST_NAMES: usize = 12;
/// Octets of their labels left of the attacker's registrable domain.
const MOST_OCTETS: usize = 256;
/// Long enough for each tool to try all it knows and give up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hosts alone: TXT, CNAME and MX are refused by their type.
const HOST_TYPES: &str = "[profile.interactive]\nqtypes = [\"A\", \"AAAA\", \"HTTPS\"]\n";

#[test]
fn no_tool_moves_a_file_past_the_shipped_profile() {
    stopped(Config::enforce(), &["A", "NULL", "KEY", "TXT", "CNAME", "MX"]);
}

#[test]
fn no_tool_moves_a_file_where_hosts_alone_are_answered() {
    stopped(Config::enforce().tables(HOST_TYPES), &["A", "NULL", "KEY"]);
}

#[test]
fn monitor_mode_records_the_same_verdicts_and_lets_the_tunnel_work() {
    let Some(world) = World::create(tunnel::ALL.len() as u8) else { return };
    let staunch = Staunch::start(&world, &Config::monitor());
    let outcomes = tunnel::attempt(&world, &tunnel::ALL, Duration::from_secs(60));
    let events = staunch.events();
    for (i, outcome) in outcomes.iter().enumerate() {
        let id = format!("agent-{}", i + 1);
        let of_session =
            |field: &str, value: &str| events.iter().filter(|e| e["session"] == *id && e[field] == value).count();
        let (would, did) = (of_session("would", "quarantine"), of_session("verdict", "quarantine"));
        let refused = of_session("verdict", "sinkhole");
        report("monitor", &world, outcome, &format!("{would} events with `would` quarantine"));
        // Names go out in lower case, or in one drawn for each, in every mode, which is the end of dns2tcp (see `e2e_world`):
        // where case is drawn it does not even get past its greeting, which alone is worth no verdict.
        assert_eq!(outcome.whole, !tunnel::needs_case(outcome.tool), "{:?}: {}", outcome.tool, outcome.log);
        assert!(would > 0 || tunnel::needs_case(outcome.tool), "{:?}: no verdict recorded", outcome.tool);
        assert_eq!((did, refused), (0, 0), "{:?}: monitor mode refused something", outcome.tool);
        assert_ne!(staunch.session_state(&id), "quarantined", "{:?}", outcome.tool);
    }
}

/// `closed`: types under which a tool must get its session quarantined, unless it gives up behind its first refusals by
/// the score, before what it tried is worth a quarantine; under the others every query is refused by its type, so that
/// nothing at all may reach the attacker.
fn stopped(config: Config, closed: &[&str]) {
    let tools = tunnel::ALL;
    // One sandbox more than tools: it does ordinary work all the while.
    let Some(world) = World::create(tools.len() as u8 + 1) else { return };
    let staunch = Staunch::start(&world, &config);
    let bystander = world.agents.last().expect("a sandbox");
    let answered = || bystander.ask("www.site.example", rtype::A).expect("an answer").addresses();
    assert_eq!(answered(), [world::WEB], "the control session is served before");

    let outcomes = tunnel::attempt(&world, &tools, PATIENCE);
    let events = staunch.events();
    let mut faults = Vec::new();
    for (i, outcome) in outcomes.iter().enumerate() {
        let id = format!("agent-{}", i + 1);
        let state = staunch.session_state(&id);
        let scored = events.iter().any(|e| e["session"] == *id && e["verdict"] == "sinkhole" && e["reason"] == "score");
        let gave_up = outcome.took < PATIENCE && scored && state == "watched";
        report("enforce", &world, outcome, &format!("session {state}"));
        let (names, octets) = world.upstream.leaked(&outcome.domain);
        let mut fault = |what: String| faults.push(format!("{:?}: {what}", outcome.tool));
        if outcome.arrived > 0 {
            fault(format!("{} octets of the file arrived", outcome.arrived));
        }
        let (Tool::Iodine(rtype) | Tool::Dns2tcp(rtype)) = outcome.tool;
        if closed.contains(&rtype) && state != "quarantined" && !gave_up {
            fault(format!("session is `{state}`, not quarantined"));
        }
        if !closed.contains(&rtype) && names > 0 {
            fault(format!("{names} names reached the attacker by a type that is not answered"));
        }
        if names > MOST_NAMES || octets > MOST_OCTETS {
            fault(format!("{names} names with {octets} octets reached the attacker"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}\n{}", staunch.tail());
    assert_eq!(answered(), [world::WEB], "the control session is served after");
}

fn report(mode: &str, world: &World, outcome: &Outcome, end: &str) {
    let (names, octets) = world.upstream.leaked(&outcome.domain);
    let tool = match outcome.tool {
        Tool::Iodine(rtype) => format!("iodine {rtype}"),
        Tool::Dns2tcp(rtype) => format!("dns2tcp {rtype}"),
    };
    println!(
        "FIGURE: {mode}, {tool}: {} of {} octets of the file arrived in {:.1} s; {names} names with {octets} payload \
         octets at the attacker; {end}",
        outcome.arrived,
        tunnel::FILE,
        outcome.took.as_secs_f32()
    );
}
