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

use crate::log::{Batch, Log, LogError, Offset, Polled, RawAppend, RawRecord, StatePut, Topic};
use crate::model::{Alert, AlertState, DeadLetter, Message, Severity, Timestamp};
use crate::stages::{Effects, Input, Located, Snapshot, Stage};
use crate::wire::{self, WireError};

use super::events::PartitionRestored;
use super::raw_appends;
use super::snapshots::{self, ASIDE_KEY, Aside, ROUND_KEY, Round, VERSION_KEY, WIDE_KEY};

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

/// A round under way.
struct Writing {
    round: Round,
    wide: Vec<u8>,
    keys: VecDeque<String>,
    /// Whether the version of the snapshots was written.
    versioned: bool,
}

/// An instant whose earlier records have all been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadToEnd {
    /// It, by this process's clock.
    pub at: Timestamp,
    /// It, by the log's own clock, which may be another one: [`Log::reached`].
    pub log: Timestamp,
}

impl ReadToEnd {
    /// Behind the end: all before the last record has been read, which carries the log's time.
    fn at_record(at: Option<Timestamp>, now: Timestamp) -> Self {
        ReadToEnd { at: at.unwrap_or(now), log: at.unwrap_or(Timestamp::MIN) }
    }
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
    /// The `at` of the last record.
    last_at: Option<Timestamp>,
    read_to_end: Option<ReadToEnd>,
    /// What stood before this is gone, and the stage is to know it before the next record.
    lost_before: Option<Offset>,
    ticked_at: Option<Timestamp>,
    writing: Option<Writing>,
    aside: Aside,
    /// What was put aside is not as the state of the group has it.
    aside_changed: bool,
    /// There is no round yet.
    first_round: bool,
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
    /// another call. `read_to_end` is `None` where more may be waiting.
    ///
    /// # Errors
    /// As the log's reads, while a partition's state is restored; the snapshot's own faults are
    /// [`LogError::Fatal`].
    pub fn take(&mut self, polled: &mut VecDeque<Polled>, now: Timestamp, read_to_end: Option<ReadToEnd>) -> Result<(), LogError> {
        while let Some(event) = polled.pop_front() {
            match event {
                Polled::Assigned { partition, position } => {
                    let (restored, gaps) = match self.restore(partition, position, now) {
                        Ok(restored) => restored,
                        Err(error) => {
                            polled.push_front(event);
                            return Err(error);
                        }
                    };
                    PartitionRestored { stage: S::NAME, partition, position, entries: restored.keys }.emit();
                    self.owned.insert(partition, restored);
                    for gone in gaps {
                        self.gap(partition, gone.start, gone.end, now);
                    }
                }
                Polled::Revoked { partition } => {
                    self.owned.remove(&partition);
                }
                Polled::Gap { partition, from, to } => {
                    if let Some(owned) = self.owned.get_mut(&partition) {
                        owned.position = owned.position.max(to);
                        owned.lost_before = Some(to);
                    }
                    self.gap(partition, from, to, now);
                }
                Polled::Records { partition, records } => self.records(partition, records, now),
            }
        }
        for owned in self.owned.values_mut() {
            owned.read_to_end = read_to_end;
        }
        Ok(())
    }

