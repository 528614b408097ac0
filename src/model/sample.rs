//! Samples: what producers send.

use serde::{Deserialize, Serialize};

use super::{InstanceName, MetricName, TargetId, Timestamp};

/// What a sample's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Kind {
    /// The level of something now.
    #[default]
    Gauge,
    /// A total that only grows; a drop is a restart.
    Counter,
    /// An increment since the last one.
    Delta,
    /// One observation of many (a request's latency); sketched for quantiles.
    Distribution,
    /// Cumulative counts in explicit buckets.
    Histogram,
}

/// Cumulative counts of observations in explicit buckets, as of one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistogramValue {
    /// The buckets' upper bounds (inclusive), ascending, in base units; the last bucket has none.
    pub bounds: Vec<f64>,
    /// Observations in each bucket (not accumulated over buckets): one more than `bounds`.
    pub counts: Vec<i64>,
    /// All observations.
    pub count: i64,
    /// Their sum, in base units.
    pub sum: f64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The targets that it counts for: one, or several where they share a resource.
    pub targets: Vec<TargetId>,
    /// The metric.
    pub metric: MetricName,
    /// The instance that was measured; empty for the target as a whole.
    #[serde(default)]
    pub instance: InstanceName,
    /// When it was measured.
    pub time: Timestamp,
    /// What the number means.
    pub kind: Kind,
    /// The number, in base units; of no meaning for a Histogram.
    #[serde(default)]
    pub value: f64,
    /// A Histogram's counts.
    #[serde(default)]
    pub histogram: Option<HistogramValue>,
}

/// A message on the topic `metrics`: samples of one target or of many.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleBatch {
    /// Who sent it, where repetitions are to be told apart.
    #[serde(default)]
    pub producer: Option<String>,
    /// The producer's count of its messages; one that is not larger than the last is a repetition.
    #[serde(default)]
    pub sequence: Option<i64>,
    /// Its number among the messages of one sequence, from 0: a large request is split, and its parts follow each other.
    #[serde(default)]
    pub part: i64,
    /// The samples.
    pub samples: Vec<Sample>,
    /// How many more there were that could not be read, where somebody else wrote the record: counted as not taken, and never written.
    #[serde(skip)]
    pub unread: u64,
}
