use super::*;
use crate::enforce::{Chain, Family, Image, Images};
use crate::lockdown::script::{Script, Told, is_ours};
use crate::lockdown::standing::{SEAL, judge, seal};

/// What the kernel would show of a script.
fn built(script: &Script) -> Images {
    let image = |(family, chains): &(Family, Vec<(String, usize)>)| {
        let named =
            |name: &str| if name == "ask_us" || name == "from_ports" { Some("sandbox veth-a".into()) } else { None };
        let chains = chains
            .iter()
            .map(|(name, rules)| (name.clone(), Chain { comment: None, rules: vec![named(name); *rules] }))
            .collect();
        let digest = format!("{}{}", family.as_str(), script.digest);
        (*family, Image { comment: Some(script.comment.clone()), chains, digest })
    };
    script.tables.iter().map(image).collect()
}

fn sealed(mut images: Images) -> Images {
    let seals: Vec<_> = images.keys().map(|family| (*family, seal(&images, *family))).collect();
    for (family, comment) in seals {
        let image = images.get_mut(&family).expect("an image");
        image.chains.insert(SEAL.into(), Chain { comment, rules: Vec::new() });
    }
    images
}

fn bridged() -> Script {
    let mut settings = settings(&["veth-a"]);
    settings.bridges = vec![bridge("br0=p1")];
    script(&planned(settings))
}

#[test]
fn what_was_applied_stands_until_it_is_changed() {
    let script = bridged();
    let good = sealed(built(&script));
    for plan in [None, Some(&script)] {
        let standing = judge("t", &good, plan);
        assert!(standing.stands, "{:?}", standing.problems);
        assert_eq!((standing.mode.as_deref(), standing.digest.as_deref()), (Some("enforce"), Some(&*script.digest)));
        assert!(standing.covers("veth-a") && !standing.covers("veth-b"));
    }
    type Change<'a> = &'a dyn Fn(&mut Images);
    let changes: [(&str, Change<'_>, &str); 8] = [
        ("nothing", &Images::clear, "table inet t is missing"),
        ("no bridge", &|i| drop(i.remove(&Family::Bridge)), "table inet t was changed"),
        ("another digest", &|i| i.get_mut(&Family::Inet).expect("inet").digest.push('x'), "inet t was changed"),
        ("of the bridge", &|i| i.get_mut(&Family::Bridge).expect("bridge").digest.push('x'), "bridge t was changed"),
        ("no seal", &|i| drop(i.get_mut(&Family::Inet).expect("inet").chains.remove(SEAL)), "inet t is not sealed"),
        (
            "a rule in the seal",
            &|i| {
                let seal = i.get_mut(&Family::Inet).and_then(|i| i.chains.get_mut(SEAL)).expect("a seal");
                seal.rules.push(None);
            },
            "inet t was changed",
        ),
        ("no comment", &|i| i.get_mut(&Family::Inet).expect("inet").comment = None, "was not made by a lockdown"),
        (
            "a comment like ours",
            &|i| i.get_mut(&Family::Inet).expect("inet").comment = Some("staunch lockdowns".into()),
            "was not made by a lockdown",
        ),
    ];
    for (what, change, wanted) in changes {
        for plan in [None, Some(&script)] {
            let mut images = good.clone();
            change(&mut images);
            let standing = judge("t", &images, plan);
            assert!(!standing.stands && standing.problems.iter().any(|p| p.contains(wanted)), "{what}: {standing:?}");
        }
    }
}

#[test]
fn a_plan_is_compared_chain_by_chain() {
    let script = bridged();
    let good = sealed(built(&script));
    let mut images = good.clone();
    let inet = images.get_mut(&Family::Inet).expect("inet");
    inet.chains.get_mut("permitted").expect("a chain").rules.pop();
    inet.chains.remove("refuse");
    inet.chains.insert("extra".into(), Chain::default());
    let problems = judge("t", &images, Some(&script)).problems.join("\n");
    for wanted in
        ["permitted has 3 rules, the plan 4", "chain refuse is missing", "chain extra is not part of the plan"]
    {
        assert!(problems.contains(wanted), "{wanted}: {problems}");
    }
    let other = super::script(&planned(settings(&["veth-b"])));
    let problems = judge("t", &good, Some(&other)).problems.join("\n");
    assert!(problems.contains("another plan") && problems.contains("bridge t is not part of the plan"), "{problems}");
}

#[test]
fn comments_of_other_releases_are_ours_and_say_nothing() {
    let comment = script(&planned(settings(&["veth-a"]))).comment;
    assert!(is_ours(Some(&comment)) && Told::read(&comment).is_some());
    assert!(is_ours(Some("staunch lockdown v2 something else")));
    assert_eq!(Told::read("staunch lockdown v2 enforce abc"), None);
    assert_eq!(Told::read("staunch lockdown v1 enforce"), None);
    assert!(!is_ours(None) && !is_ours(Some("mine")));
}

#[test]
fn a_pattern_covers_what_begins_so() {
    let mut images = sealed(built(&bridged()));
    let rules = &mut images.get_mut(&Family::Inet).and_then(|i| i.chains.get_mut("ask_us")).expect("a chain").rules;
    *rules = vec![Some("sandbox tap*".into()), None, Some("something else".into())];
    let standing = judge("t", &images, None);
    assert_eq!(standing.interfaces, ["tap*"]);
    assert!(standing.covers("tap0") && standing.covers("tap*") && !standing.covers("ta"));
}
