//! The documents of the HTTP interface. Server and commands share them, so that they cannot differ.
//!
//! Times are Unix milliseconds, amounts JSON numbers in base units, as in the JSON lines of the log.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::policy::Unit;
use crate::model::{
    Alert, AlertState, Command, Decision, FleetObservation, Grant, GrantLimit, ManualChange, MetricName, MetricReport, MetricStatus, Outcome, OutcomeResult,
    StepKind, TargetId, Timestamp, Verdict,
};
use crate::runtime::retention::Usage;
use crate::wire::words;

mod does;
mod problem;
mod requests;

pub use does::{Held, does};
pub use problem::Problem;
pub use requests::{Ingested, LineRejected, SamplesUnused, ScaleRequest, Scaled};

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When the process started.
    pub started_at: Timestamp,
    /// When this was answered.
    pub at: Timestamp,
    /// The targets, by name.
    pub targets: Vec<TargetStatus>,
    /// How far behind each stage is.
    pub lag: Vec<Lag>,
    /// How the log stands to its limit; `None` where it has none.
    #[serde(default)]
    pub log: Option<Usage>,
    /// What a person should look at and that concerns no single target.
    pub alerts: Vec<Alert>,
}

/// What is known of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The target.
    pub target: TargetId,
    /// The policy's role; `None` without a policy.
    #[serde(default)]
    pub role: Option<String>,
    /// The policy's mode; `None` without a policy.
    #[serde(default)]
    pub mode: Option<String>,
    /// The fewest replicas, by the policy.
    #[serde(default)]
    pub min: Option<u32>,
    /// The most replicas, by the policy.
    #[serde(default)]
    pub max: Option<u32>,
    /// The count that is asked for now: the observed one, else that of the last decision.
    #[serde(default)]
    pub current: Option<u32>,
    /// The count of the last evaluation.
    #[serde(default)]
    pub desired: Option<u32>,
    /// How many instances are ready.
    #[serde(default)]
    pub ready: Option<u32>,
    /// When the replicas were last observed.
    #[serde(default)]
    pub seen_at: Option<Timestamp>,
    /// What the last evaluation comes to.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// The step that bound.
    #[serde(default)]
    pub binding: Option<StepKind>,
    /// Why, in one sentence.
    pub reason: String,
    /// When it was last evaluated, whether that was written down or not.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Up to when event time was complete for it.
    #[serde(default)]
    pub through: Option<Timestamp>,
    /// Metrics without a usable value that the decision needs: while there are any, nothing is removed.
    pub blind: Vec<String>,
    /// Metrics without a usable value that hold nothing back: `whenBlind: Ignore`, or observed only.
    #[serde(default)]
    pub blind_ignored: Vec<String>,
    /// Each metric's part in the last evaluation.
    pub metrics: Vec<MetricReport>,
    /// What a person should look at.
    pub alerts: Vec<Alert>,
    /// The file that stops all commands for it, where one is there.
    #[serde(default)]
    pub frozen: Option<String>,
}

impl TargetStatus {
    /// Whether a person should look: it is frozen, blind in a metric, left alone, held by a fault, or has an alert that fires.
    pub fn needs_attention(&self) -> bool {
        let held = matches!(self.verdict, Some(Verdict::Blind | Verdict::Disabled | Verdict::Faulted));
        held || self.frozen.is_some() || !self.blind.is_empty() || self.alerts.iter().any(|alert| alert.state == AlertState::Firing)
    }

    /// Whether the count is on its way to another one: not where only advice is given, or nothing is commanded.
    pub fn is_scaling(&self) -> bool {
        matches!(self.verdict, Some(Verdict::ScaleOut | Verdict::ScaleIn)) && self.held().is_none()
    }

    /// What keeps its decisions from being carried out.
    pub fn held(&self) -> Option<Held> {
        match (&self.frozen, self.mode.as_deref()) {
            (Some(_), _) => Some(Held::Frozen),
            (None, Some("Advise")) => Some(Held::Advises),
            (None, Some("Off")) => Some(Held::Off),
            (None, _) => None,
        }
    }
}

/// `GET /api/v1/targets`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Targets {
    /// When this was answered.
    pub at: Timestamp,
    /// How many targets match, on all pages.
    pub matching: usize,
    /// Those of this page, by name.
    pub targets: Vec<TargetStatus>,
    /// The path of the next page; `None` on the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// How far behind a stage is in one partition of its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// The stage.
    pub stage: String,
    /// Its input.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Records that it has still to process.
    pub records: u64,
    /// When the first of them was appended; `None` where there is none, or it is not known.
    #[serde(default)]
    pub waiting_since: Option<Timestamp>,
    /// Whether that one waits for longer than the stage lets records wait, and than it takes until a process that was killed is replaced.
    #[serde(default)]
    pub late: bool,
    /// Which process has it; `None` where this is the only one, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What nobody reads yet, as somebody's transaction before it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
}

