//! A document that a person wrote, as a tree that remembers where everything stood.
//!
//! The tree knows nothing of what it says: [`super::policy::resolve`] and the readers of other kinds give it its meaning
//! (field by field, with `fields`), `wire::document`
//! reads it from YAML, [`Node::from_json`] from JSON. Numbers keep their text, so that no digit is lost
//! before the unit is known; the fields of a map keep their order, and no two of them have one name.

pub mod amounts;
pub(crate) mod fields;
mod json;
pub mod shape;

use std::fmt;

pub(crate) use super::spelling::shorten;

/// Where something stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The line, from 1.
    pub line: u32,
    /// The column, in characters, from 1.
    pub column: u32,
    /// How many characters of that line it has, at least 1.
    pub length: u32,
}

/// A value and its place; no place where it was not read from a text that people see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stands: a single value itself, a map or a list the name of its field.
    pub span: Option<Span>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing; a field with it counts as absent.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, in the grammar of JSON.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the document.
    Map(Vec<Entry>),
}

/// One field of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where the name stands.
    pub key_span: Option<Span>,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A node without a place.
    pub fn bare(value: Value) -> Self {
        Node { value, span: None }
    }

    /// The field `name` of a map; `None` where it is absent, null, or this is no map.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|e| e.key == name).map(|e| &e.value).filter(|v| v.value != Value::Null)
    }

    /// Its text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages: `a map`, `the text "70%"`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => format!("the number {}", shorten(n)),
            Value::Text(t) => format!("the text {:?}", shorten(t)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// The most problems that are reported: beyond it nobody reads on, and a message of them must fit on the log.
pub(crate) const MOST_PROBLEMS: usize = 100;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// It can, but is unwise.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// What is wrong with a document, where, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, e.g. `spec.metrics[0].window`; empty for the document as a whole.
    pub path: String,
    /// Where it stands.
    pub span: Option<Span>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: a lower-case fragment with the value.
    pub message: String,
    /// How to mend it: a lower-case fragment.
    pub mend: Option<String>,
    /// A stable name of this kind of problem, e.g. `unknown-field`.
    pub code: &'static str,
}

/// Whether the field at `path` is the one at `around`, or stands within it.
pub(crate) fn is_within(path: &str, around: &str) -> bool {
    path.strip_prefix(around).is_some_and(|rest| rest.is_empty() || around.is_empty() || rest.starts_with(['.', '[']))
}

/// On one line, as a log or an alert shows it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = self.span {
            write!(f, "line {}, column {}: ", span.line, span.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.mend.as_ref().map_or(Ok(()), |mend| write!(f, "; {mend}"))
    }
}
