//! Policies as the simulation draws them, what their metrics measure of a load, and, computed apart from the program,
//! the counts at which such a policy is content.
//!
//! Windows and limits are short, so that a run of a few virtual minutes sees them all end.

use std::collections::BTreeSet;

use loadline::model::Amount;
use serde_json::{Value, json};

use super::scenario::{Draw, Millis};

/// More than any target of a run comes to.
const MOST_REPLICAS: u32 = 64;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its role.
    pub role: &'static str,
    /// Its mode.
    pub mode: &'static str,
    /// Its fleet.
    pub fleet: &'static str,
    /// Its priority.
    pub priority: i64,
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// Out and in.
    pub rules: [Rules; 2],
    /// Percent above and below the target that ask for nothing.
    pub tolerance: [u32; 2],
    /// `startup`, in seconds: CPU initialization and readiness delay.
    pub startup_s: [u64; 2],
    /// `fallback`: after how many seconds, what, how many.
    pub fallback: (u64, &'static str, u32),
    /// `evaluateEvery`, in seconds.
    pub evaluate_every_s: Option<u64>,
    /// Fields that are not written, so that the default of the role holds: what is above has that value too.
    pub omitted: BTreeSet<&'static str>,
}

/// A metric of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// What it is and asks for.
    pub rule: Rule,
    /// `window`, in seconds.
    pub window_s: u64,
    /// `staleAfter`, in seconds.
    pub stale_s: u64,
    /// `whenBlind: Ignore`.
    pub ignore: bool,
    /// `threshold.for`, in seconds, of a threshold.
    pub for_s: u64,
    /// Whether its kind is written.
    pub kind: bool,
    /// `unit`, where it is written.
    pub unit: Option<&'static str>,
}

/// What a metric measures of a load, and asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A queue of ten a unit of load, of the target as a whole: so many for each replica.
    Queue(u32),
    /// A counter of each instance, of ten a second a unit of load: so many a second for each replica.
    Requests(u32),
    /// 0.6 cores a unit of load, shared: so many percent of the one core that each requests.
    Cpu(u32),
    /// A level of each instance that has a constant part: the largest tracks this.
    Level(u32),
    /// A share of the 512 MiB that each instance requests, as of the CPU: so many percent.
    Memory(u32),
    /// Increments of ten a second a unit of load, of the target as a whole: so many a second for each replica.
    Orders(u32),
    /// Ten a unit of load, of each instance, and over the instances: out above, in below.
    Busy(u32, Option<u32>, &'static str),
    /// As `Latency`, as a cumulative histogram.
    Duration(u32, Option<u32>),
    /// Twenty a unit of load, for each replica: out above, in below.
    Backlog(u32, Option<u32>, &'static str),
    /// Response times of 100 ms a unit of load and replica, each observed: the 90th percentile, in ms.
    Latency(u32, Option<u32>),
    /// Observed only, increments.
    Observed,
}

/// One direction of `behavior`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// In seconds.
    pub stabilization_s: u64,
    /// In seconds.
    pub cooldown_s: u64,
    /// `Max`, `Min` or `Disabled`.
    pub select: &'static str,
    /// Percent or replicas, and the period in seconds.
    pub policies: Vec<(Rate, u64)>,
}

/// How much a rate policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Of the count at the start of the period.
    Percent(u32),
    /// As they are.
    Replicas(u32),
}

