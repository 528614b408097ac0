//! The log on a real broker under the same checks: each has topics and groups of its own, by a prefix.

use loadline::log::kafka::{KafkaLog, Options, topics};
use loadline::log::{Log, Offset, Partitions, Topic};
use loadline::runtime::clock::ManualClock;

#[path = "../common/kafka.rs"]
mod broker;

use broker::{Broker, broker};

use crate::harness::Harness;

/// Members come and go, as the default is.
pub(crate) struct KafkaHarness {
    log: KafkaLog,
    options: Options,
}

impl KafkaHarness {
    fn of(partitions: &Partitions, change: impl FnOnce(&mut Options)) -> Self {
        let prefix = Broker::prefix();
        let mut options = broker().options(&prefix);
        change(&mut options);
        topics::create(&options, partitions, 1).unwrap();
        KafkaHarness { log: Broker::open(&options), options }
    }

    fn name(&self, topic: Topic) -> String {
        format!("{}{topic}", self.options.prefix)
    }
}

impl Harness for KafkaHarness {
    fn create(partitions: Partitions) -> Self {
        KafkaHarness::of(&partitions, |_| {})
    }
    fn log(&self) -> &dyn Log {
        &self.log
    }
    fn elsewhere(&self) -> Box<dyn Log> {
        Box::new(Broker::open(&self.options))
    }
    fn kill_and_reopen(&mut self) {
        self.log = Broker::open(&self.options);
    }
    fn trim(&self, topic: Topic, partition: u32, before: Offset) {
        broker().delete_records(&self.name(topic), i32::try_from(partition).unwrap(), i64::try_from(before).unwrap());
    }
    /// Somebody else begins transactions in the names of all owners, and leaves it at that: as a broker does where one stalled for longer than the time-out.
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T {
        for (stage, _) in topics::STATES {
            broker().begin_as(&format!("{}{stage}.0", self.options.prefix));
        }
        act()
    }
    fn settle(&self) {
        broker().settle(&self.options.prefix);
    }
    fn clock(&self) -> Option<&ManualClock> {
        None
    }
}

/// Members keep their place by their name.
pub(crate) struct StaticHarness(KafkaHarness);

impl Harness for StaticHarness {
    fn create(partitions: Partitions) -> Self {
        StaticHarness(KafkaHarness::of(&partitions, |options| options.static_members = true))
    }
    fn log(&self) -> &dyn Log {
        self.0.log()
    }
    fn elsewhere(&self) -> Box<dyn Log> {
        self.0.elsewhere()
    }
    fn kill_and_reopen(&mut self) {
        self.0.kill_and_reopen();
    }
    fn trim(&self, topic: Topic, partition: u32, before: Offset) {
        self.0.trim(topic, partition, before);
    }
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T {
        self.0.refusing(act)
    }
    fn settle(&self) {
        self.0.settle();
    }
    fn clock(&self) -> Option<&ManualClock> {
        self.0.clock()
    }
}
