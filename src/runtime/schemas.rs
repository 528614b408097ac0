//! The topic `schemas`: how the releases of an installation write.
//!
//! Each process says how it writes before it writes anything else ([`begin`]), and learns what the others said when it begins, and again when it meets
//! a record by a schema that it does not know ([`Reading`]). What is not there then was written by no release of this installation.

use std::cell::Cell;
use std::collections::BTreeSet;

use crate::log::{Log, LogError, Offset, RawAppend, RawRecord, ReadOnly, Topic};
use crate::model::{Message, SchemaEntry};
use crate::wire::{self, schemas};

/// How many records are read at once.
const SLICE: usize = 1_000;

/// A place in the topic: what stands before it has been learnt.
#[derive(Debug, Default)]
pub struct Reading {
    next: Cell<Offset>,
}

impl Reading {
    /// Learns what is new, where one of these records is by a schema that is not known.
    ///
    /// # Errors
    /// As [`Log::scan`].
    pub fn see_to<'a>(&self, log: &dyn Log, records: impl IntoIterator<Item = &'a RawRecord>) -> Result<(), LogError> {
        if records.into_iter().any(|record| wire::is_by_unknown_schema(&record.value)) {
            self.learn(&|from| log.scan(Topic::Schemas, 0, from, SLICE))?;
        }
        Ok(())
    }

    /// Learns what is new; the fingerprints of all that was read.
    fn learn(&self, scan: &dyn Fn(Offset) -> Result<Vec<RawRecord>, LogError>) -> Result<BTreeSet<u64>, LogError> {
        let mut there = BTreeSet::new();
        loop {
            let slice = scan(self.next.get())?;
            let Some(last) = slice.last() else { return Ok(there) };
            let after = last.offset + 1;
            for record in slice {
                let entry = match wire::decode(Topic::Schemas, &record.value) {
                    Ok(Message::Schema(entry)) => entry,
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::warn!(event = "schema-unusable", offset = record.offset, %error, "a record of the topic schemas cannot be read");
                        continue;
                    }
                };
                match schemas::held().map_err(ToString::to_string).and_then(|held| held.register(&entry.schema).map_err(|error| error.to_string())) {
                    Ok(fingerprint) => drop(there.insert(fingerprint)),
                    // A message that this release does not have is none that it reads.
                    Err(reason) => {
                        tracing::warn!(
                            event = "schema-unusable",
                            release = entry.release,
                            reason,
                            "what another release writes by this schema cannot be read here"
                        );
                    }
                }
            }
            self.next.set(after);
        }
    }
}

/// Learns how all releases write, and says how this one does, where that does not stand there yet. How many schemas it said.
///
/// # Errors
/// As [`Log::scan`] and [`Log::append`].
pub fn begin(log: &dyn Log) -> Result<usize, LogError> {
    let there = Reading::default().learn(&|from| log.scan(Topic::Schemas, 0, from, SLICE))?;
    let lacking: Vec<RawAppend> =
        own().filter(|(fingerprint, _)| !there.contains(fingerprint)).map(|(fingerprint, entry)| append(fingerprint, entry)).collect();
    if lacking.is_empty() { Ok(0) } else { log.append(lacking).map(|said| said.len()) }
}

/// Learns how all releases write, for whoever reads alone.
///
/// # Errors
/// As [`ReadOnly::scan`].
pub fn learn(log: &dyn ReadOnly) -> Result<(), LogError> {
    Reading::default().learn(&|from| log.scan(Topic::Schemas, 0, from, SLICE)).map(drop)
}

/// How this release writes each message, with the fingerprint.
fn own() -> impl Iterator<Item = (u64, SchemaEntry)> {
    let held = schemas::held().ok();
    let entry = |schema: &str| SchemaEntry { release: env!("CARGO_PKG_VERSION").to_owned(), schema: schema.to_owned() };
    schemas::RecordType::ALL.iter().filter_map(move |record| Some((held?.fingerprint_of(*record), entry(record.schema_json()))))
}

fn append(fingerprint: u64, entry: SchemaEntry) -> RawAppend {
    RawAppend { topic: Topic::Schemas, partition: 0, key: Some(format!("{fingerprint:016x}")), value: wire::encode(&Message::Schema(entry)) }
}
