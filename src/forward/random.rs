//! Octets of the kernel's generator for ids and letter case, fetched many at a time: a call into the kernel for each id costs
//! more than writing the query.

use std::cell::RefCell;

/// Octets fetched at once.
const FETCHED: usize = 512;

struct Drawn {
    octets: [u8; FETCHED],
    /// Those from here on were not handed out yet.
    next: usize,
}

thread_local! {
    static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { octets: [0; FETCHED], next: FETCHED }) };
}

/// Fills `to`, at most half of what is fetched at once, with octets that nobody else gets; `None` where there is no
/// randomness. What was handed out is wiped.
pub(super) fn fill(to: &mut [u8]) -> Option<()> {
    DRAWN.with_borrow_mut(|drawn| {
        if to.len() > FETCHED / 2 {
            return None;
        }
        if FETCHED.saturating_sub(drawn.next) < to.len() {
            getrandom::fill(&mut drawn.octets).ok()?;
            drawn.next = 0;
        }
        let end = drawn.next.saturating_add(to.len());
        let from = drawn.octets.get_mut(drawn.next..end)?;
        to.copy_from_slice(from);
        from.fill(0);
        drawn.next = end;
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_handed_out_twice_and_nothing_too_long() {
        let mut seen = HashSet::new();
        for length in (8..40).cycle().take(1000) {
            let mut octets = vec![0; length];
            fill(&mut octets).expect("randomness");
            // Eight octets are met again once in 10^13 times.
            assert!(seen.insert(<[u8; 8]>::try_from(&octets[..8]).expect("eight")));
        }
        assert!(fill(&mut [0; FETCHED]).is_none());
    }

    #[test]
    fn each_thread_draws_its_own() {
        let draw = || {
            let mut octets = [0; 16];
            fill(&mut octets).expect("randomness");
            octets
        };
        let other = std::thread::spawn(draw).join().expect("it ends");
        assert_ne!(draw(), other);
    }
}
