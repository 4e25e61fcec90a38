//! System calls of one thread of the daemon that fail for a while (strace attaches to it).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::world::World;
use crate::world::staunch::Staunch;

/// Calls fail as long as this lives.
pub struct Inject {
    strace: Child,
    trace: PathBuf,
}

/// Whether there is a strace.
pub fn can_inject() -> bool {
    Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success())
}

impl Inject {
    /// From now on what `faults` says (`pwrite64:error=EIO`) happens to system calls of the thread of this name.
    pub fn on(world: &World, staunch: &Staunch, thread: &str, faults: &[&str]) -> Self {
        let trace = world.path("strace");
        let mut command = Command::new("strace");
        command.arg("-p").arg(thread_of(staunch, thread).to_string()).arg("-o").arg(&trace);
        let calls: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        command.arg("-e").arg(format!("trace={}", calls.join(",")));
        for fault in faults {
            command.arg("-e").arg(format!("inject={fault}"));
        }
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace starts");
        let mut said = BufReader::new(strace.stderr.take().expect("standard error is a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("strace speaks");
        assert!(line.contains("attached"), "{line}");
        Self { strace, trace }
    }

    /// Ends it; how many calls have failed.
    pub fn stop(mut self) -> usize {
        self.end();
        let trace = std::fs::read_to_string(&self.trace).unwrap_or_default();
        trace.lines().filter(|line| line.ends_with("(INJECTED)")).count()
    }

    fn end(&mut self) {
        // SAFETY: a plain system call; the process is our child and not yet reaped. It lets go of whom it is attached to.
        unsafe { libc::kill(self.strace.id() as i32, libc::SIGINT) };
        let _ = self.strace.wait();
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        if !matches!(self.strace.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

fn thread_of(staunch: &Staunch, name: &str) -> u32 {
    let tasks = PathBuf::from(format!("/proc/{}/task", staunch.pid().expect("it runs")));
    let is_it = |task: &Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    let task =
        std::fs::read_dir(tasks).expect("its threads").flatten().map(|entry| entry.path()).find(|task| is_it(task));
    let task = task.unwrap_or_else(|| panic!("no thread {name}"));
    task.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number")
}
