//! The files for containers and clusters: read by a real parser, checked against each other and against the binary.

mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use world::World;
use world::staunch::binary;

const TREE: &str = env!("CARGO_MANIFEST_DIR");
/// Whom the image runs as.
const USER: u64 = 65532;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn deploy(path: &str) -> PathBuf {
    Path::new(TREE).join("deploy").join(path)
}

/// Every document of a YAML file.
fn documents(path: &Path) -> Vec<Value> {
    let documents = serde_saphyr::from_multiple::<Value>(&read(path));
    documents.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One document of the cluster's base by kind and name.
fn of_base(file: &str, kind: &str, name: &str) -> Value {
    let all = documents(&deploy("kubernetes/base").join(file));
    let found = all.into_iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} in {file}"))
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().map(|all| all.iter().collect()).unwrap_or_default()
}

fn words(value: &Value) -> Vec<String> {
    list(value).into_iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// Runs `staunch check`.
fn check(config: &str) -> Output {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    std::fs::write(&file, config).expect("written");
    Command::new(binary()).arg("check").arg(&file).output().expect("runs")
}

#[track_caller]
fn loads(config: &str) {
    let output = check(config);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_verb_that_a_manifest_calls_is_known() {
    // Words that follow the binary, wherever a manifest, a unit or a script calls it.
    for call in [
        &["serve", "--config", "x", "--state-dir", "y", "--socket", "z", "--help"][..],
        &["enforcer", "--config", "x", "--help"],
        &["healthcheck", "--live", "--address", "169.254.20.25:53", "--help"],
        &["--socket", "z", "healthcheck", "--address", "127.0.0.1:53", "--help"],
        &["check", "x", "--help"],
        &["lockdown", "apply", "--interfaces", "staunch0", "--resolver", "10.77.1.1:53", "--help"],
        &["lockdown", "apply", "--config", "x", "--help"],
        &["--socket", "z", "reload", "--help"],
        &["--socket", "z", "observe", "--refused", "--last", "200", "--help"],
        &["session", "announce", "x", "--address", "10.77.9.2", "--type", "batch", "--owner", "o", "--help"],
        &["session", "end", "x", "--help"],
    ] {
        let output = Command::new(binary()).args(call).output().expect("runs");
        assert!(output.status.success(), "{call:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_yaml_file_is_yaml() {
    let mut files = Vec::new();
    let mut dirs = vec![deploy("")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("directory").flatten() {
            match entry.path() {
                path if path.is_dir() => dirs.push(path),
                path if path.extension().is_some_and(|end| end == "yaml" || end == "yml") => files.push(path),
                _ => {}
            }
        }
    }
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        assert!(!documents(&file).is_empty(), "{}", file.display());
    }
}

#[test]
fn what_the_kustomization_names_is_there_and_nothing_is_left_out() {
    let base = deploy("kubernetes/base");
    let kustomization = documents(&base.join("kustomization.yaml")).remove(0);
    let mut named = words(&kustomization["resources"]);
    for generator in list(&kustomization["configMapGenerator"]) {
        named.extend(words(&generator["files"]));
    }
    for name in &named {
        assert!(base.join(name).is_file(), "{name} is named and is not there");
    }
    for entry in std::fs::read_dir(&base).expect("directory").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        assert!(name == "kustomization.yaml" || named.contains(&name), "{name} is there and not named");
    }
    match Command::new("kubectl").args(["kustomize"]).arg(&base).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let all: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8_lossy(&output.stdout)).expect("YAML");
            let kinds = |kind: &str| all.iter().filter(|one| one["kind"] == kind).count();
            let counts = ["Namespace", "ConfigMap", "DaemonSet", "NetworkPolicy"].map(kinds);
            assert_eq!(counts, [3, 2, 1, 6]);
        }
        Err(error) => println!("NOT COVERED: kubectl kustomize: {error}"),
    }
}

