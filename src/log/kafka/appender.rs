//! Appends that no input caused: acknowledged by all in-sync replicas, without a transaction.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};

use super::topics::Names;
use super::{Options, client, errors};
use crate::log::coordinator::lock;
use crate::log::{LogError, Offset, RawAppend, Topic};
use crate::runtime::clock::Stopwatch;

/// How long a full queue is waited for at a time.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How long the client is listened to at a time while a call is under way: what it tells is heard at once, and the end of the wait spins for what is
/// less than a millisecond of it.
const LISTEN: Duration = Duration::from_millis(100);

/// What the client has to say besides is heard at least so often.
const IDLE: Duration = Duration::from_secs(10);

/// How long the records of other partitions are waited for before all that a producer holds is given up with one that takes too long.
const OTHERS_END: Duration = Duration::from_secs(1);

type Producer = Arc<BaseProducer<Deliveries>>;

/// The producer that all callers share. One that met a fault that it cannot go on after (rights that it lacks, a partition that was cut short), or holds a record that takes too
/// long, takes nothing any more, and another one is made in its place; it is heard on until nobody waits for it.
struct Producers {
    current: Made,
    retired: Vec<Made>,
}

struct Made {
    producer: Producer,
    /// How long a record may take.
    lasts: Duration,
    /// Since when it holds one that took longer, until it has given up all that it holds.
    late: Option<Stopwatch>,
    /// It held such a one: it takes nothing more.
    is_over: bool,
}

impl Made {
    fn new(options: &Options) -> Result<Made, LogError> {
        let (producer, lasts) = client::idempotent(options, Deliveries)?;
        Ok(Made { producer: Arc::new(producer), lasts, late: None, is_over: false })
    }
}

impl Producers {
    fn all(&mut self) -> impl Iterator<Item = &mut Made> {
        std::iter::once(&mut self.current).chain(&mut self.retired)
    }

    /// Gives up what takes too long: all that its producer holds at once, as the client would number anew what is left.
    fn give_up(&mut self, begun: &mut VecDeque<(Stopwatch, Weak<Waiting>)>) {
        while let Some((since, waiting)) = begun.front().map(|(since, waiting)| (*since, waiting.upgrade())) {
            // All of it is known.
            let Some(waiting) = waiting else {
                begun.pop_front();
                continue;
            };
            let of = self.all().find(|made| Arc::ptr_eq(&made.producer, &waiting.producer));
            let Some(made) = of.filter(|made| since.elapsed() >= made.lasts) else { break };
            made.late.get_or_insert_with(Stopwatch::start);
            made.is_over = true;
            begun.pop_front();
        }
        for made in self.all().filter(|made| made.late.is_some_and(|late| late.elapsed() >= OTHERS_END)) {
            made.producer.purge(PurgeConfig::default().queue().inflight());
            made.late = None;
        }
    }
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
    /// Those that may still be under way, the oldest first.
    begun: VecDeque<(Stopwatch, Weak<Waiting>)>,
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
            let UnderWay { calls, ended, .. } = *under_way;
            drop(under_way);
            if ended {
                return;
            }
            let (current, retired) = {
                let mut producers = lock(producers);
                producers.give_up(&mut lock(&self.under_way).begun);
                let retired: Vec<Producer> = producers.retired.iter().map(|made| Arc::clone(&made.producer)).collect();
                (Arc::clone(&producers.current.producer), retired)
            };
            for producer in &retired {
                producer.poll(Duration::ZERO);
            }
            let wait = if retired.is_empty() { LISTEN } else { QUEUE_PAUSE };
            drop(retired);
            current.poll(if calls > 0 { wait } else { Duration::ZERO });
            // Those of which only the list knows are waited for by nobody; to end one takes a moment, without the lock.
            let over: Vec<Made> = lock(producers).retired.extract_if(.., |made| Arc::strong_count(&made.producer) == 1).collect();
            drop(over);
        }
    }
}

/// Takes the reports of what was sent to those who wait for them.
struct Deliveries;

/// A record's place among those of its call.
type Place = Box<(Arc<Waiting>, usize)>;

/// What is done with what came of a call: where each record was appended, or why it was not.
type Done = Box<dyn FnOnce(Outcomes) + Send>;

/// What came of each record of a call, in their order.
pub(super) struct Outcomes {
    records: Vec<Sent>,
    results: Vec<Result<Offset, KafkaError>>,
}

/// A record that was sent.
struct Sent {
    topic: Topic,
    partition: u32,
    name: Arc<str>,
    bytes: usize,
}

