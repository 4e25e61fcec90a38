//! Recorded sessions, run under a policy as the pipeline would run them.

use super::*;

/// One session under a policy, as the pipeline would run it.
pub struct Session<'p> {
    pub policy: &'p Policy,
    pub context: Context,
    pub inner: Inner,
    pub grants: Grants,
    pub cached: HashMap<(NameBuf, u16), f64>,
    pub queries: usize,
    pub quarantined: Option<usize>,
    pub refused: BTreeMap<NameBuf, (Reason, usize)>,
    pub used: BTreeMap<(String, NameBuf), Bits>,
}

/// What became of one query.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    pub reason: Option<Reason>,
    pub rule: Option<String>,
    pub charge: Bits,
}

impl<'p> Session<'p> {
    pub fn new(policy: &'p Policy, kind: SessionType) -> Self {
        let announcement = Announcement {
            id: SessionId::new("s").expect("id"),
            addresses: vec!["10.77.1.2".parse().expect("address")],
            kind,
            phase: None,
            owner: None,
            search: ["build.svc.cluster.local", "svc.cluster.local", "cluster.local", "us-east-2.compute.internal"]
                .map(|name| NameBuf::from_text(name).expect("name"))
                .to_vec(),
        };
        Self {
            policy,
            context: Context::new(announcement, true),
            inner: Inner::new(0x5eed),
            grants: Grants::new(HashKey::from_random([9; 24])),
            cached: HashMap::new(),
            queries: 0,
            quarantined: None,
            refused: BTreeMap::new(),
            used: BTreeMap::new(),
        }
    }

    pub fn ask(&mut self, seconds: f64, name: &NameBuf, qtype: u16) -> Answer {
        self.queries += 1;
        let qname = QName::from_text(&name.to_string()).expect("own text");
        let query = Query {
            id: 0,
            recursion_desired: true,
            checking_disabled: false,
            authentic_data: false,
            qname,
            qtype: Qtype(qtype),
            question: &[],
            edns: None,
            options: Default::default(),
        };
        let key = (name.clone(), qtype);
        let split = Split::of(name.as_ref());
        let ask = Ask {
            query: &query,
            now: Now { mono: (seconds * 1e3) as u64, wall: Wall::at(WALL) },
            split,
            cached: self.cached.get(&key).is_some_and(|at| seconds - at < CACHED_SECONDS),
            at_hand: self.cached.contains_key(&key),
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            grants: &self.grants,
            rpz: None,
            name_hash: self.queries as u64,
        };
        let decision = self.policy.decide(&self.context, &self.inner, &ask);
        let answer = Answer {
            verdict: decision.applied,
            reason: decision.reason,
            rule: decision.rule.as_ref().map(|rule| rule.id.to_string()),
            charge: decision.assessment.charge.name,
        };
        let outcome = match decision.applied {
            Verdict::Answer if ask.cached => Outcome::Cached,
            Verdict::Answer => Outcome::Forwarded,
            Verdict::Hold => Outcome::Held { refreshed: true, entered: false },
            _ => Outcome::Refused,
        };
        self.policy.commit(&mut self.inner, &decision, outcome);
        match outcome {
            Outcome::Forwarded => {
                self.cached.insert(key, seconds);
                if let Some(entry) = &answer.rule {
                    let used = self.used.entry((entry.clone(), split.icann(name.as_ref()).to_owned())).or_default();
                    *used = used.plus(answer.charge);
                }
            }
            Outcome::Cached | Outcome::Held { .. } => {}
            Outcome::Refused => {
                // What a list, a rule, a type or a malformed name refused is no false alarm of score or ledger.
                let judged = matches!(
                    answer.reason,
                    Some(
                        Reason::Score
                            | Reason::LedgerTenant
                            | Reason::LedgerIcann
                            | Reason::LedgerSession
                            | Reason::LedgerGroup
                    )
                );
                if judged {
                    let tenant = split.tenant(name.as_ref()).to_owned();
                    self.refused.entry(tenant).or_insert((answer.reason.expect("judged"), self.queries));
                }
            }
        }
        if answer.verdict == Verdict::Quarantine {
            self.quarantined.get_or_insert(self.queries);
        }
        answer
    }

