//! How a command reaches Kafka: brokers, and settings of librdkafka from flags and from a file; and which installation there it reads.
//!
//! Secrets stand in the file: what is on a command line can be read by everybody on the machine. No message tells one.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Unusable;
use super::config::Config;
use crate::edge::registry::{BadSetting, Registry};
use crate::log::kafka::declaration::{PREFIX, declared};
use crate::log::kafka::{Options, canonical, check_setting, is_secret};
use crate::model::document::amounts::duration;
use crate::model::document::{Node, Value};

/// The setting that `--brokers` stands for.
const BROKERS: &str = "bootstrap.servers";

/// The longest name that Kafka takes.
const LONGEST_NAME: usize = 249;

/// How to reach a cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct ConnectionArgs {
    /// Brokers to begin with [default: bootstrap.servers of the file]
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// A file with settings of librdkafka, NAME=VALUE a line, # before comments: TLS, and users with their passwords
    #[arg(long = "kafka-config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting of librdkafka, before those of the file; secrets belong in the file
    #[arg(long = "kafka-set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// How long an answer of the cluster may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait)]
    wait: Duration,
}

fn wait(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(600);
    let wait = duration(&Node::bare(Value::Text(text.to_owned())), longest).map_err(|fault| format!("{}; {}", fault.message, fault.mend))?;
    if wait < Duration::from_millis(100) { Err("at least 100ms, or no broker could answer".to_owned()) } else { Ok(wait) }
}

impl ConnectionArgs {
    /// Those of a configuration.
    pub(super) fn of(brokers: &[String], config: Option<PathBuf>) -> Self {
        let brokers = (!brokers.is_empty()).then(|| brokers.join(","));
        ConnectionArgs { brokers, config, set: Vec::new(), wait: Options::new("").patience }
    }

    /// The options that `shape` makes for the brokers, with how to reach them.
    pub(super) fn complete(&self, shape: impl FnOnce(&str) -> Result<Options, Wrong>) -> Result<Options, Wrong> {
        let (brokers, settings) = self.settings()?;
        Ok(Options { settings, patience: self.wait, ..shape(&brokers)? })
    }

    /// The brokers, and the settings.
    fn settings(&self) -> Result<(String, BTreeMap<String, String>), Wrong> {
        let mut settings = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| Wrong::of(Part::File, &path.display().to_string(), error))?;
                of_file(path, &text).map_err(Wrong::alone)?
            }
            None => BTreeMap::new(),
        };
        for written in &self.set {
            let (name, value) = written.split_once('=').ok_or_else(|| Wrong::alone(format!("--kafka-set {}: not NAME=VALUE", shown(written))))?;
            if is_secret(name) {
                let reason = format!("--kafka-set {name}: everybody on this machine can read a command line; write it into a file, for --kafka-config");
                return Err(Wrong::alone(reason));
            }
            if canonical(name) == BROKERS {
                return Err(Wrong::alone(format!("--kafka-set {name}: say it with --brokers")));
            }
            check_setting(name, value).map_err(|reason| Wrong::alone(format!("--kafka-set {reason}")))?;
            settings.insert(canonical(name).to_owned(), value.to_owned());
        }
        let of_file = settings.remove(BROKERS);
        if let Some(brokers) = &self.brokers {
            check_brokers(brokers).map_err(|reason| Wrong::of(Part::Brokers, brokers, reason))?;
            return Ok((brokers.clone(), settings));
        }
        let brokers =
            of_file.ok_or_else(|| Wrong::alone(format!("no brokers are named: say --brokers HOST:PORT, or {BROKERS} in the file of --kafka-config")))?;
        let place = || self.config.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()));
        check_brokers(&brokers).map_err(|reason| Wrong::alone(format!("{}{BROKERS} {brokers}: {reason}", place())))?;
        Ok((brokers, settings))
    }
}

/// What of an installation, or of the way to it, is said by a flag or in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The brokers.
    Brokers,
    /// The file with settings of librdkafka.
    File,
    /// The prefix of names.
    Prefix,
    /// The numbers of partitions.
    Partitions,
}

/// A value that cannot be used.
#[derive(Debug)]
pub(super) struct Wrong {
    part: Option<Part>,
    reason: String,
}

impl Wrong {
    /// A value of a part, and why.
    pub(super) fn of(part: Part, value: &str, reason: impl Display) -> Self {
        Wrong { part: Some(part), reason: format!("{value}: {reason}") }
    }

    /// What names its place itself.
    fn alone(reason: String) -> Self {
        Wrong { part: None, reason }
    }

    /// What is told of it where it stands at `place` under the name of a setting.
    pub(super) fn told_as_setting(&self, place: impl FnOnce(&str) -> String) -> String {
        let setting = match self.part {
            None => return self.reason.clone(),
            Some(Part::Brokers) => "brokers",
            Some(Part::File) => "config",
            Some(Part::Prefix) => "prefix",
            Some(Part::Partitions) => "partitions",
        };
        format!("{} {}", place(setting), self.reason)
    }
}

/// As of a command line.
impl From<Wrong> for Unusable {
    fn from(wrong: Wrong) -> Unusable {
        let flag = match wrong.part {
            None => return Unusable(wrong.reason),
            Some(Part::Brokers) => "--brokers",
            Some(Part::File) => "--kafka-config",
            Some(Part::Prefix) => "--prefix",
            Some(Part::Partitions) => "--partitions",
        };
        Unusable(format!("{flag} {}", wrong.reason))
    }
}

