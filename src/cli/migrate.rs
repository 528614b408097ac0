//! `loadline migrate`: an installation of one machine goes over to Kafka, with all that it remembers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::config::{Config, ConfigArgs};
use super::migrated::{self, Migrated, check_not_migrated};
use super::run::arbitrate;
use super::{Output, Unusable, counted, of_log, patiently, topology};
use crate::edge::processes;
use crate::log::embedded::{self, DATABASE, EmbeddedLog};
use crate::log::kafka::{KafkaLog, Options};
use crate::log::{Log, LogError, Partitions, directory};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::migration::{self, Refused, Remembered, migrate};
use crate::runtime::schemas;
use crate::wire::cloud_events;

/// How long the transaction may take that carries everything: some 100,000 targets take a few seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// After so long a broker ends it by itself, should this process be gone.
const TRANSACTION: Duration = Duration::from_secs(60);

/// Take the installation of a data directory over to Kafka: policies, and what is remembered of each target, source and fleet, with its own times.
///
/// Reads the configuration that Loadline is to run with from now on, with `data` and `kafka.brokers`. Nothing may run on either: the directory's Loadline is stopped,
/// the installation on Kafka is new, with its topics (`loadline topology apply`). All of it goes over in one transaction, or nothing. Fleets of processes
/// go on, and stay in the directory; its log is kept as history, for `why`, `history`, `export` and `replay --policy` with --data, and nothing decides on it any more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline migrate --data data --set kafka.brokers=kafka-1:9092 --dry-run
  loadline migrate --config loadline.yaml
  loadline run --config loadline.yaml
  loadline history storefront --data data

Exit codes: 0 it went over, or had gone over before, 1 it failed, and nothing went over, 2 wrong configuration, a directory in use or without a log, or an installation on Kafka that is
not new or cannot be reached.")]
pub struct MigrateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Say what would go over, and look whether anything stands in its way; changes nothing in either log
    #[arg(long)]
    dry_run: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs it.
///
/// # Errors
/// [`Unusable`] where one of the two cannot be used for it; else what failed.
pub fn run(args: &MigrateArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let loaded = Config::load(&args.config)?;
    let config = &loaded.config;
    if !config.kafka.is_used() {
        let reason = "no brokers are named: say where the installation goes, with kafka.brokers in the configuration or --set kafka.brokers=HOST:PORT";
        return Err(Unusable(reason.to_owned()).into());
    }
    if !config.data.join(DATABASE).exists() {
        return Err(Unusable(format!("there is no log in {}: name the directory of the installation with --data", config.data.display())).into());
    }
    let options = Options { describe: Some(cloud_events::headers), static_members: false, ..topology::options_of(config)? };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Before anything is read of the directory, which may be large.
    let reached = KafkaLog::open(options.clone()).map_err(of_log)?;
    let cluster = reached.cluster_id().map_err(of_log)?;
    // From here on nobody else marks the directory, or takes a mark away.
    let embedded_options = embedded::Options { partitions: Partitions::default(), max_bytes: None };
    let unread = || format!("the log in {} cannot be read, and nothing went over", config.data.display());
    let from: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&config.data, Arc::clone(&clock), embedded_options).map_err(of_log).with_context(unread)?);
    let before = Migrated::read(&config.data)?;
    if before.as_ref().is_some_and(|before| (&before.cluster, &before.prefix) != (&cluster, &options.prefix)) {
        check_not_migrated(&config.data)?;
    }
    let id = before.as_ref().map_or_else(processes::new_uid, |before| Ok(before.id.clone())).context("cannot name the migration")?;
    let here = Migrated { id, cluster, brokers: options.brokers.clone(), prefix: options.prefix.clone(), at: clock.now(), done: false };
    let remembered = migration::remembered(&from, &arbitrate(config), clock.now(), &here.id).map_err(of_log).with_context(unread)?;
    let tell = |outcome: Outcome, out: &mut dyn Write| told(out, args.output, outcome, &remembered, &config.data, &here);
    if before.as_ref().is_some_and(|before| before.done) {
        return tell(Outcome::WentOverBefore, out);
    }
    if remembered.appends.is_empty() {
        return Err(Unusable(format!("the log in {} remembers nothing that could go over: run Loadline on Kafka", config.data.display())).into());
    }
    if args.dry_run {
        return match migration::check(&reached, &here.id) {
            Ok(()) => tell(Outcome::WouldGoOver, out),
            Err(Refused::Done) => tell(Outcome::WentOverBefore, out),
            Err(refused) => Err(unusable(refused, &here)),
        };
    }
    let to = KafkaLog::open(Options { patience: PATIENCE, transaction_timeout: TRANSACTION, ..options }).map_err(of_log)?;
    let passes = |error: &LogError| matches!(error, LogError::Retry { .. });
    // What may stand there already is not said twice.
    let begins = |error: &LogError| passes(error) || matches!(error, LogError::Unknown { .. });
    patiently(PATIENCE, begins, || schemas::begin(&to, None)).map_err(of_log)?;
    // The mark comes first: whatever ends this process, two never decide for the same targets.
    let path = migrated::file(&config.data);
    let mark = || here.write(&config.data).map_err(|error| LogError::Fatal { reason: format!("cannot write {}: {error}", path.display()) });
    let outcome =
        match patiently(PATIENCE, |refused| matches!(refused, Refused::Log(error) if passes(error)), || migrate(&to, &remembered, &here.id, PATIENCE, mark)) {
            Ok(()) => Outcome::WentOver,
            Err(Refused::Done) => Outcome::WentOverBefore,
            Err(Refused::Log(LogError::Unknown { reason })) => {
                return Err(anyhow!("it is not known whether it went over ({reason}): run the same command again, which says so, or does it"));
            }
            Err(refused) => {
                if before.is_none() && path.exists() {
                    Migrated::remove(&config.data).with_context(|| format!("nothing went over, but {} is left: remove it", path.display()))?;
                }
                return Err(unusable(refused, &here));
            }
        };
    let done = Migrated { done: true, ..here.clone() }.write(&config.data);
    done.with_context(|| format!("all went over, but {} cannot be written: run the same command again, which says so", path.display()))?;
    tell(outcome, out)
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Outcome {
    WouldGoOver,
    WentOver,
    WentOverBefore,
}

