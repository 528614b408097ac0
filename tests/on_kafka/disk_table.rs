//! What `docs/kafka.md` says that a day brings on the disks of a cluster, held against what a pane of it takes on the disk of a real broker: as ingest appends it, and as aggregate commits it.

use std::sync::Arc;
use std::time::Duration;

use loadline::log::kafka::{KafkaLog, Options, declaration};
use loadline::log::{Log, RawAppend, Topic, partition_of};
use loadline::model::{Kind, Message, Sample, SampleBatch, Timestamp};
use loadline::runtime::clock::{Clock as _, SystemClock};
use loadline::runtime::runner::Rounds;
use loadline::runtime::worker::{Committed, Worker};
use loadline::stages::aggregate::{Aggregate, Limits};
use loadline::wire;

use crate::kafka::{Broker, answered, broker, makes};
use crate::page::Page;

const PANE: Duration = Duration::from_secs(5);
/// So many panes has a day.
const PANES: f64 = 17_280.0;
/// So many are measured: a number in a pane varies by its digits.
const MEASURED: u32 = 2;

/// A request: one sample of each series of a target, at this time.
fn request(target: u32, (metrics, instances, of_target): (u32, u32, u32), time: Timestamp) -> SampleBatch {
    let name = format!("api-server-{target:03}");
    let sample = |metric: String, instance: String, value: f64| Sample {
        targets: vec![format!("prod/Deployment/{name}").parse().unwrap()],
        metric: metric.parse().unwrap(),
        instance: instance.parse().unwrap(),
        time,
        kind: Kind::Gauge,
        value,
        histogram: None,
    };
    // Measurements are no round numbers.
    let value = |at: u32| f64::from(at * 7_919 % 9_973 + 1) / 9_973.0;
    let of_instances =
        (0..metrics * instances).map(|at| sample(format!("metric_{}", at / instances), format!("{name}-5d8c7b9f4-x{:02}", at % instances), value(at + target)));
    let whole = (0..of_target).map(|at| sample(format!("queue_depth_{at}"), String::new(), value(at) * 1_000.0));
    SampleBatch { samples: of_instances.chain(whole).collect(), ..SampleBatch::default() }
}

/// What a day of so many targets with these series brings on `metrics` and on `signals`, in GB, by what some panes take.
fn of_a_day(targets: u32, series: (u32, u32, u32)) -> [f64; 2] {
    let options = Options { partitions: Some(declaration::partitions().unwrap()), ..broker().options(&Broker::prefix()) };
    makes(&options);
    let log = Broker::open(&options);
    let sources = log.partitions(Topic::Metrics);
    let stage = Aggregate { pane: PANE, grace: Duration::ZERO, sources, limits: Limits::default() };
    let mut worker = Worker::join(stage, Arc::new(log.clone()) as Arc<dyn Log>, "one", Rounds::on(&log)).unwrap();
    let mut at = SystemClock.now();
    while worker.partitions() < sources as usize || worker.has_under_way() {
        step(&mut worker, at);
    }
    // What was committed comes to be seen partition by partition.
    broker().settle(&options.prefix);
    let size = |topic: Topic| broker().bytes_of(&format!("{}{topic}", options.prefix));
    let before = [size(Topic::Metrics), size(Topic::Signals)];
    let marks = || marks(&log);
    let began = marks();
    for _ in 0..MEASURED {
        // All in one pane, however long it takes to send them.
        let now = SystemClock.now();
        for target in 0..targets {
            let batch = request(target, series, now);
            let key = batch.samples[0].targets[0].to_string();
            let partition = partition_of(&key, sources);
            log.append(vec![RawAppend { topic: Topic::Metrics, partition, key: None, value: wire::encode(&Message::Samples(batch)) }]).unwrap();
        }
        // The pane is over for all of them.
        at = at.max(now) + PANE + PANE;
        let wanted = marks() + u64::from(sources * sources);
        while marks() < wanted {
            step(&mut worker, at);
        }
    }
    let taken = [size(Topic::Metrics) - before[0], size(Topic::Signals) - before[1]];
    assert_eq!(marks() - began, u64::from(MEASURED * sources * sources), "a mark of each source in each partition, once a pane");
    taken.map(|bytes| bytes as f64 / f64::from(MEASURED) * PANES / 1e9)
}

