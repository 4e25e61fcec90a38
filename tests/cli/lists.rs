//! Lists looked at without a daemon, and what one says of fetching them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::daemon::{BINARY, code};

/// A configuration with two lists, of which one is there.
fn written(dir: &Path) -> String {
    let text =
        "version = 1\n[[list]]\nid = \"gone\"\npath = \"gone.txt\"\n[[list]]\nid = \"own\"\npath = \"own.txt\"\n";
    std::fs::write(dir.join("own.txt"), "bad.example\n").expect("written");
    std::fs::write(dir.join("staunch.toml"), text).expect("written");
    dir.join("staunch.toml").to_str().expect("UTF-8").to_owned()
}

fn lists(words: &[&str]) -> Output {
    Command::new(BINARY).arg("lists").args(words).output().expect("runs")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn a_name_is_found_in_the_lists_that_can_be_read() {
    let dir = tempfile::tempdir().expect("directory");
    let config = written(dir.path());
    let found = lists(&["find", "www.bad.example", &config]);
    assert_eq!(code(&found), 3, "one could not be read: {found:?}");
    assert!(text(&found.stdout).contains("own.txt:1: own denies bad.example"), "{found:?}");
    assert!(text(&found.stderr).contains("gone.txt"), "{found:?}");
    let json: Value =
        serde_json::from_slice(&lists(&["find", "www.bad.example", &config, "--json"]).stdout).expect("JSON");
    assert_eq!(
        (&json["lines"][0]["list"], &json["unread"][0]["field"]),
        (&"own".into(), &"list[0].path".into()),
        "{json}"
    );
    let none = lists(&["find", "good.example", &config]);
    assert!(code(&none) == 3 && text(&none.stdout).contains("that could be read"), "{none:?}");

    std::fs::write(dir.path().join("gone.txt"), "# back\n").expect("written");
    let none = lists(&["find", "good.example", &config]);
    assert!(code(&none) == 0 && text(&none.stdout).contains("no list has good.example"), "{none:?}");
    let json: Value =
        serde_json::from_slice(&lists(&["find", "good.example", &config, "--json"]).stdout).expect("JSON");
    assert_eq!(json["unread"], Value::Array(Vec::new()), "{json}");
}

#[test]
fn lines_are_told_of_the_lists_that_can_be_read_and_of_no_list_that_is_not_there() {
    let dir = tempfile::tempdir().expect("directory");
    let config = written(dir.path());
    std::fs::write(dir.path().join("own.txt"), "bad.example\n||worse.example^\na.example\nb.example\nc.example\n")
        .expect("written");
    let skipped = lists(&["skipped", &config]);
    assert_eq!(code(&skipped), 3, "{skipped:?}");
    assert!(text(&skipped.stdout).contains("own.txt:2: "), "{skipped:?}");
    assert!(text(&skipped.stderr).contains("gone.txt"), "{skipped:?}");
    assert_eq!(code(&lists(&["skipped", &config, "--list", "own"])), 0, "the other one was not asked for");
    assert_eq!(code(&lists(&["skipped", &config, "--list", "gone"])), 3);
    let nobodys = lists(&["skipped", &config, "--list", "owm"]);
    assert!(code(&nobodys) == 1 && text(&nobodys.stderr).contains("there are gone, own"), "{nobodys:?}");
}

#[test]
fn where_no_list_has_a_url_nothing_is_said_to_be_fetched() {
    let daemon = crate::daemon::Daemon::start("");
    let said = daemon.run(&["lists", "fetch"]);
    assert!(code(&said) == 0 && text(&said.stdout).contains("no list in force has a `url`"), "{said:?}");
    assert_eq!(daemon.json(&["lists", "fetch"])["ordered"], 0);
}
