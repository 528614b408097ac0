//! Samples from an Avro object container file (`Obj\x01`), as ingest takes it.
//!
//! The file brings its own schema: a record named `SampleBatch` or `Sample` whose fields are those of
//! `schemas/SampleBatch.avsc`, in any order and namespace; fields that are not known are passed over.
//! Blocks may be plain or deflated and hold at most 1 MiB each; writers use 16 to 64 kB by default.
//! Not for the log: its messages carry a fingerprint in place of a schema.

use apache_avro::{Reader, Schema};
use serde::de::DeserializeOwned;

use super::avro::{Lenient, describe};
use super::schemas::{self, check_bounded};
use crate::model::{Sample, SampleBatch};

/// Why a file gives no samples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// Not a container file, damaged, or not of this schema.
    #[error("the Avro container file cannot be read at {place}: {reason}")]
    Unreadable {
        /// Where: the header, or the record's number from 1.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of something else.
    #[error("the Avro container file holds \"{name}\": it must hold records named SampleBatch or Sample")]
    NotSamples {
        /// The name of its records, or its type.
        name: String,
    },
    /// More than is taken at once.
    #[error("the Avro container file has more than {limit} samples: send them in several")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

/// Gives the batches of a container file to `take`, one after the other; at most `limit` samples. A file of single samples has each of
/// them in a batch of its own. What `take` refuses ends it, as what is wrong with that record.
///
/// # Errors
/// [`ContainerError`]; then nothing of the file is to be used.
pub fn each_batch(bytes: &[u8], limit: usize, take: impl FnMut(SampleBatch) -> Result<(), String>) -> Result<(), ContainerError> {
    let header = |reason: String| ContainerError::Unreadable { place: "its header".to_owned(), reason };
    // Sets the limits of the library, which are global, before its first use.
    schemas::held().map_err(|error| header(error.to_string()))?;
    let reader = Reader::new(bytes).map_err(|error| header(describe(&error)))?;
    check_bounded(reader.writer_schema()).map_err(|error| header(error.to_string()))?;
    match record_name(reader.writer_schema()) {
        "SampleBatch" => each(reader, limit, |batch: SampleBatch| batch, take),
        "Sample" => each(reader, limit, |sample: Sample| SampleBatch { samples: vec![sample], ..SampleBatch::default() }, take),
        name => Err(ContainerError::NotSamples { name: name.to_owned() }),
    }
}

fn record_name(schema: &Schema) -> &str {
    match schema {
        Schema::Record(record) => record.name.name(),
        _ => "values that are no records",
    }
}

fn each<T: DeserializeOwned>(
    reader: Reader<'_, &[u8]>,
    limit: usize,
    batch_of: impl Fn(T) -> SampleBatch,
    mut take: impl FnMut(SampleBatch) -> Result<(), String>,
) -> Result<(), ContainerError> {
    let mut samples = 0;
    for (index, record) in reader.into_deser_iter::<Lenient<T>>().enumerate() {
        let unreadable = |reason: String| ContainerError::Unreadable { place: format!("record {}", index + 1), reason };
        let Lenient(record) = record.map_err(|error| unreadable(describe(&error)))?;
        let batch = batch_of(record);
        samples += batch.samples.len();
        // Batches may be empty, so records are bounded as well.
        if samples > limit || index > limit {
            return Err(ContainerError::TooMany { limit });
        }
        take(batch).map_err(unreadable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use apache_avro::{Codec, DeflateSettings, Writer};

    use super::*;
    use crate::model::{Kind, Timestamp};
    use crate::wire::schemas::RecordType;

    fn samples_from_container(bytes: &[u8], limit: usize) -> Result<Vec<Sample>, ContainerError> {
        let mut samples = Vec::new();
        each_batch(bytes, limit, |batch| {
            samples.extend(batch.samples);
            Ok(())
        })?;
        Ok(samples)
    }

    fn sample(value: f64) -> Sample {
        Sample {
            targets: vec!["prod/Deployment/api".parse().unwrap()],
            metric: "cpu".parse().unwrap(),
            instance: "api-1".parse().unwrap(),
            time: Timestamp::from_millis(1_764_000_000_000),
            kind: Kind::Gauge,
            value,
            histogram: None,
        }
    }

    fn container(schema: &Schema, codec: Codec, batches: &[SampleBatch]) -> Vec<u8> {
        let mut writer = Writer::builder().schema(schema).codec(codec).writer(Vec::new()).build().unwrap();
        for batch in batches {
            writer.append_ser(batch).unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn batches(count: usize) -> Vec<SampleBatch> {
        (0..count).map(|i| SampleBatch { samples: vec![sample(i as f64), sample(0.5)], ..SampleBatch::default() }).collect()
    }

    fn own_schema() -> Schema {
        Schema::parse_str(RecordType::SampleBatch.schema_json()).unwrap()
    }

    #[test]
    fn batches_come_out_plain_or_deflated() {
        for codec in [Codec::Null, Codec::Deflate(DeflateSettings::default())] {
            let bytes = container(&own_schema(), codec, &batches(300));
            let samples = samples_from_container(&bytes, 1_000).unwrap();
            assert_eq!(samples.len(), 600);
            assert_eq!(samples[598], sample(299.0));
        }
    }

    #[test]
    fn a_file_of_single_samples_is_taken_too() {
        let schema = Schema::parse_str(
            r#"{"type":"record","name":"Sample","fields":[
                {"name":"unknown","type":"string"},{"name":"metric","type":"string"},{"name":"targets","type":{"type":"array","items":"string"}},
                {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["Gauge"]}},{"name":"time","type":"long"},{"name":"value","type":"double"}]}"#,
        )
        .unwrap();
        let mut writer = Writer::new(&schema, Vec::new()).unwrap();
        let mut record = apache_avro::types::Record::new(writer.schema()).unwrap();
        record.put("unknown", "passed over");
        record.put("metric", "cpu");
        record.put("targets", Value::Array(vec![Value::String("prod/Deployment/api".to_owned())]));
        record.put("kind", Value::Enum(0, "Gauge".to_owned()));
        record.put("time", 1_764_000_000_000_i64);
        record.put("value", 0.25);
        writer.append_value(record).unwrap();
        let samples = samples_from_container(&writer.into_inner().unwrap(), 10).unwrap();
        assert_eq!(samples, [Sample { instance: crate::model::InstanceName::none(), ..sample(0.25) }]);
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let bytes = container(&own_schema(), Codec::Null, &batches(6));
        assert_eq!(samples_from_container(&bytes, 11), Err(ContainerError::TooMany { limit: 11 }));
        let empty: Vec<SampleBatch> = (0..20).map(|_| SampleBatch::default()).collect();
        assert_eq!(samples_from_container(&container(&own_schema(), Codec::Null, &empty), 11), Err(ContainerError::TooMany { limit: 11 }));
    }

    #[test]
    fn a_deflated_block_that_grows_beyond_the_limit_is_refused() {
        let producer = "x".repeat(3 * 1024 * 1024);
        let bomb = SampleBatch { producer: Some(producer), ..SampleBatch::default() };
        let bytes = container(&own_schema(), Codec::Deflate(DeflateSettings::default()), &[bomb]);
        assert!(bytes.len() < 100_000, "it is a bomb");
        assert!(matches!(samples_from_container(&bytes, 10), Err(ContainerError::Unreadable { .. })));
    }

    #[test]
    fn files_of_something_else_are_named() {
        let other = Schema::parse_str(r#"{"type":"record","name":"Trade","fields":[{"name":"price","type":"double"}]}"#).unwrap();
        let bytes = Writer::new(&other, Vec::new()).unwrap().into_inner().unwrap();
        let error = samples_from_container(&bytes, 10).unwrap_err();
        assert_eq!(error.to_string(), "the Avro container file holds \"Trade\": it must hold records named SampleBatch or Sample");
        assert!(matches!(samples_from_container(b"{\"target\":1}", 10), Err(ContainerError::Unreadable { .. })));
    }

    /// What the library says of a value names types of the program; here it is said what belongs there.
    #[test]
    fn what_does_not_fit_is_said_in_our_words() {
        let said = |fields: &str, put: &[(&str, Value)]| {
            let schema = Schema::parse_str(&format!("{{\"type\":\"record\",\"name\":\"Sample\",\"fields\":[{fields}]}}")).unwrap();
            let mut writer = Writer::new(&schema, Vec::new()).unwrap();
            let mut record = apache_avro::types::Record::new(writer.schema()).unwrap();
            put.iter().for_each(|(name, value)| record.put(name, value.clone()));
            writer.append_value(record).unwrap();
            samples_from_container(&writer.into_inner().unwrap(), 10).unwrap_err().to_string()
        };
        let text = |text: &str| Value::String(text.to_owned());
        let (metric, value) = (r#"{"name":"metric","type":"string"}"#, r#"{"name":"value","type":"string"}"#);
        let targets = r#"{"name":"targets","type":{"type":"array","items":"string"}}"#;
        let cases = [
            said(metric, &[("metric", text("cpu"))]),
            said(&format!("{metric},{value}"), &[("metric", text("cpu")), ("value", text("high"))]),
            said(targets, &[("targets", Value::Array(vec![text("api")]))]),
            said(metric, &[("metric", text(""))]),
            said(r#"{"name":"kind","type":{"type":"enum","name":"Kind","symbols":["gauge"]}}"#, &[("kind", Value::Enum(0, "gauge".to_owned()))]),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let bytes = container(&own_schema(), Codec::Null, &batches(3));
        for end in 0..bytes.len() {
            // Where the end is that of the header, the file is a whole one without records.
            let samples = samples_from_container(&bytes[..end], 100);
            assert!(samples.is_err() || samples.is_ok_and(|s| s.is_empty()), "cut at {end}");
        }
    }
}
