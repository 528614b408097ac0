//! The named states of a fleet: what a person should know, as alerts that fire and resolve.

use std::collections::{BTreeMap, BTreeSet};

use super::instance::{CRASH_LOOP, Instance, Trouble};
use crate::model::{Alert, AlertState, InstanceName, Severity, TargetId, Timestamp};

/// A named state of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The count cannot be read: nothing is started or stopped.
    StateUnreadable,
    /// Another process supervises this incarnation, from a copy of the data directory: nothing is started or stopped.
    SupervisedElsewhere,
    /// The notes about instances cannot be written: nothing new is started.
    NotesNotWritten,
    /// No port of the range is free: the fleet stays smaller than asked.
    PortsExhausted,
    /// The command does not exist or cannot be run.
    CannotStart,
    /// Instances end again and again soon after their start.
    CrashLoop,
    /// Instances are not healthy within their start-up time.
    NeverHealthy,
    /// The endpoints file cannot be written.
    EndpointsNotWritten,
    /// The hook cannot be run, ended badly, or ran too long.
    HookFailed,
    /// Output of instances cannot be rotated.
    OutputNotRotated,
    /// Processes of an earlier incarnation of the fleet still run; they are left alone.
    ForeignProcesses,
}

impl Condition {
    /// Every condition.
    pub(crate) const ALL: [Condition; 11] = [
        Condition::StateUnreadable,
        Condition::SupervisedElsewhere,
        Condition::NotesNotWritten,
        Condition::PortsExhausted,
        Condition::CannotStart,
        Condition::CrashLoop,
        Condition::NeverHealthy,
        Condition::EndpointsNotWritten,
        Condition::HookFailed,
        Condition::OutputNotRotated,
        Condition::ForeignProcesses,
    ];

    /// The name of its alert.
    pub fn name(self) -> &'static str {
        match self {
            Condition::StateUnreadable => "FleetStateUnreadable",
            Condition::SupervisedElsewhere => "FleetSupervisedElsewhere",
            Condition::NotesNotWritten => "FleetNotesNotWritten",
            Condition::PortsExhausted => "PortsExhausted",
            Condition::CannotStart => "CommandCannotStart",
            Condition::CrashLoop => "CrashLoop",
            Condition::NeverHealthy => "NeverHealthy",
            Condition::EndpointsNotWritten => "EndpointsNotWritten",
            Condition::HookFailed => "HookFailed",
            Condition::OutputNotRotated => "OutputNotRotated",
            Condition::ForeignProcesses => "ForeignProcesses",
        }
    }

    fn severity(self) -> Severity {
        match self {
            Condition::StateUnreadable | Condition::SupervisedElsewhere | Condition::NotesNotWritten | Condition::CannotStart => Severity::Critical,
            Condition::ForeignProcesses | Condition::OutputNotRotated => Severity::Info,
            _ => Severity::Warning,
        }
    }
}

/// The conditions that hold now, each with its words.
pub(crate) type Conditions = BTreeMap<Condition, String>;

/// The conditions that follow from the instances.
pub(crate) fn of_instances(instances: &BTreeMap<InstanceName, Instance>) -> Conditions {
    let mut conditions = Conditions::new();
    let all = instances.len();
    let mut tell = |condition, is: &dyn Fn(&Instance) -> bool, what: &str| {
        let mut such = instances.values().filter(|instance| is(instance));
        if let Some(first) = such.next() {
            let words = first.trouble.as_ref().map_or("", Trouble::words);
            conditions.insert(condition, format!("{} of {all} instances {what}; {}: {words}", such.count() + 1, first.name));
        }
    };
    tell(Condition::CannotStart, &|i| matches!(i.trouble, Some(Trouble::CannotStart(_))), "cannot be started");
    tell(Condition::CrashLoop, &|i| matches!(i.trouble, Some(Trouble::Ended(_))) && i.failures >= CRASH_LOOP, "end again and again");
    tell(Condition::NeverHealthy, &|i| matches!(i.trouble, Some(Trouble::NeverHealthy(_))), "were not healthy in time");
    conditions
}

/// The alerts between two sets of conditions.
pub(crate) fn changes(target: &TargetId, before: &Conditions, after: &Conditions, now: Timestamp) -> Vec<Alert> {
    let either: BTreeSet<Condition> = before.keys().chain(after.keys()).copied().collect();
    let alert = |condition: Condition, state, message: &str| Alert {
        target: Some(target.clone()),
        name: condition.name().to_owned(),
        subject: String::new(),
        severity: condition.severity(),
        state,
        message: message.to_owned(),
        at: now,
    };
    either
        .into_iter()
        .filter_map(|condition| match (before.get(&condition), after.get(&condition)) {
            (None, Some(words)) => Some(alert(condition, AlertState::Firing, words)),
            (Some(words), None) => Some(alert(condition, AlertState::Resolved, words)),
            (Some(before), Some(words)) if before != words => Some(alert(condition, AlertState::Firing, words)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_told_when_it_begins_when_its_words_change_and_when_it_is_over() {
        let target: TargetId = "a/ProcessFleet/b".parse().unwrap();
        let none = Conditions::new();
        let two: Conditions = [(Condition::PortsExhausted, "2 of 5".to_owned())].into();
        let three: Conditions = [(Condition::PortsExhausted, "3 of 5".to_owned())].into();
        let states = |before: &Conditions, after: &Conditions| -> Vec<AlertState> {
            changes(&target, before, after, Timestamp::from_millis(1)).into_iter().map(|alert| alert.state).collect()
        };
        assert_eq!(states(&none, &two), [AlertState::Firing]);
        assert_eq!(states(&two, &two), []);
        assert_eq!(states(&two, &three), [AlertState::Firing]);
        assert_eq!(states(&three, &none), [AlertState::Resolved]);
    }
}
