//! Up to when a partition has been read. Its end is asked for once and then waited for: under a steady stream it goes on faster than it can be asked for. Each partition
//! has a question of its own, so that none waits for another one.

use std::collections::BTreeMap;

use super::{LogError, Moment, Offset};

/// The questions of a member that were not answered yet.
#[derive(Default)]
pub(super) struct Questions {
    open: BTreeMap<u32, (Moment, Offset)>,
}

impl Questions {
    /// Whether this one waits for an answer.
    pub(super) fn is_open(&self, partition: u32) -> bool {
        self.open.contains_key(&partition)
    }

    /// The end of a partition, asked for after `now`.
    pub(super) fn told(&mut self, partition: u32, now: Moment, end: Offset) {
        self.open.insert(partition, (now, end));
    }

    /// The answer, where the partition has been read to that end.
    ///
    /// # Errors
    /// Those of `is_read_to`; the question stays open then.
    pub(super) fn answer(&mut self, partition: u32, is_read_to: impl FnOnce(Offset) -> Result<bool, LogError>) -> Result<Option<Moment>, LogError> {
        let Some(&(moment, end)) = self.open.get(&partition) else { return Ok(None) };
        if !is_read_to(end)? {
            return Ok(None);
        }
        self.open.remove(&partition);
        Ok(Some(moment))
    }

    /// The ends that were asked for at `then` or before, and have not been reached.
    #[cfg(feature = "kafka")]
    pub(super) fn open_since(&self, then: crate::model::Timestamp) -> impl Iterator<Item = (u32, Offset)> {
        self.open.iter().filter(move |(_, (moment, _))| moment.at <= then).map(|(partition, (_, end))| (*partition, *end))
    }

    /// The partition is this member's no more.
    pub(super) fn forget(&mut self, partition: u32) {
        self.open.remove(&partition);
    }
}
