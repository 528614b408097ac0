//! How far behind each stage is, and who has its partitions: a thread that asks the log now and then. It is a thread of its own since a cluster may let a
//! question wait, and nothing else of the view waits for that.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::View;
use super::tail::Stop;
use crate::edge::api::{Hidden, Lag, Owner};
use crate::log::{Log, LogError, Offset, Owners, Topic};
use crate::model::Timestamp;
use crate::runtime::clock::{Clock, Stopwatch};
use crate::runtime::events::{LogUnreadable, Repeated};

/// A stage whose lag is shown: its group and its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// The group: the stage's name.
    pub group: &'static str,
    /// What it consumes.
    pub input: Topic,
    /// How long it lets records wait: aggregate until a pane is complete.
    pub holds: Duration,
}

/// How long a record may wait beyond that before it is late: longer than it takes until a process that was killed is replaced.
const LATE: Duration = Duration::from_secs(10);

/// How long it is taken for known who has which partition.
const OWNERS_FOR: Duration = Duration::from_secs(5);

/// How often it is looked where something waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often where nothing does, but for a moment: long before what waits meanwhile is late.
const LOOK_IDLE: Duration = Duration::from_secs(3);

/// So long all waits at times.
const MOMENT: Duration = Duration::from_secs(1);

/// What the log's lines call it.
const NAME: &str = "view-lag";

/// Looks how far behind the stages are.
pub(super) struct Lags {
    stages: Vec<Followed>,
    view: Arc<View>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    stop: Arc<Stop>,
}

impl Lags {
    pub(super) fn new(stages: &[Followed], view: Arc<View>, log: Arc<dyn Log>, clock: Arc<dyn Clock>, stop: Arc<Stop>) -> Self {
        Lags { stages: stages.to_vec(), view, log, clock, stop }
    }

    /// Looks until it is stopped.
    pub(super) fn run(&self) {
        let (mut known, unreadable) = (Known::default(), Repeated::new());
        self.view.looks_at_lag(self.stages.iter().map(|stage| stage.group).collect(), self.clock.now());
        while !self.stop.is_set() {
            // What is known of a stage is shown, whatever is not known of another.
            let (mut unseen, mut waits) = (None, false);
            for stage in &self.stages {
                let looked = self.look(stage, &mut known);
                if self.stop.is_set() {
                    return;
                }
                match looked {
                    Ok(lag) => {
                        let now = self.clock.now();
                        let long = |lag: &Lag| lag.waiting_since.is_none_or(|since| now.since(since) > stage.holds + MOMENT);
                        waits |= lag.iter().any(|lag| lag.hidden.is_some() || lag.records > 0 && long(lag));
                        self.view.set_lag(stage.group, lag, now);
                    }
                    Err(error) => drop(unseen.get_or_insert(error.to_string())),
                }
            }
            match &unseen {
                None => LogUnreadable::over(NAME, &unreadable),
                Some(reason) => LogUnreadable { reader: NAME, reason }.emit(&unreadable),
            }
            let rest = if waits || unseen.is_some() { LOOK_EVERY } else { LOOK_IDLE };
            self.view.lag_not_seen(unseen);
            self.stop.rest(rest);
        }
    }

    fn look(&self, stage: &Followed, Known { owners, open, nothing }: &mut Known) -> Result<Vec<Lag>, LogError> {
        let mut all = Vec::new();
        let owners = owners.of(stage, self.log.as_ref());
        let mut hidden = open.of(stage.input, self.log.as_ref(), self.clock.now());
        let positions = self.log.all_committed(stage.group, stage.input)?;
        for ((partition, range), position) in (0..).zip(self.log.ranges(stage.input)?).zip(positions) {
            let left = position.unwrap_or(range.start).max(range.start)..range.end;
            let nothing = nothing.entry((stage.group, partition)).or_default();
            // A record that cannot be told, as its schema is not known or nobody leads its partition, waits as any other: since when is not known.
            let next = if left.is_empty() || left == *nothing {
                None
            } else {
                self.log.scan(stage.input, partition, left.start, 1).map(|records| records.first().map(|record| record.at)).transpose()
            };
            let records = if next.is_none() { 0 } else { left.end - left.start };
            if next.is_none() {
                *nothing = left;
            }
            let since = next.and_then(Result::ok);
            let owner = owners.map(|owners| owners.get(&partition).map_or(Owner::Nobody, |member| Owner::Member(member.clone())));
            let late = since.is_some_and(|since| self.clock.now().since(since) > stage.holds + LATE);
            let hidden = hidden.remove(&partition);
            all.push(Lag {
                stage: stage.group.to_owned(),
                topic: stage.input.name().to_owned(),
                partition,
                records,
                waiting_since: since,
                late,
                owner,
                hidden,
            });
        }
        Ok(all)
    }
}

/// What was seen when it was looked last.
#[derive(Default)]
struct Known {
    owners: KnownOwners,
    open: Open,
    /// Between a stage's position and the end of its input, where nothing was to be read there: a log may have markers that are no records.
    nothing: BTreeMap<(&'static str, u32), Range<Offset>>,
}

/// Transactions of others that were open when it was looked last, and since when.
#[derive(Default)]
struct Open {
    since: BTreeMap<(Topic, u32), (Offset, Timestamp)>,
}

impl Open {
    /// Those of a topic that others write to, by partition.
    fn of(&mut self, topic: Topic, log: &dyn Log, now: Timestamp) -> BTreeMap<u32, Hidden> {
        if !matches!(topic, Topic::Metrics | Topic::Control) {
            return BTreeMap::new();
        }
        // Where it cannot be told, nothing is said of it.
        let hidden = log.hidden(topic).unwrap_or_default();
        self.since.retain(|(of, partition), (from, _)| *of != topic || hidden.get(partition).is_some_and(|hidden| hidden.start == *from));
        let since = |(partition, hidden): (u32, std::ops::Range<Offset>)| {
            let (_, since) = *self.since.entry((topic, partition)).or_insert((hidden.start, now));
            (partition, Hidden { from: hidden.start, offsets: hidden.end - hidden.start, since })
        };
        hidden.into_iter().map(since).collect()
    }
}

/// Who has which partition, by stage, asked now and then: it changes where a process comes or goes.
#[derive(Default)]
struct KnownOwners {
    known: BTreeMap<&'static str, (Stopwatch, Option<Owners>)>,
}

impl KnownOwners {
    /// Those of a stage's input; `None` where it is not known, or there is only one process.
    fn of(&mut self, stage: &Followed, log: &dyn Log) -> Option<&Owners> {
        if self.known.get(stage.group).is_none_or(|(asked, _)| asked.elapsed() >= OWNERS_FOR) {
            let owners = log.owners(stage.group, stage.input).ok().flatten();
            self.known.insert(stage.group, (Stopwatch::start(), owners));
        }
        self.known.get(stage.group)?.1.as_ref()
    }
}
