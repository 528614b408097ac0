//! Panes, parts and marks: how measurements travel from aggregate to decide.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Amount, InstanceName, Kind, MetricName, Sketch, TargetId, Timestamp};

/// A cumulative histogram of one instance as of the last sample of a pane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistogramReading {
    /// The buckets' upper bounds, ascending, in base units.
    pub bounds: Vec<f64>,
    /// Observations in each bucket since the instance started: one more than `bounds`.
    pub counts: Vec<i64>,
    /// All observations since the instance started.
    pub count: i64,
    /// Their sum.
    pub sum: Amount,
}

/// What one instance's samples in a pane come to. JSON leaves `histogram` out where there is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// How many samples.
    pub count: i64,
    /// Their sum.
    pub sum: Amount,
    /// The largest.
    pub max: Amount,
    /// The newest one's value (the larger, of several at the same time).
    pub last: Amount,
    /// The newest one's time.
    pub last_at: Timestamp,
    /// The newest cumulative histogram, for kind Histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Box<HistogramReading>>,
}

/// One metric of a target over one tumbling window of event time, as far as one source saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pane {
    /// The metric.
    pub metric: MetricName,
    /// What its samples mean.
    pub kind: Kind,
    /// Where the window starts (inclusive).
    pub start: Timestamp,
    /// Where it ends (exclusive).
    pub end: Timestamp,
    /// What each instance measured.
    pub instances: BTreeMap<InstanceName, Reading>,
    /// The observations of a Distribution, of all instances together.
    #[serde(default)]
    pub sketch: Option<Sketch>,
}

/// What one source partition contributes to the panes of one target. Parts merge, whatever their
/// number and order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The target.
    pub target: TargetId,
    /// The source partition.
    pub source: u32,
    /// Its panes.
    pub panes: Vec<Pane>,
}

/// "Everything of this source partition up to `through` is in the log."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The source partition.
    pub source: u32,
    /// How many source partitions there are.
    pub of: u32,
    /// Up to when; never runs back.
    pub through: Timestamp,
    /// The length of the installation's panes, in milliseconds.
    #[serde(default = "default_pane_ms")]
    pub pane_ms: i64,
    /// Records read since the mark before.
    #[serde(default)]
    pub records: i64,
    /// Samples since then that came after their pane had been marked.
    #[serde(default)]
    pub late: i64,
    /// Samples since then that were not taken.
    #[serde(default)]
    pub rejected: i64,
}

fn default_pane_ms() -> i64 {
    5_000
}

impl Mark {
    /// The length of a pane.
    pub fn pane(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.pane_ms).unwrap_or(0).max(1))
    }
}

/// The clock of a partition: one a second, appended by whoever owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tick {}

/// A source of a metric could not be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceError {
    /// The target.
    pub target: TargetId,
    /// The metric that has no value for now.
    pub metric: MetricName,
    /// What happened, in a few words.
    pub error: String,
}

impl Reading {
    /// Merges another part's reading of the same instance and pane: the same in any order.
    pub fn merge(&mut self, other: &Reading) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum + other.sum;
        self.max = self.max.max(other.max);
        let (mine, theirs) = (self.newness(), other.newness());
        if theirs > mine {
            self.last = other.last;
            self.last_at = other.last_at;
            self.histogram.clone_from(&other.histogram);
        }
    }

    /// The order of readings by age; equal only where the values are equal too, so that a merge does
    /// not depend on its order.
    fn newness(&self) -> (Timestamp, Amount, i64, Amount, Vec<i64>) {
        match &self.histogram {
            None => (self.last_at, self.last, 0, Amount::ZERO, Vec::new()),
            Some(h) => (self.last_at, self.last, h.count, h.sum, h.counts.clone()),
        }
    }
}
