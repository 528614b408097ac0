//! A log in memory, for tests and simulations: nothing is durable beyond the process, but a
//! "killed" log can be opened again on the same records, and a commit can be made to fail.
//!
//! It keeps every promise of the port in the same way as the embedded log, with which it shares
//! membership, fencing and sessions. With [`MemoryLog::with_markers`] it leaves gaps between offsets,
//! as a broker does.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::coordinator::{Committer, Coordinator, Touched, closed, lock};
use super::member::{Following, Member, Store};
use super::{Batch, Follower, Log, LogError, Membership, Offset, Partitions, RawAppend, RawRecord, Session, Topic};
use crate::model::Timestamp;
use crate::runtime::clock::Clock;

/// A log in memory. Clones are handles of the same log.
#[derive(Clone)]
pub struct MemoryLog {
    store: Arc<MemoryStore>,
    coordinator: Arc<Coordinator>,
}

/// How a commit is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`LogError::Retry`], and nothing happened.
    Refused,
    /// [`LogError::Unknown`], and nothing happened.
    UnknownNotDone,
    /// [`LogError::Unknown`], and the commit took effect.
    UnknownDone,
}

impl MemoryLog {
    /// An empty log, whose records get their time from `clock`.
    pub fn new(partitions: Partitions, clock: Arc<dyn Clock>) -> Self {
        MemoryLog::over(Arc::default(), partitions, clock, 0)
    }

    /// From now on, whatever is appended to a partition at once takes one offset more than it has records, as a
    /// transaction on a broker does for its marker: offsets still count up, but not without gaps. Also holds for what is
    /// opened again.
    #[must_use]
    pub fn with_markers(self) -> Self {
        lock(&self.store.data).markers = true;
        self
    }

    /// A new log on the same records, states and positions, as after a kill and a restart: this one
    /// is closed, and a commit of its sessions that is still under way comes too late.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.coordinator.close();
        let incarnation = {
            let mut data = lock(&self.store.data);
            data.incarnation += 1;
            data.incarnation
        };
        MemoryLog::over(Arc::clone(&self.store.data), self.store.partitions, Arc::clone(&self.store.clock), incarnation)
    }

    /// Makes the next commit that gets so far (not append) fail; faults wait in order.
    pub fn inject(&self, fault: Fault) {
        lock(&self.store.faults).push_back(fault);
    }

    /// Deletes the records before `before`. The earliest offset afterwards.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the partition does not exist, or the log is closed.
    pub fn trim(&self, topic: Topic, partition: u32, before: Offset) -> Result<Offset, LogError> {
        self.coordinator.check_open()?;
        self.store.partitions.check(topic, partition)?;
        Ok(lock(&self.store.data).partition(topic, partition).trim(before))
    }

    /// Hides from all readers what is appended to a partition from now on, until [`MemoryLog::release`]: as a broker does
    /// with what comes after the open transaction of somebody who stalled.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the partition does not exist, or the log is closed.
    pub fn hold(&self, topic: Topic, partition: u32) -> Result<(), LogError> {
        self.coordinator.check_open()?;
        self.store.partitions.check(topic, partition)?;
        let mut data = lock(&self.store.data);
        let records = data.partition(topic, partition);
        records.held = records.held.or(Some(records.end));
        Ok(())
    }

    /// Shows to readers again what [`MemoryLog::hold`] hid.
    pub fn release(&self, topic: Topic, partition: u32) {
        if let Some(records) = lock(&self.store.data).records.get_mut(&(topic, partition)) {
            records.held = None;
        }
        self.coordinator.finish(&[], &[(topic, partition)].into());
    }

    fn over(data: Arc<Mutex<Data>>, partitions: Partitions, clock: Arc<dyn Clock>, incarnation: u64) -> Self {
        let coordinator = Arc::<Coordinator>::default();
        let store = MemoryStore { data, incarnation, partitions, clock, faults: Mutex::default(), coordinator: Arc::clone(&coordinator) };
        MemoryLog { store: Arc::new(store), coordinator }
    }
}

