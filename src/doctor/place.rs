//! Finds out where a sandbox stands: who answers it, by which interfaces it comes in, who its neighbours are.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::bait::Bait;
use super::judge::Control;
use super::report::{Outcome, Row};
use super::run::{ADMIN, Error, Runner, Settings, not_tried};
use super::sight::Mark;
use super::ways::{GROUPS, Place, SERVICES};
use super::{send, space};
use crate::admin::client;
use crate::admin::protocol::Request;
use crate::enforce::{interface_addresses, interface_number, is_link_local};
use crate::lockdown::DEFAULT_PORT;
use crate::probe;

/// Most addresses behind a translation that are asked whether they are this node.
const LED: usize = 8;

/// What the daemon said of sessions.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether it was asked and answered.
    pub asked: bool,
    /// The sandbox's own session.
    pub own: Option<String>,
    /// Other sessions, 64 at most.
    pub others: Vec<String>,
    /// Their addresses.
    pub neighbours: Vec<IpAddr>,
}

/// Where the sandbox's packets come in.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Interfaces of this host.
    pub interfaces: Vec<String>,
    /// What is to be said of interfaces of the sandbox.
    pub rows: Vec<Row>,
}

/// Where these listeners can be reached from the sandbox's link: not those of loopback or of other links.
fn services(listening: Vec<SocketAddr>, place: &Place) -> Vec<SocketAddr> {
    let link_local = place.link_local.map(|(address, interface)| SocketAddrV6::new(address, 0, 0, interface).into());
    let gateways = place.gateways.iter().map(|gateway| SocketAddr::new(*gateway, 0));
    let ours: Vec<SocketAddr> = gateways.chain(link_local).collect();
    let mut all = Vec::new();
    for listener in listening.into_iter().filter(|listener| Some(listener.port()) != place.bait) {
        let reached = |at: &&SocketAddr| match listener.ip() {
            // One that stands for all of IPv6 mostly stands for IPv4 too.
            IpAddr::V6(ip) if ip.is_unspecified() => true,
            IpAddr::V4(ip) if ip.is_unspecified() => at.is_ipv4(),
            ip => at.ip() == ip,
        };
        all.extend(ours.iter().filter(reached).map(|at| {
            let mut at = *at;
            at.set_port(listener.port());
            at
        }));
    }
    all.sort();
    all.dedup();
    all
}

impl Runner {
    /// The first control: the resolver answers the sandbox, over both transports, and is the node that we think it is.
    pub(super) fn find_resolver(&mut self, settings: &Settings, place: &Place) -> Result<Option<String>, Error> {
        let nonce = probe::nonce().map_err(Error::Random)?;
        let mut wanted = settings.resolvers.clone();
        if wanted.is_empty() {
            let gateways = place.gateways.iter().map(|ip| SocketAddr::new(*ip, DEFAULT_PORT));
            for at in gateways.chain(place.nameservers.iter().copied().filter(|at| !at.ip().is_loopback())) {
                if !wanted.contains(&at) {
                    wanted.push(at);
                }
            }
        }
        let patience = self.patience.max(Duration::from_secs(1));
        let ask = || wanted.iter().map(|to| send::token(*to, &nonce, patience)).collect::<Vec<_>>();
        let said: Vec<Option<String>> = self.there(ask)?;
        let answered: Vec<(SocketAddr, String)> = wanted
            .iter()
            .zip(said)
            .filter_map(|(to, said)| Some((*to, said?)))
            .filter(|(_, said)| said.starts_with("staunch=1 "))
            .collect();
        let Some((first, text)) = answered.first().cloned() else {
            let asked: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            let text = format!("no resolver of ours answers the sandbox (asked: {})", asked.join(", "));
            self.alive = Control { good: false, text };
            return Ok(None);
        };
        self.resolvers = answered.iter().filter(|(_, said)| *said == text).map(|(to, _)| *to).collect();
        self.proven = self.resolvers.clone();
        if let Some(watch) = &self.watch {
            // Where they were led to is this node's own only if it says so itself.
            let led = watch.destinations(&nonce).into_iter().filter(|to| !place.own.contains(&to.ip()));
            let led: Vec<SocketAddr> = led.filter(|to| !self.resolvers.contains(to)).take(LED).collect();
            let proves = |to: &SocketAddr| send::token(*to, &nonce, patience).is_some_and(|said| said == text);
            self.proven.extend(led.into_iter().filter(proves));
        }
        let node = text.split_whitespace().find_map(|word| word.strip_prefix("node=")).map(str::to_owned);
        // The daemon beside us knows what its proof must be.
        let known = settings.admin.as_ref().map(|socket| client::ask(socket, &Request::Prove { nonce }, ADMIN));
        self.alive = match known {
            Some(Ok(value)) if value["text"] != *text => Control {
                good: false,
                text: format!("{first} answers the sandbox, and is not the node whose socket was asked"),
            },
            Some(Ok(_)) => Control { good: true, text: format!("{first} answers the sandbox, and is this node") },
            _ => Control { good: true, text: format!("{first} answers the sandbox") },
        };
        Ok(node)
    }

