//! The runtime of one stage as a step function: what was polled goes in, batches to commit come out.
//!
//! Nothing here waits or talks to a session; only restoring reads the log. So a driver, or a
//! simulation, can stop it between any two steps.
//!
//! A partition's effects are folded once and kept until they are committed: a commit that failed is
//! tried again with the same effects, and state never rolls back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::{Batch, Log, LogError, Offset, Polled, RawAppend, RawRecord, StatePut};
use crate::model::{Alert, AlertState, DeadLetter, Message, Severity, Timestamp};
use crate::stages::{Effects, Input, Located, Snapshot, Stage};
use crate::wire;

use super::raw_appends;

/// How often a stage that lives by the clock gets a tick.
pub const TICK_EVERY: Duration = Duration::from_secs(1);
/// A snapshot round is due after this.
const ROUND_EVERY: Duration = Duration::from_secs(300);
/// A snapshot round is due after this many records, or 20 for each key of the last round.
const ROUND_RECORDS: u64 = 100_000;
/// The most snapshot bytes in one commit, so that a round does not stall the stage.
const ROUND_BYTES: usize = 1_000_000;
/// How many records are read at once while restoring.
const RESTORE_SLICE: usize = 10_000;
/// The most of a record that a dead letter keeps.
const DEAD_LETTER_BYTES: usize = 64 * 1024;
/// The most dead letters a second of the log's time.
const DEAD_LETTERS_A_SECOND: u32 = 10;

/// State keys of the runtime's own; no name has a control character.
const ROUND_KEY: &str = "\u{1}round";
const WIDE_KEY: &str = "\u{1}wide";

/// The record that ends a snapshot round.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    /// The position when the round began: what the partition-wide state holds.
    start: Offset,
    /// From where the input is read again.
    replay_from: Offset,
}

/// From where a restart reads a stage's input again, by its last complete round of snapshots; `None` where there is
/// none, so from the earliest record. `read` reads an entry of the stage's state.
///
/// # Errors
/// What `read` has; [`LogError::Retry`] where the round cannot be read as one.
pub fn replays_from(read: impl FnOnce(&str) -> Result<Option<Vec<u8>>, LogError>) -> Result<Option<Offset>, LogError> {
    let Some(bytes) = read(ROUND_KEY)? else { return Ok(None) };
    let round: Round = serde_json::from_slice(&bytes).map_err(|error| LogError::Retry { reason: format!("a round of snapshots cannot be read: {error}") })?;
    Ok(Some(round.replay_from))
}

/// A round under way.
struct Writing {
    round: Round,
    wide: Vec<u8>,
    keys: VecDeque<String>,
}

/// One partition that this member owns.
struct Owned<S: Stage> {
    state: S::State,
    /// The next offset to fold.
    position: Offset,
    /// The position that is committed.
    committed: Offset,
    /// Effects that are not committed yet, ready to append.
    appends: Vec<RawAppend>,
    /// A batch that was handed out and not yet confirmed.
    pending: Option<Batch>,
    /// The `at` of the last record, and whether the input was read to its end at `read_at`.
    last_at: Option<Timestamp>,
    read_to_end_at: Option<Timestamp>,
    ticked_at: Option<Timestamp>,
    writing: Option<Writing>,
    round_at: Timestamp,
    records: u64,
    keys: u64,
    dead_letters: DeadLetters,
}

/// How many dead letters were written in the current second of the log's time.
#[derive(Default)]
struct DeadLetters {
    second: i64,
    written: u32,
}

/// When snapshots are written.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// A round is due after this, …
    pub every: Duration,
    /// … or after this many records, or 20 for each key of the last round.
    pub records: u64,
    /// The most snapshot bytes in one commit.
    pub bytes: usize,
}

impl Default for Rounds {
    fn default() -> Self {
        Rounds { every: ROUND_EVERY, records: ROUND_RECORDS, bytes: ROUND_BYTES }
    }
}

