"""Exactly so many requests over connections that stay open: for measures that count. wrk counts time, not requests, and both
it and h2load begin with all connections at once, which is too much for a proxy that runs fifty times slower than usual.
"""
import selectors
import socket
import subprocess
import time

REQUEST = "GET / HTTP/1.1\r\nHost: server.default\r\n{}\r\n"
END = b"x" * 128                                       # of meshbench.backend


class Http1:
    """Connections with one request in flight each."""

    def __init__(self, port, conns, token=None, patience=120):
        self.request = REQUEST.format(f"Authorization: Bearer {token}\r\n" if token else "").encode()
        self.socks, self.patience = [], patience
        for i in range(conns):                         # one more at a time, and so the proxies' own
            self.socks.append(connect(port))
            self.run(i + 1)

    def run(self, n):
        todo = n
        with selectors.DefaultSelector() as ready:
            for s in self.socks[:n]:
                s.sendall(self.request)
                todo -= 1
                ready.register(s, selectors.EVENT_READ, bytearray())
            while ready.get_map():
                some = ready.select(self.patience)
                if not some:
                    raise RuntimeError("no answer")
                for key, _ in some:
                    key.data.extend(key.fileobj.recv(16384))
                    if not key.data.startswith(b"HTTP/1.1 200"[:len(key.data)]) or not key.data:
                        raise RuntimeError(f"not an answer: {bytes(key.data[:300])!r}")
                    if not key.data.endswith(END):
                        continue
                    key.data.clear()
                    if todo:
                        key.fileobj.sendall(self.request)
                        todo -= 1
                    else:
                        ready.unregister(key.fileobj)

    def close(self):
        for s in self.socks:
            s.close()


def connect(port):
    """A connection. A proxy's port may be bound anew while it starts."""
    for _ in range(300):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise RuntimeError(f"nobody listens on {port}")


class Http2:
    """h2load, whose few connections are opened anew for each run: take the difference of two."""

    def __init__(self, port, conns, streams, cpus):
        self.argv = ["taskset", "-c", cpus, "h2load", "-t1", f"-c{conns}", f"-m{streams}",
                     "-H", ":authority: server.default", f"http://127.0.0.1:{port}/"]
        self.run(conns * streams)

    def run(self, n):
        out = subprocess.run([*self.argv, f"-n{n}"], capture_output=True, text=True, timeout=600).stdout
        if f" {n} succeeded" not in out or f" {n} 2xx" not in out:
            raise RuntimeError(f"not all of {n} were answered: {out[-600:]}")

    def close(self):
        pass
