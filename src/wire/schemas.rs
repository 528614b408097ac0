//! The schemas: those of this release, of its history, and of others that are registered.
//!
//! A message is read by the schema that it was written with, found by its fingerprint. What this
//! release writes is built in from `schemas/`; what earlier ones wrote is in [`HISTORY`]; what newer
//! ones write is learnt from them by [`Schemas::register`], and what others write under the id of a registry
//! by [`Schemas::learn`]. The rules of change are in `schemas/README.md`.
//!
//! Invariant: a schema that is held can be read with memory, stack and time bounded by the size of
//! the message; see [`check_bounded`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, OnceLock, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use rustc_hash::FxHashMap;

use super::avro::describe;

/// The most schemas that are learnt from others: they are kept for the life of the process, and 18
/// messages with a few versions each are far below it.
const MAX_REGISTERED: usize = 1_000;
/// The most ids of a registry that are remembered.
const MAX_IDS: usize = 10_000;
/// The most bytes that one value may take while it is read: twice the largest record of the log.
const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// How deep types may be nested in a schema; ours are 9 deep.
const MAX_DEPTH: usize = 64;
/// The namespace of every message.
const NAMESPACE: &str = "dev.loadline";

macro_rules! record_types {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The messages, as their schemas name them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RecordType {
            $($(#[$doc])* $name,)+
        }

        impl RecordType {
            /// Every message.
            pub const ALL: &[RecordType] = &[$(RecordType::$name,)+];

            /// The name of its record.
            pub fn name(self) -> &'static str {
                match self {
                    $(RecordType::$name => stringify!($name),)+
                }
            }

            /// Its name with its namespace: the type of the event that a consumer of Kafka sees.
            pub fn full_name(self) -> String {
                format!("{NAMESPACE}.{}", self.name())
            }

            /// The schema that this release writes it with, as JSON.
            pub fn schema_json(self) -> &'static str {
                match self {
                    $(RecordType::$name => include_str!(concat!("../../schemas/", stringify!($name), ".avsc")),)+
                }
            }
        }
    };
}

record_types! {
    /// On `metrics`.
    SampleBatch,
    /// On `control`.
    PolicyEntry,
    /// On `control` and `audit`.
    PolicyRejected,
    /// On `control`.
    PolicyRemoved,
    /// On `control`.
    RoundEnd,
    /// On `control`.
    AnnounceAgain,
    /// On `control`, `signals` and `requests`.
    CarriedState,
    /// On `signals`.
    Part,
    /// On `signals`.
    Mark,
    /// On `signals` and `requests`.
    Tick,
    /// On `signals`.
    FleetObservation,
    /// On `signals` and `audit`.
    PolicyAnnouncement,
    /// On `signals` and `audit`.
    Outcome,
    /// On `audit`.
    ManualChange,
    /// On `signals` and `audit`.
    Grant,
    /// On `signals`.
    SourceError,
    /// On `requests`.
    Request,
    /// On `commands` and `audit`.
    Command,
    /// On `audit`.
    Decision,
    /// On `alerts`.
    Alert,
    /// On `dead-letters`.
    DeadLetter,
    /// On `schemas`. This one never changes: no reader could learn how.
    SchemaEntry,
}

/// What earlier releases wrote: (message, release, schema), a file each in `schemas/history`.
pub const HISTORY: &[(RecordType, &str, &str)] = &[];

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not an Avro schema.
    #[error("the schema cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// Not a schema of one of the messages.
    #[error("\"{name}\" is not one of Loadline's messages, which are records of the namespace {NAMESPACE}")]
    NotOurs {
        /// Its full name, or its type where it is no record.
        name: String,
    },
    /// A message written with it could take more than its own size in memory or time.
    #[error("the schema of {name} {reason}")]
    Unbounded {
        /// Its name.
        name: String,
        /// What it does.
        reason: &'static str,
    },
    /// More schemas than are kept.
    #[error("{MAX_REGISTERED} schemas of other releases are held already; restart this process when the rollout is over")]
    TooMany,
    /// More ids of a registry than are remembered.
    #[error("{MAX_IDS} ids of the registry are known already; restart this process")]
    TooManyIds,
}

