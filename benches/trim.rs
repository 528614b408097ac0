//! What deleting costs those who commit: the time of a durable commit of ten records while nothing else happens, and
//! while retention deletes a backlog step by step; and the time of a step, in a small file and in a large one.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Log, RawAppend, Topic};
use loadline::runtime::clock::{Stopwatch, SystemClock};
use loadline::runtime::retention::plan::{STEP_BYTES, STEP_ROWS};

const COMMITS: usize = 3_000;

fn records(topic: Topic, count: usize, bytes: usize) -> Vec<RawAppend> {
    vec![RawAppend { topic, partition: 0, key: Some("prod/Deployment/api-server".to_owned()), value: vec![b'x'; bytes] }; count]
}

/// The next step of a trim of `metrics`: as many rows as a plan takes. How long it took; `None` where nothing is left.
fn step(log: &EmbeddedLog) -> Option<Duration> {
    let head = log.head(Topic::Metrics, 0, STEP_ROWS).unwrap();
    let mut bytes = 0;
    let rows = head.iter().take_while(|row| {
        bytes < STEP_BYTES && {
            bytes += row.bytes;
            true
        }
    });
    let before = rows.last()?.end;
    let watch = Stopwatch::start();
    log.trim(Topic::Metrics, 0, before).unwrap();
    Some(watch.elapsed())
}

/// Deletes step by step as retention does, resting after each as long as it took; the time of each.
fn trim_until(log: &EmbeddedLog, over: &AtomicBool) -> Vec<Duration> {
    let mut steps = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let Some(took) = step(log) else { break };
        steps.push(took);
        let rest = Stopwatch::start();
        while let Some(left) = took.checked_sub(rest.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
    }
    steps
}

fn commits(log: &EmbeddedLog) -> Vec<Duration> {
    (0..COMMITS)
        .map(|_| {
            let batch = records(Topic::Signals, 10, 110);
            let watch = Stopwatch::start();
            log.append(batch).unwrap();
            watch.elapsed()
        })
        .collect()
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what:<64} {:>6} times  p50 {:>7.2} ms  p99 {:>7.2} ms  max {:>7.2} ms", times.len(), at(50), at(99), at(100));
}

/// `rows` rows of `metrics` of `bytes` each.
fn filled(rows: usize, bytes: usize) -> (tempfile::TempDir, EmbeddedLog) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock), Options::default()).unwrap();
    for _ in 0..rows {
        log.append(records(Topic::Metrics, 1, bytes)).unwrap();
    }
    (directory, log)
}

fn main() {
    for (what, rows, bytes) in [("small rows (1 kB)", 60_000, 1_000), ("large rows (200 kB)", 4_000, 200_000)] {
        let (_directory, log) = filled(rows, bytes);
        row(&format!("{what}: commits alone"), commits(&log));
        let over = AtomicBool::new(false);
        let (with, steps) = std::thread::scope(|scope| {
            let trimming = scope.spawn(|| trim_until(&log, &over));
            let with = commits(&log);
            over.store(true, Ordering::Relaxed);
            (with, trimming.join().unwrap())
        });
        row(&format!("{what}: commits while it trims"), with);
        row(&format!("{what}: a step"), steps);
    }
    for megabytes in [16, 64, 256, 1_024] {
        let (_directory, log) = filled(megabytes * 5, 200_000);
        row(&format!("a step in a file of {megabytes} MB"), (0..10).filter_map(|_| step(&log)).collect());
    }
}
