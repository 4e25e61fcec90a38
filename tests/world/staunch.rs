//! The binary under test: its configuration, its process, its command line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{UPSTREAM, World};

/// What a test wants otherwise than usual; every field is TOML text put where its name says.
pub struct Config {
    /// `monitor` or `enforce`.
    pub mode: &'static str,
    /// Lines for `[server]`.
    pub server: String,
    /// Lines for `[policy]`.
    pub policy: String,
    /// Lines for `[upstream]`; where they begin with `servers`, instead of the usual one.
    pub upstream: String,
    /// `nft`, or another backend.
    pub backend: &'static str,
    /// Lines for `[enforce]`; where they do not name `lockdown =`, nobody looks for one, and where they do not name `deadline_ms =`,
    /// an answer waits for the kernel's word for as long as a busy machine may need.
    pub enforce: String,
    /// The `[[session]]` tables; empty: `agent-N` of type interactive for each sandbox.
    pub sessions: String,
    /// Further tables.
    pub tables: String,
}

impl Config {
    /// Enforce mode, nothing else.
    pub fn enforce() -> Self {
        let none = String::new;
        Self {
            mode: "enforce",
            server: none(),
            policy: none(),
            upstream: none(),
            backend: "nft",
            enforce: none(),
            sessions: none(),
            tables: none(),
        }
    }

    /// Monitor mode, nothing else.
    pub fn monitor() -> Self {
        Self { mode: "monitor", ..Self::enforce() }
    }

    /// Adds tables.
    pub fn tables(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self.tables.push('\n');
        self
    }

    /// Adds an exact allow rule for these names, all types of an ordinary stub.
    pub fn allow_exact<S: AsRef<str>>(self, id: &str, names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<String> = names.into_iter().map(|n| format!("\"={}\"", n.as_ref())).collect();
        self.rule(id, "allow", &names.join(", "), "")
    }

    /// Adds a deny rule for this name form.
    pub fn deny(self, id: &str, form: &str) -> Self {
        self.rule(id, "deny", &format!("{form:?}"), "")
    }

    /// Adds a rule; `names` is the inside of a TOML array, `more` further lines.
    pub fn rule(self, id: &str, action: &str, names: &str, more: &str) -> Self {
        self.tables(&format!(
            "[[rule]]\nid = {id:?}\naction = {action:?}\nnames = [{names}]\nowner = \"tests\"\n\
             reason = \"a test needs it\"\nreview_by = \"2099-01-01\"\n{more}"
        ))
    }

    fn render(&self, world: &World, state: &Path) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let listen = world.agents.iter().flat_map(|a| {
            let octet = a.address.octets()[2];
            [format!("\"{}:53\"", a.gateway), format!("\"[fd77:{octet}::1]:53\"")]
        });
        let interfaces = world.agents.iter().map(|a| format!("{:?}", a.interface));
        let sessions = match self.sessions.is_empty() {
            false => self.sessions.clone(),
            true => world.agents.iter().map(usual_session).collect(),
        };
        format!(
            "version = 1\n\n[server]\nlisten = [{listen}]\nstate_dir = {state:?}\nmetrics = \"127.0.0.1:9153\"\n{server}\n\
             [policy]\nmode = {mode:?}\n{policy}\n\n[upstream]\n{usual}{upstream}\n\n\
             [enforce]\nbackend = {backend:?}\ntable = \"staunch\"\ninterfaces = [{interfaces}]\n{lockdown}{deadline}{enforce}\n\n\
             {sessions}\n{tables}",
            listen = list(listen.collect()),
            mode = self.mode,
            server = self.server,
            policy = self.policy,
            usual = if self.upstream.starts_with("servers") {
                String::new()
            } else {
                format!("servers = [\"{UPSTREAM}\"]\n")
            },
            upstream = self.upstream,
            backend = self.backend,
            interfaces = list(interfaces.collect()),
            // Of most tests the lockdown is no subject.
            lockdown = if self.enforce.contains("lockdown =") { "" } else { "lockdown = \"off\"\n" },
            // Nor is how soon a thread of the kernel and one of ours get a processor.
            deadline = if self.enforce.contains("deadline_ms =") { "" } else { "deadline_ms = 2000\n" },
            enforce = self.enforce,
            tables = self.tables,
        )
    }
}