/// The end of a partition that no reader sees, behind a transaction that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hidden {
    /// Where the transaction begins.
    pub from: u64,
    /// How many offsets there are from there on.
    pub offsets: u64,
    /// When it was first seen.
    pub since: Timestamp,
}

impl Lag {
    /// What to look at: the stage is behind by more than what a few panes bring, or late.
    pub fn trouble(&self, now: Timestamp) -> Option<String> {
        let Lag { stage, topic, partition, records, .. } = self;
        let waits = self.waiting_since.map(|since| now.since(since)).filter(|_| *records > 0);
        if let Some(Hidden { from, offsets, since }) = &self.hidden
            && now.since(*since) > HIDES
        {
            let open = now.since(*since).as_secs();
            return Some(format!(
                "a producer's transaction is open at {from} of {topic}/{partition} for {open} s: {stage} reads nothing of the {offsets} offsets from there on, whoever wrote them; \
                 docs/producers.md says how to find and end it (\"Transactions\")"
            ));
        }
        if *records <= BEHIND && !self.late {
            return None;
        }
        let waits = waits.map_or_else(String::new, |waits| format!(", of which the first waits for {} s", waits.as_secs()));
        let owner = match &self.owner {
            None => String::new(),
            Some(Owner::Member(member)) => format!("; {member} has it"),
            Some(Owner::Nobody) => format!("; no process has it: is one with the role {stage} there?"),
        };
        Some(format!("{stage} is {records} records behind on {topic}/{partition}{waits}{owner}"))
    }
}

/// How many records a stage may be behind before it is pointed out: a few panes' worth.
const BEHIND: u64 = 1_000;

/// How long a transaction of others may be open before it is pointed out.
const HIDES: Duration = Duration::from_secs(10);

/// Which process has a partition of a stage's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// None: it is being handed over, or no process has the role.
    Nobody,
    /// This one, by its name on the log.
    Member(String),
}

/// `GET /api/v1/targets/{namespace}/{kind}/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetDetail {
    /// What `status` shows.
    pub status: TargetStatus,
    /// The replicas as last observed.
    #[serde(default)]
    pub fleet: Option<FleetObservation>,
    /// The `spec` of the policy in force, as JSON text.
    #[serde(default)]
    pub policy: Option<String>,
    /// The last decision and what came of it.
    #[serde(default)]
    pub last: Option<Story>,
}

/// The path of a target's documents.
pub fn target_path(target: &TargetId) -> String {
    format!("/api/v1/targets/{}", address(target))
}

/// `namespace/Kind/name` as a part of a path.
pub fn address(target: &TargetId) -> String {
    [target.namespace(), target.kind(), target.name()].map(escape).join("/")
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(u32::from(digit), 16)).map(|c| c.to_ascii_uppercase()));
        }
    }
    escaped
}

/// A record with the time at which the log took it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dated<T> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub record: T,
}

/// A decision, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// The decision in one sentence.
    pub sentence: String,
    /// The decision.
    pub decision: Decision,
    /// The arbiter's answers, in order.
    pub grants: Vec<Dated<Grant>>,
    /// The commands that were issued for it.
    pub commands: Vec<Dated<Command>>,
    /// What came of them.
    pub outcomes: Vec<Dated<Outcome>>,
    /// What people set by hand since the decision before.
    #[serde(default)]
    pub by_hand: Vec<Dated<ManualChange>>,
}

/// The most grants, commands and outcomes that one story keeps, each: paced removals and commands that are held answer one
/// claim again and again. The newest stay.
pub const MOST_PARTS: usize = 20;

