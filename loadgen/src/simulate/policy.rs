//! Policies as the simulation draws them, what their metrics measure of a load, and, computed apart from the program,
//! the counts at which such a policy is content.
//!
//! Windows and limits are short, so that a run of a few virtual minutes sees them all end.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use loadline::model::Amount;

use super::scenario::{Draw, Millis};

/// A policy.
#[derive(Debug, Clone)]
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
}

/// A metric of a policy.
#[derive(Debug, Clone)]
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
    /// Twenty a unit of load, for each replica: out above, in below.
    Backlog(u32, Option<u32>, &'static str),
    /// Response times of 100 ms a unit of load and replica, each observed: the 90th percentile, in ms.
    Latency(u32, Option<u32>),
    /// Observed only, increments.
    Observed,
}

/// One direction of `behavior`.
#[derive(Debug, Clone)]
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
            Rule::Backlog(..) => "backlog",
            Rule::Latency(..) => "response_time",
            Rule::Observed => "jobs",
        }
    }

    /// Whether the instances send it; else it is the target's as a whole.
    pub fn is_of_instances(self) -> bool {
        matches!(self, Rule::Requests(_) | Rule::Cpu(_) | Rule::Level(_) | Rule::Latency(..))
    }

    /// What is measured where `replicas` ready instances share `load`. For a counter: its rate.
    pub fn measure(self, load: f64, replicas: u32) -> f64 {
        let each = load / f64::from(replicas.max(1));
        match self {
            Rule::Queue(_) => load * 10.0,
            Rule::Requests(_) => each * 10.0,
            Rule::Cpu(_) => (each * 0.6).min(1.0),
            Rule::Level(_) => 100.0 + each * 400.0,
            Rule::Backlog(..) => each * 20.0,
            Rule::Latency(..) => each * 0.1,
            Rule::Observed => load,
        }
    }

    /// The largest step out of a threshold; `None` of what proposes by proportion.
    pub fn step_out(self, count: u32) -> Option<u32> {
        match self {
            Rule::Backlog(_, _, "1") => Some(1),
            Rule::Backlog(_, _, "3") => Some(3),
            Rule::Backlog(..) => Some(count.div_ceil(4)),
            Rule::Latency(..) => Some(2),
            Rule::Observed => Some(0),
            _ => None,
        }
    }

    /// Out above, in below, of a threshold; exact, in base units.
    pub fn threshold(self) -> Option<(Amount, Option<Amount>)> {
        match self {
            Rule::Backlog(above, below, _) => Some((Amount::from_units(above.into()), below.map(|below| Amount::from_units(below.into())))),
            Rule::Latency(above, below) => Some((Amount::from_millis(above.into()), below.map(|below| Amount::from_millis(below.into())))),
            _ => None,
        }
    }

    fn draw(draw: &mut Draw) -> Rule {
        match draw.0.below(8) {
            0 | 1 => Rule::Queue(draw.from(&[10, 10, 14])),
            2 => Rule::Requests(draw.from(&[10, 13])),
            3 => Rule::Cpu(draw.from(&[50, 70])),
            4 => Rule::Level(draw.from(&[300, 350])),
            5 => Rule::Backlog(30, draw.from(&[Some(11), Some(11), None]), draw.from(&["1", "3", "\"25%\""])),
            6 => Rule::Latency(160, draw.from(&[Some(50), None])),
            _ => Rule::Observed,
        }
    }

    /// The counts that it may ask for in steady state; none where it asks for nothing. Near an edge both sides count.
    fn asks(self, load: f64, n: u32, tolerance: [u32; 2]) -> BTreeSet<Option<u32>> {
        let value = self.measure(load, n);
        let at = f64::from(n);
        match self {
            Rule::Queue(each) => tracked(value / (f64::from(each) * at), at, tolerance),
            Rule::Requests(each) => tracked(value / f64::from(each), at, tolerance),
            // Whole percent, as the HPA has them: up to one percent less.
            Rule::Cpu(percent) => {
                let percent = f64::from(percent);
                let mut asks = tracked((value * 100.0).floor() / percent, at, tolerance);
                asks.extend(tracked(((value * 100.0 - 0.1).floor()) / percent, at, tolerance));
                asks
            }
            Rule::Level(whole) => tracked(value / f64::from(whole), at, tolerance),
            Rule::Backlog(above, below, _) => stepped(value, f64::from(above), below.map(f64::from), n),
            Rule::Latency(above, below) => stepped(value * 1_000.0, f64::from(above), below.map(f64::from), n),
            Rule::Observed => [None].into(),
        }
    }
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
                let window_s = draw.from(&[5, 10, 20]);
                // A rate needs two panes; and a bit for the grace and the instances' own rhythm.
                let stale_s = window_s.max(2 * pane_ms.div_ceil(1_000)) + draw.from(&[8, 20, 40]);
                metrics.push(Metric { rule, window_s, stale_s, ignore: draw.one_in(6), for_s: draw.from(&[2, 3, 8, 15]) });
            }
        }
        let mut rules = [Rules::draw(draw), Rules::draw(draw)];
        // What depends on the count itself hunts where its window is longer than the stabilization: each way out sees the way back.
        if metrics.iter().any(|m| m.rule.is_of_instances() || matches!(m.rule, Rule::Backlog(..))) {
            rules[1].stabilization_s = rules[1].stabilization_s.max(35);
        }
        let min = u32::try_from(draw.between(1, 3)).unwrap_or(1);
        let max = min + u32::try_from(draw.between(1, 14)).unwrap_or(1);
        Plan {
            role: draw.from(&["Generic", "ApiServer", "BotInstances", "DatabaseReadReplica"]),
            mode: draw.from(&["Active", "Active", "Active", "Active", "Active", "Active", "OutOnly", "Advise", "Off"]),
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
        }
    }

    /// The `spec` of the policy of target `number`, as JSON.
    pub fn spec(&self, number: usize) -> String {
        let metrics: Vec<String> = self.metrics.iter().map(Metric::json).collect();
        let mut spec = format!(
            r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"t{number}"}},"role":"{}","mode":"{}","fleet":"{}","priority":{},"replicas":{{"min":{},"max":{}}},"startup":{{"cpuInitialization":"{}s","readinessDelay":"{}s"}},"metrics":[{}],"behavior":{{"scaleOut":{},"scaleIn":{}}},"tolerance":{{"out":"{}%","in":"{}%"}},"fallback":{{"after":"{}s","behavior":"{}""#,
            self.role,
            self.mode,
            self.fleet,
            self.priority,
            self.min,
            self.max,
            self.startup_s[0],
            self.startup_s[1],
            metrics.join(","),
            self.rules[0].json(),
            self.rules[1].json(),
            self.tolerance[0],
            self.tolerance[1],
            self.fallback.0,
            self.fallback.1,
        );
        if self.fallback.1 != "Hold" {
            let _ = write!(spec, r#","replicas":{}"#, self.fallback.2);
        }
        spec.push('}');
        if let Some(every) = self.evaluate_every_s {
            let _ = write!(spec, r#","evaluateEvery":"{every}s""#);
        }
        spec.push('}');
        spec
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
        let moves = u64::from(self.max).div_ceil(if self.metrics.iter().any(|m| m.rule.step_out(1) == Some(1)) { 1 } else { 2 });
        let a_move = |rules: &Rules| (rules.cooldown_s + rules.policies.iter().map(|(_, period)| *period).max().unwrap_or(0)).max(12);
        let stepped = self.metrics.iter().any(|m| m.rule.step_out(1).is_some_and(|step| step > 0));
        let rest = |rules: &Rules| rules.stabilization_s + if stepped { moves * (a_move(rules) + window + held) } else { 8 * a_move(rules) };
        let seconds = 110 + window + rest(&self.rules[0]).max(rest(&self.rules[1])) + self.evaluate_every_s.map_or(0, |every| 8 * every);
        Millis::try_from(seconds * 1_000).unwrap_or(Millis::MAX)
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
    fn json(&self) -> String {
        let for_s = self.for_s;
        let rule = match self.rule {
            Rule::Queue(each) | Rule::Requests(each) => format!(r#""track":{{"perReplica":{each}}}"#),
            Rule::Cpu(percent) => format!(r#""track":{{"utilization":"{percent}%"}}"#),
            Rule::Level(value) => format!(r#""measure":{{"over":"Max","across":"Max"}},"track":{{"value":{value}}}"#),
            Rule::Backlog(above, below, step) => format!(
                r#""measure":{{"over":"Last"}},"threshold":{{"scaleOutAbove":{above},{}"for":"{for_s}s","step":{{"out":{step},"in":{step}}}}}"#,
                below.map_or(String::new(), |below| format!(r#""scaleInBelow":{below},"#))
            ),
            Rule::Latency(above, below) => format!(
                r#""kind":"Distribution","measure":{{"quantile":"90%"}},"threshold":{{"scaleOutAbove":"{above}ms",{}"for":"{for_s}s","step":{{"out":2,"in":2}}}}"#,
                below.map_or(String::new(), |below| format!(r#""scaleInBelow":"{below}ms","#))
            ),
            Rule::Observed => r#""kind":"Delta""#.to_owned(),
        };
        let blind = if self.ignore { r#","whenBlind":"Ignore""# } else { "" };
        format!(r#"{{"name":"{}",{rule},"window":"{}s","staleAfter":"{}s"{blind}}}"#, self.rule.name(), self.window_s, self.stale_s)
    }
}

impl Rules {
    fn draw(draw: &mut Draw) -> Rules {
        let amount = |draw: &mut Draw| if draw.one_in(2) { Rate::Percent(draw.from(&[50, 100, 34])) } else { Rate::Replicas(draw.from(&[2, 3, 4])) };
        Rules {
            stabilization_s: draw.from(&[0, 0, 5, 10, 20]),
            cooldown_s: draw.from(&[0, 0, 5, 10]),
            select: draw.from(&["Max", "Max", "Max", "Max", "Min", "Min", "Disabled"]),
            policies: (0..draw.from(&[1, 2])).map(|_| (amount(draw), draw.from(&[5, 10, 15]))).collect(),
        }
    }

    fn json(&self) -> String {
        let policies: Vec<String> = self
            .policies
            .iter()
            .map(|(amount, period)| match amount {
                Rate::Percent(percent) => format!(r#"{{"percent":{percent},"period":"{period}s"}}"#),
                Rate::Replicas(replicas) => format!(r#"{{"replicas":{replicas},"period":"{period}s"}}"#),
            })
            .collect();
        format!(
            r#"{{"stabilization":"{}s","cooldown":"{}s","select":"{}","policies":[{}]}}"#,
            self.stabilization_s,
            self.cooldown_s,
            self.select,
            policies.join(",")
        )
    }
}
