// How a service is, in one word and why. The thresholds are those of this page alone; breakers and gates have their own.

/**
 * `node` are its golden signals, `instances` those registered, `breakers` those over it. The worst word wins.
 */
export function health(service, node, instances, breakers) {
  const why = [];
  let kind = "ok";
  const worse = (to, text) => {
    const rank = ["ok", "warn", "bad"];
    if (rank.indexOf(to) > rank.indexOf(kind)) kind = to;
    why.push(text);
  };
  for (const breaker of breakers) {
    if (breaker.over === "endpoint") continue;
    const at = (breaker.states.open ?? 0) + (breaker.states.half_open ?? 0);
    if (at > 0 && breaker.mode !== "observe") worse("bad", `the breaker over ${nameOf(breaker)} is open at ${at} sidecars`);
  }
  const registers = !service.spec.discovery || service.spec.discovery === "registered" || service.spec.discovery === "static";
  const ready = instances.filter((one) => one.spec.state !== "draining").length;
  if (registers && ready === 0) worse(node?.rps > 0 ? "bad" : "warn", "it has no ready instance");
  if (node && node.rps > 0 && typeof node.success === "number") {
    const failed = (1 - node.success) * 100;
    if (failed >= 5) worse("bad", `${failed.toFixed(1)} % of its requests fail`);
    else if (failed >= 1) worse("warn", `${failed.toFixed(1)} % of its requests fail`);
  }
  if (kind === "ok" && !(node?.rps > 0)) return { kind: "idle", word: "idle", why: ["nobody calls it"] };
  return { kind, word: { ok: "well", warn: "degraded", bad: "failing" }[kind], why };
}

/** What a breaker is over, in words. */
export const nameOf = (breaker) => (breaker.over === "service" ? "the service" : `the ${breaker.over} ${breaker.name}`);
