//! The configuration: `loadline.yaml`, then `LOADLINE_*`, then flags; the later wins.
//!
//! One table ([`settings::SETTINGS`]) says for every setting how it is written, read and shown. All three
//! places go through it, so a value means the same wherever it stands, and `loadline config` can show
//! where each one comes from. What comes out is a [`Config`] of types that cannot be wrong: nothing
//! inside validates again.
//!
//! What changes decisions of a target stands in its policy, not here: the two that hold for a whole
//! installation (`pane`, `grace`) reach the decisions through the log alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::model::FleetName;
use crate::runtime::retention::Limits;

mod file;
mod lag;
mod settings;
mod value;

pub use lag::LagSource;
#[cfg(feature = "kafka")]
pub(super) use settings::roles;
pub use settings::{Framing, LogFormat, LogLevel, Role};
use settings::{SETTINGS, Written};

/// The file that is read when none is named, where it is there.
const DEFAULT_FILE: &str = "loadline.yaml";

/// How many replicas of a fleet may be removed in a period: the larger of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalLimit {
    /// Percent of the fleet.
    pub percent: u32,
    /// At least so many replicas.
    pub at_least: u32,
    /// The period.
    pub period: Duration,
}

impl Default for RemovalLimit {
    fn default() -> Self {
        RemovalLimit { percent: 10, at_least: 5, period: Duration::from_secs(60) }
    }
}

/// The removal limits of all fleets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removals {
    /// Of every fleet that has none of its own.
    pub default: RemovalLimit,
    /// Of single fleets; what one does not say is the default's.
    pub fleets: BTreeMap<FleetName, RemovalLimit>,
}

impl Removals {
    /// The limit of a fleet.
    pub fn of(&self, fleet: &FleetName) -> RemovalLimit {
        self.fleets.get(fleet).copied().unwrap_or(self.default)
    }
}

/// The log on Kafka, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// Brokers to begin with.
    pub brokers: Vec<String>,
    /// What the names of topics, groups and transactions begin with.
    pub prefix: String,
    /// How many partitions the installation was made with, N or TOPIC=N.
    pub partitions: Vec<String>,
    /// How many replicas each partition has.
    pub replication: Option<u32>,
    /// A file with settings of librdkafka.
    pub config: Option<PathBuf>,
    /// The URL of a schema registry, for records that are framed by its ids.
    pub registry: Option<String>,
    /// A file with the user that it is asked as.
    pub registry_credentials: Option<PathBuf>,
    /// A file with the authorities of which one signed its certificate.
    pub registry_ca: Option<PathBuf>,
    /// How messages name the schema that they are written with.
    pub framing: Framing,
    /// The name under which its partitions wait for it while it restarts.
    pub member: Option<String>,
}

impl Kafka {
    /// Whether the log is on Kafka.
    pub fn is_used(&self) -> bool {
        !self.brokers.is_empty() || self.config.is_some()
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            brokers: Vec::new(),
            prefix: "loadline.".to_owned(),
            partitions: Vec::new(),
            replication: None,
            config: None,
            registry: None,
            registry_credentials: None,
            registry_ca: None,
            framing: Framing::SingleObject,
            member: None,
        }
    }
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The directory of the log and of everything else that Loadline keeps.
    pub data: PathBuf,
    /// The address of the HTTP interface.
    pub listen: SocketAddr,
    /// Names by which it may be called, besides those of this machine.
    pub hosts: Vec<String>,
    /// Files and directories of policies and fleets.
    pub policies: Vec<PathBuf>,
    /// The length of a pane, 250 ms to 60 s.
    pub pane: Duration,
    /// How long after a pane's end its late samples are waited for.
    pub grace: Duration,
    /// How fast fleets may shrink.
    pub removals: Removals,
    /// While this file exists, no actuator changes anything.
    pub freeze_file: PathBuf,
    /// How many metric requests may wait for the log at once.
    pub ingest_queue: usize,
    /// How many samples a second are taken; `None`: as many as come.
    pub samples_per_second: Option<NonZeroU32>,
    /// How much of the log is kept.
    pub retention: Limits,
    /// Where the log is, when not in the data directory.
    pub kafka: Kafka,
    /// Groups on Kafka whose lag is a metric, by name.
    pub lag: BTreeMap<String, LagSource>,
    /// What this process does.
    pub roles: BTreeSet<Role>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The least important log lines that are written.
    pub log_level: LogLevel,
    /// Whether the processes of every `ProcessFleet` end with Loadline.
    pub stop_fleets_on_exit: bool,
    /// Where each value comes from, by the setting's path.
    sources: BTreeMap<String, Source>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: Vec::new(),
            policies: Vec::new(),
            pane: Duration::from_secs(5),
            grace: Duration::from_millis(500),
            removals: Removals::default(),
            freeze_file: PathBuf::new(),
            // At 10 ms a commit (the slowest in a hundred, measured) the last of 64 waits well under a
            // second even if no two share a commit; and 64 bodies of 4 MiB are 256 MiB at most.
            ingest_queue: 64,
            samples_per_second: None,
            retention: Limits::default(),
            kafka: Kafka::default(),
            lag: BTreeMap::new(),
            roles: Role::all(),
            log_format: LogFormat::Auto,
            log_level: LogLevel::Info,
            stop_fleets_on_exit: false,
            sources: BTreeMap::new(),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// Nobody said otherwise.
    #[default]
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The JSON Schema of the configuration file.
pub(super) fn schema() -> serde_json::Value {
    let schema = crate::wire::document::schema::map(&settings::outline(), "");
    // An empty file says nothing, and is one.
    crate::wire::document::schema::nullable(schema)
}

