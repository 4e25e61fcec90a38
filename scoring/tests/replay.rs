//! Replays the open corpora through the scorer: real tunnels are stopped early, benign sessions are let through.
//!
//! `cargo test --release -p staunch-scoring --test replay -- --nocapture` prints the tables of `scoring/README.md`.
//! Prints `SKIPPED:` where the corpora are absent.

mod corpus;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use corpus::{Row, owner};
use staunch_scoring::model::Model;
use staunch_scoring::model::fit::Counts;
use staunch_scoring::{
    Assessment, Band, Budgets, Facts, LedgerScope, Listing, NameBuf, NameRef, Outcome, Params, Scorer, SessionState,
    Split, TICK_MS,
};

/// A name and type asked again within this time is answered from the cache: the forwarding floor.
const CACHED_SECONDS: f64 = 60.0;
/// Types a profile allows by default.
const TYPES: u8 = 17;

/// Tenants whose names look like a tunnel and are none, refused in these replays because no rule lists them:
/// domain-controller look-ups of a network's own domain, a file-hash reputation service, numbered hosts of one service.
const LOOK_ALIKES: [&str; 3] = ["ccbcmd.edu", "mcafee.com", "dropbox.com"];
/// Sessions quarantined in these replays. The first two for a look-alike (two marked tenants; a spent tenant ledger);
/// the others browse 60 to 500 unlisted domains and spend the session ledger of 8,192 bits.
const QUARANTINED: [&str; 9] = [
    "maccdc12-c003",
    "maccdc12-c034",
    "awsnorm-c001",
    "dco-c003",
    "wrccdc18-c007",
    "wrccdc18-c016",
    "wrccdc18-c018",
    "wrccdc18-c024",
    "wrccdc18-c034",
];

/// One session, as the pipeline would run it in enforce mode.
struct Replay {
    scorer: Scorer,
    state: SessionState,
    budgets: Budgets,
    params: Params,
    cached: HashMap<(NameBuf, u16), f64>,
    queries: usize,
    /// Answered from what was at hand, however old.
    held: usize,
    refreshing: BTreeSet<(NameBuf, u16)>,
    ticks: HashMap<NameBuf, u64>,
    forwarded: BTreeSet<NameBuf>,
    payload_characters: usize,
    first_action: Option<usize>,
    quarantine: Option<usize>,
    refused: BTreeMap<NameBuf, (usize, Assessment)>,
}

impl Replay {
    fn new() -> Self {
        Self::over(Model::shipped())
    }

    fn over(model: &'static Model) -> Self {
        Self {
            scorer: Scorer::over(model),
            state: SessionState::new(0x5eed),
            budgets: Budgets::default(),
            params: Params::default(),
            cached: HashMap::new(),
            queries: 0,
            held: 0,
            refreshing: BTreeSet::new(),
            ticks: HashMap::new(),
            forwarded: BTreeSet::new(),
            payload_characters: 0,
            first_action: None,
            quarantine: None,
            refused: BTreeMap::new(),
        }
    }

    fn ask(&mut self, seconds: f64, name: NameRef<'_>, qtype: u16) -> Band {
        self.queries += 1;
        let key = (name.to_owned(), qtype);
        let split = Split::of(name);
        let facts = Facts {
            now: (seconds * 1e3) as u64,
            qname: name,
            split,
            qtype,
            flags: 0,
            qtypes_allowed: TYPES,
            listing: Listing::Unlisted,
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            cached: self.cached.get(&key).is_some_and(|at| seconds - at < CACHED_SECONDS),
            at_hand: self.cached.contains_key(&key),
            budgets: &self.budgets,
            params: &self.params,
        };
        let assessment = self.scorer.assess(&self.state, &facts);
        let worn = assessment.overdraw == Some(LedgerScope::Session) && assessment.band == Band::Sinkhole;
        assert!(
            assessment.overdraw.is_none() || assessment.charge.repeat || assessment.band == Band::Quarantine || worn,
            "a new unlisted name that overdraws closes the session, or is refused where repeats have spent the ledger"
        );
        let band = assessment.band;
        let outcome = match band {
            Band::Answer | Band::Watch if facts.cached => Outcome::Cached,
            Band::Answer | Band::Watch => Outcome::Forwarded,
            Band::Hold => {
                self.held += 1;
                let tick = (seconds * 1e3) as u64 / TICK_MS;
                let entered = assessment.refresh.is_some() && self.refreshing.insert(key.clone());
                // What is asked again at the end of the tick is at hand from then on.
                if assessment.refresh.is_some() {
                    self.ticks.insert(split.tenant(name).to_owned(), tick);
                }
                Outcome::Held { refreshed: true, entered }
            }
            Band::Sinkhole | Band::Quarantine => Outcome::Refused,
        };
        self.scorer.commit(&mut self.state, &facts, &assessment, outcome);
        match outcome {
            Outcome::Forwarded => {
                self.cached.insert(key, seconds);
                if self.forwarded.insert(name.to_owned()) {
                    let payload = name.payload_part(split.tenant(name));
                    self.payload_characters += payload.len().saturating_sub(name_labels(payload));
                }
            }
            Outcome::Cached | Outcome::Held { .. } => {}
            Outcome::Refused => {
                self.first_action.get_or_insert(self.queries);
                self.refused.entry(split.tenant(name).to_owned()).or_insert((self.queries, assessment));
            }
        }
        if band == Band::Quarantine {
            self.quarantine.get_or_insert(self.queries);
        }
        band
    }

