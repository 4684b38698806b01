"""The framing of HTTP/2 by RFC 9113 (and the header compression it uses, RFC 7541), section by section.

    suite.py HOST PORT

Each case is a connection of its own to a server that answers GET and POST of `cart` with 200. A line of JSON a case:
its id, what it is about, whether it passed, and whether its request may reach what stands behind the server (its path is
the id). hyperframe and hpack read what the server says; what is sent is written by hand, since much of it is wrong.
"""

import json
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

from wire import *  # noqa: F403: the vocabulary of the cases

CASES = []


def case(section, about, reaches=False, greet=True, settings=()):
    """Registers a case of `section`. `reaches`: whether its request may be passed on."""

    def register(run):
        number = sum(1 for c in CASES if c["section"] == section) + 1
        CASES.append(
            {"id": f"{section}-{number}", "section": section, "about": about, "reaches": reaches, "run": run,
             "greet": greet, "settings": settings}
        )
        return run

    return register


def malformed_request(section, about, *change, **pseudo):
    """A request with `change` appended to its fields, or with other pseudo fields, that must not be answered with 2xx."""

    @case(section, about)
    def _(c):
        c.request(1, change, **pseudo)
        c.malformed()


def fields_of(section, about, make, reaches=False):
    """A request whose fields are what `make` makes of the ordinary ones."""

    @case(section, about, reaches)
    def _(c):
        c.lines(*make(c.fields()))
        if reaches:
            c.answered()
        else:
            c.malformed()


# 3.4 The preface


@case("3.4", "an invalid preface ends the connection", greet=False)
def _(c):
    c.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + raw(SETTINGS, 0, 0))
    c.connection_error(PROTOCOL)


@case("3.4", "the preface is followed by SETTINGS", greet=False)
def _(c):
    c.send(PREFACE + raw(PING, 0, 0, bytes(8)))
    c.connection_error(PROTOCOL)


@case("3.4", "the server's SETTINGS come first and ours are acknowledged", greet=False)
def _(c):
    c.send(PREFACE + raw(SETTINGS, 0, 0))
    c.until(lambda: c.acked == 1)


@case("3.4", "a request may follow the preface at once", reaches=True, greet=False)
def _(c):
    c.send(PREFACE + raw(SETTINGS, 0, 0))
    c.request()
    c.answered()


# 4.1 Frames


@case("4.1", "frames of an unknown kind are ignored", reaches=True)
def _(c):
    c.frame(0x16, 0xFF, 0, bytes(8))
    c.frame(0xF0, 0, 1, b"")
    c.request()
    c.answered()


@case("4.1", "unknown flags are ignored")
def _(c):
    c.frame(PING, 0xFE, 0, b"flagged!")
    c.until(lambda: b"flagged!" in c.pings)


@case("4.1", "the reserved bit is ignored", reaches=True)
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 0x80000001, block(*c.fields()))
    c.answered()


# 4.2 Frame size


@case("4.2", "a frame of 2^14 bytes is taken", reaches=True)
def _(c):
    c.post()
    c.frame(DATA, END_STREAM, 1, bytes(16384))
    c.answered()


@case("4.2", "DATA beyond the largest frame")
def _(c):
    c.post()
    c.frame(DATA, END_STREAM, 1, bytes(16385))
    c.stream_error(1, FRAME_SIZE)


@case("4.2", "HEADERS beyond the largest frame")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, block(*c.fields()) + field("x", "v" * 100) * 160)
    c.connection_error(FRAME_SIZE)


@case("4.2", "SETTINGS beyond the largest frame")
def _(c):
    c.frame(SETTINGS, 0, 0, struct.pack(">HI", 0xF0F0, 1) * 2731)
    c.connection_error(FRAME_SIZE)


# 4.3 Header compression


@case("4.3", "a block that can not be decoded")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x00\x01")
    c.connection_error(COMPRESSION)


