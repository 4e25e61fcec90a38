//! Whether a way is closed, by what was heard and what was seen of a probe.

use super::report::Outcome;
use super::sight::Sight;

/// What the sender heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A question was answered, with this node's proof or without.
    Answered {
        /// Whether the proof is this node's.
        by_us: bool,
    },
    /// Somebody took the connection, or answered a datagram.
    Taken,
    /// Refused at once, in the system's words.
    Refused(String),
    /// Refused before it had passed a router, in the system's words: by the host at the link's other end, or by the sandbox's
    /// own filter, which says nothing of the host.
    RefusedHere(String),
    /// Nothing until the time was up.
    Silent,
    /// The sandbox's own kernel has no way there.
    NoRoute(String),
    /// The sandbox's own kernel does not let this user send such packets.
    NotAllowed(String),
    /// It did not go out for another reason, which an agent might be able to remove.
    Unsent(String),
}

/// What a probe is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// Another resolver: whoever asks it must hear this node, or a refusal.
    Resolver,
    /// Somewhere else: nobody may take it.
    Away,
    /// Something within the sandbox itself: an answer must be this node's.
    Within,
    /// Neighbours on the link, all at once.
    Link,
}

/// The control that was made for a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Whether it shows that the probe works.
    pub good: bool,
    /// What it was and how it ended, in words.
    pub text: String,
}

/// What is known of one probe.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// What it is about.
    pub aim: Aim,
    /// What was heard.
    pub heard: &'a Heard,
    /// What was seen on the wire; `None`: nobody could look.
    pub sight: Option<&'a Sight>,
    /// Names of the interfaces that it left by.
    pub left: &'a [String],
    /// Whether the host itself got it, by a socket of the doctor's own.
    pub delivered: bool,
    /// Whether the resolver answers the sandbox: without that nothing that is silent says anything.
    pub alive: &'a Control,
    /// A further control: the same from a place where it must work, or by the same code within the sandbox.
    pub control: &'a Control,
}

/// The outcome, why, and what the control was.
pub fn judge(evidence: &Evidence<'_>) -> (Outcome, String, String) {
    let (outcome, why) = verdict(evidence);
    let control = match evidence.sight {
        Some(sight) if !sight.arrived.is_empty() => "seen to arrive from the sandbox".to_owned(),
        Some(sight) if sight.sought && evidence.aim != Aim::Within => "its question to the link was seen".to_owned(),
        Some(_) if evidence.aim != Aim::Within => "not seen to arrive from the sandbox".to_owned(),
        _ => evidence.control.text.clone(),
    };
    (
        outcome,
        why,
        if evidence.sight.is_some() && evidence.aim != Aim::Within { join(control, evidence.control) } else { control },
    )
}

fn join(seen: String, control: &Control) -> String {
    if control.text.is_empty() { seen } else { format!("{seen}; {}", control.text) }
}

fn verdict(evidence: &Evidence<'_>) -> (Outcome, String) {
    let open = |why: String| (Outcome::Open, why);
    // What shows that a way is open needs no control.
    if !evidence.left.is_empty() {
        return open(format!("left by {}", evidence.left.join(", ")));
    }
    if evidence.delivered {
        return open("this host took it".into());
    }
    match evidence.heard {
        Heard::Answered { by_us: false } => return open("answered, and not by this node".into()),
        Heard::Taken if evidence.aim == Aim::Within => return open("something in the sandbox took it".into()),
        Heard::Taken => return open("somebody took it".into()),
        _ => {}
    }
    let unsure = |why: String| (Outcome::Inconclusive, why);
    if !evidence.alive.good {
        return unsure(evidence.alive.text.clone());
    }
    if let Heard::Answered { by_us: true } = evidence.heard {
        return match evidence.aim {
            Aim::Resolver | Aim::Within => (Outcome::Closed, "led to this node".into()),
            Aim::Away | Aim::Link => open("answered".into()),
        };
    }
    // Without a loopback of its own it goes where everything goes, and what becomes of it there is seen.
    let went_out = evidence.aim == Aim::Within && evidence.sight.is_some_and(|sight| !sight.arrived.is_empty());
    if let (Aim::Within, Heard::NoRoute(why), false) = (evidence.aim, evidence.heard, went_out) {
        // Its own kernel says so of the sandbox itself. Of what went out it may be anybody's word.
        return (Outcome::Absent, format!("the sandbox has no way there ({why})"));
    }
    if !evidence.control.good && !went_out {
        return unsure(format!("its control failed: {}", evidence.control.text));
    }
    match evidence.heard {
        Heard::Refused(why) if evidence.aim == Aim::Within => (Outcome::Closed, format!("nobody is there ({why})")),
        Heard::NotAllowed(why) => (Outcome::Absent, format!("not to be had with these rights ({why})")),
        heard => match evidence.sight {
            Some(sight) => seen(heard, sight),
            None => unseen(heard, evidence.aim),
        },
    }
}

