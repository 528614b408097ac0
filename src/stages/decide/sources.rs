//! The sources of a partition: how far each one has marked, and which ones are silent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::Offset;
use crate::model::{Mark, Timestamp};

/// One source partition of `metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    /// Everything up to here is in the log.
    through: Timestamp,
    /// When it last said so.
    at: Timestamp,
}

impl Source {
    fn is_unheard_since(&self, lost_at: Timestamp) -> bool {
        self.through == Timestamp::MIN || self.at < lost_at
    }
}

/// A partition's sources, and its clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Sources {
    /// The first offset that this does not hold.
    pub(super) next_offset: Offset,
    /// The largest `at` of a partition-wide signal.
    clock: Timestamp,
    by_number: BTreeMap<u32, Source>,
    /// How many sources there are, as the newest mark says.
    of: u32,
    pane_ms: i64,
    /// Those that have not marked for too long.
    silent: BTreeSet<u32>,
    /// Event time up to which panes are complete; never runs back.
    complete: Option<Timestamp>,
    /// When what came next after a loss was appended, until all sources have marked since: what the others had fed may be among what is lost.
    lost_at: Option<Timestamp>,
}

/// A source is silent after two panes without a mark, but not before this: ticks come once a second,
/// and a flush may wait for a slow disk.
const SHORTEST_SILENCE: Duration = Duration::from_secs(2);

/// The most sources that are waited for before their first mark; a log has far fewer partitions of metrics.
const MOST_SOURCES: u32 = 1_024;

impl Sources {
    /// Whether a signal at this offset is already in.
    pub(super) fn holds(&self, offset: Offset) -> bool {
        offset < self.next_offset
    }

    /// Event time up to which panes are complete, at a pane's end.
    pub(super) fn complete_through(&self) -> Timestamp {
        self.complete.unwrap_or(Timestamp::MIN)
    }

    /// The length of a pane.
    pub(super) fn pane(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.pane_ms).unwrap_or(0).max(1))
    }

    /// Up to when a source has marked that is silent at `now`: what it fed is not complete. Nothing ticks while the stage is down, so what
    /// comes first after that is held against the time itself.
    pub(super) fn silent_after(&self, source: u32, now: Timestamp) -> Option<Timestamp> {
        let is_silent = |s: &&Source| self.silent.contains(&source) || now.since(s.at) > self.longest_silence();
        self.by_number.get(&source).filter(is_silent).map(|source| source.through)
    }

    /// Records were lost; what came next was appended at `at`.
    pub(super) fn lost(&mut self, at: Timestamp) {
        self.lost_at = self.lost_at.max(Some(at));
    }

    /// A source that has been silent since before a loss: nobody knows what it had fed.
    pub(super) fn unheard_since_loss(&self, now: Timestamp) -> Option<u32> {
        let lost_at = self.lost_at?;
        let unheard = |(number, source): &(&u32, &Source)| source.is_unheard_since(lost_at) && self.silent_after(**number, now).is_some();
        self.by_number.iter().find(unheard).map(|(number, _)| *number)
    }

    /// For so long a source need not mark.
    fn longest_silence(&self) -> Duration {
        (self.pane() * 2).max(SHORTEST_SILENCE)
    }

    /// Takes a mark. Returns the sources that spoke again.
    pub(super) fn mark(&mut self, mark: &Mark, at: Timestamp) -> BTreeSet<u32> {
        self.advance(at);
        self.of = mark.of;
        self.pane_ms = mark.pane_ms;
        let source = self.by_number.entry(mark.source).or_insert(Source { through: mark.through.min(at), at });
        // Nothing is complete that lies ahead of the log's own clock.
        source.through = source.through.max(mark.through.min(at));
        source.at = source.at.max(at);
        let of = self.of;
        // A source that no longer counts holds nothing back and makes nothing stale.
        self.by_number.retain(|number, _| *number < of);
        self.silent.retain(|number| *number < of);
        // One that has not marked yet is waited for, as long as for one that fell silent.
        for number in 0..of.min(MOST_SOURCES) {
            self.by_number.entry(number).or_insert(Source { through: Timestamp::MIN, at });
        }
        let spoke = self.silent.take(&mark.source).into_iter().collect();
        self.lost_at = self.lost_at.filter(|lost_at| self.by_number.values().any(|source| source.is_unheard_since(*lost_at)));
        self.complete();
        spoke
    }

    /// Takes a tick. Returns the sources that fell silent.
    pub(super) fn tick(&mut self, at: Timestamp) -> BTreeSet<u32> {
        self.advance(at);
        let after = self.longest_silence();
        let clock = self.clock;
        let fell: BTreeSet<u32> = self
            .by_number
            .iter()
            .filter(|(number, source)| clock.since(source.at) > after && !self.silent.contains(number))
            .map(|(number, _)| *number)
            .collect();
        if !fell.is_empty() {
            self.silent.extend(&fell);
            self.complete();
        }
        fell
    }

    fn advance(&mut self, at: Timestamp) {
        if at + super::CLOCK_RUNS_BACK < self.clock {
            // The clock was set back: what was known of silence is worth nothing.
            for source in self.by_number.values_mut() {
                source.at = source.at.min(at);
                source.through = source.through.min(at);
            }
            let end = at.window_start(self.pane());
            self.complete = self.complete.map(|complete| complete.min(end));
            self.lost_at = self.lost_at.map(|lost_at| lost_at.min(at));
            self.clock = at;
        }
        self.clock = self.clock.max(at);
    }

    fn complete(&mut self) {
        let live = self.by_number.iter().filter(|(number, _)| !self.silent.contains(number)).map(|(_, s)| s.through).min();
        if let Some(through) = live.filter(|through| *through > Timestamp::MIN) {
            let end = through.window_start(self.pane());
            self.complete = Some(self.complete.map_or(end, |c| c.max(end)));
        }
    }
}
