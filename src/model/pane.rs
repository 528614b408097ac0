//! Panes, parts and marks: how measurements travel from aggregate to decide.
//!
//! Readings and panes merge exactly: the result is the same for any order and any grouping, so that no
//! split of the samples, no restart and no order of parts changes a digit.

use std::cmp::Ordering;
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

impl HistogramReading {
    /// A total order, to choose between two readings of the same time: more observations first, then
    /// whatever tells the two apart.
    pub fn order(&self, other: &Self) -> Ordering {
        let bounds = || self.bounds.iter().map(|b| b.to_bits()).cmp(other.bounds.iter().map(|b| b.to_bits()));
        self.count.cmp(&other.count).then_with(|| self.sum.cmp(&other.sum)).then_with(|| self.counts.cmp(&other.counts)).then_with(bounds)
    }
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

impl Reading {
    /// Adds the samples of another reading of the same instance and pane.
    ///
    /// Counts and sums add up, the larger maximum stays, and the newest last value stays (at the same
    /// time the larger; of histograms the larger in [`HistogramReading::order`]). A reading without
    /// samples changes nothing. Commutative and associative.
    pub fn merge(&mut self, other: &Reading, kind: Kind) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum + other.sum;
        self.max = self.max.max(other.max);
        let newer = match kind {
            Kind::Histogram => other.last_at.cmp(&self.last_at).then_with(|| match (&other.histogram, &self.histogram) {
                (Some(other), Some(own)) => other.order(own),
                (other, own) => other.is_some().cmp(&own.is_some()),
            }),
            Kind::Gauge | Kind::Counter | Kind::Delta | Kind::Distribution => (other.last_at, other.last).cmp(&(self.last_at, self.last)),
        };
        if newer == Ordering::Greater {
            self.last = other.last;
            self.last_at = other.last_at;
            self.histogram.clone_from(&other.histogram);
        }
    }
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

impl Pane {
    /// Adds what another part holds of the same metric and window (the caller compares `metric`, `start`
    /// and `end`). Commutative and associative.
    ///
    /// A metric has one kind. Where two producers disagree, the kind that comes first in [`Kind`] stays
    /// with all of its samples, and those of the other do not count.
    pub fn merge(&mut self, other: Pane) {
        match self.kind.cmp(&other.kind) {
            Ordering::Less => return,
            Ordering::Greater => {
                *self = other;
                return;
            }
            Ordering::Equal => {}
        }
        for (instance, reading) in other.instances {
            self.instances.entry(instance).or_default().merge(&reading, self.kind);
        }
        match (&mut self.sketch, other.sketch) {
            (Some(own), Some(other)) => own.merge(&other),
            (own @ None, other) => *own = other,
            (Some(_), None) => {}
        }
    }
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
    /// Up to when; never runs back. [`Timestamp::MIN`] where nothing is complete yet.
    #[serde(default = "super::known_time::unknown", with = "super::known_time")]
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
    /// Samples since then of messages that were dropped as repetitions.
    #[serde(default)]
    pub repeated: i64,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Kind; 5] = [Kind::Gauge, Kind::Counter, Kind::Delta, Kind::Distribution, Kind::Histogram];

    fn histogram() -> impl Strategy<Value = Box<HistogramReading>> {
        (0_i64..3, 0_i64..3, -2_i64..3).prop_map(|(low, high, sum)| {
            Box::new(HistogramReading { bounds: vec![0.5], counts: vec![low, high], count: low + high, sum: Amount::from_units(sum) })
        })
    }

    /// Few values, so that equal times and equal values are met often.
    fn reading(kind: Kind) -> impl Strategy<Value = Reading> {
        (1_i64..4, -3_i64..4, -3_i64..4, 0_i64..3, histogram()).prop_map(move |(count, sum, last, at, histogram)| Reading {
            count,
            sum: Amount::from_millis(sum),
            max: Amount::from_millis(last + 1),
            last: if kind == Kind::Histogram { Amount::ZERO } else { Amount::from_millis(last) },
            last_at: Timestamp::from_millis(at),
            histogram: (kind == Kind::Histogram).then_some(histogram),
        })
    }

    fn pane() -> impl Strategy<Value = Pane> {
        (0..KINDS.len(), prop::collection::vec(0.0_f64..9.0, 0..4)).prop_flat_map(|(kind, observed)| {
            let kind = KINDS[kind];
            prop::collection::btree_map("[ab]".prop_map(|name| name.parse().unwrap()), reading(kind), 0..3).prop_map(move |instances| {
                let mut sketch = Sketch::default();
                for value in &observed {
                    sketch.add(*value);
                }
                Pane {
                    metric: "m".parse().unwrap(),
                    kind,
                    start: Timestamp::from_millis(0),
                    end: Timestamp::from_millis(5000),
                    instances,
                    sketch: (kind == Kind::Distribution).then_some(sketch),
                }
            })
        })
    }

    fn merged(a: &Pane, b: &Pane) -> Pane {
        let mut whole = a.clone();
        whole.merge(b.clone());
        whole
    }

    proptest! {
        #[test]
        fn panes_merge_in_any_order_and_any_grouping(a in pane(), b in pane(), c in pane()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }
    }

    #[test]
    fn the_newest_value_stays_and_the_larger_of_two_at_the_same_time() {
        let at = |ms, units| Reading {
            count: 1,
            sum: Amount::from_units(units),
            max: Amount::from_units(units),
            last: Amount::from_units(units),
            last_at: Timestamp::from_millis(ms),
            histogram: None,
        };
        let mut reading = at(10, -5);
        reading.merge(&at(20, -9), Kind::Gauge);
        reading.merge(&at(20, -8), Kind::Gauge);
        reading.merge(&at(20, -9), Kind::Gauge);
        assert_eq!(reading, Reading { count: 4, sum: Amount::from_units(-31), max: Amount::from_units(-5), ..at(20, -8) });
    }

    #[test]
    fn a_reading_without_samples_changes_nothing() {
        let some = Reading { count: 1, max: Amount::from_units(-1), last: Amount::from_units(-1), ..Reading::default() };
        let mut none = Reading::default();
        none.merge(&some, Kind::Gauge);
        assert_eq!(none, some);
        none.merge(&Reading::default(), Kind::Gauge);
        assert_eq!(none, some);
    }
}
