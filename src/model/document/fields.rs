//! Reading a map field by field: each field is taken once, with its default; what was not taken is unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::amounts::{Fault, duration, show_duration};
use super::shape::{Form, Outline, Shape, general};
use super::{Entry, MOST_PROBLEMS, Node, Problem, Severity, Span, Value, shorten};
use crate::model::spelling;

/// Where an effective value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The document.
    Written,
    /// The defaults of its role.
    Role,
    /// The default of every role.
    Default,
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The field, e.g. `spec.metrics[0].window`.
    pub path: String,
    /// Its value, as it could be written.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
    /// What it means, in one line.
    pub meaning: &'static str,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) problems: Vec<Problem>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) places: BTreeMap<String, Span>,
    /// What the reader tells of the fields that it knows, where somebody asks for it.
    outline: Option<Outline>,
    /// Whether nobody asks for more than what comes of the document, and its errors.
    only_errors: bool,
    /// Whether of errors no more is asked than whether there are any: nothing has a path.
    at_a_glance: bool,
}

impl Report {
    /// One that also gathers what the reader knows of its fields.
    pub(crate) fn outlining() -> Self {
        Report { outline: Some(Outline::default()), ..Report::default() }
    }

    /// One without settings and advice, for who wants no more than what comes of a document: to write them takes longer than to read it.
    pub(crate) fn of_errors() -> Self {
        Report { only_errors: true, ..Report::default() }
    }

    /// As [`Report::of_errors`], for who expects none: no path is put together, and what is wrong where takes another reading.
    pub(crate) fn at_a_glance() -> Self {
        Report { at_a_glance: true, ..Report::of_errors() }
    }

    /// Whether there are errors.
    pub(crate) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Whether warnings are asked for: what is looked for on their behalf alone is worth its time.
    pub(crate) fn advises(&self) -> bool {
        !self.only_errors
    }

    /// What the reader told of its fields, with the meanings and defaults of the settings.
    pub(crate) fn into_outline(self) -> Outline {
        let mut outline = self.outline.unwrap_or_default();
        for setting in self.settings {
            if let Some(form) = outline.fields.get_mut(&general(&setting.path)) {
                form.meaning = setting.meaning;
                if setting.origin != Origin::Written {
                    form.default = Some(setting.value);
                    form.by_role |= setting.origin == Origin::Role;
                }
            }
        }
        outline
    }

    fn outline(&mut self, tell: impl FnOnce(&mut Outline)) {
        if let Some(outline) = &mut self.outline {
            tell(outline);
        }
    }

    /// The field at `path` has this shape.
    pub(crate) fn shape(&mut self, path: &str, shape: Shape) {
        self.outline(|o| o.shape(path, shape));
    }

    /// The field at `path`, which is no setting, means this.
    pub(crate) fn meaning(&mut self, path: impl FnOnce() -> String, meaning: &'static str) {
        self.outline(|o| {
            if let Some(form) = o.fields.get_mut(&general(&path())) {
                form.meaning = meaning;
            }
        });
    }

