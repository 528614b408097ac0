//! Samples from OTLP: an `ExportMetricsServiceRequest` in protobuf, as OpenTelemetry's exporters write it
//! ([metrics.proto](https://github.com/open-telemetry/opentelemetry-proto/blob/v1.7.0/opentelemetry/proto/metrics/v1/metrics.proto)).
//!
//! - Gauges are Gauges. A cumulative Sum is a Counter where it is monotonic, else a Gauge; a delta Sum that is monotonic is Deltas. A cumulative
//!   Histogram with explicit bounds is a Histogram. Everything else is refused, point by point, with the way out.
//! - Who was measured is said by attributes of the data point, else of the resource: see [`Whom`].
//! - Times, bytes and percent in other units than base units are converted by the metric's `unit`.
//! - A data point with attributes beyond those is one of several series of an instance. Loadline has one: which of them it would be, or whether they are to
//!   be added up, cannot be seen from one point, so it is refused and not guessed.
//!
//! Invariants: nothing is built up but the sample at hand; a data point that is refused costs no other one; what is no such message is refused whole.

use super::protobuf::{Fields, Malformed, Value, fixed64s, text};
use crate::model::spelling::shorten;
use crate::model::{HistogramValue, InstanceName, Kind, MetricName, Sample, TargetId, Timestamp};

/// Takes a data point's sample, or why it is none, with its number from 1. What it refuses ends the reading.
pub(super) type Take<'t> = dyn FnMut(u64, Result<Sample, String>) -> Result<(), String> + 't;

/// Says that a point has no value: OTLP's `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
const NO_VALUE: u64 = 1;
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// Gives each data point of a request to `take`; `received` is the time of those that have none.
///
/// # Errors
/// Where the bytes are no such request, or `take` refuses to go on; then nothing of it is to be used.
pub(super) fn each(request: &[u8], received: Timestamp, take: &mut Take<'_>) -> Result<(), String> {
    let mut reading = Reading { received, number: 0, take };
    let mut resources = 0;
    for field in Fields::of(request) {
        if let (1, resource) = field.map_err(no_request)? {
            resources += 1;
            let Value::Bytes(resource) = resource else { return Err(no_request(Malformed::Type { message: "request", number: 1 })) };
            reading.resource(resource)?;
        }
    }
    if resources == 0 && !request.is_empty() {
        return Err("not an OTLP ExportMetricsServiceRequest: it holds no ResourceMetrics".to_owned());
    }
    Ok(())
}

fn no_request(malformed: Malformed) -> String {
    format!("not an OTLP ExportMetricsServiceRequest: {malformed}")
}

impl From<Malformed> for String {
    fn from(malformed: Malformed) -> String {
        no_request(malformed)
    }
}

/// What the naming attributes say of whom was measured.
///
/// The target: `loadline.target` (`namespace/Kind/name`, or an array of them), else `k8s.namespace.name` with the name of a Deployment, `StatefulSet` or
/// `ReplicaSet`. The instance: `loadline.instance`, else `k8s.pod.name`, else `service.instance.id`.
#[derive(Debug, Clone, Default)]
struct Whom<'a> {
    target: Option<&'a [u8]>,
    namespace: Option<&'a [u8]>,
    deployment: Option<&'a [u8]>,
    stateful_set: Option<&'a [u8]>,
    replica_set: Option<&'a [u8]>,
    instance: Option<&'a [u8]>,
    pod: Option<&'a [u8]>,
    service_instance: Option<&'a [u8]>,
    /// An attribute that names nobody.
    other: Option<&'a str>,
}

impl<'a> Whom<'a> {
    /// Notes an attribute: a `KeyValue`.
    fn note(&mut self, attribute: &'a [u8]) -> Result<(), Malformed> {
        let (mut key, mut value) = ("", &[][..]);
        for field in Fields::of(attribute) {
            match field? {
                (1, Value::Bytes(bytes)) => key = text(bytes)?,
                (2, Value::Bytes(bytes)) => value = bytes,
                (number @ (1 | 2), _) => return Err(Malformed::Type { message: "KeyValue", number }),
                _ => {}
            }
        }
        let place = match key {
            "loadline.target" => &mut self.target,
            "k8s.namespace.name" => &mut self.namespace,
            "k8s.deployment.name" => &mut self.deployment,
            "k8s.statefulset.name" => &mut self.stateful_set,
            "k8s.replicaset.name" => &mut self.replica_set,
            "loadline.instance" => &mut self.instance,
            "k8s.pod.name" => &mut self.pod,
            "service.instance.id" => &mut self.service_instance,
            other => {
                self.other = Some(other);
                return Ok(());
            }
        };
        *place = Some(value);
        Ok(())
    }

