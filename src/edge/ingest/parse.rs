//! From a body to records of the log, sample by sample: at no time are more samples in memory than the records that are being filled.

use std::collections::BTreeMap;

use crate::log::{Log, RawAppend, Topic, partition_of};
use crate::model::{Message, Sample, SampleBatch, Timestamp};
use crate::stages::aggregate::MAX_PRODUCER_BYTES;
use crate::wire;
use crate::wire::container::{ContainerError, each_batch};

/// The most bytes of samples in one record, as estimated: half of what the log takes, since the
/// estimate is one.
const MAX_BATCH_BYTES: usize = crate::log::MAX_RECORD_BYTES / 2;

/// The longest line: a sample is to fit into a record with others. One that is longer names thousands of targets, and takes a multiple of itself to read.
const MAX_LINE_BYTES: usize = MAX_BATCH_BYTES;

/// The most samples of one Avro file: what fits into a request of 4 MiB, at about 40 bytes each.
const MAX_AVRO_SAMPLES: usize = 100_000;

/// The most bytes of samples in one Avro file, as estimated: deflated names take next to nothing in the file, and all of it in the log.
const MAX_AVRO_BYTES: usize = 16 * 1024 * 1024;

/// Who sent samples, and as which of its messages: what tells a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbering {
    /// The producer.
    pub producer: String,
    /// The producer's count of its messages.
    pub sequence: i64,
}

/// A sample, or why it is none.
pub(super) type Read = Result<Sample, String>;

/// Gives each sample of JSON lines, with the number of its line from 1. Empty lines are none.
pub(super) fn json_lines(body: &[u8], received: Timestamp) -> impl Iterator<Item = (u64, Read)> {
    let lines = body.split(|b| *b == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    lines.map(move |(line, number)| {
        if line.len() > MAX_LINE_BYTES {
            let most = MAX_LINE_BYTES >> 10;
            return (number, Err(format!("the line has {} bytes, and a sample takes at most {most} KiB; name fewer targets in one line", line.len())));
        }
        let sample = std::str::from_utf8(line.trim_ascii())
            .map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to() + 1))
            .and_then(|line| wire::jsonl::sample_from_line(line, received).map_err(|e| e.to_string()));
        (number, sample)
    })
}

/// Puts the samples of an Avro object container file that `usable` leaves into records, with its number from 1. Each batch keeps its
/// own producer and sequence, unless `numbering` stands for all of them.
///
/// # Errors
/// Where the file cannot be read to its end; then nothing of it is to be taken.
pub(super) fn avro(
    body: &[u8],
    numbering: Option<&Numbering>,
    records: &mut Records<'_>,
    mut usable: impl FnMut(u64, Sample) -> Option<Sample>,
) -> Result<(), ContainerError> {
    let mut number = 0;
    each_batch(body, MAX_AVRO_SAMPLES, |batch| {
        let SampleBatch { producer, sequence, part, samples } = batch;
        if numbering.is_none() {
            if part != 0 {
                return Err("part is set where a large request is split; leave it out".to_owned());
            }
            if let Some(producer) = &producer {
                check_producer(producer)?;
            }
            records.number(producer, sequence);
        }
        for sample in samples {
            number += 1;
            if let Some(sample) = usable(number, sample) {
                records.push(sample);
            }
        }
        if records.estimate > MAX_AVRO_BYTES {
            return Err(format!("the samples up to here take more than {} MiB; send them in several files", MAX_AVRO_BYTES >> 20));
        }
        Ok(())
    })
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
    /// The bytes of all samples.
    estimate: usize,
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
        Records { log, open: BTreeMap::new(), producer: None, sequence: None, appends: Vec::new(), estimate: 0 }
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
        let partitions = self.log.partitions(Topic::Metrics);
        let partition = sample.targets.first().map_or(0, |target| partition_of(target.as_str(), partitions));
        let size = estimate(&sample);
        let open = self.open.entry(partition).or_default();
        if open.bytes + size > MAX_BATCH_BYTES && !open.samples.is_empty() {
            let (samples, part) = (std::mem::take(&mut open.samples), open.part);
            (open.bytes, open.part) = (0, part + 1);
            self.append(partition, part, samples);
        }
        let open = self.open.entry(partition).or_default();
        open.bytes += size;
        open.samples.push(sample);
        self.estimate += size;
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
        // What is not numbered has no parts.
        let part = if self.sequence.is_some() { part } else { 0 };
        let batch = SampleBatch { producer: self.producer.clone(), sequence: self.sequence, part, samples };
        self.appends.push(RawAppend { topic: Topic::Metrics, partition, key: None, value: wire::encode(&Message::Samples(batch)) });
    }
}

/// About how many bytes a sample takes: its names with their lengths, its time, value and kind (at most
/// 30), and a histogram's buckets (a double and a long of at most 10 bytes each).
fn estimate(sample: &Sample) -> usize {
    let names = sample.targets.iter().map(|t| t.as_str().len() + 3).sum::<usize>() + sample.metric.as_str().len() + sample.instance.as_str().len() + 6;
    let buckets = sample.histogram.as_ref().map_or(0, |h| (h.bounds.len() + h.counts.len()) * 10 + 32);
    names + buckets + 30
}
