//! `staunch capacity`: what a policy permits, as a table or as JSON.

use std::fmt::Write;
use std::path::Path;

use super::Exit;
use super::verbs::{config_errors, say};
use crate::capacity::{self, Assumptions, Capacity, ProfileCapacity};
use crate::config::{self, Environment};

/// Works out the policy of `file`, or the built-in one, and prints it.
pub fn run(file: Option<&Path>, assumptions: Assumptions, json: bool) -> Exit {
    let environment = Environment::system();
    let loaded = match file {
        Some(file) => match config::load_in(file, &environment) {
            Ok((loaded, _)) => loaded,
            Err(errors) => return config_errors(&errors, json),
        },
        None => config::defaults_in(&environment),
    };
    let capacity = capacity::of(&loaded.profiles, &loaded.lists, environment.wall, assumptions);
    if json {
        // Plain numbers, texts and lists: there is nothing that could fail to be written.
        say(&serde_json::to_string(&capacity).unwrap_or_default());
    } else {
        say(table(&capacity).trim_end());
    }
    Exit::Ok
}

/// The figures in words.
fn table(capacity: &Capacity) -> String {
    let mut out = format!(
        "At most so many bits can one session tell the outside. Once: what ledgers hold, in all of a session. Hourly: \
         what comes again each hour.\nAssumed: a name and type is forwarded every {} s at most, its arrival is known to \
         {} ms. Allowances given at run time are not counted.\n",
        capacity.assumptions.floor_seconds, capacity.assumptions.jitter_ms
    );
    for profile in &capacity.profiles {
        one(&mut out, profile);
    }
    out
}

fn one(out: &mut String, profile: &ProfileCapacity) {
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(String::new());
    let like =
        if profile.session == profile.profile { String::new() } else { format!(" (profile {})", profile.profile) };
    line(format!("{:<44} {:>10} {:>10}", format!("{}{like}", profile.session), "once", "hourly"));
    for part in &profile.parts {
        line(format!("  {:<42} {:>10.0} {:>10.0}  {}", part.what, part.once_bits, part.hourly_bits, part.how));
    }
    line(format!("  {:<42} {:>10.0} {:>10.0}", "in all", profile.once_bits, profile.hourly_bits));
    line(format!(
        "  one reader: {:.0} by an unlisted tenant, {:.0} by an unlisted domain; of that by repeats {:.0} and {:.0} an \
         hour; a group {:.0} in 24 hours",
        profile.unlisted_tenant_bits,
        profile.unlisted_icann_bits,
        profile.repeats.tenant_bits,
        profile.repeats.tenant_hourly_bits,
        profile.group_day_bits
    ));
    for rule in &profile.rules {
        let what = format!("rule {} ({}:{})", rule.id, rule.file, rule.line);
        line(format!(
            "  {what:<42} {:>10.0} {:>10.0}  without it {:.0} once and {:.0} hourly less; {}",
            rule.once_bits,
            rule.hourly_bits,
            rule.saves_once_bits,
            rule.saves_hourly_bits,
            shown(&rule.forms)
        ));
    }
    let types: Vec<_> = profile
        .types
        .iter()
        .filter(|of| of.adds_hourly_bits > 0.0)
        .map(|of| format!("{} {:.0}", of.qtype, of.adds_hourly_bits))
        .collect();
    if !types.is_empty() {
        line(format!("  each type adds hourly: {}", types.join(", ")));
    }
}

/// The first few of a rule's names.
fn shown(forms: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = forms.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if forms.len() > SHOWN {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {} more", forms.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_table_names_every_part_rule_and_type() {
        let environment = Environment {
            resolv_conf: Some("nameserver 192.0.2.53\n".into()),
            state_home: PathBuf::from("/var/lib"),
            state_dir: None,
            wall: 1_795_132_800_000,
            entropy: [3; 24],
        };
        let text = "version = 1\n[[rule]]\nid = \"hosts\"\naction = \"allow\"\nnames = [\"=a.example.org\", \"*.b.example.org\"]\n\
                    budget_bits = 512\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n";
        let (loaded, _) = config::load_text(Path::new("p.toml"), text, &environment).expect("loads");
        let capacity = capacity::of(&loaded.profiles, &loaded.lists, environment.wall, Assumptions::default());
        let table = table(&capacity);
        for wanted in [
            "\ninteractive ",
            "\nunannounced ",
            "  unlisted names                                  32768          0  session budget",
            "  names below rules                                 512          0",
            "  names of packs                                  73728",
            "rule hosts (p.toml:5)",
            "without it 512 once",
            "=a.example.org, *.b.example.org",
            "each type adds hourly: A ",
            "a group 65536 in 24 hours",
        ] {
            assert!(table.contains(wanted), "no `{wanted}` in\n{table}");
        }
        assert_eq!(table.matches("\nbatch ").count(), 1, "phases that say nothing are not repeated");
    }
}
