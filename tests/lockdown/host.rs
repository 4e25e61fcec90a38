//! What a sandbox reaches of the host itself.

use super::*;

#[test]
fn a_sandbox_reaches_nothing_of_the_host_but_the_resolver() {
    let Some(world) = create(1) else { return };
    hear_all(&world);
    resolvers(&world);
    let agent = &world.agents[0];
    let own6: IpAddr = "fd77:1::1".parse().expect("an address");
    // What clouds, and container hosts for their own services, have on such addresses.
    world.gw.ip(&["addr add 169.254.169.254/32 dev lo", "-6 addr add fd00:ec2::254/128 dev lo nodad"]);
    world.gw.ip(&["-6 addr add fe80::a9fe:a9fe/64 dev ag1 nodad"]);
    let metadata: [IpAddr; 2] =
        [Ipv4Addr::new(169, 254, 169, 254).into(), "fd00:ec2::254".parse().expect("an address")];
    let addresses = [agent.gateway.into(), GATEWAY_OUTSIDE.into(), own6, metadata[0], metadata[1]];
    for address in addresses {
        echo::start(&world.gw, (address, 80).into());
    }
    let scope = |ns: &world::ns::Ns, interface: &str| {
        let name = std::ffi::CString::new(interface).expect("no NUL");
        // SAFETY: the string is NUL-terminated and lives across the call.
        ns.blocking(|| unsafe { libc::if_nametoindex(name.as_ptr()) })
    };
    let local = |ns: &world::ns::Ns, interface: &str| {
        let address = "fe80::a9fe:a9fe".parse().expect("an address");
        SocketAddr::V6(std::net::SocketAddrV6::new(address, 80, 0, scope(ns, interface)))
    };
    echo::start(&world.gw, local(&world.gw, "ag1"));
    let all = |probe: &dyn Fn(SocketAddr, bool)| {
        for tcp in [false, true] {
            addresses.iter().for_each(|address| probe((*address, 80).into(), tcp));
        }
        probe(local(&agent.ns, "eth0"), false);
    };
    all(&|to, tcp| reached(agent, to, tcp, "without the lockdown"));
    reached(agent, local(&agent.ns, "eth0"), true, "without the lockdown");
    for words in [&["--interfaces", "ag1", "--bind", "ag1=10.77.1.2,fd77:1::2"][..], &ROUTED_ONE] {
        apply(&world, words);
        all(&|to, tcp| refused(agent, to, tcp, "a service of the host"));
        // An ICMP error to a dial's first packet comes while the socket is busy sending it, over such a short wire.
        let (end, took) = echo::tcp(&agent.ns, local(&agent.ns, "eth0"));
        assert!(end.is_err() && took < 3 * SECOND, "link-local: {end:?} after {took:?}");
        assert_eq!(asked(agent, agent.gateway.into(), true).expect("an answer"), [OURS], "the resolver answers");
    }
    // What IPv6 needs works with tables emptied: neighbours are found anew, in both directions.
    for ns in [&world.gw, &agent.ns] {
        ns.ip(&["-6 neigh flush all"]);
    }
    assert_eq!(asked(agent, own6, false).expect("an answer over IPv6"), [OURS]);
    agent.ns.ip(&["-6 addr add fd77:1::3/64 dev eth0"]);
    let settled = world::wait_for(5 * SECOND, || {
        let shown = String::from_utf8_lossy(&agent.ns.sh("ip -6 addr show dev eth0").stdout).into_owned();
        (shown.contains("fd77:1::3/64") && !shown.contains("tentative")).then_some(())
    });
    assert!(settled.is_some(), "duplicate address detection ends");
    // The host still reaches into the sandbox, and hears its answers.
    echo::start(&agent.ns, (agent.address, 8080).into());
    for (end, took) in
        [echo::tcp(&world.gw, (agent.address, 8080).into()), echo::udp(&world.gw, (agent.address, 8080).into())]
    {
        assert_eq!(end.expect("the host dials in"), echo::GREETING, "after {took:?}");
    }
    // A ping is answered, a flood of them is not.
    let pinged = |count: u8| {
        let capture = Capture::start(&agent.ns, "eth0");
        for n in 0..count {
            let echo = raw::icmp(agent.address.into(), agent.gateway.into(), 8, 0, [0, 9, 0, n], b"ping");
            let packet = raw::packet(agent.address.into(), agent.gateway.into(), 1, &[], &echo);
            raw::send(&agent.ns, &packet).expect("sent");
        }
        // Echo replies alone: what was refused comes back as an error.
        capture.ip_packets().iter().filter(|frame| frame.get(23) == Some(&1) && frame.get(34) == Some(&0)).count()
    };
    assert_eq!(pinged(1), 1);
    let answered = pinged(200);
    assert!((10..100).contains(&answered), "{answered} of 200 answered");
}