fn told(out: &mut dyn Write, output: Output, outcome: Outcome, of: &Remembered, data: &Path, to: &Migrated) -> anyhow::Result<u8> {
    let Migrated { brokers, prefix, .. } = to;
    if output == Output::Json {
        let told = json!({
            "outcome": outcome, "data": data, "brokers": brokers, "prefix": prefix,
            "targets": of.targets, "policies": of.policies, "fleets": of.fleets, "records": of.appends.len(), "samplesLeft": of.samples_left,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(0);
    }
    let does = match outcome {
        Outcome::WouldGoOver => "would go over",
        Outcome::WentOver => "went over",
        Outcome::WentOverBefore => {
            writeln!(out, "The installation of {} went over to {brokers}, prefix {prefix}, before.", data.display())?;
            return Ok(0);
        }
    };
    let (targets, policies, fleets) =
        (counted(of.targets, "target", "targets"), counted(of.policies, "policy", "policies"), counted(of.fleets, "fleet", "fleets"));
    let records = counted(of.appends.len(), "record", "records");
    writeln!(out, "{targets}, {policies} and {fleets} of {} {does} to {brokers}, prefix {prefix}: {records} in one transaction.", data.display())?;
    if of.samples_left > 0 {
        let left = counted(usize::try_from(of.samples_left)?, "record of metrics that no pane holds stays", "records of metrics that no pane holds stay");
        writeln!(out, "{left} behind; each metric is measured anew.")?;
    }
    if outcome == Outcome::WentOver {
        writeln!(out, "Start Loadline with this configuration now. What was before is read by `loadline history TARGET --data {}`.", data.display())?;
    }
    Ok(0)
}

impl Migrated {
    /// Marks a directory; the mark is on the disk, and whole, when it returns.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn write(&self, data: &Path) -> io::Result<()> {
        let path = migrated::file(data);
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(unfinished, path)?;
        directory::sync(data)
    }

    /// Takes the mark away: nothing was migrated after all.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn remove(data: &Path) -> io::Result<()> {
        fs::remove_file(migrated::file(data))?;
        directory::sync(data)
    }
}

fn unusable(refused: Refused, to: &Migrated) -> anyhow::Error {
    match refused {
        Refused::Log(LogError::Retry { reason }) => anyhow!("nothing went over: {reason}; run the same command again"),
        Refused::Log(error) => anyhow!("nothing went over: {error}"),
        refused => {
            let Migrated { brokers, prefix, .. } = to;
            let mend = "choose another kafka.prefix, or remove the topics and the groups of that one; then `loadline topology apply`";
            Unusable(format!("nothing went over to {brokers}, prefix {prefix}: {refused}; {mend}")).into()
        }
    }
}
