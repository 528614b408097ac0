//! Operational events: one struct each, whose `emit` writes its line and counts it, together.
//!
//! The lines are for a person who is woken at night. INFO is what changes something: a decision about another
//! count, what came of its command, a policy, an alert that is over. WARN is to be looked at in the next hours, ERROR
//! now. DEBUG is the rest. What repeats ([`Repeated`]) is told at once, then once a minute with how often it came, and
//! when it is over, so that no level drowns. `event` names the struct in every line, for whoever filters them.
//!
//! The counts ([`Tally`], [`TargetTally`]) begin at 0 with the process and are its own, as the lines are; `/metrics`
//! shows them. Their labels are closed sets of words; nothing of them comes from a message.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::model::{
    Alert, AlertState, DeadLetter, Decision, Grant, GrantLimit, Mark, Outcome, PolicyAnnouncement, PolicyRejected, Severity, TargetId, Timestamp,
};
use crate::wire::words;

mod refusals;
mod repeated;
mod tally;

use refusals::Refusals;
pub use repeated::Repeated;
pub use tally::{Latest, Tally, TargetTally};

/// Alerts whose own watch writes the line, since it must be told when nothing can be appended.
const TOLD_BY_THEIR_WATCH: [&str; 1] = ["LogNotWritable"];

/// The topics of dead letters, and the stages that read or take snapshots.
const TOPICS: &[&str] = &["metrics", "control", "signals", "requests", "commands", "audit", "alerts", "dead-letters"];
const STAGES: &[&str] = &["aggregate", "admit", "decide", "arbitrate", "actuate"];
const READERS: &[&str] = &["aggregate", "admit", "decide", "arbitrate", "view-audit", "view-signals", "view-alerts", "view-dead-letters"];

/// Decisions that were written down, by verdict and by the step that bound.
pub static DECISIONS: TargetTally = TargetTally::new();
/// Commands, by what came of them.
pub static COMMANDS: TargetTally = TargetTally::new();
/// What keeps the commands of each target from being carried out.
static REFUSALS: Refusals = Refusals::new();
/// Grants that were cut, by the limit that cut them.
pub static LIMITED_GRANTS: TargetTally = TargetTally::new();
/// Policies that took effect, or were removed.
pub static POLICIES: Tally = Tally::new(&["in-force", "removed", "rejected"]);
/// Records that could not be used, by the topic that they stood on.
pub static DEAD_LETTERS: Tally = Tally::new(TOPICS);
/// Samples that aggregate took after their pane had been marked.
pub static LATE_SAMPLES: Tally = Tally::new(&[""]);
/// Samples that aggregate did not take.
pub static REJECTED_SAMPLES: Tally = Tally::new(&[""]);
/// Samples of messages that aggregate dropped as repetitions.
pub static REPEATED_SAMPLES: Tally = Tally::new(&[""]);
/// Samples that are in the log for good, and were answered with 200.
pub static ACCEPTED_SAMPLES: Tally = Tally::new(&[""]);
/// Samples that ingest did not take, by why.
pub static REFUSED_SAMPLES: Tally = Tally::new(&SampleRefused::WORDS);
/// Samples in panes, once for each target.
pub static AGGREGATED_SAMPLES: Tally = Tally::new(&[""]);
/// Those of them that no policy asks for, by why.
pub static UNUSED_SAMPLES: Tally = Tally::new(&SampleUnused::WORDS);
/// Requests with samples of which nothing was taken, by why.
pub static REFUSED_REQUESTS: Tally = Tally::new(&RequestRefused::WORDS);
/// Reads of the log that failed for now.
pub static READ_RETRIES: Tally = Tally::new(READERS);
/// Commits of a stage that failed for now.
pub static COMMIT_RETRIES: Tally = Tally::new(STAGES);
/// Commits that held snapshots.
pub static SNAPSHOTS: Tally = Tally::new(&["admit", "decide", "arbitrate"]);
/// When a stage last committed snapshots.
pub static SNAPSHOT_AT: Latest = Latest::new();

