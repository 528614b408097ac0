//! The topics of an installation: their names, what they must be like, looking at them, creating them.
//!
//! - [`Wanted`]: a topic as [`declaration`] has it and as the installation was made ([`Options::partitions`], [`Options::replicas`])
//! - [`cluster`]: what stands on a cluster; [`compare`]: how that differs, and what follows
//! - [`apply`]: creates what is missing; nothing that is there is ever changed or deleted
//! - [`verified`]: what [`super::KafkaLog::open`] asks before anything is read or written

use std::collections::BTreeMap;

use super::Options;
use super::declaration::{self, Declared, Role};
use crate::log::{LogError, Partitions, Topic};

mod cluster;
mod compare;
#[cfg(test)]
mod tests;

pub use super::declaration::Weight;
pub(super) use cluster::find;
pub use cluster::{Cluster, Found, There, look};
pub(super) use compare::NO_LEADER;
pub use compare::{Difference, compare};

/// The names of an installation's topics, groups and transactions.
pub(super) struct Names {
    prefix: String,
    topics: [String; Topic::ALL.len()],
    states: BTreeMap<&'static str, String>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Result<Self, LogError> {
        let states = states()?.into_iter().map(|stage| (stage, format!("{prefix}{stage}-state"))).collect();
        Ok(Names { prefix: prefix.to_owned(), topics: Topic::ALL.map(|topic| format!("{prefix}{topic}")), states })
    }

    pub(super) fn of(&self, topic: Topic) -> &str {
        &self.topics[topic as usize]
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().chain(self.states.values()).map(String::as_str)
    }

    /// The topic of a stage's state.
    pub(super) fn states_of(&self, group: &str) -> Result<&str, LogError> {
        let name = self.states.get(group).map(String::as_str);
        name.ok_or_else(|| LogError::Fatal { reason: format!("group {group} keeps no state on Kafka: there is no topic for it") })
    }

    pub(super) fn group(&self, group: &str) -> String {
        group_name(&self.prefix, group)
    }

    /// The transactions of who owns a partition of a group's input.
    pub(super) fn transactions(&self, group: &str, partition: u32) -> String {
        format!("{}.{partition}", self.group(group))
    }
}

/// The name of a group on the cluster; those of its transactions begin with it and a dot.
pub fn group_name(prefix: &str, group: &str) -> String {
    format!("{prefix}{group}")
}

/// The stages that keep a state.
///
/// # Errors
/// As [`declaration::declared`].
pub fn states() -> Result<Vec<&'static str>, LogError> {
    let states = declaration::declared()?.iter().filter_map(|topic| match &topic.role {
        Role::State { stage, .. } => Some(stage.as_str()),
        Role::Flow(_) => None,
    });
    Ok(states.collect())
}

/// A topic as an installation must have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name on the cluster.
    pub name: String,
    /// What is declared of it.
    pub declared: &'static Declared,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each.
    pub replicas: u32,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
}

/// All topics as an installation must have them, in the order of the declaration.
///
/// # Errors
/// As [`declaration::declared`].
pub fn wanted(options: &Options) -> Result<Vec<Wanted>, LogError> {
    let partitions = match options.partitions {
        Some(partitions) => partitions,
        None => declaration::partitions()?,
    };
    let of = |declared: &'static Declared| {
        let replicas = options.replicas.unwrap_or(declared.replicas);
        let mut settings = declared.settings.clone();
        if let Some(declared) = settings.get_mut(IN_SYNC) {
            *declared = in_sync(declared, replicas);
        }
        let topic = match declared.role {
            Role::Flow(topic) | Role::State { input: topic, .. } => topic,
        };
        let partitions = if declared.fixed { declared.partitions } else { partitions.of(topic) };
        Wanted { name: format!("{}{}", options.prefix, declared.name), declared, partitions, replicas, settings }
    };
    Ok(declaration::declared()?.iter().map(of).collect())
}

/// The setting that depends on the number of replicas.
const IN_SYNC: &str = "min.insync.replicas";

/// How many of so many replicas must be in sync: one may be away, where there is another one.
fn in_sync(declared: &str, replicas: u32) -> String {
    let most = replicas.saturating_sub(1).max(1);
    declared.parse::<u32>().map_or_else(|_| declared.to_owned(), |declared| declared.min(most).to_string())
}

/// What [`apply`] did and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What was created, or would be.
    pub created: Vec<Wanted>,
    /// How the topics differ from what they must be, after that.
    pub differences: Vec<Difference>,
}

