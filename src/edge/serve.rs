//! The HTTP server: what is known now and what was, for programs and as pages for people; manual scaling; and (by [`Ingest`])
//! samples in.
//!
//! Answers come from the [`View`], never from a stage; what must block runs on a blocking thread. Errors
//! are [`Problem`]s that say what is wrong, where, and the way out. There is no authentication: the
//! server binds to loopback unless the configuration says otherwise.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::edge::actuate::FreezeFiles;
use crate::edge::api::{Problem, Status};
use crate::edge::ingest::{self, Ingest};
use crate::edge::log_watch;
use crate::edge::metrics::{self, exposition::Format};
use crate::edge::view::View;
use crate::log::Log;
use crate::model::{TargetId, Timestamp};
use crate::runtime::clock::Clock;
use crate::runtime::retention::{Pressure, Room};

mod by_hand;
#[cfg(test)]
mod documented;
mod door;
mod fleet;
mod history;
mod host;
mod live;
mod page;
mod targets;
#[cfg(test)]
pub(crate) mod tests;

pub use by_hand::Unrecorded;
pub use door::Door;
pub use host::Hosts;
pub use live::Live;

/// How long after its start a process is not ready while it reads what was there.
const READ_WITHIN: Duration = Duration::from_secs(60);

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
    /// Where samples enter, where they do.
    pub ingest: Option<Ingest>,
    /// Whether the log is followed, so that there is something to show.
    pub shows: bool,
    /// Who sets counts by hand.
    pub manual: Arc<dyn ManualScale>,
    /// The emergency stop.
    pub freeze: FreezeFiles,
    /// When the process started.
    pub started_at: Timestamp,
    /// Who follows its pages.
    pub live: Live,
    /// What was done by hand, and is not on the log yet.
    pub unrecorded: Arc<Unrecorded>,
}

impl Services {
    /// Why it is not ready.
    pub(crate) fn unready(&self) -> Option<Problem> {
        let unready = |title: &str, mend: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, mend);
        // What cannot be read, as nobody leads it, is no reason to take the samples away for long.
        let is_starting = self.clock.now().since(self.started_at) < READ_WITHIN;
        if self.shows && is_starting && !self.view.is_caught_up() {
            return Some(unready("the log is still being read", "wait").retry_after(1));
        }
        // What a part of the stages cannot write is no reason to take the samples away from this process.
        if let Some(trouble) = self.log.trouble().filter(|trouble| trouble.of.is_none()) {
            return Some(unready(&log_watch::words(&trouble), &trouble.mend).at(trouble.place).retry_after(1));
        }
        let usage = self.room.usage().filter(|usage| usage.pressure == Pressure::Full)?;
        let title = format!("the log is full, and no samples are taken: {}", usage.held_by.join("; "));
        Some(unready(&title, "see `loadline status`; raise retention.size where the disk has room").at("log.db").retry_after(5))
    }
}

/// All routes.
pub fn router(services: Services) -> Router {
    let lacks = Lacks { view: !services.shows, ingest: services.ingest.is_none() };
    let samples = services.ingest.as_ref().map_or_else(Router::new, Ingest::router);
    let shown = if services.shows { shown() } else { Router::new() };
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .merge(shown)
        .with_state(services)
        .merge(samples)
        .fallback(move |uri: Uri| async move { no_such_path(&uri, lacks) })
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(within_deadline))
        .layer(from_fn(guarded))
}

/// What shows the targets, and sets their counts.
fn shown() -> Router<Services> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/targets", get(fleet::list))
        .route("/api/v1/targets/{namespace}/{kind}/{name}", get(targets::detail))
        .route("/api/v1/targets/{namespace}/{kind}/{name}/series", get(history::series))
        .route("/api/v1/targets/{namespace}/{kind}/{name}/signals", get(history::signals))
        .route("/api/v1/targets/{namespace}/{kind}/{name}/decisions", get(targets::decisions))
        .route("/api/v1/targets/{namespace}/{kind}/{name}/scale", post(by_hand::scale))
        .merge(page::routes())
}

