//! The table of settings: how each is written, read and shown.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{address, boolean, duration_within, host, percent, show_duration, show_size, size_within, whole, word};
use super::{Config, RemovalLimit, Source, lag};
use crate::model::FleetName;
use crate::model::document::shape::{Form, Outline, Shape};
use crate::model::spelling::nearest;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text where standard error is a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a message on Kafka names the schema that it is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By a fingerprint: Avro's single-object encoding.
    SingleObject,
    /// By the id of a registry, as Confluent's clients do.
    Confluent,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// A person must look.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

const FORMATS: [(&str, LogFormat); 3] = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
const FRAMINGS: [(&str, Framing); 2] = [("singleObject", Framing::SingleObject), ("confluent", Framing::Confluent)];
const LEVELS: [(&str, LogLevel); 5] =
    [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug), ("trace", LogLevel::Trace)];

impl LogLevel {
    /// Its name, as `tracing` spells it.
    pub fn as_str(self) -> &'static str {
        name_of(&LEVELS, self)
    }
}

fn name_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("", |(name, _)| name)
}

/// One setting, as somebody wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    /// Its path, e.g. `removals.atLeast`.
    pub(super) path: String,
    /// Its values: one, but for lists.
    pub(super) values: Vec<String>,
    /// Where it was written.
    pub(super) source: Source,
}

/// One row of the table.
pub(super) struct Setting {
    /// Its path in the file; the names of the environment follow from it.
    pub(super) path: &'static str,
    /// Whether it takes a list.
    list: bool,
    /// What it may be in the file, for schemas.
    pub(super) shape: Shape,
    /// What it means, in one line.
    pub(super) meaning: &'static str,
    /// Reads its values into the configuration.
    read: fn(&mut Config, &[String]) -> Result<(), String>,
    /// Shows it as it would be written.
    pub(super) show: fn(&Config) -> String,
}

/// A log of less would be full before a stage has written its first snapshots of a large installation; what a request
/// may bring at once (4 MiB) fits into its headroom.
const LEAST_SIZE: u64 = 64 << 20;

/// What SQLite can hold, and some.
const MOST_SIZE: u64 = 16 << 40;

/// A time, as in `1m30s`.
pub(super) const TIME: Shape = Shape::Pattern(r"^\s*([0-9]+(d|h|m|s|ms))+\s*$", "5s");
/// Whole percent.
const PERCENT: Shape = Shape::Pattern(r"^\+?[0-9]+\s*%$", "10%");
/// A whole number; as a text too.
pub(super) const NUMBER: Shape = Shape::Either(&[Shape::Whole(0, i64::MAX), Shape::Pattern(r"^\+?[0-9]+$", "5")]);

/// A part of the pipeline that a process may run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Takes samples over HTTP.
    Ingest,
    /// Announces the policies of files.
    Policies,
    /// Admits what comes over `control`.
    Admit,
    /// Makes panes of samples.
    Aggregate,
    /// Decides.
    Decide,
    /// Paces and issues commands.
    Arbitrate,
    /// Supervises process fleets: observes them, and carries out their commands.
    Fleets,
    /// Measures the lag of consumer groups.
    Lag,
    /// Shows it all: pages, API, metrics of targets.
    View,
}

const ROLES: [(&str, Role); 9] = [
    ("ingest", Role::Ingest),
    ("policies", Role::Policies),
    ("admit", Role::Admit),
    ("aggregate", Role::Aggregate),
    ("decide", Role::Decide),
    ("arbitrate", Role::Arbitrate),
    ("fleets", Role::Fleets),
    ("lag", Role::Lag),
    ("view", Role::View),
];

impl Role {
    /// All of them.
    pub fn all() -> BTreeSet<Role> {
        ROLES.iter().map(|(_, role)| *role).collect()
    }

    /// Whether it reads as a member of a group, and commits.
    pub fn commits(self) -> bool {
        matches!(self, Role::Admit | Role::Aggregate | Role::Decide | Role::Arbitrate | Role::Fleets)
    }
}

pub(in crate::cli) fn roles() -> Vec<&'static str> {
    ROLES.iter().map(|(word, _)| *word).collect()
}

fn formats() -> Vec<&'static str> {
    FORMATS.iter().map(|(word, _)| *word).collect()
}

fn framings() -> Vec<&'static str> {
    FRAMINGS.iter().map(|(word, _)| *word).collect()
}

