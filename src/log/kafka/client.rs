//! The clients of librdkafka, with every setting that a promise of Loadline rests on, and why it is as it is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupList;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, ProducerContext};
use rdkafka::{ClientContext, Offset as At, TopicPartitionList};

use super::Options;
use super::apart::Apart;
use super::errors::{self, unusable};
use super::settings::with_settings;
use super::topics::group_name;
use crate::log::coordinator::lock;
use crate::log::{LogError, MAX_RECORD_BYTES, Offset, Topic};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// The largest record, with room for its headers; clients and topics both say it.
pub const LARGEST_MESSAGE: usize = MAX_RECORD_BYTES + 64 * 1024;

/// How soon a question is asked again that has no answer yet.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// librdkafka reads nothing without a group. This one has no members and commits nothing, and whoever reads must be allowed it.
pub const READERS: &str = "readers";

/// A consumer that is no member of a group.
pub(super) type Consumer = BaseConsumer<Quiet>;

/// Takes what librdkafka has to say of connections into the log of the program, where it is looked for.
pub(super) struct Quiet {
    /// Since when it has had no answer to what is on the cluster, or none with a broker: at first since it was made. And whether it was asked in vain.
    unanswered: Mutex<(Stopwatch, bool)>,
}

impl Quiet {
    pub(super) fn new() -> Self {
        Quiet { unanswered: Mutex::new((Stopwatch::start(), false)) }
    }

    fn answered(&self, is_answered: bool) {
        let mut unanswered = lock(&self.unanswered);
        *unanswered = if is_answered { (Stopwatch::start(), false) } else { (unanswered.0, true) };
    }

    /// Whether the client may be lost ([`super::reach`]): whoever asks on asks another one.
    pub(super) fn may_be_lost(&self) -> bool {
        let (since, in_vain) = *lock(&self.unanswered);
        in_vain && since.elapsed() >= CONNECTS_WITHIN
    }
}

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        said(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// What a client says besides the answers to calls: of brokers that are down, again and again.
pub(super) fn said(error: &KafkaError, reason: &str) {
    tracing::debug!(event = "kafka", %error, reason, "kafka");
}

/// That clients can be made with these settings, which asks for no broker: those of all, and those of who `commits`. What librdkafka finds only where several do not go together is told
/// before anything runs.
///
/// # Errors
/// [`LogError::Fatal`] where one cannot.
pub fn check_together(options: &Options, commits: bool) -> Result<(), LogError> {
    // Ours do.
    if options.settings.is_empty() {
        return Ok(());
    }
    let nowhere = Options { brokers: String::new(), ..options.clone() };
    if commits {
        member(&nowhere, READERS, "none", DefaultConsumerContext).map(drop)?;
        transactional::<BaseProducer<_>, _>(&nowhere, "none", DefaultProducerContext).map(drop)?;
    }
    reader(&nowhere).map(drop)?;
    idempotent::<BaseProducer<_>, _>(&nowhere, DefaultProducerContext).map(drop)
}

/// What all clients share. What the user sets comes last, in [`create`].
fn client(options: &Options) -> ClientConfig {
    // Before librdkafka does, or OpenSSL takes down at the end of the program what threads still use that end then: both free the same memory.
    openssl::init();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "loadline")
        // A topic that is missing is an error with a name, and no topic with a broker's defaults.
        .set("allow.auto.create.topics", "false")
        // A broker that is back is found within a second.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        // A broker that does not answer is given up before the callers are; librdkafka wants it within the time-out of a transaction.
        .set("socket.timeout.ms", millis(options.patience.min(options.transaction_timeout)))
        .set("message.max.bytes", LARGEST_MESSAGE.to_string());
    config
}

fn consumer(options: &Options) -> ClientConfig {
    let mut config = client(options);
    config
        // Positions move with the transactions alone.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What retention took is told, and never skipped.
        .set("auto.offset.reset", "error")
        // What is not committed does not exist; and positions are read when no transaction holds them open.
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        // How long a fetch waits at the broker where nothing comes: what ends it is a record. A partition that is added to those that are read waits for its end, and who has
        // nothing to do is woken by it.
        .set("fetch.wait.max.ms", "500")
        .set("fetch.error.backoff.ms", "100")
        // Of a backlog more is fetched as soon as there is room; librdkafka would look again after a second, when what it had is long used up.
        .set("fetch.queue.backoff.ms", "10")
        // A record is sent on as soon as it is there.
        .set("fetch.min.bytes", "1")
        // Memory: what is read ahead, of all partitions of a client, whichever is reached first; and how much one answer has, of one partition and of all.
        .set("queued.max.messages.kbytes", "16384")
        .set("queued.min.messages", "100000")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "52428800");
    config
}

