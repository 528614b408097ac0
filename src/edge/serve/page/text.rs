//! Small texts of the pages: times, ages, names, verdicts.

use std::time::Duration;

use maud::{Markup, html};

use crate::edge::api::{Held, TargetStatus};
use crate::model::{Alert, AlertState, Severity, StepKind, TargetId, Timestamp, Verdict};

/// How times are told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Times {
    /// In a page that is made now: ages as of then.
    At(Timestamp),
    /// In a part that is made now and sent when it changes: ages are filled in by the page's script, which knows the time.
    Running(Timestamp),
}

impl Times {
    /// When it is made.
    pub(super) fn now(self) -> Timestamp {
        match self {
            Times::At(now) | Times::Running(now) => now,
        }
    }

    /// How long ago something was, e.g. "12 s".
    pub(super) fn age(self, of: Timestamp) -> Markup {
        let text = match self {
            Times::At(now) => age(now.since(of)),
            Times::Running(_) => String::new(),
        };
        html! { time.age datetime=(of) data-age=(of.as_millis()) { (text) } }
    }
}

/// The time of day, with all of the time where one asks for it.
pub(super) fn clock(at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(at) { (of_day(at)) } }
}

/// "12:03:20", or "?" beyond the years that have a name.
pub(super) fn of_day(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(|_| "?".to_owned(), |at| at.strftime("%H:%M:%S").to_string())
}

/// "2026-03-01".
pub(super) fn day(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// "12 s", "4 min", "3 h", "2 d": the script says the same.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A target's name: what tells it apart stands out.
pub(super) fn name(target: &TargetId) -> Markup {
    html! { span.place { (target.namespace()) "/" (target.kind()) "/" wbr; } (target.name()) }
}

/// A count, or that there is none.
pub(super) fn count(n: Option<u32>) -> String {
    n.map_or_else(|| "–".to_owned(), |n| n.to_string())
}

/// "3", or "3 → 5" where another count is wanted.
pub(super) fn replicas(target: &TargetStatus) -> String {
    match (target.current, target.desired) {
        (Some(current), Some(desired)) if current != desired => format!("{current} → {desired}"),
        (current, desired) => count(current.or(desired)),
    }
}

/// "1–8".
pub(super) fn range(target: &TargetStatus) -> String {
    match (target.min, target.max) {
        (None, None) => "–".to_owned(),
        (min, max) => format!("{}–{}", count(min), count(max)),
    }
}

/// The class of a verdict's colour: that of a change only where it is carried out.
pub(super) fn class(verdict: Option<Verdict>, held: Option<Held>) -> &'static str {
    match (verdict, held) {
        (_, Some(Held::Off)) => "calm",
        (Some(Verdict::Blind | Verdict::Faulted), _) | (_, Some(Held::Frozen)) => "bad",
        (Some(Verdict::ScaleOut), None) => "out",
        (Some(Verdict::ScaleIn), None) => "in",
        _ => "calm",
    }
}

/// A fragment as the beginning of a line.
pub(super) fn capital(fragment: &str) -> String {
    let mut letters = fragment.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A step's name as words.
pub(super) fn step(step: StepKind) -> &'static str {
    match step {
        StepKind::Combine => "Combine",
        StepKind::Fallback => "Fallback",
        StepKind::Stabilize => "Stabilize",
        StepKind::RateLimit => "Rate limit",
        StepKind::Cooldown => "Cooldown",
        StepKind::Bounds => "Bounds",
        StepKind::Other => "A newer step",
    }
}

/// An alert in a line.
pub(super) fn alert(alert: &Alert, times: Times) -> Markup {
    let class = match (alert.state, alert.severity) {
        (AlertState::Event, _) | (_, Severity::Info) => "note",
        (_, Severity::Warning) => "warning",
        (_, Severity::Critical) => "critical",
    };
    html! {
        li class=(class) {
            b { (alert.name) } " " (alert.message)
            span.when { " " @if alert.state == AlertState::Event { "happened " } @else { "for " } (times.age(alert.at)) @if alert.state == AlertState::Event { " ago" } }
        }
    }
}
