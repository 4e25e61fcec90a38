//! The configuration: either it loads, the same each time, or every mistake says where it is and what to do.

use std::path::Path;

use staunch::config::{self, ConfigError, Environment, Loaded, Warning};

/// A directory that is not there, so that nothing that the text names is read by chance.
const FILE: &str = "/nonexistent/staunch.toml";

/// Takes the text of a configuration.
pub fn run(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    // What lies on this machine is no part of what is tried.
    if ["/dev", "/proc", "/sys", "/etc", "/tmp", "/run", "/var", "/home", "/root", "/usr"]
        .iter()
        .any(|dir| text.contains(dir))
    {
        return;
    }
    match (load(text), load(text)) {
        (Ok((loaded, warnings)), Ok((again, _))) => {
            assert_eq!(loaded.digest(), again.digest());
            for warning in warnings {
                placed(text, &warning.file, warning.line, &warning.field, &warning.problem, &warning.remedy);
            }
        }
        (Err(errors), Err(again)) => {
            assert!(!errors.is_empty(), "refused without a reason");
            assert_eq!(errors, again);
            for error in errors {
                assert!(error.to_string().starts_with(&error.file));
                placed(text, &error.file, error.line, &error.field, &error.problem, &error.remedy);
            }
        }
        _ => panic!("loads once and not again"),
    }
}

fn load(text: &str) -> Result<(Loaded, Vec<Warning>), Vec<ConfigError>> {
    let environment = Environment {
        resolv_conf: Some("nameserver 192.0.2.53\n".into()),
        state_home: "/nonexistent/state".into(),
        state_dir: None,
        wall: 1_800_000_000_000,
        entropy: [7; 24],
        keep_tables: false,
        checking: false,
    };
    config::load_text(Path::new(FILE), text, &environment)
}

/// A mistake names its file, a line that is there, and a remedy. Only a field that is nowhere in the file has no line.
fn placed(text: &str, file: &str, line: u32, field: &str, problem: &str, remedy: &str) {
    assert!(!problem.is_empty() && !remedy.is_empty(), "{file}:{line}: {field}");
    if file != FILE {
        assert!(!file.is_empty(), "{problem}");
        return;
    }
    let lines = 1 + text.matches('\n').count() as u32;
    assert!(line <= lines, "line {line} of {lines}: {problem}");
    if line == 0 {
        let section = field.split(['.', '[']).next().unwrap_or_default();
        assert!(!section.is_empty() && !written(text, section), "no line: {field}: {problem}");
    }
}

/// Whether a section stands in the text, however it is written.
fn written(text: &str, section: &str) -> bool {
    text.lines().any(|line| line.trim_start_matches(['[', ' ', '\t', '"', '\'']).starts_with(section))
}
