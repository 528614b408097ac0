//! What another installation remembered, as a stage takes it over.

use crate::log::Topic;
use crate::model::{Alert, AlertState, Message, Severity, TargetId, Timestamp};

use super::Effects;

/// Why a stage does not go on from what another installation remembered of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotCarried {
    /// What is remembered here is newer.
    #[error("it is known here already, and goes on as it is")]
    Known,
    /// Snapshots of another form.
    #[error("it has version {found} and this release knows {known}: run the release that migrated it")]
    Version {
        /// Of the snapshot.
        found: i64,
        /// Of this release.
        known: u32,
    },
    /// No snapshot of this key.
    #[error("it cannot be read: {0}; it begins as new")]
    Unreadable(String),
}

impl NotCarried {
    /// Whether this release reads snapshots of a version.
    pub(super) fn check_version(found: i64, known: u32) -> Result<(), NotCarried> {
        if found == i64::from(known) { Ok(()) } else { Err(NotCarried::Version { found, known }) }
    }

    /// Tells of it.
    pub(super) fn tell(&self, stage: &str, key: &str, target: Option<TargetId>, at: Timestamp, effects: &mut Effects) {
        let route = target.as_ref().map_or_else(|| stage.to_owned(), ToString::to_string);
        let alert = Alert {
            target,
            name: "StateNotCarried".to_owned(),
            subject: format!("{stage} {key}"),
            severity: Severity::Warning,
            state: AlertState::Event,
            message: format!("what was migrated of {key} is not gone on from by {stage}: {self}"),
            at,
        };
        effects.to_key(Topic::Alerts, route, Message::Alert(alert));
    }
}
