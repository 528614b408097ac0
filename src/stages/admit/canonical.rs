//! Whether two texts are the same JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Whether two specs say the same. Texts that are no JSON are compared as they are.
pub(super) fn same(one: &str, other: &str) -> bool {
    one == other
        || match (serde_json::from_str(one), serde_json::from_str(other)) {
            (Ok(one), Ok(other)) => canonical(&one) == canonical(&other),
            _ => false,
        }
}

/// The value without spaces, its fields in the order of their names.
fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            text.push('{');
            for (name, value) in fields.iter().collect::<BTreeMap<_, _>>() {
                // A string of a `String` cannot fail.
                let _ = write!(text, "{}:", Value::from(name.as_str()));
                write_value(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_value(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => {
            let _ = write!(text, "{plain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_order_are_no_change_and_values_are() {
        for (one, other, expected) in [
            (r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [1, 2], "a": 1 }"#, true),
            (r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"y":2,"x":1}}"#, true),
            (r#"{"a":1}"#, r#"{"a":2}"#, false),
            (r#"{"a":"1"}"#, r#"{"a":1}"#, false),
            ("[1,2]", "[2,1]", false),
            ("not json", "not json", true),
            ("not json", "not  json", false),
        ] {
            assert_eq!(same(one, other), expected, "{one} and {other}");
        }
    }
}
