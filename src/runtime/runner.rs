//! The runtime of one stage as a step function: what was polled goes in, batches to commit come out.
//!
//! What it does with one partition is in [`owned`]; what it tells of one that waits, in [`lacking`].
//!
//! Nothing here waits or talks to a session; only restoring reads the log. So a driver, or a
//! simulation, can stop it between any two steps.
//!
//! A partition's effects are folded once and kept until they are committed: a commit that failed is
//! tried again with the same effects, and state never rolls back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Batch, Lacking, Log, LogError, Moment, Offset, Polled, RawAppend, RawRecord, Topic};
use crate::model::{Alert, AlertState, Message, Severity, Timestamp};
use crate::stages::{Effects, Stage};
use crate::wire;

use super::events::PartitionRestored;
use super::raw_appends;
use super::rest::Rest;
use super::schemas;
use super::snapshots::{self, Aside, Round};
use super::{side_by_side, side_by_side_while};

use self::lacking::Told;
use self::owned::DeadLetters;

mod lacking;
mod owned;

#[cfg(test)]
pub(super) use self::owned::READS_ON;

/// How often a stage that lives by the clock gets a tick.
pub const TICK_EVERY: Duration = Duration::from_secs(1);
/// After so long without anything new it is asked again whether the input was read to its end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A position alone, of records of which nothing came, is committed within this: what comes of a later one takes it along. As long as the marks of one pane take to come; until then
/// these records count as not processed.
const POSITION_WITHIN: Duration = Duration::from_millis(200);
/// A snapshot round is due after this.
const ROUND_EVERY: Duration = Duration::from_secs(300);
/// A snapshot round is due after this many records, or so many for each key of the last round.
const ROUND_RECORDS: u64 = 100_000;
const ROUND_RECORDS_A_KEY: u64 = 20;
/// Where others take over: some 30 µs each are what a partition waits for then, and a snapshot costs as much.
const SHARED_ROUND_RECORDS: u64 = 4_000;
const SHARED_ROUND_RECORDS_A_KEY: u64 = 8;
/// The most snapshot bytes in one commit, so that a round does not stall the stage.
const ROUND_BYTES: usize = 1_000_000;
/// How many records are read at once while restoring.
const RESTORE_SLICE: usize = 10_000;

/// A round under way.
struct Writing {
    round: Round,
    wide: Vec<u8>,
    keys: VecDeque<String>,
    /// Whether the version of the snapshots was written.
    versioned: bool,
    /// It is the first round.
    is_first: bool,
}

/// Up to when a partition has been read that is not read to its end: all before its last record, which carries the log's time.
fn at_record(at: Option<Timestamp>, now: Timestamp) -> Moment {
    Moment { at: at.unwrap_or(now), log: at.unwrap_or(Timestamp::MIN) }
}

/// One partition that this member owns.
struct Owned<S: Stage> {
    state: S::State,
    /// The next offset to fold.
    position: Offset,
    /// The position that is committed.
    committed: Offset,
    /// Since when there is a position to commit, and nothing with it.
    bare_since: Option<Timestamp>,
    /// Effects that are not committed yet, ready to append.
    appends: Vec<RawAppend>,
    /// A batch that was handed out and not yet confirmed.
    pending: Option<Arc<Batch>>,
    /// After a commit that failed for now, until one did not.
    rest: Option<Rest>,
    /// The `at` of the last record.
    last_at: Option<Timestamp>,
    read_through: Option<Moment>,
    /// Flushed last without being known to be read to its end, as of its last record: what was known before lies behind that.
    flushed_behind: bool,
    /// What stood before this is gone, and the stage is to know it before the next record.
    lost_before: Option<Offset>,
    ticked_at: Option<Timestamp>,
    writing: Option<Writing>,
    /// When the first round began.
    began: Option<i64>,
    aside: Aside,
    /// What was put aside is not as the state of the group has it.
    aside_changed: bool,
    /// There is no round yet.
    first_round: bool,
    round_at: Timestamp,
    records: u64,
    keys: u64,
    dead_letters: DeadLetters,
    lacking: Told,
}

