//! Samples over HTTP: `POST /api/v1/metrics`.
//!
//! A request is answered only when its samples are durable, so what was answered with 200 survives any
//! crash. A bad line is reported with its number and reason and costs no other line. One thread appends
//! ([`appender`]): requests that wait at the same time share one commit, and with it one fsync.
//!
//! Beyond the queue and the memory for [bodies](body) nothing is read, beyond the [`rate`] that is set and in a log that is full
//! nothing is taken: 429 with `Retry-After`, for the whole request. A request may be numbered by its producer: then repeating it is
//! harmless, and aggregate drops what it has taken before. What aggregate would refuse (a value that is not finite, a
//! time far ahead) is refused here, where its producer can still be told; so is a time of more than a day ago, which is
//! seconds that were meant as milliseconds, or worth nothing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::{Semaphore, oneshot};

use self::unused::Unused;
use crate::edge::api::{Ingested, LineRejected, Problem};
use crate::edge::view::View;
use crate::log::{Log, LogError, MAX_RECORD_BYTES, RawAppend, Trouble};
use crate::model::document::shorten;
use crate::model::{Sample, Timestamp};
use crate::runtime::clock::Clock;
use crate::runtime::events::{ACCEPTED_SAMPLES, RequestRefused, SampleRefused};
use crate::runtime::retention::Room;
use crate::stages::aggregate::refusal;
use crate::wire::samples::{self, Found, too_old};

mod appender;
mod body;
mod parse;
mod rate;
#[cfg(test)]
mod tests;
mod unused;

pub use crate::wire::samples::Format;
pub use appender::Appender;
pub use parse::Numbering;

/// Where samples are sent.
pub(crate) const PATH: &str = "/api/v1/metrics";

/// The most bytes of one request: a hundred instances' metrics of a minute, many times over, and small
/// enough that reading it takes well under a second.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The most errors that one answer lists; the rest is counted.
const MAX_ERRORS: usize = 100;

/// The headers of a request whose repetition is to be told from a new one.
const PRODUCER: &str = "loadline-producer";
const SEQUENCE: &str = "loadline-sequence";

/// How long a body may take, and how long it may wait for its memory and then for its turn to be parsed: meanwhile it holds what others wait for.
const BODY_DEADLINE: Duration = Duration::from_secs(2);

/// How long a commit may take before the producer is told to send again. A hundred times the slowest
/// commit in a hundred (10 ms), and below the server's own limit of a request.
const COMMIT_DEADLINE: Duration = Duration::from_secs(8);

/// When the log is full, how long until it is worth to ask again: it is looked at once a second whether something may go.
const FULL_RETRY_SECONDS: u64 = 5;

/// What is taken at most.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Requests under way at once.
    pub queue: usize,
    /// Samples a second; `None`: as many as come.
    pub samples_per_second: Option<NonZeroU32>,
    /// The room in the log.
    pub room: Arc<Room>,
}

/// Where samples enter.
#[derive(Clone)]
pub struct Ingest {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    /// What the policies ask for.
    view: Arc<View>,
    /// One permit for each request that is being read, parsed or appended.
    places: Semaphore,
    /// The memory for what is read and parsed.
    budget: body::Budget,
    /// One permit for each request that is being parsed: as many as there are cores. More at once would be no faster, and take more memory.
    parsers: Arc<Semaphore>,
    rate: Option<rate::Rate>,
    room: Arc<Room>,
    appender: appender::Queue,
}

impl Ingest {
    /// Starts the appending thread.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(log: Arc<dyn Log>, clock: Arc<dyn Clock>, view: Arc<View>, bounds: Bounds) -> std::io::Result<(Ingest, Appender)> {
        let queue = bounds.queue.max(1);
        let (sender, appender) = appender::start(Arc::clone(&log), queue)?;
        let rate = bounds.samples_per_second.map(rate::Rate::new);
        let parsers = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        let inner = Inner { log, clock, view, places: Semaphore::new(queue), budget: body::Budget::new(), parsers, rate, room: bounds.room, appender: sender };
        Ok((Ingest { inner: Arc::new(inner) }, appender))
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new().route(PATH, post(metrics)).with_state(self.clone())
    }
}

/// The format that a `content-type` names.
///
/// # Errors
/// [`Problem`] where it is none that is read here.
pub fn format_of(named: &str) -> Result<Format, Problem> {
    Format::of_type(named).ok_or_else(|| {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("samples of type {:?} cannot be read", shorten(named)),
            "send JSON lines as application/x-ndjson, an Avro container file as application/avro, or OTLP as application/x-protobuf",
        )
        .at("header Content-Type")
    })
}

