//! `loadline export`: the signals of a log as JSON lines.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::log::Topic;
use crate::log::embedded::EmbeddedLog;
use crate::model::{Message, Signal};
use crate::wire::{self, jsonl};

/// How many records are read at once.
const SLICE: usize = 1_000;

/// Export signals as JSON lines, for `loadline replay`. Works beside a running Loadline, and without one.
///
/// Exit codes: 0 exported, 2 no log there, or one that cannot be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline export --data data > signals.jsonl
  loadline export --target local/ProcessFleet/storefront | loadline replay")]
pub struct ExportArgs {
    /// The data directory of the Loadline to export from
    #[arg(long, value_name = "DIR", env = "LOADLINE_DATA", default_value = "data")]
    data: PathBuf,
    /// Only this target's signals, and those that concern every target
    #[arg(long)]
    target: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Where the log cannot be read or `out` cannot be written.
pub(super) fn run(args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let log = EmbeddedLog::open_read_only(&args.data).with_context(|| format!("failed to open the log in {}", args.data.display()))?;
    for partition in 0..log.partitions()?.of(Topic::Signals) {
        // What is appended from now on is left for the next export, or this one might never end.
        let range = log.range(Topic::Signals, partition)?;
        let (mut next, mut expected) = (range.start, range.start);
        while next < range.end {
            let slice = log.scan(Topic::Signals, partition, next, SLICE)?;
            let Some(last) = slice.last() else { break };
            next = last.offset + 1;
            for record in slice.into_iter().filter(|r| r.offset < range.end) {
                if record.offset > expected {
                    eprintln!("loadline: records {expected}..{} of partition {partition} are gone: a replay decides without them", record.offset);
                }
                expected = record.offset + 1;
                match wire::decode(Topic::Signals, &record.value) {
                    Ok(Message::Signal(signal)) if wanted(&signal, args.target.as_deref()) => {
                        writeln!(out, "{}", jsonl::signal_to_line(record.at, partition, &signal))?;
                    }
                    Ok(_) => {}
                    Err(error) => eprintln!("loadline: record {} of partition {partition} is left out: {error}", record.offset),
                }
            }
        }
    }
    Ok(0)
}

fn wanted(signal: &Signal, target: Option<&str>) -> bool {
    target.is_none_or(|wanted| signal.target().is_none_or(|t| t.as_str() == wanted))
}
