//! The kernel does not take an order to the packet filter, or its word on it is lost.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::inject::{Inject, can_inject};
use crate::world::dns::{Message, rcode, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::{Agent, World, wait_for};
use crate::{logged, metric, page, without};

/// How long an answer is held at most for the kernel's word.
const PROMISED: Duration = Duration::from_millis(50);
/// For each of them; the rest is what a busy machine and a thread that is traced may add.
const HELD: Duration = Duration::from_millis(700);

/// Half of them came within this.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// An address of its own for each number, so that no earlier pin opens it.
fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, n).into()
}

/// Asks for the name of a number: what came, and after what time.
fn ask(agent: &Agent, n: u8) -> (Message, Duration) {
    let begun = Instant::now();
    let reply = agent.ask_edns(&format!("n{n}.fresh.example"), rtype::A).expect("a reply, not silence");
    (reply, begun.elapsed())
}

/// Checks that a reply is either the address, which can be dialled then, or a failure that says why. Whether it was shown.
fn check(agent: &Agent, n: u8, (reply, took): &(Message, Duration), staunch: &Staunch) -> bool {
    assert!(*took < HELD, "{n}: held for {took:?}");
    if reply.addresses() == [address(n)] {
        assert!(agent.dial(address(n), 80).0.is_ok(), "{n}: an answer without its pin\n{}", staunch.tail());
        return true;
    }
    assert_eq!((reply.rcode(), reply.addresses().len()), (rcode::SERVFAIL, 0), "{n}: {reply:?}");
    assert!(reply.errors().iter().any(|(code, _)| *code == 14), "{n}: {:?}", reply.errors());
    false
}

#[test]
fn an_order_that_the_kernel_does_not_take_shows_no_address_and_is_mended() {
    let Some(world) = World::create(1) else { return };
    if !can_inject() {
        return without("strace");
    }
    let agent = &world.agents[0];
    (0..=250).for_each(|n| world.upstream.add_site(&format!("n{n}.fresh.example"), address(n)));
    let mut config = Config::enforce().rule("fresh", "allow", "\"fresh.example\"", "");
    config.enforce = format!("deadline_ms = {}\n", PROMISED.as_millis());
    let staunch = Staunch::start(&world, &config);
    assert!(check(agent, 0, &ask(agent, 0), &staunch), "{}", staunch.tail());
    let healthy = || (metric(&world, "staunch_enforcement_healthy") == 1.0).then_some(());
    // What a name costs while the kernel is well.
    let well = median(&mut (221..=250).map(|n| ask(agent, n).1).collect::<Vec<_>>());

    // Now and then one call fails: the word on a batch that took effect, or the batch itself. What is read back behind it takes some
    // thirty calls.
    let mut next = 1;
    for faults in
        ["recvfrom:error=ENOBUFS:when=20+60", "sendto:error=ENOBUFS:when=20+60", "sendto:error=EBUSY:when=20+60"]
    {
        let kernel = Inject::on(&world, &staunch, "enforce", &[faults]);
        let (mut shown, mut held) = (0, Vec::new());
        for n in next..next + 50 {
            let asked = ask(agent, n);
            held.push(asked.1);
            shown += u32::from(check(agent, n, &asked, &staunch));
            std::thread::sleep(Duration::from_millis(15));
        }
        next += 50;
        let failed = kernel.stop();
        let half = median(&mut held);
        println!(
            "FIGURE: {faults}: {failed} calls failed, {shown} of 50 shown, half of them within {} ms ({} while the kernel is well), \
             slowest {} ms",
            half.as_millis(),
            well.as_millis(),
            held[49].as_millis()
        );
        assert!(failed > 1 && shown > 10, "{failed} {shown}");
        assert!(half <= well + PROMISED, "{half:?}, {well:?} while the kernel is well");
        assert!(wait_for(Duration::from_secs(5), healthy).is_some(), "{}", staunch.tail());
    }

    // For a while no word of the kernel comes through at all, though it does what it is told.
    let refused: Vec<u8> = (next..next + 20).collect();
    let kernel = Inject::on(&world, &staunch, "enforce", &["recvfrom:error=ENOBUFS"]);
    let mut held = Vec::new();
    for n in &refused {
        let asked = ask(agent, *n);
        assert!(!check(agent, *n, &asked, &staunch), "{n}: shown without the kernel's word");
        held.push(asked.1);
        // For as long as the table is looked after many times.
        std::thread::sleep(Duration::from_millis(75));
    }
    let half = median(&mut held);
    println!("FIGURE: without any word of the kernel half of 20 are refused within {} ms", half.as_millis());
    assert!(half <= well + 2 * PROMISED, "{half:?}, {well:?} while the kernel is well");
    assert!(wait_for(Duration::from_secs(8), || page(&world, "/readyz").0.contains("503").then_some(())).is_some());
    let failed = kernel.stop();
    let begun = Instant::now();
    assert!(wait_for(Duration::from_secs(5), healthy).is_some(), "{}", staunch.tail());
    println!(
        "FIGURE: {failed} words of the kernel lost: whole again {} ms after the first that came",
        begun.elapsed().as_millis()
    );
    // Dumped and compared: what nobody was shown is not open, whatever the kernel made of the batches.
    for n in &refused {
        assert!(agent.dial(address(*n), 80).0.is_err(), "{n} is open and nobody was told of it");
    }
    assert!(agent.dial(address(0), 80).0.is_ok(), "what was shown before is open");
    for n in &refused {
        let begun = Instant::now();
        while !check(agent, *n, &ask(agent, *n), &staunch) {
            assert!(begun.elapsed() < Duration::from_secs(5), "{n}: not shown again\n{}", staunch.tail());
        }
    }
    assert_eq!(logged(&staunch, "panicked"), 0, "{}", staunch.tail());
}
