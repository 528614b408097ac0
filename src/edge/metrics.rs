//! `GET /metrics`: what is known now, for Prometheus.
//!
//! Everything is read at the scrape: from the view, the log and the counts of [`events`]. What is not known is left out,
//! never 0. Labels come from configuration alone (targets, metrics of policies) and from closed sets of words, so that no
//! message can add a series.

use std::collections::BTreeMap;

use crate::edge::api::{Status, TargetStatus};
use crate::edge::processes;
use crate::edge::serve::Services;
use crate::log::{COMMIT_BOUNDS, Held, Topic};
use crate::model::{AlertState, Amount, MetricReport, OutcomeResult, TargetId, Timestamp};
use crate::runtime::events::{self, TargetTally};
use crate::runtime::retention::Pressure;
use crate::stages::decide::FOLD_VERSION;

pub mod exposition;
pub mod families;
#[cfg(test)]
mod tests;

use exposition::{Family, Format, Page};

/// The roles and modes that a label may say.
const ROLES: [&str; 4] = ["Generic", "ApiServer", "BotInstances", "DatabaseReadReplica"];
const MODES: [&str; 4] = ["Active", "OutOnly", "Advise", "Off"];

/// What may come of any command; the other results are rare, and there when they came.
const RESULTS: [OutcomeResult; 5] = [OutcomeResult::Applied, OutcomeResult::Conflict, OutcomeResult::Failed, OutcomeResult::Rejected, OutcomeResult::Lost];

/// A count of a target.
type Count = fn(&TargetStatus) -> Option<u32>;

/// What is known now, written in `format`.
pub fn page(services: &Services, status: &Status, format: Format) -> String {
    let Status { at, targets, .. } = status;
    let mut page = Page::new(format);
    program(&mut page, services);
    replicas(&mut page, targets, *at);
    metrics(&mut page, services, targets, *at);
    happened(&mut page, status);
    samples(&mut page);
    stages(&mut page, services, status);
    log(&mut page, services, status);
    page.finish()
}

fn program(page: &mut Page, services: &Services) {
    page.family(&families::BUILD).count(&[("version", env!("CARGO_PKG_VERSION")), ("fold_version", &FOLD_VERSION.to_string())], 1);
    page.family(&families::START).put(&[], seconds(services.started_at));
    let used = processes::own_usage();
    page.family(&families::CPU).known(&[], used.cpu_seconds);
    page.family(&families::MEMORY).known(&[], used.memory_bytes);
    page.family(&families::FDS).known(&[], used.open_files.map(|n| n as f64));
    page.family(&families::READY).count(&[], u64::from(services.unready().is_none()));
}

fn replicas(page: &mut Page, targets: &[TargetStatus], at: Timestamp) {
    let mut facts = page.family(&families::TARGET);
    for target in targets {
        if let (Some(role), Some(mode)) = (&target.role, &target.mode) {
            facts.count(&[("target", target.target.as_str()), ("role", one_of(&ROLES, role)), ("mode", one_of(&MODES, mode))], 1);
        }
    }
    let counts: [(&Family, Count); 5] = [
        (&families::MIN, |t| t.min),
        (&families::MAX, |t| t.max),
        (&families::CURRENT, |t| t.current),
        (&families::DESIRED, |t| t.desired),
        (&families::READY_REPLICAS, |t| t.ready),
    ];
    for (family, count) in counts {
        let mut samples = page.family(family);
        targets.iter().for_each(|target| samples.known(&[("target", target.target.as_str())], count(target).map(f64::from)));
    }
    let mut verdicts = page.family(&families::VERDICT);
    for target in targets {
        if let (Some(verdict), Some(step)) = (target.verdict, target.binding) {
            verdicts.count(&[("target", target.target.as_str()), ("verdict", verdict.name()), ("step", step.name())], 1);
        }
    }
    let mut frozen = page.family(&families::FROZEN);
    targets.iter().for_each(|target| frozen.count(&[("target", target.target.as_str())], u64::from(target.frozen.is_some())));
    for (family, time) in [(&families::DATA_AGE, (|t| t.through) as fn(&TargetStatus) -> Option<Timestamp>), (&families::SEEN_AGE, |t| t.seen_at)] {
        let mut ages = page.family(family);
        targets.iter().for_each(|target| ages.known(&[("target", target.target.as_str())], time(target).and_then(|time| age(time, at))));
    }
}

