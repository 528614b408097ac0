//! A target's own signals: what its decisions were made of.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Html;
use maud::{Markup, html};
use serde::Deserialize;

use super::text;
use super::{Services, Trouble, target_page, whole};
use crate::edge::api::{Problem, target_path};
use crate::edge::serve::history::seen;
use crate::edge::serve::targets::{Parts, bad_place, bad_query, parse, parse_time};
use crate::edge::view::{SignalsFound, SignalsFrom};
use crate::model::policy::{Unit, known_unit, resolve_spec_json};
use crate::model::{Amount, Kind, MetricName, Pane, Reading, Signal, TargetId, Timestamp};
use crate::wire::words;

/// Signals of one page.
const ROWS: usize = 50;

/// Which signals are shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    at: Option<String>,
    before: Option<String>,
}

pub(super) async fn page(State(services): State<Services>, parts: Parts, asked: Result<Query<Which>, QueryRejection>) -> Result<Html<String>, Trouble> {
    let now = services.clock.now();
    let found = find(&services, parts, asked).await;
    let (target, until, found) = found.map_err(|problem| Trouble(problem, now))?;
    // Samples are in the units of the policy, also where an evaluation makes a share of them.
    let policy = services.view.detail(&target).and_then(|detail| detail.policy).and_then(|spec| resolve_spec_json(&spec, &target).ok());
    let units: Units = policy.into_iter().flat_map(|policy| policy.metrics).map(|metric| (metric.name, metric.unit)).collect();
    let body = body(&target, until, &found, &units);
    Ok(whole(&format!("Signals of {target}"), now, None, &format!("{}/signals", target_path(&target)), false, &body))
}

async fn find(
    services: &Services,
    Path((namespace, kind, name)): Parts,
    asked: Result<Query<Which>, QueryRejection>,
) -> Result<(TargetId, Option<Timestamp>, SignalsFound), Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let Query(which) = asked.map_err(|e| bad_query(&e, "the parameters are at and before"))?;
    let at = which.at.as_deref().map(|at| parse_time(at, "at")).transpose()?;
    let from = match (at, which.before) {
        (_, Some(before)) => SignalsFrom::Before(before.parse().map_err(|_| bad_place(&before))?),
        (Some(at), None) => SignalsFrom::At(at),
        (None, None) => SignalsFrom::Before(u64::MAX),
    };
    let found = seen(services, &target, ROWS, from).await?;
    Ok((target, at, found))
}

/// What each metric's amounts are of.
type Units = BTreeMap<MetricName, Unit>;

fn body(target: &TargetId, until: Option<Timestamp>, found: &SignalsFound, units: &Units) -> Markup {
    let page = target_page(target);
    html! {
        nav.crumbs aria-label="Where this is" { a href="/" { "Fleet" } " / " a href=(page) { (target) } }
        h1 { "Signals" @if let Some(until) = until { " up to " (text::day(until)) " " (text::clock(until)) } }
        p { "What decisions about it are made of, the newest first; marks and the clock, which concern all targets, are left out. "
            a href={ (target_path(target)) "/signals" @if let Some(until) = until { "?at=" (until.as_millis()) } } { "As JSON" } }
        @if found.signals.is_empty() { p.none { "The log holds none any more." } }
        @else {
            div.scroll role="region" aria-label="Signals" tabindex="0" {
                table.signals {
                    thead { tr { th scope="col" { "Time" } th scope="col" { "Signal" } th scope="col" { "What it says" } } }
                    tbody {
                        @for (_, at, signal) in found.signals.iter().rev() {
                            tr { th scope="row" { (text::clock(*at)) } td { (kind(signal)) } td { (says(signal, units)) } }
                        }
                    }
                }
            }
        }
        @if let Some(before) = found.before { nav.pager aria-label="Pages" { a rel="next" href={ (page) "/signals?before=" (before) } { "Older signals" } } }
    }
}

fn kind(signal: &Signal) -> &'static str {
    match signal {
        Signal::Part(_) => "Metrics",
        Signal::Mark(_) => "Mark",
        Signal::Tick(_) => "Clock",
        Signal::Fleet(_) => "Replicas",
        Signal::Policy(_) => "Policy",
        Signal::Outcome(_) => "Outcome",
        Signal::Grant(_) => "Grant",
        Signal::SourceError(_) => "Source failed",
        Signal::Carried(_) => "Migrated",
    }
}

