//! Ways that need a pin: another port of an address that is open, another sandbox's pin, its source, and a pin that has ended.
//!
//! The control is the pin itself: right behind the answer the way must be open, to exactly this port.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use serde_json::Value;

use super::judge::Aim;
use super::packet::{Data, Raw};
use super::place::Known;
use super::report::{Outcome, Row};
use super::run::{Done, Error, Runner, Settings, not_tried, show};
use super::send;
use super::ways::{Place, Probe, Send};
use crate::model::Qtype;

/// Families of addresses: one pin of each is tried.
const FAMILIES: usize = 2;
/// Longer than a pin's own end, for the kernel's clock and ours.
const BEYOND: Duration = Duration::from_secs(3);
/// What a pin must have left to be tried, seconds.
const YOUNG: u64 = 3;
/// How often a name is asked for that is answered with a failure.
const TRIES: u32 = 3;
/// Ports that seldom belong to what a name opens.
const OTHERS: [u16; 4] = [9, 2222, 8443, 6667];

/// An address that is open to a session.
struct Pin {
    address: IpAddr,
    ports: Vec<String>,
    seconds_left: u64,
}

fn dial(id: &str, tries: &'static str, address: IpAddr, port: u16) -> Probe {
    let family = if address.is_ipv4() { 4 } else { 6 };
    let id = format!("{id}-tcp{family}");
    Probe { id, tries, to: (address, port).into(), send: Send::Dial(Data::Plain), aim: Aim::Away, canary: false }
}

fn pins(shown: &Value) -> Vec<Pin> {
    let all = shown["pins"].as_array().into_iter().flatten();
    all.filter_map(|pin| {
        let leases = pin["leases"].as_array().into_iter().flatten();
        let ports = leases.flat_map(|lease| lease["ports"].as_array().into_iter().flatten());
        Some(Pin {
            address: pin["address"].as_str()?.parse().ok()?,
            ports: ports.filter_map(|port| Some(port.as_str()?.to_owned())).collect(),
            seconds_left: pin["seconds_left"].as_u64()?,
        })
    })
    .collect()
}

/// Addresses that are open to other sessions and not to this one.
pub(super) fn others(runner: &Runner, settings: &Settings, known: &Known) -> Result<Vec<Row>, Error> {
    let (probe, tries) = ("other-session-pin", "an address that is open to another session alone");
    if !known.asked {
        return Ok(vec![not_tried(probe, tries, "only the daemon knows: give --socket, or run where it is")]);
    }
    let open = |id: &String| show(settings, id).iter().flat_map(pins).collect::<Vec<_>>();
    let mine = || known.own.iter().flat_map(open).map(|pin| pin.address).collect::<Vec<_>>();
    let before = mine();
    // Which session's, and the probe.
    let mut found: Vec<(&String, Probe)> = Vec::new();
    for id in &known.others {
        for pin in open(id).into_iter().filter(|pin| pin.seconds_left >= YOUNG && !before.contains(&pin.address)) {
            let port = pin.ports.iter().find_map(|port| port.strip_prefix("tcp/")?.parse().ok());
            let other_family = found.iter().all(|(_, probe)| probe.to.is_ipv4() != pin.address.is_ipv4());
            if let Some(port) = port.filter(|_| other_family) {
                found.push((id, dial(probe, tries, pin.address, port)));
            }
        }
        if found.len() == FAMILIES {
            break;
        }
    }
    if found.is_empty() {
        return Ok(vec![not_tried(probe, tries, "no other session has an address open that this one has not")]);
    }
    let probes: Vec<Probe> = found.iter().map(|(_, probe)| probe.clone()).collect();
    let done = runner.round(&probes)?;
    let after = mine();
    let judged = found.iter().zip(done).map(|((id, probe), done)| {
        let address = probe.to.ip();
        let theirs = open(id).iter().any(|pin| pin.address == address && pin.seconds_left > 0);
        standing(done.row, theirs, after.contains(&address))
    });
    Ok(judged.collect())
}

