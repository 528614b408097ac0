//! `Bounds`: `min` and `max`, and the mode that forbids a direction.

use crate::model::Reason;
use crate::model::policy::{Mode, Policy};

/// What the bounds made of the count.
pub(super) struct Bounded {
    /// The count.
    pub(super) after: u32,
    /// The bound.
    pub(super) limit: u32,
    /// Why.
    pub(super) reason: Reason,
}

/// Keeps the count inside the policy's bounds; `None` where it is.
pub(super) fn bounds(current: u32, desired: u32, policy: &Policy) -> Option<Bounded> {
    if policy.mode == Mode::OutOnly && desired < current {
        // Also where less than `min` is asked for: from above `min` that is still fewer.
        Some(Bounded { after: current.max(policy.min), limit: current.max(policy.min), reason: Reason::OutOnly })
    } else if desired < policy.min {
        Some(Bounded { after: policy.min, limit: policy.min, reason: Reason::BelowMin })
    } else if desired > policy.max {
        Some(Bounded { after: policy.max, limit: policy.max, reason: Reason::AboveMax })
    } else {
        None
    }
}
