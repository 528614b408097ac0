//! Bytes to model and back.
//!
//! - this file: a message of the log in Avro's single-object encoding, and back, also from Confluent's framing;
//!   the topic says which message a type is where several topics carry it;
//! - [`schemas`]: the schemas, of this release and of others, found by their fingerprint or by a registry's id;
//! - [`jsonl`]: signals, samples, decisions and commands as JSON lines;
//! - [`samples`]: samples as producers of any kind send them, JSON lines, Avro or OTLP;
//! - [`container`]: samples from an Avro object container file;
//! - [`cloud_events`]: what stands around a record of `alerts` and `audit`, for consumers of any kind;
//! - [`words`]: what a decision says, in English.
//!
//! Invariants: nothing that comes from outside makes this module panic, loop or allocate without
//! bound; a message is decoded by the schema that it was written with; trailing bytes are an error.
//! A registry is asked elsewhere, before a record comes here.

use std::fmt;

pub mod document;

use crate::log::{RawRecord, Topic};
use crate::model::{Audit, ControlEntry, DeadLetter, Message, Signal};

mod avro;
pub mod cloud_events;
pub mod container;
pub mod jsonl;
mod otlp;
mod protobuf;
pub mod samples;
pub mod schemas;
pub mod words;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;

use avro::Writer;
use schemas::{RecordType, RegistryId, SchemaError, Schemas};

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not what the framing or the schema says.
    #[error("{reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written with a schema that this process does not hold.
    #[error(
        "written with an unknown schema, fingerprint {fingerprint:016x} (in the record {:016x}): write it by the schema of this release, in its \
         directory schemas, or by one of a schema registry",
        fingerprint.swap_bytes()
    )]
    UnknownSchema {
        /// Its CRC-64-AVRO fingerprint.
        fingerprint: u64,
    },
    /// Written with a schema of which a registry's name is all that is known.
    #[error("written with the schema {id} of a registry: {reason}")]
    UnknownId {
        /// The name.
        id: RegistryId,
        /// Why there is no more.
        reason: String,
    },
    /// A known message, but not one of this topic.
    #[error("a {name} does not belong on {topic}")]
    WrongTopic {
        /// The message's schema.
        name: &'static str,
        /// Where it stood.
        topic: Topic,
    },
}

impl WireError {
    fn malformed(reason: impl fmt::Display) -> Self {
        WireError::Malformed { reason: reason.to_string() }
    }
}

impl From<&SchemaError> for WireError {
    fn from(error: &SchemaError) -> Self {
        WireError::malformed(error)
    }
}

/// Encodes a message in the framing of the log.
///
/// Every message can be encoded: the schemas are built in, and tests hold them against the types. If
/// the library refuses one all the same, that is a fault of the program: it is logged as an error, and
/// a [`DeadLetter`] with the reason takes the message's place, which no reader of another topic
/// accepts, so the fault shows where the message is missed.
pub fn encode(message: &Message) -> Vec<u8> {
    write(message).unwrap_or_else(|error| {
        tracing::error!(event = "message-unwritable", %error, "a message cannot be encoded; a dead letter stands in its place");
        let letter = DeadLetter { topic: String::new(), partition: 0, offset: 0, reason: format!("it could not be encoded: {error}"), record: Vec::new() };
        avro::write(RecordType::DeadLetter, &letter).unwrap_or_default()
    })
}

