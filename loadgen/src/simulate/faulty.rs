//! A log that fails as real ones do: [`FaultyLog`] stands before the memory log and lets calls fail, each in the way that
//! was planned.
//!
//! What belongs to a log's own order (markers, an open transaction, retention, its clock) is the memory log's; here is
//! what a caller is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadline::log::memory::MemoryLog;
use loadline::log::{Batch, Follower, Log, LogError, Membership, Moment, Offset, Polled, RawAppend, RawRecord, Session, Topic, Waker};
use loadline::model::Timestamp;

use super::scenario::How;

/// What is planned to go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// The next commits of a group.
    pub commits: BTreeMap<&'static str, VecDeque<How>>,
    /// Groups whose commits take long: what is under way of others is told.
    pub slow: BTreeMap<&'static str, Slow>,
    /// How many of the next polls of a group fail.
    pub polls: BTreeMap<&'static str, usize>,
    /// What the clients of a group have of what there is.
    pub fetches: BTreeMap<&'static str, Fetched>,
    /// Partitions of a group whose states cannot be read.
    pub lost_states: BTreeSet<(&'static str, u32)>,
    /// Partitions that nobody leads, …
    pub headless: BTreeSet<(Topic, u32)>,
    /// … and those whose leader takes what comes before the next look, and is gone then.
    pub last_words: BTreeSet<(Topic, u32)>,
    /// The next appends of sources.
    pub appends: VecDeque<How>,
    /// Nothing can be read.
    pub unreadable: bool,
    /// Nothing can be written.
    pub full: bool,
    /// The most bytes of a record.
    pub most_bytes: Option<usize>,
    /// Behind the last record that any member of a group was handed of a partition.
    pub handed: BTreeMap<(&'static str, u32), Offset>,
    /// How often each kind of failure was met, for the statistics.
    pub met: BTreeMap<&'static str, u64>,
}

/// Commits that take long.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    /// For how many looks each is under way.
    pub looks: usize,
    /// How it fails in the end, where it does.
    pub how: Option<How>,
    /// How many of the next ones are such.
    pub count: usize,
}

/// What a group's clients have fetched, where that is little.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    /// How many records they get from one look to the next.
    pub a_look: usize,
    /// How many of these are left.
    pub left: usize,
}

impl Faults {
    /// A look begins: something was fetched meanwhile, and leaders are gone.
    pub fn look(&mut self) {
        self.headless.append(&mut self.last_words);
        self.fetches.values_mut().for_each(|fetches| fetches.left = fetches.a_look);
    }

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

