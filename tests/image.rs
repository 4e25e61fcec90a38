//! The container image's contents, run as the Dockerfile says: a static binary alone in an empty root, an ordinary user,
//! one capability or none. The engine that builds images is not needed: what its file says is read from it. Where there is
//! no static binary, the ordinary one stands in with its libraries, and only that it needs none is not covered.

mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use world::ns::Process;
use world::{World, dns, wait_for};

const TREE: &str = env!("CARGO_MANIFEST_DIR");
const LIMIT: Duration = Duration::from_secs(20);

/// Where scripts/build-static.sh puts it.
fn static_binary() -> Option<PathBuf> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let beside = Path::new(env!("CARGO_BIN_EXE_staunch")).parent()?.parent()?;
    let path = beside.join(&target).join("debug/staunch");
    if path.is_file() {
        return Some(path);
    }
    // Where it could have been built, its absence is a failure.
    let known = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let known = known.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let buildable = known.lines().any(|line| line == target);
    assert!(!(buildable && required()), "no {}: `make static` builds it", path.display());
    println!("NOT COVERED: there is no static binary: `make static` builds it, or says why not");
    None
}

/// Whether a skip would hide a failure.
fn required() -> bool {
    std::env::var("STAUNCH_REQUIRE_PRIVILEGE").as_deref() == Ok("1")
}

/// A line of the Dockerfile's last stage by its first word: the JSON array in it.
fn array(word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{TREE}/deploy/container/Dockerfile")).expect("the Dockerfile");
    let line = text.lines().rev().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word}"));
    serde_json::from_str(&line[line.find('[').expect("an array")..]).expect("words")
}

fn user() -> (u32, u32) {
    let text = std::fs::read_to_string(format!("{TREE}/deploy/container/Dockerfile")).expect("the Dockerfile");
    let line = text.lines().rev().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    let (user, group) = line.split_once(':').expect("user and group");
    (user.parse().expect("a number"), group.parse().expect("a number"))
}

/// The image unpacked, and a runtime's description of a container of it.
struct Image {
    world: World,
    bundle: PathBuf,
    id: String,
}

/// The sets in which an engine gives an ordinary user what an operator adds to none.
#[derive(Clone, Copy, PartialEq)]
enum Given {
    /// Bounding, permitted and effective: lost at exec but for what the file has, no-new-privileges or not.
    Permitted,
    /// The bounding set alone, as Docker does.
    Bounding,
}