/// Creates the topics that are missing; those that are there stay as they are. With `dry_run` the cluster is only asked whether it would.
///
/// # Errors
/// [`LogError::Fatal`] where the cluster refuses one, with its reason; [`LogError::Retry`] where it cannot be reached.
pub fn apply(options: &Options, dry_run: bool) -> Result<Applied, LogError> {
    let wanted = wanted(options)?;
    let mut found = look(options, &wanted)?;
    let missing = |found: &Cluster, of: fn(&Role) -> bool| -> Vec<Wanted> {
        let all = wanted.iter().filter(|topic| of(&topic.declared.role) && found.lacks(&topic.name));
        all.map(|topic| fitting(topic, options, found)).collect()
    };
    if dry_run {
        let created = missing(&found, |_| true);
        if !created.is_empty() {
            cluster::create(options, &created, &found, true)?;
        }
        let mut differences = compare(&options.brokers, &wanted, &found);
        differences.retain(|difference| difference.weight != Weight::Missing);
        return Ok(Applied { created, differences });
    }
    let mut created = Vec::new();
    // The states after what they are of, as that then is: another one may create the same at the same time, in another shape.
    let steps: [fn(&Role) -> bool; 2] = [|role| matches!(role, Role::Flow(_)), |role| matches!(role, Role::State { .. })];
    for of in steps {
        let missing = missing(&found, of);
        if !missing.is_empty() {
            let names = cluster::create(options, &missing, &found, false)?;
            found = cluster::look_for(options, &wanted, &missing)?;
            created.extend(missing.into_iter().filter(|topic| names.contains(&topic.name)));
        }
    }
    Ok(Applied { created, differences: compare(&options.brokers, &wanted, &found) })
}

/// A topic as it is to be created: a state gets as many partitions as its input has, where that is there.
fn fitting(topic: &Wanted, options: &Options, found: &Cluster) -> Wanted {
    let mut fitting = topic.clone();
    if let Role::State { input, .. } = topic.declared.role
        && let Some(Found::There(input)) = found.topics.get(&format!("{}{input}", options.prefix))
    {
        fitting.partitions = input.partitions;
    }
    fitting
}

/// How many partitions the topics have, where all are there and nothing would corrupt or stand still; and what differs all the same, which is
/// to be told and no reason not to run.
///
/// # Errors
/// [`LogError::Fatal`] with what is missing, or what would corrupt, and the mend; [`LogError::Retry`] where the cluster cannot be reached.
pub fn verified(options: &Options) -> Result<(Partitions, Vec<Difference>), LogError> {
    let wanted = wanted(options)?;
    let found = look(options, &wanted)?;
    let differences = compare(&options.brokers, &wanted, &found);
    let missing: Vec<&str> = differences.iter().filter(|difference| difference.weight == Weight::Missing).map(|difference| difference.topic.as_str()).collect();
    if missing.len() == wanted.len() {
        let Options { brokers, prefix, .. } = options;
        let reason = format!(
            "no topic of an installation with the prefix {prefix} is on the cluster of {brokers}: where one is there under another prefix, say it (kafka.prefix); where there is none yet, \
             `loadline topology apply` makes it"
        );
        return Err(LogError::Fatal { reason });
    }
    if !missing.is_empty() {
        return Err(LogError::Fatal { reason: format!("topics are missing on the cluster: {}; `loadline topology apply` creates them", missing.join(", ")) });
    }
    let (bad, told): (Vec<Difference>, Vec<Difference>) = differences.into_iter().partition(Difference::refuses);
    let Some(first) = bad.first() else { return Ok((partitions_of(&wanted, &found), told)) };
    let more = match bad.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more)"),
    };
    let reason = format!("the topics do not fit, and Loadline does not run on them: {first}{more}; `loadline topology check` shows all that differs");
    Err(LogError::Fatal { reason })
}

/// How many partitions the pipeline's topics have, of those that are there.
fn partitions_of(wanted: &[Wanted], found: &Cluster) -> Partitions {
    let there = wanted.iter().filter_map(|topic| match (&topic.declared.role, found.topics.get(&topic.name)) {
        (Role::Flow(of), Some(Found::There(there))) => Some((*of, there.partitions)),
        _ => None,
    });
    there.fold(Partitions::default(), |partitions, (topic, count)| partitions.with(topic, count))
}
