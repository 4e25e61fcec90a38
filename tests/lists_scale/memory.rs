//! What reading lists takes of memory, by processes of their own.

use super::*;

/// Names of the large list, and what each may take in the table and, as ten million take 1.2 GiB at most, while it is built: octets.
const NAMES: u64 = 1_000_000;
const KEPT: u64 = 40;
const BUILT: u64 = (12 << 30) / 10 / 10_000_000;
/// What the process may take besides, octets: what a list of one name takes differs by some.
const BESIDES: u64 = 8 << 20;

/// How a process ended.
struct Ran {
    code: i32,
    out: String,
    err: String,
    /// The most that was resident of it, octets.
    peak: u64,
    took: Duration,
}

/// Runs one; what others take meanwhile is not counted.
#[allow(clippy::zombie_processes, reason = "wait4 reaps it, and says what it has taken")]
fn run(dir: &Path, args: &[&str]) -> Ran {
    let (out, err) = (dir.join("out"), dir.join("err"));
    let file = |path: &Path| std::fs::File::create(path).expect("a file");
    let begun = Instant::now();
    let mut command = Command::new(BINARY);
    let child = command.args(args).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn().expect("runs");
    let mut status = 0;
    // SAFETY: all zeroes is a valid value, the pointers are to our own, and nobody else waits for this child.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(child.id() as i32, &mut status, 0, &mut usage), child.id() as i32);
        usage
    };
    assert!(libc::WIFEXITED(status), "{args:?}: {status}");
    let text = |path| std::fs::read_to_string(path).expect("read");
    let peak = usage.ru_maxrss as u64 * 1024;
    Ran { code: libc::WEXITSTATUS(status), out: text(out), err: text(err), peak, took: begun.elapsed() }
}

/// A directory with a configuration of one list.
fn one_list(text: impl AsRef<[u8]>) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("directory");
    let config = dir.path().join("staunch.toml");
    write(&dir.path().join("list.txt"), text);
    write(&config, "version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n[[list]]\nid = \"l\"\npath = \"list.txt\"\n");
    let config = config.to_str().expect("text").to_owned();
    (dir, config)
}

#[test]
fn a_large_table_is_built_in_little_more_memory_than_it_has() {
    let build = |names: u64| {
        let (dir, config) =
            one_list((0..names).map(|n| format!("host{n}.zone{}.example\n", n % 977)).collect::<String>());
        let state = dir.path().join("state").to_str().expect("text").to_owned();
        let ran = run(dir.path(), &["lists", "build", &config, "--state-dir", &state, "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let built: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(built["names"], names);
        (built["octets"].as_u64().expect("a size"), ran.peak, ran.took)
    };
    let ((_, control, _), (octets, peak, took)) = (build(1), build(NAMES));
    println!(
        "FIGURE: {NAMES} names compiled in {:.1} s: {:.1} octets a name, and {:.1} while it was built",
        took.as_secs_f64(),
        octets as f64 / NAMES as f64,
        peak.saturating_sub(control) as f64 / NAMES as f64
    );
    assert!(octets <= KEPT * NAMES, "{octets} octets");
    assert!(peak <= control + BESIDES + BUILT * NAMES, "{peak} octets, {control} for one name");
    // Without optimisation it takes several times as long.
    assert!(cfg!(debug_assertions) || took * 10_000_000 / NAMES as u32 <= Duration::from_secs(20), "{took:?}");
}

#[test]
fn garbage_is_refused_in_little_memory() {
    let (dir, config) = one_list("good.example\n");
    let list = dir.path().join("list.txt");
    let check = || run(dir.path(), &["check", &config]);
    let control = check();
    assert_eq!(control.code, 0, "the control: {}", control.err);
    let mut peak = 0;
    let mut refused = |what: &str| {
        let ran = check();
        assert_eq!(ran.code, 3, "{what}");
        assert!(ran.err.contains("`list.txt` is refused"), "{what}: {}", ran.err);
        peak = peak.max(ran.peak);
    };
    for n in 0..5 {
        write(&list, broken(n));
        refused(&n.to_string());
    }
    write(&list, vec![b'a'; 64 << 20]);
    refused("one line of 64 MB");
    std::fs::File::create(&list).and_then(|file| file.set_len(1 << 30)).expect("sparse");
    refused("one of a GB that nobody wrote");
    let mut bad = b"a b c d e f g h i j k l m n o p\n".repeat(1 << 17);
    bad.extend_from_slice(b"good.example\n");
    write(&list, bad);
    refused("64 MB of bad lines");
    println!(
        "FIGURE: garbage of up to a GB is refused in {} KiB more than a good list takes",
        peak.saturating_sub(control.peak) >> 10
    );
    assert!(peak < control.peak + (64 << 20), "{peak} octets, {} for the control", control.peak);
}
