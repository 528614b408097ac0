//! The transactions of one partition: each is a batch, all of it or nothing.
//!
//! librdkafka waits in slices of 100 ms for what is under way when it commits; so all deliveries are waited for here first, and a
//! transaction takes about 5 ms. Each comes to its end on a thread of its own; one that takes long, as nobody leads a partition that it writes to, is left alone
//! there ([`Lasting`]), so that it holds up no other, and so is each while there is more to read.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders, Timestamp as KafkaTime};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, TopicPartitionList};

use super::apart::{Apart, Lost};
use super::errors::{self, Step};
use super::reach::Reach;
use super::standing::TOLD_AFTER;
use super::{Options, client};
use crate::log::coordinator::lock;
use crate::log::{LogError, Topic};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// How soon it is looked again whether the broker said something: an answer takes a few milliseconds. Where it takes long, an eighth of the time until then, and at most …
const MOMENT: Duration = Duration::from_millis(1);
/// … so long.
const LONGEST_MOMENT: Duration = Duration::from_millis(20);

/// What was taken is committed within this, as a rule.
const ENDS_IN: Duration = Duration::from_millis(100);

/// A producer that is being made is asked so often whether anybody still waits for it.
const BEGINS_IN: Duration = Duration::from_secs(1);

/// So soon behind its own time-out a call of the client comes back, or never.
const COMES_BACK: Duration = Duration::from_secs(2);

/// How long an abort waits at a time for what it is to be told.
const TELLS: Duration = Duration::from_millis(50);
/// And for the broker: so often it is looked whether somebody still waits for it.
const ABORTS_IN: Duration = Duration::from_secs(1);

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
    fn bytes(&self) -> usize {
        self.key.map_or(0, str::len) + self.value.map_or(0, <[u8]>::len)
    }

    fn sent(&self) -> Sent {
        Sent { name: self.name.to_owned(), topic: self.topic, bytes: self.bytes() }
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

/// A transaction that took effect.
pub(super) struct Done {
    /// The earliest time that a broker gave to one of its records.
    pub(super) first_at: Option<Timestamp>,
    /// Since when: nobody may have asked at once.
    pub(super) since: Stopwatch,
}

/// What came of a transaction.
pub(super) type Ended = Result<Done, Failure>;

/// Why a transaction did not come to its end, before it is known of which record that is told.
struct Stopped {
    how: How,
    error: KafkaError,
    /// The record's place.
    of: Option<usize>,
}

enum How {
    Aborted,
    /// Nor could it be aborted, for this.
    NotAborted(Box<KafkaError>),
    Dead,
    Unknown,
}

impl Stopped {
    fn dead(error: KafkaError) -> Self {
        Stopped { how: How::Dead, error, of: None }
    }

    /// As it is told of what was sent.
    fn told(self, sent: impl Fn(usize) -> Option<Sent>) -> Failure {
        let Stopped { how, error, of } = self;
        let given = || of.and_then(sent).map_or_else(|| errors::of_reading(&error), |sent| sent.refused(&error));
        match how {
            How::Dead => Failure::Dead(error),
            How::Unknown => Failure::Unknown(error),
            // What needs a person is told as what it is, and not as what it led to.
            How::NotAborted(failed) => match given() {
                fatal @ LogError::Fatal { .. } => Failure::Nothing(fatal),
                _ => Failure::Dead(*failed),
            },
            How::Aborted if error.rdkafka_error_code().is_some_and(errors::is_outside) => Failure::Outside(error),
            How::Aborted => Failure::Nothing(given()),
        }
    }
}

/// A transaction that comes to its end by itself: it takes long, or there is something else to be done meanwhile.
pub(super) struct Lasting {
    /// What it waited for when it was left alone.
    pub(super) waits_for: String,
    sent: Vec<Sent>,
    ends: Apart<Result<Done, Stopped>>,
    course: Arc<Course>,
}

impl Lasting {
    pub(super) fn began(&self) -> Stopwatch {
        self.ends.began
    }

    /// What came of it, where it came to its end within `wait`.
    pub(super) fn ended(&self, wait: Duration) -> Option<Ended> {
        Some(told(self.ends.ended(wait)?, |index| self.sent.get(index).cloned()))
    }

    /// Leaves it behind, as its client has lost the cluster: none of it takes effect any more, or that is not known.
    pub(super) fn give_up(self) -> Ended {
        let has_ended = || self.ended(Duration::ZERO);
        if self.course.give_up() {
            return Err(Failure::Dead(KafkaError::Canceled));
        }
        has_ended().unwrap_or(Err(Failure::Unknown(KafkaError::Canceled)))
    }
}

/// How far a transaction has come that may be left behind: once nobody waits for it any more, it is not committed any more.
#[derive(Default)]
struct Course(Mutex<Stage>);

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The commit itself is asked for.
    Commits,
    GivenUp,
}

