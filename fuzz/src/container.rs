//! Samples in Avro object container files.
//!
//! An input that begins with `O` is a file. Of any other the first byte chooses the schema, and plain or deflated, and the rest is the one
//! block of a file with that header: few mutations of a whole file keep its header and its sync markers.

use std::sync::LazyLock;

use apache_avro::{Codec, DeflateSettings, Schema, Writer};
use loadline::model::{Message, SampleBatch};
use loadline::wire;
use loadline::wire::container::each_batch;
use loadline::wire::schemas::RecordType;

/// The most samples that are taken of a file.
const LIMIT: usize = 1_000;
/// Of a sync marker.
const SYNC_BYTES: usize = 16;

/// The least that a producer may write. A reader parses the schema of each file anew, which takes most of the time of a small one:
/// of this one a tenth of the time of the release's own.
const SMALL: &str = r#"{"type":"record","name":"Sample","fields":[{"name":"metric","type":"string"},{"name":"targets","type":{"type":"array","items":"string"}},{"name":"kind","type":{"type":"enum","name":"Kind","symbols":["Gauge"]}},{"name":"time","type":"long"},{"name":"value","type":"double"}]}"#;

/// Headers of files without a block, plain and deflated: of this release's own schema, and three times of the small one. They end with
/// the sync marker.
static HEADERS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let headers = |json| {
        let schema = Schema::parse_str(json).expect("a schema");
        let header = |codec| Writer::builder().schema(&schema).codec(codec).writer(Vec::new()).build().and_then(Writer::into_inner).expect("a header");
        [header(Codec::Null), header(Codec::Deflate(DeflateSettings::default()))]
    };
    [RecordType::SampleBatch.schema_json(), SMALL, SMALL, SMALL].into_iter().flat_map(headers).collect()
});

/// The samples of the file, at most as many as are taken, each of which the log can hold; or a reason.
pub fn check(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    if *first == b'O' {
        return file(input);
    }
    let mut bytes = HEADERS[usize::from(*first & 7)].clone();
    let sync = bytes[bytes.len() - SYNC_BYTES..].to_vec();
    bytes.extend(long(i64::from(*first >> 3)));
    bytes.extend(long(rest.len() as i64));
    bytes.extend_from_slice(rest);
    bytes.extend(sync);
    file(&bytes);
}

fn file(bytes: &[u8]) {
    let mut samples = Vec::new();
    let read = each_batch(bytes, LIMIT, |batch| {
        samples.extend(batch.samples);
        Ok(())
    });
    match read {
        Ok(()) => {
            assert!(samples.len() <= LIMIT, "{} samples", samples.len());
            let message = Message::Samples(SampleBatch { samples, ..SampleBatch::default() });
            let written = wire::encode(&message);
            let read = wire::decode(loadline::log::Topic::Metrics, &written).unwrap_or_else(|error| panic!("{message:?} cannot be read: {error}"));
            assert_eq!(wire::encode(&read), written);
        }
        Err(error) => super::said(&error.to_string()),
    }
}

/// A long of Avro: zigzag, seven bits a byte.
fn long(value: i64) -> Vec<u8> {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}
