# Writes request.bin, the request that the tests of this module read, with OpenTelemetry's own messages.
import sys
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

request = ExportMetricsServiceRequest()
resource = request.resource_metrics.add()


def attribute(of, key, value):
    of.attributes.add(key=key).value.string_value = value


attribute(resource.resource, "service.name", "api")
attribute(resource.resource, "k8s.namespace.name", "prod")
attribute(resource.resource, "k8s.deployment.name", "api")
attribute(resource.resource, "k8s.replicaset.name", "api-7d9")
attribute(resource.resource, "k8s.pod.name", "api-7d9-x")
scope = resource.scope_metrics.add()
scope.scope.name = "http"
at = 1_764_000_000_250_000_000
depth = scope.metrics.add(name="queue.depth", unit="{job}", description="Jobs that wait.")
depth.gauge.data_points.add(time_unix_nano=at, as_int=42)
cpu = scope.metrics.add(name="cpu.utilization", unit="%")
cpu.gauge.data_points.add(time_unix_nano=at, as_double=70.0).exemplars.add(as_double=1.0)
served = scope.metrics.add(name="requests")
served.sum.aggregation_temporality, served.sum.is_monotonic = 2, True
served.sum.data_points.add(start_time_unix_nano=at - 10**10, time_unix_nano=at, as_int=1_000_000)
open_ = scope.metrics.add(name="connections")
open_.sum.aggregation_temporality = 2
open_.sum.data_points.add(time_unix_nano=at, as_int=-3)
jobs = scope.metrics.add(name="jobs.done")
jobs.sum.aggregation_temporality, jobs.sum.is_monotonic = 1, True
jobs.sum.data_points.add(time_unix_nano=at, as_double=2.5)
latency = scope.metrics.add(name="latency", unit="ms")
latency.histogram.aggregation_temporality = 2
latency.histogram.data_points.add(time_unix_nano=at, count=6, sum=1200.0, bucket_counts=[1, 2, 3], explicit_bounds=[100.0, 250.0], min=1.0, max=400.0)
sys.stdout.buffer.write(request.SerializeToString())
