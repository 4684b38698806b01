#!/usr/bin/env python3
"""A collector that takes everything that is sent to it and keeps nothing: OTLP over HTTP at a port that the system chooses, which
it prints. What it is asked is told at the end, so that a run in which nothing arrived is not taken for a cheap one."""
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self):
        Taker.taken += len(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(f"the collector took {Taker.taken} bytes", flush=True)))
    print(server.server_address[1], flush=True)
    server.serve_forever()
