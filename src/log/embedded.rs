//! The embedded log: one directory, one process, no server. Records, positions and states stand in
//! one SQLite file that any `sqlite3` shell can open.
//!
//! - `log.db` (WAL, `synchronous=FULL`): a row holds the records that one commit appended to one
//!   partition ([`rows`]); the tables are in [`schema`].
//! - `lock`: held by the process that runs on the directory, with its pid ([`lock_file`]).
//!
//! One thread writes ([`writer`]): callers that wait at the same time share one transaction and so
//! one fsync, and each gets its own answer. Reads use connections of their own ([`reader`]) and
//! never hold the writer up. Membership lives in memory, as there is one process; positions and
//! states are durable.
//!
//! What an answer said is on the disk: `kill -9` and power failure lose nothing that was
//! acknowledged, and nothing of a commit that was not complete is ever seen. When a file is removed
//! or replaced under it, nothing is acknowledged any more ([`place`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::coordinator::{Committer, Coordinator, lock};
use super::directory;
use super::member::{Following, Member, Store};
use super::{Batch, CommitTimes, Follower, Log, LogError, Membership, Offset, Partitions, RawAppend, RawRecord, Session, Topic, Trouble};
use crate::model::Timestamp;
use crate::runtime::clock::Clock;

mod backup;
mod checksum;
mod failure;
mod inspect;
mod lock_file;
mod mend;
mod place;
mod positions;
mod read_only;
mod reader;
mod rows;
mod schema;
mod states;
mod tails;
mod transaction;
mod trouble;
mod writer;

pub use backup::{Restoring, copy};
pub use inspect::{Inspection, Lost, PartitionReport, Readable, Unopened};
pub use lock_file::{LOCK, Runs};
pub use mend::{Mending, mend};
pub use positions::{Difference, PositionKey, Positions, Ranges};
pub use read_only::ReadOnlyLog;
pub use states::{State, States};

use lock_file::{Content, LockFile};
use place::Place;
use reader::Reader;
use tails::Tails;
use trouble::Standing;
use writer::{Outcome, Work, Writer, Writing};

/// The database in the log's directory.
pub const DATABASE: &str = "log.db";

/// How an embedded log is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The partitions of each topic. Fixed when the log is created; only those of `metrics` may grow.
    pub partitions: Partitions,
    /// The most bytes that `log.db` may grow to; beyond it appends are refused with
    /// [`LogError::Retry`] until something was trimmed. `None`: what the disk has.
    pub max_bytes: Option<u64>,
}

/// What the database of a log takes of the disk; its write-ahead log (at most some tens of MB) comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes of pages that are in use: records, positions, states and their indices.
    pub used: u64,
    /// Bytes of pages that were used and are used again before the file grows.
    pub free: u64,
}

/// A row of a partition: what is deleted whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowExtent {
    /// The first offset behind it.
    pub end: Offset,
    /// When its records were appended.
    pub at: Timestamp,
    /// What deleting it frees, to within a page.
    pub bytes: u64,
}

/// A durable log in a directory. Clones are handles of the same log; the directory is free again
/// when the log was closed, or the last handle and the last session were dropped.
#[derive(Clone)]
pub struct EmbeddedLog {
    store: Arc<EmbeddedStore>,
    coordinator: Arc<Coordinator>,
}

