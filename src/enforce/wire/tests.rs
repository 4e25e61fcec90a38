use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::enforce::{Active, Class, Error};
use crate::ports::{Port, Ports};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u16; 8]>().prop_map(IpAddr::from)]
}

fn port() -> impl Strategy<Value = Port> {
    (any::<bool>(), 1u16..).prop_map(|(tcp, number)| if tcp { Port::tcp(number) } else { Port::udp(number) })
}

fn ports() -> impl Strategy<Value = Ports> {
    let these = proptest::collection::vec(port(), 1..=16).prop_map(|ports| Ports::these(ports).expect("few"));
    prop_oneof![1 => Just(Ports::Any), 4 => these]
}

fn kept() -> impl Strategy<Value = Kept> {
    (address(), proptest::collection::vec(ports(), 0..4), any::<Option<u64>>())
        .prop_map(|(destination, ports, volume)| Kept { destination, ports, volume })
}

fn command() -> impl Strategy<Value = Command> {
    let addresses = || proptest::collection::vec(address(), 0..6);
    prop_oneof![
        (address(), addresses(), ports(), any::<Option<u64>>(), any::<u32>()).prop_map(
            |(session, destinations, ports, volume, ms)| {
                let lifetime = Duration::from_millis(ms.into());
                Command::Pin { session, destinations, ports, volume, lifetime }
            }
        ),
        (address(), addresses()).prop_map(|(session, destinations)| Command::Unpin { session, destinations }),
        (address(), any::<u8>()).prop_map(|(session, class)| Command::Guard { session, class: Class(class) }),
        (address(), any::<u8>(), proptest::collection::vec(kept(), 0..4))
            .prop_map(|(session, class, keep)| Command::Renew { session, class: Class(class), keep }),
        address().prop_map(|session| Command::Unguard { session }),
        address().prop_map(|session| Command::Quarantine { session }),
        address().prop_map(|session| Command::Release { session }),
        address().prop_map(|session| Command::Remove { session }),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    let open = prop_oneof![Just(Opening::Any), Just(Opening::Web), port().prop_map(Opening::One)];
    let lease = (address(), open, any::<u64>()).prop_map(|(to, open, left_ms)| HeldLease { to, open, left_ms });
    let volume =
        (address(), any::<Option<u64>>(), any::<u64>()).prop_map(|(to, limit, used)| HeldVolume { to, limit, used });
    (
        address(),
        any::<Option<u8>>(),
        any::<(bool, bool)>(),
        proptest::collection::vec(lease, 0..5),
        proptest::collection::vec(volume, 0..5),
    )
        .prop_map(|(session, guard, (monitored, quarantined), leases, volumes)| Held {
            session,
            guard: guard.map(Class),
            monitored,
            quarantined,
            leases,
            volumes,
        })
}

fn same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(one: &T) {
    let text = serde_json::to_string(one).expect("written");
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(*one, read, "{text}");
}

proptest! {
    #[test]
    fn orders_come_back_as_they_were(commands in proptest::collection::vec(command(), 0..8)) {
        for command in &commands {
            let length = serde_json::to_string(command).expect("written").len();
            prop_assert!(length <= super::length(command), "{} is longer than {}", length, super::length(command));
        }
        same(&Request::Apply { commands });
    }

    #[test]
    fn what_is_held_comes_back_as_it_was(held in proptest::collection::vec(held(), 0..5), more in any::<bool>()) {
        for held in &held {
            prop_assert!(serde_json::to_string(held).expect("written").len() <= held.length());
        }
        same(&Request::Hold { held: held.clone(), more });
        same(&Reply::Held { held, more });
    }

    #[test]
    fn ranges_come_back_as_they_were(first in address(), last in address(), id in any::<u32>(), ports in ports()) {
        same(&Request::Ranges { ranges: vec![Range { id, classes: id, first, last, ports }] });
    }

    #[test]
    fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = serde_json::from_slice::<Request>(&octets);
        let _ = serde_json::from_slice::<Reply>(&octets);
    }

    /// What was an order once, with something in it changed.
    #[test]
    fn damaged_orders_are_read_or_refused(command in command(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut text = serde_json::to_vec(&Request::Apply { commands: vec![command] }).expect("written");
        let at = at.index(text.len());
        text[at] = octet;
        if let Ok(Request::Apply { commands }) = serde_json::from_slice(&text) {
            commands.iter().for_each(|command| drop(check(command)));
        }
    }
}

#[test]
fn the_forms_are_these() {
    let pin = Command::Pin {
        session: [10, 77, 1, 2].into(),
        destinations: vec![[192, 0, 2, 1].into()],
        ports: Ports::these([Port::tcp(443)]).expect("ports"),
        volume: None,
        lifetime: Duration::from_secs(90),
    };
    let text = r#"{"op":"apply","commands":[{"order":"pin","session":"10.77.1.2","destinations":["192.0.2.1"],"ports":["tcp/443"],"lifetime_ms":90000}]}"#;
    assert_eq!(serde_json::to_string(&Request::Apply { commands: vec![pin] }).expect("written"), text);
    let guard = Command::Guard { session: [10, 77, 1, 2].into(), class: Class(3) };
    assert_eq!(serde_json::to_string(&guard).expect("written"), r#"{"order":"guard","session":"10.77.1.2","class":3}"#);
    let active = Active { session: [10, 77, 1, 2].into(), guard: Some(Class(3)), quarantined: false };
    same(&active);
    let reply = Reply::Results { results: vec![None, Some(Fault::from(&Error::Full { limit: 7 }))] };
    let text = r#"{"reply":"results","results":[null,{"fault":"full","limit":7,"message":"the packet filter's set is full (7 elements)"}]}"#;
    assert_eq!(serde_json::to_string(&reply).expect("written"), text);
    // What a hook may leave out.
    for (text, reply) in [
        (r#"{"reply":"welcome","version":2}"#, Reply::Welcome { version: 2, product: String::new() }),
        (r#"{"reply":"done"}"#, Reply::Done { fault: None }),
        (r#"{"reply":"health"}"#, Reply::Health(HealthReply::default())),
    ] {
        assert_eq!(serde_json::from_str::<Reply>(text).expect("read"), reply);
    }
}

#[test]
fn errors_keep_their_kind() {
    let session: IpAddr = [10, 77, 1, 2].into();
    let errors = [
        Error::Full { limit: 3 },
        Error::SessionFull { session },
        Error::Quarantined { session },
        Error::Family { session, destination: "2001:db8::1".parse().expect("address") },
        Error::TooMany(300),
        Error::Unhealthy("the table is gone".into()),
        Error::Config("nonsense".into()),
        Error::Kernel { doing: "pin", source: std::io::Error::from_raw_os_error(libc::EPERM), words: String::new() },
    ];
    for error in errors {
        let text = serde_json::to_string(&Fault::from(&error)).expect("written");
        let back = Error::from(serde_json::from_str::<Fault>(&text).expect("read"));
        assert_eq!(std::mem::discriminant(&back), std::mem::discriminant(&error), "{text}");
        if let Error::Kernel { source, .. } = &back {
            assert_eq!(source.raw_os_error(), Some(libc::EPERM));
        }
    }
    // An owner that has ended over there is a failure here, and an alarming one.
    assert!(matches!(Error::from(Fault::from(&Error::Stopped)), Error::Io { .. }));
}

#[test]
fn nonsense_is_refused_before_any_packet_filter_sees_it() {
    let v4: IpAddr = [10, 77, 1, 2].into();
    let v6: IpAddr = "2001:db8::1".parse().expect("address");
    let kept = |destination| Kept { destination, ports: vec![Ports::Any], volume: None };
    let renew = |keep| Command::Renew { session: v4, class: Class(0), keep };
    assert!(check(&Command::Guard { session: v4, class: Class(31) }).is_ok());
    assert!(check(&Command::Guard { session: v4, class: Class(32) }).is_err());
    assert!(check(&renew(vec![kept(v4)])).is_ok() && check(&renew(vec![kept(v6)])).is_err());
    assert!(check(&renew(vec![kept(v4); KEPT_MAX + 1])).is_err());
    let range = |first, last| Range { id: 0, classes: 1, first, last, ports: Ports::Any };
    assert!(check_range(&range(v4, v4)).is_ok());
    assert!(check_range(&range(v4, v6)).is_err() && check_range(&range(v4, [10, 77, 1, 1].into())).is_err());
    let held = Held {
        session: v4,
        guard: Some(Class(1)),
        monitored: false,
        quarantined: true,
        leases: vec![HeldLease { to: v4, open: Opening::Any, left_ms: 1 }],
        volumes: Vec::new(),
    };
    assert!(check_held(&held).is_ok());
    assert!(check_held(&Held { monitored: true, ..held.clone() }).is_err());
    assert!(check_held(&Held { volumes: vec![HeldVolume { to: v6, limit: None, used: 0 }], ..held }).is_err());
}

#[test]
fn a_look_is_cut_into_parts_and_is_whole_again() {
    let flow = |n: u32| (IpAddr::from([10, 77, 1, 2]), IpAddr::from(n.to_be_bytes()));
    let volumes: Vec<Used> =
        (0..10).map(|n| Used { session: flow(0).0, destination: flow(n).1, octets: n.into(), limit: None }).collect();
    let look = Observed { flows: (0..20_000).map(flow).collect(), volumes: volumes.clone(), ranges: vec![3, 4] };
    let parts = parts(look.clone());
    assert_eq!(parts.len(), 3);
    assert!(parts.iter().rev().skip(1).all(|part| part.more) && !parts[2].more);
    let mut again = Observed::default();
    for part in parts {
        assert!(part.flows.len() <= TOLD_MAX);
        again.flows.extend(part.flows);
        again.volumes.extend(part.volumes.into_iter().map(Used::from));
        again.ranges.extend(part.ranges);
    }
    assert_eq!(again, look);
    assert_eq!(super::parts(Observed::default()).len(), 1, "an empty look says that there are no flows");
}
