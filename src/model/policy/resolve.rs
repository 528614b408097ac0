//! From a written `spec` to the policy in force: the one place where a policy is validated.
//!
//! Every problem is reported at once, each with its place and its mend; a policy comes out only where
//! there is no error. A field of the language whose step is not built yet is an error, never ignored.

mod advice;
mod alike;
mod behavior;
mod doubt;
mod habits;
mod metric;
mod names;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Defaults, Mode, Policy, Role, Tolerance, defaults};
use crate::model::document::amounts::{self, Fault};
use crate::model::document::fields::{self, Choice, Fields, Report, quoted, whole};
use crate::model::document::shape::{Outline, Shape};
use crate::model::document::{MOST_PROBLEMS, Node, Problem, Severity, Span, Value, shorten};
use crate::model::spelling::{is_slip_of, nearest};
use crate::model::{FleetName, TargetId};

use habits::{Place, habit};

pub use crate::model::document::fields::{Origin, Setting};
pub use alike::Alike;
pub use doubt::is_sound;
pub use habits::habit_of_document;

/// The most replicas: a Kubernetes `int32`.
const MAX_REPLICAS: i64 = i32::MAX as i64;
/// The longest stabilization, and the longest window that is kept of samples: the bound of `autoscaling/v2`.
const HOUR: Duration = Duration::from_secs(3600);
/// The longest wait of any other kind: within a day a person has looked.
const DAY: Duration = Duration::from_secs(86_400);
/// The longest time between two evaluations: beyond it a target would be blind to a morning's rise.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);
/// The largest tolerance: an HPA has no bound, but ten times the target is beyond any use.
const LARGEST_TOLERANCE: f64 = 10.0;
/// The kind of target that needs no `apiVersion`.
const FLEET: &str = "ProcessFleet";

/// What has replicas in every Kubernetes, with its API.
const WORKLOADS: [(&str, &str); 4] = [("Deployment", "apps/v1"), ("StatefulSet", "apps/v1"), ("ReplicaSet", "apps/v1"), ("ReplicationController", "v1")];

/// What `apiVersion` a target of kind `ProcessFleet` may have.
const OWN_API_VERSION: &str = "loadline.dev/v1alpha1";

/// The fields of a spec whose step is not built yet.
const NOT_YET: [&str; 8] = ["burst", "health", "breaker", "schedules", "forecast", "economics", "zero", "overrides"];

/// What became of a written policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// The policy in force; `None` where there are errors.
    pub policy: Option<Policy>,
    /// Errors and warnings, in the order of the text where places are known.
    pub problems: Vec<Problem>,
    /// Every effective value, in the order of the reference.
    pub settings: Vec<Setting>,
    /// Where each written field stands, by its path.
    pub places: BTreeMap<String, Span>,
}

/// The length of a pane where the installation sets no other.
pub const DEFAULT_PANE: Duration = Duration::from_secs(5);

/// Resolves the `spec` of a `ScalingPolicy` in `namespace`.
pub fn resolve(spec: &Node, namespace: &str) -> Resolution {
    resolve_for(spec, namespace, DEFAULT_PANE)
}

/// As [`resolve`], for an installation with panes of this length: some warnings hang on it, and nothing else.
pub fn resolve_for(spec: &Node, namespace: &str, pane: Duration) -> Resolution {
    let mut report = Report::default();
    report.locate(|| "spec".to_owned(), spec);
    // Where something is faulty, its default stands in the draft: what hangs on that is not advised.
    let draft = read(spec, namespace, &mut report);
    let is_faulty = report.problems.iter().any(|p| p.severity == Severity::Error);
    if let Some(draft) = &draft {
        advice::advise(draft, pane, &mut report);
        doubt::withhold(draft, meant_role(spec.get("role")).is_some(), &mut report);
    }
    let policy = draft.filter(|_| !is_faulty);
    let Report { mut problems, settings, places, .. } = report;
    // Errors first where the bound cuts, so that a refusal never loses its reason.
    problems.sort_by_key(|p| p.severity);
    problems.truncate(MOST_PROBLEMS);
    problems.sort_by_key(|p| p.span.map_or((0, 0), |s| (s.line, s.column)));
    Resolution { policy, problems, settings, places }
}

