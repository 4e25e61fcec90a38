//! Ports: what of an address a lease opens.
//!
//! Pure. A set of ports is settled when the configuration is read and shared from then on, so that a lease holds no copy.

mod opening;

use std::fmt;
use std::sync::Arc;

pub use opening::Opening;

/// Most ports in one set: each may be an element in the packet filter for each address of an answer.
pub const PORTS_MAX: usize = 16;

/// A transport protocol that leases are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768; HTTP/3 among others (RFC 9114).
    Udp,
}

impl Protocol {
    /// Its number in the IP header (IANA, protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// As written in configurations and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of one protocol: `tcp/443`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// 1 to 65535; 0 stands for nothing that can be dialled and is never read from a text.
    pub number: u16,
}

impl Port {
    /// A TCP port.
    pub const fn tcp(number: u16) -> Self {
        Self { protocol: Protocol::Tcp, number }
    }

    /// A UDP port.
    pub const fn udp(number: u16) -> Self {
        Self { protocol: Protocol::Udp, number }
    }

    /// Reads `tcp/443`.
    pub fn from_text(text: &str) -> Option<Self> {
        let (protocol, number) = text.split_once('/')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        // `parse` would take a sign.
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let number = number.parse().ok().filter(|number| digits && *number > 0)?;
        Some(Self { protocol, number })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.as_str(), self.number)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Port {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Port;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port such as `tcp/443`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Port, E> {
                Port::from_text(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        d.deserialize_str(Text)
    }
}

/// Ports that a lease opens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Every TCP and UDP port. Other protocols have none and stay closed.
    Any,
    /// These: ascending, each once, one to [`PORTS_MAX`].
    These(Arc<[Port]>),
}

/// Why ports do not make a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// One of the texts names no port.
    #[error("`{text}` is not a port")]
    NotAPort {
        /// Its place.
        at: usize,
        /// What was written, escaped.
        text: String,
    },
    /// Nothing could be reached.
    #[error("no port at all")]
    None,
    /// More than [`PORTS_MAX`].
    #[error("{0} ports, at most {PORTS_MAX} fit; `any` opens all")]
    TooMany(usize),
}

impl PortsError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotAPort { .. } => "write `tcp/443` or `udp/443`, or `any` alone for every TCP and UDP port",
            Self::None => "name at least one, or leave it out",
            Self::TooMany(_) => "name the few that are needed, or `any` alone",
        }
    }
}

impl Ports {
    /// Reads ports as written: `tcp/443`, or `any` alone.
    ///
    /// # Errors
    ///
    /// [`PortsError`].
    pub fn read(written: &[String]) -> Result<Self, PortsError> {
        if let [any] = written
            && any == "any"
        {
            return Ok(Self::Any);
        }
        let port = |(at, text): (usize, &String)| {
            Port::from_text(text).ok_or_else(|| PortsError::NotAPort { at, text: text.escape_debug().to_string() })
        };
        Self::these(written.iter().enumerate().map(port).collect::<Result<Vec<_>, _>>()?)
    }

    /// A set of these.
    ///
    /// # Errors
    ///
    /// [`PortsError`] for none, and for too many.
    pub fn these(ports: impl IntoIterator<Item = Port>) -> Result<Self, PortsError> {
        let mut ports: Vec<Port> = ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup();
        match ports.len() {
            0 => Err(PortsError::None),
            n if n > PORTS_MAX => Err(PortsError::TooMany(n)),
            _ => Ok(Self::These(ports.into())),
        }
    }

    /// What opens a web page or an API over it, HTTP/3 included: `tcp/443`, `tcp/80`, `udp/443`.
    pub fn web() -> Self {
        Self::These(Opening::WEB.into())
    }

    /// Whether a port is among them.
    pub fn contains(&self, port: Port) -> bool {
        match self {
            Self::Any => true,
            Self::These(these) => these.binary_search(&port).is_ok(),
        }
    }

