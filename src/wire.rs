//! The strict parser of what stubs send: total on any octets, and it allocates nothing.
//!
//! Called by [`crate::pipeline`] on what [`crate::listen`] received, before anything else looks at a packet; what it
//! returns is all that the later stages see of the client's octets. It knows the format of a query (RFC 1035, RFC 6891)
//! and which formally correct messages this service never answers (RFC 8906, RFC 9619). It must not know names, sessions
//! or policy.
//!
//! Invariant: a [`Query`] accounts for every octet of its packet: header, one question, at most one OPT record, nothing
//! behind. There is no place left in which a client could carry something past the judgement.
//!
//! Order of judgement where several faults meet: dropped, unknown opcode, malformed, unknown EDNS version, transaction
//! signature, class, type, recursion not desired.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects
    )
)]

use staunch_scoring::QName;

use crate::model::Qtype;

/// Octets in a message header (RFC 1035 section 4.1.1).
pub const HEADER: usize = 12;

/// Smallest UDP payload every client takes (RFC 1035 section 4.2.1), and what a smaller EDNS value means (RFC 6891
/// section 6.2.3).
pub const UDP_MIN: u16 = 512;

/// The option of a cookie (RFC 7873).
pub const COOKIE: u16 = 10;

/// The option that says how long a connection may stay open (RFC 7828).
pub const KEEPALIVE: u16 = 11;

const CLASS_IN: u16 = 1;
const TYPE_SIG: u16 = 24;
const TYPE_NXNAME: u16 = 128;
const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;

const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

/// A well-formed query of the kind we answer.
#[derive(Debug, Clone, Copy)]
pub struct Query<'p> {
    /// The client's message id.
    pub id: u16,
    /// Recursion desired (RFC 1035 section 4.1.1). Always set: a query without it is rejected, because an answer from
    /// the cache alone would tell one session what another has asked.
    pub recursion_desired: bool,
    /// Checking disabled (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// Authentic data wanted (RFC 6840 section 5.7).
    pub authentic_data: bool,
    /// The name, folded.
    pub qname: QName,
    /// The type.
    pub qtype: Qtype,
    /// The question section as the client spelled it, for the echo.
    pub question: &'p [u8],
    /// EDNS, if the query had it.
    pub edns: Option<Edns>,
    /// EDNS options that we answer.
    pub options: Options<'p>,
}

/// The options of a client's OPT record that mean something to us. None is forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options<'p> {
    /// The data of COOKIE (RFC 7873): 8 octets, or 16 to 40; empty where there is none.
    pub cookie: &'p [u8],
    /// Whether it is asked how long the connection may stay open (RFC 7828); means nothing over UDP.
    pub keepalive: bool,
}

/// What we keep of a client's OPT record (RFC 6891). Its options are apart, in [`Options`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Largest datagram the client takes, at least 512.
    pub udp_payload: u16,
    /// DNSSEC OK (RFC 3225).
    pub dnssec_ok: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
// Nearly every packet is a query, and a box for it would be the only allocation on its path.
#[allow(clippy::large_enum_variant)]
pub enum Parsed<'p> {
    /// A query to judge.
    Query(Query<'p>),
    /// Answered at once with this response code and no records (RFC 8906, RFC 7873 section 5.4).
    Reject(Reject<'p>),
    /// Not answered: shorter than a header, or a response.
    Drop,
}

/// An immediate answer without records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject<'p> {
    /// The client's message id.
    pub id: u16,
    /// Opcode to echo.
    pub opcode: u8,
    /// RD to echo.
    pub recursion_desired: bool,
    /// CD to echo (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// Response code, extended (RFC 6895 section 2.3): FORMERR 1, NOTIMP 4, REFUSED 5, BADVERS 16; NOERROR 0 for a message
    /// that asks for nothing but a cookie.
    pub rcode: u16,
    /// EDNS, if the message had it as far as it could be read: the reply has an OPT record then (RFC 6891 section 6.1.1).
    pub edns: Option<Edns>,
    /// EDNS options that we answer, errors too (RFC 7873 section 5.2); none where the options could not be read.
    pub options: Options<'p>,
    /// The question to echo, empty where none could be read. Stubs ignore an answer whose question is not theirs, so
    /// that an error without it would look like silence.
    pub question: &'p [u8],
}

