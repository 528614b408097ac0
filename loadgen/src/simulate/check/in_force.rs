//! A decision is made by the policy that was announced last before it: an edit is in force from the record on that announces it.

use std::collections::BTreeMap;

use loadline::model::{Decision, Order, PolicyAnnouncement, TargetId, Timestamp};

use super::Violation;

/// What was announced of each target, in the order of the log, as far as it is known for certain.
#[derive(Default)]
pub(super) struct InForce(BTreeMap<TargetId, Vec<(Timestamp, Order, bool)>>);

impl InForce {
    /// Times come again, or announcements were lost.
    pub(super) fn unsure(&mut self) {
        self.0.clear();
    }

    pub(super) fn announced(&mut self, announced: &PolicyAnnouncement, at: Timestamp) {
        let known = self.0.entry(announced.target.clone()).or_default();
        // One that comes late says nothing.
        if known.iter().any(|(_, order, _)| order.is_newer_than(&announced.order)) {
            return;
        }
        known.push((at, announced.order.clone(), announced.spec.is_some()));
    }

    /// Something was decided; `at`: when that stood in the log.
    pub(super) fn decision(&self, decision: &Decision, at: Timestamp) -> Result<(), Violation> {
        // It was decided before the clock was set back, and waited to be appended.
        if decision.at > at {
            return Ok(());
        }
        let Some(known) = self.0.get(&decision.target) else { return Ok(()) };
        // Of the same moment each may have come before it or after.
        let before = known.iter().rposition(|(at, ..)| *at < decision.at);
        let Some(before) = before else { return Ok(()) };
        let may_be = known[before..].iter().take_while(|(at, ..)| *at <= decision.at);
        if may_be.clone().any(|(_, order, is_there)| *is_there && order.to_string() == decision.policy_version) {
            return Ok(());
        }
        let names: Vec<String> = may_be.map(|(at, order, is_there)| format!("{order} at {at}{}", if *is_there { "" } else { ", removed" })).collect();
        Err(Violation::new("what is decided is decided by the policy in force", format!("{names:?}: {decision:?}")))
    }
}
