//! The blind never shrink: a metric that nobody measured lately, or whose part of the pipeline is silent, lets no target
//! have fewer replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loadline::model::{Decision, FleetObservation, InstanceName, Mark, MetricName, MetricStatus, PolicyAnnouncement, Reason, SampleBatch, Timestamp};
use loadline::stages::aggregate::Aggregate;
use serde_json::Value;

use super::super::policy::Rule;
use super::super::scenario::Millis;
use super::super::world::{Change, number_of};
use super::{Plan, Violation};

/// Ticks come once a second, and a look may take as long; then a bit.
const SLACK: Duration = Duration::from_secs(4);

/// After the clock was set, a command may be of the time before.
const SET_FOR: Millis = 35_000;

/// A target that was not seen for so long does not shrink.
const UNSEEN_FOR: Duration = Duration::from_secs(180);

/// A sample's own time, and that of its record.
type Measured = (Timestamp, Timestamp);

/// The samples of each source partition and instance.
type BySource = BTreeMap<(u32, InstanceName), Vec<Measured>>;

/// An observation: its term and sequence, when it stood in the log, and the instances that it lists.
struct Seen {
    order: (i64, i64),
    at: Timestamp,
    instances: BTreeSet<InstanceName>,
}

/// A mark: when it stood in the log, and up to when all of its source was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Marked {
    at: Timestamp,
    through: Timestamp,
}

/// The metrics that the policy in force names, each with when it came.
#[derive(Default)]
struct Asked {
    spec: Option<String>,
    since: BTreeMap<String, Timestamp>,
}

const INVARIANT: &str = "the blind never shrink";

pub(super) struct Sight {
    pane: Duration,
    grace: Duration,
    /// Of each target and metric, by source partition and instance: the samples, in the order of the log.
    samples: BTreeMap<(usize, MetricName), BySource>,
    /// What each source marked in each partition of signals.
    marks: BTreeMap<(u32, u32), Vec<Marked>>,
    /// When each target was seen, and what was.
    seen: BTreeMap<usize, Vec<Seen>>,
    asked: BTreeMap<usize, Asked>,
    /// The clock was set: until then (virtual time) times cannot be compared.
    unsure_until: Millis,
}

