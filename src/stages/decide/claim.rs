//! From a decision to the arbiter: the standing claim, and the one command in flight.

use std::time::Duration;

use crate::log::Topic;
use crate::model::policy::{Mode, Policy, Role};
use crate::model::{Audit, Decision, Message, Outcome, OutcomeResult, Request, TargetId};
use crate::stages::Effects;

use super::fold::moves;
use super::memory::{Claim, Memory, Terms};
use super::{CLAIM_EVERY, CLAIM_LIVES, LOST_AFTER};

/// The first wait after a command that came to nothing; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The wait after a command that an emergency stop held.
const FROZEN_RETRY: Duration = Duration::from_secs(5);
/// The longest wait.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Claims what was decided, on change and every 60 s.
pub(super) fn follow(policy: &Policy, decision: &Decision, memory: &mut Memory, effects: &mut Effects) {
    let now = memory.now;
    if policy.mode == Mode::Advise {
        // What is advised counts as applied, so that the advice goes on as the real thing would.
        if moves(decision) {
            memory.changed(now, decision.current, decision.desired);
            memory.shadow = Some(decision.desired);
        }
        return;
    }
    let desired = decision.desired;
    if let Some(open) = &memory.open {
        // One command in flight: it is replaced only by one that goes further out.
        let claimed = memory.claim.as_ref().is_some_and(|c| c.desired == desired);
        if desired <= open.to || claimed {
            return;
        }
    } else {
        if memory.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let says = |c: &Claim| c.current == decision.current && c.desired == desired && c.terms == terms(policy);
        if memory.claim.as_ref().is_some_and(|c| says(c) && now.since(c.at) < CLAIM_EVERY) {
            return;
        }
    }
    let Some(fleet) = &memory.fleet else { return };
    let uid = fleet.seen.uid.clone();
    memory.epoch = memory.epoch.saturating_add(1).max(now.as_millis());
    memory.claim =
        Some(Claim { epoch: memory.epoch, current: decision.current, desired, at: now, answered: desired == decision.current, terms: terms(policy) });
    send(policy, memory, uid, decision.current, desired, false, effects);
}

fn terms(policy: &Policy) -> Terms {
    Terms { min: policy.min, priority: policy.priority, paced: policy.role != Role::Generic }
}

/// Takes the claim back.
pub(super) fn withdraw(target: &TargetId, policy: &Policy, memory: &mut Memory, effects: &mut Effects) {
    debug_assert_eq!(*target, policy.target);
    if memory.claim.take().is_some() {
        memory.epoch = memory.epoch.saturating_add(1);
        let uid = memory.fleet.as_ref().map(|f| f.seen.uid.clone()).unwrap_or_default();
        let current = memory.current;
        send(policy, memory, uid, current, current, true, effects);
    }
}

fn send(policy: &Policy, memory: &Memory, uid: String, current: u32, desired: u32, withdrawn: bool, effects: &mut Effects) {
    let Terms { min, priority, paced } = terms(policy);
    let request = Request {
        target: policy.target.clone(),
        fleet: policy.fleet.clone(),
        epoch: memory.epoch,
        uid,
        current,
        desired,
        min,
        priority,
        paced,
        open: memory.open.clone(),
        heard_of: memory.open.as_ref().map_or(0, |open| open.epoch).max(memory.closed_epoch),
        expires_at: memory.now + CLAIM_LIVES,
        withdrawn,
    };
    effects.to_key(Topic::Requests, policy.fleet.as_str(), Message::Request(request));
}

/// Closes a command that nothing was heard of.
pub(super) fn close_lost(target: &TargetId, memory: &mut Memory, effects: &mut Effects) {
    let Some(open) = memory.open.clone().filter(|open| memory.now >= open.expires_at + LOST_AFTER) else { return };
    memory.close_command();
    let uid = memory.fleet.as_ref().map(|fleet| fleet.seen.uid.clone());
    let outcome = Outcome { target: target.clone(), command: open.id, uid, result: OutcomeResult::Lost, replicas: None, revision: None, error: None };
    effects.to_key(Topic::Audit, target.as_str(), Message::Audit(Audit::Outcome(outcome)));
    memory.claim = None;
    let current = memory.current;
    came_to_nothing(memory, OutcomeResult::Lost, current);
}

/// A command came to nothing: the next claim waits, unless the world turned out to be another one.
pub(super) fn came_to_nothing(memory: &mut Memory, result: OutcomeResult, assumed: u32) {
    if matches!(result, OutcomeResult::Superseded | OutcomeResult::Stale) || (result == OutcomeResult::Conflict && memory.current != assumed) {
        return; // decide anew, at once
    }
    if result == OutcomeResult::Frozen {
        memory.retry_at = Some(memory.now + FROZEN_RETRY); // a person stopped it: that is no failure
        return;
    }
    memory.failures = memory.failures.saturating_add(1);
    let wait = FIRST_RETRY.saturating_mul(1 << memory.failures.saturating_sub(1).min(5)).min(LAST_RETRY);
    memory.retry_at = Some(memory.now + wait);
}