for about, between in [
    ("PRIORITY", lambda c: c.frame(PRIORITY, 0, 1, bytes(4) + b"\xff")),
    ("HEADERS of another stream", lambda c: c.request(3)),
    ("DATA", lambda c: c.frame(DATA, END_STREAM, 1, b"x")),
    ("PING", lambda c: c.frame(PING, 0, 0, bytes(8))),
    ("SETTINGS", lambda c: c.frame(SETTINGS)),
    ("WINDOW_UPDATE", lambda c: c.window(0, 1)),
    ("a frame of an unknown kind", lambda c: c.frame(0x16, 0, 0, b"")),
    ("HEADERS of the same stream", lambda c: c.request(1)),
]:

    @case("4.3", f"{about} within a header block")
    def _(c, between=between):
        c.request(flags=END_STREAM)
        between(c)
        c.frame(CONTINUATION, END_HEADERS, 1, b"")
        c.connection_error(PROTOCOL)


@case("4.3", "a block is decoded as one, wherever it is split", reaches=True)
def _(c):
    whole = block(*c.fields())
    c.frame(HEADERS, END_STREAM, 1, whole[:7])
    c.frame(CONTINUATION, 0, 1, whole[7:30])
    c.frame(CONTINUATION, 0, 1, b"")
    c.frame(CONTINUATION, END_HEADERS, 1, whole[30:])
    c.answered()


# 5.1 Streams

for about, on_idle in [
    ("DATA", lambda c: c.frame(DATA, END_STREAM, 1, b"x")),
    ("RST_STREAM", lambda c: c.frame(RST, 0, 1, struct.pack(">I", CANCEL))),
    ("WINDOW_UPDATE", lambda c: c.window(1, 100)),
    ("CONTINUATION", lambda c: c.frame(CONTINUATION, END_HEADERS, 1, b"")),
]:

    @case("5.1", f"{about} on an idle stream")
    def _(c, on_idle=on_idle):
        on_idle(c)
        c.connection_error(PROTOCOL)


@case("5.1", "PRIORITY on an idle stream is borne", reaches=True)
def _(c):
    c.frame(PRIORITY, 0, 3, bytes(4) + b"\x10")
    c.request()
    c.answered()


AFTER = [
    ("DATA", lambda c: c.frame(DATA, END_STREAM, 1, b"x"), (STREAM_CLOSED,)),
    ("HEADERS", lambda c: c.request(1), (STREAM_CLOSED, PROTOCOL)),
    ("CONTINUATION", lambda c: c.frame(CONTINUATION, END_HEADERS, 1, b""), (STREAM_CLOSED, PROTOCOL)),
]
for about, late, codes in AFTER:

    @case("5.1", f"{about} on a stream that is half closed", reaches=True, settings=((4, 0),))
    def _(c, late=late, codes=codes):
        c.request()
        late(c)
        c.stream_error(1, *codes)


for about, late, codes in AFTER:

    @case("5.1", f"{about} after RST_STREAM", reaches=True, settings=((4, 0),))
    def _(c, late=late, codes=codes):
        c.request()
        c.frame(RST, 0, 1, struct.pack(">I", CANCEL))
        late(c)
        # Frames that were under way when we reset: some servers bear them for a while.
        try:
            c.stream_error(1, *codes)
        except TimeoutError:
            c.alive()


for about, late, codes in AFTER:

    @case("5.1", f"{about} on a stream that is closed", reaches=True)
    def _(c, late=late, codes=codes):
        c.request()
        c.answered()
        late(c)
        c.stream_error(1, *codes)


for about, late in [
    ("WINDOW_UPDATE", lambda c: c.window(1, 1)),
    ("RST_STREAM", lambda c: c.frame(RST, 0, 1, struct.pack(">I", CANCEL))),
    ("PRIORITY", lambda c: c.frame(PRIORITY, 0, 1, bytes(4) + b"\x10")),
]:

    @case("5.1", f"{about} on a stream that is closed is borne", reaches=True)
    def _(c, late=late):
        c.request()
        c.answered()
        late(c)
        c.alive()


# 5.1.1 Stream identifiers


@case("5.1.1", "an even number")
def _(c):
    c.request(2)
    c.connection_error(PROTOCOL)


@case("5.1.1", "a number below one that was used", reaches=True)
def _(c):
    c.request(5)
    c.answered(5)
    c.request(3)
    c.connection_error(PROTOCOL, STREAM_CLOSED)


@case("5.1.1", "numbers may be left out, and those below are then closed", reaches=True)
def _(c):
    c.request(1)
    c.request(1001)
    c.answered(1)
    c.answered(1001)


# 5.1.2 Concurrency