impl Rule {
    /// The metric's name.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Queue(_) => "queue_depth",
            Rule::Requests(_) => "rps",
            Rule::Cpu(_) => "cpu",
            Rule::Level(_) => "level",
            Rule::Memory(_) => "memory",
            Rule::Orders(_) => "orders",
            Rule::Busy(..) => "busy",
            Rule::Duration(..) => "duration",
            Rule::Backlog(..) => "backlog",
            Rule::Latency(..) => "response_time",
            Rule::Observed => "jobs",
        }
    }

    /// Whether the instances send it; else it is the target's as a whole.
    pub fn is_of_instances(self) -> bool {
        matches!(self, Rule::Requests(_) | Rule::Cpu(_) | Rule::Memory(_) | Rule::Level(_) | Rule::Latency(..) | Rule::Busy(..) | Rule::Duration(..))
    }

    /// Whether as many replicas are asked for as bring what each measures to its target: one that tells nothing counts as
    /// at its target then, where the others would let the fleet shrink.
    pub fn tracks_each_instance(self) -> bool {
        matches!(self, Rule::Requests(_) | Rule::Cpu(_) | Rule::Memory(_))
    }

    /// What the instance at `place` of `replicas` ready ones measures. They do not share evenly: neighbours have 40 % more
    /// and 40 % less than their share, the last of an odd number its share.
    pub fn measure_at(self, load: f64, replicas: u32, place: u32) -> f64 {
        let uneven = matches!(self, Rule::Requests(_) | Rule::Busy(..) | Rule::Cpu(_) | Rule::Memory(_) | Rule::Level(_));
        let last_of_odd = replicas % 2 == 1 && place + 1 == replicas;
        let share = match place % 2 {
            _ if !uneven || last_of_odd => 1.0,
            0 => 1.4,
            _ => 0.6,
        };
        self.measure(load * share, replicas)
    }

    /// What all of them come to: the largest, where the metric is of the largest, else their mean.
    fn measure_all(self, load: f64, replicas: u32) -> f64 {
        match self {
            Rule::Level(_) | Rule::Busy(_, _, "Max") => self.measure_at(load, replicas, 0),
            _ => (0..replicas).map(|place| self.measure_at(load, replicas, place)).sum::<f64>() / f64::from(replicas.max(1)),
        }
    }

    /// What is measured where `replicas` ready instances share `load` evenly. For a counter: its rate.
    pub fn measure(self, load: f64, replicas: u32) -> f64 {
        let each = load / f64::from(replicas.max(1));
        match self {
            Rule::Queue(_) | Rule::Orders(_) => load * 10.0,
            Rule::Requests(_) | Rule::Busy(..) => each * 10.0,
            Rule::Memory(_) => (each * 0.6).min(1.0) * MEMORY,
            Rule::Cpu(_) => (each * 0.6).min(1.0),
            Rule::Level(_) => 100.0 + each * 400.0,
            Rule::Backlog(..) => each * 20.0,
            Rule::Latency(..) | Rule::Duration(..) => each * 0.1,
            Rule::Observed => load,
        }
    }

    /// The largest step out of a threshold; `None` of what proposes by proportion.
    pub fn step_out(self, count: u32) -> Option<u32> {
        match self {
            Rule::Backlog(_, _, "1") | Rule::Busy(..) => Some(1),
            Rule::Backlog(_, _, "3") => Some(3),
            Rule::Backlog(_, _, "20%") => Some(count.div_ceil(5)),
            Rule::Backlog(..) => Some(count.div_ceil(4)),
            Rule::Latency(..) | Rule::Duration(..) => Some(2),
            Rule::Observed => Some(0),
            _ => None,
        }
    }

    /// Whether it asks for the same count, however many there are: what it measures is the target's as a whole.
    pub fn asks_whatever_there_is(self) -> bool {
        matches!(self, Rule::Queue(_) | Rule::Orders(_))
    }

    /// Out above, in below, of a threshold; exact, in base units.
    pub fn threshold(self) -> Option<(Amount, Option<Amount>)> {
        match self {
            Rule::Backlog(above, below, _) | Rule::Busy(above, below, _) => {
                Some((Amount::from_units(above.into()), below.map(|below| Amount::from_units(below.into()))))
            }
            Rule::Latency(above, below) | Rule::Duration(above, below) => {
                Some((Amount::from_millis(above.into()), below.map(|below| Amount::from_millis(below.into()))))
            }
            _ => None,
        }
    }

    fn draw(draw: &mut Draw) -> Rule {
        match draw.0.below(12) {
            0 | 1 => Rule::Queue(draw.from(&[10, 10, 14])),
            2 => Rule::Requests(draw.from(&[10, 13])),
            3 => Rule::Cpu(draw.from(&[50, 70])),
            4 => Rule::Level(draw.from(&[300, 350])),
            5 => Rule::Backlog(30, draw.from(&[Some(11), Some(11), None]), draw.from(&["1", "3", "25%"])),
            6 => Rule::Latency(160, draw.from(&[Some(50), None])),
            7 => Rule::Memory(draw.from(&[50, 70])),
            8 => Rule::Orders(draw.from(&[10, 14])),
            9 => match draw.from(&["Mean", "Max", "Sum"]) {
                "Sum" => Rule::Busy(100, draw.from(&[None, Some(60)]), "Sum"),
                // The largest of instances that do not share evenly: else it would ask for what others take back at once.
                "Max" => Rule::Busy(21, None, "Max"),
                across => Rule::Busy(15, None, across),
            },
            10 => Rule::Duration(160, draw.from(&[Some(60), None])),
            _ => Rule::Observed,
        }
    }

    /// The counts that it may ask for in steady state; none where it asks for nothing. Near an edge both sides count.
    fn asks(self, load: f64, n: u32, tolerance: [u32; 2]) -> BTreeSet<Option<u32>> {
        let value = self.measure_all(load, n);
        let at = f64::from(n);
        match self {
            Rule::Queue(each) | Rule::Orders(each) => tracked(value / (f64::from(each) * at), at, tolerance),
            Rule::Requests(each) => tracked(value / f64::from(each), at, tolerance),
            // Whole percent, as the HPA has them: up to one percent less.
            Rule::Cpu(percent) | Rule::Memory(percent) => {
                let percent = f64::from(percent);
                let value = if matches!(self, Rule::Memory(_)) { value / MEMORY } else { value };
                let mut asks = tracked((value * 100.0).floor() / percent, at, tolerance);
                asks.extend(tracked(((value * 100.0 - 0.1).floor()) / percent, at, tolerance));
                asks
            }
            Rule::Level(whole) => tracked(value / f64::from(whole), at, tolerance),
            Rule::Backlog(above, below, _) => stepped(value, f64::from(above), below.map(f64::from), n),
            Rule::Latency(above, below) => stepped(value * 1_000.0, f64::from(above), below.map(f64::from), n),
            Rule::Busy(above, below, across) => stepped(if across == "Sum" { value * at } else { value }, f64::from(above), below.map(f64::from), n),
            Rule::Duration(above, below) => {
                // Within its bucket the quantile is told by its place alone; near an edge both buckets count.
                let told = [value * 0.98, value * 1.02].map(|value| bucket_quantile(value, 0.9) * 1_000.0);
                told.into_iter().flat_map(|value| stepped(value, f64::from(above), below.map(f64::from), n)).collect()
            }
            Rule::Observed => [None].into(),
        }
    }
}

