//! Figures, their targets, and how they are printed.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// A table in Markdown.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// All that was measured, and where.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Of an unoptimised build the figures say nothing.
    optimised: bool,
    seed: u64,
    /// The cluster that was there; `None` where it was a broker of its own on this machine.
    brokers: Option<String>,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    processor: Option<String>,
    cores: Option<usize>,
    memory_kib: Option<u64>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    scenario: String,
    what: String,
    /// `None` where there was too little of it to measure.
    value: Option<f64>,
    unit: &'static str,
    target: Option<Target>,
    /// `None` where there is no target, or no value.
    reached: Option<bool>,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// This and nothing else.
    Exactly(f64),
}

impl Target {
    #[expect(clippy::float_cmp, reason = "counts: they are equal or not")]
    fn is_reached_by(self, value: f64) -> bool {
        match self {
            Target::AtMost(most) => value <= most,
            Target::AtLeast(least) => value >= least,
            Target::Exactly(this) => value == this,
        }
    }

    fn words(self, unit: &str) -> String {
        match self {
            Target::AtMost(most) => format!("at most {}", number(most, unit)),
            Target::AtLeast(least) => format!("at least {}", number(least, unit)),
            Target::Exactly(this) => number(this, unit),
        }
    }
}

/// The figures of one scenario.
pub(super) struct Figures<'a> {
    report: &'a mut Report,
    scenario: String,
}

impl Figures<'_> {
    /// A figure, with what it is held against.
    pub(super) fn add(&mut self, what: impl Into<String>, value: Option<f64>, unit: &'static str, target: Option<Target>) {
        let value = value.filter(|value| value.is_finite());
        let reached = value.zip(target).map(|(value, target)| target.is_reached_by(value));
        self.report.figures.push(Figure { scenario: self.scenario.clone(), what: what.into(), value, unit, target, reached });
    }

    /// A count that must be this.
    pub(super) fn count(&mut self, what: impl Into<String>, counted: u64, is: u64) {
        self.add(what, Some(counted as f64), "", Some(Target::Exactly(is as f64)));
    }

    /// The median and the 99th percentile of times, in ms, and the longest.
    pub(super) fn spread(&mut self, what: &str, times: &mut [Duration], p50: Option<Target>, p99: Option<Target>) {
        times.sort_unstable();
        for (named, percent, target) in [("p50", 50, p50), ("p99", 99, p99), ("longest", 100, None)] {
            let value = percentile(times, percent).map(|time| time.as_secs_f64() * 1e3);
            self.add(format!("{what}: {named} of {}", times.len()), value, "ms", target);
        }
    }
}

/// The value at or below which so many percent lie, of sorted ones.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let place = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(place - 1).copied()
}

impl Report {
    pub(super) fn new(seed: u64, brokers: Option<&str>) -> Report {
        Report { machine: Machine::this(), optimised: !cfg!(debug_assertions), seed, brokers: brokers.map(str::to_owned), figures: Vec::new() }
    }

    pub(super) fn of(&mut self, scenario: &str) -> Figures<'_> {
        Figures { report: self, scenario: scenario.to_owned() }
    }

    pub(super) fn print(&self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Json => println!("{}", serde_json::to_string_pretty(self)?),
            Output::Table => print!("{}", self.table()),
        }
        Ok(())
    }

    fn table(&self) -> String {
        let Machine { processor, cores, memory_kib } = &self.machine;
        let known = |value: Option<String>| value.unwrap_or_else(|| "not known".to_owned());
        let mut lines = vec![format!(
            "Processor: {}, cores: {}, memory: {}; seed {}; {}{}",
            known(processor.clone()),
            known(cores.map(|cores| cores.to_string())),
            known(memory_kib.map(|kib| format!("{:.1} GiB", kib as f64 / 1_048_576.0))),
            self.seed,
            self.brokers.as_ref().map_or_else(|| "a broker of its own on the same machine".to_owned(), |brokers| format!("brokers: {brokers}")),
            if self.optimised { "" } else { "; not optimised: of speed this says nothing" },
        )];
        lines.push("\n| scenario | what | measured | target | reached |\n|---|---|---|---|---|".to_owned());
        for Figure { scenario, what, value, unit, target, reached } in &self.figures {
            let measured = value.map_or_else(|| "too little to measure".to_owned(), |value| number(value, unit));
            let target = target.map_or_else(|| "–".to_owned(), |target| target.words(unit));
            let reached = reached.map_or("–", |reached| if reached { "yes" } else { "no" });
            lines.push(format!("| {scenario} | {what} | {measured} | {target} | {reached} |"));
        }
        lines.join("\n") + "\n"
    }
}

/// Three digits or more, in groups where there are many.
fn number(value: f64, unit: &str) -> String {
    let digits = if value.fract() == 0.0 || value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let space = if unit.is_empty() { "" } else { " " };
    format!("{grouped}{rest}{space}{unit}")
}

impl Machine {
    fn this() -> Machine {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        Machine {
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().ok().map(std::num::NonZero::get),
            memory_kib: field("/proc/meminfo", "MemTotal").and_then(|value| value.split(' ').next()?.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_target_and_what_was_not_measured_is_not() {
        let mut report = Report::new(1, None);
        let mut figures = report.of("some");
        figures.add("slow", Some(2.5), "µs", Some(Target::AtMost(2.3)));
        figures.add("fast", Some(4_567_890.4), "/s", Some(Target::AtLeast(400_000.0)));
        figures.count("all", 10, 10);
        figures.add("none", None, "%", Some(Target::AtMost(5.0)));
        figures.add("of nothing", Some(f64::INFINITY), "µs", Some(Target::AtLeast(1.0)));
        figures.add("alone", Some(99.96), "MiB", None);
        let table = report.table();
        let rows: Vec<&str> = table.lines().skip(4).collect();
        assert_eq!(
            rows,
            [
                "| some | slow | 2.50 µs | at most 2.30 µs | no |",
                "| some | fast | 4,567,890 /s | at least 400,000 /s | yes |",
                "| some | all | 10 | 10 | yes |",
                "| some | none | too little to measure | at most 5 % | – |",
                "| some | of nothing | too little to measure | at least 1 µs | – |",
                "| some | alone | 100.0 MiB | – | – |",
            ]
        );
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&times, percent).map(|time| time.as_millis())), [Some(100), Some(198), Some(200)]);
        assert_eq!(percentile(&times[..1], 50), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 99), None);
    }
}
