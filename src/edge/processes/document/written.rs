//! From the tree that a person wrote to the types that cannot be wrong: every problem at once, with its place.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{API_VERSION, Endpoints, FleetDocument, FleetSpec, Health, KIND, MAX_REPLICAS, Output, Probe, Restart};
use crate::model::document::amounts::{self, Fault, show_duration};
use crate::model::document::fields::{Fields, Report, whole};
use crate::model::document::shape::{Outline, Shape};
use crate::model::document::{Node, Problem, Value, shorten};
use crate::model::policy::Unit;
use crate::model::{Amount, LOCAL_NAMESPACE, TargetId};

/// The finest interval of measuring; below it the kernel's ticks of 10 ms would be most of a value.
const MIN_MEASURE: Duration = Duration::from_millis(250);
/// The longest of any wait: within a day a person has looked.
const DAY: Duration = Duration::from_secs(86_400);
/// The fields of metadata that an object may have besides its name.
const METADATA: [&str; 2] = ["labels", "annotations"];
/// A name, where a number stands for itself.
const NAME: Shape = Shape::Plain;
/// A port.
const PORT: Shape = Shape::Whole(1, 65_535);

/// What each field means, for those who write.
const MEANINGS: [(&str, &str); 32] = [
    ("apiVersion", "the version of this kind of document"),
    ("kind", "ProcessFleet: copies of a command, which Loadline runs"),
    ("status", "what a server adds; not read"),
    ("metadata.namespace", "the namespace of the target; local where none is written"),
    ("metadata.name", "the name of the target, local/ProcessFleet/NAME"),
    ("metadata.labels", "yours; not read"),
    ("metadata.annotations", "yours; not read"),
    ("spec.command", "the program; looked up in PATH where it has no slash"),
    ("spec.args", "its arguments; {port} and {instance} are replaced"),
    ("spec.env", "variables that it gets besides Loadline's own; {port} and {instance} are replaced"),
    ("spec.workingDirectory", "where it runs; where Loadline runs, when absent"),
    ("spec.ports", "the ports that instances get one each of, as in \"9000-9099\""),
    ("spec.replicas", "how many there are when the fleet is first seen; never looked at again"),
    ("spec.requests.cpu", "the cores that one needs; 100% of its utilization"),
    ("spec.requests.memory", "the bytes that one needs; 100% of its utilization"),
    ("spec.health.http.path", "a GET of this path is answered by a status of 200 to 399"),
    ("spec.health.http.port", "the port that is asked, where it is not the instance's own"),
    ("spec.health.tcp.port", "the port that is asked, where it is not the instance's own"),
    ("spec.health.period", "from one probe's start to the next; 1s where none is written"),
    ("spec.health.timeout", "how long an answer may take; 1s where none is written"),
    ("spec.health.failures", "so many failures in a row make a ready instance unready; 3 where none is written"),
    ("spec.startup.timeout", "how long one may take until it is first healthy; then it is restarted; 60s where none is written"),
    ("spec.drain.grace", "how long one may take to end after SIGTERM; then it gets SIGKILL; 30s where none is written"),
    ("spec.measure.every", "how often cpu and memory are measured; 1s where none is written"),
    ("spec.restart.initial", "the wait before one that ended is started again; it doubles with each end; 1s where none is written"),
    ("spec.restart.max", "the longest such wait; 1m where none is written"),
    ("spec.restart.resetAfter", "one that ran so long starts again at `initial`; 1m where none is written"),
    ("spec.endpoints.file", "the file in Prometheus' file_sd format that lists those that can serve"),
    ("spec.endpoints.labels", "labels of the group in that file"),
    ("spec.hook", "a command that runs after each change of the endpoints, with the file's path in LOADLINE_ENDPOINTS"),
    ("spec.output.maxBytes", "the size at which an instance's output is rotated; 10Mi where none is written"),
    ("spec.output.files", "how many rotated files are kept; 2 where none is written"),
];

/// Every field of such a document: what this reader says of each while it reads documents that have them all.
pub(super) fn outline() -> Outline {
    let mut outline = Outline::default();
    for probe in [r#"{"spec":{"health":{"http":{}},"endpoints":{}}}"#, r#"{"spec":{"health":{"tcp":{}},"endpoints":{}}}"#] {
        let mut report = Report::outlining();
        if let Ok(node) = Node::from_json(probe) {
            document(&node, &mut report);
            MEANINGS.iter().for_each(|(path, meaning)| report.meaning(|| format!(".{path}"), meaning));
        }
        outline.merge(report.into_outline());
    }
    outline
}

