//! The pure part stays pure: no clock, no I/O, nothing that waits, no order that differs between runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

#[path = "common/files.rs"]
mod files;

use std::path::Path;

use files::files_below;

/// What may not stand in `model` and `stages`, and why.
const FORBIDDEN: [(&str, &str); 17] = [
    ("std::fs", "files are the edge's"),
    ("std::net", "sockets are the edge's"),
    ("std::env", "the environment is the configuration's"),
    ("std::process", "processes are the edge's"),
    ("std::thread", "the runtime alone has threads"),
    ("Instant", "time comes with the input"),
    ("SystemTime", "time comes with the input"),
    ("std::io", "bytes are the wire's"),
    ("tokio", "nothing waits"),
    ("rusqlite", "the log is behind its port"),
    ("HashMap", "its order differs between runs"),
    ("HashSet", "its order differs between runs"),
    ("RandomState", "its hash differs between runs"),
    ("crate::wire", "dependencies point one way"),
    ("crate::cli", "dependencies point one way"),
    ("crate::edge", "dependencies point one way"),
    ("crate::runtime", "dependencies point one way"),
];

#[test]
fn model_and_stages_are_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![root.join("model.rs"), root.join("stages.rs")];
    files.extend(["model", "stages"].iter().flat_map(|folder| files_below(&root.join(folder), "rs")));
    assert!(files.len() > 30, "only {} files were found", files.len());
    let (mut found, mut lines) = (Vec::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests stand at the end of a file, or in files of their own.
        if file.file_stem().is_some_and(|name| name == "tests" || name == "properties" || name == "conformance") {
            continue;
        }
        // A module of tests in a file of its own is declared further up: only one with a body ends the code.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        lines += code.lines().count();
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.split("//").next().unwrap_or_default();
            for (word, why) in FORBIDDEN {
                if line.contains(word) {
                    found.push(format!("{}:{number}: {word}: {why}", file.display()));
                }
            }
        }
    }
    assert!(lines > 6_000, "only {lines} lines were looked at");
    assert!(found.is_empty(), "in the pure part:\n{}", found.join("\n"));
}