/// The target that a spec in `namespace` names, where it names one.
pub fn target_of(spec: &Node, namespace: &str) -> Option<TargetId> {
    let target = spec.get("target")?;
    TargetId::new(namespace, target.get("kind")?.as_text()?, target.get("name")?.as_text()?).ok()
}

/// Resolves an announced spec: the JSON text that `PolicyAnnouncement` carries, for the target that it names.
///
/// # Errors
/// Every error of the spec, and one where it is not of `target`. Warnings are not errors and are left out.
pub fn resolve_spec_json(spec: &str, target: &TargetId) -> Result<Policy, Vec<Problem>> {
    let node = Node::from_json(spec).map_err(|problem| vec![problem])?;
    // Nearly all that are announced have been checked, and a process that takes over reads each of them.
    at_a_glance(&node, target).map_or_else(|| thoroughly(&node, target), Ok)
}

/// The policy that a spec is of this target, where it has no error.
fn at_a_glance(node: &Node, target: &TargetId) -> Option<Policy> {
    let mut report = Report::at_a_glance();
    read(node, target.namespace(), &mut report).filter(|policy| !report.has_errors() && policy.target == *target)
}

fn thoroughly(node: &Node, target: &TargetId) -> Result<Policy, Vec<Problem>> {
    let mut report = Report::of_errors();
    let draft = read(node, target.namespace(), &mut report);
    let mut problems = report.problems;
    problems.retain(|problem| problem.severity == Severity::Error);
    problems.truncate(MOST_PROBLEMS);
    match draft {
        Some(policy) if problems.is_empty() && policy.target == *target => Ok(policy),
        Some(policy) if problems.is_empty() => Err(vec![Problem {
            path: "spec.target".into(),
            span: None,
            severity: Severity::Error,
            message: format!("the policy is of {}, but was announced for {target}", policy.target),
            mend: Some("announce it for its own target".into()),
            code: "target",
        }]),
        _ => Err(problems),
    }
}

/// Every field of a `spec`: what this reader says of each while it reads policies that have them all.
pub fn outline() -> Outline {
    /// The least that can be written: whose defaults are those of every policy.
    const LEAST: &str = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"x"},"replicas":{"max":9},
        "metrics":[{"name":"x","threshold":{"scaleOutAbove":1}}]}"#;
    /// What has a meaning only where it is written.
    const MORE: &str = r#"{"role":"Generic","target":{"apiVersion":"apps/v1","kind":"Deployment","name":"x"},"replicas":{"max":9},"metrics":[
        {"name":"cpu","track":{"utilization":"70%"}},{"name":"a","track":{"perReplica":1}},{"name":"b","measure":{"quantile":"9%"},"track":{"value":1}},
        {"name":"c","threshold":{"scaleOutAbove":2,"scaleInBelow":1}}],"behavior":{"scaleIn":{"policies":[{"percent":1,"period":"1s"}]},
        "scaleOut":{"policies":[{"replicas":1,"period":"1s"}]}},"fallback":{"behavior":"Static","replicas":1}}"#;
    let mut outline = Outline::default();
    for probe in [LEAST, MORE] {
        let mut report = Report::outlining();
        if let Ok(spec) = Node::from_json(probe) {
            read(&spec, "x", &mut report);
        }
        outline.merge(report.into_outline());
    }
    outline
}

