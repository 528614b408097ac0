//! A decision, opening into its steps as a waterfall, what it saw, and what came of it.

use maud::{Markup, html};

use super::target::{metrics, signals_page};
use super::target_page;
use super::text::{self, Times};
use crate::edge::api::{Dated, Decisions, Story, does};
use crate::model::{Decision, ManualChange, Step, TargetId, Timestamp};
use crate::wire::words;

/// The widest bar, in the units of its picture.
const WIDTH: f64 = 100.0;

/// One decision: a line that opens.
pub(super) fn story(story: &Story, times: Times) -> Markup {
    let decision = &story.decision;
    let (held, undone) = (story.held(), story.not_carried_out());
    let does = does(Some(decision.verdict), held);
    // The colour of a change is that of one that took place.
    let class = if undone.is_some() && held.is_none() { "calm" } else { text::class(Some(decision.verdict), held) };
    html! {
        details.decision id=(format!("d{}", decision.sequence)) {
            summary {
                span.when { (when(decision.at, times)) }
                span.change { @if decision.current == decision.desired { (decision.desired) } @else { (decision.current) " → " (decision.desired) } }
                span.does { span class=(class) { (does) } }
                span.sentence { (story.sentence) @if let Some(undone) = &undone { span.undone { (text::capital(undone)) } } }
            }
            div.inside {
                h3 { "Steps" }
                (waterfall(decision))
                @if !decision.metrics.is_empty() {
                    h3 { "What it saw" }
                    (metrics(&decision.metrics, decision.at, &format!("What decision {} measured", decision.sequence)))
                }
                p.fine {
                    "Decision " (decision.sequence)
                    @if let Some(through) = decision.measured_through() { ", on what had been measured up to " (text::clock(through)) } @else { ", before anything was measured" }
                    "; policy " code { (decision.policy_version) } ". "
                    a href=(signals_page(&decision.target, decision.at)) { "The signals before it" }
                }
                h3 { "What came of it" }
                (after(story))
            }
        }
    }
}

/// The time, with the day where it is another one.
fn when(at: Timestamp, times: Times) -> Markup {
    let another = text::day(at) != text::day(times.now());
    html! { @if another { (text::day(at)) " " } (text::clock(at)) }
}

fn waterfall(decision: &Decision) -> Markup {
    let most = decision.steps.iter().flat_map(|s| [s.before, s.after]).max().unwrap_or(0).max(1);
    // The last of its kind that changed the count bound, or the last of its kind.
    let bound = |s: &&Step| s.step == decision.binding;
    let changed = decision.steps.iter().rposition(|s| bound(&s) && s.before != s.after);
    let binding = changed.or_else(|| decision.steps.iter().rposition(|s| bound(&s)));
    html! {
        div.scroll role="region" aria-label={ "Steps of decision " (decision.sequence) } tabindex="0" {
            table.waterfall {
                thead { tr { th scope="col" { "Step" } th.num scope="col" { "Before" } th.num scope="col" { "After" } th scope="col" { span.unseen { "Change" } } th scope="col" { "Why" } } }
                tbody {
                    @for (i, step) in decision.steps.iter().enumerate() {
                        tr class=[(binding == Some(i)).then_some("bound")] {
                            th scope="row" { (text::step(step.step)) @if binding == Some(i) { " " span.bound-mark { "bound" } } }
                            td.num { (step.before) }
                            td.num { (step.after) }
                            td.bar-cell { (bar(step, most)) }
                            td { (words::why(decision, step)) }
                        }
                    }
                }
            }
        }
    }
}

/// From before to after, on the scale of the decision's largest count.
fn bar(step: &Step, most: u32) -> Markup {
    let place = |n: u32| f64::from(n) / f64::from(most) * WIDTH;
    let (low, high) = (place(step.before.min(step.after)), place(step.before.max(step.after)));
    let class = if step.after > step.before { "grown" } else { "cut" };
    html! {
        svg.bar-of-step viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.kept x="0" y="0" width=(format!("{low:.1}")) height="8" {}
            @if step.before != step.after { rect class=(class) x=(format!("{low:.1}")) y="0" width=(format!("{:.1}", high - low)) height="8" {} }
        }
    }
}

fn after(story: &Story) -> Markup {
    html! {
        ol.after {
            @for grant in &story.grants { li { span.when { (text::clock(grant.at)) } b { "Grant" } span { (words::grant(&grant.record)) } } }
            @for command in &story.commands {
                li { span.when { (text::clock(command.at)) } b { "Command" } span { "set " (command.record.to) " where " (command.record.from) " are found, until " (text::clock(command.record.expires_at)) } }
            }
            @for outcome in &story.outcomes { li { span.when { (text::clock(outcome.at)) } b { "Outcome" } span { (words::outcome(&outcome.record)) } } }
            @if let Some(so_far) = story.so_far() { li { span.when {} b { "So far" } span { (so_far) } } }
        }
    }
}

/// What a person set, as an entry of the list.
pub(super) fn by_hand(change: &Dated<ManualChange>, times: Times) -> Markup {
    let ManualChange { from, to, actor, reason, forced, .. } = &change.record;
    html! {
        span.when { (when(change.at, times)) }
        span.change { (from) " → " (to) }
        span.does { @if *forced { "forced" } @else { "by hand" } }
        span.sentence { (actor) @if let Some(reason) = reason { ": " (reason) } }
    }
}

/// The path of the decisions before `first`, as the interface writes it; `None` where it is the first.
pub(super) fn next_page(target: &TargetId, first: Option<&Story>) -> Option<String> {
    crate::edge::view::next_page(target, first, 20)
}

/// The page of the decisions before these.
pub(super) fn older_page(decisions: &Decisions) -> Option<String> {
    let (_, before) = decisions.next.as_ref()?.rsplit_once("before=")?;
    Some(format!("{}?before={before}", target_page(&decisions.target)))
}
