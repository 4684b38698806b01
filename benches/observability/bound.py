#!/usr/bin/env python3
"""Holds what a run counted to the bound: no proxy takes more than 8 % above the one without any of it."""
import json
import sys
from collections import defaultdict
from statistics import median

BOUND = 1.08


def main(path):
    runs = defaultdict(list)
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        if row.get("kind") == "instr":
            shape = f'{row["conns"]}x{row["streams"]}'
            instructions = sum(of["instr"] for of in row["counted"].values())
            runs[row["scenario"], shape, row["proxy"]].append(instructions)
    counted = {of: median(instructions) for of, instructions in runs.items()}
    failed = not counted
    for (scenario, shape, proxy), instructions in sorted(counted.items()):
        before = counted.get((scenario, shape, "outrigger-before"))
        if before is None or proxy == "outrigger-before":
            continue
        ratio = instructions / before
        print(f"{scenario} {shape} {proxy}: {before:.0f} -> {instructions:.0f}, {100 * (ratio - 1):+.1f} %")
        failed = failed or ratio > BOUND
    if failed:
        sys.exit(f"more than {100 * (BOUND - 1):.0f} %, or nothing was counted")


if __name__ == "__main__":
    main(sys.argv[1])
