//! What decide promises of its fold, over random histories: a restart at any point changes nothing, other
//! targets change nothing, and the limits of a policy hold.
//!
//! A history is made by a small world that answers decide's claims as an arbiter and an actuator would (or
//! would fail to), with late parts, silent sources, failing sources, and policies that change under way.

#![allow(clippy::unwrap_used, clippy::panic, clippy::single_match_else, reason = "a test fails by it")]

use std::collections::BTreeMap;

use loadline::log::Offset;
use loadline::model::policy::{FallbackBehavior, Mode, Policy, Select, resolve_spec_json};
use loadline::model::{
    Amount, Audit, Decision, FleetObservation, Grant, GrantLimit, HistogramReading, Instance, InstanceName, Kind, Mark, Message, MetricStatus, OpenCommand,
    Order, Outcome, OutcomeResult, Pane, Part, Phase, PolicyAnnouncement, Reading, Request, Signal, Sketch, SourceError, TargetId, Tick, Timestamp,
};
use loadline::stages::decide::{AuditWhen, Decide, State};
use loadline::stages::{Effect, Effects, Input, Located, Snapshot, Stage};
use proptest::prelude::*;

const DECIDE: Decide = Decide { audit: AuditWhen::Always, probe: None };
const START: i64 = 1_800_000_000_000;
const PANE: i64 = 5_000;
const TARGETS: usize = 3;
const SOURCES: u32 = 2;
const METRICS: [(&str, Kind); 6] = [
    ("cpu", Kind::Gauge),
    ("memory", Kind::Gauge),
    ("response_time", Kind::Distribution),
    ("latency", Kind::Histogram),
    ("connections", Kind::Counter),
    ("queue_depth", Kind::Delta),
];

/// Policies that differ in windows, limits, metrics and mode.
const SPECS: [&str; 8] = [
    r#""replicas":{"min":1,"max":30},"metrics":[{"name":"cpu","track":{"utilization":"50%"}},{"name":"connections","track":{"perReplica":20}}],
       "behavior":{"scaleIn":{"stabilization":"20s"}}"#,
    r#""replicas":{"min":2,"max":12},"metrics":[{"name":"cpu","window":"60s","staleAfter":"60s","track":{"utilization":"70%"}},
       {"name":"memory","measure":{"over":"Max","across":"Max"},"track":{"value":50},"window":"10s","staleAfter":"10s"},{"name":"response_time","measure":{"quantile":"90%"},
       "window":"30s","staleAfter":"30s","threshold":{"scaleOutAbove":"30s","scaleInBelow":"10s","for":"10s","step":{"out":"20%","in":1}}}],
       "behavior":{"scaleOut":{"cooldown":"15s","policies":[{"replicas":2,"period":"20s"}]},
       "scaleIn":{"stabilization":"15s","cooldown":"20s","policies":[{"replicas":1,"period":"15s"}]}}"#,
    r#""replicas":{"min":1,"max":20},"evaluateEvery":"15s","metrics":[{"name":"connections","window":"10s","staleAfter":"15s","track":{"perReplica":10}},
       {"name":"latency","measure":{"quantile":"95%"},"window":"20s","threshold":{"scaleOutAbove":1,"for":"5s","step":{"out":2,"in":1}},"whenBlind":"Ignore"}],
       "behavior":{"scaleIn":{"stabilization":"0s","policies":[{"percent":50,"period":"10s"},{"replicas":1,"period":"30s"}],"select":"Min"}},
       "fallback":{"after":"20s","behavior":"Static","replicas":4}"#,
    r#""mode":"Advise","replicas":{"min":1,"max":30},"metrics":[{"name":"queue_depth","track":{"perReplica":5}},{"name":"cpu","track":{"utilization":"50%"}}],
       "behavior":{"scaleIn":{"stabilization":"10s"}},"fallback":{"after":"15s","behavior":"IfHigher","replicas":9}"#,
    r#""mode":"OutOnly","replicas":{"min":3,"max":9},"metrics":[{"name":"memory","window":"5s","measure":{"over":"Last"},"track":{"perReplica":30}}]"#,
    r#""mode":"Off","replicas":{"max":9},"metrics":[{"name":"cpu","track":{"utilization":"50%"}}]"#,
    r#""replicas":{"min":1,"max":40},"metrics":[{"name":"response_time","measure":{"quantile":"50%"},"staleAfter":"60s","track":{"value":"20s"}},
       {"name":"memory"},{"name":"queue_depth","measure":{"over":"Max"},"window":"5s","staleAfter":"5s","track":{"perReplica":2}}],
       "behavior":{"scaleOut":{"stabilization":"10s","select":"Disabled"},"scaleIn":{"stabilization":"30s"}}"#,
    r#""replicas":{"min":1,"max":30},"metrics":[{"name":"latency","measure":{"over":"Mean","across":"Mean"},"window":"40s","staleAfter":"40s","track":{"value":1}},
       {"name":"connections","measure":{"over":"Max"},"window":"15s","staleAfter":"30s","track":{"perReplica":15}}],
       "behavior":{"scaleIn":{"stabilization":"5s"}}"#,
];

