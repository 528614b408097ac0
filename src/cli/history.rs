//! `loadline history`: a target's decisions over time, each with what came of it.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::decisions::{Source, SourceArgs};
use super::{Output, Paint, table, why};
use crate::edge::api::{Dated, Decisions, Gone, Held, Story};
use crate::model::{ManualChange, TargetId, Timestamp};
use crate::runtime::clock::{Clock, SystemClock};

/// Decisions that are asked for at once: the most of one answer.
const PAGE: usize = 200;

/// Without `--since`, so many decisions are shown.
const LAST: usize = 20;

/// Show what was decided about a target, the newest last, and what came of it.
///
/// A decision is written down when its count, verdict, binding step, policy or a metric's status changed, and once an hour.
/// What came of it is that of its last command; `no answer` where none was asked for in its name: the same count had been asked
/// for before, or a command that came to nothing is tried again later. `loadline why --at TIME` tells the rest.
///
/// Exit codes: 0 shown, 1 no such target, or not reachable, 2 wrong usage, or no log in the directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  loadline history storefront\n  loadline history storefront --since 2h --changes\n  loadline history storefront --since 2026-03-01T12:00:00Z --output json"
)]
pub struct HistoryArgs {
    /// The target: namespace/Kind/name, or its end where that is unique
    #[arg(value_hint = clap::ValueHint::Other)]
    target: String,
    /// From when on: 30m, 2h, 3d ago, RFC 3339, Unix milliseconds, or a time of the last 24 hours in UTC, as 12:03:20 [default: the last 20 decisions]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only decisions for another count than the one before, and changes by hand
    #[arg(long)]
    changes: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Shows it.
///
/// # Errors
/// Where the server cannot be reached, or there is no such target or time.
pub fn run(args: &HistoryArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let source = args.source.open()?;
    let since = args.since.as_deref().map(|text| why::moment("since", text, SystemClock.now())).transpose()?;
    let target = source.target(&args.target)?;
    let wanted = |story: &Story| !args.changes || story.decision.current != story.decision.desired || !story.by_hand.is_empty();
    let found = read(&source, &target, since, &wanted)?;
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?,
        Output::Text => write(out, &found, since, args.changes, Paint::for_stdout())?,
    }
    Ok(0)
}

/// Of the decisions that are wanted, those since then, or the last few; page by page, backwards.
fn read(source: &Source, target: &TargetId, since: Option<Timestamp>, wanted: &dyn Fn(&Story) -> bool) -> anyhow::Result<Decisions> {
    let mut found = source.newest(target, PAGE, None)?;
    let mut first = found.decisions.first().map(|story| story.decision.at);
    found.decisions.retain(wanted);
    while let Some(next) = &found.next {
        let enough = match since {
            Some(since) => first.is_none_or(|first| first < since),
            None => found.decisions.len() >= LAST,
        };
        if enough {
            break;
        }
        let mut older = source.page(target, PAGE, next)?;
        (found.gone, found.next) = (older.gone, older.next);
        first = older.decisions.first().map(|story| story.decision.at);
        older.decisions.retain(wanted);
        found.decisions.splice(0..0, older.decisions);
    }
    match since {
        Some(since) => found.decisions.retain(|story| story.decision.at >= since),
        None => drop(found.decisions.drain(..found.decisions.len().saturating_sub(LAST))),
    }
    Ok(found)
}

fn write(out: &mut dyn Write, found: &Decisions, since: Option<Timestamp>, changes: bool, paint: Paint) -> io::Result<()> {
    if let Some(Gone { partition, to, kept_since }) = &found.gone
        && since.is_none_or(|since| kept_since.is_none_or(|kept| kept > since))
    {
        let kept = kept_since.map(|at| format!("; it goes back to {at}")).unwrap_or_default();
        let line = format!(
            "! older decisions are gone: audit 0..{to} of partition {partition} were removed by retention (retention.audit, retention.size; on Kafka that of the topic audit){kept}"
        );
        writeln!(out, "{}", paint.yellow(&line))?;
    }
    if found.decisions.is_empty() && found.by_hand.is_empty() {
        return writeln!(out, "No decision about {} was written down{}.", found.target, if since.is_some() { " since then" } else { " yet" });
    }
    // A change by hand may be told with more than one decision after it, and with one that is told first from before.
    let by_hand_all = found.decisions.iter().flat_map(|story| &story.by_hand).chain(&found.by_hand);
    let by_hand_rows: BTreeSet<(Timestamp, Vec<String>)> =
        by_hand_all.filter(|change| since.is_none_or(|since| change.at >= since)).map(|change| (change.at, by_hand(change, paint))).collect();
    let mut rows: Vec<(Timestamp, Vec<String>)> = by_hand_rows.into_iter().collect();
    let told = found.decisions.iter().filter(|story| !changes || story.decision.current != story.decision.desired);
    rows.extend(told.map(|story| (story.decision.at, row(story, paint))));
    rows.sort_by_key(|(at, _)| *at);
    if rows.is_empty() {
        return writeln!(out, "No change of {} was decided{}.", found.target, if since.is_some() { " since then" } else { " in the last decisions" });
    }
    table::write(out, &HEADER, rows.into_iter().map(|(_, row)| row))
}

