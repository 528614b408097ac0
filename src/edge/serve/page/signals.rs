//! A target's own signals: what its decisions were made of.

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
use crate::model::{Pane, Signal, TargetId, Timestamp};
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
    let body = body(&target, until, &found);
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

fn body(target: &TargetId, until: Option<Timestamp>, found: &SignalsFound) -> Markup {
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
                            tr { th scope="row" { (text::clock(*at)) } td { (kind(signal)) } td { (says(signal)) } }
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
    }
}

fn says(signal: &Signal) -> String {
    match signal {
        Signal::Part(part) => {
            let several = |n: i64, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
            let pane = |pane: &Pane| {
                let samples = several(pane.instances.values().map(|reading| reading.count).sum(), "sample");
                match pane.instances.len() {
                    1 => format!("{} {samples}", pane.metric),
                    many => format!("{} {samples} of {many} instances", pane.metric),
                }
            };
            let said = part.panes.iter().map(pane).collect::<Vec<_>>().join("; ");
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
        Signal::Mark(_) | Signal::Tick(_) => String::new(),
    }
}
