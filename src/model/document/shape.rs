//! What a field may be, told by the code that reads it: what a schema for editors is made of.
//!
//! A reader of documents names the [`Shape`] of each field where it reads it, so that the two cannot differ. An
//! [`Outline`] is what a reader told while it read a document that has every field. A shape is never narrower than its
//! reader: what the reader takes, the shape allows.

use std::collections::{BTreeMap, BTreeSet};

/// What a single field may be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Anything; what is in it is somebody else's.
    Any,
    /// A text.
    Text,
    /// Any number.
    Number,
    /// A text; numbers and booleans stand for themselves.
    Plain,
    /// A text of 1 to 253 bytes.
    Name,
    /// Exactly this text.
    Exactly(&'static str),
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// A text in a grammar (a regular expression that ECMAScript and others read alike), with an example.
    Pattern(&'static str, &'static str),
    /// True or false.
    Bool,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    /// A duration, as in `1m30s`, or 0.
    Duration,
    /// An amount of 0 or more with its unit, as in `300ms`.
    Amount,
    /// A ratio of 0 or more, as in `10%` or `0.1`.
    Ratio,
    /// Whole percent with its sign, as in `70%`.
    WholePercent,
    /// One of several.
    Either(&'static [Shape]),
    /// A list of these.
    ListOf(&'static Shape),
    /// A list of maps with the fields of its outline; at least and at most so many.
    Items(usize, usize),
    /// A map from any name to these.
    MapOf(&'static Shape),
}

/// A field, as its reader describes it.
#[derive(Debug, Clone)]
pub struct Form {
    /// What it may be.
    pub shape: Shape,
    /// What it means, in one line; empty where the reader does not say.
    pub meaning: &'static str,
    /// Its default as it would be written, where it has one.
    pub default: Option<String>,
    /// Whether the default depends on the role.
    pub by_role: bool,
}

/// The fields of a document, by their path from its root; an entry of a list is `[]`.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// The fields.
    pub fields: BTreeMap<String, Form>,
    /// The maps.
    pub maps: BTreeSet<String>,
    /// The fields that must be there.
    pub required: BTreeSet<String>,
    /// Maps that have exactly one of these fields.
    pub one_of: BTreeMap<String, &'static [&'static str]>,
    /// Maps that have at least one of these fields.
    pub any_of: BTreeMap<String, &'static [&'static str]>,
    /// Maps that have at most one of these fields.
    pub not_both: BTreeMap<String, &'static [&'static str]>,
}

impl Outline {
    /// The field at `path` has this shape.
    pub(super) fn shape(&mut self, path: &str, shape: Shape) {
        self.fields.insert(general(path), Form { shape, meaning: "", default: None, by_role: false });
    }

    /// Adds what another one tells.
    pub fn merge(&mut self, other: Outline) {
        for (path, form) in other.fields {
            let known = self.fields.entry(path).or_insert_with(|| form.clone());
            if matches!(known.shape, Shape::Any) {
                known.shape = form.shape;
            }
            if known.meaning.is_empty() {
                known.meaning = form.meaning;
            }
            known.default = known.default.take().or(form.default);
            known.by_role |= form.by_role;
        }
        self.maps.extend(other.maps);
        self.required.extend(other.required);
        self.one_of.extend(other.one_of);
        self.any_of.extend(other.any_of);
        self.not_both.extend(other.not_both);
    }
}

/// The path with every place in a list as `[]`.
pub(super) fn general(path: &str) -> String {
    let mut general = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => {
                inside = false;
                general.push_str("[]");
            }
            _ if inside => {}
            c => general.push(c),
        }
    }
    general
}
