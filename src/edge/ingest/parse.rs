//! From a body to samples, and from samples to records of the log.

use std::collections::BTreeMap;

use crate::log::{Log, RawAppend, Topic, partition_of};
use crate::model::{Message, Sample, SampleBatch, Timestamp};
use crate::runtime::raw_appends;
use crate::stages::Effects;
use crate::wire;

/// The most bytes of samples in one record, as estimated: half of what the log takes, since the
/// estimate is one.
const MAX_BATCH_BYTES: usize = crate::log::MAX_RECORD_BYTES / 2;

/// A sample, or why it is none, with its number from 1.
pub(super) type Numbered = (u64, Result<Sample, String>);

/// The samples of JSON lines. Empty lines are none.
pub(super) fn json_lines(body: &[u8], received: Timestamp) -> Box<dyn Iterator<Item = Numbered> + '_> {
    let lines = body.split(|b| *b == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    Box::new(lines.map(move |(line, number)| {
        let sample = std::str::from_utf8(line.trim_ascii())
            .map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to() + 1))
            .and_then(|line| wire::jsonl::sample_from_line(line, received).map_err(|e| e.to_string()));
        (number, sample)
    }))
}

/// The most samples of one Avro file: what fits into a request of 4 MiB, at about 40 bytes each.
const MAX_AVRO_SAMPLES: usize = 100_000;

/// The samples of an Avro object container file; numbers count samples.
pub(super) fn avro(body: &[u8]) -> Box<dyn Iterator<Item = Numbered>> {
    match wire::container::samples_from_container(body, MAX_AVRO_SAMPLES) {
        Ok(samples) => Box::new(samples.into_iter().map(Ok).zip(1..).map(|(sample, number)| (number, sample))),
        Err(error) => Box::new(std::iter::once((1, Err(error.to_string())))),
    }
}

/// Records for the log: samples of one partition together, each record well below the log's limit. A
/// target's samples go to one partition, in their order.
pub(super) fn records(samples: Vec<Sample>, log: &dyn Log) -> Vec<RawAppend> {
    let partitions = log.partitions(Topic::Metrics);
    let mut open: BTreeMap<u32, (usize, Vec<Sample>)> = BTreeMap::new();
    let mut effects = Effects::new();
    for sample in samples {
        let partition = sample.targets.first().map_or(0, |target| partition_of(target.as_str(), partitions));
        let size = estimate(&sample);
        let (bytes, batch) = open.entry(partition).or_default();
        if *bytes + size > MAX_BATCH_BYTES && !batch.is_empty() {
            effects.to_partition(Topic::Metrics, partition, message(std::mem::take(batch)));
            *bytes = 0;
        }
        *bytes += size;
        batch.push(sample);
    }
    for (partition, (_, batch)) in open {
        effects.to_partition(Topic::Metrics, partition, message(batch));
    }
    raw_appends(log, effects.take())
}

fn message(samples: Vec<Sample>) -> Message {
    Message::Samples(SampleBatch { producer: None, sequence: None, samples })
}

/// About how many bytes a sample takes: its names with their lengths, its time, value and kind (at most
/// 30), and a histogram's buckets (a double and a long of at most 10 bytes each).
fn estimate(sample: &Sample) -> usize {
    let names = sample.targets.iter().map(|t| t.as_str().len() + 3).sum::<usize>() + sample.metric.as_str().len() + sample.instance.as_str().len() + 6;
    let buckets = sample.histogram.as_ref().map_or(0, |h| (h.bounds.len() + h.counts.len()) * 10 + 32);
    names + buckets + 30
}
