// The breakers over a service, where they are open, and the buttons that hold them open or closed.

import { change, path } from "../../lib/api.js";
import { account, count } from "../../lib/format.js";
import { nameOf } from "../../lib/health.js";
import { html, useState } from "../../lib/html.js";
import { notWriter, useWho } from "../../lib/roles.js";
import { Act, AskWhy, Card, Problem, State, Table, Time, WhyNot } from "../../lib/ui.js";

const KIND = { closed: "ok", half_open: "warn", ramping: "warn", open: "bad" };
const WORD = { closed: "closed", half_open: "half open", ramping: "ramping up", open: "open" };

export function Breakers({ namespace, name, breakers, overrides, again }) {
  const [asked, setAsked] = useState(null);
  const not = notWriter(useWho(), namespace);
  const rows = withWhole(breakers.items, namespace, name).map((one) => ({ ...one, said: overrides.find((said) => speaksOf(said, one)) }));
  return html`<${Card} title="Breakers" id="breakers" note=${`as ${count(breakers.proxies)} sidecars say at this moment`}>
    ${breakers.silent.length > 0 && html`<p class="small">${breakers.silent.length} sidecars did not answer: ${breakers.silent.slice(0, 5).map((one) => one.node).join(", ")}</p>`}
    <${Table} caption="Breakers" rows=${rows} keyOf=${(row) => `${row.over} ${row.name}`} columns=${[
      { name: "Over", cell: (row) => nameOf(row) },
      { name: "State", cell: (row) => html`<${States} of=${row} />` },
      { name: "Mode", cell: (row) => MODE[row.mode] ?? row.mode ?? html`<span class="muted">nobody has called it</span>` },
      { name: "What an operator said", cell: (row) => html`<${Said} of=${row.said} />` },
      { acts: "Buttons", cell: (row) => row.over !== "endpoint" && html`<div class="acts">
        <${Act} not=${not} harm onClick=${() => setAsked({ row, mode: "forceOpen" })}>Open<span class="unseen"> the breaker over ${nameOf(row)}</span></${Act}>
        <${Act} not=${not} onClick=${() => setAsked({ row, mode: "forceClosed" })}>Close<span class="unseen"> the breaker over ${nameOf(row)}</span></${Act}>
        ${row.said && html`<${Act} not=${not} onClick=${() => setAsked({ row, mode: null })}>Take back<span class="unseen"> what was said of the breaker over ${nameOf(row)}</span></${Act}>`}
      </div>` },
    ]} />
    <${WhyNot} not=${not} />
    <${Where} rows=${rows} />
    ${asked && html`<${Ask} ...${asked} namespace=${namespace} name=${name} onDone=${again} onClose=${() => setAsked(null)} />`}
  </${Card}>`;
}

/** The breaker over the whole can be held also while no sidecar has called the service yet. */
function withWhole(items, namespace, name) {
  if (items.some((one) => one.over === "service")) return items;
  return [{ service: `${namespace}/${name}`, over: "service", name: null, mode: null, override: null, states: {}, at: [] }, ...items];
}

/** Whether an override speaks of this breaker. A route's breaker is told as `namespace/route`, perhaps with its rule. */
function speaksOf(said, row) {
  const { route, version } = said.spec;
  if (row.over === "version") return version === row.name;
  if (row.over === "route") return Boolean(route) && routeOf(row) === route;
  return row.over === "service" && !route && !version;
}

const routeOf = (row) => (row.name ?? "").split("/").slice(1, 2)[0] ?? row.name;

const MODE = { observe: "only counts", auto: "opens by itself", forceOpen: "held open", forceClosed: "held closed" };

function States({ of }) {
  const all = Object.entries(of.states);
  if (all.length === 0) return html`<span class="muted">–</span>`;
  return html`<span class="acts">${all.map(([state, n]) => html`<${State} kind=${KIND[state] ?? "idle"}>${WORD[state] ?? state} at ${n}</${State}>`)}</span>`;
}

function Said({ of }) {
  if (!of) return html`<span class="muted">nothing: the policy holds</span>`;
  return html`<div><strong>${MODE[of.spec.mode] ?? of.spec.mode}</strong>${of.spec.expiresAt && html`, ends <${Time} at=${of.spec.expiresAt} />`}</div>
    <div class="small">${of.spec.why}</div>`;
}

/** The sidecars at which one is not closed, and what each counted. */
function Where({ rows }) {
  const at = rows.flatMap((row) => row.at.map((one) => ({ row, one })));
  if (at.length === 0) return null;
  return html`<details><summary>Where they are not closed (${at.length})</summary><${Table} caption="Where breakers are not closed" rows=${at} columns=${[
    { name: "Sidecar", cell: ({ one }) => html`${one.node} <span class="muted small">${account(one.identity)}</span>` },
    { name: "Over", cell: ({ row }) => nameOf(row) },
    { name: "State", cell: ({ one }) => html`<${State} kind=${KIND[one.state] ?? "idle"}>${WORD[one.state] ?? one.state}</${State}>` },
    { name: "Failed in its window", num: true, cell: ({ one }) => (one.window ? `${count(one.window.failures)} of ${count(one.window.requests)}` : "–") },
    { name: "Refused", num: true, cell: ({ one }) => count(one.rejected) },
  ]} /></details>`;
}

const TITLE = { forceOpen: "Open the breaker", forceClosed: "Close the breaker" };

/** Says it, as one BreakerOverride for each breaker, named as the command line names it. */
function Ask({ row, mode, namespace, name, onDone, onClose }) {
  const [lasting, setLasting] = useState("10m");
  const over = `${nameOf(row)} ${namespace}/${name}`.replace("the service ", "");
  const object = overrideOf(row, mode, namespace, name);
  const run = (why) => {
    if (mode) {
      const spec = { ...object.spec, why, ...(lasting ? { for: lasting } : {}) };
      return change("POST", "/v1/apply", { items: [{ ...object, spec }] }, why);
    }
    return change("DELETE", path("breakeroverrides", namespace, row.said.metadata.name), undefined, why, { "If-Match": `"${row.said.metadata.resourceVersion}"` });
  };
  const fields = mode && html`<label>For how long<select value=${lasting} onChange=${(e) => setLasting(e.target.value)}>
    ${[["1m", "1 minute"], ["10m", "10 minutes"], ["1h", "1 hour"], ["", "until it is taken back"]].map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label>`;
  const text = mode === "forceOpen" ? `Nothing reaches ${over} through any sidecar while it is held open: every caller is refused at once.`
    : mode === "forceClosed" ? `Everything passes to ${over}, whatever fails.`
    : `The breaker over ${over} does what its policy says again.`;
  return html`<${AskWhy} title=${mode ? TITLE[mode] : "Take back what was said"} text=${text} fields=${fields} harm=${mode === "forceOpen"}
    verb=${mode ? TITLE[mode] : "Take it back"} run=${run} onDone=${onDone} onClose=${onClose} />`;
}

function overrideOf(row, mode, namespace, name) {
  const plain = (text) => text.replace(/[^A-Za-z0-9]/g, "-").toLowerCase().replace(/^-+|-+$/g, "");
  const [suffix, spec] =
    row.over === "version" ? [`.version.${plain(row.name)}`, { version: row.name }]
      : row.over === "route" ? [`.route.${routeOf(row)}`, { route: routeOf(row) }] : ["", {}];
  return {
    apiVersion: "outrigger.dev/v1alpha1", kind: "BreakerOverride", metadata: { name: `${name}${suffix}`, namespace },
    spec: { service: name, mode, ...spec },
  };
}
