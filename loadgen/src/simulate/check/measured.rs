//! What decide measured of a metric of the target as a whole is what the parts in the log come to, added up anew from all
//! of them at each decision, in whatever order they came.
//!
//! Compared are values that decisions record, of a target whose policy is the one that it began with, until the clock is
//! set, or signals were lost. Of the moment of the decision itself the parts may have come before it or after: it must be one of these values.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::log::Offset;
use loadline::model::{Amount, Decision, FleetObservation, MetricName, MetricStatus, Order, Part, PolicyAnnouncement, Reading, Timestamp};

use super::super::policy::{Metric, Rule};
use super::super::world::number_of;
use super::{Plan, Violation};

pub(super) struct Measured {
    pane: Duration,
    targets: BTreeMap<usize, Target>,
    /// Nothing is told of any target any more.
    unsure: bool,
}

#[derive(Default)]
struct Target {
    policy: Option<String>,
    order: Option<Order>,
    /// Where its panes count from, and since when; `None`: nothing is told of it.
    begun: Option<(Offset, Timestamp)>,
    /// By metric and end of the pane.
    parts: BTreeMap<MetricName, BTreeMap<Timestamp, Vec<Came>>>,
    seen: Vec<Seen>,
}

/// What a part says of a pane.
struct Came {
    offset: Offset,
    at: Timestamp,
    reading: Reading,
}

/// An observation: its term and sequence, when it stood in the log, and the replicas that were there.
struct Seen {
    order: (i64, i64),
    at: Timestamp,
    replicas: u32,
}

impl Measured {
    pub(super) fn new(pane: Duration) -> Self {
        Measured { pane, targets: BTreeMap::new(), unsure: false }
    }

    /// The clock was set, or signals are gone that decide had not read.
    pub(super) fn unsure(&mut self) {
        self.unsure = true;
        self.targets.clear();
    }

    pub(super) fn policy(&mut self, announced: &PolicyAnnouncement, offset: Offset, at: Timestamp) {
        let target = self.targets.entry(number_of(&announced.target)).or_default();
        if target.order.as_ref().is_some_and(|known| known.is_newer_than(&announced.order)) {
            return;
        }
        target.order = Some(announced.order.clone());
        target.begun = match (&target.policy, &announced.spec) {
            (None, Some(_)) => Some((offset, at)),
            (Some(known), Some(spec)) if known == spec => target.begun,
            // It is gone; or another one came, and how far back its window reaches depends on the one before.
            _ => None,
        };
        target.policy.clone_from(&announced.spec);
    }

    pub(super) fn seen(&mut self, seen: &FleetObservation, at: Timestamp) {
        let of = self.targets.entry(number_of(&seen.target)).or_default();
        of.seen.push(Seen { order: (seen.term, seen.sequence), at, replicas: seen.status_replicas });
    }

    pub(super) fn part(&mut self, part: &Part, offset: Offset, at: Timestamp) {
        let target = self.targets.entry(number_of(&part.target)).or_default();
        for pane in &part.panes {
            for reading in pane.instances.iter().filter(|(instance, _)| instance.is_none()).map(|(_, reading)| reading) {
                let of = target.parts.entry(pane.metric.clone()).or_default();
                of.entry(pane.end).or_default().push(Came { offset, at, reading: reading.clone() });
            }
        }
    }

    /// Something was decided, by one of these policies. How many values were compared.
    pub(super) fn decision(&self, decision: &Decision, plans: &[&Plan]) -> Result<u64, Violation> {
        let (Some(target), [plan], false) = (self.targets.get(&number_of(&decision.target)), plans, self.unsure) else { return Ok(0) };
        let Some(begun) = target.begun.filter(|(_, at)| *at < decision.at) else { return Ok(0) };
        let mut compared = 0;
        for metric in plan.metrics.iter().filter(|metric| is_compared(metric.rule)) {
            let report = decision.metrics.iter().find(|report| report.name.as_str() == metric.rule.name());
            let Some(report) = report.filter(|report| report.status == MetricStatus::Ok) else { continue };
            let (Some(value), Some(parts)) = (report.value, target.parts.get(&report.name)) else { continue };
            let may_be = self.values(target, parts, metric, begun, decision);
            if !may_be.contains(&value) {
                let details = format!("{} is {value}, where the parts come to one of {may_be:?}: {decision:?}", metric.rule.name());
                return Err(Violation::new("what decide measures is what the parts in the log come to", details));
            }
            compared += 1;
        }
        Ok(compared)
    }

