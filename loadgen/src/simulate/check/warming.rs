//! A threshold steps out no further while the instances of its last step are not ready, for as long as it may wait for them.

use std::collections::BTreeMap;

use loadline::model::{Decision, Timestamp};

use super::super::scenario::{Fault, Millis, Scenario};
use super::super::world::Change;
use super::{Plan, Violation};

pub(super) struct Warming {
    /// From when to when (virtual time) which target is not seen as it is, or is changed by others too; `None`: all of them.
    excepted: Vec<(Option<usize>, Millis, Millis)>,
    /// The last growth of each target: in virtual time, by the log's clock, to what.
    grown: BTreeMap<usize, (Millis, Timestamp, u32)>,
}

/// A command that was decided while something was so may take effect for so long after it.
const LINGERS: Millis = 35_000;

impl Warming {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let excepted = scenario.faults.iter().filter_map(|planned| {
            let (target, lasts) = match &planned.fault {
                Fault::ByHand { target, .. } | Fault::Recreated { target, .. } | Fault::PolicyEdited { target, .. } => (Some(*target), 0),
                // Somebody is faster with a later call.
                Fault::Raced { target, .. } => (Some(*target), Millis::MAX / 2),
                Fault::PolicyGone { target, lasts }
                | Fault::Unseen { target, lasts }
                | Fault::ActuationSlow { target, lasts, .. }
                | Fault::ActuationFails { target, lasts, .. } => (Some(*target), *lasts),
                Fault::SeenLate { target, late, lasts } => (Some(*target), late + lasts),
                Fault::NewTerm { echo } => (None, *echo),
                Fault::ClockSet { by } => (None, if (-60_000..0).contains(by) { -by } else { 0 }),
                _ => return None,
            };
            Some((target, planned.at, planned.at + lasts + LINGERS))
        });
        Warming { excepted: excepted.collect(), grown: BTreeMap::new() }
    }

    /// A command took effect.
    pub(super) fn change(&mut self, change: &Change, decision: &Decision, plan: &Plan) -> Result<(), Violation> {
        let before = if change.to > change.from { self.grown.insert(change.target, (change.at, change.clock, change.to)) } else { None };
        let only_thresholds = plan.metrics.iter().all(|metric| metric.rule.step_out(1).is_some());
        if !only_thresholds || plan.fallback.1 != "Hold" {
            return Ok(());
        }
        let Some((grown, grown_at, grown_to)) = before else { return Ok(()) };
        let concerns = |target: &Option<usize>| target.is_none_or(|target| target == change.target);
        if self.excepted.iter().any(|(target, from, until)| concerns(target) && *from <= change.at && *until >= grown) {
            return Ok(());
        }
        // Decided before the last growth, or from below it: not a further step.
        if decision.at <= grown_at || decision.current < grown_to || change.from < plan.min {
            return Ok(());
        }
        let waits = std::time::Duration::from_secs(plan.startup_s[0]);
        if change.unready > 0 && change.clock < grown_at + waits {
            let invariant = "a threshold waits for the instances of its last step";
            return Err(Violation::new(invariant, format!("{change:?} after a growth to {grown_to} at {grown_at}: {decision:?}")));
        }
        Ok(())
    }
}
