//! What the group gives to a member and takes from it, and how that begins and ends: a partition is opened by a producer of its own, which shuts out whoever owned it before.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset as At, TopicPartitionList};

use super::super::reach::Reach;
use super::super::transaction::{Beginning, Transactions};
use super::super::{READERS, client, errors};
use super::{ENDS_WITHIN, HEARS, Item, LeftAlone, Member, Owned, SOONER};
use crate::log::coordinator::lock;
use crate::log::{LogError, Offset, Polled};
use crate::runtime::clock::Stopwatch;

/// What the group decided, as the client tells it in a poll.
#[derive(Default)]
pub(super) struct Changes(Mutex<Told>);

#[derive(Default)]
struct Told {
    events: VecDeque<Change>,
    /// Given by the group, and not read yet.
    waiting: BTreeSet<u32>,
    /// The member leaves: nothing is opened any more.
    leaving: bool,
}

enum Change {
    Given(u32),
    Taken(u32),
}

impl ClientContext for Changes {
    fn error(&self, error: KafkaError, reason: &str) {
        client::said(&error, reason);
    }
}

impl ConsumerContext for Changes {
    /// Partitions that were taken are let go at once: a transaction of one that is still under way moves no position in the next generation, and whoever is given the
    /// partition ends it first. Those that were given are known to the client when their producers are ready. The group does not wait for that: while it does, the client fetches
    /// nothing of the others, and none of its members can be given anything.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut told = lock(&self.0);
        let elements = if list.count() == 0 { Vec::new() } else { list.elements() };
        let partitions: Vec<u32> = elements.iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
        let topic = elements.first().map(|element| element.topic().to_owned()).unwrap_or_default();
        drop(elements);
        let outcome = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if told.leaving {
                consumer.incremental_assign(list)
            } else {
                told.waiting.extend(&partitions);
                told.events.extend(partitions.into_iter().map(Change::Given));
                consumer.incremental_assign(&TopicPartitionList::new())
            }
        } else {
            // What was given and is taken before it was opened was never the client's. To give it and take it at once would stop it twice where it was taken a moment before,
            // which librdkafka ends the process for (`rktp_started`).
            let known: Vec<u32> = partitions.iter().copied().filter(|partition| !told.waiting.remove(partition)).collect();
            told.events.retain(|change| !matches!(change, Change::Given(partition) if partitions.contains(partition)));
            told.events.extend(partitions.into_iter().map(Change::Taken));
            consumer.incremental_unassign(&client::many(&topic, known.into_iter().map(|partition| (partition, At::Invalid))))
        };
        if let Err(error) = outcome {
            tracing::error!(event = "kafka", %error, "the group's client does not take an assignment");
        }
    }
}

impl Member {
    /// What the group took is gone at once; what it gave is opened. What cannot be opened for now holds up no other.
    pub(super) fn changes(&mut self, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        let group = self.membership.group;
        let tell = |partition: u32, reason: &str| tracing::warn!(event = "kafka", group, partition, reason, "a partition cannot be read for now");
        let mut later = VecDeque::new();
        let outcome = loop {
            let change = lock(&self.consumer.context().0).events.pop_front();
            match change {
                None => break Ok(()),
                Some(Change::Taken(partition)) => {
                    self.unopened.remove(&partition);
                    self.beginnings.remove(&partition);
                    if self.lose(partition) {
                        polled.push(Polled::Revoked { partition });
                    }
                }
                Some(Change::Given(partition)) => {
                    if !lock(&self.consumer.context().0).waiting.contains(&partition) {
                        continue; // taken again meanwhile
                    }
                    let before = self.unopened.get(&partition).copied();
                    if before.is_some_and(|before| !before.is_over()) {
                        later.push_back(Change::Given(partition));
                        continue;
                    }
                    match self.open(partition, polled) {
                        Ok(true) => drop(self.unopened.remove(&partition)),
                        Ok(false) => {
                            later.push_back(Change::Given(partition));
                            if self.beginnings.get_mut(&partition).is_some_and(Beginning::is_to_be_told) {
                                tell(partition, Beginning::WAITS_FOR);
                            }
                            self.unopened.insert(partition, LeftAlone::again(None));
                        }
                        Err(error) => {
                            later.push_back(Change::Given(partition));
                            let LogError::Retry { reason } = &error else { break Err(error) };
                            if before.is_none() {
                                tell(partition, reason);
                            }
                            self.unopened.insert(partition, LeftAlone::again(before));
                            // Who has nothing else says so, and waits.
                            if self.owned.is_empty() {
                                break Err(error);
                            }
                        }
                    }
                }
            }
        };
        // In their order: what was given may be taken again behind it.
        let mut told = lock(&self.consumer.context().0);
        later.append(&mut told.events);
        told.events = later;
        drop(told);
        if polled.is_empty() { outcome } else { Ok(()) }
    }