impl EmbeddedLog {
    /// Opens the log in `directory`, which is created where it is not there.
    ///
    /// # Errors
    /// [`LogError::Fatal`] with the directory, the reason and the way out: it cannot be created or
    /// written, another process runs on it, a newer Loadline wrote it, or `options` contradict it.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>, options: Options) -> Result<Self, LogError> {
        Self::open_at(directory, clock, &options).map_err(|error| refusal(directory, error))
    }

    fn open_at(directory: &Path, clock: Arc<dyn Clock>, options: &Options) -> Result<Self, LogError> {
        let unusable = |reason: &dyn std::fmt::Display| LogError::Fatal {
            reason: format!("the log's directory {} cannot be used: {reason}; make it writable, or choose another with --data", directory.display()),
        };
        directory::make(directory).map_err(|error| unusable(&error))?;
        let path = directory.join(DATABASE);
        if std::fs::symlink_metadata(&path).is_ok_and(|file| !file.is_file()) {
            return Err(LogError::Fatal { reason: inspect::no_file(&path) });
        }
        let was_locked = directory.join(LOCK).exists();
        let lock_file = LockFile::take(directory)?;
        let looked = Self::look(directory, &lock_file, options);
        if looked.is_err() && !was_locked {
            // It is left as it was found.
            drop(std::fs::remove_file(directory.join(LOCK)));
        }
        looked?;
        let (connection, tails) = schema::open(&path, options)?;
        // SQLite syncs the file, and this its name: else a power failure could lose a new log whole.
        directory::sync(directory).map_err(|error| unusable(&error))?;
        let place = Arc::new(Place::of(directory).map_err(|error| unusable(&error))?);
        let mark = lock_file.mark().map_err(|error| unusable(&error))?;
        mark.set(tails.appended());
        let tails = Arc::new(tails);
        let coordinator = Arc::<Coordinator>::default();
        let standing = Arc::new(Standing::new(directory, options.max_bytes));
        let times = Arc::<CommitTimes>::default();
        let writing = Writing {
            connection,
            tails: Arc::clone(&tails),
            coordinator: Arc::clone(&coordinator),
            clock: Arc::clone(&clock),
            standing: Arc::clone(&standing),
            times: Arc::clone(&times),
            place: Arc::clone(&place),
            mark,
        };
        let writer = Writer::start(writing).map_err(|error| unusable(&error))?;
        let store = EmbeddedStore { clock, writer, reader: Reader::new(path), tails, standing, times, place, lock_file: Mutex::new(Some(lock_file)) };
        Ok(EmbeddedLog { store: Arc::new(store), coordinator })
    }

    /// Looks for all that a start is refused for, and changes nothing, but for a mend that it brings to its end.
    fn look(directory: &Path, lock_file: &LockFile, options: &Options) -> Result<(), LogError> {
        if let Some(before) = mend::settle(directory, lock_file)? {
            tracing::warn!(event = "mend-resumed", "a mend of the log was stopped, and is brought to its end: the log as it was is {}", before.display());
        }
        let found = Content::read(directory);
        let path = directory.join(DATABASE);
        let is_new = std::fs::metadata(&path).map_or(0, |file| file.len()) == 0;
        check_complete(directory, is_new)?;
        let mark = found.mark.unwrap_or(0);
        // First it is looked at without a change: what is refused is left as it was found.
        let appended = if is_new { None } else { schema::look(&path, &options.partitions)? };
        match appended {
            None if mark > 0 && wal_bytes(directory) > 0 => return Err(LogError::Fatal { reason: beginning_is_gone(directory) }),
            None if mark > 0 => return Err(LogError::Fatal { reason: log_is_gone(directory, mark) }),
            Some(appended) if mark > appended => return Err(LogError::Fatal { reason: newest_part_is_gone(directory, mark - appended) }),
            Some(appended) if found.mark.is_none() && appended > 0 => {
                let lock = directory.join(LOCK);
                let lock = lock.display();
                tracing::warn!(event = "mark-missing", "{lock} was deleted or damaged: whether the newest records are there cannot be told");
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the log in `directory` for reading alone: from any process, whether another one runs
    /// on the directory or none.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where there is no log that this version can read.
    pub fn open_read_only(directory: &Path) -> Result<ReadOnlyLog, LogError> {
        ReadOnlyLog::open(directory)
    }

    /// Deletes records before `before`, as far as whole rows (what one commit appended) allow, in
    /// small steps between which others write. The earliest offset afterwards, at most `before`.
    /// Freed space is used again; the file does not shrink.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn trim(&self, topic: Topic, partition: u32, before: Offset) -> Result<Offset, LogError> {
        self.coordinator.check_open()?;
        self.store.tails.check(topic, partition)?;
        loop {
            if let Outcome::Trimmed { earliest, done: true } = self.store.writer.write(Work::Trim { topic, partition, before })? {
                return Ok(earliest);
            }
        }
    }
}

impl EmbeddedLog {
    /// That the log's files are still the ones that are open. Once they are not, nothing is written any more: whoever runs
    /// on the log is to end, with this reason.
    ///
    /// # Errors
    /// [`LogError::Fatal`] with the file that was removed or replaced, and the way out.
    pub fn check_place(&self) -> Result<(), LogError> {
        self.store.place.check().map_err(|reason| LogError::Fatal { reason })
    }
}

/// A data directory without a log of its own, which this process has for itself until it is dropped.
pub struct Occupied {
    _lock: LockFile,
}

/// Takes a data directory, which is created where it is not there, as [`EmbeddedLog::open`] does, and opens no log in it.
///
/// # Errors
/// [`LogError::Fatal`]: it cannot be written, or another process runs on it.
pub fn occupy(directory: &Path) -> Result<Occupied, LogError> {
    let unusable = |error: std::io::Error| LogError::Fatal {
        reason: format!("the data directory {} cannot be used: {error}; make it writable, or choose another with --data", directory.display()),
    };
    directory::make(directory).map_err(unusable)?;
    Ok(Occupied { _lock: LockFile::take(directory)? })
}

/// What retention asks.
impl EmbeddedLog {
    /// What the database takes of the disk.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`], as with the others.
    pub fn space(&self) -> Result<Space, LogError> {
        self.coordinator.check_open()?;
        self.store.reader.space()
    }

    /// The first rows of a partition, at most `rows`, in order.
    ///
    /// # Errors
    /// As [`Log::scan`].
    pub fn head(&self, topic: Topic, partition: u32, rows: u32) -> Result<Vec<RowExtent>, LogError> {
        self.coordinator.check_open()?;
        self.store.tails.check(topic, partition)?;
        self.store.reader.head(topic, partition, rows)
    }

    /// The bytes of all rows of a partition, as [`RowExtent::bytes`] counts them.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the partition does not exist, or the log is closed.
    pub fn bytes(&self, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.coordinator.check_open()?;
        Ok(self.store.tails.extent(topic, partition)?.bytes)
    }

    /// One entry of the state of (group, partition).
    ///
    /// # Errors
    /// As [`Log::states`].
    pub fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        self.coordinator.check_open()?;
        self.store.reader.state(group, partition, key)
    }
}

