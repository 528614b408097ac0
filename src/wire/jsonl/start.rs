//! The start state of a replay: what a target had proposed and how it had scaled before the first line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::LineError;
use crate::model::TargetId;
use crate::model::json;

/// The history that each target starts with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct StartState {
    /// By target.
    pub targets: BTreeMap<TargetId, TargetStart>,
}

/// The history that one target starts with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetStart {
    /// Earlier proposals, as stabilization remembers them.
    #[serde(default)]
    pub proposals: Vec<SeedProposal>,
    /// Earlier changes that were applied, as rate limits and cooldowns remember them.
    #[serde(default)]
    pub scale_events: Vec<SeedScaleEvent>,
}

/// A count that was proposed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedProposal {
    /// The count.
    pub replicas: u32,
    /// How long before the target's first evaluation.
    #[serde(rename = "ageMs", deserialize_with = "milliseconds")]
    pub age: Duration,
}

/// A change that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedScaleEvent {
    /// By how many replicas; below zero for fewer.
    pub change: i64,
    /// How long before the target's first evaluation.
    #[serde(rename = "ageMs", deserialize_with = "milliseconds")]
    pub age: Duration,
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

impl StartState {
    /// Reads `{"namespace/Kind/name":{"proposals":[…],"scaleEvents":[…]}}`; may span lines.
    ///
    /// # Errors
    /// [`LineError::Json`].
    pub fn from_json(text: &str) -> Result<Self, LineError> {
        Ok(json::read(text)?)
    }
}
