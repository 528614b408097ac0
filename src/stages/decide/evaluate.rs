//! One evaluation of one target: the steps, in their order.
//!
//! Absent until they are built, and refused in a policy until then: Burst, Floors, Flap, Health,
//! Breaker, Override.

use crate::model::policy::{Mode, Policy, RatePolicy};
use crate::model::{Decision, MetricReport, MetricStatus, Reason, Step, StepKind, Timestamp, Verdict};

use super::combine::combine;
use super::cooldown::{Cooling, cooldown};
use super::measure::measure;
use super::memory::{FleetSeen, Memory};
use super::panes::Panes;
use super::propose::{Proposed, Situation, is_rate, propose, report};
use super::{FLEET_UNSEEN_AFTER, FOLD_VERSION, UNWATCHED_AFTER, bounds, fallback, rate_limit, stabilize, unlisted};

/// The surroundings of an evaluation that are not the target's own.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// Event time up to which the partition's panes are complete.
    pub(super) through: Timestamp,
    /// The length of a pane.
    pub(super) pane: std::time::Duration,
    /// Of a source that is silent: up to when it has marked.
    pub(super) silent: &'a dyn Fn(u32) -> Option<Timestamp>,
    /// A source that is silent since before signals were lost.
    pub(super) unheard: Option<u32>,
}

/// The decision under way: the count, and the steps that took part.
struct Walk {
    count: u32,
    steps: Vec<Step>,
}

impl Walk {
    fn step(&mut self, step: StepKind, after: u32, reason: Reason) -> &mut Step {
        self.steps.push(Step { step, before: self.count, after, reason, metric: None, limit: None, until: None });
        self.count = after;
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }
}

/// Evaluates a target: its decision, and what of its memory changes with it.
pub(super) fn evaluate(policy: &Policy, policy_version: &str, memory: &mut Memory, panes: &mut Panes, fleet: &FleetSeen, around: Surroundings<'_>) -> Decision {
    let now = memory.now;
    let current = memory.counted();
    let fleet_unseen = now.since(fleet.at) >= FLEET_UNSEEN_AFTER;

    // Measure, Propose
    let proposed = measure_and_propose(policy, memory, panes, fleet, around);

    let mut walk = Walk { count: current, steps: Vec::with_capacity(4) };
    let combined = combine(current, &policy.metrics.iter().zip(&proposed).collect::<Vec<_>>(), fleet_unseen);
    remember_since(&mut memory.blind_since, combined.all_blind, now);
    remember_since(&mut memory.idle_since, combined.all_idle, now);

    let mut verdict = None;
    if current == 0 && policy.min > 0 {
        walk.step(StepKind::Bounds, 0, Reason::ScaledToZeroByHand);
        verdict = Some(Verdict::Disabled);
    } else if current < policy.min {
        // To `min` at once, whatever the metrics say; they have the word again when it stands.
        walk.step(StepKind::Bounds, policy.min, Reason::BelowMin).limit = Some(policy.min);
    } else if current > policy.max {
        // Down to `max` by the rate policies, without stabilization or cooldown.
        walk.step(StepKind::Bounds, policy.max, Reason::AboveMaxPaced).limit = Some(policy.max);
        apply_rate_limit(&mut walk, current, policy, memory);
        hold_unseen(&mut walk, current, fleet_unseen);
    } else {
        walk.step(StepKind::Combine, combined.after, combined.reason).metric.clone_from(&combined.metric);
        apply_fallback(&mut walk, current, policy, memory);
        hold_unseen(&mut walk, current, fleet_unseen);
        apply_stabilize(&mut walk, current, policy, memory, combined.proposed);
        apply_rate_limit(&mut walk, current, policy, memory);
        apply_cooldown(&mut walk, current, policy, memory, combined.absolute);
        apply_bounds(&mut walk, current, policy);
        if combined.all_blind && walk.count == current {
            verdict = Some(Verdict::Blind);
        }
    }
    if policy.mode == Mode::OutOnly && walk.count < current && current > policy.max {
        walk.step(StepKind::Bounds, current, Reason::OutOnly);
    }

    memory.sequence += 1;
    memory.evaluated_at = Some(now);
    let verdict = verdict.unwrap_or(match walk.count.cmp(&current) {
        std::cmp::Ordering::Greater => Verdict::ScaleOut,
        std::cmp::Ordering::Less => Verdict::ScaleIn,
        std::cmp::Ordering::Equal => Verdict::Hold,
    });
    Decision {
        target: policy.target.clone(),
        sequence: memory.sequence,
        at: now,
        through: around.through,
        current,
        desired: walk.count,
        verdict,
        binding: binding(&walk.steps),
        metrics: policy.metrics.iter().zip(&proposed).map(|(m, p)| report(m, p)).collect::<Vec<MetricReport>>(),
        steps: walk.steps,
        policy_version: policy_version.to_owned(),
        fold_version: FOLD_VERSION,
        advised: policy.mode == Mode::Advise,
    }
}

