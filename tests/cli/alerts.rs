//! Which receiver takes no alerts, as an operator sees it.

use std::time::{Duration, Instant};

use crate::daemon::port::free_port;
use crate::daemon::{Daemon, ENFORCE};

#[test]
fn the_status_names_the_receiver_that_takes_no_alerts() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let receivers = format!(
        "[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"http://{nobody}/\"\n\
         [[alert]]\nname = \"own\"\nkind = \"file\"\npath = \"alerts.jsonl\"\n"
    );
    let daemon = Daemon::start(&format!("{ENFORCE}{receivers}"));
    daemon.json(&["session", "quarantine", "s1", "--reason", "test"]);
    let end = Instant::now() + Duration::from_secs(10);
    let status = loop {
        let status = daemon.json(&["status"]);
        if status["alert_receivers"][0]["failing"] == true && status["alert_receivers"][1]["waiting"] == 0 {
            break status;
        }
        assert!(Instant::now() < end, "{status:#}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let receiver = |at: usize| &status["alert_receivers"][at];
    assert_eq!((receiver(0)["name"].as_str(), receiver(0)["waiting"].as_u64()), (Some("soc"), Some(1)), "{status:#}");
    assert_eq!((receiver(1)["name"].as_str(), receiver(1)["failing"].as_bool()), (Some("own"), Some(false)));
    let words = String::from_utf8(daemon.run(&["status"]).stdout).expect("UTF-8");
    assert!(words.contains("\nalerts         soc: 1 wait") && words.contains("NOT TAKEN"), "{words}");
    assert!(!words.contains("\nalerts         own"), "{words}");
}