@case("5.1.2", "streams beyond the limit are refused", reaches=True, settings=((4, 0),))
def _(c):
    limit = c.peer[3]
    for n in range(limit + 1):
        c.request(2 * n + 1)
    c.stream_error(2 * limit + 1, REFUSED, PROTOCOL)


@case("5.1.2", "a stream that ended makes room", reaches=True)
def _(c):
    for n in range(c.peer[3] * 2):
        c.request(2 * n + 1)
        c.answered(2 * n + 1)


# 5.2 Flow control


@case("5.2", "the stream's window of the server is kept by it: more is an error", reaches=True)
def _(c):
    c.post()
    window = c.peer.get(4, 65535)
    for _ in range(window // 16384 + 3):
        c.frame(DATA, 0, 1, bytes(16384))
    # A server may open the window as it takes what came. If it does, nothing is wrong.
    c.wait(0.3)
    if 1 in c.resets and c.resets[1] != FLOW:
        raise Failed(f"reset with {c.resets[1]}")


@case("5.2", "the server sends nothing into a shut window", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.until(lambda: 1 in c.statuses)
    c.wait(0.2)
    if c.bodies.get(1):
        raise Failed("DATA into a window of 0")
    c.window(1, 65535)
    c.answered()


# 5.3 Priority


@case("5.3.1", "a stream that depends on itself is borne or an error of the stream", reaches=True)
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS | PRIO, 1, struct.pack(">IB", 1, 1) + block(*c.fields()))
    c.until(lambda: 1 in c.ended or 1 in c.resets or c.goaway)


@case("5.3.2", "HEADERS with priority fields", reaches=True)
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS | PRIO, 1, struct.pack(">IB", 0, 255) + block(*c.fields()))
    c.answered()


# 5.4.1 Connection errors


@case("5.4.1", "an error of the connection closes it")
def _(c):
    c.frame(PING, 0, 1, bytes(8))
    try:
        c.until(lambda: False)
    except Closed:
        return
    raise Failed("it stays open")


# 5.5 Extensions


@case("5.5", "unknown settings are ignored", reaches=True)
def _(c):
    c.settings((0xF00D, 1), (0x0, 7))
    c.request()
    c.answered()
    c.until(lambda: c.acked == 2)


# 6.1 DATA


@case("6.1", "DATA on stream 0")
def _(c):
    c.frame(DATA, 0, 0, b"x")
    c.connection_error(PROTOCOL)


@case("6.1", "padding as long as the payload")
def _(c):
    c.post()
    c.frame(DATA, END_STREAM | PADDED, 1, b"\x06hello")
    c.connection_error(PROTOCOL)


@case("6.1", "padding is taken away", reaches=True)
def _(c):
    c.post(extra=[("content-length", "5")])
    c.frame(DATA, END_STREAM | PADDED, 1, b"\x03hello" + bytes(3))
    c.answered()


@case("6.1", "padding of no payload at all")
def _(c):
    c.post()
    c.frame(DATA, END_STREAM | PADDED, 1, b"")
    c.connection_error(PROTOCOL, FRAME_SIZE)


# 6.2 HEADERS


@case("6.2", "HEADERS on stream 0")
def _(c):
    c.request(0)
    c.connection_error(PROTOCOL)


@case("6.2", "padding longer than what is left")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\xff" + block(*c.fields()))
    c.connection_error(PROTOCOL)


@case("6.2", "padding and priority are taken away", reaches=True)
def _(c):
    payload = b"\x04" + struct.pack(">IB", 0, 9) + block(*c.fields()) + bytes(4)
    c.frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIO, 1, payload)
    c.answered()


@case("6.2", "too short for the priority it says it has")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS | PRIO, 1, b"\x00\x00")
    c.connection_error(PROTOCOL, FRAME_SIZE)


# 6.3 PRIORITY


@case("6.3", "PRIORITY on stream 0")
def _(c):
    c.frame(PRIORITY, 0, 0, bytes(5))
    c.connection_error(PROTOCOL)


@case("6.3", "PRIORITY of 4 bytes", settings=((4, 0),), reaches=True)
def _(c):
    c.request()
    c.frame(PRIORITY, 0, 1, bytes(4))
    c.stream_error(1, FRAME_SIZE)


# 6.4 RST_STREAM


