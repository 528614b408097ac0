//! A member of a group: what it owns, and what it has read ahead; what the group gives and takes is in [`assignment`], its commits are in [`commits`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message as _;
use rdkafka::{Offset as At, TopicPartitionList};

use self::assignment::{Changes, leave};
use self::hidden::Hidden;
use super::apart::Apart;
use super::predecessor::Predecessor;
use super::reach::Reach;
use super::transaction::{Beginning, Lasting, Transactions};
use super::{SLICE, Shared, client, errors, reader};
use crate::log::read_through::Questions;
use crate::log::{Batch, Lacking, LogError, Membership, Moment, Offset, Polled, RawRecord, Session, Topic, Waker};
use crate::runtime::clock::Stopwatch;

mod assignment;
mod commits;
mod hidden;

/// So many bytes, with those that each record takes besides, are taken from the client before they are asked for: it has them in one queue, in which one partition could
/// starve another. Of more of them the first have left the processor's cache when they are asked for.
const AHEAD_BYTES: usize = 256 * 1024;

/// So long a commit holds up those of other partitions: it takes some milliseconds, and several hundred where a broker is replaced.
const SOON: Duration = Duration::from_millis(500);
/// Where one takes longer already.
const SOONER: Duration = Duration::from_millis(200);

/// How long it is waited at a time for what the group says, or until a partition that it gave can be opened.
const HEARS: Duration = Duration::from_millis(50);

/// How long a broker may take to tell where partitions begin and end: nothing is polled meanwhile.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// A partition of which that could not be told is left alone for so long, twice as long each time, so that it holds up no other.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LAST: Duration = Duration::from_secs(10);

/// A member of a group.
pub(super) struct Member {
    shared: Arc<Shared>,
    membership: Membership,
    consumer: Arc<BaseConsumer<Changes>>,
    reach: Reach,
    /// What is waited for before the group is joined, until it is.
    predecessor: Option<Predecessor>,
    owned: BTreeMap<u32, Owned>,
    /// The partition to hand out first.
    first: u32,
    /// What changed in the group during a commit, for the next poll.
    later: Vec<Polled>,
    woken: Arc<AtomicBool>,
    /// When it was polled last, the client had no more.
    is_drained: bool,
    /// Partitions that may have been read at a place that is gone, until it is known where each goes on.
    overtaken: BTreeMap<u32, Option<LeftAlone>>,
    /// Partitions that the group gave and that could not be opened.
    unopened: BTreeMap<u32, LeftAlone>,
    /// Their producers that are being made.
    beginnings: BTreeMap<u32, Beginning>,
    questions: Questions,
    hidden: Hidden,
    /// Another one took its place: the client says so once.
    is_replaced: bool,
    /// The topic has more partitions than there were at the start.
    has_outgrown: bool,
}

/// Something that failed for now, and when it is tried again.
#[derive(Clone, Copy)]
struct LeftAlone {
    since: Stopwatch,
    pause: Duration,
}

impl LeftAlone {
    /// After another failure.
    fn again(before: Option<LeftAlone>) -> LeftAlone {
        LeftAlone { since: Stopwatch::start(), pause: before.map_or(AGAIN_FIRST, |before| (before.pause * 2).min(AGAIN_LAST)) }
    }

    fn is_over(self) -> bool {
        self.since.elapsed() >= self.pause
    }
}

/// A partition that is owned.
struct Owned {
    /// Where the client reads on.
    next: Offset,
    /// What was read and not handed out.
    ahead: VecDeque<Item>,
    /// How many bytes that is.
    bytes: usize,
    /// Where its end could not be told.
    untold: Option<LeftAlone>,
    /// What the first of it waits for, until it is known how to read it ([`super::LookUp`]); the client fetches no more of the partition meanwhile.
    waits: Option<Lacking>,
    /// Nothing of it is handed out.
    held_back: bool,
    /// Its commit that goes on by itself.
    lasting: Option<Lasting>,
    /// Of its producer: something came by it where it committed something.
    reach: Reach,
    /// The producer that is being made in the place of a dead one.
    reviving: Option<Beginning>,
    /// `None` where it is dead: before another one is made it must be sure that the partition is still this member's.
    transactions: Option<Transactions>,
}

impl Owned {
    /// Whether the client is to fetch of it.
    fn is_fetched(&self) -> bool {
        self.waits.is_none() && !self.held_back
    }

    /// Since when something of its commit takes long.
    fn late_since(&self) -> Option<Stopwatch> {
        self.lasting.as_ref().map(Lasting::began).or_else(|| self.reviving.as_ref().map(Beginning::began))
    }

