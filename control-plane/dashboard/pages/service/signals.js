// Golden signals of a service: rate, success and latency over time; the same by version, caller and callee; refusals.

import { Chart } from "../../lib/chart.js";
import { account, count, millis, rate, share } from "../../lib/format.js";
import { html } from "../../lib/html.js";
import { link } from "../../lib/route.js";
import { useTheme } from "../../lib/theme.js";
import { reason } from "../../lib/reasons.js";
import { Card, Table } from "../../lib/ui.js";

const WINDOWS = { "5m": 300, "15m": 900, "30m": 1800, "1h": 3600 };

export function Signals({ signals, window, setWindow, marks }) {
  const theme = useTheme();
  const { points } = signals;
  const chart = (title, series, format, least) => html`<${Chart} title=${title} points=${points} marks=${marks} theme=${theme} series=${series} format=${format} least=${least} span=${WINDOWS[window]} />`;
  const choice = html`<label class="line">over the last <select value=${window} onChange=${(e) => setWindow(e.target.value)}>
    ${Object.keys(WINDOWS).map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`;
  return html`<${Card} title="Golden signals" id="signals" right=${choice}>
    ${points.length === 0 ? html`<p class="empty">Nobody has called it in this time.</p>` : html`<div class="charts">
      ${chart("Requests/s", [{ name: "Requests/s", of: (p) => p.rps }], rate)}
      ${chart("Success", [{ name: "Success", of: (p) => p.success }], share, 1)}
      ${chart("Latency", [{ name: "p50", of: (p) => p.p50Ms }, { name: "p99", of: (p) => p.p99Ms }], millis)}
    </div>`}
    ${marks.length > 0 && html`<p class="small"><span class="key mark"><i></i>a change of this service, its rules or its rollout; all are under Changes below</span></p>`}
  </${Card}>`;
}

const FIGURES = [
  { name: "Requests/s", num: true, by: (row) => row.rps, cell: (row) => rate(row.rps) },
  { name: "Success", num: true, by: (row) => row.success, cell: (row) => share(row.success) },
  { name: "p50", num: true, by: (row) => row.p50Ms, cell: (row) => millis(row.p50Ms) },
  { name: "p99", num: true, by: (row) => row.p99Ms, cell: (row) => millis(row.p99Ms) },
];

export const Versions = ({ of }) => html`<${Card} title="Versions" id="versions">
  <${Table} caption="Versions" rows=${of} keyOf=${(row) => row.version} empty="No version has answered in this time." columns=${[
    { name: "Version", cell: (row) => row.version ?? "none" }, ...FIGURES,
  ]} /></${Card}>`;

export const Calls = ({ title, id, edges, other, none }) => html`<${Card} title=${title} id=${id}>
  <${Table} caption=${title} rows=${edges} empty=${none} columns=${[{ name: "Who", cell: (edge) => html`<${Who} of=${other(edge)} />` }, ...FIGURES]} /></${Card}>`;

function Who({ of }) {
  if (!of.name) return account(of.identity ?? "unauthenticated");
  return html`<a href=${link("services", of.namespace, of.name)}>${of.namespace}/${of.name}</a>`;
}

/** What sidecars refused, and what each reason means. */
export const Refusals = ({ of }) => html`<${Card} title="Refusals by reason" id="refusals">
  <${Table} caption="Refusals by reason" rows=${of} keyOf=${(row) => row.reason} empty="No request was refused in this time." columns=${[
    { name: "Reason", cell: (row) => html`<${Reason} name=${row.reason} />` },
    { name: "Requests", num: true, by: (row) => row.count, cell: (row) => count(row.count) },
  ]} /></${Card}>`;

function Reason({ name }) {
  const { means, hint } = reason(name);
  return html`<code>${name}</code>${means && html`<div class="muted small">${means}${hint && html`. <em>${hint}</em>`}</div>`}`;
}
