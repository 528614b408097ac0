//! Samples over HTTP: `POST /api/v1/metrics`.
//!
//! A request is answered only when its samples are durable, so what was answered with 200 survives any
//! crash. A bad line is reported with its number and reason and costs no other line. One thread appends
//! ([`appender`]): requests that wait at the same time share one commit, and with it one fsync.
//!
//! Beyond the queue nothing is read: 429 with `Retry-After`. What aggregate would refuse (a value that is not finite, a
//! time far ahead) is refused here, where its producer can still be told; so is a time of more than a day ago, which is
//! seconds that were meant as milliseconds, or worth nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::{Semaphore, oneshot};

use crate::edge::api::{Ingested, LineRejected, Problem};
use crate::log::{Log, LogError, RawAppend, Trouble};
use crate::model::document::shorten;
use crate::model::{Sample, Timestamp};
use crate::runtime::clock::Clock;
use crate::stages::aggregate::refusal;

mod appender;
mod parse;
#[cfg(test)]
mod tests;

pub use appender::Appender;

/// The most bytes of one request: a hundred instances' metrics of a minute, many times over, and small
/// enough that reading it takes well under a second.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The most errors that one answer lists; the rest is counted.
const MAX_ERRORS: usize = 100;

/// The oldest sample that is taken: no window is longer.
const OLDEST: Duration = Duration::from_secs(86_400);

/// How long a body may take: while it is read, it holds a place that others wait for.
const BODY_DEADLINE: Duration = Duration::from_secs(2);

/// How long a commit may take before the producer is told to send again. A hundred times the slowest
/// commit in a hundred (10 ms), and below the server's own limit of a request.
const COMMIT_DEADLINE: Duration = Duration::from_secs(8);

/// Where samples enter.
#[derive(Clone)]
pub struct Ingest {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    /// One permit for each request that is being read, parsed or appended.
    places: Semaphore,
    appender: appender::Queue,
}

impl Ingest {
    /// Starts the appending thread. At most `queue` requests are under way at once.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(log: Arc<dyn Log>, clock: Arc<dyn Clock>, queue: usize) -> std::io::Result<(Ingest, Appender)> {
        let queue = queue.max(1);
        let (sender, appender) = appender::start(Arc::clone(&log), queue)?;
        let inner = Inner { log, clock, places: Semaphore::new(queue), appender: sender };
        Ok((Ingest { inner: Arc::new(inner) }, appender))
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new().route("/api/v1/metrics", post(metrics)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(self.clone())
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One sample a line.
    JsonLines,
    /// An Avro object container file.
    Avro,
}

impl Format {
    /// The format that a `content-type` names.
    ///
    /// # Errors
    /// [`Problem`] where it is none that is read here.
    pub fn named(named: &str) -> Result<Format, Problem> {
        let media = named.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match media.as_str() {
            "application/x-ndjson" | "application/jsonl" | "application/json" => Ok(Format::JsonLines),
            "application/avro" | "avro/binary" => Ok(Format::Avro),
            _ => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("samples of type {:?} cannot be read", shorten(named)),
                "send JSON lines as application/x-ndjson, or an Avro container file as application/avro",
            )
            .at("header Content-Type")),
        }
    }
}

