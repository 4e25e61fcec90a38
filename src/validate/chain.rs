//! Down the tree: from an anchor to the zone that holds a name, one delegation after the other, and what each look-up on
//! the way teaches (RFC 4035 section 5.2).

use std::sync::Arc;

use staunch_scoring::NameRef;

use super::anchors::Trust;
use super::denials::{Cut, Denials};
use super::keys::{Ds, Key, MAX_KEYS};
use super::lack::{By, Lack, MAX_AHEAD, Need};
use super::set::{CNAME, DNAME, DNSKEY, DS, Set};
use super::work::Work;
use super::zones::State;
use super::{Bogus, Unchecked, Unknown, Validator, Verdict};
use crate::answer::Message;
use crate::model::Now;
use crate::partition::Partition;

/// Why a step comes to no end of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Halt {
    /// Something has to be looked up first.
    Lack(Lack),
    /// It is not as it was signed.
    Bogus(Bogus),
    /// It cannot be found out.
    Unknown(Unknown),
}

/// A zone and its keys.
#[derive(Debug, Clone)]
pub(super) struct Zone<'n> {
    pub(super) name: NameRef<'n>,
    pub(super) keys: Arc<[Key]>,
}

/// What holds a name.
#[derive(Debug, Clone)]
pub(super) enum Holder<'n> {
    /// A zone whose keys are known.
    Zone(Zone<'n>),
    /// One whose answers cannot be checked.
    Insecure(Option<Unchecked>),
}

/// Why the way to a name is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// A signature names it as its zone: one begins there, or nothing is proved.
    Signer,
    /// To see where it ends.
    Holder,
}

/// Seconds since 1970 modulo 2^32, as signatures have them.
pub(super) fn seconds(now: Now) -> u32 {
    (now.wall.shown / 1000) as u32
}

