//! What the demo shows, as text: a few lines for a terminal, one line for everything else.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use jiff::civil::DateTime;

use super::status::TargetStatus;
use crate::drive::measure::Snapshot;

/// The most alerts that are shown: the rest is in the status.
const ALERTS: usize = 3;

/// The most lines that a long text is wrapped to.
const WRAPPED: usize = 3;

/// Points of a sparkline: the last forty seconds.
const POINTS: usize = 40;

/// The last values of what is drawn.
#[derive(Debug, Clone, Default)]
pub struct History {
    rate: VecDeque<f64>,
    p95: VecDeque<f64>,
    ready: VecDeque<f64>,
}

impl History {
    /// Adds those of now.
    pub fn push(&mut self, load: &Snapshot, status: Option<&TargetStatus>) {
        let add = |values: &mut VecDeque<f64>, value: f64| {
            if values.len() == POINTS {
                values.pop_front();
            }
            values.push_back(value);
        };
        add(&mut self.rate, load.rate);
        add(&mut self.p95, load.p95.map_or(0.0, |latency| latency.as_secs_f64()));
        add(&mut self.ready, status.and_then(|status| status.ready).map_or(0.0, |ready| ready as f64));
    }
}

/// Everything that is shown at one moment.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The target.
    pub target: &'a str,
    /// The time of day that is replayed.
    pub time: Option<DateTime>,
    /// How many times faster than recorded.
    pub speed: f64,
    /// Since the start.
    pub elapsed: Duration,
    /// Now, in Unix milliseconds.
    pub now: i64,
    /// What the driver sees.
    pub load: Snapshot,
    /// What Loadline says, or why it says nothing.
    pub status: Result<TargetStatus, String>,
    /// The values before.
    pub history: &'a History,
}

impl Frame<'_> {
    /// The lines for a terminal, none wider than `width`.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let totals = self.load.totals;
        let mut lines = vec![
            format!("{}   {}   {}", self.target, self.when(), clock(self.elapsed)),
            String::new(),
            row("load", &format!("{:.0} requests/s", self.load.rate), &sparkline(&self.history.rate)),
            row("latency", &format!("p95 {}", self.p95()), &sparkline(&self.history.p95)),
            row("lost", &format!("{:.1} requests/s", self.load.lost_rate), &format!("{} of {} in all", totals.lost(), totals.lost() + totals.served)),
        ];
        match &self.status {
            Ok(status) => {
                lines.push(row("replicas", &replicas(status), &sparkline(&self.history.ready)));
                lines.push(row("asks", &asks(status), ""));
                lines.push(row("binds", &binds(status), ""));
                lines.extend(wrapped("decision", &self.decision(status), width));
                lines.extend(status.alerts.iter().take(ALERTS).flat_map(|alert| wrapped("alert", alert, width)));
            }
            Err(why) => lines.push(row("Loadline", &format!("no status: {why}"), "")),
        }
        lines.into_iter().map(|line| line.chars().take(width).collect::<String>().trim_end().to_owned()).collect()
    }

    /// One line for a log.
    pub fn line(&self) -> String {
        let mut line =
            format!("{} [{}] {:.0} requests/s, p95 {}, {:.1} lost/s", clock(self.elapsed), self.when(), self.load.rate, self.p95(), self.load.lost_rate);
        // Writing to a string never fails.
        let _ = match &self.status {
            Ok(status) => write!(line, ", replicas {}, binds {}; {}", replicas(status), binds(status), self.decision(status)),
            Err(why) => write!(line, ", no status: {why}"),
        };
        line
    }

    fn when(&self) -> String {
        self.time.map_or_else(|| format!("{}x", self.speed), |time| format!("{} at {}x", time.strftime("%a %-d %b %Y %H:%M"), self.speed))
    }

    fn p95(&self) -> String {
        self.load.p95.map_or_else(|| "-".to_owned(), |latency| format!("{} ms", latency.as_millis()))
    }

    fn decision(&self, status: &TargetStatus) -> String {
        let verdict = status.verdict.as_deref().unwrap_or("none yet");
        let ago = status.at.map(|at| format!(" {} s ago", (self.now - at).max(0) / 1000)).unwrap_or_default();
        let reason = status.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{verdict}{ago}{reason}")
    }
}

fn row(name: &str, value: &str, more: &str) -> String {
    format!("{name:<10} {value:<22} {more}")
}