/// A stage over the partitions that this member owns.
pub struct Runner<S: Stage> {
    stage: S,
    log: Arc<dyn Log>,
    rounds: Rounds,
    owned: BTreeMap<u32, Owned<S>>,
    /// The partition whose batch was handed out last: the others come before it again.
    served: Option<u32>,
}

impl<S: Stage> Runner<S> {
    /// A runner that owns nothing yet.
    pub fn new(stage: S, log: Arc<dyn Log>) -> Self {
        Runner::with_rounds(stage, log, Rounds::default())
    }

    /// A runner that owns nothing yet, and writes its snapshots as told.
    pub fn with_rounds(stage: S, log: Arc<dyn Log>, rounds: Rounds) -> Self {
        Runner { stage, log, rounds, owned: BTreeMap::new(), served: None }
    }

    /// Takes what a poll brought, one event after the other: on an error the rest is left in `polled`, for
    /// another call. `read_to_end_at` is an instant whose earlier records have all been
    /// read now, `None` where more may be waiting.
    ///
    /// # Errors
    /// As the log's reads, while a partition's state is restored; the snapshot's own faults are
    /// [`LogError::Fatal`].
    pub fn take(&mut self, polled: &mut VecDeque<Polled>, now: Timestamp, read_to_end_at: Option<Timestamp>) -> Result<(), LogError> {
        while let Some(event) = polled.pop_front() {
            match event {
                Polled::Assigned { partition, position } => {
                    let (restored, gone) = match self.restore(partition, position, now) {
                        Ok(restored) => restored,
                        Err(error) => {
                            polled.push_front(event);
                            return Err(error);
                        }
                    };
                    self.owned.insert(partition, restored);
                    if !gone.is_empty() {
                        self.gap(partition, gone.start, gone.end, now);
                    }
                }
                Polled::Revoked { partition } => {
                    self.owned.remove(&partition);
                }
                Polled::Gap { partition, from, to } => self.gap(partition, from, to, now),
                Polled::Records { partition, records } => self.records(partition, records),
            }
        }
        for owned in self.owned.values_mut() {
            owned.read_to_end_at = read_to_end_at;
        }
        Ok(())
    }

