//! Real servers as upstreams, each on a port of its own, and the metrics page.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server's process, ended when dropped.
pub struct Server(Child);

impl Server {
    /// `None`, and it is said, where the machine has no such program.
    pub fn is_there(program: &str) -> Option<()> {
        if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
            return Some(());
        }
        crate::skip::lacking(program);
        None
    }

    /// Starts it and waits until it listens on `port`.
    pub fn start(program: &str, args: &[&str], config: &Path, port: u16) -> Self {
        let quiet = || Stdio::null();
        let child = Command::new(program).args(args).arg(config).stdout(quiet()).stderr(quiet()).spawn();
        let server = Self(child.expect("the server starts"));
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number behind `staunch_NAME` on the metrics page at `port`.
pub fn metric(port: u16, name: &str) -> f64 {
    let page = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{port}/metrics")]).output().expect("curl");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let line = page.lines().find(|line| line.starts_with(&format!("staunch_{name}{{}} ")));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|text| text.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}
