//! `loadline export`: the signals of a log as JSON lines, of the one in a data directory or of the one on Kafka.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::log::embedded::EmbeddedLog;
#[cfg(feature = "kafka")]
use crate::log::kafka;
use crate::log::{ReadOnly, Topic};
use crate::model::{Message, Signal, Timestamp};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::schemas;
use crate::wire::{self, jsonl};

#[cfg(feature = "kafka")]
use super::connection::InstallationArgs;
use super::only::Only;
use super::why::moment;
use super::{Unusable, of_log};

/// How many records are read at once.
const SLICE: usize = 1_000;

/// Export signals as JSON lines, for `loadline replay`. Works beside a running Loadline, and without one.
///
/// With --brokers or --kafka-config the log on Kafka is read, else that of --data. Exit codes: 0 exported, 2 no log there, one that cannot be read, or no such target.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline export --data data > signals.jsonl
  loadline export --from 2026-03-01T12:00:00Z > signals.jsonl
  loadline export --target local/ProcessFleet/storefront | loadline replay
  loadline export --brokers kafka-1:9092 > signals.jsonl")]
pub struct ExportArgs {
    /// The data directory of the Loadline to export from
    #[arg(long, value_name = "DIR", env = "LOADLINE_DATA", default_value = "data")]
    data: PathBuf,
    #[cfg(feature = "kafka")]
    #[command(flatten)]
    installation: InstallationArgs,
    /// Only this target's signals, and those that concern every target: its name, or its end where that is unique
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
    let from = args.from.as_deref().map(|text| since(text, SystemClock.now())).transpose()?;
    let source = Source::Directory(args.data.clone());
    #[cfg(feature = "kafka")]
    let source = args.installation.options()?.map_or(source, Source::on_kafka);
    let mut only = Only::new(args.target.as_deref());
    each_signal(&source, from, &mut |at, partition, signal| {
        if signal.target().is_none_or(|target| only.admits(target)) {
            writeln!(out, "{}", jsonl::signal_to_line(at, partition, &signal))?;
        }
        Ok(())
    })?;
    only.check()?;
    Ok(0)
}

/// The time of `--from`, which somebody may take for the place.
pub(super) fn since(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if text.eq_ignore_ascii_case("kafka") {
        let hint = format!("--from {text}: it is a time; the log on Kafka is named by --brokers HOST:PORT or --kafka-config FILE, in its place");
        return Err(Unusable(hint).into());
    }
    moment("from", text, now)
}

/// Where signals stand.
pub(super) enum Source {
    /// In the log of this data directory.
    Directory(PathBuf),
    /// In an installation's topics.
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Options>),
}

impl Source {
    #[cfg(feature = "kafka")]
    pub(super) fn on_kafka(options: kafka::Options) -> Source {
        Source::Kafka(Box::new(options))
    }

    fn open(&self) -> anyhow::Result<Box<dyn ReadOnly>> {
        let log: Box<dyn ReadOnly> = match self {
            Source::Directory(data) => Box::new(EmbeddedLog::open_read_only(data).with_context(|| format!("failed to open the log in {}", data.display()))?),
            #[cfg(feature = "kafka")]
            Source::Kafka(options) => Box::new(kafka::ReadOnlyLog::open(options).map_err(of_log)?),
        };
        // Where that topic is not there, or may not be read, only what another release wrote is left out, record by record; of what is asked for itself it is said.
        if log.partitions(Topic::Schemas).is_ok() {
            schemas::learn(&*log).map_err(of_log)?;
        }
        Ok(log)
    }
}

/// Hands over every signal of a log, by partition; what is missing or cannot be read is told on standard error.
///
/// # Errors
/// Where the log cannot be read, and those of `each`.
pub(super) fn each_signal(source: &Source, from: Option<Timestamp>, each: &mut dyn FnMut(Timestamp, u32, Signal) -> anyhow::Result<()>) -> anyhow::Result<()> {
    signals_of(&*source.open()?, from, each, &mut |line| super::tell(&line))
}

