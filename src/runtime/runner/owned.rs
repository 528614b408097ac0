//! One partition that a member owns: its records are folded, what comes of them is kept until it is committed, and snapshots are written in rounds.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{LOOK_AGAIN, Owned, POSITION_WITHIN, Rounds, TICK_EVERY, Writing, at_record};
use crate::log::{Batch, Log, Moment, Offset, RawAppend, RawRecord, StatePut, Topic};
use crate::model::{Alert, AlertState, DeadLetter, Message, Severity, Timestamp};
use crate::runtime::raw_appends;
use crate::runtime::snapshots::{self, ASIDE_KEY, BEGAN_KEY, ROUND_KEY, Round, VERSION_KEY, WIDE_KEY};
use crate::stages::{Effects, Input, Located, Snapshot, Stage};
use crate::wire::{self, WireError};

/// The most of a record that a dead letter keeps.
const DEAD_LETTER_BYTES: usize = 64 * 1024;
/// The most dead letters a second of the log's time.
const DEAD_LETTERS_A_SECOND: u32 = 10;

/// So many records are read on at most while a batch is being written, and some of one poll: more than come while most batches are, since a client that is stopped throws away what it fetched.
pub(in crate::runtime) const READS_ON: u64 = 8_000;
/// Of a stage that flushes, which holds less of each.
const FLUSH_READS_ON: u64 = 50_000;

/// How many dead letters were written in the current second of the log's time.
#[derive(Default)]
pub(super) struct DeadLetters {
    second: i64,
    written: u32,
}

