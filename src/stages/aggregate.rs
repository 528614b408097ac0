//! Aggregate: samples into panes, and panes into the log of each target.
//!
//! Each sample is folded into one pane of each of its targets: a short tumbling window of event time.
//! A flush appends all that is held as one part a target, open panes too, and then a mark: "everything of
//! this source partition up to `through` is in the log". Parts merge exactly ([`Pane::merge`]), so
//! no order of samples, no split and no restart changes a digit of what decide sees.
//!
//! Left to others: rates of counters and quantiles (decide), names (their types), bytes (`wire`), and when
//! a flush is due: the runtime asks [`Stage::flush_at`] at the end of the input,
//! [`Stage::flushes_behind`] while behind it, and [`Stage::is_full`] always.
//!
//! Invariants:
//! - Only a flush has effects, and it empties the state of samples, so a commit with the position of the last record
//!   of a flush loses nothing and a restart reads on. What it keeps (the last message of each producer) is saved with that commit.
//! - `through` never runs back in the life of a state (unless the clock itself is set back by more than a minute), and
//!   is never an event time. A restart begins it anew; whoever reads marks takes the largest.
//! - Every sample becomes part of exactly one pane of each of its targets, or is counted as rejected, or
//!   belongs to a repeated message ([`producers`]: across flushes and restarts), and is counted as that. A late one becomes part of its own pane, and is counted too.
//!
//! [`Pane::merge`]: crate::model::Pane::merge

use std::collections::BTreeSet;
use std::time::Duration;

use self::check::{Refusal, check};
use self::held::Place;
use self::producers::Number;
pub use self::producers::{MAX_PRODUCER_BYTES, REMEMBERED_PRODUCERS};
use self::refusals::Position;
pub use self::state::State;
use super::{Effects, Input, Located, Stage};
use crate::log::Topic;
use crate::model::{Mark, Message, Sample, SampleBatch, Signal, TargetId, Timestamp};

mod check;
mod held;
mod parts;
mod producers;
mod refusals;
mod state;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// While behind, a flush is due after so many records, …
const FLUSH_RECORDS: i64 = 20_000;
/// … or after so much append time.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// At all times a flush is due at so much memory: some 300,000 gauge readings, which is three panes of the
/// largest installation that one partition is meant for.
const FLUSH_BYTES: usize = 64 << 20;

/// From what distance on an earlier time is a clock that was set back, and is followed.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);

/// What may be held at once. What exceeds it is rejected and counted, and an alert fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Targets.
    pub targets: u32,
    /// Metrics of a target.
    pub metrics: u32,
    /// Instances of a target, over all its metrics.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { targets: 100_000, metrics: 64, instances: 5_000 }
    }
}

/// The stage: its configuration, the same for the whole installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregate {
    /// The length of a pane; at least a millisecond.
    pub pane: Duration,
    /// How long after a pane's end it is waited for samples that are under way.
    pub grace: Duration,
    /// How many partitions the topic `metrics` has.
    pub sources: u32,
    /// What may be held at once.
    pub limits: Limits,
}

/// Why a sample cannot be taken, whatever else is in its pane, in words; for those who can still tell its producer.
pub fn refusal(sample: &Sample, received: Timestamp) -> Option<String> {
    check(sample, received).err().map(|refusal| refusal.to_string())
}

impl Aggregate {
    fn record(&self, state: &mut State, record: &Located<SampleBatch>) {
        state.note_record(record.at);
        let SampleBatch { producer, sequence, part, samples, unread } = &record.record;
        let position = Position { partition: record.partition, offset: record.offset, at: record.at };
        if let (Some(producer), Some(sequence)) = (producer, sequence) {
            match state.producers.note(producer, *sequence, *part, record.offset) {
                Number::New => {}
                Number::Repeated => return state.repeat(samples.len()),
                Number::RanBack { last } => {
                    state.refusals.ran_back(position, producer, *sequence, last, samples.len());
                    return state.repeat(samples.len());
                }
            }
        }
        state.reject_unread(*unread);
        for sample in samples {
            self.sample(state, position, sample);
        }
    }

