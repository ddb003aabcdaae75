"""The OpenTelemetry SDK exports every kind of metric by OTLP over HTTP: python opentelemetry_test.py URL"""

import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

results = []


class Exporter(OTLPMetricExporter):
    """Keeps what the server answered."""

    def export(self, *args, **kwargs):
        results.append(super().export(*args, **kwargs))
        return results[-1]


exporter = Exporter(endpoint=sys.argv[1], compression=Compression.Gzip)
# Nothing is exported but when it is asked for: an interval of a day.
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=86_400_000)
resource = Resource.create(
    {"service.name": "shop", "service.namespace": "eu", "service.instance.id": "i-1", "deployment.environment": "test"}
)
view = View(instrument_type=Histogram, instrument_name="payload.size", aggregation=ExponentialBucketHistogramAggregation())
provider = MeterProvider(resource=resource, metric_readers=[reader], views=[view])
meter = provider.get_meter("tests")
requests = meter.create_counter("http.server.requests", unit="1", description="Requests served.")
active = meter.create_up_down_counter("http.server.active", unit="{request}")
latency = meter.create_histogram("http.server.duration", unit="s")
payload = meter.create_histogram("payload.size", unit="By")
meter.create_observable_gauge("process.memory", [lambda _: [__import__("opentelemetry.metrics").metrics.Observation(42)]], unit="By")
for i in range(1, 11):
    requests.add(i, {"http.method": "GET"})
    active.add(1)
    latency.record(i / 10, {"http.method": "GET"})
    payload.record(i * 100)
active.add(-4)
if not provider.force_flush():
    sys.exit("the flush failed")
provider.shutdown()
if not results or any(result is not MetricExportResult.SUCCESS for result in results):
    sys.exit(f"exports: {results}")
print("ok")
