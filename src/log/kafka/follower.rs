//! Reading a topic outside of any group, as it grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message as _;

use super::reach::Reach;
use super::{READERS, SLICE, Shared, client, errors, reader};
use crate::log::{Follower, LogError, Offset, Polled, RawRecord, Topic, Waker};
use crate::runtime::clock::Stopwatch;

/// Reads all partitions of a topic.
pub(super) struct Following {
    shared: Arc<Shared>,
    topic: Topic,
    consumer: Arc<client::Consumer>,
    reach: Reach,
    /// Where each partition is read on.
    next: BTreeMap<u32, Offset>,
    /// Whether the client was told.
    assigned: bool,
    woken: Arc<AtomicBool>,
}

impl Following {
    pub(super) fn begin(shared: Arc<Shared>, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Self, LogError> {
        shared.check_open()?;
        let consumer = Arc::new(client::listening(&shared.options, client::Quiet::new())?);
        let next = (0..shared.partitions.of(topic)).map(|partition| (partition, from.get(&partition).copied().unwrap_or(0))).collect();
        Ok(Following { shared, topic, consumer, reach: Reach::new(), next, assigned: false, woken: Arc::default() })
    }

    fn topic(&self) -> &str {
        self.shared.names.of(self.topic)
    }

    /// Begins to read where it is, or behind what retention took, which is told.
    fn assign(&mut self, polled: &mut Vec<Polled>) -> Result<(), LogError> {
        self.assigned = false;
        let mut next = self.next.clone();
        // The answers of the client that reads wait for the fetch that is under way.
        let asker = self.shared.asker(READERS)?;
        for (partition, next) in &mut next {
            let range = client::range(&asker, self.topic(), *partition, self.shared.options.patience)?;
            if *next < range.start {
                polled.push(Polled::Gap { partition: *partition, from: *next, to: range.start });
                *next = range.start;
            } else if *next > range.end {
                // It was cut short: what stood there is gone, and what comes stands in its place.
                polled.push(Polled::Gap { partition: *partition, from: range.end, to: *next });
                *next = range.end;
            }
        }
        let places = client::many(self.topic(), next.iter().map(|(partition, next)| (*partition, client::at(*next))));
        self.consumer.assign(&places).map_err(|error| errors::of_reading(&error))?;
        (self.next, self.assigned) = (next, true);
        Ok(())
    }

    /// Another client in place of one that is lost; it reads on where that one stood.
    fn renew(&mut self) -> Result<(), LogError> {
        let (consumer, shared) = (Arc::clone(&self.consumer), Arc::clone(&self.shared));
        if self.reach.is_lost(move || client::is_lost(consumer.client(), &shared.options)) {
            tracing::warn!(event = "kafka", topic = self.topic(), "a client has lost its cluster, and another one reads on in its place");
            let before = std::mem::replace(&mut self.consumer, Arc::new(client::listening(&self.shared.options, client::Quiet::new())?));
            self.assigned = false;
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
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.assigned = false,
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
            if !self.assigned {
                self.assign(&mut polled)?;
            }
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
