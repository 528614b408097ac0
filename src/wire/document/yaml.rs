//! YAML 1.2 to located trees.
//!
//! The core schema decides what a plain scalar is (so `Off` is a text, `010` is ten). An alias stands for a copy of
//! its anchor; copies count towards a bound, so that no small text becomes a large tree. Merge keys (`<<`) are
//! not part of YAML 1.2 and are taken as a field of that name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Entered;

use granit_parser::{Event, Parser, ScalarStyle};

use super::parts::{Part, parts};
use super::slips::slip;
use crate::model::document::{Entry, Node, Problem, Severity, Span, Value, shorten};

/// The longest text that is read: a policy has some kilobytes, a file with a thousand of them fits.
const MAX_BYTES: usize = 4 << 20;
/// The most nodes of a file, copies through aliases counted: a thousand policies of two hundred nodes each.
const MAX_NODES: usize = 200_000;
/// The deepest nesting; a policy has seven levels.
const MAX_DEPTH: usize = 64;
/// The code of what is beyond these.
const TOO_LARGE: &str = "too-large";

/// A document of a YAML text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its tree; `None` where it is no YAML. Of a field that is given twice the first value stands.
    pub node: Option<Node>,
    /// What is wrong with it as YAML.
    pub problems: Vec<Problem>,
}

/// Reads every document of a YAML text, each on its own: what is wrong with one hides nothing of another. With more values than
/// are read, the last one has that problem and those after it are left out.
pub fn documents(text: &str) -> Vec<Document> {
    let mut reader = Reader::default();
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        reader.give_up(syntax(None, TOO_LARGE, message, Some("split it")));
        return reader.documents;
    }
    for part in parts(text) {
        if let Err(problem) = reader.read(&part) {
            let enough = problem.code == TOO_LARGE;
            reader.give_up(problem);
            if enough {
                break;
            }
        }
    }
    reader.documents
}

/// Reads every document of a YAML text. Duplicate fields are errors.
///
/// # Errors
/// The first [`Problem`] of the text as YAML.
pub fn from_yaml(text: &str) -> Result<Vec<Node>, Problem> {
    let mut nodes = Vec::new();
    for Document { node, problems } in documents(text) {
        if let Some(first) = problems.into_iter().next() {
            return Err(first);
        }
        nodes.extend(node);
    }
    Ok(nodes)
}

/// A collection that is still open.
enum Open {
    List { items: Vec<Node>, span: Span, anchor: usize },
    Map { entries: Vec<Entry>, key: Option<Key>, lines: BTreeMap<String, u32>, span: Span, anchor: usize },
}

/// The name of a field whose value is due.
struct Key {
    name: String,
    span: Span,
    /// It was given before: its value is not taken.
    again: bool,
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    /// What is wrong with the document under way, and does not keep it from being read.
    problems: Vec<Problem>,
}

impl Reader {
    fn read(&mut self, part: &Part<'_>) -> Result<(), Problem> {
        let mut options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
        options.set_emit_comments(false);
        for next in Parser::new_from_str_with_options(part.text, options) {
            let (event, place) = next.map_err(|e| {
                let at = Span { line: number(e.marker().line()), column: number(e.marker().col() + 1), length: 1 };
                let slip = slip(part.text, part.lines_before, at, &e.info());
                syntax(Some(slip.span), "syntax", format!("not YAML: {}", slip.reason), slip.mend.as_deref())
            })?;
            self.take(event, span(&place, part.lines_before))?;
        }
        Ok(())
    }

