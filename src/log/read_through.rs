//! Up to when a partition has been read. Its end is asked for once and then waited for: under a steady stream it goes on faster than it can be asked for. Each partition
//! has a question of its own, so that none waits for another one. What was answered a moment ago is not asked again, unless somebody waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{LogError, Moment, Offset};

/// For so long an answer does for who needs none as of now: to ask takes two answers of a broker, and a stage that is fed record by record comes by a thousand times a second.
const RECENT: Duration = Duration::from_millis(100);

/// The questions of a member that were not answered yet, and the last answers.
#[derive(Default)]
pub(super) struct Questions {
    open: BTreeMap<u32, (Moment, Offset)>,
    answered: BTreeMap<u32, Moment>,
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
        self.answered.insert(partition, moment);
        Ok(Some(moment))
    }

    /// The last answer, where that does: none is asked for, and it is as of a moment ago. What had been read by then has been read.
    pub(super) fn known(&self, partition: u32, now: Moment) -> Option<Moment> {
        let is_recent = |moment: &&Moment| moment.at <= now.at && now.at < moment.at + RECENT;
        self.answered.get(&partition).filter(|_| !self.is_open(partition)).filter(is_recent).copied()
    }

    /// The ends that were asked for at `then` or before, and have not been reached.
    #[cfg(feature = "kafka")]
    pub(super) fn open_since(&self, then: crate::model::Timestamp) -> impl Iterator<Item = (u32, Offset)> {
        self.open.iter().filter(move |(_, (moment, _))| moment.at <= then).map(|(partition, (_, end))| (*partition, *end))
    }

    /// The partition is this member's no more.
    pub(super) fn forget(&mut self, partition: u32) {
        self.open.remove(&partition);
        self.answered.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn moment(ms: i64) -> Moment {
        let at = Timestamp::from_millis(ms);
        Moment { at, log: at }
    }

    /// An answer does for a moment, as of when it was asked for; not while another one is waited for, not where the clock was set back behind it, and not of a partition
    /// that went.
    #[test]
    fn an_answer_does_for_a_moment() {
        let mut questions = Questions::default();
        let answered = |questions: &mut Questions| {
            questions.told(3, moment(1_000), 7);
            assert_eq!(questions.answer(3, |_| Ok(false)).unwrap(), None);
            assert_eq!(questions.known(3, moment(1_000)), None, "it is waited for");
            assert_eq!(questions.answer(3, |end| Ok(end == 7)).unwrap(), Some(moment(1_000)));
        };
        assert_eq!(questions.known(3, moment(1_000)), None);
        answered(&mut questions);
        for (now, known) in [(999, false), (1_000, true), (1_099, true), (1_100, false)] {
            assert_eq!(questions.known(3, moment(now)), known.then(|| moment(1_000)), "at {now}");
        }
        assert_eq!(questions.known(4, moment(1_000)), None);
        answered(&mut questions);
        questions.forget(3);
        assert_eq!(questions.known(3, moment(1_000)), None);
    }
}
