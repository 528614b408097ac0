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

use super::rest::{LOOK, Rest};
use super::runner::{NotTaken, Rounds, Runner};

/// One member of the group of `S`.
pub struct Worker<S: Stage> {
    log: Arc<dyn Log>,
    session: Box<dyn Session>,
    runner: Runner<S>,
    /// What was polled and not taken yet.
    polled: VecDeque<Polled>,
    /// Partitions that cannot be read for now.
    unread: BTreeMap<u32, Unread>,
    /// Nothing more is read.
    is_leaving: bool,
    /// Partitions whose last commit is of unknown outcome.
    unsettled: BTreeSet<u32>,
}

/// A partition that cannot be read for now.
struct Unread {
    /// What waits, in its order.
    polled: VecDeque<Polled>,
    reason: String,
    rest: Rest,
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The batch of a partition could not be committed now: the same one is tried, or settled, after a pause. The other partitions go on; of this one no more is read
    /// meanwhile, but where it is `under_way` up to a bound.
    Later {
        /// The partition.
        partition: u32,
        /// What stands in the way.
        reason: String,
        /// Whether it is still being written: it comes to an end by itself.
        under_way: bool,
        /// When.
        again_at: Timestamp,
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
        Ok(Worker { log, session, runner, polled: VecDeque::new(), unread: BTreeMap::new(), is_leaving: false, unsettled: BTreeSet::new() })
    }

    /// Ends a waiting [`Worker::read`] from another thread.
    pub fn waker(&self) -> Waker {
        self.session.waker()
    }

    /// Polls at most `most` records, and folds them. `asked_at` is the time before the call. A partition that cannot be read for now (its state, or a schema that it needs)
    /// holds up no other: [`Worker::unread`].
    ///
    /// # Errors
    /// [`LogError::Retry`]: the same call again, later; nothing that was polled is lost. Any other ends this member.
    pub fn read(&mut self, asked_at: Timestamp, most: usize, wait: Duration) -> Result<Read, LogError> {
        let now = Moment { at: asked_at, log: self.log.reached() };
        let polled = self.session.poll(most, wait)?;
        let records: usize = polled.iter().map(|p| if let Polled::Records { records, .. } = p { records.len() } else { 0 }).sum();
        let (nothing, full) = (polled.is_empty(), records >= most);
        self.polled.extend(polled);
        // Only a stage that says up to when everything is in needs to know; where it cannot be told now, it is not so.
        let due = |partition| self.runner.must_know_end(partition, asked_at);
        let through = if S::FLUSHES && !full { self.session.read_through(now, &due) } else { Ok(BTreeMap::new()) };
        self.take(asked_at, &through.unwrap_or_default())?;
        self.runner.lacking(&self.session.lacking(), asked_at);
        Ok(match full {
            _ if nothing => Read::Nothing,
            true => Read::Full,
            false => Read::All,
        })
    }

