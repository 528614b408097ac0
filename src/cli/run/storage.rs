//! The log that the pipeline runs on: in the data directory, or on Kafka.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::config::Config;
use crate::cli::migrated::check_not_migrated;
use crate::edge::actuate::{self, Reach};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{Log, LogError, Partitions, Topic};
use crate::runtime::clock::Clock;
use crate::runtime::retention::{Reader, Retention};
use crate::runtime::runner::check_snapshots;
use crate::runtime::schemas;
use crate::stages::admit::Admit;
use crate::stages::aggregate::Aggregate;
use crate::stages::arbitrate::Arbitrate;
use crate::stages::decide::Decide;

/// The log, and what goes with it.
pub(super) enum Storage {
    /// In the data directory: for this process alone, which does all.
    Embedded(EmbeddedLog),
    /// On Kafka: for as many processes as there are.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
}

impl Storage {
    /// Opens what the configuration names; tells `waiting` for what it waits.
    ///
    /// # Errors
    /// [`LogError`] with the way out; [`crate::cli::Unusable`] where this build has no Kafka.
    pub(super) fn open(config: &Config, clock: &Arc<dyn Clock>, waiting: &dyn Fn(String)) -> anyhow::Result<Self> {
        if config.kafka.is_used() {
            #[cfg(feature = "kafka")]
            return kafka::Kafka::open(config, waiting).map(Storage::Kafka);
            #[cfg(not(feature = "kafka"))]
            return Err(crate::cli::Unusable(format!("{}: this build has no Kafka: build it with --features kafka", config.source("kafka.brokers"))).into());
        }
        #[cfg(not(feature = "kafka"))]
        let _ = waiting;
        check_not_migrated(&config.data)?;
        let options = Options { partitions: Partitions::default(), max_bytes: Some(config.retention.reserve()) };
        let log = EmbeddedLog::open(&config.data, Arc::clone(clock), options)?;
        check_snapshots::<Admit>(&log)?;
        check_snapshots::<Aggregate>(&log)?;
        check_snapshots::<Decide>(&log)?;
        check_snapshots::<Arbitrate>(&log)?;
        match schemas::begin(&log, None) {
            // Nobody but this process reads it, until another release does.
            Err(LogError::Retry { reason } | LogError::Unknown { reason }) => {
                tracing::warn!(event = "schemas-untold", "how this release writes cannot be kept in the log for now: {reason}");
            }
            told => drop(told?),
        }
        Ok(Storage::Embedded(log))
    }

    pub(super) fn log(&self) -> Arc<dyn Log> {
        match self {
            Storage::Embedded(log) => Arc::new(log.clone()),
            #[cfg(feature = "kafka")]
            Storage::Kafka(kafka) => Arc::new(kafka.log.clone()),
        }
    }

