//! The worked example of `docs/how-it-decides.md`, played: its policy and its table of samples go through the fold that runs
//! live, commands are carried out as the page says, and every decision and every sum that it shows must come out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

#[path = "common/page.rs"]
mod page;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use loadline::cli::table;
use loadline::model::{
    Amount, Command, Decision, FleetObservation, Instance, InstanceName, Kind, Mark, Order, Outcome, OutcomeResult, Pane, Part, Phase, PolicyAnnouncement,
    Reading, Signal, TargetId, Timestamp,
};
use loadline::runtime::replay::{Caused, Replay};
use loadline::stages::arbitrate::Arbitrate;
use loadline::wire::{document, jsonl, words};

use page::{Block, Page};

const PANE_MS: i64 = 5_000;
/// From a pane's end to its mark: `grace` of an installation that does not say otherwise.
const GRACE_MS: i64 = 500;
const STARTS_MS: i64 = 8_000;
const METRICS: [&str; 2] = ["cpu", "queue_depth"];

/// A time of day on 1 March 2026.
fn time(text: &str) -> i64 {
    format!("2026-03-01T{text}Z").parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_millisecond()
}

/// One row of the table: what is measured in each pane that ends from `first` to `last`.
struct Row {
    first: i64,
    last: i64,
    /// By column: an instance, or `queue_depth`.
    values: BTreeMap<String, i64>,
}

fn rows(page: &Page) -> Vec<Row> {
    let table = page.table("panes that end at");
    let columns = &table[0];
    let row = |cells: &Vec<String>| {
        let (first, last) = cells[0].split_once(" to ").unwrap_or((&cells[0], &cells[0]));
        let values = columns.iter().zip(cells).skip(1).filter(|(_, cell)| *cell != "–").map(|(name, cell)| (name.clone(), cell.parse().unwrap()));
        Row { first: time(first), last: time(last), values: values.collect() }
    };
    table[1..].iter().map(row).collect()
}

/// The target: its processes, and the loop from decision to count.
struct World {
    target: TargetId,
    replay: Replay,
    now: i64,
    sequence: i64,
    /// Each instance's start.
    started: Vec<i64>,
    /// Those that were not ready when the fleet was last reported.
    starting: usize,
    decisions: BTreeMap<i64, Decision>,
}

impl World {
    fn new(page: &Page) -> World {
        let text = &page.block("yaml").text;
        let file = document::policies_in(text, "how-it-decides.md");
        let problems: Vec<String> = file.all_problems().iter().map(ToString::to_string).collect();
        assert!(problems.is_empty(), "the page's policy has errors or warnings: {problems:?}");
        let policy = &file.documents[0];
        let target = policy.target.clone().unwrap();
        let mut world = World {
            target: target.clone(),
            replay: Replay::closed(Arbitrate::default()),
            now: rows(page)[0].first - PANE_MS,
            sequence: 0,
            started: Vec::new(),
            starting: 0,
            decisions: BTreeMap::new(),
        };
        let order = Order { source: "file:how-it-decides.md".to_owned(), generation: 1 };
        world.say(&Signal::Policy(PolicyAnnouncement { target, spec: Some(policy.spec_json.clone()), order }));
        world.started = vec![world.now - 3_600_000; 4];
        world.observe();
        world
    }

    /// A signal as a line and back, as an export has it; its commands are carried out.
    fn say(&mut self, signal: &Signal) {
        let line = jsonl::signal_to_line(Timestamp::from_millis(self.now), 0, signal);
        let (at, _, signal) = jsonl::line_to_signal(&line).unwrap();
        let mut commands = Vec::new();
        for caused in self.replay.signal(at, 0, signal) {
            match caused {
                Caused::Decision(decision) => drop(self.decisions.insert(decision.at.as_millis(), decision)),
                Caused::Command(command) => commands.push(command),
                Caused::Trouble(alert) => panic!("{}", alert.message),
                Caused::Request(_) | Caused::Grant(_) => {}
            }
        }
        commands.into_iter().for_each(|command| self.carry_out(command));
    }

