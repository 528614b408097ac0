//! What people said holds: a target that bears a freeze mark, or was set to 0, is left alone; a policy that cannot be read
//! stays in force.

use loadline::model::{Outcome, OutcomeResult, PolicyAnnouncement};

use super::super::scenario::{Fault, Millis, Scenario};
use super::super::world::{Change, number_of};
use super::Violation;

pub(super) struct People {
    /// When the policy of which target is removed by plan.
    removed: Vec<(Millis, usize)>,
}

impl People {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let removed = scenario.faults.iter().filter_map(|planned| match planned.fault {
            Fault::PolicyGone { target, .. } => Some((planned.at, target)),
            _ => None,
        });
        People { removed: removed.collect() }
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
    pub(super) fn policy(&self, policy: &PolicyAnnouncement, now: Millis) -> Result<(), Violation> {
        let number = number_of(&policy.target);
        if policy.spec.is_none() && !self.removed.iter().any(|(at, target)| *at <= now && *target == number) {
            let details = format!("the policy of t{number} was taken for removed, and nobody removed it");
            return Err(Violation::new("a policy that cannot be read stays in force", details));
        }
        Ok(())
    }
}
