//! A policy and the signals of one target: what the fold decides on them, and what the HPA decided.

use std::collections::BTreeSet;
use std::time::Duration;

use loadline::model::policy::resolve_spec_json;
use loadline::model::{
    Amount, Decision, FleetObservation, Instance, InstanceName, Kind, Mark, MetricStatus, Order, Pane, Part, PolicyAnnouncement, Reading, Reason, Signal,
    SourceError, StepKind, TargetId, Timestamp,
};
use loadline::runtime::replay::{Caused, Replay};
use serde_json::{Value, json};

/// The instant at which all of a vector happens.
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// Panes of a second, as the ages of the vectors are whole seconds.
const PANE: Duration = Duration::from_secs(1);

/// A vector as a policy and signals.
pub(crate) struct Case {
    /// The policy's `spec`, without `target`.
    pub(crate) spec: Value,
    /// `spec.replicas` of the target.
    pub(crate) current: u32,
    /// `status.replicas` of the target.
    pub(crate) status: u32,
    /// Its instances.
    pub(crate) instances: Vec<Instance>,
    /// What is measured.
    pub(crate) samples: Vec<Sample>,
    /// How long ago the replicas were seen; `None`: just now.
    pub(crate) seen: Option<Duration>,
    /// The metrics whose source fails.
    pub(crate) failing: Vec<&'static str>,
    /// Where the target was evaluated before.
    pub(crate) history: Option<History>,
    /// The HPA's answer.
    pub(crate) expected: Expected,
}

/// One measurement.
pub(crate) struct Sample {
    pub(crate) metric: &'static str,
    /// Empty: of the target as a whole.
    pub(crate) instance: String,
    pub(crate) age: Duration,
    pub(crate) value: Amount,
}

/// Earlier proposals and changes, with their ages.
#[derive(Clone, Default)]
pub(crate) struct History {
    pub(crate) proposals: Vec<(Duration, u32)>,
    pub(crate) events: Vec<(Duration, i64)>,
}

/// The HPA's answer, as far as the vector states it.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// What the only metric asks for.
    pub(crate) proposal: Option<u32>,
    /// The value that the record shows, in thousandths (per cent of a utilization: tenths of a per cent).
    pub(crate) value_milli: Option<i64>,
    /// The count.
    pub(crate) desired: Option<u32>,
    /// The reason of the condition `ScalingLimited`.
    pub(crate) limited: Option<String>,
    /// The condition `ScalingActive`: whether the metrics have the word.
    pub(crate) active: Option<bool>,
    /// Whether the condition `AbleToScale` says that a proposal was stabilized.
    pub(crate) stabilized: Option<bool>,
    /// There was an error and no count.
    pub(crate) error: bool,
}

/// What the fold made of a case.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The policy cannot be used: the errors, each with its place.
    Refused(Vec<String>),
    /// The last decision.
    Decided(Box<Decision>),
}

/// An instant so long before [`NOW`].
pub(crate) fn ago(age: Duration) -> Timestamp {
    NOW - age
}

fn target() -> TargetId {
    "default/ReplicationController/test-rc".parse().unwrap()
}

/// Folds the case's signals.
pub(crate) fn run(case: &Case) -> Outcome {
    let target = target();
    let mut spec = case.spec.clone();
    spec["target"] = json!({ "apiVersion": "v1", "kind": target.kind(), "name": target.name() });
    let spec = spec.to_string();

    let mut replay = Replay::open();
    if let Some(history) = &case.history {
        replay.start(target.clone(), history.proposals.clone(), history.events.clone());
    }
    let mut decided = Vec::new();
    let mut fold = |at: Timestamp, signal: Signal| {
        for caused in replay.signal(at, 0, signal) {
            if let Caused::Decision(decision) = caused {
                decided.push(decision);
            }
        }
    };
    let listed: BTreeSet<&str> = case.instances.iter().map(|i| i.name.as_str()).collect();
    let strangers = case.samples.iter().any(|s| !s.instance.is_empty() && !listed.contains(s.instance.as_str()));
    // The replicas come last, so that one evaluation sees everything; but a sample of an instance that
    // is not listed counts only where it is newer than the list.
    let seen = case.seen.or(strangers.then_some(Duration::from_secs(2)));
    let first = ago(seen.unwrap_or_default());
    let order = Order { source: "file:vector.yaml".to_owned(), generation: 1 };
    fold(first, Signal::Policy(PolicyAnnouncement { target: target.clone(), spec: Some(spec.clone()), order }));
    if seen.is_some() {
        fold(first, Signal::Fleet(fleet(case, &target)));
    }
    for metric in &case.failing {
        fold(NOW, Signal::SourceError(SourceError { target: target.clone(), metric: metric.parse().unwrap(), error: "no such metric".to_owned() }));
    }
    fold(NOW, Signal::Part(Part { target: target.clone(), source: 0, panes: case.samples.iter().map(pane).collect() }));
    let pane_ms = i64::try_from(PANE.as_millis()).unwrap();
    fold(NOW, Signal::Mark(Mark { source: 0, of: 1, through: NOW, pane_ms, records: 0, late: 0, rejected: 0, repeated: 0 }));
    if seen.is_none() {
        fold(NOW, Signal::Fleet(fleet(case, &target)));
    }

    match (resolve_spec_json(&spec, &target), decided.pop()) {
        (Ok(_), Some(decision)) => Outcome::Decided(Box::new(decision)),
        (Err(problems), None) => Outcome::Refused(problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect()),
        (resolved, decision) => panic!("resolved to {resolved:?}, decided {decision:?}"),
    }
}