    /// What deletes old records, where that is not the log's own affair.
    pub(super) fn retention(&self, config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Retention>, LogError> {
        match self {
            Storage::Embedded(log) => {
                let readers = vec![
                    Reader::stage::<Aggregate>(),
                    Reader::stage::<Admit>(),
                    Reader::stage::<Decide>(),
                    Reader::stage::<Arbitrate>(),
                    Reader::group(actuate::GROUP, Topic::Commands),
                ];
                Retention::start(log.clone(), Arc::clone(clock), readers, config.retention).map(Some)
            }
            #[cfg(feature = "kafka")]
            Storage::Kafka(_) => Ok(None),
        }
    }

    /// Whose commands this process carries out: fleets are local to it.
    pub(super) fn reach(&self) -> Reach {
        match self {
            Storage::Embedded(_) => Reach::All,
            #[cfg(feature = "kafka")]
            Storage::Kafka(kafka) => kafka.reach(),
        }
    }

    /// The installation that this process shares with others, where it does.
    pub(super) fn installation(&self) -> Option<&str> {
        match self {
            Storage::Embedded(_) => None,
            #[cfg(feature = "kafka")]
            Storage::Kafka(kafka) => kafka.installation.as_deref(),
        }
    }

    /// How long the end of all that uses it may take, where it may be left as it is.
    pub(super) fn ends_within(&self) -> Option<Duration> {
        match self {
            Storage::Embedded(_) => None,
            #[cfg(feature = "kafka")]
            Storage::Kafka(_) => Some(kafka::ENDS_WITHIN),
        }
    }

    /// That it is still where it was when it was opened.
    pub(super) fn check(&self) -> Result<(), LogError> {
        match self {
            Storage::Embedded(log) => log.check_place(),
            #[cfg(feature = "kafka")]
            Storage::Kafka(_) => Ok(()),
        }
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;

    use tracing::{info, warn};

    use super::{Config, LogError, Reach, actuate};

    /// Within what Kubernetes waits for a process that is told to end.
    pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(25);
    use crate::cli::config::{Framing, Role};
    use crate::cli::connection::registry_of;
    use crate::cli::migrated::Migrated;
    use crate::cli::topology;
    use crate::edge::processes;
    use crate::edge::registry::{Learn, Registry};
    use crate::log::embedded::{DATABASE, Occupied, occupy};
    use crate::log::kafka::topics::{self, Difference};
    use crate::log::kafka::{KafkaLog, LookUp, Options, ReadOnlyLog};
    use crate::runtime::schemas;
    use crate::wire::cloud_events;

    /// How soon it is told that a cluster cannot be reached.
    const TOLD_AFTER: Duration = Duration::from_secs(2);
    /// How soon a cluster that could not be reached is tried again.
    const AGAIN: Duration = Duration::from_secs(1);
    /// How long the topic `schemas` is looked at for a schema that nobody here knows: a member of a group reads nothing meanwhile.
    const LOOKS_FOR: Duration = Duration::from_secs(2);

    /// The log on Kafka, and the data directory of this process's fleets.
    pub(in crate::cli::run) struct Kafka {
        pub(super) log: KafkaLog,
        /// The name of this data directory among those of the installation: no other process carries out its commands.
        group: &'static str,
        /// The name of the installation, where this process has fleets: that of the cluster, and its prefix.
        pub(super) installation: Option<String>,
        _directory: Option<Occupied>,
    }

    impl Kafka {
        /// Opens it; where the cluster cannot be reached, waits until it can.
        pub(super) fn open(config: &Config, waiting: &dyn Fn(String)) -> anyhow::Result<Self> {
            let reach = topology::options_of(config)?;
            let registry = registry(config)?.map(|registry| Arc::new(registry.beside(installation(&reach))));
            let look_up = registry.clone().map(|registry| registry as Arc<dyn LookUp>);
            let options = Options { describe: Some(cloud_events::headers), look_up, ..reach };
            let directory = if config.roles.contains(&Role::Fleets) { Some(occupy(&config.data)?) } else { None };
            let mark = Migrated::read(&config.data)?;
            if config.data.join(DATABASE).exists() {
                let take_over = if mark.is_none() { "; `loadline migrate` takes over what it remembers, as long as nothing has run on Kafka" } else { "" };
                warn!(event = "log-unused", "the log is on Kafka: the one in {} is not read{take_over}", config.data.display());
            }
            for setting in config.unused() {
                warn!(
                    event = "setting-unused",
                    "{setting} does nothing: the log is on Kafka, where each topic says for how long it keeps its records (`loadline topology show`)"
                );
            }
            let group = match directory {
                Some(_) => Box::leak(format!("{}-{}", actuate::GROUP, processes::site(&config.data)?).into_boxed_str()),
                None => actuate::GROUP,
            };
            // Who waits is told for what, long before a try is over.
            let soon = Options { patience: TOLD_AFTER, ..options.clone() };
            if let Err(LogError::Retry { reason }) = topics::wanted(&soon).and_then(|wanted| topics::look(&soon, &wanted)) {
                warn!(event = "log-unreachable", "{reason}; trying again");
                waiting(reason);
            }
            loop {
                let ask = registry.as_deref().filter(|_| config.kafka.framing == Framing::Confluent).map(|registry| |record| registry.id_of(record));
                let ask = ask.as_ref().map(|ask| ask as schemas::AskId<'_>);
                let opened = KafkaLog::open(options.clone()).and_then(|log| {
                    schemas::begin(&log, ask).map_err(untold)?;
                    let name = |cluster| format!("{cluster} {}", options.prefix);
                    let installation = directory.as_ref().map(|_| log.cluster_id().map(name)).transpose()?;
                    Ok((log, installation))
                });
                match opened {
                    Ok((log, installation)) => {
                        if let Some(mark) = &mark {
                            mark.check_goes_on(&config.data, &log.cluster_id()?, &options.prefix)?;
                        }
                        warn_of(log.differences());
                        info!(event = "log-on-kafka", brokers = options.brokers, prefix = options.prefix, "the log is on Kafka");
                        return Ok(Kafka { log, group, installation, _directory: directory });
                    }
                    Err(LogError::Retry { reason } | LogError::Unknown { reason }) => {
                        // Nothing runs yet that would wait for this thread, or want to end in order.
                        warn!(event = "log-unreachable", "{reason}; trying again");
                        waiting(reason);
                        std::thread::sleep(AGAIN);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }

        pub(super) fn reach(&self) -> Reach {
            Reach::Own { group: self.group }
        }
    }

    /// That it cannot be said how this release writes: others of the group would not read it.
    fn untold(error: LogError) -> LogError {
        match error {
            LogError::Fatal { reason } => LogError::Fatal {
                reason: format!(
                    "the topic schemas does not say how this release writes, and this process cannot say it: {reason}. Run `loadline topology apply` of this release (with --registry, where kafka.framing is confluent) \
                     as a user who may write there, before its processes"
                ),
            },
            error => error,
        }
    }

    /// The registry, where one is named. One that cannot be asked now is no reason not to start.
    fn registry(config: &Config) -> anyhow::Result<Option<Registry>> {
        let registry = registry_of(config)?;
        if let Some(registry) = &registry {
            registry.begin();
        }
        Ok(registry)
    }

    /// Reads what the releases of the installation say of how they write, with a client of its own that is made when something is to be looked for.
    fn installation(reach: &Options) -> Learn {
        let options = Options { patience: LOOKS_FOR, ..reach.clone() };
        let reading: Mutex<(Option<ReadOnlyLog>, schemas::Reading)> = Mutex::default();
        Box::new(move || {
            let (log, reading) = &mut *reading.lock().unwrap_or_else(PoisonError::into_inner);
            let open = match log.take() {
                Some(open) => open,
                None => ReadOnlyLog::open(&options)?,
            };
            reading.catch_up(&open)?;
            // One that had no answer is not asked again.
            *log = Some(open);
            Ok(())
        })
    }

    /// What differs and is no reason not to run: the same of several topics in one line.
    fn warn_of(differences: &[Difference]) {
        let mut topics: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for Difference { topic, setting, declared, found, means, .. } in differences {
            let (setting, found) = (setting.as_deref().unwrap_or("what there is"), found.as_deref().unwrap_or("not known"));
            topics.entry(format!("{setting} is {found}, declared is {declared}: {means}")).or_default().push(topic);
        }
        for (differs, topics) in topics {
            warn!(event = "topology-differs", "{differs} `loadline topology check` says how it is mended. Of: {}", topics.join(", "));
        }
    }
}