/// What each instance requests of memory, in bytes.
pub const MEMORY: f64 = 536_870_912.0;

/// The bounds of the buckets of `duration`, in seconds: one is where its threshold is, so that a bucket says on which side it lies.
pub const BOUNDS: [f64; 5] = [0.025, 0.05, 0.16, 0.32, 0.64];

/// A quantile of observations that are all `value`, interpolated in their bucket; the last bucket counts as its lower bound.
fn bucket_quantile(value: f64, quantile: f64) -> f64 {
    let bucket = BOUNDS.iter().take_while(|bound| value > **bound).count();
    let low = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] };
    BOUNDS.get(bucket).map_or(low, |high| low + (high - low) * quantile)
}

/// `track`: the present count within the tolerance, else the count that would meet the target.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
fn tracked(ratio: f64, at: f64, tolerance: [u32; 2]) -> BTreeSet<Option<u32>> {
    let (high, low) = (1.0 + f64::from(tolerance[0]) / 100.0, 1.0 - f64::from(tolerance[1]) / 100.0);
    let mut asks = BTreeSet::new();
    if ratio > low * 0.985 && ratio < high * 1.015 {
        asks.insert(Some(at as u32));
    }
    if ratio < low * 1.015 || ratio > high * 0.985 {
        for wanted in [ratio * at - 0.03, ratio * at + 0.03] {
            asks.insert(Some(wanted.ceil() as u32));
        }
    }
    asks
}