    fn records(&mut self, partition: u32, records: Vec<RawRecord>) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        let mut effects = Effects::new();
        for record in records {
            owned.fold(&self.stage, record, &mut effects);
            if S::FLUSHES && self.stage.is_full(&owned.state) {
                let now = owned.last_at.unwrap_or(Timestamp::MIN);
                owned.flush(&self.stage, &*self.log, partition, now);
            }
        }
        owned.appends.extend(raw_appends(&*self.log, effects.take()));
    }

    /// Retention overtook this reader.
    fn gap(&mut self, partition: u32, from: Offset, to: Offset, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        owned.position = owned.position.max(to);
        let mut effects = Effects::new();
        let message = format!("{} read too slowly: {} {from}..{to} of partition {partition} are gone", S::NAME, S::INPUT);
        let alert = Alert {
            target: None,
            name: "RecordsLost".to_owned(),
            subject: format!("{}/{partition}", S::INPUT),
            severity: Severity::Critical,
            state: AlertState::Event,
            message,
            at: now,
        };
        effects.to_key(crate::log::Topic::Alerts, S::NAME, Message::Alert(alert));
        owned.appends.extend(raw_appends(&*self.log, effects.take()));
    }

    /// The next batch to commit, if anything is to be committed now. The same batch is handed out
    /// until it is [`Runner::confirmed`].
    pub fn next_batch(&mut self, now: Timestamp) -> Option<Batch> {
        let (stage, log, rounds) = (&self.stage, &self.log, self.rounds);
        let mut order: Vec<u32> = self.owned.keys().copied().collect();
        order.sort_by_key(|partition| (self.served.is_some_and(|served| *partition <= served), *partition));
        let batch = order.into_iter().find_map(|partition| self.owned.get_mut(&partition)?.next_batch(partition, stage, &**log, rounds, now));
        self.served = batch.as_ref().map(|batch| batch.partition);
        batch
    }

    /// How many partitions this member owns.
    pub fn partitions(&self) -> usize {
        self.owned.len()
    }

    /// The batch of this partition took effect.
    pub fn confirmed(&mut self, partition: u32) {
        if let Some(owned) = self.owned.get_mut(&partition)
            && let Some(batch) = owned.pending.take()
            && let Some(position) = batch.position
        {
            owned.committed = position;
        }
    }

    /// The batch of this partition can never take effect (a record of it is too large): it goes on
    /// without its appends, with an alert.
    pub fn refused(&mut self, partition: u32, reason: &str, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        let Some(batch) = owned.pending.as_mut() else { return };
        let too_large = |append: &RawAppend| append.value.len() + append.key.as_ref().map_or(0, String::len) > crate::log::MAX_RECORD_BYTES;
        batch.appends.retain(|append| !too_large(append));
        let alert = Alert {
            target: None,
            name: "RecordTooLarge".to_owned(),
            subject: S::NAME.to_owned(),
            severity: Severity::Critical,
            state: AlertState::Event,
            message: format!("{} made a record that the log refuses, and went on without it: {reason}", S::NAME),
            at: now,
        };
        let mut effects = Effects::new();
        effects.to_key(crate::log::Topic::Alerts, S::NAME, Message::Alert(alert));
        batch.appends.extend(raw_appends(&*self.log, effects.take()));
    }

    /// Another member owns the partition now.
    pub fn lost(&mut self, partition: u32) {
        self.owned.remove(&partition);
    }

    /// When [`Runner::next_batch`] will have something without any input.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.owned.values().filter_map(|owned| owned.wakes_at(&self.stage, now)).min()
    }

    /// Begins a last snapshot round of every partition, so that a successor starts from here.
    pub fn hand_over(&mut self, now: Timestamp) {
        for owned in self.owned.values_mut() {
            owned.begin_round(now);
        }
    }

    /// The state of a partition.
    pub fn state(&self, partition: u32) -> Option<&S::State> {
        self.owned.get(&partition).map(|o| &o.state)
    }

    /// How far each owned partition was folded.
    pub fn positions(&self) -> impl Iterator<Item = (u32, Offset)> {
        self.owned.iter().map(|(p, o)| (*p, o.position))
    }

    /// Snapshot, then the input since: the one way in which state is built.
    /// Also gives the records that it needed and that are gone.
    fn restore(&self, partition: u32, position: Offset, now: Timestamp) -> Result<(Owned<S>, Range<Offset>), LogError> {
        let unreadable =
            |reason: String| LogError::Fatal { reason: format!("the state of {} for partition {partition} cannot be restored: {reason}", S::NAME) };
        let rows = self.log.states(S::NAME, partition)?;
        let find = |key: &str| rows.iter().find(|(k, _)| k == key).map(|(_, bytes)| bytes.as_slice());
        let round: Option<Round> = find(ROUND_KEY).map(serde_json::from_slice).transpose().map_err(|e| unreadable(format!("its last round: {e}")))?;
        let mut state = S::State::default();
        if let Some(wide) = find(WIDE_KEY) {
            state.restore_wide(wide).map_err(unreadable)?;
        }
        for (key, bytes) in rows.iter().filter(|(k, _)| k != ROUND_KEY && k != WIDE_KEY) {
            state.restore(key, bytes).map_err(unreadable)?;
        }
        let start = self.log.range(S::INPUT, partition)?.start;
        // A stage that holds nothing across a commit has nothing to read again.
        let needed = if S::FLUSHES { position } else { round.map_or(start, |r| r.replay_from) };
        let from = needed.max(start);
        let mut owned = Owned {
            state,
            position: from.min(position),
            committed: position,
            appends: Vec::new(),
            pending: None,
            last_at: None,
            read_to_end_at: None,
            ticked_at: None,
            writing: None,
            round_at: now,
            records: 0,
            keys: rows.len() as u64,
            dead_letters: DeadLetters::default(),
        };
        let mut silent = Effects::new();
        while owned.position < position {
            let slice = self.log.scan(S::INPUT, partition, owned.position, RESTORE_SLICE)?;
            if slice.is_empty() {
                break;
            }
            for record in slice.into_iter().take_while(|r| r.offset < position) {
                owned.fold(&self.stage, record, &mut silent);
                silent.take();
            }
        }
        owned.position = position.max(from);
        Ok((owned, needed..from))
    }
}

