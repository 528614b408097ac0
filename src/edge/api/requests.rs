//! What is sent to the interface, and what it answers to that.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::model::TargetId;
use crate::model::json::{self, Unusable};

/// The most characters of who sets a count: as long as the longest name.
const MOST_OF_ACTOR: usize = 253;

/// The most characters of why: some sentences.
const MOST_OF_REASON: usize = 1_000;

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
    /// Whether a count beyond the policy's bounds is meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl ScaleRequest {
    /// What to send.
    pub(crate) const EXAMPLE: &str = "send {\"replicas\":5,\"actor\":\"ana@example.com\",\"reason\":\"launch\"}";

    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`Problem`] with the field.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let request: ScaleRequest = json::read_bytes(body).map_err(|Unusable { path, what }| {
            let place = if path.is_empty() { "body".to_owned() } else { path };
            Problem::new(StatusCode::BAD_REQUEST, what, Self::EXAMPLE).at(place)
        })?;
        if request.actor.trim().is_empty() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "actor is empty", "say who wants it: it is recorded").at("actor"));
        }
        // What is recorded is read in terminals and in tables, and must fit into a record.
        for (place, text, most) in [("actor", Some(&request.actor), MOST_OF_ACTOR), ("reason", request.reason.as_ref(), MOST_OF_REASON)] {
            let Some(text) = text else { continue };
            if let Some(c) = text.chars().find(|c| c.is_control()) {
                let title = format!("{place} has a control character, {}", c.escape_unicode());
                return Err(Problem::new(StatusCode::BAD_REQUEST, title, "write it on one line, as plain text").at(place));
            }
            let length = text.chars().count();
            if length > most {
                let title = format!("{place} has {length} characters, and may have {most}");
                return Err(Problem::new(StatusCode::BAD_REQUEST, title, "write it shorter").at(place));
            }
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
    /// Accepted samples that no policy asks for, once for each target that they name; `None` where that is not known.
    #[serde(default)]
    pub unused: Option<u64>,
    /// Which, for the first ten targets and metrics.
    #[serde(default)]
    pub warnings: Vec<SamplesUnused>,
}

/// Samples that were taken, and that no policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplesUnused {
    /// The first line (of an Avro file: the sample) that is of this target and metric, from 1.
    pub line: u64,
    /// How many there are.
    pub samples: u64,
    /// What nobody asks for.
    pub reason: String,
}

/// Why a line was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRejected {
    /// The line (of an Avro file: the sample), from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}
