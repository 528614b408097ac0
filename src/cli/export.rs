//! `loadline export`: the signals of a log as JSON lines.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::log::Topic;
use crate::log::embedded::EmbeddedLog;
use crate::model::{Message, Signal, Timestamp};
use crate::runtime::clock::{Clock, SystemClock};
use crate::wire::{self, jsonl};

use super::why::moment;

/// How many records are read at once.
const SLICE: usize = 1_000;

/// Export signals as JSON lines, for `loadline replay`. Works beside a running Loadline, and without one.
///
/// Exit codes: 0 exported, 2 no log there, or one that cannot be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline export --data data > signals.jsonl
  loadline export --from 2026-03-01T12:00:00Z > signals.jsonl
  loadline export --target local/ProcessFleet/storefront | loadline replay")]
pub struct ExportArgs {
    /// The data directory of the Loadline to export from
    #[arg(long, value_name = "DIR", env = "LOADLINE_DATA", default_value = "data")]
    data: PathBuf,
    /// Only this target's signals, and those that concern every target
    #[arg(long)]
    target: Option<String>,
    /// Only what was appended at this time or later: 30m, 2h, 3d ago, RFC 3339, Unix milliseconds, or a time of the last 24 hours in UTC, as 12:03:20
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Where the log cannot be read or `out` cannot be written.
pub(super) fn run(args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let from = args.from.as_deref().map(|text| moment("from", text, SystemClock.now())).transpose()?;
    each_signal(&args.data, from, &mut |at, partition, signal| {
        if wanted(&signal, args.target.as_deref()) {
            writeln!(out, "{}", jsonl::signal_to_line(at, partition, &signal))?;
        }
        Ok(())
    })?;
    Ok(0)
}

/// Hands over every signal of the log in `data`, by partition; what is missing or cannot be read is told on standard error.
///
/// # Errors
/// Where the log cannot be read, and those of `each`.
pub(super) fn each_signal(data: &Path, from: Option<Timestamp>, each: &mut dyn FnMut(Timestamp, u32, Signal) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let log = EmbeddedLog::open_read_only(data).with_context(|| format!("failed to open the log in {}", data.display()))?;
    for partition in 0..log.partitions()?.of(Topic::Signals) {
        // What is appended from now on is left for the next export, or this one might never end.
        let range = log.range(Topic::Signals, partition)?;
        // Retention may remove more while this reads.
        let (mut next, mut expected) = (0, 0);
        while next < range.end {
            let slice = log.scan(Topic::Signals, partition, next, SLICE)?;
            let Some(last) = slice.last() else { break };
            next = last.offset + 1;
            for record in slice.into_iter().filter(|r| r.offset < range.end) {
                let (offset, at) = (record.offset, record.at);
                if offset > expected && from.is_none_or(|from| from < at) {
                    if expected == 0 {
                        super::tell(&format!(
                            "loadline: signals 0..{offset} of partition {partition} are left out: retention has removed them; they go on at {at}"
                        ));
                    } else {
                        super::tell(&format!("loadline: records {expected}..{offset} of partition {partition} are gone: a replay decides without them"));
                    }
                }
                expected = offset + 1;
                if from.is_some_and(|from| at < from) {
                    continue;
                }
                match wire::decode(Topic::Signals, &record.value) {
                    Ok(Message::Signal(signal)) => each(record.at, partition, signal)?,
                    Ok(_) => {}
                    Err(error) => super::tell(&format!("loadline: record {} of partition {partition} is left out: {error}", record.offset)),
                }
            }
        }
    }
    Ok(())
}

fn wanted(signal: &Signal, target: Option<&str>) -> bool {
    target.is_none_or(|wanted| signal.target().is_none_or(|t| t.as_str() == wanted))
}