/// What a directory's log was being restored into says until it is complete.
const RESTORING: &str = "restoring";

fn half_restored(directory: &Path) -> String {
    format!("a restore into {} did not come to its end; empty it, and restore again", directory.display())
}

/// That nothing is missing beside the database which SQLite would not miss.
fn check_complete(directory: &Path, is_new: bool) -> Result<(), LogError> {
    if directory.join(RESTORING).exists() {
        return Err(LogError::Fatal { reason: half_restored(directory) });
    }
    if is_new && wal_bytes(directory) > 0 {
        let wal = directory.join(format!("{DATABASE}-wal"));
        let reason = format!(
            "{} is there, and the {DATABASE} that it belongs to is not; put that back, or, to begin a new log, move {DATABASE}-wal away too",
            wal.display()
        );
        return Err(LogError::Fatal { reason });
    }
    Ok(())
}

fn log_is_gone(directory: &Path, records: u64) -> String {
    format!(
        "the log in {} that held {records} records is gone: {DATABASE} is missing or empty. Put it back, or restore a backup; to begin a new log, move {} \
         away too",
        directory.display(),
        directory.join(LOCK).display()
    )
}

/// What stands beside the database that SQLite has not copied into it yet, in bytes.
fn wal_bytes(directory: &Path) -> u64 {
    std::fs::metadata(directory.join(format!("{DATABASE}-wal"))).map_or(0, |wal| wal.len())
}

/// Of a log whose tables are all in the WAL yet, which SQLite does not read behind a damage at its beginning.
fn beginning_is_gone(directory: &Path) -> String {
    format!(
        "the log in {} cannot be read: {DATABASE} has no tables yet, and what was written since is in {DATABASE}-wal, which is damaged at its beginning: keep a \
         copy of both, and restore a backup; to begin a new log, move both and {} away",
        directory.display(),
        directory.join(LOCK).display()
    )
}

