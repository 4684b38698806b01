"""One HTTP/2 connection whose frames are read and judged by hyperframe and hpack, and written by hand.

The peer is not believed anything: each of its frames must be one that a server may send at that moment.
"""

import socket
import struct
import time

from hpack import Decoder
from hyperframe import frame as frames

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIO = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL, INTERNAL, FLOW, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
CALM = 0xB

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A busy machine may take its time. What passes does not wait for it.
PATIENCE = 8.0


class Failed(Exception):
    """The peer did not do what the document says."""


class Closed(Exception):
    """The peer closed the connection."""


def raw(kind, flags, stream, payload=b"", length=None):
    """A frame, right or wrong."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def field(name, value):
    """A line that is not put into the table."""
    return b"\x00" + string(name) + string(value)


def block(*fields):
    return b"".join(field(n, v) for n, v in fields)


class Conn:
    """A connection, greeted unless `greet` is false."""

    def __init__(self, address, case, greet=True, settings=()):
        self.sock = socket.create_connection(address, timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.case = case
        self.buffer = b""
        self.decoder = Decoder()
        self.in_block = None
        self.first = True
        self.acked = 0
        self.peer = {}
        self.pings = []
        self.statuses = {}
        self.bodies = {}
        self.ended = set()
        self.resets = {}
        self.goaway = None
        if greet:
            self.send(PREFACE + raw(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *s) for s in settings)))
            self.until(lambda: self.acked and self.peer is not None and not self.first)

    # Writing.

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass  # What it said before it closed is still to be read.

    def frame(self, kind, flags=0, stream=0, payload=b"", length=None):
        self.send(raw(kind, flags, stream, payload, length))

    def fields(self, method="GET", path=None, authority="cart", scheme="http"):
        path = f"/{self.case}" if path is None else path
        return [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]

    def request(self, stream=1, extra=(), flags=END_STREAM | END_HEADERS, **pseudo):
        self.frame(HEADERS, flags, stream, block(*self.fields(**pseudo), *extra))

    def lines(self, *fields, stream=1, flags=END_STREAM | END_HEADERS):
        self.frame(HEADERS, flags, stream, block(*fields))

    def post(self, stream=1, extra=()):
        self.request(stream, extra, END_HEADERS, method="POST")

    def window(self, stream, increment):
        self.frame(WINDOW, 0, stream, struct.pack(">I", increment))

    def settings(self, *pairs):
        self.frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *p) for p in pairs))

    # Reading.

    def until(self, done, patience=PATIENCE):
        end = time.monotonic() + patience
        while not done():
            self.read(end)

    def wait(self, seconds):
        """Reads what comes within `seconds`."""
        try:
            self.until(lambda: False, seconds)
        except TimeoutError:
            pass

    def read(self, end):
        while True:
            if len(self.buffer) >= 9:
                head, length = frames.Frame.parse_frame_header(memoryview(self.buffer[:9]), strict=True)
                if len(self.buffer) >= 9 + length:
                    body, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
                    head.parse_body(memoryview(body))
                    return self.judge(head, length)
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                raise
            except OSError as e:
                raise Closed(str(e)) from e
            if not data:
                raise Closed("end of stream")
            self.buffer += data

    def judge(self, f, length):
        kind = type(f).__name__
        if self.first and not (isinstance(f, frames.SettingsFrame) and "ACK" not in f.flags):
            raise Failed(f"its first frame is {kind}")
        self.first = False
        if length > 16384:
            raise Failed(f"a {kind} of {length} bytes")
        if self.in_block is not None and not isinstance(f, frames.ContinuationFrame):
            raise Failed(f"{kind} within a header block")
        if isinstance(f, frames.SettingsFrame):
            if "ACK" in f.flags:
                self.acked += 1
            else:
                self.peer.update(f.settings)
                self.frame(SETTINGS, ACK)
        elif isinstance(f, frames.PingFrame):
            if "ACK" in f.flags:
                self.pings.append(f.opaque_data)
            else:
                self.frame(PING, ACK, 0, f.opaque_data)
        elif isinstance(f, frames.GoAwayFrame):
            self.goaway = f.error_code
        elif isinstance(f, frames.RstStreamFrame):
            self.resets[f.stream_id] = f.error_code
        elif isinstance(f, (frames.HeadersFrame, frames.ContinuationFrame)):
            data = (self.in_block or b"") + f.data
            if "END_STREAM" in f.flags:
                self.ended.add(f.stream_id)
            self.in_block = None if "END_HEADERS" in f.flags else data
            if self.in_block is None:
                self.head(f.stream_id, self.decoder.decode(data))
        elif isinstance(f, frames.DataFrame):
            if f.stream_id not in self.statuses:
                raise Failed("DATA before HEADERS")
            self.bodies[f.stream_id] = self.bodies.get(f.stream_id, b"") + f.data
            if "END_STREAM" in f.flags:
                self.ended.add(f.stream_id)
        elif isinstance(f, frames.PushPromiseFrame):
            raise Failed("PUSH_PROMISE, which nobody allowed")

    def head(self, stream, fields):
        fields = [(str(n), str(v)) for n, v in fields]
        for name, _ in fields:
            if name != name.lower() or name in ("connection", "transfer-encoding", "keep-alive", "upgrade"):
                raise Failed(f"the field {name} in an answer")
        if stream not in self.statuses or self.statuses[stream] < 200:
            if fields[0][0] != ":status" or any(n.startswith(":") for n, _ in fields[1:]):
                raise Failed(f"the head {fields}")
            self.statuses[stream] = int(fields[0][1])

    # What is expected.

    def connection_error(self, *codes):
        """GOAWAY with one of `codes`, or the end: an endpoint may close without a word."""
        try:
            self.until(lambda: self.goaway not in (None, NO_ERROR))
        except Closed:
            return
        if self.goaway not in codes:
            raise Failed(f"GOAWAY with {self.goaway}, not {codes}")

    def stream_error(self, stream, *codes):
        """RST_STREAM with one of `codes`; an endpoint may make a connection error of it."""
        try:
            self.until(lambda: stream in self.resets or self.goaway not in (None, NO_ERROR))
        except Closed:
            return
        got = self.resets.get(stream, self.goaway)
        if got not in codes:
            raise Failed(f"an error {got}, not {codes}")

    def malformed(self, stream=1):
        """A stream error, or an answer that says that the request is bad."""
        try:
            self.until(
                lambda: stream in self.resets or stream in self.statuses or self.goaway not in (None, NO_ERROR)
            )
        except Closed:
            return
        if stream in self.statuses:
            if not 400 <= self.statuses[stream] < 500:
                raise Failed(f"answered {self.statuses[stream]}")
        elif self.resets.get(stream, self.goaway) != PROTOCOL:
            raise Failed(f"an error {self.resets.get(stream, self.goaway)}")

    def answered(self, stream=1, status=200):
        """An answer to its end."""
        self.until(lambda: stream in self.ended or stream in self.resets or self.goaway not in (None, NO_ERROR))
        if stream not in self.ended or self.statuses.get(stream) != status:
            got = self.statuses.get(stream), self.resets.get(stream), self.goaway
            raise Failed(f"status, reset, goaway: {got}, not {status}")

    def alive(self):
        """It answers a PING."""
        self.frame(PING, 0, 0, b"stillhre")
        self.until(lambda: b"stillhre" in self.pings or self.goaway not in (None, NO_ERROR))
        if self.goaway not in (None, NO_ERROR):
            raise Failed(f"GOAWAY with {self.goaway}")
