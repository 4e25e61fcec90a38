//! Replies: writes messages to stubs, octet by octet, into a buffer the caller keeps.
//!
//! Last stage of the walk. It is given the parsed query and what was decided, and decides nothing; it must not know
//! sessions, rules or scores. Nothing is allocated as long as the buffer has room for the reply ([`UDP_MAX`] octets for
//! datagrams, 65,535 for streams).
//!
//! Every reply echoes the client's id, RD, CD and the question as spelled, sets RA, never AA, and carries an OPT record
//! exactly if the query had one (RFC 6891 section 7). Reasons travel as Extended DNS Errors (RFC 8914); where a reply
//! would not fit the client's datagram, their text is cut first. Replies other than [`from_answer`] fit 512 octets with the cookie
//! that is added to them.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

mod options;
mod rendered;

use std::net::IpAddr;

use staunch_scoring::NameRef;

use crate::answer::WireAnswer;
use crate::local::{Local, Records};
use crate::model::{Ede, Qtype, Transport};
use crate::nat64;
use crate::wire::{Query, Reject};

pub use options::{add_option, curtail};
pub use rendered::Rendered;

/// Largest datagram we send and the payload size we announce, octets: below the path MTU of any link that carries IPv6
/// (RFC 9715), so that replies are not fragmented.
pub const UDP_MAX: u16 = 1232;

/// Longest text of a reason, octets; longer ones are cut at a character boundary. With it, a refusal as TXT of the
/// longest name still fits 512 octets, unless a cookie goes with it.
pub const TEXT_MAX: usize = 200;

/// Most addresses a sinkhole answer holds. A block page has one of each family; the rest is room for a cluster.
pub const SINKHOLE_ADDRESSES: usize = 8;

/// How long a refused ANY may be remembered, seconds.
const ANY_TTL: u32 = 3600;

/// Octets of a record of our own before its data, and of an OPT record without options.
const RECORD: usize = 12;
const BARE_OPT: usize = 11;

/// Octets of a cookie as an option.
const COOKIE_OPTION: usize = 4 + crate::cookie::COOKIE;

/// Fields of a synthetic SOA that nobody acts on: serial, refresh, retry, expire (RFC 1035 section 3.3.13).
const SOA_TIMERS: [u32; 4] = [1, 3600, 600, 86_400];
const SOA_MNAME: &[u8] = b"\x07staunch\x07invalid\0";
const SOA_RNAME: &[u8] = b"\x06policy\x07staunch\x07invalid\0";

const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const HEADER: usize = crate::wire::HEADER;
const TC: u16 = 0x0200;
const AD: u16 = 0x0020;
const ANCOUNT: usize = 6;
const NSCOUNT: usize = 8;
const ARCOUNT: usize = 10;

/// A refusal by policy, as the stub shall hear it.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// NXDOMAIN (3), or NOERROR (0) for NODATA where an allowed name lies below (RFC 8020).
    pub rcode: u8,
    /// Owner of the SOA: the registrable domain or the name itself. If it is not the qname or an ancestor, the qname
    /// is used, since a stub would discard anything else (RFC 2308 section 2).
    pub soa_owner: NameRef<'a>,
    /// How long the refusal may be remembered, seconds.
    pub negative_ttl: u32,
    /// Info code of the reason.
    pub ede: Ede,
    /// Case id and plain words, at most [`TEXT_MAX`] octets.
    pub text: &'a str,
    /// Whether a TXT query gets the text as a record instead of the negative answer.
    pub txt: bool,
}

/// Largest reply this query may get, octets, without the cookie that will be added to it.
pub fn limit(query: &Query<'_>, transport: Transport) -> usize {
    let whole = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => usize::from(query.edns.map_or(crate::wire::UDP_MIN, |edns| edns.udp_payload.min(UDP_MAX))),
    };
    if query.options.cookie.is_empty() { whole } else { whole - COOKIE_OPTION }
}

/// An answer without records to a message that is not a query we answer (RFC 8906), or that wants a cookie alone.
pub fn reject(out: &mut Vec<u8>, reject: &Reject<'_>) {
    out.clear();
    let available = if reject.opcode == 0 { 0x0080 } else { 0 };
    let flags = 0x8000
        | u16::from(reject.opcode & 0xf) << 11
        | u16::from(reject.recursion_desired) << 8
        | u16::from(reject.checking_disabled) << 4
        | available
        | reject.rcode & 0xf;
    header(out, reject.id, flags, !reject.question.is_empty());
    out.extend_from_slice(reject.question);
    if let Some(edns) = reject.edns {
        let [_, _, _, extended] = u32::from(reject.rcode >> 4).to_be_bytes();
        opt_fixed(out, extended, edns.dnssec_ok);
        put_u16(out, 0);
        count(out, ARCOUNT, 1);
    }
}

