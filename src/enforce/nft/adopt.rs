//! What an earlier run left in the kernel.

use super::sets::{Held, Kind, Set, volume_kind};
use super::{Nft, kernel};
use crate::enforce::state::Target;
use crate::enforce::{Class, Error};

impl Nft {
    /// Takes over elements that an earlier run left.
    pub(super) fn adopt(&mut self) -> Result<(), Error> {
        let doing = "look for the table";
        if self.table_handle().map_err(|error| kernel(&error, doing))?.is_none() {
            return Ok(());
        }
        let now = self.now();
        for set in self.layout.sets().collect::<Vec<_>>() {
            let elements = match self.elements(set) {
                Ok(elements) => elements,
                // A table of that name without our sets: they are created next.
                Err(error) if error.errno() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(kernel(&error, doing)),
            };
            for held in elements {
                self.adopt_element(set, held, now);
            }
        }
        self.state.adopt_uncounted();
        // An earlier version had one for each port of a page.
        self.dirty |= self.state.adopt_pages();
        self.readings.know_all(self.state.entries().map(|(session, _)| session));
        Ok(())
    }

    fn adopt_element(&mut self, set: Set, held: Held, now: u64) {
        let Held { left, mark, volume, .. } = held;
        // Ranges are written anew.
        let Some(parts) = held.key.parts(set) else { return };
        let (Some(session), destination) = (parts.first, parts.second) else { return };
        match (set.kind, destination) {
            (kind, Some(address)) if kind.has_timeout() => match left.zip(kind.opening(parts.port)) {
                Some((left, open)) => self.state.adopt_lease(session, Target { address, open }, left, now),
                // A pin without an end is not ours; the first comparison removes it.
                None => self.dirty = true,
            },
            (Kind::Volumes | Kind::Counts, Some(destination)) => {
                if let Some(volume) = volume {
                    self.state.adopt_volume(session, destination, volume);
                    // One without a limit in the place of one that has some is of an earlier version.
                    self.dirty |= volume_kind(volume) != set.kind;
                }
            }
            (Kind::Guarded, _) => self.state.adopt(session, |entry| entry.guarded = true),
            (Kind::Monitored, _) => self.state.adopt(session, |entry| entry.monitored = true),
            (Kind::Quarantined, _) => self.state.adopt(session, |entry| entry.quarantined = true),
            (Kind::Generations, _) => self.state.adopt(session, |entry| entry.generation = mark.unwrap_or(0)),
            (Kind::Classes, _) => {
                let class = mark.and_then(|mark| u8::try_from(mark).ok()).map_or(Class::default(), Class);
                self.state.adopt(session, |entry| entry.class = class);
            }
            _ => {}
        }
    }
}