/// Judges the form of one packet.
///
/// | packet | outcome |
/// |---|---|
/// | shorter than 12 octets, or QR=1 | dropped |
/// | opcode other than QUERY | NOTIMP (RFC 8906 section 3.1.3) |
/// | no question and no record but an OPT with a cookie | NOERROR, to be answered with a cookie (RFC 7873 section 5.4) |
/// | QDCOUNT other than 1 (RFC 9619), records in answer or authority, compressed or overlong name, a second OPT or OPT not owned by the root (RFC 6891 section 6.1.1), options that overrun, a cookie of a length that cookies do not have (RFC 7873 section 5.2.2), any other additional record, octets behind the message | FORMERR |
/// | EDNS version above 0 | BADVERS (RFC 6891 section 6.1.3) |
/// | TSIG or SIG(0) | NOTIMP: we hold no keys (RFC 8945), and must not forward what we cannot verify |
/// | class other than IN, AXFR, IXFR, RD=0 | REFUSED |
/// | type 0, OPT, NXNAME (RFC 9824 section 3.5) | FORMERR |
/// | other meta types, 129 to 254 (RFC 6895 section 3.1) | NOTIMP |
///
/// Unknown header flags, EDNS flags and EDNS options are ignored (RFC 8906 sections 3.1.4 and 3.2), and ANY is let
/// through, to be answered by [`crate::reply::any_hinfo`].
pub fn parse(packet: &[u8]) -> Parsed<'_> {
    let Some((header, body)) = packet.split_first_chunk::<HEADER>() else {
        return Parsed::Drop;
    };
    let [id, flags, questions, answers, authorities, additionals] = words(header);
    if flags & 0x8000 != 0 {
        return Parsed::Drop;
    }
    let mut reject = Reject {
        id,
        opcode: (flags >> 11) as u8 & 0xf,
        recursion_desired: flags & 0x0100 != 0,
        checking_disabled: flags & 0x0010 != 0,
        rcode: NOTIMP,
        edns: None,
        options: Options::default(),
        question: &[],
    };
    let plain = answers == 0 && authorities == 0;
    if reject.opcode != 0 || questions != 1 {
        // Whether there is EDNS is all that is asked of such a message, and whether a cookie is all that it wants.
        let behind = if plain { skip_questions(body, questions) } else { None };
        match behind.map(|behind| additional(behind, additionals)) {
            Some(Ok(extra)) => {
                (reject.edns, reject.options) = (extra.edns, extra.options);
                if reject.opcode == 0 {
                    let for_cookie = questions == 0 && !extra.signed && !extra.options.cookie.is_empty();
                    reject.rcode = if for_cookie { NOERROR } else { FORMERR };
                }
            }
            Some(Err(seen)) => (reject.edns, reject.rcode) = (seen, if reject.opcode == 0 { FORMERR } else { NOTIMP }),
            None if reject.opcode == 0 => reject.rcode = FORMERR,
            None => {}
        }
        return Parsed::Reject(reject);
    }
    reject.rcode = FORMERR;
    let Ok((qname, name_len)) = QName::read(body) else {
        return Parsed::Reject(reject);
    };
    let Some((question, rest)) = body.split_at_checked(name_len.saturating_add(4)) else {
        return Parsed::Reject(reject);
    };
    let Some(&[type_high, type_low, class_high, class_low]) = question.last_chunk() else {
        return Parsed::Reject(reject);
    };
    let qtype = u16::from_be_bytes([type_high, type_low]);
    let class = u16::from_be_bytes([class_high, class_low]);
    reject.question = question;
    if !plain {
        return Parsed::Reject(reject);
    }
    let extra = match additional(rest, additionals) {
        Ok(extra) => extra,
        Err(seen) => {
            reject.edns = seen;
            return Parsed::Reject(reject);
        }
    };
    (reject.edns, reject.options) = (extra.edns, extra.options);
    let refusal = if extra.version > 0 {
        Some(BADVERS)
    } else if extra.signed {
        Some(NOTIMP)
    } else if class != CLASS_IN {
        Some(REFUSED)
    } else {
        match qtype {
            0 | 41 | TYPE_NXNAME => Some(FORMERR),
            TYPE_IXFR | 252 => Some(REFUSED),
            129..=254 => Some(NOTIMP),
            _ if !reject.recursion_desired => Some(REFUSED),
            _ => None,
        }
    };
    match refusal {
        Some(rcode) => Parsed::Reject(Reject { rcode, ..reject }),
        None => Parsed::Query(Query {
            id: reject.id,
            recursion_desired: reject.recursion_desired,
            checking_disabled: reject.checking_disabled,
            authentic_data: flags & 0x0020 != 0,
            qname,
            qtype: Qtype(qtype),
            question,
            edns: extra.edns,
            options: extra.options,
        }),
    }
}

