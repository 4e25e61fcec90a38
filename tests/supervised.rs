//! The daemon under a supervisor: sockets that outlive it, notifications, watchdog, health check.
//!
//! The supervisor is this program: it opens the sockets and hands them over as systemd does (`LISTEN_FDS`), and reads
//! what the daemon says on `NOTIFY_SOCKET`.

mod daemon;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use daemon::{BINARY, code, upstream};

/// Generous: machines that build at the same time are slow.
const LIMIT: Duration = Duration::from_secs(20);
/// What is asked for in `WATCHDOG_USEC`; a part may stand still for half of it.
const WATCHDOG: Duration = Duration::from_secs(2);

/// Sockets as a socket unit describes them, and the place where the daemon reports.
struct Supervisor {
    dir: tempfile::TempDir,
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
    notify: UnixDatagram,
}

impl Supervisor {
    fn new(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = tcp.local_addr().expect("address");
        let udp = UdpSocket::bind(address).expect("bound");
        let admin = UnixListener::bind(dir.path().join("admin.sock")).expect("bound");
        let notify = UnixDatagram::bind(dir.path().join("notify")).expect("bound");
        let this = Self { address, sockets: vec![high(udp), high(tcp), high(admin)], notify, dir };
        this.configure(&address.to_string(), extra);
        this
    }

    fn configure(&self, listen: &str, extra: &str) {
        let socket = self.admin();
        let text = format!(
            "version = 1\n[server]\nlisten = [{listen:?}]\nadmin_socket = {socket:?}\nmetrics = \"off\"\nworkers = 2\n\
             [upstream]\nservers = [\"{}\"]\n{extra}",
            upstream()
        );
        std::fs::write(self.dir.path().join("staunch.toml"), text).expect("configuration");
    }

    fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    fn command(&self) -> Command {
        // The shell becomes the daemon, so that its process id can be announced.
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh", BINARY, "serve", "--config"]);
        command.arg(self.dir.path().join("staunch.toml")).arg("--state-dir").arg(self.dir.path().join("state"));
        command.env("LISTEN_FDS", self.sockets.len().to_string()).env("LISTEN_FDNAMES", "dns:dns:admin");
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify")).env("NO_COLOR", "1");
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let sockets: Vec<RawFd> = self.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let hand_over = move || {
            for (number, socket) in (3..).zip(&sockets) {
                // SAFETY: a system call on numbers; the copy is not closed at exec.
                if unsafe { libc::dup2(*socket, number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: `hand_over` makes system calls only.
        unsafe { command.pre_exec(hand_over) };
        command
    }

    fn start(&self) -> Running {
        let running = Running { child: self.command().stderr(Stdio::null()).spawn().expect("the daemon starts") };
        assert!(self.hear(|said| said.contains("READY=1")).is_some(), "not ready");
        running
    }

    /// The next notification that `wanted` accepts; those before it are passed over.
    fn hear(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.hear_within(LIMIT, wanted)
    }

    fn hear_within(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.notify.set_read_timeout(Some(left)).expect("time limit");
            match self.notify.recv(&mut buffer) {
                Ok(length) => {
                    let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if wanted(&said) {
                        return Some(said);
                    }
                }
                Err(_) if Instant::now() >= end => return None,
                Err(_) => {}
            }
        }
    }

    /// Forgets what was said so far.
    fn drain(&self) {
        self.notify.set_nonblocking(true).expect("setting");
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        self.notify.set_nonblocking(false).expect("setting");
    }

    fn verb(&self, words: &[&str]) -> Output {
        daemon::run(&self.admin(), words)
    }
}

struct Running {
    child: Child,
}

impl Running {
    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child is ours and not yet reaped.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0, "signal {signal}");
    }

    fn end(&mut self, signal: i32) -> std::process::ExitStatus {
        self.signal(signal);
        self.child.wait().expect("ended")
    }

    /// Threads of this name.
    fn threads(&self, name: &str) -> Vec<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process runs");
        let named = tasks
            .flatten()
            .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        named.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same socket under a number that the hand-over does not write to.
fn high(socket: impl AsRawFd) -> OwnedFd {
    // SAFETY: the descriptor is open; the new one is nobody else's.
    unsafe {
        let copy = libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
        assert!(copy >= 100, "a copy of a descriptor");
        OwnedFd::from_raw_fd(copy)
    }
}

fn query(name: &str) -> Vec<u8> {
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

fn send(to: SocketAddr, name: &str) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    socket.set_read_timeout(Some(LIMIT)).expect("time limit");
    socket.send_to(&query(name), to).expect("sent");
    socket
}

/// Response code and number of answers.
fn receive(socket: &UdpSocket) -> (u8, u16) {
    let mut reply = [0; 1500];
    let length = socket.recv(&mut reply).expect("a reply");
    assert!(length > 12);
    (reply[3] & 0xf, u16::from_be_bytes([reply[6], reply[7]]))
}

fn kept(supervisor: &Supervisor, signal: i32) {
    let mut running = supervisor.start();
    assert_eq!(receive(&send(supervisor.address, "before.example")), (0, 1));
    running.end(signal);

    // Nobody serves: everything waits in the sockets' queues.
    let waiting: Vec<UdpSocket> = (0..32).map(|n| send(supervisor.address, &format!("waiting{n}.example"))).collect();
    let mut stream = TcpStream::connect(supervisor.address).expect("the socket still listens");
    let message = query("stream.example");
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message.as_slice()].concat()).expect("sent");
    stream.set_read_timeout(Some(LIMIT)).expect("time limit");

