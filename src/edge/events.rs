//! Operational events at the edge: what an operator meets of fleets, files and the program itself, one struct each, whose
//! `emit` writes its line. Levels as in `runtime::events`.

use std::path::Path;

use tracing::{debug, error, info, warn};

use super::lag::measure::Lag;
use crate::log::LogError;
use crate::model::{ManualChange, TargetId};
#[cfg(feature = "kafka")]
use crate::runtime::events::Repeated;

/// What happened to a fleet, or to one of its instances.
#[derive(Debug)]
pub struct OfFleet<'a> {
    /// The fleet.
    pub target: &'a TargetId,
    /// What happened.
    pub what: Fleet<'a>,
}

/// What can happen to a fleet.
#[derive(Debug)]
pub enum Fleet<'a> {
    /// Loadline looks after it from now on.
    Supervised {
        /// The incarnation.
        uid: &'a str,
        /// How many instances it has.
        instances: usize,
        /// How many of them were found running.
        running: usize,
    },
    /// A process of an instance was started.
    InstanceStarted {
        /// The instance.
        instance: &'a str,
        /// Its process.
        pid: i32,
        /// Its port, where it has one.
        port: Option<u16>,
    },
    /// An instance that was to leave has ended.
    InstanceLeft {
        /// The instance.
        instance: &'a str,
        /// How its process ended.
        how: &'a str,
    },
    /// An instance ended, was not healthy in time, or could not be started; it is started again.
    InstanceFailed {
        /// The instance.
        instance: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A person set its count.
    ByHand {
        /// The count before.
        from: u32,
        /// The count now.
        to: u32,
        /// Who.
        actor: &'a str,
    },
    /// Its document changed.
    DocumentChanged,
    /// Its document is gone.
    DocumentGone,
    /// It has two documents.
    DocumentTwice,
}

impl OfFleet<'_> {
    /// INFO, where something failed or is gone WARN, where a document cannot count ERROR.
    pub fn emit(self) {
        let OfFleet { target, what } = self;
        match what {
            Fleet::Supervised { uid, instances, running } => {
                info!(event = "supervising", target_id = %target, uid, instances, running, "{target} is supervised: {running} of its {instances} instances run already");
            }
            Fleet::InstanceStarted { instance, pid, port } => {
                info!(event = "instance-started", target_id = %target, instance, pid, port, "{target}: instance {instance} was started as pid {pid}");
            }
            Fleet::InstanceLeft { instance, how } => {
                info!(event = "instance-left", target_id = %target, instance, "{target}: instance {instance} left: {how}");
            }
            Fleet::InstanceFailed { instance, why } => {
                warn!(event = "instance-failed", target_id = %target, instance, "{target}: instance {instance} failed, and is started again: {why}");
            }
            Fleet::ByHand { from, to, actor } => {
                info!(event = "by-hand", target_id = %target, from, to, actor, "{target} was set from {from} to {to} replicas by {actor}");
            }
            Fleet::DocumentChanged => info!(
                event = "document-changed", target_id = %target,
                "{target}: its document changed; checks, drain and endpoints follow at once, command, args and env with each start, ports and requests with new instances"
            ),
            Fleet::DocumentGone => {
                warn!(event = "document-gone", target_id = %target, "{target}: its document is gone; its processes run on and are not looked after any more");
            }
            Fleet::DocumentTwice => error!(event = "document-twice", target_id = %target, "{target} has two documents; the first one counts"),
        }
    }
}

/// A count was set by hand, and who did it, and why, is not on the log.
#[derive(Debug)]
pub struct HandNotRecorded<'a> {
    /// What was done.
    pub change: &'a ManualChange,
    /// Why it never will be there; without, it is tried until it is.
    pub never: Option<&'a str>,
}

impl HandNotRecorded<'_> {
    /// WARN; ERROR where it never will be. The line has all that the record would have.
    pub fn emit(self) {
        let ManualChange { target, from, to, actor, reason, forced } = self.change;
        let said = reason.as_deref().unwrap_or("no reason was given");
        let what = format!("{target} was set from {from} to {to} replicas by {actor} ({said}), which");
        match self.never {
            None => warn!(event = "by-hand-not-recorded", target_id = %target, from, to, actor, forced, "{what} is not recorded yet; it is tried until it is"),
            Some(why) => error!(event = "by-hand-not-recorded", target_id = %target, from, to, actor, forced, "{what} will not be recorded: {why}"),
        }
    }
}