/// The six words of a header (RFC 1035 section 4.1.1).
fn words(header: &[u8; HEADER]) -> [u16; 6] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
    [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]].map(u16::from_be_bytes)
}

/// What the additional section held.
struct Additional<'p> {
    edns: Option<Edns>,
    options: Options<'p>,
    version: u8,
    signed: bool,
}

/// Steps over so many questions; `None` where they are not whole.
fn skip_questions(mut octets: &[u8], count: u16) -> Option<&[u8]> {
    // Each takes five octets at least, so a packet's length bounds the work.
    for _ in 0..count {
        let (_, behind) = skip_name(octets)?;
        octets = behind.get(4..)?;
    }
    Some(octets)
}

/// Reads `count` records that must fill `octets` to the end. The error gives the OPT record that was seen, if one was.
fn additional(mut octets: &[u8], count: u16) -> Result<Additional<'_>, Option<Edns>> {
    let mut found = Additional { edns: None, options: Options::default(), version: 0, signed: false };
    // A second record of either kind ends the loop, so `count` cannot make it long.
    for _ in 0..count {
        let seen = found.edns;
        if found.signed {
            return Err(seen); // RFC 8945 section 5.1: a signature stands last.
        }
        let (root, after_name) = skip_name(octets).ok_or(seen)?;
        let (fixed, rest) = after_name.split_first_chunk::<10>().ok_or(seen)?;
        let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let is_opt = Qtype(rtype) == Qtype::OPT;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let edns = Edns {
            udp_payload: u16::from_be_bytes([fixed[2], fixed[3]]).max(UDP_MIN),
            dnssec_ok: fixed[6] & 0x80 != 0,
        };
        let now_seen = seen.or(is_opt.then_some(edns));
        let (rdata, rest) = rest.split_at_checked(length).ok_or(now_seen)?;
        octets = rest;
        if is_opt {
            if seen.is_some() || !root {
                return Err(now_seen);
            }
            found.version = fixed[5];
            found.edns = now_seen;
            // The layout of a later version's options is not ours to judge.
            if found.version == 0 {
                found.options = options(rdata).ok_or(now_seen)?;
            }
        } else if rtype == TYPE_TSIG || rtype == TYPE_SIG {
            found.signed = true;
        } else {
            return Err(seen);
        }
    }
    if octets.is_empty() { Ok(found) } else { Err(found.edns) }
}

/// Steps over a name, compressed or not, without following it; says whether it is the root.
fn skip_name(octets: &[u8]) -> Option<(bool, &[u8])> {
    let mut rest = octets;
    loop {
        let (&length, after) = rest.split_first()?;
        match length {
            0 => return Some((rest.len() == octets.len(), after)),
            1..=63 => rest = after.get(usize::from(length)..)?,
            0xc0.. => return Some((false, after.get(1..)?)),
            _ => return None,
        }
    }
}

/// Reads options (code, length, data), which must fill `rdata` exactly (RFC 6891 section 6.1.2); the first cookie counts
/// (RFC 7873 section 5.2).
fn options(mut rdata: &[u8]) -> Option<Options<'_>> {
    let mut found = Options::default();
    while !rdata.is_empty() {
        let (&[code_high, code_low, high, low], rest) = rdata.split_first_chunk::<4>()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        match u16::from_be_bytes([code_high, code_low]) {
            COOKIE if !matches!(data.len(), 8 | 16..=40) => return None,
            COOKIE if found.cookie.is_empty() => found.cookie = data,
            KEEPALIVE => found.keepalive = true,
            _ => {}
        }
        rdata = rest;
    }
    Some(found)
}

#[cfg(test)]
mod tests;
