//! What people said holds: a target that bears a freeze mark is left alone; a policy that cannot be read stays in force; a
//! target whose policy was removed is not decided on.

use std::collections::BTreeMap;

use loadline::model::{Decision, Outcome, OutcomeResult, PolicyAnnouncement, TargetId, Timestamp};

use super::super::scenario::{Fault, Millis, Scenario};
use super::super::world::{Change, number_of};
use super::Violation;

pub(super) struct People {
    /// When the policy of which target is removed by plan.
    removed: Vec<(Millis, usize)>,
    /// When the log took which announcement of a target: whether it has a policy from then on.
    announced: BTreeMap<TargetId, Vec<(Timestamp, bool)>>,
    /// The clock was set: times cannot be compared.
    set: bool,
}

impl People {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let removed = scenario.faults.iter().filter_map(|planned| match planned.fault {
            Fault::PolicyGone { target, .. } => Some((planned.at, target)),
            _ => None,
        });
        People { removed: removed.collect(), announced: BTreeMap::new(), set: false }
    }

    pub(super) fn clock_set(&mut self) {
        self.set = true;
    }

    /// A count changed.
    pub(super) fn change(change: &Change) -> Result<(), Violation> {
        if change.from == 0 && change.epoch.is_some() {
            return Err(Violation::new("a count of 0 is a person's, and left alone", format!("{change:?}")));
        }
        match change.frozen && change.epoch.is_some() {
            true => Err(Violation::new("what bears a freeze mark is left alone", format!("{change:?}"))),
            false => Ok(()),
        }
    }

    /// What is said to be applied took effect.
    pub(super) fn told_of(outcome: &Outcome, changes: &[Change]) -> Result<(), Violation> {
        let by_it = |change: &Change| change.epoch.is_some_and(|epoch| outcome.command == format!("{}#{epoch}", outcome.target));
        match outcome.result == OutcomeResult::Applied && !changes.iter().rev().any(by_it) {
            true => Err(Violation::new("what is said to be applied took effect", format!("{outcome:?}"))),
            false => Ok(()),
        }
    }

    /// A policy came into force, or is gone.
    pub(super) fn policy(&mut self, policy: &PolicyAnnouncement, at: Timestamp, now: Millis) -> Result<(), Violation> {
        let number = number_of(&policy.target);
        if policy.spec.is_none() && !self.removed.iter().any(|(at, target)| *at <= now && *target == number) {
            let details = format!("the policy of t{number} was taken for removed, and nobody removed it");
            return Err(Violation::new("a policy that cannot be read stays in force", details));
        }
        self.announced.entry(policy.target.clone()).or_default().push((at, policy.spec.is_some()));
        Ok(())
    }

    /// Nothing was decided between the removal of a policy and the next one.
    pub(super) fn decisions(&self, decisions: &BTreeMap<TargetId, Vec<Decision>>) -> Result<(), Violation> {
        if self.set {
            return Ok(());
        }
        for (target, announced) in &self.announced {
            let made = decisions.get(target).map_or(&[][..], Vec::as_slice);
            for decision in made {
                // What came in the same moment as a removal may have come before it.
                let last = announced.iter().rfind(|(at, has)| if *has { *at <= decision.at } else { *at < decision.at });
                if last.is_some_and(|(_, has)| !has) {
                    return Err(Violation::new("a target whose policy is gone is not decided on", format!("{decision:?}")));
                }
            }
        }
        Ok(())
    }
}
