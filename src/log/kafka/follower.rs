//! Reading a topic outside of any group, as it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::Offset as At;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message as _;

use super::reach::Reach;
use super::session::ENDS_WITHIN;
use super::{READERS, SLICE, Shared, client, errors, reader};
use crate::log::{Follower, LogError, Offset, Polled, RawRecord, Topic, Waker};
use crate::runtime::clock::Stopwatch;

/// How often it is looked for who leads what nobody led.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads all partitions of a topic.
pub(super) struct Following {
    shared: Arc<Shared>,
    topic: Topic,
    consumer: Arc<client::Consumer>,
    reach: Reach,
    /// Where each partition is read on.
    next: BTreeMap<u32, Offset>,
    /// Those that the client reads; the others are looked for again.
    read: BTreeSet<u32>,
    looked: Option<Stopwatch>,
    woken: Arc<AtomicBool>,
}

impl Following {
    pub(super) fn begin(shared: Arc<Shared>, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Self, LogError> {
        shared.check_open()?;
        let consumer = Arc::new(client::listening(&shared.options, client::Quiet::new())?);
        let next = (0..shared.partitions.of(topic)).map(|partition| (partition, from.get(&partition).copied().unwrap_or(0))).collect();
        Ok(Following { shared, topic, consumer, reach: Reach::new(), next, read: BTreeSet::new(), looked: None, woken: Arc::default() })
    }

    fn topic(&self) -> &str {
        self.shared.names.of(self.topic)
    }

    /// Begins to read what is led and not read yet, where it is, or behind what retention took, which is told. What nobody leads waits, and holds up no other.
    fn assign(&mut self, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        let is_soon = !self.read.is_empty() && self.looked.as_ref().is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if self.read.len() == self.next.len() || is_soon {
            return Ok(());
        }
        let looked = self.look();
        self.looked = Some(Stopwatch::start());
        let found = match looked {
            Ok(found) if !found.is_empty() => found,
            // It goes on with what it has.
            Ok(_) | Err(LogError::Retry { .. }) if !self.read.is_empty() => return Ok(()),
            Ok(_) => return Err(LogError::Retry { reason: format!("Kafka: where the partitions of {} begin and end is not told now", self.topic()) }),
            Err(error) => return Err(error),
        };
        let (mut next, mut read) = (self.next.clone(), self.read.clone());
        for (partition, range) in found {
            let stood = next.insert(partition, range.start).unwrap_or(range.start);
            if stood < range.start {
                polled.push(Polled::Gap { partition, from: stood, to: range.start });
            } else if stood > range.end {
                // It was cut short: what stood there is gone, and what comes stands in its place.
                polled.push(Polled::Gap { partition, from: range.end, to: stood });
            }
            next.insert(partition, stood.max(range.start).min(range.end));
            read.insert(partition);
        }
        let places = client::many(self.topic(), read.iter().filter_map(|partition| Some((*partition, client::at(*next.get(partition)?)))));
        self.consumer.assign(&places).map_err(|error| errors::of_reading(&error))?;
        (self.next, self.read) = (next, read);
        Ok(())
    }

    /// Where the partitions begin and end that are not read yet, and that somebody leads.
    fn look(&self) -> Result<Vec<(u32, Range<Offset>)>, LogError> {
        // The answers of the client that reads wait for the fetch that is under way.
        let asker = self.shared.asker(READERS)?;
        let patience = if self.read.is_empty() { self.shared.options.patience } else { ENDS_WITHIN };
        let leaders = client::leaders(&asker, self.topic(), patience).map_err(|error| errors::of_topic(&error, self.topic()))?;
        let waits: Vec<u32> = self.next.keys().filter(|partition| !self.read.contains(partition)).copied().collect();
        if let Some(missing) = waits.iter().find(|partition| !leaders.contains_key(partition)) {
            // That it is gone is told by what is asked of it.
            client::range(&asker, self.topic(), *missing, patience)?;
        }
        let led: Vec<u32> = waits.into_iter().filter(|partition| leaders.get(partition).is_some_and(|leader| *leader >= 0)).collect();
        let edges = |edge| client::edges(&asker, self.topic(), &led, edge, patience);
        let (starts, ends) = (edges(At::Beginning), edges(At::End));
        Ok(led.iter().filter_map(|partition| Some((*partition, *starts.get(partition)?..*ends.get(partition)?))).collect())
    }

    /// Forgets what it reads, and begins where it stood.
    fn begins_anew(&mut self) {
        self.read.clear();
        self.looked = None;
    }

    /// Another client in place of one that is lost; it reads on where that one stood.
    fn renew(&mut self) -> Result<(), LogError> {
        let (consumer, shared) = (Arc::clone(&self.consumer), Arc::clone(&self.shared));
        if self.reach.is_lost(move || client::is_lost(consumer.client(), &shared.options)) {
            tracing::warn!(event = "kafka", topic = self.topic(), "a client has lost its cluster, and another one reads on in its place");
            let before = std::mem::replace(&mut self.consumer, Arc::new(client::listening(&self.shared.options, client::Quiet::new())?));
            self.begins_anew();
            client::close(before);
        }
        Ok(())
    }

    /// Takes what the client has, at most `max` records, waiting for the first of them.
    fn fetch(&mut self, max: usize, wait: Duration, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        let mut records: BTreeMap<u32, Vec<RawRecord>> = BTreeMap::new();
        let (mut count, mut wait) = (0, wait);
        let mut failed = None;
        while count < max {
            match self.consumer.poll(client::whole_millis(wait)) {
                None => break,
                Some(Ok(message)) => {
                    let record = reader::record_of(&message, true);
                    self.next.insert(record.partition, client::offset(message.offset()) + 1);
                    records.entry(record.partition).or_default().push(record);
                    if count == 0 {
                        self.reach.heard();
                    }
                    count += 1;
                    wait = Duration::ZERO;
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        polled.extend(records.into_iter().map(|(partition, records)| Polled::Records { partition, records }));
        let Some(error) = failed else { return Ok(()) };
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.begins_anew(),
            _ => match errors::of_topic(&error, self.topic()) {
                // Brokers come back by themselves.
                LogError::Retry { reason } => tracing::debug!(event = "kafka", reason, "kafka"),
                error => return Err(error),
            },
        }
        Ok(())
    }
}

impl Follower for Following {
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError> {
        let started = Stopwatch::start();
        let mut polled = Vec::new();
        loop {
            self.shared.check_open()?;
            self.renew()?;
            self.assign(&mut polled)?;
            let woken = self.woken.swap(false, Ordering::SeqCst);
            let left = wait.saturating_sub(started.elapsed());
            let slice = if woken || !polled.is_empty() { Duration::ZERO } else { left.min(SLICE) };
            self.fetch(max, slice, &mut polled)?;
            if !polled.is_empty() || woken || left.is_zero() {
                return Ok(polled);
            }
        }
    }

    fn waker(&self) -> Waker {
        let woken = Arc::clone(&self.woken);
        Waker::new(move || woken.store(true, Ordering::SeqCst))
    }
}
