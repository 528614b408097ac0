//! A log's directory for reading alone, beside the process that runs on it or after it: takes no
//! lock, writes nothing into the log, and sees what is committed.

use std::ops::Range;
use std::path::Path;

use super::failure::Failure;
use super::inspect::Unopened;
use super::reader::Reader;
use super::schema::check_version;
use super::{DATABASE, mend};
use crate::log::{LogError, Offset, Partitions, RawRecord, ReadOnly, Topic};

/// A reader of an embedded log; see [`super::EmbeddedLog::open_read_only`].
pub struct ReadOnlyLog {
    reader: Reader,
}

impl ReadOnlyLog {
    pub(super) fn open(directory: &Path) -> Result<Self, LogError> {
        if mend::is_unfinished(directory) {
            return Err(Unopened::Unfinished { directory: directory.to_owned() }.into());
        }
        let path = directory.join(DATABASE);
        if !path.exists() {
            return Err(LogError::Fatal {
                reason: format!("there is no log in {}: start `loadline run` there, or name its directory with --data", directory.display()),
            });
        }
        let refused = |reason: &dyn std::fmt::Display| LogError::Fatal { reason: format!("{} cannot be read: {reason}", path.display()) };
        let reader = Reader::new(path.clone());
        let version = reader.with(|connection| Ok::<_, Failure>(check_version(connection))).map_err(|error| refused(&error))?;
        match version {
            Ok(false) => Ok(ReadOnlyLog { reader }),
            Ok(true) => Err(refused(&"it is still empty")),
            Err(error) => Err(refused(&format!("{error}; {}", error.mend(&path)))),
        }
    }

    /// How many partitions each topic has.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`], as with the others.
    pub fn partitions(&self) -> Result<Partitions, LogError> {
        Ok(self.reader.partitions()?.0)
    }

    /// As [`crate::log::Log::range`].
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        let (partitions, ends) = self.reader.partitions()?;
        partitions.check(topic, partition)?;
        Ok(ends.get(&(topic, partition)).map_or(0..0, |extent| extent.offsets.clone()))
    }

    /// As [`crate::log::Log::scan`].
    ///
    /// # Errors
    /// As there.
    pub fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.range(topic, partition)?;
        self.reader.scan(topic, partition, from, max)
    }

    /// As [`crate::log::Log::states`].
    ///
    /// # Errors
    /// As there.
    pub fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.reader.states(group, partition)
    }

    /// As [`crate::log::Log::committed`].
    ///
    /// # Errors
    /// As there.
    pub fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.reader.committed(group, topic, partition)
    }
}

impl ReadOnly for ReadOnlyLog {
    fn partitions(&self, topic: Topic) -> Result<u32, LogError> {
        Ok(self.partitions()?.of(topic))
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.range(topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.scan(topic, partition, from, max)
    }

    fn leaves_gaps(&self) -> bool {
        false
    }
}
