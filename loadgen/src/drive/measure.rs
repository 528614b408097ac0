//! What came of the requests: counters since the start, and rates and percentiles of the last seconds.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Rates and percentiles look back so far: five minutes of a trace at 60 times its speed.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Outcomes of the window that are kept: 2,000 a second, ten times the demo's largest load.
const KEPT: usize = 10_000;

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, after this long.
    Served(Duration),
    /// Refused by a full queue.
    Shed,
    /// There was no endpoint.
    Unserved,
    /// No answer in time, a broken connection, an answer that is none.
    Failed,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Requests that were answered.
    pub served: u64,
    /// Requests refused by a full queue.
    pub shed: u64,
    /// Requests without an endpoint.
    pub unserved: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// Second attempts.
    pub retried: u64,
}

impl Totals {
    /// Requests that were not answered.
    pub fn lost(&self) -> u64 {
        self.shed + self.unserved + self.failed
    }
}

/// The figures of one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Counters since the start.
    pub totals: Totals,
    /// Requests a second that came to an end in the window.
    pub rate: f64,
    /// Of those, the ones lost.
    pub lost_rate: f64,
    /// The median latency of the window; `None` without an answer.
    pub p50: Option<Duration>,
    /// Its 95th percentile.
    pub p95: Option<Duration>,
    /// Its 99th percentile.
    pub p99: Option<Duration>,
    /// Endpoints there are.
    pub endpoints: usize,
}

impl Snapshot {
    /// One line for people.
    pub fn line(&self) -> String {
        let ms = |latency: Option<Duration>| latency.map_or_else(|| "-".to_owned(), |latency| format!("{} ms", latency.as_millis()));
        let Snapshot { totals, rate, endpoints, .. } = self;
        format!(
            "{rate:.1} requests/s over {endpoints} endpoints, p50 {}, p95 {}, p99 {}, {} served, {} shed, {} without an endpoint, {} failed",
            ms(self.p50),
            ms(self.p95),
            ms(self.p99),
            totals.served,
            totals.shed,
            totals.unserved,
            totals.failed
        )
    }
}

/// Counts.
#[derive(Debug)]
pub struct Measure {
    start: Instant,
    totals: Totals,
    recent: VecDeque<(Instant, Outcome)>,
}

impl Measure {
    /// Counts from `start` on.
    pub fn new(start: Instant) -> Self {
        Measure { start, totals: Totals::default(), recent: VecDeque::new() }
    }

    /// One request came to an end.
    pub fn count(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Served(_) => self.totals.served += 1,
            Outcome::Shed => self.totals.shed += 1,
            Outcome::Unserved => self.totals.unserved += 1,
            Outcome::Failed => self.totals.failed += 1,
        }
        self.forget(now);
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((now, outcome));
    }

    /// A request is tried once more.
    pub fn retried(&mut self) {
        self.totals.retried += 1;
    }

    /// The figures of `now`.
    pub fn snapshot(&mut self, now: Instant, endpoints: usize) -> Snapshot {
        self.forget(now);
        // A window that is not full yet counts for what it is, but not for less than a second.
        let seconds = now.duration_since(self.start).min(WINDOW).as_secs_f64().max(1.0);
        let mut latencies: Vec<Duration> = self
            .recent
            .iter()
            .filter_map(|(_, outcome)| match outcome {
                Outcome::Served(latency) => Some(*latency),
                Outcome::Shed | Outcome::Unserved | Outcome::Failed => None,
            })
            .collect();
        latencies.sort_unstable();
        let lost = self.recent.len() - latencies.len();
        Snapshot {
            totals: self.totals,
            rate: self.recent.len() as f64 / seconds,
            lost_rate: lost as f64 / seconds,
            p50: percentile(&latencies, 50),
            p95: percentile(&latencies, 95),
            p99: percentile(&latencies, 99),
            endpoints,
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
    }
}

/// The nearest-rank percentile of sorted values.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_window_and_counters_are_for_good() {
        let start = Instant::now();
        let mut measure = Measure::new(start);
        measure.count(start, Outcome::Served(Duration::from_secs(9)));
        let later = start + Duration::from_secs(10);
        for ms in 1..=100 {
            measure.count(later, Outcome::Served(Duration::from_millis(ms)));
        }
        measure.count(later, Outcome::Shed);
        measure.count(later, Outcome::Unserved);
        measure.count(later, Outcome::Failed);
        measure.retried();
        let snapshot = measure.snapshot(later, 4);
        assert_eq!([snapshot.p50, snapshot.p95, snapshot.p99], [50, 95, 99].map(|ms| Some(Duration::from_millis(ms))));
        assert!((snapshot.rate - 103.0 / 5.0).abs() < 1e-9 && (snapshot.lost_rate - 3.0 / 5.0).abs() < 1e-9);
        assert_eq!(snapshot.totals, Totals { served: 101, shed: 1, unserved: 1, failed: 1, retried: 1 });
        assert_eq!(snapshot.line(), "20.6 requests/s over 4 endpoints, p50 50 ms, p95 95 ms, p99 99 ms, 101 served, 1 shed, 1 without an endpoint, 1 failed");
        assert_eq!(measure.snapshot(later + WINDOW * 2, 4).p95, None);
    }
}
