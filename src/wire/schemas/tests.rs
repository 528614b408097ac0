//! The schemas hold their own rules: `schemas/README.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use apache_avro::types::Value;
use serde_json::Value as Json;

use super::*;
use crate::log::Topic;
use crate::model::{Mark, Message, Signal, Timestamp};
use crate::wire::{decode_with, encode};

fn json(record: RecordType) -> Json {
    serde_json::from_str(record.schema_json()).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

#[test]
fn there_is_one_file_a_message_and_its_record_has_its_name() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".avsc").map(str::to_owned))
        .collect();
    files.sort();
    let mut names: Vec<&str> = RecordType::ALL.iter().map(|r| r.name()).collect();
    names.sort_unstable();
    assert_eq!(files, names);
    for &record in RecordType::ALL {
        let schema = Schema::parse_str(record.schema_json()).unwrap();
        assert_eq!(record_of(&schema).unwrap(), record);
    }
}

/// The figure for `"null"` is that of Avro's own test data (`schema-tests.txt`).
#[test]
fn fingerprints_are_those_of_every_other_avro() {
    assert_eq!(fingerprint(&Schema::Null), 7_195_948_357_588_979_594);
    // As fastavro has it: names within names, and logical types, which are not part of it.
    let of_all_sorts = r#"{"type":"record","name":"A","namespace":"dev.loadline","fields":[
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"sum","type":["null",{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}],"default":null},
        {"name":"inner","type":{"type":"record","name":"B","doc":"Inner.","fields":[
            {"name":"kind","type":{"type":"enum","name":"K","symbols":["X"]}},
            {"name":"times","type":{"type":"array","items":{"type":"long","logicalType":"timestamp-millis"}}}]}}]}"#;
    assert_eq!(fingerprint(&Schema::parse_str(of_all_sorts).unwrap()), 8_378_364_073_046_205_117);
}

#[test]
fn every_schema_reads_what_it_wrote() {
    for record in RecordType::ALL {
        let schema = Schema::parse_str(record.schema_json()).unwrap();
        assert_eq!(SchemaCompatibility::can_read(&schema, &schema), Ok(Compatibility::Full), "{}", record.name());
    }
}

