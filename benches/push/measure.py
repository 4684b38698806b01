"""Starts control planes, has a thousand sidecars measure them (push-load), and draws what came of it."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import drawing

HERE = Path(__file__).resolve().parent


class ControlPlane:
    """A control plane on a core of its own, with a data folder that may outlive it."""

    def __init__(self, options, data):
        ready = data.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        begun = time.monotonic()
        self.log = open(data.with_suffix(".log"), "ab")
        self.child = subprocess.Popen(
            [*pinned(options.control_cpus), str(options.bin / "outrigger-control"), "--data", str(data),
             "--push", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lease", "1h", "--log", "warn",
             "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL, stderr=self.log)
        while not ready.exists():
            if self.child.poll() is not None or time.monotonic() - begun > 120:
                sys.exit(f"the control plane does not start: {self.log.name}")
            time.sleep(0.002)
        self.started = time.monotonic() - begun
        told = json.loads(ready.read_text())
        self.admin, self.push = told["admin"], told["push"]

    def memory(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        of = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        return {"now": int(of["VmRSS"]) * 1024 / 1e6, "peak": int(of["VmHWM"]) * 1024 / 1e6}

    def load(self, options, *arguments):
        command = [*pinned(options.load_cpus), str(options.bin / "push-load"), "--admin", self.admin,
                   "--push", self.push, "--pid", str(self.child.pid), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=1800)
        if done.returncode:
            self.stop()
            sys.exit(f"failed: {' '.join(command)}")
        return json.loads(done.stdout)

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(30)
        self.log.close()


def pinned(cpus):
    return ["taskset", "-c", cpus] if cpus and shutil.which("taskset") else []


def measure(options):
    results = {"on": machine(options), "sidecars": options.sidecars, "meshes": []}
    for services in options.services:
        with tempfile.TemporaryDirectory(prefix="push-bench-") as folder:
            results["meshes"].append(mesh(options, services, Path(folder) / "data"))
    return results


def mesh(options, services, data):
    shape = ["--sidecars", options.sidecars, "--services", services, "--endpoints", options.endpoints]
    plane = ControlPlane(options, data)
    planted = plane.load(options, *shape, "--only-plant")["planting"]
    plane.stop()
    # The store is there: what a start costs, and what it keeps in memory with nobody connected.
    plane = ControlPlane(options, data)
    start = {"seconds": plane.started, "memory": plane.memory()}
    more = []
    if services == options.churned:
        more = ["--churn-seconds", options.churn_seconds, "--churn", options.churn, "--stalled", options.stalled]
    result = plane.load(options, *shape, "--planted", "--changes", options.changes, *more)
    plane.stop()
    result |= {"planting": planted, "start": start}
    print(json.dumps(result), file=sys.stderr)
    return result


def machine(options):
    def told(*command):
        return subprocess.run(command, capture_output=True, text=True, cwd=HERE).stdout.strip()
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d"), "commit": told("git", "rev-parse", "--short", "HEAD"),
        "changed": bool(told("git", "status", "--porcelain", "--", "../../control-plane", "../../certs")),
        "rust": told("rustc", "--version"), "kernel": platform.release(), "cpu": cpu[0] if cpu else "unknown",
        "cores": os.cpu_count(), "loadAverage": os.getloadavg()[0],
        "controlPlaneOn": options.control_cpus or "all", "loadOn": options.load_cpus or "all",
    }


def main():
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--bin", type=Path, required=True, help="folder of outrigger-control and push-load")
    parse.add_argument("--out", type=Path, default=HERE)
    parse.add_argument("--sidecars", type=int, default=1000)
    parse.add_argument("--services", type=lambda t: [int(n) for n in t.split(",")], default=[100, 1000, 10000])
    parse.add_argument("--endpoints", type=int, default=10)
    parse.add_argument("--changes", type=int, default=50)
    parse.add_argument("--churned", type=int, default=1000, help="the size of mesh that churns")
    parse.add_argument("--churn", type=int, default=1000)
    parse.add_argument("--churn-seconds", type=int, default=60)
    parse.add_argument("--stalled", type=int, default=10)
    parse.add_argument("--control-cpus", default="0")
    parse.add_argument("--load-cpus", default="1" if os.cpu_count() == 2 else f"1-{os.cpu_count() - 1}")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--draw", type=Path, help="only draws these results anew")
    options = parse.parse_args()
    if options.quick:
        options.sidecars, options.services, options.changes = 100, [10, 100], 10
        options.churned, options.churn, options.churn_seconds, options.stalled = 100, 100, 5, 5
    results = json.loads(options.draw.read_text()) if options.draw else measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.draw:
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "table.md").write_text(drawing.table(results))
    (options.out / "push.svg").write_text(drawing.picture(results))
    print(drawing.table(results))


if __name__ == "__main__":
    main()