impl<S: Stage> Owned<S> {
    /// Folds one record; what cannot be read becomes a dead letter.
    fn fold(&mut self, stage: &S, raw: RawRecord, effects: &mut Effects) {
        let RawRecord { partition, offset, at, value, .. } = raw;
        self.position = offset + 1;
        self.last_at = Some(at);
        self.records += 1;
        let decoded = wire::decode(S::INPUT, &value).map_err(|e| e.to_string());
        let record = decoded.and_then(|message| S::Record::try_from(message).map_err(|_| format!("not a record that {} reads", S::NAME)));
        match record {
            Ok(record) => {
                let input = Input::Record(Located { partition, offset, at, record });
                let mut own = Effects::new();
                // Decide holds the target that such a record is of. The other stages go on without the record: the same
                // one would end each process that reads it.
                match catch_unwind(AssertUnwindSafe(|| stage.apply(&mut self.state, input, &mut own))) {
                    Ok(()) => effects.append(own),
                    Err(_) => faulted::<S>(partition, offset, at, &value, effects),
                }
            }
            Err(reason) => {
                if self.dead_letters.admit(at) {
                    let record = value[..value.len().min(DEAD_LETTER_BYTES)].to_vec();
                    let letter = DeadLetter { topic: S::INPUT.to_string(), partition, offset: i64::try_from(offset).unwrap_or(i64::MAX), reason, record };
                    effects.to_partition(crate::log::Topic::DeadLetters, 0, Message::DeadLetter(letter));
                }
            }
        }
    }

    /// Whether what is held is to be flushed now. Appends that wait to be committed need a position.
    fn flush_is_due(&self, stage: &S, now: Timestamp) -> bool {
        let due = match self.read_to_end_at {
            Some(_) => stage.flush_at(&self.state, now).is_some_and(|at| now >= at),
            None => stage.flushes_behind(&self.state),
        };
        due || !self.appends.is_empty()
    }

    fn flush(&mut self, stage: &S, log: &dyn Log, partition: u32, now: Timestamp) {
        let mut effects = Effects::new();
        stage.apply(&mut self.state, Input::Flush { partition, now }, &mut effects);
        self.appends.extend(raw_appends(log, effects.take()));
    }

    fn next_batch(&mut self, partition: u32, stage: &S, log: &dyn Log, rounds: Rounds, now: Timestamp) -> Option<Batch> {
        if let Some(pending) = &self.pending {
            return Some(pending.clone());
        }
        let flushed = !S::FLUSHES || self.flush_is_due(stage, now);
        if S::FLUSHES && flushed {
            // Read to the end, everything up to then is in; else up to the last record read.
            let through = self.read_to_end_at.or(self.last_at).unwrap_or(now);
            self.flush(stage, log, partition, through);
            // A further flush says nothing new before the input was read again: however long a commit
            // takes, it is followed by a read.
            self.read_to_end_at = None;
        }
        let mut appends = std::mem::take(&mut self.appends);
        appends.retain(|append| !is_expired_request(append, now));
        if let Some(tick) = S::TICK
            && self.ticked_at.is_none_or(|at| now >= at + TICK_EVERY || now < at)
        {
            self.ticked_at = Some(now);
            appends.push(RawAppend { topic: S::INPUT, partition, key: None, value: wire::encode(&tick()) });
        }
        let position = (flushed && self.position != self.committed).then_some(self.position);
        if self.writing.is_none() && !S::FLUSHES && (now >= self.round_at + rounds.every || self.records >= rounds.records.max(20 * self.keys)) {
            self.begin_round(now);
        }
        let states = self.write_round(position, rounds.bytes);
        if appends.is_empty() && position.is_none() && states.is_empty() {
            return None;
        }
        let batch = Batch { partition, position, appends, states };
        self.pending = Some(batch.clone());
        Some(batch)
    }