/// A decision was written down.
#[derive(Debug)]
pub struct Decided<'a>(pub &'a Decision);

impl Decided<'_> {
    /// INFO where it is about another count than the present one, else DEBUG.
    pub fn emit(self) {
        let Decided(decision) = self;
        DECISIONS.add(&decision.target, decision.verdict.name(), decision.binding.name());
        let Decision { target, current, desired, verdict, binding, sequence, .. } = decision;
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    event = "decided", target_id = %target, sequence, from = current, to = desired, verdict = verdict.name(), step = binding.name(),
                    advised = decision.advised, "{target} {}: {}", words::verdict(decision), words::sentence(decision)
                )
            };
        }
        if current == desired { line!(debug) } else { line!(info) }
    }
}

/// Something came of a command.
#[derive(Debug)]
pub struct CommandEnded<'a>(pub &'a Outcome);

impl CommandEnded<'_> {
    /// INFO where it was applied or a newer one took its place. Else WARN, limited, since it is tried again: the first of
    /// its kind for this target, then one a minute with the count.
    pub fn emit(self) {
        let CommandEnded(outcome) = self;
        let Outcome { target, command, result, replicas, error, .. } = outcome;
        COMMANDS.add(target, result.name(), "");
        let Some(times) = REFUSALS.note(outcome) else { return };
        let again = if times > 1 { format!("; {times} times since this was told last") } else { String::new() };
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    event = "command-ended", target_id = %target, command, result = result.name(), replicas, error, times,
                    "command for {target}: {}{again}", words::outcome(outcome)
                )
            };
        }
        if refusals::is_refusal(*result) { line!(warn) } else { line!(info) }
    }
}

/// The arbiter granted less than was asked for.
#[derive(Debug)]
pub struct GrantLimited<'a>(pub &'a Grant);

impl GrantLimited<'_> {
    /// DEBUG: the decision's line says what was wanted, and `why` the rest.
    pub fn emit(self) {
        let GrantLimited(grant) = self;
        if grant.limit == GrantLimit::None {
            return;
        }
        LIMITED_GRANTS.add(&grant.target, grant.limit.name(), "");
        let Grant { target, desired, granted, limit, .. } = grant;
        debug!(event = "grant-limited", target_id = %target, desired, granted, limit = limit.name(), "{target}: {}", words::grant(grant));
    }
}

/// A policy took effect, or was removed.
#[derive(Debug)]
pub struct PolicyChanged<'a>(pub &'a PolicyAnnouncement);

impl PolicyChanged<'_> {
    /// INFO.
    pub fn emit(self) {
        let PolicyAnnouncement { target, spec, order } = self.0;
        let version = order.to_string();
        POLICIES.add(if spec.is_some() { "in-force" } else { "removed" }, 1);
        if spec.is_some() {
            info!(event = "policy-changed", target_id = %target, version, "{target}: policy {version} was announced");
        } else {
            info!(event = "policy-removed", target_id = %target, version, "{target}: its policy was removed; its replicas stay as they are");
        }
    }
}

/// A document was refused; the alert `PolicyInvalid` says so in words.
#[derive(Debug)]
pub struct PolicyRefused<'a>(pub &'a PolicyRejected);

impl PolicyRefused<'_> {
    /// DEBUG.
    pub fn emit(self) {
        let PolicyRejected { origin, error, .. } = self.0;
        POLICIES.add("rejected", 1);
        debug!(event = "policy-refused", origin, error, "a document was refused");
    }
}

/// An alert began, ended, or happened.
#[derive(Debug)]
pub struct AlertChanged<'a>(pub &'a Alert);