    fn names_target(&self) -> bool {
        [self.target, self.namespace, self.deployment, self.stateful_set, self.replica_set].iter().any(Option::is_some)
    }

    /// What this says, and where it says nothing, what `rest` says.
    fn over(&self, rest: &Whom<'a>) -> Whom<'a> {
        Whom {
            target: self.target.or(rest.target),
            namespace: self.namespace.or(rest.namespace),
            deployment: self.deployment.or(rest.deployment),
            stateful_set: self.stateful_set.or(rest.stateful_set),
            replica_set: self.replica_set.or(rest.replica_set),
            instance: self.instance.or(rest.instance),
            pod: self.pod.or(rest.pod),
            service_instance: self.service_instance.or(rest.service_instance),
            other: self.other,
        }
    }

    fn targets(&self) -> Result<Vec<TargetId>, String> {
        if let Some(value) = self.target {
            return texts(value)
                .and_then(|names| names.iter().map(|name| name.parse::<TargetId>().map_err(|e| e.to_string())).collect())
                .map_err(|reason| format!("attribute loadline.target: {reason}"));
        }
        let workload = [("Deployment", self.deployment), ("StatefulSet", self.stateful_set), ("ReplicaSet", self.replica_set)];
        let workload = workload.into_iter().find_map(|(kind, name)| name.map(|name| (kind, name)));
        if let (Some(namespace), Some((kind, name))) = (self.namespace, workload) {
            let named = one_text(namespace).and_then(|namespace| Ok((namespace, one_text(name)?)));
            return named
                .and_then(|(namespace, name)| TargetId::new(namespace, kind, name).map_err(|e| e.to_string()))
                .map(|target| vec![target])
                .map_err(|reason| format!("attributes k8s.namespace.name and k8s.{}.name: {reason}", kind.to_ascii_lowercase()));
        }
        Err("no target is named: set the attribute loadline.target of its resource to namespace/Kind/name, or k8s.namespace.name and k8s.deployment.name"
            .to_owned())
    }

    fn instance(&self) -> Result<InstanceName, String> {
        let named = [("loadline.instance", self.instance), ("k8s.pod.name", self.pod), ("service.instance.id", self.service_instance)];
        let Some((key, value)) = named.into_iter().find_map(|(key, value)| value.map(|value| (key, value))) else { return Ok(InstanceName::none()) };
        one_text(value).and_then(|name| name.parse::<InstanceName>().map_err(|e| e.to_string())).map_err(|reason| format!("attribute {key}: {reason}"))
    }
}

/// An `AnyValue` that is a text.
fn one_text(value: &[u8]) -> Result<&str, String> {
    match texts(value)?.as_slice() {
        [one] => Ok(one),
        _ => Err("one text is read, and this is an array".to_owned()),
    }
}

/// An `AnyValue` that is a text, or an array of them.
fn texts(value: &[u8]) -> Result<Vec<&str>, String> {
    let mut texts = Vec::new();
    for field in Fields::of(value) {
        match field? {
            (1, Value::Bytes(bytes)) => texts.push(text(bytes)?),
            (5, Value::Bytes(array)) => {
                for item in Fields::of(array) {
                    let (1, Value::Bytes(item)) = item? else { continue };
                    match Fields::of(item).next().transpose()? {
                        Some((1, Value::Bytes(bytes))) => texts.push(text(bytes)?),
                        _ => return Err("an array of texts is read, and this holds something else".to_owned()),
                    }
                }
            }
            _ => return Err("a text is read, and this is something else".to_owned()),
        }
    }
    if texts.is_empty() { Err("it is empty".to_owned()) } else { Ok(texts) }
}

/// One request being read.
struct Reading<'r, 't> {
    received: Timestamp,
    /// How many data points there were.
    number: u64,
    take: &'r mut Take<'t>,
}

/// Whom the points of a resource are of, where they do not say it themselves.
struct OfResource<'a> {
    whom: Whom<'a>,
    targets: Result<Vec<TargetId>, String>,
}

