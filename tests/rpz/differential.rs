//! Random policy zones and random questions, put to BIND, to unbound, and to us. Where the two agree we must agree with them, in
//! response code, truncation, every record of the answer section, and silence.
//!
//! That nothing but the zones decides here: no rule is written but one for the garden that names are led to, no name stands on a
//! shipped list, thresholds of the score and budgets of the ledger are far beyond what a round can reach, and no siblings are
//! asked. Verdicts are enforced; the packet filter is a dry run, so that the same sandbox can reach the oracles.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::servers::{BIND, PolicyZone, UNBOUND, bind_with, tools_are_there, unbound_with};
use crate::world::dns::{Data, Message, Query, read_name, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::{Chance, World, client};

/// Rounds, each with zones and questions of its own; more with `STAUNCH_RPZ_ROUNDS`.
const ROUNDS: u64 = 8;
/// Questions of a round.
const QUESTIONS: usize = 450;
/// Questions under way at once.
const AT_ONCE: usize = 64;
/// How long an answer is waited for at first.
const PATIENCE: Duration = Duration::from_millis(800);
/// The sandbox's own address and others that questions come from.
const CLIENTS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 77, 1, 2),
    Ipv4Addr::new(10, 77, 1, 20),
    Ipv4Addr::new(10, 77, 1, 21),
    Ipv4Addr::new(10, 77, 1, 40),
];
const LABELS: [&str; 6] = ["a", "b", "c", "www", "mail", "x"];
const ZONES: [&str; 4] = ["one.example", "two.example", "three.net", "four.org"];

/// What a question came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    Silence,
    /// Response code, truncation, and the answer section: owner, type, data.
    Message(u8, bool, Vec<(String, u16, String)>),
}

fn read(message: std::io::Result<Message>) -> Reply {
    let Ok(message) = message else { return Reply::Silence };
    let mut answers: Vec<_> = message
        .answers
        .iter()
        .map(|r| {
            let data = r.target.clone().map(|t| t.to_ascii_lowercase());
            let data = data.unwrap_or_else(|| r.rdata.iter().map(|b| format!("{b:02x}")).collect());
            (r.name.to_ascii_lowercase(), r.rtype, data)
        })
        .collect();
    answers.sort();
    Reply::Message((message.flags & 0xf) as u8, message.flags & 0x0200 != 0, answers)
}

fn pick<'t, T>(chance: &mut Chance, from: &'t [T]) -> &'t T {
    &from[chance.below(from.len() as u64) as usize]
}

fn name(chance: &mut Chance) -> String {
    let labels: Vec<&str> = (0..chance.below(4)).map(|_| *pick(chance, &LABELS)).collect();
    let zone = *pick(chance, &ZONES);
    labels.iter().chain([&zone]).copied().collect::<Vec<_>>().join(".")
}

fn address(chance: &mut Chance) -> IpAddr {
    match chance.below(3) {
        0 => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1 + chance.below(24) as u16]),
        _ => IpAddr::from([198, 51, 100, 1 + chance.below(24) as u8]),
    }
}

/// The internet of a round: names with addresses, texts and aliases. Gives the names that aliases lead to.
fn fill(world: &World, chance: &mut Chance) -> (Vec<String>, Vec<String>) {
    let mut names: Vec<String> = (0..90).map(|_| name(chance)).collect();
    names.sort();
    names.dedup();
    let (mut targets, mut aliases) = (Vec::new(), Vec::new());
    for (i, name) in names.iter().enumerate() {
        // An alias leads to a later name alone, so there are no loops.
        if chance.below(4) == 0 && i + 1 < names.len() {
            let target = pick(chance, &names[i + 1..]).clone();
            world.upstream.add(name, 300, Data::Cname(target.clone()));
            targets.push(target);
            aliases.push(name.clone());
            continue;
        }
        for _ in 0..1 + chance.below(2) {
            world.upstream.add(name, 300, address(chance).into());
        }
        if chance.below(3) == 0 {
            world.upstream.add(name, 300, Data::Txt(format!("text of {name}")));
        }
    }
    for host in ["garden", "*"] {
        world.upstream.add(&format!("{host}.walled.net"), 300, IpAddr::from([203, 0, 113, 200]).into());
        world.upstream.add(&format!("{host}.walled.net"), 300, Data::Txt("walled".into()));
    }
    (names, targets)
}

