//! A log under test, and the words in which the checks are written.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::memory::{Fault, MemoryLog};
use loadline::log::{Batch, Log, LogError, Membership, Offset, Partitions, Polled, RawAppend, RawRecord, Session, StatePut, Topic};
use loadline::model::Timestamp;
use loadline::runtime::clock::{ManualClock, Stopwatch};

/// How long a check waits for what must come: far longer than it takes, as it only ends a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// A log under test: what a check needs beyond the port itself. A log on a broker, whose clients live in other processes,
/// implements the same.
///
/// No check takes more for granted than the port promises: offsets count up but may have holes; a poll may come back with
/// nothing, and what must come comes within [`DEADLINE`]; what one member does is known to another in its time.
pub(crate) trait Harness: Sync + Sized {
    /// A new, empty log of its own: topics and groups that no other check uses (on a broker, under a prefix of its own).
    fn create(partitions: Partitions) -> Self;
    /// The log, as one process has it.
    fn log(&self) -> &dyn Log;
    /// The same log as another process of the installation has it. Where only one process may run on a log, another
    /// handle.
    fn elsewhere(&self) -> Box<dyn Log>;
    /// Ends the process without closing the log, and starts another one. All sessions were dropped before.
    fn kill_and_reopen(&mut self);
    /// Deletes records before `before`, as far as the log's storage allows.
    fn trim(&self, topic: Topic, partition: u32, before: Offset);
    /// Makes the one commit that `act` tries fail on the way, so that none of it takes effect.
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T;
    /// Waits until readers see all that was committed: on a broker, a moment later.
    fn settle(&self) {}
    /// The log's clock, where it can be set (a broker's cannot).
    fn clock(&self) -> Option<&ManualClock>;
}

pub(crate) struct MemoryHarness {
    log: MemoryLog,
    clock: Arc<ManualClock>,
}

impl Harness for MemoryHarness {
    fn create(partitions: Partitions) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        MemoryHarness { log: MemoryLog::new(partitions, Arc::clone(&clock) as _), clock }
    }
    fn log(&self) -> &dyn Log {
        &self.log
    }
    fn elsewhere(&self) -> Box<dyn Log> {
        Box::new(self.log.clone())
    }
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T {
        self.log.inject(Fault::Refused);
        act()
    }
    fn kill_and_reopen(&mut self) {
        self.log = self.log.reopen();
    }
    fn trim(&self, topic: Topic, partition: u32, before: Offset) {
        self.log.trim(topic, partition, before).unwrap();
    }
    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }
}

impl MemoryHarness {
    pub(crate) fn memory(&self) -> &MemoryLog {
        &self.log
    }
}

/// The memory log with holes between its offsets, as a broker's transactions leave them.
pub(crate) struct GappedHarness(MemoryHarness);

impl Harness for GappedHarness {
    fn create(partitions: Partitions) -> Self {
        let MemoryHarness { log, clock } = MemoryHarness::create(partitions);
        GappedHarness(MemoryHarness { log: log.with_markers(), clock })
    }
    fn log(&self) -> &dyn Log {
        self.0.log()
    }
    fn elsewhere(&self) -> Box<dyn Log> {
        self.0.elsewhere()
    }
    fn kill_and_reopen(&mut self) {
        self.0.kill_and_reopen();
    }
    fn trim(&self, topic: Topic, partition: u32, before: Offset) {
        self.0.trim(topic, partition, before);
    }
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T {
        self.0.refusing(act)
    }
    fn clock(&self) -> Option<&ManualClock> {
        self.0.clock()
    }
}

pub(crate) struct EmbeddedHarness {
    /// `None` only while it is opened again.
    log: Option<EmbeddedLog>,
    clock: Arc<ManualClock>,
    options: Options,
    directory: tempfile::TempDir,
}

impl EmbeddedHarness {
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
    pub(crate) fn embedded(&self) -> &EmbeddedLog {
        self.log.as_ref().unwrap()
    }
}

