//! Responses by their structure, so that most of what is tried gets past the form and meets the scrubber's judgement.

use arbitrary::{Arbitrary, Unstructured};
use staunch::model::Qtype;
use staunch_scoring::NameBuf;

use crate::answer::{self, Settings};

/// A response to `q.example`.
#[derive(Debug, Arbitrary)]
struct Response {
    settings: u8,
    qtype: Kind,
    /// AD, RA, and now and then a failure.
    flags: u8,
    records: Vec<Node>,
    /// One octet that is not as it should be.
    bend: Option<(u16, u8)>,
}

/// Types that the scrubber treats in ways of their own, and one that it does not know.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    A,
    Aaaa,
    Cname,
    Dname,
    Mx,
    Ns,
    Txt,
    Soa,
    Https,
    Svcb,
    Srv,
    Rrsig,
    Nsec,
    Nsec3,
    Any,
    Opt,
    Other(u16),
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Cname => 5,
            Self::Soa => 6,
            Self::Mx => 15,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Srv => 33,
            Self::Dname => 39,
            Self::Opt => 41,
            Self::Rrsig => 46,
            Self::Nsec => 47,
            Self::Nsec3 => 50,
            Self::Svcb => 64,
            Self::Https => 65,
            Self::Any => 255,
            Self::Other(number) => number,
        }
    }
}

#[derive(Debug, Arbitrary)]
struct Node {
    section: u8,
    owner: Name,
    kind: Kind,
    /// Another class than IN, seldom.
    class: Option<bool>,
    ttl: u32,
    data: Data,
}

/// A name, and how it is written.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Name {
    which: u8,
    /// 0: in full; 1: its last labels as a pointer to the question; else as a pointer to an earlier record's owner.
    how: u8,
}

#[derive(Debug, Arbitrary)]
struct Data {
    name: Name,
    second: Name,
    number: u8,
    params: Vec<Param>,
    noise: Vec<u8>,
    /// Not of the shape that its type has.
    misshapen: Option<bool>,
}

#[derive(Debug, Arbitrary)]
enum Param {
    Mandatory(Vec<u8>),
    Alpn,
    V4(Vec<u8>),
    Ech,
    V6(Vec<u8>),
    Other(u16, Vec<u8>),
}

const NAMES: [&str; 17] = [
    "q.example",
    "a.example",
    "b.example",
    "c.a.example",
    "x.q.example",
    "example",
    "*.example",
    "Q.Example",
    "z.example",
    "evil.test",
    "other.test",
    ".",
    "localhost",
    "db.internal",
    "00000000000000000000000000000000.example",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
    "www.q.example",
];

/// Takes octets that a response is made from.
pub fn run(octets: &[u8]) {
    let Ok(response) = Response::arbitrary(&mut Unstructured::new(octets)) else { return };
    let qname = NameBuf::from_text("q.example").expect("a name");
    answer::check(&response.octets(), qname.as_ref(), Qtype(response.qtype.number()), Settings(response.settings));
}

/// Octets under construction.
struct Out {
    octets: Vec<u8>,
    /// Where owners of earlier records stand.
    owners: Vec<u16>,
}

impl Out {
    /// A name as it says; whole ones only where `plain`.
    fn name(&mut self, name: Name, plain: bool) {
        let text = NAMES[usize::from(name.which) % NAMES.len()];
        if !plain && name.how > 1 && !self.owners.is_empty() {
            let at = self.owners[usize::from(name.how) % self.owners.len()];
            self.octets.extend((0xc000 | at).to_be_bytes());
            return;
        }
        let (front, tail) = match text.strip_suffix(".example") {
            // `example` of the question stands at 14.
            Some(front) if !plain && name.how == 1 => (front, &[0xc0, 14][..]),
            _ => (text.trim_end_matches('.'), &[0][..]),
        };
        for label in front.split('.').filter(|label| !label.is_empty()) {
            self.octets.push(label.len() as u8);
            self.octets.extend(label.as_bytes());
        }
        self.octets.extend(tail);
    }

