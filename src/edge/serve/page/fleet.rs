//! The fleet as a table.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::text::{self, Times};
use super::{Services, Trouble, target_page, whole};
use crate::edge::api::{Status, TargetStatus, does, escape};
use crate::edge::serve::fleet::{self, Show, is_named};
use crate::edge::serve::live::{Message, Sent};
use crate::edge::serve::targets::bad_query;
use crate::model::{Verdict, WhileBlind};
use crate::runtime::retention::size;

/// Rows of a page: more than a screen, and fifty of them with alerts are 50 kB.
const ROWS: usize = 50;

/// How old an observation of replicas may be before it is pointed out: two repetitions.
const OLD_MS: i64 = 120_000;

/// Which part of the fleet is shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    filter: String,
    #[serde(default)]
    show: Show,
    #[serde(default = "first")]
    page: usize,
}

/// What may be asked for.
const ASKABLE: &str = "show is all, attention or scaling; filter is a part of a name; page is a number from 1";

fn first() -> usize {
    1
}

impl Which {
    fn query(&self, show: Show, page: usize) -> String {
        let mut parts = Vec::new();
        if !self.filter.is_empty() {
            parts.push(format!("filter={}", escape(&self.filter)));
        }
        if show != Show::All {
            parts.push(format!("show={}", show.word()));
        }
        if page > 1 {
            parts.push(format!("page={page}"));
        }
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

pub(super) async fn page(State(services): State<Services>, which: Result<Query<Which>, QueryRejection>) -> Result<Html<String>, Trouble> {
    let Query(which) = which.map_err(|e| Trouble(bad_query(&e, ASKABLE), services.clock.now()))?;
    let status = fleet::look(&services);
    let chosen = Chosen::of(&status, &which);
    let live = format!("/live{}", which.query(which.show, chosen.page));
    let json = format!("/api/v1/targets{}", Which { page: 1, ..which.clone() }.query(which.show, 1));
    Ok(whole("Fleet", status.at, Some(&live), &json, false, &chosen.body(Times::At(status.at))))
}

pub(super) async fn live(State(services): State<Services>, which: Result<Query<Which>, QueryRejection>) -> Response {
    let Query(which) = match which {
        Ok(which) => which,
        Err(error) => return bad_query(&error, ASKABLE).into_response(),
    };
    let mut sent = Sent::default();
    let mut names = Vec::new();
    let services_of_it = services.clone();
    services.live.follow(move || {
        let status = services_of_it.live.fleet(&services_of_it);
        let chosen = Chosen::of(&status, &which);
        let mut blocks = chosen.blocks();
        let now: Vec<_> = chosen.rows.iter().map(|row| row.target.clone()).collect();
        let rows = if now == names { None } else { Some(chosen.rows(Times::Running(status.at)).into_string()) };
        names = now;
        blocks = sent.changed(blocks);
        if let Some(rows) = rows {
            // Rows came, went or moved: all of them at once.
            blocks.retain(|id, _| !id.starts_with("row:"));
            blocks.insert("rows".to_owned(), rows);
        }
        Some(Message { at: services_of_it.clock.now(), blocks, series: None })
    })
}

/// What is shown of the fleet.
struct Chosen<'a> {
    status: &'a Status,
    which: &'a Which,
    /// How many targets each choice has.
    counts: [(Show, usize); 3],
    matching: usize,
    page: usize,
    pages: usize,
    rows: Vec<&'a TargetStatus>,
}

impl<'a> Chosen<'a> {
    fn of(status: &'a Status, which: &'a Which) -> Self {
        let named: Vec<&TargetStatus> = status.targets.iter().filter(|t| is_named(&t.target, &which.filter)).collect();
        let counts = Show::ALL.map(|show| (show, named.iter().filter(|t| show.holds(t)).count()));
        let chosen: Vec<&TargetStatus> = named.into_iter().filter(|t| which.show.holds(t)).collect();
        let pages = chosen.len().div_ceil(ROWS).max(1);
        let page = which.page.clamp(1, pages);
        let matching = chosen.len();
        let rows = chosen.into_iter().skip((page - 1) * ROWS).take(ROWS).collect();
        Chosen { status, which, counts, matching, page, pages, rows }
    }

