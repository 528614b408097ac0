//! `loadline policy diff`: what differs between two policies in effect, not in text.
//!
//! The effective documents are compared, value by value; a metric is the same where its name is, wherever it stands.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Answer, FAULTY, FINE, Source, UNREADABLE, render};
use crate::cli::documents::documents_in;
use crate::cli::table;
use crate::model::document::{Problem, Severity};
use crate::model::policy::{Origin, Setting};
use crate::wire::document::{ParsedPolicy, PolicyFile};

/// How differences are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DiffFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// A table for a pull request
    Markdown,
}

/// One value that differs; absent on the side that does not have it.
struct Difference {
    path: String,
    before: Option<String>,
    after: Option<String>,
    meaning: &'static str,
}

/// What differs of one target's policy.
struct Changed {
    target: String,
    /// Whether each side has a policy of it.
    sides: (bool, bool),
    differences: Vec<Difference>,
}

/// Compares two files: 0 nothing differs, 1 something does, 2 one of them cannot be used.
pub(super) fn diff(before: &Source, after: &Source, format: DiffFormat, colours: bool) -> Answer {
    let mut text = String::new();
    let mut read = |source: &Source| -> Option<PolicyFile> {
        match &source.text {
            Err(why) => {
                render::unreadable(&mut text, &source.name, why, colours);
                None
            }
            Ok(yaml) => {
                let file = documents_in(yaml, &source.name);
                // Compared with a file without a document everything is new; that it has none is often another's failure, as of `git show`.
                let is_empty = |p: &Problem| p.code == "no-document";
                let problems: Vec<_> = file.all_problems().into_iter().filter(|p| p.severity == Severity::Error || is_empty(p)).collect();
                render::problems(&mut text, &source.name, yaml, &problems, colours);
                if problems.is_empty() && file.documents.is_empty() {
                    render::unreadable(&mut text, &source.name, "there is no ScalingPolicy in it", colours);
                    return None;
                }
                problems.iter().all(|p| is_empty(p)).then_some(file)
            }
        }
    };
    let (Some(before_file), Some(after_file)) = (read(before), read(after)) else {
        return Answer { text, code: UNREADABLE };
    };
    let changed = compare(&before_file.documents, &after_file.documents);
    let code = if changed.is_empty() { FINE } else { FAULTY };
    let text = match format {
        DiffFormat::Text => text + &as_text(&changed, before, after),
        DiffFormat::Json => as_json(&changed, before, after),
        DiffFormat::Markdown => as_markdown(&changed, before, after),
    };
    Answer { text, code }
}

fn compare(before: &[ParsedPolicy], after: &[ParsedPolicy]) -> Vec<Changed> {
    let by_target = |policies: &[ParsedPolicy]| -> BTreeMap<String, Vec<Setting>> {
        policies.iter().filter_map(|p| Some((p.target.as_ref()?.as_str().to_owned(), p.settings.clone()))).collect()
    };
    let (before, after) = (by_target(before), by_target(after));
    let mut changed = Vec::new();
    let mut targets: Vec<&String> = before.keys().chain(after.keys()).collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        let sides = (before.contains_key(target), after.contains_key(target));
        let differences = match (before.get(target), after.get(target)) {
            (Some(a), Some(b)) => settings(a, b),
            _ => Vec::new(),
        };
        if !differences.is_empty() || sides != (true, true) {
            changed.push(Changed { target: target.clone(), sides, differences });
        }
    }
    changed
}

/// The values that differ, in the order of the reference.
fn settings(before: &[Setting], after: &[Setting]) -> Vec<Difference> {
    let (a, b) = (named(before), named(after));
    let value = |side: &[(String, &Setting)], path: &str| side.iter().find(|(p, _)| p == path).map(|(_, s)| shown(s));
    let mut differences = Vec::new();
    let mut push = |path: &str, setting: &Setting| {
        let (before, after) = (value(&a, path), value(&b, path));
        let same = before.as_ref().map(|(v, _)| v) == after.as_ref().map(|(v, _)| v);
        if !same {
            let with_origin = |side: Option<(String, String)>| side.map(|(_, shown)| shown);
            differences.push(Difference { path: path.to_owned(), before: with_origin(before), after: with_origin(after), meaning: setting.meaning });
        }
    };
    a.iter().for_each(|(path, setting)| push(path, setting));
    b.iter().filter(|(path, _)| !a.iter().any(|(p, _)| p == path)).for_each(|(path, setting)| push(path, setting));
    // A metric that one side does not have is one line of that side, not one for each of its fields.
    let has = |side: &[(String, &Setting)], metric: &str| side.iter().any(|(path, _)| path.starts_with(metric));
    let whole: Vec<String> = a
        .iter()
        .chain(&b)
        .filter_map(|(path, _)| path.strip_suffix(".name").filter(|metric| metric.ends_with(']')).map(ToOwned::to_owned))
        .filter(|metric| has(&a, metric) != has(&b, metric))
        .collect();
    for metric in whole {
        let rule = |side: &[(String, &Setting)]| {
            has(side, &metric).then(|| {
                let fields =
                    side.iter().filter(|(path, _)| path.starts_with(&format!("{metric}.track")) || path.starts_with(&format!("{metric}.threshold.scale")));
                let told: Vec<String> = fields.map(|(path, s)| format!("{} {}", &path[metric.len() + 1..], s.value)).collect();
                if told.is_empty() { "observed only".to_owned() } else { told.join(", ") }
            })
        };
        let one = Difference { path: metric.clone(), before: rule(&a), after: rule(&b), meaning: "a metric" };
        differences.retain(|d| !d.path.starts_with(&metric));
        differences.push(one);
    }
    differences
}

