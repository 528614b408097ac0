//! The topics as they stand on a cluster: their names, what they must be like, creating them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::client::{self, Consumer};
use super::{Options, errors};
use crate::log::{LogError, Partitions, Topic};

/// The stages that keep a state, and what each of them consumes: their state has as many partitions.
pub const STATES: [(&str, Topic); 5] =
    [("aggregate", Topic::Metrics), ("admit", Topic::Control), ("decide", Topic::Signals), ("arbitrate", Topic::Requests), ("forecast", Topic::Signals)];

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// For how many ms the records of a topic are kept.
fn retention(topic: Topic) -> u64 {
    match topic {
        Topic::Metrics => 6 * HOUR,
        Topic::Control => 61 * DAY,
        Topic::Signals => 3 * DAY,
        Topic::Requests | Topic::Commands => DAY,
        Topic::Audit => 90 * DAY,
        Topic::Alerts | Topic::DeadLetters => 7 * DAY,
    }
}

/// The names of an installation's topics, groups and transactions.
pub(super) struct Names {
    prefix: String,
    topics: [String; Topic::ALL.len()],
    states: BTreeMap<&'static str, String>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Names {
            prefix: prefix.to_owned(),
            topics: Topic::ALL.map(|topic| format!("{prefix}{topic}")),
            states: STATES.iter().map(|(stage, _)| (*stage, format!("{prefix}{stage}-state"))).collect(),
        }
    }

    pub(super) fn of(&self, topic: Topic) -> &str {
        &self.topics[topic as usize]
    }

    /// The topic of a stage's state.
    pub(super) fn states_of(&self, group: &str) -> Result<&str, LogError> {
        let name = self.states.get(group).map(String::as_str);
        name.ok_or_else(|| LogError::Fatal { reason: format!("group {group} keeps no state on Kafka: there is no topic for it") })
    }

    pub(super) fn group(&self, group: &str) -> String {
        format!("{}{group}", self.prefix)
    }

    /// The transactions of who owns a partition of a group's input.
    pub(super) fn transactions(&self, group: &str, partition: u32) -> String {
        format!("{}{group}.{partition}", self.prefix)
    }
}

/// How many partitions the topics have, where all are there and fit together.
pub(super) fn verified(client: &Consumer, names: &Names, patience: Duration) -> Result<Partitions, LogError> {
    let metadata = client.fetch_metadata(None, patience).map_err(|error| errors::of_reading(&error))?;
    let counts: BTreeMap<&str, u32> =
        metadata.topics().iter().map(|topic| (topic.name(), u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX))).collect();
    let all = names.topics.iter().chain(names.states.values());
    let missing: Vec<&str> = all.map(String::as_str).filter(|name| counts.get(name).is_none_or(|count| *count == 0)).collect();
    if !missing.is_empty() {
        return Err(LogError::Fatal { reason: format!("topics are missing on the cluster: {}; `loadline topology apply` creates them", missing.join(", ")) });
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    for (stage, input) in STATES {
        let (state, input) = (names.states_of(stage)?, names.of(input));
        if count(state) != count(input) {
            let reason = format!(
                "{state} has {} partitions, and {input} has {}: they must have the same number, as each partition's state stands in the one of its number; \
                 create {state} anew with {} (its content is then rebuilt from the input)",
                count(state),
                count(input),
                count(input)
            );
            return Err(LogError::Fatal { reason });
        }
    }
    Ok(Topic::ALL.into_iter().fold(Partitions::default(), |partitions, topic| partitions.with(topic, count(names.of(topic)))))
}

/// Creates the topics that are missing, each with so many partitions and replicas; those that are there stay as they are. Says which it created.
///
/// # Errors
/// [`LogError::Fatal`] where the cluster refuses one, with its reason; [`LogError::Retry`] where it cannot be reached.
pub fn create(options: &Options, partitions: &Partitions, replicas: i32) -> Result<Vec<String>, LogError> {
    let admin: AdminClient<DefaultClientContext> = client::admin(options)?;
    let names = Names::new(&options.prefix);
    let in_sync = (replicas - 1).max(1).to_string();
    let largest = client::LARGEST_MESSAGE.to_string();
    let kept = Topic::ALL.map(|topic| retention(topic).to_string());
    let topic = |name, count: u32| {
        NewTopic::new(name, client::number(count), TopicReplication::Fixed(replicas))
            // `at` is the broker's, the same on every read.
            .set("message.timestamp.type", "LogAppendTime")
            .set("min.insync.replicas", &in_sync)
            .set("max.message.bytes", &largest)
    };
    let plain =
        Topic::ALL.iter().zip(&kept).map(|(of, kept)| topic(names.of(*of), partitions.of(*of)).set("cleanup.policy", "delete").set("retention.ms", kept));
    let states = STATES.iter().filter_map(|(stage, input)| Some(topic(names.states.get(stage)?, partitions.of(*input)).set("cleanup.policy", "compact")));
    let new: Vec<NewTopic<'_>> = plain.chain(states).collect();
    let results =
        block_on(admin.create_topics(&new, &AdminOptions::new().operation_timeout(Some(options.patience))))?.map_err(|error| errors::of_reading(&error))?;
    let mut created = Vec::new();
    for result in results {
        match result {
            Ok(name) => created.push(name),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(LogError::Fatal { reason: format!("the cluster does not create {name}: {code}") }),
        }
    }
    Ok(created)
}

/// Waits for an answer of the admin client, which comes from a thread of its own.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| LogError::Fatal { reason: format!("no runtime to wait with: {error}") })?;
    Ok(runtime.block_on(future))
}
