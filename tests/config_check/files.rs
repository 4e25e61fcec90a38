//! Files that a policy names: zones, lists, trust anchors.

use super::*;

#[test]
fn policy_zones_are_read_in_their_order_and_their_mistakes_told_by_their_lines() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect(file);
    let head = "$TTL 60\n@ SOA . . 7 1 1 1 1\n";
    write("first.zone", &format!("{head}a.example CNAME .\n"));
    write("third.zone", &format!("{head}x.rpz-nsip CNAME .\na.example CNAME .\n"));
    write("key", "c2l4dGVlbiBvciBtb3JlIG9jdGV0cw==\n");
    std::fs::set_permissions(dir.path().join("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let path = dir.path().join("policy.toml");
    let load = |text: &str| {
        write("policy.toml", text);
        load_in(&path, &environment())
    };
    let text = "version = 1\n[server]\nnotify_listen = [\"192.0.2.1:5353\"]\n\
        [[rpz]]\nname = \"first.test\"\nfile = \"first.zone\"\npolicy = \"cname\"\ncname = \"*.garden.test\"\nede = \"filtered\"\n\
        [[rpz]]\nname = \"second.test.\"\nprimaries = [\"192.0.2.53\", \"[2001:db8::53]:5353\", \"tls://192.0.2.54#primary.example\"]\nrequired = true\non_expire = \"disable\"\n\
        tsig = { name = \"Transfer.\", algorithm = \"HMAC-SHA512\", secret_file = \"key\" }\n\
        [[rpz]]\nname = \"third.test\"\nfile = \"third.zone\"\nunsupported = \"ignore\"\nlog = false\n\
        [[rpz]]\nname = \"off.test\"\nfile = \"first.zone\"\nenabled = false\n";
    let (loaded, warnings) = load(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let names: Vec<_> = loaded.rpz.iter().map(|zone| zone.settings.id.to_string()).collect();
    assert_eq!(names, ["first.test", "second.test", "third.test"]);
    assert_eq!(loaded.rpz[0].settings.policy, Override::Cname(name("*.garden.test")));
    assert_eq!((loaded.rpz[0].settings.ede, loaded.rpz[2].settings.log), (Ede::Filtered, false));
    let Source::Primaries(primaries) = &loaded.rpz[1].source else { panic!("{:?}", loaded.rpz[1]) };
    let address = |n: usize| (primaries.servers[n].address.to_string(), primaries.servers[n].tls.is_some());
    assert_eq!(address(1), ("[2001:db8::53]:5353".into(), false));
    assert_eq!(address(2), ("192.0.2.54:853".into(), true));
    assert_eq!(primaries.servers[2].to_string(), "tls://192.0.2.54:853#primary.example");
    assert!(primaries.required && !primaries.keep_expired && primaries.tsig.is_some());
    assert_eq!(loaded.notify_listen, ["192.0.2.1:5353".parse().expect("address")]);
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|warning| warning.starts_with("third.zone: 1 records")), "{told:?}");

    let mut errors = load(&text.replace("\"ignore\"", "\"refuse\"")).expect_err("refused");
    let error = errors.pop().expect("one");
    assert_eq!((error.file.as_str(), error.line, errors.len()), ("third.zone", 3, 0));
    assert!(error.problem.contains("rpz-nsip") && error.remedy.contains("remove it"), "{error}");
    // What a zone says is part of what is in force.
    let digest = loaded.digest().to_owned();
    write("first.zone", &format!("{head}b.example CNAME .\n"));
    assert_ne!(load(text).unwrap_or_else(|errors| panic!("{errors:#?}")).0.digest(), digest);
}

#[test]
fn a_pipe_in_a_files_place_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().expect("directory");
    let pipe = dir.path().join("file");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let path = dir.path().join("policy.toml");
    for (table, there) in [
        ("[[list]]\nid = \"l\"\npath = \"file\"\nformat = \"domains\"\n", "a.example\n"),
        ("[[rpz]]\nname = \"z.test\"\nfile = \"file\"\n", "@ 60 SOA . . 7 1 1 1 1\n"),
    ] {
        let text = format!("version = 1\n{table}");
        std::fs::write(&path, &text).expect("written");
        let (path, (done, waited)) = (path.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || drop(done.send(load_in(&path, &environment()).map(|_| ()))));
        let outcome = waited.recv_timeout(std::time::Duration::from_secs(10)).expect("it does not wait");
        let errors = outcome.expect_err(table);
        assert!(errors.iter().any(|error| error.problem.contains("not a regular file")), "{errors:?}");
        // The same words and a file.
        std::fs::write(dir.path().join("there"), there).expect("written");
        std::fs::write(dir.path().join("policy.toml"), text.replace("\"file\"", "\"there\"")).expect("written");
        load_in(&dir.path().join("policy.toml"), &environment()).unwrap_or_else(|errors| panic!("{errors:#?}"));
    }
}

#[test]
fn own_lists_that_leave_a_shipped_one_out_are_told_of() {
    let (_, warnings) = good("version = 1\n[[list]]\nid = \"d\"\npath = \"builtin:doh-resolvers\"\n");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].problem.contains("tunnel-services"), "{}", warnings[0]);
}

