//! What decisions, grants and outcomes say, in English: for someone who is woken at night.
//!
//! Pure: the same record gives the same words. Sentences are lower-case fragments without a full
//! stop, so that they fit into a line of a terminal or of a log. Amounts carry their units
//! ([`amount`]), times are UTC. The records hold the numbers; nothing is computed here.

use crate::model::policy::Unit;
use crate::model::{
    Amount, Decision, Grant, GrantLimit, MetricReport, MetricStatus, Outcome, OutcomeResult, Reason, Step, StepKind, ThresholdReport, ThresholdSide,
    ThresholdWait, Timestamp, Verdict, WhileBlind,
};

mod amount;

pub use amount::amount;

/// What a decision comes to, e.g. "scales out from 3 to 5 replicas".
pub fn verdict(decision: &Decision) -> String {
    let (current, desired) = (decision.current, decision.desired);
    match decision.verdict {
        Verdict::ScaleOut if decision.advised => format!("would scale out from {current} to {} (advises)", replicas(desired)),
        Verdict::ScaleIn if decision.advised => format!("would scale in from {current} to {} (advises)", replicas(desired)),
        Verdict::ScaleOut => format!("scales out from {current} to {}", replicas(desired)),
        Verdict::ScaleIn => format!("scales in from {current} to {}", replicas(desired)),
        Verdict::Hold => format!("stays at {}", replicas(desired)),
        Verdict::Blind => format!("stays at {}, since nothing is known", replicas(desired)),
        Verdict::Disabled => "is left alone".to_owned(),
        Verdict::Faulted => format!("is held at {} by a fault in the program", replicas(desired)),
        Verdict::Other if current == desired => format!("stays at {}", replicas(desired)),
        Verdict::Other => format!("goes from {current} to {}", replicas(desired)),
    }
}

/// Why a decision is what it is, in one sentence: what was asked for, and what bound.
///
/// E.g. "cpu 84 % against 70 % asks for 8; the scale-out rate allows 5 until 12:03:20 UTC".
pub fn sentence(decision: &Decision) -> String {
    let said = match decision.verdict {
        Verdict::Faulted => "a fault in the program holds this target: its replicas stay until its policy changes or an operator orders otherwise".to_owned(),
        _ => match binding_step(decision) {
            Some(step) => {
                let said = match asked(decision, step) {
                    Some(asked) => format!("{asked}; {}", clause(decision, step)),
                    None => clause(decision, step),
                };
                with_waiting(decision, said)
            }
            None => verdict(decision),
        },
    };
    if decision.advised { format!("advice only: {said}") } else { said }
}

/// Adds what a threshold waits for before it asks for more, where the sentence speaks of another metric and nothing grows: what comes is not in it.
fn with_waiting(decision: &Decision, said: String) -> String {
    let asks_for_more = |report: &&MetricReport| report.threshold.as_ref().is_some_and(|threshold| threshold.side == ThresholdSide::Above);
    let waiting = decision.metrics.iter().filter(|_| decision.desired <= decision.current).filter(asks_for_more).find_map(|report| {
        let waits = waits(report, decision.at)?;
        let measured = measured(report);
        (!said.contains(&measured)).then(|| format!("{said}; {measured}: {waits}"))
    });
    waiting.unwrap_or(said)
}

/// Why a step of a decision said what it said.
pub fn why(decision: &Decision, step: &Step) -> String {
    let proposals = decision.metrics.iter().filter(|m| m.proposal.is_some()).count();
    let said = clause(decision, step);
    if step.reason == Reason::LargestProposal && proposals > 1 { format!("{said}, the largest of {proposals} proposals") } else { said }
}

/// One metric's part in a decision at `near`, e.g. "cpu 84 % against 70 % asks for 8", "memory is stale (…)".
pub fn metric(report: &MetricReport, near: Timestamp) -> String {
    match report.proposal {
        Some(count) => format!("{} asks for {count}{}", measured(report), waiting(report, near)),
        None if report.status == MetricStatus::Ok => format!("{} asks for nothing", measured(report)),
        None => measured(report),
    }
}

