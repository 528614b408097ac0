//! The session that the logs of one process share: it reads ahead of what is committed, and leaves
//! storing and fencing to the log's [`Store`]; and the follower, which reads outside of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::coordinator::{Committer, Coordinator};
use super::groups::SessionId;
use super::read_through::Questions;
use super::{Batch, Follower, LogError, Membership, Moment, Offset, Polled, RawRecord, Session, Topic, Waker};
use crate::runtime::clock::Stopwatch;

/// What a session needs of the log's storage.
pub(super) trait Store: Send + Sync + 'static {
    /// As [`super::Log::range`].
    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError>;
    /// As [`super::Log::scan`].
    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError>;
    /// As [`super::Log::leaves_gaps`].
    fn leaves_gaps(&self) -> bool {
        false
    }
    /// The next offset to be appended, with what readers do not see yet.
    fn end(&self, topic: Topic, partition: u32) -> Result<Offset, LogError> {
        Ok(self.range(topic, partition)?.end)
    }
    /// As [`super::Log::committed`].
    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError>;
    /// As [`Session::commit`]; whether `committer` may is checked inside of the commit.
    fn commit(&self, committer: Committer, batch: &Batch) -> Result<(), LogError>;
}

/// A member of a group.
pub(super) struct Member<S: Store> {
    store: Arc<S>,
    coordinator: Arc<Coordinator>,
    committer: Committer,
    /// Partitions given by the group whose position was not read yet.
    given: BTreeSet<u32>,
    /// Where the others are read on.
    places: Places,
    /// Partitions of which nothing is handed out.
    held_back: BTreeSet<u32>,
    questions: Questions,
}

impl<S: Store> Member<S> {
    /// Joins a group.
    pub(super) fn join(store: Arc<S>, coordinator: Arc<Coordinator>, membership: &Membership, partitions: u32) -> Result<Self, LogError> {
        let session = coordinator.join(membership, partitions)?;
        let committer = Committer { session, group: membership.group, topic: membership.topic };
        Ok(Member {
            store,
            coordinator,
            committer,
            given: BTreeSet::new(),
            places: Places::default(),
            held_back: BTreeSet::new(),
            questions: Questions::default(),
        })
    }

    /// Positions of partitions that are new, then at most `max` records.
    fn fill(&mut self, max: usize, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        let Committer { group, topic, .. } = self.committer;
        while let Some(&partition) = self.given.first() {
            let position = match self.store.committed(group, topic, partition)? {
                Some(position) => position,
                None => self.store.range(topic, partition)?.start,
            };
            self.given.remove(&partition);
            self.held_back.remove(&partition);
            self.places.next.insert(partition, position);
            polled.push(Polled::Assigned { partition, position });
        }
        self.places.read(&*self.store, topic, &self.held_back, max, polled)
    }
}

/// Where a reader is.
#[derive(Default)]
struct Places {
    /// The next offset of each partition.
    next: BTreeMap<u32, Offset>,
    /// The partition to read first, so that a full one does not starve the others.
    first: u32,
}

impl Places {
    /// Reads at most `max` records of all partitions but `not`.
    fn read<S: Store>(&mut self, store: &S, topic: Topic, not: &BTreeSet<u32>, max: usize, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        let mut left = max;
        let order: Vec<u32> = self.next.range(self.first..).chain(self.next.range(..self.first)).map(|(partition, _)| *partition).collect();
        for partition in order.into_iter().filter(|partition| !not.contains(partition)) {
            let Some(next) = self.next.get_mut(&partition) else { continue };
            left -= read(store, topic, partition, next, left, polled)?;
            if left == 0 {
                self.first = partition + 1;
                break;
            }
        }
        Ok(())
    }
}

/// Reads one partition from `next` on, and moves `next`. The number of records that came.
fn read<S: Store>(store: &S, topic: Topic, partition: u32, next: &mut Offset, max: usize, polled: &mut Vec<Polled>) -> Result<usize, LogError> {
    let range = store.range(topic, partition)?;
    let mut skip_to = |next: &mut Offset, to: Offset| {
        if *next < to {
            polled.push(Polled::Gap { partition, from: *next, to });
            *next = to;
        }
    };
    skip_to(next, range.start);
    if *next >= range.end || max == 0 {
        return Ok(0);
    }
    let mut records = store.scan(topic, partition, *next, max)?;
    let Some(first) = records.first().map(|first| first.offset) else {
        // Trimmed since `range` was read, or damaged and cut out.
        if !store.leaves_gaps() {
            skip_to(next, range.end);
        }
        return Ok(0);
    };
    if store.leaves_gaps() {
        // Records may have been trimmed since `range` was read; else the log left these offsets empty.
        if *next < first {
            skip_to(next, store.range(topic, partition)?.start.min(first));
        }
        *next = records.last().map_or(first, |last| last.offset) + 1;
    } else {
        skip_to(next, first);
        // What lies behind a gap comes with the next poll, after the gap was told.
        let together = (first..).zip(&records).take_while(|(offset, record)| record.offset == *offset).count();
        records.truncate(together);
        *next = first + together as Offset;
    }
    let count = records.len();
    polled.push(Polled::Records { partition, records });
    Ok(count)
}

