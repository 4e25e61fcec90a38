//! What a lockdown is to be: settings as they were asked for, checked, sorted and made one.
//!
//! Pure, and the same for the same settings in whatever order they come: two plans are equal where their scripts are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::name::{InterfaceName, Mac, NameError};
use super::resolvers::merged;
use super::settings::{Bind, Bridge, DEFAULT_PORT, Mode, Resolver, Settings};
use crate::enforce::{is_link_local, is_table};
use crate::range::IpRange;

/// Why settings are no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to lock down.
    #[error(
        "no interface is named: give --interfaces NAME[,NAME...], --bridge BRIDGE=PORT[,PORT...], or --config FILE with [enforce] interfaces"
    )]
    NoInterface,
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A table name that cannot be one.
    #[error("table `{0}`: use a letter, then up to 63 letters, digits and `_`")]
    Table(String),
    /// The table of the service.
    #[error("table `{0}` is the service's own: the lockdown needs a table of its own, for example `{0}_lockdown`")]
    ServiceTable(String),
    /// The host's own loopback is no sandbox.
    #[error("`lo` is this host itself: name the interface on which the sandbox's packets arrive")]
    Loopback,
    /// A bridge of many names.
    #[error("bridge `{0}`: name one bridge, and its ports with `*` where they are many")]
    BridgePattern(InterfaceName),
    /// A bridge without ports.
    #[error("bridge `{0}` has no port that leads to a sandbox: write {0}=PORT[,PORT...], for example {0}=veth*")]
    NoPort(InterfaceName),
    /// One name, two things.
    #[error(
        "`{0}` is named as an interface and as a port of a bridge: packets of a port arrive on its bridge, so leave it out of --interfaces"
    )]
    PortAndInterface(InterfaceName),
    /// One port, two bridges.
    #[error(
        "`{0}` is named as a port of two bridges: an interface has one, and a name with `*` at its end may have several"
    )]
    TwoBridges(InterfaceName),
    /// A bind of many interfaces.
    #[error("bind `{0}`: addresses belong to one interface, so name it without `*`")]
    BindPattern(InterfaceName),
    /// A bind of nothing.
    #[error("bind `{0}` names no address: write {0}=ADDRESS[,ADDRESS...]")]
    BindEmpty(InterfaceName),
    /// A bind of an interface that is not locked down.
    #[error("bind `{0}`: that interface is not among those of --interfaces, nor a port of a --bridge")]
    BindUnknown(InterfaceName),
    /// A bind of a bridge.
    #[error("bind `{0}`: bind the ports of a bridge, not the bridge")]
    BindBridge(InterfaceName),
    /// A hardware address where none is looked at.
    #[error(
        "bind `{0}`: hardware addresses are for ports of bridges; behind an interface of its own there is no neighbour"
    )]
    BindMac(InterfaceName),
    /// Two hardware addresses.
    #[error("bind `{0}`: one hardware address at most")]
    BindMacs(InterfaceName),
    /// An address no sandbox can have.
    #[error("bind `{interface}`: {address} is not the address of a sandbox")]
    BindAddress {
        /// The interface.
        interface: InterfaceName,
        /// The address.
        address: IpAddr,
    },
    /// One address, two sandboxes.
    #[error("{address} is bound to `{first}` and to `{second}`: an address has one sandbox")]
    BoundTwice {
        /// The address.
        address: IpAddr,
        /// One.
        first: InterfaceName,
        /// And another.
        second: InterfaceName,
    },
    /// A resolver that a sandbox cannot reach.
    #[error(
        "resolver {0} cannot be reached from a sandbox: name an address of this host on the sandboxes' network, or a port alone"
    )]
    Resolver(SocketAddr),
    /// Two ports.
    #[error("--resolver names two ports, {0} and {1}: questions are led to one")]
    TwoPorts(u16, u16),
    /// Port 0.
    #[error("resolver port 0 is no port")]
    NoResolverPort,
    /// A configuration whose resolver nobody can reach.
    #[error(
        "server.listen has no address that a sandbox could reach, loopback ones alone: add one of the sandboxes' network, or give --resolver"
    )]
    NothingListens,
}

/// Where questions of one address family are led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// To this port of the address that this host has on the sandbox's interface.
    Port(u16),
    /// Those to one of these, there; others to the first. Not empty.
    To(Vec<SocketAddr>),
}

/// An interface on which packets of sandboxes arrive as packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its name.
    pub name: InterfaceName,
    /// What may be sent from it; empty: whatever is routed back out of it, and of a bridge what its ports say.
    pub bound: Vec<IpAddr>,
    /// Whether it is a bridge. It may have other ports too, whose hosts are then held as sandboxes are.
    pub bridge: bool,
}