/// An amount of a metric with its unit: "84 %", "120/s".
pub fn figure(value: Amount, report: &MetricReport) -> String {
    rated(value, report.unit, report.per_second)
}

/// An amount with its unit, and that it is a rate.
pub fn rated(value: Amount, unit: Unit, per_second: bool) -> String {
    let written = amount(value, unit);
    if per_second { format!("{written}/s") } else { written }
}

/// What a metric is held against, e.g. "70 %"; of a threshold which limit applies: "above 300 ms".
pub fn against(report: &MetricReport) -> Option<String> {
    let write = |value| figure(value, report);
    match &report.threshold {
        Some(threshold) => limits(threshold, write),
        None => report.target.map(write),
    }
}

/// What a threshold waits for before it asks for its step, e.g. "it has to stay so until 12:00:20 UTC"; `None` where it waits for nothing.
pub fn waits(report: &MetricReport, near: Timestamp) -> Option<String> {
    let threshold = report.threshold.as_ref()?;
    let until = threshold.until.map(|until| moment(until, near));
    Some(match (threshold.waits?, until) {
        (ThresholdWait::For, Some(until)) => format!("it has to stay so until {until}"),
        (ThresholdWait::For, None) => "it has to stay so for longer".to_owned(),
        (ThresholdWait::StartUp, Some(until)) => format!("the instances of the last scale-out are still starting, waited for until {until} at the latest"),
        (ThresholdWait::StartUp, None) => "the instances of the last scale-out are still starting".to_owned(),
        (ThresholdWait::Other, _) => "it waits for something that this version does not know".to_owned(),
    })
}

/// What else is to be said of a metric: its note, what it waits for, and what it means that it is blind.
pub fn remarks(report: &MetricReport, near: Timestamp) -> Option<String> {
    let blind = report.status.is_blind().then(|| while_blind(report.while_blind)).flatten().map(str::to_owned);
    let said: Vec<String> = [report.note.clone(), waits(report, near), blind].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What a metric without a usable value means for its target.
pub fn while_blind(effect: WhileBlind) -> Option<&'static str> {
    match effect {
        WhileBlind::HoldIn => Some("nothing is removed meanwhile"),
        WhileBlind::Ignore => Some("the other metrics decide without it (whenBlind: Ignore)"),
        WhileBlind::Observe => Some("it is observed only: no decision waits for it"),
        WhileBlind::Other => None,
    }
}

/// ": it has to stay so until …"; empty where nothing is waited for.
fn waiting(report: &MetricReport, near: Timestamp) -> String {
    waits(report, near).map(|waits| format!(": {waits}")).unwrap_or_default()
}

fn limits(threshold: &ThresholdReport, write: impl Fn(Amount) -> String) -> Option<String> {
    let (above, below) = (threshold.scale_out_above.map(&write), threshold.scale_in_below.map(&write));
    match (threshold.side, above, below) {
        (ThresholdSide::Above, Some(above), _) => Some(format!("above {above}")),
        (ThresholdSide::Below, _, Some(below)) => Some(format!("below {below}")),
        (ThresholdSide::Between, Some(above), Some(below)) => Some(format!("between {below} and {above}")),
        (ThresholdSide::Between, Some(above), None) => Some(format!("not above {above}")),
        (ThresholdSide::Between, None, Some(below)) => Some(format!("not below {below}")),
        _ => None,
    }
}

/// What a grant says.
pub fn grant(grant: &Grant) -> String {
    let (desired, granted) = (grant.desired, grant.granted);
    match grant.limit {
        GrantLimit::None => format!("{} granted, as asked for", replicas(granted)),
        GrantLimit::Removals => format!("{} granted for now, {desired} asked for: removals are paced over the fleet", replicas(granted)),
        GrantLimit::Freeze => format!("a freeze is in force: nothing is issued, {} asked for", replicas(desired)),
        GrantLimit::Other => format!("{} granted, {desired} asked for, by a limit that this version does not know", replicas(granted)),
    }
}

