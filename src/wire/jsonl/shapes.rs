//! The shapes of what stands inside a signal's line, and their model.
//!
//! Each `from` and `into_model` pair is a round trip. Keys that are not known are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::LineError;
use crate::model::{
    Amount, FleetObservation, Grant, GrantLimit, HistogramReading, Instance, InstanceName, Kind, Mark, MetricName, OpenCommand, Outcome, OutcomeResult, Pane,
    Part, Phase, Reading, Sketch, SourceError, TargetId, Timestamp,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PartShape {
    source: u32,
    panes: Vec<PaneShape>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PaneShape {
    metric: MetricName,
    kind: Kind,
    start: Timestamp,
    end: Timestamp,
    instances: BTreeMap<InstanceName, ReadingShape>,
    #[serde(default)]
    sketch: Option<Sketch>,
}

/// A reading; of kind Histogram it is `bounds`, `counts`, `count`, `sum` and `lastAt` alone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadingShape {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bounds: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<i64>>,
    count: i64,
    sum: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Amount>,
    last_at: Timestamp,
}

impl From<&Part> for PartShape {
    fn from(part: &Part) -> Self {
        PartShape { source: part.source, panes: part.panes.iter().map(PaneShape::from).collect() }
    }
}

impl PartShape {
    pub(super) fn into_model(self, target: TargetId) -> Result<Part, LineError> {
        let panes = self.panes.into_iter().map(PaneShape::into_model).collect::<Result<_, _>>()?;
        Ok(Part { target, source: self.source, panes })
    }
}

impl From<&Pane> for PaneShape {
    fn from(pane: &Pane) -> Self {
        let instances = pane.instances.iter().map(|(name, reading)| (name.clone(), ReadingShape::from(reading))).collect();
        PaneShape { metric: pane.metric.clone(), kind: pane.kind, start: pane.start, end: pane.end, instances, sketch: pane.sketch.clone() }
    }
}

impl PaneShape {
    fn into_model(self) -> Result<Pane, LineError> {
        let kind = self.kind;
        let instances = self.instances.into_iter().map(|(name, reading)| {
            let reading =
                reading.into_model(kind).map_err(|reason| LineError::contradiction(format!("instance \"{name}\" of metric {}: {reason}", self.metric)));
            reading.map(|reading| (name, reading))
        });
        let instances = instances.collect::<Result<_, _>>()?;
        Ok(Pane { metric: self.metric, kind, start: self.start, end: self.end, instances, sketch: self.sketch })
    }
}

impl From<&Reading> for ReadingShape {
    fn from(reading: &Reading) -> Self {
        match &reading.histogram {
            Some(histogram) => ReadingShape {
                bounds: Some(histogram.bounds.clone()),
                counts: Some(histogram.counts.clone()),
                count: histogram.count,
                sum: histogram.sum,
                max: None,
                last: None,
                last_at: reading.last_at,
            },
            None => ReadingShape {
                bounds: None,
                counts: None,
                count: reading.count,
                sum: reading.sum,
                max: Some(reading.max),
                last: Some(reading.last),
                last_at: reading.last_at,
            },
        }
    }
}

impl ReadingShape {
    fn into_model(self, kind: Kind) -> Result<Reading, &'static str> {
        match (kind, self) {
            (Kind::Histogram, ReadingShape { bounds: Some(bounds), counts: Some(counts), count, sum, max: None, last: None, last_at }) => {
                if counts.len() != bounds.len() + 1 {
                    return Err("\"counts\" must have one entry more than \"bounds\": the last bucket has no upper bound");
                }
                let histogram = Some(Box::new(HistogramReading { bounds, counts, count, sum }));
                // What is summed and compared of other kinds has no meaning here, and stays out of the line.
                Ok(Reading { count: 1, last_at, histogram, ..Reading::default() })
            }
            (Kind::Histogram, _) => Err("a Histogram has \"bounds\", \"counts\", \"count\", \"sum\" and \"lastAt\", and nothing else"),
            (_, ReadingShape { bounds: None, counts: None, count, sum, max: Some(max), last: Some(last), last_at }) => {
                Ok(Reading { count, sum, max, last, last_at, histogram: None })
            }
            (_, _) => Err("it needs \"count\", \"sum\", \"max\", \"last\" and \"lastAt\"; only a Histogram has \"bounds\" and \"counts\""),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MarkShape {
    source: u32,
    of: u32,
    through: Timestamp,
    #[serde(default = "default_pane_ms")]
    pane_ms: i64,
    #[serde(default)]
    records: i64,
    #[serde(default)]
    late: i64,
    #[serde(default)]
    rejected: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    repeated: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// The pane of an installation that does not say otherwise, as in the model.
fn default_pane_ms() -> i64 {
    5_000
}

impl From<&Mark> for MarkShape {
    fn from(mark: &Mark) -> Self {
        let Mark { source, of, through, pane_ms, records, late, rejected, repeated } = *mark;
        MarkShape { source, of, through, pane_ms, records, late, rejected, repeated }
    }
}

impl From<MarkShape> for Mark {
    fn from(shape: MarkShape) -> Self {
        let MarkShape { source, of, through, pane_ms, records, late, rejected, repeated } = shape;
        Mark { source, of, through, pane_ms, records, late, rejected, repeated }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TickShape {}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FleetShape {
    uid: String,
    term: i64,
    sequence: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    desired: u32,
    status_replicas: u32,
    #[serde(default)]
    updating: bool,
    instances: Vec<InstanceShape>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InstanceShape {
    name: InstanceName,
    phase: Phase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    #[serde(default)]
    deleting: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_changed_at: Option<Timestamp>,
    #[serde(default)]
    requests: BTreeMap<String, Amount>,
}

impl From<&FleetObservation> for FleetShape {
    fn from(fleet: &FleetObservation) -> Self {
        let FleetObservation { target: _, uid, term, sequence, revision, desired, status_replicas, updating, instances } = fleet.clone();
        let instances = instances.into_iter().map(InstanceShape::from).collect();
        FleetShape { uid, term, sequence, revision, desired, status_replicas, updating, instances }
    }
}

impl FleetShape {
    pub(super) fn into_model(self, target: TargetId) -> FleetObservation {
        let FleetShape { uid, term, sequence, revision, desired, status_replicas, updating, instances } = self;
        let instances = instances.into_iter().map(Instance::from).collect();
        FleetObservation { target, uid, term, sequence, revision, desired, status_replicas, updating, instances }
    }
}

impl From<Instance> for InstanceShape {
    fn from(instance: Instance) -> Self {
        let Instance { name, phase, ready, deleting, started_at, ready_changed_at, requests } = instance;
        InstanceShape { name, phase, ready, deleting, started_at, ready_changed_at, requests }
    }
}

impl From<InstanceShape> for Instance {
    fn from(shape: InstanceShape) -> Self {
        let InstanceShape { name, phase, ready, deleting, started_at, ready_changed_at, requests } = shape;
        Instance { name, phase, ready, deleting, started_at, ready_changed_at, requests }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OutcomeShape {
    command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    result: OutcomeResult,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<&Outcome> for OutcomeShape {
    fn from(outcome: &Outcome) -> Self {
        let Outcome { target: _, command, uid, result, replicas, revision, error } = outcome.clone();
        OutcomeShape { command, uid, result, replicas, revision, error }
    }
}

impl OutcomeShape {
    pub(super) fn into_model(self, target: TargetId) -> Outcome {
        let OutcomeShape { command, uid, result, replicas, revision, error } = self;
        Outcome { target, command, uid, result, replicas, revision, error }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OpenCommandShape {
    id: String,
    epoch: i64,
    from: u32,
    to: u32,
    expires_at: Timestamp,
}

impl From<&OpenCommand> for OpenCommandShape {
    fn from(open: &OpenCommand) -> Self {
        let OpenCommand { id, epoch, from, to, expires_at } = open.clone();
        OpenCommandShape { id, epoch, from, to, expires_at }
    }
}

impl From<OpenCommandShape> for OpenCommand {
    fn from(shape: OpenCommandShape) -> Self {
        let OpenCommandShape { id, epoch, from, to, expires_at } = shape;
        OpenCommand { id, epoch, from, to, expires_at }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GrantShape {
    epoch: i64,
    desired: u32,
    granted: u32,
    limit: GrantLimit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<OpenCommandShape>,
}

impl From<&Grant> for GrantShape {
    fn from(grant: &Grant) -> Self {
        let command = grant.command.as_ref().map(OpenCommandShape::from);
        GrantShape { epoch: grant.epoch, desired: grant.desired, granted: grant.granted, limit: grant.limit, command }
    }
}

impl GrantShape {
    pub(super) fn into_model(self, target: TargetId) -> Grant {
        let GrantShape { epoch, desired, granted, limit, command } = self;
        Grant { target, epoch, desired, granted, limit, command: command.map(OpenCommand::from) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SourceErrorShape {
    metric: MetricName,
    error: String,
}

impl From<&SourceError> for SourceErrorShape {
    fn from(failed: &SourceError) -> Self {
        SourceErrorShape { metric: failed.metric.clone(), error: failed.error.clone() }
    }
}

impl SourceErrorShape {
    pub(super) fn into_model(self, target: TargetId) -> SourceError {
        SourceError { target, metric: self.metric, error: self.error }
    }
}
