// Who did what, when, from where and why; and who was refused.

import { get } from "../lib/api.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { notRole, useWho } from "../lib/roles.js";
import { Clock, Loading, Problem, State, Table } from "../lib/ui.js";

export function Audit() {
  const not = notRole(useWho(), "operator");
  if (not) return html`<h1>Audit</h1><p>${not} <a href="#/changes">Changes</a> shows what was changed.</p>`;
  return html`<${Shown} />`;
}

function Shown() {
  const [before, setBefore] = useState([]);
  const [text, setText] = useState("");
  const [machines, setMachines] = useState(false);
  const at = before.at(-1);
  const { data, error } = usePoll((signal) => get(`/v1/audit?limit=500${at ? `&before=${at}` : ""}`, signal), `${at}`, 3000);
  const wanted = text.trim().toLowerCase();
  const rows = (data?.items ?? []).filter((one) => machines || !MACHINES.includes(one.action))
    .filter((one) => [one.who, one.action, one.object, one.why ?? "", one.from].some((part) => part.toLowerCase().includes(wanted)));
  return html`<h1>Audit</h1><${Problem} error=${error} />
    ${!data && !error && html`<${Loading} what="the audit log" />`}
    ${data && html`<div class="card">
      <div class="form"><label class="wide">Find by who, what, where or why<input type="search" value=${text} onInput=${(e) => setText(e.target.value)} /></label>
        <label class="line"><input type="checkbox" checked=${machines} onChange=${(e) => setMachines(e.target.checked)} />also what sidecars do by themselves</label></div>
      <${Table} caption="Audit log" rows=${rows} keyOf=${(one) => one.line} limit=${100} empty="No line of these says that." columns=${COLUMNS} />
      <div class="acts">${before.length > 0 && html`<button type="button" onClick=${() => setBefore(before.slice(0, -1))}>Newer</button>`}
        ${data.items.length === 500 && html`<button type="button" onClick=${() => setBefore([...before, data.items.at(-1).line])}>Older</button>`}</div>
    </div>`}`;
}

/** What sidecars do by themselves, all day long. */
const MACHINES = ["register", "withdraw", "expire", "use-token", "renew"];

const COLUMNS = [
  { name: "When", whole: true, cell: (one) => html`<${Clock} at=${one.at} />` },
  { name: "Who", cell: (one) => one.who },
  { name: "Did", whole: true, cell: (one) => (one.action === "refused" ? html`<${State} kind="bad">refused</${State}>` : one.action) },
  { name: "What", cell: (one) => one.object },
  { name: "Why", cell: (one) => one.why ?? html`<span class="muted">no reason given</span>` },
  { name: "From", whole: true, cell: (one) => html`<code>${one.from}</code>` },
];
