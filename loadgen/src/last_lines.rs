//! What a Loadline said last, for who started it and finds that it has ended.

use std::path::Path;

/// So many lines are shown.
const LAST_LINES: usize = 15;

/// The end of a log file, indented.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return "  (it is empty)".to_owned();
    }
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
