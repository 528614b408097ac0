//! The routes of a worker: `/healthz`, and everything else is work.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::Instant;

use super::Work;
use super::gate::{Gate, Phase, Refusal};
use super::report::Buffer;

/// The header of a 503 that says why; a balancer tries elsewhere unless it is `full`.
pub(crate) const REFUSED: &str = "x-refused";

#[derive(Clone)]
struct Worker {
    gate: Arc<Gate>,
    buffer: Arc<Buffer>,
    work: Work,
}

pub(super) fn router(gate: Arc<Gate>, buffer: Arc<Buffer>, work: Work) -> Router {
    Router::new().route("/healthz", get(health)).fallback(serve).with_state(Worker { gate, buffer, work })
}

async fn health(State(worker): State<Worker>) -> (StatusCode, &'static str) {
    match worker.gate.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Serving => (StatusCode::OK, "ok\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn serve(State(worker): State<Worker>) -> Response {
    let arrived = Instant::now();
    match worker.gate.pass().await {
        Ok(pass) => {
            worker.work.serve().await;
            worker.buffer.response_time(arrived.elapsed());
            pass.served();
            "served\n".into_response()
        }
        Err(refusal) => refused(refusal, worker.gate.refused()),
    }
}

fn refused(refusal: Refusal, count: u64) -> Response {
    let word = refusal.word();
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, [(REFUSED, word)], format!("refused: {word} ({count} so far)\n")).into_response();
    if refusal == Refusal::Draining {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}
