//! Questions that are asked again: how often they leave, what answers them meanwhile, and who pays.

mod daemon;

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::{Daemon, ENFORCE};

/// Enforce mode with two sessions of one owner, one of another and one of nobody, and `{answer}` in `[answer]`.
fn config(answer: &str, more: &str) -> String {
    let session = |id: &str, address: &str, owner: &str| {
        format!("[[session]]\nid = \"{id}\"\naddresses = [\"{address}\"]\ntype = \"batch\"\n{owner}\n")
    };
    format!(
        "[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\n[answer]\n{answer}\n{}{}{}{}{more}",
        session("a1", "127.0.0.1", "owner = \"team-a\""),
        session("a2", "127.0.0.2", "owner = \"team-a\""),
        session("b1", "127.0.0.3", "owner = \"team-b\""),
        session("n1", "127.0.0.4", ""),
    )
}

/// What an upstream was asked, and when.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, Instant)>>>);

impl Asked {
    fn of(&self, name: &str) -> usize {
        self.0.lock().expect("no panic").iter().filter(|(asked, _)| asked == name).count()
    }

    fn last(&self) -> Instant {
        self.0.lock().expect("no panic").last().expect("it was asked").1
    }
}

/// An upstream whose answer depends on how the name begins: `zero` has a TTL of 0, `gone` does not exist, `fail` fails,
/// `inside` is a private address, anything else lives for five minutes.
fn upstream() -> (SocketAddr, Asked) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    let asked = Asked::default();
    let log = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let packet = &buffer[..length];
            let mut labels = Vec::new();
            let mut end = 12;
            while packet[end] != 0 {
                let next = end + 1 + usize::from(packet[end]);
                labels.push(String::from_utf8_lossy(&packet[end + 1..next]).to_lowercase());
                end = next;
            }
            let name = labels.join(".");
            end += 5;
            let begins = |what: &str| name.starts_with(what);
            let rcode = if begins("gone") {
                3
            } else if begins("fail") {
                2
            } else {
                0
            };
            let is_a = rcode == 0 && packet[end - 4..end - 2] == [0, 1];
            let mut reply = packet[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80 | rcode, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                let ttl = if begins("zero") { [0, 0, 0, 0] } else { [0, 0, 1, 44] };
                let data = if begins("inside") { [10, 0, 0, 1] } else { [203, 0, 113, 5] };
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
                reply.extend_from_slice(&ttl);
                reply.extend_from_slice(&[0, 4]);
                reply.extend_from_slice(&data);
            }
            log.0.lock().expect("no panic").push((name, Instant::now()));
            let _ = socket.send_to(&reply, from);
        }
    });
    (address, asked)
}

/// What a stub sees of a reply.
#[derive(Debug)]
struct Reply {
    rcode: u8,
    answers: u16,
    /// Of the first answer.
    ttl: u32,
    /// Info codes.
    errors: Vec<u16>,
    text: String,
}

