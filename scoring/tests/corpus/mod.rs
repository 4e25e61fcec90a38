//! Reads the open corpora: gzip, one JSON object a line. Shared by the replay tests and the fit.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use staunch_scoring::{NameBuf, NameRef, Split};

/// One query.
#[derive(serde::Deserialize)]
pub struct Row {
    /// Seconds since the epoch.
    pub t: Option<f64>,
    /// Opaque client.
    pub session: Option<String>,
    /// Presentation form.
    pub qname: String,
    /// Mnemonic, `TYPEn` or `-`.
    pub qtype: String,
    /// benign, tunnel, lowslow, benign-odd.
    pub label: String,
    /// What made it.
    pub tool: String,
}

/// Directory of the corpora: `STAUNCH_CORPORA`, else `../shared/corpora` beside the repository; `None` if absent.
pub fn directory() -> Option<PathBuf> {
    let dir = std::env::var_os("STAUNCH_CORPORA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"), PathBuf::from);
    dir.join("benign_seq.jsonl.gz").is_file().then_some(dir)
}

/// All rows of one file, in its order.
pub fn rows(dir: &Path, stem: &str) -> std::io::Result<Vec<Row>> {
    let file = File::open(dir.join(format!("{stem}.jsonl.gz")))?;
    BufReader::new(flate2::read::GzDecoder::new(file)).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// The name, if it is one a resolver would score: single labels, `.local`, `.localdomain` and private reverse zones
/// are answered locally (RFC 6303, RFC 6761, RFC 6762).
pub fn scored_name(row: &Row) -> Option<NameBuf> {
    let name = NameBuf::from_text(&row.qname).ok()?;
    (!is_local(name.as_ref())).then_some(name)
}

fn is_local(name: NameRef<'_>) -> bool {
    let labels: Vec<&[u8]> = name.labels().collect();
    let from_right = |i: usize| labels.len().checked_sub(i).and_then(|at| labels.get(at)).copied().unwrap_or(b"");
    if labels.len() <= 1 || from_right(1) == b"local" || from_right(1) == b"localdomain" {
        return true;
    }
    if from_right(1) != b"arpa" {
        return false;
    }
    let number = |label: &[u8]| std::str::from_utf8(label).ok().and_then(|text| text.parse::<u8>().ok());
    match from_right(2) {
        b"in-addr" => match (number(from_right(3)), number(from_right(4))) {
            (Some(0 | 10 | 127 | 255), _) | (Some(169), Some(254)) | (Some(192), Some(168)) => true,
            (Some(172), Some(second)) => (16..32).contains(&second),
            (Some(100), Some(second)) => (64..128).contains(&second),
            _ => false,
        },
        b"ip6" => matches!((from_right(3), from_right(4)), (b"0", b"0") | (b"f", b"c" | b"d" | b"e" | b"f")),
        _ => false,
    }
}

/// The domain whose payload part a name adds to the model: its tenant. Of reverse names of IPv6 the domain above all
/// tenants, whose reader is told every digit.
pub fn owner(name: &NameBuf) -> NameRef<'_> {
    let (name, split) = (name.as_ref(), Split::of(name.as_ref()));
    if name.as_wire().ends_with(b"\x03ip6\x04arpa\x00") { split.icann(name) } else { split.tenant(name) }
}

/// Record type number of a mnemonic as the corpora write it.
pub fn qtype(text: &str) -> u16 {
    match text {
        "A" | "-" => 1,
        "NS" => 2,
        "CNAME" => 5,
        "SOA" => 6,
        "NULL" => 10,
        "PTR" => 12,
        "MX" => 15,
        "TXT" => 16,
        "KEY" => 25,
        "AAAA" => 28,
        "SRV" => 33,
        "HTTPS" => 65,
        "ANY" => 255,
        other => other.strip_prefix("TYPE").and_then(|n| n.parse().ok()).unwrap_or(65535),
    }
}