/// The settings with their paths, a metric by its name in the place of its number.
fn named(settings: &[Setting]) -> Vec<(String, &Setting)> {
    let names: BTreeMap<&str, &str> = settings
        .iter()
        .filter(|s| s.path.starts_with("spec.metrics["))
        .filter_map(|s| Some((s.path.strip_suffix(".name")?, s.value.trim_matches('"'))))
        .collect();
    settings
        .iter()
        .map(|s| {
            let metric = s.path.find(']').map(|end| &s.path[..=end]).and_then(|metric| Some((metric, names.get(metric)?)));
            let path = metric.map_or_else(|| s.path.clone(), |(metric, name)| format!("spec.metrics[{name}]{}", &s.path[metric.len()..]));
            (path, s)
        })
        .collect()
}

/// A value, alone and with where it comes from.
fn shown(setting: &Setting) -> (String, String) {
    let value = if setting.value == "null" { "–".to_owned() } else { setting.value.clone() };
    let origin = match setting.origin {
        Origin::Written => "",
        Origin::Role => " (role)",
        Origin::Default => " (default)",
    };
    (setting.value.clone(), format!("{value}{origin}"))
}

fn or_dash(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "–".to_owned())
}

fn only(changed: &Changed, before: &Source, after: &Source) -> Option<String> {
    match changed.sides {
        (true, false) => Some(format!("only in {}", before.name)),
        (false, true) => Some(format!("only in {}", after.name)),
        _ => None,
    }
}

fn as_text(changed: &[Changed], before: &Source, after: &Source) -> String {
    if changed.is_empty() {
        return format!("{} and {} say the same\n", before.name, after.name);
    }
    let mut out = Vec::new();
    for (i, one) in changed.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        out.extend(format!("{gap}{}{}\n", one.target, only(one, before, after).map(|only| format!(": {only}")).unwrap_or_default()).into_bytes());
        let rows = one.differences.iter().map(|d| vec![format!("  {}", d.path), or_dash(d.before.as_ref()), or_dash(d.after.as_ref()), d.meaning.to_owned()]);
        if !one.differences.is_empty() {
            // Writing to memory cannot fail.
            let _ = table::write(&mut out, &["  FIELD", &before.name, &after.name, "MEANS"], rows);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn as_markdown(changed: &[Changed], before: &Source, after: &Source) -> String {
    if changed.is_empty() {
        return format!("`{}` and `{}` say the same.\n", before.name, after.name);
    }
    // Writing to a String cannot fail.
    let mut out = String::new();
    for one in changed {
        let _ = writeln!(out, "### {}\n", render::markdown(&one.target));
        if let Some(only) = only(one, before, after) {
            let _ = writeln!(out, "{}\n", render::markdown(&only));
        }
        if !one.differences.is_empty() {
            let _ = writeln!(out, "| field | {} | {} | means |\n|---|---|---|---|", render::markdown(&before.name), render::markdown(&after.name));
            for d in &one.differences {
                let cells = [&d.path, &or_dash(d.before.as_ref()), &or_dash(d.after.as_ref()), &d.meaning.to_owned()].map(|cell| render::markdown(cell));
                let _ = writeln!(out, "| `{}` | {} | {} | {} |", d.path, cells[1], cells[2], cells[3]);
            }
            out.push('\n');
        }
    }
    out
}

fn as_json(changed: &[Changed], before: &Source, after: &Source) -> String {
    let targets: Vec<Value> = changed
        .iter()
        .map(|one| {
            let differences: Vec<Value> =
                one.differences.iter().map(|d| json!({ "path": d.path, "before": d.before, "after": d.after, "meaning": d.meaning })).collect();
            json!({ "target": one.target, "before": one.sides.0, "after": one.sides.1, "differences": differences })
        })
        .collect();
    format!("{}\n", json!({ "before": before.name, "after": after.name, "targets": targets }))
}
