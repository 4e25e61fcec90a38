//! What resolver and enforcer say to each other: frames, documents, and the enforcer's answers to whatever is asked.

use staunch::enforce::remote::{Incoming, Mailbox, Session, encode, settings_digest};
use staunch::enforce::wire::{Held, Reply, Request, VERSION};
use staunch::enforce::{BackendKind, Config, DryRun};

/// Few, so that what is full is met.
const CAPACITY: u32 = 64;

/// Takes an octet that says how the stream is cut, and the stream.
pub fn run(octets: &[u8]) {
    let Some((cut, stream)) = octets.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    let replies: Vec<Reply> = documents(stream, cut);
    for reply in &replies {
        assert_eq!(documents::<Reply>(&encode(reply).expect("it was a document"), cut), std::slice::from_ref(reply));
    }
    let requests: Vec<Request> = documents(stream, cut);
    assert_eq!(requests, documents::<Request>(stream, stream.len().max(1)), "cut otherwise");
    let mut side = Side::new();
    for request in requests {
        assert_eq!(
            documents::<Request>(&encode(&request).expect("it was a document"), cut),
            std::slice::from_ref(&request)
        );
        let orders = if let Request::Apply { commands } = &request { Some(commands.len()) } else { None };
        let reply = side.answer(request);
        if let (Some(orders), Reply::Results { results }) = (orders, &reply) {
            assert_eq!(results.len(), orders, "one for each order");
        }
        let told: Vec<Reply> = documents(&encode(&reply).expect("it fits"), 4096);
        assert_eq!(told, [reply]);
    }
    // What is held is told so that another one can hold the same.
    let held = side.held();
    let leases: usize = held.iter().map(|held| held.leases.len()).sum();
    assert!(leases <= 2 * CAPACITY as usize, "{leases} leases");
    let mut other = Side::new();
    let reply = other.answer(Request::Hold { held: held.clone(), more: false });
    assert_eq!(reply, Reply::Done { fault: None });
    assert_eq!(timeless(other.held()), timeless(held));
}

/// The documents of a stream until one that is none.
fn documents<T: serde::de::DeserializeOwned>(stream: &[u8], cut: usize) -> Vec<T> {
    let (mut incoming, mut all) = (Incoming::default(), Vec::new());
    for piece in stream.chunks(cut) {
        incoming.push(piece);
        loop {
            match incoming.take::<T>() {
                Ok(Some(document)) => all.push(document),
                Ok(None) => break,
                Err(_) => return all,
            }
        }
    }
    all
}

/// Lifetimes go by while we look, and what one session has is in no order.
fn timeless(mut held: Vec<Held>) -> Vec<Held> {
    for held in &mut held {
        held.leases.iter_mut().for_each(|lease| lease.left_ms = 0);
        held.leases.sort_by_key(|lease| (lease.to, lease.open));
        held.volumes.sort_by_key(|volume| volume.to);
    }
    held
}

/// An enforcer whose packet filter is a table in memory.
struct Side {
    session: Session,
    backend: DryRun,
}

impl Side {
    fn new() -> Self {
        let config = Config {
            backend: BackendKind::DryRun,
            table: "staunch".into(),
            interfaces: Vec::new(),
            guard_unknown: false,
            deadline: std::time::Duration::from_secs(1),
            queue: 16,
            capacity: CAPACITY,
            own_table: true,
            journal: None,
            outside: Default::default(),
        };
        let mut side = Self { session: Session::new(&config, Mailbox::default()), backend: DryRun::new(CAPACITY) };
        assert!(matches!(side.answer(Request::Health), Reply::Refused { .. }), "`hello` comes first");
        let hello = Request::Hello {
            version: VERSION,
            product: "harness".into(),
            table: config.table.clone(),
            settings: settings_digest(&config),
        };
        assert!(matches!(side.answer(hello), Reply::Welcome { .. }));
        side
    }

    fn answer(&mut self, request: Request) -> Reply {
        self.session.answer(request, &mut self.backend, &mut |backend| backend.healthy()).reply
    }

    fn held(&mut self) -> Vec<Held> {
        let (mut all, mut after) = (Vec::<Held>::new(), None);
        loop {
            let Reply::Held { held, more } = self.answer(Request::Snapshot { after }) else { panic!("a snapshot") };
            assert!(!more || !held.is_empty(), "more of nothing");
            all.extend(held);
            after = all.last().map(|held| held.session);
            if !more {
                assert!(all.is_sorted_by(|a, b| a.session < b.session), "ascending");
                return all;
            }
        }
    }
}
