//! Tables, chains and rules as text for the `nft` tool.
//!
//! Pure. Knows the tool's syntax and nothing of what is closed.

use std::fmt::{Display, Write};

use crate::enforce::Family;

/// Longest line of a script: elements of sets and comments are wrapped at it, rules are not.
const WIDTH: usize = 118;

/// One table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub family: Family,
    pub name: String,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// One named set of addresses.
#[derive(Debug, Clone)]
pub(super) struct Set {
    /// Comment lines above it.
    pub why: &'static str,
    pub name: &'static str,
    /// `ipv4_addr` or `ipv6_addr`.
    pub datatype: &'static str,
    /// Sorted; addresses and ranges.
    pub elements: Vec<String>,
}

/// One chain.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    why: String,
    name: String,
    /// Type, hook and priority of a base chain.
    hook: Option<&'static str>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
enum Line {
    Why(String),
    Rule(String),
}

impl Chain {
    /// A chain that packets meet on their way; what no rule of it decides goes on.
    pub(super) fn base(name: impl Into<String>, hook: &'static str, why: impl Into<String>) -> Self {
        Self { why: why.into(), name: name.into(), hook: Some(hook), lines: Vec::new() }
    }

    /// A chain that rules lead to.
    pub(super) fn plain(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { why: why.into(), name: name.into(), hook: None, lines: Vec::new() }
    }

    /// A comment on the rules behind it.
    pub(super) fn why(&mut self, text: impl Into<String>) -> &mut Self {
        self.lines.push(Line::Why(text.into()));
        self
    }

    /// A rule.
    pub(super) fn rule(&mut self, text: impl Into<String>) -> &mut Self {
        self.lines.push(Line::Rule(text.into()));
        self
    }

    /// Several rules.
    pub(super) fn rules(&mut self, rules: impl IntoIterator<Item = String>) -> &mut Self {
        self.lines.extend(rules.into_iter().map(Line::Rule));
        self
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many rules it has.
    pub(super) fn count(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line, Line::Rule(_))).count()
    }
}

impl Table {
    /// The table's definition; `comment` is kept by the kernel and shown by `nft list`.
    pub(super) fn render(&self, out: &mut String, comment: &str) {
        line(out, 0, &format!("table {} {} {{", self.family.as_str(), self.name));
        line(out, 1, &format!("comment \"{comment}\""));
        for set in &self.sets {
            out.push('\n');
            wrapped(out, 1, "# ", set.why);
            line(out, 1, &format!("set {} {{", set.name));
            line(out, 2, &format!("type {}", set.datatype));
            line(out, 2, "flags interval");
            line(out, 2, "elements = {");
            wrapped(out, 3, "", &set.elements.join(", "));
            line(out, 2, "}");
            line(out, 1, "}");
        }
        for chain in &self.chains {
            out.push('\n');
            wrapped(out, 1, "# ", &chain.why);
            line(out, 1, &format!("chain {} {{", chain.name));
            if let Some(hook) = chain.hook {
                line(out, 2, &format!("{hook}; policy accept;"));
            }
            for entry in &chain.lines {
                match entry {
                    Line::Why(text) => wrapped(out, 2, "# ", text),
                    Line::Rule(text) => line(out, 2, text),
                }
            }
            line(out, 1, "}");
        }
        line(out, 0, "}");
    }
}

/// Text broken at spaces, each line with `mark` before it.
pub(super) fn wrapped(out: &mut String, depth: usize, mark: &str, text: &str) {
    let room = WIDTH - 4 * depth - mark.len();
    let mut current = String::new();
    for word in text.split(' ') {
        if !current.is_empty() && current.len() + 1 + word.len() > room {
            line(out, depth, &format!("{mark}{current}"));
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    if !current.is_empty() {
        line(out, depth, &format!("{mark}{current}"));
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{:1$}{text}", "", 4 * depth);
}

/// One thing as it is, several in braces.
pub(super) fn set(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_the_tool_wants_it() {
        let mut chain = Chain::base("out", "type filter hook forward priority filter", "What leaves.");
        chain.why("Nothing.").rule("drop");
        let elements = (0..40).map(|n| format!("192.0.2.{n}")).collect();
        let set = Set { why: "Some.", name: "some", datatype: "ipv4_addr", elements };
        let table = Table { family: Family::Inet, name: "t".into(), sets: vec![set], chains: vec![chain.clone()] };
        let mut text = String::new();
        table.render(&mut text, "mine");
        assert!(text.starts_with("table inet t {\n    comment \"mine\"\n\n    # Some.\n    set some {\n"), "{text}");
        let end = "    # What leaves.\n    chain out {\n        type filter hook forward priority filter; policy accept;\n        \
                   # Nothing.\n        drop\n    }\n}\n";
        assert!(text.ends_with(end), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(chain.count(), 1);
    }

    #[test]
    fn one_item_needs_no_braces() {
        assert_eq!((set([1]), set([1, 2])), ("1".into(), "{ 1, 2 }".into()));
    }
}
