//! Commits: each a transaction of 10 records and a position, by the log itself.

use std::time::Duration;

use anyhow::Context;
use loadline::log::{Batch, Log as _, Membership, Polled, RawAppend, Topic};
use loadline::runtime::clock::Stopwatch;
use loadline::stages::Stage as _;
use loadline::stages::aggregate::Aggregate;

use super::Settings;
use super::cluster::Cluster;
use super::process::wait_for;
use super::producer::Producer;
use super::report::{Figures, Target};

/// Records of one commit.
const RECORDS: usize = 10;

/// How long a poll waits.
const SLICE: Duration = Duration::from_millis(100);

pub(super) fn measure(settings: &Settings, cluster: &Cluster, figures: &mut Figures<'_>) -> anyhow::Result<()> {
    let installation = cluster.installation("commits", 1)?;
    let producer = Producer::new(&installation.options.brokers, installation.topic(Topic::Metrics), SLICE)?;
    let records = settings.commits * RECORDS as u64;
    for _ in 0..records {
        producer.send(0, None, &[7; 200])?;
    }
    producer.flush()?;

    let membership = Membership { group: Aggregate::NAME, member: "bench".to_owned(), topic: Topic::Metrics };
    let mut session = installation.log.join(membership)?;
    let (mut times, mut done) = (Vec::new(), 0);
    wait_for("all to be committed", || {
        for polled in session.poll(RECORDS, SLICE)? {
            let Polled::Records { partition, records } = polled else { continue };
            let next = records.last().context("records are never none")?.offset + 1;
            done += records.len() as u64;
            let appends = records.into_iter().map(|record| RawAppend { topic: Topic::Signals, partition, key: None, value: record.value });
            let batch = Batch { partition, position: Some(next), appends: appends.collect(), states: Vec::new() };
            let committing = Stopwatch::start();
            session.commit(&batch)?;
            times.push(committing.elapsed());
        }
        Ok((done >= records).then_some(()))
    })?;
    figures.spread("a commit of 10 records and a position", &mut times, Some(Target::AtMost(20.0)), None);
    let mut appended = 0;
    installation.each_record(Topic::Signals, |_| {
        appended += 1;
        Ok(())
    })?;
    figures.count("records appended by them", appended, records);
    anyhow::ensure!(appended == records, "{records} records were to be appended, and {appended} were");
    Ok(())
}