/// The records of one call, until it is known what came of all of them.
struct Waiting {
    records: Mutex<Vec<Sent>>,
    results: Mutex<Results>,
    /// It is heard until then.
    producer: Producer,
    calls: Arc<Calls>,
}

struct Results {
    of: Vec<Option<Result<Offset, KafkaError>>>,
    open: usize,
    done: Option<Done>,
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
        self.ends(results);
    }

    /// Says what came of it, where all of it is known.
    fn ends(&self, mut results: MutexGuard<'_, Results>) {
        let Some(done) = (if results.open == 0 { results.done.take() } else { None }) else { return };
        let mut of: Vec<Result<Offset, KafkaError>> = std::mem::take(&mut results.of).into_iter().flatten().collect();
        drop(results);
        // What the client says of each is only that there was a fault, or that it was never sent; or that it was given up, since it took too long.
        let fault = self.producer.client().fatal_error().map(|(fault, _)| fault);
        for result in &mut of {
            let why = match result.as_ref().map_err(KafkaError::rdkafka_error_code) {
                Err(Some(Code::Fatal | Code::PurgeQueue)) if fault.is_some() => fault,
                Err(Some(Code::PurgeQueue | Code::PurgeInflight)) => Some(Code::MessageTimedOut),
                _ => None,
            };
            if let Some(why) = why {
                *result = Err(KafkaError::MessageProduction(why));
            }
        }
        self.calls.change(|under_way| under_way.calls -= 1);
        done(Outcomes { records: std::mem::take(&mut lock(&self.records)), results: of });
    }
}

impl Outcomes {
    /// The offset of each. What may be there is never told as refused: whoever sends it again could double it.
    pub(super) fn of_all(&self) -> Result<Vec<Offset>, LogError> {
        came_of(self.told())
    }

    /// What came of the records of each partition.
    pub(super) fn by_partition(&self) -> BTreeMap<(Topic, u32), Result<(), LogError>> {
        let partitions: BTreeSet<(Topic, u32)> = self.records.iter().map(|sent| (sent.topic, sent.partition)).collect();
        let of = |place: (Topic, u32)| (place, came_of(self.told().filter(move |(sent, _)| (sent.topic, sent.partition) == place)).map(drop));
        partitions.into_iter().map(of).collect()
    }

    fn told(&self) -> impl Iterator<Item = (&Sent, &Result<Offset, KafkaError>)> {
        self.records.iter().zip(&self.results)
    }
}

impl Appender {
    pub(super) fn new(options: &Options) -> Result<Self, LogError> {
        let current = Made::new(options)?;
        let producers = Arc::new(Mutex::new(Producers { current, retired: Vec::new() }));
        let calls = Arc::new(Calls::default());
        let (heard, of) = (Arc::clone(&producers), Arc::clone(&calls));
        let listener = std::thread::Builder::new().name("appender".to_owned()).spawn(move || of.listen(&heard));
        let listener = listener.map_err(|error| LogError::Fatal { reason: format!("a thread cannot be started: {error}") })?;
        Ok(Appender { producers, patience: options.patience, calls, listener: Some(listener) })
    }

    /// Appends what a call has, and waits until it is known what came of all of it.
    pub(super) fn append(&self, options: &Options, names: &Names, appends: &[RawAppend]) -> Result<Vec<Offset>, LogError> {
        let (done, told) = channel();
        self.begin(options, names, appends, Box::new(move |outcomes| drop(done.send(outcomes))));
        match told.recv_timeout(self.patience) {
            Ok(outcomes) => outcomes.of_all(),
            Err(_) => Err(LogError::Unknown { reason: format!("Kafka: no answer within {} s", self.patience.as_secs()) }),
        }
    }

    /// Sends what a call has; `done` hears, on a thread of the client, what came of all of it, once that is known: what takes longer than a record may is given up.
    pub(super) fn begin(&self, options: &Options, names: &Names, appends: &[RawAppend], done: Done) {
        let producer = self.producer(options);
        let sent = |append: &RawAppend| {
            let (topic, partition) = (append.topic, append.partition);
            Sent { topic, partition, name: Arc::from(names.of(topic)), bytes: append.value.len() }
        };
        let waiting = Arc::new(Waiting {
            records: Mutex::new(appends.iter().map(sent).collect()),
            results: Mutex::new(Results { of: vec![None; appends.len()], open: appends.len(), done: Some(done) }),
            producer: Arc::clone(&producer),
            calls: Arc::clone(&self.calls),
        });
        let started = Stopwatch::start();
        self.calls.change(|under_way| {
            under_way.calls += 1;
            under_way.begun.push_back((started, Arc::downgrade(&waiting)));
        });
        for (index, append) in appends.iter().enumerate() {
            let name = names.of(append.topic);
            let mut record = BaseRecord::with_opaque_to(name, Box::new((Arc::clone(&waiting), index))).partition(client::number(append.partition));
            (record.key, record.payload) = (append.key.as_deref(), Some(append.value.as_slice()));
            record.headers = options.headers(name, append);
            self.send(&producer, record, index, &started, &waiting);
        }
        if appends.is_empty() {
            waiting.ends(lock(&waiting.results));
        }
    }

