//! Replays the open corpora through the scorer: real tunnels are stopped early, benign sessions are let through.
//!
//! `cargo test --release -p staunch-scoring --test replay -- --nocapture` prints the tables of `scoring/README.md`.
//! Prints `SKIPPED:` where the corpora are absent.

mod corpus;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use corpus::Row;
use staunch_scoring::{
    Assessment, Band, Bits, Budgets, Facts, Listing, NameBuf, NameRef, Outcome, Params, Scorer, SessionState, Split,
};

/// A name and type asked again within this time is answered from the cache: the forwarding floor.
const CACHED_SECONDS: f64 = 60.0;
/// Types a profile allows in these replays: A, AAAA, HTTPS, TXT, CNAME, MX.
const TYPES: u8 = 6;

/// One session, as the pipeline would run it in enforce mode.
struct Replay {
    scorer: Scorer,
    state: SessionState,
    budgets: Budgets,
    params: Params,
    cached: HashMap<(NameBuf, u16), f64>,
    queries: usize,
    forwarded: BTreeSet<NameBuf>,
    payload_characters: usize,
    first_action: Option<usize>,
    quarantine: Option<usize>,
    refused: BTreeMap<NameBuf, (usize, Assessment)>,
}

impl Replay {
    fn new() -> Self {
        Self {
            scorer: Scorer::new(),
            state: SessionState::new(0x5eed),
            budgets: Budgets::default(),
            params: Params::default(),
            cached: HashMap::new(),
            queries: 0,
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
            qtypes_allowed: TYPES,
            listing: Listing::Unlisted,
            registered_days: None,
            first_seen_days: None,
            cached: self.cached.get(&key).is_some_and(|at| seconds - at < CACHED_SECONDS),
            budgets: &self.budgets,
            params: &self.params,
        };
        let assessment = self.scorer.assess(&self.state, &facts);
        assert!(
            assessment.overdraw.is_none() || assessment.band == Band::Quarantine,
            "an unlisted name that overdraws closes the session"
        );
        let band = assessment.band;
        let outcome = match band {
            Band::Answer | Band::Watch if facts.cached => Outcome::Cached,
            Band::Answer | Band::Watch => Outcome::Forwarded,
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
            Outcome::Cached => {}
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
    let mut stems = vec![("tunnel", true), ("lowslow", false)];
    stems.push(("mixed_aws_iodine", false));
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
            }
        }
    }
}

#[test]
fn benign_sessions_are_let_through() {
    let dir = corpora_or_return!();
    let mut pairs = BTreeSet::new();
    let (mut refused, mut quarantined, mut count) = (0, 0, 0);
    let mut spent = Vec::new();
    for ((_, session), rows) in sessions(corpus::rows(&dir, "benign_seq").expect("corpus")) {
        count += 1;
        for name in rows.iter().filter_map(corpus::scored_name) {
            pairs.insert((session.clone(), Split::of(name.as_ref()).tenant(name.as_ref()).to_owned()));
        }
        let mut replay = Replay::new();
        replay.run(&rows);
        spent.push(replay.state.spent_session());
        for (tenant, (query, assessment)) in &replay.refused {
            refused += 1;
            println!(
                "refused: {session} query {query} {tenant} {:?} score {:.2} agreeing {} names {} spent {} information {} overdraw {:?} readings {:?}",
                assessment.band,
                assessment.score,
                assessment.agreeing,
                assessment.names_sent,
                assessment.before.tenant,
                assessment.information,
                assessment.overdraw,
                assessment.readings.map(|r| (r.value, r.contribution)),
            );
        }
        if let Some(query) = replay.quarantine {
            quarantined += 1;
            println!("quarantined: {session} at query {query} of {}", rows.len());
        }
    }
    spent.sort_unstable();
    let at = |q: f64| spent[(spent.len() as f64 * q) as usize];
    println!("{count} sessions, {quarantined} quarantined; {} pairs, {refused} refused", pairs.len());
    println!("bits charged a session: median {}, 90 % {}, most {}", at(0.5), at(0.9), at(0.999));
    let _ = Bits::ZERO;
}
