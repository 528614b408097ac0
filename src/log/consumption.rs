//! What a consumer group has read of topics, as its cluster tells it: facts, from which the group's lag follows.
//!
//! The group is somebody else's, and so may be the cluster. Looking changes nothing there: nothing is joined or committed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Offset;

/// A partition of a topic of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// How a partition stands, and how far the group has read it. All offsets are those of the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where the group reads on; `None` where it has committed nothing.
    pub committed: Option<Offset>,
    /// The earliest that is still there.
    pub low: Offset,
    /// The end.
    pub high: Offset,
    /// The end of what is committed: at most `high`, from which an open transaction holds it back.
    pub stable: Offset,
}

/// What was seen of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// Each topic with its partitions; `None` where it is not there.
    pub topics: BTreeMap<String, Option<BTreeMap<u32, Standing>>>,
    /// Whether the cluster knows the group.
    pub is_group: bool,
}

impl Looked {
    /// All partitions, in order.
    pub fn places(&self) -> impl Iterator<Item = (Place, Standing)> {
        let there = self.topics.iter().filter_map(|(topic, partitions)| Some((topic, partitions.as_ref()?)));
        there.flat_map(|(topic, partitions)| partitions.iter().map(|(partition, standing)| (Place { topic: topic.clone(), partition: *partition }, *standing)))
    }
}

/// A part of a partition of which it is to be seen how many records it holds: offsets may be markers of transactions, aborted, or compacted away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The partition.
    pub place: Place,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last one.
    pub to: Offset,
}

/// Why nothing was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// No answer in time; it may come later.
    #[error("{0}")]
    Unanswered(String),
    /// The cluster refuses who asks: that needs a person.
    #[error("{0}")]
    Refused(String),
}

/// Looks at a group.
pub trait Consumption: Send {
    /// How far the group has read, of all its topics.
    ///
    /// # Errors
    /// [`Unseen`] where any of it was not told within this time: a part is never taken for the whole.
    fn look(&mut self, within: Duration) -> Result<Looked, Unseen>;

    /// How many records each of these parts holds that are committed. What could not be read within this time is left out.
    ///
    /// # Errors
    /// [`Unseen::Refused`] where they may not be read.
    fn records(&mut self, tails: &[Tail], within: Duration) -> Result<BTreeMap<Place, u64>, Unseen>;
}