impl Log for MemoryLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.store.partitions.of(topic)
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
        let partitions = self.partitions(membership.topic);
        Ok(Box::new(Member::join(Arc::clone(&self.store), Arc::clone(&self.coordinator), &membership, partitions)?))
    }

    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        let partitions = self.partitions(topic);
        Ok(Box::new(Following::begin(Arc::clone(&self.store), Arc::clone(&self.coordinator), topic, from, partitions)?))
    }

    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        self.coordinator.check_open()?;
        self.store.partitions.check_appends(&appends)?;
        let touched = touched(&appends);
        let offsets = self.store.live_data()?.append(appends, &*self.store.clock);
        self.coordinator.finish(&[], &touched);
        Ok(offsets)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.coordinator.check_open()?;
        self.store.range(topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.coordinator.check_open()?;
        self.store.scan(topic, partition, from, max)
    }

    fn leaves_gaps(&self) -> bool {
        self.store.leaves_gaps()
    }

    fn reached(&self) -> Timestamp {
        self.store.clock.now()
    }

    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.coordinator.check_open()?;
        let data = lock(&self.store.data);
        let states = data.states.get(&(group.to_owned(), partition));
        Ok(states.map_or_else(Vec::new, |states| states.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }

    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.coordinator.check_open()?;
        self.store.committed(group, topic, partition)
    }

    fn close(&self) {
        self.coordinator.close();
    }
}

/// The storage behind a [`MemoryLog`].
struct MemoryStore {
    data: Arc<Mutex<Data>>,
    /// Which life of the data this handle belongs to.
    incarnation: u64,
    partitions: Partitions,
    clock: Arc<dyn Clock>,
    faults: Mutex<VecDeque<Fault>>,
    coordinator: Arc<Coordinator>,
}

#[derive(Default)]
struct Data {
    incarnation: u64,
    /// Whether each append leaves a gap behind it.
    markers: bool,
    records: BTreeMap<(Topic, u32), Records>,
    positions: BTreeMap<(String, Topic, u32), Offset>,
    states: BTreeMap<(String, u32), BTreeMap<String, Vec<u8>>>,
}

/// One partition.
#[derive(Default)]
struct Records {
    earliest: Offset,
    /// The offset of the next record.
    end: Offset,
    /// Readers see nothing from here on.
    held: Option<Offset>,
    /// In the order of their offsets, which may have gaps.
    list: VecDeque<RawRecord>,
}

impl Records {
    fn trim(&mut self, before: Offset) -> Offset {
        self.list.drain(..self.index(before));
        self.earliest = self.earliest.max(before.min(self.end));
        self.earliest
    }

    /// The offset up to which readers see records.
    fn visible_end(&self) -> Offset {
        self.held.unwrap_or(self.end).max(self.earliest)
    }

    /// Where the first record at `from` or after it stands in the list.
    fn index(&self, from: Offset) -> usize {
        self.list.partition_point(|record| record.offset < from)
    }
}

impl Data {
    fn partition(&mut self, topic: Topic, partition: u32) -> &mut Records {
        self.records.entry((topic, partition)).or_default()
    }

    fn append(&mut self, appends: Vec<RawAppend>, clock: &dyn Clock) -> Vec<Offset> {
        let at: Timestamp = clock.now();
        let touched = touched(&appends);
        let offsets = appends
            .into_iter()
            .map(|RawAppend { topic, partition, key, value }| {
                let records = self.partition(topic, partition);
                let offset = records.end;
                records.end += 1;
                records.list.push_back(RawRecord { partition, offset, at, key, content_type: None, value });
                offset
            })
            .collect();
        if self.markers {
            touched.into_iter().for_each(|(topic, partition)| self.partition(topic, partition).end += 1);
        }
        offsets
    }