/// When snapshots are written.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// A round is due after this, …
    pub every: Duration,
    /// … or after this many records, …
    pub records: u64,
    /// … or so many for each key of the last round, where that is more.
    pub records_a_key: u64,
    /// The most snapshot bytes in one commit.
    pub bytes: usize,
}

impl Default for Rounds {
    fn default() -> Self {
        Rounds { every: ROUND_EVERY, records: ROUND_RECORDS, records_a_key: ROUND_RECORDS_A_KEY, bytes: ROUND_BYTES }
    }
}

impl Rounds {
    /// Those of a stage on this log.
    pub fn on(log: &dyn Log) -> Rounds {
        match log.is_shared() {
            true => Rounds { records: SHARED_ROUND_RECORDS, records_a_key: SHARED_ROUND_RECORDS_A_KEY, ..Rounds::default() },
            false => Rounds::default(),
        }
    }
}

/// What could not be taken, and why.
#[derive(Debug)]
pub struct NotTaken {
    /// The partitions.
    pub partitions: Vec<u32>,
    /// Of one of them.
    pub error: LogError,
}

/// A stage over the partitions that this member owns.
pub struct Runner<S: Stage> {
    stage: S,
    log: Arc<dyn Log>,
    rounds: Rounds,
    owned: BTreeMap<u32, Owned<S>>,
    /// The partition whose batch was handed out last: the others come before it again.
    served: Option<u32>,
    schemas: schemas::Reading,
}

impl<S: Stage> Runner<S> {
    /// A runner that owns nothing yet.
    pub fn new(stage: S, log: Arc<dyn Log>) -> Self {
        Runner::with_rounds(stage, log, Rounds::default())
    }

    /// A runner that owns nothing yet, and writes its snapshots as told.
    pub fn with_rounds(stage: S, log: Arc<dyn Log>, rounds: Rounds) -> Self {
        Runner { stage, log, rounds, owned: BTreeMap::new(), served: None, schemas: schemas::Reading::default() }
    }

    /// Takes what a poll brought, one event after the other: on an error the rest is left in `polled`, for
    /// another call. `through` has the partitions of which it is known up to when they have been read: [`crate::log::Session::read_through`].
    ///
    /// # Errors
    /// As the log's reads, while a partition's state is restored; the snapshot's own faults are
    /// [`LogError::Fatal`]. With the partitions of which the next event could not be taken.
    pub fn take(&mut self, polled: &mut VecDeque<Polled>, now: Timestamp, through: &BTreeMap<u32, Moment>) -> Result<(), NotTaken> {
        self.take_while(polled, now, through, None)
    }

    /// As [`Runner::take`]; `meanwhile` is called again and again while partitions are restored, where the log lets several read.
    ///
    /// # Errors
    /// As there.
    pub fn take_while(
        &mut self,
        polled: &mut VecDeque<Polled>,
        now: Timestamp,
        through: &BTreeMap<u32, Moment>,
        mut meanwhile: Option<&mut dyn FnMut()>,
    ) -> Result<(), NotTaken> {
        while let Some(event) = polled.pop_front() {
            match event {
                Polled::Assigned { .. } => {
                    polled.push_front(event);
                    let mut meanwhile = meanwhile.as_mut().map(|meanwhile| || meanwhile());
                    self.assigned(polled, now, meanwhile.as_mut().map(|meanwhile| meanwhile as &mut dyn FnMut()))?;
                }
                Polled::Revoked { partition } => {
                    self.owned.remove(&partition);
                }
                Polled::Gap { partition, from, to } => {
                    if let Some(owned) = self.owned.get_mut(&partition) {
                        owned.position = owned.position.max(to);
                        owned.lost_before = Some(to);
                        owned.lacking.goes_on();
                    }
                    self.gap(partition, from, to, now);
                }
                Polled::Records { partition, records } => {
                    if let Err(error) = self.schemas.see_to(&*self.log, &records) {
                        polled.push_front(Polled::Records { partition, records });
                        return Err(NotTaken { partitions: vec![partition], error });
                    }
                    self.records(partition, records, now);
                }
            }
        }
        for (partition, owned) in &mut self.owned {
            owned.read_through = through.get(partition).copied();
            owned.flushed_behind &= owned.read_through.is_none();
        }
        Ok(())
    }