/// The columns of [`row`].
pub(super) const HEADER: [&str; 6] = ["TIME (UTC)", "REPLICAS", "DOES", "BOUND BY", "CAME OF IT", "WHY"];

/// A decision as a row.
pub(super) fn row(story: &Story, paint: Paint) -> Vec<String> {
    let decision = &story.decision;
    let (current, desired) = (decision.current, decision.desired);
    let replicas = if current == desired { desired.to_string() } else { paint.bold(&format!("{current} → {desired}")) };
    let does = super::status::paint_does(Some(decision.verdict), decision.advised.then_some(Held::Advises), paint);
    vec![time(decision.at), replicas, does, decision.binding.name().to_owned(), came_of(story), story.sentence.clone()]
}

/// A change by hand as a row.
fn by_hand(change: &Dated<ManualChange>, paint: Paint) -> Vec<String> {
    let ManualChange { from, to, actor, reason, forced, .. } = &change.record;
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let came_of = if *forced { "forced" } else { "set" };
    vec![time(change.at), paint.bold(&format!("{from} → {to}")), "by hand".to_owned(), "–".to_owned(), came_of.to_owned(), format!("{actor}{reason}")]
}

/// What came of a decision, in a word or two.
fn came_of(story: &Story) -> String {
    let Story { decision, grants, commands, outcomes, .. } = story;
    match (outcomes.last(), decision.current == decision.desired) {
        (Some(outcome), _) => outcome.record.result.name().to_lowercase(),
        (None, true) => "–".to_owned(),
        (None, false) if decision.advised => "advice only".to_owned(),
        (None, false) if !commands.is_empty() => "commanded".to_owned(),
        (None, false) => match grants.last() {
            Some(grant) => format!("granted {}", grant.record.granted),
            None => "no answer".to_owned(),
        },
    }
}

/// A time to the second, with its day.
pub(super) fn time(at: Timestamp) -> String {
    at.to_string().split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::view::View;
    use crate::edge::view::tests::{api, at, command, decision, grant, outcome};
    use crate::model::Audit;

    fn found(gone: Option<Gone>) -> Decisions {
        let view = View::new();
        let by_hand = ManualChange { target: api(), from: 5, to: 6, actor: "ana".to_owned(), reason: Some("launch".to_owned()), forced: true };
        let scaled = [Audit::Decision(decision(10, 3, 5)), grant(10, 3, 5), command(10, 3, 5), outcome(10, 5)];
        for (n, entry) in
            (10..).zip(scaled.into_iter().chain([Audit::Decision(decision(20, 5, 5)), Audit::ByHand(by_hand), Audit::Decision(decision(40, 6, 7))]))
        {
            view.audit(at(n), entry);
        }
        Decisions { target: api(), decisions: view.decisions(&api(), 20, None).unwrap(), by_hand: Vec::new(), gone, next: None }
    }

    fn told(found: &Decisions, since: Option<Timestamp>) -> String {
        let mut out = Vec::new();
        write(&mut out, found, since, false, Paint::PLAIN).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_decision_is_a_line_with_what_came_of_it_and_what_people_did_in_between() {
        let told = told(&found(None), None);
        let rows: Vec<Vec<&str>> = told.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
        assert_eq!(rows[0], ["TIME (UTC)", "REPLICAS", "DOES", "BOUND BY", "CAME OF IT", "WHY"]);
        assert_eq!(rows[1][..5], ["2025-11-24 16:00:10", "3 → 5", "scales out", "RateLimit", "applied"], "{told}");
        assert_eq!(rows[2][1], "5 → 6", "{told}");
        assert_eq!((rows[2][2], rows[2].last()), ("by hand", Some(&"ana: launch")), "{told}");
        assert_eq!(rows[2][4], "forced", "beyond the policy's bounds: {told}");
        assert_eq!(rows[3][4], "–", "nothing was to be done: {told}");
        assert_eq!(rows[4][4], "no answer", "{told}");
    }

    #[test]
    fn what_retention_removed_is_said_where_it_was_asked_for() {
        let gone = Gone { partition: 0, to: 70, kept_since: Some(at(5)) };
        assert!(told(&found(Some(gone.clone())), Some(at(0))).starts_with("! older decisions are gone: audit 0..70 of partition 0"), "asked from before");
        assert!(!told(&found(Some(gone)), Some(at(8))).contains("gone"), "all that was asked for is there");
    }
}
