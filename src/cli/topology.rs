//! `loadline topology`: the topics on Kafka, as they are declared and as they are on a cluster.
//!
//! What is missing is created; what is there is never changed or deleted, only told, with the command that mends it.

mod acls;
mod print;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::json;

use self::print::{differences, shape};
use super::config::{Config, roles};
use super::connection::{ConnectionArgs, Part, Wrong, check_brokers, check_prefix, schema_registry};
use super::{Output, Paint, Unusable, counted, of_log, patiently};
use crate::log::kafka::declaration::{self, PREFIX, Role};
use crate::log::kafka::topics::{self, Difference, Weight};
use crate::log::kafka::{KafkaLog, Options, check_together};
use crate::log::{LogError, Partitions, Topic};
use crate::runtime::schemas::{AskId, begin};

/// All is as declared.
const FITS: u8 = 0;
/// Something differs.
const DIFFERS: u8 = 1;
/// It is not known whether it does.
const UNKNOWN: u8 = 2;

/// The topics on Kafka: show, check and create them.
#[derive(Debug, Args)]
pub struct TopologyArgs {
    /// What to do
    #[command(subcommand)]
    command: TopologyCommand,
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Print the topics as they are declared: partitions, settings, who writes and who reads. Needs no broker
    #[command(after_help = "Examples:
  loadline topology show
  loadline topology show --prefix prod. --partitions 24 --output json

Exit codes: 0 printed, 2 wrong usage.")]
    Show {
        #[command(flatten)]
        shape: ShapeArgs,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print what a user of the cluster must be allowed so that a process of some roles can run as that user (or `loadline migrate`, the role migrate), as commands of Apache Kafka
    #[command(after_help = "Examples:
  loadline topology acls --role decide --principal User:loadline-decide --brokers kafka-1:9092
  loadline topology acls --role admit,aggregate,decide,arbitrate --principal User:loadline --output json

Reaches no broker. Exit codes: 0 printed, 2 wrong usage.")]
    Acls {
        /// What the process does: as `roles` of its configuration
        #[arg(long, value_name = "ROLE", value_delimiter = ',', required = true, value_parser = PossibleValuesParser::new(roles().into_iter().chain([acls::MIGRATE])))]
        role: Vec<String>,
        /// Who it is to Kafka: User:NAME
        #[arg(long, value_name = "PRINCIPAL", value_parser = principal)]
        principal: String,
        /// Where the commands are to go
        #[arg(long, value_name = "HOST:PORT,…")]
        brokers: Option<String>,
        /// What the names of the topics begin with
        #[arg(long, default_value = PREFIX)]
        prefix: String,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Register Loadline's schemas in a schema registry, each under the name of its record (`RecordNameStrategy`), where they are not there: BACKWARD, so that a newer one reads
    /// what was written by the last. For producers that frame by the ids of the registry, and for readers
    #[command(after_help = "Examples:
  loadline topology schemas --registry http://registry:8081
  loadline topology schemas --registry http://registry:8080/apis/ccompat/v7 --credentials /etc/loadline/registry --output json

A schema that is there already keeps its id. Exit codes: 0 all are there, 1 one is refused, 2 the registry could not be asked.")]
    Schemas {
        /// Where the registry is; Apicurio's has the path /apis/ccompat/v7
        #[arg(long, value_name = "URL")]
        registry: String,
        /// A file with the user to ask as, USER:PASSWORD in one line
        #[arg(long, value_name = "FILE")]
        credentials: Option<PathBuf>,
        /// A file with the authorities, in PEM, of which one signed the certificate of a registry over https [default: those of the system]
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        ca: Option<PathBuf>,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Compare the topics on a cluster with the declaration: what is missing, what differs, what that does and how it is mended
    #[command(after_help = "Examples:
  loadline topology check --brokers kafka-1:9092,kafka-2:9092
  loadline topology check --kafka-config /etc/loadline/kafka.properties --output json | jq '.differences[] | select(.weight != \"Differs\")'

Changes nothing. Exit codes: 0 all topics are as declared, 1 some are missing or differ, 2 it could not be seen.")]
    Check {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[command(flatten)]
        shape: ShapeArgs,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Create the topics that are missing on a cluster. What is there stays as it is; what differs is told as by check
    #[command(after_help = "Examples:
  loadline topology apply --brokers kafka-1:9092 --dry-run
  loadline topology apply --brokers kafka-1:9092 --partitions 24
  loadline topology apply --brokers localhost:9092 --replication 1

Exit codes: 0 all topics are there, and Loadline runs on them, 1 something is there that Loadline does not run on, 2 the cluster could not be
reached, or refused.")]
    Apply {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[command(flatten)]
        shape: ShapeArgs,
        /// Say what would be created, and let the cluster check it
        #[arg(long)]
        dry_run: bool,
        /// A schema registry: put its ids on the topic schemas, for processes with kafka.framing=confluent
        #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
        registry: Option<String>,
        /// A file with the user that the registry is asked as, USER:PASSWORD in one line
        #[arg(long, value_name = "FILE", requires = "registry", value_hint = clap::ValueHint::FilePath)]
        credentials: Option<PathBuf>,
        /// A file with the authorities, in PEM, of which one signed the certificate of a registry over https [default: those of the system]
        #[arg(long, value_name = "FILE", requires = "registry", value_hint = clap::ValueHint::FilePath)]
        ca: Option<PathBuf>,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Kafka's tool takes a principal without a type for one whose type is its name.
fn principal(text: &str) -> Result<String, String> {
    let is_whole = text.split_once(':').is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
    let is_word = !text.contains(|c: char| c.is_whitespace() || "'\"$`\\;|&<>".contains(c));
    if is_whole && is_word { Ok(text.to_owned()) } else { Err("a type and a name, without spaces and quotes: User:loadline-decide".to_owned()) }
}

/// How an installation was made.
#[derive(Debug, Clone, Args)]
struct ShapeArgs {
    /// What the names of the topics begin with
    #[arg(long, default_value = PREFIX)]
    prefix: String,
    /// How many partitions the installation has: N for all topics that have several, or TOPIC=N [default: as declared]
    #[arg(long, value_name = "N|TOPIC=N", value_delimiter = ',')]
    partitions: Vec<String>,
    /// How many replicas each partition has [default: as declared]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i16::MAX)))]
    replication: Option<u32>,
}

impl ShapeArgs {
    /// The same, of a cluster that nothing is known of yet.
    fn options(&self, brokers: &str) -> Result<Options, Wrong> {
        check_prefix(&self.prefix)?;
        let partitions = if self.partitions.is_empty() { None } else { Some(self.partitions()?) };
        Ok(Options { prefix: self.prefix.clone(), partitions, replicas: self.replication, ..Options::new(brokers) })
    }

    /// The settings of `run` that say the same, where it is another shape than the declared one.
    fn told_to_run(&self) -> Option<String> {
        let prefix = (self.prefix != PREFIX).then(|| format!("kafka.prefix={}", self.prefix));
        let partitions = (!self.partitions.is_empty()).then(|| format!("kafka.partitions={}", self.partitions.join(",")));
        let replication = self.replication.map(|replicas| format!("kafka.replication={replicas}"));
        let settings: Vec<String> = [prefix, partitions, replication].into_iter().flatten().map(|setting| format!("--set {setting}")).collect();
        (!settings.is_empty()).then(|| settings.join(" "))
    }

    fn partitions(&self) -> Result<Partitions, Wrong> {
        let wrong = |written: &str, reason: String| Wrong::of(Part::Partitions, written, reason);
        let (declared, mut partitions) = declaration::declared()
            .and_then(|declared| Ok((declared, declaration::partitions()?)))
            .map_err(|error| wrong(&self.partitions.join(","), error.to_string()))?;
        // What is said of one topic holds, wherever it stands.
        let (all, single): (Vec<&String>, Vec<&String>) = self.partitions.iter().partition(|written| !written.contains('='));
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if (1..=MOST_PARTITIONS).contains(&number) => Ok(number),
            _ => Err(wrong(text, format!("not a number from 1 to {MOST_PARTITIONS}"))),
        };
        let flow = |role: &Role| match role {
            Role::Flow(topic) => Some(*topic),
            Role::State { .. } => None,
        };
        let twice = |what: &str| wrong(&self.partitions.join(","), format!("{what} have two numbers; write one"));
        if all.len() > 1 {
            return Err(twice("all topics together"));
        }
        for written in all {
            let count = number(written)?;
            partitions = declared.iter().filter(|topic| topic.is_spread()).filter_map(|topic| flow(&topic.role)).fold(partitions, |p, of| p.with(of, count));
        }
        let mut named = BTreeSet::new();
        for written in single {
            let (name, count) = written.split_once('=').unwrap_or((written, ""));
            let name = name.strip_prefix(&self.prefix).unwrap_or(name);
            let topic = declared.iter().find(|topic| topic.name == name);
            let topic = topic.ok_or_else(|| wrong(written, format!("there is no topic {name}; they are {}", Topic::ALL.map(Topic::name).join(", "))))?;
            match &topic.role {
                Role::State { input, .. } => return Err(wrong(written, format!("it has as many as {input}, so say {input}={count}"))),
                Role::Flow(_) if topic.fixed => {
                    return Err(wrong(written, format!("it has {} in every installation. {}", topic.partitions, topic.because)));
                }
                Role::Flow(_) if !named.insert(name) => return Err(twice(&format!("the partitions of {name}"))),
                Role::Flow(of) => partitions = partitions.with(*of, number(count)?),
            }
        }
        Ok(partitions)
    }
}

/// The options of a configuration.
///
/// # Errors
/// [`Unusable`] where they cannot be.
pub(super) fn options_of(config: &Config) -> anyhow::Result<Options> {
    let kafka = &config.kafka;
    let shape = ShapeArgs { prefix: kafka.prefix.clone(), partitions: kafka.partitions.clone(), replication: kafka.replication };
    let options = ConnectionArgs::of(&kafka.brokers, kafka.config.clone()).complete(|brokers| shape.options(brokers));
    let place = |setting: &str| format!("{}: kafka.{setting}:", config.source(&format!("kafka.{setting}")));
    let options = options.map_err(|wrong| Unusable(wrong.told_as_setting(place)))?;
    let options = Options { static_members: kafka.member.is_some(), ..options };
    check_together(&options, config.roles.iter().any(|role| role.commits())).map_err(|error| Unusable(error.to_string()))?;
    Ok(options)
}

/// Far above what one topic of a cluster can have, and below what a slip of the finger makes.
const MOST_PARTITIONS: u32 = 10_000;

/// Runs it.
///
/// # Errors
/// Where the cluster cannot be reached, the usage is wrong, or `out` cannot be written.
pub fn run(args: &TopologyArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    match &args.command {
        TopologyCommand::Show { shape: of, output } => {
            let options = of.options("").map_err(Unusable::from)?;
            shape(out, &topics::wanted(&options)?, *output)?;
            Ok(FITS)
        }
        TopologyCommand::Acls { role, principal, brokers, prefix, output } => {
            let roles: Vec<&str> = role.iter().map(String::as_str).collect();
            check_prefix(prefix).map_err(Unusable::from)?;
            if let Some(brokers) = brokers {
                check_brokers(brokers).map_err(|reason| Unusable::from(Wrong::of(Part::Brokers, brokers, reason)))?;
            }
            acls::write(out, &acls::rights(prefix, &roles)?, principal, brokers.as_deref(), *output)?;
            Ok(FITS)
        }
        TopologyCommand::Schemas { registry, credentials, ca, output } => {
            let registry = schema_registry(registry, credentials.as_deref(), ca.as_deref()).map_err(|(_, reason)| Unusable(reason))?;
            schemas::register(out, &registry, *output)
        }
        TopologyCommand::Check { connection, shape, output } => {
            let options = connection.complete(|brokers| shape.options(brokers)).map_err(Unusable::from)?;
            let wanted = topics::wanted(&options)?;
            let found = topics::look(&options, &wanted).map_err(of_log)?;
            let differing = topics::compare(&options.brokers, &wanted, &found);
            match output {
                Output::Json => print::json(out, &json!({ "fits": differing.is_empty(), "differences": differing }))?,
                Output::Text if differing.is_empty() => writeln!(out, "{} topics, all as declared.", wanted.len())?,
                Output::Text => differences(out, &differing, Paint::for_stdout())?,
            }
            Ok(match () {
                () if differing.is_empty() => FITS,
                () if differing.iter().all(|difference| difference.weight == Weight::Unknown) => UNKNOWN,
                () => DIFFERS,
            })
        }
        TopologyCommand::Apply { connection, shape, dry_run, registry, credentials, ca, output } => {
            let registry =
                registry.as_ref().map(|url| schema_registry(url, credentials.as_deref(), ca.as_deref())).transpose().map_err(|(_, reason)| Unusable(reason))?;
            let options = connection.complete(|brokers| shape.options(brokers)).map_err(Unusable::from)?;
            let applied = topics::apply(&options, *dry_run).map_err(of_log)?;
            let refusing: Vec<&Difference> = applied.differences.iter().filter(|difference| difference.refuses()).collect();
            let refuses = !refusing.is_empty();
            // Processes whose users may only read there say nothing themselves.
            let ask = registry.as_ref().map(|registry| |record| registry.id_of(record));
            let ask = ask.as_ref().map(|ask| ask as AskId<'_>);
            let schemas = if *dry_run || refuses {
                Ok(0)
            } else {
                patiently(
                    options.patience,
                    |error| matches!(error, LogError::Retry { .. } | LogError::Unknown { .. }),
                    || begin(&KafkaLog::open(options.clone())?, ask),
                )
            };
            // Whoever reads on knows what was done, and what was not.
            let schemas = schemas.map_err(|error| {
                let created = counted(applied.created.len(), "topic was created", "topics were created");
                let untold = format!("{created}, but by which schemas this release writes could not be put on {}schemas", options.prefix);
                of_log(match error {
                    LogError::Fatal { reason } => {
                        LogError::Fatal { reason: format!("{untold}, where this user needs the rights Read and Write: {reason}; grant them, and run it again") }
                    }
                    LogError::Retry { reason } => LogError::Fatal { reason: format!("{untold}: {reason}; run it again") },
                    error => LogError::Fatal { reason: format!("{untold}: {error}; run it again") },
                })
            })?;
            match output {
                Output::Json => {
                    let created: Vec<&str> = applied.created.iter().map(|topic| topic.name.as_str()).collect();
                    print::json(out, &json!({ "dryRun": dry_run, "created": created, "schemas": schemas, "differences": applied.differences }))?;
                }
                Output::Text => {
                    print::applied(out, &applied, topics::wanted(&options)?.len(), *dry_run, Paint::for_stdout())?;
                    if schemas > 0 {
                        writeln!(out, "{schemas} schemas by which this release writes were put on {}schemas.", options.prefix)?;
                    }
                    if !dry_run
                        && !refuses
                        && !applied.created.is_empty()
                        && let Some(settings) = shape.told_to_run()
                    {
                        writeln!(out, "Its processes say the same: `loadline run {settings}`, or so in their configuration.")?;
                    }
                }
            }
            Ok(match () {
                () if !refuses => FITS,
                () if refusing.iter().all(|difference| difference.is_of_unknown_topic()) => UNKNOWN,
                () => DIFFERS,
            })
        }
    }
}
