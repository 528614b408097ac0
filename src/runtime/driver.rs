//! Drives a stage: the only part of the runtime that waits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::log::{Log, LogError, Waker};
use crate::model::Timestamp;
use crate::stages::Stage;

use super::clock::{Clock, Stopwatch};
use super::events::{CommitRefused, LogUnreadable, Repeated, SnapshotsWritten};
use super::rest::{FIRST, LONGEST, LOOK};
use super::runner::Rounds;
use super::worker::{Committed, Read, Worker};

/// The longest wait of a poll; what is due earlier shortens it.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// For so long a member that can commit nothing of any of its partitions takes part in its group; whoever does no more loses them after some minutes to others, who may be
/// able to write.
const TAKES_PART_FOR: Duration = Duration::from_secs(300);
/// For so long last commits are waited for.
const LAST_FOR: Duration = Duration::from_secs(10);

/// Asks everything that runs to end in order.
#[derive(Clone, Default)]
pub struct Stop(Arc<StopInner>);

#[derive(Default)]
struct StopInner {
    asked: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    waiting: Condvar,
}

impl Stop {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Asks.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        let wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.iter().for_each(Waker::wake);
        self.0.waiting.notify_all();
    }

    /// Whether somebody asked.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Wakes `waker` when somebody asks.
    pub fn wakes(&self, waker: Waker) {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_asked() {
            waker.wake();
        }
        wakers.push(waker);
    }

    /// Waits, until somebody asks or `wait` is over. Says whether somebody asked.
    pub fn wait(&self, wait: Duration) -> bool {
        let guard = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        let over = self.0.waiting.wait_timeout_while(guard, wait, |_| !self.is_asked());
        drop(over);
        self.is_asked()
    }
}

/// Runs a stage until it is asked to stop, then hands over in order.
///
/// # Errors
/// [`LogError::Fatal`], or [`LogError::Fenced`] when another member of this name took over: the
/// process is to end with the reason.
pub fn drive<S: Stage>(stage: S, log: Arc<dyn Log>, clock: &dyn Clock, member: &str, stop: &Stop) -> Result<(), LogError> {
    let rounds = Rounds::on(&*log);
    let mut worker = Worker::join(stage, log, member, rounds)?;
    let unreadable = Repeated::new();
    let mut failing = None;
    stop.wakes(worker.waker());
    while !stop.is_asked() {
        // First what is there, without a wait: it tells up to when everything has been read.
        let asked_at = clock.now();
        let takes_part = failing.is_none_or(|since: Stopwatch| since.elapsed() < TAKES_PART_FOR);
        let full = takes_part && read(&mut worker, asked_at, Duration::ZERO, stop, &unreadable)?;
        commit_all(&mut worker, clock, stop, &mut failing)?;
        let wait = worker.wakes_at(clock.now()).map_or(LONGEST_WAIT, |at| at.since(clock.now())).min(LONGEST_WAIT);
        if !takes_part {
            stop.wait(wait.max(FIRST));
        } else if !full {
            read(&mut worker, asked_at, wait, stop, &unreadable)?;
        }
    }
    worker.hand_over(clock.now());
    commit_last(&mut worker, clock)
}

