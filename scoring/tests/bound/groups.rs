//! The reader of all sessions of a group.
//!
//! It sees the queries of every session that one image or owner runs, each session's in order. What it learns from names
//! new to the group is charged to the group; what later sessions tell by choosing among the group's names is charged to
//! them.

use staunch_scoring::{Bits, GroupState};

use super::encoders::{Encoder, SCHEMES};
use super::sender::{Owner, Sender, Told};
use super::{seeded, session::Random};

const HOUR: u64 = 3_600_000;

/// One session of a group, until `queries` have been asked; gives the bits told by names new to the group and their number.
fn run(group: &mut GroupState, encoder: &mut Encoder, random: &mut Random, queries: usize, wall: u64) -> (f64, u32) {
    let (mut told, mut names) = (0.0, 0);
    let mut sender = Sender::loose();
    for _ in 0..queries {
        let (query, bits) = encoder(random, &sender);
        let facts = group.facts(query.name.as_ref(), wall);
        sender.group = Some(facts);
        let got = sender.send(&query, bits);
        if !facts.known {
            told += bits.session;
            names += 1;
            group.book(query.name.as_ref(), got.charge.group, wall);
        } else {
            assert_eq!(got.charge.group, Bits::ZERO, "the group pays for a name once");
        }
    }
    (told, names)
}

#[test]
fn no_group_tells_more_by_new_names_than_its_account_says() {
    let mut closest = f64::INFINITY;
    for round in 0..1_500 {
        let mut random = seeded(300, round);
        let scheme = &SCHEMES[random.below(SCHEMES.len())];
        let mut group = GroupState::new(random.next());
        let (mut told, mut names) = (0.0, 0);
        for _ in 0..1 + random.below(6) {
            let mut encoder = (scheme.draw)(&mut random);
            let queries = 1 + random.below(20);
            let (bits, new) = run(&mut group, &mut encoder, &mut random, queries, 500 * HOUR);
            (told, names) = (told + bits, names + new);
        }
        let charged = group.spent(500 * HOUR);
        let margin = charged.as_f64() + f64::from(names + 1).log2() - told;
        assert!(margin >= 0.0, "{}, round {round}: told {told:.1}, charged {charged}", scheme.what);
        closest = closest.min(margin);
    }
    println!("groups: least margin {closest:.1} bits");
}

/// What a session tells by its choice among names the group knows is paid by the session as if it were alone.
#[test]
fn names_the_group_knows_are_no_cheaper_for_a_session() {
    for round in 0..200 {
        let mut random = seeded(301, round);
        let mut encoder = (SCHEMES[random.below(SCHEMES.len())].draw)(&mut random);
        let (mut alone, mut member) = (Sender::loose(), Sender::loose());
        let mut group = GroupState::new(7);
        for _ in 0..20 {
            let (query, bits) = encoder(&mut random, &alone);
            group.book(query.name.as_ref(), Bits::ZERO, 0);
            member.group = Some(group.facts(query.name.as_ref(), 0));
            let (a, b) = (alone.send(&query, bits), member.send(&query, Told::all(0.0)));
            assert_eq!(
                (a.charge.name, a.charge.icann, a.charge.session),
                (b.charge.name, b.charge.icann, b.charge.session)
            );
        }
        assert_eq!(alone.readers[&Owner::Session].charged, member.readers[&Owner::Session].charged);
    }
}
