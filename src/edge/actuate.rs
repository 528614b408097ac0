//! Carries commands out, at most once each.
//!
//! The [`Actuator`] consumes `commands`. It commits the position of a command *before* it calls the
//! world, so that no command is ever carried out twice; what a crash swallows, the fold closes as
//! lost, and the observation shows what is there. Each command is checked against a fresh read of
//! its target, written by compare-and-set with a deadline no later than its expiry, and answered by
//! an outcome on `signals` and `audit`.
//!
//! What is scaled stands behind [`Scalable`], one for each kind of target. Deciding, pacing and
//! issuing are others' work; nothing here looks at a metric.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Command, Outcome, OutcomeResult, TargetId, Timestamp};
use crate::runtime::clock::Clock;

mod check;
mod consumer;
mod courier;
mod freeze;

pub use check::check;
pub use consumer::{Actuator, ActuatorSettings};
pub use courier::{Courier, GROUP, Reach, Stepped};
pub use freeze::FreezeFiles;

/// The longest that one call to the world may take, whatever time the command has left.
const MAX_CALL: Duration = Duration::from_secs(10);

/// A target's own record, as one read found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleRecord {
    /// Which incarnation of the target this is.
    pub uid: String,
    /// The count that is asked for.
    pub replicas: u32,
    /// The version of the record: grows with every change.
    pub revision: i64,
    /// The largest epoch of a command that was carried out; 0 where there was none.
    pub epoch: i64,
    /// Whether the target itself bears a freeze mark.
    pub frozen: bool,
}

/// Why a target could not be read or written, by what the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// There is no such target: give up.
    #[error("there is no target {target}")]
    NotFound {
        /// The target.
        target: TargetId,
    },
    /// The record is not the expected one any more: read it again and decide anew.
    #[error("the record changed: revision {found} was found where {expected} was expected")]
    Conflict {
        /// The revision that was read before.
        expected: i64,
        /// The revision that stands now.
        found: i64,
    },
    /// The target will never take this: mend what the words say.
    #[error("{reason}")]
    Rejected {
        /// What it refuses, and the way out.
        reason: String,
    },
    /// It could not be done now; the same may work later.
    #[error("{reason}")]
    Failed {
        /// What stood in the way.
        reason: String,
    },
}

/// What can be scaled.
pub trait Scalable: Send + Sync {
    /// Whether this target is this process's to scale. What is local to a process is; what any process reaches is everybody's.
    fn serves(&self, _target: &TargetId) -> bool {
        true
    }

    /// Reads a target's record.
    ///
    /// # Errors
    /// [`ScaleError`], never `Conflict`.
    fn read(&self, target: &TargetId) -> Result<ScaleRecord, ScaleError>;

    /// Sets the count, if the record is still `expected`, within `deadline`. Returns the new record.
    ///
    /// # Errors
    /// [`ScaleError`]; nothing was written then, except after `Failed`, where it may have been.
    fn write(&self, target: &TargetId, expected: &ScaleRecord, replicas: u32, epoch: i64, deadline: Duration) -> Result<ScaleRecord, ScaleError>;
}

/// The part of the actuator that acts: it needs no log.
pub struct Hands {
    kinds: BTreeMap<String, Arc<dyn Scalable>>,
    freeze: FreezeFiles,
    clock: Arc<dyn Clock>,
}

impl Hands {
    /// Hands that touch nothing yet.
    pub fn new(freeze: FreezeFiles, clock: Arc<dyn Clock>) -> Self {
        Hands { kinds: BTreeMap::new(), freeze, clock }
    }

    /// Lets `scalable` serve all targets of `kind`.
    #[must_use]
    pub fn with_kind(mut self, kind: &str, scalable: Arc<dyn Scalable>) -> Self {
        self.kinds.insert(kind.to_owned(), scalable);
        self
    }

    /// Whether commands for `target` are to be carried out here.
    pub fn serves(&self, target: &TargetId) -> bool {
        self.kinds.get(target.kind()).is_some_and(|scalable| scalable.serves(target))
    }

    /// Checks a command against the world and carries it out, once.
    pub fn carry_out(&self, command: &Command) -> Outcome {
        let Some(scalable) = self.kinds.get(command.target.kind()) else {
            let known: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
            return refusal(
                command,
                OutcomeResult::Rejected,
                format!("no actuator serves the kind {}; served are: {}", command.target.kind(), known.join(", ")),
            );
        };
        let mut found = match scalable.read(&command.target) {
            Ok(record) => record,
            Err(error) => return failure(command, &error),
        };
        let freeze = self.freeze.mark_for(command.target.namespace());
        found.frozen |= freeze.is_some();
        let now = self.clock.now();
        if let Err(result) = check(command, &found, now) {
            return not_carried_out(command, &found, now, result, freeze.as_deref());
        }
        let deadline = command.expires_at.since(now).min(MAX_CALL);
        match scalable.write(&command.target, &found, command.to, command.epoch, deadline) {
            Ok(record) => {
                let applied = outcome(command, OutcomeResult::Applied);
                Outcome { replicas: Some(record.replicas), revision: Some(record.revision), ..applied }
            }
            Err(error) => failure(command, &error),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The outcome of a command that did not pass its checks.
fn not_carried_out(command: &Command, found: &ScaleRecord, now: Timestamp, result: OutcomeResult, freeze: Option<&str>) -> Outcome {
    let error = match result {
        OutcomeResult::Expired => format!("it expired at {}, and it is {now}", command.expires_at),
        OutcomeResult::Stale => format!("epoch {} was carried out before, this is {}", found.epoch, command.epoch),
        OutcomeResult::Frozen => format!("frozen by {}; remove it to let commands through again", freeze.unwrap_or("a mark on the target")),
        OutcomeResult::Conflict if found.uid != command.uid => format!("the target is another incarnation: {} instead of {}", found.uid, command.uid),
        _ => format!("{} replicas were found where {} were expected", found.replicas, command.from),
    };
    // The count of another incarnation says nothing about the one that was meant.
    let same = found.uid == command.uid;
    let (replicas, revision) = (same.then_some(found.replicas), same.then_some(found.revision));
    Outcome { replicas, revision, ..refusal(command, result, error) }
}

/// The outcome of a call that did not succeed.
fn failure(command: &Command, error: &ScaleError) -> Outcome {
    let result = match error {
        ScaleError::NotFound { .. } | ScaleError::Rejected { .. } => OutcomeResult::Rejected,
        ScaleError::Conflict { .. } => OutcomeResult::Conflict,
        ScaleError::Failed { .. } => OutcomeResult::Failed,
    };
    refusal(command, result, error.to_string())
}

/// An outcome that knows no count.
fn refusal(command: &Command, result: OutcomeResult, error: String) -> Outcome {
    Outcome { error: Some(error), ..outcome(command, result) }
}

fn outcome(command: &Command, result: OutcomeResult) -> Outcome {
    let (target, uid) = (command.target.clone(), Some(command.uid.clone()));
    Outcome { target, command: command.id.clone(), uid, result, replicas: None, revision: None, error: None }
}

#[cfg(test)]
mod tests;
