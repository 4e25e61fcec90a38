//! What is denied here takes nothing along that is answered elsewhere (RFC 8020 section 2).

use crate::daemon::{Daemon, ENFORCE};
use crate::fake::{A, Fake, Reply, ask};

/// Rcode of `name`, and the TTL of the SOA that says so.
fn denied(daemon: &Daemon, name: &str) -> (u8, u32) {
    let answer = ask(daemon.address, "127.0.0.1", name, A);
    let ttl = answer.records.iter().find(|record| record.1 == 6).map(|record| record.2);
    (answer.rcode, ttl.unwrap_or_else(|| panic!("{name}: no SOA: {answer:?}")))
}

#[test]
fn a_name_above_one_that_the_configuration_speaks_of_is_not_denied() {
    let upstream = Fake::start(|query| vec![Reply::to(query).answer(&query.name, A, &[203, 0, 113, 5]).done()]);
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("zone");
    std::fs::write(&file, "@ 60 IN SOA ns hostmaster 1 60 60 60 60\nwww 60 IN A 203.0.113.7\n").expect("a zone");
    let zone = |name: &str| format!("[[zone]]\nname = {name:?}\nfile = {file:?}\n");
    let owned = "owner = \"tests\"\nreason = \"tests\"\nreview_by = \"2099-01-01\"\n";
    let more = format!(
        "{ENFORCE}{}{}[[forward]]\nzone = \"apps.cluster.local\"\nservers = [\"{}\"]\n{owned}\
         [[rule]]\nid = \"one\"\naction = \"allow\"\nnames = [\"nas.room.home.arpa\"]\n{owned}",
        zone("svc.corp.internal"),
        zone("own.corp"),
        upstream.address,
    );
    let daemon = Daemon::start_at(upstream.address, "off", &more);
    for above in ["corp.internal", "internal", "corp", "cluster.local", "room.home.arpa"] {
        assert_eq!(denied(&daemon, above), (0, 30), "{above}");
    }
    for (below, address) in [("www.svc.corp.internal", 7), ("www.own.corp", 7), ("x.apps.cluster.local", 5)] {
        let answer = ask(daemon.address, "127.0.0.1", below, A);
        assert_eq!(answer.addresses(), [std::net::IpAddr::from([203, 0, 113, address])], "{below}: {answer:?}");
    }
    for (beside, ttl) in [("other.internal", 10_800), ("other.home.arpa", 10_800), ("corporation", 30)] {
        assert_eq!(denied(&daemon, beside), (3, ttl), "{beside}");
    }
    assert_eq!(upstream.seen().iter().filter(|query| !query.name.ends_with("apps.cluster.local")).count(), 0);
}
