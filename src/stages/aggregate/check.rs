//! Which samples can be taken, and in words why the others cannot.
//!
//! Names are not checked here: their types cannot be wrong.

use std::time::Duration;

use crate::model::{Amount, AmountError, HistogramReading, HistogramValue, Kind, MetricName, Sample, Timestamp};

/// How far a sample may be ahead of the moment at which the log appended it.
const FUTURE: Duration = Duration::from_secs(30);
/// The most buckets of a histogram: three times what usual exporters send, and at most 10 kB in a part.
const MAX_BUCKETS: usize = 512;

/// Why a sample is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("targets is empty; name at least one target")]
    NoTarget,
    #[error("{field} {value} is not a finite number")]
    NonFinite { field: &'static str, value: f64 },
    #[error("{field} {value} is beyond ±10^18 base units")]
    OutOfRange { field: &'static str, value: f64 },
    #[error("time {time} is more than 30 s after {at}, when the record was appended; check the producer's clock, and that times are Unix milliseconds")]
    Future { time: Timestamp, at: Timestamp },
    #[error("histogram {problem}")]
    HistogramShape { problem: String },
    #[error("value {value} of a Distribution is negative; observations are at least 0")]
    NegativeObservation { value: f64 },
    #[error("kind {kind:?} of metric {metric} differs from {first:?}, which came first in this pane; send a metric as one kind")]
    KindConflict { metric: MetricName, kind: Kind, first: Kind },
    #[error("more than {limit} targets were measured; spread them over more processes")]
    TooManyTargets { limit: u32 },
    #[error("the target has more than {limit} metrics; send fewer")]
    TooManyMetrics { limit: u32 },
    #[error("the target has more than {limit} instances; send aggregates, or split the target")]
    TooManyInstances { limit: u32 },
}

/// The reasons of refusals, without their details: each has its own budget of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    NoTarget,
    NonFinite,
    OutOfRange,
    Future,
    HistogramShape,
    NegativeObservation,
    KindConflict,
    Limit(Limit),
}

/// A limit that a producer exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
    Targets,
    Metrics,
    Instances,
}

impl Refusal {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Refusal::NoTarget => Reason::NoTarget,
            Refusal::NonFinite { .. } => Reason::NonFinite,
            Refusal::OutOfRange { .. } => Reason::OutOfRange,
            Refusal::Future { .. } => Reason::Future,
            Refusal::HistogramShape { .. } => Reason::HistogramShape,
            Refusal::NegativeObservation { .. } => Reason::NegativeObservation,
            Refusal::KindConflict { .. } => Reason::KindConflict,
            Refusal::TooManyTargets { .. } => Reason::Limit(Limit::Targets),
            Refusal::TooManyMetrics { .. } => Reason::Limit(Limit::Metrics),
            Refusal::TooManyInstances { .. } => Reason::Limit(Limit::Instances),
        }
    }
}

/// What a sample measured, in a form that cannot be wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Measurement {
    /// A number of a Gauge, a Counter or a Delta.
    Number(Amount),
    /// One observation of a Distribution, exact and as it came.
    Observation(Amount, f64),
    /// Cumulative counts.
    Histogram(Box<HistogramReading>),
}

/// Checks a sample of a record that was appended at `at`.
pub(super) fn check(sample: &Sample, at: Timestamp) -> Result<Measurement, Refusal> {
    if sample.time > at + FUTURE {
        return Err(Refusal::Future { time: sample.time, at });
    }
    match sample.kind {
        Kind::Gauge | Kind::Counter | Kind::Delta => amount("value", sample.value).map(Measurement::Number),
        Kind::Distribution => {
            let exact = amount("value", sample.value)?;
            if sample.value < 0.0 {
                return Err(Refusal::NegativeObservation { value: sample.value });
            }
            Ok(Measurement::Observation(exact, sample.value))
        }
        Kind::Histogram => {
            let histogram = sample.histogram.as_ref().ok_or_else(|| shape("is missing; a sample of kind Histogram has bounds and counts".to_owned()))?;
            check_histogram(histogram).map(|reading| Measurement::Histogram(Box::new(reading)))
        }
    }
}

fn amount(field: &'static str, value: f64) -> Result<Amount, Refusal> {
    Amount::from_f64(value).map_err(|error| match error {
        AmountError::OutOfRange => Refusal::OutOfRange { field, value },
        AmountError::NonFinite | AmountError::NotANumber => Refusal::NonFinite { field, value },
    })
}

fn shape(problem: String) -> Refusal {
    Refusal::HistogramShape { problem }
}

fn check_histogram(histogram: &HistogramValue) -> Result<HistogramReading, Refusal> {
    let HistogramValue { bounds, counts, count, sum } = histogram;
    if counts.len() != bounds.len() + 1 {
        return Err(shape(format!("has {} counts for {} bounds; it needs one count more than bounds", counts.len(), bounds.len())));
    }
    if counts.len() > MAX_BUCKETS {
        return Err(shape(format!("has {} buckets; at most {MAX_BUCKETS} are taken", counts.len())));
    }
    if let Some(bound) = bounds.iter().find(|bound| !bound.is_finite()) {
        return Err(shape(format!("bound {bound} is not finite; the last bucket has no bound")));
    }
    if let Some([low, high, ..]) = bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(shape(format!("bounds {low} and {high} do not ascend")));
    }
    if let Some(negative) = counts.iter().chain([count]).find(|count| **count < 0) {
        return Err(shape(format!("count {negative} is negative")));
    }
    let all = counts.iter().fold(0_i64, |n, count| n.saturating_add(*count));
    if all != *count {
        return Err(shape(format!("count is {count}, its counts add up to {all}")));
    }
    Ok(HistogramReading { bounds: bounds.clone(), counts: counts.clone(), count: *count, sum: amount("histogram sum", *sum)? })
}
