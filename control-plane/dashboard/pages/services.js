// Every service: whose it is, how it is, where one reads more.

import { get } from "../lib/api.js";
import { count, millis, rate, share } from "../lib/format.js";
import { health } from "../lib/health.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { lately } from "../lib/signals.js";
import { Loading, Outside, Problem, State, Table } from "../lib/ui.js";

async function load(signal) {
  const [services, egress, graph, instances] = await Promise.all([
    get("/v1/services?limit=10000", signal), get("/v1/egressservices?limit=10000", signal), lately(signal),
    get("/v1/instances?limit=10000", signal),
  ]);
  return { services: [...services.items, ...egress.items], graph, instances };
}

/** Every sidecar is asked for its breakers, so that is done less often than the rest. */
const EVERY_BREAKER = 10000;

function rowsOf({ services, graph, instances }, breakers) {
  return services.map((service) => {
    const { namespace, name } = service.metadata;
    const node = graph.nodes.find((one) => one.namespace === namespace && one.name === name);
    const own = instances.items.filter((one) => one.metadata.namespace === namespace && one.spec.service === name);
    const over = (breakers?.items ?? []).filter((one) => one.service === `${namespace}/${name}`);
    const outside = service.kind === "EgressService";
    const is = health(outside ? { spec: { discovery: "dns" } } : service, node, own, over);
    return { service, namespace, name, node, instances: own, outside, is };
  });
}

export function Services() {
  const { data: told, error } = usePoll(load, "services");
  const breakers = usePoll((signal) => get("/v1/breakers", signal), "breakers", EVERY_BREAKER);
  const data = told && rowsOf(told, breakers.data);
  const [text, setText] = useState("");
  const rows = (data ?? []).filter((row) => matches(row, text));
  const troubled = (data ?? []).filter((row) => row.is.kind === "bad" || row.is.kind === "warn");
  return html`
    <div class="title"><h1>Services</h1>${data && html`<span class="muted">${count(data.length)}</span>`}</div>
    <${Problem} error=${error ?? breakers.error} />
    ${!data && !error && html`<${Loading} what="the services" />`}
    ${data && html`
      <${Attention} rows=${troubled} of=${data.length} />
      <div class="card">
        <div class="form"><label class="wide">Find by name, namespace, owner or label
          <input type="search" value=${text} onInput=${(e) => setText(e.target.value)} /></label></div>
        <${Table} caption="Services" rows=${rows} keyOf=${(row) => `${row.namespace}/${row.name}`} columns=${COLUMNS}
          empty=${text ? "No service has that in its name, owner or labels." : "No service is declared yet: outrigger apply -f FILE."} />
      </div>`}`;
}

function Attention({ rows, of }) {
  if (of === 0) return null;
  if (rows.length === 0) return html`<div class="look ok" role="status">Nothing needs a look.</div>`;
  const bad = rows.some((row) => row.is.kind === "bad");
  return html`<div class=${bad ? "look" : "look warn"} role="region" aria-label="Services that need a look" aria-live="polite"><strong>${rows.length} of ${of} need a look</strong>
    <ul>${rows.slice(0, 8).map((row) => html`<li><a href=${link("services", row.namespace, row.name)}>${row.namespace}/${row.name}</a>: ${row.is.why.join("; ")}</li>`)}</ul></div>`;
}

const matches = ({ service, namespace, name }, text) => {
  const wanted = text.trim().toLowerCase();
  const labels = Object.entries(service.metadata.labels ?? {}).map(([key, value]) => `${key}=${value}`);
  return [`${namespace}/${name}`, service.spec.owner ?? "", service.spec.description ?? "", ...labels].some((one) => one.toLowerCase().includes(wanted));
};

const COLUMNS = [
  {
    name: "Service", by: (row) => `${row.namespace}/${row.name}`,
    cell: (row) => html`<a href=${link("services", row.namespace, row.name)}>${row.namespace}/${row.name}</a>
      ${row.outside && html` <span class="muted small">outside</span>`}
      ${row.service.spec.description && html`<div class="muted small">${row.service.spec.description}</div>`}`,
  },
  { name: "State", by: (row) => ["bad", "warn", "ok", "idle"].indexOf(row.is.kind), cell: (row) => html`<${State} kind=${row.is.kind}>${row.is.word}</${State}>` },
  { name: "Owner", by: (row) => row.service.spec.owner, cell: (row) => row.service.spec.owner ?? html`<span class="muted">nobody</span>` },
  { name: "Requests/s", num: true, by: (row) => row.node?.rps ?? 0, cell: (row) => rate(row.node?.rps) },
  { name: "Success", num: true, by: (row) => row.node?.success, cell: (row) => share(row.node?.rps > 0 ? row.node.success : undefined) },
  { name: "p50", num: true, by: (row) => row.node?.p50Ms, cell: (row) => millis(row.node?.p50Ms) },
  { name: "p99", num: true, by: (row) => row.node?.p99Ms, cell: (row) => millis(row.node?.p99Ms) },
  { name: "Instances", num: true, by: (row) => row.instances.length, cell: (row) => (row.outside ? "–" : count(row.instances.length)) },
  { name: "API and links", cell: (row) => html`<${Links} row=${row} />` },
];

function Links({ row }) {
  const { api, links = [] } = row.service.spec;
  const all = links.map((one) => html`<${Outside} url=${one.url}>${one.title ?? one.url}</${Outside}>`);
  if (api) all.unshift(html`<a href=${link("services", row.namespace, row.name, "api")}>API</a>`);
  return html`<span class="acts small">${all}</span>`;
}
