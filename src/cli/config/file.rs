//! The configuration file: YAML to settings, each with its place.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::settings::{SETTINGS, Written, unknown};
use super::{Source, lag};

/// A YAML document as it is written; scalars are text, since every setting has one reader for all places.
enum Node {
    Nothing,
    Scalar(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
                Ok(Node::Scalar(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
                Ok(Node::Scalar(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
                Ok(Node::Scalar(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
                Ok(Node::Scalar(v.to_string()))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Node, E> {
                Ok(Node::Scalar(v.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Nothing)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Nothing)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Map(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The settings of a file's text, or what is wrong with it as YAML, or the first name that is not known.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Written>, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let root: Spanned<Node> = serde_saphyr::from_str(text).map_err(|e| format!("{}: {}", path.display(), e.without_snippet()))?;
    let mut reader = Reader { path, written: Vec::new(), problems: Vec::new() };
    reader.walk("", &root);
    if reader.problems.is_empty() { Ok(reader.written) } else { Err(reader.problems.join("\n")) }
}

struct Reader<'a> {
    path: &'a Path,
    written: Vec<Written>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn source(&self, at: Location) -> Source {
        Source::File { path: self.path.to_owned(), line: at.line(), column: at.column() }
    }

    fn problem(&mut self, at: Location, what: &str) {
        let problem = format!("{}: {what}", self.source(at));
        self.problems.push(problem);
    }

    fn walk(&mut self, path: &str, node: &Spanned<Node>) {
        match &node.value {
            Node::Map(fields) => {
                for (key, value) in fields {
                    let inner = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    if is_known(&inner) {
                        self.walk(&inner, value);
                    } else {
                        self.problem(key.referenced, &unknown(&inner, SETTINGS.iter().map(|s| s.path).chain(["removals.fleets", "lag"])));
                    }
                }
            }
            // An empty section is one whose lines are commented out: nothing is said.
            Node::Nothing => {}
            Node::Scalar(_) | Node::List(_) if !is_leaf(path) => {
                let what = if path.is_empty() {
                    "not a map of settings, as in `pane: 5s`".to_owned()
                } else {
                    format!("{path} is a section: write its fields, indented, below it")
                };
                self.problem(node.referenced, &what);
            }
            Node::Scalar(text) => self.written.push(Written { path: path.to_owned(), values: vec![text.clone()], source: self.source(node.referenced) }),
            Node::List(items) => {
                let mut values = Vec::new();
                for item in items {
                    match &item.value {
                        Node::Scalar(text) => values.push(text.clone()),
                        _ => self.problem(item.referenced, &format!("{path}: an entry of the list is not a plain value")),
                    }
                }
                self.written.push(Written { path: path.to_owned(), values, source: self.source(node.referenced) });
            }
        }
    }
}

/// Whether a path is a setting.
fn is_leaf(path: &str) -> bool {
    let within = path.strip_prefix("removals.fleets.").or_else(|| path.strip_prefix(lag::PREFIX));
    within.map_or_else(|| SETTINGS.iter().any(|s| s.path == path), |rest| rest.contains('.'))
}

/// Whether a path is a setting, or a section of them.
fn is_known(path: &str) -> bool {
    let section = format!("{path}.");
    let maps = ["removals.fleets", "lag"];
    let is_within = maps.iter().any(|map| path.strip_prefix(*map).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    is_within || is_leaf(path) || SETTINGS.iter().any(|s| s.path.starts_with(&section))
}