fn usual_session(agent: &super::Agent) -> String {
    format!(
        "[[session]]\nid = \"agent-{}\"\naddresses = [\"{}\", \"{}\"]\ntype = \"interactive\"\nowner = \"team-a\"\n\n",
        agent.address.octets()[2],
        agent.address,
        agent.address6
    )
}

/// How long a start may take; one that fails is noticed at once.
const READY: Duration = Duration::from_secs(60);

/// A running `staunch serve` in the world's gateway.
pub struct Staunch {
    child: Option<Child>,
    /// Its configuration file.
    pub config: PathBuf,
    /// The user it runs as, without any capability; root with all of them where none is named.
    user: Option<u32>,
    /// Set in its environment.
    env: Vec<(&'static str, String)>,
    /// The `cgroup.procs` of the control group it is in.
    group: Option<PathBuf>,
    /// How many descriptors it may open; as many as the test where none is said.
    files: Option<u64>,
    /// Its state directory.
    pub state: PathBuf,
    socket: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Staunch {
    /// Starts it and waits until it says that it is ready.
    pub fn start(world: &World, config: &Config) -> Self {
        let mut this = Self::written(world, config);
        this.spawn(world, READY);
        this
    }

    /// Starts it with a hard limit of so many descriptors.
    pub fn start_limited(world: &World, config: &Config, files: u64) -> Self {
        let mut this = Self::written(world, config);
        this.files = Some(files);
        this.spawn(world, READY);
        this
    }

    /// Starts it in a control group, whose `cgroup.procs` this is.
    pub fn start_grouped(world: &World, config: &Config, group: PathBuf) -> Self {
        let mut this = Self::written(world, config);
        this.group = Some(group);
        this.spawn(world, READY);
        this
    }

    /// Starts it with this in its environment.
    pub fn start_in(world: &World, config: &Config, env: Vec<(&'static str, String)>) -> Self {
        let mut this = Self::written(world, config);
        this.env = env;
        this.spawn(world, READY);
        this
    }

    /// Starts it and does not wait until it says that it is ready.
    pub fn start_unready(world: &World, config: &Config) -> Self {
        let mut this = Self::written(world, config);
        drop(this.launch(world));
        this
    }

    /// Writes its configuration and makes its state directory, for `user` to read and to write; starts nothing.
    pub fn written_for(world: &World, config: &Config, user: u32) -> Self {
        use std::os::unix::fs::{PermissionsExt, chown};
        let mut this = Self::written(world, config);
        this.user = Some(user);
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(world.dir(), open).expect("the world's directory can be passed");
        chown(&this.state, Some(user), Some(user)).expect("the state directory is the user's");
        this
    }

    fn written(world: &World, config: &Config) -> Self {
        let state = world.path("state");
        std::fs::create_dir_all(&state).expect("the state directory");
        let path = world.path("staunch.toml");
        std::fs::write(&path, config.render(world, &state)).expect("the configuration written");
        let socket = state.join("admin.sock");
        Self {
            child: None,
            config: path,
            user: None,
            env: Vec::new(),
            group: None,
            files: None,
            state,
            socket,
            log: Arc::default(),
        }
    }

    /// Starts it again after [`Self::kill`] and gives the time until it was ready.
    pub fn restart(&mut self, world: &World) -> Duration {
        self.spawn(world, READY)
    }

    /// The same without waiting until it says that it is ready.
    pub fn restart_unready(&mut self, world: &World) {
        drop(self.launch(world));
    }

    /// Ends it as a power cut would (SIGKILL), and reaps it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Writes another configuration and has it reloaded.
    pub fn reload(&self, world: &World, config: &Config) {
        std::fs::write(&self.config, config.render(world, &self.state)).expect("the configuration written");
        if let Some(child) = &self.child {
            // SAFETY: a plain system call; the child is ours and not yet reaped.
            unsafe { libc::kill(child.id() as i32, libc::SIGHUP) };
        }
    }

    /// Runs a client verb: `["session", "show", "agent-1"]`; the socket is added.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(args).arg("--socket").arg(&self.socket).stdin(Stdio::null());
        command.output().expect("the binary runs")
    }

    /// Runs a client verb that must succeed.
    pub fn run_ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "staunch {}: {}: {error}\n{}", args.join(" "), output.status, self.tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a client verb with `--json` and reads what it prints, whatever the exit code.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let output = self.run(&args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            let error = String::from_utf8_lossy(&output.stderr);
            panic!(
                "staunch {}: {e}: {error}{}\n{}",
                args.join(" "),
                String::from_utf8_lossy(&output.stdout),
                self.tail()
            )
        })
    }

