//! Authoritative local zones: names answered from the operator's own zone files. Nothing of them leaves.
//!
//! Beside [`crate::local`] (special-use names); asked by the pipeline before lists and scoring. Parsing and storage are
//! hickory-server's `Catalog` and `InMemoryZoneHandler`; [`handler`] stands in front of them for the rules of RFC 4592 on
//! wildcards and empty non-terminals, and [`text`] in front of the parser. What the client sent never gets here, and what it
//! is shown is written by [`crate::answer`] and [`crate::reply`] like any other answer.
//!
//! Not here: zone transfers and updates (refused), delegations and DNAME (load errors), DNSSEC signing.

mod handler;
mod text;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashSet;
use hickory_proto::op::Message;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordSet, RecordType, RrKey};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use hickory_proto::serialize::txt::Parser;
use hickory_server::net::NetError;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{Catalog, MessageResponse};
use parking_lot::Mutex;
use staunch_scoring::{NameBuf, NameRef, QName};

use self::handler::ExactZone;
use crate::model::Qtype;
use crate::{regular, svc_params};

/// Who asks: the catalog answers everybody alike.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// How deep files may include others.
const INCLUDES: usize = 8;
/// Largest zone file, octets. Chosen without a source: some hundred thousand records.
const MAX_FILE: u64 = 64 << 20;

/// Why a zone cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// The file cannot be read.
    #[error("{}: cannot read zone `{zone}`", file.display())]
    Read {
        /// Zone.
        zone: NameBuf,
        /// File.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file's text is no zone.
    #[error("{}:{}: {what}", file.display(), line.map_or("?".into(), |l| l.to_string()))]
    Text {
        /// File, as given; an included file's errors are told of the line that includes it.
        file: PathBuf,
        /// Line, from 1, where it is known.
        line: Option<usize>,
        /// What the parser said.
        what: String,
    },
    /// The records do not make a zone.
    #[error("{}: zone `{zone}`: {what}", file.display())]
    Content {
        /// Zone.
        zone: NameBuf,
        /// File.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl ZoneError {
    /// The line of the file, from 1; 0 where the file as a whole is meant or the line is not known.
    pub fn line(&self) -> u32 {
        match self {
            Self::Text { line, .. } => line.map_or(0, |line| u32::try_from(line).unwrap_or(u32::MAX)),
            Self::Read { .. } | Self::Content { .. } => 0,
        }
    }

    /// What is wrong, without the file.
    pub fn problem(&self) -> String {
        match self {
            Self::Read { zone, source, .. } => format!("zone `{zone}` cannot be read: {source}"),
            Self::Text { what, .. } => what.clone(),
            Self::Content { zone, what, .. } => format!("zone `{zone}`: {what}"),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => "paths are relative to the file that names them; check name and permissions",
            Self::Text { .. } => {
                "correct it; zones are text in master-file form (RFC 1035 section 5), without DNAME, and without types that \
                 have a number for a name (RFC 3597)"
            }
            Self::Content { .. } => {
                "a zone has one SOA, at its apex, no delegations, and no more addresses at a name than an answer shows"
            }
        }
    }
}

/// The local zones of one configuration. Never changes; a reload makes another.
#[derive(Default)]
pub struct Zones {
    /// Wire octets of the origins.
    origins: HashSet<Box<[u8]>, foldhash::quality::RandomState>,
    catalog: Catalog,
}

impl std::fmt::Debug for Zones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zones").field("count", &self.origins.len()).finish()
    }
}

impl Zones {
    /// Reads each zone from its file. The first error ends it: half a configuration is none.
    pub fn load(list: &[(NameBuf, PathBuf)]) -> Result<Self, ZoneError> {
        let mut zones = Self::default();
        for (zone, file) in list {
            zones.add(zone, file)?;
        }
        Ok(zones)
    }

    /// Reads one more zone from its file.
    ///
    /// # Errors
    /// What is wrong with it; then nothing of it was added.
    pub fn add(&mut self, zone: &NameBuf, file: &Path) -> Result<(), ZoneError> {
        let content = |what| ZoneError::Content { zone: zone.clone(), file: file.into(), what };
        let origin = name(zone.as_ref());
        let handler = ExactZone::new(origin.clone(), read(zone, &origin, file)?).map_err(content)?;
        if !self.origins.insert(zone.as_ref().as_wire().into()) {
            return Err(content("is given twice".into()));
        }
        self.catalog.upsert(LowerName::new(&origin), vec![Arc::new(handler)]);
        Ok(())
    }