@case("6.4", "RST_STREAM on stream 0")
def _(c):
    c.frame(RST, 0, 0, struct.pack(">I", CANCEL))
    c.connection_error(PROTOCOL)


@case("6.4", "RST_STREAM of 3 bytes", settings=((4, 0),), reaches=True)
def _(c):
    c.request()
    c.frame(RST, 0, 1, bytes(3))
    c.connection_error(FRAME_SIZE)


@case("6.4", "a reset stream is not answered further", settings=((4, 0),), reaches=True)
def _(c):
    c.request()
    c.until(lambda: 1 in c.statuses)
    c.frame(RST, 0, 1, struct.pack(">I", CANCEL))
    c.alive()
    c.window(1, 65535)
    c.alive()
    if c.bodies.get(1):
        raise Failed("DATA after RST_STREAM")


# 6.5 SETTINGS


@case("6.5", "an acknowledgement with a payload")
def _(c):
    c.frame(SETTINGS, ACK, 0, b"\x00")
    c.connection_error(FRAME_SIZE)


@case("6.5", "SETTINGS on a stream")
def _(c):
    c.frame(SETTINGS, 0, 1, b"")
    c.connection_error(PROTOCOL)


@case("6.5", "SETTINGS whose length is no multiple of 6")
def _(c):
    c.frame(SETTINGS, 0, 0, bytes(5))
    c.connection_error(FRAME_SIZE)


for about, pair, codes in [
    ("ENABLE_PUSH of 2", (2, 2), (PROTOCOL,)),
    ("INITIAL_WINDOW_SIZE above 2^31-1", (4, 1 << 31), (FLOW,)),
    ("MAX_FRAME_SIZE below 2^14", (5, 16383), (PROTOCOL,)),
    ("MAX_FRAME_SIZE above 2^24-1", (5, 1 << 24), (PROTOCOL,)),
]:

    @case("6.5.2", about)
    def _(c, pair=pair, codes=codes):
        c.settings(pair)
        c.connection_error(*codes)


@case("6.5.3", "values are taken in order, and the last one counts", reaches=True)
def _(c):
    c.settings((4, 100), (4, 1))
    c.until(lambda: c.acked == 2)
    c.request()
    c.until(lambda: c.bodies.get(1))
    c.wait(0.2)
    if len(c.bodies[1]) != 1:
        raise Failed(f"{len(c.bodies[1])} bytes into a window of 1")


@case("6.5.3", "each SETTINGS is acknowledged")
def _(c):
    for _ in range(5):
        c.settings((3, 100))
    c.until(lambda: c.acked == 6)


@case("6.5.2", "a peer's small header table is obeyed", reaches=True, settings=((1, 0),))
def _(c):
    c.decoder.header_table_size = 0
    for stream in (1, 3, 5):
        c.request(stream)
        c.answered(stream)


# 6.6 PUSH_PROMISE


@case("6.6", "a client does not push")
def _(c):
    c.frame(PUSH, END_HEADERS, 1, struct.pack(">I", 2) + block(*c.fields()))
    c.connection_error(PROTOCOL)


# 6.7 PING


@case("6.7", "PING is answered with what it carries")
def _(c):
    c.frame(PING, 0, 0, b"\x01\x02\x03\x04\xff\xfe\xfd\x00")
    c.until(lambda: b"\x01\x02\x03\x04\xff\xfe\xfd\x00" in c.pings)


@case("6.7", "the answer to a PING is not answered")
def _(c):
    c.frame(PING, ACK, 0, b"unasked!")
    c.alive()
    if b"unasked!" in c.pings:
        raise Failed("it was answered")


@case("6.7", "PING on a stream")
def _(c):
    c.frame(PING, 0, 1, bytes(8))
    c.connection_error(PROTOCOL)


@case("6.7", "PING of 6 bytes")
def _(c):
    c.frame(PING, 0, 0, bytes(6))
    c.connection_error(FRAME_SIZE)


# 6.8 GOAWAY


@case("6.8", "GOAWAY on a stream")
def _(c):
    c.frame(GOAWAY, 0, 1, bytes(8))
    c.connection_error(PROTOCOL)


