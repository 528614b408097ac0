//! `RateLimit`: how far the rate policies let the count move now.
//!
//! The arithmetic is that of Kubernetes 1.37 (`calculateScaleUpLimitWithScalingRules`,
//! `calculateScaleDownLimitWithBehaviors`), its doubles included: 10 % up from 100 is 111.

use crate::model::policy::{RatePolicy, ScalingRules, Select, StepSize};
use crate::model::{Reason, Timestamp};

use super::memory::ScaleEvent;

/// The largest count that a target can have.
pub(super) const MOST_REPLICAS: i64 = i32::MAX as i64;

/// What the rate policies allow.
pub(super) struct Limited {
    /// The count.
    pub(super) after: u32,
    /// The limit that was applied.
    pub(super) limit: u32,
    /// Why.
    pub(super) reason: Reason,
    /// When the oldest change that counts against the limit leaves its period.
    pub(super) until: Option<Timestamp>,
}

/// Limits a change from `current` to `desired`; `None` where nothing is limited.
pub(super) fn rate_limit(current: u32, desired: u32, events: &[ScaleEvent], out: &ScalingRules, r#in: &ScalingRules, now: Timestamp) -> Option<Limited> {
    if desired > current {
        let limit = clamp(scale_out_limit(current, events, out, now)).max(current);
        let reason = if out.select == Select::Disabled { Reason::ScaleOutDisabled } else { Reason::ScaleOutRate };
        (desired > limit).then(|| Limited { after: limit, limit, reason, until: frees_at(events, out, now, current) })
    } else if desired < current {
        let limit = clamp(scale_in_limit(current, events, r#in, now)).min(current);
        let reason = if r#in.select == Select::Disabled { Reason::ScaleInDisabled } else { Reason::ScaleInRate };
        (desired < limit).then(|| Limited { after: limit, limit, reason, until: frees_at(events, r#in, now, current) })
    } else {
        None
    }
}

fn clamp(count: i64) -> u32 {
    u32::try_from(count.clamp(0, MOST_REPLICAS)).unwrap_or(0)
}

/// The count at the start of a policy's period.
fn period_start(current: u32, events: &[ScaleEvent], policy: &RatePolicy, now: Timestamp) -> i64 {
    let cutoff = now - policy.period;
    let changed: i64 = events.iter().filter(|e| e.at > cutoff).map(|e| e.change).sum();
    i64::from(current) - changed
}

/// The largest count that the policies allow now; may lie below `current`.
pub(super) fn scale_out_limit(current: u32, events: &[ScaleEvent], rules: &ScalingRules, now: Timestamp) -> i64 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = period_start(current, events, policy, now);
        match policy.amount {
            StepSize::Replicas(n) => start + i64::from(n),
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            StepSize::Percent(p) => (start as f64 * (1.0 + f64::from(p) / 100.0)).ceil() as i64,
        }
    });
    match rules.select {
        Select::Disabled => i64::from(current),
        Select::Max => allowed.max().unwrap_or(i64::from(current)),
        Select::Min => allowed.min().unwrap_or(i64::from(current)),
    }
}

/// The smallest count that the policies allow now; may lie above `current`.
pub(super) fn scale_in_limit(current: u32, events: &[ScaleEvent], rules: &ScalingRules, now: Timestamp) -> i64 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = period_start(current, events, policy, now);
        match policy.amount {
            StepSize::Replicas(n) => start - i64::from(n),
            #[expect(clippy::cast_possible_truncation, reason = "truncates towards zero, as Go's conversion does")]
            StepSize::Percent(p) => (start as f64 * (1.0 - f64::from(p) / 100.0)) as i64,
        }
    });
    match rules.select {
        Select::Disabled => i64::from(current),
        // The largest change is the smallest count.
        Select::Max => allowed.min().unwrap_or(i64::from(current)),
        Select::Min => allowed.max().unwrap_or(i64::from(current)),
    }
}

/// When the first of the changes that count leaves its period.
fn frees_at(events: &[ScaleEvent], rules: &ScalingRules, now: Timestamp, _current: u32) -> Option<Timestamp> {
    rules.policies.iter().filter_map(|p| events.iter().filter(|e| e.at > now - p.period).map(|e| e.at + p.period).min()).min()
}
