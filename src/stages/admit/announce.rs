//! When a policy is announced again.

use crate::model::{TargetId, Timestamp};

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// Whether the target's own time of the day has passed since `last`. Also where `last` is more than a
/// minute ahead: the clock was set back, and the day must not wait for it.
pub(super) fn due(target: &TargetId, last: Timestamp, now: Timestamp) -> bool {
    let time_of_day = time_of_day_ms(target);
    let day = |at: Timestamp| at.as_millis().saturating_sub(time_of_day).div_euclid(DAY_MS);
    day(now) > day(last) || last.as_millis().saturating_sub(now.as_millis()) > 60_000
}

/// The target's own time of the day: FNV-1a (64 bits) of its name, folded onto the day.
fn time_of_day_ms(target: &TargetId) -> i64 {
    let hash = target.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The middle bits: the highest and lowest of FNV-1a differ least between similar names.
    i64::try_from((hash >> 16) % DAY_MS.unsigned_abs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_spread_over_the_day() {
        let mut hours = [0_u32; 24];
        for n in 0..2_400 {
            let target: TargetId = format!("prod/Deployment/api-{n}").parse().unwrap();
            hours[usize::try_from(time_of_day_ms(&target) / 3_600_000).unwrap()] += 1;
        }
        assert!(hours.iter().all(|n| (50..200).contains(n)), "{hours:?}");
    }

    #[test]
    fn it_is_due_once_a_day_at_its_own_time() {
        let target: TargetId = "prod/Deployment/api".parse().unwrap();
        let slot = time_of_day_ms(&target);
        let at = |ms: i64| Timestamp::from_millis(20_000 * DAY_MS + slot + ms);
        assert!(!due(&target, at(0), at(DAY_MS - 1)));
        assert!(due(&target, at(0), at(DAY_MS)));
        assert!(due(&target, at(-1), at(0)));
        assert!(!due(&target, at(60_000), at(0)));
        assert!(due(&target, at(60_001), at(0)), "announced in what is the future now");
    }
}