    /// State of a session: `active`, `watched` or `quarantined`; empty where it is unknown.
    pub fn session_state(&self, id: &str) -> String {
        text(&self.json(&["session", "show", id])["session"]["state"])
    }

    /// The case of a session's quarantine.
    pub fn session_case(&self, id: &str) -> String {
        text(&self.json(&["session", "show", id])["session"]["case"])
    }

    /// Events so far, oldest first.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state.join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it has written on standard error, all starts together.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Its last lines on standard error, for the message of a failed check.
    pub fn tail(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(30)..].join("\n")
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn spawn(&mut self, world: &World, limit: Duration) -> Duration {
        let start = Instant::now();
        let told = self.launch(world);
        // The sender is dropped at the end of its output, so a process that dies is noticed at once.
        told.recv_timeout(limit).unwrap_or_else(|e| panic!("staunch did not become ready: {e}\n{}", self.tail()));
        start.elapsed()
    }

    /// Starts the process; who listens hears of each line that says ready.
    fn launch(&mut self, world: &World) -> std::sync::mpsc::Receiver<()> {
        let mut command = match self.user {
            None => world.gw.command(binary()),
            Some(user) => without_privilege(world, user),
        };
        if let Some(files) = self.files {
            use std::os::unix::process::CommandExt;
            let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
            // SAFETY: one system call on a struct of its own, which touches no lock or heap.
            unsafe {
                command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                });
            }
        }
        if let Some(group) = &self.group {
            use std::os::{fd::AsRawFd, unix::process::CommandExt};
            let group = std::fs::File::options().write(true).open(group).expect("the control group");
            // SAFETY: one system call on a descriptor that the closure owns; `0` is whoever writes it.
            unsafe {
                command.pre_exec(move || match libc::write(group.as_raw_fd(), b"0".as_ptr().cast(), 1) {
                    1 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                });
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg("serve").arg("--config").arg(&self.config).arg("--state-dir").arg(&self.state);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        self.child = Some(child);
        let (ready, told) = std::sync::mpsc::channel();
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if says_ready(&line) {
                    let _ = ready.send(());
                }
                log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
            }
        });
        told
    }
}

impl Drop for Staunch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- staunch said last:\n{}\n---", self.tail());
        }
        self.kill();
    }
}

/// The binary: as Cargo says in a test, beside the running program in an example, or `STAUNCH_BIN`.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("STAUNCH_BIN") {
        return path.into();
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_staunch") {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of the running program");
    let target = own.parent().and_then(Path::parent).expect("an example lies two levels below the profile's directory");
    target.join("staunch")
}

/// The binary as this user, in a group of the same number, with no capability and no way to gain one.
fn without_privilege(world: &World, user: u32) -> Command {
    use std::os::unix::fs::PermissionsExt;
    let mut program = binary();
    let passable = |path: &Path| path.metadata().is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    if !program.ancestors().skip(1).all(passable) {
        let copy = world.path("staunch-under-test");
        if !copy.exists() {
            std::fs::copy(&program, &copy).expect("the binary copied to where the user can read it");
        }
        program = copy;
    }
    let mut command = world.gw.command("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
    command.args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]).arg(program);
    command
}

/// Whether a log line holds the word `ready`, not as a part of another and not denied.
fn says_ready(line: &str) -> bool {
    let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.iter().enumerate().any(|(i, word)| *word == "ready" && (i == 0 || words[i - 1] != "not"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