/// What librdkafka takes for the way to a broker; of anything else it says no more than that nobody answers.
pub(super) fn check_brokers(brokers: &str) -> Result<(), String> {
    const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    let is_one = |broker: &str| {
        let (protocol, at) = broker.split_once("://").unwrap_or((PROTOCOLS[0], broker));
        // An IPv6 address stands in brackets.
        let (host, port) = at.rsplit_once(':').filter(|(_, after)| !after.ends_with(']')).unwrap_or((at, "9092"));
        let is_host = !host.is_empty() && !host.contains(['/', '@']) && (host.starts_with('[') || !host.contains(':')) && !host.contains(char::is_whitespace);
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str()) && is_host && is_port
    };
    match brokers.split(',').map(str::trim).find(|broker| !is_one(broker)) {
        None => Ok(()),
        Some(broker) if broker == brokers => Err("not HOST:PORT, as in kafka-1:9092".to_owned()),
        Some("") => Err("a broker is empty; write HOST:PORT, and a comma between two".to_owned()),
        Some(broker) => Err(format!("{broker} is not HOST:PORT, as in kafka-1:9092")),
    }
}

/// An installation on Kafka to read, in the place of a data directory.
#[derive(Debug, Clone, Args)]
pub(super) struct InstallationArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// What the names of its topics begin with [default: loadline.]
    #[arg(long)]
    prefix: Option<String>,
}

impl InstallationArgs {
    /// How to reach it, where one is named.
    pub(super) fn options(&self) -> anyhow::Result<Option<Options>> {
        let ConnectionArgs { brokers, config, set, wait: _ } = &self.connection;
        if brokers.is_none() && config.is_none() && set.is_empty() && self.prefix.is_none() {
            return Ok(None);
        }
        let prefix = self.prefix.clone().unwrap_or_else(|| PREFIX.to_owned());
        check_prefix(&prefix).map_err(Unusable::from)?;
        let options = self.connection.complete(|brokers| Ok(Options { prefix, ..Options::new(brokers) }));
        Ok(Some(options.map_err(Unusable::from)?))
    }
}

/// A schema registry, asked as the user in a file, with a certificate of the authorities in another one.
///
/// # Errors
/// Which of the settings `kafka.registry.…` it is, and what is wrong with it; nothing of a file is told but its name.
pub(super) fn schema_registry(url: &str, credentials: Option<&Path>, authorities: Option<&Path>) -> Result<Registry, (&'static str, String)> {
    let read = |setting: &'static str, what: &'static str| {
        move |path: &Path| std::fs::read(path).map_err(|error| (setting, format!("the {what} of the schema registry, {}: {error}", path.display())))
    };
    let credentials = credentials.map(read("credentials", "user")).transpose()?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let authorities = authorities.map(read("ca", "authorities")).transpose()?;
    Registry::new(url, credentials.as_deref(), authorities.as_deref()).map_err(|BadSetting { of, reason }| (of, reason))
}

/// The registry of a configuration, where it names one. Nothing is asked of it.
///
/// # Errors
/// [`Unusable`] where it cannot be asked so.
pub(super) fn registry_of(config: &Config) -> anyhow::Result<Option<Registry>> {
    let Some(url) = &config.kafka.registry else { return Ok(None) };
    let registry = schema_registry(url, config.kafka.registry_credentials.as_deref(), config.kafka.registry_ca.as_deref());
    let told = |(setting, reason): (&str, String)| Unusable(format!("{}: {reason}", config.source(&format!("kafka.registry.{setting}"))));
    Ok(Some(registry.map_err(told)?))
}

/// Whether names of topics may begin so.
///
/// # Errors
/// What they may.
pub(super) fn check_prefix(prefix: &str) -> Result<(), Wrong> {
    let declared = declared().map_err(|error| Wrong::alone(error.to_string()))?;
    let longest = declared.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    // As of a variable that is not set: the names, and the rights to them, would be those of all that the cluster has.
    if prefix.is_empty() {
        return Err(Wrong::of(Part::Prefix, "\"\"", "it is empty; name one, as in loadline., or leave it out".to_owned()));
    }
    if prefix.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && prefix.len() + longest <= LONGEST_NAME {
        return Ok(());
    }
    let most = LONGEST_NAME - longest;
    let reason =
        format!("names of topics are of letters, digits, dots, underscores and hyphens, at most {LONGEST_NAME} together, so the prefix has at most {most}");
    Err(Wrong::of(Part::Prefix, prefix, reason))
}

/// The name of what should have been NAME=VALUE: what comes after may be a secret.
fn shown(written: &str) -> &str {
    written.split_whitespace().next().unwrap_or_default()
}

/// The settings of a file's text.
fn of_file(path: &Path, text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut settings = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let at = |reason: &str| format!("{}:{number}: {reason}", path.display());
        // Nothing of the line is told: it may be a password.
        let (name, value) = line.split_once('=').ok_or_else(|| at("not NAME=VALUE, as in security.protocol=SASL_SSL"))?;
        let (name, value) = (name.trim(), value.trim());
        if canonical(name) != BROKERS {
            check_setting(name, value).map_err(|reason| at(&reason))?;
        }
        if settings.insert(canonical(name).to_owned(), value.to_owned()).is_some() {
            return Err(at(&format!("{name} stands there twice")));
        }
    }
    Ok(settings)
}
