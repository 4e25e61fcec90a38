//! Pins as batches: the hot path.
//!
//! Booked in the wanted state first and taken back if the kernel refuses, so that state and kernel never differ by what
//! a caller was told.

use super::super::netlink::{Batch, Refusal};
use super::super::state::{Pinned, Undo, Volume, millis};
use super::super::{Command, Error};
use super::sets::{Element, Key, Kind, MSG_DELSETELEM, MSG_NEWSETELEM, Set, lease_kind, volume_kind};
use super::{MESSAGE_ELEMENTS, Nft, Refresh, kernel};

/// An element of a set.
type Place = (Set, Key);

impl Nft {
    /// A run of pins as one batch. What the kernel refuses is left out and the rest tried again, so one bad command
    /// costs the others a round trip and nothing else.
    pub(super) fn pins(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let mut results: Vec<Option<Result<(), Error>>> = commands.iter().map(|_| None).collect();
        // Elements that were to be replaced and had ended between our reckoning and the kernel's.
        let mut gone: Vec<Place> = Vec::new();
        let mut restored = false;
        let mut replace = self.refresh == Refresh::Replace;
        let mut together = true;
        loop {
            if let Some(why) = self.lost.clone() {
                fill(&mut results, || Error::Unhealthy(why.clone()));
                break;
            }
            let mut journal = Vec::new();
            let mut batch = self.netlink.batch();
            let how = How { together, replace, gone: &gone };
            let sent = self.plan_pins(commands, &mut results, &mut journal, &mut batch, &how);
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
            if std::mem::replace(&mut together, false) {
                // Which of the commands is at fault does not show.
                continue;
            }
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
                    Some((_, Some(place))) if refusal.errno == libc::ENOENT => gone.push(*place),
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

    /// Books every command that has no result yet and writes its messages. Gives, for each message, its command (any, for
    /// one that is of several) and, for a deletion, of what.
    fn plan_pins(
        &mut self,
        commands: &[Command],
        results: &mut [Option<Result<(), Error>>],
        journal: &mut Vec<Undo>,
        batch: &mut Batch,
        how: &How<'_>,
    ) -> Vec<(usize, Option<Place>)> {
        let now = self.now();
        let mut sent = Vec::with_capacity(commands.len());
        let mut gathered = Gathered::default();
        for (at, (command, result)) in commands.iter().zip(results).enumerate() {
            let Command::Pin { session, destinations, ports, volume, lifetime } = command else { continue };
            if result.is_some() {
                continue;
            }
            let pinned = match self.state.pin(*session, destinations, (ports, *volume), millis(*lifetime), now, journal)
            {
                Ok(pinned) => pinned,
                Err(error) => {
                    *result = Some(Err(error));
                    continue;
                }
            };
            let session = session.to_canonical();
            let delete = |batch: &mut Batch, sent: &mut Vec<(usize, Option<Place>)>, set: Set, element: Element| {
                let place = (set, element.key);
                if !how.gone.contains(&place) {
                    self.push(batch, MSG_DELSETELEM, set, &[element]);
                    sent.push((at, Some(place)));
                }
            };
            let Pinned { leases, volumes, forgotten } = pinned;
            let metered = Set::of(Kind::Volumes, session);
            for (destination, was) in forgotten {
                let set = Set::of(volume_kind(was), session);
                if set.kind == Kind::Counts {
                    // Whether it has begun is not known, and to delete what is not there would undo the batch.
                    let begun = Element::volume(session, destination, Volume::default());
                    self.push(batch, MSG_NEWSETELEM, set, &[begun]);
                    sent.push((at, None));
                }
                delete(batch, &mut sent, set, Element::pair(session, destination));
            }
            for volume in volumes.iter().filter(|volume| volume.replaced) {
                delete(batch, &mut sent, metered, Element::pair(session, volume.destination));
            }
            if how.replace {
                for lease in leases.iter().filter(|lease| lease.refreshed) {
                    delete(
                        batch,
                        &mut sent,
                        Set::of(lease_kind(lease.target), session),
                        Element::lease(session, lease.target),
                    );
                }
            }
            for kind in [Kind::Volumes, Kind::Counts] {
                let of_kind = volumes.iter().filter(|metered| volume_kind(metered.volume) == kind);
                let elements = of_kind.map(|v| Element::volume(session, v.destination, v.volume));
                gathered.take(Set::of(kind, session), elements);
            }
            for kind in [Kind::Pins, Kind::Web, Kind::Open] {
                let of_kind = leases.iter().filter(|lease| lease_kind(lease.target) == kind);
                let elements = of_kind.map(|lease| Element::lease(session, lease.target).lasting(lease.remaining));
                gathered.take(Set::of(kind, session), elements);
            }
            self.readings.know(session, true);
            if !how.together {
                self.add(batch, &mut gathered, at, &mut sent);
            }
        }
        self.add(batch, &mut gathered, 0, &mut sent);
        sent
    }

    /// Writes the messages for what was gathered; `command` is whose they are.
    fn add(&self, batch: &mut Batch, gathered: &mut Gathered, command: usize, sent: &mut Vec<(usize, Option<Place>)>) {
        // Counted before it is open.
        for counted in [true, false] {
            let sets = gathered.0.iter_mut().filter(|(set, _)| set.kind.counts() == counted);
            for (set, elements) in sets {
                for elements in elements.chunks(MESSAGE_ELEMENTS) {
                    self.push(batch, MSG_NEWSETELEM, *set, elements);
                    sent.push((command, None));
                }
                elements.clear();
            }
        }
    }
}

/// How a run of pins is written.
struct How<'a> {
    /// New elements of all commands in one message for each set, behind all deletions: the kernel's cost is more by message than
    /// by element. If anything is refused, the whole is written anew, command by command, which needs no such order.
    together: bool,
    /// Leases that are there are deleted first, as volumes with another limit are in any case.
    replace: bool,
    /// What is not there to be deleted.
    gone: &'a [Place],
}

/// New elements by set.
#[derive(Default)]
struct Gathered(Vec<(Set, Vec<Element>)>);

impl Gathered {
    fn take(&mut self, set: Set, elements: impl Iterator<Item = Element>) {
        // There are ten sets at most.
        let at = self.0.iter().position(|(other, _)| *other == set).unwrap_or_else(|| {
            self.0.push((set, Vec::new()));
            self.0.len() - 1
        });
        if let Some((_, held)) = self.0.get_mut(at) {
            held.extend(elements);
        }
    }
}

fn fill(results: &mut [Option<Result<(), Error>>], error: impl Fn() -> Error) {
    for result in results.iter_mut().filter(|result| result.is_none()) {
        *result = Some(Err(error()));
    }
}
