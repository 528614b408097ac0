//! The stages: pure folds from records to effects.
//!
//! A stage has no clock, no I/O and no randomness. It never fails: bad input becomes an effect (a
//! dead letter, an audit record, a named hold). Its state is per partition of its input, belongs to
//! the runtime, and is rebuilt in one way only: snapshot and replay.

use crate::log::{Offset, Topic};
use crate::model::{Decision, Message, TargetId, Timestamp};

pub mod admit;
pub mod aggregate;
pub mod arbitrate;
mod carried;
pub mod decide;

/// A record with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<R> {
    /// The partition of the stage's input topic.
    pub partition: u32,
    /// Its place there.
    pub offset: Offset,
    /// When the log appended it.
    pub at: Timestamp,
    /// What it says.
    pub record: R,
}

/// One input of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<R> {
    /// The next record of the partition.
    Record(Located<R>),
    /// Records of the partition before `next` are gone, and were never read. The record that comes next was appended at `at`.
    Lost {
        /// The first offset that is there.
        next: Offset,
        /// The time of that record.
        at: Timestamp,
    },
    /// Aggregate's: append all that is held, as of `now`.
    Flush {
        /// The partition of the stage's input whose state this is.
        partition: u32,
        /// The runtime's clock; behind the end of the input: the append time of the last record read.
        now: Timestamp,
        /// By the log's own clock: all that was appended up to then has been read.
        read_through: Timestamp,
    },
}

/// Where an append goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the partition of this key.
    Key(String),
    /// To one partition, without a key.
    Partition(u32),
    /// To every partition of the topic, without a key.
    EveryPartition,
}

/// An append that a stage asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The topic.
    pub topic: Topic,
    /// Where in it.
    pub route: Route,
    /// What.
    pub message: Message,
}

/// What must happen because of an input, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effects {
    list: Vec<Effect>,
    held: Vec<TargetId>,
    evaluated: Vec<Decision>,
}

impl Effects {
    /// Nothing yet.
    pub fn new() -> Self {
        Effects::default()
    }

    /// Appends `message` to the partition of `key`.
    pub fn to_key(&mut self, topic: Topic, key: impl Into<String>, message: Message) {
        self.list.push(Effect { topic, route: Route::Key(key.into()), message });
    }

    /// Appends `message` to one partition, without a key.
    pub fn to_partition(&mut self, topic: Topic, partition: u32, message: Message) {
        self.list.push(Effect { topic, route: Route::Partition(partition), message });
    }

    /// Appends `message` to every partition of `topic`, without a key.
    pub fn to_every_partition(&mut self, topic: Topic, message: Message) {
        self.list.push(Effect { topic, route: Route::EveryPartition, message });
    }

    /// A fault in the fold of this record holds `target` from here on: the runtime keeps the record as a dead letter.
    pub fn holds(&mut self, target: TargetId) {
        self.held.push(target);
    }

    /// An evaluation, whether it is written down or not: for whoever shows it ([`Effects::take_evaluated`]). Nothing is appended.
    pub fn evaluated(&mut self, decision: Decision) {
        self.evaluated.push(decision);
    }

    /// Appends all of another's.
    pub fn append(&mut self, mut other: Effects) {
        self.list.append(&mut other.list);
        self.held.append(&mut other.held);
        self.evaluated.append(&mut other.evaluated);
    }

    /// Takes out what was evaluated, in order.
    pub fn take_evaluated(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.evaluated)
    }

    /// Takes out which targets a fault holds.
    pub fn take_held(&mut self) -> Vec<TargetId> {
        std::mem::take(&mut self.held)
    }

    /// Takes all appends out. What was evaluated and nobody took is dropped.
    pub fn take(&mut self) -> Vec<Effect> {
        self.evaluated.clear();
        std::mem::take(&mut self.list)
    }

    /// What there is, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> {
        self.list.iter()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// A state that is saved as snapshots of its keys, and restored from them.
