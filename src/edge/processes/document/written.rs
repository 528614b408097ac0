//! The document as serde reads it, and its way to the types that cannot be wrong.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::super::units::{Quantity, Span};
use super::{Endpoints, FleetDocument, FleetSpec, Health, KIND, MAX_REPLICAS, Output, Probe, Restart};
use crate::model::{Amount, TargetId};

/// The finest interval of measuring; below it the kernel's ticks of 10 ms would be most of a value.
const MIN_MEASURE: Duration = Duration::from_millis(250);

/// What every document begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    #[serde(default)]
    pub(super) api_version: String,
    #[serde(default)]
    pub(super) kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
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
    pub(super) fn check(self) -> Result<FleetDocument, String> {
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
pub(in crate::edge::processes) fn is_path_name(name: &str) -> bool {
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