    let _running = supervisor.start();
    let heard: Vec<_> = waiting.iter().map(receive).collect();
    assert!(heard.iter().all(|heard| *heard == (0, 1)), "questions that waited: {heard:?}");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("the connection that waited is served");
    assert!(u16::from_be_bytes(length) > 12);
}

#[test]
fn what_is_asked_while_the_daemon_is_killed_is_answered_by_the_next() {
    kept(&Supervisor::new(""), libc::SIGKILL);
}

#[test]
fn what_is_asked_during_an_orderly_restart_is_answered_by_the_next() {
    let supervisor = Supervisor::new("");
    kept(&supervisor, libc::SIGTERM);
    assert!(supervisor.admin().exists(), "the admin socket is the supervisor's");
}

#[test]
fn a_group_for_the_supervisors_own_socket_is_told_to_do_nothing() {
    let supervisor = Supervisor::new("");
    let file = supervisor.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, text.replace("workers = 2", "workers = 2\nadmin_group = \"0\"")).expect("written");
    let log = supervisor.dir.path().join("log");
    let mut command = supervisor.command();
    let _running = Running {
        child: command.stderr(std::fs::File::create(&log).expect("a log")).spawn().expect("the daemon starts"),
    };
    assert!(supervisor.hear(|said| said.contains("READY=1")).is_some(), "not ready");
    let said = std::fs::read_to_string(&log).expect("read");
    assert!(said.contains("admin_group does nothing") && said.contains("SocketGroup="), "{said}");
}

#[test]
fn inherited_sockets_close_at_exec() {
    let supervisor = Supervisor::new("");
    let running = supervisor.start();
    for number in 3..6 {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", running.pid())).expect("open");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
        let flags = u32::from_str_radix(flags, 8).expect("octal");
        assert_ne!(flags & libc::O_CLOEXEC as u32, 0, "descriptor {number} would be inherited");
    }
}

#[test]
fn a_socket_that_the_configuration_does_not_name_is_a_clear_error() {
    let supervisor = Supervisor::new("");
    supervisor.configure("127.0.0.1:0", "");
    let output = supervisor.command().output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for part in [format!("UDP {}", supervisor.address), format!("TCP {}", supervisor.address), "listen".into()] {
        assert!(error.contains(&part), "`{part}` is missing: {error}");
    }
}

#[test]
fn a_descriptor_that_is_no_socket_is_a_clear_error() {
    let mut supervisor = Supervisor::new("");
    supervisor.sockets.push(high(std::fs::File::open("/dev/null").expect("open")));
    let mut command = supervisor.command();
    let output = command.env("LISTEN_FDNAMES", "dns:dns:admin:odd").output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("`odd`") && error.contains("neither"), "{error}");
}

#[test]
fn a_reload_is_told_with_its_outcome_and_so_is_the_end() {
    let supervisor = Supervisor::new("");
    let mut running = supervisor.start();
    running.signal(libc::SIGHUP);
    let began = supervisor.hear(|said| said.contains("RELOADING=1")).expect("a reload begins");
    assert!(began.contains("MONOTONIC_USEC="), "{began}");
    let ended = supervisor.hear(|said| said.contains("READY=1")).expect("a reload ends");
    assert!(ended.contains("in force"), "{ended}");

    std::fs::write(supervisor.dir.path().join("staunch.toml"), "version = 1\nnonsense = true\n").expect("written");
    running.signal(libc::SIGHUP);
    let ended = supervisor.hear(|said| said.contains("READY=1")).expect("a reload ends");
    assert!(ended.contains("STATUS=the old configuration stays"), "{ended}");
    assert_eq!(receive(&send(supervisor.address, "after.example")), (0, 1), "it serves as before");

    assert!(running.end(libc::SIGTERM).success());
    assert!(supervisor.hear(|said| said.contains("STOPPING=1")).is_some());
}

