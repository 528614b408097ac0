//! `lag.NAME.FIELD`: groups on Kafka whose lag is a metric of targets.
//!
//! It stands here and not in policies: how a cluster is reached, and as whom, is the installation's affair, and a policy may be read by everybody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::{NUMBER, TIME, Written, path, plain, unknown};
use super::value::{duration_within, show_duration, whole, word};
use super::{Config, Source};
use crate::edge::lag::measure::Begins;
use crate::model::document::shape::Shape;
use crate::model::{MetricName, TargetId};

/// What all of them begin with.
pub(super) const PREFIX: &str = "lag.";

/// So many are taken: each has a thread and two clients.
const MOST: usize = 64;

/// The longest name: it stands in alerts.
const LONGEST_NAME: usize = 63;

/// How it is written that no partition is ever taken for stuck.
const NEVER: &str = "never";

const BEGINS: [(&str, Begins); 3] = [("unknown", Begins::Unknown), ("earliest", Begins::Earliest), ("latest", Begins::Latest)];

/// A group whose lag is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct LagSource {
    /// Brokers of its cluster; those of the log where neither these nor `config` are said.
    pub brokers: Vec<String>,
    /// A file with settings of librdkafka.
    pub config: Option<PathBuf>,
    /// The group.
    pub group: String,
    /// The topics that it reads.
    pub topics: Vec<String>,
    /// The targets that its lag is of.
    pub targets: Vec<TargetId>,
    /// The metric that it is.
    pub metric: MetricName,
    /// How often it is measured.
    pub every: Duration,
    /// Where the group begins where it has committed nothing.
    pub begins: Begins,
    /// How long a partition may stand still; `None`: for ever.
    pub stuck_after: Option<Duration>,
    /// What one replica is to have, where no more replicas are to be asked for than partitions have something.
    pub per_replica: Option<u32>,
}

impl LagSource {
    fn new() -> Result<Self, String> {
        Ok(LagSource {
            brokers: Vec::new(),
            config: None,
            group: String::new(),
            topics: Vec::new(),
            targets: Vec::new(),
            metric: "queue_depth".parse::<MetricName>().map_err(|error| error.to_string())?,
            every: Duration::from_secs(5),
            begins: Begins::Unknown,
            stuck_after: Some(Duration::from_secs(300)),
            per_replica: None,
        })
    }
}

/// A field of a source.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) list: bool,
    pub(super) shape: Shape,
    pub(super) meaning: &'static str,
    pub(super) default: Option<&'static str>,
    read: fn(&mut LagSource, &[String]) -> Result<(), String>,
    show: fn(&LagSource) -> String,
}

const TEXTS: Shape = Shape::Either(&[Shape::ListOf(&Shape::Plain), Shape::Plain]);

fn texts(values: &[String]) -> Result<Vec<String>, String> {
    values.iter().map(|text| plain(text)).collect()
}

/// All of them, in the order in which they are shown.
pub(super) static FIELDS: [Field; 10] = [
    Field {
        name: "brokers",
        list: true,
        shape: TEXTS,
        meaning: "brokers of its cluster, HOST:PORT; those of the log where neither these nor config are said",
        default: None,
        read: |s, v| texts(v).map(|brokers| s.brokers = brokers),
        show: |s| s.brokers.join(", "),
    },
    Field {
        name: "config",
        list: false,
        shape: Shape::Plain,
        meaning: "a file with settings of librdkafka for its cluster, NAME=VALUE a line",
        default: None,
        read: |s, v| path(&v[0]).map(|path| s.config = Some(path)),
        show: |s| s.config.as_ref().map_or_else(String::new, |path| path.display().to_string()),
    },
    Field {
        name: "group",
        list: false,
        shape: Shape::Plain,
        meaning: "the consumer group",
        default: None,
        read: |s, v| plain(&v[0]).map(|group| s.group = group),
        show: |s| s.group.clone(),
    },
    Field {
        name: "topics",
        list: true,
        shape: TEXTS,
        meaning: "the topics that it reads",
        default: None,
        read: |s, v| v.iter().map(|name| topic(name)).collect::<Result<_, _>>().map(|topics| s.topics = topics),
        show: |s| s.topics.join(", "),
    },
    Field {
        name: "targets",
        list: true,
        shape: TEXTS,
        meaning: "the targets that its lag is of, namespace/Kind/name",
        default: None,
        read: |s, v| {
            v.iter().map(|target| target.parse::<TargetId>().map_err(|error| error.to_string())).collect::<Result<_, _>>().map(|targets| s.targets = targets)
        },
        show: |s| s.targets.iter().map(TargetId::as_str).collect::<Vec<_>>().join(", "),
    },
    Field {
        name: "metric",
        list: false,
        shape: Shape::Plain,
        meaning: "the metric that it is, as in the policies of the targets",
        default: Some("queue_depth"),
        read: |s, v| v[0].parse::<MetricName>().map(|metric| s.metric = metric).map_err(|error| error.to_string()),
        show: |s| s.metric.to_string(),
    },
    Field {
        name: "every",
        list: false,
        shape: TIME,
        meaning: "how often it is measured, 1s to 10m",
        default: Some("5s"),
        read: |s, v| duration_within(&v[0], Duration::from_secs(1), Duration::from_secs(600)).map(|every| s.every = every),
        show: |s| show_duration(s.every),
    },
    Field {
        name: "begins",
        list: false,
        shape: Shape::Words(begins),
        meaning: "where the group begins a partition of which it has committed nothing, or where its position is gone; unknown is an error then",
        default: Some("unknown"),
        read: |s, v| word(&v[0], &BEGINS).map(|begins| s.begins = begins),
        show: |s| BEGINS.iter().find(|(_, begins)| *begins == s.begins).map_or("", |(name, _)| name).to_owned(),
    },
    Field {
        name: "stuckAfter",
        list: false,
        shape: Shape::Either(&[TIME, Shape::Exactly(NEVER)]),
        meaning: "a partition that is not read on for so long while others are counts as 1, and is named by an alert",
        default: Some("5m"),
        read: |s, v| stuck_after(&v[0]).map(|after| s.stuck_after = after),
        show: |s| s.stuck_after.map_or_else(|| NEVER.to_owned(), show_duration),
    },
    Field {
        name: "perReplica",
        list: false,
        shape: NUMBER,
        meaning: "as in the policy's track: no more replicas are asked for than there are partitions with something to read; no limit where it is not said",
        default: None,
        read: |s, v| whole(&v[0], 1, u32::MAX).map(|each| s.per_replica = Some(each)),
        show: |s| s.per_replica.map_or_else(String::new, |each| each.to_string()),
    },
];

