//! The words of `staunch lockdown`, without privileges: what `plan` makes of options and of a configuration, and how
//! mistakes are told.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const CONFIG: &str = r#"
version = 1
[server]
listen = ["127.0.0.1:53", "10.77.1.1:5300", "[fd77:1::1]:53"]
[upstream]
servers = ["192.0.2.53"]
[enforce]
backend = "nft"
table = "gate"
interfaces = ["veth-a", "tap*"]
[[session]]
id = "build-1"
addresses = ["10.77.1.2", "fd77:1::2"]
type = "batch"
"#;

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_staunch")).arg("lockdown").args(words).output().expect("the binary runs")
}

#[track_caller]
fn plan(words: &[&str]) -> String {
    let output = run(&[&["plan"], words].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn written(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_plan_is_text_for_nft_and_the_same_every_time() {
    let words = ["--interfaces", "veth-a,veth-b", "--bind", "veth-a=10.77.1.2"];
    let one = plan(&words);
    assert_eq!(one, plan(&["--bind", "veth-a=10.77.1.2", "--interfaces", "veth-b", "--interfaces", "veth-a"]));
    assert!(one.starts_with("#!/usr/sbin/nft -f\n#\n# Lockdown of sandboxes behind veth-a, veth-b, enforced"), "{one}");
    let told: Value = serde_json::from_str(&plan(&[&words[..], &["--json"]].concat())).expect("JSON");
    assert_eq!((told["schema"].as_u64(), told["script"].as_str()), (Some(1), Some(&*one)));
    assert!(one.contains(told["digest"].as_str().expect("a digest")));
    assert!(told["does"].as_array().is_some_and(|all| all.len() > 5), "{told}");
}

#[test]
fn a_configuration_says_what_the_service_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = written(directory.path(), "staunch.toml", CONFIG);
    let script = plan(&["--config", &file]);
    for wanted in [
        "table inet gate_lockdown {",
        "iifname \"veth-a\" goto",
        "iifname \"tap*\" goto",
        "dnat ip to 10.77.1.1:5300",
        "dnat ip6 to [fd77:1::1]:53",
        "ip saddr 10.77.1.2 counter drop",
        "ip6 saddr fd77:1::2 counter drop",
    ] {
        assert!(script.contains(wanted), "{wanted}\n{script}");
    }
    // What is said beside it goes before it.
    let script = plan(&["--config", &file, "--interfaces", "br9", "--resolver", "53", "--table", "other"]);
    assert!(script.contains("table inet other {") && script.contains("redirect to :53") && !script.contains("veth-a"));
    let clash = run(&["plan", "--config", &file, "--table", "gate"]);
    let said = String::from_utf8_lossy(&clash.stderr).into_owned();
    assert!(clash.status.code() == Some(2) && said.contains("service's own"), "{said}");
    let loopback =
        written(directory.path(), "loopback.toml", &CONFIG.replace(", \"10.77.1.1:5300\", \"[fd77:1::1]:53\"", ""));
    let output = run(&["plan", "--config", &loopback]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("server.listen"), "{said}");
    assert!(plan(&["--config", &loopback, "--resolver", "10.77.1.1:53"]).contains("dnat ip to 10.77.1.1:53"));
}

#[test]
fn a_lockdown_needs_none_of_the_files_that_the_configuration_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let elsewhere = "[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"https://soc.example/\"\n\
                     secret_file = \"/run/credentials/staunch.service/hmac.key\"\n\
                     [[list]]\nid = \"gone\"\npath = \"no-such-file\"\nformat = \"domains\"\n\
                     [[zone]]\nname = \"corp.test\"\nfile = \"no-such-zone\"\n[[rule]]\nid = 7\n";
    let plain = written(directory.path(), "plain.toml", CONFIG);
    let whole = written(directory.path(), "whole.toml", &format!("{CONFIG}{elsewhere}"));
    assert_eq!(plan(&["--config", &whole]), plan(&["--config", &plain]), "the same rules");
    // What it is made from must be right, and a section that nobody knows may be one of those.
    for (wrong, wanted) in [
        (config_with("interfaces = [\"veth-a\"", "interfaces = [\"veth/a\""), "enforce.interfaces[0]"),
        (config_with("10.77.1.2", "10.77.1.x"), "session[0].addresses[0]"),
        (config_with("10.77.1.1:5300", "10.77.1.1"), "server.listen[1]"),
        (config_with("version = 1", "version = 2"), "version: version 2"),
        (config_with("[[session]]", "[[sesion]]"), "did you mean `session`?"),
        (config_with("[[session]]", "[[session"), "not TOML"),
    ] {
        let file = written(directory.path(), "wrong.toml", &format!("{wrong}{elsewhere}"));
        for verb in ["plan", "apply", "status", "remove"] {
            let output = run(&[verb, "--config", &file]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(3) && said.contains(wanted), "{verb}: {:?}: {said}", output.status);
            assert!(!said.contains("alert") && !said.contains("zone"), "{said}");
        }
    }
}

/// The configuration with one text in the place of another.
fn config_with(from: &str, to: &str) -> String {
    assert!(CONFIG.contains(from), "{from}");
    CONFIG.replacen(from, to, 1)
}

#[test]
fn mistakes_are_told_with_their_remedy_and_exit_code() {
    let directory = tempfile::tempdir().expect("a directory");
    let list = written(directory.path(), "own.txt", "192.0.2.53 # ours\nresolver.example\n");
    let broken = written(directory.path(), "broken.toml", "version = 1\n[enforce]\ninterface = [\"veth-a\"]\n");
    let missing = directory.path().join("none.txt").to_str().expect("UTF-8").to_owned();
    for (words, code, wanted) in [
        (&["plan"][..], 2, "no interface is named: give --interfaces"),
        (&["apply"], 2, "no interface is named"),
        (&["status", "--bind", "veth-a=10.0.0.1"], 2, "no interface is named"),
        (&["plan", "--interfaces", "a/b"], 2, "not an interface name"),
        (&["plan", "--interfaces", "veth-a", "--bind", "veth-a"], 2, "INTERFACE=ADDRESS"),
        (&["plan", "--interfaces", "veth-a", "--bind", "veth-b=10.0.0.1"], 2, "not among those of --interfaces"),
        (&["plan", "--interfaces", "veth-a", "--resolver", "here"], 2, "10.77.1.1:53"),
        (&["plan", "--interfaces", "veth-a", "--mode", "canary"], 2, "use enforce or monitor"),
        (&["plan", "--interfaces", "veth-a", "--table", "a-b"], 2, "use a letter"),
        (&["remove", "--table", "a b"], 2, "use a letter"),
        (
            &["plan", "--interfaces", "veth-a", "--doh", &list],
            3,
            "own.txt:2: `resolver.example` is not an address range",
        ),
        (&["plan", "--interfaces", "veth-a", "--doh", &missing], 3, "none.txt: No such file"),
        (&["plan", "--config", &broken], 3, "broken.toml:3"),
        (&["remove", "--config", &broken], 3, "broken.toml:3"),
    ] {
        let output = run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(wanted), "{words:?}: {:?}: {said}", output.status);
    }
    let output = run(&["plan", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    assert!(
        told["schema"] == 1 && told["error"].as_str().is_some_and(|error| error.contains("--interfaces")),
        "{told}"
    );
}

#[test]
fn lists_of_one_s_own_are_refused_beside_the_shipped_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let list = written(directory.path(), "own.txt", "192.0.2.53 # ours; source: us\n2001:db8:53::/48\n8.8.8.8\n");
    let script = plan(&["--interfaces", "veth-a", "--doh", &list]);
    let shipped = plan(&["--interfaces", "veth-a"]);
    for address in ["192.0.2.53", "2001:db8:53::/48"] {
        assert!(script.contains(address) && !shipped.contains(address), "{address}");
    }
    assert_eq!(script.matches("8.8.8.8,").count(), 1, "an address of both lists stands there once");
}
