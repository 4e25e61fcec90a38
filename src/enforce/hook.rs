//! A command of the operator's in the packet filter's place: it reads orders and answers them, one JSON document a line.
//!
//! Long-running: started once, asked over its standard input, answering on its standard output (docs/HOOK.md). One that
//! ends, answers something else, or not in time is ended with all that it has started, and started anew with pauses in
//! between; until it has been told everything that is wanted, nothing is answered.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::mirror::Link;
use super::wire::{DOCUMENT_MAX, Reply, Request};
use super::{BackendKind, Config, Error};

/// How often it is asked whether all stands. Whether it runs is looked at every time.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time from one start to the next: a command that ends at once must not be started in a loop.
const START_EVERY: Duration = Duration::from_millis(500);

const UNASKED: &str = "it says more than it was asked";

/// The command.
pub(super) struct HookLink {
    command: Vec<String>,
    table: String,
    deadline: Duration,
    running: Option<Running>,
    started: Option<Instant>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// What it has said beyond the last whole line.
    said: Vec<u8>,
}

impl HookLink {
    /// For the configured command.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        if config.outside.hook.is_empty() {
            return Err(Error::Config("no hook command".into()));
        }
        Ok(Self {
            command: config.outside.hook.clone(),
            table: config.table.clone(),
            deadline: config.outside.hook_deadline,
            running: None,
            started: None,
        })
    }

    fn spawn(&mut self) -> io::Result<Running> {
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        // A group of its own, so that it can be ended with what it has started. What it says on standard error goes
        // where ours goes.
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let running = Running { child, input, output, said: Vec::new() };
        for pipe in [running.input.as_raw_fd(), running.output.as_raw_fd()] {
            // SAFETY: takes numbers only; the descriptor is open.
            if unsafe { libc::fcntl(pipe, libc::F_SETFL, libc::O_NONBLOCK) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(running)
    }
}

impl Link for HookLink {
    fn kind(&self) -> BackendKind {
        BackendKind::Hook
    }

    fn start_patience(&self) -> Duration {
        Duration::ZERO
    }

    fn patience(&self) -> Duration {
        self.deadline
    }

    fn ask_every(&self) -> Duration {
        ASK_EVERY
    }

    fn remembers(&self) -> bool {
        false
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.started.is_some_and(|at| at.elapsed() < START_EVERY) {
            return Err(self.broken(&"it has ended, and is started again in a moment"));
        }
        self.started = Some(Instant::now());
        self.running = Some(self.spawn().map_err(|error| self.broken(&error))?);
        // An interpreter may need its time.
        self.greet(self.table.clone(), String::new(), self.deadline.max(Duration::from_secs(5)))
    }

    fn gone(&mut self) -> Option<Error> {
        let Some(running) = &self.running else { return Some(self.broken(&"it does not run")) };
        running.has_ended().then(|| self.broken(&"it has ended"))
    }

    fn exchange(&mut self, request: &Request, patience: Duration) -> Result<Reply, Error> {
        // Ended unless it goes well.
        let Some(mut running) = self.running.take() else { return Err(self.broken(&"it does not run")) };
        match running.exchange(request, Instant::now() + patience) {
            Ok(reply) => {
                self.running = Some(running);
                Ok(reply)
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn close(&mut self) {
        self.running = None;
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> Error {
        let name = self.command.first().map_or("", String::as_str);
        Error::Unhealthy(format!("the hook {name}: {why}"))
    }
}

impl Running {
    /// Whether it has ended by itself. It is not reaped by this look: until then its group has nobody else's number.
    fn has_ended(&self) -> bool {
        // SAFETY: all-zero is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the pointer is to a live `siginfo_t`; the child is ours and not reaped.
        let result = unsafe { libc::waitid(libc::P_PID, self.child.id(), &raw mut info, how) };
        // SAFETY: filled by waitid, or still zero where nobody has ended.
        result != 0 || unsafe { info.si_pid() } != 0
    }

    /// Whether it has said something that nobody asked it. At the end of its output, an error.
    fn has_spoken(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1];
        match self.output.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed its output")),
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn exchange(&mut self, request: &Request, end: Instant) -> io::Result<Reply> {
        // What it says now cannot be the answer.
        if self.has_spoken()? {
            return Err(io::Error::other(UNASKED));
        }
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            match self.input.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.input.as_raw_fd(), libc::POLLOUT, end)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let line = self.line(end)?;
        serde_json::from_slice(&line)
            .map_err(|error| io::Error::other(format!("its answer is not understood: {error}")))
    }

    /// The next line that it says. More than one answers nothing that was asked, so nothing may be left over.
    fn line(&mut self, end: Instant) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(at) = self.said.iter().position(|octet| *octet == b'\n') {
                if at + 1 < self.said.len() {
                    return Err(io::Error::other(UNASKED));
                }
                return Ok(std::mem::take(&mut self.said));
            }
            match self.output.read(&mut buffer) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed its output")),
                Ok(count) => self.said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.output.as_raw_fd(), libc::POLLIN, end)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.said.len() > DOCUMENT_MAX {
                return Err(io::Error::other(format!("its answer is longer than {DOCUMENT_MAX} octets")));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group has its leader's number for as long as the leader is not reaped, which nobody does before: nobody else
        // is met, and what an ended leader has left behind is.
        if let Ok(group) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a plain system call on a number.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

/// Waits until a pipe can be used, at most until `end`.
fn wait(pipe: RawFd, events: libc::c_short, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    }
    let mut descriptor = libc::pollfd { fd: pipe, events, revents: 0 };
    let timeout = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: one descriptor, valid for the call.
    match unsafe { libc::poll(&raw mut descriptor, 1, timeout) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(script: &str) -> HookLink {
        let command = ["sh", "-c", script].map(String::from).to_vec();
        let deadline = Duration::from_secs(5);
        HookLink { command, table: "test".into(), deadline, running: None, started: None }
    }

    #[test]
    fn a_line_that_nobody_asked_for_answers_nothing() {
        let welcome = r#"read q; echo '{"reply":"welcome","version":2}'; "#;
        let again = r#"sleep 0.2; echo '{"reply":"done"}'; read q; echo '{"reply":"done"}'; read q"#;
        let mut link = link(&format!("{welcome}{again}"));
        link.open().expect("it greets");
        std::thread::sleep(Duration::from_millis(600));
        let error =
            link.exchange(&Request::Ranges { ranges: Vec::new() }, Duration::from_secs(5)).expect_err("refused");
        assert!(error.to_string().contains(UNASKED), "{error}");
        assert!(link.gone().is_some_and(|error| error.to_string().contains("does not run")));
    }

    #[test]
    fn one_that_has_ended_is_seen_to_be_gone() {
        let mut link = link(r#"read q; echo '{"reply":"welcome","version":2}'; exit 3"#);
        link.open().expect("it greets");
        let end = Instant::now() + Duration::from_secs(5);
        while link.gone().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(link.gone().is_some_and(|error| error.to_string().contains("has ended")));
    }
}
