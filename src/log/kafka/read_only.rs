//! The topics of an installation for reading alone: nothing is joined, written, or held against the declaration. What is seen is committed.

use std::ops::Range;
use std::sync::Mutex;

use super::reader::Reader;
use super::topics::{Cluster, Found, Names, find};
use super::{Options, Topic};
use crate::log::coordinator::lock;
use crate::log::{LogError, Offset, RawRecord, ReadOnly};
use crate::model::Timestamp;

/// A reader of an installation's topics, beside the processes that run on them or after them.
pub struct ReadOnlyLog {
    names: Names,
    brokers: String,
    found: Cluster,
    reader: Mutex<Reader>,
}

impl ReadOnlyLog {
    /// Looks at what is there.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where a setting is wrong or the cluster refuses this client; [`LogError::Retry`] where it cannot be reached now.
    pub fn open(options: &Options) -> Result<Self, LogError> {
        let names = Names::new(&options.prefix)?;
        let found = find(options, Topic::ALL.into_iter().map(|topic| names.of(topic)))?;
        Ok(ReadOnlyLog { names, brokers: options.brokers.clone(), found, reader: Mutex::new(Reader::new(options)?) })
    }
}

impl ReadOnly for ReadOnlyLog {
    fn partitions(&self, topic: Topic) -> Result<u32, LogError> {
        let (name, brokers) = (self.names.of(topic), &self.brokers);
        let reason = match self.found.topics.get(name) {
            Some(Found::There(there)) => return Ok(there.partitions),
            Some(Found::Hidden(reason)) => {
                format!("whether topic {name} is at {brokers} cannot be seen: {reason}; this user needs the rights Describe and Read on it")
            }
            Some(Found::Missing) | None => {
                format!("there is no topic {name} at {brokers}: say with --prefix what the names of the installation's topics begin with (its kafka.prefix)")
            }
        };
        Err(LogError::Fatal { reason })
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        lock(&self.reader).range(self.names.of(topic), partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        lock(&self.reader).scan(self.names.of(topic), partition, from, max)
    }

    fn first_after(&self, topic: Topic, partition: u32, at: Timestamp) -> Result<Offset, LogError> {
        lock(&self.reader).first_after(self.names.of(topic), partition, at)
    }

    fn leaves_gaps(&self) -> bool {
        true
    }
}
