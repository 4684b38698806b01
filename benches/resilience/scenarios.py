"""What happens to the origins while the client asks, and what is counted of it. Each under 30 seconds."""
import asyncio
import json
import sys
import time

from client import Client
from proxies import HERE

RATE = 200
ORIGINS = 3


class Scene:
    """A proxy before its origins with a client; the origins told what to do."""

    def __init__(self, origins, proxy):
        self.origins, self.client = origins, Client(proxy.port)

    async def tell(self, origin, mode, **more):
        await self.say({"set": origin, "mode": mode, **more})

    async def say(self, command):
        self.origins.stdin.write(json.dumps(command).encode() + b"\n")
        return json.loads(await self.origins.stdout.readline())

    async def all(self, mode, **more):
        for n in range(ORIGINS):
            await self.tell(n, mode, **more)

    async def play(self, seconds, changes, rate=RATE, **kind):
        """The load for so long, and each change (when, what to await) at its time. What came, by client and origins."""
        await self.client.load(100, time.monotonic() + 1)       # connections are there, latencies known
        await asyncio.sleep(0.1)
        await self.say({"take": True})
        self.client.got.clear()
        began = time.monotonic()

        async def change():
            for when, what in changes:
                await asyncio.sleep(max(0.0, began + when - time.monotonic()))
                await what()
        changing = asyncio.create_task(change())
        await self.client.load(rate, began + seconds, **kind)
        await changing
        seen = [{"at": at - began, "origin": o, "number": n, "whole": whole, "point": point}
                for at, o, n, whole, point in await self.say({"take": True})]
        got = [{**g, "at": g["at"] - began} for g in self.client.got]
        return got, seen


async def one_fails(scene, mode, **more):
    """One of three fails from second 2 to the end."""
    got, seen = await scene.play(8, [(2, lambda: scene.tell(0, mode, **more))])
    during = [g for g in got if g["at"] >= 2]
    bad = [g for g in during if failed(g)]
    return {"requests": len(during), "failed": len(bad), "failed_later": sum(g["at"] >= 3 for g in bad),
            "attempts": round(attempts_each(seen, during, 2), 3), "p99_ms": p(during, 99), "statuses": statuses(bad)}


async def all_refuse(scene):
    """None takes a connection, for 4 seconds."""
    got, _ = await scene.play(5, [(1, lambda: scene.all("refuse"))])
    early, late = ([g for g in got if lo <= g["at"] < hi] for lo, hi in ((1, 2), (2, 5)))
    return {"statuses": statuses(late), "first_second_p50_ms": p(early, 50), "first_second_p99_ms": p(early, 99),
            "p50_ms": p(late, 50), "p99_ms": p(late, 99)}


async def brown_out(scene):
    """One answers in 300 ms instead of 4, from second 2 on; counted are seconds 7 to 12."""
    got, seen = await scene.play(12, [(2, lambda: scene.tell(0, "slow", seconds=0.3))])
    late, first = ([g for g in got if lo <= g["at"] < hi] for lo, hi in ((7, 12), (2, 7)))
    return {"share": share(seen, 7, 12), "share_first": share(seen, 2, 7), "p99_ms": p(late, 99), "p99_first_ms": p(first, 99),
            "failed": sum(map(failed, got))}


async def hangs(scene):
    """One takes requests and never answers, from second 2 to the end; the client gives up after 5 seconds."""
    got, seen = await scene.play(10, [(2, lambda: scene.tell(0, "hang"))])
    during = [g for g in got if g["at"] >= 2]
    return {"requests": len(during), "failed": sum(map(failed, during)),
            "failed_later": sum(failed(g) for g in during if g["at"] >= 3), "to_it": share(seen, 3, 10)}


async def limited(scene):
    """One answers 429 with Retry-After from second 2 to the end."""
    got, seen = await scene.play(6, [(2, lambda: scene.tell(0, "limited"))])
    during = [g for g in got if g["at"] >= 2]
    return {"requests": len(during), "limited": sum(g["status"] == 429 for g in during),
            "attempts": round(attempts_each(seen, during, 2), 3), "to_it": share(seen, 3, 6)}