impl<S: Stage> Owned<S> {
    /// Folds one record; what cannot be read becomes a dead letter.
    pub(super) fn fold(&mut self, stage: &S, raw: RawRecord, effects: &mut Effects) {
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
    fn flush_is_due(&self, stage: &S) -> bool {
        let due = match self.read_through {
            // By when the input had been read: a moment later nothing more is complete.
            Some(read) => stage.flush_at(&self.state, read.at).is_some_and(|at| read.at >= at),
            None => stage.flushes_behind(&self.state),
        };
        due || !self.appends.is_empty()
    }

    pub(super) fn flush(&mut self, stage: &S, log: &dyn Log, partition: u32, Moment { at: now, log: read_through }: Moment) {
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

    pub(super) fn next_batch(&mut self, partition: u32, stage: &S, log: &dyn Log, rounds: Rounds, now: Timestamp) -> Option<Arc<Batch>> {
        if self.rest.is_some_and(|rest| rest.lasts(now)) {
            return None;
        }
        if let Some(pending) = &mut self.pending {
            // A log that could not be written for long: what has expired meanwhile is not appended either. One that is being written is asked for alone.
            if !self.rest.is_some_and(|rest| rest.under_way) && pending.appends.iter().any(|append| is_expired_request(append, now)) {
                Arc::make_mut(pending).appends.retain(|append| !is_expired_request(append, now));
            }
            return Some(Arc::clone(pending));
        }
        let told = self.lacking.say(S::NAME, S::INPUT, partition, now);
        if let Some((alert, _)) = &told {
            let mut effects = Effects::new();
            effects.to_key(Topic::Alerts, S::NAME, Message::Alert(alert.clone()));
            self.appends.extend(raw_appends(log, effects.take()));
        }
        let flushed = !S::FLUSHES || self.flush_is_due(stage);
        if S::FLUSHES && flushed {
            // Read to the end, everything up to then is in; else up to the last record read.
            let read = self.read_through.unwrap_or_else(|| at_record(self.last_at, now));
            self.flushed_behind = self.read_through.is_none();
            self.flush(stage, log, partition, read);
            // A further flush says nothing new before the input was read again: however long a commit
            // takes, it is followed by a read.
            self.read_through = None;
        }
        let mut appends = std::mem::take(&mut self.appends);
        appends.retain(|append| !is_expired_request(append, now));
        if let Some(tick) = S::TICK
            && stage.needs_ticks(&self.state)
            && self.ticked_at.is_none_or(|at| now >= at + TICK_EVERY || now < at)
        {
            self.ticked_at = Some(now);
            appends.push(RawAppend { topic: S::INPUT, partition, key: None, value: wire::encode(&tick()) });
        }
        let position = (flushed && self.position != self.committed).then_some(self.position);
        // A clock that was set back delays no round by as much.
        let due = self.first_round || now >= self.round_at + rounds.every || now < self.round_at;
        if self.writing.is_none() && !S::FLUSHES && (due || self.records >= rounds.records.max(rounds.records_a_key * self.keys)) {
            self.begin_round(now);
        }
        let mut states = if S::FLUSHES { self.flushed_states(flushed) } else { self.write_round(position, rounds.bytes) };
        if std::mem::take(&mut self.aside_changed) {
            states.push(StatePut { key: ASIDE_KEY.to_owned(), value: self.aside.row() });
        }
        if let Some((_, put)) = told {
            // Rows without a version are nobody's.
            states.push(StatePut { key: VERSION_KEY.to_owned(), value: serde_json::to_vec(&S::VERSION).ok() });
            states.push(put);
        }
        if appends.is_empty() && states.is_empty() && (position.is_none() || self.position_waits(now)) {
            return None;
        }
        self.bare_since = None;
        let batch = Arc::new(Batch { partition, position, appends, states });
        self.pending = Some(Arc::clone(&batch));
        Some(batch)
    }

    /// Whether so much was read since the batch that is being written that the next one is to come first.
    pub(super) fn next_is_full(&self) -> bool {
        // What is held until a flush is bounded by the stage, which was full where there are appends.
        let (most, is_full) = if S::FLUSHES { (FLUSH_READS_ON, !self.appends.is_empty()) } else { (READS_ON, false) };
        let written = self.pending.as_ref().and_then(|batch| batch.position).unwrap_or(self.committed);
        is_full || self.position.saturating_sub(written) >= most
    }

    /// Whether a position that nothing comes with can wait for what may come. A stage that flushes has one with each flush alone.
    fn position_waits(&mut self, now: Timestamp) -> bool {
        let since = *self.bare_since.get_or_insert(now);
        !S::FLUSHES && now >= since && now < since + POSITION_WITHIN
    }

    pub(super) fn begin_round(&mut self, now: Timestamp) {
        if S::FLUSHES || self.writing.is_some() {
            return;
        }
        let is_first = self.began.is_none();
        let began = Some(*self.began.get_or_insert(now.as_millis()));
        let round = Round { start: self.position, replay_from: self.state.replay_from(self.position), began };
        let keys: VecDeque<String> = self.state.take_changed().into();
        self.keys = self.keys.max(keys.len() as u64);
        self.writing = Some(Writing { round, wide: self.state.encode_wide(self.position), keys, versioned: false, is_first });
        self.first_round = false;
        self.round_at = now;
        self.records = 0;
    }

    /// What a stage that flushes keeps across a flush, as far as it changed: its puts stand for `self.position`, which the same batch commits.
    fn flushed_states(&mut self, flushed: bool) -> Vec<StatePut> {
        let keys = if flushed { self.state.take_changed() } else { Vec::new() };
        let version = (!keys.is_empty()).then(|| StatePut { key: VERSION_KEY.to_owned(), value: serde_json::to_vec(&S::VERSION).ok() });
        let puts = keys.into_iter().flat_map(|key| snapshots::puts(key.clone(), self.state.encode(&key, self.position)));
        version.into_iter().chain(puts).collect()
    }

    /// The next puts of the round under way. They stand for `self.position`, which the same batch commits.
    fn write_round(&mut self, position: Option<Offset>, most: usize) -> Vec<StatePut> {
        debug_assert!(position.is_none_or(|p| p == self.position));
        let Some(writing) = &mut self.writing else { return Vec::new() };
        let (mut puts, mut bytes) = (Vec::new(), 0);
        if !std::mem::replace(&mut writing.versioned, true) {
            puts.push(StatePut { key: VERSION_KEY.to_owned(), value: serde_json::to_vec(&S::VERSION).ok() });
            if writing.is_first {
                puts.push(StatePut { key: BEGAN_KEY.to_owned(), value: serde_json::to_vec(&self.began).ok() });
            }
        }
        while bytes < most {
            let Some(key) = writing.keys.pop_front() else { break };
            let value = self.state.encode(&key, self.position);
            bytes += value.as_ref().map_or(0, Vec::len) + key.len();
            puts.extend(snapshots::puts(key, value));
        }
        if writing.keys.is_empty()
            && let Some(Writing { round, wide, .. }) = self.writing.take()
        {
            puts.extend(snapshots::puts(WIDE_KEY.to_owned(), Some(wide)));
            self.aside_changed |= self.aside.forget_before(round.replay_from);
            puts.push(StatePut { key: ROUND_KEY.to_owned(), value: serde_json::to_vec(&round).ok() });
        }
        puts
    }

    pub(super) fn wakes_at(&self, stage: &S, now: Timestamp) -> Option<Timestamp> {
        if let Some(rest) = self.rest.filter(|rest| rest.lasts(now)) {
            return Some(rest.until);
        }
        if self.pending.is_some() || self.writing.is_some() || !self.appends.is_empty() {
            return Some(now);
        }
        let tick = S::TICK.filter(|_| stage.needs_ticks(&self.state)).map(|_| self.ticked_at.map_or(now, |at| at + TICK_EVERY));
        // Overdue for want of the end of the input: what brings it nearer ends the wait; else it is asked for again a moment later.
        let waits = |at: Timestamp| if self.read_through.is_none() && at <= now { now + LOOK_AGAIN } else { at };
        let flush = if S::FLUSHES { stage.flush_at(&self.state, now).map(waits) } else { None };
        let position = self.bare_since.map(|since| since + POSITION_WITHIN);
        tick.into_iter().chain(flush).chain(position).min()
    }
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
