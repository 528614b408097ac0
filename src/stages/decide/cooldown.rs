//! `Cooldown`: the rest after a change.
//!
//! It starts when a change was applied, whatever its cause. Growth waits for the scale-out cooldown
//! since the last growth only, and may still reach what the same growth would have come to from the
//! count at its start (as AWS counts the capacity that a running cooldown added); shrinking waits
//! for the scale-in cooldown since the last change in either direction.

use std::time::Duration;

use crate::model::{Reason, Timestamp};

use super::memory::Change;

/// What the cooldown made of a count.
pub(super) struct Cooled {
    /// The count.
    pub(super) after: u32,
    /// Which cooldown.
    pub(super) reason: Reason,
    /// When it ends.
    pub(super) until: Timestamp,
}

/// Holds a change from `current` to `desired` while a cooldown runs; `None` where none does.
pub(super) fn cooldown(
    current: u32,
    desired: u32,
    last_change: Option<Change>,
    last_growth: Option<Change>,
    out: Duration,
    r#in: Duration,
    now: Timestamp,
) -> Option<Cooled> {
    if desired > current {
        let growth = last_growth?;
        let until = growth.at + out;
        if now >= until {
            return None;
        }
        let from_start = (u64::from(desired) * u64::from(growth.from)).div_ceil(u64::from(current.max(1)));
        let after = u32::try_from(from_start).unwrap_or(desired).clamp(current, desired);
        (after < desired).then_some(Cooled { after, reason: Reason::ScaleOutCooldown, until })
    } else if desired < current {
        let until = last_change?.at + r#in;
        (now < until).then_some(Cooled { after: current, reason: Reason::ScaleInCooldown, until })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_waits_for_its_own() {
        let change = |at: i64, from, to| Some(Change { at: Timestamp::from_millis(at * 1000), from, to });
        let s = Duration::from_secs;
        // (current, desired, last change, last growth, now) -> count
        for (current, desired, last, growth, now, expected) in [
            (12, 18, change(100, 10, 12), change(100, 10, 12), 130, 15), // +50 % of the 10 at the start
            (12, 12, change(100, 10, 12), change(100, 10, 12), 130, 12),
            (15, 16, change(100, 10, 15), change(100, 10, 15), 130, 15), // the same growth is already there
            (12, 18, change(100, 10, 12), change(100, 10, 12), 160, 18), // over
            (8, 9, change(150, 10, 8), change(40, 9, 10), 160, 9),       // a shrinking does not hold growth
            (12, 6, change(100, 10, 12), change(100, 10, 12), 130, 12),  // growth holds shrinking
            (12, 6, change(100, 10, 12), change(100, 10, 12), 220, 6),
            (12, 6, None, None, 220, 6),
        ] {
            let got = cooldown(current, desired, last, growth, s(60), s(120), Timestamp::from_millis(now * 1000)).map_or(desired, |c| c.after);
            assert_eq!(got, expected, "{current} -> {desired} at {now}");
        }
    }
}
