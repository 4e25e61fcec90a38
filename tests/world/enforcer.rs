//! `staunch enforcer` in the world's gateway, beside a resolver without privilege.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::World;
use super::ns::Process;
use super::staunch::{Config, Staunch, binary};

/// The user that the resolver runs as; nobody's on any machine.
pub const USER: u32 = 47_110;

/// The process.
pub struct Enforcer {
    process: Option<Process>,
    config: PathBuf,
    log: PathBuf,
}

/// Where it listens.
pub fn socket(world: &World) -> PathBuf {
    world.path("enforcer").join("enforcer.sock")
}

/// Adds to a configuration what splits it in two.
pub fn split(world: &World, mut config: Config) -> Config {
    config.enforce.push_str(&format!(
        "\nenforcer_socket = {:?}\nenforcer_group = \"{USER}\"\nresolver_user = \"{USER}\"\n",
        socket(world)
    ));
    config
}

/// An enforcer with everything, and the configuration of a resolver without anything that is yet to be started.
pub fn start(world: &World, config: Config) -> (Enforcer, Staunch) {
    // Port 53 without CAP_NET_BIND_SERVICE.
    world.gw.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    let staunch = Staunch::written_for(world, &split(world, config), USER);
    let mut enforcer = Enforcer { process: None, config: staunch.config.clone(), log: world.path("enforcer.log") };
    enforcer.restart(world);
    (enforcer, staunch)
}

impl Enforcer {
    /// Starts it and waits until it says that it is ready; how long that took.
    pub fn restart(&mut self, world: &World) -> Duration {
        let begun = Instant::now();
        let mut command = world.gw.command(binary());
        command.arg("enforcer").arg("--config").arg(&self.config);
        let mut process = Process::start(command, self.log.clone());
        let ready = process.wait_for_log("enforcer ready", Duration::from_secs(60));
        assert!(ready, "the enforcer did not become ready: {}", process.log());
        self.process = Some(process);
        begun.elapsed()
    }

    /// Ends it as a power cut would, and reaps it.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Ends it as a supervisor does.
    pub fn end(&mut self) {
        // SAFETY: a signal to a process of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) }, 0);
        let mut process = self.process.take().expect("it runs");
        let until = Instant::now() + Duration::from_secs(30);
        while process.runs() {
            assert!(Instant::now() < until, "it does not end: {}", process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// What it has written since it was started last.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// Connects as a user, sends octets, and gives what is answered until the connection is closed or `patience` is over; whether
/// it was closed.
pub fn talk(socket: &Path, user: u32, octets: &[u8], patience: Duration) -> (Vec<u8>, bool) {
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            // SAFETY: system calls on numbers. Made without the C library, they change this thread alone: its group first,
            // which is the socket's, then its user.
            unsafe {
                assert_eq!(libc::syscall(libc::SYS_setresgid, USER, USER, USER), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, user, user, user), 0);
            }
            let mut stream = UnixStream::connect(socket).expect("the group may connect");
            stream.set_read_timeout(Some(patience)).expect("a timeout");
            let _ = stream.write_all(octets);
            let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return (heard, true),
                    Ok(count) => heard.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return (heard, true),
                    Err(_) => return (heard, false),
                }
            }
        });
        talking.join().expect("the talk ends")
    })
}

/// Octets as a frame.
pub fn frame(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}
