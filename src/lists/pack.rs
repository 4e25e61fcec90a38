//! Packs: names that look like a tunnel and are none, each with a budget of its own.
//!
//! File-hash and block-list look-ups, numbered hosts, labels of load balancers: no threshold parts them from a leak,
//! so a pack names them. Octets in, entries out; what an entry gives a query is settled by [`crate::policy`]. Knows no
//! file, no clock and no verdict.
//!
//! A pack allows nothing. Its names skip the score, not the ledger: they are charged in full, to the whole ICANN-level
//! domain, against the entry's budget and the profile's `pack_session_bits`. So an entry must stand for names that one
//! operator serves: where customers run name servers or choose labels below a name, it would be an account for anybody
//! who becomes a customer. That is why a name at or below a private suffix asks for `assigned = true`.

use serde::{Deserialize, Serialize};
use staunch_scoring::{Bits, Split};
use toml::Spanned;

use super::{Action, Day, Reach, Rule, RuleForm, ScopeSet};
use crate::model::Qtype;

/// Largest pack file, octets.
pub const MAX_OCTETS: usize = 1 << 20;
/// Most entries of a pack: they are written and reviewed by people.
pub const MAX_PACK_ENTRIES: usize = 4096;
/// Largest budget of an entry, bits: what a session may tell by all packs in the built-in profiles.
pub const MAX_ENTRY_BITS: u32 = 73_728;

/// What an entry's names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Reputation of files, addresses and sites, asked by hash.
    Reputation,
    /// Block and allow lists of addresses and domains (RFC 5782).
    Dnsbl,
    /// Labels that prove who owns a domain, and hosts named after a customer's domain.
    Verification,
    /// Reports, time, updates and connectivity probes of operating systems and programs.
    Telemetry,
    /// Resources of a cloud, under labels that it gives out.
    Cloud,
    /// Edges of a content network, under labels that it gives out.
    Cdn,
    /// Hosts of one large operator in its own zones.
    FirstParty,
}

impl Class {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reputation => "reputation",
            Self::Dnsbl => "dnsbl",
            Self::Verification => "verification",
            Self::Telemetry => "telemetry",
            Self::Cloud => "cloud",
            Self::Cdn => "cdn",
            Self::FirstParty => "first-party",
        }
    }
}

/// One entry of a pack.
#[derive(Debug, Clone, PartialEq)]
pub struct PackEntry {
    /// Unique in its pack.
    pub id: String,
    /// What its names are.
    pub class: Class,
    /// The names, each with the line it stands on, from 1.
    pub names: Vec<(RuleForm, u32)>,
    /// What a session may tell one ICANN-level domain by them.
    pub budget: Bits,
    /// Types it is for, ascending; all if empty.
    pub qtypes: Vec<Qtype>,
    /// Who answers for it.
    pub owner: String,
    /// Why these names look like a leak and are none.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Day,
    /// Line of the entry's id.
    pub line: u32,
}

