#!/usr/bin/env python3
"""The service `recommendations`: what goes with an item, and what that costs.

Nothing but the standard library, so that the mesh has more than one language in it. Like the
rest of the shop it knows the address that every call goes to, or calls each service by its name,
names the service it means in Host, and passes on the trace context it was given.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import re
import select
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOES_WITH = {
    "anchor": ("rope", "dry-bag"),
    "bailer": ("dry-bag", "lantern"),
    "compass": ("lantern", "sail"),
    "dry-bag": ("bailer", "lantern", "rope"),
    "lantern": ("compass", "dry-bag"),
    "paddle": ("bailer", "dry-bag"),
    "rope": ("anchor", "sail"),
    "sail": ("rope", "compass", "paddle"),
}

TRACE_HEADERS = ("traceparent", "tracestate")
CALL_SECONDS = 3.0
GRACE_SECONDS = 5.0
IDLE_SECONDS = 75.0
MAX_ANSWER = 64 * 1024
MAX_BODY = 16 * 1024
MAX_CONNECTIONS = 128
MAX_IDLE_CALLS = 32


def main() -> int:
    settings = read_settings(sys.argv[1:], os.environ)
    try:
        server = Server(settings.address, Outbound(settings.way), settings.delay)
    except OSError as error:
        return fail(f"can not listen on {written(settings.address)}: {error.strerror}")

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # The main thread has to be free for the signals, so the accepting has a thread of its own.
    accepting = threading.Thread(target=server.serve_forever, name="accept", daemon=True)
    accepting.start()
    say(f"listening on {written(server.server_address)}")
    stop.wait()
    if not server.drain(GRACE_SECONDS):
        say(f"requests were still in flight after {GRACE_SECONDS:.0f} s")
    return 0


# Serving.


class Server(ThreadingHTTPServer):
    """A thread a connection, a bounded number of connections, and an end that loses no answer."""

    request_queue_size = 128

    def __init__(self, address, outbound: Outbound, delay: float) -> None:
        self.outbound = outbound
        self.delay = delay
        self.draining = False
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._busy = 0
        self._changed = threading.Condition()
        self.address_family = family_of(address[0])
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # All addresses are those of both families.
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request, client_address) -> None:
        # Further connections wait in the listener's queue, and a drain ends the waiting.
        while not self._connections.acquire(timeout=0.5):
            if self.draining:
                self.shutdown_request(request)
                return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # No thread to be had: its end will not give the permit back.
            self._connections.release()
            raise

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request, client_address) -> None:
        # A caller that goes away is not worth a traceback.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self) -> Server:
        with self._changed:
            self._busy += 1
        return self

    def __exit__(self, *_) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Takes no new connection and waits for the requests in flight; says whether all ended."""
        self.draining = True
        self.shutdown()
        self.server_close()
        with self._changed:
            return self._changed.wait_for(lambda: self._busy == 0, seconds)

    def server_close(self) -> None:
        # Not the parent's: it would wait for idle connections too.
        self.socket.close()


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive over many requests."""

    protocol_version = "HTTP/1.1"
    server_version = "shop-recommendations"
    timeout = IDLE_SECONDS
    # An answer leaves in one write: head and body apart would wait for each other's ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        with self.server:
            self.skip_body()
            status, body = self.answer()
            self.reply(status, body)
            # Inside the count: a drain must not end the process before this is written.
            self.wfile.flush()

    def answer(self) -> tuple[int, dict]:
        if self.path == "/healthz":
            return 200, {"status": "ok"}
        asked = re.fullmatch(r"/recommendations/([a-z0-9-]{1,64})", self.path)
        if asked is None:
            return 404, {"error": "there is nothing here but /recommendations/{id} and /healthz"}
        item = asked.group(1)
        if item not in GOES_WITH:
            return 404, {"error": f'there is no item "{item}"'}
        time.sleep(self.server.delay)
        trace = [(name, value) for name in TRACE_HEADERS for value in self.headers.get_all(name, [])]
        try:
            prices = [self.server.outbound.get("prices", f"/price/{other}", trace) for other in GOES_WITH[item]]
        except CallFailed as failed:
            return 502, {"error": "prices failed", "dependency": "prices", "reason": str(failed)}
        return 200, {"id": item, "recommendations": prices}

    def skip_body(self) -> None:
        """A GET may have a body; left unread it would be taken for the next request."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
        else:
            self.rfile.read(int(length))

    def reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.server.draining:
            self.close_connection = True
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        """Nothing: the sidecar keeps the access log."""


