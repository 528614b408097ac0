//! Reading JSON that people and other programs wrote: what is wrong with it in words, and where.
//!
//! What serde says of a text names types of the program (`expected f64`). Here the field is named by its path, with what stands
//! there and what belongs there. Texts that can be read cost nothing more than serde takes; one that cannot is read once more.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_path_to_error::{Path, Segment};

use super::spelling::{nearest, on_one_line, shorten};

/// Why a text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unusable {
    /// Where: the path of the field, as in `part.panes[0].metric` (also of one that is missing); empty where it is the whole text.
    pub path: String,
    /// What is wrong there, and what belongs there: a sentence that names the field by itself.
    pub what: String,
}

/// Reads a JSON text.
///
/// # Errors
/// [`Unusable`].
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Unusable> {
    serde_json::from_str(text).map_err(|error| unusable::<T>(text, &error))
}

/// Reads bytes that are to be a JSON text.
///
/// # Errors
/// [`Unusable`].
pub fn read_bytes<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Unusable> {
    match std::str::from_utf8(bytes) {
        Ok(text) => read(text),
        Err(error) => Err(Unusable { path: String::new(), what: format!("not UTF-8 at byte {}", error.valid_up_to() + 1) }),
    }
}

fn unusable<'de, T: Deserialize<'de>>(text: &'de str, error: &serde_json::Error) -> Unusable {
    if let Err(syntax) = serde_json::from_str::<&RawValue>(text) {
        return Unusable { path: String::new(), what: syntax_words(&syntax) };
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
    let path = found.as_ref().map(|found| known(found.path())).unwrap_or_default();
    let error = found.as_ref().map_or(error, serde_path_to_error::Error::inner).to_string();
    let said = error.rsplit_once(" at line ").map_or(error.as_str(), |(what, _)| what);
    let place = written(&path);
    let what = on_one_line(&data_words(said, &place, value_at(text, &path)));
    let missing = said.strip_prefix("missing field ").map(|field| inside(&place, field.trim_matches('`')));
    Unusable { path: missing.unwrap_or(place), what }
}

/// The path of a field within another.
fn inside(place: &str, field: &str) -> String {
    if place.is_empty() { shorten(field) } else { format!("{place}.{}", shorten(field)) }
}

/// What serde says of a value in another format, in our words; where it stands is not known.
pub(crate) fn in_words(said: &str) -> String {
    data_words(said, "", None)
}

/// What a text is no JSON by, and where.
pub(crate) fn syntax_words(error: &serde_json::Error) -> String {
    if error.column() == 0 && error.line() <= 1 {
        return "not JSON: there is nothing".to_owned();
    }
    // A single line needs no number.
    let place = if error.line() <= 1 { format!("column {}", error.column()) } else { format!("line {}, column {}", error.line(), error.column()) };
    format!("not JSON at {place}: {}", syntax_reason(error))
}

/// What a text is no JSON by.
pub(crate) fn syntax_reason(error: &serde_json::Error) -> &'static str {
    let said = error.to_string();
    match said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what) {
        _ if error.classify() == Category::Eof => "it ends too early",
        "expected value" => "a value is missing, or none of JSON: texts stand in double quotes",
        "expected `:`" => "a colon is missing behind the name of a field",
        "expected `,` or `}`" => "a comma or a closing brace is missing",
        "expected `,` or `]`" => "a comma or a closing bracket is missing",
        "expected ident" => "a word is none of true, false and null",
        "key must be a string" => "the name of a field is missing, or not in double quotes",
        "trailing comma" => "a comma has nothing behind it",
        "trailing characters" => "something follows the end",
        "invalid number" => "a number is none of JSON",
        "number out of range" => "a number is too large",
        "recursion limit exceeded" => "it is nested too deeply",
        said if said.starts_with("control character") => "a control character stands in a text: write it as an escape, as in \\n",
        said if said.contains("escape") || said.contains("surrogate") => "an escape in a text is none of JSON",
        _ => "it cannot be read",
    }
}

