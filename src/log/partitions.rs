//! How many partitions each topic has.

use super::{LogError, MAX_RECORD_BYTES, RawAppend, Topic};

/// The number of partitions of each topic: 1, where nothing else was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions([u32; Topic::ALL.len()]);

impl Default for Partitions {
    fn default() -> Self {
        Partitions([1; Topic::ALL.len()])
    }
}

impl Partitions {
    /// The same, but `count` partitions of `topic` (at least 1).
    #[must_use]
    pub fn with(mut self, topic: Topic, count: u32) -> Self {
        self.0[topic as usize] = count.max(1);
        self
    }

    /// The number of partitions of `topic`.
    pub fn of(&self, topic: Topic) -> u32 {
        self.0[topic as usize]
    }

    /// That `partition` exists.
    pub(super) fn check(&self, topic: Topic, partition: u32) -> Result<(), LogError> {
        let count = self.of(topic);
        if partition < count {
            return Ok(());
        }
        Err(LogError::Fatal { reason: format!("{topic} has no partition {partition}: its partitions are 0 to {}", count - 1) })
    }

    /// That each of `appends` is one that a log may take.
    pub(super) fn check_appends(&self, appends: &[RawAppend]) -> Result<(), LogError> {
        for append in appends {
            self.check(append.topic, append.partition)?;
            let bytes = append.key.as_ref().map_or(0, String::len) + append.value.len();
            if bytes > MAX_RECORD_BYTES {
                return Err(LogError::TooLarge { topic: append.topic, bytes });
            }
        }
        Ok(())
    }
}
