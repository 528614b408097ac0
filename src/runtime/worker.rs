//! A member of a stage's group as steps: its session and its runner, and what each error of the log means for them.
//!
//! Each step makes a call or two to the log and waits for nothing that the caller did not ask for, so that a driver, or a
//! simulation, can stop between any two.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Batch, End, Log, LogError, Membership, Polled, Session, Waker};
use crate::model::Timestamp;
use crate::stages::Stage;

use super::runner::{ReadToEnd, Rounds, Runner};

/// One member of the group of `S`.
pub struct Worker<S: Stage> {
    log: Arc<dyn Log>,
    session: Box<dyn Session>,
    runner: Runner<S>,
    /// What was polled and could not be taken yet: it is not polled again.
    polled: VecDeque<Polled>,
    /// When it was asked for the end that is not reached yet: everything before that is before it.
    asked: Option<ReadToEnd>,
    /// What the last poll told: up to when everything has been read.
    read_to_end: Option<ReadToEnd>,
    /// Partitions whose last commit is of unknown outcome.
    unsettled: BTreeSet<u32>,
}

/// For so long an end that was asked for is waited for. A later answer would take the partitions that went on meanwhile back to the time of the question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

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
        Ok(Worker { log, session, runner, polled: VecDeque::new(), asked: None, read_to_end: None, unsettled: BTreeSet::new() })
    }

    /// Ends a waiting [`Worker::read`] from another thread.
    pub fn waker(&self) -> Waker {
        self.session.waker()
    }

    /// Polls at most `most` records, and folds them. `asked_at` is the time before the call: where less than `most` came,
    /// everything up to then has been read.
    ///
    /// # Errors
    /// [`LogError::Retry`]: the same call again, later; nothing that was polled is lost. Any other ends this member.
    pub fn read(&mut self, asked_at: Timestamp, most: usize, wait: Duration) -> Result<Read, LogError> {
        if self.polled.is_empty() {
            self.asked = self.asked.filter(|asked| asked_at.since(asked.at) < ANSWER_WITHIN);
            let end = if self.asked.is_none() { End::Now } else { End::AsBefore };
            let asked = *self.asked.get_or_insert_with(|| ReadToEnd { at: asked_at, log: self.log.reached() });
            // Where the poll fails nobody was asked for an end as of `asked`, so it counts no more.
            self.polled = self.session.poll(most, wait).inspect_err(|_| self.asked = None)?.into();
            let records: usize = self.polled.iter().map(|p| if let Polled::Records { records, .. } = p { records.len() } else { 0 }).sum();
            // Only a stage that says up to when everything is in needs to know; where it cannot be told now, it is not so.
            let to_end = if records < most && S::FLUSHES { self.session.has_read_to(end) } else { Ok(records < most) };
            // What is far from its end, or could not be asked, is asked anew.
            if !matches!(to_end, Ok(false)) || records >= most {
                self.asked = None;
            }
            let to_end = matches!(to_end, Ok(true));
            self.read_to_end = to_end.then_some(asked);
        }
        let nothing = self.polled.is_empty();
        self.runner.take(&mut self.polled, asked_at, self.read_to_end)?;
        self.runner.waiting(&self.session.waiting(), asked_at);
        Ok(match self.read_to_end {
            // Also where there is more that cannot be read yet: it is waited for.
            _ if nothing => Read::Nothing,
            None => Read::Full,
            Some(_) => Read::All,
        })
    }

    /// Commits the next batch, where there is one.
    ///
    /// # Errors
    /// [`LogError::Retry`] and [`LogError::Unknown`]: the same call again, later, tries or settles the same batch. Any
    /// other ends this member.
    pub fn commit(&mut self, now: Timestamp) -> Result<Committed, LogError> {
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
    use std::sync::Mutex;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{Lacking, Partitions, RawAppend, RawRecord, Topic, Waiting};
    use crate::model::{Message, Order, PolicyAnnouncement, Signal};
    use crate::runtime::clock::{Clock, ManualClock};
    use crate::stages::aggregate::{Aggregate, Limits};
    use crate::stages::decide::Decide;
    use crate::wire;

    /// What its polls bring, in order, and which ends it is asked for. It has read to none of them.
    struct Scripted {
        polls: VecDeque<Result<Vec<Polled>, LogError>>,
        asked: Arc<Mutex<Vec<End>>>,
        waiting: Vec<Waiting>,
    }

    impl Session for Scripted {
        fn poll(&mut self, _max: usize, _wait: Duration) -> Result<Vec<Polled>, LogError> {
            self.polls.pop_front().unwrap_or(Ok(Vec::new()))
        }

        fn has_read_to(&mut self, end: End) -> Result<bool, LogError> {
            self.asked.lock().unwrap().push(end);
            Ok(false)
        }

        fn waiting(&self) -> Vec<Waiting> {
            self.waiting.clone()
        }

        fn commit(&mut self, _batch: &Batch) -> Result<(), LogError> {
            Ok(())
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
    fn worker(polls: VecDeque<Result<Vec<Polled>, LogError>>, asked: &Arc<Mutex<Vec<End>>>, waiting: Vec<Waiting>) -> Worker<Aggregate> {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(at(0)))));
        let session: Box<dyn Session> = Box::new(Scripted { polls, asked: Arc::clone(asked), waiting });
        let pane = Duration::from_secs(5);
        let stage = Aggregate { pane, grace: Duration::ZERO, sources: log.partitions(Topic::Metrics), limits: Limits::default() };
        let runner = Runner::new(stage, Arc::clone(&log));
        Worker { log, session, runner, polled: VecDeque::new(), asked: None, read_to_end: None, unsettled: BTreeSet::new() }
    }

    /// Which ends the worker asks for in polls that bring this, at these times in ms; and whether each read succeeded.
    fn ends(polls: Vec<(i64, Result<Vec<Polled>, LogError>)>) -> (Vec<End>, Vec<bool>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (times, polls): (Vec<i64>, VecDeque<_>) = polls.into_iter().unzip();
        let mut worker = worker(polls, &asked, Vec::new());
        let read = times.into_iter().map(|ms| worker.read(at(ms), 128, Duration::ZERO).is_ok()).collect();
        let asked = asked.lock().unwrap().clone();
        (asked, read)
    }

    /// Between a poll that fails and the next one anything may have been appended: the end of before is not the one of the time that counts from there.
    #[test]
    fn an_end_is_asked_for_anew_after_a_poll_that_failed() {
        let failed = Err(LogError::Retry { reason: "a coordinator is loading".to_owned() });
        let (asked, read) = ends(vec![(0, Ok(Vec::new())), (0, Ok(Vec::new())), (0, failed), (0, Ok(Vec::new())), (0, Ok(Vec::new()))]);
        assert_eq!(read, [true, true, false, true, true]);
        assert_eq!(asked, [End::Now, End::AsBefore, End::Now, End::AsBefore]);
    }

    /// A pane that is over and cannot be complete, since its partition waits for a registry, is looked at again a moment later and not at once: no wait spins on a core.
    #[test]
    fn a_partition_that_waits_makes_nobody_spin() {
        let value = br#"{"target":"prod/Deployment/api","metric":"cpu","value":1}"#.to_vec();
        let record = RawRecord { partition: 0, offset: 0, at: at(0), key: None, content_type: None, value };
        let polls = vec![Ok(vec![Polled::Assigned { partition: 0, position: 0 }, Polled::Records { partition: 0, records: vec![record] }])];
        let lacks = Lacking { what: "the schema 7".to_owned(), reason: "it is down".to_owned(), mend: "start it".to_owned() };
        let mut worker = worker(polls.into(), &Arc::default(), vec![Waiting { partition: 0, lacks: Some(lacks) }]);
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

    /// One partition that nobody can read for a minute takes the others no minute back.
    #[test]
    fn an_end_that_is_not_reached_for_long_is_asked_for_anew() {
        let (asked, _) = ends([0, 4_999, 5_000, 9_999, 60_000].map(|ms| (ms, Ok(Vec::new()))).into());
        assert_eq!(asked, [End::Now, End::AsBefore, End::Now, End::AsBefore, End::Now]);
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
