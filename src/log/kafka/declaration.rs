//! The one declaration of the topics, `topology/asyncapi.yaml`: the program has it within.
//!
//! What topics there are, with how many partitions, replicas and which settings, and what follows where a cluster's are others, is taken from there
//! alone. That it can be read, and says all there is to say, is held by tests.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::log::{LogError, Partitions, Topic};

/// The declaration's text.
pub const TEXT: &str = include_str!("../../../topology/asyncapi.yaml");

/// What the names of an installation begin with where nothing else is said.
pub const PREFIX: &str = "loadline.";

/// How bad a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Weight {
    /// The topic is not there.
    Missing,
    /// Loadline would decide wrongly.
    Corrupts,
    /// Nothing can be appended, or not everything, so nothing goes on, or not rightly.
    Stops,
    /// A part of it can be neither read nor written now: that waits, and goes on by itself.
    Waits,
    /// What was acknowledged, or is kept for somebody, is lost.
    Loses,
    /// The cluster does not say how it is.
    Unknown,
    /// Nothing of Loadline's depends on it.
    Differs,
}

impl Weight {
    /// Whether Loadline does not run on it.
    pub fn refuses(self) -> bool {
        matches!(self, Weight::Missing | Weight::Corrupts | Weight::Stops)
    }
}

/// A topic as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name without the prefix.
    pub name: String,
    /// What it holds, in a sentence.
    pub summary: String,
    /// What it is.
    pub role: Role,
    /// How many partitions, where nothing else is said.
    pub partitions: u32,
    /// How many replicas of each.
    pub replicas: u32,
    /// Its settings, by Kafka's names and in Kafka's words.
    pub settings: BTreeMap<String, String>,
    /// What the keys of its records are.
    pub key: String,
    /// Whether some records have no key.
    pub keyless: bool,
    /// Whether it has so many partitions in every installation.
    pub fixed: bool,
    /// What another number of partitions than it was made with does.
    pub other_partitions: Weight,
    /// Why.
    pub because: String,
    /// Why its records are kept for so long; empty for a state.
    pub kept: String,
    /// The messages on it, by the names of their schemas.
    pub messages: Vec<String>,
    /// Which parts of Loadline write to it.
    pub writers: Vec<String>,
    /// Which parts of Loadline read it.
    pub readers: Vec<String>,
}

/// What a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// One of the pipeline's.
    Flow(Topic),
    /// Holds the state of a stage, partition by partition of its input.
    State {
        /// The stage.
        stage: String,
        /// What it consumes.
        input: Topic,
    },
}

impl Declared {
    /// Whether a stage that keeps a state reads it: what stands there is folded.
    pub fn is_folded(&self) -> bool {
        let Role::Flow(topic) = self.role else { return false };
        declared().is_ok_and(|all| all.iter().any(|other| matches!(other.role, Role::State { input, .. } if input == topic)))
    }

    /// Whether it is one of those whose number of partitions an installation chooses at once.
    pub fn is_spread(&self) -> bool {
        self.partitions > 1
    }
}

/// All topics: those of the pipeline in the order of the flow, then the states.
///
/// # Errors
/// [`LogError::Fatal`] where the text within the program cannot be read, which tests rule out.
pub fn declared() -> Result<&'static [Declared], LogError> {
    static DECLARED: LazyLock<Result<Vec<Declared>, String>> = LazyLock::new(|| read(TEXT));
    match &*DECLARED {
        Ok(declared) => Ok(declared),
        Err(reason) => Err(LogError::Fatal { reason: format!("topology/asyncapi.yaml, as this program has it, cannot be used: {reason}") }),
    }
}

