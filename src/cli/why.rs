//! `loadline why`: a decision told step by step, with its grant, command and outcome.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::bail;

use super::decisions::{Source, SourceArgs};
use super::{Output, Paint, Unusable, table};
use crate::edge::api::{Dated, Decisions, Gone, MOST_PARTS, Story, TargetDetail, TargetStatus, target_path};
use crate::model::{Decision, ManualChange, MetricReport, MetricStatus, Timestamp, Verdict};
use crate::runtime::clock::{Clock, SystemClock};
use crate::wire::words;

/// Tell why a target has the replicas that it has: its last decision, or the one of a given time.
///
/// Exit codes: 0 told, 1 no such target or decision, or not reachable, 2 wrong usage, or no log in the directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  loadline why local/ProcessFleet/storefront\n  loadline why storefront --at 12:03:20\n  loadline why storefront --at 2026-03-01T12:03:20Z --output json"
)]
pub struct WhyArgs {
    /// The target: namespace/Kind/name, or its end where that is unique
    #[arg(value_hint = clap::ValueHint::Other)]
    target: String,
    /// The last decision at or before this time: 30m, 2h, 3d ago, RFC 3339, Unix milliseconds, or a time of the last 24 hours in UTC, as 12:03:20
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// How long before a decision what people set by hand is told with it, and how many decisions of that time.
const BY_HAND_SHOWN: Duration = Duration::from_secs(600);
const BEFORE: usize = 10;

/// Tells it.
///
/// # Errors
/// Where the server cannot be reached, or there is no such target, time or decision.
pub fn run(args: &WhyArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let source = args.source.open()?;
    let at = args.at.as_deref().map(|text| moment("at", text, SystemClock.now())).transpose()?;
    let target = source.target(&args.target)?;
    // A time as it is shown is a whole second: what was decided in it is meant, above all what moved the count.
    let second = at.filter(|at| args.at.as_deref().is_some_and(|text| text.contains(':') && !text.contains('.')) && at.as_millis() % 1_000 == 0);
    let until = second.map(|second| second + Duration::from_millis(999)).or(at);
    // The one that is told, and what came shortly before it.
    let mut found = source.newest(&target, BEFORE, until)?;
    let moved = |story: &Story| second.is_some_and(|second| story.decision.at >= second) && story.decision.current != story.decision.desired;
    if let Some(place) = found.decisions.iter().rposition(moved) {
        found.decisions.truncate(place + 1);
    }
    let Some(story) = found.decisions.pop() else {
        match &args.at {
            Some(at) => bail!("no decision about {target} at or before {at} is left in the log{}", removed(found.gone.as_ref())),
            None => bail!("nothing has been decided about {target} yet; `loadline status` says what it waits for"),
        }
    };
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&story)?)?,
        Output::Text => {
            let paint = Paint::for_stdout();
            write(out, &story, &found, paint)?;
            if let (None, Source::Server(client)) = (&args.at, &source) {
                let detail: TargetDetail = client.get(&target_path(&target))?;
                now(out, &story.decision, &detail.status, paint)?;
            }
        }
    }
    Ok(0)
}

/// What retention has to do with it.
fn removed(gone: Option<&Gone>) -> String {
    let Some(Gone { partition, to, kept_since }) = gone else { return String::new() };
    let since = kept_since.map(|at| format!("; it goes back to {at}")).unwrap_or_default();
    format!(": audit 0..{to} of partition {partition} were removed by retention (retention.audit, retention.size; on Kafka that of the topic audit){since}")
}

