//! JSON lines: signals for replay and export, samples for ingest, and what the pipeline says.
//!
//! One object a line, never a line break within. Times are Unix milliseconds, UTC; amounts are JSON
//! numbers with all their digits, read exactly and never through a double. The shapes are a format of
//! their own, apart from the model's: a key that is not known is an error that names it, since these
//! lines are written by people and other programs.
//!
//! Overrides and forecasts have lines of their own later; until then a line of those is an error
//! that says so.

use serde::Serialize;

use crate::model::json::Unusable;

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
    /// Not the JSON that belongs here.
    #[error(transparent)]
    Json(#[from] Unusable),
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

impl LineError {
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
        tracing::error!(event = "message-unwritable", %error, "a line cannot be written as JSON; an empty one stands in its place");
        "{}".to_owned()
    })
}

#[cfg(test)]
mod tests;