/// A row about another session's pin, by what stood behind the round: a pin that went meanwhile may have closed the way itself,
/// and one of the sandbox's own may have opened it.
fn standing(row: Row, theirs: bool, mine: bool) -> Row {
    let why = match row.outcome {
        Outcome::Closed if !theirs => "the other session's pin ended while it was tried",
        Outcome::Open if mine => "the sandbox has opened the address itself meanwhile",
        _ => return row,
    };
    Row { outcome: Outcome::Inconclusive, why: why.into(), ..row }
}

/// Around a pin of the sandbox's own.
pub(super) fn own(runner: &Runner, place: &Place, settings: &Settings, known: &Known) -> Result<Vec<Row>, Error> {
    let ways = [
        ("other-port", "another port of an address that was resolved"),
        ("neighbour-at-pin", "an address that was resolved, with another sandbox's source"),
        ("stale-pin", "an address that was resolved, behind the end of its pin"),
    ];
    let none = |why: &str| ways.iter().map(|(probe, tries)| not_tried(probe, tries, why)).collect::<Vec<_>>();
    let Some((name, port)) = &settings.name else {
        return Ok(none("no name is known that this sandbox may resolve: give --name NAME"));
    };
    let mut rows = Vec::new();
    // One family behind the other: each pin is young when it is looked at.
    for qtype in [Qtype::A, Qtype::AAAA] {
        match resolve(runner, name, qtype, settings.patience)? {
            Ok(Some(address)) => rows.extend(around(runner, place, settings, known, (address, *port))?),
            // A name need not have addresses of both families.
            Ok(None) => {}
            Err(why) => rows.extend(broken(&none(""), &why)),
        }
    }
    if rows.is_empty() {
        return Ok(broken(&none(""), &format!("{name} was not answered with an address")));
    }
    Ok(rows)
}

/// The control failed: nothing can be said of these.
fn broken(rows: &[Row], why: &str) -> Vec<Row> {
    rows.iter()
        .map(|row| Row {
            outcome: Outcome::Inconclusive,
            why: why.into(),
            control: "the pin itself".into(),
            ..row.clone()
        })
        .collect()
}