/// `threshold`: a step out above, a step in below, else the present count.
fn stepped(value: f64, above: f64, below: Option<f64>, n: u32) -> BTreeSet<Option<u32>> {
    let mut asks = BTreeSet::new();
    if value > above * 0.96 {
        asks.insert(Some(n + 1));
    }
    if value < above * 1.04 {
        match below {
            None => {
                asks.insert(None);
            }
            Some(below) => {
                if value > below * 0.96 {
                    asks.insert(Some(n));
                }
                if value < below * 1.04 {
                    asks.insert(Some(n.saturating_sub(1)));
                }
            }
        }
    }
    asks
}

impl Plan {
    /// A policy for panes of `pane_ms`.
    pub(super) fn draw(draw: &mut Draw, pane_ms: u64) -> Plan {
        let mut metrics = Vec::new();
        for _ in 0..draw.from(&[1, 1, 2, 3]) {
            let rule = Rule::draw(draw);
            if metrics.iter().all(|m: &Metric| m.rule.name() != rule.name()) {
                let window_s = if matches!(rule, Rule::Orders(_)) { 20 } else { draw.from(&[5, 10, 20]) };
                // A rate needs two panes; and a bit for the grace and the instances' own rhythm.
                let stale_s = window_s.max(2 * pane_ms.div_ceil(1_000)) + draw.from(&[8, 20, 40]);
                let unit = match rule {
                    Rule::Level(_) => draw.from(&[None, Some("bytes"), Some("cores")]),
                    Rule::Busy(..) => draw.from(&[None, Some("ratio"), Some("count")]),
                    Rule::Duration(..) => Some("seconds"),
                    _ => None,
                };
                metrics.push(Metric { rule, kind: draw.one_in(2), unit, window_s, stale_s, ignore: draw.one_in(6), for_s: draw.from(&[2, 3, 8, 15]) });
            }
        }
        let mut rules = [Rules::draw(draw), Rules::draw(draw)];
        // What depends on the count itself hunts where its window is longer than the stabilization: each way out sees the way back.
        if metrics.iter().any(|m| m.rule.is_of_instances() || matches!(m.rule, Rule::Backlog(..))) {
            rules[1].stabilization_s = rules[1].stabilization_s.max(35);
        }
        let min = u32::try_from(draw.between(1, 3)).unwrap_or(1);
        let max = min + u32::try_from(draw.between(1, 14)).unwrap_or(1);
        let mut plan = Plan {
            role: draw.from(&["Generic", "ApiServer", "BotInstances", "DatabaseReadReplica"]),
            // Mostly one that moves both ways: what moves nothing rests anywhere, and shows little.
            mode: if draw.one_in(8) { draw.from(&["OutOnly", "Advise", "Off"]) } else { "Active" },
            fleet: draw.from(&["default", "default", "other"]),
            priority: draw.between(0, 3),
            min,
            max,
            metrics,
            rules,
            tolerance: [draw.from(&[0, 5, 10]), draw.from(&[0, 5, 10, 20])],
            startup_s: [draw.from(&[0, 5, 15]), draw.from(&[0, 5])],
            fallback: (draw.from(&[5, 15, 40]), draw.from(&["Hold", "Hold", "IfHigher", "Static"]), u32::try_from(draw.between(1, 9)).unwrap_or(1)),
            evaluate_every_s: draw.from(&[None, None, None, Some(15)]),
            omitted: BTreeSet::new(),
        };
        plan.omit(draw);
        plan
    }

    /// Makes it one that shrinks soon where the sum over its instances, which do not measure the same, becomes smaller; what
    /// is not measured any more is stale soon.
    pub(super) fn sum_up(&mut self, draw: &mut Draw, pane_ms: u64) {
        let window_s = draw.from(&[5, 10]);
        let stale_s = window_s.max(2 * pane_ms.div_ceil(1_000)) + 8;
        let rule = Rule::Busy(100, Some(60), "Sum");
        self.metrics = vec![Metric { rule, window_s, stale_s, ignore: false, for_s: draw.from(&[2, 3, 8]), kind: draw.one_in(2), unit: None }];
        self.omitted.clear();
        (self.mode, self.min, self.max, self.fallback.1) = ("Active", 1, self.max.max(9), "Hold");
        self.rules[1] = Rules { stabilization_s: draw.from(&[0, 5]), cooldown_s: draw.from(&[0, 5]), select: "Max", ..self.rules[1].clone() };
    }