# Calling.


class CallFailed(Exception):
    """A call that did not bring the answer, and why."""


class Outbound:
    """Calls through one address or by names, over connections that are kept alive."""

    def __init__(self, way: tuple[str, int] | int) -> None:
        # Where every call goes, or the port at which services are called by their names.
        self._way = way
        # Last in, first out, so that what is not needed stays idle and is closed by the other side.
        self._idle: dict[tuple[str, int], queue.LifoQueue] = {}

    def get(self, service: str, path: str, trace: list[tuple[str, str]]) -> dict:
        named = isinstance(self._way, int)
        address = (service, self._way) if named else self._way
        connection = self._connection(address)
        try:
            connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            host = f"{service}:{self._way}" if named else service
            for name, value in [("Host", host), ("Accept", "application/json"), *trace]:
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise CallFailed(f"unreachable: {error or type(error).__name__}") from error
        if not response.isclosed():
            connection.close()
            why = f"more than {MAX_ANSWER} bytes" if len(body) > MAX_ANSWER else "it ended early"
            raise CallFailed(f"unreadable answer: {why}")
        self._keep(connection)
        if response.status != 200:
            said = " ".join(body[:240].decode(errors="replace").split())
            raise CallFailed(f"answered {response.status}: {said}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise CallFailed(f"unreadable answer: {error}") from error

    def _connection(self, address: tuple[str, int]) -> http.client.HTTPConnection:
        idle = self._idle.setdefault(address, queue.LifoQueue(MAX_IDLE_CALLS))
        while True:
            try:
                connection = idle.get_nowait()
            except queue.Empty:
                return http.client.HTTPConnection(*address, timeout=CALL_SECONDS)
            if still_open(connection.sock):
                return connection
            connection.close()

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        try:
            if connection.sock is not None:
                self._idle[connection.host, connection.port].put_nowait(connection)
        except queue.Full:
            connection.close()


def still_open(sock: socket.socket | None) -> bool:
    """Nothing is due on an idle connection: what can be read is its end."""
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


# Settings.


def read_settings(arguments: list[str], environment) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what goes with an item", allow_abbrev=False)
    parser.add_argument("--port", default=environment.get("PORT") or "0")
    parser.add_argument("--listen", default=environment.get("SHOP_LISTEN") or "127.0.0.1")
    parser.add_argument("--outbound", default=environment.get("OUTRIGGER_OUTBOUND") or "")
    parser.add_argument("--names-port", default=environment.get("SHOP_NAMES_PORT") or "")
    parser.add_argument("--delay-ms", default=environment.get("SHOP_DELAY_MS") or "0")
    settings = parser.parse_args(arguments)

    mistakes = []
    hint = "the address that calls go to, such as 127.0.0.1:15001"
    settings.way = parse_address(settings.outbound) if settings.outbound else parse_number(settings.names_port, 65535)
    if not settings.outbound and not settings.names_port:
        mistakes.append(f"OUTRIGGER_OUTBOUND is not set: give {hint}")
    elif settings.way is None and settings.outbound:
        mistakes.append(f'OUTRIGGER_OUTBOUND: "{settings.outbound}" is not {hint}')
    elif settings.way is None:
        mistakes.append(f'SHOP_NAMES_PORT: "{settings.names_port}" is not the port of the other services')
    if (port := parse_number(settings.port, 65535)) is None:
        mistakes.append(f'PORT: "{settings.port}" is not a port from 0 to 65535')
    if not is_address(settings.listen):
        mistakes.append(f'SHOP_LISTEN: "{settings.listen}" is not an IP address')
    if (delay := parse_number(settings.delay_ms, 60000)) is None:
        mistakes.append(f'SHOP_DELAY_MS: "{settings.delay_ms}" is not a number of milliseconds up to 60000')
    if mistakes:
        sys.exit(fail("; ".join(mistakes)))
    settings.address, settings.delay = (settings.listen, port), delay / 1000
    return settings


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_address(host: str) -> bool:
    try:
        socket.inet_pton(family_of(host), host)
    except OSError:
        return False
    return True


def written(address: tuple) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_number(text: str, most: int) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= most else None


def parse_address(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    number = parse_number(port, 65535)
    # An IPv6 address stands in brackets, and nothing else does.
    bracketed = host.startswith("[") and host.endswith("]")
    host = host.strip("[]")
    if bracketed != (":" in host) or not is_address(host):
        return None
    return None if number is None else (host, number)


def fail(why: str) -> int:
    say(f"shop-recommendations: {why}")
    return 1


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
