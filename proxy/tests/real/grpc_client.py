"""Calls the server behind a sidecar in every way there is. The argument is the sidecar's outbound address."""

import sys
import threading
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", "cart")])


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


unary = channel.unary_unary("/test.S/unary")
answer, call = unary.with_call(b"hello", timeout=10, metadata=(("x-asked", "me"),))
said, identity, left = answer.split(b"|")
assert said == b"hello" and b"spiffe://mesh.local/ns/shop/sa/web" in identity, answer
assert 0 < int(left) <= 10, left
assert ("x-first", "me") in call.initial_metadata(), call.initial_metadata()
assert ("x-last", "trailer") in call.trailing_metadata() and ("x-bin-bin", b"\x00\xff") in call.trailing_metadata()
print("unary")

assert code_of(lambda: unary(b"fail", timeout=10)) == (grpc.StatusCode.FAILED_PRECONDITION, "not today: äö%")
print("status")

began = time.monotonic()
code, _ = code_of(lambda: unary(b"sleep", timeout=0.5))
assert code == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - began < 3, code
print("deadline")

got = list(channel.unary_stream("/test.S/server")(b"500", timeout=20))
assert got == [b"%d" % n * 100 for n in range(500)]
print("server streaming")

assert channel.stream_unary("/test.S/client")((b"x" * 10_000 for _ in range(200)), timeout=20) == b"2000000"
print("client streaming")

# Each answer is waited for before the next request is made: nothing on the way may hold one back.
ready = threading.Semaphore(1)


def requests():
    for n in range(50):
        ready.acquire()
        yield b"message %d" % n


for n, answer in enumerate(channel.stream_stream("/test.S/bidi")(requests(), timeout=20)):
    assert answer == (b"message %d" % n)[::-1]
    ready.release()
assert n == 49
print("bidi streaming")

stream = channel.unary_stream("/test.S/endless")(b"")
assert [next(stream) for _ in range(3)] == [b"0", b"1", b"2"]
stream.cancel()
assert code_of(lambda: list(stream))[0] == grpc.StatusCode.CANCELLED
print("cancel")

code, details = code_of(lambda: channel.unary_unary("/test.S/nothing")(b"", timeout=10))
assert code == grpc.StatusCode.UNIMPLEMENTED, (code, details)
print("unimplemented")

other = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", "nobody")])
code, details = code_of(lambda: other.unary_unary("/test.S/unary")(b"", timeout=10))
assert code == grpc.StatusCode.UNIMPLEMENTED and "unknown_service" in details, (code, details)
print("refusal")
print("all well")
