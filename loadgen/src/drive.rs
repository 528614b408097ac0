//! An open-loop load generator that balances over the endpoints of a file.
//!
//! Open loop: requests arrive when the load says, however slow the answers are, as from many independent users. The times of
//! arrival are a Poisson process that depends on the load and the seed alone ([`arrivals`]). Each request goes to the endpoint
//! with the fewest open ones ([`balance`]); the endpoints are read from a Prometheus `file_sd` file whenever it changes
//! ([`endpoints`]). What comes of the requests is counted ([`measure`]).
//!
//! As a balancer would, it tries a request once elsewhere when the endpoint took nothing of it (no connection, or it drains). A
//! request refused by a full queue is lost: shed load stays visible.

pub mod arrivals;
pub mod balance;
pub mod endpoints;
pub mod load;
pub mod measure;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::http::{StatusCode, Uri};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use crate::client::{Client, ClientError};
use crate::trace::Trace;
use crate::units;
use crate::worker::REFUSED;
use arrivals::Arrivals;
use balance::Balancer;
use endpoints::Watch;
use load::{Load, Shape};
use measure::{Measure, Outcome, Snapshot};

/// Requests that may be open at once: ten seconds of the demo's largest load. Beyond it they count as failed.
const OPEN: usize = 2_000;

/// How often the endpoints' file is looked at; a balancer learns of a change within this time.
const LOOK: Duration = Duration::from_millis(50);

/// A stall of this machine longer than this is not made up by a burst.
const LARGEST_LAG: Duration = Duration::from_secs(1);

/// A first attempt, and one elsewhere.
const ATTEMPTS: u32 = 2;

/// What `loadgen drive` is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The endpoints, as a Prometheus `file_sd` JSON file; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub endpoints: PathBuf,
    /// What the load looks like.
    #[arg(long, value_enum, default_value_t = Shape::Trace)]
    pub shape: Shape,
    /// The trace, as CSV `minute,requests`.
    #[arg(long, value_name = "FILE", required_if_eq("shape", "trace"))]
    pub trace: Option<PathBuf>,
    /// How many times faster than it was recorded the trace is replayed.
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// How many requests are sent for one of the trace; at speed 60 and scale 1, a minute of 100 requests is a second of 100.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// The minute of the trace to begin with, counted from its first.
    #[arg(long, default_value_t = 0)]
    pub start_minute: u64,
    /// Requests a second of a constant load, or of the lower level of the others.
    #[arg(long, default_value_t = 10.0)]
    pub low: f64,
    /// Requests a second of the upper level of square and sine.
    #[arg(long, default_value_t = 50.0)]
    pub high: f64,
    /// The period of square and sine.
    #[arg(long, default_value = "60s", value_parser = units::duration)]
    pub period: Duration,
    /// The same seed, the same times of arrival.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A request without an answer after this long has failed.
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub timeout: Duration,
    /// Ends after this long; without it, on Ctrl-C.
    #[arg(long = "for", value_parser = units::duration, value_name = "DURATION")]
    pub time: Option<Duration>,
    /// Prints a line of figures this often.
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub print_every: Duration,
}

/// Drives until the time is over or Ctrl-C, and prints the counters as one line of JSON.
///
/// # Errors
/// The trace cannot be read, or the load is none.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let load = match (arguments.shape, &arguments.trace) {
        (Shape::Trace, Some(path)) => Load::trace(Trace::read(path)?, arguments.start_minute, arguments.speed, arguments.scale),
        (Shape::Trace, None) => anyhow::bail!("--shape trace needs --trace FILE"),
        (shape, _) => Load::shape(shape, arguments.low, arguments.high, arguments.period),
    }?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let driver = Arc::new(Driver::new(arguments.timeout));
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let printing = async {
            let mut ticks = interval(arguments.print_every.max(Duration::from_millis(100)));
            ticks.tick().await;
            loop {
                ticks.tick().await;
                println!("{}", driver.snapshot().line());
            }
        };
        let end = async {
            match arguments.time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = Arc::clone(&driver).run(Arrivals::new(load, arguments.seed), Watch::new(arguments.endpoints.clone())) => {}
            () = printing => {}
            () = end => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        println!("{}", serde_json::to_string(&driver.snapshot().totals)?);
        Ok(())
    })
}

/// Sends requests, and knows what came of them.
#[derive(Debug)]
pub struct Driver {
    client: Client,
    timeout: Duration,
    balancer: Mutex<Balancer>,
    measure: Mutex<Measure>,
}

impl Driver {
    /// A driver whose requests fail after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Driver { client: Client::new(), timeout, balancer: Mutex::new(Balancer::new(0)), measure: Mutex::new(Measure::new(Instant::now())) }
    }

    /// The figures of now.
    pub fn snapshot(&self) -> Snapshot {
        let endpoints = lock(&self.balancer).len();
        lock(&self.measure).snapshot(Instant::now(), endpoints)
    }

    /// Sends a request at each of `arrivals`, for as long as it is polled; dropped, it gives up what is open.
    pub async fn run(self: Arc<Self>, mut arrivals: Arrivals, mut watch: Watch) {
        let mut start = Instant::now();
        let mut next = arrivals.next_arrival();
        let mut open = JoinSet::new();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    if let Some(endpoints) = watch.look() {
                        lock(&self.balancer).set(endpoints);
                    }
                }
                Some(_) = open.join_next() => {}
                () = sleep_until(start + next) => {
                    let late = start.elapsed().saturating_sub(next);
                    if late > LARGEST_LAG {
                        start += late;
                    }
                    if open.len() < OPEN {
                        open.spawn(Arc::clone(&self).request());
                    } else {
                        self.count(Outcome::Failed);
                    }
                    next = arrivals.next_arrival();
                }
            }
        }
    }

    async fn request(self: Arc<Self>) {
        let sent = Instant::now();
        let outcome = match timeout_at(sent + self.timeout, self.exchange()).await {
            Ok(Outcome::Served(_)) => Outcome::Served(sent.elapsed()),
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed,
        };
        self.count(outcome);
    }

    async fn exchange(&self) -> Outcome {
        let mut avoid = None;
        for attempt in 1..=ATTEMPTS {
            let Some(lease) = lock(&self.balancer).pick(avoid.as_ref()) else { return Outcome::Unserved };
            if attempt > 1 {
                lock(&self.measure).retried();
            }
            match self.client.get(lease.uri(), self.timeout).await {
                Ok(answer) if answer.status.is_success() => return Outcome::Served(Duration::ZERO),
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => match answer.headers.get(REFUSED) {
                    Some(why) if why != "full" => avoid = Some(lease.uri().clone()),
                    _ => return Outcome::Shed,
                },
                Err(ClientError::Connect(_)) => avoid = Some(lease.uri().clone()),
                Ok(_) | Err(_) => return Outcome::Failed,
            }
        }
        Outcome::Failed
    }

    fn count(&self, outcome: Outcome) {
        lock(&self.measure).count(Instant::now(), outcome);
    }
}

/// The URI of an endpoint `host:port`.
pub(crate) fn uri(endpoint: &str) -> Option<Uri> {
    format!("http://{endpoint}/").parse().ok()
}

/// What a holder that panicked left is whole: each holder makes one change at a time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
