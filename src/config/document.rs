//! The TOML document: where each field stands, and a decoder that does not stop at the first mistake.
//!
//! [`super::spec`] stays plain data: a field's line is looked up by its path when somebody needs to be told. A later
//! `conf.d` directory becomes several documents whose tables are merged before decoding.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Problems, told};
use super::spec::V1;

/// Most fields of wrong shape that are told at once; decoding is repeated for each.
const MAX_SHAPE_ERRORS: usize = 50;

/// Tables that there may be several of.
const SEVERAL: [&str; 12] = [
    "forward",
    "session",
    "rule",
    "range",
    "list",
    "pack",
    "rpz",
    "zone",
    "alert",
    "answer.allow_range",
    "answer.show_loopback",
    "dnssec.negative_trust_anchor",
];
/// Tables that there is one of.
const SINGLE: [&str; 13] = [
    "server", "policy", "upstream", "answer", "dnssec", "enforce", "sinkhole", "decoy", "limits", "profile", "learn",
    "age", "events",
];

/// One step to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    At(usize),
}

/// Path of a field: `rule[0].names[2]`, `profile."batch.build".qtypes`. Elements count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// A section.
    pub(super) fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// A field of it.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        Self(steps)
    }

    /// An element of it.
    pub(super) fn at(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::At(index));
        Self(steps)
    }

    /// Whether it is `other` or lies in it.
    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The field it lies in: without elements at the end.
    fn field(mut self) -> Self {
        while matches!(self.0.last(), Some(Step::At(_))) {
            self.0.pop();
        }
        self
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::At(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if i > 0 {
                        f.write_str(".")?;
                    }
                    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                    if bare { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// A parsed file.
pub(super) struct Document<'t> {
    file: String,
    root: Spanned<DeTable<'t>>,
    line_starts: Vec<usize>,
}

impl<'t> Document<'t> {
    /// Parses `text`.
    pub(super) fn parse(file: &str, text: &'t str) -> Result<Self, ConfigError> {
        let line_starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { file: file.into(), root, line_starts }),
            // What a parser says after its first error is mostly about its recovery, so one is told.
            Err(error) => Err(ConfigError {
                file: file.into(),
                line: error.span().map_or(1, |span| line_at(&line_starts, span.start)),
                field: String::new(),
                problem: told(&format!("not TOML: {}", error.message())),
                remedy: "put this line right; strings stand in double quotes, lists in brackets".into(),
            }),
        }
    }

    /// Decodes the document. Fields of wrong shape are told, left out, and take their defaults meanwhile.
    pub(super) fn decode(&self, problems: &mut Problems<'_>) -> V1 {
        let mut root = self.root.clone();
        for (path, problem, remedy) in self.wrong_brackets() {
            let line = self.line_of(&path);
            remove(root.get_mut(), &path.0);
            let found = ConfigError { file: self.file.clone(), line, field: path.to_string(), problem, remedy };
            problems.broken(path, found);
        }
        for _ in 0..MAX_SHAPE_ERRORS {
            let error = match V1::deserialize(toml::de::Deserializer::from(root.clone())) {
                Ok(spec) => return spec,
                Err(error) => error,
            };
            let path = error.span().and_then(|span| find(root.get_ref(), &span)).unwrap_or_default();
            let (problem, remedy) = match (error.message().trim(), value_at(root.get_ref(), &path.0)) {
                (message, Some(DeValue::Datetime(day))) if message.ends_with("expected a string") => {
                    ("a day without quotes".into(), format!("write it in double quotes: \"{day}\""))
                }
                (message, _) if message.ends_with("string or table") => {
                    let words = known_words(&root, &path).unwrap_or_else(|| "one of the known words".into());
                    ("not a word".into(), format!("use {words}, in double quotes"))
                }
                (message, _) => explain(message),
            };
            let line = error.span().map_or(1, |span| line_at(&self.line_starts, span.start));
            let found = ConfigError { file: self.file.clone(), line, field: path.to_string(), problem, remedy };
            let field = path.field();
            let removed = remove(root.get_mut(), &field.0);
            problems.broken(field, found);
            if !removed {
                break;
            }
        }
        // Of the whole: whoever reads a part of the file must not take defaults for what it says.
        let found = ConfigError {
            file: self.file.clone(),
            line: 1,
            field: String::new(),
            problem: "too many mistakes of form to read it".into(),
            remedy: "correct those that are told first".into(),
        };
        problems.broken(Path::default(), found);
        V1::default()
    }

    /// Tables that are written as lists of them and the other way round: what the decoder would say of these is about the
    /// first field that it then meets.
    fn wrong_brackets(&self) -> Vec<(Path, String, String)> {
        let root = self.root.get_ref();
        let found = |name: &str| {
            let path = name.split('.').fold(Path::default(), |path, key| path.key(key));
            value_at(root, &path.0).map(|value| (path, value))
        };
        let several = SEVERAL.iter().filter_map(|name| match found(name)? {
            (path, DeValue::Table(_)) => {
                Some((path, format!("`[{name}]` is one, and there may be several"), format!("write `[[{name}]]`")))
            }
            _ => None,
        });
        let single = SINGLE.iter().filter_map(|name| match found(name)? {
            (path, DeValue::Array(_)) => {
                let right = if *name == "profile" { "profile.batch" } else { name };
                Some((path, format!("`[[{name}]]` is a list, and there is one"), format!("write `[{right}]`")))
            }
            _ => None,
        });
        several.chain(single).collect()
    }

    /// The line of a field, or of the nearest part of its path that is there; 1 if none is.
    pub(super) fn line_of(&self, path: &Path) -> u32 {
        let mut position = 0;
        let mut steps = path.0.iter();
        let mut value = None;
        if let Some(Step::Key(key)) = steps.next()
            && let Some((key, found)) = self.root.get_ref().get_key_value(key.as_str())
        {
            position = key.span().start;
            value = Some(found);
        }
        for step in steps {
            value = match (value.map(Spanned::get_ref), step) {
                (Some(DeValue::Table(table)), Step::Key(key)) => {
                    table.get_key_value(key.as_str()).map(|(key, found)| {
                        position = key.span().start;
                        found
                    })
                }
                (Some(DeValue::Array(array)), Step::At(index)) => array.get(*index).inspect(|found| {
                    position = found.span().start;
                }),
                _ => None,
            };
        }
        line_at(&self.line_starts, position)
    }
}

