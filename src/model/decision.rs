//! Decisions: the record of one evaluation. Values only; the words are made when it is shown.

use serde::{Deserialize, Serialize};

use super::policy::Unit;
use super::{Amount, MetricName, TargetId, Timestamp};

/// What a metric's value is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MetricStatus {
    /// A value to act on.
    Ok,
    /// There is nothing to measure; nothing is asked for.
    Idle,
    /// No sample ever, or none that counts.
    #[default]
    NoData,
    /// The newest sample is too old, or a source that fed it is silent.
    Stale,
    /// The source failed, or the data do not fit the policy.
    Error,
    /// Not a finite number.
    NonFinite,
    /// A status that this version does not know.
    #[serde(other)]
    Other,
}

impl MetricStatus {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            MetricStatus::Ok => "Ok",
            MetricStatus::Idle => "Idle",
            MetricStatus::NoData => "NoData",
            MetricStatus::Stale => "Stale",
            MetricStatus::Error => "Error",
            MetricStatus::NonFinite => "NonFinite",
            MetricStatus::Other => "Other",
        }
    }
}

impl MetricStatus {
    /// Whether nothing is known: a metric in this state lets no target shrink.
    pub fn is_blind(self) -> bool {
        !matches!(self, MetricStatus::Ok | MetricStatus::Idle)
    }
}

impl WhileBlind {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            WhileBlind::HoldIn => "HoldIn",
            WhileBlind::Ignore => "Ignore",
            WhileBlind::Observe => "Observe",
            WhileBlind::Other => "Other",
        }
    }
}

/// One metric's part in a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricReport {
    /// The metric.
    pub name: MetricName,
    /// What its value is worth.
    pub status: MetricStatus,
    /// The unit of `value` and `target`: `Ratio` for utilization, else the policy's.
    #[serde(default)]
    pub unit: Unit,
    /// Its value, in base units (a ratio for utilization).
    #[serde(default)]
    pub value: Option<Amount>,
    /// What it is held against: the value that is tracked, or the limit of a threshold that it is beyond (none in between).
    #[serde(default)]
    pub target: Option<Amount>,
    /// The count that it asks for, where it asks.
    #[serde(default)]
    pub proposal: Option<u32>,
    /// Why it has no value, or which instances did not count as they are; where words are needed.
    #[serde(default)]
    pub note: Option<String>,
    /// Where it stands to the limits of its threshold, and what that waits for; of a threshold with a value.
    #[serde(default)]
    pub threshold: Option<ThresholdReport>,
    /// What it does to the decision while it has no usable value.
    #[serde(default)]
    pub while_blind: WhileBlind,
    /// Whether `value`, `target` and the limits are rates: so much a second.
    #[serde(default)]
    pub per_second: bool,
}

/// What a metric does to a decision while it has no usable value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WhileBlind {
    /// Nothing is removed.
    #[default]
    HoldIn,
    /// The other metrics decide as if it were not there (`whenBlind: Ignore`).
    Ignore,
    /// Nothing: it is observed only, with a value as without.
    Observe,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// A metric and the limits of its threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThresholdReport {
    /// Which limit applied.
    pub side: ThresholdSide,
    /// Above this one step out; in base units.
    #[serde(default)]
    pub scale_out_above: Option<Amount>,
    /// Below this one step in; in base units.
    #[serde(default)]
    pub scale_in_below: Option<Amount>,
    /// Why the step is not asked for yet, where the value is beyond a limit.
    #[serde(default)]
    pub waits: Option<ThresholdWait>,
    /// Until when it waits, if the value stays where it is; the latest time, where it may end before.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Which limit of a threshold applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThresholdSide {
    /// The value is above `scaleOutAbove`.
    Above,
    /// None of those that are written.
    Between,
    /// The value is below `scaleInBelow`.
    Below,
    /// A side that this version does not know.
    #[serde(other)]
    Other,
}

/// What a threshold waits for before it asks for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThresholdWait {
    /// The value has to stay beyond the limit for `for`, since it came there or since the last change.
    For,
    /// The instances of the last growth have to be ready for a whole window, so that the value speaks of them too.
    StartUp,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// The steps of a decision, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepKind {
    /// The largest proposal.
    Combine,
    /// What to do when nothing is known.
    Fallback,
    /// Recent proposals are waited for.
    Stabilize,
    /// The rate policies.
    RateLimit,
    /// The rest after a change.
    Cooldown,
    /// `min` and `max`.
    Bounds,
    /// A step that this version does not know.
    #[serde(other)]
    Other,
}

