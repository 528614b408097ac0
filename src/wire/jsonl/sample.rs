//! Samples as lines: what ingest takes.

use serde::{Deserialize, Serialize};

use super::{LineError, line};
use crate::model::json;
use crate::model::{HistogramValue, InstanceName, Kind, MetricName, Sample, TargetId, Timestamp};

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SampleLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    targets: Option<Vec<TargetId>>,
    #[serde(default)]
    metric: Option<MetricName>,
    #[serde(default, skip_serializing_if = "InstanceName::is_none")]
    instance: InstanceName,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bounds: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<f64>,
}

/// A line as a sample; `received` is its time where it gives none.
///
/// # Errors
/// [`LineError`], which says what is wrong and how to mend it.
pub fn sample_from_line(text: &str, received: Timestamp) -> Result<Sample, LineError> {
    match text.trim_start() {
        array if array.starts_with('[') => {
            return Err(LineError::contradiction(
                "one object a line is read, and this is an array: write its objects without [ and ], each on a line of its own",
            ));
        }
        begun if begun.trim_end() == "{" => {
            return Err(LineError::contradiction("one object a line is read, and this is one over several lines: write it on one, as `jq -c .` does"));
        }
        otlp if otlp.starts_with("{\"resourceMetrics\"") => {
            return Err(LineError::contradiction(
                "this is OTLP in JSON, and OTLP is read in protobuf alone: export it so (encoding otlp_proto of the Collector's Kafka exporter)",
            ));
        }
        _ => {}
    }
    let shape: SampleLine = json::read(text)?;
    let targets = match (shape.target, shape.targets) {
        (Some(target), None) => vec![target],
        (None, Some(targets)) if targets.is_empty() => return Err(LineError::missing("targets", "name at least one target, as namespace/Kind/name")),
        (None, Some(targets)) => targets,
        (Some(_), Some(_)) => return Err(LineError::contradiction("both \"target\" and \"targets\" are given: keep \"targets\" and name all of them there")),
        (None, None) => return Err(LineError::missing("target", "write \"target\":\"namespace/Kind/name\", or \"targets\" for several")),
    };
    let metric = shape.metric.ok_or_else(|| LineError::missing("metric", "write the metric's name, as in \"metric\":\"cpu\""))?;
    let (value, histogram) = if shape.kind == Kind::Histogram {
        if shape.value.is_some() {
            return Err(LineError::contradiction("a Histogram has no \"value\": it has \"bounds\", \"counts\", \"count\" and \"sum\" in its place"));
        }
        (0.0, Some(histogram(shape.bounds, shape.counts, shape.count, shape.sum)?))
    } else {
        let stray = [("bounds", shape.bounds.is_some()), ("counts", shape.counts.is_some()), ("count", shape.count.is_some()), ("sum", shape.sum.is_some())];
        if let Some((name, _)) = stray.iter().find(|(_, there)| *there) {
            return Err(LineError::contradiction(format!(
                "\"{name}\" belongs to kind Histogram and this is a {:?}: add \"kind\":\"Histogram\", or leave it out",
                shape.kind
            )));
        }
        (
            shape
                .value
                .ok_or_else(|| LineError::missing("value", format!("a {:?} needs a number in base units (cores, bytes, seconds, a count)", shape.kind)))?,
            None,
        )
    };
    Ok(Sample { targets, metric, instance: shape.instance, time: shape.time.unwrap_or(received), kind: shape.kind, value, histogram })
}

fn histogram(bounds: Option<Vec<f64>>, counts: Option<Vec<i64>>, count: Option<i64>, sum: Option<f64>) -> Result<HistogramValue, LineError> {
    let missing = |field| LineError::missing(field, "a Histogram needs \"bounds\", \"counts\", \"count\" and \"sum\"");
    let bounds = bounds.ok_or_else(|| missing("bounds"))?;
    let counts = counts.ok_or_else(|| missing("counts"))?;
    let count = count.ok_or_else(|| missing("count"))?;
    let sum = sum.ok_or_else(|| missing("sum"))?;
    if counts.len() != bounds.len() + 1 {
        return Err(LineError::contradiction(format!(
            "{} \"bounds\" need {} \"counts\", one more, since the last bucket has no upper bound; there are {}",
            bounds.len(),
            bounds.len() + 1,
            counts.len()
        )));
    }
    if let Some((lower, upper)) = bounds.iter().zip(bounds.iter().skip(1)).find(|(lower, upper)| lower >= upper) {
        return Err(LineError::contradiction(format!("\"bounds\" must ascend, {lower} comes before {upper}")));
    }
    if let Some(negative) = counts.iter().find(|n| **n < 0) {
        return Err(LineError::contradiction(format!("\"counts\" must not be negative, one is {negative}")));
    }
    Ok(HistogramValue { bounds, counts, count, sum })
}

/// A sample as a line. A value that is not finite cannot be said in JSON and is left out.
pub fn sample_to_line(sample: &Sample) -> String {
    let mut shape = SampleLine {
        metric: Some(sample.metric.clone()),
        instance: sample.instance.clone(),
        time: Some(sample.time),
        kind: sample.kind,
        ..SampleLine::default()
    };
    match sample.targets.as_slice() {
        [target] => shape.target = Some(target.clone()),
        targets => shape.targets = Some(targets.to_vec()),
    }
    match &sample.histogram {
        Some(h) => {
            shape.bounds = Some(h.bounds.clone());
            shape.counts = Some(h.counts.clone());
            shape.count = Some(h.count);
            shape.sum = Some(h.sum);
        }
        None => shape.value = Some(sample.value).filter(|value| value.is_finite()),
    }
    line(&shape)
}
