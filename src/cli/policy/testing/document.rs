//! The document of a `PolicyTest`: what a person writes, read field by field, with every problem at once.
//!
//! What needs the policy (units, names of metrics) is checked when a test is bound to one, in `bind`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::document::amounts::{self, Fault};
use crate::model::document::fields::{Fields, Report, whole};
use crate::model::document::shape::{Outline, Shape};
use crate::model::document::{Node, Problem, Span, Value};
use crate::model::policy::Unit;
use crate::model::{Amount, Kind, MetricStatus, Reason, StepKind, Verdict};
use crate::wire::document::API_VERSION;

pub(super) mod doubles;
mod words;

use words::{MEANINGS, OfWord};

/// The kind of these documents.
pub(super) const KIND: &str = "PolicyTest";
/// The longest time that a test plays.
const DAY: Duration = Duration::from_secs(86_400);
/// The longest pane of an installation.
const MINUTE: Duration = Duration::from_secs(60);
/// The most replicas that a test plays: beyond it nobody reads its table.
const MOST_REPLICAS: i64 = 5_000;
/// The most of any list.
const MOST: usize = 1_000;

/// A file of tests.
#[derive(Debug, Clone, Default)]
pub(super) struct Suite {
    /// The files of the policies and fleets, as written.
    pub(super) policies: Vec<(String, Option<Span>)>,
    /// The file whose `pane` and `removals` hold.
    pub(super) configuration: Option<(String, Option<Span>)>,
    /// The length of a pane, where it is written.
    pub(super) pane: Option<Duration>,
    /// The tests.
    pub(super) tests: Vec<Case>,
}

/// One test.
#[derive(Debug, Clone, Default)]
pub(super) struct Case {
    /// Its name.
    pub(super) name: String,
    /// Where it stands in the document, as a path.
    pub(super) path: String,
    /// Where it stands in the text.
    pub(super) span: Option<Span>,
    /// The target, where it is written.
    pub(super) target: Option<(String, Option<Span>)>,
    /// The time from one value of a series to the next; a pane where it is not written.
    pub(super) every: Option<Duration>,
    /// The replicas at the start.
    pub(super) replicas: Option<u32>,
    /// How long one takes from its start to being ready.
    pub(super) start_up: Duration,
    /// What each asks for.
    pub(super) requests: BTreeMap<String, Amount>,
    /// What is measured.
    pub(super) series: Vec<Series>,
    /// What happens besides.
    pub(super) events: Vec<Event>,
    /// What must be.
    pub(super) expect: Vec<Expectation>,
}

/// A series of values.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// The metric.
    pub(super) metric: String,
    /// The path of the series.
    pub(super) path: String,
    /// Where the metric's name stands.
    pub(super) metric_span: Option<Span>,
    /// Whose values they are.
    pub(super) of: Of,
    /// What the values mean, where it is written.
    pub(super) kind: Option<Kind>,
    /// The values, as written.
    pub(super) values: Node,
}

/// Whose values a series has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    /// The target's as a whole.
    Target,
    /// Every ready instance shows the value.
    Each,
    /// Every ready instance shows an even share of the value.
    Split,
    /// One instance's.
    Instance(String),
}

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// When.
    pub(super) at: Duration,
    /// Somebody sets the count.
    pub(super) replicas: Option<u32>,
    /// The policy is another one from now on: its file.
    pub(super) policy: Option<(String, Option<Span>)>,
}

/// What must be at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Expectation {
    /// When.
    pub(super) at: Duration,
    /// Its place.
    pub(super) span: Option<Span>,
    /// The places of its fields, by name.
    pub(super) places: BTreeMap<String, Span>,
    /// The count that is asked for.
    pub(super) replicas: Option<u32>,
    /// The replicas that are ready.
    pub(super) ready: Option<u32>,
    /// The count of the last decision.
    pub(super) desired: Option<u32>,
    /// Its verdict.
    pub(super) verdict: Option<Verdict>,
    /// Its binding step.
    pub(super) binding: Option<StepKind>,
    /// Why that step said so.
    pub(super) reason: Option<Reason>,
    /// Its metrics.
    pub(super) metrics: Vec<MetricExpectation>,
}