    fn body(&self, times: Times) -> Markup {
        html! {
            div.bar {
                h1 { "Fleet" }
                (self.tabs())
                form.filter method="get" action="/" role="search" {
                    @if self.which.show != Show::All { input type="hidden" name="show" value=(self.which.show.word()); }
                    label for="filter" { "Name" }
                    input #filter type="search" name="filter" value=(self.which.filter) autocomplete="off" spellcheck="false" placeholder="Filter by name";
                    button type="submit" { "Filter" }
                }
            }
            (self.alerts(times))
            (self.table(times))
            (self.pager())
            (self.log())
        }
    }

    /// What may change, by id; ages left to the page.
    fn blocks(&self) -> BTreeMap<String, String> {
        let times = Times::Running(self.status.at);
        let parts = [("tabs", self.tabs()), ("alerts", self.alerts(times)), ("pager", self.pager()), ("log", self.log())];
        let rows = self.rows.iter().map(|target| (row_id(target), row(target, times)));
        parts.into_iter().map(|(id, part)| (id.to_owned(), part)).chain(rows).map(|(id, part)| (id, part.into_string())).collect()
    }

    fn tabs(&self) -> Markup {
        html! {
            nav #tabs .tabs aria-label="Which targets" {
                @for (show, count) in self.counts {
                    @let word = match show { Show::All => "All", Show::Attention => "Attention", Show::Scaling => "Scaling" };
                    a href={ "/" (self.which.query(show, 1)) } aria-current=[(show == self.which.show).then_some("page")] {
                        (word) " " span.n { (count) }
                    }
                }
            }
        }
    }

    fn alerts(&self, times: Times) -> Markup {
        html! {
            ul #alerts .alerts aria-label="Alerts that concern no single target" hidden[self.status.alerts.is_empty() && self.status.lag.iter().all(|lag| lag.trouble(self.status.at).is_none())] {
                @for alert in &self.status.alerts { (text::alert(alert, times)) }
                @for trouble in self.status.lag.iter().filter_map(|lag| lag.trouble(self.status.at)) {
                    li.warning { b { "Behind" } " " (trouble) }
                }
            }
        }
    }

    fn table(&self, times: Times) -> Markup {
        html! {
            table.fleet {
                caption.unseen { "Every target: its replicas, what it does and why" }
                thead {
                    tr {
                        th scope="col" { "Target" }
                        th.num scope="col" { "Replicas" }
                        th.num scope="col" { "Ready" }
                        th.num scope="col" { "Range" }
                        th scope="col" { "Does" }
                        th scope="col" { "Why" }
                        th.num scope="col" { "Data age" }
                    }
                }
                (self.rows(times))
            }
        }
    }

    fn rows(&self, times: Times) -> Markup {
        html! {
            tbody #rows {
                @for target in &self.rows { (row(target, times)) }
                @if self.rows.is_empty() {
                    tr.none.begin[self.status.targets.is_empty()] { td colspan="7" { (self.nothing()) } }
                }
            }
        }
    }

    /// Why no target is shown, and the way out.
    fn nothing(&self) -> Markup {
        let all = self.status.targets.len();
        html! {
            @if all == 0 {
                p { b { "No target yet." } " A target is what a policy names. Start Loadline with " code { "--policies DIRECTORY" } ", or put a policy into the directory that it reads:" }
                pre tabindex="0" role="region" aria-label="A policy" { "apiVersion: loadline.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: { namespace: local, name: web }\nspec:\n  target: { kind: ProcessFleet, name: web }\n  replicas: { min: 1, max: 8 }\n  metrics:\n    - name: queue_depth\n      track: { perReplica: 10 }" }
            } @else if !self.which.filter.is_empty() {
                p { "No target here is named like “" (self.which.filter) "”. " a href={ "/" (Which { filter: String::new(), ..self.which.clone() }.query(self.which.show, 1)) } { "Show all" } }
            } @else if self.which.show == Show::Attention {
                p { "Nothing needs attention: no alert fires, nothing is frozen, blind or held by a fault." }
            } @else {
                p { "No target is scaling." }
            }
        }
    }

    fn pager(&self) -> Markup {
        let from = (self.page - 1) * ROWS;
        let link = |page: usize| format!("/{}", self.which.query(self.which.show, page));
        html! {
            nav #pager .pager aria-label="Pages" hidden[self.pages < 2] {
                span { (from + 1) "–" (from + self.rows.len()) " of " (self.matching) }
                @if self.page > 1 { a rel="prev" href=(link(self.page - 1)) { "Previous" } }
                @if self.page < self.pages { a rel="next" href=(link(self.page + 1)) { "Next" } }
            }
        }
    }

    fn log(&self) -> Markup {
        html! {
            p #log .log {
                @if let Some(usage) = &self.status.log {
                    "Log: " (size(usage.bytes)) " of " (size(usage.limit))
                    @for held in &usage.held_by { "; " (held) }
                }
            }
        }
    }
}

