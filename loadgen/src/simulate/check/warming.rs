//! A threshold steps out no further while the instances of its last step are not ready, for as long as it may wait for them.

use std::collections::BTreeMap;

use loadline::model::{Decision, Timestamp};

use super::super::scenario::{Fault, Scenario};
use super::super::world::Change;
use super::{Plan, Violation};

pub(super) struct Warming {
    /// Targets that somebody else changes too, or that are not seen as they are.
    excepted: Vec<usize>,
    /// A clock that is set is not the one that they wait by.
    set: bool,
    /// The last growth of each target.
    grown: BTreeMap<usize, (Timestamp, u32)>,
}

impl Warming {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let excepted = scenario.faults.iter().filter_map(|planned| match planned.fault {
            Fault::ByHand { target, .. }
            | Fault::Recreated { target, .. }
            | Fault::PolicyEdited { target, .. }
            | Fault::PolicyGone { target, .. }
            | Fault::Unseen { target, .. }
            | Fault::SeenLate { target, .. }
            | Fault::Raced { target, .. }
            | Fault::ActuationSlow { target, .. }
            | Fault::ActuationFails { target, .. } => Some(target),
            _ => None,
        });
        let set = scenario.faults.iter().any(|planned| matches!(planned.fault, Fault::ClockSet { .. } | Fault::NewTerm { .. }));
        Warming { excepted: excepted.collect(), set, grown: BTreeMap::new() }
    }

    /// A command took effect.
    pub(super) fn change(&mut self, change: &Change, decision: &Decision, plan: &Plan) -> Result<(), Violation> {
        let before = if change.to > change.from { self.grown.insert(change.target, (change.clock, change.to)) } else { None };
        let only_thresholds = plan.metrics.iter().all(|metric| metric.rule.step_out(1).is_some());
        if self.set || self.excepted.contains(&change.target) || !only_thresholds || plan.fallback.1 != "Hold" {
            return Ok(());
        }
        let Some((grown_at, grown_to)) = before else { return Ok(()) };
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