fn fleet(case: &Case, target: &TargetId) -> FleetObservation {
    FleetObservation {
        target: target.clone(),
        uid: "1".to_owned(),
        term: 1,
        sequence: 1,
        revision: None,
        desired: case.current,
        status_replicas: case.status,
        updating: false,
        instances: case.instances.clone(),
    }
}

fn pane(sample: &Sample) -> Pane {
    let end = ago(sample.age);
    let last_at = end - Duration::from_millis(1);
    let reading = Reading { count: 1, sum: sample.value, max: sample.value, last: sample.value, last_at, histogram: None };
    let instance = if sample.instance.is_empty() { InstanceName::none() } else { sample.instance.parse().unwrap() };
    Pane { metric: sample.metric.parse().unwrap(), kind: Kind::Gauge, start: end - PANE, end, instances: [(instance, reading)].into(), sketch: None }
}

impl Expected {
    /// Whether an outcome is the HPA's answer, or how it is not.
    pub(crate) fn agrees_with(&self, outcome: &Outcome) -> Result<(), String> {
        let decision = match outcome {
            Outcome::Refused(errors) => return Err(format!("the policy was refused: {}", errors.join("; "))),
            Outcome::Decided(decision) => decision,
        };
        let metric = &decision.metrics[0];
        if self.error {
            // Nothing is known, so nothing is asked for and the count stands.
            let holds = decision.desired == decision.current && metric.proposal.is_none();
            let says_so = metric.status.is_blind() || metric.status == MetricStatus::Idle;
            return if holds && says_so { Ok(()) } else { Err(format!("an error was to be a hold: {decision:?}")) };
        }
        let stabilized = decision.steps.iter().any(|s| s.step == StepKind::Stabilize);
        same("proposal", self.proposal, metric.proposal, decision)?;
        same("value", self.value_milli, metric.value.map(Amount::milli_ceil), decision)?;
        same("count", self.desired, Some(decision.desired), decision)?;
        same("limit", self.limited.as_deref(), Some(limited(decision)), decision)?;
        same("active", self.active, Some(active(decision)), decision)?;
        same("stabilized", self.stabilized, Some(stabilized), decision)
    }
}

/// Whether what the HPA states, where it states it, is what came.
fn same<T: PartialEq + std::fmt::Debug + Copy>(what: &str, expected: Option<T>, got: Option<T>, decision: &Decision) -> Result<(), String> {
    if expected.is_none() || expected == got {
        return Ok(());
    }
    Err(format!("{what}: the HPA has {expected:?}, the fold {got:?}: metrics {:?}, steps {:?}", decision.metrics, decision.steps))
}

/// What the condition `ScalingActive` would say.
fn active(decision: &Decision) -> bool {
    let held = decision.steps.iter().any(|step| matches!(step.reason, Reason::BlindMetric | Reason::HoldWhileBlind | Reason::ScaledToZeroByHand));
    !held
}

/// What the condition `ScalingLimited` would say.
fn limited(decision: &Decision) -> &'static str {
    let limit = decision.steps.iter().rev().find_map(|step| match step.reason {
        Reason::BelowMin => Some("TooFewReplicas"),
        Reason::AboveMax | Reason::AboveMaxPaced => Some("TooManyReplicas"),
        Reason::ScaleOutRate | Reason::ScaleOutDisabled => Some("ScaleUpLimit"),
        Reason::ScaleInRate | Reason::ScaleInDisabled => Some("ScaleDownLimit"),
        _ => None,
    });
    limit.unwrap_or("DesiredWithinRange")
}
