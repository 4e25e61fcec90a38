//! Every mistake of a policy file is told by its line, its field and its remedy.

mod answering;
mod asking;
mod enforcing;
mod naming;

use std::path::Path;

use staunch::config::load_text;

use super::environment;

/// A file, and for each mistake in it: line, field, part of the problem, part of the remedy.
type Case = (&'static str, &'static [(u32, &'static str, &'static str, &'static str)]);

#[test]
fn every_mistake_is_told_by_line_field_and_remedy() {
    let cases = [asking::CASES, enforcing::CASES, answering::CASES, naming::CASES].concat();
    for (text, expected) in cases {
        let errors = load_text(Path::new("dir/policy.toml"), text, &environment()).err().unwrap_or_default();
        let told: Vec<_> = errors.iter().map(|e| (e.line, e.field.as_str())).collect();
        let wanted: Vec<_> = expected.iter().map(|(line, field, ..)| (*line, *field)).collect();
        assert_eq!(told, wanted, "{text}\n{errors:#?}");
        for (error, (line, field, problem, remedy)) in errors.iter().zip(expected) {
            assert_eq!(error.file, "dir/policy.toml");
            assert!(error.problem.contains(problem), "{text}\n{error}");
            assert!(error.remedy.contains(remedy), "{text}\n{error}");
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("dir/policy.toml:{line}: {field}")), "{shown}");
        }
    }
}
