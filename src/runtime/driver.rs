//! Drives a stage: the only part of the runtime that waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::log::{Log, LogError, Membership, Polled, Session, Waker};
use crate::model::Timestamp;
use crate::stages::Stage;

use super::clock::Clock;
use super::runner::Runner;

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
    let membership = Membership { group: S::NAME, member: member.to_owned(), topic: S::INPUT };
    let mut session = log.join(membership)?;
    stop.wakes(session.waker());
    let mut runner = Runner::new(stage, log);
    while !stop.is_asked() {
        // First what is there, without a wait: it tells up to when everything has been read.
        let asked_at = clock.now();
        let full = step(&mut runner, session.as_mut(), asked_at, Duration::ZERO, stop)?;
        commit_all(&mut runner, session.as_mut(), clock, stop, Until::Read)?;
        if !full {
            let wait = runner.wakes_at(clock.now()).map_or(LONGEST_WAIT, |at| at.since(clock.now())).min(LONGEST_WAIT);
            step(&mut runner, session.as_mut(), asked_at, wait, stop)?;
        }
    }
    runner.hand_over(clock.now());
    commit_all(&mut runner, session.as_mut(), clock, stop, Until::Written)
}

/// Hands over what was polled; where the log cannot be read for now, until it can: what was polled is not polled again.
fn take<S: Stage>(runner: &mut Runner<S>, mut polled: VecDeque<Polled>, now: Timestamp, to_end: Option<Timestamp>, stop: &Stop) -> Result<(), LogError> {
    let mut wait = RETRY_FIRST;
    loop {
        match runner.take(&mut polled, now, to_end) {
            Err(LogError::Retry { reason }) => {
                tracing::warn!(stage = S::NAME, reason, "the state cannot be read for now, trying again in {wait:?}");
                if stop.wait(wait) {
                    return Ok(());
                }
                wait = (wait * 2).min(RETRY_LAST);
            }
            outcome => return outcome,
        }
    }
}

/// How far to commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// What was read; of a round of snapshots one batch a partition, so that the input does not wait for it.
    Read,
    /// Everything, with the rounds under way.
    Written,
}

/// Polls once, and folds what came. Says whether more may be waiting.
fn step<S: Stage>(runner: &mut Runner<S>, session: &mut dyn Session, asked_at: Timestamp, wait: Duration, stop: &Stop) -> Result<bool, LogError> {
    match session.poll(POLL_RECORDS, wait) {
        Ok(polled) => {
            let records: usize = polled.iter().map(|p| if let Polled::Records { records, .. } = p { records.len() } else { 0 }).sum();
            let full = records >= POLL_RECORDS;
            take(runner, polled.into(), asked_at, (!full).then_some(asked_at), stop)?;
            Ok(full)
        }
        Err(LogError::Retry { reason }) => {
            tracing::warn!(stage = S::NAME, reason, "the log cannot be read for now");
            stop.wait(RETRY_FIRST);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Commits until nothing is left to commit.
fn commit_all<S: Stage>(runner: &mut Runner<S>, session: &mut dyn Session, clock: &dyn Clock, stop: &Stop, until: Until) -> Result<(), LogError> {
    let mut wait = RETRY_FIRST;
    let mut written = 0;
    while let Some(batch) = runner.next_batch(clock.now()) {
        written += usize::from(!batch.states.is_empty());
        match session.commit(&batch) {
            Ok(()) => {
                wait = RETRY_FIRST;
                runner.confirmed(batch.partition);
                if until == Until::Read && written >= runner.partitions() {
                    return Ok(());
                }
            }
            Err(LogError::Retry { reason } | LogError::Unknown { reason }) => {
                // The embedded and memory logs never leave a commit unknown; the same batch again is right for both.
                // `Log::trouble` tells of it.
                tracing::debug!(stage = S::NAME, reason, "nothing can be committed for now; nothing is lost, trying again in {wait:?}");
                if stop.wait(wait) {
                    return Ok(());
                }
                wait = (wait * 2).min(RETRY_LAST);
            }
            Err(LogError::TooLarge { topic, bytes }) => {
                let reason = LogError::TooLarge { topic, bytes }.to_string();
                tracing::error!(stage = S::NAME, reason, "a record was refused");
                runner.refused(batch.partition, &reason, clock.now());
            }
            Err(LogError::Fenced { partition, group }) => {
                tracing::warn!(stage = S::NAME, partition, group, "another member took over");
                runner.lost(batch.partition);
            }
            Err(error @ LogError::Fatal { .. }) => return Err(error),
        }
    }
    Ok(())
}