    /// There is more of this partition, which cannot be read yet: nothing is complete there.
    pub fn waits(&mut self, partition: u32) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.read_to_end = None;
        }
    }

    fn records(&mut self, partition: u32, records: Vec<RawRecord>, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        let mut effects = Effects::new();
        for record in records {
            owned.fold(&self.stage, record, &mut effects);
            if S::FLUSHES && self.stage.is_full(&owned.state) {
                owned.flush(&self.stage, &*self.log, partition, ReadToEnd::at_record(owned.last_at, now));
            }
        }
        owned.appends.extend(raw_appends(&*self.log, effects.take()));
    }

    /// Tells of records that are gone and that this reader had not read.
    fn gap(&mut self, partition: u32, from: Offset, to: Offset, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        let mut effects = Effects::new();
        let message = format!("{} cannot read {} {from}..{to} of partition {partition}: they were trimmed before, or damaged", S::NAME, S::INPUT);
        let alert = Alert {
            target: None,
            name: "RecordsLost".to_owned(),
            subject: format!("{}/{partition}", S::INPUT),
            severity: Severity::Critical,
            state: AlertState::Event,
            message,
            at: now,
        };
        if let Some(on_gap) = S::ON_GAP {
            let (topic, key, message) = on_gap(alert.message.clone());
            effects.to_key(topic, key, message);
        }
        effects.to_key(Topic::Alerts, S::NAME, Message::Alert(alert));
        owned.appends.extend(raw_appends(&*self.log, effects.take()));
    }

    /// The next batch to commit, if anything is to be committed now. The same batch, less the requests that
    /// have expired, is handed out until it is [`Runner::confirmed`].
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

    /// The batch of this partition can never take effect, as a record of it for `topic` with `bytes` is too large: it goes
    /// on without what is as large, with an alert.
    pub fn refused(&mut self, partition: u32, topic: Topic, bytes: usize, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        let Some(batch) = owned.pending.as_mut() else { return };
        let size = |append: &RawAppend| append.value.len() + append.key.as_ref().map_or(0, String::len);
        batch.appends.retain(|append| append.topic != topic || size(append) < bytes);
        let reason = LogError::TooLarge { topic, bytes };
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
        effects.to_key(Topic::Alerts, S::NAME, Message::Alert(alert));
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
    fn restore(&self, partition: u32, position: Offset, now: Timestamp) -> Result<(Owned<S>, Vec<Range<Offset>>), LogError> {
        let rows = self.log.states(S::NAME, partition)?;
        let snapshots::Restored { state, round, aside, .. } = snapshots::restore::<S>(&rows, position).map_err(|reason| unreadable::<S>(partition, &reason))?;
        let start = self.log.range(S::INPUT, partition)?.start;
        let needed = match round {
            // A stage that flushes saves with each flush what it holds across it: there is nothing to read again.
            _ if S::FLUSHES => position,
            Some(round) => round.replay_from,
            // Its first commit brings its first round: one that has committed and has no round has lost its state.
            None if self.log.committed(S::NAME, S::INPUT, partition)?.is_some() => 0,
            None => start,
        };
        let from = needed.max(start);
        let mut owned = Owned {
            state,
            position: from.min(position),
            committed: position,
            appends: Vec::new(),
            pending: None,
            last_at: None,
            read_to_end: None,
            lost_before: (needed < from).then_some(from),
            ticked_at: None,
            writing: None,
            aside,
            aside_changed: false,
            first_round: round.is_none(),
            round_at: now,
            records: 0,
            keys: rows.len() as u64,
            dead_letters: DeadLetters::default(),
        };
        let mut gaps: Vec<Range<Offset>> = Vec::new();
        let mut gap = |gone: Range<Offset>| {
            if !gone.is_empty() {
                gaps.push(gone);
            }
        };
        gap(needed..from);
        // What lies between records was damaged and cut out, unless the log itself leaves offsets empty.
        let told = !self.log.leaves_gaps();
        let mut silent = Effects::new();
        while owned.position < position {
            let slice = self.log.scan(S::INPUT, partition, owned.position, RESTORE_SLICE)?;
            if slice.is_empty() {
                if told {
                    gap(owned.position..position);
                    owned.lost_before = Some(position);
                }
                break;
            }
            for record in slice {
                if told && record.offset > owned.position {
                    gap(owned.position..record.offset.min(position));
                    owned.lost_before = Some(record.offset);
                }
                owned.position = record.offset.min(position);
                if record.offset >= position {
                    break;
                }
                if !owned.aside.holds(record.offset)
                    && let Some((id, lacks)) = wire::unread_id(&record.value)
                {
                    // It was read before: to go on without it would be another state.
                    let (input, offset) = (S::INPUT, record.offset);
                    let reason = format!(
                        "{input} {offset} of partition {partition} was read by the schema {id} of a registry before, and cannot be now: {lacks}; the registry must be the one of \
                         before (kafka.registry.url), with what it held"
                    );
                    return Err(LogError::Retry { reason });
                }
                owned.fold(&self.stage, record, &mut silent);
                silent.take();
            }
        }
        owned.position = position.max(from);
        Ok((owned, gaps))
    }
}

