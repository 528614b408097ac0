//! From effects to records of the log.

use crate::log::{Log, LogError, RawAppend, partition_of};
use crate::stages::{Effect, Effects, Route};
use crate::wire;

/// Appends what a source outside of the stages has to say, durably.
///
/// # Errors
/// As [`Log::append`].
pub fn publish(log: &dyn Log, mut effects: Effects) -> Result<(), LogError> {
    log.append(raw_appends(log, effects.take())).map(|_| ())
}

/// Encodes effects and finds each one's partition.
pub fn raw_appends(log: &dyn Log, effects: Vec<Effect>) -> Vec<RawAppend> {
    let mut appends = Vec::with_capacity(effects.len());
    for Effect { topic, route, message } in effects {
        let value = wire::encode(&message);
        let partitions = log.partitions(topic);
        match route {
            Route::Key(key) => appends.push(RawAppend { topic, partition: partition_of(&key, partitions), key: Some(key), value }),
            Route::Partition(partition) => appends.push(RawAppend { topic, partition, key: None, value }),
            Route::EveryPartition => {
                appends.extend((0..partitions).map(|partition| RawAppend { topic, partition, key: None, value: value.clone() }));
            }
        }
    }
    appends
}