    fn apply(&mut self, committer: Committer, batch: &Batch, clock: &dyn Clock) {
        self.append(batch.appends.clone(), clock);
        if let Some(position) = batch.position {
            self.positions.insert((committer.group.to_owned(), committer.topic, batch.partition), position);
        }
        let states = self.states.entry((committer.group.to_owned(), batch.partition)).or_default();
        for put in &batch.states {
            match &put.value {
                Some(value) => states.insert(put.key.clone(), value.clone()),
                None => states.remove(&put.key),
            };
        }
    }
}

impl MemoryStore {
    /// The data, where this handle was not replaced by [`MemoryLog::reopen`].
    fn live_data(&self) -> Result<std::sync::MutexGuard<'_, Data>, LogError> {
        let data = lock(&self.data);
        if data.incarnation == self.incarnation { Ok(data) } else { Err(closed()) }
    }

    fn try_commit(&self, committer: Committer, batch: &Batch) -> Result<(), LogError> {
        let unknown = || LogError::Unknown { reason: "injected".to_owned() };
        let fault = lock(&self.faults).pop_front();
        match fault {
            Some(Fault::Refused) => return Err(LogError::Retry { reason: "injected".to_owned() }),
            Some(Fault::UnknownNotDone) => return Err(unknown()),
            Some(Fault::UnknownDone) => {
                self.live_data()?.apply(committer, batch, &*self.clock);
                return Err(unknown());
            }
            None => {}
        }
        self.live_data()?.apply(committer, batch, &*self.clock);
        Ok(())
    }
}

impl Store for MemoryStore {
    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.partitions.check(topic, partition)?;
        Ok(lock(&self.data).records.get(&(topic, partition)).map_or(0..0, |records| records.earliest..records.visible_end()))
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.partitions.check(topic, partition)?;
        let data = lock(&self.data);
        let Some(records) = data.records.get(&(topic, partition)) else { return Ok(Vec::new()) };
        let end = records.visible_end();
        Ok(records.list.range(records.index(from)..).take_while(|record| record.offset < end).take(max).cloned().collect())
    }

    fn leaves_gaps(&self) -> bool {
        lock(&self.data).markers
    }

    fn end(&self, topic: Topic, partition: u32) -> Result<Offset, LogError> {
        Ok(lock(&self.data).records.get(&(topic, partition)).map_or(0, |records| records.end))
    }

    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        Ok(lock(&self.data).positions.get(&(group.to_owned(), topic, partition)).copied())
    }

    fn commit(&self, committer: Committer, batch: &Batch) -> Result<(), LogError> {
        self.partitions.check_appends(&batch.appends)?;
        self.coordinator.begin(committer, batch.partition)?;
        let outcome = self.try_commit(committer, batch);
        self.coordinator.finish(&[(committer.group, batch.partition)], &touched(&batch.appends));
        outcome
    }
}

