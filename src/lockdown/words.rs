//! What a lockdown does, in sentences: the head of its script, and what `apply` says.

use super::closed::OTHER_WAYS;
use super::plan::{Lead, Plan, Port, Sandbox};
use super::settings::Mode;

/// What the plan does, then what it leaves open.
pub fn sentences(plan: &Plan) -> Vec<String> {
    let mut all = does(plan);
    all.extend(leaves_open(plan));
    all
}

/// What the plan does.
pub fn does(plan: &Plan) -> Vec<String> {
    let interfaces: Vec<_> = plan.sandboxes.iter().map(|sandbox| sandbox.name.to_string()).collect();
    let enforce = plan.mode == Mode::Enforce;
    let mut all = vec![format!(
        "Lockdown of sandboxes behind {}, {}. Tables: inet {table}{bridge}; no other table is touched.",
        interfaces.join(", "),
        match enforce {
            true => "enforced: nothing of theirs is forwarded that the service has not permitted",
            false => "monitored: they are led to ask us, and all else passes",
        },
        table = plan.table,
        bridge = if enforce && !plan.ports.is_empty() { format!(" and bridge {}", plan.table) } else { String::new() },
    )];
    all.push(questions(plan));
    let ports: Vec<_> = OTHER_WAYS.iter().filter(|port| **port != 53).map(u16::to_string).collect();
    all.push(format!(
        "Refused, whatever the service says: other ways to ask (TCP and UDP ports {}), and every packet to {} known \
         addresses of public resolvers.",
        ports.join(", "),
        plan.refused.len()
    ));
    if enforce {
        all.push(
            "Refused: every forwarded flow from or to a sandbox without the service's conntrack mark, older ones \
             included; everything but TCP, UDP and ICMP errors of such flows (so no echo, 6in4, GRE, ESP, AH, SCTP); IPv4 \
             options, IPv6 extension headers, Teredo; addresses of clouds' metadata services."
                .into(),
        );
        all.push(format!(
            "To this host: questions, neighbour discovery, listener reports and router solicitations, a seldom ping{}. \
             Answers to what this host itself began come back.",
            if plan.dhcp { ", and DHCP" } else { "" }
        ));
        all.extend(plan.sandboxes.iter().map(sources));
        if !plan.sources.is_empty() {
            let sources: Vec<_> = plan.sources.iter().map(ToString::to_string).collect();
            all.push(format!(
                "Sources of sessions, from sandbox interfaces and this host itself alone: {}.",
                sources.join(", ")
            ));
        }
        all.extend(plan.ports.iter().map(port));
        if !plan.ports.is_empty() {
            all.push("No frame goes from one port of a bridge to another.".into());
        }
    }
    all.push(match enforce {
        true => {
            "A refusal is heard at once (TCP reset, ICMP administratively prohibited). Only forged sources and frames \
                 between ports vanish."
                .into()
        }
        false => "A refusal is heard at once (TCP reset, ICMP administratively prohibited).".into(),
    });
    all
}

fn questions(plan: &Plan) -> String {
    let lead = |lead: &Option<Lead>| match lead {
        Some(Lead::Port(port)) => format!("to port {port} of this host's address on the sandbox's interface"),
        Some(Lead::To(addresses)) => {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            match all.as_slice() {
                [one] => format!("to {one}"),
                [first, ..] => format!("to {first} (and those to one of {} there)", all.join(", ")),
                [] => "nowhere".into(),
            }
        }
        None => "nowhere: they are refused".into(),
    };
    let to = match (lead(&plan.lead4), lead(&plan.lead6)) {
        (v4, v6) if v4 == v6 => v4,
        (v4, v6) => format!("over IPv4 {v4}; over IPv6 {v6}"),
    };
    format!("Questions (port 53, UDP and TCP, IPv4 and IPv6), whatever server they are sent to, are led {to}.")
}

fn sources(sandbox: &Sandbox) -> String {
    let name = &sandbox.name;
    if sandbox.bound.is_empty() {
        return format!("Sources on {name}: whatever is routed back out of it, and link-local for IPv6's own needs.");
    }
    let bound: Vec<_> = sandbox.bound.iter().map(ToString::to_string).collect();
    format!("Sources on {name}: {}, and these from nowhere else.", bound.join(", "))
}

fn port(port: &Port) -> String {
    let (Port { name, bound, mac, .. }, bridge) = (port, port.place());
    if bound.is_empty() {
        return format!("Port {name} of {bridge}: whatever belongs to no other port.");
    }
    let bound: Vec<_> = bound.iter().map(ToString::to_string).collect();
    let mac = mac.map_or(String::new(), |mac| format!(", as {mac}"));
    format!("Port {name} of {bridge}: {}{mac}, in ARP and neighbour discovery too.", bound.join(", "))
}

/// What the plan leaves open that a reader might think closed; nothing where it leaves nothing.
pub fn leaves_open(plan: &Plan) -> Vec<String> {
    if plan.mode == Mode::Monitor {
        return Vec::new();
    }
    let mut all = Vec::new();
    let unbound: Vec<_> = plan.ports.iter().filter(|port| port.bound.is_empty()).map(|p| p.name.to_string()).collect();
    if !unbound.is_empty() {
        all.push(format!(
            "Left open: a sandbox on {} may send as its neighbours there, and the service cannot tell them apart. \
             --bind PORT=ADDRESS closes it.",
            unbound.join(", ")
        ));
    }
    let no_mac: Vec<_> = plan
        .ports
        .iter()
        .filter(|port| port.mac.is_none() && !port.bound.is_empty())
        .map(|port| port.name.to_string())
        .collect();
    if !no_mac.is_empty() {
        all.push(format!(
            "Left open: a sandbox on {} may send from its neighbour's hardware address, and frames for that neighbour \
             then go astray to it. --bind PORT=ADDRESS,HARDWARE-ADDRESS closes it.",
            no_mac.join(", ")
        ));
    }
    all
}
