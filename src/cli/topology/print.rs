//! How the topics, and what differs, are printed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::super::{Output, Paint, table};
use crate::log::kafka::declaration::{Role, age};
use crate::log::kafka::topics::{Applied, Difference, Wanted, Weight};

pub(super) fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// The topics as they must be.
pub(super) fn shape(out: &mut dyn Write, topics: &[Wanted], output: Output) -> io::Result<()> {
    if output == Output::Json {
        let topics: Vec<Value> = topics.iter().map(as_json).collect();
        return json(out, &Value::Array(topics));
    }
    let rows = topics.iter().map(|topic| {
        let setting = |name: &str| topic.settings.get(name).cloned().unwrap_or_default();
        vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            topic.replicas.to_string(),
            setting("cleanup.policy"),
            topic.settings.get("retention.ms").map_or_else(|| "–".to_owned(), |kept| age(kept)),
            topic.declared.writers.join(", "),
            topic.declared.readers.join(", "),
        ]
    });
    table::write(out, &["TOPIC", "PARTITIONS", "REPLICAS", "CLEANUP", "KEPT", "WRITTEN BY", "READ BY"], rows)?;
    writeln!(out, "\nAll of them:")?;
    for (name, value) in of_all(topics) {
        writeln!(out, "  {name}={value}")?;
    }
    Ok(())
}

fn as_json(topic: &Wanted) -> Value {
    let declared = topic.declared;
    let state = match &declared.role {
        Role::Flow(_) => Value::Null,
        Role::State { stage, input } => json!({ "stage": stage, "input": input.name() }),
    };
    json!({
        "topic": topic.name, "summary": declared.summary, "partitions": topic.partitions, "replicas": topic.replicas, "settings": topic.settings,
        "key": declared.key, "messages": declared.messages, "writtenBy": declared.writers, "readBy": declared.readers, "state": state,
    })
}

/// The settings that are the same for all.
fn of_all(topics: &[Wanted]) -> BTreeMap<&str, &str> {
    let Some((first, rest)) = topics.split_first() else { return BTreeMap::new() };
    let same = |(name, value): &(&String, &String)| rest.iter().all(|topic| topic.settings.get(*name) == Some(*value));
    first.settings.iter().filter(same).map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What was created, and what differs.
pub(super) fn applied(out: &mut dyn Write, applied: &Applied, all: usize, dry_run: bool, paint: Paint) -> io::Result<()> {
    let (verb, rest) = if dry_run { ("would create", "would stay as they are") } else { ("created", "were there already, and are as they were") };
    for topic in &applied.created {
        let Wanted { name, partitions, replicas, .. } = topic;
        let number = |count: u32, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
        writeln!(out, "{verb} {name} ({}, {})", number(*partitions, "partition"), number(*replicas, "replica"))?;
    }
    let unknown = applied.differences.iter().filter(|difference| difference.is_of_unknown_topic()).count();
    let others = all.saturating_sub(applied.created.len() + unknown);
    match (others, applied.differences.is_empty()) {
        (0, true) => writeln!(out, "All {all} topics are {}.", if dry_run { "to be created" } else { "there" })?,
        (_, true) => writeln!(out, "{others} of {all} topics {rest}; all are as declared.")?,
        (0, false) => {}
        (_, false) => writeln!(out, "{others} of {all} topics {rest}.")?,
    }
    if unknown > 0 {
        writeln!(
            out,
            "Of {unknown} of {all} topics it is not known whether they are there: this user may not see them. To create them takes the right Create, too."
        )?;
    }
    if !applied.differences.is_empty() {
        writeln!(out)?;
        differences(out, &applied.differences, paint)?;
    }
    Ok(())
}

/// A table of what differs, and below it what each does and how it is mended.
pub(super) fn differences(out: &mut dyn Write, differences: &[Difference], paint: Paint) -> io::Result<()> {
    let rows = differences.iter().map(|difference| {
        let shown = |value: &str| match difference.setting.as_deref() {
            Some("retention.ms") => format!("{value} ({})", age(value)),
            _ => value.to_owned(),
        };
        vec![
            painted(paint, difference.weight),
            difference.topic.clone(),
            difference.setting.clone().unwrap_or_else(|| "–".to_owned()),
            shown(&difference.declared),
            difference.found.as_deref().map_or_else(|| "not known".to_owned(), shown),
        ]
    });
    table::write(out, &["", "TOPIC", "SETTING", "DECLARED", "FOUND"], rows)?;
    // The same of several topics is said once.
    let mut told: Vec<Vec<&Difference>> = Vec::new();
    let kind = |difference: &Difference| (difference.weight, difference.setting.clone(), difference.means.clone());
    for difference in differences {
        match told.iter_mut().find(|same| same.first().is_some_and(|first| kind(first) == kind(difference))) {
            Some(same) => same.push(difference),
            None => told.push(vec![difference]),
        }
    }
    for same in told {
        let Some(first) = same.first() else { continue };
        let topics: Vec<&str> = same.iter().map(|difference| difference.topic.as_str()).collect();
        let setting = first.setting.as_ref().map_or_else(String::new, |setting| format!("{setting} of "));
        writeln!(out, "\n{}  {setting}{}\n  {}", painted(paint, first.weight), topics.join(", "), first.means)?;
        let mut mends: Vec<&str> = same.iter().map(|difference| difference.mend.as_str()).collect();
        mends.dedup();
        for mend in mends {
            writeln!(out, "  → {mend}")?;
        }
    }
    Ok(())
}

fn painted(paint: Paint, weight: Weight) -> String {
    match weight {
        Weight::Missing => paint.red("MISSING"),
        Weight::Corrupts => paint.red("CORRUPTS"),
        Weight::Stops => paint.red("STOPS"),
        Weight::Waits => paint.yellow("WAITS"),
        Weight::Loses => paint.yellow("LOSES"),
        Weight::Unknown => paint.yellow("UNKNOWN"),
        Weight::Differs => "differs".to_owned(),
    }
}