    /// Restores the partitions that are assigned next, side by side as far as the log lets several read. What cannot be restored is left in `polled`.
    fn assigned(&mut self, polled: &mut VecDeque<Polled>, now: Timestamp, meanwhile: Option<&mut dyn FnMut()>) -> Result<(), NotTaken> {
        let assigned = |event: &Polled| if let Polled::Assigned { partition, position } = event { Some((*partition, *position)) } else { None };
        let given: Vec<(u32, Offset)> = polled.iter().map_while(assigned).take(self.log.readers()).collect();
        let (stage, log, schemas) = (&self.stage, &*self.log, &self.schemas);
        let restore = |given: &(u32, Offset)| Self::restore(stage, log, schemas, *given, now);
        let restored = match meanwhile.filter(|_| log.readers() > 1) {
            Some(meanwhile) => side_by_side_while(&given, restore, meanwhile),
            None => side_by_side(&given, restore),
        };
        drop(polled.drain(..given.len()));
        let mut failed: Vec<(u32, LogError)> = Vec::new();
        for ((partition, position), restored) in given.into_iter().zip(restored).rev() {
            match restored {
                Ok((restored, gaps)) => {
                    PartitionRestored { stage: S::NAME, partition, position, entries: restored.keys }.emit();
                    self.owned.insert(partition, restored);
                    for gone in gaps {
                        self.gap(partition, gone.start, gone.end, now);
                    }
                }
                Err(error) => {
                    polled.push_front(Polled::Assigned { partition, position });
                    failed.push((partition, error));
                }
            }
        }
        let partitions = failed.iter().map(|(partition, _)| *partition).collect();
        // What needs a person comes before what passes.
        let told = failed.into_iter().map(|(_, error)| error).min_by_key(|error| matches!(error, LogError::Retry { .. }));
        told.map_or(Ok(()), |error| Err(NotTaken { partitions, error }))
    }

    /// What the next records of these partitions, and of no others, wait for.
    pub fn lacking(&mut self, lacking: &[(u32, Lacking)], now: Timestamp) {
        for (partition, owned) in &mut self.owned {
            let lacks = lacking.iter().find(|(lacking, _)| lacking == partition).map(|(_, lacks)| lacks);
            owned.lacking.note(lacks, now);
        }
    }