fn target(n: usize) -> TargetId {
    format!("prod/Deployment/t{n}").parse().unwrap()
}

fn spec(n: usize, variant: usize) -> String {
    format!(r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"t{n}"}},{}}}"#, SPECS[variant % SPECS.len()])
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and the partition ticks.
    Tick(i64),
    /// The log's clock is set back.
    Back(i64),
    /// Both sources mark.
    Marks,
    /// One source marks; the other one is late, or silent.
    Mark(u32),
    /// A part: of which metrics (bits), of which instances (bits), how many panes back, how large.
    Part {
        target: usize,
        source: u32,
        metrics: u8,
        instances: u8,
        back: i64,
        value: i64,
    },
    Fleet {
        target: usize,
        follow: bool,
        desired: u32,
        ready: u8,
    },
    Repeat {
        target: usize,
    },
    Incarnation {
        target: usize,
    },
    Policy {
        target: usize,
        variant: usize,
    },
    Unpolicy {
        target: usize,
    },
    Grant {
        target: usize,
    },
    Outcome {
        target: usize,
        result: OutcomeResult,
        replicas: Option<u32>,
    },
    Fails {
        target: usize,
        metric: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let t = || 0..TARGETS;
    let result = prop::sample::select(vec![
        OutcomeResult::Applied,
        OutcomeResult::Applied,
        OutcomeResult::Conflict,
        OutcomeResult::Failed,
        OutcomeResult::Expired,
        OutcomeResult::Superseded,
    ]);
    prop_oneof![
        8 => prop_oneof![4 => 500_i64..3_000, 1 => 3_000_i64..30_000].prop_map(Step::Tick),
        1 => prop_oneof![1_000_i64..60_000, 60_000_i64..900_000].prop_map(Step::Back),
        5 => Just(Step::Marks),
        2 => (0..SOURCES).prop_map(Step::Mark),
        14 => (t(), 0..SOURCES, any::<u8>(), any::<u8>(), prop_oneof![6 => Just(0_i64), 2 => 1_i64..4, 1 => 4_i64..24], 0_i64..120)
            .prop_map(|(target, source, metrics, instances, back, value)| Step::Part { target, source, metrics, instances, back, value }),
        3 => (t(), any::<bool>(), 0_u32..15, any::<u8>()).prop_map(|(target, follow, desired, ready)| Step::Fleet { target, follow, desired, ready }),
        1 => t().prop_map(|target| Step::Repeat { target }),
        1 => prop_oneof![6 => (t(), 0..SPECS.len()).prop_map(|(target, variant)| Step::Policy { target, variant }),
                         1 => t().prop_map(|target| Step::Unpolicy { target }), 1 => t().prop_map(|target| Step::Incarnation { target })],
        3 => t().prop_map(|target| Step::Grant { target }),
        3 => (t(), result, prop::option::of(0_u32..12)).prop_map(|(target, result, replicas)| Step::Outcome { target, result, replicas }),
        1 => (t(), 0..METRICS.len()).prop_map(|(target, metric)| Step::Fails { target, metric }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Policies and fleets first, so that most of a history has decisions.
    let begin = (0..SPECS.len(), 0..SPECS.len(), 0..SPECS.len()).prop_map(|(a, b, c)| {
        let first = |(target, variant)| [Step::Policy { target, variant }, Step::Fleet { target, follow: false, desired: 3, ready: 255 }];
        [a, b, c].into_iter().enumerate().flat_map(first).collect::<Vec<_>>()
    });
    (begin, prop::collection::vec(step(), 20..220)).prop_map(|(begin, rest)| [begin, rest].concat())
}

type Script = Vec<(Timestamp, Signal)>;

/// Folds a signal; everything that it caused.
fn fold(state: &mut State, offset: usize, (at, signal): &(Timestamp, Signal)) -> Vec<Effect> {
    let mut effects = Effects::new();
    let record = Located { partition: 0, offset: offset as Offset, at: *at, record: signal.clone() };
    DECIDE.apply(state, Input::Record(record), &mut effects);
    effects.take()
}

/// A target's world.
#[derive(Default, Clone)]
struct Place {
    uid: u32,
    sequence: i64,
    generation: i64,
    count: u32,
    fleet: Option<FleetObservation>,
    request: Option<Request>,
    open: Option<OpenCommand>,
    total: i64,
}

/// Plays the steps; what was written to the log, and what each record caused.
fn play(steps: &[Step]) -> (Script, Vec<Vec<Effect>>) {
    let mut places = vec![Place::default(); TARGETS];
    let (mut now, mut through) = (START, [START; SOURCES as usize]);
    let (mut state, mut script, mut caused) = (State::default(), Script::new(), Vec::new());
    for step in steps {
        let signals = match step {
            Step::Tick(ms) => {
                now += ms;
                vec![Signal::Tick(Tick {})]
            }
            Step::Back(ms) => {
                now -= ms;
                vec![Signal::Tick(Tick {})]
            }
            Step::Marks => (0..SOURCES).map(|source| mark(source, now, &mut through)).collect(),
            Step::Mark(source) => vec![mark(*source, now, &mut through)],
            step => signals(step, now, &mut places),
        };
        for signal in signals {
            let entry = (Timestamp::from_millis(now), signal);
            let effects = fold(&mut state, script.len(), &entry);
            for effect in &effects {
                if let Message::Request(request) = &effect.message {
                    let n = (0..TARGETS).find(|n| target(*n) == request.target).unwrap();
                    places[n].request = (!request.withdrawn).then(|| request.clone());
                }
            }
            script.push(entry);
            caused.push(effects);
        }
    }
    (script, caused)
}

fn mark(source: u32, now: i64, through: &mut [i64]) -> Signal {
    let to = &mut through[source as usize];
    // As aggregate does: never back, but with a clock that is set back by more than a minute.
    *to = if *to > now - 500 + 60_000 { now - 500 } else { (*to).max(now - 500) };
    Signal::Mark(Mark { source, of: SOURCES, through: Timestamp::from_millis(*to), pane_ms: PANE, records: 0, late: 0, rejected: 0, repeated: 0 })
}

fn signals(step: &Step, now: i64, places: &mut [Place]) -> Vec<Signal> {
    match *step {
        Step::Part { target: n, source, metrics, instances, back, value } => {
            let end = (now.div_euclid(PANE) + 1 - back) * PANE;
            places[n].total += value;
            let panes = METRICS.iter().enumerate().filter(|(i, _)| metrics >> i & 1 == 1).map(|(_, m)| pane(*m, end, instances, value, places[n].total));
            vec![Signal::Part(Part { target: target(n), source, panes: panes.collect() })]
        }
        Step::Fleet { target: n, follow, desired, ready } => {
            let place = &mut places[n];
            if !follow {
                place.count = desired;
            }
            place.sequence += 1;
            let seen = fleet(n, place, now, ready);
            place.fleet = Some(seen.clone());
            vec![Signal::Fleet(seen)]
        }
        Step::Repeat { target: n } => {
            let place = &mut places[n];
            place.sequence += 1;
            let sequence = place.sequence;
            place.fleet.iter_mut().for_each(|f| f.sequence = sequence);
            place.fleet.clone().map(Signal::Fleet).into_iter().collect()
        }
        Step::Incarnation { target: n } => {
            let place = &mut places[n];
            (place.uid, place.sequence) = (place.uid + 1, place.sequence + 1);
            vec![Signal::Fleet(fleet(n, place, now, 255))]
        }
        Step::Policy { target: n, variant } => vec![announce(n, places, Some(spec(n, variant)))],
        Step::Unpolicy { target: n } => vec![announce(n, places, None)],
        Step::Grant { target: n } => {
            let place = &mut places[n];
            let Some(request) = place.request.clone() else { return Vec::new() };
            if request.desired != request.current {
                let (from, to, epoch) = (request.current, request.desired, request.epoch);
                place.open = Some(OpenCommand { id: format!("{n}#{epoch}"), epoch, from, to, expires_at: Timestamp::from_millis(now + 30_000) });
            }
            let command = place.open.clone().filter(|o| o.epoch == request.epoch);
            let (target, epoch, desired) = (request.target, request.epoch, request.desired);
            vec![Signal::Grant(Grant { target, epoch, desired, granted: desired, limit: GrantLimit::None, command })]
        }
        Step::Outcome { target: n, result, replicas } => {
            let place = &mut places[n];
            let Some(open) = place.open.take() else { return Vec::new() };
            let replicas = if result == OutcomeResult::Applied { Some(open.to) } else { replicas };
            place.count = replicas.unwrap_or(place.count);
            vec![Signal::Outcome(Outcome { target: target(n), command: open.id, uid: None, result, replicas, revision: None, error: None })]
        }
        Step::Fails { target: n, metric } => {
            vec![Signal::SourceError(SourceError { target: target(n), metric: METRICS[metric].0.parse().unwrap(), error: "refused".to_owned() })]
        }
        Step::Tick(_) | Step::Back(_) | Step::Marks | Step::Mark(_) => Vec::new(),
    }
}

fn announce(n: usize, places: &mut [Place], spec: Option<String>) -> Signal {
    places[n].generation += 1;
    Signal::Policy(PolicyAnnouncement { target: target(n), spec, order: Order { source: "file:x".to_owned(), generation: places[n].generation } })
}

fn instance(i: u32) -> InstanceName {
    format!("i{i}").parse().unwrap()
}

fn fleet(n: usize, place: &Place, now: i64, ready: u8) -> FleetObservation {
    let instances = (0..place.count).map(|i| Instance {
        name: instance(i),
        phase: if ready >> (i % 8) & 1 == 1 { Phase::Running } else { Phase::Pending },
        ready: Some(ready >> (i % 8) & 1 == 1),
        deleting: false,
        started_at: Some(Timestamp::from_millis(START - 3_600_000)),
        ready_changed_at: Some(Timestamp::from_millis(now - 60_000)),
        requests: BTreeMap::from([("cpu".to_owned(), Amount::from_units(100))]),
    });
    FleetObservation {
        target: target(n),
        uid: format!("uid-{}", place.uid),
        term: 1,
        sequence: place.sequence,
        revision: None,
        desired: place.count,
        status_replicas: place.count,
        updating: false,
        instances: instances.collect(),
    }
}

fn pane((metric, kind): (&str, Kind), end: i64, instances: u8, value: i64, total: i64) -> Pane {
    let mut sketch = (kind == Kind::Distribution).then(Sketch::default);
    let names: Vec<InstanceName> = match kind {
        Kind::Delta => vec![InstanceName::none()],
        _ => (0..4).filter(|i| instances >> i & 1 == 1).map(instance).collect(),
    };
    let readings = names.into_iter().enumerate().map(|(i, name)| {
        let value = value + i64::try_from(i).unwrap() * 3;
        let last = Amount::from_units(if kind == Kind::Counter { total } else { value });
        sketch.iter_mut().for_each(|s| s.add(Amount::from_units(value).as_f64()));
        let histogram = (kind == Kind::Histogram).then(|| {
            Box::new(HistogramReading {
                bounds: vec![0.5, 2.0],
                counts: vec![total, total / 2, total / 3],
                count: total + total / 2 + total / 3,
                sum: Amount::from_units(total),
            })
        });
        (name, Reading { count: 1, sum: last, max: last, last, last_at: Timestamp::from_millis(end - 1_000 + value), histogram })
    });
    let instances = readings.collect();
    Pane { metric: metric.parse().unwrap(), kind, start: Timestamp::from_millis(end - PANE), end: Timestamp::from_millis(end), instances, sketch }
}

/// What the runtime keeps for a partition.
#[derive(Default)]
struct Saved {
    keys: BTreeMap<String, Vec<u8>>,
    wide: Option<Vec<u8>>,
    replay_from: Offset,
}

/// A round under way.
struct Writing {
    replay_from: Offset,
    wide: Vec<u8>,
    keys: std::collections::VecDeque<String>,
}

impl Saved {
    /// As the runtime does it: the wide state, the keys, then the input up to `next`, silently.
    fn restore(&self, script: &Script, next: usize) -> State {
        let mut state = State::default();
        if let Some(wide) = &self.wide {
            state.restore_wide(wide).unwrap();
        }
        for (key, bytes) in &self.keys {
            state.restore(key, bytes).unwrap();
        }
        for (offset, entry) in script.iter().enumerate().take(next).skip(usize::try_from(self.replay_from).unwrap()) {
            fold(&mut state, offset, entry);
        }
        state
    }
}

fn decisions(effects: &[Effect]) -> impl Iterator<Item = &Decision> {
    effects.iter().filter_map(|e| if let Message::Audit(Audit::Decision(d)) = &e.message { Some(d) } else { None })
}

fn words(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|e| format!("{:?}", e.message)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    /// Killed at any point, with rounds of snapshots that were complete, torn, or never begun.
    #[test]
    fn a_restart_changes_nothing(steps in steps(), disturbances in prop::collection::vec(prop_oneof![20 => Just(0_u8), 4 => Just(1), 2 => Just(2)], 400)) {
        let (script, caused) = play(&steps);
        let (mut state, mut saved, mut writing) = (State::default(), Saved::default(), None::<Writing>);
        for (offset, entry) in script.iter().enumerate() {
            let effects = fold(&mut state, offset, entry);
            prop_assert_eq!(words(&effects), words(&caused[offset]), "at offset {}: {:?}", offset, entry);
            let next = offset as Offset + 1;
            match disturbances[offset % disturbances.len()] {
                1 if writing.is_none() => {
                    let replay_from = state.replay_from(next);
                    let keys = state.take_changed().into();
                    writing = Some(Writing { replay_from, wide: state.encode_wide(next), keys });
                }
                2 => {
                    writing = None;
                    state = saved.restore(&script, offset + 1);
                }
                _ => {}
            }
            if let Some(round) = &mut writing {
                match round.keys.pop_front() {
                    Some(key) => {
                        let bytes = state.encode(&key, next).unwrap();
                        saved.keys.insert(key, bytes);
                    }
                    None => {
                        saved.wide = Some(round.wide.clone());
                        saved.replay_from = round.replay_from;
                        writing = None;
                    }
                }
            }
        }
    }

    /// Without the signals of the others, a target decides the same.
    #[test]
    fn a_target_alone_decides_as_among_others(steps in steps(), n in 0..TARGETS) {
        let (script, caused) = play(&steps);
        let own = |effects: &[Effect]| decisions(effects).filter(|d| d.target == target(n)).cloned().collect::<Vec<_>>();
        let mut state = State::default();
        for ((offset, entry), caused) in script.iter().enumerate().zip(&caused) {
            if entry.1.target().is_none_or(|t| *t == target(n)) {
                prop_assert_eq!(own(&fold(&mut state, offset, entry)), own(caused), "at offset {}", offset);
            }
        }
    }

    /// Checked against the policy in force alone: bounds, modes, disabled directions, blind metrics.
    #[test]
    fn limits_hold(steps in steps()) {
        let (script, caused) = play(&steps);
        let mut policies: BTreeMap<TargetId, Policy> = BTreeMap::new();
        for (entry, effects) in script.iter().zip(&caused) {
            if let Signal::Policy(PolicyAnnouncement { target, spec: Some(spec), .. }) = &entry.1 {
                policies.insert(target.clone(), resolve_spec_json(spec, target).unwrap());
            }
            for decision in decisions(effects) {
                within_limits(decision, &policies[&decision.target])?;
            }
        }
    }
}

fn within_limits(decision: &Decision, policy: &Policy) -> Result<(), TestCaseError> {
    let Decision { current, desired, .. } = *decision;
    prop_assert!((1..=64).contains(&desired) || desired == current, "{decision:?}");
    if desired < current {
        prop_assert!(desired >= policy.min.min(current), "below min: {decision:?}");
        prop_assert!(policy.mode != Mode::OutOnly, "{decision:?}");
        prop_assert!(policy.scale_in.select != Select::Disabled);
        let blind = policy
            .metrics
            .iter()
            .zip(&decision.metrics)
            .any(|(m, report)| m.proposes() && m.when_blind == loadline::model::policy::WhenBlind::HoldIn && blind(report.status));
        let falls_back = policy.fallback.behavior == FallbackBehavior::Static;
        prop_assert!(!blind || falls_back || current > policy.max, "a blind metric let it shrink: {decision:?}");
    }
    if desired > current {
        prop_assert!(desired <= policy.max.max(policy.min), "above max: {decision:?}");
        prop_assert!(policy.scale_out.select != Select::Disabled || current < policy.min, "{decision:?}");
    }
    Ok(())
}

fn blind(status: MetricStatus) -> bool {
    !matches!(status, MetricStatus::Ok | MetricStatus::Idle)
}
