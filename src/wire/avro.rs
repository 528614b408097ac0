//! Avro's two framings: the single-object encoding (`C3 01`, the fingerprint of the writer's schema, the body), in which Loadline writes; and that of
//! Confluent's clients (`00`, the id of a registry, big-endian, the body), which it reads too, and in which it writes where it is asked to; and their other one
//! (`01`, the schema's GUID, the body), which it reads.
//!
//! Both ways go through serde, without a value tree in between.

use std::cell::RefCell;

use apache_avro::error::Details;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::WireError;
use super::schemas::{self, Known, RecordType, RegistryId};
use crate::model::SampleBatch;
use crate::model::json;
use crate::model::spelling::on_one_line;

mod lenient;
mod samples;

pub(super) use lenient::Lenient;

/// The two bytes that every message starts with: the marker and version 1 of the encoding.
pub(super) const MARKER: [u8; 2] = [0xc3, 0x01];
/// What a message in Confluent's framing starts with.
pub(super) const CONFLUENT: u8 = 0;
/// What one starts with that names its schema by a GUID.
pub(super) const BY_GUID: u8 = 1;
/// Marker and fingerprint.
const HEADER_BYTES: usize = 10;
/// Above this a thread's buffer is given back: twice the largest record of the log.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

thread_local! {
    /// Where a message is written before it is copied into a vector of its exact size.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes `value` with this release's schema of `record`.
pub(super) fn write<T: Serialize>(record: RecordType, value: &T) -> Result<Vec<u8>, WireError> {
    let held = schemas::held()?;
    let own = held.own(record);
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        if let Some(id) = held.written_by(record) {
            buffer.push(CONFLUENT);
            buffer.extend_from_slice(&id.to_be_bytes());
        } else {
            buffer.extend_from_slice(&MARKER);
            buffer.extend_from_slice(&own.fingerprint().to_le_bytes());
        }
        own.writer().write_ser(buffer, value).map_err(|error| malformed(record, &error))?;
        let bytes = buffer.as_slice().to_vec();
        buffer.shrink_to(KEPT_BUFFER_BYTES);
        Ok(bytes)
    })
}

/// How a message names the schema that it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// By its CRC-64-AVRO fingerprint.
    Fingerprint(u64),
    /// As a registry does.
    Id(RegistryId),
}

/// How a message names its schema, and its body.
pub(super) fn split(bytes: &[u8]) -> Result<(Writer, &[u8]), WireError> {
    if bytes.first() == Some(&CONFLUENT) {
        return match bytes[1..].split_first_chunk() {
            Some((id, body)) => Ok((Writer::Id(RegistryId::Id(u32::from_be_bytes(*id))), body)),
            None => Err(WireError::malformed(format_args!("begins with 00, and {} bytes are too few for the id of a registry's schema", bytes.len()))),
        };
    }
    if bytes.first() == Some(&BY_GUID) {
        return match bytes[1..].split_first_chunk() {
            Some((guid, body)) => Ok((Writer::Id(RegistryId::Guid(u128::from_be_bytes(*guid))), body)),
            None => Err(WireError::malformed(format_args!("begins with 01, and {} bytes are too few for the GUID of a registry's schema", bytes.len()))),
        };
    }
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(WireError::malformed(format_args!("{} bytes are too few for a message, which begins with a header of {HEADER_BYTES}", bytes.len())));
    };
    let [first, second, fingerprint @ ..] = *header;
    if [first, second] != MARKER {
        return Err(WireError::malformed(format_args!(
            "begins with {first:02x} {second:02x} in place of c3 01 or 00: neither Avro's single-object encoding nor Confluent's framing"
        )));
    }
    Ok((Writer::Fingerprint(u64::from_le_bytes(fingerprint)), body))
}

/// Decodes a body by the schema that it was written with.
pub(super) fn read<T: DeserializeOwned>(known: Known, mut body: &[u8]) -> Result<T, WireError> {
    let Lenient(value) = known.reader().read_deser(&mut body).map_err(|error| malformed(known.record(), &error))?;
    if body.is_empty() { Ok(value) } else { Err(WireError::malformed(format_args!("{} bytes follow the end of a {}", body.len(), known.record().name()))) }
}

/// As [`read`], of samples.
pub(super) fn read_samples(known: Known, body: &[u8]) -> Result<SampleBatch, WireError> {
    if known.is_own()
        && let Some(batch) = samples::read(body)
    {
        return Ok(batch);
    }
    read(known, body)
}

fn malformed(record: RecordType, error: &apache_avro::Error) -> WireError {
    WireError::malformed(format_args!("not a {}: {}", record.name(), describe(error)))
}

/// An error of the library in a line: many of its messages print a whole schema, or names as they were sent.
pub(super) fn describe(error: &apache_avro::Error) -> String {
    let said = match error.details() {
        Details::DeserializeSchemaAware { value, .. } | Details::SerializeValueWithSchema { value, .. } => value.clone(),
        Details::SerializeRecordFieldWithSchema { field_name, error, .. } => format!("field {field_name}: {error}"),
        Details::MissingDefaultForSkippedField { field_name, .. } => format!("field {field_name} was left out and has no default"),
        other => other.to_string(),
    };
    let said = said.strip_prefix("Failed to deserialize Avro value into value: ").unwrap_or(&said);
    on_one_line(&match said.strip_prefix("Expected Schema::") {
        Some(wanted) => format!("the file's schema has another type where \"{}\" belongs", wanted.replace("Schema::", "").to_lowercase()),
        None => json::in_words(said),
    })
}