/// The record of a target that a fault in the program holds.
pub(super) fn faulted(policy: &Policy, policy_version: &str, memory: &Memory) -> Decision {
    Decision {
        target: policy.target.clone(),
        sequence: memory.sequence,
        at: memory.now,
        through: memory.evaluated_through.unwrap_or(Timestamp::MIN),
        current: memory.counted(),
        desired: memory.counted(),
        verdict: Verdict::Faulted,
        binding: StepKind::Combine,
        metrics: Vec::new(),
        steps: Vec::new(),
        policy_version: policy_version.to_owned(),
        fold_version: FOLD_VERSION,
        advised: policy.mode == Mode::Advise,
    }
}

/// The step that bound: the last one that changed the count, or the first.
fn binding(steps: &[Step]) -> StepKind {
    steps.iter().rev().find(|s| s.before != s.after).or(steps.first()).map_or(StepKind::Combine, |s| s.step)
}

fn remember_since(since: &mut Option<Timestamp>, holds: bool, now: Timestamp) {
    *since = holds.then(|| since.unwrap_or(now));
}

fn measure_and_propose(policy: &Policy, memory: &mut Memory, panes: &mut Panes, fleet: &FleetSeen, around: Surroundings<'_>) -> Vec<Proposed> {
    let (now, current, last_growth, last_change) = (memory.now, memory.counted(), memory.last_growth, memory.last_change);
    let situation = Situation { policy, current, fleet, now, through: around.through, last_growth, last_change };
    let mut proposed = Vec::with_capacity(policy.metrics.len());
    for metric in &policy.metrics {
        let remembered = memory.metric(&metric.name);
        let measured = measure(metric, panes.metric(&metric.name), remembered, fleet, around, now);
        let mut result = propose(metric, measured, remembered, situation);
        // Of what was measured; where nothing was, the panes may be gone, after a restart as before it.
        let kind = panes.metric(&metric.name).map(|panes| panes.kind).filter(|_| result.value.is_some()).or(metric.kind);
        result.per_second = is_rate(metric, kind);
        let unlisted = panes.metric(&metric.name).and_then(|panes| {
            let since = remembered.complete_since.max(Some(super::panes::complete_since(around.through, metric.window)))?;
            unlisted::note(panes, &metric.measure, fleet, (since, around.through), around.pane)
        });
        let notes: Vec<String> = result.note.take().into_iter().chain(unlisted).collect();
        result.note = (!notes.is_empty()).then(|| notes.join("; "));
        remembered.status = result.status;
        proposed.push(result);
    }
    forget(policy, memory, panes, around);
    proposed
}

/// Forgets the panes that nothing needs after `around.through`, and remembers which ones count no more.
pub(super) fn forget(policy: &Policy, memory: &mut Memory, panes: &mut Panes, around: Surroundings<'_>) {
    let through = around.through;
    for metric in &policy.metrics {
        let remembered = memory.metric(&metric.name);
        let since = remembered.complete_since.max(Some(super::panes::complete_since(through, metric.window)));
        let forgotten = remembered.forgotten_through.max(Some(super::panes::forgotten_through(through, metric.window, metric.stale_after)));
        (remembered.complete_since, remembered.forgotten_through) = (since, forgotten);
        // What a silent source fed is missed until it speaks again, or is none any more.
        remembered.fed.retain(|source, end| Some(*end) > forgotten || (around.silent)(*source).is_some());
        panes.prune(&metric.name, since.unwrap_or(Timestamp::MIN), forgotten.unwrap_or(Timestamp::MIN));
    }
    memory.evaluated_through = Some(through);
}

fn apply_fallback(walk: &mut Walk, current: u32, policy: &Policy, memory: &Memory) {
    let fell_back = match (memory.blind_since, memory.idle_since) {
        (Some(since), _) => fallback::when_blind(current, policy.min, since, &policy.fallback, memory.now),
        (None, Some(since)) => fallback::when_idle(current, policy.min, since, policy.scale_in.stabilization, memory.now),
        (None, None) => None,
    };
    if let Some(fell_back) = fell_back {
        walk.step(StepKind::Fallback, fell_back.after, fell_back.reason);
    }
}