/// Reads a document of this kind. There is a fleet only where nothing is wrong.
pub(super) fn read(node: &Node) -> (Option<FleetDocument>, Vec<Problem>) {
    let mut report = Report::default();
    let (target, spec) = document(node, &mut report);
    // A path begins without a dot where the map around it is the document.
    let mut problems = report.problems;
    for problem in &mut problems {
        problem.path = problem.path.trim_start_matches('.').to_owned();
        problem.span = problem.span.or(node.span);
    }
    problems.sort_by_key(|p| p.span);
    let fleet = target.zip(spec).filter(|_| problems.is_empty()).map(|(target, spec)| FleetDocument { target, spec });
    (fleet, problems)
}

fn document(node: &Node, report: &mut Report) -> (Option<TargetId>, Option<FleetSpec>) {
    let mut document = Fields::of(Some(node), String::new(), report, "begin with `apiVersion` and `kind`");
    for name in ["apiVersion", "kind", "metadata", "spec"] {
        document.demand(name, report);
    }
    document.take("kind");
    report.shape(&document.at("kind"), Shape::Exactly(KIND));
    document.take("status");
    let version = document.read("apiVersion", Shape::Exactly(API_VERSION), report, |node| match node.as_text() {
        Some(API_VERSION) => Ok(()),
        _ => Err(Fault::new("api-version", format!("{} is not known", node.describe()), format!("write `apiVersion: {API_VERSION}`"))),
    });
    if version.is_none() && document.take("apiVersion").is_none() {
        report.error("", Fault::new("missing-field", "`apiVersion` is missing", format!("write `apiVersion: {API_VERSION}`")));
    }
    let mut metadata = document.map("metadata", report, "write `metadata: { namespace: local, name: bots }`");
    for name in METADATA {
        metadata.take(name);
    }
    let namespace = metadata.read("namespace", NAME, report, path_name).unwrap_or_else(|| LOCAL_NAMESPACE.to_owned());
    let name = metadata.required("name", NAME, "write `metadata: { name: bots }` with your name", report, path_name);
    metadata.finish(report, |_| None);
    let spec = spec(document.map("spec", report, "write `spec` with `command` and `replicas`"), report);
    document.finish(report, |_| None);
    (name.and_then(|name| TargetId::new(&namespace, KIND, &name).ok()), spec)
}

fn spec(mut spec: Fields<'_>, report: &mut Report) -> Option<FleetSpec> {
    let command = spec.required("command", Shape::Plain, "name the program to run, as in `command: ./server`", report, |node| {
        let text = text(node)?;
        if text.trim().is_empty() { Err(Fault::new("empty", "is empty", "name the program to run")) } else { Ok(text) }
    });
    let args = spec.read("args", Shape::ListOf(&Shape::Plain), report, texts).unwrap_or_default();
    let env = spec.read("env", Shape::MapOf(&Shape::Plain), report, environment).unwrap_or_default();
    let working_directory = spec.read("workingDirectory", Shape::Plain, report, text).map(PathBuf::from);
    let ports = spec.read("ports", Shape::Either(&[Shape::Pattern(r"^\s*[0-9]+\s*(-\s*[0-9]+\s*)?$", "9000-9099"), Shape::Whole(1, 65_535)]), report, ports);
    let has_ports = spec.take("ports").is_some();
    let replicas = spec.required("replicas", Shape::Whole(0, i64::from(MAX_REPLICAS)), "say how many there are when the fleet is first seen", report, |node| {
        count(node, 0, MAX_REPLICAS)
    });
    if let (Some(range), Some(replicas)) = (&ports, replicas) {
        let count = u32::from(*range.end() - *range.start()) + 1;
        if count < replicas {
            report.error(&spec.at("ports"), Fault::new("range", format!("{count} ports for {replicas} replicas"), "widen the range"));
        }
    }
    let requests = requests(spec.map("requests", report, "write `requests: { cpu: 500m, memory: 64Mi }`"), report);
    let health = match spec.take("health") {
        Some(_) => health(spec.map("health", report, "write `health: { http: { path: /healthz } }`"), has_ports, report),
        None => None,
    };
    let mut one = |map: &'static str, field: &'static str, default: Duration, example: &str, report: &mut Report| {
        let mut fields = spec.map(map, report, example);
        let read = fields.read(field, Shape::Duration, report, |node| amounts::duration(node, DAY)).unwrap_or(default);
        let path = fields.at(field);
        fields.finish(report, |_| None);
        (read, path)
    };
    let (startup_timeout, _) = one("startup", "timeout", Duration::from_secs(60), "write `startup: { timeout: 60s }`", report);
    let (drain_grace, _) = one("drain", "grace", Duration::from_secs(30), "write `drain: { grace: 30s }`", report);
    let (measure_every, path) = one("measure", "every", Duration::from_secs(1), "write `measure: { every: 1s }`", report);
    if measure_every < MIN_MEASURE {
        let fault = Fault::new("range", format!("{} is too often", show_duration(measure_every)), format!("the finest is {}", show_duration(MIN_MEASURE)));
        report.error(&path, fault);
    }
    let restart = restart(spec.map("restart", report, "write `restart: { initial: 1s, max: 1m }`"), report);
    let endpoints = match spec.take("endpoints") {
        Some(_) => endpoints(spec.map("endpoints", report, "write `endpoints: { file: run/bots.json }`"), report),
        None => None,
    };
    if spec.take("endpoints").is_some() && !has_ports {
        report.error(&spec.at("endpoints"), Fault::new("missing-field", "it lists ports, and there are none", "add `ports`, as in \"9000-9099\""));
    }
    let hook = spec.read("hook", Shape::ListOf(&Shape::Plain), report, texts).unwrap_or_default();
    if !hook.is_empty() && spec.take("endpoints").is_none() {
        report.error(&spec.at("hook"), Fault::new("missing-field", "it runs when the endpoints change, and there are none", "add `endpoints: { file: … }`"));
    }
    let output = output(spec.map("output", report, "write `output: { maxBytes: 10Mi, files: 2 }`"), report);
    spec.finish(report, |_| None);
    Some(FleetSpec {
        command: command?,
        args,
        env,
        working_directory,
        ports,
        replicas: replicas?,
        requests,
        health,
        startup_timeout,
        drain_grace,
        restart,
        endpoints,
        hook,
        output,
        measure_every,
    })
}

