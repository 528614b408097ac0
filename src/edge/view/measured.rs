//! When each metric of each target was last measured.
//!
//! Only what the policies ask for is kept: anybody may send samples of any name.

use std::collections::BTreeMap;

use dashmap::DashMap;

use crate::model::{Decision, MetricName, Part, TargetId, Timestamp};

/// The time of the newest sample of each metric that the last evaluation of a target names; `None` where none was seen.
#[derive(Debug, Default)]
pub(super) struct Measured(DashMap<TargetId, BTreeMap<MetricName, Option<Timestamp>>>);

impl Measured {
    /// Takes which metrics count.
    pub(super) fn evaluated(&self, decision: &Decision) {
        let mut known = self.0.entry(decision.target.clone()).or_default();
        if known.len() != decision.metrics.len() || !decision.metrics.iter().all(|metric| known.contains_key(&metric.name)) {
            let names = decision.metrics.iter().map(|metric| (metric.name.clone(), known.get(&metric.name).copied().flatten()));
            let wanted = names.collect();
            *known = wanted;
        }
    }

    /// Takes what was measured.
    pub(super) fn part(&self, part: &Part) {
        let Some(mut known) = self.0.get_mut(&part.target) else { return };
        for pane in &part.panes {
            let Some(newest) = known.get_mut(&pane.metric) else { continue };
            // A Distribution has a sketch and no readings: its pane tells when, to within its length.
            let seen = pane.instances.values().map(|reading| reading.last_at).max().or(pane.sketch.as_ref().map(|_| pane.start));
            *newest = (*newest).max(seen);
        }
    }

    /// Forgets a target whose policy was removed.
    pub(super) fn remove(&self, target: &TargetId) {
        self.0.remove(target);
    }

    /// What is known of a target, where something is.
    pub(super) fn of(&self, target: &TargetId) -> BTreeMap<MetricName, Timestamp> {
        let known = self.0.get(target);
        known.iter().flat_map(|known| known.iter()).filter_map(|(name, at)| Some((name.clone(), (*at)?))).collect()
    }
}