/// Whether who reads on at `next` has read to `end`: behind the last record a log may leave offsets empty.
fn is_read_to<S: Store>(store: &S, topic: Topic, partition: u32, next: Offset, end: Offset) -> Result<bool, LogError> {
    if next >= end || !store.leaves_gaps() {
        return Ok(next >= end);
    }
    let seen = store.range(topic, partition)?.end;
    Ok(store.scan(topic, partition, next, 1)?.first().map_or(seen, |following| following.offset) >= end)
}

impl<S: Store> Session for Member<S> {
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError> {
        let started = Stopwatch::start();
        let mut polled = Vec::new();
        loop {
            let turn = self.coordinator.turn(self.committer.session)?;
            for partition in turn.changes.revoked {
                self.questions.forget(partition);
                // One whose position was never read was never announced either.
                if !self.given.remove(&partition) && self.places.next.remove(&partition).is_some() {
                    polled.push(Polled::Revoked { partition });
                }
            }
            self.given.extend(turn.changes.assigned);
            match self.fill(max, &mut polled) {
                Err(error) if polled.is_empty() => return Err(error),
                // What is there is told first; what failed will fail again at the next poll.
                _ => {}
            }
            let left = wait.saturating_sub(started.elapsed());
            if !polled.is_empty() || turn.woken || left.is_zero() {
                return Ok(polled);
            }
            self.coordinator.wait(self.committer.session, left);
        }
    }

    fn hold_back(&mut self, partition: u32, on: bool) {
        if on {
            self.held_back.insert(partition);
        } else {
            self.held_back.remove(&partition);
        }
    }

    fn read_through(&mut self, now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError> {
        let (store, topic, questions) = (&*self.store, self.committer.topic, &mut self.questions);
        let mut through = BTreeMap::new();
        for (&partition, &next) in &self.places.next {
            let before = questions.answer(partition, |end| is_read_to(store, topic, partition, next, end))?;
            if let Some(known) = questions.known(partition, now).filter(|_| !due(partition)) {
                through.insert(partition, known);
                continue;
            }
            if !questions.is_open(partition) {
                questions.told(partition, now, store.end(topic, partition)?);
            }
            let answer = questions.answer(partition, |end| is_read_to(store, topic, partition, next, end))?;
            through.extend(answer.or(before).map(|moment| (partition, moment)));
        }
        Ok(through)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.store.commit(self.committer, batch)
    }

    fn waker(&self) -> Waker {
        let (coordinator, session) = (Arc::clone(&self.coordinator), self.committer.session);
        Waker::new(move || coordinator.wake(session))
    }
}

impl<S: Store> Drop for Member<S> {
    fn drop(&mut self) {
        self.coordinator.leave(self.committer.session);
    }
}

/// Reads a topic outside of any group.
pub(super) struct Following<S: Store> {
    store: Arc<S>,
    coordinator: Arc<Coordinator>,
    session: SessionId,
    topic: Topic,
    places: Places,
}

impl<S: Store> Following<S> {
    /// Follows all `partitions` of a topic.
    pub(super) fn begin(store: Arc<S>, coordinator: Arc<Coordinator>, topic: Topic, from: &BTreeMap<u32, Offset>, partitions: u32) -> Result<Self, LogError> {
        let session = coordinator.follow(topic)?;
        let next = (0..partitions).map(|partition| (partition, from.get(&partition).copied().unwrap_or(0))).collect();
        Ok(Following { store, coordinator, session, topic, places: Places { next, first: 0 } })
    }
}

impl<S: Store> Follower for Following<S> {
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError> {
        let started = Stopwatch::start();
        let mut polled = Vec::new();
        loop {
            let woken = self.coordinator.look(self.session)?;
            match self.places.read(&*self.store, self.topic, &BTreeSet::new(), max, &mut polled) {
                Err(error) if polled.is_empty() => return Err(error),
                // What is there is told first; what failed will fail again at the next poll.
                _ => {}
            }
            let left = wait.saturating_sub(started.elapsed());
            if !polled.is_empty() || woken || left.is_zero() {
                return Ok(polled);
            }
            self.coordinator.wait(self.session, left);
        }
    }

    fn waker(&self) -> Waker {
        let (coordinator, session) = (Arc::clone(&self.coordinator), self.session);
        Waker::new(move || coordinator.wake(session))
    }
}

impl<S: Store> Drop for Following<S> {
    fn drop(&mut self) {
        self.coordinator.leave(self.session);
    }
}
