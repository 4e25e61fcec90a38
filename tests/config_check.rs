//! What `staunch check` stands on: every mistake is told by file, line, field and remedy, and no input is a panic.

#[path = "config_check/files.rs"]
mod files;
#[path = "config_check/machine.rs"]
mod machine;
#[path = "config_check/mistakes/mod.rs"]
mod mistakes;
#[path = "config_check/settings.rs"]
mod settings;
#[path = "config_check/shapes.rs"]
mod shapes;

use std::path::Path;

use staunch::config::{
    AlertSinkKind, Environment, Loaded, Server, SinkholeAction, SyslogTarget, Warning, defaults_in, load_in, load_text,
};
use staunch::enforce::BackendKind;
use staunch::forward::Way;
use staunch::lists::{Reach, Scope, Trials};
use staunch::model::Ede;
use staunch::model::{Mode, Phase, Qtype, SessionType, Wall};
use staunch::policy::{UnknownSource, Unlisted};
use staunch::rpz::Override;
use staunch::transfer::Source;
use staunch::validate::Anchors;
use staunch_scoring::{Bits, NameBuf};

const EXAMPLE: &str = include_str!("../deploy/staunch.example.toml");

/// 2026-11-21T12:00:00Z.
const WALL: u64 = 1_795_262_400_000;

fn environment() -> Environment {
    Environment {
        resolv_conf: Some(
            "search example.org\nnameserver 192.0.2.1\nnameserver fe80::1%nowhere0\nnameserver 2001:db8::1\n".into(),
        ),
        state_home: "/home/user/.local/state".into(),
        state_dir: None,
        wall: WALL,
        entropy: [7; 24],
        keep_tables: false,
        checking: false,
    }
}

fn read(text: &str) -> Result<(Loaded, Vec<Warning>), Vec<String>> {
    load_text(Path::new("policy.toml"), text, &environment())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> (Loaded, Vec<Warning>) {
    read(text).unwrap_or_else(|errors| panic!("{}\n{text}", errors.join("\n")))
}

fn name(text: &str) -> NameBuf {
    text.parse().expect("name")
}

const RULE: &str = "version = 1\n[[rule]]\nid = \"r\"\naction = \"allow\"\nowner = \"o\"\nreason = \"r\"\n";

#[test]
fn a_server_says_how_it_is_asked() {
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\", \"udp://192.0.2.54:5353\", \"tcp://[2001:db8::53]\",\n\
                \"tls://192.0.2.55#dns.example\", \"tls://dns.example\", \"tls://dns.example:443#front.example\",\n\
                { server = \"192.0.2.56\", mix_case = false }]\nbootstrap = [\"192.0.2.1\"]\n";
    let (loaded, _) = load_text(Path::new("dir/policy.toml"), text, &environment()).expect("no mistake");
    let servers: Vec<_> = loaded.upstream.servers.iter().map(Server::to_string).collect();
    let expected = [
        "192.0.2.53:53",
        "192.0.2.54:5353",
        "tcp://[2001:db8::53]:53",
        "tls://192.0.2.55:853#dns.example",
        "tls://dns.example:853#dns.example",
        "tls://dns.example:443#front.example",
        "192.0.2.56:53",
    ];
    assert_eq!(servers, expected);
    let ways = loaded.upstream.servers.iter().map(|server| &server.way);
    let mixed: Vec<_> =
        ways.filter_map(|way| if let Way::Udp { mix_case } = way { Some(*mix_case) } else { None }).collect();
    assert_eq!(mixed, [true, true, false]);
}

#[test]
fn names_of_rules_are_checked_one_by_one() {
    for (names, line, field, problem, remedy) in [
        ("\"com\"", 7, "names[0]", "public suffix (ICANN)", "`=com`"),
        ("\"=ok.example\",\n \"*.github.io\"", 8, "names[1]", "public suffix (private)", "owner.github.io"),
        ("\"https://a.example/\"", 7, "names[0]", "bare host name", "`a.example`"),
        ("\"a.*.example\"", 7, "names[0]", "leftmost", "`*.x`"),
        ("\"\"", 7, "names[0]", "empty", "=index"),
        ("\"b\u{fc}ro.example\"", 7, "names[0]", "ASCII", "xn--"),
    ] {
        let text = format!("{RULE}names = [{names}]\nreview_by = \"2027-06-01\"\n");
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).expect_err(names);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert_eq!((errors[0].line, errors[0].field.as_str()), (line, format!("rule[0].{field}").as_str()));
        assert!(errors[0].problem.contains(problem) && errors[0].remedy.contains(remedy), "{}", errors[0]);
    }
    for (more, good) in [
        ("names = [\"a.example\"]\n", false),
        ("names = [\"*.a.example\"]\n", false),
        ("names = [\"=a.example\"]\n", true),
        ("names = [\"a.example\"]\nexpires = \"2027-06-01\"\n", true),
        ("names = [\"*.a.example\"]\nreview_by = \"2027-06-01\"\n", true),
    ] {
        let outcome = read(&format!("{RULE}{more}"));
        assert_eq!(outcome.is_ok(), good, "{more}: {:?}", outcome.err());
    }
}