impl PackEntry {
    /// The entry as a rule of the pack `pack` in `file`, for sessions of `scopes`. Never of [`RuleSet`]s that allow.
    ///
    /// [`RuleSet`]: super::RuleSet
    pub fn to_rule(&self, pack: &str, file: &str, scopes: ScopeSet) -> Rule {
        Rule {
            id: format!("{pack}/{}", self.id).into(),
            file: file.into(),
            action: Action::Allow,
            names: self.names.clone(),
            scopes,
            qtypes: self.qtypes.clone(),
            budget: self.budget,
            ports: None,
            expected: Vec::new(),
            mode: None,
            expires: Rule::NEVER,
            owner: self.owner.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// A mistake in a pack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; {remedy}")]
pub struct PackError {
    /// The line, from 1.
    pub line: u32,
    /// Path of the field, such as `entry[3].names[0]`; empty where the file as a whole is meant.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    #[serde(default)]
    entry: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: Spanned<String>,
    class: Class,
    names: Spanned<Vec<Spanned<String>>>,
    budget_bits: Spanned<u32>,
    #[serde(default)]
    qtypes: Vec<Spanned<String>>,
    #[serde(default)]
    assigned: bool,
    owner: Spanned<String>,
    reason: Spanned<String>,
    review_by: Spanned<String>,
}

/// Reads a pack.
///
/// # Errors
/// Every mistake, in the order of the file; where it is no TOML of this shape, the first.
pub fn parse(octets: &[u8]) -> Result<Vec<PackEntry>, Vec<PackError>> {
    let whole = |line, problem: String, remedy: &str| {
        vec![PackError { line, field: String::new(), problem, remedy: remedy.into() }]
    };
    if octets.len() > MAX_OCTETS {
        return Err(whole(1, format!("larger than {MAX_OCTETS} octets"), "keep a pack to what people review"));
    }
    let text = std::str::from_utf8(octets).map_err(|error| {
        let valid = octets.get(..error.valid_up_to()).unwrap_or_default();
        whole(line_at(valid, valid.len()), "not UTF-8".into(), "save the file as UTF-8")
    })?;
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let remedy =
            "an entry has id, class, names, budget_bits, owner, reason, review_by; and may have qtypes, assigned";
        whole(line_at(octets, at), error.message().trim().replace('\n', " "), remedy)
    })?;
    let mut reader = Reader { octets, errors: Vec::new(), ids: Vec::new(), names: Vec::new() };
    if *file.version.get_ref() != 1 {
        let problem = format!("version {} is not known", file.version.get_ref());
        reader.error(file.version.span().start, "version".into(), problem, "this release reads `version = 1`");
    }
    if file.entry.len() > MAX_PACK_ENTRIES {
        let problem = format!("{} entries", file.entry.len());
        reader.error(0, "entry".into(), problem, format!("keep at most {MAX_PACK_ENTRIES}"));
    }
    let entries = file.entry.iter().take(MAX_PACK_ENTRIES).enumerate();
    let entries: Vec<_> = entries.filter_map(|(i, written)| reader.entry(&format!("entry[{i}]"), written)).collect();
    if reader.errors.is_empty() { Ok(entries) } else { Err(reader.errors) }
}

struct Reader<'t> {
    octets: &'t [u8],
    errors: Vec<PackError>,
    ids: Vec<String>,
    names: Vec<RuleForm>,
}