/// What serde says of a value, in our words. `found` is what stands at `place`.
fn data_words(said: &str, place: &str, found: Option<&RawValue>) -> String {
    let here = if place.is_empty() { "this".to_owned() } else { format!("\"{place}\"") };
    let wrong = |wanted: &str| match found {
        Some(found) => format!("{here} is {}, and must be {wanted}", shorten(found.get())),
        None => format!("{here} must be {wanted}"),
    };
    if let Some((_, wanted)) = said.strip_prefix("invalid ").and_then(|said| said.rsplit_once(", expected ")) {
        let quoted = found.map(RawValue::get).and_then(|found| found.strip_prefix('"')?.strip_suffix('"'));
        let mend = match (quoted, wanted) {
            (Some(number), "f64" | "f32") if number.parse::<f64>().is_ok_and(f64::is_finite) => ": leave the quotes out",
            (Some(number), wanted) if is_whole(wanted) && number.parse::<i64>().is_ok() => ": leave the quotes out",
            _ => "",
        };
        return format!("{}{mend}", wrong(&wanted_words(wanted)));
    }
    if let Some(field) = said.strip_prefix("missing field ") {
        return format!("\"{}\" is missing", inside(place, field.trim_matches('`')));
    }
    if let Some(field) = said.strip_prefix("duplicate field ") {
        return format!("\"{}\" is there twice: keep one", inside(place, field.trim_matches('`')));
    }
    if let Some((field, known)) = said.strip_prefix("unknown field `").and_then(choices) {
        // The path leads to the field itself.
        let within = place.rsplit_once('.').map_or("", |(parent, _)| parent);
        let name = inside(within, field);
        let known = quoted_words(known);
        return match nearest(field, known.iter().copied()) {
            Some(meant) => format!("unknown field \"{name}\"; did you mean \"{meant}\"?"),
            None if known.is_empty() => format!("unknown field \"{name}\": leave it out"),
            None => format!("unknown field \"{name}\"; known are {}", known.join(", ")),
        };
    }
    if let Some((word, known)) = said.strip_prefix("unknown variant `").and_then(choices) {
        let known = quoted_words(known);
        let meant = nearest(word, known.iter().copied()).map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
        let words = if known.len() == 1 { known.concat() } else { format!("one of {}", known.join(", ")) };
        return if found.is_some() { format!("{}{meant}", wrong(&words)) } else { format!("{:?} must be {words}{meant}", shorten(word)) };
    }
    match said {
        "number out of range" => wrong("a number of at most 1.7e308"),
        // A number, a list or nothing where a word belongs.
        "expected value" => wrong("a word in double quotes"),
        // What our own types say of themselves.
        said if place.is_empty() => said.to_owned(),
        said => format!("{said} (in \"{place}\")"),
    }
}

/// What serde calls a type.
fn wanted_words(wanted: &str) -> String {
    match wanted {
        "f64" | "f32" => "a number".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u16" | "u64" | "usize" => "a whole number of 0 or more".to_owned(),
        "i32" => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        "i8" | "i16" | "i64" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "str" | "string" | "a borrowed string" | "a character" => "a text in double quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        wanted if wanted.starts_with("struct ") => "an object".to_owned(),
        wanted => match wanted.strip_prefix("a tuple of size ").or_else(|| wanted.strip_prefix("an array of length ")) {
            Some(size) => format!("a list of {size}"),
            None => wanted.to_owned(),
        },
    }
}

fn is_whole(wanted: &str) -> bool {
    matches!(wanted, "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64")
}

/// A word that is none of the choices, and the choices.
fn choices(said: &str) -> Option<(&str, &str)> {
    said.rsplit_once("`, expected ").or_else(|| said.rsplit_once("`, there are no "))
}

/// The words between backticks.
fn quoted_words(said: &str) -> Vec<&str> {
    said.split('`').skip(1).step_by(2).collect()
}

/// A path as far as it is known: what is behind it is of a type that tells no more.
fn known(path: &Path) -> Vec<&Segment> {
    path.iter().take_while(|segment| !matches!(segment, Segment::Unknown)).collect()
}

fn written(path: &[&Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            // Writing into a string cannot fail.
            Segment::Seq { index } => drop(write!(text, "[{index}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&shorten(name));
            }
            Segment::Unknown => {}
        }
    }
    text
}

