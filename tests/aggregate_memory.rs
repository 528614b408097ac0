//! A gauge series costs at most 400 bytes between two flushes, names not counted, in any shape of an
//! installation. Allocated bytes are counted, so the figures are the same on every machine.
//!
//! One test in this file: the allocator counts the whole process.

#![expect(clippy::unwrap_used, reason = "the names of this test are valid")]

use std::time::Duration;

use loadline::model::{Kind, Sample, SampleBatch, Timestamp};
use loadline::stages::aggregate::{Aggregate, Limits, State};
use loadline::stages::{Effects, Input, Located, Stage};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const METRICS: [&str; 5] = ["cpu", "memory", "response_time", "connections", "queue_depth"];

fn read(stage: &Aggregate, state: &mut State, time: i64, sample: Sample) {
    let record = SampleBatch { samples: vec![sample], ..SampleBatch::default() };
    let record = Located { partition: 0, offset: 0, at: Timestamp::from_millis(time), record };
    let mut effects = Effects::new();
    stage.apply(state, Input::Record(record), &mut effects);
}

/// Bytes a series, and the same without the names, after `panes` panes of 50,000 series or a few more.
fn bytes_a_series(targets: usize, metrics: usize, instances: usize, panes: i64) -> (usize, usize) {
    let stage = Aggregate { pane: Duration::from_secs(5), grace: Duration::from_millis(500), sources: 1, limits: Limits::default() };
    let before = ALLOCATED.current_usage();
    let mut state = State::default();
    let mut names = 0;
    for target in 0..targets {
        let target_name = format!("production/Deployment/service-{target}");
        names += target_name.len();
        for instance in 0..instances {
            let instance_name = format!("service-{target}-6f7d9c5b8-{instance:05}");
            names += instance_name.len();
            for metric in &METRICS[..metrics] {
                names += if instance == 0 { metric.len() } else { 0 };
                for pane in 0..panes {
                    let sample = Sample {
                        targets: vec![target_name.parse().unwrap()],
                        metric: metric.parse().unwrap(),
                        instance: instance_name.parse().unwrap(),
                        time: Timestamp::from_millis(pane * 5_000),
                        kind: Kind::Gauge,
                        value: 0.7,
                        histogram: None,
                    };
                    read(&stage, &mut state, pane * 5_000, sample);
                }
            }
        }
    }
    let held = ALLOCATED.current_usage() - before;
    let series = targets * metrics * instances;
    drop(state);
    (held / series, (held - names) / series)
}

#[test]
fn a_gauge_series_takes_at_most_400_bytes_between_flushes() {
    for (targets, metrics, instances) in [(1_000, 5, 10), (2, 5, 5_000), (10_000, 5, 1), (50_000, 1, 1), (1, 5, 5_000), (1_147, 5, 10), (57_345, 1, 1)] {
        let (with_names, without) = bytes_a_series(targets, metrics, instances, 1);
        println!("{targets} targets x {metrics} metrics x {instances} instances: {without} bytes a series, {with_names} with names");
        assert!(without <= 400, "{targets} x {metrics} x {instances}: {without} bytes");
    }
    // Two panes are open where samples of the next one arrive within the grace of the last.
    let (with_names, without) = bytes_a_series(1_000, 5, 10, 2);
    println!("two panes: {without} bytes a series, {with_names} with names");
    assert!(without <= 400, "two panes: {without} bytes");
}