/// The settings with which every record is read, by their names: for who measures against the bare client. Those of a group are not among them, and
/// librdkafka hides the values of secrets.
///
/// # Errors
/// As [`super::KafkaLog::open`] has of settings.
pub fn reading(options: &Options) -> Result<BTreeMap<String, String>, LogError> {
    let config = with_settings(options, consumer(options))?;
    Ok(config.config_map().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

/// A member of a group.
pub(super) fn member<C: ConsumerContext + 'static>(options: &Options, group: &str, member: &str, context: C) -> Result<BaseConsumer<C>, LogError> {
    create(options, member_config(options, group, member), context)
}

pub(super) fn member_config(options: &Options, group: &str, member: &str) -> ClientConfig {
    let mut config = consumer(options);
    config
        .set("group.id", group)
        // What people see of it: the broker tells who has which partition by this name, and keeps that of a static member over its restarts.
        .set("client.id", if options.static_members { format!("loadline-{member}") } else { own_name(&std::process::id().to_string()) })
        // Session and heartbeat are set here; in the newer protocol they are the brokers', which have a session of 45 s.
        .set("group.protocol", "classic")
        // A partition moves only when it must, and the others are read on meanwhile.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", millis(options.session_timeout))
        // Who polls no more for so long leaves its partitions to others. A broker that takes the group over in the midst of a change waits as long for members that died then, and
        // nothing is given to anybody meanwhile; what is restored in one go takes seconds.
        .set("max.poll.interval.ms", "60000")
        // That the topic got more partitions is seen within this, also by who is never asked how far it has read.
        .set("topic.metadata.refresh.interval.ms", "30000")
        // Who is to take a share over learns of it with its next heartbeat; so does who is to give one.
        .set("heartbeat.interval.ms", millis(options.session_timeout / 12));
    if options.static_members {
        config.set("group.instance.id", member);
    }
    config
}

/// The name by which people see a process of this host.
pub(super) fn own_name(process: &str) -> String {
    format!("loadline-{}-{process}", host_name())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Reads partitions that it is told to, outside of any group.
pub(super) fn reader(options: &Options) -> Result<Consumer, LogError> {
    let mut config = consumer(options);
    config
        .set("group.id", group_name(&options.prefix, READERS))
        .set("enable.partition.eof", "true")
        // The end of a partition is told by a fetch that brings nothing, and a fetch of another partition waits for the one that is under way: for
        // who reads one partition after the other, as a process that takes over does, each wait counts. At the end nothing is fetched any more.
        .set("fetch.wait.max.ms", "10");
    create(options, config, Quiet::new())
}

/// Follows topics, or asks what there is on the cluster, outside of any group; `context` hears what stands in the way.
pub(super) fn listening<C: ConsumerContext + 'static>(options: &Options, context: C) -> Result<BaseConsumer<C>, LogError> {
    let mut config = consumer(options);
    config.set("group.id", group_name(&options.prefix, READERS));
    create(options, config, context)
}

/// Asks for the positions of a group.
pub(super) fn asker(options: &Options, group: &str) -> Result<Consumer, LogError> {
    let mut config = consumer(options);
    config.set("group.id", group);
    create(options, config, Quiet::new())
}

/// Looks at somebody else's group, whose name it bears and which it never joins; sees what is committed, or all.
pub(super) fn onlooker(options: &Options, group: &str, committed: bool) -> Result<Consumer, LogError> {
    let mut config = consumer(options);
    // As for [`reader`]: one topic is counted after the other.
    config.set("group.id", group).set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
    if !committed {
        // Else the positions that a transaction is about to move would be waited for.
        config.set("isolation.level", "read_uncommitted");
    }
    create(options, config, Quiet::new())
}

pub(super) fn producer(options: &Options) -> ClientConfig {
    let mut config = client(options);
    config
        // Acknowledged by all in-sync replicas, in order, and once.
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // As many as a broker keeps in order; what fails is tried again until its time is over, which is told as such.
        .set("max.in.flight.requests.per.connection", "5")
        .set("retries", i32::MAX.to_string())
        // How long a broker waits for the other replicas of what it was sent: by then it is given up here.
        .set("request.timeout.ms", millis(options.transaction_timeout))
        // What is to be sent together is handed over together, so nothing is waited for.
        .set("linger.ms", "0")
        // More than there are in what waits at most, so that no record waits for room that those of a partition take which nobody leads.
        .set("queue.buffering.max.messages", "1000000")
        .set("compression.type", "lz4");
    config
}

/// The producer of the transactions of one partition.
pub(super) fn transactional<P, C>(options: &Options, id: &str, context: C) -> Result<P, LogError>
where
    P: FromClientConfigAndContext<C>,
    C: ProducerContext + 'static,
{
    let mut config = producer(options);
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", millis(options.transaction_timeout))
        // librdkafka wants it below the time-out of the transaction.
        .set("message.timeout.ms", millis(options.transaction_timeout * 9 / 10));
    create(options, config, context)
}

/// The producer of what no input caused, and how long a record may take that it was given: it gives none up by itself. librdkafka numbers anew what is left where it does,
/// and what a broker has stored of that, and not acknowledged yet, would be stored once more.
pub(super) fn idempotent<P, C>(options: &Options, context: C) -> Result<(P, Duration), LogError>
where
    P: FromClientConfigAndContext<C>,
    C: ProducerContext + 'static,
{
    let mut config = producer(options);
    config.set("message.timeout.ms", millis(options.transaction_timeout));
    let mut config = with_settings(options, config)?;
    let lasts = config.get("message.timeout.ms").and_then(|millis| millis.parse().ok()).filter(|millis| *millis > 0);
    config.set("message.timeout.ms", "0");
    let producer = config.create_with_context(context).map_err(|error| unusable(&error))?;
    Ok((producer, lasts.map_or(Duration::MAX, Duration::from_millis)))
}

fn create<T: FromClientConfigAndContext<C>, C: ClientContext>(options: &Options, config: ClientConfig, context: C) -> Result<T, LogError> {
    with_settings(options, config)?.create_with_context(context).map_err(|error| unusable(&error))
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// At least so long: a client waits for whole milliseconds, and spins on a core for what is left of one.
pub(super) fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// A list with one partition.
pub(super) fn one(topic: &str, partition: u32, at: At) -> TopicPartitionList {
    many(topic, [(partition, at)])
}

/// A list of partitions of a topic.
pub(super) fn many(topic: &str, partitions: impl IntoIterator<Item = (u32, At)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, at) in partitions {
        // Refused for logical offsets that no caller gives.
        let _ = list.add_partition_offset(topic, number(partition), at);
    }
    list
}

/// A partition's number as Kafka has it.
pub(super) fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// A partition's number as the port has it; Kafka's own are never negative.
pub(super) fn partition(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// An offset as Kafka has it.
pub(super) fn at(offset: Offset) -> At {
    At::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// An offset as the port has it; Kafka's own are never negative.
pub(super) fn offset(raw: i64) -> Offset {
    Offset::try_from(raw).unwrap_or(0)
}

/// How long it may take the cluster to say that it is there.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// How long a client may take to its first answer: the names of brokers, TLS and a password cost time. And since how long one must have had none to be taken for lost.
pub(super) const CONNECTS_WITHIN: Duration = Duration::from_secs(10);

/// Whether a client is lost ([`super::reach`]): it knows no broker that it could ask, before and after one that was just made has an answer.
pub(super) fn is_lost<C: ClientContext>(client: &Client<C>, options: &Options) -> bool {
    let signals = format!("{}{}", options.prefix, Topic::Signals);
    let answers = || {
        let other = listening(options, Quiet::new());
        other.is_ok_and(|other| other.fetch_metadata(Some(&signals), CONNECTS_WITHIN).is_ok_and(|metadata| !metadata.brokers().is_empty()))
    };
    knows_no_broker(client, &signals) && answers() && knows_no_broker(client, &signals)
}

/// Whether a client finds no broker to ask in so long. One that has a connection and no answer yet does: the question may wait there behind others.
fn knows_no_broker<C: ClientContext>(client: &Client<C>, topic: &str) -> bool {
    match client.fetch_metadata(Some(topic), ANSWERS_WITHIN) {
        Ok(metadata) => metadata.brokers().is_empty(),
        Err(error) => matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)),
    }
}

/// What the cluster says of a topic, or of all.
pub(super) fn metadata(consumer: &Consumer, topic: Option<&str>, patience: Duration) -> Result<Metadata, KafkaError> {
    let answer = consumer.fetch_metadata(topic, patience);
    consumer.context().answered(answer.as_ref().is_ok_and(|metadata| !metadata.brokers().is_empty()));
    answer
}

/// Ends a client that is replaced, which may take long.
pub(super) fn close<T: Send + 'static>(client: T) {
    Apart::begin("close", move || drop(client), || {});
}