    fn values(
        &self,
        target: &Target,
        parts: &BTreeMap<Timestamp, Vec<Came>>,
        metric: &Metric,
        (begun, begun_at): (Offset, Timestamp),
        decision: &Decision,
    ) -> Vec<Amount> {
        let (now, through) = (decision.at, decision.through);
        let counts = |came: &&Came| came.offset >= begun && came.at <= now;
        let all = |end: Timestamp| parts.get(&end).into_iter().flatten().filter(counts);
        // Increments of the pane in which it began were seen in part.
        let partial = if begun_at == begun_at.window_start(self.pane) { begun_at } else { begun_at.window_start(self.pane) + self.pane };
        let delta = matches!(metric.rule, Rule::Orders(_) | Rule::Observed);
        let since = through - Duration::from_secs(metric.window_s);
        let since = if delta { since.max(partial) } else { since };
        let ends: Vec<Timestamp> = parts.keys().filter(|end| **end > since && **end <= through).copied().collect();
        let stale = Duration::from_secs(metric.stale_s);
        let earlier: Vec<Timestamp> = parts.keys().filter(|end| **end <= since && now.since(**end) <= stale).copied().collect();
        // Up to where the parts of this very moment were there.
        let mut known: Vec<Offset> = ends.iter().chain(&earlier).flat_map(|end| all(*end)).filter(|came| came.at == now).map(|came| came.offset + 1).collect();
        known.extend([0, Offset::MAX]);
        let before = target.seen.iter().filter(|seen| seen.at < now).max_by_key(|seen| seen.order);
        let newest = before.map(|before| before.order);
        let replicas: Vec<u32> =
            before.into_iter().chain(target.seen.iter().filter(|seen| seen.at == now && Some(seen.order) > newest)).map(|seen| seen.replicas).collect();
        let mut values = Vec::new();
        for known in known {
            let there = |end: &Timestamp| all(*end).filter(|came| came.at < now || came.offset < known).map(|came| &came.reading).collect::<Vec<_>>();
            let window: Vec<&Reading> = ends.iter().flat_map(there).collect();
            let value = if !window.is_empty() {
                measure(metric.rule, &window, millis(through) - millis(since))
            } else if delta {
                None
            } else {
                earlier.iter().rev().map(there).find(|readings| !readings.is_empty()).and_then(|readings| last(&readings))
            };
            let Some(value) = value else { continue };
            match metric.rule {
                Rule::Queue(_) | Rule::Orders(_) => values.extend(replicas.iter().map(|replicas| value.mean(u64::from(*replicas)).unwrap_or(value))),
                _ => values.push(value),
            }
        }
        values
    }
}

/// Those of the target as a whole.
fn is_compared(rule: Rule) -> bool {
    matches!(rule, Rule::Queue(_) | Rule::Orders(_) | Rule::Backlog(..) | Rule::Observed)
}

fn measure(rule: Rule, readings: &[&Reading], window_ms: i64) -> Option<Amount> {
    let sum = readings.iter().map(|reading| reading.sum).fold(Amount::ZERO, |sum, one| sum + one);
    match rule {
        Rule::Queue(_) => sum.mean(readings.iter().map(|reading| reading.count.unsigned_abs()).sum()),
        Rule::Backlog(..) => last(readings),
        _ => Some(sum.per_second(window_ms)),
    }
}

/// The newest sample; of several of the same time the largest.
fn last(readings: &[&Reading]) -> Option<Amount> {
    readings.iter().map(|reading| (reading.last_at, reading.last)).max().map(|(_, last)| last)
}

fn millis(at: Timestamp) -> i64 {
    at.as_millis()
}
