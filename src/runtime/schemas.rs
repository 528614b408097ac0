//! The topic `schemas`: how the releases of an installation write.
//!
//! Each process says how it writes before it writes anything else ([`begin`]), and learns what the others said when it begins, and again when it meets
//! a record by a schema that it does not know ([`Reading`]). What is not there then was written by no release of this installation.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::{Log, LogError, Offset, RawAppend, RawRecord, ReadOnly, Topic};
use crate::model::{Message, SchemaEntry};
use crate::wire;
use crate::wire::schemas::{self, RecordType, SchemaError, Schemas};

/// How many records are read at once.
const SLICE: usize = 1_000;

/// A place in the topic: what stands before it has been learnt.
#[derive(Debug, Default)]
pub struct Reading {
    next: AtomicU64,
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

    /// Learns what is new, whatever it is for.
    ///
    /// # Errors
    /// As [`ReadOnly::scan`].
    pub fn catch_up(&self, log: &dyn ReadOnly) -> Result<(), LogError> {
        self.learn(&|from| log.scan(Topic::Schemas, 0, from, SLICE)).map(drop)
    }

    /// Learns what is new: of each fingerprint that was read, the id of a registry that it is written by, if any.
    fn learn(&self, scan: &dyn Fn(Offset) -> Result<Vec<RawRecord>, LogError>) -> Result<Said, LogError> {
        let mut said = Said::new();
        loop {
            let slice = scan(self.next.load(Ordering::Relaxed))?;
            let Some(last) = slice.last() else { return Ok(said) };
            let after = last.offset + 1;
            for record in slice {
                match wire::decode(Topic::Schemas, &record.value) {
                    Ok(Message::Schema(entry)) => take(&entry, &mut said),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(event = "schema-unusable", offset = record.offset, %error, "a record of the topic schemas cannot be read"),
                }
            }
            // Another thread may have learnt the same, or more.
            self.next.fetch_max(after, Ordering::Relaxed);
        }
    }
}

/// The schemas that stand on the topic: fingerprints, and the ids of a registry that messages are written by.
type Said = BTreeMap<u64, Option<u32>>;

fn take(entry: &SchemaEntry, said: &mut Said) {
    let id = entry.id.and_then(|id| u32::try_from(id).ok());
    let learn = |held: &'static Schemas| -> Result<u64, SchemaError> {
        let fingerprint = held.register(&entry.schema)?;
        if let Some(id) = id {
            held.learn(id, Ok(&entry.schema))?;
        }
        Ok(fingerprint)
    };
    match schemas::held().map_err(ToString::to_string).and_then(|held| learn(held).map_err(|error| error.to_string())) {
        Ok(fingerprint) => drop(said.insert(fingerprint, id)),
        // A message that this release does not have is none that it reads.
        Err(reason) => {
            tracing::warn!(event = "schema-unusable", release = entry.release, reason, "what another release writes by this schema cannot be read here");
        }
    }
}

/// Asks under which id a registry has a schema of this release.
pub type AskId<'a> = &'a dyn Fn(RecordType) -> Result<u32, LogError>;

/// Learns how all releases write, and says how this one does, where that does not stand there yet. With `ask`, this process writes by the ids of a registry
/// from then on; it is asked for those that do not stand there alone. How many schemas it said.
///
/// # Errors
/// As [`Log::scan`] and [`Log::append`], and those of `ask`.
pub fn begin(log: &dyn Log, ask: Option<AskId<'_>>) -> Result<usize, LogError> {
    let said = Reading::default().learn(&|from| log.scan(Topic::Schemas, 0, from, SLICE))?;
    let held = schemas::held().map_err(|error| LogError::Fatal { reason: error.to_string() })?;
    let (mut lacking, mut ids) = (Vec::new(), HashMap::new());
    for &record in RecordType::ALL {
        let fingerprint = held.fingerprint_of(record);
        let known = said.get(&fingerprint).copied();
        let mut id = known.flatten();
        // This one is read before anything is known of ids.
        if let (Some(ask), false) = (ask, record == RecordType::SchemaEntry) {
            let by = id.map_or_else(|| ask(record), Ok)?;
            id = Some(by);
            ids.insert(record, by);
        }
        if known != Some(id) {
            let entry = SchemaEntry { release: env!("CARGO_PKG_VERSION").to_owned(), schema: record.schema_json().to_owned(), id: id.map(i64::from) };
            take(&entry, &mut Said::new());
            let (key, value) = (Some(format!("{fingerprint:016x}")), wire::encode(&Message::Schema(entry)));
            lacking.push(RawAppend { topic: Topic::Schemas, partition: 0, key, value });
        }
    }
    let count = lacking.len();
    if count > 0 {
        log.append(lacking)?;
    }
    if ask.is_some() {
        held.write_by(ids);
    }
    Ok(count)
}

/// Learns how all releases write, for whoever reads alone.
///
/// # Errors
/// As [`ReadOnly::scan`].
pub fn learn(log: &dyn ReadOnly) -> Result<(), LogError> {
    Reading::default().learn(&|from| log.scan(Topic::Schemas, 0, from, SLICE)).map(drop)
}
