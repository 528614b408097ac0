//! The HTTP server: what is known now, manual scaling, and (by [`Ingest`]) samples in.
//!
//! Answers come from the [`View`], never from a stage; what must block runs on a blocking thread. Errors
//! are [`Problem`]s that say what is wrong, where, and the way out. There is no authentication: the
//! server binds to loopback unless the configuration says otherwise.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::edge::actuate::FreezeFiles;
use crate::edge::api::{Problem, Status};
use crate::edge::ingest::Ingest;
use crate::edge::log_watch;
use crate::edge::metrics::{self, exposition::Format};
use crate::edge::view::View;
use crate::log::Log;
use crate::model::{AlertState, TargetId, Timestamp};
use crate::runtime::clock::Clock;
use crate::runtime::retention::{Pressure, Room};

mod targets;
#[cfg(test)]
pub(crate) mod tests;

/// How long a target without a policy is shown after it was last seen: three repetitions of an observation.
const HISTORY_TARGET: Duration = Duration::from_secs(180);

/// How long something that happened once is shown.
const HISTORY_EVENT: Duration = Duration::from_secs(3600);

/// How long a request may take, body and all. Longer than ingest waits for a commit.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How long requests that are under way may go on when the server stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Why a count could not be set by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// Nothing that Loadline knows has this name.
    #[error("there is no target {0}")]
    Unknown(TargetId),
    /// It cannot be done, and trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// It did not work; trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// Sets a target's count as any hand from outside would; Loadline sees it, records it and respects it.
pub trait ManualScale: Send + Sync + 'static {
    /// Sets the count; the count before. May block.
    ///
    /// # Errors
    /// [`ScaleError`].
    fn scale(&self, target: &TargetId, replicas: u32, actor: &str) -> Result<u32, ScaleError>;
}

/// What the server needs.
#[derive(Clone)]
pub struct Services {
    /// What is known now.
    pub view: Arc<View>,
    /// Where older decisions are read.
    pub log: Arc<dyn Log>,
    /// The room that is left in it.
    pub room: Arc<Room>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where samples enter.
    pub ingest: Ingest,
    /// Who sets counts by hand.
    pub manual: Arc<dyn ManualScale>,
    /// The emergency stop.
    pub freeze: FreezeFiles,
    /// When the process started.
    pub started_at: Timestamp,
}

impl Services {
    /// Why it is not ready.
    pub(crate) fn unready(&self) -> Option<Problem> {
        let unready = |title: &str, mend: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, mend);
        if !self.view.is_caught_up() {
            return Some(unready("the log is still being read", "wait").retry_after(1));
        }
        if let Some(trouble) = self.log.trouble() {
            return Some(unready(&log_watch::words(&trouble), &trouble.mend).at(trouble.place).retry_after(1));
        }
        let usage = self.room.usage().filter(|usage| usage.pressure == Pressure::Full)?;
        let title = format!("the log is full, and no samples are taken: {}", usage.held_by.join("; "));
        Some(unready(&title, "see `loadline status`; raise retention.size where the disk has room").at("log.db").retry_after(5))
    }
}

/// What is known now of all targets.
fn look(services: &Services) -> Status {
    let view = &services.view;
    let mut targets = view.statuses();
    let mut marks = BTreeMap::new();
    for target in &mut targets {
        let namespace = target.target.namespace().to_owned();
        let mark: &Option<String> = marks.entry(namespace).or_insert_with_key(|namespace| services.freeze.mark_for(namespace));
        target.frozen.clone_from(mark);
    }
    let at = services.clock.now();
    // What has no policy and is seen by nobody any more is history; so is an event after an hour.
    targets.retain(|t| t.mode.is_some() || !t.alerts.is_empty() || t.seen_at.is_none_or(|seen| at.since(seen) < HISTORY_TARGET));
    let mut alerts = view.general_alerts();
    // What cannot be written cannot be in the log: it is told from here.
    alerts.extend(services.log.trouble().map(|trouble| log_watch::firing(&trouble)));
    for alerts in targets.iter_mut().map(|t| &mut t.alerts).chain([&mut alerts]) {
        alerts.retain(|alert| alert.state != AlertState::Event || at.since(alert.at) < HISTORY_EVENT);
    }
    Status { started_at: services.started_at, at, targets, lag: view.lag(), log: services.room.usage(), alerts }
}

/// All routes.
pub fn router(services: Services) -> Router {
    let ingest = services.ingest.router();
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/api/v1/status", get(status))
        .route("/api/v1/targets/{namespace}/{kind}/{name}", get(targets::detail))
        .route("/api/v1/targets/{namespace}/{kind}/{name}/decisions", get(targets::decisions))
        .route("/api/v1/targets/{namespace}/{kind}/{name}/scale", post(targets::scale))
        .with_state(services)
        .merge(ingest)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(within_deadline))
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error("port {} of {} is in use by another program; choose another with --listen {}:{}, or 0 for any free one", .0.port(), .0.ip(), .0.ip(), .0.port().saturating_add(1))]
    InUse(SocketAddr),
    /// It is not allowed, or the address is not one of this machine.
    #[error("cannot listen on {address}: {source}; choose another address with --listen, as in --listen 127.0.0.1:8080")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Opens the server's port, so that one in use is known before anything else starts.
///
/// # Errors
/// [`ListenError`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::InUse(address),
        _ => ListenError::Refused { address, source },
    })
}

/// Serves until `stop` is done; then no new connection is taken, and those that are under way have
/// 5 s to finish.
///
/// # Errors
/// Where the port fails.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stopping.send(());
    };
    let serving = async move { axum::serve(listener, router).with_graceful_shutdown(stop).await };
    let drained = async move {
        // Where the sender is dropped, serving has ended by itself.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DRAIN_DEADLINE).await;
    };
    tokio::select! {
        result = serving => result,
        () = drained => {
            tracing::warn!(seconds = DRAIN_DEADLINE.as_secs(), "requests were still under way when the server stopped");
            Ok(())
        }
    }
}

async fn within_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the request took longer than 10 s", "try again").retry_after(1).into_response(),
    }
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is nothing here",
        "see /metrics, /api/v1/status, /api/v1/targets/{namespace}/{kind}/{name}, POST /api/v1/metrics",
    )
    .at(uri.path().to_owned())
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this path"), "use GET to read, POST for /metrics and /scale")
        .at(uri.path().to_owned())
}

async fn ready(State(services): State<Services>) -> Response {
    services.unready().map_or_else(|| "ready\n".into_response(), IntoResponse::into_response)
}

async fn status(State(services): State<Services>) -> axum::Json<Status> {
    axum::Json(look(&services))
}

async fn scrape(State(services): State<Services>, headers: HeaderMap) -> Result<Response, Problem> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let format = Format::accepted(&accepted);
    // With 1,000 targets it takes milliseconds: not on the executor.
    let page = tokio::task::spawn_blocking(move || metrics::page(&services, &look(&services), format))
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while gathering metrics", "report it"))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], page).into_response())
}