/// What an outcome says.
pub fn outcome(outcome: &Outcome) -> String {
    let what = match outcome.result {
        OutcomeResult::Applied => "applied",
        OutcomeResult::Conflict => "not applied: the count found was not the one assumed",
        OutcomeResult::Expired => "not applied: it came too late",
        OutcomeResult::Stale => "not applied: a newer epoch had been applied before",
        OutcomeResult::Superseded => "not applied: a newer command replaced it",
        OutcomeResult::Rejected => "not applied: it was refused for good",
        OutcomeResult::Failed => "not applied: the call failed",
        OutcomeResult::Frozen => "not applied: an emergency stop is in force",
        OutcomeResult::Lost => "lost: no outcome came in time",
        OutcomeResult::Other => "came to something that this version does not know",
    };
    let error = outcome.error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
    let now = outcome.replicas.map(|n| format!("; {} now", replicas(n))).unwrap_or_default();
    format!("{what}{error}{now}")
}

/// The step that bound: the last of its kind that changed the count, or the last of its kind.
fn binding_step(decision: &Decision) -> Option<&Step> {
    let of_kind = || decision.steps.iter().rev().filter(|s| s.step == decision.binding);
    of_kind().find(|s| s.before != s.after).or_else(|| of_kind().next()).or_else(|| decision.steps.last())
}

/// What was asked for before `step` bound it; `None` where the step's own clause says it.
fn asked(decision: &Decision, step: &Step) -> Option<String> {
    let speaks_for_all = matches!(
        step.reason,
        Reason::LargestProposal
            | Reason::NoProposal
            | Reason::HoldWhileBlind
            | Reason::FallbackIfHigher
            | Reason::FallbackStatic
            | Reason::IdleToMin
            | Reason::ScaledToZeroByHand
    );
    if speaks_for_all {
        return None;
    }
    let combine = decision.steps.iter().find(|s| s.step == StepKind::Combine && s.reason == Reason::LargestProposal);
    match combine {
        Some(combine) => Some(clause(decision, combine)),
        // Of equal proposals the first in the policy's order, as the fold does.
        None => decision.metrics.iter().rev().filter(|m| m.proposal.is_some()).max_by_key(|m| m.proposal).map(|m| metric(m, decision.at)),
    }
}

fn clause(decision: &Decision, step: &Step) -> String {
    let after = step.after;
    let stays = format!("{} {}", replicas(after), if after == 1 { "stays" } else { "stay" });
    let limit = step.limit.unwrap_or(after);
    let until = step.until.map(|until| format!(" until {}", moment(until, decision.at))).unwrap_or_default();
    let report = step.metric.as_ref().and_then(|name| decision.metrics.iter().find(|m| m.name == *name));
    let name = step.metric.as_ref().map_or("a metric", |name| name.as_str());
    match step.reason {
        Reason::LargestProposal => {
            let who = report.map_or_else(|| name.to_owned(), measured);
            let waiting = report.map(|report| waiting(report, decision.at)).unwrap_or_default();
            // Advice is held against the count that would stand, had it been followed.
            let same = if decision.advised { ", as advised before" } else { ", as it is" };
            format!("{who} asks for {after}{}{waiting}", if after == decision.current { same } else { "" })
        }
        Reason::NoProposal => format!("no metric asks for a count, so {stays}"),
        Reason::BlindMetric => {
            let what = report.map_or_else(|| format!("{name} has no usable value"), measured);
            format!("{what}, so nothing is removed and {stays}")
        }
        Reason::FleetUnseen => format!("the replicas have not been seen for too long, so nothing is removed and {stays}"),
        Reason::HoldWhileBlind => format!("no metric has a usable value{}, so {stays}{until}", blind_list(decision)),
        Reason::FallbackIfHigher if after > step.before => {
            format!("no metric has had a usable value for too long{}, so the fallback raises {} to {after}", blind_list(decision), step.before)
        }
        Reason::FallbackIfHigher => {
            let than = step.limit.map(|n| format!(" of {n}")).unwrap_or_default();
            format!("no metric has had a usable value for too long{}; the fallback{than} is not higher, so {stays}", blind_list(decision))
        }
        Reason::FallbackStatic => format!("no metric has had a usable value for too long{}, so the fallback asks for {after}", blind_list(decision)),
        Reason::IdleToMin => format!("all metrics have been idle for the scale-in window, so the minimum of {limit} is asked for"),
        Reason::ScaleOutWindow => format!("a lower recommendation of {limit} is inside the scale-out window and counts{until}"),
        Reason::ScaleInWindow => format!("a higher recommendation of {limit} is inside the scale-in window and counts{until}"),
        Reason::ScaleOutRate => format!("the scale-out rate allows {limit}{until}"),
        Reason::ScaleInRate => format!("the scale-in rate allows no fewer than {limit}{until}"),
        Reason::ScaleOutDisabled => format!("the policy disables scale-out, so {stays}"),
        Reason::ScaleInDisabled => format!("the policy disables scale-in, so {stays}"),
        Reason::ScaleOutCooldown => format!("the last change is too recent to grow further, so {stays}{until}"),
        Reason::ScaleInCooldown => format!("the last change is too recent to shrink, so {stays}{until}"),
        Reason::BelowMin => format!("the policy's minimum is {limit}"),
        Reason::AboveMax => format!("the policy's maximum is {limit}"),
        Reason::AboveMaxPaced => {
            let max = step.limit.map(|n| format!(" of {n}")).unwrap_or_default();
            format!("the count is above the policy's maximum{max} and comes down by the scale-in rate, to {after} for now")
        }
        Reason::ScaledToZeroByHand => "it was scaled to zero by hand and is left alone until someone sets it above zero".to_owned(),
        Reason::OutOnly => format!("mode OutOnly removes nothing, so {stays}"),
        Reason::Other => format!("a step of a newer version, which this one cannot put into words, made it {after}"),
    }
}

