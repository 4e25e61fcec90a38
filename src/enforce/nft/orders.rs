//! Everything but pins: guards, renewals and quarantines as changes of sets, one order at a time.

use std::net::IpAddr;
use std::time::Instant;

use super::super::netlink::{NetlinkError, Refusal};
use super::super::state::{Entry, Lease, Metered, Renewed, Target, Volume};
use super::super::{Command, Error, SESSIONS_MAX};
use super::due::Renewal;
use super::members::Members;
use super::sets::{Element, Kind, MSG_DELSETELEM, MSG_NEWSETELEM, Set, lease_kind, volume_kind};
use super::{BATCH_CHANGES, BATCH_MESSAGES, MESSAGE_ELEMENTS, Nft, RENEWAL_MAX, kernel};

/// One change that may be refused for itself.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Add(Set, Vec<Element>),
    Delete(Set, Element),
}

impl Nft {
    /// Everything but pins, one at a time.
    pub(super) fn single(&mut self, command: &Command) -> Result<(), Error> {
        let session = command.session().to_canonical();
        let before = self.state.entry(session).map(|entry| self.members(entry)).unwrap_or_default();
        // It is wanted from here on, whatever the kernel says: what it does not take now, the next look brings to it.
        let mut renewed = Renewed::default();
        match command {
            Command::Pin { .. } => return Ok(()),
            Command::Unpin { destinations, .. } => renewed.gone = self.state.unpin(session, destinations)?,
            Command::Guard { class, .. } => self.state.guard(session, *class)?,
            Command::Renew { class, keep, .. } => renewed = self.state.renew(session, *class, keep, self.now())?,
            Command::Unguard { .. } => self.state.monitor(session)?,
            Command::Quarantine { .. } => renewed.gone = self.state.quarantine(session),
            Command::Release { .. } => self.state.release(session),
            Command::Remove { .. } => {
                let (gone, forgotten) = self.state.remove(session);
                // Leases go before what holds back the flows they opened.
                let mut changes: Vec<Change> = Self::without(session, &gone).collect();
                changes.extend(before.changes(session, &Members::default()));
                changes.extend(Self::uncounted(session, &forgotten));
                return self.single_changes(command, session, &before, changes);
            }
        }
        let after = self.state.entry(session).map(|entry| self.members(entry)).unwrap_or_default();
        // The door is shut before the pins behind it are cleared away.
        let mut changes = before.changes(session, &after);
        changes.extend(Self::without(session, &renewed.gone));
        for Metered { destination, volume, replaced } in renewed.volumes {
            changes.extend(Self::remetered(session, destination, replaced, volume));
        }
        let result = self.single_changes(command, session, &before, changes);
        self.open_narrowed(session, renewed.narrowed);
        result
    }

    /// Opens what stays of leases that went, behind all that closes: that must not fail where there is no room for this. Flows
    /// that are open pass by their mark meanwhile; who finds it closed asks again, since nothing covers an answer by it.
    fn open_narrowed(&mut self, session: IpAddr, narrowed: Vec<Lease>) {
        // Where the kernel is not as it should be, what makes it so knows of these.
        if narrowed.is_empty() || self.dirty || self.lost.is_some() {
            return;
        }
        let changes = narrowed.iter().flat_map(|Lease { target, remaining, refreshed }| {
            let (set, element) = (Set::of(lease_kind(*target), session), Element::lease(session, *target));
            let delete = refreshed.then_some(Change::Delete(set, element));
            delete.into_iter().chain([Change::Add(set, vec![element.lasting(*remaining)])])
        });
        if let Err(error) = self.commit_changes(changes.collect()) {
            let error = kernel(&error, "open what stays of leases");
            tracing::debug!(%error, %session, "what stays of leases is closed until it is asked for again");
            for lease in &narrowed {
                self.state.forget_lease(session, lease.target);
            }
            // Some of it may stand.
            self.dirty = true;
        }
    }

    pub(super) fn members(&self, entry: &Entry) -> Members {
        Members::of(entry, &self.layout.classes)
    }

    pub(super) fn without(session: IpAddr, leases: &[Target]) -> impl Iterator<Item = Change> {
        let delete = move |target: &Target| {
            Change::Delete(Set::of(lease_kind(*target), session), Element::lease(session, *target))
        };
        leases.iter().map(delete).collect::<Vec<_>>().into_iter()
    }

    /// Another limit for one destination, `replaced` where there was one before. An element's quota cannot be changed in place;
    /// what was read last goes on counting.
    pub(super) fn remetered(
        session: IpAddr,
        destination: IpAddr,
        replaced: bool,
        volume: Volume,
    ) -> impl Iterator<Item = Change> {
        let delete = |kind| Change::Delete(Set::of(kind, session), Element::pair(session, destination));
        let set = Set::of(volume_kind(volume), session);
        let add = Change::Add(set, vec![Element::volume(session, destination, volume)]);
        // The new one stands before the count ends that it takes the place of.
        let count = (!replaced).then(|| delete(Kind::Counts));
        replaced.then(|| delete(Kind::Volumes)).into_iter().chain([add]).chain(count)
    }

    /// Takes the elements of volumes away. Which counts have begun since the last reading is not known, and to delete one that
    /// has not would have the kernel undo the batch: all of them are begun first.
    pub(super) fn uncounted(session: IpAddr, volumes: &[(IpAddr, Volume)]) -> impl Iterator<Item = Change> {
        let counts = Set::of(Kind::Counts, session);
        let unlimited: Vec<Element> = volumes
            .iter()
            .filter(|(_, volume)| volume.limit.is_none())
            .map(|(to, _)| Element::volume(session, *to, Volume::default()))
            .collect();
        let begun: Vec<Change> = unlimited.chunks(MESSAGE_ELEMENTS).map(|c| Change::Add(counts, c.to_vec())).collect();
        let gone = volumes.iter().map(move |(to, volume)| {
            Change::Delete(Set::of(volume_kind(*volume), session), Element::pair(session, *to))
        });
        begun.into_iter().chain(gone)
    }