/// Whether a body is compressed with gzip.
///
/// # Errors
/// [`Problem`] where it is packed in another way.
fn is_packed(headers: &HeaderMap) -> Result<bool, Problem> {
    let named = headers.get(header::CONTENT_ENCODING).map_or("identity", |named| named.to_str().unwrap_or("?")).trim().to_ascii_lowercase();
    match named.as_str() {
        "identity" | "" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("a body that is packed as {:?} cannot be read", shorten(&named)),
            "send it with gzip, or not compressed",
        )
        .at("header Content-Encoding")),
    }
}

async fn metrics(State(ingest): State<Ingest>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    match take(&ingest.inner, &parts, &mut body).await {
        Ok(ingested) => {
            ACCEPTED_SAMPLES.add("", ingested.accepted);
            axum::Json(ingested).into_response()
        }
        Err(problem) => {
            match problem.status {
                // Told where it was refused.
                429 => {}
                500.. => RequestRefused::Unavailable.emit(&problem.title),
                _ => RequestRefused::Unusable.emit(&problem.title),
            }
            // One that was too slow is not waited for again.
            if problem.status != StatusCode::REQUEST_TIMEOUT.as_u16() {
                body::drain(&parts.headers, body).await;
            }
            problem.into_response()
        }
    }
}

async fn take(inner: &Arc<Inner>, parts: &Parts, body: &mut Body) -> Result<Ingested, Problem> {
    let named = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let format = format_of(named)?;
    let is_packed = is_packed(&parts.headers)?;
    let numbering = numbering(&parts.headers)?;
    let announced = body::announced(body).map_err(unread)?;
    // Place and memory are taken before the body is read.
    let Ok(_place) = inner.places.try_acquire() else { return Err(busy()) };
    // What a file of Avro, or the points of one resource, grow to, their size does not say.
    let announced = if format == Format::JsonLines && !is_packed { announced } else { MAX_BODY_BYTES };
    let Some(share) = inner.budget.share(announced, BODY_DEADLINE).await else { return Err(crowded()) };
    let read = tokio::time::timeout(BODY_DEADLINE, body::read(body)).await;
    let read = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come within 2 s", "send it in one go, or in several requests"))?;
    let bytes = read.map_err(unread)?;
    let received = inner.clock.now();
    let (log, view) = (Arc::clone(&inner.log), Arc::clone(&inner.view));
    let Ok(turn) = tokio::time::timeout(BODY_DEADLINE, Arc::clone(&inner.parsers).acquire_owned()).await else { return Err(crowded()) };
    // Reading 4 MiB of JSON takes tens of milliseconds: not on the executor. Turn and memory are in use until then, whether the client waits or not.
    let reading = move || {
        let (_turn, _share) = (turn, share);
        let bytes = if is_packed { body::unpacked(&bytes).map_err(unread)? } else { bytes };
        parsed(format, &bytes, received, numbering.as_ref(), log.as_ref(), &view)
    };
    let Parsed { ingested, weight, appends } = tokio::task::spawn_blocking(reading)
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while reading the samples", "report it, with the request"))??;
    admit(inner, weight, &appends)?;
    let (done, answer) = oneshot::channel();
    inner.appender.push(appender::Job { appends, done }).map_err(|refused| match refused {
        appender::Refused::Full => behind(),
        appender::Refused::Closed => unavailable("the log is closed", "try again when Loadline runs again"),
    })?;
    match tokio::time::timeout(COMMIT_DEADLINE, answer).await {
        Ok(Ok(Ok(()))) => Ok(ingested),
        Ok(Ok(Err(error))) => Err(not_taken(&error, inner.log.trouble())),
        Ok(Err(_)) => Err(unavailable("the log was closed before it was known whether the samples were stored; they may have been", REPEAT)),
        Err(_) => Err(unavailable("the log did not answer in time; the samples may have been stored", REPEAT)),
    }
}

/// What to do where samples may have been stored or not.
pub(crate) const REPEAT: &str = "send the same request again; with the same Loadline-Producer and Loadline-Sequence that is harmless: it counts once. Without \
                                 them a Delta that is stored twice counts twice";

