//! One network namespace: made, entered, filled with interfaces and processes, removed.

use std::ffi::CString;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Names of all our namespaces start so; the process id follows.
pub const PREFIX: &str = "stw";

/// A namespace, with one thread that lives in it and runs the tasks handed to it.
pub struct Ns {
    /// As `ip netns` knows it.
    pub name: String,
    file: File,
    resolv_conf: PathBuf,
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ns {
    /// Makes the namespace; processes started in it read `resolv_conf` as `/etc/resolv.conf`.
    pub fn create(name: &str, resolv_conf: &Path) -> Self {
        ip_root(&["netns", "add", name]).expect("a network namespace");
        let file = File::open(format!("/run/netns/{name}")).expect("the namespace's file");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let inside = file.try_clone().expect("a second handle on the namespace");
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                enter(&inside).expect("the thread enters its namespace");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                tell.send(runtime.handle().clone()).expect("the maker waits for the handle");
                let _ = runtime.block_on(stopped);
            })
            .expect("a thread");
        let handle = told.recv().expect("the namespace's thread starts");
        let ns = Self {
            name: name.into(),
            file,
            resolv_conf: resolv_conf.into(),
            handle,
            stop: Some(stop),
            thread: Some(thread),
        };
        ns.sysctl("net/ipv6/conf/all/accept_dad", "0");
        ns.sysctl("net/ipv6/conf/default/accept_dad", "0");
        ns.ip(&["link set lo up"]);
        ns
    }

    /// Runs a future on the namespace's thread and waits for it.
    pub fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (tx, rx) = mpsc::channel();
        self.handle.spawn(async move {
            let _ = tx.send(future.await);
        });
        rx.recv().expect("the future ran to its end (a panic in it is printed above)")
    }

    /// Lets a future go on by itself on the namespace's thread.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) {
        self.handle.spawn(future);
    }

    /// Runs a function on a thread of its own in the namespace and waits for it.
    pub fn blocking<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.file).expect("the thread enters the namespace");
                work()
            });
            inside.join().expect("the work in the namespace did not panic")
        })
    }

    /// Starts a thread that lives in the namespace.
    pub fn thread(&self, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let file = self.file.try_clone().expect("a second handle on the namespace");
        std::thread::spawn(move || {
            enter(&file).expect("the thread enters the namespace");
            work();
        })
    }

    /// A command that will run in the namespace, with the namespace's resolv.conf, and no input.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = self.file.try_clone().expect("a second handle on the namespace");
        let path = |p: &Path| CString::new(p.as_os_str().as_encoded_bytes()).expect("a path without NUL");
        let source = path(&self.resolv_conf);
        // Where /etc/resolv.conf is a link, the file behind it is what has to be covered.
        let target = path(&std::fs::canonicalize("/etc/resolv.conf").unwrap_or_else(|_| "/etc/resolv.conf".into()));
        let inside = move || {
            enter(&file)?;
            // SAFETY: all pointers are to NUL-terminated strings that the closure owns or that are static; the calls
            // allocate nothing, so they are sound between fork and exec.
            unsafe {
                let null = std::ptr::null();
                check(libc::unshare(libc::CLONE_NEWNS))?;
                let all = libc::MS_REC | libc::MS_SLAVE;
                check(libc::mount(null, c"/".as_ptr(), null, all, null.cast()))?;
                check(libc::mount(source.as_ptr(), target.as_ptr(), null, libc::MS_BIND, null.cast()))
            }
        };
        // SAFETY: `inside` only makes system calls and touches no lock or heap.
        unsafe { command.pre_exec(inside) };
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell line in the namespace to its end and gives its output; it may take ten seconds.
    pub fn sh(&self, line: &str) -> std::process::Output {
        self.command("timeout").args(["10", "sh", "-c", line]).output().expect("sh runs")
    }

    /// Runs `ip` in the namespace once a line.
    pub fn ip(&self, lines: &[&str]) {
        for line in lines {
            let output = self.command("ip").args(line.split(' ')).output().expect("ip runs");
            assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Joins this namespace to another by a pair of interfaces, both up.
    pub fn link(&self, here: &str, other: &Self, there: &str) {
        self.ip(&[
            &format!("link add {here} type veth peer name {there} netns {}", other.name),
            &format!("link set {here} up"),
        ]);
        other.ip(&[&format!("link set {there} up")]);
    }

    /// Sets a kernel parameter of this namespace; those it does not have are left.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.blocking(|| {
            let _ = std::fs::write(Path::new("/proc/sys").join(key), value);
        });
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        kill_inside(&self.name);
        let _ = ip_root(&["netns", "del", &self.name]);
    }
}

/// A process that ends with its owner; its output goes to a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs in `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let out = File::create(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle on the log file");
        let child = command.stdout(out).stderr(err).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until its output holds `text`, it ends, or the time is up.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> bool {
        super::wait_for(limit, || {
            let found = self.log().contains(text);
            (found || !self.runs()).then_some(found || self.log().contains(text))
        })
        .unwrap_or(false)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes namespaces, and ends the processes in them, whose maker is no longer alive.
pub fn remove_stale() {
    remove_where(|pid| !Path::new(&format!("/proc/{pid}")).exists());
}

/// Removes this process's namespaces, for an exit that runs no destructors.
pub fn remove_own() {
    remove_where(|pid| pid == std::process::id());
}

fn remove_where(wanted: impl Fn(u32) -> bool) {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if maker.is_some_and(&wanted) {
            kill_inside(&name);
            let _ = ip_root(&["netns", "del", &name]);
        }
    }
}

/// Runs `ip` where the test runs.
pub fn ip_root(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Ends every process in one of our namespaces; all of them were started by a test.
fn kill_inside(name: &str) {
    let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() else { return };
    let own = std::process::id() as i32;
    for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|p| p.parse::<i32>().ok()) {
        if pid != own {
            // SAFETY: a plain system call on a number.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

fn enter(ns: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `ns` is borrowed.
    check(unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
