//! Trees from JSON text and back.

use std::fmt::{self, Write};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Entry, Node, Problem, Severity, Value, shorten};
use crate::model::json::{syntax_reason, syntax_words};

/// The deepest nesting; a policy has seven levels.
const MAX_DEPTH: usize = 128;
/// A number is written without an exponent up to so many digits: a policy's own are shorter.
const PLAIN_DIGITS: i64 = 40;

impl Node {
    /// Reads a JSON text, every number with all its digits. A name that is given twice in a map is an error; so is nesting
    /// beyond 128 levels.
    ///
    /// # Errors
    /// One [`Problem`]; where the text is no JSON at all, with the line and column in its message.
    pub fn from_json(text: &str) -> Result<Node, Problem> {
        let whole = serde_json::from_str::<&RawValue>(text).map_err(|e| syntax_words(&e));
        whole.and_then(|raw| tree(raw.get(), 0).map_err(|e| format!("not a JSON document: {e}"))).map_err(|message| Problem {
            path: String::new(),
            span: None,
            severity: Severity::Error,
            message,
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
            Value::Number(n) => out.push_str(&canonical(n)),
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

/// The tree of one JSON value. Each level is read by itself, so that a number is never anything but its text.
fn tree(text: &str, depth: usize) -> Result<Node, String> {
    let inside = |e: serde_json::Error| {
        let said = e.to_string();
        // What is read here says of itself what it lacks.
        if e.is_data() { said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what).to_owned() } else { syntax_reason(&e).to_owned() }
    };
    if depth > MAX_DEPTH {
        return Err(format!("more than {MAX_DEPTH} levels of nesting"));
    }
    let value = match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => Value::Text(serde_json::from_str(text).map_err(inside)?),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(inside)?;
            Value::List(items.into_iter().map(|item| tree(item.get(), depth + 1)).collect::<Result<_, _>>()?)
        }
        Some(b'{') => {
            let RawFields(fields) = serde_json::from_str(text).map_err(inside)?;
            let entry = |(key, value): (String, &RawValue)| Ok::<_, String>(Entry { key, key_span: None, value: tree(value.get(), depth + 1)? });
            Value::Map(fields.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        _ => Value::Number(text.to_owned()),
    };
    Ok(Node::bare(value))
}

/// The fields of a map, in its order.
struct RawFields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                let mut names = std::collections::BTreeSet::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    if !names.insert(key.clone()) {
                        return Err(de::Error::custom(format!("the field {:?} is given twice", shorten(&key))));
                    }
                    fields.push((key, value));
                }
                Ok(RawFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A number in the one spelling of its value: every digit that counts and no other, an exponent only where it is far from its point.
fn canonical(text: &str) -> String {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Ok(exponent) = exponent.parse::<i32>() else { return text.to_owned() };
    let (sign, unsigned) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let written = format!("{whole}{fraction}");
    let digits = written.trim_start_matches('0');
    let leading_zeros = written.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return "0".to_owned();
    }
    let length = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    // How many of the digits stand before the point.
    let point = length(whole.len()) - length(leading_zeros) + i64::from(exponent);
    let zeros = |n: i64| "0".repeat(usize::try_from(n).unwrap_or(0));
    match usize::try_from(point) {
        Ok(before) if 0 < before && before < digits.len() => format!("{sign}{}.{}", &digits[..before], &digits[before..]),
        Ok(before) if 0 < before && point <= PLAIN_DIGITS => format!("{sign}{digits}{}", zeros(point - length(digits.len()))),
        _ if -PLAIN_DIGITS < point && point <= 0 => format!("{sign}0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let rest = if rest.is_empty() { String::new() } else { format!(".{rest}") };
            format!("{sign}{first}{rest}e{}", point - 1)
        }
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
    fn a_number_keeps_every_digit_and_has_one_spelling() {
        for (written, canonical) in [
            ("0.1234567890123456789", "0.1234567890123456789"),
            ("12345678901234567890.5", "12345678901234567890.5"),
            ("100e-2", "1"),
            ("0.00120E+1", "0.012"),
            ("-0.0", "0"),
            ("1e39", "1000000000000000000000000000000000000000"),
            ("120e39", "1.2e41"),
            ("-1e999999", "-1e999999"),
            ("1e-50", "1e-50"),
            ("1e99999999999", "1e99999999999"),
        ] {
            let node = Node::from_json(written).unwrap();
            assert_eq!(node.value, Value::Number(written.to_owned()));
            assert_eq!(node.to_json(), canonical);
            assert_eq!(Node::from_json(canonical).unwrap().to_json(), canonical);
        }
    }

    #[test]
    fn a_name_given_twice_and_deep_nesting_are_errors() {
        let problem = Node::from_json(r#"{"a": 1, "a": 2}"#).unwrap_err();
        assert!(problem.message.contains("\"a\" is given twice"), "{problem}");
        assert!(Node::from_json(&"[".repeat(100_000)).is_err());
    }
}