    pub(super) fn single_changes(
        &mut self,
        command: &Command,
        session: IpAddr,
        before: &Members,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        // After a failure the kernel may hold other than what is wanted.
        let unsure = self.dirty;
        self.readings.know(session, self.state.entry(session).is_some());
        let ends_flows = match command {
            Command::Quarantine { .. } | Command::Remove { .. } => true,
            Command::Guard { .. } => !before.is_guarded() || unsure,
            // What the quarantine may have left behind.
            Command::Release { .. } => self.cutter.counts().1 > 0,
            Command::Renew { .. } | Command::Pin { .. } | Command::Unpin { .. } | Command::Unguard { .. } => false,
        };
        let result = if unsure && self.lost.is_none() {
            // Not before that is right which an earlier order could not bring about.
            self.resync().map(drop)
        } else {
            self.carry_out(changes)
        };
        if let Command::Renew { class, keep, .. } = command
            && let Some(entry) = self.state.entry(session)
        {
            let generation = entry.generation;
            self.renewals.insert(session, (Instant::now(), generation));
            self.cutter.renew(Renewal { session, generation, class: *class, keep: keep.clone() });
        }
        match &result {
            Ok(()) if ends_flows => self.cutter.cut(vec![session]),
            // A guard or quarantine that stands counts in full only when its flows are gone, so they are owed. Beyond
            // the bound nothing could have been known of the session.
            Err(_) if ends_flows && self.owed.len() < SESSIONS_MAX => {
                self.owed.insert(session);
            }
            _ => {}
        }
        result
    }

    /// Ends older generations whose flows have been taken over, or should have been by now.
    pub(super) fn retire(&mut self) -> Result<(), Error> {
        let mut done = self.cutter.renewed();
        let late = self.renewals.iter().filter(|(_, (since, _))| since.elapsed() > RENEWAL_MAX);
        done.extend(late.map(|(session, (_, generation))| (*session, *generation)));
        let mut cut = Vec::new();
        let mut result = Ok(());
        for (session, generation) in done {
            if self.renewals.get(&session).is_some_and(|(_, newest)| *newest == generation) {
                self.renewals.remove(&session);
            }
            let before = self.state.entry(session).map(|entry| self.members(entry)).unwrap_or_default();
            if !self.state.retire(session, generation) {
                continue;
            }
            let after = self.state.entry(session).map(|entry| self.members(entry)).unwrap_or_default();
            result = self.carry_out(before.changes(session, &after)).and(result);
            cut.push(session);
        }
        // Both ends of what was missed hear of it.
        self.cutter.cut(cut);
        result
    }

    /// Brings changes to the kernel; puts the table back first where it is gone.
    pub(super) fn carry_out(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        for attempt in 0..2 {
            if let Some(why) = &self.lost {
                self.dirty = true;
                return Err(Error::Unhealthy(why.clone()));
            }
            match self.commit_changes(changes.clone()) {
                Ok(()) => return Ok(()),
                Err(NetlinkError::Refused(refusal)) if refusal.errno == libc::ENOENT && attempt == 0 => {
                    self.restore()?;
                }
                Err(error) => {
                    self.dirty = true;
                    return Err(kernel(&error, "change the table"));
                }
            }
        }
        Err(Error::Unhealthy("the table vanished again while it was put back".into()))
    }

    /// Changes in batches, in order. To delete what is not there is no failure, though the kernel then refuses the
    /// whole batch: it is sent again without.
    pub(super) fn commit_changes(&mut self, changes: Vec<Change>) -> Result<(), NetlinkError> {
        let mut changes = changes;
        while !changes.is_empty() {
            let mut elements = 0;
            let few = changes.iter().take(BATCH_MESSAGES).take_while(|change| {
                elements += if let Change::Add(_, added) = change { added.len() } else { 1 };
                elements <= BATCH_CHANGES
            });
            let mut most = few.count().max(1);
            if let Some((Change::Delete(old, _), Change::Add(new, _))) = changes.get(most - 1).zip(changes.get(most))
                && old.kind == new.kind
                && most > 1
            {
                // What is replaced is never gone for a moment.
                most -= 1;
            }
            let rest = changes.split_off(most);
            let mut chunk = std::mem::replace(&mut changes, rest);
            while !chunk.is_empty() {
                let mut batch = self.netlink.batch();
                for change in &chunk {
                    match change {
                        Change::Add(set, elements) => self.push(&mut batch, MSG_NEWSETELEM, *set, elements),
                        Change::Delete(set, element) => {
                            self.push(&mut batch, MSG_DELSETELEM, *set, std::slice::from_ref(element));
                        }
                    }
                }
                let refusals = self.commit(batch)?;
                if refusals.is_empty() {
                    break;
                }
                let mut keep = vec![true; chunk.len()];
                for (place, refusal) in refusals {
                    match (chunk.get(place), keep.get_mut(place)) {
                        (Some(Change::Delete(..)), Some(keep)) if refusal.errno == libc::ENOENT => *keep = false,
                        _ => return Err(NetlinkError::Refused(refusal)),
                    }
                }
                let mut keep = keep.into_iter();
                chunk.retain(|_| keep.next().unwrap_or(true));
            }
        }
        Ok(())
    }

    pub(super) fn refused(&self, doing: &'static str, refusal: Refusal) -> Error {
        match refusal.errno {
            libc::ENFILE => Error::Full { limit: self.layout.size as usize },
            _ => kernel(&NetlinkError::Refused(refusal), doing),
        }
    }
}
