#!/usr/bin/env python3
"""Three origins of which each can be told to be faulty while it runs.

Prints its ports as a line of JSON, then takes a command in JSON a line from standard input and answers each with a line:
  {"set": 0, "mode": "ok"}      what origin 0 does from now on; see MODES
  {"take": true}                every request that came since the last time: [when, origin, id, whole]
It ends with its standard input. Times are CLOCK_MONOTONIC, which client and origins share.
"""
import asyncio
import json
import random
import socket
import struct
import sys
import time

MODES = ("ok", "refuse", "status", "reset", "slow", "hang", "limited", "kill")
# Where a connection is cut in mode "kill": at its first byte, between head and body, within the body, after the body
# was taken (the request has then been processed), within the answer, and after the answer, while it idles.
POINTS = ("head", "body", "within", "processed", "answer", "idle")
ANSWER = b"x" * 256
CHANCE = random.Random(4)


class Origin:
    def __init__(self, number, log):
        self.number, self.log, self.mode, self.open = number, log, {"mode": "ok"}, set()
        # Holds the port while nothing listens, so that a connection to it is refused and nobody else gets it.
        self.held = bound(0)
        self.port = self.held.getsockname()[1]
        self.server = None

    async def set(self, mode):
        if mode["mode"] not in MODES:
            raise ValueError(mode)
        self.mode = mode
        if mode["mode"] == "refuse":
            if self.server:
                self.server.close()
                self.server = None
            for writer in list(self.open):
                cut(writer)
        elif self.server is None:
            s = bound(self.port)
            s.listen(1024)
            self.server = await asyncio.start_server(self.serve, sock=s)

    async def serve(self, reader, writer):
        self.open.add(writer)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self.one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def one(self, reader, writer):
        """One request; whether another may follow on its connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        mode = self.mode
        point = CHANCE.choice(POINTS) if mode["mode"] == "kill" and CHANCE.random() < mode["share"] else None
        length, who = int(header(head, "content-length") or 0), int(header(head, "x-number") or -1)
        entry = [time.monotonic(), self.number, who, False, point]
        self.log.append(entry)
        if point in ("head", "body", "within"):
            if point == "within":
                await reader.readexactly(CHANCE.randrange(length) if length else 0)
            return cut(writer)
        await reader.readexactly(length)
        entry[3] = True
        if point == "processed":
            return cut(writer)
        return await self.answer(mode, point, writer)

    async def answer(self, mode, point, writer):
        what, status, more = mode["mode"], 200, ""
        if what == "hang":
            await asyncio.sleep(60)
            return cut(writer)
        if what == "slow":
            await asyncio.sleep(mode["seconds"])
        else:
            await asyncio.sleep(0.004)
        if what == "status":
            status = mode["status"]
        if what == "limited":
            status, more = 429, "retry-after: 1\r\n"
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(ANSWER)}\r\nx-origin: {self.number}\r\n{more}\r\n".encode()
        if what == "reset" or point == "answer":
            writer.write(head + ANSWER[:100])
            await writer.drain()
            await asyncio.sleep(0.002)
            return cut(writer)
        writer.write(head + ANSWER)
        await writer.drain()
        if point == "idle":
            await asyncio.sleep(CHANCE.random() * 0.01)
            return cut(writer)
        return True


def bound(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    return s


def cut(writer):
    """Ends a connection with a reset."""
    s = writer.get_extra_info("socket")
    if s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def header(head, name):
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None


async def main():
    log = []
    origins = [Origin(n, log) for n in range(3)]
    for origin in origins:
        await origin.set({"mode": "ok"})
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps([o.port for o in origins]), flush=True)
    while line := await reader.readline():
        command, said = json.loads(line), "done"
        if "set" in command:
            await origins[command["set"]].set(command)
        if "take" in command:
            said = log[:]
            log.clear()
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