    /// The map at `path` has exactly one of these fields.
    pub(crate) fn one_of(&mut self, path: &str, names: &'static [&'static str]) {
        self.outline(|o| {
            o.one_of.insert(general(path), names);
        });
    }

    /// The map at `path` has at least one of these fields.
    pub(crate) fn any_of(&mut self, path: &str, names: &'static [&'static str]) {
        self.outline(|o| {
            o.any_of.insert(general(path), names);
        });
    }

    /// The map at `path` has at most one of these fields.
    pub(crate) fn not_both(&mut self, path: &str, names: &'static [&'static str]) {
        self.outline(|o| {
            o.not_both.insert(general(path), names);
        });
    }

    pub(crate) fn error(&mut self, path: &str, fault: Fault) {
        self.add(Severity::Error, path, fault);
    }

    pub(crate) fn warn(&mut self, path: &str, code: &'static str, message: impl Into<String>, mend: impl Into<String>) {
        self.add(Severity::Warning, path, Fault::new(code, message, mend));
    }

    fn add(&mut self, severity: Severity, path: &str, fault: Fault) {
        let span = self.place(path);
        self.problems.push(Problem { path: path.to_owned(), span, severity, message: fault.message, mend: Some(fault.mend), code: fault.code });
    }

    /// The place of a field, or of the nearest field around it that has one.
    fn place(&self, path: &str) -> Option<Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.places.get(path) {
                return Some(*span);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// A setting: `tell` has its path and its value.
    pub(crate) fn put(&mut self, tell: impl FnOnce() -> (String, String), origin: Origin, meaning: &'static str) {
        if !self.only_errors {
            let (path, value) = tell();
            self.settings.push(Setting { path, value, origin, meaning });
        }
    }

    /// Remembers where a field stands.
    pub(crate) fn locate(&mut self, path: impl FnOnce() -> String, node: &Node) {
        if let Some(span) = node.span {
            self.places.insert(path(), span);
        }
    }
}

/// As many as most maps have.
const MOST_FIELDS: usize = 16;

/// A map that is being read.
pub(crate) struct Fields<'a> {
    path: String,
    entries: &'a [Entry],
    known: Known,
}

/// Which fields are known: those that were taken.
enum Known {
    /// Their names, also of those that are not there.
    Names(Vec<&'static str>),
    /// At a glance: a bit for each entry.
    Entries(u64),
}

impl Known {
    fn names(&self) -> &[&'static str] {
        match self {
            Known::Names(names) => names,
            Known::Entries(_) => &[],
        }
    }

    /// Whether this entry was taken; of one beyond the bits that is not known, and whoever reads it again says so.
    fn has(&self, index: usize, entry: &Entry) -> bool {
        match self {
            Known::Names(names) => names.contains(&entry.key.as_str()),
            Known::Entries(bits) => index < 64 && bits & (1 << index) != 0,
        }
    }
}

impl<'a> Fields<'a> {
    /// The map at `path`; an error and no fields where it is none. No node is an empty map.
    pub(crate) fn of(node: Option<&'a Node>, path: String, report: &mut Report, mend: &str) -> Self {
        let entries: &[Entry] = match node.map(|n| &n.value) {
            None => &[],
            Some(Value::Map(entries)) => entries,
            Some(_) => {
                if let Some(node) = node {
                    report.error(&path, Fault::new("type", format!("`{}` must be a map, it is {}", last(&path), node.describe()), mend));
                }
                &[]
            }
        };
        for entry in entries {
            report.locate(|| join(&path, &entry.key), &entry.value);
        }
        report.outline(|o| {
            o.maps.insert(general(&path));
        });
        let known = if report.at_a_glance { Known::Entries(0) } else { Known::Names(Vec::with_capacity(MOST_FIELDS)) };
        Fields { path, entries, known }
    }