fn ask(daemon: &Daemon, from: &str, name: &str) -> Reply {
    let socket = UdpSocket::bind((from, 0)).expect("socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let question = query.len() - 11;
    socket.send_to(&query, daemon.address).expect("sent");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a reply");
    let reply = &buffer[..length];
    let answers = u16::from_be_bytes([reply[6], reply[7]]);
    let ttl = match answers {
        0 => 0,
        _ => u32::from_be_bytes(reply[question + 6..question + 10].try_into().expect("four octets")),
    };
    // OPT is the last record of every reply: its options begin behind the root, type, size, flags and length.
    let opt = reply.windows(5).rposition(|w| w == [0, 0, 41, 4, 208]).expect("our OPT");
    let mut options = &reply[opt + 11..];
    let mut errors = Vec::new();
    while let [high, low, long, short, rest @ ..] = options {
        let length = usize::from(u16::from_be_bytes([*long, *short]));
        if [*high, *low] == [0, 15] {
            errors.push(u16::from_be_bytes([rest[0], rest[1]]));
        }
        options = &rest[length..];
    }
    let text = String::from_utf8_lossy(reply).into_owned();
    Reply { rcode: reply[3] & 0xf, answers, ttl, errors, text }
}

#[test]
fn a_question_leaves_at_most_once_until_the_floor() {
    let (upstream, asked) = upstream();
    let daemon = Daemon::start_at(upstream, "off", &config("floor_seconds = 2", ""));
    let names = ["zero.site.example", "gone.site.example", "inside.site.example"];
    let begun = Instant::now();
    for name in names {
        let first = ask(&daemon, "127.0.0.1", name);
        for from in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"] {
            let again = ask(&daemon, from, name);
            assert_eq!((again.rcode, again.answers), (first.rcode, first.answers), "{name}: {again:?}");
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "this machine is too slow for this test");
    assert_eq!(names.map(|name| asked.of(name)), [1, 1, 1], "once, for all sessions");
    let again = ask(&daemon, "127.0.0.2", "zero.site.example");
    assert_eq!((again.ttl, again.errors), (0, vec![3]), "its own TTL, and it is told that it is over");
    let event = daemon.event(|e| e["qname"] == "zero.site.example" && e["source"] == "cache");
    assert_eq!(event["score"]["charged_bits"], 0.0, "what does not leave costs nothing: {event}");
    let inside = daemon.event(|e| e["qname"] == "inside.site.example" && e["source"] == "cache");
    assert_eq!((inside["reason"].as_str(), inside["withheld"][0].as_str()), (Some("not-public"), Some("10.0.0.1")));

    std::thread::sleep(Duration::from_millis(2100).saturating_sub(begun.elapsed()));
    for name in names {
        ask(&daemon, "127.0.0.1", name);
    }
    // Answers without records and without a SOA live for five seconds by themselves.
    assert_eq!(names.map(|name| asked.of(name)), [2, 1, 1], "then once more");
    let shown = daemon.json(&["session", "show", "a1"]);
    assert!(
        shown["pins"].as_array().expect("pins").iter().any(|p| p["seconds_left"].as_u64() >= Some(30)),
        "pins outlive a TTL of 0 by the grace: {shown:#}"
    );
}

#[test]
fn without_a_floor_a_ttl_of_0_is_asked_each_time() {
    let (upstream, asked) = upstream();
    let daemon = Daemon::start_at(upstream, "off", &config("floor_seconds = 0", ""));
    for _ in 0..3 {
        let reply = ask(&daemon, "127.0.0.1", "zero.site.example");
        assert_eq!((reply.answers, reply.ttl, reply.errors), (1, 0, vec![]));
    }
    assert_eq!(asked.of("zero.site.example"), 3);
}

#[test]
fn a_failure_is_tried_again_after_seconds_and_hides_no_answer() {
    let (upstream, asked) = upstream();
    let daemon = Daemon::start_at(upstream, "off", &config("failure_seconds = 1", ""));
    let begun = Instant::now();
    let first = ask(&daemon, "127.0.0.1", "fail.site.example");
    let tries = asked.of("fail.site.example");
    assert!(first.rcode == 2 && tries > 0, "{first:?}");
    let again = ask(&daemon, "127.0.0.2", "fail.site.example");
    assert_eq!((again.rcode, &again.errors), (2, &first.errors), "{again:?}");
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(asked.of("fail.site.example"), tries, "nothing left");
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&daemon, "127.0.0.1", "fail.site.example").rcode, 2);
    assert!(asked.of("fail.site.example") > tries);
    let explained = daemon.json(&["explain", "fail.site.example", "--session", "a1"]);
    assert_eq!(explained["source"], "cache", "{explained}");
}

#[test]
fn with_nothing_left_to_spend_a_failure_is_a_failure_and_no_denial() {
    const NAME: &str = "fail.site.example";
    let (upstream, asked) = upstream();
    let daemon = Daemon::start_at(upstream, "off", &config("failure_seconds = 1", ""));
    let explained = daemon.json(&["explain", NAME, "--session", "a1"]);
    let price = explained["score"]["ledger_after"]["tenant"].as_f64().unwrap_or_else(|| panic!("{explained:#}"));
    drop(daemon);
    // Room for the name and for nothing behind it.
    let budgets = format!("[profile.batch.budgets]\ntenant = {}\ntenant_soft = 1\n", price.ceil());
    let daemon = Daemon::start_at(upstream, "off", &config("failure_seconds = 1", &budgets));
    let first = ask(&daemon, "127.0.0.1", NAME);
    assert_eq!(first.rcode, 2, "{first:?}");
    let tries = asked.of(NAME);
    std::thread::sleep(Duration::from_millis(1100));
    let held = ask(&daemon, "127.0.0.1", NAME);
    assert_eq!((held.rcode, &held.errors, &held.text), (2, &first.errors, &first.text), "{held:?}");
    assert_eq!(asked.of(NAME), tries, "nothing left");
    let event = daemon.event(|event| event["qname"] == NAME && event["reason"] == "held");
    assert_eq!((event["verdict"].as_str(), event["source"].as_str()), (Some("hold"), Some("failed")), "{event:#}");
}