/// A metric's samples of a time: "`queue_depth` 38 (1 sample)", "cpu mean 0.72 cores, largest 0.84 cores (6 samples of 3 instances)".
fn pane(pane: &Pane, units: &Units) -> String {
    let unit = units.get(&pane.metric).copied().or_else(|| known_unit(&pane.metric)).unwrap_or_default();
    let readings = || pane.instances.values().filter(|reading| reading.count > 0);
    let count: i64 = readings().map(|reading| reading.count).sum();
    let write = |value: f64| Amount::from_f64(value).map_or_else(|_| "–".to_owned(), |value| words::amount(value, unit));
    let total = |part: fn(&Reading) -> Amount| readings().map(|reading| part(reading).as_f64()).sum::<f64>();
    #[expect(clippy::cast_precision_loss, reason = "a mean that is shown with a few digits")]
    let mean = |sum: f64, count: i64| write(sum / count as f64);
    let value = match pane.kind {
        _ if count == 0 => "nothing".to_owned(),
        Kind::Counter => format!("total {}", write(total(|reading| reading.last))),
        Kind::Delta => format!("sum {}", write(total(|reading| reading.sum))),
        Kind::Histogram => {
            let histograms = || readings().filter_map(|reading| reading.histogram.as_deref());
            match histograms().map(|histogram| histogram.count).sum() {
                0 => "no observation yet".to_owned(),
                seen => format!("mean {} of {seen} observations in all", mean(histograms().map(|histogram| histogram.sum.as_f64()).sum(), seen)),
            }
        }
        Kind::Gauge | Kind::Distribution if count == 1 => write(total(|reading| reading.last)),
        Kind::Gauge | Kind::Distribution => {
            let largest = readings().map(|reading| reading.max).max().map_or_else(|| "–".to_owned(), |largest| words::amount(largest, unit));
            format!("mean {}, largest {largest}", mean(total(|reading| reading.sum), count))
        }
    };
    let samples = if count == 1 { "1 sample".to_owned() } else { format!("{count} samples") };
    match pane.instances.len() {
        1 => format!("{} {value} ({samples})", pane.metric),
        many => format!("{} {value} ({samples} of {many} instances)", pane.metric),
    }
}

fn says(signal: &Signal, units: &Units) -> String {
    match signal {
        Signal::Part(part) => {
            let said = part.panes.iter().map(|one| pane(one, units)).collect::<Vec<_>>().join("; ");
            match (part.panes.iter().map(|p| p.start).min(), part.panes.iter().map(|p| p.end).max()) {
                (Some(start), Some(end)) if end.since(start).as_secs() > 0 => format!("{said}, {} to {}", text::of_day(start), text::of_day(end)),
                (Some(start), _) => format!("{said}, {}", text::of_day(start)),
                _ => said,
            }
        }
        Signal::Fleet(fleet) => {
            let ready = fleet.instances.iter().filter(|i| i.ready == Some(true) && !i.deleting).count();
            format!(
                "{} asked for, {} there, {ready} ready{}",
                fleet.desired,
                fleet.status_replicas,
                if fleet.updating { ", a rollout is under way" } else { "" }
            )
        }
        Signal::Policy(policy) => {
            let what = if policy.spec.is_some() { "in force" } else { "removed" };
            format!("{what}: {}, change {}", policy.order.source, policy.order.generation)
        }
        Signal::Outcome(outcome) => words::outcome(outcome),
        Signal::Grant(grant) => words::grant(grant),
        Signal::SourceError(failed) => format!("{}: {}", failed.metric, failed.error),
        Signal::Carried(_) => "goes on from what another installation remembered".to_owned(),
        Signal::Mark(_) | Signal::Tick(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HistogramReading;

    #[test]
    fn samples_are_told_with_their_value_and_its_unit() {
        let amount = |value: f64| Amount::from_f64(value).unwrap();
        let of = |values: &[f64]| Reading {
            count: i64::try_from(values.len()).unwrap(),
            sum: amount(values.iter().sum()),
            max: amount(values.iter().copied().fold(f64::MIN, f64::max)),
            last: amount(*values.last().unwrap()),
            last_at: Timestamp::from_millis(0),
            histogram: None,
        };
        let histogram = HistogramReading { bounds: vec![0.1, 0.5], counts: vec![1, 2, 1], count: 4, sum: amount(1.2) };
        let latency = Reading { histogram: Some(Box::new(histogram)), ..of(&[0.0]) };
        let units = Units::from([("cpu".parse().unwrap(), Unit::Ratio), ("latency".parse().unwrap(), Unit::Seconds)]);
        for (metric, kind, readings, said) in [
            ("queue_depth", Kind::Gauge, vec![of(&[38.0])], "queue_depth 38 (1 sample)"),
            ("cpu", Kind::Gauge, vec![of(&[0.6, 0.8]), of(&[0.7])], "cpu mean 70 %, largest 80 % (3 samples of 2 instances)"),
            ("memory", Kind::Gauge, vec![of(&[1_572_864.0])], "memory 1.5 MiB (1 sample)"),
            ("latency", Kind::Distribution, vec![of(&[0.1, 0.3])], "latency mean 200 ms, largest 300 ms (2 samples)"),
            ("requests", Kind::Counter, vec![of(&[1_000.0, 1_240.0]), of(&[60.0])], "requests total 1,300 (3 samples of 2 instances)"),
            ("orders", Kind::Delta, vec![of(&[3.0, 4.0])], "orders sum 7 (2 samples)"),
            ("latency", Kind::Histogram, vec![latency], "latency mean 300 ms of 4 observations in all (1 sample)"),
            ("queue_depth", Kind::Gauge, vec![Reading::default()], "queue_depth nothing (0 samples)"),
        ] {
            let instances = readings.into_iter().enumerate().map(|(i, reading)| (format!("api-{i}").parse().unwrap(), reading)).collect();
            let (start, end) = (Timestamp::from_millis(0), Timestamp::from_millis(1_000));
            assert_eq!(pane(&Pane { metric: metric.parse().unwrap(), kind, start, end, instances, sketch: None }, &units), said);
        }
    }
}