impl Harness for EmbeddedHarness {
    fn create(partitions: Partitions) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        let directory = tempfile::tempdir().unwrap();
        let options = Options { partitions, ..Options::default() };
        let log = EmbeddedLog::open(directory.path(), Arc::clone(&clock) as _, options).unwrap();
        EmbeddedHarness { log: Some(log), clock, options, directory }
    }
    fn log(&self) -> &dyn Log {
        self.embedded()
    }
    fn elsewhere(&self) -> Box<dyn Log> {
        Box::new(self.embedded().clone())
    }
    /// A person in a shell holds the database.
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T {
        let shell = rusqlite::Connection::open(self.directory().join("log.db")).unwrap();
        shell.execute_batch("BEGIN IMMEDIATE").unwrap();
        let answer = act();
        shell.execute_batch("COMMIT").unwrap();
        answer
    }
    /// What is in the files at this moment, which is what a process that dies now leaves: how it ends is of the directory of before.
    fn kill_and_reopen(&mut self) {
        let left = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            std::fs::copy(&file, left.path().join(file.file_name().unwrap())).unwrap();
        }
        (self.log, self.directory) = (None, left);
        self.log = Some(EmbeddedLog::open(self.directory.path(), Arc::clone(&self.clock) as _, self.options).unwrap());
    }
    fn trim(&self, topic: Topic, partition: u32, before: Offset) {
        self.embedded().trim(topic, partition, before).unwrap();
    }
    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }
}

/// `count` partitions of signals.
pub(crate) fn signals(count: u32) -> Partitions {
    Partitions::default().with(Topic::Signals, count)
}

/// A record for a partition of signals.
pub(crate) fn signal(partition: u32, value: impl Into<String>) -> RawAppend {
    to(Topic::Signals, partition, value)
}

/// A record with a key.
pub(crate) fn to(topic: Topic, partition: u32, value: impl Into<String>) -> RawAppend {
    RawAppend { topic, partition, key: Some("prod/Deployment/api".to_owned()), value: value.into().into_bytes() }
}

/// Joins the group `decide`, which reads signals.
pub(crate) fn join(log: &dyn Log, member: &str) -> Box<dyn Session> {
    join_as(log, "decide", member, Topic::Signals)
}

pub(crate) fn join_as(log: &dyn Log, group: &'static str, member: &str, topic: Topic) -> Box<dyn Session> {
    log.join(Membership { group, member: member.to_owned(), topic }).unwrap()
}

/// A batch that only moves the position.
pub(crate) fn position(partition: u32, next: Offset) -> Batch {
    Batch { partition, position: Some(next), ..Batch::default() }
}

/// A state put.
pub(crate) fn put(key: &str, value: Option<&str>) -> StatePut {
    StatePut { key: key.to_owned(), value: value.map(|value| value.as_bytes().to_vec()) }
}

/// The value of a record as text.
pub(crate) fn text(record: &RawRecord) -> String {
    String::from_utf8(record.value.clone()).unwrap()
}

/// The values of all records of a partition.
pub(crate) fn all(log: &dyn Log, topic: Topic, partition: u32) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = 0;
    loop {
        let records = log.scan(topic, partition, next, 1000).unwrap();
        let Some(last) = records.last() else { return texts };
        next = last.offset + 1;
        texts.extend(records.iter().map(text));
    }
}

/// Runs `poll` on a thread of its own, and `act` when that is about to begin; what `poll` came to, before its time was over.
pub(crate) fn while_waiting<T: Send>(poll: impl FnOnce() -> T + Send, act: impl FnOnce()) -> T {
    std::thread::scope(|scope| {
        let (about_to, is_about_to) = channel();
        let waiting = scope.spawn(move || {
            about_to.send(()).unwrap();
            let started = Stopwatch::start();
            let polled = poll();
            assert!(started.elapsed() < DEADLINE, "it waited until its time was over");
            polled
        });
        is_about_to.recv().unwrap();
        act();
        waiting.join().unwrap()
    })
}