/// What all points of a metric share.
struct OfMetric<'a> {
    name: Result<MetricName, String>,
    shown: &'a str,
    scale: Scale,
    /// What they are, or why they cannot be used.
    kind: Result<Kind, String>,
}

impl Reading<'_, '_> {
    /// A `ResourceMetrics`. Its fields may stand in any order, so whom it is of is read before what was measured.
    fn resource(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut whom = Whom::default();
        for field in Fields::of(bytes) {
            let (1, resource) = field? else { continue };
            for field in Fields::of(message(resource, "ResourceMetrics", 1)?) {
                if let (1, attribute) = field? {
                    whom.note(message(attribute, "Resource", 1)?)?;
                }
            }
        }
        let resource = OfResource { targets: whom.targets(), whom };
        for field in Fields::of(bytes) {
            let (2, scope) = field? else { continue };
            for field in Fields::of(message(scope, "ResourceMetrics", 2)?) {
                if let (2, metric) = field? {
                    self.metric(message(metric, "ScopeMetrics", 2)?, &resource)?;
                }
            }
        }
        Ok(())
    }

    fn metric(&mut self, bytes: &[u8], resource: &OfResource<'_>) -> Result<(), String> {
        let (mut name, mut unit, mut data) = ("", "", None);
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            match number {
                1 => name = text(message(value, "Metric", 1)?)?,
                3 => unit = text(message(value, "Metric", 3)?)?,
                5 | 7 | 9 | 10 | 11 => data = Some((number, message(value, "Metric", number)?)),
                _ => {}
            }
        }
        let Some((what, data)) = data else { return Ok(()) };
        let (mut temporality, mut monotonic) = (0, false);
        for field in Fields::of(data) {
            match field? {
                (2, Value::Varint(value)) => temporality = value,
                (3, Value::Varint(value)) => monotonic = value != 0,
                _ => {}
            }
        }
        let metric = OfMetric {
            name: name.parse().map_err(|e: crate::model::NameError| e.to_string()),
            shown: name,
            scale: Scale::of(unit),
            kind: kind(what, temporality, monotonic),
        };
        for field in Fields::of(data) {
            if let (1, point) = field? {
                self.point(message(point, "Metric", what)?, what == 9, &metric, resource)?;
            }
        }
        Ok(())
    }

    fn point(&mut self, bytes: &[u8], histogram: bool, metric: &OfMetric<'_>, resource: &OfResource<'_>) -> Result<(), String> {
        let point = Point::read(bytes, histogram)?;
        if point.flags & NO_VALUE != 0 {
            return Ok(());
        }
        self.number += 1;
        let sample = point.sample(metric, resource, self.received).map_err(|reason| format!("metric {}: {reason}", shorten(metric.shown)));
        (self.take)(self.number, sample)
    }
}

fn message<'a>(value: Value<'a>, message: &'static str, number: u32) -> Result<&'a [u8], Malformed> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(Malformed::Type { message, number }),
    }
}

/// What the points of a metric are: by the field of its data, and a Sum's or Histogram's own words.
fn kind(what: u32, temporality: u64, monotonic: bool) -> Result<Kind, String> {
    let refused = |reason: &str| Err(reason.to_owned());
    match (what, temporality, monotonic) {
        (5, ..) | (7, CUMULATIVE, false) => Ok(Kind::Gauge),
        (7, CUMULATIVE, true) => Ok(Kind::Counter),
        (7, DELTA, true) => Ok(Kind::Delta),
        (7, DELTA, false) => refused("changes of what goes up and down do not tell where it stands: export it with cumulative temporality"),
        (7, ..) => refused("a Sum without a temporality cannot be read: export it as cumulative, or as delta"),
        (9, CUMULATIVE, _) => Ok(Kind::Histogram),
        (9, ..) => refused("a Histogram is read as cumulative alone: export it with cumulative temporality"),
        (10, ..) => refused("an ExponentialHistogram cannot be read: export it as a Histogram with explicit bounds"),
        _ => refused("a Summary cannot be read: its quantiles cannot be put together; export a Histogram"),
    }
}

/// A data point: what of it is needed.
#[derive(Default)]
struct Point<'a> {
    whom: Whom<'a>,
    time_ns: u64,
    flags: u64,
    value: Option<f64>,
    count: u64,
    sum: Option<f64>,
    counts: Vec<u64>,
    bounds: Vec<f64>,
}