/// An age in ms as Kafka writes it, in words; `-1` is for good.
pub fn age(ms: &str) -> String {
    const UNITS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let Ok(mut left) = ms.parse::<u64>() else { return if ms == "-1" { "for good".to_owned() } else { ms.to_owned() } };
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if left >= unit {
            parts.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    if parts.is_empty() { "0ms".to_owned() } else { parts.join(" ") }
}

/// How many partitions the topics have where nothing else is said.
///
/// # Errors
/// As [`declared`].
pub fn partitions() -> Result<Partitions, LogError> {
    let flow = declared()?.iter().filter_map(|topic| match topic.role {
        Role::Flow(of) => Some((of, topic.partitions)),
        Role::State { .. } => None,
    });
    Ok(flow.fold(Partitions::default(), |partitions, (topic, count)| partitions.with(topic, count)))
}

/// Reads a declaration.
fn read(text: &str) -> Result<Vec<Declared>, String> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    let mut all = Vec::with_capacity(document.channels.len());
    for (name, channel) in document.channels {
        let role = role(&name, &channel)?;
        let rules = channel.rules;
        let kafka = channel.bindings.kafka;
        let doing = |action: Action| {
            let here = format!("#/channels/{name}");
            let mut who: Vec<String> = document
                .operations
                .values()
                .filter(|operation| operation.action == action && operation.channel.to == here)
                .flat_map(|operation| operation.tags.iter().map(|tag| tag.name.clone()))
                .collect();
            who.sort();
            who
        };
        all.push(Declared {
            role,
            summary: channel.summary,
            partitions: kafka.partitions,
            replicas: kafka.replicas,
            settings: kafka.settings.into_iter().map(|(name, value)| (name, value.in_words())).collect(),
            key: rules.key,
            keyless: rules.keyless,
            fixed: rules.fixed,
            other_partitions: rules.other_partitions,
            because: rules.because,
            kept: rules.kept,
            messages: channel.messages.into_keys().collect(),
            writers: doing(Action::Send),
            readers: doing(Action::Receive),
            name,
        });
    }
    all.sort_by_key(|topic| match &topic.role {
        Role::Flow(topic) => (*topic as usize, false),
        Role::State { input, .. } => (*input as usize, true),
    });
    all.sort_by_key(|topic| matches!(topic.role, Role::State { .. }));
    Ok(all)
}

fn role(name: &str, channel: &Channel) -> Result<Role, String> {
    let topic = |name: &str| Topic::ALL.into_iter().find(|topic| topic.name() == name);
    if channel.address != format!("{{prefix}}{name}") {
        return Err(format!("channel {name} is not at {{prefix}}{name}"));
    }
    match &channel.rules.state {
        None => topic(name).map(Role::Flow).ok_or_else(|| format!("channel {name} is none of the pipeline's topics")),
        Some(state) if name == format!("{}-state", state.stage) => {
            let input = topic(&state.input).ok_or_else(|| format!("the input of {name} is none of the pipeline's topics"))?;
            Ok(Role::State { stage: state.stage.clone(), input })
        }
        Some(state) => Err(format!("the state of {} is not {name}", state.stage)),
    }
}

#[derive(Deserialize)]
struct Document {
    channels: BTreeMap<String, Channel>,
    operations: BTreeMap<String, Operation>,
}

#[derive(Deserialize)]
struct Channel {
    address: String,
    summary: String,
    messages: BTreeMap<String, Reference>,
    bindings: Bindings,
    #[serde(rename = "x-loadline")]
    rules: Rules,
}

#[derive(Deserialize)]
struct Bindings {
    kafka: Kafka,
}

#[derive(Deserialize)]
struct Kafka {
    partitions: u32,
    replicas: u32,
    #[serde(rename = "topicConfiguration")]
    settings: BTreeMap<String, Setting>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Setting {
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<String>),
}

impl Setting {
    /// As Kafka writes it.
    fn in_words(self) -> String {
        match self {
            Setting::Bool(value) => value.to_string(),
            Setting::Number(value) => value.to_string(),
            Setting::Text(value) => value,
            Setting::List(values) => values.join(","),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rules {
    key: String,
    keyless: bool,
    #[serde(default)]
    fixed: bool,
    other_partitions: Weight,
    because: String,
    #[serde(default)]
    kept: String,
    state: Option<State>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    stage: String,
    input: String,
}

#[derive(Deserialize)]
struct Operation {
    action: Action,
    channel: Reference,
    tags: Vec<Tag>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Send,
    Receive,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "$ref")]
    to: String,
}
