//! Packs of known look-alikes: read, checked, compiled.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::PackReport;
use crate::config::problem::{ConfigError, Warning};
use crate::config::spec;
use crate::lists::pack::{self, MAX_OCTETS, PackEntry};
use crate::lists::{BUILTIN_PREFIX, PACKS, RuleSet, builtin_pack};
use crate::regular;

/// The shipped pack that was read first, so that a reload need not read it again.
static SHIPPED: OnceLock<(&'static str, Vec<PackEntry>)> = OnceLock::new();

/// What a `[[pack]]` names.
enum Text {
    Shipped(&'static str),
    Own(Vec<u8>),
}

impl Text {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Shipped(text) => text.as_bytes(),
            Self::Own(octets) => octets,
        }
    }

    fn entries(&self) -> Result<Vec<PackEntry>, Vec<pack::PackError>> {
        let text = match self {
            Self::Shipped(text) => *text,
            Self::Own(octets) => return pack::parse(octets),
        };
        if let Some((known, entries)) = SHIPPED.get()
            && *known == text
        {
            return Ok(entries.clone());
        }
        let entries = pack::parse(text.as_bytes())?;
        // Another thread may have been first.
        let _ = SHIPPED.set((text, entries.clone()));
        Ok(entries)
    }
}

impl Context<'_, '_> {
    pub(super) fn packs(&mut self) -> (RuleSet, Vec<PackReport>) {
        let written = match &self.spec.pack {
            Some(packs) => packs.clone(),
            None => {
                let names: Vec<_> = PACKS.iter().map(|pack| pack.name).collect();
                self.assumptions.push(format!("Shipped packs of known look-alikes in force: {}.", names.join(", ")));
                let path = |name| format!("{BUILTIN_PREFIX}{name}");
                PACKS
                    .iter()
                    .map(|pack| spec::Pack { id: pack.name.into(), path: path(pack.name), profiles: Vec::new() })
                    .collect()
            }
        };
        let mut ids: HashSet<&str> = self.spec.rule.iter().map(|rule| rule.id.as_str()).collect();
        ids.extend(self.spec.list.iter().flatten().map(|list| list.id.as_str()));
        let mut rules = Vec::new();
        let mut reports = Vec::new();
        for (i, pack) in written.iter().enumerate() {
            let path = Path::of("pack").at(i);
            self.word(&path.key("id"), &pack.id, "id");
            if !pack.id.is_empty() && !ids.insert(&pack.id) {
                let problem = format!("`{}` is the id of another pack, list or rule", pack.id.escape_debug());
                self.problems.error(&path.key("id"), problem, "give each its own id: records name it");
            }
            let scopes = self.scopes(&path.key("profiles"), &pack.profiles);
            let Some(entries) = self.pack(&path.key("path"), pack) else { continue };
            rules.extend(entries.iter().map(|entry| entry.to_rule(&pack.id, &pack.path, scopes)));
            reports.push(PackReport { id: pack.id.clone(), file: pack.path.clone(), entries });
        }
        (RuleSet::compile(rules, self.hash_key()), reports)
    }

    fn pack(&mut self, path: &Path, written: &spec::Pack) -> Option<Vec<PackEntry>> {
        let text = self.pack_text(path, &written.path)?;
        self.digest_part(&format!("pack {}", written.id), text.octets());
        let entries = match text.entries() {
            Ok(entries) => entries,
            Err(errors) => {
                for error in errors {
                    let file = written.path.clone();
                    let pack::PackError { line, field, problem, remedy } = error;
                    self.problems.error_elsewhere(ConfigError { file, line, field, problem, remedy });
                }
                return None;
            }
        };
        self.pack_review(written, &entries);
        Some(entries)
    }

    /// One word about a whole pack whose entries are due: they are mostly reviewed together.
    fn pack_review(&mut self, written: &spec::Pack, entries: &[PackEntry]) {
        let today = self.today();
        let due = entries.iter().filter(|entry| entry.review_by < today);
        let Some(first) = due.clone().min_by_key(|entry| entry.review_by) else { return };
        let count = due.count();
        let remedy = match written.path.starts_with(BUILTIN_PREFIX) {
            true => "take a newer release, or keep a reviewed copy of your own",
            false => "check that each is still needed, then set a new day",
        };
        self.problems.warn_elsewhere(Warning {
            file: written.path.clone(),
            line: first.line,
            field: format!("{}.review_by", first.id),
            problem: format!("review of {count} entries was due, first on {}", first.review_by),
            remedy: remedy.into(),
        });
    }

    fn pack_text(&mut self, path: &Path, written: &str) -> Option<Text> {
        if written.is_empty() {
            return self.problems.fail(path, "path is missing", "name the file, or a shipped pack as builtin:<name>");
        }
        if written.starts_with(BUILTIN_PREFIX) {
            return match builtin_pack(written) {
                Some(pack) => Some(Text::Shipped(pack.text)),
                None => {
                    let names: Vec<_> = PACKS.iter().map(|p| format!("{BUILTIN_PREFIX}{}", p.name)).collect();
                    let problem = format!("no shipped pack `{}`", written.escape_debug());
                    self.problems.fail(path, problem, format!("there is {}", names.join(", ")))
                }
            };
        }
        match regular::read(&self.beside(written), MAX_OCTETS as u64) {
            Ok(octets) => Some(Text::Own(octets)),
            Err(error) => self.problems.fail(
                path,
                format!("`{}` cannot be read: {error}", written.escape_debug()),
                "paths are relative to the file that names them; check name and permissions",
            ),
        }
    }
}
