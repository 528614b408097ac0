//! A rehearsal: samples through aggregate, decide and arbitrate in memory, for whoever plays the world around them.
//!
//! The stages are the real ones, and what is decided is what a replay of the same signals decides ([`Replay`]). There is
//! one source of metrics, so every flush completes its panes.

use super::replay::{Caused, Replay};
use crate::log::Offset;
use crate::model::{Message, SampleBatch, Signal, Timestamp};
use crate::stages::aggregate::{self, Aggregate};
use crate::stages::arbitrate::Arbitrate;
use crate::stages::{Effects, Input, Located, Stage};

/// A rehearsal.
pub struct Rehearsal {
    aggregate: Aggregate,
    state: aggregate::State,
    next: Offset,
    replay: Replay,
}

impl Rehearsal {
    /// One with panes of `aggregate` (whose `sources` count as one), and claims answered by `arbitrate`.
    pub fn new(aggregate: Aggregate, arbitrate: Arbitrate) -> Self {
        Rehearsal { aggregate: Aggregate { sources: 1, ..aggregate }, state: aggregate::State::default(), next: 0, replay: Replay::closed(arbitrate) }
    }

    /// Takes samples; they count from the next flush on.
    pub fn samples(&mut self, at: Timestamp, batch: SampleBatch) {
        let record = Located { partition: 0, offset: self.next, at, record: batch };
        self.next += 1;
        self.aggregate.apply(&mut self.state, Input::Record(record), &mut Effects::new());
    }

    /// Hands over what was taken, and completes the panes that end by `at` less the grace. What it causes, in order.
    pub fn flush(&mut self, at: Timestamp) -> Vec<Caused> {
        let mut effects = Effects::new();
        self.aggregate.apply(&mut self.state, Input::Flush { partition: 0, now: at, read_through: at }, &mut effects);
        let signals = effects.take().into_iter().filter_map(|effect| if let Message::Signal(signal) = effect.message { Some(signal) } else { None });
        signals.flat_map(|signal| self.replay.signal(at, 0, signal)).collect()
    }

    /// Folds one signal; what it causes, in order.
    pub fn signal(&mut self, at: Timestamp, signal: Signal) -> Vec<Caused> {
        self.replay.signal(at, 0, signal)
    }
}
