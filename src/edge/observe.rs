//! Says what is there: observations of fleets, measurements, and what went wrong.
//!
//! Sources (the process supervisors) put what they see into an [`Outbox`], which never blocks them:
//! of each target it keeps the newest [`Sighting`] only, of measurements and alerts a bounded queue.
//! The [`Observer`] thread appends from it: a sighting when it differs from the last one appended,
//! and again at least once a minute, each with (uid, term, sequence), so that a repetition is
//! harmless. At least once.
//!
//! Invariant: nothing is made up. What a source does not report anew is not repeated either, so a
//! target whose state cannot be read falls silent and becomes blind; it never shrinks to nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{debug, error};

use self::lanes::Lanes;
use super::durable_file;
use super::stop::Bell;
use crate::log::{Log, LogError, Topic};
use crate::model::{Alert, FleetObservation, Instance, Message, Sample, SampleBatch, Signal, TargetId, Timestamp};
use crate::runtime::clock::Clock;
use crate::runtime::raw_appends;
use crate::runtime::retention::Room;
use crate::stages::Effects;

mod lanes;

/// An unchanged fleet is said again this long after it was last said. The fold wants it every 60 s;
/// half of that leaves room for one that is late.
const REPEAT: Duration = Duration::from_secs(30);

/// Batches of measurements that wait for the log: a fleet measures at most four times a second, so
/// four fleets may lose the log for a minute. Beyond it the oldest go; a gap is a gap.
const MAX_BATCHES: usize = 1024;

/// About what a measurement takes of the log: two names and a value.
const SAMPLE_BYTES: usize = 100;

/// Alerts that wait for the log; each is a change of a named state, so few.
const MAX_ALERTS: usize = 256;

/// How soon it is looked what came of an append.
const LOOK: Duration = Duration::from_millis(20);

/// What a source sees of a target's replicas, now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// The target.
    pub target: TargetId,
    /// Which incarnation of the target this is.
    pub uid: String,
    /// The version of the target's own record that `desired` was read from.
    pub revision: i64,
    /// The count that is asked for.
    pub desired: u32,
    /// The count that is there, without those that are being removed.
    pub status_replicas: u32,
    /// The replicas.
    pub instances: Vec<Instance>,
}

/// Where sources put what they see. Bounded; putting never waits.
#[derive(Debug, Default)]
pub struct Outbox {
    posted: Mutex<Posted>,
    /// Alerts that were put, and are not in the log yet.
    alerts_under_way: AtomicUsize,
    bell: Bell,
}

/// What was put into an [`Outbox`] since it was last emptied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Posted {
    /// The newest of each target.
    pub sightings: BTreeMap<TargetId, Sighting>,
    /// Measurements, the oldest first.
    pub samples: VecDeque<(TargetId, Vec<Sample>)>,
    /// Changes of named states, the oldest first.
    pub alerts: VecDeque<Alert>,
    /// Batches of measurements that found no room.
    pub dropped: u64,
}

impl Outbox {
    /// What is seen of a target now; replaces what was put before.
    pub fn sighting(&self, sighting: Sighting) {
        self.with(|posted| drop(posted.sightings.insert(sighting.target.clone(), sighting)));
    }

    /// Measurements of a target's instances.
    pub fn samples(&self, target: TargetId, samples: Vec<Sample>) {
        self.with(|posted| {
            if posted.samples.len() == MAX_BATCHES {
                posted.samples.pop_front();
                posted.dropped += 1;
            }
            posted.samples.push_back((target, samples));
        });
    }

    /// A named state that began or ended.
    pub fn alert(&self, alert: Alert) {
        self.with(|posted| {
            if posted.alerts.len() == MAX_ALERTS {
                posted.alerts.pop_front();
            } else {
                self.alerts_under_way.fetch_add(1, Ordering::SeqCst);
            }
            posted.alerts.push_back(alert);
        });
    }

    /// Whether every alert that was put is in the log.
    pub fn alerts_are_appended(&self) -> bool {
        self.alerts_under_way.load(Ordering::SeqCst) == 0
    }

    /// So many alerts that were taken out are in the log, or were put again.
    fn settle(&self, alerts: usize) {
        self.alerts_under_way.fetch_sub(alerts, Ordering::SeqCst);
    }

