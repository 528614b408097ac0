//! A member of a stage's group as steps: its session and its runner, and what each error of the log means for them.
//!
//! Each step makes a call or two to the log and waits for nothing that the caller did not ask for, so that a driver, or a
//! simulation, can stop between any two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Batch, Log, LogError, Membership, Moment, Polled, Session, Waker};
use crate::model::Timestamp;
use crate::stages::Stage;

use super::runner::{Rounds, Runner};

/// One member of the group of `S`.
pub struct Worker<S: Stage> {
    log: Arc<dyn Log>,
    session: Box<dyn Session>,
    runner: Runner<S>,
    /// What was polled and could not be taken yet: it is not polled again.
    polled: VecDeque<Polled>,
    /// Whether the last poll brought as much as was asked for.
    full: bool,
    /// Up to when partitions have been read, as of the last poll.
    through: BTreeMap<u32, Moment>,
    /// Partitions whose last commit is of unknown outcome.
    unsettled: BTreeSet<u32>,
}

/// What a step of reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Nothing is new.
    Nothing,
    /// All that was there.
    All,
    /// As much as was asked for: more may be waiting.
    Full,
}

/// What a step of committing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// There is nothing to commit now.
    Nothing,
    /// A batch took effect.
    Done {
        /// Whether it held snapshots.
        states: bool,
    },
    /// A record of the batch can never be accepted; the batch goes on without it, with an alert.
    Refused,
    /// Another member has this partition now.
    Lost {
        /// The partition.
        partition: u32,
    },
}

impl<S: Stage> Worker<S> {
    /// Joins the group of the stage as `member`.
    ///
    /// # Errors
    /// As [`Log::join`].
    pub fn join(stage: S, log: Arc<dyn Log>, member: &str, rounds: Rounds) -> Result<Self, LogError> {
        let membership = Membership { group: S::NAME, member: member.to_owned(), topic: S::INPUT };
        let session = log.join(membership)?;
        let runner = Runner::with_rounds(stage, Arc::clone(&log), rounds);
        Ok(Worker { log, session, runner, polled: VecDeque::new(), full: false, through: BTreeMap::new(), unsettled: BTreeSet::new() })
    }

    /// Ends a waiting [`Worker::read`] from another thread.
    pub fn waker(&self) -> Waker {
        self.session.waker()
    }

    /// Polls at most `most` records, and folds them. `asked_at` is the time before the call.
    ///
    /// # Errors
    /// [`LogError::Retry`]: the same call again, later; nothing that was polled is lost. Any other ends this member.
    pub fn read(&mut self, asked_at: Timestamp, most: usize, wait: Duration) -> Result<Read, LogError> {
        if self.polled.is_empty() {
            let now = Moment { at: asked_at, log: self.log.reached() };
            self.polled = self.session.poll(most, wait)?.into();
            let records: usize = self.polled.iter().map(|p| if let Polled::Records { records, .. } = p { records.len() } else { 0 }).sum();
            self.full = records >= most;
            // Only a stage that says up to when everything is in needs to know; where it cannot be told now, it is not so.
            let through = if S::FLUSHES && !self.full { self.session.read_through(now) } else { Ok(BTreeMap::new()) };
            self.through = through.unwrap_or_default();
        }
        let nothing = self.polled.is_empty();
        self.runner.take(&mut self.polled, asked_at, &self.through)?;
        self.runner.lacking(&self.session.lacking(), asked_at);
        Ok(match self.full {
            _ if nothing => Read::Nothing,
            true => Read::Full,
            false => Read::All,
        })
    }

    /// Commits the next batch, where there is one.
    ///
    /// # Errors
    /// [`LogError::Retry`] and [`LogError::Unknown`]: the same call again, later, tries or settles the same batch. Any
    /// other ends this member.
    pub fn commit(&mut self, now: Timestamp) -> Result<Committed, LogError> {
        // Told, and not taken yet: what is held of such a partition is of the time before.
        for polled in &self.polled {
            if let Polled::Revoked { partition } = polled {
                self.runner.lost(*partition);
                self.unsettled.remove(partition);
            }
        }
        let Some(batch) = self.runner.next_batch(now) else { return Ok(Committed::Nothing) };
        if self.unsettled.contains(&batch.partition) && self.took_effect(&batch)? {
            return Ok(self.done(&batch));
        }
        match self.session.commit(&batch) {
            Ok(()) => Ok(self.done(&batch)),
            Err(LogError::TooLarge { topic, bytes }) => {
                let reason = LogError::TooLarge { topic, bytes }.to_string();
                tracing::error!(event = "record-put-aside", stage = S::NAME, reason, "a record was refused");
                self.runner.refused(batch.partition, topic, bytes, now);
                Ok(Committed::Refused)
            }
            Err(LogError::Fenced { partition, group }) => {
                tracing::warn!(event = "taken-over", stage = S::NAME, partition, group, "another member took over");
                self.runner.lost(batch.partition);
                self.unsettled.remove(&batch.partition);
                Ok(Committed::Lost { partition: batch.partition })
            }
            Err(error) => {
                if matches!(error, LogError::Unknown { .. }) {
                    self.unsettled.insert(batch.partition);
                }
                Err(error)
            }
        }
    }

