//! From samples to records of the log, sample by sample: at no time are more samples in memory than the records that are being filled.

use std::collections::BTreeMap;

use crate::log::{Log, RawAppend, Topic, partition_of};
use crate::model::{Message, Sample, SampleBatch};
use crate::stages::aggregate::MAX_PRODUCER_BYTES;
use crate::wire;
use crate::wire::samples::estimate;

/// The most bytes of samples in one record, as estimated: half of what the log takes, since the
/// estimate is one.
const MAX_BATCH_BYTES: usize = crate::log::MAX_RECORD_BYTES / 2;

/// Who sent samples, and as which of its messages: what tells a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbering {
    /// The producer.
    pub producer: String,
    /// The producer's count of its messages.
    pub sequence: i64,
}

/// Whether a message that its producer wrote whole can be taken as it is.
///
/// # Errors
/// Why not.
pub(super) fn check_message(producer: Option<&str>, part: i64) -> Result<(), String> {
    if part != 0 {
        return Err("part is set where a large request is split; leave it out".to_owned());
    }
    producer.map_or(Ok(()), check_producer)
}

/// Whether a producer's name can be remembered.
///
/// # Errors
/// Why not.
pub(super) fn check_producer(producer: &str) -> Result<(), String> {
    match producer.len() {
        0 => Err("the producer's name is empty".to_owned()),
        length if length > MAX_PRODUCER_BYTES => Err(format!("the producer's name has {length} bytes, and at most {MAX_PRODUCER_BYTES} are remembered")),
        _ => Ok(()),
    }
}

/// Records for the log: samples of one partition together, each record well below the log's limit. A
/// target's samples go to one partition, in their order.
pub(super) struct Records<'a> {
    log: &'a dyn Log,
    open: BTreeMap<u32, Open>,
    producer: Option<String>,
    sequence: Option<i64>,
    appends: Vec<RawAppend>,
}

/// What is being filled for a partition.
#[derive(Default)]
struct Open {
    bytes: usize,
    samples: Vec<Sample>,
    /// How many records of this sequence there were.
    part: i64,
}

impl<'a> Records<'a> {
    pub(super) fn new(log: &'a dyn Log) -> Records<'a> {
        Records { log, open: BTreeMap::new(), producer: None, sequence: None, appends: Vec::new() }
    }

    /// What is pushed from here on is a message of this number: it shares no record with another message, so that each is told
    /// from its repetition by itself. What has no number may share one.
    pub(super) fn number(&mut self, producer: Option<String>, sequence: Option<i64>) {
        if self.producer.is_some() || producer.is_some() {
            self.close_all();
        }
        (self.producer, self.sequence) = (producer, sequence);
    }

    pub(super) fn push(&mut self, sample: Sample) {
        self.place(&sample).samples.push(sample);
    }

    /// A sample that is not taken now, and may be when the same request comes again, or may have been before: where a part ends does not depend on it, so
    /// that each has the same samples then.
    pub(super) fn leave_out(&mut self, sample: &Sample) {
        self.place(sample);
    }

    /// Where a sample goes, with room for it.
    fn place(&mut self, sample: &Sample) -> &mut Open {
        let partitions = self.log.partitions(Topic::Metrics);
        let partition = sample.targets.first().map_or(0, |target| partition_of(target.as_str(), partitions));
        let size = estimate(sample);
        let open = self.open.entry(partition).or_default();
        if open.bytes + size > MAX_BATCH_BYTES && open.bytes > 0 {
            let (samples, part) = (std::mem::take(&mut open.samples), open.part);
            (open.bytes, open.part) = (0, part + 1);
            self.append(partition, part, samples);
        }
        let open = self.open.entry(partition).or_default();
        open.bytes += size;
        open
    }

    pub(super) fn finish(mut self) -> Vec<RawAppend> {
        self.close_all();
        self.appends
    }

    fn close_all(&mut self) {
        for (partition, Open { samples, part, .. }) in std::mem::take(&mut self.open) {
            self.append(partition, part, samples);
        }
    }

    fn append(&mut self, partition: u32, part: i64, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        // What is not numbered has no parts.
        let part = if self.sequence.is_some() { part } else { 0 };
        let batch = SampleBatch { producer: self.producer.clone(), sequence: self.sequence, part, samples, unread: 0 };
        self.appends.push(RawAppend { topic: Topic::Metrics, partition, key: None, value: wire::encode(&Message::Samples(batch)) });
    }
}