    /// The document under way cannot be read.
    fn give_up(&mut self, problem: Problem) {
        self.open.clear();
        let mut problems = std::mem::take(&mut self.problems);
        problems.push(problem);
        self.documents.push(Document { node: None, problems });
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = match tag {
                    None => style != ScalarStyle::Plain,
                    Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
                    Some(tag) => return Err(unwanted_tag(span, &tag.original())),
                };
                if let Some(Open::Map { key: key @ None, lines, .. }) = self.open.last_mut() {
                    let first = match lines.entry(text.to_string()) {
                        Entered::Vacant(new) => {
                            new.insert(span.line);
                            None
                        }
                        Entered::Occupied(known) => Some(*known.get()),
                    };
                    if let Some(first) = first {
                        let message = format!("the field `{}` is given twice, first on line {first}", shorten(&text));
                        self.problems.push(syntax(Some(span), "duplicate-field", message, Some("keep one of them")));
                    }
                    *key = Some(Key { name: text.into_owned(), span, again: first.is_some() });
                    return Ok(());
                }
                let value = if is_text { Value::Text(text.into_owned()) } else { plain(&text) };
                self.put(Node { value, span: Some(span) }, anchor, 1, span)?;
            }
            Event::SequenceStart(_, anchor, None) => {
                self.must_not_be_a_key(span)?;
                self.open.push(Open::List { items: Vec::new(), span, anchor });
            }
            Event::MappingStart(_, anchor, None) => {
                self.must_not_be_a_key(span)?;
                self.open.push(Open::Map { entries: Vec::new(), key: None, lines: BTreeMap::new(), span, anchor });
            }
            Event::SequenceStart(_, _, Some(tag)) | Event::MappingStart(_, _, Some(tag)) => return Err(unwanted_tag(span, &tag.original())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { items, span, anchor }) => self.put(Node { value: Value::List(items), span: Some(span) }, anchor, 1, span)?,
                Some(Open::Map { entries, span, anchor, .. }) => self.put(Node { value: Value::Map(entries), span: Some(span) }, anchor, 1, span)?,
                None => {}
            },
            Event::Alias(id) => {
                self.must_not_be_a_key(span)?;
                let Some(node) = self.anchors.get(&id) else {
                    return Err(syntax(Some(span), "alias", "an alias inside of what it names".to_owned(), Some("write the value out")));
                };
                let (copies, copy) = (size(node), node.clone());
                self.put(copy, 0, copies, span)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A collection or an alias where the name of a field is due.
    fn must_not_be_a_key(&self, span: Span) -> Result<(), Problem> {
        match self.open.last() {
            Some(Open::Map { key: None, .. }) => {
                let mend = "write a name; a template (`{{ … }}`) is to be rendered first, and a value in braces to be put in quotes";
                Err(syntax(Some(span), "key", "the name of a field must be a text".to_owned(), Some(mend)))
            }
            _ => Ok(()),
        }
    }

    /// A whole node: into the open collection, or a document of its own. It counts as `weight` nodes.
    fn put(&mut self, mut node: Node, anchor: usize, weight: usize, at: Span) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(weight);
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values, aliases written out");
            return Err(syntax(Some(at), TOO_LARGE, message, Some("split it, or write fewer aliases")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(Document { node: Some(node), problems: std::mem::take(&mut self.problems) }),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => {
                if let Some(key) = key.take().filter(|key| !key.again) {
                    // A map or a list is found by its name: its own first character says nothing.
                    if matches!(node.value, Value::Map(_) | Value::List(_)) {
                        node.span = Some(key.span);
                    }
                    entries.push(Entry { key: key.name, key_span: Some(key.span), value: node });
                }
            }
        }
        Ok(())
    }
}

/// How many nodes a tree has.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|e| size(&e.value)).sum(),
        _ => 0,
    }
}

/// A plain scalar under the core schema (YAML 1.2.2, section 10.3.2). Hexadecimal, octal, infinite and
/// undefined numbers stay texts: no field takes them. So does `010`, which is 8 by YAML 1.1 and 10 by YAML 1.2.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => json_number(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number),
    }
}

/// A number of the core schema in the grammar of JSON: no plus sign, no bare point, no leading zeros.
fn json_number(text: &str) -> Option<String> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let (sign, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let power = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || power.is_some_and(|p| p.is_empty() || !digits(p)) {
        return None;
    }
    if whole.len() > 1 && whole.starts_with('0') && whole.len() == text.trim_start_matches(['-', '+']).len() {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    };
    let fraction = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
    let exponent = exponent.map(|e| format!("e{e}")).unwrap_or_default();
    Some(format!("{sign}{whole}{fraction}{exponent}"))
}

/// A place in the whole text, from one in a part that so many lines stand before.
fn span(place: &granit_parser::Span, lines_before: usize) -> Span {
    let length = if place.start.line() == place.end.line() { place.end.col().saturating_sub(place.start.col()) } else { 1 };
    Span { line: number(lines_before + place.start.line()), column: number(place.start.col() + 1), length: number(length.max(1)) }
}

/// Lines and columns of a text of at most [`MAX_BYTES`].
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn unwanted_tag(span: Span, tag: &str) -> Problem {
    syntax(Some(span), "tag", format!("the tag {:?} is not read here", shorten(tag)), Some("leave it out"))
}