impl AlertChanged<'_> {
    /// ERROR, WARN or INFO by its severity; INFO where it is over.
    pub fn emit(self) {
        let Alert { target, name, subject, severity, state, message, .. } = self.0;
        if TOLD_BY_THEIR_WATCH.contains(&name.as_str()) {
            return;
        }
        let (place, target) = (target.as_ref().map(|t| format!("{t}: ")).unwrap_or_default(), target.as_ref().map(tracing::field::display));
        macro_rules! line {
            ($level:ident) => {
                line!($level, "{place}{message} ({name})")
            };
            ($level:ident, $words:literal) => {
                $level!(event = "alert", target_id = target, alert = name, subject, severity = severity.name(), state = ?state, $words)
            };
        }
        match (state, severity) {
            (AlertState::Resolved, _) => line!(info, "{place}{name} is over: {message}"),
            (_, Severity::Critical) => line!(error),
            (_, Severity::Warning) => line!(warn),
            (_, Severity::Info) => line!(info),
        }
    }
}

/// A record could not be used.
#[derive(Debug)]
pub struct RecordPutAside<'a>(pub &'a DeadLetter);

impl RecordPutAside<'_> {
    /// WARN, limited: the first, then one a minute with the count.
    pub fn emit(self, repeated: &Repeated) {
        let DeadLetter { topic, partition, offset, reason, .. } = self.0;
        DEAD_LETTERS.add(topic, 1);
        if let Some(times) = repeated.note() {
            warn!(event = "record-put-aside", topic, partition, offset, times, "a record of {topic} cannot be used, and is kept in dead-letters: {reason}");
        }
    }
}

/// Aggregate marked a time as complete.
#[derive(Debug)]
pub struct Marked<'a>(pub &'a Mark);

impl Marked<'_> {
    /// DEBUG, where samples came late, again, or were not taken.
    pub fn emit(self) {
        let Mark { late, rejected, repeated, source, .. } = self.0;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        LATE_SAMPLES.add("", count(*late));
        REJECTED_SAMPLES.add("", count(*rejected));
        REPEATED_SAMPLES.add("", count(*repeated));
        if *late > 0 || *rejected > 0 || *repeated > 0 {
            debug!(event = "marked", source, late, rejected, repeated, "{late} samples came late, {rejected} were not taken, {repeated} came again");
        }
    }
}

/// Why ingest did not take a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleRefused {
    /// It cannot be read.
    Unreadable,
    /// Its time is more than a day ago.
    TooOld,
    /// It can never count: not finite, too far ahead, a histogram that does not add up.
    Implausible,
}

impl SampleRefused {
    const WORDS: [&'static str; 3] = ["unreadable", "too-old", "implausible"];

    /// Counts it; its producer is told, line by line.
    pub fn emit(self) {
        REFUSED_SAMPLES.add(Self::WORDS[self as usize], 1);
    }
}

/// Why nobody asks for a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleUnused {
    /// No policy names its target.
    NoPolicy,
    /// The policy of its target does not name its metric.
    NoMetric,
}

impl SampleUnused {
    const WORDS: [&'static str; 2] = ["no-policy", "no-metric"];

    /// Counts so many.
    pub fn count(self, samples: u64) {
        UNUSED_SAMPLES.add(Self::WORDS[self as usize], samples);
    }
}

/// Samples came that are of no use to anybody.
#[derive(Debug)]
pub struct SamplesUnused<'a> {
    /// Whose they are.
    pub target: &'a TargetId,
    /// Whether anything else is known of it: else its name is a slip.
    pub is_known: bool,
    /// Why, with what was probably meant.
    pub reason: &'a str,
    /// How often, since it was told last.
    pub times: u64,
}

impl SamplesUnused<'_> {
    /// INFO where nothing else is known of the target; else DEBUG, as whoever sends more than a policy asks for does no harm.
    pub fn emit(self) {
        let SamplesUnused { target, is_known, reason, times } = self;
        macro_rules! line {
            ($level:ident) => {
                $level!(event = "samples-unused", target_id = %target, times, "samples are not used: {reason}")
            };
        }
        if is_known { line!(debug) } else { line!(info) }
    }
}