impl Reader<'_> {
    fn error(&mut self, at: usize, field: String, problem: impl Into<String>, remedy: impl Into<String>) {
        let line = line_at(self.octets, at);
        self.errors.push(PackError { line, field, problem: problem.into(), remedy: remedy.into() });
    }

    fn entry(&mut self, path: &str, written: &Written) -> Option<PackEntry> {
        let id = written.id.get_ref();
        let word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(word) {
            let problem = format!("`{}` is no good as id", id.escape_debug());
            self.error(written.id.span().start, format!("{path}.id"), problem, "use 1 to 64 of A-Z a-z 0-9 . _ -");
        } else if self.ids.contains(id) {
            let problem = format!("a second entry `{id}`");
            self.error(written.id.span().start, format!("{path}.id"), problem, "give each entry its own id");
        }
        self.ids.push(id.clone());
        for (field, text) in [("owner", &written.owner), ("reason", &written.reason)] {
            if text.get_ref().trim().is_empty() {
                let problem = format!("{field} is missing");
                self.error(text.span().start, format!("{path}.{field}"), problem, "say it in a few words");
            }
        }
        let budget = *written.budget_bits.get_ref();
        if budget == 0 || budget > MAX_ENTRY_BITS {
            let (problem, remedy) = (format!("{budget} is out of range"), format!("use 1 to {MAX_ENTRY_BITS}"));
            self.error(written.budget_bits.span().start, format!("{path}.budget_bits"), problem, remedy);
        }
        let names = self.names(path, written);
        let qtypes = self.qtypes(path, &written.qtypes);
        let Some(review_by) = Day::parse(written.review_by.get_ref()) else {
            let problem = format!("`{}` is not a day", written.review_by.get_ref().escape_debug());
            self.error(written.review_by.span().start, format!("{path}.review_by"), problem, "write YYYY-MM-DD");
            return None;
        };
        Some(PackEntry {
            id: id.clone(),
            class: written.class,
            names,
            budget: Bits::whole(budget),
            qtypes,
            owner: written.owner.get_ref().clone(),
            reason: written.reason.get_ref().clone(),
            review_by,
            line: line_at(self.octets, written.id.span().start),
        })
    }

    fn names(&mut self, path: &str, written: &Written) -> Vec<(RuleForm, u32)> {
        if written.names.get_ref().is_empty() {
            self.error(written.names.span().start, format!("{path}.names"), "no name", "name what the entry is for");
        }
        let mut names = Vec::new();
        for (i, text) in written.names.get_ref().iter().enumerate() {
            let (at, field) = (text.span().start, format!("{path}.names[{i}]"));
            let form = match RuleForm::parse_deny(text.get_ref()) {
                Ok(form) => form,
                Err(error) => {
                    self.error(at, field, error.to_string(), error.remedy());
                    continue;
                }
            };
            let below = form.reach != Reach::Exact;
            if below && form.name.as_ref().label_count() < 2 {
                let problem = format!("`{form}` is a whole top-level domain");
                self.error(at, field, problem, "name one operator's domain");
                continue;
            }
            if below && !written.assigned && Split::of(form.name.as_ref()).multi_tenant {
                self.error(
                    at,
                    field,
                    format!("`{form}` is a platform: customers have names below it"),
                    "write a rule for the customers' names you use; assigned = true only where the platform alone \
                     makes the labels and serves them",
                );
                continue;
            }
            if self.names.contains(&form) {
                self.error(at, field, format!("`{form}` is named twice"), "remove one of them");
                continue;
            }
            self.names.push(form.clone());
            names.push((form, line_at(self.octets, at)));
        }
        names
    }

    fn qtypes(&mut self, path: &str, written: &[Spanned<String>]) -> Vec<Qtype> {
        let mut qtypes = Vec::new();
        for (i, text) in written.iter().enumerate() {
            match Qtype::from_text(text.get_ref()).filter(|qtype| !qtype.is_tunnel_only()) {
                Some(qtype) => qtypes.push(qtype),
                None => {
                    let problem = format!("`{}` is no type for a pack", text.get_ref().escape_debug());
                    let remedy = "use a mnemonic such as A, TXT, or TYPEn; never NULL, KEY or a private-use type";
                    self.error(text.span().start, format!("{path}.qtypes[{i}]"), problem, remedy);
                }
            }
        }
        qtypes.sort_unstable();
        qtypes.dedup();
        qtypes
    }
}

