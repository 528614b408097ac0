//! Requests, grants, commands and outcomes: how a decision becomes a change in the world.

use serde::{Deserialize, Serialize};

use super::{FleetName, TargetId, Timestamp};

/// The command of a target that is under way, as decide knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenCommand {
    /// Its id.
    pub id: String,
    /// The epoch of the claim that it serves.
    pub epoch: i64,
    /// The count that it assumes.
    pub from: u32,
    /// The count that it sets.
    pub to: u32,
    /// From when on it does nothing.
    pub expires_at: Timestamp,
}

/// A target's standing claim at the arbiter; the newest epoch replaces those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The target.
    pub target: TargetId,
    /// The fleet whose budgets it shares.
    pub fleet: FleetName,
    /// Counts up with every claim: max(last + 1, the time in ms).
    pub epoch: i64,
    /// Which incarnation of the target it is for.
    pub uid: String,
    /// The count that is asked for now.
    pub current: u32,
    /// The count that is wanted.
    pub desired: u32,
    /// The policy's `min`: always granted.
    pub min: u32,
    /// The larger wins.
    #[serde(with = "super::as_long")]
    pub priority: i32,
    /// Whether removals are paced without a budget that says so (every role but `Generic`).
    pub paced: bool,
    /// The command under way.
    #[serde(default)]
    pub open: Option<OpenCommand>,
    /// The epoch of the last command of the target that whoever claims has heard of, open or closed; 0: of none.
    #[serde(default)]
    pub heard_of: i64,
    /// Until when the claim stands.
    pub expires_at: Timestamp,
    /// The target left the fleet: the claim is taken back.
    #[serde(default)]
    pub withdrawn: bool,
}

/// Which limit of the fleet kept a claim from being granted in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantLimit {
    /// Granted in full.
    None,
    /// Removals are paced over the fleet.
    Removals,
    /// A freeze: nothing is issued.
    Freeze,
    /// A limit that this version does not know.
    #[serde(other)]
    Other,
}

impl GrantLimit {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            GrantLimit::None => "None",
            GrantLimit::Removals => "Removals",
            GrantLimit::Freeze => "Freeze",
            GrantLimit::Other => "Other",
        }
    }
}

/// The arbiter's answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The target.
    pub target: TargetId,
    /// The claim's epoch.
    pub epoch: i64,
    /// The count that was wanted.
    pub desired: u32,
    /// The count that is granted now.
    pub granted: u32,
    /// What kept it from being more.
    pub limit: GrantLimit,
    /// The command that was issued for it, where one was.
    #[serde(default)]
    pub command: Option<OpenCommand>,
}

/// What an actuator is to do, once, before it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Its id.
    pub id: String,
    /// The target.
    pub target: TargetId,
    /// Which incarnation of the target it is for.
    pub uid: String,
    /// The epoch of the claim: an actuator never goes back to a smaller one.
    pub epoch: i64,
    /// The count that it assumes to find.
    pub from: u32,
    /// The count to set.
    pub to: u32,
    /// The id of the open command that this one replaces.
    #[serde(default)]
    pub replaces: Option<String>,
    /// The count that the replaced command was to set: found instead of `from` where it was applied.
    #[serde(default)]
    pub replaced_to: Option<u32>,
    /// From when on it does nothing.
    pub expires_at: Timestamp,
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeResult {
    /// The count is set.
    Applied,
    /// The count found was not the one assumed.
    Conflict,
    /// It came too late.
    Expired,
    /// A newer epoch was applied before.
    Stale,
    /// A newer command replaced it.
    Superseded,
    /// The world refused it for good.
    Rejected,
    /// The call failed.
    Failed,
    /// An emergency stop is in force.
    Frozen,
    /// No outcome came in time (only the fold says so).
    Lost,
    /// A result that this version does not know.
    #[serde(other)]
    Other,
}

impl OutcomeResult {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            OutcomeResult::Applied => "Applied",
            OutcomeResult::Conflict => "Conflict",
            OutcomeResult::Expired => "Expired",
            OutcomeResult::Stale => "Stale",
            OutcomeResult::Superseded => "Superseded",
            OutcomeResult::Rejected => "Rejected",
            OutcomeResult::Failed => "Failed",
            OutcomeResult::Frozen => "Frozen",
            OutcomeResult::Lost => "Lost",
            OutcomeResult::Other => "Other",
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The target.
    pub target: TargetId,
    /// The command's id.
    pub command: String,
    /// Which incarnation of the target the command was for, where that is known: the count of another says nothing.
    #[serde(default)]
    pub uid: Option<String>,
    /// What came of it.
    pub result: OutcomeResult,
    /// The count that stands now, where it is known.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// The version of the target's record that this count belongs to, where there is one.
    #[serde(default)]
    pub revision: Option<i64>,
    /// What happened, in a few words, where it was not applied.
    #[serde(default)]
    pub error: Option<String>,
}

/// On `audit`: a person set a target's count by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManualChange {
    /// The target.
    pub target: TargetId,
    /// The count before.
    pub from: u32,
    /// The count that was set.
    pub to: u32,
    /// Who.
    pub actor: String,
    /// Why, where they said it.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether the count was beyond the bounds of the policy, and set all the same since they said that it was meant.
    #[serde(default)]
    pub forced: bool,
}