fn levels() -> Vec<&'static str> {
    LEVELS.iter().map(|(word, _)| *word).collect()
}

/// The age at which records of a topic go.
macro_rules! age {
    ($path:literal, $topic:ident) => {
        Setting {
            path: $path,
            list: false,
            shape: TIME,
            meaning: "the age at which records of this topic may go",
            read: |c, v| duration_within(&v[0], Duration::from_secs(1), Duration::from_secs(10 * 365 * 86_400)).map(|d| c.retention.ages.$topic = d),
            show: |c| show_duration(c.retention.ages.$topic),
        }
    };
}

/// How no limit is written.
const UNLIMITED: &str = "unlimited";

/// Every setting but the limits of single fleets, in the order in which they are shown.
pub(super) const SETTINGS: [Setting; 34] = [
    Setting {
        path: "data",
        list: false,
        shape: Shape::Plain,
        meaning: "the directory of the log and of everything else that Loadline keeps",
        read: |c, v| path(&v[0]).map(|p| c.data = p),
        show: |c| c.data.display().to_string(),
    },
    Setting {
        path: "listen",
        list: false,
        shape: Shape::Plain,
        meaning: "the address of the HTTP interface; a port alone means loopback",
        read: |c, v| address(&v[0]).map(|a| c.listen = a),
        show: |c| c.listen.to_string(),
    },
    Setting {
        path: "hosts",
        list: true,
        shape: Shape::Either(&[Shape::ListOf(&Shape::Plain), Shape::Plain]),
        meaning: "names by which the HTTP interface may be called, besides those of this machine",
        read: |c, v| v.iter().map(|text| host(text)).collect::<Result<_, _>>().map(|hosts| c.hosts = hosts),
        show: |c| c.hosts.join(", "),
    },
    Setting {
        path: "policies",
        list: true,
        shape: Shape::Either(&[Shape::ListOf(&Shape::Plain), Shape::Plain]),
        meaning: "files and directories of policies and fleets",
        read: |c, v| v.iter().map(|text| path(text)).collect::<Result<_, _>>().map(|p| c.policies = p),
        show: |c| c.policies.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
    },
    // Below 250 ms the scatter of arrival outweighs what a pane shows; above a minute no window is left.
    Setting {
        path: "pane",
        list: false,
        shape: TIME,
        meaning: "the length of a pane, 250ms to 1m",
        read: |c, v| duration_within(&v[0], Duration::from_millis(250), Duration::from_secs(60)).map(|d| c.pane = d),
        show: |c| show_duration(c.pane),
    },
    Setting {
        path: "grace",
        list: false,
        shape: TIME,
        meaning: "how long after a pane's end its late samples are waited for",
        read: |c, v| duration_within(&v[0], Duration::ZERO, Duration::from_secs(60)).map(|d| c.grace = d),
        show: |c| show_duration(c.grace),
    },
    Setting {
        path: "removals.percent",
        list: false,
        shape: PERCENT,
        meaning: "so much of a fleet may be removed in a period",
        read: |c, v| limit(&mut c.removals.default, "percent", &v[0]),
        show: |c| shown(&c.removals.default, 0),
    },
    Setting {
        path: "removals.atLeast",
        list: false,
        shape: NUMBER,
        meaning: "so many replicas may be removed in a period, whatever the percent come to",
        read: |c, v| limit(&mut c.removals.default, "atLeast", &v[0]),
        show: |c| shown(&c.removals.default, 1),
    },
    Setting {
        path: "removals.period",
        list: false,
        shape: TIME,
        meaning: "the period of both",
        read: |c, v| limit(&mut c.removals.default, "period", &v[0]),
        show: |c| shown(&c.removals.default, 2),
    },
    Setting {
        path: "freezeFile",
        list: false,
        shape: Shape::Plain,
        meaning: "while this file exists, no actuator changes anything",
        read: |c, v| path(&v[0]).map(|p| c.freeze_file = p),
        show: |c| c.freeze_file.display().to_string(),
    },
    Setting {
        path: "ingest.queue",
        list: false,
        shape: NUMBER,
        meaning: "how many metric requests may wait for the log at once",
        read: |c, v| whole(&v[0], 1, 65_536).map(|n| c.ingest_queue = n as usize),
        show: |c| c.ingest_queue.to_string(),
    },
    Setting {
        path: "ingest.samplesPerSecond",
        list: false,
        shape: Shape::Either(&[NUMBER, Shape::Exactly(UNLIMITED)]),
        meaning: "how many samples a second are taken",
        read: |c, v| samples_per_second(&v[0]).map(|n| c.samples_per_second = n),
        show: |c| c.samples_per_second.map_or_else(|| UNLIMITED.to_owned(), |n| n.to_string()),
    },
    Setting {
        path: "retention.size",
        list: false,
        shape: Shape::Pattern(r"^[0-9]+\s*(MiB|GiB|TiB)\s*$", "4GiB"),
        meaning: "the size that the log may have",
        read: |c, v| size_within(&v[0], LEAST_SIZE, MOST_SIZE).map(|n| c.retention.size = n),
        show: |c| show_size(c.retention.size),
    },
    age!("retention.metrics", metrics),
    age!("retention.signals", signals),
    age!("retention.requests", requests),
    age!("retention.commands", commands),
    age!("retention.audit", audit),
    age!("retention.alerts", alerts),
    age!("retention.deadLetters", dead_letters),
    Setting {
        path: "kafka.brokers",
        list: true,
        shape: Shape::Either(&[Shape::ListOf(&Shape::Plain), Shape::Plain]),
        meaning: "brokers to begin with, HOST:PORT; without them, and without kafka.config, the log is in the data directory",
        read: |c, v| v.iter().map(|text| plain(text)).collect::<Result<_, _>>().map(|brokers| c.kafka.brokers = brokers),
        show: |c| c.kafka.brokers.join(", "),
    },
    Setting {
        path: "kafka.prefix",
        list: false,
        shape: Shape::Plain,
        meaning: "what the names of topics, groups and transactions begin with",
        read: |c, v| plain(&v[0]).map(|prefix| c.kafka.prefix = prefix),
        show: |c| c.kafka.prefix.clone(),
    },
    Setting {
        path: "kafka.partitions",
        list: true,
        shape: Shape::Either(&[Shape::ListOf(&Shape::Plain), NUMBER, Shape::Plain]),
        meaning: "how many partitions the installation was made with, N or TOPIC=N; as declared where it is not said",
        read: |c, v| v.iter().map(|text| plain(text)).collect::<Result<_, _>>().map(|partitions| c.kafka.partitions = partitions),
        show: |c| c.kafka.partitions.join(", "),
    },
    Setting {
        path: "kafka.replication",
        list: false,
        shape: NUMBER,
        meaning: "how many replicas each partition has; as declared where it is not said",
        read: |c, v| whole(&v[0], 1, 32_767).map(|n| c.kafka.replication = Some(n)),
        show: |c| c.kafka.replication.map_or_else(String::new, |n| n.to_string()),
    },
    Setting {
        path: "kafka.config",
        list: false,
        shape: Shape::Plain,
        meaning: "a file with settings of librdkafka, NAME=VALUE a line: TLS, and users with their passwords",
        read: |c, v| path(&v[0]).map(|p| c.kafka.config = Some(p)),
        show: |c| c.kafka.config.as_ref().map_or_else(String::new, |path| path.display().to_string()),
    },
    Setting {
        path: "kafka.registry.url",
        list: false,
        shape: Shape::Plain,
        meaning: "a schema registry with the interface of Confluent's, for samples and policies that are framed by its ids",
        read: |c, v| plain(&v[0]).map(|url| c.kafka.registry = Some(url)),
        show: |c| c.kafka.registry.clone().unwrap_or_default(),
    },
    Setting {
        path: "kafka.registry.credentials",
        list: false,
        shape: Shape::Plain,
        meaning: "a file with the user that the schema registry is asked as, USER:PASSWORD in one line",
        read: |c, v| path(&v[0]).map(|p| c.kafka.registry_credentials = Some(p)),
        show: |c| c.kafka.registry_credentials.as_ref().map_or_else(String::new, |path| path.display().to_string()),
    },
    Setting {
        path: "kafka.registry.ca",
        list: false,
        shape: Shape::Plain,
        meaning: "a file with the authorities, in PEM, of which one signed the certificate of a schema registry over https; without it those of the system",
        read: |c, v| path(&v[0]).map(|p| c.kafka.registry_ca = Some(p)),
        show: |c| c.kafka.registry_ca.as_ref().map_or_else(String::new, |path| path.display().to_string()),
    },
    Setting {
        path: "kafka.framing",
        list: false,
        shape: Shape::Words(framings),
        meaning: "how what is written names its schema: singleObject, by a fingerprint, or confluent, by an id of the registry",
        read: |c, v| word(&v[0], &FRAMINGS).map(|framing| c.kafka.framing = framing),
        show: |c| name_of(&FRAMINGS, c.kafka.framing).to_owned(),
    },
    Setting {
        path: "kafka.member",
        list: false,
        shape: Shape::Plain,
        meaning: "a name of this process and no other: its partitions wait for it while it restarts, for session.timeout.ms, and are not handed over",
        read: |c, v| plain(&v[0]).map(|name| c.kafka.member = Some(name)),
        show: |c| c.kafka.member.clone().unwrap_or_default(),
    },
    Setting {
        path: "roles",
        list: true,
        shape: Shape::Either(&[Shape::ListOf(&Shape::Words(roles)), Shape::Words(roles), Shape::Plain]),
        meaning: "what this process does of the pipeline; less than all of it on Kafka alone",
        read: |c, v| match v {
            [] => Err("no role is named: leave it out for all of them, or name some".to_owned()),
            some => some.iter().map(|text| word(text, &ROLES)).collect::<Result<_, _>>().map(|roles| c.roles = roles),
        },
        show: |c| ROLES.iter().filter(|(_, role)| c.roles.contains(role)).map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    },
    Setting {
        path: "log.format",
        list: false,
        shape: Shape::Words(formats),
        meaning: "how log lines are written; auto is text on a terminal, else json",
        read: |c, v| word(&v[0], &FORMATS).map(|f| c.log_format = f),
        show: |c| name_of(&FORMATS, c.log_format).to_owned(),
    },
    Setting {
        path: "log.level",
        list: false,
        shape: Shape::Words(levels),
        meaning: "the least important log lines that are written",
        read: |c, v| word(&v[0], &LEVELS).map(|l| c.log_level = l),
        show: |c| c.log_level.as_str().to_owned(),
    },
    Setting {
        path: "stopFleetsOnExit",
        list: false,
        shape: Shape::Either(&[Shape::Bool, Shape::Pattern("^(true|false)$", "true")]),
        meaning: "whether the processes of every ProcessFleet end with Loadline",
        read: |c, v| boolean(&v[0]).map(|b| c.stop_fleets_on_exit = b),
        show: |c| c.stop_fleets_on_exit.to_string(),
    },
];

