#!/usr/bin/env python3
"""What a callgrind file of a proxy says: the functions that cost most, by themselves and with all they call.

  profile.py FILE [FILE ...]      shares of the instructions in the files together; --per N divides by N requests
"""
import argparse
import re
from collections import Counter


class Profile:
    def __init__(self):
        self.own, self.with_callees, self.calls = Counter(), Counter(), Counter()
        self.edges, self.edge_cost = Counter(), Counter()    # by (caller, callee)

    @property
    def total(self):
        return sum(self.own.values())

    def add(self, file):
        names, fn, into, called = {}, None, None, False
        inclusive = Counter()
        with open(file, errors="replace") as f:
            for line in f:
                if line.startswith(("fn=", "cfn=")):
                    key, name = re.match(r"c?fn=\((\d+)\)(?: (.*))?", line).groups()
                    if name:
                        names[key] = name.strip()
                    if line[0] == "c":
                        into = names.get(key, "?")
                    else:
                        fn = names.get(key, "?")
                elif line.startswith("calls="):
                    called = True
                    self.calls[into] += int(line[6:].split()[0])
                    self.edges[fn, into] += int(line[6:].split()[0])
                elif line[:1] in "0123456789+-*":
                    cost = int((line.split() + ["0"])[1])
                    if called:
                        self.edge_cost[fn, into] += cost
                    if not called:
                        self.own[fn] += cost
                    elif fn != into:                  # a function that calls itself would count twice
                        inclusive[into] += cost
                    called = False
        self.with_callees.update(inclusive)


def plain(name):
    """A function's name without hashes, versions and marks of recursion."""
    return re.sub(r"::h[0-9a-f]{16}|@.*|'\d+$", "", name)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("files", nargs="+")
    ap.add_argument("--per", type=int, default=1)
    ap.add_argument("--callers", help="who calls this function, instead")
    ap.add_argument("--top", type=int, default=40)
    a = ap.parse_args()
    p = Profile()
    for f in a.files:
        p.add(f)
    if a.callers:
        for (caller, callee), n in p.edges.most_common():
            if plain(callee) == a.callers and n >= a.per / 20:
                print(f"{n / a.per:8.2f} calls {p.edge_cost[caller, callee] / a.per:10.0f}  {plain(caller)[:170]}")
        return
    print(f"total {p.total / a.per:.0f}")
    for what, of in (("by itself", p.own), ("with what it calls", p.with_callees)):
        print(f"\n{what}")
        for name, cost in of.most_common(a.top):
            print(f"{100 * cost / p.total:6.2f} % {cost / a.per:10.0f}  {p.calls[name] / a.per:8.2f} calls  {plain(name)[:170]}")


if __name__ == "__main__":
    main()
