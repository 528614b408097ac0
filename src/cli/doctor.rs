//! `loadline doctor`: what is wrong with a data directory, what is lost, and what can be mended.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::backup::manifest;
use super::{Output, Paint, Unusable};
use crate::log::embedded::{Mending, mend};
use crate::runtime::clock::{Clock, SystemClock};

mod checks;
mod progress;

pub(super) use checks::check;

/// Check a data directory: what is wrong, what is lost, and the way out.
///
/// Changes nothing, and works beside a running Loadline too. With --mend it puts a log in its place that has all
/// that can still be read, and keeps the old one beside it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline doctor /var/lib/loadline
  loadline doctor /var/lib/loadline --mend
  loadline doctor /backup/loadline --output json | jq '.findings[] | select(.state == \"Wrong\")'

Exit codes: 0 all is well, 1 something is wrong (with --mend: still), 2 it cannot be checked.")]
pub struct DoctorArgs {
    /// The data directory, or a backup of one
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Mend what can be mended, with nothing running there; the old log is kept as log.db.before-mend-TIME
    #[arg(long)]
    mend: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Wrong.
    Wrong,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked.
    pub(super) check: &'static str,
    /// How it stands.
    pub(super) state: State,
    /// What is there, or what is wrong and what is lost.
    pub(super) says: String,
    /// The way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

/// What all checks found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Report {
    /// In the order of the checks.
    pub(super) findings: Vec<Finding>,
    /// Snapshots that cannot be used: group and partition.
    #[serde(skip)]
    pub(super) unusable_states: Vec<(String, u32)>,
    /// Whether the positions are older than the snapshots.
    #[serde(skip)]
    pub(super) positions_are_older: bool,
    /// Whether `--mend` changes anything for the better.
    #[serde(skip)]
    pub(super) mendable: bool,
}

impl Report {
    /// Says how it stands.
    fn say(&mut self, check: &'static str, state: State, says: impl Into<String>) {
        self.findings.push(Finding { check, state, says: says.into(), mend: None });
    }

    /// Says what is wrong and that it can be mended.
    fn mendable(&mut self, check: &'static str, says: impl Into<String>, mend: impl Into<String>) {
        self.mendable = true;
        self.findings.push(Finding { check, state: State::Wrong, says: says.into(), mend: Some(mend.into()) });
    }

    /// Says what is wrong, and what people can do: --mend cannot.
    fn wrong(&mut self, check: &'static str, says: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding { check, state: State::Wrong, says: says.into(), mend: Some(mend.into()) });
    }

    /// Whether nothing is wrong.
    pub(super) fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.state != State::Wrong)
    }
}

/// Runs it.
///
/// # Errors
/// Where the directory cannot be checked or mended, or `out` cannot be written.
pub fn run(args: &DoctorArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    if !args.directory.is_dir() {
        return Err(Unusable(format!("there is no directory {}", args.directory.display())).into());
    }
    let mut report = check(&args.directory)?;
    let is_backup = manifest::is_backup(&args.directory);
    let mut aside = None;
    if args.mend && report.mendable {
        if args.output == Output::Text {
            write(out, &report)?;
        }
        if is_backup {
            let unmended = |error| Unusable(format!("{} is left as it is, as it would be no backup any more: {error}", args.directory.display()));
            manifest::check_known(&args.directory).map_err(unmended)?;
        }
        let groups = checks::GROUPS.to_vec();
        let drop_states = std::mem::take(&mut report.unusable_states);
        let mending = Mending { drop_states, groups, positions_are_older: report.positions_are_older };
        aside = Some(mend(&args.directory, &mending, SystemClock.now())?);
        if is_backup {
            // It is one still: with the log as it is now, and all else as it was.
            manifest::renew_log(&args.directory).with_context(|| format!("failed to write down the mended log in {}", args.directory.display()))?;
        }
        report = check(&args.directory)?;
    }
    match (args.output, &aside) {
        (Output::Json, _) => {
            let answer = serde_json::json!({
                "directory": args.directory, "healthy": report.is_healthy(), "mended": aside.is_some(), "before": aside, "findings": report.findings,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
        }
        (Output::Text, Some(aside)) => {
            writeln!(out, "\nMended. The log as it was is {}: keep it until you are sure. Now:\n", aside.display())?;
            write(out, &report)?;
        }
        (Output::Text, None) => {
            write(out, &report)?;
            let last = match (report.is_healthy(), report.mendable, args.mend) {
                (true, _, _) => "\nNothing is wrong.",
                (false, true, _) => "\nStop what runs there, then `loadline doctor DIR --mend` mends what can be mended; the log as it is is kept.",
                (false, false, true) => "\nNothing was changed: nothing of this can be mended here.",
                (false, false, false) => "\nNothing of this can be mended by --mend: see above for the way out.",
            };
            writeln!(out, "{last}")?;
        }
    }
    Ok(u8::from(!report.is_healthy()))
}

fn write(out: &mut dyn Write, report: &Report) -> std::io::Result<()> {
    let paint = Paint::for_stdout();
    for Finding { check, state, says, mend } in &report.findings {
        let word = match state {
            State::Ok => paint.green("ok   "),
            State::Note => paint.yellow("note "),
            State::Wrong => paint.red("WRONG"),
        };
        writeln!(out, "{word}  {check:<10} {says}")?;
        if let Some(mend) = mend {
            writeln!(out, "       {:<10} → {mend}", "")?;
        }
    }
    Ok(())
}
