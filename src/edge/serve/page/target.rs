//! A target: what it does and why, over time, and its decisions.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::decision;
use super::text::{self, Times};
use super::{Services, Trouble, charts, fleet, target_page, whole};
use crate::edge::api::{Decisions, Problem, Series, TargetDetail, TargetStatus, does};
use crate::edge::serve::fleet::detail;
use crate::edge::serve::history::Range;
use crate::edge::serve::live::{Message, Sent};
use crate::edge::serve::targets::{Parts, bad_query, parse, parse_before, told, unknown};
use crate::model::{FleetObservation, MetricReport, MetricStatus, TargetId, Timestamp, WhileBlind};
use crate::wire::words;

/// Decisions of one page: each is some 3 kB.
const DECISIONS: usize = 20;

/// Instances that are listed; of more the rest is counted.
const INSTANCES: usize = 100;

/// What of a target is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    range: Range,
    /// Decisions before this one.
    before: Option<String>,
}

type Asked = Result<Query<Which>, QueryRejection>;

fn which(asked: Asked) -> Result<Which, Problem> {
    asked.map(|Query(which)| which).map_err(|e| bad_query(&e, "the parameters are range (15m, 1h or 24h) and before"))
}

pub(super) async fn page(State(services): State<Services>, parts: Parts, asked: Asked) -> Result<Html<String>, Trouble> {
    let now = services.clock.now();
    let found = find(&services, parts, asked).await;
    let Found { target, detail, decisions, series, which } = found.map_err(|problem| Trouble(problem, now))?;
    let times = Times::At(now);
    let page = target_page(&target);
    // Older decisions do not change.
    let live = which.before.is_none().then(|| format!("{page}/live?range={}", which.range.word()));
    let body = html! {
        nav.crumbs aria-label="Where this is" { a href="/" { "Fleet" } }
        h1 { (text::name(&target)) }
        @if which.before.is_none() {
            (now_part(&detail.status, times))
            section aria-labelledby="over-time" {
                div.bar {
                    h2 #over-time { "Over time" }
                    nav.tabs aria-label="How far back" {
                        @for range in Range::ALL {
                            a href={ (page) "?range=" (range.word()) } aria-current=[(range == which.range).then_some("page")] { (range_name(range)) }
                        }
                    }
                }
                (charts::charts(&series, &detail.status, which.range, times))
            }
        }
        section aria-labelledby="decisions-title" {
            h2 #decisions-title { @if which.before.is_some() { "Older decisions" } @else { "Decisions" } }
            (list(&decisions, times))
        }
        @if which.before.is_none() {
            (instances(detail.fleet.as_ref(), times))
            (policy(detail.policy.as_deref()))
        }
    };
    let json = crate::edge::api::target_path(&target);
    Ok(whole(target.as_str(), now, live.as_deref(), &json, which.before.is_none(), &body))
}

/// What a target's page is made of.
struct Found {
    target: TargetId,
    detail: TargetDetail,
    decisions: Decisions,
    series: Series,
    which: Which,
}

async fn find(services: &Services, Path((namespace, kind, name)): Parts, asked: Asked) -> Result<Found, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let which = which(asked)?;
    let until = which.before.as_deref().map(parse_before).transpose()?;
    let detail = detail(services, &target).ok_or_else(|| unknown(services, &target))?;
    let decisions = told(services, target.clone(), DECISIONS, until).await?;
    let now = services.clock.now();
    let series = services.view.series(&target, now - which.range.span(), now).ok_or_else(|| unknown(services, &target))?;
    Ok(Found { target, detail, decisions, series, which })
}

pub(super) async fn live(State(services): State<Services>, Path((namespace, kind, name)): Parts, asked: Asked) -> Response {
    let target =
        match parse(&namespace, &kind, &name).and_then(|target| if services.view.knows(&target) { Ok(target) } else { Err(unknown(&services, &target)) }) {
            Ok(target) => target,
            Err(problem) => return problem.into_response(),
        };
    if let Err(problem) = which(asked) {
        return problem.into_response();
    }
    let mut sent = Sent::default();
    // The page fetches its series; what comes from shortly before on follows it.
    let mut told_until = services.clock.now() - std::time::Duration::from_secs(10);
    let services_of_it = services.clone();
    services.live.follow(move || {
        let services = &services_of_it;
        let detail = detail(services, &target)?;
        let now = services.clock.now();
        let times = Times::Running(now);
        let stories = services.view.decisions(&target, DECISIONS, None).unwrap_or_default();
        let next = decision::next_page(&target, stories.first());
        let decisions = Decisions { target: target.clone(), decisions: stories, by_hand: services.view.by_hand(&target), next, gone: None };
        let parts = [("now", now_part(&detail.status, times)), ("decisions", list(&decisions, times)), ("instances", instances(detail.fleet.as_ref(), times))];
        let blocks: BTreeMap<String, String> = parts.into_iter().map(|(id, part)| (id.to_owned(), part.into_string())).collect();
        let series = services.view.series(&target, told_until, now).filter(|series| series.times.last().is_some_and(|last| *last > told_until));
        told_until = series.as_ref().and_then(|s| s.times.last().copied()).unwrap_or(told_until);
        Some(Message { at: now, blocks: sent.changed(blocks), series })
    })
}

fn range_name(range: Range) -> &'static str {
    match range {
        Range::Quarter => "15 min",
        Range::Hour => "1 h",
        Range::Day => "24 h",
    }
}