/// What must be of a metric.
#[derive(Debug, Clone)]
pub(super) struct MetricExpectation {
    /// Its name.
    pub(super) name: String,
    /// Its path.
    pub(super) path: String,
    /// Its place.
    pub(super) span: Option<Span>,
    /// What its value is worth.
    pub(super) status: Option<MetricStatus>,
    /// Its value, as written.
    pub(super) value: Option<Node>,
    /// The count that it asks for.
    pub(super) proposal: Option<u32>,
}

/// A document of this kind, as far as it can be read.
pub(super) struct Written {
    /// What could be read of it.
    pub(super) suite: Suite,
    /// Whether that is all of it. Series that double each other can be read.
    pub(super) is_whole: bool,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// Reads a document of this kind, of the file `file`.
pub(super) fn read(node: &Node, file: &str) -> Written {
    let mut report = Report::default();
    let suite = document(node, &mut report);
    let is_whole = report.problems.is_empty();
    report.problems.extend(suite.tests.iter().flat_map(|case| doubles::in_case(case, file)));
    Written { suite, is_whole, problems: placed(report.problems, node) }
}

/// Problems in the order of the text, each with a place and a path from the document's root.
pub(super) fn placed(mut problems: Vec<Problem>, node: &Node) -> Vec<Problem> {
    for problem in &mut problems {
        problem.path = problem.path.trim_start_matches('.').to_owned();
        problem.span = problem.span.or(node.span);
    }
    problems.sort_by_key(|p| p.span);
    problems
}

/// Every field of such a document: what this reader says of each while it reads one that has them all.
pub(in crate::cli) fn outline() -> Outline {
    const PROBE: &str = r#"{"spec":{"tests":[{"series":[{}],"events":[{}],"expect":[{"metrics":{"*":{}}}]}]}}"#;
    let mut report = Report::outlining();
    if let Ok(node) = Node::from_json(PROBE) {
        document(&node, &mut report);
        MEANINGS.iter().for_each(|(path, meaning)| report.meaning(|| format!(".{path}"), meaning));
    }
    report.into_outline()
}

fn document(node: &Node, report: &mut Report) -> Suite {
    let mut document = Fields::of(Some(node), String::new(), report, "begin with `apiVersion` and `kind`");
    for name in ["apiVersion", "kind", "spec"] {
        document.demand(name, report);
    }
    document.take("kind");
    report.shape(&document.at("kind"), Shape::Exactly(KIND));
    let version = document.read("apiVersion", Shape::Exactly(API_VERSION), report, |node| match node.as_text() {
        Some(API_VERSION) => Ok(()),
        _ => Err(Fault::new("api-version", format!("{} is not known", node.describe()), format!("write `apiVersion: {API_VERSION}`"))),
    });
    if version.is_none() && document.take("apiVersion").is_none() {
        report.error("", Fault::new("missing-field", "`apiVersion` is missing", format!("write `apiVersion: {API_VERSION}`")));
    }
    let mut metadata = document.map("metadata", report, "write `metadata: { name: bots }`");
    for name in ["name", "labels", "annotations"] {
        metadata.take(name);
    }
    metadata.finish(report, |_| None);
    if document.take("spec").is_none() {
        report.error("", Fault::new("missing-field", "`spec` is missing", "write `spec` with `policies` and `tests`"));
    }
    let mut spec = document.map("spec", report, "write `spec` with `policies` and `tests`");
    let mut suite = Suite::default();
    let files = Shape::ListOf(&Shape::Text);
    let policies = spec.required("policies", files, "name the file of the policy, as in `policies: [policy.yaml]`", report, |node| match &node.value {
        Value::List(items) if !items.is_empty() => items.iter().map(|item| text(item).map(|t| (t, item.span))).collect::<Result<Vec<_>, _>>(),
        _ => Err(Fault::wrong_type(node, "write a list of files, as in `[policy.yaml]`")),
    });
    suite.policies = policies.unwrap_or_default();
    suite.configuration = spec.read("configuration", Shape::Text, report, |node| text(node).map(|t| (t, node.span)));
    suite.pane = spec.read("pane", Shape::Duration, report, |node| match amounts::duration(node, MINUTE)? {
        pane if pane < Duration::from_millis(250) => Err(Fault::new("range", "a pane is shorter than 250ms", "write at least `250ms`")),
        pane => Ok(pane),
    });
    suite.tests = items(&mut spec, "tests", 1, "write `tests: [{ name: …, series: […], expect: […] }]`", report, |node, path, report| {
        Some(case(node, path, report))
    });
    spec.finish(report, |name| promtool(name, "tests"));
    document.finish(report, |name| promtool(name, "document"));
    // A report and `--run` know a test by its name.
    let mut names = BTreeMap::new();
    for case in suite.tests.iter().filter(|case| !case.name.is_empty()) {
        if let Some(first) = names.insert(case.name.as_str(), case.path.as_str()) {
            let message = format!("two tests are named {:?}, the other is {}", crate::model::document::shorten(&case.name), first.trim_start_matches('.'));
            report.error(&format!("{}.name", case.path), Fault::new("duplicate-name", message, "say what is different of this one"));
        }
    }
    suite
}

/// The fields of a test of Prometheus' rules, by their names here.
fn promtool(name: &str, at: &str) -> Option<Fault> {
    let own = match (name, at) {
        ("rule_files" | "tests", "document") => "spec: { policies: [policy.yaml], tests: […] }",
        ("evaluation_interval", "document") => "spec: { pane: 5s, … }",
        ("rule_files", "tests") => "policies: [policy.yaml]",
        ("evaluation_interval", "tests") => "pane: 5s",
        ("interval", "test") => "every: 15s",
        ("input_series", "test") => "series: [{ metric: queue_depth, values: 0+10x20 }]",
        ("promql_expr_test" | "alert_rule_test", "test") => "expect: [{ at: 2m, desired: 5 }]",
        ("eval_time", "expect") => "at: 2m",
        ("series", "series") => "metric: queue_depth",
        _ => return None,
    };
    Some(Fault::new("unknown-field", format!("unknown field `{name}`, as of promtool"), format!("write `{own}`")))
}

fn case(node: &Node, path: String, report: &mut Report) -> Case {
    let mut fields = Fields::of(Some(node), path.clone(), report, "write a test as in `{ name: …, series: […], expect: […] }`");
    let mut case = Case { path, span: node.span, ..Case::default() };
    case.name = fields.required("name", Shape::Text, "say what must hold, as in `name: follows the queue`", report, text).unwrap_or_default();
    case.target = fields.read("target", Shape::Text, report, |node| text(node).map(|t| (t, node.span)));
    case.every = fields.read("every", Shape::Duration, report, positive);
    let mut fleet = fields.map("fleet", report, "write `fleet: { replicas: 2, startUp: 30s }`");
    case.replicas = fleet.read("replicas", COUNT, report, count);
    case.start_up = fleet.read("startUp", Shape::Duration, report, |node| amounts::duration(node, DAY)).unwrap_or_default();
    let mut requests = fleet.map("requests", report, "write `requests: { cpu: 500m, memory: 64Mi }`");
    for (resource, unit) in [("cpu", Unit::Cores), ("memory", Unit::Bytes)] {
        let read = requests.read(resource, Shape::Amount, report, |node| amounts::amount(node, Some(unit)));
        case.requests.extend(read.map(|amount| (resource.to_owned(), amount)));
    }
    requests.finish(report, |_| None);
    fleet.finish(report, |_| None);
    case.series = items(&mut fields, "series", 0, "write `series: [{ metric: queue_depth, values: 100x20 }]`", report, series);
    case.events = items(&mut fields, "events", 0, "write `events: [{ at: 2m, replicas: 5 }]`", report, event);
    case.expect = items(&mut fields, "expect", 1, "write `expect: [{ at: 2m, desired: 5 }]`", report, expectation);
    fields.finish(report, |name| promtool(name, "test"));
    case
}

fn series(node: &Node, path: String, report: &mut Report) -> Option<Series> {
    const VALUES: &str = "write `values`, as in `values: 100x10 100+20x5 _ 0`";
    let mut fields = Fields::of(Some(node), path.clone(), report, "write a series as in `{ metric: queue_depth, values: 100x20 }`");
    let metric = fields.required("metric", Shape::Name, "name the metric, as in `metric: queue_depth`", report, |node| text(node).map(|t| (t, node.span)));
    let of = fields.word::<OfWord>("of", report);
    let instance = fields.read("instance", Shape::Name, report, text);
    report.not_both(fields.path(), &["of", "instance"]);
    if let (Some(_), Some(_)) = (of, &instance) {
        report.error(&fields.at("instance"), Fault::new("contradiction", "`of` and `instance` both say whose values they are", "keep one of the two"));
    }
    let kind = fields.word::<Kind>("kind", report);
    fields.demand("values", report);
    report.shape(&fields.at("values"), Shape::Either(&[Shape::Text, Shape::Number]));
    let values = fields.take("values").filter(|node| matches!(node.value, Value::Text(_) | Value::Number(_))).cloned();
    if values.is_none() {
        let fault = match fields.take("values") {
            None => Fault::new("missing-field", "`values` is missing", VALUES),
            Some(node) => Fault::wrong_type(node, VALUES),
        };
        report.error(fields.path(), fault);
    }
    fields.finish(report, |name| promtool(name, "series"));
    let of = match (of, instance) {
        (_, Some(instance)) => Of::Instance(instance),
        (Some(OfWord::Each), _) => Of::Each,
        (Some(OfWord::Split), _) => Of::Split,
        _ => Of::Target,
    };
    let (metric, metric_span) = metric?;
    Some(Series { metric, path, metric_span, of, kind, values: values? })
}

fn event(node: &Node, path: String, report: &mut Report) -> Option<Event> {
    let mut fields = Fields::of(Some(node), path, report, "write an event as in `{ at: 2m, replicas: 5 }`");
    let at = fields.required("at", Shape::Duration, "say when, as in `at: 2m`", report, |node| amounts::duration(node, DAY));
    let replicas = fields.read("replicas", COUNT, report, count);
    let policy = fields.read("policy", Shape::Text, report, |node| text(node).map(|t| (t, node.span)));
    report.one_of(fields.path(), &["replicas", "policy"]);
    if replicas.is_some() == policy.is_some() && !fields.has_unknown() {
        report.error(fields.path(), Fault::new("contradiction", "an event is one of `replicas` and `policy`", "write `replicas: 5`, or `policy: other.yaml`"));
    }
    fields.finish(report, |_| None);
    Some(Event { at: at?, replicas, policy })
}

fn expectation(node: &Node, path: String, report: &mut Report) -> Option<Expectation> {
    let mut fields = Fields::of(Some(node), path, report, "write what must be as in `{ at: 2m, desired: 5 }`");
    let mut expected = Expectation { span: node.span, ..Expectation::default() };
    if let Value::Map(entries) = &node.value {
        let place = |e: &crate::model::document::Entry| Some((e.key.clone(), e.value.span.or(e.key_span)?));
        expected.places = entries.iter().filter_map(place).collect();
    }
    let at = fields.required("at", Shape::Duration, "say when, as in `at: 2m`", report, |node| amounts::duration(node, DAY));
    expected.replicas = fields.read("replicas", COUNT, report, count);
    expected.ready = fields.read("ready", COUNT, report, count);
    expected.desired = fields.read("desired", COUNT, report, count);
    expected.verdict = fields.word::<Verdict>("verdict", report);
    expected.binding = fields.word::<StepKind>("binding", report);
    expected.reason = fields.word::<Reason>("reason", report);
    report.shape(&fields.at("metrics"), Shape::MapOf(&Shape::Any));
    match fields.take("metrics").map(|node| (&node.value, node)) {
        Some((Value::Map(entries), _)) => {
            for entry in entries {
                let metric = metric(&entry.key, &entry.value, format!("{}.{}", fields.at("metrics"), entry.key), report);
                expected.metrics.extend(metric.map(|metric| MetricExpectation { span: entry.key_span.or(metric.span), ..metric }));
            }
        }
        Some((_, node)) => report.error(&fields.at("metrics"), Fault::wrong_type(node, "write `metrics: { queue_depth: { status: Ok } }`")),
        None => {}
    }
    let says = expected.replicas.is_some() || expected.ready.is_some() || expected.desired.is_some() || expected.verdict.is_some();
    let says = says || expected.binding.is_some() || expected.reason.is_some() || !expected.metrics.is_empty();
    if !says && matches!(node.value, Value::Map(_)) && !fields.has_unknown() && report.problems.is_empty() {
        report.error(fields.path(), Fault::new("empty", "nothing is expected", "write `desired: 5`, `binding: RateLimit` or `metrics: { … }`"));
    }
    fields.finish(report, |name| promtool(name, "expect"));
    expected.at = at?;
    Some(expected)
}

fn metric(name: &str, node: &Node, path: String, report: &mut Report) -> Option<MetricExpectation> {
    let mut fields = Fields::of(Some(node), path.clone(), report, "write `{ status: Ok, proposal: 5 }`");
    let status = fields.word::<MetricStatus>("status", report);
    let value = fields.read("value", Shape::Amount, report, |node| {
        // In which unit is known once the policy is.
        let mut faults = UNITS.iter().map(|unit| amounts::amount(node, Some(*unit)).err()).collect::<Vec<_>>();
        if faults.iter().any(Option::is_none) {
            Ok(node.clone())
        } else {
            Err(faults.swap_remove(0).unwrap_or_else(|| Fault::wrong_type(node, "write an amount")))
        }
    });
    let proposal = fields.read("proposal", COUNT, report, count);
    fields.finish(report, |_| None);
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        let message = format!("nothing is expected of `{}`", crate::model::document::shorten(name));
        report.error(&path, Fault::new("empty", message, "write `{ status: Ok }`, `{ proposal: 5 }` or `{ value: … }`"));
    }
    matches!(node.value, Value::Map(_)).then(|| MetricExpectation { name: name.to_owned(), path, span: node.span, status, value, proposal })
}

