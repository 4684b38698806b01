// What decides about requests to a service: routes and policies, as they are written.

import { html } from "../../lib/html.js";
import { account } from "../../lib/format.js";
import { Card, State, Table } from "../../lib/ui.js";

/** Whether a route or a policy speaks of this service, or of one of its routes. */
export function decides(object, namespace, name, routes = new Set()) {
  const { spec } = object;
  const refs = [...(spec.parentRefs ?? []), ...(spec.targetRefs ?? []), ...(spec.targetRef ? [spec.targetRef] : [])];
  const own = refs.some((ref) =>
    /Route$/.test(ref.kind ?? "")
      ? routes.has(ref.name)
      : ref.name === name && (ref.namespace ?? object.metadata.namespace) === namespace && /^(MeshService|Service|EgressService)?$/.test(ref.kind ?? ""));
  return own || (spec.targetRefs === undefined && spec.targetRef === undefined && /AccessPolicy|TokenPolicy/.test(object.kind));
}

export const Routes = ({ of }) => html`<${Card} title="Routes" id="routes">
  <${Table} caption="Routes" rows=${of} keyOf=${keyOf} empty="No route speaks of it: every request goes to any of its instances." columns=${[
    { name: "Route", whole: true, cell: (one) => html`${one.metadata.name} <span class="muted small">${one.kind}</span>` },
    { name: "State", cell: (one) => html`<${Taken} of=${one} />` },
    { name: "Rules", cell: (one) => html`<div class="stack">${(one.spec.rules ?? []).map((rule) => html`<div>${matchOf(rule)} → ${backendsOf(rule)}</div>`)}</div>` },
    { acts: "As written", cell: (one) => html`<${Written} of=${one} />` },
  ]} /></${Card}>`;

export const Policies = ({ of }) => html`<${Card} title="Policies" id="policies">
  <${Table} caption="Policies" rows=${of} keyOf=${keyOf} empty="No policy speaks of it: what holds for the mesh holds." columns=${[
    { name: "Policy", whole: true, cell: (one) => html`${one.metadata.name} <span class="muted small">${one.kind}</span>` },
    { name: "For", cell: (one) => (one.spec.callers ?? []).map(account).join(", ") || "everybody" },
    { name: "Says", cell: says },
    { acts: "As written", cell: (one) => html`<${Written} of=${one} />` },
  ]} /></${Card}>`;

const keyOf = (one) => `${one.kind} ${one.metadata.name}`;

function Taken({ of }) {
  const conditions = (of.status?.parents ?? []).flatMap((parent) => parent.conditions ?? []);
  const wrong = conditions.filter((one) => one.status !== "True");
  if (conditions.length === 0) return html`<span class="muted">–</span>`;
  if (wrong.length === 0) return html`<${State} kind="ok">in force</${State}>`;
  return html`<${State} kind="bad">${wrong[0].reason}</${State}> <span class="small">${wrong[0].message}</span>`;
}

function matchOf(rule) {
  const all = (rule.matches ?? []).map((match) => [
    match.method && typeof match.method === "string" && match.method,
    match.method?.service && `${match.method.service}/${match.method.method ?? "*"}`,
    match.path && `${match.path.value}${/Prefix/.test(match.path.type ?? "PathPrefix") ? "…" : ""}`,
    ...(match.headers ?? []).map((one) => `${one.name}: ${one.value}`),
    ...(match.queryParams ?? []).map((one) => `?${one.name}=${one.value}`),
  ].filter(Boolean).join(" "));
  return html`<code>${all.filter(Boolean).join(" or ") || "everything"}</code>`;
}

function backendsOf(rule) {
  const refs = rule.backendRefs ?? [];
  if (refs.length === 0) return "the service";
  const whole = refs.reduce((all, one) => all + (one.weight ?? 1), 0);
  return refs.map((one) => `${one.name} ${whole > 0 ? Math.round(((one.weight ?? 1) / whole) * 100) : 0} %`).join(", ");
}

/** The names of what it sets; the whole stands behind. */
const says = (one) => Object.keys(one.spec).filter((key) => !/^targetRefs?$|^callers$/.test(key)).join(", ") || "nothing";

/** The object as it is written. */
export const Written = ({ of }) => html`<details><summary>as written</summary><pre tabindex="0">${JSON.stringify(of.spec, null, 2)}</pre></details>`;
