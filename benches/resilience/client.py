"""The outside client: requests at a fixed rate, whatever becomes of them, each counted with what came back."""
import asyncio
import time

GIVES_UP = 5.0


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer


class Client:
    """Requests over kept connections to `port`, each its own, taken from those that idle."""

    def __init__(self, port):
        self.port, self.idle, self.got = port, [], []

    async def load(self, rate, until, method="GET", body=b""):
        """`rate` requests a second until `until`, then waits for what is under way."""
        tasks, due = [], time.monotonic()
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask(len(self.got) + len(tasks), method, body)))
            tasks = [t for t in tasks if not t.done()]
            due += 1 / rate
        await asyncio.gather(*tasks)

    async def ask(self, number, method, body):
        number, began = self.number(), time.monotonic()
        try:
            status, reason, origin = await asyncio.wait_for(self.exchange(number, method, body), GIVES_UP)
        except asyncio.TimeoutError:
            status, reason, origin = 0, "no answer", None
        except (OSError, EOFError, ValueError, asyncio.IncompleteReadError):
            status, reason, origin = 0, "cut", None
        self.got.append({"at": began, "took": time.monotonic() - began, "number": number,
                         "status": status, "reason": reason, "origin": origin})

    def number(self):
        self.last = getattr(self, "last", -1) + 1
        return self.last

    async def exchange(self, number, method, body):
        c = self.idle.pop() if self.idle else Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        kept = False
        try:
            head = f"{method} / HTTP/1.1\r\nhost: origin.default\r\nx-number: {number}\r\n"
            c.writer.write((head + (f"content-length: {len(body)}\r\n" if body else "") + "\r\n").encode() + body)
            head = (await c.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            fields = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in head.split("\r\n")[1:])}
            await read_body(c.reader, fields)
            kept = fields.get("connection", "").lower() != "close"
            reason = fields.get("x-outrigger-reason") or fields.get("x-envoy-response-flags", "")
            return status, reason, fields.get("x-origin")
        finally:
            if kept:
                self.idle.append(c)
            else:
                c.writer.transport.abort()

    def close(self):
        for c in self.idle:
            c.writer.close()


async def read_body(reader, fields):
    if "chunked" in fields.get("transfer-encoding", ""):
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        await reader.readexactly(int(fields.get("content-length", 0)))
