//! What stands on a cluster, and creating topics there.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::super::{Options, client, errors};
use super::Wanted;
use crate::log::LogError;
use crate::log::coordinator::lock;
use crate::runtime::clock::Stopwatch;

/// How long a first answer is waited for before it is looked what the client has to say of it.
const SLICE: Duration = Duration::from_millis(250);

/// How soon it is looked again for what is about to be there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long the settings of a topic that was just created are waited for; whoever may create topics need not be allowed to see their settings.
const SETTLE: Duration = Duration::from_secs(3);

/// So many different reasons why no broker answers are kept.
const REASONS: usize = 4;

/// What stands on a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The brokers, `host:port` as they call themselves.
    pub brokers: Vec<String>,
    /// Each topic that was looked for.
    pub topics: BTreeMap<String, Found>,
}

/// What was found of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is not there.
    Missing,
    /// The cluster does not say whether it is there, or what it is like, with its reason.
    Hidden(String),
    /// It is there.
    There(There),
}

/// What is known of a topic that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas the partition has that has the fewest.
    pub replicas: u32,
    /// The partitions that no broker leads now.
    pub unled: Vec<u32>,
    /// Its settings, those that the cluster tells; none where it tells none.
    pub settings: Option<BTreeMap<String, String>>,
}

impl Cluster {
    /// Whether it was seen that a topic is not there.
    pub fn lacks(&self, name: &str) -> bool {
        matches!(self.topics.get(name), Some(Found::Missing))
    }
}

/// Looks at the topics on the cluster. Nothing is created by looking, whatever the cluster's settings.
///
/// # Errors
/// [`LogError::Retry`] where no broker answers, with the addresses and what was heard of them; [`LogError::Fatal`] where one refuses, or a setting of the
/// client is wrong.
pub fn look(options: &Options, wanted: &[Wanted]) -> Result<Cluster, LogError> {
    let mut cluster = find(options, wanted.iter().map(|topic| topic.name.as_str()))?;
    settings(options, &mut cluster)?;
    Ok(cluster)
}

/// Looks for topics, and not at their settings; else as [`look`].
pub(in super::super) fn find<'a>(options: &Options, names: impl Iterator<Item = &'a str>) -> Result<Cluster, LogError> {
    let consumer = client::listening(options, Heard::default())?;
    let metadata = reach(&consumer, options)?;
    let brokers: Vec<String> = metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
    let mut topics: BTreeMap<String, Found> = BTreeMap::new();
    let listed: BTreeMap<&str, &MetadataTopic> = metadata.topics().iter().map(|topic| (topic.name(), topic)).collect();
    for name in names {
        // A list of all topics leaves out those that this user may not see: only the question for one tells them from what is missing.
        let found = if let Some(topic) = listed.get(name) {
            described(topic)
        } else {
            let one = consumer.fetch_metadata(Some(name), options.patience).map_err(|error| unanswered(&error, options, &brokers))?;
            one.topics().first().map_or(Found::Missing, described)
        };
        topics.insert(name.to_owned(), found);
    }
    Ok(Cluster { brokers, topics })
}

