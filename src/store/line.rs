//! One line of the journal: its text, its own checksum, and its link to the line before.
//!
//! `{"seq":7,"prev":"<hash of line 6>","time":"…","record":{…},"hash":"<64 hex>"}` and a newline. `hash` is SHA-256 over
//! every octet of the line before `,"hash":`, so a line proves itself even where its neighbours are damaged, and `prev`
//! chains it to them. The hashes have no key: they show damage and careless edits; against somebody who may write the
//! directory they help only together with a copy of the newest hash kept elsewhere.
//!
//! Pure: octets in, octets out. Knows no file.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Record;

/// SHA-256 of a line.
pub(super) type Hash = [u8; 32];

/// What the first line of a journal is chained to.
pub(super) const GENESIS: Hash = [0; 32];

/// Longest line that is written, in octets. Longer ones are refused to the caller.
pub(super) const MAX_LINE: usize = 1 << 20;

/// How every line begins; a damaged stretch is searched for it.
pub(super) const START: &[u8] = b"{\"seq\":";

const HASH_KEY: &[u8] = b",\"hash\":\"";
const HASH_END: &[u8] = b"\"}";
/// Octets from the comma before `"hash"` to the closing brace.
const TAIL: usize = HASH_KEY.len() + 64 + HASH_END.len();

/// What the journal says about itself, beside the facts it carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Mark {
    /// A snapshot begins: what follows, up to [`Mark::End`], stands for everything before.
    Begin {
        /// Version of the journal's lines.
        schema: u32,
        /// Alerts recorded before.
        alerts: u64,
    },
    /// How far a sink has come.
    Sink {
        /// Its name.
        sink: String,
        /// Journal sequence of the last alert it took, or of its registration.
        seq: u64,
        /// How many alerts there were up to `seq`.
        nth: u64,
    },
    /// The snapshot is complete.
    End {
        /// Lines between begin and end.
        items: u64,
    },
    /// The journal was repaired before this line.
    Repaired {
        /// Octets that could not be read.
        octets: u64,
        /// File that holds a copy of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aside: Option<String>,
    },
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// A fact.
    Record(Box<Record>),
    /// About the journal itself.
    Mark(Mark),
}

/// A line that has proved itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) hash: Hash,
    /// RFC 3339, UTC, milliseconds.
    pub(super) time: String,
    /// The next line belongs to the same call of `append`.
    pub(super) more: bool,
    /// Sequence under which the fact was first written: in a snapshot lines are copies.
    pub(super) origin: u64,
    pub(super) body: Body,
}

/// Why octets are not a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not the shape of a line, or its checksum does not hold.
    Damaged,
    /// The checksum holds, but the content is not known to this version.
    Unknown,
}

#[derive(Deserialize)]
struct Wire {
    seq: u64,
    prev: String,
    time: String,
    #[serde(default)]
    record: Option<Record>,
    #[serde(default)]
    mark: Option<Mark>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    origin: Option<u64>,
}

/// A body as JSON, with the key it stands under. Made by the caller of `append`, so that the writer need not.
#[derive(Debug, Clone)]
pub(super) struct Json {
    key: &'static [u8],
    text: Vec<u8>,
}

impl Json {
    /// Of a fact.
    pub(super) fn record(record: &Record) -> serde_json::Result<Self> {
        Ok(Self { key: b"\",\"record\":", text: serde_json::to_vec(record)? })
    }

    /// Of a mark.
    pub(super) fn mark(mark: &Mark) -> serde_json::Result<Self> {
        Ok(Self { key: b"\",\"mark\":", text: serde_json::to_vec(mark)? })
    }

    /// Of either.
    pub(super) fn body(body: &Body) -> serde_json::Result<Self> {
        match body {
            Body::Record(record) => Self::record(record),
            Body::Mark(mark) => Self::mark(mark),
        }
    }

    /// Octets of the whole line, at most.
    pub(super) fn line_len(&self) -> usize {
        self.text.len() + 320
    }
}

/// What a line says beside its body and its place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// Nothing.
    None,
    /// The next line belongs to the same call.
    More,
    /// It is a copy of the line that had this sequence.
    CopyOf(u64),
}