    /// Asks row after row until the session is closed.
    fn run<'r>(&mut self, rows: impl IntoIterator<Item = &'r Row>) {
        for row in rows {
            let Some(name) = corpus::scored_name(row) else { continue };
            if self.ask(row.t.unwrap_or(0.0), name.as_ref(), corpus::qtype(&row.qtype)) == Band::Quarantine {
                break;
            }
        }
    }

    fn payload_bytes(&self) -> usize {
        // Five bits a character: what base32 carries.
        (self.payload_characters * 5).div_ceil(8)
    }
}

fn name_labels(payload: &[u8]) -> usize {
    let mut rest = payload;
    let mut labels = 0;
    while let Some((&len, tail)) = rest.split_first() {
        rest = tail.get(usize::from(len)..).unwrap_or(&[]);
        labels += 1;
    }
    labels
}

/// Rows of each session in order of time.
fn sessions(rows: Vec<Row>) -> BTreeMap<(String, String), Vec<Row>> {
    let mut sessions: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let key = (row.tool.clone(), row.session.clone().unwrap_or_default());
        sessions.entry(key).or_default().push(row);
    }
    for rows in sessions.values_mut() {
        rows.sort_by(|a, b| a.t.unwrap_or(0.0).total_cmp(&b.t.unwrap_or(0.0)));
    }
    sessions
}

fn shown(query: Option<usize>) -> String {
    query.map_or("never".into(), |query| query.to_string())
}

macro_rules! corpora_or_return {
    () => {
        match corpus::directory() {
            Some(dir) => dir,
            None => {
                println!("SKIPPED: no corpora; set STAUNCH_CORPORA");
                return;
            }
        }
    };
}

#[test]
fn real_tunnels_are_stopped() {
    let dir = corpora_or_return!();
    println!(
        "| tool | session | query at first action | query at quarantine | names forwarded | payload bytes forwarded | bits charged |"
    );
    println!("|---|---|---|---|---|---|---|");
    let stems = [("tunnel", true), ("mixed_aws_iodine", true), ("lowslow", false)];
    for (stem, held) in stems {
        for ((tool, session), rows) in sessions(corpus::rows(&dir, stem).expect("corpus")) {
            if rows[0].label == "benign" {
                continue;
            }
            let mut replay = Replay::new();
            replay.run(&rows);
            println!(
                "| {tool} | {session} | {} | {} | {} | {} | {} |",
                shown(replay.first_action),
                shown(replay.quarantine),
                replay.forwarded.len(),
                replay.payload_bytes(),
                replay.state.spent_session(),
            );
            let real = ["iodine", "dns2tcp", "ozymandns", "andiodine"].contains(&tool.as_str());
            if held && real {
                assert!(replay.quarantine.is_some(), "{session} is quarantined");
                assert!(replay.forwarded.len() <= 12, "{session}: {} names", replay.forwarded.len());
                assert!(replay.payload_bytes() <= 256, "{session}: {} bytes", replay.payload_bytes());
                assert!(replay.first_action.is_some_and(|query| query <= 6), "{session}: first action");
            }
        }
    }
}