/// Who is in a group.
pub(super) fn members(consumer: &Consumer, group: &str, patience: Duration) -> Result<GroupList, KafkaError> {
    consumer.fetch_group_list(Some(group), patience).inspect_err(|_| drop(metadata(consumer, None, patience)))
}

/// Asks about a topic until there is an answer: brokers take a moment to change their parts.
fn patiently<T>(topic: &str, patience: Duration, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, LogError> {
    let started = Stopwatch::start();
    loop {
        match ask() {
            Err(error) if errors::is_passing(&error) && started.elapsed() < patience => std::thread::sleep(ASK_AGAIN),
            outcome => return outcome.map_err(|error| errors::of_topic(&error, topic)),
        }
    }
}

/// The position that the group of `consumer` has committed.
pub(super) fn committed<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: u32, patience: Duration) -> Result<Option<Offset>, LogError> {
    Ok(all_committed(consumer, topic, &[partition], patience)?.into_iter().next().flatten())
}

/// The positions that the group of `consumer` has committed for these partitions, in one question.
pub(super) fn all_committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    patience: Duration,
) -> Result<Vec<Option<Offset>>, LogError> {
    let told = patiently(topic, patience, || {
        let answer = consumer.committed_offsets(many(topic, partitions.iter().map(|partition| (*partition, At::Invalid))), patience)?;
        let of = |partition: &u32| {
            let found = answer.find_partition(topic, number(*partition)).ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
            found.error()?;
            Ok(if let At::Offset(raw) = found.offset() { Some(offset(raw)) } else { None })
        };
        partitions.iter().map(of).collect()
    });
    // A user who may not describe the group is told nothing by librdkafka, which waits for the broker that keeps it.
    told.map_err(|error| match error {
        LogError::Retry { reason } => LogError::Retry {
            reason: format!("{reason}, asked for the positions of a group in {topic}: does the broker run that keeps it, and may this user describe it (`loadline topology acls`)?"),
        },
        error => error,
    })
}

