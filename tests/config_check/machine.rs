//! What stands in the way of a start although every field is right: sockets in each other's way, groups, secrets.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn sockets_that_cannot_all_be_opened_are_mistakes() {
    for (server, field, problem) in [
        ("listen = [\"0.0.0.0:53\", \"127.0.0.1:53\"]", "server.listen[1]", "127.0.0.1:53 and 0.0.0.0:53"),
        ("listen = [\"[fd00::1]:53\", \"[::]:53\"]", "server.listen[1]", "[::]:53 and [fd00::1]:53"),
        ("listen = [\"10.0.0.1:53\", \"10.0.0.1:53\"]", "server.listen[1]", "stands here twice"),
        ("listen = [\"[::ffff:10.0.0.1]:53\"]", "server.listen[0]", "written as IPv6"),
        ("listen = [\"127.0.0.1:9153\"]", "server.listen[0]", "the address of server.metrics, too"),
        ("listen = [\"0.0.0.0:9153\"]", "server.listen[0]", "127.0.0.1:9153 of server.metrics"),
        ("listen = [\"[::]:99\"]\nmetrics = \"[::1]:99\"", "server.listen[0]", "[::1]:99 of server.metrics"),
        ("listen = [\"10.0.0.1:53\"]\nnotify_listen = [\"10.0.0.1:53\"]", "server.notify_listen[0]", "server.listen"),
        (
            "listen = [\"10.0.0.1:53\"]\nnotify_listen = [\"0.0.0.0:53\"]",
            "server.notify_listen[0]",
            "and 10.0.0.1:53 of",
        ),
        // This one takes IPv4 as well.
        ("listen = [\"10.0.0.1:53\"]\nnotify_listen = [\"[::]:53\"]", "server.notify_listen[0]", "and 10.0.0.1:53 of"),
        ("notify_listen = [\"10.0.0.1:54\", \"10.0.0.1:54\"]", "server.notify_listen[1]", "stands here twice"),
        ("notify_listen = [\"127.0.0.1:9153\"]", "server.notify_listen[0]", "server.metrics"),
    ] {
        let text = format!("version = 1\n[server]\n{server}\n");
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).map(drop).expect_err(&text);
        let [error] = &errors[..] else { panic!("{errors:#?}") };
        let line = 3 + u32::from(server.starts_with("listen") && field.contains("notify"));
        assert_eq!((error.line, error.field.as_str()), (line, field), "{error}");
        assert!(error.problem.contains(problem) && !error.remedy.is_empty(), "{error}");
    }
    for server in [
        // Those that serve take one family each.
        "listen = [\"0.0.0.0:53\", \"[::]:53\"]",
        "listen = [\"[::]:9153\"]",
        "listen = [\"10.0.0.1:53\", \"10.0.0.2:53\", \"0.0.0.0:5300\", \"[fe80::1%1]:53\", \"[fe80::1%2]:53\"]",
        "listen = [\"127.0.0.1:9153\"]\nmetrics = \"off\"",
        "listen = [\"0.0.0.0:53\"]\nnotify_listen = [\"0.0.0.0:5353\"]",
        "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"",
    ] {
        good(&format!("version = 1\n[server]\n{server}\n"));
    }
}

#[test]
fn a_port_that_nobody_would_know_is_told_of() {
    let text = "version = 1\n[server]\nlisten = [\"10.0.0.1:53\", \"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\n\
                notify_listen = [\"10.0.0.1:0\"]\n[[rpz]]\nname = \"a.test\"\nprimaries = [\"192.0.2.53\"]\n";
    let (_, warnings) = good(text);
    let told: Vec<_> = warnings.iter().filter(|w| w.problem.contains("port 0")).map(|w| w.field.as_str()).collect();
    assert_eq!(told, ["server.listen[1]", "server.metrics", "server.notify_listen[0]"], "{warnings:#?}");
}

#[test]
fn a_zone_of_others_that_lies_in_an_own_zone_is_told_of() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("corp.zone");
    std::fs::write(&file, "$ORIGIN corp.test.\n@ 60 IN SOA ns h 1 1 1 1 60\n@ 60 IN NS ns\n").expect("written");
    let mut text = format!("version = 1\n[[zone]]\nname = \"corp.test\"\nfile = {file:?}\n");
    for zone in ["Corp.test", "a.b.corp.test", "test", "notcorp.test"] {
        text += &format!(
            "[[forward]]\nzone = \"{zone}\"\nservers = [\"192.0.2.53\"]\nowner = \"net\"\nreason = \"ours\"\n\
             review_by = \"2099-01-01\"\n"
        );
    }
    let (_, warnings) = good(&text);
    let told = warnings.iter().filter(|w| w.problem.contains("your zone `corp.test`"));
    assert_eq!(
        told.map(|w| w.field.as_str()).collect::<Vec<_>>(),
        ["forward[0].zone", "forward[1].zone"],
        "{warnings:#?}"
    );
}

