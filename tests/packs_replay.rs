//! Packs on recorded queries: what they spare honest sessions, and what they do not open.
//!
//! `STAUNCH_CORPORA=DIR cargo test --release --test packs_replay -- --nocapture` prints what each entry was used for.
//! Prints `SKIPPED:` where the corpora are absent.

#[path = "../scoring/tests/corpus/mod.rs"]
mod corpus;
#[path = "packs_replay/replayed.rs"]
mod replayed;
#[path = "world/skip.rs"]
mod skip;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use corpus::Row;
use replayed::*;
use staunch::config::{self, Environment};
use staunch::event::Verdict;
use staunch::lists::{Grants, HashKey};
use staunch::local;
use staunch::model::{Announcement, Mode, Now, Qtype, Reason, SessionId, SessionType, Wall};
use staunch::policy::{Ask, Policy, UnknownSource};
use staunch::session::{Context, Inner};
use staunch::wire::Query;
use staunch_scoring::{Bits, NameBuf, Outcome, QName, Scorer, Split};

/// A name and type asked again within this time is answered from the cache.
const CACHED_SECONDS: f64 = 60.0;
/// Any day on which the shipped entries are not due.
const WALL: u64 = 1_795_000_000_000;

/// Pairs of session and tenant that stay refused with the packs, and why no pack can name them.
const REFUSED: [(&str, &str); 1] = [
    // A crawler: some 600 unlisted domains spend the 8,192 bits of a batch session. A person's profile has room for it,
    // and a policy for crawlers writes a larger session budget.
    ("awsnorm-c001", "imgsmail.ru"),
];

fn policy(extra: &str) -> Policy {
    written(&format!(
        "version = 1\n{extra}\n[upstream]\nservers = [\"192.0.2.53\"]\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\n"
    ))
}

fn written(text: &str) -> Policy {
    let environment = Environment {
        resolv_conf: None,
        state_home: PathBuf::from("/var/lib"),
        state_dir: None,
        wall: WALL,
        entropy: [7; 24],
        keep_tables: false,
        checking: false,
    };
    let (loaded, _) =
        config::load_text(Path::new("packs.toml"), text, &environment).unwrap_or_else(|errors| panic!("{errors:?}"));
    Policy {
        lists: loaded.lists,
        profiles: loaded.profiles,
        mode: Mode::Enforce,
        canary_percent: 0,
        unknown_source: UnknownSource::Refuse,
        scorer: Scorer::new(),
        decoy: Default::default(),
    }
}

const NO_PACKS: &str = "pack = []";

/// What the policy of such gateways and scanners says beside the packs.
const GATEWAY: &str = include_str!("../deploy/gateway.example.toml");

/// Rows of lists without sessions are asked in runs of so many names.
const RUN: usize = 10;

/// Directory of the corpora: `STAUNCH_CORPORA`, else `../shared/corpora` beside the repository; `None` if absent.
fn corpora() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let dir = std::env::var_os("STAUNCH_CORPORA").map_or_else(beside, PathBuf::from);
    dir.join("benign_seq.jsonl.gz").is_file().then_some(dir)
}

macro_rules! corpora_or_return {
    () => {
        match corpora() {
            Some(dir) => dir,
            None => {
                return skip::skipped("no corpora; set STAUNCH_CORPORA");
            }
        }
    };
}

/// The refused pairs that no list of known ones names.
fn unexpected<'t>(
    refused: &'t [(String, NameBuf, Reason)],
    known: &[(&str, &str)],
) -> Vec<&'t (String, NameBuf, Reason)> {
    refused
        .iter()
        .filter(|(session, tenant, _)| !known.iter().any(|(s, t)| s == session && *t == tenant.to_string()))
        .collect()
}