fn prefix(address: IpAddr, len: u32) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = (v4.to_bits() & (u32::MAX << (32 - len))).to_be_bytes();
            format!("{len}.{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() & (u128::MAX << (128 - len));
            let words = std::net::Ipv6Addr::from_bits(bits).segments();
            match (&words[..3], &words[3..7], words[7]) {
                ([a, b, c], [0, 0, 0, 0], 0) => format!("{len}.zz.{c:x}.{b:x}.{a:x}"),
                ([a, b, c], [0, 0, 0, 0], last) => format!("{len}.{last:x}.zz.{c:x}.{b:x}.{a:x}"),
                _ => unreachable!("addresses of one network"),
            }
        }
    }
}

/// One zone. `targets`: names that aliases lead to, for which unbound 1.17 does not survive TCP-Only.
fn zone(chance: &mut Chance, number: usize, names: &[String], targets: &[String]) -> PolicyZone {
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..4 + chance.below(26) {
        let owner = match chance.below(10) {
            0..=3 => pick(chance, names).clone(),
            4 => name(chance),
            5 | 6 => format!("*.{}", pick(chance, names)),
            7 => {
                let name = pick(chance, names);
                format!("*.{}", name.split_once('.').map_or(name.as_str(), |(_, parent)| parent))
            }
            8 => {
                let address = address(chance);
                let len = if address.is_ipv4() { [24, 29, 30, 31, 32] } else { [48, 125, 126, 127, 128] };
                format!("{}.rpz-ip", prefix(address, *pick(chance, &len)))
            }
            _ => {
                let address = IpAddr::from(*pick(chance, &CLIENTS[1..]));
                format!("{}.rpz-client-ip", prefix(address, *pick(chance, &[31, 32])))
            }
        };
        let is_address = owner.ends_with("rpz-ip") || owner.ends_with("client-ip");
        let covers =
            |target: &String| *target == owner || owner.strip_prefix('*').is_some_and(|below| target.ends_with(below));
        let unsafe_tcp = targets.iter().any(covers) || owner.ends_with("rpz-ip");
        let records = match chance.below(9) {
            0 | 1 => vec!["CNAME .".to_owned()],
            2 => vec!["CNAME *.".into()],
            3 => vec!["CNAME rpz-passthru.".into()],
            4 => vec!["CNAME rpz-drop.".into()],
            5 if !unsafe_tcp => vec!["CNAME rpz-tcp-only.".into()],
            6 if !is_address && chance.below(2) == 0 => vec!["CNAME *.walled.net.".into()],
            6 if !is_address => vec!["CNAME garden.walled.net.".into()],
            7 => vec!["CNAME .".into()],
            _ => {
                let mut records = vec![format!("A 203.0.113.{}", 100 + chance.below(50))];
                if chance.below(3) == 0 {
                    records.push(format!("A 203.0.113.{}", 150 + chance.below(50)));
                }
                if chance.below(3) == 0 {
                    records.push(format!("AAAA 2001:db8:1::{:x}", 100 + chance.below(50)));
                }
                if chance.below(3) == 0 {
                    records.push("TXT \"local\"".into());
                }
                records
            }
        };
        rules.entry(owner).or_insert(records);
    }
    let name = format!("z{number}.policy.test");
    let mut text =
        format!("$ORIGIN {name}.\n$TTL 60\n@ IN SOA localhost. admin.test. 1 3600 600 86400 60\n@ IN NS localhost.\n");
    for (owner, records) in &rules {
        for record in records {
            text += &format!("{owner} IN {record}\n");
        }
    }
    let policy = match chance.below(12) {
        0 => "nxdomain",
        1 => "nodata",
        2 => "disabled",
        3 => "passthru",
        _ => "given",
    };
    PolicyZone { name, text, policy }
}

