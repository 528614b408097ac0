//! The one file in which a fleet's count, uid, revision and epoch stand.
//!
//! It is the truth: it is read anew for every question, replaced as a whole and on disk before a
//! write returns, and changed by compare-and-set under a lock that other processes of Loadline
//! respect too (`loadline scale` may write it while `loadline run` supervises). Once it is there,
//! the document's `replicas` is of no meaning any more.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::MAX_REPLICAS;
use super::procfs;
use crate::edge::durable_file;
use crate::log::directory;
use crate::model::Timestamp;
use crate::model::json;
use crate::runtime::clock::Stopwatch;

/// How long it takes until a lock that another process holds is tried again. A write takes a few
/// milliseconds, and the kernel offers no wait with a deadline.
const LOCK_WAIT: Duration = Duration::from_millis(2);

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FleetRecord {
    /// Which incarnation of the fleet this is.
    pub(crate) uid: String,
    /// The count that is asked for.
    pub(crate) replicas: u32,
    /// Grows by one with every change.
    pub(crate) revision: i64,
    /// The largest epoch of a command that was carried out.
    pub(crate) epoch: i64,
    /// Who changed it last.
    pub(crate) changed_by: String,
    /// When.
    pub(crate) changed_at: Timestamp,
}

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// There is none.
    #[error("{} is missing; it holds the fleet's count, and nothing is started or stopped without it", .0.display())]
    Missing(PathBuf),
    /// It is not the expected one any more.
    #[error("revision {found} was found where {expected} was expected")]
    Conflict { expected: i64, found: i64 },
    /// It holds something else.
    #[error("{} cannot be used: {reason}; put it back from a copy, or remove it while Loadline is stopped to begin a new incarnation", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    System { path: PathBuf, source: io::Error },
    /// Another process held the lock.
    #[error("{} was locked by another process for {waited:?}", path.display())]
    Locked { path: PathBuf, waited: Duration },
}

/// The file of one fleet.
#[derive(Debug)]
pub(crate) struct RecordFile {
    path: PathBuf,
}