fn step(worker: &mut Worker<Aggregate>, at: Timestamp) {
    worker.read(at, 10_000, Duration::from_millis(10)).unwrap();
    while worker.commit(at).unwrap() != Committed::Nothing {}
}

/// How many marks there are.
fn marks(log: &KafkaLog) -> u64 {
    let records = (0..log.partitions(Topic::Signals)).flat_map(|partition| answered(|| log.scan(Topic::Signals, partition, 0, 100_000)));
    let is_mark = |value: &[u8]| matches!(wire::decode(Topic::Signals, value), Ok(Message::Signal(loadline::model::Signal::Mark(_))));
    records.filter(|record| is_mark(&record.value)).count() as u64
}

/// A figure of the page, and by how much it may be off: half of its last digit.
fn figure(cell: &str) -> (f64, f64) {
    let number = cell.trim_end_matches(" GB").replace(',', "");
    let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    (number.parse().unwrap_or_else(|_| panic!("{cell:?} is no figure")), 0.5 / 10f64.powi(i32::try_from(decimals).unwrap()))
}

/// Whether a figure is another one, within what its digits leave open and this part of it.
fn is_about(figure: (f64, f64), expected: f64, part: f64) -> bool {
    (figure.0 - expected).abs() <= figure.1 + expected * part
}

/// The figures of the page were measured on processes at work, which send more in a request and commit more often than this test does: a third is between the two, and less than
/// anybody sizes a disk by.
#[test]
fn the_table_of_disk_use_is_about_what_a_pane_takes_on_a_broker() {
    let rows = Page::read("docs/kafka.md").table("targets");
    assert_eq!(rows.len(), 6, "{rows:?}");
    for (row, targets, series) in [(1, 10, (2, 5, 1)), (3, 100, (3, 10, 2))] {
        let measured = of_a_day(targets, series);
        for (cell, measured) in rows[row][2..4].iter().zip(measured) {
            assert!(is_about(figure(cell), measured, 0.35), "{cell} of {:?}: {measured:.3} GB", rows[row]);
        }
    }
}

/// The last column follows from the others, and the last two rows from the one above them.
#[test]
fn the_table_of_disk_use_agrees_with_itself() {
    let rows = Page::read("docs/kafka.md").table("targets");
    let figures = |row: usize| rows[row][2..6].iter().map(|cell| figure(cell)).collect::<Vec<_>>();
    for (row, text) in rows.iter().enumerate().skip(1) {
        let [metrics, signals, requests, disk] = figures(row)[..] else { panic!("{text:?}") };
        // 6 hours of metrics, 3 days of signals, a day of requests; 3 replicas.
        let follows = 3.0 * (metrics.0 / 4.0 + signals.0 * 3.0 + requests.0);
        let open = 3.0 * (metrics.1 / 4.0 + signals.1 * 3.0 + requests.1);
        assert!(is_about((disk.0, disk.1 + open), follows, 0.01), "{text:?}: {follows:.2} GB");
    }
    let of = |row: usize, column: usize| figures(row)[column].0;
    let marks = of(1, 1) - (of(2, 1) - of(1, 1)) / 9.0;
    for (row, times) in [(4, 10.0), (5, 100.0)] {
        assert!(is_about(figures(row)[0], of(3, 0) * times, 0.02), "{:?}", rows[row]);
        assert!(is_about(figures(row)[1], marks + (of(3, 1) - marks) * times, 0.02), "{:?}: {:.2}", rows[row], marks + (of(3, 1) - marks) * times);
    }
}
