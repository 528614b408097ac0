//! However the samples of a target are keyed, partitioned, ordered, flushed and read again after a crash:
//! aggregate and decide come to the same decisions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::time::Duration;

use loadline::model::{
    Amount, Audit, Decision, FleetObservation, HistogramValue, Instance, Kind, Message, Order, Phase, PolicyAnnouncement, Sample, SampleBatch, Signal,
    TargetId, Timestamp,
};
use loadline::stages::aggregate::{self, Aggregate, Limits};
use loadline::stages::decide::{self, AuditWhen, Decide};
use loadline::stages::{Effects, Input, Located, Stage};
use proptest::prelude::*;

const START: i64 = 1_800_000_000_000;
const PANE: i64 = 5_000;
const GRACE: i64 = 500;
const TARGETS: usize = 2;

const SPEC: &str = r#""replicas":{"min":1,"max":50},"metrics":[
    {"name":"cpu","track":{"utilization":"50%"},"window":"15s"},
    {"name":"requests","track":{"perReplica":7},"window":"10s"},
    {"name":"jobs","kind":"Delta","track":{"perReplica":3},"window":"10s"},
    {"name":"response_time","measure":{"quantile":"90%"},"window":"10s","threshold":{"scaleOutAbove":"400ms","for":"5s","step":{"out":2,"in":1}}},
    {"name":"latency","kind":"Histogram","measure":{"quantile":"50%"},"window":"15s","threshold":{"scaleOutAbove":2,"for":"5s","step":{"out":1,"in":1}}}],
    "behavior":{"scaleOut":{"policies":[{"replicas":3,"period":"5s"}]},"scaleIn":{"stabilization":"10s"}}"#;

/// One sample: of which target, metric and instance, when (in the pane in which it is read, or in one before),
/// and how much; and where it goes in the split that is tested.
#[derive(Debug, Clone)]
struct Seen {
    pane: i64,
    target: usize,
    metric: usize,
    instance: u32,
    back: i64,
    within: i64,
    value: i64,
    partition: u32,
    order: u64,
    flushed_after: bool,
    lost_after: bool,
}

fn seen() -> impl Strategy<Value = Seen> {
    let what = (0_i64..6, 0..TARGETS, 0_usize..5, 0_u32..4, prop_oneof![5 => Just(0_i64), 1 => 1_i64..3], 0..PANE, 0_i64..1_000);
    let split = (any::<u32>(), any::<u64>(), prop::bool::weighted(0.15), prop::bool::weighted(0.1));
    (what, split).prop_map(|((pane, target, metric, instance, back, within, value), (partition, order, flushed_after, lost_after))| Seen {
        pane,
        target,
        metric,
        instance,
        back,
        within,
        value,
        partition,
        order,
        flushed_after,
        lost_after,
    })
}

fn target(n: usize) -> TargetId {
    format!("prod/Deployment/t{n}").parse().unwrap()
}

impl Seen {
    fn sample(&self) -> Sample {
        let (metric, kind) =
            [("cpu", Kind::Gauge), ("requests", Kind::Counter), ("jobs", Kind::Delta), ("response_time", Kind::Distribution), ("latency", Kind::Histogram)]
                [self.metric];
        let time = START + self.pane * PANE - self.back * PANE + self.within;
        // Counters only grow with time, so that most pairs are no reset.
        let total = (time - START) / 10 + 10_000 + self.value;
        let histogram = (kind == Kind::Histogram).then(|| HistogramValue {
            bounds: vec![1.0, 4.0],
            counts: vec![total, total / 2, total / 5],
            count: total + total / 2 + total / 5,
            sum: total as f64,
        });
        Sample {
            targets: vec![target(self.target)],
            metric: metric.parse().unwrap(),
            instance: format!("i{}", self.instance).parse().unwrap(),
            time: Timestamp::from_millis(time),
            kind,
            value: if kind == Kind::Counter { total as f64 } else { self.value as f64 / 1_000.0 },
            histogram,
        }
    }
}

