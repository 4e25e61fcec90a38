//! The records of a transfer, in the order in which they come (RFC 5936 section 2.2, RFC 1995 section 4). Pure.

use super::message::{Read, TYPE_SOA};
use super::records::{Copy, Misfit, Records};
use crate::rpz::soa_of;

/// What a transfer came to.
pub(super) enum Outcome {
    /// The primary has nothing newer.
    Current,
    /// The whole zone.
    Whole(Copy),
    /// What has changed, step by step.
    Changes(Vec<Change>),
}

/// One step from a serial to the next.
pub(super) struct Change {
    pub(super) from: u32,
    /// Data of the SOA that it leads to.
    pub(super) soa: Vec<u8>,
    pub(super) soa_ttl: u32,
    pub(super) gone: Records,
    pub(super) new: Records,
}

/// Why records are no transfer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the answer does not begin with the zone's SOA")]
    NoSoa,
    #[error("the transfer ends with another SOA than it begins with")]
    OtherSoa,
    #[error("changes that do not follow on each other")]
    Order,
    #[error("records behind the transfer's end")]
    Behind,
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

enum State {
    Start,
    Second,
    Whole(Records),
    Gone(Change),
    New(Change),
    Done,
}

/// A transfer as far as it has come.
pub(super) struct Stream<'z> {
    zone: staunch_scoring::NameRef<'z>,
    /// Serial of what we have, where changes were asked for.
    have: Option<u32>,
    /// Most octets.
    most: u64,
    octets: u64,
    first: (Vec<u8>, u32),
    serial: u32,
    state: State,
    outcome: Outcome,
}

impl<'z> Stream<'z> {
    pub(super) fn new(zone: staunch_scoring::NameRef<'z>, have: Option<u32>, most: u64) -> Self {
        let outcome = Outcome::Current;
        Self { zone, have, most, octets: 0, first: (Vec::new(), 0), serial: 0, state: State::Start, outcome }
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, record: Read) -> Result<(), StreamError> {
        self.octets += record.rdata.len() as u64 + record.owner.as_ref().wire_len() as u64 + 8;
        if self.octets > self.most {
            return Err(Misfit::TooLarge.into());
        }
        let serial = (record.rtype == TYPE_SOA && record.owner.as_ref() == self.zone)
            .then(|| soa_of(&record.rdata).map(|soa| soa.serial).ok_or(StreamError::NoSoa))
            .transpose()?;
        let most = self.most;
        self.state = match (std::mem::replace(&mut self.state, State::Done), serial) {
            (State::Start, Some(serial)) => {
                self.serial = serial;
                self.first = (record.rdata, record.ttl);
                State::Second
            }
            (State::Start, None) => return Err(StreamError::NoSoa),
            (State::Second, Some(serial)) if serial == self.serial => self.whole(Records::default()),
            (State::Second, Some(from)) if self.have == Some(from) => State::Gone(step(from)),
            (State::Second, Some(_)) => return Err(StreamError::Order),
            (State::Second, None) => {
                let mut records = Records::default();
                records.push_read(&record, most)?;
                State::Whole(records)
            }
            (State::Whole(records), Some(serial)) if serial == self.serial => self.whole(records),
            (State::Whole(_), Some(_)) => return Err(StreamError::OtherSoa),
            (State::Whole(mut records), None) => {
                records.push_read(&record, most)?;
                State::Whole(records)
            }
            (State::Gone(mut change), Some(_)) => {
                (change.soa, change.soa_ttl) = (record.rdata, record.ttl);
                State::New(change)
            }
            (State::Gone(mut change), None) => {
                change.gone.push_read(&record, most)?;
                State::Gone(change)
            }
            (State::New(change), Some(serial)) => {
                let reached = soa_of(&change.soa).map(|soa| soa.serial);
                if reached != Some(serial) {
                    return Err(StreamError::Order);
                }
                match &mut self.outcome {
                    Outcome::Changes(changes) => changes.push(change),
                    outcome => *outcome = Outcome::Changes(vec![change]),
                }
                if serial == self.serial { State::Done } else { State::Gone(step(serial)) }
            }
            (State::New(mut change), None) => {
                change.new.push_read(&record, most)?;
                State::New(change)
            }
            (State::Done, _) => return Err(StreamError::Behind),
        };
        Ok(())
    }