    fn records(&mut self, partition: u32, records: Vec<RawRecord>, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        owned.lacking.goes_on();
        let mut effects = Effects::new();
        for record in records {
            owned.fold(&self.stage, record, &mut effects);
            if S::FLUSHES && self.stage.is_full(&owned.state) {
                owned.flush(&self.stage, &*self.log, partition, at_record(owned.last_at, now));
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

    /// The next batch to commit of a partition that does not rest, if anything is to be committed now. The same batch, less the requests that
    /// have expired, is handed out until it is [`Runner::confirmed`].
    pub fn next_batch(&mut self, now: Timestamp) -> Option<Arc<Batch>> {
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
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        owned.rest = None;
        if let Some(position) = owned.pending.take().and_then(|batch| batch.position) {
            owned.committed = position;
        }
    }

    /// The batch of this partition could not be committed now, or is still `under_way`: the others go on, and it is tried again later. When.
    pub fn rests(&mut self, partition: u32, under_way: bool, now: Timestamp) -> Timestamp {
        let Some(owned) = self.owned.get_mut(&partition) else { return now };
        let rest = if under_way { Rest::under_way(owned.rest, now) } else { Rest::failed(owned.rest, now) };
        owned.rest = Some(rest);
        rest.until
    }

    /// Whether no more is to be read of this partition: its batch could not be committed when that was tried last, or it is still being written and the next one is full.
    pub fn is_held_back(&self, partition: u32) -> bool {
        self.owned.get(&partition).is_some_and(|owned| owned.rest.is_some_and(|rest| !rest.under_way || owned.next_is_full()))
    }

    /// Whether there are partitions, and none of them could be committed when that was tried last.
    pub fn all_rest(&self) -> bool {
        !self.owned.is_empty() && self.owned.values().all(|owned| owned.rest.is_some())
    }

    /// Each is tried again at once.
    pub fn rests_no_more(&mut self) {
        self.owned.values_mut().for_each(|owned| owned.rest = None);
    }

    /// Those whose batches are still being written.
    pub fn under_way(&self) -> Vec<u32> {
        let is_under_way = |owned: &Owned<S>| owned.rest.is_some_and(|rest| rest.under_way);
        self.owned.iter().filter(|(_, owned)| is_under_way(owned)).map(|(partition, _)| *partition).collect()
    }

    /// The batch of this partition can never take effect, as a record of it for `topic` with `bytes` is too large: it goes
    /// on without what is as large, with an alert.
    pub fn refused(&mut self, partition: u32, topic: Topic, bytes: usize, now: Timestamp) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        owned.rest = None;
        let Some(batch) = owned.pending.as_mut().map(Arc::make_mut) else { return };
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

    /// Whether it must be known of a partition that it has been read to its end by now, and not a moment ago: it is to be flushed then.
    pub fn must_know_end(&self, partition: u32, now: Timestamp) -> bool {
        let due = |owned: &Owned<S>| owned.flushed_behind || self.stage.flush_at(&owned.state, now).is_some_and(|at| now >= at);
        self.owned.get(&partition).is_some_and(due)
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
    fn restore(
        stage: &S,
        log: &dyn Log,
        schemas: &schemas::Reading,
        (partition, position): (u32, Offset),
        now: Timestamp,
    ) -> Result<(Owned<S>, Vec<Range<Offset>>), LogError> {
        let rows = log.states(S::NAME, partition)?;
        let snapshots::Restored { state, round, began, aside, told, .. } =
            snapshots::restore::<S>(&rows, position).map_err(|reason| unreadable::<S>(partition, &reason))?;
        let start = log.range(S::INPUT, partition)?.start;
        let needed = match round {
            // A stage that flushes saves with each flush what it holds across it: there is nothing to read again.
            _ if S::FLUSHES => position,
            Some(round) => round.replay_from,
            // Its first commit brings its first round: one that has committed and has no round has lost its state.
            None if log.committed(S::NAME, S::INPUT, partition)?.is_some() => 0,
            None => start,
        };
        let from = needed.max(start);
        let mut owned = Owned {
            state,
            position: from.min(position),
            committed: position,
            bare_since: None,
            appends: Vec::new(),
            pending: None,
            rest: None,
            last_at: None,
            read_through: None,
            flushed_behind: false,
            lost_before: (needed < from).then_some(from),
            ticked_at: None,
            writing: None,
            began,
            aside,
            aside_changed: false,
            first_round: round.is_none(),
            round_at: now,
            records: 0,
            keys: rows.len() as u64,
            dead_letters: DeadLetters::default(),
            lacking: Told::of_state(told),
        };
        let mut gaps: Vec<Range<Offset>> = Vec::new();
        let mut gap = |gone: Range<Offset>| {
            if !gone.is_empty() {
                gaps.push(gone);
            }
        };
        gap(needed..from);
        // What lies between records was damaged and cut out, unless the log itself leaves offsets empty.
        let told = !log.leaves_gaps();
        let mut silent = Effects::new();
        while owned.position < position {
            let mut slice = log.scan(S::INPUT, partition, owned.position, RESTORE_SLICE)?;
            if slice.is_empty() {
                if told {
                    gap(owned.position..position);
                    owned.lost_before = Some(position);
                    break;
                }
                // A broker that led it before, and does not know that it does no more, has not the newest.
                let (input, end) = (S::INPUT, log.range(S::INPUT, partition)?.end);
                if end < position {
                    let reason = format!("{} stands at {position} of {input} {partition}, and the log ends at {end} for now", S::NAME);
                    return Err(LogError::Retry { reason });
                }
                // It may be another one that said so.
                slice = log.scan(S::INPUT, partition, owned.position, RESTORE_SLICE)?;
                if slice.is_empty() {
                    break;
                }
            }
            schemas.see_to(log, &slice)?;
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
                owned.fold(stage, record, &mut silent);
                silent.take();
            }
        }
        owned.position = position.max(from);
        Ok((owned, gaps))
    }
}

/// That the snapshots of a partition cannot be used.
fn unreadable<S: Stage>(partition: u32, reason: &snapshots::Unusable) -> LogError {
    let name = S::NAME;
    let why = match reason {
        snapshots::Unusable::Ahead { .. } => Some("its topic was emptied or made anew, or its position was set back"),
        snapshots::Unusable::Cut => Some("the topic of the state was emptied or made anew while Loadline ran"),
        snapshots::Unusable::Unreadable(_) => None,
    };
    if let Some(why) = why {
        let reason = format!(
            "the state of {name} for partition {partition} cannot be restored: {reason}: {why}. Of a data directory `loadline doctor` says what can be done, of a Kafka cluster \
             docs/kafka.md does (\"A topic that is lost\")"
        );
        return LogError::Fatal { reason };
    }
    LogError::Fatal {
        reason: format!(
            "the state of {name} for partition {partition} cannot be restored: {reason}; start the Loadline that wrote it. Or have {name} rebuild its state from the log: of a data directory \
             `loadline doctor` says how, of a Kafka cluster docs/kafka.md does (\"A topic that is lost\")"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Partitions;
    use crate::log::memory::MemoryLog;
    use crate::model::{Mark, PolicyAnnouncement, Signal};
    use crate::runtime::clock::ManualClock;
    use crate::stages::decide::Decide;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_764_000_000_000 + ms)
    }

    /// A round comes after so many records, or so many for each key of the last one where that is more.
    #[test]
    fn the_more_keys_there_are_the_more_records_a_round_waits_for() {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(at(0)))));
        let tick = wire::encode(&Message::Signal(Signal::Tick(crate::model::Tick {})));
        let policy = |number: u64| {
            let order = crate::model::Order { source: "f".to_owned(), generation: 1 };
            wire::encode(&Message::Signal(Signal::Policy(PolicyAnnouncement {
                target: format!("prod/Deployment/t{number}").parse().unwrap(),
                spec: None,
                order,
            })))
        };
        let after = |targets: u64, records_a_key: u64| {
            let rounds = Rounds { every: Duration::from_secs(1_000_000), records: 5, records_a_key, bytes: ROUND_BYTES };
            let mut runner = Runner::with_rounds(Decide::default(), Arc::clone(&log), rounds);
            let mut take = |polled: Polled| {
                runner.take(&mut VecDeque::from([polled]), at(0), &BTreeMap::new()).unwrap();
                let mut states = false;
                while let Some(batch) = runner.next_batch(at(0)) {
                    states |= !batch.states.is_empty();
                    runner.confirmed(0);
                }
                states
            };
            let record = |offset, value| Polled::Records {
                partition: 0,
                records: vec![RawRecord { partition: 0, offset, at: at(0), key: None, content_type: None, value }],
            };
            take(Polled::Assigned { partition: 0, position: 0 });
            let mut offset = 0;
            // The targets come, and the round that has all of them.
            while offset < targets || !take(record(offset, tick.clone())) {
                if offset < targets {
                    take(record(offset, policy(offset)));
                }
                offset += 1;
            }
            let round = offset;
            offset += 1;
            while !take(record(offset, tick.clone())) {
                offset += 1;
            }
            offset - round
        };
        assert_eq!([after(1, 4), after(2, 4), after(3, 4), after(3, 1)], [5, 8, 12, 5]);
    }