/// What stands at a path.
fn value_at<'a>(text: &'a str, path: &[&Segment]) -> Option<&'a RawValue> {
    let mut at: &RawValue = serde_json::from_str(text).ok()?;
    for segment in path {
        at = match segment {
            Segment::Seq { index } => serde_json::from_str::<Vec<&RawValue>>(at.get()).ok()?.get(*index).copied()?,
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                serde_json::from_str::<BTreeMap<String, &RawValue>>(at.get()).ok()?.get(name).copied()?
            }
            Segment::Unknown => return Some(at),
        };
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Amount, TargetId};

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Order {
        count: u32,
        #[serde(default)]
        price: Option<f64>,
        #[serde(default)]
        paid: Option<bool>,
        #[serde(default)]
        size: Option<Size>,
        #[serde(default)]
        lines: Vec<Line>,
        #[serde(default)]
        target: Option<TargetId>,
        #[serde(default)]
        amounts: BTreeMap<String, Amount>,
        #[serde(default)]
        pairs: Vec<(i32, i64)>,
        #[serde(default)]
        rest: Option<Box<RawValue>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Line {
        name: String,
    }

    #[derive(Debug, Deserialize)]
    enum Size {
        Small,
        Large,
    }

    /// No word of a library: what stands where, and what belongs there.
    #[test]
    fn what_is_wrong_is_said_in_our_words() {
        let texts = [
            r#"{"count":"five"}"#,
            r#"{"count":"5"}"#,
            r#"{"count":-1}"#,
            r#"{"count":1.5}"#,
            r#"{"count":null}"#,
            r#"{"count":99999999999}"#,
            r#"{"count":1,"price":"high"}"#,
            r#"{"count":1,"price":" 0.5"}"#,
            r#"{"count":1,"price":1e999}"#,
            r#"{"count":1,"paid":"yes"}"#,
            r#"{"count":1,"size":"small"}"#,
            r#"{"count":1,"size":3}"#,
            r#"{"count":1,"size":["Small"]}"#,
            r#"{"count":1,"lines":{}}"#,
            r#"{"count":1,"lines":[{"name":"a"},{"name":7}]}"#,
            r#"{"count":1,"lines":[{"nmae":"a"}]}"#,
            r#"{"count":1,"lines":[{"name":"a","x":1}]}"#,
            r#"{"count":1,"lines":[{}]}"#,
            r#"{"count":1,"lines":[1]}"#,
            r#"{"count":1,"target":"api"}"#,
            r#"{"count":1,"amounts":{"cpu":"1"}}"#,
            r#"{"count":1,"pairs":[[1]]}"#,
            r#"{"count":1,"pairs":[[1,2],[3,"x"]]}"#,
            r#"{"count":1,"count":2}"#,
            r#"{"cuont":1}"#,
            r#"{"weather":1}"#,
            "{}",
            "5",
            "null",
            "",
            r#"{"count":1"#,
            r#"{"count" 1}"#,
            r#"{"count":1 "price":2}"#,
            r#"{"count":1,}"#,
            "{count:1}",
            r#"{"count":five}"#,
            r#"{"count":01}"#,
            r#"{"count":tru}"#,
            r#"{"count":1} x"#,
            "{\n\"count\":\n[1,}",
            "{\"a\tb\":1}",
            r#"{"a\x":1}"#,
            r#"{"count":1,"rest":{"any":[1,2}}"#,
        ];
        let said: Vec<String> = texts.iter().map(|text| format!("{text}\n    {}", read::<Order>(text).unwrap_err())).collect();
        insta::assert_snapshot!(said.join("\n"));
        for said in said {
            for word in ["f64", "u32", "i64", "struct", "expected", "invalid type", "variant", "sequence", "EOF", "`"] {
                let (_, words) = said.rsplit_once("\n    ").unwrap();
                assert!(!words.contains(word), "{said}");
            }
        }
        assert_eq!(read_bytes::<Order>(b"{\"a\":\"\xff\"}").unwrap_err().to_string(), "not UTF-8 at byte 7");
        assert_eq!(read::<Order>(r#"{"count":1,"lines":[{"name":"a"},{"name":7}]}"#).unwrap_err().path, "lines[1].name");
        assert!(read::<Order>(r#"{"count":1,"price":2.5,"rest":{"any":1.10}}"#).is_ok());
    }
}