/// Asks again until `done` holds of everything that came.
pub(crate) fn until(mut poll: impl FnMut() -> Vec<Polled>, done: impl Fn(&[Polled]) -> bool) -> Vec<Polled> {
    let started = Stopwatch::start();
    let mut polled = Vec::new();
    while !done(&polled) {
        assert!(started.elapsed() < DEADLINE, "only this came: {polled:?}");
        polled.extend(poll());
    }
    polled
}

/// Polls until `done` holds of everything that came.
pub(crate) fn poll_until(session: &mut dyn Session, done: impl Fn(&[Polled]) -> bool) -> Vec<Polled> {
    until(|| session.poll(100, DEADLINE).unwrap(), done)
}

/// Polls until `count` records came.
pub(crate) fn poll_records(session: &mut dyn Session, count: usize) -> Vec<RawRecord> {
    records(&poll_until(session, |polled| records(polled).len() >= count))
}

/// The records among what was polled.
pub(crate) fn records(polled: &[Polled]) -> Vec<RawRecord> {
    polled
        .iter()
        .flat_map(|polled| match polled {
            Polled::Records { records, .. } => records.clone(),
            _ => Vec::new(),
        })
        .collect()
}

/// A batch that moves the position behind `record`.
pub(crate) fn behind(record: &RawRecord) -> Batch {
    position(record.partition, record.offset + 1)
}

/// The records that were told as gone: from, and up to.
pub(crate) fn gone(polled: &[Polled]) -> Vec<(Offset, Offset)> {
    polled
        .iter()
        .filter_map(|polled| match polled {
            Polled::Gap { from, to, .. } => Some((*from, *to)),
            _ => None,
        })
        .collect()
}

/// The offsets of all records of a partition.
pub(crate) fn offsets(log: &dyn Log, topic: Topic, partition: u32) -> Vec<Offset> {
    log.scan(topic, partition, 0, 100_000).unwrap().iter().map(|record| record.offset).collect()
}

/// The partitions that were assigned, with their positions.
pub(crate) fn assigned(polled: &[Polled]) -> Vec<(u32, Offset)> {
    polled
        .iter()
        .filter_map(|polled| match polled {
            Polled::Assigned { partition, position } => Some((*partition, *position)),
            _ => None,
        })
        .collect()
}

/// The partitions that were revoked.
pub(crate) fn revoked(polled: &[Polled]) -> Vec<u32> {
    polled
        .iter()
        .filter_map(|polled| match polled {
            Polled::Revoked { partition } => Some(*partition),
            _ => None,
        })
        .collect()
}

/// Polls until `count` partitions were assigned.
pub(crate) fn poll_assigned(session: &mut dyn Session, count: usize) -> Vec<(u32, Offset)> {
    assigned(&poll_until(session, |polled| assigned(polled).len() >= count))
}

/// Polls until it is told that another took over.
pub(crate) fn poll_fenced(session: &mut dyn Session) {
    let started = Stopwatch::start();
    loop {
        match session.poll(1, DEADLINE.saturating_sub(started.elapsed())) {
            Err(error) => return assert_fenced(Err::<(), _>(error)),
            Ok(polled) => assert!(started.elapsed() < DEADLINE, "it is never told: {polled:?}"),
        }
    }
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "a call takes the outcome of another call")]
pub(crate) fn assert_fenced<T: std::fmt::Debug>(outcome: Result<T, LogError>) {
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
}

#[track_caller]
pub(crate) fn assert_fatal<T: std::fmt::Debug>(outcome: Result<T, LogError>) -> String {
    let Err(LogError::Fatal { reason }) = outcome else { panic!("{outcome:?}") };
    reason
}

/// Each of `offsets` from `from` on was read, or told as gone, and never both.
pub(crate) fn nothing_is_skipped_silently(offsets: &[Offset], from: Offset, polled: &[Polled]) {
    let read: Vec<_> = records(polled).iter().map(|record| record.offset).collect();
    for offset in offsets.iter().filter(|offset| **offset >= from) {
        let is_gone = gone(polled).iter().any(|(from, to)| from <= offset && offset < to);
        assert_eq!(usize::from(is_gone) + read.iter().filter(|read| *read == offset).count(), 1, "{offset}: {polled:?}");
    }
}
