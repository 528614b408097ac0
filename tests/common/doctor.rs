//! `loadline doctor` and `loadline run` on a directory that is damaged; and the check sums that a damage would not know.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use loadline::log::LogError;
use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::runtime::clock::SystemClock;
use serde_json::Value;

use crate::common::{LOADLINE, wait_for};

/// Opens a log that this process does not have open. A program that another test starts holds a copy of this process's locks
/// for the moment between its fork and its exec: that passes.
pub(crate) fn open(directory: &Path) -> Result<EmbeddedLog, LogError> {
    let ourselves = format!("process {} runs on", std::process::id());
    wait_for("the locks to be ours alone", || {
        let opened = EmbeddedLog::open(directory, Arc::new(SystemClock), Options::default());
        opened.as_ref().err().is_none_or(|error| !error.to_string().contains(&ourselves)).then_some(opened)
    })
}

pub(crate) fn refused(directory: &Path) -> String {
    open(directory).map(|_| ()).unwrap_err().to_string()
}

pub(crate) fn doctor(directory: &Path, flags: &[&str]) -> (i32, Value) {
    let output = Command::new(LOADLINE).arg("doctor").arg(directory).args(["--output", "json"]).args(flags).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&output.stderr).into_owned()));
    (output.status.code().unwrap(), answer)
}

/// What is wrong, each with its check.
pub(crate) fn wrong(answer: &Value) -> Vec<(String, String)> {
    let findings = answer["findings"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    findings.iter().filter(|finding| finding["state"] == "Wrong").map(|finding| (text(finding, "check"), text(finding, "says"))).collect()
}

/// The check sum of a row: CRC-32 of its table's name and its fields, each preceded by its length.
pub(crate) fn sum(fields: &[&[u8]]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    for field in fields {
        crc.update(&(field.len() as u64).to_le_bytes());
        crc.update(field);
    }
    i64::from(crc.finalize())
}

/// What `run` says of `home`; one that is not refused is ended, with its fleets, and has the exit code of `timeout`.
fn run(home: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", LOADLINE, "run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0", "--stop-fleets-on-exit"]);
    command.current_dir(home).env_remove("LOADLINE_CONFIG").output().unwrap()
}

/// That `run` refuses to start on `home`, and says all of `words`.
pub(crate) fn refuses_to_run(home: &Path, words: &[&str]) {
    let refused = run(home);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(!said.contains("ready:"), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in: {said}"));
}
