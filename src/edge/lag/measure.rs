//! From what was seen of a group to its lag. Pure: facts and a moment in, a figure or the reason why there is none out.
//!
//! - A partition's lag is what its group has still to read of what is committed: from where it reads on to the last stable offset. Where that is little, the
//!   records are counted ([`Fold::tails`]), since markers of transactions and what was aborted have offsets and are no work; beyond that offsets are taken, which is never less.
//! - Unknown is never zero: one partition that cannot be told leaves the whole without a figure ([`Unknown`]).
//! - A partition that is not read on while the others are asks for no more replicas, since only one member can read it: it counts as 1, so that what is left there is never taken for
//!   nothing. Where none is read on, all count: then it is the group that stands, and what it lacks may be replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::Offset;
use crate::log::consumption::{Looked, Place, Standing, Tail, Unseen};

#[cfg(test)]
mod tests;

/// So many offsets or fewer are looked at whether they hold records: beyond it a marker more or less changes no count of replicas, and reading them would cost more than it tells.
const TAIL: u64 = 100;

/// So many partitions are named; the rest is counted.
const NAMED: usize = 5;

/// Where a group begins to read a partition of which it has committed nothing, or whose position is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begins {
    /// Nobody says: such a partition is an error.
    #[default]
    Unknown,
    /// At the earliest record that is there.
    Earliest,
    /// At the end, as it was when the partition was first seen so.
    Latest,
}

/// How a group is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The group.
    pub group: String,
    /// Where it begins.
    pub begins: Begins,
    /// A partition that is not read on for so long, and has something to read, is stuck; `None`: none ever is.
    pub stuck_after: Option<Duration>,
    /// What one replica is to have: the figure asks for no more replicas than there are partitions with something to read.
    pub per_replica: Option<u64>,
}

/// What a group has to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The figure for a policy.
    pub value: u64,
    /// Of each partition, all of it.
    pub partitions: BTreeMap<Place, u64>,
    /// Partitions that are not read on.
    pub stuck: BTreeMap<Place, Stuck>,
}

/// A partition that is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// Where its group stands.
    pub at: Offset,
    /// For how long, as far as it was seen.
    pub since: Duration,
    /// Whether others were read on meanwhile: then it counts as 1.
    pub is_alone: bool,
}

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Nothing was seen.
    #[error("{0}")]
    Unseen(#[from] Unseen),
    /// A topic is not there.
    #[error("there is no topic {0}; create it, or correct `topics`")]
    NoTopic(String),
    /// The group is not there, or this user may not see it.
    #[error(
        "there is no group {0}, or this user may not see it: it is there once a member has joined, and is forgotten with its positions; correct `group`, or start a member"
    )]
    NoGroup(String),
    /// The group has committed nothing for partitions that hold something.
    #[error("group {group} has committed nothing for {}; say where it begins there (`begins: earliest` or `latest`, as its auto.offset.reset), or let it commit", named(.places))]
    NotCommitted {
        /// The group.
        group: String,
        /// The partitions.
        places: Vec<Place>,
    },
    /// What the group was to read next is gone: retention was faster.
    #[error("group {group} is to read on at {}: what lies between is gone, by retention or since the topic was made anew; say where it begins then (`begins: earliest` or `latest`, as its auto.offset.reset), or set its positions anew", overtaken(.places))]
    Overtaken {
        /// The group.
        group: String,
        /// The partitions, each with where the group stands and what is the earliest there.
        places: Vec<(Place, Offset, Offset)>,
    },
    /// The group stands behind the end: the topic was made anew, or lost records.
    #[error("group {group} stands behind the end of {}: the topic was made anew or has lost records; set the group's positions anew (kafka-consumer-groups.sh --reset-offsets)", behind(.places))]
    BeyondEnd {
        /// The group.
        group: String,
        /// The partitions, each with where the group stands and the end.
        places: Vec<(Place, Offset, Offset)>,
    },
}

