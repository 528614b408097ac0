//! A small world for one target: what it sees goes through the fold, and its commands are carried out.

#![allow(clippy::needless_pass_by_value, clippy::format_collect, reason = "a story reads better so")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use loadline::model::{
    Amount, Audit, Command, Decision, FleetObservation, Grant, GrantLimit, HistogramReading, Instance, InstanceName, Kind, Mark, Message, OpenCommand, Order,
    Outcome, OutcomeResult, Pane, Part, Phase, PolicyAnnouncement, Reading, Signal, Sketch, SourceError, TargetId, Tick, Timestamp, Verdict,
};
use loadline::runtime::replay::{Caused, Replay};
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::{Decide, State};
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire::jsonl;

const START: i64 = 1_800_000_000_000;
const PANE: i64 = 5_000;

/// What a metric shows in one pane.
#[derive(Clone)]
pub(crate) enum Seen {
    /// Nothing.
    None,
    /// A gauge: each instance shows this.
    Each(f64),
    /// A gauge without instances.
    Total(f64),
    /// A counter: each instance has counted up to this.
    Count(f64),
    /// Increments, without instances: so much in this pane.
    More(f64),
    /// A distribution: these were observed.
    Times(Vec<f64>),
    /// A cumulative histogram without instances: so many up to 0.5, up to 1, and above.
    Buckets([i64; 3]),
}

pub(crate) struct Story {
    name: &'static str,
    replay: Replay,
    trace: String,
    now: i64,
    generation: i64,
    sequence: i64,
    /// Which incarnation of the target there is.
    uid: &'static str,
    count: u32,
    /// When each replica was started.
    started: Vec<i64>,
    sources: u32,
    marking: Vec<u32>,
    /// What comes of each command; nothing is heard where it is `None`.
    actuator: Option<OutcomeResult>,
    open: Option<Command>,
    commands: Vec<Command>,
    decisions: Vec<Decision>,
    /// The same fold once more, for what a replay does not tell.
    fold: State,
    folded: u64,
    alerts: Vec<String>,
    requests: usize,
    written: usize,
    arbiter_answers: bool,
}

fn target() -> TargetId {
    "prod/Deployment/shop".parse().unwrap()
}

impl Story {
    /// A target with a policy of these fields, which nobody has seen yet.
    pub(crate) fn new(name: &'static str, spec: &str) -> Story {
        let mut story = Story {
            name,
            replay: Replay::closed(Arbitrate::default()),
            trace: String::new(),
            now: START + 2_000,
            generation: 0,
            sequence: 0,
            uid: "a",
            count: 0,
            started: Vec::new(),
            sources: 1,
            marking: vec![0],
            actuator: Some(OutcomeResult::Applied),
            open: None,
            commands: Vec::new(),
            decisions: Vec::new(),
            fold: State::default(),
            folded: 0,
            alerts: Vec::new(),
            requests: 0,
            written: 0,
            arbiter_answers: true,
        };
        story.policy(spec);
        story
    }

    fn say(&mut self, signal: Signal) {
        let at = Timestamp::from_millis(self.now);
        if !self.trace.is_empty() {
            self.trace.push('\n');
        }
        writeln!(self.trace, "{}", jsonl::signal_to_line(at, 0, &signal)).unwrap();
        self.fold(at, signal.clone());
        for caused in self.replay.signal(at, 0, signal) {
            let line = match caused {
                Caused::Decision(decision) => {
                    let line = jsonl::decision_to_line(at, &decision);
                    self.decisions.push(decision);
                    line
                }
                Caused::Command(command) => {
                    let line = jsonl::command_to_line(at, &command);
                    self.commands.push(command.clone());
                    self.open = Some(command);
                    line
                }
                Caused::Trouble(alert) => panic!("{}", alert.message),
                Caused::Request(request) => jsonl::request_to_line(at, &request),
                Caused::Grant(grant) => {
                    if self.arbiter_answers {
                        self.fold(at, Signal::Grant(grant.clone()));
                    }
                    jsonl::grant_to_line(at, &grant)
                }
            };
            writeln!(self.trace, "{line}").unwrap();
        }
    }

