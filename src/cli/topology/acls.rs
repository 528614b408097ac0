//! What a user of the cluster must be allowed, so that a process of some roles can run as that user.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Value, json};

use super::super::Output;
use super::print;
use crate::edge::actuate;
use crate::log::LogError;
use crate::log::kafka::topics::{group_name, states};
use crate::log::kafka::{READERS, declaration};
use crate::runtime::migration;

/// The role whose processes consume commands.
const FLEETS: &str = "fleets";

/// The role whose processes tell how far the stages are.
const VIEW: &str = "view";

/// `loadline migrate`, which is no role of a process.
pub(super) const MIGRATE: &str = migration::GROUP;

/// One thing of the cluster, or all whose names begin so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resource {
    /// The flag of Kafka's tool: `topic`, `group`, `transactional-id`.
    kind: &'static str,
    name: String,
    is_prefix: bool,
}

/// What is allowed on each, by Kafka's names of operations.
pub(super) type Rights = BTreeMap<Resource, BTreeSet<&'static str>>;

/// What these roles need, as it follows from who writes and reads which topic ([`declaration`]) and from how a stage commits.
///
/// # Errors
/// As [`declaration::declared`].
pub(super) fn rights(prefix: &str, roles: &[&str]) -> Result<Rights, LogError> {
    let mut rights = Rights::new();
    let mut allow = |kind, name: String, is_prefix, operations: &[&'static str]| {
        rights.entry(Resource { kind, name, is_prefix }).or_default().extend(operations);
    };
    // Whoever starts looks at the topics: nothing runs on what would corrupt.
    allow("topic", prefix.to_owned(), true, &["Describe", "DescribeConfigs"]);
    let mut reads = false;
    for topic in declaration::declared()? {
        let is_named = |parts: &[String]| parts.iter().any(|part| roles.contains(&part.as_str()));
        let name = || format!("{prefix}{}", topic.name);
        if is_named(&topic.writers) {
            allow("topic", name(), false, &["Write"]);
        }
        if is_named(&topic.readers) {
            allow("topic", name(), false, &["Read"]);
            reads = true;
        }
    }
    let stages = states()?;
    for role in roles {
        if *role == FLEETS {
            // Each data directory has a group of its own.
            allow("group", group_name(prefix, actuate::GROUP), true, &["Read"]);
            allow("transactional-id", group_name(prefix, actuate::GROUP), true, &["Write", "Describe"]);
        } else if *role == VIEW {
            stages.iter().for_each(|stage| allow("group", group_name(prefix, stage), false, &["Describe"]));
        } else if *role == MIGRATE {
            // It looks whether a stage has read anything.
            stages.iter().for_each(|stage| allow("group", group_name(prefix, stage), false, &["Describe"]));
            allow("group", group_name(prefix, role), false, &["Read"]);
            allow("transactional-id", format!("{}.", group_name(prefix, role)), true, &["Write", "Describe"]);
        } else if stages.contains(role) {
            allow("group", group_name(prefix, role), false, &["Read"]);
            allow("transactional-id", format!("{}.", group_name(prefix, role)), true, &["Write", "Describe"]);
        }
    }
    if reads {
        allow("group", group_name(prefix, READERS), false, &["Read"]);
    }
    Ok(rights)
}

/// As commands of Apache Kafka, or as JSON.
pub(super) fn write(out: &mut dyn Write, rights: &Rights, principal: &str, brokers: Option<&str>, output: Output) -> io::Result<()> {
    if output == Output::Json {
        let all: Vec<Value> = rights
            .iter()
            .map(|(on, operations)| json!({ "principal": principal, "resource": on.kind, "name": on.name, "pattern": pattern(on), "operations": operations }))
            .collect();
        return print::json(out, &Value::Array(all));
    }
    // What is allowed alike is one command.
    let mut commands: BTreeMap<(&str, &str, &BTreeSet<&str>), Vec<&str>> = BTreeMap::new();
    for (on, operations) in rights {
        commands.entry((on.kind, pattern(on), operations)).or_default().push(&on.name);
    }
    for ((kind, pattern, operations), names) in commands {
        let brokers = brokers.unwrap_or("BROKER:9092");
        write!(out, "kafka-acls.sh --bootstrap-server {brokers} --add --allow-principal {principal}")?;
        for operation in operations {
            write!(out, " --operation {operation}")?;
        }
        for name in names {
            write!(out, " --{kind} {name}")?;
        }
        writeln!(out, " --resource-pattern-type {pattern}")?;
    }
    Ok(())
}

fn pattern(on: &Resource) -> &'static str {
    if on.is_prefix { "prefixed" } else { "literal" }
}
