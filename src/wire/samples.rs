//! Samples as producers of any kind send them: one reader for bodies over HTTP and for records on `metrics`.
//!
//! JSON lines, an Avro object container file, or OTLP in protobuf; a message in Avro's single-object encoding is the log's own, and read as such,
//! and so is one in Confluent's framing.
//! A sample that cannot be read costs no other one where it stands by itself (a line, a data point); what is broken as a whole is refused as a whole.

use super::avro::{BY_GUID, CONFLUENT, MARKER};
use super::container::each_batch;
use super::{Read, WireError, jsonl, otlp};
use crate::log::{MAX_RECORD_BYTES, RawRecord, Topic};
use crate::model::spelling::shorten;
use crate::model::{Message, Sample, SampleBatch, Timestamp};

/// The longest line: a sample is to fit into a record with others. One that is longer names thousands of targets, and takes a multiple of itself to read.
const MAX_LINE_BYTES: usize = MAX_RECORD_BYTES / 2;

/// The most samples of one file or request that is not of lines: what fits into a request of 4 MiB, at about 40 bytes each.
const MAX_SAMPLES: usize = 100_000;

/// The most bytes of samples in one of those, as estimated: a name that is deflated, or said once for many points, takes next to nothing there, and all
/// of it in the log.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The oldest sample that is taken, in milliseconds before it was received: no window is longer.
const OLDEST_MS: i64 = 86_400_000;

/// Of what a record lacks, so much is said; the rest is counted.
const MOST_TOLD: usize = 3;

/// How an object container file begins.
const CONTAINER: [u8; 4] = *b"Obj\x01";

/// What samples are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One sample a line.
    JsonLines,
    /// An Avro object container file.
    Avro,
    /// OTLP's `ExportMetricsServiceRequest` in protobuf.
    Otlp,
}

impl Format {
    /// The format that a `content-type` names.
    pub fn of_type(named: &str) -> Option<Format> {
        let media = named.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match media.as_str() {
            "application/x-ndjson" | "application/jsonl" | "application/json" => Some(Format::JsonLines),
            "application/avro" | "avro/binary" => Some(Format::Avro),
            "application/x-protobuf" | "application/protobuf" => Some(Format::Otlp),
            _ => None,
        }
    }

    /// The format that bytes begin as, where nothing names it.
    ///
    /// A line feed is the first byte of every OTLP request (field 1, of a length), and may come before JSON; but no `ResourceMetrics` begins as an object with a
    /// key does.
    pub fn of_bytes(bytes: &[u8]) -> Format {
        if bytes.starts_with(&CONTAINER) {
            Format::Avro
        } else if matches!(bytes.first(), Some(b'{' | b'[')) || bytes.trim_ascii_start().starts_with(b"{\"") {
            Format::JsonLines
        } else {
            Format::Otlp
        }
    }
}

/// What is found, one after the other.
#[derive(Debug)]
pub enum Found {
    /// What follows is of a message that its producer may have numbered.
    Message {
        /// Who sent it.
        producer: Option<String>,
        /// The producer's count of its messages.
        sequence: Option<i64>,
        /// Its number among the messages of one sequence.
        part: i64,
    },
    /// A sample, or why it is none.
    Sample {
        /// The number of its line, or of the sample, from 1.
        number: u64,
        /// It.
        read: Result<Sample, String>,
    },
}

/// Hands over what `body` holds, one after the other: at no time are more samples in memory than those of one batch of Avro. `received` is the time of samples
/// without one. What `found` refuses ends the reading.
///
/// # Errors
/// Where the body cannot be read to its end; then nothing of it is to be taken.
pub fn each(format: Format, body: &[u8], received: Timestamp, mut found: impl FnMut(Found) -> Result<(), String>) -> Result<(), String> {
    let (mut samples, mut bytes) = (0, 0);
    let mut within = |sample: &Sample| {
        samples += 1;
        bytes += estimate(sample);
        if samples > MAX_SAMPLES {
            return Err(format!("it holds more than {MAX_SAMPLES} samples: send them in several"));
        }
        if bytes > MAX_BYTES {
            return Err(format!("the samples up to here take more than {} MiB; send them in several files", MAX_BYTES >> 20));
        }
        Ok(())
    };
    match format {
        Format::JsonLines => {
            for (line, number) in body.split(|b| *b == b'\n').zip(1..) {
                let line = line.trim_ascii();
                if !line.is_empty() {
                    found(Found::Sample { number, read: json_line(line, received) })?;
                }
            }
            Ok(())
        }
        Format::Avro => {
            let mut number = 0;
            let read = each_batch(body, MAX_SAMPLES, |SampleBatch { producer, sequence, part, samples, .. }| {
                found(Found::Message { producer, sequence, part })?;
                for sample in samples {
                    within(&sample)?;
                    number += 1;
                    found(Found::Sample { number, read: Ok(sample) })?;
                }
                Ok(())
            });
            read.map_err(|error| error.to_string())
        }
        Format::Otlp => otlp::each(body, received, &mut |number, read| {
            if let Ok(sample) = &read {
                within(sample)?;
            }
            found(Found::Sample { number, read })
        }),
    }
}