#[test]
fn what_a_deny_rule_opens_is_told_to_be_nothing() {
    let deny = RULE.replace("allow", "deny");
    let (_, warnings) =
        good(&format!("{deny}names = [\"=a.example\"]\nports = [\"any\"]\nranges = [\"192.0.2.0/24\"]\n"));
    let told: Vec<_> = warnings.iter().map(|w| (w.line, w.field.as_str(), w.problem.as_str())).collect();
    let why = "has no effect on a rule that denies";
    assert_eq!(told, [(8, "rule[0].ports", why), (9, "rule[0].ranges", why)]);
}

#[test]
fn reviews_and_expiries_warn_ahead() {
    for (more, expected) in [
        ("review_by = \"2026-12-06\"", None),
        ("review_by = \"2026-12-05\"", Some("review is due on 2026-12-05")),
        ("review_by = \"2026-11-20\"", Some("review was due on 2026-11-20")),
        ("expires = \"2026-12-05\"", Some("expires on 2026-12-05")),
        ("expires = \"2026-11-22\"", Some("expires on 2026-11-22")),
        ("expires = \"2026-11-21\"", Some("expired on 2026-11-21: it no longer matches")),
    ] {
        let (loaded, warnings) = good(&format!("{RULE}names = [\"a.example\"]\n{more}\n"));
        let told = warnings.first().map(|w| (w.file.as_str(), w.line, w.problem.as_str()));
        assert_eq!(told, expected.map(|problem| ("policy.toml", 8, problem)), "{more}");
        assert_eq!(warnings.len(), usize::from(expected.is_some()));
        let found = loaded.lists.rules.look_up(
            name("x.a.example").as_ref(),
            Scope::of(SessionType::Batch, None),
            Wall::at(WALL),
            Trials::NONE,
        );
        assert_eq!(found.in_force.is_some(), !more.contains("expires = \"2026-11-21\""), "{more}");
    }
}

#[test]
fn mistakes_and_warnings_have_a_stable_json_form() {
    let errors = load_text(Path::new("p.toml"), "version = 1\n[server]\nmetrics = \"1.2.3.4:1\"\n", &environment())
        .expect_err("not loopback");
    assert_eq!(
        serde_json::to_value(&errors).expect("JSON"),
        serde_json::json!([{
            "file": "p.toml",
            "line": 3,
            "field": "server.metrics",
            "problem": "1.2.3.4:1 can be reached from outside",
            "remedy": "use a loopback address such as 127.0.0.1:9153, or \"off\"",
        }])
    );
    let (_, warnings) = good("version = 1\n[enforce]\nbackend = \"nft\"\n");
    let json = serde_json::to_value(&warnings).expect("JSON");
    assert_eq!((&json[0]["line"], &json[0]["field"]), (&2.into(), &"enforce.interfaces".into()));
}

#[test]
fn the_example_loads_without_a_word() {
    let (loaded, warnings) = good(EXAMPLE);
    assert_eq!(warnings, []);
    assert_eq!(loaded.policy.mode, Mode::Monitor);
    assert_eq!(loaded.policy.unknown_source, UnknownSource::Profile);
    assert_eq!(loaded.assumptions(), [] as [&str; 0]);
    assert_eq!(loaded.upstream.addresses().expect("addresses").len(), 3);
    assert_eq!(loaded.list_reports.len(), 2);
    assert!(loaded.lists.deny.look_up(name("x.oast.fun").as_ref()).is_some());
    // What the example says of interactive sessions is the built-in default.
    let (bare, _) = good("version = 1\n");
    let interactive = |loaded: &Loaded| loaded.profiles.of(SessionType::Interactive, Some(Phase::Run)).clone();
    assert_eq!(interactive(&loaded), interactive(&bare));
    // Written defaults are defaults: taking the plain ones out changes nothing but the digest's input.
    assert_eq!(loaded.pins, bare.pins);
    assert_eq!(loaded.events.rotate_bytes, bare.events.rotate_bytes);
    assert_eq!((loaded.listen.queue, loaded.listen.tcp_idle), (bare.listen.queue, bare.listen.tcp_idle));
}

