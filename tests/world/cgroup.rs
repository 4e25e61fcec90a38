//! A control group of the machine's own, of whichever version it has, with a limit.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed when it is dropped, if its processes have ended by then.
pub struct Cgroup {
    path: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// Its processes hold so many octets at most, or are killed.
    ///
    /// # Errors
    /// Where this machine lets nobody make one; in words.
    pub fn memory(octets: u64) -> Result<Self, String> {
        let group = Self::create("memory")?;
        group.set(["memory.limit_in_bytes", "memory.max"], &octets.to_string())?;
        if group.is_v2 {
            // Nothing is to be put aside on a disk; where there is no such file, nothing is.
            let _ = std::fs::write(group.path.join("memory.swap.max"), "0");
        }
        Ok(group)
    }

    /// Its processes together get so many percent of one processor, in turns of ten milliseconds.
    ///
    /// # Errors
    /// As for [`Self::memory`].
    pub fn cpu(percent: u32) -> Result<Self, String> {
        let (group, turn) = (Self::create("cpu")?, 10_000);
        let part = turn * percent / 100;
        if group.is_v2 {
            group.set(["", "cpu.max"], &format!("{part} {turn}"))?;
        } else {
            group.set(["cpu.cfs_period_us", ""], &turn.to_string())?;
            group.set(["cpu.cfs_quota_us", ""], &part.to_string())?;
        }
        Ok(group)
    }

    fn create(controller: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = Path::new("/sys/fs/cgroup");
        let is_v2 = std::fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|one| one == controller));
        let parent = if is_v2 { root.to_owned() } else { root.join(controller) };
        if is_v2 {
            // It is on already, or making the group fails below.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let name = format!("staunch-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let group = Self { path: parent.join(name), is_v2 };
        std::fs::create_dir(&group.path).map_err(|error| format!("no control group for {controller}: {error}"))?;
        Ok(group)
    }

    fn set(&self, [v1, v2]: [&str; 2], value: &str) -> Result<(), String> {
        let file = self.path.join(if self.is_v2 { v2 } else { v1 });
        std::fs::write(&file, value).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Who writes `0` here joins.
    pub fn joined_by(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// The most it has held, octets; what it holds now where the kernel does not keep that.
    pub fn most(&self) -> u64 {
        let files = if self.is_v2 { ["memory.peak", "memory.current"] } else { ["memory.max_usage_in_bytes"; 2] };
        let number = |file: &&str| std::fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok();
        files.iter().find_map(number).expect("what the group holds")
    }

    /// How many processes of it the kernel has killed for want of memory.
    pub fn killed(&self) -> u64 {
        let file = self.path.join(if self.is_v2 { "memory.events" } else { "memory.oom_control" });
        let text = std::fs::read_to_string(file).expect("events of the group");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|n| n.parse().ok()).expect("a count of kills")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}