/// The time that a flag names, as a person writes it: how long ago, or a moment. A time of day is the last such moment in UTC.
pub(super) fn moment(flag: &str, text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    const DAY_MS: i64 = 86_400_000;
    // Numbers of Unix milliseconds have as many digits since 1973; a shorter one is no moment that anybody means.
    const DIGITS: usize = 12;
    if let Ok(ms) = text.parse::<i64>() {
        if text.len() < DIGITS {
            let hint = format!("--{flag} \"{text}\" has no unit; write {text}m, {text}h or {text}d ago, or all {} digits of Unix milliseconds", DIGITS + 1);
            return Err(Unusable(hint).into());
        }
        return Ok(Timestamp::from_millis(ms));
    }
    if let Some(ago) = ago(text) {
        return Ok(now - ago);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp::from_millis(at.as_millisecond()));
    }
    if let Ok(time) = text.parse::<jiff::civil::Time>() {
        let into_day = time.duration_since(jiff::civil::Time::midnight()).as_millis();
        let into_day = i64::try_from(into_day).unwrap_or(0);
        let today = now.as_millis().div_euclid(DAY_MS) * DAY_MS + into_day;
        return Ok(Timestamp::from_millis(if today > now.as_millis() { today - DAY_MS } else { today }));
    }
    let forms = "30m, 2h or 3d (ago), 2026-03-01T12:03:20Z, 12:03:20 (UTC), or Unix milliseconds";
    Err(Unusable(format!("--{flag} \"{text}\" is no time; write {forms}")).into())
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
    // A century: further back there is nothing, and times stay in their range.
    Some(Duration::from_secs(count.saturating_mul(seconds).min(100 * 366 * 86_400)))
}

/// Tells `story`, with what people did before it and since, in the order of time. `around` has the decisions before it, and the changes by
/// hand since it.
fn write(out: &mut dyn Write, story: &Story, around: &Decisions, paint: Paint) -> io::Result<()> {
    let decision = &story.decision;
    let verdict = words::verdict(decision);
    let verdict = match decision.verdict {
        _ if decision.advised => verdict,
        Verdict::ScaleOut => paint.green(&verdict),
        Verdict::ScaleIn => paint.yellow(&verdict),
        Verdict::Blind | Verdict::Faulted => paint.red(&verdict),
        _ => verdict,
    };
    writeln!(out, "{} {verdict}", paint.bold(decision.target.as_str()))?;
    writeln!(out, "{}\n", story.sentence)?;
    before(out, story, around)?;
    let measured = decision.measured_through().map_or_else(|| "before anything was measured".to_owned(), |at| format!("on what had been measured up to {at}"));
    writeln!(out, "Decided  {}, decision {}, {measured}", decision.at, decision.sequence)?;
    writeln!(out, "Policy   {}{}\n", decision.policy_version, if decision.advised { ", advice only: nothing is commanded" } else { "" })?;
    metrics(out, &decision.metrics, decision.at, usize::MAX, paint)?;
    steps(out, decision, usize::MAX, paint)?;
    after(out, story, &around.by_hand)
}

/// What people set by hand shortly before a decision, and what was decided in between: whether one led to the other is told by the steps.
fn before(out: &mut dyn Write, story: &Story, around: &Decisions) -> io::Result<()> {
    let since = story.decision.at - BY_HAND_SHOWN;
    let told = around.decisions.iter().map(|story| (&story.by_hand, Some(&story.decision))).chain([(&story.by_hand, None)]);
    let mut any = false;
    for (changes, decision) in told {
        for change in changes.iter().filter(|change| change.at >= since) {
            writeln!(out, "{}", by_hand(change))?;
            any = true;
        }
        if let Some(decision) = decision.filter(|_| any) {
            writeln!(out, "Decided  {}, decision {}: {}", decision.at, decision.sequence, words::verdict(decision))?;
        }
    }
    if any { writeln!(out) } else { Ok(()) }
}

/// What is so now: the decision that is told may be of an hour ago, as one is written down when more than numbers change.
fn now(out: &mut dyn Write, told: &Decision, status: &TargetStatus, paint: Paint) -> io::Result<()> {
    let count = |n: Option<u32>| n.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string());
    let current = status
        .current
        .map_or_else(|| "its replicas are not seen".to_owned(), |_| format!("{} asked for, {} ready", count(status.current), count(status.ready)));
    let Some(at) = status.at else { return writeln!(out, "\nNow      {current}; {}", status.reason) };
    if at <= told.at {
        return writeln!(out, "\nNow      {current}");
    }
    writeln!(out, "\nNow      {current}; evaluated again at {at}:\n         {}\n", status.reason)?;
    let mut table = Vec::new();
    metrics(&mut table, &status.metrics, at, usize::MAX, paint)?;
    out.write_all(table.trim_ascii_end())?;
    if table.is_empty() { Ok(()) } else { writeln!(out) }
}

/// What a person set.
fn by_hand(Dated { at, record }: &Dated<ManualChange>) -> String {
    let reason = record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let set = if record.forced { "forced" } else { "set" };
    format!("By hand  {at}  {} {set} {} → {}{reason}", record.actor, record.from, record.to)
}

