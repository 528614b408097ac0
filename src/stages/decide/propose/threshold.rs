//! `threshold`: one step out above one value, one step in below another.

use std::time::Duration;

use crate::model::policy::{StepSize, Threshold};
use crate::model::{Amount, ThresholdReport, ThresholdSide, ThresholdWait, Timestamp};

use super::super::memory::MetricMemory;
use super::{Proposed, Situation};

/// How far the clock by which instances say when they started may be behind the log's, by which growth is dated.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// No value: whatever held for some time holds no more.
pub(super) fn forget(memory: &mut MetricMemory) {
    memory.above_since = None;
    memory.below_since = None;
}

/// What a threshold asks for, and what it waits for.
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
        let until = since.map(|since| changed.map_or(since, |changed| since.max(changed)) + rule.hold)?;
        (until > through).then_some((ThresholdWait::For, until))
    };
    let grown = situation.last_growth.map(|c| c.at);
    let changed = situation.last_change.map(|c| c.at);
    let (side, wait, replicas) = if above {
        let wait = later(held(memory.above_since, grown), start_up(window, situation).map(|until| (ThresholdWait::StartUp, until)));
        (ThresholdSide::Above, wait, Some(if wait.is_none() { current.saturating_add(step(rule.step_out, current)) } else { current }))
    } else if below {
        let wait = held(memory.below_since, changed);
        (ThresholdSide::Below, wait, Some(if wait.is_none() { current.saturating_sub(step(rule.step_in, current)) } else { current }))
    } else {
        (ThresholdSide::Between, None, rule.scale_in_below.map(|_| current))
    };
    let report = ThresholdReport {
        side,
        scale_out_above: rule.scale_out_above,
        scale_in_below: rule.scale_in_below,
        waits: wait.map(|(what, _)| what),
        until: wait.map(|(_, until)| until),
    };
    Proposed { threshold: Some(report), ..Proposed::value(value, replicas) }
}

/// Of two things to wait for, the one that takes longer.
fn later(a: Option<(ThresholdWait, Timestamp)>, b: Option<(ThresholdWait, Timestamp)>) -> Option<(ThresholdWait, Timestamp)> {
    [a, b].into_iter().flatten().max_by_key(|(_, until)| *until)
}

/// Percent of the count, rounded up, at least 1.
fn step(size: StepSize, current: u32) -> u32 {
    match size {
        StepSize::Replicas(n) => n,
        StepSize::Percent(p) => u32::try_from((u64::from(current) * u64::from(p)).div_ceil(100)).unwrap_or(u32::MAX).max(1),
    }
}

/// Until when to wait, at the latest, for the instances of the last growth to be ready for a whole window, so
/// that the metric speaks of them too: no longer than `startup.cpuInitialization`.
fn start_up(window: Duration, situation: Situation<'_>) -> Option<Timestamp> {
    let growth = situation.last_growth?;
    let until = growth.at + situation.policy.cpu_initialization;
    if situation.now >= until {
        return None;
    }
    let instances = &situation.fleet.seen.instances;
    let all_there = instances.iter().filter(|i| !i.deleting).count() >= situation.current as usize;
    let settled = instances
        .iter()
        .filter(|i| i.started_at.is_none_or(|s| s + CLOCKS_DIFFER >= growth.at))
        .all(|i| i.deleting || (i.ready == Some(true) && i.ready_changed_at.is_none_or(|ready| ready + window <= situation.through)));
    (!all_there || !settled).then_some(until)
}
