//! The mark of a data directory whose installation went over to Kafka: its log is history, and nothing decides on it any more.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::Unusable;
use crate::model::Timestamp;

/// The file, in the data directory.
pub(super) const FILE: &str = "migrated.json";

/// Where an installation went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Migrated {
    /// What the migration is called, in all that it brought there.
    pub(super) id: String,
    /// What the cluster calls itself.
    pub(super) cluster: String,
    /// The brokers, as they were named.
    pub(super) brokers: String,
    /// What the names of its topics begin with.
    pub(super) prefix: String,
    /// When.
    pub(super) at: Timestamp,
    /// Whether it is known that all went over.
    pub(super) done: bool,
}

impl Migrated {
    /// The mark of this directory, where it has one.
    ///
    /// # Errors
    /// [`Unusable`] where there is a file that cannot be read.
    pub(super) fn read(data: &Path) -> anyhow::Result<Option<Migrated>> {
        let path = file(data);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // What is wrong with the directory itself is said by who opens the log there.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Unusable(format!("{} cannot be read: {error}", path.display())).into()),
        };
        let mark = serde_json::from_str(&text).map_err(|error| {
            Unusable(format!(
                "{} says that this installation was migrated, and cannot be read: {error}; see where it went before you remove it",
                path.display()
            ))
        })?;
        Ok(Some(mark))
    }

    /// That this installation on Kafka is the one to which all went over from this directory: elsewhere what was remembered would be missing for good, without a word.
    ///
    /// # Errors
    /// [`Unusable`], with the way out.
    #[cfg(feature = "kafka")]
    pub(super) fn check_goes_on(&self, data: &Path, cluster: &str, prefix: &str) -> Result<(), Unusable> {
        if self.cluster != cluster || self.prefix != prefix {
            let place = if self.cluster == cluster { "on the same cluster" } else { "on another cluster" };
            return Err(Unusable(format!(
                "the installation of {} was migrated to Kafka at {} ({}, prefix {}), and this configuration names another one, {place} with the prefix {prefix}, which remembers nothing of it: say kafka.brokers and \
                 kafka.prefix of that one. To begin another installation, say another data directory, or remove {}",
                data.display(),
                self.at,
                self.brokers,
                self.prefix,
                file(data).display()
            )));
        }
        if self.done { Ok(()) } else { Err(self.unfinished(data)) }
    }

    /// That it was begun from this directory, and whether all went over is not known.
    pub(super) fn unfinished(&self, data: &Path) -> Unusable {
        let Migrated { brokers, prefix, at, .. } = self;
        Unusable(format!(
            "a migration of {} to Kafka was begun at {at} ({brokers}, prefix {prefix}), and whether all went over is not known: run `loadline migrate` with that configuration again, before anything \
             else runs there; it does it, or says that it was done. Where nothing is to go over, remove {}",
            data.display(),
            file(data).display()
        ))
    }
}

/// That nothing went over from here: two that decide for the same targets are one too many.
///
/// # Errors
/// [`Unusable`], with the way out.
pub(super) fn check_not_migrated(data: &Path) -> anyhow::Result<()> {
    let Some(mark) = Migrated::read(data)? else { return Ok(()) };
    if !mark.done {
        return Err(mark.unfinished(data).into());
    }
    let Migrated { brokers, prefix, at, .. } = mark;
    let reason = format!(
        "the installation of {} was migrated to Kafka at {at} ({brokers}, prefix {prefix}): say kafka.brokers, as that one runs there; its history is read by `loadline history TARGET --data {0}`. To go on from this log, \
         as it was then, stop that one and remove {}",
        data.display(),
        file(data).display()
    );
    Err(Unusable(reason).into())
}

/// Where the mark stands.
pub(super) fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}
