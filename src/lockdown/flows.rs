//! Which flows that are older than a lockdown must end.
//!
//! Pure. Rules refuse their packets anyhow; but what a translation once decided is kept for as long as a flow is tracked,
//! so a question that went to somebody else goes on doing so, and a client that only reads would never hear of a refusal.

use std::net::{IpAddr, SocketAddr};

use super::closed::OTHER_WAYS;
use super::plan::{Lead, Plan};
use super::settings::Mode;
use crate::enforce::mark::UNMARKED;
use crate::enforce::{Place, Tracked};

/// Whether `plan` permits a flow no longer. `place` says where an address lies.
pub fn must_end(plan: &Plan, flow: &Tracked, place: &dyn Fn(IpAddr) -> Place) -> bool {
    let owned = plan.owned();
    let sandbox = |address: IpAddr| {
        owned.contains(&address)
            // A session of this host's own processes is behind no interface.
            || (plan.sources.contains(&address) && place(address) != Place::Here)
            || matches!(place(address), Place::Behind(name) if plan.sandboxes.iter().any(|s| s.name.covers(&name)))
    };
    let enforce = plan.mode == Mode::Enforce;
    let transport = [libc::IPPROTO_TCP, libc::IPPROTO_UDP].contains(&i32::from(flow.protocol));
    if sandbox(flow.from.ip()) {
        let here = place(flow.answers.ip()) == Place::Here;
        if transport && is_resolver(plan, flow.answers, here) {
            return false;
        }
        // By what the sandbox dialled, too: another translation may have led it anywhere.
        let other_way = transport
            && ([flow.to, flow.answers].iter().any(|end| OTHER_WAYS.contains(&end.port()))
                || plan.refused.iter().any(|range| range.contains(flow.answers.ip())));
        return match enforce {
            true if here => transport,
            true => other_way || !transport || flow.mark == UNMARKED,
            false => other_way,
        };
    }
    // Answers of a sandbox to this host pass; to anybody else they need a mark.
    enforce && sandbox(flow.answers.ip()) && place(flow.from.ip()) != Place::Here && flow.mark == UNMARKED
}

fn is_resolver(plan: &Plan, at: SocketAddr, here: bool) -> bool {
    match plan.lead(at.is_ipv6()) {
        Some(Lead::Port(port)) => here && at.port() == *port,
        Some(Lead::To(addresses)) => addresses.contains(&at),
        None => false,
    }
}