/// Nobody has seen the replicas for too long: none is removed, whatever asks for it.
fn hold_unseen(walk: &mut Walk, current: u32, fleet_unseen: bool) {
    if fleet_unseen && walk.count < current {
        walk.step(StepKind::Fallback, current, Reason::FleetUnseen);
    }
}

fn apply_stabilize(walk: &mut Walk, current: u32, policy: &Policy, memory: &mut Memory, proposed: bool) {
    let longest = UNWATCHED_AFTER + policy.evaluate_every.unwrap_or_default();
    let unwatched = memory.evaluated_at.is_some_and(|last| memory.now.since(last) >= longest);
    if memory.proposals.is_new() || unwatched {
        // So that the first decision after a start, or after a long stop, does not shrink on one look.
        memory.proposals.enter(memory.now, current);
    }
    if !proposed {
        return; // nothing was proposed: there is nothing to compare, and nothing to remember
    }
    let (now, desired) = (memory.now, walk.count);
    let (out, r#in) = (policy.scale_out.stabilization, policy.scale_in.stabilization);
    if let Some(stabilized) = stabilize::stabilize(current, desired, &memory.proposals, out, r#in, now) {
        walk.step(StepKind::Stabilize, stabilized.after, stabilized.reason).until = Some(stabilized.until);
    }
    memory.proposals.enter(now, desired);
    memory.proposals.prune(now, out, r#in);
}

fn apply_rate_limit(walk: &mut Walk, current: u32, policy: &Policy, memory: &mut Memory) {
    let now = memory.now;
    // Also what the policy does not count: another one may come with longer periods, and holds at once.
    memory.events.retain(|e| e.at > now - RatePolicy::LONGEST_PERIOD);
    if let Some(limited) = rate_limit::rate_limit(current, walk.count, &memory.events, &policy.scale_out, &policy.scale_in, now) {
        let step = walk.step(StepKind::RateLimit, limited.after, limited.reason);
        step.limit = Some(limited.limit);
        step.until = limited.until;
    }
}

fn apply_cooldown(walk: &mut Walk, current: u32, policy: &Policy, memory: &Memory, absolute: Option<u32>) {
    let (out, r#in) = (policy.scale_out.cooldown, policy.scale_in.cooldown);
    let cooling = Cooling { last_change: memory.last_change, last_growth: memory.last_growth, out, r#in };
    if let Some(cooled) = cooldown(current, walk.count, absolute, cooling, memory.now) {
        walk.step(StepKind::Cooldown, cooled.after, cooled.reason).until = Some(cooled.until);
    }
}

fn apply_bounds(walk: &mut Walk, current: u32, policy: &Policy) {
    if let Some(bounded) = bounds::bounds(current, walk.count, policy) {
        walk.step(StepKind::Bounds, bounded.after, bounded.reason).limit = Some(bounded.limit);
    }
}

/// When the target must be looked at again without being asked.
pub(super) fn next_look(policy: &Policy, memory: &Memory, decision: &Decision, every: std::time::Duration) -> Option<Timestamp> {
    let now = memory.now;
    let mut looks: Vec<Timestamp> = Vec::with_capacity(8);
    let waits = |s: &Step| matches!(s.step, StepKind::Stabilize | StepKind::RateLimit | StepKind::Cooldown);
    if decision.steps.iter().any(waits) {
        looks.push(now + every);
    }
    for metric in &policy.metrics {
        if let Some(MetricStatus::Ok | MetricStatus::Idle) = memory.metrics.get(&metric.name).map(|m| m.status)
            && let Some(newest) = memory.metrics.get(&metric.name).and_then(|m| m.newest)
        {
            looks.push(newest + metric.stale_after + std::time::Duration::from_millis(1));
        }
    }
    if let Some(since) = memory.blind_since {
        looks.push(since + policy.fallback.after);
        looks.push(since + super::ALERT_BLIND_AFTER);
    }
    if let Some(since) = memory.idle_since {
        looks.push(since + policy.scale_in.stabilization);
    }
    if let Some(claim) = &memory.claim {
        looks.push(claim.at + super::CLAIM_EVERY);
        if !claim.answered {
            looks.push(claim.at + super::ALERT_UNANSWERED_AFTER);
        }
    }
    if let Some(open) = &memory.open {
        looks.push(open.expires_at + super::LOST_AFTER);
    }
    looks.extend(memory.retry_at);
    if let Some(fleet) = &memory.fleet {
        looks.push(fleet.at + FLEET_UNSEEN_AFTER);
    }
    if let Some(audited) = &memory.audited {
        looks.push(audited.at + super::AUDIT_EVERY);
    }
    // What is past has been dealt with by this evaluation.
    looks.into_iter().filter(|t| *t > now).min()
}
