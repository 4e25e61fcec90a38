//! Data of records: from text to wire form, and whether wire form is whole.

use hickory_proto::rr::{RData, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use staunch_scoring::{NameBuf, QName};

use super::Soa;
use super::text::Token;
use crate::model::Qtype;

/// Longest data of one record, octets.
const MAX_RDATA: usize = u16::MAX as usize;

/// Where names are relative to.
pub(super) type Names<'o> = &'o dyn Fn(&Token<'_>) -> Result<QName, String>;

/// Whether `octets` are data of this type, as far as its form is known here: names whole and uncompressed, nothing left over.
/// What is not known here is octets to us, as it was to who wrote it (RFC 3597).
pub(super) fn is_whole(rtype: u16, octets: &[u8]) -> bool {
    let name_behind = |at: usize| {
        let Some(rest) = octets.get(at..) else { return false };
        QName::read(rest).is_ok_and(|(_, len)| len == rest.len())
    };
    if octets.len() > MAX_RDATA {
        return false;
    }
    match Qtype(rtype) {
        Qtype::A => octets.len() == 4,
        Qtype::AAAA => octets.len() == 16,
        Qtype::NS | Qtype::CNAME | Qtype::PTR | Qtype::DNAME => name_behind(0),
        Qtype::MX => name_behind(2),
        Qtype::SRV => name_behind(6),
        Qtype::TXT => !octets.is_empty() && strings_fill(octets),
        Qtype::SOA => soa(octets).is_some(),
        _ => true,
    }
}

fn strings_fill(mut octets: &[u8]) -> bool {
    while let Some((len, rest)) = octets.split_first() {
        let Some(rest) = rest.get(usize::from(*len)..) else { return false };
        octets = rest;
    }
    true
}

/// The one name that the data is, folded.
pub(super) fn folded(octets: &[u8]) -> Option<NameBuf> {
    QName::read(octets).ok().map(|(name, _)| name.as_ref().to_owned())
}

/// Reads the data of a SOA.
pub fn soa(octets: &[u8]) -> Option<Soa> {
    let (_, first) = QName::read(octets).ok()?;
    let (_, second) = QName::read(octets.get(first..)?).ok()?;
    let numbers: &[u8; 20] = octets.get(first + second..)?.try_into().ok()?;
    let (numbers, _) = numbers.as_chunks();
    let [serial, refresh, retry, expire, minimum] = numbers.first_chunk()?.map(u32::from_be_bytes);
    Some(Soa { serial, refresh, retry, expire, minimum })
}

/// Data from the words behind a record's type. The error says what is wrong with it.
pub(super) fn from_text(rtype: u16, tokens: &[Token<'_>], names: Names<'_>) -> Result<Vec<u8>, String> {
    if tokens.first().is_some_and(|token| !token.quoted && token.text == b"\\#") {
        return generic(tokens);
    }
    let mut words = tokens.iter();
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let mut octets = Vec::new();
    match Qtype(rtype) {
        Qtype::A => {
            let address: std::net::Ipv4Addr = parsed(next("the address")?)?;
            octets.extend_from_slice(&address.octets());
        }
        Qtype::AAAA => {
            let address: std::net::Ipv6Addr = parsed(next("the address")?)?;
            octets.extend_from_slice(&address.octets());
        }
        Qtype::NS | Qtype::CNAME | Qtype::PTR | Qtype::DNAME => {
            octets.extend_from_slice(names(next("the name")?)?.as_ref().as_wire());
        }
        Qtype::MX => {
            let preference: u16 = parsed(next("the preference")?)?;
            octets.extend_from_slice(&preference.to_be_bytes());
            octets.extend_from_slice(names(next("the name")?)?.as_ref().as_wire());
        }
        Qtype::SRV => {
            for what in ["the priority", "the weight", "the port"] {
                let number: u16 = parsed(next(what)?)?;
                octets.extend_from_slice(&number.to_be_bytes());
            }
            octets.extend_from_slice(names(next("the name")?)?.as_ref().as_wire());
        }
        Qtype::SOA => {
            for what in ["the primary's name", "the mailbox"] {
                octets.extend_from_slice(names(next(what)?)?.as_ref().as_wire());
            }
            for what in ["the serial", "refresh", "retry", "expire", "the negative TTL"] {
                let token = next(what)?;
                let number = token.as_str().and_then(super::text::seconds).ok_or_else(|| bad(token))?;
                octets.extend_from_slice(&number.to_be_bytes());
            }
        }
        Qtype::TXT => {
            octets.extend(strings(tokens)?);
            return Ok(octets);
        }
        _ => return by_library(rtype, tokens, names),
    }
    match words.next() {
        Some(token) => Err(format!("`{}` is too much", token.shown())),
        None => Ok(octets),
    }
}

fn bad(token: &Token<'_>) -> String {
    format!("`{}` is no good here", token.shown())
}

fn parsed<T: std::str::FromStr>(token: &Token<'_>) -> Result<T, String> {
    token.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| bad(token))
}

/// Character strings (RFC 1035 section 5.1), longer ones refused.
fn strings(tokens: &[Token<'_>]) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    for token in tokens {
        let string = token.unescaped().ok_or_else(|| bad(token))?;
        let len = u8::try_from(string.len()).map_err(|_| "a string is longer than 255 octets".to_owned())?;
        octets.push(len);
        octets.extend_from_slice(&string);
    }
    if octets.is_empty() { Err("the text is missing".into()) } else { Ok(octets) }
}

/// `\# length hex` (RFC 3597 section 5).
fn generic(tokens: &[Token<'_>]) -> Result<Vec<u8>, String> {
    let len: usize = parsed(tokens.get(1).ok_or("the length is missing")?)?;
    let mut octets = Vec::with_capacity(len.min(MAX_RDATA));
    let mut high = None;
    for digit in tokens.get(2..).unwrap_or_default().iter().flat_map(|token| token.text) {
        let value = (*digit as char).to_digit(16).ok_or("a digit is not hexadecimal")? as u8;
        match high.take() {
            None => high = Some(value),
            Some(high) => octets.push(high << 4 | value),
        }
    }
    if high.is_some() || octets.len() != len {
        return Err(format!("{} octets are announced, and others are there", len));
    }
    Ok(octets)
}

/// Types whose text only the library knows.
fn by_library(rtype: u16, tokens: &[Token<'_>], names: Names<'_>) -> Result<Vec<u8>, String> {
    let rtype = RecordType::from(rtype);
    if !matches!(
        rtype,
        RecordType::CAA
            | RecordType::HINFO
            | RecordType::HTTPS
            | RecordType::NAPTR
            | RecordType::SSHFP
            | RecordType::SVCB
            | RecordType::TLSA
    ) {
        return Err(format!("the text of {rtype} is not known here: write it as \\# length hex"));
    }
    // The library knows no origin: it reads the root in a name's place, and the name is put there when all is octets. Behind a
    // service's name stand its parameters, behind a rewriting's replacement nothing.
    let name_at = match rtype {
        RecordType::HTTPS | RecordType::SVCB => Some(1),
        RecordType::NAPTR => Some(5),
        _ => None,
    };
    let mut name = None;
    let mut text = String::new();
    for (at, token) in tokens.iter().enumerate() {
        if name_at == Some(at) {
            name = Some(names(token)?);
            text += ". ";
            continue;
        }
        let word = token.as_str().ok_or_else(|| bad(token))?;
        // The value of a service's parameter: the library reads it to the next blank, quoted or not.
        if name_at == Some(1) && token.glued && text.ends_with("= ") {
            if word.contains(|c: char| c.is_whitespace() || c.is_control() || ";()\"".contains(c)) {
                let kept_out = "blanks, semicolons, parentheses and quotation marks";
                return Err(format!("`{}`: a parameter with {kept_out} in it is not read here", token.shown()));
            }
            text.pop();
            text += &format!("{word} ");
        } else if token.quoted {
            text += &format!("\"{word}\" ")
        } else {
            text += &format!("{word} ")
        }
    }
    let mut data = RData::try_from_str(rtype, &text).map_err(|error| error.to_string())?;
    crate::svc_params::put_in_order(&mut data)?;
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    data.emit(&mut encoder).map_err(|error| error.to_string())?;
    if let Some(name) = name {
        let root = if rtype == RecordType::NAPTR { octets.len().saturating_sub(1) } else { 2 };
        if octets.get(root) != Some(&0) {
            return Err("the name is not where it should be".into());
        }
        octets.splice(root..=root, name.as_ref().as_wire().iter().copied());
    }
    Ok(octets)
}
