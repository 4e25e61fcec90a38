use super::*;

#[test]
fn settings_that_cannot_work_are_told_with_a_remedy() {
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(&["veth-a", "veth-b", "tap*"]);
        change(&mut settings);
        Plan::new(settings).expect_err("no plan").to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Settings);
    let cases: [(Change<'_>, &str); 22] = [
        (&|s| s.interfaces.clear(), "no interface is named: give --interfaces"),
        (&|s| s.table = "9t".into(), "table `9t`: use a letter"),
        (&|s| s.table = "a;b".into(), "table `a;b`"),
        (&|s| s.table = "staunch".into(), "`staunch` is the service's own"),
        (&|s| s.interfaces.push("lo".parse().expect("a name")), "`lo` is this host itself"),
        (&|s| s.interfaces.push("l*".parse().expect("a name")), "`lo` is this host itself"),
        (&|s| s.bridges.push(bridge("br0")), "bridge `br0` has no port"),
        (&|s| s.bridges.push(bridge("br*=veth1")), "bridge `br*`: name one bridge"),
        (&|s| s.bridges.push(bridge("br0=veth-a")), "`veth-a` is named as an interface and as a port"),
        (&|s| s.bridges.extend([bridge("br0=p1"), bridge("br1=p1")]), "`p1` is named as a port of two bridges"),
        (&|s| s.binds.push(bind("tap*=10.0.0.1")), "bind `tap*`: addresses belong to one interface"),
        (&|s| s.binds.push(bind("veth-a=")), "bind `veth-a` names no address"),
        (&|s| s.binds.push(bind("eth9=10.0.0.1")), "bind `eth9`: that interface is not among"),
        (&|s| s.binds.push(bind("veth-a=127.0.0.1")), "127.0.0.1 is not the address of a sandbox"),
        (&|s| s.binds.push(bind("veth-a=224.0.0.1")), "224.0.0.1 is not the address of a sandbox"),
        (&|s| s.binds.push(bind("veth-a=::ffff:10.0.0.1")), "is not the address of a sandbox"),
        (&|s| s.binds.push(bind("veth-a=10.0.0.1,02:00:00:00:00:01")), "hardware addresses are for ports of bridges"),
        (
            &|s| s.binds.extend([bind("veth-a=10.0.0.1"), bind("veth-b=10.0.0.1")]),
            "10.0.0.1 is bound to `veth-a` and to `veth-b`",
        ),
        (
            &|s| {
                s.bridges.push(bridge("br0=p1"));
                s.binds.push(bind("br0=10.0.0.1"));
            },
            "bind the ports of a bridge",
        ),
        (&|s| s.resolvers.push(resolver("127.0.0.1:53")), "resolver 127.0.0.1:53 cannot be reached"),
        (&|s| s.resolvers.push(resolver("[fe80::1]:53")), "cannot be reached from a sandbox"),
        (&|s| s.resolvers.extend([resolver("53"), resolver("5300")]), "names two ports, 53 and 5300"),
    ];
    for (change, wanted) in cases {
        let said = with(change);
        assert!(said.contains(wanted), "wanted `{wanted}`: {said}");
    }
}

#[test]
fn bridges_may_have_ports_of_like_names() {
    let mut settings = settings(&[]);
    settings.bridges = vec![bridge("br0=veth*"), bridge("br1=veth*,tap0")];
    settings.binds = vec![bind("veth1=10.0.0.2"), bind("tap0=10.0.0.3")];
    let plan = planned(settings);
    let names: Vec<_> = plan.sandboxes().iter().map(|sandbox| sandbox.name.as_str()).collect();
    assert_eq!(names, ["br0", "br1"]);
    let ports: Vec<_> = plan.ports().iter().map(|port| (port.name.as_str(), port.place())).collect();
    let both = || "br0 and br1".to_owned();
    assert_eq!(ports, [("tap0", "br1".to_owned()), ("veth1", both()), ("veth*", both())]);
    let said = does(&plan).join("\n");
    assert!(said.contains("Port veth* of br0 and br1: whatever belongs to no other port."), "{said}");
    let text = script(&plan).text;
    assert_eq!(text.matches("iifname \"veth*\" goto port_any").count(), 1, "{text}");
}