/// The earliest offset that is there, and the next one that readers will see.
pub(super) fn range(consumer: &Consumer, topic: &str, partition: u32, patience: Duration) -> Result<Range<Offset>, LogError> {
    of_leader(consumer, topic, partition, patience, || {
        let (low, high) = consumer.fetch_watermarks(topic, number(partition), patience)?;
        Ok(offset(low)..offset(high))
    })
}

/// Asks whoever leads a partition.
fn of_leader<T>(consumer: &Consumer, topic: &str, partition: u32, patience: Duration, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, LogError> {
    let outcome = patiently(topic, patience, || match ask() {
        // librdkafka says that it does not know a partition also where nobody leads it. That it is gone only a cluster that answers can say.
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) && !is_gone(consumer, topic, partition, patience) => {
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))
        }
        outcome => outcome,
    });
    if matches!(outcome, Err(LogError::Retry { .. })) {
        look_for_leaders(consumer, topic, patience);
    }
    outcome
}

/// Lets the client know who leads the partitions of a topic now: one that reads nothing asks for that by itself minutes later.
pub(super) fn look_for_leaders(consumer: &Consumer, topic: &str, patience: Duration) {
    drop(leaders(consumer, topic, patience));
}

/// As [`crate::log::Log::first_after`].
pub(super) fn first_after(consumer: &Consumer, topic: &str, partition: u32, at: Timestamp, patience: Duration) -> Result<Offset, LogError> {
    // Negative times are words of their own to a broker: it has no record that is older.
    let later = At::Offset(at.as_millis().saturating_add(1).max(0));
    let found = of_leader(consumer, topic, partition, patience, || {
        let answer = consumer.offsets_for_times(one(topic, partition, later), patience)?;
        let found = answer.find_partition(topic, number(partition)).ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
        found.error()?;
        Ok(if let At::Offset(raw) = found.offset() { Some(offset(raw)) } else { None })
    })?;
    match found {
        Some(found) => Ok(found),
        None => Ok(range(consumer, topic, partition, patience)?.end),
    }
}

fn is_gone(consumer: &Consumer, topic: &str, partition: u32, patience: Duration) -> bool {
    leaders(consumer, topic, patience).is_ok_and(|leaders| !leaders.contains_key(&partition))
}

/// The broker that leads each partition; a negative number where none does.
pub(super) fn leaders(consumer: &Consumer, topic: &str, patience: Duration) -> Result<BTreeMap<u32, i32>, KafkaError> {
    let metadata = metadata(consumer, Some(topic), patience)?;
    let of_topic = metadata.topics().iter().filter(|found| found.name() == topic && found.error().is_none());
    Ok(of_topic.flat_map(rdkafka::metadata::MetadataTopic::partitions).map(|found| (partition(found.id()), found.leader())).collect())
}