    /// The offset from which on nothing was handed out.
    fn unread_from(&self) -> Offset {
        match self.ahead.front() {
            Some(Item::Record(record)) => record.offset,
            Some(Item::Gap(from, _)) => *from,
            None => self.next,
        }
    }

    /// Whether something is to be handed out.
    fn has_more(&self) -> bool {
        !self.ahead.is_empty() && !self.held_back
    }
}

enum Item {
    Record(RawRecord),
    Gap(Offset, Offset),
}

impl Member {
    pub(super) fn join(shared: Arc<Shared>, membership: Membership) -> Result<Self, LogError> {
        let consumer = client_of(&shared, &membership)?;
        let mut member = Member {
            shared,
            membership,
            consumer,
            reach: Reach::new(),
            predecessor: None,
            owned: BTreeMap::new(),
            first: 0,
            later: Vec::new(),
            woken: Arc::default(),
            is_drained: false,
            overtaken: BTreeMap::new(),
            unopened: BTreeMap::new(),
            beginnings: BTreeMap::new(),
            questions: Questions::default(),
            hidden: Hidden::default(),
            is_replaced: false,
            has_outgrown: false,
        };
        member.begin_to_join()?;
        Ok(member)
    }

    fn begin_to_join(&mut self) -> Result<(), LogError> {
        if self.shared.options.static_members {
            // It takes the place of the one before at once.
            return self.subscribe();
        }
        self.predecessor = Some(Predecessor::new(&self.shared.options));
        self.joins()
    }

    /// Another client joins the group in place of one that is lost: all that was given to that one is another's meanwhile, or is given anew.
    fn renew(&mut self, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        let (consumer, shared) = (Arc::clone(&self.consumer), Arc::clone(&self.shared));
        if !self.reach.is_lost(move || client::is_lost(consumer.client(), &shared.options)) {
            return Ok(());
        }
        tracing::warn!(event = "kafka", group = self.membership.group, "a client has lost its cluster, and another one joins the group in its place");
        let before = std::mem::replace(&mut self.consumer, client_of(&self.shared, &self.membership)?);
        self.leaves(before);
        for partition in self.owned.keys().copied().collect::<Vec<u32>>() {
            self.lose(partition);
            polled.push(Polled::Revoked { partition });
        }
        self.overtaken.clear();
        self.unopened.clear();
        self.beginnings.clear();
        self.begin_to_join()
    }

    /// A client leaves its group in order, where it can: its last calls wait for its own threads, and have been seen to wait for good.
    fn leaves(&self, consumer: Arc<BaseConsumer<Changes>>) -> Apart<bool> {
        let (topic, patience) = (self.topic().to_owned(), self.shared.options.patience);
        let leaves = move || {
            leave(&consumer, &topic, patience);
            let is_closed = consumer.closed();
            if !is_closed {
                // The client's own end would wait without one; its session ends by its time-out.
                std::mem::forget(consumer);
            }
            is_closed
        };
        Apart::begin("leave", leaves, || {})
    }

    /// Joins the group as soon as nothing is waited for any more.
    fn joins(&mut self) -> Result<(), LogError> {
        let Some(predecessor) = &mut self.predecessor else { return Ok(()) };
        let (asker, group) = (self.shared.asker(self.membership.group)?, self.shared.names.group(self.membership.group));
        if predecessor.is_gone(&self.shared.options, &asker, &group) {
            self.subscribe()?;
            self.predecessor = None;
        }
        Ok(())
    }

    fn subscribe(&self) -> Result<(), LogError> {
        self.consumer.subscribe(&[self.topic()]).map_err(|error| errors::of_topic(&error, self.topic()))
    }

    fn topic(&self) -> &str {
        self.shared.names.of(self.membership.topic)
    }

    /// Whether something that was taken from the client is to be handed out.
    fn is_ahead(&self) -> bool {
        self.owned.values().any(|owned| owned.has_more() && owned.waits.is_none())
    }

    /// Whether there is something to be read at once.
    fn has_more(&self) -> bool {
        !self.owned.is_empty() && (!self.is_drained || self.is_ahead())
    }

    fn fenced(&self, partition: u32) -> LogError {
        LogError::Fenced { group: self.membership.group.to_owned(), partition }
    }

