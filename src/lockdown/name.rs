//! Names of interfaces and hardware addresses, as they may stand in a script.

use std::fmt;
use std::str::FromStr;

use crate::enforce::{interface_covers, is_interface};

/// An interface, or with a `*` at its end every interface whose name begins so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// Why a text is no interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an interface name: use 1 to 15 visible characters without / : \" \\, a `*` only at the end")]
pub struct NameError(String);

impl InterfaceName {
    /// Whether it stands for every name that begins so.
    pub fn is_pattern(&self) -> bool {
        self.0.ends_with('*')
    }

    /// Whether it stands for the interface called `name`.
    pub fn covers(&self, name: &str) -> bool {
        interface_covers(&self.0, name)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !is_interface(text) {
            return Err(NameError(text.escape_debug().to_string()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware address of an Ethernet port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl FromStr for Mac {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            *octet = u8::from_str_radix(part, 16).map_err(drop)?;
        }
        // A group address sends nothing.
        if parts.next().is_some() || octets[0] & 1 == 1 || octets == [0; 6] { Err(()) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_those_a_script_can_hold() {
        for (text, covers, not) in [
            ("veth-a", "veth-a", "veth-ab"),
            ("veth*", "veth1", "eth1"),
            ("br-0.100", "br-0.100", "br-0"),
            ("abcdefghijklmno*", "abcdefghijklmno", "abcdefghijklmn"),
        ] {
            let name: InterfaceName = text.parse().expect(text);
            assert!(name.covers(covers) && !name.covers(not), "{text}");
            assert_eq!(name.is_pattern(), text.ends_with('*'));
        }
        for bad in
            ["", "*", "a b", "a/b", "a:b", "a\"b", "a\\b", "a*b", "a**", ".", "..", "abcdefghijklmnop", "a\nb", "é"]
        {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hardware_addresses_are_six_octets_of_one_station() {
        let mac: Mac = "02:42:0A:00:00:02".parse().expect("a hardware address");
        assert_eq!(mac.to_string(), "02:42:0a:00:00:02");
        for bad in ["02:42:0a:00:00", "02:42:0a:00:00:02:03", "2:42:0a:0:0:2", "01:00:5e:00:00:01", "00:00:00:00:00:00"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
