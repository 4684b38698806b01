"""Reads an OTLP request for metrics with OpenTelemetry's own Python package, and prints what is in it as JSON."""

import json
import sys

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


def attributes(pairs):
    return {pair.key: pair.value.string_value for pair in pairs}


def metric(one):
    kind = one.WhichOneof("data")
    data = getattr(one, kind)
    points = []
    for point in data.data_points:
        assert 0 < point.start_time_unix_nano <= point.time_unix_nano
        told = {"attributes": attributes(point.attributes)}
        if kind == "histogram":
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
            assert sum(point.bucket_counts) == point.count
            told |= {"count": point.count, "sum": point.sum, "bounds": list(point.explicit_bounds)}
        else:
            told["value"] = point.as_double
        points.append(told)
    told = {"kind": kind, "unit": one.unit, "description": one.description, "points": points}
    if kind != "gauge":
        told["cumulative"] = data.aggregation_temporality == 2
    if kind == "sum":
        told["monotonic"] = data.is_monotonic
    return told


def main():
    with open(sys.argv[1], "rb") as file:
        message = ExportMetricsServiceRequest.FromString(file.read())
    (of_resource,) = message.resource_metrics
    (of_scope,) = of_resource.scope_metrics
    found = {one.name: metric(one) for one in of_scope.metrics}
    print(json.dumps({"resource": attributes(of_resource.resource.attributes), "metrics": found}))


main()
