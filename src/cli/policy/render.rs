//! Problems as people read them: the place, the line with a caret, the reason and the mend; and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Source;
use crate::model::document::{Problem, Severity, Span};
use crate::wire::document::PolicyFile;

/// How much of a long line is shown, in characters.
const SHOWN: usize = 140;

/// The colours of a terminal, or none.
struct Paint(bool);

impl Paint {
    fn severity(&self, severity: Severity, text: &str) -> String {
        self.with(if severity == Severity::Error { "1;31" } else { "1;33" }, text)
    }

    fn frame(&self, text: &str) -> String {
        self.with("1;34", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes every problem of one file, each followed by an empty line.
pub(in crate::cli) fn problems(out: &mut String, file: &str, source: &str, problems: &[&Problem], colours: bool) {
    // The line breaks of YAML: a lone carriage return is one.
    let source = source.replace("\r\n", "\n");
    let lines: Vec<&str> = source.split(['\n', '\r']).collect();
    for problem in problems {
        one(out, file, &lines, problem, &Paint(colours));
        out.push('\n');
    }
}

/// Writes every problem of every file, and which files cannot be read.
pub(super) fn all(out: &mut String, sources: &[Source], files: &[PolicyFile], colours: bool) {
    for (source, file) in sources.iter().zip(files) {
        match &source.text {
            Ok(text) => problems(out, &source.name, text, &file.all_problems(), colours),
            Err(why) => unreadable(out, &source.name, why, colours),
        }
    }
}

/// Says that a file cannot be read.
pub(in crate::cli) fn unreadable(out: &mut String, file: &str, why: &str, colours: bool) {
    let _ = writeln!(out, "{}: failed to read {file}: {why}\n", Paint(colours).severity(Severity::Error, "error"));
}

// Writing to a String cannot fail: the results below are of no interest.
fn one(out: &mut String, file: &str, lines: &[&str], problem: &Problem, paint: &Paint) {
    let head = format!("{}[{}]", problem.severity, problem.code);
    let _ = writeln!(out, "{}: {}", paint.severity(problem.severity, &head), problem.message);
    let margin = problem.span.map_or(1, |s| s.line.to_string().len());
    let place = problem.span.map_or_else(|| file.to_owned(), |s| format!("{file}:{}:{}", s.line, s.column));
    let _ = writeln!(out, "{}{} {place}", " ".repeat(margin), paint.frame("-->"));
    let bar = paint.frame("|");
    if let Some((span, line)) = problem.span.and_then(|s| Some((s, *lines.get(usize::try_from(s.line).ok()?.checked_sub(1)?)?))) {
        let (shown, caret) = excerpt(line, span);
        let _ = writeln!(out, "{} {bar}", " ".repeat(margin));
        let _ = writeln!(out, "{} {bar} {shown}", paint.frame(&span.line.to_string()));
        let _ = writeln!(out, "{} {bar} {}", " ".repeat(margin), paint.severity(problem.severity, &caret));
    }
    let note = paint.frame("=");
    if !problem.path.is_empty() {
        let _ = writeln!(out, "{} {note} at {}", " ".repeat(margin), problem.path);
    }
    if let Some(mend) = &problem.mend {
        let _ = writeln!(out, "{} {note} {mend}", " ".repeat(margin));
    }
}

/// The part of a line around its span, and the carets beneath it.
fn excerpt(line: &str, span: Span) -> (String, String) {
    let to_usize = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let column = to_usize(span.column).saturating_sub(1);
    // A tab is one column of the text; shown as one space, the caret stays beneath its character.
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let from = if column < SHOWN { 0 } else { column - SHOWN / 2 };
    let until = characters.len().min(from + SHOWN);
    let mut shown: String = if from > 0 { "…".to_owned() } else { String::new() };
    shown.extend(characters.get(from..until).unwrap_or_default());
    if until < characters.len() {
        shown.push('…');
    }
    let before = (column - from) + usize::from(from > 0);
    let carets = to_usize(span.length).clamp(1, until.saturating_sub(column).max(1));
    (shown, format!("{}{}", " ".repeat(before), "^".repeat(carets)))
}

/// A problem as JSON.
fn problem_json(file: &str, problem: &Problem) -> Value {
    json!({
        "file": file,
        "line": problem.span.map(|s| s.line),
        "column": problem.span.map(|s| s.column),
        "length": problem.span.map(|s| s.length),
        "path": problem.path,
        "severity": problem.severity.to_string(),
        "code": problem.code,
        "message": problem.message,
        "mend": problem.mend,
    })
}

/// Every problem of every file as JSON, and which files cannot be read.
pub(super) fn all_json(sources: &[Source], files: &[PolicyFile]) -> Vec<Value> {
    let mut problems = Vec::new();
    for (source, file) in sources.iter().zip(files) {
        if let Err(why) = &source.text {
            problems
                .push(json!({ "file": source.name, "severity": "error", "code": "unreadable", "message": format!("failed to read {}: {why}", source.name) }));
        }
        problems.extend(file.all_problems().into_iter().map(|p| problem_json(&source.name, p)));
    }
    problems
}

/// What `check` found, as one JSON object.
pub(super) fn json(sources: &[Source], files: &[PolicyFile]) -> String {
    let policies: Vec<Value> = files
        .iter()
        .flat_map(|f| {
            f.documents
                .iter()
                .map(|d| json!({ "file": f.file, "name": d.name, "target": d.target, "valid": d.problems.iter().all(|p| p.severity != Severity::Error) }))
        })
        .collect();
    format!("{}\n", json!({ "policies": policies, "problems": all_json(sources, files) }))
}

/// What is wrong.
pub(super) fn red(text: &str, colours: bool) -> String {
    Paint(colours).with("1;31", text)
}

/// What is well.
pub(super) fn green(text: &str, colours: bool) -> String {
    Paint(colours).with("1;32", text)
}

/// A text as a cell of a table in Markdown.
pub(in crate::cli) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '|' | '\\' | '`' | '*' | '_' | '<' | '[' | ']' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}
