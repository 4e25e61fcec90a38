//! Trust anchors as their zones' owners roll them.

use super::local::{NO_KEY, codes, forget, metric};
use super::*;

/// RFC 5011, with the hold-down time put into what was written before a restart.
#[test]
fn a_key_of_the_roots_that_has_stood_for_thirty_days_is_an_anchor() {
    let Some((world, signed)) = Net::outside(Kind::Unchecked) else { return };
    let (anchors, other) = (world.path("own.anchors"), ". IN DS 1 13 2 00\n");
    std::fs::copy(signed.anchor(), &anchors).expect("the anchor");
    let config = Config::enforce().tables(&format!("[dnssec]\nvalidate = true\ntrust_anchors = {anchors:?}\n"));
    let staunch = Staunch::start(&world, &config);
    let file = staunch.state.join("trust-anchors");
    let mut net = Net { staunch, signed, world };
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let is_said = |word: &str| world::wait_for(Duration::from_secs(10), || read().contains(word).then_some(()));
    assert!(is_said(" pending ").is_some(), "{}", read());
    let secure = |net: &Net| net.through(&query("www.nsec.org", rtype::A, false, AD));
    // The key is not trusted before its time: the configured anchor is another's meanwhile.
    std::fs::write(&anchors, other).expect("written");
    forget(&net);
    let reply = secure(&net);
    assert_eq!((reply.rcode(), codes(&reply)), (rcode::SERVFAIL, vec![NO_KEY]), "{reply:?}");
    std::fs::copy(net.signed.anchor(), &anchors).expect("the anchor");
    forget(&net);
    assert_eq!(secure(&net).flags & AD, AD);
    // A month later.
    net.staunch.kill();
    let month = 31 * 86_400_000u64;
    let earlier = |line: &str| match line.rsplit_once(" pending ") {
        Some((key, since)) => format!("{key} pending {}\n", since.parse::<u64>().expect("a time") - month),
        None => format!("{line}\n"),
    };
    std::fs::write(&file, read().lines().map(earlier).collect::<String>()).expect("written");
    net.staunch.restart(&net.world);
    assert!(is_said(" trusted ").is_some(), "{}", read());
    assert_eq!(metric(&net.world, "staunch_dnssec_anchor_keys{state=\"trusted\"}"), 1);
    // It stands by itself, behind a reload and behind a restart.
    std::fs::write(&anchors, other).expect("written");
    forget(&net);
    assert_eq!(secure(&net).flags & AD, AD);
    net.staunch.kill();
    net.staunch.restart(&net.world);
    assert_eq!(secure(&net).flags & AD, AD);
    // One that its owner has revoked is none, whoever names it.
    net.staunch.kill();
    std::fs::write(&file, read().replace(" trusted ", " revoked ")).expect("written");
    net.staunch.restart(&net.world);
    let reply = secure(&net);
    assert_eq!((reply.rcode(), codes(&reply)), (rcode::SERVFAIL, vec![NO_KEY]), "{reply:?}");
}
