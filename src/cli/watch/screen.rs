//! Draws lines onto a terminal: only those that changed, each written over what was there, so that nothing flickers.

use std::io::{self, Write};

use crossterm::cursor::MoveTo;
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use unicode_width::UnicodeWidthChar;

/// What is on the terminal.
#[derive(Debug, Default)]
pub(super) struct Screen {
    shown: Vec<String>,
    size: (u16, u16),
}

impl Screen {
    /// Draws `lines`, as much of them as there is room for.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn draw(&mut self, out: &mut impl Write, lines: Vec<String>, width: u16, height: u16) -> io::Result<()> {
        let mut lines: Vec<String> = lines.into_iter().take(usize::from(height)).map(|line| fit(&line, usize::from(width))).collect();
        lines.resize_with(usize::from(height), || " ".repeat(usize::from(width)));
        let anew = self.size != (width, height);
        if !anew && lines == self.shown {
            return Ok(());
        }
        queue!(out, BeginSynchronizedUpdate)?;
        if anew {
            queue!(out, Clear(ClearType::All))?;
        }
        for (row, line) in (0..).zip(&lines) {
            if anew || self.shown.get(usize::from(row)) != Some(line) {
                queue!(out, MoveTo(0, row), Print(line))?;
            }
        }
        queue!(out, EndSynchronizedUpdate)?;
        (self.shown, self.size) = (lines, (width, height));
        Ok(())
    }
}

/// The line in exactly `width` columns: cut, with an ellipsis where something is missing, or filled up. Colour sequences
/// take no room and end with the line; other control characters, which could do anything to a terminal, become dots.
pub(super) fn fit(line: &str, width: usize) -> String {
    let (mut fitted, mut columns, mut coloured) = (String::with_capacity(line.len() + width), 0, false);
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(sequence) = super::super::table::colour_of(rest) {
            fitted.push_str(sequence);
            coloured = true;
            rest = &rest[sequence.len()..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        let c = if c.is_control() { '·' } else { c };
        let wide = c.width().unwrap_or(0);
        let more = super::super::table::seen(rest) > 0;
        if columns + wide > width || more && columns + wide >= width && width > 0 {
            if columns < width {
                fitted.push('…');
                columns += 1;
            }
            break;
        }
        fitted.push(c);
        columns += wide;
    }
    if coloured {
        fitted.push_str("\u{1b}[0m");
    }
    fitted.extend(std::iter::repeat_n(' ', width.saturating_sub(columns)));
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_or_filled_to_the_width() {
        for (line, width, fitted) in [
            ("abc", 5, "abc  "),
            ("abcde", 5, "abcde"),
            ("abcdef", 5, "abcd…"),
            ("", 3, "   "),
            ("日本語", 4, "日… "),
            ("日本", 4, "日本"),
            ("abc", 0, ""),
            ("a\tb\u{1b}]0;title\u{7}", 12, "a·b·]0;title"),
            ("\u{1b}[31mabc\u{1b}[0m", 5, "\u{1b}[31mabc\u{1b}[0m\u{1b}[0m  "),
            ("\u{1b}[31mabcdef\u{1b}[0m", 4, "\u{1b}[31mabc…\u{1b}[0m"),
        ] {
            assert_eq!(fit(line, width), fitted, "{line:?} in {width}");
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let (mut screen, mut out) = (Screen::default(), Vec::new());
        let lines = |second: &str| vec!["first".to_owned(), second.to_owned()];
        screen.draw(&mut out, lines("second"), 10, 3).unwrap();
        assert!(String::from_utf8_lossy(&out).contains("first"));
        out.clear();
        screen.draw(&mut out, lines("second"), 10, 3).unwrap();
        assert!(out.is_empty(), "nothing changed");
        screen.draw(&mut out, lines("third"), 10, 3).unwrap();
        let written = String::from_utf8_lossy(&out);
        assert!(written.contains("third") && !written.contains("first") && !written.contains("\u{1b}[2J"), "{written:?}");
        out.clear();
        screen.draw(&mut out, lines("third"), 8, 2).unwrap();
        assert!(String::from_utf8_lossy(&out).contains("\u{1b}[2J"), "another size is drawn anew");
    }
}
