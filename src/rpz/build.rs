//! Records become rules: triggers are read from owners, actions from data, and what could not be kept is a mistake.

use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use staunch_scoring::{NameBuf, NameRef};

use super::prefix::{Prefix, Prefixes};
use super::{Action, DATA_MASK, NONE, Node, RecordOf, Rule, Rules, Soa, rdata};
use crate::lists::{Flat, HashKey, Suffixes};
use crate::model::Qtype;

/// Most records at one owner.
const MAX_AT_OWNER: u16 = 256;

/// What is wrong with a zone, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where the zone as a whole is meant, or where it came by a transfer.
    pub line: u32,
    /// What.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// Whether it is a record that no question or answer here could meet, rather than a damaged one: what is left of the zone
    /// says the same without it.
    pub unsupported: bool,
}

impl Problem {
    pub(super) fn new(line: u32, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { line, what: what.into(), remedy, unsupported: false }
    }

    fn unsupported(line: u32, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { unsupported: true, ..Self::new(line, what, remedy) }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line != 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Why a zone does not load: its first mistakes, and how many more there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Errors {
    /// In the order of lines, [`Errors::KEPT`] at most.
    pub first: Vec<Problem>,
    /// Further ones.
    pub more: u32,
}

impl Errors {
    /// Most mistakes that are told one by one.
    pub const KEPT: usize = 20;

    /// Notes one more.
    pub fn push(&mut self, problem: Problem) {
        if self.first.len() < Self::KEPT { self.first.push(problem) } else { self.more = self.more.saturating_add(1) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

impl From<Problem> for Errors {
    fn from(problem: Problem) -> Self {
        Self { first: vec![problem], more: 0 }
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, problem) in self.first.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        if self.more > 0 { write!(f, "\n{} more", self.more) } else { Ok(()) }
    }
}

/// What a trigger is.
enum Kind {
    Name { wild: bool },
    Client(Prefix),
    Address(Prefix),
}

/// Records at one trigger, as they are gathered.
struct Gathered {
    count: u16,
    alias: bool,
    octets: Vec<u8>,
}

/// Collects a zone's records; [`Builder::finish`] makes the rules.
pub struct Builder {
    origin: NameBuf,
    key: HashKey,
    soa: Option<Soa>,
    nodes: Vec<Node>,
    /// Node of a fingerprint.
    names: HashMap<u64, u32, RandomState>,
    clients: HashMap<Prefix, u32, RandomState>,
    addresses: HashMap<Prefix, u32, RandomState>,
    rules: Vec<Rule>,
    local: HashMap<u32, Gathered, RandomState>,
    left_out: u32,
    lenient: bool,
}

impl Builder {
    /// No records yet. `lenient`: what has no meaning here is counted instead of refused.
    pub fn new(origin: NameRef<'_>, key: HashKey, lenient: bool) -> Self {
        Self {
            origin: origin.to_owned(),
            key,
            soa: None,
            nodes: vec![Node { exact: NONE, wild: NONE }],
            names: HashMap::default(),
            clients: HashMap::default(),
            addresses: HashMap::default(),
            rules: Vec::new(),
            local: HashMap::default(),
            left_out: 0,
            lenient,
        }
    }

    /// Takes a record; its data is in wire form with no name compressed.
    ///
    /// # Errors
    /// [`Problem`]; the record is then left out, and others can still be tried.
    pub fn add(&mut self, record: &RecordOf<'_>) -> Result<(), Problem> {
        match self.take(record) {
            Err(problem) if problem.unsupported && self.lenient => {
                self.left_out += 1;
                Ok(())
            }
            outcome => outcome,
        }
    }

    #[allow(clippy::indexing_slicing, reason = "a node's number is its place in the table that gave it")]
    fn take(&mut self, record: &RecordOf<'_>) -> Result<(), Problem> {
        let line = record.line;
        if !rdata::is_whole(record.rtype, record.rdata) {
            let what = format!("the data of `{}` {} is malformed", record.owner, Qtype(record.rtype));
            return Err(Problem::new(line, what, "correct the record"));
        }
        if !record.owner.is_at_or_below(self.origin.as_ref()) {
            let what = format!("`{}` is outside the zone `{}`", record.owner, self.origin);
            let remedy =
                "write owners relative to the zone's name, without a last dot, or set unsupported = \"ignore\"";
            return Err(Problem::unsupported(line, what, remedy));
        }
        if record.owner == self.origin.as_ref() {
            return self.apex(record);
        }
        // What signs a zone says nothing of names; data of meta types cannot stand in one.
        match record.rtype {
            24 | 25 | 46..=48 | 50 | 51 | 59..=63 => return Ok(()),
            2 | 6 | 39 | 43 => {
                let what = format!("{} at `{}` has no meaning as a policy", Qtype(record.rtype), record.owner);
                return Err(Problem::unsupported(line, what, "remove the record, or set unsupported = \"ignore\""));
            }
            0 | 41 | 128..=255 => {
                let what = format!("{} is no type of data", Qtype(record.rtype));
                return Err(Problem::new(line, what, "remove the record"));
            }
            _ => {}
        }
        let mut relative = record.owner.payload_part(self.origin.as_ref()).to_vec();
        relative.push(0);
        let trigger = NameRef::from_wire(&relative)
            .map_err(|error| Problem::new(line, format!("`{}`: {error}", record.owner), "correct the owner"))?;
        let kind = kind_of(trigger, line)?;
        let self_alias = matches!(kind, Kind::Name { wild: false }).then_some(trigger);
        let action = action_of(record, self_alias)?;
        let slot = match kind {
            Kind::Name { wild } => {
                let node = self.node(if wild { trigger.strip_left(1) } else { trigger });
                let node = &mut self.nodes[node as usize];
                if wild { &mut node.wild } else { &mut node.exact }
            }
            Kind::Client(prefix) => self.clients.entry(prefix).or_insert(NONE),
            Kind::Address(prefix) => self.addresses.entry(prefix).or_insert(NONE),
        };
        let fresh = *slot == NONE;
        if fresh {
            if self.rules.len() as u32 >= DATA_MASK {
                return Err(Problem::new(line, "the zone has too many triggers", "divide the zone"));
            }
            *slot = self.rules.len() as u32;
            self.rules.push(Rule::new(line, action, 0));
        }
        let number = *slot;
        self.gather(number, fresh, action, record)
    }

    /// Puts a record to those of its rule.
    #[allow(clippy::indexing_slicing, reason = "a rule's number is its place in the table that gave it")]
    fn gather(&mut self, number: u32, fresh: bool, action: Action, record: &RecordOf<'_>) -> Result<(), Problem> {
        let conflict = || {
            let what = format!("`{}` has a CNAME beside other records", record.owner);
            Problem::new(record.line, what, "keep one of them")
        };
        if !fresh {
            let before = self.rules[number as usize].action();
            if before != Action::Local || action != Action::Local {
                return if before == action { Ok(()) } else { Err(conflict()) };
            }
        }
        if action != Action::Local {
            return Ok(());
        }
        let alias = record.rtype == Qtype::CNAME.0;
        let entry = self.local.entry(number);
        let gathered = match entry {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Gathered { count: 0, alias, octets: Vec::new() }),
        };
        let mut octets = record.rtype.to_be_bytes().to_vec();
        octets.extend_from_slice(&record.ttl.to_be_bytes());
        octets.extend_from_slice(&(record.rdata.len() as u16).to_be_bytes());
        octets.extend_from_slice(record.rdata);
        if super::local::records_in(&gathered.octets).any(|r| r.rtype == record.rtype && r.rdata == record.rdata) {
            return Ok(());
        }
        if gathered.count > 0 && (gathered.alias || alias) {
            return Err(conflict());
        }
        if gathered.count == MAX_AT_OWNER {
            let what = format!("`{}` has more than {MAX_AT_OWNER} records", record.owner);
            return Err(Problem::new(record.line, what, "remove some"));
        }
        gathered.count += 1;
        gathered.octets.extend_from_slice(&octets);
        Ok(())
    }

    fn apex(&mut self, record: &RecordOf<'_>) -> Result<(), Problem> {
        if record.rtype != Qtype::SOA.0 {
            return Ok(());
        }
        if self.soa.is_some() {
            return Err(Problem::new(record.line, "a second SOA", "keep one"));
        }
        self.soa = rdata::soa(record.rdata);
        Ok(())
    }

    /// The node of a name, made with all its ancestors where it is not there.
    fn node(&mut self, name: NameRef<'_>) -> u32 {
        let mut node = 0;
        for suffix in Suffixes::of(name, &self.key) {
            let next = self.nodes.len() as u32;
            node = *self.names.entry(suffix.hash).or_insert(next);
            if node == next {
                self.nodes.push(Node { exact: NONE, wild: NONE });
            }
        }
        node
    }

    /// Makes the rules; `file` is where lines are counted.
    ///
    /// # Errors
    /// A zone without SOA, or one whose records are more than can be numbered.
    #[allow(clippy::indexing_slicing, reason = "a rule's number is its place in the table that gave it")]
    pub fn finish(self, file: &str) -> Result<Rules, Problem> {
        let soa = self.soa.ok_or_else(|| {
            let what = format!("no SOA at `{}`", self.origin);
            Problem::new(0, what, "begin the zone with one, at the name that the configuration gives it")
        })?;
        let (mut rules, mut data) = (self.rules, Vec::new());
        let mut local: Vec<_> = self.local.into_iter().collect();
        local.sort_unstable_by_key(|(number, _)| *number);
        for (number, gathered) in local {
            let rule = &mut rules[number as usize];
            if data.len() as u64 + gathered.octets.len() as u64 + 2 > u64::from(DATA_MASK) {
                return Err(Problem::new(rule.line, "the zone has too much local data", "divide the zone"));
            }
            *rule = Rule::new(rule.line, Action::Local, data.len() as u32);
            data.extend_from_slice(&gathered.count.to_be_bytes());
            data.extend_from_slice(&gathered.octets);
        }
        let mut names = Flat::with_room_for(self.names.len());
        for (fingerprint, node) in self.names {
            names.insert(fingerprint, node, |old, _| old);
        }
        Ok(Rules {
            origin: self.origin,
            file: Arc::from(file),
            soa,
            key: self.key,
            names,
            nodes: self.nodes.into(),
            clients: Prefixes::new(self.clients),
            addresses: Prefixes::new(self.addresses),
            rules: rules.into(),
            data: data.into(),
            left_out: self.left_out,
        })
    }
}

/// The trigger that an owner is, the zone's own labels taken off.
fn kind_of(trigger: NameRef<'_>, line: u32) -> Result<Kind, Problem> {
    let labels: Vec<&[u8]> = trigger.labels().collect();
    let Some((last, front)) = labels.split_last() else { return Ok(Kind::Name { wild: false }) };
    if !last.starts_with(b"rpz-") {
        return Ok(Kind::Name { wild: labels.first() == Some(&&b"*"[..]) });
    }
    let bad = |what: String| {
        let what = format!("`{trigger}`: {what}");
        let remedy = "write it as 24.0.2.0.192 for 192.0.2.0/24, 32.zz.db8.2001 for 2001:db8::/32, or set unsupported = \"ignore\"";
        Problem::unsupported(line, what, remedy)
    };
    match *last {
        b"rpz-ip" => Prefix::read(front).map(Kind::Address).map_err(bad),
        b"rpz-client-ip" => Prefix::read(front).map(Kind::Client).map_err(bad),
        b"rpz-nsdname" | b"rpz-nsip" => Err(Problem::unsupported(
            line,
            format!("`{trigger}`: a forwarder sees no name servers, so this trigger can never match"),
            "remove it, name the domains themselves, or set unsupported = \"ignore\"",
        )),
        _ => Err(Problem::unsupported(
            line,
            format!("`{trigger}`: no such trigger"),
            "use a name, rpz-client-ip or rpz-ip, or set unsupported = \"ignore\"",
        )),
    }
}

/// What a record does. `name`: the exact name it stands at; a CNAME to it is an old way to write PASSTHRU.
fn action_of(record: &RecordOf<'_>, name: Option<NameRef<'_>>) -> Result<Action, Problem> {
    if record.rtype != Qtype::CNAME.0 {
        return Ok(Action::Local);
    }
    // The data was checked.
    let target = rdata::folded(record.rdata).unwrap_or_else(|| NameRef::ROOT.to_owned());
    let target = target.as_ref();
    if target.is_root() {
        return Ok(Action::Nxdomain);
    }
    let mut labels = target.labels();
    match (labels.next(), labels.next()) {
        (Some(b"*"), None) => Ok(Action::Nodata),
        (Some(b"rpz-passthru"), None) => Ok(Action::Passthru),
        (Some(b"rpz-drop"), None) => Ok(Action::Drop),
        (Some(b"rpz-tcp-only"), None) => Ok(Action::TcpOnly),
        (Some(label), None) if label.starts_with(b"rpz-") => Err(Problem::unsupported(
            record.line,
            format!("`{target}` is no action"),
            "use . *. rpz-passthru. rpz-drop. rpz-tcp-only. or the name to lead to, or set unsupported = \"ignore\"",
        )),
        _ if name == Some(target) => Ok(Action::Passthru),
        _ => Ok(Action::Local),
    }
}