/// An amount of a metric, where there is one.
type Of = fn(&MetricReport) -> Option<Amount>;

fn metrics(page: &mut Page, services: &Services, targets: &[TargetStatus], at: Timestamp) {
    let families: [(_, Of); 3] = [
        (&families::VALUE, |m| m.value),
        (&families::TARGET_VALUE, |m| m.threshold.as_ref().map_or(m.target, |threshold| threshold.scale_out_above)),
        (&families::SCALE_IN_BELOW, |m| m.threshold.as_ref().and_then(|threshold| threshold.scale_in_below)),
    ];
    for (family, of) in families {
        let mut amounts = page.family(family);
        for (target, metric) in targets.iter().flat_map(|t| t.metrics.iter().map(move |m| (t, m))) {
            let labels = [("target", target.target.as_str()), ("metric", metric.name.as_str()), ("unit", metric.unit.name())];
            amounts.known(&labels, of(metric).map(Amount::as_f64));
        }
    }
    let mut proposals = page.family(&families::PROPOSED);
    for (target, metric) in targets.iter().flat_map(|t| t.metrics.iter().map(move |m| (t, m))) {
        proposals.known(&[("target", target.target.as_str()), ("metric", metric.name.as_str())], metric.proposal.map(f64::from));
    }
    let mut statuses = page.family(&families::STATUS);
    for (target, metric) in targets.iter().flat_map(|t| t.metrics.iter().map(move |m| (t, m))) {
        statuses.count(
            &[
                ("target", target.target.as_str()),
                ("metric", metric.name.as_str()),
                ("status", metric.status.name()),
                ("while_blind", metric.while_blind.name()),
            ],
            1,
        );
    }
    let mut ages = page.family(&families::METRIC_AGE);
    for target in targets {
        for (metric, newest) in services.view.measured(&target.target) {
            ages.known(&[("target", target.target.as_str()), ("metric", metric.as_str())], age(newest, at));
        }
    }
}

fn happened(page: &mut Page, status: &Status) {
    let targets = &status.targets;
    by_target(page, &families::DECISIONS, targets, &events::DECISIONS, ["verdict", "step"]);
    by_target(page, &families::LIMITED, targets, &events::LIMITED_GRANTS, ["limit", ""]);
    // From 0 on, so that the first failure counts in a rate.
    let mut commands = page.family(&families::COMMANDS);
    for target in targets.iter().filter(|target| target.mode.is_some()) {
        let mut counts: BTreeMap<&str, u64> = RESULTS.map(|result| (result.name(), 0)).into();
        counts.extend(events::COMMANDS.of(&target.target).into_iter().map(|((result, _), count)| (result, count)));
        counts.into_iter().for_each(|(result, count)| commands.count(&[("target", target.target.as_str()), ("result", result)], count));
    }
    by_word(page, &families::POLICIES, &events::POLICIES, "change");
    let mut firing: BTreeMap<(String, &str, String), u64> = BTreeMap::new();
    for alert in status.alerts.iter().chain(targets.iter().flat_map(|t| &t.alerts)).filter(|alert| alert.state == AlertState::Firing) {
        let target = alert.target.as_ref().map(TargetId::to_string).unwrap_or_default();
        *firing.entry((alert.name.clone(), alert.severity.name(), target)).or_default() += 1;
    }
    let mut alerts = page.family(&families::ALERTS);
    for ((alert, severity, target), count) in firing {
        alerts.count(&[("alert", &alert), ("severity", severity), ("target", &target)], count);
    }
    by_word(page, &families::LETTERS, &events::DEAD_LETTERS, "topic");
}

fn samples(page: &mut Page) {
    by_word(page, &families::SAMPLES, &events::ACCEPTED_SAMPLES, "");
    by_word(page, &families::SAMPLES_REFUSED, &events::REFUSED_SAMPLES, "reason");
    by_word(page, &families::REQUESTS_REFUSED, &events::REFUSED_REQUESTS, "reason");
    by_word(page, &families::AGGREGATED, &events::AGGREGATED_SAMPLES, "");
    by_word(page, &families::UNUSED, &events::UNUSED_SAMPLES, "reason");
    by_word(page, &families::LATE, &events::LATE_SAMPLES, "");
    by_word(page, &families::REJECTED, &events::REJECTED_SAMPLES, "");
    by_word(page, &families::REPEATED, &events::REPEATED_SAMPLES, "");
}

