//! Snapshots as they stand in the log's state, and back: the runtime's own keys beside those of the stage.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::log::{LogError, MAX_RECORD_BYTES, Offset, StatePut};
use crate::model::json;
use crate::stages::{Snapshot, Stage};

/// State keys of the runtime's own; no name has a control character.
pub(super) const ROUND_KEY: &str = "\u{1}round";
pub(super) const WIDE_KEY: &str = "\u{1}wide";
/// The version of the snapshots: written with the first of a round, so that a round that was torn says it too.
pub(super) const VERSION_KEY: &str = "\u{1}version";
/// When the first round began, in Unix milliseconds: written with that one alone, and named by every later one. Where it is gone, more is.
pub(super) const BEGAN_KEY: &str = "\u{1}began";
/// What was put aside ([`Aside`]).
pub(super) const ASIDE_KEY: &str = "\u{1}aside";
/// What the partition waited for when a person was last told of it, as long as that alert fires.
pub(super) const TOLD_KEY: &str = "\u{1}told";

/// The most bytes of a row: half of what a record of the log may have.
const MAX_ROW_BYTES: usize = MAX_RECORD_BYTES / 2;
/// Behind a key: a further part of its snapshot, by its number. No name has a control character.
const PART: char = '\u{2}';
/// What the first of several parts begins with: this, their number, and a line feed. No snapshot does, as each is JSON.
const PARTS: u8 = 2;

/// What puts a snapshot, or takes it away: several rows where one would be too large for the log, to be committed together.
pub(super) fn puts(key: String, value: Option<Vec<u8>>) -> Vec<StatePut> {
    let Some(bytes) = value.as_ref().filter(|bytes| bytes.len() > MAX_ROW_BYTES) else { return vec![StatePut { key, value }] };
    let parts: Vec<&[u8]> = bytes.chunks(MAX_ROW_BYTES).collect();
    let head = [&[PARTS], parts.len().to_string().as_bytes(), b"\n"].concat();
    let row = |(number, part): (usize, &&[u8])| match number {
        0 => StatePut { key: key.clone(), value: Some([&head, *part].concat()) },
        _ => StatePut { key: format!("{key}{PART}{number}"), value: Some(part.to_vec()) },
    };
    parts.iter().enumerate().map(row).collect()
}

/// A key and its snapshot, whole.
pub type Whole<'a> = (&'a str, Cow<'a, [u8]>);

/// Each key with its snapshot. Parts that an earlier, larger one has left are none of it.
///
/// # Errors
/// The key of which a part is missing.
pub fn whole(rows: &[(String, Vec<u8>)]) -> Result<Vec<Whole<'_>>, String> {
    let (parts, heads): (Vec<_>, Vec<_>) = rows.iter().partition(|(key, _)| key.contains(PART));
    let parts: HashMap<&str, &[u8]> = parts.into_iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())).collect();
    let join = |key: &str, head: &[u8]| {
        let end = head.iter().position(|byte| *byte == b'\n')?;
        let count: usize = std::str::from_utf8(&head[..end]).ok()?.parse().ok()?;
        let mut whole = head[end + 1..].to_vec();
        for number in 1..count {
            whole.extend_from_slice(parts.get(format!("{key}{PART}{number}").as_str())?);
        }
        Some(whole)
    };
    let mut all = Vec::with_capacity(heads.len());
    for (key, bytes) in heads {
        let whole = match bytes.strip_prefix(&[PARTS]) {
            None => Cow::Borrowed(bytes.as_slice()),
            Some(head) => Cow::Owned(join(key, head).ok_or_else(|| format!("a part of the snapshot of {key} is missing"))?),
        };
        all.push((key.as_str(), whole));
    }
    Ok(all)
}

/// Whether a key of the state is the runtime's, and of no key of the stage.
pub(super) fn is_own(key: &str) -> bool {
    [ROUND_KEY, WIDE_KEY, VERSION_KEY, BEGAN_KEY, ASIDE_KEY, TOLD_KEY].contains(&key)
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
    /// What stands under its key of when the first round began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
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
    /// When the first round began, where one did.
    pub began: Option<i64>,
    /// What is left aside when the input is read again.
    pub aside: Aside,
    /// What the partition was said to wait for, where that alert fires.
    pub told: Option<String>,
    /// How many keys have a snapshot.
    pub keys: usize,
}

