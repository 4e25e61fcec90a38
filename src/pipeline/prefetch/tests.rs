//! Popular names against an upstream on loopback that counts what it is asked. The look is handed times of its own, far
//! ahead of the clock, so that answers end without waiting.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32};

use super::*;
use crate::daemon::{Start, build};
use crate::listen::{Fast, Service};
use crate::model::{Transport, Wall};

/// Addresses of sessions: `a` and `b` are of one owner, `c` of another, `d` of nobody.
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const D: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));

/// Milliseconds until the upstream's answers are about to end: they live for 300 s.
const ENDING: u64 = 295_000;

struct World {
    pipeline: Arc<Pipeline>,
    asked: Arc<AtomicU32>,
    /// Whether the upstream denies every name.
    denies: Arc<AtomicBool>,
    dir: tempfile::TempDir,
    _events: std::thread::JoinHandle<()>,
}

fn upstream(asked: Arc<AtomicU32>, denies: Arc<AtomicBool>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = 12 + buffer[12..length].iter().position(|b| *b == 0).expect("a root") + 5;
            asked.fetch_add(1, Ordering::SeqCst);
            let mut reply = buffer[..question].to_vec();
            let is_denied = denies.load(Ordering::SeqCst);
            let (rcode, answers) = if is_denied { (3, 0) } else { (0, 1) };
            reply[2..12].copy_from_slice(&[0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0]);
            if is_denied {
                let _ = socket.send_to(&reply, from);
                continue;
            }
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 5]);
            let _ = socket.send_to(&reply, from);
        }
    });
    address
}

impl World {
    async fn new(answer: &str) -> Self {
        let asked = Arc::<AtomicU32>::default();
        let denies = Arc::<AtomicBool>::default();
        let server = upstream(asked.clone(), denies.clone());
        let dir = tempfile::tempdir().expect("directory");
        let session = |id: &str, address: IpAddr, owner: &str| {
            format!("[[session]]\nid = \"{id}\"\naddresses = [\"{address}\"]\ntype = \"batch\"\n{owner}\n")
        };
        let text = format!(
            "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\n[upstream]\nservers = [\"{server}\"]\n\
             [policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\n[answer]\n{answer}\n\
             [[rule]]\nid = \"site\"\naction = \"allow\"\nnames = [\"=www.site.example\"]\nowner = \"o\"\nreason = \"r\"\n\
             review_by = \"2099-01-01\"\n{}{}{}{}",
            session("a", A, "owner = \"team-a\""),
            session("b", B, "owner = \"team-a\""),
            session("c", C, "owner = \"team-c\""),
            session("d", D, ""),
        );
        let file = dir.path().join("staunch.toml");
        std::fs::write(&file, text).expect("configuration");
        let start = Start { config: Some(file), state_dir: Some(dir.path().join("state")), socket: None };
        let built = build::pipeline(build::load(&start).expect("a configuration"), 64).await.expect("a pipeline");
        Self { pipeline: built.pipeline, asked, denies, dir, _events: built.events }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Asks for an address; whether it left.
    async fn ask(&self, from: IpAddr, name: &str) -> bool {
        let before = self.asked();
        let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.extend_from_slice(&[0, 0, 1, 0, 1]);
        let mut out = Vec::new();
        let fast = self.pipeline.fast(&packet, (from, 5353).into(), Transport::Udp, clock::now(), &mut out);
        if let Fast::Deferred(deferred) = fast {
            out = self.pipeline.finish(deferred).await.expect("a reply");
        }
        assert_eq!((out[3] & 0xf, out[7]), (0, 1), "an answer with one address");
        self.asked() > before
    }

    /// Has the question leave for this session, as if its answer had ended.
    async fn pay(&self, from: IpAddr, name: &str) {
        self.pipeline.cache.clear();
        assert!(self.ask(from, name).await);
    }

    /// What is asked so long after now.
    async fn look(&self, later: u64) -> u32 {
        let before = self.asked();
        let now = clock::now();
        self.pipeline
            .prefetch(Now { mono: now.mono + later, wall: Wall::at(now.wall.shown + later) }, Duration::ZERO)
            .await;
        self.asked() - before
    }

    fn spent(&self, from: IpAddr) -> staunch_scoring::Bits {
        let session = self.pipeline.sessions.by_address(from).expect("configured");
        session.inner.lock().score.spent_session()
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future);
}

const NAME: &str = "www.site.example";

#[test]
fn a_name_that_two_owners_paid_for_is_asked_before_its_answer_ends_and_nobody_is_charged() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        world.pay(A, NAME).await;
        world.pay(B, NAME).await;
        assert_eq!((world.pipeline.prefetch.len(), world.look(ENDING).await), (0, 0), "both are of one owner");
        world.pay(C, NAME).await;
        assert_eq!(world.pipeline.prefetch.len(), 1);
        assert_eq!(world.look(100_000).await, 0, "its answer is good for long");
        let spent = [A, B, C, D].map(|from| world.spent(from));
        assert_eq!(world.look(ENDING).await, 1, "asked for nobody");
        assert!(!world.ask(D, NAME).await, "and answered from memory");
        assert_eq!([A, B, C, D].map(|from| world.spent(from)), spent, "nobody is charged");
        assert_eq!(world.look(3_600_000 + 1_000).await, 0, "an hour later it has to be earned anew");
        assert_eq!(world.pipeline.prefetch.len(), 0);
    });
}