    /// Folds what was polled, but what is of partitions that cannot be read now: that waits, in its order.
    fn take(&mut self, now: Timestamp, through: &BTreeMap<u32, Moment>) -> Result<(), LogError> {
        // As many as are restored at once, of those that are due what failed longest ago: a try may take a second.
        let mut again: Vec<(Timestamp, u32)> =
            self.unread.iter().filter(|(_, unread)| !unread.rest.lasts(now)).map(|(partition, unread)| (unread.rest.until, *partition)).collect();
        again.sort_unstable();
        again.truncate(self.log.readers());
        let again: BTreeSet<u32> = again.into_iter().map(|(_, partition)| partition).collect();
        let mut polled: VecDeque<Polled> = VecDeque::new();
        for partition in &again {
            polled.extend(self.unread.get_mut(partition).map(|unread| std::mem::take(&mut unread.polled)).unwrap_or_default());
        }
        for event in self.polled.drain(..) {
            let partition = event.partition();
            if matches!(event, Polled::Revoked { .. } | Polled::Assigned { .. }) {
                // What waits is of the time before.
                polled.retain(|event| event.partition() != partition || matches!(event, Polled::Revoked { .. }));
                self.unread.remove(&partition);
            }
            match self.unread.get_mut(&partition) {
                Some(unread) if !again.contains(&partition) => unread.polled.push_back(event),
                _ => polled.push_back(event),
            }
        }
        let given: Vec<u32> = polled.iter().filter(|event| matches!(event, Polled::Assigned { .. })).map(Polled::partition).collect();
        let mut ends = None;
        loop {
            // Of what was not taken it is not so.
            let through = through.iter().filter(|(partition, _)| self.unread.get(partition).is_none_or(|unread| unread.polled.is_empty()));
            let through = through.map(|(partition, moment)| (*partition, *moment)).collect();
            let taken = {
                // Whoever takes no part in its group while it restores loses what it restores, and its successor likewise.
                let session = &mut self.session;
                let mut takes_part = || match session.poll(0, LOOK) {
                    Ok(polled) => self.polled.extend(polled),
                    Err(error) => {
                        if !matches!(error, LogError::Retry { .. }) {
                            ends = Some(error);
                        }
                        std::thread::sleep(LOOK);
                    }
                };
                self.runner.take_while(&mut polled, now, &through, Some(&mut takes_part))
            };
            let Err(NotTaken { partitions, error }) = taken else { break };
            let LogError::Retry { reason } = error else {
                polled.append(&mut self.polled);
                self.polled = polled;
                return Err(error);
            };
            for partition in partitions {
                let (waits, others) = std::mem::take(&mut polled).into_iter().partition(|event| event.partition() == partition);
                polled = others;
                let rest = Rest::failed(self.unread.get(&partition).map(|unread| unread.rest), now);
                let reason = format!("partition {partition} of {}: {reason}", S::INPUT);
                self.unread.insert(partition, Unread { polled: waits, reason, rest });
                self.hold_back(partition);
            }
        }
        self.unread.retain(|_, unread| !unread.polled.is_empty());
        again.into_iter().chain(given).chain(self.runner.under_way()).for_each(|partition| self.hold_back(partition));
        ends.map_or(Ok(()), Err)
    }

    /// No more is read of a partition while what was read of it can be neither folded nor written, but for what the next batch takes while the last one is being written.
    fn hold_back(&mut self, partition: u32) {
        let on = self.is_leaving || self.unread.contains_key(&partition) || self.runner.is_held_back(partition);
        self.session.hold_back(partition, on);
    }

    /// Why a partition that this member was given cannot be read for now, where there is one.
    pub fn unread(&self) -> Option<&str> {
        self.unread.values().next().map(|unread| &*unread.reason)
    }

    /// Commits the next batch, where there is one.
    ///
    /// # Errors
    /// [`LogError::Fatal`], which ends this member.
    pub fn commit(&mut self, now: Timestamp) -> Result<Committed, LogError> {
        // Told, and not taken yet: what is held of such a partition is of the time before.
        for polled in &self.polled {
            if let Polled::Revoked { partition } = polled {
                self.runner.lost(*partition);
                self.unsettled.remove(partition);
            }
        }
        let Some(batch) = self.runner.next_batch(now) else { return Ok(Committed::Nothing) };
        let partition = batch.partition;
        match self.try_commit(&batch) {
            Ok(()) => {
                self.unsettled.remove(&partition);
                self.runner.confirmed(partition);
                self.hold_back(partition);
                Ok(Committed::Done { states: !batch.states.is_empty() })
            }
            Err(LogError::TooLarge { topic, bytes }) => {
                let reason = LogError::TooLarge { topic, bytes }.to_string();
                tracing::error!(event = "record-put-aside", stage = S::NAME, reason, "a record was refused");
                self.runner.refused(partition, topic, bytes, now);
                Ok(Committed::Refused)
            }
            Err(LogError::Fenced { partition: fenced, group }) => {
                tracing::warn!(event = "taken-over", stage = S::NAME, partition = fenced, group, "another member took over");
                self.runner.lost(partition);
                self.unsettled.remove(&partition);
                self.unread.remove(&partition);
                Ok(Committed::Lost { partition })
            }
            Err(LogError::UnderWay { reason }) => Ok(self.put_off(partition, reason, true, now)),
            Err(LogError::Retry { reason }) => Ok(self.put_off(partition, reason, false, now)),
            Err(LogError::Unknown { reason }) => {
                self.unsettled.insert(partition);
                Ok(self.put_off(partition, reason, false, now))
            }
            Err(error @ LogError::Fatal { .. }) => Err(error),
        }
    }

