//! What goes over from one installation into another.

use serde::{Deserialize, Serialize};

/// On `control`, `signals` and `requests`: what a stage of another installation remembered of a key when that was migrated into this one. The
/// stage that reads the topic goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarriedState<K = String> {
    /// Of whom it is: a key of the stage's snapshots.
    pub key: K,
    /// Which migration brought it.
    pub migration: String,
    /// The version of that stage's snapshots.
    pub version: i64,
    /// The snapshot, as JSON. That of a fleet may come in several, each with some of its claims.
    pub state: String,
}
