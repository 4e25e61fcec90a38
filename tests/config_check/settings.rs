//! Every setting is taken from where it stands and takes effect.

use super::*;

#[test]
fn every_setting_takes_effect() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect(file);
    write("bad.txt", "# list\nbad.example\n||skip.example^\nworse.example\nlast.example\nbest.example\n");
    write("hosts.txt", "0.0.0.0 one.example two.example\n");
    write("nrd.txt", "new.example\nolder.example,2026-11-11\n");
    write("corp.test.zone", "$ORIGIN corp.test.\n@ 60 IN SOA ns hostmaster 1 60 60 60 60\n");
    write("hmac.key", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(dir.path().join("hmac.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let text = r#"version = 1
[server]
listen = ["0.0.0.0:53", "[::]:53"]
workers = 2
state_dir = "/srv/staunch"
admin_group = "staunch"
metrics = "off"
[policy]
mode = "canary"
canary_percent = 25
[upstream]
servers = ["192.0.2.53", "[2001:db8::53]:5353", "resolver.example.net:54"]
bootstrap = ["192.0.2.1"]
[answer]
floor_seconds = 30
failure_seconds = 5
hold_stale_seconds = 3600
jitter_ms = 100
refresh_held = false
[[answer.allow_range]]
name = "*.corp.example"
ranges = ["10.20.0.0/16"]
owner = "net-team"
reason = "internal wiki"
review_by = "2027-06-01"
[[answer.show_loopback]]
zone = "dnsbl.example"
owner = "mail-team"
reason = "block list"
review_by = "2027-06-01"
[dnssec]
validate = true
allow_cd = false
follow_rollover = false
max_failures = 8
max_nsec3_iterations = 100
max_nsec3_hashes = 40
max_lookups = 20
timeout_ms = 1500
[[dnssec.negative_trust_anchor]]
zone = "broken.example"
owner = "net-team"
reason = "keys rolled too soon"
review_by = "2027-06-01"
[enforce]
backend = "nft"
interfaces = ["veth-agent"]
deadline_ms = 70
min_pin_seconds = 40
max_pin_seconds = 80
pin_grace_seconds = 10
pins_per_name = 9
capacity = 7000
[sinkhole]
kind = "address"
ipv6 = "2001:db8::80"
contact = "security@example.com"
[[session]]
id = "agent-1"
addresses = ["10.77.1.2", "fd00::2"]
type = "batch"
phase = "build"
owner = "team-a"
search = ["svc.cluster.local"]
[profile.batch]
qtypes = ["a", "AAAA", "TYPE65", "A"]
ports = ["tcp/8443", "udp/8443"]
[profile.batch.budgets]
tenant = 1536
[profile.batch.volume]
warn_bytes = 1000
cut_bytes = 9000
[profile."batch.build"]
unlisted = "refuse"
[profile.unannounced.params]
sinkhole = 3.5
[[rule]]
id = "index"
action = "allow"
names = ["=index.example.org", "files.example.org"]
profiles = ["batch"]
qtypes = ["TXT"]
budget_bits = 65536
ports = ["any"]
ranges = ["192.0.2.0/24"]
owner = "platform"
reason = "installs"
review_by = "2027-06-01"
mode = "enforce"
[[range]]
id = "mirrors"
ranges = ["198.51.100.0/24", "2001:db8::/64"]
ports = ["tcp/9418"]
profiles = ["batch"]
owner = "platform"
reason = "known by address only"
review_by = "2027-06-01"
expires = "2027-06-01"
[[list]]
id = "doh-resolvers"
path = "bad.txt"
source = "https://example.net/list"
reviewed = "2026-11-01"
[[list]]
id = "tunnel-services"
path = "hosts.txt"
format = "hosts"
[[list]]
id = "fresh"
path = "nrd.txt"
format = "nrd"
date = "2026-11-20"
[[zone]]
name = "corp.test"
file = "corp.test.zone"
[events]
file = "off"
[[alert]]
name = "soc"
kind = "webhook"
url = "http://10.77.9.9:8080/alerts"
secret_file = "hmac.key"
[[alert]]
name = "siem"
kind = "syslog"
address = "unix:///dev/log"
[[alert]]
name = "copy"
kind = "file"
path = "alerts.jsonl"
[[forward]]
zone = "Corp.Internal"
servers = ["10.20.0.53", "dns.corp.example:5353"]
owner = "net-team"
reason = "served inside only"
review_by = "2027-06-01"
"#;
    write("policy.toml", text);
    let path = dir.path().join("policy.toml");
    let (loaded, warnings) = load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}"));

    // The one thing to look at is the line of a list that is of another format.
    let told: Vec<_> = warnings.iter().map(|w| (w.file.as_str(), w.line)).collect();
    assert_eq!(told, [("bad.txt", 3)], "{warnings:#?}");

    assert_eq!(loaded.listen.addresses.len(), 2);
    assert_eq!((loaded.listen.workers, loaded.metrics), (2, None));
    assert_eq!(loaded.admin.socket, Path::new("/srv/staunch/admin.sock"));
    assert_eq!(loaded.admin.group.as_deref(), Some("staunch"));
    assert_eq!((loaded.policy.mode, loaded.policy.canary_percent), (Mode::Canary, 25));
    assert_eq!(loaded.policy.unknown_source, UnknownSource::Profile);
    let servers: Vec<_> = loaded.upstream.servers.iter().map(Server::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:5353", "resolver.example.net:54"]);
    assert_eq!(loaded.upstream.addresses(), None, "one has to be looked up");
    let own = &loaded.upstream.zones[0];
    assert_eq!((own.zone.to_string().as_str(), own.owner.as_str()), ("corp.internal", "net-team"));
    let servers: Vec<_> = own.servers.iter().map(Server::to_string).collect();
    assert_eq!(servers, ["10.20.0.53:53", "dns.corp.example:5353"]);
    assert_eq!(loaded.upstream.forward_config(vec![], vec![]).udp_payload, 1232);
    assert!(loaded.answer.allow_ranges[0].ranges[0].contains("10.20.3.4".parse().expect("address")));
    assert_eq!(loaded.answer.allow_ranges[0].reference.line, 20);
    let repeats = loaded.answer.repeats;
    assert_eq!((repeats.floor.as_secs(), repeats.failure.as_secs()), (30, 5));
    assert_eq!((repeats.hold_stale.as_secs(), repeats.jitter.as_millis()), (3600, 100));
    assert!(!repeats.refresh);
    assert_eq!(loaded.answer.show_loopback[0].zone, name("dnsbl.example"));
    let (dnssec, limits) = (&loaded.dnssec, loaded.dnssec.limits);
    assert!(dnssec.validate && !dnssec.allow_cd && !dnssec.follow_rollover);
    assert_eq!((limits.failures, limits.iterations, limits.hashes, limits.lookups), (8, 100, 40, 20));
    assert_eq!(limits.time.as_millis(), 1500);
    let apart = [own.zone.clone()];
    assert_eq!(dnssec.anchors, Anchors::default().without([name("broken.example")]).apart(apart));
    assert_eq!(loaded.enforce.backend, BackendKind::Nft);
    assert_eq!((loaded.enforce.deadline.as_millis(), loaded.enforce.capacity), (70, 7000));
    let seconds = [loaded.pins.min, loaded.pins.max, loaded.pins.grace].map(|time| time.as_secs());
    assert_eq!((seconds, loaded.pins.per_name), ([40, 80, 10], 9));
    let range = &loaded.ranges[0];
    assert_eq!((range.ranges.len(), range.ports.to_string(), &*range.reference.id), (2, "tcp/9418".into(), "mirrors"));
    assert!(range.scopes.contains(Scope::of(SessionType::Batch, Some(Phase::Run))));
    assert!(!range.scopes.contains(Scope::of(SessionType::Interactive, None)) && range.expires > WALL);
    assert_eq!(
        loaded.sinkhole.action,
        SinkholeAction::Address { ipv4: None, ipv6: Some("2001:db8::80".parse().expect("address")) }
    );
    assert_eq!(loaded.sessions[0].addresses.len(), 2);
    assert_eq!(loaded.sessions[0].search, [name("svc.cluster.local")]);

    // Phase over type over built-in.
    let batch = loaded.profiles.of(SessionType::Batch, Some(Phase::Run));
    let build = loaded.profiles.of(SessionType::Batch, Some(Phase::Build));
    assert_eq!((batch.name.as_str(), build.name.as_str()), ("batch", "batch.build"));
    assert_eq!((batch.unlisted, build.unlisted), (Unlisted::Score, Unlisted::Refuse));
    assert_eq!(build.qtypes, [Qtype::A, Qtype::AAAA, Qtype::HTTPS]);
    assert_eq!(
        (build.ports.to_string(), batch.ports.to_string()),
        ("tcp/8443 udp/8443".into(), build.ports.to_string())
    );
    assert_eq!((build.volume.warn, build.volume.cut), (Some(1000), Some(9000)));
    assert!(build.answers(Qtype::HTTPS) && !build.answers(Qtype::SRV));
    assert_eq!((build.budgets.tenant, build.budgets.session), (Bits::whole(1536), Bits::whole(8192)));
    let unannounced = loaded.profiles.of(SessionType::Unannounced, None);
    assert_eq!((unannounced.params.sinkhole, unannounced.budgets.tenant), (3.5, Bits::whole(1024)));
    assert_eq!(loaded.profiles.of(SessionType::Interactive, None).qtypes, staunch::policy::Profile::ORDINARY_TYPES);

    // Rules and lists, found in one walk.
    let scope = Scope::of(SessionType::Batch, Some(Phase::Build));
    let line = text.lines().zip(1..).find(|(l, _)| l.contains("files.example.org")).map_or(0, |(_, n)| n);
    let found = loaded
        .lists
        .look_up(name("a.files.example.org").as_ref(), scope, Wall::at(WALL), Trials::NONE)
        .rules
        .in_force
        .expect("covered");
    assert_eq!(
        (found.reach, found.rule.budget, found.rule.mode),
        (Reach::AtOrBelow, Bits::whole(65536), Some(Mode::Enforce))
    );
    assert_eq!((found.rule.qtypes.as_slice(), found.reference().line), ([Qtype::TXT].as_slice(), line));
    let opened = found.rule.ports.as_ref().map(ToString::to_string);
    assert_eq!((opened.as_deref(), found.rule.expected.len()), (Some("any"), 1));
    let other = Scope::of(SessionType::Interactive, None);
    assert!(
        loaded
            .lists
            .look_up(name("index.example.org").as_ref(), other, Wall::at(WALL), Trials::NONE)
            .rules
            .in_force
            .is_none()
    );
    let denied = loaded
        .lists
        .look_up(name("x.worse.example").as_ref(), scope, Wall::at(WALL), Trials::NONE)
        .deny
        .expect("listed")
        .reference();
    assert_eq!((&*denied.id, &*denied.file, denied.line), ("doh-resolvers", "bad.txt", 4));
    assert!(loaded.lists.deny.look_up(name("x.two.example").as_ref()).is_none(), "hosts entries are exact");
    assert_eq!(loaded.lists.age.days(name("new.example").as_ref(), WALL), Some(1.5));
    assert_eq!(loaded.lists.age.days(name("older.example").as_ref(), WALL), Some(10.5));
    let skipped: Vec<_> = loaded.list_reports.iter().map(|r| (r.report.entries, r.report.skipped)).collect();
    assert_eq!(skipped, [(4, 1), (2, 0), (2, 0)]);

    assert!(loaded.zones.covers(name("www.corp.test").as_ref()) && loaded.zones.len() == 1);
    assert_eq!(loaded.events.file, None);
    match &loaded.alerts[0].kind {
        AlertSinkKind::Webhook { secret: Some(secret), .. } => {
            assert_eq!(secret.expose(), b"0123456789abcdef0123456789abcdef");
            assert!(!format!("{loaded:?}").contains("0123456789abcdef"), "keys are never shown");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(loaded.alerts[1].kind, AlertSinkKind::Syslog { target: SyslogTarget::Unix("/dev/log".into()) });
    assert_eq!(loaded.alerts[2].kind, AlertSinkKind::File { path: "/srv/staunch/alerts.jsonl".into() });

    // The digest follows what is in force, lists included, and nothing else.
    let digest = |_: ()| load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}")).0.digest().to_owned();
    let before = digest(());
    assert_eq!((before.len(), before.as_str()), (64, loaded.digest()));
    write("policy.toml", &format!("# a comment\n{text}"));
    assert_eq!(digest(()), before);
    write("hosts.txt", "0.0.0.0 one.example three.example\n");
    let changed_list = digest(());
    assert_ne!(changed_list, before);
    write("policy.toml", &text.replace("sinkhole = 3.5", "sinkhole = 3.4"));
    assert_ne!(digest(()), changed_list);
}

#[test]
fn what_private_timing_cannot_hide_is_told() {
    let told = |answer: &str, validate: bool| {
        let text = format!("version = 1\n[answer]\nprivate_timing = true\n{answer}\n[dnssec]\nvalidate = {validate}\n");
        let (_, warnings) = good(&text);
        warnings.iter().filter(|w| w.field == "answer.private_timing").map(|w| w.line).collect::<Vec<_>>()
    };
    assert_eq!(told("", true), [3]);
    assert_eq!(told("cache_shared_by = \"group\"", true), [3]);
    assert!(told("cache_shared_by = \"session\"", true).is_empty());
    assert!(told("", false).is_empty());
}

#[test]
fn leave_to_show_what_is_public_is_told_to_do_nothing() {
    let text = r#"version = 1
[server]
listen = ["203.0.113.53:53"]
[upstream]
servers = ["192.0.2.53"]
[[answer.allow_range]]
name = "*.corp.example"
ranges = ["10.20.0.0/16", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:7::/48"]
owner = "net-team"
reason = "internal wiki"
review_by = "2027-06-01"
"#;
    let told = |text: &str| {
        let (_, warnings) = good(text);
        let about = warnings.iter().filter(|w| w.field.starts_with("answer."));
        about.map(|w| (w.line, w.field.clone(), w.problem.contains("is public"))).collect::<Vec<_>>()
    };
    let of = |at: usize| (8, format!("answer.allow_range[0].ranges[{at}]"), true);
    assert_eq!(told(text), [of(1), of(3)], "the third holds an address of our own");
    let translated = "[answer]\nnat64_prefixes = [\"2001:db8:7::/96\"]\n[[answer.allow_range]]";
    let told = told(&text.replace("[[answer.allow_range]]", translated));
    assert!(told.len() == 1 && told[0].1.ends_with("[1]"), "the fourth may lead inside: {told:?}");
}

#[test]
fn written_ranges_that_do_not_fit_are_a_mistake() {
    let ranges = |count: u32, more: &str| {
        let each: Vec<_> = (0..count).map(|n| format!("\"10.{}.{}.0/24\"", n / 256, n % 256)).collect();
        format!(
            "version = 1\n[[range]]\nid = \"many\"\nranges = [{}, \"2001:db8::/64\"]\nports = [\"tcp/22\"]\nowner = \"o\"\n\
             reason = \"r\"\nreview_by = \"2027-06-01\"\n{more}",
            each.join(", ")
        )
    };
    // Each counts twice, for each of sixteen kinds of sessions or of a profile's four.
    for (most, more) in [(256, ""), (1024, "profiles = [\"batch\"]\n")] {
        good(&ranges(most, more));
        let errors = read(&ranges(most + 1, more)).map(drop).expect_err("too many");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("range[0].ranges") && errors[0].contains("takes 8192 elements"), "{errors:?}");
        // What has ended stands in no packet filter.
        read(&ranges(most + 1, &format!("{more}expires = \"2026-01-01\"\n"))).expect("none of them is open");
    }
}
