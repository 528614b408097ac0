//! Decisions older than the memory, read back from the audit topic.
//!
//! Everything here blocks; it runs on a thread that may wait.

use std::time::Duration;

use super::stories::{Stories, Until};
use crate::edge::api::{Dated, Gone, Story, target_path};
use crate::log::{LogError, RawRecord, ReadOnly, Topic, partition_of};
use crate::model::{Audit, ManualChange, Message, TargetId, Timestamp};
use crate::runtime::clock::Stopwatch;
use crate::wire;

/// Records read at once: about half a megabyte of decisions.
pub(super) const SLICE: usize = 512;

/// How long the search may take: a person waits. At 0.7 million records a second it covers every target
/// that was decided for in the last hour, as each is at least once.
pub(super) const BUDGET: Duration = Duration::from_secs(3);

/// How many records after the newest decision are read for what came of it.
const AFTERMATH: usize = 4 * SLICE;

/// The last `limit` decisions of a target that were made by `until`, the newest last, read from the log.
///
/// # Errors
/// As [`ReadOnly::scan`].
pub fn older(log: &(impl ReadOnly + ?Sized), target: &TargetId, limit: usize, until: Until) -> Result<Vec<Story>, LogError> {
    Ok(read_back(log, target, limit, until)?.newest(limit, Some(until)).unwrap_or_default())
}

/// The last `limit` decisions of a target, the newest last, and what people set by hand since, read from the log.
///
/// # Errors
/// As [`ReadOnly::scan`].
pub fn latest(log: &(impl ReadOnly + ?Sized), target: &TargetId, limit: usize, now: Timestamp) -> Result<(Vec<Story>, Vec<Dated<ManualChange>>), LogError> {
    let stories = read_back(log, target, limit, Until::At(now))?;
    Ok((stories.newest(limit, None).unwrap_or_default(), stories.since().to_vec()))
}

/// The path of the page before the one that begins with `first`. The first decision about a target is its first evaluation.
pub fn next_page(target: &TargetId, first: Option<&Story>, limit: usize) -> Option<String> {
    let first = first.map(|story| &story.decision).filter(|first| first.sequence > 1)?;
    Some(format!("{}/decisions?limit={limit}&before={}.{}", target_path(target), first.at.as_millis(), first.sequence))
}

fn read_back(log: &(impl ReadOnly + ?Sized), target: &TargetId, limit: usize, until: Until) -> Result<Stories, LogError> {
    let clock = Stopwatch::start();
    let partition = partition_of(target.as_str(), log.partitions(Topic::Audit)?);
    // A decision is appended at its time or soon after: what was appended a little later may be of `until`.
    let end = log.first_after(Topic::Audit, partition, until.at() + Duration::from_secs(60))?;
    let earliest = log.range(Topic::Audit, partition)?.start;
    let mut backwards: Vec<(Timestamp, Audit)> = Vec::new();
    let mut decisions = 0;
    let mut from = end;
    while from > earliest && decisions < limit && clock.elapsed() < BUDGET {
        let to = from;
        from = to.saturating_sub(SLICE as u64).max(earliest);
        let slice = log.scan(Topic::Audit, partition, from, usize::try_from(to - from).unwrap_or(SLICE))?;
        for record in slice.into_iter().filter(|r| r.offset < to).rev() {
            if let Some(entry) = entry_of(target, &record) {
                decisions += usize::from(matches!(&entry.1, Audit::Decision(d) if until.holds(d)));
                backwards.push(entry);
            }
        }
    }
    let mut stories = Stories::default();
    let aftermath = log.scan(Topic::Audit, partition, end, AFTERMATH)?;
    let forwards = aftermath.iter().filter_map(|record| entry_of(target, record));
    for (at, audit) in backwards.into_iter().rev().chain(forwards) {
        match audit {
            Audit::Decision(decision) => stories.decision(decision, usize::MAX),
            Audit::Grant(grant) => stories.grant(at, grant),
            Audit::Command(command) => stories.command(at, command),
            Audit::Outcome(outcome) => stories.outcome(at, outcome),
            Audit::ByHand(change) => stories.by_hand(at, change),
            Audit::Policy(_) | Audit::Rejected(_) => {}
        }
    }
    Ok(stories)
}

/// What retention has removed of the partition in which a target's decisions stand; `None` where nothing is gone.
///
/// # Errors
/// As [`ReadOnly::scan`].
pub fn gone(log: &(impl ReadOnly + ?Sized), target: &TargetId) -> Result<Option<Gone>, LogError> {
    let partition = partition_of(target.as_str(), log.partitions(Topic::Audit)?);
    let to = log.range(Topic::Audit, partition)?.start;
    if to == 0 {
        return Ok(None);
    }
    let kept_since = log.scan(Topic::Audit, partition, to, 1)?.first().map(|record| record.at);
    Ok(Some(Gone { partition, to, kept_since }))
}

/// What a record says, where it is of the target. One that cannot be read is no decision that could be told.
fn entry_of(target: &TargetId, record: &RawRecord) -> Option<(Timestamp, Audit)> {
    if record.key.as_deref() != Some(target.as_str()) {
        return None;
    }
    match wire::decode(Topic::Audit, &record.value) {
        Ok(Message::Audit(audit)) => Some((record.at, audit)),
        _ => None,
    }
}