/// Whether `name` is a section of the file.
pub(super) fn is_section(name: &str) -> bool {
    SINGLE.contains(&name) || SEVERAL.contains(&name)
}

fn line_at(line_starts: &[usize], position: usize) -> u32 {
    line_starts.partition_point(|start| *start <= position).max(1) as u32
}

/// Path of the smallest part of the document that holds `span`; header tables do not hold their fields, so every
/// part is looked at.
fn find(root: &DeTable<'_>, span: &Range<usize>) -> Option<Path> {
    let mut best: Option<(usize, Path)> = None;
    visit_table(root, &Path::default(), &mut |path, range| {
        let holds = range.start <= span.start && span.end <= range.end;
        if holds && best.as_ref().is_none_or(|(len, _)| range.len() < *len) {
            best = Some((range.len(), path.clone()));
        }
    });
    best.map(|(_, path)| path)
}

fn visit_table(table: &DeTable<'_>, path: &Path, visit: &mut impl FnMut(&Path, Range<usize>)) {
    for (key, value) in table {
        let path = path.key(key.get_ref());
        visit(&path, key.span());
        visit_value(value, &path, visit);
    }
}

fn visit_value(value: &Spanned<DeValue<'_>>, path: &Path, visit: &mut impl FnMut(&Path, Range<usize>)) {
    visit(path, value.span());
    match value.get_ref() {
        DeValue::Table(table) => visit_table(table, path, visit),
        DeValue::Array(array) => {
            for (i, element) in array.iter().enumerate() {
                visit_value(element, &path.at(i), visit);
            }
        }
        _ => {}
    }
}

/// Takes the field at `steps` out; whether it was there.
fn remove(table: &mut DeTable<'_>, steps: &[Step]) -> bool {
    match steps {
        [Step::Key(key)] => table.remove(key.as_str()).is_some(),
        [Step::Key(key), rest @ ..] => match table.get_mut(key.as_str()) {
            Some(value) => remove_in(value, rest),
            None => false,
        },
        _ => false,
    }
}

fn remove_in(value: &mut Spanned<DeValue<'_>>, steps: &[Step]) -> bool {
    match (value.get_mut(), steps) {
        (DeValue::Table(table), steps) => remove(table, steps),
        (DeValue::Array(array), [Step::At(index), rest @ ..]) => {
            array.get_mut(*index).is_some_and(|element| remove_in(element, rest))
        }
        _ => false,
    }
}

/// The value of a field.
fn value_at<'a, 't>(root: &'a DeTable<'t>, steps: &[Step]) -> Option<&'a DeValue<'t>> {
    let (Step::Key(first), rest) = steps.split_first()? else { return None };
    let mut value = root.get(first.as_str())?.get_ref();
    for step in rest {
        value = match (value, step) {
            (DeValue::Table(table), Step::Key(key)) => table.get(key.as_str())?.get_ref(),
            (DeValue::Array(array), Step::At(index)) => array.get(*index)?.get_ref(),
            _ => return None,
        };
    }
    Some(value)
}

/// The words that a field takes: what the decoder says to one that is none.
fn known_words(root: &Spanned<DeTable<'_>>, path: &Path) -> Option<String> {
    let mut root = root.clone();
    *value_mut(root.get_mut(), &path.0)? = DeValue::String("".into());
    let error = V1::deserialize(toml::de::Deserializer::from(root)).err()?;
    let (_, words) = error.message().strip_prefix("unknown variant ``")?.split_once(", expected ")?;
    Some(words.trim().trim_start_matches("one of ").into())
}

