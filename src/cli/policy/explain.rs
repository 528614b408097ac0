//! The effective documents of policies: YAML that says the same with every default written out, each value
//! with where it comes from and what it means.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::Source;
use super::render::all_json;
use crate::model::document::amounts::{duration, show_duration};
use crate::model::document::{Node, Value};
use crate::model::policy::{Origin, Setting};
use crate::wire::document::{API_VERSION, ParsedPolicy, PolicyFile};

/// The column of the remarks, where the values leave room.
const REMARKS_AT: usize = 46;

/// Every policy of the files that has no errors, as YAML with remarks: a document each, under the name of its file where
/// there are several. A file without a policy is named in a remark at the end.
pub(super) fn text(files: &[PolicyFile], pane: Duration) -> String {
    let explained: Vec<(&PolicyFile, &ParsedPolicy)> =
        files.iter().flat_map(|file| file.documents.iter().filter(|d| d.policy.is_some()).map(move |d| (file, d))).collect();
    let several = files.len() > 1 || explained.len() > 1;
    let section = |(file, parsed): &(&PolicyFile, &ParsedPolicy)| {
        let target = parsed.target.as_ref().map_or_else(String::new, |target| format!(": {target}"));
        let head = if several { format!("# {}{target}\n", plain(&file.file)) } else { String::new() };
        head + &document(parsed, pane)
    };
    let mut out = explained.iter().map(section).collect::<Vec<_>>().join("---\n");
    for file in files.iter().filter(|file| file.documents.is_empty() && file.all_problems().is_empty() && !file.file.is_empty()) {
        let _ = writeln!(out, "# {}: no ScalingPolicy in it", plain(&file.file));
    }
    out
}

/// A file's name within a remark, which ends with its line.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn document(parsed: &ParsedPolicy, pane: Duration) -> String {
    let mut out = format!("apiVersion: {API_VERSION}\nkind: ScalingPolicy\n");
    let quote = |text: &str| Json::from(text).to_string();
    if let (Some(name), Some(target)) = (&parsed.name, &parsed.target) {
        let metadata = format!("metadata: {{ namespace: {}, name: {} }}", quote(target.namespace()), quote(name));
        let remark = if parsed.namespace_is_written { String::new() } else { remark(&metadata, Origin::Default, "the namespace of processes") };
        let _ = writeln!(out, "{metadata}{remark}");
    }
    let mut before: Vec<&str> = Vec::new();
    for setting in &parsed.settings {
        let path = segments(&setting.path);
        let shared = path.iter().zip(&before).take_while(|(a, b)| a == b).count();
        let mut dash = false;
        for (depth, segment) in path.iter().enumerate().skip(shared) {
            if segment.starts_with('[') {
                dash = true;
                continue;
            }
            let indent = if dash { format!("{}- ", "  ".repeat(depth - 1)) } else { "  ".repeat(depth) };
            dash = false;
            if depth + 1 < path.len() {
                let _ = writeln!(out, "{indent}{segment}:");
            } else {
                let _ = writeln!(out, "{}", line(&format!("{indent}{segment}: {}", setting.value), setting, pane));
            }
        }
        before = path;
    }
    out
}

/// `spec.metrics[0].window` as `spec`, `metrics`, `[0]`, `window`.
fn segments(path: &str) -> Vec<&str> {
    path.split('.').flat_map(|part| part.find('[').map_or_else(|| vec![part], |at| vec![&part[..at], &part[at..]])).collect()
}

fn line(value: &str, setting: &Setting, pane: Duration) -> String {
    format!("{value}{}", remark(value, setting.origin, &meaning(setting, pane)))
}

/// What a value means, where panes have this length.
fn meaning(setting: &Setting, pane: Duration) -> String {
    let Setting { path, value, meaning, .. } = setting;
    let written = || duration(&Node::bare(Value::Text(value.clone())), Duration::MAX).ok();
    match path.rsplit('.').next() {
        Some("evaluateEvery") if value == "null" => format!("{}, of {})", meaning.trim_end_matches(')'), show_duration(pane)),
        Some("window") => match written().map(|window| window.as_millis().div_ceil(pane.as_millis().max(1))) {
            Some(1) => format!("{meaning}: 1 pane of {}", show_duration(pane)),
            Some(panes) => format!("{meaning}: {panes} panes of {}", show_duration(pane)),
            None => (*meaning).to_owned(),
        },
        _ => (*meaning).to_owned(),
    }
}

/// What is said behind a value: where it comes from and what it means.
fn remark(value: &str, from: Origin, meaning: &str) -> String {
    let room = REMARKS_AT.saturating_sub(value.chars().count());
    format!("{:room$}  # {:7}  {meaning}", "", origin(from))
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Written => "written",
        Origin::Role => "role",
        Origin::Default => "default",
    }
}

/// Every policy of the files and every problem, as one JSON object.
pub(super) fn json(sources: &[Source], files: &[PolicyFile], pane: Duration) -> String {
    let policies: Vec<Json> = files
        .iter()
        .flat_map(|file| file.documents.iter().map(move |d| (file, d)))
        .map(|(file, d)| {
            let setting = |s: &Setting| json!({ "path": s.path, "value": s.value, "origin": origin(s.origin), "meaning": meaning(s, pane) });
            let settings: Vec<Json> = d.settings.iter().map(setting).collect();
            json!({ "file": file.file, "name": d.name, "target": d.target, "settings": settings })
        })
        .collect();
    format!("{}\n", json!({ "policies": policies, "problems": all_json(sources, files) }))
}
