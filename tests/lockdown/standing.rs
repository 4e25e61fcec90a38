//! What an apply ends and removes, and whether what stands is what was applied.

use super::*;

#[test]
fn flows_older_than_the_lockdown_end() {
    let Some(world) = create(1) else { return };
    let ours = resolvers(&world);
    let agent = &world.agents[0];
    // A download that only reads, one that may go on, and a service of the host.
    echo::start(&world.gw, (agent.gateway, 8080).into());
    let stream = |to: SocketAddr| {
        agent.ns.run(async move {
            let mut stream = TcpStream::connect(to).await.expect("connected");
            let request = b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(request).await.expect("asked");
            stream
        })
    };
    let ended = |mut stream: TcpStream, limit: Duration| {
        let started = Instant::now();
        let end = agent.ns.run(async move {
            let read = async {
                let mut buffer = vec![0; 65_536];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => return "closed".to_owned(),
                        Err(error) => return error.to_string(),
                        Ok(_) => {}
                    }
                }
            };
            tokio::time::timeout(limit, read).await.ok()
        });
        (end, started.elapsed())
    };
    // Connection tracking has to be on before these begin, as on any host that translates addresses.
    nft(
        &world.gw,
        "table inet watch { chain forward { type filter hook forward priority 0; ct state established counter; }; }",
    );
    stand_in(&world.gw, "ip daddr 203.0.113.11");
    let permitted = stream((Ipv4Addr::new(203, 0, 113, 11), 80).into());
    let cut = stream((WEB, 80).into());
    let cut6 = stream((WEB6, 80).into());
    // An old question's flow, whose translation (to nobody) is kept for as long as it goes on.
    let socket = agent.ns.run(async move {
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:4053").await.expect("a port");
        socket.connect((FOREIGN, 53)).await.expect("connected");
        socket
    });
    let socket = std::sync::Arc::new(socket);
    let who = || {
        let socket = socket.clone();
        agent.ns.run(async move {
            let query = Query::new(NAME, rtype::A).encode();
            // It may have heard of a refusal that was meant for the question before.
            for _ in 0..3 {
                let _ = socket.send(&query).await;
                let mut buffer = [0; 512];
                let read = tokio::time::timeout(SECOND, socket.recv(&mut buffer)).await;
                if let Ok(Ok(length)) = read {
                    return world::dns::Message::decode(&buffer[..length]).map(|reply| reply.addresses());
                }
            }
            None
        })
    };
    assert_eq!(who(), Some(vec![THEIRS.into()]), "without the lockdown");
    assert!(ended(stream((WEB, 80).into()), SECOND).0.is_none(), "a download goes on");
    let applied = Instant::now();
    let told = json(&world.gw, &["apply", "--interfaces", "ag1"]).0;
    assert!(told["flows_ended"].as_u64() >= Some(3), "{told}");
    for (stream, what) in [(cut, "over IPv4"), (cut6, "over IPv6")] {
        let (end, _) = ended(stream, 5 * SECOND);
        println!("FIGURE: a download {what} ended within {:.0} ms: {end:?}", applied.elapsed().as_secs_f32() * 1000.0);
        assert!(end.is_some(), "a download {what} goes on");
        assert!(applied.elapsed() < 2 * SECOND, "a download {what} ended after {:?}", applied.elapsed());
    }
    assert_eq!(who(), Some(vec![OURS.into()]), "the old flow's next question is led to us");
    assert!(!ours.seen().is_empty());
    assert!(ended(permitted, SECOND).0.is_none(), "what the service permits goes on");
    let told = json(&world.gw, &["apply", "--interfaces", "ag1"]).0;
    assert_eq!((told["changed"].as_bool(), told["flows_ended"].as_u64()), (Some(false), Some(0)), "{told}");
}