fn value_mut<'a, 't>(root: &'a mut DeTable<'t>, steps: &[Step]) -> Option<&'a mut DeValue<'t>> {
    let (Step::Key(first), rest) = steps.split_first()? else { return None };
    let mut value = root.get_mut(first.as_str())?.get_mut();
    for step in rest {
        value = match (value, step) {
            (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str())?.get_mut(),
            (DeValue::Array(array), Step::At(index)) => array.get_mut(*index)?.get_mut(),
            _ => return None,
        };
    }
    Some(value)
}

/// Turns what the decoder says into a problem and a remedy.
fn explain(message: &str) -> (String, String) {
    let message = message.trim();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (name, expected) = rest.split_once(", ").unwrap_or((rest, ""));
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let name = name.trim_matches('`');
        let remedy = match known.iter().map(|k| (distance(k, name), *k)).min() {
            Some((far, near)) if far <= 2 => format!("did you mean `{near}`?"),
            _ if known.is_empty() => "remove it".into(),
            _ => format!("known here: {}", known.join(", ")),
        };
        return (format!("unknown field `{}`", name.escape_debug()), remedy);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (name, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, "one of the known words"));
        return (format!("unknown word {name}"), format!("use {}", expected.trim_start_matches("one of ")));
    }
    if let Some((what, expected)) = message.rsplit_once(", expected ") {
        let remedy = match expected {
            "a string" => "write a string in double quotes",
            "a boolean" => "write true or false",
            "a sequence" => "write a list in brackets",
            "u8" | "u16" | "u32" | "u64" | "usize" => "write a whole number, 0 or more",
            "f32" | "f64" => "write a number",
            _ if expected.starts_with("struct") || expected == "a map" => "write a table",
            _ => return (what.into(), format!("write {expected}")),
        };
        return (what.into(), remedy.into());
    }
    (message.into(), "see deploy/staunch.example.toml".into())
}

/// Levenshtein distance, for short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_wrong_shape_is_told_with_its_line() {
        let text = "version = 1\n[server]\nlissen = []\nworkers = \"many\"\n[[rule]]\nid = \"a\"\n[[rule]]\nnames = [\n \
                    \"=x.example\",\n 7,\n]\n[policy]\nmode = \"enforced\"\n[profile.\"batch.build\"]\nunlisted = 1\n";
        let document = Document::parse("x.toml", text).expect("TOML");
        let mut problems = Problems::new("x.toml", Some(&document));
        let spec = document.decode(&mut problems);
        assert_eq!(spec.rule.len(), 2, "what is whole is still read");
        let (errors, _) = problems.into_parts();
        let seen: Vec<_> = errors.iter().map(|e| (e.line, e.field.as_str(), e.remedy.as_str())).collect();
        assert_eq!(
            seen,
            [
                (3, "server.lissen", "did you mean `listen`?"),
                (4, "server.workers", "write a whole number, 0 or more"),
                (10, "rule[1].names[1]", "write a string in double quotes"),
                (13, "policy.mode", "use `monitor`, `canary`, `enforce`"),
                (15, "profile.\"batch.build\".unlisted", "use `score` or `refuse`, in double quotes"),
            ]
        );
    }

    #[test]
    fn every_table_is_one_or_several() {
        let default = serde_json::to_value(V1::default()).expect("JSON");
        for (name, value) in default.as_object().expect("a table") {
            let (single, several) = (SINGLE.contains(&&**name), SEVERAL.contains(&&**name));
            assert!(name == "version" || single != several, "{name}");
            assert_eq!(single, value.is_object(), "{name}");
        }
        for name in SEVERAL.iter().filter(|name| name.contains('.')) {
            assert!(default.pointer(&format!("/{}", name.replace('.', "/"))).is_some_and(|v| v.is_array()), "{name}");
        }
    }

    #[test]
    fn lines_are_found_by_path() {
        let text = "version = 1\n\n[[rule]]\nid = \"a\"\n\n[[rule]]\nnames = [\n\"=x\",\n\"=y\"]\n";
        let document = Document::parse("x.toml", text).expect("TOML");
        let rule = Path::of("rule").at(1);
        for (path, line) in [
            (Path::of("version"), 1),
            (rule.clone(), 6),
            (rule.key("names"), 7),
            (rule.key("names").at(1), 9),
            (rule.key("owner"), 6), // not there: the rule itself
            (Path::of("server").key("listen"), 1),
        ] {
            assert_eq!(document.line_of(&path), line, "{path}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_once() {
        let error = Document::parse("x.toml", "version = 1\nlisten = [\n").err().expect("unclosed");
        assert_eq!(error.line, 2);
        let error = Document::parse("x.toml", "a = 1\na = 2\n").err().expect("twice");
        assert_eq!(error.line, 2);
    }
}
