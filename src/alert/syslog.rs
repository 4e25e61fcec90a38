//! Syslog messages (RFC 5424) and where they go.
//!
//! Pure; [`super::syslog_sink`] sends them.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Error, event_json};
use crate::event::{Alert, AlertKind};

/// Where syslog messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTarget {
    /// One message a datagram (RFC 5426).
    Udp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Octet counting (RFC 6587 section 3.4.1).
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A datagram socket of this host.
    Unix {
        /// Its path.
        path: PathBuf,
    },
}

impl FromStr for SyslogTarget {
    type Err = Error;

    /// Reads `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix:///PATH`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::SyslogAddress(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if scheme == "unix" {
            return if rest.starts_with('/') { Ok(Self::Unix { path: rest.into() }) } else { Err(bad()) };
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let is_v6 = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        if !is_v6 && !is_name {
            return Err(bad());
        }
        let host = host.to_owned();
        match scheme {
            "udp" => Ok(Self::Udp { host, port }),
            "tcp" => Ok(Self::Tcp { host, port }),
            _ => Err(bad()),
        }
    }
}

/// Local use 0 (RFC 5424 section 6.2.1).
const FACILITY: u8 = 16;

/// SD-ID. The number is the one reserved for examples (RFC 5612) until the product has its own.
const SD_ID: &str = "staunch@32473";

/// Longest parameter value in characters, so that a message stays far below what receivers must take (RFC 5424
/// section 6.1 and RFC 5426 section 3.2 ask for 2048 octets).
const VALUE_CHARS: usize = 128;
/// Longest free text in characters.
const TEXT_CHARS: usize = 400;

/// One message, without framing. The process id is left out: an alert may be delivered by a later process than the one
/// that raised it. Control characters and what could reorder text are written as `\u{…}`.
pub fn format(alert: &Alert, hostname: &str) -> String {
    let severity = match alert.kind {
        AlertKind::Quarantine => 2,
        AlertKind::Degraded | AlertKind::VolumeSpent => 3,
        AlertKind::WouldQuarantine => 4,
        AlertKind::Release => 5,
    };
    let kind = event_json::kind(alert.kind);
    let mut out = String::with_capacity(1024);
    // Writing to a string cannot fail.
    let _ = write!(out, "<{}>1 ", FACILITY * 8 + severity);
    let _ = write!(out, "{} {} staunch - {kind} [{SD_ID}", header(&alert.time, 48), header(hostname, 255));
    let leaked = format!("{}", alert.leaked_bits_at_most);
    let names = alert.names_forwarded.to_string();
    let case = alert.case.to_string();
    let addresses = whole_addresses(&alert.addresses);
    let mode = match alert.mode {
        crate::model::Mode::Monitor => "monitor",
        crate::model::Mode::Canary => "canary",
        crate::model::Mode::Enforce => "enforce",
    };
    let parameters = [
        ("id", alert.id.as_str()),
        ("case", &case),
        ("session", alert.session.as_str()),
        ("type", alert.session_type.as_str()),
        ("owner", alert.owner.as_deref().unwrap_or_default()),
        ("addresses", &addresses),
        ("mode", mode),
        ("reason", alert.reason.map_or("-", crate::model::Reason::as_str)),
        ("domain", &alert.tenant),
        ("leakedBitsAtMost", &leaked),
        ("namesForwarded", &names),
        ("sample", alert.samples.first().map(String::as_str).unwrap_or_default()),
    ];
    for (name, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(out, " {name}=\"{}\"", Value(value));
    }
    // The byte order mark says that the text is UTF-8 (section 6.4).
    let _ = write!(out, "] \u{feff}{}", Text(&alert.summary));
    out
}

/// As many addresses as fit, four at most: one that is cut short is another.
fn whole_addresses(all: &[IpAddr]) -> String {
    let mut out = String::new();
    for address in all.iter().take(4).map(ToString::to_string) {
        if out.len() + 1 + address.len() > VALUE_CHARS {
            break;
        }
        if !out.is_empty() {
            out.push(',');
        }
        out += &address;
    }
    out
}

/// A header field: printable ASCII without spaces (section 6), `-` where nothing is left.
fn header(text: &str, most: usize) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if field.is_empty() { "-".into() } else { field }
}

