//! The whole lockdown as one script for `nft -f`, which takes effect whole or not at all.

use sha2::{Digest, Sha256};

use super::nft::{Table, wrapped};
use super::plan::Plan;
use super::{bridge, inet, words};
use crate::enforce::Family;

/// How the comment of our tables begins, in every release.
const COMMENT: &str = "staunch lockdown";
/// Of the comment's form.
const VERSION: &str = "v1";

/// A script, and what must be known of it to compare it with what stands.
#[derive(Debug, Clone)]
pub struct Script {
    /// For `nft -f`.
    pub text: String,
    /// Hex SHA-256 over everything in it but comments.
    pub digest: String,
    /// The comment that its tables carry.
    pub comment: String,
    /// Family, and chains with the number of their rules, of each table.
    pub tables: Vec<(Family, Vec<(String, usize)>)>,
}

/// What the comment of a table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// `enforce` or `monitor`.
    pub mode: &'a str,
    /// [`Script::digest`] of the script that made it.
    pub digest: &'a str,
}

impl<'a> Told<'a> {
    /// Reads a comment; `None` where the table is not ours, or of another form.
    pub fn read(comment: &'a str) -> Option<Self> {
        let mut words = comment.strip_prefix(COMMENT)?.split_ascii_whitespace();
        let (VERSION, mode, digest, None) = (words.next()?, words.next()?, words.next()?, words.next()) else {
            return None;
        };
        Some(Self { mode, digest })
    }
}

/// Whether a table with this comment was made by a lockdown, of whatever release.
pub fn is_ours(comment: Option<&str>) -> bool {
    comment.and_then(|comment| comment.strip_prefix(COMMENT)).is_some_and(|rest| rest.starts_with(' '))
}

/// The script of a plan.
pub fn script(plan: &Plan) -> Script {
    let tables: Vec<Table> = std::iter::once(inet::table(plan)).chain(bridge::table(plan)).collect();
    let digest = digest(&body(&tables, ""));
    let comment = format!("{COMMENT} {VERSION} {} {digest}", plan.mode.as_str());
    let mut text = String::from("#!/usr/sbin/nft -f\n");
    for sentence in words::sentences(plan) {
        text.push_str("#\n");
        wrapped(&mut text, 0, "# ", &sentence);
    }
    text.push('\n');
    text.push_str(&body(&tables, &comment));
    let chains = |table: &Table| table.chains.iter().map(|chain| (chain.name().to_owned(), chain.count())).collect();
    let tables = tables.iter().map(|table| (table.family, chains(table))).collect();
    Script { text, digest, comment, tables }
}

fn body(tables: &[Table], comment: &str) -> String {
    let mut text = String::from("# An earlier one of this name is replaced, in the same transaction.\n");
    for table in tables {
        text.push_str(&format!("table {0} {1}\ndelete table {0} {1}\n", table.family.as_str(), table.name));
    }
    for table in tables {
        text.push('\n');
        table.render(&mut text, comment);
    }
    text
}

fn digest(body: &str) -> String {
    let mut hasher = Sha256::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        hasher.update(line);
        hasher.update("\n");
    }
    hasher.finalize().iter().map(|octet| format!("{octet:02x}")).collect()
}