#[test]
fn it_is_applied_once_removed_whole_and_touches_nothing_else() {
    let Some(world) = create(1) else { return };
    nft(
        &world.gw,
        "table inet other { set s { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }; chain c { type filter \
         hook forward priority filter + 10; ip saddr @s accept; }; }; table bridge staunch_lockdown_2 { chain c { }; }",
    );
    stand_in(&world.gw, "");
    let before = ruleset(&world.gw);
    let words = ["--interfaces", "ag1", "--bind", "ag1=10.77.1.2"];
    let status = |words: &[&str]| json(&world.gw, &with("status", words));
    assert_eq!(status(&words).1, 1, "nothing stands yet");
    let said = apply(&world, &words);
    assert!(said.contains("Applied.") && said.contains("Questions (port 53"), "{said}");
    assert_eq!(status(&words).1, 0);
    let standing = ruleset(&world.gw);
    assert!(standing.contains("table inet staunch_lockdown {"), "{standing}");
    let said = apply(&world, &words);
    assert!(said.contains("nothing changed"), "{said}");
    assert_eq!(ruleset(&world.gw), standing, "a second run changes nothing");
    // Another plan replaces it, with whatever tables it has, in place.
    let bridged = ["--bridge", "br0=ag1", "--bind", "ag1=10.77.1.2"];
    apply(&world, &bridged);
    assert!(ruleset(&world.gw).contains("table bridge staunch_lockdown {"));
    assert_eq!((status(&bridged).1, status(&words).1, status(&[]).1), (0, 1, 0));
    apply(&world, &words);
    assert!(!ruleset(&world.gw).contains("table bridge staunch_lockdown {"), "a table that is not part of the plan");
    assert_eq!(ruleset(&world.gw).len(), standing.len());
    ok(&world.gw, &["remove"]);
    assert_eq!(ruleset(&world.gw), before, "other tables are as they were, and in their order");
    let said = ok(&world.gw, &["remove"]);
    assert!(said.contains("nothing changed"), "{said}");
}

#[test]
fn status_tells_every_change() {
    let Some(world) = create(1) else { return };
    let words = ["--interfaces", "ag1,veth*", "--bind", "ag1=10.77.1.2,fd77:1::2"];
    let status = |words: &[&str]| json(&world.gw, &with("status", words));
    let handle = |chain: &str, rule: &str| {
        let listed = world.gw.sh(&format!("nft -a list chain inet staunch_lockdown {chain}"));
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let line = listed.lines().find(|line| line.contains(rule)).unwrap_or_else(|| panic!("no {rule} in {listed}"));
        line.rsplit(' ').next().expect("a handle").to_owned()
    };
    apply(&world, &words);
    let (told, code) = status(&words);
    assert_eq!(code, 0, "{told}");
    let rows = told["interfaces"].as_array().expect("rows");
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} in {told}"));
    assert_eq!(row("ag1")["sources"], "10.77.1.2, fd77:1::2");
    assert_eq!(row("veth*")["sources"], "routed back out of it");
    assert!(rows.iter().all(|row| row["covered"] == true), "{told}");
    // Traffic moves counters, and the tool's tokens: nothing of that is a change.
    for _ in 0..3 {
        let _ = echo::tcp(&world.agents[0].ns, (WEB, 853).into());
        let _ = echo::udp(&world.agents[0].ns, (world.agents[0].gateway, 9).into());
    }
    assert_eq!((status(&words).1, status(&[]).1), (0, 0), "use is no change");
    let table = "inet staunch_lockdown";
    let refuse = handle("permitted", "goto refuse");
    let mark = handle("permitted", "{ tcp, udp } ct state");
    let changes = [
        (format!("delete rule {table} permitted handle {refuse}"), "permitted has"),
        (format!("replace rule {table} permitted handle {mark} meta l4proto {{ tcp, udp }} accept"), "was changed"),
        (format!("insert rule {table} from_sandbox accept"), "from_sandbox has"),
        (format!("add element {table} metadata4 {{ 192.0.2.1 }}"), "was changed"),
        (format!("delete element {table} resolvers4 {{ 8.8.8.8 }}"), "was changed"),
        (format!("add chain {table} extra {{ type filter hook forward priority 0; }}"), "extra is not part"),
        (format!("flush chain {table} forwarded"), "forwarded has 0"),
        (format!("add table {table} {{ flags dormant; }}"), "was changed"),
        (format!("add rule {table} seal accept"), "was changed"),
        (format!("delete table {table}"), "is missing"),
    ];
    for (change, wanted) in changes {
        nft(&world.gw, &change);
        let (told, code) = status(&words);
        let problems = told["standing"]["problems"].to_string();
        assert!(code == 1 && problems.contains(wanted), "{change}: {code} {problems}");
        assert_eq!(status(&[]).1, 1, "{change}: without a plan");
        let again = json(&world.gw, &with("apply", &words)).0;
        assert_eq!(again["changed"], true, "{change}");
        assert_eq!((status(&words).1, status(&[]).1), (0, 0), "{change}: put right");
    }
    let told = json(&world.gw, &["apply", "--interfaces", "ag1,up1,lo1"]).0["hints"].to_string();
    assert!(told.contains("no interface up1 here now") && told.contains("no interface lo1"), "{told}");
    world.gw.ip(&["addr del 10.77.1.1/24 dev ag1"]);
    let told = json(&world.gw, &["apply", "--interfaces", "ag1"]).0["hints"].to_string();
    assert!(told.contains("ag1 has no IPv4 address") && told.contains("--resolver"), "{told}");
    apply(&world, &words);
    let (told, code) = status(&["--interfaces", "ag1,veth*"]);
    assert!(code == 1 && told["standing"]["problems"].to_string().contains("another plan"), "{told}");
    let words = String::from_utf8(run(&world.gw, &with("status", &words)).stdout).expect("UTF-8");
    assert!(words.contains("stands as planned (enforce)") && words.contains("ag1"), "{words}");
}