fn requests(mut fields: Fields<'_>, report: &mut Report) -> BTreeMap<String, Amount> {
    let mut requests = BTreeMap::new();
    for (resource, unit) in [("cpu", Unit::Cores), ("memory", Unit::Bytes)] {
        let read = fields.read(resource, Shape::Amount, report, |node| match amounts::amount(node, Some(unit))? {
            amount if amount <= Amount::ZERO => Err(Fault::new("range", format!("{amount} is nothing"), "leave it out, or say what an instance needs")),
            amount => Ok(amount),
        });
        requests.extend(read.map(|amount| (resource.to_owned(), amount)));
    }
    fields.finish(report, |_| None);
    requests
}

fn health(mut fields: Fields<'_>, has_ports: bool, report: &mut Report) -> Option<Health> {
    let own_path = fields.path().to_owned();
    report.one_of(&own_path, &["http", "tcp"]);
    let (http, tcp) = (fields.take("http").is_some(), fields.take("tcp").is_some());
    let mut port = None;
    let mut probe = None;
    if http == tcp {
        report.error(&own_path, Fault::new("missing-field", "it needs one of `http` and `tcp`", "write `http: { path: /healthz }`"));
    } else if http {
        let mut http = fields.map("http", report, "write `http: { path: /healthz }`");
        let path = http.required("path", Shape::Plain, "write `path: /healthz`", report, |node| {
            let path = text(node)?;
            if path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Ok(path);
            }
            Err(Fault::new("path", format!("{:?} is no path", shorten(&path)), "it begins with a slash and has no white space, as in /healthz"))
        });
        probe = path.map(|path| Probe::Http { path });
        port = http.read("port", PORT, report, one_port);
        http.finish(report, |_| None);
    } else {
        let mut tcp = fields.map("tcp", report, "write `tcp: {}`");
        probe = Some(Probe::Tcp);
        port = tcp.read("port", PORT, report, one_port);
        tcp.finish(report, |_| None);
    }
    if http != tcp && port.is_none() && !has_ports {
        report.error(&own_path, Fault::new("missing-field", "it asks a port, and there is none", "add `ports`, as in \"9000-9099\""));
    }
    let mut at_least = |name: &'static str, least: Duration, report: &mut Report| {
        let read = fields.read(name, Shape::Duration, report, |node| match amounts::duration(node, DAY)? {
            duration if duration < least => {
                Err(Fault::new("range", format!("{} is too short", show_duration(duration)), format!("write at least {}", show_duration(least))))
            }
            duration => Ok(duration),
        });
        read.unwrap_or(Duration::from_secs(1))
    };
    let period = at_least("period", Duration::from_millis(50), report);
    let timeout = at_least("timeout", Duration::from_millis(1), report);
    let failures = fields.read("failures", Shape::Whole(1, 1_000), report, |node| count(node, 1, 1_000)).unwrap_or(3);
    fields.finish(report, |_| None);
    Some(Health { probe: probe?, port, period, timeout, failures })
}