impl Sight {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        Sight {
            pane: aggregate.pane,
            grace: aggregate.grace,
            samples: BTreeMap::new(),
            marks: BTreeMap::new(),
            seen: BTreeMap::new(),
            asked: BTreeMap::new(),
            unsure_until: 0,
        }
    }

    /// Where it was set back by no more than a minute the stages stay at the time before until it has come again; a command
    /// that was decided before may take effect until it expires.
    pub(super) fn clock_set(&mut self, by: Millis, now: Millis, clock: Timestamp) {
        // What was seen later than now counts as seen now.
        self.seen.values_mut().flatten().for_each(|seen| seen.at = seen.at.min(clock));
        let stands = if (-60_000..0).contains(&by) { -by } else { 0 };
        self.unsure_until = self.unsure_until.max(now + stands + SET_FOR);
    }

    pub(super) fn samples(&mut self, batch: &SampleBatch, source: u32, at: Timestamp) {
        for sample in batch.samples.iter().filter(|s| s.value.is_finite() && s.time <= at + Duration::from_secs(30)) {
            for target in &sample.targets {
                let of = self.samples.entry((number_of(target), sample.metric.clone())).or_default();
                of.entry((source, sample.instance.clone())).or_default().push((sample.time, at));
            }
        }
    }

    pub(super) fn seen(&mut self, seen: &FleetObservation, at: Timestamp) {
        let instances = seen.instances.iter().map(|instance| instance.name.clone()).collect();
        self.seen.entry(number_of(&seen.target)).or_default().push(Seen { order: (seen.term, seen.sequence), at, instances });
    }

    pub(super) fn mark(&mut self, mark: &Mark, partition: u32, at: Timestamp) {
        self.marks.entry((mark.source, partition)).or_default().push(Marked { at, through: mark.through.min(at) });
    }

    /// A policy was announced: what it names and the one before did not is measured from here on.
    pub(super) fn policy(&mut self, policy: &PolicyAnnouncement, at: Timestamp) {
        let asked = self.asked.entry(number_of(&policy.target)).or_default();
        if asked.spec == policy.spec {
            return;
        }
        asked.spec.clone_from(&policy.spec);
        let spec: Value = policy.spec.as_deref().and_then(|spec| serde_json::from_str(spec).ok()).unwrap_or_default();
        let names = spec["metrics"].as_array().into_iter().flatten().filter_map(|metric| metric["name"].as_str());
        asked.since = names.map(|name| (name.to_owned(), asked.since.get(name).copied().unwrap_or(at))).collect();
    }

    /// A command took effect: where it removed replicas, the decision behind it could see.
    pub(super) fn change(&self, change: &Change, decision: &Decision, plan: &Plan) -> Result<(), Violation> {
        let to_max = change.to >= plan.max;
        let excepted = |reason| reason == Reason::FallbackStatic || to_max && matches!(reason, Reason::AboveMaxPaced | Reason::AboveMax);
        if change.to >= change.from || change.at < self.unsure_until || decision.steps.iter().any(|step| excepted(step.reason)) {
            return Ok(());
        }
        let seen = self.seen.get(&change.target).map_or(&[][..], Vec::as_slice);
        let last = seen.iter().map(|seen| seen.at).filter(|at| *at <= decision.at).max();
        if last.is_none_or(|last| decision.at.since(last) > UNSEEN_FOR) {
            return Err(Violation::new("what nobody sees does not shrink", format!("{change:?}, last seen at {last:?}: {decision:?}")));
        }
        for metric in plan.metrics.iter().filter(|m| m.rule != Rule::Observed && !m.ignore) {
            // Without observations there is nothing to measure; of any other metric it is never so while there are instances.
            let idle = decision.metrics.iter().any(|m| m.name.as_str() == metric.rule.name() && m.status == MetricStatus::Idle);
            let nothing_to_measure = idle && matches!(metric.rule, Rule::Latency(..) | Rule::Duration(..));
            let Ok(name) = metric.rule.name().parse::<MetricName>() else { continue };
            let of = (change.target, name);
            let known = || self.samples.get(&of).into_iter().flatten();
            let newest = known().flat_map(|(_, samples)| samples).filter(|(_, at)| *at <= decision.at).max();
            let oldest = decision.at - Duration::from_secs(metric.stale_s) - self.pane - self.grace - SLACK;
            if nothing_to_measure && newest.is_none() {
                continue;
            }
            if newest.is_none_or(|(time, _)| !nothing_to_measure && *time < oldest) {
                let age = newest.map(|(time, _)| decision.at.since(*time));
                let details = format!(
                    "t{} {} -> {}: the newest sample of {} is of {age:?} before the decision: {decision:?}",
                    change.target,
                    change.from,
                    change.to,
                    metric.rule.name()
                );
                return Err(Violation::new(INVARIANT, details));
            }
            let asked = self.asked.get(&change.target).and_then(|asked| asked.since.get(metric.rule.name()));
            let listed = listed(seen, decision.at);
            let untold = listed
                .iter()
                .filter(|instance| known().filter(|((_, of), _)| of == *instance).flat_map(|(_, samples)| samples).all(|(time, _)| *time < oldest));
            let untold = u32::try_from(untold.count()).unwrap_or(u32::MAX);
            if metric.rule.tracks_each_instance() && !metric.ignore && change.to < untold {
                let details = format!(
                    "t{} {} -> {}: {untold} of its instances have told nothing of {} lately: {decision:?}",
                    change.target,
                    change.from,
                    change.to,
                    metric.rule.name()
                );
                return Err(Violation::new("what an instance does not tell makes no fleet smaller", details));
            }
            for ((source, instance), samples) in known().filter(|((_, instance), _)| instance.is_none() || listed.contains(instance)) {
                let Some(mark) = self.silent_since(*source, decision.at) else { continue };
                // What it had said before it fell silent, and what counted then: it counts until it is heard again, or gone.
                let had_said = |(_, at): &&Measured| *at < mark.through && asked.is_some_and(|since| at > since);
                let Some((time, _)) = samples.iter().filter(had_said).max() else { continue };
                if *time > mark.at - Duration::from_secs(metric.stale_s) {
                    let details = format!(
                        "t{} {} -> {}: source {source} of {} (instance {instance:?}, sample of {time}) had been silent since {}: {decision:?}",
                        change.target,
                        change.from,
                        change.to,
                        metric.rule.name(),
                        mark.at
                    );
                    return Err(Violation::new(INVARIANT, details));
                }
            }
        }
        Ok(())
    }

    /// The last mark of a source, where it is longer ago than a source may take.
    fn silent_since(&self, source: u32, at: Timestamp) -> Option<Marked> {
        let patience = (self.pane * 2).max(Duration::from_secs(2)) + SLACK;
        let marks = self.marks.iter().filter(|((of, _), _)| *of == source).flat_map(|(_, marks)| marks);
        marks.filter(|mark| mark.at <= at).max().filter(|mark| at.since(mark.at) > patience).copied()
    }
}

/// The instances that the fleet listed: in the newest observation before a moment, and in those of the moment
/// itself, of which a decision may have known some.
fn listed(seen: &[Seen], at: Timestamp) -> BTreeSet<InstanceName> {
    let before = seen.iter().filter(|seen| seen.at < at).max_by_key(|seen| seen.order);
    let known = before.into_iter().chain(seen.iter().filter(|seen| seen.at == at)).map(|seen| seen.instances.clone());
    known.reduce(|all, seen| all.intersection(&seen).cloned().collect()).unwrap_or_default()
}