fn touched(appends: &[RawAppend]) -> Touched {
    appends.iter().map(|append| (append.topic, append.partition)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::log::{Moment, Polled};
    use crate::runtime::clock::ManualClock;

    fn log() -> MemoryLog {
        MemoryLog::new(Partitions::default(), Arc::new(ManualClock::default()))
    }

    fn moment(ms: i64) -> Moment {
        let at = Timestamp::from_millis(ms);
        Moment { at, log: at }
    }

    fn session(log: &MemoryLog) -> Box<dyn Session> {
        let mut session = log.join(Membership { group: "decide", member: "a".to_owned(), topic: Topic::Signals }).unwrap();
        session.poll(0, Duration::ZERO).unwrap();
        session
    }

    fn batch() -> Batch {
        let append = RawAppend { topic: Topic::Audit, partition: 0, key: None, value: Vec::new() };
        Batch { position: Some(7), appends: vec![append], ..Batch::default() }
    }

    #[test]
    fn faults_come_in_their_order_and_take_effect_or_not() {
        let log = log();
        let mut session = session(&log);
        let seen = || (log.committed("decide", Topic::Signals, 0).unwrap(), log.range(Topic::Audit, 0).unwrap().end);
        for fault in [Fault::Refused, Fault::UnknownNotDone, Fault::UnknownDone] {
            log.inject(fault);
        }
        assert!(matches!(session.commit(&batch()), Err(LogError::Retry { .. })));
        assert!(matches!(session.commit(&batch()), Err(LogError::Unknown { .. })));
        assert_eq!(seen(), (None, 0));
        assert!(matches!(session.commit(&batch()), Err(LogError::Unknown { .. })));
        assert_eq!(seen(), (Some(7), 1));
        session.commit(&batch()).unwrap();
        assert_eq!(seen(), (Some(7), 2));
    }

    #[test]
    fn markers_leave_gaps_which_are_nobodys_loss() {
        let log = log().with_markers();
        let mut session = session(&log);
        let append = |value: &[u8]| RawAppend { topic: Topic::Signals, partition: 0, key: None, value: value.to_vec() };
        assert_eq!(log.append(vec![append(b"a"), append(b"b")]).unwrap(), [0, 1]);
        session.commit(&Batch { appends: vec![append(b"c")], ..Batch::default() }).unwrap();
        assert_eq!(log.reopen().append(vec![append(b"d")]).unwrap(), [5]);
        let log = log.reopen();
        assert_eq!(log.range(Topic::Signals, 0).unwrap(), 0..7);
        let offsets = |from| log.scan(Topic::Signals, 0, from, 2).unwrap().iter().map(|record| record.offset).collect::<Vec<_>>();
        assert_eq!([offsets(0), offsets(2), offsets(4), offsets(6)], [vec![0, 1], vec![3, 5], vec![5], vec![]]);
        let mut session = log.join(Membership { group: "decide", member: "a".to_owned(), topic: Topic::Signals }).unwrap();
        let polled: Vec<_> = (0..4).flat_map(|_| session.poll(1, Duration::ZERO).unwrap()).collect();
        assert!(!polled.iter().any(|polled| matches!(polled, Polled::Gap { .. })), "{polled:?}");
        assert_eq!(log.trim(Topic::Signals, 0, 3).unwrap(), 3);
        assert_eq!(log.trim(Topic::Signals, 0, 99).unwrap(), 7);
    }

    #[test]
    fn what_comes_after_an_open_transaction_is_seen_when_it_ends() {
        let log = log();
        let append = || log.append(vec![RawAppend { topic: Topic::Signals, partition: 0, key: None, value: Vec::new() }]).unwrap();
        let mut session = session(&log);
        append();
        log.hold(Topic::Signals, 0).unwrap();
        append();
        let seen = |session: &mut Box<dyn Session>| -> usize {
            let polled = session.poll(10, Duration::ZERO).unwrap();
            polled.iter().map(|p| if let Polled::Records { records, .. } = p { records.len() } else { 0 }).sum()
        };
        assert_eq!((seen(&mut session), seen(&mut session)), (1, 0));
        assert_eq!(session.read_through(moment(1), &|_| true).unwrap(), BTreeMap::new(), "one is hidden");
        assert_eq!((log.range(Topic::Signals, 0).unwrap(), log.scan(Topic::Signals, 0, 0, 10).unwrap().len()), (0..1, 1));
        log.release(Topic::Signals, 0);
        assert_eq!((seen(&mut session), log.range(Topic::Signals, 0).unwrap()), (1, 0..2));
        assert_eq!(session.read_through(moment(2), &|_| true).unwrap(), BTreeMap::from([(0, moment(2))]));
    }

    #[test]
    fn a_reopened_log_has_the_records_and_the_old_handle_is_closed() {
        let old = log();
        let mut zombie = session(&old);
        zombie.commit(&batch()).unwrap();
        let new = old.reopen();
        assert!(matches!(zombie.commit(&batch()), Err(LogError::Fatal { .. })));
        assert!(matches!(old.append(Vec::new()), Err(LogError::Fatal { .. })));
        assert_eq!(new.range(Topic::Audit, 0).unwrap(), 0..1);
        assert_eq!(new.committed("decide", Topic::Signals, 0).unwrap(), Some(7));
    }
}