    /// Leaves fields out, each with the default of its role; only such whose defaults a run has the time for.
    fn omit(&mut self, draw: &mut Draw) {
        if draw.one_in(2) {
            return;
        }
        let mut leave_out = |field: &'static str| draw.one_in(3) && self.omitted.insert(field);
        let database = self.role == "DatabaseReadReplica";
        if leave_out("priority") {
            self.priority = match self.role {
                "Generic" => 100,
                "BotInstances" => 50,
                _ => 200,
            };
        }
        if leave_out("min") {
            self.min = if matches!(self.role, "Generic" | "BotInstances") { 1 } else { 2.min(self.max) };
        }
        if leave_out("tolerance") {
            self.tolerance = [10, 10];
        }
        if leave_out("startup") {
            self.startup_s = if database { [600, 60] } else { [300, 30] };
        }
        if leave_out("fallback.after") {
            self.fallback.0 = if database { 300 } else { 180 };
        }
        if self.fallback.1 == "Hold" {
            leave_out("fallback.behavior");
        }
        // Increments come in the rhythm of the producer: their window is of whole ones, and written.
        let orders = self.metrics.iter().any(|metric| matches!(metric.rule, Rule::Orders(_)));
        if !database && !orders && leave_out("window") {
            let window_s = 30;
            for metric in &mut self.metrics {
                (metric.window_s, metric.stale_s) = (window_s, 120);
            }
            self.rules[1].stabilization_s = self.rules[1].stabilization_s.max(window_s + 15);
        }
        if !database && leave_out("for") {
            self.metrics.iter_mut().for_each(|metric| metric.for_s = 30);
        }
        if self.metrics.iter().any(|metric| matches!(metric.rule, Rule::Backlog(..))) && leave_out("step") {
            // In by one, whatever the role; out as it says.
            for metric in &mut self.metrics {
                if let Rule::Backlog(_, _, step) = &mut metric.rule {
                    *step = if matches!(self.role, "ApiServer" | "BotInstances") { "20%" } else { "1" };
                }
            }
        }
        for direction in 0..2 {
            if self.rules[direction].select == "Max" {
                leave_out(["out.select", "in.select"][direction]);
            }
        }
        if matches!(self.role, "Generic" | "ApiServer") && leave_out("out.policies") {
            self.rules[0].policies = vec![(Rate::Percent(100), 15), (Rate::Replicas(4), 15)];
        }
        let out_s = match self.role {
            "BotInstances" => [30, 30],
            "DatabaseReadReplica" => [60, 300],
            _ => [0, 0],
        };
        if leave_out("out.stabilization") {
            self.rules[0].stabilization_s = out_s[0];
        }
        if !database && leave_out("out.cooldown") {
            self.rules[0].cooldown_s = out_s[1];
        }
        if self.role == "Generic" && leave_out("in.policies") {
            self.rules[1].policies = vec![(Rate::Percent(100), 15)];
        }
        if self.role == "Generic" && leave_out("in.cooldown") {
            self.rules[1].cooldown_s = 0;
        }
        // Five minutes of it: once in a while.
        if self.role == "Generic" && draw.one_in(12) && self.omitted.insert("in.stabilization") {
            self.rules[1].stabilization_s = 300;
        }
    }

