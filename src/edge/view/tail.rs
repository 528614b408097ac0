//! Follows the log for the view: one thread a topic (and one that looks how far the stages are, [`super::lags`]), woken by the log and never polling.
//!
//! On start a thread reads back a bounded stretch (a *view* is a memory, not a state: it may begin
//! anywhere), then follows what is appended, outside of any group: every process sees all of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lags::{Followed, Lags};
use super::{Asked, View};
use crate::edge::stop::WhenUnwound;
use crate::log::{Log, LogError, Offset, Polled, RawRecord, Topic, Waker};
use crate::model::{Alert, AlertState, Audit, Message, OutcomeResult, Pane, Part, Severity, Signal, Timestamp};
use crate::runtime::clock::Clock;
use crate::runtime::events::{
    AGGREGATED_SAMPLES, AlertChanged, CommandEnded, Decided, GrantLimited, LogUnreadable, Marked, PolicyChanged, PolicyRefused, RecordPutAside, Repeated,
    SampleUnused, SamplesUnused,
};
use crate::runtime::schemas;
use crate::wire;

/// How many topics are followed.
pub(super) const FOLLOWED_TOPICS: usize = 4;

/// Records a poll may bring: about half a megabyte.
const POLL: usize = 512;

/// How long a poll waits while nothing comes.
const WAIT: Duration = Duration::from_secs(1);

/// How far signals are read back: replicas are observed anew every 60 s, so twice that and some.
const SIGNALS_BACK: Duration = Duration::from_secs(150);

/// How many records of audit and alerts are read back a partition: under a second's reading.
const RECORDS_BACK: u64 = 200_000;

/// For how long the one that looks at the lag is waited for at the end.
const LEAVE_BEHIND: Duration = Duration::from_secs(2);

/// How long to rest after the log said "later".
const REST: Duration = Duration::from_millis(200);

/// The threads that follow the log.
pub struct Tail {
    threads: Vec<JoinHandle<()>>,
    /// The one that looks at the lag, and what is closed when it ends.
    lags: Option<(JoinHandle<()>, Receiver<()>)>,
    stop: Arc<Stop>,
}

#[derive(Default)]
pub(super) struct Stop {
    stopped: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    rest: Condvar,
}

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn register(&self, waker: Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_set() {
            waker.wake();
        }
        wakers.push(waker);
    }

    fn set(&self) {
        self.stopped.store(true, Ordering::Release);
        for waker in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            waker.wake();
        }
        self.rest.notify_all();
    }

    /// Waits for `time`, or until it is set.
    pub(super) fn rest(&self, time: Duration) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rest.wait_timeout_while(wakers, time, |_| !self.is_set()));
    }
}