fn json_line(line: &[u8], received: Timestamp) -> Result<Sample, String> {
    if line.len() > MAX_LINE_BYTES {
        let most = MAX_LINE_BYTES >> 10;
        return Err(format!("the line has {} bytes, and a sample takes at most {most} KiB; name fewer targets in one line", line.len()));
    }
    let line = std::str::from_utf8(line).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to() + 1))?;
    jsonl::sample_from_line(line, received).map_err(|e| e.to_string())
}

/// Why a sample is too old to be of use, in words; most often its time is in seconds.
pub fn too_old(sample: &Sample, received: Timestamp) -> Option<String> {
    let age = received.as_millis().saturating_sub(sample.time.as_millis());
    let at = sample.time;
    (age > OLDEST_MS).then(|| format!("time {at} is more than a day ago; check the producer's clock, and that times are Unix milliseconds"))
}

/// About how many bytes a sample takes: its names with their lengths, its time, value and kind (at most
/// 30), and a histogram's buckets (a double and a long of at most 10 bytes each).
pub fn estimate(sample: &Sample) -> usize {
    let names = sample.targets.iter().map(|t| t.as_str().len() + 3).sum::<usize>() + sample.metric.as_str().len() + sample.instance.as_str().len() + 6;
    let buckets = sample.histogram.as_ref().map_or(0, |h| (h.bounds.len() + h.counts.len()) * 10 + 32);
    names + buckets + 30
}

/// Reads a record on `metrics`, whoever wrote it: its `content-type` decides where it has one, else how it begins.
pub(super) fn of_record(record: &RawRecord) -> Result<Read, WireError> {
    let value = record.value.as_slice();
    // Of what a client compressed, a broker limits the size before it is unpacked.
    if value.len() > MAX_RECORD_BYTES {
        return Err(WireError::malformed(format_args!("it has {} bytes, and a record at most {MAX_RECORD_BYTES}: send the samples in several", value.len())));
    }
    let format = match &record.content_type {
        Some(named) => Format::of_type(named).ok_or_else(|| {
            WireError::malformed(format_args!(
                "samples of type {:?} cannot be read: write JSON lines as application/x-ndjson, Avro as application/avro, or OTLP as application/x-protobuf",
                shorten(named)
            ))
        })?,
        // No request of OTLP begins with 00 or 01: it would be a field with the number 0.
        None if value.starts_with(&MARKER) || matches!(value.first(), Some(&CONFLUENT | &BY_GUID)) => Format::Avro,
        None => Format::of_bytes(value),
    };
    if format == Format::Avro && !value.starts_with(&CONTAINER) {
        return super::decode(Topic::Metrics, value).map(Read::whole);
    }
    foreign(format, record)
}

fn foreign(format: Format, record: &RawRecord) -> Result<Read, WireError> {
    let (mut batch, mut told) = (SampleBatch::default(), Vec::new());
    let (place, mut any) = (if format == Format::JsonLines { "line" } else { "sample" }, false);
    each(format, &record.value, record.at, |found| {
        any = true;
        match found {
            Found::Message { producer: None, sequence: None, .. } => {}
            Found::Message { .. } => return Err("a message that is numbered is written in the single-object encoding".to_owned()),
            Found::Sample { number, read } => match read.and_then(|sample| too_old(&sample, record.at).map_or(Ok(sample), Err)) {
                Ok(sample) => batch.samples.push(sample),
                Err(reason) => {
                    batch.unread += 1;
                    if told.len() < MOST_TOLD {
                        told.push(format!("{place} {number}: {reason}"));
                    }
                }
            },
        }
        Ok(())
    })
    .map_err(|reason| match (format, &record.content_type) {
        (Format::Otlp, None) => WireError::malformed(format_args!("it begins neither as JSON nor as Avro does, and is {reason}")),
        _ => WireError::malformed(reason),
    })?;
    if !any && format != Format::Otlp || record.value.is_empty() {
        return Err(WireError::malformed("it holds no sample"));
    }
    let lacks = (batch.unread > 0).then(|| {
        let rest = batch.unread - told.len() as u64;
        let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
        format!("{} of {} samples cannot be used: {}{rest}", batch.unread, batch.unread + batch.samples.len() as u64, told.join("; "))
    });
    Ok(Read { message: Message::Samples(batch), lacks })
}

#[cfg(test)]
mod tests;