///
/// A key's snapshot stands for everything up to the position at which it was encoded. The runtime
/// restores snapshots first, then feeds the input again from [`Snapshot::replay_from`] (as it was
/// when the last complete round began): the state itself ignores of a record what a key's snapshot
/// already holds.
pub trait Snapshot: Default + Send {
    /// The keys that changed since the last call, in order.
    fn take_changed(&mut self) -> Vec<String>;

    /// A key's snapshot; `None` where the key is gone. `next` is the first offset that it does not hold.
    fn encode(&self, key: &str, next: Offset) -> Option<Vec<u8>>;

    /// So many keys' snapshots are about to be put back.
    fn makes_room(&mut self, keys: usize) {
        let _ = keys;
    }

    /// Puts a key's snapshot back; the partition-wide state has been restored before.
    ///
    /// # Errors
    /// The reason, where the bytes cannot be read.
    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<(), String>;

    /// What belongs to no key (marks, a clock), as of `next`: the first offset that it does not hold.
    /// Written at the end of a round, encoded at its start.
    fn encode_wide(&self, next: Offset) -> Vec<u8> {
        let _ = next;
        Vec::new()
    }

    /// Puts the partition-wide state back.
    ///
    /// # Errors
    /// The reason, where the bytes cannot be read.
    fn restore_wide(&mut self, bytes: &[u8]) -> Result<(), String> {
        let _ = bytes;
        Ok(())
    }

    /// Up to where the snapshots that were put back hold the input: the first offset that none of them holds.
    fn held_until(&self) -> Offset;

    /// The earliest offset whose record the state still needs but does not hold in its snapshots
    /// (panes); `next` where there is none.
    fn replay_from(&self, next: Offset) -> Offset;
}

/// What a stage asks for when it has lost records, said with what is gone: the topic, the key and the message.
pub type OnGap = fn(String) -> (Topic, &'static str, Message);

/// A stage of the pipeline.
pub trait Stage: Send + Sync {
    /// What it reads.
    type Record: TryFrom<Message> + Clone + Send;
    /// What it remembers, for each partition of its input.
    type State: Snapshot;

    /// Its name: of its group, and of its state.
    const NAME: &'static str;
    /// The topic that it consumes.
    const INPUT: Topic;
    /// The most records of one poll: a commit of what follows from them takes a few milliseconds.
    const POLL_RECORDS: usize = 2_000;
    /// The version of its snapshots: a release refuses those of another one. It counts up only where neither release could read the other's, so not with a field more or fewer, nor
    /// with what is made of them.
    const VERSION: u32 = 1;
    /// What the runtime appends to an owned partition of the input once a second, where the stage
    /// lives by the clock and the partition needs it ([`Stage::needs_ticks`]).
    const TICK: Option<fn() -> Message> = None;
    /// What it asks for where records of its input are gone that it had not read. An alert tells people in any case.
    const ON_GAP: Option<OnGap> = None;
    /// Whether it holds records back until a flush: the position is then committed with the flush
    /// alone, and what was held is read again after a restart. What it keeps across a flush is saved by the same commit;
    /// it has no rounds of snapshots.
    const FLUSHES: bool = false;

    /// Folds one input into `state`; whatever must happen goes into `effects`.
    fn apply(&self, state: &mut Self::State, input: Input<Self::Record>, effects: &mut Effects);

    /// Whether anything in `state` lives by the clock: a tick that nothing waits for is not appended.
    fn needs_ticks(&self, state: &Self::State) -> bool {
        let _ = state;
        true
    }

    /// When what is held must be flushed, once the input has been read to its end.
    fn flush_at(&self, state: &Self::State, now: Timestamp) -> Option<Timestamp> {
        let _ = (state, now);
        None
    }

    /// Whether what is held must be flushed while the input has not been read to its end.
    fn flushes_behind(&self, state: &Self::State) -> bool {
        let _ = state;
        false
    }

    /// Whether so much is held that it must be flushed before the next record.
    fn is_full(&self, state: &Self::State) -> bool {
        let _ = state;
        false
    }
}
