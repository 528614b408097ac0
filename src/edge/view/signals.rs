//! A target's own signals, read back from the log: what a decision was made of.
//!
//! Blocks; it runs on a thread that may wait.

use super::history::{BUDGET, SLICE};
use crate::log::{Log, LogError, Offset, RawRecord, Topic, partition_of};
use crate::model::{Message, Signal, TargetId, Timestamp};
use crate::runtime::clock::Stopwatch;
use crate::wire;

/// Signals of one target, in their order.
#[derive(Debug, Default)]
pub struct SignalsFound {
    /// Each with its place and when the log appended it.
    pub signals: Vec<(Offset, Timestamp, Signal)>,
    /// Where to go on towards older ones; `None` where the log begins.
    pub before: Option<Offset>,
}

/// Where to begin, going backwards.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// With what was appended at this time or before.
    At(Timestamp),
    /// Before this offset.
    Before(Offset),
}

/// The last `limit` signals of a target itself (marks and ticks concern its whole partition and are left out), the newest last.
/// After [`BUDGET`] it ends with what it found.
///
/// # Errors
/// As [`Log::scan`].
pub fn signals_before(log: &dyn Log, target: &TargetId, limit: usize, from: From) -> Result<SignalsFound, LogError> {
    let clock = Stopwatch::start();
    let partition = partition_of(target.as_str(), log.partitions(Topic::Signals));
    let range = log.range(Topic::Signals, partition)?;
    let mut next = match from {
        From::At(at) => log.first_after(Topic::Signals, partition, at)?,
        From::Before(offset) => offset.min(range.end),
    };
    let mut backwards = Vec::new();
    while next > range.start && clock.elapsed() < BUDGET {
        let (to, start) = (next, next.saturating_sub(SLICE as u64).max(range.start));
        let slice = log.scan(Topic::Signals, partition, start, usize::try_from(to - start).unwrap_or(SLICE))?;
        for record in slice.into_iter().filter(|r| r.offset < to).rev() {
            let offset = record.offset;
            if let Some(signal) = signal_of(target, &record) {
                if backwards.len() == limit {
                    backwards.reverse();
                    return Ok(SignalsFound { signals: backwards, before: Some(offset + 1) });
                }
                backwards.push((offset, record.at, signal));
            }
        }
        next = start;
    }
    backwards.reverse();
    Ok(SignalsFound { signals: backwards, before: (next > range.start).then_some(next) })
}

fn signal_of(target: &TargetId, record: &RawRecord) -> Option<Signal> {
    if record.key.as_deref() != Some(target.as_str()) {
        return None;
    }
    match wire::decode(Topic::Signals, &record.value) {
        Ok(Message::Signal(signal)) => Some(signal),
        _ => None,
    }
}