fn config(world: &World, zones: &[PolicyZone]) -> Config {
    let mut tables = String::from(
        "[profile.interactive]\nqtypes = [\"A\", \"AAAA\", \"TXT\", \"CNAME\"]\n[profile.interactive.budgets]\n\
         tenant_soft = 1000000\ntenant = 1000000\nicann = 1000000\nsession = 1000000\ngroup = 1000000\necho = 1000000\n\
         [profile.interactive.params]\nwatch = 11.9\nsinkhole = 12.0\n[decoy]\nenabled = false\n",
    );
    for zone in zones {
        tables += &format!(
            "[[rpz]]\nname = {:?}\nfile = {:?}\npolicy = {:?}\nmax_ttl_seconds = 3600\n",
            zone.name,
            zone.write(world),
            zone.policy
        );
    }
    let addresses: Vec<String> = CLIENTS.iter().map(|a| format!("\"{a}\"")).collect();
    Config {
        backend: "dry-run",
        sessions: format!(
            "[[session]]\nid = \"agent-1\"\naddresses = [{}, \"fd77:1::2\"]\n\
             type = \"interactive\"\nowner = \"team-a\"\n",
            addresses.join(", ")
        ),
        ..Config::enforce()
    }
    .tables(&tables)
    // Where names are led is asked for like any name, and no zone is asked again: a rule takes it out of the score.
    .rule("walled", "allow", "\"walled.net\"", "")
}

struct Question {
    from: Ipv4Addr,
    name: String,
    qtype: u16,
    tcp: bool,
}

fn questions(chance: &mut Chance, names: &[String]) -> Vec<Question> {
    let one = |chance: &mut Chance| {
        let name = match chance.below(6) {
            0..=2 => pick(chance, names).clone(),
            3 => format!("{}.{}", pick(chance, &LABELS), pick(chance, names)),
            _ => name(chance),
        };
        // Over TCP from the sandbox's own address alone, since the helper does not bind.
        let tcp = chance.below(8) == 0;
        let from = if tcp || chance.below(2) == 0 { CLIENTS[0] } else { *pick(chance, &CLIENTS) };
        let qtype = *pick(chance, &[rtype::A, rtype::A, rtype::A, rtype::AAAA, rtype::TXT, rtype::CNAME]);
        Question { from, name, qtype, tcp }
    };
    (0..QUESTIONS).map(|_| one(chance)).collect()
}

/// The replies of one server to some of the questions, in their order.
fn ask(world: &World, server: Ipv4Addr, questions: &[Question], some: &[usize], patience: Duration) -> Vec<Reply> {
    let server = SocketAddr::from((server, 53));
    let packets: Vec<_> = some
        .iter()
        .map(|i| {
            let q = &questions[*i];
            let query = Query { id: *i as u16 + 1, ..Query::new(&q.name, q.qtype) };
            (q.from, q.tcp, query.encode())
        })
        .collect();
    world.agents[0].ns.run(async move {
        let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let tasks: Vec<_> = packets
            .into_iter()
            .map(|(from, tcp, packet)| {
                let room = room.clone();
                tokio::spawn(async move {
                    let _turn = room.acquire().await;
                    read(match tcp {
                        true => client::tcp(server, &packet, patience).await,
                        false => client::udp(Some(from.into()), server, &packet, patience).await,
                    })
                })
            })
            .collect();
        let mut replies = Vec::new();
        for task in tasks {
            replies.push(task.await.expect("asked"));
        }
        replies
    })
}

/// The replies of all three servers. What is silent somewhere and not everywhere is asked again, few at a time and with more
/// patience, so that a busy machine is not taken for silence.
fn ask_all(world: &World, questions: &[Question]) -> [Vec<Reply>; 3] {
    let servers = [BIND, UNBOUND, world.agents[0].gateway];
    let all: Vec<usize> = (0..questions.len()).collect();
    let mut replies = std::thread::scope(|scope| {
        let asked = servers.map(|server| {
            let all = &all;
            scope.spawn(move || ask(world, server, questions, all, PATIENCE))
        });
        asked.map(|asked| asked.join().expect("asked"))
    });
    let silent = |replies: &[Vec<Reply>; 3], i: usize| replies.iter().filter(|r| r[i] == Reply::Silence).count();
    let doubtful: Vec<usize> = all.into_iter().filter(|i| matches!(silent(&replies, *i), 1 | 2)).collect();
    for (server, replies) in servers.iter().zip(&mut replies) {
        let again: Vec<usize> = doubtful.iter().copied().filter(|i| replies[*i] == Reply::Silence).collect();
        for (i, reply) in again.iter().zip(ask(world, *server, questions, &again, 3 * PATIENCE)) {
            replies[*i] = reply;
        }
    }
    replies
}