/// What it does now, and what it saw.
fn now_part(status: &TargetStatus, times: Times) -> Markup {
    let (does, class) = (does(status.verdict, status.held()), text::class(status.verdict, status.held()));
    html! {
        div #now {
            dl.facts {
                div { dt { "Replicas" } dd.big { (text::replicas(status)) } }
                div { dt { "Ready" } dd.big { (text::count(status.ready)) } }
                div { dt { "Range" } dd.big { (text::range(status)) } }
                div { dt { "Does" } dd.big { span class=(class) { (does) } } }
                div { dt { "Data age" } dd.big { @if let Some(through) = status.through { (times.age(through)) } @else { "–" } } }
            }
            p.why { (status.reason) @if let Some(binding) = status.binding { " " span.step title="The step that bound" { (text::step(binding)) } } }
            (fleet::flags(status, times))
            @if !status.metrics.is_empty() { (metrics(&status.metrics, status.at.unwrap_or(times.now()), "What the last evaluation measured")) }
        }
    }
}

/// What a decision measured.
pub(super) fn metrics(reports: &[MetricReport], near: Timestamp, caption: &str) -> Markup {
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table.measures {
                caption.unseen { (caption) }
                thead { tr { th scope="col" { "Metric" } th scope="col" { "Status" } th.num scope="col" { "Value" } th.num scope="col" { "Against" } th.num scope="col" { "Asks for" } th scope="col" { "Note" } } }
                tbody {
                    @for report in reports {
                        tr {
                            th scope="row" { (report.name) }
                            td.status { span class=(status_class(report)) { (status_word(report.status)) } }
                            td.num data-label="value" { (report.value.map_or_else(|| "–".to_owned(), |value| words::figure(value, report))) }
                            td.num data-label="against" { (words::against(report).as_deref().unwrap_or("–")) }
                            td.num data-label="asks for" { (text::count(report.proposal)) }
                            td.note { (words::remarks(report, near).unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    }
}

fn status_word(status: MetricStatus) -> &'static str {
    match status {
        MetricStatus::Ok => "ok",
        MetricStatus::Idle => "idle",
        MetricStatus::NoData => "no data",
        MetricStatus::Stale => "stale",
        MetricStatus::Error => "error",
        MetricStatus::NonFinite => "not finite",
        MetricStatus::Other => "unknown",
    }
}

/// That of what is wrong only where a decision waits for it.
fn status_class(report: &MetricReport) -> &'static str {
    let needed = matches!(report.while_blind, WhileBlind::HoldIn | WhileBlind::Other);
    if report.status.is_blind() && needed { "bad" } else { "calm" }
}

/// The decisions, the newest first.
fn list(decisions: &Decisions, times: Times) -> Markup {
    html! {
        div #decisions {
            // In the order of time, between the decisions: not as the cause or the consequence of one.
            @for change in decisions.by_hand.iter().rev() { p.by-hand { (decision::by_hand(change, times)) } }
            @if decisions.decisions.is_empty() {
                p.none {
                    @if let Some(gone) = &decisions.gone {
                        "No older decision is left: retention removed them" @if let Some(since) = gone.kept_since { "; the log goes back to " (text::day(since)) " " (text::clock(since)) }
                    } @else { "None is written down. A decision is written when anything but the measured numbers changes, and hourly." }
                }
            }
            @for story in decisions.decisions.iter().rev() {
                (decision::story(story, times))
                @for change in story.by_hand.iter().rev() { p.by-hand { (decision::by_hand(change, times)) } }
            }
            @if let Some(older) = decision::older_page(decisions) { p { a href=(older) { "Older decisions" } } }
        }
    }
}

fn instances(fleet: Option<&FleetObservation>, times: Times) -> Markup {
    html! {
        details #instances {
            @let count = fleet.map_or(0, |fleet| fleet.instances.len());
            summary { h2 { "Instances " span.n { (count) } } }
            @if let Some(fleet) = fleet.filter(|_| count > 0) {
                div.scroll role="region" aria-label="Instances" tabindex="0" {
                    table {
                        thead { tr { th scope="col" { "Instance" } th scope="col" { "Phase" } th scope="col" { "Ready" } th.num scope="col" { "Age" } } }
                        tbody {
                            @for instance in fleet.instances.iter().take(INSTANCES) {
                                tr {
                                    th scope="row" { (instance.name) }
                                    td { (format!("{:?}", instance.phase).to_lowercase()) @if instance.deleting { ", leaves" } }
                                    td { @match instance.ready { Some(true) => "ready", Some(false) => { span.bad { "not ready" } }, None => "not known" } }
                                    td.num { @if let Some(at) = instance.started_at { (times.age(at)) } @else { "–" } }
                                }
                            }
                        }
                    }
                }
                @if count > INSTANCES { p { "and " (count - INSTANCES) " more" } }
            } @else { p.none { "None has been seen." } }
        }
    }
}

fn policy(spec: Option<&str>) -> Markup {
    let written = spec.and_then(|spec| serde_json::from_str::<serde_json::Value>(spec).ok()).and_then(|spec| serde_json::to_string_pretty(&spec).ok());
    html! {
        details #policy {
            summary { h2 { "Policy in force" } }
            @if let Some(written) = written.as_deref().or(spec) {
                pre.scroll tabindex="0" role="region" aria-label="Policy" { (written) }
            } @else { p.none { "No policy names it." } }
        }
    }
}

/// When the page of a decision's signals ends.
pub(super) fn signals_page(target: &TargetId, at: Timestamp) -> String {
    format!("{}/signals?at={}", target_page(target), at.as_millis())
}