fn seen(heard: &Heard, sight: &Sight) -> (Outcome, String) {
    let silent = match heard {
        Heard::Refused(why) => format!("refused ({why}), and went no further"),
        _ => "went no further".into(),
    };
    match (sight.arrived.is_empty(), sight.lossy, heard) {
        (true, _, Heard::NoRoute(why)) => (Outcome::Absent, format!("the sandbox has no way there ({why})")),
        (true, _, Heard::Silent) if sight.sought => {
            (Outcome::Absent, "the sandbox asked its link who has this address, and sent nothing to anybody".into())
        }
        (true, _, Heard::Unsent(why)) => (Outcome::Inconclusive, format!("it was not sent ({why})")),
        (true, _, _) => (Outcome::Inconclusive, "it did not arrive at this host, so nothing is known of it".into()),
        (false, true, _) => (Outcome::Inconclusive, "packets were lost unseen; try again when there are fewer".into()),
        (false, false, _) => (Outcome::Closed, silent),
    }
}

fn unseen(heard: &Heard, aim: Aim) -> (Outcome, String) {
    match heard {
        Heard::Refused(why) => (Outcome::Closed, format!("refused ({why})")),
        Heard::NoRoute(why) => (Outcome::Absent, format!("there is no way there ({why})")),
        Heard::Unsent(why) => (Outcome::Inconclusive, format!("it was not sent ({why})")),
        Heard::RefusedHere(why) => {
            let why = format!("refused before the first router ({why}), which the sandbox's own filter may have done");
            (Outcome::Inconclusive, why)
        }
        _ if aim == Aim::Link => (Outcome::NotTried, "nobody answered; who heard it only the host can tell".into()),
        _ => (Outcome::Inconclusive, "nothing was heard of it; only the host can tell whether it left".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Heard::{Answered, NoRoute, NotAllowed, Refused, RefusedHere, Silent, Taken, Unsent};
    use Outcome::{Absent, Closed, Inconclusive, NotTried, Open};

    fn outcome(aim: Aim, heard: Heard, sight: Option<(bool, bool)>, left: bool, alive: bool, control: bool) -> Outcome {
        let say = |good| Control { good, text: "control".into() };
        let (alive, control) = (say(alive), say(control));
        let sight = sight.map(|(arrived, lossy)| Sight {
            arrived: arrived.then_some(2).into_iter().collect(),
            lossy,
            ..Sight::default()
        });
        let left = if left { vec!["up0".to_owned()] } else { Vec::new() };
        let sight = sight.as_ref();
        let evidence =
            Evidence { aim, heard: &heard, sight, left: &left, delivered: false, alive: &alive, control: &control };
        judge(&evidence).0
    }

    #[test]
    fn a_way_is_closed_only_where_its_control_holds() {
        let (seen, unseen, lossy) = (Some((true, false)), Some((false, false)), Some((true, true)));
        let refused = || Refused("reset".into());
        let no = || NoRoute("none".into());
        // aim, heard, arrived and lossy, left, alive, control -> outcome
        for (aim, heard, sight, left, alive, control, wanted, why) in [
            (Aim::Away, refused(), seen, false, true, true, Closed, "refused at the host"),
            (Aim::Away, Silent, seen, false, true, true, Closed, "vanished at the host"),
            (Aim::Away, refused(), seen, true, true, true, Open, "it left, whatever was heard"),
            (Aim::Away, Silent, seen, true, false, false, Open, "no control is needed to see it leave"),
            (Aim::Away, refused(), unseen, false, true, true, Inconclusive, "never arrived"),
            (Aim::Away, Unsent("x".into()), unseen, false, true, true, Inconclusive, "the sandbox's own filter"),
            (Aim::Away, no(), unseen, false, true, true, Absent, "no route"),
            (Aim::Away, no(), seen, false, true, true, Closed, "the host has none"),
            (Aim::Away, no(), unseen, false, false, true, Inconclusive, "no route, and no resolver: the link is down"),
            (Aim::Away, refused(), lossy, false, true, true, Inconclusive, "packets were lost"),
            (Aim::Away, refused(), seen, false, true, false, Inconclusive, "the control failed"),
            (Aim::Away, refused(), seen, false, false, true, Inconclusive, "the resolver is silent"),
            (Aim::Away, Taken, seen, false, true, true, Open, "taken by a proxy"),
            (Aim::Away, Answered { by_us: true }, seen, false, true, true, Open, "a pin's way"),
            (Aim::Resolver, Answered { by_us: true }, seen, false, true, true, Closed, "led to us"),
            (Aim::Resolver, Answered { by_us: false }, seen, false, true, true, Open, "answered by another"),
            (Aim::Resolver, Answered { by_us: false }, None, false, false, false, Open, "the same without a control"),
            (Aim::Within, refused(), unseen, false, true, true, Closed, "nobody there"),
            (Aim::Within, refused(), unseen, false, true, false, Inconclusive, "the same code does not work there"),
            (Aim::Within, Silent, unseen, false, true, true, Inconclusive, "no word"),
            (Aim::Within, Taken, unseen, false, true, true, Open, "something is there"),
            (Aim::Within, no(), unseen, false, true, false, Absent, "no loopback, so no control either"),
            (
                Aim::Within,
                Silent,
                seen,
                false,
                true,
                false,
                Closed,
                "no loopback, and the host went no further with it",
            ),
            (Aim::Within, Silent, lossy, false, true, false, Inconclusive, "packets were lost"),
            (
                Aim::Within,
                no(),
                lossy,
                false,
                true,
                false,
                Inconclusive,
                "somebody behind the host says so, of what was lost",
            ),
            (Aim::Within, Silent, seen, true, true, false, Open, "it left by way of the host"),
            // From within.
            (Aim::Away, refused(), None, false, true, true, Closed, "heard"),
            (Aim::Away, RefusedHere("x".into()), None, false, true, true, Inconclusive, "by whom, nobody knows"),
            (Aim::Away, Silent, None, false, true, true, Inconclusive, "nobody looked"),
            (Aim::Link, Silent, None, false, true, true, NotTried, "groups answer if they like"),
            (Aim::Away, NotAllowed("x".into()), None, false, true, true, Absent, "no right to send such"),
        ] {
            assert_eq!(outcome(aim, heard, sight, left, alive, control), wanted, "{why}");
        }
    }
    #[test]
    fn an_address_that_nobody_on_the_link_has_is_absent() {
        let good = Control { good: true, text: String::new() };
        let outcome = |heard: Heard, sight: Sight| {
            let sight = Some(&sight);
            let evidence = Evidence {
                aim: Aim::Away,
                heard: &heard,
                sight,
                left: &[],
                delivered: false,
                alive: &good,
                control: &good,
            };
            judge(&evidence)
        };
        let sought = Sight { sought: true, ..Sight::default() };
        let (found, _, control) = outcome(Silent, sought.clone());
        assert_eq!((found, &*control), (Absent, "its question to the link was seen"));
        assert_eq!(outcome(Silent, Sight::default()).0, Inconclusive, "nor was the link asked");
        assert_eq!(outcome(Refused("x".into()), sought.clone()).0, Inconclusive, "refused by the sandbox itself");
        assert_eq!(outcome(Silent, Sight { arrived: [2].into(), ..sought }).0, Closed, "somebody had it");
    }
}
