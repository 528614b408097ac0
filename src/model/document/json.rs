//! Trees from JSON text and back.

use std::fmt::{self, Write};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Entry, Node, Problem, Severity, Value};

impl Node {
    /// Reads a JSON text. A name that is given twice in a map is an error; so is nesting beyond 128 levels
    /// (the parser's own bound).
    ///
    /// # Errors
    /// One [`Problem`] with the line and column in its message.
    pub fn from_json(text: &str) -> Result<Node, Problem> {
        serde_json::from_str(text).map_err(|e| Problem {
            path: String::new(),
            span: None,
            severity: Severity::Error,
            message: format!("not a JSON document: {e}"),
            mend: None,
            code: "syntax",
        })
    }

    /// The canonical JSON text: fields sorted by name, fields that are null left out, no white space.
    /// Two documents that say the same in another order have the same text.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Number(n) => out.push_str(n),
            Value::Text(t) => write_text(t, out),
            Value::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                let mut sorted: Vec<&Entry> = entries.iter().filter(|e| e.value.value != Value::Null).collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for (i, entry) in sorted.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(&entry.key, out);
                    out.push(':');
                    entry.value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

/// Quotes a text as JSON does (RFC 8259, section 7).
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::bare(Value::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::bare(Value::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::bare(Value::Number(value.to_string())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::bare(Value::Number(value.to_string())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        // The shortest decimal that is this double: what was written, up to 15 digits.
        Ok(Node::bare(Value::Number(value.to_string())))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::bare(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::bare(Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        while let Some((key, value)) = map.next_entry::<String, Node>()? {
            if !names.insert(key.clone()) {
                return Err(de::Error::custom(format!("the field {key:?} is given twice")));
            }
            entries.push(Entry { key, key_span: None, value });
        }
        Ok(Node::bare(Value::Map(entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fields_and_absent_ones_do_not_change_the_canonical_text() {
        let one = Node::from_json(r#"{"b": [1, 0.70, "x\n\u0001\""], "a": null, "c": {"z": true, "y": -2e3}}"#).unwrap();
        let two = Node::from_json(r#"{"c": {"y": -2000.0, "z": true}, "b": [1, 0.7, "x\n\u0001\""]}"#).unwrap();
        assert_eq!(one.to_json(), r#"{"b":[1,0.7,"x\n\u0001\""],"c":{"y":-2000,"z":true}}"#);
        assert_eq!(one.to_json(), two.to_json());
        assert_eq!(Node::from_json(&one.to_json()).unwrap().to_json(), one.to_json());
    }

    #[test]
    fn a_name_given_twice_and_deep_nesting_are_errors() {
        let problem = Node::from_json(r#"{"a": 1, "a": 2}"#).unwrap_err();
        assert!(problem.message.contains("\"a\" is given twice"), "{problem}");
        assert!(Node::from_json(&"[".repeat(100_000)).is_err());
    }
}