/// Why snapshots are not put back: nothing is guessed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// One of them cannot be used by this version, or not at all.
    #[error("{0}")]
    Unreadable(String),
    /// Only those are there that were written lately.
    #[error("only a part of the snapshots is there")]
    Cut,
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
    let rows = whole(rows)?;
    let find = |key: &str| rows.iter().find(|(k, _)| *k == key).map(|(_, bytes)| &**bytes);
    if let Some((first, _)) = rows.first() {
        let version = find(VERSION_KEY).ok_or_else(|| format!("the snapshots, {first:?} among them, have no version"))?;
        let version: u32 = json::read_bytes(version).map_err(|error| format!("the version of the snapshots: {error}"))?;
        if version != S::VERSION {
            return Err(format!("another Loadline wrote the snapshots (they have version {version}, this one reads {})", S::VERSION).into());
        }
    }
    let round: Option<Round> = find(ROUND_KEY).map(json::read_bytes).transpose().map_err(|error| format!("the last round: {error}"))?;
    let began: Option<i64> = find(BEGAN_KEY).map(json::read_bytes).transpose().map_err(|error| format!("when the first round began: {error}"))?;
    // Each round writes what changed since the one before.
    if round.is_some_and(|round| round.began.is_some() && round.began != began) {
        return Err(Unusable::Cut);
    }
    let mut state = S::State::default();
    if let Some(wide) = find(WIDE_KEY) {
        state.restore_wide(wide)?;
    }
    state.makes_room(rows.len());
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
    let told: Option<String> = find(TOLD_KEY).map(json::read_bytes).transpose().map_err(|error| format!("what was told of the partition: {error}"))?;
    Ok(Restored { state, round, began, aside: aside.unwrap_or_default(), told, keys })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

    /// A snapshot that is too large for a row takes several; what a larger one left behind is none of the next one.
    #[test]
    fn a_large_snapshot_stands_in_several_rows() {
        let put = |rows: &mut BTreeMap<String, Vec<u8>>, bytes: usize| {
            for StatePut { key, value } in puts("fleet:f".to_owned(), Some(vec![b'x'; bytes])) {
                assert!(key.len() + value.as_ref().unwrap().len() < MAX_RECORD_BYTES, "{key}");
                rows.insert(key, value.unwrap());
            }
        };
        let read = |rows: &BTreeMap<String, Vec<u8>>| {
            let rows: Vec<(String, Vec<u8>)> = rows.clone().into_iter().collect();
            let whole = whole(&rows)?;
            Ok::<_, String>(whole.into_iter().map(|(key, bytes)| (key.to_owned(), bytes.len())).collect::<Vec<_>>())
        };
        let mut rows = BTreeMap::new();
        for bytes in [3 * MAX_RECORD_BYTES, MAX_ROW_BYTES + 1, MAX_ROW_BYTES, 10, MAX_RECORD_BYTES] {
            put(&mut rows, bytes);
            assert_eq!(read(&rows), Ok(vec![("fleet:f".to_owned(), bytes)]));
        }
        rows.remove("fleet:f\u{2}1");
        assert_eq!(read(&rows), Err("a part of the snapshot of fleet:f is missing".to_owned()));
        assert_eq!(puts("fleet:f".to_owned(), None), [StatePut { key: "fleet:f".to_owned(), value: None }]);
    }

    /// Rounds that came after the beginning was lost hold what changed since alone: a part is never taken for all.
    #[test]
    fn snapshots_without_their_beginning_are_refused() {
        let row = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
        let rows = |began: Option<&str>| {
            let rows = [row(VERSION_KEY, "1"), row(ROUND_KEY, r#"{"start":10,"replayFrom":4,"began":7}"#), row("prod/Deployment/api", r#"{"nextOffset":10}"#)];
            rows.into_iter().chain(began.map(|began| row(BEGAN_KEY, began))).collect::<Vec<_>>()
        };
        let restored = |began| restore::<Decide>(&rows(began), 10).map(|restored| restored.began);
        assert_eq!(restored(Some("7")).ok(), Some(Some(7)));
        assert_eq!((restored(None).err(), restored(Some("8")).err()), (Some(Unusable::Cut), Some(Unusable::Cut)));
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