fn signals_of(
    log: &dyn ReadOnly,
    from: Option<Timestamp>,
    each: &mut dyn FnMut(Timestamp, u32, Signal) -> anyhow::Result<()>,
    told: &mut dyn FnMut(String),
) -> anyhow::Result<()> {
    let partitions = log.partitions(Topic::Signals).map_err(of_log)?;
    // What is appended from now on is left for the next export, or this one might never end.
    let ranges = (0..partitions).map(|partition| log.range(Topic::Signals, partition)).collect::<Result<Vec<_>, _>>().map_err(of_log)?;
    for (partition, range) in (0..).zip(ranges) {
        // Retention may remove more while this reads.
        let (mut next, mut expected) = (0, 0);
        while next < range.end {
            let slice = log.scan(Topic::Signals, partition, next, SLICE).map_err(of_log)?;
            let (Some(first), Some(last)) = (slice.first(), slice.last()) else { break };
            // Of a log that leaves offsets empty only where it begins by now tells what is gone.
            let begins = if log.leaves_gaps() && first.offset > next { log.range(Topic::Signals, partition).map_err(of_log)?.start } else { 0 };
            next = last.offset + 1;
            for record in slice.into_iter().filter(|r| r.offset < range.end) {
                let (offset, at) = (record.offset, record.at);
                // What a client held already when retention came is there still.
                let lost = offset > expected && (!log.leaves_gaps() || (expected < begins && begins <= offset));
                if lost && from.is_none_or(|from| from < at) {
                    if expected == 0 {
                        told(format!("loadline: signals 0..{offset} of partition {partition} are left out: retention has removed them; they go on at {at}"));
                    } else {
                        told(format!("loadline: records {expected}..{offset} of partition {partition} are gone: a replay decides without them"));
                    }
                }
                expected = offset + 1;
                if from.is_some_and(|from| at < from) {
                    continue;
                }
                match wire::decode(Topic::Signals, &record.value) {
                    Ok(Message::Signal(signal)) => each(record.at, partition, signal)?,
                    Ok(_) => {}
                    Err(error) => told(format!("loadline: record {} of partition {partition} is left out: {error}", record.offset)),
                }
            }
        }
        if expected == 0 && range.start > 0 {
            told(format!("loadline: signals 0..{} of partition {partition} are left out: retention has removed them, and none came later", range.end));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{Log, LogError, Offset, Partitions, RawAppend, RawRecord};
    use crate::model::Tick;
    use crate::runtime::clock::ManualClock;

    /// Retention overtakes whoever exports: what it took is told, and an offset that is empty is none of it.
    #[test]
    fn what_goes_while_it_is_exported_is_told() {
        let memory = || MemoryLog::new(Partitions::default(), Arc::new(ManualClock::default()));
        for log in [memory(), memory().with_markers()] {
            let tick = RawAppend { topic: Topic::Signals, partition: 0, key: None, value: wire::encode(&Message::Signal(Signal::Tick(Tick {}))) };
            for _ in 0..2 * SLICE {
                log.append(vec![tick.clone()]).unwrap();
            }
            let end = Log::range(&log, Topic::Signals, 0).unwrap().end;
            let export = |trims: Offset| {
                let (mut count, mut told, mut after) = (0, Vec::new(), trims);
                let each = &mut |_, _, _| {
                    count += 1;
                    log.trim(Topic::Signals, 0, std::mem::take(&mut after)).unwrap();
                    Ok(())
                };
                signals_of(&log, None, each, &mut |line| told.push(line)).unwrap();
                (count, told)
            };
            assert_eq!(export(0), (2 * SLICE, Vec::new()), "nothing is gone");
            let (count, told) = export(end - 10);
            let [line] = &told[..] else { panic!("{told:?}") };
            assert!(SLICE < count && count < 2 * SLICE && line.contains(" of partition 0 are gone: a replay decides without them"), "{count}: {line}");
            let (_, told) = export(0);
            let [line] = &told[..] else { panic!("{told:?}") };
            assert!(
                line.starts_with("loadline: signals 0..") && line.contains(" of partition 0 are left out: retention has removed them; they go on at "),
                "{line}"
            );
        }
    }

    /// Of a log whose beginning runs ahead of what its client has.
    struct Prefetched(MemoryLog);

    impl ReadOnly for Prefetched {
        fn partitions(&self, _: Topic) -> Result<u32, LogError> {
            Ok(1)
        }

        fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<Offset>, LogError> {
            let end = Log::range(&self.0, topic, partition)?.end;
            Ok(end..end)
        }

        fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
            Log::scan(&self.0, topic, partition, from, max)
        }

        fn leaves_gaps(&self) -> bool {
            true
        }
    }

    #[test]
    fn what_a_client_has_already_is_not_told_to_be_gone() {
        let log = MemoryLog::new(Partitions::default(), Arc::new(ManualClock::default())).with_markers();
        for _ in 0..2 * SLICE {
            let value = wire::encode(&Message::Signal(Signal::Tick(Tick {})));
            log.append(vec![RawAppend { topic: Topic::Signals, partition: 0, key: None, value }]).unwrap();
        }
        let (mut count, mut told) = (0, Vec::new());
        let each = &mut |_, _, _| {
            count += 1;
            Ok(())
        };
        signals_of(&Prefetched(log), None, each, &mut |line| told.push(line)).unwrap();
        assert_eq!((count, told), (2 * SLICE, Vec::new()));
    }
}