/// The number that a request has.
///
/// # Errors
/// [`Problem`] where only a part of it is there, or it is none.
fn numbering(headers: &HeaderMap) -> Result<Option<Numbering>, Problem> {
    let wrong = |title: String, place: &str| Err(Problem::new(StatusCode::BAD_REQUEST, title, NUMBERED).at(format!("header {place}")));
    match (headers.get(PRODUCER), headers.get(SEQUENCE)) {
        (None, None) => Ok(None),
        (Some(_), None) => wrong("a producer is named, and no sequence".to_owned(), SEQUENCE),
        (None, Some(_)) => wrong("a sequence is given, and no producer".to_owned(), PRODUCER),
        (Some(producer), Some(sequence)) => {
            let Ok(producer) = std::str::from_utf8(producer.as_bytes()) else { return wrong("the producer's name is not UTF-8".to_owned(), PRODUCER) };
            if let Err(reason) = parse::check_producer(producer) {
                return wrong(reason, PRODUCER);
            }
            let Some(sequence) = sequence.to_str().ok().and_then(|text| text.trim().parse().ok()) else {
                return wrong(format!("{:?} is not a whole number", shorten(&String::from_utf8_lossy(sequence.as_bytes()))), SEQUENCE);
            };
            Ok(Some(Numbering { producer: producer.to_owned(), sequence }))
        }
    }
}

/// How a request is numbered.
const NUMBERED: &str = "name the producer (at most 253 bytes) in Loadline-Producer, and count its requests upwards in Loadline-Sequence";

/// Why a body was not read.
fn unread(unread: body::Unread) -> Problem {
    match unread {
        body::Unread::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the request exceeds 4 MiB", "send the samples in several requests"),
        body::Unread::NotGzip(reason) => {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is no gzip: {reason}"), "compress the whole body, or send it without Content-Encoding")
        }
        body::Unread::Broken(reason) => Problem::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {reason}"), "send it again"),
    }
}

/// Whether the rate and the log's room admit a request; if not, nothing of it is appended.
fn admit(inner: &Inner, weight: usize, appends: &[RawAppend]) -> Result<(), Problem> {
    // The rate first: what it refuses takes no room.
    if let Some(rate) = &inner.rate {
        rate.take(weight).map_err(|exceeded| too_many(&exceeded, weight))?;
    }
    let bytes: usize = appends.iter().map(|append| append.value.len() + append.key.as_ref().map_or(0, String::len)).sum();
    if inner.room.take(bytes as u64) { Ok(()) } else { Err(full(&inner.room)) }
}

fn too_many(exceeded: &rate::Exceeded, weight: usize) -> Problem {
    match exceeded {
        rate::Exceeded::Wait(wait) => refused(
            RequestRefused::Rate,
            "more samples come than ingest.samplesPerSecond takes; none of this request was taken",
            "send it again after the time of Retry-After, send fewer, or raise ingest.samplesPerSecond",
        )
        // Whole seconds are what the header has: rounded up, so that who waits as told is not too early.
        .retry_after(u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)),
        rate::Exceeded::TooMany(most) => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request holds {weight} samples, one for each target that it names, and ingest.samplesPerSecond takes {most} in a second"),
            "send the samples in several requests, or raise ingest.samplesPerSecond",
        ),
    }
}

/// The samples of a body.
#[derive(Debug)]
pub struct Parsed {
    /// What to answer once they are durable.
    pub ingested: Ingested,
    /// How many samples that is for the rate: one for each target that it counts for, as each is work.
    pub weight: usize,
    /// The records to append.
    pub appends: Vec<RawAppend>,
}

