//! Fetched lists whose settings change, and copies that cannot be used any more: never a reason not to start.

use sha2::{Digest, Sha256};

use super::publisher::{Publisher, Reply};
use super::*;

impl Daemon {
    /// Writes other settings of the list and reloads.
    fn reloaded(&self, from: &str, to: &str) {
        let file = self.dir.path().join("staunch.toml");
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(text.contains(from), "{text}");
        write(&file, text.replace(from, to));
        let output = self.run(&["reload"]);
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn another_address_or_format_is_fetched_anew_and_the_copy_at_hand_serves_until_then() {
    let publisher = Publisher::start(Reply::List(b"0.0.0.0 a.example\n0.0.0.0 b.example\n".to_vec(), "v1"));
    let mut daemon = Daemon::start(&publisher.config("format = \"hosts\"\n"));
    until("the list is in force", || daemon.refuses("a.example"));
    publisher.says(Reply::Status(503));
    daemon.reloaded("/list.txt?key=secret\"\nformat = \"hosts\"", "/ads.txt\"\nformat = \"adblock\"");
    assert!(daemon.refuses("a.example"), "what was read as hosts stays so");
    daemon.restart();
    assert!(daemon.refuses("a.example"));
    let shown = daemon.json(&["lists", "show"]);
    assert_eq!(shown["lists"][0]["file"], format!("http://{}/list.txt", publisher.address), "where it came from");
    publisher.says(Reply::List(b"||c.example^\n||d.example^\n".to_vec(), "v2"));
    assert_eq!(daemon.fetched().0, "fetched");
    until("the new one is in force", || daemon.refuses("c.example") && !daemon.refuses("a.example"));
    // The server has nothing newer, and yet it is to be read in another way.
    publisher.says(Reply::List(b"e.example\nf.example\n".to_vec(), "v3"));
    daemon.reloaded("format = \"adblock\"\n", "");
    until("it is read as its lines look", || daemon.refuses("e.example"));
    daemon.reloaded("/ads.txt\"\n", "/ads.txt\"\nformat = \"adblock\"\n");
    until("it is read as is written", || daemon.json(&["lists", "show"])["lists"][0]["format"] == "adblock");
    assert!(daemon.refuses("e.example"));
}

#[test]
fn what_waits_is_judged_by_the_limits_of_today_and_is_none_of_another_address() {
    let publisher = Publisher::start(Reply::List(names(0..10), "v1"));
    let mut daemon = Daemon::start(&publisher.config("max_growth = 2.0\n"));
    until("the list is in force", || daemon.refuses("bad0.example"));
    publisher.says(Reply::List(names(0..50), "v2"));
    assert_eq!(daemon.fetched().0, "held");
    daemon.reloaded("max_growth = 2.0", "max_growth = 6.0");
    until("it waits no longer", || daemon.refuses("bad49.example"));
    assert_eq!(daemon.feed()["held"], Value::Null);

    // So it is where they were written while nobody looked.
    publisher.says(Reply::List(names(0..400), "v2b"));
    assert_eq!(daemon.fetched().0, "held");
    let file = daemon.dir.path().join("staunch.toml");
    write(&file, std::fs::read_to_string(&file).expect("read").replace("max_growth = 6.0", "max_growth = 9.0"));
    daemon.restart();
    until("it waits no longer", || daemon.refuses("bad399.example"));

    publisher.says(Reply::List(names(0..5000), "v3"));
    assert_eq!(daemon.fetched().0, "held");
    let digest = daemon.feed()["held"]["sha256"].as_str().expect("a digest").to_owned();
    publisher.says(Reply::Status(503));
    daemon.reloaded("/list.txt", "/other.txt");
    assert_eq!(daemon.feed()["held"], Value::Null);
    let accept = ["lists", "accept", "feed", "--sha256", &digest, "--reason", "test", "--by", "jane"];
    let refused = String::from_utf8_lossy(&daemon.run(&accept).stderr).into_owned();
    assert!(refused.contains("no version of `feed` waits"), "it is none of this one: {refused}");
    assert!(!daemon.refuses("bad4999.example"));
}

#[test]
fn copies_that_cannot_be_used_are_told_and_keep_nothing_from_loading() {
    let dir = tempfile::tempdir().expect("directory");
    let config = dir.path().join("staunch.toml");
    let mut text = "version = 1\n[server]\nstate_dir = \"state\"\n[upstream]\nservers = [\"192.0.2.53\"]\n".to_owned();
    let mut list = |id: &str, format: &str, octets: &[u8]| {
        let directory = dir.path().join("state/lists").join(format!("feed-{id}"));
        std::fs::create_dir_all(&directory).expect("made");
        let sha256: String = Sha256::digest(octets).iter().map(|b| format!("{b:02x}")).collect();
        write(&directory.join(format!("{sha256}.list")), octets);
        let url = format!("http://192.0.2.80/{id}.txt");
        let good = serde_json::json!({
            "url": url, "sha256": sha256, "octets": octets.len(), "entries": 1, "format": format, "fetched": 1,
        });
        write(&directory.join("state.json"), serde_json::json!({ "good": good }).to_string());
        text += &format!("[[list]]\nid = \"{id}\"\nurl = \"{url}\"\nformat = \"{format}\"\naction = \"deny\"\n");
    };
    // Each might have twenty million names by the look of it.
    let wide = format!("address=/{}\n", "/".repeat(1000));
    let mut many = wide.repeat(20_500).into_bytes();
    many.extend("address=/a.example/\n".repeat(62_000).into_bytes());
    list("one", "dnsmasq", &many);
    list("two", "dnsmasq", &many);
    list("three", "dnsmasq", &many);
    // Read with a day that is not written any more.
    list("days", "nrd", b"b.example\nc.example\n");
    text += "[[list]]\nid = \"own\"\npath = \"own.txt\"\n";
    write(&dir.path().join("own.txt"), "d.example\n");
    write(&config, &text);
    let output = output(&["check", config.to_str().expect("text")]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    for told in
        ["list[2].url: its last good copy cannot be used: more entries", "list[3].url: its last good copy cannot"]
    {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(!said.contains("list[0].url: its") && !said.contains("list[4]"), "{said}");
}

#[test]
fn a_damaged_copy_is_told_of_though_the_one_before_it_stands_in() {
    let dir = tempfile::tempdir().expect("directory");
    let directory = dir.path().join("state/lists/feed-one");
    std::fs::create_dir_all(&directory).expect("made");
    let url = "http://192.0.2.80/one.txt";
    let stamp = |octets: &[u8], there: &[u8]| {
        let sha256: String = Sha256::digest(octets).iter().map(|b| format!("{b:02x}")).collect();
        write(&directory.join(format!("{sha256}.list")), there);
        serde_json::json!({
            "url": url, "sha256": sha256, "octets": octets.len(), "entries": 1, "format": "domains", "fetched": 1,
        })
    };
    let before = stamp(b"a.example\n", b"a.example\n");
    let config = dir.path().join("staunch.toml");
    let text = "version = 1\n[server]\nstate_dir = \"state\"\n[upstream]\nservers = [\"192.0.2.53\"]\n";
    write(&config, format!("{text}[[list]]\nid = \"one\"\nurl = \"{url}\"\naction = \"deny\"\n"));
    for (there, told) in [(&b"b.example\n"[..], false), (b"x.example\n", true)] {
        let good = stamp(b"b.example\n", there);
        write(&directory.join("state.json"), serde_json::json!({ "good": good, "before": before }).to_string());
        let output = output(&["check", config.to_str().expect("text")]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("1 entries"), "{said}");
        assert_eq!(said.contains("list[0].url: its last good copy is damaged"), told, "{said}");
    }
}
