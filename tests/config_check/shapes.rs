//! Mistakes of form: each is told with what is to be written there, and none of them gives rise to another.

use super::*;

/// Line, field and remedy of each mistake.
fn told(text: &str) -> Vec<(u32, String, String)> {
    let errors = load_text(Path::new("policy.toml"), text, &environment()).map(drop).expect_err(text);
    errors.into_iter().map(|error| (error.line, error.field, error.remedy)).collect()
}

#[track_caller]
fn one(text: &str, line: u32, field: &str, remedy: &str) {
    assert_eq!(told(text), [(line, field.to_owned(), remedy.to_owned())], "{text}");
}

#[test]
fn a_table_in_the_wrong_brackets_is_told_the_right_ones() {
    let rule = RULE.replace("[[rule]]", "[rule]");
    one(&format!("{rule}names = [\"=a.example\"]\n"), 2, "rule", "write `[[rule]]`");
    one("version = 1\n[[server]]\nlisten = [\"127.0.0.1:53\"]\n", 2, "server", "write `[server]`");
    one("version = 1\n[[policy]]\nmode = \"monitor\"\n", 2, "policy", "write `[policy]`");
    one("version = 1\n[[profile]]\nunlisted = \"score\"\n", 2, "profile", "write `[profile.batch]`");
    one(
        "version = 1\n[answer]\nprefetch = false\n[answer.allow_range]\nname = \"a.example\"\n",
        4,
        "answer.allow_range",
        "write `[[answer.allow_range]]`",
    );
    one("version = 1\nevents = []\n", 2, "events", "write `[events]`");
    good(
        "version = 1\n[[rule]]\nid = \"r\"\naction = \"deny\"\nnames = [\"=a.example\"]\nowner = \"o\"\nreason = \"r\"\n[server]\n",
    );
}

#[test]
fn a_value_of_another_type_is_told_what_goes_there() {
    one("version = \"1\"\n", 1, "version", "this release reads `version = 1`");
    one("version = 1\n[server]\nworkers = -1\n", 3, "server.workers", "write a whole number, 0 to 256");
    one("version = 1\n[server]\nworkers = \"two\"\n", 3, "server.workers", "write a whole number, 0 to 256");
    let canary = "version = 1\n[policy]\nmode = \"canary\"\ncanary_percent = 300\n[enforce]\nbackend = \"dry-run\"\n\
                  [upstream]\nservers = [\"192.0.2.53\"]\n";
    one(canary, 4, "policy.canary_percent", "write a whole number, 1 to 99");
    let params = "version = 1\n[profile.batch.params]\nwatch = \"low\"\n";
    one(params, 3, "profile.batch.params.watch", "write a number, 0.1 to 12");
    // One that has no limit but its type's.
    let volume = "version = 1\n[profile.batch.volume]\nwarn_bytes = -1\n";
    one(volume, 3, "profile.batch.volume.warn_bytes", "write a whole number, 0 or more");
    one("version = 1\n[age]\nrdap = true\n", 3, "age.rdap", "use `off` or `on`, in double quotes");
    let session = "version = 1\n[[session]]\nid = \"a\"\naddresses = [\"10.0.0.1\"]\ntype = \"bath\"\n";
    one(session, 5, "session[0].type", "use interactive, batch or scheduled");
    let day = format!("{RULE}names = [\"=a.example\"]\nreview_by = 2027-06-01\n");
    one(&day, 8, "rule[0].review_by", "write it in double quotes: \"2027-06-01\"");
    // A field that nobody knows is not told what else goes there.
    one("version = 1\n[server]\nlisted = 2027-06-01\n", 3, "server.listed", "did you mean `listen`?");
    let text = format!("{RULE}names = [\"=192.0.2.1\"]\n");
    let [(7, _, remedy)] = &told(&text)[..] else { panic!("{:?}", told(&text)) };
    assert!(remedy.contains("`[[range]]`") && remedy.contains("`[[answer.allow_range]]`"), "{remedy}");
}

#[test]
fn what_stands_in_for_a_wrong_value_is_not_judged() {
    for (section, wrong, field) in [
        ("profile.batch.budgets", "session = -5", "session"),
        ("profile.batch.budgets", "tenant_soft = 1e9", "tenant_soft"),
        ("profile.batch.budgets", "icann = \"none\"", "icann"),
        ("profile.batch.params", "sinkhole = 0", "sinkhole"),
        ("enforce", "max_pin_seconds = 0", "max_pin_seconds"),
        ("upstream", "total_timeout_ms = 0", "total_timeout_ms"),
    ] {
        let text = format!("version = 1\n[{section}]\n{wrong}\n");
        let told: Vec<_> = told(&text).into_iter().map(|(line, field, _)| (line, field)).collect();
        assert_eq!(told, [(3, format!("{section}.{field}"))], "{text}");
    }
    // What is within its limits is.
    let text = "version = 1\n[profile.batch.budgets]\nsession = 8\nicann = 16\n";
    assert!(told(text).iter().any(|(_, field, _)| field == "profile.batch.budgets.icann"));
}
