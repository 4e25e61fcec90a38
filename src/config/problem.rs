//! What is wrong with a configuration, so that it can be put right without asking anybody.

use std::fmt;

use serde::Serialize;

use super::document::{Document, Path};

/// A mistake: the configuration is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", render(file, *line, field, problem, remedy))]
pub struct ConfigError {
    /// The file, as given.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// Path of the field, such as `rule[0].names[2]`; empty where none is meant.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Something that should be looked at: the configuration is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The file, as given.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// Path of the field; empty where none is meant.
    pub field: String,
    /// What was seen.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(&self.file, self.line, &self.field, &self.problem, &self.remedy))
    }
}

/// Most octets of a text that is told of a mistake: what is quoted from a file may be a line without an end.
const MAX_TOLD: usize = 512;

/// A text as it may be told: cut where it is too long, and without a character that a terminal would act on or that would turn
/// others around.
pub(super) fn told(text: &str) -> String {
    let acts = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let end = (0..=MAX_TOLD.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let mut clean = String::with_capacity(end);
    for c in text[..end].chars() {
        match c {
            '\n' => clean.push(' '),
            c if acts(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    if end < text.len() {
        clean += " ..";
    }
    clean
}

fn render(file: &str, line: u32, field: &str, problem: &str, remedy: &str) -> String {
    let mut text = String::from(file);
    if line != 0 {
        text += &format!(":{line}");
    }
    if !text.is_empty() {
        text += ": ";
    }
    if !field.is_empty() {
        text += &format!("{field}: ");
    }
    text + problem + "; " + remedy
}

/// Collects what is found; nothing stops at the first.
pub(super) struct Problems<'d> {
    file: String,
    document: Option<&'d Document<'d>>,
    /// Fields that did not decode, each with the place of its error: what later checks say of their absence is a
    /// consequence, not a finding.
    broken: Vec<(Path, usize)>,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl<'d> Problems<'d> {
    /// For a file, or for none.
    pub(super) fn new(file: &str, document: Option<&'d Document<'d>>) -> Self {
        Self { file: file.into(), document, broken: Vec::new(), errors: Vec::new(), warnings: Vec::new() }
    }

    /// Notes a field that did not decode.
    pub(super) fn broken(&mut self, path: Path, error: ConfigError) {
        self.broken.push((path, self.errors.len()));
        self.errors.push(error);
    }

    /// Puts a better remedy to a field that did not decode, from a check that knows more of it than its type; `remedy` gets
    /// the one that is there.
    pub(super) fn improve(&mut self, path: &Path, remedy: impl FnOnce(&str) -> String) {
        let at = self.broken.iter().find(|(broken, _)| broken == path).map(|(_, at)| *at);
        if let Some(error) = at.and_then(|at| self.errors.get_mut(at)) {
            error.remedy = remedy(&error.remedy);
        }
    }

    /// Whether a field was told of: its value is then a stand-in, by which nothing else is to be judged.
    pub(super) fn is_wrong(&self, path: &Path) -> bool {
        let field = path.to_string();
        self.errors.iter().any(|error| error.field == field)
    }

    /// Notes a mistake in a field.
    pub(super) fn error(&mut self, path: &Path, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.broken.iter().any(|(broken, _)| path.starts_with(broken)) {
            return;
        }
        let (file, line) = (self.file.clone(), self.line(path));
        let (field, problem, remedy) = (path.to_string(), problem.into(), remedy.into());
        self.errors.push(ConfigError { file, line, field, problem, remedy });
    }

    /// Notes a mistake and gives nothing, for `?`.
    pub(super) fn fail<T>(&mut self, path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Option<T> {
        self.error(path, problem, remedy);
        None
    }

    /// Notes a mistake in another file.
    pub(super) fn error_elsewhere(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// Notes something to look at in a field.
    pub(super) fn warn(&mut self, path: &Path, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.broken.iter().any(|(broken, _)| path.starts_with(broken)) {
            return;
        }
        let (file, line) = (self.file.clone(), self.line(path));
        let (field, problem, remedy) = (path.to_string(), problem.into(), remedy.into());
        self.warnings.push(Warning { file, line, field, problem, remedy });
    }

    /// Notes something to look at in another file.
    pub(super) fn warn_elsewhere(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// The line a field stands on, or the nearest part of its path that is there.
    pub(super) fn line(&self, path: &Path) -> u32 {
        self.document.map_or(0, |document| document.line_of(path))
    }

    /// The file, as given.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Whether a mistake was found.
    pub(super) fn any_error(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Everything, in the order of lines, as it may be told.
    pub(super) fn into_parts(mut self) -> (Vec<ConfigError>, Vec<Warning>) {
        for error in &mut self.errors {
            for text in [&mut error.file, &mut error.field, &mut error.problem, &mut error.remedy] {
                *text = told(text);
            }
        }
        for warning in &mut self.warnings {
            for text in [&mut warning.file, &mut warning.field, &mut warning.problem, &mut warning.remedy] {
                *text = told(text);
            }
        }
        self.errors.sort_by_key(|e| e.line);
        self.warnings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        (self.errors, self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_cut_and_cleaned() {
        for (text, expected) in [
            ("plain `x\\n`; caf\u{e9}", "plain `x\\n`; caf\u{e9}"),
            ("two\nlines", "two lines"),
            ("\u{1b}[31m\0\u{202e}", "\\u{1b}[31m\\u{0}\\u{202e}"),
        ] {
            assert_eq!(told(text), expected);
        }
        let long = told(&"\u{e9}".repeat(MAX_TOLD));
        assert_eq!((long.len(), long.ends_with(" ..")), (MAX_TOLD + 3, true));
        assert_eq!(told(&"x".repeat(MAX_TOLD)).len(), MAX_TOLD);
        // Three octets each, so the cut is in front of one.
        assert!(told(&"\u{20ac}".repeat(MAX_TOLD)).len() < MAX_TOLD + 3);
    }
}