    /// Whether `name` is at or below a local zone. Allocates nothing.
    pub fn covers(&self, name: NameRef<'_>) -> bool {
        !self.origins.is_empty() && name.ancestors().any(|ancestor| self.origins.contains(ancestor.as_wire()))
    }

    /// Whether a local zone is strictly below `name`. Looks at every zone: for denials.
    pub fn any_below(&self, name: NameRef<'_>) -> bool {
        self.origins.iter().any(|origin| NameRef::from_wire(origin).is_ok_and(|origin| origin.is_below(name)))
    }

    /// Number of zones.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// What the zones know of a question, as a response message for [`crate::answer`] to read; empty where there is none, which
    /// reads as no message. Names outside the zones are REFUSED: ask [`Self::covers`] first.
    pub async fn answer(&self, qname: NameRef<'_>, qtype: Qtype) -> Vec<u8> {
        // A question of our own, whatever the client's was like: its options are not for the library to read.
        let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(qname.as_wire());
        query.extend_from_slice(&qtype.0.to_be_bytes());
        query.extend_from_slice(&[0, 1]);
        let Ok(request) = Request::from_bytes(query, NOBODY, Protocol::Tcp) else { return Vec::new() };
        let capture = Capture::default();
        self.catalog.handle_request::<_, TokioTime>(&request, capture.clone()).await;
        std::mem::take(&mut *capture.0.lock())
    }

    /// The name that `qname` is another word for, and how long that is so, seconds.
    pub async fn alias(&self, qname: NameRef<'_>) -> Option<(NameBuf, u32)> {
        let message = Message::from_vec(&self.answer(qname, Qtype::CNAME).await).ok()?;
        message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((canonical(target)?, record.ttl)),
            _ => None,
        })
    }
}

/// hickory's form of a name.
fn name(of: NameRef<'_>) -> Name {
    // A canonical name is never longer than a name may be, which is all that can be wrong here.
    let mut name = Name::from_labels(of.labels()).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

/// Our form of a name.
fn canonical(of: &Name) -> Option<NameBuf> {
    let mut wire = Vec::with_capacity(256);
    for label in of.iter() {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    QName::read(&wire).ok().map(|(name, _)| name.as_ref().to_owned())
}

/// Reads and checks one file.
fn read(zone: &NameBuf, origin: &Name, file: &Path) -> Result<BTreeMap<RrKey, RecordSet>, ZoneError> {
    let unreadable = |source| ZoneError::Read { zone: zone.clone(), file: file.into(), source };
    let octets = regular::read(file, MAX_FILE).map_err(unreadable)?;
    let text = String::from_utf8(without_mark(octets)).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(valid).filter(|octet| **octet == b'\n').count();
        ZoneError::Text { file: file.into(), line: Some(line), what: "not UTF-8".into() }
    })?;
    let wrong = |(line, what)| ZoneError::Text { file: file.into(), line: Some(line), what };
    // As the parser reads it.
    let (text, _) = text::made_plain(&text, &origin.to_string()).map_err(wrong)?;
    included_plain(&text, file, INCLUDES).map_err(wrong)?;
    parse(&text, file, origin).map_err(|what| ZoneError::Text {
        file: file.into(),
        line: line_of(&what, &text, file, origin),
        what,
    })
}

/// A file's octets without the mark of UTF-8 that some editors begin it with.
fn without_mark(mut octets: Vec<u8>) -> Vec<u8> {
    if octets.starts_with(b"\xef\xbb\xbf") {
        octets.drain(..3);
    }
    octets
}

/// Where an included file is looked for.
fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// Checks that the parser, which opens included files by itself, reads them as they are meant, and what stands behind them; what
/// cannot be read is told by it. Returns whether an origin is set in one of them. An error is of a line of `text`.
fn included_plain(text: &str, file: &Path, depth: usize) -> Result<bool, (usize, String)> {
    let mut sets_origin = false;
    for (line, name) in text::included(text) {
        // RFC 1035 section 5.1 has the origin of the including file hold behind it; the parser goes on with the last one.
        if plain_already(&beside(file, name), depth).map_err(|what| (line, what))? {
            if !text::begins_anew_behind(text, line) {
                let what =
                    format!("{name} sets $ORIGIN, which would hold behind it too: write $ORIGIN as the next line here");
                return Err((line, what));
            }
            sets_origin = true;
        }
    }
    Ok(sets_origin)
}