/// The fields of a removal limit, in the order of [`limit_fields`].
const LIMIT_FIELDS: [&str; 3] = ["percent", "atLeast", "period"];

/// How every name of the environment starts.
pub(super) const PREFIX: &str = "LOADLINE_";

/// `LOADLINE_*` names that are no settings but belong to the program.
const OTHER_NAMES: [&str; 2] = ["LOADLINE_CONFIG", "LOADLINE_SERVER"];

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("the path is empty; name a file or directory, or leave the setting out".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// A text that says something.
pub(super) fn plain(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty; leave the setting out".to_owned()) } else { Ok(text.to_owned()) }
}

fn samples_per_second(text: &str) -> Result<Option<NonZeroU32>, String> {
    if text == UNLIMITED {
        return Ok(None);
    }
    whole(text, 1, 100_000_000).map(NonZeroU32::new).map_err(|e| format!("{e}, or {UNLIMITED}"))
}

fn limit(limit: &mut RemovalLimit, field: &str, text: &str) -> Result<(), String> {
    match field {
        "percent" => percent(text).map(|n| limit.percent = n),
        "atLeast" => whole(text, 0, u32::MAX).map(|n| limit.at_least = n),
        "period" => duration_within(text, Duration::from_millis(100), Duration::from_secs(86_400)).map(|d| limit.period = d),
        _ => Err(unknown(field, LIMIT_FIELDS)),
    }
}

/// Every setting of the file, for schemas.
pub(super) fn outline() -> Outline {
    let mut outline = Outline::default();
    let mut add = |path: &str, shape: Shape, meaning: &'static str, default: Option<String>| {
        let path = format!(".{path}");
        let sections = path.match_indices('.').map(|(at, _)| path[..at].to_owned());
        outline.maps.extend(sections);
        outline.fields.insert(path, Form { shape, meaning, default, by_role: false });
    };
    let config = Config::default();
    for setting in &SETTINGS {
        let default = Some((setting.show)(&config)).filter(|default| !default.is_empty());
        add(setting.path, setting.shape, setting.meaning, default);
    }
    add("removals.fleets", Shape::MapOf(&Shape::Any), "the limits of single fleets, by name; what one does not say is the default's", None);
    for (field, shape) in LIMIT_FIELDS.into_iter().zip([PERCENT, NUMBER, TIME]) {
        add(&format!("removals.fleets.*.{field}"), shape, "as of `removals`, for this fleet", None);
    }
    add("lag", Shape::MapOf(&Shape::Any), "consumer groups on Kafka whose lag is a metric, by a name of your own", None);
    for field in &lag::FIELDS {
        add(&format!("lag.*.{}", field.name), field.shape, field.meaning, field.default.map(ToOwned::to_owned));
    }
    outline.maps.remove(".removals.fleets");
    outline.maps.remove(".lag");
    outline
}

