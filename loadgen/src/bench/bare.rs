//! The bare client over the same records: a process of its own, so that its processor time is all of its threads' and nobody else's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use loadline::log::kafka::reading;
use loadline::log::{Log as _, Topic};
use loadline::runtime::clock::Stopwatch;
use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset as At, TopicPartitionList};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::cluster::{Installation, consumer};
use super::process::PATIENCE;

/// How long a poll waits.
const SLICE: Duration = Duration::from_millis(100);

/// What the child is told.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many partitions it has; each is read from its beginning.
    #[arg(long)]
    partitions: i32,
    /// How many records there are.
    #[arg(long)]
    records: u64,
    /// A file with the settings of the client, as JSON.
    #[arg(long)]
    settings: std::path::PathBuf,
}

/// What it took.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Took {
    records: u64,
    bytes: u64,
    /// From the first record to the last.
    seconds: f64,
    /// Of the whole process, from its start on.
    processor_seconds: f64,
}

impl Took {
    /// Processor time for one record.
    pub(super) fn micros_a_record(&self) -> f64 {
        self.processor_seconds * 1e6 / self.records as f64
    }

    /// Records a second.
    pub(super) fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// Reads what stands on `metrics`, in a child.
pub(super) fn measure(installation: &Installation<'_>, records: u64) -> anyhow::Result<Took> {
    let settings = installation.home("bare.json");
    std::fs::create_dir_all(settings.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(&settings, serde_json::to_vec(&reading(&installation.options)?)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "bare-consumer", "--topic", &installation.topic(Topic::Metrics), "--records", &records.to_string()]);
    command.args(["--partitions", &installation.log.partitions(Topic::Metrics).to_string(), "--settings"]).arg(settings);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the bare consumer ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("what the bare consumer printed")
}

/// The child.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let settings: BTreeMap<String, String> = serde_json::from_slice(&std::fs::read(&arguments.settings)?)?;
    let consumer = consumer(&settings)?;
    let mut places = TopicPartitionList::new();
    for partition in 0..arguments.partitions {
        places.add_partition_offset(&arguments.topic, partition, At::Beginning)?;
    }
    consumer.assign(&places)?;
    let (mut records, mut bytes) = (0, 0);
    let (waiting, mut reading) = (Stopwatch::start(), None);
    while records < arguments.records {
        match consumer.poll(SLICE) {
            Some(record) => {
                reading.get_or_insert_with(Stopwatch::start);
                records += 1;
                bytes += record?.payload_len() as u64;
            }
            None if waiting.elapsed() >= PATIENCE => bail!("{records} of {} records came", arguments.records),
            None => {}
        }
    }
    let seconds = reading.map_or(0.0, |reading| reading.elapsed().as_secs_f64());
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let processor_seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    println!("{}", serde_json::to_string(&Took { records, bytes, seconds, processor_seconds })?);
    Ok(())
}
