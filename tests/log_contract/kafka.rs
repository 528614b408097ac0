//! The log on a real broker under the same checks: each has topics and groups of its own, by a prefix.

use std::time::Duration;

use loadline::log::kafka::{KafkaLog, Options, topics};
use loadline::log::{Log, Offset, Partitions, Topic};
use loadline::runtime::clock::ManualClock;

#[path = "../common/kafka.rs"]
mod broker;

use broker::{Broker, broker, makes};

use crate::harness::Harness;

/// Members come and go, as the default is, or keep their place by their name.
pub(crate) struct KafkaHarness<const STATIC_MEMBERS: bool> {
    log: KafkaLog,
    options: Options,
}

impl<const STATIC_MEMBERS: bool> Harness for KafkaHarness<STATIC_MEMBERS> {
    fn create(partitions: Partitions) -> Self {
        // Who ends while it still joins is waited for as long as a member that was killed: briefly, as its checks do that again and again.
        let session_timeout = Duration::from_secs(6);
        let options = Options { static_members: STATIC_MEMBERS, partitions: Some(partitions), session_timeout, ..broker().options(&Broker::prefix()) };
        makes(&options);
        KafkaHarness { log: Broker::open(&options), options }
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
        broker().delete_records(&format!("{}{topic}", self.options.prefix), i32::try_from(partition).unwrap(), i64::try_from(before).unwrap());
    }
    /// Somebody else begins transactions in the names of all owners, and leaves it at that: as a broker does where one stalled for longer than the time-out.
    fn refusing<T>(&self, act: impl FnOnce() -> T) -> T {
        for stage in topics::states().unwrap() {
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