/// Everything that is wrong with a configuration, all at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    /// One line each: where, what, and the mend.
    pub problems: Vec<String>,
}

/// The flags that every command with a configuration has.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file [default: loadline.yaml, where it is there]
    #[arg(long, value_name = "FILE", env = "LOADLINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The directory of the log and of everything else that Loadline keeps [default: data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// The address of the HTTP interface; a port alone means loopback [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// A file or directory of policies and fleets; may be given several times
    #[arg(long, value_name = "PATH")]
    pub policies: Vec<String>,
    /// The length of a pane, e.g. 5s or 250ms [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub pane: Option<String>,
    /// How long after a pane's end its late samples are waited for [default: 500ms]
    #[arg(long, value_name = "TIME")]
    pub grace: Option<String>,
    /// Brokers to begin with, where the log is on Kafka; may be given several times
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// What this process does of the pipeline, on Kafka [default: all]
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',')]
    pub roles: Vec<String>,
    /// How log lines are written: text, json, or auto: text on a terminal, else json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// The least important log lines that are written: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// End the processes of all process fleets with Loadline
    #[arg(long)]
    pub stop_fleets_on_exit: bool,
    /// Any setting by its path, e.g. --set removals.percent=20%; `loadline config` lists them
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Flags of other commands, which stand in the configuration here.
    #[cfg(feature = "kafka")]
    #[command(flatten)]
    elsewhere: Elsewhere,
}

/// Flags by which other commands reach Kafka: each is refused with the setting that it is here.
#[cfg(feature = "kafka")]
#[derive(Debug, Clone, Default, clap::Args)]
struct Elsewhere {
    #[arg(long, hide = true, value_parser = instead("a setting of librdkafka stands in a file, NAME=VALUE a line: --set kafka.config=FILE"))]
    kafka_set: Option<String>,
    #[arg(long, hide = true, value_parser = instead("the file is named by its setting: --set kafka.config=FILE"))]
    kafka_config: Option<String>,
    #[arg(long, hide = true, value_parser = instead("the prefix is a setting: --set kafka.prefix=PREFIX"))]
    prefix: Option<String>,
}

#[cfg(feature = "kafka")]
fn instead(hint: &'static str) -> clap::builder::UnknownArgumentValueParser {
    clap::builder::UnknownArgumentValueParser::suggest(hint)
}

impl ConfigArgs {
    /// What the flags say, as (path, flag, values).
    fn written(&self) -> Result<Vec<(String, String, Vec<String>)>, String> {
        let mut all = Vec::new();
        for setting in &self.set {
            let (path, value) = setting.split_once('=').ok_or_else(|| format!("--set {setting}: not PATH=VALUE, as in --set pane=250ms"))?;
            all.push((path.to_owned(), format!("--set {path}"), settings::split_list(path, value)));
        }
        let single = [
            ("data", "--data", &self.data),
            ("listen", "--listen", &self.listen),
            ("pane", "--pane", &self.pane),
            ("grace", "--grace", &self.grace),
            ("log.format", "--log-format", &self.log_format),
            ("log.level", "--log-level", &self.log_level),
        ];
        all.extend(single.into_iter().filter_map(|(path, flag, value)| Some((path.to_owned(), flag.to_owned(), vec![value.clone()?]))));
        if !self.policies.is_empty() {
            all.push(("policies".to_owned(), "--policies".to_owned(), self.policies.clone()));
        }
        for (path, flag, values) in [("kafka.brokers", "--brokers", &self.brokers), ("roles", "--roles", &self.roles)] {
            if !values.is_empty() {
                all.push((path.to_owned(), flag.to_owned(), values.clone()));
            }
        }
        if self.stop_fleets_on_exit {
            all.push(("stopFleetsOnExit".to_owned(), "--stop-fleets-on-exit".to_owned(), vec!["true".to_owned()]));
        }
        Ok(all)
    }
}