/// Why nothing of a request with samples was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestRefused {
    /// Its type or its body cannot be read, or no sample of it can be used.
    Unusable,
    /// As many requests are under way as the queue takes.
    Busy,
    /// More samples come than `ingest.samplesPerSecond` takes.
    Rate,
    /// The log is full.
    Full,
    /// Nothing can be written, or it took too long.
    Unavailable,
}

impl RequestRefused {
    const WORDS: [&'static str; 5] = ["unusable", "busy", "rate", "log-full", "unavailable"];

    /// WARN, limited: the first of its kind, then one a minute with the count.
    pub fn emit(self, why: &str) {
        static TOLD: [Repeated; 5] = [const { Repeated::new() }; 5];
        let reason = Self::WORDS[self as usize];
        REFUSED_REQUESTS.add(reason, 1);
        if let Some(times) = TOLD[self as usize].note() {
            warn!(event = "request-refused", reason, times, "samples are refused: {why}");
        }
    }
}

/// The log cannot be read for now.
#[derive(Debug)]
pub struct LogUnreadable<'a> {
    /// The group that reads.
    pub reader: &'static str,
    /// What stands in the way.
    pub reason: &'a str,
}

impl LogUnreadable<'_> {
    /// WARN, limited: the first, then one a minute with the count.
    pub fn emit(self, repeated: &Repeated) {
        let LogUnreadable { reader, reason } = self;
        READ_RETRIES.add(reader, 1);
        if let Some(times) = repeated.note() {
            warn!(event = "log-unreadable", reader, times, reason, "{reader} cannot read the log for now: {reason}; it tries again");
        }
    }

    /// INFO, once reads have succeeded for a while.
    pub fn over(reader: &'static str, repeated: &Repeated) {
        if let Some(times) = repeated.calm() {
            info!(event = "log-readable", reader, times, "{reader} reads the log again");
        }
    }
}

/// A stage cannot commit for now; `Log::trouble` tells of it.
#[derive(Debug)]
pub struct CommitRefused<'a> {
    /// The stage.
    pub stage: &'static str,
    /// What stands in the way.
    pub reason: &'a str,
    /// The wait until it is tried again.
    pub pause: Duration,
}

impl CommitRefused<'_> {
    /// DEBUG.
    pub fn emit(self) {
        let CommitRefused { stage, reason, pause } = self;
        COMMIT_RETRIES.add(stage, 1);
        debug!(event = "commit-refused", stage, reason, "nothing can be committed for now; nothing is lost, trying again in {pause:?}");
    }
}

/// A stage goes on with a partition, of which it has what it had committed.
#[derive(Debug)]
pub struct PartitionRestored {
    /// The stage.
    pub stage: &'static str,
    /// The partition of its input.
    pub partition: u32,
    /// From where it goes on.
    pub position: u64,
    /// How many entries its snapshots have.
    pub entries: u64,
}

impl PartitionRestored {
    /// DEBUG.
    pub fn emit(self) {
        let PartitionRestored { stage, partition, position, entries } = self;
        debug!(event = "partition-restored", stage, partition, position, entries, "{stage} goes on with partition {partition} at {position}");
    }
}

/// A stage committed snapshots.
#[derive(Debug)]
pub struct SnapshotsWritten {
    /// The stage.
    pub stage: &'static str,
    /// When.
    pub at: Timestamp,
}

impl SnapshotsWritten {
    /// DEBUG.
    pub fn emit(self) {
        SNAPSHOTS.add(self.stage, 1);
        SNAPSHOT_AT.set(self.stage, self.at);
        debug!(event = "snapshots-written", stage = self.stage, "snapshots are in the log");
    }
}

/// Something that must be known at once failed, for the one line of a part that ends.
#[derive(Debug)]
pub struct PartFailed<'a> {
    /// The part.
    pub part: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl PartFailed<'_> {
    /// ERROR.
    pub fn emit(self) {
        let PartFailed { part, reason } = self;
        error!(event = "part-failed", part, reason, "{part} ended with an error: {reason}");
    }
}