    /// The `spec` of the policy of target `number`, as JSON.
    pub fn spec(&self, number: usize) -> String {
        let written = |field: &str, value: Value| if self.omitted.contains(field) { Value::Null } else { value };
        let seconds = |seconds: u64| json!(format!("{seconds}s"));
        let rules = |direction: usize, name: &str| {
            let rules = &self.rules[direction];
            json!({
                "stabilization": written(&format!("{name}.stabilization"), seconds(rules.stabilization_s)),
                "cooldown": written(&format!("{name}.cooldown"), seconds(rules.cooldown_s)),
                "select": written(&format!("{name}.select"), json!(rules.select)),
                "policies": written(&format!("{name}.policies"), rules.policies.iter().map(|(rate, period)| rate.json(*period)).collect()),
            })
        };
        let mut spec = json!({
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": format!("t{number}") },
            "actuator": if self.priority % 2 == 0 { json!("Scale") } else { Value::Null },
            "role": self.role,
            "mode": self.mode,
            "fleet": self.fleet,
            "priority": written("priority", json!(self.priority)),
            "replicas": { "min": written("min", json!(self.min)), "max": self.max },
            "startup": written("startup", json!({ "cpuInitialization": seconds(self.startup_s[0]), "readinessDelay": seconds(self.startup_s[1]) })),
            "metrics": self.metrics.iter().map(|metric| metric.json(&self.omitted)).collect::<Vec<_>>(),
            "behavior": { "scaleOut": rules(0, "out"), "scaleIn": rules(1, "in") },
            "tolerance": written("tolerance", json!({ "out": format!("{}%", self.tolerance[0]), "in": format!("{}%", self.tolerance[1]) })),
            "fallback": {
                "after": written("fallback.after", seconds(self.fallback.0)),
                "behavior": written("fallback.behavior", json!(self.fallback.1)),
                "replicas": if self.fallback.1 == "Hold" { Value::Null } else { json!(self.fallback.2) },
            },
            "evaluateEvery": self.evaluate_every_s.map(seconds),
        });
        without_nulls(&mut spec);
        spec.to_string()
    }

    /// Whether it commands anything at all.
    pub fn acts(&self) -> bool {
        matches!(self.mode, "Active" | "OutOnly")
    }

    /// How long after all is calm the count stands, in virtual ms: what was blind is seen again, what failed is tried
    /// again (a minute at most), what was waited for has passed, and the count has come all the way.
    pub fn settles_within_ms(&self) -> Millis {
        let window = self.metrics.iter().map(|metric| metric.window_s).max().unwrap_or(0);
        let held = self.metrics.iter().map(|metric| metric.for_s).max().unwrap_or(0);
        // A level asks for a share of what there is, again and again.
        let by_one = |metric: &Metric| metric.rule.step_out(1) == Some(1) || matches!(metric.rule, Rule::Level(_));
        let moves = 1 + u64::from(self.max - self.min).div_ceil(if self.metrics.iter().any(by_one) { 1 } else { 2 });
        let a_move = |rules: &Rules| (rules.cooldown_s + rules.policies.iter().map(|(_, period)| *period).max().unwrap_or(0)).max(12);
        let stepped = self.metrics.iter().any(|m| by_one(m) || m.rule.step_out(1).is_some_and(|step| step > 0));
        // These, and a utilization that is full and asks only for more (at most by 1 / target), move on from where they are: each move
        // waits for its own stabilization.
        let full = self.metrics.iter().any(|m| matches!(m.rule, Rule::Cpu(_) | Rule::Memory(_)));
        let rest = |rules: &Rules| match (stepped, full) {
            (true, _) => moves * (rules.stabilization_s + a_move(rules) + window + held),
            (false, true) => 8 * (a_move(rules) + rules.stabilization_s + window),
            (false, false) => rules.stabilization_s + 8 * a_move(rules),
        };
        let seconds = 110 + window + rest(&self.rules[0]).max(rest(&self.rules[1])) + self.evaluate_every_s.map_or(0, |every| 8 * every);
        Millis::try_from(seconds * 1_000).unwrap_or(Millis::MAX)
    }

    /// The counts at which it rests under a load that stands. None where one metric asks for fewer wherever another one does not ask for more.
    pub fn rests_at(&self, load: f64) -> BTreeSet<u32> {
        (1..=MOST_REPLICAS).filter(|count| self.is_content(load, *count)).collect()
    }

    /// Whether `n` replicas are what it wants under a load that stands, with all of them ready for long.
    pub fn is_content(&self, load: f64, n: u32) -> bool {
        if !self.acts() {
            return true; // nobody's to move
        }
        if n == 0 {
            return false;
        }
        let mut wanted: BTreeSet<Option<u32>> = [None].into();
        for metric in &self.metrics {
            let asks = metric.rule.asks(load, n, self.tolerance);
            wanted = wanted.iter().flat_map(|a| asks.iter().map(move |b| (*a).max(*b))).collect();
        }
        let (out, inward) = (self.rules[0].select != "Disabled", self.rules[1].select != "Disabled" && self.mode != "OutOnly");
        wanted.into_iter().any(|wanted| {
            let wanted = wanted.unwrap_or(n).clamp(self.min, self.max);
            // `min` is reached whatever the rules say.
            wanted == n || (wanted > n && !out && n >= self.min) || (wanted < n && !inward)
        })
    }
}