    fn put_off(&mut self, partition: u32, reason: String, under_way: bool, now: Timestamp) -> Committed {
        let again_at = self.runner.rests(partition, under_way, now);
        self.hold_back(partition);
        Committed::Later { partition, reason, under_way, again_at }
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<(), LogError> {
        if self.unsettled.contains(&batch.partition) && self.took_effect(batch)? { Ok(()) } else { self.session.commit_soon(batch, !self.is_leaving) }
    }

    /// Waits, and lets the group go on meanwhile.
    ///
    /// # Errors
    /// As [`Worker::read`].
    pub fn look(&mut self, wait: Duration) -> Result<(), LogError> {
        self.polled.extend(self.session.poll(0, wait)?);
        Ok(())
    }

    /// Whether there are partitions, and none of them could be committed when that was tried last.
    pub fn all_rest(&self) -> bool {
        self.runner.all_rest()
    }

    /// Whether there are some whose batches are still being written.
    pub fn has_under_way(&self) -> bool {
        !self.runner.under_way().is_empty()
    }

    /// Whether a batch of unknown outcome took effect: the committed position tells. What moves no position (ticks, the
    /// state, an alert) may be repeated.
    fn took_effect(&mut self, batch: &Batch) -> Result<bool, LogError> {
        let committed = self.log.committed(S::NAME, S::INPUT, batch.partition)?;
        self.unsettled.remove(&batch.partition);
        Ok(batch.position.is_some() && committed == batch.position)
    }

    /// When [`Worker::commit`] will have something without any input, or [`Worker::read`] tries again what could not be read.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let read_again = self.unread.values().map(|unread| unread.rest.until.max(now)).min();
        self.runner.wakes_at(now).into_iter().chain(read_again).min()
    }

    /// How many partitions this member owns.
    pub fn partitions(&self) -> usize {
        self.runner.partitions()
    }

    /// Begins a last snapshot round of every partition, so that a successor starts from here. Nothing more is read.
    pub fn hand_over(&mut self, now: Timestamp) {
        self.is_leaving = true;
        self.runner.hand_over(now);
        let partitions: Vec<u32> = self.runner.positions().map(|(partition, _)| partition).collect();
        partitions.into_iter().for_each(|partition| self.hold_back(partition));
    }