    /// Takes out all that is there; waits at most `wait` while there is nothing.
    pub fn take(&self, wait: Duration) -> Posted {
        self.bell.wait(wait);
        std::mem::take(&mut *self.posted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with(&self, put: impl FnOnce(&mut Posted)) {
        put(&mut self.posted.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.ring();
    }
}

/// What was appended last of each target, and when: makes observations of sightings.
#[derive(Debug)]
pub struct Ledger {
    term: i64,
    sequence: i64,
    said: BTreeMap<TargetId, (Sighting, Timestamp)>,
}

impl Ledger {
    /// A ledger of an observer's `term`, which grows with each start.
    pub fn new(term: i64) -> Self {
        Ledger { term, sequence: 0, said: BTreeMap::new() }
    }

    /// The observation to append for a sighting, where one is due.
    pub fn observe(&mut self, sighting: Sighting, now: Timestamp) -> Option<FleetObservation> {
        let unchanged = self.said.get(&sighting.target).filter(|(last, _)| *last == sighting);
        // A clock that was set back must not silence the fleet.
        if unchanged.is_some_and(|(_, at)| now >= *at && now.since(*at) < REPEAT) {
            return None;
        }
        self.sequence += 1;
        self.said.insert(sighting.target.clone(), (sighting.clone(), now));
        Some(FleetObservation {
            target: sighting.target,
            uid: sighting.uid,
            term: self.term,
            sequence: self.sequence,
            revision: Some(sighting.revision),
            desired: sighting.desired,
            status_replicas: sighting.status_replicas,
            updating: false,
            instances: sighting.instances,
        })
    }

    /// Makes the next sighting of every target due.
    fn forget(&mut self) {
        self.said.clear();
    }
}

/// The thread that appends what sources see. It ends with [`Observer::stop`], or when it is dropped.
pub struct Observer {
    outbox: Arc<Outbox>,
    stopping: Arc<Bell>,
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl Observer {
    /// Starts it. `term_file` keeps the observer's term, which grows with each start; `room` is what measurements may
    /// take of the log.
    ///
    /// # Errors
    /// When the term cannot be kept, or the system gives no thread.
    pub fn start(log: Arc<dyn Log>, outbox: Arc<Outbox>, clock: Arc<dyn Clock>, term_file: &Path, room: Arc<Room>) -> std::io::Result<Observer> {
        let term = next_term(term_file, clock.now())?;
        let stopping = Arc::new(Bell::default());
        let appender =
            Appender { log, outbox: Arc::clone(&outbox), clock, stopping: Arc::clone(&stopping), ledger: Ledger::new(term), room, lanes: Lanes::new() };
        let thread = std::thread::Builder::new().name("observe".to_owned()).spawn(move || appender.run())?;
        Ok(Observer { outbox, stopping, thread: Some(thread) })
    }

    /// Whether it has ended by itself: the log is closed, or broken.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, after what has been put so far is appended.
    ///
    /// # Errors
    /// What had ended it before.
    pub fn stop(mut self) -> Result<(), LogError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LogError> {
        self.stopping.stop();
        self.outbox.bell.ring();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(LogError::Fatal { reason: "the observer's thread panicked".to_owned() }),
            None => Ok(()),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            error!(event = "part-failed", %error, "the observer ended");
        }
    }
}

struct Appender {
    log: Arc<dyn Log>,
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    stopping: Arc<Bell>,
    ledger: Ledger,
    room: Arc<Room>,
    lanes: Lanes,
}

impl Appender {
    fn run(mut self) -> Result<(), LogError> {
        loop {
            // What was put before the order to end is still appended, where the log takes it.
            let last = self.stopping.is_stopping();
            let wait = match self.lanes.is_empty() {
                _ if last => Duration::ZERO,
                true => Duration::from_secs(1),
                false => LOOK,
            };
            let posted = self.outbox.take(wait);
            self.append(posted)?;
            if last {
                while self.lanes.is_busy() {
                    std::thread::sleep(LOOK);
                    self.append(self.outbox.take(Duration::ZERO))?;
                }
                return Ok(());
            }
        }
    }

    fn append(&mut self, posted: Posted) -> Result<(), LogError> {
        if posted.dropped > 0 {
            debug!(event = "measurements-dropped", batches = posted.dropped, "measurements were dropped: the log did not take them in time");
        }
        let effects = self.effects(posted).take();
        self.lanes.put(raw_appends(self.log.as_ref(), effects));
        let settled = self.lanes.go_on(self.log.as_ref())?;
        self.outbox.settle(settled.alerts);
        if settled.is_forgotten {
            // Sources see anew what is there now.
            self.ledger.forget();
        }
        Ok(())
    }

    fn effects(&mut self, posted: Posted) -> Effects {
        let now = self.clock.now();
        let mut effects = Effects::new();
        for (target, samples) in posted.samples {
            // In a full log they are refused as everybody's samples are; the alert says it.
            if !self.room.take((samples.len() * SAMPLE_BYTES) as u64) {
                continue;
            }
            let batch = SampleBatch { samples, ..SampleBatch::default() };
            effects.to_key(Topic::Metrics, target.as_str(), Message::Samples(batch));
        }
        for (target, sighting) in posted.sightings {
            if let Some(observation) = self.ledger.observe(sighting, now) {
                effects.to_key(Topic::Signals, target.as_str(), Message::Signal(Signal::Fleet(observation)));
            }
        }
        for alert in posted.alerts {
            let key = alert.target.as_ref().map_or_else(String::new, |target| target.as_str().to_owned());
            effects.to_key(Topic::Alerts, key, Message::Alert(alert));
        }
        effects
    }
}

/// The file of the observer's term in a data directory.
pub const TERM: &str = "term";

/// A term that is further ahead of the clock is none that a clock ever gave: a hundred years.
const LATEST_TERM_MS: i64 = 100 * 365 * 86_400_000;

/// What to do where the last term is not known.
const TERM_MEND: &str = "see that it is a file that this user may read and write, put it back from a backup, or write into it the time now as Unix milliseconds (or later, where a clock was ahead before)";

/// A term larger than every one before, and kept before it is used.
fn next_term(file: &Path, now: Timestamp) -> std::io::Result<i64> {
    let last = last_term(file, now)?;
    let term = last.map_or(now.as_millis(), |last| now.as_millis().max(last + 1));
    durable_file::replace(file, format!("{term}\n").as_bytes()).map_err(|error| unusable(file, &error))?;
    Ok(term)
}

/// The term of the last start; `None` where there was none.
///
/// # Errors
/// Where it cannot be told: with a guess observations could be taken for older than what was seen before.
pub fn last_term(file: &Path, now: Timestamp) -> std::io::Result<Option<i64>> {
    let latest = now.as_millis().saturating_add(LATEST_TERM_MS);
    match std::fs::read(file) {
        Ok(bytes) => {
            let term = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<i64>().ok()).filter(|term| *term < latest);
            let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{} is damaged, and holds no term; {TERM_MEND}", file.display()));
            term.map(Some).ok_or_else(damaged)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(file, &error)),
    }
}

fn unusable(file: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{} cannot be used: {error}; {TERM_MEND}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(desired: u32) -> Sighting {
        Sighting { target: "a/ProcessFleet/b".parse().unwrap(), uid: "u".to_owned(), revision: 1, desired, status_replicas: 1, instances: Vec::new() }
    }

    #[test]
    fn a_fleet_is_said_when_it_changes_and_every_half_minute() {
        let mut ledger = Ledger::new(7);
        let mut said = |desired, at| ledger.observe(sighting(desired), Timestamp::from_millis(at)).map(|o| (o.term, o.sequence, o.desired));
        assert_eq!(said(1, 0), Some((7, 1, 1)));
        assert_eq!(said(1, 29_999), None);
        assert_eq!(said(1, 30_000), Some((7, 2, 1)));
        assert_eq!(said(2, 30_001), Some((7, 3, 2)));
        assert_eq!(said(2, 30_002), None);
        assert_eq!(said(2, 100), Some((7, 4, 2)), "a clock that was set back silences nothing");
    }

    #[test]
    fn what_could_not_be_appended_is_due_again() {
        let mut ledger = Ledger::new(7);
        assert!(ledger.observe(sighting(1), Timestamp::from_millis(0)).is_some());
        ledger.forget();
        assert!(ledger.observe(sighting(1), Timestamp::from_millis(1)).is_some());
    }

    #[test]
    fn a_term_grows_with_each_start_even_when_the_clock_ran_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("term");
        assert_eq!(next_term(&file, Timestamp::from_millis(5_000)).unwrap(), 5_000);
        assert_eq!(next_term(&file, Timestamp::from_millis(3_000)).unwrap(), 5_001);
        assert_eq!(next_term(&file, Timestamp::from_millis(9_000)).unwrap(), 9_000);
        for damaged in [&b"garbage\n"[..], b"", b"\xff\xfe", b"9223372036854775807\n"] {
            std::fs::write(&file, damaged).unwrap();
            let said = next_term(&file, Timestamp::from_millis(9_000)).unwrap_err().to_string();
            assert!(said.contains(&file.display().to_string()) && said.contains("put it back from a backup"), "{said}");
            assert_eq!(std::fs::read(&file).unwrap(), damaged, "and nothing is guessed");
        }
    }

    #[test]
    fn an_outbox_keeps_the_newest_sighting_and_bounds_the_rest() {
        let outbox = Outbox::default();
        outbox.sighting(sighting(1));
        outbox.sighting(sighting(2));
        for _ in 0..MAX_BATCHES + 3 {
            outbox.samples("a/ProcessFleet/b".parse().unwrap(), Vec::new());
        }
        let posted = outbox.take(Duration::ZERO);
        assert_eq!(posted.sightings.into_values().map(|s| s.desired).collect::<Vec<_>>(), [2]);
        assert_eq!((posted.samples.len(), posted.dropped), (MAX_BATCHES, 3));
    }

    #[test]
    fn an_alert_is_under_way_until_it_is_in_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(crate::runtime::clock::ManualClock::new(Timestamp::from_millis(500)));
        let log = crate::log::memory::MemoryLog::new(crate::log::Partitions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let outbox = Arc::new(Outbox::default());
        assert!(outbox.alerts_are_appended(), "there is none");
        let alert = Alert {
            target: None,
            name: "A".to_owned(),
            subject: String::new(),
            severity: crate::model::Severity::Warning,
            state: crate::model::AlertState::Firing,
            message: String::new(),
            at: Timestamp::from_millis(1),
        };
        (0..MAX_ALERTS + 2).for_each(|_| outbox.alert(alert.clone()));
        assert!(!outbox.alerts_are_appended());
        let observer = Observer::start(Arc::new(log.clone()), Arc::clone(&outbox), clock, &directory.path().join("term"), Arc::new(Room::unlimited())).unwrap();
        observer.stop().unwrap();
        assert!(outbox.alerts_are_appended(), "those that found no room are not waited for");
        assert_eq!(log.scan(Topic::Alerts, 0, 0, 1000).unwrap().len(), MAX_ALERTS);
    }

    #[test]
    fn what_is_put_is_appended_even_when_the_end_comes_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(crate::runtime::clock::ManualClock::new(Timestamp::from_millis(500)));
        let log = crate::log::memory::MemoryLog::new(crate::log::Partitions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let outbox = Arc::new(Outbox::default());
        let observer = Observer::start(Arc::new(log.clone()), Arc::clone(&outbox), clock, &directory.path().join("term"), Arc::new(Room::unlimited())).unwrap();
        outbox.sighting(sighting(4));
        outbox.samples("a/ProcessFleet/b".parse().unwrap(), Vec::new());
        observer.stop().unwrap();
        let record = log.scan(Topic::Signals, 0, 0, 10).unwrap().remove(0);
        let message = crate::wire::decode(Topic::Signals, &record.value).unwrap();
        let Message::Signal(Signal::Fleet(seen)) = message else { panic!("{message:?}") };
        assert_eq!((seen.uid.as_str(), seen.term, seen.sequence, seen.revision, seen.desired), ("u", 500, 1, Some(1), 4));
        assert_eq!(record.key.as_deref(), Some("a/ProcessFleet/b"));
        assert_eq!(log.scan(Topic::Metrics, 0, 0, 10).unwrap().len(), 1);
    }
}
