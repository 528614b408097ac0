//! The documents of the HTTP interface. Server and commands share them, so that they cannot differ.
//!
//! Times are Unix milliseconds, amounts JSON numbers in base units, as in the JSON lines of the log.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::model::spelling::on_one_line;
use crate::model::{Alert, Command, Decision, FleetObservation, Grant, ManualChange, MetricReport, Outcome, StepKind, TargetId, Timestamp, Verdict};
use crate::runtime::retention::Usage;

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
    /// The count of the last decision.
    #[serde(default)]
    pub desired: Option<u32>,
    /// How many instances are ready.
    #[serde(default)]
    pub ready: Option<u32>,
    /// When the replicas were last observed.
    #[serde(default)]
    pub seen_at: Option<Timestamp>,
    /// What the last decision comes to.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// The step that bound.
    #[serde(default)]
    pub binding: Option<StepKind>,
    /// Why, in one sentence.
    pub reason: String,
    /// When the last decision was made.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Up to when event time was complete for it.
    #[serde(default)]
    pub through: Option<Timestamp>,
    /// Metrics without a usable value: while there are any, nothing is removed.
    pub blind: Vec<String>,
    /// Each metric's part in the last decision.
    pub metrics: Vec<MetricReport>,
    /// What a person should look at.
    pub alerts: Vec<Alert>,
    /// The file that stops all commands for it, where one is there.
    #[serde(default)]
    pub frozen: Option<String>,
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
    /// What is gone of the audit, where there are fewer decisions than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
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

/// `POST /api/v1/targets/…/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleRequest {
    /// The count to set.
    pub replicas: u32,
    /// Who wants it.
    pub actor: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

impl ScaleRequest {
    /// What to send.
    pub(crate) const EXAMPLE: &str = "send {\"replicas\":5,\"actor\":\"ana@example.com\",\"reason\":\"launch\"}";

    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`Problem`] with the field.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let request: ScaleRequest =
            serde_json::from_slice(body).map_err(|e| Problem::new(StatusCode::BAD_REQUEST, on_one_line(&e.to_string()), Self::EXAMPLE).at("body"))?;
        if request.actor.trim().is_empty() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "actor is empty", "say who wants it: it is recorded").at("actor"));
        }
        Ok(request)
    }
}

/// The answer to a [`ScaleRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaled {
    /// The target.
    pub target: TargetId,
    /// The count that was asked for before.
    pub from: u32,
    /// The count that is asked for now.
    pub to: u32,
    /// What happens next.
    pub note: String,
}

/// The answer to `POST /api/v1/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ingested {
    /// Samples that are in the log for good.
    pub accepted: u64,
    /// Samples that were not taken.
    pub rejected: u64,
    /// Why, for the first hundred.
    pub errors: Vec<LineRejected>,
}

/// Why a line was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRejected {
    /// The line (of an Avro file: the sample), from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// An error as the interface answers it (RFC 9457): what is wrong, where, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong.
    pub title: String,
    /// Where: the field, parameter or target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The way out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
    /// After how many seconds to try again, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The lines that were not taken, of a request with samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingested: Option<Box<Ingested>>,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, title: impl Into<String>, mend: impl Into<String>) -> Self {
        Problem { status: status.as_u16(), title: title.into(), place: String::new(), mend: mend.into(), retry_after: None, ingested: None }
    }

    /// With where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// To be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
