//! `Cooldown`: the rest after a change.
//!
//! It starts when a change was applied, whatever its cause. Growth waits for the scale-out cooldown
//! since the last growth only, and may still reach what it would have come to from the count at its
//! start (as AWS counts the capacity that a running cooldown added): a proposal in proportion to the
//! count by the same proportion, one that does not depend on it in full. Shrinking waits for the
//! scale-in cooldown since the last change in either direction.

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

/// The cooldowns of a policy, and the changes that they run from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cooling {
    /// The last change.
    pub(super) last_change: Option<Change>,
    /// The last growth.
    pub(super) last_growth: Option<Change>,
    /// The cooldown of growth.
    pub(super) out: Duration,
    /// The cooldown of shrinking.
    pub(super) r#in: Duration,
}

/// Holds a change from `current` to `desired` while a cooldown runs; `None` where none does.
/// `absolute` is the largest proposal that does not depend on `current`.
pub(super) fn cooldown(current: u32, desired: u32, absolute: Option<u32>, cooling: Cooling, now: Timestamp) -> Option<Cooled> {
    if desired > current {
        let growth = cooling.last_growth?;
        let until = growth.at + cooling.out;
        if now >= until {
            return None;
        }
        let in_proportion = (u64::from(desired) * u64::from(growth.from)).div_ceil(u64::from(current.max(1)));
        let from_start = u32::try_from(in_proportion).unwrap_or(desired).max(absolute.unwrap_or(0));
        let after = from_start.clamp(current, desired);
        (after < desired).then_some(Cooled { after, reason: Reason::ScaleOutCooldown, until })
    } else if desired < current {
        let until = cooling.last_change?.at + cooling.r#in;
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
        // (current, desired, absolute, last change, last growth, now) -> count
        for (current, desired, absolute, last, growth, now, expected) in [
            (12, 18, None, change(100, 10, 12), change(100, 10, 12), 130, 15), // +50 % of the 10 at the start
            (12, 12, None, change(100, 10, 12), change(100, 10, 12), 130, 12),
            (15, 16, None, change(100, 10, 15), change(100, 10, 15), 130, 15), // the same growth is already there
            (12, 18, Some(17), change(100, 10, 12), change(100, 10, 12), 130, 17), // 17 are needed from any count
            (12, 18, Some(18), change(100, 10, 12), change(100, 10, 12), 130, 18),
            (12, 13, Some(18), change(100, 10, 12), change(100, 10, 12), 130, 13), // limited before
            (12, 18, None, change(100, 10, 12), change(100, 10, 12), 160, 18),     // over
            (8, 9, None, change(150, 10, 8), change(40, 9, 10), 160, 9),           // a shrinking does not hold growth
            (12, 6, None, change(100, 10, 12), change(100, 10, 12), 130, 12),      // growth holds shrinking
            (12, 6, None, change(100, 10, 12), change(100, 10, 12), 220, 6),
            (12, 6, None, None, None, 220, 6),
        ] {
            let cooling = Cooling { last_change: last, last_growth: growth, out: s(60), r#in: s(120) };
            let got = cooldown(current, desired, absolute, cooling, Timestamp::from_millis(now * 1000)).map_or(desired, |c| c.after);
            assert_eq!(got, expected, "{current} -> {desired} at {now}");
        }
    }
}