/// Polls once, and folds what came; where the log cannot be read for now, until it can. Says whether more may be waiting.
fn read<S: Stage>(worker: &mut Worker<S>, asked_at: Timestamp, wait: Duration, stop: &Stop, unreadable: &Repeated) -> Result<bool, LogError> {
    let mut pause = FIRST;
    loop {
        let outcome = worker.read(asked_at, S::POLL_RECORDS, wait);
        let reason = match &outcome {
            Err(LogError::Retry { reason }) => Some(&**reason),
            _ => worker.unread(),
        };
        match reason {
            Some(reason) => LogUnreadable { reader: S::NAME, reason }.emit(unreadable),
            None => LogUnreadable::over(S::NAME, unreadable),
        }
        if !matches!(outcome, Err(LogError::Retry { .. })) {
            return outcome.map(|read| read == Read::Full);
        }
        if stop.wait(pause) {
            return Ok(false);
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Commits what was read; of a round of snapshots one batch a partition, so that the input does not wait for it, and what cannot be committed is tried once. `failing` is
/// since when nothing at all can be.
fn commit_all<S: Stage>(worker: &mut Worker<S>, clock: &dyn Clock, stop: &Stop, failing: &mut Option<Stopwatch>) -> Result<(), LogError> {
    let mut rounds = 0;
    let mut failed = BTreeSet::new();
    loop {
        let committed = commit(worker, clock)?;
        if matches!(committed, Committed::Done { .. }) {
            *failing = None;
        }
        match committed {
            Committed::Nothing => break,
            Committed::Later { partition, .. } if stop.is_asked() || !failed.insert(partition) => break,
            Committed::Done { states: true } => rounds += 1,
            Committed::Later { .. } | Committed::Done { states: false } | Committed::Refused | Committed::Lost { .. } => {}
        }
        if rounds > 0 && rounds >= worker.partitions() {
            break;
        }
    }
    *failing = failing.or_else(|| Some(Stopwatch::start())).filter(|_| worker.all_rest());
    Ok(())
}

/// Commits everything, with the rounds under way. What cannot be written now is left to who comes next; what is being written is waited for.
fn commit_last<S: Stage>(worker: &mut Worker<S>, clock: &dyn Clock) -> Result<(), LogError> {
    let started = Stopwatch::start();
    while started.elapsed() < LAST_FOR {
        if commit(worker, clock)? == Committed::Nothing {
            if !worker.has_under_way() {
                break;
            }
            match worker.look(LOOK) {
                Ok(()) => {}
                Err(LogError::Retry { .. }) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn commit<S: Stage>(worker: &mut Worker<S>, clock: &dyn Clock) -> Result<Committed, LogError> {
    let now = clock.now();
    let committed = worker.commit(now)?;
    match &committed {
        Committed::Later { reason, again_at, under_way: false, .. } => CommitRefused { stage: S::NAME, reason, pause: again_at.since(now) }.emit(),
        Committed::Done { states: true } => SnapshotsWritten { stage: S::NAME, at: clock.now() }.emit(),
        Committed::Later { .. } | Committed::Done { .. } | Committed::Nothing | Committed::Refused | Committed::Lost { .. } => {}
    }
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::io::Write;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{Batch, Follower, Membership, Moment, Offset, Partitions, Polled, RawAppend, RawRecord, Session, Topic};
    use crate::runtime::clock::{ManualClock, SystemClock};
    use crate::runtime::runner::{NotTaken, Runner};
    use crate::stages::admit::Admit;
    use crate::stages::decide::Decide;

    /// A log whose polls fail for now so often, and then for good; and whose states cannot be read so often, and then can.
    struct Unreadable {
        log: MemoryLog,
        fails: Arc<AtomicU32>,
        restores_fail: AtomicU32,
        readers: usize,
    }

    impl Unreadable {
        fn new(fails: u32, restores_fail: u32) -> Arc<Self> {
            let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_764_000_000_000)));
            let log = MemoryLog::new(Partitions::default().with(Topic::Signals, 4), clock);
            Arc::new(Unreadable { log, fails: Arc::new(AtomicU32::new(fails)), restores_fail: AtomicU32::new(restores_fail), readers: 1 })
        }
    }

    struct Failing {
        session: Box<dyn Session>,
        fails: Arc<AtomicU32>,
    }

    impl Session for Failing {
        fn poll(&mut self, _max: usize, _wait: Duration) -> Result<Vec<Polled>, LogError> {
            match self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => Err(LogError::Retry { reason: "the disk hangs".to_owned() }),
                Err(_) => Err(LogError::Fatal { reason: "enough".to_owned() }),
            }
        }

        fn read_through(&mut self, now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError> {
            self.session.read_through(now, due)
        }

        fn hold_back(&mut self, partition: u32, on: bool) {
            self.session.hold_back(partition, on);
        }

        fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
            self.session.commit(batch)
        }

        fn waker(&self) -> Waker {
            self.session.waker()
        }
    }

    impl Log for Unreadable {
        fn partitions(&self, topic: Topic) -> u32 {
            self.log.partitions(topic)
        }

        fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
            Ok(Box::new(Failing { session: self.log.join(membership)?, fails: Arc::clone(&self.fails) }))
        }

        fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
            self.log.follow(topic, from)
        }

        fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
            self.log.append(appends)
        }

        fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<Offset>, LogError> {
            self.log.range(topic, partition)
        }

        fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
            self.log.scan(topic, partition, from, max)
        }

        fn reached(&self) -> Timestamp {
            self.log.reached()
        }

        fn readers(&self) -> usize {
            self.readers
        }

        fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
            match self.restores_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => Err(LogError::Retry { reason: "the disk hangs".to_owned() }),
                Err(_) => self.log.states(group, partition),
            }
        }

        fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
            self.log.committed(group, topic, partition)
        }

        fn close(&self) {
            self.log.close();
        }
    }

    /// Who is given a partition, and cannot read its state for now, has it when that can be read.
    #[test]
    fn a_partition_that_cannot_be_restored_at_first_is_not_forgotten() {
        let mut runner = Runner::new(Admit, Unreadable::new(0, 2));
        let mut polled = VecDeque::from([Polled::Assigned { partition: 0, position: 0 }]);
        let now = Timestamp::from_millis(1_764_000_000_000);
        for _ in 0..2 {
            assert!(matches!(runner.take(&mut polled, now, &BTreeMap::new()), Err(NotTaken { error: LogError::Retry { .. }, .. })));
            assert_eq!(runner.positions().count(), 0);
        }
        runner.take(&mut polled, now, &BTreeMap::new()).unwrap();
        assert_eq!(runner.positions().collect::<Vec<_>>(), [(0, 0)]);
    }

    /// As many at once as the log lets read: one that cannot be restored costs the others nothing, and comes again with what is left.
    #[test]
    fn partitions_are_restored_side_by_side() {
        let log = Arc::into_inner(Unreadable::new(0, 1)).map(|log| Unreadable { readers: 3, ..log }).unwrap();
        let mut runner = Runner::new(Decide::default(), Arc::new(log));
        let mut polled: VecDeque<Polled> = (0..4).map(|partition| Polled::Assigned { partition, position: 0 }).collect();
        let now = Timestamp::from_millis(1_764_000_000_000);
        assert!(matches!(runner.take(&mut polled, now, &BTreeMap::new()), Err(NotTaken { error: LogError::Retry { .. }, .. })));
        assert_eq!((runner.partitions(), polled.len()), (2, 2));
        runner.take(&mut polled, now, &BTreeMap::new()).unwrap();
        assert_eq!(runner.positions().collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A log that cannot be read for a while is one line, however often it is tried.
    #[test]
    fn reads_that_fail_again_and_again_are_told_once() {
        let log: Arc<dyn Log> = Unreadable::new(3, 0);
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        let ended = tracing::subscriber::with_default(subscriber, || drive(Admit, log, &SystemClock, "one", &Stop::new()));
        assert!(matches!(ended, Err(LogError::Fatal { .. })), "{ended:?}");
        let told = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("admit cannot read the log for now: the disk hangs"), "{told}");
    }
}
