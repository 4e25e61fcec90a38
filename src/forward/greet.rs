//! Finds out how upstreams treat datagrams, on our own clock: whether they keep letter case, whether they have cookies.
//!
//! Each upstream that is asked by datagrams is tried at the start, every [`EVERY`], and where one answered a question
//! otherwise than its trials had shown or came back from being down. What is asked is one fixed name, so that nothing of a
//! session is in it; a session's question teaches nothing, or an agent could turn off what protects the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::exchange::{Trial, Try};
use super::upstream::Way;
use super::{Inner, Server};

/// Time between two rounds. An upstream that was set up anew is met otherwise by its next doubt. Chosen without a source.
const EVERY: Duration = Duration::from_secs(3600);
/// The same while something is not known yet.
const SOON: Duration = Duration::from_secs(30);
/// Least time between rounds, whatever is doubted: what forgers can make us send.
const LEAST: Duration = Duration::from_secs(5);
/// Trials of one kind. Two must agree before an upstream is met with less.
const TURNS: u32 = 3;

/// Tries upstreams for ever.
pub(super) async fn keep(inner: &Arc<Inner>) {
    loop {
        let mut round = JoinSet::new();
        for index in 0..inner.servers.len() {
            let inner = inner.clone();
            round.spawn(async move { greet(&inner, &inner.servers[index]).await });
        }
        let all_known = round.join_all().await.into_iter().all(|known| known);
        sleep(LEAST).await;
        let wait = if all_known { EVERY } else { SOON };
        let _ = timeout(wait, inner.doubts.notified()).await;
    }
}

/// Tries one. `false` if it said nothing.
pub(super) async fn greet(inner: &Arc<Inner>, server: &Server) -> bool {
    if !matches!(server.upstream.way, Way::Udp { .. }) {
        return true;
    }
    let trial = async |with_cookie| {
        let one = Try {
            server,
            payload: inner.config.udp_payload,
            time: inner.config.try_timeout,
            end: Instant::now() + inner.config.try_timeout,
            ports: &inner.ports,
            sockets: &inner.sockets,
            counters: &inner.counters,
            doubts: &inner.doubts,
        };
        one.trial(with_cookie).await
    };
    let (mut with, mut without, mut silent) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS {
        match trial(true).await {
            Some(found) => {
                with.push(found);
                if found == (Trial { keeps_case: true, has_cookies: true }) || with.len() >= 2 {
                    break;
                }
            }
            None => {
                silent += 1;
                // Is it the cookie that it does not like?
                without.extend(trial(false).await);
                if without.len() >= 2 && silent >= 2 {
                    break;
                }
            }
        }
    }
    let all: Vec<Trial> = with.iter().chain(&without).copied().collect();
    if all.is_empty() {
        return false;
    }
    let manner = &server.manner;
    if server.mixes_case() {
        let keeps = all.iter().any(|found| found.keeps_case);
        // One datagram that came back otherwise may be a forger's.
        if (keeps || all.len() >= 2) && manner.learn_case(keeps) {
            tell_case(server, keeps);
        }
    }
    let has = with.iter().any(|found| found.has_cookies);
    if has || all.len() >= 2 {
        let is_news = manner.learn_cookies(has);
        if is_news && has {
            tracing::info!(upstream = %server.upstream, "upstream has DNS cookies; its datagrams must hold ours");
        }
    }
    true
}

fn tell_case(server: &Server, keeps: bool) {
    if keeps {
        tracing::info!(upstream = %server.upstream, "upstream keeps letter case; questions leave in a case drawn for each");
    } else {
        tracing::warn!(
            upstream = %server.upstream,
            "upstream does not keep letter case; it is asked in lower case, which protects less against forged answers"
        );
    }
}