/// The policy as far as it can be read: faulty and missing fields at their defaults, each with its error in the report.
fn read(spec: &Node, namespace: &str, report: &mut Report) -> Option<Policy> {
    let mut spec = Fields::of(Some(spec), "spec".into(), report, "write `spec` with `target`, `replicas` and `metrics`");
    let target = target(&mut spec, namespace, report);
    spec.read("actuator", Shape::Exactly("Scale"), report, |node| match node.as_text() {
        Some("Scale") => Ok(()),
        Some("HorizontalPodAutoscaler") => Err(Fault::new("not-available", "HorizontalPodAutoscaler is not available yet", "write `Scale`, or remove it")),
        _ => Err(Fault::new("unknown-value", format!("{} is no actuator", node.describe()), "write `Scale`, or remove it")),
    });
    let origin = if spec.take("actuator").is_some() { Origin::Written } else { Origin::Default };
    report.put(|| (spec.at("actuator"), "Scale".to_owned()), origin, "Loadline sets the count itself");
    let written = spec.take("role");
    let (role_is_written, meant) = (written.is_some(), meant_role(written).unwrap_or(Role::Generic));
    let role = spec.choice("role", (meant, Origin::Default), "which defaults apply", report);
    let defaults = defaults::of(role);
    let by_role = if role_is_written { Origin::Role } else { Origin::Default };
    let mode = spec.choice("mode", (Mode::Active, Origin::Default), "how far it acts: Active, OutOnly, Advise or Off", report);
    let fleet = spec.setting("fleet", Shape::Name, ("default".to_owned(), Origin::Default), "the fleet whose budgets it shares", report, |node| {
        let mend = || "write a name of 1 to 253 bytes without white space";
        let text = node.as_text().ok_or_else(|| Fault::wrong_type(node, mend()))?;
        text.parse::<FleetName>().map(|_| text.to_owned()).map_err(|e| Fault::new("name", e.to_string(), mend()))
    });
    let priority = spec.setting(
        "priority",
        Shape::Whole(i32::MIN.into(), i32::MAX.into()),
        (defaults.priority, by_role),
        "where a budget is short, the larger wins",
        report,
        |node| whole(node, i32::MIN.into(), i32::MAX.into()).map(|n| i32::try_from(n).unwrap_or_default()),
    );
    let (min, max) = replicas(&mut spec, defaults, by_role, report);
    let mut startup = spec.map("startup", report, "write `startup: { cpuInitialization: 5m, readinessDelay: 30s }`");
    let meaning = "after its start, an instance's CPU counts only once it has been ready for a window";
    let cpu_initialization = startup.duration("cpuInitialization", (defaults.cpu_initialization, by_role), DAY, meaning, report);
    let meaning = "an instance that lost readiness this soon after its start was never ready";
    let readiness_delay = startup.duration("readinessDelay", (defaults.readiness_delay, by_role), DAY, meaning, report);
    startup.finish(report, |_| None);
    let metrics = metric::metrics(&mut spec, defaults, by_role, report);
    let evaluate_every = evaluate_every(&mut spec, report);
    let (scale_out, scale_in) = behavior::behavior(&mut spec, defaults, by_role, report);
    let tolerance = tolerance(&mut spec, defaults, by_role, report);
    let fallback = behavior::fallback(&mut spec, defaults, by_role, min, report);
    spec.finish(report, elsewhere);
    Some(Policy {
        target: target.or_else(|| TargetId::new("unnamed", "unnamed", "unnamed").ok())?,
        role,
        mode,
        fleet: fleet.parse().unwrap_or_default(),
        priority,
        min,
        max: max.unwrap_or(u32::MAX),
        cpu_initialization,
        readiness_delay,
        metrics,
        scale_out,
        scale_in,
        tolerance,
        fallback,
        evaluate_every,
    })
}

/// The role that is written, or that was probably meant: the rest is held against its defaults.
fn meant_role(role: Option<&Node>) -> Option<Role> {
    role.and_then(fields::meant)
}

/// What a field is that is known elsewhere: built later, or of another autoscaler.
fn elsewhere(name: &str) -> Option<Fault> {
    NOT_YET.contains(&name).then(|| not_available(name)).or_else(|| habit(Place::Spec, name))
}

fn not_available(name: &str) -> Fault {
    Fault::new("not-available", format!("`{name}` is not available yet: Loadline would ignore it"), "remove it")
}

/// What a required field that is absent is.
fn missing(name: &str, mend: &str) -> Fault {
    Fault::new("missing-field", format!("`{name}` is missing"), mend)
}