impl Validator {
    /// The zone that holds `name`, or that begins there, by what is known in a partition.
    pub(super) fn zone_of<'n>(&self, name: NameRef<'n>, aim: Aim, of: Partition, now: Now) -> Result<Holder<'n>, Halt> {
        let in_force = self.anchors.load();
        let number = in_force.number;
        let Trust::Anchor(anchor, vouched) = in_force.anchors.of(name) else { return Ok(Holder::Insecure(None)) };
        let depth = anchor.label_count();
        let at = |labels: usize| name.strip_left(name.label_count().saturating_sub(labels));
        let lacks =
            |lack: Lack, labels: usize| Err(Halt::Lack(lack.beside(self.ahead(name, labels, aim, of, number, now))));
        let keys = match self.zones.get(of, anchor, number, now.mono) {
            Some(State::Zone(keys)) => keys,
            Some(State::Bogus(why)) => return Err(Halt::Bogus(why)),
            // Who configures an anchor wants what is below it signed, and these keys cannot be checked.
            Some(State::Insecure(_)) => return Err(Halt::Bogus(Bogus::NoKey)),
            _ => return lacks(Lack::keys(at(depth), vouched.into(), number), depth + 1),
        };
        let mut zone = Zone { name: at(depth), keys };
        for labels in depth + 1..=name.label_count() {
            let below = at(labels);
            match self.zones.get(of, below, number, now.mono) {
                None => return lacks(Lack::delegation(below, zone.name, zone.keys, number), labels),
                Some(State::Delegated(vouched)) => return lacks(Lack::keys(below, vouched, number), labels + 1),
                Some(State::Zone(keys)) => zone = Zone { name: below, keys },
                Some(State::Inside) => {}
                Some(State::Insecure(why)) => return Ok(Holder::Insecure(why)),
                Some(State::Bogus(why)) => return Err(Halt::Bogus(why)),
            }
        }
        Ok(Holder::Zone(zone))
    }

    /// What is known to be needed further down, from `labels` on: to a signer each delegation on the way and its keys; else
    /// the next delegation, since it may be where the way ends.
    fn ahead(&self, name: NameRef<'_>, labels: usize, aim: Aim, of: Partition, anchors: u64, now: Now) -> Vec<Need> {
        let last = if aim == Aim::Signer { name.label_count() } else { labels.min(name.label_count()) };
        let way = (labels..=last).map(|labels| name.strip_left(name.label_count() - labels));
        let is_unknown = |below: &NameRef<'_>| self.zones.get(of, *below, anchors, now.mono).is_none();
        let mut needs: Vec<Need> = way.filter(is_unknown).take(MAX_AHEAD).map(Need::delegation).collect();
        if aim == Aim::Signer && !matches!(self.zones.get(of, name, anchors, now.mono), Some(State::Zone(_))) {
            needs.push(Need::keys(name));
        }
        needs
    }

    /// Takes in the reply to what was lacking. What it proves is at hand for [`Validator::judge`] from then on, and so is, for some
    /// seconds, that it proves nothing (`false`), unless another reply is taken in that does.
    ///
    /// # Errors
    /// The verdict on the question that needed it, where that is settled by now.
    pub fn learn(&self, lack: &Lack, reply: &[u8], now: Now, work: &mut Work) -> Result<bool, Verdict> {
        // Of the answer's own sets, not of this message's.
        let aside = std::mem::take(&mut work.sets);
        let learned = self.learned(lack, reply, now, work);
        work.sets = aside;
        let (state, ttl) = match learned {
            Ok(learned) => learned,
            Err(Halt::Bogus(why)) => (State::Bogus(why), 0),
            Err(Halt::Unknown(why)) => return Err(Verdict::Indeterminate(why)),
            // Nothing on the way needs another look-up.
            Err(Halt::Lack(_)) => return Err(Verdict::Indeterminate(Unknown::Unanswered)),
        };
        let proves = !matches!(state, State::Bogus(_));
        self.zones.put(work.partition(), lack.need().name(), state, ttl, lack.anchors, now.mono);
        Ok(proves)
    }

    fn learned(&self, lack: &Lack, reply: &[u8], now: Now, work: &mut Work) -> Result<(State, u32), Halt> {
        let message = Message::read(reply).map_err(|_| Halt::Unknown(Unknown::Unanswered))?;
        let need = lack.need();
        let is_reply = message.qname() == need.name().as_wire() && message.qtype == need.qtype().0;
        if !is_reply || message.truncated || !matches!(message.rcode, 0 | 3) {
            return Err(Halt::Unknown(Unknown::Unanswered));
        }
        match &lack.by {
            By::Parent(zone, keys) => {
                let zone = Zone { name: zone.as_ref(), keys: keys.clone() };
                self.delegation(&message, need.name(), &zone, now, work)
            }
            By::Vouched(vouched) => keys(&message, need.name(), vouched, now, work),
        }
    }

    /// What `message` says of the delegation at `name`, as `zone` above it has signed it.
    fn delegation(
        &self,
        message: &Message<'_>,
        name: NameRef<'_>,
        zone: &Zone<'_>,
        now: Now,
        work: &mut Work,
    ) -> Result<(State, u32), Halt> {
        let set = Set::in_answer(message, name, DS);
        if !set.is_empty() {
            let good = set.verify(zone.name, &zone.keys, seconds(now), work)?;
            let state = match Ds::that_count(set.data().filter_map(Ds::read)) {
                Ok(known) => State::Delegated(known.into()),
                Err(why) => State::Insecure(Some(why)),
            };
            return Ok((state, good.ttl));
        }
        // An alias is no delegation, and below a DNAME there is none.
        for above in name.ancestors().skip(1).take_while(|above| above.is_at_or_below(zone.name)) {
            let set = Set::in_answer(message, above, DNAME);
            if !set.is_empty() {
                let good = set.verify(zone.name, &zone.keys, seconds(now), work)?;
                return Ok((State::Inside, good.ttl));
            }
        }
        let set = Set::in_answer(message, name, CNAME);
        if !set.is_empty() {
            let good = set.verify(zone.name, &zone.keys, seconds(now), work)?;
            return Ok((State::Inside, good.ttl));
        }
        let denials = Denials::of(message, zone, seconds(now), work)?;
        match denials.cut(name, self.limits, work)? {
            Cut::None => Ok((State::Inside, denials.ttl)),
            Cut::Unsigned(why) => Ok((State::Insecure(why), denials.ttl)),
            Cut::Unproved => Err(Halt::Bogus(Bogus::NoProof)),
        }
    }
}

/// The keys of `zone` in `message`, where one that is vouched for has signed them.
fn keys(
    message: &Message<'_>,
    zone: NameRef<'_>,
    vouched: &[Ds],
    now: Now,
    work: &mut Work,
) -> Result<(State, u32), Halt> {
    let set = Set::in_answer(message, zone, DNSKEY);
    let all: Vec<Key> = set.data().filter_map(Key::read).take(MAX_KEYS).collect();
    let entry: Vec<Key> = all.iter().filter(|key| vouched.iter().any(|ds| ds.is_of(zone, key))).cloned().collect();
    if entry.is_empty() {
        // It is as with an algorithm that nobody here can check: what vouches for them is proved, and speaks of nothing else.
        let unfit: Vec<Key> = set.data().filter_map(Key::read_unfit).take(MAX_KEYS).collect();
        let is_unfit = |ds: &Ds| unfit.iter().any(|key| ds.is_of(zone, key));
        if !vouched.is_empty() && vouched.iter().all(is_unfit) {
            return Ok((State::Insecure(Some(Unchecked::Algorithms)), set.ttl()));
        }
        return Err(Halt::Bogus(Bogus::NoKey));
    }
    let good = set.verify(zone, &entry, seconds(now), work)?;
    Ok((State::Zone(all.into()), good.ttl))
}
