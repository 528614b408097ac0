//! From a written test to one that can be played: its files read, its policy found, its values in the units of the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::super::{Source, read, refuse_doubles};
use super::document::{Case, MetricExpectation, Of, Series, Suite, doubles};
use super::notation;
use super::world::{Happening, Plan, Track};
use crate::cli::config::{Config, ConfigArgs, RemovalLimit};
use crate::cli::documents::documents_in;
use crate::edge::processes::{FleetDocument, KIND, fleet_of};
use crate::model::document::amounts::{self, Fault};
use crate::model::document::{Node, Problem, Severity, Span, shorten};
use crate::model::policy::{Measure, MetricPolicy, MetricRule, Policy, Unit, nearest_metric};
use crate::model::spelling::nearest;
use crate::model::{Amount, Kind, TargetId};
use crate::stages::arbitrate::{Arbitrate, Pacing};
use crate::wire::document::{ParsedPolicy, PolicyFile};

/// The files that tests name, as far as they could be read.
pub(super) struct Bound {
    /// The tests that can be played.
    pub(super) plans: Vec<(Case, Plan, Policy)>,
    /// What is wrong with the file of tests.
    pub(super) problems: Vec<Problem>,
    /// What is wrong with the files that it names, with their texts.
    pub(super) others: Vec<(Source, PolicyFile)>,
}

/// Binds the tests of the file `file`, which stands in `folder`.
pub(super) fn bind(suite: &Suite, folder: &Path, file: &str) -> Bound {
    let mut binder = Binder { folder, file, problems: Vec::new(), others: Vec::new() };
    let (mut policies, mut fleets) = (Vec::new(), Vec::new());
    let named = suite.policies.iter().filter_map(|(name, span)| binder.source(name, *span, "spec.policies").map(|source| (source, *span)));
    let (sources, spans): (Vec<_>, Vec<_>) = named.collect::<Vec<_>>().into_iter().unzip();
    let mut files: Vec<PolicyFile> = sources.iter().map(|(source, text)| documents_in(text, &source.name)).collect();
    // Of two policies for one target nobody could say which one is tested.
    refuse_doubles(&mut files);
    for (((source, _), span), file) in sources.into_iter().zip(spans).zip(files) {
        let file = binder.told(source, file, span, "spec.policies");
        fleets.extend(file.others.iter().filter(|other| other.kind == KIND).filter_map(|other| fleet_of(&other.node).0));
        // The second of two is told, and not asked about once more.
        let is_first = |d: &ParsedPolicy| d.problems.iter().all(|problem| problem.code != "duplicate-target");
        policies.extend(file.documents.into_iter().filter(|d| d.policy.is_some() && is_first(d)));
    }
    let (pane, arbitrate) = binder.installation(suite);
    let mut plans = Vec::new();
    // Who names no file has been told.
    for case in suite.tests.iter().filter(|_| !suite.policies.is_empty()) {
        if let Some((plan, policy)) = binder.case(case, &policies, &fleets, pane, &arbitrate) {
            plans.push((case.clone(), plan, policy));
        }
    }
    Bound { plans, problems: binder.problems, others: binder.others }
}

struct Binder<'a> {
    folder: &'a Path,
    file: &'a str,
    problems: Vec<Problem>,
    others: Vec<(Source, PolicyFile)>,
}