#[test]
fn benign_sessions_keep_their_names_with_the_packs() {
    let dir = corpora_or_return!();
    let rows = sessions(corpus::rows(&dir, "benign_seq").expect("corpus"), RUN);
    let (bare, packed) = (policy(NO_PACKS), policy(""));
    for (kind, known, closed) in
        [(SessionType::Interactive, &[][..], &[][..]), (SessionType::Batch, &REFUSED[..], &["awsnorm-c001"][..])]
    {
        let without = replay(&bare, kind, &rows);
        without.tell(&format!("{} without packs", kind.as_str()));
        let with = replay(&packed, kind, &rows);
        with.tell(&format!("{} with packs", kind.as_str()));
        with.tell_use();
        assert!(with.sessions > 100 && with.pairs > 4_000, "the corpus is whole");
        assert!(unexpected(&with.refused, known).is_empty(), "{:?}", unexpected(&with.refused, known));
        let extra: Vec<_> = with.quarantined.iter().filter(|id| !closed.contains(&id.as_str())).collect();
        assert!(extra.is_empty(), "{extra:?}");
        assert!(with.refused.len() < without.refused.len(), "the packs spare something");
        // Half of every entry's budget is left, so that a longer day has room.
        for ((entry, domain), bits) in &with.used {
            let most = bits.iter().max().copied().unwrap_or_default();
            let budget = budget_of(&packed, entry);
            assert!(most.plus(most) <= budget, "{entry} {domain}: {most} of {budget}");
        }
    }
}

#[test]
fn odd_sessions_pass_with_the_packs_and_their_policy() {
    let dir = corpora_or_return!();
    let rows = sessions(corpus::rows(&dir, "benign_odd").expect("corpus"), RUN);
    let without = replay(&policy(NO_PACKS), SessionType::Batch, &rows);
    without.tell("odd without packs");
    let with = replay(&policy(""), SessionType::Batch, &rows);
    with.tell("odd with packs");
    with.tell_use();
    assert!(without.quarantined.len() >= 5, "without packs they are closed");
    let left: BTreeSet<_> = with.refused.iter().map(|(session, ..)| session.as_str()).collect();
    assert!(left.iter().all(|session| ["odd-cloud", "odd-mailauth", "odd-ptr"].contains(session)), "{left:?}");
    // Mail authentication asks under 600 domains, which any of their owners reads: a session budget, a threshold that leaves it to the ledger, and no pack. A
    // sweep of addresses is for whoever holds the range, and buckets are named by customers: who uses 50 buckets and the
    // stores of 45 accounts says so.
    let whole = replay(&written(GATEWAY), SessionType::Batch, &rows);
    whole.tell("odd with packs and policy");
    whole.tell_use();
    assert!(whole.refused.is_empty() && whole.quarantined.is_empty(), "{:?}", whole.refused);
}

fn budget_of(policy: &Policy, entry: &str) -> Bits {
    let rules = policy.lists.packs.rules().iter();
    rules.filter(|rule| *rule.id == *entry).map(|rule| rule.budget).next().expect("an entry that was used")
}

/// A sender of base32 below `zone`, until it is refused: names forwarded, bits charged, and the refusal.
fn tunnel(session: &mut Session<'_>, zone: &str, queries: usize) -> (Bits, Option<Answer>) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ (session.queries as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut told = Bits::ZERO;
    for n in 0..queries {
        let chunk: String = (0..40)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(random >> 59) as usize])
            })
            .collect();
        let name = NameBuf::from_text(&format!("{chunk}.{zone}")).expect("name");
        let answer = session.ask(60.0 * n as f64, &name, 1);
        if answer.verdict != Verdict::Answer {
            return (told, Some(answer));
        }
        told = told.plus(answer.charge);
    }
    (told, None)
}

#[test]
fn a_tunnel_below_a_packed_name_ends_at_the_entrys_budget() {
    let policy = policy("");
    for (zone, entry) in [
        ("avqs.mcafee.com", "look-alikes/mcafee-gti"),
        ("zen.spamhaus.org", "look-alikes/spamhaus"),
        ("x.cloudfront.net", "look-alikes/cloudfront"),
        ("cloudfront.net", "look-alikes/cloudfront"), // a new tenant each time: the choice of it is what is told
        ("elb.eu-west-1.amazonaws.com", "look-alikes/aws-elb"),
        ("eu-west-1.eks.amazonaws.com", "look-alikes/aws-endpoints"),
        ("www.google.com", "look-alikes/google"),
    ] {
        let budget = budget_of(&policy, entry);
        let mut session = Session::new(&policy, SessionType::Batch);
        let (told, refusal) = tunnel(&mut session, zone, 2_000);
        let refusal = refusal.unwrap_or_else(|| panic!("{zone}: {told} bits and never refused"));
        assert_eq!(refusal.rule.as_deref(), Some(entry), "{zone}");
        assert_eq!((refusal.verdict, refusal.reason), (Verdict::Sinkhole, Some(Reason::LedgerTenant)), "{zone}");
        assert!(told <= budget, "{zone}: {told} of {budget}");
        assert!(told.plus(Bits::whole(400)) > budget, "{zone}: stopped early, {told} of {budget}");
        // Five bits a character went out; the ledger charged for no less.
        assert!(session.inner.score.spent_below() == told, "{zone}");
        assert_eq!(session.inner.score.spent_session(), Bits::ZERO, "{zone}: nothing of it is unlisted");
    }
}