#[test]
fn a_denial_does_not_take_the_place_of_an_answer_within_its_time() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        world.pay(A, NAME).await;
        world.pay(C, NAME).await;
        world.denies.store(true, Ordering::SeqCst);
        assert_eq!(world.look(ENDING).await, 1, "asked ahead, and denied");
        assert_eq!(world.pipeline.prefetch.counters.failed.load(Ordering::Relaxed), 1);
        assert!(!world.ask(D, NAME).await, "the answer of before is at hand until it ends");
        assert_eq!(world.look(ENDING + 5_000).await, 0, "and the question rests");
        // Where there is nothing to believe instead, a denial is kept like any answer.
        world.pipeline.cache.clear();
        assert_eq!(world.look(ENDING + 60_000).await, 1);
        assert_eq!(world.pipeline.prefetch.counters.failed.load(Ordering::Relaxed), 1, "a new answer");
        assert_eq!(world.pipeline.cache.len(), 1);
    });
}

#[test]
fn answers_from_memory_make_nothing_popular() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        world.pay(A, NAME).await;
        for from in [C, D, C, D] {
            assert!(!world.ask(from, NAME).await);
        }
        assert_eq!((world.pipeline.prefetch.len(), world.look(ENDING).await), (0, 0));
    });
}

#[test]
fn only_names_that_policy_names_and_still_answers_are_asked() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        for from in [A, C] {
            world.pay(from, "www.unlisted.example").await;
            world.pay(from, NAME).await;
        }
        assert_eq!(world.pipeline.prefetch.len(), 2);
        assert_eq!(world.look(ENDING).await, 1, "the listed one alone");
        let refused = || world.pipeline.prefetch.counters.refused.load(Ordering::Relaxed);
        assert_eq!(refused(), 1);
        // Both sessions that asked it are closed: for whom should it be asked?
        for from in [A, C] {
            let session = world.pipeline.sessions.by_address(from).expect("configured");
            session.inner.lock().ended = true;
        }
        assert_eq!(world.look(ENDING).await, 0);
        assert_eq!(refused(), 2);
    });
}

#[test]
fn off_unless_wanted_and_forgotten_at_a_reload() {
    block_on(async {
        let off = World::new("").await;
        off.pay(A, NAME).await;
        off.pay(C, NAME).await;
        assert_eq!(off.pipeline.prefetch.len(), 0);

        let on = World::new("prefetch = true").await;
        on.pay(A, NAME).await;
        on.pay(C, NAME).await;
        assert_eq!(on.pipeline.prefetch.len(), 1);
        let start = Start {
            config: Some(on.dir.path().join("staunch.toml")),
            state_dir: Some(on.dir.path().join("state")),
            socket: None,
        };
        build::apply(&on.pipeline, build::load(&start).expect("a configuration")).await.expect("in force");
        assert!(on.pipeline.prefetch.is_empty());
    });
}
