//! Pushes samples to Loadline as JSON lines.
//!
//! Samples wait in a bounded buffer until Loadline has answered for them; when it is full the oldest are dropped and counted.
//! A push that Loadline could not take (429, 5xx, no connection) is tried again, after what `Retry-After` says or with back-off;
//! one that it refuses for good is dropped and counted. A sample that is sent twice does no harm worth a protocol.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, Uri, header};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::gate::Gate;
use crate::client::{Answer, Client, ClientError};
use crate::clock;

/// A minute and more of a worker at its capacity (12 requests and 12 gauges a second), at 150 bytes each: 300 kB.
const BUFFERED: usize = 2_000;

/// Lines of one push: about 75 kB.
const PUSHED: usize = 500;

/// Loadline answers when a batch is durable: milliseconds; more than this is a stall.
const DEADLINE: Duration = Duration::from_secs(2);

/// The budget of one push. Together with the waits between (at most [`LONGEST_WAIT`] each) it is given up within half a minute,
/// when its samples have aged out of any window of the demo.
const ATTEMPTS: u32 = 10;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Whose samples they are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The target, as namespace/Kind/name.
    pub target: String,
    /// The instance.
    pub instance: String,
}

/// The upper bounds of response times, in seconds: fine where a policy may look, about the time of service and twice that.
const BOUNDS: [f64; 24] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.26, 0.27, 0.28, 0.29, 0.3, 0.32, 0.34, 0.37, 0.4, 0.45, 0.5, 0.6, 0.7, 0.85, 1.0, 1.5, 2.0, 3.0, 5.0];

#[derive(Serialize)]
struct Sample<'a> {
    target: &'a str,
    metric: &'a str,
    instance: &'a str,
    time: i64,
    kind: &'a str,
    #[serde(flatten)]
    value: Value,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    One { value: f64 },
    Histogram { bounds: &'static [f64], counts: Vec<u64>, count: u64, sum: f64 },
}

/// The response times since the start. They are pushed also when there was none, which says that there was none.
#[derive(Debug, Default)]
struct Times {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

/// Samples that wait for their push.
#[derive(Debug)]
pub struct Buffer {
    identity: Identity,
    waiting: Mutex<Waiting>,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<String>,
    dropped: u64,
}

impl Buffer {
    /// An empty one.
    pub fn new(identity: Identity) -> Self {
        Buffer { identity, waiting: Mutex::default(), times: Mutex::default() }
    }

    /// One request was answered after `elapsed`.
    pub fn response_time(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        times.sum += seconds;
    }

    /// How many samples were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.locked().dropped
    }

    fn add(&self, metric: &str, kind: &str, value: Value) {
        let Identity { target, instance } = &self.identity;
        let sample = Sample { target, metric, instance, time: clock::unix_millis(), kind, value };
        // Strings and finite numbers always have a form in JSON.
        let Ok(mut line) = serde_json::to_string(&sample) else { return };
        line.push('\n');
        let mut waiting = self.locked();
        if waiting.lines.len() == BUFFERED {
            waiting.lines.pop_front();
            waiting.dropped += 1;
        }
        waiting.lines.push_back(line);
    }

    fn gauges(&self, gate: &Gate) {
        self.add("connections", "Gauge", Value::One { value: f64::from(gate.open()) });
        self.add("queue_depth", "Gauge", Value::One { value: f64::from(gate.waiting()) });
        self.add("rps", "Counter", Value::One { value: gate.served() as f64 });
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = Value::Histogram { bounds: &BOUNDS, counts: times.counts.to_vec(), count: times.counts.iter().sum(), sum: times.sum };
        drop(times);
        self.add("response_time", "Histogram", histogram);
    }

    fn take(&self) -> Vec<String> {
        let mut waiting = self.locked();
        let many = waiting.lines.len().min(PUSHED);
        waiting.lines.drain(..many).collect()
    }

    fn drop_lines(&self, many: usize) {
        self.locked().dropped += many as u64;
    }

    /// What a holder that panicked left is whole: no line is ever half there.
    fn locked(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pushes what is in a [`Buffer`].
#[derive(Debug)]
pub struct Reporter {
    client: Client,
    to: Uri,
    every: Duration,
    gate: Arc<Gate>,
    buffer: Arc<Buffer>,
}

/// What came of one attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Done,
    /// Loadline cannot now; after this long, if it said so.
    Later(Option<Duration>, String),
    /// It never will.
    Refused(String),
}

impl Reporter {
    /// Pushes to `to` every `every`.
    pub fn new(to: Uri, every: Duration, gate: Arc<Gate>, buffer: Arc<Buffer>) -> Self {
        Reporter { client: Client::new(), to, every: every.max(Duration::from_millis(10)), gate, buffer }
    }