/// A refusal: negative with SOA, or the text as TXT; the reason as EDE.
pub fn refusal(out: &mut Vec<u8>, query: &Query<'_>, refusal: &Refusal<'_>) {
    let text = cut(refusal.text, TEXT_MAX);
    if refusal.txt && query.qtype == Qtype::TXT {
        begin(out, query, NOERROR, 0);
        let text = cut(text, room(out, query).saturating_sub(RECORD + 1));
        record(out, Qtype::TXT, refusal.negative_ttl, 1 + text.len());
        out.push(text.len() as u8); // at most TEXT_MAX
        out.extend_from_slice(text.as_bytes());
        count(out, ANCOUNT, 1);
    } else {
        negative(out, query, refusal.rcode, refusal.soa_owner, refusal.negative_ttl);
    }
    opt(out, query, &[(refusal.ede, text)]);
}

/// The name may exist, this type does not; remembered for `ttl` seconds. `zone` owns the SOA.
pub fn no_data(out: &mut Vec<u8>, query: &Query<'_>, zone: NameRef<'_>, ttl: u32) {
    negative(out, query, NOERROR, zone, ttl);
    opt(out, query, &[]);
}

/// One TXT record of our own, not to be remembered; `text` is at most 255 octets, what is beyond is cut.
pub fn text(out: &mut Vec<u8>, query: &Query<'_>, text: &str) {
    let text = cut(text, 255);
    begin(out, query, NOERROR, 0);
    record(out, Qtype::TXT, 0, 1 + text.len());
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
    count(out, ANCOUNT, 1);
    opt(out, query, &[]);
}

/// The answer could not be had.
pub fn servfail(out: &mut Vec<u8>, query: &Query<'_>, ede: Ede, text: &str) {
    begin(out, query, SERVFAIL, 0);
    opt(out, query, &[(ede, text)]);
}

/// The addresses of a block page instead of the truth, marked as forged beside the reason.
///
/// A and AAAA queries get the addresses of their family; where there are none, and for every other type, NODATA.
/// `ttl` in seconds; at most [`SINKHOLE_ADDRESSES`] are shown, fewer where the client's datagram has no room for them.
pub fn sinkhole_address(out: &mut Vec<u8>, query: &Query<'_>, addresses: &[IpAddr], ttl: u32, ede: Ede, text: &str) {
    begin(out, query, NOERROR, 0);
    let mut shown = 0;
    for address in addresses.iter().take(SINKHOLE_ADDRESSES) {
        match address {
            IpAddr::V4(v4) if query.qtype == Qtype::A && room(out, query) >= RECORD + 4 => {
                record(out, Qtype::A, ttl, 4);
                out.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) if query.qtype == Qtype::AAAA && room(out, query) >= RECORD + 16 => {
                record(out, Qtype::AAAA, ttl, 16);
                out.extend_from_slice(&v6.octets());
            }
            _ => continue,
        }
        shown += 1;
    }
    count(out, ANCOUNT, shown);
    if shown == 0 {
        negative(out, query, NOERROR, query.qname.as_ref(), ttl);
    }
    opt(out, query, &[(Ede::ForgedAnswer, ""), (ede, text)]);
}

/// A vetted answer.
///
/// `age` is how long ago it was received, `cap` the longest TTL that may be shown (what the pins outlive), both in
/// seconds: each record shows min(its TTL - `age`, `cap`). AD is shown only to clients that asked for it (RFC 6840
/// section 5.8). Beside it stands the answer's own reason, if it has one. An answer larger than [`limit`] becomes an empty one with TC set, so that the stub asks again over
/// TCP (RFC 2181 section 9).
pub fn from_answer(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    answer: &WireAnswer,
    transport: Transport,
    age: u32,
    cap: u32,
) {
    let ad = answer.authentic_data;
    let reason = answer.ede.map(|ede| (ede, ""));
    answer_with(out, query, answer, transport, |ttl| ttl.saturating_sub(age).min(cap), ad, reason.as_slice());
}

/// A vetted answer that is older than its TTL: every record shows `ttl` seconds, and the reply says that it is stale
/// (RFC 8767 section 4, RFC 8914 sections 4.4 and 4.20) with `text`, which may be empty. Never AD: it said so of an answer within its
/// time, and so do its signatures (RFC 4035 section 5.3.3). Otherwise as [`from_answer`].
pub fn stale(out: &mut Vec<u8>, query: &Query<'_>, answer: &WireAnswer, transport: Transport, ttl: u32, text: &str) {
    let ede = if answer.rcode == 3 { Ede::StaleNxDomainAnswer } else { Ede::StaleAnswer };
    answer_with(out, query, answer, transport, |_| ttl, false, &[(ede, text)]);
}