    /// Folds one sample into a pane of each of its targets.
    fn sample(&self, state: &mut State, position: Position, sample: &Sample) {
        let measurement = match check(sample, position.at) {
            Ok(measurement) => measurement,
            Err(refusal) => return state.reject(position, sample, None, &refusal),
        };
        let start = sample.time.window_start(self.pane);
        let late = state.through.is_some_and(|through| start + self.pane <= through);
        let mut fold = |target: &TargetId| {
            let place = Place { target, metric: &sample.metric, instance: &sample.instance, kind: sample.kind, start, time: sample.time };
            match state.held.add(&self.limits, &place, &measurement) {
                Ok(()) => state.late += i64::from(late),
                Err(refusal) => state.reject(position, sample, Some(target), &refusal),
            }
        };
        match sample.targets.as_slice() {
            [] => state.reject(position, sample, None, &Refusal::NoTarget),
            [target] => fold(target),
            // A target that is named twice is still measured once.
            targets => targets.iter().collect::<BTreeSet<_>>().into_iter().for_each(fold),
        }
    }

    fn flush(&self, state: &mut State, partition: u32, now: Timestamp, read_through: Timestamp, effects: &mut Effects) {
        for part in std::mem::take(&mut state.held).into_parts(partition, self.pane) {
            effects.to_key(Topic::Signals, part.target.as_str().to_owned(), Message::Signal(Signal::Part(part)));
        }
        state.refusals.flush(now, effects);
        // A clock that is ahead of the log's makes nothing complete of which records may still come.
        let due = (now - self.grace).min(read_through);
        // Never back, but where the clock itself was set back.
        let through = state.through.filter(|last| *last <= due + CLOCK_SET_BACK).map_or(due, |last| last.max(due));
        let mark = Mark {
            source: partition,
            of: self.sources,
            through,
            pane_ms: i64::try_from(self.pane.as_millis()).unwrap_or(i64::MAX),
            records: state.records,
            late: state.late,
            rejected: state.rejected,
            repeated: state.repeated,
        };
        effects.to_every_partition(Topic::Signals, Message::Signal(Signal::Mark(mark)));
        state.begin_anew(through, now);
    }
}

impl Stage for Aggregate {
    type Record = SampleBatch;
    type State = State;

    const NAME: &'static str = "aggregate";
    const INPUT: Topic = Topic::Metrics;
    /// Each may hold a quarter of a megabyte of samples: 32 MiB where nothing but the largest come.
    const POLL_RECORDS: usize = 128;
    const FLUSHES: bool = true;

    fn apply(&self, state: &mut State, input: Input<SampleBatch>, effects: &mut Effects) {
        match input {
            Input::Record(record) => self.record(state, &record),
            // An alert has told of them, and there is nothing to be known of what they held.
            Input::Lost { .. } => {}
            Input::Flush { partition, now, read_through } => self.flush(state, partition, now, read_through, effects),
        }
    }

    /// The first end of a pane, plus grace, after the last flush. At once (`now`) where none has been,
    /// or where the clock ran back behind it.
    fn flush_at(&self, state: &State, now: Timestamp) -> Option<Timestamp> {
        Some(match state.flushed_at {
            Some(last) if last <= now => (last - self.grace).window_start(self.pane) + self.pane + self.grace,
            _ => now,
        })
    }

    /// After so many records, after a second of append time, or when the state is full.
    fn flushes_behind(&self, state: &State) -> bool {
        state.records >= FLUSH_RECORDS || state.append_time() >= FLUSH_TIME || self.is_full(state)
    }

    fn is_full(&self, state: &State) -> bool {
        state.held.bytes() >= FLUSH_BYTES
    }
}
