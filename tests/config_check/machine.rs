//! What stands in the way of a start although every field is right: sockets in each other's way, groups, secrets.

use super::*;

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