fn begins() -> Vec<&'static str> {
    BEGINS.iter().map(|(name, _)| *name).collect()
}

/// The name of a topic, as Kafka takes it.
fn topic(text: &str) -> Result<String, String> {
    let is_one = !text.is_empty() && text.len() <= 249 && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if is_one {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is not the name of a topic; names are of letters, digits, dots, underscores and hyphens"))
    }
}

fn stuck_after(text: &str) -> Result<Option<Duration>, String> {
    if text == NEVER {
        return Ok(None);
    }
    duration_within(text, Duration::from_secs(1), Duration::from_secs(86_400)).map(Some).map_err(|error| format!("{error}, or {NEVER}"))
}

/// The field of a path without [`PREFIX`].
fn field_of(rest: &str) -> Result<(&str, &'static Field), String> {
    let names = || FIELDS.iter().map(|field| field.name);
    let (name, field) = rest.split_once('.').ok_or_else(|| format!("lag.{rest}: name a field of it: {}", names().collect::<Vec<_>>().join(", ")))?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_name) {
        return Err(format!("lag: \"{name}\" is not a name; choose one of lower-case letters, digits and hyphens, at most {LONGEST_NAME}"));
    }
    let found = FIELDS.iter().find(|known| known.name == field);
    found.map(|field| (name, field)).ok_or_else(|| format!("{PREFIX}{rest}: {}", unknown(field, names())))
}

/// Whether a path without [`PREFIX`] takes a list.
pub(super) fn is_list(rest: &str) -> bool {
    field_of(rest).is_ok_and(|(_, field)| field.list)
}

/// Reads one field of one source.
pub(super) fn set(config: &mut Config, rest: &str, written: &Written) -> Result<(), String> {
    let (name, field) = field_of(rest)?;
    if !field.list && written.values.len() != 1 {
        return Err(format!("{} takes one value, not {}", written.path, written.values.len()));
    }
    if !config.lag.contains_key(name) && config.lag.len() == MOST {
        return Err(format!("{}: more than {MOST} sources of lag; spread them over several processes", written.path));
    }
    let mut source = config.lag.get(name).map_or_else(LagSource::new, |known| Ok(known.clone()))?;
    (field.read)(&mut source, &written.values).map_err(|error| format!("{}: {error}", written.path))?;
    config.lag.insert(name.to_owned(), source);
    Ok(())
}

/// Each field of each source: its path, and its value as it would be written.
pub(super) fn shown(sources: &BTreeMap<String, LagSource>) -> impl Iterator<Item = (String, String)> {
    sources.iter().flat_map(|(name, source)| FIELDS.iter().map(move |field| (format!("{PREFIX}{name}.{}", field.name), (field.show)(source))))
}

/// What is missing.
pub(super) fn contradictions(config: &Config, problems: &mut Vec<String>) {
    for (name, source) in &config.lag {
        let path = format!("{PREFIX}{name}");
        let mut missing = |field: &str, what: &str| problems.push(format!("{}: {path}: {field} is missing; {what}", place(config, &path)));
        if source.group.is_empty() {
            missing("group", "name the consumer group whose lag is measured");
        }
        if source.topics.is_empty() {
            missing("topics", "name the topics that the group reads");
        }
        if source.targets.is_empty() {
            missing("targets", "name the targets that its lag is of, as in prod/Deployment/workers");
        }
        if source.brokers.is_empty() && source.config.is_none() && !config.kafka.is_used() {
            missing("brokers", "the log is in the data directory, so name the brokers of the group's cluster");
        }
    }
}

/// Where the first field of a source was written.
fn place(config: &Config, path: &str) -> Source {
    let first = FIELDS.iter().map(|field| config.source(&format!("{path}.{}", field.name)));
    let mut written: Vec<Source> = first.filter(|source| *source != Source::Default).collect();
    written.sort_by_key(|source| if let Source::File { line, column, .. } = source { (*line, *column) } else { (u64::MAX, 0) });
    written.into_iter().next().unwrap_or_default()
}
