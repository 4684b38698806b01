"""Counts what does not depend on how busy the machine is: instructions and allocations (valgrind's callgrind, user space
only) and system calls (strace).

A proxy is loaded with exactly N and then 2N requests over the same or as many connections; the difference is N requests and
nothing else: what starting, connecting, handshakes and closing cost falls out.
"""
import re
import subprocess
import time

ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"}
# Copies by `rep movsb` would count as one instruction a byte.
ENV = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS,-FSRM"}


def under_callgrind(workdir, role):
    """The words before a proxy's command line."""
    return ["valgrind", "--tool=callgrind", "--vgdb=yes", f"--callgrind-out-file={workdir}/{role}.%p.callgrind"]


class Callgrind:
    """One proxy that runs under callgrind (with whatever it forks)."""

    def __init__(self, proc, workdir):
        self.proc, self.workdir = proc, workdir
        self.part = len(list(workdir.glob(f"{proc.role}.{proc.pid}.callgrind.*")))     # of counts before this one

    def take(self):
        """Instructions and allocations since the last call."""
        self.part += 1
        instructions = allocations = 0
        for pid in self.proc.pids():
            asked = subprocess.run(["vgdb", f"--pid={pid}", "dump"], capture_output=True, text=True, timeout=120)
            if asked.returncode:
                raise RuntimeError(f"{self.proc.role}: callgrind does not answer: {asked.stderr[-300:]}")
            file = self.workdir / f"{self.proc.role}.{pid}.callgrind.{self.part}"
            for _ in range(200):                      # written before the answer, except in the middle of a system call
                if file.exists() and b"\ntotals:" in file.read_bytes()[-200:]:
                    break
                time.sleep(0.05)
            i, a = read_part(file)
            instructions, allocations = instructions + i, allocations + a
        return instructions, allocations


def read_part(file):
    """Instructions and calls of allocators in one of callgrind's files."""
    names, into, allocations, total = {}, None, 0, 0
    with open(file, errors="replace") as f:
        for line in f:
            if line.startswith(("fn=", "cfn=")):
                got = re.match(r"c?fn=\((\d+)\)(?: (.*))?", line)
                if got.group(2):
                    names[got.group(1)] = got.group(2).strip()
                if line.startswith("c"):
                    into = names.get(got.group(1), "")
            elif line.startswith("calls=") and plain(into) in ALLOCATORS:
                allocations += int(line[6:].split()[0])
            elif line.startswith("totals:"):
                total = int(line.split()[1])
    if not total:
        raise RuntimeError(f"{file} was not written whole")
    return total, allocations


def plain(name):
    """A function's name without the version of its symbol and the mark of a recursion."""
    return re.split(r"[@']", name)[0].removeprefix("__libc_")


class Strace:
    """Counts the system calls of a process tree until it is stopped."""

    def __init__(self, proc, file):
        self.file = file
        pids = [x for pid in proc.pids() for x in ("-p", str(pid))]
        self.p = subprocess.Popen(["strace", "-c", "-f", "-o", str(file), *pids],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)

    def stop(self):
        """Calls by name."""
        self.p.send_signal(2)
        self.p.communicate(timeout=20)
        calls = {}
        for line in self.file.read_text().splitlines():
            got = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
            if got and got.group(2) != "total":
                calls[got.group(2)] = int(got.group(1))
        return calls


def instructions(mesh, load, n):
    """Instructions and allocations of one request by role: load(count) sends exactly so many."""
    counters = {r: Callgrind(p, mesh.work) for r, p in mesh.proxies.items()}
    got = {r: [] for r in counters}
    load(n)                                           # warm: pools filled, lazy things made
    for c in counters.values():
        c.take()
    for count in (n, 2 * n):
        load(count)
        time.sleep(0.5)                               # the last connections are being closed
        for r, c in counters.items():
            got[r].append(c.take())
    return {r: {"instr": (two[0] - one[0]) / n, "allocs": (two[1] - one[1]) / n} for r, (one, two) in got.items()}


def syscalls(mesh, load, n):
    """System calls of one request by role and name."""
    got = {r: [] for r in mesh.proxies}
    load(n)
    for count in (n, 2 * n):
        running = {r: Strace(p, mesh.work / f"{r}.strace") for r, p in mesh.proxies.items()}
        load(count)
        time.sleep(0.5)
        for r, s in running.items():
            got[r].append(s.stop())
    return {r: {k: (two.get(k, 0) - one.get(k, 0)) / n for k in sorted({*one, *two})} for r, (one, two) in got.items()}


def tables(rows, med, groups):
    """The tables of what was counted, beside the floor's."""
    print("\n## Counted for one request, all proxies (user space instructions; system calls)\n")
    print("| scenario | conns x streams | proxy | k-instr | x floor | allocations | syscalls | most of them | n |")
    print("|---|---|---|---|---|---|---|---|---|")
    called = {(r["scenario"], r["conns"], r["streams"], r["proxy"]): r["calls"] for r in rows if r["kind"] == "syscalls"}
    instr = {k: med([sum(x["instr"] for x in r["counted"].values()) for r in rs]) / 1e3 for k, rs in groups("instr", "conns", "streams")}
    for (sc, c, s, p), rs in groups("instr", "conns", "streams"):
        k = instr[sc, c, s, p]
        allocs = med([sum(x["allocs"] for x in r["counted"].values()) for r in rs])
        calls = {}
        for of in called.get((sc, c, s, p), {}).values():
            for name, count in of.items():
                calls[name] = calls.get(name, 0) + count
        most = sorted(calls.items(), key=lambda x: -x[1])[:5]
        print(f'| {sc} | {c}x{s} | {p} | {k:.1f} | {k / instr.get((sc, c, s, "floor"), float("nan")):.2f} | {allocs:.1f} | '
              f'{sum(calls.values()):.2f} | {", ".join(f"{n} {v:.2f}" for n, v in most)} | {len(rs)} |')
    print("\n## Large bodies, one stream, all proxies\n\n| scenario | proxy | CPU s/GiB (min-max) | G-instr/GiB | x floor | n |\n|---|---|---|---|---|---|")
    bulk = dict(groups("bulk-instr"))
    giga = {k: med([sum(r["instr_per_gib"].values()) for r in rs]) / 1e9 for k, rs in bulk.items()}
    for (sc, p), rs in groups("bulk"):
        cpu = [sum(v for r, v in x["s_per_gib"].items() if r != "server") for x in rs]
        k = giga.get((sc, p), float("nan"))
        print(f'| {sc} | {p} | {med(cpu):.3f} ({min(cpu):.3f}-{max(cpu):.3f}) | {k:.2f} | '
              f'{k / giga.get((sc, "floor"), float("nan")):.2f} | {len(rs)} |')
