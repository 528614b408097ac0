//! Whether a command still fits the world that it was made for.

use super::ScaleRecord;
use crate::model::{Command, OutcomeResult, Timestamp};

/// Whether `command` may be carried out on what was `found`, at `now`.
///
/// The order is that of the damage: another incarnation, too late, behind what was done already,
/// stopped by a person, and last a count that is not the one assumed.
///
/// # Errors
/// The outcome that the command has instead.
pub fn check(command: &Command, found: &ScaleRecord, now: Timestamp) -> Result<(), OutcomeResult> {
    if found.uid != command.uid {
        return Err(OutcomeResult::Conflict);
    }
    if now >= command.expires_at {
        return Err(OutcomeResult::Expired);
    }
    if command.epoch <= found.epoch {
        return Err(OutcomeResult::Stale);
    }
    if found.frozen {
        return Err(OutcomeResult::Frozen);
    }
    if found.replicas != command.from && Some(found.replicas) != command.replaced_to {
        return Err(OutcomeResult::Conflict);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_carried_out_only_in_the_world_it_was_made_for() {
        let command = |from, replaced_to: Option<u32>| Command {
            id: "c".to_owned(),
            target: "a/ProcessFleet/b".parse().unwrap(),
            uid: "u".to_owned(),
            epoch: 10,
            from,
            to: 9,
            replaces: replaced_to.map(|_| "b".to_owned()),
            replaced_to,
            expires_at: Timestamp::from_millis(1000),
        };
        let found = ScaleRecord { uid: "u".to_owned(), replicas: 3, revision: 7, epoch: 9, frozen: false };
        let other = ScaleRecord { uid: "v".to_owned(), ..found.clone() };
        let newer = ScaleRecord { epoch: 11, ..found.clone() };
        let done = ScaleRecord { epoch: 10, ..found.clone() };
        let frozen = ScaleRecord { frozen: true, ..found.clone() };
        for (what, command, found, now, expected) in [
            ("as assumed", command(3, None), &found, 999, Ok(())),
            ("the replaced command was applied", command(2, Some(3)), &found, 999, Ok(())),
            ("the replaced command was not applied", command(3, Some(5)), &found, 999, Ok(())),
            ("another count", command(2, None), &found, 999, Err(OutcomeResult::Conflict)),
            ("another count than both", command(2, Some(5)), &found, 999, Err(OutcomeResult::Conflict)),
            ("at its expiry", command(3, None), &found, 1000, Err(OutcomeResult::Expired)),
            ("behind", command(3, None), &newer, 999, Err(OutcomeResult::Stale)),
            ("carried out before, and the count is as it was before that", command(3, None), &done, 999, Err(OutcomeResult::Stale)),
            ("frozen", command(3, None), &frozen, 999, Err(OutcomeResult::Frozen)),
            ("another incarnation", command(3, None), &other, 999, Err(OutcomeResult::Conflict)),
            ("too late comes before frozen", command(3, None), &frozen, 1000, Err(OutcomeResult::Expired)),
            ("frozen comes before the count", command(2, None), &frozen, 999, Err(OutcomeResult::Frozen)),
        ] {
            assert_eq!(check(&command, found, Timestamp::from_millis(now)), expected, "{what}");
        }
    }
}
