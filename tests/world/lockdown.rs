//! `staunch lockdown` in a namespace, and a stand-in for the service's table.

use std::process::Output;

use super::ns::Ns;
use super::staunch::binary;

/// Runs `staunch lockdown WORDS...` in a namespace.
pub fn run(ns: &Ns, words: &[&str]) -> Output {
    ns.command(binary()).arg("lockdown").args(words).output().expect("the binary runs")
}

/// Runs it; it must succeed. What it prints.
#[track_caller]
pub fn ok(ns: &Ns, words: &[&str]) -> String {
    let output = run(ns, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "lockdown {}: {}: {error}", words.join(" "), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it prints with `--json`, and its exit code.
#[track_caller]
pub fn json(ns: &Ns, words: &[&str]) -> (serde_json::Value, i32) {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let output = run(ns, &words);
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("lockdown {}: {error}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr))
    });
    (value, output.status.code().unwrap_or(-1))
}

/// Loads a script for `nft`.
#[track_caller]
pub fn nft(ns: &Ns, script: &str) {
    let output = ns.command("nft").arg(script).output().expect("nft runs");
    assert!(output.status.success(), "nft {script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The whole ruleset, counters and handles left out.
pub fn ruleset(ns: &Ns) -> String {
    let output = ns.command("nft").args(["-s", "list", "ruleset"]).output().expect("nft runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A table in the place of the service's that permits what `rule` matches, from wherever it comes.
pub fn stand_in(ns: &Ns, rule: &str) {
    nft(
        ns,
        &format!(
            "table inet staunch; delete table inet staunch; table inet staunch {{ chain forward {{ type filter hook forward \
             priority filter; policy accept; {rule} ct mark set 16; }}; }}"
        ),
    );
}
