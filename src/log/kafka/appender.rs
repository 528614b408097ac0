//! Appends that no input caused: acknowledged by all in-sync replicas, without a transaction.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::topics::Names;
use super::{Options, client, errors};
use crate::log::coordinator::lock;
use crate::log::{LogError, Offset, RawAppend};
use crate::runtime::clock::Stopwatch;

/// How long a full queue is waited for at a time.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How long the client is listened to at a time while a call is under way: what it tells is heard at once, and the end of the wait spins for what is
/// less than a millisecond of it.
const LISTEN: Duration = Duration::from_millis(100);

/// What the client has to say besides is heard at least so often.
const IDLE: Duration = Duration::from_secs(10);

type Producer = Arc<BaseProducer<Deliveries>>;

/// The producer that all callers share. One that met a fault that it cannot go on after (rights that it lacks, a partition that was cut short) takes nothing any
/// more, and another one is made in its place; it is heard on until nobody waits for it.
#[derive(Clone)]
struct Producers {
    current: Producer,
    retired: Vec<Producer>,
}

/// Appends for all callers.
pub(super) struct Appender {
    producers: Arc<Mutex<Producers>>,
    patience: Duration,
    calls: Arc<Calls>,
    listener: Option<JoinHandle<()>>,
}

/// The calls that are under way.
#[derive(Default)]
struct Calls {
    under_way: Mutex<UnderWay>,
    changed: Condvar,
}

#[derive(Default)]
struct UnderWay {
    calls: usize,
    ended: bool,
}

impl Calls {
    fn change(&self, change: impl FnOnce(&mut UnderWay)) {
        change(&mut lock(&self.under_way));
        self.changed.notify_all();
    }

    /// Hears what the client tells, as long as somebody waits for it; a client that nobody waits for costs nothing.
    fn listen(&self, producers: &Mutex<Producers>) {
        loop {
            let nobody = |under_way: &mut UnderWay| under_way.calls == 0 && !under_way.ended;
            let (under_way, _) = self.changed.wait_timeout_while(lock(&self.under_way), IDLE, nobody).unwrap_or_else(PoisonError::into_inner);
            let UnderWay { calls, ended } = *under_way;
            drop(under_way);
            if ended {
                return;
            }
            let Producers { current, retired } = lock(producers).clone();
            for producer in &retired {
                producer.poll(Duration::ZERO);
            }
            let wait = if retired.is_empty() { LISTEN } else { QUEUE_PAUSE };
            drop(retired);
            current.poll(if calls > 0 { wait } else { Duration::ZERO });
            // Those of which only the list knows are waited for by nobody; to end one takes a moment, without the lock.
            let over: Vec<Producer> = lock(producers).retired.extract_if(.., |producer| Arc::strong_count(producer) == 1).collect();
            drop(over);
        }
    }
}

/// Takes the reports of what was sent to those who wait for them.
struct Deliveries;

/// A record's place among those of its call.
type Place = Box<(Arc<Waiting>, usize)>;

/// The records of one call, and what came of them.
struct Waiting {
    results: Mutex<Results>,
    told: Condvar,
}

