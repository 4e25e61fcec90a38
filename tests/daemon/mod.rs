//! The daemon as a process on loopback, with a scripted upstream.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod port;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const BINARY: &str = env!("CARGO_BIN_EXE_staunch");

/// Answers A questions with 203.0.113.5, or 10.0.0.1 where the name begins with `inside`, and everything else with an
/// empty answer.
pub fn upstream() -> SocketAddr {
    upstream_after(|| {})
}

/// The same; each question waits for `ready` to come back.
pub fn upstream_after(ready: impl Fn() + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let packet = &buffer[..length];
            ready();
            // Label by label: a label may hold any octet, NUL too.
            let mut end = 12;
            while packet[end] != 0 {
                end += 1 + usize::from(packet[end]);
            }
            end += 5;
            let is_a = packet[end - 4..end - 2] == [0, 1];
            let mut reply = packet[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                // The first label, in whatever case it was drawn, says whether the answer leads inside.
                let inside = packet.get(13..19).is_some_and(|label| label.eq_ignore_ascii_case(b"inside"));
                let address = if inside { [10, 0, 0, 1] } else { [203, 0, 113, 5] };
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
                reply.extend_from_slice(&address);
            }
            let _ = socket.send_to(&reply, from);
        }
    });
    address
}

pub struct Daemon {
    pub child: Child,
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Daemon {
    pub fn start(extra: &str) -> Self {
        Self::start_with_metrics("off", extra)
    }

    pub fn start_with_metrics(metrics: &str, extra: &str) -> Self {
        Self::start_at(upstream(), metrics, extra)
    }

    pub fn start_at(upstream: SocketAddr, metrics: &str, extra: &str) -> Self {
        Self::start_by(&format!("servers = [\"{upstream}\"]"), metrics, extra)
    }

    /// With these lines under `[upstream]`.
    pub fn start_by(upstream: &str, metrics: &str, extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let text = format!(
            "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"{metrics}\"\n[upstream]\n{upstream}\n{extra}",
        );
        // How soon a thread gets a processor is no subject here: an answer waits for its pin as long as a busy machine may need.
        let text = text.replace("backend = \"dry-run\"\n", "backend = \"dry-run\"\ndeadline_ms = 2000\n");
        std::fs::write(dir.path().join("staunch.toml"), text).expect("configuration");
        let (child, address) = Self::spawn(dir.path(), Some(&dir.path().join("staunch.toml")));
        Self { child, dir, address }
    }

    pub fn spawn(dir: &Path, config: Option<&Path>) -> (Child, SocketAddr) {
        let (child, address, _) = Self::spawn_on(&dir.join("state"), config);
        (child, address)
    }

    /// On this state: the process, where it listens, and what it has said by then.
    pub fn spawn_on(state: &Path, config: Option<&Path>) -> (Child, SocketAddr, String) {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--state-dir").arg(state).env("NO_COLOR", "1");
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the daemon starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("not ready:\n{said}") };
            said += &line;
            said += "\n";
            if let Some(rest) = line.split("ready addresses=\"").nth(1) {
                break rest.split(['"', ',']).next().expect("an address").parse().expect("an address");
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        (child, address, said)
    }

    pub fn restart(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        let config = self.dir.path().join("staunch.toml");
        (self.child, self.address) = Self::spawn(self.dir.path(), Some(&config));
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("state/admin.sock")
    }

    pub fn run(&self, args: &[&str]) -> Output {
        run(&self.socket(), args)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {output:?}"))
    }

    /// Response code, the answers' count, and the whole reply as text for searching.
    pub fn ask(&self, name: &str, qtype: u8) -> (u8, u16, String) {
        let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
        self.ask_labels(&labels, qtype)
    }

    /// The same for labels of any octets.
    pub fn ask_labels(&self, labels: &[&[u8]], qtype: u8) -> (u8, u16, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in labels {
            query.push(label.len() as u8);
            query.extend_from_slice(label);
        }
        query.extend_from_slice(&[0, 0, qtype, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        socket.send_to(&query, self.address).expect("sent");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a reply");
        let reply = &buffer[..length];
        (reply[3] & 0xf, u16::from_be_bytes([reply[6], reply[7]]), String::from_utf8_lossy(reply).into_owned())
    }

    /// The newest event that `wanted` accepts, once it is there.
    pub fn event(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let output = self.run(&["observe", "--last", "200", "--json"]);
            let events = String::from_utf8(output.stdout).expect("UTF-8");
            let found = events.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(&wanted).last();
            match found {
                Some(event) => return event,
                None if Instant::now() > until => panic!("no such event in {events}"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(socket: &Path, args: &[&str]) -> Output {
    Command::new(BINARY).arg("--socket").arg(socket).args(args).output().expect("runs")
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// A piece of a secret as a tunnel would write it: 24 characters of base 32.
pub fn chunk(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(state >> 59) as usize])
    };
    (0..24).map(letter).collect()
}

pub const ENFORCE: &str = r#"
[policy]
mode = "enforce"
[enforce]
backend = "dry-run"
# The scripted upstream gives all names one answer, like a wildcard: decoys would keep them all inside.
[decoy]
enabled = false
[sinkhole]
contact = "security@example.com"
[[session]]
id = "s1"
addresses = ["127.0.0.1"]
type = "interactive"
owner = "team-a"
[[rule]]
id = "no-dumps"
action = "deny"
names = ["dump.example"]
owner = "sec"
reason = "dumps"
review_by = "2099-01-01"
"#;