impl<'a> Point<'a> {
    /// A `HistogramDataPoint`, or a `NumberDataPoint`; of another one, only what it shares with that.
    fn read(bytes: &'a [u8], histogram: bool) -> Result<Point<'a>, Malformed> {
        let mut point = Point::default();
        for field in Fields::of(bytes) {
            match (field?, histogram) {
                ((3, Value::Fixed64(time)), _) => point.time_ns = time,
                ((4, Value::Fixed64(bits)), false) => point.value = Some(f64::from_bits(bits)),
                ((6, Value::Fixed64(bits)), false) => point.value = Some(bits.cast_signed() as f64),
                ((7, Value::Bytes(attribute)), false) | ((9, Value::Bytes(attribute)), true) => point.whom.note(attribute)?,
                ((8, Value::Varint(flags)), false) | ((10, Value::Varint(flags)), true) => point.flags = flags,
                ((4, Value::Fixed64(count)), true) => point.count = count,
                ((5, Value::Fixed64(bits)), true) => point.sum = Some(f64::from_bits(bits)),
                ((6, counts), true) => point.counts.extend(fixed64s(counts).ok_or(Malformed::Type { message: "HistogramDataPoint", number: 6 })?),
                ((7, bounds), true) => {
                    point.bounds.extend(fixed64s(bounds).ok_or(Malformed::Type { message: "HistogramDataPoint", number: 7 })?.map(f64::from_bits));
                }
                _ => {}
            }
        }
        Ok(point)
    }

    fn sample(self, metric: &OfMetric<'_>, resource: &OfResource<'_>, received: Timestamp) -> Result<Sample, String> {
        let kind = metric.kind.clone()?;
        let name = metric.name.clone()?;
        if let Some(other) = self.whom.other {
            return Err(format!(
                "the point has the attribute {:?}, so it is one of several series of an instance, and one is read: add them up before, as the Collector's transform \
                 processor does with aggregate_on_attributes, or drop the attribute",
                shorten(other)
            ));
        }
        let whom = self.whom.over(&resource.whom);
        let targets = if self.whom.names_target() { whom.targets()? } else { resource.targets.clone()? };
        let instance = whom.instance()?;
        let time = match i64::try_from(self.time_ns / 1_000_000) {
            Ok(0) | Err(_) => received,
            Ok(ms) => Timestamp::from_millis(ms),
        };
        let (value, histogram) = if kind == Kind::Histogram {
            (0.0, Some(self.histogram(metric.scale)?))
        } else {
            (metric.scale.apply(self.value.ok_or("the point has no value")?), None)
        };
        Ok(Sample { targets, metric: name, instance, time, kind, value, histogram })
    }

    fn histogram(self, scale: Scale) -> Result<HistogramValue, String> {
        let count = |count: u64| i64::try_from(count).map_err(|_| format!("the count {count} is beyond 2^63"));
        Ok(HistogramValue {
            bounds: self.bounds.into_iter().map(|bound| scale.apply(bound)).collect(),
            counts: self.counts.into_iter().map(count).collect::<Result<_, _>>()?,
            count: count(self.count)?,
            sum: scale.apply(self.sum.ok_or("the Histogram has no sum")?),
        })
    }
}

/// From a metric's unit to base units.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Times(f64),
    Over(f64),
}

impl Scale {
    /// By the unit's [UCUM](https://ucum.org) code; any other one is taken for a base unit.
    fn of(unit: &str) -> Scale {
        match unit {
            "ms" => Scale::Over(1e3),
            "us" => Scale::Over(1e6),
            "ns" => Scale::Over(1e9),
            "min" => Scale::Times(60.0),
            "h" => Scale::Times(3_600.0),
            "d" => Scale::Times(86_400.0),
            "kBy" => Scale::Times(1e3),
            "MBy" => Scale::Times(1e6),
            "GBy" => Scale::Times(1e9),
            "KiBy" => Scale::Times(1_024.0),
            "MiBy" => Scale::Times(1_048_576.0),
            "GiBy" => Scale::Times(1_073_741_824.0),
            "%" => Scale::Over(100.0),
            _ => Scale::Times(1.0),
        }
    }

    fn apply(self, value: f64) -> f64 {
        match self {
            Scale::Times(factor) => value * factor,
            Scale::Over(divisor) => value / divisor,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