#[test]
fn where_bind_and_unbound_agree_we_agree() {
    if !tools_are_there() {
        return;
    }
    let (mut compared, mut agreed, mut excluded) = (0, 0, BTreeMap::<&str, u32>::new());
    let mut kinds = BTreeMap::<&str, u32>::new();
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    let rounds = std::env::var("STAUNCH_RPZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        let Some(world) = World::create(1) else { return };
        let mut chance = Chance(0x7270_7a00 + round);
        for extra in &CLIENTS[1..] {
            world.agents[0].ns.ip(&[&format!("addr add {extra}/24 dev eth0")]);
        }
        let (names, targets) = fill(&world, &mut chance);
        let count = 1 + chance.below(3) as usize;
        let zones: Vec<_> = (0..count).map(|i| zone(&mut chance, i, &names, &targets)).collect();
        let questions = questions(&mut chance, &names);
        let bind = bind_with(&world, &zones);
        let mut unbound = unbound_with(&world, &zones);
        let staunch = Staunch::start(&world, &config(&world, &zones));
        let [of_bind, of_unbound, ours] = ask_all(&world, &questions);
        for (who, of) in [("BIND", &of_bind), ("unbound", &of_unbound), ("staunch", &ours)] {
            let silent = of.iter().filter(|reply| **reply == Reply::Silence).count();
            assert!(
                silent < QUESTIONS / 2,
                "{who} hardly answers in round {round}: {silent}\n{}\n{}",
                bind.log(),
                unbound.log()
            );
        }
        assert!(unbound.runs(), "unbound did not survive round {round}: {}", unbound.log());
        for (question, ((bind, unbound), ours)) in questions.iter().zip(of_bind.iter().zip(&of_unbound).zip(&ours)) {
            if bind != unbound {
                let why = match (bind, unbound) {
                    (Reply::Silence, _) | (_, Reply::Silence) => "one of the two is silent",
                    (Reply::Message(a, ..), Reply::Message(b, ..)) if a != b => "their response codes differ",
                    (Reply::Message(_, a, _), Reply::Message(_, b, _)) if a != b => "their truncation differs",
                    _ => "their records differ",
                };
                *excluded.entry(why).or_default() += 1;
                continue;
            }
            if matches!(bind, Reply::Message(2, ..)) {
                *excluded.entry("both fail").or_default() += 1;
                continue;
            }
            let kind = match bind {
                Reply::Silence => "silence",
                Reply::Message(_, true, _) => "truncated",
                Reply::Message(3, ..) => "nxdomain",
                Reply::Message(_, _, answers) if answers.is_empty() => "nodata",
                Reply::Message(..) => "records",
            };
            *kinds.entry(kind).or_default() += 1;
            compared += 1;
            if ours == bind {
                agreed += 1;
            } else {
                let Question { from, name, qtype, tcp } = question;
                wrong.push(format!("round {round}: {name} {qtype} from {from} tcp {tcp}: they {bind:?}, we {ours:?}"));
                if !told.contains(&round) {
                    told.push(round);
                    eprintln!("=== {}", wrong[wrong.len() - 1]);
                    for zone in &zones {
                        eprintln!("--- {} {}\n{}", zone.name, zone.policy, zone.text);
                    }
                    let events = staunch.events();
                    let event = events.iter().find(|e| e["qname"] == name.as_str());
                    eprintln!("{}", event.map_or("no event".into(), ToString::to_string));
                }
            }
        }
        drop((bind, unbound, staunch));
    }
    let left_out: u32 = excluded.values().sum();
    println!("compared {compared}: agree {agreed}, disagree {}; by kind {kinds:?}", wrong.len());
    println!("left out {left_out}, where the oracles do not agree with each other: {excluded:?}");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > left_out * 3 && compared as usize > QUESTIONS * rounds as usize / 2, "too few were compared");
    for kind in ["silence", "truncated", "nxdomain", "nodata", "records"] {
        assert!(kinds.get(kind).is_some_and(|n| *n >= 5), "too few of kind {kind}: {kinds:?}");
    }
    // That the reader of names follows compression is what targets are compared by.
    assert_eq!(read_name(&[1, b'a', 0xc0, 4, 1, b'b', 0], 0).map(|(name, _)| name), Some("a.b".into()));
}
