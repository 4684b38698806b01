// Who calls whom: as a graph, and the same as a table.

import { account, count, millis, rate, share } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { layers } from "../lib/layers.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { topology } from "../lib/signals.js";
import { useTheme } from "../lib/theme.js";
import { Card, Loading, Problem, State, Table, Time } from "../lib/ui.js";

const WINDOWS = ["1m", "5m", "15m", "1h"];

export function Topology() {
  const [window, setWindow] = useState("5m");
  const [namespace, setNamespace] = useState("");
  const { data, error } = usePoll((signal) => topology(window, signal), window, 5000);
  const namespaces = [...new Set((data?.nodes ?? []).map((one) => one.namespace).filter(Boolean))].sort();
  const of = data ? within(data, namespace) : null;
  return html`<div class="title"><h1>Topology</h1>${data && html`<span class="muted small">as of <${Time} at=${data.asOf} /></span>`}</div>
    <${Problem} error=${error} />
    <div class="form"><label>Over the last <select value=${window} onChange=${(e) => setWindow(e.target.value)}>
        ${WINDOWS.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>
      <label>Namespace <select value=${namespace} onChange=${(e) => setNamespace(e.target.value)}>
        <option value="">all</option>${namespaces.map((one) => html`<option value=${one}>${one}</option>`)}</select></label></div>
    ${!of && !error && html`<${Loading} what="who calls whom" />`}
    ${of && html`<${Graph} of=${of} />
      <${Card} title="Calls" id="calls"><${Table} caption="Calls" rows=${of.edges} keyOf=${keyOf} empty="Nobody has called anybody in this time." columns=${COLUMNS} /></${Card}>`}`;
}

const idOf = (end) => (end.name ? [end.namespace, end.name].filter(Boolean).join("/") : account(end.identity));
const keyOf = (edge) => `${idOf(edge.from)} ${idOf(edge.to)}`;

const COLUMNS = [
  { name: "From", by: (edge) => idOf(edge.from), cell: (edge) => html`<${End} of=${edge.from} />` },
  { name: "To", by: (edge) => idOf(edge.to), cell: (edge) => html`<${End} of=${edge.to} />` },
  { name: "State", cell: (edge) => html`<${State} kind=${kindOf(edge)}>${WORD[kindOf(edge)]}</${State}>` },
  { name: "Requests/s", num: true, by: (edge) => edge.rps, cell: (edge) => rate(edge.rps) },
  { name: "Success", num: true, by: (edge) => edge.success, cell: (edge) => share(edge.success) },
  { name: "p50", num: true, by: (edge) => edge.p50Ms, cell: (edge) => millis(edge.p50Ms) },
  { name: "p99", num: true, by: (edge) => edge.p99Ms, cell: (edge) => millis(edge.p99Ms) },
  { name: "Refused", num: true, by: (edge) => edge.refused, cell: (edge) => count(edge.refused) },
];

const End = ({ of }) => (of.name && of.namespace ? html`<a href=${link("services", of.namespace, of.name)}>${idOf(of)}</a>` : idOf(of));

const WORD = { ok: "well", warn: "degraded", bad: "failing", idle: "idle" };
const kindOf = ({ rps, success }) => (!(rps > 0) || typeof success !== "number" ? "idle" : success < 0.95 ? "bad" : success < 0.99 ? "warn" : "ok");

function within({ nodes, edges, ...rest }, namespace) {
  if (!namespace) return { ...rest, nodes, edges };
  const kept = edges.filter((one) => one.to.namespace === namespace || one.from.namespace === namespace);
  const named = new Set(kept.flatMap((one) => [idOf(one.from), idOf(one.to)]));
  return { ...rest, edges: kept, nodes: nodes.filter((one) => one.namespace === namespace || named.has(`${one.namespace}/${one.name}`)) };
}

