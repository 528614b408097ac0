//! The transactions of one partition: each is a batch, all of it or nothing.
//!
//! librdkafka waits in slices of 100 ms for what is under way when it commits; so all deliveries are waited for here first, and a
//! transaction takes about 5 ms. One that takes long, as nobody leads a partition that it writes to, comes to its end on a thread of its own ([`Lasting`]), so
//! that it holds up no other.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders, Timestamp as KafkaTime};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, TopicPartitionList};

use super::errors::{self, Step};
use super::{Options, client};
use crate::log::coordinator::lock;
use crate::log::{LogError, Topic};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// How soon it is looked again whether the broker said something: an answer takes a few milliseconds.
const MOMENT: Duration = Duration::from_micros(250);

/// So soon behind its own time-out a call of the client comes back, or never.
const COMES_BACK: Duration = Duration::from_secs(2);

/// How long an abort waits at a time for what it is to be told.
const TELLS: Duration = Duration::from_millis(50);

/// A record of a transaction.
pub(super) struct Put<'a> {
    pub(super) name: &'a str,
    /// That of the port; a state's record has none.
    pub(super) topic: Option<Topic>,
    pub(super) partition: u32,
    pub(super) key: Option<&'a str>,
    /// `None` deletes the key.
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Option<OwnedHeaders>,
}

impl Put<'_> {
    fn sent(&self) -> Sent {
        Sent { name: self.name.to_owned(), topic: self.topic, bytes: self.key.map_or(0, str::len) + self.value.map_or(0, <[u8]>::len) }
    }
}

/// What is told of a record that was not taken.
#[derive(Clone)]
struct Sent {
    name: String,
    topic: Option<Topic>,
    bytes: usize,
}

impl Sent {
    /// Why the cluster does not take it.
    fn refused(&self, error: &KafkaError) -> LogError {
        match errors::of_delivery(error, self.topic.unwrap_or(Topic::DeadLetters), &self.name, self.bytes) {
            LogError::TooLarge { bytes, .. } if self.topic.is_none() => LogError::Fatal {
                reason: format!(
                    "Kafka takes no state of {bytes} bytes on {}, and without it nothing could be restored: its max.message.bytes is too small; `loadline topology check` says how that is mended",
                    self.name
                ),
            },
            error => error,
        }
    }
}

/// Why a transaction did not come to its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was aborted, or never begun: none of it took effect.
    Nothing(LogError),
    /// It was aborted, as the group is about to change: this member is to look what became of its partitions.
    Outside(KafkaError),
    /// The producer is dead; none of the transaction took effect.
    Dead(KafkaError),
    /// The producer is dead, and whether the transaction took effect is not known.
    Unknown(KafkaError),
}

/// What came of a transaction: the earliest time that a broker gave to one of its records.
pub(super) type Ended = Result<Option<Timestamp>, Failure>;

/// A transaction that comes to its end on a thread of its own.
pub(super) struct Lasting {
    pub(super) began: Stopwatch,
    /// What was sent and not taken when it was left alone.
    pub(super) waits_for: String,
    ended: Receiver<Ended>,
}

impl Lasting {
    /// What came of it, where it came to its end within `wait`.
    pub(super) fn ended(&self, wait: Duration) -> Option<Ended> {
        match self.ended.recv_timeout(wait) {
            Ok(ended) => Some(ended),
            Err(RecvTimeoutError::Timeout) => None,
            // Its thread unwound.
            Err(RecvTimeoutError::Disconnected) => Some(Err(Failure::Unknown(KafkaError::Canceled))),
        }
    }
}

/// What a commit came to.
pub(super) enum Commit {
    Ended(Ended),
    Lasts(Lasting),
}

/// The producer of one partition.
#[derive(Clone)]
pub(super) struct Transactions {
    producer: Arc<BaseProducer<Reports>>,
    patience: Duration,
    /// So long a transaction may be open: the broker ends it then.
    lasts: Duration,
}

/// What the broker answered.
struct Reports {
    /// What could not be delivered, by its place in the transaction.
    refused: Mutex<Vec<(usize, KafkaError)>>,
    /// The earliest time that it gave to a record of the transaction.
    first_at: AtomicI64,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        client::said(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        match result {
            Ok(message) => {
                if let KafkaTime::LogAppendTime(at) = message.timestamp() {
                    self.first_at.fetch_min(at, Ordering::Relaxed);
                }
            }
            Err((error, _)) => lock(&self.refused).push((index, error.clone())),
        }
    }
}