fn target(spec: &mut Fields<'_>, namespace: &str, report: &mut Report) -> Option<TargetId> {
    const MEND: &str = "write `target: { apiVersion: apps/v1, kind: Deployment, name: api-server }`";
    spec.demand("target", report);
    let Some(node) = spec.take("target") else {
        report.error(spec.path(), missing("target", MEND));
        return None;
    };
    let mut target = Fields::of(Some(node), spec.at("target"), report, MEND);
    if !matches!(node.value, Value::Map(_)) {
        return None;
    }
    let part = |node: &Node| match node.as_text() {
        Some(text) if !text.is_empty() && !text.contains('/') => Ok(text.to_owned()),
        _ => Err(Fault::new("name", format!("{} is no name", node.describe()), "write a name without a slash, in quotes if it looks like a number")),
    };
    let version = target.read("apiVersion", Shape::Name, report, |node| match node.as_text() {
        Some(text) if text.split('/').count() <= 2 && text.split('/').all(|t| !t.is_empty()) => Ok(text.to_owned()),
        _ => Err(Fault::new("name", format!("{} is no API version", node.describe()), "write it as in `apps/v1`")),
    });
    let version_is_written = target.take("apiVersion").is_some();
    let mut required = |name: &'static str, report: &mut Report| {
        target.demand(name, report);
        let is_written = target.take(name).is_some();
        if !is_written {
            report.error(target.path(), missing(name, MEND));
        }
        target.read(name, Shape::Name, report, part)
    };
    let (kind, name) = (required("kind", report), required("name", report));
    let path = target.at("apiVersion");
    match (&kind, &version) {
        (Some(kind), Some(version)) if kind == FLEET && version != OWN_API_VERSION => {
            report.error(&path, Fault::new("api-version", format!("a ProcessFleet has no `apiVersion: {}`", shorten(version)), "remove it"));
        }
        (Some(kind), None) if kind != FLEET && !version_is_written && nearest(kind, [FLEET]).is_some() => {
            let message = format!("there is no kind `{}` without an `apiVersion`", shorten(kind));
            report.error(&target.at("kind"), Fault::new("kind", message, format!("did you mean `{FLEET}`?")));
        }
        (Some(kind), None) if kind != FLEET && !version_is_written => {
            report.error(target.path(), missing("apiVersion", &format!("write the API version of {}, as in `apiVersion: apps/v1`", shorten(kind))));
        }
        _ => {}
    }
    if let (Some(kind), Some(version)) = (&kind, &version)
        && report.advises()
    {
        doubtful_kind(kind, version, &target, report);
    }
    if let Some(version) = version {
        report.put(|| (path, quoted(&version)), Origin::Written, "the API of the target");
    }
    for (field, value) in [("kind", &kind), ("name", &name)] {
        if let Some(value) = value {
            report.put(|| (target.at(field), quoted(value)), Origin::Written, "what has the replicas");
        }
    }
    let path = target.path().to_owned();
    target.finish(report, |_| None);
    match TargetId::new(namespace, &kind?, &name?) {
        Ok(id) => Some(id),
        Err(e) => {
            report.error(&path, Fault::new("name", e.to_string(), "write names of at most 253 bytes together"));
            None
        }
    }
}

/// A kind that is nearly one that everybody has, or that has not the API of it: such a target is never seen.
fn doubtful_kind(kind: &str, version: &str, target: &Fields<'_>, report: &mut Report) {
    if let Some((known, _)) = WORKLOADS.iter().find(|(known, _)| is_slip_of(kind, known)) {
        let message = format!("`{}` is nearly `{known}`, which everybody has", shorten(kind));
        report.warn(&target.at("kind"), "target-kind", message, format!("did you mean `{known}`? leave it where your cluster has that kind"));
    } else if let Some((known, of)) = WORKLOADS.iter().find(|(known, of)| kind == *known && version != *of) {
        let message = format!("a {known} is of `{of}`, here it is of `{}`", shorten(version));
        report.warn(&target.at("apiVersion"), "target-kind", message, format!("write `apiVersion: {of}`"));
    }
}

