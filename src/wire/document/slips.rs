//! Common slips in YAML: what the parser's complaint comes from, in plain words, and how to mend it.
//!
//! A parser complains where it cannot go on; the slip is often on the line above. These look at the text around that place.

use crate::model::document::{Span, shorten};

/// What is wrong, where, and the mend where one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slip {
    pub span: Span,
    pub reason: String,
    pub mend: Option<String>,
}

/// What the parser's complaint at `at` in `text`, a part that so many lines stand before, comes from.
pub(super) fn slip(text: &str, lines_before: usize, at: Span, complaint: &str) -> Slip {
    let mut slip = slip_in(text, lines_before, at, complaint);
    slip.span.line = slip.span.line.saturating_add(u32::try_from(lines_before).unwrap_or(u32::MAX));
    slip
}

/// The same, at its place in `text`.
fn slip_in(text: &str, lines_before: usize, at: Span, complaint: &str) -> Slip {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().min(usize::try_from(at.line).unwrap_or(usize::MAX));
    let of = |span: Span, reason: String, mend: String| Slip { span, reason, mend: Some(mend) };
    // The line of the complaint, and the written line before it.
    let around: Vec<usize> = (1..=last).rev().filter(|n| !is_blank(lines[n - 1])).take(2).collect();
    // A tab on the next line is met at the end of this one.
    let next = complaint.contains("tab").then_some(last + 1).filter(|n| *n <= lines.len());
    let found = tab(&lines, &next.into_iter().chain(around.iter().copied()).collect::<Vec<_>>())
        .or_else(|| (complaint.contains("quote") && !complaint.contains("escape")).then(|| quote(&lines, last, at)))
        .or_else(|| around.iter().find_map(|n| colon(lines[n - 1], *n)));
    if let Some((span, reason, mend)) = found {
        return of(span, reason, mend);
    }
    let here = lines.get(last.wrapping_sub(1)).copied().unwrap_or_default();
    let has = |part: &str| complaint.contains(part);
    let said = |reason: &str, mend: &str| of(at, reason.to_owned(), mend.to_owned());
    let above = around.get(1).map(|n| (*n, lines[n - 1]));
    if has("unclosed bracket '{'") {
        said(complaint, "close it with `}`")
    } else if has("unclosed bracket '['") {
        said(complaint, "close it with `]`")
    } else if has("mismatched bracket") {
        said(complaint, "close `{` with `}` and `[` with `]`")
    } else if has("expected ',' or") || has("flow construct") {
        said("what stands in brackets goes on without a comma, or is not closed", "write `,` between two entries, or close `{` with `}` and `[` with `]`")
    } else if has("misplaced bracket") {
        said("a bracket closes what was not opened", "remove it, or put the value in quotes")
    } else if has("mapping values are not allowed") && here.matches(": ").count() > 1 {
        said("a second colon on this line", "put the value in quotes, or the second field on a line of its own")
    } else if let Some((n, line)) = above.filter(|(_, line)| has("mapping values are not allowed") && !line.contains(':')) {
        let margin = line.chars().take_while(|c| *c == ' ').count();
        of(place(n, margin + 1, 1), "this line is no field: it has no colon".to_owned(), "write `name: value`".to_owned())
    } else if has("simple key expected") {
        said("this line, or the one above, is no field: it has no colon", "write `name: value`")
    } else if has("'-' indicator") && !here.trim_start().starts_with('-') {
        said("this line stands among the items of a list and begins with no dash", "begin it with `- `, or indent it as the name of the list is")
    } else if ["expected key", "'-' indicator", "invalid indentation", "wrongly indented", "not allowed in this context"].into_iter().any(has) {
        indentation(&lines, lines_before, &around, at)
    } else if has("'-' must be followed") {
        said("there is no space after the dash", "write `- name: cpu`")
    } else if has("comments must be separated") {
        said("`#` begins a comment only after a space", "write a space before it, or put the value in quotes")
    } else if has("escape") {
        said("a backslash in double quotes begins an escape that is not known", "write it as `\\\\`, or use single quotes")
    } else if has("unexpected character") {
        let character = here.chars().nth(usize::try_from(at.column).unwrap_or(usize::MAX).saturating_sub(1)).unwrap_or(' ');
        said(&format!("a value cannot begin with {character:?}"), "put the value in quotes")
    } else if has("unknown anchor") {
        said("`*` begins an alias, and nothing above has its anchor", "put the value in quotes, where no alias is meant")
    } else {
        Slip { span: at, reason: shorten(complaint), mend: None }
    }
}