fn stages(page: &mut Page, services: &Services, status: &Status) {
    let mut records = page.family(&families::LAG);
    for lag in &status.lag {
        records.count(&[("stage", &lag.stage), ("topic", &lag.topic), ("partition", &lag.partition.to_string())], lag.records);
    }
    let mut waits = page.family(&families::LAG_SECONDS);
    for lag in &status.lag {
        let waits_for = if lag.records == 0 { Some(0.0) } else { lag.waiting_since.and_then(|since| age(since, status.at)) };
        waits.known(&[("stage", &lag.stage), ("topic", &lag.topic), ("partition", &lag.partition.to_string())], waits_for);
    }
    let mut held = page.family(&families::HELD);
    for Held { group, topic, partition, what, for_time } in services.log.held() {
        let labels = [("stage", group), ("topic", topic.name()), ("partition", &partition.to_string()), ("lacks", &what)];
        held.put(&labels, for_time.as_secs_f64());
    }
    by_word(page, &families::COMMIT_RETRIES, &events::COMMIT_RETRIES, "stage");
    by_word(page, &families::READ_RETRIES, &events::READ_RETRIES, "reader");
    by_word(page, &families::SNAPSHOTS, &events::SNAPSHOTS, "stage");
    let mut snapshots = page.family(&families::SNAPSHOT_AT);
    events::SNAPSHOT_AT.times().into_iter().for_each(|(stage, at)| snapshots.put(&[("stage", stage)], seconds(at)));
}

fn log(page: &mut Page, services: &Services, status: &Status) {
    let times = services.log.commit_times();
    let mut commits = page.family(&families::COMMITS);
    if let Some(times) = times {
        let counts = times.cumulative();
        let all = counts.last().copied().unwrap_or(0);
        commits.histogram(&[], COMMIT_BOUNDS.iter().map(|(text, _)| *text).zip(counts), all, times.total().as_secs_f64());
    }
    page.family(&families::COMMIT_FAILURES).known(&[], times.map(|times| times.failures() as f64));
    page.family(&families::WRITABLE).count(&[], u64::from(services.log.trouble().is_none()));
    let usage = status.log.as_ref();
    page.family(&families::FULL).known(&[], usage.map(|usage| f64::from(u8::from(usage.pressure == Pressure::Full))));
    page.family(&families::LOG_BYTES).known(&[], usage.map(|usage| usage.bytes as f64));
    page.family(&families::LOG_LIMIT).known(&[], usage.map(|usage| usage.limit as f64));
    page.family(&families::LOG_FREE).known(&[], usage.map(|usage| usage.free_bytes as f64));
    let named = || usage.iter().flat_map(|usage| &usage.topics).filter(|usage| Topic::ALL.iter().any(|topic| topic.name() == usage.topic));
    let mut bytes = page.family(&families::TOPIC_BYTES);
    named().for_each(|usage| bytes.count(&[("topic", &usage.topic)], usage.bytes));
    let mut kept = page.family(&families::TOPIC_KEPT);
    named().for_each(|usage| kept.known(&[("topic", &usage.topic)], usage.hours_kept.map(|hours| hours * 3600.0)));
}

/// The counts of a tally; no label where it has no name.
fn by_word(page: &mut Page, family: &'static Family, tally: &events::Tally, label: &str) {
    let mut samples = page.family(family);
    for (word, count) in tally.counts() {
        match label {
            "" => samples.count(&[], count),
            label => samples.count(&[(label, word)], count),
        }
    }
}

/// The counts of the targets that are shown.
fn by_target(page: &mut Page, family: &'static Family, targets: &[TargetStatus], tally: &TargetTally, labels: [&str; 2]) {
    let mut samples = page.family(family);
    for target in targets {
        for ((first, second), count) in tally.of(&target.target) {
            let all = [("target", target.target.as_str()), (labels[0], first), (labels[1], second)];
            samples.count(if labels[1].is_empty() { &all[..2] } else { &all }, count);
        }
    }
}

/// A word of a closed set, or `other`.
fn one_of(words: &[&'static str], word: &str) -> &'static str {
    words.iter().copied().find(|known| *known == word).unwrap_or("other")
}

/// How long ago `time` was, in seconds; `None` where there was no such time yet.
fn age(time: Timestamp, now: Timestamp) -> Option<f64> {
    // Of whole milliseconds, so that it has no more digits than it knows.
    (time.as_millis() > 0).then(|| now.since(time).as_millis() as f64 / 1000.0)
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}
