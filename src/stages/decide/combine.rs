//! `Combine`: the largest proposal, unless something is unknown.
//!
//! A blind metric lets no target shrink; the others may still drive it out. Nothing known at all:
//! the count stands, and `Fallback` has the word.

use crate::model::policy::{MetricPolicy, WhenBlind};
use crate::model::{MetricName, MetricStatus, Reason};

use super::propose::Proposed;

/// What the metrics come to, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Combined {
    /// The count.
    pub(super) after: u32,
    /// Why.
    pub(super) reason: Reason,
    /// The metric whose proposal it is, or that is blind.
    pub(super) metric: Option<MetricName>,
    /// The largest proposal that does not depend on the replicas that there are now.
    pub(super) absolute: Option<u32>,
    /// Whether `after` is a proposal of the metrics, to be remembered for stabilization.
    pub(super) proposed: bool,
    /// All proposing metrics are blind.
    pub(super) all_blind: bool,
    /// All proposing metrics are idle.
    pub(super) all_idle: bool,
}

/// Combines what the metrics ask for.
pub(super) fn combine(current: u32, metrics: &[(&MetricPolicy, &Proposed)], fleet_unseen: bool) -> Combined {
    let mut largest: Option<(u32, &MetricName)> = None;
    let mut blind: Option<&MetricName> = None;
    let (mut proposing, mut blind_count, mut idle_count) = (0, 0, 0);
    for (policy, proposed) in metrics {
        if !policy.proposes() {
            continue;
        }
        proposing += 1;
        if proposed.status.is_blind() {
            blind_count += 1;
            if policy.when_blind == WhenBlind::HoldIn {
                blind = blind.or(Some(&policy.name));
            }
        } else if proposed.status == MetricStatus::Idle {
            idle_count += 1;
        }
        if let Some(replicas) = proposed.replicas
            && largest.is_none_or(|(most, _)| replicas > most)
        {
            largest = Some((replicas, &policy.name));
        }
    }
    let absolute = metrics.iter().filter(|(_, proposed)| proposed.absolute).filter_map(|(_, proposed)| proposed.replicas).max();
    let hold = |reason, metric: Option<&MetricName>| Combined {
        after: current,
        reason,
        metric: metric.cloned(),
        absolute,
        proposed: false,
        all_blind: proposing > 0 && blind_count == proposing,
        all_idle: proposing > 0 && idle_count == proposing,
    };
    match (largest, blind) {
        _ if proposing > 0 && blind_count == proposing => hold(Reason::HoldWhileBlind, None),
        (None, _) => hold(Reason::NoProposal, None),
        (Some((replicas, _)), Some(blind)) if replicas < current => hold(Reason::BlindMetric, Some(blind)),
        (Some((replicas, _)), None) if replicas < current && fleet_unseen => hold(Reason::FleetUnseen, None),
        (Some((replicas, metric)), _) => Combined { after: replicas, proposed: true, ..hold(Reason::LargestProposal, Some(metric)) },
    }
}
