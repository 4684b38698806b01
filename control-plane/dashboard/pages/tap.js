// Live requests: heads, timing and reasons, as sidecars see them. Never bodies, never secrets.

import { events } from "../lib/api.js";
import { account, millis } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { reason } from "../lib/reasons.js";
import { notWriter, useWho } from "../lib/roles.js";
import { Problem, State, Table, WhyNot } from "../lib/ui.js";

/** So many are shown; older ones make room. */
const MOST = 200;

export function Tap({ query }) {
  const [rows, setRows] = useState([]);
  const [told, setTold] = useState(null);
  const [running, setRunning] = useState(null);
  const [error, setError] = useState(null);
  const serial = useRef(0);
  const who = useWho();
  // Whose sidecars tell is known with the form; here it is enough whether he may anywhere.
  const not = notWriter(who, who?.namespaces?.[0] ?? "its namespace");
  useEffect(() => () => running?.abort(), [running]);
  const start = async (event) => {
    event.preventDefault();
    const said = [...new FormData(event.target)].map(([key, value]) => [key, value.trim()]).filter(([, value]) => value);
    const ended = new AbortController();
    setRows([]);
    setTold(null);
    setError(null);
    setRunning(ended);
    try {
      for await (const { name, data } of events(`/v1/tap?${new URLSearchParams(said)}`, ended.signal)) {
        const heard = JSON.parse(data);
        if (name === "request") setRows((old) => [{ key: serial.current++, ...heard }, ...old].slice(0, MOST));
        else setTold((old) => takes(old ?? { sidecars: [], silent: [], dropped: 0 }, name, heard));
      }
    } catch (refused) {
      if (refused.name !== "AbortError") setError(refused.problem ? refused : { problem: { title: "It ended", detail: refused.message } });
    }
    setRunning((now) => (now === ended ? null : now));
  };
  // Two buttons, by their keys: one that was changed from the one into the other while it is pressed would send the form.
  return html`<h1>Live requests</h1>
    <p class="muted">Heads, timing and reasons, as the sidecars see them at this moment. Bodies and secrets are never shown; who looks is in the audit log.</p>
    <form class="card" onSubmit=${start}>
      <div class="form">${FIELDS.map(([name, label, example]) => html`<label>${label}<input name=${name} defaultValue=${query.get(name) ?? ""} placeholder=${example} size="14" /></label>`)}</div>
      <p class="muted small">Name who asks, who is asked, or both. Of who asks its own sidecars tell, also what never arrived anywhere.</p>
      <div class="acts">${running
        ? html`<button key="stop" type="button" onClick=${() => running.abort()}>Stop</button>`
        : html`<button key="watch" class="strong" disabled=${Boolean(not)} title=${not || null}>Watch</button>`}
        <${WhyNot} not=${not} /><span role="status">${sentence(running, told, rows.length)}</span></div></form>
    <${Problem} error=${error} />
    <div class="card"><${Table} caption="Live requests" rows=${rows} keyOf=${(row) => row.key} empty=${running ? "None yet." : "Nothing is watched."} columns=${COLUMNS} /></div>`;
}

const FIELDS = [
  ["from", "From", "shop/web"], ["to", "To", "shop/cart"], ["method", "Method", "GET"], ["path", "Path", "/items*"],
  ["status", "Status", "503,5xx"], ["reason", "Reason", "any"],
];

/** What beside requests was told: who tells, who does not, what was left out, why it ended. */
function takes(old, name, heard) {
  switch (name) {
    case "hello": return { ...old, sidecars: heard.sidecars, silent: heard.silent, seconds: heard.seconds, leftOut: heard.leftOut };
    case "dropped": return { ...old, dropped: old.dropped + heard.dropped };
    case "gone": return { ...old, silent: [...old.silent, { node: heard.node, failure: heard.why }] };
    case "end": return { ...old, ended: heard.why };
    default: return old;
  }
}

const ENDS = { limit: "as many as were wanted were told", time: "its time is over", sidecars: "no sidecar tells any more" };

function sentence(running, told, seen) {
  if (!told) return running ? "asking" : "";
  const parts = [`${told.sidecars.length} ${told.sidecars.length === 1 ? "sidecar tells" : "sidecars tell"}, ${seen} seen`];
  if (told.silent.length > 0) parts.push(`silent: ${told.silent.map((one) => `${one.node} (${one.failure})`).join(", ")}`);
  if (told.dropped > 0) parts.push(`${told.dropped} were left out`);
  if (told.ended) parts.push(`ended: ${ENDS[told.ended] ?? told.ended}`);
  return parts.join("; ");
}

const COLUMNS = [
  { name: "Request", cell: (row) => html`<code>${row.kind === "tcp" ? "tcp" : `${row.method ?? ""} ${row.path ?? ""}`}</code>` },
  { name: "Answer", whole: true, cell: (row) => html`<${State} kind=${row.reason || row.status >= 500 ? "bad" : row.status >= 400 ? "warn" : "ok"}>${row.status ?? row.ended ?? "done"}</${State}>` },
  { name: "Reason", cell: (row) => (row.reason ? html`<code title=${reason(row.reason).means}>${row.reason}</code>${row.rule && html`<div class="small muted">${row.policy}, ${row.rule}</div>`}` : "–") },
  { name: "From", cell: (row) => account(row.from) },
  { name: "To", cell: (row) => html`${row.backend ?? row.service ?? "–"} ${row.version && html`<span class="muted small">${row.version}</span>`}` },
  { name: "Took", num: true, by: (row) => row.durationMs, cell: (row) => millis(row.durationMs) },
  { name: "Attempts", num: true, cell: (row) => row.attempts ?? "–" },
  { name: "Told by", cell: (row) => row.node ?? "–" },
];
