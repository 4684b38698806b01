#!/usr/bin/env python3
"""The sidecar and Envoy before the same faulty origins, one scenario after the other. See README.md.

  run.py                                   every scenario with every proxy; results.json and the table
  run.py --scenario "brown-out of one"     only some, written nowhere but to the terminal
  run.py --table results.json              the table of results that are there
"""
import argparse
import asyncio
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import scenarios
import table
from proxies import HERE, ROOT, Envoy, Outrigger, OutriggerAuto

PROXIES = {p.name: p for p in (Outrigger, OutriggerAuto, Envoy) if (HERE / p.source).exists()}
# Only where all origins fail does the service breaker differ from one that observes.
AUTO_ONLY = {"all refuse"}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--scenario", action="append", choices=list(scenarios.SCENARIOS))
    ap.add_argument("--proxy", action="append", choices=list(PROXIES))
    ap.add_argument("--reps", type=int, default=3, help="the table shows the median")
    ap.add_argument("--out", default=str(HERE / "results.json"))
    ap.add_argument("--table", metavar="JSON")
    a = ap.parse_args()
    if a.table:
        print(table.markdown(json.loads(Path(a.table).read_text())))
        return
    found = {"about": about(), "results": []}
    for rep in range(a.reps):
        for name in a.scenario or scenarios.SCENARIOS:
            some = [p for p in a.proxy or PROXIES if p != OutriggerAuto.name or name in AUTO_ONLY]
            with tempfile.TemporaryDirectory(prefix="resilience-") as folder:
                for proxy, got in zip(some, asyncio.run(together(name, some, Path(folder)))):
                    row = {"scenario": name, "proxy": proxy, "rep": rep, "load": round(os.getloadavg()[0], 1), **got}
                    found["results"].append(row)
                    print(json.dumps(row), flush=True)
    if not a.scenario and not a.proxy:
        Path(a.out).write_text(json.dumps(found, indent=1) + "\n")
    print(table.markdown(found))


async def together(name, some, folder):
    """A scenario with some proxies at the same time, each with origins and a client of its own: what else the machine
    does meets all alike."""
    runs = [scenarios.run(name, PROXIES[p], folder / str(n)) for n, p in enumerate(some)]
    return await asyncio.gather(*runs)


def about():
    """What was measured, where and when."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"), "outrigger": Outrigger.version(), "envoy": Envoy.version(),
        "machine": f"{cpu[0] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "rate": scenarios.RATE,
    }


if __name__ == "__main__":
    main()