struct Results {
    /// The offset of each record, or why it has none; `None` until that is known.
    of: Vec<Option<Result<Offset, KafkaError>>>,
    open: usize,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        client::said(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Place;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (waiting, index) = *opaque;
        let result = match result {
            Ok(message) => Ok(client::offset(message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        waiting.told(index, result);
    }
}

impl Waiting {
    fn told(&self, index: usize, result: Result<Offset, KafkaError>) {
        let mut results = lock(&self.results);
        if let Some(slot) = results.of.get_mut(index)
            && slot.replace(result).is_none()
        {
            results.open -= 1;
        }
        if results.open == 0 {
            self.told.notify_all();
        }
    }
}

impl Appender {
    pub(super) fn new(options: &Options) -> Result<Self, LogError> {
        let current = Arc::new(client::idempotent(options, Deliveries)?);
        let producers = Arc::new(Mutex::new(Producers { current, retired: Vec::new() }));
        let calls = Arc::new(Calls::default());
        let (heard, of) = (Arc::clone(&producers), Arc::clone(&calls));
        let listener = std::thread::Builder::new().name("appender".to_owned()).spawn(move || of.listen(&heard));
        let listener = listener.map_err(|error| LogError::Fatal { reason: format!("a thread cannot be started: {error}") })?;
        Ok(Appender { producers, patience: options.patience, calls, listener: Some(listener) })
    }

    /// Appends what each of the calls has, and waits until it is known what came of all of it: the offsets of each, in their order.
    pub(super) fn append(&self, options: &Options, names: &Names, calls: &[&[RawAppend]]) -> Vec<Result<Vec<Offset>, LogError>> {
        let producer = Arc::clone(&lock(&self.producers).current);
        self.calls.change(|under_way| under_way.calls += 1);
        let outcomes = self.send_all(&producer, options, names, calls);
        self.calls.change(|under_way| under_way.calls -= 1);
        if producer.client().fatal_error().is_some() {
            self.replace(&producer, options);
        }
        outcomes
    }

    /// Another producer in place of one that takes nothing any more.
    fn replace(&self, dead: &Producer, options: &Options) {
        let mut producers = lock(&self.producers);
        if !Arc::ptr_eq(&producers.current, dead) {
            return; // somebody else was quicker
        }
        match client::idempotent(options, Deliveries) {
            Ok(producer) => {
                let retired = std::mem::replace(&mut producers.current, Arc::new(producer));
                producers.retired.push(retired);
            }
            Err(error) => tracing::error!(event = "kafka", %error, "another producer cannot be made; the next append tries again"),
        }
    }

    fn send_all(&self, producer: &Producer, options: &Options, names: &Names, calls: &[&[RawAppend]]) -> Vec<Result<Vec<Offset>, LogError>> {
        let all: Vec<&RawAppend> = calls.iter().copied().flatten().collect();
        let results = Results { of: vec![None; all.len()], open: all.len() };
        let waiting = Arc::new(Waiting { results: Mutex::new(results), told: Condvar::new() });
        let started = Stopwatch::start();
        for (index, append) in all.into_iter().enumerate() {
            let name = names.of(append.topic);
            let mut record = BaseRecord::with_opaque_to(name, Box::new((Arc::clone(&waiting), index))).partition(client::number(append.partition));
            (record.key, record.payload) = (append.key.as_deref(), Some(append.value.as_slice()));
            record.headers = options.headers(name, append);
            self.send(producer, record, index, &started, &waiting);
        }
        let left = self.patience.saturating_sub(started.elapsed());
        let guard = lock(&waiting.results);
        let (mut results, _) = waiting.told.wait_timeout_while(guard, left, |results| results.open > 0).unwrap_or_else(PoisonError::into_inner);
        // What the client says of each is only that there was a fault, or that it was never sent.
        if let Some((fault, _)) = producer.client().fatal_error() {
            for result in results.of.iter_mut().flatten() {
                if result.as_ref().is_err_and(|error| matches!(error.rdkafka_error_code(), Some(Code::Fatal | Code::PurgeQueue))) {
                    *result = Err(KafkaError::MessageProduction(fault));
                }
            }
        }
        let mut results = results.of.iter();
        calls.iter().map(|appends| came_of(names, appends.iter().zip(results.by_ref()), self.patience)).collect()
    }

    /// Hands a record to the client, when there is room for it.
    fn send(&self, producer: &Producer, mut record: BaseRecord<'_, str, [u8], Place>, index: usize, started: &Stopwatch, waiting: &Waiting) {
        loop {
            match producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) if started.elapsed() < self.patience => {
                    record = again;
                    // Until some of what waits is told.
                    let guard = lock(&waiting.results);
                    drop(waiting.told.wait_timeout(guard, QUEUE_PAUSE).unwrap_or_else(PoisonError::into_inner));
                }
                Err((error, _)) => return waiting.told(index, Err(error)),
            }
        }
    }
}

/// What came of one call. What may be there is never told as refused: whoever sends it again could double it.
fn came_of<'a>(
    names: &Names,
    told: impl Iterator<Item = (&'a RawAppend, &'a Option<Result<Offset, KafkaError>>)>,
    patience: Duration,
) -> Result<Vec<Offset>, LogError> {
    let (mut offsets, mut refused, mut is_open) = (Vec::new(), None, false);
    for (append, result) in told {
        let reason = match result {
            Some(Ok(offset)) => {
                offsets.push(*offset);
                continue;
            }
            Some(Err(error)) => {
                is_open |= errors::may_be_stored(error);
                errors::of_delivery(error, append.topic, names.of(append.topic), append.value.len())
            }
            None => {
                is_open = true;
                LogError::Retry { reason: format!("Kafka: no answer within {} s", patience.as_secs()) }
            }
        };
        refused.get_or_insert(reason);
    }
    match refused {
        None => Ok(offsets),
        Some(LogError::Retry { reason } | LogError::Fatal { reason }) if is_open || !offsets.is_empty() => Err(LogError::Unknown { reason }),
        Some(error) if is_open || !offsets.is_empty() => Err(LogError::Unknown { reason: error.to_string() }),
        Some(error) => Err(error),
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.calls.change(|under_way| under_way.ended = true);
        if let Some(listener) = self.listener.take() {
            // It has nothing to say of its end.
            let _ = listener.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Topic;

    /// What may be there is unknown, what cannot be there is refused, and of a call with both all is unknown.
    #[test]
    fn what_may_be_there_is_never_told_as_refused() {
        let names = Names::new("test.").unwrap();
        let append = RawAppend { topic: Topic::Metrics, partition: 0, key: None, value: vec![0; 9] };
        let of = |told: &[Option<Result<Offset, KafkaError>>]| came_of(&names, told.iter().map(|told| (&append, told)), Duration::from_secs(1));
        let failed = |code| Some(Err(KafkaError::MessageProduction(code)));
        assert_eq!(of(&[Some(Ok(3)), Some(Ok(4))]).unwrap(), [3, 4]);
        assert!(matches!(of(&[failed(Code::MessageTimedOut)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[None]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::QueueFull)]), Err(LogError::Retry { .. })));
        assert!(matches!(of(&[failed(Code::QueueFull), Some(Ok(1))]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::MessageSizeTooLarge)]), Err(LogError::TooLarge { bytes: 9, .. })));
        assert!(matches!(of(&[Some(Ok(1)), failed(Code::MessageSizeTooLarge)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::UnknownTopicOrPartition)]), Err(LogError::Fatal { .. })));
        assert!(matches!(of(&[Some(Ok(1)), failed(Code::UnknownTopicOrPartition)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[None, failed(Code::TopicAuthorizationFailed)]), Err(LogError::Unknown { .. })));
    }
}