/// The configuration, with what is odd about it but does not stand in the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration in force.
    pub config: Config,
    /// One line each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file, the environment of this process and the flags.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem, or the reason why the file cannot be read.
    pub fn load(args: &ConfigArgs) -> anyhow::Result<Loaded> {
        let path = args.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && args.config.is_none() => None,
            Err(e) => return Err(e).with_context(|| format!("the configuration file {} cannot be read", path.display())),
        };
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(Config::from_parts(text.as_deref().map(|text| (path.as_path(), text)), environment, args)?)
    }

    /// The configuration of a file's text, an environment and flags.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_parts(file: Option<(&Path, &str)>, environment: impl IntoIterator<Item = (String, String)>, args: &ConfigArgs) -> Result<Loaded, ConfigError> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let mut written = Vec::new();
        if let Some((path, text)) = file {
            match file::read(path, text) {
                Ok(settings) => written.extend(settings),
                Err(error) => problems.push(error),
            }
        }
        let environment: BTreeMap<String, String> = environment.into_iter().filter(|(name, _)| name.starts_with(settings::PREFIX)).collect();
        written.extend(settings::from_environment(&environment, &mut warnings));
        match args.written() {
            Ok(flags) => written.extend(flags.into_iter().map(|(path, flag, values)| Written { path, values, source: Source::Flag(flag) })),
            Err(error) => problems.push(error),
        }
        // A fleet's own limit starts from the default one, which must be known first, wherever it is written.
        written.sort_by_key(|w| w.path.starts_with("removals.fleets."));
        for one in written {
            match settings::set(&mut config, &one) {
                Ok(()) => drop(config.sources.insert(one.path, one.source)),
                Err(error) => problems.push(format!("{}: {error}", one.source)),
            }
        }
        if config.freeze_file.as_os_str().is_empty() {
            config.freeze_file = config.data.join("freeze");
        }
        config.contradictions(&mut problems);
        if !config.listen.ip().is_loopback() {
            warnings.push(format!(
                "{}: the HTTP interface asks nobody for a password, and {} is open to other machines",
                config.source("listen"),
                config.listen
            ));
        }
        if problems.is_empty() { Ok(Loaded { config, warnings }) } else { Err(ConfigError { problems }) }
    }

    /// Values that are right each for itself and wrong together.
    fn contradictions(&self, problems: &mut Vec<String>) {
        let limits = std::iter::once(("removals".to_owned(), self.removals.default))
            .chain(self.removals.fleets.iter().map(|(name, limit)| (format!("removals.fleets.{name}"), *limit)));
        for (path, limit) in limits {
            if limit.percent == 0 && limit.at_least == 0 {
                problems.push(format!("{path}: percent 0% and atLeast 0 together would never let a replica go; to stop all changes use the freeze file"));
            }
        }
        if !self.kafka.is_used() && self.roles != Role::all() {
            problems.push(format!(
                "{}: the log in the data directory is for one process, which does all; leave roles out, or name kafka.brokers",
                self.source("roles")
            ));
        }
        lag::contradictions(self, problems);
        // A variable that nobody set: to begin a log in the data directory would be another installation.
        if self.kafka.brokers.is_empty() && self.source("kafka.brokers") != Source::Default {
            problems.push(format!(
                "{}: kafka.brokers names none; write HOST:PORT, or leave it out for the log in the data directory",
                self.source("kafka.brokers")
            ));
        }
        for path in ["prefix", "partitions", "replication", "member"].map(|setting| format!("kafka.{setting}")) {
            // Whoever says how the log on Kafka is does not mean a fleet of its own on a log in the data directory.
            if !self.kafka.is_used() && self.source(&path) != Source::Default {
                let source = self.source(&path);
                problems.push(format!("{source}: {path} is said of a log on Kafka, and no brokers are named; name them in kafka.brokers, or leave it out"));
            }
        }
        if !self.kafka.is_used() && self.kafka.registry.is_some() {
            problems.push(format!(
                "{}: in the data directory nothing is framed by the ids of a registry; leave kafka.registry out, or name kafka.brokers",
                self.source("kafka.registry.url")
            ));
        }
        if self.kafka.registry.is_none() && self.kafka.registry_credentials.is_some() {
            problems.push(format!("{}: these are of no registry; name it in kafka.registry.url", self.source("kafka.registry.credentials")));
        }
        if self.kafka.registry.is_none() && self.kafka.registry_ca.is_some() {
            problems.push(format!("{}: these are of no registry; name it in kafka.registry.url", self.source("kafka.registry.ca")));
        }
        if self.kafka.registry.is_none() && self.kafka.framing == Framing::Confluent {
            problems.push(format!("{}: the ids are those of a registry; name it in kafka.registry.url", self.source("kafka.framing")));
        }
        if self.freeze_file == self.data {
            problems.push(format!(
                "{}: freezeFile is the data directory {} itself, which always exists, so nothing would ever scale; name a file that does not exist yet",
                self.source("freezeFile"),
                self.data.display()
            ));
        }
        for path in &self.policies {
            if self.data.starts_with(path) && path.as_os_str() != "." {
                problems.push(format!(
                    "{}: policies {} holds the data directory {}; keep them apart, since what Loadline writes is no policy",
                    self.source("policies"),
                    path.display(),
                    self.data.display()
                ));
            }
        }
    }

    /// The settings that somebody gave and that do nothing here.
    pub fn unused(&self) -> Vec<String> {
        let of_the_embedded_log = |path: &&String| self.kafka.is_used() && path.starts_with("retention.");
        self.sources
            .iter()
            .filter(|(path, source)| of_the_embedded_log(path) && **source != Source::Default)
            .map(|(path, source)| format!("{source}: {path}"))
            .collect()
    }

    /// Where the setting at `path` comes from.
    pub fn source(&self, path: &str) -> Source {
        self.sources.get(path).cloned().unwrap_or_default()
    }

    /// Every setting: its path, its value as it would be written, and where it comes from.
    pub fn effective(&self) -> Vec<(String, String, Source)> {
        let mut all: Vec<(String, String, Source)> = SETTINGS.iter().map(|s| (s.path.to_owned(), (s.show)(self), self.source(s.path))).collect();
        for (name, limit) in &self.removals.fleets {
            for (field, shown) in settings::limit_fields(limit) {
                let path = format!("removals.fleets.{name}.{field}");
                let source = self.sources.get(&path).cloned().unwrap_or_else(|| self.source(&format!("removals.{field}")));
                all.push((path, shown, source));
            }
        }
        all.extend(lag::shown(&self.lag).map(|(path, shown)| (path.clone(), shown, self.source(&path))));
        all
    }
}

