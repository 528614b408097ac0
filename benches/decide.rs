//! What an evaluation costs: 5 metrics, 10 instances, windows of 60 s of panes of 5 s, for few and many targets.
//!
//! `evaluate`: one mark evaluates every target once; the time is one target's share of it. Between two marks every
//! target takes in a part, so its panes come from memory, as they do live. `again`: the same target is evaluated again and
//! again, as its fleet changes, so that everything is in the processor's cache. `part`: taking in
//! one target's part of a pane. `idle-tick`: a second in which nothing is due, of the whole partition. `restore`: putting one target's snapshot back,
//! as a process does that takes a partition over. CPU time of the thread, so that what else runs on the machine does not count.

use std::collections::BTreeMap;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use loadline::model::{
    Amount, FleetObservation, Instance, InstanceName, Kind, Mark, MetricName, Order, Pane, Part, Phase, PolicyAnnouncement, Reading, Signal, Sketch, TargetId,
    Tick, Timestamp,
};
use loadline::runtime::snapshots::restore;
use loadline::stages::decide::{Decide, State};
use loadline::stages::{Effects, Input, Located, Snapshot, Stage};
use rustix::time::{ClockId, clock_gettime};

const START: i64 = 1_800_000_000_000;
const PANE: i64 = 5_000;
const INSTANCES: usize = 10;
const STAGE: Decide = Decide { audit: loadline::stages::decide::AuditWhen::Changed, probe: None };

const METRICS: [(&str, Kind); 5] =
    [("cpu", Kind::Gauge), ("memory", Kind::Gauge), ("response_time", Kind::Distribution), ("connections", Kind::Gauge), ("queue_depth", Kind::Gauge)];

fn spec(name: &str) -> String {
    format!(
        r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"{name}"}},"replicas":{{"min":2,"max":100}},"metrics":[
        {{"name":"cpu","track":{{"utilization":"70%"}},"window":"60s"}},
        {{"name":"memory","track":{{"utilization":"80%"}},"window":"60s"}},
        {{"name":"response_time","measure":{{"quantile":"95%"}},"window":"60s","threshold":{{"scaleOutAbove":"300ms","scaleInBelow":"120ms","for":"30s","step":{{"out":"20%","in":1}}}}}},
        {{"name":"connections","track":{{"perReplica":50}},"window":"60s"}},
        {{"name":"queue_depth","track":{{"perReplica":100}},"window":"60s"}}]}}"#
    )
}

/// A partition of so many targets, each with a policy, a fleet and full windows.
struct World {
    state: State,
    targets: Vec<(TargetId, String)>,
    metrics: Vec<MetricName>,
    offset: u64,
    now: i64,
    fleets: i64,
}

impl World {
    fn new(targets: usize) -> World {
        let names = (0..targets).map(|n| format!("service-{n}"));
        let targets = names.map(|name| (format!("prod/Deployment/{name}").parse().unwrap_or_else(|e| unreachable!("{e}")), name)).collect();
        let metrics = METRICS.iter().map(|(name, _)| name.parse().unwrap_or_else(|e| unreachable!("{e}"))).collect();
        let mut world = World { state: State::default(), targets, metrics, offset: 0, now: START, fleets: 0 };
        for n in 0..world.targets.len() {
            let (target, name) = world.targets[n].clone();
            let order = Order { source: "file:policies.yaml".to_owned(), generation: 1 };
            world.say(Signal::Policy(PolicyAnnouncement { target, spec: Some(spec(&name)), order }));
        }
        world.fleets();
        for _ in 0..13 {
            world.parts();
            world.mark();
        }
        world
    }

    /// Folds a signal; the CPU time that it took.
    fn say(&mut self, record: Signal) -> Duration {
        self.offset += 1;
        let input = Input::Record(Located { partition: 0, offset: self.offset, at: Timestamp::from_millis(self.now), record });
        let mut effects = Effects::new();
        let before = cpu_time();
        STAGE.apply(&mut self.state, input, &mut effects);
        let spent = cpu_time().saturating_sub(before);
        drop(effects);
        spent
    }

    /// Every fleet is seen again, as observers repeat it every minute.
    fn fleets(&mut self) {
        self.fleets += 1;
        for n in 0..self.targets.len() {
            self.fleet(n, false);
        }
    }

    fn fleet(&mut self, n: usize, updating: bool) -> Duration {
        let (target, name) = self.targets[n].clone();
        let instances = (0..INSTANCES).map(|i| Instance {
            name: instance(&name, i),
            phase: Phase::Running,
            ready: Some(true),
            deleting: false,
            started_at: Some(Timestamp::from_millis(START - 3_600_000)),
            ready_changed_at: Some(Timestamp::from_millis(START - 3_600_000)),
            requests: BTreeMap::from([("cpu".to_owned(), Amount::from_units(1)), ("memory".to_owned(), Amount::from_units(1_073_741_824))]),
        });
        let seen = FleetObservation {
            target,
            uid: "a".to_owned(),
            term: 1,
            sequence: self.fleets,
            revision: None,
            desired: 10,
            status_replicas: 10,
            updating,
            instances: instances.collect(),
        };
        self.say(Signal::Fleet(seen))
    }