/// What a browser may do with an answer: load and run what comes from here, and nothing else; never show it inside another page.
const GUARDS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Sets [`GUARDS`], and refuses what another site's page makes a browser send: a person who only looks at it would scale fleets.
async fn guarded(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if !reads && is_of_another_site(&request) {
        Problem::new(StatusCode::FORBIDDEN, "a page of another site sent this", "send it without a browser").into_response()
    } else if !is_text(request.uri().path()) {
        Problem::new(StatusCode::BAD_REQUEST, "the path is not UTF-8", "escape each byte of a name's UTF-8, as in %C3%A9").into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a page of another site made a browser send this. Browsers say so themselves, but not of what goes over plain HTTP to another machine's name:
/// there the page's own site, which no page can change, is held against the name that was called.
fn is_of_another_site(request: &Request) -> bool {
    let value = |name: HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
    match value(HeaderName::from_static("sec-fetch-site")) {
        Some(b"same-origin" | b"none") => return false,
        Some(_) => return true,
        None => {}
    }
    let Some(origin) = value(header::ORIGIN) else { return false };
    let called = value(header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str().as_bytes()));
    let site = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    // `null` is a page that hides where it comes from.
    site.zip(called).is_none_or(|(site, called)| !site.eq_ignore_ascii_case(called))
}

/// Whether a path is UTF-8 once its escapes are read.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    std::str::from_utf8(&bytes).is_ok()
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
/// 5 s to finish. Requests for other names than `hosts` has are refused.
///
/// # Errors
/// Where the port fails.
pub async fn serve(listener: TcpListener, router: Router, hosts: Hosts, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let router = router.layer(from_fn_with_state(hosts, host::known));
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stopping.send(());
    };
    let listener = listener.tap_io(|connection| drop_if_unread(connection));
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
            tracing::warn!(event = "requests-cut", seconds = DRAIN_DEADLINE.as_secs(), "requests were still under way when the server stopped");
            Ok(())
        }
    }
}

/// A peer that takes nothing for 30 s is gone, however long its connection stands: what waits for it would be held for good.
fn drop_if_unread(connection: &tokio::net::TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(connection, 30_000) {
        tracing::debug!(event = "connection", %error, "a connection has no time-out for unread answers");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = connection;
}

async fn within_deadline(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let brings_samples = request.uri().path() == ingest::PATH;
    if let Ok(response) = tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        return response;
    }
    let (title, mend) = match (reads, brings_samples) {
        (true, _) => ("the request took longer than 10 s", "try again"),
        (false, true) => ("the request took longer than 10 s; its samples may have been stored", ingest::REPEAT),
        (false, false) => ("the request took longer than 10 s; it may have taken effect", "look at `loadline status`, then try again"),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, mend).retry_after(1).into_response()
}

/// Which roles a process has not that answer requests.
#[derive(Clone, Copy)]
struct Lacks {
    view: bool,
    ingest: bool,
}

fn no_such_path(uri: &Uri, lacks: Lacks) -> Problem {
    let takes_samples = uri.path() == "/api/v1/metrics";
    let (title, mend) = if lacks.ingest && takes_samples {
        ("this process takes no samples: it has not the role ingest", "send them to one that has it, or add it to `roles`")
    } else if lacks.view && !takes_samples {
        ("this process shows no targets: it has not the role view", "ask one that has it, or add it to `roles`; here are /metrics, /readyz and /healthz")
    } else {
        ("there is nothing here", "see /, /metrics, /api/v1/status, /api/v1/targets, POST /api/v1/metrics")
    };
    Problem::new(StatusCode::NOT_FOUND, title, mend).at(uri.path().to_owned())
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this path"), "POST is for /api/v1/metrics and …/scale, GET for everything else")
        .at(uri.path().to_owned())
}

async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(services): State<Services>) -> Response {
    services.unready().map_or_else(|| "ready\n".into_response(), IntoResponse::into_response)
}

async fn status(State(services): State<Services>) -> axum::Json<Status> {
    axum::Json(fleet::look(&services))
}

async fn scrape(State(services): State<Services>, headers: HeaderMap) -> Result<Response, Problem> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let format = Format::accepted(&accepted);
    // With 1,000 targets it takes milliseconds: not on the executor.
    let page = tokio::task::spawn_blocking(move || metrics::page(&services, &fleet::look(&services), format))
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while gathering metrics", "report it"))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], page).into_response())
}