    /// The path of the field `name` of this map; at a glance there is none.
    pub(crate) fn at(&self, name: &str) -> String {
        match self.known {
            Known::Names(_) => join(&self.path, name),
            Known::Entries(_) => String::new(),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The field `name`, which is known from here on; `None` where it is absent or null.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        let found = self.entries.iter().position(|entry| entry.key == name);
        match &mut self.known {
            Known::Names(names) if names.contains(&name) => {}
            Known::Names(names) => names.push(name),
            Known::Entries(bits) => *bits |= found.filter(|index| *index < 64).map_or(0, |index| 1 << index),
        }
        found.map(|index| &self.entries[index].value).filter(|v| v.value != Value::Null)
    }

    /// The field `name` must be there; whoever reads it says so where it is not.
    pub(crate) fn demand(&self, name: &str, report: &mut Report) {
        report.outline(|o| {
            o.required.insert(general(&self.at(name)));
        });
    }

    /// Whether there are fields that nobody has taken so far.
    pub(crate) fn has_unknown(&self) -> bool {
        self.entries.iter().enumerate().any(|(index, entry)| !self.known.has(index, entry))
    }

    /// The field `name` as a map.
    pub(crate) fn map(&mut self, name: &'static str, report: &mut Report, mend: &str) -> Fields<'a> {
        let path = self.at(name);
        let node = self.take(name);
        Fields::of(node, path, report, mend)
    }

    /// The field `name`, which may be what `shape` says, read by `parse`; a fault is reported and counts as absent.
    pub(crate) fn read<T>(&mut self, name: &'static str, shape: Shape, report: &mut Report, parse: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        report.outline(|o| o.shape(&self.at(name), shape));
        let node = self.take(name)?;
        match parse(node) {
            Ok(value) => Some(value),
            Err(mut fault) => {
                fault.message = format!("`{name}`: {}", fault.message);
                report.error(&self.at(name), fault);
                None
            }
        }
    }

    /// The field `name`, which has no default; `mend` says what to write where it is not there.
    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        shape: Shape,
        mend: &str,
        report: &mut Report,
        parse: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        self.demand(name, report);
        if self.take(name).is_none() {
            report.error(self.path(), Fault::new("missing-field", format!("`{name}` is missing"), mend));
        }
        self.read(name, shape, report, parse)
    }

    /// The field `name` as one of a set of words.
    pub(crate) fn word<T: Choice>(&mut self, name: &'static str, report: &mut Report) -> Option<T> {
        self.read(name, Shape::Words(words::<T>), report, choice)
    }

    /// The field `name` or its default, told to `report` as a setting.
    pub(crate) fn setting<T: Show>(
        &mut self,
        name: &'static str,
        shape: Shape,
        (default, origin): (T, Origin),
        meaning: &'static str,
        report: &mut Report,
        parse: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> T {
        let (value, origin) = match self.read(name, shape, report, parse) {
            Some(value) => (value, Origin::Written),
            None => (default, origin),
        };
        report.put(|| (self.at(name), value.show()), origin, meaning);
        value
    }

    /// A duration of at most `most`.
    pub(crate) fn duration(&mut self, name: &'static str, default: (Duration, Origin), most: Duration, meaning: &'static str, report: &mut Report) -> Duration {
        self.setting(name, Shape::Duration, default, meaning, report, |node| duration(node, most))
    }

    /// One of a set of words.
    pub(crate) fn choice<T: Choice>(&mut self, name: &'static str, default: (T, Origin), meaning: &'static str, report: &mut Report) -> T {
        self.setting(name, Shape::Words(words::<T>), default, meaning, report, choice)
    }

    /// Reports what nobody took. `elsewhere` may know a field of another name or version.
    pub(crate) fn finish(self, report: &mut Report, elsewhere: impl Fn(&str) -> Option<Fault>) {
        let known = self.known.names();
        report.outline(|o| {
            for name in known {
                let path = general(&join(&self.path, name));
                if !o.maps.contains(&path) {
                    o.fields.entry(path).or_insert(Form { shape: Shape::Any, meaning: "", default: None, by_role: false });
                }
            }
        });
        // Who writes the word `null` means it.
        let is_empty = |node: &Node| node.value == Value::Null && node.span.is_some_and(|span| span.length < 4);
        for entry in self.entries.iter().filter(|e| is_empty(&e.value) && known.contains(&e.key.as_str())).take(MOST_PROBLEMS) {
            let message = format!("`{}` has no value, and counts as not written", shorten(&entry.key));
            let (path, span) = (join(&self.path, &entry.key), entry.key_span.or(entry.value.span));
            let mend = Some("write a value, or remove the line".to_owned());
            report.problems.push(Problem { path, span, severity: Severity::Warning, message, mend, code: "empty-field" });
        }
        let unknown = self.entries.iter().enumerate().filter(|(index, entry)| !self.known.has(*index, entry));
        for (_, entry) in unknown.take(MOST_PROBLEMS) {
            let path = join(&self.path, &shorten(&entry.key));
            let fault = elsewhere(&entry.key).unwrap_or_else(|| {
                // In braces `max:5` is a field of that name, without a value.
                let glued = entry.key.split_once(':').filter(|(_, value)| entry.value.value == Value::Null && !value.is_empty());
                let mend = match spelling::nearest(&entry.key, known.iter().copied()) {
                    _ if entry.key == "<<" => "merge keys are not read: write its fields here".to_owned(),
                    _ if glued.is_some() => format!("write a space after the colon: `{}`", shorten(&entry.key.replacen(':', ": ", 1))),
                    Some(known) => format!("did you mean `{known}`?"),
                    None if known.is_empty() => "remove it".to_owned(),
                    None => format!("known here: {}", known.join(", ")),
                };
                Fault::new("unknown-field", format!("unknown field `{}`", shorten(&entry.key)), mend)
            });
            let span = entry.key_span.or(entry.value.span);
            report.problems.push(Problem { path, span, severity: Severity::Error, message: fault.message, mend: Some(fault.mend), code: fault.code });
        }
    }
}

fn join(path: &str, name: &str) -> String {
    [path, name].join(".")
}

/// The path of an item of the list at `path`; at a glance there is none.
pub(crate) fn item(path: &str, index: usize) -> String {
    if path.is_empty() { String::new() } else { format!("{path}[{index}]") }
}

/// The name of the last field of a path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// A value that a field may have, as it would be written.
pub(crate) trait Show {
    fn show(&self) -> String;
}

impl Show for u32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for i32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for String {
    fn show(&self) -> String {
        quoted(self)
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        show_duration(*self)
    }
}

impl<T: Choice> Show for T {
    fn show(&self) -> String {
        word(*self).to_owned()
    }
}

/// A text as it could be written: bare where it can be taken for nothing else, quoted as in JSON (and so in YAML) otherwise.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let is_word = ["null", "true", "false"].contains(&text.to_ascii_lowercase().as_str());
    if is_plain && !is_word { text.to_owned() } else { Node::bare(Value::Text(text.to_owned())).to_json() }
}

/// A field that takes one of a few words.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// The words with what they stand for.
    const WORDS: &'static [(&'static str, Self)];
}