/// Each metric of an evaluation at `near` against its target or limit, with what it waits for, in lines of `width` columns.
pub(super) fn metrics(out: &mut dyn Write, metrics: &[MetricReport], near: Timestamp, width: usize, paint: Paint) -> io::Result<()> {
    if metrics.is_empty() {
        return Ok(());
    }
    let rows = metrics.iter().map(|m| {
        let value = m.value.map_or_else(|| "–".to_owned(), |value| words::figure(value, m));
        let against = words::against(m).unwrap_or_else(|| "–".to_owned());
        let status = format!("{:?}", m.status);
        let status = match m.status {
            MetricStatus::Ok => status,
            MetricStatus::Idle => paint.dim(&status),
            _ => paint.red(&status),
        };
        let asks = m.proposal.map_or_else(|| "–".to_owned(), |n| n.to_string());
        vec![m.name.to_string(), status, value, against, asks, words::remarks(m, near).unwrap_or_default()]
    });
    table::write_within(out, &["METRIC", "STATUS", "VALUE", "AGAINST", "ASKS FOR", ""], rows, width)?;
    writeln!(out)
}

/// Each step that took part, in lines of `width` columns.
pub(super) fn steps(out: &mut dyn Write, decision: &Decision, width: usize, paint: Paint) -> io::Result<()> {
    let rows = decision.steps.iter().map(|step| {
        let name = format!("{:?}", step.step);
        let name = if step.step == decision.binding { paint.bold(&format!("{name} *")) } else { name };
        let change = if step.before == step.after { step.after.to_string() } else { format!("{} → {}", step.before, step.after) };
        vec![name, change, words::why(decision, step)]
    });
    table::write_within(out, &["STEP", "REPLICAS", "WHY"], rows, width)?;
    writeln!(out, "{}\n", paint.dim("* the step that bound"))
}

/// What came of a decision, and what people set by hand since, in the order of time.
pub(super) fn after(out: &mut dyn Write, story: &Story, by_hand_since: &[Dated<ManualChange>]) -> io::Result<()> {
    let Story { decision, grants, commands, outcomes, .. } = story;
    let mut told: Vec<(Timestamp, String)> = Vec::new();
    told.extend(folded(grants, words::grant, |at, said, _| format!("Grant    {at}  {said}")));
    told.extend(folded(
        commands,
        |command| format!("set {} where {} are found", command.to, command.from),
        |at, said, command| format!("Command  {at}  {said}, until {}", command.expires_at),
    ));
    told.extend(folded(outcomes, words::outcome, |at, said, _| {
        let took = at.since(decision.at).as_secs_f64();
        format!("Outcome  {at}  {said}, {took:.1} s after the decision")
    }));
    told.extend(by_hand_since.iter().map(|change| (change.at, by_hand(change))));
    // Stable: of the same time in the order of the flow.
    told.sort_by_key(|(at, _)| *at);
    for (_, line) in &told {
        writeln!(out, "{line}")?;
    }
    if let Some(so_far) = story.so_far() {
        writeln!(out, "{so_far}")?;
    }
    Ok(())
}

/// A line for all records that say the same, as those of a command that is tried again and again do: the first, with how often
/// it came in all, and when last.
fn folded<T>(records: &[Dated<T>], says: impl Fn(&T) -> String, line: impl Fn(Timestamp, &str, &T) -> String) -> Vec<(Timestamp, String)> {
    let mut of_words: Vec<(String, Vec<&Dated<T>>)> = Vec::new();
    for dated in records {
        let said = says(&dated.record);
        match of_words.iter_mut().find(|(known, _)| *known == said) {
            Some((_, same)) => same.push(dated),
            None => of_words.push((said, vec![dated])),
        }
    }
    let told = of_words.iter().filter_map(|(said, same)| {
        let (first, last) = (same.first()?, same.last()?);
        // Of more than are kept, how many there were is not known.
        let least = if records.len() >= MOST_PARTS { "at least " } else { "" };
        let times = if same.len() > 1 { format!("; {least}{} times, the last at {}", same.len(), last.at) } else { String::new() };
        Some((first.at, format!("{}{times}", line(first.at, said, &first.record))))
    });
    told.collect()
}

#[cfg(test)]
mod tests;