/// How many partitions a topic has now, where the cluster tells it within `patience`.
pub(super) fn count(consumer: &Consumer, topic: &str, patience: Duration) -> Option<u32> {
    leaders(consumer, topic, patience).ok().map(|leaders| leaders.len()).filter(|count| *count > 0).and_then(|count| u32::try_from(count).ok())
}

/// The next offset that readers will see of each of these partitions, by one question to each broker; those that cannot be told within `patience` are not
/// among them.
pub(super) fn ends(consumer: &Consumer, topic: &str, partitions: &[u32], patience: Duration) -> BTreeMap<u32, Offset> {
    edges(consumer, topic, partitions, At::End, patience)
}

/// As [`ends`], or the earliest offsets that are there.
pub(super) fn edges(consumer: &Consumer, topic: &str, partitions: &[u32], edge: At, patience: Duration) -> BTreeMap<u32, Offset> {
    if partitions.is_empty() {
        return BTreeMap::new();
    }
    let ask = |partitions: &[u32]| -> Result<BTreeMap<u32, Offset>, KafkaError> {
        // That of the latest time is the end, and that of the earliest the beginning.
        let answer = consumer.offsets_for_times(many(topic, partitions.iter().map(|partition| (*partition, edge))), patience)?;
        let told = answer.elements().into_iter().filter(|element| element.error().is_ok());
        Ok(told.filter_map(|element| if let At::Offset(end) = element.offset() { Some((partition(element.partition()), offset(end))) } else { None }).collect())
    };
    let answer = ask(partitions);
    if answer.as_ref().is_ok_and(|told| told.len() == partitions.len()) {
        return answer.unwrap_or_default();
    }
    // Also lets the client know who leads a partition that nobody led before: by itself it does not ask for that.
    let leaders = leaders(consumer, topic, patience).unwrap_or_default();
    answer.unwrap_or_else(|error| {
        // No answer of one broker leaves librdkafka without an answer of any.
        tracing::debug!(event = "kafka", topic, %error, "the ends of partitions are asked for broker by broker");
        let mut led = BTreeMap::<i32, Vec<u32>>::new();
        for partition in partitions {
            if let Some(leader) = leaders.get(partition).filter(|leader| **leader >= 0) {
                led.entry(*leader).or_default().push(*partition);
            }
        }
        led.values().filter_map(|partitions| ask(partitions).ok()).flatten().collect()
    })
}

/// Administers topics.
pub(super) fn admin(options: &Options) -> Result<rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext>, LogError> {
    create(options, client(options), rdkafka::client::DefaultClientContext)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes together is the user's to know, and what does not is told without a broker.
    #[test]
    fn settings_that_do_not_go_together_are_told_before_anything_runs() {
        let told_who = |commits: bool, settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            check_together(&Options { settings, ..Options::new("127.0.0.1:1") }, commits).map_err(|error| error.to_string())
        };
        let told = |settings: &[(&str, &str)]| told_who(true, settings);
        for fits in
            [&[][..], &[("client.id", "ours")], &[("socket.timeout.ms", "60000"), ("transaction.timeout.ms", "60000")], &[("session.timeout.ms", "90000")]]
        {
            assert_eq!(told(fits), Ok(()), "{fits:?}");
        }
        for (alone, names) in [
            (("socket.timeout.ms", "60000"), "`socket.timeout.ms` must be set <= `transaction.timeout.ms`"),
            (("delivery.timeout.ms", "500000"), "`message.timeout.ms` must be set <= `transaction.timeout.ms`"),
            (("linger.ms", "900000"), "`message.timeout.ms` must be greater than `linger.ms`"),
            (("max.poll.interval.ms", "3000"), "must be >= `session.timeout.ms`"),
            (("fetch.max.bytes", "1000"), "`fetch.max.bytes` must be >= `message.max.bytes`"),
            (("ssl.ca.location", "/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read"),
        ] {
            let said = told(&[alone]).unwrap_err();
            assert!(said.contains(names), "{alone:?}: {said}");
        }
        // Who commits nothing makes no transactions.
        for alone in [("socket.timeout.ms", "60000"), ("delivery.timeout.ms", "120000")] {
            assert_eq!(told_who(false, &[alone]), Ok(()), "{alone:?}");
        }
        assert!(told_who(false, &[("fetch.max.bytes", "1000")]).is_err());
    }
}