    fn whole(&mut self, records: Records) -> State {
        let (soa, soa_ttl) = std::mem::take(&mut self.first);
        self.outcome = Outcome::Whole(Copy { soa, soa_ttl, records });
        State::Done
    }

    /// Whether the transfer is over, asked at the end of a message. One SOA alone says that there is nothing newer, where changes
    /// were asked for (RFC 1995 section 2).
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Second => self.have == Some(self.serial),
            _ => false,
        }
    }

    /// Whether nothing but one SOA has come so far.
    pub(super) fn has_soa_alone(&self) -> bool {
        matches!(self.state, State::Second)
    }

    /// The primary's serial, once it is known.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn finish(self) -> Outcome {
        self.outcome
    }
}

fn step(from: u32) -> Change {
    Change { from, soa: Vec::new(), soa_ttl: 0, gone: Records::default(), new: Records::default() }
}

/// Whether serial `a` is newer than `b` (RFC 1982 section 3.2).
pub(super) fn is_newer(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// Applies changes in their order.
pub(super) fn apply(copy: &Copy, changes: &[Change], most: u64) -> Result<Copy, Misfit> {
    let (mut soa, mut soa_ttl) = (&copy.soa, copy.soa_ttl);
    for change in changes {
        if soa_of(soa).map_or(0, |soa| soa.serial) != change.from {
            return Err(Misfit::Serial(change.from));
        }
        (soa, soa_ttl) = (&change.soa, change.soa_ttl);
    }
    let records = copy.records.changed(changes.iter().map(|change| (&change.gone, &change.new)), most)?;
    Ok(Copy { soa: soa.clone(), soa_ttl, records })
}

#[cfg(test)]
mod tests {
    use staunch_scoring::{NameBuf, QName};

    use super::*;
    use crate::lists::HashKey;

    const MOST: u64 = 1 << 20;

    fn zone() -> NameBuf {
        NameBuf::from_text("rpz.test").expect("name")
    }

    fn soa(serial: u32) -> Read {
        let mut rdata = b"\x02ns\x04test\0\x01h\x04test\0".to_vec();
        for number in [serial, 3600, 600, 86_400, 60] {
            rdata.extend(number.to_be_bytes());
        }
        Read { owner: QName::copy_of(zone().as_ref()), rtype: TYPE_SOA, ttl: 60, rdata }
    }

    /// `name CNAME .`
    fn rule(name: &str) -> Read {
        Read { owner: QName::from_text(&format!("{name}.rpz.test")).expect("name"), rtype: 5, ttl: 30, rdata: vec![0] }
    }

    fn run(have: Option<u32>, records: Vec<Read>) -> Result<(bool, Outcome), StreamError> {
        let zone = zone();
        let mut stream = Stream::new(zone.as_ref(), have, MOST);
        for record in records {
            stream.take(record)?;
        }
        Ok((stream.is_over(), stream.finish()))
    }

    fn names(copy: &Copy) -> Vec<String> {
        let mut text = Vec::new();
        copy.write(zone().as_ref(), &mut text).expect("written");
        let text = String::from_utf8(text).expect("text");
        text.lines().skip(2).map(|line| line.split('.').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_whole_zone_stands_between_two_soas() {
        let Ok((true, Outcome::Whole(copy))) = run(None, vec![soa(7), rule("a"), rule("b"), soa(7)]) else {
            panic!("not whole")
        };
        assert_eq!(names(&copy), ["a", "b"]);
        assert!(matches!(run(None, vec![soa(7), soa(7)]), Ok((true, Outcome::Whole(_)))), "an empty zone");
        assert!(matches!(run(None, vec![soa(7), rule("a")]), Ok((false, _))), "more is to come");
        assert!(matches!(run(None, vec![soa(7)]), Ok((false, _))), "nothing was said of what we have");
        assert_eq!(run(None, vec![rule("a")]).err(), Some(StreamError::NoSoa));
        assert_eq!(run(None, vec![soa(7), rule("a"), soa(8)]).err(), Some(StreamError::OtherSoa));
        assert_eq!(run(None, vec![soa(7), soa(6)]).err(), Some(StreamError::Order), "changes nobody asked for");
        assert_eq!(run(None, vec![soa(7), soa(7), rule("a")]).err(), Some(StreamError::Behind));
    }

    #[test]
    fn changes_are_applied_in_their_order_and_to_what_they_were_made_of() {
        let Ok((true, Outcome::Whole(copy))) = run(None, vec![soa(7), rule("a"), rule("b"), soa(7)]) else {
            panic!("not whole")
        };
        assert!(matches!(run(Some(7), vec![soa(7)]), Ok((true, Outcome::Current))));
        let both =
            vec![soa(9), soa(7), rule("a"), soa(8), rule("c"), rule("d"), soa(8), rule("c"), soa(9), rule("a"), soa(9)];
        let Ok((true, Outcome::Changes(changes))) = run(Some(7), both) else { panic!("no changes") };
        let next = apply(&copy, &changes, MOST).unwrap_or_else(|misfit| panic!("{misfit}"));
        assert_eq!(names(&next), ["b", "d", "a"]);
        assert_eq!(soa_of(&next.soa).expect("SOA").serial, 9);

        let Ok((true, Outcome::Changes(changes))) = run(Some(7), vec![soa(8), soa(7), rule("z"), soa(8), soa(8)])
        else {
            panic!("no changes")
        };
        assert_eq!(apply(&copy, &changes, MOST).err(), Some(Misfit::Missing));
        let Ok((true, Outcome::Changes(changes))) = run(Some(8), vec![soa(9), soa(8), soa(9), soa(9)]) else {
            panic!("no changes")
        };
        assert_eq!(apply(&copy, &changes, MOST).err(), Some(Misfit::Serial(8)));
        // The second step does not begin where the first one ends.
        let torn = vec![soa(9), soa(7), soa(8), soa(7), soa(9), soa(9)];
        assert_eq!(run(Some(7), torn).err(), Some(StreamError::Order));
        // The primary may send the whole zone instead.
        assert!(matches!(run(Some(7), vec![soa(9), rule("x"), soa(9)]), Ok((true, Outcome::Whole(_)))));
    }

    /// What `apply` comes to, step by step and record by record.
    fn one_by_one(copy: &Copy, changes: &[Change]) -> Option<Vec<String>> {
        let zone = zone();
        let told = |records: &Records| {
            let copy = Copy { soa: copy.soa.clone(), soa_ttl: 60, records: records.clone() };
            let mut text = Vec::new();
            copy.write(zone.as_ref(), &mut text).expect("written");
            String::from_utf8(text).expect("text").lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
        };
        let key = |line: &String| line.split(' ').next().map(str::to_owned);
        let mut all = told(&copy.records);
        for change in changes {
            for line in told(&change.gone) {
                let at = all.iter().position(|known| key(known) == key(&line))?;
                all.remove(at);
            }
            for line in told(&change.new) {
                all.retain(|known| key(known) != key(&line));
                all.push(line);
            }
        }
        Some(all)
    }

    #[test]
    fn steps_in_one_pass_come_to_what_they_come_to_one_by_one() {
        let mut seed = 7_u64;
        let mut below = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let mut misfits = 0;
        for _ in 0..2_000 {
            let record = |n: u64, ttl: u64| Read { ttl: ttl as u32, ..rule(&format!("n{n}")) };
            let mut copy = Copy { soa: soa(0).rdata, soa_ttl: 60, records: Records::default() };
            for n in 0..below(6) {
                copy.records.push_read(&record(n, 30), MOST).expect("room");
            }
            let changes: Vec<_> = (0..below(5) as u32)
                .map(|serial| {
                    let mut change = Change { soa: soa(serial + 1).rdata, ..step(serial) };
                    // In each step every name once.
                    for n in 0..8 {
                        if below(8) == 0 {
                            change.gone.push_read(&record(n, 1), MOST).expect("room");
                        }
                        if below(4) == 0 {
                            change.new.push_read(&record(n, 30 + below(9)), MOST).expect("room");
                        }
                    }
                    change
                })
                .collect();
            let lines = |copy: Copy| one_by_one(&copy, &[]).expect("as it is");
            let (once, each) = (apply(&copy, &changes, MOST).ok().map(lines), one_by_one(&copy, &changes));
            assert_eq!(once, each);
            misfits += usize::from(each.is_none());
        }
        assert!((200..1_800).contains(&misfits), "both are tried: {misfits}");
    }

    #[test]
    fn a_thousand_steps_of_a_large_zone_are_one_pass() {
        const LARGE: u64 = 16 << 20;
        let mut copy = Copy { soa: soa(0).rdata, soa_ttl: 60, records: Records::default() };
        for n in 0..50_000 {
            copy.records.push_read(&rule(&format!("n{n}")), LARGE).expect("room");
        }
        let changes: Vec<_> = (0..999)
            .map(|serial| {
                let mut change = Change { soa: soa(serial + 1).rdata, ..step(serial) };
                change.gone.push_read(&rule(&format!("n{serial}")), LARGE).expect("room");
                change.new.push_read(&rule(&format!("m{serial}")), LARGE).expect("room");
                change
            })
            .collect();
        let next = apply(&copy, &changes, LARGE).unwrap_or_else(|misfit| panic!("{misfit}"));
        let names = names(&next);
        assert_eq!((names.len(), names.first(), names.last()), (50_000, Some(&"n999".into()), Some(&"m998".into())));
        let small = apply(&copy, &changes, copy.records.octets() as u64 / 2);
        assert_eq!(small.err(), Some(Misfit::TooLarge));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut odd = rule("a");
        odd.owner = QName::from_text("x\\.y\\\"\\;\\000\\@.\\$b.rpz.test").expect("name");
        let txt = Read { rtype: 16, rdata: b"\x05he\"lo".to_vec(), ..rule("t") };
        let Ok((true, Outcome::Whole(copy))) = run(None, vec![soa(7), odd, txt, rule("*.w"), soa(7)]) else {
            panic!("not whole")
        };
        let mut text = Vec::new();
        copy.write(zone().as_ref(), &mut text).expect("written");
        let again = Copy::read(&text, zone().as_ref(), MOST).expect("read");
        let mut second = Vec::new();
        again.write(zone().as_ref(), &mut second).expect("written");
        assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&second));
        let key = HashKey::from_random([7; 24]);
        let rules = again.rules(zone().as_ref(), "file", &key, false).expect("rules");
        assert_eq!((rules.len(), rules.soa().serial), (3, 7));
        assert!(Copy::read(b"; nothing\n", zone().as_ref(), MOST).is_err());
    }

    #[test]
    fn a_transfer_is_bounded() {
        let zone = zone();
        let mut stream = Stream::new(zone.as_ref(), None, 200);
        stream.take(soa(1)).expect("begun");
        let outcome = (0..100).try_for_each(|i| stream.take(rule(&format!("name{i}"))));
        assert_eq!(outcome, Err(StreamError::Misfit(Misfit::TooLarge)));
    }

    #[test]
    fn serials_go_round() {
        for (a, b, newer) in [
            (2, 1, true),
            (1, 2, false),
            (1, 1, false),
            (0, u32::MAX, true),
            (5, u32::MAX - 5, true),
            (1 << 31, 0, false),
        ] {
            assert_eq!(is_newer(a, b), newer, "{a} after {b}");
        }
    }
}
