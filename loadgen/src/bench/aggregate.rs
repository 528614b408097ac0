//! A backlog is aggregated, exactly once, beside the bare consumer over the same records.
//!
//! 5,000 gauges: five metrics of 1,000 targets, in the order of the targets, again and again. One sample a record, the target its key, as simple clients
//! write; then 100 a record, without keys.
//!
//! The processor time is all that the process has used from its start until its last position is committed. The rate is that between the first position
//! that is seen to be committed and the last: joining the group is not part of it.

use std::time::Duration;

use anyhow::bail;
use loadline::log::{Topic, partition_of};
use loadline::model::{Message, MetricName, Signal, TargetId};
use loadline::runtime::clock::{Clock as _, Stopwatch, SystemClock};
use loadline::stages::Stage as _;
use loadline::stages::aggregate::Aggregate;

use super::Settings;
use super::bare;
use super::cluster::{Cluster, Installation};
use super::process::wait_for;
use super::producer::{Producer, gauge, record};
use super::report::{Figures, Target};

const TARGETS: u64 = 1_000;
const METRICS: [&str; 5] = ["cpu", "memory", "rps", "queue_depth", "latency"];

/// As a user's who says nothing.
const PANE: Duration = Duration::from_secs(5);

/// The client that fills the backlog gathers for so long.
const GATHERS: Duration = Duration::from_millis(20);

pub(super) fn measure(settings: &Settings, cluster: &Cluster, figures: &mut Figures<'_>) -> anyhow::Result<()> {
    for per_record in [1, 100] {
        let installation = cluster.installation(&format!("aggregate-{per_record}"), settings.partitions)?;
        let records = settings.samples / per_record;
        fill(&installation, records, per_record)?;
        let bare = bare::measure(&installation, records)?;
        let own = aggregate(&installation, records)?;
        let taken = taken(&installation)?;

        let of = |what: &str| format!("{per_record} a record: {what}");
        figures.add(of("bare consumer, processor time a record"), Some(bare.micros_a_record()), "µs", None);
        figures.add(of("bare consumer, records a second"), Some(bare.rate()), "/s", None);
        let micros = Some(own.used.as_secs_f64() * 1e6 / records as f64).filter(|micros| *micros > 0.0);
        figures.add(of("aggregate, processor time a record"), micros, "µs", None);
        if per_record == 1 {
            let times = micros.map(|micros| micros / bare.micros_a_record());
            figures.add(of("aggregate, of the bare consumer's"), times, "times", Some(Target::AtMost(2.3)));
            figures.add(of("aggregate, records a second"), own.rate, "/s", Some(Target::AtLeast(400_000.0)));
        } else {
            let of_cpu = micros.map(|micros| per_record as f64 * 1e6 / micros);
            figures.add(of("aggregate, samples a processor second"), of_cpu, "/s", Some(Target::AtLeast(2_000_000.0)));
            figures.add(of("aggregate, samples a second"), own.rate.map(|rate| rate * per_record as f64), "/s", None);
        }
        figures.count(of("records told in marks"), taken.records, records);
        figures.count(of("samples in panes"), taken.samples, records * per_record);
        if (taken.records, taken.samples, taken.rejected) != (records, records * per_record, 0) {
            bail!("{records} records of {per_record} samples were written; aggregated were {taken:?}");
        }
    }
    Ok(())
}

/// Writes the backlog.
fn fill(installation: &Installation<'_>, records: u64, per_record: u64) -> anyhow::Result<()> {
    let targets = (0..TARGETS).map(|number| Ok(format!("prod/Deployment/api-{number}").parse()?)).collect::<anyhow::Result<Vec<TargetId>>>()?;
    let metrics = METRICS.iter().map(|name| Ok(name.parse()?)).collect::<anyhow::Result<Vec<MetricName>>>()?;
    let producer = Producer::new(&installation.options.brokers, installation.topic(Topic::Metrics), GATHERS)?;
    for number in 0..records {
        let time = SystemClock.now();
        let place = |sample: u64| -> anyhow::Result<(usize, usize)> {
            let series = usize::try_from((number * per_record + sample) % (TARGETS * METRICS.len() as u64))?;
            Ok((series / METRICS.len(), series % METRICS.len()))
        };
        let samples = (0..per_record).map(|sample| {
            let (target, metric) = place(sample)?;
            Ok(gauge(&targets[target], &metrics[metric], time, ((number * 31 + sample * 7) % 977) as f64 / 16.0))
        });
        let value = record(samples.collect::<anyhow::Result<_>>()?);
        if per_record == 1 {
            let target = targets[place(0)?.0].as_str();
            producer.send(partition_of(target, installation.partitions), Some(target), &value)?;
        } else {
            producer.send(u32::try_from(number % u64::from(installation.partitions))?, None, &value)?;
        }
    }
    producer.flush()?;
    let there: u64 = installation.ends(Topic::Metrics)?.values().sum();
    if there != records {
        bail!("{records} records were written, and {there} are there");
    }
    Ok(())
}

/// What it took.
struct Took {
    used: Duration,
    /// Records a second; `None` where all were in the first commits that were seen.
    rate: Option<f64>,
}

fn aggregate(installation: &Installation<'_>, records: u64) -> anyhow::Result<Took> {
    let mut process = installation.start("aggregate", Aggregate::NAME, PANE)?;
    let mut first: Option<(Stopwatch, u64)> = None;
    let (used, rate) = wait_for("the backlog to be aggregated", || {
        process.is_there()?;
        let done = installation.committed(Aggregate::NAME, Topic::Metrics)?;
        if done > 0 {
            first.get_or_insert_with(|| (Stopwatch::start(), done));
        }
        let rate = first.filter(|(_, then)| *then < done).map(|(since, then)| (done - then) as f64 / since.elapsed().as_secs_f64());
        Ok(if done == records { Some((process.processor_time()?, rate)) } else { None })
    })?;
    process.stop()?;
    Ok(Took { used, rate })
}

#[derive(Debug, Default)]
struct Taken {
    records: u64,
    samples: u64,
    rejected: i64,
}

/// What came of the backlog.
fn taken(installation: &Installation<'_>) -> anyhow::Result<Taken> {
    let mut taken = Taken::default();
    installation.each(Topic::Signals, |partition, _, message| match message {
        Message::Signal(Signal::Part(part)) => {
            let counts = part.panes.iter().flat_map(|pane| pane.instances.values()).map(|reading| reading.count);
            taken.samples += counts.sum::<i64>().unsigned_abs();
        }
        // Each stands in every partition.
        Message::Signal(Signal::Mark(mark)) if partition == 0 => {
            taken.records += mark.records.unsigned_abs();
            taken.rejected += mark.rejected;
        }
        _ => {}
    })?;
    Ok(taken)
}