    /// Asks row after row until the session is closed.
    pub fn run<'r>(&mut self, rows: impl IntoIterator<Item = &'r Row>) {
        for row in rows {
            let Some(name) = corpus::scored_name(row) else { continue };
            let qtype = corpus::qtype(&row.qtype);
            let search = &self.context.announcement.search;
            if Qtype(qtype) == Qtype::ANY || local::special(name.as_ref(), Qtype(qtype), search).is_some() {
                continue;
            }
            self.ask(row.t.unwrap_or(0.0), &name, qtype);
            if self.quarantined.is_some() {
                break;
            }
        }
    }
}

/// A figure for each session of a replay.
#[derive(Default)]
pub struct Totals {
    pub sessions: usize,
    pub pairs: usize,
    pub refused: Vec<(String, NameBuf, Reason)>,
    pub quarantined: Vec<String>,
    pub spent: Vec<(Bits, String)>,
    pub packed: Vec<Bits>,
    /// By entry and domain: what each session that used it told.
    pub used: BTreeMap<(String, NameBuf), Vec<Bits>>,
}

pub fn replay(policy: &Policy, kind: SessionType, sessions: &BTreeMap<String, Vec<Row>>) -> Totals {
    let mut totals = Totals::default();
    let mut pairs = BTreeSet::new();
    for (id, rows) in sessions {
        totals.sessions += 1;
        for name in rows.iter().filter_map(corpus::scored_name) {
            pairs.insert((id, Split::of(name.as_ref()).tenant(name.as_ref()).to_owned()));
        }
        let mut session = Session::new(policy, kind);
        session.run(rows);
        if session.quarantined.is_some() {
            totals.quarantined.push(id.clone());
        }
        totals.refused.extend(session.refused.into_iter().map(|(tenant, (reason, _))| (id.clone(), tenant, reason)));
        totals.spent.push((session.inner.score.spent_session(), id.clone()));
        totals.packed.push(session.inner.score.spent_below());
        for (key, bits) in session.used {
            totals.used.entry(key).or_default().push(bits);
        }
    }
    totals.pairs = pairs.len();
    totals.spent.sort_unstable();
    totals.packed.sort_unstable();
    totals
}

impl Totals {
    pub fn tell(&self, what: &str) {
        let at = |all: &[Bits], q: f64| all.get((all.len() as f64 * q) as usize).copied().unwrap_or_default();
        let spent: Vec<_> = self.spent.iter().map(|(bits, _)| *bits).collect();
        println!(
            "{what}: {} sessions, {} pairs, {} refused, {} quarantined; session ledger 50 % {} 90 % {} 99 % {}; packs \
             50 % {} 99 % {} most {}",
            self.sessions,
            self.pairs,
            self.refused.len(),
            self.quarantined.len(),
            at(&spent, 0.5),
            at(&spent, 0.9),
            at(&spent, 0.99),
            at(&self.packed, 0.5),
            at(&self.packed, 0.99),
            at(&self.packed, 0.9999),
        );
        for (session, tenant, reason) in &self.refused {
            println!("  refused: {session} {tenant}: {reason:?}");
        }
        for session in &self.quarantined {
            println!("  quarantined: {session}");
        }
    }

    pub fn tell_use(&self) {
        for ((entry, domain), bits) in &self.used {
            let mut bits = bits.clone();
            bits.sort_unstable();
            let most = bits.last().copied().unwrap_or_default();
            println!("  used: {entry} {domain}: {} sessions, median {}, most {most}", bits.len(), bits[bits.len() / 2]);
        }
    }
}

/// Rows of each session in order of time; lists without sessions in runs of `run` names each.
pub fn sessions(rows: Vec<Row>, run: usize) -> BTreeMap<String, Vec<Row>> {
    let mut sessions: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for (i, row) in rows.into_iter().enumerate() {
        let id = row.session.clone().unwrap_or_else(|| format!("{}-{}", row.tool, i / run));
        sessions.entry(id).or_default().push(row);
    }
    for rows in sessions.values_mut() {
        rows.sort_by(|a, b| a.t.unwrap_or(0.0).total_cmp(&b.t.unwrap_or(0.0)));
    }
    sessions
}
