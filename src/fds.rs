//! File descriptors: how many there may be, and who gets how many of them, before they run out.
//!
//! Every exchange with an upstream holds a socket, every TCP client another, and the packet filter, the journal and the admin
//! socket need theirs whatever stubs do. So what the system allows is shared out at start: [`RESERVED`] are kept back,
//! half of them for upstreams and half for everything else, and the rest is split between upstreams and TCP clients, each
//! at most what the configuration asks for. What a share-out gives is kept by counting, not by running into the limit.
//! Pure but for [`raise`] and [`open`].

use std::io;

/// Descriptors that TCP clients never get.
pub const RESERVED: usize = 64;

/// Of them, those for upstreams.
const FOR_UPSTREAMS: usize = RESERVED / 2;

/// What is wanted, descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Sockets of exchanges.
    pub upstream: usize,
    /// Connections of clients.
    pub tcp: usize,
}

/// What there is, descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Sockets of exchanges, 2 at least.
    pub upstream: usize,
    /// Connections of clients, 1 at least.
    pub tcp: usize,
}

impl Budget {
    /// Shares out `limit` descriptors of which `used` are open or will be whatever stubs do. Everybody gets something, even
    /// where there is nothing left: then opening fails now and then instead of always.
    pub fn share_out(limit: usize, used: usize, wants: Wants) -> Self {
        let left = limit.saturating_sub(used).saturating_sub(RESERVED - FOR_UPSTREAMS);
        if left >= wants.upstream + wants.tcp {
            return Self { upstream: wants.upstream.max(2), tcp: wants.tcp.max(1) };
        }
        let open = left.saturating_sub(FOR_UPSTREAMS);
        // Half each, and what one does not want is the other's.
        let tcp = wants.tcp.min((open / 2).max(open.saturating_sub(wants.upstream.saturating_sub(FOR_UPSTREAMS))));
        let tcp = tcp.max(1);
        let upstream = wants.upstream.min(left.saturating_sub(tcp));
        Self { upstream: upstream.max(2), tcp }
    }

    /// Whether it is all that was wanted.
    pub fn is_whole(&self, wants: Wants) -> bool {
        self.upstream >= wants.upstream && self.tcp >= wants.tcp
    }
}

/// Raises the soft limit of open files to the hard one and gives what holds now.
///
/// # Errors
/// If the limit cannot be read; one that cannot be raised stays.
pub fn raise() -> io::Result<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is initialised; raising the soft limit up to the hard one needs no privilege.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
        limit = raised;
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Descriptors that are open now; `None` where the system does not show them.
pub fn open() -> Option<usize> {
    // The one that reads the directory is among them.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: Wants = Wants { upstream: 8192, tcp: 2000 };

    #[test]
    fn the_reserve_is_kept_and_the_rest_is_split() {
        let share = |limit, used, wants| {
            let budget = Budget::share_out(limit, used, wants);
            (budget.upstream, budget.tcp)
        };
        assert_eq!(share(65_536, 60, USUAL), (8192, 2000), "all that is wanted");
        // 1024 - 24 - 32 for control = 968, 32 of them for upstreams alone.
        assert_eq!(share(1024, 24, USUAL), (500, 468));
        assert_eq!(share(128, 40, USUAL), (44, 12), "128 as a test of the limit has it");
        assert_eq!(share(4096, 24, Wants { upstream: 8192, tcp: 100 }), (3940, 100));
        assert_eq!(share(4096, 24, Wants { upstream: 64, tcp: 9000 }), (64, 3976));
        assert_eq!(share(20, 40, USUAL), (2, 1), "never nothing");
        assert_eq!(
            share(65, 0, Wants { upstream: 33, tcp: 1 }),
            (32, 1),
            "what clients get at least is not given twice"
        );
        assert!(Budget::share_out(65_536, 60, USUAL).is_whole(USUAL));
        assert!(!Budget::share_out(1024, 24, USUAL).is_whole(USUAL));
    }

    #[test]
    fn the_limit_can_be_read_and_what_is_open_counted() {
        let limit = raise().expect("a limit");
        let before = open().expect("/proc");
        let files: Vec<_> = (0..50).map(|_| tempfile::tempfile().expect("a file")).collect();
        // Other tests open and close theirs meanwhile.
        assert!(open().expect("/proc") + 40 > before + files.len() && before < limit);
    }

    proptest! {
        #[test]
        fn no_share_out_is_more_than_there_is(
            limit in 0usize..100_000,
            used in 0usize..2000,
            upstream in 2usize..20_000,
            tcp in 1usize..20_000,
        ) {
            let wants = Wants { upstream, tcp };
            let budget = Budget::share_out(limit, used, wants);
            prop_assert!(budget.upstream <= upstream && budget.tcp <= tcp);
            let rest = limit.saturating_sub(used);
            prop_assert!(budget.upstream + budget.tcp <= rest.saturating_sub(RESERVED / 2).max(3));
            if rest > RESERVED + 3 {
                prop_assert!(budget.tcp <= rest - RESERVED, "the reserve");
                prop_assert!(budget.upstream >= upstream.min(RESERVED / 2));
            }
        }
    }
}
