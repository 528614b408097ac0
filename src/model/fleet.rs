//! What was seen of a target's replicas.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Amount, InstanceName, TargetId, Timestamp};

/// Where an instance is in its life, as Kubernetes names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Not running yet.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One replica of a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its name, unique within the target.
    pub name: InstanceName,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether it is ready; `None` where nothing says so.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Whether it is being removed.
    #[serde(default)]
    pub deleting: bool,
    /// When it was started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When `ready` last changed.
    #[serde(default)]
    pub ready_changed_at: Option<Timestamp>,
    /// What it asked for, by resource, in base units (cores, bytes).
    #[serde(default)]
    pub requests: BTreeMap<String, Amount>,
}

/// A target's replicas as one observer saw them. Of two observations the one with the larger
/// (term, sequence) is the newer, as long as the uid is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetObservation {
    /// The target.
    pub target: TargetId,
    /// Which incarnation of the target this is; a new one starts anew.
    pub uid: String,
    /// The observer's lease term.
    pub term: i64,
    /// The observer's count within its term.
    pub sequence: i64,
    /// The version of the target's own record, where there is one.
    #[serde(default)]
    pub revision: Option<i64>,
    /// The count that is asked for (the spec).
    pub desired: u32,
    /// The count that is there (the status).
    pub status_replicas: u32,
    /// Whether a rollout is under way.
    #[serde(default)]
    pub updating: bool,
    /// The replicas.
    pub instances: Vec<Instance>,
}
