//! A broker of its own, or a cluster that is there; topics of one scenario, what stands on them, and who reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use loadline::log::kafka::{KafkaLog, Options, reading, topics};
use loadline::log::{Log, Offset, Partitions, RawRecord, Topic};
use loadline::model::{Message, Timestamp};
use loadline::runtime::clock::{Clock, SystemClock};
use loadline::wire;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset as At, TopicPartitionList};

use super::Settings;
use super::process::{Process, Start, wait_for};
use crate::broker::Broker;
use crate::{place, program};

/// Topics of which an installation has as many partitions as it was made with.
const SHARED: [Topic; 4] = [Topic::Metrics, Topic::Signals, Topic::Commands, Topic::Audit];

/// How many records are read at once.
const SLICE: usize = 10_000;

/// How long the cluster may take to delete topics.
const DELETE: Duration = Duration::from_secs(30);

/// Where everything runs.
pub(super) struct Cluster {
    brokers: String,
    replication: u32,
    program: PathBuf,
    place: PathBuf,
    /// A name of this run alone.
    run: String,
    /// Its own broker, where it has one.
    _broker: Option<Broker>,
}

impl Cluster {
    /// Reaches the one that was named, or starts one.
    pub(super) fn reach(settings: &Settings) -> anyhow::Result<Cluster> {
        let program = program::find(settings.loadline.as_deref())?;
        let place = place::emptied(&settings.data)?;
        let run = format!("{:x}", SystemClock.now().as_millis());
        let broker = if settings.brokers.is_none() { Some(Broker::start(&place.join("broker"), &[])?) } else { None };
        let brokers = settings.brokers.clone().or_else(|| broker.as_ref().map(|broker| broker.address.clone())).unwrap_or_default();
        let cluster = Cluster { brokers, replication: settings.replication, program, place, run, _broker: broker };
        let options = cluster.options("ready", 1);
        wait_for("a broker that answers", || Ok(topics::apply(&options, true).is_ok().then_some(())))?;
        Ok(cluster)
    }

    /// Where the broker and the processes have their files.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    fn options(&self, name: &str, partitions: u32) -> Options {
        let partitions = SHARED.into_iter().fold(Partitions::default(), |all, topic| all.with(topic, partitions));
        Options {
            prefix: format!("bench-{}-{name}.", self.run),
            partitions: Some(partitions),
            replicas: Some(self.replication),
            ..Options::new(self.brokers.clone())
        }
    }

    /// Makes the topics of one scenario.
    pub(super) fn installation(&self, name: &str, partitions: u32) -> anyhow::Result<Installation<'_>> {
        let options = self.options(name, partitions);
        topics::apply(&options, false)?;
        // The brokers show them a moment after the controller.
        let log = wait_for("the topics to be shown", || Ok(KafkaLog::open(options.clone()).ok()))?;
        Ok(Installation { cluster: self, name: name.to_owned(), partitions, options, log: Arc::new(log) })
    }
}

/// Topics of one scenario; dropping it deletes them.
pub(super) struct Installation<'a> {
    cluster: &'a Cluster,
    name: String,
    /// How many partitions the shared topics have.
    pub(super) partitions: u32,
    /// How to reach it.
    pub(super) options: Options,
    /// It.
    pub(super) log: Arc<KafkaLog>,
}