impl Unknown {
    /// What stays the same while the same thing is wrong, whatever moves meanwhile.
    pub fn kind(&self) -> String {
        let names = |places: &[(Place, Offset, Offset)]| named(&places.iter().map(|(place, ..)| place.clone()).collect::<Vec<_>>());
        match self {
            Unknown::Unseen(Unseen::Unanswered(_)) => "unanswered".to_owned(),
            Unknown::Unseen(Unseen::Refused(_)) => "refused".to_owned(),
            Unknown::NoTopic(topic) => format!("no topic {topic}"),
            Unknown::NoGroup(_) => "no group".to_owned(),
            Unknown::NotCommitted { places, .. } => format!("not committed: {}", named(places)),
            Unknown::Overtaken { places, .. } => format!("overtaken: {}", names(places)),
            Unknown::BeyondEnd { places, .. } => format!("beyond the end: {}", names(places)),
        }
    }
}

/// The first partitions, and how many more.
pub fn named<T: std::fmt::Display>(places: &[T]) -> String {
    let mut words: Vec<String> = places.iter().take(NAMED).map(ToString::to_string).collect();
    if places.len() > NAMED {
        words.push(format!("{} more", places.len() - NAMED));
    }
    words.join(", ")
}

fn overtaken(places: &[(Place, Offset, Offset)]) -> String {
    named(&places.iter().map(|(place, at, low)| format!("{at} of {place} (the earliest is {low})")).collect::<Vec<_>>())
}

fn behind(places: &[(Place, Offset, Offset)]) -> String {
    named(&places.iter().map(|(place, at, high)| format!("{place} ({at}, the end is {high})")).collect::<Vec<_>>())
}

/// What is remembered of a group from one look to the next.
#[derive(Debug, Default)]
pub struct Fold(BTreeMap<Place, Memory>);

/// What is remembered of a partition.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// Where the group stood.
    committed: Option<Offset>,
    /// When it was last seen to have gone on.
    advanced: Option<Duration>,
    /// Since when it has something to read and has not gone on.
    still: Option<Duration>,
    /// Where the end was when it was first seen that the group has no place here.
    origin: Option<Offset>,
    /// The last tail that was read, with its records.
    tail: Option<(Offset, Offset, u64)>,
}

/// Why a partition has no lag.
#[derive(Clone, Copy)]
enum Fault {
    NotCommitted,
    Overtaken(Offset),
    BeyondEnd(Offset),
}

impl Memory {
    /// From where what is there is still to be read.
    fn begin(&self, begins: Begins, standing: Standing) -> Result<Offset, Fault> {
        let Standing { committed, low, high, stable } = standing;
        let begun = |fault: Fault| match begins {
            Begins::Unknown => Err(fault),
            Begins::Earliest => Ok(low),
            Begins::Latest => Ok(self.origin.unwrap_or(stable).max(low)),
        };
        match committed {
            Some(at) if at > high => Err(Fault::BeyondEnd(at)),
            // What went was read before, and held no record.
            Some(at) if at < low && self.tail.is_some_and(|(from, to, records)| from == at && low <= to && records == 0) => Ok(low),
            Some(at) if at < low => begun(Fault::Overtaken(at)),
            Some(at) => Ok(at),
            // There is nothing to read, wherever it begins.
            None if low >= stable => Ok(stable),
            None => begun(Fault::NotCommitted),
        }
    }

    /// How much there is to read.
    fn lag(&self, from: Offset, to: Offset) -> u64 {
        let known = self.tail.filter(|(of, end, _)| *of == from && *end == to);
        known.map_or(to.saturating_sub(from), |(_, _, records)| records)
    }

    /// Whether the partition has stood still, and since when.
    fn note(&mut self, standing: Standing, lag: u64, moment: Duration) {
        // Set back by hand is a new beginning, too.
        let moved = self.committed != standing.committed;
        if self.committed < standing.committed && self.committed.is_some() {
            self.advanced = Some(moment);
        }
        self.committed = standing.committed;
        self.still = if lag == 0 { None } else { self.still.filter(|_| !moved).or(Some(moment)) };
    }
}

impl Fold {
    /// What is to be read before [`Fold::measure`]: of what was looked at, the parts that are small and not known yet.
    pub fn tails(&mut self, rules: &Rules, looked: &Looked) -> Vec<Tail> {
        let mut tails = Vec::new();
        for (place, standing) in looked.places() {
            let memory = self.0.entry(place.clone()).or_default();
            let stands = standing.committed.is_some_and(|at| (standing.low..=standing.high).contains(&at));
            memory.origin = if stands { None } else { memory.origin.or(Some(standing.stable)) };
            let Ok(from) = memory.begin(rules.begins, standing) else { continue };
            let to = standing.stable;
            let is_known = memory.tail.is_some_and(|(of, end, _)| of == from && end == to);
            if from < to && to - from <= TAIL && !is_known {
                tails.push(Tail { place, from, to });
            }
        }
        tails
    }

