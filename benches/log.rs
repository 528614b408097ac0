//! What the embedded log costs: durable appends by size of the commit, producers that share an
//! fsync, and reading.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Log, Membership, Polled, RawAppend, Topic};
use loadline::runtime::clock::{Stopwatch, SystemClock};

/// As in the comparison of stores in docs/performance.md: key and value together.
const RECORD_BYTES: usize = 110;

fn open() -> (tempfile::TempDir, EmbeddedLog) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock), Options::default()).unwrap();
    (directory, log)
}

fn batch(count: usize) -> Vec<RawAppend> {
    let key = "prod/Deployment/api-server";
    let value = vec![b'x'; RECORD_BYTES - key.len()];
    vec![RawAppend { topic: Topic::Signals, partition: 0, key: Some(key.to_owned()), value }; count]
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for count in [1, 100, 1_000, 10_000] {
        let (_directory, log) = open();
        let batch = batch(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter_batched(|| batch.clone(), |batch| log.append(batch).unwrap(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Eight producers of one record at a time: the time of one append of each.
fn producers(c: &mut Criterion) {
    const PRODUCERS: u64 = 8;
    let mut group = c.benchmark_group("producers");
    let (_directory, log) = open();
    group.throughput(Throughput::Elements(PRODUCERS));
    group.bench_function("8 of 1 record", |b| {
        b.iter_custom(|rounds| {
            let watch = Stopwatch::start();
            std::thread::scope(|scope| {
                for _ in 0..PRODUCERS {
                    scope.spawn(|| (0..rounds).for_each(|_| drop(log.append(batch(1)).unwrap())));
                }
            });
            watch.elapsed()
        });
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    const RECORDS: u64 = 200_000;
    let (_directory, log) = open();
    for _ in 0..RECORDS / 1_000 {
        log.append(batch(1_000)).unwrap();
    }
    let mut group = c.benchmark_group("read");
    for max in [100, 1_000, 10_000_u64] {
        group.throughput(Throughput::Elements(max));
        let mut from = 0;
        group.bench_function(BenchmarkId::new("scan", max), |b| {
            b.iter(|| {
                let count = usize::try_from(max).unwrap();
                black_box(log.scan(Topic::Signals, 0, from, count).unwrap());
                from = (from + max) % (RECORDS - max);
            });
        });
    }
    group.bench_function("poll at the end", |b| {
        let mut session = log.join(Membership { group: "decide", member: "a".to_owned(), topic: Topic::Signals }).unwrap();
        while session.poll(10_000, Duration::ZERO).unwrap().iter().any(|polled| matches!(polled, Polled::Records { .. })) {}
        b.iter(|| black_box(session.poll(1_000, Duration::ZERO).unwrap()));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    targets = append, producers, read
}
criterion_main!(benches);
