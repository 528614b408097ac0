//! A log that fails as real ones do: [`FaultyLog`] stands before the memory log and lets calls fail, each in the way that
//! was planned.
//!
//! What belongs to a log's own order (markers, an open transaction, retention, its clock) is the memory log's; here is
//! what a caller is told.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadline::log::memory::MemoryLog;
use loadline::log::{Batch, End, Follower, Log, LogError, Membership, Offset, Polled, RawAppend, RawRecord, Session, Topic, Waker};
use loadline::model::Timestamp;

use super::scenario::How;

/// What is planned to go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// The next commits of a group.
    pub commits: BTreeMap<&'static str, VecDeque<How>>,
    /// How many of the next polls of a group fail.
    pub polls: BTreeMap<&'static str, usize>,
    /// How many records the clients of a group have at a time, at most.
    pub fetches: BTreeMap<&'static str, usize>,
    /// The next appends of sources.
    pub appends: VecDeque<How>,
    /// Nothing can be read.
    pub unreadable: bool,
    /// Nothing can be written.
    pub full: bool,
    /// The most bytes of a record.
    pub most_bytes: Option<usize>,
    /// How often each kind of failure was met, for the statistics.
    pub met: BTreeMap<&'static str, u64>,
}

impl Faults {
    fn met(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn check_read(&mut self) -> Result<(), LogError> {
        if self.unreadable {
            self.met("unreadable");
            return Err(LogError::Retry { reason: "planned: it cannot be read".to_owned() });
        }
        Ok(())
    }

    fn check_write(&mut self, appends: &[RawAppend]) -> Result<(), LogError> {
        if let Some(most) = self.most_bytes {
            for append in appends {
                let bytes = append.value.len() + append.key.as_ref().map_or(0, String::len);
                if bytes > most {
                    self.met("too large");
                    return Err(LogError::TooLarge { topic: append.topic, bytes });
                }
            }
        }
        if self.full {
            self.met("full");
            return Err(LogError::Retry { reason: "planned: the disk is full".to_owned() });
        }
        Ok(())
    }
}

/// Does a write as planned.
fn fail<T>(how: Option<How>, faults: &mut Faults, write: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    let unknown = || LogError::Unknown { reason: "planned: the answer was lost".to_owned() };
    match how {
        None => write(),
        Some(How::Refused) => {
            faults.met("refused");
            Err(LogError::Retry { reason: "planned: refused".to_owned() })
        }
        Some(How::UnknownNotDone) => {
            faults.met("unknown, not done");
            Err(unknown())
        }
        Some(How::UnknownDone) => {
            faults.met("unknown, done");
            write()?;
            Err(unknown())
        }
    }
}

/// The memory log behind the planned faults.
#[derive(Clone)]
pub struct FaultyLog {
    inner: MemoryLog,
    faults: Arc<Mutex<Faults>>,
    /// A commit of this process was answered.
    answered: Arc<AtomicBool>,
}

impl FaultyLog {
    /// Before `inner`, with nothing planned.
    pub fn new(inner: MemoryLog) -> Self {
        FaultyLog { inner, faults: Arc::default(), answered: Arc::default() }
    }

    /// The same log, as another process has it.
    #[must_use]
    pub fn of_another_process(&self) -> Self {
        FaultyLog { answered: Arc::default(), ..self.clone() }
    }

    /// Its process died.
    pub fn died(&self) {
        self.answered.store(false, Ordering::SeqCst);
    }

    /// What is planned.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for FaultyLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
        let (group, topic) = (membership.group, membership.topic);
        Ok(Box::new(FaultySession { inner: self.inner.join(membership)?, group, topic, log: self.clone(), owned: BTreeMap::new() }))
    }

    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        self.inner.follow(topic, from)
    }

    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        let mut faults = self.faults();
        faults.check_write(&appends)?;
        let how = faults.appends.pop_front();
        fail(how, &mut faults, || self.inner.append(appends))
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.faults().check_read()?;
        self.inner.range(topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.faults().check_read()?;
        self.inner.scan(topic, partition, from, max)
    }

    fn leaves_gaps(&self) -> bool {
        self.inner.leaves_gaps()
    }

    /// A client of a broker knows its clock from the answers to its own writes alone.
    fn reached(&self) -> Timestamp {
        if self.inner.leaves_gaps() && !self.answered.load(Ordering::SeqCst) { Timestamp::MIN } else { self.inner.reached() }
    }

    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.faults().check_read()?;
        self.inner.states(group, partition)
    }

    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.faults().check_read()?;
        self.inner.committed(group, topic, partition)
    }

    fn close(&self) {
        self.inner.close();
    }
}

struct FaultySession {
    inner: Box<dyn Session>,
    group: &'static str,
    topic: Topic,
    log: FaultyLog,
    owned: BTreeMap<u32, Owned>,
}

/// How far a partition was read, and the end of it that was asked for.
struct Owned {
    next: Offset,
    end: Option<Offset>,
}

impl FaultySession {
    /// Whether nothing that can be read stands between what was read and an end: behind a transaction's marker there is none.
    fn is_read_to(&self, partition: u32, next: Offset, end: Offset) -> Result<bool, LogError> {
        let following = self.log.inner.scan(self.topic, partition, next, 1)?;
        Ok(following.first().is_none_or(|record| record.offset >= end))
    }
}

impl Session for FaultySession {
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError> {
        let mut faults = self.log.faults();
        faults.check_read()?;
        if let Some(left) = faults.polls.get_mut(self.group).filter(|left| **left > 0) {
            *left -= 1;
            faults.met("polls that failed");
            return Err(LogError::Retry { reason: "planned: a poll failed".to_owned() });
        }
        let most = faults.fetches.get(self.group).copied();
        drop(faults);
        let polled = self.inner.poll(most.map_or(max, |most| most.min(max)), wait)?;
        for event in &polled {
            match event {
                Polled::Assigned { partition, position } => drop(self.owned.insert(*partition, Owned { next: *position, end: None })),
                Polled::Revoked { partition } => drop(self.owned.remove(partition)),
                Polled::Gap { partition, to, .. } => {
                    if let Some(owned) = self.owned.get_mut(partition) {
                        owned.next = *to;
                    }
                }
                Polled::Records { partition, records } => {
                    if let (Some(owned), Some(last)) = (self.owned.get_mut(partition), records.last()) {
                        owned.next = last.offset + 1;
                    }
                }
            }
        }
        Ok(polled)
    }

    /// As a broker's client: an end is asked for, and reached by what is polled then or later.
    fn has_read_to(&mut self, end: End) -> Result<bool, LogError> {
        self.log.faults().check_read()?;
        if !self.log.leaves_gaps() {
            return self.inner.has_read_to(end);
        }
        for (partition, owned) in &mut self.owned {
            if end == End::Now || owned.end.is_none() {
                owned.end = Some(self.log.inner.range(self.topic, *partition)?.end);
            }
        }
        for (partition, owned) in &self.owned {
            if !self.is_read_to(*partition, owned.next, owned.end.unwrap_or(owned.next))? {
                self.log.faults().met("ends that were not reached");
                return Ok(false);
            }
        }
        self.owned.values_mut().for_each(|owned| owned.end = None);
        self.inner.has_read_to(end)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
        let mut faults = self.log.faults();
        faults.check_write(&batch.appends)?;
        let how = faults.commits.get_mut(self.group).and_then(VecDeque::pop_front);
        fail(how, &mut faults, || self.inner.commit(batch))?;
        self.log.answered.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}