async fn metrics(State(ingest): State<Ingest>, request: Request) -> Response {
    match take(&ingest.inner, request).await {
        Ok(ingested) => axum::Json(ingested).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn take(inner: &Arc<Inner>, request: Request) -> Result<Ingested, Problem> {
    let named = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let format = Format::named(named)?;
    // The place is taken before the body is read, so that memory is bounded by queue × body.
    let Ok(_place) = inner.places.try_acquire() else { return Err(busy()) };
    let read = tokio::time::timeout(BODY_DEADLINE, Bytes::from_request(request, &())).await;
    let read = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come within 2 s", "send it in one go, or in several requests"))?;
    let body = read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the request exceeds 4 MiB", "send the samples in several requests"),
        _ => Problem::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {}", rejection.body_text()), "send it again"),
    })?;
    let received = inner.clock.now();
    let log = Arc::clone(&inner.log);
    // Reading 4 MiB of JSON takes tens of milliseconds: not on the executor.
    let (ingested, appends) = tokio::task::spawn_blocking(move || parsed(format, &body, received, log.as_ref()))
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while reading the samples", "report it, with the request"))??;
    let (done, answer) = oneshot::channel();
    inner.appender.push(appender::Job { appends, done }).map_err(|refused| match refused {
        appender::Refused::Full => busy(),
        appender::Refused::Closed => unavailable("the log is closed", "try again when Loadline runs again"),
    })?;
    match tokio::time::timeout(COMMIT_DEADLINE, answer).await {
        Ok(Ok(Ok(()))) => Ok(ingested),
        Ok(Ok(Err(error))) => Err(not_taken(&error, inner.log.trouble())),
        Ok(Err(_)) => Err(unavailable("the log was closed before the samples were durable", "send them again when Loadline runs again")),
        Err(_) => Err(unavailable(
            "the log did not answer in time; it is not known whether the samples are durable",
            "send them again: a repeated sample does little harm",
        )),
    }
}

/// The body's samples as records to append, and what to answer once they are durable.
///
/// # Errors
/// [`Problem`] where no sample of it can be used; why, line by line, is in it.
pub fn parsed(format: Format, body: &[u8], received: Timestamp, log: &dyn Log) -> Result<(Ingested, Vec<RawAppend>), Problem> {
    let mut ingested = Ingested::default();
    let samples = match format {
        Format::JsonLines => parse::json_lines(body, received),
        Format::Avro => parse::avro(body),
    };
    let samples: Vec<_> = samples
        .map(|(line, sample)| (line, sample.and_then(|sample| plausible(sample, received))))
        .filter_map(|(line, sample)| match sample {
            Ok(sample) => {
                ingested.accepted += 1;
                Some(sample)
            }
            Err(reason) => {
                ingested.rejected += 1;
                if ingested.errors.len() < MAX_ERRORS {
                    ingested.errors.push(LineRejected { line, reason });
                }
                None
            }
        })
        .collect();
    if samples.is_empty() {
        let title = if ingested.rejected == 0 { "the request holds no sample" } else { "no sample of the request could be used" };
        let mut problem = Problem::new(
            StatusCode::BAD_REQUEST,
            title,
            "send one sample a line, as in {\"target\":\"prod/Deployment/api\",\"metric\":\"cpu\",\"kind\":\"Gauge\",\"value\":0.7}",
        );
        problem.ingested = Some(Box::new(ingested));
        return Err(problem);
    }
    Ok((ingested, parse::records(samples, log)))
}

/// The sample, unless it can never count.
fn plausible(sample: Sample, received: Timestamp) -> Result<Sample, String> {
    if received.since(sample.time) > OLDEST {
        let at = sample.time;
        return Err(format!("time {at} is more than a day ago; check the producer's clock, and that times are Unix milliseconds"));
    }
    match refusal(&sample, received) {
        Some(reason) => Err(reason),
        None => Ok(sample),
    }
}

fn busy() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "more requests are under way than the queue takes",
        "send it again after the time of Retry-After, or raise ingest.queue",
    )
    .retry_after(1)
}

fn unavailable(title: &str, mend: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, mend).retry_after(1)
}

fn not_taken(error: &LogError, trouble: Option<Trouble>) -> Problem {
    match error {
        LogError::TooLarge { .. } => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a fault in the program: {error}"), "report it; meanwhile send fewer samples in a request")
        }
        LogError::Retry { reason } => match trouble {
            Some(Trouble { reason, mend, place, .. }) => {
                unavailable(&format!("the samples were not taken: {reason}"), &format!("{mend}; then send them again")).at(place)
            }
            None => unavailable(&format!("the samples were not taken: {reason}"), "send them again"),
        },
        error => unavailable(&format!("the samples were not taken: {error}"), "send them again"),
    }
}
