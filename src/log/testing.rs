//! For tests: logs that fail as they are told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::memory::MemoryLog;
use super::{Follower, Log, LogError, Membership, Offset, RawAppend, RawRecord, Session, Told, Topic};
use crate::model::Timestamp;

/// A log of which one topic takes nothing for now.
pub(crate) struct Refusing {
    pub(crate) log: MemoryLog,
    pub(crate) topic: Topic,
    pub(crate) refuses: Arc<AtomicBool>,
}

impl Log for Refusing {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }
    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
        self.log.join(membership)
    }
    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        self.log.follow(topic, from)
    }
    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        let is_refused = self.refuses.load(Ordering::SeqCst) && appends.iter().any(|append| append.topic == self.topic);
        if is_refused { Err(LogError::Retry { reason: "nobody leads it".to_owned() }) } else { self.log.append(appends) }
    }
    fn append_each(&self, calls: Vec<(Vec<RawAppend>, Told)>) {
        calls.into_iter().for_each(|(appends, told)| told(self.append(appends).map(drop)));
    }
    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.log.range(topic, partition)
    }
    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.scan(topic, partition, from, max)
    }
    fn reached(&self) -> Timestamp {
        self.log.reached()
    }
    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.log.states(group, partition)
    }
    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.log.committed(group, topic, partition)
    }
    fn close(&self) {
        self.log.close();
    }
}
