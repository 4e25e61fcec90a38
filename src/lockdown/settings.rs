//! What an operator may ask for, and how it is written.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::name::{InterfaceName, Mac, NameError};
use super::plan::PlanError;
use crate::range::IpRange;

/// The lockdown's table beside the service's, where nobody names one.
pub fn beside(service: &str) -> String {
    format!("{service}_lockdown")
}

/// Table where nobody names one.
pub const DEFAULT_TABLE: &str = "staunch_lockdown";
/// Where questions are led where nobody says otherwise.
pub const DEFAULT_PORT: u16 = 53;

/// How much is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    /// Nothing is forwarded that the service has not permitted.
    Enforce,
    /// Questions are led to us and other ways to ask are refused; all else passes.
    Monitor,
}

impl Mode {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// What an interface or a port of a bridge may send as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The interface.
    pub interface: InterfaceName,
    /// Source addresses.
    pub addresses: Vec<IpAddr>,
    /// Hardware addresses; at most one counts, and only for ports of bridges.
    pub macs: Vec<Mac>,
}

/// A bridge that sandboxes are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge.
    pub name: InterfaceName,
    /// Its ports that lead to sandboxes.
    pub ports: Vec<InterfaceName>,
}

/// Where a question ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// At this port of the address that this host has on the sandbox's interface.
    Port(u16),
    /// At this address.
    At(SocketAddr),
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// nftables table of ours.
    pub table: String,
    /// The service's own table, which must be another.
    pub service_table: String,
    /// How much is closed.
    pub mode: Mode,
    /// Interfaces that lead to sandboxes.
    pub interfaces: Vec<InterfaceName>,
    /// Bridges that do.
    pub bridges: Vec<Bridge>,
    /// Which source addresses interfaces may use.
    pub binds: Vec<Bind>,
    /// Where questions are led; empty: port 53 of this host.
    pub resolvers: Vec<Resolver>,
    /// Known resolvers of others, which are refused.
    pub refused: Vec<IpRange>,
    /// Addresses of sandboxes of which it is not said where they are attached.
    pub sources: Vec<IpAddr>,
    /// Let sandboxes ask this host for an address.
    pub dhcp: bool,
}

/// The listening addresses of the service as places to lead questions to: loopback ones are left out, and an address
/// that stands for all stands for the host's own on each interface.
///
/// # Errors
///
/// [`PlanError::NothingListens`] where no sandbox could reach any.
pub fn resolvers_of(listen: &[SocketAddr]) -> Result<Vec<Resolver>, PlanError> {
    let mut resolvers = Vec::new();
    for address in listen {
        match address.ip().to_canonical() {
            ip if ip.is_loopback() => {}
            ip if ip.is_unspecified() => resolvers.push(Resolver::Port(address.port())),
            ip => resolvers.push(Resolver::At(SocketAddr::new(ip, address.port()))),
        }
    }
    if resolvers.is_empty() { Err(PlanError::NothingListens) } else { Ok(resolvers) }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for Resolver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(Self::Port(port));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::At(SocketAddr::new(ip, DEFAULT_PORT))),
            Err(_) => Err("write a port, or an address with its port: 53, 10.77.1.1:53, [fd77::1]:53".into()),
        }
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (interface, list) = text.split_once('=').ok_or("write INTERFACE=ADDRESS[,ADDRESS...]")?;
        let interface = interface.parse().map_err(|error: NameError| error.to_string())?;
        let (mut addresses, mut macs) = (Vec::new(), Vec::new());
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Ok(address) = entry.parse() {
                addresses.push(address);
            } else if let Ok(mac) = entry.parse() {
                macs.push(mac);
            } else {
                return Err(format!("`{}` is neither an IP address nor a hardware address", entry.escape_debug()));
            }
        }
        Ok(Self { interface, addresses, macs })
    }
}

impl FromStr for Bridge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, list) = text.split_once('=').unwrap_or((text, ""));
        let read = |text: &str| text.parse::<InterfaceName>().map_err(|error| error.to_string());
        let ports =
            list.split(',').map(str::trim).filter(|port| !port.is_empty()).map(read).collect::<Result<_, _>>()?;
        Ok(Self { name: read(name)?, ports })
    }
}
