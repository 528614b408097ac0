//! Whether all of `metrics` is aggregated in panes of one length: each process does its partitions by its own configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::document::amounts::show_duration;
use crate::model::{Alert, AlertState, Mark, Severity, Timestamp};

/// A partition that has not been marked for this and three of its panes is nobody's now.
const SILENT: Duration = Duration::from_secs(10);

/// The length that each partition of `metrics` was marked with last.
#[derive(Debug, Default)]
pub(super) struct PaneLengths {
    of_each: BTreeMap<u32, (Duration, Timestamp)>,
    /// Since when they are not all the same.
    since: Option<Timestamp>,
}

impl PaneLengths {
    /// Takes a mark that the log appended at `at`.
    pub(super) fn mark(&mut self, at: Timestamp, mark: &Mark) {
        self.of_each.insert(mark.source, (mark.pane(), at));
        self.of_each.retain(|_, (pane, marked)| at.since(*marked) < SILENT + *pane * 3);
        let mut lengths = self.of_each.values().map(|(pane, _)| pane);
        let first = lengths.next();
        let differ = lengths.any(|pane| Some(pane) != first);
        self.since = differ.then(|| self.since.unwrap_or(at));
    }

    /// That they differ, where they do.
    pub(super) fn alert(&self) -> Option<Alert> {
        let at = self.since?;
        let mut by_length = BTreeMap::<Duration, Vec<String>>::new();
        for (source, (pane, _)) in &self.of_each {
            by_length.entry(*pane).or_default().push(source.to_string());
        }
        let each: Vec<String> = by_length.iter().map(|(pane, sources)| format!("{} in {}", show_duration(*pane), sources.join(", "))).collect();
        let message = format!(
            "the partitions of metrics are aggregated in panes of different lengths ({}), so that windows are measured in part: give all processes with the role aggregate one `pane`",
            each.join("; ")
        );
        let (name, subject) = ("PanesDiffer".to_owned(), "aggregate".to_owned());
        Some(Alert { target: None, name, subject, severity: Severity::Warning, state: AlertState::Firing, message, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_of_several_lengths_are_told_as_long_as_there_are() {
        let at = |seconds: i64| Timestamp::from_millis(1_764_000_000_000 + seconds * 1_000);
        let mut lengths = PaneLengths::default();
        let mut mark = |seconds: i64, source: u32, pane_ms: i64| {
            lengths.mark(at(seconds), &Mark { source, of: 3, through: at(seconds), pane_ms, records: 1, late: 0, rejected: 0, repeated: 0 });
            lengths.alert()
        };
        for (seconds, source) in [(0, 0), (1, 1), (5, 0), (6, 1)] {
            assert_eq!(mark(seconds, source, 5_000), None);
        }
        let told = mark(7, 2, 1_000).unwrap();
        assert!(told.message.contains("(1s in 2; 5s in 0, 1)"), "{}", told.message);
        assert_eq!(told.at, at(7));
        assert_eq!(mark(10, 0, 5_000).unwrap().at, at(7), "since when");
        assert_eq!(mark(11, 2, 5_000), None, "mended");
        assert!(mark(12, 2, 1_000).is_some());
        mark(13, 1, 1_000);
        assert!(mark(34, 2, 1_000).is_some(), "it may come yet");
        assert_eq!(mark(35, 2, 1_000), None, "0 is nobody's");
    }
}
