// What was changed of a service, its rules and its rollouts, and when: the marks on the time axis, and their table.

import { html } from "../../lib/html.js";
import { link } from "../../lib/route.js";
import { Card, Clock, Table } from "../../lib/ui.js";

/** What of the revisions and the rollouts concerns this service, the newest first. */
export function marksOf(revisions, rollouts, namespace, name, routes, policies) {
  const rules = new Set([...routes, ...policies].map((one) => `${namespace}/${one.metadata.name}`));
  const concerns = ({ key, before, after }) => {
    const [collection, ...rest] = key.split("/");
    const at = rest.join("/");
    if (collection === "services" || collection === "egressservices") return at === `${namespace}/${name}`;
    const spec = (after ?? before)?.spec ?? {};
    if (spec.service === name && rest[0] === namespace) return true;
    return /routes$|policies$/.test(collection) && (rules.has(at) || JSON.stringify([spec.parentRefs, spec.targetRef, spec.targetRefs]).includes(`"name":"${name}"`));
  };
  const changed = revisions.flatMap((one) => one.changes.filter(concerns).map((what) => ({
    at: one.at, who: one.who, why: one.why, revision: one.revision,
    text: `${what.after ? (what.before ? "changed" : "created") : "deleted"} ${what.key}`,
  })));
  const stepped = rollouts.flatMap((one) => (one.status?.past ?? []).map((past) => ({
    at: past.at, who: past.who ?? "the rollout", why: past.why, rollout: one.metadata.name, namespace,
    text: `rollout ${one.metadata.name}: ${past.phase ?? past.action ?? ""}${past.weight === undefined ? "" : ` at ${past.weight} %`}`,
  }))).filter((one) => one.at);
  return [...changed, ...stepped].sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
}

export const ChangesOf = ({ marks }) => html`<${Card} title="Changes" id="changes">
  <${Table} caption="Changes" rows=${marks} limit=${20} empty="Nothing was changed lately." columns=${[
    { name: "When", whole: true, cell: (row) => html`<${Clock} at=${row.at} />` },
    { name: "What", cell: (row) => row.text },
    { name: "Who", cell: (row) => row.who },
    { name: "Why", cell: (row) => row.why ?? html`<span class="muted">no reason given</span>` },
    { acts: "Where it is told", cell: (row) => (row.revision ? html`<a href=${link("changes")}>revision ${row.revision}</a>` : html`<a href=${link("rollouts", row.namespace, row.rollout)}>rollout</a>`) },
  ]} /></${Card}>`;
