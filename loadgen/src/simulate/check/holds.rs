//! A threshold steps only where its value was beyond it for as long as `for` says, and for as long again after the last
//! change. Told from the values that the decisions themselves record.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::model::{Amount, Decision, FleetObservation, MetricStatus, Timestamp};

use super::super::world::number_of;
use super::{Plan, Violation};

/// More values than any `for` needs.
const MOST_VALUES: usize = 128;

#[derive(Default)]
pub(super) struct Holds(BTreeMap<usize, Target>);

#[derive(Default)]
struct Target {
    uid: String,
    /// The last decision: number, time, count.
    last: Option<(i64, Timestamp, u32)>,
    /// When something came that is no change of the count to wait for: another incarnation, another policy.
    anew: Vec<Timestamp>,
    /// No later than the last growth, and the last change.
    grown: Option<Timestamp>,
    changed: Option<Timestamp>,
    values: BTreeMap<String, Values>,
}

/// The values of a metric without a gap, each with the time up to which it was measured.
#[derive(Default)]
struct Values {
    known: Vec<(Timestamp, Amount)>,
    /// There were others before, which are not known.
    more: bool,
}

impl Values {
    /// Since when it has been so, to the end.
    fn since(&self, so: impl Fn(Amount) -> bool) -> Timestamp {
        let since = self.known.iter().rev().take_while(|(_, value)| so(*value)).last().map_or(Timestamp::MIN, |(through, _)| *through);
        if self.more && self.known.iter().all(|(_, value)| so(*value)) { Timestamp::MIN } else { since }
    }
}

impl Holds {
    /// What was remembered for later than now is remembered as of now.
    pub(super) fn clock_set(&mut self) {
        for target in self.0.values_mut() {
            target.anew.push(Timestamp::MIN);
            target.values.values_mut().for_each(|values| values.more = true);
        }
    }

    /// A target's policy came, or is gone.
    pub(super) fn begins_anew(&mut self, target: usize, at: Timestamp) {
        self.0.entry(target).or_default().anew.push(at);
    }

    /// Replicas were seen.
    pub(super) fn seen(&mut self, seen: &FleetObservation, at: Timestamp) {
        let target = self.0.entry(number_of(&seen.target)).or_default();
        if target.uid != seen.uid {
            target.uid.clone_from(&seen.uid);
            target.anew.push(at);
        }
    }

    /// Something was decided, by one of these policies.
    pub(super) fn decision(&mut self, decision: &Decision, plans: &[&Plan]) -> Result<(), Violation> {
        let target = self.0.entry(number_of(&decision.target)).or_default();
        let before = target.last.replace((decision.sequence, decision.at, decision.current));
        if let Some((sequence, at, count)) = before {
            let at = at.min(decision.at);
            if sequence + 1 != decision.sequence {
                target.values.values_mut().for_each(|values| *values = Values { known: Vec::new(), more: true });
            }
            if at == decision.at {
                (target.grown, target.changed) = (target.grown.map(|grown| grown.min(at)), target.changed.map(|changed| changed.min(at)));
            }
            let anew = target.anew.iter().any(|marker| *marker <= decision.at);
            // One of the same moment may have come after this decision.
            target.anew.retain(|marker| *marker >= decision.at);
            if anew {
                (target.grown, target.changed) = (None, None);
            } else if count != decision.current {
                target.changed = Some(at);
                target.grown = if decision.current > count { Some(at) } else { target.grown };
            }
        }
        for report in &decision.metrics {
            let values = target.values.entry(report.name.as_str().to_owned()).or_default();
            let Some(value) = report.value.filter(|_| report.status == MetricStatus::Ok) else {
                *values = Values::default();
                continue;
            };
            if values.known.last().is_some_and(|(last, _)| *last > decision.through) {
                *values = Values::default();
            }
            values.known.push((decision.through, value));
            if values.known.len() > MOST_VALUES {
                values.known.remove(0);
                values.more = true;
            }
            let Some(asked) = report.proposal.filter(|asked| *asked != decision.current) else { continue };
            let out = asked > decision.current;
            let last = if out { target.grown } else { target.changed };
            // What no threshold of these asks for is another policy's: it is looked at by others.
            let metrics = || plans.iter().flat_map(|plan| &plan.metrics).filter(|metric| metric.rule.name() == report.name.as_str());
            let allows = |(above, below, hold): (Amount, Option<Amount>, Duration)| {
                let since = if out { values.since(|value| value > above) } else { values.since(|value| below.is_some_and(|below| value < below)) };
                let is_beyond = if out { value > above } else { below.is_some_and(|below| value < below) };
                is_beyond && last.map_or(since, |last| since.max(last)) + hold <= decision.through
            };
            let mut rules = metrics().map(|metric| Some((metric.rule.threshold()?, Duration::from_secs(metric.for_s))));
            if !rules.all(|rule| rule.is_some_and(|((above, below), hold)| !allows((above, below, hold)))) || metrics().next().is_none() {
                continue;
            }
            let details = format!("{} asks for {asked}; its values are {:?}, the last change before was at {last:?}: {decision:?}", report.name, values.known);
            return Err(Violation::new("a threshold steps only where its value was beyond it for long enough", details));
        }
        Ok(())
    }
}