    fn fold(&mut self, at: Timestamp, record: Signal) {
        let mut effects = Effects::new();
        let input = Input::Record(Located { partition: 0, offset: self.folded, at, record });
        Decide::default().apply(&mut self.fold, input, &mut effects);
        self.folded += 1;
        for effect in effects.take() {
            match effect.message {
                Message::Alert(alert) => self.alerts.push(format!("{} {:?}", alert.name, alert.state)),
                Message::Request(_) => self.requests += 1,
                Message::Audit(Audit::Decision(_)) => self.written += 1,
                _ => {}
            }
        }
    }

    /// The alerts so far: name and state.
    pub(crate) fn alerts(&self) -> Vec<&str> {
        self.alerts.iter().map(String::as_str).collect()
    }

    /// The arbiter says nothing any more.
    pub(crate) fn no_arbiter(&mut self) {
        self.arbiter_answers = false;
    }

    /// How many claims were sent, and how many decisions would be written down live.
    pub(crate) fn sent_and_written(&self) -> (usize, usize) {
        (self.requests, self.written)
    }

    /// The policy is announced.
    pub(crate) fn policy(&mut self, fields: &str) {
        self.generation += 1;
        let spec = format!(r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"shop"}},{fields}}}"#);
        let spec = serde_json::from_str::<serde_json::Value>(&spec).unwrap().to_string();
        let order = Order { source: "file:shop.yaml".to_owned(), generation: self.generation };
        self.say(Signal::Policy(PolicyAnnouncement { target: target(), spec: Some(spec), order }));
        self.carry_out();
    }

    /// The fleet is seen with so many replicas, all ready.
    pub(crate) fn fleet(&mut self, count: u32) {
        self.observe(count);
        self.carry_out();
    }

    /// The target was deleted and made anew under its name.
    pub(crate) fn recreated(&mut self, count: u32) {
        self.uid = "b";
        self.fleet(count);
    }

    fn observe(&mut self, count: u32) {
        (self.count, self.sequence) = (count, self.sequence + 1);
        let first = self.sequence == 1;
        self.started.resize(count as usize, if first { self.now - 3_600_000 } else { self.now });
        let instances = self.started.iter().enumerate().map(|(i, started)| Instance {
            name: instance(i),
            phase: Phase::Running,
            ready: Some(true),
            deleting: false,
            started_at: Some(Timestamp::from_millis(*started)),
            ready_changed_at: Some(Timestamp::from_millis(*started)),
            requests: BTreeMap::from([("cpu".to_owned(), Amount::from_units(1)), ("memory".to_owned(), Amount::from_units(1_073_741_824))]),
        });
        let seen = FleetObservation {
            target: target(),
            uid: self.uid.to_owned(),
            term: 1,
            sequence: self.sequence,
            revision: Some(self.sequence),
            desired: count,
            status_replicas: count,
            updating: false,
            instances: instances.collect(),
        };
        self.say(Signal::Fleet(seen));
    }

    /// What comes of each command from now on.
    pub(crate) fn actuator(&mut self, result: Option<OutcomeResult>) {
        self.actuator = result;
    }

    fn carry_out(&mut self) {
        while let (Some(result), Some(command)) = (self.actuator, self.open.take_if(|_| self.actuator.is_some())) {
            self.now += 100;
            let applied = result == OutcomeResult::Applied;
            let replicas = applied.then_some(command.to);
            let revision = applied.then_some(self.sequence + 1);
            let outcome = Outcome { target: target(), command: command.id, uid: None, result, replicas, revision, error: None };
            self.say(Signal::Outcome(outcome));
            if applied {
                self.now += 100;
                self.observe(command.to);
            }
        }
    }

    /// So many panes of the same, each with its marks and the tick after it.
    pub(crate) fn panes(&mut self, seen: &[(&str, Seen)], count: usize) {
        for _ in 0..count {
            let end = (self.now.div_euclid(PANE) + 1) * PANE;
            self.now = end;
            let panes: Vec<Pane> = seen.iter().filter_map(|(metric, seen)| self.pane(metric, seen, end)).collect();
            if !panes.is_empty() {
                self.say(Signal::Part(Part { target: target(), source: 0, panes }));
            }
            self.now = end + 500;
            for source in self.marking.clone() {
                let through = Timestamp::from_millis(end);
                self.say(Signal::Mark(Mark { source, of: self.sources, through, pane_ms: PANE, records: 1, late: 0, rejected: 0, repeated: 0 }));
            }
            self.carry_out();
            self.now = self.now.max(end + 1_000);
            self.say(Signal::Tick(Tick {}));
            self.carry_out();
        }
    }

    /// Another source's part, of the next pane.
    pub(crate) fn part_of(&mut self, source: u32, metric: &str, seen: Seen) {
        let end = (self.now.div_euclid(PANE) + 1) * PANE;
        let panes = self.pane(metric, &seen, end).into_iter().collect();
        self.say(Signal::Part(Part { target: target(), source, panes }));
    }

    /// A part of a pane that was complete `back` panes ago.
    pub(crate) fn late(&mut self, metric: &str, seen: Seen, back: i64) {
        let end = (self.now.div_euclid(PANE) - back) * PANE;
        let panes = self.pane(metric, &seen, end).into_iter().collect();
        self.say(Signal::Part(Part { target: target(), source: 0, panes }));
    }

    fn pane(&self, metric: &str, seen: &Seen, end: i64) -> Option<Pane> {
        let at = Timestamp::from_millis(end - 1_000);
        let reading = |value: f64| {
            let value = Amount::from_f64(value).unwrap();
            Reading { count: 1, sum: value, max: value, last: value, last_at: at, histogram: None }
        };
        let each = |value: f64| (0..self.count as usize).map(|i| (instance(i), reading(value))).collect();
        let (kind, instances, sketch) = match seen {
            Seen::None => return None,
            Seen::Each(value) => (Kind::Gauge, each(*value), None),
            Seen::Count(value) => (Kind::Counter, each(*value), None),
            Seen::More(value) => (Kind::Delta, BTreeMap::from([(InstanceName::none(), reading(*value))]), None),
            Seen::Total(value) => (Kind::Gauge, BTreeMap::from([(InstanceName::none(), reading(*value))]), None),
            Seen::Times(times) => {
                let mut sketch = Sketch::default();
                times.iter().for_each(|time| sketch.add(*time));
                let amounts: Vec<Amount> = times.iter().map(|t| Amount::from_f64(*t).unwrap()).collect();
                let (sum, max) = (amounts.iter().copied().sum(), amounts.iter().copied().max().unwrap());
                let all = Reading { count: i64::try_from(times.len()).unwrap(), sum, max, last: max, last_at: at, histogram: None };
                (Kind::Distribution, BTreeMap::from([(InstanceName::none(), all)]), Some(sketch))
            }
            Seen::Buckets(counts) => {
                let count = counts.iter().sum();
                let sum = Amount::from_units(count);
                let histogram = HistogramReading { bounds: vec![0.5, 1.0], counts: counts.to_vec(), count, sum };
                let all = Reading { histogram: Some(Box::new(histogram)), ..reading(0.0) };
                (Kind::Histogram, BTreeMap::from([(InstanceName::none(), all)]), None)
            }
        };
        let (start, end) = (Timestamp::from_millis(end - PANE), Timestamp::from_millis(end));
        Some(Pane { metric: metric.parse().unwrap(), kind, start, end, instances, sketch })
    }

    /// The source of a metric fails.
    pub(crate) fn source_fails(&mut self, metric: &str, error: &str) {
        self.say(Signal::SourceError(SourceError { target: target(), metric: metric.parse().unwrap(), error: error.to_owned() }));
        self.carry_out();
    }

    /// The metrics come from so many partitions, all of which mark.
    pub(crate) fn sources(&mut self, of: u32) {
        (self.sources, self.marking) = (of, (0..of).collect());
    }

    /// From now on only this source marks.
    pub(crate) fn marks_only(&mut self, source: u32) {
        self.marking = vec![source];
    }

    /// Time passes, with nothing but a tick at its end.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += i64::try_from(time.as_millis()).unwrap();
        self.say(Signal::Tick(Tick {}));
        self.carry_out();
    }

    fn tell(decision: &Decision) -> String {
        let step = decision.steps.iter().rev().find(|s| s.before != s.after).or(decision.steps.first()).unwrap();
        let metric = step.metric.as_ref().map(|m| format!(" {m}")).unwrap_or_default();
        format!("{:?} {} -> {}: {:?}{metric}", decision.verdict, decision.current, decision.desired, step.reason)
    }

    fn all(&self) -> String {
        self.decisions.iter().map(|d| format!("{:>4} s  {}\n", (d.at.as_millis() - START) / 1_000, Story::tell(d))).collect()
    }

    /// The last decision begins as said.
    #[track_caller]
    pub(crate) fn decided(&self, expected: &str) {
        let last = self.decisions.last().map(Story::tell).unwrap_or_default();
        assert!(last.starts_with(expected), "expected {expected:?} last, of\n{}", self.all());
    }

    /// The last decision that changes the count is as said, and was carried out.
    #[track_caller]
    pub(crate) fn moved(&self, expected: &str) {
        let last = self.decisions.iter().rev().find(|d| matches!(d.verdict, Verdict::ScaleOut | Verdict::ScaleIn));
        let told = last.map(Story::tell).unwrap_or_default();
        assert!(told.starts_with(expected), "expected to move {expected:?}, of\n{}", self.all());
        assert_eq!(last.map(|d| d.desired), Some(self.count), "it was not carried out");
    }

    /// The metric's status in the last decision.
    pub(crate) fn status_of(&self, metric: &str) -> String {
        let last = self.decisions.last().unwrap();
        format!("{:?}", last.metrics.iter().find(|m| m.name.as_str() == metric).unwrap().status)
    }

    pub(crate) fn commands(&self) -> usize {
        self.commands.len()
    }

    /// What comes of a command, said out of turn.
    pub(crate) fn outcome(&mut self, command: usize, result: OutcomeResult, replicas: Option<u32>, revision: i64) {
        let Command { id: command, uid, .. } = self.commands[command].clone();
        self.say(Signal::Outcome(Outcome { target: target(), command, uid: Some(uid), result, replicas, revision: Some(revision), error: None }));
    }

    /// The arbiter names a command once more.
    pub(crate) fn grant_again(&mut self, command: usize) {
        let Command { target, epoch, to, id, from, expires_at, .. } = self.commands[command].clone();
        let command = Some(OpenCommand { id, epoch, from, to, expires_at });
        self.say(Signal::Grant(Grant { target, epoch, desired: to, granted: to, limit: GrantLimit::None, command }));
    }

    /// The last command's count.
    pub(crate) fn commanded(&self) -> Option<u32> {
        self.commands.last().map(|c| c.to)
    }

    /// The log's clock is set back.
    pub(crate) fn clock_back(&mut self, by: Duration) {
        self.now -= i64::try_from(by.as_millis()).unwrap();
    }

    /// Whether a line of the trace says this.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.trace.contains(text)
    }

    pub(crate) fn decisions(&self) -> usize {
        self.decisions.len()
    }

    /// The whole trace is as it is written down.
    #[track_caller]
    pub(crate) fn ends(self) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{}.jsonl", self.name));
        if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
            std::fs::write(&path, &self.trace).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, (is, should)) in (1..).zip(self.trace.lines().zip(golden.lines())) {
            assert_eq!(is, should, "{} line {number}; its decisions are\n{}", path.display(), self.all());
        }
        assert_eq!(self.trace.lines().count(), golden.lines().count(), "{}", path.display());
    }
}

fn instance(i: usize) -> InstanceName {
    format!("shop-{}", i + 1).parse().unwrap()
}