    /// Where offsets may be empty, an end that lies before the position is that of a broker which does not know that it leads no more: what it lacks is not skipped.
    #[test]
    fn what_a_log_does_not_show_up_to_the_position_is_waited_for() {
        let log = MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(at(0)))).with_markers();
        let append =
            || RawAppend { topic: Topic::Signals, partition: 0, key: None, value: wire::encode(&Message::Signal(Signal::Tick(crate::model::Tick {}))) };
        log.append(vec![append()]).unwrap();
        let end = log.range(Topic::Signals, 0).unwrap().end;
        let mut runner = Runner::new(Decide::default(), Arc::new(log.clone()));
        let mut given = VecDeque::from([Polled::Assigned { partition: 0, position: end + 1 }]);
        let refused = runner.take(&mut given, at(0), &BTreeMap::new()).unwrap_err();
        let NotTaken { error: LogError::Retry { reason }, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(reason, &format!("decide stands at {} of signals 0, and the log ends at {end} for now", end + 1));
        log.append(vec![append()]).unwrap();
        runner.take(&mut given, at(0), &BTreeMap::new()).unwrap();
        assert_eq!(runner.positions().collect::<Vec<_>>(), [(0, end + 1)]);
    }

    /// Of many marks all but the last complete nothing: each is no commit of its own.
    #[test]
    fn a_position_that_nothing_comes_with_waits_for_what_may_come() {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(at(0)))));
        let mut runner = Runner::new(Decide::default(), log);
        let mark = Mark { source: 0, of: 9, through: at(0), pane_ms: 5_000, records: 0, late: 0, rejected: 0, repeated: 0 };
        let value = wire::encode(&Message::Signal(Signal::Mark(mark)));
        let read = |offset| {
            let record = RawRecord { partition: 0, offset, at: at(0), key: None, content_type: None, value: value.clone() };
            Polled::Records { partition: 0, records: vec![record] }
        };
        let take = |runner: &mut Runner<Decide>, polled: Polled, ms| runner.take(&mut VecDeque::from([polled]), at(ms), &BTreeMap::new()).unwrap();
        let bare = |batch: Option<Arc<Batch>>| batch.map(|batch| (batch.position, batch.appends.len() + batch.states.len()));
        take(&mut runner, Polled::Assigned { partition: 0, position: 0 }, 0);
        while let Some(first) = runner.next_batch(at(0)) {
            assert!(!first.states.is_empty(), "the first round: {first:?}");
            runner.confirmed(0);
        }
        assert_eq!(runner.wakes_at(at(0)), None);
        for (offset, ms) in [(0, 1_000), (1, 1_150)] {
            take(&mut runner, read(offset), ms);
            assert_eq!(runner.next_batch(at(ms)), None);
            assert_eq!(runner.wakes_at(at(ms)), Some(at(1_200)), "of the first of them");
        }
        assert_eq!(bare(runner.next_batch(at(1_200))), Some((Some(2), 0)));
        runner.confirmed(0);
        assert_eq!((runner.next_batch(at(1_200)), runner.wakes_at(at(1_200))), (None, None));
        // What comes of a later record takes it along at once; and a clock that is set back lets it wait no longer.
        take(&mut runner, read(2), 2_000);
        assert_eq!(runner.next_batch(at(2_000)), None);
        take(&mut runner, Polled::Gap { partition: 0, from: 3, to: 5 }, 2_001);
        assert!(matches!(bare(runner.next_batch(at(2_001))), Some((Some(5), 1..))));
        runner.confirmed(0);
        take(&mut runner, read(5), 3_000);
        assert_eq!(runner.next_batch(at(3_000)), None);
        assert_eq!(bare(runner.next_batch(at(0))), Some((Some(6), 0)));
    }
}
