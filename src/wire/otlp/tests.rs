//! `request.bin` is what OpenTelemetry's own library writes (`vector.py`), `collector/` has what a real Collector wrote; everything else is made here, byte by byte.

use proptest::prelude::*;

use super::*;
use crate::wire::jsonl::sample_to_line;

const REQUEST: &[u8] = include_bytes!("request.bin");
const RECEIVED: Timestamp = Timestamp::from_millis(1_764_000_001_000);

/// A field of bytes.
pub(in crate::wire) fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend_from_slice(bytes);
    field
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn fixed(number: u8, bits: u64) -> Vec<u8> {
    [&[number << 3 | 1][..], &bits.to_le_bytes()].concat()
}

fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
    [field(1, key), field(2, value)].concat()
}

fn named(key: &str, value: &str) -> Vec<u8> {
    attribute(key, &field(1, value))
}

/// A gauge's data point with these attributes.
fn point(attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| field(7, attribute)).collect();
    [fixed(4, 1.5_f64.to_bits()), attributes].concat()
}

fn metric(name: &str, data: u8, bytes: &[u8]) -> Vec<u8> {
    [field(1, name), field(data, bytes)].concat()
}

/// A request of one resource.
fn request(attributes: &[Vec<u8>], metrics: &[Vec<u8>]) -> Vec<u8> {
    let resource: Vec<u8> = attributes.iter().flat_map(|attribute| field(1, attribute)).collect();
    let metrics: Vec<u8> = metrics.iter().flat_map(|metric| field(2, metric)).collect();
    field(1, [field(1, resource), field(2, metrics)].concat())
}

fn read(request: &[u8]) -> Result<Vec<Result<Sample, String>>, String> {
    let mut all = Vec::new();
    each(request, RECEIVED, &mut |number, sample| {
        all.push(sample);
        assert_eq!(number, all.len() as u64);
        Ok(())
    })?;
    Ok(all)
}