impl Binder<'_> {
    fn error(&mut self, path: &str, span: Option<Span>, fault: Fault) {
        self.problems.push(Problem {
            path: path.to_owned(),
            span,
            severity: Severity::Error,
            message: fault.message,
            mend: Some(fault.mend),
            code: fault.code,
        });
    }

    fn source(&mut self, name: &str, span: Option<Span>, path: &str) -> Option<(Source, String)> {
        let source = read(&self.folder.join(name));
        match source.text.clone() {
            Ok(text) => Some((source, text)),
            Err(why) => {
                let message = format!("failed to read {}: {why}", source.name);
                self.error(path, span, Fault::new("unreadable", message, "name a file beside this one, or by its whole path"));
                None
            }
        }
    }

    /// The documents of a file; those of one with errors are left out, and told.
    fn documents(&mut self, name: &str, span: Option<Span>, path: &str) -> PolicyFile {
        let Some((source, text)) = self.source(name, span, path) else { return PolicyFile::default() };
        let file = documents_in(&text, &source.name);
        self.told(source, file, span, path)
    }

    /// The file, once its errors are told.
    fn told(&mut self, source: Source, file: PolicyFile, span: Option<Span>, path: &str) -> PolicyFile {
        if file.has_errors() {
            self.error(path, span, Fault::new("policy", format!("{} has errors", source.name), format!("see `loadline policy check {}`", source.name)));
            self.others.push((source, file.clone()));
        }
        file
    }

    /// The length of a pane, and the arbiter.
    fn installation(&mut self, suite: &Suite) -> (Duration, Arbitrate) {
        let mut config = Config::default();
        if let Some((name, span)) = &suite.configuration
            && let Some((source, text)) = self.source(name, *span, "spec.configuration")
        {
            match Config::from_parts(Some((Path::new(&source.name), &text)), [], &ConfigArgs::default()) {
                Ok(loaded) => config = loaded.config,
                Err(error) => {
                    let message = format!("{} cannot be used: {}", source.name, error.problems.join("; "));
                    self.error("spec.configuration", *span, Fault::new("configuration", message, "see `loadline config`"));
                }
            }
        }
        let pacing = |limit: RemovalLimit| Pacing { percent: limit.percent, at_least: limit.at_least, period: limit.period };
        let fleets = config.removals.fleets.iter().map(|(name, limit)| (name.clone(), pacing(*limit))).collect();
        (suite.pane.unwrap_or(config.pane), Arbitrate { pacing: pacing(config.removals.default), fleets })
    }

    fn case(&mut self, case: &Case, policies: &[ParsedPolicy], fleets: &[FleetDocument], pane: Duration, arbitrate: &Arbitrate) -> Option<(Plan, Policy)> {
        let found = self.problems.len();
        let parsed = self.policy_of(case, policies)?;
        let policy = parsed.policy.clone()?;
        let fleet = fleets.iter().find(|fleet| fleet.target == policy.target);
        let (replicas, requests) = self.fleet(case, &policy, fleet);
        let series = case.series.iter().filter_map(|series| self.track(series, &policy)).collect();
        self.problems.extend(doubles::with_every_instance(case, &policy.target, self.file));
        let mut later = vec![policy.clone()];
        let mut events = Vec::new();
        for event in &case.events {
            if let Some(count) = event.replicas {
                events.push((event.at, Happening::Replicas(count)));
            }
            if let Some((name, span)) = &event.policy {
                let path = format!("{}.events", case.path);
                let file = self.documents(name, *span, &path);
                match file.documents.into_iter().find(|d| d.target.as_ref() == Some(&policy.target)) {
                    Some(other) => {
                        later.extend(other.policy);
                        events.push((event.at, Happening::Policy(other.spec_json)));
                    }
                    None if file.problems.is_empty() => {
                        self.error(&path, *span, Fault::new("target", format!("no policy of {} is in {name}", policy.target), "name a file with one"));
                    }
                    None => {}
                }
            }
        }
        for expected in case.expect.iter().flat_map(|expected| &expected.metrics) {
            self.expected(expected, &later);
        }
        let looks: BTreeSet<Duration> = case.expect.iter().map(|e| e.at).collect();
        let plan = Plan {
            target: policy.target.clone(),
            spec: parsed.spec_json.clone(),
            pane,
            arbitrate: arbitrate.clone(),
            every: case.every.unwrap_or(pane),
            replicas,
            start_up: case.start_up,
            requests,
            series,
            events,
            looks,
        };
        let is_sound = self.problems.len() == found && doubles::in_case(case, self.file).is_empty();
        is_sound.then_some((plan, policy))
    }

    fn policy_of<'p>(&mut self, case: &Case, policies: &'p [ParsedPolicy]) -> Option<&'p ParsedPolicy> {
        let names: Vec<&str> = policies.iter().filter_map(|p| p.target.as_ref()).map(TargetId::as_str).collect();
        match (&case.target, policies) {
            (None, [one]) => Some(one),
            (None, []) => {
                if self.problems.is_empty() {
                    self.error("spec.policies", case.span, Fault::new("empty", "there is no policy in these files", "name a file with a ScalingPolicy"));
                }
                None
            }
            (None, _) => {
                let message = "the files have several policies, and the test does not say which";
                self.error(&case.path, case.span, Fault::new("missing-field", message, format!("write `target: {}`", names.join("`, or `target: "))));
                None
            }
            (Some((target, span)), _) => {
                let found = policies.iter().find(|p| p.target.as_ref().is_some_and(|t| t.as_str() == target));
                if found.is_none() {
                    let mend = match nearest(target, names.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("there are policies of {}", names.join(", ")),
                    };
                    self.error(&format!("{}.target", case.path), *span, Fault::new("target", format!("there is no policy of {}", shorten(target)), mend));
                }
                found
            }
        }
    }

    /// The replicas at the start, and what each asks for.
    fn fleet(&mut self, case: &Case, policy: &Policy, fleet: Option<&FleetDocument>) -> (u32, BTreeMap<String, Amount>) {
        let replicas = case.replicas.or(fleet.map(|f| f.spec.replicas)).unwrap_or(policy.min);
        let mut requests = fleet.map(|f| f.spec.requests.clone()).unwrap_or_default();
        requests.extend(case.requests.clone());
        for metric in policy.metrics.iter().filter(|m| matches!(m.rule, MetricRule::Utilization { .. })) {
            if !requests.contains_key(metric.name.as_str()) && case.series.iter().any(|s| s.metric == metric.name.as_str()) {
                let message = format!("the policy wants a utilization of `{}`, and nothing says how much of it an instance requests", metric.name);
                let example = if metric.unit == Unit::Bytes { "64Mi" } else { "500m" };
                let mend = format!("write `fleet: {{ requests: {{ {}: {example} }} }}`, or name the file of the ProcessFleet too", metric.name);
                self.error(&format!("{}.fleet", case.path), case.span, Fault::new("missing-field", message, mend));
            }
        }
        (replicas, requests)
    }

    fn track(&mut self, series: &Series, policy: &Policy) -> Option<Track> {
        let path = &series.path;
        let metric = self.metric(&series.metric, std::slice::from_ref(policy), &format!("{path}.metric"), series.metric_span)?;
        let kind = series.kind.or(metric.kind).unwrap_or(if matches!(metric.measure, Measure::Quantile(_)) { Kind::Distribution } else { Kind::Gauge });
        if series.of == Of::Split && matches!(kind, Kind::Distribution | Kind::Histogram) {
            let message = "what is observed does not split: two instances do not answer twice as fast";
            self.error(&format!("{path}.of"), series.metric_span, Fault::new("contradiction", message, "write `of: Each`, or leave it out"));
            return None;
        }
        let text = match &series.values.value {
            crate::model::document::Value::Number(text) => text.clone(),
            _ => series.values.as_text().unwrap_or_default().to_owned(),
        };
        match notation::read(&text, metric.unit, kind) {
            Ok(points) => Some(Track { metric: metric.name.clone(), kind, of: series.of.clone(), points }),
            Err(wrong) => {
                self.error(&format!("{path}.values"), within(series.values.span, &text, wrong.at, wrong.length), wrong.fault);
                None
            }
        }
    }

    fn expected(&mut self, expected: &MetricExpectation, policies: &[Policy]) {
        let Some(metric) = self.metric(&expected.name, policies, &expected.path, expected.span) else { return };
        if let Some(value) = &expected.value
            && let Err(fault) = amounts::amount(value, Some(unit_of(&metric)))
        {
            self.error(&format!("{}.value", expected.path), value.span, fault);
        }
    }

    fn metric(&mut self, name: &str, policies: &[Policy], path: &str, span: Option<Span>) -> Option<MetricPolicy> {
        let metrics = || policies.iter().flat_map(|p| &p.metrics);
        let found = metrics().find(|m| m.name.as_str() == name).cloned();
        if found.is_none() {
            let names: Vec<&str> = metrics().map(|m| m.name.as_str()).collect();
            let mend = match nearest_metric(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the policy has {}", names.join(", ")),
            };
            self.error(path, span, Fault::new("metric-name", format!("the policy has no metric `{}`", shorten(name)), mend));
        }
        found
    }
}

/// The unit in which a decision shows a metric.
pub(super) fn unit_of(metric: &MetricPolicy) -> Unit {
    if matches!(metric.rule, MetricRule::Utilization { .. }) { Unit::Ratio } else { metric.unit }
}

/// The place of a part of a text, where the text stands on one line as it is written.
fn within(span: Option<Span>, text: &str, at: usize, length: usize) -> Option<Span> {
    let span = span?;
    let characters = u32::try_from(text.chars().count()).ok()?;
    let quotes = span.length.checked_sub(characters)?;
    if quotes != 0 && quotes != 2 {
        return Some(span);
    }
    Some(Span { line: span.line, column: span.column + quotes / 2 + u32::try_from(at).ok()?, length: u32::try_from(length).ok()?.max(1) })
}

/// An amount that is expected, once it has been bound.
pub(super) fn amount(node: &Node, unit: Unit) -> Option<Amount> {
    amounts::amount(node, Some(unit)).ok()
}