    /// Takes what the client has, waiting for the first of it; and what changed in the group.
    fn fetch(&mut self, wait: Duration, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        if self.is_replaced {
            return Err(self.fenced(0));
        }
        self.renew(polled)?;
        let mut wait = wait;
        // Keys of samples are of those who wrote them, and say nothing.
        let keyed = self.membership.topic != Topic::Metrics;
        // What waits is bounded by itself, and holds nothing else up.
        let mut taken: usize = self.owned.values().filter(|owned| owned.is_fetched()).map(|owned| owned.bytes).sum();
        self.is_drained = false;
        let mut is_heard = false;
        loop {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    is_heard = true;
                    if let Some(owned) = u32::try_from(message.partition()).ok().and_then(|partition| self.owned.get_mut(&partition)) {
                        owned.next = client::offset(message.offset()) + 1;
                        let record = reader::record_of(&message, keyed);
                        owned.bytes += size(&record);
                        taken += size(&record);
                        owned.ahead.push_back(Item::Record(record));
                    }
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                        // The client does not say which of them.
                        self.overtaken = self.owned.keys().map(|partition| (*partition, None)).collect();
                        break;
                    }
                    Some(code) if errors::is_replaced(code) => {
                        self.is_replaced = true;
                        return Err(self.fenced(0));
                    }
                    _ => match errors::of_topic(&error, self.topic()) {
                        // Brokers come back by themselves; what is there is handed out first.
                        LogError::Retry { reason } => {
                            tracing::debug!(event = "kafka", reason, "kafka");
                            self.hidden.failed(reason);
                            break;
                        }
                        error => return Err(error),
                    },
                },
                None => {
                    self.is_drained = true;
                    break;
                }
            }
            if taken >= AHEAD_BYTES {
                break;
            }
            wait = Duration::ZERO;
        }
        if is_heard {
            self.reach.heard();
        }
        self.changes(polled)?;
        self.overtaken()
    }

    /// Finds where the partitions go on that may have been read at a place that is gone: the client fetches no more of such a one until it is assigned anew. One of which that
    /// cannot be told for now holds up no other.
    fn overtaken(&mut self) -> Result<(), LogError> {
        let due: Vec<u32> = self.overtaken.iter().filter(|(_, before)| before.is_none_or(LeftAlone::is_over)).map(|(partition, _)| *partition).collect();
        for partition in due {
            match self.goes_on(partition) {
                Ok(()) => drop(self.overtaken.remove(&partition)),
                Err(LogError::Retry { reason }) => {
                    tracing::debug!(event = "kafka", partition, reason, "where a partition goes on cannot be told for now");
                    let before = self.overtaken.get(&partition).copied().flatten();
                    self.overtaken.insert(partition, Some(LeftAlone::again(before)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn goes_on(&mut self, partition: u32) -> Result<(), LogError> {
        let Some(next) = self.owned.get(&partition).map(|owned| owned.next) else { return Ok(()) };
        let range = self.range(partition, Some(next))?;
        let goes_on = self.within(partition, next, &range)?;
        let list = client::one(self.topic(), partition, client::at(goes_on));
        self.consumer.incremental_unassign(&list).and_then(|()| self.consumer.incremental_assign(&list)).map_err(|error| errors::of_reading(&error))?;
        if let Some(owned) = self.owned.get_mut(&partition) {
            if next < goes_on {
                owned.ahead.push_back(Item::Gap(next, goes_on));
            }
            owned.next = goes_on;
        }
        Ok(())
    }

    /// Hands out what was read, to each partition its share of `max`.
    fn hand_out(&mut self, max: usize, polled: &mut Vec<Polled>) {
        let order: Vec<u32> = self.owned.range(self.first..).chain(self.owned.range(..self.first)).map(|(partition, _)| *partition).collect();
        let mut waiting = self.owned.values().filter(|owned| owned.has_more()).count();
        let mut left = max;
        let (options, topic) = (&self.shared.options, self.membership.topic);
        let mut changed = Vec::new();
        for partition in order {
            let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.has_more()) else { continue };
            let share = left.div_ceil(waiting);
            waiting -= 1;
            let mut records = Vec::with_capacity(share.min(owned.ahead.len()));
            let waited = std::mem::take(&mut owned.waits);
            while let Some(item) = owned.ahead.pop_front() {
                match item {
                    Item::Record(record) if records.len() < share => {
                        if let Err(lacking) = options.is_known(topic, &record) {
                            tracing::debug!(event = "kafka", partition, reason = lacking.reason, "a record waits");
                            owned.ahead.push_front(Item::Record(record));
                            owned.waits = Some(lacking);
                            break;
                        }
                        owned.bytes = owned.bytes.saturating_sub(size(&record));
                        records.push(record);
                    }
                    Item::Gap(from, to) if records.is_empty() => polled.push(Polled::Gap { partition, from, to }),
                    item => {
                        owned.ahead.push_front(item);
                        break;
                    }
                }
            }
            let what = |lacking: &Option<Lacking>| lacking.as_ref().map(|lacking| lacking.what.clone());
            if what(&owned.waits) != what(&waited) {
                changed.push((partition, what(&owned.waits)));
            }
            left -= records.len();
            if !records.is_empty() {
                self.first = partition + 1;
                polled.push(Polled::Records { partition, records });
            }
        }
        for (partition, what) in changed {
            self.fetches(partition);
            self.shared.hold((self.membership.group, topic, partition), what);
        }
    }

    /// Tells the client whether it is to fetch of a partition.
    fn fetches(&self, partition: u32) {
        let on = self.owned.get(&partition).is_some_and(Owned::is_fetched);
        let list = client::one(self.topic(), partition, At::Invalid);
        if let Err(error) = if on { self.consumer.resume(&list) } else { self.consumer.pause(&list) } {
            tracing::error!(event = "kafka", partition, %error, "the client does not pause a partition, or go on with it");
        }
    }

    /// The moments up to which partitions have been read, of those whose ends have been reached. `positions` are the client's, once they were asked for: that wakes one of its
    /// threads and waits for it, so it is done only where it can matter.
    fn answers(&mut self, positions: &mut Option<TopicPartitionList>) -> Result<BTreeMap<u32, Moment>, LogError> {
        let mut through = BTreeMap::new();
        for (&partition, owned) in &self.owned {
            let is_read_to = |end: Offset| {
                let next = owned.unread_from();
                if next >= end || !owned.ahead.is_empty() || !self.is_drained {
                    return Ok(next >= end);
                }
                // The client has gone beyond a transaction's marker, too, which is no record. Where it does not say, that is not known.
                let positions = positions.get_or_insert_with(|| self.consumer.position().unwrap_or_default());
                let found = positions.find_partition(self.shared.names.of(self.membership.topic), client::number(partition)).map(|found| found.offset());
                Ok(matches!(found, Some(At::Offset(raw)) if client::offset(raw) >= end))
            };
            through.extend(self.questions.answer(partition, is_read_to)?.map(|moment| (partition, moment)));
        }
        Ok(through)
    }

    /// The partition is this member's no more. Says whether it was.
    fn lose(&mut self, partition: u32) -> bool {
        self.questions.forget(partition);
        self.shared.hold((self.membership.group, self.membership.topic, partition), None);
        // What waits to be written of it is another one's affair now.
        self.shared.standing.forget(&said_of(self.membership.group, partition));
        self.owned.remove(&partition).is_some()
    }
}

fn client_of(shared: &Shared, membership: &Membership) -> Result<Arc<BaseConsumer<Changes>>, LogError> {
    let group = shared.names.group(membership.group);
    client::member(&shared.options, &group, &membership.member, Changes::default()).map(Arc::new)
}

/// What a commit writes, for a person.
fn said_of(group: &str, partition: u32) -> String {
    format!("what {group} says of its partition {partition}")
}

/// What is held of a record, in bytes, with what each takes: that is most of a small one.
fn size(record: &RawRecord) -> usize {
    size_of::<Item>() + record.value.len() + record.key.as_ref().map_or(0, String::len)
}

/// Takes steps until one says that it is enough, and gives what they brought; where one fails, that is `later`'s, for the next call.
fn gather(later: &mut Vec<Polled>, mut step: impl FnMut(&mut Vec<Polled>) -> Result<bool, LogError>) -> Result<Vec<Polled>, LogError> {
    while !step(later)? {}
    Ok(std::mem::take(later))
}

impl Session for Member {
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError> {
        let started = Stopwatch::start();
        let mut before = std::mem::take(&mut self.later);
        let outcome = gather(&mut before, |polled| {
            self.shared.check_open()?;
            if self.has_outgrown {
                return Err(self.outgrown());
            }
            self.joins()?;
            let woken = self.woken.swap(false, Ordering::SeqCst);
            let left = wait.saturating_sub(started.elapsed());
            let there = max > 0 && self.is_ahead();
            let longest = if self.unopened.is_empty() { SLICE } else { HEARS };
            let slice = if there || woken { Duration::ZERO } else { left.min(longest) };
            self.fetch(client::whole_millis(slice), polled)?;
            if max > 0 {
                self.hand_out(max, polled);
            } else if !self.is_drained && polled.is_empty() {
                // Nobody asks for what is there, and each further look would take one more record: the group is heard a moment later.
                std::thread::sleep(left.min(HEARS));
            }
            Ok(!polled.is_empty() || woken || left.is_zero())
        });
        self.later = before;
        outcome
    }

    fn read_through(&mut self, now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError> {
        let mut positions = None;
        let mut through = self.answers(&mut positions)?;
        let mut asks = Vec::new();
        for (&partition, owned) in self.owned.iter().filter(|(partition, _)| !self.questions.is_open(**partition)) {
            match self.questions.known(partition, now).filter(|_| !due(partition)) {
                Some(known) => drop(through.insert(partition, known)),
                None if owned.untold.is_none_or(LeftAlone::is_over) => asks.push(partition),
                None => {}
            }
        }
        // What stands in partitions that this process does not know of has not been read by anybody.
        let count = if asks.is_empty() { None } else { client::count(&*self.shared.onlooker()?, self.topic(), ENDS_WITHIN) };
        self.has_outgrown |= count.is_some_and(|count| count > self.shared.partitions.of(self.membership.topic));
        if self.has_outgrown {
            return Ok(BTreeMap::new());
        }
        let asks = if count.is_some() { asks } else { Vec::new() };
        // By another client: a broker answers the questions of one connection in order, so that this one would wait for the fetch that is under way, which
        // a record ends. By one that sees what is not committed yet: what somebody's open transaction hides was appended, too.
        let ends = client::ends(&*self.shared.onlooker()?, self.topic(), &asks, ENDS_WITHIN);
        for partition in asks {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            let end = ends.get(&partition);
            owned.untold = if end.is_some() { None } else { Some(LeftAlone::again(owned.untold)) };
            if let Some(end) = end {
                self.questions.told(partition, now, *end);
            }
        }
        through.extend(self.answers(&mut positions)?);
        self.look_at_the_late(now.at)?;
        Ok(through)
    }

    fn hold_back(&mut self, partition: u32, on: bool) {
        if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.held_back != on) {
            owned.held_back = on;
            self.fetches(partition);
        }
    }

    fn lacking(&self) -> Vec<(u32, Lacking)> {
        let lacks = |(partition, owned): (&u32, &Owned)| Some((*partition, owned.waits.as_ref().or_else(|| self.hidden.lacking(*partition))?.clone()));
        self.owned.iter().filter_map(lacks).collect()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
        loop {
            let patience = self.shared.options.patience;
            match self.commit_within(batch, patience, patience) {
                Err(LogError::UnderWay { .. }) => {}
                outcome => return outcome,
            }
        }
    }

    fn commit_soon(&mut self, batch: &Batch, reads_on: bool) -> Result<(), LogError> {
        let one_lasts = self.owned.values().any(|owned| owned.late_since().is_some_and(|since| since.elapsed() >= SOON));
        let soon = match reads_on && self.has_more() {
            true => Duration::ZERO,
            false if one_lasts => SOONER,
            false => SOON,
        };
        self.commit_within(batch, soon, Duration::ZERO)
    }

    fn waker(&self) -> Waker {
        let woken = Arc::clone(&self.woken);
        Waker::new(move || woken.store(true, Ordering::SeqCst))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.owned.keys().for_each(|partition| self.shared.hold((self.membership.group, self.membership.topic, *partition), None));
        let leaving = self.leaves(Arc::clone(&self.consumer));
        if !matches!(leaving.ended(self.shared.options.patience * 2), Some(Ok(true))) {
            let after_ms = u64::try_from(leaving.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(event = "kafka", group = self.membership.group, after_ms, "the member could not leave its group in order");
            std::mem::forget(Arc::clone(&self.consumer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the group decided in a poll that fails is told by the next one that does not, once and in its order.
    #[test]
    fn what_came_before_a_failure_is_told_later() {
        let mut later = vec![Polled::Revoked { partition: 1 }];
        let failed = gather(&mut later, |polled| {
            polled.push(Polled::Assigned { partition: 2, position: 7 });
            Err(LogError::Retry { reason: "no answer".to_owned() })
        });
        assert!(matches!(failed, Err(LogError::Retry { .. })));
        let mut steps = 0;
        let told = gather(&mut later, |_| {
            steps += 1;
            Ok(steps == 2)
        });
        assert_eq!(told.unwrap(), [Polled::Revoked { partition: 1 }, Polled::Assigned { partition: 2, position: 7 }]);
        assert_eq!(gather(&mut later, |_| Ok(true)).unwrap(), []);
    }
}