/// The same of one included file.
fn plain_already(file: &Path, depth: usize) -> Result<bool, String> {
    let octets = match regular::read(file, MAX_FILE) {
        Ok(octets) => octets,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let text = String::from_utf8(octets).map_err(|_| format!("{}: not UTF-8", file.display()))?;
    // What names in it are relative to does not matter: nothing is read that depends on it.
    let made = text::made_plain(&text, ".").map_err(|(line, what)| format!("{}:{line}: {what}", file.display()))?;
    let (plain, differs) = made;
    if differs {
        let what = "escapes by number, quotation marks between parentheses, `@` in data and an origin that is relative are read \
                    in the zone's own file alone";
        return Err(format!("{}: {what}", file.display()));
    }
    let further = depth.checked_sub(1).ok_or_else(|| format!("{}: included too deep", file.display()))?;
    let nested = included_plain(&plain, file, further);
    let nested = nested.map_err(|(line, what)| format!("{}:{line}: {what}", file.display()))?;
    Ok(nested || text::sets_origin(&plain))
}

fn parse(text: &str, file: &Path, origin: &Name) -> Result<BTreeMap<RrKey, RecordSet>, String> {
    let parser = Parser::new(text, Some(file.into()), Some(origin.clone()));
    let (_, mut records) = parser.parse().map_err(|error| error.to_string())?;
    for (key, set) in &mut records {
        made_whole(set).map_err(|what| format!("{} of `{}`: {what}", key.record_type, key.name()))?;
    }
    Ok(records)
}

/// Puts records in the form in which they can be answered: what could not be would fail with every question for it.
fn made_whole(set: &mut RecordSet) -> Result<(), String> {
    if matches!(set.record_type(), RecordType::SVCB | RecordType::HTTPS) {
        let mut whole: Vec<Record> = Vec::new();
        for mut record in set.records_without_rrsigs().cloned() {
            svc_params::put_in_order(&mut record.data)?;
            // Two ways of writing one.
            if !whole.iter().any(|known| known.data == record.data) {
                whole.push(record);
            }
        }
        set.set_records(whole);
    }
    // All of a set are kept for the same time (RFC 2181 section 5.2).
    let least = set.records_without_rrsigs().map(|record| record.ttl).min();
    set.set_ttl(least.unwrap_or(0));
    let mut octets = Vec::new();
    for record in set.records_without_rrsigs() {
        octets.clear();
        let mut encoder = BinEncoder::new(&mut octets);
        encoder.set_max_size(u16::MAX);
        record.emit(&mut encoder).map_err(|error| format!("cannot be answered: {error}"))?;
    }
    Ok(())
}

/// The line that `what` is about. The parser does not say, but it reads in order: it is the last line of the shortest
/// beginning of the file that fails in the same way.
fn line_of(what: &str, text: &str, file: &Path, origin: &Name) -> Option<usize> {
    let ends: Vec<usize> = text
        .split_inclusive('\n')
        .scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        })
        .collect();
    let fails = |lines: usize| {
        let upto = lines.checked_sub(1).and_then(|i| ends.get(i)).copied().unwrap_or(0);
        parse(&text[..upto], file, origin).is_err_and(|error| error == what)
    };
    let (mut good, mut bad) = (0, ends.len());
    while good + 1 < bad {
        let middle = good + (bad - good) / 2;
        if fails(middle) { bad = middle } else { good = middle }
    }
    (bad > 0 && fails(bad)).then_some(bad)
}

/// Takes the reply as octets instead of sending it.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

#[async_trait::async_trait]
impl ResponseHandler for Capture {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut out = Vec::with_capacity(512);
        let info = {
            let mut encoder = BinEncoder::new(&mut out);
            encoder.set_max_size(u16::MAX);
            response.destructive_emit(&mut encoder)?
        };
        *self.0.lock() = out;
        Ok(info)
    }
}

#[cfg(test)]
mod tests;