/// `loadline config`: the effective configuration, with where each value comes from.
///
/// Exit codes: 0, or 2 where the configuration is not valid.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  loadline config\n  LOADLINE_PANE=250ms loadline config --output json")]
pub struct ConfigCommand {
    #[command(flatten)]
    args: ConfigArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: super::Output,
}

/// Prints the effective configuration to `out`.
///
/// # Errors
/// Where the file cannot be read, `out` cannot be written, or `loadline run` would refuse a setting of Kafka or of a registry, or the file that it names, without asking anybody.
pub fn run(command: &ConfigCommand, out: &mut dyn Write) -> anyhow::Result<u8> {
    let loaded = Config::load(&command.args)?;
    let effective = loaded.config.effective();
    match command.output {
        super::Output::Json => {
            let values: Vec<_> = effective.iter().map(|(path, value, source)| json!({"path": path, "value": value, "source": source.to_string()})).collect();
            serde_json::to_writer_pretty(&mut *out, &values)?;
            writeln!(out)?;
        }
        super::Output::Text => {
            let rows = effective.into_iter().map(|(path, value, source)| vec![path, if value.is_empty() { "–".to_owned() } else { value }, source.to_string()]);
            super::table::write(out, &["SETTING", "VALUE", "FROM"], rows)?;
        }
    }
    for warning in loaded.warnings {
        // Apart from the answer, which a program may read.
        super::tell(&format!("warning: {warning}"));
    }
    // Settings that `run` would refuse without asking anybody; the reason comes last.
    #[cfg(feature = "kafka")]
    if loaded.config.kafka.is_used() {
        out.flush()?;
        super::topology::options_of(&loaded.config)?;
        super::connection::registry_of(&loaded.config)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