    /// The lag, of what was looked at at this moment and how many records the tails hold, those that were read.
    ///
    /// # Errors
    /// [`Unknown`] where a partition cannot be told.
    pub fn measure(&mut self, rules: &Rules, looked: &Looked, tails: &[Tail], records: &BTreeMap<Place, u64>, moment: Duration) -> Result<Lag, Unknown> {
        for tail in tails {
            if let (Some(records), Some(memory)) = (records.get(&tail.place), self.0.get_mut(&tail.place)) {
                memory.tail = Some((tail.from, tail.to, *records));
            }
        }
        if let Some(topic) = looked.topics.iter().find_map(|(topic, found)| found.is_none().then_some(topic)) {
            return Err(Unknown::NoTopic(topic.clone()));
        }
        if !looked.is_group {
            return Err(Unknown::NoGroup(rules.group.clone()));
        }
        let standings: BTreeMap<Place, Standing> = looked.places().collect();
        self.0.retain(|place, _| standings.contains_key(place));
        let (mut lags, mut faults) = (BTreeMap::new(), Faults::default());
        for (place, standing) in &standings {
            let memory = self.0.entry(place.clone()).or_default();
            match memory.begin(rules.begins, *standing) {
                Ok(from) => {
                    let lag = memory.lag(from, standing.stable);
                    memory.note(*standing, lag, moment);
                    lags.insert(place.clone(), lag);
                }
                Err(fault) => faults.add(place.clone(), fault, *standing),
            }
        }
        faults.first(&rules.group)?;
        let stuck = self.stuck(rules, &standings, moment);
        let counted: u64 = lags.iter().map(|(place, lag)| if stuck.get(place).is_some_and(|stuck| stuck.is_alone) { (*lag).min(1) } else { *lag }).sum();
        let value = match rules.per_replica {
            Some(each) => counted.min(each.saturating_mul(lags.values().filter(|lag| **lag > 0).count() as u64)),
            None => counted,
        };
        Ok(Lag { value, partitions: lags, stuck })
    }

    /// The partitions that are not read on.
    fn stuck(&self, rules: &Rules, standings: &BTreeMap<Place, Standing>, moment: Duration) -> BTreeMap<Place, Stuck> {
        let Some(after) = rules.stuck_after else { return BTreeMap::new() };
        // Its own is before it stood still.
        let advanced = self.0.values().filter_map(|memory| memory.advanced).max();
        let mut stuck = BTreeMap::new();
        for (place, memory) in &self.0 {
            let (Some(still), Some(standing)) = (memory.still, standings.get(place)) else { continue };
            let since = moment.saturating_sub(still);
            if since < after {
                continue;
            }
            // Others that stopped at about the same time, as where all members ended, were not read on meanwhile.
            let is_alone = advanced.is_some_and(|advanced| advanced >= still + after);
            stuck.insert(place.clone(), Stuck { at: standing.committed.unwrap_or(standing.low), since, is_alone });
        }
        stuck
    }
}

/// The partitions that cannot be told, by why.
#[derive(Default)]
struct Faults {
    not_committed: Vec<Place>,
    overtaken: Vec<(Place, Offset, Offset)>,
    beyond_end: Vec<(Place, Offset, Offset)>,
}

impl Faults {
    fn add(&mut self, place: Place, fault: Fault, standing: Standing) {
        match fault {
            Fault::NotCommitted => self.not_committed.push(place),
            Fault::Overtaken(at) => self.overtaken.push((place, at, standing.low)),
            Fault::BeyondEnd(at) => self.beyond_end.push((place, at, standing.high)),
        }
    }

    /// The worst of it.
    fn first(self, group: &str) -> Result<(), Unknown> {
        let group = group.to_owned();
        let Faults { not_committed, overtaken, beyond_end } = self;
        if !beyond_end.is_empty() {
            return Err(Unknown::BeyondEnd { group, places: beyond_end });
        }
        if !overtaken.is_empty() {
            return Err(Unknown::Overtaken { group, places: overtaken });
        }
        if !not_committed.is_empty() {
            return Err(Unknown::NotCommitted { group, places: not_committed });
        }
        Ok(())
    }
}
