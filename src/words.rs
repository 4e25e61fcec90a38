//! Free words of people (owners, reasons, names of operators) and addresses that they write.
//!
//! Pure. Words stand in lines that others read on a terminal, so none may begin a line of its own or speak to the terminal:
//! they are refused where they come in and escaped where they are shown, since older records may hold some.

use std::net::IpAddr;

/// Whether a character could forge a line or change how one is shown: controls, line ends of Unicode, and what turns the
/// direction of writing.
fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What is wrong with free words, if anything.
pub fn problem(words: &str) -> Option<String> {
    let c = words.chars().find(|c| is_active(*c))?;
    Some(format!("it holds a control character (U+{:04X}); write one line of plain text", u32::from(c)))
}

/// Words as they may be shown.
pub fn shown(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        if is_active(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Why no session can ask from an address, if none can.
pub fn no_source(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is a broadcast address"),
        ip if ip.is_unspecified() => Some("means any address, and no query comes from it"),
        ip if ip.is_multicast() => Some("is a multicast address, and no query comes from it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_could_forge_a_line_are_refused_and_shown_escaped() {
        for (words, as_shown) in [
            ("reviewed, own tooling", None),
            ("größer — “ok” 日本", None),
            ("x\nsession s2 active", Some("x\\nsession s2 active")),
            ("\u{1b}[31mred", Some("\\u{1b}[31mred")),
            ("a\rb\u{85}c", Some("a\\rb\\u{85}c")),
            ("a\u{2028}b\u{202e}c", Some("a\\u{2028}b\\u{202e}c")),
        ] {
            assert_eq!(problem(words).is_some(), as_shown.is_some(), "{words:?}");
            assert_eq!(shown(words), as_shown.unwrap_or(words));
        }
    }

    #[test]
    fn no_session_asks_from_any_or_from_many() {
        for (address, is_one) in [
            ("10.0.0.1", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(no_source(address.parse().expect("an address")).is_none(), is_one, "{address}");
        }
    }
}
