//! Whose flows are to be looked at next: one entry for each session, however many orders there were.
//!
//! Between the owner of the table, which orders and never waits, and the thread of [`super::cutter`], which takes all there
//! is for one pass over the flows. Knows neither table nor flows.
//!
//! Bound: [`SESSIONS_MAX`] sessions to be cut and as many to be renewed. What a session gains by filling it: flows of one
//! beyond it are not ended here, and the rules refuse them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use parking_lot::{Condvar, Mutex};

use crate::enforce::{Class, Kept, SESSIONS_MAX};

/// A session whose flows of older generations are to be taken over or ended.
#[derive(Debug, Clone)]
pub(super) struct Renewal {
    /// Source address of the sandbox.
    pub session: IpAddr,
    /// The mark of flows that live on.
    pub generation: u32,
    /// Whose written ranges are open to it.
    pub class: Class,
    /// What they may lead to beside what is pinned.
    pub keep: Vec<Kept>,
}

/// What one pass is for.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Sessions whose flows end that have no pin and are not of a present generation.
    pub cut: HashSet<IpAddr>,
    /// Of several renewals of one session the last is the one in force.
    pub renew: HashMap<IpAddr, Renewal>,
}

/// What is to be done. Its lock is held for moments only.
#[derive(Debug, Default)]
pub(super) struct Due {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    pass: Pass,
    /// Nothing is taken in any more.
    is_over: bool,
}

impl Due {
    /// Takes in sessions to be cut; whether all of them found room.
    pub(super) fn cut(&self, sessions: impl IntoIterator<Item = IpAddr>) -> bool {
        self.take_in(|pass| {
            let mut all = true;
            for session in sessions {
                let is_room = pass.cut.len() < SESSIONS_MAX || pass.cut.contains(&session);
                all &= is_room;
                if is_room {
                    pass.cut.insert(session);
                }
            }
            all
        })
    }

    /// Takes in a renewal in place of an earlier one; whether it found room.
    pub(super) fn renew(&self, renewal: Renewal) -> bool {
        self.take_in(|pass| {
            let is_room = pass.renew.len() < SESSIONS_MAX || pass.renew.contains_key(&renewal.session);
            if is_room {
                pass.renew.insert(renewal.session, renewal);
            }
            is_room
        })
    }

    fn take_in(&self, put: impl FnOnce(&mut Pass) -> bool) -> bool {
        let mut waiting = self.waiting.lock();
        let taken = !waiting.is_over && put(&mut waiting.pass);
        drop(waiting);
        self.filled.notify_one();
        taken
    }

    /// All there is to do, waited for; nothing where there is none and never will be.
    pub(super) fn next(&self) -> Option<Pass> {
        let mut waiting = self.waiting.lock();
        while waiting.pass.cut.is_empty() && waiting.pass.renew.is_empty() {
            if waiting.is_over {
                return None;
            }
            self.filled.wait(&mut waiting);
        }
        Some(std::mem::take(&mut waiting.pass))
    }

    /// Takes nothing in any more; what waits is still to be done.
    pub(super) fn close(&self) {
        self.waiting.lock().is_over = true;
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: usize) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n as u32).into()
    }

    fn renewal(n: usize, generation: u32) -> Renewal {
        Renewal { session: session(n), generation, class: Class(1), keep: Vec::new() }
    }

    #[test]
    fn renewals_of_all_sessions_wait_while_a_pass_goes_on() {
        const MANY: usize = 20_000;
        let due = Due::default();
        for generation in [7, 8] {
            assert!((0..MANY).all(|n| due.renew(renewal(n, generation))));
        }
        assert!(due.cut((0..MANY).map(session)) && due.cut([session(1)]));
        let pass = due.next().expect("a pass");
        assert_eq!((pass.renew.len(), pass.cut.len()), (MANY, MANY), "one for each session");
        assert!(pass.renew.iter().all(|(session, renewal)| renewal.generation == 8 && renewal.session == *session));
        due.cut([session(3)]);
        due.close();
        assert!(!due.cut([session(4)]) && !due.renew(renewal(4, 9)));
        assert_eq!(due.next().expect("what was ordered before").cut.len(), 1);
        assert!(due.next().is_none());
    }

    #[test]
    fn sessions_are_bounded_and_those_that_wait_can_be_renewed_again() {
        let due = Due::default();
        assert!((0..SESSIONS_MAX).all(|n| due.renew(renewal(n, 1))) && due.cut((0..SESSIONS_MAX).map(session)));
        assert!(!due.renew(renewal(SESSIONS_MAX, 1)) && !due.cut([session(SESSIONS_MAX), session(0)]));
        assert!(due.renew(renewal(0, 2)) && due.cut([session(0)]));
    }
}