    fn data(&mut self, node: &Node) {
        let data = &node.data;
        let n = data.number;
        match node.kind {
            _ if data.misshapen == Some(true) => self.octets.extend(data.noise.iter().take(64)),
            Kind::A => self.octets.extend([[203, 10, 127, 192][usize::from(n & 3)], 0, 113, n >> 5]),
            Kind::Aaaa => {
                let front: [u8; 12] = match n & 3 {
                    0 => [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0],
                    1 => [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    2 => [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0],
                    _ => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                };
                self.octets.extend(front);
                self.octets.extend([if n & 4 == 0 { 10 } else { 203 }, 0, 113, n >> 5]);
            }
            Kind::Cname | Kind::Dname | Kind::Ns => self.name(data.name, false),
            Kind::Mx => {
                self.octets.extend([0, n]);
                self.name(data.name, false);
            }
            Kind::Srv => {
                self.octets.extend([0, n, 0, 0, 0, 80]);
                self.name(data.name, false);
            }
            Kind::Soa => {
                self.name(data.name, false);
                self.name(data.second, false);
                for value in [1, 2, 3, 4, u32::from(n) << (n & 15)] {
                    self.octets.extend(value.to_be_bytes());
                }
            }
            Kind::Txt => {
                let text = &data.noise[..data.noise.len().min(40)];
                self.octets.push(text.len() as u8);
                self.octets.extend(text);
            }
            Kind::Https | Kind::Svcb => {
                self.octets.extend([0, n & 3]);
                self.name(data.name, true);
                self.params(&data.params);
            }
            Kind::Rrsig => {
                let covered = [6u16, 47, 50, 1, 5, 39][usize::from(n & 7) % 6];
                self.octets.extend(covered.to_be_bytes());
                self.octets.extend([13, n >> 5]);
                self.octets.extend([0; 14]);
                self.name(data.name, true);
                self.octets.push(n);
            }
            Kind::Nsec => {
                self.name(data.name, true);
                self.octets.extend([0, 1, 0x40]);
            }
            Kind::Nsec3 => {
                self.octets.extend([1, 0, 0, 0, 0, 20]);
                self.octets.extend([n; 20]);
                self.octets.extend([0, 1, 0x40]);
            }
            Kind::Any | Kind::Opt | Kind::Other(_) => self.octets.extend(data.noise.iter().take(64)),
        }
    }

    fn params(&mut self, params: &[Param]) {
        let mut all: Vec<(u16, Vec<u8>)> = params
            .iter()
            .take(8)
            .map(|param| match param {
                Param::Mandatory(keys) => (0, keys.iter().take(4).flat_map(|key| [0, key & 7]).collect()),
                Param::Alpn => (1, b"\x02h2".to_vec()),
                Param::V4(n) => {
                    (4, n.iter().take(4).flat_map(|n| [if n & 1 == 0 { 203 } else { 10 }, 0, 113, *n]).collect())
                }
                Param::Ech => (5, b"ech".to_vec()),
                Param::V6(n) => (
                    6,
                    n.iter().take(4).flat_map(|n| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *n]).collect(),
                ),
                Param::Other(key, value) => (*key, value.iter().take(16).copied().collect()),
            })
            .collect();
        all.sort_by_key(|(key, _)| *key);
        all.dedup_by_key(|(key, _)| *key);
        for (key, value) in all {
            self.octets.extend(key.to_be_bytes());
            self.octets.extend((value.len() as u16).to_be_bytes());
            self.octets.extend(value);
        }
    }
}

impl Response {
    fn octets(&self) -> Vec<u8> {
        // NOERROR and NXDOMAIN, seldom SERVFAIL or TC.
        let rcode = match self.flags & 0xf {
            0..=8 => 0,
            9..=13 => 3,
            _ => 2,
        };
        let high = if self.flags & 0xf0 == 0xf0 { 0x83 } else { 0x81 };
        let mut out = Out { octets: vec![0, 1, high, rcode | self.flags << 3 & 0xa0, 0, 1], owners: Vec::new() };
        let section = |node: &Node| match node.section % 8 {
            0..=3 => 0,
            4..=6 => 1,
            _ => 2,
        };
        let nodes: Vec<&Node> = self.records.iter().take(40).collect();
        for wanted in 0..3 {
            let count = nodes.iter().filter(|node| section(node) == wanted).count() as u16;
            out.octets.extend(count.to_be_bytes());
        }
        out.octets.extend(b"\x01q\x07example\0");
        out.octets.extend(self.qtype.number().to_be_bytes());
        out.octets.extend([0, 1]);
        out.owners.push(12);
        for wanted in 0..3 {
            for node in nodes.iter().filter(|node| section(node) == wanted) {
                let at = out.octets.len() as u16;
                out.name(node.owner, false);
                if at < 0x3fff {
                    out.owners.push(at);
                }
                out.octets.extend(node.kind.number().to_be_bytes());
                out.octets.extend(if node.class == Some(true) { [0, 3] } else { [0, 1] });
                out.octets.extend((node.ttl >> (node.ttl & 31)).to_be_bytes());
                let length_at = out.octets.len();
                out.octets.extend([0, 0]);
                out.data(node);
                let length = (out.octets.len() - length_at - 2) as u16;
                out.octets[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
            }
        }
        if let Some((at, value)) = self.bend {
            let at = usize::from(at) % out.octets.len();
            out.octets[at] = value;
        }
        out.octets
    }
}