impl Installation<'_> {
    /// Where a process of this name has its files.
    pub(super) fn home(&self, process: &str) -> PathBuf {
        self.cluster.place.join(&self.name).join(process)
    }

    /// Starts a Loadline on it.
    pub(super) fn start(&self, process: &str, roles: &str, pane: Duration) -> anyhow::Result<Process> {
        let (home, options) = (self.home(process), &self.options);
        Process::start(&Start { program: &self.cluster.program, home, options, partitions: self.partitions, roles, pane })
    }

    /// The name of a topic.
    pub(super) fn topic(&self, topic: Topic) -> String {
        format!("{}{topic}", self.options.prefix)
    }

    /// The end of each partition now.
    pub(super) fn ends(&self, topic: Topic) -> anyhow::Result<BTreeMap<u32, Offset>> {
        (0..self.log.partitions(topic)).map(|partition| Ok((partition, self.log.range(topic, partition)?.end))).collect()
    }

    /// How far a group has come in all partitions together.
    pub(super) fn committed(&self, group: &str, topic: Topic) -> anyhow::Result<u64> {
        (0..self.log.partitions(topic)).map(|partition| Ok(self.log.committed(group, topic, partition)?.unwrap_or(0))).sum()
    }

    /// Hands over all that stands on a topic, with the partition and the time at which it was appended.
    pub(super) fn each(&self, topic: Topic, mut take: impl FnMut(u32, Timestamp, Message)) -> anyhow::Result<()> {
        self.each_record(topic, |record| {
            take(record.partition, record.at, wire::decode(topic, &record.value)?);
            Ok(())
        })
    }

    /// The same, as it stands there.
    pub(super) fn each_record(&self, topic: Topic, mut take: impl FnMut(RawRecord) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for partition in 0..self.log.partitions(topic) {
            let mut next = self.log.range(topic, partition)?.start;
            loop {
                let records = self.log.scan(topic, partition, next, SLICE)?;
                let Some(last) = records.last() else { break };
                next = last.offset + 1;
                records.into_iter().try_for_each(&mut take)?;
            }
        }
        Ok(())
    }

    /// Reads what is committed on a topic from now on, with a client of its own.
    pub(super) fn tail(&self, topic: Topic) -> anyhow::Result<Tail> {
        let consumer = consumer(&reading(&self.options)?)?;
        let mut places = TopicPartitionList::new();
        for (partition, end) in self.ends(topic)? {
            places.add_partition_offset(&self.topic(topic), i32::try_from(partition)?, At::Offset(i64::try_from(end)?))?;
        }
        consumer.assign(&places)?;
        Ok(Tail { consumer, topic })
    }
}

impl Drop for Installation<'_> {
    /// A cluster that was there is left as it was; a broker of its own has room for what comes next.
    fn drop(&mut self) {
        if let Err(error) = delete(&self.options) {
            eprintln!("the topics {}* could not be deleted: {error:#}", self.options.prefix);
        }
    }
}

fn delete(options: &Options) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", &options.brokers).create()?;
    let metadata = admin.inner().fetch_metadata(None, DELETE)?;
    let names: Vec<&str> = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name).filter(|name| name.starts_with(&options.prefix)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for deleted in runtime.block_on(admin.delete_topics(&names, &AdminOptions::new().operation_timeout(Some(DELETE))))? {
        deleted.map_err(|(topic, error)| anyhow::anyhow!("{topic}: {error}"))?;
    }
    Ok(())
}

/// A bare client with these settings, outside of any group.
pub(super) fn consumer(settings: &BTreeMap<String, String>) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    for (name, value) in settings {
        config.set(name, value);
    }
    // librdkafka reads nothing without one; nothing is committed.
    Ok(config.set("group.id", "bench-reader").create()?)
}

/// Reads a topic as it grows.
pub(super) struct Tail {
    consumer: BaseConsumer,
    topic: Topic,
}

/// A record that a reader of what is committed has.
pub(super) struct Arrived {
    /// When it had it.
    pub(super) at: Timestamp,
    /// When the broker appended it.
    pub(super) appended: Timestamp,
    /// Its partition.
    pub(super) partition: u32,
    /// It.
    pub(super) message: Message,
}

impl Tail {
    /// The next one, where one comes within `wait`.
    pub(super) fn next(&self, wait: Duration) -> anyhow::Result<Option<Arrived>> {
        let Some(record) = self.consumer.poll(wait) else { return Ok(None) };
        let at = SystemClock.now();
        let record = record?;
        let appended = Timestamp::from_millis(record.timestamp().to_millis().context("the record has no time")?);
        let message = wire::decode(self.topic, record.payload().unwrap_or_default())?;
        Ok(Some(Arrived { at, appended, partition: u32::try_from(record.partition())?, message }))
    }
}