    /// The one that takes what is sent: another one in place of one that takes nothing any more.
    fn producer(&self, options: &Options) -> Producer {
        let mut producers = lock(&self.producers);
        if producers.current.is_over || producers.current.producer.client().fatal_error().is_some() {
            match Made::new(options) {
                Ok(made) => {
                    let retired = std::mem::replace(&mut producers.current, made);
                    producers.retired.push(retired);
                }
                Err(error) => tracing::error!(event = "kafka", %error, "another producer cannot be made; the next append tries again"),
            }
        }
        Arc::clone(&producers.current.producer)
    }

    /// Hands a record to the client, when there is room for it.
    fn send(&self, producer: &Producer, mut record: BaseRecord<'_, str, [u8], Place>, index: usize, started: &Stopwatch, waiting: &Waiting) {
        loop {
            match producer.send(record) {
                Ok(()) => return,
                // Until some of what waits is told.
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) if started.elapsed() < self.patience => {
                    record = again;
                    std::thread::sleep(QUEUE_PAUSE);
                }
                Err((error, _)) => return waiting.told(index, Err(error)),
            }
        }
    }
}

/// What came of some records. What may be there is never told as refused: whoever sends it again could double it.
fn came_of<'a>(told: impl Iterator<Item = (&'a Sent, &'a Result<Offset, KafkaError>)>) -> Result<Vec<Offset>, LogError> {
    let (mut offsets, mut refused, mut is_open) = (Vec::new(), None, false);
    for (sent, result) in told {
        match result {
            Ok(offset) => offsets.push(*offset),
            Err(error) => {
                is_open |= errors::may_be_stored(error);
                refused.get_or_insert(errors::of_delivery(error, sent.topic, &sent.name, sent.bytes));
            }
        }
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

    /// What may be there is unknown, what cannot be there is refused, and of a call with both all is unknown. One partition's failure is none of another one's.
    #[test]
    fn what_may_be_there_is_never_told_as_refused() {
        let came = |told: &[(u32, Result<Offset, KafkaError>)]| {
            let sent = |(partition, _): &(u32, _)| Sent { topic: Topic::Metrics, partition: *partition, name: Arc::from("test.metrics"), bytes: 9 };
            Outcomes { records: told.iter().map(sent).collect(), results: told.iter().map(|(_, result)| result.clone()).collect() }
        };
        let of = |told: &[Result<Offset, KafkaError>]| came(&told.iter().map(|result| (0, result.clone())).collect::<Vec<_>>()).of_all();
        let failed = |code| Err(KafkaError::MessageProduction(code));
        assert_eq!(of(&[Ok(3), Ok(4)]).unwrap(), [3, 4]);
        assert!(matches!(of(&[failed(Code::MessageTimedOut)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::QueueFull)]), Err(LogError::Retry { .. })));
        assert!(matches!(of(&[failed(Code::QueueFull), Ok(1)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::MessageSizeTooLarge)]), Err(LogError::TooLarge { bytes: 9, .. })));
        assert!(matches!(of(&[Ok(1), failed(Code::MessageSizeTooLarge)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::UnknownTopicOrPartition)]), Err(LogError::Fatal { .. })));
        assert!(matches!(of(&[Ok(1), failed(Code::UnknownTopicOrPartition)]), Err(LogError::Unknown { .. })));
        assert!(matches!(of(&[failed(Code::MessageTimedOut), failed(Code::TopicAuthorizationFailed)]), Err(LogError::Unknown { .. })));
        let outcomes = came(&[(3, Ok(1)), (0, Ok(7)), (3, failed(Code::QueueFull))]).by_partition();
        assert!(outcomes[&(Topic::Metrics, 0)].is_ok());
        assert!(matches!(outcomes[&(Topic::Metrics, 3)], Err(LogError::Unknown { .. })) && outcomes.len() == 2, "{outcomes:?}");
    }
}