type Found = (Span, String, String);

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn place(line: usize, column: usize, length: usize) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { line: number(line), column: number(column), length: number(length.max(1)) }
}

fn tab(lines: &[&str], around: &[usize]) -> Option<Found> {
    around.iter().find_map(|n| {
        let margin: String = lines[n - 1].chars().take_while(|c| c.is_whitespace()).collect();
        let column = margin.chars().position(|c| c == '\t')? + 1;
        Some((place(*n, column, 1), "a tab indents this line".to_owned(), "indent it with spaces: YAML takes no tabs there".to_owned()))
    })
}

/// The quote that is opened and not closed: on the nearest line, from the complaint upwards, that has an odd one.
fn quote(lines: &[&str], last: usize, at: Span) -> Found {
    let upwards = (1..=last).rev().find_map(|n| odd_quote(lines[n - 1]).map(|(column, mark)| (place(n, column, 1), mark)));
    match upwards {
        Some((span, mark)) => (span, "a quote is opened here and not closed".to_owned(), format!("write {mark} at the end of the value")),
        None => (
            at,
            "there is text after the closing quote".to_owned(),
            "put the whole value in quotes; within them write `''` for `'` in single quotes, `\\\"` for `\"` in double quotes".to_owned(),
        ),
    }
}

/// The column and the mark of a quote that begins a value on this line and does not end on it.
fn odd_quote(line: &str) -> Option<(usize, char)> {
    let mut open: Option<(usize, char)> = None;
    let mut before = ' ';
    for (i, c) in line.chars().enumerate() {
        match open {
            None if c == '#' && before == ' ' => return None,
            None if (c == '"' || c == '\'') && matches!(before, ' ' | '[' | '{' | ',') => open = Some((i + 1, c)),
            Some((_, mark)) if c == mark && !(mark == '"' && before == '\\') => open = None,
            _ => {}
        }
        before = c;
    }
    open
}

/// A field whose colon is not followed by a space: `replicas:3`.
fn colon(line: &str, number: usize) -> Option<Found> {
    let field = line.trim_start();
    let field = field.strip_prefix("- ").unwrap_or(field).trim_start();
    let (name, value) = field.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !is_name || value.is_empty() || value.starts_with([' ', '\t', '/', ':']) {
        return None;
    }
    let column = line.chars().count() - value.chars().count();
    Some((place(number, column, 1), "there is no space after the colon".to_owned(), format!("write `{name}: {}`", shorten(value.trim_end()))))
}

fn indentation(lines: &[&str], lines_before: usize, around: &[usize], at: Span) -> Slip {
    let margin = |n: usize| lines[n - 1].chars().take_while(|c| *c == ' ').count();
    let mend = "indent the fields of one map alike, and deeper than the field that they belong to";
    let (span, reason) = match *around {
        [here, above] if margin(here) != margin(above) => (
            place(here, margin(here) + 1, 1),
            format!(
                "the indentation does not fit: {} spaces here, {} on line {}, and no field above begins there",
                margin(here),
                margin(above),
                lines_before + above
            ),
        ),
        _ => (at, "the indentation does not fit the lines above".to_owned()),
    };
    Slip { span, reason, mend: Some(mend.to_owned()) }
}