#[test]
fn tables_of_others_and_scripts_loaded_by_hand_are_told_apart() {
    let Some(world) = create(1) else { return };
    nft(&world.gw, "table inet staunch_lockdown { chain c { }; }");
    let before = ruleset(&world.gw);
    for verb in [&["apply", "--interfaces", "ag1"][..], &["remove"]] {
        let output = run(&world.gw, verb);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("was not made by"), "{verb:?}: {said}");
    }
    assert_eq!(ruleset(&world.gw), before, "it is left alone");
    nft(&world.gw, "delete table inet staunch_lockdown");
    // By hand: it works, and status says what is missing of it.
    let script = ok(&world.gw, &["plan", "--interfaces", "ag1"]);
    let file = world.path("lockdown.nft");
    std::fs::write(&file, &script).expect("written");
    let file = file.to_str().expect("UTF-8");
    assert!(world.gw.sh(&format!("nft -f {file} && nft -f {file}")).status.success(), "loads, and loads again");
    let (told, code) = json(&world.gw, &["status", "--interfaces", "ag1"]);
    assert!(code == 1 && told["standing"]["problems"].to_string().contains("not sealed"), "{told}");
    refused(&world.agents[0], (WEB, 80), true, "loaded by hand");
    ok(&world.gw, &["apply", "--interfaces", "ag1"]);
    assert_eq!(json(&world.gw, &["status", "--interfaces", "ag1"]).1, 0);
}

#[test]
fn without_privilege_or_tool_the_error_says_so() {
    let Some(world) = create(1) else { return };
    let binary = world::staunch::binary();
    let output = world
        .gw
        .command("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(&binary)
        .args(["lockdown", "apply", "--interfaces", "ag1"])
        .output()
        .expect("setpriv runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("CAP_NET_ADMIN"), "{said}");
    for verb in ["status", "remove"] {
        let mut command = world.gw.command("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(&binary).args(["lockdown", verb]);
        let said = String::from_utf8_lossy(&command.output().expect("setpriv runs").stderr).into_owned();
        assert!(said.contains("CAP_NET_ADMIN"), "{verb}: {said}");
    }
    // A root directory in which there is no tool: an empty file in its place, where it lies.
    let line = format!(
        "for nft in /usr/local/sbin/nft /usr/sbin/nft /sbin/nft /usr/bin/nft; do [ -e $nft ] && mount --bind /dev/null $nft; \
         done; PATH= exec {} lockdown apply --interfaces ag1",
        binary.display()
    );
    let output = world.gw.sh(&line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("install the package nftables"), "{said}");
    assert_eq!(ruleset(&world.gw), "", "nothing was changed");
}
