//! What comes through `control`: policies announced by a source in numbered rounds.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{TargetId, Timestamp};

/// The place of an announcement in its source's own order; a larger generation is newer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Who announces, as a person finds it: `/etc/loadline/policies/api.yaml`.
    pub source: String,
    /// How many changes of the target's policy there were, of any source.
    pub generation: i64,
}

/// The version of a policy, as decisions name it: `source@generation`.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.source, self.generation)
    }
}

impl Order {
    /// Whether this is the later one of one source.
    pub fn is_newer_than(&self, other: &Order) -> bool {
        self.source == other.source && self.generation > other.generation
    }
}

/// On `control`: a source says, in one of its rounds, that it has this policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyEntry {
    /// The source: a directory of files is one.
    pub source: String,
    /// The round of that source.
    pub round: i64,
    /// Where in the source, for messages (a file's name).
    pub origin: String,
    /// The target.
    pub target: TargetId,
    /// The `spec` of the `ScalingPolicy`, as JSON text: the document is versioned by its `apiVersion`.
    pub spec: String,
}

/// On `control`: a document of a source could not be used; the last valid policies of that origin stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRejected {
    /// The source.
    pub source: String,
    /// The round of that source.
    pub round: i64,
    /// Where in the source (a file's name).
    pub origin: String,
    /// The target, where it could be read.
    #[serde(default)]
    pub target: Option<TargetId>,
    /// What is wrong and how to mend it.
    pub error: String,
}

/// On `control`: the round is complete; what it did not name is not there any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoundEnd {
    /// The source.
    pub source: String,
    /// The round.
    pub round: i64,
}

impl RoundEnd {
    /// The name of the source of policy files.
    pub const FILES: &str = "file";

    /// How far ahead of the time in milliseconds the number of a round may be.
    const MAX_AHEAD: Duration = Duration::from_secs(600);

    /// The number of the round after `last`: the time, at least one up. Where the clock was set back by much, its time counts again.
    pub fn next(last: i64, now: Timestamp) -> i64 {
        let next = last.saturating_add(1);
        if RoundEnd::is_ahead(next, now) { now.as_millis() } else { now.as_millis().max(next) }
    }

    /// Whether a number is so far ahead of the time that no round counts by it: as no later one that is the time is newer, nothing
    /// of its source would count until then.
    pub fn is_ahead(round: i64, now: Timestamp) -> bool {
        Timestamp::from_millis(round).since(now) > RoundEnd::MAX_AHEAD
    }
}

/// On `control`: a person or a tool removes a policy that it announced itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRemoved {
    /// The source.
    pub source: String,
    /// The target.
    pub target: TargetId,
}

/// On `control`: a reader of `signals` lost some of them. Every policy in force is announced again, so that none that
/// was among them stays forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnounceAgain {
    /// Who lost them: a stage.
    pub asker: String,
    /// What is gone.
    pub reason: String,
}

/// On `signals`: the policy of a target, from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnnouncement {
    /// The target.
    pub target: TargetId,
    /// The `spec` of the `ScalingPolicy` as JSON text; `None` removes the policy.
    pub spec: Option<String>,
    /// Its place in its source's order.
    pub order: Order,
}
