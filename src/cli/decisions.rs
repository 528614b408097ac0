//! Where `why` and `history` read decisions: from a running Loadline, or from the log in a data directory.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::client::{Client, ServerArgs, resolve};
use super::of_log;
use crate::edge::api::{Decisions, escape, target_path};
use crate::edge::view::{Until, gone, latest, next_page, older};
use crate::log::embedded::{EmbeddedLog, ReadOnlyLog};
use crate::log::{ReadOnly, Topic};
use crate::model::{TargetId, Timestamp};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::schemas;
use crate::stages::Stage;
use crate::stages::decide::Decide;

/// Whose decisions.
#[derive(Debug, Clone, Args)]
pub(super) struct SourceArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Read the log in this data directory and ask no running Loadline: of one that was stopped, or was migrated to Kafka
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    data: Option<PathBuf>,
}

impl SourceArgs {
    /// What they name.
    ///
    /// # Errors
    /// Where there is no log in the directory, or none that this version can read.
    pub(super) fn open(&self) -> anyhow::Result<Source> {
        let Some(data) = &self.data else { return Ok(Source::Server(Client::new(&self.server))) };
        let log = EmbeddedLog::open_read_only(data).with_context(|| format!("failed to open the log in {}", data.display()))?;
        if ReadOnly::partitions(&log, Topic::Schemas).is_ok() {
            schemas::learn(&log).map_err(of_log)?;
        }
        Ok(Source::Directory { log: Box::new(log), data: data.clone() })
    }
}

/// Whose decisions are read.
pub(super) enum Source {
    /// A running Loadline.
    Server(Client),
    /// The log of one.
    Directory {
        /// It.
        log: Box<ReadOnlyLog>,
        /// Where it is.
        data: PathBuf,
    },
}

impl Source {
    /// The target that a person means: its whole name, or as much of its end as is unique.
    ///
    /// # Errors
    /// Where none or several could be meant, or nobody can be asked.
    pub(super) fn target(&self, named: &str) -> anyhow::Result<TargetId> {
        match self {
            Source::Server(client) => client.target(named),
            // A target that was forgotten long ago may still have decisions.
            Source::Directory { log, .. } => named.parse().or_else(|_| resolve(named, &names(log)?)),
        }
    }

    /// The last `limit` decisions about a target, up to a time where one is given, the newest last.
    ///
    /// # Errors
    /// Where there is no such target, or nobody can be asked.
    pub(super) fn newest(&self, target: &TargetId, limit: usize, until: Option<Timestamp>) -> anyhow::Result<Decisions> {
        match self {
            Source::Server(client) => {
                let until = until.map(|at| format!("&at={}", escape(&at.as_millis().to_string()))).unwrap_or_default();
                client.get(&format!("{}/decisions?limit={limit}{until}", target_path(target)))
            }
            Source::Directory { log, data } => {
                let found = told(log, target, limit, until.map(Until::At))?;
                if found.decisions.is_empty() && !names(log)?.contains(target) {
                    bail!("the log in {} knows no target {target}, and has no decision about it", data.display());
                }
                Ok(found)
            }
        }
    }

    /// The page before, as [`Decisions::next`] of a page names it.
    ///
    /// # Errors
    /// As [`Source::newest`].
    pub(super) fn page(&self, target: &TargetId, limit: usize, next: &str) -> anyhow::Result<Decisions> {
        match self {
            Source::Server(client) => client.get(next),
            Source::Directory { log, .. } => told(log, target, limit, Until::of_page(next)),
        }
    }
}

/// The targets that decide remembers.
fn names(log: &ReadOnlyLog) -> anyhow::Result<Vec<TargetId>> {
    let mut names = Vec::new();
    for partition in 0..ReadOnly::partitions(log, Decide::INPUT).map_err(of_log)? {
        let states = log.states(Decide::NAME, partition).map_err(of_log)?;
        names.extend(states.iter().filter_map(|(key, _)| key.parse::<TargetId>().ok()));
    }
    Ok(names)
}

fn told(log: &ReadOnlyLog, target: &TargetId, limit: usize, until: Option<Until>) -> anyhow::Result<Decisions> {
    let read = || {
        let (decisions, by_hand) = match until {
            Some(until) => (older(log, target, limit, until)?, Vec::new()),
            None => latest(log, target, limit, SystemClock.now())?,
        };
        let gone = if decisions.len() < limit { gone(log, target)? } else { None };
        Ok((decisions, by_hand, gone))
    };
    let (decisions, by_hand, gone) = read().map_err(of_log)?;
    let next = next_page(target, decisions.first(), limit);
    Ok(Decisions { target: target.clone(), decisions, by_hand, next, gone })
}