fn around(
    runner: &Runner,
    place: &Place,
    settings: &Settings,
    known: &Known,
    (address, port): (IpAddr, u16),
) -> Result<Vec<Row>, Error> {
    let is_open = |done: &Done| done.left || done.heard == super::judge::Heard::Taken;
    let (tries, stale) = ("another port of an address that was resolved", "an address behind the end of its pin");
    let mine = || {
        let shown = known.own.iter().filter_map(|id| show(settings, id)).flat_map(|shown| pins(&shown));
        shown.filter(|pin| pin.seconds_left > 0).find(|pin| pin.address == address)
    };
    let pin = mine();
    let opened =
        |port: u16| pin.as_ref().is_some_and(|pin| pin.ports.iter().any(|p| *p == format!("tcp/{port}") || p == "any"));
    let mut probes = vec![dial("pin", "", address, port)];
    let other = OTHERS.into_iter().find(|other| *other != port && !opened(*other));
    probes.extend(other.map(|other| dial("other-port", tries, address, other)));
    let alike = place.neighbours.iter().filter(|n| n.is_ipv4() == address.is_ipv4()).take(2);
    probes.extend(alike.map(|neighbour| Probe {
        id: format!("neighbour-at-pin-raw{}", if address.is_ipv4() { 4 } else { 6 }),
        tries: "an address that was resolved, with another sandbox's source",
        send: Send::Raw(Raw::Syn(port), *neighbour),
        ..dial("", "", address, port)
    }));
    // The control goes with what it is the control of, so that the pin is as young for both.
    let mut done = runner.round(&probes)?.into_iter();
    let open = done.next().is_some_and(|control| is_open(&control));
    let mut rows: Vec<Row> = done.map(|done| done.row).collect();
    let short = match &pin {
        Some(pin) if pin.seconds_left < YOUNG => Some(format!("the pin of {address} had {} s", pin.seconds_left)),
        Some(_) if mine().is_none() => Some(format!("the pin of {address} ended while it was tried")),
        _ => None,
    };
    for row in rows.iter_mut().filter(|row| row.outcome == Outcome::Closed) {
        if let Some(why) = &short {
            (row.outcome, row.why) = (Outcome::Inconclusive, why.clone());
        }
    }
    let left = pin.map(|pin| Duration::from_secs(pin.seconds_left + 1) + BEYOND);
    match left {
        None => rows.push(not_tried("stale-pin", stale, "when the pin ends only the daemon knows: give --socket")),
        Some(left) if left > settings.stale => {
            let why = format!("the pin of {address} ends in {} s: give --stale {}", left.as_secs(), left.as_secs() + 1);
            rows.push(not_tried("stale-pin", stale, &why));
        }
        Some(left) => {
            std::thread::sleep(left);
            let anew = "somebody in the sandbox has resolved it anew meanwhile";
            if mine().is_some() {
                rows.push(not_tried("stale-pin", stale, anew));
            } else {
                let done = runner.round(&[dial("stale-pin", stale, address, port)])?;
                let again = mine().is_some();
                rows.extend(done.into_iter().map(|done| match done.row.outcome {
                    Outcome::Open if again => Row { outcome: Outcome::Inconclusive, why: anew.into(), ..done.row },
                    _ => done.row,
                }));
            }
        }
    }
    for row in &mut rows {
        match (open, row.outcome) {
            (true, Outcome::Closed) => row.control += &format!("; port {port} was open right behind the answer"),
            (false, Outcome::Closed) => {
                row.outcome = Outcome::Inconclusive;
                row.why = format!("port {port} was not open either, right behind the answer");
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// The first address that the sandbox's resolver answers, or why there is no answer.
fn resolve(
    runner: &Runner,
    name: &str,
    qtype: Qtype,
    patience: Duration,
) -> Result<Result<Option<IpAddr>, String>, Error> {
    let patience = patience.max(Duration::from_secs(4));
    let what = if qtype == Qtype::A { "IPv4" } else { "IPv6" };
    let Some(query) = question(name, qtype) else { return Ok(Err(format!("{name} is not a name"))) };
    let resolvers = runner.resolvers.clone();
    let mut why = format!("{name} ({what}) was not answered");
    // A busy host may fail to pin an address in time, and says so.
    for _ in 0..TRIES {
        let reply = runner.there(|| resolvers.iter().find_map(|to| send::ask(*to, &query, patience)))?;
        let Some(message) = reply.and_then(|reply| Message::from_vec(&reply).ok()) else { continue };
        if message.metadata.response_code != ResponseCode::NoError {
            why = format!("{name} ({what}) was answered with {}", message.metadata.response_code);
            continue;
        }
        let mut addresses = message.answers.iter().filter_map(|record| match record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        });
        return Ok(Ok(addresses.next()));
    }
    Ok(Err(why))
}

fn question(name: &str, qtype: Qtype) -> Option<Vec<u8>> {
    let name = staunch_scoring::NameBuf::from_text(name).ok()?;
    let mut query = vec![0x53, 0x44, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(name.as_ref().as_wire());
    query.extend(qtype.0.to_be_bytes());
    query.extend([0, 1]);
    Some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_went_or_came_meanwhile_says_nothing() {
        use Outcome::{Absent, Closed, Inconclusive, Open};
        // outcome, theirs stands, mine stands -> outcome
        for (outcome, theirs, mine, wanted) in [
            (Closed, true, false, Closed),
            (Closed, false, false, Inconclusive),
            (Open, true, false, Open),
            (Open, false, false, Open),
            (Open, true, true, Inconclusive),
            (Closed, true, true, Closed),
            (Absent, false, true, Absent),
        ] {
            let row = Row { outcome, ..not_tried("other-session-pin", "", "") };
            assert_eq!(standing(row, theirs, mine).outcome, wanted, "{outcome:?} {theirs} {mine}");
        }
    }

    #[test]
    fn pins_are_read_as_the_daemon_shows_them() {
        let shown = serde_json::json!({ "pins": [
            { "address": "203.0.113.10", "seconds_left": 5, "leases": [{ "ports": ["tcp/80", "tcp/443"] }, { "ports": ["any"] }] },
            { "address": "no address", "seconds_left": 5, "leases": [] },
            { "address": "203.0.113.11" },
        ] });
        let read = pins(&shown);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].seconds_left, read[0].ports.join(" ")), (5, "tcp/80 tcp/443 any".into()));
        assert!(pins(&serde_json::json!({})).is_empty());
    }
}
