//! `loadgen chaos`: 8 faults in every `make test`, each kind among them, 120 in `make soak`, which are more than 100 `kill -9`, `LOADLINE_FAULTS` where it is set, drawn from `LOADLINE_SEED`; and a rolling restart.
//! All that must hold is checked by the command itself.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One at a time: how soon the pipeline is current is held against a bound.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs it with a directory of this name, which is kept where something does not hold.
fn chaos(name: &str, arguments: &[String]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let loadgen = Path::new(env!("CARGO_BIN_EXE_loadgen"));
    let loadline = loadgen.with_file_name("loadline");
    assert!(loadline.exists(), "{} is what is killed: cargo build -p loadline", loadline.display());
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{name}"));
    let (said, says) = std::io::pipe().unwrap();
    let mut command = Command::new(loadgen);
    command.arg("chaos").args(arguments).arg("--loadline").arg(loadline).arg("--data").arg(&data);
    command.stdout(says.try_clone().unwrap()).stderr(says);
    let mut child = command.spawn().unwrap();
    // It holds the other end of the pipe.
    drop(command);
    BufReader::new(said).lines().map_while(Result::ok).for_each(|line| println!("{line}"));
    assert!(child.wait().unwrap().success(), "see above, and {}", data.display());
    std::fs::remove_dir_all(data).unwrap();
}

#[test]
fn whatever_is_killed_and_stopped_nothing_is_lost_doubled_or_decided_otherwise() {
    let set = |name: &str| std::env::var(name).ok();
    let faults = set("LOADLINE_FAULTS").unwrap_or_else(|| if set("LOADLINE_SOAK").as_deref() == Some("1") { "120" } else { "8" }.to_owned());
    let seed = set("LOADLINE_SEED").map(|seed| ["--seed".to_owned(), seed]);
    chaos("faults", &[vec!["--faults".to_owned(), faults], seed.into_iter().flatten().collect()].concat());
}

#[test]
fn a_rolling_restart_under_load_changes_no_decision() {
    chaos("rolling-restart", &["--rolling-restart".to_owned()]);
}