/// The words of a choice.
pub(crate) fn words<T: Choice>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

/// The word of a choice.
pub(crate) fn word<T: Choice>(value: T) -> &'static str {
    T::WORDS.iter().find(|(_, v)| *v == value).map_or("", |(word, _)| word)
}

pub(crate) fn choice<T: Choice>(node: &Node) -> Result<T, Fault> {
    let words = words::<T>();
    let all = || format!("write one of {}", words.join(", "));
    let Some(text) = node.as_text() else { return Err(Fault::wrong_type(node, all())) };
    T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let mend = spelling::nearest(text, words.iter().copied()).map_or_else(all, |known| format!("did you mean `{known}`?"));
        Fault::new("unknown-value", format!("{:?} is none of {}", shorten(text), words.join(", ")), mend)
    })
}

/// The word of a choice that is written, or that was probably meant.
pub(crate) fn meant<T: Choice>(node: &Node) -> Option<T> {
    let meant = spelling::nearest(node.as_text()?, T::WORDS.iter().map(|(word, _)| *word))?;
    T::WORDS.iter().find(|(word, _)| *word == meant).map(|(_, value)| *value)
}

/// A whole number within bounds.
pub(crate) fn whole(node: &Node, least: i64, most: i64) -> Result<i64, Fault> {
    let mend = || format!("write a whole number from {least} to {most}");
    let Value::Number(text) = &node.value else { return Err(Fault::wrong_type(node, mend())) };
    match text.parse::<i64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(number) => Err(Fault::new("range", format!("{number} is not within {least} and {most}"), mend())),
        Err(_) => Err(Fault::new("type", format!("{} is not a whole number", shorten(text)), mend())),
    }
}
