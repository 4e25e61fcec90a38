use super::*;
use crate::name::NameBuf;
use crate::state::{SessionState, check};

/// As version 1 wrote it, cut down to two accounts.
#[test]
fn a_snapshot_of_version_1_refunds_nothing() {
    let (one, two) = (NameBuf::from_text("one.example").unwrap(), NameBuf::from_text("github.io").unwrap());
    let state = SessionState::new(7);
    let (one, two) = (state.hash(one.as_ref()), state.hash(two.as_ref()));
    let text = format!(
        r#"{{"version":1,"seed":7,"check":{},"session":{{"spent":5000.0}},"accounts":[
            {{"key":{one},"tenant":{{"spent":2040.0,"history":{{"new":9,"last":1,"older":2,"last_name":5}}}},
              "icann":{{"spent":2040.0}},"below":12.0,"sinkholed":true}},
            {{"key":{two},"icann":{{"spent":4000.0,"history":{{"new":30}}}},"paid":true}}],
          "sent":[81985529216486895],"refused":[3]}}"#,
        check(7)
    );
    let snapshot: StateSnapshot = serde_json::from_str(&text).expect("an older release's");
    let state = SessionState::restore(&snapshot);
    let spent = |key| state.accounts.find(key).map(|account| (account.spent, account.history.new));
    assert_eq!(spent(one), Some((Bits::whole(2040), 9)));
    assert_eq!(spent(!two), Some((Bits::whole(4000), 30)), "a platform's tenants");
    assert_eq!((state.spent_session(), state.spent_below()), (Bits::whole(5000), Bits::whole(12)));
    assert_eq!(state.tenants_sinkholed(), 1);
    assert!(state.sent.contains(tag(81_985_529_216_486_895)));

    let mut other = snapshot.clone();
    other.check ^= 1;
    let state = SessionState::restore(&other);
    let shared = state.accounts.find(12_345).expect("every domain shares one account");
    assert_eq!((shared.spent, shared.sinkholed), (Bits::whole(6040), false), "and no mark refuses them all");
    assert_eq!(state.tenants_sinkholed(), 1, "a mark still counts");
    let again = SessionState::restore(&state.snapshot());
    assert_eq!(again.accounts.find(12_345), state.accounts.find(12_345), "nor does the next restart refund it");
}

/// As version 2 wrote it.
#[test]
fn a_snapshot_of_version_2_is_read() {
    let text = format!(
        r#"{{"version":2,"seed":7,"check":{},"session":{{"spent":100.5,"names":3,"domains":{{"paid":1,"last":1}}}},
            "accounts":[{{"key":9,"spent":100.5,"history":{{"new":3,"last_name":77}},"types":{{"rows":[1,2,3,4],"last":1}},
              "times":{{"counts":17,"gap":3}},"sinkholed":true}}],
            "overflow":{{"key":0,"spent":0.0}},"names":[[77,78]],"refused":[3]}}"#,
        check(7)
    );
    let old: StateSnapshot = serde_json::from_str(&text).expect("an older release's");
    assert!(old.is_complete() && old.step() == 0);
    let again: StateSnapshot = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
    assert_eq!(again, old, "and written again in today's form");
    let state = SessionState::restore(&again);
    let account = state.accounts.find(9).expect("matched");
    assert_eq!((account.spent, account.types.words()), (Bits::ceil_from(100.5), [0x0004_0003_0002_0001, 1]));
    assert_eq!((state.tenants_sinkholed(), state.sent.next(77)), (1, Some(78)));
}

#[test]
fn every_number_is_kept_and_damage_is_no_state() {
    let words = std::array::from_fn(|at| if at == 0 { u64::from(u32::MAX) } else { at as u64 });
    // Rows and counts take all of their 64 bits; flags and the last class have few values.
    let account = Account { sinkholed: true, paid: true, ..Account::of_words(u64::MAX, words) };
    assert_eq!(Account::of_words(u64::MAX, account.words()), account);
    let state = StateSnapshot {
        version: SNAPSHOT,
        seed: u64::MAX,
        check: 1,
        step: 1 << 40,
        span: 2,
        lost: Bits::whole(3),
        sinkholed: 7,
        session: SessionAccount::of_words(std::array::from_fn(|at| at as u64 + 1)),
        overflow: Some(Account { key: 0, ..account }),
        closed: true,
        accounts: vec![account, Account { key: 4, ..Account::default() }],
        names: vec![(1, 2), (u32::MAX, 0)],
        refused: vec![u64::MAX],
    };
    let text = state.encoded();
    assert_eq!(StateSnapshot::decoded(&text), Some(state));
    for cut in 0..text.len() {
        assert_eq!(StateSnapshot::decoded(&text[..cut]), None, "cut at {cut}");
    }
    assert!(StateSnapshot::decoded("").is_none() && StateSnapshot::decoded("AgAA").is_none());
}

#[test]
fn numbers_of_a_later_version_are_passed_over() {
    let mut out = Out(Vec::new());
    out.words(&[5, 0, 7, 900, 1 << 63]);
    out.number(3);
    let mut rest = In(&out.0);
    assert_eq!(rest.words(), Some([5, 0]));
    assert_eq!((rest.number(), rest.number()), (Some(3), None));
}
