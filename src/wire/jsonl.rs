//! JSON lines: signals for replay and export, samples for ingest, and what the pipeline says.
//!
//! One object a line, never a line break within. Times are Unix milliseconds, UTC; amounts are JSON
//! numbers with all their digits, read exactly and never through a double. The shapes are a format of
//! their own, apart from the model's: a key that is not known is an error that names it, since these
//! lines are written by people and other programs.
//!
//! Overrides and forecasts have lines of their own later; until then a line of those is an error
//! that says so.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::spelling::{nearest, on_one_line};

mod event;
mod sample;
mod shapes;
mod signal;
mod start;

pub use event::{command_to_line, decision_to_line, done_line, grant_to_line, request_to_line};
pub use sample::{sample_from_line, sample_to_line};
pub use signal::{line_to_signal, signal_to_line};
pub use start::{SeedProposal, SeedScaleEvent, StartState, TargetStart};

/// Why a line could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not the JSON that is expected here; says what, and at which column.
    #[error("{reason}")]
    Json {
        /// What is wrong.
        reason: String,
    },
    /// A key that nothing knows.
    #[error("unknown field \"{field}\"{}", did_you_mean(*.closest))]
    UnknownField {
        /// The key.
        field: String,
        /// A known one that is spelt nearly the same.
        closest: Option<&'static str>,
    },
    /// A key that must be there is not.
    #[error("\"{field}\" is missing: {mend}")]
    Missing {
        /// The key.
        field: &'static str,
        /// What to write.
        mend: String,
    },
    /// Keys that contradict each other.
    #[error("{reason}")]
    Contradiction {
        /// Which, and which to keep.
        reason: String,
    },
    /// A kind of line that this version has no use for.
    #[error("this version of Loadline has no \"{kind}\" lines; leave the line out")]
    NotInThisVersion {
        /// The key.
        kind: &'static str,
    },
}

fn did_you_mean(closest: Option<&'static str>) -> String {
    closest.map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default()
}

impl LineError {
    fn json(error: &serde_json::Error) -> Self {
        // A line has no second line, so its number would only mislead.
        let place = if error.line() <= 1 { format!("column {}", error.column()) } else { format!("line {} column {}", error.line(), error.column()) };
        // The reason may repeat a key or a value of any length.
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        LineError::Json { reason: format!("{} at {place}", on_one_line(what)) }
    }

    fn missing(field: &'static str, mend: impl Into<String>) -> Self {
        LineError::Missing { field, mend: mend.into() }
    }

    fn contradiction(reason: impl Into<String>) -> Self {
        LineError::Contradiction { reason: reason.into() }
    }
}

/// A value as one line. What is written here are plain structures whose keys are strings, which
/// JSON can always hold.
fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a line cannot be written as JSON; an empty one stands in its place");
        "{}".to_owned()
    })
}

/// The first key of the line itself that is not one of `known`.
fn unknown_key(text: &str, known: &[&'static str]) -> Option<LineError> {
    let keys: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let field = keys.into_keys().find(|key| !known.contains(&key.as_str()))?;
    Some(LineError::UnknownField { closest: nearest(&field, known.iter().copied()), field: on_one_line(&field) })
}

#[cfg(test)]
mod tests;