impl Story {
    /// How far it has come, where there is no outcome yet.
    pub fn so_far(&self) -> Option<&'static str> {
        let decision = &self.decision;
        let said = match (decision.current == decision.desired, decision.advised, self.commands.is_empty(), self.grants.is_empty()) {
            (true, ..) => "There was nothing to do.",
            (_, true, ..) => "It was advice only: nothing was asked for.",
            (_, _, false, _) => "What came of the command is not known yet.",
            (_, _, true, false) => "No command was issued.",
            (_, _, true, true) => "The arbiter has not answered yet.",
        };
        self.outcomes.is_empty().then_some(said)
    }

    /// Why another count that was decided does not stand, or is not known to; `None` where it was applied, or nothing was to be done.
    pub fn not_carried_out(&self) -> Option<String> {
        if self.decision.current == self.decision.desired || self.decision.advised {
            return None;
        }
        match (self.outcomes.last(), self.grants.last()) {
            (Some(last), _) => (last.record.result != OutcomeResult::Applied).then(|| words::outcome(&last.record)),
            (None, Some(grant)) if self.commands.is_empty() && grant.record.command.is_none() => Some(words::grant(&grant.record)),
            (None, _) => self.so_far().map(str::to_owned),
        }
    }

    /// What keeps it from being carried out, where a word says it.
    pub fn held(&self) -> Option<Held> {
        let frozen = match (self.outcomes.last(), self.grants.last()) {
            (Some(outcome), _) => outcome.record.result == OutcomeResult::Frozen,
            (None, grant) => self.commands.is_empty() && grant.is_some_and(|grant| grant.record.limit == GrantLimit::Freeze),
        };
        if self.decision.advised { Some(Held::Advises) } else { frozen.then_some(Held::Frozen) }
    }
}

/// `GET /api/v1/targets/…/decisions`: the newest last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decisions {
    /// The target.
    pub target: TargetId,
    /// Its decisions.
    pub decisions: Vec<Story>,
    /// What people set by hand since the last decision that was written down.
    #[serde(default)]
    pub by_hand: Vec<Dated<ManualChange>>,
    /// The path of the next page, of older decisions; `None` where there are none.
    #[serde(default)]
    pub next: Option<String>,
    /// What is gone of the audit, where there are fewer decisions than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// `GET /api/v1/targets/…/signals`: what decisions are made of, the newest last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signals {
    /// The target.
    pub target: TargetId,
    /// Its own signals, each as a line of `loadline export`.
    pub signals: Vec<Box<RawValue>>,
    /// The path of the next page, of older signals; `None` where the log begins.
    #[serde(default)]
    pub next: Option<String>,
}

/// What a metric's target means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// It is followed in both directions.
    Track,
    /// Above it one step out; below another one a step in.
    Threshold,
    /// None: it is observed only.
    Observe,
}

/// `GET /api/v1/targets/…/series`: evaluations over time, in columns of the same length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The target.
    pub target: TargetId,
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Of evaluations that are closer together than this, and change nothing, the last is kept. In milliseconds.
    pub resolution_ms: u64,
    /// When each evaluation was made. A row in which all is `null` says that from here to the next row nothing is known.
    pub times: Vec<Timestamp>,
    /// The counts.
    pub replicas: ReplicaSeries,
    /// The metrics, by name.
    pub metrics: Vec<MetricSeries>,
}

/// Counts over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReplicaSeries {
    /// The count that was asked for. In mode Advise it is the observed one, which of evaluations before the last start is not known.
    pub current: Vec<Option<u32>>,
    /// The count that was decided, in mode Advise advised.
    pub desired: Vec<Option<u32>>,
    /// How many instances were ready; of evaluations before the last start it is not known.
    pub ready: Vec<Option<u32>>,
    /// The fewest replicas, by the policy of then.
    pub min: Vec<Option<u32>>,
    /// The most replicas, by the policy of then.
    pub max: Vec<Option<u32>>,
}

/// A metric over time, in base units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSeries {
    /// The metric.
    pub name: MetricName,
    /// The unit.
    pub unit: Unit,
    /// What `target` means, by the policy of now.
    #[serde(default)]
    pub rule: Option<Rule>,
    /// Whether its amounts are rates: so much a second.
    #[serde(default)]
    pub per_second: bool,
    /// The value that was measured.
    pub value: Vec<Option<f64>>,
    /// What it was held against: its target, or the threshold above which it scales out.
    pub target: Vec<Option<f64>>,
    /// The threshold below which it scales in.
    pub scale_in_below: Vec<Option<f64>>,
    /// What the value was worth.
    pub status: Vec<Option<MetricStatus>>,
}

/// Records that retention has removed: the first ones of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// The partition.
    pub partition: u32,
    /// The first offset that is there.
    pub to: u64,
    /// Since when records are there; `None` where there is none.
    #[serde(default)]
    pub kept_since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_in_a_path_unchanged() {
        assert_eq!(escape("a b/ü?"), "a%20b%2F%C3%BC%3F");
    }
}