    /// First the producer, which shuts out whoever owned the partition before; then its position. Says whether that came to its end: it holds up no other partition for long.
    fn open(&mut self, partition: u32, polled: &mut Vec<Polled>) -> Result<bool, LogError> {
        let options = &self.shared.options;
        // Whoever keeps a state counts on the number.
        if partition >= self.shared.partitions.of(self.membership.topic) && self.shared.names.states_of(self.membership.group).is_ok() {
            return Err(self.outgrown());
        }
        let wait = match self.beginnings.contains_key(&partition) {
            true => Duration::ZERO,
            false if self.beginnings.is_empty() => ENDS_WITHIN,
            false => SOONER,
        };
        let beginning = self.beginnings.entry(partition).or_insert_with(|| {
            let woken = Arc::clone(&self.woken);
            let id = self.shared.names.transactions(self.membership.group, partition);
            Transactions::begins(options, &id, move || woken.store(true, Ordering::SeqCst))
        });
        let Some(made) = beginning.ended(wait) else { return Ok(false) };
        self.beginnings.remove(&partition);
        let transactions = made?;
        // By the client that is the member: it asks the very coordinator that gave it the partition.
        let committed = client::committed(&self.consumer, self.topic(), partition, options.patience.min(ENDS_WITHIN))?;
        let range = self.range(partition, committed)?;
        let position = committed.unwrap_or(range.start);
        let next = self.within(partition, position, &range)?;
        self.consumer.incremental_assign(&client::one(self.topic(), partition, client::at(next))).map_err(|error| errors::of_reading(&error))?;
        lock(&self.consumer.context().0).waiting.remove(&partition);
        // As it was left when it waited here before: the client keeps that over the loss of a partition.
        self.consumer.resume(&client::one(self.topic(), partition, At::Invalid)).map_err(|error| errors::of_reading(&error))?;
        polled.push(Polled::Assigned { partition, position });
        let mut ahead = VecDeque::new();
        if position < next {
            ahead.push_back(Item::Gap(position, next));
        }
        self.owned.insert(
            partition,
            Owned {
                next,
                ahead,
                bytes: 0,
                untold: None,
                waits: None,
                held_back: false,
                lasting: None,
                reach: Reach::new(),
                reviving: None,
                transactions: Some(transactions),
            },
        );
        Ok(true)
    }

    /// Where a partition begins and ends. By another client than the member's, whose answers wait for the fetch that is under way of partitions that were opened before.
    pub(super) fn range(&self, partition: u32, next: Option<Offset>) -> Result<Range<Offset>, LogError> {
        let (asker, patience) = (self.shared.asker(READERS)?, self.shared.options.patience.min(ENDS_WITHIN));
        let range = client::range(&asker, self.topic(), partition, patience)?;
        if next.is_none_or(|next| next <= range.end) {
            return Ok(range);
        }
        // One that led it before, and does not know that it does no more, has not the newest.
        client::look_for_leaders(&asker, self.topic(), patience);
        client::range(&asker, self.topic(), partition, patience)
    }

    /// The topic has more partitions than there were at the start.
    pub(super) fn outgrown(&self) -> LogError {
        let reason = format!(
            "{} has more partitions now than the {} that this process began with: `loadline topology check` says what follows and how that is mended; docs/kafka.md says \
             which topics may get more, and how (\"The shape of an installation\")",
            self.topic(),
            self.shared.partitions.of(self.membership.topic)
        );
        LogError::Fatal { reason }
    }

    /// Where reading goes on: later where retention took what comes next. A position beyond the end is another topic's.
    pub(super) fn within(&self, partition: u32, next: Offset, range: &Range<Offset>) -> Result<Offset, LogError> {
        if next > range.end {
            let reason = format!(
                "group {} stands at {next} of {} {partition}, which ends at {}: the topic was emptied or created anew; docs/kafka.md says how to go on (\"A topic that is lost\")",
                self.membership.group,
                self.topic(),
                range.end
            );
            return Err(LogError::Fatal { reason });
        }
        Ok(next.max(range.start))
    }
}

/// Gives up what is owned, and closes the client.
pub(super) fn leave(consumer: &BaseConsumer<Changes>, topic: &str, patience: Duration) {
    let mut told = lock(&consumer.context().0);
    told.leaving = true;
    // What waits is to be known to the client, or it does not come to an end.
    let waiting = std::mem::take(&mut told.waiting);
    drop(told);
    if !waiting.is_empty() {
        let _ = consumer.incremental_assign(&client::many(topic, waiting.into_iter().map(|partition| (partition, At::End))));
    }
    let (started, closing) = (Stopwatch::start(), consumer.close_queue());
    while closing.is_ok() && !consumer.closed() && started.elapsed() < patience {
        consumer.poll(HEARS);
    }
}
