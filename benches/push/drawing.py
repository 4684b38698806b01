"""The table and the picture of what was measured."""

from html import escape

TARGET_MS = 250
KINDS = [("endpoint", "endpoint"), ("route", "route"), ("policy", "policy"), ("service", "service")]


def table(results):
    on, meshes = results["on"], results["meshes"]
    changed = ", with changes" if on["changed"] else ""
    lines = [
        f"{results['sidecars']} sidecars; {on['date']}, commit `{on['commit']}`{changed}, {on['cpu']}, {on['cores']} cores, the "
        f"control plane on {on['controlPlaneOn']}, the sidecars on {on['loadOn']}, load average before {on['loadAverage']:.1f}.",
        "",
        "| services, endpoints | " + " | ".join(f"{m['services']:,}, {m['endpoints']:,}" for m in meshes) + " |",
        "|---" * (len(meshes) + 1) + "|",
    ]

    def row(title, cell):
        lines.append(f"| {title} | " + " | ".join(cell(m) for m in meshes) + " |")

    for kind, title in KINDS:
        row(f"a changed {title}: acknowledged by all, p50, p99, ms",
            lambda m, k=kind: "{p50:.0f}, {p99:.0f}".format(**m["changes"][k]["acknowledgedByAll"]))
    for kind, title in KINDS:
        row(f"a changed {title}: bytes a sidecar; CPU of the control plane, ms",
            lambda m, k=kind: "{bytesPerSidecar:.0f}; {cpuMs:.0f}".format(**m["changes"][k]))
    row("sidecars connect: s; CPU s; KB each",
        lambda m: "{seconds:.1f}; {cpu:.1f}; {0:.1f}".format(m["connecting"]["bytesPerSidecar"] / 1e3, **m["connecting"]))
    row("memory without sidecars, with them, at its most, MB",
        lambda m: f"{m['start']['memory']['now']:.0f}, {m['memory']['now']:.0f}, {m['memory']['peak']:.0f}")
    row("start with that store: s; memory at its most, MB",
        lambda m: f"{m['start']['seconds']:.2f}; {m['start']['memory']['peak']:.0f}")
    row("written into an empty store: s; CPU s", lambda m: "{seconds:.1f}; {cpu:.1f}".format(**m["planting"]))
    for m in meshes:
        if m["churn"]:
            lines += ["", *churn(m)]
    return "\n".join(lines) + "\n"


def churn(m):
    c, s = m["churn"], m["stalled"]
    yield f"| {m['services']:,} services, {c['seconds']} s of {c['perSecond']:.0f} endpoint changes a second | |"
    yield "|---|---|"
    yield f"| cores of the control plane | {c['cores']:.2f} |"
    yield "| a registration takes, p50, p99, ms | {p50:.0f}, {p99:.0f} |".format(**c["call"])
    yield "| a change is acknowledged by one who uses it after, p50, p99, ms | {p50:.0f}, {p99:.0f} |".format(**c["age"])
    yield f"| failed; not up to date at the end | {c['failed']}; {c['behind']} |"
    yield f"| messages a sidecar and second; KB a second, all | {c['messagesPerSidecarAndSecond']:.1f}; {c['bytesPerSecond'] / 1e3:.0f} |"
    yield f"| memory at its most, MB | {c['memory']['peak']:.0f} |"
    if s:
        after = "not at all" if s["droppedAfterSeconds"] is None else f"{s['droppedAfterSeconds']:.0f} s"
        yield f"| {s['stalled']} that read nothing are dropped after | {after} |"
        yield "| meanwhile the others acknowledge a route after, p50, max, ms | {p50:.0f}, {max:.0f} |".format(**s["othersAcknowledged"])


def picture(results):
    """Bars: how long until all have acknowledged a change, for each size of mesh and kind of change."""
    meshes, width, left, top, bar, gap = results["meshes"], 760, 200, 64, 16, 26
    rows = [(m, kind, title) for m in meshes for kind, title in KINDS]
    most = max(TARGET_MS * 1.15, *(m["changes"][k]["acknowledgedByAll"]["p99"] * 1.05 for m, k, _ in rows))
    scale, height = (width - left - 60) / most, top + len(rows) * (bar + 4) + len(meshes) * gap + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height:.0f}" fill="#fff"/>',
        f'<text x="16" y="24" font-size="15">A change, until {results["sidecars"]:,} sidecars have acknowledged it (ms)</text>',
        '<text x="16" y="44" fill="#555">dark: half of the changes; light: 99 of 100; '
        f'{escape(results["on"]["date"])}, {escape(results["on"]["commit"])}, one core</text>',
    ]
    y = top
    for m in meshes:
        out.append(f'<text x="16" y="{y + 14}" font-weight="bold">{m["services"]:,} services</text>')
        y += gap
        for kind, title in KINDS:
            spread = m["changes"][kind]["acknowledgedByAll"]
            out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{title}</text>')
            out.append(f'<rect x="{left}" y="{y}" width="{spread["p99"] * scale:.1f}" height="{bar}" fill="#9ec5e8"/>')
            out.append(f'<rect x="{left}" y="{y}" width="{spread["p50"] * scale:.1f}" height="{bar}" fill="#2b6ca3"/>')
            out.append(f'<text x="{left + spread["p99"] * scale + 5:.1f}" y="{y + 12}" fill="#333">{spread["p50"]:.0f}, {spread["p99"]:.0f}</text>')
            y += bar + 4
    x = left + TARGET_MS * scale
    out.append(f'<line x1="{x:.1f}" y1="{top - 8}" x2="{x:.1f}" y2="{y + 4}" stroke="#b33" stroke-dasharray="4 3"/>')
    out.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle" fill="#b33">{TARGET_MS} ms</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
