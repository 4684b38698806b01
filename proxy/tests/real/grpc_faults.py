"""Calls methods at which a fault stands in the way, in all four kinds. The arguments: the sidecar's outbound address, and
for each method the number of the status that its caller is to see: `name=number`."""

import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", "cart")])
KIB_64 = b"x" * 65536


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().value[0], error.details()
    return 0, ""


def endless():
    """More than any window holds: the answer comes while the request is still on its way."""
    for _ in range(200):
        yield KIB_64


for name, number in (given.split("=") for given in sys.argv[2:]):
    path = f"/test.S/{name}"
    kinds = {
        "unary": lambda: channel.unary_unary(path)(b"hello", timeout=10),
        "server": lambda: list(channel.unary_stream(path)(b"hello", timeout=10)),
        "client": lambda: channel.stream_unary(path)(iter([b"one", b"two"]), timeout=10),
        "upload": lambda: channel.stream_unary(path)(endless(), timeout=10),
        "bidi": lambda: list(channel.stream_stream(path)(iter([b"one", b"two"]), timeout=10)),
    }
    for kind, call in kinds.items():
        code, details = code_of(call)
        assert code == int(number), (name, kind, code, details)
        assert "fault" in details, (name, kind, details)
print("all well")