    fn begin_round(&mut self, now: Timestamp) {
        if S::FLUSHES || self.writing.is_some() {
            return;
        }
        let round = Round { start: self.position, replay_from: self.state.replay_from(self.position) };
        let keys: VecDeque<String> = self.state.take_changed().into();
        self.keys = self.keys.max(keys.len() as u64);
        self.writing = Some(Writing { round, wide: self.state.encode_wide(self.position), keys });
        self.round_at = now;
        self.records = 0;
    }

    /// The next puts of the round under way. They stand for `self.position`, which the same batch commits.
    fn write_round(&mut self, position: Option<Offset>, most: usize) -> Vec<StatePut> {
        debug_assert!(position.is_none_or(|p| p == self.position));
        let Some(writing) = &mut self.writing else { return Vec::new() };
        let (mut puts, mut bytes) = (Vec::new(), 0);
        while bytes < most {
            let Some(key) = writing.keys.pop_front() else { break };
            let value = self.state.encode(&key, self.position);
            bytes += value.as_ref().map_or(0, Vec::len) + key.len();
            puts.push(StatePut { key, value });
        }
        if writing.keys.is_empty()
            && let Some(Writing { round, wide, .. }) = self.writing.take()
        {
            puts.push(StatePut { key: WIDE_KEY.to_owned(), value: Some(wide) });
            puts.push(StatePut { key: ROUND_KEY.to_owned(), value: serde_json::to_vec(&round).ok() });
        }
        puts
    }

    fn wakes_at(&self, stage: &S, now: Timestamp) -> Option<Timestamp> {
        if self.pending.is_some() || self.writing.is_some() || !self.appends.is_empty() {
            return Some(now);
        }
        let tick = S::TICK.map(|_| self.ticked_at.map_or(now, |at| at + TICK_EVERY));
        let flush = if S::FLUSHES { stage.flush_at(&self.state, now) } else { None };
        tick.into_iter().chain(flush).min()
    }
}

/// A fault in the program: the record is kept, and told.
fn faulted<S: Stage>(partition: u32, offset: Offset, at: Timestamp, value: &[u8], effects: &mut Effects) {
    let reason = format!("a fault in Loadline: {} went on without this record", S::NAME);
    let alert = Alert {
        target: None,
        name: "RecordFaulted".to_owned(),
        subject: format!("{}/{partition}", S::INPUT),
        severity: Severity::Critical,
        state: AlertState::Event,
        message: format!("{reason}, {} {offset} of partition {partition}; it is kept in dead-letters; please report it", S::INPUT),
        at,
    };
    let record = value[..value.len().min(DEAD_LETTER_BYTES)].to_vec();
    let letter = DeadLetter { topic: S::INPUT.to_string(), partition, offset: i64::try_from(offset).unwrap_or(i64::MAX), reason, record };
    effects.to_partition(crate::log::Topic::DeadLetters, 0, Message::DeadLetter(letter));
    effects.to_key(crate::log::Topic::Alerts, S::NAME, Message::Alert(alert));
}

impl DeadLetters {
    fn admit(&mut self, at: Timestamp) -> bool {
        let second = at.as_millis().div_euclid(1000);
        if second != self.second {
            *self = DeadLetters { second, written: 0 };
        }
        self.written += 1;
        self.written <= DEAD_LETTERS_A_SECOND
    }
}

/// Nothing acts on the past: a claim that has expired by the clock is not appended. The fold gives
/// its command up in time.
fn is_expired_request(append: &RawAppend, now: Timestamp) -> bool {
    append.topic == crate::log::Topic::Requests
        && matches!(wire::decode(append.topic, &append.value), Ok(Message::Request(request)) if request.expires_at <= now && !request.withdrawn)
}
