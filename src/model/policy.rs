//! The policy of one target, in force: every field has its value.
//!
//! [`resolve`] turns a written document into a [`Policy`], with the defaults of its role; it is the
//! one place where a document is validated, and reports every problem at once.

mod defaults;
mod known;
mod resolve;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Amount, FleetName, Kind, MetricName, TargetId};
use defaults::Defaults;

pub use known::{known_unit, nearest_metric};
pub use resolve::{Alike, DEFAULT_PANE, Origin, Resolution, Setting, habit_of_document, is_sound, outline, resolve, resolve_for, resolve_spec_json, target_of};

/// Which set of defaults a policy starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `autoscaling/v2`, and nothing else on.
    Generic,
    /// Serves requests.
    ApiServer,
    /// Works on its own (bots, consumers).
    BotInstances,
    /// Replicas of a database that are read from.
    DatabaseReadReplica,
}

impl Role {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Role::Generic => "Generic",
            Role::ApiServer => "ApiServer",
            Role::BotInstances => "BotInstances",
            Role::DatabaseReadReplica => "DatabaseReadReplica",
        }
    }
}

/// How far a policy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Both ways.
    Active,
    /// Only more replicas.
    OutOnly,
    /// Decides against a shadow count, commands nothing.
    Advise,
    /// Decides nothing.
    Off,
}

impl Mode {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Active => "Active",
            Mode::OutOnly => "OutOnly",
            Mode::Advise => "Advise",
            Mode::Off => "Off",
        }
    }
}

/// How one instance's samples of a window become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Their mean.
    Mean,
    /// The largest.
    Max,
    /// The newest.
    Last,
}

/// How the instances' numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    /// They add up.
    Sum,
    /// Their mean.
    Mean,
    /// The largest.
    Max,
}

/// How a metric is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// Over time for each instance, then across instances; `across` is `None` for a `track` that does not say it, which pools instances
    /// by its own rules.
    Reduce {
        /// Over time.
        over: Over,
        /// Across instances.
        across: Option<Across>,
    },
    /// The quantile (0..=1) of all observations of the window.
    Quantile(f64),
}

/// What a metric asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricRule {
    /// `track: { utilization }`: percent of what the instances request.
    Utilization {
        /// The target, in whole percent.
        percent: i64,
    },
    /// `track: { perReplica }`: an amount for each replica.
    PerReplica {
        /// The target.
        amount: Amount,
    },
    /// `track: { value }`: an amount for the metric as a whole.
    Value {
        /// The target.
        amount: Amount,
    },
    /// `threshold`.
    Threshold(Threshold),
    /// Observed only.
    Observe,
}

/// Out above one value, in below another.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// Above this: one step out.
    pub scale_out_above: Option<Amount>,
    /// Below this: one step in.
    pub scale_in_below: Option<Amount>,
    /// For how long it must hold (event time).
    pub hold: Duration,
    /// The size of a step out.
    pub step_out: StepSize,
    /// The size of a step in.
    pub step_in: StepSize,
}

/// The size of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepSize {
    /// So many replicas.
    Replicas(u32),
    /// So many percent of the count, rounded up, at least 1.
    Percent(u32),
}

/// What a blind metric does to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBlind {
    /// No scale-in while it is blind.
    HoldIn,
    /// As if it were not there.
    Ignore,
}

/// The unit of a metric's amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// CPU cores.
    Cores,
    /// A ratio.
    Ratio,
    /// A plain count; also a unit that this version does not know.
    #[default]
    #[serde(other)]
    Count,
}

impl Unit {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Cores => "cores",
            Unit::Ratio => "ratio",
            Unit::Count => "count",
        }
    }
}

/// One metric of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPolicy {
    /// Its name.
    pub name: MetricName,
    /// What its samples must mean; `None` takes what comes.
    pub kind: Option<Kind>,
    /// The unit of its amounts.
    pub unit: Unit,
    /// How it is measured.
    pub measure: Measure,
    /// The window that is measured.
    pub window: Duration,
    /// From what age on its newest value counts no more.
    pub stale_after: Duration,
    /// What it asks for.
    pub rule: MetricRule,
    /// What happens while it is blind.
    pub when_blind: WhenBlind,
}

/// Which of several rate policies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// How much may change in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatePolicy {
    /// How much.
    pub amount: StepSize,
    /// The period.
    pub period: Duration,
}

impl RatePolicy {
    /// The longest period: the bound of `autoscaling/v2`.
    pub const LONGEST_PERIOD: Duration = Duration::from_secs(1800);
}

/// One direction of `behavior`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingRules {
    /// The window of earlier proposals that are waited for.
    pub stabilization: Duration,
    /// The rest after a change.
    pub cooldown: Duration,
    /// Which rate policy counts.
    pub select: Select,
    /// The rate policies.
    pub policies: Vec<RatePolicy>,
}

/// By how much a ratio may miss 1 before anything is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Above 1.
    pub out: f64,
    /// Below 1.
    pub r#in: f64,
}

/// What to do when all proposing metrics have been blind for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackBehavior {
    /// The count stands.
    Hold,
    /// The larger of the count and `replicas`.
    IfHigher,
    /// `replicas`.
    Static,
}

/// `fallback`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// After how long.
    pub after: Duration,
    /// The count, for `IfHigher` and `Static`.
    pub replicas: u32,
    /// What to do.
    pub behavior: FallbackBehavior,
}

/// The policy of one target, in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The target.
    pub target: TargetId,
    /// Where its defaults come from.
    pub role: Role,
    /// How far it acts.
    pub mode: Mode,
    /// The fleet whose budgets it shares.
    pub fleet: FleetName,
    /// The larger wins.
    pub priority: i32,
    /// The fewest replicas.
    pub min: u32,
    /// The most replicas.
    pub max: u32,
    /// How long after its start an instance's CPU counts only once it has been ready for a window.
    pub cpu_initialization: Duration,
    /// How soon after its start an instance's readiness must have changed to count as ever ready.
    pub readiness_delay: Duration,
    /// The metrics, in the order of the document.
    pub metrics: Vec<MetricPolicy>,
    /// `behavior.scaleOut`.
    pub scale_out: ScalingRules,
    /// `behavior.scaleIn`.
    pub scale_in: ScalingRules,
    /// `tolerance`.
    pub tolerance: Tolerance,
    /// `fallback`.
    pub fallback: Fallback,
    /// The shortest time between two evaluations; `None`: a pane.
    pub evaluate_every: Option<Duration>,
}

impl MetricPolicy {
    /// Whether it asks for a count at all; an observed-only metric blocks nothing.
    pub fn proposes(&self) -> bool {
        self.rule != MetricRule::Observe
    }
}
