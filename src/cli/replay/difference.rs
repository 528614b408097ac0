//! Two counts of one target over time, and where they differ.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Decision, Reason, StepKind, TargetId, Timestamp, Verdict};
use crate::wire::words;

/// What one side says at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    /// The count.
    pub(super) desired: u32,
    /// The step that bound, …
    pub(super) binding: StepKind,
    /// … and why, in a word, …
    pub(super) reason: Option<Reason>,
    /// … and in a sentence.
    pub(super) sentence: String,
}

/// A time at which the two counts did not change and were not the same.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    /// Its begin.
    pub(super) from: Timestamp,
    /// Its end.
    pub(super) until: Timestamp,
    /// As recorded.
    pub(super) before: Said,
    /// With the other policy.
    pub(super) after: Said,
}

/// One side's sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    /// Replicas times milliseconds.
    pub(super) replica_ms: i128,
    /// Growths.
    pub(super) out: u32,
    /// Shrinkings.
    pub(super) r#in: u32,
    /// The largest count.
    pub(super) most: u32,
    /// Evaluations.
    pub(super) evaluations: u64,
}

/// What came of one target.
#[derive(Debug, Clone, Default)]
pub(super) struct Compared {
    /// The partition of its signals.
    pub(super) partition: Option<u32>,
    /// What lies before this is played, and not counted.
    since: Option<Timestamp>,
    now: Option<Timestamp>,
    sides: (Option<Said>, Option<Said>),
    /// When both had a count for the first time.
    pub(super) from: Option<Timestamp>,
    /// The last moment.
    pub(super) until: Option<Timestamp>,
    /// The recorded policy's sums, and the other's.
    pub(super) sums: (Sums, Sums),
    /// Where they differ, in order.
    pub(super) spans: Vec<Span>,
    /// The difference times milliseconds.
    pub(super) difference_ms: i128,
}

/// Which side says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The recorded policy.
    Before,
    /// The other one.
    After,
}

/// All targets.
pub(super) type All = BTreeMap<TargetId, Compared>;

impl Compared {
    /// Counts what comes at `since` or later.
    pub(super) fn since(since: Option<Timestamp>) -> Self {
        Compared { since, ..Compared::default() }
    }

    /// Time goes on to `at`: what stood until now is counted.
    pub(super) fn advance(&mut self, at: Timestamp) {
        let Some(now) = self.now.filter(|now| *now < at) else {
            self.now = self.now.max(Some(at));
            return;
        };
        self.now = Some(at);
        let now = self.since.map_or(now, |since| now.max(since));
        let (Some(before), Some(after)) = &self.sides else { return };
        if now >= at {
            return;
        }
        self.from = self.from.or(Some(now));
        self.until = Some(at);
        let elapsed = i128::from(at.as_millis() - now.as_millis());
        self.sums.0.replica_ms += i128::from(before.desired) * elapsed;
        self.sums.1.replica_ms += i128::from(after.desired) * elapsed;
        self.sums.0.most = self.sums.0.most.max(before.desired);
        self.sums.1.most = self.sums.1.most.max(after.desired);
        if before.desired == after.desired {
            return;
        }
        self.difference_ms += i128::from(before.desired.abs_diff(after.desired)) * elapsed;
        match self.spans.last_mut() {
            Some(last) if last.until == now && last.before.desired == before.desired && last.after.desired == after.desired => last.until = at,
            _ => self.spans.push(Span { from: now, until: at, before: before.clone(), after: after.clone() }),
        }
    }

    /// A side decided.
    pub(super) fn decided(&mut self, side: Side, decision: &Decision) {
        let of_kind = || decision.steps.iter().rev().filter(|s| s.step == decision.binding);
        let step = of_kind().find(|s| s.before != s.after).or_else(|| of_kind().next());
        let said = Said { desired: decision.desired, binding: decision.binding, reason: step.map(|s| s.reason), sentence: words::sentence(decision) };
        let (sums, held) = match side {
            Side::Before => (&mut self.sums.0, &mut self.sides.0),
            Side::After => (&mut self.sums.1, &mut self.sides.1),
        };
        if self.since.is_none_or(|since| self.now >= Some(since)) {
            sums.evaluations += 1;
            match decision.verdict {
                Verdict::ScaleOut => sums.out += 1,
                Verdict::ScaleIn => sums.r#in += 1,
                _ => {}
            }
        }
        *held = Some(said);
    }

    /// How long the two were compared.
    pub(super) fn compared(&self) -> Duration {
        self.from.zip(self.until).map_or(Duration::ZERO, |(from, until)| until.since(from))
    }

    /// For how long they differed.
    pub(super) fn differed(&self) -> Duration {
        self.spans.iter().map(|span| span.until.since(span.from)).sum()
    }

    /// The largest difference at any time.
    pub(super) fn largest(&self) -> u32 {
        self.spans.iter().map(|span| span.before.desired.abs_diff(span.after.desired)).max().unwrap_or(0)
    }

    /// The difference as a share of the recorded replica-hours.
    pub(super) fn share(&self) -> f64 {
        if self.difference_ms == 0 { 0.0 } else { self.difference_ms as f64 / self.sums.0.replica_ms.max(1) as f64 }
    }
}