#[test]
fn words_that_cannot_be_read_say_how_to_write_them() {
    assert!("veth-a".parse::<Bind>().expect_err("no address").contains("INTERFACE=ADDRESS"));
    assert!("veth-a=ten".parse::<Bind>().expect_err("no address").contains("`ten` is neither"));
    assert!("a/b=10.0.0.1".parse::<Bind>().expect_err("no name").contains("not an interface name"));
    assert!("resolver.example".parse::<Resolver>().expect_err("a name").contains("10.77.1.1:53"));
    assert_eq!(resolver("10.77.1.1"), resolver("10.77.1.1:53"));
    assert_eq!(resolver("fd77::1"), resolver("[fd77::1]:53"));
    assert_eq!(resolver("5300"), Resolver::Port(5300));
}

#[test]
fn the_order_of_settings_makes_no_difference() {
    let mut one = settings(&["b", "a", "b", "veth*"]);
    one.bridges = vec![bridge("br1=q2,q1"), bridge("br0=p*")];
    one.binds = vec![bind("q1=10.0.0.3,02:00:00:00:00:01"), bind("veth1=10.0.0.9"), bind("a=fd00::2,10.0.0.2")];
    one.refused = vec![range("192.0.2.0/24"), range("192.0.2.1"), range("198.51.100.1")];
    one.sources = ["10.0.0.7", "10.0.0.2", "127.0.0.1", "10.0.0.7"].map(|a| a.parse().expect(a)).to_vec();
    one.resolvers = vec![resolver("10.0.0.1:53"), resolver("[fd00::1]:53"), resolver("10.0.0.1")];
    let mut two = one.clone();
    two.interfaces.reverse();
    two.bridges.reverse();
    two.binds =
        vec![bind("a=10.0.0.2"), bind("a=fd00::2"), bind("veth1=10.0.0.9"), bind("q1=02:00:00:00:00:01,10.0.0.3")];
    two.refused.reverse();
    two.sources.reverse();
    two.resolvers.reverse();
    let (one, two) = (planned(one), planned(two));
    assert_eq!(one, two);
    assert_eq!(script(&one).text, script(&two).text);
    let names: Vec<_> = one.sandboxes().iter().map(|sandbox| sandbox.name.as_str()).collect();
    assert_eq!(names, ["a", "veth1", "b", "br0", "br1", "veth*"], "those with addresses first");
    let ports: Vec<_> = one.ports().iter().map(|port| port.name.as_str()).collect();
    assert_eq!(ports, ["q1", "p*", "q2"]);
    assert_eq!(
        one.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.7"],
        "bound ones are held already"
    );
}

#[test]
fn questions_are_led_to_where_the_service_listens() {
    let leads = |listen: &[&str]| {
        let listen: Vec<_> = listen.iter().map(|text| text.parse().expect(text)).collect();
        let mut settings = settings(&["veth-a"]);
        settings.resolvers = resolvers_of(&listen)?;
        let plan = Plan::new(settings)?;
        Ok::<_, PlanError>((plan.lead(false).cloned(), plan.lead(true).cloned()))
    };
    let to = |text: &str| Some(Lead::To(vec![text.parse().expect(text)]));
    let port = |port| Some(Lead::Port(port));
    assert_eq!(leads(&["0.0.0.0:53", "[::]:53"]), Ok((port(53), port(53))));
    assert_eq!(leads(&["127.0.0.1:53", "10.77.1.1:53"]), Ok((to("10.77.1.1:53"), None)));
    assert_eq!(leads(&["10.77.1.1:5300", "[fd77::1]:53"]), Ok((to("10.77.1.1:5300"), to("[fd77::1]:53"))));
    assert_eq!(leads(&["127.0.0.1:5300", "[::1]:5300"]), Err(PlanError::NothingListens));
    let plan = planned(settings(&["veth-a"]));
    assert_eq!(
        (plan.lead(false), plan.lead(true)),
        (Some(&Lead::Port(53)), Some(&Lead::Port(53))),
        "where nobody says"
    );
}
