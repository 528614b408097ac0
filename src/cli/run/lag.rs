//! The sources of lag of a configuration, with their clients.

use crate::cli::config::{Config, Role};
use crate::edge::lag::Source;

/// Those of this process; none where it has not the role.
///
/// # Errors
/// [`crate::cli::Unusable`] with the source and the mend, where a cluster's settings cannot be used, or this build has no Kafka.
pub(super) fn sources(config: &Config) -> anyhow::Result<Vec<Source>> {
    if config.lag.is_empty() || !config.roles.contains(&Role::Lag) {
        return Ok(Vec::new());
    }
    #[cfg(feature = "kafka")]
    {
        config.lag.iter().map(|(name, source)| on_kafka(config, name, source)).collect()
    }
    #[cfg(not(feature = "kafka"))]
    {
        let name = config.lag.keys().next().map_or("", String::as_str);
        let place = config.source(&format!("lag.{name}.group"));
        Err(crate::cli::Unusable(format!("{place}: lag.{name}: this build has no Kafka: build it with --features kafka, or remove it")).into())
    }
}

#[cfg(feature = "kafka")]
fn on_kafka(config: &Config, name: &str, source: &crate::cli::config::LagSource) -> anyhow::Result<Source> {
    use crate::cli::Unusable;
    use crate::cli::connection::ConnectionArgs;
    use crate::edge::lag::measure::Rules;
    use crate::log::kafka::{KafkaConsumption, Options};

    // Where neither is said, both are the log's: brokers of one cluster with the password of another are nobody's wish.
    let is_own = !source.brokers.is_empty() || source.config.is_some();
    let (brokers, file) = if is_own { (&source.brokers, &source.config) } else { (&config.kafka.brokers, &config.kafka.config) };
    let place = config.source(&format!("lag.{name}.group"));
    let unusable = |error: String| Unusable(format!("{place}: lag.{name}: its cluster cannot be asked: {error}"));
    let section = if is_own { format!("lag.{name}") } else { "kafka".to_owned() };
    let options = ConnectionArgs::of(brokers, file.clone()).complete(|brokers| Ok(Options::new(brokers)));
    let options = options.map_err(|wrong| unusable(wrong.told_as_setting(|setting| format!("{section}.{setting}:"))))?;
    let consumption = KafkaConsumption::new(&options, &source.group, &source.topics).map_err(|error| unusable(error.to_string()))?;
    Ok(Source {
        name: name.to_owned(),
        targets: source.targets.clone(),
        metric: source.metric.clone(),
        every: source.every,
        rules: Rules { group: source.group.clone(), begins: source.begins, stuck_after: source.stuck_after, per_replica: source.per_replica.map(u64::from) },
        consumption: Box::new(consumption),
    })
}