    /// Lets the group go on while a commit cannot be done: who waits for a partition of this member, or has another one for it, would wait as long.
    ///
    /// # Errors
    /// As [`Worker::read`].
    pub fn look(&mut self) -> Result<(), LogError> {
        self.polled.extend(self.session.poll(0, Duration::ZERO)?);
        // Of the read before.
        self.through.clear();
        Ok(())
    }

    /// Whether a batch of unknown outcome took effect: the committed position tells. What moves no position (ticks, the
    /// state, an alert) may be repeated.
    fn took_effect(&mut self, batch: &Batch) -> Result<bool, LogError> {
        let committed = self.log.committed(S::NAME, S::INPUT, batch.partition)?;
        self.unsettled.remove(&batch.partition);
        Ok(batch.position.is_some() && committed == batch.position)
    }

    fn done(&mut self, batch: &Batch) -> Committed {
        self.unsettled.remove(&batch.partition);
        self.runner.confirmed(batch.partition);
        Committed::Done { states: !batch.states.is_empty() }
    }

    /// When [`Worker::commit`] will have something without any input.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.runner.wakes_at(now)
    }

    /// How many partitions this member owns.
    pub fn partitions(&self) -> usize {
        self.runner.partitions()
    }

    /// Begins a last snapshot round of every partition, so that a successor starts from here.
    pub fn hand_over(&mut self, now: Timestamp) {
        self.runner.hand_over(now);
    }

    /// The batch that the next commit would try, and the session to try it with: what a process that dies may leave
    /// under way. One of unknown outcome was sent before, and is settled before it is sent again.
    pub fn into_last_words(mut self, now: Timestamp) -> (Option<Batch>, Box<dyn Session>) {
        let batch = self.runner.next_batch(now).filter(|batch| !self.unsettled.contains(&batch.partition));
        (batch, self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{Lacking, Partitions, RawAppend, RawRecord, Topic};
    use crate::model::{Message, Order, PolicyAnnouncement, Signal};
    use crate::runtime::clock::{Clock, ManualClock};
    use crate::stages::aggregate::{Aggregate, Limits};
    use crate::stages::decide::Decide;
    use crate::wire;

    /// What its polls bring, in order. It has read to no end.
    struct Scripted {
        polls: VecDeque<Vec<Polled>>,
        lacking: Vec<(u32, Lacking)>,
        refuses: bool,
    }

    impl Session for Scripted {
        fn poll(&mut self, _max: usize, _wait: Duration) -> Result<Vec<Polled>, LogError> {
            Ok(self.polls.pop_front().unwrap_or_default())
        }

        fn read_through(&mut self, _now: Moment) -> Result<BTreeMap<u32, Moment>, LogError> {
            Ok(BTreeMap::new())
        }

        fn lacking(&self) -> Vec<(u32, Lacking)> {
            self.lacking.clone()
        }

        fn commit(&mut self, _batch: &Batch) -> Result<(), LogError> {
            if self.refuses { Err(LogError::Retry { reason: "nobody leads it".to_owned() }) } else { Ok(()) }
        }

        fn waker(&self) -> Waker {
            Waker::new(|| {})
        }
    }

    const NOW: i64 = 1_764_000_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(NOW + ms)
    }

    /// A member of aggregate's group, with panes of 5 s.
    fn worker(polls: Vec<Vec<Polled>>, lacking: Vec<(u32, Lacking)>) -> Worker<Aggregate> {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default().with(Topic::Metrics, 2), Arc::new(ManualClock::new(at(0)))));
        let session: Box<dyn Session> = Box::new(Scripted { polls: polls.into(), lacking, refuses: false });
        let pane = Duration::from_secs(5);
        let stage = Aggregate { pane, grace: Duration::ZERO, sources: log.partitions(Topic::Metrics), limits: Limits::default() };
        let runner = Runner::new(stage, Arc::clone(&log));
        Worker { log, session, runner, polled: VecDeque::new(), full: false, through: BTreeMap::new(), unsettled: BTreeSet::new() }
    }

    /// A pane that is over and cannot be complete, since its partition waits for a registry, is looked at again a moment later and not at once: no wait spins on a core.
    #[test]
    fn a_partition_that_waits_makes_nobody_spin() {
        let value = br#"{"target":"prod/Deployment/api","metric":"cpu","value":1}"#.to_vec();
        let record = RawRecord { partition: 0, offset: 0, at: at(0), key: None, content_type: None, value };
        let polls = vec![vec![Polled::Assigned { partition: 0, position: 0 }, Polled::Records { partition: 0, records: vec![record] }]];
        let lacks = Lacking { what: "the schema 7".to_owned(), reason: "it is down".to_owned(), mend: "start it".to_owned() };
        let mut worker = worker(polls, vec![(0, lacks)]);
        worker.read(at(0), 128, Duration::ZERO).unwrap();
        let due = worker.wakes_at(at(0)).unwrap();
        assert!(at(0) < due && due <= at(5_000), "the end of the pane: {due}");
        for ms in [5_000, 60_000] {
            worker.read(at(ms), 128, Duration::ZERO).unwrap();
            while worker.commit(at(ms)).unwrap() != Committed::Nothing {}
            let again = worker.wakes_at(at(ms)).unwrap();
            assert!(again > at(ms), "{again} is no wait at {}", at(ms));
        }
    }

    /// What cannot be written holds no group up: a partition that is taken meanwhile is let go, with what was to be written of it.
    #[test]
    fn a_partition_that_is_taken_while_its_commit_fails_is_let_go() {
        let value = br#"{"target":"prod/Deployment/api","metric":"cpu","value":1}"#.to_vec();
        let record = |partition, offset: u64, ms| RawRecord { partition, offset, at: at(ms), key: None, content_type: None, value: value.clone() };
        // Of more than a second, so that they are to be written.
        let given = |partition| {
            [Polled::Assigned { partition, position: 0 }, Polled::Records { partition, records: vec![record(partition, 0, 0), record(partition, 1, 1_500)] }]
        };
        let mut worker = worker(vec![[given(0), given(1)].concat()], Vec::new());
        worker.read(at(0), 128, Duration::ZERO).unwrap();
        // Given back at once, and not restored yet: what is held is of the time before.
        let polls = vec![vec![Polled::Revoked { partition: 0 }, Polled::Assigned { partition: 0, position: 0 }, Polled::Revoked { partition: 1 }]];
        worker.session = Box::new(Scripted { polls: polls.into(), lacking: Vec::new(), refuses: true });
        assert!(matches!(worker.commit(at(9_000)), Err(LogError::Retry { .. })));
        worker.look().unwrap();
        assert_eq!((worker.commit(at(9_000)).unwrap(), worker.partitions()), (Committed::Nothing, 0));
    }

    /// A partition without a target has nothing that waits: its clock costs no commit. With the first target it begins.
    #[test]
    fn ticks_come_where_something_waits_for_them() {
        let now = Timestamp::from_millis(1_764_000_000_000);
        let clock = Arc::new(ManualClock::new(now));
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default().with(Topic::Signals, 2), Arc::clone(&clock) as Arc<dyn Clock>));
        let mut worker = Worker::join(Decide::default(), Arc::clone(&log), "a", Rounds::default()).unwrap();
        let mut runs = |seconds: u64| {
            for _ in 0..seconds {
                worker.read(clock.now(), 100, Duration::ZERO).unwrap();
                while worker.commit(clock.now()).unwrap() != Committed::Nothing {}
                clock.advance(Duration::from_secs(1));
            }
            worker.wakes_at(clock.now())
        };
        let ticks = |partition: u32| {
            let records = log.scan(Topic::Signals, partition, 0, 100).unwrap();
            records.iter().filter(|record| matches!(wire::decode(Topic::Signals, &record.value), Ok(Message::Signal(Signal::Tick(_))))).count()
        };
        assert_eq!(runs(3), None, "nothing wakes it");
        assert_eq!((ticks(0), ticks(1)), (0, 0));
        let (target, order) = ("prod/Deployment/api".parse().unwrap(), Order { source: "f".to_owned(), generation: 1 });
        let policy = Message::Signal(Signal::Policy(PolicyAnnouncement { target, spec: None, order }));
        log.append(vec![RawAppend { topic: Topic::Signals, partition: 1, key: None, value: wire::encode(&policy) }]).unwrap();
        assert_eq!(runs(3), Some(clock.now()));
        assert_eq!((ticks(0), ticks(1)), (0, 3));
    }
}