    fn check_read_of(&mut self, topic: Topic, partition: u32) -> Result<(), LogError> {
        self.check_read()?;
        if self.headless.contains(&(topic, partition)) {
            return Err(LogError::Retry { reason: "planned: nobody leads it".to_owned() });
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
        if appends.iter().any(|append| self.headless.contains(&(append.topic, append.partition))) {
            self.met("appends to partitions that nobody leads");
            return Err(LogError::Retry { reason: "planned: nobody leads it".to_owned() });
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
        Ok(Box::new(FaultySession {
            inner: self.inner.join(membership)?,
            group,
            topic,
            log: self.clone(),
            owned: BTreeSet::new(),
            later: BTreeMap::new(),
            under_way: BTreeMap::new(),
        }))
    }

    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        self.inner.follow(topic, from)
    }

    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        let mut faults = self.faults();
        faults.check_write(&appends)?;
        let how = faults.appends.pop_front();
        // A broker takes each record for itself: what is told as unknown may be there in part.
        if how == Some(How::UnknownDone) && self.inner.leaves_gaps() && appends.len() > 1 {
            faults.met("unknown, done in part");
            self.inner.append(appends.into_iter().step_by(2).collect())?;
            return Err(LogError::Unknown { reason: "planned: the answer was lost".to_owned() });
        }
        fail(how, &mut faults, || self.inner.append(appends))
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.faults().check_read_of(topic, partition)?;
        self.inner.range(topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.faults().check_read_of(topic, partition)?;
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
        let mut faults = self.faults();
        faults.check_read()?;
        if faults.lost_states.iter().any(|(of, number)| *of == group && *number == partition) {
            faults.met("states that could not be read");
            return Err(LogError::Retry { reason: "planned: nobody leads its states".to_owned() });
        }
        drop(faults);
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
    owned: BTreeSet<u32>,
    /// What was polled of partitions that nobody leads, until somebody does.
    later: BTreeMap<u32, Vec<Polled>>,
    under_way: BTreeMap<u32, UnderWay>,
}

/// A commit that is under way.
struct UnderWay {
    batch: Batch,
    /// For so many looks.
    looks: usize,
    how: Option<How>,
    /// It took effect before that is told.
    landed: bool,
}

impl FaultySession {
    /// What can be handed out: in its order, of each partition.
    fn hand_out(&mut self, polled: Vec<Polled>) -> Vec<Polled> {
        let headless = self.log.faults().headless.clone();
        let mut out = Vec::new();
        for partition in self.later.keys().copied().collect::<Vec<_>>() {
            if !headless.contains(&(self.topic, partition)) {
                out.extend(self.later.remove(&partition).unwrap_or_default());
            }
        }
        for event in polled {
            match event {
                Polled::Revoked { partition } => {
                    let waits = self.later.remove(&partition).unwrap_or_default();
                    // Who was never told of a partition is not told of its loss.
                    if !matches!(waits.first(), Some(Polled::Assigned { .. })) {
                        out.push(event);
                    }
                }
                Polled::Records { partition, .. } | Polled::Gap { partition, .. } | Polled::Assigned { partition, .. }
                    if headless.contains(&(self.topic, partition)) =>
                {
                    self.log.faults().met("records of partitions that nobody leads");
                    self.later.entry(partition).or_default().push(event);
                }
                event => out.push(event),
            }
        }
        out
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
        let most = faults.fetches.get(self.group).map_or(max, |fetches| fetches.left.min(max));
        drop(faults);
        let polled = self.inner.poll(most, wait)?;
        let records: usize = polled.iter().map(|p| if let Polled::Records { records, .. } = p { records.len() } else { 0 }).sum();
        let mut faults = self.log.faults();
        if let Some(fetches) = faults.fetches.get_mut(self.group) {
            fetches.left -= records.min(fetches.left);
        }
        for record in polled.iter().flat_map(|p| if let Polled::Records { records, .. } = p { &records[..] } else { &[] }) {
            let handed = faults.handed.entry((self.group, record.partition)).or_default();
            *handed = (*handed).max(record.offset + 1);
        }
        drop(faults);
        for event in &polled {
            match event {
                Polled::Assigned { partition, .. } => drop(self.owned.insert(*partition)),
                Polled::Revoked { partition } => {
                    self.owned.remove(partition);
                    // What took effect did so before, and nobody hears of it.
                    self.under_way.remove(partition);
                }
                Polled::Records { .. } | Polled::Gap { .. } => {}
            }
        }
        Ok(self.hand_out(polled))
    }

    fn read_through(&mut self, now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError> {
        let mut faults = self.log.faults();
        faults.check_read()?;
        let headless = faults.headless.clone();
        drop(faults);
        let through = self.inner.read_through(now, due)?;
        let known = |partition: &u32| !headless.contains(&(self.topic, *partition)) && !self.later.contains_key(partition);
        let through: BTreeMap<u32, Moment> = through.into_iter().filter(|(partition, _)| known(partition)).collect();
        if through.len() < self.owned.len() {
            self.log.faults().met("ends that were not reached");
        }
        Ok(through)
    }

    fn hold_back(&mut self, partition: u32, on: bool) {
        self.inner.hold_back(partition, on);
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
        loop {
            match self.commit_soon(batch, false) {
                Err(LogError::UnderWay { .. }) => {}
                outcome => return outcome,
            }
        }
    }

    fn commit_soon(&mut self, batch: &Batch, _reads_on: bool) -> Result<(), LogError> {
        let under_way = || LogError::UnderWay { reason: "planned: it takes long".to_owned() };
        if let Some(before) = self.under_way.get_mut(&batch.partition) {
            if let Some(left) = before.looks.checked_sub(1).filter(|_| self.log.faults().slow.contains_key(self.group)) {
                before.looks = left;
                return Err(under_way());
            }
            let Some(UnderWay { batch, how, landed, .. }) = self.under_way.remove(&batch.partition) else { return Err(under_way()) };
            let mut faults = self.log.faults();
            faults.met(match how {
                None => "under way, done",
                Some(How::Refused) => "under way, not done",
                Some(How::UnknownNotDone) => "under way, then unknown, not done",
                Some(How::UnknownDone) => "under way, then unknown, done",
            });
            fail(how, &mut faults, || if landed { Ok(()) } else { self.inner.commit(&batch) })?;
            self.log.answered.store(true, Ordering::SeqCst);
            return Ok(());
        }
        let mut faults = self.log.faults();
        faults.check_write(&batch.appends)?;
        if let Some(Slow { looks, how, count }) = faults.slow.get_mut(self.group)
            && let Some(left) = count.checked_sub(1)
        {
            let (looks, how) = (*looks, *how);
            *count = left;
            let landed = matches!(how, None | Some(How::UnknownDone)) && looks % 2 == 0;
            if landed {
                self.inner.commit(batch)?;
            }
            self.under_way.insert(batch.partition, UnderWay { batch: batch.clone(), looks, how, landed });
            return Err(under_way());
        }
        let how = faults.commits.get_mut(self.group).and_then(VecDeque::pop_front);
        fail(how, &mut faults, || self.inner.commit(batch))?;
        self.log.answered.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}