/// A port of a bridge, on which frames of sandboxes arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its bridge; of a name with a `*`, and of what only such a name covers, each that it was named with.
    pub bridges: Vec<InterfaceName>,
    /// Its name.
    pub name: InterfaceName,
    /// What may be sent from it; empty: anything that belongs to no other port.
    pub bound: Vec<IpAddr>,
    /// The hardware address it may send as; `None`: any that belongs to no other port.
    pub mac: Option<Mac>,
}

/// A lockdown, checked. Lists are sorted and hold nothing twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) table: String,
    pub(super) mode: Mode,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) ports: Vec<Port>,
    pub(super) lead4: Option<Lead>,
    pub(super) lead6: Option<Lead>,
    pub(super) refused: Vec<IpRange>,
    pub(super) sources: Vec<IpAddr>,
    pub(super) dhcp: bool,
}

impl Port {
    /// Its bridges, in words.
    pub(super) fn place(&self) -> String {
        self.bridges.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(" and ")
    }
}

impl Plan {
    /// Makes a plan of settings.
    ///
    /// # Errors
    ///
    /// [`PlanError`], the first one found.
    pub fn new(settings: Settings) -> Result<Self, PlanError> {
        check_table(&settings.table)?;
        if settings.table == settings.service_table {
            return Err(PlanError::ServiceTable(settings.table));
        }
        let mut interfaces: BTreeSet<InterfaceName> = settings.interfaces.into_iter().collect();
        let bridges: BTreeSet<InterfaceName> = settings.bridges.iter().map(|bridge| bridge.name.clone()).collect();
        let ports = ports(settings.bridges)?;
        if interfaces.iter().chain(&bridges).chain(ports.keys()).any(|name| name.covers("lo")) {
            return Err(PlanError::Loopback);
        }
        if let Some(both) = ports.keys().find(|port| interfaces.contains(port)) {
            return Err(PlanError::PortAndInterface((*both).clone()));
        }
        interfaces.retain(|name| !bridges.contains(name));
        if interfaces.is_empty() && bridges.is_empty() {
            return Err(PlanError::NoInterface);
        }
        let binds = binds(settings.binds)?;
        let mut bound: BTreeMap<InterfaceName, Vec<IpAddr>> = BTreeMap::new();
        let mut bound_ports = Vec::new();
        for (name, (addresses, mac)) in binds {
            if bridges.contains(&name) {
                return Err(PlanError::BindBridge(name));
            }
            if let Some(bridges) = bridges_of(&ports, &name) {
                bound_ports.push(Port { bridges, name, bound: addresses, mac });
            } else if interfaces.iter().any(|interface| interface.covers(name.as_str())) {
                if mac.is_some() {
                    return Err(PlanError::BindMac(name));
                }
                bound.insert(name, addresses);
            } else {
                return Err(PlanError::BindUnknown(name));
            }
        }
        // What was written without an address; a bound name covered by a pattern is beside it, and comes first.
        interfaces.retain(|name| !bound.contains_key(name));
        let open_ports: Vec<Port> = ports
            .into_iter()
            .filter(|(name, _)| bound_ports.iter().all(|port| port.name != *name))
            .map(|(name, bridges)| Port { bridges: bridges.into_iter().collect(), name, bound: Vec::new(), mac: None })
            .collect();
        // What may come from a bridge, its ports say.
        let bridges = bridges.into_iter().map(|name| Sandbox { name, bound: Vec::new(), bridge: true });
        let mut sandboxes: Vec<Sandbox> = bridges
            .chain(bound.into_iter().map(|(name, bound)| Sandbox { name, bound, bridge: false }))
            .chain(interfaces.into_iter().map(|name| Sandbox { name, bound: Vec::new(), bridge: false }))
            .collect();
        sandboxes.sort_by(|a, b| (a.bound.is_empty(), &a.name).cmp(&(b.bound.is_empty(), &b.name)));
        let ports: Vec<Port> = bound_ports.into_iter().chain(open_ports).collect();
        let (lead4, lead6) = leads(&settings.resolvers)?;
        let mut plan = Self {
            table: settings.table,
            mode: settings.mode,
            sandboxes,
            ports,
            lead4,
            lead6,
            refused: merged(settings.refused),
            sources: Vec::new(),
            dhcp: settings.dhcp,
        };
        let owned: BTreeSet<IpAddr> = plan.owned().into_iter().collect();
        let others = settings.sources.into_iter().filter(|source| !owned.contains(source) && !source.is_loopback());
        plan.sources = sorted(others);
        Ok(plan)
    }

    /// Every address that is bound to an interface or a port.
    pub(super) fn owned(&self) -> Vec<IpAddr> {
        let interfaces = self.sandboxes.iter().flat_map(|sandbox| &sandbox.bound);
        sorted(interfaces.chain(self.ports.iter().flat_map(|port| &port.bound)).copied())
    }

