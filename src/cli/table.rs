//! Calm tables: columns as wide as they must be, two spaces between them, no lines.

use std::io::{self, Write};

use unicode_width::UnicodeWidthChar;

/// Writes a table. Cells may hold what [`super::Paint`] made of them: width counts what is seen.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table: Vec<Vec<String>> = vec![header.iter().map(|&h| h.to_owned()).collect()];
    table.extend(rows);
    let widths: Vec<usize> = (0..header.len()).map(|c| table.iter().filter_map(|row| row.get(c)).map(|cell| seen(cell)).max().unwrap_or(0)).collect();
    for row in table {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(seen(cell)) + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
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