/// A limit's fields as they would be written.
pub(super) fn limit_fields(limit: &RemovalLimit) -> [(&'static str, String); 3] {
    let values = [format!("{}%", limit.percent), limit.at_least.to_string(), show_duration(limit.period)];
    let mut fields = LIMIT_FIELDS.into_iter().zip(values);
    std::array::from_fn(|_| fields.next().unwrap_or_default())
}

fn shown(limit: &RemovalLimit, field: usize) -> String {
    limit_fields(limit)[field].1.clone()
}

/// Reads one setting into the configuration.
pub(super) fn set(config: &mut Config, written: &Written) -> Result<(), String> {
    if let Some(rest) = written.path.strip_prefix("removals.fleets.") {
        let (fleet, field) =
            rest.rsplit_once('.').ok_or_else(|| format!("{}: name a field of the fleet's limit: {}", written.path, LIMIT_FIELDS.join(", ")))?;
        let fleet: FleetName = fleet.parse().map_err(|e| format!("removals.fleets: {e}"))?;
        let [value] = written.values.as_slice() else { return Err(format!("{} takes one value, not {}", written.path, written.values.len())) };
        let default = config.removals.default;
        return limit(config.removals.fleets.entry(fleet).or_insert(default), field, value).map_err(|e| format!("{}: {e}", written.path));
    }
    if let Some(rest) = written.path.strip_prefix(lag::PREFIX) {
        return lag::set(config, rest, written);
    }
    let setting = SETTINGS.iter().find(|s| s.path == written.path).ok_or_else(|| unknown(&written.path, SETTINGS.iter().map(|s| s.path)))?;
    if !setting.list && written.values.len() != 1 {
        return Err(format!("{} takes one value, not {}", setting.path, written.values.len()));
    }
    (setting.read)(config, &written.values).map_err(|e| format!("{}: {e}", setting.path))
}

/// The message for a name that is none of `known`.
pub(super) fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no setting \"{name}\"; did you mean \"{near}\"?"),
        None => format!("there is no setting \"{name}\"; there are: {}", known.join(", ")),
    }
}