fn replicas(spec: &mut Fields<'_>, defaults: &Defaults, by_role: Origin, report: &mut Report) -> (u32, Option<u32>) {
    const MEND: &str = "write `replicas: { min: 3, max: 60 }`";
    spec.demand("replicas", report);
    if spec.take("replicas").is_none() {
        report.error(spec.path(), missing("replicas", MEND));
        return (defaults.min, None);
    }
    let mut replicas = spec.map("replicas", report, MEND);
    let count = |node: &Node| whole(node, 1, MAX_REPLICAS).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let min_is_written = replicas.take("min").is_some();
    let max_is_written = replicas.take("max").is_some();
    replicas.demand("max", report);
    let shape = Shape::Whole(1, MAX_REPLICAS);
    let max = replicas.read("max", shape, report, count);
    // A default never contradicts what is written.
    let least = max.map_or(defaults.min, |max| defaults.min.min(max));
    let min = replicas.setting("min", shape, (least, by_role), "never fewer replicas", report, |node| match &node.value {
        Value::Number(text) if text == "0" => Err(Fault::new("not-available", "scaling to 0 is not available yet", "write 1 or more")),
        _ => count(node),
    });
    match max {
        Some(max) => {
            report.put(|| (replicas.at("max"), max.to_string()), Origin::Written, "never more replicas");
            if min > max && min_is_written {
                report.error(
                    &replicas.at("min"),
                    Fault::new("contradiction", format!("`min` {min} is larger than `max` {max}"), "write a smaller `min` or a larger `max`"),
                );
            }
        }
        None if !max_is_written => report.error(replicas.path(), missing("max", MEND)),
        None => {}
    }
    replicas.finish(report, |name| habit(Place::Replicas, name));
    (min, max)
}

fn evaluate_every(spec: &mut Fields<'_>, report: &mut Report) -> Option<Duration> {
    let every = spec.read("evaluateEvery", Shape::Duration, report, |node| match amounts::duration(node, LONGEST_INTERVAL)? {
        Duration::ZERO => Err(Fault::new("range", "0 is no interval", "remove it to evaluate at every pane")),
        every => Ok(every),
    });
    let origin = if every.is_some() { Origin::Written } else { Origin::Default };
    report.put(
        || (spec.at("evaluateEvery"), every.map_or_else(|| "null".to_owned(), amounts::show_duration)),
        origin,
        "no more often than this (null: at every pane)",
    );
    every
}

fn tolerance(spec: &mut Fields<'_>, defaults: &Defaults, by_role: Origin, report: &mut Report) -> Tolerance {
    let mut fields = spec.map("tolerance", report, "write `tolerance: { out: 10%, in: 10% }`");
    let mut side = |name: &'static str, default: f64, meaning: &'static str, report: &mut Report| {
        let read = fields.read(name, Shape::Ratio, report, |node| match amounts::ratio(node)? {
            ratio if ratio <= LARGEST_TOLERANCE => Ok(ratio),
            ratio => {
                let shown = amounts::show_ratio(ratio);
                Err(Fault::new("range", format!("{shown} is more than {}", amounts::show_ratio(LARGEST_TOLERANCE)), "write a share, as in `10%`"))
            }
        });
        let origin = if read.is_some() { Origin::Written } else { by_role };
        let value = read.unwrap_or(default);
        report.put(|| (fields.at(name), amounts::show_ratio(value)), origin, meaning);
        value
    };
    let tolerance = Tolerance {
        out: side("out", defaults.tolerance_out, "so far above its target a tracked metric asks for nothing", report),
        r#in: side("in", defaults.tolerance_in, "so far below its target a tracked metric asks for nothing", report),
    };
    fields.finish(report, |_| None);
    tolerance
}

impl Choice for Role {
    const WORDS: &'static [(&'static str, Self)] =
        &[("Generic", Role::Generic), ("ApiServer", Role::ApiServer), ("BotInstances", Role::BotInstances), ("DatabaseReadReplica", Role::DatabaseReadReplica)];
}

impl Choice for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("Active", Mode::Active), ("OutOnly", Mode::OutOnly), ("Advise", Mode::Advise), ("Off", Mode::Off)];
}

#[cfg(test)]
mod tests;
