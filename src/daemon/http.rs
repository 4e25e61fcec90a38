//! The page for machines: `/metrics`, `/livez`, `/readyz`, on loopback only.
//!
//! Whoever else is on the host can connect to it, so it has limits of its own: [`CONNECTIONS`] at once, of which the oldest gives
//! way (an honest one is over within milliseconds), [`LIFE`] for a request and its answer together, one request a connection,
//! [`HEAD`] octets of it. What falls to a limit is counted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::pipeline::Pipeline;

/// Connections at once. Within what [`crate::fds::RESERVED`] keeps for the service itself.
const CONNECTIONS: usize = 16;
/// From a connection to the end of its answer.
const LIFE: Duration = Duration::from_secs(5);
/// Octets of a request before its body, which is not read.
const HEAD: usize = 16 << 10;
/// Fields of it.
const FIELDS: usize = 64;
/// Pause where a connection cannot be taken (no descriptor is free).
const PAUSE: Duration = Duration::from_millis(100);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Connections that fell to a limit.
pub type Closed = Arc<AtomicU64>;

/// Binds and serves until the runtime ends.
pub async fn serve(address: SocketAddr, pipeline: Arc<Pipeline>, closed: Closed) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(accept(listener, pipeline, closed));
    Ok(())
}

async fn accept(listener: TcpListener, pipeline: Arc<Pipeline>, closed: Closed) {
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "metrics page");
                sleep(PAUSE).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|task| !task.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
            closed.fetch_add(1, Ordering::Relaxed);
        }
        // A task that was told to end holds its descriptor until it has: the next one waits for that. It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (pipeline, closed) = (pipeline.clone(), closed.clone());
        open.push_back(tasks.spawn(async move {
            let _place = place;
            if timeout(LIFE, answer(stream, &pipeline)).await.is_err() {
                closed.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
}

async fn answer(stream: TcpStream, pipeline: &Pipeline) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), pipeline);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "metrics page");
    }
}

fn respond(method: &Method, path: &str, pipeline: &Pipeline) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET and HEAD only\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            pipeline.settle_standing(clock::now(), true);
            page(StatusCode::OK, OPENMETRICS, pipeline.telemetry.metrics.page())
        }
        "/livez" => page(StatusCode::OK, PLAIN, "ok\n".into()),
        "/readyz" => match pipeline.unready(clock::now()) {
            None => page(StatusCode::OK, PLAIN, "ready\n".into()),
            Some(why) => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
        },
        _ => page(StatusCode::NOT_FOUND, PLAIN, "no such page\n".into()),
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
