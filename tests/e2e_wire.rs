//! What leaves the gateway, seen on its outer interface: nothing of a refused query (P1), and of an answered one only
//! what was judged (P2).

mod world;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use world::capture::Capture;
use world::dns::{Message, Query, rcode, rtype};
use world::staunch::{Config, Staunch};
use world::{OUTSIDE_INTERFACE, World, wait_for};

const COUNT: usize = 200;

/// Waits until the resolver knows how the upstream treats datagrams: two questions of its own.
fn trials_are_over(world: &World) {
    wait_for(Duration::from_secs(20), || (world.upstream.trials() >= 2).then_some(())).expect("the upstream is tried");
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn two_hundred_refused_queries_cause_no_packet_outside() {
    let Some(world) = World::create(5) else { return };
    let stranger = Ipv4Addr::new(10, 77, 4, 9);
    world.agents[3].ns.ip(&[&format!("addr add {stranger}/24 dev eth0")]);
    let sessions = "[[session]]\nid = \"denied\"\naddresses = [\"10.77.1.2\"]\ntype = \"interactive\"\n\
                    [[session]]\nid = \"types\"\naddresses = [\"10.77.2.2\"]\ntype = \"scheduled\"\n\
                    [[session]]\nid = \"closed\"\naddresses = [\"10.77.3.2\"]\ntype = \"batch\"\n\
                    [[session]]\nid = \"octets\"\naddresses = [\"10.77.4.2\"]\ntype = \"interactive\"\n\
                    [[session]]\nid = \"control\"\naddresses = [\"10.77.5.2\"]\ntype = \"interactive\"\n";
    let mut config = Config::enforce()
        .tables("[profile.batch]\nunlisted = \"refuse\"\n[profile.scheduled]\nqtypes = [\"A\", \"AAAA\", \"HTTPS\"]\n")
        .deny("no", "denied.example")
        .allow_exact("yes", ["www.site.example"]);
    config.sessions = sessions.into();
    let staunch = Staunch::start(&world, &config);
    trials_are_over(&world);
    let capture = Capture::start(&world.gw, OUTSIDE_INTERFACE);
    let control = &world.agents[4];

    control.ask("www.site.example", rtype::A).expect("an answer");
    assert_eq!(capture.ip_packets().len(), 2, "the control query goes out and its answer comes back");
    capture.forget();
    world.upstream.forget();

    let types = [rtype::A, rtype::AAAA, rtype::HTTPS, rtype::TXT];
    let others = [rtype::NULL, rtype::TXT, rtype::MX, rtype::SRV, rtype::KEY, rtype::CNAME];
    let mut slowest = Duration::ZERO;
    let (mut refused, mut over_tcp) = (0, 0);
    for i in 0..COUNT {
        let turn = i / 5;
        let (agent, query) = match i % 5 {
            0 => (0, Query::new(&format!("x{turn}.denied.example"), types[turn % types.len()])),
            1 => (1, Query::new(&format!("t{turn}.site.example"), others[turn % others.len()])),
            2 => (2, Query::new(&format!("c{turn}.site.example"), types[turn % 3])),
            3 => (3, Query::new(&format!("{}{turn} \u{1}.site.example", (b'a' + turn as u8 % 26) as char), rtype::A)),
            _ => (3, Query::new("www.site.example", rtype::A)),
        };
        let query = query.edns(1232);
        let start = Instant::now();
        let reply = match i % 5 {
            4 => world.agents[3].ask_from(stranger, &query.name, query.qtype),
            _ if turn % 4 == 3 => {
                over_tcp += 1;
                world.agents[agent].ask_tcp(query.encode())
            }
            _ => world.agents[agent].ask_raw(query.encode()),
        };
        let reply =
            reply.unwrap_or_else(|e| panic!("query {i} `{}`: {e}\n{}", query.name.escape_debug(), staunch.tail()));
        slowest = slowest.max(start.elapsed());
        check_refusal(&query, &reply);
        refused += 1;
    }
    let packets = capture.ip_packets();
    println!(
        "FIGURE: {refused} refused queries ({over_tcp} over TCP) caused {} packets outside; slowest reply {:.1} ms",
        packets.len(),
        slowest.as_secs_f32() * 1000.0
    );
    assert_eq!(packets.len(), 0, "first: {:02x?}", packets.first());
    assert_eq!(world.upstream.seen().len(), 0);

    world.upstream.add_site("late.site.example", world::WEB.into());
    control.ask("late.site.example", rtype::A).expect("an answer");
    assert_eq!(capture.ip_packets().len(), 2, "the capture still sees what goes out");
}

/// P8: a refusal is a negative answer with an SOA, a short life, a reason by EDE, and a case.
fn check_refusal(query: &Query, reply: &Message) {
    let asked = format!("{} {}", query.name.escape_debug(), query.qtype);
    assert!(matches!(reply.rcode(), rcode::NXDOMAIN | rcode::NOERROR), "{asked}: rcode {}", reply.rcode());
    let explains = reply.rcode() == rcode::NOERROR && query.qtype == rtype::TXT && !reply.texts().is_empty();
    assert!(explains || reply.answers.is_empty(), "{asked}: {reply:?}");
    if !explains {
        let soa = reply.authority.iter().find(|r| r.rtype == rtype::SOA).unwrap_or_else(|| panic!("{asked}: no SOA"));
        assert!(soa.ttl <= 10, "{asked}: kept for {} s", soa.ttl);
        assert!(reply.errors().iter().any(|(code, _)| [15, 17, 18].contains(code)), "{asked}: {:?}", reply.errors());
    }
    assert!(reply.case().is_some(), "{asked}: no case in {:?} {:?}", reply.errors(), reply.texts());
}

#[test]
fn two_hundred_allowed_queries_leave_in_one_canonical_form() {
    let Some(world) = World::create(1) else { return };
    let names: Vec<String> = (0..COUNT).map(|i| format!("w{i}.site.example")).collect();
    for name in &names {
        world.upstream.add_site(name, world::WEB.into());
    }
    let _staunch = Staunch::start(&world, &Config::enforce().allow_exact("work", &names));
    trials_are_over(&world);
    let agent = &world.agents[0];
    for (i, name) in names.iter().enumerate() {
        let mixed: String =
            name.chars().enumerate().map(|(n, c)| if (n + i) % 3 == 0 { c.to_ascii_uppercase() } else { c }).collect();
        let mut query = Query::new(&mixed, rtype::A);
        query.id = i as u16;
        query = match i % 6 {
            0 => query,
            1 => query.edns(4096),
            2 => query.option(8, &[0, 1, 24, 0, 203, 0, (i % 256) as u8]),
            3 => query.option(10, &[i as u8; 8]),
            4 => query.option(12, &[0; 100]),
            _ => query.option(65_001, b"a secret in an option"),
        };
        query.dnssec_ok = i % 2 == 0;
        query.flags |= if i % 4 < 2 { 0x0010 } else { 0x0020 };
        let reply = if i % 5 == 4 { agent.ask_tcp(query.encode()) } else { agent.ask_raw(query.encode()) };
        let reply = reply.expect("an answer");
        assert_eq!(reply.name, mixed, "the stub gets its question back as asked");
        assert_eq!(reply.addresses(), [world::WEB], "query {i}: {reply:?}");
    }

    let seen = world.upstream.seen();
    assert_eq!(seen.len(), COUNT, "one query outside for each");
    let mut shapes = HashSet::new();
    let (mut ids, mut ports) = (HashSet::new(), HashSet::new());
    let (mut letters, mut upper, mut as_spelled) = (0, 0, 0);
    for (i, (query, name)) in seen.iter().zip(&names).enumerate() {
        let read = Message::decode(&query.raw).expect("a message");
        assert!(read.name.eq_ignore_ascii_case(name), "{}", read.name);
        let spelled =
            read.name.bytes().zip(name.bytes().enumerate()).filter(|(_, (_, plain))| plain.is_ascii_alphabetic());
        for (sent, (n, _)) in spelled {
            letters += 1;
            upper += usize::from(sent.is_ascii_uppercase());
            // As the stub had it.
            as_spelled += usize::from(sent.is_ascii_uppercase() == (n + i).is_multiple_of(3));
        }
        assert_eq!((read.qtype, read.class, read.trailing), (rtype::A, 1, 0));
        assert_eq!((read.answers.len(), read.authority.len(), read.additional.len()), (0, 0, 1));
        let opt = read.opt().expect("our EDNS");
        assert_eq!(opt.rdata, [0u8; 0], "no option");
        assert_eq!(query.raw.len(), 12 + name.len() + 2 + 4 + 11, "nothing else in it");
        // CD (RFC 4035) and DO (RFC 3225) are fields of the judged question: a validating stub needs both.
        shapes.insert((read.flags & !0x0010, opt.class, opt.ttl & !0x8000));
        ids.insert(read.id);
        ports.insert(query.from.port());
    }
    println!("FIGURE: {} queries outside: {shapes:?}, {} ids, {} ports", seen.len(), ids.len(), ports.len());
    // Drawn for each letter anew: half are upper, and what the stub spelled is met as often as not. Six standard deviations.
    let half = |count: usize| count.abs_diff(letters / 2) as f64 <= 3.0 * (letters as f64).sqrt();
    println!("FIGURE: of {letters} letters {upper} were upper and {as_spelled} as the stub had spelled them");
    assert!(letters > 2000 && half(upper) && half(as_spelled), "{upper} and {as_spelled} of {letters}");
    assert_eq!(shapes.len(), 1, "flags and EDNS are the same for all: {shapes:?}");
    let (flags, payload, _) = shapes.iter().next().expect("a shape");
    assert_eq!((flags & 0xff00, *payload), (0x0100, 1232), "a query with RD, our payload size");
    // 200 draws from 65,536 ids (and some 28,000 ports) rarely hold more than a few equal pairs.
    assert!(ids.len() > COUNT * 9 / 10 && ports.len() > COUNT * 9 / 10, "{} ids, {} ports", ids.len(), ports.len());
}

#[test]
fn octets_behind_the_message_do_not_leave() {
    let Some(world) = World::create(1) else { return };
    let _staunch = Staunch::start(&world, &Config::enforce().allow_exact("work", ["www.site.example"]));
    let mut raw = Query::new("www.site.example", rtype::A).encode();
    raw.extend(b"a secret behind the end");
    // FORMERR, silence or an answer are all right; the octets outside are not.
    let _ = world.agents[0].ask_raw(raw);
    world.agents[0].ask("www.site.example", rtype::A).expect("an answer");
    let seen = world.upstream.seen();
    assert!(!seen.is_empty(), "the control query went out");
    assert!(seen.iter().all(|q| !q.raw.windows(6).any(|w| w == b"secret")), "{seen:?}");
}

const ZONE: &str = "$ORIGIN corp.example.\n@ 300 IN SOA ns hostmaster 1 3600 600 86400 30\n@ 300 IN NS ns\n\
    ns 300 IN A 10.9.9.9\nwiki 90000 IN A 10.9.9.10\nmail 90000 IN MX 1 wiki\nout 7 IN CNAME www.site.example.\n\
    in 300 IN CNAME wiki\nnowhere 300 IN CNAME gone\nbare 300 IN CNAME mail\nround 300 IN CNAME about\n\
    about 300 IN CNAME round\nfit 300 IN TXT \"";

#[test]
fn names_of_our_own_zones_are_answered_like_any_others() {
    let Some(world) = World::create(1) else { return };
    // A TXT answer with which a reply has 1,212 octets: a cookie takes 28.
    let strings = [255, 255, 255, 255, 130].map(|length: usize| "x".repeat(length)).join("\" \"");
    let zone = world.path("corp.zone");
    std::fs::write(&zone, format!("{ZONE}{strings}\"\n")).expect("written");
    let tables = format!("[[zone]]\nname = \"corp.example\"\nfile = \"{}\"\n", zone.display());
    let staunch = Staunch::start(&world, &Config::enforce().tables(&tables).allow_exact("work", ["www.site.example"]));
    let agent = &world.agents[0];
    let ask = |name: &str, qtype: u16| agent.ask_raw(Query::new(name, qtype).edns(1232).encode()).expect("an answer");

    let wiki = ask("Wiki.corp.example", rtype::A);
    assert_eq!((wiki.name.as_str(), wiki.flags & 0x0400), ("Wiki.corp.example", 0x0400), "echoed, with authority");
    assert_eq!(wiki.addresses(), [IpAddr::from([10, 9, 9, 10])]);
    assert!(wiki.answers[0].ttl <= 3600, "no longer than any other answer: {}", wiki.answers[0].ttl);
    let mail = ask("mail.corp.example", rtype::MX);
    assert!(mail.answers[0].ttl <= 3600);
    assert!(mail.additional.iter().all(|r| r.rtype == rtype::OPT), "nothing is shown that has no lease: {mail:?}");

    for (name, code, addresses, denied) in [
        ("in.corp.example", rcode::NOERROR, Some(Ipv4Addr::new(10, 9, 9, 10)), false),
        ("out.corp.example", rcode::NOERROR, Some(world::WEB), false),
        ("nowhere.corp.example", rcode::NXDOMAIN, None, true),
        ("bare.corp.example", rcode::NOERROR, None, true),
        ("missing.corp.example", rcode::NXDOMAIN, None, true),
        ("round.corp.example", rcode::SERVFAIL, None, false),
    ] {
        let reply = ask(name, rtype::A);
        assert_eq!(reply.rcode(), code, "{name}: {reply:?}");
        assert_eq!(reply.addresses(), Vec::from_iter(addresses.map(IpAddr::V4)), "{name}: {reply:?}");
        let soa = reply.authority.iter().find(|r| r.rtype == rtype::SOA);
        assert_eq!(soa.map(|soa| soa.ttl), denied.then_some(30), "{name}: the lower of TTL and MINIMUM (RFC 2308)");
    }
    assert_eq!(world.upstream.seen().iter().filter(|q| q.name.contains("corp")).count(), 0, "none of it leaves");

    let whole = agent.ask_raw(Query::new("fit.corp.example", rtype::TXT).edns(1232).encode()).expect("an answer");
    assert!(!whole.truncated() && whole.texts().len() == 1, "{whole:?}");
    let with_cookie = Query::new("fit.corp.example", rtype::TXT).edns(1232).option(10, &[7; 8]);
    let cut = agent.ask_raw(with_cookie.encode()).expect("an answer");
    assert!(cut.truncated() && cut.answers.is_empty(), "the cookie has no room beside it");
    assert_eq!(cut.option(10).map(|cookie| cookie.len()), Some(24), "so that the client takes the reply");
    assert_eq!(agent.ask_tcp(with_cookie.encode()).expect("an answer").texts().len(), 1);

    // What an option says is not read: understood algorithms (RFC 6975), one octet each.
    let odd = Query::new("wiki.corp.example", rtype::A).edns(1232).option(5, &[0; 900]).option(8, &[0, 1, 99]);
    assert_eq!(agent.ask_raw(odd.encode()).expect("an answer").addresses().len(), 1);
    assert!(!staunch.log().iter().any(|line| line.contains("algorithm")), "{}", staunch.tail());
}

#[test]
fn what_own_names_lead_to_is_judged_and_what_cannot_be_reached_is_no_refusal() {
    let Some(world) = World::create(1) else { return };
    for name in ["tcp.site.example", "silent.site.example", "loop.led.example"] {
        world.upstream.add_site(name, world::WEB.into());
    }
    let (zone, policy) = (world.path("corp.zone"), world.path("policy.zone"));
    let own = "$ORIGIN corp.example.\n@ 300 IN SOA ns hostmaster 1 3600 600 86400 30\n@ 300 IN NS ns\nns 300 IN A 10.9.9.9\n\
        wiki 300 IN A 10.9.9.10\nwiki 300 IN AAAA 2001:db8::9\ntcp 300 IN CNAME tcp.site.example.\n\
        drop 300 IN CNAME silent.site.example.\ntwo 300 IN CNAME loop.led.example.\n";
    std::fs::write(&zone, own).expect("written");
    let rules = "$TTL 60\n@ SOA localhost. root.localhost. 1 3600 600 86400 60\n@ NS localhost.\n\
        tcp.site.example CNAME rpz-tcp-only.\nsilent.site.example CNAME rpz-drop.\n*.led.example CNAME two.corp.example.\n";
    std::fs::write(&policy, rules).expect("written");
    let tables = format!(
        "[[zone]]\nname = \"corp.example\"\nfile = \"{}\"\n[[rpz]]\nname = \"policy.test\"\nfile = \"{}\"\n",
        zone.display(),
        policy.display()
    );
    // A rule speaks of what leaves: own zones go first.
    let mut config = Config::enforce().tables(&tables).deny("no", "corp.example");
    config.sessions = "[[session]]\nid = \"s1\"\naddresses = [\"10.77.1.2\"]\ntype = \"interactive\"\n".into();
    let staunch = Staunch::start(&world, &config);
    let agent = &world.agents[0];
    let raw = |name: &str, qtype: u16| Query::new(name, qtype).edns(1232).encode();

    let unreachable = agent.ask_raw(raw("wiki.corp.example", rtype::AAAA)).expect("an answer");
    assert_eq!((unreachable.rcode(), unreachable.answers.len()), (rcode::NOERROR, 0), "{unreachable:?}");
    assert!(unreachable.errors().is_empty() && unreachable.flags & 0x0400 != 0, "no refusal: {unreachable:?}");
    assert_eq!(agent.ask_raw(raw("wiki.corp.example", rtype::A)).expect("an answer").addresses().len(), 1);

    let cut = agent.ask_raw(raw("tcp.corp.example", rtype::A)).expect("an answer");
    assert!(cut.truncated() && cut.answers.is_empty(), "as the policy zone wants it: {cut:?}");
    let whole = agent.ask_tcp(raw("tcp.corp.example", rtype::A)).expect("an answer");
    assert_eq!(whole.addresses(), [world::WEB], "{whole:?}\n{}", staunch.tail());
    assert!(agent.ask_raw(raw("drop.corp.example", rtype::A)).is_err(), "silence");

    let led = agent.ask_raw(raw("a.led.example", rtype::A)).expect("an answer");
    assert!(led.addresses().is_empty() && led.answers.len() == 2, "{led:?}");
    assert!(world.upstream.seen().iter().all(|query| !query.name.contains("led")), "the policy zone has a rule for it");
}

#[test]
fn who_sends_a_cookie_gets_one_with_every_reply() {
    let Some(world) = World::create(1) else { return };
    let _staunch = Staunch::start(&world, &Config::enforce());
    let agent = &world.agents[0];
    let of = |name: &str, qtype: u16| Query::new(name, qtype).edns(1232).option(10, &[7; 8]);
    let with = |name: &str, qtype: u16, change: &dyn Fn(&mut Vec<u8>)| {
        let mut raw = of(name, qtype).encode();
        change(&mut raw);
        raw
    };
    let class_at = 12 + "version.bind".len() + 2 + 2 + 1;
    for (why, raw, code) in [
        ("an answer", of("www.site.example", rtype::A).encode(), rcode::NOERROR),
        ("class CH", with("version.bind", rtype::TXT, &|raw| raw[class_at] = 3), 5),
        ("a transfer", of("site.example", 252).encode(), 5),
        ("RD=0", with("www.site.example", rtype::A, &|raw| raw[2] &= !1), 5),
    ] {
        let reply = agent.ask_raw(raw).unwrap_or_else(|error| panic!("{why}: {error}"));
        assert_eq!(reply.rcode(), code, "{why}");
        let cookie = reply.option(10).unwrap_or_else(|| panic!("{why}: no cookie in {reply:?}"));
        assert_eq!((cookie.len(), &cookie[..8]), (24, &[7u8; 8][..]), "{why}");
    }
    // Without a question there is none in the reply: for the cookie alone (RFC 7873 section 5.4), and NOTIFY.
    let notify = with("site.example", rtype::SOA, &|raw| raw[2] |= 4 << 3);
    let question = with("a", rtype::A, &|raw| {
        raw[5] = 0;
        raw.drain(12..12 + 3 + 4);
    });
    for (why, raw, flags) in [("a cookie alone", question, 0x8180), ("NOTIFY", notify, 0xa104)] {
        let reply = agent.ns.blocking(|| {
            let socket = UdpSocket::bind((agent.address, 0)).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
            socket.send_to(&raw, (agent.gateway, 53)).expect("sent");
            let mut buf = [0; 512];
            let len = socket.recv(&mut buf).expect("a reply");
            buf[..len].to_vec()
        });
        assert_eq!(u16::from_be_bytes([reply[2], reply[3]]), flags, "{why}: {reply:02x?}");
        assert_eq!(reply[4..12], [0, 0, 0, 0, 0, 0, 0, 1], "{why}: an OPT record alone");
        assert_eq!(
            (reply.len(), &reply[12 + 11 + 4..12 + 11 + 12]),
            (12 + 11 + 28, &[7u8; 8][..]),
            "{why}: {reply:02x?}"
        );
    }
}
