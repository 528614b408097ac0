//! `loadline status`: every target in a line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::client::{Client, ServerArgs};
use super::{Output, Paint, table};
use crate::edge::api::{Held, Lag, Owner, Status, TargetStatus, does};
use crate::model::{Alert, AlertState, Severity, TargetId, Timestamp, Verdict};
use crate::runtime::retention::{Pressure, Usage, size};

/// Show what every target does, and why.
///
/// Exit codes: 0 shown, 1 not reachable, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  loadline status\n  loadline status --output json | jq '.targets[].desired'\n  loadline status --server http://127.0.0.1:9090"
)]
pub struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Shows it.
///
/// # Errors
/// Where the server cannot be reached or `out` cannot be written.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let status: Status = Client::new(&args.server).get("/api/v1/status")?;
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
        Output::Text => write(out, &status, Paint::for_stdout())?,
    }
    Ok(0)
}

/// How old a decision or observation may be before its age is pointed out: two repetitions of an observation.
const OLD_MS: i64 = 120_000;

/// The columns of [`row`].
pub(super) const HEADER: [&str; 7] = ["TARGET", "REPLICAS", "READY", "RANGE", "MODE", "DOES", "WHY"];

fn write(out: &mut dyn Write, status: &Status, paint: Paint) -> io::Result<()> {
    if status.targets.is_empty() {
        writeln!(out, "No target yet: start Loadline with --policies, or put a policy into the directory that it reads.")?;
    } else {
        let rows = status.targets.iter().map(|t| row(t, status.at, paint));
        table::write(out, &HEADER, rows)?;
    }
    troubles(out, status, paint)?;
    if let Some(usage) = &status.log {
        log(out, usage, paint)?;
    }
    owners(out, &status.lag, paint)
}

/// Who has how many partitions of each stage's input, and how many records it is behind, where several processes share them.
fn owners(out: &mut dyn Write, lag: &[Lag], paint: Paint) -> io::Result<()> {
    let mut stages: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    let mut behind: BTreeMap<&str, u64> = BTreeMap::new();
    for Lag { stage, owner, records, .. } in lag {
        let owner = match owner {
            None => continue,
            Some(Owner::Nobody) => "no process",
            Some(Owner::Member(member)) => member,
        };
        *stages.entry(stage).or_default().entry(owner).or_default() += 1;
        *behind.entry(stage).or_default() += records;
    }
    for (stage, owners) in stages {
        let owners: Vec<String> = owners.iter().map(|(owner, count)| format!("{owner} has {count}")).collect();
        writeln!(out, "{}", paint.dim(&format!("{stage}, partitions: {}", owners.join("; "))))?;
    }
    if !behind.is_empty() {
        let behind: Vec<String> = behind.iter().map(|(stage, records)| format!("{stage} {records}")).collect();
        writeln!(out, "{}", paint.dim(&format!("records behind: {}", behind.join(", "))))?;
    }
    Ok(())
}