    /// nftables table, of both families.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// How much is closed.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Interfaces on which packets of sandboxes arrive, those with bound addresses first.
    pub fn sandboxes(&self) -> &[Sandbox] {
        &self.sandboxes
    }

    /// Ports of bridges on which frames of sandboxes arrive, those with bound addresses first.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Where questions of a family are led; `None` where nobody would answer them.
    pub fn lead(&self, v6: bool) -> Option<&Lead> {
        if v6 { self.lead6.as_ref() } else { self.lead4.as_ref() }
    }
}

/// Whether this can be the name of a table.
///
/// # Errors
///
/// [`PlanError::Table`].
pub fn check_table(table: &str) -> Result<(), PlanError> {
    if is_table(table) { Ok(()) } else { Err(PlanError::Table(table.escape_debug().to_string())) }
}

type Ports = BTreeMap<InterfaceName, BTreeSet<InterfaceName>>;

/// Ports, and the bridge of each: several only where the name stands for several ports.
fn ports(bridges: Vec<Bridge>) -> Result<Ports, PlanError> {
    let mut ports = Ports::new();
    for bridge in bridges {
        if bridge.name.is_pattern() {
            return Err(PlanError::BridgePattern(bridge.name));
        }
        if bridge.ports.is_empty() {
            return Err(PlanError::NoPort(bridge.name));
        }
        for port in bridge.ports {
            let of_port = ports.entry(port.clone()).or_default();
            of_port.insert(bridge.name.clone());
            if of_port.len() > 1 && !port.is_pattern() {
                return Err(PlanError::TwoBridges(port));
            }
        }
    }
    Ok(ports)
}

/// The bridges that a port may be of: by its own name, or by one that covers it.
fn bridges_of(ports: &Ports, name: &InterfaceName) -> Option<Vec<InterfaceName>> {
    let found = ports.get(name).or_else(|| ports.iter().find(|(port, _)| port.covers(name.as_str())).map(|(_, of)| of));
    found.map(|bridges| bridges.iter().cloned().collect())
}

type Bound = BTreeMap<InterfaceName, (Vec<IpAddr>, Option<Mac>)>;

fn binds(binds: Vec<Bind>) -> Result<Bound, PlanError> {
    let mut bound = Bound::new();
    let mut owners: BTreeMap<IpAddr, InterfaceName> = BTreeMap::new();
    for Bind { interface, addresses, macs } in binds {
        if interface.is_pattern() {
            return Err(PlanError::BindPattern(interface));
        }
        for address in &addresses {
            if !can_be_a_sandbox(*address) {
                return Err(PlanError::BindAddress { interface, address: *address });
            }
            match owners.insert(*address, interface.clone()) {
                Some(first) if first != interface => {
                    return Err(PlanError::BoundTwice { address: *address, first, second: interface });
                }
                _ => {}
            }
        }
        let entry = bound.entry(interface.clone()).or_default();
        entry.0 = sorted(entry.0.iter().copied().chain(addresses));
        for mac in macs {
            if entry.1.is_some_and(|other| other != mac) {
                return Err(PlanError::BindMacs(interface));
            }
            entry.1 = Some(mac);
        }
    }
    match bound.iter().find(|(_, (addresses, _))| addresses.is_empty()) {
        Some((name, _)) => Err(PlanError::BindEmpty(name.clone())),
        None => Ok(bound),
    }
}

fn can_be_a_sandbox(address: IpAddr) -> bool {
    let odd = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !odd && address.to_canonical() == address && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn leads(resolvers: &[Resolver]) -> Result<(Option<Lead>, Option<Lead>), PlanError> {
    let mut port = None;
    let mut addresses = BTreeSet::new();
    for resolver in resolvers {
        match *resolver {
            Resolver::Port(0) => return Err(PlanError::NoResolverPort),
            Resolver::At(address) if address.port() == 0 => return Err(PlanError::NoResolverPort),
            Resolver::Port(number) => match port.replace(number) {
                Some(other) if other != number => return Err(PlanError::TwoPorts(other, number)),
                _ => {}
            },
            Resolver::At(address) => {
                if !can_be_a_sandbox(address.ip()) || is_link_local(address.ip()) {
                    return Err(PlanError::Resolver(address));
                }
                addresses.insert(address);
            }
        }
    }
    if port.is_none() && addresses.is_empty() {
        port = Some(DEFAULT_PORT);
    }
    let lead = |v6: bool| {
        let own: Vec<SocketAddr> = addresses.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
        if own.is_empty() { port.map(Lead::Port) } else { Some(Lead::To(own)) }
    };
    Ok((lead(false), lead(true)))
}

fn sorted(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}