#[test]
fn a_canary_without_a_share_says_which_one_it_takes() {
    let text = "version = 1\n[policy]\nmode = \"canary\"\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"a0\"]\n\
                [upstream]\nservers = [\"192.0.2.53\"]\n";
    let (loaded, warnings) = good(text);
    let told: Vec<_> = warnings.iter().map(|w| (w.line, w.field.as_str())).collect();
    assert_eq!((loaded.policy.canary_percent, &told[..]), (10, &[(2, "policy.canary_percent")][..]));
    assert!(warnings[0].problem.contains("10 per cent") && warnings[0].remedy.contains("canary_percent = 10"));
    let (_, warnings) = good(&text.replace("\"canary\"\n", "\"canary\"\ncanary_percent = 10\n"));
    assert_eq!(warnings, []);
}

#[test]
fn whoever_looks_at_a_file_is_told_of_groups_and_credentials_of_elsewhere() {
    let looking = Environment { checking: true, ..environment() };
    let look = |text: &str| load_text(Path::new("policy.toml"), text, &looking);
    let fields = |warnings: &[Warning]| warnings.iter().map(|w| w.field.clone()).collect::<Vec<_>>();
    let group = "version = 1\n[server]\nadmin_group = \"no-such-group\"\n";
    let (_, warnings) = look(group).expect("loads");
    assert_eq!(fields(&warnings), ["server.admin_group"]);
    assert!(warnings[0].problem.contains("no group `no-such-group`"), "{}", warnings[0]);
    for there in ["root", "4711"] {
        assert_eq!(look(&group.replace("no-such-group", there)).expect("loads").1, []);
    }
    assert_eq!(good(group).1, [], "the service says it at its start");
    for (field, name) in [("enforcer_group", "no-such-group"), ("resolver_user", "no-such-user")] {
        let text = |name: &str| format!("version = 1\n[enforce]\n{field} = \"{name}\"\n");
        let (_, warnings) = look(&text(name)).expect("loads");
        assert_eq!(fields(&warnings), [format!("enforce.{field}")]);
        assert!(warnings[0].problem.contains(name), "{}", warnings[0]);
        assert_eq!(look(&text("root")).expect("loads").1, []);
        assert_eq!(good(&text(name)).1, [], "the enforcer says it at its start");
    }
    let anchors = "version = 1\n[dnssec]\ntrust_anchors = \"no-such-file\"\n";
    let (_, warnings) = look(anchors).expect("loads: nothing needs it");
    assert_eq!(fields(&warnings), ["dnssec.trust_anchors"]);
    assert!(warnings[0].problem.contains("no-such-file cannot be read"), "{}", warnings[0]);
    assert_eq!(good(anchors).1, []);
    // A directory of before, which is its owner's alone.
    let (dir, closed) = (tempfile::tempdir().expect("directory"), group.replace("no-such-group", "4711"));
    let within = format!("{closed}admin_socket = \"{}/admin.sock\"\n", dir.path().display());
    let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).expect("set");
    mode(0o700);
    let (_, warnings) = look(&within).expect("loads");
    assert_eq!(fields(&warnings), ["server.admin_group"]);
    assert!(
        warnings[0].problem.contains("may not pass") && warnings[0].remedy.contains("chgrp 4711"),
        "{}",
        warnings[0]
    );
    mode(0o711);
    assert_eq!(look(&within).expect("loads").1, []);

    let alert = "version = 1\n[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"https://soc.example/\"\n\
                 secret_file = \"/run/credentials/no-such-unit.service/hmac.key\"\n";
    let zone = "[[rpz]]\nname = \"a.test\"\nprimaries = [\"192.0.2.53\"]\ntsig = { name = \"t\", algorithm = \"hmac-sha256\", \
                secret_file = \"/run/credentials/no-such-unit.service/rpz.key\" }\n";
    let (_, warnings) = look(&format!("{alert}{zone}")).expect("loads");
    assert_eq!(fields(&warnings), ["alert[0].secret_file", "rpz[0].tsig.secret_file"]);
    assert!(warnings[0].remedy.contains("LoadCredential="), "{}", warnings[0]);
    // Whoever runs by it needs them, and what lies elsewhere is needed by everybody.
    let errors = read(alert).map(drop).expect_err("no secret");
    assert!(errors[0].contains("alert[0].secret_file") && errors[0].contains("cannot be read"), "{errors:?}");
    assert!(look(&alert.replace("/run/credentials/no-such-unit.service/", "/nonexistent/")).is_err());
}