/// An answer that policy has put in the place of another, its TTLs at most `cap` seconds, with the reasons. Otherwise as
/// [`from_answer`].
pub fn rewritten(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    answer: &WireAnswer,
    transport: Transport,
    cap: u32,
    reasons: &[(Ede, &str)],
) {
    answer_with(out, query, answer, transport, |ttl| ttl.min(cap), false, reasons);
}

/// Nothing, and that the stub is to ask again over TCP.
pub fn truncated(out: &mut Vec<u8>, query: &Query<'_>, ede: Ede, text: &str) {
    begin(out, query, NOERROR, TC);
    opt(out, query, &[(ede, text)]);
}

/// The reason that a reply of our own gives, if it gives one.
pub fn reason_in(reply: &[u8]) -> Option<(Ede, String)> {
    use hickory_proto::op::Message;
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
    let message = Message::from_vec(reply).ok()?;
    let EdnsOption::Unknown(_, data) = message.edns?.option(EdnsCode::from(15)).cloned()? else { return None };
    let (code, text) = data.split_first_chunk::<2>()?;
    let text = String::from_utf8_lossy(text).into_owned();
    Some((Ede::from_code(u16::from_be_bytes(*code))?, text))
}

/// An answer with each record's TTL put through `ttl`, AD if it is `authentic`, and with reasons.
fn answer_with(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    answer: &WireAnswer,
    transport: Transport,
    ttl: impl Fn(u32) -> u32,
    authentic: bool,
    reasons: &[(Ede, &str)],
) {
    let asked_for_ad = query.authentic_data || query.edns.is_some_and(|edns| edns.dnssec_ok);
    let ad = if authentic && asked_for_ad { AD } else { 0 };
    begin(out, query, answer.rcode & 0xf, ad);
    let room_for_opt = if query.edns.is_some() { BARE_OPT } else { 0 };
    let size = out.len() + answer.body.len() + room_for_opt;
    if size > limit(query, transport) {
        match transport {
            Transport::Udp => begin(out, query, answer.rcode & 0xf, TC),
            // No datagram or stream can carry it.
            Transport::Tcp => return servfail(out, query, Ede::Other, "answer too large"),
        }
        return opt(out, query, reasons);
    }
    let base = out.len();
    out.extend_from_slice(&answer.body);
    for at in &answer.ttl_at {
        let at = base + usize::from(*at);
        if let Some(field) = out.get_mut(at..at + 4)
            && let Ok(octets) = <[u8; 4]>::try_from(&*field)
        {
            field.copy_from_slice(&ttl(u32::from_be_bytes(octets)).to_be_bytes());
        }
    }
    count(out, ANCOUNT, answer.answers);
    count(out, NSCOUNT, answer.authorities);
    opt_within(out, query, reasons, limit(query, transport));
}

/// The one small answer to ANY (RFC 8482 section 4.2).
pub fn any_hinfo(out: &mut Vec<u8>, query: &Query<'_>) {
    begin(out, query, NOERROR, 0);
    record(out, Qtype::HINFO, ANY_TTL, 9);
    out.extend_from_slice(b"\x07RFC8482\0");
    count(out, ANCOUNT, 1);
    opt(out, query, &[]);
}

/// An answer of [`crate::local`], made for this query's name and type.
pub fn local(out: &mut Vec<u8>, query: &Query<'_>, local: &Local) {
    let zone = local.zone(query.qname.as_ref());
    begin(out, query, local.rcode & 0xf, 0);
    let answers = match local.records {
        Records::None => {
            negative(out, query, local.rcode, zone, local.ttl);
            0
        }
        Records::A(addresses) => {
            for address in addresses {
                record(out, Qtype::A, local.ttl, 4);
                out.extend_from_slice(&address.octets());
            }
            addresses.len() as u16 // a fixed table of two at most
        }
        Records::Aaaa(address) => {
            record(out, Qtype::AAAA, local.ttl, 16);
            out.extend_from_slice(&address.octets());
            1
        }
        Records::Nat64(prefixes) => {
            let all = prefixes.iter().flatten();
            let addresses = all.flat_map(|prefix| nat64::WELL_KNOWN.map(|v4| prefix.embed(v4)));
            let mut written = 0;
            for address in addresses {
                record(out, Qtype::AAAA, local.ttl, 16);
                out.extend_from_slice(&address.octets());
                written += 1;
            }
            written
        }
        Records::Ptr(target) => {
            record(out, Qtype::PTR, local.ttl, target.len());
            out.extend_from_slice(target);
            1
        }
        Records::Soa => {
            soa(out, query, zone, local.ttl);
            1
        }
    };
    count(out, ANCOUNT, answers);
    match local.note() {
        Some(note) => opt(out, query, &[(Ede::Other, note)]),
        None => opt(out, query, &[]),
    }
}

