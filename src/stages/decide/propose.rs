//! `Propose`: what each metric asks for.

use std::borrow::Cow;

use crate::model::policy::{MetricPolicy, MetricRule, Policy, Unit, WhenBlind};
use crate::model::{Amount, Kind, MetricReport, MetricStatus, ThresholdReport, ThresholdSide, Timestamp, WhileBlind};

use super::measure::Measured;
use super::memory::{Change, FleetSeen, MetricMemory};

pub(super) mod threshold;
pub(super) mod track;

/// What a proposal is computed from, besides the metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    /// The policy.
    pub(super) policy: &'a Policy,
    /// The count that is asked for now.
    pub(super) current: u32,
    /// The replicas as last seen.
    pub(super) fleet: &'a FleetSeen,
    /// The target's time.
    pub(super) now: Timestamp,
    /// Event time up to which panes are complete.
    pub(super) through: Timestamp,
    /// The last growth that took effect.
    pub(super) last_growth: Option<Change>,
    /// The last change that took effect.
    pub(super) last_change: Option<Change>,
}

/// A metric's value and what it asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Proposed {
    /// What the value is worth.
    pub(super) status: MetricStatus,
    /// The value.
    pub(super) value: Option<Amount>,
    /// The count, where it asks for one.
    pub(super) replicas: Option<u32>,
    /// Whether the count does not depend on the replicas that there are now.
    pub(super) absolute: bool,
    /// Why there is no value, or which instances did not count as they are.
    pub(super) note: Option<String>,
    /// Where the value stands to the limits of a threshold.
    pub(super) threshold: Option<ThresholdReport>,
    /// Whether the value is a rate, so much a second.
    pub(super) per_second: bool,
}

impl Proposed {
    /// Nothing to act on.
    pub(super) fn nothing(status: MetricStatus, note: Option<String>) -> Self {
        Proposed { status, value: None, replicas: None, absolute: false, note, threshold: None, per_second: false }
    }

    /// A value that asks for a count, or for none.
    pub(super) fn value(value: Amount, replicas: Option<u32>) -> Self {
        Proposed { status: MetricStatus::Ok, value: Some(value), replicas, absolute: false, note: None, threshold: None, per_second: false }
    }
}

/// What one metric asks for.
pub(super) fn propose(metric: &MetricPolicy, measured: Measured, memory: &mut MetricMemory, situation: Situation<'_>) -> Proposed {
    match (&metric.rule, measured) {
        (_, Measured::Nothing { status, note }) => {
            threshold::forget(memory);
            let failed = memory.source_error.clone().filter(|_| status == MetricStatus::Error);
            Proposed::nothing(status, failed.or_else(|| note.map(Cow::into_owned)))
        }
        (MetricRule::Utilization { percent }, Measured::Instances(figures)) => track::utilization(&metric.name, *percent, metric.window, &figures, situation),
        (MetricRule::Utilization { .. }, _) => {
            Proposed::nothing(MetricStatus::Error, Some("utilization needs samples of instances, these name none".to_owned()))
        }
        (MetricRule::PerReplica { amount }, Measured::Instances(figures)) => track::per_instance(&metric.name, *amount, metric.window, &figures, situation),
        (MetricRule::PerReplica { amount }, Measured::Whole(value)) => track::average_value(*amount, value, situation),
        (MetricRule::Value { amount }, Measured::Whole(value)) => track::value(*amount, value, situation),
        (MetricRule::Threshold(rule), Measured::Whole(value)) => threshold::threshold(rule, metric.window, value, memory, situation),
        (MetricRule::Observe, Measured::Whole(value)) => Proposed::value(value, None),
        (MetricRule::Value { .. } | MetricRule::Threshold(_) | MetricRule::Observe, _) => {
            Proposed::nothing(MetricStatus::Error, Some("its samples cannot be reduced to one value".to_owned()))
        }
    }
}

/// Whether a metric of this kind is read as so much a second. Core seconds a second are cores, and a ratio has no unit.
pub(super) fn is_rate(metric: &MetricPolicy, kind: Option<Kind>) -> bool {
    let whole = matches!(metric.rule, MetricRule::Utilization { .. }) || matches!(metric.unit, Unit::Ratio | Unit::Cores);
    matches!(kind, Some(Kind::Counter | Kind::Delta)) && !whole
}

/// The report of a metric in the record.
pub(super) fn report(metric: &MetricPolicy, proposed: &Proposed) -> MetricReport {
    let (unit, target) = match &metric.rule {
        MetricRule::Utilization { percent } => (Unit::Ratio, Some(Amount::from_millis(percent.saturating_mul(10)))),
        MetricRule::PerReplica { amount } | MetricRule::Value { amount } => (metric.unit, Some(*amount)),
        MetricRule::Threshold(rule) => {
            let beyond = proposed.threshold.as_ref().and_then(|threshold| match threshold.side {
                ThresholdSide::Above => rule.scale_out_above,
                ThresholdSide::Below => rule.scale_in_below,
                ThresholdSide::Between | ThresholdSide::Other => None,
            });
            (metric.unit, beyond)
        }
        MetricRule::Observe => (metric.unit, None),
    };
    MetricReport {
        name: metric.name.clone(),
        status: proposed.status,
        unit,
        value: proposed.value,
        target,
        proposal: proposed.replicas,
        note: proposed.note.clone(),
        threshold: proposed.threshold.clone(),
        while_blind: match metric.when_blind {
            _ if !metric.proposes() => WhileBlind::Observe,
            WhenBlind::HoldIn => WhileBlind::HoldIn,
            WhenBlind::Ignore => WhileBlind::Ignore,
        },
        per_second: proposed.per_second,
    }
}