    fn carry_out(&mut self, command: Command) {
        self.now += 100;
        self.started.resize(command.to as usize, self.now);
        let (replicas, revision) = (Some(command.to), Some(self.sequence + 1));
        self.say(&Signal::Outcome(Outcome {
            target: command.target,
            command: command.id,
            uid: Some(command.uid),
            result: OutcomeResult::Applied,
            replicas,
            revision,
            error: None,
        }));
        self.observe();
    }

    fn observe(&mut self) {
        self.sequence += 1;
        let now = self.now;
        let instance = |(i, started): (usize, &i64)| {
            let ready = started + STARTS_MS <= now;
            Instance {
                name: format!("{}-{}", self.target.name(), i + 1).parse().unwrap(),
                phase: Phase::Running,
                ready: Some(ready),
                deleting: false,
                started_at: Some(Timestamp::from_millis(*started)),
                ready_changed_at: Some(Timestamp::from_millis(if ready { started + STARTS_MS } else { *started })),
                requests: BTreeMap::from([("cpu".to_owned(), Amount::from_millis(500))]),
            }
        };
        let instances: Vec<Instance> = self.started.iter().enumerate().map(instance).collect();
        self.starting = instances.iter().filter(|i| i.ready == Some(false)).count();
        let count = u32::try_from(instances.len()).unwrap();
        self.say(&Signal::Fleet(FleetObservation {
            target: self.target.clone(),
            uid: "a".to_owned(),
            term: 1,
            sequence: self.sequence,
            revision: Some(self.sequence),
            desired: count,
            status_replicas: count,
            updating: false,
            instances,
        }));
    }

    /// A pane that ends at `end`, and its mark.
    fn pane(&mut self, end: i64, row: &Row) {
        let ready = self.started.iter().map(|started| started + STARTS_MS).filter(|at| *at < end).max();
        if let Some(at) = ready.filter(|_| self.starting > 0) {
            self.now = self.now.max(at);
            self.observe();
        }
        self.now = end;
        let part: Vec<Pane> = METRICS.iter().filter_map(|metric| pane(metric, row, end)).collect();
        self.say(&Signal::Part(Part { target: self.target.clone(), source: 0, panes: part }));
        self.now = end + GRACE_MS;
        self.say(&Signal::Mark(Mark {
            source: 0,
            of: 1,
            through: Timestamp::from_millis(end),
            pane_ms: PANE_MS,
            records: 1,
            late: 0,
            rejected: 0,
            repeated: 0,
        }));
    }
}

fn pane(metric: &str, row: &Row, end: i64) -> Option<Pane> {
    let last_at = Timestamp::from_millis(end - 1_000);
    let reading = |value: Amount| Reading { count: 1, sum: value, max: value, last: value, last_at, histogram: None };
    let instances: BTreeMap<InstanceName, Reading> = if metric == "cpu" {
        let instances = row.values.iter().filter(|(name, _)| *name != "queue_depth");
        instances.map(|(name, milli)| (name.parse().unwrap(), reading(Amount::from_millis(*milli)))).collect()
    } else {
        row.values.get(metric).map(|value| (InstanceName::none(), reading(Amount::from_units(*value)))).into_iter().collect()
    };
    let (start, end) = (Timestamp::from_millis(end - PANE_MS), Timestamp::from_millis(end));
    (!instances.is_empty()).then(|| Pane { metric: metric.parse().unwrap(), kind: Kind::Gauge, start, end, instances, sketch: None })
}

/// A decision as `loadline why` tells it: verdict, metrics, steps.
fn told(decision: &Decision) -> String {
    let mut text = Vec::new();
    let dash = |said: Option<String>| said.unwrap_or_else(|| "–".to_owned());
    let metrics = decision.metrics.iter().map(|m| {
        let asks = m.proposal.map_or_else(|| "–".to_owned(), |n| n.to_string());
        vec![
            m.name.to_string(),
            format!("{:?}", m.status),
            dash(m.value.map(|value| words::figure(value, m))),
            dash(words::against(m)),
            asks,
            m.note.clone().unwrap_or_default(),
        ]
    });
    table::write(&mut text, &["METRIC", "STATUS", "VALUE", "AGAINST", "ASKS FOR", ""], metrics).unwrap();
    text.push(b'\n');
    let steps = decision.steps.iter().map(|step| {
        let bound = if step.step == decision.binding { " *" } else { "" };
        let change = if step.before == step.after { step.after.to_string() } else { format!("{} → {}", step.before, step.after) };
        vec![format!("{:?}{bound}", step.step), change, words::why(decision, step)]
    });
    table::write(&mut text, &["STEP", "REPLICAS", "WHY"], steps).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{} {}\n\n{}\n", decision.target, words::verdict(decision), lines.join("\n"))
}