#[test]
fn benign_sessions_are_let_through() {
    let dir = corpora_or_return!();
    println!("with the shipped model, which was fitted on these names among others:");
    let (refused, quarantined, pairs) = benign(&dir, Model::shipped());
    println!("with a model fitted on one half of the benign names, so that about half of these are new to it:");
    let mut counts = Counts::new();
    for name in benign_names(&dir)
        .iter()
        .filter(|name| name.as_ref().as_wire().iter().map(|&o| u32::from(o)).sum::<u32>() % 2 == 0)
    {
        counts.add(payload(name), owner(name));
    }
    let half = Model::from_bytes(&counts.fit().to_bytes()).expect("own table");
    benign(&dir, Box::leak(Box::new(half)));

    for (session, tenant) in &refused {
        let known = LOOK_ALIKES.contains(&tenant.to_string().as_str());
        assert!(known, "{session}: {tenant} is refused and is not a known look-alike");
    }
    assert!(refused.len() * 1_000 <= pairs, "{} of {pairs} pairs", refused.len());
    assert!(quarantined.iter().all(|session| QUARANTINED.contains(&session.as_str())), "{quarantined:?}");
}

/// Replays every benign session; gives the pairs that score or tenant ledger refused, the sessions quarantined and the
/// number of pairs.
fn benign(dir: &Path, model: &'static Model) -> (Vec<(String, NameBuf)>, Vec<String>, usize) {
    let mut pairs = BTreeSet::new();
    let (mut refused, mut session_ledger, mut count) = (Vec::new(), 0, 0);
    let mut quarantined = Vec::new();
    let mut spent = Vec::new();
    let (mut held, mut queries) = (0, 0);
    for ((_, session), rows) in sessions(corpus::rows(dir, "benign_seq").expect("corpus")) {
        count += 1;
        for name in rows.iter().filter_map(corpus::scored_name) {
            pairs.insert((session.clone(), Split::of(name.as_ref()).tenant(name.as_ref()).to_owned()));
        }
        let mut replay = Replay::over(model);
        replay.run(&rows);
        spent.push(replay.state.spent_session());
        held += replay.held;
        queries += replay.queries;
        for (tenant, (query, assessment)) in &replay.refused {
            let by_session = assessment.overdraw == Some(LedgerScope::Session);
            session_ledger += usize::from(by_session);
            if !by_session {
                refused.push((session.clone(), tenant.clone()));
            }
            println!(
                "refused: {session} query {query} {tenant}: {:?}, score {:.2}, agreeing {}, {} names sent, {} bits \
                 spent, overdraw {:?}, readings {:?}",
                assessment.band,
                assessment.score,
                assessment.agreeing,
                assessment.names_sent,
                assessment.before.tenant,
                assessment.overdraw,
                assessment
                    .readings
                    .iter()
                    .filter(|r| r.value.is_some())
                    .map(|r| (r.signal, r.value, r.contribution))
                    .collect::<Vec<_>>(),
            );
        }
        if let Some(query) = replay.quarantine {
            println!("quarantined: {session} at query {query} of {}", rows.len());
            quarantined.push(session);
        }
    }
    spent.sort_unstable();
    let at = |q: f64| spent[(spent.len() as f64 * q) as usize];
    println!("{count} sessions, {} quarantined: {}", quarantined.len(), quarantined.join(" "));
    println!(
        "{} pairs: {} refused by score or tenant ledger, {session_ledger} by a spent session ledger",
        pairs.len(),
        refused.len()
    );
    println!("{held} of {queries} queries held");
    println!("bits charged a session: median {}, 90 % {}, most {}", at(0.5), at(0.9), at(0.999));
    (refused, quarantined, pairs.len())
}

/// Distinct benign names, those the shipped model was fitted on.
fn benign_names(dir: &Path) -> BTreeSet<NameBuf> {
    let mut names = BTreeSet::new();
    for stem in ["benign_list", "benign_seq"] {
        let rows = corpus::rows(dir, stem).expect("corpus");
        names.extend(rows.iter().filter(|row| row.label == "benign").filter_map(corpus::scored_name));
    }
    names
}

fn payload(name: &NameBuf) -> &[u8] {
    name.as_ref().payload_part(owner(name))
}

#[test]
fn the_committed_table_is_what_the_corpora_give() {
    let dir = corpora_or_return!();
    let mut counts = Counts::new();
    benign_names(&dir).iter().for_each(|name| counts.add(payload(name), owner(name)));
    assert!(counts.fit().to_bytes() == include_bytes!("../src/model/benign.bin"), "run the fit example");
}