/// Reads the body of a request. `numbering` is that of the whole request; `view` knows what the policies ask for.
///
/// # Errors
/// [`Problem`] where no sample of it can be used; why, line by line, is in it.
pub fn parsed(format: Format, body: &[u8], received: Timestamp, numbering: Option<&Numbering>, log: &dyn Log, view: &View) -> Result<Parsed, Problem> {
    let mut ingested = Ingested::default();
    let mut unused = Unused::new(view, received);
    let mut records = parse::Records::new(log);
    let mut weight = 0;
    if let Some(Numbering { producer, sequence }) = numbering.cloned() {
        records.number(Some(producer), Some(sequence));
    }
    let read = samples::each(format, body, received, |found| {
        match found {
            Found::Message { .. } if numbering.is_some() => {}
            Found::Message { producer, sequence, part } => {
                parse::check_message(producer.as_deref(), part)?;
                records.number(producer, sequence);
            }
            Found::Sample { number, read: Err(reason) } => reject(&mut ingested, number, SampleRefused::Unreadable, reason),
            Found::Sample { number, read: Ok(sample) } => {
                if let Some((refused, reason)) = implausible(&sample, received) {
                    reject(&mut ingested, number, refused, reason);
                    records.leave_out(&sample);
                } else {
                    ingested.accepted += 1;
                    unused.note(number, &sample);
                    weight += sample.targets.len();
                    records.push(sample);
                }
            }
        }
        Ok(())
    });
    if let Err(reason) = read {
        ingested = Ingested::default();
        reject(&mut ingested, 1, SampleRefused::Unreadable, reason);
    }
    if ingested.accepted == 0 {
        let title = if ingested.rejected == 0 { "the request holds no sample" } else { "no sample of the request could be used" };
        let mut problem = Problem::new(
            StatusCode::BAD_REQUEST,
            title,
            "send one sample a line, as in {\"target\":\"prod/Deployment/api\",\"metric\":\"cpu\",\"kind\":\"Gauge\",\"value\":0.7}",
        );
        problem.ingested = Some(Box::new(ingested));
        return Err(problem);
    }
    (ingested.unused, ingested.warnings) = unused.finish();
    Ok(Parsed { ingested, weight, appends: records.finish() })
}

/// Counts a sample that is not taken, and tells why.
fn reject(ingested: &mut Ingested, line: u64, refused: SampleRefused, reason: String) {
    refused.emit();
    ingested.rejected += 1;
    if ingested.errors.len() < MAX_ERRORS {
        ingested.errors.push(LineRejected { line, reason });
    }
}

/// Why a sample can never count.
fn implausible(sample: &Sample, received: Timestamp) -> Option<(SampleRefused, String)> {
    let too_old = too_old(sample, received).map(|reason| (SampleRefused::TooOld, reason));
    too_old.or_else(|| refusal(sample, received).map(|reason| (SampleRefused::Implausible, reason)))
}

/// 429, told and counted.
fn refused(why: RequestRefused, title: &str, mend: &str) -> Problem {
    why.emit(title);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, title, mend)
}

fn busy() -> Problem {
    refused(RequestRefused::Busy, "more requests are under way than the queue takes", "send it again after the time of Retry-After, or raise ingest.queue")
        .retry_after(1)
}

fn crowded() -> Problem {
    refused(
        RequestRefused::Busy,
        "the requests that are being read take all that there is of memory and time for them",
        "send it again after the time of Retry-After, or send smaller ones",
    )
    .retry_after(1)
}

fn behind() -> Problem {
    refused(
        RequestRefused::Busy,
        "32 MiB of samples wait for their commit, and no more may",
        "send it again after the time of Retry-After; where that lasts, the disk is too slow for what is sent",
    )
    .retry_after(1)
}

fn full(room: &Room) -> Problem {
    let held_by = room.usage().map(|usage| usage.held_by).unwrap_or_default();
    // Near the limit a large request may find no room where retention makes some within the second.
    if held_by.is_empty() {
        return refused(RequestRefused::Full, "there is no room in the log for so much at once; older records are being removed", "send it again")
            .retry_after(1);
    }
    refused(
        RequestRefused::Full,
        &format!("the log is full, and nothing more of it may go: {}", held_by.join("; ")),
        "see `loadline status`; raise retention.size where the disk has room",
    )
    .at("log.db")
    .retry_after(FULL_RETRY_SECONDS)
}

fn unavailable(title: &str, mend: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, mend).retry_after(1)
}

fn not_taken(error: &LogError, trouble: Option<Trouble>) -> Problem {
    match error {
        // What a topic on Kafka does not take is no fault of the program.
        LogError::TooLarge { bytes, .. } if *bytes <= MAX_RECORD_BYTES => {
            unavailable(&format!("the samples were not taken: {error}"), "send fewer samples in a request until then")
        }
        LogError::TooLarge { .. } => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a fault in the program: {error}"), "report it; meanwhile send fewer samples in a request")
        }
        LogError::Retry { reason } => match trouble {
            Some(Trouble { of: None, reason, mend, place, .. }) => {
                unavailable(&format!("the samples were not taken: {reason}"), &format!("{mend}; then send them again")).at(place)
            }
            _ => unavailable(&format!("the samples were not taken: {reason}"), "send them again"),
        },
        LogError::Unknown { reason } => unavailable(&format!("the samples may have been stored: {reason}"), REPEAT),
        error => unavailable(&format!("the samples were not taken: {error}"), "send them again"),
    }
}