/// How a registry names a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryId {
    /// By its id there.
    Id(u32),
    /// By the GUID that it has in every registry.
    Guid(u128),
}

impl From<u32> for RegistryId {
    fn from(id: u32) -> Self {
        RegistryId::Id(id)
    }
}

impl fmt::Display for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryId::Id(id) => write!(f, "{id}"),
            RegistryId::Guid(guid) => {
                let digits = format!("{guid:032x}");
                write!(f, "{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
            }
        }
    }
}

/// A schema that is held.
#[derive(Clone, Copy)]
pub struct Known {
    record: RecordType,
    reader: &'static GenericDatumReader<'static>,
    is_own: bool,
}

impl Known {
    /// Whether this release writes by it.
    pub(super) fn is_own(self) -> bool {
        self.is_own
    }

    /// Which message it is of.
    pub fn record(self) -> RecordType {
        self.record
    }

    /// Reads what was written with it.
    pub(super) fn reader(self) -> &'static GenericDatumReader<'static> {
        self.reader
    }
}

/// A schema that this release writes.
pub(super) struct Own {
    fingerprint: u64,
    writer: GenericDatumWriter<'static>,
}

impl Own {
    /// Its CRC-64-AVRO fingerprint.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Writes with it.
    pub(super) fn writer(&self) -> &GenericDatumWriter<'static> {
        &self.writer
    }
}

/// The schemas that are held, by fingerprint.
pub struct Schemas {
    /// In the order of [`RecordType::ALL`], which is that of its discriminants.
    own: Vec<Own>,
    built_in: FxHashMap<u64, Known>,
    registered: RwLock<HashMap<u64, Known>>,
    /// By the ids of a registry, or why nothing can be read by one.
    ids: RwLock<HashMap<RegistryId, Result<Known, String>>>,
    /// The ids of a registry by which this process writes, where it does.
    writes_by: OnceLock<HashMap<RecordType, u32>>,
}

/// The schemas that this process holds.
static HELD: LazyLock<Result<Schemas, SchemaError>> = LazyLock::new(Schemas::of_release);

/// The schemas that this process holds.
///
/// # Errors
/// Never in a release: a built-in schema that cannot be used, which tests rule out.
pub fn held() -> Result<&'static Schemas, &'static SchemaError> {
    HELD.as_ref()
}

impl Schemas {
    /// What this release writes, and what it reads by its history.
    ///
    /// # Errors
    /// [`SchemaError`] where a built-in schema cannot be used.
    pub fn of_release() -> Result<Self, SchemaError> {
        // The limit of the library is global and the first call sets it, so it stands before any use.
        apache_avro::util::max_allocation_bytes(MAX_VALUE_BYTES);
        let mut own = Vec::with_capacity(RecordType::ALL.len());
        let mut built_in = FxHashMap::default();
        for &record in RecordType::ALL {
            let loaded = load(record.schema_json())?;
            let writer = GenericDatumWriter::builder(loaded.schema).build().map_err(|e| unreadable(&e))?;
            own.push(Own { fingerprint: loaded.fingerprint, writer });
            built_in.insert(loaded.fingerprint, Known { is_own: true, ..loaded.known });
        }
        for (_, _, json) in HISTORY {
            let loaded = load(json)?;
            built_in.entry(loaded.fingerprint).or_insert(loaded.known);
        }
        Ok(Schemas { own, built_in, registered: RwLock::default(), ids: RwLock::default(), writes_by: OnceLock::new() })
    }

    /// Learns another release's schema of one of the messages, and gives its fingerprint. A schema
    /// that is held already is none to learn.
    ///
    /// # Errors
    /// [`SchemaError`]; what was held before is held still.
    pub fn register(&self, schema_json: &str) -> Result<u64, SchemaError> {
        let fingerprint = fingerprint(&parse(schema_json)?);
        if self.find(fingerprint).is_some() {
            return Ok(fingerprint);
        }
        let mut registered = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        if registered.len() >= MAX_REGISTERED {
            return Err(SchemaError::TooMany);
        }
        let loaded = load(schema_json)?;
        registered.insert(loaded.fingerprint, loaded.known);
        Ok(loaded.fingerprint)
    }

