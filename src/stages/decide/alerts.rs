//! The alerts of decide: each fires once, and is resolved when its cause is gone.

use crate::log::{Offset, Topic};
use crate::model::{Alert, AlertState, Message, Severity, TargetId, Timestamp};
use crate::stages::Effects;

use super::memory::Memory;

/// Fires or resolves an alert of a target; says nothing where nothing changed.
pub(super) fn set(
    memory: &mut Memory,
    target: &TargetId,
    name: &str,
    severity: Severity,
    holds: bool,
    message: impl FnOnce() -> String,
    effects: &mut Effects,
) {
    let fires = memory.firing.iter().position(|(n, _)| n == name);
    match (holds, fires) {
        (true, None) => {
            memory.firing.push((name.to_owned(), String::new()));
            memory.firing.sort();
            send(target, name, severity, AlertState::Firing, message(), memory.now, effects);
        }
        (false, Some(at)) => {
            memory.firing.remove(at);
            send(target, name, severity, AlertState::Resolved, message(), memory.now, effects);
        }
        _ => {}
    }
}

/// Says a thing that happened once and has no end.
pub(super) fn tell(target: &TargetId, name: &str, severity: Severity, message: String, at: Timestamp, effects: &mut Effects) {
    send(target, name, severity, AlertState::Event, message, at, effects);
}

fn send(target: &TargetId, name: &str, severity: Severity, state: AlertState, message: String, at: Timestamp, effects: &mut Effects) {
    let alert = Alert { target: Some(target.clone()), name: name.to_owned(), subject: String::new(), severity, state, message, at };
    effects.to_key(Topic::Alerts, target.as_str(), Message::Alert(alert));
}

pub(super) fn clock_ran_back(target: &TargetId, from: Timestamp, to: Timestamp, effects: &mut Effects) {
    let message = format!("the log's clock ran back from {from} to {to}; cooldowns and windows count from the new time");
    tell(target, "ClockRanBack", Severity::Warning, message, to, effects);
}

pub(super) fn faulted(memory: &mut Memory, target: &TargetId, offset: Offset, effects: &mut Effects) {
    let message = || format!("a fault in Loadline at offset {offset} of the signals holds this target; its replicas stand; change its policy to start it anew");
    set(memory, target, "Faulted", Severity::Critical, true, message, effects);
}

pub(super) fn too_many_targets(target: &TargetId, most: usize, at: Timestamp, effects: &mut Effects) {
    let message = format!("the limit of {most} targets in a partition is reached; {target} is not scaled");
    tell(target, "TooManyTargets", Severity::Critical, message, at, effects);
}
