//! `staunch capacity`: what a policy permits, as a table or as JSON.

use std::fmt::Write;
use std::path::Path;

use super::Exit;
use super::verbs::{config_errors, say};
use crate::capacity::{self, Assumptions, Capacity, ProfileCapacity};
use crate::config::{self, Environment};

/// Works out the policy of `file`, or the built-in one, and prints it. Without `floor_seconds` the policy's own floor
/// counts.
pub fn run(file: Option<&Path>, floor_seconds: Option<f64>, jitter_ms: f64, json: bool) -> Exit {
    let environment = Environment { checking: true, ..Environment::system() };
    let loaded = match file {
        Some(file) => match config::load_in(file, &environment) {
            Ok((loaded, _)) => loaded,
            Err(errors) => return config_errors(&errors, json),
        },
        None => config::defaults_in(&environment),
    };
    // Without a cache nothing is there to answer a repeat from.
    let kept = loaded.answer.cache_entries > 0;
    let configured = if kept { loaded.answer.repeats.floor.as_secs_f64() } else { 0.0 };
    let floor_seconds = floor_seconds.unwrap_or(configured);
    let assumptions = Assumptions { floor_seconds, jitter_ms };
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
    let Assumptions { floor_seconds, jitter_ms } = capacity.assumptions;
    let floor = match floor_seconds > 0.0 {
        true => format!("a name and type is forwarded once in {floor_seconds} s"),
        false => "there is no floor, so a name and type is forwarded as often as it is asked".into(),
    };
    let mut out = format!(
        "Bits that one session can tell the outside, by the parts below. Once: what ledgers hold, in all of a session. \
         Hourly: what comes again each hour.\nAssumed: {floor}, and its arrival is known to {jitter_ms} ms. Allowances \
         given at run time are not counted.\n"
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
        line(format!("  {:<42} {:>10.0} {:>10}  {}", part.what, part.once_bits, hourly(part.hourly_bits), part.how));
    }
    line(format!("  {:<42} {:>10.0} {:>10}", "in all", profile.once_bits, hourly(profile.hourly_bits)));
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
            "  {what:<42} {:>10.0} {:>10}  without it {:.0} once and {} hourly less; {}",
            rule.once_bits,
            hourly(rule.hourly_bits),
            rule.saves_once_bits,
            hourly(rule.saves_hourly_bits),
            shown(&rule.forms)
        ));
    }
    let types: Vec<_> = profile
        .types
        .iter()
        .filter(|of| of.adds_hourly_bits > 0.0)
        .map(|of| format!("{} {}", of.qtype, hourly(of.adds_hourly_bits)))
        .collect();
    if !types.is_empty() {
        line(format!("  each type adds hourly: {}", types.join(", ")));
    }
}

/// An hourly figure, which nothing may limit.
fn hourly(bits: f64) -> String {
    if bits.is_finite() { format!("{bits:.0}") } else { "unbounded".into() }
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
            keep_tables: false,
            checking: false,
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
