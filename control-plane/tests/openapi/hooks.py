"""What schemathesis is told beside the document: which requests have a chance, and where to write down what came back."""

import json
import os
import threading
import zlib

import schemathesis
from schemathesis.generation.meta import TestPhase

LOG = open(os.environ["SEEN"], "a", buffering=1)
LOCK = threading.Lock()


@schemathesis.hook
def before_call(context, case, kwargs):
    """No schema can say that a path and a body name the same object, or that a write expects something. Three of four
    requests are made to: of few names, so that they meet objects that are there; the rest go as they come, and the examples
    of the document keep the names they have."""
    parts = case.path_parameters
    if not parts or "namespace" not in parts or "name" not in parts or "verb" in parts:
        return
    drawn = zlib.crc32(repr(sorted(parts.items())).encode())
    told = getattr(getattr(case.meta, "phase", None), "name", None) == TestPhase.EXAMPLES
    if drawn % 4 == 3 and not told:
        return
    if drawn % 4 != 2 and not told:
        parts.update(namespace=("shop", "bank")[drawn // 4 % 2], name=("cart", "b", "c")[drawn // 8 % 3])
    method, body = case.method.upper(), case.body
    if method in ("PUT", "PATCH", "DELETE") and case.headers is not None:
        for name in [name for name in case.headers if name.lower() in ("if-match", "if-none-match")]:
            del case.headers[name]
        fresh = method == "PUT" and drawn // 32 % 2 and not told
        case.headers["If-None-Match" if fresh else "If-Match"] = "*"
    if method == "PUT" and isinstance(body, dict) and isinstance(body.get("metadata"), dict):
        body["metadata"].update(namespace=parts["namespace"], name=parts["name"])
        body["metadata"].pop("resourceVersion", None)


@schemathesis.hook
def after_call(context, case, response):
    line = {"operation": case.operation.label, "status": response.status_code}
    with LOCK:
        LOG.write(json.dumps(line) + "\n")
