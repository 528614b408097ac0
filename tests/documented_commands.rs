//! Every command block of `docs/policy.md` does what the page shows.
//!
//! A `yaml` block whose first line is `# NAME.yaml` is a file; a `console` block has commands, each after `$ `, with what they print
//! below them; a line `...` stands for any number of lines. `DOCS=write cargo test --test documented_commands` writes what they print
//! into the page (but where there is a `...`), whose difference is then read as code is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use loadline::wire::jsonl;

const LOADLINE: &str = env!("CARGO_BIN_EXE_loadline");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `signals.jsonl` is in the page: the signals of a recorded story.
fn history() -> String {
    let trace = std::fs::read_to_string(root().join("tests/golden/cooldown.jsonl")).unwrap();
    trace.lines().filter(|line| jsonl::line_to_signal(line).is_ok()).flat_map(|line| [line, "\n"]).collect()
}

/// What a command prints, standard error after standard output.
fn run(command: &str, folder: &Path) -> String {
    let path = std::env::join_paths(
        std::iter::once(PathBuf::from(LOADLINE).parent().unwrap().to_path_buf()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let output = Command::new("sh").args(["-c", command]).current_dir(folder).env("PATH", path).env_remove("LOADLINE_CONFIG").output().unwrap();
    format!("{}{}", String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Whether lines are as expected, where `...` stands for any number of them.
fn fits(expected: &[&str], actual: &[&str]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((&"...", rest)) => (0..=actual.len()).any(|skipped| fits(rest, &actual[skipped..])),
        Some((first, rest)) => actual.first().is_some_and(|line| line.trim_end() == first.trim_end()) && fits(rest, &actual[1..]),
    }
}

#[test]
fn the_commands_of_the_policy_page_print_what_it_shows() {
    let page = root().join("docs/policy.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("signals.jsonl"), history()).unwrap();
    let (mut written, mut commands, mut wrong) = (String::new(), 0, Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        written.push_str(line);
        written.push('\n');
        let Some(kind) = line.strip_prefix("```").filter(|kind| ["yaml", "console"].contains(kind)) else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut shown: Vec<String> = Vec::new();
        if kind == "yaml" {
            if let Some(name) = block
                .first()
                .and_then(|first| first.strip_prefix("# "))
                .filter(|name| Path::new(name).extension().is_some_and(|e| e == "yaml") && !name.contains(' '))
            {
                std::fs::write(folder.path().join(name), block.join("\n") + "\n").unwrap();
            }
            shown.extend(block.iter().map(|line| (*line).to_owned()));
        } else {
            let mut rest = &block[..];
            while let Some((command, after)) = rest.split_first() {
                let end = after.iter().position(|line| line.starts_with("$ ")).unwrap_or(after.len());
                let (expected, next) = after.split_at(end);
                let printed = run(command.strip_prefix("$ ").unwrap_or_else(|| panic!("{command} is no command")), folder.path());
                let actual: Vec<&str> = printed.lines().collect();
                commands += 1;
                shown.push((*command).to_owned());
                if fits(expected, &actual) || expected.contains(&"...") {
                    shown.extend(expected.iter().map(|line| (*line).to_owned()));
                } else {
                    shown.extend(actual.iter().map(|line| line.trim_end().to_owned()));
                }
                if !fits(expected, &actual) {
                    wrong.push(format!("{command}\n--- the page shows\n{}\n--- it prints\n{printed}", expected.join("\n")));
                }
                rest = next;
            }
        }
        written.push_str(&shown.join("\n"));
        written.push_str("\n```\n");
    }
    if std::env::var_os("DOCS").is_some_and(|v| v == "write") {
        std::fs::write(&page, written).unwrap();
    }
    assert!(commands >= 8, "only {commands} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