impl<S: Stage> Owned<S> {
    /// Folds one record; what cannot be read becomes a dead letter.
    fn fold(&mut self, stage: &S, raw: RawRecord, effects: &mut Effects) {
        let decoded = if self.aside.holds(raw.offset) { Err("it was put aside before".to_owned()) } else { self.read(&raw) };
        let RawRecord { partition, offset, at, value, .. } = raw;
        self.position = offset + 1;
        self.last_at = Some(at);
        if let Some(next) = self.lost_before.take() {
            stage.apply(&mut self.state, Input::Lost { next, at }, effects);
        }
        self.records += 1;
        let record = decoded.and_then(|read| {
            let record = S::Record::try_from(read.message).map_err(|_| format!("not a record that {} reads", S::NAME))?;
            Ok((record, read.lacks))
        });
        match record {
            Ok((record, lacks)) => {
                if let Some(reason) = lacks {
                    self.put_aside(partition, offset, at, reason, &value, effects);
                }
                let input = Input::Record(Located { partition, offset, at, record });
                let mut own = Effects::new();
                // Decide holds the target that such a record is of. The other stages go on without the record: the same
                // one would end each process that reads it.
                match catch_unwind(AssertUnwindSafe(|| stage.apply(&mut self.state, input, &mut own))) {
                    Ok(()) => {
                        let held = own.take_held();
                        effects.append(own);
                        if let Some(target) = held.first() {
                            let others = if held.len() > 1 { format!(" and {} other targets", held.len() - 1) } else { String::new() };
                            let reason = format!("a fault in Loadline: {} holds {target}{others}", S::NAME);
                            effects.to_partition(Topic::DeadLetters, 0, dead_letter::<S>(partition, offset, reason, &value));
                        }
                    }
                    Err(_) => faulted::<S>(partition, offset, at, &value, effects),
                }
            }
            Err(reason) => self.put_aside(partition, offset, at, reason, &value, effects),
        }
    }

    /// What a record says, or why that cannot be told.
    fn read(&mut self, raw: &RawRecord) -> Result<wire::Read, String> {
        wire::read(S::INPUT, raw).map_err(|error| {
            if !S::FLUSHES && matches!(error, WireError::UnknownId { .. }) {
                self.aside.push(raw.offset);
                self.aside_changed = true;
            }
            error.to_string()
        })
    }

    /// Keeps a record that cannot be used, or not all of it, unless there were many in this second.
    fn put_aside(&mut self, partition: u32, offset: Offset, at: Timestamp, reason: String, value: &[u8], effects: &mut Effects) {
        if self.dead_letters.admit(at) {
            effects.to_partition(Topic::DeadLetters, 0, dead_letter::<S>(partition, offset, reason, value));
        }
    }

    /// Whether what is held is to be flushed now. Appends that wait to be committed need a position.
    fn flush_is_due(&self, stage: &S, now: Timestamp) -> bool {
        let due = match self.read_to_end {
            Some(_) => stage.flush_at(&self.state, now).is_some_and(|at| now >= at),
            None => stage.flushes_behind(&self.state),
        };
        due || !self.appends.is_empty()
    }

    fn flush(&mut self, stage: &S, log: &dyn Log, partition: u32, ReadToEnd { at: now, log: read_through }: ReadToEnd) {
        let mut effects = Effects::new();
        let input = Input::Flush { partition, now, read_through };
        if catch_unwind(AssertUnwindSafe(|| stage.apply(&mut self.state, input, &mut effects))).is_err() {
            // What it held is lost: to hold it on would lose every flush after this one too.
            effects = Effects::new();
            let message = format!("a fault in Loadline: {} lost what it held of partition {partition} of {}; please report it", S::NAME, S::INPUT);
            let alert = record_faulted::<S>(partition, message, now);
            effects.to_key(Topic::Alerts, S::NAME, Message::Alert(alert));
        }
        self.appends.extend(raw_appends(log, effects.take()));
    }