/// Looks until topics that were created are there: brokers follow their controller a moment later.
pub(super) fn look_for(options: &Options, wanted: &[Wanted], created: &[Wanted]) -> Result<Cluster, LogError> {
    let started = Stopwatch::start();
    loop {
        let cluster = look(options, wanted)?;
        let is_there = created.iter().all(|topic| !cluster.lacks(&topic.name));
        let is_told = |topic: &Wanted| {
            let found = cluster.topics.get(&topic.name);
            matches!(found, Some(Found::There(There { settings: Some(_), unled, .. })) if unled.is_empty())
        };
        let is_told = created.iter().all(is_told);
        let enough = if is_there { options.patience.min(SETTLE) } else { options.patience };
        if is_told || started.elapsed() > enough {
            return Ok(cluster);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Creates topics, or asks whether they could be; answers with the names of those that were not there.
pub(super) fn create(options: &Options, topics: &[Wanted], cluster: &Cluster, validate_only: bool) -> Result<Vec<String>, LogError> {
    let admin = client::admin(options)?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let replicas = TopicReplication::Fixed(client::number(topic.replicas));
            let new = NewTopic::new(&topic.name, client::number(topic.partitions), replicas);
            topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let how = deadlines(options).operation_timeout(Some(options.patience)).validate_only(validate_only);
    let results = block_on(admin.create_topics(&new, &how))?.map_err(|error| unanswered(&error, options, &cluster.brokers))?;
    let (mut created, mut refused) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for result in results {
        match result {
            Ok(name) => created.push(name),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => refused.entry(why_refused(code, topics, cluster)).or_default().push(name),
        }
    }
    if refused.is_empty() {
        return Ok(created);
    }
    let reasons: Vec<String> = refused.into_iter().map(|(reason, names)| format!("the cluster does not create {}: {reason}", names.join(", "))).collect();
    Err(LogError::Fatal { reason: reasons.join("; ") })
}

fn why_refused(code: Code, topics: &[Wanted], cluster: &Cluster) -> String {
    match code {
        Code::InvalidReplicationFactor => {
            let (replicas, brokers) = (topics.first().map_or(0, |topic| topic.replicas), cluster.brokers.len());
            let has = if brokers == 1 { "1 broker".to_owned() } else { format!("{brokers} brokers") };
            format!("{replicas} replicas are asked for, and it has {has}: start more, or say --replication {brokers}")
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            format!("{code}; this user needs the right to create topics (Create on the cluster, or on topics with the prefix)")
        }
        Code::PolicyViolation => {
            format!("{code}; the cluster has a policy for new topics: ask who runs it, or let them create the topics as `loadline topology show` lists them")
        }
        code => code.to_string(),
    }
}

/// Waits for a first answer of any broker.
fn reach(consumer: &BaseConsumer<Heard>, options: &Options) -> Result<Metadata, LogError> {
    let started = Stopwatch::start();
    loop {
        let left = options.patience.saturating_sub(started.elapsed());
        let answer = consumer.fetch_metadata(None, left.min(SLICE));
        // What the client has to say reaches its context only when it is polled.
        while consumer.poll(Duration::ZERO).is_some() {}
        let heard = consumer.context().heard();
        let error = match answer {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        if let Some(reason) = heard.refused {
            let mend = "see security.protocol, sasl.mechanism, and the user, password or certificates in the settings of the client";
            return Err(LogError::Fatal { reason: format!("{} refuses this client: {reason}; {mend}", options.brokers) });
        }
        if left.is_zero() {
            let reasons = if heard.reasons.is_empty() { error.to_string() } else { heard.reasons.join("; ") };
            return Err(LogError::Retry {
                reason: format!(
                    "no broker answers at {} (waited {} s): {reasons}; check that a broker runs there, that its address and port are right and this \
                     machine may reach them, and, where it expects TLS or a password, that the settings of the client say so (security.protocol)",
                    options.brokers,
                    options.patience.as_secs()
                ),
            });
        }
    }
}

/// What a topic's metadata say.
fn described(topic: &MetadataTopic) -> Found {
    match topic.error().map(Code::from) {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Found::Missing,
        Some(code) if topic.partitions().is_empty() => Found::Hidden(code.to_string()),
        _ if topic.partitions().is_empty() => Found::Missing,
        _ => {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let unled = topic.partitions().iter().filter(|partition| partition.leader() < 0).map(|unled| client::partition(unled.id())).collect();
            Found::There(There { partitions: number(topic.partitions().len()), replicas: number(replicas), unled, settings: None })
        }
    }
}

/// Asks for the settings of the topics that are there.
fn settings(options: &Options, cluster: &mut Cluster) -> Result<(), LogError> {
    let there: Vec<&String> = cluster.topics.iter().filter(|(_, found)| matches!(found, Found::There(_))).map(|(name, _)| name).collect();
    if there.is_empty() {
        return Ok(());
    }
    let admin = client::admin(options)?;
    let topics: Vec<ResourceSpecifier<'_>> = there.into_iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answer = block_on(admin.describe_configs(&topics, &deadlines(options)))?.map_err(|error| unanswered(&error, options, &cluster.brokers))?;
    for resource in answer.into_iter().flatten() {
        // The binding tells no reason where a topic's settings are refused: that there are none is what it tells.
        if let OwnedResourceSpecifier::Topic(name) = resource.specifier
            && let Some(Found::There(there)) = cluster.topics.get_mut(&name)
            && !resource.entries.is_empty()
        {
            there.settings = Some(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect());
        }
    }
    Ok(())
}

fn deadlines(options: &Options) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(options.patience))
}

/// What a question failed for after a broker had answered before.
fn unanswered(error: &KafkaError, options: &Options, brokers: &[String]) -> LogError {
    match error {
        KafkaError::AdminOp(Code::OperationTimedOut | Code::BrokerTransportFailure | Code::RequestTimedOut) => LogError::Retry {
            reason: format!(
                "{} answered, but no broker did at the addresses that it names, {} (waited {} s): check that this machine reaches these, and \
                 advertised.listeners of the brokers",
                options.brokers,
                brokers.join(", "),
                options.patience.as_secs()
            ),
        },
        error => errors::of_reading(error),
    }
}

/// Waits for an answer of the admin client, which comes from a thread of its own.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| LogError::Fatal { reason: format!("no runtime to wait with: {error}") })?;
    Ok(runtime.block_on(future))
}

/// Keeps what a client says of its connections.
#[derive(Default)]
pub(in super::super) struct Heard(Mutex<Said>);

/// What was said so far.
#[derive(Debug, Clone, Default)]
struct Said {
    /// Each reason once, the first ones.
    reasons: Vec<String>,
    /// A broker was reached, and takes no part in it: waiting changes nothing.
    refused: Option<String>,
}

impl Heard {
    fn heard(&self) -> Said {
        lock(&self.0).clone()
    }
}

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        client::said(&error, reason);
        let mut said = lock(&self.0);
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) => said.refused = Some(reason.to_owned()),
            // It adds nothing to what was said of each.
            Some(Code::AllBrokersDown) => {}
            _ if said.reasons.len() < REASONS && !said.reasons.iter().any(|known| known == reason) => said.reasons.push(reason.to_owned()),
            _ => {}
        }
    }
}

impl ConsumerContext for Heard {}
