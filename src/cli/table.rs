//! Calm tables: columns as wide as they must be, two spaces between them, no lines.

use std::io::{self, Write};

use unicode_width::UnicodeWidthChar;

/// A last column gets at least so many columns beside the others; where there are fewer, it has lines of its own.
const LEAST_LAST: usize = 24;

/// Writes a table. Cells may hold what [`super::Paint`] made of them: width counts what is seen.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    write_within(out, header, rows, usize::MAX)
}

/// As [`write`], and the last column, which is a text, is broken between words into lines that end within `width`.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_within(out: &mut dyn Write, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, width: usize) -> io::Result<()> {
    let mut table: Vec<Vec<String>> = vec![header.iter().map(|&h| h.to_owned()).collect()];
    table.extend(rows);
    let widths: Vec<usize> = (0..header.len()).map(|c| table.iter().filter_map(|row| row.get(c)).map(|cell| seen(cell)).max().unwrap_or(0)).collect();
    let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
    for mut row in table {
        let last = if row.len() == header.len() { row.pop().unwrap_or_default() } else { String::new() };
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(seen(cell)) + 2));
        }
        let (indent, mut told) = match width.checked_sub(before).filter(|left| *left >= LEAST_LAST) {
            Some(left) => (before, wrapped(&last, left).into_iter()),
            None if before + seen(&last) <= width => (before, vec![last].into_iter()),
            None => {
                writeln!(out, "{}", line.trim_end())?;
                "    ".clone_into(&mut line);
                (4, wrapped(&last, width.saturating_sub(4)).into_iter())
            }
        };
        line += &told.next().unwrap_or_default();
        writeln!(out, "{}", line.trim_end())?;
        for line in told {
            writeln!(out, "{:indent$}{line}", "")?;
        }
    }
    Ok(())
}

/// A text in lines of at most `width` columns, broken between words, and within one only where it is longer than a line. Colours go on from line
/// to line; each line ends without one.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let (mut columns, mut colour) = (0, String::new());
    for word in text.split_inclusive(' ') {
        let bare = word.trim_end_matches(' ');
        if columns > 0 && columns + seen(bare) > width {
            broken(&mut lines, &colour);
            columns = 0;
        }
        let mut rest = word;
        while let Some(c) = rest.chars().next() {
            if let Some(sequence) = colour_of(rest) {
                colour = if sequence == RESET { String::new() } else { colour + sequence };
                push(&mut lines, sequence);
                rest = &rest[sequence.len()..];
                continue;
            }
            let (letter, after) = rest.split_at(c.len_utf8());
            rest = after;
            let wide = c.width().unwrap_or(0);
            if columns + wide > width {
                if c == ' ' {
                    continue;
                }
                broken(&mut lines, &colour);
                columns = 0;
            }
            push(&mut lines, letter);
            columns += wide;
        }
    }
    if let Some(last) = lines.last_mut() {
        last.truncate(last.trim_end_matches(' ').len());
    }
    lines
}

const RESET: &str = "\u{1b}[0m";

fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// Ends a line, and goes on in the next one in the same colour.
fn broken(lines: &mut Vec<String>, colour: &str) {
    if let Some(line) = lines.last_mut() {
        line.truncate(line.trim_end_matches(' ').len());
        if !colour.is_empty() {
            line.push_str(RESET);
        }
    }
    lines.push(colour.to_owned());
}

/// The colour sequence with which a text begins.
pub(super) fn colour_of(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..].starts_with('m').then(|| &text[..end + 3])
}

/// How many columns of a terminal a text takes: colour sequences take none.
pub(super) fn seen(text: &str) -> usize {
    let mut columns = 0;
    let mut hidden = false;
    for c in text.chars() {
        match (hidden, c) {
            (false, '\u{1b}') => hidden = true,
            (true, 'm') => hidden = false,
            (true, _) => {}
            (false, _) => columns += c.width().unwrap_or(0),
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_between_words() {
        assert_eq!(wrapped("cpu 84 % asks for 8", 8), ["cpu 84 %", "asks for", "8"]);
        assert_eq!(wrapped("an unbreakable one", 6), ["an", "unbrea", "kable", "one"]);
        assert_eq!(wrapped("two  blanks", 80), ["two  blanks"]);
        assert_eq!(wrapped("", 80), [""]);
        assert_eq!(wrapped("\u{1b}[31mred word\u{1b}[0m plain", 5), ["\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mword\u{1b}[0m", "plain"]);
    }

    #[test]
    fn the_last_column_is_broken_into_the_width() {
        let told = |width| {
            let mut out = Vec::new();
            let row = vec!["Stabilize".to_owned(), "10 → 12".to_owned(), "the least of the last 300 s was 12 replicas".to_owned()];
            write_within(&mut out, &["STEP", "REPLICAS", "WHY"], [row], width).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(46), "STEP       REPLICAS  WHY\nStabilize  10 → 12   the least of the last 300\n                     s was 12 replicas\n");
        assert!(told(200).ends_with("10 → 12   the least of the last 300 s was 12 replicas\n"));
        assert_eq!(told(34).lines().last(), Some("    was 12 replicas"), "{}", told(34));
        assert!(told(34).lines().all(|line| seen(line) <= 34));
    }
}