    fn next_batch(&mut self, partition: u32, stage: &S, log: &dyn Log, rounds: Rounds, now: Timestamp) -> Option<Batch> {
        if let Some(pending) = &mut self.pending {
            // A log that could not be written for long: what has expired meanwhile is not appended either.
            pending.appends.retain(|append| !is_expired_request(append, now));
            return Some(pending.clone());
        }
        let flushed = !S::FLUSHES || self.flush_is_due(stage, now);
        if S::FLUSHES && flushed {
            // Read to the end, everything up to then is in; else up to the last record read.
            let read = self.read_to_end.unwrap_or_else(|| ReadToEnd::at_record(self.last_at, now));
            self.flush(stage, log, partition, read);
            // A further flush says nothing new before the input was read again: however long a commit
            // takes, it is followed by a read.
            self.read_to_end = None;
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
        // A clock that was set back delays no round by as much.
        let due = self.first_round || now >= self.round_at + rounds.every || now < self.round_at;
        if self.writing.is_none() && !S::FLUSHES && (due || self.records >= rounds.records.max(20 * self.keys)) {
            self.begin_round(now);
        }
        let mut states = if S::FLUSHES { self.flushed_states(flushed) } else { self.write_round(position, rounds.bytes) };
        if std::mem::take(&mut self.aside_changed) {
            states.push(StatePut { key: ASIDE_KEY.to_owned(), value: self.aside.row() });
        }
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
        self.writing = Some(Writing { round, wide: self.state.encode_wide(self.position), keys, versioned: false });
        self.first_round = false;
        self.round_at = now;
        self.records = 0;
    }

    /// What a stage that flushes keeps across a flush, as far as it changed: its puts stand for `self.position`, which the same batch commits.
    fn flushed_states(&mut self, flushed: bool) -> Vec<StatePut> {
        let keys = if flushed { self.state.take_changed() } else { Vec::new() };
        let version = (!keys.is_empty()).then(|| StatePut { key: VERSION_KEY.to_owned(), value: serde_json::to_vec(&S::VERSION).ok() });
        let puts = keys.into_iter().map(|key| StatePut { value: self.state.encode(&key, self.position), key });
        version.into_iter().chain(puts).collect()
    }

    /// The next puts of the round under way. They stand for `self.position`, which the same batch commits.
    fn write_round(&mut self, position: Option<Offset>, most: usize) -> Vec<StatePut> {
        debug_assert!(position.is_none_or(|p| p == self.position));
        let Some(writing) = &mut self.writing else { return Vec::new() };
        let (mut puts, mut bytes) = (Vec::new(), 0);
        if !std::mem::replace(&mut writing.versioned, true) {
            puts.push(StatePut { key: VERSION_KEY.to_owned(), value: serde_json::to_vec(&S::VERSION).ok() });
        }
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
            self.aside_changed |= self.aside.forget_before(round.replay_from);
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

/// That the snapshots of a partition cannot be used.
fn unreadable<S: Stage>(partition: u32, reason: &snapshots::Unusable) -> LogError {
    let name = S::NAME;
    if let snapshots::Unusable::Ahead { .. } = reason {
        let reason = format!(
            "the state of {name} for partition {partition} cannot be restored: {reason}: its topic was emptied or made anew, or its position was set back. Of a \
             data directory `loadline doctor` says what can be done, of a Kafka cluster docs/kafka.md does (\"A topic that is lost\")"
        );
        return LogError::Fatal { reason };
    }
    LogError::Fatal {
        reason: format!(
            "the state of {name} for partition {partition} cannot be restored: {reason}; start the Loadline that wrote it, or see what `loadline doctor` says \
             of the data directory: it can have {name} rebuild its state from the log"
        ),
    }
}

/// That the snapshots of every partition can be used, before anything is started on them.
///
/// # Errors
/// As the log's reads; [`LogError::Fatal`] where a snapshot cannot be used.
pub fn check_snapshots<S: Stage>(log: &dyn Log) -> Result<(), LogError> {
    for partition in 0..log.partitions(S::INPUT) {
        // Who has committed nothing begins at the earliest record.
        let position = match log.committed(S::NAME, S::INPUT, partition)? {
            Some(position) => position,
            None => log.range(S::INPUT, partition)?.start,
        };
        let rows = log.states(S::NAME, partition).map_err(|error| match error {
            LogError::Fatal { reason } => unreadable::<S>(partition, &reason.into()),
            error => error,
        })?;
        snapshots::restore::<S>(&rows, position).map_err(|reason| unreadable::<S>(partition, &reason))?;
    }
    Ok(())
}

/// A fault in the program: the record is kept, and told.
fn faulted<S: Stage>(partition: u32, offset: Offset, at: Timestamp, value: &[u8], effects: &mut Effects) {
    let reason = format!("a fault in Loadline: {} went on without this record", S::NAME);
    let message = format!("{reason}, {} {offset} of partition {partition}; it is kept in dead-letters; please report it", S::INPUT);
    let alert = record_faulted::<S>(partition, message, at);
    effects.to_partition(Topic::DeadLetters, 0, dead_letter::<S>(partition, offset, reason, value));
    effects.to_key(Topic::Alerts, S::NAME, Message::Alert(alert));
}

fn record_faulted<S: Stage>(partition: u32, message: String, at: Timestamp) -> Alert {
    let (name, subject) = ("RecordFaulted".to_owned(), format!("{}/{partition}", S::INPUT));
    Alert { target: None, name, subject, severity: Severity::Critical, state: AlertState::Event, message, at }
}

/// A record that was not used, or not by all, with its place and its beginning.
fn dead_letter<S: Stage>(partition: u32, offset: Offset, reason: String, value: &[u8]) -> Message {
    let record = value[..value.len().min(DEAD_LETTER_BYTES)].to_vec();
    Message::DeadLetter(DeadLetter { topic: S::INPUT.to_string(), partition, offset: i64::try_from(offset).unwrap_or(i64::MAX), reason, record })
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
    append.topic == Topic::Requests
        && matches!(wire::decode(append.topic, &append.value), Ok(Message::Request(request)) if request.expires_at <= now && !request.withdrawn)
}