#[test]
fn a_list_that_is_to_be_fetched_loads_without_a_copy_and_says_so() {
    let text = "version = 1\n[[list]]\nid = \"doh-resolvers\"\nurl = \"https://lists.example/doh?key=secret\"\n\
                [[list]]\nid = \"tunnel-services\"\nurl = \"http://192.0.2.7:8080/tunnels\"\nrefresh_hours = 6\n";
    let (loaded, warnings) = good(text);
    assert!(warnings.len() == 2 && warnings.iter().all(|w| w.problem == "not fetched yet"), "{warnings:?}");
    assert!(warnings.iter().all(|w| !w.to_string().contains("secret")), "{warnings:?}");
    let hours: Vec<_> = loaded.feeds.sources.iter().map(|s| (s.id.as_str(), s.refresh.as_secs() / 3600)).collect();
    assert_eq!(hours, [("doh-resolvers", 24), ("tunnel-services", 6)]);
    assert!(loaded.lists.deny.is_empty());
}

#[test]
fn a_format_that_is_not_written_is_told_by_the_first_lines() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("policy.toml");
    std::fs::write(dir.path().join("hosts.txt"), "0.0.0.0 a.example\n").expect("written");
    let text = "version = 1\n[[list]]\nid = \"l\"\npath = \"hosts.txt\"\n";
    std::fs::write(&path, text).expect("written");
    let (loaded, _) = load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}"));
    let said = loaded.assumptions().iter().any(|said| said.starts_with("List l is read as hosts"));
    assert!(said && loaded.list_reports[0].detected, "{:?}", loaded.assumptions());
    std::fs::write(&path, format!("{text}format = \"hosts\"\n")).expect("written");
    let (loaded, _) = load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}"));
    assert!(!loaded.list_reports[0].detected);
    assert!(loaded.assumptions().iter().all(|said| !said.contains("List l")), "{:?}", loaded.assumptions());
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_like_any_other() {
    let dir = tempfile::tempdir().expect("directory");
    let errors = load_in(&dir.path().join("none.toml"), &environment()).expect_err("not there");
    assert!(errors[0].line == 0 && errors[0].problem.contains("cannot be read"), "{}", errors[0]);
    let errors = load_in(dir.path(), &environment()).expect_err("a directory");
    assert!(errors[0].problem.contains("not a regular file"), "{}", errors[0]);
    let file = dir.path().join("latin1.toml");
    std::fs::write(&file, b"version = 1\n# caf\xe9\n").expect("write");
    let errors = load_in(&file, &environment()).expect_err("not UTF-8");
    assert_eq!((errors[0].line, errors[0].problem.as_str()), (2, "not UTF-8"));
}

#[test]
fn mistakes_in_a_local_zone_are_told_by_its_own_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let (policy, zone) = (dir.path().join("policy.toml"), dir.path().join("corp.zone"));
    std::fs::write(&policy, "version = 1\n[[zone]]\nname = \"corp.test\"\nfile = \"corp.zone\"\n").expect("written");
    const GOOD: &[u8] = b"@ 60 IN SOA ns hostmaster 1 60 60 60 60\nwww 60 IN A 192.0.2.1\n";
    for (more, line, problem) in [
        (&b"x 60 IN A 192.0.2.300\n"[..], 3, "IPv4 address"),
        (b"x 60 IN TXT \xff\n", 3, "not UTF-8"),
        (b"x 60 IN NS ns.elsewhere.test.\n", 0, "delegated away"),
    ] {
        std::fs::write(&zone, [GOOD, more].concat()).expect("written");
        let errors = load_in(&policy, &environment()).expect_err("a mistake");
        let told: Vec<_> = errors.iter().map(|e| (e.file.as_str(), e.line, e.problem.contains(problem))).collect();
        assert_eq!(told, [("corp.zone", line, true)], "{errors:?}");
        assert!(!errors[0].remedy.is_empty());
    }
    std::fs::write(&zone, GOOD).expect("written");
    assert!(load_in(&policy, &environment()).is_ok());
}

#[test]
fn trust_anchors_are_read_where_they_are_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("anchors.zone");
    let text = |validate| format!("version = 1\n[dnssec]\nvalidate = {validate}\ntrust_anchors = {path:?}\n");
    std::fs::write(&path, "; ours\ncorp.example. IN DS 4711 13 2 00ff\n").expect("written");
    let (with, _) = good(&text(true));
    assert!(with.dnssec.validate && with.dnssec.allow_cd);
    std::fs::write(&path, "corp.example. IN DS 4711 13 2 00fe\n").expect("written");
    let (other, _) = good(&text(true));
    assert_ne!(with.dnssec.anchors, other.dnssec.anchors);
    assert_ne!(with.digest(), other.digest(), "another file is another configuration");
    std::fs::write(&path, "\ncorp.example. IN DS 4711 5 2 00ff\n").expect("written");
    let told = read(&text(true)).expect_err("nothing can be checked by it").join("\n");
    assert!(told.contains("dnssec.trust_anchors") && told.contains("line 2") && told.contains("10, 13"), "{told}");
    // Whoever does not validate needs no file.
    assert_eq!(good(&text(false)).0.dnssec.anchors, good("version = 1\n").0.dnssec.anchors);
}
