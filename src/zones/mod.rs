//! Authoritative local zones: names answered from the operator's own zone files. Nothing of them leaves.
//!
//! Beside [`crate::local`] (special-use names); asked by the pipeline before lists and scoring. Parsing, storage, alias
//! chasing and message assembly are hickory-server's `Catalog` and `InMemoryZoneHandler`; [`handler`] stands in front of
//! them for the rules of RFC 4592 on wildcards and empty non-terminals.
//!
//! Not here: zone transfers and updates (refused), delegations (a load error), DNSSEC signing.

mod handler;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashSet;
use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordSet, RrKey};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_proto::serialize::txt::Parser;
use hickory_server::net::NetError;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{Catalog, MessageResponse};
use parking_lot::Mutex;
use staunch_scoring::{NameBuf, NameRef};

use self::handler::ExactZone;
use crate::model::Transport;

/// Largest UDP reply, whatever the client offers (RFC 9715).
const UDP_PAYLOAD: u16 = 1232;
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
            Self::Text { .. } => "correct it; zones are text in master-file form (RFC 1035 section 5)",
            Self::Content { .. } => "a zone has one SOA, at its apex, and no delegations",
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

    /// Number of zones.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Answers one query message, and says which addresses the answer lets a session reach.
    ///
    /// The reply is authoritative (AA), at most what the client takes and 1,232 octets over UDP (512 without EDNS), with
    /// TC and no records where more would be needed. Names outside the zones are REFUSED: ask [`Self::covers`] first.
    /// Empty if `query` is not even a header.
    pub async fn answer(&self, query: &[u8], from: SocketAddr, transport: Transport) -> (Vec<u8>, Vec<IpAddr>) {
        let protocol = match transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let Ok(request) = Request::from_bytes(query.to_vec(), from, protocol) else {
            return (format_error(query), Vec::new());
        };
        let limit = match (transport, &request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => 512,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(512, UDP_PAYLOAD),
        };
        let capture = Capture { limit, out: Arc::new(Mutex::new(Vec::new())) };
        self.catalog.handle_request::<_, TokioTime>(&request, capture.clone()).await;
        let reply = std::mem::take(&mut *capture.out.lock());
        if reply.is_empty() {
            return (format_error(query), Vec::new());
        }
        let pins = reachable(&reply);
        (reply, pins)
    }
}

/// hickory's form of a name.
fn name(of: NameRef<'_>) -> Name {
    // A canonical name is never longer than a name may be, which is all that can be wrong here.
    let mut name = Name::from_labels(of.labels()).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

/// Reads and checks one file.
fn read(zone: &NameBuf, origin: &Name, file: &Path) -> Result<BTreeMap<RrKey, RecordSet>, ZoneError> {
    let unreadable = |source| ZoneError::Read { zone: zone.clone(), file: file.into(), source };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_FILE {
        let what = format!("{size} octets, at most {MAX_FILE} are read");
        return Err(ZoneError::Content { zone: zone.clone(), file: file.into(), what });
    }
    let octets = std::fs::read(file).map_err(unreadable)?;
    let text = String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(valid).filter(|octet| **octet == b'\n').count();
        ZoneError::Text { file: file.into(), line: Some(line), what: "not UTF-8".into() }
    })?;
    parse(&text, file, origin).map_err(|what| ZoneError::Text {
        file: file.into(),
        line: line_of(&what, &text, file, origin),
        what,
    })
}

fn parse(text: &str, file: &Path, origin: &Name) -> Result<BTreeMap<RrKey, RecordSet>, String> {
    let parser = Parser::new(text, Some(file.into()), Some(origin.clone()));
    parser.parse().map(|(_, records)| records).map_err(|error| error.to_string())
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

/// FORMERR for what does not parse (RFC 8906 section 3.1).
fn format_error(query: &[u8]) -> Vec<u8> {
    let Some(header) = query.first_chunk::<12>() else { return Vec::new() };
    let mut reply = vec![0; 12];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = 0x81;
    reply
}

/// Addresses in the answer section, hints of service records included, that can be connected to at all.
fn reachable(reply: &[u8]) -> Vec<IpAddr> {
    let Ok(message) = Message::from_vec(reply) else { return Vec::new() };
    let mut found: Vec<IpAddr> = Vec::new();
    for record in &message.answers {
        match &record.data {
            RData::A(a) => found.push(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => found.push(IpAddr::V6(aaaa.0)),
            RData::HTTPS(https) => hints(&https.0, &mut found),
            RData::SVCB(svcb) => hints(svcb, &mut found),
            _ => {}
        }
    }
    found.retain(|addr| !addr.is_loopback() && !addr.is_unspecified() && !addr.is_multicast());
    found.sort_unstable();
    found.dedup();
    found
}

fn hints(svcb: &SVCB, to: &mut Vec<IpAddr>) {
    for (_, value) in &svcb.svc_params {
        match value {
            SvcParamValue::Ipv4Hint(hint) => to.extend(hint.0.iter().map(|a| IpAddr::V4(a.0))),
            SvcParamValue::Ipv6Hint(hint) => to.extend(hint.0.iter().map(|a| IpAddr::V6(a.0))),
            _ => {}
        }
    }
}

/// Takes the reply as octets instead of sending it.
#[derive(Clone)]
struct Capture {
    limit: u16,
    out: Arc<Mutex<Vec<u8>>>,
}

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
        // Ours in place of the client's own numbers handed back.
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        let with_edns = response.edns().is_some();
        let mut response = response;
        if with_edns {
            response.set_edns(&edns);
        }
        // The service as a whole recurses (by forwarding); stubs look at RA of every reply alike.
        response.metadata_mut().recursion_available = true;
        let mut out = Vec::with_capacity(512);
        let info = {
            let mut encoder = BinEncoder::new(&mut out);
            encoder.set_max_size(self.limit);
            response.destructive_emit(&mut encoder)?
        };
        if info.truncation {
            // Part of a set is worse than none (RFC 2181 section 9): the question alone, and our OPT record.
            let question = question_end(&out);
            out.truncate(question);
            out.get_mut(6..12).unwrap_or_default().copy_from_slice(&[0, 0, 0, 0, 0, u8::from(with_edns)][..]);
            if with_edns {
                out.extend_from_slice(&[0, 0, 41]);
                out.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
            }
        }
        *self.out.lock() = out;
        Ok(info)
    }
}

/// Where the first question of our own reply ends.
fn question_end(reply: &[u8]) -> usize {
    let mut at = 12;
    while let Some(&len @ 1..) = reply.get(at) {
        at += 1 + usize::from(len);
    }
    (at + 5).min(reply.len())
}

#[cfg(test)]
mod tests;
