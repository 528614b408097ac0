//! Places for the charts, and their figures as a table: what there is to see without a script, or without seeing.

use maud::{Markup, html};

use super::text::{self, Times};
use crate::edge::api::{MetricSeries, Rule, Series, TargetStatus};
use crate::edge::serve::history::Range;
use crate::model::Amount;
use crate::wire::words;

/// Rows of the table.
const ROWS: usize = 30;

/// The charts of a target, or why there is nothing to draw.
pub(super) fn charts(series: &Series, status: &TargetStatus, range: Range, times: Times) -> Markup {
    let nothing = series.times.is_empty();
    html! {
        @if nothing { (why_empty(status, range)) }
        div #charts .charts hidden[nothing] data-range=(range.span().as_millis()) data-series={ (crate::edge::api::target_path(&series.target)) "/series?range=" (range.word()) } {
            figure data-chart="replicas" {
                figcaption { "Replicas" }
                div.plot {}
            }
            @for metric in &series.metrics {
                figure data-chart=(metric.name) {
                    figcaption { (metric.name) " " span.n { (against(metric)) } }
                    div.plot {}
                }
            }
        }
        @if !nothing {
            noscript { p.none { "Charts need a script; the table has their figures." } }
            details #figures {
                summary { "Figures as a table" }
                (table(series, times))
            }
        }
    }
}

/// Why there is nothing to draw, and what would change it.
fn why_empty(status: &TargetStatus, range: Range) -> Markup {
    let why = match (status.mode.as_deref(), status.at, status.seen_at) {
        (None, ..) => {
            "No policy is in force for this target, so it is not evaluated and there is nothing to draw. Its replicas are left as they are.".to_owned()
        }
        (Some("Off"), ..) => "Its policy's mode is Off: it is not evaluated, so there is nothing to draw.".to_owned(),
        (Some(_), _, None) => {
            "Its replicas have never been seen, so it has not been evaluated and there is nothing to draw. A policy names it; is there such a target?"
                .to_owned()
        }
        (Some(_), None, Some(_)) => "It has not been evaluated yet; the charts begin with the first evaluation.".to_owned(),
        (Some(_), Some(_), Some(_)) => format!("It was not evaluated in this time ({}); a longer one may have more.", range.word()),
    };
    html! { p #no-charts .none { (why) } }
}

/// What a metric is held against, in words.
fn against(metric: &MetricSeries) -> String {
    let newest = |column: &[Option<f64>]| {
        column.iter().rev().flatten().next().and_then(|v| Amount::from_f64(*v).ok()).map(|v| words::rated(v, metric.unit, metric.per_second))
    };
    match (metric.rule, newest(&metric.target), newest(&metric.scale_in_below)) {
        (Some(Rule::Threshold), Some(above), Some(below)) => format!("out above {above}, in below {below}"),
        (Some(Rule::Threshold), Some(above), None) => format!("out above {above}"),
        (Some(Rule::Threshold), None, Some(below)) => format!("in below {below}"),
        (Some(Rule::Observe), ..) => "observed only".to_owned(),
        (_, Some(target), _) => format!("against {target}"),
        _ => String::new(),
    }
}

/// At most [`ROWS`] evaluations, evenly chosen, the newest first.
fn table(series: &Series, times: Times) -> Markup {
    let points = series.times.len();
    let every = points.div_ceil(ROWS).max(1);
    let mut chosen: Vec<usize> = (0..points).rev().step_by(every).filter(|i| series.replicas.desired[*i].is_some()).collect();
    chosen.truncate(ROWS);
    html! {
        div.scroll role="region" aria-label="Figures of the charts" tabindex="0" {
            table.figures {
                caption { "As of " (text::of_day(times.now())) ": " (chosen.len()) " of " (points) " evaluations" }
                thead {
                    tr {
                        th scope="col" { "Time" } th.num scope="col" { "Current" } th.num scope="col" { "Desired" } th.num scope="col" { "Ready" } th.num scope="col" { "Range" }
                        @for metric in &series.metrics { th.num scope="col" { (metric.name) } }
                    }
                }
                tbody {
                    @for i in chosen {
                        tr {
                            th scope="row" { (text::clock(series.times[i])) }
                            td.num { (text::count(series.replicas.current[i])) }
                            td.num { (text::count(series.replicas.desired[i])) }
                            td.num { (text::count(series.replicas.ready[i])) }
                            td.num { (text::count(series.replicas.min[i])) "–" (text::count(series.replicas.max[i])) }
                            @for metric in &series.metrics {
                                td.num { (metric.value[i].and_then(|v| Amount::from_f64(v).ok()).map_or_else(|| "–".to_owned(), |v| words::rated(v, metric.unit, metric.per_second))) }
                            }
                        }
                    }
                }
            }
        }
    }
}