#[test]
fn every_decision_of_the_example_comes_out_as_it_is_told() {
    let page = Page::read("docs/how-it-decides.md");
    let mut world = World::new(&page);
    for row in rows(&page) {
        for end in (row.first..=row.last).step_by(usize::try_from(PANE_MS).unwrap()) {
            world.pane(end, &row);
        }
    }
    let shown: Vec<(&str, &Block)> = page.blocks.iter().filter_map(|b| Some((b.info.strip_prefix("text ")?.strip_prefix("decided ")?, b))).collect();
    assert!(shown.len() >= 5, "the page shows {} decisions", shown.len());
    let mut wrong = String::new();
    for (at, block) in shown {
        let through = Timestamp::from_millis(time(at));
        let Some(decision) = world.decisions.values().find(|d| d.through == through) else { panic!("nothing is decided on what was measured up to {at}") };
        let is = told(decision);
        if is != block.text {
            write!(wrong, "line {}, decided {at}, is:\n{is}\nand not:\n{}\n", block.line, block.text).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_sum_of_the_example_is_right() {
    let page = Page::read("docs/how-it-decides.md");
    let sums = page.blocks.iter().filter(|b| b.info == "text arithmetic").flat_map(|b| b.text.lines().map(move |line| (b.line, line)));
    let mut checked = 0;
    for (line, sum) in sums {
        let (left, right) = sum.split_once(" = ").unwrap_or_else(|| panic!("after line {line}: {sum} is no equation"));
        let (left, right) = (Sum::of(left), Sum::of(right));
        assert!((left - right).abs() < 1e-9, "after line {line}: {sum}: it is {left}");
        checked += 1;
    }
    assert!(checked >= 10, "only {checked} sums were found");
}

/// The reasons that the page explains are those that the program gives.
#[test]
fn what_may_hold_a_count_is_said_in_the_words_of_the_program() {
    let page = Page::read("docs/how-it-decides.md");
    let words = include_str!("../src/wire/words.rs");
    for row in &page.table("`why` says")[1..] {
        let said = row[0].split('*').nth(1).unwrap_or_else(|| panic!("{row:?} quotes nothing"));
        for part in said.split([',', '…', 'N']).map(str::trim).filter(|part| !part.is_empty()) {
            assert!(words.contains(part), "{part:?} is not said by the program");
        }
    }
}

/// What the page's sums are written in: + − × /, brackets, ⌈rounded up⌉ and ⌊rounded down⌋.
struct Sum<'a> {
    rest: &'a str,
}

impl Sum<'_> {
    fn of(text: &str) -> f64 {
        let mut sum = Sum { rest: text };
        let value = sum.terms();
        assert!(sum.rest.trim().is_empty(), "{:?} of {text:?} is not understood", sum.rest);
        value
    }

    fn take(&mut self, sign: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn terms(&mut self) -> f64 {
        let mut value = self.factors();
        loop {
            if self.take('+') {
                value += self.factors();
            } else if self.take('−') {
                value -= self.factors();
            } else {
                return value;
            }
        }
    }

    fn factors(&mut self) -> f64 {
        let mut value = self.operand();
        loop {
            if self.take('×') {
                value *= self.operand();
            } else if self.take('/') {
                value /= self.operand();
            } else {
                return value;
            }
        }
    }

    fn operand(&mut self) -> f64 {
        for (open, close, what) in [('(', ')', None), ('⌈', '⌉', Some(f64::ceil as fn(f64) -> f64)), ('⌊', '⌋', Some(f64::floor as fn(f64) -> f64))] {
            if self.take(open) {
                let value = self.terms();
                assert!(self.take(close), "{close} is missing before {:?}", self.rest);
                return what.map_or(value, |what| what(value));
            }
        }
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        self.rest = &text[end..];
        text[..end].parse().unwrap_or_else(|_| panic!("{text:?} begins with no number"))
    }
}