#[test]
fn sessions_of_one_owner_share_a_limit_and_others_do_not() {
    let (upstream, asked) = upstream();
    // Room for a few names of the group, and all the room a session could want.
    let budgets = "[profile.batch.budgets]\ngroup = 300\n";
    let mut daemon = Daemon::start_at(upstream, "off", &config("", budgets));
    let name = |n: u64| format!("www.site{n}.example");
    let spent = |daemon: &Daemon, id: &str| {
        let shown = daemon.json(&["session", "show", id]);
        shown["group"]["spent_bits"].as_f64().unwrap_or_else(|| panic!("{shown:#}"))
    };
    let mut sent = 0;
    while spent(&daemon, "a1") < 150.0 {
        assert_eq!(ask(&daemon, "127.0.0.1", &name(sent)).rcode, 0);
        sent += 1;
    }
    let by_one = spent(&daemon, "a1");
    assert_eq!(spent(&daemon, "a2"), by_one, "both see one ledger");
    assert_eq!(spent(&daemon, "b1"), 0.0);
    assert!(daemon.json(&["session", "show", "n1"])["group"].is_null(), "nobody's session has no group");

    // What the group has told before is not told again.
    for n in 0..sent {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(ask(&daemon, "127.0.0.2", &name(n)).rcode, 0);
    }
    assert_eq!(spent(&daemon, "a2"), by_one);
    let before = daemon.json(&["explain", &name(900), "--session", "a2"]);
    assert_eq!(before["score"]["ledger_before"]["group"].as_f64(), Some(by_one), "{before}");
    assert_eq!(spent(&daemon, "a2"), by_one, "explaining changes nothing");

    // Every step is in the journal at once, the rest in the index within seconds.
    std::thread::sleep(Duration::from_millis(2500));
    daemon.restart();
    assert!((spent(&daemon, "a1") - by_one).abs() < 0.01, "{by_one} and {}", spent(&daemon, "a1"));

    let mut refused = None;
    for n in 100..120 {
        let reply = ask(&daemon, "127.0.0.2", &name(n));
        if reply.rcode == 3 {
            refused = Some((n, reply));
            break;
        }
    }
    let (n, reply) = refused.expect("the group's limit");
    let event = daemon.event(|e| e["qname"] == name(n).as_str() && e["session"] == "a2");
    assert_eq!(event["reason"], "ledger-group", "{reply:?} {event}");
    assert_eq!(asked.of(&name(n)), 0, "what would overdraw does not leave");
    assert!(spent(&daemon, "a1") <= 300.0, "{}", spent(&daemon, "a1"));
    assert_eq!(ask(&daemon, "127.0.0.3", &name(n)).rcode, 0, "another owner's session");
    assert_eq!(ask(&daemon, "127.0.0.4", &name(n + 1)).rcode, 0, "nobody's session");
    let status = daemon.json(&["status"]);
    assert_eq!(status["groups"]["spending_most"][0]["owner"], "team-a", "{status:#}");
}

/// Asks `zero.site.example` until the answer no longer comes from outside; the number of times it left.
fn until_held(daemon: &Daemon, asked: &Asked, from: &str, name: &str) -> (usize, Reply) {
    for _ in 0..400 {
        let before = asked.of(name);
        let reply = ask(daemon, from, name);
        if asked.of(name) == before {
            return (before, reply);
        }
    }
    panic!("{name} left every time");
}

