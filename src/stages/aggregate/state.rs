//! What aggregate remembers of a partition: the panes since the last flush, the last message of each producer, and a few counts.

use std::time::Duration;

use super::check::Refusal;
use super::held::Held;
use super::producers::Producers;
use super::refusals::{Position, Refusals};
use crate::log::Offset;
use crate::model::{Sample, TargetId, Timestamp};
use crate::stages::Snapshot;

/// The state of one partition of `metrics`. Across a flush it keeps the last `through`, which alerts fire, and the last
/// message of each producer. That alone is saved, with each flush: a repetition may come after a restart.
#[derive(Debug, Default)]
pub struct State {
    pub(super) held: Held,
    pub(super) producers: Producers,
    pub(super) refusals: Refusals,
    /// Up to when the last mark said that all is in the log.
    pub(super) through: Option<Timestamp>,
    /// When that was, by the runtime's clock.
    pub(super) flushed_at: Option<Timestamp>,
    /// Records since the last flush.
    pub(super) records: i64,
    /// Samples since then whose pane had been marked, once for each target.
    pub(super) late: i64,
    /// Samples since then that were not taken, once for each target that did not take it.
    pub(super) rejected: i64,
    /// Samples since then of messages that were dropped as repetitions.
    pub(super) repeated: i64,
    /// The earliest and the latest append time since the last flush.
    appended: Option<(Timestamp, Timestamp)>,
}

impl State {
    pub(super) fn note_record(&mut self, at: Timestamp) {
        self.records += 1;
        let (earliest, latest) = self.appended.unwrap_or((at, at));
        self.appended = Some((earliest.min(at), latest.max(at)));
    }

    /// The append time that the records since the last flush span.
    pub(super) fn append_time(&self) -> Duration {
        self.appended.map_or(Duration::ZERO, |(earliest, latest)| latest.since(earliest))
    }

    /// Counts a sample that was not taken by `target`; without one: by none of its targets.
    pub(super) fn reject(&mut self, position: Position, sample: &Sample, target: Option<&TargetId>, refusal: &Refusal) {
        self.rejected += match target {
            Some(_) => 1,
            None => i64::try_from(sample.targets.len()).unwrap_or(i64::MAX).max(1),
        };
        self.refusals.note(position, sample, target, refusal);
    }

    /// Counts samples of which nothing is known but that they were there; the runtime keeps their record.
    pub(super) fn reject_unread(&mut self, samples: u64) {
        self.rejected = self.rejected.saturating_add(i64::try_from(samples).unwrap_or(i64::MAX));
    }

    /// Counts the samples of a message that was there before.
    pub(super) fn repeat(&mut self, samples: usize) {
        self.repeated += i64::try_from(samples).unwrap_or(i64::MAX);
    }

    /// The panes are out; what comes belongs to the next mark.
    pub(super) fn begin_anew(&mut self, through: Timestamp, now: Timestamp) {
        self.through = Some(through);
        self.flushed_at = Some(now);
        self.records = 0;
        self.late = 0;
        self.rejected = 0;
        self.repeated = 0;
        self.appended = None;
    }
}

/// The producers; of the rest, what a commit leaves behind is read again, or is in the log.
impl Snapshot for State {
    fn take_changed(&mut self) -> Vec<String> {
        self.producers.take_changed()
    }

    fn encode(&self, key: &str, _next: Offset) -> Option<Vec<u8>> {
        self.producers.encode(key)
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<(), String> {
        self.producers.restore(key, bytes)
    }

    /// What it keeps across commits is of producers, and of no place of the input.
    fn held_until(&self) -> Offset {
        0
    }

    fn replay_from(&self, next: Offset) -> Offset {
        next
    }
}