#[test]
fn fifty_entries_tell_no_more_than_the_session_may() {
    let policy = policy("[profile.batch]\npack_session_bits = 24576");
    let mut session = Session::new(&policy, SessionType::Batch);
    let zones = ["avqs.mcafee.com", "zen.spamhaus.org", "dnsbl.sorbs.net", "cloudfront.net", "www.google.com", "e5.sk"];
    let mut last = None;
    for zone in zones.iter().cycle().take(60) {
        // A few names here, a few there: no entry's own budget is reached.
        let (_, refusal) = tunnel_from(&mut session, zone);
        last = refusal.or(last);
    }
    let refusal = last.expect("refused at last");
    assert_eq!((refusal.verdict, refusal.reason), (Verdict::Sinkhole, Some(Reason::LedgerSession)));
    let told = session.inner.score.spent_below();
    assert!(told <= Bits::whole(24_576) && told > Bits::whole(24_000), "{told}");
    assert!(session.quarantined.is_none(), "other names go on");
    let name = NameBuf::from_text("www.example.org").expect("name");
    assert_eq!(session.ask(1e6, &name, 1).verdict, Verdict::Answer);
}

/// A rule for a whole platform covers tenants that cost nothing to name: the choice of them is what is told.
#[test]
fn a_rule_above_tenants_pays_for_the_choice_among_them() {
    let policy = policy(
        "[[rule]]\nid = \"cloud\"\naction = \"allow\"\nnames = [\"amazonaws.com\"]\nbudget_bits = 2048\nowner = \"o\"\n\
         reason = \"r\"\nreview_by = \"2027-06-01\"",
    );
    let mut session = Session::new(&policy, SessionType::Batch);
    let (told, refusal) = tunnel(&mut session, "s3.amazonaws.com", 200);
    assert_eq!(refusal.expect("refused").reason, Some(Reason::LedgerTenant));
    assert!(told > Bits::whole(1_600) && told <= Bits::whole(2_048), "{told}");
}

/// What somebody asks who looks after clusters, data bases and logs at a cloud: its services, and what they are called there.
#[test]
fn an_operators_work_at_a_cloud_is_done() {
    const DAY: &str = "sts.amazonaws.com sts.eu-west-1.amazonaws.com ec2.eu-west-1.amazonaws.com eks.eu-west-1.amazonaws.com \
        9F0C3B7A51D24E86A7C19B3D5E8F2046.gr7.eu-west-1.eks.amazonaws.com iam.amazonaws.com oidc.eks.eu-west-1.amazonaws.com \
        autoscaling.eu-west-1.amazonaws.com logs.eu-west-1.amazonaws.com \
        orders.c8x2kq7zw1vy.eu-west-1.rds.amazonaws.com orders.cluster-ro-c8x2kq7zw1vy.eu-west-1.rds.amazonaws.com \
        vpc-search-prod-7kq2x9c4m1z8w5v3b6n0p7r2ta.eu-west-1.es.amazonaws.com monitoring.eu-west-1.amazonaws.com \
        4B7D91E0C2A8463F95D1E7B30A6C8F52.sk1.eu-central-1.eks.amazonaws.com ssm.eu-west-1.amazonaws.com \
        sessions.k7x2q9.0001.euw1.cache.amazonaws.com secretsmanager.eu-west-1.amazonaws.com kms.eu-west-1.amazonaws.com \
        dynamodb.eu-west-1.amazonaws.com sqs.eu-west-1.amazonaws.com cloudformation.eu-west-1.amazonaws.com \
        acme-tfstate.s3.eu-west-1.amazonaws.com route53.amazonaws.com bedrock-runtime.us-east-1.amazonaws.com \
        login.microsoftonline.com management.azure.com acme-db.postgres.database.azure.com acmecosmos.documents.azure.com \
        6f1c2e9a-7b3d-4c58-8e01-2d9f5a6b7c80.ods.opinsights.azure.com westeurope.livediagnostics.monitor.azure.com \
        6f1c2e9a-7b3d-4c58-8e01-2d9f5a6b7c80.oms.opinsights.azure.com acme.openai.azure.com \
        6f1c2e9a-7b3d-4c58-8e01-2d9f5a6b7c80.agentsvc.azure-automation.net";
    let policy = policy("");
    for kind in [SessionType::Batch, SessionType::Interactive] {
        let mut session = Session::new(&policy, kind);
        for (n, name) in DAY.split_whitespace().enumerate() {
            let name = NameBuf::from_text(name).expect("name");
            for (qtype, later) in [(1, 0.0), (28, 0.002)] {
                let answer = session.ask(20.0 * n as f64 + later, &name, qtype);
                assert_eq!(
                    answer.verdict,
                    Verdict::Answer,
                    "{kind:?}: {name:?}: {:?} {:?}",
                    answer.reason,
                    answer.rule
                );
            }
        }
    }
}