impl Course {
    fn moves_to(&self, next: Stage) -> bool {
        let mut stage = lock(&self.0);
        if *stage == Stage::Open {
            *stage = next;
        }
        *stage == next
    }

    /// Before the commit is asked for: whether it may be.
    fn commits(&self) -> bool {
        self.moves_to(Stage::Commits)
    }

    /// Nobody waits any more: whether the commit was not asked for, and never will be.
    fn give_up(&self) -> bool {
        self.moves_to(Stage::GivenUp)
    }

    fn is_given_up(&self) -> bool {
        *lock(&self.0) == Stage::GivenUp
    }
}

/// What came of a transaction, told of what was sent.
fn told(ended: Result<Result<Done, Stopped>, Lost>, sent: impl Fn(usize) -> Option<Sent>) -> Ended {
    match ended {
        Ok(ended) => ended.map_err(|stopped| stopped.told(sent)),
        Err(Lost) => Err(Failure::Unknown(KafkaError::Canceled)),
    }
}

/// Of what was not taken the record for whose sake the rest was not. A broker refuses all that came in one request with a record that is too large: the largest is the one.
fn to_blame(refused: Vec<(usize, KafkaError)>, sizes: &[usize]) -> Option<(usize, KafkaError)> {
    refused.into_iter().max_by_key(|(index, error)| (!is_taken_back(error), sizes.get(*index).copied(), std::cmp::Reverse(*index)))
}

/// Whether the client took the record back itself, as another one was refused: that does not say why.
fn is_taken_back(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight))
}

/// What a commit came to.
pub(super) enum Commit {
    Ended(Ended),
    Lasts(Lasting),
}

/// A producer that is being made: what an earlier owner of its id left open is ended first, and that lasts as long as nobody leads a partition that it was written to.
/// Dropped, it is given up.
pub(super) struct Beginning {
    given_up: Arc<AtomicBool>,
    is_told: bool,
    makes: Apart<Result<Transactions, LogError>>,
}

impl Beginning {
    /// Why it takes long.
    pub(super) const WAITS_FOR: &str = "Kafka: what was written last of this partition is not settled yet: a broker that leads what it was written to is away";

    pub(super) fn began(&self) -> Stopwatch {
        self.makes.began
    }

    /// What came of it, where it came to its end within `wait`.
    pub(super) fn ended(&self, wait: Duration) -> Option<Result<Transactions, LogError>> {
        let lost = |Lost| Err(LogError::Retry { reason: "Kafka: a producer could not be made".to_owned() });
        Some(self.makes.ended(wait)?.unwrap_or_else(lost))
    }

    /// Whether it takes so long that it is to be told: once.
    pub(super) fn is_to_be_told(&mut self) -> bool {
        self.began().elapsed() >= TOLD_AFTER && !std::mem::replace(&mut self.is_told, true)
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::SeqCst);
    }
}