/// A metric and its value: "cpu 84 % against 70 %", "memory is stale (…)".
fn measured(report: &MetricReport) -> String {
    let name = report.name.as_str();
    let state = match report.status {
        MetricStatus::Ok => {
            let value = report.value.map(|v| format!(" {}", figure(v, report))).unwrap_or_default();
            let against = against(report).map(|said| if report.threshold.is_some() { format!(" {said}") } else { format!(" against {said}") });
            let target = against.unwrap_or_default();
            let note = report.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            return format!("{name}{value}{target}{note}");
        }
        MetricStatus::Idle => "is idle",
        MetricStatus::NoData => "has no data",
        MetricStatus::Stale => "is stale",
        MetricStatus::Error => "has an error",
        MetricStatus::NonFinite => "is not a finite number",
        MetricStatus::Other => "is in a state that this version does not know",
    };
    let note = report.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    format!("{name} {state}{note}")
}

/// The most metrics that one sentence names.
const BLIND_NAMED: usize = 5;

/// " (cpu has no data, memory is stale)"; empty where no metric is blind.
fn blind_list(decision: &Decision) -> String {
    let blind: Vec<String> = decision.metrics.iter().filter(|m| m.status.is_blind()).map(measured).collect();
    match blind.len() {
        0 => String::new(),
        1..=BLIND_NAMED => format!(" ({})", blind.join(", ")),
        all => format!(" ({} and {} more)", blind[..BLIND_NAMED - 1].join(", "), all + 1 - BLIND_NAMED),
    }
}

fn replicas(n: u32) -> String {
    if n == 1 { "1 replica".to_owned() } else { format!("{n} replicas") }
}

/// The time of day, with the date where it is not that of `near`.
fn moment(at: Timestamp, near: Timestamp) -> String {
    let civil = |t: Timestamp| jiff::Timestamp::from_millisecond(t.as_millis()).map(|t| jiff::tz::TimeZone::UTC.to_datetime(t));
    match (civil(at), civil(near)) {
        (Ok(at), Ok(near)) if at.date() == near.date() => format!("{} UTC", at.strftime("%H:%M:%S")),
        (Ok(at), _) => format!("{} UTC", at.strftime("%Y-%m-%d %H:%M:%S")),
        (Err(_), _) => at.to_string(),
    }
}

#[cfg(test)]
mod tests;
