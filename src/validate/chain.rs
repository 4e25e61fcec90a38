//! Down the tree: from an anchor to the zone that holds a name, one delegation after the other, and what each look-up on
//! the way teaches (RFC 4035 section 5.2).

use std::sync::Arc;

use staunch_scoring::{NameBuf, NameRef};

use super::anchors::Trust;
use super::denials::{Cut, Denials};
use super::keys::{Ds, Key, MAX_KEYS};
use super::set::{CNAME, DNAME, DNSKEY, DS, Set};
use super::work::Work;
use super::zones::State;
use super::{Bogus, Unknown, Validator, Verdict};
use crate::answer::Message;
use crate::model::{Now, Qtype};

/// Why a step comes to no end of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Halt {
    /// Something has to be looked up first.
    Need(Need),
    /// It is not as it was signed.
    Bogus(Bogus),
    /// It cannot be found out.
    Unknown(Unknown),
}

/// What has to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    name: NameBuf,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Whether a zone begins there, and what vouches for its keys: the zone above and its keys.
    Delegation(NameBuf, Arc<[Key]>),
    /// The zone's keys: what vouches for them.
    Keys(Arc<[Ds]>),
}

impl Need {
    /// The name to ask.
    pub fn name(&self) -> NameRef<'_> {
        self.name.as_ref()
    }

    /// The type to ask: DS or DNSKEY.
    pub fn qtype(&self) -> Qtype {
        Qtype(match self.what {
            What::Delegation(..) => DS,
            What::Keys(_) => DNSKEY,
        })
    }
}

/// A zone and its keys.
#[derive(Debug, Clone)]
pub(super) struct Zone<'n> {
    pub(super) name: NameRef<'n>,
    pub(super) keys: Arc<[Key]>,
}

/// Seconds since 1970 modulo 2^32, as signatures have them.
pub(super) fn seconds(now: Now) -> u32 {
    (now.wall.shown / 1000) as u32
}

impl Validator {
    /// The zone that holds `name`, or that begins there; `None` where it is insecure.
    pub(super) fn zone_of<'n>(&self, name: NameRef<'n>, now: Now) -> Result<Option<Zone<'n>>, Halt> {
        let Trust::Anchor(anchor, vouched) = self.anchors.of(name) else { return Ok(None) };
        let depth = anchor.label_count();
        let at = |labels: usize| name.strip_left(name.label_count().saturating_sub(labels));
        let keys = match self.zones.get(anchor, now.mono) {
            Some(State::Zone(keys)) => keys,
            Some(State::Bogus(why)) => return Err(Halt::Bogus(why)),
            _ => return Err(need(at(depth), What::Keys(vouched.into()))),
        };
        let mut zone = Zone { name: at(depth), keys };
        for labels in depth + 1..=name.label_count() {
            let below = at(labels);
            match self.zones.get(below, now.mono) {
                None => return Err(need(below, What::Delegation(zone.name.to_owned(), zone.keys))),
                Some(State::Delegated(vouched)) => return Err(need(below, What::Keys(vouched))),
                Some(State::Zone(keys)) => zone = Zone { name: below, keys },
                Some(State::Inside) => {}
                Some(State::Insecure) => return Ok(None),
                Some(State::Bogus(why)) => return Err(Halt::Bogus(why)),
            }
        }
        Ok(Some(zone))
    }

    /// Takes in the reply to `need`. What it proves is at hand for [`Validator::judge`] from then on, and so is, for some
    /// seconds, that it proves nothing.
    ///
    /// # Errors
    /// The verdict on the question that needed it, where that is settled by now.
    pub fn learn(&self, need: &Need, reply: &[u8], now: Now, work: &mut Work) -> Result<(), Verdict> {
        // Of the answer's own sets, not of this message's.
        let aside = std::mem::take(&mut work.sets);
        let learned = self.learned(need, reply, now, work);
        work.sets = aside;
        let (state, ttl) = match learned {
            Ok(learned) => learned,
            Err(Halt::Bogus(why)) => (State::Bogus(why), 0),
            Err(Halt::Unknown(why)) => return Err(Verdict::Indeterminate(why)),
            // Nothing on the way needs another look-up.
            Err(Halt::Need(_)) => return Err(Verdict::Indeterminate(Unknown::Unanswered)),
        };
        self.zones.put(need.name(), state, ttl, now.mono);
        Ok(())
    }

    fn learned(&self, need: &Need, reply: &[u8], now: Now, work: &mut Work) -> Result<(State, u32), Halt> {
        let message = Message::read(reply).map_err(|_| Halt::Unknown(Unknown::Unanswered))?;
        let is_reply = message.qname() == need.name().as_wire() && message.qtype == need.qtype().0;
        if !is_reply || message.truncated || !matches!(message.rcode, 0 | 3) {
            return Err(Halt::Unknown(Unknown::Unanswered));
        }
        match &need.what {
            What::Delegation(zone, keys) => {
                let zone = Zone { name: zone.as_ref(), keys: keys.clone() };
                self.delegation(&message, need.name(), &zone, now, work)
            }
            What::Keys(vouched) => keys(&message, need.name(), vouched, now, work),
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
            let known = Ds::that_count(set.data().filter_map(Ds::read));
            // RFC 4035 section 5.2: by algorithms that nobody here knows, it is as if there were none.
            let state = if known.is_empty() { State::Insecure } else { State::Delegated(known.into()) };
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
            Cut::Unsigned => Ok((State::Insecure, denials.ttl)),
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
        return Err(Halt::Bogus(Bogus::NoKey));
    }
    let good = set.verify(zone, &entry, seconds(now), work)?;
    Ok((State::Zone(all.into()), good.ttl))
}

fn need(name: NameRef<'_>, what: What) -> Halt {
    Halt::Need(Need { name: name.to_owned(), what })
}