    /// The schema with this fingerprint.
    pub fn find(&self, fingerprint: u64) -> Option<Known> {
        let built_in = self.built_in.get(&fingerprint).copied();
        built_in.or_else(|| self.registered.read().unwrap_or_else(PoisonError::into_inner).get(&fingerprint).copied())
    }

    /// Learns what the id of a registry stands for: a schema, or why nothing can be read by it. What is known of an id stays, but for why nothing can be
    /// read by it. A schema that is none of Loadline's is such a reason, and no error.
    ///
    /// # Errors
    /// [`SchemaError::TooMany`], [`SchemaError::TooManyIds`]: nothing was learnt, and more was known already than is kept.
    pub fn learn(&self, id: impl Into<RegistryId>, schema_json: Result<&str, String>) -> Result<(), SchemaError> {
        let learnt = match schema_json.map(|json| self.register(json)) {
            Ok(Ok(fingerprint)) => self.find(fingerprint).ok_or_else(|| "its schema cannot be found".to_owned()),
            Ok(Err(error @ SchemaError::TooMany)) => return Err(error),
            Ok(Err(error)) => Err(error.to_string()),
            Err(reason) => Err(reason),
        };
        let id = id.into();
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        match ids.get(&id) {
            Some(Ok(_)) => return Ok(()),
            None if ids.len() >= MAX_IDS => {
                // Why something cannot be read is found out again.
                ids.retain(|_, known| known.is_ok());
                if ids.len() >= MAX_IDS {
                    return Err(SchemaError::TooManyIds);
                }
            }
            _ => {}
        }
        ids.insert(id, learnt);
        Ok(())
    }

    /// What the id of a registry stands for: a schema, or why nothing can be read by it. `None` where nothing was learnt of it.
    pub fn of_id(&self, id: impl Into<RegistryId>) -> Option<Result<Known, String>> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).get(&id.into()).cloned()
    }

    /// From now on these messages are written in Confluent's framing, each by its id. Only the first call counts: a process writes in one way.
    pub fn write_by(&self, ids: HashMap<RecordType, u32>) {
        self.writes_by.get_or_init(|| ids);
    }

    /// The id that `record` is written by, where it is by one.
    pub(super) fn written_by(&self, record: RecordType) -> Option<u32> {
        self.writes_by.get()?.get(&record).copied()
    }

    /// The fingerprint of the schema that this release writes `record` with.
    pub fn fingerprint_of(&self, record: RecordType) -> u64 {
        self.own(record).fingerprint
    }

    /// The schema that this release writes `record` with.
    pub(super) fn own(&self, record: RecordType) -> &Own {
        &self.own[record as usize]
    }
}

struct Loaded {
    schema: &'static Schema,
    fingerprint: u64,
    known: Known,
}

/// Parses and checks a schema and keeps it for the life of the process: a reader borrows its schema,
/// and how many are kept is bounded.
fn load(json: &str) -> Result<Loaded, SchemaError> {
    let schema = parse(json)?;
    let record = record_of(&schema)?;
    let fingerprint = fingerprint(&schema);
    let schema: &'static Schema = Box::leak(Box::new(schema));
    let reader = GenericDatumReader::builder(schema).build().map_err(|e| unreadable(&e))?;
    Ok(Loaded { schema, fingerprint, known: Known { record, reader: Box::leak(Box::new(reader)), is_own: false } })
}

/// A schema that may be read by, though not necessarily one of a message.
fn parse(json: &str) -> Result<Schema, SchemaError> {
    let schema = Schema::parse_str(json).map_err(|e| unreadable(&e))?;
    check_bounded(&schema)?;
    Ok(schema)
}

fn unreadable(error: &apache_avro::Error) -> SchemaError {
    SchemaError::Unreadable { reason: describe(error) }
}

