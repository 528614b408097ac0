//! The messages of a topic of a cluster, as they come.

use std::collections::BTreeMap;

use loadline::log::kafka::KafkaLog;
use loadline::log::{Log, Offset, Topic};
use loadline::model::Message;
use loadline::wire;

use crate::common::wait_for;
use crate::kafka::answered;

/// A topic that is read from its beginning on.
pub(crate) struct Tail {
    log: KafkaLog,
    topic: Topic,
    next: BTreeMap<u32, Offset>,
    /// What was read so far.
    pub(crate) seen: Vec<Message>,
}

impl Tail {
    pub(crate) fn new(log: &KafkaLog, topic: Topic) -> Tail {
        Tail { log: log.clone(), topic, next: BTreeMap::new(), seen: Vec::new() }
    }

    /// Waits for a message that is as wanted.
    pub(crate) fn find<T>(&mut self, what: &str, wanted: impl Fn(&Message) -> Option<T>) -> T {
        wait_for(what, || {
            self.look();
            self.seen.iter().find_map(&wanted)
        })
    }

    /// Reads what there is.
    pub(crate) fn look(&mut self) {
        for partition in 0..self.log.partitions(self.topic) {
            let next = self.next.entry(partition).or_default();
            let records = answered(|| self.log.scan(self.topic, partition, *next, 10_000));
            *next = records.last().map_or(*next, |last| last.offset + 1);
            self.seen.extend(records.iter().map(|record| wire::decode(self.topic, &record.value).unwrap()));
        }
    }
}
