//! The blind never shrink: a metric that nobody measured lately, or whose part of the pipeline is silent, lets no target
//! have fewer replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::model::{Decision, MetricStatus, Reason, SampleBatch, TargetId, Timestamp};
use loadline::stages::aggregate::Aggregate;

use super::super::policy::Rule;
use super::super::scenario::{Millis, Scenario};
use super::super::world::{Change, number_of};
use super::{Plan, Violation};

/// Ticks come once a second, and a look may take as long; then a bit.
const SLACK: Duration = Duration::from_secs(4);

/// After the clock was set, a command may be of the time before.
const SET_FOR: Millis = 35_000;

/// A target that was not seen for so long does not shrink.
const UNSEEN_FOR: Duration = Duration::from_secs(180);

/// A sample's own time, that of its record, and its source partition.
type Seen = (Timestamp, Timestamp, u32);

pub(super) struct Sight {
    pane: Duration,
    grace: Duration,
    /// Of each target and metric: the samples' own times with the times of their records and the source partitions, in the order of the log.
    samples: BTreeMap<(usize, String), Vec<Seen>>,
    /// When each source marked in each partition of signals.
    marks: BTreeMap<(u32, u32), Vec<Timestamp>>,
    /// When each target was seen.
    seen: BTreeMap<usize, Vec<Timestamp>>,
    /// The clock was set: until then (virtual time) times cannot be compared.
    unsure_until: Millis,
}

impl Sight {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        Sight { pane: aggregate.pane, grace: aggregate.grace, samples: BTreeMap::new(), marks: BTreeMap::new(), seen: BTreeMap::new(), unsure_until: 0 }
    }

    /// Where it was set back by no more than a minute the stages stay at the time before until it has come again; a command
    /// that was decided before may take effect until it expires.
    pub(super) fn clock_set(&mut self, by: Millis, now: Millis, clock: Timestamp) {
        // What was seen later than now counts as seen now.
        self.seen.values_mut().flatten().for_each(|at| *at = (*at).min(clock));
        let stands = if (-60_000..0).contains(&by) { -by } else { 0 };
        self.unsure_until = self.unsure_until.max(now + stands + SET_FOR);
    }

    pub(super) fn samples(&mut self, batch: &SampleBatch, source: u32, at: Timestamp) {
        for sample in batch.samples.iter().filter(|s| s.value.is_finite() && s.time <= at + Duration::from_secs(30)) {
            for target in &sample.targets {
                self.samples.entry((number_of(target), sample.metric.as_str().to_owned())).or_default().push((sample.time, at, source));
            }
        }
    }

    pub(super) fn seen(&mut self, target: &TargetId, at: Timestamp) {
        self.seen.entry(number_of(target)).or_default().push(at);
    }

    pub(super) fn mark(&mut self, source: u32, partition: u32, at: Timestamp) {
        self.marks.entry((source, partition)).or_default().push(at);
    }

    /// A command took effect: where it removed replicas, the decision behind it could see.
    pub(super) fn change(&self, change: &Change, decision: &Decision, plan: &Plan, scenario: &Scenario) -> Result<(), Violation> {
        let excepted = |reason| matches!(reason, Reason::FallbackStatic | Reason::AboveMaxPaced | Reason::AboveMax);
        if change.to >= change.from || change.at < self.unsure_until || decision.steps.iter().any(|step| excepted(step.reason)) {
            return Ok(());
        }
        let seen = self.seen.get(&change.target).map_or(&[][..], Vec::as_slice);
        let last = seen.iter().filter(|at| **at <= decision.at).max();
        if last.is_none_or(|last| decision.at.since(*last) > UNSEEN_FOR) {
            return Err(Violation::new("what nobody sees does not shrink", format!("{change:?}, last seen at {last:?}: {decision:?}")));
        }
        let invariant = "the blind never shrink";
        for metric in plan.metrics.iter().filter(|m| m.rule != Rule::Observed && !m.ignore) {
            // Without observations there is nothing to measure; of any other metric it is never so while there are instances.
            let idle = decision.metrics.iter().any(|m| m.name.as_str() == metric.rule.name() && m.status == MetricStatus::Idle);
            let nothing_to_measure = idle && matches!(metric.rule, Rule::Latency(..) | Rule::Duration(..));
            let of = (change.target, metric.rule.name().to_owned());
            let known = self.samples.get(&of).map_or(&[][..], Vec::as_slice);
            let newest = known.iter().filter(|(_, at, _)| *at <= decision.at).max();
            let oldest = decision.at - Duration::from_secs(metric.stale_s) - self.pane - self.grace - SLACK;
            if nothing_to_measure && newest.is_none() {
                continue;
            }
            let Some((time, _, source)) = newest.filter(|(time, _, _)| nothing_to_measure || *time >= oldest) else {
                let age = newest.map(|(time, _, _)| decision.at.since(*time));
                let details = format!(
                    "t{} {} -> {}: the newest sample of {} is of {age:?} before the decision: {decision:?}",
                    change.target,
                    change.from,
                    change.to,
                    metric.rule.name()
                );
                return Err(Violation::new(invariant, details));
            };
            if scenario.targets.iter().any(|t| t.number == change.target && t.spread) {
                continue;
            }
            let patience = (self.pane * 2).max(Duration::from_secs(2)) + SLACK;
            let marks = self.marks.iter().filter(|((of, _), _)| of == source).flat_map(|(_, at)| at);
            let last = marks.filter(|at| **at <= decision.at).max();
            if last.is_none_or(|last| decision.at.since(*last) > patience) {
                let silence = last.map(|last| decision.at.since(*last));
                let details = format!(
                    "t{} {} -> {}: source {source} of {} (sample of {time}) had been silent for {silence:?}: {decision:?}",
                    change.target,
                    change.from,
                    change.to,
                    metric.rule.name()
                );
                return Err(Violation::new(invariant, details));
            }
        }
        Ok(())
    }
}