fn restart(mut fields: Fields<'_>, report: &mut Report) -> Restart {
    let mut read = |name: &'static str, default: u64, report: &mut Report| {
        fields.read(name, Shape::Duration, report, |node| amounts::duration(node, DAY)).unwrap_or(Duration::from_secs(default))
    };
    let restart = Restart { initial: read("initial", 1, report), max: read("max", 60, report), reset_after: read("resetAfter", 60, report) };
    if restart.initial.is_zero() || restart.max < restart.initial {
        let message = format!("`initial` is {} and `max` is {}", show_duration(restart.initial), show_duration(restart.max));
        report.error(fields.path(), Fault::new("range", message, "`initial` is more than 0 and at most `max`"));
    }
    fields.finish(report, |_| None);
    restart
}

fn endpoints(mut fields: Fields<'_>, report: &mut Report) -> Option<Endpoints> {
    let file = fields.required("file", Shape::Plain, "name the file, as in `file: run/bots.json`", report, text);
    let labels = fields.read("labels", Shape::MapOf(&Shape::Plain), report, texts_by_name).unwrap_or_default();
    fields.finish(report, |_| None);
    Some(Endpoints { file: PathBuf::from(file?), labels })
}

fn output(mut fields: Fields<'_>, report: &mut Report) -> Output {
    let max_bytes = fields.read("maxBytes", Shape::Amount, report, |node| {
        let bytes = amounts::amount(node, Some(Unit::Bytes))?;
        let whole = u64::try_from(bytes.as_nanos() / 1_000_000_000).ok().filter(|bytes| *bytes >= 1024);
        whole.ok_or_else(|| Fault::new("range", format!("{bytes} is too little"), "write at least 1Ki"))
    });
    let files = fields.read("files", Shape::Whole(0, 100), report, |node| count(node, 0, 100)).unwrap_or(2);
    fields.finish(report, |_| None);
    Output { max_bytes: max_bytes.unwrap_or(10 << 20), files }
}

/// A text; a number or a word that YAML takes for something else stands for itself.
fn text(node: &Node) -> Result<String, Fault> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => Err(Fault::wrong_type(node, "write a text")),
    }
}

fn texts(node: &Node) -> Result<Vec<String>, Fault> {
    match &node.value {
        Value::List(items) => items.iter().map(text).collect(),
        _ => Err(Fault::wrong_type(node, "write a list, as in [one, two]")),
    }
}

fn texts_by_name(node: &Node) -> Result<BTreeMap<String, String>, Fault> {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|e| Ok((e.key.clone(), text(&e.value)?))).collect(),
        _ => Err(Fault::wrong_type(node, "write a map, as in { NAME: value }")),
    }
}

fn environment(node: &Node) -> Result<BTreeMap<String, String>, Fault> {
    let variables = texts_by_name(node)?;
    match variables.keys().find(|name| name.is_empty() || name.contains(['=', '\0']) || name.starts_with("LOADLINE_")) {
        None => Ok(variables),
        Some(name) => {
            let mend = "a name is not empty, has no \"=\", and does not begin with LOADLINE_, which is Loadline's own";
            Err(Fault::new("name", format!("{:?} is no name for a variable", shorten(name)), mend))
        }
    }
}

fn count(node: &Node, least: u32, most: u32) -> Result<u32, Fault> {
    whole(node, i64::from(least), i64::from(most)).map(|n| u32::try_from(n).unwrap_or(most))
}

fn one_port(node: &Node) -> Result<u16, Fault> {
    whole(node, 1, i64::from(u16::MAX)).map(|port| u16::try_from(port).unwrap_or(u16::MAX))
}

/// Reads `9000-9099`, or one port.
fn ports(node: &Node) -> Result<RangeInclusive<u16>, Fault> {
    let text = text(node)?;
    let (from, to) = text.split_once('-').unwrap_or((&text, &text));
    match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
        (Ok(from), Ok(to)) if from > 0 && from <= to => Ok(from..=to),
        _ => {
            let mend = "write a range of 1 to 65535, the smaller first, as in \"9000-9099\"";
            Err(Fault::new("range", format!("{:?} is no range of ports", shorten(&text)), mend))
        }
    }
}

/// Whether a name can be that of a directory.
pub(in crate::edge::processes) fn is_path_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && !name.starts_with(['.', '-', '_']) && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn path_name(node: &Node) -> Result<String, Fault> {
    let name = text(node)?;
    if is_path_name(&name) {
        return Ok(name);
    }
    let mend = "write 1 to 100 letters, digits, \".\", \"_\" or \"-\", a letter or digit first";
    Err(Fault::new("name", format!("{:?} cannot be a name here", shorten(&name)), mend))
}