#[test]
fn packs_ship_are_switched_off_and_are_replaced() {
    let rules = |loaded: &Loaded| loaded.lists.packs.rules().len();
    let (shipped, _) = good("version = 1\n");
    assert_eq!(shipped.pack_reports.len(), 1);
    assert!(rules(&shipped) > 50 && shipped.assumptions().iter().any(|said| said.contains("look-alikes")));
    let (off, warnings) = good("version = 1\npack = []\n");
    assert_eq!((rules(&off), off.pack_reports.len(), &warnings[..]), (0, 0, &[][..]));
    assert_ne!(off.digest(), shipped.digest());

    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let entry = "version = 1\n[[entry]]\nid = \"own\"\nclass = \"reputation\"\nnames = [\"*.hash.example.org\"]\nbudget_bits = 900\n\
                 owner = \"team\"\nreason = \"our scanner\"\nreview_by = \"2026-01-01\"\n";
    std::fs::write(dir.path().join("own.toml"), entry).expect("written");
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n[[pack]]\nid = \"mine\"\npath = \"own.toml\"\nprofiles = [\"batch\"]\n";
    let (own, warnings) = load_text(&file, text, &environment()).expect("loads");
    let wanted = name("a.hash.example.org");
    let found = |kind| {
        own.lists
            .packs
            .look_up(wanted.as_ref(), Scope::of(kind, None), Wall::at(0), Trials::NONE)
            .in_force
            .map(|hit| hit.reference())
    };
    let by = found(SessionType::Batch).expect("for batch sessions");
    assert_eq!((&*by.id, &*by.file, by.line), ("mine/own", "own.toml", 5));
    assert!(found(SessionType::Interactive).is_none(), "and for no others");
    let due: Vec<_> = warnings.iter().filter(|warning| warning.file == "own.toml").collect();
    assert_eq!(due.iter().map(|w| (w.line, w.field.as_str())).collect::<Vec<_>>(), [(3, "own.review_by")]);

    std::fs::write(dir.path().join("own.toml"), entry.replace("900", "0")).expect("written");
    let errors = load_text(&file, text, &environment()).expect_err("no budget");
    let told: Vec<_> = errors.iter().map(|e| (e.file.as_str(), e.line, e.field.as_str())).collect();
    assert_eq!(told, [("own.toml", 6, "entry[0].budget_bits")]);
}

#[test]
fn serving_without_a_file_says_what_is_assumed() {
    let loaded = defaults_in(&environment());
    assert_eq!(loaded.listen.addresses, ["127.0.0.1:5300".parse().expect("address")]);
    assert_eq!(loaded.policy.mode, Mode::Monitor);
    assert_eq!(loaded.enforce.backend, BackendKind::DryRun);
    assert_eq!(loaded.state_dir, Path::new("/home/user/.local/state/staunch"));
    let servers = loaded.upstream.addresses().expect("addresses");
    assert_eq!(servers, ["192.0.2.1:53".parse().expect("address"), "[2001:db8::1]:53".parse().expect("address")]);
    let told = loaded.assumptions().join("\n");
    for word in [
        "127.0.0.1:5300",
        "192.0.2.1:53",
        "Monitor mode",
        "dry-run",
        "/home/user/.local/state/staunch",
        "tunnel-services",
    ] {
        assert!(told.contains(word), "{word} in\n{told}");
    }

    // Whatever the environment, there are settings.
    for resolv_conf in [
        None,
        Some(""),
        Some("nameserver"),
        Some("nameserver ::1%lo\nnameserver 1.2.3\n\u{0}"),
        Some("nameserver 127.0.0.1"),
    ] {
        let loaded = defaults_in(&Environment {
            resolv_conf: resolv_conf.map(Into::into),
            state_home: "/long".repeat(40).into(),
            ..environment()
        });
        assert_eq!(loaded.upstream.servers.is_empty(), resolv_conf != Some("nameserver 127.0.0.1"), "{resolv_conf:?}");
    }
    let loaded = defaults_in(&Environment { state_dir: Some("/tmp/state".into()), ..environment() });
    assert_eq!(loaded.admin.socket, Path::new("/tmp/state/admin.sock"));
}

