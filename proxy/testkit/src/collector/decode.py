"""Reads OTLP messages with OpenTelemetry's own Python package and prints what is in them as JSON.

The file has, for each message, a line "path length" and the bytes.
"""

import json
import sys

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "kvlist_value":
        return attributes(any_value.kvlist_value.values)
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return None if kind is None else getattr(any_value, kind)


def attributes(pairs):
    found = {}
    for pair in pairs:
        assert pair.key not in found, f"{pair.key} twice"
        found[pair.key] = value(pair.value)
    return found


def spans(message):
    for of_resource in message.resource_spans:
        resource = attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, "ids of the wrong length"
                yield {
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    "name": span.name,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
                    "attributes": attributes(span.attributes),
                    "resource": resource,
                }


def logs(message):
    for of_resource in message.resource_logs:
        resource = attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                yield {
                    "time": record.time_unix_nano,
                    "severity": record.severity_text,
                    "body": value(record.body),
                    "trace": record.trace_id.hex(),
                    "attributes": attributes(record.attributes),
                    "resource": resource,
                }


def messages(data):
    while data:
        head, rest = data.split(b"\n", 1)
        path, length = head.split(b" ")
        yield path.decode(), rest[: int(length)]
        data = rest[int(length) :]


def main():
    found = {"spans": [], "logs": []}
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    for path, message in messages(data):
        if path in ("/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"):
            found["spans"].extend(spans(ExportTraceServiceRequest.FromString(message)))
        elif path in ("/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"):
            found["logs"].extend(logs(ExportLogsServiceRequest.FromString(message)))
        else:
            raise SystemExit(f"nobody sends to {path}")
    print(json.dumps(found))


main()