#[test]
fn repeats_that_tell_too_much_are_answered_from_memory() {
    let (upstream, asked) = upstream();
    let budgets = "[profile.batch.budgets]\necho = 1\necho_hour = 1\n";
    let daemon = Daemon::start_at(upstream, "off", &config("floor_seconds = 0", budgets));
    let (left, held) = until_held(&daemon, &asked, "127.0.0.1", "zero.site.example");
    assert!((1..50).contains(&left), "left {left} times");
    // A second less where what is left of its pins is.
    assert_eq!((held.rcode, held.answers), (0, 1), "{held:?}");
    assert!((29..=30).contains(&held.ttl), "RFC 8767 section 4: {held:?}");
    assert!(held.errors == [3] && held.text.contains("Case c"), "{held:?}");
    let event = daemon.event(|e| e["qname"] == "zero.site.example" && e["verdict"] == "hold");
    assert_eq!((event["reason"].as_str(), event["source"].as_str()), (Some("held"), Some("cache")), "{event}");
    let entry = event["score"]["charged_bits"].as_f64().expect("bits");
    assert!(entry > 15.0, "a first tick, and a name that is asked again in it: {event}");
    let explained = daemon.json(&["explain", "zero.site.example", "--session", "a1"]);
    assert_eq!((explained["verdict"].as_str(), explained["source"].as_str()), (Some("hold"), Some("cache")));
    assert_eq!(explained["score"]["charged_bits"], 0.0, "this tick is paid for, and so is the name: {explained}");
    let shown = daemon.json(&["session", "show", "a1"]);
    assert_eq!(shown["session"]["state"], "active", "repeats make nobody watched");
    assert_eq!(shown["names_refreshed"], 1, "{shown:#}");
    let pinned = |pin: &serde_json::Value| pin["address"] == "203.0.113.5" && pin["seconds_left"].as_u64() >= Some(30);
    assert!(shown["pins"].as_array().expect("pins").iter().any(pinned), "for the TTL shown, like any: {shown:#}");
    let spent = |daemon: &Daemon| daemon.json(&["session", "show", "a1"])["ledger"]["session_bits"].as_f64();
    let before = spent(&daemon);
    for _ in 0..20 {
        assert_eq!(ask(&daemon, "127.0.0.1", "zero.site.example").answers, 1);
    }
    daemon.event(|e| e["verdict"] == "hold" && e["score"]["charged_bits"] == 0.0);
    assert_eq!((spent(&daemon), asked.of("zero.site.example")), (before, left), "nothing leaves in this tick");

    // Where nothing has changed, what is at hand stays.
    assert_eq!(daemon::code(&daemon.run(&["reload"])), 0);
    assert_eq!(ask(&daemon, "127.0.0.1", "zero.site.example").errors, [3]);
    // Nothing at hand: another policy has cleared the cache, so it is asked, and charged.
    let file = daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let rule = "[[rule]]\nid = \"more\"\naction = \"deny\"\nnames = [\"else.example\"]\nowner = \"o\"\nreason = \"r\"\n\
                review_by = \"2099-01-01\"\n";
    std::fs::write(&file, format!("{text}\n{rule}")).expect("written");
    assert_eq!(daemon::code(&daemon.run(&["reload"])), 0);
    let fresh = ask(&daemon, "127.0.0.1", "zero.site.example");
    assert_eq!((fresh.rcode, fresh.answers, fresh.ttl), (0, 1, 0), "{fresh:?}");
    assert_eq!(asked.of("zero.site.example"), left + 1);
    assert_eq!(ask(&daemon, "127.0.0.3", "zero.site.example").answers, 1, "other sessions are not held");
}

#[test]
fn monitor_mode_records_what_would_be_held() {
    let (upstream, asked) = upstream();
    let text = config("floor_seconds = 0", "[profile.batch.budgets]\necho = 1\necho_hour = 1\n");
    let daemon = Daemon::start_at(upstream, "off", &text.replace("mode = \"enforce\"", "mode = \"monitor\""));
    for _ in 0..50 {
        assert_eq!(ask(&daemon, "127.0.0.1", "zero.site.example").answers, 1);
    }
    assert_eq!(asked.of("zero.site.example"), 50, "forwarded as ever");
    let event = daemon.event(|e| e["qname"] == "zero.site.example" && e["would"] == "hold");
    assert_eq!((event["verdict"].as_str(), event["source"].as_str()), (Some("answer"), Some("upstream")));
}

#[test]
fn what_could_tell_by_its_time_waits_a_random_moment() {
    const LONGEST: Duration = Duration::from_millis(200);
    let budgets = "[profile.batch.budgets]\necho = 24\necho_hour = 1\n";
    let text = config("floor_seconds = 0\njitter_ms = 200", budgets);
    for (mode, waits) in [("enforce", true), ("monitor", false)] {
        let (upstream, asked) = upstream();
        let text = text.replace("mode = \"enforce\"", &format!("mode = {mode:?}"));
        let daemon = Daemon::start_at(upstream, "off", &text);
        let mut waited = Vec::new();
        for _ in 0..60 {
            let (before, begun) = (asked.of("zero.site.example"), Instant::now());
            ask(&daemon, "127.0.0.1", "zero.site.example");
            if asked.of("zero.site.example") == before {
                break;
            }
            waited.push(asked.last() - begun);
        }
        waited.sort_unstable();
        let (half, most) = (waited[waited.len() / 2], waited[waited.len() * 3 / 4]);
        let longest = waited[waited.len() - 1];
        println!("FIGURE: {mode}: {} left, the longest wait {longest:?}", waited.len());
        // The longest of them may be what else this machine did.
        assert!(most < LONGEST + Duration::from_millis(50) && longest < 8 * LONGEST, "{waited:?}");
        // A random wait is below a tenth of the longest once in ten times; so are not several of them.
        let told = if waits { longest } else { half };
        assert_eq!(told > LONGEST / 10, waits, "{mode}: {waited:?}");
    }
}

#[test]
fn the_defaults_leave_ordinary_repeats_alone() {
    let (upstream, asked) = upstream();
    let daemon = Daemon::start_at(upstream, "off", ENFORCE);
    for _ in 0..50 {
        let reply = ask(&daemon, "127.0.0.1", "www.site.example");
        assert_eq!((reply.rcode, reply.answers, &reply.errors[..]), (0, 1, &[][..]));
    }
    assert_eq!(asked.of("www.site.example"), 1);
}