#[test]
fn both_policies_load_behind_the_nodes_part_and_mean_what_they_say() {
    let base = deploy("kubernetes/base");
    let [node, agents, ci] = ["staunch.toml", "prod-agents.toml", "ci-install.toml"].map(|name| read(&base.join(name)));
    loads(&format!("{node}{ci}{agents}"));
    loads(&format!("{node}{agents}"));
    loads(&format!("{node}{ci}"));

    // The same verdicts as on a node: what an install may ask, and what an agent may.
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let ours = |line: &&str| !["enforcer_", "resolver_user", "backend"].iter().any(|s| line.starts_with(s));
    let text: String = format!("{node}{ci}{agents}").lines().filter(ours).collect::<Vec<_>>().join("\n");
    let text = text
        .replace("mode = \"monitor\"", "mode = \"enforce\"")
        .replace("[enforce]", "[enforce]\nbackend = \"dry-run\"");
    std::fs::write(&file, text.replace("\"batch.build\"", "\"batch\"")).expect("written");
    // (name, as, exit code: 0 answered, 10 refused)
    for (name, kind, wanted) in [
        ("registry.example", "batch", 0),
        ("files.registry.example", "batch", 0),
        ("elsewhere.example", "batch", 10),
        ("api.model.example", "batch", 10),
        ("api.model.example", "interactive", 0),
        ("elsewhere.example", "interactive", 0),
        ("uploads.example.net", "interactive", 10),
        ("uploads.example.net", "batch", 10),
    ] {
        let mut command = Command::new(binary());
        command.args(["explain", name, "--as-type", kind, "--exit-code", "--config"]).arg(&file);
        let output = command.output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(wanted),
            "{name} as {kind}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Containers and init containers of the daemon set.
fn containers() -> Vec<Value> {
    let spec = of_base("daemonset.yaml", "DaemonSet", "staunch")["spec"]["template"]["spec"].clone();
    list(&spec["initContainers"]).into_iter().chain(list(&spec["containers"])).cloned().collect()
}

#[test]
fn each_container_of_the_daemon_set_has_what_it_needs_and_no_more() {
    // (name, user, capabilities)
    let wanted = [
        ("address", 0, &["NET_ADMIN"][..]),
        ("state", 0, &["CHOWN", "FOWNER"]),
        ("configuration", USER, &[]),
        ("check", USER, &[]),
        ("enforcer", 0, &["NET_ADMIN", "NET_RAW"]),
        ("resolver", USER, &["NET_BIND_SERVICE"]),
    ];
    let containers = containers();
    let names: Vec<_> = containers.iter().map(|one| one["name"].as_str().expect("a name")).collect();
    assert_eq!(names, wanted.map(|(name, ..)| name));
    let volumes = of_base("daemonset.yaml", "DaemonSet", "staunch")["spec"]["template"]["spec"]["volumes"].clone();
    for (container, (name, user, capabilities)) in containers.iter().zip(wanted) {
        let security = &container["securityContext"];
        assert_eq!(security["runAsUser"], user, "{name}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(words(&security["capabilities"]["drop"]), ["ALL"], "{name}");
        assert_eq!(words(&security["capabilities"]["add"]), capabilities, "{name}");
        assert_eq!(security["runAsNonRoot"] == true, user != 0, "{name}");
        for mount in list(&container["volumeMounts"]) {
            assert!(list(&volumes).iter().any(|volume| volume["name"] == mount["name"]), "{name}: {mount}");
        }
    }
}

#[test]
fn agents_may_ask_the_address_that_is_served_and_nobody_else() {
    let node = read(&deploy("kubernetes/base/staunch.toml"));
    let served = node.split("listen = [\"").nth(1).and_then(|rest| rest.split(':').next()).expect("an address");
    for (namespace, example) in [("agents", "agent.yaml"), ("ci-install", "ci-install.yaml")] {
        let policies = documents(&deploy("kubernetes/base/networkpolicies.yaml"));
        let policies: Vec<_> = policies.into_iter().filter(|one| one["metadata"]["namespace"] == namespace).collect();
        let deny = policies.iter().find(|one| one["metadata"]["name"] == "default-deny").expect("a default");
        assert_eq!(words(&deny["spec"]["policyTypes"]), ["Ingress", "Egress"]);
        assert!(deny["spec"]["podSelector"].as_object().is_some_and(serde_json::Map::is_empty), "all pods");
        assert!(deny["spec"]["egress"].is_null() && deny["spec"]["ingress"].is_null());
        // Port 53 stands in one place, for one address.
        let mut asks = 0;
        for rule in policies.iter().flat_map(|one| list(&one["spec"]["egress"])) {
            let to = list(&rule["to"]);
            assert!(!to.is_empty() && !list(&rule["ports"]).is_empty(), "a rule without an end: {rule}");
            if list(&rule["ports"]).iter().any(|port| port["port"] == 53) {
                asks += 1;
                assert_eq!(to.len(), 1);
                assert_eq!(to[0]["ipBlock"]["cidr"], format!("{served}/32"));
            } else {
                let except = words(&to[0]["ipBlock"]["except"]);
                for private in ["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"] {
                    assert!(except.iter().any(|one| one == private), "{private} is open: {rule}");
                }
            }
        }
        assert_eq!(asks, 1, "{namespace}");

        let pod = documents(&deploy("kubernetes/examples").join(example)).remove(0);
        assert_eq!(pod["metadata"]["namespace"], namespace);
        assert_eq!(pod["spec"]["dnsPolicy"], "None");
        assert_eq!(words(&pod["spec"]["dnsConfig"]["nameservers"]), [served]);
        let home = of_base("namespaces.yaml", "Namespace", namespace);
        assert_eq!(home["metadata"]["labels"]["staunch.policy"], pod["metadata"]["labels"]["staunch.policy"]);
        assert_eq!(home["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    }
    let resolver = containers().into_iter().find(|one| one["name"] == "resolver").expect("the resolver");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let command = words(&resolver[probe]["exec"]["command"]);
        assert_eq!(command[..2], ["/staunch", "healthcheck"], "{probe}");
        let asked = command.iter().position(|word| word == "--address").map(|at| command[at + 1].clone());
        assert!(asked.is_none_or(|asked| asked == format!("{served}:53")), "{probe}: {command:?}");
    }
}

/// The last word of a `sh -c` container's command.
fn script(name: &str) -> String {
    let container = containers().into_iter().find(|one| one["name"] == name).expect("a container");
    let command = words(&container["command"]);
    assert_eq!(command[..2], ["sh", "-euc"]);
    command[2].clone()
}

#[test]
fn the_node_gets_its_address_once_however_often_the_pod_starts() {
    let Some(world) = World::create(1) else { return };
    let script = script("address");
    for _ in 0..2 {
        let output = world.gw.command("busybox").args(["sh", "-euc", &script]).output().expect("busybox runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let shown = world.gw.sh("ip -4 -o addr show");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.matches("169.254.20.25/32").count(), 1, "{shown}");
    // A pod reaches it by its default route.
    let served = std::net::SocketAddr::from(([169, 254, 20, 25], 53));
    let _listener = world.gw.run(async move { tokio::net::TcpListener::bind(served).await }).expect("bound");
    let (dialled, _) = world.agents[0].dial(served.ip(), served.port());
    dialled.expect("the node's address answers");
}

#[test]
fn the_pod_joins_its_configuration_from_what_the_maps_hold() {
    let dir = tempfile::tempdir().expect("directory");
    let base = deploy("kubernetes/base");
    let script = script("configuration")
        .replace("/node/", &format!("{}/", base.display()))
        .replace("/policies/*.toml", &format!("{0}/ci-install.toml {0}/prod-agents.toml", base.display()))
        .replace("/etc/staunch", &dir.path().display().to_string());
    let output = Command::new("busybox").args(["sh", "-euc", &script]).output();
    let Ok(output) = output else {
        return world::skip::lacking("busybox");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    loads(&read(&dir.path().join("staunch.toml")));
}

#[test]
fn the_compose_file_gives_each_service_what_it_needs_and_no_more() {
    let compose = documents(&deploy("container/compose.yaml")).remove(0);
    // (service, capabilities, options, in the host's network). The resolver's one capability is its file's: an engine that
    // gives an ordinary user the bounding set alone must not set no-new-privileges (tests/image.rs has both).
    let narrow = &["no-new-privileges:true"][..];
    for (name, capabilities, options, host) in [
        ("resolver", &["NET_BIND_SERVICE"][..], &[][..], true),
        ("enforcer", &["NET_ADMIN", "NET_RAW"], narrow, true),
        ("agent", &[], narrow, false),
    ] {
        let service = &compose["services"][name];
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&service["cap_add"]), capabilities, "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(words(&service["security_opt"]), options, "{name}");
        assert_eq!(service["network_mode"] == "host", host, "{name}");
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().expect("a source");
            match source.strip_prefix("./") {
                Some(file) => assert!(deploy("container").join(file).is_file(), "{volume}"),
                None => assert!(compose["volumes"].get(source).is_some(), "{volume}"),
            }
        }
    }
    let config = read(&deploy("container/staunch.toml"));
    loads(&config);
    assert!(config.lines().any(|line| line == "lockdown = \"require\""), "not ready without it");
    let (header, _) = config.split_once("version =").expect("a header");
    let apply = read(&deploy("container/compose.yaml"));
    let apply = apply.lines().find(|line| line.contains("staunch lockdown apply")).expect("the file tells how");
    assert!(header.contains(apply), "{header}");
    let network = &compose["networks"]["sandboxes"];
    let gateway = network["ipam"]["config"][0]["gateway"].as_str().expect("a gateway");
    assert!(config.contains(&format!("listen = [\"{gateway}:53\"]")));
    assert!(read(&deploy("container/resolv.conf")).contains(&format!("nameserver {gateway}\n")));
    // The engine's own server in the agent's container asks nobody else either.
    assert_eq!(words(&compose["services"]["agent"]["dns"]), [gateway]);
    let agent = compose["services"]["agent"]["networks"]["sandboxes"]["ipv4_address"].as_str().expect("an address");
    assert!(config.contains(&format!("addresses = [\"{agent}\"]")));
    let bridge = network["driver_opts"]["com.docker.network.bridge.name"].as_str().expect("a name");
    assert!(config.contains(&format!("interfaces = [\"{bridge}\"]")));
}

#[test]
fn the_recipe_for_systemd_configures_before_it_enables() {
    let text = read(&deploy("README.md"));
    let section = text.split("\n## ").find(|part| part.starts_with("systemd\n")).expect("a section");
    let (before, after) = section.split_once("    systemctl enable ").expect("what enables the units");
    for unit in ["staunch-lockdown", "staunch-enforcer", "staunch.socket", "staunch"] {
        assert!(after.lines().next().unwrap_or_default().split(' ').any(|word| word == unit), "{unit}");
    }
    assert!(before.contains("    staunch check /etc/staunch/staunch.toml\n"));
    let written = before.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("settings");
    for setting in ["listen", "servers", "backend = \"nft\"", "interfaces", "enforcer_socket"] {
        assert!(written.lines().any(|line| line.starts_with(setting)), "{setting}: {written}");
    }
    loads(&format!("version = 1\n{written}"));
    // They fit the units beside them.
    let units = |name: &str| read(&deploy("systemd").join(name));
    let value = |name: &str| {
        let line = written.lines().find(|line| line.starts_with(name)).expect("a setting");
        line.split('"').nth(1).expect("a word")
    };
    assert!(units("staunch.socket").contains(&format!("ListenDatagram={}\n", value("listen"))));
    let (directory, _) = value("enforcer_socket").rsplit_once('/').expect("a directory");
    let directory = directory.strip_prefix("/run/").expect("a directory of the system's run time");
    assert!(units("staunch-enforcer.service").contains(&format!("RuntimeDirectory={directory}\n")));
}

#[test]
fn the_image_names_no_registry_and_runs_as_an_ordinary_user() {
    let text = read(&deploy("container/Dockerfile"));
    let value = |word: &str| text.lines().rev().find_map(|line| line.strip_prefix(word)).unwrap_or_default().trim();
    assert_eq!(value("USER"), format!("{USER}:{USER}"));
    let bases: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases, ["${BUILDER} AS build", "scratch"]);
    let builder = value("ARG BUILDER=");
    assert!(!builder.is_empty() && !builder.contains(['.', '/']), "a short name: {builder}");
    for (what, words) in [("ENTRYPOINT", vec!["/staunch"]), ("HEALTHCHECK", vec!["/staunch", "healthcheck"])] {
        let line = value(what);
        let array = &line[line.find('[').expect("an array")..];
        let found: Vec<String> = serde_json::from_str(array).expect("words");
        assert_eq!(found, words, "{what}");
    }
}
