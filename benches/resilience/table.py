"""The results side by side, as Markdown."""
import statistics

OURS, AUTO, THEIRS = "outrigger", "outrigger, service breaker auto", "envoy"

# scenario: what is shown of it, as (label, key, unit)
ROWS = {
    "one of three refuses connections": "fails",
    "one of three answers 503": "fails",
    "one of three answers 500": "fails",
    "one of three resets within the answer": "fails",
    "one of three hangs": [("failed requests", "failed", ""), ("of them after the first second", "failed_later", ""),
                           ("its share of what is sent", "to_it", "%")],
    "one of three answers 429": [("answers 429", "limited", ""), ("attempts a request", "attempts", ""),
                                 ("its share of what is sent", "to_it", "%")],
    "all refuse": [("answer", "statuses", ""), ("p50", "p50_ms", " ms"), ("p99", "p99_ms", " ms")],
    "brown-out of one": [("its share, first 5 s", "share_first", "%"), ("its share after 5 s", "share", "%"),
                         ("p99, first 5 s", "p99_first_ms", " ms"), ("p99 after 5 s", "p99_ms", " ms")],
    "recovery of one": [("time until it has its share again", "back_after_s", " s"),
                        ("highest rate there / steady rate", "highest_rate", ""),
                        ("failed requests", "failed", ""), ("attempts there in 4 s of failing", "attempts_while_failing", "")],
    "POSTs under cut connections": [("processed twice", "twice", ""), ("succeeded", "succeeded", ""),
                                    ("failed, and not processed", "failed_unprocessed", ""),
                                    ("failed, and never seen by an origin", "failed_never_sent", "")],
}
FAILS = [("failed requests", "failed", ""), ("of them after the first second", "failed_later", ""),
         ("attempts a request", "attempts", ""), ("p99", "p99_ms", " ms")]


def markdown(found):
    lines = ["| scenario | counted | Outrigger | Envoy |", "|---|---|---|---|"]
    for scenario, shown in ROWS.items():
        first = True
        for label, key, unit in FAILS if shown == "fails" else shown:
            ours, theirs = (value(found, scenario, proxy, key, unit) for proxy in (OURS, THEIRS))
            if ours == theirs == "":
                continue
            if auto := value(found, scenario, AUTO, key, unit):
                ours = f"{ours}; `auto`: {auto}"
            lines.append(f"| {scenario_name(found, scenario) if first else ''} | {label} | {ours} | {theirs} |")
            first = False
    return "\n".join(lines)


def scenario_name(found, scenario):
    sent = [r["requests"] for r in found["results"] if r["scenario"] == scenario and "requests" in r]
    return f"{scenario} ({statistics.median_low(sent)} requests)" if sent else scenario


def value(found, scenario, proxy, key, unit):
    """The median, and the range where repetitions differ."""
    rows = [r for r in found["results"] if r["scenario"] == scenario and r["proxy"] == proxy]
    if not rows:
        return ""
    if key == "statuses":
        return next((f"`{s}`" for r in rows for s in r[key]), "none")
    got = [r[key] for r in rows]
    known = sorted(x for x in got if x is not None)
    if not known:
        return "not in the time watched"
    low, middle, high = (number(x, unit) for x in (known[0], statistics.median_low(known), known[-1]))
    never = f", {len(got) - len(known)} x not in time" if len(known) < len(got) else ""
    spread = f" ({low}–{high})" if low != high else ""
    return f"{middle}{unit}{spread}{never}"


def number(x, unit):
    return f"{x * 100:.1f}".removesuffix(".0") if unit == "%" else f"{x:g}"