#[test]
fn two_that_write_one_file_are_a_mistake() {
    let alert = |name: &str, path: &str| format!("[[alert]]\nname = \"{name}\"\nkind = \"file\"\npath = \"{path}\"\n");
    let events = |file: &str| format!("[events]\nfile = \"{file}\"\n");
    for (text, field, problem) in [
        (events("node.key"), "events.file", "`node.key` in the state directory is the service's own"),
        (events("./x/../node.pub"), "events.file", "`node.pub`"),
        (events("../staunch/journal-000001.jsonl"), "events.file", "`journal-000001.jsonl`"),
        (events("/home/user/.local/state/staunch/lists/key"), "events.file", "`lists`"),
        (events("admin.sock"), "events.file", "server.admin_socket"),
        ("[enforce]\nlease_journal = \"trust-anchors\"\n".into(), "enforce.lease_journal", "`trust-anchors`"),
        (alert("a", "index/db"), "alert[0].path", "`index`"),
        (
            events("a.jsonl") + "[enforce]\nlease_journal = \"b/../a.jsonl\"\n",
            "enforce.lease_journal",
            "the file of events.file, too",
        ),
        (alert("a", "x") + &alert("b", "x"), "alert[1].path", "the file of alert[0].path, too"),
        (events("a.jsonl") + &alert("a", "a.jsonl.3"), "alert[0].path", "in the way of events.file"),
        (
            "[server]\nadmin_socket = \"/run/x.sock\"\n".to_owned() + &events("/run/x.sock"),
            "events.file",
            "server.admin_socket",
        ),
    ] {
        let text = format!("version = 1\n{text}");
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).map(drop).expect_err(&text);
        let [error] = &errors[..] else { panic!("{errors:#?}") };
        assert_eq!(error.field, field, "{error}");
        assert!(error.problem.contains(problem) && !error.remedy.is_empty(), "{error}");
    }
    // By whatever way they get there.
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("real")).expect("made");
    std::os::unix::fs::symlink("real", dir.path().join("link")).expect("linked");
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    let text = format!("version = 1\n[server]\nstate_dir = {link:?}\n[events]\nfile = {:?}\n", real.join("lists/x"));
    let told = read(&text).map(drop).expect_err("the service's own");
    assert!(told.len() == 1 && told[0].contains("`lists` in the state directory"), "{told:?}");
    for text in [
        events("/dev/stdout") + &alert("a", "/dev/stdout"),
        events("index.jsonl") + &alert("a", "index.jsonl.old"),
        alert("a", "x.1") + &alert("b", "x"),
    ] {
        good(&format!("version = 1\n{text}"));
    }
}

#[test]
fn what_stands_where_something_else_is_meant_is_told_before_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (folder, file) = (dir.path().join("folder"), dir.path().join("file"));
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(&file, "").expect("written");
    for (text, field, problem) in [
        (format!("[server]\nstate_dir = {file:?}\n"), "server.state_dir", "is a file"),
        ("[server]\nstate_dir = \"a\\u0000b\"\n".into(), "server.state_dir", "NUL"),
        (format!("[server]\nadmin_socket = {folder:?}\n"), "server.admin_socket", "is a directory"),
        (format!("[events]\nfile = {folder:?}\n"), "events.file", "is a directory"),
    ] {
        let text = format!("version = 1\n{text}");
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).map(drop).expect_err(&text);
        let [error] = &errors[..] else { panic!("{errors:#?}") };
        assert_eq!((error.line, error.field.as_str()), (3, field), "{error}");
        assert!(error.problem.contains(problem) && !error.remedy.is_empty(), "{error}");
    }
    // Here alone, perhaps: where the service runs it may be there.
    for (program, problem) in
        [("/no/such/hook".into(), Some("No such file")), (file, Some("may not be executed")), ("/bin/sh".into(), None)]
    {
        let text = format!("version = 1\n[enforce]\nbackend = \"hook\"\nhook = [{program:?}]\n");
        let (_, warnings) = good(&text);
        let told = warnings.iter().find(|warning| warning.field == "enforce.hook[0]");
        assert_eq!(told.is_some(), problem.is_some(), "{warnings:#?}");
        assert!(told.is_none_or(|told| told.problem.contains(problem.unwrap_or_default())), "{told:?}");
    }
}

#[test]
fn an_id_of_a_source_that_nobody_announced_is_a_mistake_before_the_start() {
    for id in ["unannounced:10.0.0.9", "unknown"] {
        let text = format!("version = 1\n[[session]]\nid = \"{id}\"\naddresses = [\"10.0.0.9\"]\ntype = \"batch\"\n");
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).map(drop).expect_err(id);
        let [error] = &errors[..] else { panic!("{errors:#?}") };
        assert_eq!((error.line, error.field.as_str()), (3, "session[0].id"), "{error}");
        assert!(error.problem.contains("nobody announced") && error.remedy.contains("addresses"), "{error}");
    }
}