/// Appends one line with its newline to `out`, and returns its hash. `time` is RFC 3339 and needs no escaping.
pub(super) fn encode(out: &mut Vec<u8>, seq: u64, prev: &Hash, time: &str, extra: Extra, json: &Json) -> Hash {
    let start = out.len();
    out.extend_from_slice(START);
    out.extend_from_slice(seq.to_string().as_bytes());
    out.extend_from_slice(b",\"prev\":\"");
    out.extend_from_slice(hex(prev).as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(json.key);
    out.extend_from_slice(&json.text);
    match extra {
        Extra::None => {}
        Extra::More => out.extend_from_slice(b",\"more\":true"),
        Extra::CopyOf(seq) => out.extend_from_slice(format!(",\"origin\":{seq}").as_bytes()),
    }
    let hash: Hash = Sha256::digest(out.get(start..).unwrap_or_default()).into();
    out.extend_from_slice(HASH_KEY);
    out.extend_from_slice(hex(&hash).as_bytes());
    out.extend_from_slice(HASH_END);
    out.push(b'\n');
    hash
}

/// Reads and checks one line, without its newline.
pub(super) fn decode(raw: &[u8]) -> Result<Line, Fault> {
    let hash = checked(raw).ok_or(Fault::Damaged)?;
    let wire: Wire = serde_json::from_slice(raw).map_err(|_| Fault::Unknown)?;
    let prev = from_hex(wire.prev.as_bytes()).ok_or(Fault::Unknown)?;
    let body = match (wire.record, wire.mark) {
        (Some(record), None) => Body::Record(Box::new(record)),
        (None, Some(mark)) => Body::Mark(mark),
        _ => return Err(Fault::Unknown),
    };
    let origin = wire.origin.unwrap_or(wire.seq);
    Ok(Line { seq: wire.seq, prev, hash, time: wire.time, more: wire.more, origin, body })
}

/// The line's hash, if it holds. Reads no further into the line than that.
fn checked(raw: &[u8]) -> Option<Hash> {
    let body_len = raw.len().checked_sub(TAIL)?;
    let (body, tail) = raw.split_at_checked(body_len)?;
    let claimed = from_hex(tail.strip_prefix(HASH_KEY)?.strip_suffix(HASH_END)?)?;
    if !body.starts_with(START) {
        return None;
    }
    let real: Hash = Sha256::digest(body).into();
    (real == claimed).then_some(real)
}

/// The sequence number a line claims, unchecked: for skipping what a reader has already had.
pub(super) fn claimed_seq(raw: &[u8]) -> Option<u64> {
    let digits = raw.strip_prefix(START)?;
    let end = digits.iter().position(|b| *b == b',')?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// Whether a line claims to carry an alert, unchecked. Record text further right cannot imitate it: what stands before
/// `"record"` has a fixed form.
pub(super) fn claims_alert(raw: &[u8]) -> bool {
    const KEY: &[u8] = b",\"record\":{\"kind\":\"alert\",";
    // `{"seq":` + 20 digits + `,"prev":"` + 64 + `","time":"` + 24 + `"` is below 160.
    let head = raw.get(..raw.len().min(160 + KEY.len())).unwrap_or_default();
    head.windows(KEY.len()).any(|w| w == KEY)
}

/// Finds lines in a stretch without newlines that is not itself a line: two lines whose newline was damaged, or a line
/// after a torn one. Yields `(offset, length)` of each candidate that begins like a line, its end cut at the last thing
/// that looks like a line's end, and then at the first, in case the rest is of a line whose beginning is lost.
pub(super) fn candidates(raw: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let starts: Vec<usize> =
        raw.windows(START.len()).enumerate().filter(|(_, w)| *w == START).map(|(at, _)| at).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([raw.len()]).collect();
    starts.into_iter().zip(ends).flat_map(move |(start, end)| {
        let piece = raw.get(start..end).unwrap_or_default();
        let is_key = |window: &[u8]| window == HASH_KEY;
        let last = piece.windows(HASH_KEY.len()).rposition(is_key);
        let first = piece.windows(HASH_KEY.len()).position(is_key).filter(|first| Some(*first) != last);
        let whole = move |key: usize| (key + TAIL <= piece.len()).then_some((start, key + TAIL));
        [last, first].into_iter().flatten().filter_map(whole)
    })
}

/// Lower-case hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    // By table: each line has two hashes, and by `write!` they took as long as all else about it.
    let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xf)];
    let mut text = String::with_capacity(octets.len() * 2);
    text.extend(octets.iter().flat_map(|octet| [digit(octet >> 4), digit(*octet)]));
    text
}

fn from_hex(text: &[u8]) -> Option<Hash> {
    if text.len() != 64 {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut hash = [0u8; 32];
    for (slot, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *slot = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(digest: &str) -> Body {
        Body::Record(Box::new(Record::Policy {
            digest: digest.into(),
            learned: Vec::new(),
            enforced: false,
            ranges: Vec::new(),
        }))
    }

    fn text(seq: u64, body: &Body) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, seq, &GENESIS, "2026-01-02T03:04:05.678Z", Extra::None, &Json::body(body).unwrap());
        out.pop();
        out
    }

    #[test]
    fn a_line_round_trips_and_any_single_changed_octet_is_noticed() {
        let raw = text(7, &policy("\u{1b}[31m\"},{\"seq\":9 ,\"hash\":\""));
        let line = decode(&raw).unwrap();
        assert_eq!((line.seq, line.prev, line.more), (7, GENESIS, false));
        assert_eq!(claimed_seq(&raw), Some(7));
        for at in 0..raw.len() {
            for bit in 0..8 {
                let mut bad = raw.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decode(&bad), Err(Fault::Damaged), "octet {at} bit {bit}");
            }
        }
    }

    #[test]
    fn lines_joined_by_a_damaged_newline_are_found() {
        let (a, b) = (text(1, &policy("a")), text(2, &policy("b")));
        // The last joint is what is left of a line whose beginning is lost.
        let headless = [b"\0\0\0", a.split_at(7).1].concat();
        for joint in [&b"\x0b"[..], b"", b"{\"seq\":torn", &headless] {
            let joined = [&a[..], joint, &b[..], b"rest"].concat();
            let found: Vec<u64> = candidates(&joined)
                .filter_map(|(at, len)| decode(&joined[at..at + len]).ok())
                .map(|line| line.seq)
                .collect();
            assert_eq!(found, [1, 2]);
        }
    }

    #[test]
    fn a_line_of_a_later_version_is_not_called_damaged() {
        let mut body = b"{\"seq\":1,\"prev\":\"\",\"time\":\"\",\"record\":{\"kind\":\"from-the-future\"}".to_vec();
        let hash = hex(&Sha256::digest(&body));
        body.extend_from_slice(format!(",\"hash\":\"{hash}\"}}").as_bytes());
        assert_eq!(decode(&body), Err(Fault::Unknown));
    }

    #[test]
    fn no_alert_is_claimed_by_text_inside_another_record() {
        assert!(!claims_alert(&text(1, &policy(",\"record\":{\"kind\":\"alert\","))));
    }
}
