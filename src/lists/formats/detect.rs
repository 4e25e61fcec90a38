//! Which format a list is in, by its first lines.

use std::net::IpAddr;

use super::Format;

/// Lines with content that are looked at.
pub const DETECTED_LINES: usize = 200;

/// The format that most of the first [`DETECTED_LINES`] lines with content are in; of equals the one that is asked for
/// less often. [`Format::Domains`] where nothing speaks for another. Lists of newly registered domains look like those of
/// domains and are never detected.
pub fn detect(start: &[u8]) -> Format {
    const FORMATS: [Format; 5] = [Format::Domains, Format::Hosts, Format::Adblock, Format::Dnsmasq, Format::Unbound];
    let mut votes = [0usize; FORMATS.len()];
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let mut lines = start.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let mut seen = 0;
    while let Some(line) = lines.next().filter(|_| seen < DETECTED_LINES) {
        // Remarks of filter lists are counted, since nothing else begins so.
        let content = !line.is_empty() && !line.starts_with(b"#");
        seen += usize::from(content);
        let vote = std::str::from_utf8(line).ok().filter(|_| content).and_then(of_line);
        if let Some(at) = vote.and_then(|format| FORMATS.iter().position(|f| *f == format))
            && let Some(count) = votes.get_mut(at)
        {
            *count += 1;
        }
    }
    let best = votes.iter().enumerate().max_by_key(|(_, count)| **count).filter(|(_, count)| **count > 0);
    best.and_then(|(at, _)| FORMATS.get(at)).copied().unwrap_or_default()
}

/// The format that only such a line can be in.
fn of_line(line: &str) -> Option<Format> {
    if ["||", "@@", "!", "[", "|"].iter().any(|mark| line.starts_with(mark)) || line.contains("##") {
        return Some(Format::Adblock);
    }
    if ["address=/", "server=/", "local=/"].iter().any(|mark| line.starts_with(mark)) {
        return Some(Format::Dnsmasq);
    }
    if ["local-zone:", "local-data:", "server:"].iter().any(|mark| line.starts_with(mark)) {
        return Some(Format::Unbound);
    }
    let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
    let first = words.next()?;
    let is_address = first.split('%').next().is_some_and(|text| text.parse::<IpAddr>().is_ok());
    match (is_address, words.next()) {
        (true, Some(_)) => Some(Format::Hosts),
        (false, None) => Some(Format::Domains),
        _ => None,
    }
}
