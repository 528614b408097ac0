//! Snapshots as they stand in the log's state, and back: the runtime's own keys beside those of the stage.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::log::{LogError, Offset};
use crate::model::json;
use crate::stages::{Snapshot, Stage};

/// State keys of the runtime's own; no name has a control character.
pub(super) const ROUND_KEY: &str = "\u{1}round";
pub(super) const WIDE_KEY: &str = "\u{1}wide";
/// The version of the snapshots: written with the first of a round, so that a round that was torn says it too.
pub(super) const VERSION_KEY: &str = "\u{1}version";
/// What was put aside ([`Aside`]).
pub(super) const ASIDE_KEY: &str = "\u{1}aside";

/// Whether a key of the state is the runtime's, and of no key of the stage.
pub(super) fn is_own(key: &str) -> bool {
    [ROUND_KEY, WIDE_KEY, VERSION_KEY, ASIDE_KEY].contains(&key)
}

/// The records that could not be read for want of what stands outside of the log (a schema that a registry did not know), since the last round: a restart, which reads
/// them again, leaves them aside, whatever is known by then. In order, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aside(Vec<Range<Offset>>);

impl Aside {
    /// Whether this record is one of them.
    pub fn holds(&self, offset: Offset) -> bool {
        let after = self.0.partition_point(|range| range.start <= offset);
        after.checked_sub(1).is_some_and(|index| self.0[index].contains(&offset))
    }

    /// One more, behind all of them.
    pub fn push(&mut self, offset: Offset) {
        match self.0.last_mut() {
            Some(last) if last.end == offset => last.end = offset + 1,
            _ => self.0.push(offset..offset + 1),
        }
    }

    /// Forgets what is not read again. Says whether there was any of it.
    pub fn forget_before(&mut self, from: Offset) -> bool {
        let kept = self.0.partition_point(|range| range.end <= from);
        self.0.drain(..kept);
        kept > 0
    }

    /// As it stands in the state of a group.
    pub fn row(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() { None } else { serde_json::to_vec(self).ok() }
    }
}

/// The record that ends a snapshot round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// The position when the round began: what the partition-wide state holds.
    pub start: Offset,
    /// From where the input is read again.
    pub replay_from: Offset,
}

/// From where a restart reads a stage's input again, by its last complete round of snapshots; `None` where there is
/// none, so from the earliest record. `read` reads an entry of the stage's state.
///
/// # Errors
/// What `read` has; [`LogError::Retry`] where the round cannot be read as one.
pub fn replays_from(read: impl FnOnce(&str) -> Result<Option<Vec<u8>>, LogError>) -> Result<Option<Offset>, LogError> {
    let Some(bytes) = read(ROUND_KEY)? else { return Ok(None) };
    let round: Round = json::read_bytes(&bytes).map_err(|error| LogError::Retry { reason: format!("a round of snapshots cannot be read: {error}") })?;
    Ok(Some(round.replay_from))
}

/// What snapshots hold.
pub struct Restored<S> {
    /// The state, before the input since is folded.
    pub state: S,
    /// The last complete round; `None` where none came to its end.
    pub round: Option<Round>,
    /// What is left aside when the input is read again.
    pub aside: Aside,
    /// How many keys have a snapshot.
    pub keys: usize,
}

/// Why snapshots are not put back: nothing is guessed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// One of them cannot be used by this version, or not at all.
    #[error("{0}")]
    Unreadable(String),
    /// They hold input that was not read, by the position: what lies between would be passed over, or done twice.
    #[error("the snapshots hold the input up to {until}, and it was read up to {position} only")]
    Ahead {
        /// The first offset that none of them holds.
        until: Offset,
        /// The position.
        position: Offset,
    },
}

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Unusable::Unreadable(reason)
    }
}

/// Puts the snapshots of one partition back, as [`crate::log::Log::states`] gives them. `position` is from where its input is read
/// on: what was committed with the newest of them, and the earliest offset where nothing was committed yet.
///
/// # Errors
/// [`Unusable`].
pub fn restore<S: Stage>(rows: &[(String, Vec<u8>)], position: Offset) -> Result<Restored<S::State>, Unusable> {
    let find = |key: &str| rows.iter().find(|(k, _)| k == key).map(|(_, bytes)| bytes.as_slice());
    if let Some((first, _)) = rows.first() {
        let version = find(VERSION_KEY).ok_or_else(|| format!("the snapshots, {first:?} among them, have no version"))?;
        let version: u32 = json::read_bytes(version).map_err(|error| format!("the version of the snapshots: {error}"))?;
        if version != S::VERSION {
            return Err(format!("a newer Loadline wrote the snapshots (they have version {version}, this one knows {})", S::VERSION).into());
        }
    }
    let round: Option<Round> = find(ROUND_KEY).map(json::read_bytes).transpose().map_err(|error| format!("the last round: {error}"))?;
    let mut state = S::State::default();
    if let Some(wide) = find(WIDE_KEY) {
        state.restore_wide(wide)?;
    }
    let mut keys = 0;
    for (key, bytes) in rows.iter().filter(|(key, _)| !is_own(key)) {
        state.restore(key, bytes)?;
        keys += 1;
    }
    // What a snapshot holds is not read again: one that holds what was never read would have it left out.
    let until = round.map_or(0, |round| round.start.max(round.replay_from)).max(state.held_until());
    if until > position {
        return Err(Unusable::Ahead { until, position });
    }
    let aside: Option<Aside> = find(ASIDE_KEY).map(json::read_bytes).transpose().map_err(|error| format!("the records that were put aside: {error}"))?;
    Ok(Restored { state, round, aside: aside.unwrap_or_default(), keys })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::decide::Decide;

    #[test]
    fn what_was_put_aside_is_remembered_until_it_is_not_read_again() {
        let mut aside = Aside::default();
        assert_eq!(aside.row(), None);
        [3, 4, 9].into_iter().for_each(|offset| aside.push(offset));
        let row: Aside = serde_json::from_slice(&aside.row().unwrap()).unwrap();
        assert_eq!((2..11).filter(|offset| row.holds(*offset)).collect::<Vec<_>>(), [3, 4, 9]);
        assert!(!aside.forget_before(4) && aside.forget_before(5) && !aside.forget_before(5));
        assert!(!aside.holds(4) && aside.holds(9) && aside.forget_before(10));
        assert_eq!(aside, Aside::default());
    }

    /// A round or a target's snapshot that stands for input which was never read is refused: that input would be passed over.
    #[test]
    fn a_snapshot_of_what_was_not_read_is_refused() {
        let row = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
        let rows = |round: &str, target: &str| [row(VERSION_KEY, "1"), row(ROUND_KEY, round), row("prod/Deployment/api", target)];
        let refused = |rows: &[(String, Vec<u8>)], position| restore::<Decide>(rows, position).err();
        let sound = rows(r#"{"start":10,"replayFrom":4}"#, r#"{"nextOffset":10}"#);
        assert_eq!(refused(&sound, 10), None);
        for ahead in [
            rows(r#"{"start":11,"replayFrom":4}"#, r#"{"nextOffset":10}"#),
            rows(r#"{"start":10,"replayFrom":11}"#, r#"{"nextOffset":10}"#),
            rows(r#"{"start":10,"replayFrom":4}"#, r#"{"nextOffset":11}"#),
        ] {
            let refused = refused(&ahead, 10);
            assert_eq!(refused, Some(Unusable::Ahead { until: 11, position: 10 }));
            let said = refused.map(|refused| refused.to_string());
            assert_eq!(said.as_deref(), Some("the snapshots hold the input up to 11, and it was read up to 10 only"));
        }
    }
}
