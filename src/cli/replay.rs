//! `loadline replay`: signals in, decisions out, by the very fold that runs live; and where another policy would have
//! decided otherwise.

mod compare;
mod difference;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::Unusable;
#[cfg(feature = "kafka")]
use super::connection::InstallationArgs;
use super::only::Only;
use crate::runtime::replay::{Caused, Replay};
use crate::stages::arbitrate::Arbitrate;
use crate::wire::jsonl::{self, StartState};

/// Replay signals: print every decision, one JSON object a line.
///
/// Reads the lines that `loadline export` writes, from a file or from standard input. With --policy it says instead where the
/// counts would have been others.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline export > signals.jsonl && loadline replay signals.jsonl
  loadline replay --target prod/Deployment/api signals.jsonl | jq -r .decision.reason
  my-simulator | loadline replay --follow        # answers each line, then {\"done\":LINE}
  loadline replay --policy new.yaml signals.jsonl
  loadline replay --policy new.yaml --data data --from 12:00:00 --output markdown --fail-above 10%
  loadline replay --policy new.yaml --brokers kafka-1:9092

Exit codes: 0 replayed, 1 a line or a policy could not be used, or --fail-above had nothing to compare, 2 bad usage, no such target, or unreadable file, 3 the difference is above --fail-above.")]
#[cfg_attr(feature = "kafka", command(
    mut_arg("brokers", |brokers| brokers.requires("policy").conflicts_with_all(["file", "data"])),
    mut_arg("config", |config| config.requires("policy").conflicts_with_all(["file", "data"])),
))]
pub struct ReplayArgs {
    /// The signals, as JSON lines; `-` or nothing reads standard input.
    file: Option<PathBuf>,
    /// After each input line, print everything it causes and then {"done":LINE}; answer claims by an
    /// arbiter of its own, and print the commands.
    #[arg(long)]
    follow: bool,
    /// Histories that targets start with: {"target":{"proposals":[{"replicas":5,"ageMs":120000}],"scaleEvents":[…]}}.
    #[arg(long, value_name = "STATE.json")]
    start: Option<PathBuf>,
    /// Print only the decisions of this target: its name, or its end where that is unique.
    #[arg(long)]
    target: Option<String>,
    /// Compare: the policies of this file in the place of the recorded ones; may be given several times.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["follow", "start"])]
    policy: Vec<PathBuf>,
    /// Read the log in this data directory, also while Loadline runs, in the place of lines.
    #[arg(long, value_name = "DIR", conflicts_with = "file", requires = "policy")]
    data: Option<PathBuf>,
    #[cfg(feature = "kafka")]
    #[command(flatten)]
    installation: InstallationArgs,
    /// Compare only what was appended at this time or later: 30m, 2h, 3d ago, RFC 3339, Unix milliseconds, or a time of the last
    /// 24 hours in UTC, as 12:03:20.
    #[arg(long, value_name = "TIME", requires = "policy")]
    from: Option<String>,
    /// How the comparison is printed.
    #[arg(long, value_enum, requires = "policy", default_value_t = compare::Format::Text)]
    output: compare::Format,
    /// Exit with 3 where the counts differ by more: so many replicas at any time (3), or so much of the recorded replica-hours (10%).
    #[arg(long, value_name = "DIFFERENCE", requires = "policy", value_parser = compare::Limit::parse)]
    fail_above: Option<compare::Limit>,
}

/// Runs it.
///
/// # Errors
/// Unreadable files, and the first line that cannot be used, with its number.
pub fn run(args: &ReplayArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    if !args.policy.is_empty() {
        return compare::run(args, out);
    }
    let mut replay = if args.follow { Replay::closed(Arbitrate::default()) } else { Replay::open() };
    if let Some(path) = &args.start {
        let text = std::fs::read_to_string(path).map_err(|error| Unusable(format!("failed to read {}: {error}", path.display())))?;
        let start = StartState::from_json(&text).with_context(|| format!("failed to read the start state {}", path.display()))?;
        for (target, start) in start.targets {
            let proposals = start.proposals.into_iter().map(|p| (p.age, p.replicas)).collect();
            let events = start.scale_events.into_iter().map(|e| (e.age, e.change)).collect();
            replay.start(target, proposals, events);
        }
    }
    let input: Box<dyn BufRead> = match &args.file {
        Some(path) if path.is_dir() => {
            return Err(Unusable(format!(
                "{0} is a directory: name a file of lines that `loadline export --data {0}` has written, or compare policies with --data {0} --policy FILE",
                path.display()
            ))
            .into());
        }
        Some(path) if path.as_os_str() != "-" => {
            Box::new(BufReader::new(File::open(path).map_err(|error| Unusable(format!("failed to open {}: {error}", path.display())))?))
        }
        _ => Box::new(BufReader::new(std::io::stdin())),
    };
    lines(&mut replay, input, args.follow, args.target.as_deref(), out, &mut std::io::stderr())
}

/// Replays the lines of `input`; what they cause goes to `out`, what a person should look at to `troubles`. The exit code.
///
/// # Errors
/// The first line that cannot be used, with its number; what cannot be read or written.
pub fn lines(replay: &mut Replay, input: impl BufRead, follow: bool, only: Option<&str>, out: &mut dyn Write, troubles: &mut dyn Write) -> anyhow::Result<u8> {
    let (mut troubled, mut only) = (false, Only::new(only));
    for (number, line) in (1_u64..).zip(input.lines()) {
        let line = line.with_context(|| format!("failed to read line {number}"))?;
        if !line.trim().is_empty() {
            let (at, partition, signal) = match jsonl::line_to_signal(&line) {
                Ok(read) => read,
                Err(error) => bail!("line {number} cannot be used: {error}"),
            };
            // One that nothing was decided about is there nevertheless.
            if let Some(target) = signal.target() {
                only.admits(target);
            }
            for caused in replay.signal(at, partition.unwrap_or(0), signal) {
                if let Caused::Trouble(alert) = &caused {
                    let of = alert.target.as_ref().map(ToString::to_string).unwrap_or_default();
                    writeln!(troubles, "line {number}: {of}: {} ({})", alert.message, alert.name)?;
                    troubled = true;
                    continue;
                }
                let target = match &caused {
                    Caused::Decision(c) => &c.target,
                    Caused::Request(c) => &c.target,
                    Caused::Grant(c) => &c.target,
                    Caused::Command(c) => &c.target,
                    Caused::Trouble(_) => continue,
                };
                if !only.admits(target) {
                    continue;
                }
                let line = match &caused {
                    Caused::Decision(decision) => jsonl::decision_to_line(at, decision),
                    Caused::Command(command) if follow => jsonl::command_to_line(at, command),
                    Caused::Grant(grant) if follow => jsonl::grant_to_line(at, grant),
                    Caused::Request(request) if follow => jsonl::request_to_line(at, request),
                    _ => continue,
                };
                writeln!(out, "{line}")?;
            }
        }
        if follow {
            writeln!(out, "{}", jsonl::done_line(number))?;
            out.flush()?;
        }
    }
    only.check()?;
    Ok(u8::from(troubled))
}