fn record_of(schema: &Schema) -> Result<RecordType, SchemaError> {
    let Some(name) = schema.name() else {
        return Err(SchemaError::NotOurs { name: format!("{:?}", apache_avro::schema::SchemaKind::from(schema)).to_lowercase() });
    };
    let of_this_name = RecordType::ALL.iter().find(|record| record.name() == name.name());
    match of_this_name {
        Some(record) if name.namespace() == Some(NAMESPACE) => Ok(*record),
        _ => Err(SchemaError::NotOurs { name: name.fullname(None) }),
    }
}

/// The CRC-64-AVRO fingerprint of a schema's Parsing Canonical Form.
///
/// The library's form leaves `{"type":"long"}` of a logical type, where the specification's rule \[PRIMITIVE\] has `"long"`, as all other
/// libraries do: with that fingerprint nobody else would know the schema. What is mended is parsed again, and has none.
fn fingerprint(schema: &Schema) -> u64 {
    let mut form = schema.canonical_form();
    for primitive in ["null", "boolean", "int", "long", "float", "double", "bytes", "string"] {
        form = form.replace(&format!("{{\"type\":\"{primitive}\"}}"), &format!("\"{primitive}\""));
    }
    let digest = Schema::parse_str(&form).as_ref().unwrap_or(schema).fingerprint::<Rabin>().bytes;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// Refuses schemas by which few bytes could become very much: types that contain themselves (a
/// field that is passed over would recurse as deep as the message is long), and types that take no
/// bytes where they could be many (as an array's items, or named from several places).
pub(super) fn check_bounded(schema: &Schema) -> Result<(), SchemaError> {
    let mut walk = Walk { open: Vec::new(), defined: HashMap::new() };
    walk.least_bytes(schema, 0).map(|_| ()).map_err(|reason| {
        let name = schema.name().map_or_else(|| "a type without a name".to_owned(), |name| name.fullname(None));
        SchemaError::Unbounded { name, reason }
    })
}

struct Walk {
    /// The named types that the walk is inside of.
    open: Vec<String>,
    /// Whether a value of the named types already walked takes at least a byte.
    defined: HashMap<String, bool>,
}

impl Walk {
    /// Whether every value of `schema` takes at least one byte.
    fn least_bytes(&mut self, schema: &Schema, depth: usize) -> Result<bool, &'static str> {
        if depth > MAX_DEPTH {
            return Err("nests types too deeply");
        }
        match schema {
            Schema::Null => Ok(false),
            Schema::Fixed(fixed) => {
                self.defined.insert(fixed.name.fullname(None), fixed.size > 0);
                Ok(fixed.size > 0)
            }
            Schema::Enum(e) => {
                self.defined.insert(e.name.fullname(None), true);
                Ok(true)
            }
            Schema::Array(array) => self.items(&array.items, depth),
            Schema::Map(map) => self.least_bytes(&map.types, depth + 1).map(|_| true),
            Schema::Union(union) => {
                for variant in union.variants() {
                    self.least_bytes(variant, depth + 1)?;
                }
                Ok(true)
            }
            Schema::Record(record) => {
                let name = record.name.fullname(None);
                self.open.push(name.clone());
                let mut any = false;
                for field in &record.fields {
                    any |= self.least_bytes(&field.schema, depth + 1)?;
                }
                self.open.pop();
                self.defined.insert(name, any);
                Ok(any)
            }
            Schema::Ref { name } => {
                let name = name.fullname(None);
                if self.open.contains(&name) {
                    return Err("contains itself");
                }
                match self.defined.get(&name) {
                    Some(true) => Ok(true),
                    Some(false) => Err("uses a type that takes no bytes more than once"),
                    None => Err("names a type that it does not define"),
                }
            }
            _ => Ok(true),
        }
    }

    fn items(&mut self, items: &Schema, depth: usize) -> Result<bool, &'static str> {
        if self.least_bytes(items, depth + 1)? { Ok(true) } else { Err("has an array whose items take no bytes") }
    }
}

#[cfg(test)]
mod tests;