fn write(message: &Message) -> Result<Vec<u8>, WireError> {
    match message {
        Message::Samples(m) => avro::write(RecordType::SampleBatch, m),
        Message::Control(ControlEntry::Policy(m)) => avro::write(RecordType::PolicyEntry, m),
        Message::Control(ControlEntry::Rejected(m)) | Message::Audit(Audit::Rejected(m)) => avro::write(RecordType::PolicyRejected, m),
        Message::Control(ControlEntry::RoundEnd(m)) => avro::write(RecordType::RoundEnd, m),
        Message::Control(ControlEntry::Removed(m)) => avro::write(RecordType::PolicyRemoved, m),
        Message::Control(ControlEntry::AnnounceAgain(m)) => avro::write(RecordType::AnnounceAgain, m),
        Message::Control(ControlEntry::Carried(m)) | Message::RequestsCarried(m) => avro::write(RecordType::CarriedState, m),
        Message::Signal(Signal::Carried(m)) => avro::write(RecordType::CarriedState, m),
        Message::Signal(Signal::Part(m)) => avro::write(RecordType::Part, m),
        Message::Signal(Signal::Mark(m)) => avro::write(RecordType::Mark, m),
        Message::Signal(Signal::Tick(m)) | Message::RequestsTick(m) => avro::write(RecordType::Tick, m),
        Message::Signal(Signal::Fleet(m)) => avro::write(RecordType::FleetObservation, m),
        Message::Signal(Signal::Policy(m)) | Message::Audit(Audit::Policy(m)) => avro::write(RecordType::PolicyAnnouncement, m),
        Message::Signal(Signal::Outcome(m)) | Message::Audit(Audit::Outcome(m)) => avro::write(RecordType::Outcome, m),
        Message::Signal(Signal::Grant(m)) | Message::Audit(Audit::Grant(m)) => avro::write(RecordType::Grant, m),
        Message::Signal(Signal::SourceError(m)) => avro::write(RecordType::SourceError, m),
        Message::Request(m) => avro::write(RecordType::Request, m),
        Message::Command(m) | Message::Audit(Audit::Command(m)) => avro::write(RecordType::Command, m),
        Message::Audit(Audit::ByHand(m)) => avro::write(RecordType::ManualChange, m),
        Message::Audit(Audit::Decision(m)) => avro::write(RecordType::Decision, m),
        Message::Alert(m) => avro::write(RecordType::Alert, m),
        Message::DeadLetter(m) => avro::write(RecordType::DeadLetter, m),
        Message::Schema(m) => avro::write(RecordType::SchemaEntry, m),
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// It.
    pub message: Message,
    /// What of it could not be read, in words, where the rest could.
    pub lacks: Option<String>,
}

impl Read {
    fn whole(message: Message) -> Read {
        Read { message, lacks: None }
    }
}

/// Reads a record that stands on `topic`. On `metrics` it may be of any producer ([`samples`]); everywhere else it is in the framing of the log.
///
/// # Errors
/// [`WireError`]; the record is a dead letter then.
pub fn read(topic: Topic, record: &RawRecord) -> Result<Read, WireError> {
    if topic == Topic::Metrics { samples::of_record(record) } else { decode(topic, &record.value).map(Read::whole) }
}

/// Whether a message names its schema by a fingerprint, or by the id of a registry, of which nothing is known.
pub fn is_by_unknown_schema(bytes: &[u8]) -> bool {
    if !(bytes.starts_with(&avro::MARKER) || names_registry(bytes)) {
        return false;
    }
    let Ok(held) = schemas::held() else { return false };
    match avro::split(bytes) {
        Ok((Writer::Fingerprint(fingerprint), _)) => held.find(fingerprint).is_none(),
        Ok((Writer::Id(id), _)) => held.of_id(id).is_none(),
        Err(_) => false,
    }
}

/// How a registry names the schema of a record, where the record says no more.
pub fn registry_id(bytes: &[u8]) -> Option<RegistryId> {
    if !names_registry(bytes) {
        return None;
    }
    avro::split(bytes).ok().and_then(|(writer, _)| if let Writer::Id(id) = writer { Some(id) } else { None })
}

fn names_registry(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&avro::CONFLUENT | &avro::BY_GUID))
}

/// The id of a registry by which a record cannot be read now, and why: by another answer of the registry it could.
pub fn unread_id(bytes: &[u8]) -> Option<(RegistryId, String)> {
    let id = registry_id(bytes)?;
    match schemas::held().ok()?.of_id(id) {
        Some(Ok(_)) => None,
        Some(Err(reason)) => Some((id, reason)),
        None => Some((id, "nothing is known of it".to_owned())),
    }
}

/// Decodes a message that stands on `topic`, with the schemas that this process holds.
///
/// # Errors
/// [`WireError`]; the record is a dead letter then.
pub fn decode(topic: Topic, bytes: &[u8]) -> Result<Message, WireError> {
    decode_with(schemas::held()?, topic, bytes)
}