/// The units of amounts.
const UNITS: [Unit; 5] = [Unit::Count, Unit::Seconds, Unit::Bytes, Unit::Cores, Unit::Ratio];

const COUNT: Shape = Shape::Whole(0, MOST_REPLICAS);

fn count(node: &Node) -> Result<u32, Fault> {
    whole(node, 0, MOST_REPLICAS).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn positive(node: &Node) -> Result<Duration, Fault> {
    match amounts::duration(node, DAY)? {
        Duration::ZERO => Err(Fault::new("range", "0 is no interval", "write a duration, as in `15s`")),
        time => Ok(time),
    }
}

fn text(node: &Node) -> Result<String, Fault> {
    match node.as_text() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(Fault::wrong_type(node, "write a text, in quotes if it looks like a number")),
    }
}

/// The field `name` as a list of maps.
fn items<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    least: usize,
    mend: &str,
    report: &mut Report,
    read: impl Fn(&Node, String, &mut Report) -> Option<T>,
) -> Vec<T> {
    let path = fields.at(name);
    report.shape(&path, Shape::Items(least, MOST));
    if least > 0 {
        fields.demand(name, report);
    }
    let items = match fields.take(name).map(|node| (node, &node.value)) {
        None if least == 0 => return Vec::new(),
        None => {
            report.error(fields.path(), Fault::new("missing-field", format!("`{name}` is missing"), mend));
            return Vec::new();
        }
        Some((_, Value::List(items))) if items.len() > MOST => {
            report.error(&path, Fault::new("limit", format!("{} are more than {MOST}", items.len()), "split the file"));
            return Vec::new();
        }
        Some((_, Value::List(items))) if items.len() >= least => items,
        Some((_, Value::List(_))) => {
            report.error(&path, Fault::new("empty", format!("`{name}` is empty"), mend));
            return Vec::new();
        }
        Some((node, _)) => {
            report.error(&path, Fault::new("type", format!("`{name}` must be a list, it is {}", node.describe()), mend));
            return Vec::new();
        }
    };
    let read_one = |(i, item): (usize, &Node)| {
        let path = format!("{path}[{i}]");
        report.locate(|| path.clone(), item);
        read(item, path, report)
    };
    items.iter().enumerate().filter_map(read_one).collect()
}