/// A text on as many lines as it needs, up to a few.
fn wrapped(name: &str, text: &str, width: usize) -> Vec<String> {
    let room = width.saturating_sub(11).max(20);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.chars().count() + 1 + word.chars().count() <= room => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.truncate(WRAPPED);
    lines.iter().enumerate().map(|(n, line)| row(if n == 0 { name } else { "" }, line, "")).collect()
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn replicas(status: &TargetStatus) -> String {
    format!("{} of {} ({}-{})", count(status.ready), count(status.desired.or(status.current)), count(status.min), count(status.max))
}

fn asks(status: &TargetStatus) -> String {
    let asks = status.metrics.iter().filter_map(|metric| match (&metric.status, metric.proposal) {
        (_, Some(proposal)) => Some(format!("{} {proposal}", metric.name)),
        (Some(status), None) if status != "Ok" => Some(format!("{} {status}", metric.name)),
        _ => None,
    });
    asks.collect::<Vec<_>>().join(", ")
}

fn binds(status: &TargetStatus) -> String {
    let largest = status.metrics.iter().filter_map(|metric| metric.proposal).max();
    let drivers: Vec<&str> =
        status.metrics.iter().filter(|metric| largest.is_some() && metric.proposal == largest).map(|metric| metric.name.as_str()).collect();
    match (&status.binding, drivers.is_empty()) {
        (Some(step), false) => format!("{} ({step})", drivers.join(" and ")),
        (Some(step), true) => step.clone(),
        (None, false) => drivers.join(" and "),
        (None, true) => "nothing yet".to_owned(),
    }
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Values from 0 to their largest, as blocks.
fn sparkline(values: &VecDeque<f64>) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = values.iter().copied().fold(0.0, f64::max);
    let block = |value: &f64| {
        let height = if largest > 0.0 { (value / largest * 7.0).round().clamp(0.0, 7.0) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 and 7")]
        BLOCKS[height as usize]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::status::MetricStatus;
    use crate::drive::measure::Totals;

    fn load(rate: f64, p95_ms: u64) -> Snapshot {
        let p95 = Some(Duration::from_millis(p95_ms));
        Snapshot { totals: Totals { served: 950, shed: 40, unserved: 10, ..Totals::default() }, rate, lost_rate: 1.5, p50: p95, p95, p99: p95, endpoints: 4 }
    }

    fn status() -> TargetStatus {
        let metric = |name: &str, status: &str, proposal| MetricStatus { name: name.into(), status: Some(status.into()), proposal };
        TargetStatus {
            current: Some(4),
            desired: Some(6),
            ready: Some(4),
            min: Some(2),
            max: Some(20),
            verdict: Some("ScaleOut".into()),
            binding: Some("RateLimit".into()),
            reason: Some("connections asks for 7; 2 more in 1s are allowed".into()),
            at: Some(1_764_000_000_000),
            alerts: Vec::new(),
            metrics: vec![metric("cpu", "Ok", Some(5)), metric("memory", "Stale", None), metric("connections", "Ok", Some(7)), metric("rps", "Ok", None)],
        }
    }

    fn frame(status: Result<TargetStatus, String>, history: &History) -> Frame<'_> {
        Frame {
            target: "local/ProcessFleet/shop",
            time: Some(jiff::civil::date(1995, 7, 13).at(6, 12, 0, 0)),
            speed: 60.0,
            elapsed: Duration::from_secs(72),
            now: 1_764_000_003_400,
            load: load(38.2, 262),
            status,
            history,
        }
    }

    #[test]
    fn a_terminal_shows_the_fleet_in_a_few_lines() {
        let mut history = History::default();
        for (rate, p95, ready) in [(0.0, 250, 2), (20.0, 250, 2), (40.0, 500, 4)] {
            history.push(&load(rate, p95), Some(&TargetStatus { ready: Some(ready), ..status() }));
        }
        let expected = "\
local/ProcessFleet/shop   Thu 13 Jul 1995 06:12 at 60x   0:01:12

load       38 requests/s          ▁▅█
latency    p95 262 ms             ▅▅█
lost       1.5 requests/s         50 of 1000 in all
replicas   4 of 6 (2-20)          ▅▅█
asks       cpu 5, memory Stale, connections 7
binds      connections (RateLimit)
decision   ScaleOut 3 s ago: connections asks for 7; 2 more in 1s are allowed";
        assert_eq!(frame(Ok(status()), &history).lines(100).join("\n"), expected);
        assert!(frame(Ok(status()), &history).lines(20).iter().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn a_log_gets_one_line() {
        let history = History::default();
        assert_eq!(
            frame(Ok(status()), &history).line(),
            "0:01:12 [Thu 13 Jul 1995 06:12 at 60x] 38 requests/s, p95 262 ms, 1.5 lost/s, replicas 4 of 6 (2-20), binds connections (RateLimit); \
             ScaleOut 3 s ago: connections asks for 7; 2 more in 1s are allowed"
        );
        assert!(frame(Err("it is busy".into()), &history).line().ends_with("1.5 lost/s, no status: it is busy"));
        assert_eq!(frame(Err("it is busy".into()), &history).lines(80).last().map(String::as_str), Some("Loadline   no status: it is busy"));
    }

    #[test]
    fn a_target_without_a_decision_says_so() {
        let history = History::default();
        let line = frame(Ok(TargetStatus::default()), &history).line();
        assert!(line.ends_with("replicas ? of ? (?-?), binds nothing yet; none yet"), "{line}");
    }

    #[test]
    fn only_the_last_points_are_drawn() {
        let mut history = History::default();
        for n in 0..100_u32 {
            history.push(&load(f64::from(n), 1), None);
        }
        assert_eq!(sparkline(&history.rate).chars().count(), POINTS);
    }
}