/// A parameter value: `"`, `\` and `]` escaped (section 6.3.3).
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(VALUE_CHARS) {
            match c {
                '"' | '\\' | ']' => write!(f, "\\{c}")?,
                // The backslash of the escape is doubled, so that the value a receiver reads is `\u{…}`.
                c if is_hostile(c) => write!(f, "\\\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Free text.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(TEXT_CHARS) {
            match c {
                c if is_hostile(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, line and paragraph separators, and marks that change the direction of text or hide.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn a_message_has_the_form_of_rfc_5424() {
        let mut alert = testing::alert(5);
        alert.owner = Some("a\"b\\c]d".into());
        let expected = "<130>1 2026-01-02T03:04:05.678Z gw-1 staunch - quarantine [staunch@32473 id=\"alert-5\" \
            case=\"c000000000005\" session=\"agent-5\" type=\"batch\" owner=\"a\\\"b\\\\c\\]d\" mode=\"enforce\" \
            reason=\"ledger-tenant\" domain=\"attacker.example\" leakedBitsAtMost=\"5.0\" namesForwarded=\"5\" \
            sample=\"a.attacker.example\"] \u{feff}session closed, alert 5";
        assert_eq!(format(&alert, "gw-1"), expected);
        let severity = |kind| {
            alert.kind = kind;
            format(&alert, "").split_once('>').map(|(pri, _)| pri.to_owned()).unwrap()
        };
        use AlertKind::*;
        assert_eq!([Quarantine, Degraded, WouldQuarantine, Release].map(severity), ["<130", "<131", "<132", "<133"]);
    }

    #[test]
    fn no_address_is_cut_short() {
        let mut alert = testing::alert(1);
        let address = |n: u16| IpAddr::from([0x2001, 0xdb8, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, n]);
        alert.addresses = (0x1001..0x1006).map(address).collect();
        let [first, second, third] = [0x1001, 0x1002, 0x1003].map(address);
        let expected = format!(" addresses=\"{first},{second},{third}\" ");
        assert!(format(&alert, "gw-1").contains(&expected), "{}", format(&alert, "gw-1"));
        alert.addresses = (1..6).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        assert!(format(&alert, "gw-1").contains(" addresses=\"192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4\" "));
    }

    #[test]
    fn no_character_breaks_out() {
        for c in (0..=0x3000).filter_map(char::from_u32) {
            let mut alert = testing::alert(1);
            alert.summary = format!("x{c}y");
            alert.tenant = format!("{c}\" ] x=\"{c}");
            alert.time = format!("t{c} u");
            let text = format(&alert, &format!("h{c} [x"));
            assert!(!text.chars().any(|c| c.is_control()), "{c:?}");
            assert_eq!(text.matches('\u{feff}').count(), 1, "{c:?}");
            // The structured data ends at the first unescaped bracket, which is the one before the text.
            let sd = &text[text.find("[staunch@").unwrap()..];
            let mut escaped = false;
            let end = sd.char_indices().find(|(_, c)| {
                let ends = *c == ']' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            assert!(sd[end.unwrap().0..].starts_with("] \u{feff}x"), "{c:?}: {text}");
            assert_eq!(text.split(' ').count() - sd.split(' ').count(), 6, "six header fields: {text}");
        }
        let mut long = testing::alert(1);
        long.summary = "\u{1}".repeat(10_000);
        long.samples = vec!["\\".repeat(10_000)];
        long.owner = Some("\u{1}".repeat(10_000));
        assert!(format(&long, &"h".repeat(999)).len() < 8_192);
    }

    #[test]
    fn addresses_are_read() {
        let target = |text: &str| text.parse::<SyslogTarget>().ok();
        let udp = |host: &str, port| Some(SyslogTarget::Udp { host: host.into(), port });
        assert_eq!(target("udp://10.0.0.1:514"), udp("10.0.0.1", 514));
        assert_eq!(target("udp://[2001:db8::1]:514"), udp("[2001:db8::1]", 514));
        let tcp = Some(SyslogTarget::Tcp { host: "siem.example".into(), port: 601 });
        assert_eq!(target("tcp://siem.example:601"), tcp);
        assert_eq!(target("unix:///dev/log"), Some(SyslogTarget::Unix { path: "/dev/log".into() }));
        for bad in ["udp://10.0.0.1", "udp://:514", "udp://h:0", "udp://2001:db8::1:514", "tls://h:1", "unix://x", "h"]
        {
            assert_eq!(target(bad), None, "{bad}");
        }
    }
}
