"""A gRPC server of all four kinds, with generic handlers: messages are plain bytes. Prints its port."""

import concurrent.futures
import time

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: äö%")
    if request == b"sleep":
        time.sleep(5)
    context.send_initial_metadata((("x-first", metadata.get("x-asked", "")),))
    context.set_trailing_metadata((("x-last", "trailer"), ("x-bin-bin", b"\x00\xff")))
    left = context.time_remaining()
    return request + b"|" + metadata.get("x-forwarded-client-cert", "").encode() + b"|%d" % (left or 0)


def server_streaming(request, context):
    for number in range(int(request)):
        yield b"%d" % number * 100


def client_streaming(requests, context):
    return b"%d" % sum(len(r) for r in requests)


def endless(request, context):
    number = 0
    while context.is_active():
        yield b"%d" % number
        number += 1
        time.sleep(0.01)


def bidi(requests, context):
    for request in requests:
        yield request[::-1]


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        kind = details.method.rsplit("/", 1)[-1]
        return {
            "unary": grpc.unary_unary_rpc_method_handler(unary),
            "server": grpc.unary_stream_rpc_method_handler(server_streaming),
            "client": grpc.stream_unary_rpc_method_handler(client_streaming),
            "endless": grpc.unary_stream_rpc_method_handler(endless),
            "bidi": grpc.stream_stream_rpc_method_handler(bidi),
        }.get(kind)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((Handler(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("port", port, flush=True)
server.wait_for_termination()