/** The graph is drawn anew when somebody comes or goes; figures and colours change in place, so nothing jumps. */
function Graph({ of }) {
  const at = useRef(null);
  const drawn = useRef(null);
  const [error, setError] = useState(null);
  const theme = useTheme();
  const parts = elements(of);
  const shape = parts.map((one) => one.data.id).sort().join("\n");
  const places = layers(parts.filter((one) => !one.data.source).map((one) => one.data.id).sort(), parts.filter((one) => one.data.source).map(({ data }) => [data.source, data.target]));
  for (const { data } of parts) {
    const bend = data.source && data.source !== data.target ? places.detour(data.source, data.target) : null;
    if (bend) Object.assign(data, { bend: bend.distance, at: bend.weight });
  }
  useEffect(() => {
    let ended = false;
    import("../vendor/cytoscape.js").then(({ default: cytoscape }) => {
      if (ended || !at.current) return;
      drawn.current = cytoscape({
        container: at.current, elements: parts, style: style(), minZoom: 0.2, maxZoom: 1.3,
        layout: { name: "preset", fit: true, padding: 20, positions: (node) => places.place.get(node.id()) },
        // A finger that scrolls the page is not caught by the picture.
        userPanningEnabled: !matchMedia("(pointer: coarse)").matches, userZoomingEnabled: false, boxSelectionEnabled: false, autoungrabify: true,
      });
      drawn.current.on("tap", "node[href]", (event) => { location.hash = event.target.data("href"); });
    }).catch(setError);
    return () => { ended = true; drawn.current?.destroy(); drawn.current = null; };
  }, [shape, theme]);
  useEffect(() => {
    for (const one of parts) drawn.current?.getElementById(one.data.id).data(one.data);
  });
  const words = `${of.nodes.length} services and ${of.edges.length} calls between them; the table below says the same`;
  return html`<${Problem} error=${error} /><div class="graph" ref=${at} role="img" aria-label=${words} style=${`height: ${Math.min(40, 4 + Math.max(2, places.rows) * 7)}rem`}></div>`;
}

function elements({ nodes, edges }) {
  const all = new Map(nodes.map((one) => [idOf(one), { kind: kindOf(one), label: `${idOf(one)}\n${rate(one.rps)}/s  ${share(one.success)}`, href: one.kind === "service" || one.kind === "outside" ? link("services", one.namespace, one.name) : undefined }]));
  for (const edge of edges) {
    for (const end of [edge.from, edge.to]) if (!all.has(idOf(end))) all.set(idOf(end), { kind: "idle", label: idOf(end) });
  }
  return [
    ...[...all].map(([id, data]) => ({ data: { id, ...data } })),
    ...edges.map((edge) => ({ data: { id: `${idOf(edge.from)} > ${idOf(edge.to)}`, source: idOf(edge.from), target: idOf(edge.to), kind: kindOf(edge), label: `${rate(edge.rps)}/s`, width: 1 + Math.min(4, Math.log10(1 + edge.rps)) } })),
  ];
}

function style() {
  const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const font = { "font-family": "system-ui, sans-serif", color: of("ink") };
  const state = (kind, more) => [
    { selector: `node[kind = "${kind}"]`, style: { "border-color": of(kind), ...more } },
    { selector: `edge[kind = "${kind}"]`, style: { "line-color": of(kind === "ok" || kind === "idle" ? "line-strong" : kind), "target-arrow-color": of(kind === "ok" || kind === "idle" ? "line-strong" : kind) } },
  ];
  return [
    { selector: "node", style: { ...font, shape: "round-rectangle", "background-color": of("surface"), "border-width": 2, width: 150, height: 46, label: "data(label)", "text-valign": "center", "text-halign": "center", "text-wrap": "wrap", "text-max-width": 144, "font-size": 12, "line-height": 1.35 } },
    { selector: "edge", style: { ...font, width: "data(width)", "curve-style": "bezier", "target-arrow-shape": "triangle", label: "data(label)", "font-size": 10, "text-background-color": of("surface"), "text-background-opacity": 1, "text-background-padding": 2 } },
    { selector: "edge[bend]", style: { "curve-style": "unbundled-bezier", "control-point-distances": "data(bend)", "control-point-weights": "data(at)", "edge-distances": "node-position" } },
    ...state("ok"), ...state("idle", { "border-style": "dashed" }), ...state("warn", { "border-width": 3 }), ...state("bad", { "border-width": 4 }),
    { selector: 'edge[kind = "bad"], edge[kind = "warn"]', style: { "line-style": "dashed" } },
  ];
}
