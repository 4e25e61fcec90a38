//! What a sandbox connects to is told from what it only resolves.

mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use world::dns::{Data, rtype};
use world::staunch::{Config, Staunch};
use world::{WEB, World};

#[test]
fn a_name_that_was_connected_to_is_told_from_one_that_was_only_resolved() {
    let Some(world) = World::create(2) else { return };
    let unused = Ipv4Addr::new(203, 0, 113, 78);
    world.upstream.add("idle.site.example", 300, Data::A(unused));
    let staunch = Staunch::start(&world, &Config::enforce());
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    for agent in [one, two] {
        for name in ["www.site.example", "idle.site.example"] {
            assert_eq!(agent.ask(name, rtype::A).expect("an answer").addresses().len(), 1);
        }
    }
    assert!(one.dial(IpAddr::from(WEB), 80).0.is_ok(), "the control connects\n{}", staunch.tail());
    let connected = |session: &str| staunch.json(&["session", "show", session])["names_connected"].as_u64();
    let told = world::wait_for(Duration::from_secs(25), || (connected("agent-1") == Some(1)).then_some(()));
    assert!(told.is_some(), "{:?}\n{}", connected("agent-1"), staunch.tail());
    // The next look finds the same flow, and neither name once more.
    assert!(one.dial(IpAddr::from(WEB), 80).0.is_ok());
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!((connected("agent-1"), connected("agent-2")), (Some(1), Some(0)));
}
