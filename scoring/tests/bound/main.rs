//! The ledger bounds what a session tells, whatever the encoding.
//!
//! A reader that received n queries, and knew beforehand how they were to be read, learned at most the bits charged plus
//! log2(n + 1) for how many came. Each scheme sends random bits, so that what was told is known exactly; more than
//! 100,000 sessions in all, without an exception. `kraft` tests the same where no luck of the draw is left: at states
//! that such sessions reach, everything that could be sent next is priced, and two to minus the price sums to at most one.

mod adaptive;
mod encoders;
mod groups;
mod kraft;
mod limits;
mod names;
mod sender;
#[path = "../session/mod.rs"]
mod session;

use encoders::Scheme;
use sender::Sender;
use session::Random;

/// A generator for one run of one scheme, far from that of every neighbour.
fn seeded(scheme: usize, run: u64) -> Random {
    let mut seed =
        run.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (scheme as u64).wrapping_mul(0xd1b5_4a32_d192_ed03) ^ 0x5eed;
    seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Random((seed ^ (seed >> 31)) | 1)
}

/// Runs `sessions` of each scheme and prints what was charged for a bit told.
///
/// Beside the bound itself: two to the power of what was told less what was charged is, over all that an encoder could
/// send, at most one on average if the charges are the lengths of a code. An encoder that found a hole would send the mean
/// far past one long before it made an exception.
fn bounded(schemes: &[Scheme], first: usize, sessions: u64, longest: usize) {
    for (number, Scheme { what, draw }) in schemes.iter().enumerate() {
        let (mut told, mut charged, mut closest, mut excess) = (0.0, 0.0, f64::INFINITY, 0.0);
        for run in 0..sessions {
            let mut random = seeded(first + number, run);
            let mut encoder = draw(&mut random);
            let mut sender = Sender::loose();
            for _ in 0..5.min(longest) + random.below(longest - 4) {
                let (query, told) = encoder(&mut random, &sender);
                sender.send(&query, told);
                if random.below(40) == 0 {
                    sender.restart();
                }
            }
            sender.check(&format!("{what}, run {run}"));
            let best = sender.best();
            told += best.told;
            charged += best.charged.as_f64();
            closest = closest.min(best.margin());
            excess += (best.told - best.charged.as_f64()).exp2();
        }
        let mean = excess / sessions as f64;
        println!("| {what} | {:.2} | {closest:.1} | {mean:.3} |", charged / told.max(1.0));
        assert!(mean <= 1.0, "{what}: two to the excess is {mean:.3} on average");
    }
}

#[test]
fn no_reader_is_told_more_than_its_account_says() {
    println!(
        "| scheme | bits charged a bit told | least margin, bits | mean of 2^(told - charged) |\n|---|---|---|---|"
    );
    let half = encoders::SCHEMES.len() / 2;
    bounded(&encoders::SCHEMES[..half], 0, 5_000, 36);
}

#[test]
fn no_reader_is_told_more_by_mixtures() {
    let half = encoders::SCHEMES.len() / 2;
    bounded(&encoders::SCHEMES[half..], half, 5_000, 36);
}

#[test]
fn no_encoder_that_knows_the_ledger_gets_more() {
    bounded(adaptive::SCHEMES, 100, 4_000, 16);
}

/// Repeats that are held are asked again on the resolver's clock: what shows is in which ticks, and for which names.
#[test]
fn no_reader_is_told_more_by_what_is_held() {
    let mut closest = f64::INFINITY;
    for run in 0..1_000 {
        let mut random = seeded(250, run);
        let mut encoder = encoders::held(&mut random);
        let mut sender = Sender::loose();
        sender.budgets.echo = staunch_scoring::Bits::ZERO;
        sender.by_tick = true;
        for _ in 0..50 + random.below(400) {
            let (query, told) = encoder(&mut random, &sender);
            sender.send(&query, told);
        }
        sender.check(&format!("held, run {run}"));
        closest = closest.min(sender.best().margin());
    }
    println!("held: least margin {closest:.1} bits");
}

/// Time is paid for in slots of a second, for new names and for repeats.
#[test]
fn no_reader_is_told_more_by_time() {
    bounded(encoders::TIMED, 200, 4_000, 36);
}
