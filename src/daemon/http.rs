//! The page for machines: `/metrics`, `/livez`, `/readyz`, on loopback only.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::clock;
use crate::pipeline::Pipeline;

/// Binds and serves until the task is dropped.
pub async fn serve(address: SocketAddr, pipeline: Arc<Pipeline>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(pipeline);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics page");
        }
    });
    Ok(())
}

async fn metrics(State(pipeline): State<Arc<Pipeline>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    pipeline.settle_standing(crate::clock::now(), true);
    ([(header::CONTENT_TYPE, kind)], pipeline.telemetry.metrics.page())
}

async fn ready(State(pipeline): State<Arc<Pipeline>>) -> impl IntoResponse {
    match pipeline.unready(clock::now()) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