    /// By which interfaces of the host the sandbox's packets come in; lays the bait there. A row for each interface of the
    /// sandbox whose packets do not come in anywhere: it leads somewhere that nobody watches.
    pub(super) fn arrivals(&mut self, place: &mut Place, addresses: &[(String, IpAddr)]) -> Result<Arrived, Error> {
        let own = |ip: &IpAddr| !is_link_local(*ip);
        let Some(watch) = &self.watch else {
            // From within, only a gateway's own word says where it is.
            let local = place.gateways.iter().filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None });
            place.link_local = local.into_iter().find(Ipv6Addr::is_unicast_link_local).zip(place.interface);
            place.gateways.retain(|ip| own(ip));
            return Ok(Arrived::default());
        };
        let mut names: Vec<&str> =
            addresses.iter().filter(|(_, ip)| !ip.is_loopback()).map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.dedup();
        let mut marks = Vec::new();
        for _ in &names {
            let nonce = probe::nonce().map_err(Error::Random)?;
            let mark = |to| Mark { nonce: nonce.clone(), to, dial: None, resolvers: Vec::new() };
            marks.extend([mark(send::ALL_NODES4.into()), mark(send::ALL_NODES6.into())]);
        }
        self.there(|| {
            for (name, pair) in names.iter().zip(marks.chunks(2)) {
                if let (Some(number), [mark, ..]) = (interface_number(name), pair) {
                    send::by_interface(name, number, &mark.nonce);
                }
            }
        })?;
        let sights = watch.look(&marks);
        let mut arrived = Arrived::default();
        let mut home = BTreeSet::new();
        for (name, pair) in names.iter().zip(sights.chunks(2)) {
            let here: BTreeSet<u32> = pair.iter().flat_map(|sight| &sight.arrived).copied().collect();
            if here.is_empty() {
                let tries = "an interface of the sandbox that leads elsewhere";
                let why = "its packets come in by no interface of this host, so nobody sees where they go";
                let row =
                    Row { to: (*name).into(), outcome: Outcome::Inconclusive, ..not_tried("interface", tries, why) };
                arrived.rows.push(Row { control: "a datagram to its link".into(), ..row });
            }
            home.extend(here);
        }
        if let Some(watch) = &mut self.watch {
            watch.at_home(&home);
        }
        arrived.interfaces = home.iter().map(|number| space::called(*number)).collect();
        let host = interface_addresses()?;
        let on_link = || host.iter().filter(|(name, _)| arrived.interfaces.contains(name)).map(|(_, ip)| *ip);
        place.gateways.retain(|ip| own(ip));
        place.gateways.extend(on_link().filter(own));
        place.gateways.sort();
        place.gateways.dedup();
        let local = on_link().filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None });
        place.link_local = local.into_iter().find(Ipv6Addr::is_unicast_link_local).zip(place.interface);
        self.bait = Bait::lay(&GROUPS, &home.iter().copied().collect::<Vec<_>>())
            .map_err(|error| format!("this host cannot be listened on: {error}"));
        place.bait = self.bait.as_ref().ok().map(|bait| bait.port);
        place.services = services(space::listening(), place);
        if let Some(more) = place.services.len().checked_sub(SERVICES).filter(|more| *more > 0) {
            let why = format!("{more} more services of this host listen than are tried");
            arrived.rows.push(not_tried("host", "services of the host", &why));
        }
        Ok(arrived)
    }

    /// Ways that could not be tried for want of knowledge.
    pub(super) fn unknown_to_us(&self, place: &Place, resolv_conf: bool) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut missing = |absent: bool, probe: &str, tries: &str, why: &str| {
            if absent {
                rows.push(not_tried(probe, tries, why));
            }
        };
        let stranger = "no other sandbox is known: announce sessions, or give --neighbour ADDRESS";
        missing(place.neighbours.is_empty(), "spoofed-neighbour", "the source of another sandbox", stranger);
        let file = "its resolv.conf is not known: name the sandbox by a process id";
        missing(!resolv_conf, "resolv-conf", "what resolv.conf names", file);
        let none = "none is known on its link";
        missing(place.link_local.is_none(), "link-local-dns", "the host's IPv6 link-local address", none);
        if let Err(why) = &self.bait {
            rows.push(match self.watch {
                // What should have been told was not.
                Some(_) => Row {
                    outcome: Outcome::Inconclusive,
                    control: "sockets of this host".into(),
                    ..not_tried("host", "services of the host", why)
                },
                None => not_tried("host", "services of the host", "only --from-namespace can tell"),
            });
        }
        rows
    }

    /// What the daemon says of sessions.
    pub(super) fn sessions(&self, settings: &Settings, place: &Place) -> Known {
        let Some(socket) = &settings.admin else { return Known::default() };
        let Ok(list) = client::ask(socket, &Request::List, ADMIN) else { return Known::default() };
        let mut known = Known { asked: true, ..Known::default() };
        for session in list["sessions"].as_array().into_iter().flatten() {
            let Some(id) = session["id"].as_str() else { continue };
            let addresses = session["addresses"].as_array().into_iter().flatten();
            let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.as_str()?.parse().ok()).collect();
            if addresses.iter().any(|ip| place.own.contains(ip)) {
                known.own = Some(id.to_owned());
            } else if known.others.len() < 64 {
                known.neighbours.extend(&addresses);
                known.others.push(id.to_owned());
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_those_that_the_link_reaches() {
        let at = |text: &str| text.parse::<SocketAddr>().expect(text);
        let place = Place {
            gateways: vec!["10.77.1.1".parse().expect("v4"), "fd77:1::1".parse().expect("v6")],
            link_local: Some(("fe80::1".parse().expect("v6"), 4)),
            bait: Some(40_000),
            ..Place::default()
        };
        for (listener, reached) in [
            ("0.0.0.0:80", &["10.77.1.1:80"][..]),
            ("[::]:22", &["10.77.1.1:22", "[fd77:1::1]:22", "[fe80::1%4]:22"]),
            ("10.77.1.1:53", &["10.77.1.1:53"]),
            ("[fe80::1]:53", &["[fe80::1%4]:53"]),
            ("127.0.0.1:9153", &[]),
            ("10.77.2.1:53", &[]),
            ("[::]:40000", &[]),
        ] {
            let reached: Vec<SocketAddr> = reached.iter().map(|text| at(text)).collect();
            assert_eq!(services(vec![at(listener)], &place), reached, "{listener}");
        }
        assert_eq!(services(vec![at("0.0.0.0:80"), at("10.77.1.1:80")], &place), [at("10.77.1.1:80")], "each once");
    }
}