/// A document of a fleet cannot be used.
#[derive(Debug)]
pub struct DocumentUnusable<'a>(pub &'a str);

impl DocumentUnusable<'_> {
    /// ERROR.
    pub fn emit(self) {
        error!(event = "document-unusable", "a fleet's document cannot be used; what its file said last, if anything, stays in force: {}", self.0);
    }
}

/// A policy file cannot be used.
#[derive(Debug)]
pub struct PolicyFileUnusable<'a> {
    /// The file.
    pub file: &'a Path,
    /// What is wrong, and the mend.
    pub problem: &'a str,
}

impl PolicyFileUnusable<'_> {
    /// WARN.
    pub fn emit(self) {
        let PolicyFileUnusable { file, problem } = self;
        warn!(event = "policy-file-unusable", file = %file.display(), "{}: {problem}; its last valid policies, if any, stay in force", file.display());
    }
}

/// Policy files cannot be looked at, or what they say cannot be announced.
#[derive(Debug)]
pub struct PoliciesUnread<'a>(pub &'a str);

impl PoliciesUnread<'_> {
    /// WARN.
    pub fn emit(self) {
        warn!(event = "policies-unread", "policies stay as they are, and are looked at again: {}", self.0);
    }
}

/// The actuator carries out the commands of these partitions from now on.
#[derive(Debug)]
pub struct Actuating<'a>(pub &'a [u32]);

impl Actuating<'_> {
    /// INFO.
    pub fn emit(self) {
        let partitions = self.0.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        info!(event = "actuating", partitions, "commands of {} partitions are carried out here", self.0.len());
    }
}

/// The lag of a group was measured.
#[derive(Debug)]
pub struct LagMeasured<'a> {
    /// The source.
    pub source: &'a str,
    /// What was found.
    pub lag: &'a Lag,
}

impl LagMeasured<'_> {
    /// DEBUG, with each partition that has something to read.
    pub fn emit(self) {
        let LagMeasured { source, lag } = self;
        let partitions = lag.partitions.iter().filter(|(_, lag)| **lag > 0).map(|(place, lag)| format!("{place}={lag}")).collect::<Vec<_>>().join(" ");
        debug!(event = "lag-measured", source, value = lag.value, partitions, "{source}: a lag of {}: {partitions}", lag.value);
    }
}

/// What a source of lag has to say cannot be appended for now; `Log::trouble` tells of it.
#[derive(Debug)]
pub struct LagUnappended<'a> {
    /// The source.
    pub source: &'a str,
    /// What stands in the way.
    pub error: &'a LogError,
}

impl LagUnappended<'_> {
    /// DEBUG.
    pub fn emit(self) {
        let LagUnappended { source, error } = self;
        debug!(event = "lag-unappended", source, %error, "{source}: the log does not take or tell it for now; it is measured anew");
    }
}

/// The program answers, or ends.
#[derive(Debug)]
pub enum Program<'a> {
    /// It answers here.
    Ready(&'a str),
    /// It was told to end, or must.
    Ending,
}

impl Program<'_> {
    /// INFO.
    pub fn emit(self) {
        match self {
            Program::Ready(address) => info!(event = "ready", "ready: http://{address}"),
            Program::Ending => info!(event = "ending", "ending: what was accepted is brought to its end"),
        }
    }
}

/// A schema registry that cannot be asked.
#[cfg(feature = "kafka")]
#[derive(Debug, Default)]
pub struct SchemaRegistry(Repeated);

#[cfg(feature = "kafka")]
impl SchemaRegistry {
    /// WARN, limited: the first, then one a minute with the count.
    pub fn unreachable(&self, reason: &str) {
        if let Some(times) = self.0.note() {
            warn!(
                event = "schema-registry-unreachable",
                times, "{reason}; records with schemas that are known go on, others wait, and what comes after them in their partition"
            );
        }
    }

    /// INFO.
    pub fn answers(url: &str) {
        info!(event = "schema-registry-reachable", url, "the schema registry at {url} answers again");
    }
}
