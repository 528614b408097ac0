//! Where each partition begins and ends and how much it holds, as of the last commit: kept in memory,
//! since one process writes, so that a member that is at the end learns it without a query.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use crate::log::coordinator::lock;
use crate::log::{LogError, Offset, Partitions, Topic};

/// What a partition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The earliest and the next offset.
    pub(super) offsets: Range<Offset>,
    /// The bytes of its rows; see [`super::rows::ROW_OVERHEAD`].
    pub(super) bytes: u64,
}

/// The extent of each partition.
pub(super) type Ends = BTreeMap<(Topic, u32), Extent>;

/// The ends of all partitions.
pub(super) struct Tails {
    partitions: Partitions,
    ends: Mutex<Ends>,
}

impl Tails {
    pub(super) fn new(partitions: Partitions, ends: Ends) -> Self {
        Tails { partitions, ends: Mutex::new(ends) }
    }

    pub(super) fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    pub(super) fn check(&self, topic: Topic, partition: u32) -> Result<(), LogError> {
        self.partitions.check(topic, partition)
    }

    /// The ends of one partition.
    pub(super) fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        Ok(self.extent(topic, partition)?.offsets)
    }

    /// What one partition holds.
    pub(super) fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        self.check(topic, partition)?;
        Ok(lock(&self.ends).get(&(topic, partition)).cloned().unwrap_or_default())
    }

    /// How many records were ever appended, over all partitions.
    pub(super) fn appended(&self) -> u64 {
        lock(&self.ends).values().map(|extent| extent.offsets.end).sum()
    }

    /// Makes the ends that a transaction changed visible, after its commit.
    pub(super) fn publish(&self, changed: Ends) {
        lock(&self.ends).extend(changed);
    }
}