#[test]
fn a_health_check_tells_ready_silent_and_gone() {
    let supervisor = Supervisor::new("");
    let mut running = supervisor.start();
    let address = supervisor.address.to_string();
    let healthy = supervisor.verb(&["healthcheck", "--address", &address, "--json"]);
    assert_eq!(code(&healthy), 0, "{healthy:?}");
    let sessions = supervisor.verb(&["session", "list", "--json"]);
    assert!(!String::from_utf8_lossy(&sessions.stdout).contains("127.0.0.1"), "a health check is nobody's session");
    let nobody = format!("127.0.0.1:{}", daemon::port::free_port());
    let silent = supervisor.verb(&["healthcheck", "--address", &nobody]);
    assert_eq!(code(&silent), 1);
    assert!(String::from_utf8_lossy(&silent.stderr).contains(&nobody), "{silent:?}");
    running.end(libc::SIGKILL);
    let stuck = supervisor.verb(&["healthcheck", "--timeout", "1"]);
    assert_eq!(code(&stuck), 1, "the socket takes connections that nobody serves");
    std::fs::remove_file(supervisor.admin()).expect("removed");
    assert_eq!(code(&supervisor.verb(&["healthcheck"])), 4);
}

#[test]
fn the_watchdog_is_fed_while_every_part_moves_and_only_then() {
    let supervisor = Supervisor::new("[enforce]\nbackend = \"dry-run\"\n");
    let running = supervisor.start();
    let fed = |said: &str| said.contains("WATCHDOG=1");
    for _ in 0..3 {
        assert!(supervisor.hear(fed).is_some(), "fed from the start");
    }
    for name in ["udp-0", "udp-1", "enforce", "slow"] {
        let threads = running.threads(name);
        assert!(!threads.is_empty(), "no thread `{name}`");
        // Held threads are let go by the thread that holds them.
        let held: Vec<Held> = threads.into_iter().map(Held::hold).collect();
        // Half of the period and a look: from then on there is silence.
        std::thread::sleep(WATCHDOG);
        supervisor.drain();
        assert_eq!(supervisor.hear_within(WATCHDOG, fed), None, "fed although `{name}` stands still");
        drop(held);
        assert!(supervisor.hear(fed).is_some(), "not fed although `{name}` goes on");
    }
    assert_eq!(receive(&send(supervisor.address, "after.example")), (0, 1));
}

/// One thread that stands still, by ptrace(2), while its process goes on.
struct Held(i32);

impl Held {
    fn hold(thread: i32) -> Self {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests read and write no memory of ours; the thread belongs to our child.
        unsafe {
            let seized = libc::ptrace(libc::PTRACE_SEIZE, thread, none, none);
            assert_eq!(seized, 0, "ptrace: {}", std::io::Error::last_os_error());
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0);
            let mut status = 0;
            assert_eq!(libc::waitpid(thread, &mut status, libc::__WALL), thread, "the thread stops");
        }
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

/// A hook that takes the state directory away when it is told what to hold: all is well but that the service is not ready.
const AWAY: &str = r#"
import json, os, sys
state = sys.argv[1]
for line in sys.stdin:
    op = json.loads(line)["op"]
    if op == "hold" and not os.path.exists(state + ".away"):
        os.rename(state, state + ".away")
        os.mkdir(state)
    replies = {"hello": {"reply": "welcome", "version": 2}, "health": {"reply": "health"}}
    replies["apply"] = {"reply": "results", "results": [None] * len(json.loads(line).get("commands", []))}
    print(json.dumps(replies.get(op, {"reply": "done"})), flush=True)
"#;

#[test]
fn a_reload_ahead_of_ready_is_not_taken_for_the_end_of_the_start() {
    let supervisor = Supervisor::new("");
    let (script, state) = (supervisor.dir.path().join("away.py"), supervisor.dir.path().join("state"));
    std::fs::write(&script, AWAY).expect("the script written");
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable, end='')"]).output();
    let python = String::from_utf8(python.expect("python3 runs; scripts/setup.sh installs it").stdout).expect("a path");
    let hook = format!("hook = [{python:?}, {script:?}, {state:?}]");
    let extra = format!("[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"hook\"\n{hook}\n");
    supervisor.configure(&supervisor.address.to_string(), &extra);
    let running = Running { child: supervisor.command().stderr(Stdio::null()).spawn().expect("the daemon starts") };
    let told = supervisor.hear(|said| said.contains("STATUS=not ready")).expect("why it is not ready");
    assert!(told.contains("state directory"), "{told}");

    let digest = |supervisor: &Supervisor| {
        let status: serde_json::Value =
            serde_json::from_slice(&supervisor.verb(&["status", "--json"]).stdout).expect("JSON");
        status["digest"].as_str().expect("a digest").to_owned()
    };
    let before = digest(&supervisor);
    let file = supervisor.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, text + "[answer]\nfloor_seconds = 31\n").expect("written");
    running.signal(libc::SIGHUP);
    let end = Instant::now() + LIMIT;
    while digest(&supervisor) == before {
        assert!(Instant::now() < end, "it is not reloaded");
        std::thread::sleep(Duration::from_millis(50));
    }
    let early = |said: &str| said.contains("READY=1") || said.contains("RELOADING=1");
    assert_eq!(supervisor.hear_within(Duration::from_secs(2), early), None, "it is not ready");

    std::fs::remove_dir_all(&state).expect("removed");
    std::fs::rename(state.with_extension("away"), &state).expect("moved back");
    assert!(supervisor.hear(early).expect("it is ready").contains("STATUS=ready"));
}