/// The producer of one partition.
#[derive(Clone)]
pub(super) struct Transactions {
    producer: Arc<BaseProducer<Reports>>,
    options: Arc<Options>,
}

/// Why a position was not moved.
enum Unmoved {
    Refused(KafkaError),
    /// The call did not come back.
    NoAnswer,
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
    /// Asks whether the client is lost ([`client::is_lost`]).
    pub(super) fn is_lost(&self) -> impl FnOnce() -> bool + Send + 'static {
        let Transactions { producer, options } = self.clone();
        move || client::is_lost(producer.client(), &options)
    }

    /// Ends what an earlier owner of this id left open, and shuts it out. `done` is called when that came to its end while nobody waited for it.
    pub(super) fn begins(options: &Options, id: &str, done: impl FnOnce() + Send + 'static) -> Beginning {
        let given_up = Arc::<AtomicBool>::default();
        let (options, id, is_given_up) = (options.clone(), id.to_owned(), Arc::clone(&given_up));
        let makes = Apart::begin("begin", move || Transactions::make(&options, &id, &is_given_up), done);
        Beginning { given_up, is_told: false, makes }
    }

    fn make(options: &Options, id: &str, is_given_up: &AtomicBool) -> Result<Self, LogError> {
        let options = Arc::new(options.clone());
        let producer: BaseProducer<Reports> = client::transactional(&options, id, Reports { refused: Mutex::default(), first_at: AtomicI64::new(i64::MAX) })?;
        let mut reach = Reach::new();
        loop {
            // librdkafka goes on with it in the next call.
            match producer.init_transactions(BEGINS_IN) {
                Ok(()) => return Ok(Transactions { producer: Arc::new(producer), options }),
                Err(error) if errors::of_step(&error) == Step::Again && !is_given_up.load(Ordering::SeqCst) => {
                    if reach.is_due() && client::is_lost(producer.client(), &options) {
                        return Err(errors::of_reading(&error));
                    }
                }
                Err(error) => return Err(errors::of_reading(&error)),
            }
        }
    }

    /// Commits records, and a position where there is one. Where that takes long it goes on by itself; `done` is called when it came to its end then.
    pub(super) fn commit(
        &self,
        puts: &[Put<'_>],
        position: Option<(TopicPartitionList, ConsumerGroupMetadata)>,
        soon: Duration,
        done: impl FnOnce() + Send + 'static,
    ) -> Commit {
        let began = Stopwatch::start();
        let of_puts = |index: usize| puts.get(index).map(Put::sent);
        if let Err(error) = self.producer.begin_transaction() {
            let how = if errors::of_step(&error) == Step::Dead { How::Dead } else { How::Aborted };
            return Commit::Ended(Err(Stopped { how, error, of: None }.told(of_puts)));
        }
        lock(&self.producer.context().refused).clear();
        self.producer.context().first_at.store(i64::MAX, Ordering::Relaxed);
        let unsent = puts.iter().enumerate().find_map(|(index, put)| Some((index, self.send(index, put, began).err()?)));
        self.hear_within(began, soon);
        let left = self.producer.in_flight_count();
        let sizes: Vec<usize> = puts.iter().map(Put::bytes).collect();
        let (transactions, course) = (self.clone(), Arc::<Course>::default());
        let follows = Arc::clone(&course);
        let ends = Apart::begin("commit", move || transactions.end(unsent, &sizes, position, began, &follows), done);
        // What was taken is committed in a moment.
        let wait = soon.saturating_sub(began.elapsed()).max(if left > 0 { Duration::ZERO } else { soon.min(ENDS_IN) });
        if let Some(ended) = ends.ended(wait) {
            return Commit::Ended(told(ended, of_puts));
        }
        let sent: Vec<Sent> = puts.iter().map(Put::sent).collect();
        let waits_for = if left > 0 {
            let mut names: Vec<&str> = sent.iter().map(|sent| &*sent.name).collect();
            names.sort_unstable();
            names.dedup();
            format!("Kafka: {left} of {} records for {} are not taken yet", sent.len(), names.join(", "))
        } else {
            "Kafka: the brokers that keep the positions of groups and the outcome of transactions have not answered yet".to_owned()
        };
        Commit::Lasts(Lasting { waits_for, sent, ends, course })
    }

    /// Waits until each record was taken or refused, or so long has passed since the beginning.
    fn hear_within(&self, started: Stopwatch, time: Duration) {
        while self.producer.in_flight_count() > 0 && started.elapsed() < time {
            self.hear(&started);
        }
    }

    /// Waits for what was sent, and commits. `sizes` has the bytes of each record; `unsent` is the first that could not be sent.
    fn end(
        &self,
        unsent: Option<(usize, KafkaError)>,
        sizes: &[usize],
        position: Option<(TopicPartitionList, ConsumerGroupMetadata)>,
        began: Stopwatch,
        course: &Course,
    ) -> Result<Done, Stopped> {
        let give_up = |error, of| self.give_up(error, of, || course.is_given_up());
        if let Some((index, error)) = unsent {
            return give_up(error, Some(index));
        }
        self.hear_within(began, self.options.patience);
        let refused = std::mem::take(&mut *lock(&self.producer.context().refused));
        if let Some((index, error)) = to_blame(refused, sizes) {
            // The transaction says why, which librdkafka commits no more then.
            let why = if is_taken_back(&error) { self.producer.commit_transaction(Timeout::Never).err() } else { None };
            return give_up(why.unwrap_or(error), Some(index));
        }
        if let Some((offsets, group)) = position {
            match self.send_offsets(offsets, group, self.options.patience.min(self.options.transaction_timeout)) {
                Ok(()) => {}
                Err(Unmoved::Refused(error)) => return give_up(error, None),
                Err(Unmoved::NoAnswer) => return Err(Stopped::dead(KafkaError::Canceled)),
            }
        }
        if !course.commits() {
            return Err(Stopped::dead(KafkaError::Canceled));
        }
        loop {
            // Any other time-out may leave librdkafka in a state that is not the broker's.
            match self.producer.commit_transaction(Timeout::Never) {
                Ok(()) => {
                    let first_at = self.producer.context().first_at.load(Ordering::Relaxed);
                    let first_at = (first_at < i64::MAX).then_some(Timestamp::from_millis(first_at));
                    return Ok(Done { first_at, since: Stopwatch::start() });
                }
                Err(error) => match errors::of_step(&error) {
                    Step::Again => {}
                    Step::Abort => return give_up(error, None),
                    Step::Dead => return Err(Stopped { how: How::Unknown, error, of: None }),
                },
            }
        }
    }

    /// Whether a position could be moved: asks the group's coordinator, and leaves all as it is.
    pub(super) fn would_move(&self, offsets: TopicPartitionList, group: ConsumerGroupMetadata, within: Duration) -> Result<(), Failure> {
        self.producer.begin_transaction().map_err(Failure::Dead)?;
        match self.send_offsets(offsets, group, within) {
            Ok(()) => self.producer.abort_transaction(Timeout::After(within)).map_err(Failure::Dead),
            Err(Unmoved::Refused(error)) => {
                let since = Stopwatch::start();
                self.give_up(error, None, || since.elapsed() >= within).map(drop).map_err(|stopped| stopped.told(|_| None))
            }
            Err(Unmoved::NoAnswer) => Err(Failure::Dead(KafkaError::Canceled)),
        }
    }

    /// On a thread of its own, which is left behind where the call does not come back: librdkafka has been seen to wait for good when the group's coordinator was a
    /// broker that died. The producer is dead then; the broker ends its transaction.
    fn send_offsets(&self, offsets: TopicPartitionList, group: ConsumerGroupMetadata, patience: Duration) -> Result<(), Unmoved> {
        let (producer, started) = (Arc::clone(&self.producer), Stopwatch::start());
        let asks = move || loop {
            match producer.send_offsets_to_transaction(&offsets, &group, patience) {
                Err(error) if errors::of_step(&error) == Step::Again && started.elapsed() < patience => {}
                outcome => return outcome,
            }
        };
        match Apart::begin("offsets", asks, || {}).ended(patience + COMES_BACK) {
            Some(Ok(outcome)) => outcome.map_err(Unmoved::Refused),
            None | Some(Err(Lost)) => Err(Unmoved::NoAnswer),
        }
    }

    fn send(&self, index: usize, put: &Put<'_>, started: Stopwatch) -> Result<(), KafkaError> {
        let mut record: BaseRecord<'_, str, [u8], usize> = BaseRecord::with_opaque_to(put.name, index).partition(client::number(put.partition));
        (record.key, record.payload, record.headers) = (put.key, put.value, put.headers.clone());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) if started.elapsed() < self.options.patience => {
                    self.hear(&started);
                    record = again;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Takes what the broker said of records; where that is nothing, it waits a moment, which is longer the longer ago `since` is. A poll of the client with a time-out spins on a core for
    /// what is less than a millisecond of it.
    fn hear(&self, since: &Stopwatch) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() >= before {
            std::thread::sleep((since.elapsed() / 8).clamp(MOMENT, LONGEST_MOMENT));
        }
    }

    /// Aborts, where that is still possible, until it `is_over`. Always tells why.
    fn give_up(&self, error: KafkaError, of: Option<usize>, is_over: impl Fn() -> bool) -> Result<Done, Stopped> {
        if self.producer.client().fatal_error().is_some() || errors::of_step(&error) == Step::Dead && matches!(error, KafkaError::Transaction(_)) {
            return Err(Stopped { how: How::Dead, error, of });
        }
        // It waits until it was told what became of each record, to which nobody but this thread listens.
        let since = Stopwatch::start();
        loop {
            let tells = self.producer.in_flight_count() > 0;
            match self.producer.abort_transaction(Timeout::After(if tells { TELLS } else { ABORTS_IN })) {
                Ok(()) => return Err(Stopped { how: How::Aborted, error, of }),
                // Where it took too long, librdkafka goes on with it in the next call.
                Err(error) if errors::of_step(&error) == Step::Again && !is_over() => {
                    if tells {
                        self.hear(&since);
                    }
                }
                Err(failed) => return Err(Stopped { how: How::NotAborted(Box::new(failed)), error, of }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client took back as another record was refused is not to blame, however large.
    #[test]
    fn the_largest_of_what_a_broker_refused_is_to_blame() {
        let refused = |codes: &[Code]| codes.iter().map(|code| KafkaError::MessageProduction(*code)).enumerate().collect::<Vec<_>>();
        let blamed = |codes: &[Code], sizes: &[usize]| to_blame(refused(codes), sizes).map(|(index, _)| index);
        let (large, back) = (Code::MessageSizeTooLarge, Code::PurgeQueue);
        assert_eq!(blamed(&[large, large, large], &[3, 9, 9]), Some(1));
        assert_eq!(blamed(&[back, large, large, Code::PurgeInflight], &[10, 3, 4, 20]), Some(2));
        assert_eq!(blamed(&[back, back], &[1, 2]), Some(1));
        assert_eq!(blamed(&[], &[]), None);
    }

    /// Who leaves a transaction behind repeats what is in it: it must not be committed after that.
    #[test]
    fn what_is_left_behind_is_committed_no_more_and_what_is_being_committed_is_not_known() {
        let left = Course::default();
        assert!(!left.is_given_up() && left.give_up() && left.is_given_up());
        assert!(!left.commits());
        let commits = Course::default();
        assert!(commits.commits() && !commits.give_up() && !commits.is_given_up());
    }
}