@case("6.8", "a client that says goodbye still gets its answers", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.until(lambda: 1 in c.statuses)
    c.frame(GOAWAY, 0, 0, bytes(8))
    c.window(1, 65535)
    c.answered()


@case("6.8", "GOAWAY of an unknown code and with debug data", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.until(lambda: 1 in c.statuses)
    c.frame(GOAWAY, 0, 0, bytes(4) + struct.pack(">I", 0xFFFF) + b"why")
    c.window(1, 65535)
    try:
        c.answered()
    except Closed:
        pass  # It may take the word for an error.


# 6.9 WINDOW_UPDATE


@case("6.9", "an increment of 0 for the connection")
def _(c):
    c.window(0, 0)
    c.connection_error(PROTOCOL)


@case("6.9", "an increment of 0 for a stream", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.window(1, 0)
    c.stream_error(1, PROTOCOL)


@case("6.9", "WINDOW_UPDATE of 3 bytes")
def _(c):
    c.frame(WINDOW, 0, 0, bytes(3))
    c.connection_error(FRAME_SIZE)


@case("6.9.1", "the connection's window beyond 2^31-1")
def _(c):
    c.window(0, (1 << 31) - 1)
    c.window(0, (1 << 31) - 1)
    c.connection_error(FLOW)


@case("6.9.1", "a stream's window beyond 2^31-1", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.window(1, (1 << 31) - 1)
    c.window(1, (1 << 31) - 1)
    c.stream_error(1, FLOW)


@case("6.9.1", "as much is sent as the window allows", reaches=True, settings=((4, 3),))
def _(c):
    c.request()
    c.until(lambda: c.bodies.get(1))
    c.window(1, 2)
    c.until(lambda: len(c.bodies[1]) == 5)
    c.wait(0.1)
    if len(c.bodies[1]) != 5:
        raise Failed(f"{len(c.bodies[1])} bytes into a window of 5")


@case("6.9.2", "a new initial window changes open streams", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.until(lambda: 1 in c.statuses)
    c.settings((4, 1))
    c.until(lambda: c.bodies.get(1))
    if len(c.bodies[1]) != 1:
        raise Failed(f"{len(c.bodies[1])} bytes into a window of 1")


@case("6.9.2", "a window may become negative", reaches=True, settings=((4, 3),))
def _(c):
    c.request()
    c.until(lambda: len(c.bodies.get(1, b"")) == 3)
    c.settings((4, 2))
    c.window(1, 2)
    c.until(lambda: len(c.bodies[1]) == 4)
    c.wait(0.1)
    if len(c.bodies[1]) != 4:
        raise Failed(f"{len(c.bodies[1])} bytes into a window of 4")


@case("6.9.2", "an initial window that lifts a stream's beyond 2^31-1", reaches=True, settings=((4, 0),))
def _(c):
    c.post()
    c.window(1, (1 << 31) - 1)
    c.alive()
    c.settings((4, 1 << 30))
    c.connection_error(FLOW)


# 6.10 CONTINUATION


@case("6.10", "CONTINUATION on stream 0")
def _(c):
    c.request(flags=END_STREAM)
    c.frame(CONTINUATION, END_HEADERS, 0, field("x", "y"))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION of another stream")
def _(c):
    c.request(flags=END_STREAM)
    c.frame(CONTINUATION, END_HEADERS, 3, field("x", "y"))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION after a block that has ended", reaches=True)
def _(c):
    c.post()
    c.frame(CONTINUATION, END_HEADERS, 1, field("x", "y"))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION after CONTINUATION that ended the block", reaches=True)
def _(c):
    c.request(flags=0, method="POST")
    c.frame(CONTINUATION, END_HEADERS, 1, field("x", "y"))
    c.frame(CONTINUATION, END_HEADERS, 1, field("x", "y"))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION after DATA", reaches=True)
def _(c):
    c.post()
    c.frame(DATA, 0, 1, b"x")
    c.frame(CONTINUATION, END_HEADERS, 1, field("x", "y"))
    c.connection_error(PROTOCOL)


# 7 Error codes


@case("7", "RST_STREAM of an unknown code", reaches=True, settings=((4, 0),))
def _(c):
    c.request()
    c.frame(RST, 0, 1, struct.pack(">I", 0xFFFF))
    c.alive()


# 8.1 Messages


@case("8.1", "trailers", reaches=True)
def _(c):
    c.post()
    c.frame(DATA, 0, 1, b"hello")
    c.lines(("x-sum", "1"))
    c.answered()


@case("8.1", "trailers that do not end the stream", reaches=True)
def _(c):
    c.post()
    c.frame(DATA, 0, 1, b"hello")
    c.lines(("x-sum", "1"), flags=END_HEADERS)
    c.malformed()


@case("8.1", "a pseudo field in trailers", reaches=True)
def _(c):
    c.post()
    c.frame(DATA, 0, 1, b"hello")
    c.lines((":method", "POST"))
    c.malformed()


@case("8.1", "an upper-case name in trailers", reaches=True)
def _(c):
    c.post()
    c.frame(DATA, 0, 1, b"hello")
    c.lines(("X-Sum", "1"))
    c.malformed()


@case("8.1.1", "DATA longer than content-length", reaches=True)
def _(c):
    c.post(extra=[("content-length", "1")])
    c.frame(DATA, END_STREAM, 1, b"hello")
    c.malformed()


@case("8.1.1", "DATA shorter than content-length", reaches=True)
def _(c):
    c.post(extra=[("content-length", "9")])
    c.frame(DATA, END_STREAM, 1, b"hello")
    c.malformed()


@case("8.1.1", "several DATA longer than content-length", reaches=True)
def _(c):
    c.post(extra=[("content-length", "6")])
    c.frame(DATA, 0, 1, b"hello")
    c.frame(DATA, END_STREAM, 1, b"hello")
    c.malformed()


malformed_request("8.1.1", "content-length without DATA", ("content-length", "5"), method="POST")
malformed_request("8.1.1", "content-length that differ", ("content-length", "0"), ("content-length", "5"), method="POST")
malformed_request("8.1.1", "content-length that is no number", ("content-length", "+0"), method="POST")

# 8.2 Fields

for about, name in [
    ("an upper-case name", "X-Upper"),
    ("a blank in a name", "x y"),
    ("a colon in a name", "x:y"),
    ("NUL in a name", b"x\x00y"),
    ("CR in a name", b"x\ry"),
    ("LF in a name", b"x\ny"),
    ("a byte above 0x7f in a name", b"x\xe9"),
    ("an empty name", ""),
]:
    malformed_request("8.2.1", about, (name, "v"))
for about, value in [
    ("NUL in a value", b"a\x00b"),
    ("CR in a value", b"a\rb"),
    ("LF in a value", b"a\nb"),
]:
    malformed_request("8.2.1", about, ("x-value", value))


@case("8.2.1", "a byte above 0x7f in a value is no fault", reaches=True)
def _(c):
    c.request(extra=[("x-value", b"caf\xc3\xa9")])
    c.answered()


for name, value in [
    ("connection", "close"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("te", "gzip"),
    ("te", "trailers, deflate"),
]:
    malformed_request("8.2.2", f"the field {name}: {value}", (name, value))


@case("8.2.2", "te: trailers", reaches=True)
def _(c):
    c.request(extra=[("te", "trailers")])
    c.answered()


@case("8.2.3", "crumbs of a cookie", reaches=True)
def _(c):
    c.request(extra=[("cookie", "a=b"), ("cookie", "c=d"), ("x", "y"), ("cookie", "e=f")])
    c.answered()
    if b"a=b; c=d; e=f" not in c.bodies[1]:
        raise Failed("they were not joined in their order")


# 8.3 Pseudo fields

for pseudo in (":method", ":scheme", ":path", ":authority"):
    fields_of("8.3", f"two {pseudo}", lambda fields, p=pseudo: fields + [f for f in fields if f[0] == p])
for pseudo in (":method", ":scheme", ":path"):
    fields_of("8.3", f"no {pseudo}", lambda fields, p=pseudo: [f for f in fields if f[0] != p])
fields_of("8.3", "a pseudo field after a field", lambda fields: [*fields[:3], ("x", "y"), fields[3]])
fields_of("8.3", "an unknown pseudo field", lambda fields: [*fields, (":unknown", "x")])
fields_of("8.3", "a pseudo field of answers", lambda fields: [*fields, (":status", "200")])
fields_of("8.3", "a pseudo field in upper case", lambda fields: [(":Method", "GET"), *fields[1:]])
fields_of("8.3", "pseudo fields in another order", lambda fields: fields[::-1], reaches=True)
fields_of("8.3", "host instead of :authority", lambda fields: [*fields[:3], ("host", "cart")], reaches=True)
fields_of("8.3", "host equal to :authority", lambda fields: [*fields, ("host", "cart")], reaches=True)
fields_of("8.3", "neither host nor :authority", lambda fields: fields[:3])
malformed_request("8.3.1", "host that differs from :authority", ("host", "prices"))
malformed_request("8.3.1", "an empty :path", path="")
malformed_request("8.3.1", "a :path without a slash", path="x")
malformed_request("8.3.1", "* as :path of GET", path="*")
malformed_request("8.3.1", "a fragment in :path", path="/a#b")
malformed_request("8.3.1", "a blank in :path", path="/a b")
malformed_request("8.3.1", "LF in :path", path="/a\nb")
malformed_request("8.3.1", "an absolute URI as :path", path="http://cart/")
malformed_request("8.3.1", "userinfo in :authority", authority="user@cart")
malformed_request("8.3.1", "a blank in :authority", authority="ca rt")
malformed_request("8.3.1", "an empty :authority", authority="")
malformed_request("8.3.1", "a :method that is no token", method="GE T")
malformed_request("8.3.1", "an empty :method", method="")
malformed_request("8.3.1", "an empty :scheme", scheme="")
fields_of("8.5", "CONNECT with :scheme and :path", lambda fields: [(":method", "CONNECT"), *fields[1:]])
fields_of("8.5", "CONNECT without :authority", lambda fields: [(":method", "CONNECT")])
malformed_request("8.5", ":protocol without CONNECT", (":protocol", "websocket"))

# RFC 7541


def compression_error(section, about, payload):
    @case(section, about)
    def _(c):
        c.frame(HEADERS, END_STREAM | END_HEADERS, 1, block(*c.fields()) + payload)
        c.connection_error(COMPRESSION)


compression_error("hpack-2.3.3", "an index beyond both tables", b"\xc6")
compression_error("hpack-2.3.3", "an index beyond both tables for a name", b"\x7f\x07\x01v")
compression_error("hpack-4.2", "a change of the table's size at the end of a block", b"\x20")
compression_error("hpack-5.1", "an integer without an end", b"\xff" + b"\xff" * 20)
compression_error("hpack-5.2", "a string longer than the block", b"\x00\x05a")
compression_error("hpack-5.2", "Huffman padding of more than 7 bits", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")
compression_error("hpack-5.2", "Huffman padding of zeros", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")
compression_error("hpack-5.2", "EOS in Huffman", b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x50\x93\xff\xff\xff\xff")
compression_error("hpack-6.1", "the index 0", b"\x80")


@case("hpack-6.3", "a table larger than we said")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x3f\xe1\xff\x03" + block(*c.fields()))
    c.connection_error(COMPRESSION)


@case("hpack-6.3", "changes of the table's size at the beginning", reaches=True)
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + block(*c.fields()))
    c.answered()


@case("hpack-3.2", "the table is kept over requests, malformed ones too", reaches=True)
def _(c):
    kept = b"\x40" + string("x-kept") + string("here")
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, block(*c.fields(path="")) + kept)
    c.malformed(1)
    c.frame(HEADERS, END_STREAM | END_HEADERS, 3, block(*c.fields()) + b"\xbe")
    c.answered(3)
    if b"x-kept" not in c.bodies[3]:
        raise Failed("the field was lost")


@case("hpack-5.2", "a value in Huffman", reaches=True)
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, block(*c.fields()) + b"\x00\x01x\x83\x49\x50\x9f")
    c.answered()


def judged(address, case):
    result = {key: case[key] for key in ("id", "about", "reaches")}
    try:
        case["run"](Conn(address, case["id"], case["greet"], case["settings"]))
        return {**result, "ok": True, "why": ""}
    except TimeoutError:
        why = "nothing came"
    except Closed as e:
        why = f"closed: {e}"
    except Exception as e:  # noqa: BLE001: a frame that hyperframe or hpack can not read fails the case as well
        why = f"{type(e).__name__}: {e}"
    return {**result, "ok": False, "why": why}


def main():
    address = (sys.argv[1], int(sys.argv[2]))
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda c: judged(address, c), CASES):
            print(json.dumps(result))


main()
