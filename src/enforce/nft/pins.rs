//! Pins as batches: the hot path.
//!
//! Booked in the wanted state first and taken back if the kernel refuses, so that state and kernel never differ by what
//! a caller was told.

use std::net::IpAddr;

use super::super::netlink::{Batch, Refusal};
use super::super::state::{Undo, millis};
use super::super::{Command, Error};
use super::sets::{Element, Kind, MSG_DELSETELEM, MSG_NEWSETELEM, Set};
use super::{Nft, Refresh, kernel};

impl Nft {
    /// A run of pins as one batch. What the kernel refuses is left out and the rest tried again, so one bad command
    /// costs the others a round trip and nothing else.
    pub(super) fn pins(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let mut results: Vec<Option<Result<(), Error>>> = commands.iter().map(|_| None).collect();
        // Elements that ended between our reckoning and the kernel's; only met where lifetimes change by replacement.
        let mut gone: Vec<(IpAddr, IpAddr)> = Vec::new();
        let mut restored = false;
        let mut replace = self.refresh == Refresh::Replace;
        loop {
            if let Some(why) = self.lost.clone() {
                fill(&mut results, || Error::Unhealthy(why.clone()));
                break;
            }
            let mut journal = Vec::new();
            let mut batch = self.netlink.batch();
            let sent = self.plan_pins(commands, &mut results, &mut journal, &mut batch, replace.then_some(&gone));
            let refusals = match self.commit(batch) {
                Ok(refusals) if refusals.is_empty() => {
                    results.iter_mut().for_each(|result| *result = result.take().or(Some(Ok(()))));
                    break;
                }
                Ok(refusals) => refusals,
                Err(error) => {
                    self.state.undo(journal);
                    self.dirty = true;
                    fill(&mut results, || kernel(&error, "pin"));
                    break;
                }
            };
            self.state.undo(journal);
            let missing = |(place, refusal): &(usize, Refusal)| {
                refusal.errno == libc::ENOENT && matches!(sent.get(*place), Some((_, None)))
            };
            if refusals.iter().any(missing) && !restored {
                // Sets cannot vanish while rules use them: the table is gone, and nothing holds sandboxes back.
                restored = true;
                if let Err(error) = self.restore() {
                    self.lost.get_or_insert_with(|| error.to_string());
                }
                continue;
            }
            if !replace && refusals.iter().any(|(_, refusal)| refusal.errno == libc::ENFILE) {
                // The kernel counts an element in before it sees that it is there already, so a full set refuses even
                // a refresh; not if the old one goes in the same batch.
                replace = true;
                continue;
            }
            for (place, refusal) in refusals {
                match sent.get(place) {
                    Some((_, Some(pair))) if refusal.errno == libc::ENOENT => gone.push(*pair),
                    Some((command, _)) => {
                        if let Some(result) = results.get_mut(*command) {
                            *result = Some(Err(self.refused("pin", refusal)));
                        }
                    }
                    None => {}
                }
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(Error::Stopped))).collect()
    }

    /// Books every command that has no result yet and writes its messages. With `replace`, elements that are there are
    /// deleted first, but for those it names. Gives, for each message, its command and, for a deletion, the pair.
    fn plan_pins(
        &mut self,
        commands: &[Command],
        results: &mut [Option<Result<(), Error>>],
        journal: &mut Vec<Undo>,
        batch: &mut Batch,
        replace: Option<&Vec<(IpAddr, IpAddr)>>,
    ) -> Vec<(usize, Option<(IpAddr, IpAddr)>)> {
        let now = self.now();
        let mut sent = Vec::with_capacity(commands.len());
        for (at, (command, result)) in commands.iter().zip(results).enumerate() {
            let Command::Pin { session, destinations, lifetime } = command else { continue };
            if result.is_some() {
                continue;
            }
            let leases = match self.state.pin(*session, destinations, millis(*lifetime), now, journal) {
                Ok(leases) => leases,
                Err(error) => {
                    *result = Some(Err(error));
                    continue;
                }
            };
            if leases.is_empty() {
                continue;
            }
            let session = session.to_canonical();
            let set = Set::of(Kind::Pins, session);
            if let Some(gone) = replace {
                for lease in leases.iter().filter(|lease| lease.refreshed) {
                    let pair = (session, lease.destination);
                    if !gone.contains(&pair) {
                        self.push(batch, MSG_DELSETELEM, set, &[Element::pin(session, lease.destination)]);
                        sent.push((at, Some(pair)));
                    }
                }
            }
            let elements: Vec<Element> =
                leases.iter().map(|lease| Element::lease(session, lease.destination, lease.remaining)).collect();
            self.push(batch, MSG_NEWSETELEM, set, &elements);
            sent.push((at, None));
        }
        sent
    }
}

fn fill(results: &mut [Option<Result<(), Error>>], error: impl Fn() -> Error) {
    for result in results.iter_mut().filter(|result| result.is_none()) {
        *result = Some(Err(error()));
    }
}