impl Image {
    /// `given`: capabilities that an operator adds to none.
    fn unpack(listen: &str, given: &[&str], how: Given, no_new_privileges: bool) -> Option<Self> {
        let world = World::create(1)?;
        for tool in ["crun", "setcap"] {
            let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("sh runs");
            if !found.status.success() {
                world::skip::lacking(tool);
                return None;
            }
        }
        std::fs::set_permissions(world.dir(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let bundle = world.path("bundle");
        let root = bundle.join("rootfs");
        for dir in ["etc/staunch", "var/lib/staunch", "run/staunch", "proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(dir)).expect("directory");
        }
        let binary = static_binary().unwrap_or_else(|| {
            let ordinary = PathBuf::from(env!("CARGO_BIN_EXE_staunch"));
            world::copy_libraries(&ordinary, &root);
            ordinary
        });
        std::fs::copy(binary, root.join("staunch")).expect("copied");
        let capable = Command::new("setcap").arg("cap_net_bind_service=p").arg(root.join("staunch")).output();
        let capable = capable.expect("setcap runs");
        assert!(capable.status.success(), "{}", String::from_utf8_lossy(&capable.stderr));
        let text = format!(
            "version = 1\n[server]\nlisten = [{listen:?}]\nmetrics = \"off\"\n[policy]\nmode = \"enforce\"\n[upstream]\n\
             servers = [\"203.0.113.53\"]\n[enforce]\nbackend = \"dry-run\"\n[[session]]\nid = \"agent-1\"\n\
             addresses = [\"10.77.1.2\", \"fd77:1::2\"]\ntype = \"interactive\"\n"
        );
        std::fs::write(root.join("etc/staunch/staunch.toml"), text).expect("written");
        let (uid, gid) = user();
        let own = format!("mode=0700,uid={uid},gid={gid}");
        let args: Vec<String> = array("ENTRYPOINT").into_iter().chain(array("CMD")).collect();
        let permitted = if how == Given::Permitted { given } else { &[] };
        let capabilities = json!({ "bounding": given, "permitted": permitted, "effective": permitted });
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": uid, "gid": gid }, "args": args, "cwd": "/", "noNewPrivileges": no_new_privileges,
                "env": ["STAUNCH_SOCKET=/run/staunch/admin.sock"], "capabilities": capabilities,
            },
            "root": { "path": root, "readonly": true },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
                { "destination": "/var/lib/staunch", "type": "tmpfs", "source": "tmpfs", "options": own.split(',').collect::<Vec<_>>() },
                { "destination": "/run/staunch", "type": "tmpfs", "source": "tmpfs", "options": own.split(',').collect::<Vec<_>>() },
            ],
            "linux": { "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network", "path": format!("/run/netns/{}", world.gw.name) },
            ] },
        });
        std::fs::write(bundle.join("config.json"), config.to_string()).expect("written");
        let id = format!("{}-image", world.gw.name);
        Some(Self { world, bundle, id })
    }

    fn runtime(&self, words: &[&str]) -> Command {
        let mut command = self.world.gw.command("sh");
        // The runtime does not know cgroups of both kinds side by side; it needs none.
        command
            .arg("-c")
            .arg("umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled \"$@\"");
        command.arg("sh").args(words);
        command
    }

    fn start(&self) -> Process {
        let bundle = self.bundle.to_str().expect("UTF-8");
        Process::start(self.runtime(&["run", "--bundle", bundle, &self.id]), self.world.path("image.log"))
    }

    /// Runs words in the running container, as a health check is run.
    fn exec(&self, words: &[&str]) -> Output {
        let (uid, gid) = user();
        let mut command = self.runtime(&["exec", "--user", &format!("{uid}:{gid}"), &self.id]);
        command.args(words).output().expect("the runtime runs")
    }

    fn healthy(&self) -> Output {
        let check = array("HEALTHCHECK");
        self.exec(&check.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// status(5) of the container's first process.
    fn status(&self) -> String {
        let state = self.runtime(&["state", &self.id]).output().expect("the runtime runs");
        let state: Value = serde_json::from_slice(&state.stdout).expect("JSON");
        std::fs::read_to_string(format!("/proc/{}/status", state["pid"])).expect("it runs")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force", &self.id]).output();
    }
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().next().unwrap_or_default()
}

#[test]
fn where_it_cannot_be_built_no_earlier_one_is_left_to_be_tested() {
    let dir = tempfile::tempdir().expect("directory");
    let earlier = dir.path().join(format!("{}-unknown-linux-musl/debug/staunch", std::env::consts::ARCH));
    std::fs::create_dir_all(earlier.parent().expect("a parent")).expect("directory");
    std::fs::write(&earlier, "of an earlier tree").expect("written");
    let rustup = dir.path().join("rustup");
    std::fs::write(&rustup, "#!/bin/sh\necho no such target\nexit 1\n").expect("written");
    std::fs::set_permissions(&rustup, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").expect("a path"));
    let mut script = Command::new(format!("{TREE}/scripts/build-static.sh"));
    let output = script.env("PATH", path).env("CARGO_TARGET_DIR", dir.path()).output().expect("runs");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("SKIPPED"), "{output:?}");
    assert!(!earlier.exists(), "it would be tested in place of this tree's");
}

#[test]
fn the_static_binary_needs_no_library() {
    let Some(binary) = static_binary() else { return };
    let listed = Command::new("ldd").arg(&binary).output().expect("ldd runs");
    let said = format!("{}{}", String::from_utf8_lossy(&listed.stdout), String::from_utf8_lossy(&listed.stderr));
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
}

#[test]
fn it_serves_port_53_in_an_empty_root_as_an_ordinary_user() {
    for (how, no_new_privileges) in [(Given::Permitted, true), (Given::Bounding, false)] {
        let given = &["CAP_NET_BIND_SERVICE"];
        let Some(image) = Image::unpack("10.77.1.1:53", given, how, no_new_privileges) else { return };
        let process = image.start();
        let healthy = wait_for(LIMIT, || image.healthy().status.success().then_some(()));
        assert!(healthy.is_some(), "{:?}\n{}", image.healthy(), process.log());
        let reply = image.world.agents[0].ask("www.site.example", dns::rtype::A).expect("an answer");
        assert_eq!(reply.addresses(), [world::WEB]);

        let status = image.status();
        assert_eq!(field(&status, "Uid"), user().0.to_string());
        assert_eq!(field(&status, "NoNewPrivs"), u8::from(no_new_privileges).to_string());
        assert_eq!(field(&status, "CapEff"), "0000000000000000", "effective only while sockets are bound");
        assert_eq!(field(&status, "CapBnd"), "0000000000000400", "CAP_NET_BIND_SERVICE, bit 10, alone");
        assert_eq!(image.exec(&["/staunch", "healthcheck", "--address", "10.77.1.1:53"]).status.code(), Some(0));
        assert_eq!(image.exec(&["/staunch", "healthcheck", "--address", "10.77.1.1:54"]).status.code(), Some(1));
    }
}

#[test]
fn it_serves_a_high_port_without_any_capability() {
    let Some(image) = Image::unpack("10.77.1.1:5300", &[], Given::Bounding, true) else { return };
    let process = image.start();
    let healthy = wait_for(LIMIT, || {
        image.exec(&["/staunch", "healthcheck", "--address", "10.77.1.1:5300"]).status.success().then_some(())
    });
    assert!(healthy.is_some(), "{}", process.log());
    let status = image.status();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
}

#[test]
fn without_the_capability_port_53_is_a_clear_error() {
    // Not given; and given so that the file's own is what counts, with an option that keeps files from counting.
    for (given, no_new_privileges) in [(&[][..], false), (&["CAP_NET_BIND_SERVICE"], true)] {
        let Some(image) = Image::unpack("10.77.1.1:53", given, Given::Bounding, no_new_privileges) else { return };
        let mut process = image.start();
        assert!(wait_for(LIMIT, || (!process.runs()).then_some(())).is_some(), "it ends");
        let log = process.log();
        assert!(log.contains("cannot listen on 10.77.1.1:53") && log.contains("Permission denied"), "{given:?}: {log}");
    }
}
