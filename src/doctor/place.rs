//! Finds out where a sandbox stands: who answers it, by which interfaces it comes in, who its neighbours are.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::judge::Control;
use super::report::{Outcome, Row};
use super::run::{ADMIN, Error, Runner, Settings, is_link_local, not_tried};
use super::sight::Mark;
use super::watch::Bait;
use super::ways::Place;
use super::{send, space};
use crate::admin::client;
use crate::admin::protocol::Request;
use crate::enforce::interface_addresses;
use crate::probe;

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

impl Runner {
    /// The first control: the resolver answers the sandbox, over both transports, and is the node that we think it is.
    pub(super) fn find_resolver(&mut self, settings: &Settings, place: &Place) -> Result<Option<String>, Error> {
        let nonce = probe::nonce().map_err(Error::Random)?;
        let mut wanted = settings.resolvers.clone();
        if wanted.is_empty() {
            let named = place.gateways.iter().chain(place.nameservers.iter().filter(|ip| !ip.is_loopback()));
            wanted = named.map(|ip| SocketAddr::new(*ip, 53)).collect();
            wanted.dedup();
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
            let mark = |to| Mark { nonce: nonce.clone(), to, dial: None };
            marks.extend([mark(send::ALL_NODES4.into()), mark(send::ALL_NODES6.into())]);
        }
        self.there(|| {
            for (name, pair) in names.iter().zip(marks.chunks(2)) {
                if let (Some(number), [mark, ..]) = (space::interface_number(name), pair) {
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
        arrived.interfaces = home.iter().map(|number| space::interface_name(*number)).collect();
        let host = interface_addresses()?;
        let on_link = || host.iter().filter(|(name, _)| arrived.interfaces.contains(name)).map(|(_, ip)| *ip);
        place.gateways.retain(|ip| own(ip));
        place.gateways.extend(on_link().filter(own));
        place.gateways.sort();
        place.gateways.dedup();
        let local = on_link().filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None });
        place.link_local = local.into_iter().find(Ipv6Addr::is_unicast_link_local).zip(place.interface);
        self.bait = Bait::lay(&home.iter().copied().collect::<Vec<_>>()).ok();
        place.bait = self.bait.as_ref().map(|bait| bait.port);
        Ok(arrived)
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