/// Decodes a message that stands on `topic`, with the schemas of `schemas`.
///
/// # Errors
/// [`WireError`]; the record is a dead letter then.
pub fn decode_with(schemas: &Schemas, topic: Topic, bytes: &[u8]) -> Result<Message, WireError> {
    let (writer, body) = avro::split(bytes)?;
    let known = match writer {
        Writer::Fingerprint(fingerprint) => schemas.find(fingerprint).ok_or(WireError::UnknownSchema { fingerprint })?,
        Writer::Id(id) => match schemas.of_id(id) {
            Some(learnt) => learnt.map_err(|reason| WireError::UnknownId { id, reason })?,
            None => return Err(WireError::UnknownId { id, reason: "no registry is named that knows it (kafka.registry.url)".to_owned() }),
        },
    };
    let message = match (topic, known.record()) {
        (Topic::Metrics, RecordType::SampleBatch) => Message::Samples(avro::read_samples(known, body)?),
        (Topic::Control, RecordType::PolicyEntry) => Message::Control(ControlEntry::Policy(avro::read(known, body)?)),
        (Topic::Control, RecordType::PolicyRejected) => Message::Control(ControlEntry::Rejected(avro::read(known, body)?)),
        (Topic::Control, RecordType::RoundEnd) => Message::Control(ControlEntry::RoundEnd(avro::read(known, body)?)),
        (Topic::Control, RecordType::PolicyRemoved) => Message::Control(ControlEntry::Removed(avro::read(known, body)?)),
        (Topic::Control, RecordType::AnnounceAgain) => Message::Control(ControlEntry::AnnounceAgain(avro::read(known, body)?)),
        (Topic::Control, RecordType::CarriedState) => Message::Control(ControlEntry::Carried(avro::read(known, body)?)),
        (Topic::Signals, RecordType::Part) => Message::Signal(Signal::Part(avro::read(known, body)?)),
        (Topic::Signals, RecordType::Mark) => Message::Signal(Signal::Mark(avro::read(known, body)?)),
        (Topic::Signals, RecordType::Tick) => Message::Signal(Signal::Tick(avro::read(known, body)?)),
        (Topic::Signals, RecordType::FleetObservation) => Message::Signal(Signal::Fleet(avro::read(known, body)?)),
        (Topic::Signals, RecordType::PolicyAnnouncement) => Message::Signal(Signal::Policy(avro::read(known, body)?)),
        (Topic::Signals, RecordType::Outcome) => Message::Signal(Signal::Outcome(avro::read(known, body)?)),
        (Topic::Signals, RecordType::Grant) => Message::Signal(Signal::Grant(avro::read(known, body)?)),
        (Topic::Signals, RecordType::SourceError) => Message::Signal(Signal::SourceError(avro::read(known, body)?)),
        (Topic::Signals, RecordType::CarriedState) => Message::Signal(Signal::Carried(avro::read(known, body)?)),
        (Topic::Requests, RecordType::CarriedState) => Message::RequestsCarried(avro::read(known, body)?),
        (Topic::Requests, RecordType::Request) => Message::Request(avro::read(known, body)?),
        (Topic::Requests, RecordType::Tick) => Message::RequestsTick(avro::read(known, body)?),
        (Topic::Commands, RecordType::Command) => Message::Command(avro::read(known, body)?),
        (Topic::Audit, RecordType::Decision) => Message::Audit(Audit::Decision(avro::read(known, body)?)),
        (Topic::Audit, RecordType::Grant) => Message::Audit(Audit::Grant(avro::read(known, body)?)),
        (Topic::Audit, RecordType::Command) => Message::Audit(Audit::Command(avro::read(known, body)?)),
        (Topic::Audit, RecordType::Outcome) => Message::Audit(Audit::Outcome(avro::read(known, body)?)),
        (Topic::Audit, RecordType::PolicyAnnouncement) => Message::Audit(Audit::Policy(avro::read(known, body)?)),
        (Topic::Audit, RecordType::PolicyRejected) => Message::Audit(Audit::Rejected(avro::read(known, body)?)),
        (Topic::Audit, RecordType::ManualChange) => Message::Audit(Audit::ByHand(avro::read(known, body)?)),
        (Topic::Alerts, RecordType::Alert) => Message::Alert(avro::read(known, body)?),
        (Topic::DeadLetters, RecordType::DeadLetter) => Message::DeadLetter(avro::read(known, body)?),
        (Topic::Schemas, RecordType::SchemaEntry) => Message::Schema(avro::read(known, body)?),
        (topic, record) => return Err(WireError::WrongTopic { name: record.name(), topic }),
    };
    Ok(message)
}