#[test]
fn metadata_services_are_closed_whatever_the_service_says() {
    let Some(world) = create(1) else { return };
    hear_all(&world);
    let agent = &world.agents[0];
    let metadata = [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
    ];
    for address in metadata {
        let length = if address.contains(':') { 128 } else { 32 };
        world.net.ip(&[&format!("addr add {address}/{length} dev lo")]);
        echo::start(&world.net, SocketAddr::new(address.parse().expect(address), 8080));
    }
    let all = |probe: &dyn Fn(SocketAddr, bool)| {
        for address in metadata {
            for tcp in [false, true] {
                probe(SocketAddr::new(address.parse().expect(address), 8080), tcp);
            }
        }
    };
    stand_in(&world.gw, "");
    all(&|to, tcp| reached(agent, to, tcp, "without the lockdown"));
    apply(&world, &ROUTED_ONE);
    all(&|to, tcp| refused(agent, to, tcp, "metadata"));
    assert!(agent.dial(WEB.into(), 80).0.is_ok(), "all else is permitted");
}

#[test]
fn addresses_are_handed_out_only_if_asked_for() {
    let Some(world) = create(1) else { return };
    let agent = &world.agents[0];
    let (zero, all): (IpAddr, IpAddr) = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
    let discover = raw::udp((Ipv4Addr::UNSPECIFIED, 68).into(), (Ipv4Addr::BROADCAST, 67).into(), b"discover");
    let packet = raw::packet(zero, all, 17, &[], &discover);
    let frame = raw::frame([0xff; 6], [2, 0, 0, 0, 0, 9], &packet);
    let server = world.gw.blocking(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:67").expect("the server's port is free");
        socket.set_read_timeout(Some(SECOND / 2)).expect("a timeout");
        socket
    });
    let heard = || {
        raw::send_frame(&agent.ns, "eth0", &frame).expect("sent");
        server.recv(&mut [0; 64]).is_ok()
    };
    assert!(heard(), "without the lockdown");
    for bind in ["", "ag1=10.77.1.2"] {
        let mut words = vec!["--interfaces", "ag1"];
        words.extend(if bind.is_empty() { vec![] } else { vec!["--bind", bind] });
        apply(&world, &words);
        assert!(!heard(), "{bind}: not asked for");
        words.push("--dhcp");
        apply(&world, &words);
        assert!(heard(), "{bind}: asked for");
    }
}

#[test]
fn a_session_that_is_the_host_itself_still_reaches_the_host() {
    let Some(world) = create(1) else { return };
    let own: SocketAddr = (GATEWAY_OUTSIDE, 80).into();
    echo::start(&world.gw, own);
    let file = world.path("staunch.toml");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"10.77.1.1:53\"]\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"ag1\"]\n[[session]]\n\
         id = \"host\"\naddresses = [\"{GATEWAY_OUTSIDE}\", \"10.77.1.1\"]\ntype = \"batch\"\n"
    );
    std::fs::write(&file, text).expect("written");
    let said = apply(&world, &["--config", file.to_str().expect("UTF-8")]);
    assert!(said.contains(&format!("10.77.1.1, {GATEWAY_OUTSIDE}")), "{said}");
    for end in [echo::tcp(&world.gw, own).0, echo::udp(&world.gw, own).0] {
        assert!(end.is_ok(), "{end:?}");
    }
}