impl RecordFile {
    /// The file at `path`; nothing is read yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        RecordFile { path }
    }

    /// What stands there now.
    pub(crate) fn read(&self) -> Result<FleetRecord, RecordError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RecordError::Missing(self.path.clone())),
            Err(source) => return Err(RecordError::System { path: self.path.clone(), source }),
        };
        let malformed = |reason: String| RecordError::Malformed { path: self.path.clone(), reason };
        let record: FleetRecord = json::read_bytes(&text).map_err(|error| malformed(error.to_string()))?;
        if record.uid.is_empty() || record.uid.contains('/') || record.replicas > MAX_REPLICAS || record.revision < 1 {
            return Err(malformed(format!("uid \"{}\", replicas {}, revision {}", record.uid, record.replicas, record.revision)));
        }
        Ok(record)
    }

    /// What stands there; where there is no file yet, a new incarnation with `replicas`.
    pub(crate) fn read_or_create(&self, replicas: u32, now: Timestamp) -> Result<FleetRecord, RecordError> {
        match self.read() {
            Err(RecordError::Missing(_)) => {}
            other => return other,
        }
        let _lock = self.lock(Duration::from_secs(1))?;
        match self.read() {
            Err(RecordError::Missing(_)) => {}
            other => return other,
        }
        let uid = procfs::new_uid().map_err(|source| self.system(source))?;
        let record = FleetRecord { uid, replicas, revision: 1, epoch: 0, changed_by: "document".to_owned(), changed_at: now };
        self.replace(&record)?;
        Ok(record)
    }

    /// Sets the count if (uid, revision) is still the expected one, within `deadline`.
    pub(crate) fn compare_and_set(
        &self,
        expected: (&str, i64),
        replicas: u32,
        epoch: Option<i64>,
        by: (&str, Timestamp),
        deadline: Duration,
    ) -> Result<FleetRecord, RecordError> {
        let _lock = self.lock(deadline)?;
        let found = self.read()?;
        if (found.uid.as_str(), found.revision) != expected {
            return Err(RecordError::Conflict { expected: expected.1, found: found.revision });
        }
        let record = FleetRecord {
            uid: found.uid,
            replicas,
            revision: found.revision + 1,
            epoch: epoch.map_or(found.epoch, |epoch| epoch.max(found.epoch)),
            changed_by: by.0.to_owned(),
            changed_at: by.1,
        };
        self.replace(&record)?;
        Ok(record)
    }

    fn replace(&self, record: &FleetRecord) -> Result<(), RecordError> {
        let bytes = serde_json::to_vec_pretty(record).map_err(|error| self.system(error.into()))?;
        durable_file::replace(&self.path, &bytes).map_err(|source| self.system(source))
    }

    /// Takes the lock; it is given back when the file is dropped.
    fn lock(&self, deadline: Duration) -> Result<File, RecordError> {
        let path = self.path.with_extension("lock");
        if let Some(directory) = path.parent() {
            directory::make(directory).map_err(|source| self.system(source))?;
        }
        let file = File::options().create(true).append(true).open(&path).map_err(|source| RecordError::System { path, source })?;
        let waiting = Stopwatch::start();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if waiting.elapsed() < deadline => std::thread::sleep(LOCK_WAIT),
                Err(TryLockError::WouldBlock) => return Err(RecordError::Locked { path: self.path.clone(), waited: waiting.elapsed() }),
                Err(TryLockError::Error(source)) => return Err(self.system(source)),
            }
        }
    }

    fn system(&self, source: io::Error) -> RecordError {
        RecordError::System { path: self.path.clone(), source }
    }

    /// Where it stands.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn the_document_counts_once_and_then_the_record() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::new(directory.path().join("local/bots.json"));
        assert!(matches!(file.read(), Err(RecordError::Missing(_))));
        let first = file.read_or_create(2, at(1)).unwrap();
        assert_eq!((first.replicas, first.revision, first.epoch), (2, 1, 0));
        assert_eq!(file.read_or_create(9, at(2)).unwrap(), first);
    }

    #[test]
    fn only_the_expected_record_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::new(directory.path().join("bots.json"));
        let first = file.read_or_create(2, at(1)).unwrap();
        let second = file.compare_and_set((&first.uid, 1), 5, Some(70), ("actuator", at(2)), SOON).unwrap();
        assert_eq!((second.replicas, second.revision, second.epoch), (5, 2, 70));
        for expected in [(first.uid.as_str(), 1), ("another", 2)] {
            let refused = file.compare_and_set(expected, 7, None, ("ana", at(3)), SOON);
            assert!(matches!(refused, Err(RecordError::Conflict { found: 2, .. })), "{expected:?}");
        }
        let manual = file.compare_and_set((&first.uid, 2), 3, None, ("ana", at(3)), SOON).unwrap();
        assert_eq!((manual.replicas, manual.revision, manual.epoch, manual.changed_by.as_str()), (3, 3, 70, "ana"));
        assert_eq!(file.read().unwrap(), manual);
    }

    #[test]
    fn of_writers_at_once_each_revision_has_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::new(directory.path().join("bots.json"));
        let first = file.read_or_create(0, at(1)).unwrap();
        let won: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (1..=8)
                .map(|n| {
                    scope.spawn({
                        let (file, uid) = (&file, &first.uid);
                        move || file.compare_and_set((uid, 1), n, None, ("x", at(2)), SOON).is_ok()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| usize::from(writer.join().unwrap())).sum()
        });
        assert_eq!((won, file.read().unwrap().revision), (1, 2));
    }

    #[test]
    fn what_is_no_record_is_named_and_never_taken_for_zero() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecordFile::new(directory.path().join("bots.json"));
        for text in ["", "{}", r#"{"uid":"u","replicas":99999,"revision":1,"epoch":0,"changedBy":"x","changedAt":0}"#] {
            fs::write(file.path(), text).unwrap();
            assert!(matches!(file.read_or_create(1, at(1)), Err(RecordError::Malformed { .. })), "{text}");
        }
    }
}