fn line_at(octets: &[u8], at: usize) -> u32 {
    1 + octets.iter().take(at).filter(|octet| **octet == b'\n').count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::PACKS;

    const ENTRY: &str = "version = 1\n[[entry]]\nid = \"hashes\"\nclass = \"reputation\"\nnames = [\n \"*.rep.example.org\",\n]\n\
                         budget_bits = 4096\nqtypes = [\"TXT\", \"A\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n";

    #[test]
    fn an_entry_reads_whole() {
        let entries = parse(ENTRY.as_bytes()).expect("good");
        let [entry] = &entries[..] else { panic!("one entry: {entries:?}") };
        assert_eq!((entry.line, entry.names[0].1), (3, 6));
        assert_eq!(entry.qtypes, [Qtype::A, Qtype::TXT]);
        assert_eq!(entry.budget, Bits::whole(4096));
        let rule = entry.to_rule("mine", "mine.toml", ScopeSet::ALL);
        assert_eq!((&*rule.id, &*rule.file), ("mine/hashes", "mine.toml"));
    }

    #[test]
    fn every_mistake_has_its_line_and_remedy() {
        for (from, to, line, field, remedy) in [
            ("version = 1", "version = 2", 1, "version", "version = 1"),
            ("\"hashes\"", "\"a b\"", 3, "entry[0].id", "1 to 64"),
            ("\"reputation\"", "\"nice\"", 4, "", "an entry has"),
            ("*.rep.example.org", "*.github.io", 6, "entry[0].names[0]", "write a rule"),
            ("*.rep.example.org", "*.bucket.s3.amazonaws.com", 6, "entry[0].names[0]", "write a rule"),
            ("*.rep.example.org", "co.uk", 6, "entry[0].names[0]", "one owner"),
            ("*.rep.example.org", "corp", 6, "entry[0].names[0]", "one operator"),
            ("4096", "0", 8, "entry[0].budget_bits", "1 to 73728"),
            ("4096", "73729", 8, "entry[0].budget_bits", "1 to 73728"),
            ("\"TXT\"", "\"NULL\"", 9, "entry[0].qtypes[0]", "never NULL"),
            ("\"o\"", "\" \"", 10, "entry[0].owner", "few words"),
            ("\"2027-06-01\"", "\"soon\"", 12, "entry[0].review_by", "YYYY-MM-DD"),
            ("owner = \"o\"\n", "", 2, "", "an entry has"),
        ] {
            assert!(ENTRY.contains(from), "{from}");
            let errors = parse(ENTRY.replace(from, to).as_bytes()).expect_err(to);
            let [error] = &errors[..] else { panic!("{to}: {errors:?}") };
            assert_eq!((error.line, error.field.as_str()), (line, field), "{to}: {error}");
            assert!(error.remedy.contains(remedy), "{to}: {error}");
        }
        let twice = format!("{ENTRY}{}", ENTRY.trim_start_matches("version = 1\n"));
        let errors = parse(twice.as_bytes()).expect_err("twice");
        assert_eq!(errors.len(), 2, "id and name: {errors:?}");
        assert!(parse(b"version = 1\n# \xff").is_err());
        assert!(parse(&vec![b'#'; MAX_OCTETS + 1]).is_err());
    }

    #[test]
    fn every_shipped_entry_reads_and_stands_for_itself() {
        for shipped in PACKS {
            let entries =
                parse(shipped.text.as_bytes()).unwrap_or_else(|errors| panic!("{}: {errors:?}", shipped.name));
            assert!(entries.len() >= 30, "{}: {} entries", shipped.name, entries.len());
            for head in ["# Licence:", "# Source:", "# Reviewed:"] {
                assert!(
                    shipped.text.lines().take(30).any(|line| line.starts_with(head)),
                    "{}: no `{head}`",
                    shipped.name
                );
            }
            // A form below another of the same pack would split one account between two budgets.
            let forms: Vec<_> = entries.iter().flat_map(|entry| &entry.names).collect();
            for (form, line) in &forms {
                let wider = forms.iter().find(|(wider, _)| wider != form && wider.covers(form.name.as_ref()));
                assert!(wider.is_none(), "{}:{line}: {form} is covered by {wider:?}", shipped.name);
            }
            for entry in &entries {
                assert!(entry.reason.len() >= 20, "{}: {}", shipped.name, entry.id);
                assert!(entry.review_by >= Day::parse("2027-01-01").expect("day"), "{}: {}", shipped.name, entry.id);
            }
        }
    }

    /// Whoever registers there gets names that the pack would pay for.
    #[test]
    fn no_shipped_entry_covers_names_that_customers_choose() {
        for shipped in PACKS {
            let entries = parse(shipped.text.as_bytes()).expect("good");
            for name in [
                "x.netlify.app",
                "x.pages.dev",
                "x.workers.dev",
                "x.github.io",
                "x.herokuapp.com",
                "x.vercel.app",
                "x.azurewebsites.net",
                "x.web.app",
                "x.firebaseapp.com",
                "x.appspot.com",
                "x.run.app",
                "x.duckdns.org",
                "x.s3.amazonaws.com",
                "x.s3.us-east-2.amazonaws.com",
                "x.s3-website-us-east-1.amazonaws.com",
                "x.execute-api.us-east-1.amazonaws.com",
                "x.elasticbeanstalk.com",
                "x.storage.googleapis.com",
                "x.blogspot.com",
                "x.sharepoint.com",
                "x.cloudapp.net",
                "x.cloudapp.azure.com",
                "x.fly.dev",
                "x.onrender.com",
                "x.ngrok-free.app",
                "x.in-addr.arpa",
                "4.3.2.1.in-addr.arpa",
                "x.ip6.arpa",
                "_acme-challenge.example.org",
                "_dmarc.example.org",
                "s1._domainkey.example.org",
            ] {
                let name = staunch_scoring::NameBuf::from_text(name).expect("name");
                let by = entries.iter().find(|e| e.names.iter().any(|(form, _)| form.covers(name.as_ref())));
                assert!(by.is_none(), "{}: {name} is covered by {}", shipped.name, by.map_or("", |e| &e.id));
            }
        }
    }
}
