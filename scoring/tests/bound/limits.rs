//! Under the default limits: what leaves in enforce mode never passes them, whatever is tried.

use staunch_scoring::{Band, Bits, Budgets};

use super::encoders::{SCHEMES, Scheme, TIMED};
use super::sender::{Owner, Sender};
use super::{APART, adaptive, seeded};

/// Queries after which a session gives up.
const PATIENCE: usize = 1_500;

fn held(schemes: &[Scheme], first: usize, sessions: u64, patience: usize) {
    let budgets = Budgets::default();
    for (number, Scheme { what, draw }) in schemes.iter().enumerate().filter(|(_, scheme)| scheme.what != APART) {
        let (mut most_session, mut most_tenant, mut most_queries) = (0.0f64, 0.0f64, 0);
        for run in 0..sessions {
            let mut random = seeded(first + number, run);
            let mut encoder = draw(&mut random);
            let mut sender = Sender::default_limits();
            for _ in 0..patience {
                let (query, told) = encoder(&mut random, &sender);
                if sender.send(&query, told).band == Band::Quarantine {
                    break;
                }
            }
            let what = format!("{what}, run {run}");
            sender.check(&what);
            for (owner, reader) in &sender.readers {
                let limit = match owner {
                    Owner::Tenant(_) => budgets.tenant,
                    Owner::Icann(_) => budgets.icann,
                    Owner::Session => budgets.session,
                };
                assert!(reader.charged <= limit, "{what}: {owner:?} spent {}", reader.charged);
                match owner {
                    Owner::Tenant(_) => most_tenant = most_tenant.max(reader.told),
                    Owner::Icann(_) => {}
                    Owner::Session => {
                        most_session = most_session.max(reader.told);
                        most_queries = most_queries.max(reader.queries);
                    }
                }
            }
        }
        let octets = |bits: f64| (bits / 8.0).ceil();
        println!("| {what} | {} | {} | {most_queries} |", octets(most_tenant), octets(most_session));
    }
}

#[test]
fn what_leaves_never_passes_the_limits() {
    println!("| scheme | octets told a tenant | a session | queries forwarded |\n|---|---|---|---|");
    held(SCHEMES, 400, 60, PATIENCE);
    held(adaptive::SCHEMES, 460, 8, 300);
}

#[test]
fn what_leaves_never_passes_the_limits_by_time() {
    println!("| scheme | octets told a tenant | a session | queries forwarded |\n|---|---|---|---|");
    held(TIMED, 440, 40, PATIENCE);
}

/// Without the score, the ledger stops every scheme by itself.
#[test]
fn the_ledger_alone_holds_the_limits() {
    for (number, Scheme { what, draw }) in SCHEMES.iter().enumerate() {
        let mut random = seeded(480 + number, 0);
        let mut encoder = draw(&mut random);
        let mut sender = Sender::default_limits();
        sender.params.sinkhole = f32::INFINITY;
        sender.budgets =
            Budgets { tenant: Bits::whole(300), icann: Bits::whole(500), session: Bits::whole(800), ..sender.budgets };
        for _ in 0..PATIENCE {
            let (query, told) = encoder(&mut random, &sender);
            if sender.send(&query, told).band == Band::Quarantine {
                break;
            }
        }
        sender.check(what);
        assert!(sender.state.spent_session() <= Bits::whole(800), "{what}");
        for (owner, reader) in &sender.readers {
            if let Owner::Tenant(_) = owner {
                assert!(reader.charged <= Bits::whole(300), "{what}: {owner:?}");
            }
        }
    }
}
