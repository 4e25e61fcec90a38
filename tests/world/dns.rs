//! DNS messages, written and read by hand: an encoder and a decoder that share no code with the resolver under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Record types by number (the IANA registry).
pub mod rtype {
    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const NULL: u16 = 10;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const KEY: u16 = 25;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
}

/// Response codes by number.
pub mod rcode {
    pub const NOERROR: u8 = 0;
    pub const FORMERR: u8 = 1;
    pub const SERVFAIL: u8 = 2;
    pub const NXDOMAIN: u8 = 3;
    pub const REFUSED: u8 = 5;
}

/// A query to be written, with what a hostile or odd stub may put into it.
#[derive(Clone)]
pub struct Query {
    /// Presentation form; octets as they are, case kept.
    pub name: String,
    /// Type.
    pub qtype: u16,
    /// Message id.
    pub id: u16,
    /// Second 16 bits of the header.
    pub flags: u16,
    /// UDP payload size of the OPT record, and whether there is one.
    pub payload: Option<u16>,
    /// DO bit.
    pub dnssec_ok: bool,
    /// EDNS options: code and data.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Query {
    /// A plain stub's query.
    pub fn new(name: &str, qtype: u16) -> Self {
        let id = (std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_nanos()) >> 3) as u16;
        Self { name: name.into(), qtype, id, flags: 0x0100, payload: None, dnssec_ok: false, options: Vec::new() }
    }

    /// Adds an OPT record.
    pub fn edns(mut self, payload: u16) -> Self {
        self.payload = Some(payload);
        self
    }

    /// Adds an EDNS option, and the OPT record where there is none.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.payload.get_or_insert(4096);
        self.options.push((code, data.to_vec()));
        self
    }

    /// On the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let additional = u16::from(self.payload.is_some());
        for word in [self.id, self.flags, 1, 0, 0, additional] {
            out.extend(word.to_be_bytes());
        }
        put_name(&mut out, &self.name);
        out.extend(self.qtype.to_be_bytes());
        out.extend(1u16.to_be_bytes());
        if let Some(payload) = self.payload {
            out.push(0);
            out.extend(rtype::OPT.to_be_bytes());
            out.extend(payload.to_be_bytes());
            out.extend(if self.dnssec_ok { 0x8000u32 } else { 0 }.to_be_bytes());
            let length: usize = self.options.iter().map(|(_, data)| 4 + data.len()).sum();
            out.extend((length as u16).to_be_bytes());
            for (code, data) in &self.options {
                out.extend(code.to_be_bytes());
                out.extend((data.len() as u16).to_be_bytes());
                out.extend(data);
            }
        }
        out
    }
}

/// A record as read.
#[derive(Debug, Clone)]
pub struct Record {
    /// Owner, case kept, no final dot.
    pub name: String,
    /// Type.
    pub rtype: u16,
    /// Class; of an OPT record the payload size.
    pub class: u16,
    /// Seconds; of an OPT record the extended flags.
    pub ttl: u32,
    /// As on the wire; compressed names are not followed.
    pub rdata: Vec<u8>,
    /// Name in the data of CNAME and SOA (its first), followed.
    pub target: Option<String>,
}

/// A message as read.
#[derive(Debug, Clone)]
pub struct Message {
    /// Message id.
    pub id: u16,
    /// Second 16 bits of the header.
    pub flags: u16,
    /// Name of the only question, case kept, no final dot.
    pub name: String,
    /// Its type.
    pub qtype: u16,
    /// Its class.
    pub class: u16,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section.
    pub additional: Vec<Record>,
    /// Octets behind the last record.
    pub trailing: usize,
}

impl Message {
    /// Reads a message with exactly one question; `None` where it is malformed.
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*raw.get(at)?, *raw.get(at + 1)?]));
        if word(4)? != 1 {
            return None;
        }
        let (name, mut at) = read_name(raw, 12)?;
        let (qtype, class) = (word(at)?, word(at + 2)?);
        at += 4;
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for (i, section) in sections.iter_mut().enumerate() {
            for _ in 0..word(6 + 2 * i)? {
                let (name, next) = read_name(raw, at)?;
                let (rtype, length) = (word(next)?, word(next + 8)? as usize);
                let ttl = u32::from(word(next + 4)?) << 16 | u32::from(word(next + 6)?);
                let start = next + 10;
                let rdata = raw.get(start..start + length)?.to_vec();
                let named = matches!(rtype, rtype::CNAME | rtype::SOA);
                let target = if named { Some(read_name(raw, start)?.0) } else { None };
                section.push(Record { name, rtype, class: word(next + 2)?, ttl, rdata, target });
                at = start + length;
            }
        }
        let [answers, authority, additional] = sections;
        let trailing = raw.len() - at;
        Some(Self { id: word(0)?, flags: word(2)?, name, qtype, class, answers, authority, additional, trailing })
    }

    /// Response code, without its extension.
    pub fn rcode(&self) -> u8 {
        (self.flags & 15) as u8
    }

    /// Whether it was cut short.
    pub fn truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// Addresses in the answer section.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.answers.iter().filter_map(Record::address).collect()
    }

    /// Texts of the TXT records in the answer section.
    pub fn texts(&self) -> Vec<String> {
        self.answers.iter().filter(|r| r.rtype == rtype::TXT).map(Record::text).collect()
    }

    /// The OPT record.
    pub fn opt(&self) -> Option<&Record> {
        self.additional.iter().find(|r| r.rtype == rtype::OPT)
    }

    /// EDNS options: code and data.
    pub fn options(&self) -> Vec<(u16, Vec<u8>)> {
        let Some(opt) = self.opt() else { return Vec::new() };
        let mut rest = opt.rdata.as_slice();
        let mut found = Vec::new();
        while let [c0, c1, l0, l1, body @ ..] = rest {
            let length = u16::from_be_bytes([*l0, *l1]) as usize;
            let Some(data) = body.get(..length) else { break };
            found.push((u16::from_be_bytes([*c0, *c1]), data.to_vec()));
            rest = &body[length..];
        }
        found
    }

    /// The data of the first EDNS option of this code.
    pub fn option(&self, code: u16) -> Option<Vec<u8>> {
        self.options().into_iter().find(|(found, _)| *found == code).map(|(_, data)| data)
    }

    /// Extended DNS errors: info code and text.
    pub fn errors(&self) -> Vec<(u16, String)> {
        let error = |(code, data): (u16, Vec<u8>)| match (code, data.as_slice()) {
            (15, [i0, i1, text @ ..]) => {
                Some((u16::from_be_bytes([*i0, *i1]), String::from_utf8_lossy(text).into_owned()))
            }
            _ => None,
        };
        self.options().into_iter().filter_map(error).collect()
    }

    /// The case id in the texts of the extended errors and the TXT answers.
    pub fn case(&self) -> Option<String> {
        let texts = self.errors().into_iter().map(|(_, text)| text).chain(self.texts());
        texts.flat_map(|text| case_ids(&text)).next()
    }
}

