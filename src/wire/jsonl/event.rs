//! What the pipeline says, as lines: decisions, requests, grants, commands.

use serde::Serialize;

use super::line;
use super::shapes::{GrantShape, OpenCommandShape};
use crate::model::{
    Amount, Command, Decision, FleetName, Grant, MetricName, MetricStatus, Request, StepKind, TargetId, ThresholdSide, ThresholdWait, Timestamp, Verdict,
};
use crate::wire::words;

/// `at`, `target`, and one thing that is said of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventLine<'a> {
    at: Timestamp,
    target: &'a TargetId,
    #[serde(flatten)]
    event: Event<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Event<'a> {
    Decision(DecisionShape<'a>),
    Request(RequestShape<'a>),
    Grant(GrantShape),
    Command(CommandShape<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecisionShape<'a> {
    sequence: i64,
    current: u32,
    desired: u32,
    verdict: Verdict,
    binding: StepKind,
    reason: String,
    metrics: Vec<MetricShape<'a>>,
    steps: Vec<StepShape>,
    policy_version: &'a str,
    fold_version: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    advised: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricShape<'a> {
    name: &'a MetricName,
    status: MetricStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<ThresholdShape>,
}

/// Which limit applied; the limit itself is the metric's `target`.
#[derive(Serialize)]
struct ThresholdShape {
    side: ThresholdSide,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<ThresholdWait>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepShape {
    step: StepKind,
    before: u32,
    after: u32,
    why: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestShape<'a> {
    fleet: &'a FleetName,
    epoch: i64,
    uid: &'a str,
    current: u32,
    desired: u32,
    min: u32,
    priority: i32,
    paced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<OpenCommandShape>,
    heard_of: i64,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    withdrawn: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommandShape<'a> {
    id: &'a str,
    uid: &'a str,
    epoch: i64,
    from: u32,
    to: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_to: Option<u32>,
    expires_at: Timestamp,
}

/// A decision as a line, with its reason and each step's why in words.
pub fn decision_to_line(at: Timestamp, decision: &Decision) -> String {
    let metrics = decision.metrics.iter().map(|m| MetricShape {
        name: &m.name,
        status: m.status,
        value: m.value,
        target: m.target,
        proposal: m.proposal,
        note: m.note.as_deref(),
        threshold: m.threshold.as_ref().map(|t| ThresholdShape { side: t.side, waits: t.waits, until: t.until }),
    });
    let steps = decision.steps.iter().map(|s| StepShape { step: s.step, before: s.before, after: s.after, why: words::why(decision, s) });
    let shape = DecisionShape {
        sequence: decision.sequence,
        current: decision.current,
        desired: decision.desired,
        verdict: decision.verdict,
        binding: decision.binding,
        reason: words::sentence(decision),
        metrics: metrics.collect(),
        steps: steps.collect(),
        policy_version: &decision.policy_version,
        fold_version: decision.fold_version,
        advised: decision.advised,
    };
    line(&EventLine { at, target: &decision.target, event: Event::Decision(shape) })
}

/// A claim as a line.
pub fn request_to_line(at: Timestamp, request: &Request) -> String {
    let shape = RequestShape {
        fleet: &request.fleet,
        epoch: request.epoch,
        uid: &request.uid,
        current: request.current,
        desired: request.desired,
        min: request.min,
        priority: request.priority,
        paced: request.paced,
        open: request.open.as_ref().map(OpenCommandShape::from),
        heard_of: request.heard_of,
        expires_at: request.expires_at,
        withdrawn: request.withdrawn,
    };
    line(&EventLine { at, target: &request.target, event: Event::Request(shape) })
}

/// A grant as a line: the same that `line_to_signal` reads.
pub fn grant_to_line(at: Timestamp, grant: &Grant) -> String {
    line(&EventLine { at, target: &grant.target, event: Event::Grant(grant.into()) })
}

/// A command as a line.
pub fn command_to_line(at: Timestamp, command: &Command) -> String {
    let shape = CommandShape {
        id: &command.id,
        uid: &command.uid,
        epoch: command.epoch,
        from: command.from,
        to: command.to,
        replaces: command.replaces.as_deref(),
        replaced_to: command.replaced_to,
        expires_at: command.expires_at,
    };
    line(&EventLine { at, target: &command.target, event: Event::Command(shape) })
}

/// "Everything that input line `number` (from 1) causes has been printed."
pub fn done_line(number: u64) -> String {
    format!("{{\"done\":{number}}}")
}