/// What the only point of a request comes to.
fn only(request: &[u8]) -> Result<Sample, String> {
    let mut all = read(request).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// As [`only`], of one gauge's point.
fn gauge(resource: &[Vec<u8>], attributes: &[Vec<u8>]) -> Result<Sample, String> {
    only(&request(resource, &[metric("depth", 5, &field(1, point(attributes)))]))
}

#[test]
fn what_opentelemetry_writes_is_read() {
    let lines: Vec<String> = read(REQUEST).unwrap().into_iter().map(|sample| sample_to_line(&sample.unwrap())).collect();
    let of = |rest: &str| format!("{{\"target\":\"prod/Deployment/api\",\"metric\":{rest}}}");
    let expected = [
        of(r#""queue.depth","instance":"api-7d9-x","time":1764000000250,"kind":"Gauge","value":42.0"#),
        of(r#""cpu.utilization","instance":"api-7d9-x","time":1764000000250,"kind":"Gauge","value":0.7"#),
        of(r#""requests","instance":"api-7d9-x","time":1764000000250,"kind":"Counter","value":1000000.0"#),
        of(r#""connections","instance":"api-7d9-x","time":1764000000250,"kind":"Gauge","value":-3.0"#),
        of(r#""jobs.done","instance":"api-7d9-x","time":1764000000250,"kind":"Delta","value":2.5"#),
        of(r#""latency","instance":"api-7d9-x","time":1764000000250,"kind":"Histogram","bounds":[0.1,0.25],"counts":[1,2,3],"count":6,"sum":1.2"#),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_target_and_an_instance_are_named_by_attributes_of_the_point_or_the_resource() {
    let target = || named("loadline.target", "local/ProcessFleet/workers");
    let several = attribute("loadline.target", &field(5, [field(1, field(1, "a/B/c")), field(1, field(1, "a/B/d"))].concat()));
    let k8s = |kind: &str| vec![named("k8s.namespace.name", "prod"), named(kind, "db")];
    let cases: [(&str, Result<Sample, String>, &str, &str); 8] = [
        ("by itself", gauge(&[target()], &[]), "local/ProcessFleet/workers", ""),
        ("several", gauge(&[several], &[]), "a/B/c a/B/d", ""),
        ("by the point", gauge(&[target()], &[named("loadline.target", "a/B/c")]), "a/B/c", ""),
        ("a set", gauge(&k8s("k8s.statefulset.name"), &[]), "prod/StatefulSet/db", ""),
        ("a replica set", gauge(&k8s("k8s.replicaset.name"), &[]), "prod/ReplicaSet/db", ""),
        ("another namespace of the point", gauge(&k8s("k8s.deployment.name"), &[named("k8s.namespace.name", "dev")]), "dev/Deployment/db", ""),
        ("a pod", gauge(&[target(), named("service.instance.id", "s"), named("k8s.pod.name", "p")], &[]), "local/ProcessFleet/workers", "p"),
        ("an instance", gauge(&[target(), named("k8s.pod.name", "p")], &[named("loadline.instance", "i")]), "local/ProcessFleet/workers", "i"),
    ];
    for (what, sample, targets, instance) in cases {
        let sample = sample.unwrap();
        assert_eq!(sample.targets.iter().map(TargetId::as_str).collect::<Vec<_>>().join(" "), targets, "{what}");
        assert_eq!(sample.instance.as_str(), instance, "{what}");
        assert_eq!(sample.time, RECEIVED, "without a time, that of its receipt");
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_its_point_with_the_way_out() {
    let target = || named("loadline.target", "a/B/c");
    let of = |data: u8, bytes: &[u8]| only(&request(&[target()], &[metric("m", data, bytes)]));
    let sum = |temporality: u8, monotonic: u8| [field(1, point(&[])), varint(2, temporality), varint(3, monotonic)].concat();
    let cases = [
        gauge(&[named("service.name", "api")], &[]),
        gauge(&[named("k8s.deployment.name", "api")], &[]),
        gauge(&[named("loadline.target", "api")], &[]),
        gauge(&[attribute("loadline.target", &varint(3, 1))], &[]),
        gauge(&[target()], &[attribute("loadline.instance", &[])]),
        gauge(&[target()], &[named("http.route", "/cart")]),
        only(&request(&[target()], &[metric("two words", 5, &field(1, point(&[])))])),
        only(&request(&[target()], &[metric("m", 5, &field(1, fixed(3, 1)))])),
        of(7, &sum(0, 1)),
        of(7, &sum(1, 0)),
        of(9, &[field(1, []), varint(2, 1)].concat()),
        of(9, &[field(1, fixed(4, 3)), varint(2, 2)].concat()),
        of(9, &[field(1, [fixed(4, u64::MAX), fixed(5, 0)].concat()), varint(2, 2)].concat()),
        of(10, &field(1, [])),
        of(11, &field(1, [])),
    ];
    let reasons: Vec<String> = cases.into_iter().map(|case| case.unwrap_err()).collect();
    insta::assert_snapshot!(reasons.join("\n"));
}

#[test]
fn one_point_that_is_refused_costs_no_other() {
    let points = [point(&[]), point(&[named("http.route", "/cart")]), point(&[])];
    let data: Vec<u8> = points.iter().flat_map(|point| field(1, point)).collect();
    let read = read(&request(&[named("loadline.target", "a/B/c")], &[metric("m", 5, &data)])).unwrap();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

/// OTLP says with a flag that there is no value: that is no measurement, and nothing to complain of.
#[test]
fn a_point_without_a_recorded_value_is_none() {
    let data = field(1, [point(&[]), varint(8, 1)].concat());
    assert_eq!(read(&request(&[named("loadline.target", "a/B/c")], &[metric("m", 5, &data)])), Ok(vec![]));
}

/// Protobuf promises no order: what a resource is may stand after what was measured.
#[test]
fn fields_may_stand_in_any_order() {
    let resource = field(1, field(1, named("loadline.target", "a/B/c")));
    let data = field(7, [varint(3, 1), field(1, point(&[])), varint(2, 2)].concat());
    let metrics = field(2, field(2, [data, field(1, "m")].concat()));
    assert_eq!(only(&field(1, [metrics, resource].concat())).unwrap().kind, Kind::Counter);
}

#[test]
fn what_is_no_request_is_refused_whole() {
    for (bytes, reason) in [
        (&b"queue_depth 3"[..], "not an OTLP ExportMetricsServiceRequest: "),
        (b"hi", "it holds no ResourceMetrics"),
        (&[0x0a, 0x05, 0x01], "it ends within a field"),
        (&[0x08, 0x01], "field 1 of a request is of another type"),
        (&REQUEST[..REQUEST.len() - 1], "it ends within a field"),
    ] {
        let said = read(bytes).unwrap_err();
        assert!(said.contains(reason), "{bytes:x?}: {said}");
    }
    assert_eq!(read(b""), Ok(vec![]), "a request of nothing is one");
}

proptest! {
    /// Whatever comes, it is read or refused; no more points than it has bytes.
    #[test]
    fn no_bytes_make_it_panic(place in 0..REQUEST.len(), cut in 0..REQUEST.len(), bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
        let mut broken = REQUEST[..cut.max(place)].to_vec();
        broken.splice(place..(place + bytes.len()).min(broken.len()), bytes.clone());
        for bytes in [&broken, &bytes] {
            if let Ok(all) = read(bytes) {
                prop_assert!(all.len() <= bytes.len());
            }
        }
    }
}

/// What a Collector's Kafka exporter wrote, as its records stood on the topic: each point is taken as it was measured, or refused by itself with the way out.
#[test]
fn records_of_a_real_collector_are_read() {
    let told = |record: &[u8]| {
        let points = read(record).unwrap().into_iter();
        points.map(|point| point.map_or_else(|reason| format!("refused: {reason}"), |sample| sample_to_line(&sample))).collect::<Vec<_>>().join("\n")
    };
    let records: [(&str, &[u8]); 6] = [
        ("host-load", include_bytes!("collector/host-load.bin")),
        ("sdk-keyed", include_bytes!("collector/sdk-keyed.bin")),
        ("two-resources", include_bytes!("collector/two-resources.bin")),
        ("sdk-attributes-partly-refused", include_bytes!("collector/sdk-attributes-partly-refused.bin")),
        ("prometheus", include_bytes!("collector/prometheus.bin")),
        ("prometheus-stale", include_bytes!("collector/prometheus-stale.bin")),
    ];
    let all: Vec<String> = records.iter().map(|(name, record)| format!("# {name}\n{}", told(record))).collect();
    insta::assert_snapshot!(all.join("\n"));
}
