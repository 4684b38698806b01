"""Talks to the server behind a sidecar. The argument is the sidecar's outbound address."""

import os
import socket
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

host, port = sys.argv[1].rsplit(":", 1)


def dial(name="cart", subprotocols=("chat",)):
    sock = socket.create_connection((host, int(port)))
    return connect(f"ws://{name}/chat", sock=sock, max_size=None, subprotocols=subprotocols)


with dial(subprotocols=["other", "chat"]) as ws:
    assert ws.subprotocol == "chat", ws.subprotocol
    ws.send("grüezi")
    assert ws.recv(timeout=10) == "grüezi"
    large = os.urandom(1 << 20)
    ws.send(large)
    assert ws.recv(timeout=20) == large
    ws.send([b"in ", b"three ", b"pieces"])
    assert ws.recv(timeout=10) == b"in three pieces"
    assert ws.ping().wait(10)
print("echo, ping, subprotocol, 1 MiB")

for code in (1000, 1001, 4321):
    with dial() as ws:
        ws.send(f"close {code}")
        try:
            ws.recv(timeout=10)
            raise AssertionError("it did not close")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (code, "as asked"), closed
print("close codes")

try:
    dial("nobody")
    raise AssertionError("nobody answered")
except InvalidStatus as refused:
    assert refused.response.status_code == 404, refused
    assert refused.response.headers["x-outrigger-reason"] == "unknown_service"
print("refusal")
print("all well")