    /// The batch that the next commit would try, and the session to try it with: what a process that dies may leave
    /// under way. One of unknown outcome was sent before, and is settled before it is sent again.
    pub fn into_last_words(mut self, now: Timestamp) -> (Option<Batch>, Box<dyn Session>) {
        self.runner.rests_no_more();
        let batch = self.runner.next_batch(now).filter(|batch| !self.unsettled.contains(&batch.partition));
        (batch.map(Arc::unwrap_or_clone), self.session)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{Lacking, Partitions, RawAppend, RawRecord, Topic};
    use crate::model::{Message, Order, PolicyAnnouncement, Signal};
    use crate::runtime::clock::{Clock, ManualClock};
    use crate::runtime::runner::READS_ON;
    use crate::stages::aggregate::{Aggregate, Limits};
    use crate::stages::decide::Decide;
    use crate::wire;

    /// What its polls bring, in order. It has read to no end, but as far as it is told.
    #[derive(Default)]
    struct Scripted {
        polls: VecDeque<Vec<Polled>>,
        lacking: Vec<(u32, Lacking)>,
        /// Partitions of which nothing is taken.
        refuses: BTreeSet<u32>,
        /// Partitions whose commits take long, where the caller reads on.
        lasts: BTreeSet<u32>,
        /// Of partition 0: what is said of it, and whether that was due each time when it was asked for.
        read_through: Option<Moment>,
        was_due: Arc<Mutex<Vec<bool>>>,
        held_back: Arc<Mutex<BTreeSet<u32>>>,
    }

    impl Session for Scripted {
        fn poll(&mut self, _max: usize, _wait: Duration) -> Result<Vec<Polled>, LogError> {
            Ok(self.polls.pop_front().unwrap_or_default())
        }

        fn read_through(&mut self, _now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError> {
            self.was_due.lock().unwrap().push(due(0));
            Ok(self.read_through.map(|moment| (0, moment)).into_iter().collect())
        }

        fn lacking(&self) -> Vec<(u32, Lacking)> {
            self.lacking.clone()
        }

        fn hold_back(&mut self, partition: u32, on: bool) {
            let mut held_back = self.held_back.lock().unwrap();
            if on {
                held_back.insert(partition)
            } else {
                held_back.remove(&partition)
            };
        }

        fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
            if self.refuses.contains(&batch.partition) { Err(LogError::Retry { reason: "nobody leads it".to_owned() }) } else { Ok(()) }
        }

        fn commit_soon(&mut self, batch: &Batch, reads_on: bool) -> Result<(), LogError> {
            let lasts = reads_on && self.lasts.contains(&batch.partition);
            if lasts { Err(LogError::UnderWay { reason: "it takes long".to_owned() }) } else { self.commit(batch) }
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
        let session: Box<dyn Session> = Box::new(Scripted { polls: polls.into(), lacking, ..Scripted::default() });
        let pane = Duration::from_secs(5);
        let stage = Aggregate { pane, grace: Duration::ZERO, sources: log.partitions(Topic::Metrics), limits: Limits::default() };
        let runner = Runner::new(stage, Arc::clone(&log));
        Worker { log, session, runner, polled: VecDeque::new(), unread: BTreeMap::new(), is_leaving: false, unsettled: BTreeSet::new() }
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

    /// It must be known as of now that a partition has been read to its end where a pane is over, and after a flush that came before its end; else what was known a moment ago does.
    #[test]
    fn what_is_known_of_the_end_must_be_new_where_a_flush_is_due() {
        let value = br#"{"target":"prod/Deployment/api","metric":"cpu","value":1}"#.to_vec();
        let record = |offset: u64, ms| RawRecord { partition: 0, offset, at: at(ms), key: None, content_type: None, value: value.clone() };
        let mut worker = worker(Vec::new(), Vec::new());
        let was_due = Arc::<Mutex<Vec<bool>>>::default();
        let turn = |worker: &mut Worker<Aggregate>, now: i64, known: Option<i64>, records: Vec<RawRecord>| {
            let mut polls: Vec<Vec<Polled>> = if now == 0 { vec![vec![Polled::Assigned { partition: 0, position: 0 }]] } else { Vec::new() };
            polls.extend((!records.is_empty()).then(|| vec![Polled::Records { partition: 0, records }]));
            let read_through = known.map(|ms| Moment { at: at(ms), log: at(ms) });
            worker.session = Box::new(Scripted { polls: polls.into(), read_through, was_due: Arc::clone(&was_due), ..Scripted::default() });
            worker.read(at(now), 128, Duration::ZERO).unwrap();
            let mut flushes = 0;
            while worker.commit(at(now)).unwrap() != Committed::Nothing {
                flushes += 1;
            }
            (was_due.lock().unwrap().pop().unwrap(), flushes)
        };
        // The first poll gives the partition, which has never been flushed.
        turn(&mut worker, 0, Some(0), Vec::new());
        turn(&mut worker, 1, Some(1), Vec::new());
        assert_eq!(turn(&mut worker, 100, Some(50), Vec::new()), (false, 0), "in the midst of a pane");
        assert_eq!(turn(&mut worker, 4_999, Some(4_990), Vec::new()), (false, 0));
        assert_eq!(turn(&mut worker, 5_000, Some(5_000), Vec::new()), (true, 1), "the pane is over");
        assert_eq!(turn(&mut worker, 5_001, Some(5_000), Vec::new()), (false, 0), "and told");
        // A second of records, not known to be all: flushed as of the last of them, and what was known before says nothing then.
        assert_eq!(turn(&mut worker, 6_500, None, vec![record(0, 5_100), record(1, 6_400)]), (false, 1));
        assert_eq!(turn(&mut worker, 6_510, Some(6_510), Vec::new()), (true, 0));
        assert_eq!(turn(&mut worker, 6_520, Some(6_510), Vec::new()), (false, 0));
    }

    /// A partition of which nothing can be written: the other one goes on, and nothing more is read of it. Where it is taken meanwhile it is let go, with what was to be written.
    #[test]
    fn a_partition_that_cannot_be_written_holds_up_no_other() {
        let value = br#"{"target":"prod/Deployment/api","metric":"cpu","value":1}"#.to_vec();
        let record = |partition, offset: u64, ms| RawRecord { partition, offset, at: at(ms), key: None, content_type: None, value: value.clone() };
        let records = |partition, offsets: std::ops::Range<u64>| Polled::Records {
            partition,
            records: offsets.map(|n| record(partition, n, i64::try_from(n).unwrap() * 6_000)).collect(),
        };
        let given = |partition| [Polled::Assigned { partition, position: 0 }, records(partition, 0..2)];
        let mut worker = worker(vec![[given(0), given(1)].concat()], Vec::new());
        worker.read(at(0), 128, Duration::ZERO).unwrap();
        let held_back = Arc::<Mutex<BTreeSet<u32>>>::default();
        let session = |polls: Vec<Vec<Polled>>, refuses: &[u32]| -> Box<dyn Session> {
            Box::new(Scripted { polls: polls.into(), refuses: refuses.iter().copied().collect(), held_back: Arc::clone(&held_back), ..Scripted::default() })
        };
        worker.session = session(vec![vec![records(1, 2..4)]], &[0]);
        let all = |worker: &mut Worker<Aggregate>, now| {
            std::iter::from_fn(|| Some(worker.commit(now).unwrap()).filter(|c| *c != Committed::Nothing)).collect::<Vec<_>>()
        };
        let (now, done) = (at(60_000), Committed::Done { states: false });
        let committed = all(&mut worker, now);
        let [Committed::Later { partition: 0, reason, under_way: false, again_at }, other] = &committed[..] else { panic!("{committed:?}") };
        assert!(reason == "nobody leads it" && *other == done, "{committed:?}");
        assert_eq!((*held_back.lock().unwrap()).clone(), BTreeSet::from([0]));
        // The other one goes on, and the first one is tried again in time.
        worker.read(now, 128, Duration::ZERO).unwrap();
        assert_eq!(all(&mut worker, now), std::slice::from_ref(&done));
        assert!(worker.wakes_at(now).is_some_and(|at| now < at && at <= *again_at));
        let committed = all(&mut worker, *again_at);
        let [Committed::Later { partition: 0, again_at, .. }] = &committed[..] else { panic!("{committed:?}") };
        worker.session = session(Vec::new(), &[]);
        assert_eq!((all(&mut worker, *again_at), held_back.lock().unwrap().len()), (vec![done], 0));
    }

    /// While a batch is being written the next one is read, of the same partition too, up to a bound; and it is committed when the first one is.
    #[test]
    fn while_a_batch_is_written_the_next_one_is_read() {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(at(0)))));
        let value = wire::encode(&Message::Signal(Signal::Tick(crate::model::Tick {})));
        let record = |offset: u64| RawRecord { partition: 0, offset, at: at(0), key: None, content_type: None, value: value.clone() };
        let records = |offsets: std::ops::Range<u64>| Polled::Records { partition: 0, records: offsets.map(record).collect() };
        let held_back = Arc::<Mutex<BTreeSet<u32>>>::default();
        let session = |polled: Vec<Polled>, lasts: &[u32]| -> Box<dyn Session> {
            Box::new(Scripted { polls: [polled].into(), lasts: lasts.iter().copied().collect(), held_back: Arc::clone(&held_back), ..Scripted::default() })
        };
        let runner = Runner::new(Decide::default(), Arc::clone(&log));
        let session_now = session(vec![Polled::Assigned { partition: 0, position: 0 }, records(0..1)], &[0]);
        let mut worker =
            Worker { log, session: session_now, runner, polled: VecDeque::new(), unread: BTreeMap::new(), is_leaving: false, unsettled: BTreeSet::new() };
        worker.read(at(0), 100, Duration::ZERO).unwrap();
        let Committed::Later { partition: 0, under_way: true, again_at, .. } = worker.commit(at(0)).unwrap() else { panic!("it is written at once") };
        assert_eq!((worker.commit(at(0)).unwrap(), held_back.lock().unwrap().len()), (Committed::Nothing, 0));
        let most = READS_ON;
        for (offsets, is_held_back) in [(1..most, false), (most..most + 1, true)] {
            worker.session = session(vec![records(offsets)], &[0]);
            worker.read(at(1), 100, Duration::ZERO).unwrap();
            assert_eq!(held_back.lock().unwrap().contains(&0), is_held_back);
        }
        worker.session = session(Vec::new(), &[]);
        assert_eq!((worker.commit(again_at).unwrap(), held_back.lock().unwrap().len()), (Committed::Done { states: true }, 0));
        assert_eq!(worker.commit(again_at).unwrap(), Committed::Nothing, "a position alone waits a moment for what may come with it");
        let (batch, _) = worker.into_last_words(again_at + Duration::from_secs(1));
        assert_eq!(batch.and_then(|batch| batch.position), Some(most + 1));
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
        worker.session = Box::new(Scripted { polls: polls.into(), refuses: BTreeSet::from([0, 1]), ..Scripted::default() });
        for _ in 0..2 {
            assert!(matches!(worker.commit(at(9_000)), Ok(Committed::Later { .. })));
        }
        worker.look(Duration::ZERO).unwrap();
        assert_eq!((worker.commit(at(19_000)).unwrap(), worker.partitions()), (Committed::Nothing, 0));
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