impl Metric {
    fn json(&self, omitted: &BTreeSet<&'static str>) -> Value {
        let threshold = |above: Value, below: Option<Value>, step: &str| {
            let step = step.parse::<u32>().map_or_else(|_| json!(step), |step| json!(step));
            let step = if omitted.contains("step") && matches!(self.rule, Rule::Backlog(..)) { Value::Null } else { json!({ "out": step, "in": step }) };
            let hold = if omitted.contains("for") { Value::Null } else { json!(format!("{}s", self.for_s)) };
            json!({ "scaleOutAbove": above, "scaleInBelow": below, "for": hold, "step": step })
        };
        let ms = |ms: u32| json!(format!("{ms}ms"));
        let (kind, measure, track, threshold) = match self.rule {
            Rule::Queue(each) => ("Gauge", Value::Null, json!({ "perReplica": each }), Value::Null),
            Rule::Requests(each) => ("Counter", Value::Null, json!({ "perReplica": each }), Value::Null),
            Rule::Orders(each) => ("Delta", Value::Null, json!({ "perReplica": each }), Value::Null),
            Rule::Cpu(percent) | Rule::Memory(percent) => ("Gauge", Value::Null, json!({ "utilization": format!("{percent}%") }), Value::Null),
            Rule::Level(value) => ("Gauge", json!({ "over": "Max", "across": "Max" }), json!({ "value": value }), Value::Null),
            Rule::Backlog(above, below, step) => {
                ("Gauge", json!({ "over": "Last" }), Value::Null, threshold(json!(above), below.map(|below| json!(below)), step))
            }
            Rule::Busy(above, below, across) => {
                ("Gauge", json!({ "over": "Mean", "across": across }), Value::Null, threshold(json!(above), below.map(|below| json!(below)), "1"))
            }
            Rule::Latency(above, below) => ("Distribution", json!({ "quantile": "90%" }), Value::Null, threshold(ms(above), below.map(ms), "2")),
            Rule::Duration(above, below) => ("Histogram", json!({ "quantile": "90%" }), Value::Null, threshold(ms(above), below.map(ms), "2")),
            Rule::Observed => ("Delta", Value::Null, Value::Null, Value::Null),
        };
        let window = |s: u64| if omitted.contains("window") { Value::Null } else { json!(format!("{s}s")) };
        json!({
            "name": self.rule.name(),
            "kind": if self.kind { json!(kind) } else { Value::Null },
            "unit": self.unit,
            "measure": measure,
            "track": track,
            "threshold": threshold,
            "window": window(self.window_s),
            "staleAfter": window(self.stale_s),
            "whenBlind": if self.ignore { json!("Ignore") } else if self.kind { json!("HoldIn") } else { Value::Null },
        })
    }
}

impl Rate {
    fn json(self, period_s: u64) -> Value {
        let period = format!("{period_s}s");
        match self {
            Rate::Percent(percent) => json!({ "percent": percent, "period": period }),
            Rate::Replicas(replicas) => json!({ "replicas": replicas, "period": period }),
        }
    }
}

/// A field without a value is not written.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_nulls);
            fields.retain(|_, value| !value.is_null());
        }
        Value::Array(values) => values.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

impl Rules {
    fn draw(draw: &mut Draw) -> Rules {
        let amount = |draw: &mut Draw| if draw.one_in(2) { Rate::Percent(draw.from(&[50, 100, 34])) } else { Rate::Replicas(draw.from(&[2, 3, 4])) };
        Rules {
            stabilization_s: draw.from(&[0, 0, 5, 10, 20]),
            cooldown_s: draw.from(&[0, 0, 5, 10]),
            select: if draw.one_in(16) { "Disabled" } else { draw.from(&["Max", "Max", "Min"]) },
            policies: (0..draw.from(&[1, 1, 2, 2, 3, 4])).map(|_| (amount(draw), draw.from(&[5, 10, 15]))).collect(),
        }
    }
}
