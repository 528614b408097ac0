//! The pure part stays pure: no clock, no I/O, nothing that waits, no order that differs between runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::path::{Path, PathBuf};

/// What may not stand in `model` and `stages`, and why.
const FORBIDDEN: [(&str, &str); 14] = [
    ("std::fs", "files are the edge's"),
    ("std::net", "sockets are the edge's"),
    ("std::env", "the environment is the configuration's"),
    ("std::process", "processes are the edge's"),
    ("std::thread", "the runtime alone has threads"),
    ("std::time::Instant", "time comes with the input"),
    ("std::time::SystemTime", "time comes with the input"),
    ("tokio", "nothing waits"),
    ("rusqlite", "the log is behind its port"),
    ("HashMap", "its order differs between runs"),
    ("HashSet", "its order differs between runs"),
    ("RandomState", "its hash differs between runs"),
    ("crate::edge", "dependencies point one way"),
    ("crate::runtime", "dependencies point one way"),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn model_and_stages_are_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![root.join("model.rs"), root.join("stages.rs")];
    sources(&root.join("model"), &mut files);
    sources(&root.join("stages"), &mut files);
    assert!(files.len() > 30, "only {} files were found", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests stand at the end of a file, or in files of their own.
        if file.file_stem().is_some_and(|name| name == "tests" || name == "properties" || name == "conformance") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.split("//").next().unwrap_or_default();
            for (word, why) in FORBIDDEN {
                if line.contains(word) {
                    found.push(format!("{}:{number}: {word}: {why}", file.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "in the pure part:\n{}", found.join("\n"));
}
