//! `Fallback`: what happens when all metrics have been blind, or idle, for long enough.

use std::time::Duration;

use crate::model::policy::{Fallback, FallbackBehavior};
use crate::model::{Reason, Timestamp};

/// What fallback made of the count.
pub(super) struct FellBack {
    /// The count.
    pub(super) after: u32,
    /// Why.
    pub(super) reason: Reason,
}

/// All proposing metrics blind since `blind_since`: `Static` may lower the count (by the rate
/// policies, never below `min`), `IfHigher` only raises it.
pub(super) fn when_blind(current: u32, min: u32, blind_since: Timestamp, fallback: &Fallback, now: Timestamp) -> Option<FellBack> {
    if now.since(blind_since) < fallback.after {
        return None;
    }
    let replicas = fallback.replicas.max(min);
    match fallback.behavior {
        FallbackBehavior::Hold => None,
        FallbackBehavior::IfHigher => (replicas > current).then_some(FellBack { after: replicas, reason: Reason::FallbackIfHigher }),
        FallbackBehavior::Static => (replicas != current).then_some(FellBack { after: replicas, reason: Reason::FallbackStatic }),
    }
}

/// All proposing metrics idle since `idle_since`: `min`, once that has lasted for the scale-in window.
pub(super) fn when_idle(current: u32, min: u32, idle_since: Timestamp, window: Duration, now: Timestamp) -> Option<FellBack> {
    (now.since(idle_since) >= window && current > min).then_some(FellBack { after: min, reason: Reason::IdleToMin })
}