async def recovery(scene, fault="status", **more):
    """One fails from second 1 to 5 and is sound from then on, to second 24."""
    more = more or {"status": 503}
    back = 5
    got, seen = await scene.play(24, [(1, lambda: scene.tell(0, fault, **more)), (back, lambda: scene.tell(0, "ok"))])
    steady = RATE / ORIGINS
    times = sorted(s["at"] for s in seen if s["origin"] == 0 and s["at"] >= back)
    return {"failed": sum(map(failed, got)), "failed_after": sum(failed(g) for g in got if g["at"] >= back),
            "back_after_s": share_back(times, back, steady),
            "highest_rate": round(max((sum(t <= u < t + 1 for u in times) for t in times), default=0) / steady, 2),
            "attempts_while_failing": sum(s["origin"] == 0 and 1 <= s["at"] < back for s in seen)}


async def posts(scene):
    """POSTs of 8 KiB; of the requests that reach an origin 15 % find their connection cut, at random points."""
    got, seen = await scene.play(15, [(0, lambda: scene.all("kill", share=0.15))], method="POST", body=b"y" * 8192)
    whole = {}
    for s in seen:
        if s["whole"]:
            whole[s["number"]] = whole.get(s["number"], 0) + 1
    tried = {}
    for s in seen:
        tried[s["number"]] = tried.get(s["number"], 0) + 1
    bad = [g for g in got if failed(g)]
    return {"requests": len(got), "cut": sum(s["point"] is not None for s in seen), "twice": sum(n > 1 for n in whole.values()),
            "succeeded": len(got) - len(bad), "failed_processed": sum(g["number"] in whole for g in bad),
            "failed_unprocessed": sum(g["number"] not in whole for g in bad),
            "failed_never_sent": sum(g["number"] not in tried for g in bad), "statuses": statuses(bad)}


SCENARIOS = {
    "one of three refuses connections": lambda s: one_fails(s, "refuse"),
    "one of three answers 503": lambda s: one_fails(s, "status", status=503),
    "one of three answers 500": lambda s: one_fails(s, "status", status=500),
    "one of three resets within the answer": lambda s: one_fails(s, "reset"),
    "one of three hangs": hangs,
    "one of three answers 429": limited,
    "all refuse": all_refuse,
    "brown-out of one": brown_out,
    "recovery of one": recovery,
    "POSTs under cut connections": posts,
}


async def run(name, make_proxy, folder):
    """One scenario with one proxy, everything started for it and ended after it."""
    origins = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "origins.py"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=1 << 24)
    proxy = None
    try:
        ports = json.loads(await origins.stdout.readline())
        proxy = await asyncio.to_thread(make_proxy, folder, ports)
        scene = Scene(origins, proxy)
        found = await asyncio.wait_for(SCENARIOS[name](scene), 40)
        scene.client.close()
        return found
    finally:
        if proxy:
            proxy.stop()
        if origins.returncode is None:
            origins.terminate()
        await origins.wait()


def failed(g):
    return not 200 <= g["status"] < 300


def p(got, percent):
    """A percentile of the latencies, in milliseconds."""
    times = sorted(g["took"] for g in got)
    return round(times[min(len(times) - 1, len(times) * percent // 100)] * 1e3, 1) if times else None


def statuses(got):
    """How often which status with which reason."""
    counts = {}
    for g in got:
        key = f"{g['status'] or ''} {g['reason'] or ''}".strip()
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda kv: -kv[1]))


def attempts_each(seen, got, since):
    numbers = {g["number"] for g in got}
    return sum(s["number"] in numbers for s in seen if s["at"] >= since) / max(1, len(got))


def share(seen, since, until):
    """The first origin's share of what came in these seconds."""
    seen = [s for s in seen if since <= s["at"] < until]
    return round(sum(s["origin"] == 0 for s in seen) / max(1, len(seen)), 3)


def share_back(times, back, steady):
    """Seconds from `back` until for two seconds 80 % of its share comes; None where that is never."""
    for t in (back + x / 10 for x in range(170)):
        if sum(t <= u < t + 2 for u in times) >= 0.8 * steady * 2:
            return round(t - back, 1)
    return None