    /// The snapshots of all targets, as the log has them.
    fn snapshots(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut rows = vec![("\u{1}version".to_owned(), b"1".to_vec()), ("\u{1}wide".to_owned(), self.state.encode_wide(self.offset))];
        rows.extend(self.state.take_changed().into_iter().filter_map(|key| self.state.encode(&key, self.offset).map(|value| (key, value))));
        rows
    }

    /// The fleet of the first target changes, which has it evaluated at once.
    fn again(&mut self) -> Duration {
        self.fleets += 1;
        self.fleet(0, self.fleets % 2 == 0)
    }

    /// The next pane's part of every target; the CPU time that they took.
    fn parts(&mut self) -> Duration {
        self.now += PANE;
        if (self.now - START) % 60_000 == 0 {
            self.fleets();
        }
        (0..self.targets.len()).map(|n| self.part(n)).sum()
    }

    fn part(&mut self, n: usize) -> Duration {
        let (target, name) = &self.targets[n];
        let wobble = (self.now / PANE + i64::try_from(n).unwrap_or(0)) % 7;
        let panes = METRICS.iter().zip(&self.metrics).map(|((name_of_metric, kind), metric)| {
            let base = match *name_of_metric {
                "cpu" => 0.68 + wobble as f64 / 300.0,
                "memory" => 850_000_000.0,
                "response_time" => 0.2,
                "connections" => 48.0,
                _ => 95.0,
            };
            let mut sketch = (*kind == Kind::Distribution).then(Sketch::default);
            let instances = (0..INSTANCES).map(|i| {
                let value = Amount::from_f64(base * (1.0 + i as f64 / 100.0)).unwrap_or_default();
                if let Some(sketch) = &mut sketch {
                    (0..50).for_each(|k| sketch.add(0.15 + f64::from(k) / 500.0));
                }
                let last_at = Timestamp::from_millis(self.now - 1_000);
                (instance(name, i), Reading { count: 5, sum: value, max: value, last: value, last_at, histogram: None })
            });
            let instances = instances.collect();
            let (start, end) = (Timestamp::from_millis(self.now - PANE), Timestamp::from_millis(self.now));
            Pane { metric: metric.clone(), kind: *kind, start, end, instances, sketch }
        });
        let part = Part { target: target.clone(), source: 0, panes: panes.collect() };
        self.say(Signal::Part(part))
    }

    /// The mark that completes the pane: every target is evaluated. The CPU time that it took.
    fn mark(&mut self) -> Duration {
        let through = Timestamp::from_millis(self.now);
        self.say(Signal::Mark(Mark { source: 0, of: 1, through, pane_ms: PANE, records: 1, late: 0, rejected: 0, repeated: 0 }))
    }
}

fn instance(name: &str, i: usize) -> InstanceName {
    format!("{name}-6f7d9c5b8-{i:05}").parse().unwrap_or_else(|e| unreachable!("{e}"))
}

/// The CPU time of putting all of these snapshots back.
fn restored(rows: &[(String, Vec<u8>)]) -> Duration {
    let before = cpu_time();
    let restored = restore::<Decide>(rows, u64::MAX).unwrap_or_else(|e| unreachable!("{e}"));
    let spent = cpu_time().saturating_sub(before);
    assert_eq!(restored.state.targets(), restored.keys, "each has its policy in force");
    spent
}

/// What this thread has spent, whatever else the machine does.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    for targets in [10_usize, 1_000, 100_000] {
        let mut world = World::new(targets);
        let share = |spent: Duration| spent.div_f64(targets as f64);
        group.bench_function(format!("evaluate/{targets}"), |b| {
            b.iter_custom(|times| {
                let one = |_| {
                    world.parts();
                    share(world.mark())
                };
                (0..times).map(one).sum()
            });
        });
        if targets == 10 {
            group.bench_function("again", |b| b.iter_custom(|times| (0..times).map(|_| world.again()).sum()));
        }
        group.bench_function(format!("part/{targets}"), |b| {
            b.iter_custom(|times| {
                let one = |_| {
                    let spent = share(world.parts());
                    world.mark();
                    spent
                };
                (0..times).map(one).sum()
            });
        });
        group.bench_function(format!("idle-tick/{targets}"), |b| {
            b.iter_custom(|times| (0..times).map(|_| world.say(Signal::Tick(Tick {}))).sum());
        });
        let rows = world.snapshots();
        drop(world);
        group.bench_function(format!("restore/{targets}"), |b| b.iter_custom(|times| (0..times).map(|_| share(restored(&rows))).sum()));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