/// Plays the samples through as many partitions, in the order and with the flushes and crashes that the samples
/// name; or, for one partition, plainly. All that matters happens at the same time in both.
fn play(all: &[Seen], partitions: u32) -> Vec<Decision> {
    let plain = partitions == 1;
    let stage =
        Aggregate { pane: Duration::from_millis(PANE as u64), grace: Duration::from_millis(GRACE as u64), sources: partitions, limits: Limits::default() };
    let decide = Decide { audit: AuditWhen::Always, probe: None };
    let (mut folded, mut offset, mut decisions) = (decide::State::default(), 0, Vec::new());
    let mut say = |at: i64, record: Signal| {
        offset += 1;
        let mut effects = Effects::new();
        decide.apply(&mut folded, Input::Record(Located { partition: 0, offset, at: Timestamp::from_millis(at), record }), &mut effects);
        decisions.extend(effects.take().into_iter().filter_map(|e| match e.message {
            Message::Audit(Audit::Decision(decision)) => Some(decision),
            _ => None,
        }));
    };
    let mut states: Vec<aggregate::State> = (0..partitions).map(|_| aggregate::State::default()).collect();
    for (partition, state) in (0..).zip(&mut states) {
        flush(&stage, state, partition, START + GRACE).into_iter().for_each(|signal| say(START, signal));
    }
    for n in 0..TARGETS {
        let spec = format!(r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"t{n}"}},{SPEC}}}"#);
        let order = Order { source: "file:x".to_owned(), generation: 1 };
        say(START, Signal::Policy(PolicyAnnouncement { target: target(n), spec: Some(spec), order }));
        say(START, Signal::Fleet(fleet(n)));
    }
    for pane in 0..7 {
        let read_at = START + pane * PANE + PANE / 2;
        let mut records: Vec<&Seen> = all.iter().filter(|s| s.pane == pane).collect();
        if !plain {
            records.sort_by_key(|s| s.order);
        }
        let mut unflushed: Vec<Vec<&Seen>> = vec![Vec::new(); partitions as usize];
        for record in records {
            let partition = record.partition % partitions;
            let state = &mut states[partition as usize];
            let held = &mut unflushed[partition as usize];
            held.push(record);
            read(&stage, state, partition, record, read_at);
            if !plain && record.lost_after {
                // The process ends; the next one reads again what was not flushed.
                *state = aggregate::State::default();
                held.iter().for_each(|record| read(&stage, state, partition, record, read_at));
            }
            if !plain && record.flushed_after {
                held.clear();
                flush(&stage, state, partition, read_at).into_iter().for_each(|signal| say(read_at, signal));
            }
        }
        // The end of the pane: a flush of every partition.
        let end = START + (pane + 1) * PANE + GRACE;
        for (partition, state) in (0..).zip(&mut states) {
            flush(&stage, state, partition, end).into_iter().for_each(|signal| say(end, signal));
        }
    }
    decisions
}

fn read(stage: &Aggregate, state: &mut aggregate::State, partition: u32, seen: &Seen, at: i64) {
    let record = SampleBatch { samples: vec![seen.sample()], ..SampleBatch::default() };
    let mut effects = Effects::new();
    // Where a record stands is of no interest to what it comes to.
    stage.apply(state, Input::Record(Located { partition, offset: seen.order, at: Timestamp::from_millis(at), record }), &mut effects);
    assert!(effects.is_empty());
}

fn flush(stage: &Aggregate, state: &mut aggregate::State, partition: u32, now: i64) -> Vec<Signal> {
    let mut effects = Effects::new();
    let now = Timestamp::from_millis(now);
    stage.apply(state, Input::Flush { partition, now, read_through: now }, &mut effects);
    let signals = effects.take().into_iter().map(|e| match e.message {
        Message::Signal(signal) => signal,
        other => panic!("a flush said {other:?}"),
    });
    signals.collect()
}

fn fleet(n: usize) -> FleetObservation {
    let instances = (0..4).map(|i| Instance {
        name: format!("i{i}").parse().unwrap(),
        phase: Phase::Running,
        ready: Some(true),
        deleting: false,
        started_at: Some(Timestamp::from_millis(START - 3_600_000)),
        ready_changed_at: Some(Timestamp::from_millis(START - 3_600_000)),
        requests: [("cpu".to_owned(), Amount::from_units(1))].into(),
    });
    FleetObservation {
        target: target(n),
        uid: "a".to_owned(),
        term: 1,
        sequence: 1,
        revision: None,
        desired: 4,
        status_replicas: 4,
        updating: false,
        instances: instances.collect(),
    }
}

fn heartbeat(pane: i64, target: usize) -> Seen {
    Seen { pane, target, metric: 0, instance: 0, back: 0, within: 0, value: 500, partition: 0, order: 0, flushed_after: false, lost_after: false }
}

proptest! {
    #[test]
    fn no_split_changes_a_decision(mut all in prop::collection::vec(seen(), 1..160), partitions in 2_u32..5) {
        // Something in each pane, so that it is evaluated at its end: a pane that only a late sample fills is
        // evaluated at whichever mark comes next.
        all.extend((0..7).flat_map(|pane| (0..TARGETS).map(move |target| heartbeat(pane, target))));
        let plain = play(&all, 1);
        let split = play(&all, partitions);
        prop_assert!(plain.len() >= 8 * TARGETS, "nothing was decided");
        for (plain, split) in plain.iter().zip(&split) {
            prop_assert_eq!(plain, split);
        }
        prop_assert_eq!(plain.len(), split.len());
    }
}
