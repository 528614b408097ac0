//! Trees from JSON text and back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::value::RawValue;

use super::{Entry, Node, Problem, Severity, Value, shorten};
use crate::model::json::{syntax_reason, syntax_words};

/// The deepest nesting; a policy has seven levels.
const MAX_DEPTH: usize = 128;
/// As many fields as most maps have.
const MOST_FIELDS: usize = 4;
/// To look at so many is quicker than a table.
const FEW_FIELDS: usize = 8;
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
        whole.and_then(|raw| Left(raw.get()).value(0).map_err(|e| format!("not a JSON document: {e}"))).map_err(|message| Problem {
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

/// What is left to read of a text that is known to be JSON: it is read once, and a number is never anything but its text.
struct Left<'a>(&'a str);

impl<'a> Left<'a> {
    fn value(&mut self, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels of nesting"));
        }
        let value = match self.sign() {
            Some(b'{') => Value::Map(self.fields(depth)?),
            Some(b'[') => {
                let mut items = Vec::new();
                self.passes(b'[');
                while !self.passes(b']') {
                    items.push(self.value(depth + 1)?);
                    self.passes(b',');
                }
                Value::List(items)
            }
            Some(b'"') => Value::Text(self.text()?.into_owned()),
            _ => match self.word() {
                "null" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "" => return Err("it ends too early".to_owned()),
                number => Value::Number(number.to_owned()),
            },
        };
        Ok(Node::bare(value))
    }

    /// The fields of a map, which comes next, in its order.
    fn fields(&mut self, depth: usize) -> Result<Vec<Entry>, String> {
        let mut entries: Vec<Entry> = Vec::with_capacity(MOST_FIELDS);
        let mut names = BTreeSet::new();
        self.passes(b'{');
        while !self.passes(b'}') {
            let key = self.text()?;
            self.passes(b':');
            let is_twice = if entries.len() < FEW_FIELDS {
                entries.iter().any(|entry| entry.key == key)
            } else {
                if names.is_empty() {
                    names.extend(entries.iter().map(|entry| entry.key.clone()));
                }
                !names.insert(key.clone().into_owned())
            };
            if is_twice {
                return Err(format!("the field {:?} is given twice", shorten(&key)));
            }
            entries.push(Entry { key: key.into_owned(), key_span: None, value: self.value(depth + 1)? });
            self.passes(b',');
        }
        Ok(entries)
    }

    /// What comes next, as the first byte of it.
    fn sign(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.as_bytes().first().copied()
    }

    /// Goes on behind `sign`, which is of ASCII, where that is what comes next.
    fn passes(&mut self, sign: u8) -> bool {
        let comes = self.sign() == Some(sign);
        if comes {
            self.0 = &self.0[1..];
        }
        comes
    }

    /// A text in its quotes, which come next.
    fn text(&mut self) -> Result<Cow<'a, str>, String> {
        let (bytes, mut end, mut is_plain) = (self.0.as_bytes(), 1, true);
        while bytes.get(end).is_some_and(|byte| *byte != b'"') {
            let escapes = bytes[end] == b'\\';
            is_plain &= !escapes;
            end += 1 + usize::from(escapes);
        }
        let (quoted, rest) = self.0.split_at_checked(end + 1).ok_or("it ends too early")?;
        self.0 = rest;
        match is_plain {
            true => Ok(Cow::Borrowed(&quoted[1..end])),
            false => serde_json::from_str(quoted).map(Cow::Owned).map_err(|e| syntax_reason(&e).to_owned()),
        }
    }

    /// What comes before the next sign.
    fn word(&mut self) -> &'a str {
        let end = self.0.find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
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
    use proptest::prelude::*;

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
        let nested = |levels: usize| Node::from_json(&format!("{}{}", "[".repeat(levels), "]".repeat(levels))).map_err(|problem| problem.message);
        assert!(nested(MAX_DEPTH).is_ok());
        assert_eq!(nested(MAX_DEPTH + 2), Err("not a JSON document: more than 128 levels of nesting".to_owned()));
        let many = |twice: usize| (0..30).chain([twice]).map(|n| format!(r#""f{n}":1"#)).collect::<Vec<_>>().join(",");
        for twice in [0, 7, 8, 9, 29] {
            let problem = Node::from_json(&format!("{{{}}}", many(twice))).unwrap_err();
            assert!(problem.message.contains(&format!("\"f{twice}\" is given twice")), "{problem}");
        }
        assert!(Node::from_json(&format!("{{{}}}", many(30))).is_ok());
        let problem = Node::from_json(r#"{"a": {"b\n": 1, "b\u000a": 2}}"#).unwrap_err();
        assert_eq!(problem.message, "not a JSON document: the field \"b\u{fffd}\" is given twice");
    }

    proptest! {
        /// Whatever serde makes of a text, the tree says the same: names, texts with their escapes, and every number.
        #[test]
        fn the_tree_says_what_the_text_says(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert_eq!(told(&Node::from_json(&text).unwrap()), value);
        }
    }

    /// Any JSON, its texts with all that may need an escape.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let text = || "(?s).{0,6}";
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e18..1e18).prop_map(|number: f64| number.into()),
            text().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            let fields = prop::collection::btree_map(text(), inner.clone(), 0..5);
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(serde_json::Value::Array),
                fields.prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// What a tree says, as serde has it.
    fn told(node: &Node) -> serde_json::Value {
        match &node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Number(text) => serde_json::from_str(text).unwrap(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(told).collect(),
            Value::Map(entries) => serde_json::Value::Object(entries.iter().map(|entry| (entry.key.clone(), told(&entry.value))).collect()),
        }
    }
}