impl Record {
    /// The address of an A or AAAA record.
    pub fn address(&self) -> Option<IpAddr> {
        match self.rtype {
            rtype::A => <[u8; 4]>::try_from(&*self.rdata).ok().map(|a| Ipv4Addr::from(a).into()),
            rtype::AAAA => <[u8; 16]>::try_from(&*self.rdata).ok().map(|a| Ipv6Addr::from(a).into()),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let mut out = Vec::new();
        let mut rest = self.rdata.as_slice();
        while let [length, body @ ..] = rest {
            let Some(part) = body.get(..usize::from(*length)) else { break };
            out.extend(part);
            rest = &body[part.len()..];
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Data of a record to be served.
#[derive(Debug, Clone)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Txt(String),
    Mx(u16, String),
    /// HTTPS: priority, target, parameters by key.
    Https(u16, String, Vec<(u16, Vec<u8>)>),
    /// SVCB: the same.
    Svcb(u16, String, Vec<(u16, Vec<u8>)>),
}

impl Data {
    /// Its type.
    pub fn rtype(&self) -> u16 {
        match self {
            Self::A(_) => rtype::A,
            Self::Aaaa(_) => rtype::AAAA,
            Self::Cname(_) => rtype::CNAME,
            Self::Txt(_) => rtype::TXT,
            Self::Mx(..) => rtype::MX,
            Self::Https(..) => rtype::HTTPS,
            Self::Svcb(..) => rtype::SVCB,
        }
    }

    /// On the wire, names uncompressed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::A(address) => out.extend(address.octets()),
            Self::Aaaa(address) => out.extend(address.octets()),
            Self::Cname(name) => put_name(&mut out, name),
            Self::Txt(text) => {
                for part in text.as_bytes().chunks(255) {
                    out.push(part.len() as u8);
                    out.extend(part);
                }
            }
            Self::Mx(preference, name) => {
                out.extend(preference.to_be_bytes());
                put_name(&mut out, name);
            }
            Self::Https(priority, target, params) | Self::Svcb(priority, target, params) => {
                out.extend(priority.to_be_bytes());
                put_name(&mut out, target);
                for (key, value) in params {
                    out.extend(key.to_be_bytes());
                    out.extend((value.len() as u16).to_be_bytes());
                    out.extend(value);
                }
            }
        }
        out
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::A(a),
            IpAddr::V6(a) => Self::Aaaa(a),
        }
    }
}

/// Keys of service parameters present in the data of an HTTPS or SVCB record whose target is uncompressed.
pub fn service_keys(rdata: &[u8]) -> Vec<u16> {
    let Some((_, mut at)) = read_name(rdata, 2) else { return Vec::new() };
    let mut keys = Vec::new();
    while let Some([k0, k1, l0, l1]) = rdata.get(at..at + 4) {
        keys.push(u16::from_be_bytes([*k0, *k1]));
        at += 4 + u16::from_be_bytes([*l0, *l1]) as usize;
    }
    keys
}

/// Writes a name in presentation form, without escapes, uncompressed.
pub fn put_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|l| !l.is_empty()) {
        assert!(label.len() < 64, "label too long in {name}");
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
}

/// Reads a name, following compression; gives where what comes behind it starts.
pub fn read_name(raw: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let (mut at, mut end) = (start, None);
    for _ in 0..128 {
        match *raw.get(at)? {
            0 => {
                let name: Vec<String> = labels;
                return Some((name.join("."), end.unwrap_or(at + 1)));
            }
            length @ 1..=63 => {
                let label = raw.get(at + 1..at + 1 + usize::from(length))?;
                labels.push(label.iter().map(|&b| b as char).collect::<String>());
                at += 1 + usize::from(length);
            }
            high @ 192.. => {
                end.get_or_insert(at + 2);
                at = usize::from(high & 63) << 8 | usize::from(*raw.get(at + 1)?);
            }
            _ => return None,
        }
    }
    None
}

/// Case ids in a text: `c` and twelve characters of the product's alphabet, standing alone.
pub fn case_ids(text: &str) -> Vec<String> {
    let good = |word: &&str| {
        let alphabet = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() && !b"ilou".contains(&b);
        word.len() == 13 && word.starts_with('c') && word.bytes().all(alphabet)
    };
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(good).map(str::to_owned).collect()
}
