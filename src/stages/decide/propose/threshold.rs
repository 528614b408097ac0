//! `threshold`: one step out above one value, one step in below another.

use std::time::Duration;

use crate::model::policy::{StepSize, Threshold};
use crate::model::{Amount, Timestamp};

use super::super::memory::MetricMemory;
use super::{Proposed, Situation};

/// No value: whatever held for some time holds no more.
pub(super) fn forget(memory: &mut MetricMemory) {
    memory.above_since = None;
    memory.below_since = None;
}

/// What a threshold asks for.
///
/// Above `scaleOutAbove` for `for`: a step out, once per `for`, and not again before the instances of
/// the last growth are past start-up; until then, the count as it is. Below `scaleInBelow` for `for`:
/// a step in. Between: the count as it is where `scaleInBelow` is written (so that it forbids to
/// shrink), else nothing.
pub(super) fn threshold(rule: &Threshold, window: Duration, value: Amount, memory: &mut MetricMemory, situation: Situation<'_>) -> Proposed {
    let Situation { current, through, .. } = situation;
    let above = rule.scale_out_above.is_some_and(|limit| value > limit);
    let below = rule.scale_in_below.is_some_and(|limit| value < limit);
    memory.above_since = above.then(|| memory.above_since.unwrap_or(through));
    memory.below_since = below.then(|| memory.below_since.unwrap_or(through));
    // Since the last change, the value has to hold for `for` anew.
    let held = |since: Option<Timestamp>, changed: Option<Timestamp>| {
        since.is_some_and(|since| changed.map_or(since, |changed| since.max(changed)) + rule.hold <= through)
    };
    let grown = situation.last_growth.map(|c| c.at);
    let changed = situation.last_change.map(|c| c.at);
    let replicas = if above {
        let may_step = held(memory.above_since, grown) && past_start_up(window, situation);
        Some(if may_step { current.saturating_add(step(rule.step_out, current)) } else { current })
    } else if below {
        Some(if held(memory.below_since, changed) { current.saturating_sub(step(rule.step_in, current)) } else { current })
    } else {
        rule.scale_in_below.map(|_| current)
    };
    Proposed::value(value, replicas)
}

/// Percent of the count, rounded up, at least 1.
fn step(size: StepSize, current: u32) -> u32 {
    match size {
        StepSize::Replicas(n) => n,
        StepSize::Percent(p) => u32::try_from((u64::from(current) * u64::from(p)).div_ceil(100)).unwrap_or(u32::MAX).max(1),
    }
}

/// Whether the instances of the last growth have been ready for a whole window, so that the metric
/// speaks of them too. Waits no longer than `startup.cpuInitialization`.
fn past_start_up(window: Duration, situation: Situation<'_>) -> bool {
    let Some(growth) = situation.last_growth else { return true };
    if situation.now.since(growth.at) >= situation.policy.cpu_initialization {
        return true;
    }
    let instances = &situation.fleet.seen.instances;
    let all_there = instances.iter().filter(|i| !i.deleting).count() >= situation.current as usize;
    let settled = instances
        .iter()
        .filter(|i| i.started_at.is_none_or(|s| s >= growth.at))
        .all(|i| i.deleting || (i.ready == Some(true) && i.ready_changed_at.is_none_or(|ready| ready + window <= situation.through)));
    all_there && settled
}