fn syntax(span: Option<Span>, code: &'static str, message: String, mend: Option<&str>) -> Problem {
    Problem { path: String::new(), span, severity: Severity::Error, message, mend: mend.map(ToOwned::to_owned), code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> String {
        from_yaml(text).unwrap().iter().map(Node::to_json).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn plain_scalars_are_what_the_core_schema_says() {
        for (yaml, expected) in [
            ("Off", "\"Off\""),
            ("yes", "\"yes\""),
            ("TRUE", "true"),
            ("~", "null"),
            ("010", "\"010\""),
            ("00.5", "0.5"),
            ("+.50", "0.5"),
            ("5.", "5"),
            ("-0", "0"),
            ("1e+3", "1000"),
            ("1e", "\"1e\""),
            ("0x10", "\"0x10\""),
            (".inf", "\".inf\""),
            ("1_000", "\"1_000\""),
            ("30s", "\"30s\""),
            ("70%", "\"70%\""),
            ("'5'", "\"5\""),
            ("!!str 5", "\"5\""),
            ("2026-01-01", "\"2026-01-01\""),
        ] {
            assert_eq!(json(&format!("[{yaml}]")), format!("[{expected}]"), "{yaml}");
            assert!(serde_json::from_str::<serde_json::Value>(&json(&format!("[{yaml}]"))).is_ok());
        }
    }

    #[test]
    fn every_node_knows_its_place() {
        let nodes = from_yaml("a: 1\nbü: { c: [x, yy] }\n---\nd: |\n  text\n").unwrap();
        let list = nodes[0].get("bü").and_then(|n| n.get("c")).unwrap();
        assert_eq!(list.span, Some(Span { line: 2, column: 7, length: 1 }));
        let Value::List(items) = &list.value else { panic!("a list") };
        assert_eq!(items[1].span, Some(Span { line: 2, column: 14, length: 2 }));
        let Value::Map(entries) = &nodes[1].value else { panic!("a map") };
        assert_eq!(entries[0].key_span, Some(Span { line: 4, column: 1, length: 1 }));
    }

    #[test]
    fn mistakes_of_the_text_name_their_place() {
        for (yaml, code, line, column) in [
            ("a: 1\nb: 2\na: 3\n", "duplicate-field", 3, 1),
            ("a: [1\nb: 2\n", "syntax", 2, 2),
            ("? [a]\n: 1\n", "key", 1, 3),
            ("a: !!int 5\n", "tag", 1, 10),
            ("a: &x [*x]\n", "alias", 1, 8),
            ("a: *nothing\n", "syntax", 1, 4),
        ] {
            let problem = from_yaml(yaml).unwrap_err();
            let span = problem.span.unwrap();
            assert_eq!((problem.code, span.line, span.column), (code, line, column), "{yaml} {problem}");
        }
    }

    /// Each document is read on its own: what is wrong with one hides nothing of the others, and places are those of the text.
    #[test]
    fn what_is_wrong_with_a_document_hides_no_other() {
        let text =
            "# shop\na: [1\n---\nb: 1\nb: 2\nc: 3\nb: 4\n--- # the third\n{ d: 4 }\n...\n%YAML 1.2\n---\ne: 'f\n---\ng:\n\th: 1\n---\nh:\n   i: 1\n  j: 2\n";
        let told = |document: &Document| {
            let place = |p: &Problem| p.span.map_or("nowhere".to_owned(), |span| format!("{}:{}", span.line, span.column));
            let problems: Vec<String> = document.problems.iter().map(|p| format!("{} {}", place(p), p.message)).collect();
            format!("{}; {}", document.node.as_ref().map_or("none".to_owned(), Node::to_json), problems.join("; "))
        };
        for text in [text.to_owned(), text.replace('\n', "\r\n")] {
            let all: Vec<String> = documents(&text).iter().map(told).collect();
            assert_eq!(
                all,
                [
                    "none; 2:4 not YAML: unclosed bracket '['",
                    r#"{"b":1,"c":3}; 5:1 the field `b` is given twice, first on line 4; 7:1 the field `b` is given twice, first on line 4"#,
                    r#"{"d":4}; "#,
                    "none; 13:4 not YAML: a quote is opened here and not closed",
                    "none; 16:1 not YAML: a tab indents this line",
                    "none; 20:3 not YAML: the indentation does not fit: 2 spaces here, 3 on line 19, and no field above begins there",
                ],
                "{text:?}"
            );
        }
        assert!(documents("").is_empty() && documents("# nothing\n...\n# at all\n").is_empty());
        assert_eq!(documents("---\n---\n").len(), 2, "without a value, as YAML has it");
    }

    /// The slips that people make are told in plain words, at the slip, with the mend.
    #[test]
    fn common_slips_have_their_mend() {
        let told = |yaml: &str| {
            let problem = from_yaml(yaml).expect_err(yaml);
            let span = problem.span.unwrap();
            format!("{yaml}\n{}:{} {}\n   = {}\n", span.line, span.column, problem.message, problem.mend.as_deref().unwrap_or("none"))
        };
        let slips = [
            "spec:\n\treplicas: 3\n",
            "spec:\n  a: 1\n\tb: 2\n",
            "spec:\n  replicas:3\n  role: x\n",
            "spec:\n  role: x\n  replicas:3\n",
            "spec:\n  - name:cpu\n    window: 30s\n",
            "spec:\n  name: \"cpu\n  window: 30s\n",
            "spec:\n  name: 'cpu\n",
            "spec:\n  name: \"cpu\n  other: \"x\"\n",
            "spec:\n  name: \"cpu\" load\n",
            "spec:\n  name: \"a\\qb\"\n",
            "spec:\n  a: 1\n   b: 2\n",
            "spec:\n    a: 1\n  b: 2\n",
            "spec:\n  a:\n    - x\n   - y\n",
            "spec:\n  - a\n  b: 1\n",
            "spec:\n  a: b: c\n",
            "spec:\n  a\n  b: 1\n",
            "spec: { a: 1 b: 2 }\n",
            "spec: { a: 1\nb: 2\n",
            "spec: { a: [1 }\n",
            "spec: { a: 1 }}\n",
            "spec: [1\n",
            "spec: {\n",
            "spec: @x\n",
            "spec: `x`\n",
            "spec: %x\n",
            "spec: *x\n",
            "a: \"x\"#y\n",
        ];
        insta::assert_snapshot!(slips.map(told).join("\n"));
    }

    #[test]
    fn an_alias_is_a_copy_and_copies_are_bounded() {
        assert_eq!(json("a: &x { b: 1 }\nc: *x\n"), r#"{"a":{"b":1},"c":{"b":1}}"#);
        let level = |i: u32| format!("a{}: &a{} [{}]\n", i + 1, i + 1, vec![format!("*a{i}"); 10].join(", "));
        let bomb: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned()).chain((0..20).map(level)).collect();
        assert_eq!(from_yaml(&bomb).unwrap_err().code, "too-large");
        assert_eq!(from_yaml(&"[".repeat(1_000_000)).unwrap_err().code, "syntax");
        assert_eq!(from_yaml(&" ".repeat(MAX_BYTES + 1)).unwrap_err().code, "too-large");
    }

    /// Texts of one document, sound and not.
    const ALONE: [&str; 12] = [
        "a: 1\n",
        "[1, 2]\n",
        "a: &x 1\nb: *x\n",
        "a: 'x\n",
        "b: \"x\n",
        "c: [1, 2\n",
        "d: { e: 1\n",
        "e: 1\ne: 2\n",
        "f: |\n  --- no mark\n",
        "g: *x\n",
        " h: 1\ni: 2\n",
        "j: !!int 1\n",
    ];

    /// Problems whose words name no line.
    fn without_lines(mut problems: Vec<Problem>) -> Vec<Problem> {
        for problem in &mut problems {
            let parts: Vec<&str> = problem.message.split("on line ").collect();
            let parts = parts.iter().map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
            problem.message = parts.collect::<Vec<_>>().join("on line N");
        }
        problems
    }

    proptest! {
        /// However documents stand together, each is what it is alone, as many lines further down.
        #[test]
        fn a_document_is_the_same_beside_others(chosen in proptest::collection::vec(0..ALONE.len(), 1..8)) {
            let (mut text, mut expected) = (String::new(), Vec::new());
            for text_of_one in chosen.iter().map(|i| format!("---\n{}", ALONE[*i])) {
                let lines = u32::try_from(text.lines().count()).unwrap();
                for Document { node, mut problems } in documents(&text_of_one) {
                    for problem in &mut problems {
                        problem.span = problem.span.map(|span| Span { line: span.line + lines, ..span });
                    }
                    expected.push((node.map(|node| node.to_json()), without_lines(problems)));
                }
                text += &text_of_one;
            }
            let read: Vec<_> = documents(&text).into_iter().map(|d| (d.node.map(|node| node.to_json()), without_lines(d.problems))).collect();
            prop_assert_eq!(read, expected, "{}", text);
        }

        #[test]
        fn no_text_panics(text in "[-a-c:#{}\\[\\]&*!|>'\",%@0-9 \n\t.~?]{0,60}") {
            let _ = documents(&text);
        }
    }
}