    /// Whether all of `other` are among them.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::These(_), Self::Any) => false,
            // One set shared by a whole profile is the rule.
            (Self::These(a), Self::These(b)) => Arc::ptr_eq(a, b) || b.iter().all(|port| self.contains(*port)),
        }
    }

    /// Those that are in both; nothing where there are none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, these) | (these, Self::Any) => Some(these.clone()),
            (Self::These(a), Self::These(_)) => {
                Self::these(a.iter().copied().filter(|port| other.contains(*port))).ok()
            }
        }
    }

    /// How they stand in the packet filter: one element each.
    pub fn openings(&self) -> impl Iterator<Item = Opening> {
        let (first, these) = match self {
            Self::Any => (Some(Opening::Any), &[][..]),
            Self::These(these) => (self.has_web().then_some(Opening::Web), &these[..]),
        };
        let rest = these.iter().map(|port| Opening::One(*port));
        first.into_iter().chain(rest.filter(move |one| first.is_none_or(|first| !first.covers(*one))))
    }

    /// Number of [`Ports::openings`].
    pub fn opening_count(&self) -> usize {
        match self {
            Self::Any => 1,
            Self::These(these) if self.has_web() => these.len() + 1 - Opening::WEB.len(),
            Self::These(these) => these.len(),
        }
    }

    /// Whether each of its elements is one of `other` too, so that nothing else is needed where `other` stands.
    pub fn stands_in(&self, other: &Self) -> bool {
        self == other || self.openings().all(|opening| other.openings().any(|held| held == opening))
    }

    fn has_web(&self) -> bool {
        Opening::WEB.iter().all(|port| self.contains(*port))
    }

    /// As they are written: `tcp/443`, or `any` alone.
    pub fn written(&self) -> Vec<String> {
        match self {
            Self::Any => vec!["any".into()],
            Self::These(these) => these.iter().map(Port::to_string).collect(),
        }
    }

    /// Number of ports that are named.
    pub fn named(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::These(these) => these.len(),
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::web()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::These(these) => {
                for (i, port) in these.iter().enumerate() {
                    write!(f, "{}{port}", if i > 0 { " " } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Ports {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => s.collect_seq(["any"]),
            Self::These(these) => s.collect_seq(these.iter()),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::read(&Vec::<String>::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_shown() {
        for (text, port) in
            [("tcp/443", Some(Port::tcp(443))), ("udp/1", Some(Port::udp(1))), ("tcp/65535", Some(Port::tcp(65_535)))]
        {
            assert_eq!(Port::from_text(text), port);
            assert_eq!(port.map(|port| port.to_string()).as_deref(), Some(text));
        }
        for bad in ["tcp/0", "tcp/65536", "tcp/+443", "tcp/", "/443", "443", "TCP/443", "sctp/1", "tcp/44 3", "tcp//4"]
        {
            assert_eq!(Port::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn sets_cover_what_they_hold() {
        let web = Ports::web();
        let one = Ports::these([Port::tcp(443)]).expect("a set");
        let ssh = Ports::these([Port::tcp(22), Port::tcp(22)]).expect("a set");
        assert_eq!(ssh.opening_count(), 1, "each once");
        assert!(web.covers(&one) && !one.covers(&web) && !web.covers(&ssh));
        assert!(Ports::Any.covers(&web) && Ports::Any.covers(&Ports::Any) && !web.covers(&Ports::Any));
        assert!(web.contains(Port::udp(443)) && !web.contains(Port::udp(80)) && Ports::Any.contains(Port::udp(9)));
        assert_eq!((web.to_string().as_str(), Ports::Any.to_string().as_str()), ("tcp/80 tcp/443 udp/443", "any"));
        assert_eq!((web.intersection(&one), web.intersection(&ssh)), (Some(one.clone()), None));
        assert_eq!((Ports::Any.intersection(&web), one.intersection(&Ports::Any)), (Some(web.clone()), Some(one)));
        assert_eq!(Ports::these([]), Err(PortsError::None));
        assert_eq!(Ports::these((1..=17).map(Port::tcp)), Err(PortsError::TooMany(17)));
    }
}