#[test]
fn no_damage_to_the_example_is_a_panic() {
    // A plain generator, so that a failure can be run again.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound.max(1)
    };
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let tokens = [
        "[",
        "]",
        "\"",
        "=",
        "\n",
        "[[",
        "{",
        "}",
        ",",
        "-1",
        "1e999",
        "nan",
        "\"\"",
        "'''",
        "\\u0000",
        "*",
        "..",
        "2026-02-30",
        "true",
        "\u{202e}",
    ];
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..1000 {
        let mut text = EXAMPLE.to_owned();
        for _ in 0..=next(3) {
            let at = (0..=next(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            match next(5) {
                0 => text.insert_str(at, tokens[next(tokens.len())]),
                1 => text.truncate(at),
                2 => {
                    let end = (at + next(40)..=text.len()).find(|e| text.is_char_boundary(*e)).unwrap_or(text.len());
                    text.replace_range(at..end, "");
                }
                3 => {
                    let line = lines[next(lines.len())];
                    text.insert_str(at, &format!("\n{line}\n"));
                }
                _ => {
                    if let Some(c) = text[at..].chars().next() {
                        text.replace_range(at..at + c.len_utf8(), tokens[next(tokens.len())]);
                    }
                }
            }
        }
        match load_text(Path::new("policy.toml"), &text, &environment()) {
            Ok(_) => accepted += 1,
            Err(errors) => {
                refused += 1;
                let count = text.lines().count() as u32 + 1;
                assert!(!errors.is_empty(), "round {round}");
                for error in errors {
                    assert!(
                        error.line <= count && !error.problem.is_empty() && !error.remedy.is_empty(),
                        "round {round}: {error}"
                    );
                }
            }
        }
    }
    assert!(accepted > 20 && refused > 200, "{accepted} accepted, {refused} refused");
}

#[test]
fn deep_nesting_is_refused_and_not_a_crash() {
    for text in [
        format!("version = 1\nx = {}", "[".repeat(100_000)),
        format!("version = 1\nx = {}1{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("version = 1\n[{}a]\nb = 1\n", "a.".repeat(20_000)),
        format!("version = 1\n{}a = 1\n", "a.".repeat(20_000)),
        format!("version = 1\nx = {}", "{a=".repeat(20_000)),
    ] {
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).expect_err("deep");
        assert!(!errors.is_empty() && errors[0].line <= 3, "{}", errors[0]);
    }
}

#[test]
fn the_enforcer_and_a_hook_are_settings_like_others() {
    let (loaded, _) = good(
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"veth0\"]\n\
         enforcer_socket = \"/run/staunch-enforcer/enforcer.sock\"\nenforcer_group = \"staunch\"\nresolver_user = \"4711\"\n\
         [upstream]\nservers = [\"192.0.2.53\"]\n",
    );
    assert_eq!(loaded.enforce.outside.enforcer.as_deref(), Some(Path::new("/run/staunch-enforcer/enforcer.sock")));
    let (loaded, warnings) = good(
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"hook\"\nhook = [\"/bin/x\", \"--y\"]\n\
         hook_deadline_ms = 250\n[upstream]\nservers = [\"192.0.2.53\"]\n",
    );
    assert_eq!(loaded.enforce.outside.hook, ["/bin/x", "--y"]);
    assert_eq!(loaded.enforce.outside.hook_deadline, std::time::Duration::from_millis(250));
    assert!(warnings.iter().any(|warning| warning.to_string().contains("hook's hands")), "{warnings:?}");
}

#[test]
fn who_enforces_behind_interfaces_needs_the_lockdown_unless_it_says_otherwise() {
    use staunch::readiness::Need;
    let upstream = "[upstream]\nservers = [\"192.0.2.53\"]\n";
    for (mode, backend, interfaces, written, need) in [
        ("enforce", "nft", "\"a0\"", "", Need::Require),
        ("canary\"\ncanary_percent = 5\n#\"", "nft", "\"a0\"", "", Need::Warn),
        ("monitor", "nft", "\"a0\"", "", Need::Warn),
        ("enforce", "nft", "\"a0\"", "lockdown = \"warn\"\n", Need::Warn),
        ("enforce", "nft", "\"a0\"", "lockdown = \"off\"\n", Need::Off),
        ("enforce", "nft", "", "", Need::Off),
        ("enforce", "dry-run", "\"a0\"", "", Need::Off),
    ] {
        let text = format!(
            "version = 1\n[policy]\nmode = \"{mode}\"\n{upstream}[enforce]\nbackend = \"{backend}\"\n\
             interfaces = [{interfaces}]\n{written}"
        );
        assert_eq!(good(&text).0.lockdown.need, need, "{text}");
    }
}

#[test]
fn the_enforcer_reads_its_section_and_none_of_the_files_named() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let load = |text: &str, socket: Option<&str>| {
        std::fs::write(&file, text).expect("written");
        staunch::config::load_enforcer(&file, socket.map(Into::into))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let text = "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"veth0\"]\n\
                enforcer_socket = \"/run/e.sock\"\nresolver_user = \"4711\"\n\
                [[list]]\nid = \"gone\"\npath = \"no-such-file\"\nformat = \"domains\"\n";
    let (settings, _) = load(text, None).expect("loads");
    assert_eq!(settings.socket, Path::new("/run/e.sock"));
    assert!(settings.enforce.guard_unknown && settings.peers.admit(4711) && !settings.peers.admit(0));
    // A mistake elsewhere keeps the resolver from starting, not the enforcer from coming back.
    assert!(load(&format!("{text}[[rule]]\nid = 7\n"), None).is_ok());
    let error = load(&format!("{text}[[rule\n"), None).map(drop).expect_err("not TOML");
    assert!(error.contains("not TOML"), "{error}");
    let (settings, _) = load(text, Some("/run/other.sock")).expect("loads");
    assert_eq!(settings.socket, Path::new("/run/other.sock"), "the command line goes before the file");
    let error = load(&text.replace("4711", "no-such-user"), None).expect_err("nobody");
    assert!(
        error.contains("staunch.toml:8: enforce.resolver_user: this machine has no user `no-such-user`"),
        "{error}"
    );
    let error = load("version = 1\n[enforce]\nbackend = \"nft\"\n", None).expect_err("no socket");
    assert!(error.contains("enforce.enforcer_socket") && error.contains("/run/staunch-enforcer"), "{error}");
    let error = load("version = 1\n[enforce]\nbackend = \"hook\"\nhook = [\"/bin/x\"]\n", None).expect_err("no nft");
    assert!(error.contains("enforce.backend"), "{error}");
}

#[test]
fn two_rules_that_disagree_and_alerts_in_the_clear_are_told() {
    let rule = |id: &str, action: &str, more: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\naction = \"{action}\"\nnames = [\"a.example\"]\nowner = \"o\"\nreason = \"r\"\n\
             review_by = \"2099-01-01\"\n{more}"
        )
    };
    let told = |text: &str| good(text).1.into_iter().map(|w| (w.line, w.field, w.remedy)).collect::<Vec<_>>();
    let both = format!("version = 1\n{}{}", rule("opens", "allow", ""), rule("shuts", "deny", ""));
    let [(12, field, remedy)] = &told(&both)[..] else { panic!("{:?}", told(&both)) };
    assert_eq!(field, "rule[1].names");
    assert!(remedy.contains("`shuts` decides") && remedy.contains("`opens`"), "{remedy}");
    // On trial, or for some alone, it is what somebody may well mean.
    for more in ["mode = \"monitor\"\n", "profiles = [\"batch\"]\n"] {
        let apart = format!("version = 1\n{}{}", rule("opens", "allow", ""), rule("shuts", "deny", more));
        assert_eq!(told(&apart), [], "{more}");
    }
    let alert = |url: &str| format!("version = 1\n[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{url}\"\n");
    assert_eq!(told(&alert("http://soc.example/alerts")).len(), 1);
    for good in
        ["https://soc.example/alerts", "http://10.77.9.9/alerts", "http://[::1]/alerts", "http://localhost/alerts"]
    {
        assert_eq!(told(&alert(good)), [], "{good}");
    }
}
