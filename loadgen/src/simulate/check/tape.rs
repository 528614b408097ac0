//! Everything that was ever appended, in the order of each partition, decoded once; also what retention removed.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Offset, RawRecord, Topic};
use loadline::model::{Message, Timestamp};
use loadline::wire;

/// A record.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) at: Timestamp,
    pub(super) message: Result<Message, String>,
}

/// A partition, and an index into it.
pub(super) type Place = (u32, usize);

pub(super) struct Tape {
    log: MemoryLog,
    next: BTreeMap<(Topic, u32), Offset>,
    entries: BTreeMap<(Topic, u32), Vec<Entry>>,
    /// Of all bytes, in the order in which they were read.
    hashed: std::hash::DefaultHasher,
}

impl Tape {
    pub(super) fn new(log: MemoryLog) -> Self {
        Tape { log, next: BTreeMap::new(), entries: BTreeMap::new(), hashed: std::hash::DefaultHasher::new() }
    }

    /// Reads what is new. Decisions come before claims, claims before commands, as they were made.
    pub(super) fn look(&mut self) -> Vec<(Topic, Place)> {
        let mut new = Vec::new();
        for topic in [Topic::Metrics, Topic::Control, Topic::Signals, Topic::Audit, Topic::Requests, Topic::Commands, Topic::Alerts, Topic::DeadLetters] {
            for partition in 0..self.log.partitions(topic) {
                self.read(topic, partition, Offset::MAX, &mut new);
            }
        }
        new
    }

    /// Reads what will be removed.
    pub(super) fn read_up_to(&mut self, topic: Topic, partition: u32, before: Offset) {
        self.read(topic, partition, before, &mut Vec::new());
    }

    fn read(&mut self, topic: Topic, partition: u32, before: Offset, new: &mut Vec<(Topic, Place)>) {
        let next = self.next.entry((topic, partition)).or_default();
        let Ok(records) = self.log.scan(topic, partition, *next, usize::MAX) else { return };
        let entries = self.entries.entry((topic, partition)).or_default();
        for record in records.into_iter().take_while(|record| record.offset < before) {
            (topic, partition, record.offset, record.at, &record.key, &record.value).hash(&mut self.hashed);
            *next = record.offset + 1;
            let RawRecord { offset, at, value, .. } = record;
            entries.push(Entry { partition, offset, at, message: wire::decode(topic, &value).map_err(|error| error.to_string()) });
            new.push((topic, (partition, entries.len() - 1)));
        }
    }

    pub(super) fn entry(&self, topic: Topic, (partition, index): Place) -> Option<&Entry> {
        self.entries.get(&(topic, partition))?.get(index)
    }

    /// The records of a partition.
    pub(super) fn partition(&self, topic: Topic, partition: u32) -> &[Entry] {
        self.entries.get(&(topic, partition)).map_or(&[], Vec::as_slice)
    }

    /// The records of all partitions of a topic.
    pub(super) fn all(&self, topic: Topic) -> impl Iterator<Item = &Entry> {
        (0..self.log.partitions(topic)).flat_map(move |partition| self.partition(topic, partition))
    }

    pub(super) fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.values().map(|entries| entries.len() as u64).sum()
    }

    pub(super) fn hash(&self, hasher: &mut impl Hasher) {
        self.hashed.finish().hash(hasher);
    }
}
