//! Everything that was ever appended, in the order of each partition, decoded once; also what retention removed.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Offset, RawRecord, Topic};
use loadline::model::{Message, Timestamp};
use loadline::wire;

use super::super::scenario::Millis;

/// A record.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) at: Timestamp,
    /// The virtual time of the look that found it.
    pub(super) seen: Millis,
    pub(super) message: Result<Message, String>,
}

pub(super) struct Tape {
    log: MemoryLog,
    now: Millis,
    next: BTreeMap<(Topic, u32), Offset>,
    entries: BTreeMap<(Topic, u32), Vec<Arc<Entry>>>,
    /// Read before they were removed, and not looked at yet.
    unseen: Vec<Arc<Entry>>,
    /// Of all bytes, in the order in which they were read.
    hashed: std::hash::DefaultHasher,
}

impl Tape {
    pub(super) fn new(log: MemoryLog) -> Self {
        Tape { log, now: 0, next: BTreeMap::new(), entries: BTreeMap::new(), unseen: Vec::new(), hashed: std::hash::DefaultHasher::new() }
    }

    /// Reads what is new. Decisions come before claims, claims before commands, as they were made.
    pub(super) fn look(&mut self, now: Millis) -> Vec<Arc<Entry>> {
        self.now = now;
        let mut new = std::mem::take(&mut self.unseen);
        for topic in [Topic::Metrics, Topic::Control, Topic::Signals, Topic::Audit, Topic::Requests, Topic::Commands, Topic::Alerts, Topic::DeadLetters] {
            for partition in 0..self.log.partitions(topic) {
                self.read(topic, partition, Offset::MAX, &mut new);
            }
        }
        new
    }

    /// Reads what will be removed.
    pub(super) fn read_up_to(&mut self, topic: Topic, partition: u32, before: Offset) {
        let mut new = std::mem::take(&mut self.unseen);
        self.read(topic, partition, before, &mut new);
        self.unseen = new;
    }

    fn read(&mut self, topic: Topic, partition: u32, before: Offset, new: &mut Vec<Arc<Entry>>) {
        let next = self.next.entry((topic, partition)).or_default();
        let Ok(records) = self.log.scan(topic, partition, *next, usize::MAX) else { return };
        let entries = self.entries.entry((topic, partition)).or_default();
        for record in records.into_iter().take_while(|record| record.offset < before) {
            (topic, partition, record.offset, record.at, &record.key, &record.value).hash(&mut self.hashed);
            *next = record.offset + 1;
            let RawRecord { offset, at, value, .. } = record;
            let entry = Arc::new(Entry { partition, offset, at, seen: self.now, message: wire::decode(topic, &value).map_err(|error| error.to_string()) });
            entries.push(Arc::clone(&entry));
            new.push(entry);
        }
    }

    /// The records of a partition.
    pub(super) fn partition(&self, topic: Topic, partition: u32) -> &[Arc<Entry>] {
        self.entries.get(&(topic, partition)).map_or(&[], Vec::as_slice)
    }

    /// The records of all partitions of a topic.
    pub(super) fn all(&self, topic: Topic) -> impl Iterator<Item = &Arc<Entry>> {
        (0..self.log.partitions(topic)).flat_map(move |partition| self.partition(topic, partition))
    }

    pub(super) fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    /// Up to where a group has committed its input: what it made of earlier records stands in the log.
    pub(super) fn committed(&self, group: &str, topic: Topic, partition: u32) -> Offset {
        self.log.committed(group, topic, partition).ok().flatten().unwrap_or(0)
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.values().map(|entries| entries.len() as u64).sum()
    }

    pub(super) fn hash(&self, hasher: &mut impl Hasher) {
        self.hashed.finish().hash(hasher);
    }
}
