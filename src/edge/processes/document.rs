//! The document of a `ProcessFleet`: what a person writes, as types that cannot be wrong.
//!
//! A file may hold several YAML documents and other kinds among them; those are left to others.
//! Relative paths in a document are taken from the directory in which Loadline runs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units::{Quantity, Span};
use crate::model::{Amount, TargetId};

/// The kind of these documents, and of their targets.
pub const KIND: &str = "ProcessFleet";

/// The version of these documents.
pub const API_VERSION: &str = "loadline.dev/v1alpha1";

/// The most instances that one fleet may have. An observation carries all of them in one record of
/// at most 512 kB, at about 200 bytes each; a single machine runs fewer processes than this.
pub const MAX_REPLICAS: u32 = 1000;

/// The finest interval of measuring; below it the kernel's ticks of 10 ms would be most of a value.
const MIN_MEASURE: Duration = Duration::from_millis(250);

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}:{line}:{column}: {reason}")]
pub struct DocumentError {
    /// The file's name.
    pub origin: String,
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// What is wrong and how to mend it.
    pub reason: String,
}

/// One fleet of processes, as its document describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetDocument {
    /// The target that it is.
    pub target: TargetId,
    /// What its instances are.
    pub spec: FleetSpec,
}

/// What the instances of a fleet are, and how they are cared for.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetSpec {
    /// The program; looked up in `PATH` where it has no slash.
    pub command: String,
    /// Its arguments; `{port}` and `{instance}` are replaced.
    pub args: Vec<String>,
    /// Variables that it gets besides Loadline's own; `{port}` and `{instance}` are replaced.
    pub env: BTreeMap<String, String>,
    /// Where it runs; where Loadline runs, when absent.
    pub working_directory: Option<PathBuf>,
    /// The ports that instances get one each of.
    pub ports: Option<RangeInclusive<u16>>,
    /// How many there are when the fleet is first seen; never looked at again.
    pub replicas: u32,
    /// What each asks for, by resource, in base units (`cpu` in cores, `memory` in bytes).
    pub requests: BTreeMap<String, Amount>,
    /// How to see that one can serve; without it one can as soon as it runs.
    pub health: Option<Health>,
    /// How long one may take until it is first healthy; then it is restarted.
    pub startup_timeout: Duration,
    /// How long one may take to end after SIGTERM; then it gets SIGKILL.
    pub drain_grace: Duration,
    /// When one that ended is started again.
    pub restart: Restart,
    /// The file in Prometheus `file_sd` format that lists those that can serve.
    pub endpoints: Option<Endpoints>,
    /// A command that runs after each change of the endpoints, with the file's path in `LOADLINE_ENDPOINTS`.
    pub hook: Vec<String>,
    /// How much output is kept of each.
    pub output: Output,
    /// How often cpu and memory are measured.
    pub measure_every: Duration,
}

/// How to see that an instance can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked, where it is not the instance's own.
    pub port: Option<u16>,
    /// From one probe's start to the next.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many failures in a row make a ready instance unready.
    pub failures: u32,
}

/// What a probe asks of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET of this path is answered by a status of 200 to 399.
    Http {
        /// The path, with its leading slash.
        path: String,
    },
    /// A connection is accepted.
    Tcp,
}

/// When an instance that ended is started again: after `initial`, doubled with each end, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// One that ran this long starts again at `initial`.
    pub reset_after: Duration,
}

/// Where the instances that can serve are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The file, replaced atomically.
    pub file: PathBuf,
    /// Labels of the group.
    pub labels: BTreeMap<String, String>,
}

/// How much output is kept of each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The size at which the file is rotated.
    pub max_bytes: u64,
    /// How many rotated files are kept.
    pub files: u32,
}

/// The `ProcessFleet`s in the text of a file named `origin`; other kinds are passed over.
///
/// # Errors
/// [`DocumentError`] for the first document that cannot be used.
pub fn parse_documents(origin: &str, text: &str) -> Result<Vec<FleetDocument>, DocumentError> {
    let mut documents = Vec::new();
    for (first_line, body) in split(text) {
        let place = |error: &serde_saphyr::Error| {
            let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
            let reason = error.without_snippet().to_string();
            DocumentError { origin: origin.to_owned(), line: first_line + line - 1, column, reason: first_sentence(&reason) }
        };
        if body.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let head: Head = serde_saphyr::from_str(&body).map_err(|e| place(&e))?;
        if head.kind != KIND {
            continue;
        }
        let here = |reason: String| DocumentError { origin: origin.to_owned(), line: first_line, column: 1, reason };
        if head.api_version != API_VERSION {
            return Err(here(format!("apiVersion \"{}\" of a {KIND} is not known; write {API_VERSION}", head.api_version)));
        }
        let written: Written = serde_saphyr::from_str(&body).map_err(|e| place(&e))?;
        documents.push(written.check().map_err(here)?);
    }
    Ok(documents)
}

