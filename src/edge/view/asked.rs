//! What the policies ask for, for those who take samples: what nobody asks for is dropped in the end.
//!
//! A policy is known by its announcement, or by an evaluation. Until both must have come, nothing is said to be unknown.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Known, View};
use crate::model::policy::nearest_metric;
use crate::model::spelling::nearest;
use crate::model::{MetricName, TargetId, Timestamp};

/// How long announcements may be on their way once the log has been read: from a policy's file to here they take well under a second.
const ON_THE_WAY: Duration = Duration::from_secs(10);

/// The same where audit reaches further back than was read, so that older announcements are not known: each target with a policy is evaluated
/// every three minutes.
const EVALUATED_AGAIN: Duration = Duration::from_secs(200);

/// The most names that are compared to find the one that was meant.
const MOST_COMPARED: usize = 2_000;

/// The most metrics of a policy that are listed where none was meant.
const MOST_NAMED: usize = 5;

/// Whether a policy asks for a metric of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It does.
    Yes,
    /// That is not known.
    NotKnown,
    /// No policy names the target.
    NoPolicy,
    /// The target's policy does not name the metric.
    NoMetric,
}

impl View {
    /// Whether every policy in force is known.
    pub fn policies_are_known(&self, now: Timestamp) -> bool {
        let wait = if self.audit_is_cut.load(Ordering::Relaxed) { EVALUATED_AGAIN } else { ON_THE_WAY };
        self.caught_up_at.get().is_some_and(|at| now.since(*at) >= wait) && self.beyond_limit() == 0
    }

    /// Whether a policy asks for `metric` of `target`; only where the policies are known.
    pub fn asked(&self, target: &TargetId, metric: &MetricName) -> Asked {
        let Some(known) = self.targets.get(target) else { return Asked::NoPolicy };
        if !known.has_policy() {
            return Asked::NoPolicy;
        }
        let mut asked = Asked::NotKnown;
        for name in known.asked_metrics() {
            if name == metric {
                return Asked::Yes;
            }
            asked = Asked::NoMetric;
        }
        asked
    }

    /// The metrics that the policy of a target asks for, as far as they are known.
    fn asked_metrics(&self, target: &TargetId) -> Vec<MetricName> {
        self.targets.get(target).map(|known| known.asked_metrics().cloned().collect()).unwrap_or_default()
    }

    /// Why a metric of a target is asked for by nobody, with what was probably meant; without a metric, why none of the target is.
    pub fn unasked(&self, target: &TargetId, metric: Option<&MetricName>) -> String {
        let Some(metric) = metric else {
            return match self.meant_target(target) {
                Some(meant) => format!("no policy names target {target}; did you mean {meant}?"),
                None => format!("no policy names target {target}: until one does, its samples are not used"),
            };
        };
        let asked = self.asked_metrics(target);
        if let Some(meant) = nearest_metric(metric.as_str(), asked.iter().map(MetricName::as_str)) {
            return format!("the policy of {target} has no metric {metric}; did you mean {meant}?");
        }
        let named: Vec<&str> = asked.iter().take(MOST_NAMED).map(MetricName::as_str).collect();
        let more = if asked.len() > MOST_NAMED { format!(" and {} more", asked.len() - MOST_NAMED) } else { String::new() };
        format!("the policy of {target} has no metric {metric}: it has {}{more}", named.join(", "))
    }

    /// The target with a policy that was probably meant by one that has none: nearly the same name beside it, or the same name elsewhere.
    fn meant_target(&self, target: &TargetId) -> Option<TargetId> {
        let beside = |other: &TargetId| (other.namespace(), other.kind()) == (target.namespace(), target.kind());
        let near = |other: &TargetId| {
            other.name() == target.name() || (beside(other) && other.name().len().abs_diff(target.name().len()) <= target.name().len() / 2 + 1)
        };
        let named = self.targets.iter().filter(|entry| near(entry.key()) && entry.value().has_policy()).map(|entry| entry.key().clone());
        let mut named: Vec<TargetId> = named.take(MOST_COMPARED).collect();
        named.sort();
        if let Some(name) = nearest(target.name(), named.iter().filter(|other| beside(other)).map(TargetId::name)) {
            return named.iter().find(|other| beside(other) && other.name() == name).cloned();
        }
        let elsewhere = nearest(target.as_str(), named.iter().filter(|other| other.name() == target.name()).map(TargetId::as_str));
        elsewhere.and_then(|id| id.parse().ok())
    }
}

impl Known {
    /// An announcement says so; or an evaluation, where the announcement was not seen.
    fn has_policy(&self) -> bool {
        match &self.policy {
            Some((policy, _)) => policy.spec.is_some(),
            None => self.latest.is_some(),
        }
    }

    /// By its policy; where that cannot be read here, by the last evaluation.
    fn asked_metrics(&self) -> impl Iterator<Item = &MetricName> {
        let in_force = self.in_force();
        let written = in_force.into_iter().flat_map(|facts| facts.rules.keys());
        let is_written = in_force.is_some_and(|facts| !facts.rules.is_empty());
        let evaluated = self.latest.iter().filter(move |_| !is_written).flat_map(|latest| latest.metrics.iter().map(|metric| &metric.name));
        written.chain(evaluated)
    }
}