/// Whether the setting at `path` takes a list.
pub(super) fn is_list(path: &str) -> bool {
    path.strip_prefix(lag::PREFIX).map_or_else(|| SETTINGS.iter().any(|s| s.path == path && s.list), lag::is_list)
}

/// A value of the environment or of `--set`: a list is separated by commas.
pub(super) fn split_list(path: &str, value: &str) -> Vec<String> {
    if is_list(path) { value.split(',').map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect() } else { vec![value.to_owned()] }
}

/// The environment's name of a setting: `removals.atLeast` is `LOADLINE_REMOVALS_AT_LEAST`.
fn environment_name(path: &str) -> String {
    let mut name = String::from(PREFIX);
    for c in path.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => name.extend(['_', c]),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// The settings that the environment has. A name that is nearly one of them is warned of; any other is
/// somebody else's (Kubernetes puts `LOADLINE_PORT` and the like beside a service named `loadline`).
pub(super) fn from_environment(environment: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Vec<Written> {
    let names: BTreeMap<String, &str> = SETTINGS.iter().map(|s| (environment_name(s.path), s.path)).collect();
    let mut written = Vec::new();
    for (name, value) in environment {
        if let Some(path) = names.get(name) {
            written.push(Written { path: (*path).to_owned(), values: split_list(path, value), source: Source::Environment(name.clone()) });
        } else if !OTHER_NAMES.contains(&name.as_str())
            && let Some(near) = nearest(&name[PREFIX.len()..], names.keys().map(|known| &known[PREFIX.len()..]))
        {
            warnings.push(format!("environment {name}: not used; did you mean {PREFIX}{near}?"));
        }
    }
    written
}