/// Five more names below `zone`, other ones each time.
fn tunnel_from(session: &mut Session<'_>, zone: &str) -> (Bits, Option<Answer>) {
    let at = session.queries;
    tunnel(session, &format!("a{at}b{}.{zone}", at * 7919), 5)
}

#[test]
fn a_pack_opens_nothing_that_is_closed() {
    let extra = "[[rule]]\nid = \"no\"\naction = \"deny\"\nnames = [\"avts.mcafee.com\"]\nowner = \"o\"\nreason = \"r\"\n\
                 review_by = \"2027-06-01\"\n[[rule]]\nid = \"yes\"\naction = \"allow\"\nnames = [\"*.e5.sk\"]\n\
                 budget_bits = 512\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n\
                 [profile.\"batch.build\"]\nunlisted = \"refuse\"\n[profile.scheduled]\npack_session_bits = 0\n";
    let policy = policy(extra);
    let ask = |kind, phase, name: &str, qtype| {
        let mut session = Session::new(&policy, kind);
        session.context.announcement.phase = phase;
        let answer = session.ask(0.0, &NameBuf::from_text(name).expect("name"), qtype);
        (answer.verdict, answer.reason, answer.rule)
    };
    let entry = |id: &str| Some(id.to_owned());
    let batch = SessionType::Batch;
    // The pack knows it, so it is answered and the entry is named.
    let known = ask(batch, None, "0123456789abcdefghijklmnop.avqs.mcafee.com", 1);
    assert_eq!(known, (Verdict::Answer, None, entry("look-alikes/mcafee-gti")));
    // A deny rule, and the shipped deny list of resolvers inside a packed zone.
    assert_eq!(ask(batch, None, "x.avts.mcafee.com", 1).1, Some(Reason::DenyRule));
    assert_eq!(ask(batch, None, "private.canary.dns.google.com", 1).1, None, "not on the list");
    assert_eq!(ask(batch, None, "mask.icloud.com", 1).1, policy_denies(&policy, "mask.icloud.com"));
    // An allow rule keeps its own budget.
    assert_eq!(ask(batch, None, "x.e5.sk", 1), (Verdict::Answer, None, entry("yes")));
    // Profiles that reach what rules name, and nothing else.
    let build = ask(batch, Some(staunch::model::Phase::Build), "x.avqs.mcafee.com", 1);
    assert_eq!(build, (Verdict::Sinkhole, Some(Reason::NotAllowed), None));
    // A profile without packs scores it as any name, and so does a type that the entry is not for.
    assert_eq!(ask(SessionType::Scheduled, None, "x.avqs.mcafee.com", 1), (Verdict::Answer, None, None));
    assert_eq!(ask(batch, None, "x.zen.spamhaus.org", 15), (Verdict::Answer, None, None));
    assert_eq!(ask(batch, None, "x.zen.spamhaus.org", 16), (Verdict::Answer, None, entry("look-alikes/spamhaus")));
    // Types that nobody answers, and names that no host has.
    assert_eq!(ask(batch, None, "x.zen.spamhaus.org", 10).1, Some(Reason::TypeNotAllowed));
    assert_eq!(ask(batch, None, "a\\200b.avqs.mcafee.com", 1).1, Some(Reason::BadHostName));
}

fn policy_denies(policy: &Policy, name: &str) -> Option<Reason> {
    let name = NameBuf::from_text(name).expect("name");
    policy.lists.deny.look_up(name.as_ref()).map(|_| Reason::DenyList)
}