/// Calls `visit` for every object in a schema.
fn walk(json: &Json, visit: &mut impl FnMut(&serde_json::Map<String, Json>)) {
    match json {
        Json::Object(object) => {
            visit(object);
            object.iter().filter(|(key, _)| *key != "default").for_each(|(_, value)| walk(value, visit));
        }
        Json::Array(list) => list.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

#[test]
fn every_record_enum_and_field_says_what_it_is() {
    for &record in RecordType::ALL {
        walk(&json(record), &mut |object| {
            let named = object.contains_key("name");
            assert!(
                !named || object.get("doc").and_then(Json::as_str).is_some_and(|doc| !doc.is_empty()),
                "{}: {:?} has no doc",
                record.name(),
                object["name"]
            );
        });
    }
}

#[test]
fn no_number_is_of_a_type_that_would_need_a_promotion() {
    for &record in RecordType::ALL {
        walk(&json(record), &mut |object| {
            for (key, value) in object.iter().filter(|(key, _)| ["type", "items", "values"].contains(&key.as_str())) {
                let types: Vec<&Json> = value.as_array().map_or_else(|| vec![value], |union| union.iter().collect());
                assert!(!types.iter().any(|t| *t == "int" || *t == "float"), "{}: {key} {value}", record.name());
            }
        });
    }
}

#[test]
fn shared_types_are_the_same_in_every_schema() {
    let mut seen: BTreeMap<String, (Json, &str)> = BTreeMap::new();
    for &record in RecordType::ALL {
        walk(&json(record), &mut |object| {
            if object.contains_key("fields") || object.contains_key("symbols") {
                let name = object["name"].as_str().unwrap().to_owned();
                let here = Json::Object(object.clone());
                let (first, place) = seen.entry(name.clone()).or_insert_with(|| (here.clone(), record.name()));
                assert_eq!(*first, here, "{name} differs between {place} and {}", record.name());
            }
        });
    }
}

// --- change -----------------------------------------------------------------------------------

/// Whether `old` and `new` read each other, by Avro's rules and by the stricter ones of this program,
/// which reads by the writer's schema alone.
fn check_evolution(old: &str, new: &str) -> Result<(), String> {
    let parsed = |text: &str| Schema::parse_str(text).map_err(|e| e.to_string());
    match SchemaCompatibility::mutual_read(&parsed(old)?, &parsed(new)?) {
        Ok(Compatibility::Full) => {}
        Ok(Compatibility::Partial) => return Err("only some values can be read by the other".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let (old, new) = (definitions(old), definitions(new));
    for (name, types) in &old {
        if let Some(changed) = new.get(name).filter(|n| *n != types) {
            return Err(format!("{name} changed its type from {types} to {changed}"));
        }
        if name.contains('=') && !new.contains_key(name) {
            return Err(format!("the symbol {name} was removed"));
        }
    }
    Ok(())
}

/// The type of every field (`Record.field`) and every symbol (`Enum=symbol`), with nested definitions
/// reduced to their names.
fn definitions(text: &str) -> BTreeMap<String, Json> {
    fn reduced(json: &Json) -> Json {
        match json {
            Json::Object(object) if object.contains_key("name") => object["name"].clone(),
            Json::Object(object) => object.iter().map(|(key, value)| (key.clone(), reduced(value))).collect(),
            Json::Array(list) => list.iter().map(reduced).collect(),
            other => other.clone(),
        }
    }
    let mut found = BTreeMap::new();
    walk(&serde_json::from_str(text).unwrap(), &mut |object| {
        for field in object.get("fields").and_then(Json::as_array).into_iter().flatten() {
            found.insert(format!("{}.{}", object["name"].as_str().unwrap(), field["name"].as_str().unwrap()), reduced(&field["type"]));
        }
        for symbol in object.get("symbols").and_then(Json::as_array).into_iter().flatten() {
            found.insert(format!("{}={}", object["name"].as_str().unwrap(), symbol.as_str().unwrap()), Json::Null);
        }
    });
    found
}

#[test]
fn from_the_first_release_on_every_schema_reads_and_is_read_by_its_history() {
    for (record, release, old) in HISTORY {
        check_evolution(old, record.schema_json()).unwrap_or_else(|e| panic!("{} of {release}: {e}", record.name()));
    }
}

#[test]
fn the_history_folder_and_its_list_are_the_same() {
    let mut files = Vec::new();
    for message in std::fs::read_dir(folder().join("history")).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_dir()) {
        for file in std::fs::read_dir(message.path()).unwrap().map(|e| e.unwrap()) {
            let release = file.file_name().into_string().unwrap().trim_end_matches(".avsc").to_owned();
            files.push((message.file_name().into_string().unwrap(), release, std::fs::read_to_string(file.path()).unwrap()));
        }
    }
    files.sort();
    let mut listed: Vec<_> = HISTORY.iter().map(|(record, release, text)| (record.name().to_owned(), (*release).to_owned(), (*text).to_owned())).collect();
    listed.sort();
    assert_eq!(files, listed);
}

#[test]
fn a_change_that_an_old_or_new_process_would_not_survive_is_caught() {
    let old = RecordType::Outcome.schema_json();
    check_evolution(old, old).unwrap();
    let with = |from: &str, to: &str| {
        let new = old.replace(from, to);
        assert_ne!(old, new, "{from} is there");
        check_evolution(old, &new)
    };
    let command = r#"{ "name": "command", "type": "string", "doc": "The command's id." },"#;
    // Survived: a field with a default, more or fewer; a symbol of an enum with a default.
    let added = format!(r#"{command} {{ "name": "attempt", "type": "long", "doc": "Which.", "default": 1 }},"#);
    with(command, &added).unwrap();
    with(r#""Lost", "Other""#, r#""Lost", "Postponed", "Other""#).unwrap();
    // Not survived.
    let rows = [
        (command, "", "a field without a default was removed"),
        (command, r#"{ "name": "commandId", "type": "string", "doc": "Renamed." },"#, "renamed"),
        (r#""name": "command", "type": "string""#, r#""name": "command", "type": ["null", "string"]"#, "made optional, which Avro would promote"),
        (r#""name": "revision", "type": ["null", "long"]"#, r#""name": "revision", "type": ["null", "double"]"#, "promoted within a union"),
        (r#""Lost", "Other""#, r#""Other""#, "a symbol was removed"),
        (r#""name": "Outcome""#, r#""name": "Result""#, "the record was renamed"),
    ];
    for (from, to, what) in rows {
        assert!(with(from, to).is_err(), "{what}");
    }
    let new_without_default = format!(r#"{command} {{ "name": "attempt", "type": "long", "doc": "Which." }},"#);
    assert!(with(command, &new_without_default).is_err(), "a field without a default was added");
    let alert = RecordType::Alert.schema_json();
    let more = alert.replace(r#""Firing", "Resolved""#, r#""Firing", "Resolved", "Muted""#);
    assert!(check_evolution(alert, &more).is_err(), "a symbol of an enum without a default");
}

/// Removes every field that has a default.
fn without_defaults(json: &mut Json) {
    match json {
        Json::Object(object) => {
            if let Some(Json::Array(fields)) = object.get_mut("fields") {
                fields.retain(|field| field.get("default").is_none());
            }
            object.values_mut().for_each(without_defaults);
        }
        Json::Array(list) => list.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

proptest::proptest! {
    /// A default in a schema is a promise to older writers, which the serde type must keep.
    #[test]
    fn what_was_written_without_the_fields_that_have_defaults_is_read(message in crate::wire::arbitrary::message()) {
        let bytes = encode(&message);
        let own = held().unwrap();
        let record = own.find(u64::from_le_bytes(bytes[2..10].try_into().unwrap())).unwrap().record();
        let mut reduced = json(record);
        without_defaults(&mut reduced);
        let schemas = Schemas::of_release().unwrap();
        let fingerprint = schemas.register(&reduced.to_string()).unwrap();

        let reduced = Schema::parse_str(&reduced.to_string()).unwrap();
        let value = own.find(own.fingerprint_of(record)).unwrap().reader().read_value(&mut &bytes[10..]).unwrap();
        let mut older = vec![0xc3, 0x01];
        older.extend(fingerprint.to_le_bytes());
        older.extend(GenericDatumWriter::builder(&reduced).build().unwrap().write_value_to_vec(strip(value, &reduced, &names(&reduced))).unwrap());
        let read = Topic::ALL.iter().filter_map(|topic| decode_with(&schemas, *topic, &older).ok()).count();
        proptest::prop_assert!(read > 0, "{:?}", Topic::ALL.map(|topic| decode_with(&schemas, topic, &older).err().map(|e| e.to_string())));
    }
}

fn names(schema: &Schema) -> std::collections::HashMap<apache_avro::schema::Name, Schema> {
    let resolved = apache_avro::schema::ResolvedSchema::try_from(schema).unwrap();
    resolved.get_names().iter().map(|(name, schema)| (name.clone(), (*schema).clone())).collect()
}

/// What is left of a value under a schema with fewer fields.
fn strip(value: Value, schema: &Schema, names: &std::collections::HashMap<apache_avro::schema::Name, Schema>) -> Value {
    match (value, schema) {
        (value, Schema::Ref { name }) => strip(value, &names[name], names),
        (Value::Record(fields), Schema::Record(record)) => {
            let mut fields: BTreeMap<String, Value> = fields.into_iter().collect();
            Value::Record(record.fields.iter().map(|f| (f.name.clone(), strip(fields.remove(&f.name).unwrap(), &f.schema, names))).collect())
        }
        (Value::Array(items), Schema::Array(array)) => Value::Array(items.into_iter().map(|v| strip(v, &array.items, names)).collect()),
        (Value::Map(entries), Schema::Map(map)) => Value::Map(entries.into_iter().map(|(k, v)| (k, strip(v, &map.types, names))).collect()),
        (Value::Union(index, value), Schema::Union(union)) => {
            let variant = &union.variants()[index as usize];
            Value::Union(index, Box::new(strip(*value, variant, names)))
        }
        (value, _) => value,
    }
}

// --- schemas of others ------------------------------------------------------------------------

#[test]
fn a_newer_release_is_read_once_its_schema_is_known() {
    let newer = RecordType::Mark.schema_json().replace(
        r#"{ "name": "of","#,
        r#"{ "name": "zone", "type": { "type": "enum", "name": "Zone", "symbols": ["North", "South"] }, "doc": "New.", "default": "North" },
            { "name": "zones", "type": { "type": "array", "items": ["null", "long", { "type": "record", "name": "Place", "fields": [
                { "name": "zone", "type": "Zone" }, { "name": "sizes", "type": { "type": "map", "values": "bytes" } }] }] }, "doc": "New." }, { "name": "of","#,
    );
    let schema = Schema::parse_str(&newer).unwrap();
    let mut bytes = vec![0xc3, 0x01];
    bytes.extend(fingerprint(&schema).to_le_bytes());
    let sizes = Value::Map([("m".to_owned(), Value::Bytes(vec![1, 2]))].into());
    let place = Value::Record(vec![("zone".into(), Value::Enum(0, "North".into())), ("sizes".into(), sizes)]);
    let value = Value::Record(vec![
        ("source".into(), Value::Long(3)),
        ("zone".into(), Value::Enum(1, "South".into())),
        (
            "zones".into(),
            Value::Array(vec![Value::Union(0, Box::new(Value::Null)), Value::Union(1, Box::new(Value::Long(9))), Value::Union(2, Box::new(place))]),
        ),
        ("of".into(), Value::Long(4)),
        ("through".into(), Value::Union(1, Box::new(Value::TimestampMillis(1_764_000_000_000)))),
        ("paneMs".into(), Value::Long(250)),
        ("records".into(), Value::Long(1)),
        ("late".into(), Value::Long(0)),
        ("rejected".into(), Value::Long(0)),
        ("repeated".into(), Value::Long(0)),
    ]);
    bytes.extend(GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap());

    let schemas = Schemas::of_release().unwrap();
    assert!(decode_with(&schemas, Topic::Signals, &bytes).is_err());
    let learnt = schemas.register(&newer).unwrap();
    assert_eq!(schemas.register(&newer).unwrap(), learnt, "a second time is no other");
    let through = Timestamp::from_millis(1_764_000_000_000);
    let mark = Mark { source: 3, of: 4, through, pane_ms: 250, records: 1, late: 0, rejected: 0, repeated: 0 };
    assert_eq!(decode_with(&schemas, Topic::Signals, &bytes).unwrap(), Message::Signal(Signal::Mark(mark)));
}

#[test]
fn a_symbol_of_a_newer_release_is_other() {
    let newer = RecordType::Outcome.schema_json().replace(r#""Lost", "Other""#, r#""Lost", "Postponed", "Other""#);
    let schema = Schema::parse_str(&newer).unwrap();
    let schemas = Schemas::of_release().unwrap();
    let mut bytes = vec![0xc3, 0x01];
    bytes.extend(schemas.register(&newer).unwrap().to_le_bytes());
    let none = || Value::Union(0, Box::new(Value::Null));
    let value = Value::Record(vec![
        ("target".into(), Value::String("a/b/c".into())),
        ("command".into(), Value::String("c-1".into())),
        ("uid".into(), none()),
        ("result".into(), Value::Enum(9, "Postponed".into())),
        ("replicas".into(), none()),
        ("revision".into(), none()),
        ("error".into(), none()),
    ]);
    bytes.extend(GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap());
    let Ok(Message::Signal(Signal::Outcome(outcome))) = decode_with(&schemas, Topic::Signals, &bytes) else { panic!("an outcome") };
    assert_eq!(outcome.result, crate::model::OutcomeResult::Other);
}

#[test]
fn ids_that_stand_for_nothing_make_room_for_those_that_do() {
    let schemas = Schemas::of_release().unwrap();
    let most = u32::try_from(MAX_IDS).unwrap();
    (1..=most).for_each(|id| schemas.learn(id, Err("the registry does not know it".to_owned())).unwrap());
    schemas.learn(most + 1, Ok(RecordType::Mark.schema_json())).unwrap();
    assert_eq!(schemas.of_id(most + 1).unwrap().unwrap().record(), RecordType::Mark);
    (1..most).for_each(|id| schemas.learn(id, Ok(RecordType::Mark.schema_json())).unwrap());
    assert!(matches!(schemas.learn(most, Ok(RecordType::Mark.schema_json())), Err(SchemaError::TooManyIds)));
}

#[test]
fn schemas_that_are_none_of_ours_or_without_bound_are_refused() {
    let schemas = Schemas::of_release().unwrap();
    let refused = |text: &str| schemas.register(text).unwrap_err().to_string();
    assert!(refused("{").starts_with("the schema cannot be read: "));
    assert!(refused(r#"{"type":"record","name":"Tick","namespace":"com.example","fields":[]}"#).contains("\"com.example.Tick\" is not one of"));
    assert!(refused(r#""string""#).contains("is not one of"));
    let own = |field: &str| format!(r#"{{"type":"record","name":"Tick","namespace":"dev.loadline","fields":[{{"name":"x","type":{field}}}]}}"#);
    assert!(refused(&own(r#"["null","Tick"]"#)).ends_with("contains itself"));
    assert!(refused(&own(r#"{"type":"array","items":"null"}"#)).ends_with("has an array whose items take no bytes"));
    assert!(refused(&own(r#"{"type":"array","items":{"type":"record","name":"E","fields":[{"name":"n","type":"null"}]}}"#)).ends_with("take no bytes"));
}
