//! JSON Schemas (draft-07, which the YAML servers of editors understand) of the documents that people write, made of what
//! their readers tell of themselves.
//!
//! A schema refuses no document that its reader takes; of what the reader refuses it refuses unknown fields, wrong
//! types, words and forms of numbers. What depends on other fields is the reader's alone.

mod objects;

use serde_json::{Map, Value, json};

use super::{API_VERSION, ENVELOPE, METADATA};
use crate::model::document::shape::{Form, Outline, Shape};
use crate::model::policy;

/// A number with at most one point.
macro_rules! decimal {
    () => {
        r"([0-9]+\.?[0-9]*|\.[0-9]+)"
    };
}

/// A time: each unit at most once, the larger first.
macro_rules! time {
    () => {
        concat!(
            "(",
            decimal!(),
            "h(",
            decimal!(),
            "m)?(",
            decimal!(),
            "s)?(",
            decimal!(),
            "ms)?|",
            decimal!(),
            "m(",
            decimal!(),
            "s)?(",
            decimal!(),
            "ms)?|",
            decimal!(),
            "s(",
            decimal!(),
            "ms)?|",
            decimal!(),
            "ms)"
        )
    };
}

const DURATION: &str = concat!(r"^\s*", time!(), r"\s*$");
const AMOUNT: &str =
    concat!(r"^\s*(", time!(), r"|\+?", decimal!(), r"\s*%|\+?", decimal!(), "(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?", r")\s*$");
const RATIO: &str = concat!(r"^\s*\+?", decimal!(), r"\s*%\s*$");

/// The `$schema` of what is made here.
pub const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of a `ScalingPolicy`.
pub fn scaling_policy() -> Value {
    let outline = policy::outline();
    let name = json!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": r"^[^\s/]+$" });
    let mut metadata: Map<String, Value> = METADATA.iter().map(|field| ((*field).to_owned(), json!(true))).collect();
    let mut namespace = nullable(name.clone());
    namespace["description"] = json!("the namespace of the target; of a ProcessFleet local where none is written, else required");
    metadata.extend([("namespace".to_owned(), namespace), ("name".to_owned(), name)]);
    let mut properties = Map::new();
    for field in ENVELOPE {
        let value = match field {
            "apiVersion" => json!({ "const": API_VERSION }),
            "kind" => json!({ "const": "ScalingPolicy", "description": "how many replicas one target may have, and what decides" }),
            "metadata" => {
                json!({ "type": "object", "description": "of which target it is the policy", "properties": metadata, "required": ["name"], "additionalProperties": false })
            }
            "spec" => {
                let mut spec = map(&outline, "spec");
                spec["description"] = json!(objects::meaning("spec"));
                spec
            }
            _ => json!(true),
        };
        properties.insert(field.to_owned(), value);
    }
    let processes = json!({ "properties": { "spec": { "properties": { "target": { "properties": { "kind": { "const": "ProcessFleet" } } } } } } });
    json!({
        "type": "object", "properties": properties, "required": ["apiVersion", "kind", "metadata", "spec"], "additionalProperties": false,
        "if": processes, "else": { "properties": { "metadata": { "required": ["namespace"] } } },
    })
}

/// The schema of the map at `path` of an outline; its root is the empty path.
pub fn map(outline: &Outline, path: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let paths = outline.fields.keys().chain(&outline.maps);
    for whole in paths {
        let Some(name) = child(whole, path) else { continue };
        let mut value = match outline.fields.get(whole) {
            // A reader that asks whether a map is there says no more of it than that it knows its name.
            Some(form) if !(matches!(form.shape, Shape::Any) && outline.maps.contains(whole)) => field(outline, whole, form),
            _ => map(outline, whole),
        };
        if outline.required.contains(whole) {
            required.push(Value::from(name));
        } else {
            value = nullable(value);
        }
        if let (Value::Object(fields), Some(meaning)) = (&mut value, objects::meaning(whole)) {
            fields.entry("description").or_insert_with(|| Value::from(meaning));
        }
        properties.insert(name.to_owned(), value);
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        schema["required"] = Value::from(required);
    }
    let each = |names: &[&str]| -> Vec<Value> { names.iter().map(|name| present(name)).collect() };
    if let Some(names) = outline.one_of.get(path) {
        schema["oneOf"] = Value::from(each(names));
    }
    if let Some(names) = outline.any_of.get(path) {
        schema["anyOf"] = Value::from(each(names));
    }
    if let Some(names) = outline.not_both.get(path) {
        schema["not"] = json!({ "allOf": each(names) });
    }
    schema
}