/// The YAML documents of a file, each with its first line (from 1).
fn split(text: &str) -> Vec<(u64, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in (2..).zip(text.lines()) {
        if line == "---" || line.starts_with("--- ") {
            documents.push((number, String::new()));
        } else if let Some((_, body)) = documents.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    documents
}

/// The parser's message without its own account of the place.
fn first_sentence(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or(reason);
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

/// What every document begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default)]
    namespace: Option<String>,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    working_directory: Option<PathBuf>,
    ports: Option<String>,
    replicas: u32,
    #[serde(default)]
    requests: Requests,
    health: Option<WrittenHealth>,
    startup: Option<Startup>,
    drain: Option<Drain>,
    #[serde(default)]
    restart: WrittenRestart,
    endpoints: Option<WrittenEndpoints>,
    #[serde(default)]
    hook: Vec<String>,
    #[serde(default)]
    output: WrittenOutput,
    measure: Option<Measure>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Requests {
    cpu: Option<Quantity>,
    memory: Option<Quantity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHealth {
    http: Option<Http>,
    tcp: Option<Tcp>,
    period: Option<Span>,
    timeout: Option<Span>,
    failures: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    path: String,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tcp {
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Startup {
    timeout: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    grace: Span,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRestart {
    initial: Option<Span>,
    max: Option<Span>,
    reset_after: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEndpoints {
    file: PathBuf,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenOutput {
    max_bytes: Option<Quantity>,
    files: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measure {
    every: Span,
}

impl Written {
    fn check(self) -> Result<FleetDocument, String> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or("local");
        check_path_name("metadata.namespace", namespace)?;
        check_path_name("metadata.name", &self.metadata.name)?;
        let target = TargetId::new(namespace, KIND, &self.metadata.name).map_err(|e| e.to_string())?;
        Ok(FleetDocument { target, spec: self.spec.check()? })
    }
}

impl Spec {
    fn check(self) -> Result<FleetSpec, String> {
        if self.command.trim().is_empty() {
            return Err("spec.command is empty; name the program to run".to_owned());
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0']) || name.starts_with("LOADLINE_")) {
            return Err(format!("spec.env has \"{name}\"; a name must not be empty, have \"=\", or begin with LOADLINE_, which is Loadline's own"));
        }
        if self.replicas > MAX_REPLICAS {
            return Err(format!("spec.replicas is {}; a {KIND} has at most {MAX_REPLICAS}", self.replicas));
        }
        let ports = self.ports.as_deref().map(parse_ports).transpose()?;
        if let Some(range) = &ports {
            let count = u32::from(*range.end() - *range.start()) + 1;
            if count < self.replicas {
                return Err(format!("spec.ports has {count} ports for {} replicas; widen the range", self.replicas));
            }
        }
        let health = self.health.map(|health| health.check(ports.is_some())).transpose()?;
        let endpoints = self.endpoints.map(|e| Endpoints { file: e.file, labels: e.labels });
        if endpoints.is_some() && ports.is_none() {
            return Err("spec.endpoints lists ports, and there is no spec.ports; add a range, as in \"9000-9099\"".to_owned());
        }
        if !self.hook.is_empty() && endpoints.is_none() {
            return Err("spec.hook runs when the endpoints change, and there is no spec.endpoints; add spec.endpoints.file".to_owned());
        }
        let measure_every = self.measure.map_or(Duration::from_secs(1), |m| m.every.0);
        if measure_every < MIN_MEASURE {
            return Err(format!("spec.measure.every is {} ms; the finest is {} ms", measure_every.as_millis(), MIN_MEASURE.as_millis()));
        }
        let requests = [("cpu", self.requests.cpu), ("memory", self.requests.memory)]
            .into_iter()
            .filter_map(|(resource, amount)| amount.map(|Quantity(amount)| (resource.to_owned(), amount)))
            .collect::<BTreeMap<_, _>>();
        if let Some((resource, _)) = requests.iter().find(|(_, amount)| **amount == Amount::ZERO) {
            return Err(format!("spec.requests.{resource} is 0; leave it out, or say what an instance needs"));
        }
        Ok(FleetSpec {
            command: self.command,
            args: self.args,
            env: self.env,
            working_directory: self.working_directory,
            ports,
            replicas: self.replicas,
            requests,
            health,
            startup_timeout: self.startup.map_or(Duration::from_secs(60), |s| s.timeout.0),
            drain_grace: self.drain.map_or(Duration::from_secs(30), |d| d.grace.0),
            restart: self.restart.check()?,
            endpoints,
            hook: self.hook,
            output: self.output.check()?,
            measure_every,
        })
    }
}

impl WrittenHealth {
    fn check(self, has_ports: bool) -> Result<Health, String> {
        let (probe, port) = match (self.http, self.tcp) {
            (Some(http), None) => {
                if !http.path.starts_with('/') || http.path.contains(|c: char| c.is_whitespace() || c.is_control()) {
                    return Err(format!("spec.health.http.path is {:?}; it begins with a slash and has no white space, as in /healthz", http.path));
                }
                (Probe::Http { path: http.path }, http.port)
            }
            (None, Some(tcp)) => (Probe::Tcp, tcp.port),
            _ => return Err("spec.health needs one of http and tcp, as in http: { path: /healthz }".to_owned()),
        };
        if port.is_none() && !has_ports {
            return Err("spec.health asks a port, and there is none; add spec.ports, as in \"9000-9099\"".to_owned());
        }
        let period = self.period.map_or(Duration::from_secs(1), |s| s.0);
        let timeout = self.timeout.map_or(Duration::from_secs(1), |s| s.0);
        if period < Duration::from_millis(50) || timeout < Duration::from_millis(1) {
            return Err("spec.health.period is at least 50ms and spec.health.timeout at least 1ms".to_owned());
        }
        let failures = self.failures.unwrap_or(3);
        if failures == 0 {
            return Err("spec.health.failures is 0; at least one failure makes an instance unready".to_owned());
        }
        Ok(Health { probe, port, period, timeout, failures })
    }
}

impl WrittenRestart {
    fn check(self) -> Result<Restart, String> {
        let restart = Restart {
            initial: self.initial.map_or(Duration::from_secs(1), |s| s.0),
            max: self.max.map_or(Duration::from_secs(60), |s| s.0),
            reset_after: self.reset_after.map_or(Duration::from_secs(60), |s| s.0),
        };
        if restart.initial.is_zero() || restart.max < restart.initial {
            return Err("spec.restart.initial is more than 0 and at most spec.restart.max".to_owned());
        }
        Ok(restart)
    }
}

impl WrittenOutput {
    fn check(self) -> Result<Output, String> {
        let bytes = self.max_bytes.map_or(Amount::from_units(10 << 20), |q| q.0).as_nanos() / 1_000_000_000;
        let max_bytes = u64::try_from(bytes).ok().filter(|bytes| *bytes >= 1024);
        let max_bytes = max_bytes.ok_or_else(|| format!("spec.output.maxBytes is {bytes}; it is at least 1Ki"))?;
        let files = self.files.unwrap_or(2);
        if files > 100 {
            return Err(format!("spec.output.files is {files}; it is at most 100"));
        }
        Ok(Output { max_bytes, files })
    }
}

/// Whether a name can be that of a directory.
pub(super) fn is_path_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && !name.starts_with(['.', '-', '_']) && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn check_path_name(field: &str, name: &str) -> Result<(), String> {
    if is_path_name(name) {
        Ok(())
    } else {
        Err(format!("{field} is {name:?}; it has 1 to 100 letters, digits, \".\", \"_\" or \"-\", and begins with a letter or digit"))
    }
}

/// Reads `9000-9099`, or one port.
fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
        (Ok(from), Ok(to)) if from > 0 && from <= to => Ok(from..=to),
        _ => Err(format!("spec.ports is \"{text}\"; it is a range of 1 to 65535, the smaller first, as in \"9000-9099\"")),
    }
}

#[cfg(test)]
mod tests;
