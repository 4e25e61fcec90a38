//! What the doctor is put in front of, and what it says of it.

use super::*;

/// A world with two sandboxes, the service, and a canary outside.
pub struct Scene {
    pub world: World,
    pub staunch: Staunch,
    pub canary: Child,
    pub sleeper: Child,
}

impl Scene {
    pub fn create(config: Config) -> Option<Self> {
        let world = World::create(2)?;
        // What a sandbox's own forged source meets must be the lockdown and not the kernel.
        for interface in ["all", "default", "up0", "ag1", "ag2"] {
            world.gw.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        }
        world.net.sysctl("net/ipv6/ip_nonlocal_bind", "1");
        world.upstream.add_site(THEIRS, ELSEWHERE.into());
        let mut config = config.allow_exact("site", [NAME, THEIRS]);
        config.enforce += "\nmin_pin_seconds = 4\nmax_pin_seconds = 6\npin_grace_seconds = 2";
        let staunch = Staunch::start(&world, &config);
        let canary = canary(&world);
        let mut sleep = world.agents[0].ns.command("sleep");
        let sleeper = sleep.arg("600").spawn().expect("sleep starts");
        Some(Self { world, staunch, canary, sleeper })
    }

    /// Service and lockdown as they should be.
    pub fn whole() -> Option<Self> {
        let scene = Self::create(Config::enforce())?;
        apply(&scene.world);
        Some(scene)
    }

    /// The lockdown as it should be, and in place of the service's table a stand-in that permits what `rule` matches.
    pub fn held_by(rule: &str) -> Option<Self> {
        let mut config = Config::monitor();
        config.backend = "dry-run";
        let scene = Self::create(config)?;
        stand_in(&scene.world.gw, rule);
        apply(&scene.world);
        Some(scene)
    }

    /// The doctor on the gateway, for the first sandbox.
    pub fn doctor(&self, socket: &Path, words: &[&str]) -> Output {
        let mut command = self.world.gw.command(binary());
        command.args(["doctor", "--from-namespace", &self.sleeper.id().to_string(), "--json", "--socket"]).arg(socket);
        for canary in CANARY {
            command.args(["--canary", canary]);
        }
        command.args(words).output().expect("the binary runs")
    }

    pub fn json(&self, words: &[&str]) -> (Value, i32) {
        self.doctor_of(&self.staunch.state.join("admin.sock"), words)
    }

    /// The same with the node of this socket as ours.
    pub fn doctor_of(&self, socket: &Path, words: &[&str]) -> (Value, i32) {
        read(self.doctor(socket, words))
    }

    /// Opens a pin of the other sandbox.
    pub fn their_pin(&self) {
        let reply = self.world.agents[1].ask_edns(THEIRS, rtype::A).expect("an answer");
        assert_eq!(reply.addresses(), [ELSEWHERE]);
    }
}

pub fn canary(world: &World) -> Child {
    let mut listen = world.net.command(binary());
    listen.args(["doctor", "--listen", &CANARY.join(",")]).stdout(Stdio::null()).stderr(Stdio::null());
    let canary = listen.spawn().expect("the canary starts");
    let up = wait_for(Duration::from_secs(5), || {
        let at = (CANARY[0].parse::<IpAddr>().expect("an address"), 9000);
        world.gw.blocking(|| std::net::TcpStream::connect(at)).ok()
    });
    assert!(up.is_some(), "the canary answers");
    canary
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in [&mut self.canary, &mut self.sleeper] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn apply(world: &World) {
    let words: Vec<&str> = ["apply"].iter().chain(&BOUND).copied().collect();
    ok(&world.gw, &words);
}

#[track_caller]
pub fn read(output: Output) -> (Value, i32) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{error}", String::from_utf8_lossy(&output.stdout)));
    (value, output.status.code().unwrap_or(-1))
}

pub fn rows(found: &Value) -> Vec<(String, String, String)> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let rows = found["report"]["rows"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| {
            let why = format!("{}: {}; {}", text(row, "to"), text(row, "why"), text(row, "control"));
            (text(row, "probe"), text(row, "outcome"), why)
        })
        .collect()
}

pub fn with(found: &Value, outcome: &str) -> Vec<(String, String)> {
    rows(found).into_iter().filter(|(_, o, _)| o == outcome).map(|(probe, _, why)| (probe, why)).collect()
}

/// Which probes ended so, each once, in order.
pub fn ids(found: &Value, outcome: &str) -> Vec<String> {
    let mut ids: Vec<String> = with(found, outcome).into_iter().map(|(probe, _)| probe).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Exactly these are open, whatever else.
#[track_caller]
pub fn only_open(found: &Value, code: i32, wanted: &[&str]) {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(ids(found, "open"), wanted, "{:#?}", with(found, "open"));
    assert_eq!(code, 12, "an open way goes before all else");
}