impl Transactions {
    /// Ends what an earlier owner of this id left open, and shuts it out.
    pub(super) fn begin_as(options: &Options, id: &str) -> Result<Self, LogError> {
        let producer: BaseProducer<Reports> = client::transactional(options, id, Reports { refused: Mutex::default(), first_at: AtomicI64::new(i64::MAX) })?;
        let started = Stopwatch::start();
        loop {
            match producer.init_transactions(options.patience) {
                Ok(()) => return Ok(Transactions { producer: Arc::new(producer), patience: options.patience, lasts: options.transaction_timeout }),
                Err(error) if errors::of_step(&error) == Step::Again && started.elapsed() < options.patience => {}
                Err(error) => return Err(errors::of_reading(&error)),
            }
        }
    }

    /// Commits records, and a position where there is one. Where the records are not taken `soon`, it goes on by itself; `done` is called when it came to its end then.
    pub(super) fn commit(
        &self,
        puts: &[Put<'_>],
        position: Option<(TopicPartitionList, ConsumerGroupMetadata)>,
        soon: Duration,
        done: impl FnOnce() + Send + 'static,
    ) -> Commit {
        let began = Stopwatch::start();
        if let Err(failure) = self.begin(puts, began) {
            return Commit::Ended(Err(failure));
        }
        self.hear_within(began, soon);
        let left = self.producer.in_flight_count();
        if left <= 0 {
            return Commit::Ended(self.end(|index| puts.get(index).map(Put::sent), position, began));
        }
        let sent: Vec<Sent> = puts.iter().map(Put::sent).collect();
        let mut names: Vec<&str> = sent.iter().map(|sent| &*sent.name).collect();
        names.sort_unstable();
        names.dedup();
        let waits_for = format!("Kafka: {left} of {} records for {} are not taken yet", sent.len(), names.join(", "));
        let (tell, ended) = channel();
        let transactions = self.clone();
        let goes_on = move || {
            // Whoever waited for it may have lost the partition.
            let _ = tell.send(transactions.end(|index| sent.get(index).cloned(), position, began));
            done();
        };
        match std::thread::Builder::new().name("commit".to_owned()).spawn(goes_on) {
            Ok(_) => Commit::Lasts(Lasting { began, waits_for, ended }),
            Err(_) => Commit::Ended(Err(self.give_up(&KafkaError::Canceled, None))),
        }
    }

    /// Begins, and sends the records.
    fn begin(&self, puts: &[Put<'_>], started: Stopwatch) -> Result<(), Failure> {
        self.producer.begin_transaction().map_err(|error| match errors::of_step(&error) {
            Step::Dead => Failure::Dead(error),
            Step::Again | Step::Abort => Failure::Nothing(errors::of_reading(&error)),
        })?;
        lock(&self.producer.context().refused).clear();
        self.producer.context().first_at.store(i64::MAX, Ordering::Relaxed);
        for (index, put) in puts.iter().enumerate() {
            if let Err(error) = self.send(index, put, started) {
                return Err(self.give_up(&error, Some(&put.sent())));
            }
        }
        Ok(())
    }

    /// Waits until each record was taken or refused, or so long has passed since the beginning.
    fn hear_within(&self, started: Stopwatch, time: Duration) {
        while self.producer.in_flight_count() > 0 && started.elapsed() < time {
            self.hear();
        }
    }

    /// Waits for what was sent, and commits. `sent` has what was, by its place.
    fn end(&self, sent: impl Fn(usize) -> Option<Sent>, position: Option<(TopicPartitionList, ConsumerGroupMetadata)>, started: Stopwatch) -> Ended {
        self.hear_within(started, self.patience);
        // A broker refuses all that came in one request with a record that is too large: the largest is the one.
        let refused = std::mem::take(&mut *lock(&self.producer.context().refused));
        let refused = refused.into_iter().max_by_key(|(index, _)| (sent(*index).map_or(0, |sent| sent.bytes), std::cmp::Reverse(*index)));
        if let Some((index, error)) = refused {
            // What the client took back itself does not say why; the transaction does, which librdkafka commits no more then.
            let is_taken_back = matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight));
            let why = if is_taken_back { self.producer.commit_transaction(Timeout::Never).err() } else { None };
            return Err(self.give_up(why.as_ref().unwrap_or(&error), sent(index).as_ref()));
        }
        if let Some((offsets, group)) = position {
            self.send_offsets(offsets, group, started)?;
        }
        loop {
            // Any other time-out may leave librdkafka in a state that is not the broker's; the call itself ends with the transaction's time-out.
            match self.producer.commit_transaction(Timeout::Never) {
                Ok(()) => {
                    let first_at = self.producer.context().first_at.load(Ordering::Relaxed);
                    return Ok((first_at < i64::MAX).then_some(Timestamp::from_millis(first_at)));
                }
                Err(error) => match errors::of_step(&error) {
                    Step::Again => {}
                    Step::Abort => return Err(self.give_up(&error, None)),
                    Step::Dead => return Err(Failure::Unknown(error)),
                },
            }
        }
    }

