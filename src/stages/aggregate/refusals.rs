//! What was not taken: dead letters within a budget, and alerts for exceeded limits and for producers whose sequence ran back.
//!
//! All wait here for the next flush, so that a flush alone has effects. The budget and the alerts that
//! fire outlive it; a restart forgets them, and then an alert may fire again: it is the same alert.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::check::{Limit, Reason, Refusal};
use crate::log::{Offset, Topic};
use crate::model::spelling::shorten;
use crate::model::{Alert, AlertState, DeadLetter, Message, Sample, Severity, TargetId, Timestamp};
use crate::stages::Effects;

/// Dead letters written for each reason in a second of append time; the rest is counted only.
const LETTERS_PER_SECOND: u32 = 10;
/// The most bytes of a sample's text in a dead letter.
const LETTER_BYTES: usize = 64 * 1024;
/// The largest number of alerts that fire at once: far more than a person reads.
const MOST_ALERTS: usize = 1_000;
/// How long a limit must hold again until its alert is resolved: longer than any reporting interval.
const RESOLVE_AFTER: Duration = Duration::from_secs(300);
/// How often it is told again that sequences run back.
const RAN_BACK_AGAIN: Duration = Duration::from_secs(300);

/// Where the record of a sample stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Refusals {
    budgets: BTreeMap<Reason, Budget>,
    letters: Vec<DeadLetter>,
    /// When each exceeded limit was met last.
    exceeded: BTreeMap<Exceeded, Timestamp>,
    alerts: Vec<Alert>,
    ran_back: Option<RanBack>,
    /// When it was told last that sequences ran back.
    told_ran_back: Option<Timestamp>,
}

/// Messages whose sequence was smaller than the last of their producer, since that was told last: the first, and how many.
#[derive(Debug)]
struct RanBack {
    partition: u32,
    producer: String,
    sequence: i64,
    last: i64,
    messages: usize,
    samples: usize,
}

/// The letters of one reason in one second.
#[derive(Debug)]
struct Budget {
    second: Timestamp,
    written: u32,
}

/// A limit, and the target that exceeds it (none for the number of targets).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Exceeded {
    target: Option<TargetId>,
    limit: Limit,
}

impl Refusals {
    /// Notes that a sample was refused, for one of its targets or for all.
    pub(super) fn note(&mut self, position: Position, sample: &Sample, target: Option<&TargetId>, refusal: &Refusal) {
        let reason = refusal.reason();
        if let Reason::Limit(limit) = reason {
            let target = target.filter(|_| limit != Limit::Targets).cloned();
            self.raise(Exceeded { target, limit }, position.at, refusal);
        }
        if self.may_write(reason, position.at) {
            let about = target.map_or_else(String::new, |target| format!(" of {target}"));
            self.letters.push(DeadLetter {
                topic: Topic::Metrics.name().to_owned(),
                partition: position.partition,
                offset: i64::try_from(position.offset).unwrap_or(i64::MAX),
                reason: format!("sample of metric {}{about}: {refusal}", sample.metric),
                record: describe(sample),
            });
        }
    }

    /// Notes that a message was dropped since its producer had sent a later one.
    pub(super) fn ran_back(&mut self, position: Position, producer: &str, sequence: i64, last: i64, samples: usize) {
        let first = || RanBack { partition: position.partition, producer: shorten(producer), sequence, last, messages: 0, samples: 0 };
        let ran_back = self.ran_back.get_or_insert_with(first);
        ran_back.messages += 1;
        ran_back.samples += samples;
    }

    fn may_write(&mut self, reason: Reason, at: Timestamp) -> bool {
        let second = at.window_start(Duration::from_secs(1));
        let budget = self.budgets.entry(reason).or_insert(Budget { second, written: 0 });
        if budget.second != second {
            *budget = Budget { second, written: 0 };
        }
        let within = budget.written < LETTERS_PER_SECOND;
        budget.written += u32::from(within);
        within
    }

    fn raise(&mut self, exceeded: Exceeded, at: Timestamp, refusal: &Refusal) {
        if let Some(last) = self.exceeded.get_mut(&exceeded) {
            *last = at.max(*last);
        } else if self.exceeded.len() < MOST_ALERTS {
            self.alerts.push(alert(&exceeded, AlertState::Firing, format!("{refusal}; what exceeds the limit is not counted"), at));
            self.exceeded.insert(exceeded, at);
        }
    }

    /// Hands over what has gathered, and resolves alerts whose cause has been away for long enough.
    pub(super) fn flush(&mut self, now: Timestamp, effects: &mut Effects) {
        let alerts = &mut self.alerts;
        self.exceeded.retain(|exceeded, last| {
            let fires = now.since(*last) < RESOLVE_AFTER;
            if !fires {
                alerts.push(alert(exceeded, AlertState::Resolved, "the limit holds again".to_owned(), now));
            }
            fires
        });
        if self.told_ran_back.is_none_or(|told| now < told || now.since(told) >= RAN_BACK_AGAIN)
            && let Some(ran_back) = self.ran_back.take()
        {
            self.told_ran_back = Some(now);
            alerts.push(ran_back.alert(now));
        }
        for letter in self.letters.drain(..) {
            effects.to_partition(Topic::DeadLetters, 0, Message::DeadLetter(letter));
        }
        for alert in alerts.drain(..) {
            match alert.target.clone() {
                Some(target) => effects.to_key(Topic::Alerts, target.as_str(), Message::Alert(alert)),
                None => effects.to_partition(Topic::Alerts, 0, Message::Alert(alert)),
            }
        }
    }
}

impl RanBack {
    fn alert(self, at: Timestamp) -> Alert {
        let RanBack { partition, producer, sequence, last, messages, samples } = self;
        let others = if messages > 1 { format!(", and {} more messages were such", messages - 1) } else { String::new() };
        let message = format!(
            "producer {producer:?} sent sequence {sequence} after {last}{others}: their {samples} samples are dropped as repetitions, which is right where it was \
             a copy that came late; else a producer sends one request after the other, and after its restart counts on or takes a new name"
        );
        let subject = format!("{}/{partition}", Topic::Metrics);
        Alert { target: None, name: "SequenceRanBack".to_owned(), subject, severity: Severity::Warning, state: AlertState::Event, message, at }
    }
}

fn alert(exceeded: &Exceeded, state: AlertState, message: String, at: Timestamp) -> Alert {
    let name = match exceeded.limit {
        Limit::Targets => "TooManyTargets",
        Limit::Metrics => "TooManyMetrics",
        Limit::Instances => "TooManyInstances",
    };
    Alert { target: exceeded.target.clone(), name: name.to_owned(), subject: String::new(), severity: Severity::Warning, state, message, at }
}

/// The sample as a line of text, cut at 64 kB: the stage knows its meaning, not its bytes, which stand
/// at the letter's position.
fn describe(sample: &Sample) -> Vec<u8> {
    let Sample { targets, metric, instance, time, kind, value, histogram } = sample;
    let mut text = format!("metric={metric} instance={instance} time={} kind={kind:?}", time.as_millis());
    // Writing into a string cannot fail.
    let _ = match histogram {
        Some(h) => write!(text, " bounds={:?} counts={:?} count={} sum={}", h.bounds, h.counts, h.count, h.sum),
        None => write!(text, " value={value}"),
    };
    for target in targets {
        if text.len() > LETTER_BYTES {
            break;
        }
        let _ = write!(text, " target={target}");
    }
    let mut bytes = text.into_bytes();
    bytes.truncate(LETTER_BYTES);
    bytes
}
