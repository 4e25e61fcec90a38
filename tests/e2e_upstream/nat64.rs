//! Behind a DNS64: addresses that lead to IPv4 are judged by where they lead, and clients are told the prefix.

use std::net::Ipv6Addr;

use crate::daemon::{self, Daemon};
use crate::fake::{AAAA, Fake, Reply, ask};

/// The rebinding guard holds in monitor mode too, where no packet filter keeps a session without IPv6 from AAAA.
fn config(answer: &str) -> String {
    format!(
        "[policy]\nmode = \"monitor\"\n[answer]\n{answer}\n\
         [[session]]\nid = \"s1\"\naddresses = [\"127.0.0.1\"]\ntype = \"batch\"\n"
    )
}

fn addresses(daemon: &Daemon, name: &str) -> Vec<Ipv6Addr> {
    let answer = ask(daemon.address, "127.0.0.1", name, AAAA);
    let address = |data: &Vec<u8>| <[u8; 16]>::try_from(data.as_slice()).ok().map(Ipv6Addr::from);
    answer.records.iter().filter(|record| record.1 == AAAA).filter_map(|record| address(&record.3)).collect()
}

#[test]
fn an_inside_address_is_inside_by_whichever_prefix_it_is_reached() {
    // The name says which address it has.
    let upstream = Fake::start(|query| {
        let address: Ipv6Addr = match query.name.split('.').next() {
            Some("well-known-inside") => "64:ff9b::10.0.0.1",
            Some("own-inside") => "2001:db8:64::10.0.0.1",
            Some("own-metadata") => "2001:db8:64::169.254.169.254",
            Some("well-known") => "64:ff9b::203.0.113.5",
            _ => "2001:db8:64::203.0.113.5",
        }
        .parse()
        .expect("an address");
        vec![Reply::to(query).answer(&query.name, AAAA, &address.octets()).done()]
    });
    let daemon = Daemon::start_at(upstream.address, "off", &config(""));
    let shown = |what: &str| addresses(&daemon, &format!("{what}.site.example")).len();
    let rows = ["well-known", "own", "well-known-inside", "own-inside", "own-metadata"];
    assert_eq!(rows.map(shown), [1, 1, 0, 1, 1], "an own prefix that is not named looks like any network");
    assert_eq!(addresses(&daemon, "ipv4only.arpa"), [""; 0].map(|_| Ipv6Addr::UNSPECIFIED), "none is told");

    let file = daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("configuration");
    let named = text.replace("[answer]\n", "[answer]\nnat64_prefixes = [\"2001:db8:64::/96\"]\n");
    std::fs::write(&file, named).expect("written");
    assert_eq!(daemon::code(&daemon.run(&["reload"])), 0);
    assert_eq!(rows.map(shown), [1, 1, 0, 0, 0]);
    let told = ["2001:db8:64::c000:aa", "2001:db8:64::c000:ab"].map(|text| text.parse::<Ipv6Addr>().expect("address"));
    assert_eq!(addresses(&daemon, "ipv4only.arpa"), told);
    assert_eq!(upstream.asked("ipv4only.arpa"), 0, "nobody else is asked");
}