fn row_id(target: &TargetStatus) -> String {
    format!("row:{}", target.target)
}

fn row(target: &TargetStatus, times: Times) -> Markup {
    let (does, class) = (does(target.verdict, target.held()), text::class(target.verdict, target.held()));
    html! {
        tr id=(row_id(target)) class=[target.needs_attention().then_some("attention")] {
            th scope="row" { a href=(target_page(&target.target)) { (text::name(&target.target)) } }
            td.num.replicas { (text::replicas(target)) }
            td.num.ready data-label="ready" { (text::count(target.ready)) }
            td.num.range data-label="range" { (text::range(target)) }
            td.does { span class=(class) { (does) } }
            td.why {
                (target.reason)
                @if let Some(binding) = target.binding { " " span.step title="The step that bound" { (text::step(binding)) } }
                (flags(target, times))
            }
            td.num.data data-label="data" { @if let Some(through) = target.through { (times.age(through)) } @else { "–" } }
        }
    }
}

/// The first few of many names.
fn several(names: &[impl AsRef<str>]) -> String {
    let named: Vec<&str> = names.iter().take(4).map(AsRef::as_ref).collect();
    let more = names.len() - named.len();
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

/// What a person should know beside the reason.
pub(super) fn flags(target: &TargetStatus, times: Times) -> Markup {
    let old = target.seen_at.filter(|at| times.now().as_millis() - at.as_millis() > OLD_MS);
    let mode = target.mode.as_deref();
    let unknown = |effect| target.metrics.iter().filter(|m| m.status.is_blind() && m.while_blind == effect).map(|m| m.name.as_str()).collect::<Vec<_>>();
    let (ignored, observed) = (unknown(WhileBlind::Ignore), unknown(WhileBlind::Observe));
    html! {
        @if target.frozen.is_some() || !target.blind.is_empty() || !target.blind_ignored.is_empty() || !target.alerts.is_empty() || old.is_some() || !matches!(mode, Some("Active")) {
            ul.flags {
                @if let Some(file) = &target.frozen { li.critical { b { "Frozen" } " by " (file) ": nothing is commanded until it is removed" } }
                // Where nothing at all is known the reason says it.
                @if !target.blind.is_empty() && target.verdict != Some(Verdict::Blind) { li.warning { b { "Blind" } " in " (several(&target.blind)) ": nothing is removed" } }
                @if !ignored.is_empty() { li.note { b { "Not known" } " " (several(&ignored)) ": the other metrics decide without it (whenBlind: Ignore)" } }
                @if !observed.is_empty() { li.note { b { "Not known" } " " (several(&observed)) ": observed only, no decision waits for it" } }
                @for alert in &target.alerts { (text::alert(alert, times)) }
                @if let Some(at) = old { li.warning { b { "Unseen" } " replicas last seen " (times.age(at)) " ago" } }
                @match mode {
                    None => li.note { b { "No policy" } },
                    Some("Active") => {},
                    Some("Advise") => li.note { b { "Advise" } " decides, commands nothing" },
                    Some(mode) => li.note { b { "Mode " (mode) } },
                }
            }
        }
    }
}