/// What a person should look at: freezes, alerts, stages that are behind.
pub(super) fn troubles(out: &mut dyn Write, status: &Status, paint: Paint) -> io::Result<()> {
    let mut frozen: Vec<&str> = status.targets.iter().filter_map(|t| t.frozen.as_deref()).collect();
    frozen.dedup();
    for file in frozen {
        writeln!(out, "{}", paint.red(&format!("! frozen by {file}: nothing is commanded until it is removed (Frozen)")))?;
    }
    let alerts = status.alerts.iter().chain(status.targets.iter().flat_map(|t| &t.alerts));
    let mut groups: Vec<Vec<&Alert>> = Vec::new();
    let mut places: BTreeMap<(&str, &str, bool), usize> = BTreeMap::new();
    for alert in alerts {
        let at = *places.entry((alert.name.as_str(), alert.severity.name(), alert.state == AlertState::Event)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[at].push(alert);
    }
    for group in groups {
        if group.len() <= EACH {
            for alert in group {
                let place = alert.target.as_ref().map(|t| format!("{t}: ")).unwrap_or_default();
                alert_line(out, alert, &format!("{place}{}", alert.message), status.at, paint)?;
            }
        } else if let Some(first) = group.first() {
            alert_line(out, first, &together(&group), status.at, paint)?;
        }
    }
    for trouble in status.lag.iter().filter_map(|lag| lag.trouble(status.at)) {
        writeln!(out, "{}", paint.yellow(&format!("! {trouble}")))?;
    }
    Ok(())
}

/// So many alerts of one name have a line each; more are one line.
const EACH: usize = 3;

/// Many alerts of one name in a sentence: how many, what the first says, and of whom they are.
fn together(group: &[&Alert]) -> String {
    let of: BTreeSet<&str> = group.iter().map(|alert| alert.target.as_ref().map_or(alert.subject.as_str(), TargetId::as_str)).collect();
    let first = group.first().map_or("", |alert| alert.message.as_str());
    let said = if group.iter().all(|alert| alert.message == first) { first.to_owned() } else { format!("e.g. {first}") };
    let named = of.iter().take(EACH).copied().collect::<Vec<_>>().join(", ");
    let more = if of.len() > EACH { format!(" and {} more", of.len() - EACH) } else { String::new() };
    let what = if group.iter().all(|alert| alert.target.is_some()) { "target" } else { "subject" };
    let plural = if of.len() == 1 { "" } else { "s" };
    format!("{} {what}{plural}: {said}: {named}{more}", of.len())
}

fn alert_line(out: &mut dyn Write, alert: &Alert, said: &str, now: Timestamp, paint: Paint) -> io::Result<()> {
    let (mark, when) = match alert.state {
        AlertState::Event => ("·", format!(", {} s ago", now.since(alert.at).as_secs())),
        AlertState::Firing | AlertState::Resolved => ("!", String::new()),
    };
    let line = format!("{mark} {said} ({}{when})", alert.name);
    let painted = match alert.severity {
        Severity::Critical => paint.red(&line),
        Severity::Warning => paint.yellow(&line),
        Severity::Info => paint.dim(&line),
    };
    writeln!(out, "{painted}")
}

/// What the log takes of the disk, and how far back it reaches.
fn log(out: &mut dyn Write, usage: &Usage, paint: Paint) -> io::Result<()> {
    let a_day = usage.bytes_a_day.map_or_else(|| "how much comes in a day is not known yet".to_owned(), |bytes| format!("{} a day", size(bytes)));
    let kept = usage.topics.iter().filter_map(|topic| topic.hours_kept.map(|hours| format!("{} {hours:.1} h", topic.topic)));
    let line = format!("log: {} of {}, {a_day}; reaches back: {}", size(usage.bytes), size(usage.limit), kept.collect::<Vec<_>>().join(", "));
    match usage.pressure {
        Pressure::Roomy => writeln!(out, "{}", paint.dim(&line)),
        Pressure::Trimming => writeln!(out, "{}", paint.dim(&format!("{line}; what is oldest goes, since it is nearly full"))),
        Pressure::Held => writeln!(out, "{}", paint.yellow(&format!("! {line}; it is nearly full, and no more may go: {}", usage.held_by.join("; ")))),
        Pressure::Full => writeln!(out, "{}", paint.red(&format!("! {line}; it is full, and samples are refused: {}", usage.held_by.join("; ")))),
    }
}

/// What a target does, in its colour: that of a change only where it is carried out.
pub(super) fn paint_does(verdict: Option<Verdict>, held: Option<Held>, paint: Paint) -> String {
    let said = does(verdict, held);
    match (verdict, held) {
        (_, Some(Held::Off)) => paint.dim(&said),
        (Some(Verdict::Blind | Verdict::Faulted), _) | (_, Some(Held::Frozen)) => paint.red(&said),
        (Some(Verdict::ScaleOut), None) => paint.green(&said),
        (Some(Verdict::ScaleIn), None) => paint.yellow(&said),
        (Some(Verdict::Disabled) | None, _) => paint.dim(&said),
        _ => said,
    }
}

/// What a target does, as a row.
pub(super) fn row(target: &TargetStatus, now: Timestamp, paint: Paint) -> Vec<String> {
    let number = |n: Option<u32>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
    let replicas = match (target.current, target.desired) {
        (Some(current), Some(desired)) if current != desired => format!("{current} → {desired}"),
        (current, desired) => number(current.or(desired)),
    };
    let range = match (target.min, target.max) {
        (None, None) => "–".to_owned(),
        (min, max) => format!("{}–{}", number(min), number(max)),
    };
    let does = paint_does(target.verdict, target.held(), paint);
    let mut why = target.reason.clone();
    if let Some(at) = target.seen_at.filter(|at| now.as_millis() - at.as_millis() > OLD_MS) {
        why += &paint.yellow(&format!(" (replicas last seen {} s ago)", now.since(at).as_secs()));
    }
    let mode = target.mode.clone().unwrap_or_else(|| "no policy".to_owned());
    vec![paint.bold(target.target.as_str()), replicas, number(target.ready), range, mode, does, why]
}

#[cfg(test)]
mod tests;