fn newest_part_is_gone(directory: &Path, records: u64) -> String {
    format!(
        "the log in {0} lacks the newest {records} records that were acknowledged: was {DATABASE}-wal deleted, or an older {DATABASE} put there? Put back what \
         was there; or go on without: `loadline doctor {0}` says what is left, and mends it",
        directory.display()
    )
}

/// The reason for which a log cannot be opened: a full disk is at the bottom of many.
fn refusal(directory: &Path, error: LogError) -> LogError {
    match (error, trouble::free_bytes(directory)) {
        (LogError::Fatal { reason }, Some(free)) if free < trouble::FULL_BYTES => LogError::Fatal {
            reason: format!(
                "no room is left in {} ({free} bytes are free on its file system): make room there, then start again. What failed: {reason}",
                directory.display()
            ),
        },
        (error, _) => error,
    }
}

impl Log for EmbeddedLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.store.tails.partitions().of(topic)
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
        let partitions = self.partitions(membership.topic);
        Ok(Box::new(Member::join(Arc::clone(&self.store), Arc::clone(&self.coordinator), &membership, partitions)?))
    }

    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        let partitions = self.partitions(topic);
        Ok(Box::new(Following::begin(Arc::clone(&self.store), Arc::clone(&self.coordinator), topic, from, partitions)?))
    }

    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        self.coordinator.check_open()?;
        if appends.is_empty() {
            return Ok(Vec::new());
        }
        self.store.tails.partitions().check_appends(&appends)?;
        let (chunks, places) = rows::chunks(&appends)?;
        drop(appends);
        match self.store.writer.write(Work::Append(chunks))? {
            Outcome::Appended(firsts) => Ok(places.into_iter().map(|(chunk, index)| firsts[chunk] + index).collect()),
            other => Err(other.unexpected()),
        }
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.coordinator.check_open()?;
        self.store.range(topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.coordinator.check_open()?;
        self.store.scan(topic, partition, from, max)
    }

    fn reached(&self) -> Timestamp {
        self.store.clock.now()
    }

    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.coordinator.check_open()?;
        self.store.reader.states(group, partition)
    }

    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.coordinator.check_open()?;
        self.store.committed(group, topic, partition)
    }

    fn trouble(&self) -> Option<Trouble> {
        self.store.standing.trouble()
    }

    fn commit_times(&self) -> Option<&CommitTimes> {
        Some(&self.store.times)
    }

    /// Also waits for the writes that are under way, and frees the directory.
    fn close(&self) {
        self.coordinator.close();
        self.store.stop();
    }
}

/// The storage behind an [`EmbeddedLog`].
struct EmbeddedStore {
    clock: Arc<dyn Clock>,
    writer: Writer,
    reader: Reader,
    tails: Arc<Tails>,
    standing: Arc<Standing>,
    times: Arc<CommitTimes>,
    place: Arc<Place>,
    lock_file: Mutex<Option<LockFile>>,
}

impl EmbeddedStore {
    /// Ends the readers; then the writer, which as the last connection copies the WAL into the
    /// database and removes it; then lets the directory go, so that two never write.
    fn stop(&self) {
        self.reader.close();
        self.writer.stop();
        drop(lock(&self.lock_file).take());
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Store for EmbeddedStore {
    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.tails.range(topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        if from >= self.tails.range(topic, partition)?.end {
            return Ok(Vec::new());
        }
        self.reader.scan(topic, partition, from, max)
    }

    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.reader.committed(group, topic, partition)
    }

    fn commit(&self, committer: Committer, batch: &Batch) -> Result<(), LogError> {
        self.tails.partitions().check_appends(&batch.appends)?;
        let (chunks, _) = rows::chunks(&batch.appends)?;
        let work = Work::Commit { committer, partition: batch.partition, position: batch.position, chunks, states: batch.states.clone() };
        self.writer.write(work).map(|_| ())
    }
}
