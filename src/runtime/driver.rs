//! Drives a stage: the only part of the runtime that waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::log::{Log, LogError, Waker};
use crate::model::Timestamp;
use crate::stages::Stage;

use super::clock::Clock;
use super::events::{CommitRefused, LogUnreadable, Repeated, SnapshotsWritten};
use super::runner::Rounds;
use super::worker::{Committed, Read, Worker};

/// The most records of one poll: a commit of them takes a few milliseconds.
const POLL_RECORDS: usize = 2_000;
/// The longest wait of a poll; what is due earlier shortens it.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The waits after commits that failed for now: the first, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

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
    let mut worker = Worker::join(stage, log, member, Rounds::default())?;
    let unreadable = Repeated::new();
    stop.wakes(worker.waker());
    while !stop.is_asked() {
        // First what is there, without a wait: it tells up to when everything has been read.
        let asked_at = clock.now();
        let full = read(&mut worker, asked_at, Duration::ZERO, stop, &unreadable)?;
        commit_all(&mut worker, clock, stop, Until::Read)?;
        if !full {
            let wait = worker.wakes_at(clock.now()).map_or(LONGEST_WAIT, |at| at.since(clock.now())).min(LONGEST_WAIT);
            read(&mut worker, asked_at, wait, stop, &unreadable)?;
        }
    }
    worker.hand_over(clock.now());
    commit_all(&mut worker, clock, stop, Until::Written)
}

/// How far to commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// What was read; of a round of snapshots one batch a partition, so that the input does not wait for it.
    Read,
    /// Everything, with the rounds under way.
    Written,
}

/// Polls once, and folds what came; where the log cannot be read for now, until it can. Says whether more may be waiting.
fn read<S: Stage>(worker: &mut Worker<S>, asked_at: Timestamp, wait: Duration, stop: &Stop, unreadable: &Repeated) -> Result<bool, LogError> {
    let mut pause = RETRY_FIRST;
    loop {
        match worker.read(asked_at, POLL_RECORDS, wait) {
            Err(LogError::Retry { reason }) => {
                LogUnreadable { reader: S::NAME, reason: &reason }.emit(unreadable);
                if stop.wait(pause) {
                    return Ok(false);
                }
                pause = (pause * 2).min(RETRY_LAST);
            }
            outcome => {
                LogUnreadable::over(S::NAME, unreadable);
                return outcome.map(|read| read == Read::Full);
            }
        }
    }
}

/// Commits until nothing is left to commit.
fn commit_all<S: Stage>(worker: &mut Worker<S>, clock: &dyn Clock, stop: &Stop, until: Until) -> Result<(), LogError> {
    let mut pause = RETRY_FIRST;
    let mut written = 0;
    loop {
        match worker.commit(clock.now()) {
            Ok(Committed::Nothing) => return Ok(()),
            Ok(committed) => {
                pause = RETRY_FIRST;
                if committed == (Committed::Done { states: true }) {
                    SnapshotsWritten { stage: S::NAME, at: clock.now() }.emit();
                }
                written += usize::from(committed == Committed::Done { states: true });
                if until == Until::Read && written > 0 && written >= worker.partitions() {
                    return Ok(());
                }
            }
            Err(LogError::Retry { reason } | LogError::Unknown { reason }) => {
                CommitRefused { stage: S::NAME, reason: &reason, pause }.emit();
                if stop.wait(pause) {
                    return Ok(());
                }
                pause = (pause * 2).min(RETRY_LAST);
            }
            Err(error) => return Err(error),
        }
    }
}