impl StepKind {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Combine => "Combine",
            StepKind::Fallback => "Fallback",
            StepKind::Stabilize => "Stabilize",
            StepKind::RateLimit => "RateLimit",
            StepKind::Cooldown => "Cooldown",
            StepKind::Bounds => "Bounds",
            StepKind::Other => "Other",
        }
    }
}

/// Why a step said what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// One metric's proposal is the largest.
    LargestProposal,
    /// No metric asks for anything; the count stands.
    NoProposal,
    /// A blind metric forbids to shrink.
    BlindMetric,
    /// The target's replicas have not been seen for too long: no shrinking.
    FleetUnseen,
    /// All metrics are blind: the count is held.
    HoldWhileBlind,
    /// All metrics are blind for too long: the fallback count, if higher.
    FallbackIfHigher,
    /// All metrics are blind for too long: the fallback count.
    FallbackStatic,
    /// All metrics idle for long enough: `min`.
    IdleToMin,
    /// A lower recommendation is inside the scale-out window.
    ScaleOutWindow,
    /// A higher recommendation is inside the scale-in window.
    ScaleInWindow,
    /// The rate policies allow no more growth in their period.
    ScaleOutRate,
    /// The rate policies allow no more shrinking in their period.
    ScaleInRate,
    /// Growth is disabled by the policy.
    ScaleOutDisabled,
    /// Shrinking is disabled by the policy.
    ScaleInDisabled,
    /// The last change is too recent to grow.
    ScaleOutCooldown,
    /// The last change is too recent to shrink.
    ScaleInCooldown,
    /// Fewer than `min`.
    BelowMin,
    /// More than `max`.
    AboveMax,
    /// The count is already above `max` and comes down by the rate policies.
    AboveMaxPaced,
    /// The target is scaled to zero by hand and left alone.
    ScaledToZeroByHand,
    /// Mode `OutOnly`: no shrinking.
    OutOnly,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// One step that took part: what it made of the count, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The step.
    pub step: StepKind,
    /// The count before it.
    pub before: u32,
    /// The count after it.
    pub after: u32,
    /// Why.
    pub reason: Reason,
    /// The metric that it speaks of, where there is one.
    #[serde(default)]
    pub metric: Option<MetricName>,
    /// The limit that it applied, in replicas, where there is one.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Until when it will hold, where that is known.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// What a decision comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// More replicas.
    ScaleOut,
    /// Fewer replicas.
    ScaleIn,
    /// As it is.
    Hold,
    /// As it is, since nothing is known.
    Blind,
    /// The target is left alone (`ScaledToZeroByHand`).
    Disabled,
    /// A fault in the program holds this target.
    Faulted,
    /// A verdict that this version does not know.
    #[serde(other)]
    Other,
}

impl Verdict {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::ScaleOut => "ScaleOut",
            Verdict::ScaleIn => "ScaleIn",
            Verdict::Hold => "Hold",
            Verdict::Blind => "Blind",
            Verdict::Disabled => "Disabled",
            Verdict::Faulted => "Faulted",
            Verdict::Other => "Other",
        }
    }
}

/// The record of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The target.
    pub target: TargetId,
    /// The target's count of evaluations.
    pub sequence: i64,
    /// The time of the target when it was made.
    pub at: Timestamp,
    /// Up to when event time was complete; [`Timestamp::MIN`] where nothing was yet.
    #[serde(default = "super::known_time::unknown", with = "super::known_time")]
    pub through: Timestamp,
    /// The count that is asked for now (the shadow count in mode Advise).
    pub current: u32,
    /// The count that is decided.
    pub desired: u32,
    /// What it comes to.
    pub verdict: Verdict,
    /// The step that bound: the last one that changed the count, or `Combine`.
    pub binding: StepKind,
    /// Each metric's part.
    pub metrics: Vec<MetricReport>,
    /// The steps that took part, in their order.
    pub steps: Vec<Step>,
    /// The policy that was in force: its file and the count of its changes, `source@generation`.
    pub policy_version: String,
    /// The version of the fold that decided.
    pub fold_version: u32,
    /// Mode Advise: decided against a shadow count, commands nothing.
    #[serde(default)]
    pub advised: bool,
}

impl Decision {
    /// Up to when event time was complete, where anything was measured.
    pub fn measured_through(&self) -> Option<Timestamp> {
        Some(self.through).filter(|through| *through != Timestamp::MIN)
    }
}
