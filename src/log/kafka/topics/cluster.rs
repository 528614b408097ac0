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

/// How long one client is asked at first, and twice as long each time: another one asks again until the time is over, as a client may have lost the cluster ([`super::super::reach`]).
const TRY: Duration = Duration::from_secs(3);

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
    let names: Vec<&str> = names.collect();
    patiently(options, |within| find_within(options, &names, within))
}

/// Asks by another client where one has no answer, until the time is over.
fn patiently<T>(options: &Options, mut ask: impl FnMut(Duration) -> Result<T, LogError>) -> Result<T, LogError> {
    let started = Stopwatch::start();
    let left = || options.patience.saturating_sub(started.elapsed());
    let mut within = TRY;
    loop {
        match ask(left().min(within)) {
            // What little is left is not enough to hear why there is no answer.
            Err(LogError::Retry { .. }) if left() > TRY / 2 => std::thread::sleep(LOOK_AGAIN),
            outcome => return outcome,
        }
        within *= 2;
    }
}

fn find_within(options: &Options, names: &[&str], within: Duration) -> Result<Cluster, LogError> {
    let consumer = client::listening(options, Heard::default())?;
    let metadata = reach(&consumer, options, within)?;
    let brokers: Vec<String> = metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
    let mut topics: BTreeMap<String, Found> = BTreeMap::new();
    let listed: BTreeMap<&str, &MetadataTopic> = metadata.topics().iter().map(|topic| (topic.name(), topic)).collect();
    for &name in names {
        // A list of all topics leaves out those that this user may not see: only the question for one tells them from what is missing.
        let found = if let Some(topic) = listed.get(name) {
            described(topic)
        } else {
            let one = consumer.fetch_metadata(Some(name), within).map_err(|error| unanswered(&error, options, &brokers))?;
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
    let (started, mut created, mut is_asked_again) = (Stopwatch::start(), Vec::new(), false);
    loop {
        let left: Vec<&Wanted> = topics.iter().filter(|topic| !created.contains(&topic.name)).collect();
        let answers = patiently(options, |within| {
            let answers = ask_to_create(options, &left, cluster, validate_only, within);
            is_asked_again |= answers.is_err();
            answers
        })?;
        let (mut refused, mut is_passing) = (BTreeMap::<String, Vec<String>>::new(), true);
        for (name, answer) in answers {
            match answer {
                None => created.push(name),
                // By the question that had no answer.
                Some(Code::TopicAlreadyExists) if is_asked_again => created.push(name),
                Some(Code::TopicAlreadyExists) => {}
                Some(code) => {
                    is_passing &= is_passing_refusal(code, &left, cluster);
                    refused.entry(why_refused(code, &left, cluster)).or_default().push(name);
                }
            }
        }
        if refused.is_empty() {
            return Ok(created);
        }
        if !is_passing || started.elapsed() >= options.patience {
            let reasons: Vec<String> =
                refused.into_iter().map(|(reason, names)| format!("the cluster does not create {}: {reason}", names.join(", "))).collect();
            return Err(LogError::Fatal { reason: reasons.join("; ") });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether it is said by a cluster that was too slow, or of too few brokers where it has enough: some of them are starting, or were late to be heard of.
fn is_passing_refusal(code: Code, topics: &[&Wanted], cluster: &Cluster) -> bool {
    let has_enough = topics.iter().all(|topic| topic.replicas as usize <= cluster.brokers.len());
    code == Code::RequestTimedOut || code == Code::InvalidReplicationFactor && has_enough
}

/// Asks once; what was answered for each topic, where it is refused.
fn ask_to_create(
    options: &Options,
    topics: &[&Wanted],
    cluster: &Cluster,
    validate_only: bool,
    within: Duration,
) -> Result<Vec<(String, Option<Code>)>, LogError> {
    let admin = client::admin(options)?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let replicas = TopicReplication::Fixed(client::number(topic.replicas));
            let new = NewTopic::new(&topic.name, client::number(topic.partitions), replicas);
            topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let how = deadline(within).operation_timeout(Some(within)).validate_only(validate_only);
    let results = block_on(admin.create_topics(&new, &how))?.map_err(|error| unanswered(&error, options, &cluster.brokers))?;
    let answered = results.into_iter().map(|result| match result {
        Ok(name) => (name, None),
        Err((name, code)) => (name, Some(code)),
    });
    Ok(answered.collect())
}

fn why_refused(code: Code, topics: &[&Wanted], cluster: &Cluster) -> String {
    match code {
        Code::InvalidReplicationFactor => {
            let (replicas, brokers) = (topics.iter().map(|topic| topic.replicas).max().unwrap_or(0), cluster.brokers.len());
            let asked = if replicas == 1 { "1 replica is asked for".to_owned() } else { format!("{replicas} replicas are asked for") };
            let has = if brokers == 1 { "1 broker".to_owned() } else { format!("{brokers} brokers") };
            if replicas as usize > brokers {
                return format!("{asked}, and it has {has}: start more, or say --replication {brokers}");
            }
            format!("{asked}, and its controller hears of too few of its {has}: see in their logs why they are fenced")
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
fn reach(consumer: &BaseConsumer<Heard>, options: &Options, within: Duration) -> Result<Metadata, LogError> {
    let started = Stopwatch::start();
    loop {
        let left = within.saturating_sub(started.elapsed());
        let answer = consumer.fetch_metadata(None, left.min(SLICE));
        // What the client has to say reaches its context only when it is polled.
        while consumer.poll(Duration::ZERO).is_some() {}
        let heard = consumer.context().heard();
        let error = match answer {
            Ok(metadata) if metadata.brokers().is_empty() => {
                let reason = format!(
                    "{} answers that its cluster has no broker now (waited {} s): see in the logs of the brokers why they are fenced",
                    options.brokers,
                    options.patience.as_secs()
                );
                return Err(LogError::Retry { reason });
            }
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
    let topics: Vec<ResourceSpecifier<'_>> = there.into_iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answer = patiently(options, |within| {
        let admin = client::admin(options)?;
        block_on(admin.describe_configs(&topics, &deadline(within)))?.map_err(|error| unanswered(&error, options, &cluster.brokers))
    })?;
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

fn deadline(within: Duration) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(within))
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
