//! Each line that the program writes names its event, and the documentation names each event.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

#[path = "common/files.rs"]
mod files;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use files::files_below;

/// The code of every file, without tests and comments.
fn code() -> Vec<(PathBuf, String)> {
    let files = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "rs");
    assert!(files.len() > 100, "only {} files were found", files.len());
    let code = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        (file, code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n"))
    };
    files.into_iter().map(code).collect()
}

/// What stands behind each `error!(` and so on; behind `$level!(` in a macro that takes the level.
fn lines_written(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "$level!("] {
        for (at, _) in code.match_indices(level) {
            // `compile_error!(` is none of them.
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                found.push(code[at + level.len()..].trim_start());
            }
        }
    }
    found
}

fn event(line: &str) -> Option<&str> {
    line.strip_prefix("event = \"")?.split('"').next()
}

#[test]
fn each_line_names_its_event_first() {
    let mut nameless = Vec::new();
    for (file, code) in code() {
        // A macro that hands its level on to itself writes nothing there.
        let lines = lines_written(&code);
        nameless.extend(lines.into_iter().filter(|line| event(line).is_none()).map(|line| format!("{}: {}", file.display(), line.lines().next().unwrap())));
    }
    assert!(nameless.is_empty(), "lines without an event:\n{}", nameless.join("\n"));
}

#[test]
fn the_table_of_events_has_each_of_them_and_no_other() {
    let code = code();
    let written: BTreeSet<&str> = code.iter().flat_map(|(_, code)| lines_written(code)).filter_map(event).collect();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let (_, section) = page.split_once("\n## Log lines\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
    let named = rows.flat_map(|(events, _)| events.split(',').map(|event| event.trim().trim_matches('`')));
    assert_eq!(named.collect::<BTreeSet<_>>(), written);
}