impl Tail {
    /// Starts following. `ended` is called with the reason when a thread ends before it was told to.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(
        view: &Arc<View>,
        log: &Arc<dyn Log>,
        clock: &Arc<dyn Clock>,
        stages: &[Followed],
        ended: impl Fn(String) + Send + Sync + 'static,
    ) -> std::io::Result<Tail> {
        let ended: Arc<dyn Fn(String) + Send + Sync> = Arc::new(ended);
        let mut tail = Tail { threads: Vec::new(), lags: None, stop: Arc::default() };
        let topics: [(Topic, &'static str); FOLLOWED_TOPICS] =
            [(Topic::Audit, "view-audit"), (Topic::Signals, "view-signals"), (Topic::Alerts, "view-alerts"), (Topic::DeadLetters, "view-dead-letters")];
        let started = clock.now();
        for (topic, group) in topics {
            let follower = Follower {
                topic,
                group,
                view: Arc::clone(view),
                log: Arc::clone(log),
                clock: Arc::clone(clock),
                stop: Arc::clone(&tail.stop),
                started,
                unreadable: Repeated::new(),
                put_aside: Repeated::new(),
                unused: [Repeated::new(), Repeated::new()],
                schemas: schemas::Reading::default(),
            };
            let ended = Arc::clone(&ended);
            let thread = std::thread::Builder::new().name(group.to_owned()).spawn(move || {
                let _fault = WhenUnwound(|| ended(format!("the view of {topic} ended by a fault in the program")));
                let result = follower.run();
                if !follower.stop.is_set() {
                    ended(match result {
                        Ok(()) => format!("the view of {topic} ended"),
                        Err(error) => format!("the view of {topic} ended: {error}"),
                    });
                }
            })?;
            tail.threads.push(thread);
        }
        let lags = Lags::new(stages, Arc::clone(view), Arc::clone(log), Arc::clone(clock), Arc::clone(&tail.stop));
        let (at_work, done) = sync_channel::<()>(1);
        let thread = std::thread::Builder::new().name("view-lag".to_owned()).spawn(move || {
            let _at_work = at_work;
            let _fault = WhenUnwound(|| ended("the view of the stages ended by a fault in the program".to_owned()));
            lags.run();
        })?;
        tail.lags = Some((thread, done));
        Ok(tail)
    }

    /// Stops following, and waits for the threads.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // A question of its to the cluster may wait for long: it is left behind then.
        if let Some((thread, done)) = self.lags.take()
            && done.recv_timeout(LEAVE_BEHIND) == Err(RecvTimeoutError::Disconnected)
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Follower {
    topic: Topic,
    group: &'static str,
    view: Arc<View>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    stop: Arc<Stop>,
    /// What was appended from here on is news: it is told in the log's lines, and counted.
    started: Timestamp,
    unreadable: Repeated,
    put_aside: Repeated,
    /// Of targets of which nothing else is known, and of others.
    unused: [Repeated; 2],
    schemas: schemas::Reading,
}

impl Follower {
    fn run(&self) -> Result<(), LogError> {
        let mut ends = BTreeMap::new();
        for partition in 0..self.log.partitions(self.topic) {
            let end = self.patiently(|| self.log.range(self.topic, partition))?.end;
            self.read_back(partition, end)?;
            ends.insert(partition, end);
        }
        let mut follower = self.patiently(|| self.log.follow(self.topic, &ends))?;
        self.stop.register(follower.waker());
        self.view.one_caught_up(self.clock.now());
        while !self.stop.is_set() {
            match follower.poll(POLL, WAIT) {
                Ok(polled) => {
                    LogUnreadable::over(self.group, &self.unreadable);
                    polled.into_iter().for_each(|p| self.take(p));
                }
                Err(LogError::Retry { reason }) => {
                    LogUnreadable { reader: self.group, reason: &reason }.emit(&self.unreadable);
                    self.stop.rest(REST);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_back(&self, partition: u32, end: Offset) -> Result<(), LogError> {
        let start = match self.topic {
            Topic::Signals => self.patiently(|| self.log.first_after(self.topic, partition, self.clock.now() - SIGNALS_BACK))?,
            _ => end.saturating_sub(RECORDS_BACK),
        };
        // What is gone already is no gap: a memory may begin anywhere.
        let mut next = start.max(self.patiently(|| self.log.range(self.topic, partition))?.start);
        if self.topic == Topic::Audit && next > 0 {
            self.view.audit_is_cut();
        }
        while next < end && !self.stop.is_set() {
            let records = self.patiently(|| self.log.scan(self.topic, partition, next, POLL))?;
            let (Some(first), Some(last)) = (records.first(), records.last()) else { break };
            if first.offset > next && !self.log.leaves_gaps() {
                self.take(Polled::Gap { partition, from: next, to: first.offset });
            }
            next = last.offset + 1;
            records.into_iter().filter(|r| r.offset < end).for_each(|record| self.record(&record));
        }
        Ok(())
    }

    fn take(&self, polled: Polled) {
        match polled {
            Polled::Records { records, .. } => records.iter().for_each(|record| self.record(record)),
            Polled::Gap { partition, from, to } => {
                let topic = self.topic;
                let message =
                    format!("status and why lack what {topic} {from}..{to} of partition {partition} said: retention removed them before they were read");
                tracing::warn!(event = "records-lost", "{message}");
                self.view.alert(Alert {
                    target: None,
                    name: "RecordsLost".to_owned(),
                    subject: format!("view/{topic}/{partition}"),
                    severity: Severity::Warning,
                    state: AlertState::Event,
                    message,
                    at: self.clock.now(),
                });
            }
            Polled::Assigned { .. } | Polled::Revoked { .. } => {}
        }
    }

    fn record(&self, record: &RawRecord) {
        // Where that cannot be read now either, the record is not shown.
        if let Err(error) = self.schemas.see_to(&*self.log, [record]) {
            tracing::debug!(event = "record-unreadable", topic = %self.topic, offset = record.offset, %error, "the view cannot look for a schema");
        }
        match wire::decode(self.topic, &record.value) {
            Ok(message) => {
                if record.at >= self.started {
                    self.news(record.partition, &message);
                }
                match message {
                    Message::Audit(audit) => self.view.audit(record.at, audit),
                    Message::Signal(signal) => self.view.signal(record.at, signal),
                    Message::Alert(alert) => self.view.alert(alert),
                    _ => {}
                }
            }
            // The stage that consumes the topic makes a dead letter of it; here it is only not shown.
            Err(error) => tracing::debug!(event = "record-unreadable", topic = %self.topic, offset = record.offset, %error, "the view cannot read a record"),
        }
    }

    /// Tells what happened since the start.
    fn news(&self, partition: u32, message: &Message) {
        match message {
            Message::Audit(Audit::Decision(decision)) => Decided(decision).emit(),
            Message::Audit(Audit::Grant(grant)) => GrantLimited(grant).emit(),
            // What came of the others is told by the actuator, as it happens.
            Message::Audit(Audit::Outcome(outcome)) if outcome.result == OutcomeResult::Lost => CommandEnded(outcome).emit(),
            Message::Audit(Audit::Policy(policy)) => PolicyChanged(policy).emit(),
            Message::Audit(Audit::Rejected(rejected)) => PolicyRefused(rejected).emit(),
            // A mark goes to every partition.
            Message::Signal(Signal::Mark(mark)) if partition == 0 => Marked(mark).emit(),
            Message::Signal(Signal::Part(part)) => self.aggregated(part),
            Message::Alert(alert) => AlertChanged(alert).emit(),
            Message::DeadLetter(letter) => RecordPutAside(letter).emit(&self.put_aside),
            _ => {}
        }
    }

    /// Counts what was measured, and tells of what nobody asks for: a slip in a name would else go unseen.
    fn aggregated(&self, part: &Part) {
        let known = self.view.policies_are_known(self.clock.now());
        for Pane { metric, instances, .. } in &part.panes {
            let samples = instances.values().map(|reading| u64::try_from(reading.count).unwrap_or(0)).sum();
            AGGREGATED_SAMPLES.add("", samples);
            if !known {
                continue;
            }
            let (why, metric) = match self.view.asked(&part.target, metric) {
                Asked::NoPolicy => (SampleUnused::NoPolicy, None),
                Asked::NoMetric => (SampleUnused::NoMetric, Some(metric)),
                Asked::Yes | Asked::NotKnown => continue,
            };
            why.count(samples);
            let is_known = self.view.knows(&part.target);
            if let Some(times) = self.unused[usize::from(is_known)].note() {
                SamplesUnused { target: &part.target, is_known, reason: &self.view.unasked(&part.target, metric), times }.emit();
            }
        }
    }

    /// Does it until the log no longer says "later".
    fn patiently<T>(&self, mut it: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
        loop {
            match it() {
                Err(LogError::Retry { reason }) if !self.stop.is_set() => {
                    LogUnreadable { reader: self.group, reason: &reason }.emit(&self.unreadable);
                    self.stop.rest(REST);
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Partitions;
    use crate::log::memory::MemoryLog;
    use crate::runtime::clock::ManualClock;

    /// What retention removed before the view had read it is named, with its range.
    #[test]
    fn a_view_that_fell_behind_says_what_it_lacks() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_millis(1_764_000_000_000)));
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::clone(&clock)));
        let (view, stop) = (Arc::new(View::new()), Arc::default());
        let follower = Follower {
            topic: Topic::Audit,
            group: "view-audit",
            view: Arc::clone(&view),
            log,
            clock,
            stop,
            started: Timestamp::MIN,
            unreadable: Repeated::new(),
            put_aside: Repeated::new(),
            unused: [Repeated::new(), Repeated::new()],
            schemas: schemas::Reading::default(),
        };
        follower.take(Polled::Gap { partition: 0, from: 5, to: 9 });
        let alerts = view.general_alerts();
        assert_eq!(alerts.iter().map(|alert| (alert.name.as_str(), alert.subject.as_str())).collect::<Vec<_>>(), [("RecordsLost", "view/audit/0")]);
        assert!(alerts[0].message.contains("audit 5..9 of partition 0"), "{}", alerts[0].message);
    }
}