    /// Samples the gauges and pushes, until it is dropped.
    pub async fn run(&self) -> Infallible {
        let sampling = async {
            let mut ticks = interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                self.buffer.gauges(&self.gate);
            }
        };
        let pushing = async {
            let mut ticks = interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.push_all().await;
            }
        };
        tokio::select! {
            biased;
            never = sampling => never,
            never = pushing => never,
        }
    }

    /// Pushes what is left, and its last gauges.
    pub async fn last(&self, deadline: Duration) {
        self.buffer.gauges(&self.gate);
        if timeout(deadline, self.push_all()).await.is_err() {
            println!("the last samples could not be pushed within {deadline:?}");
        }
    }

    async fn push_all(&self) {
        loop {
            let lines = self.buffer.take();
            if lines.is_empty() {
                return;
            }
            self.push(&lines).await;
        }
    }

    async fn push(&self, lines: &[String]) {
        let body = Bytes::from(lines.concat());
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            match judge(self.client.post(&self.to, "application/x-ndjson", body.clone(), DEADLINE).await) {
                Attempt::Done => return,
                Attempt::Refused(why) => {
                    println!("{} samples were refused: {why}", lines.len());
                    break;
                }
                Attempt::Later(_, why) if attempt == ATTEMPTS => println!("{} samples are given up after {attempt} attempts: {why}", lines.len()),
                Attempt::Later(after, _) => {
                    tokio::time::sleep(after.unwrap_or(wait).min(LONGEST_WAIT)).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
        self.buffer.drop_lines(lines.len());
    }
}

fn judge(answer: Result<Answer, ClientError>) -> Attempt {
    match answer {
        Ok(answer) if answer.status.is_success() => Attempt::Done,
        Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error() => {
            let after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Attempt::Later(after.map(Duration::from_secs), answer.status.to_string())
        }
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            Attempt::Refused(format!("{}: {}", answer.status, text.chars().take(300).collect::<String>()))
        }
        Err(error) => Attempt::Later(None, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn buffer() -> Buffer {
        Buffer::new(Identity { target: "local/ProcessFleet/shop".into(), instance: "shop-1".into() })
    }

    fn answer(status: StatusCode, retry_after: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        Answer { status, headers, body: Bytes::from_static(b"because") }
    }

    #[test]
    fn a_sample_is_one_line_of_json() {
        let buffer = buffer();
        buffer.response_time(Duration::from_millis(250));
        buffer.response_time(Duration::from_secs(9));
        buffer.gauges(&Gate::new(1, 1));
        let lines = buffer.take();
        assert!(lines.len() == 4 && lines.iter().all(|line| line.ends_with('\n')));
        let sample: serde_json::Value = serde_json::from_str(&lines[3]).unwrap();
        let mut counts = [0; BOUNDS.len() + 1];
        (counts[4], counts[BOUNDS.len()]) = (1, 1);
        assert_eq!(
            sample,
            serde_json::json!({"target": "local/ProcessFleet/shop", "metric": "response_time", "instance": "shop-1", "time": sample["time"],
                "kind": "Histogram", "bounds": BOUNDS, "counts": counts, "count": 2, "sum": 9.25})
        );
    }

    #[test]
    fn a_full_buffer_drops_the_oldest_and_counts() {
        let buffer = buffer();
        for n in 0..BUFFERED + 3 {
            buffer.add("n", "Gauge", Value::One { value: n as f64 });
        }
        assert_eq!(buffer.dropped(), 3);
        let first: serde_json::Value = serde_json::from_str(&buffer.take()[0]).unwrap();
        assert_eq!(first["value"], 3.0);
    }

    #[test]
    fn what_cannot_be_taken_now_is_tried_again_and_what_never_can_is_not() {
        assert_eq!(judge(Ok(answer(StatusCode::OK, None))), Attempt::Done);
        assert_eq!(judge(Ok(answer(StatusCode::TOO_MANY_REQUESTS, Some("1")))), Attempt::Later(Some(Duration::from_secs(1)), "429 Too Many Requests".into()));
        assert_eq!(judge(Ok(answer(StatusCode::SERVICE_UNAVAILABLE, None))), Attempt::Later(None, "503 Service Unavailable".into()));
        assert!(matches!(judge(Err(ClientError::Connect("refused".into()))), Attempt::Later(None, _)));
        assert_eq!(judge(Ok(answer(StatusCode::BAD_REQUEST, None))), Attempt::Refused("400 Bad Request: because".into()));
    }
}
