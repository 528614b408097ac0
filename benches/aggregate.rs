//! What a sample costs with 50,000 series, in three shapes of an installation, and what a flush costs.
//!
//! CPU time of the thread, so that what else runs on the machine does not count. Decoding is not counted;
//! that a record is dropped is. Names are fresh with each record, as decoding leaves them. `first`: each series has no reading in its pane yet; `next`: each has one.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadline::model::{Kind, Sample, SampleBatch, Timestamp};
use loadline::stages::aggregate::{Aggregate, Limits, State};
use loadline::stages::{Effects, Input, Located, Stage};
use rustix::time::{ClockId, clock_gettime};

/// Samples in a record: what an agent that batches for a second sends.
const BATCH: usize = 100;

const STAGE: Aggregate = Aggregate {
    pane: Duration::from_secs(5),
    grace: Duration::from_millis(500),
    sources: 1,
    limits: Limits { targets: 100_000, metrics: 64, instances: 5_000 },
};

/// 50,000 series: targets × 5 metrics × instances.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    targets: usize,
    instances: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "1000x10", targets: 1_000, instances: 10 },
    Shape { name: "2x5000", targets: 2, instances: 5_000 },
    Shape { name: "10000x1", targets: 10_000, instances: 1 },
];

const METRICS: [&str; 5] = ["cpu", "memory", "response_time", "connections", "queue_depth"];

/// The series of a shape, in the order in which they are measured. Scattered: neighbours in a record
/// share nothing.
fn series(shape: Shape, scattered: bool) -> Vec<(usize, usize, &'static str)> {
    let targets = 0..shape.targets;
    let series: Vec<_> = targets.flat_map(|target| (0..shape.instances).flat_map(move |instance| METRICS.map(|metric| (target, instance, metric)))).collect();
    if scattered {
        // A stride that has no divisor in common with 50,000 visits each once, far from the one before.
        (0..series.len()).map(|n| series[n * 20_011 % series.len()]).collect()
    } else {
        series
    }
}

fn record(offset: u64, series: &[(usize, usize, &'static str)]) -> Located<SampleBatch> {
    let samples = series.iter().map(|(target, instance, metric)| sample(*target, *instance, metric)).collect();
    let record = SampleBatch { producer: Some(format!("agent-{}", offset % 50)), sequence: i64::try_from(offset).ok(), part: 0, unread: 0, samples };
    Located { partition: 0, offset, at: Timestamp::from_millis(1_700_000_001_000), record }
}

fn sample(target: usize, instance: usize, metric: &str) -> Sample {
    Sample {
        targets: format!("production/Deployment/service-{target}").parse().into_iter().collect(),
        metric: metric.to_owned().try_into().unwrap_or_else(|e| unreachable!("{e}")),
        instance: format!("service-{target}-6f7d9c5b8-{instance:05}").try_into().unwrap_or_else(|e| unreachable!("{e}")),
        time: Timestamp::from_millis(1_700_000_000_500),
        kind: Kind::Gauge,
        value: 0.1 + instance as f64,
        histogram: None,
    }
}

/// Reads every series once; gives the CPU time that the stage took for it.
fn read_all(state: &mut State, offset: &mut u64, series: &[(usize, usize, &'static str)]) -> Duration {
    let mut effects = Effects::new();
    let mut spent = Duration::ZERO;
    for series in series.chunks(BATCH) {
        *offset += 1;
        let input = Input::Record(record(*offset, series));
        let before = cpu_time();
        STAGE.apply(state, input, &mut effects);
        spent += cpu_time().saturating_sub(before);
    }
    assert!(effects.is_empty(), "a record has no effects");
    spent
}

fn flush(state: &mut State) -> (Duration, Effects) {
    let mut effects = Effects::new();
    let before = cpu_time();
    let now = Timestamp::from_millis(1_700_000_005_500);
    STAGE.apply(state, Input::Flush { partition: 0, now, read_through: now }, &mut effects);
    (cpu_time().saturating_sub(before), effects)
}

/// What this thread has spent, whatever else the machine does.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("aggregate");
    group.sample_size(10).throughput(Throughput::Elements(50_000));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    for shape in SHAPES {
        for (order, scattered) in [("grouped", false), ("scattered", true)] {
            let series = series(shape, scattered);
            group.bench_function(format!("first/{}/{order}", shape.name), |b| {
                b.iter_custom(|times| (0..times).map(|_| read_all(&mut State::default(), &mut 0, &series)).sum());
            });
            let (mut state, mut offset) = (State::default(), 0);
            read_all(&mut state, &mut offset, &series);
            group.bench_function(format!("next/{}/{order}", shape.name), |b| {
                b.iter_custom(|times| (0..times).map(|_| read_all(&mut state, &mut offset, &series)).sum());
            });
        }
        let series = series(shape, false);
        group.bench_function(format!("flush/{}", shape.name), |b| {
            b.iter_custom(|times| {
                let filled_and_flushed = |_| {
                    let mut state = State::default();
                    read_all(&mut state, &mut 0, &series);
                    let (spent, effects) = flush(&mut state);
                    assert!(effects.iter().count() > shape.targets, "a part for each target, and a mark");
                    spent
                };
                (0..times).map(filled_and_flushed).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