/// The name of the field at `whole`, where it is one of the map at `path`.
fn child<'a>(whole: &'a str, path: &str) -> Option<&'a str> {
    let name = if path.is_empty() { whole.strip_prefix('.').unwrap_or(whole) } else { whole.strip_prefix(path)?.strip_prefix('.')? };
    (!name.is_empty() && !name.contains(['.', '['])).then_some(name)
}

fn present(name: &str) -> Value {
    json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } })
}

fn field(outline: &Outline, path: &str, form: &Form) -> Value {
    let mut schema = match form.shape {
        Shape::Items(least, most) => json!({ "type": "array", "minItems": least, "maxItems": most, "items": map(outline, &format!("{path}[]")) }),
        Shape::MapOf(_) if outline.maps.contains(&format!("{path}.*")) => {
            json!({ "type": "object", "additionalProperties": map(outline, &format!("{path}.*")) })
        }
        shape => of_shape(shape),
    };
    let default = match (&form.default, form.by_role) {
        (Some(default), true) => format!("Default by role (Generic: {default})."),
        (Some(default), false) if default != "null" => format!("Default: {default}."),
        _ => String::new(),
    };
    let description = [form.meaning, &default].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(". ");
    if let (Value::Object(fields), false) = (&mut schema, description.is_empty()) {
        fields.insert("description".to_owned(), Value::from(description));
    }
    schema
}

/// The schema of one value.
pub fn of_shape(shape: Shape) -> Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Text => json!({ "type": "string" }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Plain => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Name => json!({ "type": "string", "minLength": 1, "maxLength": 253 }),
        Shape::Exactly(text) => json!({ "const": text }),
        Shape::Words(words) => json!({ "enum": words() }),
        Shape::Pattern(pattern, example) => json!({ "type": "string", "pattern": pattern, "examples": [example] }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Duration => json!({ "anyOf": [{ "type": "string", "pattern": DURATION, "examples": ["30s", "1m30s"] }, { "const": 0 }] }),
        Shape::Amount => json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string", "pattern": AMOUNT, "examples": ["300ms", "2Gi"] }] }),
        Shape::Ratio => json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string", "pattern": RATIO, "examples": ["10%"] }] }),
        Shape::WholePercent => json!({ "type": "string", "pattern": r"^\s*\+?[0-9]+\s*%\s*$", "examples": ["70%"] }),
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(|shape| of_shape(*shape)).collect::<Vec<_>>() }),
        Shape::ListOf(items) => json!({ "type": "array", "items": of_shape(*items) }),
        Shape::Items(least, most) => json!({ "type": "array", "minItems": least, "maxItems": most }),
        Shape::MapOf(values) => json!({ "type": "object", "additionalProperties": of_shape(*values) }),
    }
}

/// The same, or null: a field with it counts as absent.
pub fn nullable(mut schema: Value) -> Value {
    let Some(fields) = schema.as_object_mut() else { return schema };
    if let Some(Value::Array(any)) = fields.get_mut("anyOf").filter(|any| !speaks_of_fields(any)) {
        any.push(json!({ "type": "null" }));
    } else if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(text) = fields.remove("const") {
        fields.insert("enum".to_owned(), json!([text, null]));
    } else if fields.get("type").is_some_and(|t| *t == json!("object")) {
        // What an object must have besides its fields does not hold for null.
        let description = fields.remove("description");
        let mut either = json!({ "anyOf": [schema, { "type": "null" }] });
        if let Some(description) = description {
            either["description"] = description;
        }
        return either;
    } else if let Some(types) = fields.get_mut("type") {
        let mut list = match types.take() {
            Value::Array(list) => list,
            one => vec![one],
        };
        list.push(Value::from("null"));
        *types = Value::from(list);
    }
    schema
}

/// Whether the alternatives are those of a map ("at least one of these fields"), not of a value.
fn speaks_of_fields(any: &Value) -> bool {
    any.as_array().is_some_and(|any| any.iter().any(|one| one.get("required").is_some()))
}

/// The whole of a schema file: its dialect and title before the rest.
pub fn titled(title: &str, schema: Value) -> Value {
    let mut whole = json!({ "$schema": DIALECT, "title": title });
    if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), schema) {
        whole.extend(fields);
    }
    whole
}
