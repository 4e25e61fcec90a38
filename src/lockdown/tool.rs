//! The `nft` tool: finds it, hands it a script, reports what it said.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// Where administrators' tools lie, for callers whose `PATH` leaves them out.
const SYSTEM: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];
/// Lines of the tool's complaint that are passed on.
const LINES: usize = 12;

/// The tool.
#[derive(Debug, Clone)]
pub struct Nft(PathBuf);

impl Nft {
    /// Looks for it in `PATH`, then where administrators' tools lie.
    ///
    /// # Errors
    ///
    /// [`Error::NoTool`].
    pub fn find() -> Result<Self, Error> {
        Self::find_in(std::env::var_os("PATH").unwrap_or_default().as_os_str(), &SYSTEM)
    }

    fn find_in(path: &std::ffi::OsStr, system: &[&str]) -> Result<Self, Error> {
        std::env::split_paths(path)
            // An empty or relative entry means a directory that anybody might have written to.
            .filter(|directory| directory.is_absolute())
            .chain(system.iter().map(PathBuf::from))
            .map(|directory| directory.join("nft"))
            .find(|file| is_program(file))
            .map(Self)
            .ok_or(Error::NoTool)
    }

    /// Runs a script: all of it takes effect, or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] where the tool does not run, [`Error::Refused`] with its words.
    pub fn run(&self, script: &str) -> Result<(), Error> {
        let start = |source| Error::Start { tool: self.0.clone(), source };
        let mut child = Command::new(&self.0)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        if let Some(mut input) = child.stdin.take() {
            // It reads to the end before it says a word, so this cannot wait for ever. One that ends early tells why.
            let _ = input.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().map_err(start)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<_> = said.trim_end().lines().take(LINES).collect();
        Err(Error::Refused { said: if said.is_empty() { output.status.to_string() } else { said.join("\n") } })
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let empty = tempfile::tempdir().expect("a directory");
        let error = Nft::find_in(empty.path().as_os_str(), &[]).expect_err("nothing is there").to_string();
        assert!(error.contains("nft") && error.contains("nftables"), "{error}");
        assert!(Nft::find_in("".as_ref(), &[]).is_err());
    }

    #[test]
    fn it_is_found_outside_of_the_path_and_must_be_a_program() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("nft");
        std::fs::write(&file, "#!/bin/sh\ncat >/dev/null\necho no such luck >&2\nexit 1\n").expect("written");
        let system = [directory.path().to_str().expect("UTF-8")];
        assert!(Nft::find_in("".as_ref(), &system).is_err(), "a file that cannot be run");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("made executable");
        let nft = Nft::find_in("relative".as_ref(), &system).expect("found");
        let error = nft.run("table inet t {}").expect_err("it refuses").to_string();
        assert!(error.contains("no such luck"), "{error}");
    }
}