/// Starts the message anew: header and question.
fn begin(out: &mut Vec<u8>, query: &Query<'_>, rcode: u8, extra_flags: u16) {
    out.clear();
    let flags = 0x8080
        | u16::from(query.recursion_desired) << 8
        | u16::from(query.checking_disabled) << 4
        | extra_flags
        | u16::from(rcode & 0xf);
    header(out, query.id, flags, true);
    out.extend_from_slice(query.question);
}

/// A negative answer (RFC 2308): the zone's SOA in the authority section. Starts the message anew.
fn negative(out: &mut Vec<u8>, query: &Query<'_>, rcode: u8, owner: NameRef<'_>, ttl: u32) {
    begin(out, query, rcode, 0);
    soa(out, query, owner, ttl);
    count(out, NSCOUNT, 1);
}

/// A synthetic SOA record whose negative TTL is `ttl`.
fn soa(out: &mut Vec<u8>, query: &Query<'_>, owner: NameRef<'_>, ttl: u32) {
    let qname = query.qname.as_ref();
    let skipped = if qname.is_at_or_below(owner) { qname.wire_len() - owner.wire_len() } else { 0 };
    // A name is at most 255 octets, so the offset always fits a pointer.
    put_u16(out, 0xc000 | (HEADER + skipped) as u16);
    put_u16(out, Qtype::SOA.0);
    put_u16(out, 1);
    put_u32(out, ttl);
    put_u16(out, (SOA_MNAME.len() + SOA_RNAME.len() + 20) as u16);
    out.extend_from_slice(SOA_MNAME);
    out.extend_from_slice(SOA_RNAME);
    for timer in SOA_TIMERS {
        put_u32(out, timer);
    }
    put_u32(out, ttl);
}

/// What a datagram has room for behind what is written, the OPT record set aside.
fn room(out: &[u8], query: &Query<'_>) -> usize {
    let opt = if query.edns.is_some() { BARE_OPT } else { 0 };
    limit(query, Transport::Udp).saturating_sub(out.len() + opt)
}

/// Everything of a record at the qname but its data, of which `length` octets must follow.
fn record(out: &mut Vec<u8>, rtype: Qtype, ttl: u32, length: usize) {
    put_u16(out, 0xc000 | HEADER as u16);
    put_u16(out, rtype.0);
    put_u16(out, 1);
    put_u32(out, ttl);
    put_u16(out, length as u16); // every caller's data is at most 256 octets
}

/// The OPT record, if the query had one, with the reasons that fit the client's datagram: for replies that do by themselves.
fn opt(out: &mut Vec<u8>, query: &Query<'_>, reasons: &[(Ede, &str)]) {
    opt_within(out, query, reasons, limit(query, Transport::Udp));
}

/// The OPT record, if the query had one, with the reasons that fit a reply of `limit` octets.
fn opt_within(out: &mut Vec<u8>, query: &Query<'_>, reasons: &[(Ede, &str)], limit: usize) {
    let Some(edns) = query.edns else { return };
    opt_fixed(out, 0, edns.dnssec_ok);
    let length_at = out.len();
    put_u16(out, 0);
    for (ede, text) in reasons {
        let room = limit.saturating_sub(out.len());
        if room < 6 {
            break;
        }
        let text = cut(text, TEXT_MAX.min(room - 6));
        put_u16(out, 15); // the option's code, not an info code
        put_u16(out, 2 + text.len() as u16);
        put_u16(out, *ede as u16);
        out.extend_from_slice(text.as_bytes());
    }
    let length = out.len() - length_at - 2;
    count(out, length_at, length as u16);
    count(out, ARCOUNT, 1);
}

/// The fields of OPT before its length.
fn opt_fixed(out: &mut Vec<u8>, extended_rcode: u8, dnssec_ok: bool) {
    out.push(0);
    put_u16(out, Qtype::OPT.0);
    put_u16(out, UDP_MAX);
    out.extend_from_slice(&[extended_rcode, 0, u8::from(dnssec_ok) << 7, 0]);
}

fn header(out: &mut Vec<u8>, id: u16, flags: u16, question: bool) {
    put_u16(out, id);
    put_u16(out, flags);
    put_u16(out, u16::from(question));
    out.extend_from_slice(&[0; 6]);
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Fills in a count or length written as zero before.
fn count(out: &mut [u8], at: usize, value: u16) {
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The longest prefix of at most `max` octets that ends at a character boundary.
fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1); // 0 is a boundary
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
