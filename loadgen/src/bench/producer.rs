//! Samples as any client writes them: all at once, or at a steady rate.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use loadline::model::{InstanceName, Kind, Message, MetricName, Sample, SampleBatch, TargetId, Timestamp};
use loadline::runtime::clock::Stopwatch;
use loadline::wire;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::process::PATIENCE;

/// How long a full queue is waited for.
const FULL: Duration = Duration::from_millis(5);

/// A client that writes to one topic.
pub(super) struct Producer {
    client: ThreadedProducer<Refused>,
    topic: String,
}

/// The first record that was not taken.
#[derive(Default)]
struct Refused(Mutex<Option<KafkaError>>);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result
            && let Ok(mut first) = self.0.lock()
        {
            first.get_or_insert_with(|| error.clone());
        }
    }
}

impl Producer {
    /// One that gathers records for so long, to send them together.
    pub(super) fn new(brokers: &str, topic: String, gathers: Duration) -> anyhow::Result<Producer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("acks", "all").set("enable.idempotence", "true").set("compression.type", "lz4");
        config.set("linger.ms", gathers.as_millis().to_string()).set("batch.size", "1000000");
        Ok(Producer { client: config.create_with_context(Refused::default())?, topic })
    }

    /// Hands a record to the client, when it has room.
    pub(super) fn send(&self, partition: u32, key: Option<&str>, value: &[u8]) -> anyhow::Result<()> {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&self.topic).partition(i32::try_from(partition)?).payload(value);
        record.key = key;
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(FULL);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until all of it is acknowledged.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.client.flush(PATIENCE)?;
        match self.client.context().0.lock().ok().and_then(|first| first.clone()) {
            Some(error) => bail!("a record was not taken: {error}"),
            None => Ok(()),
        }
    }
}

/// Ends producers and whoever else looks at this, also where the one who has it fails.
pub(super) struct Ending<'a>(pub(super) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A gauge of a target as a whole.
pub(super) fn gauge(target: &TargetId, metric: &MetricName, time: Timestamp, value: f64) -> Sample {
    let (targets, metric, instance) = (vec![target.clone()], metric.clone(), InstanceName::none());
    Sample { targets, metric, instance, time, kind: Kind::Gauge, value, histogram: None }
}

/// A record of these.
pub(super) fn record(samples: Vec<Sample>) -> Vec<u8> {
    wire::encode(&Message::Samples(SampleBatch { samples, ..SampleBatch::default() }))
}

/// How many samples stand in a record at this rate: at most 100, and 200 records a second or more.
pub(super) fn record_size(rate: u32) -> u32 {
    (rate / 200).clamp(1, 100)
}

/// Sends `per_record` samples of `next` at a time, to the partitions in turn, so many a second in all, until `ended`. What is late is made up for. How many
/// were sent, and over how long.
pub(super) fn steadily(
    producer: &Producer,
    (rate, per_record, partitions): (u32, u32, u32),
    mut next: impl FnMut() -> anyhow::Result<Sample>,
    ended: impl Fn() -> bool,
) -> anyhow::Result<(u64, Duration)> {
    let started = Stopwatch::start();
    let mut records = 0_u64;
    while !ended() {
        let due = Duration::from_secs_f64(records as f64 * f64::from(per_record) / f64::from(rate));
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let samples = (0..per_record).map(|_| next()).collect::<anyhow::Result<_>>()?;
        producer.send(u32::try_from(records % u64::from(partitions))?, None, &record(samples))?;
        records += 1;
    }
    let took = started.elapsed();
    producer.flush()?;
    Ok((records * u64::from(per_record), took))
}
