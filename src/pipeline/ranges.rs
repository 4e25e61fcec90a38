//! Written ranges that the packet filter has open, and whether any of them was closed.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Live, Pipeline};
use crate::enforce::{self, Class, Range};
use crate::lists::WrittenRange;
use crate::model::Now;
use crate::session::Told;

/// What was ordered last.
#[derive(Default)]
pub(super) struct Opened {
    ordered: Mutex<Vec<Range>>,
    /// How often something was closed by an order.
    narrowed: AtomicU64,
}

impl Pipeline {
    /// Makes the packet filter's written ranges those of the configuration. What is returned is to be awaited at start. Flows
    /// to what it closes are ended by guarding sessions anew behind it.
    pub(crate) fn open_ranges(&self, live: &Live, now: Now) -> Option<enforce::Ticket> {
        if !live.enforcing {
            return None;
        }
        let next = as_ordered(&live.ranges, now);
        let mut ordered = self.opened.ordered.lock();
        match self.enforcer.ranges(next.clone()) {
            Ok(ticket) => {
                // Behind the order, so that who sees the new number is behind it too.
                if ordered.iter().any(|range| !next.iter().any(|other| covers(other, range))) {
                    self.opened.narrowed.fetch_add(1, Ordering::SeqCst);
                }
                *ordered = next;
                Some(ticket)
            }
            Err(error) => {
                tracing::error!(%error, "the packet filter was not told of written ranges");
                None
            }
        }
    }

    /// Has the packet filter's written ranges put right where an order for them was lost.
    pub(crate) fn reopen_ranges(&self, live: &Live, now: Now) -> Result<Option<enforce::Ticket>, &'static str> {
        let lost = {
            let next = as_ordered(&live.ranges, now);
            let ordered = self.opened.ordered.lock();
            ordered.iter().any(|range| !next.contains(range)) || next.iter().any(|range| !ordered.contains(range))
        };
        match lost && live.enforcing {
            true => self.open_ranges(live, now).map(Some).ok_or("the packet filter does not take them"),
            false => Ok(None),
        }
    }

    /// What a guarded session of this class is told to the packet filter as, by now.
    pub(crate) fn told(&self, class: Class) -> Told {
        Told { class, narrowed: self.opened.narrowed.load(Ordering::SeqCst) }
    }
}

/// Whether all of `range` is open by `other` alone. Where it takes two ranges to cover one, flows are looked at once more than
/// needed, and live on.
fn covers(other: &Range, range: &Range) -> bool {
    other.first <= range.first
        && range.last <= other.last
        && range.classes & !other.classes == 0
        && other.ports.covers(&range.ports)
}

/// Written ranges that are open now by both clocks, numbered by their place in the configuration.
fn as_ordered(written: &[WrittenRange], now: Now) -> Vec<Range> {
    let open = written.iter().zip(0..).filter(|(range, _)| !range.is_over(now.wall));
    let ordered = open.flat_map(|(written, id)| {
        written.ranges.iter().map(move |range| Range {
            id,
            // Class n + 1 is scope n.
            classes: u32::from(written.scopes.bits()) << 1,
            first: range.first(),
            last: range.last(),
            ports: written.ports.clone(),
        })
    });
    ordered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    #[test]
    fn a_range_is_covered_by_one_that_opens_as_much_to_as_many() {
        let range = |first: &str, last: &str, classes, ports| {
            let (first, last) = (first.parse().expect("address"), last.parse().expect("address"));
            Range { id: 0, classes, first, last, ports }
        };
        let https = Ports::read(&["tcp/443".to_owned()]).expect("ports");
        let one = range("198.51.100.0", "198.51.100.15", 0b110, https.clone());
        assert!(covers(&one, &one));
        assert!(covers(&range("198.51.100.0", "198.51.100.255", 0b1110, Ports::Any), &one));
        for narrow in [
            range("198.51.100.1", "198.51.100.15", 0b110, https.clone()),
            range("198.51.100.0", "198.51.100.14", 0b110, https.clone()),
            range("198.51.100.0", "198.51.100.15", 0b100, https.clone()),
            range("2001:db8::", "2001:db8::f", 0b110, https),
        ] {
            assert!(!covers(&narrow, &one), "{narrow:?}");
        }
        assert!(!covers(&one, &range("198.51.100.0", "198.51.100.15", 0b110, Ports::Any)));
    }
}