    /// Whether a position could be moved: asks the group's coordinator, and leaves all as it is.
    pub(super) fn would_move(&self, offsets: TopicPartitionList, group: ConsumerGroupMetadata) -> Result<(), Failure> {
        self.producer.begin_transaction().map_err(Failure::Dead)?;
        self.send_offsets(offsets, group, Stopwatch::start())?;
        self.producer.abort_transaction(Timeout::Never).map_err(Failure::Dead)
    }

    /// On a thread of its own, which is left behind where the call does not come back: librdkafka has been seen to wait for good when the group's coordinator was a
    /// broker that died. The producer is dead then; the broker ends its transaction.
    fn send_offsets(&self, offsets: TopicPartitionList, group: ConsumerGroupMetadata, started: Stopwatch) -> Result<(), Failure> {
        let (producer, patience) = (Arc::clone(&self.producer), self.patience.min(self.lasts));
        let (tell, hear) = sync_channel(1);
        let asks = move || loop {
            match producer.send_offsets_to_transaction(&offsets, &group, patience) {
                Err(error) if errors::of_step(&error) == Step::Again && started.elapsed() < patience => {}
                outcome => {
                    // Who asked may have given up.
                    let _ = tell.send(outcome);
                    return;
                }
            }
        };
        if std::thread::Builder::new().name("offsets".to_owned()).spawn(asks).is_err() {
            return Err(self.give_up(&KafkaError::Canceled, None));
        }
        match hear.recv_timeout(patience + COMES_BACK) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.give_up(&error, None)),
            Err(_) => Err(Failure::Dead(KafkaError::Canceled)),
        }
    }

    fn send(&self, index: usize, put: &Put<'_>, started: Stopwatch) -> Result<(), KafkaError> {
        let mut record: BaseRecord<'_, str, [u8], usize> = BaseRecord::with_opaque_to(put.name, index).partition(client::number(put.partition));
        (record.key, record.payload, record.headers) = (put.key, put.value, put.headers.clone());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) if started.elapsed() < self.patience => {
                    self.hear();
                    record = again;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Takes what the broker said of records; where it said nothing, a moment later. A poll of the client with a time-out spins on a core for
    /// what is less than a millisecond of it.
    fn hear(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() >= before {
            std::thread::sleep(MOMENT);
        }
    }

    /// Aborts, where that is still possible.
    fn give_up(&self, error: &KafkaError, of: Option<&Sent>) -> Failure {
        if self.producer.client().fatal_error().is_some() || errors::of_step(error) == Step::Dead && matches!(error, KafkaError::Transaction(_)) {
            return Failure::Dead(error.clone());
        }
        // It waits until it was told what became of each record, to which nobody but this thread listens.
        loop {
            let tells = self.producer.in_flight_count() > 0;
            match self.producer.abort_transaction(if tells { Timeout::After(TELLS) } else { Timeout::Never }) {
                Ok(()) => break,
                Err(error) if tells && errors::of_step(&error) == Step::Again => self.hear(),
                Err(failed) => {
                    // What needs a person is told as what it is, and not as what it led to.
                    let given = of.map_or_else(|| errors::of_reading(error), |sent| sent.refused(error));
                    return if matches!(given, LogError::Fatal { .. }) { Failure::Nothing(given) } else { Failure::Dead(failed) };
                }
            }
        }
        if error.rdkafka_error_code().is_some_and(errors::is_outside) {
            return Failure::Outside(error.clone());
        }
        Failure::Nothing(match of {
            Some(sent) => sent.refused(error),
            None => errors::of_reading(error),
        })
    }
}
