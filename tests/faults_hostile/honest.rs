//! The session that does no harm: asks at a steady pace, whatever becomes of its answers, and writes down what it sees.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::world::Agent;
use crate::world::dns::{Query, rtype};

/// Between two questions. They leave on time whether or not the last one was answered, so that a stall is met by as many
/// questions as it lasts.
const EVERY: Duration = Duration::from_millis(5);
/// An answer that comes later is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asking until [`Honest::stop`].
pub struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Told>,
}

/// What became of the questions: milliseconds each, in order of size, and how many were not answered well.
#[derive(Debug, Default)]
pub struct Told {
    /// Of a name that is at hand.
    pub cached: Vec<f64>,
    /// Of names that nobody asked before.
    pub fresh: Vec<f64>,
    /// Without an answer in time.
    pub lost: usize,
    /// Answered with another code than NOERROR.
    pub failed: usize,
    /// The names that nobody asked before, and when each left.
    pub left: Vec<(String, Instant)>,
}

impl Told {
    /// All questions.
    pub fn asked(&self) -> usize {
        self.cached.len() + self.fresh.len() + self.lost + self.failed
    }

    /// Share of a hundred that was not answered well.
    pub fn amiss(&self) -> f64 {
        100.0 * (self.lost + self.failed) as f64 / self.asked().max(1) as f64
    }

    /// For a figure.
    pub fn line(&self) -> String {
        format!(
            "cached p50 {:.1} p99 {:.1} ms, fresh p50 {:.1} p99 {:.1} ms, {} asked, {} lost, {} failed",
            quantile(&self.cached, 50),
            quantile(&self.cached, 99),
            quantile(&self.fresh, 50),
            quantile(&self.fresh, 99),
            self.asked(),
            self.lost,
            self.failed,
        )
    }

    /// The worse of both p99, milliseconds.
    pub fn p99(&self) -> f64 {
        quantile(&self.cached, 99).max(quantile(&self.fresh, 99))
    }
}

/// The value below which so many of a hundred lie, of values in order.
pub fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

impl Honest {
    /// Begins; `tag` makes the fresh names this run's own.
    pub fn start(agent: &Agent, tag: &str) -> Self {
        Self::start_from(agent, Ipv4Addr::UNSPECIFIED, tag)
    }

    /// The same from this address of the sandbox.
    pub fn start_from(agent: &Agent, from: Ipv4Addr, tag: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, server, tag) = (stop.clone(), SocketAddr::from((agent.gateway, 53)), tag.to_owned());
        let thread = {
            let (tell, told) = std::sync::mpsc::channel();
            let inside = agent.ns.thread(move || {
                let _ = tell.send(ask_on((from, server), &tag, &stopped));
            });
            std::thread::spawn(move || {
                let _ = inside.join();
                told.recv().expect("the honest session did not panic")
            })
        };
        Self { stop, thread }
    }

    /// Ends it and waits for what is still on its way.
    pub fn stop(self) -> Told {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the honest session did not panic")
    }
}

fn ask_on((from, server): (Ipv4Addr, SocketAddr), tag: &str, stop: &AtomicBool) -> Told {
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket.connect(server).expect("connected");
    let mut told = Told::default();
    // By id: when it left and whether it is fresh.
    let mut waits: Vec<Option<(Instant, bool)>> = vec![None; 1 << 16];
    let (mut next, mut sent) = (Instant::now(), 0usize);
    let mut ends = None;
    let mut buffer = [0; 4096];
    loop {
        let now = Instant::now();
        if ends.is_none() && stop.load(Relaxed) {
            ends = Some(now + PATIENCE);
        }
        if ends.is_some_and(|ends| now >= ends || waits.iter().all(Option::is_none)) {
            break;
        }
        if ends.is_none() && now >= next {
            let fresh = sent % 2 == 1;
            let name = if fresh { format!("{tag}{sent}.fresh.example") } else { "www.site.example".into() };
            let query = Query { id: sent as u16, ..Query::new(&name, rtype::A).edns(1232) };
            let slot = &mut waits[usize::from(query.id)];
            told.lost += usize::from(slot.is_some());
            *slot = Some((now, fresh));
            let _ = socket.send(&query.encode());
            if fresh {
                told.left.push((name, now));
            }
            sent += 1;
            next += EVERY;
        }
        let wait = next.saturating_duration_since(Instant::now()).clamp(Duration::from_micros(200), EVERY);
        socket.set_read_timeout(Some(wait)).expect("a time limit");
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let id = u16::from_be_bytes([buffer[0], buffer[1]]);
        let Some((left, fresh)) = waits[usize::from(id)].take().filter(|_| length >= 12) else { continue };
        let took = left.elapsed();
        if took >= PATIENCE {
            told.lost += 1;
        } else if buffer[3] & 0xf != 0 {
            told.failed += 1;
        } else {
            let times = if fresh { &mut told.fresh } else { &mut told.cached };
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    told.lost += waits.iter().flatten().count();
    for times in [&mut told.cached, &mut told.fresh] {
        times.sort_by(f64::total_cmp);
    }
    told
}
